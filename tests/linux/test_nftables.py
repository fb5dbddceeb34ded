"""Rules of nftables' own: base chains among everything else at a hook, sets and maps, and what they do to packets."""

import random
from collections.abc import Iterable
from typing import TypeAlias

import msgspec
import pytest

from k8snetlab.address import Prefix
from k8snetlab.errors import LabError, UnknownName
from k8snetlab.linux import netfilter
from k8snetlab.linux import nftables as nft
from k8snetlab.linux.host import Network, Part, assembled
from k8snetlab.linux.netfilter import Patch
from k8snetlab.linux.nftables import (
    ACCEPT,
    CONTINUE,
    DROP,
    RETURN,
    Among,
    Base,
    Bits,
    Chain,
    Choice,
    Dnat,
    Element,
    Field,
    Flags,
    Found,
    Masked,
    Masquerade,
    Match,
    Named,
    NoTrack,
    Numgen,
    Redirect,
    Reject,
    Rule,
    Set,
    SetMark,
    Snat,
    Span,
    Statement,
    Table,
    Update,
    VerdictMap,
    goto,
    jump,
)
from k8snetlab.linux.route import Route, RouteType, RoutingRule
from k8snetlab.linux.text import entry_line, nft_list_ruleset
from k8snetlab.linux.walk import World, every, exchange
from k8snetlab.trace import Action

from .lab import (
    A6,
    C6,
    DROPPED,
    M1,
    OUTSIDE,
    PROHIBITED,
    REFUSED,
    SILENT,
    VIP,
    VIP6,
    A,
    B,
    C,
    D,
    Flow,
    add,
    check,
    each,
    filters,
    lab,
    rule,
    ruled,
    send,
    service,
    told,
)
from .lab import to as aimed

Written: TypeAlias = Iterable[Statement] | Statement
"""A rule: its statements, or its only one."""

NAME = "ip lab"
PREROUTING = Base("nat", "prerouting", -100)
FORWARD = Base("filter", "forward", 0)
NEW = Match((Field.CT_STATE,), Flags(("new",)))
TARGET = Found((Field.IP_DADDR, Field.L4PROTO, Field.TH_DPORT))


def chain(name: str, *rules: Written, base: Base | None = None, table: str = NAME) -> Chain:
    """A chain whose rules are given as their statements."""
    written = (Rule(table, name, tuple(rule) if isinstance(rule, Iterable) else (rule,)) for rule in rules)
    return Chain(name, tuple(written), base)


def held(*tables: Table, on: str = "m1", network: Network | None = None) -> Network:
    """The network with tables on one machine."""
    return add(network or lab(), on, nftables=tables)


def forwarding(*rules: Written, sets: Iterable[Set] = (), more: Iterable[Chain] = ()) -> Network:
    """The network where m1 runs these rules for what it forwards."""
    return held(Table.of(NAME, (chain("forward", *rules, base=FORWARD), *more), sets))


def translating(*rules: Written, sets: Iterable[Set] = (), more: Iterable[Chain] = ()) -> Network:
    """The network where m1 runs these rules of type nat for what arrives."""
    return held(Table.of(NAME, (chain("services", *rules, base=PREROUTING), *more), sets))


def to(address: str, port: int = 80) -> tuple[Match, Match]:
    """Matches of a destination."""
    field = Field.IP6_DADDR if ":" in address else Field.IP_DADDR
    return Match((field,), address), Match((Field.TCP_DPORT,), port)


def first(priority: int, verdict: Statement, name: str, hook: str = "forward") -> Table:
    """A table with one base chain that decides at once."""
    return Table.of(name, (chain("only", verdict, base=Base("filter", hook, priority), table=name),))


DROPPING = rule("filter", "FORWARD", *aimed(C), to=netfilter.DROP)
ACCEPTING = rule("filter", "FORWARD", *aimed(C), to=netfilter.ACCEPT)

SERVICES = Set(
    "service-ips",
    ("ipv4_addr", "inet_proto", "inet_service"),
    ("verdict",),
    (
        Element((VIP, "tcp", 80), goto("web")),
        Element((VIP, "udp", 53), goto("dns")),
        Element((VIP, "tcp", 81), DROP, "shop/none"),
    ),
)
WEB = chain("web", (Match((Field.L4PROTO,), "tcp"), Dnat(C, 80)))
DNS = chain("dns", (Match((Field.L4PROTO,), "udp"), Dnat(D, 53)))
SHOP = translating(VerdictMap(TARGET, Named("service-ips")), sets=(SERVICES,), more=(WEB, DNS))

