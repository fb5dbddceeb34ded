"""The bytes of packets, checked by decoders that others wrote."""

import shutil
import subprocess
from io import BytesIO
from pathlib import Path

import dpkt
import pytest

from k8snetlab.errors import BadOption
from k8snetlab.packet import (
    ARP,
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
    WireGuard,
)
from k8snetlab.wire import encode, frame, internet_checksum, pcap
from tests.handmade import network, traced
from tests.shops import across, bookshop

CABLE = Ethernet("0a:00:00:00:00:01", "0a:00:00:00:00:02")
V4, BACK_V4 = ("10.244.1.2", "10.244.2.3"), ("10.244.2.3", "10.244.1.2")
V6, BACK_V6 = ("fd00:10:244:1::2", "fd00:10:244:2::3"), ("fd00:10:244:2::3", "fd00:10:244:1::2")
REFUSED_4 = ICMP("port-unreachable", about=Packet((IPv4(*V4, "UDP"), UDP(40000, 5000))))
REFUSED_6 = ICMP("port-unreachable", about=Packet((IPv6(*V6, "UDP"), UDP(40000, 5000))))
TUNNEL = (CABLE, IPv4("172.18.0.2", "172.18.0.3", "UDP", df=False), UDP(50000, 8472), VXLAN(1))
SEALED = (CABLE, IPv4("172.18.0.2", "172.18.0.3", "UDP", df=False), UDP(51820, 51820), WireGuard(0x01020304, 12))

PACKETS: dict[str, Packet] = {
    "TCP over IPv4": Packet((CABLE, IPv4(*V4, "TCP"), TCP(40000, 80, mss=1410))),
    "TCP over IPv6": Packet((CABLE, IPv6(*V6, "TCP"), TCP(40000, 80, "S.")), b"odd"),
    "UDP over IPv4": Packet((CABLE, IPv4(*V4, "UDP"), UDP(40000, 5000)), b"question"),
    "UDP over IPv6": Packet((CABLE, IPv6(*V6, "UDP"), UDP(40000, 5000)), b"question"),
    "SCTP": Packet((CABLE, IPv4(*V4, "SCTP"), SCTP(40000, 3868))),
    "SCTP ABORT": Packet((CABLE, IPv6(*V6, "SCTP"), SCTP(3868, 40000, "ABORT"))),
    "echo request": Packet((CABLE, IPv4(*V4, "ICMP"), ICMP("echo-request", ident=7)), bytes(56)),
    "echo request over IPv6": Packet((CABLE, IPv6(*V6, "ICMPv6"), ICMP("echo-request", ident=7)), bytes(56)),
    "ICMP error": Packet((CABLE, IPv4(*BACK_V4, "ICMP"), REFUSED_4)),
    "ICMPv6 error": Packet((CABLE, IPv6(*BACK_V6, "ICMPv6"), REFUSED_6)),
    "VXLAN": Packet((*TUNNEL, CABLE, IPv4(*V4, "TCP"), TCP(40000, 80))),
    "VXLAN with IPv6 inside": Packet((*TUNNEL, CABLE, IPv6(*V6, "TCP"), TCP(40000, 80))),
    "WireGuard": Packet((*SEALED, IPv4(*V4, "UDP"), UDP(40000, 5000)), b"secret question"),
    "ARP": Packet((CABLE, ARP("reply", CABLE.src, V4[0], CABLE.dst, V4[1]))),
    "neighbour solicitation": Packet((CABLE, ARP("request", CABLE.src, V6[0], "00:00:00:00:00:00", V6[1]))),
    "neighbour advertisement": Packet((CABLE, ARP("reply", CABLE.src, V6[0], CABLE.dst, V6[1]))),
    "first fragment": Packet((CABLE, IPv4(*V4, "UDP", df=False, id=9, more=True), UDP(40000, 5000)), bytes(1472)),
    "last fragment": Packet((CABLE, IPv4(*V4, "UDP", df=False, id=9, offset=1480)), bytes(100)),
    "IPv6 fragment": Packet((CABLE, IPv6(*V6, "UDP", id=9, offset=1448)), bytes(100)),
}
every_packet = pytest.mark.parametrize("packet", PACKETS.values(), ids=PACKETS)


def decoded(packet: Packet) -> dpkt.ethernet.Ethernet:
    """The frame as dpkt reads it."""
    return dpkt.ethernet.Ethernet(encode(packet))


@every_packet
def test_a_packet_is_as_long_as_it_says(packet: Packet) -> None:
    """`Packet.length`, by which MTUs are judged, is the number of its bytes."""
    assert len(encode(packet)) == packet.length


