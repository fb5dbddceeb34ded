"""What does `dig` get to see?

The name servers of the model take questions and give answers as values. Here they stand behind real sockets: what
arrives is read as RFC 1035 has it, handed to the model, and its answer is written as CoreDNS writes it.

    answer = answering(cluster)
    with opened("127.0.0.1", 5353) as (sockets, port):
        serve([Socket(each, answer) for each in sockets], told=print)

    dig @127.0.0.1 -p 5353 web.shop.svc.cluster.local SRV

By UDP an answer has 512 bytes, or as many as the question's EDNS record allows; one that does not fit is cut and
marked, and `dig` asks again by TCP, where each message stands behind its length. A connection may carry many questions.

What is no question gets what CoreDNS says to it: nothing, if it is too short for a header or an answer itself; FORMERR,
if it cannot be read or has not exactly one question; NOTIMP for other operations than asking; BADVERS for an EDNS that
nobody has made yet; REFUSED for classes other than IN, and for zone transfers.

Not here: DNS over TLS or HTTPS, cookies, signatures, IXFR and AXFR. Guide section 2.3; RFC 1035, RFC 6891, RFC 7766.
"""

from __future__ import annotations

import contextlib
import errno
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from random import Random
from typing import TypeAlias

import dns.exception
import dns.flags
import dns.message
import dns.opcode
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import msgspec

from k8snetlab.cluster import Cluster
from k8snetlab.dns import Lost, Message, Query, Question, Rcode, Record, Reply, answered
from k8snetlab.dns.messages import SMALLEST
from k8snetlab.errors import CannotDo, Problem
from k8snetlab.flows.resolution import Servers

__all__ = [
    "Answering", "Asked", "Socket", "answering", "opened", "question_of", "read", "replied", "serve", "written",
]  # fmt: skip

HEADER = 12
OPT = 11
"""Bytes of the record that says EDNS."""

MOST = 65_535
CONNECTIONS = 100
"""So many connections are open at one time; who comes then is not heard."""

PATIENCE = 10.0
"""Seconds after which a connection that says nothing is closed."""

Answering: TypeAlias = Callable[[Question], Message]
"""A name server: takes a question, gives its answer."""


class Asked(msgspec.Struct, frozen=True, omit_defaults=True):
    """One question that arrived, and how it was answered: `said` is a code or `NODATA`, `host` who was asked, `client`
    the address that it came from.
    """

    name: str
    type: str
    said: str
    transport: str = "UDP"
    client: str = ""
    host: str = ""

    def __str__(self) -> str:
        return f"{self.type} {self.name} {self.said}"


# Messages


def replied(octets: bytes, transport: str, client: str, answer: Answering) -> tuple[bytes, Asked | None]:
    """What goes back for a message that arrived, and the question that it was; no bytes if it is not answered at all.

    Whatever arrives, nothing is raised but what `answer` raises.
    """
    if len(octets) < HEADER or octets[2] & 0x80:
        return b"", None
    opcode, count = octets[2] >> 3 & 0xF, int.from_bytes(octets[4:6], "big")
    if opcode != dns.opcode.QUERY:
        return _bare(octets, dns.rcode.NOTIMP), None
    if count != 1:
        return _bare(octets, dns.rcode.FORMERR), None
    try:
        asked = dns.message.from_wire(octets)
    except (dns.exception.DNSException, ValueError, struct.error):
        return _bare(octets, dns.rcode.FORMERR), None
    (question,) = asked.question
    said = _refusal(asked)
    size = _size(asked, transport)
    if said is None:
        wanted = question_of(question, client, transport, size)
        message = answer(wanted)
        return written(asked, message, size), Asked(wanted.name, wanted.type, message.said, transport, client)
    response = dns.message.make_response(asked)
    response.set_rcode(said)
    named = Asked(question.name.to_text(), _type(question), dns.rcode.to_text(said), transport, client)
    return response.to_wire(), named


def _bare(octets: bytes, code: int) -> bytes:
    """A header that says a code, for what has no question to repeat."""
    flags = 0x80 | octets[2] & 0x79  # an answer, with the operation and the wish for recursion
    return octets[:2] + bytes([flags, int(code)]) + bytes(8)


def _refusal(asked: dns.message.Message) -> dns.rcode.Rcode | None:
    (question,) = asked.question
    if asked.edns > 0:
        return dns.rcode.BADVERS
    transfer = question.rdtype in (dns.rdatatype.AXFR, dns.rdatatype.IXFR)
    return dns.rcode.REFUSED if question.rdclass != dns.rdataclass.IN or transfer else None


