"""Small networks made by hand for the tests of the walk, and the form of the packet-flow tables.

Two machines m1 and m2 with a bridge each, two containers behind every bridge, a switch between the machines, a router,
and a client outside who knows the way to the containers too. Everything has an IPv4 and an IPv6 address:

    a 10.244.1.2   b 10.244.1.3       c 10.244.2.2   d 10.244.2.3
         └── cni0 ──┘                      └── cni0 ──┘
      m1 172.18.0.11 ───── switch ───── m2 172.18.0.12
                              │
              router 172.18.0.1, 192.0.2.1 ───── outside 192.0.2.9

Every container listens on TCP 80, UDP 53 and SCTP 7; machines listen on TCP 10250. Rules are given as patches by the
name of the machine. The state is meant literally: the real kernel can be told exactly this.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import NamedTuple

import msgspec
import pytest

from k8snetlab.address import Prefix, family
from k8snetlab.linux.host import Host, Network, Part, assembled
from k8snetlab.linux.link import Address, FdbEntry, Link, LinkKind, Neighbour, Peer, Vxlan, loopback
from k8snetlab.linux.netfilter import (
    ACCEPT,
    L4,
    Chain,
    Comment,
    Destination,
    Dnat,
    Jump,
    Mark,
    Masquerade,
    Match,
    Netfilter,
    Patch,
    Protocol4,
    Reject,
    Rule,
    SetMark,
    Source,
    Table,
    Target,
)
from k8snetlab.linux.route import Route, connected
from k8snetlab.linux.socket import Listener
from k8snetlab.linux.walk import Choose, Exchange, World, exchange
from k8snetlab.trace import Client, Step, Verdict

A, B, C, D = "10.244.1.2", "10.244.1.3", "10.244.2.2", "10.244.2.3"
M1, M2, ROUTER, OUTSIDE = "172.18.0.11", "172.18.0.12", "172.18.0.1", "192.0.2.9"
A6, B6, C6, D6 = "fd00:10:244:1::2", "fd00:10:244:1::3", "fd00:10:244:2::2", "fd00:10:244:2::3"
M1_6, M2_6, ROUTER6, OUTSIDE6 = "fd00:172:18::11", "fd00:172:18::12", "fd00:172:18::1", "2001:db8::9"
VIP, VIP6 = "10.96.0.10", "fd00:10:96::10"
"""A virtual address: on no device anywhere, but with a route towards the router."""

CONTAINERS: Mapping[str, tuple[int, int]] = {"a": (1, 2), "b": (1, 3), "c": (2, 2), "d": (2, 3)}
"""Name of the container: its machine and its number."""

LISTENERS = (
    Listener("TCP", 80, program="web"),
    Listener("UDP", 53, program="dns"),
    Listener("SCTP", 7, program="signals"),
)
FORWARDING: Mapping[str, int] = {"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1}


class Overlay(StrEnum):
    """How the machines reach each other's containers."""

    ROUTES = "routes"
    VXLAN = "vxlan"


Patches = Mapping[str, tuple[Patch, ...]]


def mac(place: int, number: int) -> str:
    """A MAC address made of two small numbers."""
    return f"02:00:00:00:{place:02x}:{number:02x}"


def pod_address(machine: int, number: int) -> tuple[Address, Address]:
    """The addresses of a container, or of the bridge if `number` is 1."""
    return Address(f"10.244.{machine}.{number}", 24), Address(f"fd00:10:244:{machine}::{number}", 64)


def networks(device: str, *addresses: Address) -> tuple[Route, ...]:
    """The routes to the networks that a device has addresses in."""
    return tuple(connected(own.prefix, device, own.ip) for own in addresses)


def defaults(device: str, *gateways: str) -> tuple[Route, ...]:
    """Default routes by these gateways."""
    return tuple(Route("default", device, gateway, family=family(gateway)) for gateway in gateways)


def container(name: str, mtu: int = 1500, *parts: Part) -> Host:
    """A container: one end of a veth pair whose other end is a port of its machine's bridge."""
    machine, number = CONTAINERS[name]
    own = pod_address(machine, number)
    gateways = (address.ip for address in pod_address(machine, 1))
    eth0 = Link("eth0", 2, LinkKind.VETH, mac(0x10 + machine, number), mtu, peer=Peer(f"m{machine}", f"veth-{name}"),
                addresses=own)  # fmt: skip
    base = Part((loopback(), eth0), (*networks("eth0", *own), *defaults("eth0", *gateways)), listeners=LISTENERS)
    return assembled(name, "container", base, *parts)


