"""The command line, run in this process; its documents are checked against the schemas that the package ships."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import pytest
from jsonschema import Draft202012Validator
from typer.testing import CliRunner, Result

from k8snetlab import schemas
from k8snetlab.cli import app

BOOKSHOP = Path(__file__).resolve().parent.parent.parent / "data" / "bookshop"


class Run(Protocol):
    """Runs a command line, with standard input if it is given."""

    def __call__(self, *words: str | Path, stdin: str | bytes | None = None) -> Result: ...


@pytest.fixture
def run() -> Run:
    """The command line. What it does not catch itself fails the test."""

    def call(*words: str | Path, stdin: str | bytes | None = None) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words], input=stdin, catch_exceptions=False)

    return call


@pytest.fixture
def shop(run: Run) -> Run:
    """The command line, asked about the bookshop: `shop("trace", "--from", …)`."""

    def call(*words: str | Path, stdin: str | bytes | None = None) -> Result:
        command, *rest = words
        return run(command, "-f", BOOKSHOP, *rest, stdin=stdin)

    return call


@pytest.fixture
def document() -> Callable[[Result], dict[str, Any]]:
    """The JSON document that a command printed, after it was checked against the schema of its kind."""

    def read(result: Result) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(result.stdout_bytes)
        schema = schemas.load(found["kind"])
        Draft202012Validator.check_schema(schema)
        Draft202012Validator(schema).validate(found)
        assert found["schema"] == schemas.VERSION
        return found

    return read
