"""Who balances the load where rules do not: IPVS, and what kube-proxy must arrange around it.

In ipvs mode kube-proxy writes one *virtual server* for every address and port of a Service, with its endpoints as real
servers, and the kernel's scheduler chooses (`linux.ipvs`). The cost of a packet no longer grows with the number of
Services. But IPVS sees only packets for the machine itself, and knows neither policies nor masquerading, and so around
it stand:

- the device *kube-ipvs0*, a dummy that is down, with every Service address on it (cluster, external and load balancer
  addresses; not those that the node has anyway): they become local, and IPVS sees their packets;
- *ipsets* with these addresses and ports, and a constant number of iptables rules that ask them:

        nat    PREROUTING, OUTPUT → KUBE-SERVICES ┬ from 127.0.0.0/8: nothing to do
                                                  ├ KUBE-LOAD-BALANCER → chain of that name: mark, unless policy Local
                                                  ├ KUBE-CLUSTER-IP, not from a pod: mark
                                                  ├ KUBE-EXTERNAL-IP: mark; KUBE-EXTERNAL-IP-LOCAL: leave alone
                                                  └ any own address → KUBE-NODE-PORT: mark, unless policy Local
               POSTROUTING → KUBE-POSTROUTING: masquerade KUBE-LOOP-BACK (a pod that reaches itself) and what is marked
        filter INPUT → KUBE-IPVS-FILTER: no other port of a Service address leads to the node itself: REJECT
               INPUT, FORWARD → KUBE-PROXY-FIREWALL → KUBE-SOURCE-RANGES-FIREWALL: source ranges of load balancers
               INPUT → KUBE-NODE-PORT: ports for health checks; OUTPUT → KUBE-IPVS-OUT-FILTER: the node's own requests
               FORWARD → KUBE-FORWARD

What differs from iptables mode, and a packet can tell: another port of a Service address, and a ping, are refused. A
Service without endpoints is refused by IPVS itself. Node ports answer on every address of the node but 127.0.0.1. Under
policy Local pods and the node get no short way to all endpoints; instead, where the node has no local endpoint *all*
endpoints of the cluster stand behind the address (if the Service is reached from outside at all), unmasqueraded, so
that a client from outside waits for an answer that comes from the wrong address. A client with session affinity keeps
its endpoint at one address of the Service, not at all of them. The node's own packets to a Service address have that
address as their source until they are masqueraded; where they are not (load balancer, policy Local), only endpoints on
the node answer them.

kube-ipvs0 makes every node an owner of the load balancers' addresses, and every node answers ARP requests for them:
what announces such an address by ARP needs the option `strict-arp` (of the two settings it makes, `arp_ignore` is
modelled, `arp_announce` is not). The other option is the scheduler.

**The mode is deprecated since Kubernetes 1.35** and shall be removed; nftables mode is to be used instead. The layout
is that of 1.33, of which no later change is known. No recorded rules of a real kube-proxy in this mode stand behind
this module, and no kernel at hand has IPVS: it rests on documentation and on reading what kube-proxy does.

Not modelled: graceful termination (the weight of an endpoint that goes is 0 until its connections end),
`--masquerade-all`, `--nodeport-addresses`, `--ipvs-exclude-cidrs`, other detectors of pod traffic than the cluster
CIDR, and the order of real servers, which kube-proxy adds in no order; here they stand sorted as text. Guide section
2.2; KEP-5495 (deprecation).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from hashlib import sha256

import msgspec

from k8snetlab.address import Prefix, family
from k8snetlab.api import TrafficPolicy
from k8snetlab.linux.host import Part
from k8snetlab.linux.ipset import IpSet, SetType
from k8snetlab.linux.ipvs import RealServer, Scheduler, VirtualServer
from k8snetlab.linux.link import Address, Link, LinkKind
from k8snetlab.linux.netfilter import (
    ACCEPT,
    DROP,
    RETURN,
    AddrType,
    Chain,
    Comment,
    CtState,
    Jump,
    Mark,
    Masquerade,
    Match,
    MatchSet,
    Patch,
    Physdev,
    Protocol4,
    Reject,
    Rule,
    Scheduled,
    SetMark,
    Source,
    Target,
)
from k8snetlab.services.endpoints import Backend, Chosen, chosen
from k8snetlab.services.exposure import Exposure

__all__ = ["DEVICE", "Node", "part", "service_addresses"]

DEVICE = "kube-ipvs0"
"""The device that makes Service addresses local."""

MASQUERADE = 0x4000
"""The mark of a packet that shall leave with the node's own address: bit 14."""

