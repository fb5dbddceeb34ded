"""Which chains does Calico put before a pod?

Felix, the program that Calico runs on every node, writes chains whose names begin with `cali-` and puts a jump to them
at the top of the base chains. A forwarded packet meets them so:

    FORWARD ─► cali-FORWARD ─┬─► came by a cali device:    cali-from-wl-dispatch ─► cali-fw-DEVICE   (egress)
                             └─► leaves by a cali device:  cali-to-wl-dispatch   ─► cali-tw-DEVICE   (ingress)

A dispatch chain finds the chain of the device, by *goto*; of many devices, those whose names begin alike share a chain
between, so that no packet passes a list of all. The chain of a device lets known connections pass, drops what
conntrack calls invalid, and then asks policies, if there are any for the pod, or its profiles, if there are none: the
profile of the namespace (`kns.NAMESPACE`), which allows everything, and that of the service account, which says
nothing. What allows a packet sets a mark and returns, so that a packet between two pods of one node passes both
chains; a rule at the end of FORWARD accepts what has the mark. What is not allowed is dropped in silence.

A packet of the node itself to a pod of its own is not asked about (cali-OUTPUT returns). One from a pod to its own node
passes the pod's egress chain on its way through INPUT. Table raw drops what comes from a pod with a source that is not
the pod's, and takes VXLAN away from conntrack. Table nat masquerades what leaves the pools (`natOutgoing`): all that
comes from a pool and is for no pool, a node's own address included.

With nftables, the same rules stand in one table for each family, `calico` (`in_nftables`): chain X of table filter is
`filter-X`, the chains of devices are found by a verdict map, and no name is too long.

Not written out: the comment `cali:HASH` that stands in each rule, by which Felix knows its own. Not modelled: host
endpoints and floating addresses (their chains are there and empty), flow logs and the eBPF data plane; and what Felix
writes beside kube-proxy in ipvs mode, without which policies are not asked about what IPVS sends to pods of its node.
Unsure: the priorities of the base chains of nftables for NAT, which hold nothing at INPUT and OUTPUT. Guide section
3.1; Calico 3.30.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from functools import partial
from hashlib import sha1
from itertools import groupby, takewhile

import msgspec

from k8snetlab.address import Prefix
from k8snetlab.cni.plan import Enforcement, PolicyAttachment, PolicyMarks
from k8snetlab.linux.host import Part
from k8snetlab.linux.ipset import IpSet, SetType
from k8snetlab.linux.netfilter import (
    ACCEPT,
    DROP,
    L4,
    NOTRACK,
    RETURN,
    AddrType,
    Chain,
    Comment,
    CtState,
    Goto,
    ICMPv6Type,
    InInterface,
    Jump,
    Mark,
    Masquerade,
    Match,
    MatchSet,
    Multiport,
    OutInterface,
    Patch,
    Protocol4,
    ReversePath,
    Rule,
    SetMark,
    Target,
    shortened,
    tables,
)
from k8snetlab.linux.nftables.translation import translated

__all__ = ["Encapsulation", "Endpoint", "Side", "attachment", "in_nftables", "ipsets", "patches", "veth_name"]

ALLOWED, PASSED, DROPPED, SCRATCH0, SCRATCH1 = 0x10000, 0x20000, 0x40000, 0x80000, 0x100000
EVERY = ALLOWED | PASSED | SCRATCH0 | SCRATCH1
"""The bits of the mark that Felix uses and clears; a packet with the bit that is missing is dropped at once."""

IS_ALLOWED = Mark(ALLOWED, ALLOWED)
CLEAN = SetMark(0, EVERY)
ALLOW = SetMark(ALLOWED, ALLOWED)
PODS = "cali+"
VXLAN_PORT = 4789
VXLAN = (Protocol4("UDP"), Multiport(((VXLAN_PORT, VXLAN_PORT),)))


class Encapsulation(StrEnum):
    """What packets of a pool are wrapped in between nodes."""

    NONE = "none"
    IPIP = "ipip"
    VXLAN = "vxlan"


class Endpoint(msgspec.Struct, frozen=True):
    """A pod as Felix sees it: the node's end of its cable, its namespace and service account."""

    device: str
    namespace: str
    account: str

    @property
    def profiles(self) -> tuple[str, str]:
        """The profiles that hold where no policy does."""
        return f"kns.{self.namespace}", f"ksa.{self.namespace}.{self.account}"