def _type(question: dns.rrset.RRset) -> str:
    return dns.rdatatype.to_text(question.rdtype)


def _size(asked: dns.message.Message, transport: str) -> int:
    """Bytes that the records of an answer may have."""
    if transport == "TCP":
        return MOST
    return max(SMALLEST, asked.payload - OPT) if asked.edns >= 0 else SMALLEST


def question_of(question: dns.rrset.RRset, client: str, transport: str, size: int) -> Question:
    """A question as the model takes it."""
    return Question(question.name.to_text(), _type(question), client, transport, size)


def written(asked: dns.message.Message, message: Message, size: int = MOST) -> bytes:
    """An answer of the model to a message, as bytes."""
    response = dns.message.make_response(asked, our_payload=asked.payload or 0)
    response.set_rcode(dns.rcode.from_text(message.rcode))
    response.flags |= dns.flags.AA if message.authoritative else 0
    if not message.authoritative and message.rcode is not Rcode.REFUSED:
        response.flags |= dns.flags.RA  # somebody was asked who asks for others
    response.answer = _sets(message.answers)
    response.authority = _sets(message.authority)
    response.additional = _sets(message.additional)
    response.flags |= dns.flags.TC if message.truncated else 0
    try:
        return response.to_wire(max_size=MOST if size == MOST else size + OPT, want_shuffle=False)
    except dns.exception.TooBig:
        response.answer, response.authority, response.additional = [], [], []
        response.flags |= dns.flags.TC
        return response.to_wire()


def _sets(records: Iterable[Record]) -> list[dns.rrset.RRset]:
    """One set for each record, so that their order stays."""
    return [dns.rrset.from_text(each.name, each.ttl, "IN", each.type, each.data) for each in records]


def read(octets: bytes) -> Message:
    """Bytes that another name server answered, as the model has them. Raises `ValueError` for what cannot be read."""
    try:
        message = dns.message.from_wire(octets, ignore_trailing=True, one_rr_per_rrset=True)
    except (dns.exception.DNSException, struct.error) as error:
        raise ValueError(str(error)) from error
    code = dns.rcode.to_text(message.rcode())
    return Message(
        Rcode(code) if code in Rcode.__members__ else Rcode.SERVFAIL,
        _records(message.answer),
        _records(message.authority),
        _records(message.additional),
        bool(message.flags & dns.flags.AA),
        bool(message.flags & dns.flags.TC),
    )


def _records(sets: Iterable[dns.rrset.RRset]) -> tuple[Record, ...]:
    return tuple(
        Record(held.name.to_text(), dns.rdatatype.to_text(held.rdtype), held.ttl, data.to_text())
        for held in sets
        for data in held
    )


# Who answers


def answering(cluster: Cluster) -> Answering:
    """The CoreDNS of a cluster for who asks from no place in it; what it asks elsewhere, the world outside answers at
    once. It remembers answers for as many seconds as it says.

    Raises `ManifestError` for a Corefile that CoreDNS cannot start with.
    """
    servers = Servers(cluster.terrain, Random(cluster.options.seed))
    server, world = servers.coredns(), servers.world()
    began = time.monotonic()

    def elsewhere(query: Query) -> Reply:
        if query.server not in world.around.own:
            return Lost.UNREACHABLE
        return answered(world, Question(query.name, query.type, "", query.transport, query.size))

    def answer(question: Question) -> Message:
        server.now = time.monotonic() - began
        return answered(server, question, elsewhere)

    return answer


# Sockets


class Socket(msgspec.Struct, frozen=True):
    """A bound socket, TCP or UDP, with who answers there."""

    held: socket.socket
    answer: Answering
    host: str = ""


@contextmanager
def opened(address: str, port: int) -> Iterator[tuple[tuple[socket.socket, ...], int]]:
    """A UDP and a TCP socket at one port (0: any that is free), and its number. Raises `CannotDo` if it is not to be
    had.
    """
    with contextlib.ExitStack() as stack:
        try:
            stream = stack.enter_context(socket.socket(_family(address), socket.SOCK_STREAM))
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            stream.bind((address, port))
            stream.listen(CONNECTIONS)
            number = int(stream.getsockname()[1])
            datagrams = stack.enter_context(socket.socket(_family(address), socket.SOCK_DGRAM))
            datagrams.bind((address, number))
        except OSError as error:
            raise CannotDo(Problem(_why(error, port), object=address, field="port")) from error
        yield (datagrams, stream), number


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _why(error: OSError, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} is in use already: end who listens there, or take another port"
        case errno.EACCES | errno.EPERM:
            return f"port {port} is for root only: take one from 1024"
        case _:
            return f"port {port} cannot be opened: {error.strerror or error}"


