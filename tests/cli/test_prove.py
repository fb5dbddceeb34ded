"""`k8snetlab prove`: the cluster on the real kernel, compared with the walk."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import Result

from k8snetlab import live
from k8snetlab.cluster import examples_folder
from k8snetlab.live.records import read, recorded
from k8snetlab.trace import Client

from .conftest import BOOKSHOP, Run

Document = Callable[[Result], dict[str, Any]]

SMALL = examples_folder() / "manifests" / "one-web-one-client.yaml"


@pytest.fixture(scope="module")
def kernel() -> None:
    """A machine that can hold a lab; the test skips, saying what is missing, where it cannot."""
    why = live.missing()
    if why:
        pytest.skip(why)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine with nothing on its search path."""
    monkeypatch.setenv("PATH", str(tmp_path))


def disagreeing() -> live.Proof:
    """A recorded proof in which one thing happened that the walk does not know."""
    proof = read(recorded()[0])
    first = proof.probes[0]
    lost = msgspec.structs.replace(first.seen[0], client=Client.TIMEOUT, error="TIMEOUT")
    wrong = msgspec.structs.replace(first, seen=(lost,))
    tally = msgspec.structs.replace(proof.kinds[0], agree=proof.kinds[0].asked - 1)
    return msgspec.structs.replace(proof, kinds=(tally, *proof.kinds[1:]), probes=(wrong, *proof.probes[1:]))


def test_a_place_for_the_proof_is_looked_for_first(run: Run, tmp_path: Path) -> None:
    """A folder that is not there is said at once, not after all packets."""
    result = run("prove", "-f", BOOKSHOP, "--evidence", tmp_path / "nowhere" / "proof.json")
    assert result.exit_code == 2
    assert "proof.json: --evidence: there is no folder for it" in result.stderr


def test_agreement_is_a_yes(run: Run, kernel: None) -> None:
    """Status 0, a table by kind of question, the kernel, and nothing on standard error."""
    result = run("prove", "-f", SMALL)
    assert result.exit_code == 0
    assert result.stdout.startswith("QUESTIONS")
    assert "questions end on the kernel as the walk says\nLinux " in result.stdout
    assert result.stderr == ""


def test_the_document_has_every_probe(run: Run, document: Document, kernel: None) -> None:
    """Each with what the walk says and what the kernel did."""
    found = document(run("prove", "-f", SMALL, "-o", "json"))
    assert found["agrees"] is True
    assert len(found["probes"]) == sum(each["asked"] for each in found["kinds"])
    assert all(each["predicted"] and each["seen"] and each["agrees"] for each in found["probes"])
    assert found["machine"]["release"] == os.uname().release


def test_evidence_is_the_same_document_in_a_file(run: Run, tmp_path: Path, kernel: None) -> None:
    """It can be read back, and prints as it was printed."""
    file = tmp_path / "proof.json"
    result = run("prove", "-f", SMALL, "--evidence", file)
    assert result.exit_code == 0
    assert result.stdout.startswith(str(read(file)))


def test_the_options_of_a_cluster_are_taken(run: Run, document: Document, kernel: None) -> None:
    """Another CNI is another cluster; few questions of a kind leave some out, which is said."""
    result = run("prove", "-f", SMALL, "--cni", "bridge", "--most", "4", "-o", "json")
    found = document(result)
    assert (found["cluster"]["cni"], found["agrees"]) == ("bridge", True)
    assert found["left_out"] and "note: pod to pod: " in result.stderr


def test_routes_can_be_learnt_by_bird(run: Run, kernel: None) -> None:
    """With --bird real speakers of BGP write them, and that is said; a CNI without BGP is told apart."""
    if shutil.which("bird") is None:
        pytest.skip("no bird on this machine: Debian's package bird2 brings it")
    result = run("prove", "-f", SMALL, "--cni", "calico", "--cni-option", "mode=bgp", "--bird")
    assert result.exit_code == 0
    assert "written by BIRD" in result.stderr
    refused = run("prove", "-f", SMALL, "--bird")
    assert refused.exit_code == 3
    assert "nobody speaks BGP under flannel" in refused.stderr


def test_disagreement_is_a_no(run: Run, document: Document, kernel: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Status 1, and the question stands under the table with what was said and what happened."""
    monkeypatch.setattr(live, "prove", lambda *_: disagreeing())
    result = run("prove", "-f", SMALL)
    assert result.exit_code == 1
    assert "nothing like it" in result.stdout
    assert document(run("prove", "-f", SMALL, "-o", "json"))["agrees"] is False


@pytest.mark.usefixtures("bare")
def test_a_machine_that_cannot_says_why(run: Run, document: Document) -> None:
    """Status 3, which is neither yes nor no nor wrong input; each missing program is named with its package."""
    result = run("prove", "-f", SMALL)
    assert result.exit_code == 3
    assert result.stdout == "" and "install the package iptables" in result.stderr
    refused = run("prove", "-f", SMALL, "-o", "json")
    assert refused.exit_code == 3
    assert "iptables-restore" in [each["field"] for each in document(refused)["errors"]]


@pytest.mark.usefixtures("bare")
def test_wrong_input_is_wrong_on_every_machine(run: Run) -> None:
    """Status 2, whatever the machine can do: a file that is not there, a CNI that does not exist, no question."""
    assert run("prove", "-f", "no-such.yaml").exit_code == 2
    assert run("prove", "-f", SMALL, "--cni", "calicoo").exit_code == 2
    assert run("prove", "-f", SMALL, "--most", "0").exit_code == 2


def test_a_terminal_gets_a_bar(kernel: None) -> None:
    """Where a person looks at standard error, progress is shown there, and standard output has the answer only."""
    screen, terminal = os.openpty()
    command = [sys.executable, "-c", "from k8snetlab.cli import main; main()", "prove", "-f", str(BOOKSHOP)]
    environment = os.environ | {"TERM": "xterm"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=terminal, env=environment) as process:
        os.close(terminal)
        shown = b"".join(iter(lambda: read_screen(screen), b""))
        answer, _ = process.communicate()
    os.close(screen)
    assert b"walking" in shown and b"sending" in shown
    assert process.returncode == 0 and answer.startswith(b"QUESTIONS")


def read_screen(screen: int) -> bytes:
    """What came to the terminal; nothing when the program has ended, which Linux tells as an error."""
    try:
        return os.read(screen, 4096)
    except OSError:
        return b""
