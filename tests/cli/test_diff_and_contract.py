"""`k8snetlab diff` and `k8snetlab contract`: what a choice changes, and what every cluster promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from k8snetlab.cni import VARIANTS

from .conftest import Run

Document = Callable[[Result], dict[str, Any]]


def test_no_change_is_no_difference(shop: Run, document: Document) -> None:
    """The same choice gives the same network, and status 0."""
    result = shop("diff", "--change", "cni=flannel", "-o", "json")
    assert result.exit_code == 0
    assert document(result) == {"schema": "k8snetlab/v1", "kind": "Diff", "different": False, "changes": []}
    assert shop("diff", "--change", "cni=flannel").stdout == "no difference\n"


def test_another_cni_changes_the_nodes(shop: Run, document: Document) -> None:
    """Without flannel its device and its routes are gone, and status is 1, as with diff(1)."""
    result = shop("diff", "--change", "cni=bridge", "-o", "json")
    assert result.exit_code == 1
    gone = {(each["host"], each["kind"]) for each in document(result)["changes"] if each["how"] == "removed"}
    assert ("node-1", "link") in gone and ("node-1", "fdb") in gone


def test_text_lists_the_changes_and_sums_them_up(shop: Run) -> None:
    """The text tells changes by host, and last how many there are, a line for hosts that changed alike."""
    text = shop("diff", "--change", "cni=bridge").stdout
    assert "node-1:\n" in text
    assert text.splitlines()[-1].startswith("node-2, node-3: link ")


@pytest.mark.parametrize("cni", VARIANTS)
def test_every_cni_can_be_changed_to(shop: Run, document: Document, cni: str) -> None:
    """The document has every change; text tells them on a few pages, in full line by line, and the same each time."""
    changes = document(shop("diff", "--change", f"cni={cni}", "-o", "json"))["changes"]
    text = shop("diff", "--change", f"cni={cni}").stdout
    assert text == shop("diff", "--change", f"cni={cni}").stdout
    assert len(text.splitlines()) < 200
    full = shop("diff", "--change", f"cni={cni}", "-o", "full").stdout
    assert sum(line.startswith(("  + ", "  - ", "  ~ ")) for line in full.splitlines()) == len(changes)
    assert (f"-o full prints all {len(changes):,} changes" in text) is (cni != "flannel")


def test_a_manifest_can_be_the_change(shop: Run, document: Document, tmp_path: Path) -> None:
    """A Service that gets a node port changes the rules of every node, and nothing else."""
    manifest = tmp_path / "api.yaml"
    spec = "{type: NodePort, selector: {app: api}, ports: [{name: http, port: 80, targetPort: http}]}"
    manifest.write_text(f"apiVersion: v1\nkind: Service\nmetadata: {{name: api, namespace: shop}}\nspec: {spec}\n")
    result = shop("diff", "--apply", manifest, "-o", "json")
    assert result.exit_code == 1
    found = document(result)["changes"]
    assert {each["kind"] for each in found} == {"iptables"}
    assert {each["host"] for each in found} == {"node-1", "node-2", "node-3"}


def test_something_must_be_changed(shop: Run) -> None:
    """Nothing against nothing is no question."""
    assert shop("diff").exit_code == 2


def test_several_changes_are_made_at_once(shop: Run, document: Document) -> None:
    """--change may be repeated, options of the CNI among them."""
    words = ("diff", "--change", "cni-option=backend=host-gw", "--change", "nodes=4", "-o", "json")
    changes = document(shop(*words))["changes"]
    assert {"host": "node-4", "kind": "host", "how": "added", "text": "machine", "before": None} in changes
    assert any(each["kind"] == "route" and each["text"].startswith("10.244.1.0/24 via 172.18.") for each in changes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("cni", "not KEY=VALUE"),
        ("cni=calicoo", "calicoo"),
        ("nodes=many", "not a number"),
        ("nodes=0", "0 is no number of nodes"),
        ("colour=blue", "there is no option 'colour'"),
        ("cni-option=backend=udp", "udp"),
        ("proxy-option=scheduler=sh", "has no option 'scheduler'"),
        ("proxy=magic", "magic"),
    ],
)
def test_a_change_that_cannot_be_made_is_refused(shop: Run, change: str, said: str) -> None:
    """What --change does not know is wrong input."""
    result = shop("diff", "--change", change)
    assert result.exit_code == 2
    assert said in result.stderr and result.stdout == ""


def test_the_contract_holds_in_the_bookshop(shop: Run, document: Document) -> None:
    """Every rule is checked and holds, and each says what was sent."""
    result = shop("contract", "-o", "json")
    found = document(result)
    assert result.exit_code == 0
    assert found["holds"] and all(each["evidence"] for each in found["checks"])
    assert "pods reach all pods without NAT" in shop("contract").stdout


def test_a_broken_contract_is_a_no(shop: Run, document: Document) -> None:
    """Host routes need a common subnet: with nodes in two of them pods do not reach each other, and status is 1."""
    result = shop(
        "contract", "--cni-option", "backend=host-gw", "--node-cidr", "172.18.0.0/24,172.19.0.0/24", "-o", "json"
    )
    broken = [each["rule"] for each in document(result)["checks"] if not each["holds"]]
    assert result.exit_code == 1
    assert broken == ["pod-to-pod", "node-to-pod"]
