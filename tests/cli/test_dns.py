"""`k8snetlab dns`: names looked up, as text and as a document."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

from .conftest import Run

Document = Callable[[Result], dict[str, Any]]


def test_text_has_the_file_the_questions_and_the_end(shop: Run) -> None:
    """What is read, asked and told."""
    result = shop("dns", "--from", "shop/web-0", "api")
    assert result.exit_code == 0 and result.stderr == ""
    assert "nameserver 10.96.0.10\noptions ndots:5" in result.stdout
    assert "1  10.96.0.10  api.shop.svc.cluster.local.  A " in result.stdout
    assert "FOUND api.shop.svc.cluster.local.: " in result.stdout


def test_prose_says_why(shop: Run) -> None:
    """The dots, the list and the answers in sentences."""
    result = shop("dns", "--from", "shop/web-0", "www.example.com", "--libc", "musl", "-o", "prose")
    assert "2 dots, fewer than ndots:5" in result.stdout


def test_json_follows_the_schema(shop: Run, document: Document) -> None:
    """With what name servers asked each other."""
    found = document(shop("dns", "--from", "shop/web-0", "api", "--dns", "node-local", "-o", "json"))
    assert (found["kind"], found["status"], len(found["queries"])) == ("Resolution", "FOUND", 2)
    assert found["queries"][0]["forwarded"][0]["transport"] == "TCP"


def test_records_are_shown_like_a_zone_file(shop: Run, document: Document) -> None:
    """Name, seconds, class, type and data; as rows for programs."""
    lines = shop("show", "records").stdout.splitlines()
    assert lines[0].startswith("cluster.local.\t30\tIN\tSOA\t")
    rows = document(shop("show", "records", "-o", "json"))["rows"]
    assert len(rows) == len(lines) and {"name", "type", "ttl", "data"} == set(rows[0])


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("nosuch",), 1),
        (("api", "--type", "AAAA"), 1),
        (("a..b",), 2),
        (("api", "--type", "WKS"), 2),
        (("db.example.org", "--world", "db.example.org=198.51.100.7"), 0),
        (("db.example.org", "--world", "db.example.org"), 2),
    ],
)
def test_the_exit_status_is_the_short_answer(shop: Run, words: tuple[str, ...], status: int) -> None:
    """0 found, 1 not found, 2 wrong."""
    assert shop("dns", "--from", "shop/web-0", *words).exit_code == status


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--serve", "api"), "error: --serve: it answers whoever asks"),
        (("--from", "shop/web-0"), "error: NAME: it is missing"),
        (("api",), "error: --from: it is missing"),
        (("--serve", "--port", "70000"), "Invalid value for '--port'"),
    ],
)
def test_serving_and_asking_are_two_things(shop: Run, words: tuple[str, ...], said: str) -> None:
    """Who serves names nobody; who asks names both."""
    result = shop("dns", *words)
    assert result.exit_code == 2 and said in result.stderr
