"""How do all pods of a cluster share one Ethernet, without anybody in charge?

Weave Net 2.8.1 (archived in 2024: no more fixes) makes one switch of the whole cluster. Every node has a bridge,
`weave`, with the pods' cables; a router behind it carries frames to the bridges of the other nodes. Pods of different
nodes therefore find each other by ARP, the TTL does not go down between them, and a node has one route for all pods:
`10.32.0.0/12 dev weave`, however many nodes there are. Addresses come from a ring (`ring`) over that network, or over
the one that is asked for; `node.spec.podCIDR` means nothing, and nodes that do not say one get none. The ways between
nodes come from gossip (`gossip`).

How frames cross (`linux.mesh`):

    fastdp   a datapath of Open vSwitch: vethwe-datapath and the tunnel vxlan-6784 are its ports, the router writes its
             flows. UDP 6784, 50 bytes; the VXLAN identifier holds source and destination node, 12 bits each
    sleeve   without that kernel module: the router itself takes frames from vethwe-pcap and writes them into UDP 6783,
             62 bytes; slower, and it answers what is too long by itself

With `encryption=on`: ESP around fastdp (84 to 87 bytes), NaCl's secretbox in sleeve (86). The MTU of pods is 1376 in
all modes, 1460-20-8-8-14-34: it leaves room for all of that on an underlay of 1500, and is not adapted to any other.

`links_down` names nodes that cannot connect to each other (TCP 6783 is blocked between them): others relay their
frames, wrapped anew on each hop. Where no way is left, ARP goes unanswered.

How the model has it: the datapath is a device of kind `openvswitch`, whose flows are not stated: the one for a MAC
follows from where that MAC is, as the router would learn it. The ways that gossip gives stand in the tunnel device.

State of a node, beside that: sysctls for forwarding, chain WEAVE in table nat (pods are hidden behind the node
from everything that is no pod; NO_MASQ_LOCAL), and in filter the chains of weave-npc. WEAVE-NPC is where ingress
rules of NetworkPolicies attach, WEAVE-NPC-EGRESS egress rules: only frames that the bridge passes on to another node
are accepted unasked, since the node of the receiver asks. In a namespace without policies a set accepts every pod.
What a set's name is made of is hashed (`set_name`), as in the real one. What policies write into these chains and sets,
and which of them are not understood, is in `policies.npc`. State of a pod: eth0 with a /12, the
default route by its node's bridge.

The runtime finds the plugin `weave-net`, which asks the router of its node for an address, and `portmap` after it, in
`10-weave.conflist` (version 0.3.0: there is no CHECK). It answers with the address and the gateway, and says of no
interface.

IPv4 only. weaveDNS gives containers names (`weave.local`) where no Kubernetes is; in a cluster it is off.

Unsure: which node has which share and which short number; the MTU of vxlan-6784 (65470, older kernels 65485); numbers
of the devices in sleeve mode; what policies do with NFLOG group 86. Not modelled: the fall-back of single connections
from fastdp to sleeve, the marks and the chains WEAVE-IPSEC-… of encryption, comments in sets, namespaces without pods,
the ports for control and metrics (6781, 6782, 6784/tcp). Guide sections 2.1 and 3.1; weaveworks/weave 2.8.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from hashlib import sha1, sha256
from typing import ClassVar

import msgspec

from k8snetlab.address import Prefix, number, text
from k8snetlab.cni import gossip, ring
from k8snetlab.cni.bridge import HAIRPIN, MULTICAST, POD_DEVICE, mtu_of
from k8snetlab.cni.plan import (
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
from k8snetlab.errors import BadOption, Problem
from k8snetlab.linux.host import Part
from k8snetlab.linux.ipset import IpSet, SetType
from k8snetlab.linux.link import Address, Link, LinkKind, Mesh, MeshPeer, Peer, Wrapping, loopback
from k8snetlab.linux.mesh import overhead
from k8snetlab.linux.netfilter import (
    ACCEPT,
    DROP,
    L4,
    RETURN,
    AddrType,
    Chain,
    Comment,
    CtState,
    Destination,
    InInterface,
    Jump,
    Mark,
    Masquerade,
    Match,
    MatchSet,
    Nflog,
    OutInterface,
    Patch,
    PhysdevBridged,
    Protocol4,
    Rule,
    SetMark,
    Source,
    State,
    Target,
)
from k8snetlab.linux.route import Route, connected

__all__ = ["POOL", "Mode", "Weave", "set_name"]

POOL = Prefix.of("10.32.0.0/12")
"""The pod network, unless another is asked for (IPALLOC_RANGE)."""

MTU = 1376
BRIDGE, DATAPATH, TUNNEL = "weave", "datapath", "vxlan-6784"
INSIDE, OUTSIDE, CAPTURED = "vethwe-bridge", "vethwe-datapath", "vethwe-pcap"
PORTS = {"sleeve": 6783, "fastdp": 6784}
TUNNEL_MTU = 65470
MOST = 1 << 12
EGRESS_MARK = 0x40000
LOCAL_SET = "weaver-no-masq-local"


class Mode(StrEnum):
    """How frames get from node to node."""

    FASTDP = "fastdp"
    SLEEVE = "sleeve"


class Weave(msgspec.Struct, frozen=True):
    """One Ethernet segment over all nodes: a bridge on each, and a mesh of routers."""

    name: ClassVar[str] = "weave"
    policies: ClassVar[PolicyAttachment] = PolicyAttachment(
        Enforcement.IPTABLES, "filter", "WEAVE-NPC-INGRESS", "WEAVE-NPC-EGRESS-CUSTOM"
    )
    options: ClassVar[tuple[Option, ...]] = (
        Option(
            "mode", tuple(Mode), Mode.FASTDP, "how frames cross from node to node (Weave Net 2.8.1, archived)", way=True
        ),
        Option(
            "encryption", ("on", "off"), "off", "whether frames between nodes are encrypted (WEAVE_PASSWORD)", way=True
        ),
        Option("links_down", (), "", "nodes that cannot connect: node-1:node-2; several with commas"),
        HAIRPIN,
        Option("mtu", (), "", "the MTU of the pods' devices, if not 1376 (WEAVE_MTU)"),
    )
    pools: ClassVar[tuple[Prefix, ...]] = (POOL,)

    mode: Mode = Mode.FASTDP
    encrypted: bool = False
    down: tuple[tuple[str, str], ...] = ()
    hairpin: bool = True
    mtu: int = 0

    @classmethod
    def of(cls, options: Mapping[str, str]) -> Weave:
        """The variant with these options. Raises `BadOption`."""
        value = chosen(cls.name, cls.options, options)
        return cls(
            Mode(value["mode"]),
            value["encryption"] == "on",
            gossip.links(value["links_down"]),
            value["hairpin"] == "on",
            mtu_of(cls.name, value["mtu"]),
        )

    @property
    def wrapping(self) -> Wrapping:
        """What is put around a frame."""
        if self.mode is Mode.FASTDP:
            return Wrapping.ESP if self.encrypted else Wrapping.VXLAN
        return Wrapping.NACL if self.encrypted else Wrapping.SLEEVE

    @property
    def overhead(self) -> int:
        """Bytes that it adds to a packet between nodes; ESP's padding may be 3 more."""
        return overhead(self.wrapping)

    @property
    def summary(self) -> str:
        """What it does, in one sentence."""
        how = "of Open vSwitch (VXLAN)" if self.mode is Mode.FASTDP else "made by a program (sleeve)"
        hidden = ", encrypted" if self.encrypted else ""
        segment = f"a bridge on each node, and one Ethernet segment over all by tunnels {how}{hidden}"
        return f"Weave Net 2.8.1 (archived in 2024): {segment}"

    def pod_mtu(self, machine: Machine) -> int:
        """The MTU of the pods' devices: the same everywhere, whatever the underlay has."""
        return self.mtu or MTU

    def addresses(
        self, pool: Prefix, machines: Sequence[Machine], pods: Mapping[str, Sequence[str]], kept: Mapping[str, str]
    ) -> Mapping[str, str]:
        """The address of every pod, out of the ring; none of IPv6. Raises `PoolExhausted`."""
        return ring.addresses(pool, _names(machines), pods, kept) if pool.family == 4 else {}

    def node_addresses(self, plan: Plan) -> Mapping[str, str]:
        """The bridges' addresses, and the machines that have them. Raises `BadOption` for nodes that do not exist, or
        have no IPv4 address to send to.
        """
        gossip.mesh(_names(plan.machines), self.down)
        if len(plan.machines) >= MOST:
            message = f"a mesh numbers its machines with 12 bits: {len(plan.machines)} are too many for Weave Net"
            raise BadOption(Problem(message, object="CNI weave", field="nodes"))
        for machine in plan.machines:
            if machine.address(4) is None:
                message = "the node has no IPv4 address, and Weave Net 2.8.1 has no IPv6"
                raise BadOption(Problem(message, object=f"Node {machine.name}", field="status.addresses"))
        return {address: name for name, address in _bridges(plan).items()}

    def shares(self, plan: Plan) -> Mapping[str, Prefix]:
        """What each machine has of the ring."""
        return ring.shares(plan.pod_cidr(4), _names(plan.machines))

    def node(self, plan: Plan, machine: Machine, workloads: Sequence[Workload]) -> Part:
        """The bridge with its ports, the way to the other nodes, and the rules. A machine that is no node of the
        cluster takes no part.
        """
        own = _bridges(plan).get(machine.name)
        if own is None:
            return Part()
        pool = plan.pod_cidr(4)
        bridge = Link(
            BRIDGE, 5, LinkKind.BRIDGE, _peer_name(machine.name), self.pod_mtu(machine),
            addresses=(Address(own, pool.length),),
        )  # fmt: skip
        ports = (self._port(plan, machine, workload) for workload in workloads)
        return Part(
            links=tuple(sorted((bridge, *self._way_out(plan, machine), *ports), key=lambda link: link.index)),
            routes=(connected(pool, BRIDGE, own),),
            sysctls={"net.ipv4.ip_forward": 1, "net.bridge.bridge-nf-call-iptables": 1},
            patches=(_filter(_namespaces(plan, workloads)), _nat(pool)),
            ipsets=tuple(_sets(plan, machine, workloads)),
        )

    def pod(self, plan: Plan, machine: Machine, workload: Workload) -> Part:
        """The pod's end of its cable. Raises `BadOption` for an address that is not of the pod network."""
        pool = plan.pod_cidr(4)
        own = _own_address(plan, workload)
        device = Link(
            POD_DEVICE,
            _index(plan, machine, own),
            LinkKind.VETH,
            derived_mac(f"{workload.name} {POD_DEVICE}"),
            self.pod_mtu(machine),
            peer=Peer(machine.name, _port_name(workload.name)),
            peer_index=_index(plan, machine, own) + 1,
            addresses=(Address(own, pool.length),),
        )
        routes = (Route("default", POD_DEVICE, _bridges(plan)[machine.name]), connected(pool, POD_DEVICE, own))
        return Part(links=(loopback(), device), routes=routes)

    def network(self, plan: Plan, machine: Machine) -> NetworkList:
        """What the runtime is told on that machine; a chosen MTU is the router's business (WEAVE_MTU)."""
        told = {"type": "weave-net", "hairpinMode": self.hairpin}
        portmap = Plugin({"type": "portmap", "snat": True})
        return NetworkList("0.3.0", "weave", (Plugin(told, answer=Answer.ADDRESSES), portmap))

    # Devices

    def _port(self, plan: Plan, machine: Machine, workload: Workload) -> Link:
        name, inside = _port_name(workload.name), _index(plan, machine, _own_address(plan, workload))
        return Link(
            name,
            inside + 1,
            LinkKind.VETH,
            derived_mac(f"{machine.name} {name}"),
            self.pod_mtu(machine),
            master=BRIDGE,
            peer=Peer(workload.name, POD_DEVICE),
            peer_index=inside,
            hairpin=self.hairpin,
        )

    def _way_out(self, plan: Plan, machine: Machine) -> Iterator[Link]:
        """What stands between the bridge and the underlay."""
        mtu = self.pod_mtu(machine)
        mesh = self._mesh(plan, machine)

        def cable(name: str, index: int, other: str, master: str, mesh: Mesh | None = None) -> Link:
            mac, peer = derived_mac(f"{machine.name} {name}"), Peer(machine.name, other)
            return Link(name, index, LinkKind.VETH, mac, mtu, master=master, peer=peer, mesh=mesh)

        if self.mode is Mode.SLEEVE:
            yield cable(CAPTURED, 7, INSIDE, "", mesh)
            yield cable(INSIDE, 8, CAPTURED, BRIDGE)
            return
        yield Link(DATAPATH, 3, LinkKind.DATAPATH, derived_mac(f"{machine.name} {DATAPATH}"), mtu)
        yield cable(OUTSIDE, 7, INSIDE, DATAPATH)
        yield cable(INSIDE, 8, OUTSIDE, BRIDGE)
        mac = derived_mac(f"{machine.name} {TUNNEL}")
        yield Link(TUNNEL, 9, LinkKind.VXLAN, mac, TUNNEL_MTU, master=DATAPATH, mesh=mesh)

    def _mesh(self, plan: Plan, machine: Machine) -> Mesh:
        """What the router of a machine knows after all gossip."""
        machines = {each.name: each for each in plan.machines}
        numbers = {name: place for place, name in enumerate(machines, 1)}
        at = CAPTURED if self.mode is Mode.SLEEVE else TUNNEL
        ways = gossip.next_hops(gossip.mesh(machines, self.down), machine.name)
        peers = (
            MeshPeer(_peer_name(name), numbers[name], name, at, hop, _underlay(machines[hop]))
            for name, hop in ways.items()
        )
        own, port = numbers[machine.name], PORTS[self.mode]
        return Mesh(_peer_name(machine.name), own, _underlay(machine), port, self.wrapping, tuple(peers))