BLOCKS = Set(
    "blocks",
    ("ipv4_addr",),
    elements=(Element((Prefix.of("10.244.2.0/24"),)), Element((Span("192.0.2.1", "192.0.2.9"),))),
    flags=("interval",),
)
PAIRS = Set(
    "pairs", ("ipv4_addr", "inet_service"),
    elements=(Element((Prefix.of("10.244.2.0/24"), Span(80, 90))),), flags=("interval",),
)  # fmt: skip


def matching(*matches: Statement) -> Network:
    """The network where m1 drops what it forwards if all of these hold."""
    return forwarding((*matches, DROP), sets=(BLOCKS, PAIRS))


def one(field: Field, right: nft.Right, *, invert: bool = False) -> Network:
    """The network where m1 drops what it forwards if this holds."""
    return matching(Match((field,), right, invert))


def of_both(match: Match) -> Network:
    """The network where m1 drops what it forwards, of both families, if this holds."""
    table = "inet lab"
    return held(Table.of(table, (chain("forward", (match, DROP), base=FORWARD, table=table),)))


MATCHES = (
    Flow("no table, no drop", lab(), "a", C, taker="c", seen=A),
    Flow("drop is final", forwarding(DROP), "a", C, ending=DROPPED, says="dropped"),
    Flow("an empty base chain applies its policy", forwarding(), "a", C, taker="c", seen=A),
    Flow("saddr", one(Field.IP_SADDR, A), "a", C, ending=DROPPED),
    Flow("another saddr", one(Field.IP_SADDR, B), "a", C, taker="c", seen=A),
    Flow("not saddr", one(Field.IP_SADDR, A, invert=True), "b", C, ending=DROPPED),
    Flow("a block", one(Field.IP_DADDR, Prefix.of("10.244.2.0/24")), "a", C, ending=DROPPED),
    Flow("not a block", one(Field.IP_DADDR, Prefix.of("10.244.2.0/24"), invert=True), "a", C, ending=SILENT,
         taker="c", seen=A, says="dropped"),
    Flow("a span of addresses", one(Field.IP_DADDR, Span("10.244.2.1", "10.244.2.2")), "a", C, ending=DROPPED),
    Flow("beyond the span", one(Field.IP_DADDR, Span("10.244.2.1", "10.244.2.2")), "a", D, taker="d", seen=A),
    Flow("a port", one(Field.TCP_DPORT, 80), "a", C, ending=DROPPED),
    Flow("a port of tcp is no port of udp", one(Field.TCP_DPORT, 53), "a", C, 53, "UDP", taker="c", seen=A),
    Flow("not a port of tcp does not hold for udp", one(Field.TCP_DPORT, 80, invert=True), "a", C, 53, "UDP",
         taker="c", seen=A),
    Flow("a port of any transport", one(Field.TH_DPORT, 53), "a", C, 53, "UDP", ending=DROPPED),
    Flow("a span of ports", one(Field.TCP_DPORT, Span(79, 81)), "a", C, ending=DROPPED),
    Flow("a protocol", one(Field.L4PROTO, "udp"), "a", C, 53, "UDP", ending=DROPPED),
    Flow("a set in the rule", one(Field.TCP_DPORT, Among.of(443, 80)), "a", C, ending=DROPPED),
    Flow("not in the set of the rule", one(Field.TCP_DPORT, Among.of(443, 80), invert=True), "a", C, ending=SILENT,
         taker="c", seen=A, says="dropped"),
    Flow("a set of blocks", one(Field.IP_DADDR, Named("blocks")), "a", C, ending=DROPPED),
    Flow("a span of a set", one(Field.IP_DADDR, Named("blocks")), "a", OUTSIDE, ending=DROPPED),
    Flow("not in the set of blocks", one(Field.IP_SADDR, Named("blocks"), invert=True), "a", C, ending=DROPPED),
    Flow("several fields with blocks", matching(Match((Field.IP_DADDR, Field.TCP_DPORT), Named("pairs"))),
         "a", C, ending=DROPPED),
    Flow("an interface", one(Field.IIFNAME, "cni0"), "a", C, ending=DROPPED),
    Flow("an interface by the start of its name", one(Field.OIFNAME, "eth*"), "a", C, ending=DROPPED),
    Flow("another interface", one(Field.OIFNAME, "veth*"), "a", C, taker="c", seen=A),
    Flow("a new connection", one(Field.CT_STATE, Flags(("new",))), "a", C, ending=DROPPED),
    Flow("an answer is of a known connection", one(Field.CT_STATE, Flags(("established", "related"))), "a", C,
         ending=SILENT, taker="c", seen=A, says="dropped"),
    Flow("an answer has the other direction", one(Field.CT_DIRECTION, "reply"), "a", C, ending=SILENT, taker="c",
         seen=A),
    Flow("no DNAT was done", one(Field.CT_STATUS, Flags(("dnat",))), "a", C, taker="c", seen=A),
    Flow("a state by a map", forwarding(VerdictMap(Found((Field.CT_STATE,)), Among((
        Element(("established",), ACCEPT), Element(("new",), DROP))))), "a", C, ending=DROPPED),
    Flow("the source is not the machine's", one(Field.FIB_SADDR, "local"), "a", C, taker="c", seen=A),
    Flow("the family", of_both(Match((Field.NFPROTO,), "ipv4")), "a", C, ending=DROPPED),
    Flow("fields of the other family end the rule", of_both(Match((Field.IP6_SADDR,), A6, invert=True)), "a", C,
         taker="c", seen=A),
    Flow("two matches, one of which fails", matching(*to(D)), "a", C, taker="c", seen=A),
)  # fmt: skip


