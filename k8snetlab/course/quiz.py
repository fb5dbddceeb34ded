"""Did the idea arrive?

A quiz is a few questions with choices; each choice, right or wrong, has its explanation, which is shown when
it is chosen. Many questions carry a `proof`: a small computation on the model that a test runs, so that a
change of the model that would make the right choice wrong is noticed.

Without a running kernel the answers stand folded away under the questions.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import msgspec

from k8snetlab.course.feedback import Feedback, Grade
from k8snetlab.errors import UnknownName

__all__ = ["Choice", "Question", "Quiz"]


class Choice(msgspec.Struct, frozen=True):
    """An answer one may choose, and what there is to say to it."""

    text: str
    why: str
    right: bool = False


class Question(msgspec.Struct, frozen=True):
    """A question with its choices, exactly one of them right. `proof` is true as long as the model says so too."""

    name: str
    text: str
    choices: tuple[Choice, ...]
    proof: Callable[[], bool] | None = None

    @property
    def answer(self) -> Choice:
        """The right choice."""
        return next(choice for choice in self.choices if choice.right)

    def said_to(self, text: str) -> Feedback:
        """What there is to say to the choice of that text."""
        choice = next((choice for choice in self.choices if choice.text == text), None)
        if choice is None:
            raise UnknownName("choice", text, [choice.text for choice in self.choices])
        return Feedback(Grade.RIGHT if choice.right else Grade.NOT_YET, choice.why)


class Quiz:
    """The questions of a lesson and the answers chosen so far. "
    "`solved` is called with the name of a question answered right."""

    def __init__(self, questions: tuple[Question, ...], solved: Callable[[str], None] = lambda _: None) -> None:
        self.questions = questions
        self.chosen: dict[str, str] = {}
        self._solved = solved

    def answer(self, name: str, text: str) -> Feedback:
        """Choose an answer, as the buttons do. Raises `UnknownName` for a question or choice that does not exist."""
        question = next((question for question in self.questions if question.name == name), None)
        if question is None:
            raise UnknownName("question", name, [question.name for question in self.questions])
        feedback = question.said_to(text)
        self.chosen[name] = text
        if feedback:
            self._solved(name)
        return feedback

    def __str__(self) -> str:
        return "\n\n".join(
            "\n".join((f"{number}. {question.text}", *(f"   ( ) {choice.text}" for choice in question.choices)))
            for number, question in enumerate(self.questions, 1)
        )

    def __repr__(self) -> str:
        return str(self)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        from k8snetlab.course.view import quiz_view, shown

        return shown(quiz_view(self), str(self), "".join(map(_static, self.questions)))


def _static(question: Question) -> str:
    items = "".join(f"<li>{escape(choice.text)}</li>" for choice in question.choices)
    said = "".join(
        f"<li>{escape(choice.text)}: <b>{'right' if choice.right else 'no'}</b>. {escape(choice.why)}</li>"
        for choice in question.choices
    )
    return (
        f"<p><b>{escape(question.text)}</b></p><ul>{items}</ul>"
        f"<details><summary>Show the answer</summary><ul>{said}</ul></details>"
    )
