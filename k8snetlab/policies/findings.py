"""What in these policies is probably not what somebody wanted?

Nothing here is an error: the API server takes all of it. Each `Finding` names object, field, file and line, says what
is so, and where pods are concerned which. They are of four sorts:

- *nothing happens*: the network enforces nothing, or not this; a selector, peer or port name that nobody answers to;
  rules of a direction that `policyTypes` leaves out; rules that an earlier or wider one makes idle; equal priorities.
- *something else happens*: two items of a list (an OR) that read like one (an AND).
- *DNS is gone*: pods that may send to few, and not to the cluster's DNS, cannot look up any name.
- *more is open than it looks*: rules for every address, pods that no policy selects, pods that will come.

What is open may be meant to be: a shop window is. The list is for reading, as the one that `covering` compares.
Guide section 4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from enum import StrEnum
from itertools import combinations
from typing import Any, NamedTuple

import msgspec

from k8snetlab import api
from k8snetlab.api.networking import NetworkPolicyPeer
from k8snetlab.api.policy_rules import strict_rules
from k8snetlab.policies.covering import covers_pods, covers_rule
from k8snetlab.policies.engine import judged, short
from k8snetlab.policies.plan import (
    BY_THE_BOOK,
    EGRESS,
    INGRESS,
    Anyone,
    Block,
    Endpoint,
    Pods,
    Policies,
    Policy,
    Rule,
    RuleAction,
    Tier,
    with_default_labels,
)

__all__ = ["Finding", "FindingKind", "findings"]


class FindingKind(StrEnum):
    """What was found."""

    NOT_ENFORCED = "not enforced"
    SELECTS_NOBODY = "selects nobody"
    MEANS_NOBODY = "peer means nobody"
    UNKNOWN_PORT = "port has no such name"
    WITHOUT_EFFECT = "without effect"
    SHADOWED = "shadowed"
    REDUNDANT = "redundant"
    SAME_PRIORITY = "same priority"
    LOOSE_SPELLING = "loose spelling"
    OR_LIKE_AND = "OR that reads like AND"
    NO_DNS = "no DNS"
    OPEN_TO_ALL = "open to all addresses"
    UNSELECTED = "selected by no policy"
    FUTURE_PODS = "open to pods to come"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to look at. `object` and `field` say where; `pods` who is concerned, where pods are."""

    kind: FindingKind
    message: str
    object: str = ""
    field: str = ""
    place: api.Place | None = None
    pods: tuple[str, ...] = ()

    @property
    def located(self) -> str:
        """The finding with the whole path of its file, so that an editor finds it."""
        return self._said(str(self.place) if self.place else "")

    def _said(self, place: str) -> str:
        return ": ".join(part for part in (place, self.object, self.field, f"{self.message} [{self.kind}]") if part)

    def __str__(self) -> str:
        return self._said(short(self.place) if self.place else "")

    def __repr__(self) -> str:
        return str(self)

    def as_dict(self) -> dict[str, Any]:
        """The finding as plain data."""
        return {
            "kind": str(self.kind),
            "file": self.place.file if self.place else None,
            "line": (self.place.line or None) if self.place else None,
            "object": self.object or None,
            "field": self.field or None,
            "message": self.message,
            "pods": list(self.pods),
        }


def findings(policies: Policies) -> tuple[Finding, ...]:
    """Everything found, in the order of the policies; what is about no policy comes last.

    A network that enforces nothing is one finding; the others are then those of the policies as they are written.
    """
    found = list(_unenforced(policies))
    if not policies.choices.enforced:
        policies = policies.choosing(BY_THE_BOOK)
    for look in LOOKS:
        found += look(policies)
    order = {each.ref: index for index, each in enumerate(policies.written)}
    placed = (msgspec.structs.replace(each, place=policies.place(each.object, each.field)) for each in found)
    return tuple(sorted(placed, key=lambda each: (order.get(each.object, len(order)), each.field)))


# --- nothing happens --------------------------------------------------------------------------------------------------


def _unenforced(policies: Policies) -> Iterator[Finding]:
    choices = policies.choices
    kind = FindingKind.NOT_ENFORCED
    if not choices.enforced:
        if policies.written:
            yield Finding(kind=kind, message=f"{choices.plugin} enforces no policies: they have no effect")
        return
    if not choices.cluster_policies:
        for each in policies.cluster_policies:
            yield Finding(kind=kind, object=each.ref, message=f"{choices.plugin} does not read this kind of policy")
    there = {each.ref for each in (*policies.ingress, *policies.egress)}
    for own in policies.network_policies:
        if own.ref not in there and not choices.named_ports:
            message = f"{choices.plugin} skips the whole policy, because it names a port"
            yield Finding(kind=kind, object=own.ref, message=message)
    if not choices.ranges:
        for own in policies.network_policies:
            for field, _, ports in _written(own):
                if any(each.end_port is not None for each in ports) and own.ref in there:
                    message = f"{choices.plugin} ignores endPort: only the first port of a range is meant"
                    yield Finding(kind=kind, object=own.ref, field=f"{field}.ports", message=message)


