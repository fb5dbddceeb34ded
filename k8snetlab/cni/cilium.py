"""What if no rule and no bridge is asked where a pod is?

Cilium 1.19 attaches pods by eBPF programs (`linux.datapath` says what they look up, `linux.redirecting` how they work).
On the node there is a device `lxc…` for each pod, in no bridge and with no route to it, and three more:

    cilium_host ═ cilium_net     a pair of its own: the node's way to its pods, with the pods' gateway as its address
    cilium_vxlan, cilium_geneve  a tunnel that is told for each packet where to send it (`external`)

A pod has a /32 (/128) and a default route to the gateway, whose MAC address the program at its device answers for; so
it does for any address. The node has one route for each node's pods, all to its *own* cilium_host: where a pod really
is stands in the map `cilium_ipcache_v2`, and not in the routing table. Rule 100 looks up the table `local` instead of
rule 0, so that what is meant for a proxy (mark 0x200) can be led there before.

- `mode=vxlan` and `geneve`: 50 bytes a packet over IPv4 (70 over IPv6). Devices keep the underlay's MTU, and *routes*
  have the smaller one. The tunnel's network identifier is the identity of the sender.
- `mode=native`: packets leave as they are, by routes to the nodes of one's own subnet (`autoDirectNodeRoutes`); nodes
  beyond a router cannot be reached. The receiver finds the sender's identity by his address.

Both families share one tunnel, over IPv4 wherever all nodes have IPv4 addresses.

With `encryption=wireguard` there is a device `cilium_wg0` (UDP port 51871) too. No route leads to it, the program at
the network card does: with a tunnel for every packet of the tunnel (encapsulated first, then encrypted, and behind each
peer is its node), else for what pods send to pods of other nodes (behind each peer are its node's pods). What a node
itself sends to another node stays readable. Routes lose 80 bytes more, as up to Cilium 1.19.4.

With `encryption=ipsec` there is no device. The same packets get a mark (0xe00, the number of the key, the number of the
node), and by it the kernel's `xfrm` wraps them into ESP in tunnel mode, AES-GCM: 20 bytes of IPv4 and 34, and up to 3
of padding. With a tunnel, VXLAN is inside (since 1.18), and the outer addresses are once more those of the nodes; else
they are those of the nodes' cilium_host. Routes lose 77 bytes. What has that mark and finds no state is dropped, and
never sent readable.

Services: with `proxy=ebpf` Cilium replaces kube-proxy. With another proxy it still balances cluster addresses for pods,
at their devices; for the node itself, node ports and whatever comes from outside, there are kube-proxy's rules.

Netfilter: chains CILIUM_… with a *feeder* each, inserted at the top. CILIUM_POST_nat masquerades what leaves the node's
pod network (in native mode: the cluster's); CILIUM_OUTPUT marks what the node itself sends (0xc00), by which the
program at cilium_host knows it. Policies attach to the programs: an endpoint that no policy selects has an entry that
allows everything in, and one that allows everything out. What policies make of the maps is in `policies.maps`.

From real nodes, to the letter: devices, routes, rules, maps, chains. Not certain, and so said: the second mark rule's
target in CILIUM_OUTPUT; `mtu` on the default route of pods in native mode, tunnel endpoints in the cache there; routes
and chains of IPv6, which are taken to be those of IPv4; of IPsec all but states and marks (the order of the lists,
priorities, the way after decryption), which is from the sources alone. Addresses of cilium_host, identities and numbers
of endpoints are drawn by chance in reality and hashed here; the first is read from the annotations
`network.cilium.io/ipv4-cilium-host` and `ipv6-cilium-host` where there are any.

With `bpf-masquerade=on`, which needs `proxy=ebpf`, there is no table nat: the program at the network card hides pods
behind their node from all but nodes and pods. What is neither TCP nor UDP nor an echo request leaves as it is.

The runtime finds one plugin, `cilium-cni`, in `05-cilium.conflist` (version 0.3.1, so there is no CHECK). It asks the
agent of its node, by a socket, for addresses and has it attach the programs; no other plugin is called. What it answers
is from the plugin's sources of 1.18.

Not modelled: IPAM modes other than `kubernetes`, health endpoints, endpoint routes, the agent's own ip-masq,
host routing past the stack (`bpf.hostLegacyRouting` is thought to be on), BGP, host firewall, the chain
CILIUM_PRE_mangle and the proxy that it leads to, identity 7 for API servers. Nothing of this runs on the real kernel of
the lab: Cilium's own programs would be needed for that. Guide sections 3.1 and 5.7; RFC 7348, RFC 8926.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from functools import partial
from hashlib import sha256
from typing import ClassVar, NamedTuple

import msgspec

from k8snetlab.address import Prefix, family, number
from k8snetlab.cni.bridge import MTU, POD_DEVICE, POD_INDEX, forwarding, mtu_of
from k8snetlab.cni.identities import identities, security_labels
from k8snetlab.cni.ipam import block_of, gateway
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
)
from k8snetlab.linux.datapath import HOST, REMOTE_NODE, WORLD, Datapath, Direction, Endpoint, Known, Permit
from k8snetlab.linux.ebpf import ANY, Attachment, Program
from k8snetlab.linux.host import Part
from k8snetlab.linux.link import Address, Link, LinkKind, Peer, Vxlan, loopback
from k8snetlab.linux.netfilter import (
    ACCEPT,
    NOTRACK,
    Chain,
    Comment,
    CtState,
    Destination,
    InInterface,
    Jump,
    Mark,
    Masquerade,
    Match,
    OutInterface,
    Patch,
    Rule,
    SetMark,
    Snat,
    Source,
    Target,
)
from k8snetlab.linux.route import Route, RouteType, RoutingRule
from k8snetlab.linux.wireguard import Wireguard, WireguardPeer, private_key, public_key
from k8snetlab.linux.xfrm import Xfrm, XfrmDirection, XfrmPolicy, XfrmState

__all__ = ["Cilium", "Encryption", "Mode", "lxc_name", "router"]

HOST_DEVICE, NET_DEVICE = "cilium_host", "cilium_net"
OVERHEAD: Mapping[int, int] = {4: 50, 6: 70}
"""What a tunnel adds, by the family of the outer header: IP 20 or 40, UDP 8, VXLAN or Geneve 8, inner Ethernet 14."""

WG_DEVICE, WG_PORT, WG_OVERHEAD, WG_KEY = "cilium_wg0", 51871, 80, 255
"""The WireGuard device, its UDP port, what Cilium takes off for it up to 1.19.4 (95 bytes since), and the number that
stands in the cache for "encrypt".
"""

ANNOTATION: Mapping[int, str] = {
    4: "network.cilium.io/ipv4-cilium-host",
    6: "network.cilium.io/ipv6-cilium-host",
}
ENDPOINTS = 4095
"""Numbers of endpoints are from 1 to this."""

LOCAL_RULE, PROXY_RULE, PROXY_TABLE = 100, 9, "2004"


SPI = 3
"""The number of the key, which an administrator chooses with it: that of Cilium's documentation."""

