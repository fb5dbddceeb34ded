"""Across machines: routes, policy routing rules, neighbours, settings."""

import random

import pytest

from k8snetlab.linux.host import Network, Part, assembled
from k8snetlab.linux.link import Address, Link, LinkKind, Neighbour, Peer, Responder, loopback
from k8snetlab.linux.netfilter import Patch, SetMark
from k8snetlab.linux.route import NextHop, Route, RouteType, RoutingRule, multipath
from k8snetlab.linux.walk import World, every, exchange
from k8snetlab.trace import Action, Verdict
from tests.linux.lab import (
    DROPPED,
    LISTENERS,
    M1,
    M2,
    OUTSIDE,
    ROUTER,
    SILENT,
    UNREACHED,
    UNTOLD,
    VIP,
    A,
    B,
    C,
    Flow,
    add,
    check,
    each,
    lab,
    mac,
    rule,
    ruled,
    send,
    service,
    set_link,
    set_sysctls,
    source,
    told,
    without_route,
)

THERE, BACK = "10.244.2.0/24", "10.244.1.0/24"
FORWARD = "net.ipv4.ip_forward"
NO_ROUTER = without_route(lab(), "router", THERE)
"""The router does not know where the containers of m2 are."""


def refusing(kind: RouteType, name: str = "m1") -> Network:
    """A machine has a route that refuses the container c."""
    return add(lab(), name, routes=(Route(f"{C}/32", type=kind),))


def other_way_back(strict: int, device: int = 0) -> Network:
    """m1 would answer the outside by its bridge; `strict` and `device` are the rp_filter of all and of eth0."""
    network = add(lab(), "m1", routes=(Route("192.0.2.0/24", "cni0", scope="link"),))
    settings = {"net.ipv4.conf.all.rp_filter": strict, "net.ipv4.conf.eth0.rp_filter": device}
    return set_sysctls(network, "m1", **settings)


def no_way_back(strict: int) -> Network:
    """m1 knows no way to the outside."""
    return set_sysctls(without_route(lab(), "m1", "default"), "m1", **{"net.ipv4.conf.all.rp_filter": strict})


def loop() -> Network:
    """m1 and m2 each think that the other knows 10.9.0.0/24."""
    one = add(lab(), "m1", routes=(Route("10.9.0.0/24", "eth0", M2),))
    return add(one, "m2", routes=(Route("10.9.0.0/24", "eth0", M1),))


def by_table(selector: RoutingRule, *patches: Patch) -> Network:
    """What the rule selects is looked up in a table of m1 where everything is unreachable."""
    dead_end = Route("default", table="100", type=RouteType.UNREACHABLE)
    return add(ruled(*patches), "m1", rules=(selector,), routes=(dead_end,))


def proxied(**sysctls: int) -> Network:
    """A container `p` without a bridge: its gateway is an address that m1 does not have, but answers for."""
    own, gateway = "10.244.1.7", "169.254.1.1"
    eth0 = Link("eth0", 2, LinkKind.VETH, mac(0x11, 7), peer=Peer("m1", "cali-p"), addresses=(Address(own, 32),))
    routes = (Route(f"{gateway}/32", "eth0", scope="link"), Route("default", "eth0", gateway))
    p = assembled("p", "container", Part((loopback(), eth0), routes, listeners=LISTENERS))
    port = Link("cali-p", 17, LinkKind.VETH, mac(0x21, 7), peer=Peer("p", "eth0"))
    network = add(lab(), "m1", links=(port,), routes=(Route(f"{own}/32", "cali-p", scope="link"),))
    settings = {"rp_filter": 0, "route_localnet": 0, "proxy_arp": 1, **sysctls}
    network = set_sysctls(network, "m1", **{f"net.ipv4.conf.cali-p.{key}": value for key, value in settings.items()})
    return network.replacing(p)


def containers_elsewhere(strict: int) -> Network:
    """m1 has no route to its own containers: they would be answered by eth0, where the default route leads."""
    own = without_route(lab(), "m1", BACK)
    return set_sysctls(own, "m1", **{"net.ipv4.conf.cni0.rp_filter": strict})


