"""`k8snetlab progress`: what the notebooks remember, from a shell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from k8snetlab.course import LESSONS, lesson, progress

from .conftest import Run

Document = Callable[[Result], dict[str, Any]]


@pytest.fixture(autouse=True)
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A learner who has not begun."""
    monkeypatch.setenv("K8SNETLAB_HOME", str(tmp_path))


def test_every_lesson_has_a_row(run: Run, document: Document) -> None:
    """Who has not begun sees the whole course, with nothing done."""
    rows = document(run("progress", "-o", "json"))["lessons"]
    assert [row["section"] for row in rows] == list(LESSONS)
    assert not any(row["exercises"] or row["questions"] or row["predictions"] for row in rows)
    assert all(row["of_exercises"] and row["of_questions"] for row in rows)


def test_what_a_notebook_remembers_is_counted(run: Run, document: Document) -> None:
    """A solved exercise is one of three, in the text as in the document."""
    first = lesson("2_1")
    exercise = first.exercises[0]
    assert first.check(exercise.name, exercise.solution())
    row = next(row for row in document(run("progress", "-o", "json"))["lessons"] if row["section"] == "2_1")
    assert (row["exercises"], row["of_exercises"]) == (1, len(first.exercises))
    line = next(line for line in run("progress").stdout.splitlines() if line.startswith("2_1"))
    assert f"1 of {len(first.exercises)}" in line


def test_a_reset_forgets_everything(run: Run, document: Document) -> None:
    """The course begins anew, and the answer says so at once."""
    progress.record("1_1", "question who")
    rows = document(run("progress", "--reset", "-o", "json"))["lessons"]
    assert not any(row["questions"] for row in rows)
    assert progress.load() == progress.Progress()


def test_what_a_lesson_no_longer_has_does_not_count(run: Run, document: Document) -> None:
    """More is never done than there is."""
    progress.record("2_1", "exercise of long ago")
    rows = document(run("progress", "-o", "json"))["lessons"]
    assert not any(row["exercises"] for row in rows)
