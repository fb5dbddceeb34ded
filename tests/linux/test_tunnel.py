"""Frames inside UDP: VXLAN from machine to machine."""

import random

from k8snetlab.linux.host import Network
from k8snetlab.linux.link import Vxlan
from k8snetlab.linux.netfilter import DROP, Mark, Patch, Protocol4, SetMark
from k8snetlab.linux.route import Route
from k8snetlab.linux.walk import World, exchange
from k8snetlab.packet import TCP, UDP, VXLAN, Ethernet, IPv4
from k8snetlab.trace import Action
from tests.linux.lab import (
    A6,
    C6,
    DROPPED,
    M1,
    M2,
    OUTSIDE,
    REJECTED,
    SILENT,
    UNREACHED,
    UNTOLD,
    VIP,
    A,
    C,
    Flow,
    Overlay,
    add,
    check,
    each,
    filters,
    lab,
    mac,
    node_port,
    rule,
    send,
    service,
    set_link,
    to,
    told,
    without_route,
)

THERE, UNDERLAY = "10.244.2.0/24", "172.18.0.0/24"
TUNNEL = Overlay.VXLAN
DARK = set_link(lab(TUNNEL), "switch", "p2", up=False)
"""Frames to m2 find no way through the switch."""


def ruled(**rules: tuple[Patch, ...]) -> Network:
    """The network with a tunnel, and with rules by machine."""
    return lab(TUNNEL, rules=rules)


def without_fdb(name: str) -> Network:
    """A machine does not know which machine a tunnel MAC is on."""
    network = lab(TUNNEL)
    return network.without(name, network[name].fdb[0])


def without_neighbour(name: str) -> Network:
    """A machine does not know the MAC of the other end of its tunnel (IPv4)."""
    network = lab(TUNNEL)
    return network.without(name, network[name].neighbours[0])


def into_itself() -> Network:
    """m1 sends what is for the address of m2 into the tunnel to m2."""
    return add(lab(TUNNEL), "m1", routes=(Route(f"{M2}/32", "flannel.1", "10.244.2.0", onlink=True),))


def other_tunnel(vni: int = 1, port: int = 8472) -> Network:
    """m2 has another network identifier or port."""
    return set_link(lab(TUNNEL), "m2", "flannel.1", vxlan=Vxlan(vni, M2, "eth0", port))


def marking(chain: str, *matches: Protocol4) -> Patch:
    """Packets get the mark 7."""
    return Patch("mangle", last=(rule("mangle", chain, *matches, to=SetMark(7)),))


MARKED_UDP = filters(rule("filter", "OUTPUT", Protocol4("UDP"), Mark(7), to=DROP))
MARKED = filters(rule("filter", "FORWARD", Mark(7), to=DROP))

