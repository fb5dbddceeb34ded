"""Pods routed by a provider: an entry a node on the router, nothing on the nodes."""

from __future__ import annotations

from random import Random

import pytest

from k8snetlab import cni
from k8snetlab.errors import BadOption
from k8snetlab.linux.text import ip_route, iptables_save
from k8snetlab.linux.walk import Exchange, World, exchange
from k8snetlab.trace import Action, Client
from tests.cni.example import machine, network, node, plan, pod, workloads

CLOUD = cni.named("cloud")

MASQUERADING = """
-A POSTROUTING -m comment --comment "ip-masq: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our \
custom IP-MASQ chain" -m addrtype ! --dst-type LOCAL -j IP-MASQ
-A IP-MASQ -d 10.244.0.0/16 -m comment --comment "ip-masq: pod cidr is not subject to MASQUERADE" -j RETURN
-A IP-MASQ -m comment --comment "ip-masq: outbound traffic is subject to MASQUERADE (must be last in chain)" \
-j MASQUERADE
"""


def asked(plugin: cni.Cni, *zones: int) -> Exchange:
    """The first pod of node1 asks the first of node2."""
    machines = [machine(number, zone=zone) for number, zone in enumerate(zones, 1)]
    return exchange(World(network(plugin, plan(*machines)), Random(1)), "default/web-0", "10.244.2.2", 80)


def test_a_node_knows_its_own_pods_and_the_default_route_only() -> None:
    """No route to any other node: all of that is the router's."""
    assert ip_route(node(CLOUD, plan(), machine(1))) == (
        "default via 172.18.0.1 dev eth0\n"
        "10.244.1.0/24 dev cni0 proto kernel scope link src 10.244.1.1\n"
        "172.18.0.0/24 dev eth0 proto kernel scope link src 172.18.0.11\n"
    )


@pytest.mark.parametrize("nodes", [1, 2, 9])
def test_the_router_has_an_entry_a_node(nodes: int) -> None:
    """By the node's underlay address."""
    machines = [machine(number) for number in range(1, nodes + 1)]
    routes = cni.told_to_router(CLOUD, plan(*machines)).routes
    assert [(route.prefix, route.via) for route in routes] == [
        (f"10.244.{number}.0/24", f"172.18.0.1{number}") for number in range(1, nodes + 1)
    ]


@pytest.mark.parametrize("zone", [18, 19])
def test_a_packet_to_another_node_crosses_the_router_as_it_is(zone: int) -> None:
    """Even to a node of the same subnet; nothing is wrapped, and the address is the pod's."""
    found = asked(CLOUD, 18, zone)
    assert found.client is Client.OPEN, found.reason
    assert any(step.where == "router" and step.action is Action.ROUTE for step in found.steps)
    assert not any(step.action is Action.ENCAPSULATE for step in found.steps)
    assert found.arrival is not None
    assert (found.arrival.packet.ip.src, found.arrival.packet.ip.ttl) == ("10.244.1.2", 61)


def test_a_table_that_is_too_short_is_refused_with_the_numbers() -> None:
    """One entry a node; families are counted apart."""
    short = cni.named("cloud", {"routes": "2"})
    machines = [machine(number, families=(4, 6)) for number in (1, 2, 3)]
    cni.told_to_router(short, plan(*machines[:2]))
    with pytest.raises(BadOption, match=r"routes: 3 nodes need 3 entries for IPv4, .* takes 2: pods on 1 of them"):
        cni.told_to_router(short, plan(*machines))


def test_the_providers_check_drops_what_has_a_pods_address() -> None:
    """A node that is not allowed to forward: silence, not an error."""
    found = asked(cni.named("cloud", {"source-dest-check": "on"}), 18, 18)
    assert found.client is Client.TIMEOUT
    assert (found.steps[-1].where, found.steps[-1].action) == ("router", Action.DROP)
    assert "source check" in found.steps[-1].why


def test_the_check_holds_for_destinations_too() -> None:
    """A node that asks a pod elsewhere has an address of its own, but the pod has not."""
    net = network(cni.named("cloud", {"source-dest-check": "on"}), plan())
    found = exchange(World(net, Random(1)), "node1", "10.244.2.2", 80)
    assert "destination check" in found.steps[-1].why


def test_pods_of_one_node_do_not_notice_the_check() -> None:
    """What stays on the node is not the provider's business."""
    net = network(cni.named("cloud", {"source-dest-check": "on"}), plan())
    assert exchange(World(net, Random(1)), "default/web-0", "10.244.1.3", 80).client is Client.OPEN


def test_pods_are_hidden_from_all_but_pods() -> None:
    """The chain that kOps writes on nodes of such a network."""
    saved = iptables_save({"nat": node(CLOUD, plan(), machine(1)).netfilter.ipv4["nat"]}).splitlines()
    assert [line for line in saved if line.startswith("-A")] == MASQUERADING.strip().splitlines()
    assert not node(cni.named("cloud", {"masquerade": "off"}), plan(), machine(1)).netfilter.ipv4


def test_nothing_is_taken_off_the_mtu() -> None:
    """There is no other header on the wire."""
    one = machine(1, mtu=9001)
    assert (CLOUD.overhead, pod(CLOUD, plan(one), one, workloads(one)[0]).link("eth0").mtu) == (0, 9001)
