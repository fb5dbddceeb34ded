"""What would the machines of this cluster really hold?

Here objects become Linux state. For every machine the rooms are asked what they would write there — the CNI its
devices, routes and neighbours, kube-proxy its rules — and this module alone puts their answers together into Hosts.
Each Host is made when a packet first comes by, so a trace through three machines costs three machines.

Around the nodes stands what every cluster has and no manifest says: the *underlay*. One switch for each underlay
subnet, one router that joins them (the first address of each subnet is its), and beyond it the outside world,
203.0.113.0/24 with a client at 203.0.113.10. The router knows the underlay and nothing of pods or Services: packets
for those end in its blackhole route, unanswered, as private addresses do on the Internet.

Not modelled: ARP between routers, link failure, bonded or several underlay interfaces, firewalls of a cloud. Guide
sections 1.1 and 1.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from hashlib import sha256

import msgspec

from k8snetlab import api, cni, services
from k8snetlab.address import Prefix, family
from k8snetlab.controllers import Resolved
from k8snetlab.errors import BadOption, Overlap, Problem
from k8snetlab.linux.host import Host, Network, Part, assembled
from k8snetlab.linux.link import Address, Link, LinkKind, Peer, loopback
from k8snetlab.linux.route import Route, RouteTable, RouteType
from k8snetlab.linux.socket import Listener

__all__ = ["CLIENT", "PROXIES", "ROUTER", "Layout", "Segment", "client", "compiled"]

ROUTER = "router"
CLIENT = "external"
CONTROL_PLANE = "control-plane"
OUTSIDE = (Prefix.of("203.0.113.0/24"), Prefix.of("2001:db8:203::/64"))
"""The outside world: TEST-NET-3 (RFC 5737) and a part of the documentation prefix (RFC 3849)."""

KUBELET = Listener("TCP", 10250, program="kubelet")


def client_address(of: int) -> str:
    """The address of the client outside, in family 4 or 6."""
    return OUTSIDE[0].address(10) if of == 4 else OUTSIDE[1].address(0x10)


PROXIES: tuple[str, ...] = tuple(services.MODES)
"""The modes of kube-proxy that can be compiled."""


class Segment(msgspec.Struct, frozen=True):
    """One underlay subnet: its switch, its blocks (one a family), and the router's address in each."""

    switch: str
    blocks: tuple[Prefix, ...]
    gateways: tuple[str, ...]

    def gateway(self, of: int) -> str:
        """The router's address of that family, or nothing."""
        return next((address for address in self.gateways if family(address) == of), "")

    def block(self, address: str) -> Prefix | None:
        """The block that an address is in."""
        return next((block for block in self.blocks if block.contains(address)), None)


class Station(msgspec.Struct, frozen=True):
    """A machine on the underlay that is no router: its name, the segment it is plugged into and its addresses."""

    name: str
    kind: str
    segment: Segment
    addresses: tuple[str, ...]
    listeners: tuple[Listener, ...] = ()


