"""Frames carried from machine to machine by the routers of a mesh: one segment over all of them.

Three machines with a bridge and a container each, all on one switch:

    a 10.32.0.2 ─ m1      b 10.32.0.3 ─ m2      c 10.32.0.4 ─ m3
                  └────────── switch ───────────┘
"""

import random
from collections.abc import Callable, Mapping
from types import MappingProxyType

import msgspec
import pytest

from k8snetlab.address import Prefix
from k8snetlab.linux.host import Host, Network, Part, assembled
from k8snetlab.linux.link import Address, Link, LinkKind, Mesh, MeshPeer, Peer, Wrapping, loopback
from k8snetlab.linux.netfilter import DROP, InInterface, OutInterface, Patch, PhysdevBridged, Protocol4
from k8snetlab.linux.route import connected
from k8snetlab.linux.socket import Listener
from k8snetlab.linux.walk import World, exchange
from k8snetlab.packet import ARP, ESP, UDP, Ethernet, IPv4
from k8snetlab.trace import Action
from tests.linux.lab import (
    DROPPED,
    REJECTED,
    SILENT,
    UNREACHED,
    UNTOLD,
    Flow,
    check,
    each,
    filters,
    mac,
    rule,
    send,
    set_link,
    set_sysctls,
    told,
)

SEGMENT = Prefix.of("10.32.0.0/12")
A, B, C = "10.32.0.2", "10.32.0.3", "10.32.0.4"
PORT = 6784
KERNEL, PROGRAM = Wrapping.VXLAN, Wrapping.SLEEVE
ENTRANCE = {Wrapping.VXLAN: "tunnel", Wrapping.ESP: "tunnel", Wrapping.SLEEVE: "taken", Wrapping.NACL: "taken"}


def name(number: int) -> str:
    """The name of a machine in the mesh."""
    return mac(0x50, number)


def peer(number: int, via: int, wrapping: Wrapping) -> MeshPeer:
    """A machine, and the one that frames for it are sent to."""
    return MeshPeer(name(number), number, f"m{number}", ENTRANCE[wrapping], f"m{via}", f"172.18.0.1{via}")


def container(number: int) -> Host:
    """One end of a veth pair whose other end is a port of its machine's bridge; the whole segment is on its cable."""
    own = Address(f"10.32.0.{number + 1}", 12)
    eth0 = Link("eth0", 2, LinkKind.VETH, mac(0x10, number), 1376, peer=Peer(f"m{number}", "pod"), addresses=(own,))
    listening = (Listener("TCP", 80, program="web"), Listener("UDP", 53, program="dns"))
    part = Part((loopback(), eth0), (connected(SEGMENT, "eth0", own.ip),), listeners=listening)
    return assembled("abc"[number - 1], "container", part)


def machine(number: int, wrapping: Wrapping, ways: dict[int, int], *patches: Patch) -> Host:
    """A machine: its card, its bridge, and the way from the bridge into the mesh."""
    peers = tuple(peer(other, via, wrapping) for other, via in ways.items())
    mesh = Mesh(name(number), number, f"172.18.0.1{number}", PORT, wrapping, peers)
    own, bridge = Address(f"172.18.0.1{number}", 24), Address(f"10.33.0.{number}", 12)
    host = f"m{number}"

    def cable(index: int, device: str, other: str, master: str, entrance: Mesh | None = None) -> Link:
        where = mac(0x20 + index, number)
        return Link(device, index, LinkKind.VETH, where, 1376, master=master, peer=Peer(host, other), mesh=entrance)

    if ENTRANCE[wrapping] == "tunnel":
        way: tuple[Link, ...] = (
            Link("datapath", 5, LinkKind.DATAPATH, mac(0x25, number), 1376),
            cable(6, "outer", "inner", "datapath"),
            cable(7, "inner", "outer", "br"),
            Link("tunnel", 8, LinkKind.VXLAN, mac(0x28, number), 65470, master="datapath", mesh=mesh),
        )
    else:
        way = (cable(6, "taken", "inner", "", mesh), cable(7, "inner", "taken", "br"))
    links = (
        loopback(),
        Link("eth0", 2, LinkKind.NIC, mac(0, number), peer=Peer("switch", f"p{number}"), addresses=(own,)),
        Link("br", 3, LinkKind.BRIDGE, name(number), 1376, addresses=(bridge,)),
        Link("pod", 4, LinkKind.VETH, mac(0x60, number), 1376, master="br", peer=Peer("abc"[number - 1], "eth0")),
    )
    routes = (connected(own.prefix, "eth0", own.ip), connected(SEGMENT, "br", bridge.ip))
    return assembled(host, "machine", Part((*links, *way), routes, patches=patches))


