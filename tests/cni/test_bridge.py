"""The plugin `bridge`, and host routes."""

from __future__ import annotations

from random import Random

from k8snetlab import cni
from k8snetlab.cni.bridge import veth_name
from k8snetlab.linux.link import LinkKind
from k8snetlab.linux.text import ip_route, iptables_save
from k8snetlab.linux.walk import World, exchange
from k8snetlab.trace import Client, Verdict
from tests.cni.example import machine, network, node, plan, pod, workloads

BRIDGE = cni.named("bridge")


def test_a_node_routes_to_the_pods_of_every_other_node_by_its_address() -> None:
    """The table of a node in one subnet, as `ip route` prints it."""
    assert ip_route(node(BRIDGE, plan(), machine(1))) == (
        "default via 172.18.0.1 dev eth0\n"
        "10.244.1.0/24 dev cni0 proto kernel scope link src 10.244.1.1\n"
        "10.244.2.0/24 via 172.18.0.12 dev eth0\n"
        "10.244.3.0/24 via 172.18.0.13 dev eth0\n"
        "172.18.0.0/24 dev eth0 proto kernel scope link src 172.18.0.11\n"
    )


def test_a_pod_has_its_own_network_and_a_default_route() -> None:
    """What the plugin writes in the pod, as `ip route` prints it there."""
    one = machine(1)
    assert ip_route(pod(BRIDGE, plan(), one, workloads(one)[0])) == (
        "default via 10.244.1.1 dev eth0\n10.244.1.0/24 dev eth0 proto kernel scope link src 10.244.1.2\n"
    )


def test_a_node_in_another_subnet_gets_no_route() -> None:
    """A gateway must be on the cable: the kernel would refuse this one."""
    here, there = machine(1), machine(2, zone=19)
    routes = node(BRIDGE, plan(here, there), here).routes
    assert [route.prefix for route in routes if route.prefix.startswith("10.244.2")] == []


def test_packets_for_a_node_in_another_subnet_end_at_the_router() -> None:
    """They follow the default route to a router that knows no pod CIDR, so it cannot even tell the sender."""
    world = World(network(BRIDGE, plan(machine(1), machine(2, zone=19))), Random(1))
    found = exchange(world, "default/web-0", "10.244.2.2", 80)
    assert (found.fate, found.client) == (Verdict.UNREACHABLE, Client.TIMEOUT)
    assert found.reason.endswith("router has no route to 10.244.2.2")


def test_the_two_ends_of_a_cable_name_each_other() -> None:
    """A frame that leaves the pod arrives at its port, and the other way round; the indices agree too."""
    one = machine(1)
    host = node(BRIDGE, plan(), one)
    for workload in workloads(one):
        inside = pod(BRIDGE, plan(), one, workload).link("eth0")
        assert inside.peer is not None
        port = host.link(inside.peer.link)
        assert (port.peer is not None and port.peer.host, port.peer_index) == (workload.name, inside.index)
        assert inside.peer_index == port.index


def test_no_two_devices_of_a_full_node_share_name_index_or_mac() -> None:
    """110 pods is what a kubelet takes by default."""
    links = node(BRIDGE, plan(), machine(1), count=110).links
    assert len(links) == 110 + 3
    assert len({link.name for link in links}) == len({link.index for link in links}) == len(links)
    macs = [link.mac for link in links if link.kind is not LinkKind.LOOPBACK]
    assert len(set(macs)) == len(macs)


def test_device_names_fit_the_kernel() -> None:
    """A device name has at most 15 characters, however long the pod's name is."""
    assert len(veth_name("a" * 63 + "/" + "b" * 253)) == 12


def test_there_is_no_bridge_before_the_first_pod() -> None:
    """The plugin makes cni0 when it is first called, so an empty node does not even know its own pod CIDR."""
    empty = node(BRIDGE, plan(), machine(1), count=0)
    assert [link.name for link in empty.links] == ["lo", "eth0"]
    assert "10.244.1.0/24" not in ip_route(empty)


def test_hairpin_can_be_switched_off() -> None:
    """The fault behind "a pod cannot reach itself through its Service"."""
    for value, hairpin in (("on", True), ("off", False)):
        links = node(cni.named("bridge", {"hairpin": value}), plan(), machine(1)).links
        assert {link.hairpin for link in links if link.master} == {hairpin}


def test_pods_have_the_mtu_of_the_underlay_unless_told_otherwise() -> None:
    """Nothing is added to a packet on its way."""
    jumbo = machine(1, mtu=9000)
    assert BRIDGE.pod_mtu(jumbo) == 9000
    assert cni.named("bridge", {"mtu": "1400"}).pod_mtu(jumbo) == 1400
    assert node(BRIDGE, plan(jumbo), jumbo).link("cni0").mtu == 9000


def test_a_node_forwards_and_shows_bridged_packets_to_netfilter() -> None:
    """Both are off on a fresh machine or a faulty one; each of them breaks Services or pods."""
    host = node(BRIDGE, plan(machine(1, families=(4, 6))), machine(1, families=(4, 6)))
    assert host.sysctl("net.ipv4.ip_forward") == 1
    assert host.sysctl("net.ipv6.conf.all.forwarding") == 1
    assert host.sysctl("net.bridge.bridge-nf-call-iptables") == 1


def test_without_masquerading_it_writes_no_rules() -> None:
    """Then a pod is seen by its own address everywhere."""
    assert node(BRIDGE, plan(), machine(1)).netfilter.ipv4 == {}


def test_masquerading_has_a_chain_for_every_pod() -> None:
    """As the plugin writes it with ipMasq: own range untouched, everything else but multicast hidden."""
    host = node(cni.named("bridge", {"masquerade": "on"}), plan(), machine(1), count=1)
    container = "53842afe623a6f1e182f9c81e2492a9244ac1981af81cb30fef7925b92159516"
    note = rf'-m comment --comment "name: \"cbr0\" id: \"{container}\""'
    assert iptables_save(host.netfilter.ipv4) == (
        "*nat\n"
        ":PREROUTING ACCEPT [0:0]\n:INPUT ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n"
        ":CNI-0ccc924f26b4af8e9c666831 - [0:0]\n"
        f"-A POSTROUTING -s 10.244.1.2/32 {note} -j CNI-0ccc924f26b4af8e9c666831\n"
        f"-A CNI-0ccc924f26b4af8e9c666831 -d 10.244.1.0/24 {note} -j ACCEPT\n"
        f"-A CNI-0ccc924f26b4af8e9c666831 ! -d 224.0.0.0/4 {note} -j MASQUERADE\n"
        "COMMIT\n"
    )


def test_masquerading_of_one_bridge_hides_pods_from_pods_of_other_nodes() -> None:
    """The plugin knows its own range only; Kubernetes wants no NAT between pods."""
    world = World(network(cni.named("bridge", {"masquerade": "on"}), plan()), Random(1))
    found = exchange(world, "default/web-0", "10.244.2.2", 80)
    assert found.arrival is not None
    assert found.arrival.packet.ip.src == "172.18.0.11"
