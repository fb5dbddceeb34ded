"""How wide is a word?

Labels are set in DejaVu Sans, in the copy that matplotlib brings along: the same text has the same shape on every
machine. A glyph's outline is looked up once for each text and scaled; that is what makes repainting quick.
"""

from __future__ import annotations

from functools import lru_cache
from math import fsum
from pathlib import Path as FilePath

import matplotlib as mpl
import numpy as np
from matplotlib.font_manager import FontProperties
from matplotlib.path import Path
from matplotlib.textpath import text_to_path
from numpy.typing import NDArray

from k8snetlab.draw.marks import Label

__all__ = ["FAMILY", "fitted", "outline", "width", "wrapped"]

FAMILY = "DejaVu Sans"
_FILES = {"normal": "DejaVuSans.ttf", "bold": "DejaVuSans-Bold.ttf"}
_UNIT = 100.0
_SHIFT = {"left": 0.0, "center": -0.5, "right": -1.0}
MIDDLE = 0.36
"""How far the baseline is under the middle of a figure or a capital, in units of the font's size."""


@lru_cache(maxsize=2)
def _font(weight: str) -> FontProperties:
    return FontProperties(fname=FilePath(mpl.get_data_path()) / "fonts" / "ttf" / _FILES[weight], size=_UNIT)


def width(text: str, size: float = 10.0, weight: str = "normal") -> float:
    """The width of a text in pixels, without kerning. Every version of Python adds up to the same last digit."""
    return fsum(_advance(letter, weight) for letter in text) * size


@lru_cache(maxsize=1 << 10)
def _advance(letter: str, weight: str) -> float:
    wide, _, _ = text_to_path.get_text_width_height_descent(letter, _font(weight), ismath=False)
    return float(wide) / _UNIT


@lru_cache(maxsize=1 << 13)
def _glyphs(text: str, weight: str) -> tuple[NDArray[np.float64], NDArray[np.uint8]]:
    vertices, codes = text_to_path.get_text_path(_font(weight), text, ismath=False)
    points = np.asarray(vertices, dtype=np.float64).reshape(-1, 2) * (1 / _UNIT, -1 / _UNIT)
    return points, np.asarray(codes, dtype=np.uint8)


def outline(label: Label) -> Path:
    """The shape of a label, in pixels from the upper left corner of the picture."""
    points, codes = _glyphs(label.text, label.weight)
    left = label.x + _SHIFT[label.align] * width(label.text, label.size, label.weight)
    return Path(points * label.size + (left, label.y + MIDDLE * label.size), codes)


@lru_cache(maxsize=1 << 13)
def fitted(text: str, room: float, size: float = 10.0, weight: str = "normal") -> str:
    """The text, with its middle left out where it is wider than `room` pixels: `checkout-7c9…-x2k4z`."""
    if width(text, size, weight) <= room:
        return text
    for kept in range(len(text) - 2, 1, -1):
        head = (kept + 1) // 2
        shorter = f"{text[:head]}…{text[len(text) - (kept - head) :]}"
        if width(shorter, size, weight) <= room:
            return shorter
    return "…"


def wrapped(text: str, room: float, size: float = 10.0, lines: int = 2) -> tuple[str, ...]:
    """The text in at most so many lines of `room` pixels; what is too much is left out at the end."""
    found: list[str] = []
    words = text.split()
    while words and len(found) < lines:
        line = words.pop(0)
        while words and width(f"{line} {words[0]}", size) <= room:
            line = f"{line} {words.pop(0)}"
        found.append(line)
    if words and found:
        rest = f"{found[-1]} {' '.join(words)}"
        while rest and width(f"{rest}…", size) > room:
            rest = rest[:-1]
        found[-1] = f"{rest.rstrip()}…"
    return tuple(fitted(line, room, size) for line in found)