@pytest.mark.parametrize("name", ["TCP over IPv4", "UDP over IPv4"])
def test_another_decoder_reads_the_same_fields(name: str) -> None:
    """The decoder finds addresses, ports, flags and lengths where they belong."""
    ip = decoded(PACKETS[name]).data
    ours = PACKETS[name].ip
    assert (dpkt.utils.inet_to_str(ip.src), dpkt.utils.inet_to_str(ip.dst), ip.ttl) == (ours.src, ours.dst, ours.ttl)
    assert (ip.data.sport, ip.data.dport) == (40000, 80 if "TCP" in name else 5000)
    assert ip.len == PACKETS[name].length - CABLE.length
    assert ip.df


@pytest.mark.parametrize(
    "name", ["TCP over IPv4", "UDP over IPv4", "echo request", "ICMP error", "TCP over IPv6", "UDP over IPv6", "SCTP"]
)
def test_another_encoder_computes_the_same_checksums(name: str) -> None:
    """The decoder, told to forget the checksums it read, writes the same bytes again."""
    octets = encode(PACKETS[name])
    found = dpkt.ethernet.Ethernet(octets)
    if isinstance(PACKETS[name].ip, IPv4):
        found.data.sum = 0
    found.data.data.sum = 0
    assert bytes(found) == octets


@every_packet
def test_the_receiver_finds_every_internet_checksum_right(packet: Packet) -> None:
    """Summing a header that holds its checksum gives 0: in IPv4's header, whatever is inside."""
    if any(isinstance(header, IPv4) for header in packet.headers):
        assert internet_checksum(encode(packet)[14:34]) == 0


def test_icmpv6_is_summed_with_its_addresses() -> None:
    """RFC 4443: the pseudo header is part of the sum, so a changed address is noticed."""
    octets = encode(PACKETS["ICMPv6 error"])
    body = octets[54:]
    pseudo = octets[22:54] + len(body).to_bytes(4, "big") + (58).to_bytes(4, "big")
    assert internet_checksum(pseudo + body) == 0


def test_a_frame_inside_vxlan_is_the_frame_itself() -> None:
    """The bytes after the VXLAN header are those of the frame before it was wrapped."""
    whole = PACKETS["VXLAN"]
    assert encode(whole)[14 + 20 + 8 + 8 :] == encode(whole.popped(4))


def test_geneve_says_that_a_frame_is_inside() -> None:
    """No options, no flags, the number of Ethernet bridging, and the identifier in three bytes (RFC 8926, 3.4)."""
    headers = PACKETS["VXLAN"].headers
    whole = Packet((*headers[:3], Geneve(0xABCDEF), *headers[4:]))
    assert encode(whole)[14 + 20 + 8 :][:8] == bytes([0, 0, 0x65, 0x58, 0xAB, 0xCD, 0xEF, 0])


def test_nobody_reads_what_is_inside_wireguard() -> None:
    """Type and session stand in front; neither addresses nor payload of the inner packet are on the wire."""
    octets = encode(PACKETS["WireGuard"])
    message = octets[14 + 20 + 8 :]
    assert message[:8] == bytes([4, 0, 0, 0, 4, 3, 2, 1])
    assert b"secret" not in octets
    assert bytes([10, 244, 1, 2]) not in octets
    assert len(message) == 16 + 28 + len(b"secret question") + 12 + 16


def test_a_packet_on_the_loopback_device_gets_a_frame_of_zeros() -> None:
    """`lo` passes packets without MAC addresses, and captures show zeros."""
    packet = Packet((IPv4("127.0.0.1", "127.0.0.1", "TCP"), TCP(40000, 80)))
    assert frame(packet) == bytes(12) + b"\x08\x00" + encode(packet)


def test_a_neighbour_solicitation_goes_to_the_group_of_the_address() -> None:
    """RFC 4291: the last 24 bits of the address make the multicast group, so few machines are disturbed."""
    ip = decoded(PACKETS["neighbour solicitation"]).data
    assert dpkt.utils.inet_to_str(ip.dst) == "ff02::1:ff00:3"


@pytest.mark.parametrize(
    "headers",
    [
        (IPv4(*V4, "ICMP"), ICMP("source-quench")),
        (IPv4(*V4, "GRE"),),
        (IPv4(*V4, "SCTP"), SCTP(1, 2, "HEARTBEAT")),
    ],
    ids=["message", "protocol", "chunk"],
)
def test_what_has_no_number_cannot_be_encoded(headers: tuple[Header, ...]) -> None:
    """The error names what was asked for and what there is."""
    with pytest.raises(BadOption, match="there are"):
        encode(Packet(headers))


def test_a_capture_keeps_its_times() -> None:
    """Times are microseconds from the start; dpkt reads them as seconds."""
    octets = frame(PACKETS["ARP"])
    path_times = [time for time, _ in _read(pcap([(0, octets), (1_002_000, octets)]))]
    assert path_times == [0.0, 1.002]


