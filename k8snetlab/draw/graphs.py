"""What is connected with what, as a graph?

networkx knows a hundred algorithms on graphs; here networks and traces become its graphs. A network is a graph of
machines, their devices, and the cables between them; a trace is a directed graph of the places that the packet
passed.

Machines are nodes by their name, devices by the pair `(machine, device)`; `networkx.shortest_path(graph(shop),
"shop/web-0", "node-2")` then is a list of cables to follow. It is not where a packet goes: routes decide that, and
`path` shows it.

Not modelled: routes and rules as edges. Guide sections 1.1 and 2.1.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TypeAlias

import networkx as nx

from k8snetlab.draw.ground import Place, Wired, network_of
from k8snetlab.errors import UnknownName
from k8snetlab.linux.host import Network
from k8snetlab.trace import Step, Trace

__all__ = ["Node", "graph", "path"]

Node: TypeAlias = str | Place
"""A machine's name, or a machine and a device."""


def graph(of: Network | Wired) -> nx.Graph[Node]:
    """The machines, their devices and what joins them.

    Nodes have a `kind` (`machine`, `container`, `switch`, …; for devices `veth`, `bridge`, …), devices their
    `addresses`. Edges have a `relation`: `device` (it is this machine's), `port` (of that bridge) or `cable` (to that
    other device).
    """
    network = network_of(of)
    found: nx.Graph[Node] = nx.Graph()
    for name in network:
        host = network[name]
        found.add_node(name, kind=host.kind)
        for link in host.links:
            device = (name, link.name)
            addresses = tuple(str(address) for address in link.addresses)
            found.add_node(device, kind=str(link.kind), addresses=addresses, up=link.up)
            found.add_edge(name, device, relation="device")
            if link.master:
                found.add_edge(device, (name, link.master), relation="port")
            if link.peer is not None and link.peer.host in network:
                found.add_edge(device, (link.peer.host, link.peer.link), relation="cable")
    return found


def path(trace: Trace, at: Node | None = None) -> nx.DiGraph[Node]:
    """The places of a trace as a directed graph: machines with the devices at which something happened.

    Nodes have the `actions` done there, in order. Edges lead from place to place and have `numbers`, the steps
    (counted from 1 over request and reply) that came by them, and `flow`, `request` or `reply`; an edge that both
    passed has `both`. With `at` only that capture point: a machine's name, or a machine and a device; `UnknownName`
    where the packet never was.
    """
    found: nx.DiGraph[Node] = nx.DiGraph()
    numbered = [*((step, "request") for step in trace.steps), *((step, "reply") for step in trace.reply)]
    for step, _ in numbered:
        found.add_node(_node(step), where=step.where, device=step.device, actions=())
    for step, _ in numbered:
        found.nodes[_node(step)]["actions"] += (str(step.action),)
    for number, ((before, _), (step, flow)) in enumerate(pairwise(numbered), 2):
        one, other = _node(before), _node(step)
        if one == other:
            continue
        if found.has_edge(one, other):
            held = found.edges[one, other]
            held["numbers"] += (number,)
            held["flow"] = flow if held["flow"] == flow else "both"
        else:
            found.add_edge(one, other, numbers=(number,), flow=flow)
    return found if at is None else _captured(found, at)


def _node(step: Step) -> Node:
    """A step's place: where no device is named, the machine."""
    return (step.where, step.device) if step.device else step.where


def _captured(found: nx.DiGraph[Node], at: Node) -> nx.DiGraph[Node]:
    """What can be seen at one place: its nodes, and the edges that begin or end there."""
    here = [node for node in found if at in (node, found.nodes[node]["where"])]
    if not here:
        raise UnknownName("place on this path,", str(at), (str(node) for node in found))
    around = {end for node in here for end in (node, *found.predecessors(node), *found.successors(node))}
    seen: nx.DiGraph[Node] = nx.DiGraph()
    seen.add_nodes_from((node, found.nodes[node]) for node in found if node in around)
    edges = [(one, other) for one, other in found.edges if one in here or other in here]
    seen.add_edges_from((one, other, found.edges[one, other]) for one, other in edges)
    return seen
