"""Other destinations, other sources, and the way back."""

import random

import pytest

from k8snetlab.address import Prefix
from k8snetlab.linux.conntrack import Tuple
from k8snetlab.linux.host import Network
from k8snetlab.linux.netfilter import (
    ACCEPT,
    NOTRACK,
    Destination,
    Dnat,
    Masquerade,
    Match,
    OutInterface,
    Patch,
    Redirect,
    Rule,
    Snat,
    Target,
)
from k8snetlab.linux.route import Route, RouteType
from k8snetlab.linux.walk import World, exchange
from k8snetlab.packet import ICMP
from k8snetlab.trace import Action, Client, Verdict
from tests.linux.lab import (
    DROPPED,
    M1,
    M2,
    OUTSIDE,
    PROHIBITED,
    REFUSED,
    REJECTED,
    SILENT,
    UNREACHED,
    VIP,
    A,
    B,
    C,
    Flow,
    add,
    check,
    each,
    lab,
    masquerade,
    node_port,
    rejecting,
    ruled,
    send,
    service,
    set_link,
    set_sysctls,
    source,
    to,
    told,
    without_route,
)

BRIDGES_UNSEEN = {"net.bridge.bridge-nf-call-iptables": 0}
LOCALNET = {"net.ipv4.conf.all.route_localnet": 1}
PORT = 30080


def nat(chain: str, *matches: Match, to: Target) -> Patch:
    """One rule of table nat."""
    return Patch("nat", last=(Rule("nat", chain, matches, to),))


def udp(backend: str, target: int = 53) -> Patch:
    """The virtual address and UDP port 53 are the backend."""
    return service(backend, 53, target=target, protocol="UDP")


def port_of(backend: str, **sysctls: int) -> Network:
    """A port of m1 is the backend."""
    return ruled(node_port(PORT, backend), sysctls=sysctls)


def dead_end(kind: RouteType = RouteType.UNREACHABLE) -> Network:
    """The virtual address is an address to which m1 has a route that refuses."""
    return add(ruled(service("10.99.0.1")), "m1", routes=(Route("10.99.0.0/16", type=kind),))


FROM_A = source(f"{A}/32")
TO_A = Destination(Prefix.of(f"{A}/32"))
OUT = masquerade(OutInterface("eth0"))
HAIRPIN = masquerade(FROM_A, TO_A)
PINGED = to(VIP)[0]
NO_HAIRPIN = set_link(ruled(service(A), HAIRPIN), "m1", "veth-a", hairpin=False)
NO_HAIRPIN_UNSEEN = set_link(ruled(service(A), HAIRPIN, sysctls=BRIDGES_UNSEEN), "m1", "veth-a", hairpin=False)

