"""What did a policy controller look like that only had iptables and lists?

weave-npc (Weave Net 2.8.1) writes two rules' worth of every sentence of a policy: which list the sender must be on, and
which the receiver. Lists are ipsets, and the chains that ask them are the same on every node:

    WEAVE-NPC-INGRESS         -m set --match-set WEB src -m set --match-set DB dst --dport 5432 -j ACCEPT
    WEAVE-NPC-EGRESS-CUSTOM   the same match twice: -j WEAVE-NPC-EGRESS-ACCEPT, which marks the packet; -j RETURN

    hash:ip    pods of a namespace by their labels; or of several namespaces, by the labels of both
    list:set   namespaces by their labels: a list of the lists of all pods of each
    hash:net   what a block leaves out

Isolation is a list too: who is selected for a direction is taken off the list of his namespace that lets everything
pass (`ingress-default-allow`), and so comes to the rule at the end of FORWARD that drops. For egress such a rule (in
WEAVE-NPC-EGRESS, for packets without the mark 0x40000) is only added when the first policy with an egress part is
seen. A set's name is a hash of what it means, so two policies with the same selector share one.

What it does not understand, as in the real one: a policy with a named port is refused as a whole, and has no effect;
`endPort` is passed over, the first port alone is meant; ClusterNetworkPolicy is not known; there is no IPv6. A block of
IPv6 is left out here (the real one fails at it, and keeps whatever rules it wrote before). Pods on one bridge are only
held back where the bridge asks iptables (`net.bridge.bridge-nf-call-iptables`).

A node that sends to a pod of another node has its bridge's address there, not the underlay's: an `ipBlock` of the
underlay does not mean it. Rules for a direction that `policyTypes` leaves out, which the real one writes all the same,
are left out. The order of rules is that of the policies; the real one's is by chance, and does not matter. Guide
sections 3.1 and 4.1; weaveworks/weave 2.8.1 (npc).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import NamedTuple

import msgspec

from k8snetlab import api
from k8snetlab.linux.host import Part
from k8snetlab.linux.ipset import IpSet, SetType
from k8snetlab.linux.netfilter import (
    ACCEPT,
    DROP,
    L4,
    RETURN,
    Comment,
    Destination,
    Jump,
    Mark,
    Match,
    MatchSet,
    Nflog,
    Patch,
    Protocol4,
    Rule,
    Section,
    Source,
    State,
    Target,
)
from k8snetlab.policies.plan import EGRESS, INGRESS, Block, Direction, Peer, Pods, Policies, Policy, Ports

__all__ = ["Controller"]

MARK = 0x40000
MARKING = "WEAVE-NPC-EGRESS-ACCEPT"
CHAINS: Mapping[Direction, str] = {INGRESS: "WEAVE-NPC-INGRESS", EGRESS: "WEAVE-NPC-EGRESS-CUSTOM"}
LAST = "WEAVE-NPC-EGRESS"
"""The chain that ends with the rule that drops, once some policy is about egress."""

AT_THE_END = "nothing is jumped to by this name"
WORDS = {INGRESS: "ingress", EGRESS: "egress"}


class Said(NamedTuple):
    """One end of a rule: how addresses are matched, what set is asked, and what the comment says."""

    block: tuple[Match, ...] = ()
    asked: tuple[Match, ...] = ()
    text: str = "anywhere"


class Controller(msgspec.Struct, frozen=True, dict=True):
    """What weave-npc makes of the policies of a cluster, the same on every node. `named` gives the name of a set by
    what it means.
    """

    policies: Policies
    named: Callable[[str], str]

    def node(self, wired: Part) -> tuple[Part, ...]:
        """What stands on a node: what the CNI writes, with the lists of whom no policy selects; and rules and sets."""
        if not wired.patches:  # a machine that takes no part in the network
            return (wired,)
        kept = tuple(self._less(each) for each in wired.ipsets)
        known = {each.name for each in kept}
        patches = tuple(map(_told, wired.patches))
        own = Part(patches=(self._patch,), ipsets=tuple(each for each in self._sets.values() if each.name not in known))
        return msgspec.structs.replace(wired, ipsets=kept, patches=patches), own

    # Sets

    def _less(self, held: IpSet) -> IpSet:
        """A list of whom everything may reach, without those that a policy selects."""
        gone = self._isolated.get(held.name)
        if not gone:
            return held
        return msgspec.structs.replace(held, entries=tuple(each for each in held.entries if each not in gone))

    @cached_property
    def _isolated(self) -> Mapping[str, set[str]]:
        """The addresses of pods that some policy selects, by the list that they are taken off."""
        found: dict[str, set[str]] = {}
        for direction in (INGRESS, EGRESS):
            for policy in self.policies.of(direction):
                name = self.named(f"{WORDS[direction]}-default-allow:{policy.namespace}")
                found.setdefault(name, set()).update(self._members(policy.subject))
        return found

    def _members(self, pods: Pods) -> tuple[str, ...]:
        found = (each.address(4) for each in self.policies.meant(pods))
        return tuple(address for address in found if address)

    @cached_property
    def _sets(self) -> Mapping[str, IpSet]:
        """The sets of all rules by name. Of two that would have the same name, there is the first."""
        found: dict[str, IpSet] = {}
        for direction in (INGRESS, EGRESS):
            for policy in self.policies.of(direction):
                for held in self._needed(policy):
                    found.setdefault(held.name, held)
        return found

    def _needed(self, policy: Policy) -> Iterator[IpSet]:
        yield from self._pods(policy.subject)
        for rule in policy.rules:
            for peer in rule.peers:
                if isinstance(peer, Pods):
                    yield from self._pods(peer)
                elif isinstance(peer, Block) and peer.holes and peer.prefix.family == 4:
                    yield IpSet(self._named(peer, policy), SetType.NET, tuple(map(str, peer.holes)))

    def _pods(self, pods: Pods) -> Iterator[IpSet]:
        """The set of a selector; that of namespaces comes after those that it lists."""
        if not _of_namespaces(pods):
            yield IpSet(self.named(_meaning(pods)), SetType.IP, self._members(pods))
            return
        listed = []
        for namespace, labels in sorted(self.policies.namespaces.items()):
            if pods.namespaces.matches(labels):
                everybody = Pods(namespace=namespace)
                yield from self._pods(everybody)
                listed.append(self.named(_meaning(everybody)))
        yield IpSet(self.named(_meaning(pods)), SetType.LIST, tuple(listed))

    def _named(self, peer: Peer, policy: Policy) -> str:
        """The name of the set that says who the other end is, or what a block leaves out."""
        if isinstance(peer, Pods):
            return self.named(_meaning(peer))
        assert isinstance(peer, Block)
        return self.named(f"{policy.namespace}:ipblock-except:{_holes(peer)}")

    # Rules

    @cached_property
    def _patch(self) -> Patch:
        sections = {CHAINS[direction]: Section(self._section(direction), AT_THE_END) for direction in (INGRESS, EGRESS)}
        if any(_is_about_egress(each) for each in self.policies.network_policies):
            sections[LAST] = Section(lambda: _LAST, AT_THE_END)
        return Patch("filter", sections=sections)

    def _section(self, direction: Direction) -> Callable[[], Sequence[Rule]]:
        return lambda: self._rules[direction]

    @cached_property
    def _rules(self) -> Mapping[Direction, tuple[Rule, ...]]:
        return {direction: tuple(self._written(direction)) for direction in (INGRESS, EGRESS)}

    def _written(self, direction: Direction) -> Iterator[Rule]:
        """The rules of a chain; what two policies say alike is there once."""
        whose: dict[tuple[Match, ...], list[str]] = {}
        for policy in self.policies.of(direction):
            for matches in self._matches(policy, direction):
                whose.setdefault(matches, []).append(policy.ref)
        targets: tuple[Target, ...] = (ACCEPT,) if direction is INGRESS else (Jump(MARKING), RETURN)
        for matches, refs in whose.items():
            about = ", ".join(dict.fromkeys(refs))
            for target in targets:
                yield Rule("filter", CHAINS[direction], matches, target, about)

    def _matches(self, policy: Policy, direction: Direction) -> Iterator[tuple[Match, ...]]:
        for rule in policy.rules:
            for peer in rule.peers:
                own = self._said(policy.subject, policy, source=direction is EGRESS)
                other = self._said(peer, policy, source=direction is INGRESS)
                if own is None or other is None:
                    continue
                first, second = (other, own) if direction is INGRESS else (own, other)
                note = Comment(f"{first.text} -> {second.text} ({WORDS[direction]})")
                for ports in rule.ports:
                    protocol, port = _transport(ports)
                    blocks = (*first.block, *second.block)
                    yield (*blocks, *protocol, *first.asked, *second.asked, *port, note)

    def _said(self, peer: Peer, policy: Policy, *, source: bool) -> Said | None:
        """How a rule asks for one end; nothing for what weave-npc cannot say."""
        way = ("src",) if source else ("dst",)
        if isinstance(peer, Pods):
            where = f"pods: namespace: {peer.namespace}" if peer.namespace else "namespaces"
            text = f"{where}, selector: {_text(peer.pods)}" if peer.namespace else f"{where}: selector: {_key(peer)}"
            return Said(asked=(MatchSet(self._named(peer, policy), way),), text=text)
        if isinstance(peer, Block):
            if peer.prefix.family != 4:
                return None
            match: Match = Source(peer.prefix) if source else Destination(peer.prefix)
            block = (match,) if peer.prefix.length else ()
            if not peer.holes:
                return Said(block, text=f"cidr: {peer.prefix}")
            asked = (MatchSet(self._named(peer, policy), way, invert=True),)
            return Said(block, asked, f"cidr: {peer.prefix} except [{_holes(peer)}]")
        return Said()


_UNMARKED = Mark(MARK, MARK, invert=True)
_LAST = (
    Rule("filter", LAST, (State(("NEW",)), _UNMARKED), Nflog(86)),
    Rule("filter", LAST, (_UNMARKED,), DROP, "no policy allows it to leave"),
)


def _told(patch: Patch) -> Patch:
    """The CNI's own rules; what is dropped at the end of FORWARD is what no policy let in, and a trace says so."""
    if patch.table != "filter":
        return patch
    first = (
        msgspec.structs.replace(rule, about="no policy lets it in")
        if rule.chain == "FORWARD" and rule.target == DROP
        else rule
        for rule in patch.first
    )
    return msgspec.structs.replace(patch, first=tuple(first))