MARKING = Patch("mangle", last=(rule("mangle", "PREROUTING", source(f"{A}/32"), to=SetMark(0x7)),))
OF_A = RoutingRule(100, "100", source=f"{A}/32")
UNPLUGGED = set_link(lab(), "m1", "eth0", up=False)

FLOWS = (
    Flow("from machine to machine", lab(), "a", C, taker="c", seen=A),
    Flow("from the machine itself, with the address of the device", lab(), "m1", C, taker="c", seen=M1),
    Flow("from outside", lab(), "outside", C, taker="c", seen=OUTSIDE),
    Flow("to the outside", lab(), "a", OUTSIDE, taker="outside", seen=A),
    Flow("to the other machine", lab(), "a", M2, 10250, taker="m2", seen=A),
    Flow("to another address of the own machine", lab(), "a", M1, 10250, taker="m1", seen=A),
    # Lost routes
    Flow("without its route m1 asks the router, who knows", without_route(lab(), "m1", THERE), "a", C, taker="c",
         seen=A),
    Flow("unless he does not", without_route(NO_ROUTER, "m1", THERE), "a", C, ending=UNREACHED,
         says="router has no route"),
    Flow("no route on m2 itself", without_route(without_route(lab(), "m2", THERE), "m2", "default"), "a", C,
         ending=UNREACHED, says="m2 has no route"),
    Flow("no default route in the container", without_route(lab(), "a", "default"), "a", C, ending=UNREACHED,
         says="no route"),
    Flow("no default route on the machine", without_route(lab(), "m1", "default"), "a", OUTSIDE, ending=UNREACHED,
         says="m1 has no route"),
    Flow("a UDP program is not told of it", without_route(lab(), "m1", "default"), "a", OUTSIDE, 53, "UDP", UNTOLD),
    Flow("no way back from the server", without_route(lab(), "c", "default"), "a", C, ending=SILENT, taker="c", seen=A,
         says="no route"),
    Flow("no way back on its machine", without_route(without_route(lab(), "m2", BACK), "m2", "default"), "a", C,
         ending=SILENT, taker="c", seen=A, says="m2 has no route"),
    # Lost devices
    Flow("the server is gone", set_link(lab(), "c", "eth0", up=False), "a", C, ending=UNREACHED,
         says="nobody on cni0 answers"),
    Flow("m1 is unplugged", UNPLUGGED, "a", C, ending=UNREACHED, says="m1 has no route"),
    Flow("the switch port of m2 is down", set_link(lab(), "switch", "p2", up=False), "a", C, ending=UNREACHED,
         says="nobody on eth0 answers for 172.18.0.12"),
    Flow("the switch is down", set_link(lab(), "switch", "br0", up=False), "a", C, ending=UNREACHED),
    Flow("an address of a device that is down is still the machine's own", UNPLUGGED, "a", M1, 10250, taker="m1",
         seen=A),
    # Forwarding
    Flow("m1 does not forward", set_sysctls(lab(), "m1", **{FORWARD: 0}), "a", C, ending=DROPPED,
         says="ip_forward is 0"),
    Flow("m2 does not forward", set_sysctls(lab(), "m2", **{FORWARD: 0}), "a", C, ending=DROPPED,
         says="ip_forward is 0"),
    Flow("a machine that does not forward answers for itself", set_sysctls(lab(), "m2", **{FORWARD: 0}), "a", M2, 10250,
         taker="m2", seen=A),
    Flow("a loop ends with the time to live", loop(), "a", "10.9.0.1", ending=UNREACHED, says="time-exceeded"),
    # Routes that refuse
    Flow("blackhole", refusing(RouteType.BLACKHOLE), "a", C, ending=SILENT, says="blackhole"),
    Flow("unreachable", refusing(RouteType.UNREACHABLE), "a", C, ending=UNREACHED, says="host-unreachable"),
    Flow("prohibit", refusing(RouteType.PROHIBIT), "a", C, ending=UNREACHED, says="admin-prohibited"),
    Flow("a UDP program is told of prohibit", refusing(RouteType.PROHIBIT), "a", C, 53, "UDP", UNREACHED),
    Flow("blackhole, to an own program", refusing(RouteType.BLACKHOLE), "m1", C, ending=UNREACHED),
    Flow("unreachable, to an own program", refusing(RouteType.UNREACHABLE), "m1", C, ending=UNREACHED),
    Flow("prohibit, in the container", refusing(RouteType.PROHIBIT, "a"), "a", C, ending=UNREACHED),
    # Which route
    Flow("the lower metric wins", add(lab(), "m1", routes=(Route(THERE, "eth0", "172.18.0.99", metric=5),)), "a", C,
         taker="c", seen=A),
    Flow("the longer prefix wins", add(lab(), "m1", routes=(Route(f"{C}/32", "eth0", "172.18.0.99"),)), "a", C,
         ending=UNREACHED, says="nobody on eth0 answers for 172.18.0.99"),
    # rp_filter
    Flow("strict: what would be answered another way", other_way_back(1), "outside", A, ending=DROPPED,
         says="rp_filter"),
    Flow("strict on the device alone", other_way_back(0, 1), "outside", A, ending=DROPPED, says="rp_filter"),
    Flow("strict: the usual way", set_sysctls(lab(), "m1", **{"net.ipv4.conf.all.rp_filter": 1}), "outside", A,
         taker="a", seen=OUTSIDE),
    Flow("loose takes any way back", other_way_back(2), "outside", A, ending=SILENT, taker="a", seen=OUTSIDE),
    Flow("the greater of all and device counts", other_way_back(2, 1), "outside", A, ending=SILENT, taker="a",
         seen=OUTSIDE),
    Flow("off", other_way_back(0), "outside", A, ending=SILENT, taker="a", seen=OUTSIDE),
    Flow("loose: no way back at all", no_way_back(2), "outside", A, ending=DROPPED, says="no route back"),
    Flow("off takes even that", no_way_back(0), "outside", A, ending=SILENT, taker="a", seen=OUTSIDE),
    Flow("strict: even an ARP request is not answered", containers_elsewhere(1), "a", OUTSIDE, ending=UNREACHED,
         says="nobody on eth0 answers for 10.244.1.1"),
    Flow("loose: an ARP request is answered", containers_elsewhere(2), "a", OUTSIDE, ending=SILENT, taker="outside",
         seen=A),
    # Policy routing
    Flow("a rule by source", by_table(OF_A), "a", C, ending=UNREACHED, says="unreachable default"),
    Flow("a rule by source selects no other", by_table(OF_A), "b", C, taker="c", seen=B),
    Flow("a rule by mark", by_table(RoutingRule(100, "100", mark=0x7), MARKING), "a", C, ending=UNREACHED),
    Flow("a rule by mark selects no other", by_table(RoutingRule(100, "100", mark=0x7), MARKING), "b", C, taker="c",
         seen=B),
    Flow("a rule by some bits of the mark", by_table(RoutingRule(100, "100", mark=0x4, mask=0x4), MARKING), "a", C,
         ending=UNREACHED),
    Flow("a rule by device", by_table(RoutingRule(100, "100", iif="cni0")), "a", C, ending=UNREACHED),
    Flow("a rule by device selects not what the machine sends", by_table(RoutingRule(100, "100", iif="cni0")), "m1", C,
         taker="c", seen=M1),
    Flow("what the machine sends comes by lo", by_table(RoutingRule(100, "100", iif="lo")), "m1", C, ending=UNREACHED),
    Flow("a rule by destination", by_table(RoutingRule(100, "100", to=THERE)), "a", C, ending=UNREACHED),
    Flow("a rule turned round selects the answers", by_table(RoutingRule(100, "100", source=f"{A}/32", invert=True)),
         "a", C, ending=SILENT, taker="c", seen=A),
    Flow("a rule after main is asked too late", by_table(RoutingRule(32800, "100", source=f"{A}/32")), "a", C,
         taker="c", seen=A),
    Flow("a rule whose table has no route is passed over", add(lab(), "m1", rules=(RoutingRule(100, "77"),)), "a", C,
         taker="c", seen=A),
    Flow("without the rule nobody asks table main, not even to tell", lab().without("m1", RoutingRule(32766, "main")),
         "a", C, ending=UNTOLD),
    Flow("without rule 0 nothing is local", lab().without("m1", RoutingRule(0, "local")), "a", M1, 10250,
         ending=UNREACHED),
    # proxy_arp
    Flow("proxy ARP: a gateway that is nobody's, and answered for", proxied(), "p", C, taker="c", seen="10.244.1.7"),
    Flow("proxy ARP: from the other side", proxied(), "c", "10.244.1.7", taker="p", seen=C),
    Flow("proxy ARP off", proxied(proxy_arp=0), "p", C, ending=UNREACHED, says="nobody on eth0 answers"),
    Flow("proxy ARP needs a route to the gateway", without_route(proxied(), "m1", "default"), "p", C, ending=UNREACHED,
         says="nobody on eth0 answers"),
    Flow("proxy ARP needs forwarding", set_sysctls(proxied(), "m1", **{FORWARD: 0}), "p", C, ending=UNREACHED,
         says="nobody on eth0 answers"),
)  # fmt: skip


