"""How does a packet leave a pod, and how does it find the node of another?

Kubernetes asks three things of a network — every pod has an address, pods reach each other without NAT, nodes reach
pods — and leaves the rest to a plugin. The kubelet's runtime calls it for every pod (the Container Network Interface:
a program, JSON in, JSON out), and a daemon of the same project usually programs the node. Here a CNI is a pure
function: from what it has to know (`Plan`, `Machine`, `Workload`) to what it writes on a node and in a pod
(`linux.host.Part`).

    variant   between nodes                        pod MTU on 1500     enforces NetworkPolicy
    bridge    host routes, one subnet only         1500                no
    flannel   VXLAN, host routes, or WireGuard     1450, 1500, 1420    no
    cloud     the provider's route table           1500                no
    calico    IPIP, or BGP, or VXLAN               1480, 1500, 1450    yes (its own chains)
    cilium    VXLAN, Geneve, or host routes        1500, routes 1450   yes, by identity
    weave     a mesh: VXLAN, or a program (sleeve) 1376                yes (its own chains)

To add one: a module with a class that fulfils `Cni`, and its line in `VARIANTS`.

The calls themselves (ADD, CHECK, DEL, GC, with their JSON) are in `protocol`, read off the machines that were compiled.

Not modelled: several networks in one pod. Guide sections 2.1 and 3.1; CNI specification 1.1.0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Protocol, runtime_checkable

from k8snetlab.address import Prefix
from k8snetlab.cni.bgp import Rib
from k8snetlab.cni.ipam import Ipam, host_local
from k8snetlab.cni.plan import (
    Enforcement,
    Machine,
    NetworkList,
    Option,
    Plan,
    Plugin,
    PolicyAttachment,
    Remote,
    Workload,
)
from k8snetlab.errors import BadOption, Problem
from k8snetlab.linux.host import Part

__all__ = [
    "ARCHIVED", "VARIANTS", "Allocating", "Cni", "Configured", "Enforcement", "Ipam", "Machine", "NetworkList",
    "Option", "Particular", "Plan", "Plugin", "PolicyAttachment", "Remote", "Rib", "Routing", "Spanning", "Speaking",
    "Translating", "Workload", "in_its_language", "ipam_of", "named", "node_addresses", "own_pools", "shares",
    "told_to_router",
]  # fmt: skip


class Cni(Protocol):
    """One way to build a pod network."""

    @property
    def name(self) -> str:
        """Its name on the command line."""
        ...

    @property
    def options(self) -> tuple[Option, ...]:
        """What can be chosen about it."""
        ...

    @property
    def policies(self) -> PolicyAttachment:
        """Where the rules of NetworkPolicies belong, if it enforces them."""
        ...

    @property
    def overhead(self) -> int:
        """Bytes that it adds to a packet between nodes."""
        ...

    @property
    def summary(self) -> str:
        """What it does, in one sentence."""
        ...

    def pod_mtu(self, machine: Machine) -> int:
        """The MTU of the pods' devices on that machine."""
        ...

    def node(self, plan: Plan, machine: Machine, workloads: Sequence[Workload]) -> Part:
        """What it writes on a machine that runs these pods."""
        ...

    def pod(self, plan: Plan, machine: Machine, workload: Workload) -> Part:
        """What it writes in one pod of that machine. Nothing else is looked at, so one pod costs one pod."""
        ...


@runtime_checkable
class Routing(Protocol):
    """A CNI that has something to say to the router between the nodes as well: a provider's route table, or BGP."""

    def router(self, plan: Plan) -> Part:
        """What it writes there. Its routes name a gateway and no device: the router knows which of its own leads
        there.
        """
        ...


@runtime_checkable
class Configured(Protocol):
    """A CNI whose pods are plugged in by plugins that a runtime calls: all real ones. What they are told is known of
    those that say it here.
    """

    def network(self, plan: Plan, machine: Machine) -> NetworkList:
        """What the runtime finds in its configuration on that machine."""
        ...


@runtime_checkable
class Translating(Protocol):
    """A CNI that can write its rules, and those of policies in its chains, in another language than iptables'."""

    def translated(self, *parts: Part) -> tuple[Part, ...]:
        """What it writes on a node and what policies write beside it, in the language that was chosen."""
        ...