REJECTION = {4: "icmp-port-unreachable", 6: "icmp6-port-unreachable"}
LOOPBACK = {4: Prefix.of("127.0.0.0/8"), 6: Prefix.of("::1/128")}


class Node(msgspec.Struct, frozen=True):
    """What the proxy knows of its node: name, zone (or nothing), every address but the loopback's, which of them is
    the node's own in each family, the pod network of each family, and the index and scheduler to use.
    """

    name: str
    zone: str = ""
    addresses: tuple[str, ...] = ()
    own: Mapping[int, str] = {}
    pods: Mapping[int, Prefix] = {}
    index: int = 3
    scheduler: Scheduler = Scheduler.RR

    def of(self, family_: int) -> tuple[str, ...]:
        """The addresses of one family."""
        return tuple(address for address in self.addresses if family(address) == family_)


def part(served: Mapping[int, Sequence[Exposure]], node: Node, *, strict_arp: bool = False) -> Part:
    """What kube-proxy leaves on a node: virtual servers, ipsets, rules, kube-ipvs0, and kernel settings.

    `served` are the Service ports of each family; `strict_arp` keeps the node from answering ARP requests for the
    addresses on kube-ipvs0.
    """
    ports = {of: tuple(_Served.on(exposure, node) for exposure in held) for of, held in sorted(served.items())}
    sets = {of: _sets(held, of, node) for of, held in ports.items()}
    arp = {"net.ipv4.conf.all.arp_ignore": 1} if strict_arp else {}
    return Part(
        links=(_device(served, node),),
        patches=tuple(patch for of, held in ports.items() for patch in _patches(held, of, sets[of], node)),
        sysctls={**SYSCTLS, **arp},
        ipsets=tuple(held for of in sets for held in sets[of].values()),
        ipvs=tuple(virtual for held in ports.values() for port in held for virtual in _virtual_servers(port, node)),
    )


SYSCTLS: Mapping[str, int] = {
    "net.ipv4.vs.conntrack": 1,
    "net.ipv4.vs.expire_nodest_conn": 1,
    "net.ipv4.vs.expire_quiescent_template": 1,
}
"""Settings of IPVS: the first lets rules masquerade what it sends on, the others end connections to endpoints that
are gone."""


class _Served(msgspec.Struct, frozen=True):
    """One Service port as this node serves it: the exposure and the node's choice of backends."""

    exposure: Exposure
    chosen: Chosen

    @classmethod
    def on(cls, exposure: Exposure, node: Node) -> _Served:
        return cls(exposure, chosen(exposure.backends, exposure.policies, node.name, node.zone))

    def behind(self, policy: TrafficPolicy) -> tuple[Backend, ...]:
        """Who stands behind an address under a policy: for `Local` the node's own endpoints, but all where it has
        none.
        """
        return self.chosen.local or self.chosen.cluster if policy is TrafficPolicy.LOCAL else self.chosen.cluster

    @property
    def is_local(self) -> bool:
        """Whether traffic from outside stays on the node it comes to."""
        return self.exposure.external is TrafficPolicy.LOCAL

    def entry(self, address: str) -> str:
        """An address and the Service port as an entry of a set."""
        return f"{address},{self.exposure.protocol.lower()}:{self.exposure.port}"


def service_addresses(served: Mapping[int, Sequence[Exposure]]) -> tuple[str, ...]:
    """Every cluster, external and load balancer address, each once, by family and number."""
    return tuple(
        address
        for _, held in sorted(served.items())
        for address in dict.fromkeys(
            address for each in held for address in (each.cluster_ip, *each.external_ips, *each.load_balancer_ips)
        )
    )


# The device


