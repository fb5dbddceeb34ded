from __future__ import annotations

import pytest

from k8snetlab.cluster import Cluster
from k8snetlab.compile import Layout
from k8snetlab.errors import BadOption, Overlap
from k8snetlab.linux.socket import Listener
from tests.shops import FAMILIES, ZONES, bookshop, pod, service, zones


def layout(*texts: str) -> Layout:
    """The layout of a cluster of these manifests."""
    return Cluster.load("".join(texts)).layout


def node(name: str, *addresses: str, zone: str = "") -> str:
    """A Node with InternalIPs."""
    listed = ", ".join(f"{{type: InternalIP, address: '{address}'}}" for address in addresses)
    labels = f", labels: {{topology.kubernetes.io/zone: {zone}}}" if zone else ""
    return f"apiVersion: v1\nkind: Node\nmetadata: {{name: {name}{labels}}}\nstatus: {{addresses: [{listed}]}}\n---\n"


DATABASE = """
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {ports: [{port: 5432}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
endpoints: [{addresses: [172.18.0.200]}]
ports: [{port: 5432}]
"""


def test_assumed_nodes_share_one_switch() -> None:
    """The usual underlay is one subnet, and its first address is the router's."""
    [segment] = bookshop().layout.segments
    assert (segment.switch, segment.gateways) == ("switch", ("172.18.0.1",))
    assert {station.segment for station in bookshop().layout.stations.values()} == {segment}


def test_several_node_cidrs_are_a_subnet_a_zone() -> None:
    """Nodes go round the zones, each with a switch and a gateway of its own."""
    found = bookshop(node_cidr=ZONES).layout
    assert [segment.gateways for segment in found.segments] == [("172.18.1.1",), ("172.18.2.1",), ("172.18.3.1",)]
    assert [found.stations[name].segment.switch for name in ("node-1", "node-2", "node-3")] == [
        "switch-1",
        "switch-2",
        "switch-3",
    ]


def test_nodes_of_a_dump_keep_the_subnets_of_their_zones() -> None:
    """Where every zone has a /24 of its own, nobody has to say so."""
    assert [str(segment.blocks[0]) for segment in zones().layout.segments] == [
        "172.18.1.0/24",
        "172.18.2.0/24",
        "172.18.3.0/24",
    ]


def test_both_families_share_a_switch() -> None:
    """A node with two addresses has one cable."""
    [segment] = bookshop(families="dual-stack").layout.segments
    assert [block.family for block in segment.blocks] == [4, 6]
    assert (segment.gateway(4), segment.gateway(6)) == ("172.18.0.1", "fd00:172::1")


def test_the_router_takes_another_address_when_a_node_has_the_first() -> None:
    """A node on .1 leaves the last address to the router."""
    [segment] = layout(node("a", "192.0.2.1"), node("b", "192.0.2.2")).segments
    assert segment.gateways == ("192.0.2.254",)


def test_a_node_without_an_address_gets_one() -> None:
    """Nothing is plugged in without an address."""
    assert layout(node("a", "192.0.2.1"), node("b")).stations["b"].addresses == ("192.0.2.11",)


def test_the_api_server_of_an_assumed_cluster_is_a_machine_of_its_own() -> None:
    """The slice of default/kubernetes points at it, and it serves what the slice says."""
    station = bookshop().layout.stations["control-plane"]
    assert station.listeners == (Listener("TCP", 6443, "172.18.0.2", "kube-apiserver"),)


def test_the_api_server_of_a_dump_is_its_node() -> None:
    """Pods with hostNetwork share the node's address; the API server answers there all the same."""
    found = zones()
    assert "control-plane" in found.layout.nodes
    assert Listener("TCP", 6443, "172.18.1.10", "kube-apiserver") in found.network["control-plane"].listeners


def test_a_hand_written_slice_on_the_underlay_puts_a_machine_there() -> None:
    """A database outside of the cluster, on the nodes' own subnet, answers."""
    cluster = Cluster.load(pod("web-1") + DATABASE)
    assert cluster.layout.stations["external:172.18.0.200"].listeners[0].program == "db"
    assert cluster.trace("default/web-1", "svc/default/db:5432").backend is not None


def test_a_slice_that_names_a_pod_puts_nothing_anywhere() -> None:
    """Pods answer for themselves, or do not."""
    assert set(layout(pod("web-1"), service("web")).served_elsewhere) == {"172.18.0.2"}


def test_a_host_network_pod_does_not_serve_what_it_does_not_listen_on() -> None:
    """A Service's port on a node is closed where its hostNetwork pod listens elsewhere."""
    cluster = Cluster.load(pod("agent", spec="hostNetwork: true") + service("web", target=9999))
    ports = {listener.port for listener in cluster.network["node-1"].listeners}
    assert 8080 in ports and 9999 not in ports


def test_completed_and_pending_pods_have_no_place() -> None:
    """A pod without a network stands on no node."""
    none = pod("done", status="phase: Succeeded") + pod("waiting", status="phase: Pending")
    assert [each.name for each in layout(none, pod("web-1")).workloads["node-1"]] == ["default/web-1"]


@pytest.mark.parametrize("address", ["203.0.113.7", "2001:db8:203::7"])
def test_nodes_cannot_stand_in_the_outside_world(address: str) -> None:
    """The outside world's addresses are taken: the message names both networks."""
    with pytest.raises(Overlap, match=r"the node network .* which is the outside world here"):
        Cluster.load(node("a", address) + pod("web-1", node="a"), **FAMILIES["IPv4" if "." in address else "IPv6"])


@pytest.mark.parametrize("option", ["pod_cidr", "service_cidr"])
def test_no_network_holds_the_outside_world(option: str) -> None:
    """Neither pods nor Services may have the outside world's addresses."""
    with pytest.raises(Overlap, match="which is the outside world here"):
        Cluster.load(pod("web-1"), **{option: "203.0.0.0/16"})


def test_a_node_needs_an_internal_address_of_some_family() -> None:
    """An ExternalIP alone does not put a node on the underlay; it gets an address there."""
    manifest = node("a", "198.51.100.7").replace("InternalIP", "ExternalIP")
    assert layout(manifest).stations["a"].addresses != ("198.51.100.7",)


def test_a_dump_with_addresses_of_another_cni_is_refused_at_load() -> None:
    """Every such pod is named with what to do, at load and not in the middle of a trace."""
    calico = "".join(
        pod(f"web-{number}", f"node-{number % 2 + 1}", status=f"phase: Running, podIP: 192.168.7.{number}")
        for number in range(1, 9)
    )
    with pytest.raises(BadOption) as error:
        Cluster.load(calico)
    first, *_, last = error.value.problems
    assert first.object == "Pod default/web-2" and first.field == "status.podIP" and first.line > 0
    assert "Leave the pods' status.podIP and podIPs out" in first.message
    assert last.message == "and so are the addresses of 3 more pods"


def test_every_machine_may_be_asked_for_the_addresses_it_owns() -> None:
    """The search for the owner of an address skips no machine that has it."""
    network = bookshop(families="dual-stack").network
    for name in network:
        for address in network[name].owned:
            if not address.startswith("127.") and address != "::1":
                assert name in network.may_own(address), f"{name} owns {address}"