def _pods_in_blocks(policies: Policies) -> Iterator[Finding]:
    """Blocks with addresses of pods in them, where a block means no pods."""
    if policies.choices.blocks_mean_pods:
        return
    own = [each for each in policies.endpoints if not each.host_network]
    for policy in (*policies.ingress, *policies.egress):
        for rule in policy.rules:
            blocks = [each for each in rule.peers if isinstance(each, Block)]
            pods = [pod.name for pod in own if any(each.contains(ip) for each in blocks for ip in pod.addresses)]
            if pods:
                message = f"in {policies.choices.plugin} a block means no pods, and {_count(pods)} would be in it"
                yield Finding(
                    kind=FindingKind.NOT_ENFORCED, object=policy.ref, field=rule.field, message=message,
                    pods=tuple(pods),
                )  # fmt: skip


def _written(policy: api.NetworkPolicy) -> Iterator[tuple[str, Sequence[NetworkPolicyPeer], Sequence[Any]]]:
    for index, rule in enumerate(policy.spec.ingress):
        yield f"spec.ingress[{index}]", rule.from_, rule.ports
    for index, out in enumerate(policy.spec.egress):
        yield f"spec.egress[{index}]", out.to, out.ports


def _nobody(policies: Policies) -> Iterator[Finding]:
    """Subjects, peers and port names that nobody answers to."""
    said: set[str] = set()
    for policy in (*policies.ingress, *policies.egress):
        selected = policies.selected(policy)
        if not selected and policy.ref not in said:
            said.add(policy.ref)
            where = "spec.podSelector" if policy.isolates else "spec.subject"
            message = f"no pod is selected{_hint(policy.subject, policies)}"
            yield Finding(kind=FindingKind.SELECTS_NOBODY, object=policy.ref, field=where, message=message)
        for rule in policy.rules:
            yield from _idle_peers(policy, rule, policies)
            yield from _unnamed_ports(policy, rule, selected if policy.direction is INGRESS else policies.endpoints)


def _idle_peers(policy: Policy, rule: Rule, policies: Policies) -> Iterator[Finding]:
    side = "from" if policy.direction is INGRESS else "to"
    for index, peer in enumerate(rule.peers):
        if isinstance(peer, Pods) and not policies.meant(peer):
            field = f"{rule.field}.{side}[{index}]" if policy.isolates else f"{rule.field}.{side}"
            message = f"no pod is meant{_hint(peer, policies)}"
            yield Finding(kind=FindingKind.MEANS_NOBODY, object=policy.ref, field=field, message=message)


def _hint(pods: Pods, policies: Policies) -> str:
    """Which of the two selectors is to blame, and where pods with such labels are."""
    if pods.namespace:
        elsewhere = sorted({each.namespace for each in policies.endpoints if pods.pods.matches(each.labels)})
        if not elsewhere:
            return f": none has {pods.pods}" if policies.endpoints else ""
        return f" in namespace {pods.namespace}; {pods.pods} is in {', '.join(elsewhere[:3])}"
    named = [name for name, labels in policies.namespaces.items() if pods.namespaces.matches(labels)]
    if not named:
        return f": no namespace has {pods.namespaces}"
    return f": none in {', '.join(named[:3])}{' …' if len(named) > 3 else ''} has {pods.pods}"


def _unnamed_ports(policy: Policy, rule: Rule, destinations: Sequence[Endpoint]) -> Iterator[Finding]:
    for ports in rule.ports:
        if not ports.name or any(each.numbers(ports.name, ports.protocol) for each in destinations):
            continue
        other = {port.protocol for each in destinations for port in each.ports if port.name == ports.name}
        more = f"; it is a name of {' and '.join(sorted(other))}" if other else ""
        which = "selected pod" if policy.direction is INGRESS else "pod"
        message = f"no {which} calls a port {ports}{more}"
        yield Finding(kind=FindingKind.UNKNOWN_PORT, object=policy.ref, field=rule.field, message=message)


def _unnamed_directions(policies: Policies) -> Iterator[Finding]:
    """Rules of a direction that policyTypes does not name."""
    for each in policies.network_policies:
        for direction, rules in ((INGRESS, each.spec.ingress), (EGRESS, each.spec.egress)):
            if rules and direction not in each.spec.policy_types:
                message = f"policyTypes does not name {direction}, so these rules do nothing"
                field = f"spec.{direction.lower()}"
                yield Finding(kind=FindingKind.WITHOUT_EFFECT, object=each.ref, field=field, message=message)