def _read(capture: bytes) -> list[tuple[float, bytes]]:
    return [(float(time), octets) for time, octets in dpkt.pcap.Reader(BytesIO(capture))]


def tcpdump(capture: bytes, folder: Path) -> str:
    """What tcpdump prints for a capture, with checksums judged (`-v`), one packet a line."""
    program = shutil.which("tcpdump") or "/usr/bin/tcpdump"
    if not Path(program).exists():
        pytest.skip("tcpdump is not installed (Debian package tcpdump)")
    path = folder / "trace.pcap"
    path.write_bytes(capture)
    done = subprocess.run([program, "-nevvr", path], capture_output=True, text=True, check=True)
    return done.stdout.replace("\n    ", " ").replace("\n\t", " ")


@every_packet
def test_tcpdump_finds_nothing_wrong(packet: Packet, tmp_path: Path) -> None:
    """No packet is truncated, no checksum bad, no header invalid, nothing left undecoded."""
    printed = tcpdump(pcap([(0, frame(packet))]), tmp_path)
    for complaint in ("bad", "incorrect", "wrong", "truncated", "[|", "invalid", "unknown", "unsupported"):
        assert complaint not in printed, printed


def test_tcpdump_decodes_what_is_inside_vxlan(tmp_path: Path) -> None:
    """Port 8472 is decoded as OTV, which has VXLAN's header; the inner segment is printed with its ports."""
    printed = tcpdump(pcap([(0, frame(PACKETS["VXLAN"]))]), tmp_path)
    assert "172.18.0.2.50000 > 172.18.0.3.8472" in printed
    assert "OTV" in printed
    assert "10.244.1.2.40000 > 10.244.2.3.80: Flags [S]" in printed


@pytest.mark.parametrize(
    ("ip", "message", "printed"),
    [
        (IPv4(*V4, "ICMP"), "fragmentation-needed", "need to frag (mtu 1450)"),
        (IPv4(*V4, "ICMP"), "admin-prohibited", "unreachable - admin prohibited"),
        (IPv4(*V4, "ICMP"), "time-exceeded", "time exceeded in-transit"),
        (IPv6(*V6, "ICMPv6"), "fragmentation-needed", "packet too big, mtu 1450"),
        (IPv6(*V6, "ICMPv6"), "no-route", "unreachable, unreachable route"),
    ],
)
def test_tcpdump_names_an_icmp_error_as_we_do(ip: IPHeader, message: str, printed: str, tmp_path: Path) -> None:
    """Types and codes are those of the RFCs."""
    about = REFUSED_4.about if isinstance(ip, IPv4) else REFUSED_6.about
    error = Packet((CABLE, ip, ICMP(message, 1450 if message == "fragmentation-needed" else 0, 0, about)))
    assert printed in tcpdump(pcap([(0, frame(error))]), tmp_path)


def test_tcpdump_reads_the_capture_of_a_trace(tmp_path: Path) -> None:
    """There and back, plain and inside the tunnel, with nothing to complain about."""
    printed = tcpdump(traced(network()).pcap(), tmp_path)
    assert printed.count("OTV") == 2
    assert printed.count("10.244.1.2.40000 > 10.244.2.4.8080: Flags [S]") == 2
    assert printed.count("10.96.3.4.80 > 10.244.1.2.40000: Flags [S.]") == 1
    assert "incorrect" not in printed


def test_tcpdump_decodes_what_is_inside_geneve(tmp_path: Path) -> None:
    """By its port, 6081."""
    headers = PACKETS["VXLAN"].headers
    whole = Packet((*headers[:2], UDP(50000, 6081), Geneve(12001), *headers[4:]))
    printed = tcpdump(pcap([(0, frame(whole))]), tmp_path)
    assert "Geneve, Flags [none], vni 0x2ee1" in printed
    assert "10.244.1.2.40000 > 10.244.2.3.80: Flags [S]" in printed


@pytest.mark.parametrize("name", ["flannel-wireguard", "cilium-wireguard", "cilium-native-wireguard"])
def test_a_wireguard_device_sees_what_is_inside(name: str) -> None:
    """A capture there shows packets before they are encrypted, and after they were decrypted."""
    trace = across(bookshop(name))
    points = [point for point in trace.captures if point.device in ("cilium_wg0", "flannel-wg")]
    assert [point.frames for point in points] == [2, 2]
    assert all(len(trace.pcap(point.where, point.device)) > 24 for point in points)


def test_tcpdump_sees_udp_and_nothing_else_of_wireguard(tmp_path: Path) -> None:
    """From port to port, and how long it is."""
    printed = tcpdump(pcap([(0, frame(PACKETS["WireGuard"]))]), tmp_path)
    assert "172.18.0.2.51820 > 172.18.0.3.51820: [udp sum ok] UDP, length 87" in printed
    assert "10.244" not in printed
