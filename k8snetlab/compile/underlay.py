"""What stands around the nodes?

One switch for each underlay subnet, one router that joins them, and beyond it the outside world: one cable with a
client. The router knows the underlay subnets and the outside, nothing of pods or Services; what is for these ends in
its blackhole route, unanswered, as private addresses do on the Internet. Some CNIs tell it where pods are (`learnt`);
what comes from outside still finds none.

A client may be put anywhere else for one question (`client`), and outside traffic for an address may be led to a node
(`led_through`), as a cloud's load balancer or an administrator's route does. Both give another network.

Not modelled: ARP between routers, link failure, firewalls of a cloud. Guide sections 1.1 and 1.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import msgspec

from k8snetlab.address import Prefix, family, special
from k8snetlab.compile.layout import BALANCER, CLIENT, OUTSIDE, ROUTER, Layout, Segment, Station
from k8snetlab.errors import BadOption, Problem
from k8snetlab.linux.host import Host, Network, Part, assembled
from k8snetlab.linux.link import Address, Link, LinkKind, Peer, loopback
from k8snetlab.linux.route import Route, RouteType, RoutingRule, connected
from k8snetlab.linux.socket import Listener

__all__ = [
    "balancer", "client", "learnt", "led_through", "nic", "outside", "router", "router_device", "station", "switch",
    "underlay_routes",
]  # fmt: skip

NIC = "eth0"
WAN = "wan0"
"""The router's device towards the outside world."""


# On a subnet


def nic(station: Station, mtu: int = 1500) -> Link:
    """The network card of a machine, plugged into its switch."""
    addresses = tuple(
        Address(address, block.length)
        for address in station.addresses
        if (block := station.segment.block(address)) is not None
    )
    return _card(NIC, 2, station.name, Peer(station.segment.switch, _port(station.name)), addresses, mtu)


def underlay_routes(station: Station) -> Iterator[Route]:
    """The routes of a machine that has nothing but its card: the default route and its own subnets."""
    for of in sorted({family(address) for address in station.addresses}):
        gateway = station.segment.gateway(of)
        if gateway:
            yield Route("default", NIC, gateway, family=of)
    for address in station.addresses:
        block = station.segment.block(address)
        if block is not None:
            yield connected(block, NIC, address)


def station(at: Station) -> Part:
    """A machine that is no node: its card, its routes and what it serves."""
    return Part(links=(loopback(), nic(at)), routes=tuple(underlay_routes(at)), listeners=at.listeners)


def switch(layout: Layout, segment: Segment, *more: tuple[str, str]) -> Host:
    """A switch: a bridge with a port for each machine of its subnet, for the router and for `more` machines with their
    devices. It does not look into IP.
    """
    bridge = Link("br0", 1, LinkKind.BRIDGE, _mac(segment.switch, "br0"))
    there = [(station.name, NIC) for station in layout.stations.values() if station.segment is segment]
    there += ((ROUTER, router_device(layout, segment)), *more)
    ports = tuple(_switch_port(segment.switch, at, name, device) for at, (name, device) in enumerate(there, 2))
    quiet = {"net.bridge.bridge-nf-call-iptables": 0, "net.bridge.bridge-nf-call-ip6tables": 0}
    return assembled(segment.switch, "switch", Part(links=(bridge, *ports), sysctls=quiet))


def _switch_port(name: str, index: int, station: str, device: str) -> Link:
    port = _port(station)
    return Link(port, index, LinkKind.NIC, _mac(name, port), master="br0", peer=Peer(station, device))


# Between the subnets, and beyond


def router_device(layout: Layout, segment: Segment) -> str:
    """The router's device in a subnet."""
    return f"eth{layout.segments.index(segment)}"


