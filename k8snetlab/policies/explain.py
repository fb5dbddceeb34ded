"""What is the smallest change that would let this connection pass, or stop it?

A policy means pods by their labels, so replicas of one workload cannot be told apart and should not be: a change for
one is a change for all of its kind. Beyond them, a good change turns the verdict that was asked for and no other.

Several changes are tried, and the engine judges each of them over every kind of pod of the cluster, in both directions:
a port or a peer more (or less) in a rule that is there, a rule more (or less) in a policy that is there, or a policy of
its own. The one that turns the fewest other verdicts is taken, and of those the one that writes least. What is found is
an object as it would be after the change, so that it can be applied: `cluster.applied(*change.objects)`.

To stop one connection of a pod that is open to all, NetworkPolicies are of little help: they only allow. The change is
then a rule of the Admin tier where the network reads those, else a NetworkPolicy that lets in every address but one.

Not modelled: changes of labels, several changes together where one would do. Guide section 4.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, permutations
from typing import Any, NamedTuple, TypeAlias

import msgspec

from k8snetlab import api
from k8snetlab.address import Prefix, family
from k8snetlab.api.selectors import Operator
from k8snetlab.errors import CannotDo, Problem
from k8snetlab.policies.engine import Judgement, PolicyVerdict, judged
from k8snetlab.policies.plan import (
    EGRESS,
    INGRESS,
    Block,
    Direction,
    End,
    Endpoint,
    Flow,
    Outside,
    Policies,
    Policy,
    Rule,
    RuleAction,
    Tier,
)

__all__ = ["Change", "own_labels", "selector_for", "to_allow", "to_forbid"]

Written: TypeAlias = api.NetworkPolicy | api.ClusterNetworkPolicy


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Policies as they are after the change, and what it does. `print` it for the manifests.

    `also` are other connections whose verdict it turns as well, of pods that are not of the same kind; `verdict` is
    that of the connection after it.
    """

    objects: tuple[Written, ...]
    says: tuple[str, ...]
    verdict: PolicyVerdict
    also: tuple[str, ...] = ()

    def __str__(self) -> str:
        more = f"\n# it also turns {len(self.also)} more: {'; '.join(self.also[:3])}" if self.also else ""
        return f"# {'; '.join(self.says)}{more}\n{api.to_yaml(*self.objects)}"

    def __repr__(self) -> str:
        return str(self)

    def as_dict(self) -> dict[str, Any]:
        """The change as plain data."""
        return {
            "says": list(self.says),
            "also": list(self.also),
            "objects": [api.to_dict(each) for each in self.objects],
        }


def to_allow(policies: Policies, flow: Flow) -> Change:
    """The smallest change that lets a connection pass. Raises `CannotDo` where it passes already."""
    before = judged(policies, flow)
    if before:
        raise CannotDo(Problem(f"it is allowed already: {before.reason}"))
    return _turned(policies, flow, before)


def to_forbid(policies: Policies, flow: Flow) -> Change:
    """The smallest change that stops a connection. Raises `CannotDo` where it is stopped already, and where no policy
    can stop it.
    """
    before = judged(policies, flow)
    if not before:
        raise CannotDo(Problem(f"it is denied already: {before.reason}"))
    return _turned(policies, flow, before)


# --- trying -----------------------------------------------------------------------------------------------------------


class _Edit(NamedTuple):
    """One thing that can be tried: policies after it, in words, and how much it writes (less is better)."""

    objects: tuple[Written, ...]
    says: str
    cost: int


def _turned(policies: Policies, flow: Flow, before: PolicyVerdict) -> Change:
    """End by end, the best edit; a connection that both ends deny needs one for each."""
    ends = [each for each in (before.egress, before.ingress) if each.allowed == before.allowed]
    if before.allowed:
        return _stopped(policies, flow, ends)
    now, says = policies, []
    objects: dict[str, Written] = {}
    for judgement in ends:
        edit = _best(now, flow, judgement.direction, _allowing(now, flow, judgement))
        now = _with(now, edit.objects)
        objects |= {each.ref: each for each in edit.objects}
        says.append(edit.says)
    return _change(policies, now, flow, tuple(objects.values()), says)


