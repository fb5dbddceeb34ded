"""Virtual servers: who takes a connection, where IPVS meets it, and how the answer comes back."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping

import msgspec
import pytest

from k8snetlab.errors import LabError, UnknownName
from k8snetlab.linux.conntrack import Tuple
from k8snetlab.linux.host import Network
from k8snetlab.linux.ipvs import Destination, Director, RealServer, Scheduler, VirtualServer
from k8snetlab.linux.link import Address, Link, LinkKind
from k8snetlab.linux.netfilter import (
    DROP,
    CtState,
    Mark,
    OutInterface,
    Patch,
    Rule,
    Scheduled,
    SetMark,
)
from k8snetlab.linux.route import Route
from k8snetlab.linux.text import ip_addr, ip_link_details, ipvsadm, ipvsadm_connections, ipvsadm_save
from k8snetlab.linux.walk import World, every, exchange
from k8snetlab.trace import Action, Client
from tests.linux.lab import (
    A6,
    B6,
    C6,
    DROPPED,
    M1,
    M1_6,
    M2,
    OUTSIDE,
    OUTSIDE6,
    REFUSED,
    SILENT,
    UNREACHED,
    VIP,
    VIP6,
    A,
    B,
    C,
    Flow,
    add,
    check,
    each,
    lab,
    masquerade,
    ruled,
    send,
    set_sysctls,
    source,
    to,
    told,
    without_route,
)


def virtual(*servers: RealServer, address: str = VIP, port: int = 80, protocol: str = "TCP") -> VirtualServer:
    """The virtual address, with these behind it."""
    return VirtualServer(protocol, address, port, servers=servers)


def to_pod(address: str, port: int = 80) -> VirtualServer:
    """The virtual address with one server, a container."""
    return virtual(RealServer(address, port), address=VIP6 if ":" in address else VIP)


HELD = (Address(VIP, 32), Address(VIP6, 128))
"""The virtual addresses, as the dummy holds them."""


DUMMY = Link("dummy0", 99, LinkKind.DUMMY, "02:00:00:00:99:01", up=False, addresses=HELD)


def balanced(
    *held: VirtualServer,
    patches: tuple[Patch, ...] = (),
    addresses: tuple[Address, ...] = HELD,
    up: bool = False,
    tracked: int = 1,
) -> Network:
    """Machine m1 with virtual servers, whose addresses are on a dummy; the router leads them to m1."""
    dummy = msgspec.structs.replace(DUMMY, up=up, addresses=addresses)
    network = add(ruled(*patches), "m1", links=(dummy,), ipvs=held)
    network = set_sysctls(network, "m1", **{"net.ipv4.vs.conntrack": tracked})
    ways = (Route(f"{VIP}/32", "eth0", M1), Route(f"{VIP6}/128", "eth0", M1_6, family=6))
    return add(network, "router", routes=ways)


ALONE = to_pod(C)
OUT = masquerade(OutInterface("eth0"))
HAIRPIN = masquerade(source(f"{A}/32"), OutInterface("cni0"))
MARKED = (
    Patch("mangle", last=(Rule("mangle", "PREROUTING", to(VIP, 80), SetMark(7)),)),
)  # fmt: skip
BY_MARK = VirtualServer("", "", 0, servers=(RealServer(C, 80),), mark=7)


def filtered(hook: str, *matches: object) -> Patch:
    """A rule of table filter that drops."""
    return Patch("filter", last=(Rule("filter", hook, matches, DROP),))  # type: ignore[arg-type]


FLOWS = (
    # There and back
    Flow("a server on another machine", balanced(ALONE), "a", VIP, taker="c", seen=A, says="IPVS sends it"),
    Flow("a server on this machine's bridge", balanced(to_pod(B)), "a", VIP, taker="b", seen=A),
    Flow("from outside", balanced(to_pod(A)), "outside", VIP, taker="a", seen=OUTSIDE),
    Flow("another port of the server", balanced(virtual(RealServer(M2, 10250))), "a", VIP, taker="m2", seen=A),
    Flow("a server on the machine itself", balanced(virtual(RealServer(M1, 10250))), "a", VIP, taker="m1", seen=A),
    Flow("UDP", balanced(virtual(RealServer(C, 53), port=53, protocol="UDP")), "a", VIP, 53, "UDP", taker="c", seen=A),
    Flow("SCTP", balanced(virtual(RealServer(C, 7), port=7, protocol="SCTP")), "a", VIP, 7, "SCTP", taker="c", seen=A),
    Flow("IPv6", balanced(to_pod(C6)), "a", VIP6, taker="c", seen=A6),
    Flow("IPv6 on this machine's bridge", balanced(to_pod(B6)), "a", VIP6, taker="b", seen=A6),
    Flow("IPv6 from outside", balanced(to_pod(A6)), "outside", VIP6, taker="a", seen=OUTSIDE6),
    Flow("without any rule", balanced(to_pod(B)), "outside", VIP, taker="b", seen=OUTSIDE),
    # What the machine itself sends
    Flow("from the machine: its source is the virtual address", balanced(to_pod(A)), "m1", VIP, taker="a", seen=VIP),
    Flow("from the machine, masqueraded", balanced(ALONE, patches=(OUT,)), "m1", VIP, taker="c", seen=M1),
    Flow("from the machine to itself", balanced(virtual(RealServer(M1, 10250))), "m1", VIP, taker="m1", seen=VIP),
    Flow("from the machine, unmasked, to another", balanced(ALONE), "m1", VIP, taker="c", seen=VIP),
    Flow("from the machine, unmasked, to another that has the address too: it does not answer",
         add(balanced(ALONE), "m2", links=(DUMMY,)), "m1", VIP, ending=UNREACHED, says="nobody on eth0 answers"),
    # Masquerade: conntrack knows where it went
    Flow("masqueraded", balanced(ALONE, patches=(OUT,)), "a", VIP, taker="c", seen=M1),
    Flow("masqueraded from outside", balanced(ALONE, patches=(OUT,)), "outside", VIP, taker="c", seen=M1),
    Flow("a server that reaches itself is martian", balanced(to_pod(A)), "a", VIP, ending=DROPPED, says="martian"),
    Flow("a server that reaches itself, masqueraded", balanced(to_pod(A), patches=(HAIRPIN,)), "a", VIP, taker="a",
         seen="10.244.1.1"),
    Flow("untracked, it is not masqueraded", balanced(ALONE, patches=(OUT,), tracked=0), "a", VIP, taker="c", seen=A),
    # What is not for it
    Flow("another port", balanced(ALONE), "a", VIP, 81, ending=REFUSED, says="nobody on m1 listens"),
    Flow("another protocol", balanced(ALONE), "a", VIP, 80, "UDP", ending=REFUSED),
    Flow("a ping is answered by the machine", balanced(ALONE), "a", VIP, 0, "ICMP", taker="m1", seen=A),
    Flow("an address that is not local is only routed", balanced(ALONE, addresses=()), "a", VIP, ending=UNREACHED),
    Flow("a dummy need not be up", balanced(ALONE, up=True), "a", VIP, taker="c", seen=A),
    # Nobody behind it
    Flow("no server", balanced(virtual()), "a", VIP, ending=REFUSED, says="has no real server"),
    Flow("no server, from the machine", balanced(virtual()), "m1", VIP, ending=REFUSED),
    Flow("no server, from outside", balanced(virtual()), "outside", VIP, ending=REFUSED),
    Flow("no server, UDP", balanced(virtual(port=53, protocol="UDP")), "a", VIP, 53, "UDP", ending=REFUSED),
    Flow("no server, IPv6", balanced(virtual(address=VIP6)), "a", VIP6, ending=REFUSED),
    Flow("a server of weight 0", balanced(virtual(RealServer(C, 80, 0))), "a", VIP, ending=REFUSED),
    Flow("a server that does not listen", balanced(to_pod(C, 81)), "a", VIP, ending=REFUSED),
    Flow("a server that does not listen, UDP: its error comes back as the virtual server's",
         balanced(virtual(RealServer(C, 54), port=53, protocol="UDP")), "a", VIP, 53, "UDP", ending=REFUSED),
    Flow("the same, masqueraded", balanced(virtual(RealServer(C, 54), port=53, protocol="UDP"), patches=(OUT,)),
         "a", VIP, 53, "UDP", ending=REFUSED),
    Flow("no way to the server", without_route(without_route(balanced(ALONE), "m1", "10.244.2.0/24"), "m1", "default"),
         "a", VIP, ending=UNREACHED, says="IPVS has no way"),
    # Rules around it
    Flow("INPUT is asked before", balanced(ALONE, patches=(filtered("INPUT", *to(VIP, 80)),)), "a", VIP,
         ending=DROPPED),
    Flow("OUTPUT is asked after, about the server", balanced(ALONE, patches=(filtered("OUTPUT", *to(C, 80)),)), "a",
         VIP, ending=DROPPED),
    Flow("FORWARD sees the answer only", balanced(ALONE, patches=(filtered("FORWARD", *to(C, 80)),)), "a", VIP,
         taker="c", seen=A),
    Flow("FORWARD sees the answer before its source is changed",
         balanced(ALONE, patches=(filtered("FORWARD", source(f"{C}/32")),)), "a", VIP, ending=SILENT, taker="c",
         seen=A),
    Flow("conntrack counts it neither as DNAT",
         balanced(ALONE, patches=(OUT, filtered("OUTPUT", CtState(("DNAT",))))), "a", VIP, taker="c", seen=M1),
    Flow("a rule can ask where IPVS sends from",
         balanced(ALONE, patches=(filtered("OUTPUT", source(f"{VIP}/32"), Scheduled("TCP", VIP, 80)),)), "m1", VIP,
         ending=DROPPED),
    Flow("another virtual server is not asked for",
         balanced(ALONE, patches=(filtered("OUTPUT", source(f"{VIP}/32"), Scheduled("TCP", VIP, 81)),)), "m1", VIP,
         taker="c", seen=VIP),
    # By mark
    Flow("a mark", balanced(BY_MARK, patches=MARKED), "a", VIP, taker="c", seen=A),
    Flow("no mark", balanced(BY_MARK), "a", VIP, ending=REFUSED),
    Flow("a mark goes before the address", balanced(to_pod(B), BY_MARK, patches=MARKED), "a", VIP, taker="c", seen=A),
    # Sizes
    Flow("too long for the way to the server",
         add(balanced(ALONE), "m1", routes=(Route("10.244.2.0/25", "eth0", M2, mtu=1400),)), "a", VIP,
         ending=DROPPED, size=1400, says="do not fit the MTU"),
)  # fmt: skip


@each(FLOWS)
def test_flow(flow: Flow) -> None:
    """The packet and its answer go where the table says."""
    check(flow)


def test_the_way_of_a_packet_is_the_kernels() -> None:
    """INPUT before IPVS, then the whole of OUTPUT and POSTROUTING, with a time to live one less."""
    accepts = tuple(
        Patch(table, last=(Rule(table, hook, (Mark(0),), SetMark(0)),))
        for table, hook in (("filter", "INPUT"), ("mangle", "OUTPUT"), ("filter", "OUTPUT"), ("mangle", "POSTROUTING"))
    )
    found = send(balanced(ALONE, patches=accepts), "a", VIP)
    steps = [step for step in found.steps if step.where == "m1" and (step.rule or step.action is Action.ROUTE)]
    met = [(step.rule.table, step.rule.chain) if step.rule else "route" for step in steps]
    assert met == [
        ("filter", "INPUT"), ("ipvs", f"TCP {VIP}:80 rr"), "route", ("mangle", "OUTPUT"), ("filter", "OUTPUT"),
        ("mangle", "POSTROUTING"),
    ], told(found)  # fmt: skip
    assert found.arrival is not None and found.arrival.packet.ip.ttl == 62  # m1 and m2


def test_the_answer_comes_from_the_virtual_server() -> None:
    """Address and port that the client asked."""
    found = send(balanced(virtual(RealServer(M2, 10250)), patches=(OUT,)), "a", VIP)
    assert found.answer is not None and found.answer.ip.src == VIP
    assert [step.rule.text for step in found.reply if step.action is Action.SNAT and step.rule] == [
        f"-a -t {VIP}:80 -r {M2}:10250 -m -w 1"
    ]


def test_later_packets_follow_the_first() -> None:
    """The scheduler is asked once for a connection; a second one has its turn."""
    network = balanced(virtual(RealServer(A, 80), RealServer(B, 80), RealServer(C, 80)))
    world = World(network, random.Random(7))
    first = exchange(world, "outside", VIP, 80)
    again = exchange(world, "outside", VIP, 80, sport=first.sport, flags=".")
    other = exchange(world, "outside", VIP, 80)
    assert first.arrival and again.arrival and other.arrival
    assert again.arrival.host == first.arrival.host != other.arrival.host


@pytest.mark.parametrize(("idle", "goes_on"), [(899.0, True), (900.0, False)])
def test_a_connection_that_is_idle_for_long_is_forgotten(idle: float, *, goes_on: bool) -> None:
    """A quarter of an hour after its last packet, the next one meets a machine that knows no such connection."""
    world = World(balanced(ALONE), random.Random(7))
    first = exchange(world, "a", VIP, 80)
    world.advance(idle)
    later = exchange(world, "a", VIP, 80, sport=first.sport, flags="P.")
    assert (later.arrival is not None and later.arrival.host == "c") is goes_on
    assert goes_on or later.client is Client.REFUSED


def test_without_conntracks_help_ipvs_still_knows_the_answer() -> None:
    """IPVS has a table of its own."""
    check(Flow("", balanced(ALONE, tracked=0), "a", VIP, taker="c", seen=A))


def test_a_machine_with_virtual_servers_states_their_setting() -> None:
    """`net.ipv4.vs.conntrack` exists where IPVS does."""
    dummy = Link("dummy0", 99, LinkKind.DUMMY, up=False, addresses=(Address(VIP, 32),))
    with pytest.raises(LabError, match="does not state this sysctl"):
        send(add(lab(), "m1", links=(dummy,), ipvs=(ALONE,)), "a", VIP)


# Schedulers

ONE, TWO, THREE = RealServer("10.0.0.1", 80), RealServer("10.0.0.2", 80), RealServer("10.0.0.3", 80)


def weighted(scheduler: Scheduler, *weights: int, persistent: int = 0, netmask: int = 0) -> VirtualServer:
    """A virtual server with servers 10.0.0.1, … of these weights."""
    servers = tuple(RealServer(f"10.0.0.{at}", 80, weight) for at, weight in enumerate(weights, 1))
    return VirtualServer("TCP", VIP, 80, scheduler, servers, persistent, netmask)


def key(number: int = 1, client: str = "192.0.2.9") -> Tuple:
    """The tuple of a client's connection."""
    return Tuple("TCP", client, 40000 + number, VIP, 80)


