"""How are pods reached without a bridge, and without a tunnel?

Calico makes every node a router and every pod a network of one address. The pod's cable ends in the node itself,
`cali…`, with no address on it and no bridge behind it. The pod holds its address alone (/32), and its only way out is
169.254.1.1, which nobody has: the node answers any ARP request on that cable with its own MAC, because the cable has
proxy ARP and the node knows a way to 169.254.1.1 by another device (its default route: a node without one answers
nothing, and pods have no gateway). In IPv6 the gateway is the cable's own link-local address. So all packets of a pod
are routed, to a pod of the same node as well, and a route of a single address for each pod leads back.

Pods' addresses come in blocks of 64, which nodes claim (`blocks`). What crosses between nodes is routed by block:

- `mode=bgp`: nodes tell each other their blocks by BGP, a program BIRD on each of them (`bgp`), and packets cross as
  they are, with the full MTU. A next hop must be on the cable; one that is not is looked for behind the default route,
  whose router knows nothing of pods. `topology` says who talks to whom: every node to every other (`full-mesh`), all
  to some nodes that pass on what they hear (`route-reflector`, `reflectors=N`, the first nodes), or all to the router
  of their subnet (`tor`: *top of rack*). The router is an autonomous system of its own, 64513; the nodes, which are all
  in 64512, find their own number in whatever it tells them of each other and refuse it. They need no more than their
  default route: the router knows every block. It goes with this mode only, and with `topology=tor` the mode need not
  be said.
- `mode=ipip`: the same routes by BGP, into the device `tunl0`: 20 bytes, IPv4 only. IPv6 pools stay without.
  `ipip-crosssubnet` wraps only what leaves the subnet.
- `mode=vxlan`: no BGP. Felix writes a route, a neighbour and an FDB entry for each other node; the device is
  `vxlan.calico` (VNI 4096, UDP port 4789), for IPv6 `vxlan-v6.calico`. 50 bytes, 70 in IPv6. `vxlan-crosssubnet` routes
  within the subnet, and has neighbours and FDB entries all the same.

The MTU of pods is the smallest of all encapsulations that are on, whether a packet is wrapped or not.

The block of a node has a blackhole route: a packet for an address of it that no pod has ends there, and does not go
round between node and router. A tunnel's end holds an address of the pool, the first of the block where it is free.

`peers_down=node-2` takes all BGP sessions of a machine down, `peers_down=node-1:node-2` one (several: with commas);
the router of a ToR is called `router`. What a session had brought is withdrawn on both ends, and with it the routes.

Netfilter: chains `cali-…` (`felix`); policies attach to the chains of each pod's device. `dataplane=nftables` writes
them as a table of nftables for each family.

A machine that is no node of the cluster takes no part.

Not modelled: several pools, the delay of proxy ARP (which Calico sets to 0), WireGuard, the eBPF data plane,
advertised Service addresses, BGP filters and timers (graceful restart keeps routes for a while), designs of
autonomous systems in which nodes accept each other's routes from the router. IPv6 link-local addresses are no state:
they follow from the MAC. Unsure: what `ip -d link` says of tunl0. Guide sections 2.1 and 3.1; Calico 3.30,
RFC 2003, RFC 4271, RFC 7348.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from hashlib import sha1
from itertools import combinations
from typing import ClassVar, NamedTuple

import msgspec

from k8snetlab.address import Prefix, family, number
from k8snetlab.cni.bgp import Path, Rib, Session, Speaker, Table
from k8snetlab.cni.blocks import Allocation, Wish, allocated, outside
from k8snetlab.cni.bridge import MTU, mtu_of
from k8snetlab.cni.felix import VXLAN_PORT, Encapsulation, Endpoint, attachment, in_nftables, ipsets, patches, veth_name
from k8snetlab.cni.plan import (
    FIRST_INDEX,
    Answer,
    Enforcement,
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
from k8snetlab.errors import BadOption, Problem, UnknownName
from k8snetlab.linux.host import Part
from k8snetlab.linux.ipset import IpSet
from k8snetlab.linux.link import Address, FdbEntry, Link, LinkKind, Neighbour, Peer, Vxlan, link_local, loopback
from k8snetlab.linux.netfilter import Patch
from k8snetlab.linux.route import Route, RouteType, connected

__all__ = ["Calico", "Mode", "Topology"]

POD_DEVICE = "eth0"
POD_INDEX = 2
CABLE_MAC = "ee:ee:ee:ee:ee:ee"
"""The MAC of the node's end of every cable."""

