"""Packets that only two machines can read."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from k8snetlab import cni
from k8snetlab.cluster import Cluster
from k8snetlab.linux.host import Network
from k8snetlab.linux.link import Link
from k8snetlab.linux.text import entry_line, ip_addr, ip_link_details, wg, wg_conf
from k8snetlab.linux.walk import Exchange, World, exchange
from k8snetlab.linux.wireguard import Wireguard, WireguardPeer, WireguardPeers, padding, private_key, public_key
from k8snetlab.packet import Ethernet, IPv4, IPv6, WireGuard
from k8snetlab.trace import Action, Client
from tests.cni.example import machine, network, node, plan
from tests.shops import pod

PLUGIN = cni.named("flannel", {"backend": "wireguard"})
WEB_0, WEB_1, WEB_1_V6 = "default/web-0", "10.244.2.2", "fd00:10:244:2::2"


def two(*families: int, mtu: int = 1500) -> Network:
    """Two nodes with two pods each."""
    return network(PLUGIN, plan(*(machine(number, families=families or (4,), mtu=mtu) for number in (1, 2))))


def asked(net: Network, source: str = WEB_0, target: str = WEB_1, protocol: str = "TCP", size: int = 0) -> Exchange:
    """One packet from pod to pod, and the answer."""
    return exchange(World(net, Random(1)), source, target, 80, protocol, payload=bytes(size))


def only(found: Exchange, action: Action, where: str) -> list[str]:
    """The reasons of the steps of one kind on one machine."""
    return [step.why for step in found.steps if (step.action, step.where) == (action, where)]


def peer(net: Network, of: str) -> WireguardPeer:
    """The only peer of a node."""
    (found,) = net[of].wireguard
    return found


def rekeyed(net: Network, of: str, **fields: object) -> Network:
    """The network in which the only peer of a node is another one."""
    return net.replacing(
        msgspec.structs.replace(net[of], wireguard=(msgspec.structs.replace(peer(net, of), **fields),))
    )


# Keys


@pytest.mark.parametrize(
    ("private", "public"),
    [
        ("dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=", "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="),
        ("XasIfmJKikt54X+Lg4AO5m87sSkmGLb9HC+LJ/+I4Os=", "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="),
    ],
    ids=["Alice", "Bob"],
)
def test_public_keys_are_those_of_rfc_7748(private: str, public: str) -> None:
    """The test vectors of its section 6.1."""
    assert public_key(private) == public


def test_keys_follow_from_names() -> None:
    """The same each time, and another for each name."""
    assert private_key("node1") == private_key("node1") != private_key("node2")


# Cryptokey routing


def peers(*allowed: tuple[str, ...]) -> WireguardPeers:
    """Peers with these allowed IPs; their keys are `0`, `1`, …"""
    held = (WireguardPeer("wg0", str(at), each, "192.0.2.1", 51820) for at, each in enumerate(allowed))
    return WireguardPeers(Wireguard("own", 51820), held)


@pytest.mark.parametrize(
    ("address", "key"), [("10.0.0.1", "0"), ("10.0.1.1", "1"), ("192.0.2.1", None), ("fd00::1", "1"), ("fd01::1", None)]
)
def test_the_longest_allowed_prefix_decides(address: str, key: str | None) -> None:
    """As in a routing table, for each family apart."""
    found = peers(("10.0.0.0/8",), ("10.0.1.0/24", "fd00::/64")).behind(address)
    assert (found.public if found else None) == key


def test_a_prefix_belongs_to_the_peer_that_got_it_last() -> None:
    """`wg set` moves it."""
    found = peers(("10.0.0.0/8",), ("10.0.0.0/8",)).behind("10.0.0.1")
    assert found is not None
    assert found.public == "1"


# The way there


@pytest.mark.parametrize(("families", "target", "outer"), [((4,), WEB_1, IPv4), ((6,), WEB_1_V6, IPv6)])
def test_a_packet_is_encrypted_on_one_node_and_decrypted_on_the_other(
    families: tuple[int, ...], target: str, outer: type
) -> None:
    """In UDP from port to port; the pod's own address arrives."""
    found = asked(two(*families), target=target)
    assert found.client is Client.OPEN, found.reason
    sealed = next(step for step in found.steps if step.action is Action.ENCAPSULATE)
    assert (sealed.where, type(sealed.packet.headers[0]), type(sealed.packet.headers[2])) == ("node1", outer, WireGuard)
    assert only(found, Action.DECAPSULATE, "node2")
    assert found.arrival is not None
    assert found.arrival.packet.ip.src == {4: "10.244.1.2", 6: "fd00:10:244:1::2"}[families[0]]


