"""How many questions is a name?

Two pictures of lookups. The *ladder*: whoever asks or answers is a column, time runs downwards, a question is an arrow
with the complete name that is asked for, and its answer a dashed one back; questions for A and AAAA that were sent and
answered alike are one arrow. The *table*: for each name and each value of an option, how many questions it costs, as
a number and a bar.

Not modelled: how long anything takes, but for the seconds that somebody waits for nothing. Guide section 2.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from k8snetlab.dns import Message
from k8snetlab.draw.drawing import Drawing
from k8snetlab.draw.lettering import fitted, width, wrapped
from k8snetlab.draw.marks import Box, Label, Line, Mark, arrowhead, cross, sheet
from k8snetlab.draw.theme import Role, theme_of
from k8snetlab.errors import BadOption
from k8snetlab.flows.ladder import ended
from k8snetlab.flows.resolution import Resolution, Rung

__all__ = ["lookup", "questions"]

MARGIN, COLUMN, HEAD = 16, 300, 34
LINE, GAP = 12.0, 14.0
MOST_RECORDS = 3


class _Rung(NamedTuple):
    """Questions that were sent together and answered alike."""

    rungs: tuple[Rung, ...]
    beyond: tuple[_Rung, ...] = ()

    @property
    def first(self) -> Rung:
        return self.rungs[0]

    @property
    def question(self) -> str:
        kinds = ", ".join(each.query.type for each in self.rungs)
        tcp = " by TCP" if self.first.query.transport == "TCP" else ""
        again = f", attempt {self.first.query.attempt}" if self.first.query.attempt > 1 else ""
        return f"{self.first.query.name} {kinds}{tcp}{again}"

    @property
    def lost(self) -> bool:
        return not isinstance(self.first.reply, Message)

    @property
    def taker(self) -> str:
        return self.first.answered_by

    @property
    def outcome(self) -> str:
        if self.lost:
            waited = f" after {self.first.seconds:g} s" if self.first.seconds else ""
            return f"{self.first.said}{waited}"
        said = [_data(each) for each in self.rungs]
        return said[0] if len(set(said)) == 1 else " · ".join(said)


def _data(rung: Rung) -> str:
    data = [record.data for record in rung.answers]
    more = f" and {len(data) - MOST_RECORDS} more" if len(data) > MOST_RECORDS else ""
    cut = " (cut)" if isinstance(rung.reply, Message) and rung.reply.truncated else ""
    return f"{', '.join(data[:MOST_RECORDS])}{more}{cut}" if data else f"{rung.said}{cut}"


def lookup(of: Resolution, *, theme: str = "light") -> Drawing:
    """The ladder of a lookup. Raises `UnknownName` for a theme that does not exist."""
    theme_of(theme)
    rungs = _together(of.rungs)
    names = list(dict.fromkeys((of.source, *_columns(rungs))))
    columns = {name: MARGIN + COLUMN * (at + 0.5) for at, name in enumerate(names)}
    if of.rungs:
        columns[of.rungs[0].host] = columns[of.source]
    head = f"{of.source} looks up {of.name} ({of.library})"
    marks: list[Mark] = [Label(MARGIN, MARGIN + 6, head, Role.INK, 12, "left", "bold")]
    top = MARGIN + 24
    y = top + HEAD + 20.0
    alt = [f"Who asked whom for {of.name}. {of.source} reads: {' / '.join(of.resolv_conf.text.splitlines())}."]
    for number, rung in enumerate(rungs, 1):
        drawn, y = _drawn(rung, columns, y)
        marks += drawn
        alt += _told(rung, str(number))
    wide = max(2 * MARGIN + COLUMN * max(2, len(names)), 700)
    end = wrapped(ended(of), wide - 2 * MARGIN, 10.5)
    marks += [
        Label(MARGIN, y + 12 + 15 * at, line, Role.INK if of else Role.LOST, 10.5, "left", "bold")
        for at, line in enumerate(end)
    ]
    heads = [mark for name in names for mark in _head(name, columns[name], top)]
    lines = [Line(((columns[name], top + HEAD), (columns[name], y - 4)), Role.FRAME, 1.0, (2.0, 3.0)) for name in names]
    alt.append(f"In the end: {ended(of)}.")
    tall = round(y + 15 * len(end) + MARGIN)
    return Drawing(round(wide), tall, (sheet(lines), sheet([*heads, *marks])), (), tuple(alt), theme)


def _together(rungs: Sequence[Rung]) -> tuple[_Rung, ...]:
    """Questions of a pair as one, with what the name server asked meanwhile."""
    found: list[_Rung] = []
    at = 0
    while at < len(rungs):
        group = [rungs[at]]
        for other in rungs[at + 1 :]:
            if not _alike(rungs[at], other) or other.query.type in {each.query.type for each in group}:
                break
            group.append(other)
        found.append(_Rung(tuple(group), _together([each for rung in group for each in rung.beyond])))
        at += len(group)
    return tuple(found)


def _alike(one: Rung, other: Rung) -> bool:
    same = one.query.name == other.query.name and one.query.server == other.query.server
    sent = one.query.attempt == other.query.attempt and one.query.transport == other.query.transport
    return same and sent and one.answered_by == other.answered_by and one.host == other.host


def _columns(rungs: Sequence[_Rung]) -> Iterator[str]:
    """Who asks and answers, in the order in which they come in; who asks first is known."""
    for rung in rungs:
        if rung.taker:
            yield rung.taker
        for each in rung.beyond:
            yield each.first.host
        yield from _columns(rung.beyond)


def _drawn(rung: _Rung, columns: Mapping[str, float], y: float) -> tuple[list[Mark], float]:
    """The arrow there, what is asked beyond, and the arrow back; or a cross."""
    start = columns[rung.first.host]
    end = columns[rung.taker] if rung.taker else start + COLUMN / 2 + 40
    end = start + COLUMN / 3 if start == end else end
    forward = 1 if end >= start else -1
    lost = not rung.taker
    role = Role.LOST if lost else Role.REQUEST
    marks, y = _words(rung.question, start, end, y, Role.INK)
    marks.append(Line(((start, y), (end, y)), role, 1.8))
    if lost:
        return [*marks, *cross(end, y, 5), *_reasons(rung, start, y)], y + 14 + LINE * len(_reason(rung)) + GAP
    marks.append(arrowhead((end, y), (forward, 0), role, 8))
    y += 16
    for each in rung.beyond:
        more, y = _drawn(each, columns, y)
        marks += more
    back = Role.LOST if rung.lost else Role.REPLY
    said, y = _words(rung.outcome, start, end, y, Role.INK if rung.first.answers else Role.FAINT)
    line = Line(((end, y), (start, y)), back, 1.6, (6.0, 4.0))
    return [*marks, *said, line, arrowhead((start, y), (-forward, 0), back, 8)], y + GAP + 4


def _words(text: str, start: float, end: float, y: float, role: Role) -> tuple[list[Mark], float]:
    """Words over an arrow, and the height of the arrow."""
    lines = wrapped(text, abs(end - start) - 20, 8.5, 3)
    return list(_lettered((start + end) / 2, y, lines, role)), y + LINE * (len(lines) - 1) + 8


def _reason(rung: _Rung) -> list[str]:
    """Why no answer came, in lines."""
    words = (f"{rung.first.query.server}: {rung.outcome}", rung.first.reason)
    return [line for each in words for line in wrapped(each, COLUMN + 20, 8.5, 3)]


def _reasons(rung: _Rung, start: float, y: float) -> Iterator[Mark]:
    for at, line in enumerate(_reason(rung)):
        yield Label(start + 12, y + 14 + LINE * at, line, Role.LOST, 8.5)


def _lettered(x: float, y: float, lines: Sequence[str], role: Role) -> Iterator[Mark]:
    """Lines of text that hide what lies under them."""
    for at, text in enumerate(lines):
        long = width(text, 8.5)
        yield Box(x - long / 2 - 3, y + LINE * at - 6, long + 6, 12, Role.PAPER, Role.NONE, 0, 0)
        yield Label(x, y + LINE * at, text, role, 8.5, "center")


def _head(name: str, x: float, top: float) -> list[Mark]:
    shown = fitted(name, COLUMN - 50, 10, "bold")
    return [
        Box(x - COLUMN / 2 + 18, top, COLUMN - 36, HEAD - 4, Role.DEVICE, Role.FRAME, 5, 1.2),
        Label(x, top + (HEAD - 4) / 2, shown, Role.INK, 10, "center", "bold"),
    ]


def _told(rung: _Rung, number: str) -> Iterator[str]:
    """The question, those that it brought about, and the answer, in sentences."""
    to = rung.taker or rung.first.query.server
    yield f"{number} {rung.first.host} asks {to}: {rung.question}."
    for at, each in enumerate(rung.beyond, 1):
        yield from _told(each, f"{number}.{at}")
    yield f"{number} {f'No answer: {rung.outcome}, {rung.first.reason}' if rung.lost else f'Answer: {rung.outcome}'}."


# How many questions

CELL, ROW, NAME = 112, 30, 260


def questions(of: Mapping[str, Mapping[str, int]], *, title: str, across: str, theme: str = "light") -> Drawing:
    """How many questions each name costs, `{name: {column: number}}`, the columns alike for all: bars as long as their
    numbers. `title` says what the numbers are, `across` what the columns are.

    Raises `UnknownName` for a theme that does not exist, `BadOption` for no numbers and for columns that differ.
    """
    theme_of(theme)
    columns = list(next(iter(of.values()), {}))
    if not columns or any(list(counts) != columns for counts in of.values()):
        raise BadOption("there must be numbers, in the same columns for every name")
    most = max(1, *(number for counts in of.values() for number in counts.values()))
    top = MARGIN + 46
    marks: list[Mark] = [
        Label(MARGIN, MARGIN + 8, title, Role.INK, 12, "left", "bold"),
        Label(MARGIN + NAME - 12, top - 10, across, Role.FAINT, 9.5, "right"),
    ]
    marks += [
        Label(MARGIN + NAME + CELL * at, top - 10, column, Role.INK, 10, "left", "bold")
        for at, column in enumerate(columns)
    ]
    alt = [f"{title}, by {across}."]
    for row, (name, counts) in enumerate(of.items()):
        y = top + ROW * (row + 0.5)
        marks.append(Label(MARGIN + NAME - 12, y, fitted(name, NAME - 20, 10), Role.INK, 10, "right"))
        for at, number in enumerate(counts.values()):
            x = MARGIN + NAME + CELL * at
            long = (CELL - 40) * number / most
            if number:
                marks.append(Box(x, y - 7, long, 14, Role.REQUEST, Role.NONE, 2, 0))
            marks.append(Label(x + long + 6, y, str(number), Role.INK, 10, "left", "bold"))
        alt.append(f"{name}: {', '.join(f'{number} at {column}' for column, number in counts.items())}.")
    wide, tall = 2 * MARGIN + NAME + CELL * len(columns), round(top + ROW * len(of) + MARGIN)
    return Drawing(wide, tall, (sheet(marks),), (), tuple(alt), theme)
