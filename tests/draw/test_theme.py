from __future__ import annotations

from itertools import combinations, product

import pytest

from k8snetlab.draw.theme import GROUNDS, LINES, LIT, TEXTS, THEMES, Role, Theme, contrast, theme_of
from k8snetlab.errors import UnknownName

# How light is seen by people without one kind of cone (Machado, Oliveira, Fernandes 2009, severity 1).
SEEN = {
    "all cones": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
FLOWS = (Role.REQUEST, Role.REPLY, Role.LOST, Role.SERVICE)

themes = pytest.mark.parametrize("theme", THEMES.values(), ids=lambda theme: theme.name)


def lab(colour: str, seen: tuple[tuple[float, ...], ...]) -> tuple[float, float, float]:
    """A colour as somebody sees it, in CIELAB, where distances are what eyes tell apart."""
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    light = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    red, green, blue = (min(1.0, max(0.0, sum(w * c for w, c in zip(row, light, strict=True)))) for row in seen)
    x = (0.4124 * red + 0.3576 * green + 0.1805 * blue) / 0.9505
    y = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    z = (0.0193 * red + 0.1192 * green + 0.9505 * blue) / 1.089
    fx, fy, fz = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 16 / 116 for t in (x, y, z))
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


@themes
def test_lines_stand_out_from_every_ground(theme: Theme) -> None:
    """Lines and marks have a contrast of 3:1 or more to all they are drawn on (WCAG 2.2, 1.4.11)."""
    faint = {
        (line, ground): round(ratio, 2)
        for line, ground in product(LINES, GROUNDS)
        if (ratio := contrast(theme[line], theme[ground])) < 3.0
    }
    assert not faint


@themes
def test_text_stands_out_from_every_ground(theme: Theme) -> None:
    """Text has a contrast of 4.5:1 or more to all it is written on (WCAG 2.2, 1.4.3)."""
    pairs = [*product(TEXTS, GROUNDS), *((Role.INK, lit) for lit in LIT), (Role.ON_REQUEST, Role.REQUEST)]
    faint = {pair: ratio for pair in pairs if (ratio := contrast(theme[pair[0]], theme[pair[1]])) < 4.5}
    assert not faint


@themes
@pytest.mark.parametrize("eyes", SEEN)
def test_flows_are_told_apart_by_every_eye(theme: Theme, eyes: str) -> None:
    """Request, reply, loss and Service look different to people with each kind of colour blindness."""
    seen = {role: lab(theme[role], SEEN[eyes]) for role in FLOWS}
    near = {
        (one, other): round(distance, 1)
        for one, other in combinations(FLOWS, 2)
        if (distance := sum((a - b) ** 2 for a, b in zip(seen[one], seen[other], strict=True)) ** 0.5) < 18
    }
    assert not near


@themes
def test_every_role_has_a_colour(theme: Theme) -> None:
    """No mark is left unpainted by a theme; only `NONE` is nothing."""
    assert [role for role in Role if theme[role] == "none"] == [Role.NONE]


def test_an_unknown_theme_is_named() -> None:
    """A theme that does not exist is an error that says which there are."""
    with pytest.raises(UnknownName, match="'drak'; did you mean dark"):
        theme_of("drak")