@pytest.mark.parametrize(("families", "target", "longest"), [((4,), WEB_1, 1114), ((6,), WEB_1_V6, 1150)])
def test_a_packet_costs_its_headers_and_padding(families: tuple[int, ...], target: str, longest: int) -> None:
    """1000 bytes of UDP: 1028 or 1048 in IP, padded to 1040 or 1056; 32 of WireGuard, 8 of UDP, IP and Ethernet."""
    found = asked(two(*families), target=target, protocol="UDP", size=1000)
    frames = [step.packet for step in found.steps if isinstance(step.packet.headers[0], Ethernet)]
    assert max(frame.length for frame in frames) == longest


@pytest.mark.parametrize(
    ("length", "mtu", "added"), [(1040, 1420, 0), (1041, 1420, 15), (1420, 1420, 0), (1419, 1420, 1), (60, 1420, 4)]
)
def test_padding_ends_at_the_mtu(length: int, mtu: int, added: int) -> None:
    """A full packet of 1420 bytes is no multiple of 16, and stays as it is."""
    assert padding(length, mtu) == added


@pytest.mark.parametrize(("size", "client"), [(1392, Client.OPEN), (1393, Client.TIMEOUT)])
def test_pods_may_send_1420_bytes(size: int, client: Client) -> None:
    """With the outer headers of IPv4 that leaves 20 bytes of the underlay unused."""
    assert asked(two(), protocol="ICMP", size=size).client is client


def test_no_mac_address_is_asked_for_on_the_device() -> None:
    """There is nobody who could answer, and no need to."""
    found = asked(two())
    assert not any(step.action is Action.ARP and step.device == "flannel-wg" for step in found.steps)


def test_a_node_speaks_to_remote_pods_by_the_address_of_its_device() -> None:
    """Any other source would not be allowed at the other end."""
    found = asked(two(), source="node1")
    assert (found.client, found.source) == (Client.OPEN, "10.244.1.0")


# What is lost


def test_without_a_peer_the_sender_is_told() -> None:
    """No key, no packet: host unreachable."""
    net = two()
    found = asked(net.without("node1", peer(net, "node1")))
    assert found.client is Client.UNREACHABLE
    assert only(found, Action.UNREACHABLE, "node1") == [
        "flannel-wg has no peer that 10.244.2.2 is behind (required key not available)"
    ]


def test_a_sender_that_the_other_does_not_know_is_not_heard() -> None:
    """A peer that is missing at the other end: what arrives belongs to no session."""
    net = two()
    found = asked(net.without("node2", peer(net, "node2")))
    assert found.client is Client.TIMEOUT
    assert only(found, Action.DROP, "node2") == [
        "flannel-wg has no peer with whom it could have agreed on this session; nobody is told"
    ]


def test_a_wrong_key_is_as_good_as_none() -> None:
    """The message is for another one."""
    found = asked(rekeyed(two(), "node1", public=public_key(private_key("somebody else"))))
    assert found.client is Client.TIMEOUT
    assert "this session" in found.steps[-1].why


