"""What controllers wrote, as bars and lines."""

from __future__ import annotations

import pytest

from k8snetlab import draw
from k8snetlab.cluster import example
from k8snetlab.draw.marks import Box, Line
from k8snetlab.draw.theme import Role
from k8snetlab.errors import UnknownName
from k8snetlab.services import churn
from k8snetlab.services.churn import Ledger


def restarted(pods: int, most: int = 100) -> Ledger:
    """A Service with so many pods, one of which was replaced."""
    there = example("service-many-pods").ledger("default/web")
    begun = churn.started(there.slices.service, churn.resized(there.pods, pods), there.slices.nodes, most)
    return begun.after(churn.restarted(begun.pods, 1), "one pod restarts")


def boxes(drawing: draw.Drawing, fill: Role, tall: float) -> list[Box]:
    """The boxes of a colour and height."""
    return [box for sheet in drawing.ground for box in sheet.boxes if box.fill is fill and box.height == tall]


def test_bars_are_as_long_as_what_was_written() -> None:
    """Three writes of Endpoints against four of slices, and their bytes."""
    ledger = restarted(250)
    drawing = draw.ledger(ledger)
    (writes, sent), (other, less) = boxes(drawing, Role.REQUEST, 20), boxes(drawing, Role.SERVICE, 20)
    assert other.width / writes.width == pytest.approx(3 / 4)
    assert sent.width / less.width == pytest.approx(ledger.last.slices.bytes / ledger.last.endpoints.bytes)


def test_slices_are_as_full_as_they_are() -> None:
    """99, 100 and 51 of 100."""
    drawing = draw.ledger(restarted(250))
    full = [
        box.height / 26
        for sheet in drawing.ground
        for box in sheet.boxes
        if box.width == 14 and box.fill is Role.REQUEST
    ]
    assert full == pytest.approx([0.99, 1.0, 0.51])


def test_many_slices_are_counted() -> None:
    """Ten are drawn; the text says how many there are."""
    drawing = draw.ledger(restarted(250, 10))
    assert "+16" in [label.text for sheet in drawing.ground for label in sheet.labels]
    assert "26 slices now: 9+10+10" in drawing.text


def test_every_ledger_has_a_row_and_endpoints_one() -> None:
    """Slices of two sizes and the object that has none."""
    drawing = draw.ledger(restarted(30, 10), restarted(30))
    assert [line.split(":")[0] for line in drawing.alt[1:]] == ["slices of 10", "slices of 100", "one Endpoints object"]


def test_lines_go_through_all_ledgers() -> None:
    """Fewest pods first, whatever the order; the line of Endpoints is dashed."""
    drawing = draw.growth([restarted(150), restarted(10), restarted(50)])
    found = [line for line in drawing.ground[0].lines if line.role in (Role.REQUEST, Role.SERVICE)]
    assert [len(line.points) for line in found] == [3, 3]
    assert [bool(line.dash) for line in found] == [False, True]
    assert all(_rightwards(line) for line in found)
    assert [line.split(":")[0] for line in drawing.alt[1:]] == ["10 pods", "50 pods", "150 pods"]


def _rightwards(line: Line) -> bool:
    return [x for x, _ in line.points] == sorted(x for x, _ in line.points)


@pytest.mark.parametrize("pods", [10, 60, 999, 1005])
def test_ticks_are_few_and_round(pods: int) -> None:
    """An axis has two to six numbers, the first of which is 0."""
    from k8snetlab.draw.ledger import _ticks

    found = _ticks(pods)
    assert found[0] == 0
    assert 2 <= len(found) <= 6


def test_a_theme_that_does_not_exist_is_named() -> None:
    """Light and dark there are."""
    with pytest.raises(UnknownName, match="light"):
        draw.ledger(restarted(10), theme="blue")
    with pytest.raises(UnknownName, match="light"):
        draw.growth([restarted(10)], theme="blue")
