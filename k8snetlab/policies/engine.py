"""May this connection be made, and who says so?

A connection needs both ends: the policies that select the source judge it as egress, those that select the destination
as ingress, and each end may forbid it. At each end the policies are asked in three tiers:

1. `Admin`: the first rule that matches, by priority and place, accepts for good, denies for good, or passes on.
2. `NetworkPolicy`: if any selects the pod, one rule of any of them must allow the connection. That is final.
3. `Baseline`: as Admin, for pods that no NetworkPolicy selects. What nobody decided is allowed.

Before that stands what no policy can forbid: a pod reaches itself, since such a packet never leaves it, and a node
reaches its own pods, or kubelet's probes would fail. More of this kind is left to the network plugin (`plan.Choices`).
Replies belong to their connection and are never judged; neither is what a node sends of its own.

A Service is no end: its address is turned into a backend's before policies see the packet. Ask about the backend and
its port, and say which Service's address was asked for.

The verdict is what the policies say of a new connection under one plugin's choices. It does not say that the packet
arrives (is there a route? does somebody listen?); `Cluster.trace` does. Guide section 4.1; Kubernetes "Network
Policies", NPEP-285.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import msgspec

from k8snetlab import api
from k8snetlab.address import canonical, family
from k8snetlab.api.syntax import is_address
from k8snetlab.errors import BadOption, Problem
from k8snetlab.policies.plan import (
    EGRESS,
    INGRESS,
    Direction,
    End,
    Endpoint,
    Flow,
    Machine,
    Policies,
    Policy,
    Rule,
    RuleAction,
    Tier,
)

__all__ = [
    "Decision",
    "Judgement",
    "PolicyVerdict",
    "checked_port",
    "judged",
    "said_family",
    "same",
    "same_node",
    "short",
    "transport",
    "verdict",
]


class Decision(NamedTuple):
    """A rule that decided, the policy that it stands in, and where that was written."""

    policy: Policy
    rule: Rule
    place: api.Place | None = None

    def __str__(self) -> str:
        name = f" ({self.rule.name})" if self.rule.name else ""
        where = f" [{short(self.place)}]" if self.place else ""
        return f"{self.policy.ref} {self.rule.field}{name}{where}"


def short(place: api.Place) -> str:
    """A place in few words: the name of the file without its folders, and the line."""
    return str(msgspec.structs.replace(place, file=place.file.rpartition("/")[2]))


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What is said at one end of a connection. `policies` are those that select the end, in the order of asking;
    `decision` is the rule that decided, None where no rule did; `tier` is where that happened, None where nobody was
    asked.
    """

    direction: Direction
    allowed: bool
    reason: str
    policies: tuple[Policy, ...] = ()
    decision: Decision | None = None
    tier: Tier | None = None

    def __bool__(self) -> bool:
        return self.allowed

    def as_dict(self) -> dict[str, Any]:
        """The judgement as plain data."""
        rule = None
        if self.decision is not None:
            place = self.decision.place
            rule = {
                "policy": self.decision.policy.ref,
                "field": self.decision.rule.field,
                "file": place.file if place else None,
                "line": (place.line or None) if place else None,
            }
        policies = [each.ref for each in self.policies]
        return {"allowed": self.allowed, "reason": self.reason, "rule": rule, "policies": policies}

    @property
    def isolated(self) -> bool:
        """Whether a NetworkPolicy closes the end in this direction."""
        return any(each.isolates for each in self.policies)


class PolicyVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the policies let a connection pass; true if they do. `print` it for the reasons at both ends."""

    flow: Flow
    egress: Judgement
    ingress: Judgement

    def __bool__(self) -> bool:
        return self.allowed

    @property
    def allowed(self) -> bool:
        """Whether both ends allow it."""
        return self.egress.allowed and self.ingress.allowed

    @property
    def deciding(self) -> Judgement:
        """The judgement that counts: the one that forbids, else the last one that a rule made, else that of ingress."""
        if not self.egress.allowed:
            return self.egress
        if not self.ingress.allowed or self.ingress.decision or not self.egress.decision:
            return self.ingress
        return self.egress

    @property
    def reason(self) -> str:
        """Why, in one sentence."""
        return self.deciding.reason

    @property
    def rule(self) -> Rule | None:
        """The rule that decided, or None: nobody selects the ends, or those who do have no rule that matches."""
        return self.deciding.decision.rule if self.deciding.decision else None

    @property
    def policy(self) -> Policy | None:
        """The policy whose rule decided."""
        return self.deciding.decision.policy if self.deciding.decision else None

    @property
    def denied_by(self) -> tuple[Policy, ...]:
        """The policies that forbid it: the one with a rule that denies, or all that isolate the end without a rule
        that allows.
        """
        if self.allowed:
            return ()
        found = self.deciding
        if found.decision is not None:
            return (found.decision.policy,)
        return tuple(each for each in found.policies if each.isolates)

    def __str__(self) -> str:
        source, destination = self.flow.called
        word = "allowed" if self.allowed else "denied"
        head = f"{source} -> {destination} {self.flow.port}/{self.flow.protocol}: {word}"
        return "\n".join(
            (head, *(f"  {each.direction.lower()}: {each.reason}" for each in (self.egress, self.ingress)))
        )

    def __repr__(self) -> str:
        return str(self)

    def as_dict(self) -> dict[str, Any]:
        """The verdict as plain data."""
        source, destination = self.flow.called
        return {
            "from": source,
            "to": destination,
            "port": f"{self.flow.port}/{self.flow.protocol}",
            "allowed": self.allowed,
            "reason": self.reason,
            "rule": str(self.deciding.decision) if self.deciding.decision else None,
        }


def verdict(
    policies: Policies,
    source: str | End,
    destination: str | End,
    port: int,
    protocol: str = "TCP",
    *,
    of: int | None = None,
    service: str = "",
) -> PolicyVerdict:
    """Whether a connection may be made, and why.

    The ends are `NAMESPACE/POD`, `node/NAME`, addresses (a pod's, a node's or anybody's), or values of `plan`. `of` is
    the family (4 or 6; without it the first that both have), `service` the Service address that the source asked for,
    where there was one. Raises `UnknownName` and `BadOption`.
    """
    here = policies.end(source) if isinstance(source, str) else source
    there = policies.end(destination) if isinstance(destination, str) else destination
    of = of or said_family(source, destination)
    flow = policies.flow(here, there, checked_port(port), transport(protocol), of)
    return judged(policies, flow._replace(service=canonical(service, field="service") if service else ""))


def judged(policies: Policies, flow: Flow) -> PolicyVerdict:
    """What the policies say of a flow."""
    return PolicyVerdict(
        flow=flow, egress=_judgement(policies, flow, EGRESS), ingress=_judgement(policies, flow, INGRESS)
    )


def transport(protocol: str) -> api.Protocol:
    """TCP, UDP or SCTP; anything else is a `BadOption`."""
    try:
        return api.Protocol(protocol)
    except ValueError:
        message = f"{protocol!r} is none of {', '.join(api.Protocol)}: policies know no other protocol"
        raise BadOption(Problem(message, field="protocol")) from None


def checked_port(port: int) -> int:
    """The number of a port; anything else is a `BadOption`."""
    if isinstance(port, bool) or port not in range(1, 65536):
        raise BadOption(Problem(f"{port!r} is no port from 1 to 65535", field="port"))
    return port


def said_family(*ends: str | End) -> int | None:
    """The family of the first end that is called by an address."""
    said = (each.removeprefix("external:") for each in ends if isinstance(each, str))
    return next((family(each) for each in said if is_address(each)), None)


# --- at one end -------------------------------------------------------------------------------------------------------


def _judgement(policies: Policies, flow: Flow, direction: Direction) -> Judgement:
    subject = flow.subject(direction)
    selecting = policies.selecting(subject, direction)
    if always := _always(policies, flow, direction):
        return Judgement(direction=direction, allowed=True, reason=always, policies=selecting)
    if not selecting:
        return Judgement(direction=direction, allowed=True, reason=_unselected(flow, direction))
    return _asked(policies, flow, direction, selecting)


def _asked(policies: Policies, flow: Flow, direction: Direction, selecting: tuple[Policy, ...]) -> Judgement:
    """Ask one tier after the other."""
    for tier in Tier:
        asked = [each for each in selecting if each.tier is tier]
        decision = next(_deciding(policies, flow, direction, asked), None)
        isolated = tier is Tier.NETWORK_POLICY and bool(asked)
        if decision is not None and decision.rule.action is not RuleAction.PASS:
            allowed = decision.rule.action is RuleAction.ACCEPT
            reason = f"{decision} {'allows' if allowed else 'denies'} it"
        elif isolated:
            allowed, reason = False, _isolated(asked, flow, direction)
        else:
            continue
        return Judgement(
            direction=direction, allowed=allowed, reason=reason, policies=selecting, decision=decision, tier=tier
        )
    reason = f"no rule of {_listed(each.ref for each in selecting)} decides, so it is allowed"
    return Judgement(direction=direction, allowed=True, reason=reason, policies=selecting)


def _deciding(policies: Policies, flow: Flow, direction: Direction, asked: Iterable[Policy]) -> Iterator[Decision]:
    """The rules that match, the first of which counts."""
    for policy in asked:
        for rule in policy.rules:
            if policies.matches(rule, direction, flow):
                yield Decision(policy, rule, policies.place(policy.ref, rule.field))


# --- what no policy is asked about ------------------------------------------------------------------------------------


def _always(policies: Policies, flow: Flow, direction: Direction) -> str:
    """Why a flow passes this end whatever the policies say; nothing where they are asked."""
    choices = policies.choices
    subject, (other, _) = flow.subject(direction), flow.peer(direction)
    if not choices.enforced:
        return f"{choices.plugin} enforces no policies" if policies.written else ""
    if not isinstance(subject, Endpoint):
        return ""
    used = flow.source_address or flow.destination_address
    if used and family(used) not in choices.families:
        return f"{choices.plugin} enforces no policies in IPv{family(used)}"
    if same(flow.source, flow.destination) and (choices.own_service or not flow.service):
        return f"{subject.name} always reaches itself"
    if same_node(subject, other):
        if direction is INGRESS and choices.own_node_to_pod:
            return f"a node always reaches its own pods, and {subject.name} runs on {subject.node}"
        if direction is EGRESS and choices.pod_to_own_node:
            return f"a pod always reaches its own node, and {subject.name} runs on {subject.node}"
    return ""


def same(first: End, second: End) -> bool:
    """Whether the two ends are one network namespace: one pod, or what uses one node's network."""
    if _node_of(first) and _node_of(first) == _node_of(second):
        return True
    return type(first) is type(second) and first.name == second.name


def same_node(pod: Endpoint, other: End) -> bool:
    """Whether the other end is the network of the node that the pod runs on."""
    return bool(pod.node) and _node_of(other) == pod.node


def _node_of(end: End) -> str:
    """The node whose network an end uses; a pod with a network of its own uses none."""
    if isinstance(end, Machine):
        return end.name
    return end.node if isinstance(end, Endpoint) and end.host_network else ""


# --- in words ---------------------------------------------------------------------------------------------------------


_SHOWN = 3


def _unselected(flow: Flow, direction: Direction) -> str:
    subject = flow.subject(direction)
    name = flow.called[0 if direction is EGRESS else 1]
    if not isinstance(subject, Endpoint):
        return f"{name} is no pod, and policies select pods"
    if subject.host_network:
        return f"{name} uses the network of its node, and no policy selects that"
    return f"no policy selects {name} for {direction.lower()}"


def _isolated(asked: list[Policy], flow: Flow, direction: Direction) -> str:
    source, destination = flow.called
    one = len(asked) == 1
    towards = f"from {source}" if direction is INGRESS else f"to {destination}"
    return (
        f"{_listed(each.ref for each in asked)} {'selects' if one else 'select'} {flow.subject(direction).name}, and "
        f"{'it has no' if one else 'none has a'} rule that allows {flow.port}/{flow.protocol} {towards}"
    )


def _listed(names: Iterable[str]) -> str:
    """The first few, and how many more there are."""
    found = list(dict.fromkeys(names))
    if len(found) > _SHOWN:
        return f"{', '.join(found[:_SHOWN])} and {len(found) - _SHOWN} more"
    return " and ".join((", ".join(found[:-1]), found[-1])) if len(found) > 1 else found[0]
