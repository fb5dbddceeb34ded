"""What does one pod restart cost the API server?

Pods come and go, and two controllers write it down: one into EndpointSlices, one into an Endpoints object. `Ledger`
holds both at work on one Service, and counts what each writes. Ledgers are values: `after` gives the next one.

    ledger = lab.ledger("default/web")
    print(ledger.after(churn.restarted(ledger.pods, 1), "one pod restarts"))

What happens to pods is a sequence of states, each the pods of the Service after one event. Each event makes both
controllers look again (*live*). In a real cluster they look less often than that: events that come while a Service
waits in the queue are dealt with in one go. `at_once` is the other end: only the last state is looked at.

- A new pod (`grown`) is two events: it gets an address, and it becomes ready.
- A pod that leaves (`shrunk`) is two events: it is being deleted, and it is gone.
- A restart (`restarted`), as a Deployment does it with `maxSurge: 1` and `maxUnavailable: 0`, is both: pods do not
  restart, they are replaced.
- A pod that stumbles (`stumbled`) is two events: it is not ready, and ready again.

Everything written is sent to everybody who watches: kube-proxy on each node.

Not modelled: the queue and its pauses; containers that restart inside of a pod, which keeps its address (they are
`stumbled`); proportional hints. Guide section 5.1; KEP-752.
"""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

import msgspec
from msgspec.structs import replace

from k8snetlab import api
from k8snetlab.address import family
from k8snetlab.api.decoding import name_suffix
from k8snetlab.errors import BadOption, Problem
from k8snetlab.services.legacy import EndpointsObject
from k8snetlab.services.slices import MOST_ENDPOINTS, Slices
from k8snetlab.services.writes import Tally

__all__ = ["Leaving", "Ledger", "Turn", "at_once", "grown", "resized", "restarted", "shrunk", "started", "stumbled"]

Pods: TypeAlias = tuple[api.Pod, ...]
"""The pods that a Service means, in the order of their making."""


class Turn(msgspec.Struct, frozen=True):
    """What happened, how often the controllers looked, what there is after it, and what each controller wrote."""

    what: str
    events: int
    pods: int
    sizes: tuple[int, ...]
    slices: Tally
    endpoints: Tally


class Ledger(msgspec.Struct, frozen=True):
    """Both controllers at work on one Service, its pods, and the turns that were played."""

    slices: Slices
    endpoints: EndpointsObject
    pods: Pods
    turns: tuple[Turn, ...] = ()

    def after(self, states: Iterable[Pods], what: str = "") -> Ledger:
        """The ledger when the pods have gone through these states, with one more turn.

        The controllers look at each state.
        """
        slices, endpoints, pods = self.slices, self.endpoints, self.pods
        in_slices, in_endpoints, events = Tally(), Tally(), 0
        for pods in states:
            slices, written = slices.sync(pods)
            endpoints, other = endpoints.sync(pods)
            in_slices += Tally.of(written)
            in_endpoints += Tally.of(other)
            events += 1
        turn = Turn(what or f"{events} events", events, len(pods), slices.sizes, in_slices, in_endpoints)
        return Ledger(slices, endpoints, pods, (*self.turns, turn))

    @property
    def last(self) -> Turn:
        """The last turn. There is one from the beginning: both controllers looked at the pods as they were."""
        return self.turns[-1]

    def __str__(self) -> str:
        head = ("", "pods", "slices", "writes: slices", "Endpoints", "bytes a watcher: slices", "Endpoints")
        rows = [head, *(_row(turn) for turn in self.turns)]
        widths = [max(len(row[at]) for row in rows) for at in range(len(head))]
        return "\n".join("  ".join(_cells(row, widths)).rstrip() for row in rows)

    def __repr__(self) -> str:
        return str(self)


def _row(turn: Turn) -> tuple[str, ...]:
    counts = (turn.slices.writes, turn.endpoints.writes, turn.slices.bytes, turn.endpoints.bytes)
    sizes = "+".join(map(str, turn.sizes)) if len(turn.sizes) <= 6 else f"{len(turn.sizes)} slices"
    return turn.what, str(turn.pods), sizes, *(f"{count:,}" for count in counts)


def _cells(row: tuple[str, ...], widths: list[int]) -> Iterator[str]:
    for at, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.ljust(width) if at in (0, 2) else cell.rjust(width)


def started(
    service: api.Service, pods: Iterable[api.Pod], nodes: Mapping[str, api.Node], most: int = MOST_ENDPOINTS
) -> Ledger:
    """A ledger for a Service with these pods, which the selector means, and no slices yet.

    Service and pods that have no uid get one, since it is a good part of what is written. Raises `BadOption` for a
    `most` that the API does not take.
    """
    known = tuple(_with_uid(pod) for pod in pods)
    service = _with_uid(service)
    ledger = Ledger(Slices(service, nodes, most), EndpointsObject(service), known)
    return ledger.after([known], "the pods that are there")


