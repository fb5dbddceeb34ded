"""Which way did the packet go?

The picture of a cluster, and the path of a trace over it. The path is read from the steps alone: each step has a
machine and a device, and so a place in the picture; a place is numbered when the packet comes there. The request is a
solid line with numbers in discs, the reply a dashed one with numbers in squares, each in a lane of its own. A cross
marks where something was lost. A Service stands above the machines, dashed, since its address is on no interface; a
dashed line leads to the machine whose rules rewrote it, or to the pod whose socket was led elsewhere.

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
    Spot,
    Wired,
    ground,
    network_of,
)
from k8snetlab.draw.lanes import Stop, lanes, routed
from k8snetlab.draw.lettering import fitted, width, wrapped
from k8snetlab.draw.marks import Box, Label, Line, Mark, Point, Sheet, arrowhead, badge, cross, sheet
from k8snetlab.draw.theme import Role, theme_of
from k8snetlab.draw.visits import TRANSLATIONS, Visit, visits
from k8snetlab.linux.host import Network
from k8snetlab.packet import SCTP, TCP, UDP, IPv4, IPv6
from k8snetlab.trace import FATES, Action, Step, Trace
from k8snetlab.trace.prose import changes
from k8snetlab.trace.table import endpoint

__all__ = ["planned", "topology"]

DASH = (7.0, 4.0)
RULED = (4.0, 3.0)


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
    plan, service = planned(network, trace)
    if trace is None:
        machines = sum(network[name].kind == "machine" for name in network)
        pods = sum(network[name].kind == "container" for name in network)
        title = f"A network of {_counted(machines, 'machine')} with {_counted(pods, 'pod')}."
        return Drawing(plan.width, plan.height, plan.sheets, (), (title, *plan.alt), theme)
    return _Path(network, plan, trace, step).drawing(theme, service)


def planned(network: Network, trace: Trace | None) -> tuple[Ground, str]:
    """Where everything stands in the picture of a network with that trace, and the Service that it asks for."""
    if trace is None:
        return ground(network), ""
    met = {seen.where for seen in (*trace.steps, *trace.reply)}
    service = _service(network, trace)
    return ground(network, trace.request.family, met, TITLE + (SERVICE if service else 0), FOOT), service


def _service(network: Network, trace: Trace) -> str:
    """The Service that a trace asks for, by its name or by an address that no machine has; empty where it asks for
    none."""
    request = trace.request
    if request.target.startswith("svc/"):
        return request.target
    rewritten = any(step.action is Action.DNAT for step in trace.steps)
    owned = any(request.address in network[name].owned for name in network)
    return "a Service" if rewritten and not owned else ""


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
        stops_of = lanes(self.plan.spots, [(flow.role, flow.visits) for flow in self.flows])
        for flow, stops in zip(self.flows, stops_of, strict=True):
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
        ruling = self.ruling()
        home = self.plan.spots.get((ruling.where, STACK), _NOWHERE).column
        owned = any(request.address in self.network[host].owned for host in self.network)
        address = endpoint(request.address, request.port)
        where_is = "an address of a machine" if owned else "on no interface"
        self.alt.append(f"The Service {name.removeprefix('svc/')} has the address {address}, {where_is}.")
        first = self.trace.steps[0]
        if first.action is Action.DNAT:  # before any packet was made
            where_is = f"→ {_destination(first)} at the socket"
            self.alt.append(f"On {first.where}: {first.why}.")
        if home not in self.plan.frames:
            return
        frame, y = self.plan.frames[home], MARGIN + TITLE + SERVICE / 2 - 5
        room = frame.width - 20
        self.under.append(Box(frame.x, y - 18, frame.width, 36, Role.PAPER, Role.SERVICE, 6, 1.4, RULED))
        self.under.append(Label(frame.x + 10, y - 7.5, fitted(name, room, 9.5, "bold"), Role.INK, 9.5, "left", "bold"))
        self.under.append(Label(frame.x + 10, y + 7.5, fitted(f"{address}  {where_is}", room, 8.5), Role.FAINT, 8.5))
        if ruling in self.steps and (ruling.where == home or ruling.rule is not None):
            inner = self.plan.frames[ruling.where]
            level = self.plan.spots[home, STACK].y if ruling.where == home else inner.y + inner.height / 2
            x, end = frame.x - 9, frame.x + PAD if ruling.where == home else inner.x
            points = ((frame.x, y), (x, y), (x, level), (end, level))
            self.under.append(Line(points, Role.SERVICE, 1.4, RULED))
            self.under.append(arrowhead((end, level), (1, 0), Role.SERVICE))

    def ruling(self) -> Step:
        """The step that rewrote the Service's address, or ended its packet: the first that happened in a column."""
        rewriting = (step for step in self.trace.steps if step.action is Action.DNAT)
        columns = self.plan.frames
        inside = (step for step in rewriting if self.plan.spots.get((step.where, STACK), _NOWHERE).column in columns)
        return next(inside, self.trace.steps[-1])

    def translations(self) -> None:
        """What the kernel of a machine rewrote, written into its row."""
        notes: dict[str, list[str]] = {}
        for before, step in pairwise(self.steps):
            if step.action in TRANSLATIONS and self.plan.spots.get((step.where, STACK), _NOWHERE).kind in _NOTED:
                for change in changes(before.packet, step.packet):
                    note = f"{_NAMES[step.action]} → {change.rpartition(' → ')[2]}"
                    held = notes.setdefault(step.where, [])
                    if note not in held:
                        held.append(note)
        for where, held in notes.items():
            spot = self.plan.spots[where, STACK]
            x, y = (
                (self.plan.frames[where].x + PAD + 8, spot.y + 1) if spot.kind == "row" else (spot.inside, spot.y - 7)
            )
            for line, note in enumerate(held[:2]):
                text = note if line == 0 or len(held) == 2 else f"{note} …"
                words = fitted(text, 150 if spot.kind == "row" else 240, 8.5, "bold")
                self.under.append(Label(x, y + 13.5 * line, words, Role.INK, 8.5, "left", "bold"))
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
        hops, marks = routed(self.plan, stops)
        self.lines.extend(Line(hop, Role.PAPER, 4.6) for hop in hops)
        for hop in hops:
            self.lines.append(Line(hop, flow.role, 2.2, flow.dash))
            self.lines.extend(_heads(hop, flow.role))
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
_NOTED = ("row", "bar")
"""Kinds of spots with room for what was rewritten there."""


def _destination(step: Step) -> str:
    """Where the packet is for, with its port."""
    for ip, inside in pairwise(step.packet.headers):
        if isinstance(ip, IPv4 | IPv6) and isinstance(inside, TCP | UDP | SCTP):
            return endpoint(ip.dst, inside.dport)
    return ""


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


def _heads(points: Sequence[Point], role: Role) -> Iterator[Box]:
    """An arrowhead in the longest stretch of a hop, where there is room for one."""
    stretches = (((x2 - x1, y2 - y1), (x1, y1)) for (x1, y1), (x2, y2) in pairwise(points))
    (dx, dy), (x, y) = max(stretches, key=lambda stretch: abs(stretch[0][0]) + abs(stretch[0][1]))
    if abs(dx) + abs(dy) >= 34:
        yield arrowhead((x + 0.62 * dx, y + 0.62 * dy), (dx, dy), role, 8.5)
