"""What does every Kubernetes cluster promise about its network?

A pod network may be built in many ways, but the rules it must keep are few: pods reach each other without NAT; nodes
reach pods without NAT; the address a pod sees as its own is the one that others see; the kubelet reaches its pods
(probes), and the API server the kubelets (exec, logs, port-forward); and a pod address means nothing outside of the
cluster. Each rule is a check here that sends real walks through the cluster and says what it sent. For each rule
`BREAKERS` has a change of the machines' state that makes exactly that rule fail.

Echo requests are used where no listener is promised. In clusters of more than eight pods a node, two pods of each
node stand for the others, which hang on the same bridge; the evidence says how many were asked.

Not modelled: that pods are isolated by policies (a policy that drops echo requests breaks the first rule here as it
would for `ping`). Guide section 1.1; Kubernetes "The Kubernetes network model".
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from k8snetlab.address import Prefix
from k8snetlab.compile import CLIENT, KUBELET, ROUTER, client_address
from k8snetlab.errors import UnknownName
from k8snetlab.flows import Terrain
from k8snetlab.linux.host import Host, Network
from k8snetlab.linux.netfilter import (
    DROP,
    Comment,
    CtState,
    Destination,
    Masquerade,
    Netfilter,
    OutInterface,
    Patch,
    Rule,
    Source,
    Table,
    tables,
)
from k8snetlab.linux.route import Route
from k8snetlab.linux.walk import Exchange, World, exchange
from k8snetlab.trace import Client

if TYPE_CHECKING:
    from k8snetlab.cluster import Cluster

__all__ = ["BREAKERS", "RULES", "Check", "Report", "break_rule", "check"]

EVERY = 8
"""Up to so many pods a node are all asked; of more, two stand for the others."""


class Check(msgspec.Struct, frozen=True):
    """One rule and how it stands: `evidence` says what was sent, `failures` what went wrong (at most ten are told)."""

    rule: str
    title: str
    holds: bool
    evidence: str
    failures: tuple[str, ...] = ()

    def __str__(self) -> str:
        head = f"{'holds ' if self.holds else 'BROKEN'}  {self.title}\n        {self.evidence}"
        return "\n".join((head, *(f"        ✗ {failure}" for failure in self.failures)))


class Report(msgspec.Struct, frozen=True):
    """The checks in the order of the guide."""

    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """Whether every rule holds."""
        return all(check.holds for check in self.checks)

    @property
    def broken(self) -> tuple[str, ...]:
        """The rules that do not hold."""
        return tuple(check.rule for check in self.checks if not check.holds)

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks)

    def __getitem__(self, rule: str) -> Check:
        for each in self.checks:
            if each.rule == rule:
                return each
        raise UnknownName("rule", rule, RULES)

    def __str__(self) -> str:
        return "\n".join(str(check) for check in self.checks)

    def __repr__(self) -> str:
        held = sum(check.holds for check in self.checks)
        return f"<Report: {held} of {len(self.checks)} rules hold>"

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON."""
        rows = [
            {"rule": c.rule, "title": c.title, "holds": c.holds, "evidence": c.evidence, "failures": list(c.failures)}
            for c in self.checks
        ]
        return {"schema": "k8snetlab/v1", "kind": "Contract", "holds": self.holds, "checks": rows}


class Subjects(msgspec.Struct, frozen=True):
    """Who is asked: pods by node (name, address), nodes (name, addresses), the first family only."""

    terrain: Terrain
    pods: Mapping[str, tuple[tuple[str, str], ...]]
    all_pods: int

    @property
    def everyone(self) -> tuple[tuple[str, str], ...]:
        return tuple(pod for pods in self.pods.values() for pod in pods)

    def send(self, source: str, address: str, port: int = 0, protocol: str = "ICMP") -> Exchange:
        return exchange(World(self.terrain.network, random.Random(0)), source, address, port, protocol)


def check(cluster: Cluster) -> Report:
    """Check every rule on a cluster."""
    subjects = _subjects(cluster.terrain)
    return Report(tuple(_judged(rule, title, probe, subjects) for rule, (title, probe) in RULES.items()))


def _subjects(terrain: Terrain) -> Subjects:
    chosen: dict[str, tuple[tuple[str, str], ...]] = {}
    total = 0
    for node, pods in terrain.layout.workloads.items():
        found = tuple((pod.name, pod.addresses[0]) for pod in pods)
        total += len(found)
        chosen[node] = found if len(found) <= EVERY else found[:2]
    return Subjects(terrain, chosen, total)


