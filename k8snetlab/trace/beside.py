"""What does one flow look like on several networks, side by side?

The same packet is sent on each of them, and its traces are asked the same four questions: how large was the frame that
the sender sent, how large was the largest one on the way (between nodes, where a tunnel is in use), through which
machines and devices did it pass, and how much shorter was its time to live at the end. All of it is read from the
steps.

Not modelled: how long it took. Guide sections 2.1 and 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

import msgspec

from k8snetlab.packet import ARP, Ethernet, Packet
from k8snetlab.trace.step import Action, Step
from k8snetlab.trace.trace import Trace

__all__ = ["Hop", "Side", "sides"]

SWITCHING = frozenset({Action.RECEIVE, Action.BRIDGE, Action.TRANSMIT})
"""What a machine does that is nothing but a switch on the way."""


class Hop(msgspec.Struct, frozen=True):
    """A machine on the way and its devices, in the order in which the packet met them; none of a mere switch."""

    where: str
    devices: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.where}: {' '.join(self.devices)}" if self.devices else self.where


class Side(msgspec.Struct, frozen=True):
    """One flow on one network. `sent` is the first frame and `wire` the largest one; neither is there where nothing was
    sent. `spent` is what was taken off its time to live: one by each kernel that routed it, and by
    eBPF programs that do as much.
    """

    name: str
    trace: Trace
    sent: Packet | None
    wire: Packet | None
    hops: tuple[Hop, ...]
    spent: int

    @property
    def added(self) -> int:
        """Bytes that were added on the way, padding included."""
        return self.wire.length - self.sent.length if self.wire is not None and self.sent is not None else 0

    @property
    def between(self) -> tuple[Hop, ...]:
        """The hops without the two ends."""
        return self.hops[1:-1]


def sides(traces: Mapping[str, Trace]) -> tuple[Side, ...]:
    """The traces side by side, in their order."""
    return tuple(_side(name, trace) for name, trace in traces.items())


def _side(name: str, trace: Trace) -> Side:
    steps = [step for step in trace.steps if _followed(step.packet)]
    frames = [step.packet for step in steps if step.action is Action.TRANSMIT and _framed(step.packet)]
    return Side(
        name=name,
        trace=trace,
        sent=frames[0] if frames else None,
        wire=max(frames, key=lambda frame: frame.length) if frames else None,
        hops=tuple(_hop(where, list(group)) for where, group in groupby(steps, key=lambda step: step.where)),
        spent=_lives(steps[0].packet) - _lives(steps[-1].packet) if steps else 0,
    )


def _followed(packet: Packet) -> bool:
    """Whether it is the flow's own: no question for a MAC address, and of a packet in pieces the first."""
    return not packet.later_fragment and not any(isinstance(header, ARP) for header in packet.headers)


def _framed(packet: Packet) -> bool:
    return isinstance(packet.headers[0], Ethernet)


def _lives(packet: Packet) -> int:
    return packet.innermost.ip.ttl


def _hop(where: str, steps: Sequence[Step]) -> Hop:
    named = (step.device for step in steps if step.device)
    switched = {step.action for step in steps} <= SWITCHING
    return Hop(where, () if switched else tuple(device for device, _ in groupby(named)))
