"""Which objects does this selector mean?

Services, workloads and policies point at pods by labels, never by name. A plain map (`app: web`) wants every pair; a
`LabelSelector` also has expressions. Two rules surprise people: `NotIn` matches an object that lacks the key, and an
empty selector matches everything while a missing one matches nothing (what "missing" means is for the field that
holds it).

Node selection uses the same expressions with two more operators, `Gt` and `Lt`, which compare whole numbers.

Not modelled: field selectors. Guide section 4.1; Kubernetes "Labels and Selectors".
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

from k8snetlab.api.base import LabelKey, Labels, LabelValue, Part

__all__ = [
    "LabelSelector",
    "LabelSelectorRequirement",
    "NodeSelector",
    "NodeSelectorRequirement",
    "NodeSelectorTerm",
    "Operator",
    "has_labels",
]


class Operator(StrEnum):
    """How an expression compares the value of its key."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"


class NodeOperator(StrEnum):
    """The operators of node selection: those of labels, and two that compare whole numbers."""

    IN = "In"
    NOT_IN = "NotIn"
    EXISTS = "Exists"
    DOES_NOT_EXIST = "DoesNotExist"
    GT = "Gt"
    LT = "Lt"


class LabelSelectorRequirement(Part, frozen=True, kw_only=True):
    """`{key: tier, operator: In, values: [web, api]}`."""

    key: LabelKey
    operator: Operator
    values: tuple[LabelValue, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels satisfy this requirement."""
        match self.operator:
            case Operator.IN:
                return labels.get(self.key) in self.values
            case Operator.NOT_IN:
                return labels.get(self.key) not in self.values
            case Operator.EXISTS:
                return self.key in labels
            case Operator.DOES_NOT_EXIST:
                return self.key not in labels

    def __str__(self) -> str:
        match self.operator:
            case Operator.IN | Operator.NOT_IN:
                return f"{self.key} {self.operator.lower()} ({','.join(sorted(self.values))})"
            case Operator.EXISTS:
                return self.key
            case Operator.DOES_NOT_EXIST:
                return f"!{self.key}"


class LabelSelector(Part, frozen=True, kw_only=True):
    """`matchLabels` and `matchExpressions`: all must hold. The empty selector matches everything.

    >>> LabelSelector(match_labels={"app": "web"}).matches({"app": "web", "tier": "front"})
    True
    """

    match_labels: Labels = {}
    match_expressions: tuple[LabelSelectorRequirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is meant."""
        return has_labels(labels, self.match_labels) and all(each.matches(labels) for each in self.match_expressions)

    def __str__(self) -> str:
        """As kubectl prints it: `app=web,tier in (back,front),!legacy`, and `<none>` for the empty one."""
        wanted = [(key, f"{key}={value}") for key, value in self.match_labels.items()]
        wanted += [(each.key, str(each)) for each in self.match_expressions]
        return ",".join(text for _, text in sorted(wanted, key=lambda each: each[0])) or "<none>"


class NodeSelectorRequirement(Part, frozen=True, kw_only=True):
    """`{key: topology.kubernetes.io/zone, operator: NotIn, values: [zone-a]}`."""

    key: str
    operator: NodeOperator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a node's labels (or its fields, given as a map) satisfy this requirement."""
        match self.operator:
            case NodeOperator.IN:
                return labels.get(self.key) in self.values
            case NodeOperator.NOT_IN:
                return labels.get(self.key) not in self.values
            case NodeOperator.EXISTS:
                return self.key in labels
            case NodeOperator.DOES_NOT_EXIST:
                return self.key not in labels
            case NodeOperator.GT | NodeOperator.LT:
                return self._compares(labels.get(self.key, ""))

    def _compares(self, value: str) -> bool:
        try:
            number, limit = int(value), int(self.values[0])
        except (ValueError, IndexError):
            return False
        return number > limit if self.operator is NodeOperator.GT else number < limit


class NodeSelectorTerm(Part, frozen=True, kw_only=True):
    """Expressions over labels and over fields (`metadata.name`): all must hold. A term that says nothing matches no
    node."""

    match_expressions: tuple[NodeSelectorRequirement, ...] = ()
    match_fields: tuple[NodeSelectorRequirement, ...] = ()

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether the node of that name and those labels is meant."""
        if not self.match_expressions and not self.match_fields:
            return False
        fields = {"metadata.name": name}
        return all(each.matches(labels) for each in self.match_expressions) and all(
            each.matches(fields) for each in self.match_fields
        )


class NodeSelector(Part, frozen=True, kw_only=True):
    """Terms, of which one must hold."""

    node_selector_terms: tuple[NodeSelectorTerm, ...]

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        """Whether the node of that name and those labels is meant."""
        return any(term.matches(name, labels) for term in self.node_selector_terms)


def has_labels(labels: Mapping[str, str], wanted: Mapping[str, str]) -> bool:
    """Whether every wanted pair is among the labels; nothing wanted is always there."""
    return all(labels.get(key) == value for key, value in wanted.items())