class Side(msgspec.Struct, frozen=True):
    """One direction of packets at a pod: the prefixes of its chains, and how its device is matched."""

    dispatch: str
    endpoint: str
    profile: str
    device: Callable[[str], Match]


ATTACHMENT = PolicyAttachment(
    Enforcement.IPTABLES,
    "filter",
    "cali-tw-{device}",
    "cali-fw-{device}",
    ("cali-pri-", "cali-pro-"),
    PolicyMarks(ALLOWED, PASSED, DROPPED, SCRATCH0, SCRATCH1),
)
"""Policies stand in a device's chain where profiles are asked, and before these."""

LONGEST: Mapping[Enforcement, int] = {Enforcement.IPTABLES: 28, Enforcement.NFTABLES: 256 - len("filter-")}
"""How long a chain's name may be, less what is kept for other things."""

TO_POD = Side("cali-to-wl-dispatch", "cali-tw-", "cali-pri-", OutInterface)
FROM_POD = Side("cali-from-wl-dispatch", "cali-fw-", "cali-pro-", InInterface)


# Names


def veth_name(pod: str) -> str:
    """The node's end of a pod's cable: `cali` and eleven hexadecimal digits of a hash of `NAMESPACE.NAME`.

    >>> veth_name("default/web-0")
    'cali0d7763386da'
    """
    return f"cali{sha1(pod.replace('/', '.', 1).encode(), usedforsecurity=False).hexdigest()[:11]}"


def attachment(backend: Enforcement) -> PolicyAttachment:
    """Where policies stand in the chains of a data plane."""
    return msgspec.structs.replace(ATTACHMENT, backend=backend, longest=LONGEST[backend])


def set_name(of: int, name: str) -> str:
    """The name of a set: `cali40…` for IPv4, `cali60…` for IPv6."""
    return f"cali{of}0{name}"


def ipsets(
    of: int, encapsulation: Encapsulation, pool: Prefix, nodes: Sequence[str], others: Sequence[str], *, nat: bool
) -> Iterator[IpSet]:
    """The sets that the rules ask: pools, and the nodes that tunnels come from. `nodes` are the addresses of all nodes,
    `others` those of all but this one.
    """
    held: dict[str, Iterable[str]] = {
        "all-ipam-pools": (str(pool),),
        "masq-ipam-pools": (str(pool),) if nat else (),
    }
    if encapsulation is Encapsulation.IPIP:
        held["all-hosts-net"] = nodes
    if encapsulation is Encapsulation.VXLAN:
        held["all-vxlan-net"] = others
    for name, members in held.items():
        yield IpSet(set_name(of, name), SetType.NET, tuple(members), of, maxelem=1048576)


# Tables


def patches(
    of: int,
    encapsulation: Encapsulation,
    tunnel: str,
    pods: Sequence[Endpoint],
    *,
    nat: bool,
    backend: Enforcement = Enforcement.IPTABLES,
) -> list[Patch]:
    """What Felix writes into the tables of one family. `tunnel` is the device of the pool, or nothing. For nftables
    (which translates these rules) names may be long, and devices are found without chains between.
    """
    return [
        _patch(_raw(encapsulation), "raw", of, ("PREROUTING", "OUTPUT")),
        _patch(_mangle(), "mangle", of, ("PREROUTING", "POSTROUTING")),
        _patch(_nat(of, tunnel, nat=nat), "nat", of, ("PREROUTING", "OUTPUT", "POSTROUTING")),
        _filter(of, encapsulation, pods, backend),
    ]