@each(FLOWS)
def test_flow(flow: Flow) -> None:
    """Each row of the table above."""
    check(flow)


def test_where_two_machines_answer_chance_decides() -> None:
    """m2 answers for the router as well (proxy ARP): half of the time the packet takes the way over m2."""
    wrong = add(lab(), "m2", routes=(Route(f"{ROUTER}/32", "cni0", scope="link"),))
    network = set_sysctls(wrong, "m2", **{"net.ipv4.conf.all.proxy_arp": 1})
    ends = every(lambda choose: send(network, "m1", OUTSIDE, choose=choose))
    over_m2 = [(chance, any(step.where == "m2" for step in found.steps)) for chance, found in ends]
    assert sorted(over_m2) == [(0.5, False), (0.5, True)]


def test_every_router_takes_one_off_the_time_to_live() -> None:
    """Two machines route between containers: 64 becomes 62."""
    found = send(lab(), "a", C)
    assert found.arrival is not None and found.arrival.packet.ip.ttl == 62, told(found)


def test_a_loop_is_walked_until_the_time_to_live_is_used_up() -> None:
    """The last but one machine sends it with a time to live of 1; the next one throws it away."""
    found = send(loop(), "a", "10.9.0.1")
    sent = [step.packet.ip.ttl for step in found.steps if step.action is Action.TRANSMIT]
    assert (sent[0], sent[-1]) == (64, 1), told(found)


