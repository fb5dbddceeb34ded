"""What does a CiliumNetworkPolicy mean in numbers?

Its rules become clauses about identities, as those of other policies do (`identities`). Selectors see the labels of
identities, those of the namespace among them; a selector that names no namespace means the policy's own. Entities
are identities that have the same number everywhere; `world` is every block of addresses too, and `cluster` is all that
is neither world nor block. `port: "0"` is all ports of a protocol, protocol `ANY` all three.

Guide section 4.1; Cilium 1.19.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, TypeAlias

from k8snetlab import api
from k8snetlab.address import Prefix
from k8snetlab.api.cilium import (
    NAMESPACE,
    CiliumEgressRule,
    CiliumIngressRule,
    CiliumNetworkPolicy,
    CiliumPolicyRule,
    CiliumPort,
    CiliumPorts,
    CiliumSelector,
    Entity,
    HTTPRule,
)
from k8snetlab.linux.datapath import HOST, REMOTE_NODE, UNKNOWN, Wanted
from k8snetlab.policies.identities import Clause, Identities, Stretch, stretches
from k8snetlab.policies.plan import EGRESS, INGRESS, Block, Direction, Endpoint, Ports

__all__ = ["Selecting", "blocks", "clauses", "selecting"]

Side: TypeAlias = CiliumIngressRule | CiliumEgressRule

ENTITIES: Mapping[Entity, tuple[int, ...]] = {
    Entity.ALL: (UNKNOWN,),
    Entity.HOST: (HOST,),
    Entity.REMOTE_NODE: (REMOTE_NODE,),
    Entity.KUBE_APISERVER: (7,),
    Entity.INGRESS: (8,),
    Entity.HEALTH: (4,),
    Entity.INIT: (5,),
    Entity.UNMANAGED: (3,),
    Entity.CLUSTER: (HOST, 3, 4, 5, REMOTE_NODE, 7, 8),
}
"""The reserved identities of an entity."""


class Selecting(NamedTuple):
    """One rule of a policy that selects a pod."""

    policy: CiliumNetworkPolicy
    rule: CiliumPolicyRule

    def sides(self, direction: Direction) -> tuple[tuple[Side, ...], tuple[Side, ...]]:
        """What it allows in a direction, and what it denies."""
        if direction is INGRESS:
            return self.rule.ingress, self.rule.ingress_deny
        return self.rule.egress, self.rule.egress_deny

    def isolates(self, direction: Direction) -> bool:
        """Whether the pod is closed but for what is allowed."""
        said = self.rule.enable_default_deny
        wanted = said.ingress if direction is INGRESS else said.egress
        return any(self.sides(direction)) if wanted is None else wanted


def selecting(
    policies: Iterable[CiliumNetworkPolicy], known: Identities, pod: Endpoint, direction: Direction
) -> Iterator[Selecting]:
    """The rules that select a pod and say something of a direction."""
    for policy in policies:
        for rule in policy.rules:
            found = Selecting(policy, rule)
            about = any(found.sides(direction)) or found.isolates(direction)
            if about and pod.namespace == policy.namespace and _selects(rule.endpoint_selector, known, pod):
                yield found


def clauses(said: Selecting, known: Identities, pod: Endpoint, direction: Direction) -> Iterator[Clause]:
    """What a rule says about a pod, in numbers."""
    for deny, sides in zip((False, True), said.sides(direction), strict=True):
        for side in sides:
            numbers = tuple(dict.fromkeys(_identities(side, said.policy.namespace, known)))
            for ports in side.to_ports or (CiliumPorts(),):
                held = tuple(_parts(ports, known, pod, direction))
                reads = ports.rules.http if ports.rules is not None else ()
                requests = tuple(map(_wanted, reads)) or None
                yield Clause(said.policy.ref, numbers, held, deny, requests)


def blocks(policies: Iterable[CiliumNetworkPolicy]) -> Iterator[Block]:
    """Every block of addresses that the policies say."""
    for policy in policies:
        for rule in policy.rules:
            sides: tuple[Side, ...] = (*rule.ingress, *rule.ingress_deny, *rule.egress, *rule.egress_deny)
            yield from (block for side in sides for block in _blocks(side))


# --- the other end ----------------------------------------------------------------------------------------------------


def _identities(side: Side, namespace: str, known: Identities) -> Iterator[int]:
    ends, entities, *addresses = _ends(side)
    if ends is None and entities is None and all(each is None for each in addresses):
        yield UNKNOWN
        return
    for selector in ends or ():
        for number, each in known.pods.items():
            own = selector.names_a_namespace or each.namespace == namespace
            if own and _selects(selector, known, each):
                yield number
    for entity in entities or ():
        yield from _of_entity(entity, known)
    for block in _blocks(side):
        yield from known.inside(block)


def _ends(side: Side) -> tuple[tuple[CiliumSelector, ...] | None, tuple[Entity, ...] | None, object, object]:
    if isinstance(side, CiliumIngressRule):
        return side.from_endpoints, side.from_entities, side.from_cidr, side.from_cidr_set
    return side.to_endpoints, side.to_entities, side.to_cidr, side.to_cidr_set


def _blocks(side: Side) -> Iterator[Block]:
    whole = side.from_cidr if isinstance(side, CiliumIngressRule) else side.to_cidr
    cut = side.from_cidr_set if isinstance(side, CiliumIngressRule) else side.to_cidr_set
    yield from (Block(prefix=Prefix.of(each)) for each in whole or ())
    yield from (Block(prefix=Prefix.of(each.cidr), holes=tuple(map(Prefix.of, each.except_))) for each in cut or ())


def _of_entity(entity: Entity, known: Identities) -> Iterator[int]:
    yield from ENTITIES.get(entity, ())
    families = {Entity.WORLD: (4, 6), Entity.WORLD_IPV4: (4,), Entity.WORLD_IPV6: (6,)}.get(entity, ())
    yield from (number for of, number in known.worlds.items() if of in families)
    yield from (number for block, number in known.blocks.items() if block.family in families)
    if entity is Entity.CLUSTER:
        yield from known.pods


def _selects(selector: CiliumSelector | None, known: Identities, pod: Endpoint) -> bool:
    """Whether a selector means an identity, by its labels, its namespace's and those that Cilium adds."""
    if selector is None:
        return False
    of_namespace = {
        f"io.cilium.k8s.namespace.labels.{key}": value for key, value in known.policies.namespace(pod.namespace).items()
    }
    return selector.plain.matches({**of_namespace, NAMESPACE: pod.namespace, **pod.labels})


# --- ports and requests -----------------------------------------------------------------------------------------------


def _parts(ports: CiliumPorts, known: Identities, pod: Endpoint, direction: Direction) -> Iterator[Stretch]:
    if not ports.ports:
        yield Stretch()
    for each in ports.ports:
        for said in _numbers(each):
            # A name is the pod's own number in ingress, and the cluster's in egress.
            for number in known.policies.common(said) if direction is EGRESS else (said,):
                yield from stretches(number, pod)


def _numbers(port: CiliumPort) -> Iterator[Ports]:
    number = int(port.port) if port.port.isdecimal() else None
    if number == 0 and port.protocol == "ANY":
        yield Ports()
        return
    for protocol in (api.Protocol(port.protocol),) if port.protocol != "ANY" else tuple(api.Protocol):
        if number is None:
            yield Ports(protocol, name=port.port)
        elif number == 0:
            yield Ports(protocol)
        else:
            yield Ports(protocol, number, port.end_port or number)


def _wanted(rule: HTTPRule) -> Wanted:
    return Wanted(rule.method, rule.path, rule.host, rule.headers)
