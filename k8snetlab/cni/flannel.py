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

- `wireguard`: a device `flannel-wg` on each node (UDP port 51820), with one peer for each other node: its public key,
  its pod CIDR as the allowed IPs, its underlay address as the endpoint. One route, for the whole pod network, leads
  into the device (a node's own pods are closer, on the bridge), and the peers' allowed IPs do what routes do elsewhere;
  what comes from a peer must come from its pod CIDR. On the wire nothing can be read. 60 bytes are added and padding;
  flannel takes 80 off the MTU, which is right for IPv6 outside. Nodes may stand in different subnets.

With two families there is a second device, `flannel-v6.1`. flannel reckons with 50 bytes for it too, although an IPv6
outer header makes it 70; the kernel knows better and makes that device 70 smaller than the underlay. So a pod, whose
MTU follows flannel's sum, may send IPv6 packets that its node answers with Packet Too Big. With WireGuard it is
`flannel-wg-v6`, port 51821 (mode `separate`), and the sum is right.

Netfilter: chain FLANNEL-POSTRTG (nat) masquerades what leaves the pod network and what enters it from outside, except
what kube-proxy has marked, what stays inside, and what comes from outside to pods of this very node. Chain FLANNEL-FWD
(filter) accepts what is forwarded from or to pods, because some container runtimes set the policy of FORWARD to DROP.
Both jumps are appended, so kube-proxy's, which are inserted, come first. NetworkPolicies are accepted by the API server
and have no effect.

The MAC of a tunnel device is random in reality and published in the node's annotation
`flannel.alpha.coreos.com/backend-data`; it is read from there, and hashed from the node's name where there is none. So
is a node's public key (both devices have the same); of a key that was read the private half is not known.

Not modelled: backends ipip and udp, WireGuard's modes auto, ipv4 and ipv6, its preshared key and keepalive, nftables
mode (`EnableNFTables`), the annotation `public-ip-overwrite`, `--ip-masq=false`, leases that expire. Guide sections 2.1
and 3.1; flannel v0.27, RFC 7348, `wg(8)`.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import ClassVar, NamedTuple

import msgspec

from k8snetlab.address import Prefix
from k8snetlab.cni.bridge import HAIRPIN, MTU, MULTICAST, NETWORK, Wiring, forwarding, host_routes, mtu_of
from k8snetlab.cni.ipam import gateway
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
)
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
from k8snetlab.linux.wireguard import Wireguard, WireguardPeer, private_key, public_key

__all__ = ["Backend", "Flannel"]

VNI = 1
PORT = 8472

HEADROOM: Mapping[int, int] = {4: 50, 6: 70}
"""What the kernel takes off at least when it makes a tunnel device: an outer IPv6 header has 40 bytes."""

DEVICE: Mapping[int, str] = {4: f"flannel.{VNI}", 6: f"flannel-v6.{VNI}"}
ANNOTATION: Mapping[int, str] = {
    4: "flannel.alpha.coreos.com/backend-data",
    6: "flannel.alpha.coreos.com/backend-v6-data",
}

SUBNET_ENV = "/run/flannel/subnet.env"

WG_DEVICE: Mapping[int, str] = {4: "flannel-wg", 6: "flannel-wg-v6"}
WG_PORT: Mapping[int, int] = {4: 51820, 6: 51821}

KUBE_PROXY_MARK = Mark(0x4000, 0x4000)
"""What kube-proxy wants masqueraded; its own chain does that."""


class Backend(StrEnum):
    """How packets cross from node to node."""

    VXLAN = "vxlan"
    HOST_GW = "host-gw"
    WIREGUARD = "wireguard"


OVERHEAD: Mapping[Backend, int] = {Backend.VXLAN: 50, Backend.HOST_GW: 0, Backend.WIREGUARD: 80}
"""What flannel takes off the underlay's MTU, whichever family is outside. VXLAN: outer IPv4 20, UDP 8, VXLAN 8, inner
Ethernet 14; WireGuard: outer IPv6 40, UDP 8, header 16, tag 16.
"""


