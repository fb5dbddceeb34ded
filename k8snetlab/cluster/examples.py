"""The examples that come with the package: `data/` of a clone, or its copy in an installed wheel.

Every folder beside `manifests/` is one example, and so is every file of it. `policies/` has recipes, which are no
clusters of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from k8snetlab.errors import LabError, UnknownName

if TYPE_CHECKING:
    from k8snetlab.dns.zone import Zone

__all__ = ["RECIPES", "example_path", "example_zone", "examples_folder"]

MANIFESTS = "manifests"
EVIDENCE = "evidence"
ZONES = "zones"
RECIPES = "policies"
"""The folders that are no examples: files that each stand alone, records of the real kernel, zone files, and policies
without their pods (`recipes`).
"""


def example_path(name: str) -> Path:
    """Where the example of that name is. Raises `UnknownName` naming what there is."""
    root = examples_folder()
    loadable = {path for path in root.rglob("*") if path.suffix == ".yaml" or path.is_dir()}
    loadable -= {root / MANIFESTS, root / RECIPES}
    for folder in (root, root / MANIFESTS):
        for candidate in (folder / name, folder / f"{name}.yaml"):
            if candidate in loadable:
                return candidate
    raise UnknownName("example", name, _names(root))


def _names(root: Path) -> Iterator[str]:
    for path in sorted(root.iterdir()):
        if path.is_dir() and path.name not in (EVIDENCE, MANIFESTS, RECIPES, ZONES):
            yield path.name
    for path in sorted((root / MANIFESTS).glob("*.yaml")):
        yield path.stem


def example_zone(name: str) -> Zone:
    """The zone of the world's DNS of that name, from `data/zones`. Raises `UnknownName` naming what there is."""
    from k8snetlab.dns.zone import Zone

    there = {path.stem: path for path in sorted((examples_folder() / ZONES).glob("*.zone"))}
    if name not in there:
        raise UnknownName("zone", name, there)
    return Zone.parsed(there[name].read_text(encoding="utf-8"), name, str(there[name]))


def examples_folder() -> Path:
    """Where the examples are: beside the package in a clone, inside it in an installed wheel."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_data", package.parent / "data"):
        if folder.is_dir():
            return folder
    raise LabError("the examples are missing: neither k8snetlab/_data nor data/ is there")
