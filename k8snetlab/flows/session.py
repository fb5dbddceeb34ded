"""What stays from one packet to the next?

A trace begins with machines that remember nothing. In a session they remember: connections (conntrack), which client
was sent to which backend (affinity), the MAC addresses of neighbours, what name servers answered. Time passes only when
told to. Affinity that is older than its time-out no longer counts, and conntrack forgets: an unanswered SYN after
120 s, a question and answer by UDP after 30 s, an open connection after five days.

What the machines are may change under their feet: with the network of another cluster they remember what they knew, as
real ones do when an object is applied. An open connection shows it (`again`): policies are asked for its first packet,
and the others are let through as parts of a known connection.

Not modelled: neighbours that are forgotten, ends of connections. Guide sections 2.2 and 4.1; `iptables-extensions(8)`
(recent), `conntrack(8)`.
"""

from __future__ import annotations

import random
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import msgspec

from k8snetlab.errors import BadOption, Problem
from k8snetlab.flows.names import Terrain, sender_of
from k8snetlab.flows.walks import asked, outcome_of, told, walked
from k8snetlab.linux import text
from k8snetlab.linux.host import Network
from k8snetlab.linux.walk import Exchange, World, exchange
from k8snetlab.packet import TCP, UDP
from k8snetlab.trace import Client, Trace, Verdict

if TYPE_CHECKING:
    from k8snetlab.flows.resolution import Resolution, Walking

__all__ = ["Session"]


class Cluster(Protocol):
    """What a session may go on with."""

    @property
    def terrain(self) -> Terrain:
        """What a packet is sent through."""
        ...


class Session:
    """A place where time passes: connections, affinity and learnt neighbours stay from one packet to the next.

    `now` is in seconds; `advance` lets them pass. Load balancing is drawn from `random.Random(seed)`.
    """

    def __init__(self, terrain: Terrain, seed: int, now: float) -> None:
        self._terrain = terrain
        self.world = World(terrain.network, random.Random(seed), now)

    @property
    def now(self) -> float:
        """The time, in seconds."""
        return self.world.now

    def advance(self, seconds: float) -> None:
        """Let time pass. Raises `BadOption` for time that runs backwards."""
        if seconds < 0:
            raise BadOption(Problem(f"time does not run backwards: {seconds} s", field="seconds"))
        self.world.advance(seconds)

    def trace(self, who: str, what: str, *, family: int | None = None, size: int = 0) -> Trace:
        """Send a packet in this session, as `Cluster.trace` would; its outcomes are the one that happened.

        Raises `BadOption` for a client outside that is not in the network: a session cannot change its cables.
        """
        question = asked(self._terrain, who, what, of=family, size=size)
        self._of_this_network(question.network, who)
        result = walked(question, self.world)
        only = (outcome_of(self._terrain.objects, 1.0, result),)
        return told(self._terrain.objects, question, result, lambda: only)

    def resolve(self, who: str, name: str, *, type: str | None = None, libc: str = "glibc") -> Resolution:
        """Look a name up in this session, as `Cluster.resolve` would. Name servers remember what they answered
        before, until time has passed; a lookup that waits lets time pass itself.
        """
        from k8snetlab.flows.resolution import looked_up

        sender = sender_of(self._terrain, who)
        self._of_this_network(sender.network, who)
        types = ("A", "AAAA") if type is None else (type,)
        return looked_up(self._terrain, self._walking, self.world, sender, who, name, types, libc)

    @cached_property
    def _walking(self) -> Walking:
        from k8snetlab.flows.resolution import Walking, prepared

        return Walking(self._terrain, self.world, prepared(self._terrain, self.world))

    def _of_this_network(self, network: Network, who: str) -> None:
        if network is not self.world.network:
            message = f"a session has the cables it began with; {who} or what it asks for needs others"
            raise BadOption(Problem(message, field="from"))

    def become(self, other: Cluster) -> None:
        """Go on with the machines of another cluster: `session.become(shop.applied(policy))`. Connections stay; name
        servers begin anew.
        """
        self._terrain = other.terrain
        vars(self).pop("_walking", None)
        self.world.become(other.terrain.network)

    def again(self, opened: Trace) -> Trace:
        """One more packet of a connection that a trace of this session opened. It counts as delivered where somebody
        takes it; what is answered is part of the conversation. Raises `BadOption` for a trace that opened none.
        """
        first = opened.steps[0].packet
        ports = first.headers[1]
        if opened.client is not Client.OPEN or not isinstance(ports, TCP | UDP):
            raise BadOption(Problem("it opened no connection of TCP or UDP that could go on", field="trace"))
        asked_for = opened.request
        question = asked(self._terrain, asked_for.source, asked_for.target, of=asked_for.family)
        result = exchange(
            self.world, question.host, asked_for.address, asked_for.port, asked_for.protocol,
            payload=b"more", source=first.ip.src, sport=ports.sport, flags="P.",
        )  # fmt: skip
        if result.arrival is not None:
            fate = {"fate": Verdict.DELIVERED, "client": Client.OPEN, "reason": _last_words(result)}
            result = msgspec.structs.replace(result, **fate)
        only = (outcome_of(self._terrain.objects, 1.0, result),)
        return told(self._terrain.objects, question, result, lambda: only)

    def ipvs(self, host: str) -> str:
        """What `ipvsadm -Ln` and `ipvsadm -Lnc` would print on a machine: virtual servers with their connections.
        Raises `UnknownName`.
        """
        at = self.world.at(host)
        connections = text.ipvsadm_connections(at.director) if at.director is not None else ""
        return "\n".join(part for part in (text.ipvsadm(at.host, at.director), connections) if part)

    def conntrack(self, host: str) -> str:
        """What `conntrack -L` would print on a machine. Raises `UnknownName`."""
        return text.conntrack_list(self.world.at(host).conntrack)


def _last_words(result: Exchange) -> str:
    last = result.steps[-1]
    return f"{last.where}: {last.why}"
