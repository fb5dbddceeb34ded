"""The front door: the names that notebooks and scripts use, and the words that lead through it."""

from __future__ import annotations

import doctest
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import k8snetlab as k8s

PACKAGE = Path(k8s.__file__).parent
WITH_EXAMPLES = sorted(
    ".".join(("k8snetlab", *path.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__")
    for path in PACKAGE.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


def test_about_twenty_names_are_enough() -> None:
    """Each is there, and explains itself."""
    assert 15 <= len(k8s.__all__) <= 25 and list(k8s.__all__) == sorted(k8s.__all__)
    for name in k8s.__all__:
        assert inspect.getdoc(getattr(k8s, name)), name


@pytest.mark.parametrize("leaf", ["course", "draw", "explore"])
def test_a_leaf_is_loaded_when_it_is_asked_for(leaf: str) -> None:
    """`k8s.draw` is the room of that name."""
    assert getattr(k8s, leaf) is importlib.import_module(f"k8snetlab.{leaf}")


def test_other_names_are_unknown() -> None:
    """As of any module."""
    with pytest.raises(AttributeError, match="module 'k8snetlab' has no attribute 'drawing'"):
        _ = k8s.drawing


def test_the_story_of_the_docstring_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """Its lines of code, one after the other, and each print says something."""
    story = k8s.__doc__ or ""
    code = "\n".join(line.strip() for line in story.splitlines() if line.startswith("    "))
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102  # our own text
    said = capsys.readouterr().out
    assert "DELIVERED" in said and "probability=0.333" in said and "-A KUBE-SERVICES" in said


def test_every_question_of_the_readme_can_be_asked() -> None:
    """The Python lines of README.md run as they stand there."""
    readme = PACKAGE.parent / "README.md"
    [code, *_] = re.findall(r"```python\n(.*?)```", readme.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)  # noqa: S102  # our own text
    assert isinstance(names["trace"], k8s.Trace)


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_examples_in_docstrings_are_true(module: str) -> None:
    """What stands behind >>> gives what stands below it."""
    found = doctest.testmod(importlib.import_module(module))
    assert found.attempted and not found.failed
