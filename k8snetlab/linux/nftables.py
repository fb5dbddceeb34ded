"""Which rule decides, if the rules are nftables' own?

nftables has no tables but those a program makes. A table belongs to a family (`ip`, `ip6`, `inet` for both) and holds
chains, sets and maps. A *base chain* states where it stands: its type (`filter`, `nat`, `route`), its hook, and its
priority among everything else at that hook, iptables and conntrack included: −300 raw, −200 conntrack, −150 mangle,
−100 destination NAT, 0 filter, 100 source NAT. A rule is a list of statements, run from left to right: a match that
fails ends the rule, the others do their work at once, and a verdict ends the chain.

What sets it apart from iptables:

- `accept` ends its own base chain only, and the packet goes on to the next one, which may still drop it. `drop` is
  final.
- `jump` comes back to the calling chain, `goto` does not.
- A set answers "is it one of these?" in one lookup, a verdict map "and what shall become of it?", however many there
  are: ten thousand Services are one rule. Keys may be several fields at once (`ip daddr . meta l4proto . th dport`).
- A dynamic set is filled by the packets themselves, and forgets after its time-out.

NAT is conntrack's, once a connection: chains of type nat are asked for first packets only, one after the other by
their priorities, until one has decided; then the connection is bound, if to nothing. All of them run where conntrack
translates (−100, and 100 for sources), whatever priority they state. Of two base chains with the same priority the
newer runs first; here that is the later table, and nftables before iptables.

Values print as `nft list ruleset` (1.0.6) does, elements in its order.

Not modelled: families arp, bridge and netdev, flow tables, stateful objects, limits, quotas, logging and queues;
`numgen inc` and hashes; addresses of several (`dnat to a-b`), port ranges of NAT; time-outs of single elements that a
rule did not add; that a mark set in a chain of type filter or nat does not choose another route. Guide sections 2.2
and 4.1; `nft(8)`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple, Protocol, TypeAlias

import msgspec

from k8snetlab.address import Prefix, number
from k8snetlab.errors import LabError, Problem, UnknownName
from k8snetlab.linux import netfilter
from k8snetlab.linux.netfilter import Chains
from k8snetlab.linux.skb import Skb

__all__ = [
    "ACCEPT", "CONTINUE", "DROP", "RETURN", "Among", "Base", "Bits", "Chain", "Choice", "Counter", "Dnat", "Element",
    "Entrance", "Field", "Flags", "Found", "Masked", "Masquerade", "Match", "Named", "NoTrack", "Numgen", "Ran",
    "Redirect", "Reject", "Rule", "Set", "SetMark", "Snat", "Span", "Statement", "Surroundings", "Table", "Update",
    "Verdict", "VerdictKind", "VerdictMap", "goto", "jump", "traverse",
]  # fmt: skip

Value: TypeAlias = str | int
"""What a field holds: an address or a word as text, a port or a mark as a number."""

Key: TypeAlias = tuple[Value, ...]
"""The values of one or several fields, in order."""


class Surroundings(Protocol):
    """What a rule may ask of the machine it runs on."""

    def is_local(self, address: str) -> bool:
        """Whether the address is the machine's own."""
        ...

    def happens(self, probability: float) -> bool:
        """Whether a choice with this probability falls so (`numgen random`)."""
        ...

    def holds(self, name: str, key: Key) -> bool:
        """Whether packets have put this key into the dynamic set of that name, and its time is not up."""
        ...

    def hold(self, name: str, key: Key, seconds: int) -> None:
        """Put the key into the dynamic set of that name for so many seconds; 0 stands for ever."""
        ...


# What a rule can look at


class Field(StrEnum):
    """A fact of a packet that rules look at, as nft writes it."""

    IP_SADDR = "ip saddr"
    IP_DADDR = "ip daddr"
    IP_PROTOCOL = "ip protocol"
    IP6_SADDR = "ip6 saddr"
    IP6_DADDR = "ip6 daddr"
    TH_SPORT = "th sport"
    TH_DPORT = "th dport"
    TCP_SPORT = "tcp sport"
    TCP_DPORT = "tcp dport"
    UDP_SPORT = "udp sport"
    UDP_DPORT = "udp dport"
    SCTP_DPORT = "sctp dport"
    L4PROTO = "meta l4proto"
    NFPROTO = "meta nfproto"
    MARK = "meta mark"
    IIFNAME = "iifname"
    OIFNAME = "oifname"
    CT_STATE = "ct state"
    CT_STATUS = "ct status"
    CT_MARK = "ct mark"
    CT_DIRECTION = "ct direction"
    FIB_SADDR = "fib saddr type"
    FIB_DADDR = "fib daddr type"


Reader: TypeAlias = Callable[[Skb, Surroundings], Value | None]
"""Reads a field of a packet; `None` where the packet has no such thing, which ends the rule."""


def _port(protocol: str, side: str) -> Reader:
    """The port of a packet of one protocol."""
    return lambda skb, at: getattr(skb, side) if skb.protocol == protocol and not skb.ip.offset else None


