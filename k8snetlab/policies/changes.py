"""What does another set of policies change?

Two matrices of the same pods are laid on each other. Where they differ, pods that lost or won the same are told
together: these sources may no longer connect to those destinations. Each such change comes with a flow that shows it,
and with what the engine says of that flow before and after.

The pods are compared by name; those that one side does not have are named and not compared. Guide section 4.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from k8snetlab.errors import BadOption, Problem
from k8snetlab.policies.classes import Bools, Indexes, distinct
from k8snetlab.policies.engine import PolicyVerdict
from k8snetlab.policies.matrix import Port, Reach

__all__ = ["ReachChange", "ReachDifference", "difference"]


class ReachChange(msgspec.Struct, frozen=True):
    """Connections that are allowed or forbidden now: from each of the sources to each of the destinations, `pairs` in
    number (a pod and itself never changes, nor does a node and its own pods).

    `before` and `after` are the verdicts on one of them.
    """

    port: Port
    allowed: bool
    sources: tuple[str, ...]
    destinations: tuple[str, ...]
    pairs: int
    before: PolicyVerdict
    after: PolicyVerdict

    @property
    def flow(self) -> tuple[str, str]:
        """The pair that shows it: source and destination."""
        return self.before.flow.called

    def __str__(self) -> str:
        word = "now allowed" if self.allowed else "now denied"
        source, destination = self.flow
        pairs = f"{self.pairs:,} pair{'' if self.pairs == 1 else 's'}"
        head = f"{self.port} {_some(self.sources)} -> {_some(self.destinations)}: {word} ({pairs})"
        return (
            f"{head}\n  for example {source} -> {destination}"
            f"\n    before: {self.before.reason}\n    after:  {self.after.reason}"
        )

    def as_dict(self) -> dict[str, Any]:
        """The change as plain data."""
        return {
            "port": str(self.port), "allowed": self.allowed, "pairs": self.pairs, "sources": list(self.sources),
            "destinations": list(self.destinations), "before": self.before.as_dict(), "after": self.after.as_dict(),
        }  # fmt: skip


class ReachDifference(msgspec.Struct, frozen=True, dict=True):
    """What changed between two matrices: `changes`, and the pods that only the second (`added`) or the first
    (`removed`) has. True if there is any of them.
    """

    changes: tuple[ReachChange, ...]
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.changes or self.added or self.removed)

    @cached_property
    def allowed(self) -> tuple[ReachChange, ...]:
        """What is allowed that was not."""
        return tuple(each for each in self.changes if each.allowed)

    @cached_property
    def denied(self) -> tuple[ReachChange, ...]:
        """What is no longer allowed."""
        return tuple(each for each in self.changes if not each.allowed)

    def as_dict(self) -> dict[str, Any]:
        """The difference as plain data."""
        return {
            "changes": [each.as_dict() for each in self.changes], "added": list(self.added),
            "removed": list(self.removed),
        }  # fmt: skip

    def __str__(self) -> str:
        lines = [str(each) for each in self.changes]
        lines += [f"only after: {_some(self.added)}"] if self.added else []
        lines += [f"only before: {_some(self.removed)}"] if self.removed else []
        return "\n".join(lines) or "no difference"

    def __repr__(self) -> str:
        return str(self)


def _some(pods: Sequence[str]) -> str:
    return pods[0] + (f" and {len(pods) - 1:,} more" if len(pods) > 1 else "")


def difference(before: Reach, after: Reach) -> ReachDifference:
    """What `after` allows that `before` does not, and the other way round, at the ports that both were asked about.
    Raises `BadOption` where there is none, and where one was asked about another family.
    """
    if before.of != after.of:
        raise BadOption(Problem("the two were asked about different families", field="family"))
    ports = [port for port in before.ports if port in after.ports]
    if not ports:
        raise BadOption(Problem("the two were asked about other ports, so there is nothing to compare", field="port"))
    places = {name: index for index, name in enumerate(after.pods)}
    shared = [index for index, name in enumerate(before.pods) if name in places]
    both = _Both(
        before, after, np.array(shared, np.intp), np.array([places[before.pods[at]] for at in shared], np.intp)
    )
    there = set(before.pods)
    return ReachDifference(
        tuple(change for port in ports for change in both.changes(port)),
        tuple(name for name in after.pods if name not in there),
        tuple(name for name in before.pods if name not in places),
    )


class _Both:
    """The pods that both have, by their classes before and after: those that are alike in both are one part."""

    def __init__(self, before: Reach, after: Reach, here: Indexes, there: Indexes) -> None:
        self._before = before
        self._after = after
        classes = before.grouped.of_pod[here], after.grouped.of_pod[there]
        pairs = np.stack(classes, axis=1).astype(np.int64).view(np.uint8).reshape(len(here), 16)
        part, first = distinct(pairs)
        self._classes = classes[0][first], classes[1][first]
        self._pods: list[list[str]] = [[] for _ in first]
        for index, at in zip(here.tolist(), part.tolist(), strict=True):
            self._pods[at].append(before.pods[index])
        self._known = {before.pods[index] for index in here.tolist()}

    def changes(self, port: Port) -> Iterator[ReachChange]:
        """The changes at a port, what was lost first."""
        was, is_ = (
            reach.allowed(port)[classes][:, classes]
            for reach, classes in zip((self._before, self._after), self._classes, strict=True)
        )
        single = [at for at, pods in enumerate(self._pods) if len(pods) == 1]
        near = [set(reach.near(port)) for reach in (self._before, self._after)]
        for allowed, changed, spared in ((False, was & ~is_, near[1]), (True, is_ & ~was, near[0])):
            changed[single, single] = False
            for rows, columns in _rectangles(changed):
                yield from self._change(port, self._named(rows), self._named(columns), spared, allowed=allowed)
        # What a node may do with its own pods, and no class may: it changes where the network plugin does.
        place = {pod: at for at, pods in enumerate(self._pods) for pod in pods}
        for allowed, pairs in ((False, near[0] - near[1]), (True, near[1] - near[0])):
            for source, destination in sorted(pairs):
                if source in place and destination in place and not (was | is_)[place[source], place[destination]]:
                    yield from self._change(port, (source,), (destination,), set(), allowed=allowed)

    def _named(self, parts: Iterable[int]) -> tuple[str, ...]:
        return tuple(sorted(pod for part in parts for pod in self._pods[part]))

    def _change(
        self, port: Port, sources: tuple[str, ...], destinations: tuple[str, ...], spared: set[tuple[str, str]],
        *, allowed: bool,
    ) -> Iterator[ReachChange]:  # fmt: skip
        """The change, but for the pairs that are spared; nothing where that is all."""
        meant = set(sources), set(destinations)
        kept = sum(source in meant[0] and destination in meant[1] for source, destination in spared)
        count = len(sources) * len(destinations) - len(meant[0] & meant[1]) - kept
        pairs = (
            (one, other) for one in sources for other in destinations if one != other and (one, other) not in spared
        )
        shown = next(pairs, None)
        if shown is not None:
            before, after = self._before.why(*shown, port), self._after.why(*shown, port)
            yield ReachChange(port, allowed, sources, destinations, count, before, after)


def _rectangles(changed: Bools) -> Iterator[tuple[list[int], list[int]]]:
    """The cells of a matrix as rows that have the same cells, and these."""
    if not changed.any():
        return
    of_row, first = distinct(np.packbits(changed, axis=1))
    for kind, row in enumerate(first.tolist()):
        columns = np.flatnonzero(changed[row]).tolist()
        if columns:
            yield np.flatnonzero(of_row == kind).tolist(), columns
