"""Who may take the packet, and how likely?

A bar for every way the load balancing can fall. Its length is the probability, found by walking every choice; a way
that does not end with an open connection has a cross and says why.

Not modelled: how often each was taken in reality. Guide section 2.2.
"""

from __future__ import annotations

from k8snetlab.draw.drawing import Drawing
from k8snetlab.draw.lettering import fitted, width, wrapped
from k8snetlab.draw.marks import Box, Label, Mark, cross, sheet
from k8snetlab.draw.theme import Role, theme_of
from k8snetlab.trace import Client, Outcome, Trace
from k8snetlab.trace.table import chance, endpoint

__all__ = ["nobody", "outcomes"]

MARGIN, NAMES, BARS, SAID = 16, 250, 290, 250
PITCH, TALL = 40, 20


def outcomes(trace: Trace, *, theme: str = "light") -> Drawing:
    """The outcomes of a trace: backend, address and node, probability and verdict, and the source that the backend
    sees.

    Raises `UnknownName` for a theme that does not exist.
    """
    theme_of(theme)
    asked = f"{trace.request.source} → {trace.request.target}"
    marks: list[Mark] = [
        Label(MARGIN, MARGIN + 8, fitted(asked, NAMES + BARS, 12, "bold"), Role.INK, 12, "left", "bold")
    ]
    count = f"{len(trace.outcomes)} possible outcome{'' if len(trace.outcomes) == 1 else 's'}"
    marks.append(Label(MARGIN + NAMES + BARS + SAID, MARGIN + 8, count, Role.FAINT, 9.5, "right"))
    alt = [f"Who may take a packet from {trace.request.source} to {trace.request.target}: {count}."]
    for at, outcome in enumerate(trace.outcomes):
        marks += _bar(outcome, MARGIN + 44 + at * PITCH)
        alt.append(_said(outcome))
    wide, tall = MARGIN + NAMES + BARS + SAID + MARGIN, MARGIN + 30 + len(trace.outcomes) * PITCH + 8
    return Drawing(wide, tall, (sheet(marks),), (), tuple(alt), theme)


def nobody(asked: str, why: str, *, theme: str = "light") -> Drawing:
    """A question that ended before any packet was sent: who asked for what, and why there is nobody to send it to.

    Raises `UnknownName` for a theme that does not exist.
    """
    theme_of(theme)
    wide = MARGIN + NAMES + BARS + SAID + MARGIN
    title = Label(MARGIN, MARGIN + 8, fitted(asked, wide - 2 * MARGIN, 12, "bold"), Role.INK, 12, "left", "bold")
    lines = wrapped(why, wide - 2 * MARGIN - 30, 10)
    marks: list[Mark] = [title, *cross(MARGIN + 8, MARGIN + 44, 6)]
    marks += [Label(MARGIN + 28, MARGIN + 44 + 15 * at, line, Role.INK, 10) for at, line in enumerate(lines)]
    alt = (f"{asked}: no packet was sent.", why)
    return Drawing(wide, MARGIN + 44 + 15 * len(lines) + MARGIN, (sheet(marks),), (), alt, theme)


def _bar(outcome: Outcome, y: float) -> list[Mark]:
    taken, x = outcome.backend, MARGIN + NAMES
    good = outcome.client is Client.OPEN
    name = taken.name if taken is not None else "nobody"
    detail = f"{endpoint(taken.ip, taken.port)} on {taken.node}" if taken is not None else ""
    long = max(2.0, outcome.probability * (BARS - 60))
    role = Role.REQUEST if good else Role.LOST
    after = x + BARS - 52
    told = f"{outcome.verdict}, client {outcome.client}"
    why = f"sees {outcome.source_seen}" if good else outcome.reason
    marks: list[Mark] = [
        Label(MARGIN, y - 7, fitted(name, NAMES - 14, 10), Role.INK, 10),
        Label(MARGIN, y + 7.5, fitted(detail, NAMES - 14, 8.5), Role.FAINT, 8.5),
        Box(x, y - TALL / 2, BARS - 60, TALL, Role.DEVICE, Role.NONE, 3),
        Box(x, y - TALL / 2, long, TALL, role if good else Role.NONE, role, 3, 1.6, () if good else (4.0, 3.0)),
        Label(after, y, chance(outcome.probability), Role.INK, 10, "left", "bold"),
        Label(x + BARS + 8, y - 7, told, Role.INK, 9.5),
        Label(x + BARS + 8, y + 7.5, fitted(why, SAID, 8.5), Role.FAINT, 8.5),
    ]
    if not good:
        marks += cross(after + width(chance(outcome.probability), 10, "bold") + 12, y, 4.5)
    return marks


def _said(outcome: Outcome) -> str:
    taken = outcome.backend
    who = f"{taken.name} ({endpoint(taken.ip, taken.port)}) on {taken.node}" if taken is not None else "Nobody"
    why = f"; it sees {outcome.source_seen}" if outcome.client is Client.OPEN else f"; {outcome.reason}"
    return f"{who} with probability {chance(outcome.probability)}: {outcome.verdict}, client {outcome.client}{why}."
