"""Do the walk and the kernel say the same?

The walk predicts, for each probe, everything that may happen: a set of pairs of what the client is told and who
answers whom. The kernel does one of them. They agree if what was seen is in the set. Where load balancing chooses,
one probe sees one choice; many probes see more.

When they disagree, the kernel is right.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence

import msgspec

from k8snetlab.linux.host import Network
from k8snetlab.linux.walk import Arrival, Choose, Exchange, World, every, exchange
from k8snetlab.live.probes import Probe, Sight
from k8snetlab.packet import TCP, Packet
from k8snetlab.trace import Client

__all__ = ["Compared", "Outcome", "compare", "predicted", "walked"]


class Outcome(msgspec.Struct, frozen=True, order=True):
    """One thing that may happen: what the client is told, and if it is connected, who answered and whom he saw."""

    client: Client
    backend: str = ""
    source: str = ""

    def __str__(self) -> str:
        return f"{self.client} by {self.backend}, which sees {self.source}" if self.backend else str(self.client)


class Compared(msgspec.Struct, frozen=True):
    """One probe, all that the walk says may happen, and what the kernel did."""

    probe: Probe
    predicted: tuple[Outcome, ...]
    seen: Sight

    @property
    def agrees(self) -> bool:
        """Whether what happened is among what may happen."""
        return Outcome(self.seen.client, self.seen.backend, self.seen.source) in self.predicted

    def __str__(self) -> str:
        said = " or ".join(str(each) for each in self.predicted)
        return f"{self.probe}: the walk says {said}; the kernel: {self.seen}"


def walked(network: Network, probe: Probe, choose: Choose | None = None) -> Exchange:
    """The probe's packet, walked through the network by itself, with nothing learnt."""
    return _asked(World(network, random.Random(0), choose=choose), probe)


def _asked(world: World, probe: Probe) -> Exchange:
    return exchange(
        world, probe.source, probe.address, probe.port, probe.protocol, payload=bytes(probe.size), df=probe.whole
    )


def predicted(network: Network, probe: Probe) -> tuple[Outcome, ...]:
    """Every outcome of a probe that the walk knows, sorted."""
    return tuple(sorted({end for _, end in every(lambda choose: _outcome(network, probe, choose))}))


def _outcome(network: Network, probe: Probe, choose: Choose) -> Outcome:
    world = World(network, random.Random(0), choose=choose)
    result = _asked(world, probe)
    if result.client is not Client.OPEN or result.arrival is None:
        return Outcome(result.client)
    if probe.protocol == "TCP" and not _talks(world, probe, result, result.arrival):
        return Outcome(result.client)
    return Outcome(result.client, result.arrival.host, result.arrival.packet.ip.src)


def _talks(world: World, probe: Probe, opened: Exchange, taken: Arrival) -> bool:
    """Whether the packets after the handshake arrive: the client's, and the words of whoever took the connection."""
    to = (probe.source, probe.address, probe.port)
    third = exchange(world, *to, source=opened.source, sport=opened.sport, flags=".")
    if third.arrival is None or third.arrival.host != taken.host:
        return False
    world.arrivals.clear()
    says = world.at(taken.host).output(_words(taken.packet), f"{taken.host} says who it is")
    deque((*says, *world.run()), maxlen=0)
    return any(each.host == probe.source and each.packet.payload for each in world.arrivals)


def _words(packet: Packet) -> Packet:
    """What whoever took the connection says first."""
    header = packet.headers[1]
    assert isinstance(header, TCP)
    ip = msgspec.structs.replace(packet.ip, src=packet.ip.dst, dst=packet.ip.src, ttl=64)
    return Packet((ip, TCP(header.dport, header.sport, "P.")), b"name")


def compare(network: Network, probes: Sequence[Probe], sights: Sequence[Sight]) -> tuple[Compared, ...]:
    """Each probe with its prediction and its observation."""
    pairs = zip(probes, sights, strict=True)
    return tuple(Compared(probe, predicted(network, probe), sight) for probe, sight in pairs)
