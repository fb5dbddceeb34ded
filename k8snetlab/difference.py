"""What changed between two networks?

Two clusters are two values, and so are their machines: compare the entries of each kind, machine by machine, in the
words of the real tools. A route is the same route while it has the same table, prefix and metric, and so on; what else
differs of it has changed.

Another CNI changes thousands of entries. A long difference is told in short: machines that changed alike, as pods do,
stand together, and of many entries of a kind the first are shown. `full()` has all of them.

Not modelled: the order of netfilter rules, and how often the same rule stands in a chain (a moved rule is no
difference). Guide sections 2.1 and 3.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import groupby, takewhile
from typing import Any

import msgspec

from k8snetlab.linux.datapath import Permit
from k8snetlab.linux.host import Host, Network
from k8snetlab.linux.ipvs import Destination
from k8snetlab.linux.netfilter import Tables
from k8snetlab.linux.nftables import Held, Table
from k8snetlab.linux.route import Route
from k8snetlab.linux.text import bridge_fdb, entry_line, ip_neigh

__all__ = ["Change", "Difference", "How", "difference"]


FEW = 40
"""So many changes are told one by one."""

SHOWN, NAMED = 6, 3
"""Of more, so many of a kind are shown, and so many machines of those that changed alike are named."""


class How(StrEnum):
    """What happened to an entry."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"


class Change(msgspec.Struct, frozen=True, order=True):
    """One entry that is not the same: on which host, of which kind, and its text (`before` → `after` where it
    changed).
    """

    host: str
    kind: str
    how: How
    text: str
    before: str = ""

    def __str__(self) -> str:
        sign = {How.ADDED: "+", How.REMOVED: "-", How.CHANGED: "~"}[self.how]
        was = f"  (was {_other_words(self.before, self.text)})" if self.how is How.CHANGED else ""
        return f"{sign} {self.kind}: {self.text}{was}"


def _other_words(before: str, after: str) -> str:
    """The words of `before` without those at the start and the end that `after` has too."""
    old, new = before.split(), after.split()
    start = _alike(old, new)
    end = _alike(old[start:][::-1], new[start:][::-1])
    return " ".join(old[start : len(old) - end]) or "without it"