# Names and addresses


def _names(machines: Sequence[Machine]) -> tuple[str, ...]:
    return tuple(machine.name for machine in machines)


def _bridges(plan: Plan) -> Mapping[str, str]:
    """The address of each machine's bridge."""
    return plan.once("weave bridges", lambda of: ring.bridges(of.pod_cidr(4), _names(of.machines)))


def _peer_name(machine: str) -> str:
    """The name of a machine in the mesh, which is the MAC of its bridge."""
    return derived_mac(f"{machine} {BRIDGE}")


def _underlay(machine: Machine) -> str:
    own = machine.address(4)
    assert own is not None  # `node_addresses` has refused a plan with such a machine
    return own.ip


def _port_name(pod: str) -> str:
    """The node's end of a pod's cable: `vethwepl` and the first seven characters of the container's name."""
    return f"vethwepl{sha256(pod.encode()).hexdigest()[:7]}"


def _own_address(plan: Plan, workload: Workload) -> str:
    """The IPv4 address of a pod, which must be of the pod network."""
    pool, own = plan.pod_cidr(4), workload.address(4)
    if own and pool.contains(own):
        return own
    message = (
        f"{own or 'no IPv4 address'} is not in the pod network {pool}: the pod was attached by another CNI. Leave the "
        "pods' status.podIP and podIPs out to have addresses given anew"
    )
    raise BadOption(Problem(message, object=f"Pod {workload.name}", field="status.podIP"))


