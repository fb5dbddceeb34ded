"""Where does an answer go?

The answer goes to standard output, and nothing else does: text that is coloured on a terminal, JSON, or bytes. Notes
and errors go to standard error — except that a program which asked for JSON gets its errors as a document too.

Not modelled: pagers, log files.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from itertools import pairwise
from typing import Any

import msgspec
import typer

from k8snetlab.errors import Problem
from k8snetlab.trace.table import WIDTH

__all__ = [
    "Format", "WRONG_INPUT", "columns", "compact", "document", "explain", "note", "on_a_terminal", "raw", "refuse",
    "say", "written",
]  # fmt: skip

WRONG_INPUT = 2
NARROWEST = 72


class Format(StrEnum):
    """How most answers can be printed."""

    TEXT = "text"
    JSON = "json"


def on_a_terminal() -> bool:
    """Whether a person looks at standard output."""
    return sys.stdout.isatty()


def columns() -> int:
    """How wide an answer may be: as the terminal is; else as wide as is good to read in a file."""
    return max(shutil.get_terminal_size().columns, NARROWEST) if on_a_terminal() else WIDTH


def say(text: str) -> None:
    """Print text, coloured where a person looks at it and `NO_COLOR` is not set."""
    if on_a_terminal():
        from k8snetlab.cli import paint

        paint.say(text)
    else:
        raw(f"{text.rstrip()}\n".encode())


def raw(octets: bytes) -> None:
    """Write bytes as they are. Text is written as UTF-8 whatever the locale: an arrow must not be an error."""
    typer.echo(octets, nl=False)


def compact(kind: str, content: Mapping[str, Any]) -> None:
    """Print a JSON document in one line: for matrices, which indented would have a line for each cell."""
    raw(msgspec.json.encode({"schema": "k8snetlab/v1", "kind": kind, **content}) + b"\n")


def document(kind: str, content: Mapping[str, Any]) -> None:
    """Print a JSON document of a kind that `k8snetlab.schemas` describes."""
    raw(written(kind, content))


def written(kind: str, content: Mapping[str, Any]) -> bytes:
    """A JSON document of a kind that `k8snetlab.schemas` describes."""
    whole = {"schema": "k8snetlab/v1", "kind": kind, **content}
    return msgspec.json.format(msgspec.json.encode(whole), indent=2) + b"\n"


def note(text: str) -> None:
    """Something worth knowing that is not the answer."""
    typer.echo(f"note: {text}".encode(), err=True)


def refuse(problems: Iterable[Problem], words: Sequence[str]) -> int:
    """Say why there is no answer, as the command line `words` asked for it; gives the exit status."""
    explain(problems, Format.JSON if asks_for_json(words) else Format.TEXT)
    return WRONG_INPUT


def explain(problems: Iterable[Problem], as_: Format) -> None:
    """Say what stands in the way of an answer."""
    if as_ is Format.JSON:
        document("Error", {"errors": [problem.as_dict() for problem in problems]})
    else:
        for problem in problems:
            typer.echo(f"error: {problem}".encode(), err=True)


def asks_for_json(words: Sequence[str]) -> bool:
    """Whether a command line has `-o json` in it, even one that is wrong elsewhere.

    >>> asks_for_json(["trace", "--nodes", "many", "-o", "json"]), asks_for_json(["trace", "-o", "text"])
    (True, False)
    """
    together = any(word in ("-ojson", "-o=json", "--output=json") for word in words)
    return together or any(pair in (("-o", "json"), ("--output", "json")) for pair in pairwise(words))