def test_a_source_that_the_peer_may_not_have_is_thrown_away() -> None:
    """The allowed IPs are a filter as well: here pods of node1 have other addresses than node2 allows it."""
    found = asked(rekeyed(two(), "node2", allowed=("10.244.7.0/24",)))
    assert found.client is Client.TIMEOUT
    assert only(found, Action.DROP, "node2") == [
        "10.244.1.2 is not among the allowed IPs of the peer that sent it, 10.244.7.0/24; nobody is told"
    ]


@pytest.mark.parametrize(
    ("endpoint", "why"), [("10.244.2.9", "leads into the device itself"), ("198.51.100.9", "is missing")]
)
def test_a_peer_that_cannot_be_found_gets_nothing(endpoint: str, why: str) -> None:
    """No way to the endpoint, or one through the tunnel: nobody is told."""
    net = rekeyed(two(), "node1", endpoint=endpoint)
    default = next(route for route in net["node1"].routes if route.prefix == "default")
    found = asked(net.without("node1", default))
    assert found.client is Client.TIMEOUT
    assert why in found.steps[-1].why


def test_what_is_no_message_of_wireguard_is_thrown_away() -> None:
    """A datagram to the port that a device holds: no program hears it."""
    found = exchange(World(two(), Random(1)), "router", "172.18.0.11", 51820, "UDP")
    assert "this session" in found.steps[-1].why


def test_a_device_that_is_down_holds_no_port() -> None:
    """The other node is told by ICMP, and its sender by nobody."""
    net = two()
    links = tuple(_down(link) if link.name == "flannel-wg" else link for link in net["node2"].links)
    found = asked(net.replacing(msgspec.structs.replace(net["node2"], links=links)))
    assert found.client is Client.TIMEOUT


def _down(link: Link) -> Link:
    return msgspec.structs.replace(link, up=False)


# What the tools print


def test_the_device_has_no_link_layer_address() -> None:
    """As `ip` shows a device without frames."""
    host = node(PLUGIN, plan(), machine(1))
    assert (
        "3: flannel-wg: <POINTOPOINT,NOARP,UP,LOWER_UP> mtu 1420 qdisc noqueue state UNKNOWN group default qlen 1000\n"
        "    link/none\n"
        "    inet 10.244.1.0/32 scope global flannel-wg\n"
    ) in ip_addr(host)
    assert "    link/none\n    wireguard\n" in ip_link_details(host)


def test_the_peers_are_printed_as_wg_does() -> None:
    """`wg show` hides the private key, `wg showconf` is what `wg setconf` takes."""
    one, other = (public_key(private_key(f"node{number}")) for number in (1, 2))
    host = node(PLUGIN, plan(machine(1), machine(2)), machine(1))
    assert wg(host) == (
        f"interface: flannel-wg\n  public key: {one}\n  private key: (hidden)\n  listening port: 51820\n\n"
        f"peer: {other}\n  endpoint: 172.18.0.12:51820\n  allowed ips: 10.244.2.0/24\n"
    )
    assert wg_conf(host) == (
        f"# flannel-wg\n[Interface]\nListenPort = 51820\nPrivateKey = {private_key('node1')}\n\n"
        f"[Peer]\nPublicKey = {other}\nAllowedIPs = 10.244.2.0/24\nEndpoint = 172.18.0.12:51820\n"
    )
    assert entry_line(host.wireguard[0]) == (
        f"flannel-wg peer {other} allowed-ips 10.244.2.0/24 endpoint 172.18.0.12:51820"
    )


def test_the_story_says_that_packets_are_carried_not_frames() -> None:
    """VXLAN carries frames; a device without MAC addresses has none."""
    shop = Cluster.load(pod("a"), pod("b", node="node-2"), nodes=2, cni_options={"backend": "wireguard"})
    told = " ".join(shop.trace("default/a", "default/b:8080").explain().split())
    assert "The device flannel-wg wraps the packet into a packet 172.18.0.11 → 172.18.0.12" in told
    assert "The packet is unwrapped again: flannel-wg decrypts" in told
