"""Which packets are in a set."""

from __future__ import annotations

import pytest

from k8snetlab.address import family
from k8snetlab.errors import LabError, UnknownName
from k8snetlab.linux.host import Network
from k8snetlab.linux.ipset import IpSet, IpSetEntry, SetType
from k8snetlab.linux.netfilter import ACCEPT, MatchSet, Patch, Reject, Rule
from k8snetlab.linux.skb import Skb
from k8snetlab.linux.text import ipset_save
from k8snetlab.packet import ICMP, SCTP, TCP, UDP, IPv4, IPv6, Packet, Ports
from tests.linux.lab import A6, C6, REFUSED, A, B, C, D, Flow, add, check, each, ruled

DST, SRC = ("dst",), ("src",)


def packet(src: str, dst: str, ports: Ports) -> Skb:
    """A packet on its way through a machine."""
    protocol = type(ports).__name__.upper()
    ip = IPv4 if family(dst) == 4 else IPv6
    return Skb(Packet((ip(src, dst, protocol), ports)))


WEB = packet("10.244.1.2", "10.96.0.10", TCP(40000, 80))
DNS = packet("10.244.1.2", "10.96.0.10", UDP(40000, 53))
SIGNALS = packet("10.244.1.2", "10.96.0.10", SCTP(40000, 80))
PING = packet("10.244.1.2", "10.96.0.10", ICMP("echo-request", 0, 80))
WEB6 = packet("fd00::2", "fd00:10:96::10", TCP(40000, 80))

ROWS: tuple[tuple[str, IpSet, Skb, tuple[str, ...], bool], ...] = (
    ("an address", IpSet("S", SetType.IP, ("10.96.0.10",)), WEB, DST, True),
    ("the other end's address", IpSet("S", SetType.IP, ("10.96.0.10",)), WEB, SRC, False),
    ("a source address", IpSet("S", SetType.IP, ("10.244.1.2",)), WEB, SRC, True),
    ("an IPv6 address", IpSet("S", SetType.IP, ("fd00:10:96::10",), 6), WEB6, DST, True),
    ("an IPv6 packet and an IPv4 set", IpSet("S", SetType.IP, ("10.96.0.10",)), WEB6, DST, False),
    ("an empty set", IpSet("S", SetType.IP), WEB, DST, False),
    ("a network", IpSet("S", SetType.NET, ("10.244.0.0/16",)), WEB, SRC, True),
    ("a network that does not hold it", IpSet("S", SetType.NET, ("10.244.2.0/24",)), WEB, SRC, False),
    ("a single address among networks", IpSet("S", SetType.NET, ("10.244.1.2",)), WEB, SRC, True),
    ("the longer network decides: an exception",
     IpSet("S", SetType.NET, ("10.244.0.0/16", "10.244.1.0/24 nomatch")), WEB, SRC, False),
    ("an exception from the exception",
     IpSet("S", SetType.NET, ("10.244.0.0/16", "10.244.1.0/24 nomatch", "10.244.1.2/32")), WEB, SRC, True),
    ("address and port", IpSet("S", SetType.IP_PORT, ("10.96.0.10,tcp:80",)), WEB, ("dst", "dst"), True),
    ("another port", IpSet("S", SetType.IP_PORT, ("10.96.0.10,tcp:81",)), WEB, ("dst", "dst"), False),
    ("another protocol", IpSet("S", SetType.IP_PORT, ("10.96.0.10,tcp:53",)), DNS, ("dst", "dst"), False),
    ("UDP", IpSet("S", SetType.IP_PORT, ("10.96.0.10,udp:53",)), DNS, ("dst", "dst"), True),
    ("SCTP", IpSet("S", SetType.IP_PORT, ("10.96.0.10,sctp:80",)), SIGNALS, ("dst", "dst"), True),
    ("a ping has no port", IpSet("S", SetType.IP_PORT, ("10.96.0.10,tcp:80",)), PING, ("dst", "dst"), False),
    ("source address and destination port",
     IpSet("S", SetType.IP_PORT, ("10.244.1.2,tcp:80",)), WEB, ("src", "dst"), True),
    ("too few directions", IpSet("S", SetType.IP_PORT, ("10.96.0.10,tcp:80",)), WEB, DST, False),
    ("IPv6 address and port", IpSet("S", SetType.IP_PORT, ("fd00:10:96::10,tcp:80",), 6), WEB6, ("dst", "dst"), True),
    ("network and port", IpSet("S", SetType.NET_PORT, ("10.96.0.0/12,tcp:80",)), WEB, ("dst", "dst"), True),
    ("address, port, address",
     IpSet("S", SetType.IP_PORT_IP, ("10.96.0.10,tcp:80,10.244.1.2",)), WEB, ("dst", "dst", "src"), True),
    ("address, port, another address",
     IpSet("S", SetType.IP_PORT_IP, ("10.96.0.10,tcp:80,10.244.1.3",)), WEB, ("dst", "dst", "src"), False),
    ("address, port, network",
     IpSet("S", SetType.IP_PORT_NET, ("10.96.0.10,tcp:80,10.244.0.0/16",)), WEB, ("dst", "dst", "src"), True),
    ("address, port, network of another port",
     IpSet("S", SetType.IP_PORT_NET, ("10.96.0.10,tcp:443,10.244.0.0/16",)), WEB, ("dst", "dst", "src"), False),
    ("a port", IpSet("S", SetType.PORT, ("80",)), WEB, DST, True),
    ("a source port", IpSet("S", SetType.PORT, ("40000",)), WEB, SRC, True),
    ("a port of UDP", IpSet("S", SetType.PORT, ("53",)), DNS, DST, True),
    ("a port set knows no SCTP", IpSet("S", SetType.PORT, ("80",)), SIGNALS, DST, False),
    ("a port set is of no family", IpSet("S", SetType.PORT, ("80",), 4), WEB6, DST, True),
)  # fmt: skip


