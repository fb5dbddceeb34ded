"""What every CNI owes to Kubernetes: each pod reaches each other and is seen by its own address."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations
from random import Random

import pytest

from k8snetlab import cni
from k8snetlab.linux.walk import World, exchange
from k8snetlab.trace import Client
from tests.choices import ways
from tests.cni.example import machine, network, plan, workloads

CHOICES = {name: way for name, way in ways().items() if not cni.own_pools(cni.named(way[0]))}
"""Every way of every CNI; one with a pool of its own knows nothing of the addresses in this plan."""


@pytest.mark.parametrize("of", [4, 6])
@pytest.mark.parametrize(("name", "options"), CHOICES.values(), ids=CHOICES)
def test_every_pod_reaches_every_other_without_nat(name: str, options: Mapping[str, str], of: int) -> None:
    """On one node and between nodes, in both families."""
    machines = (machine(1, families=(4, 6)), machine(2, families=(4, 6)))
    net = network(cni.named(name, options), plan(*machines))
    pods = [workload for each in machines for workload in workloads(each)]
    at = (4, 6).index(of)
    for here, there in permutations(pods, 2):
        found = exchange(World(net, Random(1)), here.name, there.addresses[at], 80)
        assert found.client is Client.OPEN, found.reason
        assert found.arrival is not None
        assert (found.arrival.host, found.arrival.packet.ip.src) == (there.name, here.addresses[at])


@pytest.mark.parametrize(("name", "options"), CHOICES.values(), ids=CHOICES)
def test_a_node_reaches_its_own_pods_and_those_of_others(name: str, options: Mapping[str, str]) -> None:
    """Probes of the kubelet, and whatever else runs on the machines."""
    machines = (machine(1), machine(2))
    net = network(cni.named(name, options), plan(*machines))
    for here in machines:
        for there in machines:
            found = exchange(World(net, Random(1)), here.name, workloads(there)[0].addresses[0], 80)
            assert found.client is Client.OPEN, found.reason


@pytest.mark.parametrize(("name", "options"), CHOICES.values(), ids=CHOICES)
def test_a_pod_leaves_the_others_as_they_are(name: str, options: Mapping[str, str]) -> None:
    """A what-if must not rename devices: with one pod more, the links of those before are the same, and the routes."""
    plugin, one = cni.named(name, options), machine(1)
    before = plugin.node(plan(), one, workloads(one, 3))
    after = plugin.node(plan(), one, workloads(one, 4))
    assert set(before.links) < set(after.links)
    assert set(before.routes) <= set(after.routes)