MARK_OUT, MARK_OUT_MASK, MARK_IN, MARK_IN_MASK, MAGIC = 0xE00, 0xFFFFFF00, 0xD00, 0xFFFF0F00, 0xF00
"""The marks of what is to be encrypted and decrypted; beside them stand the key (out only) and the node."""

BLOCKED, FORWARDED = 100, 2975
"""Priorities of policies: of what may leave only encrypted, and of what passes through."""

EVERYTHING: Mapping[int, str] = {4: "0.0.0.0/0", 6: "::/0"}


class Encryption(StrEnum):
    """Whether others can read what goes from node to node."""

    NONE = "none"
    WIREGUARD = "wireguard"
    IPSEC = "ipsec"


ENCRYPTED: Mapping[Encryption, int] = {Encryption.NONE: 0, Encryption.WIREGUARD: WG_OVERHEAD, Encryption.IPSEC: 77}
"""What Cilium takes off routes for it; for IPsec a sum for planning, not what ESP adds."""


class Mode(StrEnum):
    """How packets cross from node to node."""

    VXLAN = "vxlan"
    GENEVE = "geneve"
    NATIVE = "native"


TUNNELS: Mapping[Mode, tuple[str, LinkKind, int]] = {
    Mode.VXLAN: ("cilium_vxlan", LinkKind.VXLAN, 8472),
    Mode.GENEVE: ("cilium_geneve", LinkKind.GENEVE, 6081),
}
"""The tunnel device of a mode, its kind and its UDP port."""


