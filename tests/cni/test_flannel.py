"""flannel, against the state of a real node."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from k8snetlab import cni
from k8snetlab.errors import BadOption
from k8snetlab.linux.link import Vxlan
from k8snetlab.linux.text import bridge_fdb, ip_link_details, ip_neigh, ip_route, iptables_save
from k8snetlab.linux.walk import World, exchange
from k8snetlab.linux.wireguard import public_key
from k8snetlab.trace import Action, Client
from tests.cni.example import machine, network, node, plan, pod, workloads

VXLAN = cni.named("flannel")
DIRECT = cni.named("flannel", {"directrouting": "on"})
HOST_GW = cni.named("flannel", {"backend": "host-gw"})
WIREGUARD = cni.named("flannel", {"backend": "wireguard"})


def test_the_routes_of_a_node_are_those_of_a_real_one() -> None:
    """The gateway of a remote range is that range's first address, on the tunnel, though nothing says it is there."""
    assert ip_route(node(VXLAN, plan(), machine(1))) == (
        "default via 172.18.0.1 dev eth0\n"
        "10.244.1.0/24 dev cni0 proto kernel scope link src 10.244.1.1\n"
        "10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink\n"
        "10.244.3.0/24 via 10.244.3.0 dev flannel.1 onlink\n"
        "172.18.0.0/24 dev eth0 proto kernel scope link src 172.18.0.11\n"
    )


def test_the_neighbours_of_a_node_are_those_of_a_real_one() -> None:
    """The MACs are those that the nodes publish in their annotations."""
    assert ip_neigh(node(VXLAN, plan(), machine(1))) == (
        "10.244.2.0 dev flannel.1 lladdr 0a:aa:00:00:00:02 PERMANENT\n"
        "10.244.3.0 dev flannel.1 lladdr 0a:aa:00:00:00:03 PERMANENT\n"
    )


def test_the_forwarding_entries_of_a_node_are_those_of_a_real_one() -> None:
    """Each MAC leads to the underlay address of its node."""
    entries = bridge_fdb(node(VXLAN, plan(), machine(1), count=0))
    assert entries == (
        "0a:aa:00:00:00:02 dev flannel.1 dst 172.18.0.12 self permanent\n"
        "0a:aa:00:00:00:03 dev flannel.1 dst 172.18.0.13 self permanent\n"
    )


def test_the_tunnel_device_is_that_of_a_real_node() -> None:
    """VNI 1, Linux's own port, no learning, and a single address that is used to speak to remote pods."""
    host = node(VXLAN, plan(), machine(1))
    tunnel = host.link("flannel.1")
    assert tunnel.vxlan == Vxlan(1, "172.18.0.11", "eth0", 8472, learning=False)
    assert (tunnel.index, tunnel.mac, [str(address) for address in tunnel.addresses]) == (
        3, "0a:aa:00:00:00:01", ["10.244.1.0/32"],
    )  # fmt: skip
    printed = "    vxlan id 1 local 172.18.0.11 dev eth0 srcport 0 0 dstport 8472 nolearning ttl auto\n"
    assert printed in ip_link_details(host)


def test_the_devices_of_a_node_are_numbered_like_those_of_a_real_one() -> None:
    """eth0, the tunnel, the bridge, then the pods' ports in the order of their addresses."""
    links = node(VXLAN, plan(), machine(1)).links
    assert [link.index for link in links] == [1, 2, 3, 4, 5, 6]
    assert [link.name for link in links][:4] == ["lo", "eth0", "flannel.1", "cni0"]


def test_the_routes_of_a_pod_are_those_of_a_real_one() -> None:
    """Beside the default route flannel's plugin asks for one to the whole pod network."""
    one = machine(1)
    assert ip_route(pod(VXLAN, plan(), one, workloads(one)[0])) == (
        "default via 10.244.1.1 dev eth0\n"
        "10.244.0.0/16 via 10.244.1.1 dev eth0\n"
        "10.244.1.0/24 dev eth0 proto kernel scope link src 10.244.1.2\n"
    )


