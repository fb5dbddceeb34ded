"""What will be created, changed, deleted in the world's DNS?

external-dns compares what the objects of a cluster want (`wanted`) with what a zone has, and makes a plan: record sets
to create, to update, to delete. Nobody else is asked, so a wrong plan deletes somebody's website. Three fences stand
before that:

- **policy**: `sync` does everything, `upsert-only` deletes nothing, `create-only` changes nothing that is there;
- **ownership** (the registry `txt`): beside every record set that it makes it puts a TXT record that names its owner, a
  word of its own choice (`owner`), and the object. It is called after the name with the record's type in front:
  `a-shop.example.org` (and a `prefix` or `suffix` around it, in which `%{record_type}` can stand). What has no such
  record with the own word is left alone: it was made by a person, or belongs to another cluster;
- **domains**: names outside of `domains`, or inside of `excluded`, are nobody's business here; nor are record types
  other than those `managed`, nor names outside of the zone.

Where several objects want a name: of Ingresses and routes the one keeps it that has it; of new ones the one whose
targets come first in the order of letters gets it. Where A or AAAA are wanted beside a CNAME, the CNAME is dropped.

    plan = planned(zone, wanted(…), Owning(owner="shop"))
    print(plan)                     # the difference of the zone, then what is left alone and why
    plan.after                      # the zone as it will be

A `Provider` carries plans out: `Memory` holds a zone; `live` has one that speaks to real name servers. Planning again
what was carried out gives an empty plan.

Not modelled: providers of clouds and what is special about them, encrypted ownership, the registries DynamoDB and AWS
Cloud Map, the format of TXT records before 0.12. Guide section 5.5; external-dns 0.22, RFC 2136.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from functools import cached_property
from typing import Protocol

import msgspec

from k8snetlab.dns.messages import absolute, within
from k8snetlab.dns.wanted import ALPHA, PREFIX, LeftOut, Reading, Wanted, Wish
from k8snetlab.dns.zone import TTL, Difference, RecordSet, Zone
from k8snetlab.errors import BadOption, Problem

__all__ = [
    "ALPHA", "PREFIX", "Action", "Change", "Memory", "Owned", "Owning", "Plan", "Policy", "Provider", "Reading",
    "RecordSet", "Registry", "Zone", "planned", "said",
]  # fmt: skip

HERITAGE = "heritage=external-dns"
TYPE = "%{record_type}"
KNOWN = ("A", "AAAA", "CNAME", "NS", "MX", "SRV", "NAPTR")


class Policy(StrEnum):
    """How much may be done."""

    SYNC = "sync"
    UPSERT_ONLY = "upsert-only"
    CREATE_ONLY = "create-only"


class Registry(StrEnum):
    """How it is known what is one's own: TXT records; or not at all, and everything is."""

    TXT = "txt"
    NOOP = "noop"


