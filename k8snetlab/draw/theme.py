"""Which colour means what?

A mark says what it stands for — the request, the reply, a place where a packet was lost — and a theme says how that is
painted, on white paper or on black. The hues are those of Okabe and Ito, which people with any common colour blindness
tell apart; green and purple are darker on white paper, where the originals come too near to blue. No meaning hangs on
colour alone: the reply is dashed and its numbers stand in squares, what was lost has a cross.

Lines have a contrast of at least 3:1 to every ground that they cross, text of at least 4.5:1 (WCAG 2.2, 1.4.3 and
1.4.11).
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

import msgspec

from k8snetlab.errors import UnknownName

__all__ = ["GROUNDS", "LINES", "LIT", "TEXTS", "THEMES", "Role", "Theme", "contrast", "theme_of"]


class Role(StrEnum):
    """What a mark stands for."""

    NONE = "none"
    PAPER = "paper"
    MACHINE = "machine"  # the inside of a machine
    DEVICE = "device"  # a bridge, a tunnel, a network card, a switch
    CONTAINER = "container"  # a pod
    INK = "ink"  # text
    FAINT = "faint"  # text that is second in rank
    FRAME = "frame"  # outlines and cables
    REQUEST = "request"
    REPLY = "reply"
    LOST = "lost"
    SERVICE = "service"  # what is on no interface: a Service, and what was rewritten for it
    ON_REQUEST = "on request"  # text on the colour of the request
    ETHERNET = "ethernet"
    IP = "ip"
    PORTS = "ports"
    TUNNEL = "tunnel"
    PAYLOAD = "payload"


class Theme(msgspec.Struct, frozen=True):
    """A name and a colour (`#rrggbb`) for every role but `NONE`."""

    name: str
    colours: Mapping[Role, str]

    def __getitem__(self, role: Role) -> str:
        """The colour of a role; `none` for nothing."""
        return self.colours.get(role, "none")


LIGHT = Theme(
    "light",
    {
        Role.PAPER: "#ffffff",
        Role.MACHINE: "#f7f8fa",
        Role.DEVICE: "#f1f4f8",
        Role.CONTAINER: "#ffffff",
        Role.INK: "#1a1a1a",
        Role.FAINT: "#565c64",
        Role.FRAME: "#7d858f",
        Role.REQUEST: "#0072b2",
        Role.REPLY: "#004f3a",
        Role.LOST: "#d55e00",
        Role.SERVICE: "#a53f77",
        Role.ON_REQUEST: "#ffffff",
        Role.ETHERNET: "#f3dda6",
        Role.IP: "#c4e3f6",
        Role.PORTS: "#bfe6d6",
        Role.TUNNEL: "#f0cfe0",
        Role.PAYLOAD: "#e3e5e8",
    },
)
DARK = Theme(
    "dark",
    {
        Role.PAPER: "#121212",
        Role.MACHINE: "#1b1d20",
        Role.DEVICE: "#25292e",
        Role.CONTAINER: "#121212",
        Role.INK: "#f0f0f0",
        Role.FAINT: "#aab1b9",
        Role.FRAME: "#868e98",
        Role.REQUEST: "#56b4e9",
        Role.REPLY: "#f0e442",
        Role.LOST: "#d55e00",
        Role.SERVICE: "#cc79a7",
        Role.ON_REQUEST: "#10181d",
        Role.ETHERNET: "#5a4510",
        Role.IP: "#124a68",
        Role.PORTS: "#0c4f3c",
        Role.TUNNEL: "#5d2f49",
        Role.PAYLOAD: "#3a3d42",
    },
)
THEMES: Mapping[str, Theme] = MappingProxyType({theme.name: theme for theme in (LIGHT, DARK)})

GROUNDS = (Role.PAPER, Role.MACHINE, Role.DEVICE, Role.CONTAINER)
LINES = (Role.FRAME, Role.REQUEST, Role.REPLY, Role.LOST, Role.SERVICE)
TEXTS = (Role.INK, Role.FAINT)
LIT = (Role.ETHERNET, Role.IP, Role.PORTS, Role.TUNNEL, Role.PAYLOAD)
"""Grounds with a hue, each with its name written on it."""


def theme_of(name: str) -> Theme:
    """The theme of that name; `UnknownName` says which there are."""
    try:
        return THEMES[name]
    except KeyError:
        raise UnknownName("theme", name, THEMES) from None


def contrast(one: str, other: str) -> float:
    """How well two colours stand out from each other: 1 to 21 (WCAG 2.2).

    >>> contrast("#000000", "#ffffff")
    21.0
    """
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    """The relative luminance of `#rrggbb`: 0 (black) to 1 (white)."""
    channels = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
