"""How do predictions, quizzes and progress look in a notebook?

Thin views: buttons that call the object they show, and a line of text that changes. Everything can be done by
keyboard, every control has a name, and `shown` gives each view a complete text of its own beside it, which is
what stands in a notebook that was not run, what a screen reader gets, and what tests compare.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import ipywidgets as widgets

from k8snetlab.course.feedback import COLOURS, Grade, barred

if TYPE_CHECKING:
    from k8snetlab.course.prediction import Prediction
    from k8snetlab.course.progress import Progress
    from k8snetlab.course.quiz import Question, Quiz

__all__ = ["prediction_view", "progress_view", "quiz_view", "shown"]

WIDE = widgets.Layout(width="auto", max_width="100%")


def shown(view: Any, text: str, html: str) -> dict[str, Any]:
    """The view, and what to show where there is no kernel to run it."""
    bundle: dict[str, Any] = dict(view._repr_mimebundle_())
    return {**bundle, "text/plain": text, "text/html": html}


def prediction_view(prediction: Prediction) -> Any:
    """The question with one button for each choice."""
    options = [(label, choice) for choice, label in prediction.labels.items()]
    buttons = _choices(options, prediction.choice, prediction.question)
    buttons.observe(lambda change: prediction.choose(change["new"]), "value")
    question = widgets.HTML(f"<b>Predict:</b> {escape(prediction.question)}")
    return widgets.VBox([question, buttons])


def quiz_view(quiz: Quiz) -> Any:
    """Every question with its choices, and under them what there is to say to the one chosen."""
    return widgets.VBox([_question(quiz, number, question) for number, question in enumerate(quiz.questions, 1)])


def _question(quiz: Quiz, number: int, question: Question) -> Any:
    chosen = quiz.chosen.get(question.name, "")
    buttons = _choices([choice.text for choice in question.choices], chosen, question.text)
    said = widgets.HTML(question.said_to(chosen)._repr_html_() if chosen else "")

    def choose(change: dict[str, Any]) -> None:
        said.value = quiz.answer(question.name, change["new"])._repr_html_()

    buttons.observe(choose, "value")
    return widgets.VBox([widgets.HTML(f"<b>{number}. {escape(question.text)}</b>"), buttons, said])


def _choices(options: Any, chosen: str, about: str) -> Any:
    return widgets.RadioButtons(options=list(options), value=chosen or None, layout=WIDE, tooltip=about)


def progress_view(progress: Progress, lessons: Any) -> Any:
    """One row a lesson: what is done of what there is. A button forgets everything."""
    from k8snetlab.course import progress as kept

    table = widgets.HTML(_table(progress, lessons))
    forget = widgets.Button(description="Start over", tooltip="forget all progress")

    def start_over(_: Any) -> None:
        kept.reset()
        table.value = _table(kept.load(), lessons)

    forget.on_click(start_over)
    return widgets.VBox([table, forget])


def _table(progress: Progress, lessons: Any) -> str:
    from k8snetlab.course.standing import standings

    rows = []
    for each in standings(progress, lessons):
        text = (
            f"<b>{each.section}</b> {escape(each.title)}: {each.exercises} of {each.of_exercises} exercises, "
            f"{each.questions} of {each.of_questions} questions, {each.predictions} predictions made"
        )
        rows.append(barred(text, COLOURS[Grade.RIGHT if each.complete else Grade.UNANSWERED]))
    return "".join(rows)