def _idle_rules(policies: Policies) -> Iterator[Finding]:
    """Rules that never decide, because another one always does before, and rules that another one contains."""
    for direction in (INGRESS, EGRESS):
        asked = policies.of(direction)
        order = {each.ref: index for index, each in enumerate(asked)}
        above = [each for each in asked if not each.isolates]
        beside: dict[str, list[Policy]] = {}
        for each in asked:
            if each.isolates:
                beside.setdefault(each.namespace, []).append(each)
        for policy in asked:
            others = beside.get(policy.namespace, []) if policy.isolates else []
            if policy.tier is Tier.BASELINE:
                others = [each for own in beside.values() for each in own]
            for index, rule in enumerate(policy.rules):
                yield from _covered((*above, *others), _Place(policy, index, rule), order, policies)


class _Place(NamedTuple):
    """A rule, with the policy it stands in and its place there."""

    policy: Policy
    at: int
    rule: Rule


def _covered(others: Iterable[Policy], this: _Place, order: Mapping[str, int], policies: Policies) -> Iterator[Finding]:
    """The first reason why a rule is idle."""
    policy, rule = this.policy, this.rule
    for other in others:
        if other is not policy and not covers_pods(other.subject, policy.subject, policies):
            continue
        if other.isolates and policy.tier is Tier.BASELINE:
            message = f"{other.ref} selects all of these pods, and what a NetworkPolicy says is final"
            yield Finding(kind=FindingKind.SHADOWED, object=policy.ref, field=rule.field, message=message)
            return
        for at, wider in enumerate(other.rules):
            kind = _idle(_Place(other, at, wider), this, order, policies)
            if kind is not None:
                where = wider.field if other is policy else f"{other.ref} {wider.field}"
                does = "decides before it" if kind is FindingKind.SHADOWED else "allows all that it allows"
                yield Finding(kind=kind, object=policy.ref, field=rule.field, message=f"{where} {does}")
                return


def _idle(that: _Place, this: _Place, order: Mapping[str, int], policies: Policies) -> FindingKind | None:
    """Whether that rule makes this one idle, and how; the pods of the one are among those of the other."""
    other, policy = that.policy, this.policy
    earlier = (order[other.ref], that.at) < (order[policy.ref], this.at)
    if (other is policy and that.at == this.at) or not covers_rule(that.rule, this.rule, policies):
        return None
    if other.isolates and policy.isolates:
        # Of two that say the same, the later one is too much.
        mutual = covers_rule(this.rule, that.rule, policies) and covers_pods(policy.subject, other.subject, policies)
        return FindingKind.REDUNDANT if earlier or not mutual else None
    if other.tier is policy.tier:
        return FindingKind.SHADOWED if earlier else None
    final = other.tier is Tier.ADMIN and that.rule.action is not RuleAction.PASS
    return FindingKind.SHADOWED if final else None


def _same_priority(policies: Policies) -> Iterator[Finding]:
    """Two policies of one tier that are asked in no order that the API knows."""
    for direction in (INGRESS, EGRESS):
        above = [each for each in policies.of(direction) if not each.isolates]
        for one, two in combinations(above, 2):
            if (one.tier, one.priority) != (two.tier, two.priority):
                continue
            both = [each.name for each in policies.selected(one) if two.subject.selects(each, policies)]
            actions = {rule.action for each in (one, two) for rule in each.rules}
            if both and len(actions) > 1:
                message = f"{one.ref} has priority {one.priority} too: the API does not say which is asked first"
                yield Finding(
                    kind=FindingKind.SAME_PRIORITY, object=two.ref, field="spec.priority", message=message,
                    pods=tuple(both),
                )  # fmt: skip
                break


def _spelling(policies: Policies) -> Iterator[Finding]:
    for each in policies.network_policies:
        for field, message in strict_rules(each):
            yield Finding(kind=FindingKind.LOOSE_SPELLING, object=each.ref, field=field, message=message)


# --- something else happens -------------------------------------------------------------------------------------------