def machine(number: int, overlay: Overlay, mtu: int, *parts: Part) -> Host:
    """A machine with a bridge, two containers behind it, and a way to the other machine's containers."""
    other = 3 - number
    own = (Address(f"172.18.0.1{number}", 24), Address(f"fd00:172:18::1{number}", 64))
    bridge = pod_address(number, 1)
    ports = (
        Link(f"veth-{name}", 10 + at, LinkKind.VETH, mac(0x20 + number, at), mtu, master="cni0",
             peer=Peer(name, "eth0"), hairpin=True)
        for name, (where, at) in CONTAINERS.items()
        if where == number
    )  # fmt: skip
    base = Part(
        links=(
            loopback(),
            Link("eth0", 2, LinkKind.NIC, mac(0, number), peer=Peer("switch", f"p{number}"), addresses=own),
            Link("cni0", 3, LinkKind.BRIDGE, mac(0x30, number), mtu, addresses=bridge),
            *ports,
        ),
        routes=(*networks("eth0", *own), *networks("cni0", *bridge), *defaults("eth0", ROUTER, ROUTER6)),
        sysctls=FORWARDING,
        listeners=(Listener("TCP", 10250, program="agent"),),
    )
    way = by_vxlan(number, other, mtu) if overlay is Overlay.VXLAN else by_routes(other)
    return assembled(f"m{number}", "machine", base, way, *parts)


def by_routes(other: int) -> Part:
    """The other machine is the gateway to its containers."""
    return Part(
        routes=(
            Route(f"10.244.{other}.0/24", "eth0", f"172.18.0.1{other}"),
            Route(f"fd00:10:244:{other}::/64", "eth0", f"fd00:172:18::1{other}", family=6),
        )
    )


def by_vxlan(number: int, other: int, mtu: int) -> Part:
    """A tunnel to the other machine: route, neighbour and FDB entry. IPv6 rides in the same tunnel."""
    tunnel = Vxlan(1, f"172.18.0.1{number}", "eth0", 8472)
    addresses = (Address(f"10.244.{number}.0", 32), Address(f"fd00:10:244:{number}::", 128))
    there, there6, its_mac = f"10.244.{other}.0", f"fd00:10:244:{other}::", mac(0x40, other)
    return Part(
        links=(Link("flannel.1", 4, LinkKind.VXLAN, mac(0x40, number), mtu, addresses=addresses, vxlan=tunnel),),
        routes=(
            Route(f"{there}/24", "flannel.1", there, onlink=True),
            Route(f"{there6}/64", "flannel.1", there6, onlink=True, family=6),
        ),
        neighbours=(Neighbour(there, "flannel.1", its_mac), Neighbour(there6, "flannel.1", its_mac)),
        fdb=(FdbEntry(its_mac, "flannel.1", f"172.18.0.1{other}"),),
    )


def switch() -> Host:
    """A bridge without addresses: ports to both machines and the router."""
    plugs = (("m1", "eth0"), ("m2", "eth0"), ("router", "eth0"))
    ports = (
        Link(f"p{at}", 2 + at, LinkKind.NIC, mac(0xF0, at), master="br0", peer=Peer(*plug))
        for at, plug in enumerate(plugs, 1)
    )
    return assembled("switch", "switch", Part((loopback(), Link("br0", 2, LinkKind.BRIDGE, mac(0xF0, 0)), *ports)))


def router() -> Host:
    """Joins the machines' network to the outside, and knows where the containers are."""
    inner = (Address(ROUTER, 24), Address(ROUTER6, 64))
    outer = (Address("192.0.2.1", 24), Address("2001:db8::1", 64))
    links = (
        loopback(),
        Link("eth0", 2, LinkKind.NIC, mac(0, 0xFE), peer=Peer("switch", "p3"), addresses=inner),
        Link("eth1", 3, LinkKind.NIC, mac(0, 0xFF), peer=Peer("outside", "eth0"), addresses=outer),
    )
    routes = (
        *networks("eth0", *inner),
        *networks("eth1", *outer),
        *(route for number in (1, 2) for route in by_routes(number).routes),
    )
    return assembled("router", "router", Part(links, routes, sysctls=FORWARDING))


