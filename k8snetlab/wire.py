"""Which bytes are on the cable?

A capture holds bytes, not headers: `encode` writes a packet as its RFCs lay it out, from the innermost header outwards,
because a length or a checksum of an outer header covers everything inside it. `pcap` puts frames into a file that
tcpdump and Wireshark open. Checksums are computed as the receiver would check them: the internet checksum (RFC 1071) of
IPv4, TCP, UDP, ICMP and ICMPv6, and CRC-32C for SCTP.

An IPv6 neighbour question or answer (`ARP` with IPv6 addresses) is written as what it is, ICMPv6 inside IPv6. Sequence
numbers are those of a handshake that starts at 0 on both sides, as Wireshark counts them.

What is encrypted cannot be read in a capture, here as there: its bytes are noise of the right length.

Not modelled: in a fragment the checksum of the whole datagram (written as 0) and the length that its UDP header states
(that of the fragment); the state cookie of an SCTP INIT ACK. Guide section 2.1; RFC 791, 826, 1071, 4443, 4861, 7348,
8200, 9260, 9293, and draft-ietf-opsawg-pcap.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from hashlib import shake_256
from ipaddress import IPv4Address, IPv6Address, ip_address

from k8snetlab.errors import BadOption, Problem
from k8snetlab.packet import (
    ARP,
    ESP,
    ICMP,
    SCTP,
    TCP,
    UDP,
    VXLAN,
    Ethernet,
    Geneve,
    Header,
    IPHeader,
    IPv4,
    IPv6,
    Packet,
    Sleeve,
    WireGuard,
)

__all__ = ["encode", "frame", "internet_checksum", "pcap"]

ETHERTYPE_BRIDGED = 0x6558
"""What Geneve says of a whole Ethernet frame inside."""

ETHERTYPES: Mapping[type[Header], int] = {IPv4: 0x0800, ARP: 0x0806, IPv6: 0x86DD}
PROTOCOLS: Mapping[str, int] = {"ICMP": 1, "TCP": 6, "UDP": 17, "ICMPv6": 58, "SCTP": 132, "IPIP": 4, "ESP": 50}
IPV6_IN_IP = 41
"""The number of a whole IPv6 packet inside of another one (RFC 2473)."""
"""Protocol numbers of the IP header (IANA)."""

TCP_FLAGS: Mapping[str, int] = {"F": 0x01, "S": 0x02, "R": 0x04, "P": 0x08, ".": 0x10, "U": 0x20, "E": 0x40, "W": 0x80}
CHUNKS: Mapping[str, int] = {"INIT": 1, "INIT ACK": 2, "ABORT": 6}
WINDOW = 64240
FRAGMENT = 44
"""The protocol number of IPv6's fragment header."""

ICMPV4: Mapping[str, tuple[int, int]] = {
    "echo-reply": (0, 0),
    "net-unreachable": (3, 0),
    "host-unreachable": (3, 1),
    "proto-unreachable": (3, 2),
    "port-unreachable": (3, 3),
    "fragmentation-needed": (3, 4),
    "net-prohibited": (3, 9),
    "host-prohibited": (3, 10),
    "admin-prohibited": (3, 13),
    "echo-request": (8, 0),
    "time-exceeded": (11, 0),
}
"""Type and code of the messages of RFC 792 and RFC 1812, by the names that `iptables -j REJECT` knows."""

ICMPV6: Mapping[str, tuple[int, int]] = {
    "net-unreachable": (1, 0),
    "no-route": (1, 0),
    "admin-prohibited": (1, 1),
    "adm-prohibited": (1, 1),
    "host-unreachable": (1, 3),
    "addr-unreachable": (1, 3),
    "port-unreachable": (1, 4),
    "policy-fail": (1, 5),
    "reject-route": (1, 6),
    "fragmentation-needed": (2, 0),
    "time-exceeded": (3, 0),
    "echo-request": (128, 0),
    "echo-reply": (129, 0),
}
"""The same for RFC 4443. A message that IPv4 knows too may go by that name (`fragmentation-needed`: packet too big)."""


