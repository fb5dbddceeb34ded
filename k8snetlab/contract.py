"""What does every Kubernetes cluster promise about its network?

A pod network may be built in many ways, but the rules it must keep are few: pods reach each other without NAT; nodes
reach pods without NAT; the address a pod sees as its own is the one that others see; the kubelet reaches its pods
(probes), and the API server the kubelets (exec, logs, port-forward); and a pod address means nothing outside of the
cluster. Each rule is a check here that sends real walks through the cluster, in every family that pods have addresses
of, and says what it sent. For each rule `BREAKERS` has a change of the machines' state that makes exactly that rule
fail. So that each fault is told once, the first two rules judge whether a packet arrives, at the address it was sent
to; the third judges the source it arrives with.

Echo requests are used where no listener is promised. On a node with many pods two of them stand for the others, which
hang on the same bridge; in a cluster with many pods each asks some of the others, spread evenly. The evidence says how
many packets were sent.

Not modelled: that pods are isolated by policies (a policy that drops echo requests breaks the first rule here as it
would for `ping`). Guide section 1.1; Kubernetes "The Kubernetes network model".
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from k8snetlab.address import Prefix, family
from k8snetlab.compile import APISERVER, CLIENT, KUBELET, ROUTER, client_address, router_device
from k8snetlab.errors import BadOption, UnknownName
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

PAIRS = 5_000
"""Up to so many pairs of pods are all tried; of more, each pod asks as many others as come to this."""

TOLD = 10
"""So many failures of one rule are told."""


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


# Who is asked, and what is sent


class Address(NamedTuple):
    """One address of a pod: the name of its Host, and the address."""

    pod: str
    ip: str


class Try(NamedTuple):
    """A packet from one pod to another, the address the sender has in its family, and how it went."""

    source: Address
    target: Address
    result: Exchange


class Subjects(msgspec.Struct, frozen=True, dict=True):
    """Who is asked: the addresses of the chosen pods by node; and how many pods there are."""

    terrain: Terrain
    pods: Mapping[str, tuple[Address, ...]]
    all_pods: int

    @cached_property
    def everyone(self) -> tuple[Address, ...]:
        """The addresses of all chosen pods."""
        return tuple(each for pods in self.pods.values() for each in pods)

    @cached_property
    def pairs(self) -> tuple[Try, ...]:
        """Every chosen pod to every other, or in a large cluster to some; each packet is sent once, and judged by
        several rules.
        """
        return tuple(
            Try(source, target, self.send(source.pod, target.ip))
            for source in self.everyone
            for target in self._asked_by(source)
        )

    def _asked_by(self, source: Address) -> Iterable[Address]:
        of = family(source.ip)
        others = [each for each in self.everyone if each.pod != source.pod and family(each.ip) == of]
        most = max(1, PAIRS // len(self.everyone))
        at = self.everyone.index(source) % max(1, len(others))
        return (others[at:] + others[:at])[:: -(-len(others) // most) or 1]

    def send(self, source: str, address: str, port: int = 0, protocol: str = "ICMP") -> Exchange:
        """One packet and its answer."""
        return exchange(World(self.terrain.network, random.Random(0)), source, address, port, protocol)

    def __str__(self) -> str:
        asked = len({each.pod for each in self.everyone})
        return f"{asked} pods" if asked == self.all_pods else f"{asked} of {self.all_pods} pods, two a node,"

    @property
    def families(self) -> str:
        """Nothing for one family, `, by IPv4 and IPv6` for two."""
        found = sorted({family(each.ip) for each in self.everyone})
        return f", by {' and '.join(f'IPv{of}' for of in found)}" if len(found) > 1 else ""


def check(cluster: Cluster) -> Report:
    """Check every rule on a cluster."""
    subjects = _subjects(cluster.terrain)
    return Report(tuple(_judged(rule, title, probe, subjects) for rule, (title, probe) in RULES.items()))


def _subjects(terrain: Terrain) -> Subjects:
    workloads = terrain.layout.workloads
    chosen = {
        node: tuple(
            Address(pod.name, address)
            for pod in (pods if len(pods) <= EVERY else pods[:2])
            for address in pod.addresses
        )
        for node, pods in workloads.items()
    }
    return Subjects(terrain, chosen, sum(len(pods) for pods in workloads.values()))


Probe = Callable[[Subjects], tuple[str, list[str]]]
"""Gives the evidence and the failures."""


def _judged(rule: str, title: str, probe: Probe, subjects: Subjects) -> Check:
    evidence, failures = probe(subjects)
    told = tuple(failures[:TOLD])
    if len(failures) > TOLD:
        told = (*told, f"… and {len(failures) - TOLD} more")
    return Check(rule, title, not failures, evidence, told)


# The rules


def _pod_to_pod(subjects: Subjects) -> tuple[str, list[str]]:
    failures = []
    for source, target, result in subjects.pairs:
        if result.client is not Client.OPEN or result.arrival is None:
            failures.append(f"{source.pod} → {target.pod} {target.ip}: {result.reason}")
        elif result.arrival.packet.ip.dst != target.ip:
            arrived = result.arrival.packet.ip.dst
            failures.append(f"{source.pod} → {target.pod} {target.ip}: it arrived at {arrived}")
    return f"{subjects} sent {len(subjects.pairs)} echo requests to each other{subjects.families}", failures


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
    return f"{len(subjects.pods)} nodes sent {count} echo requests to {subjects}{subjects.families}", failures


def _same_address(subjects: Subjects) -> tuple[str, list[str]]:
    failures = []
    for pod, own in subjects.everyone:
        held = subjects.terrain.network[pod].owned
        if own not in held:
            failures.append(f"{pod} is known as {own}, and has {', '.join(a for a in held if a not in _LOOPBACK)}")
    arrived = [(source, target, result.arrival.packet.ip.src) for source, target, result in subjects.pairs
               if result.arrival is not None]  # fmt: skip
    failures += [
        f"{target.pod} sees {source.pod} as {seen}, not as {source.ip}"
        for source, target, seen in arrived
        if seen != source.ip
    ]
    return f"{len(arrived)} packets arrived, and their source was compared with the sender's own address", failures


_LOOPBACK = ("127.0.0.1", "::1")


def _kubelet_and_apiserver(subjects: Subjects) -> tuple[str, list[str]]:
    failures = []
    for node, pods in subjects.pods.items():
        for target, address in pods:
            result = subjects.send(node, address)
            if result.client is not Client.OPEN:
                failures.append(f"kubelet on {node} → {target}: {result.reason}")
    servers = _api_servers(subjects.terrain)
    for server in servers:
        for node in subjects.pods:
            address = subjects.terrain.layout.stations[node].addresses[0]
            result = subjects.send(server, address, KUBELET.port, "TCP")
            if result.client is not Client.OPEN:
                failures.append(f"API server on {server} → kubelet {node} {address}:{KUBELET.port}: {result.reason}")
    asked = f"kubelets asked {len({each.pod for each in subjects.everyone})} pods of their nodes"
    calls = len(servers) * len(subjects.pods)
    said = f"API servers asked kubelets {calls} times at {KUBELET.port}" if servers else "there is no API server to ask"
    return f"{asked}; {said}", failures


def _api_servers(terrain: Terrain) -> tuple[str, ...]:
    """The machines that serve `default/kubernetes`."""
    return tuple(
        name
        for name in terrain.layout.stations
        if any(listener.program == APISERVER for listener in terrain.network[name].listeners)
    )


def _outside(subjects: Subjects) -> tuple[str, list[str]]:
    failures = []
    for target, address in subjects.everyone:
        if subjects.send(CLIENT, address).arrival is not None:
            failures.append(f"a client outside reaches {target} at {address}")
    clients = " and ".join(client_address(of) for of in sorted({family(each.ip) for each in subjects.everyone}) or (4,))
    return f"a client outside, {clients}, sent an echo request to {subjects}", failures


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


class Spot(NamedTuple):
    """Where a rule is broken: a node with pods, its range of one family, and the pods' range of the cluster."""

    host: str
    own: Prefix
    everyone: Prefix