def shares(held: VirtualServer, client: str = "192.0.2.9") -> Mapping[int, float]:
    """The probability of each server to get the first connection, by the last number of its address."""
    found: Counter[int] = Counter()
    ways = every(lambda choose: Director().schedule(held, key(client=client), 0.0, choose))
    for chance, entry in ways:
        assert entry is not None
        found[int(entry.destination.server.address[-1])] += chance  # type: ignore[assignment]
    return {server: round(chance, 6) for server, chance in found.items()}


def taken(held: VirtualServer, count: int, *, answered: bool = True) -> str:
    """The servers of so many connections, one after the other, the first of each choice being taken."""
    director = Director()
    servers = ""
    for number in range(count):
        entry = director.schedule(held, key(number), 0.0, lambda chance: True)
        assert entry is not None
        if answered:
            director.answer(entry.answer, 0.0)
        servers += entry.destination.server.address[-1]
    return servers


@pytest.mark.parametrize(
    ("scheduler", "weights", "expected"),
    [
        (Scheduler.RR, (1, 1, 1), {1: 0.333333, 2: 0.333333, 3: 0.333333}),
        (Scheduler.RR, (1, 0, 5), {1: 0.5, 3: 0.5}),
        (Scheduler.WRR, (1, 3), {1: 0.25, 2: 0.75}),
        (Scheduler.WRR, (2, 4, 0), {1: 0.333333, 2: 0.666667}),
        (Scheduler.LC, (1, 9), {1: 0.5, 2: 0.5}),
        (Scheduler.WLC, (1, 1, 0), {1: 0.5, 2: 0.5}),
        (Scheduler.SED, (1, 3), {2: 1.0}),
        (Scheduler.NQ, (1, 3), {1: 0.5, 2: 0.5}),
    ],
)
def test_the_first_connection_is_drawn(
    scheduler: Scheduler, weights: tuple[int, ...], expected: Mapping[int, float]
) -> None:
    """Whose turn it is nobody knows; a scheduler that counts has nothing counted yet."""
    assert shares(weighted(scheduler, *weights)) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("scheduler", "weights", "expected"),
    [
        (Scheduler.RR, (1, 1, 1), "1231231"),
        (Scheduler.RR, (1, 0, 1), "1313131"),
        (Scheduler.WRR, (1, 2, 3), "3231233"),  # levels 3, 2, 1: 3, 23, 123
        (Scheduler.WRR, (2, 4), "2122122"),
        (Scheduler.LC, (1, 1), "1212121"),
        (Scheduler.WLC, (1, 2), "1221221"),
        (Scheduler.SED, (1, 3), "2212221"),
        (Scheduler.NQ, (1, 3), "1222221"),
    ],
)
def test_what_follows_is_in_order(scheduler: Scheduler, weights: tuple[int, ...], expected: str) -> None:
    """Round after round, or whoever has the fewest open connections."""
    assert taken(weighted(scheduler, *weights), 7)[: len(expected)] == expected


