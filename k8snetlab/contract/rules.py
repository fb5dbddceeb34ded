"""How is each rule of the network model tried?

`Subjects` says who is asked and sends the packets; a function for each rule judges them, and gives its evidence and
what went wrong. Packets between pods are sent once for all rules.

Not modelled: other traffic than echo requests and the kubelet's port. Guide section 1.1.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import msgspec

from k8snetlab.address import family
from k8snetlab.compile import APISERVER, CLIENT, KUBELET, client_address
from k8snetlab.flows import Terrain
from k8snetlab.linux.walk import Exchange, World, exchange
from k8snetlab.trace import Client

__all__ = ["EVERY", "PAIRS", "RULES", "Probe", "Subjects", "subjects_of"]

EVERY = 8
"""Up to so many pods a node are all asked; of more, two stand for the others."""

PAIRS = 5_000
"""Up to so many pairs (of two pods, of a node and a pod) are all tried; of more, each asks as many others as come to
this."""


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

    def _asked_by(self, source: Address) -> Sequence[Address]:
        of = family(source.ip)
        others = [each for each in self.everyone if each.pod != source.pod and family(each.ip) == of]
        return _spread(others, self.everyone.index(source), len(self.everyone))

    def asked_by(self, node: str) -> Sequence[Address]:
        """The addresses that a node asks."""
        return _spread(self.everyone, list(self.pods).index(node), len(self.pods))

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


def _spread(others: Sequence[Address], turn: int, askers: int) -> Sequence[Address]:
    """As many of the others as one of so many askers may ask, evenly spread, beginning elsewhere at each turn."""
    most = max(1, PAIRS // askers)
    if len(others) <= most:
        return others
    at = turn % len(others)
    return [*others[at:], *others[:at]][:: -(-len(others) // most)]


def subjects_of(terrain: Terrain) -> Subjects:
    """Who is asked in a cluster."""
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
        for target, address in subjects.asked_by(node):
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
