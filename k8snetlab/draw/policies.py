"""Whom do the policies select, and what do they let through?

`policies` has a row for each policy: in the middle the pods that it selects, at the left who may send to them, at the
right to whom they may send, each rule with its ports. `isolation` shows the pods in their namespaces, each with two
gates: at the left for what comes in, at the right for what goes out. A gate is open where no NetworkPolicy selects the
pod in that direction, has bars where only what their rules allow gets through, and is shut where they have no rule.

Both are drawn from the policies as `policies.plan` reads them: a policy that a network plugin does not heed is not
there.

Not modelled: ports of peers (a policy has none). Guide section 4.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple, Protocol

from k8snetlab import api
from k8snetlab.api.selectors import Operator
from k8snetlab.draw.drawing import Drawing
from k8snetlab.draw.lettering import fitted, width
from k8snetlab.draw.marks import Box, Label, Line, Mark, arrowhead, cross, sheet
from k8snetlab.draw.theme import Role, theme_of
from k8snetlab.policies.plan import (
    EGRESS,
    INGRESS,
    Anyone,
    Block,
    Direction,
    Domain,
    Endpoint,
    Machines,
    Peer,
    Pods,
    Policies,
    Policy,
    Rule,
    RuleAction,
    Tier,
)

__all__ = ["isolation", "policies"]

WIDE, MARGIN = 920, 16
SIDE, MIDDLE = 270, 256
LEFT, CENTRE, RIGHT = MARGIN, (WIDE - MIDDLE) / 2, WIDE - MARGIN - SIDE
LINE, GAP = 14.0, 8.0
MOST_POLICIES, MOST_PEERS = 40, 6


class Judged(Protocol):
    """What has policies: a cluster."""

    @property
    def policies(self) -> Policies: ...


def _policies_of(of: Policies | Judged) -> Policies:
    return of if isinstance(of, Policies) else of.policies


def _unenforced(found: Policies) -> str:
    """What is to be said where nobody heeds the policies."""
    if found.choices.enforced or not found.written:
        return ""
    return f"{found.choices.plugin} enforces no policies: the {len(found.written)} that there are have no effect."


# --- policies ---------------------------------------------------------------------------------------------------------


def policies(of: Policies | Judged, namespace: str | None = None, *, theme: str = "light") -> Drawing:
    """The policies of a cluster, or those of one namespace and of the whole cluster, in the order in which they are
    asked: at most 40; the picture says how many there are beyond.

    Raises `UnknownName` for a theme that does not exist.
    """
    theme_of(theme)
    found = _policies_of(of)
    rows = [row for row in _by_object(found) if namespace is None or row[0].namespace in ("", namespace)]
    shown, y = rows[:MOST_POLICIES], MARGIN + 58.0
    title = "Whom the policies select, and what they let through" + (f": {namespace}" if namespace else "")
    marks: list[Mark] = [
        Label(MARGIN, MARGIN + 8, title, Role.INK, 12, "left", "bold"),
        Label(LEFT, MARGIN + 34, "who may send to these pods, at which of their ports", Role.FAINT, 9.5),
        Label(WIDE / 2, MARGIN + 34, "policy, and the pods it selects", Role.FAINT, 9.5, "center"),
        Label(RIGHT + SIDE, MARGIN + 34, "to whom they may send, at which ports", Role.FAINT, 9.5, "right"),
    ]
    alt = [f"{title}."]
    if said := _unenforced(found):
        marks.append(Label(WIDE - MARGIN, MARGIN + 8, said, Role.INK, 9.5, "right"))
        alt.append(said)
    for sides in shown:
        tall = max(54.0, *(_tall(each) for each in sides))
        marks += _policy(found, sides, y, tall)
        alt += _policy_said(found, sides)
        y += tall + 14
    if not shown and not said:
        marks.append(Label(MARGIN, y, "There is no policy: everybody may connect to everybody.", Role.INK, 10))
        alt.append("There is no policy: everybody may connect to everybody.")
        y += 24
    if len(rows) > len(shown):
        beyond = f"… and {len(rows) - len(shown)} more policies"
        marks.append(Label(MARGIN, y + 4, beyond, Role.FAINT, 10))
        alt.append(beyond)
        y += 24
    return Drawing(WIDE, round(y + MARGIN - 8), (sheet(marks),), (), tuple(alt), theme)


def _by_object(found: Policies) -> list[tuple[Policy, ...]]:
    """Each policy with the one or two directions that it is about; by tier, then by namespace."""
    order = list(Tier)
    read = sorted((*found.ingress, *found.egress), key=lambda each: (order.index(each.tier), each.priority, each.ref))
    return [tuple(sides) for _, sides in groupby(read, key=lambda each: each.ref)]


def _tall(policy: Policy) -> float:
    blocks = [_block_tall(rule) for rule in policy.rules]
    return sum(blocks) + GAP * (len(blocks) - 1) if blocks else LINE


def _block_tall(rule: Rule) -> float:
    return LINE * (1 + min(len(rule.peers), MOST_PEERS + 1)) + 6


def _policy(found: Policies, sides: Sequence[Policy], y: float, tall: float) -> Iterator[Mark]:
    first = sides[0]
    middle = y + tall / 2
    selected = found.selected(first)
    own = first.tier is Tier.NETWORK_POLICY
    yield Box(CENTRE, middle - 26, MIDDLE, 52, Role.CONTAINER, Role.SERVICE, 6, 1.6, () if own else (6.0, 3.0))
    kind = first.object.key if own else f"{first.object.name} ({first.tier}, {first.priority})"
    yield Label(WIDE / 2, middle - 14, fitted(kind, MIDDLE - 16, 10.5, "bold"), Role.INK, 10.5, "center", "bold")
    yield Label(WIDE / 2, middle + 2, fitted(_pods(first.subject), MIDDLE - 12, 9), Role.INK, 9, "center")
    yield Label(WIDE / 2, middle + 16, _count(selected), Role.FAINT, 9, "center")
    for direction in (INGRESS, EGRESS):
        side = next((each for each in sides if each.direction is direction), None)
        if side is None:
            yield from _beside(direction, middle, "not limited by it" if own else "")
        elif not side.rules:
            yield from _beside(direction, middle, "nobody" if own else "")
            yield from cross(CENTRE - 14 if direction is INGRESS else CENTRE + MIDDLE + 14, middle, 5)
        else:
            top = y + (tall - _tall(side)) / 2
            for rule in side.rules:
                yield from _rule(found, rule, direction, top, middle)
                top += _block_tall(rule) + GAP


def _beside(direction: Direction, y: float, said: str) -> Iterator[Mark]:
    if said:
        x = CENTRE - 30 if direction is INGRESS else CENTRE + MIDDLE + 30
        yield Label(x, y, said, Role.FAINT, 9.5, "right" if direction is INGRESS else "left")


def _rule(found: Policies, rule: Rule, direction: Direction, top: float, middle: float) -> Iterator[Mark]:
    x = LEFT if direction is INGRESS else RIGHT
    tall = _block_tall(rule)
    denies = rule.action is RuleAction.DENY
    role = Role.LOST if denies else Role.REQUEST
    yield Box(x, top, SIDE, tall, Role.MACHINE, Role.FRAME, 4)
    action = "" if rule.action is RuleAction.ACCEPT else f"{rule.action}: "
    ports = f"{action}{', '.join(map(str, rule.ports))}"
    yield Label(x + 8, top + 10, fitted(ports, SIDE - 16, 9, "bold"), Role.INK, 9, "left", "bold")
    for at, line in enumerate(_peer_lines(found, rule.peers), 1):
        yield Label(x + 8, top + 10 + at * LINE, fitted(line, SIDE - 16, 9), Role.INK, 9)
    own, pods = (x + SIDE, CENTRE) if direction is INGRESS else (x, CENTRE + MIDDLE)
    begin, end = (
        ((own, top + tall / 2), (pods, middle)) if direction is INGRESS else ((pods, middle), (own, top + tall / 2))
    )
    yield Line((begin, end), role, 1.8, (5.0, 3.0) if rule.action is RuleAction.PASS else ())
    yield arrowhead(end, (end[0] - begin[0], end[1] - begin[1]), role)
    if denies:
        yield from cross((begin[0] + end[0]) / 2, (begin[1] + end[1]) / 2, 4.5)


def _peer_lines(found: Policies, peers: Sequence[Peer]) -> list[str]:
    lines = [("or " if at else "") + _peer(peer, found) for at, peer in enumerate(peers[:MOST_PEERS])]
    return lines + ([f"or {len(peers) - MOST_PEERS} more"] if len(peers) > MOST_PEERS else [])


def _policy_said(found: Policies, sides: Sequence[Policy]) -> Iterator[str]:
    first = sides[0]
    yield f"{first.ref} selects {_pods(first.subject)}: {_count(found.selected(first))}."
    for side in sides:
        word = "from" if side.direction is INGRESS else "to"
        if not side.rules:
            yield f"  {side.direction}: nobody." if side.isolates else f"  {side.direction}: nothing."
        for rule in side.rules:
            action = "" if rule.action is RuleAction.ACCEPT else f"{rule.action} "
            peers = " ".join(_peer_lines(found, rule.peers))
            yield f"  {side.direction}: {action}{', '.join(map(str, rule.ports))} {word} {peers}."


# In words


def _count(pods: Sequence[object]) -> str:
    return f"{len(pods):,} pod{'' if len(pods) == 1 else 's'} today" if pods else "no pod today"


def _peer(peer: Peer, found: Policies) -> str:
    match peer:
        case Anyone():
            return "anyone, in and outside the cluster"
        case Pods():
            return f"{_pods(peer)} ({len(found.meant(peer)):,})"
        case Block():
            return str(peer.prefix) + (f" but {', '.join(map(str, peer.holes))}" if peer.holes else "")
        case Machines():
            return f"nodes {_selector(peer.nodes)}".rstrip()
        case Domain():
            return peer.name


def _pods(pods: Pods) -> str:
    which = _selector(pods.pods)
    if pods.namespace:
        place = f"of {pods.namespace}"
    else:
        place = f"of namespaces {_selector(pods.namespaces)}" if _selector(pods.namespaces) else "of all namespaces"
    return f"{which or 'all pods'} {place}"


def _selector(selector: api.LabelSelector) -> str:
    words = [f"{key}={value or '(empty)'}" for key, value in sorted(selector.match_labels.items())]
    for each in selector.match_expressions:
        values = f"({', '.join(value or '(empty)' for value in each.values)})"
        match each.operator:
            case Operator.IN:
                words.append(f"{each.key} in {values}")
            case Operator.NOT_IN:
                words.append(f"{each.key} not in {values}")
            case Operator.EXISTS:
                words.append(f"with {each.key}")
            case Operator.DOES_NOT_EXIST:
                words.append(f"without {each.key}")
    return ", ".join(words).replace("kubernetes.io/metadata.name=", "")


# --- isolation --------------------------------------------------------------------------------------------------------

CARD, CARD_TALL, COLUMNS = 286, 46, 3
MOST_CARDS = 120


class _Gate(NamedTuple):
    """One direction of some pods: how many NetworkPolicies select them, how many rules these have, and how many
    ClusterNetworkPolicies come before or after.
    """

    policies: int
    rules: int
    cluster: int

    @property
    def said(self) -> str:
        if not self.policies:
            said = "open"
        elif not self.rules:
            said = "shut"
        else:
            said = f"{self.rules} rule{'' if self.rules == 1 else 's'}"
        return said + (f" + {self.cluster} cl." if self.cluster else "")


class _Card(NamedTuple):
    """Pods of one namespace that the same policies select."""

    pods: tuple[Endpoint, ...]
    ingress: _Gate
    egress: _Gate

    @property
    def name(self) -> str:
        first = self.pods[0].name.partition("/")[2]
        return first + (f" and {len(self.pods) - 1} more" if len(self.pods) > 1 else "")


def isolation(of: Policies | Judged, *, theme: str = "light") -> Drawing:
    """Which pods are closed to what comes in, and to what goes out. At most 120 cards are drawn; the picture says how
    many more there are.

    Raises `UnknownName` for a theme that does not exist.
    """
    theme_of(theme)
    found = _policies_of(of)
    title = "Which pods are isolated"
    marks: list[Mark] = [Label(MARGIN, MARGIN + 8, title, Role.INK, 12, "left", "bold"), *_gates_explained()]
    alt = [f"{title}. The left gate is for what comes in, the right one for what goes out."]
    if said := _unenforced(found):
        marks.append(Label(WIDE - MARGIN, MARGIN + 8, said, Role.INK, 9.5, "right"))
        alt.append(said)
    y, left = MARGIN + 62.0, MOST_CARDS
    cards = _cards(found)
    for space, held in cards.items():
        shown = held[:left]
        if not shown:
            break
        left -= len(shown)
        rows = -(-len(shown) // COLUMNS)
        tall = 30 + rows * (CARD_TALL + 8)
        pods = sum(len(card.pods) for card in held)
        marks.append(Box(MARGIN, y, WIDE - 2 * MARGIN, tall, Role.MACHINE, Role.FRAME, 6))
        marks.append(Label(MARGIN + 10, y + 14, space, Role.INK, 10.5, "left", "bold"))
        marks.append(
            Label(WIDE - MARGIN - 10, y + 14, f"{pods:,} pod{'' if pods == 1 else 's'}", Role.FAINT, 9, "right")
        )
        for at, card in enumerate(shown):
            row, column = divmod(at, COLUMNS)
            marks += _card(card, MARGIN + 10 + column * (CARD + 5), y + 28 + row * (CARD_TALL + 8))
            alt.append(f"{space}/{card.name}: ingress {card.ingress.said}, egress {card.egress.said}.")
        y += tall + 12
    beyond = sum(map(len, cards.values())) - (MOST_CARDS - left)
    if beyond:
        marks.append(Label(MARGIN, y + 4, f"… and {beyond} more groups of pods", Role.FAINT, 10))
        alt.append(f"… and {beyond} more groups of pods.")
        y += 20
    return Drawing(WIDE, round(y + MARGIN - 8), (sheet(marks),), (), tuple(alt), theme)


def _cards(found: Policies) -> dict[str, list[_Card]]:
    """Groups of pods by namespace; those that use their node's network are one group of their own."""
    groups: dict[str, dict[tuple[object, ...], list[Endpoint]]] = {}
    for pod in found.endpoints:
        selecting = tuple(each.ref for way in (INGRESS, EGRESS) for each in found.selecting(pod, way))
        key = (pod.host_network, selecting, _workload(pod))
        groups.setdefault(pod.namespace, {}).setdefault(key, []).append(pod)
    return {
        space: [
            _Card(tuple(pods), _gate(found.selecting(pods[0], INGRESS)), _gate(found.selecting(pods[0], EGRESS)))
            for pods in sorted(held.values(), key=lambda pods: pods[0].name)
        ]
        for space, held in sorted(groups.items())
    }


