"""How do iptables and ipsets say what a policy says?

As Calico's Felix writes it (3.30), whose chains it all goes into (`cni.felix`). In the chain of a pod's device and
direction stands a section for each tier that has policies about this pod:

    Start of tier default       clear the bit "passed"
                                ask each policy: jump to its chain, unless one has passed the packet on already
    Return if policy accepted   the bit "accepted" is set, and so the device's chain is done
    End of tier default         what no policy accepted or passed on is dropped

Behind the tiers come the profiles, which accept: they hold for a pod that no NetworkPolicy isolates. The tier of
NetworkPolicies is `default`; those of ClusterNetworkPolicies, `kube-admin` before it and `kube-baseline` after it, drop
nothing at their end. Policies of a tier are asked by priority and then by name. Where several that follow each other
have the same selector, they get a chain together (`cali-gi-`, `cali-go-`), since whoever is about one is about all.

A policy has a chain for packets to its pods (`cali-pi-`) and one for packets from them (`cali-po-`). Its rules:

- a peer by labels is an ipset of the addresses it means now (`hash:net`), wherever the pods run: `cali40s:` and a hash
  of the selector, so that the same selector in two policies is one set; a block is `-s` or `-d`;
- ports are `-m multiport`, fifteen numbers at most, a range counting as two; a named port is a set of addresses with
  ports (`hash:ip,port`, `cali40n:`), since each pod may mean another number by it;
- what one rule cannot say at once (two sets of ports, a block with exceptions) is worked out before it, in two bits of
  the mark: one for "all so far", one for use along the way;
- accepting is setting a bit and returning, passing on sets another; a rule that denies drops.

The first rule of each chain names the policy in its comment; here each rule also carries the object's name, for traces.

Every set holds pods of all nodes; sets and chains are written for policies that are about some pod of the node. Pods
with `hostNetwork` are no endpoints of Calico's. Both families get the same, each with its own addresses.

Three surprises follow from where the chains stand. They are met after DNAT and before SNAT: behind a Service they see
the backend and, on the first node, the true source; a client whose packet another node has passed on comes from that
node. A node sends to pods of other nodes from the end of its tunnel, if it has one, and a block with the node's address
does not mean that. And what IPVS sends to a pod of its own node passes no chain for pods (`cni.felix`).

Calico 3.30 knows AdminNetworkPolicy and not yet ClusterNetworkPolicy (v1alpha2), which 3.32 brought: its tiers stand
here in the layout of 3.30. Two things it refuses even then are compiled as the API means them: named ports in
ClusterNetworkPolicies, and `nodes` (a set of the nodes' addresses). Several `networks` of one peer are a rule each,
which Calico tests together. `domainNames` need a DNS proxy that Calico's open-source edition has not. Not written out:
the comment `cali:HASH` of each rule, and flow logs. Unsure: that the hashes of selectors with expressions are what
Felix computes. Guide section 4.1.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from hashlib import sha3_224, sha224
from itertools import groupby
from typing import NamedTuple, Protocol, TypeAlias

import msgspec

from k8snetlab import api
from k8snetlab.address import Prefix, family
from k8snetlab.api.selectors import Operator
from k8snetlab.linux.host import Part
from k8snetlab.linux.ipset import IpSet, SetType
from k8snetlab.linux.netfilter import (
    DROP,
    NOTHING,
    RETURN,
    Chain,
    Comment,
    Destination,
    Jump,
    Mark,
    Match,
    MatchSet,
    Multiport,
    Patch,
    Protocol4,
    Rule,
    Section,
    SetMark,
    Source,
    Target,
    shortened,
)
from k8snetlab.policies import plan
from k8snetlab.policies.plan import EGRESS, INGRESS, Direction, Endpoint, Policies, Policy, RuleAction, Tier

__all__ = ["Attachment", "Marks", "Ruleset", "node", "selector"]


class Marks(Protocol):
    """The bits of the mark that chains tell each other by."""

    @property
    def accepted(self) -> int: ...
    @property
    def passed(self) -> int: ...
    @property
    def dropped(self) -> int: ...
    @property
    def whole(self) -> int: ...
    @property
    def part(self) -> int: ...


class Attachment(Protocol):
    """Where a CNI says that the rules belong (`cni.PolicyAttachment`)."""

    @property
    def table(self) -> str: ...
    @property
    def otherwise(self) -> tuple[str, str]: ...
    @property
    def marks(self) -> Marks: ...
    @property
    def longest(self) -> int: ...
    def chains(self, device: str) -> tuple[str, str]: ...


class Side(NamedTuple):
    """What differs between packets to a pod and packets from it."""

    policy: str
    group: str
    word: str
    inbound: str


SIDES: Mapping[Direction, Side] = {
    INGRESS: Side("cali-pi-", "cali-gi-", "ingress", "inbound"),
    EGRESS: Side("cali-po-", "cali-go-", "egress", "outbound"),
}
TIERS: Mapping[Tier, str] = {
    Tier.ADMIN: "kube-admin",
    Tier.NETWORK_POLICY: "default",
    Tier.BASELINE: "kube-baseline",
}
FAMILIES = (4, 6)
TRANSPORTS = (api.Protocol.SCTP, api.Protocol.TCP, api.Protocol.UDP)
MOST_PORTS = 15
"""What one `-m multiport` can hold: a range counts as two."""

LONGEST_SET = 31
LONGEST_COMMENT = 255
EVERYWHERE = Prefix.of("0.0.0.0/0"), Prefix.of("::/0")

Line: TypeAlias = tuple[tuple[Match, ...], Target]
"""A rule without its place."""


# --- names ------------------------------------------------------------------------------------------------------------


def policy_name(policy: Policy) -> str:
    """The name that Calico gives a policy: `shop/knp.default.db`, `kcnp.kube-admin.no-metadata`."""
    if policy.tier is Tier.NETWORK_POLICY:
        return f"{policy.namespace}/knp.default.{policy.object.name}"
    return f"kcnp.{TIERS[policy.tier]}.{policy.object.name}"


def selector(pods: plan.Pods) -> str:
    """A selector in Calico's own language, in the form that it is hashed in.

    >>> selector(plan.Pods(namespace="default", pods=api.LabelSelector(match_labels={"app": "web"})))
    '(projectcalico.org/namespace == "default" && (projectcalico.org/orchestrator == "k8s" && app == "web"))'
    """
    own = [_ORCHESTRATOR, *_terms(pods.pods)]
    if pods.namespace:
        return _and([f'projectcalico.org/namespace == "{pods.namespace}"', _and(own)])
    wanted = list(_terms(pods.namespaces, "pcns.")) or ["has(projectcalico.org/namespace)"]
    return _and([_and(wanted), _and(own)])


_ORCHESTRATOR = 'projectcalico.org/orchestrator == "k8s"'


def _and(terms: Sequence[str]) -> str:
    return terms[0] if len(terms) == 1 else f"({' && '.join(terms)})"


def _terms(labels: api.LabelSelector, prefix: str = "") -> Iterator[str]:
    for key, value in sorted(labels.match_labels.items()):
        yield f'{prefix}{key} == "{value}"'
    for each in labels.match_expressions:
        values = ", ".join(f'"{value}"' for value in sorted(set(each.values)))
        match each.operator:
            case Operator.IN:
                yield f"{prefix}{each.key} in {{{values}}}"
            case Operator.NOT_IN:
                yield f"{prefix}{each.key} not in {{{values}}}"
            case Operator.EXISTS:
                yield f"has({prefix}{each.key})"
            case Operator.DOES_NOT_EXIST:
                yield f"!has({prefix}{each.key})"


def _hashed(kind: str, text: str) -> str:
    digest = urlsafe_b64encode(sha224(f"{kind}:{text}".encode()).digest()).decode().rstrip("=")
    return f"{kind}:{digest}"


def _set_name(of: int, identity: str) -> str:
    return f"cali{of}0{identity}"[:LONGEST_SET]


# --- what a rule asks, in pieces that iptables can say ----------------------------------------------------------------


class Clause(NamedTuple):
    """One peer and the ports of one protocol (None: of any): what Calico makes one rule of. No `ranges` and no `names`
    are all ports.
    """

    peer: plan.Peer
    protocol: api.Protocol | None
    ranges: tuple[tuple[int, int], ...] = ()
    names: tuple[str, ...] = ()


def _clauses(rule: plan.Rule) -> Iterator[Clause]:
    """A rule for each protocol, in the order of their names, and each peer."""
    for protocol, ranges, names in _by_protocol(rule.ports):
        for peer in rule.peers:
            if not isinstance(peer, plan.Domain):
                yield Clause(peer, protocol, ranges, names)


def _by_protocol(
    ports: Iterable[plan.Ports],
) -> Iterator[tuple[api.Protocol | None, tuple[tuple[int, int], ...], tuple[str, ...]]]:
    held: dict[api.Protocol, list[plan.Ports]] = {}
    for each in ports:
        if each.protocol is None and not each.name:
            yield None, (), ()
            return
        for protocol in TRANSPORTS if each.protocol is None else (each.protocol,):
            held.setdefault(protocol, []).append(each)
    for protocol, those in sorted(held.items()):
        if any(each.every for each in those):
            yield protocol, (), ()
        else:
            numbers = [(each.first, each.last) for each in those if not each.name]
            yield protocol, _merged(numbers), tuple(each.name for each in those if each.name)


def _merged(ranges: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    """The same ports in as few ranges as possible."""
    found: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return tuple(found)


def _in_multiports(ranges: Iterable[tuple[int, int]]) -> Iterator[Multiport]:
    held: list[tuple[int, int]] = []
    room = MOST_PORTS
    for first, last in ranges:
        needed = 1 if first == last else 2
        if room < needed:
            yield Multiport(tuple(held))
            held, room = [], MOST_PORTS
        held.append((first, last))
        room -= needed
    if held:
        yield Multiport(tuple(held))


# --- the whole cluster ------------------------------------------------------------------------------------------------


class Tiered(NamedTuple):
    """The policies of one tier that are about a pod, those of the same selector together."""

    tier: Tier
    groups: tuple[tuple[Policy, ...], ...]


class Ruleset(msgspec.Struct, frozen=True, dict=True):
    """What all policies of a cluster become under a CNI that has its rules written as Felix does. What is worked out
    for one node is kept for the others.
    """

    policies: Policies
    attachment: Attachment

    def node(self, cables: Mapping[str, str]) -> Part:
        """The chains, sections and sets of a node, from the pods that run there: their names, and the node's end of
        each one's cable. Nothing where no policy is about any of them.
        """
        patches: list[Patch] = []
        sets: dict[str, IpSet] = {}
        for of in FAMILIES:
            pods = [(each, cables[each.name]) for each in self._endpoints(cables) if each.address(of)]
            chains: dict[str, Callable[[], Chain]] = {}
            sections: dict[str, Section] = {}
            for direction in (INGRESS, EGRESS):
                for endpoint, device in pods:
                    tiers = self.tiers(endpoint, direction)
                    if tiers:
                        name = self.attachment.chains(device)[direction is EGRESS]
                        ahead_of = self.attachment.otherwise[direction is EGRESS]
                        sections[name] = Section(partial(self._section, name, tiers, direction), ahead_of)
                        chains |= self._chains(tiers, direction, of)
                        for policy in (each for tiered in tiers for group in tiered.groups for each in group):
                            sets |= self._sets_of(policy, of)
            if sections:
                patches.append(Patch(self.attachment.table, of, chains=dict(sorted(chains.items())), sections=sections))
        return Part(patches=tuple(patches), ipsets=tuple(sets[name] for name in sorted(sets)))

    def _endpoints(self, names: Iterable[str]) -> Iterator[Endpoint]:
        known = self.policies.by_name
        return (known[name] for name in names if name in known)

    def tiers(self, endpoint: Endpoint, direction: Direction) -> tuple[Tiered, ...]:
        """Which policies are asked about a pod's packets of a direction, tier by tier, in the order of asking."""
        found = []
        selecting = self.policies.selecting(endpoint, direction)
        for tier in dict.fromkeys(policy.tier for policy in selecting):
            asked = [policy for policy in selecting if policy.tier is tier]
            if tier is Tier.NETWORK_POLICY:
                asked.sort(key=policy_name)
            groups = (tuple(group) for _, group in groupby(asked, key=_subject))
            found.append(Tiered(tier, tuple(groups)))
        return tuple(found)

    # Sections: in the chain of a device

    def _section(self, chain: str, tiers: Iterable[Tiered], direction: Direction) -> list[Rule]:
        return [
            Rule(self.attachment.table, chain, matches, target, about)
            for tiered in tiers
            for matches, target, about in self._tier(tiered, direction)
        ]

    def _tier(self, tiered: Tiered, direction: Direction) -> Iterator[tuple[tuple[Match, ...], Target, str]]:
        marks, tier = self.attachment.marks, TIERS[tiered.tier]
        not_passed = Mark(0, marks.passed)
        yield (Comment(f"Start of tier {tier}"),), SetMark(0, marks.passed), ""
        for group in tiered.groups:
            yield (not_passed,), Jump(self._asked(group, direction)), _refs(group)
            accepted = (Comment("Return if policy accepted"), Mark(marks.accepted, marks.accepted))
            yield accepted, RETURN, ""
        if tiered.tier is Tier.NETWORK_POLICY:
            asked = _refs(policy for group in tiered.groups for policy in group)
            last = Comment(f"End of tier {tier}. Drop if no policies passed packet")
            yield (last, not_passed), DROP, f"not allowed by {asked}"

    def _asked(self, group: Sequence[Policy], direction: Direction) -> str:
        """The chain that asks these policies: their own, or that of the group."""
        return self.chain_name(group[0]) if len(group) == 1 else self._group_name(group, direction)

    # Chains of policies

    def chain_name(self, policy: Policy) -> str:
        """The chain of a policy in one direction: `cali-pi-_ow6sOLvn1e12_cxXXGR`."""
        name = f"{TIERS[policy.tier]}/{policy_name(policy)}"
        return shortened(SIDES[policy.direction].policy, name, self.attachment.longest)

    def _group_name(self, group: Sequence[Policy], direction: Direction) -> str:
        side = SIDES[direction]
        names = [policy_name(policy) for policy in group]
        lines = [TIERS[group[0].tier], _subject(group[0]), side.inbound, f"{len(names)}", *names]
        digest = sha3_224("".join(f"{line}\n" for line in lines).encode()).digest()
        room = 28 - len(side.group)
        return side.group + urlsafe_b64encode(digest).decode()[:room]

    def _chains(self, tiers: Iterable[Tiered], direction: Direction, of: int) -> dict[str, Callable[[], Chain]]:
        found: dict[str, Callable[[], Chain]] = {}
        for tiered in tiers:
            for group in tiered.groups:
                if len(group) > 1:
                    name = self._group_name(group, direction)
                    found[name] = partial(self._group, name, group)
                for policy in group:
                    found[self.chain_name(policy)] = partial(self._policy, policy, of)
        return found

    def _group(self, name: str, group: Sequence[Policy]) -> Chain:
        """A chain that asks several policies, and looks after each fifth whether one has decided."""
        marks, table = self.attachment.marks, self.attachment.table
        decided = marks.accepted | marks.passed
        rules: list[Rule] = []
        for at, policy in enumerate(group):
            first = at % STRIDE == 0
            if at and first:
                matches = (Comment("Return on verdict"), Mark(0, decided, invert=True))
                rules.append(Rule(table, name, matches, RETURN))
            undecided = () if first else (Mark(0, decided),)
            rules.append(Rule(table, name, undecided, Jump(self.chain_name(policy)), policy.ref))
        return Chain(name, tuple(rules))

    def _policy(self, policy: Policy, of: int) -> Chain:
        key = (self.chain_name(policy), of)
        if key not in self._built:
            self._built[key] = self._written(policy, of)
        return self._built[key]

    def _written(self, policy: Policy, of: int) -> Chain:
        name, table = self.chain_name(policy), self.attachment.table
        lines = [
            (matches, target, f"{policy.ref}, {rule.field}")
            for rule in policy.rules
            for clause in _clauses(rule)
            for matches, target in self._lines(clause, rule.action, policy.direction, of)
        ]
        while lines and lines[-1][1] == RETURN:  # what comes to the end of a chain returns anyway
            lines.pop()
        lines = lines or [((), NOTHING, policy.ref)]
        said = Comment(f"Policy {policy_name(policy)} {SIDES[policy.direction].word}"[:LONGEST_COMMENT])
        first, target, about = lines[0]
        lines[0] = (_commented(first, said), target, about)
        return Chain(name, tuple(Rule(table, name, *line) for line in lines))

    @cached_property
    def _built(self) -> dict[tuple[str, int], Chain]:
        return {}

    # Rules

    def _lines(self, clause: Clause, action: RuleAction, direction: Direction, of: int) -> Iterator[Line]:
        """What Calico writes for one peer and the ports of one protocol: what must be worked out before, the rule that
        sets the bit of its verdict, and what the verdict does. Nothing for a block of the other family.
        """
        peer = clause.peer
        if isinstance(peer, plan.Block) and peer.prefix.family != of:
            return
        marks, inbound = self.attachment.marks, direction is INGRESS
        whole = SetMark(marks.whole, marks.whole)
        protocol = (Protocol4(str(clause.protocol)),) if clause.protocol is not None else ()
        ports = [
            *((*protocol, each) for each in _in_multiports(clause.ranges)),
            *((MatchSet(self._named(clause, name, direction, of).name, ("dst", "dst")),) for name in clause.names),
        ]
        holes = peer.holes if isinstance(peer, plan.Block) else ()
        blocks: list[Line] = [(each, whole) for each in ports] if len(ports) > 1 else []
        if blocks or holes:
            started = 0 if blocks else marks.whole
            yield (), SetMark(started, marks.whole | marks.part)
        yield from blocks
        for hole in holes:
            yield (_end(hole, inbound),), SetMark(0, marks.whole)
        matches: list[Match] = [*self._block(peer, inbound), *protocol, *self._members(clause, direction, of)]
        if not blocks:
            matches += (each for test in ports for each in test if not isinstance(each, Protocol4))
        if blocks or holes:
            matches.append(Mark(marks.whole, marks.whole))
        bit, does = {
            RuleAction.ACCEPT: (marks.accepted, RETURN),
            RuleAction.PASS: (marks.passed, RETURN),
            RuleAction.DENY: (marks.dropped, DROP),
        }[action]
        yield tuple(matches), SetMark(bit, bit)
        yield (Mark(bit, bit),), does

    def _block(self, peer: plan.Peer, inbound: bool) -> Iterator[Match]:  # noqa: FBT001 - whose address it is
        if isinstance(peer, plan.Block) and peer.prefix not in EVERYWHERE:
            yield _end(peer.prefix, inbound)

    def _members(self, clause: Clause, direction: Direction, of: int) -> Iterator[Match]:
        """The match with the set of a peer. A set of named ports holds the peer's alone, where the peer has the ports,
        so that another set is needed for numbers only.
        """
        covered = direction is EGRESS and clause.names and not clause.ranges
        held = None if covered else self._set(clause.peer, of)
        if held is not None:
            yield MatchSet(held.name, ("src" if direction is INGRESS else "dst",))

    # Sets

    def _sets_of(self, policy: Policy, of: int) -> dict[str, IpSet]:
        """The sets that a policy's chain asks."""
        key = (self.chain_name(policy), of)
        if key not in self._asked_of:
            self._asked_of[key] = {each.name: each for each in self._needed(policy, of)}
        return self._asked_of[key]

    def _needed(self, policy: Policy, of: int) -> Iterator[IpSet]:
        for clause in (each for rule in policy.rules for each in _clauses(rule)):
            covered = policy.direction is EGRESS and clause.names and not clause.ranges
            held = None if covered else self._set(clause.peer, of)
            if held is not None:
                yield held
            for name in clause.names:
                yield self._named(clause, name, policy.direction, of)

    @cached_property
    def _asked_of(self) -> dict[tuple[str, int], dict[str, IpSet]]:
        return {}

    def _set(self, peer: plan.Peer, of: int) -> IpSet | None:
        """The addresses that a peer means, where it is no block and not everybody."""
        if isinstance(peer, plan.Pods):
            text = selector(peer)
            return self._kept(_hashed("s", text), of, lambda: self._addresses(peer, text, of))
        if isinstance(peer, plan.Machines):
            text = _and(list(_terms(peer.nodes)) or ["all()"])
            return self._kept(_hashed("nodes", text), of, lambda: self._node_addresses(peer, of))
        return None

    def _addresses(self, pods: plan.Pods, text: str, of: int) -> tuple[str, ...]:
        own = self._own[of]
        return tuple(own[name] for name in self._names(pods, text) if name in own)

    def _names(self, pods: plan.Pods, text: str) -> Mapping[str, None]:
        """The names of the pods that a selector means, in their order; `text` is the selector in Calico's language."""
        if text not in self._meant:
            self._meant[text] = dict.fromkeys(each.name for each in self.policies.meant(pods))
        return self._meant[text]

    @cached_property
    def _meant(self) -> dict[str, Mapping[str, None]]:
        return {}

    @cached_property
    def _own(self) -> Mapping[int, Mapping[str, str]]:
        """The address of each pod that has one, by family and name."""
        pods = self.policies.endpoints
        return {of: {each.name: each.address(of) for each in pods if each.address(of)} for of in FAMILIES}

    def _node_addresses(self, machines: plan.Machines, of: int) -> tuple[str, ...]:
        held = self.policies.machines.values()
        found = (ip for each in held if machines.nodes.matches(each.labels) for ip in each.addresses)
        return tuple(ip for ip in found if family(ip) == of)

    def _named(self, clause: Clause, name: str, direction: Direction, of: int) -> IpSet:
        """The addresses and ports that a name means: of the peer where the peer is the destination, else of all."""
        peer = clause.peer if direction is EGRESS and isinstance(clause.peer, plan.Pods) else None
        protocol = clause.protocol or api.Protocol.TCP
        text = selector(peer) if peer is not None else "all()"
        identity = _hashed("n", f"{_hashed('s', text)},{protocol.lower()},{name}")

        def members() -> tuple[str, ...]:
            return self._ports(None if peer is None else self._names(peer, text), name, protocol, of)

        return self._kept(identity, of, members, SetType.IP_PORT)

    def _ports(self, those: Mapping[str, None] | None, name: str, protocol: api.Protocol, of: int) -> tuple[str, ...]:
        own = self._own[of]
        found = (
            f"{own[each.name]},{protocol.lower()}:{number}"
            for each, number in self._naming.get((name, protocol), ())
            if each.name in own and (those is None or each.name in those)
        )
        return tuple(dict.fromkeys(found))

    @cached_property
    def _naming(self) -> Mapping[tuple[str, api.Protocol], list[tuple[Endpoint, int]]]:
        """The pods that give a port a name, and the numbers that they mean. Ports of nodes have no names."""
        found: dict[tuple[str, api.Protocol], list[tuple[Endpoint, int]]] = {}
        for each in self.policies.endpoints:
            for port in () if each.host_network else each.ports:
                found.setdefault((port.name, port.protocol), []).append((each, port.number))
        return found

    def _kept(
        self, identity: str, of: int, members: Callable[[], tuple[str, ...]], kind: SetType = SetType.NET
    ) -> IpSet:
        name = _set_name(of, identity)
        if name not in self._sets:
            self._sets[name] = IpSet(name, kind, members(), of, maxelem=MOST_MEMBERS)
        return self._sets[name]

    @cached_property
    def _sets(self) -> dict[str, IpSet]:
        return {}


