"""How does a packet reach a pod whose address no router knows?

flannel gives every node a piece of one big pod network and makes the nodes find each other's piece. Pods are attached
by the plugin `bridge`, to which flannel's own plugin hands over; the daemon `flanneld` programs the node, and again
whenever a node comes or goes. Where the packet crosses from node to node there is a choice, the *backend*:

- `vxlan`: a tunnel device `flannel.1` on each node (VNI 1, UDP port 8472: Linux's default, not IANA's 4789). Three
  entries for each other node, none of them learnt: a route to its pod CIDR via that block's first address, which its
  tunnel device holds (`onlink`: no connected route covers it); a permanent neighbour, which gives that address the MAC
  of the remote tunnel device; a permanent FDB entry, which gives that MAC the underlay address of the node. The packet
  is wrapped in 50 bytes, so pods have an MTU 50 less than the underlay's. Nodes may stand in different subnets.
- `vxlan` with `directrouting=on`: nodes on one's own subnet get a plain host route instead of the three entries. The
  MTU stays: some pod may still be beyond the tunnel.
- `host-gw`: host routes only, the full MTU, and no way to a node of another subnet: the kernel refuses a gateway that
  is not on the cable, flanneld logs an error, and the route is missing.

With two families there is a second device, `flannel-v6.1`. flannel reckons with 50 bytes for it too, although an IPv6
outer header makes it 70; the kernel knows better and makes that device 70 smaller than the underlay. So a pod, whose
MTU follows flannel's sum, may send IPv6 packets that its node answers with Packet Too Big.

Netfilter: chain FLANNEL-POSTRTG (nat) masquerades what leaves the pod network and what enters it from outside, except
what kube-proxy has marked, what stays inside, and what comes from outside to pods of this very node. Chain FLANNEL-FWD
(filter) accepts what is forwarded from or to pods, because some container runtimes set the policy of FORWARD to DROP.
Both jumps are appended, so kube-proxy's, which are inserted, come first. NetworkPolicies are accepted by the API server
and have no effect.

The MAC of a tunnel device is random in reality and published in the node's annotation
`flannel.alpha.coreos.com/backend-data`; it is read from there, and hashed from the node's name where there is none.

Not modelled: backends wireguard, ipip and udp, nftables mode (`EnableNFTables`), the annotation `public-ip-overwrite`,
`--ip-masq=false`, leases that expire, the file subnet.env. Guide sections 2.1 and 3.1; flannel v0.27, RFC 7348.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import ClassVar, NamedTuple

import msgspec

from k8snetlab.address import Prefix
from k8snetlab.cni.bridge import HAIRPIN, MTU, MULTICAST, Wiring, forwarding, host_routes, mtu_of
from k8snetlab.cni.plan import FIRST_INDEX, Machine, Option, Plan, Workload, chosen, derived_mac
from k8snetlab.errors import BadOption, Problem
from k8snetlab.linux.host import Part
from k8snetlab.linux.link import Address, FdbEntry, Link, LinkKind, Neighbour, Vxlan
from k8snetlab.linux.netfilter import (
    ACCEPT,
    RETURN,
    Chain,
    Comment,
    Destination,
    Jump,
    Mark,
    Masquerade,
    Match,
    Patch,
    Rule,
    Source,
    Target,
)
from k8snetlab.linux.route import Route, connected

__all__ = ["Backend", "Flannel"]

VNI = 1
PORT = 8472
OVERHEAD = 50
"""What flannel takes off the underlay's MTU: outer IPv4 20, UDP 8, VXLAN 8, inner Ethernet 14."""

HEADROOM: Mapping[int, int] = {4: 50, 6: 70}
"""What the kernel takes off at least when it makes a tunnel device: an outer IPv6 header has 40 bytes."""

DEVICE: Mapping[int, str] = {4: f"flannel.{VNI}", 6: f"flannel-v6.{VNI}"}
ANNOTATION: Mapping[int, str] = {
    4: "flannel.alpha.coreos.com/backend-data",
    6: "flannel.alpha.coreos.com/backend-v6-data",
}

KUBE_PROXY_MARK = Mark(0x4000, 0x4000)
"""What kube-proxy wants masqueraded; its own chain does that."""