def _device(served: Mapping[int, Sequence[Exposure]], node: Node) -> Link:
    digest = sha256(f"{node.name} {DEVICE}".encode()).digest()
    mac = ":".join(f"{byte:02x}" for byte in (digest[0] & 0xFC | 0x02, *digest[1:6]))
    addresses = tuple(
        Address(address, 32 if family(address) == 4 else 128) for address in _bound(service_addresses(served), node)
    )
    return Link(DEVICE, node.index, LinkKind.DUMMY, mac, up=False, addresses=addresses)


def _bound(addresses: Iterable[str], node: Node) -> Iterator[str]:
    """Those that the node does not have on another device."""
    own = set(node.addresses)
    return (address for address in addresses if address not in own)


# Virtual servers


def _virtual_servers(port: _Served, node: Node) -> Iterator[VirtualServer]:
    exposure = port.exposure
    virtual = partial(_virtual_server, exposure, node.scheduler)
    inside, outside = _real(port.behind(exposure.internal)), _real(port.behind(exposure.external))
    yield virtual(exposure.cluster_ip, exposure.port, inside)
    for address in (*exposure.external_ips, *exposure.load_balancer_ips):
        yield virtual(address, exposure.port, outside)
    if exposure.node_port:
        for address in node.of(family(exposure.cluster_ip)):
            yield virtual(address, exposure.node_port, outside)


def _virtual_server(
    exposure: Exposure, scheduler: Scheduler, address: str, port: int, servers: tuple[RealServer, ...]
) -> VirtualServer:
    return VirtualServer(exposure.protocol, address, port, scheduler, servers, exposure.affinity)


def _real(backends: Iterable[Backend]) -> tuple[RealServer, ...]:
    return tuple(RealServer(backend.ip, backend.port) for backend in backends)


# Sets

TYPES: Mapping[str, tuple[SetType, str]] = {
    "LOOP-BACK": (SetType.IP_PORT_IP, "Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose"),
    "CLUSTER-IP": (SetType.IP_PORT, "Kubernetes service cluster ip + port for masquerade purpose"),
    "EXTERNAL-IP": (SetType.IP_PORT, "Kubernetes service external ip + port for masquerade and filter purpose"),
    "EXTERNAL-IP-LOCAL": (
        SetType.IP_PORT, "Kubernetes service external ip + port with externalTrafficPolicy=local",
    ),
    "LOAD-BALANCER": (SetType.IP_PORT, "Kubernetes service lb portal"),
    "LOAD-BALANCER-FW": (
        SetType.IP_PORT, "Kubernetes service load balancer ip + port for load balancer with sourceRange",
    ),
    "LOAD-BALANCER-LOCAL": (
        SetType.IP_PORT, "Kubernetes service load balancer ip + port with externalTrafficPolicy=local",
    ),
    "LOAD-BALANCER-SOURCE-IP": (
        SetType.IP_PORT_IP, "Kubernetes service load balancer ip + port + source IP for packet filter purpose",
    ),
    "LOAD-BALANCER-SOURCE-CIDR": (
        SetType.IP_PORT_NET, "Kubernetes service load balancer ip + port + source cidr for packet filter purpose",
    ),
    "NODE-PORT-TCP": (SetType.PORT, "Kubernetes nodeport TCP port for masquerade purpose"),
    "NODE-PORT-LOCAL-TCP": (SetType.PORT, "Kubernetes nodeport TCP port with externalTrafficPolicy=local"),
    "NODE-PORT-UDP": (SetType.PORT, "Kubernetes nodeport UDP port for masquerade purpose"),
    "NODE-PORT-LOCAL-UDP": (SetType.PORT, "Kubernetes nodeport UDP port with externalTrafficPolicy=local"),
    "NODE-PORT-SCTP-HASH": (
        SetType.IP_PORT, "Kubernetes nodeport SCTP port for masquerade purpose with type 'hash ip:port'",
    ),
    "NODE-PORT-LOCAL-SCTP-HASH": (
        SetType.IP_PORT, "Kubernetes nodeport SCTP port with externalTrafficPolicy=local with type 'hash ip:port'",
    ),
    "HEALTH-CHECK-NODE-PORT": (SetType.PORT, "Kubernetes health check node port"),
    "IPVS-IPS": (SetType.IP, "Kubernetes service IPs"),
}  # fmt: skip
"""The sets by name without `KUBE-`, and what rules say of each."""