MARTIANS = (
    ("an own address of the machine", M1, "own address of m1"),
    ("the bridge's own address", "10.244.1.1", "own address of m1"),
    ("a loopback address", "127.0.0.1", "martian"),
)


@pytest.mark.parametrize(("source_address", "says"), [row[1:] for row in MARTIANS], ids=[row[0] for row in MARTIANS])
def test_a_martian_source_is_dropped(source_address: str, says: str) -> None:
    """No packet from an address of the machine itself can come by a cable."""
    settings = {"net.ipv4.conf.all.route_localnet": 1, "net.ipv4.conf.eth0.route_localnet": 0}
    known = add(lab(), "a", neighbours=(Neighbour("10.244.1.1", "eth0", mac(0x30, 1)),))
    network = set_sysctls(known, "a", **settings)
    found = exchange(World(network, random.Random(7)), "a", C, 53, "UDP", source=source_address)
    assert found.fate is Verdict.DROPPED and says in found.reason, told(found)


def test_arp_ignore_answers_for_the_address_of_the_device_only() -> None:
    """With 1, nobody on the bridge learns who has the address of eth0."""
    network = add(lab(), "a", routes=(Route(f"{M1}/32", "eth0", scope="link"),))
    ignoring = set_sysctls(network, "m1", **{"net.ipv4.conf.all.arp_ignore": 1})
    assert send(network, "a", M1, 10250).fate is Verdict.DELIVERED
    assert send(ignoring, "a", M1, 10250).fate is Verdict.UNREACHABLE