STRIDE = 5
MOST_MEMBERS = 1048576


def _subject(policy: Policy) -> str:
    """The selector of the pods that a policy is about, as Calico keeps it."""
    pods = policy.subject
    own = _and([_ORCHESTRATOR, *_terms(pods.pods)])
    if pods.namespace:
        return _and([own, f'projectcalico.org/namespace == "{pods.namespace}"'])
    return _and([own, _and(list(_terms(pods.namespaces, "pcns.")) or ["has(projectcalico.org/namespace)"])])


def _refs(policies: Iterable[Policy]) -> str:
    return ", ".join(policy.ref for policy in policies)


def _end(block: Prefix, inbound: bool) -> Match:  # noqa: FBT001 - whose address it is
    return Source(block) if inbound else Destination(block)


def _commented(matches: tuple[Match, ...], comment: Comment) -> tuple[Match, ...]:
    """With the comment in its place: behind addresses and protocol, as rules are printed."""
    at = sum(isinstance(each, Source | Destination | Protocol4) for each in matches)
    return (*matches[:at], comment, *matches[at:])


def node(policies: Policies, attachment: Attachment, cables: Mapping[str, str]) -> Part:
    """What the policies are on one node, whose pods have these cables: `{"shop/db-0": "cali9ae1fe16e6f"}`."""
    return Ruleset(policies, attachment).node(cables)
