"""Which labels a selector matches."""

from typing import Any

import msgspec
import pytest

from k8snetlab import api
from k8snetlab.api.pod import Toleration
from k8snetlab.api.selectors import NodeSelectorRequirement, NodeSelectorTerm


def expression(operator: str, *values: str, key: str = "tier") -> dict[str, Any]:
    """One expression, as data."""
    return {"key": key, "operator": operator, "values": list(values)}


@pytest.mark.parametrize(
    ("selector", "labels", "matches"),
    [
        ({}, {}, True),
        ({"matchLabels": {"app": "web"}}, {"app": "web", "x": "y"}, True),
        ({"matchLabels": {"app": "web"}}, {"app": "Web"}, False),
        ({"matchLabels": {"app": ""}}, {}, False),
        ({"matchLabels": {"app": ""}}, {"app": ""}, True),
        ({"matchExpressions": [expression("In", "a", "b")]}, {"tier": "b"}, True),
        ({"matchExpressions": [expression("In", "a")]}, {}, False),
        ({"matchExpressions": [expression("NotIn", "a")]}, {"tier": "a"}, False),
        ({"matchExpressions": [expression("NotIn", "a")]}, {}, True),
        ({"matchExpressions": [expression("Exists")]}, {"tier": ""}, True),
        ({"matchExpressions": [expression("DoesNotExist")]}, {"tier": ""}, False),
        ({"matchLabels": {"app": "web"}, "matchExpressions": [expression("Exists")]}, {"app": "web"}, False),
    ],
)
def test_label_selector(selector: dict[str, Any], labels: dict[str, str], matches: bool) -> None:
    """All pairs and all expressions must hold; NotIn holds where the key is missing."""
    assert msgspec.convert(selector, api.LabelSelector).matches(labels) is matches


@pytest.mark.parametrize(
    ("operator", "value", "matches"), [("Gt", "4", True), ("Gt", "5", False), ("Lt", "6", True), ("Lt", "x", False)]
)
def test_node_expressions_compare_numbers(operator: str, value: str, matches: bool) -> None:
    """Gt and Lt are for whole numbers, and nothing else matches them."""
    requirement = msgspec.convert(expression(operator, value, key="cpus"), NodeSelectorRequirement)
    assert requirement.matches({"cpus": "5"}) is matches


def test_node_term_that_says_nothing_matches_no_node() -> None:
    """An empty term is not "every node"."""
    assert not NodeSelectorTerm().matches("node-1", {})


def test_node_is_found_by_its_name() -> None:
    """With matchFields a term knows the name of the node."""
    term = msgspec.convert({"matchFields": [expression("In", "node-1", key="metadata.name")]}, NodeSelectorTerm)
    assert term.matches("node-1", {})
    assert not term.matches("node-2", {})


@pytest.mark.parametrize(
    ("toleration", "tolerates"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "gpu", "operator": "Exists"}, True),
        ({"key": "gpu", "value": "yes"}, True),
        ({"key": "gpu", "value": "yes", "effect": "NoExecute"}, False),
        ({"key": "gpu", "value": "no"}, False),
        ({"key": "other", "operator": "Exists"}, False),
        ({"value": "yes"}, False),
    ],
)
def test_toleration(toleration: dict[str, Any], tolerates: bool) -> None:
    """A toleration matches by key, value and effect; what it leaves out matches all."""
    taint = api.Taint(key="gpu", value="yes", effect=api.TaintEffect.NO_SCHEDULE)
    assert msgspec.convert(toleration, Toleration).tolerates(taint) is tolerates
