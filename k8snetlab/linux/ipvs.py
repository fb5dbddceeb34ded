"""Which of the servers behind a virtual address takes this connection?

IPVS is the kernel's own load balancer. A *virtual server* is a protocol, an address and a port (or a firewall mark);
behind it stand *real servers*, and a *scheduler* takes one of them for each new connection. What was taken is kept in
IPVS's own connection table, so that all later packets and all answers are translated alike. Real servers are reached
by NAT here (Masq, the only way that kube-proxy uses): the destination becomes the real server's address and port, and
the answer's source the virtual one again.

Where IPVS meets a packet, between the tables of netfilter:

    PREROUTING ─► routing: is the address this machine's own? only then:
    INPUT     mangle, filter ─► answer? source ← virtual address ─► request? schedule ─► nat
                                                                       │ destination ← real server
                    ┌──────────────────────────────────────────────────┘ routed anew, TTL one less
                    ▼
    OUTPUT    raw, conntrack, mangle, nat ─► answer? ─► request? (again to the start of OUTPUT) ─► filter
    FORWARD   mangle, filter ─► answer? source ← virtual address

So a virtual address must be an address of the machine itself, though nobody listens there: a packet that is only
routed through is never looked at. What IPVS sends on goes through OUTPUT and POSTROUTING as if the machine had sent
it, and with `net.ipv4.vs.conntrack` its connection is known to conntrack, so that rules can masquerade it. A virtual
server without a server that could take the connection refuses it: ICMP port unreachable.

Schedulers: `rr` and `wrr` take turns (`wrr` by weight). `lc`, `wlc`, `sed` and `nq` take the server with the fewest
connections, counted with weights or in other ways; `sh` and `dh` take it by a hash of the source or the destination
address. *Persistence* sends a client (or its network) to the server it had before, until it has made no new
connection for the time-out. A connection of which nothing is seen for a while is forgotten (LIFETIMES): its next packet
meets nobody.

Whose turn it is depends on every connection before, which a walk that begins with empty memory cannot know: the first
turn of a virtual server is drawn by chance, and from there it goes round in order. Servers with equally few
connections are drawn among as well; the kernel takes the first of its list, whose order is an accident. The hash of
`sh` is the kernel's for the list in the order given.

Not modelled: direct routing and tunnelling to real servers; the schedulers `lblc`, `lblcr`, `mh`, `fo`, `ovf`,
`twos`; port 0 (every port); one-packet scheduling; connection synchronisation; ICMP errors from clients; connections
that end (they are forgotten, and do not keep what persistence remembers); thresholds. The kernels that this project is
tested on have no IPVS: unlike the rest of `linux`, this module rests on the documentation and on reading the kernel's
behaviour, not on packets that a real kernel was seen to send. Guide section 2.2; `ipvsadm(8)`,
Documentation/networking/ipvs-sysctl.rst.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cached_property
from math import gcd
from typing import NamedTuple, TypeAlias

import msgspec

from k8snetlab.address import Prefix, family, number
from k8snetlab.linux.conntrack import Tuple
from k8snetlab.trace.table import endpoint

__all__ = [
    "ConnectionEntry", "Destination", "Director", "RealServer", "Scheduler", "Template", "VirtualServer",
    "VirtualServers",
]  # fmt: skip

Choose: TypeAlias = Callable[[float], bool]
"""Decides whether something with this probability happens."""


class Scheduler(StrEnum):
    """How a real server is chosen; the values are the words of `ipvsadm -s`."""

    RR = "rr"  # round robin
    WRR = "wrr"  # weighted round robin
    LC = "lc"  # least connections
    WLC = "wlc"  # weighted least connections
    SED = "sed"  # shortest expected delay
    NQ = "nq"  # never queue: an idle server, else as sed
    SH = "sh"  # source hashing
    DH = "dh"  # destination hashing


_WHY: Mapping[Scheduler, str] = {
    Scheduler.RR: "its turn (rr)",
    Scheduler.WRR: "its turn by weight (wrr)",
    Scheduler.LC: "nobody has fewer connections (lc)",
    Scheduler.WLC: "nobody has fewer connections for its weight (wlc)",
    Scheduler.SED: "nobody would answer sooner (sed)",
    Scheduler.NQ: "an idle one, or who would answer soonest (nq)",
    Scheduler.SH: "chosen by a hash of the source address (sh)",
    Scheduler.DH: "chosen by a hash of the destination address (dh)",
}


class RealServer(msgspec.Struct, frozen=True):
    """One server behind a virtual one, reached by NAT. One of weight 0 takes no new connections."""

    address: str
    port: int
    weight: int = 1

    def __str__(self) -> str:
        return endpoint(self.address, self.port)


class VirtualServer(msgspec.Struct, frozen=True, dict=True):
    """An address and port that connections are spread from. `persistent` is in seconds, 0 for none; `netmask` is the
    length of the client networks that share a server then, 0 for single addresses.

    With a `mark`, every packet that carries the mark is meant, and protocol, address and port are empty; `inet` is
    then its family.

    >>> print(VirtualServer("TCP", "10.96.0.1", 443, servers=(RealServer("172.18.0.2", 6443),)))
    TCP  10.96.0.1:443 rr
    """

    protocol: str
    address: str
    port: int
    scheduler: Scheduler = Scheduler.RR
    servers: tuple[RealServer, ...] = ()
    persistent: int = 0
    netmask: int = 0
    mark: int = 0
    inet: int = 4

    @property
    def family(self) -> int:
        """4 or 6."""
        return family(self.address) if self.address else self.inet

    @property
    def key(self) -> tuple[str, str, int, int, int]:
        """What makes it the same virtual server."""
        return self.protocol, self.address, self.port, self.mark, self.family

    @property
    def endpoint(self) -> str:
        """`10.96.0.1:443`, or the mark."""
        return f"{self.mark}{' IPv6' if self.inet == 6 else ''}" if self.mark else endpoint(self.address, self.port)

    @cached_property
    def cycle(self) -> tuple[RealServer, ...]:
        """One round of `rr` or `wrr`: a server comes as often as its weight says (`ip_vs_wrr`)."""
        able = tuple(server for server in self.servers if server.weight > 0)
        if self.scheduler is Scheduler.RR or not able:
            return able
        step = gcd(*(server.weight for server in able))
        levels = range(max(server.weight for server in able), 0, -step)
        return tuple(server for level in levels for server in able if server.weight >= level)

    def without(self, server: RealServer) -> VirtualServer:
        """The same with one server less."""
        return msgspec.structs.replace(self, servers=tuple(held for held in self.servers if held != server))

    # As a rule that decides (trace.RuleText), and as text

    @property
    def table(self) -> str:
        return "ipvs"

    @property
    def chain(self) -> str:
        return " ".join(str(self).split())

    @property
    def selector(self) -> str:
        """How `ipvsadm` names it: `-t 10.96.0.1:443`."""
        return f"-f {self.endpoint}" if self.mark else f"{_OPTION[self.protocol]} {self.endpoint}"

    @property
    def text(self) -> str:
        """The line of `ipvsadm -S` that makes it."""
        held = f" -p {self.persistent}" if self.persistent else ""
        mask = f" -M {self._mask}" if self.persistent and self.netmask else ""
        return f"-A {self.selector} -s {self.scheduler}{held}{mask}"

    @property
    def _mask(self) -> str:
        return Prefix.of(f"255.255.255.255/{self.netmask}").network if self.family == 4 else str(self.netmask)

    def __str__(self) -> str:
        held = f" persistent {self.persistent}" if self.persistent else ""
        mask = f" mask {self._mask}" if self.persistent and self.netmask else ""
        return f"{'FWM ' if self.mark else self.protocol:<4} {self.endpoint} {self.scheduler}{held}{mask}"


_OPTION = {"TCP": "-t", "UDP": "-u", "SCTP": "--sctp-service"}


class Destination(msgspec.Struct, frozen=True):
    """A real server together with the virtual one it stands behind: what decides where a connection goes."""

    virtual: VirtualServer
    server: RealServer

    @property
    def table(self) -> str:
        return "ipvs"

    @property
    def chain(self) -> str:
        return self.virtual.chain

    @property
    def text(self) -> str:
        """The line of `ipvsadm -S` that adds it."""
        return f"-a {self.virtual.selector} -r {self.server} -m -w {self.server.weight}"


class VirtualServers:
    """The virtual servers of a machine, ready for lookups. A mark is looked up before address and port."""

    __slots__ = ("_exact", "_marks")

    def __init__(self, held: Iterable[VirtualServer]) -> None:
        self._exact: dict[tuple[str, str, int], VirtualServer] = {}
        self._marks: dict[tuple[int, int], VirtualServer] = {}
        for each in held:
            if each.mark:
                self._marks[each.mark, each.family] = each
            else:
                self._exact[each.protocol, each.address, each.port] = each

    def find(self, key: Tuple, mark: int) -> VirtualServer | None:
        """The virtual server that a packet with this tuple and mark is for."""
        if mark and self._marks:
            found = self._marks.get((mark, family(key.dst)))
            if found is not None:
                return found
        return self._exact.get((key.protocol, key.dst, key.dport))


LIFETIMES: Mapping[str, tuple[int, int]] = {"TCP": (60, 900), "UDP": (300, 300), "SCTP": (3, 900)}
"""How many seconds after its last packet a connection is forgotten, without and with an answer: the kernel's defaults
(`ipvsadm --set` changes some). An open TCP connection has 15 minutes where conntrack has five days."""


class ConnectionEntry(NamedTuple):
    """One line of IPVS's connection table: who connected, to which address and port, and which server took it.

    `request` is the tuple of the client's packets as they come, `answer` that of the server's as they come; `why` says
    what made the choice.
    """

    request: Tuple
    answer: Tuple
    destination: Destination
    why: str = ""


class Template(NamedTuple):
    """What persistence remembers: which client, or network of clients, has which server of a virtual one, and when it
    last made a connection.
    """

    virtual: VirtualServer
    client: str
    server: RealServer
    since: float


class Director:
    """What IPVS of one machine remembers (a machine with IPVS is called a director): a place, so it changes."""

    __slots__ = ("_answered", "_by_answer", "_by_request", "_last", "_templates", "_turns")

    def __init__(self) -> None:
        self._last: dict[Tuple, float] = {}  # when the last packet of a connection was seen
        self._by_request: dict[Tuple, ConnectionEntry] = {}
        self._by_answer: dict[Tuple, ConnectionEntry] = {}
        self._answered: set[Tuple] = set()
        self._templates: dict[tuple[object, ...], Template] = {}
        self._turns: dict[tuple[object, ...], int] = {}

    def request(self, key: Tuple, now: float) -> ConnectionEntry | None:
        """The connection that a client's packet belongs to. `now` is in seconds, here and below."""
        found = self._by_request.get(key)
        if found is not None:
            self._last[key] = now
        return found

    def answer(self, key: Tuple, now: float) -> ConnectionEntry | None:
        """The connection that a server's packet belongs to."""
        found = self._by_answer.get(key)
        if found is not None:
            self._answered.add(found.request)
            self._last[found.request] = now
        return found

    def expire(self, now: float) -> None:
        """Forget the connections whose time is over."""
        for key, last in tuple(self._last.items()):
            if now - last >= LIFETIMES[key.protocol][key in self._answered]:
                entry = self._by_request.pop(key)
                self._by_answer.pop(entry.answer, None)
                self._answered.discard(key)
                del self._last[key]

    def schedule(self, virtual: VirtualServer, key: Tuple, now: float, choose: Choose) -> ConnectionEntry | None:
        """Take a server for a new connection and remember it; `None` if no server can take it."""
        server = self._held(virtual, key, now) if virtual.persistent else None
        why = "the client had it before (persistent)"
        if server is None:
            server = self._chosen(virtual, key, choose)
            why = _WHY[virtual.scheduler]
        if server is None:
            return None
        if virtual.persistent:
            network = _network(virtual, key.src)
            self._templates[virtual.key, network] = Template(virtual, network, server, now)
        answer = Tuple(key.protocol, server.address, server.port or key.dport, key.src, key.sport)
        entry = ConnectionEntry(key, answer, Destination(virtual, server), why)
        self._by_request[key] = self._by_answer[answer] = entry
        self._last[key] = now
        return entry

    def _held(self, virtual: VirtualServer, key: Tuple, now: float) -> RealServer | None:
        """The server that the client had, if that is not too long ago and it still takes connections."""
        held = self._templates.get((virtual.key, _network(virtual, key.src)))
        if held is None or now - held.since > virtual.persistent:
            return None
        return held.server if held.server.weight > 0 and held.server in virtual.servers else None

    def _chosen(self, virtual: VirtualServer, key: Tuple, choose: Choose) -> RealServer | None:
        match virtual.scheduler:
            case Scheduler.RR | Scheduler.WRR:
                return self._next(virtual, choose)
            case Scheduler.SH:
                return _hashed(key.src, [each for each in virtual.servers for _ in range(each.weight or 1)])
            case Scheduler.DH:
                return _hashed(key.dst, virtual.servers)
            case _:
                return self._least(virtual, choose)

    def _next(self, virtual: VirtualServer, choose: Choose) -> RealServer | None:
        """The next in the round; where the round stands at first is drawn."""
        cycle = virtual.cycle
        if not cycle:
            return None
        last = self._turns.get(virtual.key)
        turn = _drawn(len(cycle), choose) if last is None else (last + 1) % len(cycle)
        self._turns[virtual.key] = turn
        return cycle[turn]

    def _least(self, virtual: VirtualServer, choose: Choose) -> RealServer | None:
        """The server with the fewest connections as the scheduler counts them; one of several such is drawn."""
        able = [server for server in virtual.servers if server.weight > 0]
        if not able:
            return None
        counts = self.counts(virtual)
        costs = [_cost(virtual.scheduler, server, *counts.get(server, (0, 0))) for server in able]
        best = [server for server, cost in zip(able, costs, strict=True) if cost == min(costs)]
        return best[_drawn(len(best), choose)]

    def counts(self, virtual: VirtualServer) -> Mapping[RealServer, tuple[int, int]]:
        """The active and the inactive connections of each server that has some: a connection is active once it was
        answered, and one without a handshake (UDP) never.
        """
        found: dict[RealServer, tuple[int, int]] = {}
        for entry in self._by_request.values():
            if entry.destination.virtual.key == virtual.key:
                active, inactive = found.get(entry.destination.server, (0, 0))
                busy = entry.request in self._answered and entry.request.protocol != "UDP"
                found[entry.destination.server] = (active + busy, inactive + (not busy))
        return found

    @property
    def connections(self) -> Iterator[tuple[Tuple, Tuple, bool]]:
        """Every connection: the tuples of request and answer, and whether it was answered."""
        for request, entry in sorted(self._by_request.items()):
            yield request, entry.answer, request in self._answered

    @property
    def templates(self) -> tuple[Template, ...]:
        """Who is persistent where, in the order they came."""
        return tuple(self._templates.values())