@pytest.mark.parametrize(
    ("table", "rules"),
    [
        (
            "nat",
            """
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.1.0/24 -d 10.244.0.0/16 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/16 -d 10.244.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
""",
        ),
        (
            "filter",
            """
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FLANNEL-FWD -s 10.244.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d 10.244.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
""",
        ),
    ],
)
def test_the_rules_of_a_node_are_those_of_a_real_one(table: str, rules: str) -> None:
    """Six rules for masquerading and two for forwarding, and the jumps to them."""
    tables = node(VXLAN, plan(), machine(1)).netfilter.ipv4
    lines = iptables_save({table: tables[table]}).splitlines()
    assert [line for line in lines if line.startswith("-A")] == rules.strip().splitlines()


def test_the_ipv6_rules_are_twins_with_ipv6_multicast() -> None:
    """A dual-stack node has the same chains in ip6tables."""
    one = machine(1, families=(4, 6))
    saved = iptables_save(node(VXLAN, plan(one), one).netfilter.ipv6)
    assert saved.count("-A FLANNEL-POSTRTG ") == 6
    assert (
        '-A FLANNEL-POSTRTG -s fd00:10:244::/56 ! -d ff00::/8 -m comment --comment "flanneld masq" -j MASQUERADE '
        "--random-fully\n"
    ) in saved


def test_two_families_have_a_tunnel_each() -> None:
    """The second device speaks IPv6 outside and inside."""
    one, two = machine(1, families=(4, 6)), machine(2, families=(4, 6))
    host = node(VXLAN, plan(one, two), one)
    assert host.link("flannel-v6.1").vxlan == Vxlan(1, "fd00:18::11", "eth0", 8472)
    assert ip_route(host, 6) == (
        "fd00:10:244:1:: dev flannel-v6.1 proto kernel metric 256 pref medium\n"
        "fd00:10:244:1::/64 dev cni0 proto kernel metric 256 pref medium\n"
        "fd00:10:244:2::/64 via fd00:10:244:2:: dev flannel-v6.1 metric 1024 onlink pref medium\n"
        "fd00:18::/64 dev eth0 proto kernel metric 256 pref medium\n"
        "default via fd00:18::1 dev eth0 metric 1024 pref medium\n"
    )


def test_the_ipv6_tunnel_is_smaller_than_the_pods_believe() -> None:
    """Flannel reckons with 50 bytes for both families, the kernel with 70 for IPv6."""
    one = machine(1, families=(4, 6))
    host = node(VXLAN, plan(one), one)
    assert (host.link("flannel.1").mtu, host.link("flannel-v6.1").mtu, VXLAN.pod_mtu(one)) == (1450, 1430, 1450)


@pytest.mark.parametrize(
    ("plugin", "underlay", "pods"),
    [
        (VXLAN, 1500, 1450),
        (DIRECT, 1500, 1450),
        (HOST_GW, 1500, 1500),
        (WIREGUARD, 1500, 1420),
        (VXLAN, 9000, 8950),
        (cni.named("flannel", {"mtu": "1500"}), 1500, 1500),
    ],
    ids=["vxlan", "directrouting", "host-gw", "wireguard", "jumbo", "stated"],
)
def test_the_mtu_of_pods_follows_from_the_backend(plugin: cni.Cni, underlay: int, pods: int) -> None:
    """Direct routing does not raise it: some pod may be behind the tunnel. A stated one is taken, right or wrong."""
    one = machine(1, mtu=underlay)
    assert plugin.pod_mtu(one) == pods
    host = node(plugin, plan(one), one)
    assert {link.mtu for link in host.links if link.master or link.name == "cni0"} == {pods}