def _judged(rule: str, title: str, probe: Probe, subjects: Subjects) -> Check:
    evidence, failures = probe(subjects)
    told = tuple(failures[:10])
    if len(failures) > 10:
        told = (*told, f"… and {len(failures) - 10} more")
    return Check(rule, title, not failures, evidence, told)


Probe = Callable[[Subjects], tuple[str, list[str]]]


def _asked(subjects: Subjects) -> str:
    asked = len(subjects.everyone)
    return f"{asked} pods" if asked == subjects.all_pods else f"{asked} of {subjects.all_pods} pods, two a node,"


def _pod_to_pod(subjects: Subjects) -> tuple[str, list[str]]:
    failures = []
    count = 0
    for source, _ in subjects.everyone:
        for target, address in subjects.everyone:
            if source == target:
                continue
            count += 1
            result = subjects.send(source, address)
            if result.client is not Client.OPEN or result.arrival is None:
                failures.append(f"{source} → {target} {address}: {result.reason}")
            elif result.arrival.packet.ip.dst != address:
                failures.append(f"{source} → {target} {address}: it arrived at {result.arrival.packet.ip.dst}")
    return f"{_asked(subjects)} sent {count} echo requests to each other", failures


def _same_address(subjects: Subjects) -> tuple[str, list[str]]:
    failures = []
    count = 0
    for source, own in subjects.everyone:
        held = subjects.terrain.network[source].owned
        if own not in held:
            failures.append(f"{source} is known as {own}, and has {', '.join(a for a in held if a not in _LOOPBACK)}")
        for target, address in subjects.everyone:
            if source == target:
                continue
            result = subjects.send(source, address)
            if result.arrival is None:
                continue
            count += 1
            if result.arrival.packet.ip.src != own:
                failures.append(f"{target} sees {source} as {result.arrival.packet.ip.src}, not as {own}")
    return f"{count} packets arrived, and their source was compared with the sender's own address", failures


_LOOPBACK = ("127.0.0.1", "::1")


def _node_to_pod(subjects: Subjects) -> tuple[str, list[str]]:
    failures = []
    count = 0
    for node in subjects.pods:
        own = subjects.terrain.network[node].owned
        for target, address in subjects.everyone:
            count += 1
            result = subjects.send(node, address)
            if result.client is not Client.OPEN or result.arrival is None:
                failures.append(f"{node} → {target} {address}: {result.reason}")
            elif result.arrival.packet.ip.src not in own:
                failures.append(f"{target} sees {node} as {result.arrival.packet.ip.src}, which is not its address")
    return f"{len(subjects.pods)} nodes sent {count} echo requests to {_asked(subjects)}", failures


def _kubelet_and_apiserver(subjects: Subjects) -> tuple[str, list[str]]:
    failures = []
    probes = calls = 0
    for node, pods in subjects.pods.items():
        for target, address in pods:
            probes += 1
            result = subjects.send(node, address)
            if result.client is not Client.OPEN:
                failures.append(f"kubelet on {node} → {target}: {result.reason}")
    for server in _api_servers(subjects.terrain):
        for node in subjects.pods:
            calls += 1
            address = subjects.terrain.layout.stations[node].addresses[0]
            result = subjects.send(server, address, KUBELET.port, "TCP")
            if result.client is not Client.OPEN:
                failures.append(f"API server on {server} → kubelet {node} {address}:{KUBELET.port}: {result.reason}")
    said = f"kubelets asked {probes} pods of their nodes; API servers asked kubelets {calls} times at {KUBELET.port}"
    return said, failures


def _api_servers(terrain: Terrain) -> tuple[str, ...]:
    """The machines that serve `default/kubernetes`."""
    return tuple(
        name
        for name in terrain.layout.stations
        if any(s.program == "kube-apiserver" for s in terrain.network[name].listeners)
    )


def _outside(subjects: Subjects) -> tuple[str, list[str]]:
    failures = []
    for target, address in subjects.everyone:
        result = subjects.send(CLIENT, address)
        if result.arrival is not None:
            failures.append(f"a client outside reaches {target} at {address}")
    return f"a client outside, {client_address(4)}, sent an echo request to {_asked(subjects)}", failures