def _status(skb: Skb, at: Surroundings) -> str | None:
    """The connection's flags, joined: a packet without a connection has none."""
    known = skb.connection
    if known is None:
        return None
    flags = {
        "seen-reply": known.seen_reply, "confirmed": known.confirmed, "snat": known.is_snat, "dnat": known.is_dnat,
    }  # fmt: skip
    return " ".join(flag for flag, held in flags.items() if held)


_READ: Mapping[Field, Reader] = {
    Field.IP_SADDR: lambda skb, at: skb.src if skb.version == 4 else None,
    Field.IP_DADDR: lambda skb, at: skb.dst if skb.version == 4 else None,
    Field.IP_PROTOCOL: lambda skb, at: skb.protocol.lower() if skb.version == 4 else None,
    Field.IP6_SADDR: lambda skb, at: skb.src if skb.version == 6 else None,
    Field.IP6_DADDR: lambda skb, at: skb.dst if skb.version == 6 else None,
    Field.TH_SPORT: lambda skb, at: None if skb.ip.offset else skb.sport,
    Field.TH_DPORT: lambda skb, at: None if skb.ip.offset else skb.dport,
    Field.TCP_SPORT: _port("TCP", "sport"),
    Field.TCP_DPORT: _port("TCP", "dport"),
    Field.UDP_SPORT: _port("UDP", "sport"),
    Field.UDP_DPORT: _port("UDP", "dport"),
    Field.SCTP_DPORT: _port("SCTP", "dport"),
    Field.L4PROTO: lambda skb, at: "ipv6-icmp" if skb.protocol == "ICMPv6" else skb.protocol.lower(),
    Field.NFPROTO: lambda skb, at: f"ipv{skb.version}",
    Field.MARK: lambda skb, at: skb.mark,
    Field.IIFNAME: lambda skb, at: skb.iif,
    Field.OIFNAME: lambda skb, at: skb.oif,
    Field.CT_STATE: lambda skb, at: skb.state.lower() or "invalid",
    Field.CT_STATUS: _status,
    Field.CT_MARK: lambda skb, at: skb.connection.mark if skb.connection is not None else None,
    Field.CT_DIRECTION: lambda skb, at: _direction(skb),
    Field.FIB_SADDR: lambda skb, at: "local" if at.is_local(skb.src) else "unicast",
    Field.FIB_DADDR: lambda skb, at: "local" if at.is_local(skb.dst) else "unicast",
}  # fmt: skip

_TYPES: Mapping[Field, str] = {
    Field.IP_SADDR: "ipv4_addr", Field.IP_DADDR: "ipv4_addr",
    Field.IP6_SADDR: "ipv6_addr", Field.IP6_DADDR: "ipv6_addr",
    Field.IP_PROTOCOL: "inet_proto", Field.L4PROTO: "inet_proto",
    Field.MARK: "mark", Field.CT_MARK: "mark", Field.IIFNAME: "ifname", Field.OIFNAME: "ifname",
    Field.CT_STATE: "ct_state", Field.CT_STATUS: "ct_status", Field.CT_DIRECTION: "ct_dir",
    Field.NFPROTO: "nf_proto", Field.FIB_SADDR: "fib_addrtype", Field.FIB_DADDR: "fib_addrtype",
}  # fmt: skip
"""The types of fields, as sets name them; all others are ports."""

CT_FIELDS = frozenset({Field.CT_STATE, Field.CT_STATUS, Field.CT_MARK, Field.CT_DIRECTION})
"""The fields that exist only where connections are tracked: a rule that looks at one turns tracking on."""


def _direction(skb: Skb) -> str | None:
    if skb.connection is None:
        return None
    return "reply" if skb.reply else "original"


def _type(field: Field) -> str:
    return _TYPES.get(field, "inet_service")


def _read(fields: Sequence[Field], skb: Skb, at: Surroundings) -> Key | None:
    """The values of these fields; `None` if the packet lacks one."""
    found: list[Value] = []
    for field in fields:
        value = _READ[field](skb, at)
        if value is None:
            return None
        found.append(value)
    return tuple(found)


# What it is compared with


class Span(msgspec.Struct, frozen=True):
    """Everything from `first` to `last`: ports or addresses."""

    first: Value
    last: Value

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"


Atom: TypeAlias = str | int | Prefix | Span
"""One value, or a block of them. An interface name that ends in `*` stands for any ending."""


def _written(atom: Atom, of: str) -> str:
    """An atom of a type as nft prints it."""
    if of == "mark" and isinstance(atom, int):
        return f"0x{atom:08x}"
    if of == "ifname":
        return f'"{atom}"'
    if isinstance(atom, Prefix) and atom.length == atom.bits:
        return atom.network
    return str(atom)


def _joined(atoms: Sequence[Atom], types: Sequence[str]) -> str:
    return " . ".join(map(_written, atoms, types))


def _bounds(atom: Atom) -> tuple[int, int]:
    """The first and the last number that an atom stands for."""
    if isinstance(atom, Prefix):
        return atom.base, atom.base + atom.size - 1
    if isinstance(atom, Span):
        return _number(atom.first), _number(atom.last)
    return _number(atom), _number(atom)


def _number(value: Value) -> int:
    return value if isinstance(value, int) else number(value)


