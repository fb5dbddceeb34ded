from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest

from k8snetlab.linux.host import Network
from k8snetlab.live import Probe
from k8snetlab.trace import Client
from tests.live import recordings
from tests.live.questions import pod_pairs, pods
from tests.live.recordings import Answers, Rules, Seen
from tests.test_golden_probes import BOUTIQUE, MODES, VERDICTS, boutique

pytestmark = pytest.mark.skipif(
    not BOUTIQUE.is_dir(), reason="../shared is absent: the recorded boutique cluster is not here"
)

NODES = ("b-node-1", "b-node-2", "b-node-3")
TRIES = 5


@cache
def clients() -> Mapping[str, Any]:
    """Who asked when the cluster was real."""
    found: Mapping[str, Any] = json.loads((BOUTIQUE / "clients.json").read_text())
    return found


@cache
def network(mode: str) -> Network:
    """Online Boutique with its two clients outside, each led to a node."""
    found = boutique(mode).network
    for each in clients().values():
        if "routes_service_and_vip_ranges_via" in each:
            via = each["routes_service_and_vip_ranges_via"]
            found, _ = recordings.with_client(boutique(mode), found, each["ips"], via)
    return found


def who(name: str) -> str:
    """The machine that a name of the recording means."""
    kind, _, rest = name.partition(":")
    return f"external:{clients()[name]['ips'][0]}" if kind == "ext" else rest


@cache
def recorded(mode: str) -> Mapping[Probe, Mapping[str, Any]]:
    """What 40 real connections of each kind did."""
    probes = json.loads((BOUTIQUE / "probes.json").read_text())
    return {
        Probe(who(each["from"]), each["to"], each["port"], each["proto"]): each
        for each in probes
        if each["mode"] == mode
    }


@cache
def questions(mode: str) -> tuple[Probe, ...]:
    """All pod pairs, and every Service asked by every pod, every node and both clients outside."""
    outside = [who(name) for name in clients() if name.startswith("ext:")]
    sources = [*(host.name for host in pods(boutique(mode))), *NODES, *outside]
    services = (probe for _, probe in recordings.services(boutique(mode), network(mode), sources))
    return tuple(dict.fromkeys([*pod_pairs(boutique(mode)), *services]))


@cache
def walked(mode: str) -> Answers:
    """What the walk says of all of them."""
    return recordings.said(network(mode), [*questions(mode), *recorded(mode)])


@cache
def answers(mode: str, rules: Rules) -> Answers:
    """What the kernel does: all questions, and those that were recorded as often as then."""
    often = {**dict.fromkeys(questions(mode), TRIES), **dict.fromkeys(recorded(mode), 40)}
    return recordings.answers(network(mode), often, BOUTIQUE, NODES, mode, rules)


MODE = pytest.mark.parametrize("mode", MODES)
RULES = pytest.mark.parametrize("rules", Rules)


@MODE
@RULES
def test_the_kernel_does_what_the_walk_says_of_the_boutique(kernel: None, mode: str, rules: Rules) -> None:
    """Pods to pods, and every Service from everywhere: nothing happens that the walk does not say."""
    wrong = recordings.surprises(walked(mode), answers(mode, rules))
    assert not wrong, "\n".join(wrong[:20])


@MODE
@RULES
def test_the_kernel_does_what_the_real_boutique_did(kernel: None, mode: str, rules: Rules) -> None:
    """Verdicts, backends and sources are those of the recorded connections. The API server does not say whom it saw."""
    wrong = [
        f"{probe}: {answers(mode, rules)[probe]}, recorded {then}"
        for probe, then in recorded(mode).items()
        if not _same(answers(mode, rules)[probe], then)
    ]
    assert not wrong, "\n".join(wrong[:20])


def _same(seen: set[Seen], then: Mapping[str, Any]) -> bool:
    opened = {(backend, source) for client, backend, source in seen if client is Client.OPEN}
    return {client for client, _, _ in seen} == {VERDICTS[verdict] for verdict in then["verdicts"]} and (
        not then["backends"]
        or (
            {each for each, _ in opened} == set(then["backends"])
            and {each for _, each in opened} == set(then["source_seen"])
        )
    )


@MODE
def test_what_was_recorded_is_asked_again(kernel: None, mode: str) -> None:
    """The questions hold every recorded connection, and pods, nodes and clients outside ask."""
    assert set(recorded(mode)) <= set(questions(mode))
    assert {probe.source.partition("/")[0].partition(":")[0] for probe in questions(mode)} == {
        "default",
        "external",
        *NODES,
    }
