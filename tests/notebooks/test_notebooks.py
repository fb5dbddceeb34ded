"""The published notebooks: complete, executed, and of the beat that the course promises."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = Path(__file__).resolve().parent.parent.parent / "notebooks"
PUBLISHED = sorted([*NOTEBOOKS.glob("*.ipynb"), *NOTEBOOKS.glob("solutions/*.ipynb")])
SOURCES = sorted(NOTEBOOKS.glob("src/*.py"))


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    """The cells of `kind` of a notebook file."""
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def named(path: Path) -> str:
    """A short name for test ids."""
    return str(path.relative_to(NOTEBOOKS))


def test_every_source_has_both_editions() -> None:
    """What is published is what has a source, no more and no less."""
    stems = {path.stem for path in SOURCES}
    assert stems, "there are no sources"
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == stems
    assert {path.stem for path in NOTEBOOKS.glob("solutions/*.ipynb")} == stems


@pytest.mark.parametrize("path", PUBLISHED, ids=named)
def test_every_cell_was_executed_in_order(path: Path) -> None:
    """A cell that was never run would pass a strict comparison of its outputs unchecked."""
    counts = [cell["execution_count"] for cell in cells(path, "code")]
    assert counts == list(range(1, len(counts) + 1))


@pytest.mark.parametrize("path", PUBLISHED, ids=named)
def test_no_cell_shows_a_warning_or_an_error(path: Path) -> None:
    """A learner's first sight of a cell is never a traceback that nobody meant."""
    outputs = [output for cell in cells(path, "code") for output in cell["outputs"]]
    assert [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"] == []


@pytest.mark.parametrize("path", PUBLISHED, ids=named)
def test_every_picture_has_words(path: Path) -> None:
    """Who cannot see a picture, or has an untrusted notebook, reads its text."""
    shown = [output["data"] for cell in cells(path, "code") for output in cell["outputs"] if "data" in output]
    silent = [data for data in shown if len("".join(data.get("text/plain", []))) < 8 and len(data) > 1]
    assert silent == []


@pytest.mark.parametrize("path", SOURCES, ids=named)
def test_imports_come_from_the_front_door(path: Path) -> None:
    """A notebook uses what a learner would use: the front door, the explorers and the exercises."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    modules += [alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    ours = {name.split(".")[1] for name in modules if name.startswith("k8snetlab.")}
    assert ours <= {"explore", "course"}
