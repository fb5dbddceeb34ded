"""Who may open connections to whom, all pods with all pods?

`reach` draws the matrix: rows are sources, columns are destinations. A filled cell is allowed, an empty one is not; a
cell of several ports has a stripe for each, and a smaller square in a cell is a part of its pairs. A dot is a pod and
itself.

Ten pods have a row each. Of more pods, those of a namespace that may do and suffer the same at these ports share a
row; where even these are too many, a row is a namespace, or several. Nothing is left out: the square of a cell has the
share of its pairs that are allowed.

With the matrix of other policies `before`, what is allowed anew has a light spot in its square, and what is so no more
has a cross in a dashed one.

A frame is around the pair that somebody asks about.

Not modelled: ends that are no pods. Guide section 4.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from k8snetlab.draw.drawing import Drawing
from k8snetlab.draw.lettering import fitted, width
from k8snetlab.draw.marks import Box, Label, Line, Mark, sheet
from k8snetlab.draw.theme import Role, theme_of
from k8snetlab.errors import BadOption, Problem, UnknownName
from k8snetlab.policies.matrix import AskedPort, Port, Reach

__all__ = ["reach"]

MARGIN, NAMES, HEAD, FOOT = 16, 236, 66, 58
SIDE = 600
"""The side of the matrix in pixels, at most."""
CELL = 30
MOST_PODS, MOST_GROUPS, MOST_NAMESPACES = 24, 100, 60
"""How many rows there may be of each kind, before a row stands for more."""
MOST_PORTS = 4
MOST_SAID = 40


class _Row(NamedTuple):
    """A row and the column of the same number. `space` is the namespace, where it has one alone."""

    name: str
    pods: int
    space: str


def reach(
    found: Reach,
    *ports: AskedPort,
    before: Reach | None = None,
    pair: tuple[str, str] | None = None,
    theme: str = "light",
) -> Drawing:
    """The matrix at these ports, at most four, or at all that were asked about; with `before`, at one port, what has
    changed since; with a `pair` of pods, a frame around their cell.

    Raises `UnknownName` for a port that was not asked about, a pod and a theme that do not exist, `BadOption` for more
    ports than a cell has room for and for a `before` of other pods.
    """
    theme_of(theme)
    asked = tuple(map(found.port, ports)) if ports else found.ports
    if before is not None:
        _comparable(found, before, asked)
    if len(asked) > MOST_PORTS:
        listed = ", ".join(map(str, asked))
        message = f"a cell has room for {MOST_PORTS} ports, and there are {len(asked)}: say some of {listed}"
        raise BadOption(Problem(message, field="ports"))
    rows, row_of_pod = _rows(found if before is None else before, found, asked)
    shares = np.stack([_share(found, rows, row_of_pod, port) for port in asked])
    cell = max(2.0, min(float(CELL), SIDE / max(1, len(rows))))
    side = cell * len(rows)
    left, top = MARGIN + NAMES, MARGIN + HEAD
    change = [] if before is None else list(_changed(shares[0], _share(before, rows, row_of_pod, asked[0])))
    title = f"Who may open connections to whom: {', '.join(map(str, asked))}"
    title += "" if before is None else ", before and after"
    counts = [found.pairs(port) for port in asked]
    said = (
        "; ".join(f"{yes:,} of {of:,} pairs" for yes, of in counts) if len(asked) == 1 else f"{len(found.pods):,} pods"
    )
    legend = list(_legend(asked, shares, left, top + side + 22))
    ends = max(each.x + width(each.text, each.size) for each in legend if isinstance(each, Label))
    wide = round(max(left + side, ends, MARGIN + width(title, 12, "bold") + width(said, 9.5) + 20) + MARGIN)
    marks: list[Mark] = [
        Label(MARGIN, MARGIN + 8, title, Role.INK, 12, "left", "bold"),
        Label(wide - MARGIN, MARGIN + 8, said, Role.FAINT, 9.5, "right"),
        Box(left, top, side, side, Role.DEVICE, Role.FRAME, 0),
        *_cells(shares, left, top, cell),
        *_ruled(rows, left, top, cell),
        *_names(rows, left, top, cell),
        *legend,
    ]
    alt = (
        f"{title}. Rows are sources, columns destinations; {_levels(rows, found)}.",
        *(
            f"{port}: {yes:,} of {of:,} pairs of pods may connect."
            for port, (yes, of) in zip(asked, counts, strict=True)
        ),
        *_told(rows, shares, asked),
    )
    if before is not None:
        marks += _legend_of_changes(left, top + side + 44)
        alt = (alt[0], *_changes_told(rows, change), *alt[1:])
    spots = [mark for each in change for mark in _spot(each, left, top, cell)]
    over = [sheet(spots), sheet(mark for each in change for mark in _crossed(each, left, top, cell))] if change else []
    if pair is not None:
        row, column = (int(row_of_pod[_place(found, pod)]) for pod in pair)
        over.append(sheet(_framed(left + column * cell, top + row * cell, cell)))
        alt = (alt[0], f"Asked about: {pair[0]} to {pair[1]}.", *alt[1:])
    return Drawing(
        wide, round(top + side + FOOT + (22 if before is not None else 0)), (sheet(marks),),
        tuple(over), alt, theme,
    )  # fmt: skip


# What changed


class _Change(NamedTuple):
    """A cell in which more is allowed than before, or less."""

    row: int
    column: int
    more: bool


def _comparable(found: Reach, before: Reach, ports: Sequence[Port]) -> None:
    if len(ports) > 1:
        raise BadOption(Problem("a change is drawn at one port: say which", field="ports"))
    before.port(ports[0])
    if before.pods != found.pods:
        raise BadOption(Problem("the two matrices are not of the same pods in the same order", field="before"))


def _changed(now: NDArray[np.float64], then: NDArray[np.float64]) -> Iterator[_Change]:
    for row, column in np.argwhere((now != then) & ~np.isnan(now)).tolist():
        yield _Change(row, column, bool(now[row, column] > then[row, column]))


def _spot(change: _Change, left: float, top: float, cell: float) -> Iterator[Mark]:
    """A light spot in the square of what is new; a dashed square where something was lost."""
    x, y = left + change.column * cell, top + change.row * cell
    if change.more:
        half = max(0.8, cell / 6)
        yield Box(x + cell / 2 - half, y + cell / 2 - half, 2 * half, 2 * half, Role.PAPER, Role.NONE, half)
    elif cell >= 6:
        gap = cell / 7
        yield Box(x + gap, y + gap, cell - 2 * gap, cell - 2 * gap, Role.NONE, Role.LOST, 2, 1.2, (3.0, 2.0))


def _crossed(change: _Change, left: float, top: float, cell: float) -> Iterator[Mark]:
    if not change.more:
        x, y, half = left + (change.column + 0.5) * cell, top + (change.row + 0.5) * cell, max(1.2, cell / 5)
        for stroke in (((x - half, y - half), (x + half, y + half)), ((x - half, y + half), (x + half, y - half))):
            yield Line(stroke, Role.LOST, max(0.8, cell / 12))


def _place(found: Reach, pod: str) -> int:
    if pod not in found.pods:
        raise UnknownName("pod", pod, found.pods)
    return found.pods.index(pod)


def _framed(x: float, y: float, cell: float) -> Iterator[Mark]:
    """A frame around a cell, which is seen on a full one and on an empty one."""
    yield Box(x - 0.5, y - 0.5, cell + 1, cell + 1, Role.NONE, Role.PAPER, 3, 4.5)
    yield Box(x - 0.5, y - 0.5, cell + 1, cell + 1, Role.NONE, Role.INK, 3, 2.2)


def _legend_of_changes(left: float, y: float) -> Iterator[Mark]:
    yield Box(left, y - 7, 14, 14, Role.REQUEST, Role.NONE, 0)
    yield Box(left + 4.7, y - 2.3, 4.6, 4.6, Role.PAPER, Role.NONE, 2.3)
    yield Label(left + 20, y, "more is allowed than before", Role.INK, 9)
    x = left + 40 + width("more is allowed than before", 9)
    yield Box(x, y - 7, 14, 14, Role.NONE, Role.LOST, 2, 1.2, (3.0, 2.0))
    yield Label(x + 7, y, "×", Role.LOST, 12, "center", "bold")
    yield Label(x + 20, y, "less", Role.INK, 9)


def _changes_told(rows: Sequence[_Row], changes: Sequence[_Change]) -> Iterator[str]:
    if not changes:
        yield "Nothing has changed."
    for each in changes[:MOST_SAID]:
        word = "more" if each.more else "less"
        yield f"{rows[each.row].name} to {rows[each.column].name}: {word} is allowed than before."
    if len(changes) > MOST_SAID:
        yield f"… and {len(changes) - MOST_SAID} more changes."


# Rows


def _rows(before: Reach, found: Reach, ports: Sequence[Port]) -> tuple[list[_Row], NDArray[np.intp]]:
    """The rows, and the row of each pod: pods of a namespace stand together. Alike are those that are so in both."""
    spaces = [each.namespace for each in found.policies.endpoints]
    order = sorted(range(len(spaces)), key=lambda index: (_counting(spaces[index]), _counting(found.pods[index])))
    if len(spaces) <= MOST_PODS:
        row_of_pod = np.empty(len(spaces), np.intp)
        row_of_pod[order] = np.arange(len(spaces))
        return [_Row(found.pods[index], 1, spaces[index]) for index in order], row_of_pod
    both: dict[tuple[int, int], int] = {}
    alike = [both.setdefault(pair, len(both)) for pair in zip(_alike(before, ports), _alike(found, ports), strict=True)]
    for keys, most in (
        ([(spaces[index], alike[index]) for index in range(len(spaces))], MOST_GROUPS),
        ([(space, 0) for space in spaces], MOST_NAMESPACES),
    ):
        if len(set(keys)) <= most:
            return _grouped(found.pods, keys, order)
    names = sorted(set(spaces), key=_counting)
    bins = {name: index * MOST_NAMESPACES // len(names) for index, name in enumerate(names)}
    return _grouped(found.pods, [("", bins[space]) for space in spaces], order)


def _counting(name: str) -> list[tuple[int, str]]:
    """A key for sorting in which 9 comes before 10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"([0-9]+)", name)]


