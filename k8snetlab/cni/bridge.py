"""How does a pod get its cable?

The plugin `bridge` makes a switch in software on the node, `cni0`, and for each pod a veth pair: one end becomes
`eth0` in the pod, the other a port of `cni0`. The bridge holds the first address of the node's pod CIDR, which is the
pods' gateway; pods of one node thus share an Ethernet segment, and everything else is routed by the node. `cni0`
appears with the first pod, not before: a node without pods has neither the bridge nor the connected route.

That is all a node can do for itself. The variant `bridge` adds what an administrator would write by hand: a route
`10.244.2.0/24 via 172.18.0.12` for every other node *on the same underlay subnet*. A gateway must be on the cable, so
a node beyond a router cannot be named in such a route; the routers between would have to know every pod CIDR (that is
what cloud route tables or BGP are for, or an overlay). Packets for those pods follow the default route, to a router
that does not know them.

With `masquerade=on` the plugin hides the pod behind the node for everything outside the node's own pod CIDR. Note
what that means: pods on other nodes are outside of it too. CNIs that span nodes switch it off and write their own
rules.

State of a node: device cni0, one veth a pod, its connected route, the host routes, forwarding sysctls, with
masquerade a chain `CNI-…` a pod. State of a pod: lo, eth0, its connected route and the default route. The MAC of a
pod is `0a:58` and its IPv4 address, as the plugin's earlier releases and OVN chose it (today's plugin takes what the
kernel draws), so that it can be read in a capture; device names and other MACs are hashes.

Not modelled: `portmap` (hostPort) and `bandwidth`, VLANs of the bridge, promiscuous mode, nftables masquerading
(`ipMasqBackend`). Guide section 2.1; the plugin's
documentation in containernetworking/plugins, CNI specification 1.1.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from hashlib import sha256, sha512
from typing import Any, ClassVar

import msgspec

from k8snetlab.address import Prefix, family, number
from k8snetlab.cni.ipam import block_of, gateway
from k8snetlab.cni.plan import (
    FIRST_INDEX,
    UNENFORCED,
    Machine,
    NetworkList,
    Option,
    Plan,
    Plugin,
    PolicyAttachment,
    Workload,
    chosen,
    derived_mac,
    number_of,
)
from k8snetlab.linux.host import Part
from k8snetlab.linux.link import Address, Link, LinkKind, Peer, loopback
from k8snetlab.linux.netfilter import (
    ACCEPT,
    Chain,
    Comment,
    Destination,
    Jump,
    Masquerade,
    Patch,
    Rule,
    Source,
)
from k8snetlab.linux.route import Route, connected

__all__ = [
    "HAIRPIN", "MTU", "MULTICAST", "Bridge", "Wiring", "forwarding", "host_routes", "mtu_of", "pod_mac",
    "veth_name",
]  # fmt: skip

BRIDGE = "cni0"
POD_DEVICE = "eth0"
POD_INDEX = 2
"""The index of a pod's `eth0`: a new network namespace has only `lo`, number 1."""

MULTICAST: Mapping[int, Prefix] = {4: Prefix.of("224.0.0.0/4"), 6: Prefix.of("ff00::/8")}

HAIRPIN = Option("hairpin", ("on", "off"), "on", "whether a pod may reach itself through its own Service (hairpinMode)")
MTU = Option("mtu", (), "", "the MTU of the pods' devices, if not the one that fits the underlay")


NETWORK = "cbr0"
"""The name of the network in the configuration, which stands in the comments of its rules."""

VERSION = "1.1.0"
"""The version of the contract that the configuration is written for."""


@lru_cache(maxsize=1 << 14)
def veth_name(pod: str) -> str:
    """The node's end of the pod's cable: `veth` and eight hexadecimal digits, 12 of the 15 characters a name may
    have.
    """
    return f"veth{sha256(pod.encode()).hexdigest()[:8]}"


def pod_mac(addresses: Sequence[str]) -> str:
    """The MAC of a pod's `eth0`: `0a:58` and the bytes of its IPv4 address; hashed from its address if it has only
    IPv6.

    >>> pod_mac(["10.244.1.2"])
    '0a:58:0a:f4:01:02'
    """
    for address in addresses:
        if family(address) == 4:
            return ":".join(("0a", "58", *(f"{byte:02x}" for byte in number(address).to_bytes(4, "big"))))
    return derived_mac(addresses[0])


