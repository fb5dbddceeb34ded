"""Who rewrites a packet to a Service address, if not thousands of rules?

A dozen rules and a few maps. In nftables mode kube-proxy writes one table for each family, `kube-proxy`, whose rules
are the same in every cluster: what a Service adds is an element in a map, and a chain that the map leads to. A packet
to any of ten thousand Services is found by one lookup, where iptables mode compares it with rule after rule.

    prerouting, output  −110  firewall-check            @firewall-ips: load balancers that take some sources only
    prerouting, output  −100  services                  @service-ips, @service-nodeports → the chain of the Service port
    input, forward, output 0  service-endpoints-check   @no-endpoint-services: refused, or dropped under policy Local
    input                  0  nodeport-endpoints-check  @no-endpoint-nodeports: the same for node ports
    forward, output        0  cluster-ips-check         ports that no Service has are refused, unused addresses dropped
    postrouting          100  masquerading              by a mark, and for who reaches itself (@hairpin-connections)

    external-X   masquerade, or under policy Local the short way for pods and the node → service-X or local-X
    service-X, local-X   to one of n backends by chance: `dnat to numgen random mod n map { … }`
    endpoint-X__…        only with session affinity: remember the client in a set that forgets, then DNAT

What differs from iptables mode, and a packet can tell: node ports work at the node's own address alone (not at
127.0.0.1, nor at addresses of other devices); another port of a cluster address is refused, an address that no Service
has is dropped; source ranges are asked before the destination is rewritten, also when the Service has no endpoint.

Names are a hash of 8 characters and the full name after it, since nftables takes 256 characters (`chain_name`); what
is longer is cut. Elements and chains of Services are given as functions: they are built when a packet asks.

Not modelled: `--masquerade-all`, `--nodeport-addresses`, other detectors of pod traffic than the cluster CIDR. The
layout is Kubernetes 1.36's; older ones have a chain for every endpoint. Guide section 2.2; KEP-3866.
"""

from __future__ import annotations

from base64 import b32encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from hashlib import sha256

import msgspec

from k8snetlab.address import Prefix
from k8snetlab.api import TrafficPolicy
from k8snetlab.linux.netfilter import Chains
from k8snetlab.linux.nftables import (
    DROP,
    Among,
    Atom,
    Base,
    Bits,
    Chain,
    Choice,
    Dnat,
    Element,
    Field,
    Flags,
    Found,
    Masked,
    Masquerade,
    Match,
    Named,
    Numgen,
    Reject,
    Rule,
    Set,
    SetMark,
    Statement,
    Table,
    Update,
    VerdictMap,
    goto,
    jump,
)
from k8snetlab.services.endpoints import Backend, Chosen, chosen
from k8snetlab.services.exposure import Exposure

__all__ = ["MASQUERADE", "chain_name", "table"]

MASQUERADE = 0x4000
"""The mark of a packet that shall leave with the node's own address: bit 14."""

LONGEST = 240
"""The characters of a name after its kind: nftables takes 256."""


@lru_cache(maxsize=1 << 16)
def chain_name(kind: str, namespace: str, service: str, protocol: str, port: str, backend: str = "") -> str:
    """The name of a chain or set: its kind, a hash, and what was hashed.

    `kind` is `service`, `local`, `external`, `firewall`, `endpoint` or `affinity`; `protocol` is in small letters,
    `port` the name of the Service port, `backend` is `address/port`. Colons may not be in such names: they become dots.

    >>> chain_name("service", "default", "kubernetes", "tcp", "https")
    'service-2QRHZV4L-default/kubernetes/tcp/https'
    """
    full = f"{namespace}/{service}/{protocol}/{port}" + (f"__{backend.replace(':', '.')}" if backend else "")
    name = f"{b32encode(sha256(full.encode()).digest())[:8].decode()}-{full}"
    return f"{kind}-{name if len(name) <= LONGEST else name[: LONGEST - 3] + '...'}"


class _Place(msgspec.Struct, frozen=True):
    """What kube-proxy knows of where it runs, in one family."""

    of: int
    node: str
    address: str
    pods: Prefix | None
    services: tuple[Prefix, ...]

    @property
    def table(self) -> str:
        return f"{IP[self.of]} kube-proxy"

    @property
    def source(self) -> Field:
        return SADDR[self.of]

    @property
    def destination(self) -> Field:
        return DADDR[self.of]

    def rule(self, chain: str, *statements: Statement, comment: str = "") -> Rule:
        """A rule of one of the table's chains."""
        return Rule(self.table, chain, statements, comment)