FLOWS = (
    # Destination: where
    Flow("DNAT to another machine", ruled(service(C)), "a", VIP, taker="c", seen=A),
    Flow("DNAT of what the machine sends", ruled(service(C)), "m1", VIP, taker="c", seen=M1),
    Flow("DNAT to a machine", ruled(service(M2, target=10250)), "a", VIP, taker="m2", seen=A),
    Flow("DNAT to the machine itself", ruled(service("10.244.1.1", target=10250)), "a", VIP, taker="m1", seen=A),
    Flow("DNAT of UDP", ruled(udp(C)), "a", VIP, 53, "UDP", taker="c", seen=A),
    Flow("DNAT of a ping", ruled(nat("PREROUTING", PINGED, to=Dnat(C))), "a", VIP, 0, "ICMP", taker="c", seen=A),
    Flow("DNAT in front of a neighbour", ruled(service(C, vip=B)), "a", B, taker="c", seen=A),
    Flow("an address on the own network needs somebody who answers for it", ruled(service(B, vip="10.244.1.50")), "a",
         "10.244.1.50", ending=UNREACHED),
    Flow("an ACCEPT before it", ruled(nat("PREROUTING", FROM_A, to=ACCEPT), service(C)), "a", VIP, ending=UNREACHED),
    # Destination: on the same bridge
    Flow("DNAT to a neighbour: bridged", ruled(service(B)), "a", VIP, taker="b", seen=A),
    Flow("DNAT to a neighbour: a ping", ruled(nat("PREROUTING", PINGED, to=Dnat(B))), "a", VIP, 0, "ICMP", taker="b",
         seen=A),
    Flow("with bridges unseen the neighbour answers past the translation", ruled(service(B), sysctls=BRIDGES_UNSEEN),
         "a",
         VIP, ending=SILENT, taker="b", seen=A, says="the answer is lost"),
    Flow("bridges unseen do no harm across machines", ruled(service(C), sysctls=BRIDGES_UNSEEN), "a", VIP, taker="c",
         seen=A),
    Flow("a machine that does not forward does not translate on its bridge",
         set_sysctls(ruled(service(B)), "m1", **{"net.ipv4.ip_forward": 0}), "a", VIP, ending=DROPPED),
    # Hairpin
    Flow("hairpin: the source becomes the bridge", ruled(service(A), HAIRPIN), "a", VIP, taker="a", seen="10.244.1.1"),
    Flow("hairpin without masquerade is martian", ruled(service(A)), "a", VIP, ending=DROPPED, says="martian"),
    Flow("hairpin mode off", NO_HAIRPIN, "a", VIP, ending=DROPPED, says="hairpin mode is off"),
    Flow("hairpin with bridges unseen is routed, and needs no hairpin mode", NO_HAIRPIN_UNSEEN, "a", VIP, taker="a",
         seen="10.244.1.1"),
    Flow("hairpin by a neighbour's address", ruled(service(A, vip=B), HAIRPIN), "a", B, taker="a", seen="10.244.1.1"),
    # A port of the machine, with masquerade
    Flow("port, from outside, to another machine", port_of(C), "outside", M1, PORT, taker="c", seen=M1),
    Flow("port, from outside, to an own container", port_of(A), "outside", M1, PORT, taker="a", seen="10.244.1.1"),
    Flow("port, from a container, to another machine", port_of(C), "a", M1, PORT, taker="c", seen=M1),
    Flow("port, from a container, to its neighbour", port_of(B), "a", M1, PORT, taker="b", seen="10.244.1.1"),
    Flow("port, from a container, to itself", port_of(A), "a", M1, PORT, taker="a", seen="10.244.1.1"),
    Flow("port, from a container to itself by another machine", port_of(C), "c", M1, PORT, taker="c", seen=M1),
    Flow("port, from the machine, to another machine", port_of(C), "m1", M1, PORT, taker="c", seen=M1),
    Flow("port, from the machine, to an own container", port_of(A), "m1", M1, PORT, taker="a", seen="10.244.1.1"),
    Flow("without masquerade the server answers the client directly, who does not know it", ruled(service(C, vip=M1)),
         "outside", M1, ending=SILENT, taker="c", seen=OUTSIDE, says="no connection"),
    # 127.0.0.1
    Flow("port of 127.0.0.1", port_of(C, **LOCALNET), "m1", "127.0.0.1", PORT, taker="c", seen=M1),
    Flow("port of 127.0.0.1, to an own container", port_of(A, **LOCALNET), "m1", "127.0.0.1", PORT, taker="a",
         seen="10.244.1.1"),
    Flow("port of 127.0.0.1, route_localnet on the device alone",
         set_sysctls(port_of(C), "m1", **{"net.ipv4.conf.eth0.route_localnet": 1}), "m1", "127.0.0.1", PORT, taker="c",
         seen=M1),
    Flow("port of 127.0.0.1 without route_localnet", port_of(C), "m1", "127.0.0.1", PORT, ending=DROPPED,
         says="martian"),
    Flow("DNAT to 127.0.0.1", ruled(service("127.0.0.1", target=10250), sysctls=LOCALNET), "a", VIP, taker="m1",
         seen=A),
    Flow("DNAT to 127.0.0.1 without route_localnet", ruled(service("127.0.0.1", target=10250)), "a", VIP,
         ending=DROPPED,
         says="martian"),
    # Source
    Flow("masquerade to the outside", ruled(OUT), "a", OUTSIDE, taker="outside", seen=M1),
    Flow("masquerade to another container", ruled(OUT), "a", C, taker="c", seen=M1),
    Flow("masquerade of a ping", ruled(OUT), "a", OUTSIDE, 0, "ICMP", taker="outside", seen=M1),
    Flow("SNAT", ruled(nat("POSTROUTING", OutInterface("eth0"), to=Snat(M1))), "a", OUTSIDE, taker="outside", seen=M1),
    # REDIRECT
    Flow("REDIRECT of what is sent goes to 127.0.0.1, from the own address",
         ruled(nat("OUTPUT", *to(C, 81), to=Redirect(80)), on="a"), "a", C, 81, taker="a", seen=A),
    Flow("REDIRECT of what arrives", ruled(nat("PREROUTING", *to(C, 81), to=Redirect(80)), on="c"), "a", C, 81,
         taker="c",
         seen=A),
    Flow("REDIRECT of what would be routed", ruled(nat("PREROUTING", *to(C, 80), to=Redirect(10250))), "a", C,
         taker="m1",
         seen=A),
    Flow("REDIRECT of what would be bridged", ruled(nat("PREROUTING", *to(B, 80), to=Redirect(10250))), "a", B,
         taker="m1",
         seen=A),
    # NOTRACK
    Flow("what is not tracked is not translated",
         ruled(service(C), Patch("raw", last=(Rule("raw", "PREROUTING", (FROM_A,), NOTRACK),))), "a", VIP,
         ending=UNREACHED),
    Flow("nor are answers that are not tracked",
         ruled(service(C), Patch("raw", last=(Rule("raw", "PREROUTING", (source(f"{C}/32"),), NOTRACK),))), "a", VIP,
         ending=SILENT, taker="c", seen=A),
    # Refused behind the translation: the client hears of it from the address that it asked
    Flow("nobody listens", ruled(service(C, target=81)), "a", VIP, ending=REFUSED),
    Flow("nobody listens on the neighbour", ruled(service(B, target=81)), "a", VIP, ending=REFUSED),
    Flow("nobody listens: UDP", ruled(udp(C, 54)), "a", VIP, 53, "UDP", REFUSED),
    Flow("nobody listens on the neighbour: UDP", ruled(udp(B, 54)), "a", VIP, 53, "UDP", REFUSED),
    Flow("nobody listens: UDP, masqueraded", ruled(udp(C, 54), OUT), "a", VIP, 53, "UDP", REFUSED),
    Flow("nobody has the new address", ruled(service("10.244.2.99")), "a", VIP, ending=UNREACHED),
    Flow("nobody has the new address: masqueraded", ruled(service("10.244.2.99"), OUT), "a", VIP, ending=UNREACHED),
    Flow("nobody has the new address: on the same bridge", ruled(service("10.244.1.99")), "a", VIP, ending=UNREACHED),
    Flow("nobody has the new address: next to the machine, masqueraded", ruled(service("172.18.0.99"), OUT), "a", VIP,
         ending=UNREACHED),
    Flow("nobody has the new address: from the machine", ruled(service("172.18.0.99")), "m1", VIP, ending=UNREACHED),
    *(
        Flow(f"a program that sends by UDP is told of a new address that leads nowhere: {kind}",
             add(ruled(udp("10.99.0.1")), "m1", routes=(Route("10.99.0.0/16", type=kind),)), "m1", VIP, 53, "UDP",
             ending=UNREACHED, says="where the rules would have it")
        for kind in (RouteType.BLACKHOLE, RouteType.UNREACHABLE, RouteType.PROHIBIT)
    ),
    Flow("no route to the new address", ruled(service("10.99.0.1")), "a", VIP, ending=UNREACHED),
    Flow("a route that refuses the new address", dead_end(), "a", VIP, ending=UNREACHED),
    Flow("a blackhole behind it", dead_end(RouteType.BLACKHOLE), "a", VIP, ending=SILENT),
    Flow("in OUTPUT a program is not told of a route that refuses the new address", dead_end(), "m1", VIP,
         ending=DROPPED),
    Flow("but of one that refuses the address it asked for", without_route(ruled(service(C)), "m1", "default"), "m1",
         VIP,
         ending=UNREACHED),
    # REJECT behind the translation
    Flow("REJECT in front of it", ruled(rejecting("FORWARD", VIP, "icmp-port-unreachable")), "a", VIP, ending=REFUSED),
    Flow("REJECT in front of it: from the machine", ruled(rejecting("OUTPUT", VIP, "icmp-port-unreachable")), "m1", VIP,
         ending=REFUSED),
    Flow("REJECT behind it", ruled(service(C), rejecting("FORWARD", C, "icmp-port-unreachable")), "a", VIP,
         ending=REFUSED),
    Flow("REJECT behind it: prohibited", ruled(service(C), rejecting("FORWARD", C, "icmp-admin-prohibited")), "a", VIP,
         ending=PROHIBITED),
    Flow("REJECT behind it: UDP", ruled(udp(C), rejecting("FORWARD", C, "icmp-port-unreachable", 53, "UDP")), "a",
         VIP, 53,
         "UDP", REFUSED),
    Flow("REJECT behind it, on the bridge", ruled(service(B), rejecting("FORWARD", B, "icmp-port-unreachable")), "a",
         VIP,
         ending=REFUSED),
    Flow("REJECT behind it, on the next machine",
         lab(rules={"m1": (service(C),), "m2": (rejecting("FORWARD", C, "icmp-port-unreachable"),)}), "a", VIP,
         ending=REFUSED),
    Flow("REJECT behind it, in the container",
         lab(rules={"m1": (service(C),), "c": (rejecting("INPUT", C, "icmp-port-unreachable"),)}), "a", VIP,
         ending=REFUSED),
    Flow("REJECT behind DNAT and masquerade",
         lab(rules={"m1": (node_port(PORT, C),), "m2": (rejecting("FORWARD", C, "icmp-port-unreachable"),)}),
         "outside", M1,
         PORT, ending=REFUSED),
    Flow("masquerade of what stays on the machine: the first device has the address, up or down",
         set_link(ruled(node_port(PORT, M1, 10250)), "m1", "eth0", up=False), "m1", M1, PORT, taker="m1", seen=M1),
    Flow("REJECT between DNAT and masquerade", ruled(node_port(PORT, C), rejecting("FORWARD", C,
         "icmp-port-unreachable")),
         "outside", M1, PORT, ending=REFUSED),
    Flow("REJECT behind it: from the machine", ruled(service(C), rejecting("OUTPUT", C, "icmp-port-unreachable")),
         "m1", VIP,
         ending=REFUSED),
    # A reset behind the translation
    Flow("a reset from the next machine", lab(rules={"m1": (service(C),), "m2": (rejecting("FORWARD", C,
         "tcp-reset"),)}),
         "a", VIP, ending=REFUSED),
    Flow("a reset between DNAT and masquerade", ruled(node_port(PORT, C), rejecting("FORWARD", C, "tcp-reset")),
         "outside",
         M1, PORT, ending=REFUSED),
    Flow("a reset in OUTPUT", ruled(service(C), rejecting("OUTPUT", C, "tcp-reset")), "m1", VIP, ending=REFUSED),
    Flow("a reset goes back past the translation to who came by a bridge",
         ruled(service(C), rejecting("FORWARD", C, "tcp-reset")), "a", VIP, ending=REJECTED,
         says="the reset is ignored"),
    Flow("a reset goes back past the translation on the bridge", ruled(service(B), rejecting("FORWARD", B,
         "tcp-reset")), "a",
         VIP, ending=REJECTED, says="the reset is ignored"),
    Flow("a reset is translated where bridges are unseen",
         ruled(service(C), rejecting("FORWARD", C, "tcp-reset"), sysctls=BRIDGES_UNSEEN), "a", VIP, ending=REFUSED),
)  # fmt: skip