class Action(StrEnum):
    """What is done to a record set."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


class Owning(msgspec.Struct, frozen=True):
    """Whose names are looked after, and how far: the options of external-dns, called as there without dashes.

    Raises `BadOption` for an empty `owner`, and for a `prefix` and a `suffix` at once.
    """

    owner: str = "default"
    policy: Policy = Policy.SYNC
    registry: Registry = Registry.TXT
    prefix: str = ""
    suffix: str = ""
    wildcard: str = ""
    domains: tuple[str, ...] = ()
    excluded: tuple[str, ...] = ()
    managed: tuple[str, ...] = ("A", "AAAA", "CNAME")

    def __post_init__(self) -> None:
        if self.registry is Registry.TXT and not self.owner:
            raise BadOption(Problem("the registry txt needs a word for the owner", field="owner"))
        if self.registry is Registry.TXT and not all(each.isalnum() or each in "-_." for each in self.owner):
            message = f"{self.owner!r} cannot be told in a TXT record: letters, digits, - _ and ."
            raise BadOption(Problem(message, field="owner"))
        if self.prefix and self.suffix:
            raise BadOption(Problem("a prefix or a suffix, not both", field="suffix"))

    def looks_after(self, name: str) -> bool:
        """Whether a name is in the domains."""
        wide = not self.domains or any(within(name, absolute(each).lower()) for each in self.domains)
        return wide and not any(within(name, absolute(each).lower()) for each in self.excluded)

    # The names of TXT records

    def text_name(self, name: str, kind: str) -> str:
        """The name of the TXT record that says whose a record set is.

        >>> Owning().text_name("shop.example.org.", "A")
        'a-shop.example.org.'
        """
        first, dot, rest = name.partition(".")
        if first == "*" and self.wildcard:
            first = self.wildcard
        if TYPE not in self.prefix + self.suffix:
            first = f"{kind.lower()}-{first}"
        prefix, suffix = (each.replace(TYPE, kind.lower()).lower() for each in (self.prefix, self.suffix))
        return f"{prefix}{first}{suffix}{dot}{rest}"

    def text(self, resource: str) -> str:
        """What it says."""
        return f'"{HERITAGE},external-dns/owner={self.owner},external-dns/resource={resource}"'


class Owned(msgspec.Struct, frozen=True):
    """What a TXT record says of a record set: who owns it, and for which object."""

    owner: str = ""
    resource: str = ""


def said(text: str) -> Owned | None:
    """What the data of a TXT record says about ownership; nothing if it is about something else.

    >>> said('"heritage=external-dns,external-dns/owner=shop,external-dns/resource=service/shop/web"').owner
    'shop'
    """
    first, *rest = text.strip('"').split(",")
    if first != HERITAGE:
        return None
    facts = dict(each.partition("=")[::2] for each in rest)
    return Owned(facts.get("external-dns/owner", ""), facts.get("external-dns/resource", ""))


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """One record set that is created (no `before`), updated or deleted (no `after`), for which object."""

    action: Action
    before: RecordSet | None = None
    after: RecordSet | None = None
    resource: str = ""

    @property
    def records(self) -> RecordSet:
        """The record set as it will be, or was."""
        found = self.after or self.before
        assert found is not None
        return found

    def __str__(self) -> str:
        old = " ".join(self.before.data) if self.before else ""
        new = " ".join(self.after.data) if self.after else ""
        data = f"{old} → {new}" if old and new and old != new else new or old
        return f"{self.action:<6} {self.records.name} {self.records.type} {data}"

    def as_dict(self) -> dict[str, object]:
        """The four facts, for JSON."""
        return {
            "action": str(self.action),
            "before": self.before.as_dict() if self.before else None,
            "after": self.after.as_dict() if self.after else None,
            "resource": self.resource,
        }


class Plan(msgspec.Struct, frozen=True, dict=True):
    """What is to be done in a zone: `changes` of record sets, and of the TXT records that say whose they are; what is
    left alone, and why; and for whom (`owning`).
    """

    zone: Zone
    changes: tuple[Change, ...] = ()
    texts: tuple[Change, ...] = ()
    left: tuple[LeftOut, ...] = ()
    owning: Owning = Owning()

    @cached_property
    def after(self) -> Zone:
        """The zone when all is done."""
        every = (*self.changes, *self.texts)
        return self.zone.changed(
            (each.before for each in every if each.before), (each.after for each in every if each.after)
        )

    @cached_property
    def diff(self) -> Difference:
        """The lines of the zone that go and come."""
        return self.zone.diff(self.after)

    def of(self, action: Action) -> tuple[Change, ...]:
        """The changes of one kind."""
        return tuple(each for each in self.changes if each.action is action)

    def owned(self, records: RecordSet) -> Owned:
        """Whose a record set is, when all is done or (of one that goes) before: owner and object, empty if no TXT
        record says it.
        """
        zone = self.after if (records.name, records.type) in self.after.by_key else self.zone
        return _Owners(zone, self.owning).of(records)

    def __bool__(self) -> bool:
        """Whether anything is to be done."""
        return bool(self.changes or self.texts)

    def __str__(self) -> str:
        counts = ", ".join(f"{len(self.of(action))} to {action}" for action in Action)
        alone = ["", "left alone:", *(f"  {each}" for each in self.left)] if self.left else []
        return "\n".join([str(self.diff), "", counts, *alone])

    def __repr__(self) -> str:
        return str(self)

    def as_dict(self) -> dict[str, object]:
        """The plan, for JSON."""
        return {
            "zone": self.zone.origin,
            "changes": [each.as_dict() for each in self.changes],
            "ownership": [each.as_dict() for each in self.texts],
            "left": [{"resource": each.resource, "name": each.name, "why": each.why} for each in self.left],
            "diff": list(self.diff.lines),
        }


class Provider(Protocol):
    """Who has the zone: gives it, and carries plans out."""

    def zone(self) -> Zone:
        """The zone as it is."""
        ...

    def apply(self, plan: Plan) -> None:
        """Do what a plan says. Raises `CannotDo` where the other side refuses; nothing is then done."""
        ...


class Memory:
    """A provider that is nothing but a zone."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone

    def zone(self) -> Zone:
        """The zone as it is."""
        return self._zone

    def apply(self, plan: Plan) -> None:
        """Take the plan's zone for one's own."""
        self._zone = plan.after


