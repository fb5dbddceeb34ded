"""Predict, run, explain, break, explain: what the notebooks use to teach with.

`lesson("2_1")` is what a notebook opens: it makes predictions, checks exercises and asks the quiz.
`Overview()` shows how far one is through the course. Answers are judged by the model, not by a list of right
answers.

    >>> from k8snetlab import course
    >>> course.lesson("0_0").check("ttl", ...)
    No answer yet. Put a whole number in the place of the dots and run the cell again.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from k8snetlab.course.exercise import Exercise, Mistake
from k8snetlab.course.feedback import Feedback, Grade
from k8snetlab.course.lesson import Lesson
from k8snetlab.course.prediction import Prediction
from k8snetlab.course.quiz import Choice, Question, Quiz
from k8snetlab.errors import UnknownName

__all__ = [
    "LESSONS", "Choice", "Exercise", "Feedback", "Grade", "Lesson", "Mistake", "Overview", "Prediction", "Question",
    "Quiz", "lesson", "lessons",
]  # fmt: skip

LESSONS = ("0_0", "1_1", "1_2", "2_1", "2_2", "2_3", "3_1", "4_1", "5_1", "5_5", "5_7")
"""The sections that have a notebook, in the order of the guide."""


def lesson(number: str) -> Lesson:
    """The lesson of a section of the guide. Raises `UnknownName`."""
    if number not in LESSONS:
        raise UnknownName("lesson", number, LESSONS)
    found: Lesson = import_module(f"k8snetlab.course.lesson_{number}").LESSON
    return found


def lessons() -> tuple[Lesson, ...]:
    """All of them."""
    return tuple(lesson(number) for number in LESSONS)


class Overview:
    """How far one is through the course; it shows what is remembered at the moment it is displayed.

    Its text names the lessons only: what one learner did must not change a checked output.
    """

    def __str__(self) -> str:
        return "\n".join(
            ("The course (with a running kernel, your progress is shown here)", *(f"  {one!r}" for one in lessons()))
        )

    def __repr__(self) -> str:
        return str(self)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        from k8snetlab.course.progress import load
        from k8snetlab.course.view import progress_view, shown

        items = "".join(f"<li>{one!r}</li>" for one in lessons())
        html = f"<p>The course (with a running kernel, your progress is shown here):</p><ul>{items}</ul>"
        return shown(progress_view(load(), lessons()), str(self), html)