@each(FLOWS)
def test_flow(flow: Flow) -> None:
    """Each row of the table above."""
    check(flow)


@pytest.mark.parametrize(("target", "tracks"), [(ACCEPT, False), (Masquerade(), True)], ids=["accept", "masquerade"])
def test_a_table_nat_tracks_connections_once_it_translates(target: Target, *, tracks: bool) -> None:
    """Without a rule that translates there are no connections, and the table is never asked."""
    host = ruled(nat("POSTROUTING", PINGED, to=target))["m1"]
    assert host.tracks[4] is tracks
    assert not host.tracks[6]


# Connections that follow each other


def world(*patches: Patch) -> World:
    """m1 with rules, ready for more than one packet."""
    return World(ruled(*patches), random.Random(7))


def seen_ports(at: World, protocol: str, port: int = 0) -> list[int]:
    """The source port (or echo identifier) that the outside saw of a and then of b, who used the same one."""
    found = [exchange(at, name, OUTSIDE, port, protocol, sport=40000) for name in ("a", "b")]
    assert [one.client for one in found] == [Client.OPEN, Client.OPEN], told(found[-1])
    headers = [one.arrival.packet.headers[1] for one in found if one.arrival is not None]
    return [header.ident if isinstance(header, ICMP) else getattr(header, "sport", 0) for header in headers]


