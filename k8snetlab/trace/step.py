"""What happened to the packet just now, and by which rule?

The values that a walk through a network is told in. A `Step` names the machine and the device, what was done, the
packet *after* it, the reason in words, and the rule that decided, if one did. `linux` makes them.

Not modelled: time. The order of the steps is all that is known of it. Guide section 2.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol

import msgspec

from k8snetlab.packet import Packet

__all__ = ["FATES", "Action", "Backend", "Client", "Outcome", "Request", "RuleText", "Step", "Verdict"]


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


FATES: Mapping[Action, Verdict] = {
    Action.DELIVER: Verdict.DELIVERED,
    Action.RESET: Verdict.REJECTED,
    Action.REJECT: Verdict.REJECTED,
    Action.DROP: Verdict.DROPPED,
    Action.UNREACHABLE: Verdict.UNREACHABLE,
    Action.LOST: Verdict.TIMEOUT,
}
"""The actions that end a packet's way, and the verdict they mean for it."""


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
