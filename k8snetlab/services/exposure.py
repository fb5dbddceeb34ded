"""At which addresses and ports does a Service answer, and with which endpoints behind them?

A Service port is reached in up to five ways: at the cluster address, at external addresses, at load balancer
addresses (all three with the Service's port), at a node port of every node, and, for load balancers with policy
`Local`, there is a port for health checks. Every node's proxy works on this list, one entry a Service port and
family, and joins it with the EndpointSlices *by the name of the port*: the number behind it is the slice's, so that
`targetPort` matters to the controller that writes slices, and to no proxy.

No proxy rules exist for headless Services and ExternalName (names only), for Services of another proxy (label
`service.kubernetes.io/service-proxy-name`), for load balancers given by host name or with `ipMode: Proxy`. A source
range of length 0 lets everybody in and so limits nothing; ranges of the other family do not count.

Not modelled: `spec.loadBalancerIP` (no proxy reads it), FQDN slices (skipped). Guide section 2.2; KEP-752
(EndpointSlice), KEP-1860 (ipMode), KEP-2086 (internal traffic policy).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec

from k8snetlab.address import Prefix, family
from k8snetlab.api import (
    Endpoint,
    EndpointSlice,
    IPMode,
    Service,
    ServicePort,
    ServiceSpec,
    ServiceType,
    SessionAffinity,
    TrafficPolicy,
)
from k8snetlab.services.endpoints import Backend

__all__ = ["Exposure", "exposures"]

OTHER_PROXY = "service.kubernetes.io/service-proxy-name"
"""The label by which a Service asks for another proxy than the cluster's own."""


class Exposure(msgspec.Struct, frozen=True):
    """One port of one Service in one family, as a proxy sees it. `affinity` is in seconds, 0 for none;
    `source_ranges` empty lets everybody in; `health_check_port` and `node_port` are 0 where there is none.
    `backends` are sorted as text.
    """

    namespace: str
    service: str
    name: str
    protocol: str
    cluster_ip: str
    port: int
    node_port: int = 0
    external_ips: tuple[str, ...] = ()
    load_balancer_ips: tuple[str, ...] = ()
    source_ranges: tuple[Prefix, ...] = ()
    internal: TrafficPolicy = TrafficPolicy.CLUSTER
    external: TrafficPolicy = TrafficPolicy.CLUSTER
    affinity: int = 0
    health_check_port: int = 0
    backends: tuple[Backend, ...] = ()

    @property
    def full_name(self) -> str:
        """`namespace/service`, with `:port name` if the port has a name: how kube-proxy calls it."""
        return f"{self.namespace}/{self.service}" + (f":{self.name}" if self.name else "")

    @property
    def from_outside(self) -> bool:
        """Whether it answers at anything else than the cluster address."""
        return bool(self.node_port or self.external_ips or self.load_balancer_ips)

    @property
    def policies(self) -> frozenset[TrafficPolicy]:
        """The policies that some of its traffic follows. What is reached from outside always needs `Cluster` too: the
        pods and the node itself go straight to any endpoint."""
        if not self.from_outside:
            return frozenset({self.internal})
        return frozenset({self.internal, self.external, TrafficPolicy.CLUSTER})


def exposures(services: Iterable[Service], slices: Iterable[EndpointSlice], of: int) -> tuple[Exposure, ...]:
    """Every Service port of one family (4 or 6), in the order of the Services. This is the same for every node."""
    behind = _by_service(slices, of)
    return tuple(
        port
        for service in services
        for address in _cluster_address(service, of)
        for port in _ports(service, address, behind.get((service.namespace, service.name), ()))
    )


def _by_service(slices: Iterable[EndpointSlice], of: int) -> dict[tuple[str, str], list[EndpointSlice]]:
    found: dict[tuple[str, str], list[EndpointSlice]] = {}
    for piece in slices:
        if piece.address_type == f"IPv{of}":
            found.setdefault((piece.namespace, piece.service_name), []).append(piece)
    return found


def _cluster_address(service: Service, of: int) -> tuple[str, ...]:
    """The cluster address of the family; none if the Service has none there, or is not for this proxy."""
    if service.spec.type is ServiceType.EXTERNAL_NAME or OTHER_PROXY in service.labels:
        return ()
    return tuple(address for address in service.cluster_ips if family(address) == of)[:1]


def _ports(service: Service, address: str, slices: Sequence[EndpointSlice]) -> Iterator[Exposure]:
    spec = service.spec
    of = family(address)
    vips = tuple(at.ip for at in service.load_balancer if at.ip and at.ip_mode is IPMode.VIP and family(at.ip) == of)
    external = spec.external_traffic_policy or TrafficPolicy.CLUSTER
    checked = spec.type is ServiceType.LOAD_BALANCER and external is TrafficPolicy.LOCAL
    for port in spec.ports:
        yield Exposure(
            namespace=service.namespace,
            service=service.name,
            name=port.name,
            protocol=port.protocol.value,
            cluster_ip=address,
            port=port.port,
            node_port=port.node_port,
            external_ips=tuple(ip for ip in spec.external_ips if family(ip) == of),
            load_balancer_ips=vips,
            source_ranges=_source_ranges(spec.load_balancer_source_ranges, of),
            internal=spec.internal_traffic_policy or TrafficPolicy.CLUSTER,
            external=external,
            affinity=_affinity(spec),
            health_check_port=spec.health_check_node_port if checked else 0,
            backends=_backends(slices, port),
        )


def _source_ranges(ranges: Iterable[str], of: int) -> tuple[Prefix, ...]:
    own = tuple(block for block in map(Prefix.of, ranges) if block.family == of)
    return () if any(block.length == 0 for block in own) else own


def _affinity(spec: ServiceSpec) -> int:
    if spec.session_affinity is not SessionAffinity.CLIENT_IP or spec.session_affinity_config is None:
        return 0
    return spec.session_affinity_config.client_ip.timeout_seconds


def _backends(slices: Iterable[EndpointSlice], wanted: ServicePort) -> tuple[Backend, ...]:
    """The backends at slice ports of the same name and protocol, each address and port once, sorted as text."""
    found: dict[str, Backend] = {}
    for piece in slices:
        for port in piece.ports:
            if port.port and (port.name or "") == wanted.name and port.protocol is wanted.protocol:
                for endpoint in piece.endpoints:
                    backend = _backend(endpoint, port.port)
                    found.setdefault(str(backend), backend)
    return tuple(found[text] for text in sorted(found))


def _backend(endpoint: Endpoint, port: int) -> Backend:
    said, hints = endpoint.conditions, endpoint.hints
    return Backend(
        ip=endpoint.address,
        port=port,
        node=endpoint.node_name or "",
        ready=said.ready is not False,
        serving=said.serving is not False,  # kube-proxy takes "not said" for yes, whatever `ready` says
        terminating=said.terminating is True,
        for_nodes=frozenset(hint.name for hint in hints.for_nodes) if hints else frozenset(),
        for_zones=frozenset(hint.name for hint in hints.for_zones) if hints else frozenset(),
    )
