"""What is asked, and what is answered?

A DNS question is a name and a type; an answer has a code and up to three lists of records. Three outcomes are easily
confused. NOERROR with records: here they are. NOERROR without (called NODATA): the name exists, but has no record of
this type. NXDOMAIN: there is no such name. Both of the last carry the zone's SOA record, whose last number says for
how many seconds that may be remembered.

Names are absolute and end with a dot here; capital letters do not count, but are given back as they came. A name has
at most 255 bytes on the wire, each of its labels at most 63. Data of records is text as `dig` prints it.

By UDP an answer has 512 bytes unless the question says more (EDNS). One that does not fit is cut and marked
(*truncated*): who needs the rest asks again by TCP.

Not modelled: classes other than IN, DNSSEC, dots and spaces within labels. Guide section 2.3; RFC 1035, RFC 2308,
RFC 6891.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from ipaddress import ip_address

import msgspec

from k8snetlab.errors import BadOption, Problem

__all__ = [
    "SMALLEST", "Lost", "Message", "Query", "Rcode", "Record", "Reply", "absolute", "address_of", "chain", "fitted",
    "length", "reverse_name", "within",
]  # fmt: skip

SMALLEST = 512
"""Bytes that an answer by UDP may always have."""


class Rcode(StrEnum):
    """What the name server says of the question as a whole."""

    NOERROR = "NOERROR"
    FORMERR = "FORMERR"
    SERVFAIL = "SERVFAIL"
    NXDOMAIN = "NXDOMAIN"
    NOTIMP = "NOTIMP"
    REFUSED = "REFUSED"


class Lost(StrEnum):
    """What a program learns of a question that got no answer: nothing, a port that is closed, or no way there."""

    TIMEOUT = "TIMEOUT"
    CLOSED = "REFUSED"
    UNREACHABLE = "UNREACHABLE"


class Record(msgspec.Struct, frozen=True):
    """One resource record. `ttl` is in seconds; `data` is text as in a zone file."""

    name: str
    type: str
    ttl: int
    data: str

    def __str__(self) -> str:
        return f"{self.name}\t{self.ttl}\tIN\t{self.type}\t{self.data}"

    def as_dict(self) -> dict[str, str | int]:
        """The four facts, for JSON."""
        return {"name": self.name, "type": self.type, "ttl": self.ttl, "data": self.data}


class Message(msgspec.Struct, frozen=True):
    """An answer: its code and its records. `authoritative`: by a server that has the zone itself."""

    rcode: Rcode = Rcode.NOERROR
    answers: tuple[Record, ...] = ()
    authority: tuple[Record, ...] = ()
    additional: tuple[Record, ...] = ()
    authoritative: bool = False
    truncated: bool = False

    @property
    def nodata(self) -> bool:
        """Whether the name exists, but has nothing of the type that was asked for."""
        return self.rcode is Rcode.NOERROR and not self.answers

    @property
    def said(self) -> str:
        """The outcome in one word: a code, or `NODATA`."""
        return "NODATA" if self.nodata else str(self.rcode)


class Query(msgspec.Struct, frozen=True):
    """A question on its way to one name server. `timeout` is how many seconds its sender waits, `attempt` counts from
    1; questions with the same number in `socket` are sent from the same port. `size` is how many bytes an answer by UDP
    may have; `hears` whether the sender is told of a closed port (its socket is connected).
    """

    server: str
    name: str
    type: str
    transport: str = "UDP"
    timeout: float = 5.0
    attempt: int = 1
    socket: int = 0
    size: int = SMALLEST
    hears: bool = True


Reply = Message | Lost
"""What comes of a question."""


# Names


def absolute(name: str, field: str = "name") -> str:
    """A name with its dot at the end. Raises `BadOption` for one that cannot be sent.

    >>> absolute("web.default")
    'web.default.'
    """
    bare = name.removesuffix(".")
    if not bare:
        return "."
    for label in bare.split("."):
        if not label:
            raise BadOption(Problem(f"{name!r} is no name: it has an empty label", field=field))
        if not label.isascii() or not label.isprintable() or " " in label:
            message = f"{name!r} is no name: {label!r} is not ASCII text; names in other scripts are written as xn--…"
            raise BadOption(Problem(message, field=field))
        if len(label) > 63:
            message = f"{_short(name)!r} is no name: the label {_short(label)!r} has {len(label)} characters, 63 may be"
            raise BadOption(Problem(message, field=field))
    if len(bare) > 253:
        raise BadOption(Problem(f"{_short(name)!r} is no name: it has {len(bare)} characters, 253 may be", field=field))
    return f"{bare}."


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:39]}…"


def within(name: str, zone: str) -> bool:
    """Whether a name is in a zone, both absolute and in small letters.

    >>> within("web.default.svc.cluster.local.", "cluster.local."), within("mycluster.local.", "cluster.local.")
    (True, False)
    """
    return zone == "." or name == zone or name.endswith(f".{zone}")


def reverse_name(address: str) -> str:
    """The name under which an address is looked up.

    >>> reverse_name("10.96.0.10")
    '10.0.96.10.in-addr.arpa.'
    """
    return f"{ip_address(address).reverse_pointer}."


def address_of(name: str) -> str:
    """The address that a reverse name means, or nothing.

    >>> address_of("10.0.96.10.in-addr.arpa.")
    '10.96.0.10'
    """
    labels = name.lower().removesuffix(".").split(".")
    digits = labels[-3::-1]
    if labels[-2:] == ["in-addr", "arpa"] and len(digits) == 4:
        return _address(".".join(digits))
    if labels[-2:] == ["ip6", "arpa"] and len(digits) == 32:
        return _address(":".join("".join(digits[at : at + 4]) for at in range(0, 32, 4)))
    return ""


def _address(text: str) -> str:
    try:
        return str(ip_address(text))
    except ValueError:
        return ""


# Sizes

_NAMES_IN_DATA = {"CNAME": 1, "PTR": 1, "NS": 1, "SOA": 2}
"""Records whose data begins with names that may be compressed, and how many."""


def length(name: str, message: Message | None = None, *, compressed: bool = False) -> int:
    """Bytes of a question for `name` on the wire, or of its answer."""
    seen: set[str] | None = set() if compressed else None
    found = 12 + _name(name, seen) + 4
    if message is not None:
        for record in (*message.answers, *message.authority, *message.additional):
            found += _record(record, seen)
    return found


def _record(record: Record, seen: set[str] | None) -> int:
    return _name(record.name, seen) + 10 + _data(record, seen)


def _data(record: Record, seen: set[str] | None) -> int:
    words = record.data.split()
    match record.type:
        case "A":
            return 4
        case "AAAA":
            return 16
        case "SRV":  # its target is never compressed (RFC 2782)
            return 6 + _name(words[-1], None)
        case "MX":
            return 2 + _name(words[-1], seen)
        case "TXT":
            return len(record.data.strip('"')) + 1
        case kind:
            names = _NAMES_IN_DATA.get(kind, 0)
            return sum(_name(word, seen) for word in words[:names]) + (20 if kind == "SOA" else 0)


def _name(name: str, seen: set[str] | None) -> int:
    """Bytes of a name: its labels, up to a tail that stands in the message already and takes two bytes."""
    rest, found = name.lower().rstrip("."), 0
    while rest:
        if seen is not None:
            if rest in seen:
                return found + 2
            seen.add(rest)
        label, _, rest = rest.partition(".")
        found += len(label) + 1
    return found + 1


def fitted(name: str, message: Message, size: int) -> Message:
    """An answer as it is sent where it may have so many bytes: whole, or cut behind a record and marked.

    Names are compressed only where that is needed, as CoreDNS does.
    """
    if length(name, message) <= size:
        return message
    seen: set[str] = set()
    left = size - 12 - _name(name, seen) - 4
    parts: list[tuple[Record, ...]] = []
    for records in (message.answers, message.authority, message.additional):
        kept, left = _kept(records, left, seen)
        parts.append(kept)
    answers, authority, additional = parts
    cut = [*answers, *authority, *additional] != [*message.answers, *message.authority, *message.additional]
    return msgspec.structs.replace(
        message,
        answers=answers,
        authority=authority,
        additional=additional,
        truncated=message.truncated or cut,
    )


def _kept(records: Sequence[Record], left: int, seen: set[str]) -> tuple[tuple[Record, ...], int]:
    kept: list[Record] = []
    for record in records:
        left -= _record(record, seen)
        if left < 0:
            return tuple(kept), -1
        kept.append(record)
    return tuple(kept), left


def chain(name: str, records: Iterable[Record]) -> tuple[Record, ...]:
    """The records that are about a name, and about what it is another name for: what a resolver takes of an answer."""
    meant = name.lower()
    found = []
    for record in records:
        if record.name.lower() == meant:
            found.append(record)
            if record.type == "CNAME":
                meant = record.data.lower()
    return tuple(found)
