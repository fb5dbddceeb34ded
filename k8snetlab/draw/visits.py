"""At which places of a picture was the packet?

Every step of a trace has a machine and a device, and so a place; the packet visits it as long as the steps stay there.

What only happens in passing is no place of its own: the outer packet's way through the kernel between a tunnel's device
and the network card, and the rules that a bridge has asked about a frame it keeps. Of a packet in fragments the first
one is followed.

Not modelled: devices inside a pod. Guide section 2.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from k8snetlab.draw.ground import STACK, Place
from k8snetlab.linux.host import Host, Network
from k8snetlab.linux.link import TUNNELS, LinkKind
from k8snetlab.trace import FATES, Action, Step

__all__ = ["TRANSLATIONS", "Visit", "visits"]

TRANSLATIONS = (Action.DNAT, Action.SNAT, Action.CONNTRACK)
"""What rewrites addresses."""


class Visit(NamedTuple):
    """A stay of the packet at one place, with the steps that happened there."""

    place: Place
    steps: tuple[Step, ...]


def visits(network: Network, steps: Sequence[Step]) -> tuple[Visit, ...]:
    """The places of the steps, in order; steps at one place follow each other in one visit."""
    stays = _joined([Visit(_place(network, step), (step,)) for step in steps if not step.packet.later_fragment])
    inner = zip(stays[:1] + stays, stays, stays[1:] + stays[-1:], strict=False)
    return tuple(_joined([here for before, here, after in inner if not _in_passing(network, before, here, after)]))


def _joined(stays: Sequence[Visit]) -> list[Visit]:
    """Stays at one place that follow each other, as one."""
    joined: list[Visit] = []
    for stay in stays:
        if joined and joined[-1].place == stay.place:
            joined[-1] = Visit(stay.place, joined[-1].steps + stay.steps)
        else:
            joined.append(stay)
    return joined


def _place(network: Network, step: Step) -> Place:
    """Where in the picture a step happened: at a device, or in the kernel between the devices."""
    host = network[step.where] if step.where in network else Host(step.where, "client")
    if host.kind != "machine":
        return step.where, STACK
    if step.action in (Action.TRANSMIT, Action.RECEIVE, Action.BRIDGE, Action.ENCAPSULATE, Action.DECAPSULATE):
        for link in host.links:
            if link.name == step.device:
                if link.master and link.kind is not LinkKind.VXLAN:
                    return step.where, link.master
                return step.where, STACK if link.kind in (LinkKind.VETH, LinkKind.LOOPBACK) else link.name
    return step.where, STACK


def _in_passing(network: Network, before: Visit, here: Visit, after: Visit) -> bool:
    """Whether a stay in the kernel is no place of its own on the way: a bridge that has rules asked about a frame it
    keeps, or the tunnel's own packet between the tunnel's device and the network card."""
    host, device = here.place
    if device != STACK or not before.place[0] == host == after.place[0] or host not in network:
        return False
    if any(step.action in FATES or step.action in TRANSLATIONS for step in here.steps):
        return False
    kinds = {link.name: link.kind for link in network[host].links}
    around = {kinds.get(before.place[1]), kinds.get(after.place[1])}
    if around == {LinkKind.BRIDGE}:
        return before.place == after.place and all(step.action is Action.RULE for step in here.steps)
    return LinkKind.NIC in around and any(kind in around for kind in TUNNELS)