# Planning


def planned(zone: Zone, wanted: Wanted, owning: Owning) -> Plan:
    """What is to be done in a zone so that it has what is wanted, as far as its owner may. Raises `BadOption` where the
    outcome could not be a zone.
    """
    left = list(wanted.left)
    wishes: dict[str, list[Wish]] = {}
    for wish in wanted.wishes:
        why = _refused(wish, zone, owning)
        if why:
            left.append(LeftOut(wish.resource, why, f"{wish.name} {wish.type}"))
        else:
            wishes.setdefault(wish.name, []).append(wish)
    held: dict[str, list[RecordSet]] = {}
    for each in zone.sets:
        if each.type in owning.managed and owning.looks_after(each.name):
            held.setdefault(each.name, []).append(each)
    owners = _Owners(zone, owning)
    changes = [
        change
        for name in sorted({*wishes, *held})
        for change in _at(name, held.get(name, ()), _settled(wishes.get(name, ()), left), owners, left)
    ]
    changes = [each for each in changes if _allowed(each, owning.policy, left)]
    changes = list(_possible(zone, changes, left))
    texts = [text for change in changes for text in owners.texts(change)]
    return Plan(zone, tuple(changes), tuple(texts), tuple(sorted(set(left))), owning)


def _refused(wish: Wish, zone: Zone, owning: Owning) -> str:
    if not zone.holds(wish.name):
        return f"it is not in the zone {zone.origin}"
    if not owning.looks_after(wish.name):
        return "it is not in the domains looked after"
    if wish.type not in owning.managed:
        return f"records of type {wish.type} are not managed"
    if wish.type == "CNAME" and wish.name == zone.origin:
        return "the zone's own name cannot be a CNAME: it has SOA and NS records"
    return ""


def _settled(wishes: Iterable[Wish], left: list[LeftOut]) -> list[Wish]:
    """The wishes for one name, less CNAMEs where others want addresses."""
    wishes = list(wishes)
    if {wish.type for wish in wishes} <= {"CNAME"}:
        return wishes
    for wish in wishes:
        if wish.type == "CNAME":
            why = "addresses are wanted for the same name, and a CNAME stands alone"
            left.append(LeftOut(wish.resource, why, f"{wish.name} CNAME"))
    return [wish for wish in wishes if wish.type != "CNAME"]


class _Owners:
    """Who owns which record set of a zone."""

    def __init__(self, zone: Zone, owning: Owning) -> None:
        self.zone = zone
        self.owning = owning

    def of(self, held: RecordSet) -> Owned:
        """Who owns it; without a registry everything is one's own."""
        if self.owning.registry is Registry.NOOP:
            return Owned(self.owning.owner)
        text = self.zone.by_key.get((self.owning.text_name(held.name, held.type), "TXT"))
        return (said(text.data[0]) if text is not None else None) or Owned()

    def is_own(self, held: RecordSet) -> bool:
        """Whether it may be changed."""
        return self.of(held).owner == self.owning.owner

    def texts(self, change: Change) -> Iterator[Change]:
        """What a change does to the TXT record beside its record set."""
        if self.owning.registry is Registry.NOOP:
            return
        name = self.owning.text_name(change.records.name, change.records.type)
        before = self.zone.by_key.get((name, "TXT"))
        if change.action is Action.DELETE:
            if before is not None:
                yield Change(Action.DELETE, before, resource=change.resource)
        elif before is None or change.action is Action.UPDATE:
            ttl = before.ttl if before is not None else TTL
            after = RecordSet(name, "TXT", ttl, (self.owning.text(change.resource),))
            if before != after:
                yield Change(Action.UPDATE if before else Action.CREATE, before, after, change.resource)