def test_an_open_connection_counts_more_than_one_that_is_not() -> None:
    """Inactive connections do not weigh 256 times as much."""
    director = Director()
    held = weighted(Scheduler.LC, 1, 1)
    first = director.schedule(held, key(1), 0.0, lambda chance: True)
    assert first is not None
    director.answer(first.answer, 0.0)
    rest = [director.schedule(held, key(number), 0.0, lambda chance: True) for number in range(2, 9)]
    assert {entry.destination.server.address for entry in rest if entry} == {"10.0.0.2"}
    assert director.counts(held) == {held.servers[0]: (1, 0), held.servers[1]: (0, 7)}


@pytest.mark.parametrize(
    ("client", "place"),
    # hash_32(address, 8): the address times 0x61C88647, of whose 32 bits the upper 8 count
    [("192.0.2.9", 65), ("192.0.2.10", 162), ("10.244.1.2", 77), ("0.0.0.1", 97), ("fd00::1", 140)],
)
def test_source_hashing_is_the_kernels(client: str, place: int) -> None:
    """The same client gets the same server, by a hash of its address; IPv6 addresses are folded to 32 bits before."""
    assert shares(weighted(Scheduler.SH, 1, 1, 1), client) == {place % 3 + 1: 1.0}


def test_source_hashing_gives_servers_places_by_weight() -> None:
    """Of 256 clients in a row about three quarters get the server of weight 3."""
    held = weighted(Scheduler.SH, 1, 3)
    found = Counter(next(iter(shares(held, f"192.0.2.{last}"))) for last in range(256))
    assert 150 < found[2] < 230


