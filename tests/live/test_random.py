from __future__ import annotations

import pytest

from k8snetlab import live
from k8snetlab.cluster import example
from k8snetlab.linux.host import Host
from k8snetlab.linux.route import Route
from tests.live import fuzz
from tests.live.questions import pod_pairs

SEEDS = range(1, 7)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_the_walk_and_the_kernel_agree(kernel: None, seed: int) -> None:
    """A random cluster as compiled, and after random changes of its machines: every probe ends as the walk says."""
    wrong = [str(each) for each in fuzz.rounds(seed) if each.wrong]
    assert not wrong, "\n".join(wrong)


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