class Layout:
    """Who stands where on the underlay: worked out once from the objects, before any Host is built."""

    def __init__(self, objects: Resolved) -> None:
        self.objects = objects
        self.nodes = {node.name: node for node in objects.nodes}

    @cached_property
    def blocks(self) -> tuple[Prefix, ...]:
        """The underlay subnets: those asked for, and for a node outside of them the /24 or /64 around it."""
        found = list(self.objects.networks.nodes)
        for node in self.objects.nodes:
            for address in node.addresses:
                if not any(block.contains(address) for block in found):
                    found.append(Prefix.of(f"{address}/{24 if family(address) == 4 else 64}"))
        return tuple(found)

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The underlay subnets with a switch each. Blocks of both families share one where a node is in both."""
        groups: dict[Prefix, list[Prefix]] = {}
        for node in self.objects.nodes:
            held = [block for address in node.addresses for block in self.blocks if block.contains(address)]
            if held:
                group = groups.setdefault(held[0], [held[0]])
                group.extend(block for block in held if block not in group)
        if not groups:
            groups = {self.blocks[0]: list(self.blocks[:1])}
        names = ["switch"] if len(groups) == 1 else [f"switch-{at}" for at in range(1, len(groups) + 1)]
        taken = {address for node in self.objects.nodes for address in node.addresses}.union(self.served_elsewhere)
        return tuple(
            Segment(name, tuple(blocks), tuple(_gateway(block, taken) for block in blocks))
            for name, blocks in zip(names, groups.values(), strict=True)
        )

    def segment_of(self, address: str) -> Segment | None:
        """The underlay segment that an address belongs to."""
        return next((segment for segment in self.segments if segment.block(address) is not None), None)

    @cached_property
    def stations(self) -> Mapping[str, Station]:
        """The machines on the underlay by name: nodes, then what manual EndpointSlices point at."""
        found: dict[str, Station] = {}
        for node in self.objects.nodes:
            segment = self.segment_of(node.addresses[0]) if node.addresses else None
            if segment is None:
                raise BadOption(Problem("the node has no InternalIP", object=node.ref, field="status.addresses"))
            found[node.name] = Station(node.name, "machine", segment, node.addresses)
        owned = {address for station in found.values() for address in station.addresses}
        for address, listeners in self.served_elsewhere.items():
            segment = self.segment_of(address)
            if segment is None or address in owned:
                continue
            apiserver = any(listener.program == "kube-apiserver" for listener in listeners)
            name = CONTROL_PLANE if apiserver and CONTROL_PLANE not in found else f"{CLIENT}:{address}"
            found[name] = Station(name, "machine" if apiserver else "client", segment, (address,), listeners)
        return found

    @cached_property
    def served_elsewhere(self) -> Mapping[str, tuple[Listener, ...]]:
        """Addresses that EndpointSlices name and no pod has, with the ports that must be served there."""
        pods = {address for pod in self.objects.pods for address in pod.ips}
        found: dict[str, dict[tuple[str, int], Listener]] = {}
        for piece in self.objects.endpoint_slices:
            program = "kube-apiserver" if (piece.namespace, piece.service_name) == ("default", "kubernetes") else ""
            for endpoint in piece.endpoints:
                for port in piece.ports:
                    if endpoint.address not in pods and port.port and piece.address_type is not api.AddressType.FQDN:
                        listener = Listener(
                            str(port.protocol), port.port, endpoint.address, program or piece.service_name
                        )
                        found.setdefault(endpoint.address, {})[listener.protocol, listener.port] = listener
        return {address: tuple(ports.values()) for address, ports in sorted(found.items())}

    @cached_property
    def machines(self) -> Mapping[str, cni.Machine]:
        """The nodes as a CNI sees them."""
        return {
            node.name: cni.Machine(
                name=node.name,
                addresses=tuple(self._address(node.name, address) for address in node.addresses),
                pod_cidrs=tuple(Prefix.of(block) for block in node.pod_cidrs),
                annotations=node.metadata.annotations,
            )
            for node in self.objects.nodes
        }

    def _address(self, station: str, address: str) -> Address:
        block = self.stations[station].segment.block(address)
        return Address(address, block.length if block is not None else 32 if family(address) == 4 else 128)

    @cached_property
    def cni_plan(self) -> cni.Plan:
        """All nodes and ranges as a CNI sees them."""
        return cni.Plan(tuple(self.machines.values()), self.objects.networks.pods, self.objects.networks.services)

    @cached_property
    def workloads(self) -> Mapping[str, tuple[cni.Workload, ...]]:
        """The pods with a network of their own, by node."""
        found: dict[str, list[cni.Workload]] = {name: [] for name in self.nodes}
        for pod in self.objects.pods:
            if has_network(pod):
                found[pod.spec.node_name].append(cni.Workload(pod_host(pod), tuple(pod.ips)))
        return {name: tuple(pods) for name, pods in found.items()}

    @cached_property
    def exposures(self) -> Mapping[int, tuple[services.Exposure, ...]]:
        """Every Service port with its endpoints, by family: what each node's proxy works on."""
        return {of: tuple(services.exposures(self.objects.services, self.objects.endpoint_slices, of)) for of in (4, 6)}

    def owners(self) -> Callable[[str], Iterable[str]]:
        """Which machines may own an address: all that stand on the way, those that hold it, and the node of its
        range.
        """
        always = (ROUTER, *(segment.switch for segment in self.segments))
        exact: dict[str, list[str]] = {}
        for station in self.stations.values():
            for address in station.addresses:
                exact.setdefault(address, []).append(station.name)
        for node, pods in self.workloads.items():
            for pod in pods:
                for address in pod.addresses:
                    exact.setdefault(address, []).extend((pod.name, node))
        ranges = {
            of: RouteTable(
                Route(str(block), device=name, family=block.family)
                for name, machine in self.machines.items()
                for block in machine.pod_cidrs
                if block.family == of
            )
            for of in (4, 6)
        }

        def owning(address: str) -> Iterator[str]:
            yield from always
            yield from exact.get(address, ())
            holder = ranges[family(address)].lookup(address)
            if holder is not None:
                yield holder.device
            if any(block.contains(address) for block in OUTSIDE):
                yield CLIENT

        return owning