def _stopped(policies: Policies, flow: Flow, ends: Sequence[Judgement]) -> Change:
    """One end is enough: the better of the two."""
    found = []
    for judgement in ends:
        if isinstance(flow.subject(judgement.direction), Endpoint):
            tried = list(_forbidding(policies, flow, judgement))
            found += [each for each in tried if not judged(_with(policies, each.objects), flow)]
    if not found:
        raise CannotDo(Problem(f"no policy can stop it: {judged(policies, flow).reason}"))
    edit = min(found, key=lambda each: (_reach(policies, flow, each.objects), each.cost))
    return _change(policies, _with(policies, edit.objects), flow, edit.objects, [edit.says])


def _best(policies: Policies, flow: Flow, direction: Direction, tried: Iterable[_Edit]) -> _Edit:
    """Of the edits that open this end, the one that turns fewest other verdicts, and of those the smallest."""
    opened = []
    for edit in tried:
        after = judged(_with(policies, edit.objects), flow)
        if after.ingress.allowed if direction is INGRESS else after.egress.allowed:
            opened.append(edit)
    if not opened:
        raise CannotDo(Problem("no single rule would allow it"))
    return min(opened, key=lambda each: (_reach(policies, flow, each.objects), each.cost))


def _change(before: Policies, after: Policies, flow: Flow, objects: tuple[Written, ...], says: Sequence[str]) -> Change:
    also = tuple(
        f"{now.flow.called[0]} -> {now.flow.called[1]} {now.flow.port}/{now.flow.protocol}"
        for was, now in _felt(before, flow, objects)
        if was.allowed != now.allowed
    )
    return Change(objects=objects, says=tuple(says), verdict=judged(after, flow), also=also)


def _with(policies: Policies, objects: Iterable[Written]) -> Policies:
    """The policies after an object is applied."""
    new = {each.ref: each for each in objects}
    own = [new.pop(each.ref, each) for each in policies.network_policies]
    above = [new.pop(each.ref, each) for each in policies.cluster_policies]
    own += [each for each in new.values() if isinstance(each, api.NetworkPolicy)]
    above += [each for each in new.values() if isinstance(each, api.ClusterNetworkPolicy)]
    return msgspec.structs.replace(
        policies,
        network_policies=tuple(each for each in own if isinstance(each, api.NetworkPolicy)),
        cluster_policies=tuple(each for each in above if isinstance(each, api.ClusterNetworkPolicy)),
    )


MOST_KINDS = 60
"""So many kinds of pods are looked at for other verdicts that turn: those of the two ends first, then their neighbours
in the two namespaces.
"""


def _reach(policies: Policies, flow: Flow, objects: Sequence[Written]) -> int:
    """At how many ends of other connections a change is felt, also where the other end decides all the same."""
    return sum(
        (was.egress.allowed != now.egress.allowed) + (was.ingress.allowed != now.ingress.allowed)
        for was, now in _felt(policies, flow, objects)
    )


def _felt(before: Policies, flow: Flow, objects: Sequence[Written]) -> Iterator[tuple[PolicyVerdict, PolicyVerdict]]:
    """Other connections that a change could be felt by, judged before and after it: those with an end that a changed
    policy selects.
    """
    after = _with(before, objects)
    refs = {each.ref for each in objects}
    changed = [each for side in (before, after) for each in (*side.ingress, *side.egress) if each.ref in refs]
    touched: dict[str, bool] = {}
    for other in _beside(before, flow):
        for end in (other.source, other.destination):
            if end.name not in touched:
                selects = isinstance(end, Endpoint) and any(each.subject.selects(end, before) for each in changed)
                touched[end.name] = selects
        if touched[other.source.name] or touched[other.destination.name]:
            yield judged(before, other), judged(after, other)


