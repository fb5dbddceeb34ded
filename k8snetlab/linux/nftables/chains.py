"""Where do rules stand, and in which order are they run?

A rule stands in a chain, a chain in a table; a base chain says at which hook packets enter it, and when. From there
rules jump about in their table, by verdicts and verdict maps, until one decides or the policy does.

Guide section 2.2; `nft(8)` (tables, chains, rules).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import msgspec

from k8snetlab.errors import LabError, Problem, UnknownName
from k8snetlab.linux.netfilter import Chains
from k8snetlab.linux.nftables.fields import CT_FIELDS, Surroundings
from k8snetlab.linux.nftables.sets import Element, End, Failed, Said, Set, Statement, Verdict, VerdictKind
from k8snetlab.linux.nftables.statements import (
    Dnat,
    Found,
    Masked,
    Masquerade,
    Match,
    Redirect,
    SetMark,
    Snat,
    Update,
    VerdictMap,
)  # fmt: skip
from k8snetlab.linux.skb import Skb

__all__ = ["FAMILIES", "Base", "Chain", "Entrance", "Held", "Ran", "Rule", "Table", "traverse"]


class Rule(msgspec.Struct, frozen=True, gc=False):
    """One rule: statements from left to right. `table` is family and name, as nft writes it: `ip kube-proxy`. `about`
    is what the rule stands for where its text does not say it: traces tell it, nft does not.

    >>> from k8snetlab.address import Prefix
    >>> from k8snetlab.linux.nftables import ACCEPT, Field, Match, Rule
    >>> str(Rule("ip t", "c", (Match((Field.IP_SADDR,), Prefix.of("10.244.0.0/16")), ACCEPT), "pods"))
    'ip saddr 10.244.0.0/16 accept comment "pods"'
    """

    table: str
    chain: str
    statements: tuple[Statement, ...]
    comment: str = ""
    about: str = ""

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
            if isinstance(outcome, Failed):
                return None
            words.append(outcome.words)
            end = outcome.end
            if end is not None:
                break
        said = ", ".join(words) or "noted"
        if self.about:
            said += f" ({self.about})"
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
    return any(rule.looks_at_connections for rule in chain.rules)


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
