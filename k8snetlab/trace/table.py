"""How does a trace look on a screen of text?

One line a step, under the name of the machine it happened on; the packet is printed where it has changed, so that what
changes it stands out. Rules that only pass the packet on (jumps, returns, accepts) can be left out: `telling` keeps
those that changed or chose something. Rules print as the real tool prints them, on a line of their own.

Not modelled: colours and cells; text goes anywhere. Guide section 2.1.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from k8snetlab.packet import (
    ARP,
    ESP,
    ICMP,
    SCTP,
    TCP,
    UDP,
    VXLAN,
    Ethernet,
    IPHeader,
    IPv4,
    IPv6,
    Packet,
    Sleeve,
    WireGuard,
)
from k8snetlab.trace.step import Action, Outcome, Step

__all__ = ["WIDTH", "brief", "chance", "chances", "endpoint", "html", "table", "telling"]

WIDTH = 132
"""Columns that a table may take where nobody says how many there are."""

NARROWEST_REASON = 40
NARROWEST_PACKET = 44
"""Where there is no room for both side by side, the reason stands below the packet."""

SAYING_MORE = (" -j MARK ", " --probability ", " -j CT ", " mark set ", " vmap ", "update @", "notrack")
"""What a rule that passes the packet on holds when it also changed or chose something."""


class Row(NamedTuple):
    """One step, ready to print. `packet` is a line for each layer of tunnel; empty where the row before shows it."""

    number: int
    where: str
    device: str
    action: str
    packet: tuple[str, ...]
    why: str
    rule: str


def telling(steps: Iterable[Step]) -> Iterator[tuple[int, Step]]:
    """The steps worth showing first, with their numbers: all but rules that only passed the packet on."""
    for number, step in enumerate(steps, 1):
        rule = step.rule
        if step.action is not Action.RULE or rule is None or any(said in rule.text for said in SAYING_MORE):
            yield number, step


def endpoint(address: str, port: int) -> str:
    """`10.0.0.1:80`, `[fd00::1]:80`."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def brief(packet: Packet) -> tuple[str, ...]:
    """The packet in few words, a line for each layer of tunnel, the outermost first.

    >>> brief(Packet((IPv4("10.0.0.1", "10.0.0.2", "TCP"), TCP(40000, 80))))
    ('TCP 10.0.0.1:40000 > 10.0.0.2:80 [S]',)
    """
    headers = packet.headers[1:] if isinstance(packet.headers[0], Ethernet) else packet.headers
    ip = headers[0] if headers else None
    if isinstance(ip, ARP):
        return (f"ARP {ip}",)
    if not isinstance(ip, IPv4 | IPv6):
        return (str(packet),)
    if len(headers) > 4 and isinstance(headers[1], ESP):
        outer = f"{headers[1]} ({headers[3]}): {ip}"
        return (outer, *brief(Packet(headers[4:], packet.payload)))
    if len(headers) > 3 and isinstance(headers[2], VXLAN | WireGuard | Sleeve):
        outer = f"{headers[2]}: {ip}"
        return (outer, *brief(Packet(headers[3:], packet.payload)))
    if ip.protocol == "IPIP" and not ip.offset:
        return (f"IP in IP: {ip}", *brief(Packet(headers[1:], packet.payload)))
    return (_brief(ip, Packet(headers[1:])),)


def _brief(ip: IPHeader, inside: Packet) -> str:
    ports = inside.headers[0] if inside.headers else None
    fragment = f" fragment at {ip.offset}{'+' if ip.more else ''}" if ip.offset or ip.more else ""
    match ports:
        case TCP() | UDP() | SCTP():
            said = f"{endpoint(ip.src, ports.sport)} > {endpoint(ip.dst, ports.dport)}"
            end = f" [{ports.flags}]" if isinstance(ports, TCP) else ""
            end = f" [{ports.chunk}]" if isinstance(ports, SCTP) else end
            return f"{ip.protocol} {said}{end}{fragment}"
        case ICMP():
            return f"{ip} {ports}{fragment}"
        case _:
            return f"{ip.protocol} {ip}{fragment}"