@each(MATCHES)
def test_a_rule_matches(flow: Flow) -> None:
    """All matches of a rule must hold; a field that the packet lacks ends the rule."""
    check(flow)


VERDICTS = (
    Flow("accept ends its base chain only", held(first(0, ACCEPT, "ip one"), first(5, DROP, "ip two")), "a", C,
         ending=DROPPED),
    Flow("a drop before it is final", held(first(5, ACCEPT, "ip one"), first(0, DROP, "ip two")), "a", C,
         ending=DROPPED),
    Flow("iptables may drop what nftables accepts",
         held(first(-10, ACCEPT, "ip one"), network=ruled(filters(DROPPING))), "a", C, ending=DROPPED,
         says="-j DROP"),
    Flow("nftables may drop what iptables accepts",
         held(first(10, DROP, "ip one"), network=ruled(filters(ACCEPTING))), "a", C, ending=DROPPED),
    Flow("a policy of drop", held(Table.of(NAME, (chain("c", base=Base("filter", "forward", 0, "drop")),))),
         "a", C, ending=DROPPED, says="its policy is drop"),
    Flow("jump comes back", forwarding(jump("other"), DROP, more=(chain("other"),)), "a", C, ending=DROPPED),
    Flow("goto does not", forwarding(goto("other"), DROP, more=(chain("other"),)), "a", C, taker="c", seen=A),
    Flow("goto from a called chain ends that chain",
         forwarding(jump("one"), DROP, more=(chain("one", goto("two"), ACCEPT), chain("two"))), "a", C,
         ending=DROPPED),
    Flow("return goes back to the caller", forwarding(jump("other"), DROP, more=(chain("other", RETURN, ACCEPT),)),
         "a", C, ending=DROPPED),
    Flow("return in a base chain is its policy", forwarding(RETURN, DROP), "a", C, taker="c", seen=A),
    Flow("continue is the next rule", forwarding(CONTINUE, DROP), "a", C, ending=DROPPED),
    Flow("accept in a called chain ends all", forwarding(jump("other"), DROP, more=(chain("other", ACCEPT),)),
         "a", C, taker="c", seen=A),
    Flow("inet sees IPv4", held(first(0, DROP, "inet one")), "a", C, ending=DROPPED),
    Flow("inet sees IPv6", held(first(0, DROP, "inet one")), "a", C6, ending=DROPPED),
    Flow("ip does not see IPv6", held(first(0, DROP, "ip one")), "a", C6, taker="c", seen=A6),
    Flow("a hook that the packet does not meet", held(first(0, DROP, "ip one", "output")), "a", C, taker="c",
         seen=A),
    Flow("input", held(first(0, DROP, "ip one", "input")), "a", "10.244.1.1", 10250, ending=DROPPED),
    Flow("output", held(first(0, DROP, "ip one", "output")), "m1", C, ending=DROPPED),
    Flow("prerouting", held(first(-300, DROP, "ip one", "prerouting")), "a", C, ending=DROPPED),
    Flow("postrouting", held(first(0, DROP, "ip one", "postrouting")), "a", C, ending=DROPPED),
    Flow("a bridge asks nftables of family ip too", held(first(0, DROP, "ip one")), "a", B, ending=DROPPED),
    Flow("refused", forwarding(Reject()), "a", C, ending=REFUSED),
    Flow("prohibited", forwarding(Reject("admin-prohibited", "icmp")), "a", C, ending=PROHIBITED),
    Flow("reset", forwarding(Reject("reset", "tcp")), "a", C, ending=REFUSED),
    Flow("no reset for udp", forwarding(Reject("reset", "tcp")), "a", C, 53, "UDP", taker="c", seen=A),
)  # fmt: skip


@each(VERDICTS)
def test_verdicts_and_chains(flow: Flow) -> None:
    """Where base chains stand, and what verdicts do to them."""
    check(flow)


