"""What would a rule of iptables be in nftables?

A program that knows both writes its rules once and lets a translation do the rest, as `iptables-translate` does for
people. One table of nftables takes the place of the four tables of iptables: what stood in chain X of table filter
stands in chain `filter-X`, and the base chains keep their hooks and priorities. Sets of `ipset` become sets of the
table, where a colon in their names becomes a dash. Every rule counts, as those of iptables do.

Three things become shorter. A protocol is not said beside a port of it (`tcp dport 80`). Rules that follow each other
and only look at the device, to go to a chain for each, are one lookup in a verdict map. And two masks of a mark are
written in the way that nft lists them. Comments are cut to what nft takes.

What differs: `accept` ends its base chain alone, where ACCEPT ends the table at that hook, and other tables of nftables
or of iptables with the same hook are asked all the same.

Not translated, a `LabError`: `recent`, `statistic`, `physdev`, IPVS, NFLOG, REJECT and NAT to an address, which no
program here writes in both. Guide section 4.1; `iptables-translate(8)`, `nft(8)`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby

from k8snetlab.address import Prefix
from k8snetlab.errors import LabError, Problem
from k8snetlab.linux import netfilter as ipt
from k8snetlab.linux.ipset import IpSet, SetType
from k8snetlab.linux.netfilter import PRIORITIES, TABLES, Chains
from k8snetlab.linux.nftables.chains import Base, Chain, Rule, Table
from k8snetlab.linux.nftables.fields import ICMPV6_TYPES, Atom, Field, Span
from k8snetlab.linux.nftables.sets import (
    ACCEPT,
    CONTINUE,
    DROP,
    RETURN,
    Among,
    Element,
    Named,
    Set,
    Statement,
    goto,
    jump,
)
from k8snetlab.linux.nftables.statements import (
    Bits,
    Counter,
    Flags,
    Found,
    Masked,
    Masquerade,
    Match,
    NoTrack,
    SetMark,
    VerdictMap,
)

__all__ = ["translated"]

IP = {4: "ip", 6: "ip6"}
SADDR = {4: Field.IP_SADDR, 6: Field.IP6_SADDR}
DADDR = {4: Field.IP_DADDR, 6: Field.IP6_DADDR}
ADDRESS = {4: "ipv4_addr", 6: "ipv6_addr"}
DPORT = {"TCP": Field.TCP_DPORT, "UDP": Field.UDP_DPORT, "SCTP": Field.SCTP_DPORT}
WHOLE = 0xFFFFFFFF
COUNTER = Counter()
LONGEST_COMMENT = 128
"""As many characters as nft takes; iptables takes twice as many."""


def translated(label: str, of: int, tables: ipt.Tables, sets: Mapping[str, IpSet]) -> Table:
    """The table `label` of family `of` (4 or 6) that does what these tables of iptables do, with the sets they ask.

    Chains and sets are translated when they are asked for. Raises `LabError` for a rule that cannot be translated.
    """
    name = f"{IP[of]} {label}"
    asked = {each.name: each for each in sets.values() if each.family == of}
    chains: dict[str, Chain | Callable[[], Chain]] = {}
    maps: dict[str, Set | Callable[[], Set]] = {}
    bases: list[str] = []
    for table in tables.values():
        for chain in table.chains:
            own = f"{table.name}-{chain}"
            chains[own] = partial(_chain, name, of, asked, table, chain)
            if chain in TABLES[table.name]:
                bases.append(own)
            elif _runs(table.chains[chain].rules):
                maps[own] = partial(_map, table, chain)
    held: dict[str, Set | Callable[[], Set]] = {_legal(each.name): partial(_set, each, of) for each in asked.values()}
    return Table(IP[of], label, Chains({**held, **maps}), Chains(chains), tuple(bases))


# Chains


def _chain(name: str, of: int, sets: Mapping[str, IpSet], table: ipt.Table, chain: str) -> Chain:
    held = table.chains[chain]
    own = f"{table.name}-{chain}"
    rules = tuple(Rule(name, own, *parts) for parts in _rules(held.rules, of, sets, own))
    base = _base(table.name, chain, held.policy) if chain in TABLES[table.name] else None
    return Chain(own, rules, base)


def _base(table: str, hook: str, policy: str) -> Base:
    kind = "nat" if table == "nat" else "route" if (table, hook) == ("mangle", "OUTPUT") else "filter"
    return Base(kind, hook.lower(), PRIORITIES[hook, table], policy.lower() or "accept")


def _rules(
    rules: Sequence[ipt.Rule], of: int, sets: Mapping[str, IpSet], chain: str
) -> Iterator[tuple[tuple[Statement, ...], str, str]]:
    """Statements, comment and meaning of each rule; a run of rules that only choose by the device is one."""
    runs = _runs(rules)
    for at, rule in enumerate(rules):
        field = runs.get(at)
        if field is not None:
            yield (VerdictMap(Found((field,)), Named(chain)),), "", ""
        elif at not in runs:
            statements = tuple(_statements(rule, of, sets))
            yield statements or (CONTINUE,), rule.comment[:LONGEST_COMMENT], rule.about


def _runs(rules: Sequence[ipt.Rule]) -> Mapping[int, Field | None]:
    """The first run of rules that only look at the device: the place of its first rule with what it looks at, those of
    the others with nothing.
    """
    for field, run in groupby(range(len(rules)), key=lambda at: _chosen_by(rules[at])):
        places = list(run)
        if field is not None:
            return {at: field if at == places[0] else None for at in places}
    return {}


def _chosen_by(rule: ipt.Rule) -> Field | None:
    if len(rule.matches) != 1 or not isinstance(rule.target, ipt.Goto):
        return None
    match rule.matches[0]:
        case ipt.InInterface(device=device, invert=False) if not device.endswith("+"):
            return Field.IIFNAME
        case ipt.OutInterface(device=device, invert=False) if not device.endswith("+"):
            return Field.OIFNAME
        case _:
            return None


def _map(table: ipt.Table, chain: str) -> Set:
    rules = table.chains[chain].rules
    elements = tuple(_element(table.name, rules[at]) for at in _runs(rules))
    return Set(f"{table.name}-{chain}", ("ifname",), ("verdict",), elements)


def _element(table: str, rule: ipt.Rule) -> Element:
    device, target = rule.matches[0], rule.target
    assert isinstance(device, ipt.InInterface | ipt.OutInterface) and isinstance(target, ipt.Jump)
    return Element((device.device,), goto(f"{table}-{target.chain}"))


# Sets


def _legal(name: str) -> str:
    """The name of a set in nftables, which takes no colons."""
    return name.replace(":", "-")


def _set(held: IpSet, of: int) -> Set:
    if held.type is SetType.NET:
        blocks = (Prefix.of(entry) for entry in held.entries)
        elements = (Element((block.network if block.length == block.bits else block,)) for block in blocks)
        return Set(_legal(held.name), (ADDRESS[of],), elements=tuple(elements), flags=("interval",))
    if held.type is SetType.IP_PORT:
        types = (ADDRESS[of], "inet_proto", "inet_service")
        return Set(_legal(held.name), types, elements=tuple(_address_and_port(entry) for entry in held.entries))
    raise LabError(Problem(f"a set of type {held.type} is not translated", object=held.name))


def _address_and_port(entry: str) -> Element:
    address, _, rest = entry.partition(",")
    protocol, _, port = rest.partition(":")
    return Element((address, protocol, int(port)))


# Rules


def _statements(rule: ipt.Rule, of: int, sets: Mapping[str, IpSet]) -> Iterator[Statement]:
    protocol = next((each.name for each in rule.matches if isinstance(each, ipt.Protocol4) and not each.invert), "")
    matches = [each for each in rule.matches if not isinstance(each, ipt.Comment)]
    dport = DPORT.get(protocol)
    implied = dport is not None and any(_names_a_port(each, sets) for each in matches)
    implied = implied or any(isinstance(each, ipt.ICMPv6Type) for each in matches)
    for each in matches:
        if not (isinstance(each, ipt.Protocol4) and implied):
            yield _match(each, of, sets, dport or Field.TH_DPORT)
    if not isinstance(rule.target, ipt.Nothing):
        yield COUNTER
        yield _target(rule.table, rule.target)


def _names_a_port(match: ipt.Match, sets: Mapping[str, IpSet]) -> bool:
    if isinstance(match, ipt.MatchSet):
        return sets[match.name].type is SetType.IP_PORT
    return isinstance(match, ipt.L4 | ipt.Multiport)


def _match(match: ipt.Match, of: int, sets: Mapping[str, IpSet], dport: Field) -> Statement:
    match match:
        case ipt.Source(block=block, invert=invert):
            return Match((SADDR[of],), block, invert)
        case ipt.Destination(block=block, invert=invert):
            return Match((DADDR[of],), block, invert)
        case ipt.InInterface(device=device, invert=invert):
            return Match((Field.IIFNAME,), device.replace("+", "*"), invert)
        case ipt.OutInterface(device=device, invert=invert):
            return Match((Field.OIFNAME,), device.replace("+", "*"), invert)
        case ipt.Protocol4(name=name, invert=invert):
            return Match((Field.L4PROTO,), _PROTOCOLS.get(name, name.lower()), invert)
        case ipt.L4(dport=port, sport=0):
            return Match((dport,), port)
        case ipt.Multiport(dports=ports):
            atoms = [first if first == last else Span(first, last) for first, last in ports]
            return Match((dport,), atoms[0] if len(atoms) == 1 else Among.of(*atoms))
        case ipt.Mark(value=value, mask=mask, invert=invert):
            return Masked(mask, value, invert)
        case ipt.CtState(states=states, invert=invert):
            return _state(states, invert)
        case ipt.AddrType(side=side, invert=invert, out_only=out_only):
            return Match((_FIB[side, out_only],), "local", invert)
        case ipt.ReversePath(invert=invert):
            return Match((Field.FIB_BACK,), 0, not invert)
        case ipt.ICMPv6Type(number=number):
            return Match((Field.ICMPV6_TYPE,), ICMPV6_TYPES[number])
        case ipt.MatchSet(name=name, directions=directions, invert=invert):
            fields = tuple(_asked(sets[name].type, directions, of, dport))
            return Match(fields, Named(_legal(name)), invert)
        case _:
            raise LabError(Problem(f"{match} is not translated", field="nftables"))


_PROTOCOLS: Mapping[str, Atom] = {"ICMPv6": "ipv6-icmp", "IPIP": "ipencap"}
_FIB = {
    ("src", False): Field.FIB_SADDR,
    ("dst", False): Field.FIB_DADDR,
    ("src", True): Field.FIB_SADDR_OUT,
}
_STATES = ("INVALID", "ESTABLISHED", "RELATED", "NEW", "UNTRACKED")


def _state(states: tuple[str, ...], invert: bool) -> Match:  # noqa: FBT001 - the field of that name
    flags = frozenset(states)
    if flags <= {"DNAT", "SNAT"}:
        return Match((Field.CT_STATUS,), Flags(tuple(each.lower() for each in states)), invert)
    return Match((Field.CT_STATE,), Flags(tuple(each.lower() for each in _STATES if each in flags)), invert)


def _asked(kind: SetType, directions: Sequence[str], of: int, dport: Field) -> Iterator[Field]:
    yield DADDR[of] if directions[0] == "dst" else SADDR[of]
    if kind is SetType.IP_PORT:
        yield Field.L4PROTO
        yield dport


def _target(table: str, target: ipt.Target) -> Statement:
    match target:
        case ipt.Goto(chain=chain):
            return goto(f"{table}-{chain}")
        case ipt.Jump(chain=chain):
            return jump(f"{table}-{chain}")
        case ipt.Final(verdict=verdict):
            return {"ACCEPT": ACCEPT, "DROP": DROP, "RETURN": RETURN}[verdict]
        case ipt.SetMark(value=value, mask=mask):
            return SetMark(tuple(_bits(value, mask)))
        case ipt.Masquerade(random_fully=fully):
            return Masquerade(fully)
        case ipt.NoTrack():
            return NoTrack()
        case _:
            raise LabError(Problem(f"{target} is not translated", field="nftables"))


def _bits(value: int, mask: int) -> Iterator[tuple[Bits, int]]:
    """`--set-xmark VALUE/MASK`, for values within the mask: what is kept, and what is set."""
    kept = WHOLE & ~mask | value
    if kept != WHOLE:
        yield Bits.AND, kept
    if value:
        yield Bits.OR, value