def _takes(atom: Atom, value: Value) -> bool:
    """Whether a value is the atom, or in it."""
    if isinstance(atom, Prefix | Span):
        first, last = _bounds(atom)
        return first <= _number(value) <= last
    if isinstance(atom, str) and atom.endswith("*"):
        return str(value).startswith(atom[:-1])
    return atom == value


_ORDINALS: Mapping[str, Mapping[str, int]] = {
    "inet_proto": {"icmp": 1, "tcp": 6, "udp": 17, "ipv6-icmp": 58, "sctp": 132},
    "ct_state": {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64},
    "ct_status": {"seen-reply": 2, "assured": 4, "confirmed": 8, "snat": 16, "dnat": 32},
    "ct_dir": {"original": 0, "reply": 1},
    "fib_addrtype": {"unicast": 1, "local": 2, "broadcast": 3},
    "nf_proto": {"ipv4": 2, "ipv6": 10},
}
"""The numbers behind nft's words: elements are listed by them."""


def _ordinal(atom: Atom, of: str) -> int:
    first = atom.first if isinstance(atom, Span) else atom.network if isinstance(atom, Prefix) else atom
    if isinstance(first, int):
        return first
    if of in ("ipv4_addr", "ipv6_addr"):
        return number(first)
    if of == "ifname":
        return int.from_bytes(first.encode(), "little")
    return _ORDINALS.get(of, {}).get(first, 0)


_BYTES = {"ipv4_addr": 4, "ipv6_addr": 16, "inet_service": 2, "inet_proto": 1}


def _place(key: Sequence[Atom], types: Sequence[str]) -> tuple[int, ...]:
    """Where nft lists an element: by its number; one of several fields by its bytes read backwards."""
    if len(key) == 1:
        return (_ordinal(key[0], types[0]),)
    backwards = []
    for atom, of in zip(reversed(key), reversed(types), strict=True):
        whole = _ordinal(atom, of).to_bytes(_BYTES[of], "big") if of in _BYTES else b""
        backwards.append(int.from_bytes(whole, "little") if whole else _ordinal(atom, of))
    return tuple(backwards)


# Verdicts


class VerdictKind(StrEnum):
    """What a verdict does to the chain that runs."""

    ACCEPT = "accept"
    DROP = "drop"
    CONTINUE = "continue"
    RETURN = "return"
    JUMP = "jump"
    GOTO = "goto"


class Verdict(msgspec.Struct, frozen=True):
    """`accept`, `drop`, `continue`, `return`, `jump CHAIN` or `goto CHAIN`."""

    kind: VerdictKind
    chain: str = ""

    def run(self, skb: Skb, at: Surroundings, table: Table) -> Said:
        return Said(self.says, self)

    @property
    def says(self) -> str:
        """What it does, in words for a learner."""
        return f"on to {self.chain}" if self.chain else _VERDICT_WORDS[self.kind]

    def __str__(self) -> str:
        return f"{self.kind} {self.chain}" if self.chain else str(self.kind)


_VERDICT_WORDS = {
    VerdictKind.ACCEPT: "accepted",
    VerdictKind.DROP: "dropped",
    VerdictKind.CONTINUE: "on to the next rule",
    VerdictKind.RETURN: "back to the calling chain",
}

ACCEPT = Verdict(VerdictKind.ACCEPT)
DROP = Verdict(VerdictKind.DROP)
CONTINUE = Verdict(VerdictKind.CONTINUE)
RETURN = Verdict(VerdictKind.RETURN)


def jump(chain: str) -> Verdict:
    """`jump CHAIN`: go on there, and come back."""
    return Verdict(VerdictKind.JUMP, chain)


def goto(chain: str) -> Verdict:
    """`goto CHAIN`: go on there, and do not come back."""
    return Verdict(VerdictKind.GOTO, chain)


End: TypeAlias = (
    Verdict | netfilter.Dnat | netfilter.Snat | netfilter.Masquerade | netfilter.Redirect | netfilter.Reject
)
"""How a rule ends: by a verdict, or by what netfilter shall do with the packet."""


class Said(NamedTuple):
    """What a statement did, in words, and how it ended the rule, if it did."""

    words: str
    end: End | None = None


class _Failed:
    """The statement does not hold: the rule is over, and the next one is asked."""

    __slots__ = ()


FAILED = _Failed()

Outcome: TypeAlias = Said | _Failed | None
"""What comes of one statement; `None`: it holds, and there is nothing to say."""


class Statement(Protocol):
    """One statement of a rule. `str()` prints it as nft does."""

    def run(self, skb: Skb, at: Surroundings, table: Table) -> Outcome: ...


# Sets and maps

Data: TypeAlias = Verdict | tuple[Atom, ...]
"""What a map leads to."""


class Element(msgspec.Struct, frozen=True):
    """One element of a set, or of a map if it has `data`. A key without parts is the catch-all `*`."""

    key: tuple[Atom, ...]
    data: Data | None = None
    comment: str = ""

    def written(self, types: Sequence[str], data: Sequence[str] = ()) -> str:
        """The element as nft prints it among fields of these types."""
        comment = f' comment "{self.comment}"' if self.comment else ""
        key = _joined(self.key, types) if self.key else "*"
        if self.data is None:
            return f"{key}{comment}"
        value = str(self.data) if isinstance(self.data, Verdict) else _joined(self.data, data)
        return f"{key}{comment} : {value}"


