"""Who rewrites a packet to a Service address, and where does it go?

No process does. In iptables mode kube-proxy writes rules into every node's kernel and then waits for the next change;
the rules handle the packets, also while kube-proxy is dead. Their layout, for Service port X:

    nat   PREROUTING, OUTPUT → KUBE-SERVICES ┬ cluster address ──────────────→ KUBE-SVC-X (or KUBE-SVL-X, policy Local)
                                             ├ external address ─────────────→ KUBE-EXT-X → KUBE-SVC-X or KUBE-SVL-X
                                             ├ load balancer address → (KUBE-FW-X if sources are limited →) KUBE-EXT-X
                                             └ any own address → KUBE-NODEPORTS → KUBE-EXT-X
          KUBE-SVC-X, KUBE-SVL-X → one KUBE-SEP-… for each backend → DNAT

The first of n backends is taken with probability 1/n, the next with 1/(n-1) of what is left, and the last always:
each gets the same share. Session affinity asks before that whether the backend has seen this client lately
(`recent`).

A packet that must come back through this node gets a mark (KUBE-MARK-MASQ) and leaves with the node's address as its
source (KUBE-POSTROUTING): traffic to a cluster address from outside the pod network, traffic from outside under
policy Cluster, and a backend that reaches itself. Under external policy Local pods and the node itself take the short
way to any backend; only what comes from elsewhere is held to the node's own.

The table filter refuses what the table nat does not translate: REJECT if a Service has no usable endpoint at all,
DROP if it has one, but none on this node under policy Local, DROP for clients outside the source ranges.

Names are hashes (`chain_name`), because a chain name has 28 characters at most. The order in KUBE-SERVICES is that of
the Services here and arbitrary in kube-proxy; only its last rule has a place. The chains of a Service port are given
as functions: they are built when a packet jumps there. Those of backends are not even named before.

Not modelled: `--masquerade-all`, `--nodeport-addresses`, `--iptables-localhost-nodeports=false`, other detectors of
pod traffic than the cluster CIDR, and the order of large clusters' partial updates. The layout is Kubernetes 1.36's.
Guide section 2.2; KEP-3178 (which chains are whose), KEP-1669, KEP-2086.
"""

from __future__ import annotations

from base64 import b32encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache, partial
from hashlib import sha256

import msgspec

from k8snetlab.address import Prefix
from k8snetlab.api import TrafficPolicy
from k8snetlab.linux.netfilter import (
    ACCEPT,
    DROP,
    L4,
    NOTHING,
    RETURN,
    AddrType,
    Chain,
    Comment,
    CtState,
    Destination,
    Dnat,
    Jump,
    Mark,
    Masquerade,
    Match,
    Nfacct,
    Patch,
    Protocol4,
    Recent,
    Reject,
    Rule,
    SetMark,
    Source,
    Statistic,
    Target,
)
from k8snetlab.services.endpoints import Backend, Chosen, chosen
from k8snetlab.services.exposure import Exposure

__all__ = ["MASQUERADE", "chain_name", "patches"]

MASQUERADE = 0x4000
"""The mark of a packet that shall leave with the node's own address: bit 14."""

REJECTION = {4: "icmp-port-unreachable", 6: "icmp6-port-unreachable"}

Chains = Mapping[str, Chain | Callable[[], Chain]]


def patches(
    exposures: Iterable[Exposure],
    of: int,
    *,
    node: str,
    zone: str = "",
    address: str = "",
    pods: Prefix | None = None,
) -> tuple[Patch, ...]:
    """What kube-proxy writes on a node into the tables mangle, filter and nat of family `of` (4 or 6).

    `exposures` are the Service ports of that family; `zone` is the node's zone or empty, `address` its own address in
    the family or empty, `pods` the cluster CIDR of the family, or nothing if the proxy was not told: it then cannot
    tell pods from others.
    """
    served = tuple(_Served.on(exposure, node, zone, address, pods) for exposure in exposures)
    return (
        Patch("mangle", of, chains=_named(Chain("KUBE-PROXY-CANARY"))),
        Patch("filter", of, first=FILTER_JUMPS, chains=_filter_chains(served, of)),
        Patch("nat", of, first=NAT_JUMPS, chains=_nat_chains(served, of), more=partial(_backend_chains, served, of)),
    )