def _alike(one: Sequence[str], other: Sequence[str]) -> int:
    """How many words at the start are the same."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


class Difference(msgspec.Struct, frozen=True):
    """Every change, by host and kind. True where there is any."""

    changes: tuple[Change, ...]

    @property
    def added(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.how is How.ADDED)

    @property
    def removed(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.how is How.REMOVED)

    @property
    def changed(self) -> tuple[Change, ...]:
        return tuple(change for change in self.changes if change.how is How.CHANGED)

    def on(self, host: str) -> tuple[Change, ...]:
        """The changes on one host."""
        return tuple(change for change in self.changes if change.host == host)

    def summary(self) -> str:
        """How many entries of each kind came, went and changed; hosts that changed alike share a line."""
        lines = (f"{_together(hosts)}: {counts}" for counts, hosts in self._alike().items())
        return "\n".join(lines) or "no difference"

    def _alike(self) -> dict[str, list[str]]:
        """The hosts by what is said of them in numbers."""
        found: dict[str, list[str]] = {}
        for host, changes in self._by_host().items():
            kinds: dict[str, list[Change]] = {}
            for change in changes:
                kinds.setdefault(change.kind, []).append(change)
            found.setdefault(", ".join(f"{kind} {_counts(held)}" for kind, held in kinds.items()), []).append(host)
        return found

    def _by_host(self) -> dict[str, list[Change]]:
        found: dict[str, list[Change]] = {}
        for change in self.changes:
            found.setdefault(change.host, []).append(change)
        return found

    def __bool__(self) -> bool:
        return bool(self.changes)

    def full(self) -> str:
        """Every change, machine by machine."""
        told = (f"{host}:\n{_lines_of(changes)}" for host, changes in self._by_host().items())
        return "\n".join(told) or "no difference"

    def table(self, more: str = "`.full()`") -> str:
        """The changes, machine by machine. Of a long difference the first entries of each kind, and of machines that
        changed alike the first; `more` names what prints the others.
        """
        if len(self.changes) <= FEW:
            return self.full()
        by_host = self._by_host()
        told = [f"{_together(hosts)}:\n{_brief(by_host[hosts[0]])}" for hosts in self._alike().values()]
        short = any(len(hosts) > 1 for hosts in self._alike().values()) or any("  … " in each for each in told)
        end = f"(told in short; {more} prints all {len(self.changes):,} changes)"
        return "\n".join([*told, end] if short else told)

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        return f"<Difference +{len(self.added)} -{len(self.removed)} ~{len(self.changed)}>"

    def as_dict(self) -> dict[str, Any]:
        """The JSON of `k8snetlab diff`."""
        rows = [
            {"host": c.host, "kind": c.kind, "how": str(c.how), "text": c.text, "before": c.before or None}
            for c in self.changes
        ]
        return {"schema": "k8snetlab/v1", "kind": "Diff", "different": bool(self.changes), "changes": rows}


def _together(hosts: Sequence[str]) -> str:
    """Machines that changed alike, by the names of the first."""
    named = ", ".join(hosts[:NAMED])
    return named if len(hosts) <= NAMED else f"{named} and {len(hosts) - NAMED} more"


def _lines_of(changes: Iterable[Change]) -> str:
    return "\n".join(f"  {change}" for change in changes)


def _brief(changes: Sequence[Change]) -> str:
    """The first changes of each kind."""
    told = []
    for kind, group in groupby(changes, key=lambda change: change.kind):
        held = list(group)
        left = held[SHOWN:] if len(held) > SHOWN + 1 else []
        told.append(_lines_of(held[: len(held) - len(left)]))
        if left:
            told.append(f"  … and {len(left):,} more of {kind}: {_counts(left)}")
    return "\n".join(told)


def _counts(changes: Sequence[Change]) -> str:
    """How many came, went and changed: `+3-1`."""
    numbers = (sum(1 for change in changes if change.how is how) for how in How)
    return "".join(f"{sign}{number}" for sign, number in zip("+-~", numbers, strict=True) if number)


def difference(before: Network, after: Network) -> Difference:
    """What `after` has that `before` has not, and the other way round. Builds every host of both."""
    changes: list[Change] = []
    for name in sorted({*before, *after}):
        if name not in after:
            changes.append(Change(name, "host", How.REMOVED, before[name].kind))
        elif name not in before:
            changes.append(Change(name, "host", How.ADDED, after[name].kind))
        else:
            changes.extend(_of_host(before[name], after[name]))
    return Difference(tuple(changes))


def _of_host(before: Host, after: Host) -> Iterable[Change]:
    mine, theirs = _entries(before), _entries(after)
    for kind in mine:
        old, new = mine[kind], theirs[kind]
        for key in sorted({*old, *new}):
            if key not in new:
                yield Change(after.name, kind, How.REMOVED, old[key])
            elif key not in old:
                yield Change(after.name, kind, How.ADDED, new[key])
            elif old[key] != new[key]:
                yield Change(after.name, kind, How.CHANGED, new[key], old[key])


def _entries(host: Host) -> Mapping[str, Mapping[str, str]]:
    """Every entry of a host by kind and by what makes it the same entry, as text."""
    return {
        "link": {link.name: entry_line(link) for link in host.links},
        "address": {f"{a} dev {link.name}": f"{a} dev {link.name}" for link in host.links for a in link.addresses},
        "route": {_route_key(route): entry_line(route) for route in host.routes},
        "rule": {f"{rule.family} {entry_line(rule)}": entry_line(rule) for rule in host.rules},
        "neighbour": _lines(ip_neigh(host)),
        "fdb": _lines(bridge_fdb(host)),
        "listener": {line: line for line in map(entry_line, host.listeners)},
        "responder": {line: line for line in map(entry_line, host.responders)},
        "sysctl": {key: f"{key} = {value}" for key, value in host.sysctls.items()},
        "iptables": _rules(host.netfilter.ipv4),
        "ip6tables": _rules(host.netfilter.ipv6),
        "nft": _nft(host.nftables),
        "bpf": _frontends(host),
        "ipset": {line: line for held in host.ipsets for line in held.lines},
        "ipvs": dict(_virtual_servers(host)),
        "wg": {peer.text: peer.text for peer in host.wireguard},
        "xfrm": {line: line for line in map(entry_line, host.xfrm.entries)} if host.xfrm is not None else {},
    }


def _frontends(host: Host) -> dict[str, str]:
    """Programs by where they are attached, slots of the load-balancing map by address, port and slot, entries of the
    other maps by their key. The first map is that of the whole machine, and told of it alone, not once more of each of
    its containers.
    """
    found: dict[str, str] = {}
    if host.ebpf is not None:
        found.update({each.text: each.text for each in host.ebpf.attached})
        for frontend in host.ebpf.services.values() if host.name == host.ebpf.machine else ():
            found.update({slot.service: slot.text for slot in frontend.entries})
    if host.datapath is not None:
        found.update({each.text: each.text for each in host.datapath.attached})
        for entry in host.datapath.entries:
            key = entry.text if isinstance(entry, Permit) else entry.text.split(" ")[0]
            found[f"{entry.chain} {key}"] = entry_line(entry)
    return found


def _route_key(route: Route) -> str:
    own = route.device if route.protocol == "kernel" else ""  # an address may stand on several devices
    return f"{route.family} {route.table} {route.prefix} {route.metric} {own}"


def _virtual_servers(host: Host) -> Iterator[tuple[str, str]]:
    """The virtual servers by address and port, and the real servers behind each."""
    for virtual in host.ipvs:
        yield virtual.selector, virtual.text
        for server in virtual.servers:
            yield f"{virtual.selector} {server}", Destination(virtual, server).text


def _lines(text: str) -> dict[str, str]:
    return {line: line for line in text.splitlines()}


def _rules(tables: Tables) -> dict[str, str]:
    """Rules by their text, and the policies of base chains."""
    found = {f"{table.name} :{chain.name}": f"{table.name}: :{chain.name} {chain.policy}"
             for table in tables.values() for chain in table.chains.values() if chain.policy}  # fmt: skip
    for table in tables.values():
        found.update({f"{rule.table} {rule.text}": f"{rule.table}: {rule.text}" for rule in table.rules})
    return found


def _nft(tables: Iterable[Table]) -> dict[str, str]:
    """Base chains by their name, elements by their set and key, rules by their text."""
    found: dict[str, str] = {}
    for table in tables:
        for base in table.entrances:
            found[f"{table.name} chain {base.chain.name}"] = f"{table.name} {base.chain.name}: {base.base.text}"
        for held in table.sets.values():
            for element in held.ordered:
                found[f"{table.name} set {held.name} {element.key}"] = entry_line(Held(table.name, held.name, element))
        found.update({f"{table.name} rule {line}": line for line in map(entry_line, table.rules)})
    return found