class _Index:
    """Elements ready for lookups: whole keys in a dictionary, blocks of one field by bisection, the rest in a row."""

    __slots__ = ("exact", "firsts", "other", "rest", "spans")

    def __init__(self, elements: Iterable[Element]) -> None:
        self.exact: dict[tuple[Atom, ...], Element] = {}
        self.other: Element | None = None
        blocks: list[tuple[int, int, Element]] = []
        rest: list[Element] = []
        for element in elements:
            if not element.key:
                self.other = element
            elif not any(map(_is_block, element.key)):
                self.exact[element.key] = element
            elif len(element.key) == 1 and not isinstance(element.key[0], str):
                blocks.append((*_bounds(element.key[0]), element))
            else:
                rest.append(element)
        self.spans = sorted(blocks, key=lambda block: block[0])
        self.firsts = [block[0] for block in self.spans]
        self.rest = tuple(rest)

    def find(self, key: Key) -> Element | None:
        """The element that a key is, or is in."""
        found = self.exact.get(key)
        if found is not None:
            return found
        if self.spans:
            value = _number(key[0])
            at = bisect_right(self.firsts, value) - 1
            if at >= 0 and value <= self.spans[at][1]:
                return self.spans[at][2]
        for element in self.rest:
            if all(map(_takes, element.key, key)):
                return element
        return self.other


def _is_block(atom: Atom) -> bool:
    return isinstance(atom, Prefix | Span) or (isinstance(atom, str) and atom.endswith("*"))


class Set(msgspec.Struct, frozen=True, dict=True):
    """A named set; a map if it has `data`, the types of what it leads to (`("verdict",)` for a verdict map).

    `flags` are of `constant`, `dynamic`, `interval` and `timeout`; `timeout` is in seconds, 0 for none; `size` is the
    most elements that a dynamic set may get, 0 for any number.
    """

    name: str
    types: tuple[str, ...]
    data: tuple[str, ...] = ()
    elements: tuple[Element, ...] = ()
    flags: tuple[str, ...] = ()
    size: int = 0
    timeout: int = 0
    auto_merge: bool = False
    comment: str = ""

    @cached_property
    def index(self) -> _Index:
        """The elements that it is configured with, ready for lookups."""
        return _Index(self.elements)

    @property
    def ordered(self) -> tuple[Element, ...]:
        """The elements in the order in which nft lists them."""
        return _ordered(self.elements, self.types)

    def without(self, element: Element) -> Set:
        """The set with one element less."""
        return msgspec.structs.replace(self, elements=tuple(each for each in self.elements if each != element))


def _ordered(elements: Iterable[Element], types: Sequence[str]) -> tuple[Element, ...]:
    return tuple(sorted(elements, key=lambda each: (not each.key, _place(each.key, types) if each.key else ())))


class Named(msgspec.Struct, frozen=True):
    """`@NAME`: a set or map of the table."""

    name: str

    def find(self, key: Key, at: Surroundings, table: Table) -> Element | None:
        """The element for a key: configured, or put there by a packet."""
        held = table.set(self.name)
        found = held.index.find(key)
        if found is None and held.flags and at.holds(f"{table.name} {self.name}", key):
            return Element(key)
        return found

    def written(self, types: Sequence[str], data: Sequence[str] = ()) -> str:
        return f"@{self.name}"


class Among(msgspec.Struct, frozen=True, dict=True):
    """`{ … }`: a set or map of its own, inside of a rule."""

    elements: tuple[Element, ...]

    @classmethod
    def of(cls, *atoms: Atom) -> Among:
        """A set of single values."""
        return cls(tuple(Element((atom,)) for atom in atoms))

    @cached_property
    def _index(self) -> _Index:
        return _Index(self.elements)

    def find(self, key: Key, at: Surroundings, table: Table) -> Element | None:
        """The element for a key."""
        return self._index.find(key)

    def written(self, types: Sequence[str], data: Sequence[str] = ()) -> str:
        return f"{{ {', '.join(each.written(types, data) for each in _ordered(self.elements, types))} }}"


Elements: TypeAlias = Named | Among


class Numgen(msgspec.Struct, frozen=True):
    """`numgen random mod N`: a number from 0 to N-1, by chance. This is how nftables balances load."""

    modulus: int

    def read(self, skb: Skb, at: Surroundings) -> Key:
        """Every number has the same chance."""
        for value in range(self.modulus - 1):
            if at.happens(1.0 / (self.modulus - value)):
                return (value,)
        return (self.modulus - 1,)

    @property
    def types(self) -> tuple[str, ...]:
        return ("integer",)

    def said(self, key: Key) -> str:
        """The choice in words."""
        if self.modulus == 1:
            return "the only choice"
        return f"chance falls on {_number(key[0])} of 0 to {self.modulus - 1}"

    def __str__(self) -> str:
        return f"numgen random mod {self.modulus}"


