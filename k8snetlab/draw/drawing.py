"""How does a picture get onto paper?

A `Drawing` is a value: sheets of marks, a text that says the same in words, and a theme. It is painted when somebody
asks for its `svg` or its `png`, by matplotlib, with `Figure` objects that nobody else knows of; the same drawing
gives the same bytes each time. A notebook gets text, SVG and PNG together: screen readers and comparisons read the
text, and a notebook that is not trusted shows no SVG.

An `Easel` is a place: it keeps one figure and its artists, and paints drawing after drawing by giving them other
shapes. What lies under the path of a packet is kept as pixels, and only the path is painted again. What it gives is
what a fresh one would.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from functools import cache, cached_property
from html import escape
from pathlib import Path as FilePath
from typing import Any, Literal, TypeAlias

import matplotlib as mpl
import msgspec
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.path import Path
from matplotlib.text import Text
from matplotlib.transforms import Affine2D, Transform
from numpy.typing import NDArray
from PIL import Image

from k8snetlab.draw.lettering import FAMILY, MIDDLE, outline
from k8snetlab.draw.marks import Box, Sheet
from k8snetlab.draw.png import Packer
from k8snetlab.draw.theme import GROUNDS, LINES, LIT, TEXTS, Role, Theme, theme_of
from k8snetlab.errors import UnknownName

__all__ = ["Drawing", "Easel"]

DPI = 72.0
"""A point is then a pixel, in SVG as in PNG."""

PAGE = 920
"""Pixels that a page gives an SVG: JupyterLab shows it in its own size and cuts off what is wider."""

LARGE = 1_000_000
"""A picture of more pixels than a whole screen."""


class Drawing(msgspec.Struct, frozen=True, dict=True):
    """A picture as a value. `ground` is painted under `over`; `alt` says in sentences what is to be seen.

    `width` and `height` are in pixels; the PNG has twice as many, for sharp screens, or a third more where the
    picture is large: notebooks carry it.
    """

    width: int
    height: int
    ground: tuple[Sheet, ...]
    over: tuple[Sheet, ...]
    alt: tuple[str, ...]
    theme: str = "light"

    @property
    def text(self) -> str:
        """The text alternative, one sentence a line."""
        return "\n".join(self.alt)

    @cached_property
    def svg(self) -> str:
        """The picture as SVG text; labels stay text."""
        return _svg(self)

    @cached_property
    def png(self) -> bytes:
        """The picture as PNG, two pixels for one (four for three of a large one)."""
        scale = 2.0 if self.width * self.height <= LARGE else 4 / 3
        pixels = Image.fromarray(Easel(scale=scale).pixels(self)).convert("RGB")
        found = io.BytesIO()
        pixels.quantize(palette=_palette(self.theme), dither=Image.Dither.NONE).save(found, "png", optimize=True)
        return found.getvalue()

    def themed(self, theme: str) -> Drawing:
        """The same picture on other paper: `light` or `dark`. Raises `UnknownName`."""
        return msgspec.structs.replace(self, theme=theme_of(theme).name)

    def save(self, path: str | FilePath) -> None:
        """Write a file; its ending says what: `.svg`, `.png` or `.txt`. Raises `UnknownName` for another."""
        path = FilePath(path)
        match path.suffix:
            case ".svg":
                path.write_text(self.svg, encoding="utf-8")
            case ".png":
                path.write_bytes(self.png)
            case ".txt":
                path.write_text(f"{self.text}\n", encoding="utf-8")
            case other:
                raise UnknownName("kind of picture", other, (".svg", ".png", ".txt"))

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
        data = {"text/plain": self.text, "image/svg+xml": self.svg, "image/png": self.png}
        return data, {"image/png": {"width": self.width, "height": self.height}}

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"<Drawing {self.width}×{self.height} {self.theme}: {self.alt[0] if self.alt else ''}>"


class Easel:
    """A figure that is painted again and again: `Image.value = easel.png(drawing)`. `scale` is pixels of the PNG for
    each pixel of the drawing.

    The PNG is packed for speed; it is larger than that of `Drawing.png`.
    """

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self._canvas = FigureCanvasAgg(Figure(dpi=DPI * scale))
        self._packer = Packer()
        self._size = (0, 0)
        self._ground: tuple[tuple[Sheet, ...], str] | None = None
        self._kept: Any = None
        self._under: list[_Painter] = []
        self._over: list[_Painter] = []

    def png(self, drawing: Drawing) -> bytes:
        """The drawing as PNG."""
        return self._packer.pack(self.pixels(drawing))

    def pixels(self, drawing: Drawing) -> NDArray[np.uint8]:
        """The drawing as red, green, blue and opacity: shape (height, width, 4), valid until the next drawing is
        painted."""
        self._painted(drawing)
        return np.asarray(self._canvas.buffer_rgba())  # type: ignore[no-untyped-call]

    def _painted(self, drawing: Drawing) -> None:
        theme = theme_of(drawing.theme)
        figure = self._canvas.figure
        if self._size != (drawing.width, drawing.height):
            self._size = (drawing.width, drawing.height)
            figure.set_size_inches(drawing.width / DPI, drawing.height / DPI)
            self._ground, self._under, self._over = None, [], []
        renderer: RendererAgg = self._canvas.get_renderer()  # type: ignore[no-untyped-call]
        if self._ground != (drawing.ground, drawing.theme):
            renderer.clear()  # type: ignore[no-untyped-call]
            figure.patch.set_facecolor(theme[Role.PAPER])
            figure.patch.draw(renderer)
            self._paint(self._under, drawing.ground, theme, renderer)
            self._kept = renderer.copy_from_bbox(figure.bbox)
            self._ground = (drawing.ground, drawing.theme)
        else:
            renderer.restore_region(self._kept)  # type: ignore[no-untyped-call]
        self._paint(self._over, drawing.over, theme, renderer)

    def _paint(self, painters: list[_Painter], sheets: Sequence[Sheet], theme: Theme, renderer: RendererAgg) -> None:
        while len(painters) < len(sheets):
            painters.append(_Painter(self._canvas.figure, self._size[1]))
        for painter, sheet in zip(painters, sheets, strict=False):
            painter.take(sheet, theme)
            painter.draw(renderer)


class _Painter:
    """The three artists of one sheet."""

    def __init__(self, figure: Figure, height: float) -> None:
        turned = _downwards(figure, height)
        self.artists = tuple(PathCollection([], transform=turned) for _ in range(3))
        for artist in self.artists:
            artist.set_figure(figure)

    def take(self, sheet: Sheet, theme: Theme) -> None:
        """Give the artists the shapes of a sheet."""
        lines, boxes, labels = self.artists
        lines.set_paths([Path(line.points) for line in sheet.lines])
        lines.set_facecolor("none")
        lines.set_edgecolor([theme[line.role] for line in sheet.lines])
        lines.set_linewidth([line.width for line in sheet.lines])
        lines.set_linestyle([_dashes(line.dash, line.width) for line in sheet.lines])
        boxes.set_paths([_shape(box) for box in sheet.boxes])
        boxes.set_facecolor([theme[box.fill] for box in sheet.boxes])
        boxes.set_edgecolor([theme[box.line] for box in sheet.boxes])
        boxes.set_linewidth([box.thickness for box in sheet.boxes])
        boxes.set_linestyle([_dashes(box.dash, box.thickness) for box in sheet.boxes])
        labels.set_paths([outline(label) for label in sheet.labels])
        labels.set_facecolor([theme[label.role] for label in sheet.labels])
        labels.set_linewidth(0.0)

    def draw(self, renderer: RendererAgg) -> None:
        for artist in self.artists:
            if len(artist.get_paths()):
                artist.draw(renderer)


def _downwards(figure: Figure, height: float) -> Transform:
    """From pixels below the upper left corner to the figure's own units."""
    return Affine2D().scale(1 / DPI, -1 / DPI).translate(0, height / DPI) + figure.dpi_scale_trans


