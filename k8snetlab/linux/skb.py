"""What does the kernel know about a packet that the packet itself does not say?

While a packet is inside a machine it travels as a *socket buffer*: the packet plus marks, the devices it came from
and will leave by, and its connection. All that is gone once it is on the wire, which is why a mark set on one node
means nothing on the next.

Not modelled: priorities, checksums offload, timestamps. Guide section 2.1.
"""

from __future__ import annotations

from k8snetlab.linux.conntrack import Connection, Tuple
from k8snetlab.linux.ipvs import ConnectionEntry
from k8snetlab.packet import ICMP, SCTP, TCP, UDP, Ethernet, IPHeader, IPv4, IPv6, Packet

__all__ = ["Skb"]

IP = (IPv4, IPv6)
PORTS = (TCP, UDP, SCTP, ICMP)


class Skb:
    """A packet inside one machine. `packet` starts with its IP header; the other fields are read from it."""

    __slots__ = (
        "bridged", "connection", "cut", "dport", "dst", "iif", "joined", "leaves_by", "mark", "oif", "packet",
        "protocol", "reply", "routed", "sport", "src", "state", "tracked", "version", "virtual",
    )  # fmt: skip

    def __init__(self, packet: Packet, iif: str = "") -> None:
        self.mark = 0
        self.routed = 0  # the mark by which what the machine itself sends is routed
        self.iif = iif
        self.oif = ""
        self.bridged: tuple[str, Ethernet] | None = None  # port and header of its frame, where iptables sees bridges
        self.leaves_by = ""  # the port by which a bridge passes it on
        self.cut = 0  # the longest of the fragments that it was put together of, while that is known
        self.joined = 0  # the same, for good: it may be cut again here, into pieces that are no longer than those were
        self.connection: Connection | None = None
        self.state = ""
        self.reply = False
        self.tracked = True
        self.virtual: ConnectionEntry | None = None  # set once IPVS has dealt with it
        self.put(packet)

    def put(self, packet: Packet) -> None:
        """Take another packet in the place of this one (after NAT, or one hop less)."""
        self.packet = packet
        ip = packet.headers[0]
        assert isinstance(ip, IP)
        self.version = ip.version
        self.src = ip.src
        self.dst = ip.dst
        self.protocol = ip.protocol
        ports = packet.headers[1] if len(packet.headers) > 1 else None
        if isinstance(ports, PORTS):
            self.sport = ports.sport
            self.dport = ports.dport
        else:
            self.sport = self.dport = 0

    @property
    def ip(self) -> IPHeader:
        header = self.packet.headers[0]
        assert isinstance(header, IP)
        return header

    @property
    def tuple(self) -> Tuple:
        """The tuple by which conntrack knows the packet."""
        return Tuple(self.protocol, self.src, self.sport, self.dst, self.dport)

    @property
    def icmpv6_type(self) -> int:
        """The type of the ICMPv6 message that the packet is; 0 for any other packet."""
        header = self.packet.headers[1] if len(self.packet.headers) > 1 else None
        return _ICMPV6.get(header.message, 1) if self.version == 6 and isinstance(header, ICMP) else 0


_ICMPV6 = {"echo-request": 128, "echo-reply": 129, "fragmentation-needed": 2, "time-exceeded": 3}
"""The types of the messages that are walked; all others say that something cannot be reached: 1."""