TRANSLATIONS = (
    Flow("a verdict map leads to the chain of a Service", SHOP, "a", VIP, taker="c", seen=A),
    Flow("and by the protocol to another one", SHOP, "a", VIP, 53, "UDP", taker="d", seen=A),
    Flow("a map drops even in a chain of type nat", SHOP, "a", VIP, 81, ending=DROPPED,
         says="(shop/none): dropped"),
    Flow("what is not in the map goes on", SHOP, "a", C, taker="c", seen=A),
    Flow("DNAT by a map with ports", translating((*to(VIP), Dnat(by=Choice(Numgen(1), Among((
        Element((0,), (C, 80)),))), family="ip"))), "a", VIP, taker="c", seen=A),
    Flow("DNAT by an address map keeps the port", translating((*to(VIP), Dnat(by=Choice(
        Found((Field.IP_DADDR,)), Among((Element((VIP,), (C,)),)))))), "a", VIP, taker="c", seen=A),
    Flow("a map without the key ends the rule", translating(Dnat(by=Choice(
        Found((Field.IP_DADDR,)), Among((Element((VIP,), (C,)),))))), "a", D, taker="d", seen=A),
    Flow("the first of two chains of type nat decides", held(
        Table.of("ip x", (chain("one", (*to(VIP), Dnat(C)), base=Base("nat", "prerouting", -90), table="ip x"),)),
        Table.of("ip y", (chain("one", (*to(VIP), Dnat(D)), base=Base("nat", "prerouting", -100), table="ip y"),)),
    ), "a", VIP, taker="d", seen=A),
    Flow("the other decides where the first does not", held(
        Table.of("ip x", (chain("one", (*to(VIP), Dnat(C)), base=Base("nat", "prerouting", -90), table="ip x"),)),
        Table.of("ip y", (chain("one", ACCEPT, base=Base("nat", "prerouting", -100), table="ip y"),)),
    ), "a", VIP, taker="c", seen=A),
    Flow("nftables before iptables at the same priority", held(Table.of(NAME, (
        chain("one", (*to(VIP), Dnat(D)), base=PREROUTING),)), network=ruled(service(C))),
        "a", VIP, taker="d", seen=A),
    Flow("iptables before nftables of a later priority", held(Table.of(NAME, (
        chain("one", (*to(VIP), Dnat(D)), base=Base("nat", "prerouting", -90)),)), network=ruled(service(C))),
        "a", VIP, taker="c", seen=A),
    Flow("iptables translates what nftables leaves alone", held(Table.of(NAME, (
        chain("one", (*to(C), Dnat(D)), base=PREROUTING),)), network=ruled(service(C))),
        "a", VIP, taker="c", seen=A),
    Flow("a chain before NAT sees the address asked for", held(Table.of("ip early", (
        chain("c", (*to(VIP), DROP), base=Base("filter", "prerouting", -110), table="ip early"),)), network=SHOP),
        "a", VIP, ending=DROPPED),
    Flow("a chain after NAT does not", held(Table.of("ip late", (
        chain("c", (*to(VIP), DROP), base=Base("filter", "prerouting", -90), table="ip late"),)), network=SHOP),
        "a", VIP, taker="c", seen=A),
    Flow("translated is a status", held(Table.of("ip late", (
        chain("c", (Match((Field.CT_STATUS,), Flags(("dnat",))), DROP), base=FORWARD, table="ip late"),)),
        network=SHOP), "a", VIP, ending=DROPPED),
    Flow("masquerade", held(Table.of(NAME, (chain("c", Masquerade(), base=Base("nat", "postrouting", 100)),))),
         "a", C, taker="c", seen=M1),
    Flow("masquerade by a mark that another chain set", held(Table.of(NAME, (
        chain("marks", (Match((Field.IP_SADDR,), A), SetMark(((Bits.OR, 0x4000),))),
              base=Base("filter", "prerouting", -150)),
        chain("masq", (Masked(0x4000, 0, invert=True), SetMark(((Bits.XOR, 0x4000),)), Masquerade(True)),
              base=Base("nat", "postrouting", 100))))), "a", C, taker="c", seen=M1),
    Flow("without the mark the source stays", held(Table.of(NAME, (
        chain("masq", (Masked(0x4000, 0, invert=True), Masquerade()), base=Base("nat", "postrouting", 100)),))),
        "a", C, taker="c", seen=A),
    Flow("snat", held(Table.of(NAME, (chain("c", Snat("172.18.0.11"), base=Base("nat", "postrouting", 100)),))),
         "a", C, taker="c", seen="172.18.0.11"),
    Flow("redirect", translating((*to(C, 81), Redirect(10250))), "a", C, 81, taker="m1", seen=A),
    Flow("DNAT of what the machine sends itself", held(Table.of(NAME, (
        chain("c", (*to(VIP), Dnat(C)), base=Base("nat", "output", -100)),))), "m1", VIP, taker="c", seen=M1),
    Flow("DNAT of IPv6", held(Table.of("ip6 lab", (chain("c", (*to(VIP6), Dnat(C6, 80)), base=PREROUTING,
                                                         table="ip6 lab"),))), "a", VIP6, taker="c", seen=A6),
    Flow("what is not tracked is not translated", held(
        Table.of(NAME, (chain("raw", NoTrack(), base=Base("filter", "prerouting", -300)),
                        chain("nat", (*to(C), Dnat(D)), base=PREROUTING)))), "a", C, taker="c", seen=A),
    Flow("a chain of type nat by itself has no connections to be asked about", translating(DROP), "a", C, taker="c",
         seen=A),
    Flow("it is asked where another rule looks at connections", translating((NEW, DROP)), "a", C, ending=DROPPED),
    Flow("marks of connections", held(Table.of(NAME, (
        chain("one", (NEW, SetMark(((Bits.OR, 7),), None, Field.CT_MARK)), base=Base("filter", "prerouting", -150)),
        chain("two", (Match((Field.CT_MARK,), 7), Match((Field.CT_DIRECTION,), "reply"), DROP), base=FORWARD)))),
        "a", C, ending=SILENT, taker="c", seen=A, says="dropped"),
)  # fmt: skip