@pytest.mark.parametrize(("protocol", "port"), [("TCP", 80), ("UDP", 53), ("ICMP", 0)])
def test_masquerade_keeps_a_source_port_unless_it_is_taken(protocol: str, port: int) -> None:
    """Two clients behind one address with the same port (or echo identifier): the second gets another one."""
    first, second = seen_ports(world(OUT), protocol, port)
    assert first == 40000 != second


def test_masquerade_may_choose_every_port_by_chance() -> None:
    """With `--random-fully` even the first one gets another port, the same one for the same seed."""
    random_ports = nat("POSTROUTING", OutInterface("eth0"), to=Masquerade(random_fully=True))
    ports = seen_ports(world(random_ports), "TCP", 80)
    assert 40000 not in ports and len(set(ports)) == 2
    assert ports == seen_ports(world(random_ports), "TCP", 80)


def test_two_backends_of_one_client_do_not_share_a_port() -> None:
    """No rule asks for a new source, but both connections would be answered alike: conntrack moves one."""
    other_vip = "10.96.0.11"
    at = world(service(C), service(C, vip=other_vip))
    found = [exchange(at, "a", vip, 80, sport=40000) for vip in (VIP, other_vip)]
    assert [one.client for one in found] == [Client.OPEN, Client.OPEN], told(found[-1])
    said = [step.why for step in found[1].steps if step.action is Action.CONNTRACK]
    assert said == ["another connection has this source port already: conntrack takes a free one"]