@lru_cache(maxsize=1 << 16)
def chain_name(kind: str, port: str, protocol: str, backend: str = "") -> str:
    """The name of a chain: `KUBE-`, its kind, and 16 characters of a hash over the Service port and the backend.

    `port` is `namespace/service` or `namespace/service:port`, `protocol` is in small letters, `backend` is
    `address:port`.

    >>> chain_name("SVC", "default/kubernetes:https", "tcp")
    'KUBE-SVC-NPX46M4PTMTKRN6Y'
    """
    return f"KUBE-{kind}-{b32encode(sha256(f'{port}{protocol}{backend}'.encode()).digest())[:16].decode()}"


class _Served(msgspec.Struct, frozen=True):
    """One Service port as this node serves it: the exposure, the node's choice of backends, and what follows from
    both.

    `inside` says whether the cluster address leads to a backend, `outside` whether the other addresses lead clients
    from outside to one.
    """

    exposure: Exposure
    chosen: Chosen
    full_name: str
    protocol: str
    node_address: str
    pods: Prefix | None
    inside: bool
    outside: bool

    @classmethod
    def on(cls, exposure: Exposure, node: str, zone: str, address: str, pods: Prefix | None) -> _Served:
        choice = chosen(exposure.backends, exposure.policies, node, zone)
        return cls(
            exposure=exposure,
            chosen=choice,
            full_name=exposure.full_name,
            protocol=exposure.protocol.lower(),
            node_address=address,
            pods=pods,
            inside=choice.leads(exposure.internal),
            outside=choice.leads(exposure.external),
        )

    def chain(self, kind: str) -> str:
        """The name of one of the port's own chains: `SVC`, `SVL`, `EXT` or `FW`."""
        return chain_name(kind, self.full_name, self.protocol)

    def backend_chain(self, backend: Backend) -> str:
        """The name of the chain of one of the port's backends."""
        return chain_name("SEP", self.full_name, self.protocol, str(backend))

    def policy_chain(self, policy: TrafficPolicy) -> str:
        """The chain that balances the load under a policy."""
        return self.chain(POLICY_CHAIN[policy])

    @property
    def limited(self) -> bool:
        """Whether load balancer addresses take packets from some sources only."""
        return bool(self.chosen.anywhere and self.exposure.load_balancer_ips and self.exposure.source_ranges)

    @property
    def opened(self) -> bool:
        """Whether packets from outside are looked at: pods and the node have their short way even if `outside` is
        false.
        """
        return self.chosen.anywhere and self.exposure.from_outside

    def to(self, address: str, about: str) -> tuple[Match, ...]:
        """Packets to an address and the port of the Service."""
        comment = Comment(f"{self.full_name} {about}")
        transport = L4(self.protocol, dport=self.exposure.port)
        return Destination(Prefix.of(address)), Protocol4(self.exposure.protocol), comment, transport


POLICY_CHAIN = {TrafficPolicy.CLUSTER: "SVC", TrafficPolicy.LOCAL: "SVL"}


# Table nat: where a packet goes.


def _nat_chains(served: Sequence[_Served], of: int) -> Chains:
    chains: dict[str, Chain | Callable[[], Chain]] = {
        **_named(Chain("KUBE-PROXY-CANARY"), MARK_MASQ, POSTROUTING),
        "KUBE-SERVICES": partial(_services, served, of),
        "KUBE-NODEPORTS": partial(_node_ports, served, of),
    }
    for port in served:
        if port.opened:
            chains[port.chain("EXT")] = partial(_from_outside, port)
        if port.limited:
            chains[port.chain("FW")] = partial(_allowed_sources, port)
        for policy, backends in port.chosen.by_policy:
            if backends:
                chains[port.policy_chain(policy)] = partial(_balanced, port, policy, backends, of)
    return chains


def _backend_chains(served: Sequence[_Served], of: int) -> Chains:
    """A chain for each backend that a packet may be sent to from here. Most nodes of a walk never jump to one."""
    return {
        port.backend_chain(backend): partial(_to_backend, port, backend, of)
        for port in served
        for backend in port.chosen.reachable
    }