# Several next hops

SPREAD = multipath(f"{VIP}/32", [NextHop("eth0", M1), NextHop("eth0", M2, weight=3)])


def spreading() -> Network:
    """The router sends what the outside asks the virtual address for to m1 or m2, which know a container for it."""
    rules = {"m1": (service(A),), "m2": (service(C),)}
    network = without_route(lab(rules=rules), "outside", "default")
    network = add(network, "outside", routes=(Route("default", "eth0", "192.0.2.1"),))
    return add(network, "router", routes=(SPREAD,))


def test_a_multipath_route_spreads_flows_by_weight() -> None:
    """One in four goes by m1, the others by m2."""
    ways = every(lambda choose: exchange(World(spreading(), random.Random(7), choose=choose), "outside", VIP, 80))
    assert [(chance, way.arrival.host if way.arrival else way.reason) for chance, way in ways] == [
        (0.25, "a"),
        (0.75, "c"),
    ]


def test_all_packets_of_a_flow_take_the_same_way() -> None:
    """What was chosen for the first packet is not chosen again."""
    world = World(spreading(), random.Random(7))
    first = [exchange(world, "outside", VIP, 80, sport=40000, flags=flags) for flags in ("S", ".", ".", ".")]
    assert len({step.where for found in first for step in found.steps if step.where in ("m1", "m2")}) == 1


@pytest.mark.parametrize(("policy", "ways"), [(0, 1), (1, 2)])
def test_the_hash_policy_says_what_a_flow_is(policy: int, ways: int) -> None:
    """Two addresses, or two addresses and two ports: then another connection is another choice."""
    key = "net.ipv4.fib_multipath_hash_policy"
    world = World(set_sysctls(spreading(), "router", **{key: policy}), random.Random(7))
    found = [exchange(world, "outside", VIP, 80, sport=sport) for sport in range(40001, 40030)]
    assert len({each.arrival.host for each in found if each.arrival}) == ways


def test_the_way_of_a_flow_is_told() -> None:
    """The router's step names the way that was taken, and how many there were."""
    found = send(spreading(), "outside", VIP, 80)
    [step] = (step for step in found.steps if (step.where, step.action) == ("router", Action.ROUTE))
    assert step.why.startswith(f"{VIP}/32 via 172.18.0.1") and step.why.endswith("one of its 2 ways is the flow's")


def test_one_next_hop_is_a_route_like_any_other() -> None:
    """No choice is asked for."""
    assert multipath("10.9.0.0/16", [NextHop("eth0", M1)]) == Route("10.9.0.0/16", "eth0", M1)


# Who answers for an address


def test_a_program_may_answer_for_an_address_that_is_nowhere() -> None:
    """What comes for it arrives at the machine of that program, and its rules say what becomes of it."""
    network = add(lab(rules={"m2": (service(C),)}), "router", routes=(Route(f"{VIP}/32", "eth0", scope="link"),))
    assert send(network, "outside", VIP, 80).fate is Verdict.UNREACHABLE
    answering = add(network, "m2", responders=(Responder(VIP, "eth0", "speaker"),))
    assert send(answering, "outside", VIP, 80).fate is Verdict.DELIVERED


def test_a_responder_answers_on_its_device_only() -> None:
    """A question that comes by another device is not for it."""
    network = add(lab(rules={"m2": (service(C),)}), "router", routes=(Route(f"{VIP}/32", "eth0", scope="link"),))
    elsewhere = add(network, "m2", responders=(Responder(VIP, "cni0", "speaker"),))
    assert send(elsewhere, "outside", VIP, 80).fate is Verdict.UNREACHABLE