def _alike(found: Reach, ports: Sequence[Port]) -> list[int]:
    """A number for each pod: equal where rows and columns are."""
    whole = np.concatenate([each for port in ports for each in (found.allowed(port), found.allowed(port).T)], axis=1)
    # A class of one pod reaches itself; that tells it apart from nobody.
    alone = np.flatnonzero(found.sizes == 1)
    for part in range(2 * len(ports)):
        whole[alone, alone + part * len(found.sizes)] = False
    numbers: dict[bytes, int] = {}
    by_class = [numbers.setdefault(np.packbits(row).tobytes(), len(numbers)) for row in whole]
    return [by_class[each] for each in found.grouped.of_pod.tolist()]


def _grouped(
    pods: Sequence[str], keys: Sequence[tuple[str, int]], order: Sequence[int]
) -> tuple[list[_Row], NDArray[np.intp]]:
    members: dict[tuple[str, int], list[int]] = {}
    for index in order:
        members.setdefault(keys[index], []).append(index)
    row_of_pod = np.empty(len(pods), np.intp)
    rows = []
    for at, ((space, _), held) in enumerate(members.items()):
        row_of_pod[held] = at
        whole = len({key for key in members if key[0] == space}) == 1
        rows.append(_Row(_called(pods, held, space if whole else ""), len(held), space))
    return rows, row_of_pod


