"""Is it one of these, and what shall become of it then?

A set answers the first question in one lookup, a map both. What a map leads to is a *verdict* — what the rule does to
the chain that runs — or an address and a port. Whole keys are looked up in a dictionary, blocks of addresses or ports
by bisection; only blocks of several fields at once are gone through one by one. A dynamic set is filled by packets.

Not modelled: `gc-interval`, `typeof`, maps of marks, objects in maps. Guide section 2.2; `nft(8)` (sets, maps).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple, Protocol, TypeAlias

import msgspec

from k8snetlab.address import Prefix
from k8snetlab.linux import netfilter
from k8snetlab.linux.nftables.fields import Atom, Key, Span, Surroundings, bounds, joined, number_of, place, takes
from k8snetlab.linux.skb import Skb

__all__ = [
    "ACCEPT", "CONTINUE", "DROP", "FAILED", "RETURN", "Among", "Data", "Element", "Elements", "End", "Failed", "Holder",
    "Named", "Outcome", "Said", "Set", "Statement", "Verdict", "VerdictKind", "goto", "jump", "ordered",
]  # fmt: skip


class Holder(Protocol):
    """A table, as far as its rules ask it."""

    @property
    def name(self) -> str:
        """Family and name."""
        ...

    def set(self, name: str) -> Set:
        """The set or map of that name."""
        ...


# Verdicts


class VerdictKind(StrEnum):
    """What a verdict does to the chain that runs."""

    ACCEPT = "accept"
    DROP = "drop"
    CONTINUE = "continue"
    RETURN = "return"
    JUMP = "jump"
    GOTO = "goto"


class Verdict(msgspec.Struct, frozen=True, gc=False):
    """`accept`, `drop`, `continue`, `return`, `jump CHAIN` or `goto CHAIN`."""

    kind: VerdictKind
    chain: str = ""

    def run(self, skb: Skb, at: Surroundings, table: Holder) -> Said:
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


class Failed:
    """The statement does not hold: the rule is over, and the next one is asked."""

    __slots__ = ()


FAILED = Failed()

Outcome: TypeAlias = Said | Failed | None
"""What comes of one statement; `None`: it holds, and there is nothing to say."""


class Statement(Protocol):
    """One statement of a rule. `str()` prints it as nft does."""

    def run(self, skb: Skb, at: Surroundings, table: Holder) -> Outcome: ...


# Sets and maps

Data: TypeAlias = Verdict | tuple[Atom, ...]
"""What a map leads to."""


class Element(msgspec.Struct, frozen=True, gc=False):
    """One element of a set, or of a map if it has `data`. A key without parts is the catch-all `*`."""

    key: tuple[Atom, ...]
    data: Data | None = None
    comment: str = ""

    def written(self, types: Sequence[str], data: Sequence[str] = ()) -> str:
        """The element as nft prints it among fields of these types."""
        comment = f' comment "{self.comment}"' if self.comment else ""
        key = joined(self.key, types) if self.key else "*"
        if self.data is None:
            return f"{key}{comment}"
        value = str(self.data) if isinstance(self.data, Verdict) else joined(self.data, data)
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
                blocks.append((*bounds(element.key[0]), element))
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
            value = number_of(key[0])
            at = bisect_right(self.firsts, value) - 1
            if at >= 0 and value <= self.spans[at][1]:
                return self.spans[at][2]
        for element in self.rest:
            if all(map(takes, element.key, key)):
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
        return ordered(self.elements, self.types)

    def without(self, element: Element) -> Set:
        """The set with one element less."""
        return msgspec.structs.replace(self, elements=tuple(each for each in self.elements if each != element))


def ordered(elements: Iterable[Element], types: Sequence[str]) -> tuple[Element, ...]:
    """Elements in the order in which nft lists them, the catch-all last."""
    return tuple(sorted(elements, key=lambda each: (not each.key, place(each.key, types) if each.key else ())))


class Named(msgspec.Struct, frozen=True):
    """`@NAME`: a set or map of the table."""

    name: str

    def find(self, key: Key, at: Surroundings, table: Holder) -> Element | None:
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

    def find(self, key: Key, at: Surroundings, table: Holder) -> Element | None:
        """The element for a key."""
        return self._index.find(key)

    def written(self, types: Sequence[str], data: Sequence[str] = ()) -> str:
        return f"{{ {', '.join(each.written(types, data) for each in ordered(self.elements, types))} }}"


Elements: TypeAlias = Named | Among
"""Where a key is looked up."""