def _beside(policies: Policies, flow: Flow) -> Iterator[Flow]:
    """The connections that a change should not touch: between all kinds of pods, and the world, for which one address
    stands.
    """
    kinds: dict[tuple[object, ...], End] = {_kind(end): end for end in (flow.source, flow.destination)}
    homes = dict.fromkeys(end.namespace for end in (flow.source, flow.destination) if isinstance(end, Endpoint))
    near = chain.from_iterable(policies.by_namespace.get(home, ()) for home in homes)
    for pod in chain(near, policies.endpoints):
        if len(kinds) < MOST_KINDS:
            kinds.setdefault(_kind(pod), pod)
    world = Outside(("203.0.113.1", "2001:db8::1"))
    kinds.setdefault(_kind(world), world)
    of = 6 if ":" in flow.source_address + flow.destination_address else 4
    asked = (_kind(flow.source), _kind(flow.destination), flow.port, flow.protocol)
    for (one, source), (two, destination) in permutations(kinds.items(), 2):
        if not (isinstance(source, Endpoint) or isinstance(destination, Endpoint)):
            continue
        for port, protocol in _ports(flow, destination):
            if (one, two, port, protocol) != asked:
                yield Flow(source, destination, source.address(of), destination.address(of), protocol, port)


def _ports(flow: Flow, destination: End) -> tuple[tuple[int, api.Protocol], ...]:
    """The port that is asked about, one beside it, the same of another protocol, and what the destination names."""
    other = api.Protocol.UDP if flow.protocol is not api.Protocol.UDP else api.Protocol.TCP
    beside = flow.port + 1 if flow.port < 65535 else flow.port - 1
    named = [(each.number, each.protocol) for each in destination.ports] if isinstance(destination, Endpoint) else []
    return tuple(dict.fromkeys([(flow.port, flow.protocol), (beside, flow.protocol), (flow.port, other), *named]))


def _kind(end: End) -> tuple[object, ...]:
    """What cannot be told apart by policies: pods of one namespace with the same labels of their own."""
    if isinstance(end, Endpoint):
        return ("pod", end.namespace, tuple(sorted(own_labels(end).items())), end.host_network)
    return (type(end).__name__, end.name)


# --- how pods are meant -----------------------------------------------------------------------------------------------

_GIVEN = (
    "pod-template-hash", "controller-revision-hash", "pod-template-generation", "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-completion-index",
    "controller-uid",
)  # fmt: skip
"""Labels that a controller gives each pod or each revision; no policy should rest on them."""


def own_labels(pod: Endpoint) -> Mapping[str, str]:
    """The labels that somebody chose for a pod."""
    return {key: value for key, value in pod.labels.items() if key not in _GIVEN}


def selector_for(policies: Policies, pod: Endpoint) -> api.LabelSelector:
    """The shortest selector that means the pods of one kind and no others of their namespace: one label, or all of
    them, and where other pods have these and more, the absence of what only those have.
    """
    own = own_labels(pod)
    others = [
        own_labels(each)
        for each in policies.endpoints
        if each.namespace == pod.namespace and own_labels(each) != own and not each.host_network
    ]
    for key, value in own.items():
        if all(each.get(key) != value for each in others):
            return api.LabelSelector(match_labels={key: value})
    alike = [each for each in others if own.items() <= each.items()]
    absent: list[str] = []
    while alike:
        key = min(key for key in alike[0] if key not in own)
        absent.append(key)
        alike = [each for each in alike if key not in each]
    return api.LabelSelector(
        match_labels=own,
        match_expressions=tuple(
            api.LabelSelectorRequirement(key=key, operator=Operator.DOES_NOT_EXIST) for key in absent
        ),
    )


def _peer(policies: Policies, end: End, address: str, namespace: str) -> dict[str, Any]:
    """A peer of a NetworkPolicy that means one end."""
    if not isinstance(end, Endpoint) or end.host_network:
        return {"ipBlock": {"cidr": _host(address)}}
    said: dict[str, Any] = {"podSelector": api.to_dict(selector_for(policies, end))}
    if end.namespace != namespace:
        said["namespaceSelector"] = _named(end.namespace)
    return said


