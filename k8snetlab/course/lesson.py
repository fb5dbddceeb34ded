"""What belongs to one notebook, beside its text?

Its exercises and its questions. A notebook opens its lesson once and asks it for everything:
`lesson.predict(…)`, `lesson.check(…)`, `lesson.quiz()`. What is done is remembered under the lesson's number,
which is the section of the guide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from k8snetlab.course import progress
from k8snetlab.course.exercise import Exercise
from k8snetlab.course.feedback import Feedback
from k8snetlab.course.prediction import Prediction
from k8snetlab.course.quiz import Question, Quiz
from k8snetlab.errors import UnknownName

__all__ = ["Lesson"]


class Lesson(msgspec.Struct, frozen=True):
    """A notebook's number, title, exercises and questions, and what its exercises start with."""

    number: str
    title: str
    exercises: tuple[Exercise[Any], ...]
    questions: tuple[Question, ...]
    givens: Mapping[str, Callable[[], Any]] = {}

    def given(self, name: str) -> Any:
        """What an exercise starts with, where seeing how it was made would tell the answer. Raises `UnknownName`."""
        if name not in self.givens:
            raise UnknownName("starting point", name, self.givens)
        return self.givens[name]()

    def predict(self, question: str, choices: Sequence[object] | Mapping[Any, str]) -> Prediction:
        """A question to commit to before the next cell answers it."""
        return Prediction(question, choices, lambda: progress.record(self.number, f"prediction {question}"))

    def check(self, name: str, answer: object) -> Feedback:
        """Check the answer to an exercise. Raises `UnknownName` for an exercise this lesson does not have."""
        feedback = self.exercise(name).check(answer)
        if feedback:
            progress.record(self.number, f"exercise {name}")
        return feedback

    def exercise(self, name: str) -> Exercise[Any]:
        """The exercise of that name."""
        for exercise in self.exercises:
            if exercise.name == name:
                return exercise
        raise UnknownName("exercise", name, [exercise.name for exercise in self.exercises])

    def quiz(self) -> Quiz:
        """The questions, ready to be answered."""
        return Quiz(self.questions, lambda name: progress.record(self.number, f"question {name}"))

    def __repr__(self) -> str:
        return f"{self.number} {self.title}: {len(self.exercises)} exercises, {len(self.questions)} questions"
