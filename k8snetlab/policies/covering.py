"""Does one rule say all that another one says?

A rule that is covered by an earlier one never decides, and one that is covered by another one allows nothing more.
Whether that is so is read from what they say, not from the pods that happen to be there: a selector covers another if
each of its requirements follows from one of the other's. What is told here is always right, but a rule that several
others cover together is not found. Guide section 4.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from k8snetlab import api
from k8snetlab.api.selectors import Operator
from k8snetlab.policies.plan import Anyone, Block, Domain, Machines, Peer, Pods, Policies, Ports, Rule

__all__ = ["covers_peer", "covers_pods", "covers_ports", "covers_rule", "covers_selector"]


def covers_rule(wide: Rule, narrow: Rule, policies: Policies) -> bool:
    """Whether `wide` matches every connection that `narrow` matches; what the two do with it does not matter."""
    return all(any(covers_ports(each, other) for each in wide.ports) for other in narrow.ports) and all(
        any(covers_peer(each, other, policies) for each in wide.peers) for other in narrow.peers
    )


def covers_peer(wide: Peer, narrow: Peer, policies: Policies) -> bool:
    """Whether `wide` means every end that `narrow` means."""
    match wide, narrow:
        case Anyone(), _:
            return True
        case Pods(), Pods():
            return covers_pods(wide, narrow, policies)
        case Block(), Block():
            inside = wide.prefix.covers(narrow.prefix) and wide.pods >= narrow.pods and wide.nodes >= narrow.nodes
            return inside and all(_missed(narrow, hole) for hole in _holes(wide, narrow))
        case Machines(), Machines():
            return covers_selector(wide.nodes, narrow.nodes)
        case Domain(), Domain():
            return wide.name == narrow.name or (not narrow.name.startswith("*.") and wide.matches(narrow.name))
        case _:
            return False


def _holes(wide: Block, narrow: Block) -> Iterator[Block]:
    """The holes of the one that are inside the other."""
    for hole in wide.holes:
        if hole.overlaps(narrow.prefix):
            yield Block(prefix=hole)


def _missed(narrow: Block, hole: Block) -> bool:
    """Whether a block leaves out all of a hole."""
    return any(each.covers(hole.prefix) for each in narrow.holes)


def covers_pods(wide: Pods, narrow: Pods, policies: Policies) -> bool:
    """Whether `wide` means every pod that `narrow` means, now and later (but for labels that namespaces have today)."""
    if narrow.host_network and not wide.host_network:
        return False
    if wide.namespace and narrow.namespace:
        there = narrow.namespace == wide.namespace
    elif wide.namespace:
        named = api.LabelSelector(match_labels={"kubernetes.io/metadata.name": wide.namespace})
        there = covers_selector(named, narrow.namespaces)
    elif narrow.namespace:
        there = wide.namespaces.matches(policies.namespace(narrow.namespace))
    else:
        there = covers_selector(wide.namespaces, narrow.namespaces)
    return there and covers_selector(wide.pods, narrow.pods)


def covers_ports(wide: Ports, narrow: Ports) -> bool:
    """Whether `wide` means every port that `narrow` means."""
    if wide.protocol not in (None, narrow.protocol):
        return False
    if wide.name:
        return wide.name == narrow.name
    if narrow.name:
        return wide.every
    return wide.first <= narrow.first and narrow.last <= wide.last


class _Wanted(NamedTuple):
    """One requirement."""

    key: str
    operator: Operator
    values: frozenset[str] = frozenset()


def covers_selector(wide: api.LabelSelector, narrow: api.LabelSelector) -> bool:
    """Whether every object that `narrow` matches is matched by `wide`.

    >>> web = api.LabelSelector(match_labels={"app": "web"})
    >>> covers_selector(api.LabelSelector(), web), covers_selector(web, api.LabelSelector())
    (True, False)
    """
    given = tuple(_wanted(narrow))
    return all(any(_follows(each, other) for other in given if other.key == each.key) for each in _wanted(wide))


def _wanted(selector: api.LabelSelector) -> Iterator[_Wanted]:
    for key, value in selector.match_labels.items():
        yield _Wanted(key, Operator.IN, frozenset((value,)))
    for each in selector.match_expressions:
        yield _Wanted(each.key, each.operator, frozenset(each.values))


def _follows(wanted: _Wanted, given: _Wanted) -> bool:
    """Whether what is wanted of a key is so wherever what is given is so."""
    match wanted.operator, given.operator:
        case Operator.IN, Operator.IN:
            return given.values <= wanted.values
        case Operator.NOT_IN, Operator.IN:
            return not given.values & wanted.values
        case Operator.NOT_IN, Operator.NOT_IN:
            return wanted.values <= given.values
        case ((Operator.NOT_IN | Operator.DOES_NOT_EXIST), Operator.DOES_NOT_EXIST):
            return True
        case Operator.EXISTS, (Operator.IN | Operator.EXISTS):
            return True
        case _:
            return False