def _services(served: Iterable[_Served], of: int) -> Chain:
    """Every address of every Service, and last the node's own addresses, which may be asked for a node port."""
    rules = [rule for port in served for rule in _addresses(port)]
    # A node port never works at ::1: IPv6 has no route_localnet.
    not_loopback = () if of == 4 else (Destination(Prefix.of("::1/128"), invert=True),)
    matches = (*not_loopback, Comment(LAST), AddrType("dst"))
    return Chain("KUBE-SERVICES", (*rules, Rule("nat", "KUBE-SERVICES", matches, Jump("KUBE-NODEPORTS"))))


LAST = "kubernetes service nodeports; NOTE: this must be the last rule in this chain"


def _addresses(port: _Served) -> Iterator[Rule]:
    exposure = port.exposure
    rule = partial(Rule, "nat", "KUBE-SERVICES")
    if port.inside:
        yield rule(port.to(exposure.cluster_ip, "cluster IP"), Jump(port.policy_chain(exposure.internal)))
    if port.chosen.anywhere:
        for address in exposure.external_ips:
            yield rule(port.to(address, "external IP"), Jump(port.chain("EXT")))
        for address in exposure.load_balancer_ips:
            yield rule(port.to(address, "loadbalancer IP"), Jump(port.chain("FW" if port.limited else "EXT")))


def _node_ports(served: Iterable[_Served], of: int) -> Chain:
    """Every node port. In IPv4 those asked for at 127.0.0.0/8 are counted: they shall be given up one day."""
    rules = []
    for port in served:
        if port.exposure.node_port and port.chosen.anywhere:
            about = (Comment(port.full_name), L4(port.protocol, dport=port.exposure.node_port))
            protocol = Protocol4(port.exposure.protocol)
            target = Jump(port.chain("EXT"))
            if of == 4:
                matches = (Destination(LOOPBACK), protocol, *about, Nfacct("localhost_nps_accepted_pkts"))
                rules.append(Rule("nat", "KUBE-NODEPORTS", matches, target))
            rules.append(Rule("nat", "KUBE-NODEPORTS", (protocol, *about), target))
    return Chain("KUBE-NODEPORTS", tuple(rules))


LOOPBACK = Prefix.of("127.0.0.0/8")


def _from_outside(port: _Served) -> Chain:
    """What is reached at any other address than the cluster's."""
    name = port.chain("EXT")
    rule = partial(_commented, "nat", name)
    rules: list[Rule] = []
    if port.exposure.external is TrafficPolicy.CLUSTER:
        rules.append(rule(f"masquerade traffic for {port.full_name} external destinations", TO_MARK_MASQ))
    else:
        anywhere = Jump(port.policy_chain(TrafficPolicy.CLUSTER))
        own = AddrType("src")
        if port.pods is not None:
            comment = f"pod traffic for {port.full_name} external destinations"
            rules.append(Rule("nat", name, (Source(port.pods), Comment(comment)), anywhere))
        rules.append(rule(f"masquerade LOCAL traffic for {port.full_name} external destinations", TO_MARK_MASQ, own))
        rules.append(rule(f"route LOCAL traffic for {port.full_name} external destinations", anywhere, own))
    if port.outside:
        rules.append(Rule("nat", name, (), Jump(port.policy_chain(port.exposure.external))))
    return Chain(name, tuple(rules))


def _allowed_sources(port: _Served) -> Chain:
    """Who may use the load balancer's addresses. Who comes to the end here is dropped in the table filter."""
    name = port.chain("FW")
    ranges = port.exposure.source_ranges
    allowed = list(ranges)
    if any(block.contains(port.node_address) for block in ranges if port.node_address):
        # The node may hold the load balancer's address itself; its own packets then come from there.
        allowed += map(Prefix.of, port.exposure.load_balancer_ips)
    comment = Comment(f"{port.full_name} loadbalancer IP")
    rules = [Rule("nat", name, (Source(block), comment), Jump(port.chain("EXT"))) for block in allowed]
    end = f"other traffic to {port.full_name} will be dropped by KUBE-PROXY-FIREWALL"
    return Chain(name, (*rules, _commented("nat", name, end, NOTHING)))


