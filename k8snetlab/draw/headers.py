"""What is on the wire, header by header?

A row for every change of the packet: what was sent, each rewriting, each header put on or taken off, what arrived.
The innermost headers stand under each other at the right, so that a tunnel's headers are seen to be pushed on at the
left. What differs from the row above has a strong outline; the bytes of all headers add up at the right.

Not modelled: fields that change at every hop without anybody caring (time to live, check sums). Guide section 2.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import fsum
from typing import NamedTuple

from k8snetlab.draw.drawing import Drawing
from k8snetlab.draw.lettering import fitted, width
from k8snetlab.draw.marks import Box, Label, Mark, sheet
from k8snetlab.draw.theme import Role, theme_of
from k8snetlab.packet import (
    ARP,
    ESP,
    ICMP,
    SCTP,
    TCP,
    UDP,
    VXLAN,
    Ethernet,
    Geneve,
    Header,
    IPv4,
    IPv6,
    Packet,
    Sleeve,
    WireGuard,
)
from k8snetlab.trace import FATES, Action, Step, Trace

__all__ = ["Part", "Row", "headers", "parts", "rows"]

MARGIN, PLACE, TOTAL = 16, 190, 66
TALL, GAP, BETWEEN = 46, 8, 3
_NEVER = (Action.ARP, Action.RULE, Action.ROUTE, Action.FORWARD)


class Part(NamedTuple):
    """One header as it is written: its name with its bytes, two lines, a colour."""

    name: str
    length: int
    lines: tuple[str, ...]
    role: Role


class Row(NamedTuple):
    """The packet after a step, outermost header first; `new` counts the parts, from the inside, that the row above
    lacks."""

    step: Step
    parts: tuple[Part, ...]
    new: frozenset[int]


def headers(of: Trace | Sequence[Step], *, theme: str = "light") -> Drawing:
    """The header stack of a packet along its path: of the request of a trace, or of any steps (`trace.reply`).

    Raises `UnknownName` for a theme that does not exist.
    """
    theme_of(theme)
    found = rows(of.steps if isinstance(of, Trace) else of)
    columns = _columns(found)
    right = MARGIN + PLACE + fsum(columns) + BETWEEN * len(columns)
    marks: list[Mark] = [
        Box(MARGIN, MARGIN, 18, 12, Role.NONE, Role.INK, 3, 2.4),
        Label(MARGIN + 25, MARGIN + 6, "new, or other than in the row above", Role.FAINT, 9),
        Label(right + TOTAL, MARGIN + 6, "bytes", Role.FAINT, 9, "right"),
    ]
    alt = [f"The headers of a packet along its path, in {len(found)} rows, outermost first."]
    y = MARGIN + 24.0
    for row in found:
        marks += _row(row, columns, right, y)
        alt.append(_said(row))
        y += TALL + GAP
    return Drawing(round(right + TOTAL + MARGIN), round(y + MARGIN - GAP), (sheet(marks),), (), tuple(alt), theme)


def rows(steps: Sequence[Step]) -> tuple[Row, ...]:
    """The steps after which the packet has other headers than before, and those with which a path begins and ends."""
    found: list[Row] = []
    for step in steps:
        if step.action in _NEVER or isinstance(step.packet.headers[-1], ARP):
            continue
        held = tuple(parts(step.packet))
        if found and found[-1].parts == held and step.action not in FATES:
            continue
        above = found[-1].parts[::-1] if found else held[::-1]
        new = frozenset(at for at, part in enumerate(held[::-1]) if at >= len(above) or above[at] != part)
        found.append(Row(step, held, new))
    return tuple(found)


def parts(packet: Packet) -> list[Part]:
    """The headers of a packet and its payload, outermost first."""
    found = [_part(header) for header in packet.headers]
    if packet.payload:
        found.append(Part("data", len(packet.payload), ("",), Role.PAYLOAD))
    return found


def _part(header: Header) -> Part:
    name, role = _KINDS[type(header)]
    length = header.length + (header.quoted if isinstance(header, ICMP) else 0)
    return Part(name, length, _lines(header), role)


_KINDS: Mapping[type, tuple[str, Role]] = {
    Ethernet: ("Ethernet", Role.ETHERNET),
    ARP: ("ARP", Role.ETHERNET),
    IPv4: ("IPv4", Role.IP),
    IPv6: ("IPv6", Role.IP),
    TCP: ("TCP", Role.PORTS),
    UDP: ("UDP", Role.PORTS),
    SCTP: ("SCTP", Role.PORTS),
    ICMP: ("ICMP", Role.PORTS),
    VXLAN: ("VXLAN", Role.TUNNEL),
    Geneve: ("Geneve", Role.TUNNEL),
    WireGuard: ("WireGuard", Role.TUNNEL),
    ESP: ("ESP", Role.TUNNEL),
    Sleeve: ("sleeve", Role.TUNNEL),
}


def _lines(header: Header) -> tuple[str, ...]:
    match header:
        case Ethernet() | IPv4() | IPv6():
            return header.src, f"→ {header.dst}"
        case TCP():
            return f"{header.sport} → {header.dport}", f"[{header.flags}]"
        case UDP() | SCTP():
            return (f"{header.sport} → {header.dport}",)
        case VXLAN():
            return (f"vni {header.vni}",)
        case WireGuard():
            return "inside: encrypted", f"padding {header.padding}"
        case ESP():
            return (f"spi {header.spi:#x}",)
        case Sleeve():
            return header.src, f"→ {header.dst}"
        case _:
            return (str(header).removeprefix("ICMP "),)


def _columns(found: Sequence[Row]) -> list[float]:
    """The width of each column, the innermost header's first."""
    columns: list[float] = []
    for row in found:
        for at, part in enumerate(reversed(row.parts)):
            needed = max(width(_title(part), 9, "bold"), *(width(line, 8.5) for line in part.lines)) + 16
            if at == len(columns):
                columns.append(needed)
            columns[at] = max(columns[at], needed)
    return columns


