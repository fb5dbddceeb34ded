"""What can a rule do?

Statements are run from left to right. A match holds or ends the rule; the others do their work and say so in words;
a verdict, a translation or a refusal ends the rule, and the chain with it.

Guide section 2.2; `nft(8)` (statements).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple, TypeAlias

import msgspec

from k8snetlab.linux import netfilter
from k8snetlab.linux.nftables.fields import (
    READERS,
    Atom,
    Field,
    Key,
    Reader,
    Surroundings,
    Value,
    joined,
    number_of,
    read,
    readers,
    takes,
    type_of,
    written,
)  # fmt: skip
from k8snetlab.linux.nftables.sets import FAILED, Among, Elements, Holder, Named, Outcome, Said, Verdict
from k8snetlab.linux.skb import Skb

__all__ = [
    "Asked", "Bits", "Choice", "Counter", "Dnat", "Flags", "Found", "Masked", "Masquerade", "Match", "NoTrack",
    "Numgen", "Redirect", "Reject", "Right", "SetMark", "Snat", "Update", "VerdictMap", "duration",
]  # fmt: skip


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
        return f"chance falls on {number_of(key[0])} of 0 to {self.modulus - 1}"

    def __str__(self) -> str:
        return f"numgen random mod {self.modulus}"


class Found(msgspec.Struct, frozen=True, dict=True):
    """The fields of a packet, in order, that a set or map is asked about: `ip daddr . meta l4proto . th dport`."""

    fields: tuple[Field, ...]

    @cached_property
    def _reading(self) -> tuple[Reader, ...]:
        return readers(self.fields)

    def read(self, skb: Skb, at: Surroundings) -> Key | None:
        """Their values; `None` if the packet lacks one."""
        return read(self._reading, skb, at)

    @property
    def types(self) -> tuple[str, ...]:
        return tuple(map(type_of, self.fields))

    def said(self, key: Key) -> str:
        """The values in words."""
        return joined(key, self.types)

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

_LOOKED_UP = (Named, Among)


class Match(msgspec.Struct, frozen=True, dict=True):
    """`FIELD VALUE`, `FIELD != VALUE`, and the same with a set; several fields are joined for a set."""

    fields: tuple[Field, ...]
    right: Right
    invert: bool = False

    @cached_property
    def _reading(self) -> tuple[Reader, ...]:
        return readers(self.fields)

    def run(self, skb: Skb, at: Surroundings, table: Holder) -> Outcome:
        key = read(self._reading, skb, at)
        if key is None:
            return FAILED
        right = self.right
        if isinstance(right, _LOOKED_UP):
            held = right.find(key, at, table) is not None
        elif isinstance(right, Flags):
            held = key[0] in right.names or not set(str(key[0]).split()).isdisjoint(right.names)
        else:
            held = takes(right, key[0])
        return FAILED if held == self.invert else None

    def __str__(self) -> str:
        types = tuple(map(type_of, self.fields))
        right = self.right
        if isinstance(right, Named | Among):
            text = right.written(types)
        elif isinstance(right, Flags):
            text = (" | " if self.invert else ",").join(right.names)
        else:
            text = written(right, types[0])
        return f"{' . '.join(self.fields)}{' !=' if self.invert else ''} {text}"


class Masked(msgspec.Struct, frozen=True):
    """`meta mark & MASK == VALUE`: some bits of a mark."""

    mask: int
    value: int
    invert: bool = False
    field: Field = Field.MARK

    def run(self, skb: Skb, at: Surroundings, table: Holder) -> Outcome:
        mark = READERS[self.field](skb, at)
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

    def run(self, skb: Skb, at: Surroundings, table: Holder) -> Outcome:
        mark: Value | None = READERS[self.source](skb, at) if self.source is not None else 0
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

    def run(self, skb: Skb, at: Surroundings, table: Holder) -> Outcome:
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
    to: str, port: int, by: Choice | None, skb: Skb, at: Surroundings, table: Holder
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

    def run(self, skb: Skb, at: Surroundings, table: Holder) -> Outcome:
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

    def run(self, skb: Skb, at: Surroundings, table: Holder) -> Outcome:
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

    def run(self, skb: Skb, at: Surroundings, table: Holder) -> Outcome:
        target = netfilter.Masquerade(self.fully_random)
        return Said(target.says, target)

    def __str__(self) -> str:
        return f"masquerade{' fully-random' if self.fully_random else ''}"


class Redirect(msgspec.Struct, frozen=True):
    """`redirect to :PORT`: to this machine itself; port 0 keeps the port."""

    port: int = 0

    def run(self, skb: Skb, at: Surroundings, table: Holder) -> Outcome:
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

    def run(self, skb: Skb, at: Surroundings, table: Holder) -> Outcome:
        if self.by == "tcp" and skb.protocol != "TCP":
            return FAILED
        target = netfilter.Reject("tcp-reset" if self.by == "tcp" else self.kind)
        return Said(target.says, target)

    def __str__(self) -> str:
        return f"reject with {self.by} {self.kind}" if self.by else "reject"


class NoTrack(msgspec.Struct, frozen=True):
    """`notrack`: conntrack shall not look at this packet; useful before it does (priority raw)."""

    def run(self, skb: Skb, at: Surroundings, table: Holder) -> Outcome:
        skb.tracked = False
        return Said("not to be tracked")

    def __str__(self) -> str:
        return "notrack"


class Counter(msgspec.Struct, frozen=True):
    """`counter`: the kernel counts what comes by; printed as zero."""

    def run(self, skb: Skb, at: Surroundings, table: Holder) -> Outcome:
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

    def run(self, skb: Skb, at: Surroundings, table: Holder) -> Outcome:
        key = read(readers(self.fields), skb, at)
        if key is None:
            return FAILED
        seconds = self.timeout or table.set(self.set).timeout
        at.hold(f"{table.name} {self.set}", key, seconds)
        kept = f" for {duration(seconds)}" if seconds else ""
        return Said(f"{joined(key, tuple(map(type_of, self.fields)))} is remembered in @{self.set}{kept}")

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