Line = tuple[tuple[Match, ...], Target]
"""A rule without its place."""

Lines = Mapping[str, Sequence[Line]]
"""The rules of chains by name."""


def _chain(table: str, name: str, lines: Iterable[Line]) -> Chain:
    return Chain(name, tuple(Rule(table, name, matches, target) for matches, target in lines))


def _patch(chains: Lines, table: str, of: int, hooks: Iterable[str], last: Iterable[Rule] = ()) -> Patch:
    """The chains, and the jumps to them at the top of base chains. Chains that are jumped to and hold nothing exist."""
    targets = {line[1].chain for lines in chains.values() for line in lines if isinstance(line[1], Jump)}
    own = {name: _chain(table, name, chains.get(name, ())) for name in (*chains, *sorted(targets - chains.keys()))}
    first = tuple(Rule(table, hook, (), Jump(f"cali-{hook}")) for hook in hooks)
    return Patch(table, of, first, tuple(last), own)


FROM_HOST: Line = ((), Jump("cali-from-host-endpoint"))
TO_HOST: Line = ((), Jump("cali-to-host-endpoint"))
ACCEPT_ALLOWED: Line = ((IS_ALLOWED,), ACCEPT)
BY_HOST_POLICY = Comment("Host endpoint policy accepted packet.")


def _raw(encapsulation: Encapsulation) -> Lines:
    untracked: list[Line] = []
    if encapsulation is Encapsulation.VXLAN:
        untracked = [((Protocol4("UDP"), L4("udp", VXLAN_PORT)), NOTRACK)]
    by_pod = Mark(SCRATCH0, SCRATCH0)
    return {
        "cali-PREROUTING": [
            ((), CLEAN),
            *untracked,
            ((InInterface(PODS),), SetMark(SCRATCH0, SCRATCH0)),
            ((by_pod,), Jump("cali-rpf-skip")),
            ((by_pod, ReversePath(invert=True)), DROP),
            ((Mark(0, SCRATCH0),), Jump("cali-from-host-endpoint")),
            ACCEPT_ALLOWED,
        ],
        "cali-OUTPUT": [((), CLEAN), TO_HOST, *untracked, ACCEPT_ALLOWED],
    }


def _mangle() -> Lines:
    return {
        "cali-PREROUTING": [
            ((CtState(("RELATED", "ESTABLISHED")),), ACCEPT),
            ACCEPT_ALLOWED,
            FROM_HOST,
            ((BY_HOST_POLICY, IS_ALLOWED), ACCEPT),
        ],
        "cali-POSTROUTING": [
            ((IS_ALLOWED,), RETURN),
            ((), CLEAN),
            ((CtState(("DNAT",)),), Jump("cali-to-host-endpoint")),
            ((BY_HOST_POLICY, IS_ALLOWED), RETURN),
        ],
    }


def _nat(of: int, tunnel: str, *, nat: bool) -> Lines:
    hidden = Masquerade(random_fully=True)
    own_elsewhere = (OutInterface(tunnel), AddrType("src", invert=True, out_only=True), AddrType("src"))
    leaving = (
        MatchSet(set_name(of, "masq-ipam-pools"), ("src",)),
        MatchSet(set_name(of, "all-ipam-pools"), ("dst",), invert=True),
    )
    tunnelled: list[Line] = [(own_elsewhere, hidden)] if tunnel else []
    return {
        "cali-PREROUTING": [((), Jump("cali-fip-dnat"))],
        "cali-OUTPUT": [((), Jump("cali-fip-dnat"))],
        "cali-POSTROUTING": [((), Jump("cali-fip-snat")), ((), Jump("cali-nat-outgoing")), *tunnelled],
        "cali-nat-outgoing": [(leaving, hidden)] if nat else [],
    }


