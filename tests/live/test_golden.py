from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import pytest

from k8snetlab.linux.host import Network
from k8snetlab.live import Probe
from k8snetlab.trace import Client
from tests.live import recordings
from tests.live.questions import pods
from tests.live.recordings import Answers, Rules, Seen
from tests.test_golden_probes import MODES, VERDICTS, golden, machine

FOLDER = Path(__file__).resolve().parents[1] / "golden"
NODES = ("n1", "n2", "n3")
TRIES = 12
MANY = 150
"""Tries after which a backend in nine has been chosen, but for once in 50 million times."""


@cache
def network(mode: str) -> Network:
    """The golden cluster with the client who asked it from outside."""
    return recordings.with_client(golden(mode), golden(mode).network, ["172.18.0.100"], "n1")[0]


@cache
def recorded(mode: str) -> Mapping[Probe, Seen]:
    """What real connections did in the golden cluster."""
    found: dict[Probe, Seen] = {}
    for key, (verdict, answer) in json.loads((FOLDER / f"probe-{mode}.json").read_text()).items():
        source, address, port = key.split()
        name, peer, _ = answer.split() if answer else ("", "", "")
        pod = f"default/{name.removeprefix('fl-')}" if name else ""
        who = machine(source)[0].removeprefix("node/")
        seen = peer.removeprefix("::ffff:").rpartition(":")[0]
        found[Probe(who, address, int(port))] = (VERDICTS[verdict], pod, seen)
    return found


@cache
def questions(mode: str) -> Mapping[Probe, str]:
    """Every pod, every node and the client ask for every Service; and what was asked when the cluster was real."""
    sources = [*(host.name for host in pods(golden(mode))), *NODES, "external:172.18.0.100"]
    services = {probe: key for key, probe in recordings.services(golden(mode), network(mode), sources)}
    return {**dict.fromkeys(recorded(mode), ""), **services}


@cache
def walked(mode: str) -> Answers:
    """What the walk says of all of them."""
    return recordings.said(network(mode), list(questions(mode)))


@cache
def answers(mode: str, rules: Rules) -> Answers:
    """What the kernel does: all questions, and those that were recorded more often."""
    often = {**dict.fromkeys(questions(mode), TRIES), **dict.fromkeys(recorded(mode), MANY)}
    return recordings.answers(network(mode), often, FOLDER, NODES, mode, rules)


MODE = pytest.mark.parametrize("mode", MODES)
RULES = pytest.mark.parametrize("rules", Rules)


@MODE
@RULES
def test_the_kernel_does_what_real_connections_did(kernel: None, mode: str, rules: Rules) -> None:
    """Verdict, backend and source of every recorded probe; with affinity another backend may have been the first."""
    for probe, (client, backend, source) in recorded(mode).items():
        seen = answers(mode, rules)[probe]
        assert {told for told, _, _ in seen} == {client}, probe
        assert (client, backend, source) in (walked(mode) if _is_sticky(mode, probe) else answers(mode, rules))[probe]


def _is_sticky(mode: str, probe: Probe) -> bool:
    return questions(mode)[probe] in recordings.sticky(golden(mode))


@MODE
@RULES
def test_the_kernel_does_what_the_walk_says(kernel: None, mode: str, rules: Rules) -> None:
    """Every port of every Service, asked by everybody: nothing happens that the walk does not say."""
    wrong = recordings.surprises(walked(mode), answers(mode, rules))
    assert not wrong, "\n".join(wrong[:20])


@MODE
@RULES
def test_every_backend_that_the_walk_says_is_chosen(kernel: None, mode: str, rules: Rules) -> None:
    """What the walk says may happen does happen to somebody, if one asks often; affinity chooses only once."""
    affine = recordings.sticky(golden(mode))
    probes = [probe for probe, key in questions(mode).items() if key not in affine]
    assert backends(answers(mode, rules), probes) == backends(walked(mode), probes)


def backends(answers: Answers, probes: Sequence[Probe]) -> dict[tuple[str, int, str], set[tuple[Client, str]]]:
    """Who answers at each address and port, whoever asks."""
    found: defaultdict[tuple[str, int, str], set[tuple[Client, str]]] = defaultdict(set)
    for probe in probes:
        found[probe.address, probe.port, probe.protocol].update(each[:2] for each in answers[probe])
    return dict(found)


@MODE
def test_the_questions_have_every_kind_of_answer(kernel: None, mode: str) -> None:
    """Opened, refused and unanswered; by TCP and UDP; in IPv4 and IPv6."""
    told = {client for seen in walked(mode).values() for client, _, _ in seen}
    assert {Client.OPEN, Client.REFUSED, Client.TIMEOUT} <= told
    assert {probe.protocol for probe in questions(mode)} == {"TCP", "UDP"}
    assert {":" in probe.address for probe in questions(mode)} == {True, False}