def test_destination_hashing_sends_everybody_to_one() -> None:
    """There is one destination address, so there is one server."""
    held = weighted(Scheduler.DH, 1, 1, 1)
    assert len({tuple(shares(held, f"192.0.2.{last}")) for last in range(20)}) == 1


def test_a_hash_that_meets_a_server_of_weight_0_meets_nobody() -> None:
    """It does not look for another."""
    held = weighted(Scheduler.DH, 0)
    assert Director().schedule(held, key(), 0.0, lambda chance: True) is None


# Persistence


def test_a_client_keeps_its_server() -> None:
    """Until it has made no new connection for the time-out."""
    director = Director()
    held = weighted(Scheduler.RR, 1, 1, persistent=600)

    def server(number: int, now: float, client: str = "192.0.2.9") -> str:
        entry = director.schedule(held, key(number, client), now, lambda chance: True)
        assert entry is not None
        return entry.destination.server.address

    assert [server(1, 0.0), server(2, 600.0), server(3, 1200.0)] == ["10.0.0.1"] * 3
    assert server(4, 1200.0, "192.0.2.10") == "10.0.0.2"
    assert server(5, 1801.0) == "10.0.0.1"  # a turn later it happens to be the same
    assert server(6, 2402.0) == "10.0.0.2"


def test_a_network_can_share_a_server() -> None:
    """`-M`: persistence by network."""
    director = Director()
    held = weighted(Scheduler.RR, 1, 1, persistent=600, netmask=24)
    entries = [
        director.schedule(held, key(at, f"192.0.{net}.{at}"), 0.0, lambda chance: True)
        for at, net in ((1, 2), (2, 2), (3, 3), (4, 2))
    ]
    assert [entry.destination.server.address[-1] for entry in entries if entry] == ["1", "1", "2", "1"]


