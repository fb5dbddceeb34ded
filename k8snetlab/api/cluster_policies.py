"""What may nobody in a namespace decide for themselves?

`ClusterNetworkPolicy` belongs to the people who run the cluster. Its rules stand in two tiers: `Admin` is asked before
every NetworkPolicy and cannot be overruled; `Baseline` is asked last, for pods that no NetworkPolicy selects. Inside a
tier, the policy with the lower `priority` is asked first, and inside a policy the rule that stands first. A rule
accepts, denies, or passes to the next tier; unlike a NetworkPolicy, a policy here isolates nobody: what no rule matches
goes on.

Pods with `hostNetwork` are neither subjects nor peers. Among peers, `nodes` and `domainNames` are of the experimental
channel. Fields of the same name mean other things than in NetworkPolicy: `from` and `to` must be there and not empty.

Guide section 4.1; policy.networking.k8s.io/v1alpha2, network-policy-api v0.2.0 (NPEP-285, NPEP-187, NPEP-133).
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, ClassVar

from msgspec import UNSET, Meta

from k8snetlab.api.base import Kept, Object, Part, Port
from k8snetlab.api.selectors import LabelSelector

__all__ = [
    "ClusterNetworkPolicy", "ClusterNetworkPolicyEgressPeer", "ClusterNetworkPolicyEgressRule",
    "ClusterNetworkPolicyIngressPeer", "ClusterNetworkPolicyIngressRule", "ClusterNetworkPolicyProtocol",
    "ClusterNetworkPolicySpec", "ClusterNetworkPolicySubject", "DestinationPort", "NamespacedPod", "PolicyTier",
    "PortRange", "RuleAction", "TransportMatch",
]  # fmt: skip


class PolicyTier(StrEnum):
    """Before all NetworkPolicies, or after them."""

    ADMIN = "Admin"
    BASELINE = "Baseline"


class RuleAction(StrEnum):
    """What becomes of a connection that a rule matches; `Pass` leaves the tier and asks the next one."""

    ACCEPT = "Accept"
    DENY = "Deny"
    PASS = "Pass"  # noqa: S105 — no password


class NamespacedPod(Part, frozen=True, kw_only=True):
    """Pods by the labels of their namespace and by their own: both must match."""

    namespace_selector: LabelSelector = LabelSelector()
    pod_selector: LabelSelector


class ClusterNetworkPolicySubject(Part, frozen=True, kw_only=True):
    """Whom the rules are about: all pods of some namespaces, or some of their pods. Exactly one is said."""

    namespaces: LabelSelector | None = None
    pods: NamespacedPod | None = None


class ClusterNetworkPolicyIngressPeer(Part, frozen=True, kw_only=True):
    """Where a connection comes from. Exactly one is said."""

    namespaces: LabelSelector | None = None
    pods: NamespacedPod | None = None


class ClusterNetworkPolicyEgressPeer(Part, frozen=True, kw_only=True):
    """Where a connection goes to: pods, nodes by their labels, blocks of addresses (pods in them are meant too), or
    DNS names (`*.example.com` for every name below). Exactly one is said.
    """

    namespaces: LabelSelector | None = None
    pods: NamespacedPod | None = None
    nodes: LabelSelector | None = None
    networks: tuple[str, ...] = ()
    domain_names: tuple[str, ...] = ()


class PortRange(Part, frozen=True, kw_only=True):
    """From `start` to `end`, both included."""

    start: Port
    end: Port


class DestinationPort(Part, frozen=True, kw_only=True):
    """One port or a range. Exactly one is said."""

    number: Port | None = None
    range_: PortRange | None = None


class TransportMatch(Part, frozen=True, kw_only=True):
    """What is asked of the header of a transport protocol."""

    destination_port: DestinationPort


class ClusterNetworkPolicyProtocol(Part, frozen=True, kw_only=True):
    """A protocol and its port, or the name that the destination pod gives a port, in whichever protocol. Exactly one is
    said.
    """

    tcp: TransportMatch | None = None
    udp: TransportMatch | None = None
    sctp: TransportMatch | None = None
    destination_named_port: str = ""


class ClusterNetworkPolicyIngressRule(Part, frozen=True, kw_only=True):
    """What becomes of connections from these peers to these ports; no `protocols` is all of them."""

    name: str = ""
    action: RuleAction
    from_: tuple[ClusterNetworkPolicyIngressPeer, ...]
    protocols: tuple[ClusterNetworkPolicyProtocol, ...] = ()


class ClusterNetworkPolicyEgressRule(Part, frozen=True, kw_only=True):
    """What becomes of connections to these peers at these ports; no `protocols` is all of them."""

    name: str = ""
    action: RuleAction
    to: tuple[ClusterNetworkPolicyEgressPeer, ...]
    protocols: tuple[ClusterNetworkPolicyProtocol, ...] = ()


class ClusterNetworkPolicySpec(Part, frozen=True, kw_only=True):
    """Which tier and place in it, whom the rules are about, and the rules in their order."""

    tier: PolicyTier
    priority: Annotated[int, Meta(ge=0, le=1000)]
    subject: ClusterNetworkPolicySubject
    ingress: tuple[ClusterNetworkPolicyIngressRule, ...] = ()
    egress: tuple[ClusterNetworkPolicyEgressRule, ...] = ()


class ClusterNetworkPolicy(Object, frozen=True, kw_only=True, tag="ClusterNetworkPolicy"):
    """Rules for the whole cluster, above or below those of the namespaces."""

    kind: ClassVar[str] = "ClusterNetworkPolicy"
    api_version: ClassVar[str] = "policy.networking.k8s.io/v1alpha2"
    namespaced: ClassVar[bool] = False

    spec: ClusterNetworkPolicySpec
    status: Kept = UNSET
