"""How does a program outside serve a port inside?

A socket stays in the namespace it was made in, whoever holds it. So it is opened here and handed over, through a
socket of the file system, which no network namespace bounds; the agent keeps nothing. See `unix(7)`, SCM_RIGHTS.
"""

from __future__ import annotations

import socket

from .namespaces import Namespaces
from .responder import Wanted, opened

__all__ = ["hand"]

AT_ONCE = 200
"""So many files may be handed over by one message: the kernel allows 253."""


def hand(wanted: list[Wanted], path: str, namespaces: Namespaces) -> None:
    """Open sockets and hand them over, in order: bound to their port, and if it is 0, ready to connect."""
    held = [_opened(each, namespaces) for each in wanted]
    with socket.socket(socket.AF_UNIX) as taker:
        taker.connect(path)
        for at in range(0, len(held), AT_ONCE):
            socket.send_fds(taker, [b"s"], [each.fileno() for each in held[at : at + AT_ONCE]])
    for each in held:
        each.close()


def _opened(wanted: Wanted, namespaces: Namespaces) -> socket.socket:
    if wanted.port:
        return opened(wanted, namespaces)
    family = socket.AF_INET6 if ":" in wanted.address else socket.AF_INET
    kind = socket.SOCK_STREAM if wanted.protocol == "TCP" else socket.SOCK_DGRAM
    return namespaces.socket(wanted.namespace, family, kind)