def _network(virtual: VirtualServer, client: str) -> str:
    """The client, or the network it shares a server with."""
    return Prefix.of(f"{client}/{virtual.netmask}").network if virtual.netmask else client


def _drawn(count: int, choose: Choose) -> int:
    """A place in a list of that length, each as likely as the others."""
    return next((at for at in range(count - 1) if choose(1 / (count - at))), count - 1)


def _cost(scheduler: Scheduler, server: RealServer, active: int, inactive: int) -> float:
    """What a scheduler would have least of. An open connection counts as 256 that are not."""
    match scheduler:
        case Scheduler.LC:
            return active * 256 + inactive
        case Scheduler.WLC:
            return (active * 256 + inactive) / server.weight
        case Scheduler.NQ if not active:
            return 0.0
        case _:
            return (active + 1) / server.weight


def _hashed(address: str, places: Sequence[RealServer]) -> RealServer | None:
    """The server at the place of a table with 256 places that an address is hashed to (`hash_32`); nobody if that
    one takes no connections.
    """
    if not places:
        return None
    value = number(address)
    folded = 0
    while value:
        folded ^= value & 0xFFFFFFFF
        value >>= 32
    place = (folded * 0x61C88647 & 0xFFFFFFFF) >> 24
    server = places[place % len(places)]
    return server if server.weight > 0 else None