def _filter(of: int, encapsulation: Encapsulation, pods: Sequence[Endpoint], backend: Enforcement) -> Patch:
    longest = LONGEST[backend]
    chains: Lines = {
        "cali-INPUT": [
            *_tunnel_in(of, encapsulation),
            ((InInterface(PODS),), Goto("cali-wl-to-host")),
            ACCEPT_ALLOWED,
            ((), CLEAN),
            FROM_HOST,
            ((BY_HOST_POLICY, IS_ALLOWED), ACCEPT),
        ],
        "cali-FORWARD": [
            ((), SetMark(0, EVERY & ~ALLOWED)),
            ((Mark(0, ALLOWED),), Jump("cali-from-hep-forward")),
            ((InInterface(PODS),), Jump(FROM_POD.dispatch)),
            ((OutInterface(PODS),), Jump(TO_POD.dispatch)),
            ((), Jump("cali-to-hep-forward")),
            ((), Jump("cali-cidr-block")),
        ],
        "cali-OUTPUT": [
            ACCEPT_ALLOWED,
            ((OutInterface(PODS),), RETURN),
            *_tunnel_out(of, encapsulation),
            ((), CLEAN),
            ((CtState(("DNAT",), invert=True),), Jump("cali-to-host-endpoint")),
            ((BY_HOST_POLICY, IS_ALLOWED), ACCEPT),
        ],
        "cali-wl-to-host": [
            *((NEIGHBOURS[number], ACCEPT) for number in NEIGHBOURS if of == 6),
            ((), Jump(FROM_POD.dispatch)),
            ((Comment("Configured DefaultEndpointToHostAction"),), ACCEPT),
        ],
        **_dispatch(FROM_POD, pods, backend),
        **_dispatch(TO_POD, pods, backend),
        **_profiles(pods, longest),
    }
    end = (
        Rule("filter", "FORWARD", (Comment("Policy explicitly accepted packet."), IS_ALLOWED), ACCEPT),
        Rule("filter", "FORWARD", (), ALLOW),
    )
    static = _patch(chains, "filter", of, ("INPUT", "FORWARD", "OUTPUT"), end)
    own = {
        f"{side.endpoint}{pod.device}": partial(_endpoint, side, pod, longest)
        for pod in pods
        for side in (FROM_POD, TO_POD)
    }
    return msgspec.structs.replace(static, chains={**static.chains, **own})


NEIGHBOURS: Mapping[int, tuple[Match, ...]] = {
    number: (Protocol4("ICMPv6"), ICMPv6Type(number)) for number in (130, 131, 132, 133, 135, 136)
}
"""Messages that a pod must be able to send to its router, whatever its policies say: of multicast groups, router
solicitations, and those by which neighbours find each other."""


def _tunnel_in(of: int, encapsulation: Encapsulation) -> list[Line]:
    """Packets of a tunnel are taken from Calico's nodes only."""
    here = AddrType("dst")
    if encapsulation is Encapsulation.IPIP:
        known = MatchSet(set_name(of, "all-hosts-net"), ("src",))
        inside = Protocol4("IPIP")
        return [
            ((inside, Comment("Allow IPIP packets from Calico hosts"), known, here), ACCEPT),
            ((inside, Comment("Drop IPIP packets from non-Calico hosts")), DROP),
        ]
    if encapsulation is Encapsulation.VXLAN:
        known = MatchSet(set_name(of, "all-vxlan-net"), ("src",))
        udp, port = VXLAN
        return [
            ((udp, Comment(f"Allow IPv{of} VXLAN packets from allowed hosts"), port, known, here), ACCEPT),
            ((udp, Comment(f"Drop IPv{of} VXLAN packets from non-allowed hosts"), port, here), DROP),
        ]
    return []


