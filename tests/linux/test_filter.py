"""Rules: which one decides, and what becomes of the packet."""

import msgspec
import pytest

from k8snetlab.linux.host import Network
from k8snetlab.linux.netfilter import (
    ACCEPT,
    DROP,
    HOOKS,
    L4,
    NOTRACK,
    RETURN,
    AddrType,
    Chain,
    CtState,
    Dnat,
    Goto,
    InInterface,
    Jump,
    Mark,
    Match,
    Multiport,
    OutInterface,
    Patch,
    Protocol4,
    ReversePath,
    Rule,
    SetMark,
    Target,
)
from k8snetlab.linux.socket import Listener
from k8snetlab.trace import Action, Client, Verdict
from tests.linux.lab import (
    ARRIVES,
    DROPPED,
    M1,
    M2,
    PROHIBITED,
    REFUSED,
    REJECTED,
    SILENT,
    UNREACHED,
    VIP,
    A,
    C,
    D,
    Ending,
    Flow,
    check,
    each,
    filters,
    lab,
    rejecting,
    ruled,
    send,
    service,
    set_link,
    set_policy,
    source,
    to,
    told,
    without_route,
)

KNOWN = CtState(("ESTABLISHED", "RELATED"))
THERE = to("10.244.2.0/24")[0]
"""The match of a destination behind m2."""

FROM_A, FROM_C = source(f"{A}/32"), source(f"{C}/32")


def fw(chain: str, *matches: Match, to: Target) -> Rule:
    """A rule of table filter."""
    return Rule("filter", chain, matches, to)


def firewall(*rules: Rule, on: str = "m1") -> Network:
    """A machine with these rules of table filter; user chains are those that are none of the five hooks."""
    own = {rule.chain for rule in rules} - set(HOOKS)
    chains = {name: Chain(name, tuple(rule for rule in rules if rule.chain == name)) for name in sorted(own)}
    return ruled(Patch("filter", last=tuple(rule for rule in rules if rule.chain in HOOKS), chains=chains), on=on)


def closed(*rules: Rule) -> Network:
    """m1 with these rules, and a FORWARD chain that drops what they do not accept."""
    return set_policy(firewall(*rules), "m1", "filter", "FORWARD")


def one(table: str, chain: str, *matches: Match, to: Target) -> Patch:
    """A patch of one rule."""
    return Patch(table, last=(Rule(table, chain, matches, to),))


def listening(*listeners: Listener) -> Network:
    """The container c listens as told."""
    network = lab()
    return network.replacing(msgspec.structs.replace(network["c"], listeners=listeners))


UNTRACKED = one("raw", "PREROUTING", FROM_A, to=NOTRACK)
MARKED = one("filter", "FORWARD", Mark(0x40, 0x40), to=DROP)
TAP = SetMark(0x40, 0)
"""Flips one bit of the mark."""

