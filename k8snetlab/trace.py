"""What happened to the packet, where, why, and by which rule?

A walk says what it does as it goes: each `Step` names the machine and the device, what was done, the packet *after* it, the
reason in words, and the rule that decided, if one did. A `Trace` is the finished list, with a verdict. Nothing here moves a
packet; these are the values that `linux` makes and that tables, prose, diagrams and captures are drawn from.

Two questions are kept apart. The `verdict` is the packet's fate; `client` is what `connect()` would tell the program:

| what happened                                   | verdict     | client      |
|-------------------------------------------------|-------------|-------------|
| a listener got it, and its answer came back      | DELIVERED   | OPEN        |
| RST, or ICMP port unreachable                    | REJECTED    | REFUSED     |
| ICMP admin prohibited, no route, no neighbour    | REJECTED or UNREACHABLE | UNREACHABLE |
| a rule, a policy, rp_filter or an MTU lost it    | DROPPED     | TIMEOUT     |
| nobody answers, or the reply is lost             | TIMEOUT     | TIMEOUT     |

Not modelled: time on the wire, retransmissions, congestion. Guide sections 2.1 and 2.2.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

import msgspec

from k8snetlab.packet import Packet

__all__ = ["Action", "Backend", "Client", "Outcome", "Request", "RuleText", "Step", "Trace", "Verdict"]


class Verdict(StrEnum):
    """The fate of a packet. `MIXED` is said of a whole trace whose outcomes differ."""

    DELIVERED = "DELIVERED"
    DROPPED = "DROPPED"
    REJECTED = "REJECTED"
    UNREACHABLE = "UNREACHABLE"
    TIMEOUT = "TIMEOUT"
    MIXED = "MIXED"


class Client(StrEnum):
    """What `connect()` would say: `OPEN`, or ECONNREFUSED, ENETUNREACH/EHOSTUNREACH, ETIMEDOUT."""

    OPEN = "OPEN"
    REFUSED = "REFUSED"
    UNREACHABLE = "UNREACHABLE"
    TIMEOUT = "TIMEOUT"


class Action(StrEnum):
    """What one step did."""

    SEND = "SEND"  # a socket hands a packet to the kernel
    ROUTE = "ROUTE"  # the routing decision
    RULE = "RULE"  # a netfilter rule matched and passed the packet on: jump, return, accept, mark
    DNAT = "DNAT"  # a rule gave the packet another destination
    SNAT = "SNAT"  # a rule gave the packet another source
    CONNTRACK = "CONNTRACK"  # a known connection: translated as its first packet was
    ARP = "ARP"  # a neighbour was asked for its MAC address
    FORWARD = "FORWARD"  # one hop less to live
    FRAGMENT = "FRAGMENT"
    REASSEMBLE = "REASSEMBLE"
    ENCAPSULATE = "ENCAPSULATE"
    DECAPSULATE = "DECAPSULATE"
    BRIDGE = "BRIDGE"  # a bridge chose a port by MAC address
    TRANSMIT = "TRANSMIT"  # a frame leaves a device
    RECEIVE = "RECEIVE"  # a frame arrives at a device
    DELIVER = "DELIVER"  # a socket gets it
    ICMP = "ICMP"  # the kernel answers with an ICMP error
    RESET = "RESET"  # the kernel answers with a TCP RST
    DROP = "DROP"
    REJECT = "REJECT"
    UNREACHABLE = "UNREACHABLE"
    LOST = "LOST"  # nobody is there to take it


class RuleText(Protocol):
    """A rule that can say where it stands and how the real tool prints it."""

    @property
    def table(self) -> str: ...
    @property
    def chain(self) -> str: ...
    @property
    def text(self) -> str: ...


class Step(msgspec.Struct, frozen=True):
    """One thing that happened: on host `where`, at `device`, with the packet as it was afterwards."""

    where: str
    device: str
    action: Action
    packet: Packet
    why: str
    rule: RuleText | None = None


class Backend(msgspec.Struct, frozen=True):
    """Who took the packet. `namespace` is empty where it was no pod; `pod` is then the machine's name."""

    namespace: str
    pod: str
    node: str
    ip: str
    port: int

    @property
    def name(self) -> str:
        return f"{self.namespace}/{self.pod}" if self.namespace else self.pod


class Outcome(msgspec.Struct, frozen=True):
    """One way the load-balancing choices can fall, with its probability (they add up to 1)."""

    probability: float
    verdict: Verdict
    client: Client
    backend: Backend | None
    source_seen: str
    reason: str = ""


class Request(msgspec.Struct, frozen=True):
    """What was asked: names as they were given, and the addresses that the client used.

    `family` is 4 or 6; `address` and `port` are what the client connected to; `size` is the payload in bytes.
    """

    source: str
    target: str
    address: str
    port: int
    protocol: str = "TCP"
    family: int = 4
    size: int = 0


class Trace(msgspec.Struct, frozen=True, dict=True):
    """The finished walk of one packet, there (`steps`) and back (`reply`).

    `fate` is this walk's verdict; `verdict` is `MIXED` when other load-balancing choices would end otherwise. `outcomes` are
    found by walking every choice, when they are first asked for.
    """

    request: Request
    fate: Verdict
    client: Client
    reason: str
    steps: tuple[Step, ...]
    reply: tuple[Step, ...]
    backend: Backend | None
    source_seen: str
    explore: Callable[[], tuple[Outcome, ...]]