def _rows(numbered: Iterable[tuple[int, Step]]) -> Iterator[Row]:
    shown: tuple[str, ...] = ()
    for number, step in numbered:
        asked = (
            step.action is Action.ARP
        )  # a question of the kernel's own, beside the packet's way: the reason says it all
        packet = shown if asked else brief(step.packet)
        rule = step.rule
        why = f"{rule.table} {rule.chain}: {step.why}" if rule is not None else step.why
        text = rule.text if rule is not None else ""
        yield Row(number, step.where, step.device, step.action, packet if packet != shown else (), why, text)
        shown = packet


def table(numbered: Iterable[tuple[int, Step]], width: int = WIDTH) -> str:
    """The numbered steps as lines of at most `width` columns (a rule may be longer when it has no place to break)."""
    rows = list(_rows(numbered))
    digits = max((len(str(row.number)) for row in rows), default=1)
    device = max((len(row.device) for row in rows), default=0)
    action = max((len(row.action) for row in rows), default=0)
    widest = max((len(line) for row in rows for line in row.packet), default=0)
    room = width - (digits + device + action + 8) - NARROWEST_REASON
    packet = min(widest, room) if room >= min(widest, NARROWEST_PACKET) else 0
    lines: list[str] = []
    where = ""
    for row in rows:
        if row.where != where:
            lines.append(row.where)
            where = row.where
        start = f"  {row.number:>{digits}}  {row.device:<{device}}  {row.action:<{action}}  "
        said = _side_by_side(row, packet, width - len(start)) if packet else _stacked(row, width - len(start))
        lines += (f"{' ' * len(start) if at else start}{line}".rstrip() for at, line in enumerate(said))
    return "\n".join(lines)


def _side_by_side(row: Row, packet: int, width: int) -> Iterator[str]:
    """The lines of one row: packet and reason side by side, then the rule below both."""
    left = [part for line in row.packet for part in textwrap.wrap(line, packet, subsequent_indent="  ") or [""]]
    right = _wrapped(row.why, width - packet - 2)
    for at in range(max(len(left), len(right), 1)):
        first = left[at] if at < len(left) else ""
        second = right[at] if at < len(right) else ""
        yield f"{first:<{packet}}  {second}"
    yield from _wrapped(row.rule, width)


def _stacked(row: Row, width: int) -> Iterator[str]:
    """The lines of one row: the packet, the reason below it, then the rule."""
    for line in (*row.packet, row.why, row.rule):
        yield from _wrapped(line, max(width, NARROWEST_REASON))


def _wrapped(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, width, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def chance(probability: float) -> str:
    """A probability as people say it: `1/3` where it is (nearly) a simple fraction, else `12.5 %`.

    iptables holds probabilities in 31 bits, so that a third is not quite a third.
    """
    from fractions import Fraction  # only when a probability is printed

    simple = Fraction(probability).limit_denominator(100)
    return str(simple) if abs(simple - Fraction(probability)) < 1e-8 else f"{probability:.2%}".replace("%", " %")


def chances(outcomes: Sequence[Outcome]) -> str:
    """The outcomes as a table: how likely each is, how it ends, who takes the packet, and the source that one sees."""
    head = ("CHANCE", "VERDICT", "CLIENT", "BACKEND", "NODE", "ADDRESS", "SEES")
    rows = [head, *(_cells(outcome) for outcome in outcomes)]
    widths = [max(len(row[at]) for row in rows) for at in range(len(head))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _cells(outcome: Outcome) -> tuple[str, ...]:
    backend = outcome.backend
    who = ("-", "-", "-") if backend is None else (backend.name, backend.node, endpoint(backend.ip, backend.port))
    return chance(outcome.probability), outcome.verdict, outcome.client, *who, outcome.source_seen or "-"


def html(numbered: Iterable[tuple[int, Step]]) -> str:
    """The numbered steps as an HTML table that takes its colours from the page around it."""
    left = "text-align:left;vertical-align:top"
    head = "".join(
        f'<th scope="col" style="{left}">{name}</th>' for name in ("#", "where", "device", "action", "packet", "why")
    )
    body = "".join(_html_row(row, left) for row in _rows(numbered))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _html_row(row: Row, style: str) -> str:
    from html import escape  # only in a notebook

    packet = "<br>".join(f"<code>{escape(line)}</code>" for line in row.packet)
    why = escape(row.why) + (f"<br><code>{escape(row.rule)}</code>" if row.rule else "")
    cells = (str(row.number), escape(row.where), escape(row.device), row.action, packet, why)
    return "<tr>" + "".join(f'<td style="{style}">{cell}</td>' for cell in cells) + "</tr>"
