"""What is more than one packet in `curl http://web`?

A name is looked up first (`flows.resolution`). Then a TCP connection is opened (SYN, SYN-ACK), a request goes in, and
a page comes back in segments as large as both ends allow: each said in its SYN what fits its own device (the MSS). Each
of these can fail where the others pass. The usual surprise is the last: somewhere on the way the MTU is smaller than
both ends know. The router there tells the sender (ICMP fragmentation needed), who then sends smaller segments — unless
nobody tells, because the place is a bridge or the message is filtered. Then the connection opens, and the page never
comes.

A proxy that reads requests for a policy (`policies.http`) answers 403 in the program's place where it does not like
one.

Not modelled: TLS, HTTP beyond one request and one answer, the segments after the first, retransmission for other
reasons than a smaller MTU, probing for the MTU (RFC 4821). Guide section 2.1; RFC 9293, RFC 1191, RFC 8201.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import msgspec

from k8snetlab.errors import BadOption, CannotDo, Problem
from k8snetlab.flows.names import Terrain
from k8snetlab.flows.walks import Question, every_outcome, told, walked
from k8snetlab.linux.datapath import Request
from k8snetlab.linux.socket import Listener
from k8snetlab.linux.walk import Arrival, Exchange, World, exchange
from k8snetlab.packet import ICMP, TCP, Packet
from k8snetlab.trace import Client, Step, Trace

if TYPE_CHECKING:
    from k8snetlab.flows.resolution import Resolution

__all__ = ["Curl", "curl", "request_of", "where_of"]

REQUEST = b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n"
PAGE = 20_000
"""Bytes of the page that comes back: more than one segment on any MTU below a loopback's."""

PORTS = {"http": 80, "https": 443}


class Curl(msgspec.Struct, frozen=True):
    """A name looked up (`lookup`, where there is one), a TCP connection (`connect`), a request on it, and the first
    full segment of an answer.

    `ok` only if all arrive; `failed` names the first that does not (`resolve`, `connect`, `request`, `answer`), and
    `reason` says why. `segments` are the sizes in bytes that the answer was sent in, one after the other: a router
    that told of a smaller MTU makes the next one smaller. `status` is what the program answered (0: nothing arrived),
    `body` its words, where they are known: those of a health check, or of a proxy that refuses the request. `asked` is
    the request that was sent.
    """

    opened: Trace | None = None
    request: Exchange | None = None
    answer: tuple[Step, ...] = ()
    ok: bool = False
    failed: str = ""
    reason: str = ""
    segments: tuple[int, ...] = ()
    status: int = 0
    body: str = ""
    lookup: Resolution | None = None
    asked: Request = Request()

    @property
    def connect(self) -> Trace:
        """The connection. Raises `CannotDo` where no address was found to connect to."""
        if self.opened is None:
            raise CannotDo(f"nothing was connected to: {self.reason}")
        return self.opened

    @property
    def segment(self) -> int:
        """The size that was sent last, in bytes; 0 where nothing was answered."""
        return self.segments[-1] if self.segments else 0

    @property
    def steps(self) -> tuple[Step, ...]:
        """Every step of the story, in order; those of the lookup are in `lookup`."""
        if self.opened is None:
            return ()
        asked = self.request.steps if self.request is not None else ()
        return (*self.connect.steps, *self.connect.reply, *asked, *self.answer)

    def __str__(self) -> str:
        if self.opened is None and self.lookup is not None:
            return f"{self.lookup.source} → {self.lookup.name}\n  curl fails at resolve: {self.reason}"
        to = f"{self.connect.request.target} ({self.connect.request.address}:{self.connect.request.port})"
        lines = [f"{self.connect.request.source} → {to}", f"  connect  {self.connect.client}: {self.connect.reason}"]
        if self.request is not None:
            taken = self.request.arrival
            lines.append(f"  request  {f'arrives at {taken.host}' if taken is not None else self.request.reason}")
        if self.answer:
            sizes = ", then of ".join(map(str, self.segments))
            lines.append(f"  answer   segments of {sizes} bytes: {'arrive' if self.ok else self.reason}")
        said = f"  {self.status} {HTTPStatus(self.status).phrase}" if self.ok else ""
        lines.append(said or f"  curl fails at {self.failed}: {self.reason}")
        lines += (f"  {line}" for line in self.body.splitlines())
        return "\n".join(lines)

    def __repr__(self) -> str:
        ended = "OK" if self.ok else f"failed at {self.failed}"
        if self.opened is None and self.lookup is not None:
            return f"<Curl {self.lookup.source} → {self.lookup.name}: {ended}>"
        return f"<Curl {self.connect.request.source} → {self.connect.request.target}: {ended}>"