def _title(part: Part) -> str:
    return f"{part.name}  {part.length} B"


def _row(row: Row, columns: Sequence[float], right: float, y: float) -> list[Mark]:
    step, middle = row.step, y + TALL / 2
    lost = step.action in FATES and step.action is not Action.DELIVER
    place = f"{step.where} {step.device}".strip()
    marks: list[Mark] = [
        Label(MARGIN, middle - 8, fitted(place, PLACE - 12, 9.5, "bold"), Role.INK, 9.5, "left", "bold"),
        Label(
            MARGIN,
            middle + 8,
            str(step.action),
            Role.LOST if lost else Role.FAINT,
            9,
            "left",
            "bold" if lost else "normal",
        ),
    ]
    x = right
    for at, part in enumerate(reversed(row.parts)):
        x -= columns[at] + BETWEEN
        fresh = at in row.new
        marks.append(
            Box(x, y, columns[at], TALL, part.role, Role.INK if fresh else Role.FRAME, 4, 2.4 if fresh else 0.8)
        )
        marks.append(Label(x + 8, y + 10, _title(part), Role.INK, 9, "left", "bold"))
        for line, text in enumerate(part.lines):
            marks.append(Label(x + 8, y + 23.5 + 12.5 * line, text, Role.INK, 8.5))
    total = sum(part.length for part in row.parts)
    marks.append(Label(right + TOTAL, middle, f"{total:,}", Role.INK, 10, "right", "bold"))
    return marks


def _said(row: Row) -> str:
    stack = " | ".join(f"{part.name} {' '.join(part.lines)}".strip() for part in row.parts)
    total = sum(part.length for part in row.parts)
    place = f"{row.step.where} {row.step.device}".strip()
    return f"{place}, {row.step.action}: {stack}; {total:,} bytes."
