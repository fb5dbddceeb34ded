"""Rules of iptables in the words of nftables."""

from __future__ import annotations

import pytest

from k8snetlab.address import Prefix
from k8snetlab.errors import LabError
from k8snetlab.linux.ipset import IpSet, SetType
from k8snetlab.linux.netfilter import (
    ACCEPT,
    DROP,
    L4,
    NOTHING,
    NOTRACK,
    RETURN,
    AddrType,
    Chain,
    Comment,
    CtState,
    Destination,
    Goto,
    ICMPv6Type,
    InInterface,
    Jump,
    Mark,
    Masquerade,
    Match,
    MatchSet,
    Multiport,
    OutInterface,
    Patch,
    Protocol4,
    ReversePath,
    Rule,
    SetMark,
    Source,
    Statistic,
    Target,
    tables,
)
from k8snetlab.linux.nftables import Table
from k8snetlab.linux.nftables.translation import translated

SETS = {
    "a:b": IpSet("a:b", SetType.NET, ("10.0.0.0/8", "192.0.2.1"), 4),
    "named": IpSet("named", SetType.IP_PORT, ("10.0.0.1,tcp:80",), 4),
}
TCP, UDP = Protocol4("TCP"), Protocol4("UDP")


def table(*rules: Rule, of: int = 4) -> Table:
    """The table that these rules of a user chain X become."""
    patch = Patch("filter", of, first=(Rule("filter", "FORWARD", (), Jump("X")),), chains={"X": Chain("X", rules)})
    return translated("t", of, tables(of, [patch]), SETS)


def text(*rules: Rule, of: int = 4) -> list[str]:
    """The rules of chain X as nft prints them, without their counters."""
    found = table(*rules, of=of).chain("filter-X").rules
    return [rule.text.replace("counter packets 0 bytes 0 ", "") for rule in found]


CASES: list[tuple[tuple[Match, ...], Target, str]] = [
    ((Source(Prefix.of("10.0.0.0/8")),), ACCEPT, "ip saddr 10.0.0.0/8 accept"),
    ((Destination(Prefix.of("10.0.0.1/32"), invert=True),), DROP, "ip daddr != 10.0.0.1 drop"),
    ((InInterface("cali+"),), Goto("Y"), 'iifname "cali*" goto filter-Y'),
    ((OutInterface("eth0"), TCP), Jump("Y"), 'oifname "eth0" meta l4proto tcp jump filter-Y'),
    ((UDP, L4("udp", 4789)), NOTRACK, "udp dport 4789 notrack"),
    ((TCP, Multiport(((80, 80), (90, 99)))), RETURN, "tcp dport { 80, 90-99 } return"),
    ((TCP, Multiport(((80, 80),))), RETURN, "tcp dport 80 return"),
    ((Mark(0x1, 0x3),), ACCEPT, "meta mark & 0x00000003 == 0x00000001 accept"),
    ((Mark(0, 0x3, invert=True),), ACCEPT, "meta mark & 0x00000003 != 0x00000000 accept"),
    ((CtState(("RELATED", "ESTABLISHED")),), ACCEPT, "ct state established,related accept"),
    ((CtState(("DNAT",), invert=True),), ACCEPT, "ct status != dnat accept"),
    ((AddrType("dst"),), ACCEPT, "fib daddr type local accept"),
    ((AddrType("src", invert=True, out_only=True),), ACCEPT, "fib saddr . oif type != local accept"),
    ((ReversePath(invert=True),), DROP, "fib saddr . mark . iif oif 0 drop"),
    ((Protocol4("IPIP"),), DROP, "meta l4proto ipencap drop"),
    ((MatchSet("a:b", ("src",)), MatchSet("a:b", ("dst",), invert=True)), DROP, "ip saddr @a-b ip daddr != @a-b drop"),
    ((TCP, MatchSet("named", ("dst", "dst"))), DROP, "ip daddr . meta l4proto . tcp dport @named drop"),
    ((MatchSet("named", ("dst", "dst")),), DROP, "ip daddr . meta l4proto . th dport @named drop"),
    ((), SetMark(0x10000, 0x10000), "meta mark set meta mark | 0x00010000"),
    ((), SetMark(0, 0x30000), "meta mark set meta mark & 0xfffcffff"),
    ((), SetMark(0x80000, 0x180000), "meta mark set meta mark & 0xffefffff | 0x00080000"),
    ((Comment("why"),), Masquerade(random_fully=True), 'masquerade fully-random comment "why"'),
    ((Comment("why"),), NOTHING, 'continue comment "why"'),
]


@pytest.mark.parametrize(("matches", "target", "expected"), CASES, ids=[case[2] for case in CASES])
def test_what_a_rule_is_in_nftables(matches: tuple[Match, ...], target: Target, expected: str) -> None:
    """Matches from left to right, the target last; a protocol is not said beside its port."""
    assert text(Rule("filter", "X", matches, target)) == [expected]


def test_messages_of_icmpv6_are_named() -> None:
    """The type says that the protocol is ICMPv6."""
    rule = Rule("filter", "X", (Protocol4("ICMPv6"), ICMPv6Type(135)), ACCEPT)
    assert text(rule, of=6) == ["icmpv6 type nd-neighbor-solicit accept"]


def test_rules_that_choose_by_the_device_are_one_lookup() -> None:
    """What comes after the run stays behind it."""
    choosing = [Rule("filter", "X", (InInterface(f"veth{number}"),), Goto(f"Y{number}")) for number in (1, 2)]
    held = table(*choosing, Rule("filter", "X", (), DROP))
    found = [rule.text for rule in held.chain("filter-X").rules]
    assert found == ["iifname vmap @filter-X", "counter packets 0 bytes 0 drop"]
    elements = [each.written(("ifname",), ("verdict",)) for each in held.set("filter-X").elements]
    assert elements == ['"veth1" : goto filter-Y1', '"veth2" : goto filter-Y2']


def test_base_chains_keep_hook_and_priority() -> None:
    """The four tables of iptables, side by side in one of nftables."""
    held = translated("t", 4, tables(4, [Patch(name) for name in ("raw", "mangle", "nat", "filter")]), {})
    bases = {name: held.chain(name).base for name in held.bases}
    found = {name: (base.type, base.hook, base.priority) for name, base in bases.items() if base is not None}
    assert len(found) == 14
    assert found["raw-PREROUTING"] == ("filter", "prerouting", -300)
    assert found["mangle-OUTPUT"] == ("route", "output", -150)
    assert found["nat-POSTROUTING"] == ("nat", "postrouting", 100)
    assert found["filter-FORWARD"] == ("filter", "forward", 0)


@pytest.mark.parametrize("rule", [Rule("filter", "X", (Statistic(0.5),), DROP)])
def test_what_cannot_be_translated_is_said(rule: Rule) -> None:
    """Chance is another thing there."""
    with pytest.raises(LabError, match="is not translated"):
        text(rule)