def test_rules_are_asked_for_the_first_packet_only() -> None:
    """A packet of a known connection is translated as its first one was, though chance would now say otherwise."""
    at = world(service(C))
    exchange(at, "a", VIP, 80, sport=40000)
    found = exchange(at, "a", VIP, 80, sport=40000, flags=".", payload=b"GET /")
    actions = [step.action for step in found.steps if step.where == "m1"]
    assert Action.CONNTRACK in actions and Action.DNAT not in actions, told(found)
    assert found.arrival is not None and found.arrival.host == "c"


def test_a_packet_in_the_middle_of_a_connection_begins_one_for_conntrack() -> None:
    """It is picked up, and translated by the rules, but the server knows no such connection."""
    found = exchange(world(service(C)), "a", VIP, 80, sport=40000, flags=".")
    assert (found.fate, found.client) == (Verdict.REJECTED, Client.REFUSED), told(found)


def test_a_refused_packet_leaves_no_connection() -> None:
    """What never left POSTROUTING is not confirmed."""
    at = world(service(C), rejecting("FORWARD", C, "icmp-port-unreachable"))
    exchange(at, "a", VIP, 80)
    assert len(at.at("m1").conntrack) == 0


def test_conntrack_keeps_both_tuples() -> None:
    """As the first packet was, and as the answer is: from the backend, to the masqueraded source."""
    at = world(node_port(PORT, C))
    exchange(at, "outside", M1, PORT, sport=40000)
    (connection,) = at.at("m1").conntrack
    assert connection.original == Tuple("TCP", OUTSIDE, 40000, M1, PORT)
    assert connection.reply == Tuple("TCP", C, 80, M1, 40000)
    assert connection.is_dnat and connection.is_snat and connection.seen_reply


def test_a_forgotten_connection_is_gone_in_both_directions() -> None:
    """`conntrack -D` by either tuple."""
    at = world(service(C))
    exchange(at, "a", VIP, 80, sport=40000)
    table = at.at("m1").conntrack
    table.forget(Tuple("TCP", C, 80, A, 40000))
    assert table.find(Tuple("TCP", A, 40000, VIP, 80)) is None and len(table) == 0


def test_an_error_is_translated_inside_and_outside() -> None:
    """The client is told by the address that it asked, about the packet that it sent."""
    found = send(ruled(udp(C, 54)), "a", VIP, 53, "UDP")
    assert found.answer is not None
    ip, error = found.answer.ip, found.answer.headers[1]
    assert isinstance(error, ICMP) and error.about is not None
    assert (ip.src, error.about.ip.src, error.about.ip.dst) == (VIP, A, VIP), told(found)
    assert error.about.headers[1] == found.steps[0].packet.headers[1]