@each(TRANSLATIONS)
def test_translations(flow: Flow) -> None:
    """Chains of type nat are asked for first packets, in turn, until one has decided."""
    check(flow)


def marking(*tables: Table, patches: tuple[Patch, ...] = ()) -> Network:
    """The network where m1 marks what it sends to c, and a routing rule throws away what has the mark."""
    rule = RoutingRule(100, "100", mark=5)
    hole = Route("10.244.2.0/24", "", type=RouteType.BLACKHOLE, table="100")
    return add(ruled(*patches), "m1", rules=(rule,), routes=(hole,), nftables=tables)


def set_five(kind: str, more: Statement | None = None) -> Table:
    """A table that marks what goes to c, and translates it after that if told so."""
    mark = SetMark(((Bits.OR, 5),), None)
    statements = (*to(C), mark) if more is None else (*to(C), mark, more)
    return Table.of(NAME, (chain("c", statements, base=Base(kind, "output", -150)),))


FIVE = rule("x", "OUTPUT", *aimed(C), to=netfilter.SetMark(5))


MARKS = (
    Flow("type route", marking(set_five("route")), "m1", C, ending=DROPPED, says="lost without a word"),
    Flow("type filter", marking(set_five("filter")), "m1", C, taker="c", seen=M1),
    Flow("type nat", marking(set_five("nat")), "m1", C, taker="c", seen=M1),
    Flow("type nat that translates too", marking(set_five("nat", Dnat(D))), "m1", C, ending=DROPPED),
    *(
        Flow(f"table {table} of iptables", marking(patches=(
            Patch(table, last=(msgspec.structs.replace(FIVE, table=table),)),)), "m1", C,
            **({"ending": DROPPED} if table == "mangle" else {"taker": "c", "seen": M1}))
        for table in ("mangle", "filter", "nat")
    ),
)  # fmt: skip


@each(MARKS)
def test_a_mark_chooses_another_route_only_where_routes_are_chosen(flow: Flow) -> None:
    """In OUTPUT: chains of type route, table mangle, and a new destination (`ip_route_me_harder`)."""
    check(flow)


FLOWS = (*MATCHES, *VERDICTS, *TRANSLATIONS, *MARKS)

BALANCED = translating(
    (*to(VIP), Dnat(by=Choice(Numgen(3), Among(tuple(Element((n,), (to, 80)) for n, to in enumerate((B, C, D)))))))
)


def test_a_random_number_is_a_choice_with_equal_chances() -> None:
    """Every branch of `numgen random mod 3` is walked, each with a third."""
    found = [
        (chance, walk.arrival.host if walk.arrival else "")
        for chance, walk in every(lambda choose: send(BALANCED, "a", VIP, choose=choose))
    ]
    assert sorted(host for _, host in found) == ["b", "c", "d"]
    assert [chance for chance, _ in found] == pytest.approx([1 / 3] * 3)


STICKY = translating(
    *((*to(VIP), Match((Field.IP_SADDR,), Named(f"seen-{name}")), goto(name)) for name in ("c", "d")),
    (*to(VIP), VerdictMap(Numgen(2), Among((Element((0,), goto("c")), Element((1,), goto("d")))))),
    sets=[Set(f"seen-{name}", ("ipv4_addr",), flags=("dynamic", "timeout"), size=65535, timeout=60) for name in "cd"],
    more=[
        chain(name, Update(f"seen-{name}", (Field.IP_SADDR,)), Dnat(address, 80))
        for name, address in (("c", C), ("d", D))
    ],
)  # fmt: skip