def _either(policies: Policies) -> Iterator[Finding]:
    """A namespaceSelector and a podSelector that are two items of a list, and would mean other pods as one."""
    for each in policies.network_policies:
        for field, peers, _ in _written(each):
            spaces = [peer for peer in peers if peer.namespace_selector is not None and peer.pod_selector is None]
            own = [peer for peer in peers if peer.namespace_selector is None and _picky(peer.pod_selector)]
            if not spaces or not own:
                continue
            names, labels = spaces[0].namespace_selector, own[0].pod_selector
            assert names is not None and labels is not None
            two = {pod.name for pod in policies.meant(Pods(namespaces=names))}
            two |= {pod.name for pod in policies.meant(Pods(namespace=each.namespace, pods=labels))}
            one = {pod.name for pod in policies.meant(Pods(namespaces=names, pods=labels))}
            if one != two:
                message = (
                    f"namespaceSelector {names} and podSelector {labels} are two items, so either is enough: "
                    f"{_count(two)}; in one item both would have to match: {_count(one)}"
                )
                yield Finding(
                    kind=FindingKind.OR_LIKE_AND, object=each.ref, field=field, message=message,
                    pods=tuple(sorted(two - one)),
                )  # fmt: skip


def _picky(selector: api.LabelSelector | None) -> bool:
    return selector is not None and selector != api.LabelSelector()


def _count(pods: Sized) -> str:
    number = len(pods)
    return f"{number} pod{'' if number == 1 else 's'}"


# --- DNS is gone ------------------------------------------------------------------------------------------------------


def _dns(policies: Policies) -> Iterator[Finding]:
    """Pods whose way out is closed, and that reach no DNS server of the cluster over UDP."""
    servers = [each for each in policies.endpoints if each.labels.get("k8s-app") == "kube-dns" and each.addresses]
    lost: dict[tuple[str, ...], list[str]] = {}
    for pod in policies.endpoints:
        closing = [each.ref for each in policies.selecting(pod, EGRESS) if each.isolates]
        if closing and servers and pod.addresses and not any(_asks(pod, each, policies) for each in servers):
            lost.setdefault(tuple(closing), []).append(pod.name)
    for refs, pods in lost.items():
        message = (
            f"the way out of {_count(pods)} is closed, to the cluster's DNS (53/UDP) too, so no name is found; "
            "allow egress to k8s-app=kube-dns"
        )
        yield Finding(kind=FindingKind.NO_DNS, object=refs[0], field="spec.egress", message=message, pods=tuple(pods))


def _asks(pod: Endpoint, server: Endpoint, policies: Policies) -> bool:
    families = [each for each in (4, 6) if pod.address(each) and server.address(each)]
    return any(bool(judged(policies, policies.flow(pod, server, 53, api.Protocol.UDP, each))) for each in families)


# --- more is open than it looks ---------------------------------------------------------------------------------------

NEW = "a-namespace-to-come"


def _open(policies: Policies) -> Iterator[Finding]:
    """Rules of NetworkPolicies that let in every address, or every pod of the future."""
    later = msgspec.structs.replace(policies, namespaces={**policies.namespaces, NEW: with_default_labels(NEW, {})})
    stranger = Endpoint(f"{NEW}/new", NEW)
    for policy in policies.ingress:
        for rule in policy.rules if policy.isolates else ():
            ports = ", ".join(map(str, rule.ports))
            if any(
                isinstance(each, Anyone) or (isinstance(each, Block) and not each.prefix.length) for each in rule.peers
            ):
                message = f"every address is let in, inside and outside of the cluster, at {ports}"
                yield Finding(kind=FindingKind.OPEN_TO_ALL, object=policy.ref, field=rule.field, message=message)
            elif any(each.means(stranger, "", later) for each in rule.peers):
                message = f"pods without any label are let in, from every namespace there is or will be, at {ports}"
                yield Finding(kind=FindingKind.FUTURE_PODS, object=policy.ref, field=rule.field, message=message)


def _unselected(policies: Policies) -> Iterator[Finding]:
    """Pods that are open to all, because no policy selects them, now or when they come."""
    for namespace in policies.namespaces:
        pods = [each for each in policies.endpoints if each.namespace == namespace and not each.host_network]
        open_ = [each.name for each in pods if not policies.selecting(each, INGRESS)]
        if open_:
            message = f"no policy selects {len(open_)} of {_count(pods)} for ingress: everybody may connect"
            yield Finding(
                kind=FindingKind.UNSELECTED, object=f"Namespace {namespace}", message=message, pods=tuple(open_)
            )
        new = Endpoint(f"{namespace}/new", namespace)
        closed = any(each.isolates for each in policies.ingress if each.namespace == namespace)
        if closed and not any(each.subject.selects(new, policies) for each in policies.ingress):
            message = "a new pod without the labels that policies ask for is open to everybody: select {} and close it"
            yield Finding(kind=FindingKind.FUTURE_PODS, object=f"Namespace {namespace}", message=message)


LOOKS: tuple[Callable[[Policies], Iterator[Finding]], ...] = (
    _pods_in_blocks, _nobody, _unnamed_directions, _idle_rules, _same_priority, _spelling, _either, _dns, _open,
    _unselected,
)  # fmt: skip
"""What is looked for, one after the other."""