def pod_host(pod: api.Pod) -> str:
    """The name of a pod's Host: `shop/web-0`."""
    return f"{pod.namespace}/{pod.name}"


def has_network(pod: api.Pod) -> bool:
    """Whether a pod has a network namespace of its own: it runs, has an address, and does not use its node's."""
    return pod.networked and not pod.host_network


def compiled(layout: Layout, plugin: cni.Cni, proxy: str) -> Network:
    """The network of a cluster: pods `NAMESPACE/NAME`, nodes, switches, the router and the outside client, by name.

    `proxy` is one of `PROXIES`. Hosts are built when they are first looked at.
    """
    if proxy not in services.MODES:
        raise BadOption(Problem(f"there is no proxy mode {proxy!r}; there are {', '.join(PROXIES)}", field="proxy"))
    check_outside(layout)
    held: dict[str, Host | Callable[[], Host]] = {}
    for name, station in layout.stations.items():
        if name in layout.nodes:
            held[name] = lambda name=name: _node(layout, plugin, proxy, name)  # type: ignore[misc]
        else:
            held[name] = lambda station=station: _station(layout, station, plugin)  # type: ignore[misc]
    for node, pods in layout.workloads.items():
        for workload in pods:
            held[workload.name] = lambda node=node, workload=workload: _pod(layout, plugin, node, workload)  # type: ignore[misc]
    for segment in layout.segments:
        held[segment.switch] = lambda segment=segment: _switch(layout, segment)  # type: ignore[misc]
    held[ROUTER] = lambda: _router(layout)
    held[CLIENT] = lambda: _client(CLIENT, (client_address(4), client_address(6)))
    return Network(held, layout.owners())


def check_outside(layout: Layout) -> None:
    """An underlay that holds the outside world's addresses cannot be told from it: `Overlap`."""
    for block in layout.blocks:
        for outside in OUTSIDE:
            if block.overlaps(outside):
                raise Overlap(
                    str(block),
                    str(outside),
                    f"the node network {block} overlaps {outside}, which is the outside world here",
                )


def _node(layout: Layout, plugin: cni.Cni, proxy: str, name: str) -> Host:
    machine = layout.machines[name]
    station = layout.stations[name]
    node = layout.nodes[name]
    served = [listener for address in station.addresses for listener in layout.served_elsewhere.get(address, ())]
    hosted = [
        Listener(protocol, port, program=pod_host(pod), assumed=assumed)
        for pod in layout.objects.pods_on(name)
        if pod.host_network and not pod.completed
        for protocol, port, assumed in layout.objects.listens(pod)
    ]
    own = Part(
        links=(loopback(), _nic(station, machine.mtu)),
        routes=tuple(_underlay_routes(station)),
        listeners=_unique((KUBELET, *served, *hosted)),
    )
    rules = services.MODES[proxy](layout.exposures, node, layout.objects.networks.pods)
    return assembled(name, "machine", own, rules, plugin.node(layout.cni_plan, machine, layout.workloads[name]))


def _pod(layout: Layout, plugin: cni.Cni, node: str, workload: cni.Workload) -> Host:
    pod = layout.objects.pod(workload.name)
    holders = {(port.protocol, port.container_port): each.name for each in pod.listeners() for port in each.ports}
    listeners = tuple(
        Listener(protocol, port, program=holders.get((protocol, port), ""), assumed=assumed)
        for protocol, port, assumed in layout.objects.listens(pod)
    )
    wired = plugin.pod(layout.cni_plan, layout.machines[node], workload)
    return assembled(workload.name, "container", wired, Part(listeners=_unique(listeners)))