GATEWAY: Mapping[int, str] = {4: "169.254.1.1", 6: link_local(CABLE_MAC)}
"""The gateway of every pod."""

VNI = 4096
ADDED: Mapping[Encapsulation, Mapping[int, int]] = {
    Encapsulation.NONE: {4: 0, 6: 0},
    Encapsulation.IPIP: {4: 20},
    Encapsulation.VXLAN: {4: 50, 6: 70},
}
"""The bytes of the outer headers, by family."""

DEVICE: Mapping[tuple[Encapsulation, int], str] = {
    (Encapsulation.IPIP, 4): "tunl0",
    (Encapsulation.VXLAN, 4): "vxlan.calico",
    (Encapsulation.VXLAN, 6): "vxlan-v6.calico",
}
ANNOTATION: Mapping[tuple[Encapsulation, int], str] = {
    (Encapsulation.IPIP, 4): "projectcalico.org/IPv4IPIPTunnelAddr",
    (Encapsulation.VXLAN, 4): "projectcalico.org/IPv4VXLANTunnelAddr",
    (Encapsulation.VXLAN, 6): "projectcalico.org/IPv6VXLANTunnelAddr",
}
"""Where a node publishes the address of its end of the tunnel."""

ASN, ROUTER_ASN = 64512, 64513
ROUTER = "router"
CLUSTER = "244.0.0.1"
"""The cluster id of the route reflectors."""

LARGEST_MESH = 1000
"""So many nodes may all talk to each other here; real clusters take reflectors from about a hundred on."""

FELIX, BIRD = "80", "bird"
"""Who wrote a route: the protocol numbers that `ip route` shows."""


class Mode(StrEnum):
    """How packets cross from node to node."""

    BGP = "bgp"
    IPIP = "ipip"
    IPIP_CROSS_SUBNET = "ipip-crosssubnet"
    VXLAN = "vxlan"
    VXLAN_CROSS_SUBNET = "vxlan-crosssubnet"

    def encapsulation(self, of: int) -> Encapsulation:
        """What packets of a family may be wrapped in."""
        if self in (Mode.VXLAN, Mode.VXLAN_CROSS_SUBNET):
            return Encapsulation.VXLAN
        return Encapsulation.NONE if self is Mode.BGP or of == 6 else Encapsulation.IPIP

    @property
    def direct(self) -> bool:
        """Whether packets within a subnet are not wrapped."""
        return self not in (Mode.IPIP, Mode.VXLAN)


class Topology(StrEnum):
    """Who has BGP sessions with whom."""

    FULL_MESH = "full-mesh"
    ROUTE_REFLECTOR = "route-reflector"
    TOR = "tor"


class Pool(NamedTuple):
    """The pods of one family: who has which address, how packets between nodes are wrapped and by which device, and
    what the nodes told each other, where they speak BGP.
    """

    family: int
    encapsulation: Encapsulation
    device: str
    allocation: Allocation
    bgp: Table | None


