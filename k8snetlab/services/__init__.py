"""How does a packet to a stable address find a pod?

A Service's address is on no interface. Two programs keep the promise: the EndpointSlice controller writes down who
answers at the moment (`slices`), and kube-proxy turns Services and slices into rules on every node. Neither sees a
packet. `legacy` and `mirroring` are about the Endpoints that stood in the place of slices; `churn` counts what it costs
to write them. `exposure` is what every proxy works on, `endpoints` how it chooses backends; each mode is a module, and
its line in `MODES`.

Guide sections 2.2 and 5.1; KEP-752 (EndpointSlices), KEP-1669 (terminating endpoints).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import msgspec

from k8snetlab.address import Prefix, family
from k8snetlab.api import Node
from k8snetlab.errors import BadOption, Problem
from k8snetlab.linux.ebpf import Attachment, Ebpf, Program, sockets
from k8snetlab.linux.host import Part
from k8snetlab.linux.ipvs import Scheduler
from k8snetlab.linux.link import Link
from k8snetlab.services import iptables
from k8snetlab.services.endpoints import Backend
from k8snetlab.services.exposure import Exposure, exposures
from k8snetlab.services.health import health_listeners, ready_on

__all__ = [
    "MODES", "Backend", "Exposure", "Mode", "Place", "Served", "exposures", "health_listeners", "per_packet",
    "ready_on", "through_tunnel",
]  # fmt: skip

Served: TypeAlias = Mapping[int, tuple[Exposure, ...]]
"""The Service ports of each family."""


class Place(msgspec.Struct, frozen=True):
    """Where a proxy runs: its node, every address that the node's devices have but the loopback's (in the order of the
    devices, those of the CNI too), and the cluster's pod and Service networks. `links` are those devices, and `nodes`
    the addresses of all nodes.
    `options` are those of the mode, each with its value.
    """

    node: Node
    addresses: tuple[str, ...] = ()
    pods: tuple[Prefix, ...] = ()
    services: tuple[Prefix, ...] = ()
    links: tuple[Link, ...] = ()
    nodes: tuple[str, ...] = ()
    options: Mapping[str, str] = {}

    def own(self, of: int) -> str:
        """The node's own address in a family (4 or 6), or nothing."""
        return next((address for address in self.node.addresses if family(address) == of), "")

    def pod_network(self, of: int) -> Prefix | None:
        """The pod network of a family; nothing if the cluster has none there."""
        return next((block for block in self.pods if block.family == of), None)


def _nothing(served: Served, place: Place) -> Part:
    return Part()


class Mode(msgspec.Struct, frozen=True):
    """A proxy: what it writes on a node, and what it leaves in each pod of that node (most leave nothing).

    `addresses` are those that it gives every node, so that all of them may answer for these; `options` names what can
    be chosen, with the values there are, the usual one first.
    """

    node: Callable[[Served, Place], Part]
    pod: Callable[[Served, Place], Part] = _nothing
    addresses: Callable[[Served], frozenset[str]] = lambda served: frozenset()
    options: Mapping[str, tuple[str, ...]] = {}

    def chosen(self, given: Mapping[str, str]) -> Mapping[str, str]:
        """Every option with its value. Raises `BadOption` for an option or a value that does not exist."""
        for name, value in given.items():
            if name not in self.options:
                known = f"there are {', '.join(self.options)}" if self.options else "it has none"
                raise BadOption(Problem(f"the proxy mode has no option {name!r}; {known}", field="proxy_options"))
            if value not in self.options[name]:
                known = ", ".join(self.options[name])
                raise BadOption(Problem(f"{value!r} is no {name}; there are {known}", field=f"proxy_options.{name}"))
        return {name: given.get(name, values[0]) for name, values in self.options.items()}


def _iptables(served: Served, place: Place) -> Part:
    """kube-proxy in iptables mode. It lets node ports be used at 127.0.0.1, for which it sets `route_localnet`."""
    patches = tuple(
        patch
        for of, ports in sorted(served.items())
        for patch in iptables.patches(
            ports,
            of,
            node=place.node.name,
            zone=place.node.zone,
            address=place.own(of),
            pods=place.pod_network(of),
        )
    )
    return Part(patches=patches, sysctls={"net.ipv4.conf.all.route_localnet": 1})