def _workload(pod: Endpoint) -> tuple[tuple[str, str], ...]:
    """What the replicas of one workload have in common: their labels, but for those that are one pod's own."""
    own = ("statefulset.kubernetes.io/pod-name", "apps.kubernetes.io/pod-index", "pod-template-hash")
    return tuple(sorted((key, value) for key, value in pod.labels.items() if key not in own))


def _gate(selecting: Iterable[Policy]) -> _Gate:
    own = [each for each in selecting if each.isolates]
    return _Gate(len(own), sum(len(each.rules) for each in own), sum(not each.isolates for each in selecting))


def _card(card: _Card, x: float, y: float) -> Iterator[Mark]:
    host = card.pods[0].host_network
    yield Box(x + 7, y, CARD - 14, CARD_TALL, Role.CONTAINER, Role.FRAME, 4, 1.0, (4.0, 3.0) if host else ())
    yield Label(x + CARD / 2, y + 14, fitted(card.name, CARD - 40, 9.5), Role.INK, 9.5, "center")
    if host and not card.ingress.policies and not card.egress.policies:
        yield Label(x + CARD / 2, y + 32, "its node's network: not selected", Role.FAINT, 8.5, "center")
    else:
        yield Label(x + 18, y + 32, f"in: {card.ingress.said}", Role.FAINT, 8.5)
        yield Label(x + CARD - 18, y + 32, f"out: {card.egress.said}", Role.FAINT, 8.5, "right")
    for gate, at in ((card.ingress, x + 7), (card.egress, x + CARD - 7)):
        yield from _gate_marks(gate, at, y + 4, CARD_TALL - 8)