def test_a_server_that_goes_loses_its_clients() -> None:
    """Of weight 0, it gets no new connection, persistent or not."""
    director = Director()
    before = director.schedule(weighted(Scheduler.RR, 1, 1, persistent=600), key(1), 0.0, lambda chance: True)
    after = director.schedule(weighted(Scheduler.RR, 0, 1, persistent=600), key(2), 0.0, lambda chance: True)
    assert before and after
    assert (before.destination.server.address, after.destination.server.address) == ("10.0.0.1", "10.0.0.2")


def test_persistence_is_said() -> None:
    """The step names what made the choice."""
    network = balanced(msgspec.structs.replace(ALONE, persistent=60))
    world = World(network, random.Random(7))
    exchange(world, "a", VIP, 80)
    second = exchange(world, "a", VIP, 80)
    assert any("the client had it before (persistent)" in step.why for step in second.steps)


# Text, and taking things away


def test_the_table_prints_as_ipvsadm_does() -> None:
    """By family, protocol, address and port; a mark before all."""
    held = (
        virtual(RealServer(C, 53), port=53, protocol="UDP"),
        virtual(RealServer("10.244.1.10", 80), RealServer("10.244.1.9", 80, 3)),
        msgspec.structs.replace(virtual(port=7, protocol="SCTP"), scheduler=Scheduler.SH),
        msgspec.structs.replace(to_pod(C6), persistent=10800),
    )
    assert ipvsadm(balanced(*held)["m1"]).splitlines() == [
        "IP Virtual Server version 1.2.1 (size=4096)",
        "Prot LocalAddress:Port Scheduler Flags",
        "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn",
        "TCP  10.96.0.10:80 rr",
        "  -> 10.244.1.9:80                Masq    3      0          0",
        "  -> 10.244.1.10:80               Masq    1      0          0",
        "UDP  10.96.0.10:53 rr",
        "  -> 10.244.2.2:53                Masq    1      0          0",
        "SCTP 10.96.0.10:7 sh",
        "TCP  [fd00:10:96::10]:80 rr persistent 10800",
        "  -> [fd00:10:244:2::2]:80        Masq    1      0          0",
    ]
    assert ipvsadm_save(balanced(held[1], held[3])["m1"]).splitlines() == [
        "-A -t 10.96.0.10:80 -s rr",
        "-a -t 10.96.0.10:80 -r 10.244.1.9:80 -m -w 3",
        "-a -t 10.96.0.10:80 -r 10.244.1.10:80 -m -w 1",
        "-A -t [fd00:10:96::10]:80 -s rr -p 10800",
        "-a -t [fd00:10:96::10]:80 -r [fd00:10:244:2::2]:80 -m -w 1",
    ]