def test_a_dynamic_set_remembers_until_its_time_is_up() -> None:
    """A client goes to the same backend for a minute; later chance decides again."""
    world = World(STICKY, random.Random(1))
    falls = iter([True])
    world.choose = lambda probability: next(falls)
    for now in (0.0, 59.0, 118.0):  # each packet lets the minute begin anew
        world.now = now
        found = exchange(world, "a", VIP, 80)
        assert found.arrival and found.arrival.host == "c", told(found)
    world.now = 178.0
    world.choose = lambda probability: False
    found = exchange(world, "a", VIP, 80)
    assert found.arrival and found.arrival.host == "d", told(found)


def test_a_rule_with_its_own_timeout() -> None:
    """`update @set { … timeout 5s }` counts for what that rule puts in."""
    quick = Update("seen", (Field.IP_SADDR,), 5)
    seen = Set("seen", ("ipv4_addr",), flags=("dynamic", "timeout"), timeout=60)
    world = World(forwarding((Match((Field.IP_SADDR,), Named("seen")), DROP), quick, sets=[seen]), random.Random(1))
    fates = []
    for world.now in (0.0, 4.0, 5.0):
        fates.append(exchange(world, "a", C, 53, "UDP").arrival is not None)
    assert fates == [True, False, True]


def test_steps_name_the_rule_the_table_and_what_was_looked_up() -> None:
    """A step of a verdict map says which key led where."""
    step = next(step for step in send(SHOP, "a", VIP).steps if step.rule is not None)
    assert step.rule is not None
    assert (step.rule.table, step.rule.chain, step.why) == (
        "ip lab", "services", f"{VIP} . tcp . 80 is in @service-ips: on to web",
    )  # fmt: skip


def test_the_step_of_a_translation_names_the_rule_that_decided() -> None:
    """The DNAT rule, and the packet with its new destination."""
    step = next(step for step in send(SHOP, "a", VIP).steps if step.action is Action.DNAT)
    assert step.rule is not None
    assert (step.rule.text, step.packet.ip.dst) == (f"meta l4proto tcp dnat to {C}:80", C)


def test_nftables_alone_switches_tracking_on_where_it_needs_it() -> None:
    """A rule about connections, or a chain of type nat; a rule about addresses does not."""
    plain, stateful = forwarding((*to(C), DROP)), forwarding((NEW, DROP))
    assert [dict(network["m1"].tracks) for network in (plain, stateful, SHOP)] == [
        {4: False, 6: False}, {4: True, 6: False}, {4: True, 6: False},
    ]  # fmt: skip


def test_a_rule_can_be_taken_out() -> None:
    """Without the rule that dropped, the packet arrives."""
    network = forwarding((*to(C), DROP))
    rule = next(network["m1"].nftables[0].rules)
    assert send(network.without("m1", rule), "a", C).arrival


def test_an_element_can_be_taken_out() -> None:
    """Without its element the Service is nowhere."""
    network = SHOP.without("m1", nft.Held(NAME, "service-ips", SERVICES.elements[0]))
    assert send(network, "a", VIP).arrival is None
    assert send(network, "a", VIP, 53, "UDP").arrival


@pytest.mark.parametrize(
    "entry",
    [
        nft.Rule("ip other", "c", (DROP,)),
        nft.Rule(NAME, "services", (DROP,)),
        nft.Held(NAME, "service-ips", Element((C, "tcp", 1), DROP)),
    ],
)
def test_what_is_not_there_cannot_be_taken_out(entry: nft.Rule | nft.Held) -> None:
    """The error names what was asked for."""
    with pytest.raises(UnknownName):
        SHOP.without("m1", entry)


def test_a_jump_into_nothing_is_a_misbuilt_lab() -> None:
    """The kernel would not take such rules."""
    with pytest.raises(UnknownName, match="nowhere"):
        send(forwarding(jump("nowhere")), "a", C)


def test_gotos_in_a_circle_are_a_misbuilt_lab() -> None:
    """The kernel would not take such rules."""
    with pytest.raises(LabError, match="circle"):
        send(forwarding(goto("one"), more=(chain("one", goto("two")), chain("two", goto("one")))), "a", C)


def test_a_family_that_is_none() -> None:
    """Tables are of ip, ip6 or inet."""
    with pytest.raises(LabError, match="bridge"):
        Table.of("bridge lab", ())


def test_two_tables_of_one_name_are_a_misbuilt_machine() -> None:
    """Two programs must not write the same table."""
    table = Table.of(NAME, ())
    with pytest.raises(LabError, match="ip lab"):
        assembled("m1", "machine", Part(nftables=(table,)), Part(nftables=(table,)))