class Cilium(msgspec.Struct, frozen=True):
    """eBPF programs at a device for each pod; a tunnel, or routes, between the nodes."""

    name: ClassVar[str] = "cilium"
    policies: ClassVar[PolicyAttachment] = PolicyAttachment(Enforcement.IDENTITY)
    options: ClassVar[tuple[Option, ...]] = (
        Option("mode", tuple(Mode), Mode.VXLAN, "how packets cross from node to node", way=True),
        Option(
            "encryption",
            tuple(Encryption),
            Encryption.NONE,
            "whether what goes from node to node is encrypted",
            way=True,
        ),
        Option("masquerade", ("on", "off"), "on", "whether the node hides pods from all outside the pod network"),
        Option("bpf-masquerade", ("on", "off"), "off", "by a program at the network card; needs proxy ebpf"),
        MTU,
    )

    mode: Mode = Mode.VXLAN
    encryption: Encryption = Encryption.NONE
    masquerade: bool = True
    mtu: int = 0
    bpf_masquerade: bool = False

    @classmethod
    def of(cls, options: Mapping[str, str]) -> Cilium:
        """The variant with these options. Raises `BadOption`."""
        value = chosen(cls.name, cls.options, options)
        encryption = Encryption(value["encryption"])
        hidden, by_program = value["masquerade"] == "on", value["bpf-masquerade"] == "on"
        return cls(Mode(value["mode"]), encryption, hidden, mtu_of(cls.name, value["mtu"]), hidden and by_program)

    @property
    def overhead(self) -> int:
        """Bytes that Cilium reckons with between nodes: 50 for a tunnel over IPv4, 80 for WireGuard, 77 for IPsec."""
        return self._overhead(4)

    def _overhead(self, outer: int) -> int:
        tunnel = OVERHEAD[outer] if self.mode in TUNNELS else 0
        return tunnel + ENCRYPTED[self.encryption]

    @property
    def summary(self) -> str:
        """What it does, in one sentence."""
        ways = {
            Mode.VXLAN: "a VXLAN tunnel between the nodes",
            Mode.GENEVE: "a Geneve tunnel between the nodes",
            Mode.NATIVE: "routes to the nodes of the same subnet",
        }
        by = {Encryption.NONE: "", Encryption.WIREGUARD: "WireGuard", Encryption.IPSEC: "IPsec"}[self.encryption]
        hidden = f", encrypted by {by}" if by else ""
        return f"Cilium 1.19: eBPF programs at a device for each pod, {ways[self.mode]}{hidden}"

    def refuses(self, proxy: str) -> str:
        """Why it cannot work beside a proxy: masquerading by a program needs the programs that replace kube-proxy."""
        if self.bpf_masquerade and proxy != "ebpf":
            return f"bpf-masquerade needs Cilium in the place of kube-proxy (proxy ebpf), and the proxy is {proxy}"
        return ""

    def pod_mtu(self, machine: Machine) -> int:
        """The MTU of the pods' devices: the underlay's. What a tunnel needs is taken off on the routes."""
        return self.mtu or machine.mtu

    def route_mtu(self, plan: Plan, machine: Machine) -> int:
        """The MTU of routes to other pods."""
        return self.pod_mtu(machine) - self._overhead(_outer(plan))

    def node(self, plan: Plan, machine: Machine, workloads: Sequence[Workload]) -> Part:
        """The devices with their programs and maps, routes, rules and Cilium's own chains; nothing on a machine that
        has no pod CIDR.
        """
        own = {block.family: router(plan, machine, block.family) for block in machine.pod_cidrs}
        if not own:
            return Part()
        pair = _pair(machine, tuple(own.values()), self.pod_mtu(machine))
        links = (*pair, *self._tunnel(machine), *self._wireguard(machine))
        ends = tuple(self._end(machine, workload) for workload in workloads)
        return Part(
            links=(*links, *ends),
            routes=tuple(self._routes(plan, machine, own)),
            rules=tuple(_rules(own)),
            sysctls=forwarding(machine),
            patches=tuple(patch for of in own for patch in self._patches(plan, machine, of, own[of])),
            datapath=self._datapath(plan, machine, workloads, ends, own),
            wireguard=tuple(self._peers(plan, machine)),
            xfrm=self._xfrm(plan, machine) if self.encryption is Encryption.IPSEC else None,
        )

    def pod(self, plan: Plan, machine: Machine, workload: Workload) -> Part:
        """The pod's end of the cable, with an address that stands alone; the gateway, and everything behind it."""
        for address in workload.addresses:
            block_of(machine.pod_cidrs, address, workload.name)
        device = Link(
            POD_DEVICE,
            POD_INDEX,
            LinkKind.VETH,
            derived_mac(f"{workload.name} {POD_DEVICE}"),
            self.pod_mtu(machine),
            peer=Peer(machine.name, lxc_name(workload.name)),
            peer_index=_index(machine, workload),
            addresses=tuple(Address(address, Prefix.of(address).bits) for address in workload.addresses),
        )
        routes: list[Route] = []
        for of in map(family, workload.addresses):
            via = router(plan, machine, of)
            routes.append(Route("default", POD_DEVICE, via, mtu=self.route_mtu(plan, machine), family=of))
            routes.append(Route(str(Prefix.of(via)), POD_DEVICE, scope="link", family=of))
        return Part(links=(loopback(), device), routes=tuple(routes))

    def network(self, plan: Plan, machine: Machine) -> NetworkList:
        """What the runtime is told on that machine: one plugin, which knows where its agent is."""
        told = {"type": "cilium-cni", "enable-debug": False, "log-file": "/var/run/cilium/cilium-cni.log"}
        return NetworkList("0.3.1", "cilium", (Plugin(told, answer=Answer.ROUTED),))

    # Devices

    def _tunnel(self, machine: Machine) -> Iterator[Link]:
        """The tunnel device. It has no address, no identifier and no entries: a program says all that."""
        if self.mode in TUNNELS:
            device, kind, port = TUNNELS[self.mode]
            mac = derived_mac(f"{machine.name} {device}")
            end = Vxlan(0, "", "", port, external=True)
            yield Link(device, FIRST_INDEX + 2, kind, mac, self.pod_mtu(machine), vxlan=end)

    def _wireguard(self, machine: Machine) -> Iterator[Link]:
        """The WireGuard device. It has no address, and no route leads to it."""
        if self.encryption is Encryption.WIREGUARD:
            mtu = self.pod_mtu(machine) - WG_OVERHEAD
            yield Link(WG_DEVICE, FIRST_INDEX + 3, LinkKind.WIREGUARD, mtu=mtu, wireguard=_key_pair(machine))

    def _peers(self, plan: Plan, machine: Machine) -> Iterator[WireguardPeer]:
        """The other nodes: behind each is itself where there is a tunnel, else its pods."""
        for other in plan.machines if self.encryption is Encryption.WIREGUARD else ():
            outer = other.address(_outer(plan))
            if other.name == machine.name or outer is None or not other.pod_cidrs:
                continue
            pods = (address for pod in plan.workloads.get(other.name, ()) for address in pod.addresses)
            behind = (outer.ip,) if self.mode in TUNNELS else pods
            allowed = tuple(str(Prefix.of(address)) for address in behind)
            yield WireguardPeer(WG_DEVICE, _key_pair(other).public, allowed, outer.ip, WG_PORT)

    def _end(self, machine: Machine, workload: Workload) -> Link:
        """The node's end of a pod's cable."""
        device = lxc_name(workload.name)
        return Link(
            device,
            _index(machine, workload),
            LinkKind.VETH,
            derived_mac(f"{machine.name} {device}"),
            self.pod_mtu(machine),
            peer=Peer(workload.name, POD_DEVICE),
            peer_index=POD_INDEX,
        )

    # Routes

    def _routes(self, plan: Plan, machine: Machine, own: Mapping[int, str]) -> Iterator[Route]:
        """All pods are behind cilium_host; in native mode, those of other nodes are behind these nodes."""
        mtu = self.route_mtu(plan, machine) if self._overhead(4) else 0
        for of, via in own.items():
            mine = str(machine.pod_cidr(of))
            yield Route(mine, HOST_DEVICE, via, source=via, protocol="kernel", family=of)
            yield Route(str(Prefix.of(via)), HOST_DEVICE, scope="link", protocol="kernel", family=of)
            for remote in _others(plan, machine, of):
                pods, there = str(remote.pod_cidr(of)), remote.address(of)
                if self.mode in TUNNELS:
                    yield Route(pods, HOST_DEVICE, via, source=via, protocol="kernel", mtu=mtu, family=of)
                elif there is not None and machine.reaches(there.ip):
                    yield Route(pods, machine.device, there.ip, protocol="kernel", mtu=mtu, family=of)
            yield Route("default", "lo", type=RouteType.LOCAL, table=PROXY_TABLE, family=of)

    # Programs and maps

    def _datapath(
        self, plan: Plan, machine: Machine, workloads: Sequence[Workload], ends: Sequence[Link], own: Mapping[int, str]
    ) -> Datapath:
        endpoints = tuple(_endpoints(plan, machine, workloads, ends, own))
        containers = dict.fromkeys(each.number for each in endpoints if each.device)
        return Datapath(
            attached=tuple(self._programs(machine, ends)),
            endpoints=endpoints,
            known=tuple(self._cache(plan, machine)),
            permits=tuple(Permit(each, direction) for each in containers for direction in Direction),
            labels=plan.once("labels of identities", _labels),
            tunnel=TUNNELS[self.mode][0] if self.mode in TUNNELS else "",
            host=HOST_DEVICE,
            net=NET_DEVICE,
            encrypts=WG_DEVICE if self.encryption is Encryption.WIREGUARD else "",
            hides=tuple(address.ip for address in machine.addresses) if self.bpf_masquerade else (),
            inside=tuple(str(self._inside(plan, machine, of)) for of in own) if self.bpf_masquerade else (),
            key=SPI if self.encryption is Encryption.IPSEC else 0,
            nodes=dict(_numbered(plan, machine)) if self.encryption is Encryption.IPSEC else {},
        )

    def _inside(self, plan: Plan, machine: Machine, of: int) -> Prefix | None:
        """Where pods are seen by their own addresses; with a tunnel pods elsewhere are not reached by the card."""
        return machine.pod_cidr(of) if self.mode in TUNNELS else plan.pod_cidr(of)

    def _programs(self, machine: Machine, ends: Sequence[Link]) -> Iterator[Attachment]:
        if self.encryption is not Encryption.NONE or self.bpf_masquerade:
            yield Attachment(Program.TO_OUTSIDE, machine.device)
        if self.encryption is Encryption.IPSEC or self.bpf_masquerade:
            yield Attachment(Program.FROM_OUTSIDE, machine.device)
        yield Attachment(Program.TO_HOST, NET_DEVICE)
        yield Attachment(Program.TO_HOST, HOST_DEVICE)
        yield Attachment(Program.FROM_HOST, HOST_DEVICE)
        if self.mode in TUNNELS:
            yield Attachment(Program.FROM_OVERLAY, TUNNELS[self.mode][0])
            yield Attachment(Program.TO_OVERLAY, TUNNELS[self.mode][0])
        for link in ends:
            yield Attachment(Program.FROM_CONTAINER, link.name)

    def _cache(self, plan: Plan, machine: Machine) -> Iterator[Known]:
        """Who has which address, on every node the same but for itself: everybody else is the world."""
        for of in plan.families:
            yield Known("0.0.0.0/0" if of == 4 else "::/0", _world(plan, of))
        yield from self._known(plan, machine, tunnel="")
        for other in plan.machines:
            if other.name != machine.name:
                yield from plan.once((self, "known of", other.name), partial(self._seen, other=other))

    def _seen(self, plan: Plan, other: Machine) -> tuple[Known, ...]:
        """What every other node knows of a machine."""
        outer = other.address(_outer(plan))
        return tuple(self._known(plan, other, outer.ip if outer is not None else ""))

    def _known(self, plan: Plan, machine: Machine, tunnel: str) -> Iterator[Known]:
        """The pods of a machine, its pod network, its cilium_host and itself, as seen by others, or by itself.
        Others reach it through the tunnel.
        """
        numbers, itself = identities(plan), REMOTE_NODE if tunnel else HOST
        keys = {Encryption.NONE: 0, Encryption.WIREGUARD: WG_KEY, Encryption.IPSEC: SPI}
        key = keys[self.encryption] if tunnel else 0
        for pod in plan.workloads.get(machine.name, ()):
            for address in pod.addresses:
                yield Known(str(Prefix.of(address)), numbers[security_labels(pod)], tunnel, pod.name, key)
        for block in machine.pod_cidrs:
            if tunnel and self.mode in TUNNELS:
                yield Known(str(block), _world(plan, block.family), tunnel)
            yield Known(str(Prefix.of(router(plan, machine, block.family))), itself, tunnel, machine.name)
        for own in machine.addresses:
            yield Known(str(Prefix.of(own.ip)), itself, name=machine.name)

    # IPsec

    def _xfrm(self, plan: Plan, machine: Machine) -> Xfrm:
        """A state for each direction between this machine and each other, and the policies that lead to them."""
        states: list[XfrmState] = []
        policies: list[XfrmPolicy] = []
        for other in plan.machines:
            for ends in self._ends(plan, machine, other) if other.name != machine.name else ():
                states += ends.states(_node_number(machine, other))
                policies += ends.policies(_node_number(machine, other))
        families = dict.fromkeys(family(policy.outer_dst) for policy in policies)
        blocked = (
            XfrmPolicy(XfrmDirection.OUT, EVERYTHING[of], EVERYTHING[of], BLOCKED, MARK_OUT, MAGIC) for of in families
        )
        return Xfrm(tuple(states), (*dict.fromkeys(policies), *blocked))

    def _ends(self, plan: Plan, machine: Machine, other: Machine) -> Iterator[_Ends]:
        """What is wrapped between two machines, and the ends of the outer headers."""
        if self.mode in TUNNELS:
            own, there = machine.address(_outer(plan)), other.address(_outer(plan))
            if own is not None and there is not None and other.pod_cidrs:
                yield _Ends(own.ip, there.ip, str(Prefix.of(own.ip)), str(Prefix.of(there.ip)), OVERLAY)
            return
        for block in other.pod_cidrs:
            mine = machine.pod_cidr(block.family)
            if mine is not None:
                gateways = [router(plan, each, block.family) for each in (machine, other)]
                yield _Ends(gateways[0], gateways[1], str(mine), str(block), PODS)

    # Netfilter

    def _patches(self, plan: Plan, machine: Machine, of: int, own: str) -> Iterator[Patch]:
        block, inside = machine.pod_cidr(of), self._inside(plan, machine, of)
        if block is not None and inside is not None:
            yield _patch("raw", of, _RAW)
            yield _patch("filter", of, _FILTER)
            if self.masquerade and not self.bpf_masquerade:
                yield _patch("nat", of, {"POSTROUTING": ("CILIUM_POST_nat", tuple(_masqueraded(block, inside, own)))})