def _called(pods: Sequence[str], held: Sequence[int], space: str) -> str:
    """A namespace by its name, several from the first to the last, other pods by the first of them."""
    names = list(dict.fromkeys(pods[index].split("/")[0] for index in held))
    count = f"{len(held):,} pod{'' if len(held) == 1 else 's'}"
    if len(names) > 1:
        return f"{names[0]} … {names[-1]}: {len(names)} namespaces"
    if space:
        return f"{space}: all {count}" if len(held) > 1 else pods[held[0]]
    return pods[held[0]] + (f" and {len(held) - 1:,} more" if len(held) > 1 else "")


def _share(found: Reach, rows: Sequence[_Row], row_of_pod: NDArray[np.intp], port: Port) -> NDArray[np.float64]:
    """Which part of the pairs of two rows is allowed; NaN where there is none but a pod and itself."""
    pods = np.array([row.pods for row in rows], np.float64)
    pairs = np.outer(pods, pods) - np.diag(pods)
    return np.divide(found.counted(row_of_pod, port), pairs, out=np.full_like(pairs, np.nan), where=pairs > 0)


# Marks


def _cells(shares: NDArray[np.float64], left: float, top: float, cell: float) -> Iterator[Mark]:
    """Every cell that is not empty; cells side by side that are full are one box."""
    ports, count, _ = shares.shape
    gap = 1.0 if cell >= 9 else 0.0
    for row in range(count):
        y = top + row * cell
        if ports == 1:
            yield from _runs(shares[0, row], left, y, cell, gap)
        else:
            for column in range(count):
                yield from _striped(shares[:, row, column], left + column * cell, y, cell)


