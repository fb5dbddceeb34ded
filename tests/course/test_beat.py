"""The notebooks keep to the beat of the course: predict, run, explain, break, in small cells with enough words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from k8snetlab.course import LESSONS, lesson

SOURCES = sorted((Path(__file__).resolve().parent.parent.parent / "notebooks" / "src").glob("*.py"))
LONGEST = 5
"""Lines of code in a cell; manifests inside of a cell are text."""

MOST = {"2_1": 60, "2_2": 60, "2_3": 60, "3_1": 60, "4_1": 60}
"""Cells of the notebooks that need about an hour; others have 45 at most."""


class Cell(NamedTuple):
    """One cell of a source: its first line, which says what it is, and its text."""

    head: str
    text: str

    @property
    def is_code(self) -> bool:
        return "[markdown]" not in self.head

    @property
    def lines(self) -> list[str]:
        """The lines of code, without comments and without the manifests in it."""
        code = re.sub(r'"""\n.*?\n"""', '""', self.text, flags=re.DOTALL)
        return [line for line in code.splitlines() if line.strip() and not line.startswith("#")]


def cells(path: Path) -> Iterator[Cell]:
    """The cells of a source."""
    parts = re.split(r"^(# %%.*)$", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    for head, text in zip(parts[::2], parts[1::2], strict=True):
        yield Cell(head, text)


def prose(path: Path) -> str:
    """All text of a source."""
    return "\n".join(cell.text for cell in cells(path) if not cell.is_code)


@pytest.fixture(params=SOURCES, ids=lambda path: path.stem)
def source(request: pytest.FixtureRequest) -> Path:
    """The source of each notebook."""
    path: Path = request.param
    return path


def test_every_lesson_has_a_notebook_of_its_title() -> None:
    """Number and title stand in the file's name and in the notebook's first line."""
    named = {path.stem: next(cells(path)).text for path in SOURCES}
    for number in LESSONS:
        one = lesson(number)
        stem = f"{number}_{re.sub('[ -]', '_', one.title.lower())}"
        assert f"# # {number.replace('_', '.')} {one.title}" in named[stem]


def test_a_notebook_has_the_parts_that_every_notebook_has(source: Path) -> None:
    """Question, objectives, something to break, exercises, quiz, summary and version notes."""
    text = prose(source)
    for part in (
        "**The question.**",
        "**After this notebook you can**",
        "## Break",
        "## Quiz",
        "## Summary",
        "**Version notes.**",
    ):
        assert part in text, part


def test_a_learner_predicts_explores_and_solves(source: Path) -> None:
    """Three predictions, each revealed; an explorer that a later cell drives; three exercises, each checked; a quiz."""
    code = "\n".join(cell.text for cell in cells(source) if cell.is_code)
    assert code.count("lesson.predict(") >= 3
    assert code.count("lesson.predict(") == code.count(".reveal(")
    assert code.count("k8s.explore.") >= 1
    assert re.search(r"^(explorer|planner)\.\w+.* = ", code, flags=re.MULTILINE)
    number = source.stem[:3]
    checked = re.findall(r'lesson\.check\("(\w+)"', code)
    assert checked == [exercise.name for exercise in lesson(number).exercises]
    assert "lesson.quiz()" in code


def test_cells_are_few_and_short(source: Path) -> None:
    """25 to 45 cells, or to 60 where there is an hour for them, and no more than five lines of code in one."""
    found = list(cells(source))
    assert 25 <= len(found) <= MOST.get(source.stem[:3], 45)
    assert [
        cell.text for cell in found if cell.is_code and len(cell.lines) > LONGEST and "solution:" not in cell.text
    ] == []


def test_there_are_enough_words_for_the_code(source: Path) -> None:
    """10 to 25 words of prose for each line of code."""
    words = len(re.sub(r"^# ?", "", prose(source), flags=re.MULTILINE).split())
    lines = sum(len(cell.lines) for cell in cells(source) if cell.is_code)
    assert 10 <= words / lines <= 25


def test_claims_are_asserts_and_nothing_is_defined(source: Path) -> None:
    """A notebook claims things about the network, and hides no work in functions."""
    code = "\n".join(cell.text for cell in cells(source) if cell.is_code)
    assert len(re.findall(r"^assert ", code, flags=re.MULTILINE)) >= 3
    assert not re.search(r"^\s*(def|class) ", code, flags=re.MULTILINE)
    assert re.findall(r"^(?:import|from) .*$", code, flags=re.MULTILINE) == ["import k8snetlab as k8s"]