def outside() -> Host:
    """A client beyond the router."""
    own = (Address(OUTSIDE, 24), Address(OUTSIDE6, 64))
    eth0 = Link("eth0", 2, LinkKind.NIC, mac(0, 9), peer=Peer("router", "eth1"), addresses=own)
    routes = (*networks("eth0", *own), *defaults("eth0", "192.0.2.1", "2001:db8::1"))
    return assembled("outside", "client", Part((loopback(), eth0), routes, listeners=LISTENERS))


def lab(
    overlay: Overlay = Overlay.ROUTES, *, mtu: int = 0, rules: Patches | None = None, sysctls: Mapping[str, int] = {}
) -> Network:
    """The whole network. `mtu` is that of containers, bridges and tunnels (1450 with VXLAN); `rules` are by machine;
    `sysctls` are those of both machines.
    """
    mtu = mtu or (1450 if overlay is Overlay.VXLAN else 1500)
    given = rules or {}
    hosts = (
        *(container(name, mtu, Part(patches=given.get(name, ()))) for name in CONTAINERS),
        *(
            machine(number, overlay, mtu, Part(patches=given.get(f"m{number}", ()), sysctls=sysctls))
            for number in (1, 2)
        ),
        switch(),
        router(),
        outside(),
    )
    return Network({host.name: host for host in hosts})


def ruled(
    *patches: Patch, on: str = "m1", overlay: Overlay = Overlay.ROUTES, sysctls: Mapping[str, int] = {}
) -> Network:
    """The network with rules on one machine."""
    return lab(overlay, rules={on: patches}, sysctls=sysctls)


# Changes of a network


def set_sysctls(network: Network, name: str, **values: int) -> Network:
    """Another network where one machine has other settings: `set_sysctls(lab(), "m1", **{"…ip_forward": 0})`."""
    host = network[name]
    return network.replacing(msgspec.structs.replace(host, sysctls={**host.sysctls, **values}))


def set_link(network: Network, name: str, device: str, **fields: object) -> Network:
    """Another network where one device differs: `set_link(lab(), "m1", "cni0", up=False)`."""
    host = network[name]
    links = tuple(msgspec.structs.replace(link, **fields) if link.name == device else link for link in host.links)
    return network.replacing(msgspec.structs.replace(host, links=links))


def add(network: Network, name: str, **fields: tuple[object, ...]) -> Network:
    """Another network where one machine has more of something: `add(lab(), "m1", routes=(Route(...),))`."""
    host = network[name]
    more = {field: (*values, *getattr(host, field)) for field, values in fields.items()}
    return network.replacing(msgspec.structs.replace(host, **more))


def without_route(network: Network, name: str, prefix: str, family: int = 4) -> Network:
    """Another network where one machine has lost its route to `prefix`."""
    routes = [route for route in network[name].routes if route.prefix == prefix and route.family == family]
    return network.without(name, routes[0])


def set_policy(network: Network, name: str, table: str, chain: str, policy: str = "DROP") -> Network:
    """Another network where a base chain of one machine has another policy (IPv4)."""
    host = network[name]
    held = host.netfilter.ipv4[table]
    chains = held.chains.replacing(Chain(chain, held.chains[chain].rules, policy))
    ipv4 = {**host.netfilter.ipv4, table: Table(table, chains)}
    return network.replacing(msgspec.structs.replace(host, netfilter=Netfilter(ipv4, host.netfilter.ipv6)))


# Rules


def rule(table: str, chain: str, *matches: Match, to: Target) -> Rule:
    """One rule, in the order it prints."""
    return Rule(table, chain, matches, to)


def to(address: str, port: int = 0, protocol: str = "TCP") -> tuple[Match, ...]:
    """Matches of a destination."""
    matches = (Destination(Prefix.of(address)), Protocol4(protocol))
    return (*matches, L4(protocol.lower(), port)) if port else matches


def source(cidr: str, *, invert: bool = False) -> Source:
    """The match of a source."""
    return Source(Prefix.of(cidr), invert)


def filters(*rules: Rule, family: int = 4) -> Patch:
    """Rules of table filter."""
    return Patch("filter", family, last=rules)


def service(backend: str, port: int = 80, *, vip: str = VIP, target: int = 80, protocol: str = "TCP") -> Patch:
    """The virtual address is the backend, for what is forwarded and for what the machine itself sends."""
    matches = to(vip, port, protocol)
    hooks = ("PREROUTING", "OUTPUT")
    return Patch(
        "nat",
        family(vip),
        last=tuple(Rule("nat", hook, (*matches, Comment("the service")), Dnat(backend, target)) for hook in hooks),
    )