@pytest.mark.parametrize("nodes", [1, 2, 3, 9])
@pytest.mark.parametrize(
    ("plugin", "neighbours"), [(VXLAN, 1), (DIRECT, 0), (HOST_GW, 0)], ids=["vxlan", "directrouting", "host-gw"]
)
def test_entries_grow_with_the_nodes_not_with_the_pods(plugin: cni.Cni, neighbours: int, nodes: int) -> None:
    """In one subnet: n-1 routes; with the tunnel n-1 neighbours and n-1 forwarding entries, else none."""
    machines = [machine(number) for number in range(1, nodes + 1)]
    host = node(plugin, plan(*machines), machines[0], count=30)
    others = [route for route in host.routes if route.prefix.startswith("10.244.") and route.via]
    assert (len(others), len(host.neighbours), len(host.fdb)) == (
        nodes - 1, neighbours * (nodes - 1), neighbours * (nodes - 1),
    )  # fmt: skip


def test_direct_routing_takes_the_tunnel_for_other_subnets_only() -> None:
    """A neighbour on the cable is reached plainly, one beyond the router through flannel.1."""
    one, near, far = machine(1), machine(2), machine(3, zone=19)
    routes = ip_route(node(DIRECT, plan(one, near, far), one))
    assert "10.244.2.0/24 via 172.18.0.12 dev eth0\n" in routes
    assert "10.244.3.0/24 via 10.244.3.0 dev flannel.1 onlink\n" in routes


def test_host_gw_cannot_route_to_another_subnet() -> None:
    """The kernel refuses a gateway that is not on the cable, so there is no route."""
    one, far = machine(1), machine(3, zone=19)
    host = node(HOST_GW, plan(one, far), one)
    assert "10.244.3.0" not in ip_route(host)
    assert [link.name for link in host.links][2] == "cni0"


def test_direct_routing_without_a_tunnel_is_refused() -> None:
    """The two options contradict each other."""
    with pytest.raises(BadOption, match="directrouting: directrouting belongs to backend vxlan"):
        cni.named("flannel", {"backend": "host-gw", "directrouting": "on"})


def test_a_node_that_published_no_mac_gets_one_of_its_own() -> None:
    """Manifests written by hand have no annotations; the MAC must still be the same on every node."""
    bare = msgspec.structs.replace(machine(2), annotations={})
    whole = plan(machine(1), bare)
    own = node(VXLAN, whole, bare).link("flannel.1").mac
    assert [entry.mac for entry in node(VXLAN, whole, machine(1)).neighbours] == [own]


def test_a_broken_annotation_names_the_node() -> None:
    """What cannot be read is said, not skipped."""
    broken = msgspec.structs.replace(machine(2), annotations={"flannel.alpha.coreos.com/backend-data": "{VNI"})
    with pytest.raises(BadOption, match=r"Node node2: metadata.annotations\[flannel.alpha.coreos.com/backend-data\]"):
        node(VXLAN, plan(machine(1), broken), machine(1))


def test_host_gw_nodes_publish_null() -> None:
    """A real host-gw node has the annotation with the value null; that is no error."""
    nothing = msgspec.structs.replace(machine(2), annotations={"flannel.alpha.coreos.com/backend-data": "null"})
    assert node(VXLAN, plan(nothing), nothing).link("flannel.1").mac


def test_a_packet_to_another_node_is_wrapped_once() -> None:
    """Through the tunnel: encapsulated on one node, unwrapped on the other, the pod's address kept."""
    world = World(network(VXLAN, plan(machine(1), machine(2, zone=19))), Random(1))
    found = exchange(world, "default/web-0", "10.244.2.2", 80)
    tunnelled = (Action.ENCAPSULATE, Action.DECAPSULATE)
    done = [(step.where, step.action) for step in found.steps if step.action in tunnelled]
    assert done == [("node1", Action.ENCAPSULATE), ("node2", Action.DECAPSULATE)]
    assert found.client is Client.OPEN
    assert found.arrival is not None
    assert found.arrival.packet.ip.src == "10.244.1.2"


def test_a_node_speaks_to_remote_pods_by_its_tunnel_address() -> None:
    """So the answer finds its way back through the tunnel."""
    world = World(network(VXLAN, plan()), Random(1))
    found = exchange(world, "node1", "10.244.2.2", 80)
    assert (found.client, found.source) == (Client.OPEN, "10.244.1.0")