LONGEST = 31
"""So many characters has the name of a set at most; longer ones are cut."""

Sets = Mapping[str, IpSet]


def set_name(short: str, of: int) -> str:
    """The name of a set in a family: `KUBE-CLUSTER-IP`, `KUBE-6-CLUSTER-IP`."""
    return f"KUBE-{'6-' if of == 6 else ''}{short}"[:LONGEST]


def _sets(ports: Sequence[_Served], of: int, node: Node) -> Sets:
    """The sets of one family by short name, empty ones too."""
    entries: dict[str, dict[str, None]] = {short: {} for short in TYPES}
    for port in ports:
        for short, entry in _entries(port, node, of):
            entries[short][entry] = None
    entries["IPVS-IPS"] = dict.fromkeys(_bound(service_addresses({of: [port.exposure for port in ports]}), node))
    return {short: IpSet(set_name(short, of), type_, tuple(entries[short]), of) for short, (type_, _) in TYPES.items()}


def _entries(port: _Served, node: Node, of: int) -> Iterator[tuple[str, str]]:
    exposure = port.exposure
    protocol = exposure.protocol.lower()
    for backend in exposure.backends:
        if backend.node == node.name:
            yield "LOOP-BACK", f"{backend.ip},{protocol}:{backend.port},{backend.ip}"
    yield "CLUSTER-IP", port.entry(exposure.cluster_ip)
    for address in exposure.external_ips:
        yield "EXTERNAL-IP-LOCAL" if port.is_local else "EXTERNAL-IP", port.entry(address)
    for address in exposure.load_balancer_ips:
        yield "LOAD-BALANCER", port.entry(address)
        if port.is_local:
            yield "LOAD-BALANCER-LOCAL", port.entry(address)
        yield from _ranges(port, address, node, of)
    if exposure.node_port:
        yield from _node_port(port, node, of)
    if exposure.health_check_port:
        yield "HEALTH-CHECK-NODE-PORT", str(exposure.health_check_port)


def _ranges(port: _Served, address: str, node: Node, of: int) -> Iterator[tuple[str, str]]:
    """Who may use a load balancer's address. The node's own packets have the address itself as their source."""
    ranges = port.exposure.source_ranges
    if ranges:
        yield "LOAD-BALANCER-FW", port.entry(address)
    for block in ranges:
        yield "LOAD-BALANCER-SOURCE-CIDR", f"{port.entry(address)},{block}"
    if _admits(ranges, node, of):
        yield "LOAD-BALANCER-SOURCE-IP", f"{port.entry(address)},{address}"


def _admits(ranges: Iterable[Prefix], node: Node, of: int) -> bool:
    """Whether the node itself is in one of the ranges."""
    own = node.own.get(of, "")
    return bool(own) and any(block.contains(own) for block in ranges)


def _node_port(port: _Served, node: Node, of: int) -> Iterator[tuple[str, str]]:
    """A set of ports knows no SCTP: there address and port stand together."""
    exposure = port.exposure
    sctp = exposure.protocol == "SCTP"
    kind = "SCTP-HASH" if sctp else exposure.protocol
    entries = [f"{address},sctp:{exposure.node_port}" for address in node.of(of)] if sctp else [str(exposure.node_port)]
    for entry in entries:
        yield f"NODE-PORT-{kind}", entry
        if port.is_local:
            yield f"NODE-PORT-LOCAL-{kind}", entry


# Rules


def _patches(ports: Sequence[_Served], of: int, sets: Sets, node: Node) -> tuple[Patch, ...]:
    rules = (*_nat(of, sets, node.pods.get(of)), *_filter(ports, of, sets, node))
    return (
        Patch("filter", of, first=FILTER_JUMPS, chains=_chains("filter", FILTER_CHAINS, rules)),
        Patch("nat", of, first=NAT_JUMPS, chains=_chains("nat", NAT_CHAINS, rules)),
    )


def _chains(table: str, names: Iterable[str], rules: Sequence[Rule]) -> dict[str, Chain]:
    return {
        name: Chain(name, tuple(rule for rule in rules if (rule.table, rule.chain) == (table, name))) for name in names
    }


