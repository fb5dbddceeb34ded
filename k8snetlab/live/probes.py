"""What was asked of the kernel, and what did a program see?

A `Probe` is a question that a program puts: connect from this machine to that address and port. A `Sight` is what it
saw, in the words of `trace.Client`, with the name of whoever answered and the source that he saw. The same kernel
errors that a program would get decide which:

    OPEN         connected, or a datagram was answered
    REFUSED      ECONNREFUSED: a reset, or port unreachable
    UNREACHABLE  ENETUNREACH, EHOSTUNREACH, EACCES and others that say: no way there (UDP hears of the lasting ones)
    TIMEOUT      nothing came; or the own machine dropped the packet (EPERM) or found it too long (EMSGSIZE), which
                 only UDP is told
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from k8snetlab.trace import Client

__all__ = ["Probe", "Sight", "seen"]

MEANS: Mapping[str, Client] = {
    "OPEN": Client.OPEN,
    "ECONNREFUSED": Client.REFUSED,
    "TIMEOUT": Client.TIMEOUT,
    "ETIMEDOUT": Client.TIMEOUT,
    "EPERM": Client.TIMEOUT,
    "EMSGSIZE": Client.TIMEOUT,
}
"""What the end of a probe means to a program; every other error is UNREACHABLE."""


class Probe(msgspec.Struct, frozen=True):
    """From machine `source` to `address` and `port`, by `TCP` or `UDP`. A UDP probe has `size` bytes of payload (one
    at least) and, if `whole`, forbids to cut them (DF).
    """

    source: str
    address: str
    port: int
    protocol: str = "TCP"
    size: int = 0
    whole: bool = True

    def __str__(self) -> str:
        where = f"[{self.address}]" if ":" in self.address else self.address
        size = f" ({self.size} bytes)" if self.size else ""
        return f"{self.source} → {where}:{self.port}/{self.protocol}{size}"


class Sight(msgspec.Struct, frozen=True):
    """What the program saw: `end` is the kernel's word (`OPEN`, `ECONNREFUSED`, …), `backend` the machine that
    answered and `source` the address it saw the question come from.
    """

    client: Client
    end: str
    backend: str = ""
    source: str = ""

    def __str__(self) -> str:
        answered = f" by {self.backend}, which sees {self.source}" if self.backend else ""
        return f"{self.client} ({self.end}){answered}"


def seen(end: str, words: str) -> Sight:
    """The sight that an end and the words of the answer make."""
    backend, source = [*words.split(), "", ""][:2]
    return Sight(MEANS.get(end, Client.UNREACHABLE), end, backend, source)