def test_a_client_outside_sees_the_node() -> None:
    """What leaves the pod network is masqueraded by FLANNEL-POSTRTG."""
    world = World(network(VXLAN, plan()), Random(1))
    found = exchange(world, "default/web-0", "172.18.0.1", 80)
    assert any(step.action is Action.SNAT and step.packet.ip.src == "172.18.0.11" for step in found.steps)


def keyed(number: int, public: str, *, families: tuple[int, ...] = (4,)) -> cni.Machine:
    """A machine that published a key."""
    published = {"flannel.alpha.coreos.com/backend-data": f'{{"PublicKey":"{public}"}}'}
    return msgspec.structs.replace(machine(number, families=families), annotations=published)


@pytest.mark.parametrize("nodes", [1, 2, 9])
def test_with_wireguard_one_route_does_for_all_nodes(nodes: int) -> None:
    """A node more is a peer more: no route, no neighbour, no forwarding entry."""
    machines = [machine(number) for number in range(1, nodes + 1)]
    host = node(WIREGUARD, plan(*machines), machines[0], count=9)
    assert "10.244.0.0/16 dev flannel-wg scope link\n" in ip_route(host)
    assert not any(route.via and route.prefix != "default" for route in host.routes)
    assert (len(host.wireguard), len(host.neighbours), len(host.fdb)) == (nodes - 1, 0, 0)
    assert {peer.allowed for peer in host.wireguard} == {(f"10.244.{at}.0/24",) for at in range(2, nodes + 1)}


def test_the_wireguard_device_has_a_lone_address_and_the_pods_mtu() -> None:
    """80 bytes less than the underlay, though an IPv4 outer header takes 60."""
    link = node(WIREGUARD, plan(), machine(1)).link("flannel-wg")
    assert (link.mtu, [str(address) for address in link.addresses]) == (1420, ["10.244.1.0/32"])
    assert link.wireguard is not None
    assert link.wireguard.port == 51820


def test_two_families_have_a_wireguard_device_each_and_one_key() -> None:
    """Mode separate: ports 51820 and 51821."""
    one, two = machine(1, families=(4, 6)), machine(2, families=(4, 6))
    host = node(WIREGUARD, plan(one, two), one)
    devices = {link.name: link.wireguard for link in host.links if link.wireguard}
    assert {name: own.port for name, own in devices.items()} == {"flannel-wg": 51820, "flannel-wg-v6": 51821}
    assert len({own.public for own in devices.values()}) == 1
    assert [peer.place for peer in host.wireguard] == ["172.18.0.12:51820", "[fd00:18::12]:51821"]
    assert "fd00:10:244::/56 dev flannel-wg-v6 metric 1024 pref medium\n" in ip_route(host, 6)


def test_each_node_knows_the_key_that_the_other_has() -> None:
    """The same derivation on both sides."""
    own = node(WIREGUARD, plan(), machine(2)).link("flannel-wg").wireguard
    assert own is not None
    peers = {peer.endpoint: peer.public for peer in node(WIREGUARD, plan(), machine(1)).wireguard}
    assert peers["172.18.0.12"] == own.public
    assert public_key(own.private) == own.public


def test_a_published_key_is_taken() -> None:
    """And then nobody but the node knows the private one."""
    key = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
    own = node(WIREGUARD, plan(keyed(2, key)), keyed(2, key)).link("flannel-wg").wireguard
    assert own is not None
    assert (own.public, own.private) == (key, "")
    assert [peer.public for peer in node(WIREGUARD, plan(machine(1), keyed(2, key)), machine(1)).wireguard] == [key]


@pytest.mark.parametrize("key", ["short", "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTm==", "ключ"])
def test_a_published_key_that_is_none_names_the_node(key: str) -> None:
    """32 bytes in base64, or an error."""
    with pytest.raises(BadOption, match=r"Node node2: metadata.annotations\[.*\]: .* is no WireGuard key"):
        node(WIREGUARD, plan(machine(1), keyed(2, key)), machine(1))
