"""Is this packet part of something already known?

Connection tracking remembers every connection by two tuples: as its first packet was (`original`) and as its answers
will be (`reply`). NAT is nothing more than a reply tuple that is not the mirror of the original: decided once, by the
first packet, then applied to every packet of the connection in both directions. That is why the nat table sees first
packets only, and why an answer is translated back without any rule.

An ICMP error belongs to the connection of the packet it quotes, and is translated with it (RELATED).

Of the states of TCP one is modelled: after a SYN the answer must have passed here too before the client's next packet
does. Where packets go one way and answers another, it is INVALID, and kube-proxy's rules drop it.

A connection that nothing was seen of for a while is forgotten: one that was answered after a longer while (LIFETIMES,
the kernel's defaults).

Not modelled: helpers (FTP, SIP), zones, expectations, TCP's other states and its windows, table size limits, connection
marks. Guide sections 2.1 and 2.2; `conntrack(8)`, `nf_conntrack-sysctl` of the kernel's documentation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from k8snetlab.address import family

__all__ = ["LIFETIMES", "Connection", "Conntrack", "Tuple"]

LIFETIMES: Mapping[str, tuple[int, int]] = {
    "TCP": (120, 432_000),  # nf_conntrack_tcp_timeout_syn_sent, …_established
    "UDP": (30, 30),  # nf_conntrack_udp_timeout
    "SCTP": (3, 210),  # nf_conntrack_sctp_timeout_cookie_wait, …_established
    "ICMP": (30, 30),
    "ICMPv6": (30, 30),
}
"""How many seconds a connection is remembered without and with an answer; anything else 600."""

STREAM = 120
"""The same of UDP that went on for more than two seconds and was answered (`nf_conntrack_udp_timeout_stream`)."""


class Tuple(NamedTuple):
    """The five facts that name one direction of a connection."""

    protocol: str
    src: str
    sport: int
    dst: str
    dport: int

    def mirrored(self) -> Tuple:
        """The tuple of an answer."""
        return Tuple(self.protocol, self.dst, self.dport, self.src, self.sport)


class Connection:
    """One tracked connection. `source_nat` and `destination_nat` say that rules have decided (perhaps to change
    nothing); `began` that its first packet was a SYN, for a connection may also be met in the middle. The destination
    of one that is `scheduled` is IPVS's affair: the reply tuple says where it went, but conntrack does not translate
    it, and does not count it as DNAT.
    """

    __slots__ = (
        "began", "confirmed", "destination_nat", "last", "mark", "original", "reply", "scheduled", "seen_reply",
        "since", "source_nat", "translated",
    )  # fmt: skip

    def __init__(self, original: Tuple, *, began: bool = False, now: float = 0.0) -> None:
        self.original = original
        self.since = self.last = now
        self.began = began
        self.reply = original.mirrored()
        self.confirmed = False
        self.seen_reply = False
        self.source_nat = False
        self.destination_nat = False
        self.translated = False  # whether the reply is not the mirror of the original
        self.scheduled = False
        self.mark = 0

    @property
    def is_dnat(self) -> bool:
        """Whether the destination was changed (`--ctstate DNAT`)."""
        return not self.scheduled and self.reply[1:3] != self.original[3:]

    @property
    def lifetime(self) -> int:
        """How many seconds after its last packet it is forgotten."""
        protocol = self.original.protocol
        if protocol == "UDP" and self.seen_reply and self.last - self.since > 2:
            return STREAM
        return LIFETIMES.get(protocol, (600, 600))[self.seen_reply]

    @property
    def is_snat(self) -> bool:
        """Whether the source was changed (`--ctstate SNAT`)."""
        return (self.reply.dst, self.reply.dport) != (self.original.src, self.original.sport)


class Conntrack:
    """The table of one network namespace: a place, so it changes."""

    __slots__ = ("_by_tuple",)

    def __init__(self) -> None:
        self._by_tuple: dict[Tuple, Connection] = {}

    def find(self, key: Tuple) -> Connection | None:
        """The connection that a packet with this tuple belongs to, in either direction."""
        return self._by_tuple.get(key)

    def confirm(self, connection: Connection) -> None:
        """The first packet made it through: remember both directions."""
        connection.confirmed = True
        self._by_tuple[connection.original] = connection
        self._by_tuple[connection.reply] = connection

    def free(self, reply: Tuple) -> Tuple:
        """The reply tuple, with its destination port moved up until no other connection is answered by it. (The kernel
        takes a port by chance.)
        """
        if reply not in self._by_tuple:
            return reply
        for port in [*range(reply.dport + 1, 65536), *range(1024, reply.dport)]:
            other = reply._replace(dport=port)
            if other not in self._by_tuple:
                return other
        return reply

    def expire(self, now: float) -> None:
        """Delete the connections whose time is over."""
        for connection in tuple(self._by_tuple.values()):
            if now - connection.last >= connection.lifetime:
                self.forget(connection.original)

    def forget(self, key: Tuple) -> None:
        """Delete one connection (`conntrack -D`)."""
        connection = self._by_tuple.pop(key, None)
        if connection is not None:
            self._by_tuple.pop(connection.original, None)
            self._by_tuple.pop(connection.reply, None)

    def __iter__(self) -> Iterator[Connection]:
        return iter(sorted({id(c): c for c in self._by_tuple.values()}.values(), key=lambda c: c.original))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def families(self) -> set[int]:
        """The address families that have connections."""
        return {family(connection.original.src) for connection in self}
