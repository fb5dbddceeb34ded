"""Where did the packet go, and did an answer come back?

A `Trace` is the finished walk of one packet and of what came back. `str()` prints it as a table, `explain()` tells it
in sentences, `mermaid()` draws it, `as_dict()` is its JSON and `pcap()` its capture. All of them read the steps and
nothing else; `notes` say what no step can.

Not modelled: when things happened. Captures count one millisecond a step. Guide sections 2.1 and 2.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from k8snetlab.address import family, number
from k8snetlab.errors import UnknownName
from k8snetlab.packet import ARP, Ethernet, IPv4, IPv6, Packet
from k8snetlab.trace import diagram, prose, table
from k8snetlab.trace.step import FATES, Action, Backend, Client, Outcome, Request, Step, Verdict
from k8snetlab.trace.table import WIDTH
from k8snetlab.wire import frame, pcap

__all__ = ["CapturePoint", "Trace"]

STEP = 1000
"""Microseconds from one step to the next in a capture."""


class CapturePoint(NamedTuple):
    """A device at which `tcpdump -i DEVICE` on that machine sees the packet, and how many frames it would print."""

    where: str
    device: str
    frames: int


class Trace(msgspec.Struct, frozen=True, dict=True):
    """The finished walk of one packet, there (`steps`) and back (`reply`).

    `fate` is this walk's verdict; `verdict` is `MIXED` when other load-balancing choices would end otherwise.
    `outcomes` are found by walking every choice, when they are first asked for. `remarks` are sentences about it that
    follow from no step; they too are found when they are first asked for.
    """

    request: Request
    fate: Verdict
    client: Client
    reason: str
    steps: tuple[Step, ...]
    reply: tuple[Step, ...]
    backend: Backend | None
    source_seen: str
    explore: Callable[[], tuple[Outcome, ...]]
    remarks: Callable[[], tuple[str, ...]] = tuple

    @cached_property
    def outcomes(self) -> tuple[Outcome, ...]:
        """Every way the load-balancing choices can fall, with its probability; walked when first asked for."""
        return self.explore()

    @cached_property
    def verdict(self) -> Verdict:
        """The fate of the packet, or `MIXED` when it depends on chance."""
        fates = {outcome.verdict for outcome in self.outcomes} | {self.fate}
        return self.fate if len(fates) == 1 else Verdict.MIXED

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What else is to be said of it: that policies forbid it which nobody enforces."""
        return self.remarks()

    # As text

    def table(self, width: int = WIDTH, more: str = "`.full()`") -> str:
        """The steps without the rules that only passed the packet on, there and back, with the rules that decided.

        The table takes `width` columns; `more` names what prints the rules that are left out.
        """
        left_out = sum(len(part) - sum(1 for _ in table.telling(part)) for part in (self.steps, self.reply))
        end = f"({left_out} rules that only passed the packet on are left out; {more} prints them)" if left_out else ""
        return _joined(self._head, *self._tables(table.telling, width), end, self._chances)

    def full(self, width: int = WIDTH) -> str:
        """Every step, there and back, in `width` columns."""
        return _joined(self._head, *self._tables(_numbered, width), self._chances)

    def chances(self) -> str:
        """The outcomes as a table: probability, verdict, client, backend, node, address, and the source it sees."""
        return table.chances(self.outcomes)

    def explain(self) -> str:
        """The trace in sentences, in the order the packet meets things."""
        there = f"There\n\n{prose.story(self.steps)}"
        back = f"And back\n\n{prose.story(self.reply)}" if self.reply else "Nothing comes back."
        end = prose.ended(self.fate, self.client, self.reason)
        return _joined(
            prose.asked(self.request), there, back, end, prose.balanced(self.outcomes), prose.noted(self.notes)
        )

    def mermaid(self) -> str:
        """A Mermaid sequence diagram: the machines, the frames between them, and what changed the packet."""
        return diagram.mermaid(self.steps, self.reply)

    def __str__(self) -> str:
        return self.table()

    def __repr__(self) -> str:
        ways = f"{len(self.steps)} steps, reply {len(self.reply)}"
        return f"<Trace {self.request.source} → {self.request.target}: {self.verdict}, {ways}>"

    def _repr_html_(self) -> str:
        """The table, for a notebook."""
        from html import escape  # only in a notebook

        parts = (("There", self.steps), ("Back", self.reply))
        tables = (f"<p>{name}</p>{table.html(table.telling(steps))}" for name, steps in parts if steps)
        chances = f"<pre>{escape(self._chances)}</pre>" if self._chances else ""
        return f"<p>{escape(self._head)}</p>".replace("\n", "<br>") + "".join(tables) + chances

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        """What a notebook shows: HTML, and as plain text the same as `str()`."""
        return {"text/plain": str(self), "text/html": self._repr_html_()}

    @property
    def _head(self) -> str:
        request, backend = self.request, self.backend
        address = table.endpoint(request.address, request.port)
        asked = f"{request.source} → {request.target} ({address} {request.protocol})"
        verdict = f"{self.verdict} (this time {self.fate})" if self.verdict is Verdict.MIXED else self.verdict
        lines = [asked, f"{verdict}, client {self.client}: {self.reason}"]
        if backend is not None:
            node = f" on {backend.node}" if backend.node and backend.node != backend.name else ""
            sees = f", which sees {self.source_seen}" if self.source_seen else ""
            lines.append(f"taken by {backend.name}{node}, {table.endpoint(backend.ip, backend.port)}{sees}")
        return "\n".join(lines)

    @property
    def _chances(self) -> str:
        return self.chances() if len(self.outcomes) > 1 else ""

    def _tables(self, choose: Callable[[Sequence[Step]], Iterator[tuple[int, Step]]], width: int) -> Iterator[str]:
        for name, steps in (("There", self.steps), ("Back", self.reply)):
            if steps:
                yield f"{name}\n{table.table(choose(steps), width)}"

    # As data

    def as_dict(self) -> dict[str, Any]:
        """The trace as the command line's JSON; `schemas/trace.json` describes it."""
        return {
            "schema": "k8snetlab/v1",
            "kind": "Trace",
            "request": msgspec.structs.asdict(self.request),
            "verdict": str(self.verdict),
            "client": str(self.client),
            "reason": self.reason,
            "outcomes": [_outcome(outcome) for outcome in self.outcomes],
            "steps": [_step(step) for step in self.steps],
            "reply": _reply(self.reply) if self.reply else None,
        }

    # As a capture

    @property
    def captures(self) -> tuple[CapturePoint, ...]:
        """The devices at which the packet or its answer can be seen, in the order they are first met."""
        points: dict[tuple[str, str], int] = {}
        for step in chain(self.steps, self.reply):
            seen = len(_seen(step))
            if seen:
                points[step.where, step.device] = points.get((step.where, step.device), 0) + seen
        return tuple(CapturePoint(where, device, frames) for (where, device), frames in points.items())

    def pcap(self, where: str | None = None, device: str | None = None) -> bytes:
        """A capture file for tcpdump and Wireshark, with one millisecond a step.

        With `where` (a machine), `device`, or both: what can be seen there, coming and going. Without: every frame
        once, as it leaves a device. Raises `UnknownName` where nothing is seen.
        """
        timed = [(number * STEP, step) for number, step in enumerate(chain(self.steps, self.reply))]
        if where is None and device is None:
            sent = [(time, step) for time, step in timed if step.action in (Action.TRANSMIT, Action.ARP)]
            return pcap((time, octets) for time, step in sent for octets in _seen(step))
        found = [
            (time, octets)
            for time, step in timed
            if where in (None, step.where) and device in (None, step.device)
            for octets in _seen(step)
        ]
        if not found:
            points = (f"{point.where} {point.device}" for point in self.captures)
            raise UnknownName("place to capture at,", " ".join(filter(None, (where, device))), points)
        return pcap(found)


