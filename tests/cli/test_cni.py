"""`k8snetlab cni`: what the runtime says to plugins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

from .conftest import Run

Document = Callable[[Result], dict[str, Any]]


def test_a_pod_is_plugged_in_unless_something_else_is_asked(shop: Run) -> None:
    """Variables, standard input and answer of every plugin."""
    result = shop("cni", "shop/web-0")
    assert result.exit_code == 0
    assert result.stdout.startswith("$ CNI_COMMAND=ADD \\\n")
    assert "/opt/cni/bin/host-local <<EOF" in result.stdout
    assert '"address": "10.244.2.2/24"' in result.stdout


@pytest.mark.parametrize(
    ("name", "command"),
    [("shop/web-0", "ADD"), ("shop/web-0", "CHECK"), ("shop/web-0", "DEL"), ("node-1", "GC"), ("node-1", "STATUS")],
)
def test_the_document_follows_the_schema(shop: Run, document: Document, name: str, command: str) -> None:
    """Each command, about a pod or a node."""
    found = document(shop("cni", name, command, "--cni", "bridge", "-o", "json"))
    assert (found["name"], found["command"], found["succeeded"]) == (name, command, True)
    assert [each["plugin"] for each in found["calls"]] == ["bridge"]
    assert [each["plugin"] for each in found["calls"][0]["delegated"]] == ["host-local"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("shop/nobody",), "there is no pod 'shop/nobody'"),
        (("shop/web-0", "CHECK"), "the configuration is for version 0.3.1, which has no CHECK"),
        (("node-1",), "ADD is about a pod"),
    ],
)
def test_a_wrong_question_is_refused(shop: Run, words: tuple[str, ...], why: str) -> None:
    """With the reason on standard error, and status 2."""
    result = shop("cni", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert why in result.stderr