class Calico(msgspec.Struct, frozen=True):
    """A cable to the node for each pod, routes by block between the nodes, and chains before each pod."""

    name: ClassVar[str] = "calico"
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            "mode", tuple(Mode), Mode.IPIP, "how packets cross from node to node (with topology tor: bgp)", way=True
        ),
        Option(
            "topology", tuple(Topology), Topology.FULL_MESH, "who has BGP sessions with whom (not with vxlan)", way=True
        ),
        Option("reflectors", (), "1", "route-reflector: how many nodes pass on what they hear"),
        Option(
            "peers_down", (), "", "BGP sessions that are down: all of node-2, or node-1:node-2; several with commas"
        ),
        Option("natoutgoing", ("on", "off"), "on", "whether nodes hide pods that speak to anything but pods"),
        Option("blocksize", (), "26", "how long the prefix of a block is in IPv4"),
        Option("strictaffinity", ("on", "off"), "off", "whether no address is borrowed from another node's block"),
        Option("dataplane", ("iptables", "nftables"), "iptables", "what Felix writes its rules in"),
        MTU,
    )

    mode: Mode = Mode.IPIP
    topology: Topology = Topology.FULL_MESH
    reflectors: int = 1
    peers_down: tuple[tuple[str, ...], ...] = ()
    nat_outgoing: bool = True
    block_size: int = 26
    strict: bool = False
    mtu: int = 0
    dataplane: Enforcement = Enforcement.IPTABLES

    @classmethod
    def of(cls, options: Mapping[str, str]) -> Calico:
        """The variant with these options. Raises `BadOption`."""
        value = chosen(cls.name, cls.options, options)
        topology = Topology(value["topology"])
        mode = Mode(options.get("mode", Mode.BGP if topology is Topology.TOR else value["mode"]))
        bgp = mode.encapsulation(4) is not Encapsulation.VXLAN
        for option in ("topology", "reflectors", "peers_down"):
            if option in options and not bgp:
                raise _bad(option, f"{option} belongs to BGP, and mode {mode} does without")
        if topology is Topology.TOR and mode is not Mode.BGP:
            raise _bad("topology", f"tor belongs to mode bgp: with {mode} nodes need routes to each other's blocks")
        if "reflectors" in options and topology is not Topology.ROUTE_REFLECTOR:
            raise _bad("reflectors", f"reflectors belong to topology route-reflector; {topology} has none")
        return cls(
            mode,
            topology,
            number_of(cls.name, "reflectors", value["reflectors"], 1, 100),
            _pairs(value["peers_down"]),
            value["natoutgoing"] == "on",
            number_of(cls.name, "blocksize", value["blocksize"], 20, 32),
            value["strictaffinity"] == "on",
            mtu_of(cls.name, value["mtu"]),
            Enforcement(value["dataplane"]),
        )

    @property
    def policies(self) -> PolicyAttachment:
        """The chains of each pod's device."""
        return attachment(self.dataplane)

    @property
    def overhead(self) -> int:
        """Bytes that Calico adds to an IPv4 packet between nodes: 50 for VXLAN, 20 for IPIP, else none."""
        return ADDED[self.mode.encapsulation(4)][4]

    @property
    def summary(self) -> str:
        """What it does, in one sentence."""
        told = {
            Topology.FULL_MESH: "BGP between all nodes",
            Topology.ROUTE_REFLECTOR: "BGP by way of route reflectors",
            Topology.TOR: "BGP with the router",
        }
        wrapped = {Encapsulation.NONE: "no", Encapsulation.IPIP: "IPIP", Encapsulation.VXLAN: "VXLAN"}
        kind = self.mode.encapsulation(4)
        across = " between subnets" if self.mode.direct and kind is not Encapsulation.NONE else ""
        by = "routes by Felix" if kind is Encapsulation.VXLAN else told[self.topology]
        return f"a routed cable to each pod, {by}, {wrapped[kind]} encapsulation{across}"

    def pod_mtu(self, machine: Machine) -> int:
        """The MTU of the pods' devices: the option's, or the underlay's less the largest encapsulation that is on."""
        families = {block.family for block in machine.pod_cidrs} or {4}
        added = (ADDED[self.mode.encapsulation(of)][of] for of in families)
        return self.mtu or machine.mtu - max(added)

    def addresses(
        self, pool: Prefix, machines: Sequence[Machine], pods: Mapping[str, Sequence[str]], kept: Mapping[str, str]
    ) -> Mapping[str, str]:
        """The address of every pod, by its name: its IPAM. `pods` are those of each machine, in the order they come;
        some have `kept` an address. Raises `PoolExhausted` and `BadOption`.
        """
        return self._allocation(pool, machines, pods, kept).addresses

    def rib(self, plan: Plan, name: str) -> tuple[Rib, ...]:
        """What one speaker of BGP, a machine or `router`, knows of each family. Raises `UnknownName`."""
        pools = self._pools(plan)
        return tuple(pool.bgp.rib(name) for pool in pools if pool.bgp is not None)

    def pools(self, plan: Plan) -> tuple[Pool, ...]:
        """Everything about the pods of each family that follows from the plan. Raises as `addresses` does."""
        return self._pools(plan)

    # On a node

    def node(self, plan: Plan, machine: Machine, workloads: Sequence[Workload]) -> Part:
        """The tunnels' ends, a cable to each pod, routes to pods and blocks, and Felix's chains and sets. Nothing on a
        machine that is no node of the plan.
        """
        if machine not in plan.machines:
            return Part()
        pools = self._pools(plan)
        links = [*self._tunnels(machine, pools), *(self._cable(machine, pools, pod) for pod in workloads)]
        routes = [Route(ip, veth_name(pod.name), scope="link", family=family(ip))
                  for pod in workloads for ip in pod.addresses]  # fmt: skip
        neighbours: list[Neighbour] = []
        fdb: list[FdbEntry] = []
        for pool in pools:
            routes += self._routes(plan, machine, pool)
            for remote, end, outer in _far_ends(plan, machine, pool):
                neighbours.append(Neighbour(end, pool.device, tunnel_mac(remote, pool.family)))
                fdb.append(FdbEntry(tunnel_mac(remote, pool.family), pool.device, outer))
        return Part(
            links=tuple(links),
            routes=tuple(routes),
            neighbours=tuple(neighbours),
            fdb=tuple(fdb),
            sysctls=_sysctls(pools, [veth_name(pod.name) for pod in workloads]),
            patches=tuple(self._patches(pools, workloads)),
            ipsets=tuple(held for pool in pools for held in self._ipsets(plan, machine, pool)),
        )

    def _tunnels(self, machine: Machine, pools: Sequence[Pool]) -> Iterator[Link]:
        """The machine's ends of tunnels. Their addresses stand alone, so that no route to a network comes with them."""
        for index, pool in enumerate((pool for pool in pools if pool.device), FIRST_INDEX):
            end, outer = pool.allocation.tunnels[machine.name], machine.address(pool.family)
            own = (Address(end, 32 if pool.family == 4 else 128),)
            mtu = machine.mtu - ADDED[pool.encapsulation][pool.family]
            if pool.encapsulation is Encapsulation.IPIP:
                yield Link(pool.device, index, LinkKind.IPIP, mtu=mtu, addresses=own)
            elif outer is not None:
                vxlan = Vxlan(VNI, outer.ip, machine.device, VXLAN_PORT)
                mac = tunnel_mac(machine, pool.family)
                yield Link(pool.device, index, LinkKind.VXLAN, mac, mtu, addresses=own, vxlan=vxlan)

    def _cable(self, machine: Machine, pools: Sequence[Pool], pod: Workload) -> Link:
        """The node's end of a pod's cable."""
        end = Peer(pod.name, POD_DEVICE)
        index, mtu = _index(machine, pools, pod), self.pod_mtu(machine)
        return Link(veth_name(pod.name), index, LinkKind.VETH, CABLE_MAC, mtu, peer=end, peer_index=POD_INDEX)

    def _routes(self, plan: Plan, machine: Machine, pool: Pool) -> Iterator[Route]:
        """The blackhole of each own block, and the way to what other nodes have."""
        protocol = FELIX if pool.bgp is None else BIRD
        for block in pool.allocation.of(machine.name):
            yield Route(str(block), protocol=protocol, type=RouteType.BLACKHOLE, family=pool.family)
        if pool.encapsulation is Encapsulation.VXLAN and pool.family == 6:  # made by the kernel with the address
            own = pool.allocation.tunnels[machine.name]
            yield connected(Prefix.of(own), pool.device, own)
        if pool.bgp is None:
            yield from self._routes_by_felix(plan, machine, pool)
        elif machine.name in pool.bgp.speakers:
            for path in pool.bgp.rib(machine.name).best.values():
                if path.peer:
                    yield from self._route_by_bird(machine, pool, path)

    def _routes_by_felix(self, plan: Plan, machine: Machine, pool: Pool) -> Iterator[Route]:
        for remote, end, outer in _far_ends(plan, machine, pool):
            direct = self.mode.direct and machine.reaches(outer)
            for block in pool.allocation.networks(remote.name):
                if direct:
                    way = Route(str(block), machine.device, outer, protocol=FELIX, onlink=True, family=pool.family)
                else:
                    way = Route(str(block), pool.device, end, onlink=True, family=pool.family)
                yield way

    def _route_by_bird(self, machine: Machine, pool: Pool, path: Path) -> Iterator[Route]:
        """The route that a path becomes. A next hop beyond the subnet, into no tunnel, is reached as anything else is:
        by the default route.
        """
        near = machine.reaches(path.next_hop)
        if pool.device and not (self.mode.direct and near):
            yield Route(path.network, pool.device, path.next_hop, protocol=BIRD, onlink=True)
            return
        via = path.next_hop if near else machine.gateway(pool.family)
        if via:
            yield Route(path.network, machine.device, via, protocol=BIRD, family=pool.family)

    def _patches(self, pools: Sequence[Pool], workloads: Sequence[Workload]) -> Iterator[Patch]:
        for pool in pools:
            pods = [
                Endpoint(veth_name(pod.name), pod.name.partition("/")[0], pod.account)
                for pod in workloads
                if pod.address(pool.family)
            ]
            yield from patches(
                pool.family, pool.encapsulation, pool.device, pods, nat=self.nat_outgoing, backend=self.dataplane
            )

    def _ipsets(self, plan: Plan, machine: Machine, pool: Pool) -> Iterator[IpSet]:
        nodes = {each.name: own.ip for each in plan.machines if (own := each.address(pool.family)) is not None}
        others = [address for name, address in nodes.items() if name != machine.name]
        block = plan.pod_cidr(pool.family)
        return ipsets(pool.family, pool.encapsulation, block, tuple(nodes.values()), others, nat=self.nat_outgoing)

    def translated(self, *parts: Part) -> tuple[Part, ...]:
        """The chains and sets of a node, those of policies too, in the language of the data plane."""
        return in_nftables(parts) if self.dataplane is Enforcement.NFTABLES else parts

    # In a pod

    def pod(self, plan: Plan, machine: Machine, workload: Workload) -> Part:
        """The pod's end of the cable: its address alone, and the gateway that nobody has. Raises `BadOption` for an
        address that is in no pool.
        """
        for address in workload.addresses:
            if not any(pool.contains(address) for pool in plan.pod_cidrs):
                message = outside(address, plan.pod_cidrs)
                raise BadOption(Problem(message, object=f"Pod {workload.name}", field="status.podIP"))
        device = Link(
            POD_DEVICE,
            POD_INDEX,
            LinkKind.VETH,
            derived_mac(f"{workload.name} {POD_DEVICE}"),
            self.pod_mtu(machine),
            peer=Peer(machine.name, veth_name(workload.name)),
            peer_index=_index(machine, self._pools(plan), workload),
            addresses=tuple(Address(ip, 32 if family(ip) == 4 else 128) for ip in workload.addresses),
        )
        return Part(links=(loopback(), device), routes=tuple(_pod_routes(workload)))

    def network(self, plan: Plan, machine: Machine) -> NetworkList:
        """What the runtime is told on that machine: Calico's plugin, which asks its own for addresses; then two that
        have nothing to do. The MTU is what Felix found out, unless it was chosen. The configuration is for version
        0.3.1, and the plugin answers with the name of the node's end and the addresses.
        """
        own = {
            "type": "calico",
            "log_level": "info",
            "log_file_path": "/var/log/calico/cni/cni.log",
            "datastore_type": "kubernetes",
            "nodename": machine.name,
            "mtu": self.mtu,
            "ipam": {"type": "calico-ipam"},
            "policy": {"type": "k8s"},
            "kubernetes": {"kubeconfig": "/etc/cni/net.d/calico-kubeconfig"},
        }
        found = {} if self.mtu else {"/var/lib/calico/mtu": f"{self.pod_mtu(machine)}"}
        calico = Plugin(own, reads=found, answer=Answer.NODE_END)
        return NetworkList(
            "0.3.1",
            "k8s-pod-network",
            (calico, Plugin({"type": "portmap", "snat": True}), Plugin({"type": "bandwidth"})),
        )

    # On the router

    def router(self, plan: Plan) -> Part:
        """What the router of the nodes' subnets learns by BGP, where the nodes speak to it. Raises `UnknownName` and
        `BadOption` for sessions that this cluster cannot have.
        """
        self._check(plan)
        if self.topology is not Topology.TOR:
            return Part()
        return Part(
            routes=tuple(
                Route(path.network, via=path.next_hop, protocol=BIRD, family=pool.family)
                for pool in self._pools(plan)
                if pool.bgp is not None and ROUTER in pool.bgp.speakers
                for path in pool.bgp.rib(ROUTER).best.values()
            )
        )

    # What follows from the whole plan

    def _pools(self, plan: Plan) -> tuple[Pool, ...]:
        return plan.once(self, self._found)

    def _found(self, plan: Plan) -> tuple[Pool, ...]:
        self._check(plan)
        return tuple(self._pool(plan, of) for of in plan.families)

    def _pool(self, plan: Plan, of: int) -> Pool:
        kind = self.mode.encapsulation(of)
        pods = {name: [pod.name for pod in held if pod.address(of)] for name, held in plan.workloads.items()}
        kept = {pod.name: pod.address(of) for held in plan.workloads.values() for pod in held if pod.address(of)}
        allocation = self._allocation(plan.pod_cidr(of), plan.machines, pods, kept)
        bgp = None if kind is Encapsulation.VXLAN else self._bgp(plan, of, allocation)
        return Pool(of, kind, DEVICE.get((kind, of), ""), allocation, bgp)

    def _allocation(
        self, pool: Prefix, machines: Sequence[Machine], pods: Mapping[str, Sequence[str]], kept: Mapping[str, str]
    ) -> Allocation:
        kind = self.mode.encapsulation(pool.family)
        published = ANNOTATION.get((kind, pool.family), "")
        wishes = [
            Wish(
                machine.name,
                machine.pod_cidr(pool.family),
                kind is not Encapsulation.NONE,
                machine.annotations.get(published, "") if published else "",
                own := tuple(pods.get(machine.name, ())),
                {pod: kept[pod] for pod in own if pod in kept},
            )
            for machine in machines
        ]
        return allocated(pool, wishes, self.block_size if pool.family == 4 else 0, strict=self.strict)

    def _bgp(self, plan: Plan, of: int, allocation: Allocation) -> Table:
        """The speakers and their sessions, less those that are down."""
        nodes = [machine for machine in plan.machines if machine.address(of) is not None]
        reflectors = {machine.name for machine in nodes[: self.reflectors]}
        passing = reflectors if self.topology is Topology.ROUTE_REFLECTOR else set()
        speakers = [
            Speaker(
                machine.name,
                own.ip,
                ASN,
                tuple(str(network) for network in allocation.networks(machine.name)),
                CLUSTER if machine.name in passing else "",
            )
            for machine in nodes
            if (own := machine.address(of)) is not None
        ]
        gateway = next((machine.gateway(of) for machine in nodes if machine.gateway(of)), "")
        if self.topology is Topology.TOR and gateway:
            speakers.append(Speaker(ROUTER, gateway, ROUTER_ASN))
        sessions = tuple(self._sessions([speaker.name for speaker in speakers], passing))
        return Table(speakers, (session for session in sessions if not self._is_down(session)))

    def _sessions(self, names: Sequence[str], passing: set[str]) -> Iterator[Session]:
        if self.topology is Topology.TOR:
            yield from (Session(name, ROUTER) for name in names if name != ROUTER and ROUTER in names)
        else:
            for one, other in combinations(names, 2):
                if not passing or {one, other} <= passing:
                    yield Session(one, other)
                elif one in passing or other in passing:
                    yield Session(one, other, client=other if one in passing else one)

    def _check(self, plan: Plan) -> None:
        """Refuse what no such cluster can have: sessions of machines that it has not, or too many."""
        names = [machine.name for machine in plan.machines]
        known = (*names, ROUTER) if self.topology is Topology.TOR else names
        for name in (name for down in self.peers_down for name in down):
            if name not in known:
                raise UnknownName("BGP speaker", name, known, object=f"CNI {self.name}", field="peers_down")
        bgp = self.mode.encapsulation(4) is not Encapsulation.VXLAN
        if bgp and self.topology is Topology.FULL_MESH and len(names) > LARGEST_MESH:
            sessions = len(names) * (len(names) - 1) // 2
            message = f"{len(names):,} nodes in a full mesh are {sessions:,} BGP sessions: take route reflectors"
            raise _bad("topology", message)

    def _is_down(self, session: Session) -> bool:
        return any(set(down) <= {session.one, session.other} for down in self.peers_down)