class Found(msgspec.Struct, frozen=True):
    """The fields of a packet, in order, that a set or map is asked about: `ip daddr . meta l4proto . th dport`."""

    fields: tuple[Field, ...]

    def read(self, skb: Skb, at: Surroundings) -> Key | None:
        """Their values; `None` if the packet lacks one."""
        return _read(self.fields, skb, at)

    @property
    def types(self) -> tuple[str, ...]:
        return tuple(map(_type, self.fields))

    def said(self, key: Key) -> str:
        """The values in words."""
        return _joined(key, self.types)

    def __str__(self) -> str:
        return " . ".join(self.fields)


Asked: TypeAlias = Found | Numgen
"""What a map is asked about."""


# Matches


class Flags(msgspec.Struct, frozen=True):
    """`established,related`: one of these flags is set."""

    names: tuple[str, ...]


Right: TypeAlias = Atom | Flags | Named | Among
"""What a match compares with."""


class Match(msgspec.Struct, frozen=True):
    """`FIELD VALUE`, `FIELD != VALUE`, and the same with a set; several fields are joined for a set."""

    fields: tuple[Field, ...]
    right: Right
    invert: bool = False

    def run(self, skb: Skb, at: Surroundings, table: Table) -> Outcome:
        key = _read(self.fields, skb, at)
        if key is None:
            return FAILED
        right = self.right
        if isinstance(right, Named | Among):
            held = right.find(key, at, table) is not None
        elif isinstance(right, Flags):
            held = not set(str(key[0]).split()).isdisjoint(right.names)
        else:
            held = _takes(right, key[0])
        return FAILED if held == self.invert else None

    def __str__(self) -> str:
        types = tuple(map(_type, self.fields))
        right = self.right
        if isinstance(right, Named | Among):
            text = right.written(types)
        elif isinstance(right, Flags):
            text = (" | " if self.invert else ",").join(right.names)
        else:
            text = _written(right, types[0])
        return f"{' . '.join(self.fields)}{' !=' if self.invert else ''} {text}"


class Masked(msgspec.Struct, frozen=True):
    """`meta mark & MASK == VALUE`: some bits of a mark."""

    mask: int
    value: int
    invert: bool = False
    field: Field = Field.MARK

    def run(self, skb: Skb, at: Surroundings, table: Table) -> Outcome:
        mark = _READ[self.field](skb, at)
        if not isinstance(mark, int):
            return FAILED
        return FAILED if (mark & self.mask == self.value) == self.invert else None

    def __str__(self) -> str:
        return f"{self.field} & 0x{self.mask:08x} {'!=' if self.invert else '=='} 0x{self.value:08x}"


# Statements that do something


class Bits(StrEnum):
    """What can be done to a mark, bit by bit."""

    AND = "&"
    OR = "|"
    XOR = "^"


_BITS: Mapping[Bits, Callable[[int, int], int]] = {
    Bits.AND: lambda mark, value: mark & value,
    Bits.OR: lambda mark, value: mark | value,
    Bits.XOR: lambda mark, value: mark ^ value,
}


class SetMark(msgspec.Struct, frozen=True):
    """`meta mark set meta mark | VALUE`: a mark becomes another mark, changed bit by bit; or, if there is no `source`,
    the first value of `bits` itself. `field` may be the connection's mark.
    """

    bits: tuple[tuple[Bits, int], ...] = ()
    source: Field | None = Field.MARK
    field: Field = Field.MARK

    def run(self, skb: Skb, at: Surroundings, table: Table) -> Outcome:
        mark: Value | None = _READ[self.source](skb, at) if self.source is not None else 0
        if not isinstance(mark, int):
            return FAILED
        for how, value in self.bits:
            mark = _BITS[how](mark, value)
        if self.field is Field.MARK:
            skb.mark = mark
        elif skb.connection is not None:
            skb.connection.mark = mark
        else:
            return FAILED
        return Said(f"{'mark' if self.field is Field.MARK else self.field} becomes {mark:#x}")

    def __str__(self) -> str:
        if self.source is None:
            return f"{self.field} set 0x{self.bits[0][1] if self.bits else 0:08x}"
        return f"{self.field} set {self.source}" + "".join(f" {how} 0x{value:08x}" for how, value in self.bits)


class VerdictMap(msgspec.Struct, frozen=True):
    """`FIELDS vmap @MAP`, `numgen … vmap { … }`: what shall become of the packet is looked up."""

    asked: Asked
    among: Elements

    def run(self, skb: Skb, at: Surroundings, table: Table) -> Outcome:
        key = self.asked.read(skb, at)
        found = self.among.find(key, at, table) if key is not None else None
        if key is None or found is None or not isinstance(found.data, Verdict):
            return FAILED
        where = f" is in @{self.among.name}" if isinstance(self.among, Named) else ""
        comment = f" ({found.comment})" if found.comment else ""
        return Said(f"{self.asked.said(key)}{where}{comment}: {found.data.says}", found.data)

    def __str__(self) -> str:
        return f"{self.asked} vmap {self.among.written(self.asked.types)}"


