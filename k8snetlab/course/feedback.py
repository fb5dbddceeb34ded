"""What does the checker say to an answer?

A sentence, always: that it is right and why, or what to look at again, or, calmly, that there is no answer
yet. It prints the same everywhere; in a notebook a coloured bar stands beside it, and the words say what the
colour says. What came out where nobody had made a prediction is folded away: there is still time for one.

Not modelled: marks, points, time. The course tells what to look at next, not who is best.
"""

from __future__ import annotations

from enum import StrEnum
from html import escape

import msgspec

__all__ = ["Feedback", "Grade"]


class Grade(StrEnum):
    """How an answer stands; the values are the words that are said."""

    RIGHT = "Right"
    NOT_YET = "Not yet"
    UNANSWERED = "No answer yet"
    SURPRISE = "A surprise"  # a prediction that did not come true
    UNPREDICTED = "No prediction"


# Okabe and Ito's palette: told apart with any colour vision, and on light and dark ground.
COLOURS = {
    Grade.RIGHT: "#009e73",
    Grade.NOT_YET: "#d55e00",
    Grade.SURPRISE: "#d55e00",
    Grade.UNANSWERED: "#888888",
    Grade.UNPREDICTED: "#888888",
}


class Feedback(msgspec.Struct, frozen=True):
    """A grade and a sentence. True in a condition only when the answer is right.

    >>> print(Feedback(Grade.NOT_YET, "That is the node of the pod."))
    Not yet. That is the node of the pod.
    """

    grade: Grade
    text: str

    def __bool__(self) -> bool:
        return self.grade is Grade.RIGHT

    def __str__(self) -> str:
        return f"{self.grade}. {self.text}"

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        head, text = f"<b>{self.grade}.</b>", escape(self.text)
        if self.grade is Grade.UNPREDICTED:  # who scrolls through a finished notebook may still want to guess
            text = f"<details><summary>Show what came out</summary>{text}</details>"
        return barred(f"{head} {text}", COLOURS[self.grade])


def barred(html: str, colour: str) -> str:
    """A paragraph with a coloured bar at its left; the text keeps the colour of the page, light or dark."""
    style = f"border-left: 4px solid {colour}; padding: 2px 10px; margin: 4px 0"
    return f'<div style="{style}">{html}</div>'
