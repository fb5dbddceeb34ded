"""eBPF programs by hand, on the small network of `lab`: what a socket is led to, and what a packet is translated to."""

from __future__ import annotations

import random

import msgspec
import pytest

from k8snetlab.address import Prefix
from k8snetlab.errors import UnknownName
from k8snetlab.linux.ebpf import (
    Attachment,
    Backend,
    Ebpf,
    Entry,
    Flag,
    Frontend,
    Identity,
    Key,
    Program,
    Scope,
    Services,
    bpf_lb_list,
    sockets,
)
from k8snetlab.linux.host import Network, Part
from k8snetlab.linux.text import entry_line
from k8snetlab.linux.walk import World, every, exchange
from k8snetlab.trace import Action, Client, Verdict
from tests.linux.lab import A6, M1, M1_6, M2, OUTSIDE, VIP, VIP6, A, B, C, lab

LB = "198.51.100.7"
SHARED = 30080
AT_DEVICES = (
    Attachment(Program.FROM_OUTSIDE, "eth0"),
    Attachment(Program.TO_OUTSIDE, "eth0"),
    *(Attachment(program, f"veth-{name}") for name in "ab"
      for program in (Program.FROM_CONTAINER, Program.TO_CONTAINER)),
)  # fmt: skip


def frontend(
    address: str = VIP, port: int = 80, *backends: str, protocol: str = "TCP", scope: Scope = Scope.EXTERNAL,
    flags: tuple[Flag, ...] = (), affinity: int = 0, sources: tuple[str, ...] = (), guarded: bool = False, to: int = 80,
) -> Frontend:  # fmt: skip
    """A frontend whose backends are containers; those of m1 are its own."""
    held = tuple(Backend(ip, to, ip.startswith(("10.244.1.", "fd00:10:244:1:"))) for ip in backends)
    blocks = tuple(map(Prefix.of, sources))
    return Frontend(Key(address, port, protocol, scope), 1, "Virtual", held, flags, affinity, blocks, guarded)


def network(*held: Frontend) -> Network:
    """The small network, with these frontends on m1 and in its containers."""
    whole = Ebpf(
        "m1",
        sockets(),
        Services({each.key: each for each in held}),
        {M1: Identity.HOST, M1_6: Identity.HOST, M2: Identity.REMOTE},
        source=(M1, M1_6),
    )
    own = msgspec.structs.replace(whole, attached=(*sockets(), *AT_DEVICES))
    found = lab()
    hosts = [msgspec.structs.replace(found[name], ebpf=whole) for name in "ab"]
    return found.replacing(msgspec.structs.replace(found["m1"], ebpf=own), *hosts)


def ends(net: Network, who: str, address: str, port: int, protocol: str = "TCP") -> list[tuple[float, str, str, str]]:
    """Every way it can end: chance, what the client is told, who took it, and whom he sees."""
    ways = every(lambda choose: exchange(World(net, random.Random(1), choose=choose), who, address, port, protocol))
    found = []
    for chance, result in ways:
        taken = result.arrival if result.client is Client.OPEN else None
        who_took = (taken.host, taken.packet.ip.src) if taken is not None else ("", "")
        found.append((round(chance, 9), str(result.client), *who_took))
    return sorted(found, key=lambda way: way[2])


# Sockets


def test_a_socket_is_led_to_a_backend_before_a_packet_exists() -> None:
    """The packet that sets out carries the backend's address already; the answer needs no translation."""
    result = exchange(World(network(frontend(VIP, 80, C)), random.Random(0)), "a", VIP, 80)
    led, sent = result.steps[:2]
    assert (led.action, sent.action, sent.packet.ip.dst) == (Action.DNAT, Action.SEND, C)
    assert led.rule is not None and led.rule.text == f"{VIP}:80/TCP (1)   {C}:80/TCP (1) (1)"
    assert all(step.action not in (Action.CONNTRACK, Action.SNAT, Action.DNAT) for step in result.reply)
    assert result.client is Client.OPEN


def test_all_backends_are_alike() -> None:
    """Each is chosen with the same probability."""
    found = ends(network(frontend(VIP, 80, A, B, C)), "a", VIP, 80)
    assert found == [(round(1 / 3, 9), "OPEN", name, A) for name in ("a", "b", "c")]