class Choice(msgspec.Struct, frozen=True):
    """`numgen random mod N map { … }`, `FIELDS map @MAP`: a new address, and port if there is one, is looked up."""

    asked: Asked
    among: Elements

    def __str__(self) -> str:
        return f"{self.asked} map {self.among.written(self.asked.types, ('ipv4_addr', 'inet_service'))}"


class _Translation(NamedTuple):
    address: str
    port: int
    words: str


def _translation(
    to: str, port: int, by: Choice | None, skb: Skb, at: Surroundings, table: Table
) -> _Translation | None:
    """The address and port that NAT shall lead to: stated, or looked up."""
    if by is None:
        return _Translation(to, port, "")
    key = by.asked.read(skb, at)
    found = by.among.find(key, at, table) if key is not None else None
    if key is None or found is None or not isinstance(found.data, tuple):
        return None
    address, *more = found.data
    return _Translation(str(address), int(str(more[0])) if more else 0, f"{by.asked.said(key)}: ")


def _to(address: str, port: int, by: Choice | None, family: str) -> str:
    of = f" {family}" if family else ""
    host = f"[{address}]" if ":" in address and port else address
    return f"{of} to {by or (f'{host}:{port}' if port else host)}"


class Dnat(msgspec.Struct, frozen=True):
    """`dnat to ADDRESS:PORT`, `dnat ip to … map { … }`: port 0 keeps the port. `family` is written in tables of family
    `inet` and before maps with ports.
    """

    address: str = ""
    port: int = 0
    by: Choice | None = None
    family: str = ""

    def run(self, skb: Skb, at: Surroundings, table: Table) -> Outcome:
        found = _translation(self.address, self.port, self.by, skb, at, table)
        if found is None:
            return FAILED
        target = netfilter.Dnat(found.address, found.port)
        return Said(f"{found.words}{target.says}", target)

    def __str__(self) -> str:
        return f"dnat{_to(self.address, self.port, self.by, self.family)}"


class Snat(msgspec.Struct, frozen=True):
    """`snat to ADDRESS`, or to one that is looked up."""

    address: str = ""
    by: Choice | None = None
    family: str = ""
    fully_random: bool = False

    def run(self, skb: Skb, at: Surroundings, table: Table) -> Outcome:
        found = _translation(self.address, 0, self.by, skb, at, table)
        if found is None:
            return FAILED
        target = netfilter.Snat(found.address, self.fully_random)
        return Said(f"{found.words}{target.says}", target)

    def __str__(self) -> str:
        return f"snat{_to(self.address, 0, self.by, self.family)}{' fully-random' if self.fully_random else ''}"


class Masquerade(msgspec.Struct, frozen=True):
    """`masquerade`: the source becomes the address of the device the packet leaves by."""

    fully_random: bool = False

    def run(self, skb: Skb, at: Surroundings, table: Table) -> Outcome:
        target = netfilter.Masquerade(self.fully_random)
        return Said(target.says, target)

    def __str__(self) -> str:
        return f"masquerade{' fully-random' if self.fully_random else ''}"


class Redirect(msgspec.Struct, frozen=True):
    """`redirect to :PORT`: to this machine itself; port 0 keeps the port."""

    port: int = 0

    def run(self, skb: Skb, at: Surroundings, table: Table) -> Outcome:
        target = netfilter.Redirect(self.port or skb.dport)
        return Said(target.says, target)

    def __str__(self) -> str:
        return f"redirect to :{self.port}" if self.port else "redirect"


class Reject(msgspec.Struct, frozen=True):
    """`reject`, `reject with icmp KIND`, `reject with tcp reset`: drop it and tell the sender. `by` is `icmp`,
    `icmpv6`, `icmpx` (either) or `tcp`; without it the sender hears port-unreachable.
    """

    kind: str = "port-unreachable"
    by: str = ""

    def run(self, skb: Skb, at: Surroundings, table: Table) -> Outcome:
        if self.by == "tcp" and skb.protocol != "TCP":
            return FAILED
        target = netfilter.Reject("tcp-reset" if self.by == "tcp" else self.kind)
        return Said(target.says, target)

    def __str__(self) -> str:
        return f"reject with {self.by} {self.kind}" if self.by else "reject"


class NoTrack(msgspec.Struct, frozen=True):
    """`notrack`: conntrack shall not look at this packet; useful before it does (priority raw)."""

    def run(self, skb: Skb, at: Surroundings, table: Table) -> Outcome:
        skb.tracked = False
        return Said("not to be tracked")

    def __str__(self) -> str:
        return "notrack"


class Counter(msgspec.Struct, frozen=True):
    """`counter`: the kernel counts what comes by; printed as zero."""

    def run(self, skb: Skb, at: Surroundings, table: Table) -> Outcome:
        return None

    def __str__(self) -> str:
        return "counter packets 0 bytes 0"