NAT_CHAINS = ("KUBE-SERVICES", "KUBE-POSTROUTING", "KUBE-NODE-PORT", "KUBE-LOAD-BALANCER", "KUBE-MARK-MASQ")
FILTER_CHAINS = (
    "KUBE-FORWARD", "KUBE-NODE-PORT", "KUBE-PROXY-FIREWALL", "KUBE-SOURCE-RANGES-FIREWALL", "KUBE-IPVS-FILTER",
    "KUBE-IPVS-OUT-FILTER",
)  # fmt: skip


def _jump(table: str, hook: str, chain: str, comment: str) -> Rule:
    return Rule(table, hook, (Comment(comment),), Jump(chain))


NAT_JUMPS = (
    _jump("nat", "PREROUTING", "KUBE-SERVICES", "kubernetes service portals"),
    _jump("nat", "OUTPUT", "KUBE-SERVICES", "kubernetes service portals"),
    _jump("nat", "POSTROUTING", "KUBE-POSTROUTING", "kubernetes postrouting rules"),
)

FILTER_JUMPS = (
    _jump("filter", "INPUT", "KUBE-IPVS-FILTER", "kubernetes ipvs access filter"),
    _jump("filter", "INPUT", "KUBE-PROXY-FIREWALL", "kube-proxy firewall rules"),
    _jump("filter", "INPUT", "KUBE-NODE-PORT", "kubernetes health check rules"),
    _jump("filter", "FORWARD", "KUBE-PROXY-FIREWALL", "kube-proxy firewall rules"),
    _jump("filter", "FORWARD", "KUBE-FORWARD", "kubernetes forwarding rules"),
    _jump("filter", "OUTPUT", "KUBE-IPVS-OUT-FILTER", "kubernetes ipvs access filter"),
)

TO_MARK_MASQ = Jump("KUBE-MARK-MASQ")
DST, DST_DST, DST_DST_SRC = ("dst",), ("dst", "dst"), ("dst", "dst", "src")


def _asks(sets: Sets, short: str, directions: tuple[str, ...]) -> tuple[Match, ...]:
    """A comment that says what the set is for, and the question whether the packet is in it."""
    return Comment(TYPES[short][1]), MatchSet(sets[short].name, directions)


def _nat(of: int, sets: Sets, pods: Prefix | None) -> Iterator[Rule]:
    """Table nat: what is to be masqueraded. IPVS does the rest, after it. Rules about empty sets are left out."""
    services = partial(Rule, "nat", "KUBE-SERVICES")
    yield services((Source(LOOPBACK[of]),), RETURN)
    if sets["LOAD-BALANCER"].entries:
        yield services(_asks(sets, "LOAD-BALANCER", DST_DST), Jump("KUBE-LOAD-BALANCER"))
    if sets["CLUSTER-IP"].entries:
        if pods is not None:
            foreign = (Source(pods, invert=True), *_asks(sets, "CLUSTER-IP", DST_DST))
            yield services(foreign, TO_MARK_MASQ)
        else:  # only what the node itself sends is known to be foreign: it comes from a Service address
            yield services(_asks(sets, "CLUSTER-IP", ("src", "dst")), TO_MARK_MASQ)
    for short in ("EXTERNAL-IP", "EXTERNAL-IP-LOCAL"):
        if sets[short].entries:
            asked = _asks(sets, short, DST_DST)
            if short == "EXTERNAL-IP":
                yield services(asked, TO_MARK_MASQ)
            yield services((*asked, Physdev(invert=True), AddrType("src", invert=True)), ACCEPT)
            yield services((*asked, AddrType("dst")), ACCEPT)
    yield services((AddrType("dst"),), Jump("KUBE-NODE-PORT"))
    for short in ("CLUSTER-IP", "LOAD-BALANCER"):
        if sets[short].entries:
            yield services((MatchSet(sets[short].name, DST_DST),), ACCEPT)
    yield from _postrouting(sets)
    yield from _node_ports(sets)
    if sets["LOAD-BALANCER-LOCAL"].entries:
        yield Rule("nat", "KUBE-LOAD-BALANCER", _asks(sets, "LOAD-BALANCER-LOCAL", DST_DST), RETURN)
    yield Rule("nat", "KUBE-LOAD-BALANCER", (), TO_MARK_MASQ)
    yield Rule("nat", "KUBE-MARK-MASQ", (), SetMark(MASQUERADE, MASQUERADE))


