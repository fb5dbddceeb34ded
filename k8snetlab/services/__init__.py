"""How does a packet to a stable address find a pod?

A Service's address is on no interface. Two programs keep the promise: the EndpointSlice controller writes down who
answers at the moment (`slices`), and kube-proxy turns Services and slices into rules on every node. Neither sees a
packet. `exposure` is what every proxy works on, `endpoints` how it chooses backends; each mode is a module, and its
line in `MODES`.

Guide section 2.2; KEP-752 (EndpointSlices), KEP-1669 (terminating endpoints).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias

from k8snetlab.address import Prefix, family
from k8snetlab.api import Node
from k8snetlab.linux.host import Part
from k8snetlab.services import iptables
from k8snetlab.services.exposure import Exposure, exposures

__all__ = ["MODES", "Exposure", "Mode", "exposures"]

Mode: TypeAlias = Callable[[Mapping[int, tuple[Exposure, ...]], Node, Iterable[Prefix]], Part]
"""A proxy: from the Service ports of each family, a node and the cluster's pod CIDRs to what it writes on that node."""


def _iptables(served: Mapping[int, tuple[Exposure, ...]], node: Node, pods: Iterable[Prefix]) -> Part:
    """kube-proxy in iptables mode. It lets node ports be used at 127.0.0.1, for which it sets `route_localnet`."""
    ranges = {block.family: block for block in pods}
    patches = tuple(
        patch
        for of, ports in sorted(served.items())
        for patch in iptables.patches(
            ports,
            of,
            node=node.name,
            zone=node.zone,
            address=next((address for address in node.addresses if family(address) == of), ""),
            pods=ranges.get(of),
        )
    )
    return Part(patches=patches, sysctls={"net.ipv4.conf.all.route_localnet": 1})


MODES: Mapping[str, Mode] = {"iptables": _iptables}
"""The modes of kube-proxy, by the name its configuration uses."""