@pytest.mark.parametrize(("protocol", "told"), [("TCP", "OPEN"), ("UDP", "TIMEOUT"), ("SCTP", "UNREACHABLE")])
def test_an_entry_is_for_one_protocol(protocol: str, told: str) -> None:
    """The same address and port by another protocol is just an address that nobody has."""
    ((_, client, _, _),) = ends(network(frontend(VIP, 80, C)), "a", VIP, 80, protocol)
    assert client == told


def test_without_a_backend_connect_fails_at_once() -> None:
    """EHOSTUNREACH: no packet is sent."""
    result = exchange(World(network(frontend(VIP, 80)), random.Random(0)), "a", VIP, 80)
    assert (result.fate, result.client, len(result.steps)) == (Verdict.UNREACHABLE, Client.UNREACHABLE, 1)
    assert "EHOSTUNREACH" in result.reason


def test_what_starts_inside_follows_the_inner_scope() -> None:
    """Of two entries for one address, sockets take that for the inside."""
    outer = frontend(VIP, 80, A, flags=(Flag.TWO_SCOPES,))
    inner = frontend(VIP, 80, C, scope=Scope.INTERNAL)
    assert [who for _, _, who, _ in ends(network(outer, inner), "b", VIP, 80)] == ["c"]


def test_an_external_address_is_led_only_where_it_is_at_home() -> None:
    """A guarded address that is not the machine's own is left to whoever has it."""
    theirs, own = frontend(LB, 80, C, guarded=True), frontend(M1, 80, C, guarded=True)
    assert ends(network(theirs, own), "m1", LB, 80)[0][1] == "UNREACHABLE"
    assert ends(network(theirs, own), "m1", M1, 80)[0][1:3] == ("OPEN", "c")


@pytest.mark.parametrize(
    ("who", "address", "told"),
    [
        ("a", M1, "OPEN"),
        ("a", M2, "OPEN"),
        ("m1", M2, "OPEN"),
        ("m1", "127.0.0.1", "OPEN"),
        ("a", "127.0.0.1", "REFUSED"),
        ("a", "10.244.1.1", "REFUSED"),
        ("a", OUTSIDE, "REFUSED"),
    ],
)
def test_a_shared_port_is_led_at_every_machine(who: str, address: str, told: str) -> None:
    """The entry for any address counts for the addresses of machines, and for a machine's own loopback."""
    assert ends(network(frontend("0.0.0.0", SHARED, C)), who, address, SHARED)[0][1] == told


def test_a_port_outside_of_the_range_is_not_shared() -> None:
    """Port 8080 at a machine's address means the machine."""
    assert ends(network(frontend("0.0.0.0", 8080, C)), "a", M1, 8080)[0][1] == "REFUSED"


def test_ipv6_has_its_own_programs() -> None:
    """Without the program for IPv4 sockets, those of IPv6 are led still."""
    net = network(frontend(VIP, 80, C), frontend(VIP6, 80, "fd00:10:244:2::2"))
    net = net.without("m1", Attachment(Program.CONNECT4))
    assert [ends(net, "m1", vip, 80)[0][1] for vip in (VIP, VIP6)] == ["UNREACHABLE", "OPEN"]


def test_a_datagram_socket_is_led_the_same_way_every_time() -> None:
    """The backend of a UDP socket follows from the socket, so a second datagram goes where the first went."""
    world = World(network(frontend(VIP, 53, A, B, C, protocol="UDP", to=53)), random.Random(3))
    taken = {exchange(world, "m1", VIP, 53, "UDP", sport=40000).arrival for _ in range(8)}
    assert len({each.host for each in taken if each is not None}) == 1


def test_a_client_sticks_to_its_backend_while_it_keeps_coming() -> None:
    """Affinity counts from the last use, and ends when the time-out has passed to the second."""
    world = World(network(frontend(VIP, 80, A, B, C, affinity=60)), random.Random(5))

    def taken() -> str:
        found = exchange(world, "m1", VIP, 80).arrival
        assert found is not None
        return found.host

    first = taken()
    for _ in range(5):
        world.now += 59
        assert taken() == first
    after = set()
    for _ in range(20):
        world.now += 60
        after.add(taken())
    assert after == {"a", "b", "c"}


# Packets from outside