def frame(packet: Packet) -> bytes:
    """The packet as a whole Ethernet frame. One without an Ethernet header gets MAC addresses of zeros, as on `lo`."""
    if isinstance(packet.headers[0], Ethernet):
        return encode(packet)
    return encode(packet.pushed(Ethernet("00:00:00:00:00:00", "00:00:00:00:00:00")))


def encode(packet: Packet) -> bytes:
    """The bytes of the packet from its outermost header on: as many as `packet.length`.

    Raises `BadOption` for a message or protocol that has no number.
    """
    return _encode(packet.headers, packet.payload, None)


def _encode(headers: Sequence[Header], payload: bytes, outer: IPHeader | None) -> bytes:
    """`headers` and what is under them; `outer` is the IP header that they are in."""
    if not headers:
        return payload
    first, rest = headers[0], headers[1:]
    if isinstance(first, ARP):
        return _neighbour(first) if ":" in first.target else _arp(first)
    inner = _encode(rest, payload, first if isinstance(first, IPv4 | IPv6) else outer)
    match first:
        case Ethernet():
            return _mac(first.dst) + _mac(first.src) + struct.pack("!H", _ethertype(rest)) + inner
        case IPv4():
            return _ipv4(first, inner)
        case IPv6():
            return _ipv6(first, inner)
        case TCP():
            return _tcp(first, inner, outer)
        case UDP():
            return _udp(first, inner, outer)
        case SCTP():
            return _sctp(first) + inner
        case ICMP():
            return _icmp(first, inner, outer)
        case Geneve():
            return struct.pack("!HHI", 0, ETHERTYPE_BRIDGED, first.vni << 8) + inner
        case VXLAN():
            return struct.pack("!II", 0x08 << 24, first.vni << 8) + inner
        case WireGuard():
            return _sealed(first, inner)
        case ESP():
            return _esp(first, inner, rest)
        case Sleeve():
            return _sleeve(first, inner)


DATA_MESSAGE = 4
TAG = 16


def _sealed(message: WireGuard, inner: bytes) -> bytes:
    """What a listener sees of a packet in WireGuard: type, session, a counter, and noise. It is no ChaCha20, but is as
    long, and says as little: a hash of what is inside.
    """
    head = struct.pack("<IIQ", DATA_MESSAGE, message.receiver, 0)
    return head + shake_256(head + inner).digest(len(inner) + message.padding + TAG)


def _ethertype(inside: Sequence[Header]) -> int:
    if isinstance(inside[0], ARP) and ":" in inside[0].target:
        return ETHERTYPES[IPv6]
    return ETHERTYPES[type(inside[0])]


def _arp(arp: ARP) -> bytes:
    operation = 1 if arp.operation == "request" else 2
    sides = ((arp.sender_mac, arp.sender), (arp.target_mac, arp.target))
    return struct.pack("!HHBBH", 1, 0x0800, 6, 4, operation) + b"".join(_mac(mac) + _ip(ip) for mac, ip in sides)


def _neighbour(arp: ARP) -> bytes:
    """The solicitation, to the solicited-node group of the address, or the advertisement that answers it (RFC 4861)."""
    if arp.operation == "request":
        group = IPv6Address(int(IPv6Address("ff02::1:ff00:0")) | int(IPv6Address(arp.target)) & 0xFFFFFF)
        ip = IPv6(arp.sender, str(group), "ICMPv6", ttl=255)
        body = struct.pack("!BBHI", 135, 0, 0, 0) + _ip(arp.target) + b"\x01\x01" + _mac(arp.sender_mac)
    else:
        ip = IPv6(arp.sender, arp.target, "ICMPv6", ttl=255)
        solicited_and_override = 0x60000000
        body = struct.pack("!BBHI", 136, 0, 0, solicited_and_override)
        body += _ip(arp.sender) + b"\x02\x01" + _mac(arp.sender_mac)
    return _ipv6(ip, _summed(body, 2, _pseudo(ip, len(body))))


