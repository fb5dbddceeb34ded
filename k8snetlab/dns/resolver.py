"""Which questions does a name in a program become?

A program calls `getaddrinfo("api", …)`. The C library in its container reads /etc/resolv.conf, and makes complete names
of it: a name with fewer dots than `ndots` is tried with each entry of `search` behind it, and as it stands at last; one
with as many dots is tried as it stands at first. A name with a dot at its end is complete. Each complete name is
asked for twice, as A and as AAAA. Kubernetes sets `ndots:5`, so almost every name of the world outside goes through
the whole list first: `example.com` costs eight questions.

The two libraries differ. **glibc** (Debian, Ubuntu, Red Hat) asks its name servers one after the other and waits 5 s
for each (`timeout`), twice round (`attempts`); goes on with the list after "no such name" and after "no record of this
type"; and asks for the name as it stands if nothing before was found, even if it has enough dots to be tried first.
**musl** (Alpine) asks all name servers at once and takes the first answer; stops at a name that exists without an
address; does not search at all for a name with `ndots` dots; does not hear of closed ports, and waits; ignores a search
list of more than 247 characters; and knows no `rotate`, `use-vc` or `edns0`.

A resolver is a generator. It gives the questions that it sends at one time, and takes for each an answer, or how it was
lost; so it can be played in a simulated network or on real sockets.

Not modelled: nscd and systemd-resolved, `sortlist`, `no-aaaa`, `single-request` (both questions of a pair always get
their answers), the order in which `getaddrinfo` gives addresses (RFC 6724). Guide section 2.3; `resolv.conf(5)`,
glibc 2.41, musl 1.2.5.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from enum import StrEnum

import msgspec

from k8snetlab.dns.messages import Lost, Message, Query, Rcode, Record, Reply, absolute, chain
from k8snetlab.dns.resolvconf import ResolvConf
from k8snetlab.errors import BadOption, Problem

__all__ = ["LIBRARIES", "PAIR", "Found", "Resolving", "Status", "candidates", "resolver"]

PAIR = ("A", "AAAA")
"""What is asked for an address of either family."""

EDNS = 1200
"""Bytes that glibc takes by UDP with `edns0`."""


class Status(StrEnum):
    """What the program is told."""

    FOUND = "FOUND"
    NXDOMAIN = "NXDOMAIN"  # there is no such name
    NODATA = "NODATA"  # the name has no such record
    TRY_AGAIN = "TRY_AGAIN"  # no answer, or a server that failed
    FAILED = "FAILED"  # a server that refused to answer


class Found(msgspec.Struct, frozen=True):
    """What the program is told: `status`, the records behind the name, and the complete name that they were found
    under.
    """

    status: Status
    records: tuple[Record, ...] = ()
    name: str = ""

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses, in the order of the answers."""
        return tuple(dict.fromkeys(each.data for each in self.records if each.type in PAIR))


Resolving = Generator[tuple[Query, ...], tuple[Reply, ...], Found]
"""A resolver at work: gives the questions that it sends at one time, and takes what came of each."""


def candidates(name: str, conf: ResolvConf, library: str = "glibc") -> tuple[str, ...]:
    """The complete names that a name may become, in order, if none of them is found. Raises `BadOption`.

    >>> candidates("api", ResolvConf(search=("shop.svc.cluster.local", "cluster.local"), options=(("ndots", "5"),)))
    ('api.shop.svc.cluster.local.', 'api.cluster.local.', 'api.')
    """
    _known(library)
    whole = absolute(name)
    searched = [] if name.endswith(".") else [each for domain in conf.search for each in _joined(whole, domain)]
    if library == "musl":
        enough = name.count(".") >= conf.number("ndots", 1, 15)
        return (whole,) if enough or len(" ".join(conf.search)) > MUSL_LINE else (*searched, whole)
    if name.count(".") >= conf.number("ndots", 1, 15):
        return (whole, *searched)
    return (*searched, whole)


MUSL_LINE = 247
"""Characters of a search list that musl still reads: a longer line of resolv.conf does not fit its buffer of 256."""


def _joined(whole: str, domain: str) -> Iterator[str]:
    """The name with a domain behind it; not where that would be too long to be a name."""
    name = whole if domain == "." else f"{whole}{domain.removesuffix('.')}."
    if len(name) <= 254:
        yield name


def resolver(name: str, conf: ResolvConf, types: Sequence[str] = PAIR, library: str = "glibc") -> Resolving:
    """A resolver that looks a name up. `types` are asked for at the same time; `library` is `glibc` or `musl`.

    Raises `BadOption` for what is no name and for another library.
    """
    names = candidates(name, conf, library)
    return LIBRARIES[library](names, conf, tuple(types))


