"""What to ask a cluster, for any cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from k8snetlab.cluster import Cluster
from k8snetlab.linux.host import Host
from k8snetlab.live import Probe

SILENT = 9
"""A port that nobody listens on."""


def pods(cluster: Cluster) -> list[Host]:
    """The machines that are pods."""
    return [host for host in cluster.network.values() if host.kind == "container"]


def addresses(host: Host) -> list[str]:
    """The addresses that others know a machine by."""
    return [address.ip for link in host.links if link.name == "eth0" for address in link.addresses]


def pod_pairs(cluster: Cluster) -> Iterator[Probe]:
    """Every pod to every pod: a port it listens on by TCP if it has one, and one it does not by UDP."""
    for source in pods(cluster):
        for target in pods(cluster):
            for address in addresses(target):
                for listener in target.listeners[:1]:
                    yield Probe(source.name, address, listener.port, listener.protocol)
                yield Probe(source.name, address, SILENT, "UDP")


def services(cluster: Cluster, sources: Sequence[str]) -> Iterator[Probe]:
    """From these machines to every port of every Service: at its own address, and at every node's."""
    for service in cluster.objects.services:
        for port in service.spec.ports:
            if str(port.protocol) not in ("TCP", "UDP"):
                continue
            targets = [(address, port.port) for address in service.cluster_ips]
            if port.node_port:
                nodes = (address for node in cluster.objects.nodes for address in node.addresses)
                targets += [(address, port.node_port) for address in nodes]
            for source in sources:
                for address, number in targets:
                    yield Probe(source, address, number, str(port.protocol))


def everybody(cluster: Cluster, some: int) -> list[str]:
    """Who asks: some pods, every node, and the machines around."""
    some_pods = [host.name for host in pods(cluster)][:: max(1, len(pods(cluster)) // some)]
    others = [name for name, host in cluster.network.items() if host.kind in ("machine", "router", "client")]
    return some_pods + others
