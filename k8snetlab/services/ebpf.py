"""What does a node hold that has no kube-proxy?

Cilium's replacement of kube-proxy writes no rule. Its agent turns Services and EndpointSlices into entries of eBPF
maps, and programs look them up (`linux.ebpf` says how they work): at the *socket* for whoever is on the node, pods and
the node alike, and at the node's *device* for packets from outside. Each address of a Service port becomes a frontend:

    cluster address        for the inside only; packets from outside are dropped
    external address       for packets; a socket is led there only on the node that owns the address
    load balancer address  for all; source ranges are asked for packets from outside alone
    node port              at each own address of the node, and once at 0.0.0.0 (or ::), which stands for every node's
                           addresses: a socket that means another node's port is led to a backend at once

A frontend with `externalTrafficPolicy` and `internalTrafficPolicy` that differ has two scopes, of which the inner one
follows `internalTrafficPolicy`. The socket programs are attached at the root of the node's cgroups, so they work for
its pods too: that is why this mode leaves something in every pod (`pod`).

Known from Cilium's sources (1.19, checked against those of 2026). It differs from kube-proxy in what one sees:

- No endpoint, or none here under a policy `Local`: connect() ends at once with EHOSTUNREACH; packets from outside are
  refused (port unreachable), never dropped in silence.
- The source stays. A pod that uses a node port is seen with its own address; so is a client outside whose backend is
  on the node that he came to, though the policy is `Cluster`. Only what goes on to another node gets the node's
  address.
- A pod reaches itself by its Service with nothing translated but the destination.
- `internalTrafficPolicy: Local` holds for node ports and load balancer addresses too, when a pod or node uses them.
- Node ports: on the addresses of nodes only, not of the CNI's devices; on the node itself at 127.0.0.1, and at ::1 too.
- Source ranges do not hold for pods and nodes. A Service with ranges of the other family alone lets nobody in there in
  reality; here it is as if it had none.
- A wrong port of a cluster address is just an address that nobody has: the packet goes where the default route leads.
- Session affinity counts for a socket by its network namespace, per address of the Service; every use prolongs it.
- Node ports count from 30000 to 32767 for sockets; one outside of that is found at the node's own addresses only.

Taken as configured: `kubeProxyReplacement`, SNAT, random backends, service topology (hints) and SCTP — the last two are
off unless one asks for them. With SCTP there are programs at the pods' devices as well, which balance what no socket
program does: SCTP, which these do not know, and external addresses. Nodes have no such program: SCTP and external
addresses are not balanced for what a node itself sends. Cilium is thought to be chained on the CNI that is chosen
(`cni.chainingMode`): the CNI makes devices, routes and its masquerading, Cilium balances. With `cni=cilium` it is the
whole Cilium: packets that go on to another node then get the address of cilium_host, and go through the tunnel; with
another proxy the programs at pods' devices balance cluster addresses for pods, and kube-proxy does the rest.

Not modelled: Maglev, DSR, XDP, L7 load balancing, wildcard entries that drop unknown ports of load balancer addresses,
host ports, bind() refused on a node port, masquerading by eBPF. Guide sections 2.2, 3.1 and 5.1; KEP-2086, KEP-1669.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial

import msgspec

from k8snetlab.address import family
from k8snetlab.api import TrafficPolicy
from k8snetlab.linux.ebpf import (
    ANY,
    Attachment,
    Backend,
    Flag,
    Frontend,
    Identity,
    Key,
    Program,
    Scope,
    Services,
    sockets,
)
from k8snetlab.linux.link import Link, LinkKind
from k8snetlab.services.endpoints import Chosen, chosen
from k8snetlab.services.exposure import Exposure

__all__ = ["CLUSTER_IP", "attached", "attached_to_pods", "frontends", "identities"]

LOCAL = TrafficPolicy.LOCAL

CLUSTER_IP, EXTERNAL_IP, LOAD_BALANCER, NODE_PORT = "ClusterIP", "ExternalIPs", "LoadBalancer", "NodePort"
"""What `cilium-dbg bpf lb list` calls a frontend."""

KINDS = frozenset({CLUSTER_IP, EXTERNAL_IP, LOAD_BALANCER, NODE_PORT})


class _Served(msgspec.Struct, frozen=True, dict=True):
    """One Service port as a node serves it; which backends it has there is worked out when somebody asks."""

    exposure: Exposure
    node: str
    zone: str

    @cached_property
    def chosen(self) -> Chosen:
        """The node's choice for either policy."""
        policies = {self.exposure.internal, self.exposure.external}
        return chosen(self.exposure.backends, policies, self.node, self.zone)

    def backends(self, policy: TrafficPolicy) -> tuple[Backend, ...]:
        """The endpoints for traffic that follows a policy."""
        found = self.chosen.local if policy is LOCAL else self.chosen.cluster
        return tuple(Backend(each.ip, each.port, each.node == self.node) for each in found)

    @property
    def two_scopes(self) -> bool:
        """Whether inside and outside follow different policies."""
        return self.exposure.external is not self.exposure.internal

    def frontend(self, key: Key, number: int, kind: str) -> Frontend:
        """The entry for one address of the port."""
        port = self.exposure
        inside = kind == CLUSTER_IP or key.scope is Scope.INTERNAL
        return Frontend(
            key,
            number,
            kind,
            self.backends(port.internal if inside else port.external),
            tuple(self._flags(key, kind)),
            port.affinity,
            port.source_ranges if kind == LOAD_BALANCER else (),
            guarded=kind == EXTERNAL_IP,
        )

    def _flags(self, key: Key, kind: str) -> Iterator[Flag]:
        port = self.exposure
        if port.external is LOCAL:
            yield Flag.LOCAL
        if port.internal is LOCAL:
            yield Flag.INTERNAL_LOCAL
        if self.two_scopes and kind != CLUSTER_IP:
            yield Flag.TWO_SCOPES
        if port.affinity:
            yield Flag.AFFINITY
        if kind == CLUSTER_IP or key.address in ANY.values():
            yield Flag.NON_ROUTABLE
        if kind == LOAD_BALANCER and port.source_ranges:
            yield Flag.SOURCE_RANGE


