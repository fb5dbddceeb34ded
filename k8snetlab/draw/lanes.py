"""Where exactly do the lines of a path run?

The request and the reply pass the same spines, chips and bars; each has lanes of its own beside them, so that no line
hides another. Lines run in right angles along what they follow.

Not modelled: more than two passes of one place in one direction; these share lanes. Guide section 2.1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias

from k8snetlab.draw.ground import Ground, Place, Spot
from k8snetlab.draw.marks import Point
from k8snetlab.draw.theme import Role
from k8snetlab.draw.visits import Visit

__all__ = ["Hop", "Stop", "lanes", "routed"]

Hop: TypeAlias = tuple[Point, ...]
"""A line from one place to the next."""

Line: TypeAlias = tuple[str, str]
"""What a lane runs beside: the kind of a spot, and whose spine, chip or bar it is."""
Pass: TypeAlias = tuple[Line, list[tuple[Place, Spot, int]]]


class Stop(NamedTuple):
    """A place on a path with its lane: `offset` is how far the lane is from the spine, bar or chip's middle. A stop
    without a number is a turn; `passes` is how often a flow comes by there."""

    place: Place
    spot: Spot
    number: int
    offset: float
    passes: int


def lanes(spots: Mapping[Place, Spot], flows: Sequence[tuple[Role, Sequence[Visit]]]) -> list[list[Stop]]:
    """The stops of each flow: of `(Role.REQUEST, its visits)`, and of the reply's.

    What passes a spine once runs in one lane; what turns there runs back in another.
    """
    passes = [_passes(spots, found) for _, found in flows]
    counted = [Counter(key for key, _ in found) for found in passes]
    most = {key: max(count[key] for count in counted) for count in counted for key in count}
    stops: list[list[Stop]] = []
    for (role, _), found, counts in zip(flows, passes, counted, strict=True):
        seen: Counter[Line] = Counter()
        stops.append([])
        for key, held in found:
            offset = _offset(key[0], role, seen[key], counts[key], most[key])
            seen[key] += 1
            stops[-1] += [Stop(place, spot, number, offset, most[key]) for place, spot, number in held]
    return stops


def _passes(spots: Mapping[Place, Spot], found: Sequence[Visit]) -> list[Pass]:
    """The visits in passes: on a spine as long as the direction stays, elsewhere one by one."""
    stations = [(visit.place, spots[visit.place], at) for at, visit in enumerate(found, 1) if visit.place in spots]
    passes: list[Pass] = []
    for at, (place, spot, number) in enumerate(stations):
        key = (spot.kind, spot.column if spot.kind == "row" else place[0])
        before = stations[at - 1][1] if at else None
        if spot.kind == "row" and passes and passes[-1][0] == key:
            passes[-1][1].append((place, spot, number))
        else:
            passes.append((key, [(place, spot, number)]))
        after = stations[at + 1][1] if at + 1 < len(stations) else None
        turns = before is not None and after is not None and (spot.y - before.y) * (after.y - spot.y) < 0
        if spot.kind == "row" and turns:
            passes.append((key, [(place, spot, 0)]))
    return passes


_SPACING = {"row": (15.0, 15.0), "chip": (16.0, 9.5), "bar": (17.0, 13.0), "box": (15.0, 15.0)}


def _offset(kind: str, role: Role, index: int, count: int, most: int) -> float:
    """Requests run left of the middle or above it, replies right or below; whoever comes twice runs outside first."""
    spacing = _SPACING[kind][most > 1]
    if role is Role.REQUEST:
        return spacing * (-0.5 if count == 1 else (-1.5, -0.5)[index % 2])
    return spacing * (0.5 if count == 1 else (0.5, 1.5)[index % 2])


def routed(plan: Ground, stops: Sequence[Stop]) -> tuple[list[Hop], list[tuple[int, Point]]]:
    """The lines between the stops, one polyline a hop, and where each number stands."""
    fixed: list[Point | None] = [_fixed(stop) for stop in stops]
    hops: list[Hop] = []
    ends: list[list[Point]] = [[] for _ in stops]
    for at, (one, other) in enumerate(pairwise(stops)):
        hop = _hop(plan, one, other)
        hops.append(hop)
        ends[at].append(hop[0])
        ends[at + 1].append(hop[-1])
    marks = []
    for stop, point, touched in zip(stops, fixed, ends, strict=True):
        if point is None:  # on a bar, between where the line comes in and where it goes out
            xs = [x for x, _ in touched] or [stop.spot.x]
            if len(touched) == 2 and touched[0] != touched[1]:
                hops.append((touched[0], touched[1]))
            point = (sum(xs) / len(xs), stop.spot.y + stop.offset)
        if stop.number:
            marks.append((stop.number, point))
    return hops, marks


def _fixed(stop: Stop) -> Point | None:
    """Where a stop is; on a bar it may be anywhere."""
    spot = stop.spot
    if spot.kind == "chip":
        beside = stop.passes > 1 and round(stop.offset / _SPACING["chip"][1] + 1.5) % 2  # every other one of four lanes
        return spot.inside if beside else spot.x, spot.y + stop.offset
    if spot.kind == "bar":
        return None
    return spot.x + stop.offset, spot.y


def _hop(plan: Ground, one: Stop, other: Stop) -> Hop:
    """The line from one stop to the next, in right angles where both hang on spines and bars."""
    start, end = _fixed(one), _fixed(other)
    if start is not None and end is not None:
        if one.spot.kind == "chip" and other.spot.kind == "row":
            return start, (end[0], start[1]), end
        if one.spot.kind == "row" and other.spot.kind == "chip":
            return start, (start[0], end[1]), end
        return start, end
    if start is not None:
        return start, (start[0], other.spot.y + other.offset)
    if end is not None:
        return (end[0], one.spot.y + one.offset), end
    aside = 7.5 if max(one.passes, other.passes) == 1 else 18.0  # beside the lanes that come down the spine above
    x = plan.joints.get(frozenset((one.place[0], other.place[0])), one.spot.x) + (-aside if one.offset < 0 else aside)
    return (x, one.spot.y + one.offset), (x, other.spot.y + other.offset)
