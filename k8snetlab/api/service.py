"""What is behind this stable address, and who answers there now?

A `Service` is a promise: an address and ports that stay, whatever pods come and go. An `EndpointSlice` says who keeps
the promise at the moment. No process holds a Service's address; kube-proxy turns both objects into rules on every
node, and joins their ports by name.

Values here have the API server's static defaults: the type, the protocol, the target port, the traffic policies and the
affinity time-out are filled in when they were not given, and a field that means nothing is dropped where the API server
drops it. Addresses, node ports and families are not filled in: they depend on the whole cluster, and `controllers`
allocates them.

`Endpoints` is what stood in the place of EndpointSlices, which kube-proxy reads since 1.19: one object a Service,
however many pods it has. It is deprecated since 1.33, still served, and still written by a controller.

Not modelled: topology-aware routing by proportion (`service.kubernetes.io/topology-mode: Auto`).
Guide section 2.2; KEP-1880, KEP-2086, KEP-4444, KEP-3015.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from msgspec import UNSET
from msgspec.structs import force_setattr

from k8snetlab.api.base import IntOrString, Kept, Labels, Object, Part, Port
from k8snetlab.api.pod import Protocol

__all__ = [
    "AddressType",
    "Endpoint",
    "EndpointAddress",
    "EndpointConditions",
    "EndpointHints",
    "EndpointPort",
    "EndpointSlice",
    "EndpointSubset",
    "Endpoints",
    "IPFamily",
    "IPFamilyPolicy",
    "IPMode",
    "LoadBalancerIngress",
    "Service",
    "ServicePort",
    "ServiceSpec",
    "ServiceStatus",
    "ServiceType",
    "SessionAffinity",
    "SubsetPort",
    "TrafficDistribution",
    "TrafficPolicy",
]

HEADLESS = "None"
"""The `clusterIP` of a Service that wants no address: DNS then answers with the pods' own."""

_AFFINITY_SECONDS = 10800


class ServiceType(StrEnum):
    """How far a Service can be reached. Each type from NodePort on includes the one before."""

    CLUSTER_IP = "ClusterIP"
    NODE_PORT = "NodePort"
    LOAD_BALANCER = "LoadBalancer"
    EXTERNAL_NAME = "ExternalName"


class TrafficPolicy(StrEnum):
    """Which endpoints take the traffic: those of the whole cluster, or those on the node it is on."""

    CLUSTER = "Cluster"
    LOCAL = "Local"


class SessionAffinity(StrEnum):
    """Whether a client address keeps its backend."""

    NONE = "None"
    CLIENT_IP = "ClientIP"


class IPFamily(StrEnum):
    """An address family, spelled as Services spell it."""

    IPV4 = "IPv4"
    IPV6 = "IPv6"

    @property
    def number(self) -> int:
        """4 or 6."""
        return 4 if self is IPFamily.IPV4 else 6

    @classmethod
    def of(cls, number: int) -> IPFamily:
        """`IPFamily.of(4) is IPFamily.IPV4`."""
        return cls.IPV4 if number == 4 else cls.IPV6


class IPFamilyPolicy(StrEnum):
    """One family, two if the cluster has two, or two for certain."""

    SINGLE_STACK = "SingleStack"
    PREFER_DUAL_STACK = "PreferDualStack"
    REQUIRE_DUAL_STACK = "RequireDualStack"


class TrafficDistribution(StrEnum):
    """Which endpoints are preferred when they are ready. `PreferClose` is the old name of `PreferSameZone`."""

    PREFER_CLOSE = "PreferClose"
    PREFER_SAME_ZONE = "PreferSameZone"
    PREFER_SAME_NODE = "PreferSameNode"


class IPMode(StrEnum):
    """Whether a load balancer delivers packets unchanged (VIP) or opens connections of its own (Proxy)."""

    VIP = "VIP"
    PROXY = "Proxy"


class ServicePort(Part, frozen=True, kw_only=True):
    """One port of a Service. `target_port` is a number, or a name that each pod may give to another number."""

    port: Port
    name: str = ""
    protocol: Protocol = Protocol.TCP
    target_port: IntOrString = 0
    node_port: int = 0
    app_protocol: str | None = None

    def __post_init__(self) -> None:
        if self.target_port in (0, ""):
            force_setattr(self, "target_port", self.port)


class ClientIPConfig(Part, frozen=True, kw_only=True):
    """How long an idle client keeps its backend, in seconds."""

    timeout_seconds: int = _AFFINITY_SECONDS


class SessionAffinityConfig(Part, frozen=True, kw_only=True):
    """The settings of session affinity."""

    client_ip: ClientIPConfig = ClientIPConfig()