def _unique(listeners: Iterable[Listener]) -> tuple[Listener, ...]:
    """One socket for each protocol, address and port: the first that asks."""
    held: dict[tuple[str, str, int], Listener] = {}
    for listener in listeners:
        held.setdefault((listener.protocol, listener.address, listener.port), listener)
    return tuple(held.values())


# The underlay


def _gateway(block: Prefix, taken: set[str]) -> str:
    first = block.address(1)
    return first if first not in taken else block.address(block.size - 2)


def _mac(*names: str) -> str:
    digest = sha256("/".join(names).encode()).digest()
    return "02:" + ":".join(f"{byte:02x}" for byte in digest[:5])


def _port(station: str) -> str:
    """The name of the switch port a machine is plugged into: short enough for the kernel (15 characters)."""
    short = f"p-{station}"
    return (
        short
        if len(short) <= 15 and ":" not in short and "/" not in short
        else f"p-{sha256(station.encode()).hexdigest()[:10]}"
    )


def _nic(station: Station, mtu: int = 1500) -> Link:
    addresses = tuple(
        Address(address, block.length)
        for address in station.addresses
        if (block := station.segment.block(address)) is not None
    )
    peer = Peer(station.segment.switch, _port(station.name))
    return Link("eth0", 2, LinkKind.NIC, _mac(station.name, "eth0"), mtu, peer=peer, addresses=addresses)


def _underlay_routes(station: Station) -> Iterator[Route]:
    for of in sorted({family(address) for address in station.addresses}):
        gateway = station.segment.gateway(of)
        if gateway:
            yield Route("default", "eth0", gateway, family=of)
    for address in station.addresses:
        block = station.segment.block(address)
        if block is not None:
            yield _connected("eth0", address, block)


def _station(layout: Layout, station: Station, plugin: cni.Cni | None = None) -> Host:
    """A machine that is no node. The API server's takes part in the pod network, as far as one without pods can."""
    part = Part(links=(loopback(), _nic(station)), routes=tuple(_underlay_routes(station)), listeners=station.listeners)
    if plugin is None or station.kind != "machine":
        return assembled(station.name, station.kind, part)
    machine = cni.Machine(station.name, part.links[1].addresses)
    return assembled(station.name, station.kind, part, plugin.node(layout.cni_plan, machine, ()))


def _switch(layout: Layout, segment: Segment) -> Host:
    bridge = Link("br0", 1, LinkKind.BRIDGE, _mac(segment.switch, "br0"))
    there = [(station.name, "eth0") for station in layout.stations.values() if station.segment is segment]
    there.append((ROUTER, _router_device(layout, segment)))
    ports = tuple(_switch_port(segment.switch, at, name, device) for at, (name, device) in enumerate(there, 2))
    quiet = {"net.bridge.bridge-nf-call-iptables": 0, "net.bridge.bridge-nf-call-ip6tables": 0}
    return assembled(segment.switch, "switch", Part(links=(bridge, *ports), sysctls=quiet))


def _switch_port(switch: str, index: int, name: str, device: str) -> Link:
    port = _port(name)
    return Link(port, index, LinkKind.NIC, _mac(switch, port), master="br0", peer=Peer(name, device))


def _router_device(layout: Layout, segment: Segment) -> str:
    return f"eth{layout.segments.index(segment)}"


