"""What is a pod to the network?

A pod is one network namespace: its containers share one set of addresses and one set of ports. What matters here is
which ports the containers name, whether the pod uses the network of its node (`hostNetwork`), how it is called
(`hostname`, `subdomain`), how it resolves names (`dnsPolicy`, `dnsConfig`), where it may run, and what its status
says: phase, readiness and addresses. `containerPorts` are documentation and names; a process may listen elsewhere.

Not modelled: what a container runs. Guide sections 1.1 and 2.1; Kubernetes "Pods", "Pod Lifecycle", KEP-753 (sidecars).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import ClassVar

from msgspec import UNSET

from k8snetlab.api.base import IntOrString, Kept, Labels, Object, ObjectMeta, Part, Port
from k8snetlab.api.core import Taint, TaintEffect
from k8snetlab.api.selectors import NodeSelector

__all__ = [
    "Container",
    "ContainerPort",
    "LISTEN",
    "DNSPolicy",
    "HTTPGetAction",
    "Pod",
    "PodCondition",
    "PodDNSConfig",
    "PodIP",
    "PodPhase",
    "PodSpec",
    "PodStatus",
    "PodTemplateSpec",
    "Probe",
    "Protocol",
    "RestartPolicy",
    "Toleration",
    "TolerationOperator",
    "listen_annotation",
]

LISTEN = "k8snetlab.io/listen"
"""The annotation that says where a pod's processes listen, when that is not where its `containerPorts` say."""


class Protocol(StrEnum):
    """The transport protocols that Services and policies know."""

    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"

    __hash__ = str.__hash__  # that of `Enum` is written in Python, and protocols are looked up all the time


class RestartPolicy(StrEnum):
    """When a container that ended is started again. An init container that always restarts is a sidecar."""

    ALWAYS = "Always"
    ON_FAILURE = "OnFailure"
    NEVER = "Never"


class DNSPolicy(StrEnum):
    """Where a pod's resolv.conf comes from. The default is `ClusterFirst`, not `Default`."""

    CLUSTER_FIRST = "ClusterFirst"
    CLUSTER_FIRST_WITH_HOST_NET = "ClusterFirstWithHostNet"
    DEFAULT = "Default"
    NONE = "None"


class PodPhase(StrEnum):
    """How far a pod's life is."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


class TolerationOperator(StrEnum):
    """How a toleration compares a taint's value; `Gt` and `Lt` compare whole numbers."""

    EXISTS = "Exists"
    EQUAL = "Equal"
    GT = "Gt"
    LT = "Lt"


class ContainerPort(Part, frozen=True, kw_only=True):
    """A port a container says it listens on; `hostPort` also opens it on the node."""

    container_port: Port
    name: str = ""
    protocol: Protocol = Protocol.TCP
    host_port: int = 0
    host_ip: str = ""


class HTTPGetAction(Part, frozen=True, kw_only=True):
    """A request the kubelet sends to a pod's address, from the pod's node."""

    port: IntOrString
    path: str = "/"
    host: str = ""
    scheme: str = "HTTP"
    http_headers: Kept = UNSET
    protocol: Kept = UNSET


class TCPSocketAction(Part, frozen=True, kw_only=True):
    """A connection the kubelet opens to a pod's address."""

    port: IntOrString
    host: str = ""


class GRPCAction(Part, frozen=True, kw_only=True):
    """A gRPC health check the kubelet sends to a pod's address."""

    port: Port
    service: str = ""
    mode: Kept = UNSET


class Probe(Part, frozen=True, kw_only=True):
    """How the kubelet asks a container whether it is well. Only `exec` does not use the network."""

    http_get: HTTPGetAction | None = None
    tcp_socket: TCPSocketAction | None = None
    grpc: GRPCAction | None = None
    exec_: Kept = UNSET
    initial_delay_seconds: Kept = UNSET
    period_seconds: Kept = UNSET
    timeout_seconds: Kept = UNSET
    success_threshold: Kept = UNSET
    failure_threshold: Kept = UNSET
    termination_grace_period_seconds: Kept = UNSET


class Container(Part, frozen=True, kw_only=True):
    """One container of a pod: its ports and its probes matter here."""

    name: str
    image: str = ""
    ports: tuple[ContainerPort, ...] = ()
    liveness_probe: Probe | None = None
    readiness_probe: Probe | None = None
    startup_probe: Probe | None = None
    restart_policy: RestartPolicy | None = None
    args: Kept = UNSET
    command: Kept = UNSET
    env: Kept = UNSET
    env_from: Kept = UNSET
    image_pull_policy: Kept = UNSET
    lifecycle: Kept = UNSET
    resize_policy: Kept = UNSET
    resources: Kept = UNSET
    restart_policy_rules: Kept = UNSET
    security_context: Kept = UNSET
    stdin: Kept = UNSET
    stdin_once: Kept = UNSET
    target_container_name: Kept = UNSET
    termination_message_path: Kept = UNSET
    termination_message_policy: Kept = UNSET
    tty: Kept = UNSET
    volume_devices: Kept = UNSET
    volume_mounts: Kept = UNSET
    working_dir: Kept = UNSET


