"""Which addresses are whose?

The networks of a cluster as bars on number lines. Networks that share addresses stand over the same line, all others
have a line of their own, so that a line is never mostly empty. What is too small to be read on its line is drawn once
more, enlarged, on a line below. Where two networks overlap that must not, a dashed frame and a cross mark it.

Not modelled: single addresses. Guide section 1.2; RFC 4632.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from k8snetlab.address import AddressPlan, Prefix, Range, text
from k8snetlab.draw.drawing import Drawing
from k8snetlab.draw.lettering import fitted, width
from k8snetlab.draw.marks import Box, Label, Line, Mark, cross, sheet
from k8snetlab.draw.theme import Role, theme_of

__all__ = ["plan"]

MARGIN, WIDE = 18, 820
TALL, GAP, SLIVER, ENLARGING, BETWEEN = 36, 5, 12, 26, 26
LISTED = 6
READABLE = 104.0
"""Pixels that a bar needs to have its name on it."""

_ROLES: Mapping[str, Role] = {
    "underlay": Role.ETHERNET,
    "pods": Role.IP,
    "node pods": Role.PORTS,
    "shares": Role.PORTS,
    "services": Role.TUNNEL,
    "load balancers": Role.TUNNEL,
    "outside": Role.PAYLOAD,
}


class Span(NamedTuple):
    """A part of the address space: from `low` up to, not including, `high`."""

    low: int
    high: int
    family: int

    def x(self, address: int) -> float:
        """Where an address stands on the line of this span."""
        return MARGIN + WIDE * (min(max(address, self.low), self.high) - self.low) / (self.high - self.low)

    def long(self, block: Prefix) -> float:
        return self.x(block.base + block.size) - self.x(block.base)


def plan(of: AddressPlan, *, theme: str = "light") -> Drawing:
    """The networks of an address plan. Raises `UnknownName` for a theme that does not exist."""
    theme_of(theme)
    marks: list[Mark] = []
    alt = [f"An address plan of {len(of.ranges)} networks; {'some overlap' if of.overlaps else 'none overlap'}."]
    y = float(MARGIN)
    for group in _groups(of.ranges):
        alt += _said(group)
        y = _line(of, group, _around(group), y, marks) + BETWEEN
    said = [
        f"{first.name} ({first.block}) and {second.name} ({second.block}) overlap" for first, second in _clashes(of)
    ]
    alt += [f"{words}." for words in said]
    for words in said[:LISTED] + [f"and {len(said) - LISTED} more"] * (len(said) > LISTED):
        marks += cross(MARGIN + 5, y, 4.5)
        marks.append(Label(MARGIN + 18, y, fitted(words, WIDE - 20, 9.5), Role.INK, 9.5))
        y += 18
    return Drawing(
        WIDE + 2 * MARGIN, round(y + MARGIN - (0 if said else BETWEEN)), (sheet(marks),), (), tuple(alt), theme
    )


def _clashes(of: AddressPlan) -> list[tuple[Range, Range]]:
    """The overlaps that need saying: where the pods' network overlaps another, each node's part of it goes without."""
    said = set(of.overlaps)

    def implied(part: Range, other: Range) -> bool:
        wholes = [
            held
            for held in of.ranges
            if part.kind in ("node pods", "shares") and held.kind == "pods" and held.block.covers(part.block)
        ]
        return any((whole, other) in said or (other, whole) in said for whole in wholes)

    return [(one, two) for one, two in of.overlaps if not implied(one, two) and not implied(two, one)]


def _groups(ranges: Sequence[Range]) -> list[list[Range]]:
    """Networks that share addresses together, in the order of addresses."""
    groups: list[list[Range]] = []
    for each in sorted(ranges, key=lambda held: (held.block.family, held.block.base, -held.block.size, held.name)):
        if groups and any(each.block.overlaps(held.block) for held in groups[-1]):
            groups[-1].append(each)
        else:
            groups.append([each])
    return groups


def _around(group: Sequence[Range]) -> Span:
    """The smallest block around some networks."""
    low = min(held.block.base for held in group)
    last = max(held.block.base + held.block.size - 1 for held in group)
    bits = (low ^ last).bit_length()
    return Span(low >> bits << bits, (last >> bits) + 1 << bits, group[0].block.family)


def _line(of: AddressPlan, group: Sequence[Range], span: Span, top: float, marks: list[Mark]) -> float:
    """One number line with its bars, and under it the enlarged part; gives where it ends."""
    large = [held for held in group if span.long(held.block) >= READABLE]
    small = [held for held in group if span.long(held.block) < READABLE]
    y = top
    for row in _rows(large):
        for held in row:
            marks += _bar(held, span, y)
        y += TALL + GAP
    if small:
        for held in small:
            x = span.x(held.block.base)
            role = _ROLES[held.kind]
            marks.append(Box(x, y, max(2.0, span.long(held.block)), SLIVER, role, Role.FRAME, 0, 0.8))
        y += SLIVER + GAP
    marks += _overlapping(of, group, span, top, y - GAP)
    marks.append(Line(((MARGIN, y), (MARGIN + WIDE, y)), Role.FRAME, 1.2))
    first, last = text(span.low, span.family), text(span.high - 1, span.family)
    marks.append(Box(MARGIN, y + 4, width(first, 8.5), 12, Role.PAPER, Role.NONE, 0, 0))
    marks.append(Label(MARGIN, y + 10, first, Role.FAINT, 8.5))
    marks.append(Label(MARGIN + WIDE, y + 10, last, Role.FAINT, 8.5, "right"))
    if not small:
        return y + 16
    inner = _around(small)
    if 1.5 * (inner.high - inner.low) > span.high - span.low:
        names = f"{small[0].name} … {small[-1].name}: {len(small)} blocks"
        marks.append(Label(MARGIN + WIDE / 2, y + 10, names, Role.FAINT, 8.5, "center"))
        return y + 16
    below = y + 18 + ENLARGING
    for address, x in ((inner.low, MARGIN), (inner.high, MARGIN + WIDE)):
        marks.append(Line(((span.x(address), y), (span.x(address), y + 18), (x, below)), Role.FRAME, 1.0, (2.0, 3.0)))
    return _line(of, small, inner, below + 4, marks)


def _rows(ranges: Sequence[Range]) -> list[list[Range]]:
    """Rows of networks that do not touch each other, large networks first."""
    rows: list[list[Range]] = []
    for held in sorted(ranges, key=lambda each: (-each.block.size, each.block.base, each.name)):
        free = next((row for row in rows if not any(held.block.overlaps(other.block) for other in row)), None)
        if free is None:
            rows.append([held])
        else:
            free.append(held)
    return rows


def _bar(held: Range, span: Span, y: float) -> list[Mark]:
    x, long = span.x(held.block.base), span.long(held.block)
    block = f"{held.block}  {held.block.size:,} addresses" if held.block.family == 4 else str(held.block)
    if width(block, 8.5) > long - 14:
        block = str(held.block)
    return [
        Box(x, y, long, TALL, _ROLES[held.kind], Role.FRAME, 3),
        Label(x + 8, y + 11, fitted(held.name, long - 14, 9.5, "bold"), Role.INK, 9.5, "left", "bold"),
        Label(x + 8, y + 25.5, fitted(block, long - 14, 8.5), Role.INK, 8.5),
    ]


def _overlapping(of: AddressPlan, group: Sequence[Range], span: Span, top: float, bottom: float) -> list[Mark]:
    """Frames around the addresses of this line that two networks claim."""
    marks: list[Mark] = []
    for low, high in _claimed_twice(of, group, span):
        x, long = span.x(low), max(4.0, span.x(high) - span.x(low))
        marks.append(Box(x - 2, top - 4, long + 4, bottom - top + 8, Role.NONE, Role.LOST, 3, 2.4, (6.0, 3.0)))
        marks += cross(x + long - 1, top - 3, 4.5)
    return marks


def _claimed_twice(of: AddressPlan, group: Sequence[Range], span: Span) -> list[tuple[int, int]]:
    """The stretches of a line that are in two networks that must not overlap; those that touch are one."""
    found: list[tuple[int, int]] = []
    for first, second in of.overlaps:
        if first in group or second in group:
            low = max(first.block.base, second.block.base, span.low)
            high = min(first.block.base + first.block.size, second.block.base + second.block.size, span.high)
            if low < high:
                found.append((low, high))
    merged: list[tuple[int, int]] = []
    for low, high in sorted(found):
        if merged and low <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(high, merged[-1][1])
        else:
            merged.append((low, high))
    return merged


def _said(group: Sequence[Range]) -> list[str]:
    return [
        f"{held.name} ({held.kind}): {held.block}, {held.block.network} to {held.block.broadcast}." for held in group
    ]