class Wiring(msgspec.Struct, frozen=True):
    """What the plugin is told (its network configuration): the MTU, whether the ports may send a frame back, whether
    pods are hidden behind the node, which routes pods get beside the default route, and the interface index to start
    with.
    """

    mtu: int
    hairpin: bool = True
    masquerade: bool = False
    routes: tuple[Prefix, ...] = ()
    index: int = FIRST_INDEX

    def configuration(self, machine: Machine) -> dict[str, Any]:
        """What the plugin reads on its standard input, beside version and name of the network."""
        ranges = [[{"subnet": str(block)}] for block in machine.pod_cidrs]
        more = {"routes": [{"dst": str(prefix)} for prefix in self.routes]} if self.routes else {}
        return {
            "type": "bridge",
            "bridge": BRIDGE,
            "isGateway": True,
            "isDefaultGateway": True,
            "hairpinMode": self.hairpin,
            "ipMasq": self.masquerade,
            "mtu": self.mtu,
            "ipam": {"type": "host-local", "ranges": ranges, **more},
        }

    def network(self, machine: Machine) -> NetworkList:
        """A network of this plugin alone, as an administrator writes it."""
        return NetworkList(VERSION, NETWORK, (Plugin(self.configuration(machine)),))

    def node(self, machine: Machine, workloads: Sequence[Workload]) -> Part:
        """What the plugin leaves on the node after it attached these pods; nothing at all when there are none."""
        if not workloads:
            return Part()
        own = tuple(Address(gateway(block), block.length) for block in machine.pod_cidrs)
        switch = Link(
            BRIDGE, self.index, LinkKind.BRIDGE, pod_mac([address.ip for address in own]), self.mtu, addresses=own
        )
        return Part(
            links=(switch, *(self._port(machine, workload) for workload in workloads)),
            routes=tuple(connected(block, BRIDGE, gateway(block)) for block in machine.pod_cidrs),
            patches=tuple(self._masquerade(machine, workloads)) if self.masquerade else (),
        )

    def pod(self, machine: Machine, workload: Workload) -> Part:
        """What the plugin leaves in the pod: `lo`, `eth0`, the connected route, `routes` and the default route."""
        blocks = [block_of(machine.pod_cidrs, address, workload.name) for address in workload.addresses]
        held = tuple(zip(blocks, workload.addresses, strict=True))
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
        return Part(links=(loopback(), device), routes=tuple(self._pod_routes(held)))

    def _pod_routes(self, held: Iterable[tuple[Prefix, str]]) -> Iterator[Route]:
        for block, address in held:
            of, via = block.family, gateway(block)
            yield Route("default", POD_DEVICE, via, family=of)
            for prefix in self.routes:
                if prefix.family == of:
                    yield Route(str(prefix), POD_DEVICE, via, family=of)
            yield connected(block, POD_DEVICE, address)

    def _port(self, machine: Machine, workload: Workload) -> Link:
        name = veth_name(workload.name)
        return Link(
            name,
            self._index(machine, workload),
            LinkKind.VETH,
            derived_mac(f"{machine.name} {name}"),
            self.mtu,
            master=BRIDGE,
            peer=Peer(workload.name, POD_DEVICE),
            peer_index=POD_INDEX,
            hairpin=self.hairpin,
        )

    def _index(self, machine: Machine, workload: Workload) -> int:
        """The index of the pod's port. Addresses are given in the order pods come, so they number the ports too; the
        kernel counts in 31 bits.
        """
        block = block_of(machine.pod_cidrs, workload.addresses[0], workload.name)
        turn = number(workload.addresses[0]) - block.base - 1
        return (self.index + turn) % (1 << 31)

    def _masquerade(self, machine: Machine, workloads: Sequence[Workload]) -> Iterator[Patch]:
        for of in sorted({block.family for block in machine.pod_cidrs}):
            jumps: list[Rule] = []
            chains: dict[str, Chain] = {}
            for workload in workloads:
                for address in workload.addresses:
                    if family(address) == of:
                        jump, chain = _hidden(block_of(machine.pod_cidrs, address, workload.name), address, workload)
                        jumps.append(jump)
                        chains[chain.name] = chain
            yield Patch("nat", of, last=tuple(jumps), chains=chains)