class Update(msgspec.Struct, frozen=True):
    """`update @SET { FIELDS }`: put the packet's values into a dynamic set, and let their time begin anew. `timeout`
    is in seconds; 0 is the set's own.
    """

    set: str
    fields: tuple[Field, ...]
    timeout: int = 0

    def run(self, skb: Skb, at: Surroundings, table: Table) -> Outcome:
        key = _read(self.fields, skb, at)
        if key is None:
            return FAILED
        seconds = self.timeout or table.set(self.set).timeout
        at.hold(f"{table.name} {self.set}", key, seconds)
        kept = f" for {duration(seconds)}" if seconds else ""
        return Said(f"{_joined(key, tuple(map(_type, self.fields)))} is remembered in @{self.set}{kept}")

    def __str__(self) -> str:
        timeout = f" timeout {duration(self.timeout)}" if self.timeout else ""
        return f"update @{self.set} {{ {' . '.join(self.fields)}{timeout} }}"


def duration(seconds: int) -> str:
    """Seconds as nft prints them.

    >>> duration(10800), duration(5400)
    ('3h', '1h30m')
    """
    parts = []
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60), ("s", 1)):
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count}{unit}")
    return "".join(parts) or "0s"


# Rules, chains, tables


class Rule(msgspec.Struct, frozen=True):
    """One rule: statements from left to right. `table` is family and name, as nft writes it: `ip kube-proxy`.

    >>> str(Rule("ip t", "c", (Match((Field.IP_SADDR,), Prefix.of("10.244.0.0/16")), ACCEPT), "pods"))
    'ip saddr 10.244.0.0/16 accept comment "pods"'
    """

    table: str
    chain: str
    statements: tuple[Statement, ...]
    comment: str = ""

    @property
    def text(self) -> str:
        """The rule as `nft list ruleset` prints it."""
        comment = f' comment "{self.comment}"' if self.comment else ""
        return f"{' '.join(map(str, self.statements))}{comment}"

    def run(self, skb: Skb, at: Surroundings, table: Table) -> Said | None:
        """What the rule does to a packet; `None` if it does not match."""
        words: list[str] = []
        end: End | None = None
        for statement in self.statements:
            outcome = statement.run(skb, at, table)
            if outcome is None:
                continue
            if isinstance(outcome, _Failed):
                return None
            words.append(outcome.words)
            end = outcome.end
            if end is not None:
                break
        said = ", ".join(words) or "noted"
        return Said(f"{self.comment}: {said}" if self.comment else said, end)

    @property
    def looks_at_connections(self) -> bool:
        """Whether some statement needs conntrack, which exists only where it is needed."""
        return any(map(_needs_conntrack, self.statements))

    def __str__(self) -> str:
        return self.text


def _needs_conntrack(statement: Statement) -> bool:
    match statement:
        case Dnat() | Snat() | Masquerade() | Redirect():
            return True
        case Match(fields=fields) | VerdictMap(asked=Found(fields=fields)) | Update(fields=fields):
            return not CT_FIELDS.isdisjoint(fields)
        case Masked(field=field):
            return field in CT_FIELDS
        case SetMark(source=source, field=field):
            return source in CT_FIELDS or field in CT_FIELDS
        case _:
            return False


class Base(msgspec.Struct, frozen=True):
    """Where a base chain stands: `type` is `filter`, `nat` or `route`; `hook` is the hook as nft writes it; `policy`
    is `accept` or `drop`.
    """

    type: str
    hook: str
    priority: int
    policy: str = "accept"

    @property
    def text(self) -> str:
        """The line of the chain that says so."""
        return f"type {self.type} hook {self.hook} priority {self._priority}; policy {self.policy};"

    @property
    def _priority(self) -> str:
        for name, value, hooks in _PRIORITIES:
            distance = self.priority - value
            if abs(distance) <= _NEAR and (not hooks or self.hook in hooks):
                return f"{name} {'+' if distance > 0 else '-'} {abs(distance)}" if distance else name
        return str(self.priority)


_NEAR = 10
_PRIORITIES: Sequence[tuple[str, int, tuple[str, ...]]] = (
    ("raw", -300, ()), ("mangle", -150, ()), ("dstnat", -100, ("prerouting",)), ("filter", 0, ()),
    ("security", 50, ()), ("srcnat", 100, ("postrouting",)),
)  # fmt: skip
"""The names of priorities, and the hooks they are for."""


class Chain(msgspec.Struct, frozen=True):
    """A list of rules; a base chain says where it stands."""

    name: str
    rules: tuple[Rule, ...] = ()
    base: Base | None = None
    comment: str = ""

    def without(self, rule: Rule) -> Chain:
        """The chain with one rule less: the first that equals it."""
        at = self.rules.index(rule)
        return msgspec.structs.replace(self, rules=(*self.rules[:at], *self.rules[at + 1 :]))


FAMILIES: Mapping[str, frozenset[int]] = {"ip": frozenset({4}), "ip6": frozenset({6}), "inet": frozenset({4, 6})}
"""Which packets the tables of a family see."""