def _known(library: str) -> None:
    if library not in LIBRARIES:
        raise BadOption(Problem(f"there is no C library {library!r}; there are {', '.join(LIBRARIES)}", field="libc"))


class _Outcome(msgspec.Struct, frozen=True):
    """What the questions for one complete name brought: the answers, or how they were lost."""

    messages: tuple[Message, ...] = ()
    lost: Lost | None = None

    def records(self, name: str) -> tuple[Record, ...]:
        """What they say of the name."""
        good = (each for each in self.messages if each.rcode is Rcode.NOERROR)
        return tuple(dict.fromkeys(record for each in good for record in chain(name, each.answers)))

    @property
    def rcode(self) -> Rcode:
        """The code that counts: of the first answer that is not NOERROR."""
        return next((each.rcode for each in self.messages if each.rcode is not Rcode.NOERROR), Rcode.NOERROR)

    @property
    def status(self) -> Status:
        """What it means to the program, where nothing was found."""
        if self.lost is not None:
            return Status.TRY_AGAIN
        return _STATUS.get(self.rcode, Status.FAILED)


_STATUS = {Rcode.NOERROR: Status.NODATA, Rcode.NXDOMAIN: Status.NXDOMAIN, Rcode.SERVFAIL: Status.TRY_AGAIN}

_FAILING = (Rcode.SERVFAIL, Rcode.NOTIMP, Rcode.REFUSED)
"""Codes that say nothing of the name: another name server may know more."""


def _answers(name: str, types: Sequence[str], outcome: _Outcome) -> tuple[Record, ...]:
    """The records that answer the question: there is nothing found where only a CNAME came."""
    records = outcome.records(name)
    return records if any(each.type in types for each in records) or "ANY" in types else ()


# glibc


def _glibc(names: tuple[str, ...], conf: ResolvConf, types: tuple[str, ...]) -> Resolving:
    """Name after name, as `res_search` does. Silence ends the search, but for the name as it stands; a closed port at
    every name server ends it at once.
    """
    asks = _Glibc(conf, types)
    whole_first = len(names) > 1 and _dots(names[0]) >= conf.number("ndots", 1, 15)
    pending, seen = list(names), []
    while pending:
        name = pending.pop(0)
        outcome = yield from asks.ask(name)
        records = _answers(name, types, outcome)
        if records:
            return Found(Status.FOUND, records, name)
        seen.append(outcome.status)
        searched = name != (names[0] if whole_first else names[-1])
        if searched and outcome.lost is Lost.CLOSED:
            return Found(Status.TRY_AGAIN)
        if searched and (outcome.lost is not None or outcome.status is Status.FAILED):
            pending = [] if whole_first else pending[-1:]
    return Found(_told(seen, whole_first=whole_first))


def _told(seen: Sequence[Status], *, whole_first: bool) -> Status:
    """What is said in the end: what became of the name as it stands if that was tried first; else that a name of the
    list has no data, else that a server failed, else what came last.
    """
    if whole_first:
        return seen[0]
    for status in (Status.NODATA, Status.TRY_AGAIN):
        if status in seen[:-1]:
            return status
    return seen[-1]


def _dots(name: str) -> int:
    """The dots within a complete name."""
    return name.count(".") - 1


