"""What is the smallest cluster in which it still goes wrong?

A disagreement is found in a cluster with a dozen things that have nothing to do with it. They are taken away as long
as it stays: probes, happenings, Services, pods, nodes and what else there is, many at once first and then one by one.
What is left is not the smallest of all cases, but nothing can be taken away from it any more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from k8snetlab.errors import LabError
from tests.live.cases import Case

MOST = 120
"""So many smaller cases are tried: on a kernel each takes a second or two."""

ORDER = ("Service", "Pod", "Node", "")
"""The kinds of objects in the order they are taken away; the empty name is all others."""

T = TypeVar("T")


def shrunk(case: Case, disagrees: Callable[[Case], bool], most: int = MOST) -> Case:
    """The case without what the disagreement does not need. A case that cannot be built does not disagree."""
    left = most

    def stays(smaller: Case) -> bool:
        nonlocal left
        if left == 0:
            return False
        left -= 1
        try:
            return disagrees(smaller)
        except LabError:
            return False

    before = None
    while case != before:
        before = case
        case = _smaller(case, stays)
    return case


def _smaller(case: Case, stays: Callable[[Case], bool]) -> Case:
    """Each part of the case once, with nothing that can be missed."""

    def without(**parts: object) -> Case:
        return msgspec.structs.replace(case, **parts)

    case = without(probes=_fewer(case.probes, lambda probes: stays(without(probes=probes))))
    case = without(happened=_fewer(case.happened, lambda happened: stays(without(happened=happened))))
    for kind in ORDER:
        some = tuple(each for each in case.objects if _is(kind, each["kind"]))
        others = tuple(each for each in case.objects if not _is(kind, each["kind"]))
        kept = _fewer(some, lambda some, others=others: stays(without(objects=(*others, *some))))  # type: ignore[misc]
        if len(kept) < len(some):
            case = without(objects=(*others, *kept))
    return case


def _is(kind: str, other: str) -> bool:
    return other == kind if kind else other not in ORDER


def _fewer(items: tuple[T, ...], stays: Callable[[tuple[T, ...]], bool]) -> tuple[T, ...]:
    """The items without those that can be missed: all at once, halves, quarters, and last each by itself."""
    size = len(items)
    while size:
        at = 0
        while at < len(items):
            fewer = items[:at] + items[at + size :]
            if stays(fewer):
                items = fewer
            else:
                at += size
        size //= 2
    return items