def _index(plan: Plan, machine: Machine, address: str) -> int:
    """The index of a pod's eth0, which it got on the node and keeps in the pod; its other end has the next. Addresses
    are given in the order pods come, so they number the cables too.
    """
    turn = (number(address) - number(_bridges(plan)[machine.name]) - 1) % plan.pod_cidr(4).size
    return 10 + 2 * turn % (1 << 30)


# Rules


SYMBOLS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789(){}[]+=_$%^!*|/?.;:@#~"
"""The digits that the names of sets are written in."""


def set_name(meaning: str) -> str:
    """The name of a set of weave-npc: `weave-` and the SHA-1 of what it means in base 85, the lowest digit first.

    >>> set_name("default:")
    'weave-k?Z;25^M}|1s7P3|H9i;*;MhG'
    """
    value, digits = int.from_bytes(sha1(meaning.encode(), usedforsecurity=False).digest(), "big"), ""
    while value:
        value, place = divmod(value, len(SYMBOLS))
        digits += SYMBOLS[place]
    return f"weave-{digits}"


def _pods(plan: Plan, workloads: Sequence[Workload]) -> Iterator[Workload]:
    """All pods of the cluster; where the plan does not name them, those of the machine."""
    if not plan.workloads:
        yield from workloads
    for there in plan.workloads.values():
        yield from there