# --- words ------------------------------------------------------------------------------------------------------------


def _of_namespaces(pods: Pods) -> bool:
    """Whether all pods of some namespaces are meant."""
    return not pods.namespace and pods.pods == api.LabelSelector()


def _text(selector: api.LabelSelector) -> str:
    return str(selector) if selector != api.LabelSelector() else ""


def _key(pods: Pods) -> str:
    """The selectors of a peer as one text."""
    return f"{_text(pods.namespaces)}{_text(pods.pods)}"


def _meaning(pods: Pods) -> str:
    """What the name of a set is a hash of."""
    return f"{pods.namespace}:{_text(pods.pods)}" if pods.namespace else f":{_key(pods)}"


def _holes(block: Block) -> str:
    return " ".join(sorted(map(str, block.holes)))


def _transport(ports: Ports) -> tuple[tuple[Match, ...], tuple[Match, ...]]:
    """The protocol, and the port with its own match behind the sets."""
    if ports.protocol is None:
        return (), ()
    name = ports.protocol.lower()
    if ports.every:
        return (Protocol4(str(ports.protocol)),), (L4(name),)
    return (Protocol4(str(ports.protocol)),), (L4(name, ports.first),)


def _is_about_egress(policy: api.NetworkPolicy) -> bool:
    """Whether a policy has an egress part, understood or not."""
    return EGRESS in policy.spec.policy_types or bool(policy.spec.egress)