def _router(layout: Layout) -> Host:
    links: list[Link] = [loopback()]
    routes: list[Route] = []
    for at, segment in enumerate(layout.segments):
        device = f"eth{at}"
        pairs = list(zip(segment.gateways, segment.blocks, strict=True))
        links.append(
            Link(
                device,
                2 + at,
                LinkKind.NIC,
                _mac(ROUTER, device),
                peer=Peer(segment.switch, _port(ROUTER)),
                addresses=tuple(Address(address, block.length) for address, block in pairs),
            )
        )
        routes.extend(_connected(device, address, block) for address, block in pairs)
    gateways = tuple((block.address(1), block) for block in OUTSIDE)
    links.append(
        Link(
            "wan0",
            2 + len(layout.segments),
            LinkKind.NIC,
            _mac(ROUTER, "wan0"),
            peer=Peer(CLIENT, "eth0"),
            addresses=tuple(Address(address, block.length) for address, block in gateways),
        )
    )
    routes.extend(_connected("wan0", address, block) for address, block in gateways)
    routes.extend(Route("default", type=RouteType.BLACKHOLE, family=of) for of in (4, 6))
    forwarding = {"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1}
    return assembled(ROUTER, "router", Part(links=tuple(links), routes=tuple(routes), sysctls=forwarding))


def _connected(device: str, address: str, block: Prefix) -> Route:
    """The route that the kernel makes of an address; in IPv6 it names no source."""
    source = address if block.family == 4 else ""
    return Route(str(block), device, source=source, scope="link", protocol="kernel", family=block.family)


def _client(name: str, addresses: tuple[str, ...]) -> Host:
    """The client outside, on its own cable to the router."""
    link = Link(
        "eth0",
        2,
        LinkKind.NIC,
        _mac(name, "eth0"),
        peer=Peer(ROUTER, "wan0"),
        addresses=tuple(
            Address(address, block.length) for address in addresses for block in OUTSIDE if block.contains(address)
        ),
    )
    routes = [
        route
        for address in addresses
        for block in OUTSIDE
        if block.contains(address)
        for route in (
            Route("default", "eth0", block.address(1), family=block.family),
            _connected("eth0", address, block),
        )
    ]
    listeners = (Listener("TCP", 80, program="web"), Listener("TCP", 443, program="web"))
    return assembled(name, "client", Part(links=(loopback(), link), routes=tuple(routes), listeners=listeners))


def client(layout: Layout, network: Network, address: str) -> tuple[Network, str]:
    """The network with a client at `address` outside the cluster, and the client's name.

    On an underlay subnet it is plugged into that switch; anywhere else it takes the place of the outside client,
    behind the router. A machine that has the address already is taken as it is.
    """
    name = f"{CLIENT}:{address}"
    for host in (*layout.stations, ROUTER, CLIENT):
        if address in network[host].owned:
            return network, host
    segment = layout.segment_of(address)
    if segment is not None:
        station = Station(name, "client", segment, (address,))
        switch = network[segment.switch]
        port = _switch_port(segment.switch, len(switch.links) + 1, name, "eth0")
        wider = msgspec.structs.replace(switch, links=(*switch.links, port))
        return network.replacing(wider, _station(layout, station)), name
    of = family(address)
    outside = next(block for block in OUTSIDE if block.family == of)
    gateway = outside.address(1)
    base = network[CLIENT]
    router = network[ROUTER]
    link = base.link("eth0")
    moved = msgspec.structs.replace(
        base,
        name=name,
        links=(base.links[0], msgspec.structs.replace(link, addresses=(Address(address, 32 if of == 4 else 128),))),
        routes=(Route("default", "eth0", gateway, family=of, onlink=True),),
    )
    cable = msgspec.structs.replace(router.link("wan0"), peer=Peer(name, "eth0"))
    there = Route(f"{address}/{32 if of == 4 else 128}", "wan0", scope="link", family=of)
    wider = msgspec.structs.replace(
        router,
        links=tuple(cable if held.name == "wan0" else held for held in router.links),
        routes=(*router.routes, there),
    )
    return network.replacing(wider, moved), name


def led_through(layout: Layout, network: Network, source: str, address: str, node: str) -> Network:
    """The network in which outside traffic for `address` is led to a node: a host route on the client, if it is on
    the node's underlay subnet, else on the router. That is what MetalLB, a cloud's load balancer or an
    administrator's route does.
    """
    station = layout.stations[layout.objects.node(node).name]
    of = family(address)
    via = next((own for own in station.addresses if family(own) == of), "")
    if not via:
        raise BadOption(Problem(f"the node has no IPv{of} address", object=f"Node {node}", field="via"))
    host = network[source]
    segment = next((layout.segment_of(own) for own in host.owned if layout.segment_of(own) is not None), None)
    at = host if segment is station.segment else network[ROUTER]
    device = "eth0" if at is host else _router_device(layout, station.segment)
    prefix = f"{address}/{32 if of == 4 else 128}"
    routes = tuple(route for route in at.routes if route.prefix != prefix)
    return network.replacing(msgspec.structs.replace(at, routes=(*routes, Route(prefix, device, via, family=of))))