def _at(
    name: str, held: Iterable[RecordSet], wishes: list[Wish], owners: _Owners, left: list[LeftOut]
) -> Iterator[Change]:
    """What is to be done at one name."""
    held = list(held)
    types = {each.type for each in held} | {each.type for each in wishes}
    by_type: Mapping[str, list[Wish]] = {kind: [] for kind in sorted(types)}
    for wish in wishes:
        by_type[wish.type].append(wish)
    old = {each.type: each for each in held}
    foreign = [each for each in held if not owners.is_own(each)]
    for kind, asked in by_type.items():
        before = old.get(kind)
        if before is None and foreign:  # a name with somebody else's records gets none of ours
            left.append(LeftOut(asked[0].resource, _belongs(owners.of(foreign[0])), f"{name} {kind}"))
        elif before is None:
            chosen = _first(asked, left)
            yield Change(Action.CREATE, None, _records(chosen, TTL), chosen.resource)
        elif before in foreign:
            why = _belongs(owners.of(before))
            left += (LeftOut(wish.resource, why, f"{name} {kind}") for wish in asked if not _same(wish, before))
        elif not asked:
            yield Change(Action.DELETE, before, resource=owners.of(before).resource)
        else:
            chosen = _kept(asked, owners.of(before).resource, left)
            if not _same(chosen, before):
                yield Change(Action.UPDATE, before, _records(chosen, before.ttl), chosen.resource)


def _belongs(owner: Owned) -> str:
    if not owner.owner:
        return "the name has records that no TXT record says to be ours"
    return f"the name belongs to the owner {owner.owner!r}" + (f", for {owner.resource}" if owner.resource else "")


def _first(wishes: list[Wish], left: list[LeftOut]) -> Wish:
    """The one of several wishes for one name and type that gets it."""
    chosen = min(wishes, key=lambda wish: (wish.targets, wish.resource))
    _beaten(chosen, wishes, left)
    return chosen


def _kept(wishes: list[Wish], resource: str, left: list[LeftOut]) -> Wish:
    """The same where one of them has it already."""
    chosen = next((wish for wish in wishes if wish.resource == resource), None)
    if chosen is None:
        return _first(wishes, left)
    _beaten(chosen, wishes, left)
    return chosen


def _beaten(chosen: Wish, wishes: Iterable[Wish], left: list[LeftOut]) -> None:
    why = f"{chosen.resource} has the name"
    left += (
        LeftOut(wish.resource, why, f"{wish.name} {wish.type}") for wish in wishes if wish.targets != chosen.targets
    )


def _records(wish: Wish, ttl: int) -> RecordSet:
    return RecordSet(wish.name, wish.type, wish.ttl or ttl, tuple(sorted(wish.targets)))


def _same(wish: Wish, held: RecordSet) -> bool:
    """Whether nothing need be done; a wish that says no time to live is content with any."""
    lower = {each.lower() for each in held.data}
    return {each.lower() for each in wish.targets} == lower and wish.ttl in (0, held.ttl)


def _allowed(change: Change, policy: Policy, left: list[LeftOut]) -> bool:
    """Whether the policy lets a change be."""
    forbidden: tuple[Action, ...] = {
        Policy.SYNC: (),
        Policy.UPSERT_ONLY: (Action.DELETE,),
        Policy.CREATE_ONLY: (Action.DELETE, Action.UPDATE),
    }[policy]
    if change.action not in forbidden:
        return True
    name = f"{change.records.name} {change.records.type}"
    left.append(LeftOut(change.resource, f"policy {policy} does not {change.action}", name))
    return False


def _possible(zone: Zone, changes: Iterable[Change], left: list[LeftOut]) -> Iterator[Change]:
    """The changes after which no name has a CNAME and something else: what stays decides."""
    changes = list(changes)
    gone = {(each.before.name, each.before.type) for each in changes if each.action is Action.DELETE and each.before}
    stays: dict[str, set[str]] = {}
    for each in zone.sets:
        if (each.name, each.type) not in gone:
            stays.setdefault(each.name, set()).add(each.type)
    for change in changes:
        types = stays.get(change.records.name, set()) - {change.records.type}
        if change.action is Action.CREATE and types and "CNAME" in types | {change.records.type}:
            why = f"the name keeps {' and '.join(sorted(types))}, and a CNAME stands alone"
            left.append(LeftOut(change.resource, why, f"{change.records.name} {change.records.type}"))
        else:
            yield change