IP = {4: "ip", 6: "ip6"}
SADDR = {4: Field.IP_SADDR, 6: Field.IP6_SADDR}
DADDR = {4: Field.IP_DADDR, 6: Field.IP6_DADDR}
ADDRESS = {4: "ipv4_addr", 6: "ipv6_addr"}


class _Served(msgspec.Struct, frozen=True):
    """One Service port as this node serves it: the exposure and the node's choice of backends."""

    exposure: Exposure
    chosen: Chosen
    at: _Place

    def name(self, kind: str, backend: Backend | None = None) -> str:
        """The name of one of the port's own chains or sets."""
        held = self.exposure
        text = f"{backend.ip}/{backend.port}" if backend is not None else ""
        return chain_name(kind, held.namespace, held.service, self.protocol, held.name, text)

    @property
    def protocol(self) -> str:
        return self.exposure.protocol.lower()

    @property
    def limited(self) -> bool:
        """Whether load balancer addresses take packets from some sources only."""
        return bool(self.exposure.load_balancer_ips and self.exposure.source_ranges)

    @property
    def opened(self) -> bool:
        """Whether packets from outside are looked at: pods and the node have their short way even if there is no
        backend for others.
        """
        return self.chosen.anywhere and self.exposure.from_outside

    @property
    def outside_addresses(self) -> tuple[str, ...]:
        return (*self.exposure.external_ips, *self.exposure.load_balancer_ips)

    def policy_chain(self, policy: TrafficPolicy) -> str:
        """The chain that balances the load under a policy."""
        return self.name(POLICY_CHAIN[policy])

    def key(self, address: str) -> tuple[str, str, int]:
        """An address and the port of the Service, as maps hold them."""
        return address, self.protocol, self.exposure.port


POLICY_CHAIN = {TrafficPolicy.CLUSTER: "service", TrafficPolicy.LOCAL: "local"}
REJECT = "reject-chain"


def table(
    exposures: Iterable[Exposure],
    of: int,
    *,
    node: str,
    zone: str = "",
    address: str = "",
    pods: Prefix | None = None,
    services: tuple[Prefix, ...] = (),
) -> Table:
    """What kube-proxy writes on a node for family `of` (4 or 6).

    `exposures` are the Service ports of that family; `zone` is the node's zone or empty, `address` its own address in
    the family or empty, `pods` the cluster CIDR of the family, or nothing if the proxy was not told, `services` the
    Service networks of the family.
    """
    at = _Place(of, node, address, pods, services)
    served = tuple(
        _Served(exposure, chosen(exposure.backends, exposure.policies, node, zone), at) for exposure in exposures
    )
    fixed = _fixed(at)
    chains: dict[str, Chain | Callable[[], Chain]] = {**fixed, **dict(_chains(served))}
    bases = tuple(name for name, chain in fixed.items() if chain.base is not None)
    return Table(IP[of], "kube-proxy", Chains(_sets(served, at)), Chains(chains), bases, "rules for kube-proxy")


# Sets and maps


def _sets(served: Sequence[_Served], at: _Place) -> Mapping[str, Callable[[], Set]]:
    """The sets and maps of the table, by name, each as a function that makes it."""
    address = ADDRESS[at.of]
    port = ("inet_proto", "inet_service")
    service = (address, *port)
    connection = (address, *service)
    refused = "vmap to drop or reject packets to"
    held = (
        _kept("hairpin-connections", connection, "service hairpin connections", partial(_hairpins, served, at)),
        _kept("cluster-ips", (address,), "Active ClusterIPs", partial(_cluster_ips, served)),
        _kept("nodeport-ips", (address,), "IPs that accept NodePort traffic", partial(_own_address, at)),
        _mapped("no-endpoint-services", service, f"{refused} services with no endpoints", partial(_refused, served)),
        _mapped("no-endpoint-nodeports", port, f"{refused} service nodeports with no endpoints",
                partial(_refused_node_ports, served)),
        _mapped("firewall-ips", service, "destinations that are subject to LoadBalancerSourceRanges",
                partial(_firewalls, served)),
        _mapped("service-ips", service, "ClusterIP, ExternalIP and LoadBalancer IP traffic",
                partial(_addresses, served)),
        _mapped("service-nodeports", port, "NodePort traffic", partial(_node_ports, served)),
    )  # fmt: skip
    affinities = {
        each.name("affinity", backend): partial(_affinity, each, backend)
        for each in served
        if each.exposure.affinity
        for backend in each.chosen.reachable
    }
    return {**dict(held), **affinities}


