from __future__ import annotations

import pytest

from k8snetlab.cluster import Cluster
from k8snetlab.errors import BadOption, UnknownName
from k8snetlab.linux.link import LinkKind
from k8snetlab.linux.route import RouteType
from k8snetlab.trace import Client
from tests.shops import ZONES, bookshop, zones


@pytest.mark.parametrize("cluster", [bookshop(), bookshop(node_cidr=ZONES), bookshop(families="dual-stack"), zones()])
def test_both_ends_of_every_cable_know_each_other(cluster: Cluster) -> None:
    """A device's peer has that device as its peer."""
    network = cluster.network
    for name in network:
        for link in network[name].links:
            if link.peer is not None:
                back = network[link.peer.host].link(link.peer.link).peer
                assert back is not None and (back.host, back.link) == (name, link.name)


def test_no_two_devices_have_one_mac() -> None:
    """MACs are hashed from names, and still differ."""
    network = bookshop(node_cidr=ZONES).network
    macs = [link.mac for name in network for link in network[name].links if link.kind is not LinkKind.LOOPBACK]
    assert len(set(macs)) == len(macs)


def test_device_names_fit_the_kernel() -> None:
    """At most 15 characters, for machines of any name."""
    network = bookshop().trace("external:172.18.0.100", "svc/shop/web:80").steps
    assert all(len(step.device) <= 15 for step in network)


def test_a_switch_does_not_look_into_ip() -> None:
    """Its bridge hands no packet to netfilter, and it has no address."""
    switch = bookshop().network["switch"]
    assert switch.sysctl("net.bridge.bridge-nf-call-iptables") == 0
    assert not any(link.addresses for link in switch.links)


def test_the_router_joins_the_zones_and_knows_no_pods() -> None:
    """It has a device in each zone and a connected route for it; all else ends in a blackhole."""
    router = bookshop(node_cidr=ZONES).network["router"]
    assert [link.name for link in router.links] == ["lo", "eth0", "eth1", "eth2", "wan0"]
    assert {route.prefix for route in router.routes if route.family == 4} == {
        "172.18.1.0/24",
        "172.18.2.0/24",
        "172.18.3.0/24",
        "203.0.113.0/24",
        "default",
    }
    assert [route.type for route in router.routes if route.prefix == "default"] == [RouteType.BLACKHOLE] * 2


def test_nodes_of_different_zones_reach_each_other_by_the_router() -> None:
    """The kubelet of another zone is two hops away."""
    trace = bookshop(node_cidr=ZONES).trace("node/node-1", "node/node-2:10250")
    assert trace.client is Client.OPEN
    path = ["node-1", "switch-1", "router", "switch-2", "node-2"]
    assert list(dict.fromkeys(step.where for step in trace.steps)) == path


@pytest.mark.parametrize(
    ("address", "hops"),
    [
        ("203.0.113.10", ["external", "router", "switch", "node-1"]),
        ("198.51.100.7", ["external:198.51.100.7", "router", "switch", "node-1"]),
        ("172.18.0.100", ["external:172.18.0.100", "switch", "node-1"]),
        ("172.18.0.12", ["node-2", "switch", "node-1"]),
        ("172.18.0.1", ["router", "switch", "node-1"]),
    ],
)
def test_a_client_stands_where_its_address_is(address: str, hops: list[str]) -> None:
    """On the underlay beside the nodes, elsewhere behind the router; whoever has the address already is meant."""
    trace = bookshop().trace(f"external:{address}", "node/node-1:10250")
    assert list(dict.fromkeys(step.where for step in trace.steps)) == hops
    assert trace.client is Client.OPEN and trace.source_seen == address


def test_a_client_may_have_an_ipv6_address() -> None:
    """An outside client of a dual-stack cluster reaches the node's IPv6 address."""
    trace = bookshop(families="dual-stack").trace("external:2001:db8:77::1", "node/node-1:10250")
    assert (trace.client, trace.source_seen) == (Client.OPEN, "2001:db8:77::1")
    assert trace.request.address == "fd00:172::11"


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1", "machine itself"),
        ("0.0.0.0", "no address"),
        ("224.0.0.1", "multicast"),
        ("300.1.1.1", "does not appear to be an IPv4 or IPv6 address"),
    ],
)
def test_some_addresses_are_no_clients(address: str, why: str) -> None:
    """The message says why."""
    with pytest.raises(BadOption, match=why):
        bookshop().trace(f"external:{address}", "node/node-1:10250")


def test_a_pod_is_not_outside() -> None:
    """A client cannot have a pod's address."""
    address = bookshop().objects.pod("shop/web-0").ip
    with pytest.raises(BadOption, match=r"is the address of pod shop/web-0, which is not outside"):
        bookshop().trace(f"external:{address}", "node/node-1:10250")


def test_outside_traffic_for_a_cluster_ip_ends_at_the_router() -> None:
    """Nobody told the router where Services are."""
    trace = bookshop().trace("external", "svc/shop/api:80")
    assert (trace.client, trace.steps[-1].where) == (Client.TIMEOUT, "router")


@pytest.mark.parametrize("source", ["external", "external:172.18.0.100", "external:198.51.100.7"])
def test_outside_traffic_can_be_led_to_a_node(source: str) -> None:
    """A route on the router, or on a client beside the nodes, brings a ClusterIP to the node."""
    trace = bookshop().trace(source, "svc/shop/api:80", via="node-2")
    assert trace.client is Client.OPEN
    assert next(step.where for step in trace.steps if step.where.startswith("node-")) == "node-2"


def test_leading_to_no_node_is_refused() -> None:
    """The message says which nodes there are."""
    with pytest.raises(UnknownName, match="there is no node 'node-9'"):
        bookshop().trace("external", "svc/shop/api:80", via="node-9")


def test_one_question_does_not_change_the_cables_of_the_next() -> None:
    """A client put in for one trace is not there afterwards."""
    cluster = bookshop()
    cluster.trace("external:198.51.100.7", "node/node-1:10250")
    assert "external:198.51.100.7" not in cluster.network
    assert cluster.trace("external", "node/node-1:10250").client is Client.OPEN
