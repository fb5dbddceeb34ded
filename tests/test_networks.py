"""Pod networks side by side: every figure is measured, and is the one that real networks have."""

from __future__ import annotations

import json
import re
from functools import cache

import pytest

import k8snetlab as k8s
from k8snetlab import cni, networks
from k8snetlab.cluster.networks import Entries, Networks
from k8snetlab.errors import BadOption, UnknownName
from tests.numbers import ROWS

MTUS = {name: rows[0].pod for name, rows in ROWS.items()}
ON_THE_WIRE = {name: rows[0].wire for name, rows in ROWS.items()}
"""The frame of a UDP packet with 1,000 bytes of payload between nodes, by IPv4, with its Ethernet header."""


@cache
def measured(family: int = 4) -> Networks:
    """The table."""
    return networks.table(family)


@pytest.mark.parametrize(("name", "mtu"), MTUS.items())
def test_pods_have_the_mtu_that_fits_an_underlay_of_1500(name: str, mtu: int) -> None:
    """As their devices have it; flannel takes 80 off for WireGuard, whatever is outside."""
    assert measured()[name].mtu == mtu


@pytest.mark.parametrize(("name", "wire"), ON_THE_WIRE.items())
def test_the_frame_between_nodes_is_as_long_as_its_headers_make_it(name: str, wire: int) -> None:
    """VXLAN adds 50 bytes, WireGuard 60 and padding, IPsec 54 and padding."""
    assert measured()[name].wire == wire


@pytest.mark.parametrize(("name", "added"), [("bridge", 0), ("flannel vxlan", 70), ("flannel wireguard", 80 + 8)])
def test_an_outer_header_of_ipv6_is_20_bytes_longer(name: str, added: int) -> None:
    """1,048 bytes of an IPv6 packet are padded by 8."""
    assert measured(6)[name].encapsulation == added


def test_what_encrypts_hides_what_is_inside() -> None:
    """The bytes of the inner packet are searched for in those of the frame."""
    hidden = [name for name in MTUS if measured()[name].encrypted]
    assert hidden == ["flannel wireguard", "cilium wireguard", "cilium ipsec", "weave encryption"]


def test_host_routes_end_at_a_router() -> None:
    """Tunnels and a provider's route table do not."""
    assert [name for name in MTUS if not measured()[name].across] == [
        "bridge",
        "flannel host-gw",
        "calico bgp",
        "cilium native",
    ]


def test_the_headers_are_those_on_the_wire() -> None:
    """From the outermost inwards."""
    assert measured()["flannel wireguard"].headers == ("Ethernet", "IPv4", "UDP", "WireGuard", "IPv4", "UDP")
    assert measured()["cloud bridge"].headers == ("Ethernet", "IPv4", "UDP")


@pytest.mark.parametrize("nodes", [2, 3, 9])
@pytest.mark.parametrize(
    ("plugin", "options", "each"),
    [
        ("flannel", {}, Entries(routes=1, neighbours=1, fdb=1)),
        ("flannel", {"directrouting": "on"}, Entries(routes=1)),
        ("flannel", {"backend": "host-gw"}, Entries(routes=1)),
        ("bridge", {}, Entries(routes=1)),
        ("calico", {"mode": "bgp"}, Entries(routes=1)),
        ("calico", {"mode": "ipip"}, Entries(routes=1)),
        ("calico", {"mode": "vxlan"}, Entries(routes=1, neighbours=1, fdb=1)),
        ("calico", {"mode": "vxlan-crosssubnet"}, Entries(routes=1, neighbours=1, fdb=1)),
    ],
    ids=["vxlan", "directrouting", "host-gw", "bridge", "bgp", "ipip", "calico-vxlan", "crosssubnet"],
)
@pytest.mark.parametrize("family", [4, 6])
def test_a_node_holds_so_much_for_each_other_node(
    plugin: str, options: dict[str, str], each: Entries, nodes: int, family: int
) -> None:
    """n-1 times what one other node costs."""
    times = nodes - 1
    expected = Entries(each.routes * times, each.neighbours * times, each.fdb * times)
    assert networks.entries(plugin, nodes, family=family, **options) == expected