# Names and numbers


PODS, OVERLAY = 1, 2
"""The requests by which policies name states: of packets between pods, and of the tunnel's."""


class _Ends(NamedTuple):
    """The outer addresses of two machines, what has those inside, and the request that stands for it."""

    own: str
    there: str
    mine: str
    theirs: str
    request: int

    def states(self, node: int) -> Iterator[XfrmState]:
        """Outwards, and inwards."""
        out = node << 16 | SPI << 12 | MARK_OUT
        yield XfrmState(
            self.own, self.there, SPI, self.request, out, MARK_OUT_MASK, MARK_OUT, MAGIC, _secret(self.own, self.there)
        )
        back = node << 16 | MARK_IN
        yield XfrmState(
            self.there, self.own, SPI, self.request, back, MARK_IN_MASK, MARK_IN, MARK_IN_MASK,
            _secret(self.there, self.own),
        )  # fmt: skip

    def policies(self, node: int) -> Iterator[XfrmPolicy]:
        """Outwards, by the mark; inwards and through, where nothing is forbidden."""
        everything, nobody = EVERYTHING[family(self.own)], ANY[family(self.own)]
        sent = self.mine if self.request == OVERLAY else everything
        came = self.theirs if self.request == OVERLAY else everything
        out = node << 16 | SPI << 12 | MARK_OUT
        ends, back = (self.own, self.there), (self.there, self.own)
        yield XfrmPolicy(XfrmDirection.OUT, sent, self.theirs, 0, out, MARK_OUT_MASK, *ends, SPI, self.request)
        yield XfrmPolicy(XfrmDirection.IN, came, self.mine, 0, 0, 0, *back, 0, self.request, optional=True)
        through = (everything, everything, FORWARDED, 0, 0, nobody, self.own, 0, self.request)
        yield XfrmPolicy(XfrmDirection.FORWARD, *through, optional=True)