def _runs(shares: NDArray[np.float64], left: float, y: float, cell: float, gap: float) -> Iterator[Mark]:
    column = 0
    for full, some in groupby(shares, key=lambda share: share == 1 and not gap):
        run = list(some)
        if full:
            yield Box(left + column * cell, y, len(run) * cell, cell, Role.REQUEST, Role.NONE, 0)
        else:
            for at, share in enumerate(run, column):
                yield from _cell(share, left + at * cell, y, cell, gap)
        column += len(run)


def _cell(share: float, x: float, y: float, cell: float, gap: float) -> Iterator[Mark]:
    middle = x + cell / 2, y + cell / 2
    if np.isnan(share):
        half = min(2.2, cell / 4)
        yield Box(middle[0] - half, middle[1] - half, 2 * half, 2 * half, Role.FRAME, Role.NONE, half)
    elif share:
        side = (cell - 2 * gap) * max(float(share) ** 0.5, min(1.0, 2 / cell)) if share < 1 else cell - 2 * gap
        yield Box(middle[0] - side / 2, middle[1] - side / 2, side, side, Role.REQUEST, Role.NONE, min(2.0, gap * 2))


def _striped(shares: NDArray[np.float64], x: float, y: float, cell: float) -> Iterator[Mark]:
    """One stripe a port, from left to right; a part of the pairs is a part of the height."""
    if np.isnan(shares).all():
        yield from _cell(float("nan"), x, y, cell, 0)
        return
    gap = 1.0 if cell >= 9 else 0.0
    wide = (cell - 2 * gap) / len(shares)
    for at, share in enumerate(shares):
        if share > 0:
            tall = (cell - 2 * gap) * float(share)
            thin = wide - (1.0 if wide >= 4 else 0.0)
            yield Box(x + gap + at * wide, y + cell - gap - tall, thin, tall, Role.REQUEST, Role.NONE, 0)


def _ruled(rows: Sequence[_Row], left: float, top: float, cell: float) -> Iterator[Mark]:
    """Lines between cells where there is room, and stronger ones between namespaces."""
    side = cell * len(rows)
    for at, (one, other) in enumerate(pairwise(rows), 1):
        thick = 1.4 if one.space != other.space else 0.6
        if thick < 1 and cell < 9:
            continue
        role = Role.INK if thick > 1 and cell >= 4 else Role.FRAME
        thick = thick if cell >= 4 else 0.4
        # Boxes, since they lie above the cells.
        yield Box(left, top + at * cell - thick / 2, side, thick, role, Role.NONE, 0)
        yield Box(left + at * cell - thick / 2, top, thick, side, role, Role.NONE, 0)