DIRECT = {number: {other: other for other in (1, 2, 3) if other != number} for number in (1, 2, 3)}
BY_M2 = {1: {2: 2, 3: 2}, 2: {1: 1, 3: 3}, 3: {1: 2, 2: 2}}
ALONE = {1: {2: 2}, 2: {1: 1}, 3: dict[int, int]()}


def lab(
    wrapping: Wrapping = KERNEL,
    ways: Mapping[int, dict[int, int]] = DIRECT,
    rules: Mapping[str, tuple[Patch, ...]] = MappingProxyType({}),
) -> Network:
    """The whole network: how frames are wrapped, which way they take, and rules by machine."""
    ports = (
        Link(f"p{at}", 2 + at, LinkKind.NIC, mac(0xF0, at), 9000, master="br0", peer=Peer(f"m{at}", "eth0"))
        for at in (1, 2, 3)
    )
    bridge = Link("br0", 2, LinkKind.BRIDGE, mac(0xF0, 0), 9000)
    hosts = (
        *(container(number) for number in (1, 2, 3)),
        *(machine(number, wrapping, ways[number], *rules.get(f"m{number}", ())) for number in (1, 2, 3)),
        assembled("switch", "switch", Part((loopback(), bridge, *ports))),
    )
    return Network({host.name: host for host in hosts})


def dropping(chain: str, *matches: object) -> tuple[Patch, ...]:
    """Frames or packets that match are dropped."""
    return (filters(rule("filter", chain, *matches, to=DROP)),)  # type: ignore[arg-type]


def deaf(network: Network, host: str) -> Network:
    """One machine does not know its own number: frames for it are somebody else's."""
    link = network[host].link("tunnel")
    assert link.mesh is not None
    return set_link(network, host, "tunnel", mesh=msgspec.structs.replace(link.mesh, number=9, name=name(9)))


