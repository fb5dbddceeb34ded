"""What does a change do to the machines, and to the path of a packet?

Two topologies, one over the other: the network as it was and as it is, with the same flow through both. A machine or a
device that only one of them has stands out: with a dashed outline where it goes, with a solid one where it comes.
Between the two stands for each machine how many entries of each kind came, went and changed.

Nothing is told to the picture but the two networks: it compares them, as `difference` does.

Not modelled: the moments between before and after. Guide sections 2.1 and 3.1.
"""

from __future__ import annotations

from collections.abc import Iterator

from k8snetlab.difference import Difference, difference
from k8snetlab.draw.drawing import Drawing
from k8snetlab.draw.ground import PAD, ROW, STACK, Ground, Wired, network_of
from k8snetlab.draw.lettering import fitted, width, wrapped
from k8snetlab.draw.marks import Box, Label, Mark, Sheet, moved, sheet
from k8snetlab.draw.theme import Role, theme_of
from k8snetlab.draw.topology import planned, topology
from k8snetlab.linux.host import Network
from k8snetlab.trace import Trace

__all__ = ["before_after"]

MARGIN, STRIP, LINE = 16, 26, 15
DASH = (5.0, 3.0)
STRONG = 2.4


def before_after(
    before: Network | Wired,
    after: Network | Wired,
    was: Trace | None = None,
    now: Trace | None = None,
    *,
    titles: tuple[str, str] = ("before", "after"),
    theme: str = "light",
) -> Drawing:
    """Two networks, one over the other, with what differs between them. `was` is a trace through the first, `now` the
    same flow through the second; `titles` are what the two are called.

    Raises `UnknownName` for a theme that does not exist.
    """
    theme_of(theme)
    networks = network_of(before), network_of(after)
    first, second = topology(networks[0], was, theme=theme), topology(networks[1], now, theme=theme)
    wide = max(first.width, second.width)
    changes = difference(*networks)
    told = [line for each in changes.summary().splitlines() for line in wrapped(each, wide - 2 * MARGIN, 9, 3)]
    middle = STRIP + first.height
    lower = middle + LINE * (len(told) + 1) + 14 + STRIP
    gone, new = (
        sheet(_outlines(planned(one, trace)[0], one, other, dash))
        for one, other, trace, dash in ((*networks, was, DASH), (*networks[::-1], now, ()))
    )
    words: list[Mark] = [
        *_strip(titles[0], "dashed: not there afterwards", DASH, wide, 0),
        *_strip(titles[1], "strong: new", (), wide, lower - STRIP),
        *_differences(told, middle),
    ]
    sheets = (
        sheet(words),
        *_lowered((*first.ground, gone, *first.over), STRIP),
        *_lowered((*second.ground, new, *second.over), lower),
    )
    alt = (
        f"Two networks, one over the other: {titles[0]}, {titles[1]}.",
        *(f"{titles[0]}: {sentence}" for sentence in first.alt),
        *_said(changes),
        *(f"{titles[1]}: {sentence}" for sentence in second.alt),
    )
    return Drawing(wide, lower + second.height, sheets, (), alt, theme)


def _strip(title: str, legend: str, dash: tuple[float, ...], wide: int, y: float) -> Iterator[Mark]:
    """The name of one of the two, and what its outlines mean."""
    middle, room = y + STRIP / 2 + 4, width(legend, 9)
    yield Label(MARGIN + 13, middle, fitted(title, wide - room - 120, 13, "bold"), Role.INK, 13, "left", "bold")
    yield Box(wide - MARGIN - 41 - room, middle - 6, 20, 12, Role.NONE, Role.INK, 3, STRONG, dash)
    yield Label(wide - MARGIN - 13, middle, legend, Role.FAINT, 9, "right")


def _outlines(plan: Ground, one: Network, other: Network, dash: tuple[float, ...]) -> Iterator[Box]:
    """An outline around every machine and device in the picture of one network that the other one lacks."""
    for name, frame in plan.frames.items():
        if name in one and name not in other:
            yield frame._replace(fill=Role.NONE, line=Role.INK, thickness=STRONG, dash=dash)
    for (where, device), spot in plan.spots.items():
        if spot.kind != "row" or device == STACK or where not in other:
            continue
        if device not in {link.name for link in other[where].links}:
            frame = plan.frames[where]
            yield Box(frame.x + PAD, spot.y - ROW / 2, frame.width - 2 * PAD, ROW, Role.NONE, Role.INK, 4, STRONG, dash)


def _differences(told: list[str], y: float) -> Iterator[Mark]:
    yield Label(MARGIN + 13, y + 8, "what differs: + came, - went, ~ changed", Role.FAINT, 9)
    for at, line in enumerate(told, 1):
        yield Label(MARGIN + 13, y + 8 + LINE * at, line, Role.INK, 9)


def _lowered(sheets: tuple[Sheet, ...], by: float) -> tuple[Sheet, ...]:
    return tuple(moved(each, 0, by) for each in sheets)


def _said(changes: Difference) -> Iterator[str]:
    yield "The two do not differ." if not changes else "What differs, machine by machine: + came, - went, ~ changed."
    yield from (f"{line}." for line in changes.summary().splitlines() if changes)
