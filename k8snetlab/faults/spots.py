"""Where can a fault be?

A *spot* says on which machine, and with respect to which other one: "node-1, on its way to node-2". It is chosen when
a cluster is broken and keeps its meaning when the cluster changes: under another CNI node-1 may have another route to
node-2's pods, which is then the one that is missing.

Not modelled: several faults of one kind at once. Break the cluster twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from k8snetlab.cni import Workload
from k8snetlab.compile import ROUTER, Layout
from k8snetlab.flows import Terrain
from k8snetlab.linux.host import Host

__all__ = ["SYSTEM", "Spot", "each_node", "each_pair", "each_way", "pods_of", "underlay"]

SPARE = 50
"""So many bytes less than pods may send: as if the nodes' own network were a VXLAN tunnel."""


class Spot(NamedTuple):
    """The machine that is broken, another that it is about, and a number where the fault has one (bytes)."""

    host: str
    other: str = ""
    value: int = 0


SYSTEM = "kube-system/"


def pods_of(layout: Layout, node: str) -> list[Workload]:
    """The pods of a node, those that people know first: the system's own come last."""
    return sorted(layout.workloads.get(node, ()), key=lambda pod: pod.name.startswith(SYSTEM))


def _peopled(terrain: Terrain) -> list[str]:
    """The nodes that have pods."""
    return [name for name, pods in terrain.layout.workloads.items() if pods]


def each_pair(terrain: Terrain) -> Iterator[Spot]:
    """Every node that has pods, with every other."""
    nodes = _peopled(terrain)
    yield from (Spot(node, other) for node in nodes for other in nodes if other != node)


def each_way(terrain: Terrain) -> Iterator[Spot]:
    """The same, and the router on its way to each node."""
    yield from each_pair(terrain)
    yield from (Spot(ROUTER, other) for other in _peopled(terrain))


def each_node(terrain: Terrain) -> Iterator[Spot]:
    """Every node that has pods, with one other, if there is one."""
    nodes = _peopled(terrain)
    yield from (Spot(node, next((each for each in nodes if each != node), "")) for node in nodes)


def underlay(terrain: Terrain) -> Iterator[Spot]:
    """The cables between the nodes, and what they carry: less than the pod whose packets are the shortest may send."""
    pods = (terrain.network[pod.name] for held in terrain.layout.workloads.values() for pod in held)
    longest = min((_longest(pod) for pod in pods), default=0)
    if longest:
        yield Spot(terrain.layout.segments[0].switch, value=longest - SPARE)


def _longest(pod: Host) -> int:
    """The longest packet that a pod sends away from its own cable, in bytes."""
    devices = {link.name: link.mtu for link in pod.links}
    routes = [route for route in pod.routes if route.prefix == "default" and route.device in devices]
    return min((route.mtu or devices[route.device] for route in routes), default=0)
