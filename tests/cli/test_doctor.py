"""`k8snetlab doctor`: what the machine can do, and what brings the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from k8snetlab.cni import VARIANTS as CNIS

from .conftest import Run

Document = Callable[[Result], dict[str, Any]]


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with nothing on its search path and no screen."""
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)


def test_doctor_always_answers(run: Run, document: Document) -> None:
    """Status 0 whatever is missing, and a document that follows the schema."""
    found = document(run("doctor", "-o", "json"))["capabilities"]
    assert len({each["capability"] for each in found}) == len(found)
    assert all(each["reason"] for each in found)
    assert run("doctor").exit_code == 0


def test_what_runs_this_test_is_present(run: Run, document: Document) -> None:
    """Python and the libraries of the base are here."""
    found = {each["capability"]: each for each in document(run("doctor", "-o", "json"))["capabilities"]}
    assert all(found[name]["present"] for name in ("Python", "pictures", "graphs"))


def test_what_no_kernel_is_given_is_said(run: Run, document: Document) -> None:
    """Cilium's programs and Weave's router are not in any kernel here, and so traces under them are walks alone."""
    found = {each["capability"]: each for each in document(run("doctor", "-o", "json"))["capabilities"]}
    given = {name: found[f"real kernel: a network of {name}"]["present"] for name in CNIS}
    assert given == {
        "bridge": True, "flannel": True, "cloud": True, "calico": False, "cilium": False, "weave": False
    }  # fmt: skip
    assert "Cilium's programs" in found["real kernel: a network of cilium"]["reason"]
    assert "router of a mesh" in found["real kernel: a network of weave"]["reason"]


@pytest.mark.usefixtures("bare")
def test_what_is_missing_comes_with_its_package(run: Run, document: Document) -> None:
    """A program that is not there names the package, and the text ends with the command that installs it."""
    found = {each["capability"]: each for each in document(run("doctor", "-o", "json"))["capabilities"]}
    assert found["reading captures"]["present"] is False
    assert found["reading captures"]["package"] == "tcpdump"
    assert "apt-get install " in run("doctor").stdout.splitlines()[-1]


@pytest.mark.usefixtures("bare")
def test_a_program_appears_when_it_is_installed(run: Run, document: Document, tmp_path: Path) -> None:
    """Nothing is assumed: the search path decides."""
    program = tmp_path / "tcpdump"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    found = {each["capability"]: each for each in document(run("doctor", "-o", "json"))["capabilities"]}
    assert found["reading captures"]["reason"] == str(program)


def test_a_browser_needs_a_screen(
    run: Run, document: Document, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """An installed browser is of no use where nothing can be shown."""
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("PATH", str(tmp_path))
    program = tmp_path / "chromium"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    shown = []
    for display in ("", ":0"):
        monkeypatch.setenv("DISPLAY", display)
        found = {each["capability"]: each for each in document(run("doctor", "-o", "json"))["capabilities"]}
        shown.append(found["a browser on this machine"]["present"])
    assert shown == [False, True]


def test_a_missing_module_names_the_extra(run: Run, document: Document, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without JupyterLab the course is missing, and pip's command brings it."""
    monkeypatch.setitem(__import__("sys").modules, "jupyterlab", None)
    found = {each["capability"]: each for each in document(run("doctor", "-o", "json"))["capabilities"]}
    assert found["the course in a browser"]["package"] == "k8snetlab[lab]"
    assert "pip install 'k8snetlab[lab]'" in run("doctor").stdout