class ServiceSpec(Part, frozen=True, kw_only=True):
    """The promise: who is meant, at which ports, and how far it can be reached."""

    type: ServiceType = ServiceType.CLUSTER_IP
    selector: Labels = {}
    ports: tuple[ServicePort, ...] = ()
    cluster_ip: str = ""
    cluster_ips: tuple[str, ...] = ()
    ip_families: tuple[IPFamily, ...] = ()
    ip_family_policy: IPFamilyPolicy | None = None
    external_ips: tuple[str, ...] = ()
    external_name: str = ""
    session_affinity: SessionAffinity = SessionAffinity.NONE
    session_affinity_config: SessionAffinityConfig | None = None
    internal_traffic_policy: TrafficPolicy | None = None
    external_traffic_policy: TrafficPolicy | None = None
    health_check_node_port: int = 0
    publish_not_ready_addresses: bool = False
    traffic_distribution: TrafficDistribution | None = None
    load_balancer_ip: str = ""
    load_balancer_source_ranges: tuple[str, ...] = ()
    load_balancer_class: str | None = None
    allocate_load_balancer_node_ports: bool | None = None

    def __post_init__(self) -> None:
        if self.session_affinity is SessionAffinity.NONE:
            force_setattr(self, "session_affinity_config", None)
        elif self.session_affinity_config is None:
            force_setattr(self, "session_affinity_config", SessionAffinityConfig())
        if self.type is ServiceType.EXTERNAL_NAME:
            force_setattr(self, "internal_traffic_policy", None)
            return
        if self.internal_traffic_policy is None:
            force_setattr(self, "internal_traffic_policy", TrafficPolicy.CLUSTER)
        if self.external_traffic_policy is None and self.externally_accessible:
            force_setattr(self, "external_traffic_policy", TrafficPolicy.CLUSTER)
        if self.type is ServiceType.LOAD_BALANCER and self.allocate_load_balancer_node_ports is None:
            force_setattr(self, "allocate_load_balancer_node_ports", True)  # noqa: FBT003 - the field's value

    @property
    def from_outside(self) -> bool:
        """Whether the type opens node ports: NodePort or LoadBalancer."""
        return self.type in (ServiceType.NODE_PORT, ServiceType.LOAD_BALANCER)

    @property
    def externally_accessible(self) -> bool:
        """Whether somebody outside can have an address for it: node ports, or external addresses."""
        return self.from_outside or (self.type is ServiceType.CLUSTER_IP and bool(self.external_ips))

    @property
    def checks_health(self) -> bool:
        """Whether its load balancer asks each node if it has endpoints, at a port for that."""
        return self.type is ServiceType.LOAD_BALANCER and self.external_traffic_policy is TrafficPolicy.LOCAL


class PortStatus(Part, frozen=True, kw_only=True):
    """What a load balancer did about one port."""

    port: int
    protocol: Protocol = Protocol.TCP
    error: Kept = UNSET


class LoadBalancerIngress(Part, frozen=True, kw_only=True):
    """One address or name at which a load balancer takes traffic."""

    ip: str = ""
    hostname: str = ""
    ip_mode: IPMode | None = None
    ports: tuple[PortStatus, ...] = ()

    def __post_init__(self) -> None:
        if self.ip and self.ip_mode is None:
            force_setattr(self, "ip_mode", IPMode.VIP)


class LoadBalancerStatus(Part, frozen=True, kw_only=True):
    """Where a load balancer takes traffic."""

    ingress: tuple[LoadBalancerIngress, ...] = ()


class ServiceStatus(Part, frozen=True, kw_only=True):
    """What the load balancer of a Service is."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()
    conditions: Kept = UNSET


class Service(Object, frozen=True, kw_only=True, tag="Service"):
    """A stable address, and the pods that answer there."""

    kind: ClassVar[str] = "Service"
    api_version: ClassVar[str] = "v1"

    spec: ServiceSpec
    status: ServiceStatus = ServiceStatus()

    @property
    def headless(self) -> bool:
        """Whether it wants no address of its own (`clusterIP: None`)."""
        return self.spec.cluster_ip == HEADLESS

    @property
    def cluster_ips(self) -> tuple[str, ...]:
        """Its addresses, the primary one first; none for a headless Service, an ExternalName and before allocation."""
        if self.headless or not self.spec.cluster_ip:
            return ()
        return self.spec.cluster_ips or (self.spec.cluster_ip,)

    @property
    def load_balancer(self) -> tuple[LoadBalancerIngress, ...]:
        """Where its load balancer takes traffic."""
        return self.status.load_balancer.ingress

    def port(self, wanted: int | str, protocol: Protocol = Protocol.TCP) -> ServicePort | None:
        """The port of that number or name, if there is one."""
        for each in self.spec.ports:
            if each.protocol is protocol and wanted in (each.port, each.name or None):
                return each
        return None


class AddressType(StrEnum):
    """What the addresses of a slice are. FQDN slices are for others; kube-proxy skips them."""

    IPV4 = "IPv4"
    IPV6 = "IPv6"
    FQDN = "FQDN"


class EndpointPort(Part, frozen=True, kw_only=True):
    """A port of all endpoints in a slice; its name joins it to the port of the Service."""

    name: str | None = None
    protocol: Protocol = Protocol.TCP
    port: int | None = None
    app_protocol: str | None = None


class EndpointConditions(Part, frozen=True, kw_only=True):
    """What is known of an endpoint. Not said: ready counts as true, serving as ready, terminating as false."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ForZone(Part, frozen=True, kw_only=True):
    """A zone whose clients should use the endpoint."""

    name: str