def _cluster_peer(policies: Policies, end: End, address: str) -> dict[str, Any]:
    """A peer of a ClusterNetworkPolicy that means one end."""
    if not isinstance(end, Endpoint) or end.host_network:
        return {"networks": [_host(address)]}
    return {"pods": _pods(policies, end)}


def _pods(policies: Policies, pod: Endpoint) -> dict[str, Any]:
    return {"namespaceSelector": _named(pod.namespace), "podSelector": api.to_dict(selector_for(policies, pod))}


def _named(namespace: str) -> dict[str, Any]:
    return {"matchLabels": {"kubernetes.io/metadata.name": namespace}}


def _host(address: str) -> str:
    return f"{address}/{32 if family(address) == 4 else 128}"


# --- what would allow -------------------------------------------------------------------------------------------------

_SIDE = {INGRESS: "from", EGRESS: "to"}


def _allowing(policies: Policies, flow: Flow, judgement: Judgement) -> Iterator[_Edit]:
    direction, subject = judgement.direction, flow.subject(judgement.direction)
    assert isinstance(subject, Endpoint)
    if judgement.tier is not Tier.NETWORK_POLICY:
        yield from _above(policies, flow, judgement, RuleAction.ACCEPT)
        return
    isolating = [each for each in judgement.policies if each.isolates]
    yield from chain.from_iterable(_wider(policies, each, flow) for each in isolating)
    port = {"protocol": str(flow.protocol), "port": flow.port}
    peer = _peer(policies, *flow.peer(direction), subject.namespace)
    rule = {_SIDE[direction]: [peer], "ports": [port]}
    for policy in isolating:
        plain = _plain(policy)
        plain["spec"].setdefault(direction.lower(), []).append(rule)
        says = f"{policy.ref} needs one more rule in spec.{direction.lower()}"
        yield _Edit((_made(plain),), says, 30)
    name = _free_name(policies, f"allow-{flow.port}-{flow.protocol.lower()}-{direction.lower()}", subject.namespace)
    spec = {
        "podSelector": api.to_dict(selector_for(policies, subject)), "policyTypes": [str(direction)],
        direction.lower(): [rule],
    }  # fmt: skip
    new = _made(_head(api.NetworkPolicy, name, subject.namespace) | {"spec": spec})
    yield _Edit((new,), f"{new.ref} is new and allows it at {subject.name}", 40)


def _wider(policies: Policies, policy: Policy, flow: Flow) -> Iterator[_Edit]:
    """A port more where the peer is right already, or a peer more where the port is."""
    direction, field = policy.direction, policy.direction.lower()
    end, address = flow.peer(direction)
    for index, rule in enumerate(policy.rules):
        meant = any(each.means(end, address, policies) for each in rule.peers)
        ported = any(each.match(flow.destination, flow.protocol, flow.port) for each in rule.ports)
        plain = _plain(policy)
        if meant and not ported:
            plain["spec"][field][index]["ports"].append({"protocol": str(flow.protocol), "port": flow.port})
            yield _Edit((_made(plain),), f"{policy.ref} needs one more port in {rule.field}.ports", 10)
        elif ported and not meant:
            peer = _peer(policies, end, address, policy.namespace)
            plain["spec"][field][index][_SIDE[direction]].append(peer)
            yield _Edit((_made(plain),), f"{policy.ref} needs one more peer in {rule.field}.{_SIDE[direction]}", 20)


# --- what would forbid ------------------------------------------------------------------------------------------------


def _forbidding(policies: Policies, flow: Flow, judgement: Judgement) -> Iterator[_Edit]:
    if judgement.tier is Tier.NETWORK_POLICY:
        yield from _narrower(policies, flow, judgement)
    if policies.choices.enforced and policies.choices.cluster_policies:
        yield from _above(policies, flow, judgement, RuleAction.DENY)
    if judgement.tier is None and policies.choices.enforced:
        yield _all_but(policies, flow, judgement)


