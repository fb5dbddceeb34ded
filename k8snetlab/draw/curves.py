"""How does it grow?

Curves on two logarithmic scales: what grows with the number of things rises with it, what does not stays flat. Zero has
no logarithm; it is drawn on the ground line, under the lowest power of ten.

Curves differ in colour, in dashes and in the shape of their points, and have their names at their right ends. Where a
name is too long for that, the ends have the values alone, and all names stand under the picture.

Not modelled: values below 1 other than 0. Guide sections 2.2 and 5.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import ceil, log10
from typing import NamedTuple

from k8snetlab.draw.drawing import Drawing
from k8snetlab.draw.lettering import fitted, width, wrapped
from k8snetlab.draw.marks import Box, Label, Line, Mark, Point, sheet
from k8snetlab.draw.theme import Role, theme_of
from k8snetlab.errors import BadOption

__all__ = ["curves"]

MARGIN, WIDE = 16, 920
LEFT, RIGHT, TOP, HIGH, GROUND = 84, 150, 62, 240, 44
APART = 15.0
"""The least distance between two names."""
NAME, SAMPLE = 10.5, 56
"""The size of names, and how long a piece of its curve stands before each in the list under the picture."""

STYLES = (
    (Role.LOST, (), 0.0),
    (Role.REQUEST, (7.0, 4.0), 4.0),
    (Role.SERVICE, (2.0, 3.0), 4.0),
    (Role.REPLY, (9.0, 3.0, 2.0, 3.0), 0.0),
    (Role.INK, (4.0, 4.0), 2.0),
)
"""Colour, dashes and the roundness of points."""


class _Scale(NamedTuple):
    """From values to pixels: 10 to the power of `low` is at the left or lower end, and 0 half a decade before it."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        decades = log10(value) if value else self.low
        return self.start + (decades - self.low) / max(self.high - self.low, 1e-9) * (self.end - self.start)


def curves(of: Mapping[str, Mapping[int, int]], *, title: str, across: str, theme: str = "light") -> Drawing:
    """A curve for each name through its values, `{x: value}`; x is at least 1, values at least 0. `title` says what
    the values are, `across` what x is.

    Raises `UnknownName` for a theme that does not exist, `BadOption` for more curves than can be told apart, for none,
    and for values below 0.
    """
    theme_of(theme)
    every = [value for points in of.values() for value in points.values()]
    if not every or min(every) < 0 or len(of) > len(STYLES):
        raise BadOption(f"there must be one to {len(STYLES)} curves, of values that are not negative")
    xs = sorted({x for points in of.values() for x in points})
    top = ceil(log10(max(*every, 10)))
    zero = TOP + HIGH
    floor = zero - 26 if 0 in every else zero
    right = _Scale(log10(xs[0]), log10(xs[-1]), LEFT + 26, WIDE - RIGHT)
    up = _Scale(0, top, floor, TOP)

    def place(x: int, value: int) -> Point:
        return right.at(x), up.at(value) if value else zero

    marks: list[Mark] = [
        Label(MARGIN, MARGIN + 8, fitted(title, WIDE - 2 * MARGIN, 12, "bold"), Role.INK, 12, "left", "bold"),
        Label(WIDE - RIGHT + 34, zero + 18, across, Role.FAINT, 9.5),
    ]
    ticks = [(10**power, up.at(10**power)) for power in range(top + 1)]
    for value, y in [*ticks, *([(0, float(zero))] if 0 in every else [])]:
        marks.append(Line(((LEFT, y), (WIDE - RIGHT, y)), Role.FRAME, 0.5))
        marks.append(Label(LEFT - 8, y, f"{value:,}", Role.FAINT, 9, "right"))
    marks += [Label(right.at(x), zero + 18, f"{x:,}", Role.FAINT, 9, "center") for x in xs]
    said = {name: f"{name}: {points[max(points)]:,}" for name, points in of.items()}
    listed = any(width(each, NAME, "bold") > RIGHT - 20 for each in said.values())
    ends: list[tuple[float, str]] = []
    for (name, points), style in zip(of.items(), STYLES, strict=False):
        marks += _curve([place(x, points[x]) for x in sorted(points)], *style)
        last = max(points)
        ends.append((place(last, points[last])[1], f"{points[last]:,}" if listed else said[name]))
    marks += [Label(WIDE - RIGHT + 14, y, end, Role.INK, NAME, "left", "bold") for y, end in _apart(ends)]
    alt = [f"{title}, by the number of {across}."]
    alt += [f"{name}: {', '.join(f'{points[x]:,} at {x:,}' for x in sorted(points))}." for name, points in of.items()]
    below, foot = _list(list(said.values()), TOP + HIGH + GROUND) if listed else ([], float(TOP + HIGH + GROUND))
    return Drawing(WIDE, round(foot), (sheet([*marks, *below]),), (), tuple(alt), theme)


def _list(names: Sequence[str], y: float) -> tuple[list[Mark], float]:
    """The names under each other, each after a piece of its curve, and where they end."""
    marks: list[Mark] = []
    for name, style in zip(names, STYLES, strict=False):
        lines = wrapped(name, WIDE - LEFT - SAMPLE - 2 * MARGIN, NAME, 4)
        marks += _curve([(LEFT, y), (LEFT + SAMPLE, y)], *style)
        marks += [Label(LEFT + SAMPLE + MARGIN, y + APART * at, line, Role.INK, NAME) for at, line in enumerate(lines)]
        y += APART * len(lines) + 7
    return marks, y + MARGIN - 10


def _curve(points: Sequence[Point], role: Role, dash: tuple[float, ...], round_: float) -> Iterator[Mark]:
    yield Line(tuple(points), role, 2.4, dash)
    for x, y in points:
        yield Box(x - 4, y - 4, 8, 8, role, Role.PAPER, round_)


def _apart(ends: Sequence[tuple[float, str]]) -> Iterator[tuple[float, str]]:
    """The names at their heights, moved upwards where they would hide each other."""
    taken = float("inf")
    for y, said in sorted(ends, reverse=True):
        taken = min(y, taken - APART)
        yield taken, said