class Table(msgspec.Struct, frozen=True, dict=True):
    """One table. Its sets and chains may be given as functions, which build them when something asks.

    `bases` names the base chains, so that they are found without building the others.
    """

    family: str
    label: str
    sets: Chains[Set] = Chains[Set]({})
    chains: Chains[Chain] = Chains[Chain]({})
    bases: tuple[str, ...] = ()
    comment: str = ""

    @classmethod
    def of(cls, name: str, chains: Iterable[Chain], sets: Iterable[Set] = (), comment: str = "") -> Table:
        """The table `FAMILY NAME` of chains and sets that exist already.

        Raises `LabError` for a family that is not `ip`, `ip6` or `inet`.
        """
        family, _, label = name.partition(" ")
        if family not in FAMILIES:
            raise LabError(Problem(f"a table of family {family!r}; there are {', '.join(FAMILIES)}", object=name))
        held = {chain.name: chain for chain in chains}
        bases = tuple(chain.name for chain in held.values() if chain.base is not None)
        return cls(family, label, Chains({each.name: each for each in sets}), Chains(held), bases, comment)

    @property
    def name(self) -> str:
        """Family and name, as nft writes it: `ip kube-proxy`."""
        return f"{self.family} {self.label}"

    def set(self, name: str) -> Set:
        """The set or map of that name. Raises `UnknownName`."""
        if name not in self.sets:
            raise UnknownName("set", name, self.sets, field=self.name)
        return self.sets[name]

    def chain(self, name: str) -> Chain:
        """The chain of that name. Raises `UnknownName`."""
        if name not in self.chains:
            raise UnknownName("chain", name, self.chains, field=self.name)
        return self.chains[name]

    @cached_property
    def entrances(self) -> tuple[Entrance, ...]:
        """The base chains, with the table."""
        return tuple(
            Entrance(self, chain, chain.base) for chain in map(self.chain, self.bases) if chain.base is not None
        )

    @cached_property
    def tracks(self) -> bool:
        """Whether some rule needs connections to be tracked. Base chains are asked first; the others are built only
        if none of those needs it.
        """
        first = (self.chain(name) for name in self.bases)
        if any(_tracks(chain) for chain in first):
            return True
        return any(_tracks(chain) for chain in self.chains.values())

    @property
    def rules(self) -> Iterator[Rule]:
        """Every rule, chain by chain. This builds every chain."""
        return (rule for chain in self.chains.values() for rule in chain.rules)

    def without(self, entry: Rule | Held) -> Table:
        """The table with one rule or one element less. Raises `UnknownName` if it has it not."""
        if isinstance(entry, Held):
            held = self.set(entry.set)
            if entry.element not in held.elements:
                raise UnknownName("element", entry.text, field=self.name)
            return msgspec.structs.replace(self, sets=self.sets.replacing(held.without(entry.element)))
        chain = self.chain(entry.chain)
        if entry not in chain.rules:
            raise UnknownName("rule", entry.text, field=self.name)
        return msgspec.structs.replace(self, chains=self.chains.replacing(chain.without(entry)))


def _tracks(chain: Chain) -> bool:
    nat = chain.base is not None and chain.base.type == "nat"
    return nat or any(rule.looks_at_connections for rule in chain.rules)


class Entrance(msgspec.Struct, frozen=True):
    """A base chain where packets enter, and the table that its rules jump about in."""

    table: Table
    chain: Chain
    base: Base


class Held(msgspec.Struct, frozen=True):
    """One element where it is held: table (family and name) and set."""

    table: str
    set: str
    element: Element

    @property
    def text(self) -> str:
        """In the words of nft."""
        plain = [""] * max(len(self.element.key), 2)
        return f"@{self.set} {{ {self.element.written(plain, plain)} }}"


# Running


class Ran(NamedTuple):
    """What a base chain did: the rules that matched and passed the packet on, with what they did; then the rule that
    decided, how, and in what words. No rule means that the policy decides.
    """

    passed: list[tuple[Rule, str]]
    rule: Rule | None = None
    end: End | None = None
    words: str = ""


LONGEST = 1000
"""More chains than this for one packet mean that gotos lead in a circle. (The kernel refuses such rules.)"""


def traverse(entrance: Entrance, skb: Skb, at: Surroundings) -> Ran:
    """Run a base chain: its rules in their order, with jumps, gotos and returns.

    Raises `UnknownName` for a jump into nothing, `LabError` for chains that lead in a circle.
    """
    table = entrance.table
    rules = iter(entrance.chain.rules)
    callers: list[Iterator[Rule]] = []
    passed: list[tuple[Rule, str]] = []
    for _ in range(LONGEST):
        for rule in rules:
            said = rule.run(skb, at, table)
            if said is None:
                continue
            end = said.end
            if end is not None and (not isinstance(end, Verdict) or end.kind in _FINAL):
                return Ran(passed, rule, end, said.words)
            passed.append((rule, said.words))
            if end is None or end.kind is VerdictKind.CONTINUE:
                continue
            if end.kind is VerdictKind.RETURN:
                rules = iter(())
            else:
                if end.kind is VerdictKind.JUMP:
                    callers.append(rules)
                rules = iter(table.chain(end.chain).rules)
            break
        else:
            if not callers:
                return Ran(passed)
            rules = callers.pop()
    raise LabError(Problem("its chains lead in a circle", object=table.name, field=entrance.chain.name))


_FINAL = frozenset({VerdictKind.ACCEPT, VerdictKind.DROP})
