"""How does a pod get a cable of its own, without a switch?

The plugin `ptp` makes a veth pair for each pod and nothing else. The node's end holds the gateway's address, which is
the same on every cable, and the node has a route to each pod by its cable. In the pod not even its own subnet is on the
cable: the gateway is, and all else goes through it. So the node routes between its own pods too, which costs one hop
more to live, and its rules see all that they say to each other, without any setting for bridges.

State of a node: for each pod a device with the gateway's address as /32 and a route `10.244.1.2 dev veth… scope host`.
State of a pod: its address with the length of the node's range, and three routes: to the gateway by the cable, to the
range by the gateway (the one that the kernel made is taken away), and the default route, which the plugin for
addresses was told.

Not modelled: `ipMasq`; IP forwarding, which the plugin switches on by itself (here the CNI states it); that Linux keeps
an IPv4 route of scope host while its device is down (here it goes with the device). Guide section 2.1; the plugin's
documentation in containernetworking/plugins.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from k8snetlab.address import Prefix, family, number
from k8snetlab.cni.bridge import NETWORK, POD_DEVICE, POD_INDEX, VERSION, pod_mac, veth_name
from k8snetlab.cni.ipam import block_of, gateway
from k8snetlab.cni.plan import FIRST_INDEX, Machine, NetworkList, Plugin, Workload, derived_mac
from k8snetlab.linux.host import Part
from k8snetlab.linux.link import Address, Link, LinkKind, Peer, loopback
from k8snetlab.linux.route import Route, connected

__all__ = ["Cables"]

EVERYTHING = {4: "0.0.0.0/0", 6: "::/0"}


class Cables(msgspec.Struct, frozen=True):
    """What the plugin is told: the MTU. `index` is the interface index to start with."""

    mtu: int
    index: int = FIRST_INDEX

    def node(self, machine: Machine, workloads: Sequence[Workload]) -> Part:
        """What the plugin leaves on the node after it attached these pods."""
        links = tuple(self._end(machine, workload) for workload in workloads)
        held = (_by_the_kernel(link) for link in links)
        routes = (route for workload in workloads for route in _to(workload))
        return Part(links=links, routes=(*(route for each in held for route in each), *routes))

    def pod(self, machine: Machine, workload: Workload) -> Part:
        """What the plugin leaves in the pod."""
        held = [(block_of(machine.pod_cidrs, address, workload.name), address) for address in workload.addresses]
        device = Link(
            POD_DEVICE,
            POD_INDEX,
            LinkKind.VETH,
            pod_mac(workload.addresses),
            self.mtu,
            peer=Peer(machine.name, veth_name(workload.name)),
            peer_index=self._index(machine, workload),
            addresses=tuple(Address(address, block.length) for block, address in held),
        )
        return Part(links=(loopback(), device), routes=tuple(route for each in held for route in _inside(*each)))

    def configuration(self, machine: Machine) -> dict[str, Any]:
        """What the plugin reads on its standard input, beside version and name of the network."""
        ranges = [[{"subnet": str(block)}] for block in machine.pod_cidrs]
        routes = [{"dst": EVERYTHING[block.family]} for block in machine.pod_cidrs]
        return {"type": "ptp", "mtu": self.mtu, "ipam": {"type": "host-local", "ranges": ranges, "routes": routes}}

    def network(self, machine: Machine) -> NetworkList:
        """A network of this plugin alone."""
        return NetworkList(VERSION, NETWORK, (Plugin(self.configuration(machine)),))

    def _end(self, machine: Machine, workload: Workload) -> Link:
        name = veth_name(workload.name)
        blocks = [block_of(machine.pod_cidrs, address, workload.name) for address in workload.addresses]
        return Link(
            name,
            self._index(machine, workload),
            LinkKind.VETH,
            derived_mac(f"{machine.name} {name}"),
            self.mtu,
            peer=Peer(workload.name, POD_DEVICE),
            peer_index=POD_INDEX,
            addresses=tuple(Address(gateway(block), block.bits) for block in blocks),
        )

    def _index(self, machine: Machine, workload: Workload) -> int:
        """Addresses are given in the order pods come, so they number the cables too; the kernel counts in 31 bits."""
        block = block_of(machine.pod_cidrs, workload.addresses[0], workload.name)
        return (self.index + number(workload.addresses[0]) - block.base - 2) % (1 << 31)


def _by_the_kernel(link: Link) -> Iterator[Route]:
    """The kernel makes a route for a single IPv6 address too, on every device that has it."""
    for address in link.addresses:
        if address.family == 6:
            yield connected(Prefix.of(address.ip), link.name, address.ip)


def _to(workload: Workload) -> Iterator[Route]:
    """The node's routes to a pod, by its cable."""
    for address in workload.addresses:
        alone = Prefix.of(address)
        yield Route(str(alone), veth_name(workload.name), scope="host", family=alone.family)


def _inside(block: Prefix, own: str) -> Iterator[Route]:
    """The pod's routes of one family."""
    of, via = family(own), gateway(block)
    yield Route("default", POD_DEVICE, via, family=of)
    yield Route(str(block), POD_DEVICE, via, source=own, family=of)
    yield Route(str(Prefix.of(via)), POD_DEVICE, source=own, scope="link", family=of)