# What happens to pods


class Leaving(StrEnum):
    """Which pods go first when there are too many. A ReplicaSet begins with the newest."""

    NEWEST = "newest"
    OLDEST = "oldest"
    ANY = "any"


def grown(pods: Pods, to: int) -> Iterator[Pods]:
    """Pods are added one after the other until there are so many: with an address, then ready."""
    for new in resized(pods, to)[len(pods) :]:
        yield (*pods, _unready(new))
        pods = (*pods, new)
        yield pods


def shrunk(pods: Pods, to: int, leaving: Leaving = Leaving.NEWEST, *, seed: int = 0) -> Iterator[Pods]:
    """Pods leave one after the other until so many are left: being deleted, then gone. `seed` is for `ANY`."""
    order = list(range(len(pods)))
    if leaving is Leaving.NEWEST:
        order.reverse()
    elif leaving is Leaving.ANY:
        random.Random(seed).shuffle(order)
    left = dict(enumerate(pods))
    for at in order[: max(0, len(pods) - to)]:
        left[at] = _deleted(left[at])
        yield tuple(left.values())
        del left[at]
        yield tuple(left.values())


def restarted(pods: Pods, number: int) -> Iterator[Pods]:
    """So many pods are replaced, the oldest first: a new one comes with an address, it is ready, the old one is being
    deleted, it is gone. Raises `BadOption` for more than there are."""
    _check(number, len(pods))
    new = resized(pods, len(pods) + number)[len(pods) :]
    for at, one in enumerate(new):
        rest = (*pods[at + 1 :], *new[:at])
        yield (*pods[at:], *new[:at], _unready(one))
        yield (*pods[at:], *new[:at], one)
        yield (_deleted(pods[at]), *rest, one)
        yield (*rest, one)


def stumbled(pods: Pods, number: int) -> Iterator[Pods]:
    """So many pods, the oldest first, fail their readiness probe and pass it again. Raises `BadOption` for more than
    there are."""
    _check(number, len(pods))
    for at in range(number):
        yield (*pods[:at], _unready(pods[at]), *pods[at + 1 :])
        yield pods


def at_once(states: Iterable[Pods]) -> tuple[Pods, ...]:
    """The last state only: what the controllers see when everything happens before they look."""
    return tuple(deque(states, maxlen=1))


def resized(pods: Pods, count: int) -> Pods:
    """The first so many of the pods; what is missing is made like them, with names and addresses of their own.

    Raises `BadOption` when there is no pod to make others like.
    """
    if not pods and count:
        raise BadOption(Problem("there is no pod to make others like", field="pods"))
    highest = {of: max(_numbers(pods, of)) for of in (4, 6) if any(_numbers(pods, of))}
    new = (_like(pods[at % len(pods)], at + 1, highest) for at in range(len(pods), count))
    return (*pods[:count], *new)


def _check(number: int, there: int) -> None:
    if not 0 <= number <= there:
        raise BadOption(Problem(f"{number} pods are not between 0 and {there}", field="number"))


# One pod


_ADDRESS: Mapping[int, type[IPv4Address | IPv6Address]] = {4: IPv4Address, 6: IPv6Address}


def _numbers(pods: Pods, of: int) -> list[int]:
    return [int(_ADDRESS[of](each)) for pod in pods for each in pod.ips if family(each) == of]


def _like(pod: api.Pod, number: int, highest: dict[int, int]) -> api.Pod:
    """Another pod like this one. It is ready, and its addresses are the next that nobody has."""
    addresses = []
    for each in pod.ips:
        of = family(each)
        highest[of] += 1
        addresses.append(api.PodIP(ip=str(_ADDRESS[of](highest[of]))))
    stem = pod.metadata.generate_name or f"{pod.name}-"
    metadata = replace(pod.metadata, name=stem + name_suffix(pod.key, str(number)), uid="", deletion_timestamp=None)
    status = replace(pod.status, pod_ip=addresses[0].ip if addresses else "", pod_ips=tuple(addresses))
    return _with_uid(replace(pod, metadata=metadata, status=_condition(status, "True")))


def _unready(pod: api.Pod) -> api.Pod:
    return replace(pod, status=_condition(pod.status, "False"))


def _condition(status: api.PodStatus, ready: str) -> api.PodStatus:
    others = tuple(each for each in status.conditions if each.type != "Ready")
    return replace(status, conditions=(*others, api.PodCondition(type="Ready", status=ready)))


def _deleted(pod: api.Pod) -> api.Pod:
    return replace(pod, metadata=replace(pod.metadata, deletion_timestamp="2026-01-01T00:00:00Z"))


def _with_uid(each: api.KindT) -> api.KindT:
    """The object with a uid, as long as a real one and made from its name."""
    if each.metadata.uid:
        return each
    digits = hashlib.sha256(each.ref.encode()).hexdigest()
    uid = "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:32]))
    return replace(each, metadata=replace(each.metadata, uid=uid))
