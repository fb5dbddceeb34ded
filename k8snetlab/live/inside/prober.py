"""What does a program see that tries to connect?

A probe is a real connect (TCP) or a real datagram (UDP) from a machine to an address and port. Thousands are under
way at once: sockets that do not block, and one `epoll`. A probe ends with what the kernel told the program — an error
by name — or with the words of whoever answered, or with `TIMEOUT` after the patience it was given. The kernel answers
a connect at once, but words come from a program that may have hundreds to serve: they get longer, and few new probes
begin while many wait for them.

UDP sockets are connected, so that they hear of refusals; "host unreachable", which may pass, the kernel keeps to itself
unless a program asks for every error (IP_RECVERR), which few do, and probes do not. A datagram's first byte says
whether it may be cut on its way. See `ip(7)`, `udp(7)`, `connect(2)`.
"""

from __future__ import annotations

import errno
import resource
import select
import socket
import time
from typing import NamedTuple

from .namespaces import Namespaces

__all__ = ["Ended", "Probe", "probe"]

_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER = 10, 23
_PMTUDISC_DONT, _PMTUDISC_DO = 0, 2
_AT_ONCE = 1024
_LISTENING = 128
_WORDS = 2.0
_TICK = 0.01


class Probe(NamedTuple):
    """One question: where from, by what, where to, how many bytes (UDP), whether they must stay in one piece, and how
    many seconds to wait for an answer; a TCP connection then waits `_WORDS` seconds for words.
    """

    namespace: str
    protocol: str
    address: str
    port: int
    size: int
    whole: bool
    patience: float


class Ended(NamedTuple):
    """How it ended — `OPEN`, `TIMEOUT`, or the name of an error such as `ECONNREFUSED` — and what was answered."""

    end: str
    words: str


class _Under(NamedTuple):
    """A probe that is under way; `otherwise` is its end if nothing more is heard."""

    held: socket.socket
    number: int
    deadline: float
    connecting: bool
    otherwise: str


def probe(probes: list[Probe], namespaces: Namespaces) -> list[Ended]:
    """Send all probes and wait for their ends, which are in the probes' order."""
    _allow_files(_AT_ONCE + 64)
    ended: dict[int, Ended] = {}
    under: dict[int, _Under] = {}
    poll = select.epoll()
    waiting = sorted(range(len(probes)), key=lambda number: probes[number].namespace, reverse=True)
    listening: set[int] = set()
    while waiting or under:
        while waiting and len(under) < _AT_ONCE and len(listening) < _LISTENING:
            number = waiting.pop()
            begun = _begin(probes[number], number, namespaces)
            if isinstance(begun, Ended):
                ended[number] = begun
            else:
                under[begun.held.fileno()] = begun
                poll.register(begun.held.fileno(), select.EPOLLOUT if begun.connecting else select.EPOLLIN)
        for file, _ in poll.poll(_TICK):
            found = _look(under[file])
            if isinstance(found, Ended):
                ended[under[file].number] = found
                under.pop(file).held.close()
                listening.discard(file)
            elif found is not under[file]:
                under[file] = found
                listening.add(file)
                poll.modify(file, select.EPOLLIN)
        now = time.monotonic()
        for file in [file for file, each in under.items() if each.deadline < now]:
            late = under.pop(file)
            listening.discard(file)
            ended[late.number] = Ended(late.otherwise, "")
            late.held.close()
    poll.close()
    namespaces.enter("")
    return [ended[number] for number in range(len(probes))]


def _begin(question: Probe, number: int, namespaces: Namespaces) -> _Under | Ended:
    six = ":" in question.address
    udp = question.protocol == "UDP"
    kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
    held = namespaces.socket(question.namespace, socket.AF_INET6 if six else socket.AF_INET, kind)
    try:
        if udp:
            _may_be_cut(held, six, question.whole)
        failed = held.connect_ex((question.address, question.port))
        if failed not in (0, errno.EINPROGRESS):
            return _failed(held, failed)
        otherwise = _sent(held, question) if udp else "TIMEOUT"
    except OSError as error:
        return _failed(held, error.errno or 0)
    return _Under(held, number, time.monotonic() + question.patience, not udp, otherwise)


def _sent(held: socket.socket, question: Probe) -> str:
    """Send the datagram; what its end is if nothing is heard. A rule that drops it here says so at once (EPERM), but
    one that rejects it says that first.
    """
    try:
        held.send((b"1" if question.whole else b"0").ljust(question.size, b"."))
    except PermissionError as error:
        return _name(error.errno or 0)
    return "TIMEOUT"


def _may_be_cut(held: socket.socket, six: bool, whole: bool) -> None:  # noqa: FBT001 - facts of the probe
    discover = _PMTUDISC_DO if whole else _PMTUDISC_DONT
    if six:
        held.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, discover)
    else:
        held.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, discover)


def _look(at: _Under) -> _Under | Ended:
    """What became of a probe that has news."""
    failed = at.held.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if failed and at.connecting:
        return Ended(_name(failed), "")
    if at.connecting:
        return at._replace(connecting=False, otherwise="OPEN", deadline=time.monotonic() + _WORDS)
    if failed:
        return Ended(_name(failed) if _is_udp(at.held) else "OPEN", "")
    try:
        return Ended("OPEN", at.held.recv(65535).decode(errors="replace").strip())
    except BlockingIOError:
        return at
    except OSError as error:
        return Ended(_name(error.errno or 0) if _is_udp(at.held) else "OPEN", "")


def _failed(held: socket.socket, number: int) -> Ended:
    held.close()
    return Ended(_name(number), "")


def _name(number: int) -> str:
    return errno.errorcode.get(number, str(number))


def _is_udp(held: socket.socket) -> bool:
    return held.type == socket.SOCK_DGRAM


def _allow_files(wanted: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, wanted) if hard > 0 else wanted, hard))