def _narrower(policies: Policies, flow: Flow, judgement: Judgement) -> Iterator[_Edit]:
    """Take what allows it out of every rule that does: the port, the peer, or the whole rule."""
    direction, field, side = judgement.direction, judgement.direction.lower(), _SIDE[judgement.direction]
    end, address = flow.peer(direction)
    yield from _holed(policies, flow, judgement)
    allowing = [
        (policy, index, rule)
        for policy in judgement.policies
        if policy.isolates
        for index, rule in enumerate(policy.rules)
        if policies.matches(rule, direction, flow)
    ]
    for what, cost in (("ports", 10), (side, 20), ("", 30)):
        plains: dict[str, dict[str, Any]] = {}
        says = []
        for policy, index, rule in reversed(allowing):  # from the end, so that places stay right
            plain = plains.setdefault(policy.ref, _plain(policy))
            rules = plain["spec"][field]
            kept: list[Any] = []
            if what == "ports":
                kept = _left(rules[index].get("ports", ()), [
                    each.match(flow.destination, flow.protocol, flow.port) for each in rule.ports
                ])  # fmt: skip
            elif what == side:
                kept = _left(rules[index].get(side, ()), [each.means(end, address, policies) for each in rule.peers])
            if kept:
                rules[index][what] = kept
                says.append(f"{rule.field}.{what} of {policy.ref} needs one entry less")
            else:
                del rules[index]
                says.append(f"{policy.ref} must not have {rule.field}")
        yield _Edit(tuple(map(_made, plains.values())), "; ".join(reversed(says)), cost)


def _holed(policies: Policies, flow: Flow, judgement: Judgement) -> Iterator[_Edit]:
    """Where an address is stopped, and one rule allows it: a hole in the block, or all addresses but this one."""
    direction, field, side = judgement.direction, judgement.direction.lower(), _SIDE[judgement.direction]
    end, address = flow.peer(direction)
    decision = judgement.decision
    if decision is None or (isinstance(end, Endpoint) and not end.host_network):
        return
    plain = _plain(decision.policy)
    rule = plain["spec"][field][_index(decision.rule)]
    every = {4: "0.0.0.0/0", 6: "::/0"}
    of = family(address)
    if side not in rule:
        rule[side] = [
            {"ipBlock": {"cidr": every[of], "except": [_host(address)]}},
            {"ipBlock": {"cidr": every[10 - of]}},
        ]
    else:
        for peer, said in zip(decision.rule.peers, rule[side], strict=True):
            if peer.means(end, address, policies):
                if not isinstance(peer, Block) or peer.prefix == Prefix.of(_host(address)):
                    return
                said["ipBlock"].setdefault("except", []).append(_host(address))
    yield _Edit((_made(plain),), f"{decision} needs a hole for {address}", 15)


def _left(said: Sequence[Any], matching: Sequence[bool]) -> list[Any]:
    """The entries that do not match; nothing where no entry was said."""
    return [each for each, gone in zip(said, matching, strict=False) if not gone]


def _all_but(policies: Policies, flow: Flow, judgement: Judgement) -> _Edit:
    """A NetworkPolicy that lets everything pass but this: all addresses but one, and from that one all other ports."""
    direction, subject = judgement.direction, flow.subject(judgement.direction)
    assert isinstance(subject, Endpoint)
    _, address = flow.peer(direction)
    of, side = family(address), _SIDE[direction]
    every = {4: "0.0.0.0/0", 6: "::/0"}
    blocks = [{"ipBlock": {"cidr": every[of], "except": [_host(address)]}}, {"ipBlock": {"cidr": every[10 - of]}}]
    rest: list[dict[str, Any]] = [{"protocol": str(each)} for each in api.Protocol if each is not flow.protocol]
    for first, last in ((1, flow.port - 1), (flow.port + 1, 65535)):
        if first <= last:
            rest.append({"protocol": str(flow.protocol), "port": first, "endPort": last})
    rules = [{side: blocks}, {side: [{"ipBlock": {"cidr": _host(address)}}], "ports": rest}]
    name = _free_name(policies, f"all-but-{flow.port}-{flow.protocol.lower()}", subject.namespace)
    spec = {
        "podSelector": api.to_dict(selector_for(policies, subject)), "policyTypes": [str(direction)],
        direction.lower(): rules,
    }  # fmt: skip
    new = _made(_head(api.NetworkPolicy, name, subject.namespace) | {"spec": spec})
    return _Edit((new,), f"{new.ref} is new and allows everything but {address} at this port", 60)


