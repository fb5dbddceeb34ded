"""What does a plan do to a zone?

A row for every name and type: what it has now at the left, what it will have at the right, and whose it is. A set of
records that goes is dashed, one that comes or changes is strong, one that stays is plain. Under a row stands why
something that is wanted there is left alone.

The TXT records that say whose a record set is are not drawn: they are what the last column says.

Not modelled: SOA and NS records, which nobody here changes. Guide section 5.5.
"""

from __future__ import annotations

from collections.abc import Iterator

from k8snetlab.dns.external import Action, Change, Plan, said
from k8snetlab.dns.zone import RecordSet
from k8snetlab.draw.drawing import PAGE, Drawing
from k8snetlab.draw.lettering import fitted, wrapped
from k8snetlab.draw.marks import Box, Label, Line, Mark, arrowhead, sheet
from k8snetlab.draw.theme import Role, theme_of

__all__ = ["zone"]

MARGIN, HEAD = 16, 50
NAME, DATA, BETWEEN = 210, 205, 34
TALL, PITCH, LINE = 24, 34, 13
BEFORE = MARGIN + NAME
AFTER = BEFORE + DATA + BETWEEN
OWNER = AFTER + DATA + 14


def zone(plan: Plan, *, theme: str = "light") -> Drawing:
    """The record sets of a zone before and after a plan.

    Raises `UnknownName` for a theme that does not exist.
    """
    theme_of(theme)
    changes = {(each.records.name, each.records.type): each for each in plan.changes}
    held = {key: each for key, each in plan.zone.by_key.items() if _is_shown(each)}
    marks: list[Mark] = [*_head(plan)]
    alt = [f"The zone {plan.zone.origin} before and after a plan."]
    left: dict[str, list[str]] = {}
    for each in plan.left:
        left.setdefault(each.name, []).append(f"{each.resource}: {each.why}")
    y = float(HEAD + MARGIN)
    for key in sorted({*held, *changes}, key=lambda key: (key[0].removesuffix(".").split(".")[::-1], key[1])):
        before, change = held.get(key), changes.get(key)
        owner = _owner(plan, change.records if change is not None else held[key])
        marks += _row(plan, key, before, change, owner, y)
        alt.append(_said(key, before, change, owner))
        y += PITCH
        for why in left.pop(" ".join(key), ()):
            for line in wrapped(f"left alone: {why}", PAGE - 2 * MARGIN - NAME, 8.5):
                marks.append(Label(BEFORE, y - 1, line, Role.FAINT, 8.5))
                y += LINE
            alt.append(f"Left alone there: {why}.")
            y += 6
    for name, whys in sorted(left.items()):
        for why in whys:
            told = f"{name}: {why}" if name else why
            for at, line in enumerate(wrapped(f"left alone: {told}", PAGE - 2 * MARGIN, 8.5)):
                marks.append(Label(MARGIN, y + 4 + LINE * at, line, Role.FAINT, 8.5))
                y += LINE if at else 0
            y += LINE + 2
            alt.append(f"Left alone: {told}.")
    return Drawing(PAGE, round(y + MARGIN), (sheet(marks),), (), tuple(alt), theme)


def _is_shown(records: RecordSet) -> bool:
    return records.type not in ("SOA", "NS") and not (records.type == "TXT" and said(records.data[0]))


def _head(plan: Plan) -> Iterator[Mark]:
    yield Label(MARGIN, MARGIN + 8, plan.zone.origin, Role.INK, 12, "left", "bold")
    counts = ", ".join(f"{len(plan.of(action))} to {action}" for action in Action)
    yield Label(PAGE - MARGIN, MARGIN + 8, counts, Role.FAINT, 9.5, "right")
    for x, text in ((BEFORE, "now"), (AFTER, "then"), (OWNER, "whose")):
        yield Label(x, HEAD, text, Role.FAINT, 9)


def _row(
    plan: Plan, key: tuple[str, str], before: RecordSet | None, change: Change | None, owner: str, y: float
) -> Iterator[Mark]:
    name, kind = key
    middle = y + TALL / 2
    short = name.removesuffix(plan.zone.origin).removesuffix(".") or "@"
    yield Label(MARGIN, middle, fitted(short, NAME - 64, 10, "bold"), Role.INK, 10, "left", "bold")
    yield Label(BEFORE - 12, middle, kind, Role.FAINT, 9, "right")
    goes = change is not None and change.after is None
    if before is not None:
        dash = (4.0, 3.0) if goes else ()
        yield Box(BEFORE, y, DATA, TALL, Role.CONTAINER, Role.LOST if goes else Role.FRAME, 3, 1.2, dash)
        yield Label(BEFORE + 8, middle, fitted(_data(before), DATA - 16, 9), Role.INK, 9)
    if goes:
        yield Label(AFTER + 8, middle, "deleted", Role.FAINT, 9)
        return
    after = change.after if change is not None else before
    assert after is not None
    if before is not None:
        yield Line(((BEFORE + DATA + 5, middle), (AFTER - 9, middle)), Role.REQUEST if change else Role.FRAME, 1.2)
        yield arrowhead((AFTER - 4, middle), (1, 0), Role.REQUEST if change else Role.FRAME, 7)
    strong = (Role.REQUEST, 2.0) if change is not None else (Role.FRAME, 1.2)
    yield Box(AFTER, y, DATA, TALL, Role.DEVICE if change else Role.CONTAINER, strong[0], 3, strong[1])
    yield Label(AFTER + 8, middle, fitted(_data(after), DATA - 16, 9), Role.INK, 9)
    yield Label(OWNER, middle, fitted(owner, PAGE - MARGIN - OWNER, 9), Role.FAINT, 9)


def _data(records: RecordSet) -> str:
    return f"{', '.join(records.data)}  ({records.ttl} s)"


def _owner(plan: Plan, records: RecordSet) -> str:
    owner = plan.owned(records).owner
    return f"owner {owner}" if owner else "nobody says"


def _said(key: tuple[str, str], before: RecordSet | None, change: Change | None, owner: str) -> str:
    name = " ".join(key)
    if change is None:
        assert before is not None
        return f"{name}: {_data(before)} stays; {owner}."
    if change.after is None:
        assert change.before is not None
        return f"{name}: {_data(change.before)} is deleted."
    if change.before is None:
        return f"{name}: {_data(change.after)} is created; {owner}."
    return f"{name}: {_data(change.before)} becomes {_data(change.after)}; {owner}."
