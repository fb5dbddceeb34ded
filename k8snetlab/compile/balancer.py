"""How does a packet for a load balancer's address get to a node?

Kubernetes leaves that to somebody else: a cloud, MetalLB, or nobody. Whoever it is gives a Service of type
LoadBalancer an address (`status.loadBalancer.ingress`) and then has to lead what comes for that address to nodes, whose
kube-proxy does the rest. The ways differ, and the packet shows it:

- `none`: nobody. The Service stays pending and is reached at its node ports. Addresses that a dump brings with it are
  led to a node by a route, for one question at a time (`underlay.led_through`).
- `metallb-l2`: one node answers ARP for the address, and so gets everything. Nodes agree on it without talking: the
  one whose name gives the smallest hash together with the address. Under policy Local only nodes with an endpoint stand
  for election.
- `metallb-bgp`: every node announces the address to the router, under policy Local every node with an endpoint. The
  router's multipath route spreads the flows over them.
- `cloud`: a load balancer in the network passes packets through as they are (as Google's and AWS's network load
  balancers do). It sends to the nodes that are healthy: under policy Local those whose health check node port says 200.
- `proxy`: a load balancer that takes the connection and opens another one, to a node port. The backend's node sees the
  load balancer's own address, and kube-proxy is told to write no rules for an address that somebody else owns (`ipMode:
  Proxy`).

Nodes labelled `node.kubernetes.io/exclude-from-external-load-balancers` are left out by all of them.

Not modelled: BGP sessions, failover and what is lost in it, health checks of the nodes themselves, a proxy's answer
before it has asked a backend (here the connection is translated at once, source and destination), MetalLB's sharing of
an address. Guide section 2.2; MetalLB 0.15, KEP-1860 (ipMode), RFC 4786 (anycast).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from hashlib import sha256

import msgspec

from k8snetlab import api, services
from k8snetlab.address import Prefix, family
from k8snetlab.compile.layout import BALANCER, ROUTER, Layout
from k8snetlab.compile.underlay import NIC, router_device
from k8snetlab.linux.host import Part
from k8snetlab.linux.link import Responder, loopback
from k8snetlab.linux.netfilter import (
    L4,
    Comment,
    CtState,
    Destination,
    Dnat,
    Masquerade,
    Patch,
    Protocol4,
    Rule,
    Statistic,
)
from k8snetlab.linux.route import NextHop, Route, RouteType, multipath

__all__ = ["IMPLEMENTATIONS", "Implementation", "Parts"]

Parts = Mapping[str, Part]
"""What an implementation adds to machines, by their names."""

EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"


class Implementation(msgspec.Struct, frozen=True):
    """A way to bring packets to nodes. `gives` is what it calls the addresses that it gives away (nothing: it gives
    none), `machine` whether a machine of its own stands in the network.
    """

    parts: Callable[[Layout], Parts]
    gives: api.IPMode | None = api.IPMode.VIP
    machine: bool = False


class Front(msgspec.Struct, frozen=True):
    """A Service at its load balancer's addresses: all of them, and its ports with their endpoints in the family of
    each.
    """

    service: api.Service
    addresses: tuple[str, ...]
    ports: Mapping[int, tuple[services.Exposure, ...]]

    @property
    def local(self) -> bool:
        """Whether only nodes with an endpoint of their own can use what comes."""
        return self.service.spec.external_traffic_policy is api.TrafficPolicy.LOCAL

    def backends(self) -> Iterator[services.Backend]:
        """All its endpoints."""
        return (backend for ports in self.ports.values() for port in ports for backend in port.backends)


def fronts(layout: Layout) -> Iterator[Front]:
    """The Services that have addresses of a load balancer."""
    exposed: dict[str, dict[int, list[services.Exposure]]] = {}
    for of, ports in layout.exposures.items():
        for port in ports:
            exposed.setdefault(f"{port.namespace}/{port.service}", {}).setdefault(of, []).append(port)
    for service in layout.objects.services:
        addresses = tuple(each.ip for each in service.load_balancer if each.ip)
        if addresses and service.spec.type is api.ServiceType.LOAD_BALANCER:
            ports_of = {of: tuple(ports) for of, ports in exposed.get(service.key, {}).items()}
            yield Front(service, addresses, ports_of)


def _eligible(layout: Layout) -> tuple[str, ...]:
    return tuple(name for name, node in layout.nodes.items() if EXCLUDED not in node.labels)


def _announcing(layout: Layout, front: Front) -> tuple[str, ...]:
    """The nodes from which MetalLB may announce a Service: none while no endpoint serves, and under policy Local those
    with one that does.
    """
    serving = {backend.node for backend in front.backends() if backend.serving}
    nodes = _eligible(layout) if serving else ()
    return tuple(node for node in nodes if node in serving) if front.local else nodes


def _healthy(layout: Layout, front: Front) -> tuple[str, ...]:
    """The nodes that a load balancer sends to: under policy Local those that kube-proxy calls healthy."""
    backends = tuple(front.backends())
    return tuple(node for node in _eligible(layout) if not front.local or services.ready_on(backends, node))


# MetalLB


def _layer2(layout: Layout) -> Parts:
    """One node answers for each address, on the segment that the address belongs to; the router asks there."""
    routes: list[Route] = []
    answers: dict[str, list[Responder]] = {}
    for front in fronts(layout):
        for address in front.addresses:
            segment = layout.segment_of(address)
            if segment is None:  # the router must be told that the address is on a cable of its
                segment = layout.segments[0]
                device = router_device(layout, segment)
                routes.append(Route(str(Prefix.of(address)), device, scope="link", family=family(address)))
            there = [name for name in _announcing(layout, front) if layout.stations[name].segment is segment]
            if there:
                leader = min(there, key=lambda node: _ballot(node, front.addresses[0]))
                answers.setdefault(leader, []).append(Responder(address, NIC, "metallb-speaker"))
    return {ROUTER: Part(routes=tuple(routes)), **{node: Part(responders=tuple(a)) for node, a in answers.items()}}


def _ballot(node: str, address: str) -> bytes:
    """What decides between nodes; a Service with several addresses is decided by its first."""
    return sha256(f"{node}#{address}".encode()).digest()


BGP_METRIC = 20
"""What FRR gives the routes it learns from a neighbour of another AS."""


def _bgp(layout: Layout) -> Parts:
    routes = (
        multipath(str(Prefix.of(address)), hops, protocol="bgp", metric=BGP_METRIC)
        for front in fronts(layout)
        for address in front.addresses
        if (hops := _towards(layout, _announcing(layout, front), family(address)))
    )
    return {ROUTER: Part(routes=tuple(routes), sysctls=BY_PORTS)}


BY_PORTS = {f"net.ipv{of}.fib_multipath_hash_policy": 1 for of in (4, 6)}
"""Each connection is a flow of its own, not each client."""


def _towards(layout: Layout, nodes: Iterable[str], of: int) -> tuple[NextHop, ...]:
    """The ways from a machine with a foot in every subnet to nodes, at their addresses of a family."""
    stations = (layout.stations[node] for node in nodes)
    return tuple(
        NextHop(router_device(layout, station.segment), address)
        for station in stations
        for address in [each for each in station.addresses if family(each) == of][:1]
    )


# A load balancer in the network


def _passing(layout: Layout) -> Parts:
    """The router sends it the addresses, and it sends each flow on to a healthy node."""
    routes = []
    for front in fronts(layout):
        for address in front.addresses:
            hops = _towards(layout, _healthy(layout, front), family(address))
            prefix = str(Prefix.of(address))
            refused = Route(prefix, type=RouteType.BLACKHOLE, family=family(address))
            routes.append(multipath(prefix, hops) if hops else refused)
    own = Part(links=(loopback(),), routes=tuple(routes), sysctls=BY_PORTS)
    return {ROUTER: Part(routes=tuple(_to_the_balancer(layout))), BALANCER: own}


def _proxying(layout: Layout) -> Parts:
    """It has the addresses itself, and speaks to node ports with its own."""
    patches: dict[int, list[Rule]] = {}
    held: list[str] = []
    for front in fronts(layout):
        held += front.addresses
        for address in front.addresses:
            of = family(address)
            for port in front.ports.get(of, ()):
                if port.node_port:
                    nodes = [hop.via for hop in _towards(layout, _healthy(layout, front), of)]
                    patches.setdefault(of, []).extend(_spread(address, port, nodes))
    nat = tuple(Patch("nat", of, last=(*rules, MASQUERADE)) for of, rules in patches.items())
    own = Part(links=(loopback(*held),), patches=nat)
    return {ROUTER: Part(routes=tuple(_to_the_balancer(layout))), BALANCER: own}


MASQUERADE = Rule("nat", "POSTROUTING", (CtState(("DNAT",)),), Masquerade())


def _spread(address: str, port: services.Exposure, nodes: Sequence[str]) -> Iterator[Rule]:
    """Each of the nodes with the same probability."""
    name = port.protocol.lower()
    to = (Destination(Prefix.of(address)), Protocol4(port.protocol), Comment(port.full_name), L4(name, dport=port.port))
    for left, node in zip(range(len(nodes), 0, -1), nodes, strict=True):
        chance = (Statistic(1 / left),) if left > 1 else ()
        yield Rule("nat", "PREROUTING", (*to, *chance), Dnat(node, port.node_port))


def _to_the_balancer(layout: Layout) -> Iterator[Route]:
    segment = layout.segments[0]
    own = {family(address.ip): address.ip for address in layout.balancer_addresses(segment)}
    for front in fronts(layout):
        for address in front.addresses:
            of = family(address)
            yield Route(str(Prefix.of(address)), router_device(layout, segment), own[of], family=of)


IMPLEMENTATIONS: Mapping[str, Implementation] = {
    "none": Implementation(lambda layout: {}, gives=None),
    "metallb-l2": Implementation(_layer2),
    "metallb-bgp": Implementation(_bgp),
    "cloud": Implementation(_passing, machine=True),
    "proxy": Implementation(_proxying, gives=api.IPMode.PROXY, machine=True),
}
"""Who gives Services of type LoadBalancer their addresses and leads packets to nodes, by the name of the option."""
