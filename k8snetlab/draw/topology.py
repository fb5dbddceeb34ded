"""Which way did the packet go?

The picture of a cluster, and the path of a trace over it. The path is read from the steps alone: each step has a
machine and a device, and so a place in the picture; a place is numbered when the packet comes there. The request is a
solid line with numbers in discs, the reply a dashed one with numbers in squares, each in a lane of its own. A cross
marks where something was lost. A Service stands above the machines, dashed, since its address is on no interface; a
dashed line leads to the machine whose rules rewrote it.

What only happens in passing is no place of its own: the outer packet's way through the kernel between a tunnel's
device and the network card, and the rules that a bridge has asked about a frame it keeps. Of a packet in fragments
the first one is followed.

Not modelled: time. Guide sections 2.1 and 2.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from k8snetlab.draw.drawing import Drawing
from k8snetlab.draw.ground import (
    FOOT,
    MARGIN,
    PAD,
    SERVICE,
    STACK,
    TITLE,
    Ground,
    Place,
    Spot,
    Wired,
    ground,
    network_of,
)
from k8snetlab.draw.lettering import fitted, width, wrapped
from k8snetlab.draw.marks import Box, Label, Line, Mark, Point, Sheet, arrowhead, badge, cross, sheet
from k8snetlab.draw.theme import Role, theme_of
from k8snetlab.linux.host import Host, Network
from k8snetlab.linux.link import LinkKind
from k8snetlab.packet import IPv4, IPv6, Packet
from k8snetlab.trace import FATES, Action, Step, Trace
from k8snetlab.trace.prose import changes
from k8snetlab.trace.table import endpoint

__all__ = ["Visit", "topology", "visits"]

DASH = (7.0, 4.0)
RULED = (4.0, 3.0)
TRANSLATIONS = (Action.DNAT, Action.SNAT, Action.CONNTRACK)


class Visit(NamedTuple):
    """A stay of the packet at one place, with the steps that happened there."""

    place: Place
    steps: tuple[Step, ...]


class Flow(NamedTuple):
    """One direction of a trace: its name, its colour, its places, and which of them lost the packet (0: none)."""

    name: str
    role: Role
    visits: tuple[Visit, ...]
    lost: int

    @property
    def dash(self) -> tuple[float, ...]:
        return () if self.role is Role.REQUEST else DASH


def topology(
    of: Network | Wired, trace: Trace | None = None, *, step: int | None = None, theme: str = "light"
) -> Drawing:
    """The picture of a cluster or a network, with the path of `trace` over it.

    With `step`, only so many of `(*trace.steps, *trace.reply)` are drawn, and the place of the last one has a ring.
    Raises `UnknownName` for a theme that does not exist.
    """
    theme_of(theme)
    network = network_of(of)
    if trace is None:
        plan = ground(network)
        machines = sum(network[name].kind == "machine" for name in network)
        pods = sum(network[name].kind == "container" for name in network)
        title = f"A network of {_counted(machines, 'machine')} with {_counted(pods, 'pod')}."
        return Drawing(plan.width, plan.height, plan.sheets, (), (title, *plan.alt), theme)
    met = {seen.where for seen in (*trace.steps, *trace.reply)}
    service = _service(network, trace)
    plan = ground(network, trace.request.family, met, TITLE + (SERVICE if service else 0), FOOT)
    return _Path(network, plan, trace, step).drawing(theme, service)


def visits(network: Network, steps: Sequence[Step]) -> tuple[Visit, ...]:
    """The places of the steps, in order; steps at one place follow each other in one visit."""
    stays = _joined([Visit(_place(network, step), (step,)) for step in steps if not _later_fragment(step.packet)])
    inner = zip(stays[:1] + stays, stays, stays[1:] + stays[-1:], strict=False)
    return tuple(_joined([here for before, here, after in inner if not _in_passing(network, before, here, after)]))


def _later_fragment(packet: Packet) -> bool:
    return any(isinstance(header, IPv4 | IPv6) and header.offset for header in packet.headers)


def _joined(stays: Sequence[Visit]) -> list[Visit]:
    """Stays at one place that follow each other, as one."""
    joined: list[Visit] = []
    for stay in stays:
        if joined and joined[-1].place == stay.place:
            joined[-1] = Visit(stay.place, joined[-1].steps + stay.steps)
        else:
            joined.append(stay)
    return joined


def _service(network: Network, trace: Trace) -> str:
    """The Service that a trace asks for, by its name or by an address that no machine has; empty where it asks for
    none."""
    request = trace.request
    if request.target.startswith("svc/"):
        return request.target
    rewritten = any(step.action is Action.DNAT for step in trace.steps)
    owned = any(request.address in network[name].owned for name in network)
    return "a Service" if rewritten and not owned else ""


def _place(network: Network, step: Step) -> Place:
    """Where in the picture a step happened: at a device, or in the kernel between the devices."""
    host = network[step.where] if step.where in network else Host(step.where, "client")
    if host.kind != "machine":
        return step.where, STACK
    if step.action in (Action.TRANSMIT, Action.RECEIVE, Action.BRIDGE, Action.ENCAPSULATE, Action.DECAPSULATE):
        for link in host.links:
            if link.name == step.device:
                if link.master:
                    return step.where, link.master
                return step.where, STACK if link.kind in (LinkKind.VETH, LinkKind.LOOPBACK) else link.name
    return step.where, STACK


def _in_passing(network: Network, before: Visit, here: Visit, after: Visit) -> bool:
    """Whether a stay in the kernel is no place of its own on the way: a bridge that has rules asked about a frame it
    keeps, or the tunnel's own packet between the tunnel's device and the network card."""
    host, device = here.place
    if device != STACK or not before.place[0] == host == after.place[0] or host not in network:
        return False
    if any(step.action in FATES or step.action in TRANSLATIONS for step in here.steps):
        return False
    kinds = {link.name: link.kind for link in network[host].links}
    around = {kinds.get(before.place[1]), kinds.get(after.place[1])}
    if around == {LinkKind.BRIDGE}:
        return before.place == after.place and all(step.action is Action.RULE for step in here.steps)
    return around == {LinkKind.VXLAN, LinkKind.NIC}


def _counted(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


class _Path:
    """A path while it is drawn."""

    def __init__(self, network: Network, plan: Ground, trace: Trace, step: int | None) -> None:
        self.network, self.plan, self.trace = network, plan, trace
        total = len(trace.steps) + len(trace.reply)
        self.shown = total if step is None else max(0, min(step, total))
        self.cut = step is not None
        there, back = trace.steps[: self.shown], trace.reply[: max(0, self.shown - len(trace.steps))]
        self.steps = (*there, *back)
        self.flows = tuple(
            Flow(name, role, found, _lost(found))
            for name, role, steps in (("request", Role.REQUEST, there), ("reply", Role.REPLY, back))
            if (found := visits(network, steps))
        )
        self.under: list[Mark] = []
        self.lines: list[Mark] = []
        self.numbers: list[Mark] = []
        self.alt: list[str] = []

    def drawing(self, theme: str, service: str) -> Drawing:
        self.title()
        if service:
            self.service(service)
        self.translations()
        self.ends()
        lanes = _lanes(self.plan.spots, self.flows)
        for flow, stops in zip(self.flows, lanes, strict=True):
            self.draw(flow, stops)
            self.say(flow)
        self.foot(service)
        over: tuple[Sheet, ...] = (sheet(self.under), sheet(self.lines), sheet(self.numbers))
        first, *rest = self.alt
        return Drawing(self.plan.width, self.plan.height, self.plan.sheets, over, (first, *self.plan.alt, *rest), theme)

    @property
    def finished(self) -> bool:
        return self.shown == len(self.trace.steps) + len(self.trace.reply)

    def title(self) -> None:
        trace, plan = self.trace, self.plan
        asked = f"{trace.request.source} → {trace.request.target}"
        total = len(trace.steps) + len(trace.reply)
        ended = f"{trace.fate}, client {trace.client}" if self.finished else f"step {self.shown} of {total}"
        y, right = MARGIN + 10, plan.width - MARGIN - 15
        room = right - MARGIN - width(ended, 11, "bold") - 50
        self.under.append(Label(MARGIN + 15, y, fitted(asked, room, 12, "bold"), Role.INK, 12, "left", "bold"))
        if any(flow.lost for flow in self.flows):
            self.under.extend(cross(right - width(ended, 11, "bold") - 14, y, 4.5))
        self.under.append(Label(right, y, ended, Role.INK, 11, "right", "bold"))
        self.alt.append(f"The way of a packet from {trace.request.source} to {trace.request.target}: {ended}.")

    def service(self, name: str) -> None:
        """The Service above the machine whose rules rewrite its address, or refuse it."""
        request = self.trace.request
        ruling = next((step for step in self.trace.steps if step.action is Action.DNAT), self.trace.steps[-1])
        home = self.plan.spots.get((ruling.where, STACK), _NOWHERE).column
        owned = any(request.address in self.network[host].owned for host in self.network)
        address = endpoint(request.address, request.port)
        where_is = "an address of a machine" if owned else "on no interface"
        self.alt.append(f"The Service {name.removeprefix('svc/')} has the address {address}, {where_is}.")
        if home not in self.plan.frames:
            return
        frame, y = self.plan.frames[home], MARGIN + TITLE + SERVICE / 2 - 5
        room = frame.width - 20
        self.under.append(Box(frame.x, y - 18, frame.width, 36, Role.PAPER, Role.SERVICE, 6, 1.4, RULED))
        self.under.append(Label(frame.x + 10, y - 7.5, fitted(name, room, 9.5, "bold"), Role.INK, 9.5, "left", "bold"))
        self.under.append(Label(frame.x + 10, y + 7.5, fitted(f"{address}  {where_is}", room, 8.5), Role.FAINT, 8.5))
        if ruling in self.steps and ruling.where == home:
            x, level = frame.x - 9, self.plan.spots[home, STACK].y
            points = ((frame.x, y), (x, y), (x, level), (frame.x + PAD, level))
            self.under.append(Line(points, Role.SERVICE, 1.4, RULED))
            self.under.append(arrowhead((frame.x + PAD, level), (1, 0), Role.SERVICE))

    def translations(self) -> None:
        """What the kernel of a machine rewrote, written into its row."""
        notes: dict[str, list[str]] = {}
        for before, step in pairwise(self.steps):
            if step.action in TRANSLATIONS and self.plan.spots.get((step.where, STACK), _NOWHERE).kind == "row":
                for change in changes(before.packet, step.packet):
                    note = f"{_NAMES[step.action]} → {change.rpartition(' → ')[2]}"
                    held = notes.setdefault(step.where, [])
                    if note not in held:
                        held.append(note)
        for where, held in notes.items():
            frame, y = self.plan.frames[where], self.plan.spots[where, STACK].y
            for line, note in enumerate(held[:2]):
                text = note if line == 0 or len(held) == 2 else f"{note} …"
                words = fitted(text, 150, 8.5, "bold")
                self.under.append(Label(frame.x + PAD + 8, y + 1 + 13.5 * line, words, Role.INK, 8.5, "left", "bold"))
            self.alt.append(f"On {where}: {'; '.join(held)}.")

    def ends(self) -> None:
        """A strong outline for who asked and for who got it."""
        there = self.steps[: len(self.trace.steps)]
        ends = [step.where for step in there[:1]] + [step.where for step in there if step.action is Action.DELIVER]
        for where in dict.fromkeys(ends):
            if self.plan.spots.get((where, STACK), _NOWHERE).kind in ("chip", "box"):
                frame = self.plan.frames[where]
                self.under.append(frame._replace(fill=Role.NONE, line=Role.REQUEST, thickness=2.2))

    def draw(self, flow: Flow, stops: Sequence[Stop]) -> None:
        points, marks = _route(self.plan, stops)
        for points_of_hop in points:
            self.lines.append(Line(points_of_hop, Role.PAPER, 4.6))
        for points_of_hop in points:
            self.lines.append(Line(points_of_hop, flow.role, 2.2, flow.dash))
            self.lines.extend(_heads(points_of_hop, flow.role))
        numbers: dict[Point, list[int]] = {}
        for number, point in marks:
            numbers.setdefault(point, []).append(number)
        for point, held in numbers.items():
            if flow.lost in held:
                self.numbers.extend(cross(*point))
            else:
                text = str(held[0]) if len(held) == 1 else f"{held[0]}+"
                self.numbers.extend(badge(*point, text, flow.role))
        if self.cut and marks and flow is self.flows[-1]:
            x, y = marks[-1][1]
            self.numbers.append(Box(x - 11, y - 11, 22, 22, Role.NONE, Role.INK, 11, 2.0))

    def say(self, flow: Flow) -> None:
        said = ", ".join(f"{at} {_named(self.plan, visit)}" for at, visit in enumerate(flow.visits, 1))
        self.alt.append(f"The {flow.name} passes {said}.")
        if flow.lost:
            step = _loss(flow.visits[flow.lost - 1])
            assert step is not None
            rule = f" by the rule {step.rule.text}" if step.rule is not None else ""
            self.alt.append(f"The {flow.name} is lost at {flow.lost}, {step.where}: {step.action}, {step.why}{rule}.")

    def foot(self, service: str) -> None:
        """What the lines mean, and how it ended."""
        y = self.plan.height - MARGIN - FOOT + 16
        x = MARGIN + 15.0
        for flow in self.flows:
            self.under.append(Line(((x, y), (x + 34, y)), flow.role, 2.2, flow.dash))
            self.numbers.extend(badge(x + 17, y, "1", flow.role))
            x = self.legend(x + 41, y, flow.name)
        if any(flow.lost for flow in self.flows):
            self.under.extend(cross(x + 4, y, 4.5))
            x = self.legend(x + 14, y, "lost")
        if service:
            self.under.append(Line(((x, y), (x + 34, y)), Role.SERVICE, 1.4, RULED))
            self.legend(x + 41, y, "Service")
        last = self.steps[-1] if self.steps else None
        text = self.trace.reason if self.finished or last is None else f"{last.where}: {last.action}, {last.why}"
        for line, words in enumerate(wrapped(text, self.plan.width - 2 * MARGIN - 30, 9.5)):
            self.under.append(Label(MARGIN + 15, y + 20 + 14 * line, words, Role.INK, 9.5))
        if not self.finished:
            total = len(self.trace.steps) + len(self.trace.reply)
            self.alt.append(f"Drawn are the first {self.shown} of {total} steps.")
        elif not self.trace.reply:
            self.alt.append("There is no reply.")

    def legend(self, x: float, y: float, name: str) -> float:
        self.under.append(Label(x, y, name, Role.FAINT, 9))
        return x + width(name, 9) + 22


_NOWHERE = Spot("nowhere", 0, 0, "")
_NAMES: Mapping[Action, str] = {Action.DNAT: "DNAT", Action.SNAT: "SNAT", Action.CONNTRACK: "conntrack"}


def _loss(visit: Visit) -> Step | None:
    """The step of a visit that lost the packet."""
    return next((step for step in visit.steps if step.action in FATES and step.action is not Action.DELIVER), None)


def _lost(found: Sequence[Visit]) -> int:
    """The number of the place that lost the packet, counted from 1; 0 where none did."""
    return next((at for at, visit in enumerate(found, 1) if _loss(visit) is not None), 0)


def _named(plan: Ground, visit: Visit) -> str:
    where, device = visit.place
    spot = plan.spots.get(visit.place)
    if spot is not None and spot.kind == "row":
        return f"{where} {device or 'routing and netfilter'}"
    return where


# Lanes: where exactly the lines of each flow run, so that none hides another


class Stop(NamedTuple):
    """A place on a path with its lane: `offset` is how far the lane is from the spine, bar or chip's middle. A stop
    without a number is a turn; `passes` is how often a flow comes by there."""

    place: Place
    spot: Spot
    number: int
    offset: float
    passes: int


def _lanes(spots: Mapping[Place, Spot], flows: Sequence[Flow]) -> list[list[Stop]]:
    """The stops of each flow. What passes a spine once runs in one lane; what turns there runs back in another."""
    passes = [_passes(spots, flow.visits) for flow in flows]
    most: dict[tuple[str, str], int] = {}
    for found in passes:
        for key, count in _counts(found).items():
            most[key] = max(most.get(key, 0), count)
    lanes = []
    for flow, found in zip(flows, passes, strict=True):
        counts, seen, stops = _counts(found), dict.fromkeys(_counts(found), 0), []
        for key, held in found:
            offset = _offset(key[0], flow.role, seen[key], counts[key], most[key])
            seen[key] += 1
            stops += [Stop(place, spot, number, offset, most[key]) for place, spot, number in held]
        lanes.append(stops)
    return lanes


Pass = tuple[tuple[str, str], list[tuple[Place, Spot, int]]]


def _counts(found: Sequence[Pass]) -> dict[tuple[str, str], int]:
    counts: dict[tuple[str, str], int] = {}
    for key, _ in found:
        counts[key] = counts.get(key, 0) + 1
    return counts


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


def _route(plan: Ground, stops: Sequence[Stop]) -> tuple[list[tuple[Point, ...]], list[tuple[int, Point]]]:
    """The lines between the stops, one polyline a hop, and where each number stands."""
    fixed: list[Point | None] = [_fixed(stop) for stop in stops]
    hops: list[tuple[Point, ...]] = []
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
    spot = stop.spot
    if spot.kind == "chip":
        return spot.x, spot.y + stop.offset
    if spot.kind == "bar":
        return None
    return spot.x + stop.offset, spot.y


def _hop(plan: Ground, one: Stop, other: Stop) -> tuple[Point, ...]:
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


def _heads(points: Sequence[Point], role: Role) -> Iterator[Box]:
    """An arrowhead in the longest stretch of a hop, where there is room for one."""
    stretches = (((x2 - x1, y2 - y1), (x1, y1)) for (x1, y1), (x2, y2) in pairwise(points))
    (dx, dy), (x, y) = max(stretches, key=lambda stretch: abs(stretch[0][0]) + abs(stretch[0][1]))
    if abs(dx) + abs(dy) >= 34:
        yield arrowhead((x + 0.62 * dx, y + 0.62 * dy), (dx, dy), role, 8.5)