class Backend(StrEnum):
    """How packets cross from node to node."""

    VXLAN = "vxlan"
    HOST_GW = "host-gw"


class Flannel(msgspec.Struct, frozen=True):
    """A bridge on each node, and a tunnel or host routes between the nodes."""

    name: ClassVar[str] = "flannel"
    options: ClassVar[tuple[Option, ...]] = (
        Option("backend", tuple(Backend), Backend.VXLAN, "how packets cross from node to node"),
        Option("directrouting", ("on", "off"), "off", "vxlan: plain routes to the nodes of one's own subnet"),
        HAIRPIN,
        MTU,
    )

    backend: Backend = Backend.VXLAN
    direct_routing: bool = False
    hairpin: bool = True
    mtu: int = 0

    @classmethod
    def of(cls, options: Mapping[str, str]) -> Flannel:
        """The variant with these options. Raises `BadOption`."""
        value = chosen(cls.name, cls.options, options)
        backend, direct = Backend(value["backend"]), value["directrouting"] == "on"
        if direct and backend is not Backend.VXLAN:
            message = f"directrouting belongs to backend vxlan; {backend} has no tunnel to avoid"
            raise BadOption(Problem(message, object=f"CNI {cls.name}", field="directrouting"))
        return cls(backend, direct, value["hairpin"] == "on", mtu_of(cls.name, value["mtu"]))

    @property
    def overhead(self) -> int:
        """Bytes that flannel reckons with between nodes: 50 for VXLAN, 0 for host routes."""
        return OVERHEAD if self.backend is Backend.VXLAN else 0

    @property
    def summary(self) -> str:
        """What it does, in one sentence."""
        if self.backend is Backend.HOST_GW:
            return "a bridge on each node, host routes to the nodes of the same subnet, no encapsulation"
        within = ", plain routes inside a subnet" if self.direct_routing else ""
        return f"a bridge on each node and a VXLAN tunnel between the nodes, {OVERHEAD} bytes a packet{within}"

    def pod_mtu(self, machine: Machine) -> int:
        """The MTU of the pods' devices: the option's, or the underlay's less what the tunnel needs."""
        return self.mtu or machine.mtu - self.overhead

    def node(self, plan: Plan, machine: Machine, workloads: Sequence[Workload]) -> Part:
        """The bridge with its ports, the tunnel devices, the way to every other node, and flannel's own chains."""
        overlay = Part() if self.backend is Backend.HOST_GW else self._overlay(plan, machine)
        wired = self._wiring(plan, machine).node(machine, workloads)
        direct = host_routes(plan, machine) if self.backend is Backend.HOST_GW or self.direct_routing else ()
        return Part(
            links=(*overlay.links, *wired.links),
            routes=(*wired.routes, *direct, *overlay.routes),
            neighbours=overlay.neighbours,
            fdb=overlay.fdb,
            sysctls=forwarding(machine),
            patches=tuple(_patches(plan, machine)),
        )

    def pod(self, plan: Plan, machine: Machine, workload: Workload) -> Part:
        """The pod's end of the cable; beside the default route it has one for the whole pod network."""
        return self._wiring(plan, machine).pod(machine, workload)

    def _wiring(self, plan: Plan, machine: Machine) -> Wiring:
        tunnels = 0 if self.backend is Backend.HOST_GW else sum(1 for _ in _ends(plan, machine))
        return Wiring(self.pod_mtu(machine), self.hairpin, routes=plan.pod_cidrs, index=FIRST_INDEX + tunnels)

    def _overlay(self, plan: Plan, machine: Machine) -> Part:
        """The tunnel devices, and three entries for every other machine that is reached through them."""
        links: list[Link] = []
        routes: list[Route] = []
        neighbours: list[Neighbour] = []
        fdb: list[FdbEntry] = []
        for own in _ends(plan, machine):
            links.append(_tunnel(own, machine, FIRST_INDEX + len(links)))
            if own.family == 6:  # the kernel makes a route for a single IPv6 address too
                address = own.pods.network
                routes.append(connected(Prefix.of(address), DEVICE[6], address))
            for remote in plan.others(machine, own.family):
                if self.direct_routing and machine.reaches(remote.via):
                    continue
                mac, device = tunnel_mac(remote.machine, own.family), DEVICE[own.family]
                gateway = remote.pods.network
                neighbours.append(Neighbour(gateway, device, mac))
                fdb.append(FdbEntry(mac, device, remote.via))
                routes.append(Route(str(remote.pods), device, gateway, onlink=True, family=own.family))
        return Part(links=tuple(links), routes=tuple(routes), neighbours=tuple(neighbours), fdb=tuple(fdb))


