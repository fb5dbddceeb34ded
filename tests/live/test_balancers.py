"""Load balancers on the real kernel: multipath routes, a machine between, connections opened anew."""

from __future__ import annotations

import pytest

from k8snetlab import live
from k8snetlab.compile import IMPLEMENTATIONS
from k8snetlab.errors import CannotDo
from k8snetlab.live import Probe
from tests.compile.test_balancer import cluster
from tests.live import recordings

SOURCES = ("external", "n1", "n3")
TARGETS = (("198.51.100.1", 80), ("198.51.100.2", 80), ("198.51.100.1", 81), ("172.18.0.12", 31000))
"""Both policies, a port that no Service has, and a health check."""


@pytest.mark.parametrize("name", [name for name in IMPLEMENTATIONS if name not in ("none", "metallb-l2")])
def test_the_kernel_balances_as_the_walk_says(kernel: None, name: str) -> None:
    """Whoever leads packets to nodes: backends and sources are among those that the walk names."""
    network = cluster(name).network
    often = {Probe(source, *target): 12 for source in SOURCES for target in TARGETS}
    with live.Lab(network) as lab:
        seen = recordings.asked(lab, often)
    found = recordings.surprises(recordings.said(network, [*often]), seen)
    assert not found, "\n".join(found)
    backends = {backend for _, backend, _ in seen[Probe("external", "198.51.100.2", 80)]}
    assert backends == {"default/one", "default/two"}


def test_the_kernel_has_nobody_who_answers_for_others(kernel: None) -> None:
    """In layer 2 a program answers ARP, which the lab has not; it says so."""
    with pytest.raises(CannotDo, match="answers ARP"), live.Lab(cluster("metallb-l2").network):
        pass