def _secret(source: str, destination: str) -> str:
    """The key and the salt for one direction, in hexadecimal."""
    return sha256(f"ipsec {source} {destination}".encode()).hexdigest()[:40]


def _node_number(machine: Machine, other: Machine) -> int:
    """The number that a machine has given to another, 16 bits."""
    return int.from_bytes(sha256(f"{machine.name} knows {other.name}".encode()).digest()[:2], "big") or 1


def _numbered(plan: Plan, machine: Machine) -> Iterator[tuple[str, int]]:
    """The numbers of the other machines, by all their addresses."""
    for other in plan.machines:
        if other.name != machine.name and other.pod_cidrs:
            own = (router(plan, other, block.family) for block in other.pod_cidrs)
            for address in (*(each.ip for each in other.addresses), *own):
                yield address, _node_number(machine, other)


def lxc_name(pod: str) -> str:
    """The node's end of the pod's cable: `lxc` and twelve hexadecimal digits of the container's hash."""
    container = sha256(pod.encode()).hexdigest()
    return f"lxc{sha256(container.encode()).hexdigest()[:12]}"


def router(plan: Plan, machine: Machine, of: int) -> str:
    """The address of a machine's cilium_host, which is its pods' gateway: as its annotation says, else one from the
    upper half of the first 256 of its pod CIDR that no pod has.
    """
    return plan.once(("cilium_host", machine.name, of), lambda whole: _router(whole, machine, of))


