"""Policies as people need them: each file does what its first sentence says, and what the matrix beside it shows."""

from __future__ import annotations

from functools import cache

import pytest

from k8snetlab.cluster import Cluster, recipes
from k8snetlab.cluster.ends import flow_of
from k8snetlab.cluster.recipes import Expected, Recipe
from k8snetlab.errors import UnknownName
from k8snetlab.policies.engine import judged
from k8snetlab.policies.matrix import asked_port
from k8snetlab.policies.plan import BY_THE_BOOK, Choices, Flow, Policies, choices_of

RECIPES = tuple(recipes.each().values())
FEWEST = 20


@pytest.fixture(params=RECIPES, ids=lambda recipe: recipe.name)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    """Each recipe."""
    found: Recipe = request.param
    return found


@cache
def flows(name: str) -> tuple[Policies, tuple[tuple[Expected, Flow], ...]]:
    """The policies of a recipe, and the flow of each cell of its matrix."""
    recipe = recipes.named(name)
    cluster = recipe.cluster()
    found = []
    for each in recipe.expected:
        port = asked_port(each.port)
        flow = flow_of(
            cluster.objects, cluster.policies, each.source, each.destination, port.number, port.protocol, None
        )
        found.append((each, flow))
    return cluster.policies, tuple(found)


def wrong(recipe: Recipe, choices: Choices) -> list[str]:
    """The cells of the matrix that the engine does not agree with."""
    policies, asked = flows(recipe.name)
    policies = policies.choosing(choices)
    return [f"{cell}" for cell, flow in asked if bool(judged(policies, flow)) is not cell.allowed]


def pods(cluster: Cluster) -> dict[str, tuple[str, ...]]:
    """The pods that the names of a matrix stand for."""
    dns = tuple(pod.key for pod in cluster.objects.pods if pod.namespace == "kube-system")
    return {"deploy/kube-system/coredns": dns} | {
        pod.key: (pod.key,) for pod in cluster.objects.pods if pod.key not in dns
    }


def test_there_are_enough_of_them() -> None:
    """So many recipes, each with a matrix."""
    assert len(RECIPES) >= FEWEST
    assert all(recipe.expected for recipe in RECIPES)


def test_the_engine_says_what_the_matrix_says(recipe: Recipe) -> None:
    """Every pod, the DNS and somebody outside, with each other: as the API has it."""
    assert wrong(recipe, BY_THE_BOOK) == []


def test_the_matrix_of_all_pods_says_it_too(recipe: Recipe) -> None:
    """What is worked out for all pods at once is the same, cell by cell."""
    cluster = recipe.cluster(cni="calico")
    named = pods(cluster)
    cells = [each for each in recipe.expected if each.source in named and each.destination in named]
    reach = cluster.reach(sorted({each.port for each in cells}))
    for port, source, destination, allowed in cells:
        for here in named[source]:
            for there in named[destination]:
                if (here == there) == (source == destination):
                    assert reach.reaches(here, there, port) is allowed, f"{port} {here} -> {there}"


def test_a_recipe_closes_something(recipe: Recipe) -> None:
    """It closes something; but for the one that opens everything again."""
    assert all(each.allowed for each in recipe.expected) is (recipe.name == "allow-all-ingress")


def test_one_sentence_says_what_it_does(recipe: Recipe) -> None:
    """The first line of the file is one, and the representation shows it."""
    assert recipe.says.endswith(".")
    assert repr(recipe) == f"{recipe.name}: {recipe.says}"
    assert str(recipe).startswith(f"# {recipe.says}\n")


@pytest.mark.parametrize("cni", ["calico", "cilium", "weave"])
def test_plugins_differ_from_the_api_in_known_recipes_only(cni: str) -> None:
    """Each plugin agrees with the matrices, but for what it reads in its own way or not at all."""
    assert {recipe.name for recipe in RECIPES if wrong(recipe, choices_of(cni))} == DIFFERENT[cni]


TIERS = {recipe.name for recipe in RECIPES if recipe.name.startswith("cluster-")}
DIFFERENT: dict[str, set[str]] = {
    "calico": set(),
    "cilium": {"pods-by-address"} | TIERS,
    "weave": {"named-port", "port-range"} | TIERS,
}
"""Cilium's blocks mean no pods; Weave skips policies with names of ports, and knows no ranges; both of these versions
do not read ClusterNetworkPolicy.
"""


def test_flannel_heeds_none_of_them(recipe: Recipe) -> None:
    """Under a plugin without enforcement every connection is allowed."""
    cluster = recipe.cluster(cni="flannel")
    assert cluster.allowed("default/shell", "shop/db", 5432)


def test_a_recipe_that_does_not_exist_is_named() -> None:
    """A typing mistake is answered with what there is."""
    with pytest.raises(UnknownName, match="same-namespace"):
        recipes.named("same-namespaces")