Made = tuple[str, Callable[[], Set]]
Elements = Callable[[], Iterable[Element]]


def _kept(name: str, types: tuple[str, ...], comment: str, elements: Elements) -> Made:
    return name, lambda: Set(name, types, elements=tuple(elements()), comment=comment)


def _mapped(name: str, types: tuple[str, ...], comment: str, elements: Elements) -> Made:
    return name, lambda: Set(name, types, ("verdict",), _each_key_once(elements()), comment=comment)


def _each_key_once(elements: Iterable[Element]) -> tuple[Element, ...]:
    """Two Services may claim the same external address and port: the first has it, as in iptables mode. (The real
    kube-proxy takes the one that Go's order of a map gives.)
    """
    held: dict[tuple[Atom, ...], Element] = {}
    for element in elements:
        held.setdefault(element.key, element)
    return tuple(held.values())


def _hairpins(served: Iterable[_Served], at: _Place) -> Iterator[Element]:
    """Who reaches itself must not see its own address as the source. Only what runs on the node can."""
    keys = {
        (backend.ip, backend.ip, port.protocol, backend.port): None
        for port in served
        for backend in port.chosen.reachable
        if backend.node == at.node
    }
    return map(Element, keys)


def _cluster_ips(served: Iterable[_Served]) -> Iterator[Element]:
    return (Element((address,)) for address in dict.fromkeys(port.exposure.cluster_ip for port in served))


def _own_address(at: _Place) -> Iterator[Element]:
    if at.address:
        yield Element((at.address,))


def _addresses(served: Iterable[_Served]) -> Iterator[Element]:
    """Every address of every Service that leads somewhere, and the chain it leads to."""
    for port in served:
        exposure = port.exposure
        if port.chosen.leads(exposure.internal):
            yield Element(port.key(exposure.cluster_ip), goto(port.policy_chain(exposure.internal)))
        if port.chosen.anywhere:
            way = goto(port.name("external"))
            yield from (Element(port.key(address), way) for address in port.outside_addresses)


def _node_ports(served: Iterable[_Served]) -> Iterator[Element]:
    for port in served:
        if port.exposure.node_port and port.chosen.anywhere:
            yield Element((port.protocol, port.exposure.node_port), goto(port.name("external")))


def _refused(served: Iterable[_Served]) -> Iterator[Element]:
    """Rejected where nobody can answer, dropped where somebody could, but not from this node."""
    for port in served:
        exposure = port.exposure
        addresses: tuple[str, ...] = ()
        if not port.chosen.leads(exposure.internal):
            addresses = (exposure.cluster_ip,)
        if not port.chosen.leads(exposure.external):
            addresses = (*addresses, *port.outside_addresses)
        yield from (_no_endpoint(port, port.key(address)) for address in addresses)


def _refused_node_ports(served: Iterable[_Served]) -> Iterator[Element]:
    for port in served:
        if port.exposure.node_port and not port.chosen.leads(port.exposure.external):
            yield _no_endpoint(port, (port.protocol, port.exposure.node_port))


def _no_endpoint(port: _Served, key: tuple[str | int, ...]) -> Element:
    return Element(key, DROP if port.chosen.anywhere else goto(REJECT), port.exposure.full_name)


def _firewalls(served: Iterable[_Served]) -> Iterator[Element]:
    for port in served:
        if port.limited:
            way = goto(port.name("firewall"))
            yield from (Element(port.key(address), way) for address in port.exposure.load_balancer_ips)


def _affinity(port: _Served, backend: Backend) -> Set:
    """Which clients went to this backend lately."""
    flags = ("dynamic", "timeout")
    name = port.name("affinity", backend)
    return Set(name, (ADDRESS[port.at.of],), flags=flags, size=65535, timeout=port.exposure.affinity)