FLOWS = (
    # Where
    Flow("FORWARD", firewall(fw("FORWARD", *to(C, 80), to=DROP)), "a", C, ending=DROPPED, says="-d 10.244.2.2/32"),
    Flow("FORWARD: another port", firewall(fw("FORWARD", *to(C, 81), to=DROP)), "a", C, taker="c", seen=A),
    Flow("INPUT", firewall(fw("INPUT", *to(M1, 10250), to=DROP)), "a", M1, 10250, ending=DROPPED),
    Flow("INPUT does not see what is forwarded", firewall(fw("INPUT", to=DROP)), "a", C, taker="c", seen=A),
    Flow("OUTPUT", firewall(fw("OUTPUT", *to(C, 80), to=DROP)), "m1", C, ending=DROPPED),
    Flow("OUTPUT does not see what is forwarded", firewall(fw("OUTPUT", to=DROP)), "a", C, taker="c", seen=A),
    Flow("OUTPUT sees the answers of the machine", firewall(fw("OUTPUT", Protocol4("TCP"), L4("tcp", 0, 10250),
         to=DROP)),
         "a", M1, 10250, ending=SILENT, taker="m1", seen=A),
    Flow("a container's own INPUT", firewall(fw("INPUT", Protocol4("TCP"), L4("tcp", 80), to=DROP), on="c"), "a", C,
         ending=DROPPED),
    Flow("a container's own OUTPUT", firewall(fw("OUTPUT", *to(C, 80), to=DROP), on="a"), "a", C, ending=DROPPED),
    Flow("raw PREROUTING", ruled(one("raw", "PREROUTING", FROM_A, to=DROP)), "a", C, ending=DROPPED),
    Flow("raw OUTPUT", ruled(one("raw", "OUTPUT", *to(C, 80), to=DROP)), "m1", C, ending=DROPPED),
    Flow("mangle INPUT", ruled(one("mangle", "INPUT", *to(M1, 10250), to=DROP)), "a", M1, 10250, ending=DROPPED),
    Flow("mangle POSTROUTING", ruled(one("mangle", "POSTROUTING", *to(C, 80), to=DROP)), "a", C, ending=DROPPED),
    Flow("ACCEPT ends only its table",
         ruled(one("mangle", "FORWARD", to=ACCEPT), filters(fw("FORWARD", *to(C, 80), to=DROP))), "a", C,
         ending=DROPPED),
    # Order, jumps, policies
    Flow("the first match decides", firewall(fw("FORWARD", *to(C, 80), to=ACCEPT), fw("FORWARD", *to(C, 80), to=DROP)),
         "a", C, taker="c", seen=A),
    Flow("the policy decides when no rule does", closed(fw("FORWARD", *to(D, 80), to=ACCEPT)), "a", C, ending=DROPPED,
         says="policy is DROP"),
    Flow("accepted there and back", closed(fw("FORWARD", FROM_A, to=ACCEPT), fw("FORWARD", KNOWN, to=ACCEPT)), "a", C,
         taker="c", seen=A),
    Flow("accepted there but not back", closed(fw("FORWARD", FROM_A, to=ACCEPT)), "a", C, ending=SILENT, taker="c",
         seen=A),
    Flow("a chain of its own", firewall(fw("FORWARD", THERE, to=Jump("X")), fw("X", *to(C, 80), to=DROP)), "a", C,
         ending=DROPPED),
    Flow("a chain that says nothing goes back",
         firewall(fw("FORWARD", THERE, to=Jump("X")), fw("FORWARD", *to(C, 80), to=DROP), fw("X", *to(C, 81),
         to=ACCEPT)),
         "a", C, ending=DROPPED),
    Flow("RETURN goes back", firewall(fw("FORWARD", THERE, to=Jump("X")), fw("X", *to(C, 80), to=RETURN), fw("X",
         to=DROP)),
         "a", C, taker="c", seen=A),
    Flow("RETURN goes back one level",
         firewall(fw("FORWARD", THERE, to=Jump("X")), fw("X", to=Jump("Y")), fw("X", to=DROP), fw("Y", to=RETURN)),
         "a", C,
         ending=DROPPED),
    Flow("RETURN in a base chain is the policy", closed(fw("FORWARD", THERE, to=RETURN), fw("FORWARD", to=ACCEPT)),
         "a", C,
         ending=DROPPED, says="policy is DROP"),
    Flow("ACCEPT in a chain of its own decides", closed(fw("FORWARD", to=Jump("X")), fw("X", to=ACCEPT)), "a", C,
         taker="c",
         seen=A),
    Flow("a goto does not come back",
         firewall(fw("FORWARD", THERE, to=Goto("X")), fw("FORWARD", THERE, to=DROP), fw("X", *to(C, 81), to=ACCEPT)),
         "a", C, taker="c", seen=A),
    Flow("after a goto the chain that jumped goes on",
         firewall(fw("FORWARD", THERE, to=Jump("X")), fw("FORWARD", *to(C, 80), to=DROP), fw("X", to=Goto("Y")),
         fw("X", to=ACCEPT), fw("Y", to=RETURN)),
         "a", C, ending=DROPPED),
    Flow("a source that lives there", ruled(one("raw", "PREROUTING", ReversePath(invert=True), to=DROP)), "a", C,
         taker="c", seen=A),
    Flow("a source that lives elsewhere",
         without_route(ruled(one("raw", "PREROUTING", ReversePath(invert=True), to=DROP)), "m1", "10.244.1.0/24"),
         "a", C, ending=DROPPED, says="rpfilter"),
    Flow("an own address that is not on the way out",
         ruled(one("filter", "OUTPUT", *to(A, 80), AddrType("src", True, True), to=DROP)), "m1", A, taker="a",
         seen="10.244.1.1"),
    Flow("an own address of the way out",
         ruled(one("filter", "OUTPUT", *to(A, 80), AddrType("src", False, True), to=DROP)), "m1", A, ending=DROPPED),
    # Devices
    Flow("way in", firewall(fw("FORWARD", InInterface("cni0"), THERE, to=DROP)), "a", C, ending=DROPPED),
    Flow("another way in", firewall(fw("FORWARD", InInterface("eth0"), THERE, to=DROP)), "a", C, taker="c", seen=A),
    Flow("any way in that begins so", firewall(fw("FORWARD", InInterface("cn+"), THERE, to=DROP)), "a", C,
         ending=DROPPED),
    Flow("any way in but one", firewall(fw("FORWARD", InInterface("eth0", True), THERE, to=DROP)), "a", C,
         ending=DROPPED),
    Flow("way out", firewall(fw("FORWARD", OutInterface("eth0"), THERE, to=DROP)), "a", C, ending=DROPPED),
    Flow("to itself a machine goes out by lo", firewall(fw("OUTPUT", OutInterface("lo"), to=DROP)), "m1", M1, 10250,
         ending=DROPPED),
    Flow("and comes in by lo", firewall(fw("INPUT", InInterface("lo"), to=DROP)), "m1", M1, 10250, ending=DROPPED),
    Flow("in OUTPUT the way out is that of the first destination",
         ruled(service(A), filters(fw("OUTPUT", OutInterface("eth0"), *to(A, 80), to=DROP))), "m1", VIP,
         ending=DROPPED),
    Flow("in OUTPUT the way out is not that of the new one",
         ruled(service(A), filters(fw("OUTPUT", OutInterface("cni0"), *to(A, 80), to=DROP))), "m1", VIP, taker="a",
         seen=M1),
    # Other matches
    Flow("any source but one", firewall(fw("FORWARD", source(f"{A}/32", invert=True), THERE, to=DROP)), "a", C,
         taker="c",
         seen=A),
    Flow("several ports", firewall(fw("FORWARD", Protocol4("TCP"), Multiport(((79, 79), (80, 90))), to=DROP)), "a", C,
         ending=DROPPED),
    Flow("several other ports", firewall(fw("FORWARD", Protocol4("TCP"), Multiport(((79, 79), (81, 90))), to=DROP)),
         "a", C,
         taker="c", seen=A),
    Flow("a protocol", firewall(fw("FORWARD", Protocol4("ICMP"), to=DROP)), "a", C, 0, "ICMP", DROPPED),
    Flow("any protocol but one", firewall(fw("FORWARD", Protocol4("ICMP", True), THERE, to=DROP)), "a", C,
         ending=DROPPED),
    Flow("an own address as destination",
         ruled(one("nat", "PREROUTING", Protocol4("TCP"), L4("tcp", 80), AddrType("dst"), to=Dnat(C, 80))), "a", M1,
         taker="c", seen=A),
    Flow("an own address as source", firewall(fw("OUTPUT", AddrType("src"), *to(C, 80), to=DROP)), "m1", C,
         ending=DROPPED),
    Flow("no own address as destination", firewall(fw("FORWARD", AddrType("dst", True), THERE, to=DROP)), "a", C,
         ending=DROPPED),
    Flow("a mark that an earlier table set", ruled(one("mangle", "PREROUTING", FROM_A, to=SetMark(0x40, 0x40)),
         MARKED), "a",
         C, ending=DROPPED),
    Flow("a mark that was flipped twice",
         ruled(one("mangle", "PREROUTING", FROM_A, to=TAP), one("mangle", "FORWARD", FROM_A, to=TAP), MARKED), "a", C,
         taker="c", seen=A),
    Flow("a mark stays on the way through lo",
         ruled(one("mangle", "OUTPUT", to=SetMark(0x40, 0x40)), one("filter", "INPUT", Mark(0x40, 0x40), to=DROP)),
         "m1", M1,
         10250, ending=DROPPED),
    # The states of connections
    Flow("answers are of a known connection",
         firewall(fw("FORWARD", KNOWN, to=ACCEPT), fw("FORWARD", FROM_A, CtState(("NEW",)), to=ACCEPT), fw("FORWARD",
         to=DROP)),
         "a", C, taker="c", seen=A),
    Flow("and may not begin one",
         firewall(fw("FORWARD", KNOWN, to=ACCEPT), fw("FORWARD", FROM_A, CtState(("NEW",)), to=ACCEPT), fw("FORWARD",
         to=DROP)),
         "c", A, ending=DROPPED),
    Flow("answers are not new", firewall(fw("FORWARD", FROM_C, CtState(("NEW",)), to=DROP)), "a", C, taker="c", seen=A),
    Flow("a container that takes answers only", firewall(fw("INPUT", KNOWN, to=ACCEPT), fw("INPUT", to=DROP), on="a"),
         "a",
         C, taker="c", seen=A),
    Flow("a container that takes nothing", firewall(fw("INPUT", to=DROP), on="a"), "a", C, ending=SILENT, taker="c",
         seen=A),
    Flow("a first packet is not invalid", firewall(fw("FORWARD", CtState(("INVALID",)), to=DROP)), "a", C, taker="c",
         seen=A),
    Flow("an answer to what conntrack did not see is invalid",
         ruled(UNTRACKED, filters(fw("FORWARD", CtState(("INVALID",)), to=DROP))), "a", C, ending=SILENT, taker="c",
         seen=A),
    Flow("UDP knows no such thing", ruled(UNTRACKED, filters(fw("FORWARD", CtState(("INVALID",)), to=DROP))), "a", C,
         53,
         "UDP", taker="c", seen=A),
    Flow("what is not tracked has a state of its own", ruled(UNTRACKED, filters(fw("FORWARD", CtState(("UNTRACKED",)),
         to=DROP))),
         "a", C, ending=DROPPED),
    Flow("and no other", ruled(UNTRACKED, filters(fw("FORWARD", CtState(("NEW", "INVALID")), FROM_A, to=DROP))), "a", C,
         taker="c", seen=A),
    Flow("an error about a connection is related",
         firewall(fw("FORWARD", CtState(("RELATED",)), to=ACCEPT), fw("FORWARD", CtState(("NEW",)), Protocol4("UDP"),
         to=ACCEPT),
                  fw("FORWARD", to=DROP)), "a", C, 54, "UDP", REFUSED),
    Flow("without its errors a client waits in vain", firewall(fw("FORWARD", CtState(("RELATED",)), to=DROP)), "a", C,
         54,
         "UDP", REJECTED),
    Flow("translated connections only", ruled(service(C), filters(fw("FORWARD", CtState(("DNAT",), True), to=DROP))),
         "a",
         VIP, taker="c", seen=A),
    Flow("translated connections only: a direct one",
         ruled(service(C), filters(fw("FORWARD", CtState(("DNAT",), True), to=DROP))), "a", C, ending=DROPPED),
    # Sockets
    Flow("a listener of one address", listening(Listener("TCP", 80, C)), "a", C, taker="c", seen=A),
    Flow("a listener of another address", listening(Listener("TCP", 80, "127.0.0.1")), "a", C, ending=REFUSED),
    Flow("a listener of the loopback address", listening(Listener("TCP", 80, "127.0.0.1")), "c", "127.0.0.1", taker="c",
         seen="127.0.0.1"),
    Flow("every address in 127.0.0.0/8 is the machine", lab(), "c", "127.0.0.7", taker="c", seen="127.0.0.1"),
    Flow("without lo a machine does not reach itself", set_link(lab(), "c", "lo", up=False), "c", C, ending=DROPPED,
         says="lo is down"),
    Flow("a listener of another protocol", lab(), "a", C, 53, ending=REFUSED),
    Flow("SCTP", lab(), "a", C, 7, "SCTP", taker="c", seen=A),
    Flow("SCTP: nobody listens", lab(), "a", C, 8, "SCTP", REFUSED, says="ABORT"),
    Flow("ping", lab(), "a", M2, 0, "ICMP", taker="m2", seen=A),
    Flow("ping: nobody has the address", lab(), "a", "10.244.2.99", 0, "ICMP", UNREACHED),
)  # fmt: skip