# How it prints: what nft 1.0.6 lists of the same rules


def rules(*written: tuple[Statement, ...] | Statement) -> list[str]:
    """The text of rules."""
    return [rule.text for rule in chain("c", *written).rules]


def test_matches_print_as_nft_lists_them() -> None:
    """Sets in braces in the order of their values, marks with eight digits, names in quotes."""
    assert rules(
        Match((Field.CT_STATE,), Flags(("established", "related"))),
        Match((Field.CT_STATE,), Flags(("established", "related")), invert=True),
        Match((Field.CT_STATE,), Among.of("new", "established")),
        Match((Field.TCP_DPORT,), Among.of(443, 80, Span(8000, 8010))),
        Match((Field.IP_DADDR,), Span("10.1.0.0", "10.1.0.7"), invert=True),
        Match((Field.IP_SADDR,), Among.of("198.51.100.1", Prefix.of("172.18.0.0/24")), invert=True),
        Match((Field.IP_SADDR,), Prefix.of("10.0.0.1/32")),
        Match((Field.IIFNAME,), "veth*"),
        Match((Field.IIFNAME,), Among.of("eth0", "lo")),
        Masked(0x4000, 0, invert=True),
        Match((Field.MARK,), 0x4000),
        Match((Field.FIB_DADDR,), "local", invert=True),
        Match((Field.IP_SADDR, Field.TCP_DPORT), Among((Element((A, 80)), Element((B, 79))))),
        Match((Field.IP_SADDR, Field.TCP_DPORT), Named("pairs")),
    ) == [
        "ct state established,related",
        "ct state != established | related",
        "ct state { established, new }",
        "tcp dport { 80, 443, 8000-8010 }",
        "ip daddr != 10.1.0.0-10.1.0.7",
        "ip saddr != { 172.18.0.0/24, 198.51.100.1 }",
        "ip saddr 10.0.0.1",
        'iifname "veth*"',
        'iifname { "lo", "eth0" }',
        "meta mark & 0x00004000 != 0x00000000",
        "meta mark 0x00004000",
        "fib daddr type != local",
        "ip saddr . tcp dport { 10.244.1.3 . 79, 10.244.1.2 . 80 }",
        "ip saddr . tcp dport @pairs",
    ]


def test_statements_print_as_nft_lists_them() -> None:
    """Translations, marks, maps, refusals."""
    pair = (Element((0,), (B, 80)), Element((1,), (C, 80)))
    assert rules(
        (nft.Counter(), ACCEPT),
        Reject(),
        Reject("reset", "tcp"),
        Reject("admin-prohibited", "icmpx"),
        (SetMark(((Bits.AND, 0xFFFFFF03), (Bits.OR, 3))),),
        SetMark(((Bits.OR, 16),), None),
        SetMark((), Field.MARK, Field.CT_MARK),
        VerdictMap(Found((Field.IP_SADDR,)), Among((
            Element((Prefix.of("10.0.0.0/8"),), jump("foo")), Element(("1.2.3.4",), DROP)))),
        VerdictMap(TARGET, Named("service-ips")),
        Dnat(C, 80), Dnat(C6, 80, family="ip6"), Dnat(C),
        Dnat(by=Choice(Numgen(2), Among(pair)), family="ip"),
        Snat("10.0.0.1", fully_random=True), Masquerade(), Redirect(8080), Redirect(), NoTrack(),
        Update("seen", (Field.IP_SADDR,), 30),
    ) == [
        "counter packets 0 bytes 0 accept",
        "reject",
        "reject with tcp reset",
        "reject with icmpx admin-prohibited",
        "meta mark set meta mark & 0xffffff03 | 0x00000003",
        "meta mark set 0x00000010",
        "ct mark set meta mark",
        "ip saddr vmap { 1.2.3.4 : drop, 10.0.0.0/8 : jump foo }",
        "ip daddr . meta l4proto . th dport vmap @service-ips",
        "dnat to 10.244.2.2:80", "dnat ip6 to [fd00:10:244:2::2]:80", "dnat to 10.244.2.2",
        "dnat ip to numgen random mod 2 map { 0 : 10.244.1.3 . 80, 1 : 10.244.2.2 . 80 }",
        "snat to 10.0.0.1 fully-random", "masquerade", "redirect to :8080", "redirect", "notrack",
        "update @seen { ip saddr timeout 30s }",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("base", "line"),
    [
        (Base("filter", "prerouting", -110), "type filter hook prerouting priority dstnat - 10; policy accept;"),
        (Base("filter", "output", -110), "type filter hook output priority -110; policy accept;"),
        (Base("nat", "output", -100), "type nat hook output priority -100; policy accept;"),
        (Base("filter", "forward", 5, "drop"), "type filter hook forward priority filter + 5; policy drop;"),
        (Base("route", "output", -150), "type route hook output priority mangle; policy accept;"),
        (Base("nat", "postrouting", 101), "type nat hook postrouting priority srcnat + 1; policy accept;"),
        (Base("nat", "input", 100), "type nat hook input priority 100; policy accept;"),
        (Base("filter", "prerouting", -300), "type filter hook prerouting priority raw; policy accept;"),
    ],
)
def test_base_chains_print_their_priority_by_name(base: Base, line: str) -> None:
    """Only at hooks where the name is known, and not further than ten away."""
    assert base.text == line


