"""Which policies does one write for what, and what do they do?

A recipe is a file of policies as people often need them (`data/policies`), all of them about the same few pods, and a
matrix beside it: who may then open connections to whom, at which port. The matrix was written down from the sentence
that the file begins with, and not by the engine that is held against it.

    recipe = recipes.named("same-namespace")
    print(recipe)                                  # the manifests
    recipe.cluster(cni="calico").reach([8080])     # the pods of `stage`, under these policies

A file loads with `kubectl apply -f` as it is. In the matrix an end is called as in `Cluster.trace`: a pod, a workload,
or `external` for somebody outside.

Guide section 4.1.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from k8snetlab.cluster import Cluster
from k8snetlab.cluster.examples import RECIPES, example_path, examples_folder
from k8snetlab.errors import UnknownName

__all__ = ["STAGE", "Expected", "Recipe", "each", "named", "stage"]

STAGE = "who-may-talk"
"""The example with the pods that all recipes are about."""


class Expected(NamedTuple):
    """What the matrix of a recipe says of two ends at a port (`80/TCP`)."""

    port: str
    source: str
    destination: str
    allowed: bool


class Recipe(msgspec.Struct, frozen=True):
    """Policies in a file. `str` is the text of the file."""

    name: str
    path: Path

    @property
    def text(self) -> str:
        """The manifests, with the comment that they begin with."""
        return self.path.read_text(encoding="utf-8")

    @property
    def says(self) -> str:
        """What the policies do, in one sentence: the first of the file."""
        return self.text.partition("\n")[0].removeprefix("# ")

    @property
    def expected(self) -> tuple[Expected, ...]:
        """The matrix, cell by cell; of two ends outside it says nothing."""
        return tuple(_cells(self.path.with_suffix(".csv")))

    def cluster(self, **options: Any) -> Cluster:
        """The pods of `stage` under these policies."""
        return Cluster.load(example_path(STAGE), self.path, **options)

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        return f"{self.name}: {self.says}"


def stage(**options: Any) -> Cluster:
    """The pods that the recipes are about, and no policies."""
    return Cluster.load(example_path(STAGE), **options)


def each() -> Mapping[str, Recipe]:
    """All recipes by name."""
    return {path.stem: Recipe(path.stem, path) for path in sorted((examples_folder() / RECIPES).glob("*.yaml"))}


def named(name: str) -> Recipe:
    """The recipe of that name. Raises `UnknownName` naming what there is."""
    found = each()
    if name not in found:
        raise UnknownName("recipe", name, found)
    return found[name]


def _cells(path: Path) -> Iterator[Expected]:
    with path.open(encoding="utf-8", newline="") as opened:
        for row in csv.DictReader(opened):
            port, source = row.pop("port"), row.pop("from")
            for destination, cell in row.items():
                if cell:
                    yield Expected(port, source, destination, cell == "1")
