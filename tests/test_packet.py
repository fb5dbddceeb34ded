"""Packets as stacks of headers."""

import pytest

from k8snetlab.packet import ARP, ICMP, SCTP, TCP, UDP, VXLAN, Ethernet, IPv4, IPv6, Packet

SEGMENT = Packet((IPv4("10.244.1.2", "10.244.2.3", "TCP"), TCP(40000, 80)))
FRAME = SEGMENT.pushed(Ethernet("0a:00:00:00:00:01", "0a:00:00:00:00:02"))
TUNNEL = (IPv4("172.18.0.2", "172.18.0.3", "UDP", df=False), UDP(50000, 8472), VXLAN(1))


def test_vxlan_costs_fifty_bytes_inside_ipv4() -> None:
    """An outer IPv4 header, UDP, VXLAN and the inner Ethernet header make 50 bytes."""
    assert FRAME.pushed(*TUNNEL).length - SEGMENT.length == 50


def test_vxlan_costs_seventy_bytes_inside_ipv6() -> None:
    """IPv6's header is 20 bytes longer than IPv4's."""
    outer = (IPv6("fd00:172::2", "fd00:172::3", "UDP"), UDP(50000, 8472), VXLAN(1))
    assert FRAME.pushed(*outer).length - SEGMENT.length == 70


def test_what_is_pushed_can_be_popped() -> None:
    """Decapsulation gives the very frame that was encapsulated."""
    assert FRAME.pushed(*TUNNEL).popped(3) == FRAME


def test_the_outermost_ip_header_counts_for_routing() -> None:
    """Inside a tunnel the network sees the machines' addresses only."""
    assert FRAME.pushed(*TUNNEL).ip.dst == "172.18.0.3"


def test_the_innermost_packet_is_what_the_application_sent() -> None:
    """Every tunnel header is taken off, and the Ethernet headers with them."""
    assert FRAME.pushed(*TUNNEL).innermost == SEGMENT


def test_a_neighbour_question_has_no_ip_header() -> None:
    """Asking an ARP frame for its IP header is a mistake of the caller."""
    question = ARP("request", "0a:00:00:00:00:01", "10.244.1.2", "00:00:00:00:00:00", "10.244.1.1")
    with pytest.raises(ValueError, match="no IP header"):
        _ = Packet((question,)).ip


def test_an_mss_option_makes_the_tcp_header_longer() -> None:
    """The option takes four bytes."""
    assert TCP(1, 2, "S", mss=1410).length == TCP(1, 2).length + 4


@pytest.mark.parametrize(("chunk", "length"), [("INIT", 32), ("INIT ACK", 32), ("ABORT", 16)])
def test_an_sctp_chunk_has_its_length(chunk: str, length: int) -> None:
    """An ABORT is shorter than the chunks of the handshake."""
    assert SCTP(1, 2, chunk).length == length


def test_an_ipv6_fragment_carries_a_fragment_header() -> None:
    """Its eight bytes are there only in fragments."""
    assert IPv6("::1", "::2", "UDP", more=True).length == IPv6("::1", "::2", "UDP").length + 8


@pytest.mark.parametrize(
    ("ip", "quoted"),
    [(IPv4("10.0.0.1", "10.0.0.2", "UDP"), 548), (IPv6("fd00::1", "fd00::2", "UDP"), 1232)],
    ids=["ipv4", "ipv6"],
)
def test_an_icmp_error_quotes_a_limited_part_of_the_packet(ip: IPv4 | IPv6, quoted: int) -> None:
    """RFC 1812 stops at 576 bytes in all, RFC 4443 at 1280."""
    about = Packet((ip, UDP(1, 2)), bytes(3000))
    assert Packet((ICMP("port-unreachable", about=about),)).length == 8 + quoted


def test_a_packet_as_json_names_every_layer() -> None:
    """The headers stand outermost first, each with its fields."""
    assert FRAME.as_dict() == {
        "headers": [
            {"layer": "ethernet", "src": "0a:00:00:00:00:01", "dst": "0a:00:00:00:00:02"},
            {
                "layer": "ipv4", "src": "10.244.1.2", "dst": "10.244.2.3", "protocol": "TCP", "ttl": 64, "df": True,
                "id": 0, "offset": 0, "more": False,
            },
            {"layer": "tcp", "sport": 40000, "dport": 80, "flags": "S", "mss": 0},
        ],
        "length": 54,
    }  # fmt: skip


def test_an_icmp_error_as_json_holds_the_packet_it_is_about() -> None:
    """The quoted packet is a packet too."""
    error = Packet((IPv4("10.0.0.9", "10.244.1.2", "ICMP"), ICMP("port-unreachable", about=SEGMENT)))
    assert error.as_dict()["headers"][1]["about"] == SEGMENT.as_dict()


@pytest.mark.parametrize(("offset", "later"), [(0, False), (1480, True)])
def test_the_first_piece_of_a_cut_packet_is_not_a_later_one(offset: int, later: bool) -> None:
    """Also where the piece is what a tunnel carries."""
    piece = Packet((IPv4("10.244.1.2", "10.244.2.3", "UDP", offset=offset, more=True),))
    assert [each.later_fragment for each in (piece, piece.pushed(*TUNNEL))] == [later, later]
