"""Predictions, quizzes and progress, without and with their views."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from k8snetlab.course import Choice, Grade, Overview, Prediction, Question, Quiz, lesson, progress
from k8snetlab.errors import BadOption, UnknownName

QUESTION = Question(
    "colour",
    "Which colour is the sky?",
    (Choice("blue", "Yes, by day.", right=True), Choice("green", "That is the grass.")),
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home for progress that nobody else uses."""
    monkeypatch.setenv("K8SNETLAB_HOME", str(tmp_path))
    return tmp_path


def test_a_prediction_without_a_choice_only_says_what_came_out() -> None:
    """A notebook that runs by itself predicts nothing and stops nowhere."""
    feedback = Prediction("How many?", [1, 2]).reveal(2)
    assert str(feedback) == "No prediction. The model says: 2."


def test_what_came_out_is_folded_away_until_somebody_guessed() -> None:
    """A finished notebook still leaves room for a guess; the plain text says everything."""
    guess = Prediction("How many?", [1, 2])
    assert "<details>" in guess.reveal(2)._repr_html_()
    guess.choose(1)
    assert "<details>" not in guess.reveal(2)._repr_html_()


@pytest.mark.parametrize(("choice", "grade"), [(1, Grade.SURPRISE), (2, Grade.RIGHT)])
def test_a_prediction_is_compared_with_the_model(choice: int, grade: Grade) -> None:
    """Who committed to an answer is told how it compares."""
    guess = Prediction("How many?", [1, 2])
    guess.choose(choice)
    assert guess.reveal(2).grade is grade


def test_a_result_that_was_no_choice_stops_the_notebook() -> None:
    """When the model changes, a text that no longer fits is noticed."""
    with pytest.raises(UnknownName, match="3"):
        Prediction("How many?", [1, 2]).reveal(3)


def test_choices_that_read_the_same_are_refused() -> None:
    """One and "1" cannot be told apart on a button."""
    with pytest.raises(BadOption, match="read the same"):
        Prediction("How many?", [1, "1"])


def test_the_buttons_of_a_prediction_commit_to_a_choice() -> None:
    """A click in the browser arrives as a new state of the buttons."""
    from k8snetlab.course.view import prediction_view

    guess = Prediction("How many?", {1: "alone", 2: "a pair"})
    buttons = prediction_view(guess).children[1]
    buttons.set_state({"index": 1})
    assert guess.choice == "2"


def test_a_quiz_explains_each_choice() -> None:
    """Right and wrong choices have their own words."""
    quiz = Quiz((QUESTION,))
    assert str(quiz.answer("colour", "green")) == "Not yet. That is the grass."
    assert quiz.answer("colour", "blue")


def test_a_question_or_choice_that_does_not_exist_is_an_error() -> None:
    """The names that exist are listed."""
    quiz = Quiz((QUESTION,))
    with pytest.raises(UnknownName, match="colour"):
        quiz.answer("taste", "sweet")
    with pytest.raises(UnknownName, match="blue"):
        quiz.answer("colour", "blu")


def test_the_buttons_of_a_quiz_show_the_explanation() -> None:
    """A click answers, and the explanation appears under the question."""
    from k8snetlab.course.view import quiz_view

    quiz = Quiz((QUESTION,))
    _, buttons, said = quiz_view(quiz).children[0].children
    buttons.set_state({"index": 1})
    assert "That is the grass." in said.value
    assert quiz.chosen == {"colour": "green"}


@pytest.mark.parametrize(
    "shown", [Prediction("How many?", [1, 2]), Quiz((QUESTION,)), Overview()], ids=lambda one: type(one).__name__
)
def test_every_view_has_a_text_of_its_own(shown: Any, home: Path) -> None:
    """What a notebook without a kernel shows, and what tests compare, names no widget and no address."""
    bundle = shown._repr_mimebundle_()
    assert bundle["text/plain"] == str(shown)
    assert "0x" not in bundle["text/plain"]
    assert "application/vnd.jupyter.widget-view+json" in bundle


def test_a_solved_exercise_is_remembered(home: Path) -> None:
    """Progress is kept between sessions, under the lesson and the exercise."""
    one = lesson("0_0")
    assert one.check("ttl", one.exercise("ttl").solution())
    assert progress.load().of("0_0", "exercise") == ("ttl",)


def test_a_wrong_answer_is_not_remembered(home: Path) -> None:
    """Only what was solved counts."""
    lesson("0_0").check("ttl", 64)
    assert progress.load() == progress.Progress()


def test_progress_can_be_reset(home: Path) -> None:
    """Starting over forgets everything."""
    progress.record("0_0", "exercise ttl")
    progress.reset()
    assert progress.load() == progress.Progress()


def test_a_broken_progress_file_counts_as_none(home: Path) -> None:
    """Nobody is kept from learning by half a file."""
    (home / "progress.json").write_text("{")
    assert progress.load() == progress.Progress()


def test_progress_that_cannot_be_written_is_not_kept(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home that is a file raises nothing."""
    (home / "file").write_text("")
    monkeypatch.setenv("K8SNETLAB_HOME", str(home / "file"))
    progress.record("0_0", "exercise ttl")
    assert progress.load() == progress.Progress()


def test_progress_never_changes_the_text_of_the_overview(home: Path) -> None:
    """The overview's text is compared by tests, so it says the same to everybody."""
    before = str(Overview())
    progress.record("0_0", "exercise ttl")
    assert str(Overview()) == before


def test_the_overview_shows_what_is_done_and_starts_over(home: Path) -> None:
    """The table counts solved exercises; its button forgets them."""
    from k8snetlab.course.view import progress_view

    progress.record("0_0", "exercise ttl")
    table, button = progress_view(progress.load(), (lesson("0_0"),)).children
    assert "1 of 3 exercises" in table.value
    button.click()
    assert "0 of 3 exercises" in table.value