def _balanced(port: _Served, policy: TrafficPolicy, backends: Sequence[Backend], of: int) -> Chain:
    """One of the backends for each new connection."""
    name = port.policy_chain(policy)
    rules: list[Rule] = []
    if policy is port.exposure.internal and port.pods is not None:
        foreign = (Source(port.pods, invert=True), *port.to(port.exposure.cluster_ip, "cluster IP"))
        rules.append(Rule("nat", name, foreign, TO_MARK_MASQ))
    ways = [(Comment(f"{port.full_name} -> {backend}"), port.backend_chain(backend)) for backend in backends]
    if port.exposure.affinity:
        for comment, chain in ways:
            rules.append(Rule("nat", name, (comment, Recent(chain, port.exposure.affinity, of)), Jump(chain)))
    for left, (comment, chain) in zip(range(len(ways), 0, -1), ways, strict=True):
        chance = (Statistic(_share(left)),) if left > 1 else ()
        rules.append(Rule("nat", name, (comment, *chance), Jump(chain)))
    return Chain(name, tuple(rules))


def _share(left: int) -> float:
    """The probability of one among `left` backends, with the ten decimals that kube-proxy writes."""
    return round(1 / left, 10)


def _to_backend(port: _Served, backend: Backend, of: int) -> Chain:
    """To one backend; a backend that reaches itself must not see its own address as the source."""
    name = port.backend_chain(backend)
    comment = Comment(port.full_name)
    remember = (Recent(name, family=of),) if port.exposure.affinity else ()
    matches = (Protocol4(port.exposure.protocol), comment, *remember, L4(port.protocol))
    return Chain(name, (
        Rule("nat", name, (Source(Prefix.of(backend.ip)), comment), TO_MARK_MASQ),
        Rule("nat", name, matches, Dnat(backend.ip, backend.port)),
    ))  # fmt: skip


# Table filter: who is refused.


def _filter_chains(served: Sequence[_Served], of: int) -> Chains:
    return {
        **_named(Chain("KUBE-PROXY-CANARY"), FORWARD, FIREWALL if of == 4 else Chain("KUBE-FIREWALL")),
        "KUBE-SERVICES": partial(_refused, "KUBE-SERVICES", _refused_inside, served, of),
        "KUBE-EXTERNAL-SERVICES": partial(_refused, "KUBE-EXTERNAL-SERVICES", _refused_outside, served, of),
        "KUBE-NODEPORTS": partial(_health_checks, served),
        "KUBE-PROXY-FIREWALL": partial(_firewall, served),
    }


Refusals = Callable[[_Served, str], Iterator[tuple[Match, ...]]]


def _refused(name: str, refusals: Refusals, served: Iterable[_Served], of: int) -> Chain:
    """REJECT where nobody can answer, DROP where somebody could, but not from this node."""
    rules: list[Rule] = []
    for port in served:
        comment, target = (
            ("has no local endpoints", DROP) if port.chosen.anywhere else ("has no endpoints", Reject(REJECTION[of]))
        )
        rules += (Rule("filter", name, matches, target) for matches in refusals(port, comment))
    return Chain(name, tuple(rules))


def _refused_inside(port: _Served, comment: str) -> Iterator[tuple[Match, ...]]:
    if not port.inside:
        yield port.to(port.exposure.cluster_ip, comment)


def _refused_outside(port: _Served, comment: str) -> Iterator[tuple[Match, ...]]:
    if port.outside:
        return
    for address in (*port.exposure.external_ips, *port.exposure.load_balancer_ips):
        yield port.to(address, comment)
    if port.exposure.node_port:
        own = (Comment(f"{port.full_name} {comment}"), AddrType("dst"))
        yield (Protocol4(port.exposure.protocol), *own, L4(port.protocol, dport=port.exposure.node_port))


def _health_checks(served: Iterable[_Served]) -> Chain:
    """The load balancer may ask every node whether it has a backend of its own."""
    name = "KUBE-NODEPORTS"
    return Chain(name, tuple(
        Rule("filter", name, (
            Protocol4("TCP"), Comment(f"{port.full_name} health check node port"),
            L4("tcp", dport=port.exposure.health_check_port),
        ), ACCEPT)
        for port in served if port.exposure.health_check_port
    ))  # fmt: skip


def _firewall(served: Iterable[_Served]) -> Chain:
    """What came through KUBE-FW and still has the load balancer's address is from a source that may not."""
    name = "KUBE-PROXY-FIREWALL"
    return Chain(name, tuple(
        Rule("filter", name, port.to(address, f"traffic not accepted by {port.chain('FW')}"), DROP)
        for port in served if port.limited for address in port.exposure.load_balancer_ips
    ))  # fmt: skip