def _tunnel_out(of: int, encapsulation: Encapsulation) -> list[Line]:
    own = AddrType("src")
    if encapsulation is Encapsulation.IPIP:
        known = MatchSet(set_name(of, "all-hosts-net"), ("dst",))
        return [((Protocol4("IPIP"), Comment("Allow IPIP packets to other Calico hosts"), known, own), ACCEPT)]
    if encapsulation is Encapsulation.VXLAN:
        known = MatchSet(set_name(of, "all-vxlan-net"), ("dst",))
        udp, port = VXLAN
        return [((udp, Comment(f"Allow IPv{of} VXLAN packets to other allowed hosts"), port, own, known), ACCEPT)]
    return []


# Pods


def _dispatch(side: Side, pods: Sequence[Endpoint], backend: Enforcement) -> dict[str, list[Line]]:
    """The chains that find the chain of a device. Where several names have the next letter after what all begin with
    in common, a chain of their own stands between; nftables needs none, since it looks devices up.
    """
    names = sorted(pod.device for pod in pods)
    if backend is Enforcement.NFTABLES:
        found: list[Line] = [((side.device(name),), Goto(f"{side.endpoint}{name}")) for name in names]
        return {side.dispatch: [*found, ((Comment("Unknown interface"),), DROP)]}
    common = _alike(names)
    unknown: Line = ((Comment("Unknown interface"),), DROP)
    chains: dict[str, list[Line]] = {side.dispatch: []}
    for start, group in groupby(names, key=lambda name: name[: common + 1]):
        alike = [((side.device(name),), Goto(f"{side.endpoint}{name}")) for name in group]
        if len(alike) == 1:
            chains[side.dispatch] += alike
        else:
            child = f"{side.dispatch}-{start[common:]}"
            chains[side.dispatch].append(((side.device(f"{start}+"),), Goto(child)))
            chains[child] = [*alike, unknown]
    chains[side.dispatch].append(unknown)
    return chains


def _alike(names: Sequence[str]) -> int:
    """How many letters the first and the last of sorted names, and so all, begin with in common."""
    pairs = zip(names[0], names[-1], strict=False) if names else ()
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _profiles(pods: Sequence[Endpoint], longest: int) -> dict[str, list[Line]]:
    """Namespaces allow everything, service accounts say nothing."""
    chains: dict[str, list[Line]] = {}
    for pod in pods:
        namespace, account = pod.profiles
        for side in (TO_POD, FROM_POD):
            chains[shortened(side.profile, namespace, longest)] = [((), ALLOW)]
            chains[shortened(side.profile, account, longest)] = []
    return chains


def _endpoint(side: Side, pod: Endpoint, longest: int) -> Chain:
    """The chain of one device and direction, of a pod that no policy selects."""
    lines: list[Line] = [
        ((CtState(("RELATED", "ESTABLISHED")),), ACCEPT),
        ((CtState(("INVALID",)),), DROP),
        ((), SetMark(0, ALLOWED | PASSED)),
    ]
    if side is FROM_POD:
        udp, port = VXLAN
        lines += [
            ((udp, Comment("Drop VXLAN encapped packets originating in workloads"), port), DROP),
            ((Protocol4("IPIP"), Comment("Drop IPinIP encapped packets originating in workloads")), DROP),
        ]
    for profile in pod.profiles:
        lines.append(((), Jump(shortened(side.profile, profile, longest))))
        lines.append(((Comment("Return if profile accepted"), IS_ALLOWED), RETURN))
    lines.append(((Comment("Drop if no profiles matched"),), DROP))
    return _chain("filter", f"{side.endpoint}{pod.device}", lines)


# nftables


def in_nftables(parts: Sequence[Part]) -> tuple[Part, ...]:
    """The same parts, with all rules and sets in a table of nftables for each family that has any."""
    sets = {each.name: each for part in parts for each in part.ipsets}
    patches = [patch for part in parts for patch in part.patches]
    held = ((of, tables(of, patches)) for of in (4, 6))
    own = tuple(translated("calico", of, found, sets) for of, found in held if found)
    bare = (msgspec.structs.replace(part, patches=(), ipsets=()) for part in parts)
    return (*bare, Part(nftables=own))