class Toleration(Part, frozen=True, kw_only=True):
    """Which taints a pod bears. No key with `Exists` bears all; no effect means every effect."""

    key: str = ""
    operator: TolerationOperator = TolerationOperator.EQUAL
    value: str = ""
    effect: TaintEffect | None = None
    toleration_seconds: Kept = UNSET

    def tolerates(self, taint: Taint) -> bool:
        """Whether a pod with this toleration may go where the taint is."""
        if self.effect is not None and self.effect is not taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        match self.operator:
            case TolerationOperator.EXISTS:
                return True
            case TolerationOperator.EQUAL:
                return bool(self.key) and self.value == taint.value
            case TolerationOperator.GT | TolerationOperator.LT:
                return self._compares(taint.value)

    def _compares(self, value: str) -> bool:
        try:
            number, limit = int(value), int(self.value)
        except ValueError:
            return False
        return number > limit if self.operator is TolerationOperator.GT else number < limit


class NodeAffinity(Part, frozen=True, kw_only=True):
    """Which nodes a pod must, or would rather, run on."""

    required_during_scheduling_ignored_during_execution: NodeSelector | None = None
    preferred_during_scheduling_ignored_during_execution: Kept = UNSET


class Affinity(Part, frozen=True, kw_only=True):
    """Which nodes, and which neighbours, a pod wants."""

    node_affinity: NodeAffinity | None = None
    pod_affinity: Kept = UNSET
    pod_anti_affinity: Kept = UNSET


class PodDNSConfigOption(Part, frozen=True, kw_only=True):
    """One option of resolv.conf, such as `ndots: "2"`."""

    name: str
    value: str = ""


class PodDNSConfig(Part, frozen=True, kw_only=True):
    """What is added to, or with `dnsPolicy: None` makes up, a pod's resolv.conf."""

    nameservers: tuple[str, ...] = ()
    searches: tuple[str, ...] = ()
    options: tuple[PodDNSConfigOption, ...] = ()


class HostAlias(Part, frozen=True, kw_only=True):
    """A line of the pod's /etc/hosts."""

    ip: str
    hostnames: tuple[str, ...] = ()


class PodSpec(Part, frozen=True, kw_only=True):
    """What the pod's containers are, where they may run and how they see the network."""

    containers: tuple[Container, ...]
    init_containers: tuple[Container, ...] = ()
    ephemeral_containers: tuple[Container, ...] = ()
    node_name: str = ""
    node_selector: Labels = {}
    affinity: Affinity | None = None
    tolerations: tuple[Toleration, ...] = ()
    host_network: bool = False
    hostname: str = ""
    subdomain: str = ""
    set_hostname_as_fqdn: bool = False
    hostname_override: str = ""
    dns_policy: DNSPolicy = DNSPolicy.CLUSTER_FIRST
    dns_config: PodDNSConfig | None = None
    host_aliases: tuple[HostAlias, ...] = ()
    restart_policy: RestartPolicy = RestartPolicy.ALWAYS
    service_account_name: str = ""
    readiness_gates: Kept = UNSET
    active_deadline_seconds: Kept = UNSET
    automount_service_account_token: Kept = UNSET
    enable_service_links: Kept = UNSET
    eviction_responders: Kept = UNSET
    host_ipc: Kept = UNSET
    host_pid: Kept = UNSET
    host_users: Kept = UNSET
    image_pull_secrets: Kept = UNSET
    os: Kept = UNSET
    overhead: Kept = UNSET
    preemption_policy: Kept = UNSET
    priority: Kept = UNSET
    priority_class_name: Kept = UNSET
    resource_claims: Kept = UNSET
    resources: Kept = UNSET
    runtime_class_name: Kept = UNSET
    scheduler_name: Kept = UNSET
    scheduling_gates: Kept = UNSET
    scheduling_group: Kept = UNSET
    security_context: Kept = UNSET
    service_account: Kept = UNSET
    share_process_namespace: Kept = UNSET
    termination_grace_period_seconds: Kept = UNSET
    topology_spread_constraints: Kept = UNSET
    volumes: Kept = UNSET


class PodTemplateSpec(Part, frozen=True, kw_only=True):
    """What a workload makes its pods from."""

    metadata: ObjectMeta = ObjectMeta()
    spec: PodSpec


