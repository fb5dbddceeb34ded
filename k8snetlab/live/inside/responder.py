"""Who am I, and whom do I see?

Every port that a machine listens on is a real socket, and whoever asks is told three things: the machine that answers,
and the address and port that the question seemed to come from. That is how a test knows which backend load balancing
chose, and whether a source address was rewritten on the way.

    TCP  connection accepted → `NAME SOURCE PORT` and a line end, then the end
    UDP  datagram            → the same, filled up to the length of the question, from the address that was asked

One process serves all machines. An answer by UDP may be cut on its way exactly if the question could be: its first
byte is `1` where it may not (DF). Not served: SCTP.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
from typing import NamedTuple

from .namespaces import Namespaces

__all__ = ["Wanted", "opened", "serve"]

_IP_PKTINFO = 8
_IP_MTU_DISCOVER = 10
_IPV6_MTU_DISCOVER = 23
_PMTUDISC_DONT, _PMTUDISC_DO = 0, 2
_BACKLOG = 4096
_DATAGRAM = 65535


class Wanted(NamedTuple):
    """A socket to open: the namespace, what the machine calls itself, `TCP` or `UDP`, port, and address or nothing."""

    namespace: str
    name: str
    protocol: str
    port: int
    address: str


def serve(wanted: list[Wanted], namespaces: Namespaces) -> int:
    """Open the sockets and serve them in a process of its own, whose number is returned."""
    sockets = [(opened(each, namespaces), each) for each in wanted]
    child = os.fork()
    if child == 0:
        try:
            _keep({held.fileno() for held, _ in sockets})
            _answer(sockets)
        finally:
            os._exit(1)
    for held, _ in sockets:
        held.close()
    return child


def _keep(files: set[int]) -> None:
    """Close all files but these and the standard ones: what else the agent holds shall end when it lets it go."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - no pathlib in here
        if int(name) > 2 and int(name) not in files:
            with contextlib.suppress(OSError):  # the list's own file is closed by now
                os.close(int(name))


def opened(wanted: Wanted, namespaces: Namespaces) -> socket.socket:
    """A socket as it is wanted, in its namespace."""
    six = ":" in wanted.address or not wanted.address
    kind = socket.SOCK_STREAM if wanted.protocol == "TCP" else socket.SOCK_DGRAM
    held = namespaces.socket(wanted.namespace, socket.AF_INET6 if six else socket.AF_INET, kind)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if six:
        held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1 if wanted.address else 0)
    if kind == socket.SOCK_DGRAM:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        if six:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        held.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    held.bind((wanted.address or "::", wanted.port))
    if kind == socket.SOCK_STREAM:
        held.listen(_BACKLOG)
    return held


def _answer(sockets: list[tuple[socket.socket, Wanted]]) -> None:
    """Serve for ever; the process ends with its agent."""
    poll = select.epoll()
    by_number = {held.fileno(): (held, wanted) for held, wanted in sockets}
    for number in by_number:
        poll.register(number, select.EPOLLIN)
    while True:
        for number, _ in poll.poll():
            held, wanted = by_number[number]
            with contextlib.suppress(BlockingIOError):
                while True:
                    if wanted.protocol == "TCP":
                        _accept(held, wanted)
                    else:
                        _reply(held, wanted)


def _accept(held: socket.socket, wanted: Wanted) -> None:
    connection, peer = held.accept()
    with connection, contextlib.suppress(OSError):
        connection.send(_introduction(wanted, peer))


def _reply(held: socket.socket, wanted: Wanted) -> None:
    try:
        question, asked, _, peer = held.recvmsg(_DATAGRAM, 256)
    except ConnectionRefusedError:  # an earlier answer found nobody
        return
    whole = question[:1] == b"1"
    answer = _introduction(wanted, peer).ljust(len(question), b" ")
    discover = _PMTUDISC_DO if whole else _PMTUDISC_DONT
    held.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, discover)
    if held.family == socket.AF_INET6:
        held.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, discover)
    with contextlib.suppress(OSError):  # the answer is lost, as it would be for any program
        held.sendmsg([answer], [_source(*each) for each in asked], 0, peer)


def _source(level: int, kind: int, data: bytes) -> tuple[int, int, bytes]:
    """What says from which address to answer, made of what says which address was asked. The device is left to
    routing.
    """
    if level == socket.IPPROTO_IP:
        _, _, asked = struct.unpack("=i4s4s", data)
        return level, kind, struct.pack("=i4s4s", 0, asked, bytes(4))
    return level, kind, data[:16] + struct.pack("=i", 0)


def _introduction(wanted: Wanted, peer: tuple[str, int]) -> bytes:
    seen = peer[0].removeprefix("::ffff:")
    return f"{wanted.name} {seen} {peer[1]}\n".encode()