FLOWS = (
    *(Flow(f"{wrapping}", lab(wrapping), "a", C, taker="c", seen=A) for wrapping in Wrapping),
    *(Flow(f"{wrapping}, relayed", lab(wrapping, BY_M2), "a", C, taker="c", seen=A) for wrapping in Wrapping),
    Flow("UDP", lab(), "a", B, 53, "UDP", taker="b", seen=A),
    Flow("ping", lab(), "a", B, 0, "ICMP", taker="b", seen=A),
    Flow("a machine itself is on the segment", lab(), "m1", C, taker="c", seen="10.33.0.1"),
    Flow("a machine's bridge is on the segment", lab(), "a", "10.33.0.3", 0, "ICMP", taker="m3", seen=A),
    # The way through the mesh
    Flow("no way there: nobody answers", lab(ways=ALONE), "a", C, ending=UNREACHED, says="nobody on eth0 answers"),
    Flow("no way there, taken by a program", lab(PROGRAM, ALONE), "a", C, ending=UNREACHED),
    Flow("the relay knows no further way", lab(ways={**BY_M2, 2: {1: 1}}), "a", C, ending=SILENT,
         says="it is for 3, whom 02:00:00:00:50:02 does not reach"),
    Flow("the way back is missing", lab(ways={**DIRECT, 3: {2: 2}}), "a", C, taker="c", seen=A, ending=SILENT,
         says="the answer is lost"),
    Flow("a machine that has another number", deaf(lab(), "m3"), "a", C, ending=SILENT, says="it is for 3"),
    # Devices
    Flow("the tunnel is down", set_link(lab(), "m1", "tunnel", up=False), "a", C, ending=UNREACHED),
    Flow("the tunnel is down there", set_link(lab(), "m3", "tunnel", up=False), "a", C, ending=UNREACHED),
    Flow("the datapath is down", set_link(lab(), "m1", "datapath", up=False), "a", C, ending=UNREACHED),
    Flow("the cable to the datapath is down", set_link(lab(), "m1", "outer", up=False), "a", C, ending=UNREACHED),
    Flow("the device of the program is down", set_link(lab(PROGRAM), "m3", "taken", up=False), "a", C,
         ending=UNREACHED),
    Flow("the underlay is dark", set_link(lab(), "switch", "p3", up=False), "a", C, ending=UNTOLD,
         says="nobody on eth0 answers for 172.18.0.13"),
    # Wrappings that differ
    Flow("not encrypted, for one that expects it", lab().replacing(lab(Wrapping.ESP)["m3"]), "a", C, ending=DROPPED,
         says="and cannot read this"),
    Flow("encrypted, for one that has no key", lab(Wrapping.NACL).replacing(lab(PROGRAM)["m3"]), "a", C,
         ending=DROPPED, says="and cannot read this"),
    Flow("no router listens there", lab().replacing(set_link(lab(), "m3", "tunnel", mesh=None)["m3"]), "a", C,
         ending=REJECTED, says="nobody on m3 listens on 172.18.0.13:6784/UDP"),
    # Rules
    Flow("rules see the frame on the bridge", lab(rules={"m1": dropping("FORWARD", OutInterface("br"))}), "a", C,
         ending=DROPPED),
    Flow("and by which port it leaves", lab(rules={"m1": dropping("FORWARD", PhysdevBridged("out", "inner"))}), "a", C,
         ending=DROPPED),
    Flow("another port is not meant", lab(rules={"m1": dropping("FORWARD", PhysdevBridged("out", "pod"))}), "a", C,
         taker="c", seen=A, ending=SILENT),
    Flow("and by which port it came", lab(rules={"m3": dropping("FORWARD", PhysdevBridged("in", "inner"))}), "a", C,
         ending=DROPPED),
    Flow("what is routed leaves by no port",
         lab(rules={"m3": dropping("INPUT", PhysdevBridged("in", "inner"))}), "a", "10.33.0.3", 0, "ICMP",
         taker="m3", seen=A),
    Flow("no rule sees it in the datapath", lab(rules={"m1": dropping("FORWARD", InInterface("datapath"))}), "a", C,
         taker="c", seen=A),
    Flow("rules see the outer packet", lab(rules={"m3": dropping("INPUT", Protocol4("UDP"))}), "a", C, ending=DROPPED),
    Flow("encrypted, the outer packet is no UDP",
         lab(Wrapping.ESP, rules={"m3": dropping("INPUT", Protocol4("UDP"))}), "a", C, taker="c", seen=A),
    Flow("but ESP", lab(Wrapping.ESP, rules={"m3": dropping("INPUT", Protocol4("ESP"))}), "a", C, ending=DROPPED),
    Flow("a relay's FORWARD sees nothing: its router sends anew",
         lab(ways=BY_M2, rules={"m2": dropping("FORWARD", Protocol4("UDP"))}), "a", C, taker="c", seen=A),
    Flow("a bridge without netfilter",
         set_sysctls(lab(rules={"m1": dropping("FORWARD", OutInterface("br"))}), "m1",
                     **{"net.bridge.bridge-nf-call-iptables": 0}), "a", C, taker="c", seen=A),
    # What is too long
    Flow("VXLAN: nobody tells", set_link(lab(), "m1", "eth0", mtu=1400), "a", C, 53, "UDP", size=1348, ending=DROPPED,
         says="1426 bytes do not fit"),
    Flow("the program tells", set_link(lab(PROGRAM), "m1", "eth0", mtu=1400), "a", C, 53, "UDP", size=1348,
         ending=DROPPED, says="1376 bytes do not fit: 1338 are left"),
    Flow("the largest that fits", set_link(lab(PROGRAM), "m1", "eth0", mtu=1438), "a", C, 53, "UDP", size=1348,
         taker="c", seen=A),
)  # fmt: skip


