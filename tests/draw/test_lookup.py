"""Lookups as pictures."""

from __future__ import annotations

from functools import cache

import pytest

from k8snetlab import draw
from k8snetlab.draw.theme import Role
from k8snetlab.errors import BadOption, UnknownName
from k8snetlab.flows.resolution import Resolution
from tests.shops import bookshop


@cache
def found() -> Resolution:
    """A name of the world, from a pod."""
    return bookshop().resolve("shop/web-0", "www.example.com")


def labels(drawing: draw.Drawing) -> list[str]:
    """Every text in a picture."""
    return [label.text for sheet in drawing.ground for label in sheet.labels]


def test_a_ladder_has_an_arrow_for_each_pair_and_one_back() -> None:
    """Four names there and back, and what CoreDNS asked outside between the last two."""
    drawing = draw.lookup(found())
    arrows = [line for line in drawing.ground[1].lines if line.role in (Role.REQUEST, Role.REPLY)]
    assert [line.role for line in arrows[-4:]] == [Role.REQUEST, Role.REQUEST, Role.REPLY, Role.REPLY]
    assert len(arrows) == 10
    assert "www.example.com.shop.svc.cluster.local. A, AAAA" in labels(drawing)
    assert {"shop/web-0", "external"} <= set(labels(drawing))
    assert "4.1 external" not in drawing.text and "asks external: www.example.com. A, AAAA." in drawing.text


def test_a_lost_question_ends_in_a_cross_with_its_reason() -> None:
    """The address that was asked, how long was waited, and why nothing came."""
    nobody = bookshop().without("shop/web-0", bookshop().network["shop/web-0"].routes[0])
    drawing = draw.lookup(nobody.resolve("shop/web-0", "api", type="A"))
    crosses = sum(line.role is Role.LOST and line.width == 3.4 for line in drawing.ground[1].lines) // 2
    assert crosses == len([each for each in drawing.alt if "No answer" in each]) > 0


def test_what_hosts_knows_is_drawn_without_a_question() -> None:
    """One column, no arrow, and the end."""
    drawing = draw.lookup(bookshop().resolve("shop/web-0", "localhost"))
    assert not drawing.ground[1].lines
    assert any("nobody is asked" in label for label in labels(drawing))


def test_questions_are_bars_as_long_as_their_number() -> None:
    """The longest fills its cell; none is no bar."""
    counts = {"api": {"ndots:1": 8, "ndots:5": 2}, "web-0": {"ndots:1": 0, "ndots:5": 0}}
    drawing = draw.questions(counts, title="Questions", across="options", theme="dark")
    bars = [box.width for box in drawing.ground[0].boxes if box.fill is Role.REQUEST]
    assert bars == [72.0, 18.0]
    assert "api: 8 at ndots:1, 2 at ndots:5." in drawing.alt


def test_what_cannot_be_drawn_is_an_error() -> None:
    """No numbers, columns that differ, no such theme."""
    with pytest.raises(BadOption):
        draw.questions({}, title="", across="")
    with pytest.raises(BadOption):
        draw.questions({"a": {"1": 1}, "b": {"2": 1}}, title="", across="")
    with pytest.raises(UnknownName):
        draw.lookup(found(), theme="sepia")