RULES: Mapping[str, tuple[str, Probe]] = {
    "pod-to-pod": ("pods reach all pods without NAT", _pod_to_pod),
    "node-to-pod": ("nodes reach all pods without NAT", _node_to_pod),
    "same-address": ("a pod sees the address that others see", _same_address),
    "kubelet": ("the kubelet reaches its pods, the API server the kubelets", _kubelet_and_apiserver),
    "outside": ("pod addresses mean nothing outside of the cluster", _outside),
}
"""The rules of the network model by name: what they say, and how they are checked."""


# How to break each rule, and no other


def break_rule(cluster: Cluster, rule: str) -> Cluster:
    """The cluster with the machine state changed so that this rule fails, and no other. Raises `UnknownName`."""
    if rule not in BREAKERS:
        raise UnknownName("rule", rule, BREAKERS)
    return cluster.overlaid(f"break {rule}", BREAKERS[rule])


def _first_node(terrain: Terrain) -> tuple[Host, str, str]:
    """A node with pods: its Host, its pod CIDR, and the pods' CIDR of the cluster."""
    name = next(name for name, pods in terrain.layout.workloads.items() if pods)
    machine = terrain.layout.machines[name]
    return terrain.network[name], str(machine.pod_cidrs[0]), str(terrain.objects.networks.pods[0])


def _ruled(network: Network, host: Host, rule: Rule) -> Network:
    """The network with one more rule at the top of a base chain of one machine."""
    held = dict(host.netfilter.ipv4)
    table = held.get(rule.table) or tables(4, [Patch(rule.table)])[rule.table]
    chain = table.chains[rule.chain]
    longer = msgspec.structs.replace(chain, rules=(rule, *chain.rules))
    held[rule.table] = Table(rule.table, table.chains.replacing(longer))
    return network.replacing(msgspec.structs.replace(host, netfilter=Netfilter(held, host.netfilter.ipv6)))


def _no_pod_to_pod(terrain: Terrain) -> Network:
    """A firewall on one node that lets its pods open no connection to pods elsewhere."""
    host, own, everyone = _first_node(terrain)
    matches = (
        Source(Prefix.of(own)),
        Destination(Prefix.of(everyone)),
        Comment("no pod may call another node"),
        CtState(("NEW",)),
    )
    return _ruled(terrain.network, host, Rule("filter", "FORWARD", matches, DROP))


def _no_node_to_pod(terrain: Terrain) -> Network:
    """A firewall on one node that lets the node itself open no connection to pods on other nodes."""
    host, own, everyone = _first_node(terrain)
    matches = (
        Destination(Prefix.of(everyone)),
        OutInterface(_pod_device(host, own), invert=True),
        Comment("this machine may not call pods elsewhere"),
        CtState(("NEW",)),
    )
    return _ruled(terrain.network, host, Rule("filter", "OUTPUT", matches, DROP))


def _pod_device(host: Host, own: str) -> str:
    return next((route.device for route in host.routes if route.prefix == own), "lo")


def _hidden_pods(terrain: Terrain) -> Network:
    """A masquerade rule that is too wide: it hides the node's pods behind the node even from other pods."""
    host, own, everyone = _first_node(terrain)
    matches = (Source(Prefix.of(own)), Destination(Prefix.of(everyone)), Comment("masquerade too much"))
    return _ruled(terrain.network, host, Rule("nat", "POSTROUTING", matches, Masquerade()))


def _no_kubelet(terrain: Terrain) -> Network:
    """The kubelet of one node does not listen: no logs, no exec there."""
    host, _, _ = _first_node(terrain)
    return terrain.network.without(host.name, KUBELET)


def _leaky_router(terrain: Terrain) -> Network:
    """Somebody taught the router the pods' addresses: they can now be reached from outside."""
    host, own, _ = _first_node(terrain)
    station = terrain.layout.stations[host.name]
    router = terrain.network[ROUTER]
    device = f"eth{terrain.layout.segments.index(station.segment)}"
    route = Route(own, device, station.addresses[0])
    return terrain.network.replacing(msgspec.structs.replace(router, routes=(*router.routes, route)))


BREAKERS: Mapping[str, Callable[[Terrain], Network]] = {
    "pod-to-pod": _no_pod_to_pod,
    "node-to-pod": _no_node_to_pod,
    "same-address": _hidden_pods,
    "kubelet": _no_kubelet,
    "outside": _leaky_router,
}
"""For each rule the change of the machines' state that breaks it."""