@each(FLOWS)
def test_flow(flow: Flow) -> None:
    """Each row of the table above."""
    check(flow)


@pytest.mark.parametrize(
    ("wrapping", "added"),
    [(Wrapping.VXLAN, 50), (Wrapping.ESP, 84), (Wrapping.SLEEVE, 62), (Wrapping.NACL, 86)],
)
def test_each_wrapping_has_its_bytes(wrapping: Wrapping, added: int) -> None:
    """A SYN of 44 bytes, which ESP need not fill up."""
    found = send(lab(wrapping), "a", C)
    outer = next(step.packet for step in found.steps if step.action is Action.ENCAPSULATE)
    assert outer.length - 44 == added, told(found)


def test_an_arp_answer_comes_from_the_other_machine() -> None:
    """The container learns the MAC of the other container, not that of a router."""
    found = send(lab(ways=BY_M2), "a", C)
    asked = next(step for step in found.steps if step.action is Action.ARP)
    answer = asked.packet.headers[1]
    assert isinstance(answer, ARP) and answer.sender_mac == mac(0x10, 3)


def test_the_frame_is_the_same_on_both_sides() -> None:
    """MACs and TTL stay as they were, over two hops of the mesh."""
    found = send(lab(ways=BY_M2), "a", C)
    first, *_, last = (step.packet for step in found.steps if step.action is Action.TRANSMIT)
    assert first == last, told(found)
    assert found.arrival is not None and found.arrival.packet.ip.ttl == 64


def test_encrypted_packets_say_only_who_speaks_to_whom() -> None:
    """Protocol ESP between the machines; what is inside comes after it."""
    found = send(lab(Wrapping.ESP), "a", C)
    outer = next(step.packet for step in found.steps if (step.where, step.action) == ("switch", Action.RECEIVE))
    frame, ip, esp, udp, *_ = outer.headers
    assert isinstance(frame, Ethernet) and isinstance(ip, IPv4) and isinstance(esp, ESP) and isinstance(udp, UDP)
    assert (ip.src, ip.dst, ip.protocol, ip.df) == ("172.18.0.11", "172.18.0.13", "ESP", True)


@pytest.mark.parametrize("wrapping", [KERNEL, PROGRAM])
def test_an_entrance_that_is_gone_is_no_way(wrapping: Wrapping) -> None:
    """On the machine itself or on the other: nobody answers, and nothing breaks."""
    network = lab(wrapping)
    for name_of in ("m1", "m3"):
        gone = network.without(name_of, network[name_of].link(ENTRANCE[wrapping]))
        assert send(gone, "a", C).fate.value == "UNREACHABLE"


def test_only_machines_on_the_way_are_looked_at() -> None:
    """Who asks for an address wakes no machine that cannot have it."""
    whole = lab()
    woken: list[str] = []

    def waking(host: Host) -> Callable[[], Host]:
        def wake() -> Host:
            woken.append(host.name)
            return host

        return wake

    owners = {A: ("a", "m1"), B: ("b", "m2"), "172.18.0.11": ("m1",), "172.18.0.12": ("m2",)}
    lazy = Network({each: waking(whole[each]) for each in whole}, lambda address: ("switch", *owners[address]))
    found = exchange(World(lazy, random.Random(7)), "a", B, 80)
    assert found.arrival is not None
    assert sorted(woken) == ["a", "b", "m1", "m2", "switch"]