LISTED = """table ip lab {
	comment "by hand"
	set blocks {
		type ipv4_addr
		flags interval
		comment "x"
		elements = { 10.0.0.0/8, 172.16.0.1,
			     192.168.0.5-192.168.0.9 }
	}

	set ports {
		type inet_service
		elements = { 1, 2, 3, 4, 5,
			     6, 7 }
	}

	set seen {
		type ipv4_addr
		size 65535
		flags dynamic,timeout
		timeout 1h30m
	}

	set alone {
		type ipv4_addr
		timeout 3h
	}

	map services {
		type ipv4_addr . inet_proto . inet_service : verdict
		elements = { 10.96.0.19 . udp . 53 : goto dns,
			     198.51.100.1 . tcp . 80 comment "lb" : drop,
			     10.96.0.10 . tcp . 80 : goto web,
			     10.96.0.1 . tcp . 443 : accept }
	}

	map marks {
		type mark : verdict
		elements = { 0x00000001 : accept, 0x00000002 : drop, * : return }
	}

	chain dns {
	}

	chain web {
		comment "user"
	}

	chain base {
		type nat hook prerouting priority dstnat; policy accept;
		ip saddr 10.244.1.2 accept comment "hello"
	}
}
"""  # noqa: E101 - tabs are nft's


def test_a_table_prints_as_nft_lists_it() -> None:
    """Elements in nft's order and lines: by number, several fields by their bytes read backwards."""
    sets = (
        Set("blocks", ("ipv4_addr",), elements=(
            Element((Span("192.168.0.5", "192.168.0.9"),)), Element(("172.16.0.1",)),
            Element((Prefix.of("10.0.0.0/8"),))), flags=("interval",), comment="x"),
        Set("ports", ("inet_service",), elements=tuple(Element((port,)) for port in (7, 6, 5, 4, 3, 2, 1))),
        Set("seen", ("ipv4_addr",), flags=("dynamic", "timeout"), size=65535, timeout=5400),
        Set("alone", ("ipv4_addr",), flags=("timeout",), timeout=10800),
        Set("services", ("ipv4_addr", "inet_proto", "inet_service"), ("verdict",), (
            Element(("10.96.0.1", "tcp", 443), ACCEPT), Element(("10.96.0.10", "tcp", 80), goto("web")),
            Element(("198.51.100.1", "tcp", 80), DROP, "lb"), Element(("10.96.0.19", "udp", 53), goto("dns")))),
        Set("marks", ("mark",), ("verdict",), (Element((), RETURN), Element((2,), DROP), Element((1,), ACCEPT))),
    )  # fmt: skip
    rule = Rule(NAME, "base", (Match((Field.IP_SADDR,), A), ACCEPT), "hello")
    chains = (Chain("dns"), Chain("web", comment="user"), Chain("base", (rule,), PREROUTING))
    assert nft_list_ruleset([Table.of(NAME, chains, sets, "by hand")]) == LISTED


def test_a_rule_on_one_line_says_where_it_stands() -> None:
    """Table and chain, then the text; an element its set."""
    rule = Rule(NAME, "c", (DROP,))
    assert entry_line(rule) == "ip lab c drop"
    element = nft.Held(NAME, "s", Element((VIP, "tcp", 81), DROP))
    assert entry_line(element) == f"ip lab @s {{ {VIP} . tcp . 81 : drop }}"


def test_a_lookup_does_not_depend_on_the_number_of_elements() -> None:
    """Ten thousand Services are one dictionary: a lookup among them finds its own."""
    many = tuple(Element((f"10.{n // 65536}.{n // 256 % 256}.{n % 256}", "tcp", 80), goto("web")) for n in range(10000))
    held_many = msgspec.structs.replace(SERVICES, elements=(*many, *SERVICES.elements))
    network = translating(VerdictMap(TARGET, Named("service-ips")), sets=(held_many,), more=(WEB, DNS))
    assert send(network, "a", VIP).arrival
    assert not held_many.index.spans and not held_many.index.rest