class _Connection:
    """A TCP connection: bytes that came, bytes that are to go, and when something happened at last."""

    def __init__(self, held: socket.socket, client: str, at: Socket) -> None:
        self.held, self.client, self.at = held, client, at
        self.came, self.goes = b"", b""
        self.last = time.monotonic()
        self.ended = False


def serve(sockets: Sequence[Socket], told: Callable[[Asked], None], until: socket.socket | None = None) -> None:
    """Answer what arrives, and tell of every question, until something can be read from `until` (else for ever). The
    sockets stay open. Whatever the answering raises becomes SERVFAIL, as in CoreDNS.
    """
    with selectors.DefaultSelector() as selector:
        serving = _Serving(selector, told)
        for each in sockets:
            each.held.settimeout(0.0)
            selector.register(each.held, selectors.EVENT_READ, each)
        if until is not None:
            selector.register(until, selectors.EVENT_READ)
        try:
            while serving.turned():
                pass
        finally:
            serving.close()


class _Serving:
    def __init__(self, selector: selectors.BaseSelector, told: Callable[[Asked], None]) -> None:
        self._selector = selector
        self._told = told
        self._connections: set[_Connection] = set()

    def turned(self) -> bool:
        """Do what can be done now; whether to go on."""
        for key, events in self._selector.select(1.0 if self._connections else None):
            match key.data:
                case None:
                    return False
                case Socket() as at if at.held.type == socket.SOCK_STREAM:
                    self._accept(at)
                case Socket() as at:
                    self._datagrams(at)
                case _Connection() as connection:
                    self._went_on(connection, events)
        late = time.monotonic() - PATIENCE
        for connection in [each for each in self._connections if each.last < late]:
            self._end(connection)
        return True

    def close(self) -> None:
        """End all connections."""
        for connection in list(self._connections):
            self._end(connection)

    def _reply(self, octets: bytes, transport: str, client: str, at: Socket) -> bytes:
        def answer(question: Question) -> Message:
            try:
                return at.answer(question)
            except Exception:  # one question must not end the service
                return Message(Rcode.SERVFAIL)

        reply, asked = replied(octets, transport, client, answer)
        if asked is not None:
            self._told(msgspec.structs.replace(asked, host=at.host))
        return reply

    def _datagrams(self, at: Socket) -> None:
        with contextlib.suppress(OSError):  # nothing more came, or the answer found nobody
            while True:
                octets, peer = at.held.recvfrom(MOST)
                reply = self._reply(octets, "UDP", str(peer[0]).removeprefix("::ffff:"), at)
                if reply:
                    at.held.sendto(reply, peer)

    def _accept(self, at: Socket) -> None:
        with contextlib.suppress(OSError):
            held, peer = at.held.accept()
            if len(self._connections) >= CONNECTIONS:
                held.close()
                return
            held.settimeout(0.0)
            connection = _Connection(held, str(peer[0]).removeprefix("::ffff:"), at)
            self._connections.add(connection)
            self._selector.register(held, selectors.EVENT_READ, connection)

    def _went_on(self, connection: _Connection, events: int) -> None:
        connection.last = time.monotonic()
        try:
            if events & selectors.EVENT_READ:
                octets = connection.held.recv(MOST)
                connection.ended = connection.ended or not octets
                connection.came += octets
                self._questions(connection)
            if connection.goes:
                sent = connection.held.send(connection.goes)
                connection.goes = connection.goes[sent:]
        except BlockingIOError:
            pass
        except OSError:
            self._end(connection)
            return
        if connection.ended and not connection.goes:
            self._end(connection)
        else:
            wanted = selectors.EVENT_WRITE if connection.goes else selectors.EVENT_READ
            self._selector.modify(connection.held, wanted, connection)

    def _questions(self, connection: _Connection) -> None:
        """Answer each message that is there as a whole: two bytes of length, and the message."""
        while len(connection.came) >= 2:
            end = 2 + int.from_bytes(connection.came[:2], "big")
            if len(connection.came) < end:
                return
            octets, connection.came = connection.came[2:end], connection.came[end:]
            reply = self._reply(octets, "TCP", connection.client, connection.at)
            if reply:
                connection.goes += len(reply).to_bytes(2, "big") + reply
            else:
                connection.ended = True  # who does not speak DNS is not waited for

    def _end(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        self._selector.unregister(connection.held)
        connection.held.close()
