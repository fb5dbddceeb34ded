"""How much of each lesson is done, and of how much?

Counted is what the lesson has today: what was solved of an older edition, and is gone, does not count.

Not modelled: marks. Predictions are counted as they are made, since a notebook makes them as it runs.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from k8snetlab.course.lesson import Lesson
from k8snetlab.course.progress import Progress

__all__ = ["Standing", "standings"]


class Standing(msgspec.Struct, frozen=True):
    """One lesson: exercises solved and questions answered right, each of how many, and predictions made."""

    section: str
    title: str
    exercises: int
    of_exercises: int
    questions: int
    of_questions: int
    predictions: int

    @property
    def complete(self) -> bool:
        """Whether every exercise and every question is done."""
        return (self.exercises, self.questions) == (self.of_exercises, self.of_questions)


def standings(done: Progress, lessons: Iterable[Lesson]) -> tuple[Standing, ...]:
    """A row for each lesson, in their order."""
    return tuple(_standing(done, lesson) for lesson in lessons)


def _standing(done: Progress, lesson: Lesson) -> Standing:
    exercises = {each.name for each in lesson.exercises}
    questions = {each.name for each in lesson.questions}
    return Standing(
        section=lesson.number,
        title=lesson.title,
        exercises=len(exercises.intersection(done.of(lesson.number, "exercise"))),
        of_exercises=len(exercises),
        questions=len(questions.intersection(done.of(lesson.number, "question"))),
        of_questions=len(questions),
        predictions=len(done.of(lesson.number, "prediction")),
    )