def tunnel_mac(machine: Machine, of: int) -> str:
    """The MAC of a machine's VXLAN device: `66` and five bytes of a hash of its name.

    >>> tunnel_mac(Machine("node1", ()), 4)
    '66:f9:37:c3:7e:94'
    """
    name = machine.name if of == 4 else f"{machine.name}-v6"
    return ":".join(f"{byte:02x}" for byte in (0x66, *sha1(name.encode(), usedforsecurity=False).digest()[:5]))


class FarEnd(NamedTuple):
    """The other end of a VXLAN tunnel: whose it is, its address in the pool, and its machine's on the underlay."""

    machine: Machine
    address: str
    outer: str


def _far_ends(plan: Plan, machine: Machine, pool: Pool) -> Iterator[FarEnd]:
    """The other ends, where the pool's packets travel in VXLAN and the machine has an end of its own."""
    if pool.encapsulation is not Encapsulation.VXLAN or machine.address(pool.family) is None:
        return
    for other in plan.machines:
        outer = other.address(pool.family)
        if outer is not None and other.name != machine.name:
            yield FarEnd(other, pool.allocation.tunnels[other.name], outer.ip)


def _index(machine: Machine, pools: Sequence[Pool], pod: Workload) -> int:
    """The interface index of the node's end of a cable: its address's place among those of the node's blocks, so that a
    pod more moves no other's; those that are borrowed come after.
    """
    first = FIRST_INDEX + sum(1 for pool in pools if pool.device)
    pool = next(pool for pool in pools if pool.family == family(pod.addresses[0]))
    address, before = pod.addresses[0], 0
    for block in pool.allocation.of(machine.name):
        if block.contains(address):
            return first + before + number(address) - block.base
        before += block.size
    borrowed = pool.allocation.borrowed(machine.name)
    return first + before + (borrowed.index(address) if address in borrowed else number(address) % (1 << 24))


