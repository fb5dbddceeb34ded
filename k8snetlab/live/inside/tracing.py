"""Which rules did the kernel run?

A packet that carries the trace flag (`meta nftrace set 1`) makes the kernel tell, in every namespace it passes, each
rule that matched it: table, chain, handle of the rule, and the first bytes of the packet. It tells whoever listens to
group 9 of the netfilter netlink in that namespace. Here one process listens in all of them while a probe is under way.

The kernel tells before it lets the packet go on, so that everything there is to hear has been said when the probe has
ended. See linux/netfilter/nf_tables.h (`nft_trace_attributes`), `nft(8)` (monitor trace).
"""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterator

from .namespaces import Namespaces

__all__ = ["Event", "traced"]

_NETLINK_NETFILTER = 12
_GROUP = 9  # NFNLGRP_NFTRACE
_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
_SO_RCVBUFFORCE = 33
_TRACE = 10 << 8 | 17  # subsystem NFTABLES, message TRACE
_TABLE, _CHAIN, _HANDLE, _ID, _NETWORK, _TRANSPORT = 1, 2, 3, 6, 8, 9
_ROOM = 1 << 23

Event = tuple[str, int, str, str, int, int, str, str]
"""Namespace, protocol family (2: IPv4, 10: IPv6), table, chain, handle of the rule (0: the chain's end or policy),
number of the packet, and the first bytes of its network and transport headers, in hexadecimal digits: empty if they
were told before.
"""


def traced(names: list[str], act: Callable[[], None], namespaces: Namespaces) -> list[Event]:
    """What the kernel tells in these namespaces while `act` runs; each namespace's in its order.

    Raises `OSError` (ENOBUFS) if it told more than there was room for.
    """
    with contextlib.ExitStack() as held:
        ears = [(name, held.enter_context(_ear(name, namespaces))) for name in names]
        act()
        return [event for name, ear in ears for event in _heard(name, ear)]


def _ear(name: str, namespaces: Namespaces) -> socket.socket:
    ear = namespaces.socket(name, socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    try:
        ear.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _ROOM)
    except PermissionError:  # an ordinary user has the room that everybody has
        ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _ROOM)
    ear.bind((0, 0))
    ear.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP)
    return ear


def _heard(name: str, ear: socket.socket) -> Iterator[Event]:
    with contextlib.suppress(BlockingIOError):
        while True:
            octets = ear.recv(1 << 16)
            at = 0
            while at + 16 <= len(octets):
                length, kind = struct.unpack_from("=IH", octets, at)
                if kind == _TRACE:
                    yield _event(name, octets[at + 16 : at + length])
                at += -(-length // 4) * 4


def _event(name: str, message: bytes) -> Event:
    told = dict(_attributes(message[4:]))
    table, chain = (told.get(kind, b"").rstrip(b"\0").decode() for kind in (_TABLE, _CHAIN))
    handle, number = (int.from_bytes(told.get(kind, b"")) for kind in (_HANDLE, _ID))
    network, transport = (told.get(kind, b"").hex() for kind in (_NETWORK, _TRANSPORT))
    return name, message[0], table, chain, handle, number, network, transport


def _attributes(octets: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(octets):
        length, kind = struct.unpack_from("=HH", octets, at)
        if length < 4:
            return
        yield kind & 0x3FFF, octets[at + 4 : at + length]
        at += -(-length // 4) * 4
