"""`k8snetlab external-dns`: a dry run against a zone file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from typer.testing import Result

from .conftest import Run

Document = Callable[[Result], dict[str, Any]]

WEB = """
apiVersion: v1
kind: Service
metadata: {name: web, annotations: {external-dns.kubernetes.io/hostname: shop.example.org}}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80}], externalIPs: [203.0.113.7]}
"""
HELD = """
gone A 192.0.2.2
a-gone TXT "heritage=external-dns,external-dns/owner=blue,external-dns/resource=service/default/gone"
"""


def asked(run: Run, *words: str | Path) -> Result:
    """The command for one Service and the zone example.org."""
    return run("external-dns", "-f", "-", "--zone", "example.org", *words, stdin=WEB)


def test_what_would_be_done_is_a_difference(run: Run, tmp_path: Path) -> None:
    """Lines that go and come, and status 1; with nothing to do status 0."""
    file = tmp_path / "org.zone"
    file.write_text(HELD)
    result = asked(run, "--against", file, "--owner", "blue")
    assert result.exit_code == 1
    assert "- gone.example.org.                   300 IN A     192.0.2.2" in result.stdout
    assert "+ shop.example.org.                   300 IN A     203.0.113.7" in result.stdout
    assert "1 to create, 0 to update, 1 to delete" in result.stdout
    assert asked(run, "--against", file, "--domain-filter", "eu.example.org").exit_code == 0


def test_the_document_says_it_all(run: Run, document: Document, tmp_path: Path) -> None:
    """Changes, ownership, and what is left alone, by its schema."""
    file = tmp_path / "org.zone"
    file.write_text(HELD)
    found = document(asked(run, "--against", file, "--policy", "upsert-only", "--owner", "blue", "-o", "json"))
    assert found["kind"] == "ExternalDns"
    assert [each["after"]["name"] for each in found["changes"]] == ["shop.example.org."]
    assert [each["why"] for each in found["left"]] == ["policy upsert-only does not delete"]


def test_a_wrong_zone_file_is_wrong_input(run: Run, tmp_path: Path) -> None:
    """File, line and what is wrong; no traceback for one that is not there."""
    file = tmp_path / "org.zone"
    file.write_text("shop A 192.0.2.1\nshop A 192.0.2.999\n")
    result = asked(run, "--against", file)
    assert result.exit_code == 2
    assert f"error: {file}:2: zone: no zone file" in result.stderr
    missing = asked(run, "--against", tmp_path / "none")
    assert (missing.exit_code, "No such file" in missing.stderr) == (2, True)