def test_a_backend_here_sees_the_client() -> None:
    """Only the destination changes; the answer gets its source back as it leaves."""
    net = network(frontend(M1, SHARED, A))
    assert ends(net, "outside", M1, SHARED) == [(1.0, "OPEN", "a", OUTSIDE)]
    result = exchange(World(net, random.Random(0)), "outside", M1, SHARED)
    back = [step for step in result.reply if step.action is Action.CONNTRACK]
    assert [(step.where, step.device, step.packet.ip.src) for step in back] == [("m1", "eth0", M1)]


def test_a_backend_elsewhere_sees_the_machine_between() -> None:
    """The answer must come back to be translated; both ways pass no rule, and each costs one hop."""
    net = network(frontend(M1, SHARED, C))
    assert ends(net, "outside", M1, SHARED) == [(1.0, "OPEN", "c", M1)]
    result = exchange(World(net, random.Random(0)), "outside", M1, SHARED)
    on_m1 = [step.action for step in result.steps if step.where == "m1"]
    assert on_m1[:4] == [Action.RECEIVE, Action.DNAT, Action.SNAT, Action.ROUTE]
    assert result.arrival is not None and result.arrival.packet.ip.ttl == 61


def test_two_clients_with_one_port_get_two() -> None:
    """The machine's own source ports tell the answers apart."""
    world = World(network(frontend(M1, SHARED, C)), random.Random(0))
    both = [exchange(world, who, M1, SHARED, sport=40000) for who in ("outside", "router")]
    assert [each.client for each in both] == [Client.OPEN, Client.OPEN]
    ports = [each.arrival.packet.headers[1].sport for each in both if each.arrival]  # type: ignore[union-attr]
    assert ports == [40000, 40001]


def test_no_backend_is_refused_in_the_name_of_the_address() -> None:
    """Port unreachable comes from the address that was asked, though no device has it."""
    net = network(frontend(M1, SHARED))
    assert ends(net, "outside", M1, SHARED) == [(1.0, "REFUSED", "", "")]
    result = exchange(World(net, random.Random(0)), "outside", M1, SHARED)
    assert result.fate is Verdict.REJECTED and result.reply[0].packet.ip.src == M1


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (frontend(M1, SHARED, A, flags=(Flag.NON_ROUTABLE,)), "for the inside"),
        (frontend(M1, SHARED, A, flags=(Flag.SOURCE_RANGE,), sources=("10.0.0.0/8",)), "source ranges"),
    ],
)
def test_what_is_not_for_the_outside_is_dropped(found: Frontend, why: str) -> None:
    """The client hears nothing."""
    result = exchange(World(network(found), random.Random(0)), "outside", M1, SHARED)
    assert (result.fate, result.client) == (Verdict.DROPPED, Client.TIMEOUT)
    assert why in result.reason


def test_a_source_in_the_range_is_let_in() -> None:
    """192.0.2.9 is in 192.0.2.0/24."""
    found = frontend(M1, SHARED, A, flags=(Flag.SOURCE_RANGE,), sources=("192.0.2.0/24",))
    assert ends(network(found), "outside", M1, SHARED)[0][1] == "OPEN"


def test_the_outer_scope_is_for_the_outside() -> None:
    """Of two entries, packets from outside take the other one."""
    outer = frontend(M1, SHARED, A, flags=(Flag.TWO_SCOPES,))
    inner = frontend(M1, SHARED, C, scope=Scope.INTERNAL)
    assert [who for _, _, who, _ in ends(network(outer, inner), "outside", M1, SHARED)] == ["a"]


def test_an_error_about_a_translated_packet_finds_its_way_back() -> None:
    """A closed UDP port of a backend: the client is told about the packet that it sent."""
    for backend in (A, C):
        net = network(frontend(M1, SHARED, backend, protocol="UDP", to=9))
        assert ends(net, "outside", M1, SHARED, "UDP") == [(1.0, "REFUSED", "", "")]


def test_a_client_outside_sticks_by_his_address() -> None:
    """Connections of one source go to one backend, those of another need not."""
    world = World(network(frontend(M1, SHARED, A, B, C, affinity=60)), random.Random(2))
    taken: dict[str, set[str]] = {"outside": set(), "router": set()}
    for _ in range(10):
        for who, found in taken.items():
            arrival = exchange(world, who, M1, SHARED).arrival
            assert arrival is not None
            found.add(arrival.host)
    assert all(len(found) == 1 for found in taken.values())


def test_without_the_program_at_egress_the_answer_is_a_stranger() -> None:
    """The client hears from the backend's own address, and does not know it."""
    net = network(frontend(M1, SHARED, A)).without("m1", Attachment(Program.TO_OUTSIDE, "eth0"))
    assert ends(net, "outside", M1, SHARED)[0][1] == "TIMEOUT"