def _pod_routes(pod: Workload) -> Iterator[Route]:
    for address in pod.addresses:
        if family(address) == 4:
            yield Route("default", POD_DEVICE, GATEWAY[4])
            yield Route(GATEWAY[4], POD_DEVICE, scope="link")
        else:
            yield Route("default", POD_DEVICE, GATEWAY[6], family=6)
            yield connected(Prefix.of(address), POD_DEVICE, address)  # made by the kernel with the address


def _sysctls(pools: Sequence[Pool], cables: Sequence[str]) -> dict[str, int]:
    """The node forwards, and answers ARP on its cables for everybody."""
    stated = {"net.ipv4.ip_forward" if pool.family == 4 else "net.ipv6.conf.all.forwarding": 1 for pool in pools}
    for cable in cables:
        for pool in pools:
            if pool.family == 4:
                stated[f"net.ipv4.conf.{cable}.proxy_arp"] = 1
                stated[f"net.ipv4.conf.{cable}.route_localnet"] = 1
    return stated


def _pairs(value: str) -> tuple[tuple[str, ...], ...]:
    """`node-1:node-2,node-3` → (("node-1", "node-2"), ("node-3",))."""
    found = tuple(tuple(part.strip() for part in each.split(":")) for each in value.split(",") if each.strip())
    for down in found:
        if len(down) > 2 or not all(down):
            raise _bad("peers_down", f"{':'.join(down)!r} is no machine, and no two machines with a colon between")
    return found


def _bad(option: str, message: str) -> BadOption:
    return BadOption(Problem(message, object=f"CNI {Calico.name}", field=option))