# What is there without any Service.


def _named(*chains: Chain) -> dict[str, Chain]:
    return {chain.name: chain for chain in chains}


def _commented(table: str, chain: str, comment: str, target: Target, *more: Match) -> Rule:
    return Rule(table, chain, (Comment(comment), *more), target)


TO_MARK_MASQ = Jump("KUBE-MARK-MASQ")
NEW = CtState(("NEW",))
KNOWN = CtState(("RELATED", "ESTABLISHED"))

MARK_MASQ = Chain("KUBE-MARK-MASQ", (Rule("nat", "KUBE-MARK-MASQ", (), SetMark(MASQUERADE, MASQUERADE)),))

POSTROUTING = Chain("KUBE-POSTROUTING", (
    Rule("nat", "KUBE-POSTROUTING", (Mark(MASQUERADE, MASQUERADE, invert=True),), RETURN),
    # The mark goes: wrapped into a tunnel's packet, it passes here once more and shall not be translated again.
    Rule("nat", "KUBE-POSTROUTING", (), SetMark(MASQUERADE, 0)),
    _commented("nat", "KUBE-POSTROUTING", "kubernetes service traffic requiring SNAT", Masquerade(random_fully=True)),
))  # fmt: skip

FORWARD = Chain("KUBE-FORWARD", (
    # A packet that conntrack cannot place would leave untranslated, and its receiver would reset the connection.
    Rule("filter", "KUBE-FORWARD", (CtState(("INVALID",)), Nfacct("ct_state_invalid_dropped_pkts")), DROP),
    _commented("filter", "KUBE-FORWARD", "kubernetes forwarding rules", ACCEPT, Mark(MASQUERADE, MASQUERADE)),
    _commented("filter", "KUBE-FORWARD", "kubernetes forwarding conntrack rule", ACCEPT, KNOWN),
))  # fmt: skip

FIREWALL = Chain("KUBE-FIREWALL", (
    # Node ports at 127.0.0.1 need route_localnet, which opens loopback to the neighbours (CVE-2020-8558); this closes
    # it again.
    Rule("filter", "KUBE-FIREWALL", (
        Source(LOOPBACK, invert=True), Destination(LOOPBACK), Comment("block incoming localnet connections"),
        CtState(("RELATED", "ESTABLISHED", "DNAT"), invert=True),
    ), DROP),
))  # fmt: skip

NAT_JUMPS = (
    _commented("nat", "PREROUTING", "kubernetes service portals", Jump("KUBE-SERVICES")),
    _commented("nat", "OUTPUT", "kubernetes service portals", Jump("KUBE-SERVICES")),
    _commented("nat", "POSTROUTING", "kubernetes postrouting rules", Jump("KUBE-POSTROUTING")),
)


def _guard(hook: str, comment: str, chain: str) -> Rule:
    """First packets of connections only: the others were judged when they were first."""
    return Rule("filter", hook, (NEW, Comment(comment)), Jump(chain))


FILTER_JUMPS = (
    Rule("filter", "INPUT", (), Jump("KUBE-FIREWALL")),
    _guard("INPUT", "kubernetes load balancer firewall", "KUBE-PROXY-FIREWALL"),
    _commented("filter", "INPUT", "kubernetes health check service ports", Jump("KUBE-NODEPORTS")),
    _guard("INPUT", "kubernetes externally-visible service portals", "KUBE-EXTERNAL-SERVICES"),
    _guard("FORWARD", "kubernetes load balancer firewall", "KUBE-PROXY-FIREWALL"),
    _commented("filter", "FORWARD", "kubernetes forwarding rules", Jump("KUBE-FORWARD")),
    _guard("FORWARD", "kubernetes service portals", "KUBE-SERVICES"),
    _guard("FORWARD", "kubernetes externally-visible service portals", "KUBE-EXTERNAL-SERVICES"),
    Rule("filter", "OUTPUT", (), Jump("KUBE-FIREWALL")),
    _guard("OUTPUT", "kubernetes load balancer firewall", "KUBE-PROXY-FIREWALL"),
    _guard("OUTPUT", "kubernetes service portals", "KUBE-SERVICES"),
)