def _namespaces(plan: Plan, workloads: Sequence[Workload]) -> tuple[str, ...]:
    return tuple(sorted({workload.name.partition("/")[0] for workload in _pods(plan, workloads)}))


def _sets(plan: Plan, machine: Machine, workloads: Sequence[Workload]) -> Iterator[IpSet]:
    """For each namespace all its pods, and those that no policy selects, for both directions; and what of the pod
    network is this node's.
    """
    if plan.workloads:
        yield from plan.once("weave sets", lambda of: _namespace_sets(_pods(of, ())))
    else:
        yield from _namespace_sets(workloads)
    share = ring.shares(plan.pod_cidr(4), _names(plan.machines))[machine.name]
    donated = (own for workload in workloads if (own := workload.address(4)) and not share.contains(own))
    yield IpSet(LOCAL_SET, SetType.NET, (str(share), *(text(number(own), 4) for own in donated)))


def _namespace_sets(workloads: Iterable[Workload]) -> tuple[IpSet, ...]:
    """The same on every node."""
    members: dict[str, list[str]] = {}
    for workload in workloads:
        if address := workload.address(4):
            members.setdefault(workload.name.partition("/")[0], []).append(address)
    return tuple(
        IpSet(set_name(meaning), SetType.IP, tuple(pods))
        for namespace, pods in sorted(members.items())
        for meaning in (f"{namespace}:", f"ingress-default-allow:{namespace}", f"egress-default-allow:{namespace}")
    )


