from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from k8snetlab import live
from k8snetlab.cluster import example
from k8snetlab.linux.host import Host
from k8snetlab.linux.route import Route
from k8snetlab.trace import Client
from tests.live import fuzz
from tests.live.cases import cases
from tests.live.fuzz import Topic
from tests.live.happenings import KINDS, Loss
from tests.live.questions import pod_pairs

SEED, ROUNDS = 1, 360


def test_whatever_happens_the_walk_and_the_kernel_agree(
    kernel: None, record_property: Callable[[str, object], None]
) -> None:
    """Random clusters as compiled, and after random changes of their machines: every probe ends as the walk says, and a
    fifth of them at least not with a connection.
    """
    played = list(fuzz.played(SEED, ROUNDS))
    counted = fuzz.figures(played)
    record_property("figures", f"random clusters on the real kernel\n{fuzz.said(counted)}")
    rounds, ends = fuzz.of(Topic.ROUNDS, counted), fuzz.of(Topic.VERDICTS, counted)
    assert rounds["IPv4"] >= 300
    assert rounds["dual-stack"] >= 30
    assert fuzz.of(Topic.PROXIES, counted)["nftables"] >= 90
    assert ends[Client.OPEN] <= 0.8 * sum(ends.values())
    wrong = [each for each in played if each.wrong]
    assert not wrong, "\n\n".join([*map(str, wrong), fuzz.report(wrong[0])])


def test_everything_that_can_happen_happens() -> None:
    """In these rounds each kind of setting that the walk reads is flipped five times, and each kind of entry lost."""
    counted: fuzz.Figures = Counter()
    for seed, count in fuzz.clusters(SEED, ROUNDS):
        for case in cases(seed, count):
            counted.update(fuzz.happened(case))
    flipped, lost = fuzz.of(Topic.FLIPPED, counted), fuzz.of(Topic.LOST, counted)
    assert {kind: flipped.get(kind, 0) for kind in KINDS if flipped.get(kind, 0) < 5} == {}
    assert set(lost) == set(Loss)


@pytest.mark.parametrize("seed", [SEED, SEED + 1])
def test_the_same_seed_draws_the_same_cases(seed: int) -> None:
    """Objects, happenings and probes, so that a disagreement can be played again."""
    assert list(cases(seed, 3)) == list(cases(seed, 3))


def test_a_kernel_in_another_state_is_found_out(kernel: None) -> None:
    """What the kernel does without one route is compared with the walk that has it: they disagree there alone."""
    shop = example("bookshop", cni="bridge")
    node = shop.network["node-1"]
    lost = next(route for route in node.routes if route.via and route.prefix != "default")
    probes = list(pod_pairs(shop))
    with live.Lab(shop.network.without("node-1", lost)) as lab:
        compared = live.compare(shop.network, probes, lab.probe(probes))
    wrong = [each.probe for each in compared if not each.agrees]
    assert wrong
    assert all(lost.block().contains(probe.address) or _is_from(shop.network[probe.source], lost) for probe in wrong)


def _is_from(host: Host, lost: Route) -> bool:
    return any(lost.block().contains(address) for address in host.owned if ":" not in address)
