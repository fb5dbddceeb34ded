"""The numbers that networks are known by: bytes on the wire, MTUs, entries by cluster size. All of them are asked of
compiled clusters, and every network must have its row.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pytest

from k8snetlab import cni
from k8snetlab.cluster import Cluster, example, networks
from k8snetlab.cluster.networks import Entries
from k8snetlab.cni import Enforcement
from tests.numbers import ROWS
from tests.shops import FAMILIES

ASKED = [(name, of) for name, rows in ROWS.items() for of in (4, 6)[: len(rows)]]
AT_HOME = ("lo", "eth0", "veth", "cali", "lxc")
"""Devices that every node has, and the ends of cables: what their names begin with."""


@cache
def put(network: str, of: int = 4, nodes: int = 3, **options: str) -> Cluster:
    """Two pods on one node and one on another."""
    families = FAMILIES[{4: "IPv4", 6: "IPv6"}[of]]
    return networks.on(example("same-node-other-node", nodes=nodes, **families), network, **options)


def on_the_wire(cluster: Cluster) -> int:
    """The longest frame of a datagram of 1,000 bytes to another node."""
    trace = cluster.trace("default/here-a", "default/there:9000/UDP", size=1000)
    wire = networks.beside({"": trace})[""].wire
    assert wire is not None
    return wire.length


def test_every_network_has_a_row() -> None:
    """In each family that it gives pods addresses of."""
    assert list(ROWS) == list(networks.ways())
    pools = {name: cni.own_pools(cni.named(options["cni"])) for name, options in networks.ways().items()}
    assert {name for name, of in ASKED if of == 6} == {
        name for name in ROWS if not pools[name] or 6 in {pool.family for pool in pools[name]}
    }


@pytest.mark.parametrize(("network", "of"), ASKED)
def test_a_thousand_bytes_are_so_many_on_the_wire(network: str, of: int) -> None:
    """VXLAN and Geneve add 50 or 70, IP in IP 20, WireGuard 60 or 80 and padding, ESP around VXLAN 34, sleeve 62."""
    assert on_the_wire(put(network, of)) == ROWS[network][(4, 6).index(of)].wire


@pytest.mark.parametrize(
    ("network", "options", "wire"),
    [
        ("weave sleeve", {"encryption": "on"}, 1128),
        ("cilium native", {"encryption": "wireguard"}, 1114),
        ("cilium geneve", {"encryption": "wireguard"}, 1162),
        ("calico bgp", {"topology": "route-reflector"}, 1042),
    ],
)
def test_choices_together_add_what_both_add(network: str, options: dict[str, str], wire: int) -> None:
    """Encryption by what is wrapped up or not; who speaks BGP with whom adds nothing."""
    assert on_the_wire(put(network, **options)) == wire


@pytest.mark.parametrize(("network", "of"), ASKED)
def test_a_pod_may_send_so_much(network: str, of: int) -> None:
    """By its device, or, under Cilium, by its route."""
    row = ROWS[network][(4, 6).index(of)]
    pod = put(network, of).network["default/here-a"]
    [default] = [route for route in pod.routes if route.prefix == "default"]
    assert (pod.link("eth0").mtu, default.mtu) == (row.pod, row.route)


@pytest.mark.parametrize(("network", "of"), ASKED)
def test_a_node_has_these_devices(network: str, of: int) -> None:
    """Bridges and tunnels, with their MTUs."""
    links = put(network, of).network["node-1"].links
    row = ROWS[network][(4, 6).index(of)]
    assert {link.name: link.mtu for link in links if not link.name.startswith(AT_HOME)} == row.devices


def one_route(nodes: int) -> Entries:
    """To each other node."""
    return Entries(routes=nodes - 1)


def vxlan(nodes: int) -> Entries:
    """A route, a neighbour and a forwarding entry for each other node."""
    return Entries(routes=nodes - 1, neighbours=nodes - 1, fdb=nodes - 1)


def on_the_router(nodes: int) -> Entries:
    """A route to every node, and none on the nodes."""
    return Entries(router=nodes)


def one_segment(nodes: int) -> Entries:
    """All pods are neighbours."""
    return Entries(routes=1)


def peers(nodes: int) -> Entries:
    """One route to all, and a peer for each other node."""
    return Entries(routes=1, peers=nodes - 1)


def routes_and_peers(nodes: int) -> Entries:
    """A route and a peer for each other node."""
    return Entries(routes=nodes - 1, peers=nodes - 1)


ENTRIES: Mapping[str, Callable[[int], Entries]] = {
    "bridge": one_route,
    "flannel vxlan": vxlan,
    "flannel host-gw": one_route,
    "flannel wireguard": peers,
    "flannel directrouting": one_route,
    "cloud bridge": on_the_router,
    "cloud ptp": on_the_router,
    "calico bgp": one_route,
    "calico ipip": one_route,
    "calico ipip-crosssubnet": one_route,
    "calico vxlan": vxlan,
    "calico vxlan-crosssubnet": vxlan,  # the entries are there though nobody uses them
    "calico route-reflector": one_route,
    "calico tor": on_the_router,
    "cilium vxlan": one_route,
    "cilium geneve": one_route,
    "cilium native": one_route,
    "cilium wireguard": routes_and_peers,
    "cilium ipsec": routes_and_peers,
    "weave fastdp": one_segment,
    "weave sleeve": one_segment,
    "weave encryption": one_segment,
}


@pytest.mark.parametrize("nodes", [2, 7])
@pytest.mark.parametrize("network", networks.ways())
def test_a_node_holds_so_much_for_the_others(network: str, nodes: int) -> None:
    """By the number of nodes; what eBPF programs look up grows with the pods, and is counted below."""
    options: dict[str, Any] = dict(networks.ways()[network])
    held = networks.entries(options.pop("cni"), nodes, **options)
    assert held - Entries(cache=held.cache) == ENTRIES[network](nodes)


@pytest.mark.parametrize("nodes", [2, 5])
@pytest.mark.parametrize(("network", "tunnel"), [("cilium vxlan", 1), ("cilium geneve", 1), ("cilium native", 0)])
def test_cilium_knows_every_pod_of_the_others(network: str, tunnel: int, nodes: int) -> None:
    """A /32 for each, one for their cilium_host, and with a tunnel the block of their node."""
    cluster = put(network, nodes=nodes)
    datapath = cluster.network["node-1"].datapath
    assert datapath is not None
    pods = [pod for pod in cluster.objects.pods if pod.networked and pod.node_name != "node-1"]
    assert len([each for each in datapath.known if each.tunnel]) == len(pods) + (nodes - 1) * (1 + tunnel)


def test_a_peer_of_wireguard_has_one_block() -> None:
    """That of its node's pods; all of them together are what one route leads to."""
    others = put("flannel wireguard").network["node-1"].wireguard
    assert [peer.allowed for peer in others] == [("10.244.1.0/24",), ("10.244.2.0/24",)]


@pytest.mark.parametrize(
    ("plugin", "enforced", "encrypts"),
    [
        ("bridge", Enforcement.NONE, False),
        ("flannel", Enforcement.NONE, True),
        ("cloud", Enforcement.NONE, False),
        ("calico", Enforcement.IPTABLES, False),
        ("cilium", Enforcement.IDENTITY, True),
        ("weave", Enforcement.IPTABLES, True),
    ],
)
def test_who_enforces_policies_and_who_encrypts(plugin: str, enforced: Enforcement, encrypts: bool) -> None:
    """As far as it is compiled: Calico's WireGuard is not."""
    ways: list[dict[str, Any]] = [dict(way) for way in networks.ways().values() if way["cni"] == plugin]
    measured = [networks.figures(way.pop("cni"), **way) for way in ways]
    assert {figures.policies for figures in measured} == {enforced}
    assert any(figures.encrypted for figures in measured) is encrypts
