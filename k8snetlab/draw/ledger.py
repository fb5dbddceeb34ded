"""What was written, how much of it, and which slices are left?

`ledger` has a row for the EndpointSlices of each ledger that it is given, and one for the Endpoints object: how often
it was written in the last turn, how many bytes that sent to one watcher, and, for slices, how full each is. `growth`
takes ledgers of more and more pods and draws the bytes of their last turns as two lines.

Slices and Endpoints have a colour each, and their names beside it; the line of Endpoints is dashed.

Not modelled: time between writes. Guide section 5.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from k8snetlab.draw.drawing import Drawing
from k8snetlab.draw.lettering import fitted
from k8snetlab.draw.marks import Box, Label, Line, Mark, Point, sheet
from k8snetlab.draw.theme import Role, theme_of
from k8snetlab.services.churn import Ledger
from k8snetlab.services.writes import Tally

__all__ = ["growth", "ledger"]

MARGIN = 16
NAMES, WRITES, BYTES = 170, 210, 290
TANKS, TANK, MOST_TANKS = 216, 14, 10
PITCH, TALL, TOP = 46, 20, 62
WIDE = MARGIN + NAMES + WRITES + BYTES + TANKS + MARGIN


class _Row(NamedTuple):
    """One line of the picture."""

    name: str
    tally: Tally
    sizes: tuple[int, ...]
    most: int
    role: Role


def ledger(*ledgers: Ledger, theme: str = "light") -> Drawing:
    """The last turn of each ledger, and of the Endpoints object of the first.

    They should be ledgers of one Service that went through the same, with slices of other sizes. Raises `UnknownName`
    for a theme that does not exist.
    """
    theme_of(theme)
    first = ledgers[0]
    turn = first.last
    rows = [
        _Row(f"slices of {one.slices.most}", one.last.slices, one.last.sizes, one.slices.most, Role.REQUEST)
        for one in ledgers
    ]
    rows.append(_Row("one Endpoints object", turn.endpoints, (), 0, Role.SERVICE))
    service = first.slices.service.key
    title = f"{service}: {turn.what}"
    heads = ((0, "writes"), (WRITES, "bytes to each watcher"), (WRITES + BYTES, "how full its slices are"))
    marks: list[Mark] = [
        Label(MARGIN, MARGIN + 8, fitted(title, NAMES + WRITES + BYTES, 12, "bold"), Role.INK, 12, "left", "bold"),
        Label(WIDE - MARGIN, MARGIN + 8, f"{turn.pods:,} pods after {turn.events:,} events", Role.FAINT, 9.5, "right"),
        *(Label(MARGIN + NAMES + x, MARGIN + 30, head, Role.FAINT, 9.5) for x, head in heads),
    ]
    writes = max(row.tally.writes for row in rows) or 1
    sent = max(row.tally.bytes for row in rows) or 1
    for at, row in enumerate(rows):
        marks += _row(row, TOP + at * PITCH + TALL / 2, writes, sent)
    alt = (f"{service}: {turn.what}, {turn.pods:,} pods after {turn.events:,} events.", *map(_said, rows))
    return Drawing(WIDE, TOP + len(rows) * PITCH, (sheet(marks),), (), alt, theme)


def _row(row: _Row, y: float, writes: int, sent: int) -> Iterator[Mark]:
    yield Label(MARGIN, y, row.name, Role.INK, 10.5)
    left = MARGIN + NAMES
    yield from _bar(left, y, (WRITES - 70) * row.tally.writes / writes, f"{row.tally.writes:,}", row.role)
    yield from _bar(left + WRITES, y, (BYTES - 100) * row.tally.bytes / sent, f"{row.tally.bytes:,}", row.role)
    left += WRITES + BYTES
    for at, size in enumerate(row.sizes[:MOST_TANKS]):
        yield from _tank(left + at * (TANK + 4), y, size / row.most)
    if len(row.sizes) > MOST_TANKS:
        yield Label(left + MOST_TANKS * (TANK + 4) + 2, y, f"+{len(row.sizes) - MOST_TANKS}", Role.FAINT, 9)


def _bar(x: float, y: float, long: float, said: str, role: Role) -> Iterator[Mark]:
    yield Box(x, y - TALL / 2, max(1.5, long), TALL, role, role, 2)
    yield Label(x + max(1.5, long) + 6, y, said, Role.INK, 10, "left", "bold")


def _tank(x: float, y: float, full: float) -> Iterator[Mark]:
    tall = TALL + 6
    yield Box(x, y - tall / 2, TANK, tall, Role.DEVICE, Role.FRAME, 1.5)
    if full:
        yield Box(x, y + tall / 2 - tall * full, TANK, tall * full, Role.REQUEST, Role.NONE, 1)


def _said(row: _Row) -> str:
    sizes = "+".join(map(str, row.sizes[:MOST_TANKS])) + ("+…" if len(row.sizes) > MOST_TANKS else "")
    count = len(row.sizes)
    held = f"; {count} slice{'' if count == 1 else 's'} now: {sizes}" if row.sizes else ""
    times = f"{row.tally.writes:,} write{'' if row.tally.writes == 1 else 's'}"
    return f"{row.name}: {times}, {row.tally.bytes:,} bytes to each watcher{held}."


# Lines

LEFT, RIGHT, GROUND, HIGH = 92, 160, 44, 250
CHART = 920
STEPS = (1, 2, 2.5, 5, 10)


def growth(ledgers: Sequence[Ledger], *, theme: str = "light") -> Drawing:
    """Bytes to each watcher in the last turn, by the number of pods: two lines through all ledgers, fewest pods first.

    Raises `UnknownName` for a theme that does not exist.
    """
    theme_of(theme)
    turns = sorted((one.last for one in ledgers), key=lambda turn: turn.pods)
    pods, most = turns[-1].pods, max(max(turn.slices.bytes, turn.endpoints.bytes) for turn in turns)
    top = MARGIN + 44

    def place(x: float, y: float) -> Point:
        return LEFT + x / pods * (CHART - LEFT - RIGHT), top + HIGH - y / most * HIGH

    title = f"{ledgers[0].slices.service.key}: {turns[-1].what}"
    marks: list[Mark] = [
        Label(MARGIN, MARGIN + 8, fitted(title, CHART - 2 * MARGIN, 12, "bold"), Role.INK, 12, "left", "bold"),
        Label(MARGIN, MARGIN + 28, "bytes to each watcher", Role.FAINT, 9.5),
        Label(place(pods, 0)[0] + 32, top + HIGH + 18, "pods", Role.FAINT, 9.5),
    ]
    for value in _ticks(most):
        marks.append(Line((place(0, value), place(pods, value)), Role.FRAME, 0.5))
        marks.append(Label(LEFT - 8, place(0, value)[1], f"{value:,}", Role.FAINT, 9, "right"))
    marks += [
        Label(place(value, 0)[0], top + HIGH + 18, f"{value:,}", Role.FAINT, 9, "center") for value in _ticks(pods)
    ]
    lines = (
        ("EndpointSlices", Role.REQUEST, (), [turn.slices.bytes for turn in turns]),
        ("Endpoints", Role.SERVICE, (7.0, 4.0), [turn.endpoints.bytes for turn in turns]),
    )
    for name, role, dash, found in lines:
        points = tuple(place(turn.pods, value) for turn, value in zip(turns, found, strict=True))
        marks.append(Line(points, role, 2.4, dash))
        marks += [Box(x - 3, y - 3, 6, 6, role, Role.PAPER, 3) for x, y in points]
        marks.append(Label(points[-1][0] + 12, points[-1][1], name, Role.INK, 10.5, "left", "bold"))
    alt = [f"{title}. Bytes to each watcher, by the number of pods."]
    alt += [
        f"{turn.pods:,} pods: EndpointSlices {turn.slices.bytes:,}, Endpoints {turn.endpoints.bytes:,}."
        for turn in turns
    ]
    return Drawing(CHART, top + HIGH + GROUND, (sheet(marks),), (), tuple(alt), theme)


def _ticks(most: int) -> list[int]:
    """Round numbers from 0, at most six of them."""
    size = 10 ** max(0, len(str(most)) - 2)
    step = next(int(each * size) for each in (*STEPS, 20, 25, 50, 100) if most / (each * size) <= 5)
    return list(range(0, most + 1, step))
