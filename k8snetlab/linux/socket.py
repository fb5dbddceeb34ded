"""Who is listening?

A packet that came to the right machine still needs a socket: one of the right protocol, on its destination address or
on every address, and on its port. Without one the kernel answers by itself: RST for TCP, ICMP port unreachable for
UDP, ABORT for SCTP.

Not modelled: accept queues, SO_REUSEPORT groups, connected UDP sockets, raw sockets. Guide section 2.1; `socket(7)`,
RFC 9293.
"""

from __future__ import annotations

import msgspec

__all__ = ["Listener"]


class Listener(msgspec.Struct, frozen=True):
    """A socket that waits: protocol (`TCP`, `UDP`, `SCTP`), port, and its address — empty for every address of both
    families.

    `program` says who holds it. `assumed` marks a port that no manifest declares. A program that is asked by HTTP says
    `status` and, if that is known, `body`.
    """

    protocol: str
    port: int
    address: str = ""
    program: str = ""
    assumed: bool = False
    status: int = 200
    body: str = ""

    def takes(self, protocol: str, address: str, port: int) -> bool:
        """Whether a packet to `address` and `port` is for this socket."""
        return port == self.port and protocol == self.protocol and self.address in ("", address)
