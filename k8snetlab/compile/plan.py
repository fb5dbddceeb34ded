"""Whose address is this?

The networks of a cluster (`address.AddressPlan`), and who holds which address of them: machines, pods, the devices that
a CNI made on the nodes, and Services, whose addresses are on no interface.

Not modelled: node ports, which are ports and not addresses. Guide section 1.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from k8snetlab.address import SHARES, AddressPlan, Prefix, Range
from k8snetlab.compile.layout import OUTSIDE, Layout, client_address
from k8snetlab.linux.host import Network

__all__ = ["address_plan"]


def address_plan(
    layout: Layout, network: Network, shares: Mapping[str, Prefix], pools: Sequence[Prefix]
) -> AddressPlan:
    """All networks of a cluster and who holds which address. `shares` are the nodes' parts of a pod network that is one
    for all, `pools` what a load balancer gives away. Builds every node.
    """
    return AddressPlan(tuple(_ranges(layout, shares, pools)), dict(_owners(layout, network)))


def _ranges(layout: Layout, shares: Mapping[str, Prefix], pools: Sequence[Prefix]) -> Iterator[Range]:
    for segment in layout.segments:
        for block in segment.blocks:
            yield Range(segment.switch.replace("switch", "underlay"), "underlay", block)
    for block in layout.objects.networks.pods:
        yield Range("pods", "pods", block)
    for name, machine in layout.machines.items():
        for block in machine.pod_cidrs:
            yield Range(f"pods of {name}", "node pods", block)
    for name, block in shares.items():
        yield Range(f"share of {name}", SHARES, block)
    for block in layout.objects.networks.services:
        yield Range("Services", "services", block)
    for block in pools:
        yield Range("load balancers", "load balancers", block)
    for block in OUTSIDE:
        yield Range("outside", "outside", block)


def _owners(layout: Layout, network: Network) -> Iterator[tuple[str, str]]:
    for segment in layout.segments:
        for address in segment.gateways:
            yield address, "the router, the gateway of the nodes"
    for of in (4, 6):
        yield client_address(of), "a client outside"
    for station in layout.stations.values():
        for address in station.addresses:
            yield address, f"node {station.name}" if station.name in layout.nodes else station.name
    shared: dict[str, str] = {}
    for name in layout.nodes:
        for address, device in network[name].owned.items():
            if device not in ("lo", "eth0"):
                yield address, f"the device {device} of node {name}"
                shared[address] = device
    for workloads in layout.workloads.values():
        for pod in workloads:
            for address in pod.addresses:
                yield address, f"pod {pod.name}"
    for service in layout.objects.services:
        for address in service.cluster_ips:
            where = (
                f"on {shared[address]} of every node"
                if address in shared
                else "on no interface anywhere, only in rules"
            )
            yield address, f"Service {service.key}: {where}"
        for ingress in service.load_balancer:
            if ingress.ip:
                yield ingress.ip, f"the load balancer of Service {service.key}"