@pytest.mark.parametrize("nodes", [2, 3, 9])
@pytest.mark.parametrize("family", [4, 6])
def test_wireguard_has_one_route_and_a_peer_for_each_other_node(nodes: int, family: int) -> None:
    """The peers' allowed IPs do what routes do elsewhere."""
    held = networks.entries("flannel", nodes, family=family, backend="wireguard")
    assert held == Entries(routes=1, peers=nodes - 1)


@pytest.mark.parametrize("nodes", [2, 3, 9])
def test_a_cloud_has_an_entry_for_every_node_on_its_router(nodes: int) -> None:
    """And nothing on the nodes. A router that speaks BGP has as many."""
    assert networks.entries("cloud", nodes) == Entries(router=nodes)
    assert networks.entries("calico", nodes, topology="tor") == Entries(router=nodes)


@pytest.mark.parametrize("name", ["bridge", "flannel vxlan", "flannel wireguard", "cloud bridge"])
def test_most_networks_enforce_no_policy(name: str) -> None:
    """The API server accepts NetworkPolicies all the same, and they have no effect."""
    assert measured()[name].policies is cni.Enforcement.NONE


def test_what_one_more_node_costs_is_a_difference() -> None:
    """A route, a neighbour and a forwarding entry on every node, or one entry on the router."""
    assert measured()["flannel vxlan"].one_more == Entries(routes=1, neighbours=1, fdb=1)
    assert measured()["flannel wireguard"].one_more == Entries(peers=1)
    assert measured()["cloud bridge"].one_more == Entries(router=1)


@pytest.mark.parametrize("nodes", [2, 3, 10])
def test_cilium_has_a_route_to_every_node_and_entries_for_all_that_is_there(nodes: int) -> None:
    """In its cache stand the network, the address of cilium_host and the pods of every other node, in native mode
    without the networks.
    """
    tunnel, native = networks.entries("cilium", nodes), networks.entries("cilium", nodes, mode="native")
    assert tunnel.routes == native.routes == nodes - 1
    assert tunnel.cache - native.cache == nodes - 1
    assert native.cache > nodes - 1 and not tunnel.neighbours and not tunnel.fdb


@pytest.mark.parametrize("nodes", [2, 3, 10])
@pytest.mark.parametrize("mode", ["fastdp", "sleeve"])
def test_weave_has_one_route_and_nothing_else(nodes: int, mode: str) -> None:
    """The rest is learnt, at any size."""
    assert networks.entries("weave", nodes, mode=mode) == Entries(routes=1)


def test_a_network_without_ipv6_has_no_row_there() -> None:
    """Weave Net has pods of IPv4 only."""
    assert not [each.name for each in measured(6) if each.name.startswith("weave")]


def test_every_cni_with_every_backend_has_a_row() -> None:
    """A new one has its row without being named here."""
    assert [each.name for each in measured()] == list(networks.ways())
    assert {name.split()[0] for name in networks.ways()} == set(cni.VARIANTS)


def test_growth_is_measured_and_drawn() -> None:
    """Networks that grow alike share a curve; a provider's table ends where it is full."""
    grown = networks.growth("routes", (2, 10, 60))
    curves = {name: points for names, points in grown.items() for name in names.split(", ")}
    for name in ("bridge", "flannel vxlan", "flannel host-gw"):
        assert curves[name] == {2: 1, 10: 9, 60: 59}
    assert curves["flannel wireguard"] == {2: 1, 10: 1, 60: 1}
    assert curves["cloud ptp"] == {2: 0, 10: 0}
    drawing = k8s.draw.curves(grown, title="Routes to other nodes, on a node", across="nodes")
    assert any("flannel wireguard" in line and line.endswith(": 1 at 2, 1 at 10, 1 at 60.") for line in drawing.alt)


def test_a_cluster_is_put_on_every_network() -> None:
    """The manifests stay, and the plugin with its options is the one of the name."""
    nets = networks.each(k8s.example("one-flow-many-networks"))
    assert list(nets) == list(networks.ways())
    assert nets["calico vxlan"].options.cni_options == (("mode", "vxlan"),)
    assert nets["calico vxlan"].objects.pod("default/client").node_name == "node-1"