def _postrouting(sets: Sets) -> Iterator[Rule]:
    """A pod that reaches itself must not see its own address; and everything marked. The mark goes, because a packet
    wrapped into a tunnel's passes here once more.
    """
    rule = partial(Rule, "nat", "KUBE-POSTROUTING")
    if sets["LOOP-BACK"].entries:
        yield rule(_asks(sets, "LOOP-BACK", DST_DST_SRC), Masquerade())
    yield rule((Mark(MASQUERADE, MASQUERADE, invert=True),), RETURN)
    yield rule((), SetMark(MASQUERADE, 0))
    yield rule((Comment("kubernetes service traffic requiring SNAT"),), Masquerade(random_fully=True))


def _node_ports(sets: Sets) -> Iterator[Rule]:
    for protocol, kind, directions in (("TCP", "TCP", DST), ("UDP", "UDP", DST), ("SCTP", "SCTP-HASH", DST_DST)):
        targets: tuple[tuple[str, Target], ...] = (
            (f"NODE-PORT-LOCAL-{kind}", RETURN), (f"NODE-PORT-{kind}", TO_MARK_MASQ),
        )  # fmt: skip
        for short, target in targets:
            if sets[short].entries:
                matches = (Protocol4(protocol), *_asks(sets, short, directions))
                yield Rule("nat", "KUBE-NODE-PORT", matches, target)


def _filter(ports: Sequence[_Served], of: int, sets: Sets, node: Node) -> Iterator[Rule]:
    """Table filter: who is refused."""
    if sets["LOAD-BALANCER-FW"].entries:
        limited = _asks(sets, "LOAD-BALANCER-FW", DST_DST)
        yield Rule("filter", "KUBE-PROXY-FIREWALL", limited, Jump("KUBE-SOURCE-RANGES-FIREWALL"))
    for short in ("LOAD-BALANCER-SOURCE-CIDR", "LOAD-BALANCER-SOURCE-IP"):
        if sets[short].entries:
            yield Rule("filter", "KUBE-SOURCE-RANGES-FIREWALL", _asks(sets, short, DST_DST_SRC), RETURN)
    yield Rule("filter", "KUBE-SOURCE-RANGES-FIREWALL", (), DROP)
    yield from _out_filter(ports, of, node)
    forward = partial(Rule, "filter", "KUBE-FORWARD")
    yield forward((Comment("kubernetes forwarding rules"), Mark(MASQUERADE, MASQUERADE)), ACCEPT)
    yield forward((Comment("kubernetes forwarding conntrack rule"), CtState(("RELATED", "ESTABLISHED"))), ACCEPT)
    yield Rule("filter", "KUBE-NODE-PORT", _asks(sets, "HEALTH-CHECK-NODE-PORT", DST), ACCEPT)
    ipvs = partial(Rule, "filter", "KUBE-IPVS-FILTER")
    for short in ("LOAD-BALANCER", "CLUSTER-IP", "EXTERNAL-IP", "EXTERNAL-IP-LOCAL"):
        yield ipvs((MatchSet(sets[short].name, DST_DST),), RETURN)
    yield ipvs((MatchSet(sets["HEALTH-CHECK-NODE-PORT"].name, DST),), RETURN)
    yield ipvs((CtState(("NEW",)), MatchSet(sets["IPVS-IPS"].name, DST)), Reject(REJECTION[of]))


def _out_filter(ports: Iterable[_Served], of: int, node: Node) -> Iterator[Rule]:
    """The node's own packets to a load balancer that does not admit it: no firewall in INPUT or FORWARD sees them."""
    for port in ports:
        exposure = port.exposure
        if exposure.source_ranges and not _admits(exposure.source_ranges, node, of):
            for address in exposure.load_balancer_ips:
                virtual = Scheduled(exposure.protocol, address, exposure.port)
                yield Rule("filter", "KUBE-IPVS-OUT-FILTER", (Source(Prefix.of(address)), virtual), DROP)