# The chains of a Service port


def _chains(served: Iterable[_Served]) -> Iterator[tuple[str, Callable[[], Chain]]]:
    for port in served:
        if port.exposure.affinity:
            for backend in port.chosen.reachable:
                yield port.name("endpoint", backend), partial(_to_backend, port, backend)
        for policy, backends in port.chosen.by_policy:
            if backends:
                yield port.policy_chain(policy), partial(_balanced, port, policy, backends)
        if port.opened:
            yield port.name("external"), partial(_from_outside, port)
        if port.limited:
            yield port.name("firewall"), partial(_allowed_sources, port)


def _from_outside(port: _Served) -> Chain:
    """What is reached at any other address than the cluster's."""
    at, name = port.at, port.name("external")
    rules: list[Rule] = []
    if port.exposure.external is TrafficPolicy.CLUSTER:
        rules.append(at.rule(name, MARK, comment="masquerade"))
    else:
        anywhere = goto(port.policy_chain(TrafficPolicy.CLUSTER))
        own = Match((Field.FIB_SADDR,), "local")
        if at.pods is not None:
            from_pod = Match((at.source,), at.pods)
            rules.append(at.rule(name, from_pod, anywhere, comment="short-circuit pod traffic"))
        rules.append(at.rule(name, own, MARK, comment="masquerade local traffic"))
        rules.append(at.rule(name, own, anywhere, comment="short-circuit local traffic"))
    if port.chosen.leads(port.exposure.external):
        rules.append(at.rule(name, goto(port.policy_chain(port.exposure.external))))
    return Chain(name, tuple(rules))


def _allowed_sources(port: _Served) -> Chain:
    """Who may not use the load balancer's addresses."""
    at, name = port.at, port.name("firewall")
    allowed = list(port.exposure.source_ranges)
    if any(block.contains(at.address) for block in allowed if at.address):
        # The node may hold the load balancer's address itself; its own packets then come from there.
        allowed += map(Prefix.of, port.exposure.load_balancer_ips)
    outermost = [
        block for number, block in enumerate(allowed)
        if not any(other.covers(block) and (other != block or at < number) for at, other in enumerate(allowed)
                   if at != number)
    ]  # fmt: skip
    right = Among.of(*outermost) if len(outermost) > 1 else outermost[0]
    return Chain(name, (at.rule(name, Match((at.source,), right, invert=True), DROP),))


def _balanced(port: _Served, policy: TrafficPolicy, backends: Sequence[Backend]) -> Chain:
    """To one of the backends: with affinity to the one that the client had, else by chance."""
    at, name = port.at, port.policy_chain(policy)
    if not port.exposure.affinity:
        ways = Among(tuple(Element((number,), (each.ip, each.port)) for number, each in enumerate(backends)))
        dnat = Dnat(by=Choice(Numgen(len(backends)), ways), family=IP[at.of])
        return Chain(name, (at.rule(name, Match((Field.L4PROTO,), port.protocol), dnat),))
    ends = [goto(port.name("endpoint", backend)) for backend in backends]
    sticky = (
        at.rule(name, Match((at.source,), Named(port.name("affinity", backend))), end)
        for backend, end in zip(backends, ends, strict=True)
    )
    ways = Among(tuple(Element((number,), end) for number, end in enumerate(ends)))
    return Chain(name, (*sticky, at.rule(name, VerdictMap(Numgen(len(backends)), ways))))


def _to_backend(port: _Served, backend: Backend) -> Chain:
    """To one backend, and remember the client."""
    at, name = port.at, port.name("endpoint", backend)
    remember = at.rule(name, Update(port.name("affinity", backend), (at.source,)))
    protocol = Match((Field.L4PROTO,), port.protocol)
    return Chain(name, (remember, at.rule(name, protocol, Dnat(backend.ip, backend.port))))


# What is there without any Service


MARK = SetMark(((Bits.OR, MASQUERADE),))
NEW = Match((Field.CT_STATE,), Flags(("new",)))
TRANSLATED = Match((Field.CT_STATUS,), Flags(("dnat",)))
PORT = (Field.L4PROTO, Field.TH_DPORT)

