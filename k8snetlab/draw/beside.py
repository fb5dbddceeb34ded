"""What does one flow carry on each of several networks?

A row for each network: the headers of the largest frame on the way, outermost at the left, as wide as they have bytes.
The ends of the frames stand under each other at the right, so that what a network adds is what juts out at the left.
Under each row stand the machines and devices that the packet passed.

The scale holds for headers. A payload is cut short, for it would leave no room for them.

Not modelled: the headers of each change on the way; `headers` shows them for one trace. Guide sections 2.1 and 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from k8snetlab.draw.drawing import PAGE, Drawing
from k8snetlab.draw.headers import Part, parts
from k8snetlab.draw.lettering import fitted, width, wrapped
from k8snetlab.draw.marks import Box, Label, Line, Mark, cross, sheet
from k8snetlab.draw.theme import Role, theme_of
from k8snetlab.errors import BadOption
from k8snetlab.trace import Trace
from k8snetlab.trace.beside import Side, sides

__all__ = ["side_by_side"]

MARGIN, HEAD = 16, 44
NAME, TOTAL, PAYLOAD = 152, 94, 58
TALL, LINE, GAP = 26, 13, 12
WIDEST = 7.0
"""Pixels for a byte, at most."""


def side_by_side(traces: Mapping[str, Trace], *, theme: str = "light") -> Drawing:
    """The headers and the path of one flow on several networks, by their names.

    Raises `UnknownName` for a theme that does not exist, `BadOption` for no traces.
    """
    theme_of(theme)
    if not traces:
        raise BadOption("there must be at least one trace to draw")
    found = sides(traces)
    most = max((sum(part.length for part in _headers(side)) for side in found), default=0)
    right = PAGE - MARGIN - TOTAL - PAYLOAD
    scale = min(WIDEST, (right - MARGIN - NAME) / max(most, 1))
    marks = [*_head(found, right, scale)]
    alt = [f"One flow on {len(found)} networks: the largest frame on the way, and the path."]
    y = float(HEAD + MARGIN)
    for side in found:
        marks += _row(side, right, scale, y)
        lines = _path(side)
        marks += [
            Label(MARGIN + NAME, y + TALL + 9 + LINE * at, text, Role.FAINT, 8.5) for at, text in enumerate(lines)
        ]
        alt.append(_said(side))
        y += TALL + LINE * len(lines) + GAP
    return Drawing(PAGE, round(y + MARGIN - GAP + 4), (sheet(marks),), (), tuple(alt), theme)


def _head(found: Sequence[Side], right: float, scale: float) -> Iterator[Mark]:
    """Who asks whom, and how long ten bytes are."""
    request = found[0].trace.request
    asked = f"{request.source} → {request.target}"
    yield Label(MARGIN, MARGIN + 8, fitted(asked, right - MARGIN, 12, "bold"), Role.INK, 12, "left", "bold")
    y, start = MARGIN + 32.0, right - 20 * scale
    yield Line(((start, y - 3), (start, y), (right, y), (right, y - 3)), Role.FRAME, 1.2)
    yield Label(start - 7, y - 2, "20 bytes of header", Role.FAINT, 9, "right")
    yield Label(MARGIN, y - 2, "network", Role.FAINT, 9)
    yield Label(PAGE - MARGIN, y - 2, "bytes on the wire", Role.FAINT, 9, "right")


def _headers(side: Side) -> list[Part]:
    return [part for part in parts(side.wire) if part.role is not Role.PAYLOAD] if side.wire is not None else []


def _row(side: Side, right: float, scale: float, y: float) -> Iterator[Mark]:
    middle = y + TALL / 2
    yield Label(MARGIN, middle, fitted(side.name, NAME - 12, 10, "bold"), Role.INK, 10, "left", "bold")
    if side.trace.backend is None:
        yield from cross(MARGIN + NAME - 16, middle, 4.5)
    if side.wire is None:
        room = PAGE - 2 * MARGIN - NAME
        yield Label(MARGIN + NAME, middle, fitted(side.trace.reason, room, 9), Role.INK, 9)
        return
    x = right
    for part in reversed(_headers(side)):
        long = part.length * scale
        x -= long
        yield Box(x, y, long, TALL, part.role, Role.FRAME, 2, 1.0)
        yield from _written(part, x, long, y)
    if side.wire.payload:
        yield Box(right, y, PAYLOAD - 6, TALL, Role.PAYLOAD, Role.FRAME, 2, 1.0)
        yield Label(right + (PAYLOAD - 6) / 2, middle, f"… {len(side.wire.payload):,} …", Role.INK, 8.5, "center")
    total = f"{side.wire.length:,}"
    yield Label(PAGE - MARGIN, middle, total, Role.INK, 11, "right", "bold")
    if side.added:
        edge = PAGE - MARGIN - width(total, 11, "bold") - 9
        yield Label(edge, middle, f"+{side.added}", Role.FAINT, 9.5, "right")


def _written(part: Part, x: float, long: float, y: float) -> Iterator[Mark]:
    """The name of a header, as large as there is room for, over its bytes."""
    size = next((size for size in (8.5, 8.0, 7.5, 7.0, 6.5, 6.0) if width(part.name, size, "bold") <= long - 2), 0.0)
    if size:
        yield Label(x + long / 2, y + 8.5, part.name, Role.INK, size, "center", "bold")
    if width(str(part.length), 8) <= long:
        yield Label(x + long / 2, y + (19 if size else TALL / 2), str(part.length), Role.INK, 8, "center")


def _path(side: Side) -> tuple[str, ...]:
    hops = " → ".join(str(hop) for hop in side.between or side.hops)
    lives = f"TTL −{side.spent}" if side.spent else "TTL as sent"
    return wrapped(f"{hops}   ({lives})" if hops else "", PAGE - 2 * MARGIN - NAME, 8.5)


def _said(side: Side) -> str:
    if side.wire is None:
        return f"{side.name}: nothing is sent: {side.trace.reason}."
    stack = " | ".join(f"{part.name} {part.length}" for part in parts(side.wire))
    added = f", {side.added} of them added on the way" if side.added else ""
    lost = f" The packet is lost: {side.trace.reason}." if side.trace.backend is None else ""
    spent = f"is {side.spent} less at the end" if side.spent else "stays as it was"
    way = f"It passes {', '.join(str(hop) for hop in side.hops)}; its TTL {spent}."
    return f"{side.name}: {stack}; {side.wire.length:,} bytes{added}. {way}{lost}"