class ForNode(Part, frozen=True, kw_only=True):
    """A node whose clients should use the endpoint."""

    name: str


class EndpointHints(Part, frozen=True, kw_only=True):
    """Which clients should use the endpoint."""

    for_zones: tuple[ForZone, ...] = ()
    for_nodes: tuple[ForNode, ...] = ()


class ObjectReference(Part, frozen=True, kw_only=True):
    """Which object an endpoint is; mostly a Pod."""

    kind: str = ""
    namespace: str = ""
    name: str = ""
    uid: str = ""
    api_version: str = ""
    resource_version: str = ""
    field_path: str = ""


class Endpoint(Part, frozen=True, kw_only=True):
    """One backend. Only the first address counts."""

    addresses: tuple[str, ...]
    conditions: EndpointConditions = EndpointConditions()
    hostname: str | None = None
    node_name: str | None = None
    zone: str | None = None
    target_ref: ObjectReference | None = None
    hints: EndpointHints | None = None
    deprecated_topology: Kept = UNSET

    @property
    def address(self) -> str:
        """The address that counts."""
        return self.addresses[0]

    @property
    def ready(self) -> bool:
        """Whether it takes new connections."""
        return self.conditions.ready is not False

    @property
    def serving(self) -> bool:
        """Whether it would answer, also while it terminates."""
        return self.ready if self.conditions.serving is None else self.conditions.serving

    @property
    def terminating(self) -> bool:
        """Whether it is stopping."""
        return self.conditions.terminating is True


class EndpointSlice(Object, frozen=True, kw_only=True, tag="EndpointSlice"):
    """Up to 100 backends of one Service: one family, one set of ports."""

    kind: ClassVar[str] = "EndpointSlice"
    api_version: ClassVar[str] = "discovery.k8s.io/v1"

    address_type: AddressType
    endpoints: tuple[Endpoint, ...] = ()
    ports: tuple[EndpointPort, ...] = ()

    @property
    def service_name(self) -> str:
        """The Service it belongs to (label `kubernetes.io/service-name`), or empty."""
        return self.metadata.labels.get("kubernetes.io/service-name", "")


class EndpointAddress(Part, frozen=True, kw_only=True):
    """One address of an Endpoints object, and who it is."""

    ip: str
    hostname: str = ""
    node_name: str | None = None
    target_ref: ObjectReference | None = None


class SubsetPort(Part, frozen=True, kw_only=True):
    """A port of all addresses in a subset; core/v1 calls it EndpointPort too. Here the number is a must."""

    port: Port
    name: str = ""
    protocol: Protocol = Protocol.TCP
    app_protocol: str | None = None


class EndpointSubset(Part, frozen=True, kw_only=True):
    """Addresses that have the same ports: those that are ready, and those that are not."""

    addresses: tuple[EndpointAddress, ...] = ()
    not_ready_addresses: tuple[EndpointAddress, ...] = ()
    ports: tuple[SubsetPort, ...] = ()


class Endpoints(Object, frozen=True, kw_only=True, tag="Endpoints"):
    """All backends of the Service of the same name, in one object and one family. Deprecated since 1.33."""

    kind: ClassVar[str] = "Endpoints"
    api_version: ClassVar[str] = "v1"

    subsets: tuple[EndpointSubset, ...] = ()

    @property
    def ready(self) -> tuple[str, ...]:
        """The addresses that take new connections, subset by subset."""
        return tuple(address.ip for subset in self.subsets for address in subset.addresses)

    @property
    def not_ready(self) -> tuple[str, ...]:
        """The addresses that do not."""
        return tuple(address.ip for subset in self.subsets for address in subset.not_ready_addresses)
