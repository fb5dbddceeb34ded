"""Whose address is this, and is one still free?

A cluster lives in several networks at once: the *underlay* (the machines' own subnets, often one a zone), the *pod
network*, cut into one range a node, and the *Service network*, whose addresses are on no interface anywhere. They
must not overlap: an address means one thing only. This module holds the values for that: a `Prefix` (CIDR), and pools
that hand out the next free address in the order the real allocators use.

Addresses are plain canonical strings in the whole package (`"10.244.1.2"`, `"fd00:10:244::2"`): that is what people
read and what the tools print. `number` turns one into an integer for arithmetic; it is remembered, since parsing is
slow.

Not modelled: anycast, multicast groups, scoped addresses (`fe80::1%eth0`). Guide sections 1.2 and 5.7; RFC 4632, RFC
4291, RFC 5952 (the canonical text of an IPv6 address).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from itertools import combinations

import msgspec

from k8snetlab.errors import BadOption, Problem

__all__ = [
    "SHARES", "AddressPlan", "Prefix", "Range", "canonical", "family", "hosts", "is_canonical", "number", "special",
    "text",
]  # fmt: skip


_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_IPV4 = re.compile(rf"{_BYTE}(?:\.{_BYTE}){{3}}")
# At most six groups, none of them zero, on both sides of `::`: there is nothing left to shorten.
_SHORT_IPV6 = re.compile(r"(?!(?:[^:]*:){7})(?:[1-9a-f][0-9a-f]{0,3}:)+(?::[1-9a-f][0-9a-f]{0,3})+")


_LENGTHS = {str(length): length for length in range(129)}


@lru_cache(maxsize=1 << 17)
def number(address: str) -> int:
    """The address as an integer: `number("10.0.0.1") == 167772161`. Raises `ValueError` for what is no address."""
    if _IPV4.fullmatch(address):
        first, second, third, fourth = address.split(".")
        return int(first) << 24 | int(second) << 16 | int(third) << 8 | int(fourth)
    return int(ipaddress.ip_address(address))


def is_canonical(address: str) -> bool:
    """Whether it is plainly an address in its one way of writing; of some rare ones this does not know it."""
    return (_SHORT_IPV6 if ":" in address else _IPV4).fullmatch(address) is not None


@lru_cache(maxsize=1 << 17)
def family(address: str) -> int:
    """4 or 6."""
    return 6 if ":" in address else 4


def text(value: int, of: int) -> str:
    """The canonical text of an integer address of family `of` (4 or 6)."""
    if of == 4:
        return f"{value >> 24}.{value >> 16 & 255}.{value >> 8 & 255}.{value & 255}"
    return str(ipaddress.IPv6Address(value))


def canonical(address: str, *, field: str = "", object: str = "") -> str:
    """The one way to write an address (RFC 5952); `BadOption` names `object` and `field` when it is none."""
    if is_canonical(address):
        return address
    try:
        return str(ipaddress.ip_address(address))
    except ValueError as error:
        raise BadOption(Problem(str(error), object=object, field=field)) from None


class Prefix(msgspec.Struct, frozen=True, order=True, dict=True):
    """A CIDR block: `Prefix.of("10.244.0.0/16")`. Tests membership of address strings fast.

    >>> Prefix.of("10.244.0.0/16").contains("10.244.3.7")
    True
    """

    family: int
    base: int
    length: int

    @classmethod
    def of(cls, cidr: str, *, strict: bool = False, field: str = "", object: str = "") -> Prefix:
        """Read `ADDRESS/LENGTH`; a bare address is a host prefix. With `strict`, host bits are an error."""
        return _parsed(cidr) if not strict else _strict(cidr, field, object)

    @cached_property
    def bits(self) -> int:
        return 32 if self.family == 4 else 128

    @cached_property
    def mask(self) -> int:
        return ((1 << self.length) - 1) << (self.bits - self.length)

    @property
    def size(self) -> int:
        """How many addresses the block holds, network and broadcast address included."""
        return 1 << (self.bits - self.length)

    @property
    def network(self) -> str:
        """The first address, which names the block."""
        return text(self.base, self.family)

    @property
    def broadcast(self) -> str:
        """The last address; the broadcast address in IPv4."""
        return text(self.base + self.size - 1, self.family)

    def contains(self, address: str) -> bool:
        """Whether the address is in the block; an address of the other family never is."""
        return (6 if ":" in address else 4) == self.family and number(address) & self.mask == self.base

    def reserves(self, address: str) -> bool:
        """Whether it is an address of the block that no host may have: see `hosts`."""
        return self.contains(address) and number(address) not in hosts(self)

    def covers(self, other: Prefix) -> bool:
        """Whether every address of `other` is in this block."""
        return self.family == other.family and self.length <= other.length and other.base & self.mask == self.base

    def overlaps(self, other: Prefix) -> bool:
        """Whether the two blocks share any address (then one covers the other)."""
        return self.covers(other) or other.covers(self)

    def address(self, index: int) -> str:
        """The address `index` places after the first one: `Prefix.of("10.0.0.0/24").address(1) == "10.0.0.1"`."""
        return text(self.base + index, self.family)

    def subnets(self, length: int) -> Iterator[Prefix]:
        """The blocks of that length inside this one, in order."""
        step = 1 << (self.bits - length)
        for base in range(self.base, self.base + self.size, step):
            yield Prefix(self.family, base, length)

    def __str__(self) -> str:
        return f"{self.network}/{self.length}"

    def __repr__(self) -> str:
        return f"Prefix.of({str(self)!r})"


@lru_cache(maxsize=1 << 14)
def _parsed(cidr: str) -> Prefix:
    address, slash, length = cidr.partition("/")
    if is_canonical(address):
        of, bits = (4, 32) if "." in address else (6, 128)
        free = bits - (_LENGTHS.get(length, bits + 1) if slash else bits)
        if free >= 0:  # plainly a block, as nearly all are
            return Prefix(of, number(address) >> free << free, bits - free)
    try:
        block = ipaddress.ip_network(cidr, strict=False)
    except ValueError as error:
        raise BadOption(str(error)) from None
    return Prefix(block.version, int(block.network_address), block.prefixlen)


def _strict(cidr: str, field: str, object: str) -> Prefix:
    try:
        ipaddress.ip_network(cidr, strict=True)
    except ValueError as error:
        raise BadOption(Problem(str(error), object=object, field=field)) from None
    return _parsed(cidr)


def hosts(block: Prefix) -> range:
    """The integers of the block that a host may have: without network and broadcast address in IPv4 (RFC 919)."""
    if block.family == 4 and block.length < 31:
        return range(block.base + 1, block.base + block.size - 1)
    return range(block.base + (1 if block.family == 6 and block.length < 127 else 0), block.base + block.size)


def special(address: str) -> str:
    """What an address means everywhere, if it is one that no network of a cluster can hold; else nothing (RFC 6890).

    >>> special("127.0.0.1")
    'it means the machine itself, on every machine'
    """
    value = ipaddress.ip_address(address)
    if value.is_loopback:
        return "it means the machine itself, on every machine"
    if value.is_link_local:
        return "it is good on one cable only (link-local)"
    if value.is_multicast:
        return "it means a group of machines (multicast)"
    if value.is_unspecified:
        return "it means no address, or any"
    return "it means everybody on the cable (broadcast)" if address == "255.255.255.255" else ""


class Range(msgspec.Struct, frozen=True):
    """One network of a cluster: what it is for (`pods of node-1`), its kind (`underlay`, `pods`, `node pods`, `shares`,
    `services`, `load balancers`, `outside`) and its block. A share is a node's part of one pod network, and no network
    of its own: its first and last address are like all others.
    """

    name: str
    kind: str
    block: Prefix


class AddressPlan(msgspec.Struct, frozen=True):
    """All networks of a cluster, and who holds which address (guide section 1.2).

    `owners` maps addresses to who they belong to. Networks nest on purpose (a node's pods in the cluster's pods); any
    other overlap makes an address ambiguous, and `overlaps` lists it.
    """

    ranges: tuple[Range, ...]
    owners: Mapping[str, str] = {}

    def whose(self, address: str) -> str:
        """A sentence: who an address belongs to, and in which networks it lies. Raises `BadOption` for no address."""
        address = canonical(address, field="address")
        meaning = special(address)
        if meaning:
            return f"{address} is nobody's: {meaning}"
        within = [held for held in self.ranges if held.block.contains(address)]
        within.sort(key=lambda held: -held.block.length)
        where = ", in ".join(f"{held.name} ({held.block})" for held in within)
        owner = self.owners.get(address)
        if owner:
            return f"{address} is {owner}" + (f", in {where}" if where else "")
        own = next((held for held in within if held.kind != SHARES), None)
        if own is not None and own.block.reserves(address):
            return f"{address} can be nobody's: it is the first or the last address of {where}"
        if within:
            return f"{address} belongs to nobody yet; it is in {where}"
        return f"{address} is in no network of this cluster: it is somewhere outside"

    @property
    def overlaps(self) -> tuple[tuple[Range, Range], ...]:
        """Pairs of networks that share addresses and must not."""
        pairs = combinations(self.ranges, 2)
        return tuple((one, two) for one, two in pairs if one.block.overlaps(two.block) and not _nested(one, two))

    def __str__(self) -> str:
        rows = [(held.name, str(held.block), f"{held.block.size:,} addresses") for held in self.ranges]
        widths = [max(len(row[at]) for row in rows) for at in range(2)]
        lines = [f"{name:<{widths[0]}}  {block:<{widths[1]}}  {size}" for name, block, size in rows]
        lines.extend(
            f"OVERLAP: {first.name} ({first.block}) and {second.name} ({second.block})"
            for first, second in self.overlaps
        )
        return "\n".join(lines)


def _nested(first: Range, second: Range) -> bool:
    """Whether one network is a part of the other by design, as a node's pods are within the cluster's pods."""
    return any(
        (outer.kind, inner.kind) in NESTED and outer.block.covers(inner.block)
        for outer, inner in ((first, second), (second, first))
    )


SHARES = "shares"

NESTED = frozenset({("pods", "node pods"), ("pods", SHARES), ("underlay", "load balancers")})
"""The kinds of networks of which one is meant to be a part of the other: ARP for a load balancer's address can be
answered on the nodes' own cable only.
"""