def _router(plan: Plan, machine: Machine, of: int) -> str:
    published = machine.annotations.get(ANNOTATION[of])
    if published:
        return Prefix.of(published, strict=True, field=f"metadata.annotations[{ANNOTATION[of]}]").network
    block = machine.pod_cidr(of)
    assert block is not None
    taken = {address for pod in plan.workloads.get(machine.name, ()) for address in pod.addresses}
    half = max(min(block.size, 256) // 2, 1)
    first = int.from_bytes(sha256(f"{machine.name} {HOST_DEVICE}".encode()).digest()[:8], "big")
    places = (half + (first + at) % max(half - 1, 1) for at in range(half))
    return next((ip for at in places if (ip := block.address(at)) not in taken), gateway(block))


def _outer(plan: Plan) -> int:
    """The family of the tunnel's outer headers: IPv4 where every machine has such an address."""
    return plan.once("outer family", lambda _: 4 if all(each.address(4) for each in plan.machines) else 6)


def _world(plan: Plan, of: int) -> int:
    """The identity of whoever is not known: with two families there is one for each."""
    return {4: 9, 6: 10}[of] if len(plan.families) > 1 else WORLD


def _labels(plan: Plan) -> Mapping[int, tuple[str, ...]]:
    """The labels of each identity."""
    return {number: labels for labels, number in identities(plan).items()}


def _others(plan: Plan, machine: Machine, of: int) -> Iterator[Machine]:
    return (each for each in plan.machines if each.name != machine.name and each.pod_cidr(of) is not None)


def _index(machine: Machine, workload: Workload) -> int:
    """The index of the pod's device: addresses are given in the order pods come, so they number the devices too."""
    block = block_of(machine.pod_cidrs, workload.addresses[0], workload.name)
    return (FIRST_INDEX + 2 + number(workload.addresses[0]) - block.base) % (1 << 31)


def _key_pair(machine: Machine) -> Wireguard:
    """The keys of a machine: its private key is derived from its name, as only the machine itself knows it."""
    private = private_key(f"{machine.name} {WG_DEVICE}")
    return Wireguard(public_key(private), WG_PORT, private)


def _numbers(workloads: Sequence[Workload]) -> Iterator[int]:
    """A number for each pod of a node."""
    taken: set[int] = set()
    for workload in workloads:
        found = int.from_bytes(sha256(workload.name.encode()).digest()[:8], "big") % ENDPOINTS + 1
        while found in taken:
            found = found % ENDPOINTS + 1
        taken.add(found)
        yield found


def _pair(machine: Machine, addresses: Sequence[str], mtu: int) -> tuple[Link, Link]:
    """cilium_net and cilium_host, the two ends of one cable on the same machine."""
    held = tuple(Address(address, Prefix.of(address).bits) for address in addresses)
    names = (NET_DEVICE, HOST_DEVICE)
    net, host = (
        Link(
            name,
            FIRST_INDEX + at,
            LinkKind.VETH,
            derived_mac(f"{machine.name} {name}"),
            mtu,
            peer=Peer(machine.name, names[1 - at]),
            addresses=held if name == HOST_DEVICE else (),
            peer_index=FIRST_INDEX + 1 - at,
            arp=False,
        )
        for at, name in enumerate(names)
    )
    return net, host


def _rules(own: Mapping[int, str]) -> Iterator[RoutingRule]:
    for of in own:
        yield RoutingRule(PROXY_RULE, PROXY_TABLE, mark=0x200, mask=0xF00, family=of)
        yield RoutingRule(LOCAL_RULE, "local", family=of)


def _endpoints(
    plan: Plan, machine: Machine, workloads: Sequence[Workload], ends: Sequence[Link], own: Mapping[int, str]
) -> Iterator[Endpoint]:
    """The machine's own addresses, and those of its pods."""
    for address in (*own.values(), *(each.ip for each in machine.addresses)):
        yield Endpoint(address)
    known = identities(plan)
    for workload, link, at in zip(workloads, ends, _numbers(workloads), strict=True):
        identity = known.get(security_labels(workload), WORLD)
        mac = derived_mac(f"{workload.name} {POD_DEVICE}")
        for address in workload.addresses:
            yield Endpoint(address, at, identity, link.name, link.index, mac, link.mac)


# Rules


Ruled = tuple[tuple[tuple[Match, ...], Target], ...]


def _said(*matches: Match, note: str, target: Target = ACCEPT) -> tuple[tuple[Match, ...], Target]:
    return (*matches, Comment(note)), target


_LXC, _HOST = OutInterface("lxc+"), OutInterface(HOST_DEVICE)
_RETURNED, _UPSTREAM = Mark(0xA00, 0xFFFFFEFF), Mark(0x800, 0xE00)
_RETURN_NOTE = "cilium: NOTRACK for proxy return traffic"
_UPSTREAM_NOTE = "cilium: NOTRACK for L7 proxy upstream traffic"

_RAW: Mapping[str, tuple[str, Ruled]] = {
    "PREROUTING": (
        "CILIUM_PRE_raw",
        (_said(Mark(0x200, 0xF00), note="cilium: NOTRACK for proxy traffic", target=NOTRACK),),
    ),
    "OUTPUT": (
        "CILIUM_OUTPUT_raw",
        (
            _said(_LXC, _RETURNED, note=_RETURN_NOTE, target=NOTRACK),
            _said(_HOST, _RETURNED, note=_RETURN_NOTE, target=NOTRACK),
            _said(_LXC, _UPSTREAM, note=_UPSTREAM_NOTE, target=NOTRACK),
            _said(_HOST, _UPSTREAM, note=_UPSTREAM_NOTE, target=NOTRACK),
        ),
    ),
}

_NEITHER = tuple(
    Mark(value, mask, invert=True)
    for value, mask in ((0xE00, 0xF00), (0xD00, 0xF00), (0x400, 0xF00), (0xA00, 0xE00), (0x800, 0xE00))
)
_FORWARDED = "forward accept"
_FILTER: Mapping[str, tuple[str, Ruled]] = {
    "INPUT": ("CILIUM_INPUT", (_said(Mark(0x200, 0xF00), note="cilium: ACCEPT for proxy traffic"),)),
    "FORWARD": (
        "CILIUM_FORWARD",
        (
            _said(_HOST, note=f"cilium: any->cluster on cilium_host {_FORWARDED}"),
            _said(InInterface(HOST_DEVICE), note=f"cilium: cluster->any on cilium_host {_FORWARDED} (nodeport)"),
            _said(InInterface("lxc+"), note=f"cilium: cluster->any on lxc+ {_FORWARDED}"),
            _said(InInterface(NET_DEVICE), note=f"cilium: cluster->any on cilium_net {_FORWARDED} (nodeport)"),
        ),
    ),
    "OUTPUT": (
        "CILIUM_OUTPUT",
        (
            _said(Mark(0xA00, 0xE00), note="cilium: ACCEPT for proxy traffic"),
            _said(_UPSTREAM, note="cilium: ACCEPT for l7 proxy upstream traffic"),
            _said(*_NEITHER, note="cilium: host->any mark as from host", target=SetMark(0xC00, 0xF00)),
        ),
    ),
}


def _patch(table: str, of: int, chains: Mapping[str, tuple[str, Ruled]]) -> Patch:
    """Chains of Cilium's own in one table, each fed from a base chain."""
    feeders = tuple(
        Rule(table, hook, (Comment(f"cilium-feeder: {name}"),), Jump(name)) for hook, (name, _) in chains.items()
    )
    held = {
        name: Chain(name, tuple(Rule(table, name, matches, target) for matches, target in rules))
        for name, rules in chains.values()
    }
    return Patch(table, of, first=feeders, chains=held)


def _masqueraded(block: Prefix, inside: Prefix, own: str) -> Iterator[tuple[tuple[Match, ...], Target]]:
    """Chain CILIUM_POST_nat; `inside` is where pods are seen by their own addresses."""
    elsewhere = OutInterface("cilium_+", invert=True)
    yield _said(
        Source(block),
        Destination(inside, invert=True),
        elsewhere,
        note="cilium masquerade non-cluster",
        target=Masquerade(),
    )
    yield _said(Mark(0xA00, 0xE00), note="exclude proxy return traffic from masquerade")
    yield _said(
        Source(inside, invert=True),
        Destination(block, invert=True),
        _HOST,
        note="cilium host->cluster masquerade",
        target=Snat(own),
    )
    if block.family == 4:
        loop = Source(Prefix.of("127.0.0.1/32"))
        yield _said(loop, _HOST, note="cilium host->cluster from 127.0.0.1 masquerade", target=Snat(own))
    hairpin = (_HOST, Mark(0xF00, 0xF00), CtState(("DNAT",)))
    yield _said(*hairpin, note="hairpin traffic that originated from a local pod", target=Snat(own))