def router(layout: Layout, *more: Part) -> Host:
    """The machine that joins the underlay subnets and the outside world, and has `more` routes."""
    links: list[Link] = [loopback()]
    routes: list[Route] = []
    cables = [
        (router_device(layout, segment), Peer(segment.switch, _port(ROUTER)), segment.gateways, segment.blocks)
        for segment in layout.segments
    ]
    cables.append((WAN, Peer(CLIENT, NIC), tuple(block.address(1) for block in OUTSIDE), OUTSIDE))
    for index, (device, peer, addresses, blocks) in enumerate(cables, 2):
        held = tuple(zip(addresses, blocks, strict=True))
        own = tuple(Address(address, block.length) for address, block in held)
        links.append(_card(device, index, ROUTER, peer, own))
        routes.extend(connected(block, device, address) for address, block in held)
    routes.extend(Route("default", type=RouteType.BLACKHOLE, family=of) for of in (4, 6))
    forwarding = {"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1}
    return assembled(ROUTER, "router", Part(links=tuple(links), routes=tuple(routes), sysctls=forwarding), *more)


OUTER = "100"
"""The router's table for packets from outside, and the priority of the rule that leads there."""


def learnt(layout: Layout, told: Part) -> Part:
    """What a CNI tells the router, with the device that leads to each gateway. Nothing of it is for packets from
    outside: to them the pod networks are as unknown as before.
    """
    if not told.routes:
        return told
    pods = layout.objects.networks.pods
    dark = [Route(str(block), type=RouteType.BLACKHOLE, table=OUTER, family=block.family) for block in pods]
    rules = [RoutingRule(int(OUTER), OUTER, iif=WAN, family=block.family) for block in pods]
    near = [msgspec.structs.replace(route, device=_towards(layout, route)) for route in told.routes]
    return msgspec.structs.replace(told, routes=(*near, *dark), rules=(*told.rules, *rules))


def _towards(layout: Layout, route: Route) -> str:
    segment = layout.segment_of(route.via)
    if segment is None:
        raise BadOption(Problem(f"the gateway {route.via} is on no underlay subnet", object=ROUTER, field=route.prefix))
    return router_device(layout, segment)


def balancer(layout: Layout, more: Part) -> Host:
    """A load balancer: a machine with a foot in every subnet, which sends on what it is told to send on."""
    links, routes = [], []
    for index, segment in enumerate(layout.segments, 2):
        own, device = layout.balancer_addresses(segment), router_device(layout, segment)
        links.append(_card(device, index, BALANCER, Peer(segment.switch, _port(BALANCER)), own))
        routes += [connected(address.prefix, device, address.ip) for address in own]
    home = layout.segments[0]
    routes += [Route("default", NIC, via, family=family(via)) for via in home.gateways]
    forwarding = {"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1}
    return assembled(BALANCER, "balancer", Part(links=tuple(links), routes=tuple(routes), sysctls=forwarding), more)


def outside(*addresses: str) -> Host:
    """The client outside, on its own cable to the router; it also serves web pages, for pods that look outside."""
    held = [(address, block) for block in OUTSIDE for address in addresses if block.contains(address)]
    own = tuple(Address(address, block.length) for address, block in held)
    routes = [
        route
        for address, block in held
        for route in (
            Route("default", NIC, block.address(1), family=block.family),
            connected(block, NIC, address),
        )
    ]
    web = (Listener("TCP", 80, program="web"), Listener("TCP", 443, program="web"))
    links = (loopback(), _card(NIC, 2, CLIENT, Peer(ROUTER, WAN), own))
    return assembled(CLIENT, "client", Part(links=links, routes=tuple(routes), listeners=web))


# For one question


def client(layout: Layout, network: Network, address: str) -> tuple[Network, str]:
    """The network with a client at `address` outside the cluster, and the client's name.

    On an underlay subnet it is plugged into that switch; anywhere else it takes the place of the outside client,
    behind the router. A machine that has the address already is taken as it is, but a pod is not outside, and some
    addresses are nobody's: `BadOption`.
    """
    meaning = special(address)
    if meaning:
        raise BadOption(Problem(f"no client can have {address}: {meaning}", field="from"))
    for host in sorted(network.may_own(address)):
        if host in network and address in network[host].owned:
            if network[host].kind == "container":
                raise BadOption(Problem(f"{address} is the address of pod {host}, which is not outside", field="from"))
            return network, host
    name = f"{CLIENT}:{address}"
    segment = layout.segment_of(address)
    if segment is not None:
        return _plugged_in(network, segment, Station(name, "client", segment, (address,))), name
    return _behind_the_router(network, address, name), name


def _plugged_in(network: Network, segment: Segment, new: Station) -> Network:
    there = network[segment.switch]
    port = _switch_port(segment.switch, len(there.links) + 1, new.name, NIC)
    wider = msgspec.structs.replace(there, links=(*there.links, port))
    return network.replacing(wider, assembled(new.name, new.kind, station(new)))


def _behind_the_router(network: Network, address: str, name: str) -> Network:
    """The outside client's cable leads to a machine with this address instead, wherever that may be."""
    of = family(address)
    alone = Prefix.of(address)
    gateway = next(block for block in OUTSIDE if block.family == of).address(1)
    base, joint = network[CLIENT], network[ROUTER]
    card = msgspec.structs.replace(base.link(NIC), addresses=(Address(address, alone.length),))
    moved = msgspec.structs.replace(
        base,
        name=name,
        links=tuple(card if link.name == NIC else link for link in base.links),
        routes=(Route("default", NIC, gateway, family=of, onlink=True),),
    )
    cable = msgspec.structs.replace(joint.link(WAN), peer=Peer(name, NIC))
    wider = msgspec.structs.replace(
        joint,
        links=tuple(cable if link.name == WAN else link for link in joint.links),
        routes=(*joint.routes, Route(str(alone), WAN, scope="link", family=of)),
    )
    return network.replacing(wider, moved)


def led_through(layout: Layout, network: Network, source: str, address: str, node: str) -> Network:
    """The network in which outside traffic for `address` is led to a node: a host route on the client, if it is on
    the node's underlay subnet, else on the router. That is what MetalLB, a cloud's load balancer or an
    administrator's route does. Raises `UnknownName` for no node, `BadOption` for one without an address of the family.
    """
    there = layout.stations[layout.objects.node(node).name]
    of = family(address)
    via = next((own for own in there.addresses if family(own) == of), "")
    if not via:
        raise BadOption(Problem(f"the node has no IPv{of} address", object=f"Node {node}", field="via"))
    host = network[source]
    segment = next((layout.segment_of(own) for own in host.owned if layout.segment_of(own) is not None), None)
    at = host if segment is there.segment else network[ROUTER]
    device = NIC if at is host else router_device(layout, there.segment)
    led = Route(str(Prefix.of(address)), device, via, family=of)
    routes = tuple(route for route in at.routes if route.prefix != led.prefix)
    return network.replacing(msgspec.structs.replace(at, routes=(*routes, led)))


# Names


def _card(device: str, index: int, host: str, peer: Peer, addresses: tuple[Address, ...], mtu: int = 1500) -> Link:
    return Link(device, index, LinkKind.NIC, _mac(host, device), mtu, peer=peer, addresses=addresses)


def _mac(*names: str) -> str:
    """A locally administered MAC, hashed from the names of what it belongs to."""
    digest = sha256("/".join(names).encode()).digest()
    return "02:" + ":".join(f"{byte:02x}" for byte in digest[:5])


def _port(station: str) -> str:
    """The name of the switch port a machine is plugged into: short enough for the kernel (15 characters)."""
    short = f"p-{station}"
    if len(short) <= 15 and ":" not in short and "/" not in short:
        return short
    return f"p-{sha256(station.encode()).hexdigest()[:10]}"