class Flannel(msgspec.Struct, frozen=True):
    """A bridge on each node, and a tunnel or host routes between the nodes."""

    name: ClassVar[str] = "flannel"
    policies: ClassVar[PolicyAttachment] = UNENFORCED
    options: ClassVar[tuple[Option, ...]] = (
        Option("backend", tuple(Backend), Backend.VXLAN, "how packets cross from node to node", way=True),
        Option("directrouting", ("on", "off"), "off", "vxlan: plain routes to the nodes of one's own subnet", way=True),
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
            message = f"directrouting belongs to backend vxlan, and the backend is {backend}"
            raise BadOption(Problem(message, object=f"CNI {cls.name}", field="directrouting"))
        return cls(backend, direct, value["hairpin"] == "on", mtu_of(cls.name, value["mtu"]))

    @property
    def overhead(self) -> int:
        """Bytes that flannel reckons with between nodes: 50 for VXLAN, 80 for WireGuard, 0 for host routes."""
        return OVERHEAD[self.backend]

    @property
    def summary(self) -> str:
        """What it does, in one sentence."""
        if self.backend is Backend.HOST_GW:
            return "a bridge on each node, host routes to the nodes of the same subnet, no encapsulation"
        if self.backend is Backend.WIREGUARD:
            return "a bridge on each node and WireGuard between the nodes: encrypted, 60 bytes a packet and padding"
        within = ", plain routes inside a subnet" if self.direct_routing else ""
        return f"a bridge on each node and a VXLAN tunnel between the nodes, {self.overhead} bytes a packet{within}"

    def pod_mtu(self, machine: Machine) -> int:
        """The MTU of the pods' devices: the option's, or the underlay's less what the tunnel needs."""
        return self.mtu or machine.mtu - self.overhead

    def node(self, plan: Plan, machine: Machine, workloads: Sequence[Workload]) -> Part:
        """The bridge with its ports, the tunnel devices, the way to every other node, and flannel's own chains."""
        overlay = self._between(plan, machine)
        wired = self._wiring(plan, machine).node(machine, workloads)
        direct = host_routes(plan, machine) if self.backend is Backend.HOST_GW or self.direct_routing else ()
        return Part(
            links=(*overlay.links, *wired.links),
            routes=(*wired.routes, *direct, *overlay.routes),
            neighbours=overlay.neighbours,
            fdb=overlay.fdb,
            wireguard=overlay.wireguard,
            sysctls=forwarding(machine),
            patches=tuple(_patches(plan, machine)),
        )

    def pod(self, plan: Plan, machine: Machine, workload: Workload) -> Part:
        """The pod's end of the cable; beside the default route it has one for the whole pod network."""
        return self._wiring(plan, machine).pod(machine, workload)

    def network(self, plan: Plan, machine: Machine) -> NetworkList:
        """What the runtime is told on that machine: flannel's plugin hands the work over to `bridge`, then `portmap`
        has its turn. The configuration is for version 0.3.1.
        """
        delegate = {"hairpinMode": self.hairpin, "isDefaultGateway": True, **({"mtu": self.mtu} if self.mtu else {})}
        told = {"type": "flannel", "delegate": delegate}
        handed = self._wiring(plan, machine).configuration(machine)
        del handed["bridge"]  # left to the plugin's own default, which is cni0
        flannel = Plugin(told, handed, {SUBNET_ENV: self.subnet_env(plan, machine)})
        return NetworkList("0.3.1", NETWORK, (flannel, Plugin({"type": "portmap"})))

    def subnet_env(self, plan: Plan, machine: Machine) -> str:
        """What the daemon leaves for the plugin: networks, the machine's own block with its gateway, and the MTU."""
        lines: list[str] = []
        for of, prefix in ((4, "FLANNEL"), (6, "FLANNEL_IPV6")):
            own = machine.pod_cidr(of)
            if own is not None:
                lines += (f"{prefix}_NETWORK={plan.pod_cidr(of)}", f"{prefix}_SUBNET={gateway(own)}/{own.length}")
        lines += (f"FLANNEL_MTU={machine.mtu - self.overhead}", "FLANNEL_IPMASQ=true")
        return "".join(f"{line}\n" for line in lines)

    def _wiring(self, plan: Plan, machine: Machine) -> Wiring:
        tunnels = 0 if self.backend is Backend.HOST_GW else sum(1 for _ in _ends(plan, machine))
        return Wiring(self.pod_mtu(machine), self.hairpin, routes=plan.pod_cidrs, index=FIRST_INDEX + tunnels)

    def _between(self, plan: Plan, machine: Machine) -> Part:
        """What leads to the other nodes beside host routes."""
        match self.backend:
            case Backend.HOST_GW:
                return Part()
            case Backend.VXLAN:
                return self._overlay(plan, machine)
            case Backend.WIREGUARD:
                return _encrypted(plan, machine)

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


def _encrypted(plan: Plan, machine: Machine) -> Part:
    """The WireGuard devices, one route into each, and a peer for every other machine."""
    links: list[Link] = []
    routes: list[Route] = []
    peers: list[WireguardPeer] = []
    for own in _ends(plan, machine):
        device, port, address = WG_DEVICE[own.family], WG_PORT[own.family], own.pods.network
        links.append(
            Link(
                device,
                FIRST_INDEX + len(links),
                LinkKind.WIREGUARD,
                mtu=machine.mtu - OVERHEAD[Backend.WIREGUARD],
                addresses=(Address(address, own.pods.bits),),
                wireguard=key_pair(machine, own.family, port),
            )
        )
        if own.family == 6:
            routes.append(connected(Prefix.of(address), device, address))
        routes.append(Route(str(plan.pod_cidr(own.family)), device, scope="link", family=own.family))
        for remote in plan.others(machine, own.family):
            public = key_pair(remote.machine, own.family, port).public
            peers.append(WireguardPeer(device, public, (str(remote.pods),), remote.via, port))
    return Part(links=tuple(links), routes=tuple(routes), wireguard=tuple(peers))


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


class _BackendData(msgspec.Struct, frozen=True, rename={"mac": "VtepMAC", "key": "PublicKey"}):
    """What a node publishes of its tunnel device."""

    mac: str = ""
    key: str = ""


def tunnel_mac(machine: Machine, of: int) -> str:
    """The MAC of a machine's tunnel device of family `of`: as its annotation says, or derived from its name.

    Raises `BadOption` for an annotation that is no JSON of the expected shape.
    """
    return _published(machine, of).mac.lower() or derived_mac(f"{machine.name} {DEVICE[of]}")


def key_pair(machine: Machine, of: int, port: int) -> Wireguard:
    """The keys of a machine's WireGuard devices: as its annotation says, or derived from its name. Raises `BadOption`
    like `tunnel_mac`, and for a key that is none.
    """
    published = _published(machine, of).key
    if published:
        if not _is_key(published):
            field = f"metadata.annotations[{ANNOTATION[of]}]"
            message = f"{published!r} is no WireGuard key: 32 bytes in base64"
            raise BadOption(Problem(message, object=f"Node {machine.name}", field=field))
        return Wireguard(published, port)
    private = private_key(machine.name)
    return Wireguard(public_key(private), port, private)


def _is_key(text: str) -> bool:
    try:
        return len(b64decode(text, validate=True)) == 32
    except ValueError:
        return False


def _published(machine: Machine, of: int) -> _BackendData:
    """What the machine's annotation says of its tunnel of that family."""
    published = machine.annotations.get(ANNOTATION[of])
    if published is None:
        return _BackendData()
    try:
        data = msgspec.json.decode(published, type=_BackendData | None)
    except msgspec.DecodeError as error:
        field = f"metadata.annotations[{ANNOTATION[of]}]"
        raise BadOption(Problem(str(error), object=f"Node {machine.name}", field=field)) from None
    return data or _BackendData()


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