def test_connections_print_as_ipvsadm_does() -> None:
    """Counted at their servers, and listed; a template of persistence has a client without port."""
    held = msgspec.structs.replace(to_pod(C), persistent=600)
    network = balanced(held, patches=(OUT,))
    world = World(network, random.Random(7))
    exchange(world, "a", VIP, 80, sport=40000)
    exchange(world, "b", VIP, 80, sport=40001)
    director = world.at("m1").director
    assert director is not None
    assert "  -> 10.244.2.2:80                Masq    1      2          0\n" in ipvsadm(network["m1"], director)
    assert ipvsadm_connections(director).splitlines() == [
        "IPVS connection entries",
        "pro expire state       source             virtual            destination",
        "TCP 15:00  ESTABLISHED 10.244.1.2:40000   10.96.0.10:80      10.244.2.2:80",
        "TCP 15:00  ESTABLISHED 10.244.1.3:40001   10.96.0.10:80      10.244.2.2:80",
        "TCP 10:00  NONE        10.244.1.2:0       10.96.0.10:80      10.244.2.2:80",
        "TCP 10:00  NONE        10.244.1.3:0       10.96.0.10:80      10.244.2.2:80",
    ]


def test_a_mark_prints_as_one() -> None:
    """`FWM` instead of a protocol, `-f` on the command line, and the network's mask."""
    held = msgspec.structs.replace(BY_MARK, persistent=300, netmask=24)
    assert str(held) == "FWM  7 rr persistent 300 mask 255.255.255.0"
    assert held.text == "-A -f 7 -s rr -p 300 -M 255.255.255.0"