def _hidden(block: Prefix, address: str, workload: Workload) -> tuple[Rule, Chain]:
    """The rules that masquerade one address of a pod: the jump in POSTROUTING and the pod's own chain."""
    container = sha256(workload.name.encode()).hexdigest()
    name = f"CNI-{sha512((NETWORK + container).encode()).hexdigest()[:24]}"
    comment = Comment(f'name: "{NETWORK}" id: "{container}"')
    host = Prefix(block.family, number(address), block.bits)
    elsewhere = Destination(MULTICAST[block.family], invert=True)
    rules = (
        Rule("nat", name, (Destination(block), comment), ACCEPT),
        Rule("nat", name, (elsewhere, comment), Masquerade()),
    )
    return Rule("nat", "POSTROUTING", (Source(host), comment), Jump(name)), Chain(name, rules)


def forwarding(machine: Machine) -> dict[str, int]:
    """The sysctls of a node that routes for its pods and shows bridged packets to netfilter, without which a Service
    of a pod on the same node cannot work.
    """
    keys = {
        4: ("net.ipv4.ip_forward", "net.bridge.bridge-nf-call-iptables"),
        6: ("net.ipv6.conf.all.forwarding", "net.bridge.bridge-nf-call-ip6tables"),
    }
    return {key: 1 for block in machine.pod_cidrs for key in keys[block.family]}


class Bridge(msgspec.Struct, frozen=True):
    """A bridge a node, and host routes to the other nodes of the same underlay subnet."""

    name: ClassVar[str] = "bridge"
    policies: ClassVar[PolicyAttachment] = UNENFORCED
    options: ClassVar[tuple[Option, ...]] = (
        HAIRPIN,
        Option(
            "masquerade",
            ("on", "off"),
            "off",
            "whether the node hides pods from all outside its pod CIDR (ipMasq)",
        ),
        MTU,
    )

    hairpin: bool = True
    masquerade: bool = False
    mtu: int = 0

    @classmethod
    def of(cls, options: Mapping[str, str]) -> Bridge:
        """The variant with these options. Raises `BadOption`."""
        value = chosen(cls.name, cls.options, options)
        return cls(value["hairpin"] == "on", value["masquerade"] == "on", mtu_of(cls.name, value["mtu"]))

    @property
    def overhead(self) -> int:
        """Bytes that this CNI adds to a packet between nodes: none."""
        return 0

    @property
    def summary(self) -> str:
        """What it does, in one sentence."""
        hidden = "; pods are hidden behind their node" if self.masquerade else ""
        return f"a bridge on each node, host routes to the nodes of the same subnet, no encapsulation{hidden}"

    def pod_mtu(self, machine: Machine) -> int:
        """The MTU of the pods' devices: the underlay's, since nothing is added to a packet."""
        return self.mtu or machine.mtu

    def node(self, plan: Plan, machine: Machine, workloads: Sequence[Workload]) -> Part:
        """The bridge with its ports, and the host routes."""
        wired = self._wiring(machine).node(machine, workloads)
        return msgspec.structs.replace(
            wired, routes=(*wired.routes, *host_routes(plan, machine)), sysctls=forwarding(machine)
        )

    def pod(self, plan: Plan, machine: Machine, workload: Workload) -> Part:
        """The pod's end of the cable."""
        return self._wiring(machine).pod(machine, workload)

    def network(self, plan: Plan, machine: Machine) -> NetworkList:
        """What the runtime is told on that machine."""
        return self._wiring(machine).network(machine)

    def _wiring(self, machine: Machine) -> Wiring:
        return Wiring(self.pod_mtu(machine), self.hairpin, self.masquerade)


def host_routes(plan: Plan, machine: Machine) -> Iterator[Route]:
    """A route to the pods of every other machine that is on this machine's own cable, by that machine's underlay
    address.
    """
    for of in plan.families:
        for remote in plan.others(machine, of):
            if machine.reaches(remote.via):
                yield Route(str(remote.pods), machine.device, remote.via, family=of)


def mtu_of(cni: str, value: str) -> int:
    """The value of the option `mtu`; 0 when it was not given. Less than 68 bytes is no IPv4 link (RFC 791)."""
    return number_of(cni, "mtu", value, 68, 65535) if value else 0