def _spots(terrain: Terrain) -> Iterator[Spot]:
    """The first node with pods, once for each family."""
    name = next((name for name, pods in terrain.layout.workloads.items() if pods), None)
    if name is None:
        raise BadOption("no pod runs in this cluster, so there is nothing to break")
    for own in terrain.layout.machines[name].pod_cidrs:
        yield Spot(name, own, terrain.layout.cni_plan.pod_cidr(own.family))


def _ruled(terrain: Terrain, rule: Callable[[Spot], Rule]) -> Network:
    """The network with one more rule for each family, at the top of a base chain of one machine."""
    network = terrain.network
    for spot in _spots(terrain):
        host = network[spot.host]
        network = network.replacing(_topped(host, spot.own.family, rule(spot)))
    return network


def _topped(host: Host, of: int, rule: Rule) -> Host:
    held = dict(host.netfilter.of(of))
    table = held.get(rule.table) or tables(of, [Patch(rule.table, of)])[rule.table]
    chain = table.chains[rule.chain]
    longer = msgspec.structs.replace(chain, rules=(rule, *chain.rules))
    held[rule.table] = Table(rule.table, table.chains.replacing(longer))
    both = (held, host.netfilter.ipv6) if of == 4 else (host.netfilter.ipv4, held)
    return msgspec.structs.replace(host, netfilter=Netfilter(*both))


