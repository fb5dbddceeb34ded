"""What is to be asked, so that nothing is taken on trust?

A cluster makes many promises at once, so everybody asks: every pod calls every pod, and pods, nodes and a client
outside call every port of every Service.

| kind of question                | who asks                        | what is called                                  |
|---------------------------------|---------------------------------|-------------------------------------------------|
| pod to pod                      | every pod                       | every pod, itself too, at a port it listens on  |
| node to pod                     | every node                      | the same                                        |
| pod, node, outside to Service   | one pod of each node (first by  | every port of every Service, at its addresses   |
| pod, node, outside to node port | name); every node; a client     | every node port, at every node's addresses      |
| pod to outside                  | one pod of each node            | the client outside, port 80                     |

A pod that listens on nothing is called at a port that is closed. Where a kind has more questions than `most`, every
target is still called, by fewer: those who call it are spread evenly over all who could, in order of their names.

Not asked: SCTP (said in words beside the questions), sizes, bandwidth. Guide sections 1.1, 2.1 and 2.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum

import msgspec

from k8snetlab.address import family
from k8snetlab.cluster import Cluster
from k8snetlab.linux.host import Host, Network, families
from k8snetlab.live.probes import Probe

__all__ = ["MOST", "Kind", "Question", "questions"]

MOST = 2000
"""So many questions of a kind are asked, unless told otherwise."""

CLOSED = 9
"""A port that nobody listens on, for pods that listen on none."""

WEB = 80
"""The port of the web."""


class Kind(StrEnum):
    """The kinds of question, in the order of the table."""

    POD_TO_POD = "pod to pod"
    NODE_TO_POD = "node to pod"
    POD_TO_SERVICE = "pod to Service"
    NODE_TO_SERVICE = "node to Service"
    OUTSIDE_TO_SERVICE = "outside to Service"
    POD_TO_NODE_PORT = "pod to node port"
    NODE_TO_NODE_PORT = "node to node port"
    OUTSIDE_TO_NODE_PORT = "outside to node port"
    POD_TO_OUTSIDE = "pod to outside"


class Question(msgspec.Struct, frozen=True):
    """One probe, its kind, and the words for what it calls: `shop/db-0:5432`, `svc/shop/api:80`, `node/node-1:30080`,
    with `/UDP` where it is not TCP.
    """

    kind: Kind
    target: str
    probe: Probe


def questions(cluster: Cluster, most: int = MOST) -> tuple[tuple[Question, ...], tuple[str, ...]]:
    """What to ask a cluster, at most `most` of a kind where every target can be called so, and what is left out."""
    network = cluster.network
    pods = _of_kind(network, "container")
    nodes = [network[node.name] for node in cluster.objects.nodes]
    clients = _of_kind(network, "client")
    services, node_ports, left_out = _served(cluster)
    some = {"POD": _one_a_node(cluster), "NODE": nodes, "OUTSIDE": clients}
    everything = (
        (Kind.POD_TO_POD, pods, _listening(pods)),
        (Kind.NODE_TO_POD, nodes, _listening(pods)),
        *((Kind[f"{who}_TO_SERVICE"], hosts, services) for who, hosts in some.items()),
        *((Kind[f"{who}_TO_NODE_PORT"], hosts, node_ports) for who, hosts in some.items()),
        (Kind.POD_TO_OUTSIDE, some["POD"], _web(clients)),
    )
    found: list[Question] = []
    for kind, hosts, targets in everything:
        able = {of: [host.name for host in hosts if of in families(host)] for of in (4, 6)}
        possible = sum(len(able[family(each.address)]) for each in targets)
        asked = [Question(kind, each.words, Probe(host, *each.called)) for host, each in _spread(able, targets, most)]
        found.extend(asked)
        if len(asked) < possible:
            left_out.append(f"{kind}: {len(asked)} of {possible} questions are asked")
    return tuple(found), tuple(left_out)


def _one_a_node(cluster: Cluster) -> list[Host]:
    names = sorted(min(each.name for each in pods) for pods in cluster.layout.workloads.values() if pods)
    return [cluster.network[name] for name in names]


class _Target(msgspec.Struct, frozen=True):
    """Something to call, and the words for it."""

    words: str
    address: str
    port: int
    protocol: str

    @property
    def called(self) -> tuple[str, int, str]:
        """As a probe takes it."""
        return self.address, self.port, self.protocol


def _target(where: str, address: str, port: int, protocol: str) -> _Target:
    return _Target(f"{where}:{port}" if protocol == "TCP" else f"{where}:{port}/{protocol}", address, port, protocol)


def _spread(able: Mapping[int, Sequence[str]], targets: Sequence[_Target], most: int) -> Iterator[tuple[str, _Target]]:
    """Who calls what, of those with an address of the target's family: everybody, if that is not too much."""
    whole = sum(len(able[family(each.address)]) for each in targets)
    for number, target in enumerate(targets):
        callers = able[family(target.address)]
        share = len(callers) if whole <= most else min(len(callers), max(1, most // len(targets)))
        first = 0 if share == len(callers) else number  # each target begins with another caller
        for place in range(share):
            yield callers[(first + place * len(callers) // share) % len(callers)], target


def _of_kind(network: Network, kind: str) -> list[Host]:
    return [network[name] for name in sorted(network) if network[name].kind == kind]


def _listening(pods: Sequence[Host]) -> list[_Target]:
    found: list[_Target] = []
    for pod in pods:
        open_ports = ((each.protocol, each.port) for each in pod.listeners if _asks(each.protocol))
        protocol, port = next(open_ports, ("TCP", CLOSED))
        found.extend(_target(pod.name, address, port, protocol) for address in _addresses(pod))
    return found


def _addresses(host: Host) -> list[str]:
    """The addresses that others know a machine by."""
    return [each.ip for link in host.links if link.name != "lo" for each in link.addresses]


def _asks(protocol: object) -> bool:
    return str(protocol) in ("TCP", "UDP")


def _served(cluster: Cluster) -> tuple[list[_Target], list[_Target], list[str]]:
    """Every port of every Service at its own addresses, and at every node's; and what of it cannot be asked."""
    own: list[_Target] = []
    at_nodes: list[_Target] = []
    left_out: list[str] = []
    for service in cluster.objects.services:
        ingress = [each.ip for each in service.load_balancer if each.ip]
        for port in service.spec.ports:
            protocol = str(port.protocol)
            if not _asks(protocol):
                left_out.append(f"svc/{service.key}:{port.port}: {protocol} is not asked")
                continue
            where = f"svc/{service.key}"
            addresses = (*service.cluster_ips, *service.spec.external_ips, *ingress)
            own.extend(_target(where, address, port.port, protocol) for address in addresses)
            if port.node_port:
                at_nodes.extend(
                    _target(f"node/{node.name}", address, port.node_port, protocol)
                    for node in cluster.objects.nodes
                    for address in node.addresses
                )
    return own, at_nodes, left_out


def _web(clients: Sequence[Host]) -> list[_Target]:
    """The pages that the client outside serves."""
    serving = (client for client in clients if any(each.port == WEB for each in client.listeners))
    return [_target(client.name, each, WEB, "TCP") for client in serving for each in _addresses(client)]