@each(FLOWS)
def test_flow(flow: Flow) -> None:
    """Each row of the table above."""
    check(flow)


KINDS = {
    "icmp-port-unreachable": (REFUSED, REFUSED),
    "icmp-admin-prohibited": (PROHIBITED, PROHIBITED),
    "icmp-host-prohibited": (PROHIBITED, PROHIBITED),
    "icmp-net-prohibited": (PROHIBITED, PROHIBITED),
    "icmp-proto-unreachable": (PROHIBITED, PROHIBITED),
    "icmp-host-unreachable": (PROHIBITED, REJECTED),
    "icmp-net-unreachable": (PROHIBITED, REJECTED),
    "tcp-reset": (REFUSED, None),
}
"""What a TCP client and a UDP client are told. Errors that may pass are not reported to UDP sockets."""

PLACES = (
    ("FORWARD", "m1", "a", C),
    ("FORWARD", "m2", "a", C),
    ("INPUT", "c", "a", C),
    ("OUTPUT", "m1", "m1", C),
    ("OUTPUT", "a", "a", C),
)
"""The chain, the machine it is on, and who sends to whom. In OUTPUT a UDP program is told EPERM, whatever the kind."""

REJECTS = tuple(
    Flow(f"{kind} in {chain} of {name}: {protocol}", ruled(rejecting(chain, address, kind, port, protocol), on=name),
         client,
         address, port, protocol, ending)
    for chain, name, client, address in PLACES
    for kind, endings in KINDS.items()
    for protocol, port, ending in zip(("TCP", "UDP"), (80, 53), endings, strict=True)
    if ending is not None and (chain != "OUTPUT" or protocol == "TCP")
)  # fmt: skip