def _numbered(steps: Sequence[Step]) -> Iterator[tuple[int, Step]]:
    yield from enumerate(steps, 1)


def _joined(*parts: str) -> str:
    return "\n\n".join(part for part in parts if part)


def _step(step: Step) -> dict[str, Any]:
    rule = step.rule
    return {
        "where": step.where,
        "device": step.device,
        "action": str(step.action),
        "why": step.why,
        "rule": {"table": rule.table, "chain": rule.chain, "text": rule.text} if rule is not None else None,
        "packet": step.packet.as_dict(),
    }


def _reply(steps: Sequence[Step]) -> dict[str, Any]:
    last = next((step for step in reversed(steps) if step.action in FATES), None)
    return {
        "verdict": str(FATES[last.action] if last is not None else Verdict.TIMEOUT),
        "reason": f"{last.where}: {last.why}" if last is not None else "it is on its way still",
        "steps": [_step(step) for step in steps],
    }


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "probability": outcome.probability,
        "verdict": str(outcome.verdict),
        "client": str(outcome.client),
        "backend": msgspec.structs.asdict(outcome.backend) if outcome.backend is not None else None,
        "source_seen": outcome.source_seen,
        "reason": outcome.reason,
    }


def _seen(step: Step) -> list[bytes]:
    """The frames that somebody listening at the step's device sees because of it."""
    match step.action:
        case Action.TRANSMIT | Action.RECEIVE | Action.DECAPSULATE:
            return [frame(step.packet)]
        case Action.ENCAPSULATE:  # the tunnel device sees the frame before it is wrapped
            return [frame(step.packet.popped(_inner(step.packet)))]
        case Action.ARP:
            return [frame(_question(step.packet)), frame(step.packet)]
        case _:
            return []


def _inner(packet: Packet) -> int:
    """Where what is inside of the outermost tunnel begins: a frame, or a packet that had none."""
    return next(at for at, header in enumerate(packet.headers) if at and isinstance(header, Ethernet | IPv4 | IPv6))


def _question(answer: Packet) -> Packet:
    """The question that was asked to everybody, from its answer."""
    arp = answer.headers[1]
    assert isinstance(arp, ARP)
    asked = ARP("request", arp.target_mac, arp.target, "00:00:00:00:00:00", arp.sender)
    everybody = "ff:ff:ff:ff:ff:ff"
    if family(arp.sender) == 6:  # the multicast MAC of the address's solicited-node group (RFC 2464, section 7)
        everybody = "33:33:ff:" + (number(arp.sender) & 0xFFFFFF).to_bytes(3, "big").hex(":")
    return Packet((Ethernet(arp.target_mac, everybody), asked))