FLOWS = (
    Flow("through the tunnel", lab(TUNNEL), "a", C, taker="c", seen=A),
    Flow("IPv6 inside IPv4", lab(TUNNEL), "a", C6, taker="c", seen=A6),
    Flow("the machine itself uses the tunnel's address", lab(TUNNEL), "m1", C, taker="c", seen="10.244.1.0"),
    Flow("and its IPv6 address", lab(TUNNEL), "m1", C6, taker="c", seen="fd00:10:244:1::"),
    Flow("UDP", lab(TUNNEL), "a", C, 53, "UDP", taker="c", seen=A),
    Flow("ping", lab(TUNNEL), "a", C, 0, "ICMP", taker="c", seen=A),
    Flow("SCTP", lab(TUNNEL), "a", C, 7, "SCTP", taker="c", seen=A),
    Flow("from outside there is no tunnel", lab(TUNNEL), "outside", C, taker="c", seen=OUTSIDE),
    # State that is missing
    Flow("no FDB entry", without_fdb("m1"), "a", C, ending=SILENT, says="flannel.1 has no FDB entry"),
    Flow("no FDB entry: IPv6", without_fdb("m1"), "a", C6, ending=SILENT),
    Flow("no FDB entry on the other side", without_fdb("m2"), "a", C, ending=SILENT, taker="c", seen=A),
    Flow("no neighbour", without_neighbour("m1"), "a", C, ending=UNREACHED, says="nobody on flannel.1 answers"),
    Flow("no neighbour on the other side", without_neighbour("m2"), "a", C, ending=SILENT, taker="c", seen=A),
    Flow("the IPv6 neighbour is another entry", without_neighbour("m1"), "a", C6, taker="c", seen=A6),
    Flow("no route: the router knows a way", without_route(lab(TUNNEL), "m1", THERE), "a", C, taker="c", seen=A),
    Flow("no route: the router knows none", without_route(without_route(lab(TUNNEL), "m1", THERE), "router", THERE),
         "a", C,
         ending=UNREACHED),
    Flow("the tunnel is down here", without_route(set_link(lab(TUNNEL), "m1", "flannel.1", up=False), "router",
         THERE), "a", C,
         ending=UNREACHED),
    Flow("the tunnel is down there", set_link(lab(TUNNEL), "m2", "flannel.1", up=False), "a", C, ending=REJECTED,
         says="nobody on m2 listens on 172.18.0.12:8472"),
    # State that does not fit
    Flow("another network identifier", other_tunnel(vni=2), "a", C, ending=DROPPED, says="network identifier 1"),
    Flow("another port", other_tunnel(port=4789), "a", C, ending=REJECTED, says="port-unreachable"),
    Flow("another MAC", set_link(lab(TUNNEL), "m2", "flannel.1", mac=mac(0x77, 0)), "a", C, ending=DROPPED,
         says="the frame is for 02:00:00:00:40:02"),
    # The outer packet has a way of its own
    Flow("the underlay is dark: the inner sender is not told", DARK, "a", C, ending=UNTOLD,
         says="nobody on eth0 answers"),
    Flow("the underlay is dark: nor is a program of the machine", DARK, "m1", C, ending=UNTOLD),
    Flow("the outer packet has no route", without_route(without_route(lab(TUNNEL), "m1", UNDERLAY), "m1", "default"),
         "m1", C,
         ending=UNTOLD, says="no route to 172.18.0.12"),
    Flow("the way to the other machine leads into the tunnel itself", into_itself(), "a", C, ending=SILENT,
         says="a circle"),
    Flow("INPUT sees the outer packet", ruled(m2=(filters(rule("filter", "INPUT", *to(M2, 8472, "UDP"), to=DROP)),)),
         "a", C,
         ending=DROPPED),
    Flow("FORWARD sees the inner packet", ruled(m2=(filters(rule("filter", "FORWARD", *to(C, 80), to=DROP)),)), "a", C,
         ending=DROPPED),
    # Marks
    Flow("the outer packet inherits the mark", ruled(m1=(marking("PREROUTING", Protocol4("TCP")), MARKED_UDP)), "a", C,
         ending=DROPPED),
    Flow("the inner packet keeps the mark of the outer one", ruled(m2=(marking("INPUT", Protocol4("UDP")), MARKED)),
         "a", C,
         ending=DROPPED),
    Flow("a mark does not go over a cable", lab(rules={"a": (marking("OUTPUT"),), "m1": (MARKED,)}), "a", C,
         taker="c", seen=A),
    # Translation and tunnels
    Flow("DNAT, then the tunnel", ruled(m1=(service(C),)), "a", VIP, taker="c", seen=A),
    Flow("masquerade takes the address of the tunnel", ruled(m1=(node_port(30080, C),)), "outside", M1, 30080,
         taker="c",
         seen="10.244.1.0"),
)  # fmt: skip


@each(FLOWS)
def test_flow(flow: Flow) -> None:
    """Each row of the table above."""
    check(flow)


def test_a_tunnel_adds_fifty_bytes() -> None:
    """Outer IPv4, UDP and VXLAN, and the inner Ethernet header; the outer one replaces a frame header."""
    found = send(lab(TUNNEL), "a", C)
    sent = [step.packet for step in found.steps if step.action is Action.TRANSMIT]
    assert sent[1].length - sent[0].length == 50, told(found)


def test_the_outer_headers_are_those_of_rfc_7348() -> None:
    """From machine to machine, without DF, to the tunnel's port, with its network identifier."""
    found = send(lab(TUNNEL), "a", C)
    outer = next(step.packet for step in found.steps if step.where == "m1" and step.action is Action.TRANSMIT)
    kinds = tuple(type(header) for header in outer.headers)
    assert kinds == (Ethernet, IPv4, UDP, VXLAN, Ethernet, IPv4, TCP)
    _, ip, udp, vxlan, inner, *_ = outer.headers
    assert isinstance(ip, IPv4) and (ip.src, ip.dst, ip.df) == (M1, M2, False)
    assert isinstance(udp, UDP) and udp.dport == 8472 and udp.sport >= 49152
    assert isinstance(vxlan, VXLAN) and vxlan.vni == 1
    assert isinstance(inner, Ethernet) and (inner.src, inner.dst) == (mac(0x40, 1), mac(0x40, 2))


def test_the_outer_source_port_tells_flows_apart() -> None:
    """The same flow keeps it, so that routers can spread flows; another flow has another one."""
    ports = []
    for sport in (40000, 40000, 40001):
        found = exchange(World(lab(TUNNEL), random.Random(7)), "a", C, 80, sport=sport)
        outer = next(step.packet.headers[0:2] for step in found.steps if step.action is Action.ENCAPSULATE)
        assert isinstance(outer[1], UDP)
        ports.append(outer[1].sport)
    assert ports[0] == ports[1] != ports[2]


def test_the_tunnel_is_no_hop_for_the_inner_packet() -> None:
    """Two machines route it, and that is all: 64 becomes 62."""
    found = send(lab(TUNNEL), "a", C)
    assert found.arrival is not None and found.arrival.packet.ip.ttl == 62, told(found)