NEW = CtState(("NEW",))


def _no_pod_to_pod(terrain: Terrain) -> Network:
    """A firewall on one node that lets its pods open no connection to pods elsewhere."""

    def rule(spot: Spot) -> Rule:
        between = (Source(spot.own), Destination(spot.everyone))
        return Rule("filter", "FORWARD", (*between, Comment("no pod may call another node"), NEW), DROP)

    return _ruled(terrain, rule)


def _no_node_to_pod(terrain: Terrain) -> Network:
    """A firewall on one node that lets the node itself open no connection to pods on other nodes."""

    def rule(spot: Spot) -> Rule:
        routes = terrain.network[spot.host].routes
        device = next((route.device for route in routes if route.prefix == str(spot.own)), "lo")
        elsewhere = (Destination(spot.everyone), OutInterface(device, invert=True))
        return Rule("filter", "OUTPUT", (*elsewhere, Comment("this machine may not call pods elsewhere"), NEW), DROP)

    return _ruled(terrain, rule)


def _hidden_pods(terrain: Terrain) -> Network:
    """A masquerade rule that is too wide: it hides the node's pods behind the node even from other pods."""

    def rule(spot: Spot) -> Rule:
        between = (Source(spot.own), Destination(spot.everyone))
        return Rule("nat", "POSTROUTING", (*between, Comment("masquerade too much")), Masquerade())

    return _ruled(terrain, rule)


def _no_kubelet(terrain: Terrain) -> Network:
    """The kubelet of one node does not listen: no logs, no exec there."""
    return terrain.network.without(next(_spots(terrain)).host, KUBELET)


def _leaky_router(terrain: Terrain) -> Network:
    """Somebody taught the router the pods' addresses: they can now be reached from outside."""
    routes: list[Route] = []
    for name, own, _ in _spots(terrain):
        station = terrain.layout.stations[name]
        device = router_device(terrain.layout, station.segment)
        via = (address for address in station.addresses if family(address) == own.family)
        routes.extend(Route(str(own), device, address, family=own.family) for address in via)
    router = terrain.network[ROUTER]
    return terrain.network.replacing(msgspec.structs.replace(router, routes=(*router.routes, *routes)))


BREAKERS: Mapping[str, Callable[[Terrain], Network]] = {
    "pod-to-pod": _no_pod_to_pod,
    "node-to-pod": _no_node_to_pod,
    "same-address": _hidden_pods,
    "kubelet": _no_kubelet,
    "outside": _leaky_router,
}
"""For each rule the change of the machines' state that breaks it."""
