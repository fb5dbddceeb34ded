"""What is a picture made of?

A picture is a list of marks — lines, boxes, labels — in pixels from the upper left corner, each with a role instead
of a colour. Marks know nothing of matplotlib; what draws a cluster or a packet only makes marks, and `drawing` paints
them.

A `Sheet` is painted lines first, then boxes, then labels; sheets lie on each other like sheets of glass.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple, TypeAlias

from k8snetlab.draw.theme import Role

__all__ = ["Box", "Label", "Line", "Mark", "Point", "Sheet", "arrowhead", "badge", "cross", "moved", "sheet"]

Point: TypeAlias = tuple[float, float]


class Line(NamedTuple):
    """A polyline. `dash` gives the lengths of strokes and gaps; none for a solid line."""

    points: tuple[Point, ...]
    role: Role = Role.FRAME
    width: float = 1.0
    dash: tuple[float, ...] = ()


class Box(NamedTuple):
    """A filled shape: a rectangle with corners of a `radius`, or, where `points` are given, a polygon."""

    x: float
    y: float
    width: float
    height: float
    fill: Role = Role.NONE
    line: Role = Role.FRAME
    radius: float = 4.0
    thickness: float = 1.0
    dash: tuple[float, ...] = ()
    points: tuple[Point, ...] = ()


class Label(NamedTuple):
    """One line of text; `x` is its left end, middle or right end as `align` says, `y` the middle of its small
    letters."""

    x: float
    y: float
    text: str
    role: Role = Role.INK
    size: float = 10.0
    align: Literal["left", "center", "right"] = "left"
    weight: Literal["normal", "bold"] = "normal"


Mark: TypeAlias = Line | Box | Label


class Sheet(NamedTuple):
    """Marks that are painted together."""

    lines: tuple[Line, ...] = ()
    boxes: tuple[Box, ...] = ()
    labels: tuple[Label, ...] = ()


def sheet(marks: Iterable[Mark]) -> Sheet:
    """The marks in the order in which a sheet paints them."""
    marks = tuple(marks)
    return Sheet(
        tuple(mark for mark in marks if isinstance(mark, Line)),
        tuple(mark for mark in marks if isinstance(mark, Box)),
        tuple(mark for mark in marks if isinstance(mark, Label)),
    )


def moved(of: Sheet, dx: float, dy: float) -> Sheet:
    """The same marks, further to the right and further down."""
    return Sheet(
        tuple(line._replace(points=_moved(line.points, dx, dy)) for line in of.lines),
        tuple(box._replace(x=box.x + dx, y=box.y + dy, points=_moved(box.points, dx, dy)) for box in of.boxes),
        tuple(label._replace(x=label.x + dx, y=label.y + dy) for label in of.labels),
    )


def _moved(points: tuple[Point, ...], dx: float, dy: float) -> tuple[Point, ...]:
    return tuple((x + dx, y + dy) for x, y in points)


def badge(x: float, y: float, text: str, role: Role) -> tuple[Mark, ...]:
    """A number on a path: in a disc for the request, in a square for every other role."""
    half = 6.5 + 2.4 * max(0, len(text) - 2)
    size = 9.0 if len(text) < 2 else 7.5
    if role is Role.REQUEST:
        shape = Box(x - half, y - 6.5, 2 * half, 13, role, Role.PAPER, 6.5)
        return shape, Label(x, y, text, Role.ON_REQUEST, size, "center", "bold")
    shape = Box(x - half, y - 6.5, 2 * half, 13, Role.PAPER, role, 1.5, 1.4)
    return shape, Label(x, y, text, Role.INK, size, "center", "bold")


def cross(x: float, y: float, size: float = 7.0) -> tuple[Line, ...]:
    """Where something was lost, with a halo that sets it off from what lies under it."""
    strokes = (((x - size, y - size), (x + size, y + size)), ((x - size, y + size), (x + size, y - size)))
    return tuple(
        Line(stroke, role, width) for role, width in ((Role.PAPER, 7.0), (Role.LOST, 3.4)) for stroke in strokes
    )


def arrowhead(tip: Point, towards: Point, role: Role, size: float = 8.0) -> Box:
    """A filled triangle at `tip` that points the way of the vector `towards`."""
    length = (towards[0] ** 2 + towards[1] ** 2) ** 0.5 or 1.0
    dx, dy = towards[0] / length, towards[1] / length
    back = (tip[0] - size * dx, tip[1] - size * dy)
    aside = (-0.45 * size * dy, 0.45 * size * dx)
    points = (tip, (back[0] + aside[0], back[1] + aside[1]), (back[0] - aside[0], back[1] - aside[1]))
    return Box(0, 0, 0, 0, role, Role.NONE, 0, 0, (), points)