class _End(NamedTuple):
    """The machine's own end of the tunnel of one family."""

    family: int
    pods: Prefix
    outer: str


def _ends(plan: Plan, machine: Machine) -> Iterator[_End]:
    for of in plan.families:
        pods, outer = machine.pod_cidr(of), machine.address(of)
        if pods is not None and outer is not None:
            yield _End(of, pods, outer.ip)


def _tunnel(own: _End, machine: Machine, index: int) -> Link:
    """The tunnel device. Its address stands alone (/32), so that no route to a whole network comes with it; the node
    itself uses it to speak to pods elsewhere.
    """
    return Link(
        DEVICE[own.family],
        index,
        LinkKind.VXLAN,
        tunnel_mac(machine, own.family),
        machine.mtu - HEADROOM[own.family],
        addresses=(Address(own.pods.network, own.pods.bits),),
        vxlan=Vxlan(VNI, own.outer, machine.device, PORT),
    )


class _BackendData(msgspec.Struct, frozen=True, rename={"mac": "VtepMAC"}):
    """What a node publishes of its tunnel device."""

    mac: str = ""


def tunnel_mac(machine: Machine, of: int) -> str:
    """The MAC of a machine's tunnel device of family `of`: as its annotation says, or derived from its name.

    Raises `BadOption` for an annotation that is no JSON of the expected shape.
    """
    derived = derived_mac(f"{machine.name} {DEVICE[of]}")
    published = machine.annotations.get(ANNOTATION[of])
    if published is None:
        return derived
    try:
        data = msgspec.json.decode(published, type=_BackendData | None)
    except msgspec.DecodeError as error:
        field = f"metadata.annotations[{ANNOTATION[of]}]"
        raise BadOption(Problem(str(error), object=f"Node {machine.name}", field=field)) from None
    return (data.mac.lower() if data else "") or derived


def _patches(plan: Plan, machine: Machine) -> Iterator[Patch]:
    for of in plan.families:
        own = machine.pod_cidr(of)
        if own is not None:
            yield _masquerade(of, plan.pod_cidr(of), own)
            yield _forward(of, plan.pod_cidr(of))


def _masquerade(of: int, cluster: Prefix, own: Prefix) -> Patch:
    """Chain FLANNEL-POSTRTG. Its fourth RETURN keeps the client's address when a packet from outside was routed to
    the node of the pod; elsewhere the node must hide the client, or the answer would take another way.
    """
    name, note = "FLANNEL-POSTRTG", Comment("flanneld masq")
    hidden = Masquerade(random_fully=True)
    cases: tuple[tuple[tuple[Match, ...], Target], ...] = (
        ((KUBE_PROXY_MARK,), RETURN),
        ((Source(own), Destination(cluster)), RETURN),
        ((Source(cluster), Destination(own)), RETURN),
        ((Source(cluster, invert=True), Destination(own)), RETURN),
        ((Source(cluster), Destination(MULTICAST[of], invert=True)), hidden),
        ((Source(cluster, invert=True), Destination(cluster)), hidden),
    )
    jump = Rule("nat", "POSTROUTING", (note,), Jump(name))
    rules = tuple(Rule("nat", name, (*matches, note), target) for matches, target in cases)
    return Patch("nat", of, last=(jump,), chains={name: Chain(name, rules)})


def _forward(of: int, cluster: Prefix) -> Patch:
    name, note = "FLANNEL-FWD", Comment("flanneld forward")
    rules = tuple(Rule("filter", name, (match, note), ACCEPT) for match in (Source(cluster), Destination(cluster)))
    return Patch(
        "filter", of, last=(Rule("filter", "FORWARD", (note,), Jump(name)),), chains={name: Chain(name, rules)}
    )
