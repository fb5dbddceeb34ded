"""What shall the eye find first?

On a terminal the answers keep their words and get colours: where a packet is, what changed it, how it ended. The text
is the same as without colours, so that a copied line can be searched for.

Not modelled: themes. The sixteen colours are those of the terminal, which fit its background; no meaning is in a colour
alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

from rich.console import Console
from rich.highlighter import RegexHighlighter
from rich.table import Table
from rich.text import Text
from rich.theme import Theme

__all__ = ["COLOURS", "say", "table"]

COLOURS: Mapping[str, str] = {
    "lab.good": "green",
    "lab.bad": "bold red",
    "lab.changes": "yellow",
    "lab.machine": "bold cyan",
    "lab.heading": "bold",
    "lab.rule": "dim",
    "lab.added": "green",
    "lab.removed": "red",
    "lab.changed": "yellow",
}


class Words(RegexHighlighter):
    """The words of traces, rules and differences that stand out."""

    base_style: ClassVar[str] = "lab."
    highlights: ClassVar[list[str]] = [
        r"\b(?P<good>DELIVERED|OPEN|holds)\b",
        r"\b(?P<bad>DROPPED|REJECTED|UNREACHABLE|TIMEOUT|REFUSED|MIXED|LOST|DROP|REJECT|BROKEN|OVERLAP)\b",
        r"(?m)^ +\d+ +\S* +(?P<changes>DNAT|SNAT|CONNTRACK|ENCAPSULATE|DECAPSULATE|FRAGMENT)\b",
        r"(?m)^(?P<machine>(# )?[a-z0-9][\w./:-]*)$",
        r"(?m)^(?P<heading>(There|And back|Back|CHANCE .*|NAMESPACE .*|NAME .*))$",
        r"(?m)^(?P<rule>( {8,})-A .*(?:\n\2 .*)*)$",
        r"(?m)^(?P<added> {2}\+ .*)$",
        r"(?m)^(?P<removed> {2}- .*)$",
        r"(?m)^(?P<changed> {2}~ .*)$",
    ]


def console() -> Console:
    """Standard output with our colours."""
    return Console(theme=Theme(dict(COLOURS)), highlighter=Words(), markup=False, emoji=False, soft_wrap=True)


def say(text: str) -> None:
    """Print text with its words coloured; lines are left as long as they are."""
    console().print(text.rstrip())


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under headings, with long cells folded. The first cell of a row says yes or no."""
    grid = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        grid.add_column(heading, overflow="fold")
    for answer, *cells in rows:
        grid.add_row(Text(answer, "lab.good" if answer == "yes" else "lab.bad"), *map(Text, cells))
    console().print(grid)
