"""Who may talk to whom, and how does the web come in?

`NetworkPolicy` lists what is allowed; `Ingress` maps host names and paths to Services; `IngressClass` says which
controller looks after an Ingress. The objects only say what is wanted: a CNI enforces the first, an ingress
controller serves the second.

In a policy *missing* and *empty* are different things: no `from` means from anywhere, while a rule with an empty peer
list is also anywhere; no `podSelector` in a peer says nothing about pods, an empty one means all pods. Selectors are
therefore `None` when missing.

Guide sections 2.4 and 4.1; Kubernetes "Network Policies", "Ingress".
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar

from msgspec import UNSET
from msgspec.structs import force_setattr

from k8snetlab.api.base import IntOrString, Kept, Object, Part
from k8snetlab.api.pod import Protocol
from k8snetlab.api.selectors import LabelSelector
from k8snetlab.api.service import LoadBalancerStatus

__all__ = [
    "HTTPIngressPath",
    "HTTPIngressRuleValue",
    "IPBlock",
    "Ingress",
    "IngressBackend",
    "IngressClass",
    "IngressRule",
    "IngressSpec",
    "IngressTLS",
    "NetworkPolicy",
    "NetworkPolicyEgressRule",
    "NetworkPolicyIngressRule",
    "NetworkPolicyPeer",
    "NetworkPolicyPort",
    "NetworkPolicySpec",
    "PathType",
    "PolicyType",
]


class PolicyType(StrEnum):
    """The direction, seen from the selected pod."""

    INGRESS = "Ingress"
    EGRESS = "Egress"


class IPBlock(Part, frozen=True, kw_only=True):
    """A CIDR block, less some blocks inside it. Pods with such an address are meant too."""

    cidr: str
    except_: tuple[str, ...] = ()


class NetworkPolicyPeer(Part, frozen=True, kw_only=True):
    """The other end: pods (of the policy's own namespace, or of the namespaces selected), or addresses."""

    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IPBlock | None = None


class NetworkPolicyPort(Part, frozen=True, kw_only=True):
    """A port, a range of ports, or (with a protocol alone) all ports of a protocol."""

    protocol: Protocol = Protocol.TCP
    port: IntOrString | None = None
    end_port: int | None = None


class NetworkPolicyIngressRule(Part, frozen=True, kw_only=True):
    """From whom, to which ports. Nothing said is no limit."""

    from_: tuple[NetworkPolicyPeer, ...] = ()
    ports: tuple[NetworkPolicyPort, ...] = ()


class NetworkPolicyEgressRule(Part, frozen=True, kw_only=True):
    """To whom, at which ports. Nothing said is no limit."""

    to: tuple[NetworkPolicyPeer, ...] = ()
    ports: tuple[NetworkPolicyPort, ...] = ()


class NetworkPolicySpec(Part, frozen=True, kw_only=True):
    """Which pods are isolated, in which directions, and what they are allowed all the same."""

    pod_selector: LabelSelector = LabelSelector()
    ingress: tuple[NetworkPolicyIngressRule, ...] = ()
    egress: tuple[NetworkPolicyEgressRule, ...] = ()
    policy_types: tuple[PolicyType, ...] = ()

    def __post_init__(self) -> None:
        if not self.policy_types:
            also = (PolicyType.EGRESS,) if self.egress else ()
            force_setattr(self, "policy_types", (PolicyType.INGRESS, *also))


class NetworkPolicy(Object, frozen=True, kw_only=True, tag="NetworkPolicy"):
    """Isolates pods and lists what still passes. Policies only add."""

    kind: ClassVar[str] = "NetworkPolicy"
    api_version: ClassVar[str] = "networking.k8s.io/v1"

    spec: NetworkPolicySpec = NetworkPolicySpec()
    status: Kept = UNSET


class PathType(StrEnum):
    """How a path is compared: whole, by its elements, or as the controller likes."""

    EXACT = "Exact"
    PREFIX = "Prefix"
    IMPLEMENTATION_SPECIFIC = "ImplementationSpecific"


class ServiceBackendPort(Part, frozen=True, kw_only=True):
    """A port of the Service, by name or by number."""

    name: str = ""
    number: int = 0


class IngressServiceBackend(Part, frozen=True, kw_only=True):
    """A Service of the Ingress's own namespace."""

    name: str
    port: ServiceBackendPort = ServiceBackendPort()


class IngressBackend(Part, frozen=True, kw_only=True):
    """Where a request goes."""

    service: IngressServiceBackend | None = None
    resource: Kept = UNSET


class HTTPIngressPath(Part, frozen=True, kw_only=True):
    """A path, how to compare it, and where its requests go."""

    backend: IngressBackend
    path_type: PathType
    path: str = ""


class HTTPIngressRuleValue(Part, frozen=True, kw_only=True):
    """The paths of one host."""

    paths: tuple[HTTPIngressPath, ...]


class IngressRule(Part, frozen=True, kw_only=True):
    """A host (`*.example.com` for one label in its place, empty for all) and its paths."""

    host: str = ""
    http: HTTPIngressRuleValue | None = None


class IngressTLS(Part, frozen=True, kw_only=True):
    """Hosts served with the certificate in a Secret."""

    hosts: tuple[str, ...] = ()
    secret_name: str = ""


class IngressSpec(Part, frozen=True, kw_only=True):
    """Rules by host and path, certificates, and where everything else goes."""

    ingress_class_name: str | None = None
    default_backend: IngressBackend | None = None
    rules: tuple[IngressRule, ...] = ()
    tls: tuple[IngressTLS, ...] = ()


class IngressStatus(Part, frozen=True, kw_only=True):
    """Where the ingress controller takes requests."""

    load_balancer: LoadBalancerStatus = LoadBalancerStatus()


class Ingress(Object, frozen=True, kw_only=True, tag="Ingress"):
    """HTTP routing from the outside to Services."""

    kind: ClassVar[str] = "Ingress"
    api_version: ClassVar[str] = "networking.k8s.io/v1"

    spec: IngressSpec = IngressSpec()
    status: IngressStatus = IngressStatus()


class IngressClassSpec(Part, frozen=True, kw_only=True):
    """Which controller."""

    controller: str = ""
    parameters: Kept = UNSET


class IngressClass(Object, frozen=True, kw_only=True, tag="IngressClass"):
    """Which controller looks after the Ingresses of this class."""

    kind: ClassVar[str] = "IngressClass"
    api_version: ClassVar[str] = "networking.k8s.io/v1"
    namespaced: ClassVar[bool] = False

    spec: IngressClassSpec = IngressClassSpec()

    @property
    def is_default(self) -> bool:
        """Whether Ingresses that name no class belong to it."""
        return self.annotations.get("ingressclass.kubernetes.io/is-default-class") == "true"