def where_of(url: str) -> str:
    """WHAT of a URL: `http://api/orders` is `api:80`. Anything without a scheme is WHAT already. Raises `BadOption`.

    >>> where_of("http://[fd00::1]:8080/orders?of=today")
    '[fd00::1]:8080'
    """
    if "://" not in url:
        return url
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadOption(Problem(f"{url!r} is no URL: {error}", field="url")) from None
    if parts.scheme not in PORTS or not parts.hostname:
        raise BadOption(Problem(f"{url!r} is no URL that curl is asked for here: http://… or https://…", field="url"))
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{host}:{port or PORTS[parts.scheme]}"


def request_of(url: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> Request:
    """The request that curl sends for a URL: its path, with what is asked, and its host.

    >>> request_of("http://api:8080/orders?of=today").path
    '/orders?of=today'
    """
    parts = urlsplit(url) if "://" in url else urlsplit("")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Request(method, path, parts.netloc or url.partition("/")[0], headers or {})


def curl(terrain: Terrain, question: Question, seed: int, request: Request | None = None) -> Curl:
    """Open a TCP connection, send a request, and take the answer's first full segment. Raises `BadOption` for another
    protocol.
    """
    target = question.target
    if target.protocol != "TCP":
        raise BadOption(Problem(f"HTTP runs over TCP, not over {target.protocol}", field="url"))
    world = World(question.network, random.Random(seed))
    opened = walked(question, world)
    connect = told(terrain.objects, question, opened, every_outcome(terrain, question, seed))
    if opened.client is not Client.OPEN or opened.arrival is None or opened.answer is None:
        return Curl(connect, failed="connect", reason=opened.reason)
    sent = exchange(
        world,
        question.host,
        target.address,
        target.port,
        payload=REQUEST,
        source=opened.source,
        sport=opened.sport,
        flags="P.",
    )
    if sent.arrival is None:
        return Curl(connect, sent, failed="request", reason=sent.reason)
    program = opened.arrival.listener or Listener("TCP", target.port)
    allowed = min(_mss(opened.arrival.packet), _mss(opened.answer), _length(program))
    asked = request or Request()
    told_back = msgspec.structs.replace(
        _answered(world, question.host, connect, sent, sent.arrival, allowed), asked=asked
    )
    from k8snetlab.policies.http import DENIED, answered  # when a request has been sent

    said = answered(opened.steps, asked)
    if told_back.ok and not said:
        return msgspec.structs.replace(told_back, status=said.status, body=DENIED, reason=said.reason)
    return msgspec.structs.replace(told_back, status=program.status, body=program.body) if told_back.ok else told_back


def _length(program: Listener) -> int:
    """The bytes of what a program answers."""
    head = f"HTTP/1.1 {program.status} {HTTPStatus(program.status).phrase}\r\nContent-Type: application/json\r\n\r\n"
    return len(head) + len(program.body) if program.body else PAGE


def _answered(world: World, client: str, connect: Trace, sent: Exchange, taken: Arrival, largest: int) -> Curl:
    """Send the page's first segment, smaller each time a router tells of a smaller MTU, until it arrives or nobody
    tells anything new.
    """
    steps: list[Step] = []
    sizes: list[int] = []
    smaller: int | None = largest
    while smaller is not None:
        sizes.append(smaller)
        world.arrivals.clear()
        page = _segment_back(taken.packet, smaller)
        steps += world.at(taken.host).output(page, f"the program on {taken.host} answers with {smaller} bytes")
        steps += world.run()
        steps += world.answer()
        if any(arrival.host == client and arrival.packet.payload for arrival in world.arrivals):
            return Curl(connect, sent, tuple(steps), ok=True, segments=tuple(sizes))
        smaller = _told_of_smaller(world.arrivals, taken.host, page)
    last = steps[-1]
    reason = f"{last.where}: {last.why}"
    return Curl(connect, sent, tuple(steps), failed="answer", reason=reason, segments=tuple(sizes))


def _told_of_smaller(arrivals: Iterable[Arrival], host: str, page: Packet) -> int | None:
    """The segment size that fits the MTU an ICMP error named, if one came back and it is smaller than before."""
    for arrival in arrivals:
        error = arrival.packet.headers[1]
        if arrival.host == host and isinstance(error, ICMP) and error.message == "fragmentation-needed":
            fits = error.mtu - (page.length - len(page.payload))
            if 0 < fits < len(page.payload):
                return fits
    return None


def _mss(packet: Packet) -> int:
    header = packet.headers[1]
    return header.mss if isinstance(header, TCP) and header.mss else 536


def _segment_back(packet: Packet, size: int) -> Packet:
    header = packet.headers[1]
    assert isinstance(header, TCP)
    ip = msgspec.structs.replace(packet.ip, src=packet.ip.dst, dst=packet.ip.src, ttl=64)
    return Packet((ip, TCP(header.dport, header.sport, ".")), bytes(size))