@pytest.mark.parametrize(("name", "held", "skb", "directions", "inside"), ROWS, ids=[row[0] for row in ROWS])
def test_a_packet_is_in_the_set(name: str, held: IpSet, skb: Skb, directions: tuple[str, ...], inside: bool) -> None:
    """By the directions of the rule, one for each part of the entries."""
    assert held.holds(skb, directions) is inside, name


def test_an_entry_of_another_form_is_misbuilt() -> None:
    """A set of addresses and ports has no entry without a port."""
    with pytest.raises(LabError, match="is no entry of a set of type hash:ip,port"):
        IpSet("S", SetType.IP_PORT, ("10.96.0.10",)).holds(WEB, ("dst", "dst"))


def guarded(held: IpSet, *, invert: bool = False, directions: tuple[str, ...] = SRC) -> Network:
    """Machine m1 rejects what a set holds (or does not) of what it forwards. Rules ask sets of their own family, and
    sets of ports.
    """
    match = MatchSet(held.name, directions, invert)
    kinds = {4: "icmp-port-unreachable", 6: "icmp6-port-unreachable"}
    patches = (
        Patch("filter", of, last=(Rule("filter", "FORWARD", (match,), Reject(kind)),))
        for of, kind in kinds.items()
        if of == held.family or held.type is SetType.PORT
    )
    return add(ruled(*patches), "m1", ipsets=(held,))


def asks(type_: SetType, *entries: str, of: int = 4, directions: tuple[str, ...] = ("dst", "dst")) -> Network:
    """Machine m1 rejects what a set with these entries holds."""
    return guarded(IpSet("S", type_, entries, of), directions=directions)


