"""What can a rule look at, and what can it be compared with?

A *field* is a fact of a packet: an address, a port, a mark, the device it came by, what conntrack knows of it. A
packet may lack it; the rule is over then. An *atom* is one value or a block of them: an address or a prefix, a port or
a span of ports. Sets name the types of fields, and nft lists elements by the numbers behind their names.

Not modelled: ICMP types of IPv4, TCP flags, anything below the IP header. Guide section 2.2; `nft(8)` (payload, meta,
ct and fib expressions).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Protocol, TypeAlias

import msgspec

from k8snetlab.address import Prefix, number
from k8snetlab.linux.skb import Skb

__all__ = [
    "CT_FIELDS", "ICMPV6_TYPES", "READERS", "Atom", "Field", "Key", "Reader", "Span", "Surroundings", "Value", "bounds",
    "joined", "number_of", "place", "read", "readers", "takes", "type_of", "written",
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

    def is_local_on(self, address: str, device: str) -> bool:
        """Whether the address is on that device of the machine."""
        ...

    def leads_back(self, skb: Skb) -> bool:
        """Whether an answer to the packet's source would leave by the device that the packet came by."""
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
    FIB_SADDR_OUT = "fib saddr . oif type"
    FIB_BACK = "fib saddr . mark . iif oif"
    ICMPV6_TYPE = "icmpv6 type"


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


_PROTOCOLS: Mapping[str, Value] = {"ICMPv6": "ipv6-icmp", "IPIP": "ipencap"}
"""Protocols that nft calls by other words."""

ICMPV6_TYPES: Mapping[int, str] = {
    1: "destination-unreachable", 2: "packet-too-big", 3: "time-exceeded", 128: "echo-request", 129: "echo-reply",
    130: "mld-listener-query", 131: "mld-listener-report", 132: "mld-listener-done", 133: "nd-router-solicit",
    135: "nd-neighbor-solicit", 136: "nd-neighbor-advert",
}  # fmt: skip
"""The words of nft for types of ICMPv6 messages."""

READERS: Mapping[Field, Reader] = {
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
    Field.L4PROTO: lambda skb, at: _PROTOCOLS.get(skb.protocol) or skb.protocol.lower(),
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
    Field.FIB_SADDR_OUT: lambda skb, at: "local" if at.is_local_on(skb.src, skb.oif) else "unicast",
    Field.FIB_BACK: lambda skb, at: int(at.leads_back(skb)),
    Field.ICMPV6_TYPE: lambda skb, at: ICMPV6_TYPES.get(skb.icmpv6_type),
}  # fmt: skip

_TYPES: Mapping[Field, str] = {
    Field.IP_SADDR: "ipv4_addr", Field.IP_DADDR: "ipv4_addr",
    Field.IP6_SADDR: "ipv6_addr", Field.IP6_DADDR: "ipv6_addr",
    Field.IP_PROTOCOL: "inet_proto", Field.L4PROTO: "inet_proto",
    Field.MARK: "mark", Field.CT_MARK: "mark", Field.IIFNAME: "ifname", Field.OIFNAME: "ifname",
    Field.CT_STATE: "ct_state", Field.CT_STATUS: "ct_status", Field.CT_DIRECTION: "ct_dir",
    Field.NFPROTO: "nf_proto", Field.FIB_SADDR: "fib_addrtype", Field.FIB_DADDR: "fib_addrtype",
    Field.FIB_SADDR_OUT: "fib_addrtype", Field.FIB_BACK: "iface_index", Field.ICMPV6_TYPE: "icmpv6_type",
}  # fmt: skip
"""The types of fields, as sets name them; all others are ports."""

CT_FIELDS = frozenset({Field.CT_STATE, Field.CT_STATUS, Field.CT_MARK, Field.CT_DIRECTION})
"""The fields that exist only where connections are tracked: a rule that looks at one turns tracking on."""


def _direction(skb: Skb) -> str | None:
    if skb.connection is None:
        return None
    return "reply" if skb.reply else "original"


def type_of(field: Field) -> str:
    """The type of a field, as sets name it."""
    return _TYPES.get(field, "inet_service")


def readers(fields: Iterable[Field]) -> tuple[Reader, ...]:
    """What reads these fields, looked up once."""
    return tuple(READERS[field] for field in fields)


def read(reading: tuple[Reader, ...], skb: Skb, at: Surroundings) -> Key | None:
    """The values of some fields; `None` if the packet lacks one."""
    found: list[Value] = []
    for reader in reading:
        value = reader(skb, at)
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


def written(atom: Atom, of: str) -> str:
    """An atom of a type as nft prints it."""
    if of == "mark" and isinstance(atom, int):
        return f"0x{atom:08x}"
    if of == "ifname":
        return f'"{atom}"'
    if isinstance(atom, Prefix) and atom.length == atom.bits:
        return atom.network
    return str(atom)


def joined(atoms: Sequence[Atom], types: Sequence[str]) -> str:
    """Several atoms as nft prints them: `10.96.0.10 . tcp . 80`."""
    return " . ".join(map(written, atoms, types))


def bounds(atom: Atom) -> tuple[int, int]:
    """The first and the last number that an atom stands for."""
    if isinstance(atom, Prefix):
        return atom.base, atom.base + atom.size - 1
    if isinstance(atom, Span):
        return number_of(atom.first), number_of(atom.last)
    return number_of(atom), number_of(atom)


def number_of(value: Value) -> int:
    """A port or mark itself, an address as a number."""
    return value if isinstance(value, int) else number(value)


def takes(atom: Atom, value: Value) -> bool:
    """Whether a value is the atom, or in it."""
    if isinstance(atom, Prefix):
        return isinstance(value, str) and number(value) & atom.mask == atom.base
    if isinstance(atom, Span):
        return number_of(atom.first) <= number_of(value) <= number_of(atom.last)
    if isinstance(atom, str) and atom.endswith("*"):
        return str(value).startswith(atom[:-1])
    return atom == value


_ORDINALS: Mapping[str, Mapping[str, int]] = {
    "inet_proto": {"icmp": 1, "ipencap": 4, "tcp": 6, "udp": 17, "ipv6-icmp": 58, "sctp": 132},
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


def place(key: Sequence[Atom], types: Sequence[str]) -> tuple[int, ...]:
    """Where nft lists an element: by its number; one of several fields by its bytes read backwards."""
    if len(key) == 1:
        return (_ordinal(key[0], types[0]),)
    backwards = []
    for atom, of in zip(reversed(key), reversed(types), strict=True):
        whole = _ordinal(atom, of).to_bytes(_BYTES[of], "big") if of in _BYTES else b""
        backwards.append(int.from_bytes(whole, "little") if whole else _ordinal(atom, of))
    return tuple(backwards)