def _gate_marks(gate: _Gate, x: float, y: float, tall: float) -> Iterator[Mark]:
    """Open: a gap in the wall. Bars: three pieces with gaps between. Shut: one piece."""
    if not gate.policies:
        yield Box(x - 1.2, y + tall / 2 - 8, 2.4, 16, Role.CONTAINER, Role.NONE, 0)
    elif gate.rules:
        piece = (tall - 2 * 5) / 3
        for at in range(3):
            yield Box(x - 3, y + at * (piece + 5), 6, piece, Role.SERVICE, Role.NONE, 1)
    else:
        yield Box(x - 3, y, 6, tall, Role.SERVICE, Role.NONE, 1)


def _gates_explained() -> Iterator[Mark]:
    x, y = MARGIN + 6.0, MARGIN + 26.0
    for gate, said in (
        (_Gate(0, 0, 0), "open: no NetworkPolicy selects the pod in this direction"),
        (_Gate(1, 1, 0), "bars: what a rule allows gets through"),
        (_Gate(1, 0, 0), "shut: no rule allows anything"),
    ):
        yield Line(((x, y - 2), (x, y + 24)), Role.FRAME, 1.0)
        yield from _gate_marks(gate, x, y, 22)
        yield Label(x + 12, y + 11, said, Role.FAINT, 9.5)
        x += 12 + width(said, 9.5) + 30
