"""`k8snetlab allowed`: one connection, the rule that decides, and what would turn it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from .conftest import BOOKSHOP, Run

Document = Callable[[Result], dict[str, Any]]
TO_DB = ("--cni", "calico", "--from", "shop/web-0", "--to", "shop/db-0:5432")


def test_the_verdict_is_told_at_both_ends(shop: Run) -> None:
    """The status is the short answer."""
    result = shop("allowed", *TO_DB)
    assert result.exit_code == 1
    head, egress, ingress = result.stdout.splitlines()
    assert head == "shop/web-0 -> shop/db-0 5432/TCP: denied"
    assert egress == "  egress: no policy selects shop/web-0 for egress"
    assert ingress.endswith("none has a rule that allows 5432/TCP from shop/web-0")
    assert shop("allowed", *TO_DB[:2], "--from", "deploy/shop/api", "--to", "shop/db-0:5432").exit_code == 0


def test_the_smallest_change_can_be_applied(shop: Run, run: Run, document: Document, tmp_path: Path) -> None:
    """It is a manifest; with it in the place of the old policy the answer is yes."""
    found = document(shop("allowed", *TO_DB, "--change", "-o", "json"))
    assert (found["allowed"], found["ingress"]["rule"], found["change"]["also"]) == (False, None, [])
    assert found["change"]["says"] == ["NetworkPolicy shop/db-clients needs one more peer in spec.ingress[0].from"]
    changed = tmp_path / "changed.yaml"
    changed.write_text(shop("allowed", *TO_DB, "--change").stdout)
    left = [each for each in sorted(BOOKSHOP.iterdir()) if each.name != "50-network-policies.yaml"]
    words = [word for path in (*left, changed) for word in ("-f", path)]
    assert document(run("allowed", *words, *TO_DB, "-o", "json"))["ingress"]["rule"] == {
        "policy": "NetworkPolicy shop/db-clients", "field": "spec.ingress[0]", "file": str(changed), "line": 9,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("shop/db-0", "has no port"),
        ("shop/db-0:postgres", "'postgres' in 'shop/db-0:postgres' is no number"),
        ("svc/shop/db:5432", "policies see what is behind a Service"),
        ("shop/db-9:1", "there is no pod 'shop/db-9'"),
    ],
)
def test_what_cannot_be_asked_is_said(shop: Run, to: str, message: str) -> None:
    """In a line, with status 2."""
    result = shop("allowed", "--cni", "calico", "--from", "shop/web-0", "--to", to)
    assert (result.exit_code, message in result.stderr) == (2, True)