BOTH_ENDS = ("dst", "dst", "src")
FLOWS = (
    Flow("a source in the set", asks(SetType.IP, A, directions=SRC), "a", C, ending=REFUSED, says="match-set S src"),
    Flow("a source that is not", asks(SetType.IP, A, directions=SRC), "b", C, taker="c", seen=B),
    Flow("not in the set", guarded(IpSet("S", SetType.IP, (A,)), invert=True), "b", C, ending=REFUSED),
    Flow("an IPv6 source", asks(SetType.IP, A6, of=6, directions=SRC), "a", C6, ending=REFUSED),
    Flow("a network", asks(SetType.NET, "10.244.2.0/24", directions=DST), "a", C, ending=REFUSED),
    Flow("an exception in a network", asks(SetType.NET, "10.244.2.0/24", f"{C} nomatch", directions=DST), "a", C,
         taker="c", seen=A),
    Flow("beside the exception", asks(SetType.NET, "10.244.2.0/24", f"{C} nomatch", directions=DST), "a", D,
         ending=REFUSED),
    Flow("an IPv6 network", asks(SetType.NET, "fd00:10:244:2::/64", of=6, directions=DST), "a", C6, ending=REFUSED),
    Flow("a network and port", asks(SetType.NET_PORT, "10.244.2.0/24,tcp:80"), "a", C, ending=REFUSED),
    Flow("a network and another port", asks(SetType.NET_PORT, "10.244.2.0/24,tcp:81"), "a", C, taker="c", seen=A),
    Flow("an address and port", asks(SetType.IP_PORT, f"{C},tcp:80"), "a", C, ending=REFUSED),
    Flow("an address and port of UDP", asks(SetType.IP_PORT, f"{C},udp:53"), "a", C, 53, "UDP", ending=REFUSED),
    Flow("the other protocol", asks(SetType.IP_PORT, f"{C},udp:80"), "a", C, taker="c", seen=A),
    Flow("an IPv6 address and port", asks(SetType.IP_PORT, f"{C6},tcp:80", of=6), "a", C6, ending=REFUSED),
    Flow("both ends", asks(SetType.IP_PORT_IP, f"{C},tcp:80,{A}", directions=BOTH_ENDS), "a", C, ending=REFUSED),
    Flow("the other end is another", asks(SetType.IP_PORT_IP, f"{C},tcp:80,{A}", directions=BOTH_ENDS), "b", C,
         taker="c", seen=B),
    Flow("the other end's network", asks(SetType.IP_PORT_NET, f"{C},tcp:80,10.244.1.0/24", directions=BOTH_ENDS), "b",
         C, ending=REFUSED),
    Flow("the other end's network, of another address",
         asks(SetType.IP_PORT_NET, f"{C},tcp:80,10.244.1.0/24", directions=BOTH_ENDS), "b", D, taker="d", seen=B),
    Flow("a port", asks(SetType.PORT, "80", directions=DST), "a", C, ending=REFUSED),
    Flow("a port of UDP", asks(SetType.PORT, "53", directions=DST), "a", C, 53, "UDP", ending=REFUSED),
    Flow("a port in IPv6", asks(SetType.PORT, "80", directions=DST), "a", C6, ending=REFUSED),
    Flow("a port that a set of ports does not know", asks(SetType.PORT, "7", directions=DST), "a", C, 7, "SCTP",
         taker="c", seen=A),
    Flow("an empty set", asks(SetType.IP_PORT), "a", C, taker="c", seen=A),
    Flow("too few directions", asks(SetType.IP_PORT, f"{C},tcp:80", directions=DST), "a", C, taker="c", seen=A),
)  # fmt: skip


@each(FLOWS)
def test_flow(flow: Flow) -> None:
    """A rule that asks a set decides as the set says."""
    check(flow)


def test_a_rule_that_asks_for_no_set_is_misbuilt() -> None:
    """The kernel would not take such a rule."""
    network = ruled(Patch("filter", last=(Rule("filter", "FORWARD", (MatchSet("GONE", SRC),), ACCEPT),)))
    with pytest.raises(UnknownName, match="no set 'GONE'"):
        check(Flow("", network, "a", C))


def test_an_entry_can_be_taken_out() -> None:
    """Without its entry the rule no longer holds for the address; the rest stays."""
    network = guarded(IpSet("S", SetType.IP, (A, B)))
    without = network.without("m1", IpSetEntry("S", A))
    check(Flow("", without, "a", C, taker="c", seen=A))
    check(Flow("", without, "b", C, ending=REFUSED))
    with pytest.raises(UnknownName, match="entry"):
        without.without("m1", IpSetEntry("S", A))


@pytest.mark.parametrize(
    ("match", "text"),
    [
        (MatchSet("KUBE-CLUSTER-IP", ("dst", "dst")), "-m set --match-set KUBE-CLUSTER-IP dst,dst"),
        (MatchSet("S", ("src",), invert=True), "-m set ! --match-set S src"),
    ],
)
def test_the_match_prints_as_iptables_save_does(match: MatchSet, text: str) -> None:
    """With its directions, and the exclamation mark before the option."""
    assert str(match) == text


def test_sets_print_as_ipset_save_does() -> None:
    """The set first, then its entries by address and port."""
    sets = (
        IpSet("WEB", SetType.IP_PORT, ("10.96.0.10,udp:53", "10.96.0.2,tcp:80", "10.96.0.10,tcp:9")),
        IpSet("NETS6", SetType.NET, ("fd00::/64",), 6),
        IpSet("PORTS", SetType.PORT, ("30080", "1024")),
    )
    host = add(ruled(), "m1", ipsets=sets)["m1"]
    assert ipset_save(host).splitlines() == [
        "create WEB hash:ip,port family inet hashsize 1024 maxelem 65536",
        "add WEB 10.96.0.2,tcp:80",
        "add WEB 10.96.0.10,tcp:9",
        "add WEB 10.96.0.10,udp:53",
        "create NETS6 hash:net family inet6 hashsize 1024 maxelem 65536",
        "add NETS6 fd00::/64",
        "create PORTS bitmap:port range 0-65535",
        "add PORTS 1024",
        "add PORTS 30080",
    ]