def masquerade(*matches: Match, family: int = 4) -> Patch:
    """What matches leaves with the address of the outgoing device."""
    return Patch("nat", family, last=(Rule("nat", "POSTROUTING", matches, Masquerade()),))


def node_port(port: int, backend: str, target: int = 80) -> Patch:
    """A port of the machine itself is the backend, and the source is hidden: mark, translate, masquerade by mark."""
    tcp, matches = Protocol4("TCP"), (Protocol4("TCP"), L4("tcp", port))
    chain = (Rule("nat", "PORT", (), SetMark(0x4000, 0x4000)), Rule("nat", "PORT", (tcp,), Dnat(backend, target)))
    hooks = ("PREROUTING", "OUTPUT")
    return Patch(
        "nat",
        last=(
            *(Rule("nat", hook, matches, Jump("PORT")) for hook in hooks),
            Rule("nat", "POSTROUTING", (Mark(0x4000, 0x4000),), Masquerade()),
        ),
        chains={"PORT": Chain("PORT", chain)},
    )


TRACKING = filters(rule("filter", "FORWARD", Comment("let everything through"), to=ACCEPT))
"""A rule that changes nothing, so that the hooks run."""


def rejecting(chain: str, address: str, kind: str, port: int = 80, protocol: str = "TCP") -> Patch:
    """A rule of table filter that rejects what goes to an address and port."""
    return filters(Rule("filter", chain, to(address, port, protocol), Reject(kind)), family=6 if ":" in address else 4)


# Flows


class Ending(NamedTuple):
    """What became of the packet, and what the program is told."""

    verdict: Verdict
    client: Client


ARRIVES = Ending(Verdict.DELIVERED, Client.OPEN)
REFUSED = Ending(Verdict.REJECTED, Client.REFUSED)
PROHIBITED = Ending(Verdict.REJECTED, Client.UNREACHABLE)
REJECTED = Ending(Verdict.REJECTED, Client.TIMEOUT)  # the client does not learn of it
UNREACHED = Ending(Verdict.UNREACHABLE, Client.UNREACHABLE)
UNTOLD = Ending(Verdict.UNREACHABLE, Client.TIMEOUT)
DROPPED = Ending(Verdict.DROPPED, Client.TIMEOUT)
SILENT = Ending(Verdict.TIMEOUT, Client.TIMEOUT)  # it is lost, or its answer is


class Flow(msgspec.Struct, frozen=True):
    """One line of a packet-flow table: a network, what is sent, and what must come of it.

    `taker` is the machine whose program gets the packet and `seen` the source that it sees; both are empty where
    nobody does. `says` is a part of the reason, of a step or of a rule that the packet met. `size` is the payload's.
    """

    name: str
    network: Network
    source: str
    address: str
    port: int = 80
    protocol: str = "TCP"
    ending: Ending = ARRIVES
    taker: str = ""
    seen: str = ""
    says: str = ""
    size: int = 0
    df: bool = True


def send(
    network: Network,
    name: str,
    address: str,
    port: int = 80,
    protocol: str = "TCP",
    *,
    choose: Choose | None = None,
    size: int = 0,
    df: bool = True,
) -> Exchange:
    """Send one packet in a fresh world."""
    world = World(network, random.Random(7), choose=choose)
    return exchange(world, name, address, port, protocol, payload=bytes(size), df=df)


def told(found: Exchange) -> str:
    """A walk, one step a line, for messages of tests that fail."""
    lines = [_line(step) for step in found.steps]
    back = [_line(step) for step in found.reply]
    return "\n".join(("", *lines, "-- back --", *back, found.reason))


def _line(step: Step) -> str:
    rule = f"  [{step.rule.text}]" if step.rule is not None else ""
    return f"{step.where:8} {step.device:10} {step.action:12} {step.packet}  -- {step.why}{rule}"


def check(flow: Flow) -> None:
    """Walk a flow and compare; the message of a failure is the walk."""
    found = send(flow.network, flow.source, flow.address, flow.port, flow.protocol, size=flow.size, df=flow.df)
    arrival, walk = found.arrival, told(found)
    assert (found.fate, found.client) == flow.ending, walk
    assert (arrival.host if arrival else "") == flow.taker, walk
    assert (arrival.packet.ip.src if arrival else "") == flow.seen, walk
    assert flow.says in walk, walk


def each(flows: Iterable[Flow]) -> pytest.MarkDecorator:
    """A test that runs once for every row of a table."""
    rows = tuple(flows)
    return pytest.mark.parametrize("flow", rows, ids=[flow.name for flow in rows])
