"""Is this packet on the list?

A set holds addresses, networks, ports, or combinations of them, and one rule asks whether a packet is in it, however
many entries it has: the kernel keeps them in a hash table, so that ten thousand cost no more than ten. What a set is
compared with is said by the rule, one direction for each part of the entries: `--match-set NAME dst,dst,src` on a set
of type `hash:ip,port,ip` takes destination address, destination port and source address.

    hash:ip            10.96.0.10
    hash:net           10.244.0.0/16, the longest network that holds the address decides; `nomatch` makes an exception
    hash:ip,port       10.96.0.10,udp:53
    hash:net,port      10.244.0.0/16,tcp:80
    hash:ip,port,ip    10.244.1.2,tcp:80,10.244.1.2
    hash:ip,port,net   203.0.113.7,tcp:443,198.51.100.0/24
    bitmap:port        30080, whatever the protocol is, TCP or UDP (not SCTP)
    list:set           names of other sets, one of which must hold the packet

Entries are given as `ipset save` prints them, and looked up by dictionary here. Rules of `iptables` ask sets of IPv4,
those of `ip6tables` sets of IPv6; both ask sets of ports.

Not modelled: entries with time-outs, counters or comments, lists with sets of several parts, ranges, `hash:mac` and
marks; hash sizes are printed as they are asked for, not as they grow, and without the bucket size and random seed that
`ipset` 7 adds. Guide sections 2.2 and 4.1; `ipset(8)`, `iptables-extensions(8)` (set).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from functools import cached_property
from typing import TypeAlias

import msgspec

from k8snetlab.address import Prefix, number
from k8snetlab.errors import LabError, Problem
from k8snetlab.linux.skb import Skb

__all__ = ["IpSet", "IpSetEntry", "SetType"]


class SetType(StrEnum):
    """What the entries of a set are made of; the values are the words of `ipset create`."""

    IP = "hash:ip"
    NET = "hash:net"
    IP_PORT = "hash:ip,port"
    NET_PORT = "hash:net,port"
    IP_PORT_IP = "hash:ip,port,ip"
    IP_PORT_NET = "hash:ip,port,net"
    PORT = "bitmap:port"
    LIST = "list:set"

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of an entry: `ip`, `net` or `port`; `set` for the name of another."""
        return tuple(self.value.partition(":")[2].split(","))


Key: TypeAlias = tuple[str | int, ...]
Exact: TypeAlias = frozenset[Key]
Nets: TypeAlias = Mapping[Key, tuple[tuple[int, Mapping[int, bool]], ...]]
"""The networks that stand with the other parts of their entries: for every prefix length, longest first, its mask and
the first addresses, with whether they match (`nomatch` does not)."""

PORTS = ("TCP", "UDP", "SCTP")
"""Protocols whose ports hash sets know; the kernel also knows ICMP types, which stand in no entry here."""


class IpSet(msgspec.Struct, frozen=True, dict=True):
    """One set: its name (31 characters at most), the type of its entries, and the entries as `ipset save` prints them.

    `family` is 4 or 6 and means nothing for ports.

    >>> held = IpSet("WEB", SetType.IP_PORT, ("10.96.0.10,tcp:80",))
    >>> print(held.create)
    create WEB hash:ip,port family inet hashsize 1024 maxelem 65536
    """

    name: str
    type: SetType
    entries: tuple[str, ...] = ()
    family: int = 4
    maxelem: int = 65536

    def holds(self, skb: Skb, directions: tuple[str, ...]) -> bool:
        """Whether the packet is in the set, by `src` or `dst` for each part of the entries. Too few directions: no.
        Instead of a list, the sets that it names must be asked.
        """
        parts = self.type.parts
        if len(directions) < len(parts) or (self.family != skb.version and self.type is not SetType.PORT):
            return False
        if self.type is SetType.PORT:
            port = skb.dport if directions[0] == "dst" else skb.sport
            return skb.protocol in ("TCP", "UDP") and (port,) in self._exact
        key: list[str | int] = []
        inside = ""
        for part, direction in zip(parts, directions, strict=False):
            forward = direction == "dst"
            if part == "port":
                if skb.protocol not in PORTS:
                    return False
                key += (skb.protocol, skb.dport if forward else skb.sport)
            elif part == "ip":
                key.append(skb.dst if forward else skb.src)
            else:
                inside = skb.dst if forward else skb.src
        return _inside(self._nets.get(tuple(key), ()), inside) if inside else tuple(key) in self._exact

    @cached_property
    def _exact(self) -> Exact:
        return frozenset(key for key, _, _ in self._parsed())

    @cached_property
    def _nets(self) -> Nets:
        found: dict[Key, dict[int, tuple[int, dict[int, bool]]]] = {}
        for key, block, matches in self._parsed():
            if block is not None:
                found.setdefault(key, {}).setdefault(block.length, (block.mask, {}))[1][block.base] = matches
        return {key: tuple(by[length] for length in sorted(by, reverse=True)) for key, by in found.items()}

    def _parsed(self) -> Iterator[tuple[Key, Prefix | None, bool]]:
        parts = self.type.parts
        for entry in self.entries:
            words, _, option = entry.partition(" ")
            fields = words.split(",")
            if len(fields) != len(parts) or option not in ("", "nomatch"):
                raise LabError(Problem(f"{entry!r} is no entry of a set of type {self.type}", field=self.name))
            key: list[str | int] = []
            block: Prefix | None = None
            for part, field in zip(parts, fields, strict=True):
                if part == "net":
                    block = Prefix.of(field)
                elif part == "ip":
                    key.append(field)
                else:
                    protocol, _, port = field.rpartition(":")
                    key += (protocol.upper(), int(port)) if protocol else (int(port),)
            yield tuple(key), block, not option

    def without(self, entry: str) -> IpSet:
        """The set with one entry less."""
        return msgspec.structs.replace(self, entries=tuple(held for held in self.entries if held != entry))

    # As text

    @property
    def create(self) -> str:
        """The line of `ipset save` that makes the set."""
        if self.type is SetType.PORT:
            return f"create {self.name} {self.type} range 0-65535"
        if self.type is SetType.LIST:
            return f"create {self.name} {self.type} size 8"
        inet = "inet" if self.family == 4 else "inet6"
        return f"create {self.name} {self.type} family {inet} hashsize 1024 maxelem {self.maxelem}"

    @property
    def listed(self) -> tuple[str, ...]:
        """The entries by address and port, those of a list in their order. (The kernel lists them as its hash table
        has them.)
        """
        if self.type is SetType.LIST:
            return self.entries
        return tuple(sorted(self.entries, key=_place))

    @property
    def lines(self) -> Iterator[str]:
        """The set as `ipset save` prints it."""
        yield self.create
        for entry in self.listed:
            yield f"add {self.name} {entry}"


class IpSetEntry(msgspec.Struct, frozen=True):
    """One entry of a set, named together with its set."""

    set: str
    entry: str


def _inside(levels: Iterable[tuple[int, Mapping[int, bool]]], address: str) -> bool:
    value = number(address)
    for mask, bases in levels:
        found = bases.get(value & mask)
        if found is not None:
            return found
    return False


def _place(entry: str) -> tuple[tuple[int, str], ...]:
    """Where an entry is listed: its parts by number, then as text."""
    return tuple(_rank(part) for part in entry.split(","))


def _rank(part: str) -> tuple[int, str]:
    protocol, _, port = part.rpartition(":")
    if protocol in ("tcp", "udp", "sctp"):
        return int(port), protocol
    if part.isdecimal():
        return int(part), ""
    block = Prefix.of(part.partition(" ")[0])
    return block.base, part