def _names(rows: Sequence[_Row], left: float, top: float, cell: float) -> Iterator[Mark]:
    """Names with numbers at the left, the numbers again above the columns: of rows, or of namespaces where rows are too
    thin for letters.
    """
    bands = [(row.name, at, 1) for at, row in enumerate(rows)] if cell >= 11 else _bands(rows)
    yield Label(left + 2, top - 34, "to (destination) →", Role.FAINT, 9)
    yield Label(left - 8, top - 34, "from (source) ↓", Role.FAINT, 9, "right")
    size = 9.5 if cell >= 14 else 8.0
    last_y = last_x = -100.0
    for number, (name, begin, many) in enumerate(bands, 1):
        y, x = top + (begin + many / 2) * cell, left + (begin + many / 2) * cell
        if y - last_y >= size + 1.5:
            written = fitted(name, NAMES - 40, size)
            yield Label(left - 28, y, written, Role.INK, size, "right")
            yield Label(left - 8, y, str(number), Role.FAINT, size - 0.5, "right", "bold")
            last_y = y
        if x - last_x >= width(str(number), size - 0.5, "bold") + 5:
            yield Label(x, top - 12, str(number), Role.FAINT, size - 0.5, "center", "bold")
            yield Line(((x, top - 5), (x, top)), Role.FRAME, 0.6)
            last_x = x


def _bands(rows: Sequence[_Row]) -> list[tuple[str, int, int]]:
    """Namespaces, where each begins and how many rows it has; rows of several namespaces stand for themselves."""
    found: list[tuple[str, int, int]] = []
    for at, row in enumerate(rows):
        if found and row.space and row.space == found[-1][0]:
            found[-1] = (row.space, found[-1][1], found[-1][2] + 1)
        else:
            found.append((row.space or row.name, at, 1))
    return found


def _legend(ports: Sequence[Port], shares: NDArray[np.float64], left: float, y: float) -> Iterator[Mark]:
    x = left
    if len(ports) > 1:
        wide = 14 / len(ports)
        for at, port in enumerate(ports):
            yield Box(x, y - 7, 14, 14, Role.DEVICE, Role.FRAME, 0)
            yield Box(x + at * wide, y - 7, wide, 14, Role.REQUEST, Role.NONE, 0)
            yield Label(x + 20, y, str(port), Role.INK, 9)
            x += 32 + width(str(port), 9)
        if ((shares > 0) & (shares < 1)).any():
            yield Label(x, y, "a part of the height: some of the pairs", Role.FAINT, 9)
        return
    known = shares[~np.isnan(shares)]
    shown = [("allowed", 14.0), ("not allowed", 0.0)]
    if ((known > 0) & (known < 1)).any():
        shown.insert(1, ("some of the pairs", 8.0))
    for name, side in shown:
        yield Box(x, y - 7, 14, 14, Role.DEVICE, Role.FRAME, 0)
        if side:
            yield Box(x + 7 - side / 2, y - side / 2, side, side, Role.REQUEST, Role.NONE, 0)
        yield Label(x + 20, y, name, Role.INK, 9)
        x += 36 + width(name, 9)
    if np.isnan(shares).any():
        yield Box(x + 4.8, y - 2.2, 4.4, 4.4, Role.FRAME, Role.NONE, 2.2)
        yield Label(x + 20, y, "itself", Role.INK, 9)


# Words


def _levels(rows: Sequence[_Row], found: Reach) -> str:
    if len(rows) == len(found.pods):
        return f"{len(rows)} pods"
    return f"{len(found.pods):,} pods in {len(rows)} rows of pods that are treated alike or stand in one namespace"


def _told(rows: Sequence[_Row], shares: NDArray[np.float64], ports: Sequence[Port]) -> Iterator[str]:
    """Who may be reached by whom, row by row, where these are not too many."""
    if len(rows) > MOST_SAID:
        return
    for at, port in enumerate(ports):
        for column, row in enumerate(rows):
            others = [other.name for number, other in enumerate(rows) if number != column or other.pods > 1]
            sources = [
                other.name + ("" if shares[at, number, column] == 1 else " (some)")
                for number, other in enumerate(rows)
                if shares[at, number, column] > 0
            ]
            if len(sources) == len(others) and all("(some)" not in each for each in sources):
                yield f"{row.name} at {port}: from everybody."
            else:
                yield f"{row.name} at {port}: from {', '.join(sources) or 'nobody'}."
