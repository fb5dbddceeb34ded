"""`k8snetlab check`: what in policies is probably not wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from typer.testing import Result

from k8snetlab import schemas
from k8snetlab.policies.findings import FindingKind

from .conftest import BOOKSHOP, Run

Document = Callable[[Result], dict[str, Any]]

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: web}]}\n"


def test_each_finding_is_a_line_with_its_place_first(shop: Run) -> None:
    """Editors find file and line; the status is 1."""
    result = shop("check", "--cni", "calico")
    assert result.exit_code == 1
    (line,) = [each for each in result.stdout.splitlines() if "shop/public-faces" in each]
    where = f"{BOOKSHOP}/50-network-policies.yaml:33: NetworkPolicy shop/public-faces: spec.ingress[0]: "
    assert line.startswith(f"{where}every address")


def test_a_document_has_the_same(shop: Run, document: Document) -> None:
    """Kind, place, message and pods; under flannel it begins with what flannel does not do."""
    found = document(shop("check", "-o", "json"))["findings"]
    assert found[-1]["kind"] in ("not enforced", "selected by no policy")
    assert "flannel enforces no policies: they have no effect" in [each["message"] for each in found]


def test_nothing_found_is_status_0(run: Run) -> None:
    """All pods are selected and nobody is let in."""
    closed = (
        "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a, namespace: %s}\nspec: {}\n"
    )
    policies = closed % "default" + closed % "kube-system"
    result = run("check", "-f", "-", "--cni", "calico", stdin=POD + policies)
    assert (result.exit_code, result.stdout) == (0, "nothing found\n")


def test_the_schema_knows_every_kind() -> None:
    """A new kind of finding is a new word there."""
    schema = schemas.load("Findings")
    assert schema["properties"]["findings"]["items"]["properties"]["kind"]["enum"] == list(FindingKind)