class _Glibc:
    """`res_send`: name servers one after the other, the list `attempts` times, until one answers."""

    def __init__(self, conf: ResolvConf, types: tuple[str, ...]) -> None:
        self.servers = list(conf.asked)
        self.types = types
        self.attempts = conf.number("attempts", 2, 5)
        self.timeout = conf.number("timeout", 5, 30) or 1
        self.rotates = conf.said("rotate")
        self.transport = "TCP" if conf.said("use-vc") else "UDP"
        self.size = EDNS if conf.said("edns0") else 512
        self.sockets = 0

    def seconds(self, at: int) -> float:
        """How long it waits for the server at this place of the list."""
        whole = self.timeout << at
        return float(max(1, whole // len(self.servers) if at else whole))

    def ask(self, name: str) -> Generator[tuple[Query, ...], tuple[Reply, ...], _Outcome]:
        """Ask for a complete name."""
        if self.rotates and self.sockets:
            self.servers.append(self.servers.pop(0))
        first = self.sockets + 1
        self.sockets += len(self.servers)
        failed: _Outcome | None = None
        heard = False
        for attempt in range(1, self.attempts + 1):
            for at, server in enumerate(self.servers):
                outcome = yield from self._once(name, server, at, attempt, first + at)
                heard = heard or outcome.lost is Lost.TIMEOUT or bool(outcome.messages)
                if outcome.lost is None:
                    good = tuple(each for each in outcome.messages if each.rcode not in _FAILING)
                    if good:
                        return _Outcome(good)
                    failed = outcome
        if failed is not None:
            return failed
        return _Outcome(lost=Lost.TIMEOUT if heard else Lost.CLOSED)

    def _once(
        self, name: str, server: str, at: int, attempt: int, socket: int
    ) -> Generator[tuple[Query, ...], tuple[Reply, ...], _Outcome]:
        """One round with one server: the questions together, and again by TCP where an answer was cut."""
        transport = self.transport
        while True:
            seconds = self.seconds(at)
            replies = yield tuple(
                Query(server, name, kind, transport, seconds, attempt, socket, self.size) for kind in self.types
            )
            lost = next((each for each in replies if isinstance(each, Lost)), None)
            if lost is not None:
                return _Outcome(lost=lost)
            messages = tuple(each for each in replies if isinstance(each, Message))
            if transport == "TCP" or not any(each.truncated for each in messages):
                return _Outcome(messages)
            transport = "TCP"


# musl


def _musl(names: tuple[str, ...], conf: ResolvConf, types: tuple[str, ...]) -> Resolving:
    """Name after name, until one exists: with an address or without."""
    asks = _Musl(conf, types)
    for name in names:
        outcome = yield from asks.ask(name)
        records = _answers(name, types, outcome)
        if records:
            return Found(Status.FOUND, records, name)
        if outcome.status is not Status.NXDOMAIN:
            return Found(outcome.status)
    return Found(Status.NXDOMAIN)


class _Musl:
    """`res_msend`: every question to every name server at once, `attempts` times within `timeout` seconds."""

    def __init__(self, conf: ResolvConf, types: tuple[str, ...]) -> None:
        self.servers = conf.asked
        self.types = types
        self.attempts = max(1, conf.number("attempts", 2, 10))
        self.timeout = conf.number("timeout", 5, 60)
        self.sockets = 0

    def ask(self, name: str) -> Generator[tuple[Query, ...], tuple[Reply, ...], _Outcome]:
        """Ask for a complete name. A server that failed is asked once more at once, twice in all for each type."""
        self.sockets += 1
        held: dict[str, Message] = {}
        failures = 2 * len(self.types)
        servers: Sequence[str] = self.servers
        attempt = 1
        while attempt <= self.attempts:
            missing = [kind for kind in self.types if kind not in held]
            seconds = self.timeout / self.attempts
            queries = tuple(
                Query(server, name, kind, "UDP", seconds, attempt, self.sockets, hears=False)
                for kind in missing
                for server in servers
            )
            replies = yield queries
            failed = dict.fromkeys(
                query.server
                for query, reply in zip(queries, replies, strict=True)
                if isinstance(reply, Message) and reply.rcode is Rcode.SERVFAIL
            )
            for query, reply in zip(queries, replies, strict=True):
                if isinstance(reply, Message) and reply.rcode in (Rcode.NOERROR, Rcode.NXDOMAIN):
                    held.setdefault(query.type, reply)
            if len(held) == len(self.types):
                whole = yield from self._whole(name, held, self._who(queries, replies), attempt)
                return whole
            if failed and failures > 0:
                failures -= len(failed) * len(missing)
                servers = tuple(failed)
                continue
            servers = self.servers
            attempt += 1
        return _Outcome(lost=Lost.TIMEOUT)

    def _who(self, queries: Sequence[Query], replies: Sequence[Reply]) -> str:
        """The server that answered first."""
        pairs = zip(queries, replies, strict=True)
        return next(query.server for query, reply in pairs if isinstance(reply, Message))

    def _whole(
        self, name: str, held: Mapping[str, Message], server: str, attempt: int
    ) -> Generator[tuple[Query, ...], tuple[Reply, ...], _Outcome]:
        """The answers; those that were cut are asked for again by TCP (musl 1.2.4 and later)."""
        messages = []
        for kind in self.types:
            message = held[kind]
            if message.truncated:
                (reply,) = yield (Query(server, name, kind, "TCP", float(self.timeout), attempt, self.sockets),)
                message = reply if isinstance(reply, Message) else message
            messages.append(message)
        return _Outcome(tuple(messages))


Library = Callable[[tuple[str, ...], ResolvConf, tuple[str, ...]], Resolving]

LIBRARIES: Mapping[str, Library] = {"glibc": _glibc, "musl": _musl}
"""The C libraries that are modelled."""