# Packets of containers, which no socket program has translated


def test_a_protocol_that_sockets_do_not_know_is_balanced_at_the_device() -> None:
    """SCTP: the container's packet carries the virtual address as far as the machine's device."""
    net = network(frontend(VIP, 7, B, C, protocol="SCTP", to=7))
    assert ends(net, "a", VIP, 7, "SCTP") == [(0.5, "OPEN", "b", A), (0.5, "OPEN", "c", A)]
    assert ends(net, "m1", VIP, 7, "SCTP")[0][1] == "UNREACHABLE"


@pytest.mark.parametrize(("vip", "own", "loopback"), [(VIP, A, "169.254.42.1"), (VIP6, A6, "fe80::1")])
def test_who_is_sent_to_himself_sees_another(vip: str, own: str, loopback: str) -> None:
    """A packet from and to one address would never leave: its source becomes the loopback address of services."""
    net = network(frontend(vip, 7, own, protocol="SCTP", to=7))
    assert ends(net, "a", vip, 7, "SCTP") == [(1.0, "OPEN", "a", loopback)]


def test_what_no_socket_program_did_the_device_does() -> None:
    """Without the program at connect() the same Service works packet by packet."""
    net = network(frontend(VIP, 80, C)).without("a", Attachment(Program.CONNECT4))
    result = exchange(World(net, random.Random(0)), "a", VIP, 80)
    assert result.client is Client.OPEN
    assert next(step.device for step in result.steps if step.action is Action.DNAT) == "veth-a"


# Values and text


def test_the_map_prints_as_its_tool_prints_it() -> None:
    """Every slot on a line, the frontend's own first, with its flags."""
    outer = frontend(VIP, 80, A, C, flags=(Flag.LOCAL, Flag.TWO_SCOPES, Flag.AFFINITY), affinity=60)
    inner = frontend(VIP6, 80, scope=Scope.INTERNAL)
    ebpf = Ebpf("m1", services=Services({each.key: each for each in (outer, inner)}))
    assert bpf_lb_list(ebpf).splitlines() == [
        "SERVICE ADDRESS                 BACKEND ADDRESS (REVNAT_ID) (SLOT)",
        "10.96.0.10:80/TCP (0)           0.0.0.0:0 (1) (0) [Virtual, Local, two-scopes, sessionAffinity]",
        "10.96.0.10:80/TCP (1)           10.244.1.2:80/TCP (1) (1)",
        "10.96.0.10:80/TCP (2)           10.244.2.2:80/TCP (1) (2)",
        "[fd00:10:96::10]:80/TCP/i (0)   [::]:0 (1) (0) [Virtual]",
    ]


def test_a_frontend_is_made_when_it_is_looked_up() -> None:
    """And once only."""
    made: list[int] = []

    def build() -> Frontend:
        made.append(1)
        return frontend(VIP, 80, A)

    services = Services({Key(VIP, 80, "TCP"): build, Key(VIP, 81, "TCP"): build})
    assert made == [] and len(services) == 2
    assert services[Key(VIP, 80, "TCP")] is services[Key(VIP, 80, "TCP")]
    assert made == [1]


def test_an_entry_can_be_taken_out_of_a_machine() -> None:
    """The socket is led no more; what is not there cannot be taken."""
    held = frontend(VIP, 80, C)
    net = network(held)
    assert ends(net.without("m1", held), "m1", VIP, 80)[0][1] == "UNREACHABLE"
    with pytest.raises(UnknownName):
        net.without("m1", frontend(VIP, 81, C))
    with pytest.raises(UnknownName):
        lab().without("m1", Attachment(Program.CONNECT4))


def test_one_entry_is_one_line() -> None:
    """In the words of the tools."""
    assert entry_line(Attachment(Program.FROM_OUTSIDE, "eth0")) == "tc/ingress eth0 cil_from_netdev"
    assert entry_line(frontend(VIP, 80, A)) == Entry(frontend(VIP, 80, A)).text


def test_parts_hand_their_programs_over() -> None:
    """A Host has the maps of the part that brings some."""
    from k8snetlab.linux.host import assembled

    assert assembled("m", "machine", Part(), Part(ebpf=Ebpf("m"))).ebpf == Ebpf("m")
