"""What is on the wire?

A packet is a stack of headers with a payload under it, outermost header first: `(Ethernet, IPv4, TCP)`. Encapsulation
is a push: VXLAN puts `(IPv4, UDP, VXLAN)` on top of a whole Ethernet frame, so the stack becomes
`(Ethernet, IPv4, UDP, VXLAN, Ethernet, IPv4, TCP)`, and every header costs its bytes. A packet never changes; what the
kernel does to it (a new address, one hop less to live) makes another packet. `wire` turns it into bytes.

Field names are those of the RFCs, save that IPv6's *hop limit* is called `ttl` like IPv4's, so that one walk serves
both. Every header knows its `length` in bytes.

Not modelled: wrong checksums, IP options, IPv6 extension headers other than fragments, TCP options other than MSS,
sequence numbers beyond the handshake. Guide section 2.1; RFC 791, 8200, 9293, 768, 792, 4443, 826, 7348,
4303; WireGuard's paper, section 5.4.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeAlias

import msgspec

__all__ = [
    "ARP",
    "ESP",
    "ICMP",
    "SCTP",
    "TCP",
    "UDP",
    "VXLAN",
    "Ethernet",
    "Geneve",
    "Header",
    "IPHeader",
    "IPv4",
    "IPv6",
    "Packet",
    "Ports",
    "Sleeve",
    "WireGuard",
]


class Ethernet(msgspec.Struct, frozen=True):
    """A frame's header: 14 bytes (the frame check sequence is the hardware's)."""

    layer: ClassVar[str] = "ethernet"
    length: ClassVar[int] = 14
    src: str
    dst: str

    def __str__(self) -> str:
        return f"{self.src} > {self.dst}"


class ARP(msgspec.Struct, frozen=True):
    """Who has this address? (RFC 826): 28 bytes. Also stands for IPv6's neighbour solicitation and advertisement (RFC
    4861): 72 bytes with their IPv6 header.
    """

    layer: ClassVar[str] = "arp"
    operation: str
    sender_mac: str
    sender: str
    target_mac: str
    target: str

    @property
    def length(self) -> int:
        """Bytes on the wire."""
        return 72 if ":" in self.target else 28

    def __str__(self) -> str:
        if self.operation == "request":
            return f"who has {self.target}? tell {self.sender}"
        return f"{self.sender} is at {self.sender_mac}"


class IPv4(msgspec.Struct, frozen=True):
    """RFC 791: 20 bytes. `protocol` is its name (`TCP`, `UDP`, `SCTP`, `ICMP`); `offset` counts bytes."""

    layer: ClassVar[str] = "ipv4"
    length: ClassVar[int] = 20
    version: ClassVar[int] = 4
    src: str
    dst: str
    protocol: str
    ttl: int = 64
    df: bool = True
    id: int = 0
    offset: int = 0
    more: bool = False

    def __str__(self) -> str:
        return f"{self.src} > {self.dst}"


class IPv6(msgspec.Struct, frozen=True):
    """RFC 8200: 40 bytes, 48 with a fragment header. Routers never cut it; `df` says whether its sender may not."""

    layer: ClassVar[str] = "ipv6"
    version: ClassVar[int] = 6
    src: str
    dst: str
    protocol: str
    ttl: int = 64
    df: bool = True
    id: int = 0
    offset: int = 0
    more: bool = False

    @property
    def length(self) -> int:
        """Bytes on the wire."""
        return 48 if self.offset or self.more else 40

    def __str__(self) -> str:
        return f"{self.src} > {self.dst}"


class TCP(msgspec.Struct, frozen=True):
    """RFC 9293: 20 bytes, 24 with an MSS option. `flags` are letters as tcpdump prints them: `S`, `S.`, `.`, `P.`."""

    layer: ClassVar[str] = "tcp"
    sport: int
    dport: int
    flags: str = "S"
    mss: int = 0

    @property
    def length(self) -> int:
        """Bytes on the wire."""
        return 24 if self.mss else 20

    def __str__(self) -> str:
        return f"TCP {self.sport} > {self.dport} [{self.flags}]"


class UDP(msgspec.Struct, frozen=True):
    """RFC 768: 8 bytes."""

    layer: ClassVar[str] = "udp"
    length: ClassVar[int] = 8
    sport: int
    dport: int

    def __str__(self) -> str:
        return f"UDP {self.sport} > {self.dport}"


class SCTP(msgspec.Struct, frozen=True):
    """RFC 9260: the common header of 12 bytes and one chunk: `INIT` or `INIT ACK` of 20 bytes, `ABORT` of 4."""

    layer: ClassVar[str] = "sctp"
    sport: int
    dport: int
    chunk: str = "INIT"

    @property
    def length(self) -> int:
        """Bytes on the wire."""
        return 16 if self.chunk == "ABORT" else 32

    def __str__(self) -> str:
        return f"SCTP {self.sport} > {self.dport} [{self.chunk}]"


class ICMP(msgspec.Struct, frozen=True):
    """RFC 792 and RFC 4443 (ICMPv6), by the name of the message. An error carries the packet it is about, as it was."""

    layer: ClassVar[str] = "icmp"
    message: str
    mtu: int = 0
    ident: int = 0
    about: Packet | None = None

    @property
    def length(self) -> int:
        """Bytes on the wire, with what is quoted."""
        return 8 + self.quoted

    @property
    def sport(self) -> int:
        """The identifier of an echo request: to conntrack it is what a source port is."""
        return 0 if self.message == "echo-reply" else self.ident

    @property
    def dport(self) -> int:
        """The identifier of an echo reply, where the answer goes."""
        return self.ident if self.message == "echo-reply" else 0

    @property
    def is_error(self) -> bool:
        """Whether it is about another packet."""
        return self.about is not None

    @property
    def quoted(self) -> int:
        """How many bytes of the packet an error is about it carries: 576 in all (RFC 1812), in IPv6 1280 (RFC 4443)."""
        if self.about is None:
            return 0
        return min(self.about.length, 548 if self.about.ip.version == 4 else 1232)

    def __str__(self) -> str:
        return f"ICMP {self.message}" + (f" (mtu {self.mtu})" if self.mtu else "")


class VXLAN(msgspec.Struct, frozen=True):
    """RFC 7348: 8 bytes after an outer UDP header; an inner Ethernet frame follows."""

    layer: ClassVar[str] = "vxlan"
    length: ClassVar[int] = 8
    vni: int

    def __str__(self) -> str:
        return f"VXLAN vni {self.vni}"


class Geneve(VXLAN, frozen=True):
    """RFC 8926: 8 bytes after an outer UDP header, as with VXLAN, as long as there are no options."""

    layer: ClassVar[str] = "geneve"

    def __str__(self) -> str:
        return f"Geneve vni {self.vni}"


class WireGuard(msgspec.Struct, frozen=True):
    """A data message of WireGuard, after a UDP header: 16 bytes in front of an IP packet, `padding` and a tag of 16
    bytes behind it. All that follows is encrypted: who is not one of the two ends sees its length only. `receiver` is
    the number of the session at the receiver.
    """

    layer: ClassVar[str] = "wireguard"
    receiver: int
    padding: int = 0

    @property
    def length(self) -> int:
        """Bytes on the wire, those behind the packet too."""
        return 32 + self.padding

    def __str__(self) -> str:
        return f"WireGuard session {self.receiver:08x}"


class ESP(msgspec.Struct, frozen=True):
    """RFC 4303 with AES-GCM (RFC 4106): what follows, a UDP header (transport mode) or a whole packet (tunnel mode), is
    unreadable on the wire. Its bytes before and after that are counted together: SPI 4, sequence number 4,
    initialisation vector 8, padding to a multiple of 4, pad length and next header 2, integrity value 16: 34 and the
    `pad`.
    """

    layer: ClassVar[str] = "esp"
    spi: int
    pad: int = 0

    @property
    def length(self) -> int:
        """Bytes on the wire."""
        return 34 + self.pad

    def __str__(self) -> str:
        return f"ESP spi {self.spi:#010x}"


class Sleeve(msgspec.Struct, frozen=True):
    """What Weave Net's router writes into UDP before a whole frame: the names of the sender, of the machine the frame
    comes from and of the one it is for, 6 bytes each, and its length: 20 bytes. Encrypted (NaCl's secretbox), 8 bytes
    of sequence number and 16 of tag are added, and only the sender can be read.
    """

    layer: ClassVar[str] = "sleeve"
    sender: str
    src: str
    dst: str
    encrypted: bool = False

    @property
    def length(self) -> int:
        """Bytes on the wire."""
        return 44 if self.encrypted else 20

    def __str__(self) -> str:
        return f"sleeve{' encrypted' if self.encrypted else ''} {self.src} > {self.dst}"


Header: TypeAlias = Ethernet | ARP | IPv4 | IPv6 | TCP | UDP | SCTP | ICMP | VXLAN | WireGuard | ESP | Sleeve
IPHeader: TypeAlias = IPv4 | IPv6
Ports: TypeAlias = TCP | UDP | SCTP | ICMP


class Packet(msgspec.Struct, frozen=True):
    """Headers, outermost first, and the payload under them.

    >>> Packet((IPv4("10.0.0.1", "10.0.0.2", "TCP"), TCP(40000, 80))).length
    40
    """

    headers: tuple[Header, ...]
    payload: bytes = b""

    @property
    def length(self) -> int:
        """Bytes from the first header to the end of the payload."""
        size = len(self.payload)
        for header in self.headers:
            size += header.length
        return size

    @property
    def ip(self) -> IPHeader:
        """The outermost IP header. Raises `ValueError` where there is none (an ARP frame)."""
        for header in self.headers:
            if isinstance(header, IPv4 | IPv6):
                return header
        raise ValueError(f"{self} has no IP header")

    @property
    def innermost(self) -> Packet:
        """The packet that the application sent: what is left when every tunnel header is taken off."""
        start = 0
        for index, header in enumerate(self.headers):
            if isinstance(header, IPv4 | IPv6):
                start = index
        return Packet(self.headers[start:], self.payload)

    @property
    def later_fragment(self) -> bool:
        """Whether it is, or carries, a piece of a packet that was cut, other than the first: one without ports."""
        return any(isinstance(header, IPv4 | IPv6) and header.offset > 0 for header in self.headers)

    def pushed(self, *headers: Header) -> Packet:
        """The packet with more headers on top, outermost first: encapsulation."""
        return Packet(headers + self.headers, self.payload)

    def popped(self, count: int = 1) -> Packet:
        """The packet without its `count` outermost headers."""
        return Packet(self.headers[count:], self.payload)

    def as_dict(self) -> dict[str, Any]:
        """`{"headers": [{"layer": "ipv4", "src": …}, …], "length": …}`, as in the command line's JSON."""
        return {"headers": [_as_dict(header) for header in self.headers], "length": self.length}

    def __str__(self) -> str:
        return " | ".join(str(header) for header in self.headers)


def _as_dict(header: Header) -> dict[str, Any]:
    fields: dict[str, Any] = {"layer": header.layer}
    for name in header.__struct_fields__:
        value = getattr(header, name)
        fields[name] = value.as_dict() if isinstance(value, Packet) else value
    return fields
