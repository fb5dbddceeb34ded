"""Who did what, in which order?

A ladder: every machine is a column, time runs downwards. A frame on a cable is an arrow, dashed on the way back; what
changes the packet or ends it is a note in the column of the machine that did it.

Not modelled: how long anything takes; rules and decisions that only pass the packet on. Guide sections 2.1 and 2.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from k8snetlab.draw.drawing import Drawing
from k8snetlab.draw.lettering import fitted, width, wrapped
from k8snetlab.draw.marks import Box, Label, Line, Mark, arrowhead, cross, sheet
from k8snetlab.draw.theme import Role, theme_of
from k8snetlab.trace import FATES, Action, Step, Trace
from k8snetlab.trace.prose import changes
from k8snetlab.trace.table import brief

__all__ = ["trace"]

MARGIN, COLUMN, HEAD = 16, 236, 30
NOTE, LINE, GAP = 14.0, 12.0, 9.0


class Event(NamedTuple):
    """A rung of the ladder: a step, who got the frame (empty: nobody, or no frame), the words, and how it ended
    there."""

    step: Step
    taker: str
    words: tuple[str, ...]
    role: Role


def trace(of: Trace, *, theme: str = "light") -> Drawing:
    """The ladder of a trace: the request, and under it the reply. Raises `UnknownName` for a theme that does not
    exist."""
    theme_of(theme)
    events = [*_events(of.steps, Role.REQUEST), *_events(of.reply, Role.REPLY)]
    names = list(dict.fromkeys(step.where for step in (*of.steps, *of.reply)))
    columns = {name: MARGIN + COLUMN * (at + 0.5) for at, name in enumerate(names)}
    marks: list[Mark] = []
    asked = f"{of.request.source} → {of.request.target}: {of.fate}, client {of.client}"
    alt = [f"Who did what on the way of a packet, {asked}."]
    y = MARGIN + HEAD + 14.0
    for number, event in enumerate(events, 1):
        marks_of, y = (_arrow if event.step.action is Action.TRANSMIT else _note)(event, columns, y)
        marks += marks_of
        alt.append(f"{number} {_said(event)}")
    back = [_head(name, x) for name, x in columns.items()]
    lifelines = [Line(((x, MARGIN + HEAD), (x, y)), Role.FRAME, 1.0, (2.0, 3.0)) for x in columns.values()]
    grounds = (sheet(lifelines), sheet([*(mark for marks_of in back for mark in marks_of), *marks]))
    wide = round(2 * MARGIN + COLUMN * max(1, len(names)))
    return Drawing(wide, round(y + MARGIN), grounds, (), tuple(alt), theme)


def _head(name: str, x: float) -> list[Mark]:
    shown = fitted(name, COLUMN - 30, 10, "bold")
    return [
        Box(x - COLUMN / 2 + 8, MARGIN, COLUMN - 16, HEAD, Role.DEVICE, Role.FRAME, 5, 1.2),
        Label(x, MARGIN + HEAD / 2, shown, Role.INK, 10, "center", "bold"),
    ]


def _events(steps: Sequence[Step], role: Role) -> Iterator[Event]:
    for at, step in enumerate(steps):
        words = tuple(_words(steps, at))
        if words:
            ended = step.action in FATES and step.action is not Action.DELIVER
            yield Event(step, _taker(steps, at), words, Role.LOST if ended else role)


def _words(steps: Sequence[Step], at: int) -> list[str]:
    """What is written about a step; nothing where it only passed the packet on."""
    step = steps[at]
    match step.action:
        case Action.TRANSMIT:
            outer, *inner = reversed(brief(step.packet))
            return [outer, *(f"inside {words}" for words in inner)]
        case Action.DNAT | Action.SNAT | Action.CONNTRACK:  # at a socket there is no packet before
            return changes(steps[at - 1].packet, step.packet) if at else [step.why]
        case Action.ENCAPSULATE:
            return [f"{step.packet.length - step.packet.innermost.length} bytes of headers more"]
        case action if action in _TOLD or action in FATES:
            return [step.why]
        case _:
            return []


_TOLD = (Action.SEND, Action.DECAPSULATE, Action.FRAGMENT, Action.REASSEMBLE, Action.ICMP)


def _taker(steps: Sequence[Step], at: int) -> str:
    """Who got the frame that was put on a cable: the next step elsewhere with the very same frame is his."""
    sent = steps[at]
    if sent.action is not Action.TRANSMIT:
        return ""
    later = (step for step in steps[at + 1 :] if step.packet == sent.packet)
    return next((step.where for step in later if (step.where, step.device) != (sent.where, sent.device)), "")


def _arrow(event: Event, columns: Mapping[str, float], y: float) -> tuple[list[Mark], float]:
    start = columns[event.step.where]
    end = columns[event.taker] if event.taker else start + COLUMN / 2 - 12
    room = max(abs(end - start), COLUMN) - 26
    inner, *outer = (wrapped(words, room, 8.5) for words in event.words)
    words = [*inner, *(line for lines in outer for line in lines)]
    level = y + LINE * len(words) + 4
    dash = (7.0, 4.0) if event.role is Role.REPLY else ()
    marks: list[Mark] = [Line(((start, level), (end, level)), event.role, 2.0, dash)]
    forward = 1 if end >= start else -1
    marks += [arrowhead((end, level), (forward, 0), event.role, 9)] if event.taker else cross(end, level, 5)
    middle = (start + end) / 2
    for at, line in enumerate(words):
        marks += _lettered(middle, y + LINE * at + 2, line, Role.INK if at < len(inner) else Role.FAINT)
    return marks, level + GAP + 3


def _lettered(x: float, y: float, text: str, role: Role) -> list[Mark]:
    """A text that hides the line under it."""
    long = width(text, 8.5)
    return [
        Box(x - long / 2 - 3, y - 6, long + 6, 12, Role.PAPER, Role.NONE, 0, 0),
        Label(x, y, text, role, 8.5, "center"),
    ]


def _note(event: Event, columns: Mapping[str, float], y: float) -> tuple[list[Mark], float]:
    x = columns[event.step.where]
    left, room = x - COLUMN / 2 + 12, COLUMN - 40
    lines = [line for words in event.words for line in wrapped(words, room, 8.5, 3)]
    tall = NOTE + 8 + LINE * len(lines)
    strong = event.step.action in FATES
    box = Box(left, y, COLUMN - 24, tall, Role.CONTAINER, event.role, 4, 2.2 if strong else 1.2)
    marks: list[Mark] = [box, Label(left + 8, y + 10, str(event.step.action), Role.INK, 9, "left", "bold")]
    if event.step.device:
        marks.append(Label(left + COLUMN - 32, y + 10, fitted(event.step.device, 70, 8.5), Role.FAINT, 8.5, "right"))
    marks += [Label(left + 8, y + NOTE + 9 + LINE * at, line, Role.INK, 8.5) for at, line in enumerate(lines)]
    if event.role is Role.LOST:
        marks += cross(left + COLUMN - 24, y, 5)
    return marks, y + tall + GAP


def _said(event: Event) -> str:
    step = event.step
    place = f"{step.where} {step.device}".strip()
    to = f" to {event.taker or 'nobody'}" if step.action is Action.TRANSMIT else ""
    return f"{place}: {step.action}{to}, {'; '.join(event.words)}."
