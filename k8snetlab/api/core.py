"""Where do things live, and what do they carry?

Namespaces, nodes and the small objects that others refer to: Secret, ConfigMap, ServiceAccount. A Node says the two
facts that networking begins with: the machine's own addresses (`status.addresses`) and the range its pods get
addresses from (`spec.podCIDRs`, one a family).

Not modelled: kubelet's images, volumes and capacity, except how many pods a node takes. Guide section 1.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import ClassVar

from msgspec import UNSET
from msgspec.structs import force_setattr

from k8snetlab.api.base import Kept, LabelKey, LabelValue, Object, ObjectMeta, Part

__all__ = [
    "ConfigMap",
    "Namespace",
    "Node",
    "NodeAddress",
    "NodeCondition",
    "NodeSpec",
    "NodeStatus",
    "Secret",
    "ServiceAccount",
    "Taint",
    "TaintEffect",
    "namespace_object",
]


class NamespaceSpec(Part, frozen=True, kw_only=True):
    """What has to be cleaned up before the namespace is gone."""

    finalizers: Kept = UNSET


class NamespaceStatus(Part, frozen=True, kw_only=True):
    """`Active` or `Terminating`."""

    phase: str = ""
    conditions: Kept = UNSET


class Namespace(Object, frozen=True, kw_only=True, tag="Namespace"):
    """A part of the cluster with names and policies of its own."""

    kind: ClassVar[str] = "Namespace"
    api_version: ClassVar[str] = "v1"
    namespaced: ClassVar[bool] = False

    spec: NamespaceSpec = NamespaceSpec()
    status: NamespaceStatus = NamespaceStatus()

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels; `kubernetes.io/metadata.name` is always the name, whatever the manifest says."""
        return {**self.metadata.labels, "kubernetes.io/metadata.name": self.name}


class TaintEffect(StrEnum):
    """What a taint does to a pod that does not tolerate it."""

    NO_SCHEDULE = "NoSchedule"
    PREFER_NO_SCHEDULE = "PreferNoSchedule"
    NO_EXECUTE = "NoExecute"


class Taint(Part, frozen=True, kw_only=True):
    """Why a node refuses pods, for example `node-role.kubernetes.io/control-plane:NoSchedule`."""

    key: LabelKey
    value: LabelValue = ""
    effect: TaintEffect
    time_added: Kept = UNSET

    def __str__(self) -> str:
        return f"{{{self.key}: {self.value}}}"


class NodeSpec(Part, frozen=True, kw_only=True):
    """The ranges of the node's pods, and what keeps pods away."""

    pod_cidr: str = ""
    pod_cidrs: tuple[str, ...] = ()
    unschedulable: bool = False
    taints: tuple[Taint, ...] = ()
    provider_id: Kept = UNSET
    config_source: Kept = UNSET
    external_id: Kept = UNSET
    pod_preemption_policy: Kept = UNSET

    def __post_init__(self) -> None:
        if self.pod_cidr and not self.pod_cidrs:
            force_setattr(self, "pod_cidrs", (self.pod_cidr,))
        if self.pod_cidrs and not self.pod_cidr:
            force_setattr(self, "pod_cidr", self.pod_cidrs[0])


class NodeAddress(Part, frozen=True, kw_only=True):
    """One address or name of a node: `InternalIP`, `ExternalIP`, `Hostname`, `InternalDNS`, `ExternalDNS`."""

    type: str
    address: str


class NodeCondition(Part, frozen=True, kw_only=True):
    """One thing the node says of itself; `Ready` is the one that counts."""

    type: str
    status: str
    reason: Kept = UNSET
    message: Kept = UNSET
    last_heartbeat_time: Kept = UNSET
    last_transition_time: Kept = UNSET


class NodeStatus(Part, frozen=True, kw_only=True):
    """Addresses, conditions and how much the node takes."""

    addresses: tuple[NodeAddress, ...] = ()
    conditions: tuple[NodeCondition, ...] = ()
    allocatable: Mapping[str, str | int] = {}
    capacity: Mapping[str, str | int] = {}
    config: Kept = UNSET
    daemon_endpoints: Kept = UNSET
    declared_features: Kept = UNSET
    features: Kept = UNSET
    images: Kept = UNSET
    node_info: Kept = UNSET
    phase: Kept = UNSET
    runtime_handlers: Kept = UNSET
    volumes_attached: Kept = UNSET
    volumes_in_use: Kept = UNSET


class Node(Object, frozen=True, kw_only=True, tag="Node"):
    """A machine of the cluster."""

    kind: ClassVar[str] = "Node"
    api_version: ClassVar[str] = "v1"
    namespaced: ClassVar[bool] = False

    spec: NodeSpec = NodeSpec()
    status: NodeStatus = NodeStatus()

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses other machines reach it at, the primary one first (`InternalIP`, in the order of the
        status)."""
        return tuple(each.address for each in self.status.addresses if each.type == "InternalIP")

    @property
    def external_addresses(self) -> tuple[str, ...]:
        """The addresses it has on the outside, where it has any."""
        return tuple(each.address for each in self.status.addresses if each.type == "ExternalIP")

    @property
    def pod_cidrs(self) -> tuple[str, ...]:
        """The ranges its pods get their addresses from, one a family."""
        return self.spec.pod_cidrs

    @property
    def zone(self) -> str:
        """The zone it stands in, or empty."""
        return self.metadata.labels.get("topology.kubernetes.io/zone", "")

    @property
    def ready(self) -> bool:
        """Whether the kubelet says it is ready; a node that says nothing is."""
        return all(each.status == "True" for each in self.status.conditions if each.type == "Ready")


class Secret(Object, frozen=True, kw_only=True, tag="Secret"):
    """Small confidential data: certificates, keys. `data` is base64."""

    kind: ClassVar[str] = "Secret"
    api_version: ClassVar[str] = "v1"

    type: str = "Opaque"
    data: Mapping[str, str] = {}
    string_data: Mapping[str, str] = {}
    immutable: bool = False


class ConfigMap(Object, frozen=True, kw_only=True, tag="ConfigMap"):
    """Small plain data, such as CoreDNS's Corefile. `binaryData` is base64."""

    kind: ClassVar[str] = "ConfigMap"
    api_version: ClassVar[str] = "v1"

    data: Mapping[str, str] = {}
    binary_data: Mapping[str, str] = {}
    immutable: bool = False


class ServiceAccount(Object, frozen=True, kw_only=True, tag="ServiceAccount"):
    """Who a pod is, to the API server and to a service mesh."""

    kind: ClassVar[str] = "ServiceAccount"
    api_version: ClassVar[str] = "v1"

    automount_service_account_token: bool | None = None
    secrets: Kept = UNSET
    image_pull_secrets: Kept = UNSET


def namespace_object(name: str) -> Namespace:
    """The Namespace that the API server would hold for a name that objects use."""
    return Namespace(metadata=ObjectMeta(name=name, labels={"kubernetes.io/metadata.name": name}))