def _ipv4(ip: IPv4, inner: bytes) -> bytes:
    flags = (0x4000 if ip.df else 0) | (0x2000 if ip.more else 0) | ip.offset // 8
    fields = (0x45, 0, ip.length + len(inner), ip.id, flags, ip.ttl, _protocol(ip), 0)
    return _summed(struct.pack("!BBHHHBBH", *fields) + _ip(ip.src) + _ip(ip.dst), 10) + inner


def _ipv6(ip: IPv6, inner: bytes) -> bytes:
    protocol = _protocol(ip)
    if _is_fragment(ip):
        inner = struct.pack("!BBHI", protocol, 0, ip.offset | ip.more, ip.id) + inner
        protocol = FRAGMENT
    return struct.pack("!IHBB", 6 << 28, len(inner), protocol, ip.ttl) + _ip(ip.src) + _ip(ip.dst) + inner


def _tcp(tcp: TCP, inner: bytes, outer: IPHeader | None) -> bytes:
    flags = sum(TCP_FLAGS[flag] for flag in tcp.flags)
    opening = "S" in tcp.flags or (tcp.flags == "R.")  # a refusal answers the first SYN
    ports_and_numbers = (tcp.sport, tcp.dport, 0 if opening else 1, 1 if "." in tcp.flags else 0)
    head = struct.pack("!HHIIBBHHH", *ports_and_numbers, tcp.length // 4 << 4, flags, WINDOW, 0, 0)
    options = struct.pack("!BBH", 2, 4, tcp.mss) if tcp.mss else b""
    return _transport(head + options + inner, 16, outer)


def _udp(udp: UDP, inner: bytes, outer: IPHeader | None) -> bytes:
    whole = _transport(struct.pack("!HHHH", udp.sport, udp.dport, udp.length + len(inner), 0) + inner, 6, outer)
    if whole[6:8] == b"\0\0" and not (outer is not None and _is_fragment(outer)):
        return whole[:6] + b"\xff\xff" + whole[8:]  # 0 would say that there is no checksum
    return whole


def _sctp(sctp: SCTP) -> bytes:
    if sctp.chunk not in CHUNKS:
        raise _unknown("SCTP chunk", sctp.chunk, CHUNKS)
    tag = 0 if sctp.chunk == "INIT" else 1
    body = b"" if sctp.chunk == "ABORT" else struct.pack("!IIHHI", 1, 106496, 10, 65535, 0)
    chunk = struct.pack("!BBH", CHUNKS[sctp.chunk], 0, 4 + len(body)) + body
    head = struct.pack("!HHI", sctp.sport, sctp.dport, tag)
    return head + struct.pack("<I", _crc32c(head + bytes(4) + chunk)) + chunk


def _esp(esp: ESP, inner: bytes, rest: Sequence[Header]) -> bytes:
    """SPI and sequence number can be read; the rest looks random. It ends by saying what is protected: a tunnel in UDP,
    or a whole packet.
    """
    following = {IPv4: PROTOCOLS["IPIP"], IPv6: IPV6_IN_IP}.get(type(rest[0]) if rest else UDP, PROTOCOLS["UDP"])
    hidden = inner + bytes(range(1, esp.pad + 1)) + bytes((esp.pad, following))
    return struct.pack("!IIQ", esp.spi, 1, 1) + _unreadable(hidden + bytes(TAG))


def _sleeve(sleeve: Sleeve, inner: bytes) -> bytes:
    framed = _mac(sleeve.src) + _mac(sleeve.dst) + struct.pack("!H", len(inner)) + inner
    if not sleeve.encrypted:
        return _mac(sleeve.sender) + framed
    return _mac(sleeve.sender) + struct.pack("!Q", 1) + _unreadable(bytes(TAG) + framed)


def _unreadable(hidden: bytes) -> bytes:
    """As many bytes, and noise to whoever has not the key. It is no real cipher: the same bytes each time."""
    return shake_256(hidden).digest(len(hidden))


def _icmp(icmp: ICMP, inner: bytes, outer: IPHeader | None) -> bytes:
    if icmp.about is not None:
        inner = encode(icmp.about)[: icmp.quoted] + inner
    kind, code = _icmp_type(icmp.message, ICMPV6 if isinstance(outer, IPv6) else ICMPV4)
    rest = struct.pack("!I", icmp.mtu) if icmp.is_error else struct.pack("!HH", icmp.ident, 1)
    body = struct.pack("!BBH", kind, code, 0) + rest + inner
    return _summed(body, 2, _pseudo(outer, len(body)) if isinstance(outer, IPv6) else b"")


def _icmp_type(message: str, known: Mapping[str, tuple[int, int]]) -> tuple[int, int]:
    if message not in known:
        raise _unknown("ICMP message", message, known)
    return known[message]


def _transport(body: bytes, at: int, outer: IPHeader | None) -> bytes:
    """TCP or UDP with its checksum, which covers the addresses too; left 0 in a fragment."""
    if outer is None or _is_fragment(outer):
        return body
    return _summed(body, at, _pseudo(outer, len(body)))


def _is_fragment(ip: IPHeader) -> bool:
    return bool(ip.offset or ip.more)


def _pseudo(ip: IPHeader, length: int) -> bytes:
    """What a transport checksum covers beyond its own bytes (RFC 9293 section 3.1, RFC 8200 section 8.1)."""
    layout = "!HH" if ip.version == 4 else "!II"
    numbers = (_protocol(ip), length) if ip.version == 4 else (length, _protocol(ip))
    return _ip(ip.src) + _ip(ip.dst) + struct.pack(layout, *numbers)


def _summed(body: bytes, at: int, pseudo: bytes = b"") -> bytes:
    """The bytes with their checksum written at place `at`, where there are zeros now."""
    return body[:at] + struct.pack("!H", internet_checksum(pseudo + body)) + body[at + 2 :]


def internet_checksum(octets: bytes) -> int:
    """RFC 1071: the complement of the one's complement sum of 16-bit words. Over bytes that hold it already it is 0.

    >>> hex(internet_checksum(bytes.fromhex("0001f203f4f5f6f7")))
    '0x220d'
    """
    words = struct.unpack(f"!{(len(octets) + 1) // 2}H", octets + bytes(len(octets) % 2))
    total: int = sum(words)
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _crc32c(octets: bytes) -> int:
    """SCTP's checksum (RFC 9260, appendix A): a CRC with Castagnoli's polynomial, bit by bit: chunks are short."""
    crc = 0xFFFFFFFF
    for octet in octets:
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def _protocol(ip: IPHeader) -> int:
    if ip.protocol not in PROTOCOLS:
        raise _unknown("protocol", ip.protocol, PROTOCOLS)
    return PROTOCOLS[ip.protocol]


def _mac(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def _ip(address: str) -> bytes:
    found: IPv4Address | IPv6Address = ip_address(address)
    return found.packed


def _unknown(what: str, name: str, known: Iterable[str]) -> BadOption:
    return BadOption(Problem(f"{name!r} is no {what} that has a number here; there are {', '.join(sorted(known))}"))


def pcap(frames: Iterable[tuple[int, bytes]]) -> bytes:
    """A capture file of Ethernet frames, each with its time in microseconds from the start of the capture."""
    magic, major, minor, longest, ethernet = 0xA1B2C3D4, 2, 4, 262144, 1
    found = [struct.pack("<IHHiIII", magic, major, minor, 0, 0, longest, ethernet)]
    for time, octets in frames:
        found.append(struct.pack("<IIII", *divmod(time, 1_000_000), len(octets), len(octets)) + octets)
    return b"".join(found)