def _nftables(served: Served, place: Place) -> Part:
    """kube-proxy in nftables mode: a table for each family."""
    from k8snetlab.services import nftables

    tables = tuple(
        nftables.table(
            ports,
            of,
            node=place.node.name,
            zone=place.node.zone,
            address=place.own(of),
            pods=place.pod_network(of),
            services=tuple(block for block in place.services if block.family == of),
        )
        for of, ports in sorted(served.items())
    )
    return Part(nftables=tables)


def _ebpf_on(served: Served, place: Place, attached: tuple[Attachment, ...]) -> Part:
    """The maps of a node, and the programs that look them up in one of its namespaces."""
    from k8snetlab.services import ebpf

    own = tuple(place.node.addresses)
    maps = ebpf.frontends(served, node=place.node.name, zone=place.node.zone, addresses=own)
    known = ebpf.identities(own, place.nodes)
    return Part(ebpf=Ebpf(place.node.name, attached, maps, known, source=own))


def _ebpf(served: Served, place: Place) -> Part:
    """Cilium instead of kube-proxy: maps and programs."""
    from k8snetlab.services import ebpf

    return _ebpf_on(served, place, ebpf.attached(place.links, tuple(place.node.addresses)))


def _ebpf_in_pod(served: Served, place: Place) -> Part:
    """The node's socket programs, which work for its pods too."""
    return _ebpf_on(served, place, sockets())


def per_packet(served: Served, place: Place) -> Ebpf:
    """Cilium beside another proxy: cluster addresses are balanced at the devices of pods, for pods alone. What a pod
    sends never meets the rules of kube-proxy on its way back, so these could not translate it.
    """
    from k8snetlab.services import ebpf

    own = tuple(place.node.addresses)
    kinds = frozenset({ebpf.CLUSTER_IP})
    maps = ebpf.frontends(served, node=place.node.name, zone=place.node.zone, addresses=own, kinds=kinds)
    known = ebpf.identities(own, place.nodes)
    return Ebpf(place.node.name, ebpf.attached_to_pods(place.links), maps, known, source=own)


def through_tunnel(balancing: Ebpf, device: str, source: tuple[str, ...]) -> Ebpf:
    """The same where packets that go on to another node go through a tunnel, and so do their answers: they get an
    address as their source that the other node knows to be behind it, and a program at the tunnel translates back.
    """
    more = Attachment(Program.FROM_OVERLAY, device)
    return msgspec.structs.replace(balancing, attached=(*balancing.attached, more), source=source)


def _ipvs(served: Served, place: Place) -> Part:
    """kube-proxy in ipvs mode."""
    from k8snetlab.services import ipvs

    families = (4, 6)
    node = ipvs.Node(
        name=place.node.name,
        zone=place.node.zone,
        addresses=place.addresses,
        own={of: place.own(of) for of in families},
        pods={block.family: block for block in reversed(place.pods)},
        index=1 + max((link.index for link in place.links), default=1),
        scheduler=Scheduler(place.options["scheduler"]),
    )
    return ipvs.part(served, node, strict_arp=place.options["strict-arp"] == "true")


def _bound_everywhere(served: Served) -> frozenset[str]:
    """The addresses that kube-proxy in ipvs mode binds on every node."""
    from k8snetlab.services import ipvs

    return frozenset(ipvs.service_addresses(served))


# Most clusters have one mode, so a mode's module is loaded when it is first compiled.
MODES: Mapping[str, Mode] = {
    "iptables": Mode(_iptables),
    "nftables": Mode(_nftables),
    "ipvs": Mode(
        _ipvs,
        addresses=_bound_everywhere,
        options={"scheduler": tuple(Scheduler), "strict-arp": ("false", "true")},
    ),
    "ebpf": Mode(_ebpf, _ebpf_in_pod),
}
"""The modes of kube-proxy, by the name its configuration uses, and `ebpf`: Cilium instead of it."""
