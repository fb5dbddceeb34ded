"""Is this answer right, and if not, what was the mistake?

An exercise is checked on what the answer *does*: a Trace is asked for its verdict, a Cluster for its
contract. What is right is computed from the model each time, never written down. The mistakes people make are
values too: each recognises itself in an answer and has a hint of its own that says where to look, and never
the answer.

Where no mistake recognises itself, the exercise's `otherwise` says what the question was about. An unanswered
exercise (`...`, as the learner's edition has it, or `None`) is told so, and the notebook runs on.

Not modelled: partly right answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import msgspec

from k8snetlab.course.feedback import Feedback, Grade

__all__ = ["Exercise", "Mistake"]

T = TypeVar("T")


class Mistake(msgspec.Struct, Generic[T], frozen=True):
    """A typical wrong answer: how it is recognised, what is said to it, and an example of it."""

    name: str
    made: Callable[[T], bool]
    hint: Callable[[T], str]
    example: Callable[[], T]


class Exercise(msgspec.Struct, Generic[T], frozen=True):
    """A question with a checkable answer.

    `wants` is the type of an answer and `wanted` says it in words. `right` decides; `mistakes` are tried in their order
    when it says no. `solution` is an answer that is right.
    """

    name: str
    wants: type[T]
    wanted: str
    right: Callable[[T], bool]
    praise: Callable[[T], str]
    mistakes: tuple[Mistake[T], ...]
    otherwise: str
    solution: Callable[[], T]

    def check(self, answer: object) -> Feedback:
        """What there is to say to an answer. Never raises for one: any object is an answer."""
        if answer is None or answer is ...:
            return Feedback(Grade.UNANSWERED, f"Put {self.wanted} in the place of the dots and run the cell again.")
        if not isinstance(answer, self.wants):
            return Feedback(Grade.NOT_YET, f"The answer should be {self.wanted}, and this is {_named(answer)}.")
        if self.right(answer):
            return Feedback(Grade.RIGHT, self.praise(answer))
        for mistake in self.mistakes:
            if mistake.made(answer):
                return Feedback(Grade.NOT_YET, mistake.hint(answer))
        return Feedback(Grade.NOT_YET, self.otherwise)


AnyExercise = Exercise[Any]


def _named(answer: object) -> str:
    name = type(answer).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
