"""What does the world's DNS hold?

A zone is a name and all below it that one organisation answers for. In it stand record sets: all the data that one name
has of one type, with one time to live. A zone of the lab is a value: what a program changes in it makes another one,
and the difference of two can be read line by line.

    zone = Zone.parsed("shop A 203.0.113.7", "example.org")
    print(zone)                                  # a zone file
    print(zone.diff(other))                      # - lines that go, + lines that come

A name with a CNAME has nothing else (RFC 1034): such a zone is refused, as a name server would refuse it.

Not modelled: delegations to other zones, serial numbers (the SOA stays as it was). Guide section 5.5; RFC 1034, RFC
1035.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

import msgspec

from k8snetlab.dns.messages import absolute, within
from k8snetlab.errors import BadOption, Problem

__all__ = ["TTL", "Difference", "RecordSet", "Zone"]

TTL = 300
"""Seconds that a record set lives in caches if nobody says otherwise."""


class RecordSet(msgspec.Struct, frozen=True, order=True):
    """All data that a name has of one type: `data` in order, as a zone file has it; `ttl` in seconds."""

    name: str
    type: str
    ttl: int
    data: tuple[str, ...]

    @property
    def lines(self) -> Iterator[str]:
        """One line for each record."""
        return (f"{self.name:<32} {self.ttl:>6} IN {self.type:<5} {each}" for each in self.data)

    def as_dict(self) -> dict[str, str | int | list[str]]:
        """The four facts, for JSON."""
        return {"name": self.name, "type": self.type, "ttl": self.ttl, "data": list(self.data)}


class Difference(msgspec.Struct, frozen=True):
    """Lines that go and lines that come, in the order of names; prints like `diff`."""

    lines: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.lines)

    def __str__(self) -> str:
        return "\n".join(self.lines) or "no change"

    def __repr__(self) -> str:
        return str(self)


class Zone(msgspec.Struct, frozen=True, dict=True):
    """A zone's record sets, in the order of names (from the zone's own name downwards) and types."""

    origin: str
    sets: tuple[RecordSet, ...] = ()

    @classmethod
    def of(cls, origin: str, sets: Iterable[RecordSet] = ()) -> Zone:
        """A zone of these record sets. Raises `BadOption` for a name outside of it and for a CNAME beside others."""
        origin = absolute(origin, "zone").lower()
        zone = cls(origin, tuple(sorted(sets, key=lambda each: (_downwards(each.name), each.type))))
        problems = [
            Problem(f"{each.name} is not in the zone {origin}", object=f"{each.name} {each.type}", field="zone")
            for each in zone.sets
            if not within(each.name, origin)
        ]
        for name in {each.name for each in zone.sets if each.type == "CNAME"}:
            types = [each.type for each in zone.sets if each.name == name]
            if len(types) > 1:
                message = f"a name with a CNAME has nothing else, and this one has {', '.join(types)}"
                problems.append(Problem(message, object=name, field="zone"))
        if problems:
            raise BadOption(sorted(problems, key=str))
        return zone

    @classmethod
    def parsed(cls, text: str, origin: str, file: str = "") -> Zone:
        """A zone file. Raises `BadOption` with file and line for what is none."""
        origin = absolute(origin, "zone").lower()
        found = _read(text, origin)
        if isinstance(found, Unreadable):
            lines = text.splitlines()[: max(found.line - 1, 0)]
            earlier = isinstance(_read("\n".join(lines), origin), Unreadable)  # it may be told of the next line
            line = found.line - 1 if earlier else found.line
            raise BadOption(Problem(f"no zone file: {found.why}", file, line, field="zone"))
        return cls.of(origin, found)

    @cached_property
    def by_key(self) -> Mapping[tuple[str, str], RecordSet]:
        """Record sets by name and type."""
        return {(each.name, each.type): each for each in self.sets}

    def at(self, name: str) -> tuple[RecordSet, ...]:
        """All that a name has."""
        return tuple(each for each in self.sets if each.name == absolute(name).lower())

    def holds(self, name: str) -> bool:
        """Whether a name is in this zone."""
        return within(absolute(name).lower(), self.origin)

    def changed(self, gone: Iterable[RecordSet], come: Iterable[RecordSet]) -> Zone:
        """Another zone, without some record sets and with others. Raises as `of` does."""
        held = dict(self.by_key)
        for each in gone:
            held.pop((each.name, each.type), None)
        held.update({(each.name, each.type): each for each in come})
        return Zone.of(self.origin, held.values())

    def diff(self, after: Zone) -> Difference:
        """What another zone has less and more."""
        old, new = ({line: each for each in zone.sets for line in each.lines} for zone in (self, after))
        changed = [(line, "-", old[line]) for line in old if line not in new]
        changed += [(line, "+", new[line]) for line in new if line not in old]
        order = sorted(changed, key=lambda each: (_downwards(each[2].name), each[2].type, each[1] == "+", each[0]))
        return Difference(tuple(f"{sign} {line}" for line, sign, _ in order))

    def __str__(self) -> str:
        return "\n".join((f"$ORIGIN {self.origin}", *(line for each in self.sets for line in each.lines)))

    def __repr__(self) -> str:
        return f"<Zone {self.origin} with {len(self.sets)} record sets>"


def _downwards(name: str) -> tuple[str, ...]:
    """The labels of a name, the highest first: the order of DNS (RFC 4034, section 6.1)."""
    return tuple(reversed(name.removesuffix(".").split(".")))


class Unreadable(NamedTuple):
    """Why a text is no zone file, and the line where that was noticed."""

    line: int
    why: str


def _read(text: str, origin: str) -> list[RecordSet] | Unreadable:
    import dns.exception
    import dns.rdatatype
    import dns.zone

    try:
        read = dns.zone.from_text(f"$TTL {TTL}\n{text}", origin=origin, relativize=False, check_origin=False)
    except (dns.exception.DNSException, ValueError) as error:
        place, _, why = str(error).partition(": ")
        line = place.rpartition(":")[2]
        return Unreadable(int(line) - 1, why) if line.isdigit() else Unreadable(0, str(error))
    return [
        RecordSet(
            name.to_text().lower(),
            dns.rdatatype.to_text(held.rdtype),
            held.ttl,
            tuple(sorted(each.to_text() for each in held)),
        )
        for name, held in read.iterate_rdatasets()
    ]