class PodCondition(Part, frozen=True, kw_only=True):
    """One thing that is, or is not yet, true of a pod; `Ready` decides whether Services send it traffic."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    last_probe_time: Kept = UNSET
    last_transition_time: Kept = UNSET
    observed_generation: Kept = UNSET


class PodIP(Part, frozen=True, kw_only=True):
    """One address of a pod, or of its node."""

    ip: str = ""


class PodStatus(Part, frozen=True, kw_only=True):
    """Phase, conditions and addresses. An empty phase: nobody has looked at the pod yet."""

    phase: PodPhase | None = None
    conditions: tuple[PodCondition, ...] = ()
    pod_ip: str = ""
    pod_ips: tuple[PodIP, ...] = ()
    host_ip: str = ""
    host_ips: tuple[PodIP, ...] = ()
    reason: str = ""
    message: str = ""
    allocated_resources: Kept = UNSET
    container_statuses: Kept = UNSET
    ephemeral_container_statuses: Kept = UNSET
    extended_resource_claim_status: Kept = UNSET
    init_container_statuses: Kept = UNSET
    node_allocatable_resource_claim_statuses: Kept = UNSET
    nominated_node_name: Kept = UNSET
    observed_generation: Kept = UNSET
    qos_class: Kept = UNSET
    resize: Kept = UNSET
    resource_claim_statuses: Kept = UNSET
    resources: Kept = UNSET
    start_time: Kept = UNSET
    volume_health: Kept = UNSET

    @property
    def ips(self) -> tuple[str, ...]:
        """The pod's addresses, the primary one first."""
        return tuple(each.ip for each in self.pod_ips if each.ip) or ((self.pod_ip,) if self.pod_ip else ())


class Pod(Object, frozen=True, kw_only=True, tag="Pod"):
    """One network namespace with containers in it."""

    kind: ClassVar[str] = "Pod"
    api_version: ClassVar[str] = "v1"

    spec: PodSpec
    status: PodStatus = PodStatus()

    @property
    def node_name(self) -> str:
        """The node it runs on, or empty while it waits for one."""
        return self.spec.node_name

    @property
    def ips(self) -> tuple[str, ...]:
        """Its addresses, the primary one first; none before it has a network."""
        return self.status.ips

    @property
    def ip(self) -> str:
        """Its primary address, or empty."""
        return next(iter(self.ips), "")

    @property
    def host_network(self) -> bool:
        """Whether it uses the network namespace, and the addresses, of its node."""
        return self.spec.host_network

    @property
    def completed(self) -> bool:
        """Whether its containers are done for good; its address may then belong to another pod."""
        return self.status.phase in (PodPhase.SUCCEEDED, PodPhase.FAILED)

    @property
    def terminating(self) -> bool:
        """Whether it was deleted and is still stopping."""
        return self.metadata.deletion_timestamp is not None

    @property
    def ready(self) -> bool:
        """Whether its condition `Ready` holds; a pod without that condition is ready if it runs."""
        for condition in self.status.conditions:
            if condition.type == "Ready":
                return condition.status == "True"
        return self.status.phase is PodPhase.RUNNING

    @property
    def networked(self) -> bool:
        """Whether it runs somewhere with an address of its own or its node's."""
        return bool(self.node_name and self.ips) and not self.completed

    def listeners(self) -> Iterator[Container]:
        """The containers that stay: the ordinary ones and the sidecars (init containers that always restart)."""
        yield from self.spec.containers
        yield from (each for each in self.spec.init_containers if each.restart_policy is RestartPolicy.ALWAYS)

    def port_named(self, name: str, protocol: Protocol) -> int | None:
        """The number behind a port's name in this pod, or None: another pod may use the name for another number."""
        for container in self.listeners():
            for port in container.ports:
                if port.name == name and port.protocol is protocol:
                    return port.container_port
        return None


def listen_annotation(text: str) -> tuple[tuple[Protocol, int], ...]:
    """Read the value of the `k8snetlab.io/listen` annotation; `ValueError` says what is wrong with it.

    >>> [(str(protocol), port) for protocol, port in listen_annotation("8080/TCP,53/UDP")]
    [('TCP', 8080), ('UDP', 53)]
    """
    return tuple(_listened(part.strip()) for part in text.split(",") if part.strip())


def _listened(part: str) -> tuple[Protocol, int]:
    number, _, protocol = part.partition("/")
    if not number.isdecimal() or not 1 <= int(number) <= 65535 or (protocol or "TCP") not in Protocol.__members__:
        raise ValueError(f"{part!r} is not PORT/TCP, PORT/UDP or PORT/SCTP; write for example 8080/TCP,53/UDP")
    return Protocol(protocol or "TCP"), int(number)
