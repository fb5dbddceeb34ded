"""A cable a pod and no bridge, against the state of a real node."""

from __future__ import annotations

from itertools import permutations
from random import Random

import msgspec
import pytest

from k8snetlab import cni
from k8snetlab.errors import BadOption
from k8snetlab.linux.text import ip_route
from k8snetlab.linux.walk import World, exchange
from k8snetlab.trace import Action, Client
from tests.cni.example import machine, network, node, plan, pod, workloads

PTP = cni.named("cloud", {"attach": "ptp"})


def test_the_routes_of_a_node_lead_to_each_pod_by_its_cable() -> None:
    """No bridge, and no route to the range as a whole."""
    host = node(PTP, plan(), machine(1))
    ends = [link.name for link in host.links if link.name.startswith("veth")]
    assert ip_route(host) == (
        "default via 172.18.0.1 dev eth0\n"
        f"10.244.1.2 dev {ends[0]} scope host\n"
        f"10.244.1.3 dev {ends[1]} scope host\n"
        "172.18.0.0/24 dev eth0 proto kernel scope link src 172.18.0.11\n"
    )
    assert {str(address) for name in ends for address in host.link(name).addresses} == {"10.244.1.1/32"}
    assert "cni0" not in [link.name for link in host.links]


def test_the_routes_of_a_pod_are_those_of_a_real_one() -> None:
    """The gateway is on the cable, its own range behind the gateway."""
    one = machine(1)
    assert ip_route(pod(PTP, plan(), one, workloads(one)[0])) == (
        "default via 10.244.1.1 dev eth0\n"
        "10.244.1.0/24 via 10.244.1.1 dev eth0 src 10.244.1.2\n"
        "10.244.1.1 dev eth0 scope link src 10.244.1.2\n"
    )


@pytest.mark.parametrize("of", [4, 6])
def test_every_pod_reaches_every_other_without_nat(of: int) -> None:
    """On one node and between nodes; the same gateway address is on every cable."""
    machines = (machine(1, families=(4, 6)), machine(2, families=(4, 6)))
    net = network(PTP, plan(*machines))
    at = (4, 6).index(of)
    for here, there in permutations([workload for each in machines for workload in workloads(each)], 2):
        found = exchange(World(net, Random(1)), here.name, there.addresses[at], 80)
        assert found.client is Client.OPEN, found.reason
        assert found.arrival is not None
        assert found.arrival.packet.ip.src == here.addresses[at]


def test_the_node_routes_between_its_own_pods() -> None:
    """One hop less to live, where a bridge would have passed the frame on."""
    found = exchange(World(network(PTP, plan()), Random(1)), "default/web-0", "10.244.1.3", 80)
    assert found.arrival is not None
    assert found.arrival.packet.ip.ttl == 63
    assert not any(step.action is Action.BRIDGE for step in found.steps)


def test_a_pod_more_leaves_the_others_as_they_are() -> None:
    """Its cable and its route are added, and nothing else changes."""
    one = machine(1, families=(4, 6))
    before, after = (PTP.node(plan(one), one, workloads(one, count)) for count in (3, 4))
    assert set(before.links) < set(after.links)
    assert set(before.routes) < set(after.routes)


def test_hairpin_belongs_to_bridges() -> None:
    """There is no port that could send a frame back."""
    with pytest.raises(BadOption, match="hairpin: hairpin belongs to the ports of a bridge"):
        cni.named("cloud", {"attach": "ptp", "hairpin": "off"})


def test_the_gateway_answers_on_every_cable_that_asks() -> None:
    """Its address is on each of them, so it does even where a machine answers for the device's own addresses only."""
    net = network(PTP, plan(machine(1, families=(4, 6))))
    strict = {**net["node1"].sysctls, "net.ipv4.conf.all.arp_ignore": 1}
    net = net.replacing(msgspec.structs.replace(net["node1"], sysctls=strict))
    for name, target in (
        ("default/web-0", "10.244.1.3"),
        ("default/db-0", "10.244.1.2"),
        ("default/db-0", "fd00:10:244:1::2"),
    ):
        assert exchange(World(net, Random(1)), name, target, 80).client is Client.OPEN
