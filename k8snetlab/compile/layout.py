"""Who stands where?

Before any machine is built, its place is known: nodes on the underlay subnet that holds their address, the machines
that hand-written EndpointSlices point at beside them, and pods on their nodes. A `Layout` answers such questions from
the objects alone, each answer worked out when it is first asked for.

Not modelled: several underlay interfaces of one machine; machines far outside that an EndpointSlice names (only those
of the underlay stand somewhere). Guide section 1.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import count

import msgspec

from k8snetlab import api, cni, services
from k8snetlab.address import Prefix, family
from k8snetlab.controllers import Resolved
from k8snetlab.errors import BadOption, Problem
from k8snetlab.linux.link import Address
from k8snetlab.linux.route import Route, RouteTable
from k8snetlab.linux.socket import Listener

__all__ = [
    "APISERVER", "BALANCER", "CLIENT", "OUTSIDE", "RESOLVERS", "ROUTER", "Layout", "Segment", "Station",
    "client_address", "has_network", "pod_host",
]  # fmt: skip

ROUTER = "router"
CLIENT = "external"
CONTROL_PLANE = "control-plane"
BALANCER = "load-balancer"
APISERVER = "kube-apiserver"

RESOLVERS = ("cluster", "node-local")
"""Who may answer the pods' DNS questions."""

OUTSIDE = (Prefix.of("203.0.113.0/24"), Prefix.of("2001:db8:203::/64"))
"""The outside world: TEST-NET-3 (RFC 5737) and a part of the documentation prefix (RFC 3849)."""


def client_address(of: int) -> str:
    """The address of the client outside, in family 4 or 6."""
    return OUTSIDE[0].address(10) if of == 4 else OUTSIDE[1].address(0x10)


def pod_host(pod: api.Pod) -> str:
    """The name of a pod's Host: `shop/web-0`."""
    return f"{pod.namespace}/{pod.name}"


def has_network(pod: api.Pod) -> bool:
    """Whether a pod has a network namespace of its own: it runs, has an address, and does not use its node's."""
    return pod.networked and not pod.host_network


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
    """Who stands where on the underlay: worked out once from the objects, before any Host is built.

    `load_balancer` names who leads packets for load balancers' addresses to nodes (`compile.balancer`), `dns` who
    answers pods (`compile.nodelocal`); `world` are names of the world outside, with their addresses.
    """

    def __init__(
        self,
        objects: Resolved,
        load_balancer: str = "none",
        dns: str = "cluster",
        world: Iterable[tuple[str, str]] = (),
    ) -> None:
        self.objects = objects
        self.load_balancer = load_balancer
        self.dns = dns
        self.world = tuple(world)
        self.nodes = {node.name: node for node in objects.nodes}

    # The underlay

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
    def node_addresses(self) -> tuple[str, ...]:
        """The addresses of every node."""
        return tuple(address for node in self.objects.nodes for address in node.addresses)

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

    def balancer_addresses(self, segment: Segment) -> tuple[Address, ...]:
        """Where a load balancer stands on a segment: the last free address but the router's, one a family."""
        taken = {address for station in self.stations.values() for address in station.addresses}
        free = (
            next(ip for at in count(3) if (ip := block.address(block.size - at)) not in taken)
            for block in segment.blocks
        )
        return tuple(Address(ip, block.length) for ip, block in zip(free, segment.blocks, strict=True))

    @cached_property
    def stations(self) -> Mapping[str, Station]:
        """The machines on the underlay by name: nodes, then what hand-written EndpointSlices point at."""
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
            apiserver = any(listener.program == APISERVER for listener in listeners)
            name = CONTROL_PLANE if apiserver and CONTROL_PLANE not in found else f"{CLIENT}:{address}"
            found[name] = Station(name, "machine" if apiserver else "client", segment, (address,), listeners)
        return found

    @cached_property
    def served_elsewhere(self) -> Mapping[str, tuple[Listener, ...]]:
        """Addresses that EndpointSlices name and no pod answers for, with the ports that must be served there."""
        pods = {address for pod in self.objects.pods if has_network(pod) for address in pod.ips}
        found: dict[str, dict[tuple[str, int], Listener]] = {}
        for piece in self.objects.endpoint_slices:
            if piece.address_type is api.AddressType.FQDN:
                continue
            kubernetes = (piece.namespace, piece.service_name) == ("default", "kubernetes")
            program = APISERVER if kubernetes else piece.service_name
            for endpoint in piece.endpoints:
                if endpoint.address in pods or _is_pod(endpoint):
                    continue
                for port in piece.ports:
                    if port.port:
                        listener = Listener(str(port.protocol), port.port, endpoint.address, program)
                        found.setdefault(endpoint.address, {})[listener.protocol, listener.port] = listener
        return {address: tuple(ports.values()) for address, ports in sorted(found.items())}

    # The pod network

    @cached_property
    def machines(self) -> Mapping[str, cni.Machine]:
        """The nodes as a CNI sees them."""
        return {
            node.name: cni.Machine(
                name=node.name,
                addresses=tuple(self._address(node.name, address) for address in node.addresses),
                pod_cidrs=tuple(Prefix.of(block) for block in node.pod_cidrs),
                annotations=node.metadata.annotations,
                gateways=self.stations[node.name].segment.gateways,
            )
            for node in self.objects.nodes
        }

    def _address(self, station: str, address: str) -> Address:
        block = self.stations[station].segment.block(address)
        return Address(address, block.length if block is not None else 32 if family(address) == 4 else 128)

    @cached_property
    def cni_plan(self) -> cni.Plan:
        """All nodes and ranges as a CNI sees them."""
        networks = self.objects.networks
        return cni.Plan(tuple(self.machines.values()), networks.pods, networks.services, self.workloads)

    @cached_property
    def workloads(self) -> Mapping[str, tuple[cni.Workload, ...]]:
        """The pods with a network of their own, by node."""
        found: dict[str, list[cni.Workload]] = {name: [] for name in self.nodes}
        for pod in self.objects.pods:
            if has_network(pod):
                account = pod.spec.service_account_name or "default"
                found[pod.node_name].append(cni.Workload(pod_host(pod), tuple(pod.ips), account, pod.labels))
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


def _gateway(block: Prefix, taken: set[str]) -> str:
    """The router's address in a subnet: the first one, or the last where the first is taken."""
    first = block.address(1)
    return first if first not in taken else block.address(block.size - 2)


def _is_pod(endpoint: api.Endpoint) -> bool:
    return endpoint.target_ref is not None and endpoint.target_ref.kind == "Pod"