def frontends(
    served: Mapping[int, tuple[Exposure, ...]],
    *,
    node: str,
    zone: str,
    addresses: tuple[str, ...],
    kinds: frozenset[str] = KINDS,
) -> Services:
    """The frontends of these kinds of a node whose own addresses these are, numbered in their order."""
    held: dict[Key, Callable[[], Frontend]] = {}
    for of, ports in sorted(served.items()):
        own = tuple(address for address in addresses if family(address) == of)
        for port in ports:
            each = _Served(port, node, zone)
            ways = (way for way in _addresses(port, own, of) if way[0] in kinds)
            for kind, address, number in ways:
                inner = each.two_scopes and kind != CLUSTER_IP
                for scope in (Scope.EXTERNAL, Scope.INTERNAL) if inner else (Scope.EXTERNAL,):
                    key = Key(address, number, port.protocol, scope)
                    if key not in held:  # the first Service that claims an address and port keeps it
                        held[key] = partial(each.frontend, key, len(held) + 1, kind)
    return Services(held)


def _addresses(port: Exposure, own: tuple[str, ...], of: int) -> Iterator[tuple[str, str, int]]:
    """The kind, address and port number of every way to a Service port."""
    yield CLUSTER_IP, port.cluster_ip, port.port
    for address in port.external_ips:
        yield EXTERNAL_IP, address, port.port
    for address in port.load_balancer_ips:
        yield LOAD_BALANCER, address, port.port
    if port.node_port:
        for address in (ANY[of], *own):
            yield NODE_PORT, address, port.node_port


def identities(own: tuple[str, ...], nodes: tuple[str, ...]) -> Mapping[str, Identity]:
    """Which addresses are this node's, and which another node's."""
    return {**dict.fromkeys(nodes, Identity.REMOTE), **dict.fromkeys(own, Identity.HOST)}


def attached(links: tuple[Link, ...], own: tuple[str, ...]) -> tuple[Attachment, ...]:
    """The programs of a node: at the cgroup, at the devices with its own addresses, and at those of its pods."""
    found = list(sockets())
    for link in links:
        if any(address.ip in own for address in link.addresses):
            found += (Attachment(Program.FROM_OUTSIDE, link.name), Attachment(Program.TO_OUTSIDE, link.name))
        elif _leads_to_pod(link):
            found += _at(link)
    return tuple(found)


def attached_to_pods(links: tuple[Link, ...]) -> tuple[Attachment, ...]:
    """The programs at the devices of a node's pods alone."""
    return tuple(each for link in links if _leads_to_pod(link) for each in _at(link))


def _leads_to_pod(link: Link) -> bool:
    """Whether a device is the node's end of a pod's cable. A pair that asks for no neighbours is the node's own."""
    return link.kind is LinkKind.VETH and link.arp


def _at(link: Link) -> tuple[Attachment, ...]:
    return Attachment(Program.FROM_CONTAINER, link.name), Attachment(Program.TO_CONTAINER, link.name)