# --- the tiers --------------------------------------------------------------------------------------------------------


def _above(policies: Policies, flow: Flow, judgement: Judgement, action: RuleAction) -> Iterator[_Edit]:
    """A rule of a ClusterNetworkPolicy before the one that decides: in that policy, or in a policy of its own."""
    direction, subject = judgement.direction, flow.subject(judgement.direction)
    assert isinstance(subject, Endpoint)
    end, address = flow.peer(direction)
    if direction is INGRESS and (not isinstance(end, Endpoint) or end.host_network):
        return  # ingress of the tiers knows pods alone
    side = _SIDE[direction]
    match = {flow.protocol.lower(): {"destinationPort": {"number": flow.port}}}
    rule = {"action": str(action), side: [_cluster_peer(policies, end, address)], "protocols": [match]}
    decision = judgement.decision
    own = decision is not None and decision.policy.tier is not Tier.NETWORK_POLICY
    if decision is not None and own:
        plain = _plain(decision.policy)
        plain["spec"][direction.lower()].insert(_index(decision.rule), rule)
        yield _Edit((_made(plain),), f"{decision.policy.ref} needs a rule before {decision.rule.field}", 35)
    tiers = (decision.policy.tier, Tier.ADMIN) if decision is not None and own else (Tier.ADMIN,)
    name = _free_name(policies, f"{action.lower()}-{flow.port}-{flow.protocol.lower()}", "")
    for tier, priority in _before(judgement, dict.fromkeys(tiers)):
        spec = {
            "tier": str(tier), "priority": priority, "subject": {"pods": _pods(policies, subject)},
            direction.lower(): [rule],
        }  # fmt: skip
        new = _made(_head(api.ClusterNetworkPolicy, name, "") | {"spec": spec})
        says = f"{new.ref} is new and {_DOES[action]} it before all others of tier {tier}"
        yield _Edit((new,), says, 50 if tier is tiers[0] else 55)


_DOES = {RuleAction.ACCEPT: "accepts", RuleAction.DENY: "denies"}


def _index(rule: Rule) -> int:
    """The place of a rule in its list: 2 for `spec.ingress[2]`."""
    return int(rule.field.rpartition("[")[2].rstrip("]"))


def _before(judgement: Judgement, tiers: Iterable[Tier]) -> Iterator[tuple[Tier, int]]:
    """In each tier a priority that comes before those of all policies that are asked at this end, if one is left."""
    for tier in tiers:
        priority = min((each.priority for each in judgement.policies if each.tier is tier), default=101) - 1
        if priority >= 0:
            yield tier, priority


# --- objects ----------------------------------------------------------------------------------------------------------


def _plain(policy: Policy) -> dict[str, Any]:
    """An object as plain data of its own."""
    return msgspec.json.decode(msgspec.json.encode(api.to_dict(policy.object)), type=dict[str, Any])


def _head(kind: type[Written], name: str, namespace: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace} if namespace else {"name": name}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata}


def _made(plain: Mapping[str, Any]) -> Written:
    found = api.decode(plain)
    assert isinstance(found.object, Written), found.problems
    return found.object


def _free_name(policies: Policies, name: str, namespace: str) -> str:
    taken = {each.name for each in policies.written if each.namespace == namespace}
    return next(each for each in (name, *(f"{name}-{at}" for at in range(2, 10_000))) if each not in taken)