_IN, _OUT = InInterface(BRIDGE), OutInterface(BRIDGE)
_NEW, _KNOWN = State(("NEW",)), State(("RELATED", "ESTABLISHED"))
_MULTICAST = Destination(MULTICAST[4])
_UNMARKED = Mark(EGRESS_MARK, EGRESS_MARK, invert=True)
_ORDER = Comment("NOTE: this must go before '-j KUBE-FORWARD'")
_ANSWERS = ("RELATED", "ESTABLISHED")
Case = tuple[tuple[Match, ...], Target]


def _filter(namespaces: Sequence[str]) -> Patch:
    """The chains of weave-npc, and the rule that keeps others from the router's control port."""
    control: tuple[Match, ...] = (
        Destination(Prefix.of("127.0.0.1/32")), Protocol4("TCP"), L4("tcp", dport=6784),
        AddrType("src", invert=True), CtState(_ANSWERS, invert=True),
        Comment("Block non-local access to Weave Net control port"),
    )  # fmt: skip
    first = (
        *_rules("filter", "INPUT", (control, DROP), ((_IN,), Jump("WEAVE-NPC-EGRESS"))),
        *_rules(
            "filter", "FORWARD",
            ((_IN, _ORDER), Jump("WEAVE-NPC-EGRESS")),
            ((_OUT, _ORDER), Jump("WEAVE-NPC")),
            ((_OUT, _NEW), Nflog(86)),
            ((_OUT,), DROP),
            ((_IN, OutInterface(BRIDGE, invert=True)), ACCEPT),
            ((_OUT, CtState(_ANSWERS)), ACCEPT),
        ),
    )  # fmt: skip
    chains = (
        _chain(
            "filter", "WEAVE-NPC",
            ((_KNOWN,), ACCEPT),
            ((_MULTICAST,), ACCEPT),
            ((PhysdevBridged("out", INSIDE),), ACCEPT),
            ((_NEW,), Jump("WEAVE-NPC-DEFAULT")),
            ((_NEW,), Jump("WEAVE-NPC-INGRESS")),
        ),
        _chain("filter", "WEAVE-NPC-DEFAULT", *(_allowed("ingress", "dst", each, ACCEPT) for each in namespaces)),
        _chain("filter", "WEAVE-NPC-INGRESS"),
        _chain(
            "filter", "WEAVE-NPC-EGRESS",
            ((_KNOWN,), ACCEPT),
            ((PhysdevBridged("in", INSIDE),), RETURN),
            ((AddrType("dst"),), RETURN),
            ((_MULTICAST,), RETURN),
            ((_NEW,), Jump("WEAVE-NPC-EGRESS-DEFAULT")),
            ((_NEW, _UNMARKED), Jump("WEAVE-NPC-EGRESS-CUSTOM")),
        ),
        _chain(
            "filter", "WEAVE-NPC-EGRESS-DEFAULT",
            *(
                _allowed("egress", "src", each, target)
                for each in namespaces
                for target in (Jump("WEAVE-NPC-EGRESS-ACCEPT"), RETURN)
            ),
        ),
        _chain("filter", "WEAVE-NPC-EGRESS-CUSTOM"),
        _chain("filter", "WEAVE-NPC-EGRESS-ACCEPT", ((), SetMark(EGRESS_MARK, EGRESS_MARK))),
    )  # fmt: skip
    return Patch("filter", first=first, chains={chain.name: chain for chain in chains})


def _allowed(way: str, direction: str, namespace: str, target: Target) -> Case:
    """A rule for the pods of a namespace that no policy selects."""
    held = MatchSet(set_name(f"{way}-default-allow:{namespace}"), (direction,))
    return (held, Comment(f"DefaultAllow {way} isolation for namespace: {namespace}")), target


def _nat(pool: Prefix) -> Patch:
    pods, no_pods = (Source(pool), Destination(pool)), (Source(pool, invert=True), Destination(pool, invert=True))
    here = MatchSet(LOCAL_SET, ("dst",))
    chain = _chain(
        "nat", "WEAVE",
        ((here, Comment("Prevent SNAT to locally running containers")), RETURN),
        ((pods[0], _MULTICAST), RETURN),
        ((no_pods[0], pods[1]), Masquerade()),
        ((pods[0], no_pods[1]), Masquerade()),
    )  # fmt: skip
    jump = Rule("nat", "POSTROUTING", (), Jump(chain.name))
    return Patch("nat", last=(jump,), chains={chain.name: chain})


def _chain(table: str, name: str, *cases: Case) -> Chain:
    return Chain(name, _rules(table, name, *cases))


def _rules(table: str, chain: str, *cases: Case) -> tuple[Rule, ...]:
    return tuple(Rule(table, chain, matches, target) for matches, target in cases)