def test_what_a_node_holds_is_counted_in_any_cluster() -> None:
    """Addresses that another node has borrowed out of one's own block are routes as well; a family without pods has
    none.
    """
    crowd = k8s.example("one-flow-many-networks", cni="calico", cni_options={"mode": "bgp", "blocksize": "23"})
    tight = crowd.changed(pod_cidr="10.244.0.0/22")
    assert networks.held(crowd, "node-1").routes == 2
    borrowed = [pod for pod in tight.objects.pods if pod.node_name == "node-2" and pod.networked]
    assert networks.held(tight, "node-1").routes == 1 + len(borrowed)
    assert networks.held(tight, "node-1", 6) == networks.Entries()
    assert networks.Entries(routes=2, fdb=3).total == 5


def test_a_kind_of_entry_that_does_not_exist_is_named() -> None:
    """The message lists those that do."""
    with pytest.raises(BadOption, match="'tunnels' is none of routes, neighbours, fdb, peers, router, cache"):
        networks.growth("tunnels")
    with pytest.raises(UnknownName, match="there is no network 'flannel udp'; did you mean flannel"):
        measured()["flannel udp"]


def test_the_table_prints_what_three_nodes_have_and_a_fourth_brings() -> None:
    """A line for each network, and a document of the same."""
    lines = str(measured()).splitlines()
    assert re.split(r"  +", lines[0])[:5] == ["NETWORK", "MTU", "ADDED", "ENCRYPTED", "OTHER SUBNETS"]
    assert re.split(r"  +", lines[2]) == [
        "flannel vxlan", "1,450", "50 B", "no", "yes", "none", "2 +1", "2 +1", "2 +1", "0", "0", "0",
    ]  # fmt: skip
    assert measured()._repr_html_().count("<tr>") == len(lines)
    document = measured().as_dict()
    assert json.loads(json.dumps(document))["rows"][1]["encapsulation"] == 50


@cache
def lab() -> k8s.Cluster:
    """Three pods, two of them on one node."""
    return k8s.example("same-node-other-node")


def test_one_flow_goes_over_every_network() -> None:
    """The same datagram is as long everywhere as the table says, and arrives."""
    seen = networks.beside(networks.flows(lab(), "default/here-a", "default/there:9000/UDP", size=1000))
    assert {side.name: side.wire.length for side in seen if side.wire is not None} == ON_THE_WIRE
    assert {str(side.trace.client) for side in seen} == {"OPEN"}
    lines = str(seen).splitlines()
    assert re.split(r"  +", lines[2]) == [
        "flannel vxlan", "OPEN", "1,092", "+50", "ethernet ipv4 udp vxlan ethernet ipv4 udp", "-2", "10",
    ]  # fmt: skip
    assert seen["weave sleeve"].added == 62 and repr(seen) == str(seen)
    with pytest.raises(UnknownName, match="there is no network 'weave fast'"):
        seen["weave fast"]


def test_a_flow_of_ipv6_leaves_out_who_has_none() -> None:
    """Weave Net is asked in a cluster of both families, and not for IPv6."""
    both = lab().changed(pod_cidr="10.244.0.0/16,fd00:10:244::/56", service_cidr="10.96.0.0/12,fd00:10:96::/108")
    asked = networks.flows(both, "default/here-a", "default/there:9000/UDP")
    assert list(asked) == list(networks.ways())
    six = networks.flows(both, "default/here-a", "default/there:9000/UDP", family=6)
    assert {name.split()[0] for name in asked} - {name.split()[0] for name in six} == {"weave"}


def test_a_cluster_is_put_on_a_network_by_its_name() -> None:
    """A name that does not exist is said."""
    assert networks.on(lab(), "calico vxlan").plugin.summary == networks.figures("calico", mode="vxlan").summary
    with pytest.raises(UnknownName, match="there is no network 'calico udp'"):
        networks.on(lab(), "calico udp")