ENTRANCES: Mapping[str, tuple[Base, tuple[str, ...]]] = {
    "filter-prerouting-pre-dnat": (Base("filter", "prerouting", -110), ("firewall-check",)),
    "filter-output-pre-dnat": (Base("filter", "output", -110), ("firewall-check",)),
    "filter-input": (Base("filter", "input", 0), ("nodeport-endpoints-check", "service-endpoints-check")),
    "filter-forward": (Base("filter", "forward", 0), ("service-endpoints-check", "cluster-ips-check")),
    "filter-output": (Base("filter", "output", 0), ("service-endpoints-check", "cluster-ips-check")),
    "nat-prerouting": (Base("nat", "prerouting", -100), ("services",)),
    "nat-output": (Base("nat", "output", -100), ("services",)),
    "nat-postrouting": (Base("nat", "postrouting", 100), ("masquerading",)),
}
"""The base chains, and where they jump. Those of type filter look at first packets only, as those of type nat do by
themselves."""


def _fixed(at: _Place) -> dict[str, Chain]:
    """The chains that are the same whatever Services there are."""
    chains = [_entrance(at, name, base, targets) for name, (base, targets) in ENTRANCES.items()]
    service = (at.destination, *PORT)
    to_node = Match((at.destination,), Named("nodeport-ips"))
    chains += (
        Chain("nodeport-endpoints-check", (
            at.rule("nodeport-endpoints-check", to_node, _looked_up(PORT, "no-endpoint-nodeports")),
        )),
        Chain("service-endpoints-check", (
            at.rule("service-endpoints-check", _looked_up(service, "no-endpoint-services")),
        )),
        Chain("firewall-check", (at.rule("firewall-check", _looked_up(service, "firewall-ips")),)),
        Chain("services", (
            *_masquerade_strangers(at),
            at.rule("services", _looked_up(service, "service-ips")),
            at.rule("services", to_node, _looked_up(PORT, "service-nodeports")),
        )),
        _masquerading(at),
        _cluster_ips_check(at),
        Chain(REJECT, (at.rule(REJECT, Reject()),),
              comment="helper for @no-endpoint-services / @no-endpoint-nodeports"),
    )  # fmt: skip
    return {chain.name: chain for chain in chains}


def _entrance(at: _Place, name: str, base: Base, targets: Iterable[str]) -> Chain:
    first = () if base.type == "nat" else (NEW,)
    return Chain(name, tuple(at.rule(name, *first, jump(target)) for target in targets), base)


def _looked_up(fields: tuple[Field, ...], name: str) -> VerdictMap:
    return VerdictMap(Found(fields), Named(name))


def _masquerade_strangers(at: _Place) -> Iterator[Rule]:
    """A pod keeps its address; who comes from outside of the pod network must be answered through this node."""
    if at.pods is not None:
        to_cluster = Match((at.destination,), Named("cluster-ips"))
        stranger = Match((at.source,), at.pods, invert=True)
        comment = "masquerade clusterIP traffic from outside cluster"
        yield at.rule("services", to_cluster, stranger, MARK, comment=comment)


def _masquerading(at: _Place) -> Chain:
    """By the mark, which goes: wrapped into a tunnel's packet, it would pass here once more."""
    name = "masquerading"
    marked = (Masked(MASQUERADE, 0, invert=True), SetMark(((Bits.XOR, MASQUERADE),)))
    itself = Match((at.source, at.destination, *PORT), Named("hairpin-connections"))
    masquerade = Masquerade(fully_random=True)
    return Chain(name, (at.rule(name, *marked, masquerade), at.rule(name, TRANSLATED, itself, masquerade)))


def _cluster_ips_check(at: _Place) -> Chain:
    """What still has a Service address after NAT is for a port or an address that no Service has."""
    name = "cluster-ips-check"
    rules = [
        at.rule(
            name, Match((at.destination,), Named("cluster-ips")), Reject(),
            comment="Reject traffic to invalid ports of ClusterIPs",
        )
    ]  # fmt: skip
    if at.services:
        right = at.services[0] if len(at.services) == 1 else Among.of(*at.services)
        unallocated = "Drop traffic to unallocated ClusterIPs"
        rules.append(at.rule(name, Match((at.destination,), right), DROP, comment=unallocated))
    return Chain(name, tuple(rules))
