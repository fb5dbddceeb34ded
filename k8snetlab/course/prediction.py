"""What do you think will happen?

Before a cell that computes something stands a prediction: a question and the answers that people give. The
learner commits to one, then the model is asked, and `reveal` compares. What is right is not written down
here: it is what the next cell computes, and if that is none of the choices the notebook stops, because its
text no longer fits the model.

Without a choice everything still runs: `reveal` then simply says what came out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from k8snetlab.course.feedback import Feedback, Grade
from k8snetlab.errors import BadOption, UnknownName

__all__ = ["Prediction"]


class Prediction:
    """A question, its choices, and the one that was committed to (`choice`, empty so far).

    Choices are values, or a mapping of values to words about them; values are compared as text.

    >>> guess = Prediction("Who answers?", {"10.96.0.10": "the Service", "10.244.1.2": "the pod"})
    >>> guess.choose("10.96.0.10")
    >>> guess.reveal("10.244.1.2")
    A surprise. You predicted: 10.96.0.10 (the Service). The model says: 10.244.1.2 (the pod). What is different?
    """

    def __init__(
        self,
        question: str,
        choices: Sequence[object] | Mapping[Any, str],
        committed: Callable[[], None] = lambda: None,
    ) -> None:
        about = choices if isinstance(choices, Mapping) else {}
        self.question = question
        self.labels = {str(choice): _label(str(choice), about.get(choice, "")) for choice in choices}
        self.choice = ""
        self._committed = committed
        if len(self.labels) != len(choices):
            raise BadOption(f"two choices of {question!r} read the same")

    def choose(self, choice: object) -> None:
        """Commit to an answer; the last one before `reveal` counts. Raises `UnknownName` for what is no choice."""
        if str(choice) not in self.labels:
            raise UnknownName("choice", str(choice), self.labels)
        self.choice = str(choice)

    def reveal(self, actual: object) -> Feedback:
        """Compare with what the model computed. Raises `UnknownName` when that is none of the choices."""
        if str(actual) not in self.labels:
            raise UnknownName("choice", str(actual), self.labels)
        outcome = self.labels[str(actual)]
        if not self.choice:
            return Feedback(Grade.UNPREDICTED, f"The model says: {outcome}.")
        self._committed()
        if self.choice == str(actual):
            return Feedback(Grade.RIGHT, f"As you predicted: {outcome}.")
        predicted = self.labels[self.choice]
        return Feedback(Grade.SURPRISE, f"You predicted: {predicted}. The model says: {outcome}. What is different?")

    def __str__(self) -> str:
        lines = (f"  ( ) {label}" for label in self.labels.values())
        return "\n".join((f"Predict: {self.question}", *lines))

    def __repr__(self) -> str:
        return str(self)

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        from k8snetlab.course.view import prediction_view, shown

        items = "".join(f"<li>{escape(label)}</li>" for label in self.labels.values())
        html = f"<p><b>Predict:</b> {escape(self.question)}</p><ul>{items}</ul>"
        return shown(prediction_view(self), str(self), html)


def _label(choice: str, about: str) -> str:
    return f"{choice} ({about})" if about else choice