@runtime_checkable
class Particular(Protocol):
    """A CNI that does not work beside every proxy."""

    def refuses(self, proxy: str) -> str:
        """Why it cannot work beside this one; nothing where it can."""
        ...


def in_its_language(plugin: Cni, *parts: Part) -> tuple[Part, ...]:
    """What a CNI writes on a node and what policies write beside it, in the language of the CNI's data plane."""
    return plugin.translated(*parts) if isinstance(plugin, Translating) else parts


def told_to_router(plugin: Cni, plan: Plan) -> Part:
    """What a CNI writes on the router between the nodes; most write nothing."""
    return plugin.router(plan) if isinstance(plugin, Routing) else Part()


@runtime_checkable
class Allocating(Protocol):
    """A CNI that gives pods their addresses in its own way, not out of the pod CIDR of each node."""

    def addresses(
        self, pool: Prefix, machines: Sequence[Machine], pods: Mapping[str, Sequence[str]], kept: Mapping[str, str]
    ) -> Mapping[str, str]:
        """The address of every pod: `ipam.Ipam` says of what."""
        ...


@runtime_checkable
class Speaking(Protocol):
    """A CNI whose nodes speak BGP."""

    def rib(self, plan: Plan, name: str) -> tuple[Rib, ...]:
        """What one speaker knows, by family. Raises `UnknownName`; nothing where nobody speaks."""
        ...


@runtime_checkable
class Spanning(Protocol):
    """A CNI whose pod network is one Ethernet segment over all nodes, and no business of the API server's: it takes
    addresses from pools of its own, and nodes have no pod CIDRs unless they say so.
    """

    @property
    def pools(self) -> tuple[Prefix, ...]:
        """The pod network, at most one a family, unless another is asked for; of other families pods have none."""
        ...

    def node_addresses(self, plan: Plan) -> Mapping[str, str]:
        """Who holds which address of the segment, beside pods: address to machine. Raises `BadOption` for what does
        not fit the plan.
        """
        ...

    def shares(self, plan: Plan) -> Mapping[str, Prefix]:
        """Which part of the segment's addresses each machine gives away."""
        ...


def own_pools(plugin: Cni) -> tuple[Prefix, ...]:
    """The pod network that a CNI has by itself; empty where nodes have pod CIDRs of the cluster's."""
    return plugin.pools if isinstance(plugin, Spanning) else ()


def node_addresses(plugin: Cni, plan: Plan) -> Mapping[str, str]:
    """The machines that hold addresses of one segment that spans them, by address."""
    return plugin.node_addresses(plan) if isinstance(plugin, Spanning) else {}


def shares(plugin: Cni, plan: Plan) -> Mapping[str, Prefix]:
    """The parts of one segment's addresses by machine."""
    return plugin.shares(plan) if isinstance(plugin, Spanning) else {}


def ipam_of(plugin: Cni) -> Ipam:
    """By what a CNI gives pods their addresses."""
    return plugin.addresses if isinstance(plugin, Allocating) else host_local


def _later(module: str, name: str) -> Callable[[Mapping[str, str]], Cni]:
    """A variant, whose module is loaded when somebody wants it."""

    def made(options: Mapping[str, str]) -> Cni:
        plugin: Cni = getattr(import_module(f"{__name__}.{module}"), name).of(options)
        return plugin

    return made


VARIANTS: Mapping[str, Callable[[Mapping[str, str]], Cni]] = {
    "bridge": _later("bridge", "Bridge"),
    "flannel": _later("flannel", "Flannel"),
    "cloud": _later("cloud", "Cloud"),
    "calico": _later("calico", "Calico"),
    "cilium": _later("cilium", "Cilium"),
    "weave": _later("weave", "Weave"),
}
"""The CNIs that exist, by name; each is made from its options."""

ARCHIVED: Mapping[str, int] = {"weave": 2024}
"""Those whose project has ended, and when: nobody mends them any more."""


def named(name: str, options: Mapping[str, str] | None = None) -> Cni:
    """The CNI of that name with these options, as the command line gives them. Raises `BadOption` naming what exists.

    >>> named("bridge", {"hairpin": "off"}).summary
    'a bridge on each node, host routes to the nodes of the same subnet, no encapsulation'
    """
    if name not in VARIANTS:
        raise BadOption(Problem(f"there is no CNI {name!r}; there are {', '.join(VARIANTS)}", field="cni"))
    return VARIANTS[name](options or {})