def test_a_dummy_prints_as_ip_does() -> None:
    """It asks nobody (NOARP), is down, and has its addresses all the same."""
    host = balanced(ALONE)["m1"]
    assert "99: dummy0: <BROADCAST,NOARP> mtu 1500 qdisc noop state DOWN group default\n" in ip_addr(host)
    assert f"    inet {VIP}/32 scope global dummy0\n" in ip_addr(host)
    assert "    dummy\n" in ip_link_details(host)
    assert host.is_local(VIP) and host.is_local(VIP6)


@pytest.mark.parametrize(
    ("match", "text"),
    [
        (Scheduled("TCP", VIP, 80), f"-m ipvs --vproto 6 --vaddr {VIP} --vport 80"),
        (Scheduled("UDP", VIP6, 53), f"-m ipvs --vproto 17 --vaddr {VIP6}/128 --vport 53"),
    ],
)
def test_the_match_prints_as_iptables_save_does(match: Scheduled, text: str) -> None:
    """Protocols by number."""
    assert str(match) == text


def test_servers_can_be_taken_away() -> None:
    """One real server, or the whole virtual one."""
    both = virtual(RealServer(B, 80), RealServer(C, 80))
    network = balanced(both)
    one = network.without("m1", Destination(both, RealServer(B, 80)))
    check(Flow("", one, "a", VIP, taker="c", seen=A))
    check(Flow("", network.without("m1", both), "a", VIP, ending=REFUSED, says="nobody on m1 listens"))
    with pytest.raises(UnknownName, match="real server"):
        one.without("m1", Destination(both, RealServer(B, 80)))


def test_outcomes_are_shared_among_servers() -> None:
    """Walking every choice gives each server its part."""
    network = balanced(virtual(RealServer(A, 80), RealServer(B, 80), RealServer(C, 80)), patches=(OUT,))
    found: Counter[str] = Counter()
    for chance, result in every(lambda choose: send(network, "outside", VIP, choose=choose)):
        assert result.client is Client.OPEN and result.arrival
        found[result.arrival.host] += chance  # type: ignore[assignment]
    assert found == pytest.approx({"a": 1 / 3, "b": 1 / 3, "c": 1 / 3})
