"""The content of the lessons: every checker passes its solution, knows its mistakes, and never tells the answer."""

from __future__ import annotations

import re
from typing import Any

import pytest

from k8snetlab.course import Exercise, Grade, Mistake, Question, lesson, lessons
from k8snetlab.errors import UnknownName

EXERCISES = [pytest.param(e, id=f"{one.number}-{e.name}") for one in lessons() for e in one.exercises]
MISTAKES = [
    pytest.param(e, mistake, id=f"{one.number}-{e.name}-{mistake.name}")
    for one in lessons()
    for e in one.exercises
    for mistake in e.mistakes
]
QUESTIONS = [pytest.param(q, id=f"{one.number}-{q.name}") for one in lessons() for q in one.questions]


@pytest.mark.parametrize("exercise", EXERCISES)
def test_a_solution_is_right(exercise: Exercise[Any]) -> None:
    """The solution of each exercise is praised in a sentence."""
    feedback = exercise.check(exercise.solution())
    assert feedback.grade is Grade.RIGHT
    assert feedback.text.endswith(".")


@pytest.mark.parametrize(("exercise", "mistake"), MISTAKES)
def test_a_mistake_gets_its_own_hint(exercise: Exercise[Any], mistake: Mistake[Any]) -> None:
    """The example of each mistake is wrong, and is answered by the hint of that mistake and no other."""
    answer = mistake.example()
    feedback = exercise.check(answer)
    assert feedback.grade is Grade.NOT_YET
    assert feedback.text == mistake.hint(answer)


@pytest.mark.parametrize(("exercise", "mistake"), MISTAKES)
def test_a_hint_never_tells_the_answer(exercise: Exercise[Any], mistake: Mistake[Any]) -> None:
    """Where the solution is a word or a number, it stands in no hint."""
    solution = exercise.solution()
    if isinstance(solution, str | int | float):
        hint = mistake.hint(mistake.example())
        assert not re.search(rf"(?<![\w.]){re.escape(str(solution))}(?![\w])", hint)


@pytest.mark.parametrize("exercise", EXERCISES)
def test_an_unanswered_exercise_says_so_calmly(exercise: Exercise[Any]) -> None:
    """Dots and None are no mistake: the notebook runs on."""
    assert exercise.check(...).grade is Grade.UNANSWERED
    assert exercise.check(None).grade is Grade.UNANSWERED


@pytest.mark.parametrize("exercise", EXERCISES)
def test_an_answer_of_another_kind_is_named(exercise: Exercise[Any]) -> None:
    """Who gives a set where something else is asked for hears what was asked for."""
    feedback = exercise.check({"neither", "of", "these"})
    assert feedback.grade is Grade.NOT_YET
    assert exercise.wanted in feedback.text


@pytest.mark.parametrize("exercise", EXERCISES)
def test_every_exercise_knows_at_least_three_mistakes(exercise: Exercise[Any]) -> None:
    """A checker that only says yes or no teaches nothing."""
    names = [mistake.name for mistake in exercise.mistakes]
    assert len(names) >= 3
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("question", QUESTIONS)
def test_one_choice_of_a_question_is_right_and_each_is_explained(question: Question) -> None:
    """Every choice of a quiz has its explanation, and one of them is right."""
    assert [choice.right for choice in question.choices].count(True) == 1
    assert all(choice.why for choice in question.choices)
    assert len({choice.text for choice in question.choices}) == len(question.choices)


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_model_agrees_with_the_quiz(question: Question) -> None:
    """A proof that no longer holds means that a text of the quiz is no longer true."""
    assert question.proof is None or question.proof()


@pytest.mark.parametrize("one", lessons(), ids=lambda one: one.number)
def test_a_lesson_is_complete(one: Any) -> None:
    """Each lesson has at least three exercises and a quiz of at least four questions, all with names of their own."""
    assert len(one.exercises) >= 3
    assert len(one.questions) >= 4
    names = [each.name for each in (*one.exercises, *one.questions)]
    assert len({each.name for each in one.exercises}) == len(one.exercises)
    assert len({each.name for each in one.questions}) == len(one.questions)
    assert all(names)


def test_an_unknown_lesson_names_what_there_is() -> None:
    """Asking for a section without a notebook is an error that lists the notebooks."""
    with pytest.raises(UnknownName, match="0_0"):
        lesson("9_9")