@each(REJECTS)
def test_reject(flow: Flow) -> None:
    """What each kind of REJECT tells the client, wherever it happens."""
    check(flow)


# Steps


def test_the_rule_that_decides_is_named() -> None:
    """The last step holds it, and the comment is its reason."""
    rejected = fw("FORWARD", *to(C, 80), to=DROP)
    found = send(firewall(fw("FORWARD", THERE, to=Jump("X")), Rule("filter", "X", rejected.matches, DROP)), "a", C)
    last = found.steps[-1]
    assert last.action is Action.DROP and last.rule is not None
    assert (last.rule.chain, last.rule.text) == ("X", "-A X -d 10.244.2.2/32 -p tcp -m tcp --dport 80 -j DROP")


def test_every_rule_that_matched_is_a_step() -> None:
    """Jump, then RETURN; what did not match leaves no step."""
    network = firewall(fw("FORWARD", THERE, to=Jump("X")), fw("X", *to(C, 81), to=DROP), fw("X", *to(C, 80), to=RETURN))
    found = send(network, "a", C)
    met = [step.rule.text for step in found.steps if step.rule is not None]
    assert met == ["-A FORWARD -d 10.244.2.0/24 -j X", "-A X -d 10.244.2.2/32 -p tcp -m tcp --dport 80 -j RETURN"]


def test_no_reset_answers_a_reset() -> None:
    """A REJECT with tcp-reset drops resets in silence (RFC 9293)."""
    found = send(ruled(rejecting("FORWARD", A, "tcp-reset", 0)), "a", C, 81)
    assert (found.fate, found.client) == (Verdict.REJECTED, Client.TIMEOUT), told(found)


LONG_CHAIN = (
    *(fw("FORWARD", *to(f"10.244.9.{number}", 80), to=DROP) for number in range(30)),
    fw("FORWARD", THERE, to=ACCEPT),
    *(fw("FORWARD", *to(f"10.244.2.{number}", 80), to=DROP) for number in range(30)),
)


@pytest.mark.parametrize(("address", "ending"), [(C, ARRIVES), ("10.244.9.7", DROPPED)], ids=["accepted", "dropped"])
def test_a_long_chain_keeps_the_order_of_its_rules(address: str, ending: Ending) -> None:
    """Rules are looked up by destination, but a rule for a whole network that stands before still decides."""
    network = set_policy(firewall(*LONG_CHAIN, fw("FORWARD", KNOWN, to=ACCEPT)), "m1", "filter", "FORWARD")
    found = send(network, "a", address)
    assert (found.fate, found.client) == ending, told(found)
