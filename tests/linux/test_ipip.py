"""IP in IP: a packet inside a packet, from machine to machine."""

from __future__ import annotations

import random
import struct

import msgspec
import pytest

from k8snetlab.linux.conntrack import Connection, Conntrack, Tuple
from k8snetlab.linux.host import Network, sysctls
from k8snetlab.linux.link import Address, Link, LinkKind
from k8snetlab.linux.netfilter import DROP, ICMPv6Type, Mark, Patch, Protocol4
from k8snetlab.linux.route import Route
from k8snetlab.linux.skb import Skb
from k8snetlab.linux.text import conntrack_list
from k8snetlab.linux.walk import Exchange, World, exchange
from k8snetlab.packet import ICMP, TCP, IPv4, IPv6, Packet
from k8snetlab.trace import Action, Client, Verdict
from k8snetlab.trace.table import brief
from k8snetlab.wire import encode
from tests.linux.lab import M1, M2, A, C, add, filters, lab, rule, set_link, without_route

THERE = {"m1": ("10.244.2.0/24", M2), "m2": ("10.244.1.0/24", M1)}


def tunnelled(**rules: tuple[Patch, ...]) -> Network:
    """Two machines with tunl0, and each other's containers behind it."""
    network = lab(rules=rules, mtu=1480)
    for name, (prefix, remote) in THERE.items():
        end = Link("tunl0", 9, LinkKind.IPIP, mtu=1480, addresses=(Address(f"10.244.{name[1]}.250", 32),))
        network = add(without_route(network, name, prefix), name, links=(end,))
        network = add(network, name, routes=(Route(prefix, "tunl0", remote, onlink=True),))
        stated = {**sysctls("tunl0"), **network[name].sysctls}
        network = network.replacing(msgspec.structs.replace(network[name], sysctls=stated))
    return network


def ask(network: Network, source: str = "a", address: str = C, **more: object) -> Exchange:
    """The first packet of a connection, or what `more` says."""
    return exchange(World(network, random.Random(1)), source, address, 80, **more)  # type: ignore[arg-type]


def test_a_packet_crosses_in_another_one() -> None:
    """Wrapped on one machine, unwrapped on the other; the container's address stays."""
    found = ask(tunnelled())
    assert found.client is Client.OPEN and found.arrival is not None and found.arrival.packet.ip.src == A
    done = [
        (step.where, step.action) for step in found.steps if step.action in (Action.ENCAPSULATE, Action.DECAPSULATE)
    ]
    assert done == [("m1", Action.ENCAPSULATE), ("m2", Action.DECAPSULATE)]


def test_the_machine_itself_speaks_by_the_address_of_its_tunnel() -> None:
    """It is the source that the device gives."""
    assert ask(tunnelled(), "m1").source == "10.244.1.250"


def test_where_no_device_takes_it_the_kernel_says_port_unreachable() -> None:
    """To the other machine, which does not tell the container."""
    network = tunnelled()
    found = ask(network.without("m2", network["m2"].link("tunl0")))
    assert (found.fate, found.client) == (Verdict.REJECTED, Client.TIMEOUT)
    assert "no device of m2 takes IP in IP" in found.reason


def test_a_device_that_is_down_takes_nothing() -> None:
    """Here there is no route then, there nobody takes the packet."""
    assert ask(set_link(tunnelled(), "m2", "tunl0", up=False)).client is Client.TIMEOUT


def test_a_way_to_the_other_machine_through_the_tunnel_is_a_circle() -> None:
    """The device drops such packets."""
    network = add(tunnelled(), "m1", routes=(Route(f"{M2}/32", "tunl0", "10.244.2.250", onlink=True),))
    assert "finds no way to 172.18.0.12 beyond itself" in ask(network).reason


def test_twenty_bytes_more_and_no_further() -> None:
    """1480 fit, 1481 do not: who may not be cut is told the MTU."""
    fits = ask(tunnelled(), protocol="UDP", payload=bytes(1452), df=True)
    sent = [step.packet.length for step in fits.steps if (step.where, step.device) == ("m1", "eth0")]
    assert fits.fate is not Verdict.DROPPED and max(sent) == 1514
    wide = set_link(
        set_link(set_link(tunnelled(), "a", "eth0", mtu=1500), "m1", "veth-a", mtu=1500), "m1", "cni0", mtu=1500
    )
    found = ask(wide, protocol="UDP", payload=bytes(1453), df=True)
    assert "1481 bytes do not fit the MTU of tunl0, 1480" in found.reason


def test_rules_see_the_outer_packet_by_its_number_and_the_mark_of_the_inner() -> None:
    """`-p 4`, which has no ports."""
    outer = filters(rule("filter", "OUTPUT", Protocol4("IPIP"), to=DROP))
    assert str(next(iter(outer.last))) == "-A OUTPUT -p 4 -j DROP"
    assert ask(tunnelled(m1=(outer,))).fate is Verdict.DROPPED
    unmarked = filters(rule("filter", "OUTPUT", Protocol4("IPIP"), Mark(1, 1), to=DROP))
    assert ask(tunnelled(m1=(unmarked,))).client is Client.OPEN


def test_on_the_wire_it_is_protocol_four() -> None:
    """Two IPv4 headers, then TCP."""
    packet = Packet((IPv4(M1, M2, "IPIP"), IPv4(A, C, "TCP"), TCP(40000, 80)))
    octets = encode(packet)
    assert len(octets) == packet.length == 60
    assert struct.unpack("!B", octets[9:10]) == (4,) and octets[20] == 0x45
    assert brief(packet) == (f"IP in IP: {M1} > {M2}", f"TCP {A}:40000 > {C}:80 [S]")


def test_conntrack_does_not_know_its_name() -> None:
    """A connection without ports, kept for ten minutes."""
    table = Conntrack()
    table.confirm(Connection(Tuple("IPIP", M1, 0, M2, 0)))
    assert conntrack_list(table) == f"unknown  4 600 src={M1} dst={M2} [UNREPLIED] src={M2} dst={M1} mark=0 use=1\n"


@pytest.mark.parametrize(("message", "number"), [("echo-request", 128), ("port-unreachable", 1), ("time-exceeded", 3)])
def test_messages_of_icmpv6_are_known_by_their_types(message: str, number: int) -> None:
    """As `-m icmp6` asks for them."""
    skb = Skb(Packet((IPv6("fd00::1", "fd00::2", "ICMPv6"), ICMP(message))))
    at = World(lab(), random.Random(1)).at("m1")
    assert ICMPv6Type(number).test(skb, at) and not ICMPv6Type(135).test(skb, at)