Stroke: TypeAlias = Literal["solid"] | tuple[float, tuple[float, ...]]


def _dashes(dash: tuple[float, ...], width: float) -> Stroke:
    """Dashes as matplotlib counts them, in widths of the line; marks count pixels."""
    return (0.0, tuple(length / width for length in dash)) if dash and width else "solid"


@cache
def _palette(name: str) -> Image.Image:
    """The colours of a theme, and those in between at the edges of lines and letters: a third of the bytes of all
    colours."""
    theme = theme_of(name)
    pairs = [(line, ground) for ground in GROUNDS for line in (*LINES, *TEXTS)]
    pairs += [(line, ground) for ground in LIT for line in (Role.INK, Role.FRAME)]
    pairs += [(Role.ON_REQUEST, Role.REQUEST), (Role.PAPER, Role.REQUEST)]
    colours = dict.fromkeys(_rgb(colour) for _, colour in sorted(theme.colours.items()))
    for line, ground in pairs:
        steps = (_between(_rgb(theme[line]), _rgb(theme[ground]), step / 6) for step in range(1, 6))
        colours.update(dict.fromkeys(steps))
    found = Image.new("P", (1, 1))
    found.putpalette([channel for colour in list(colours)[:256] for channel in colour])
    return found


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _between(one: tuple[int, int, int], other: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    red, green, blue = (round(a + share * (b - a)) for a, b in zip(one, other, strict=True))
    return red, green, blue


_ROUND = 1 - 0.5523
"""How far from a corner's end the control point of a quarter circle lies, in radii."""


def _shape(box: Box) -> Path:
    if box.points:
        return Path((*box.points, box.points[0]), closed=True)
    left, top, right, bottom = box.x, box.y, box.x + box.width, box.y + box.height
    r = min(box.radius, box.width / 2, box.height / 2)
    if not r:
        return Path(((left, top), (right, top), (right, bottom), (left, bottom), (left, top)), closed=True)
    k = r * _ROUND
    points = (
        (left + r, top), (right - r, top), (right - k, top), (right, top + k), (right, top + r),
        (right, bottom - r), (right, bottom - k), (right - k, bottom), (right - r, bottom),
        (left + r, bottom), (left + k, bottom), (left, bottom - k), (left, bottom - r),
        (left, top + r), (left, top + k), (left + k, top), (left + r, top), (left + r, top),
    )  # fmt: skip
    return Path(points, _ROUNDED)


_ROUNDED = (
    Path.MOVETO,
    *(code for _ in range(4) for code in (Path.LINETO, Path.CURVE4, Path.CURVE4, Path.CURVE4)),
    Path.CLOSEPOLY,
)


def _svg(drawing: Drawing) -> str:
    theme = theme_of(drawing.theme)
    figure = Figure(figsize=(drawing.width / DPI, drawing.height / DPI), dpi=DPI, facecolor=theme[Role.PAPER])
    canvas = FigureCanvasSVG(figure)
    turned = _downwards(figure, drawing.height)
    for order, sheet in enumerate((*drawing.ground, *drawing.over)):
        painter = _Painter(figure, drawing.height)
        painter.take(sheet._replace(labels=()), theme)
        for artist in painter.artists:
            artist.set_zorder(order)
            if len(artist.get_paths()):
                figure.add_artist(artist, clip=False)
        for label in sheet.labels:
            text = Text(
                label.x,
                label.y + MIDDLE * label.size,
                label.text,
                color=theme[label.role],
                fontsize=label.size,
                fontweight=label.weight,
                fontfamily=FAMILY,
                horizontalalignment=label.align,
                transform=turned,
                zorder=order,
                parse_math=False,
            )
            figure.add_artist(text, clip=False)
    found = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "k8snetlab", "svg.fonttype": "none"}):
        canvas.print_svg(found, metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]
    return _accessible(found.getvalue(), drawing)


def _accessible(svg: str, drawing: Drawing) -> str:
    """The root element with a size in pixels, and with the text alternative where screen readers look for it."""
    start = svg.index("<svg")
    head, body = svg[start:].split(">", 1)
    head = re.sub(r' (?:width|height)="[^"]*"', "", head)
    scale = min(1.0, PAGE / drawing.width)
    width, height = round(drawing.width * scale), round(drawing.height * scale)
    size = f'width="{width}" height="{height}" style="max-width: 100%; height: auto"'
    said = f"<title>{escape(drawing.alt[0] if drawing.alt else '')}</title>\n <desc>{escape(drawing.text)}</desc>"
    return f'{head} {size} role="img">\n {said}{body}'
