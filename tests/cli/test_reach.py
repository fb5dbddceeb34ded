"""`k8snetlab reach`: who may connect to whom, in every form."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

from tests.shops import bookshop

from .conftest import Run

Document = Callable[[Result], dict[str, Any]]
CALICO = ("reach", "--cni", "calico", "--port", "5432")


def test_text_has_a_row_for_each_class(shop: Run) -> None:
    """Pods treated alike are listed once, and the database is reached by few."""
    text = shop(*CALICO).stdout
    assert text.startswith("25 pods in ")
    assert "shop/db-0, shop/db-1" in text
    assert "5432/TCP: 227 of 600 pairs allowed" in text


def test_json_is_pod_by_pod(shop: Run, document: Document) -> None:
    """A row and a column for each of few pods; rows are sources. Reasons name rule, file and line."""
    found = document(shop(*CALICO, "-o", "json"))
    place = {each["pods"][0]: each["id"] for each in found["classes"]}
    allowed = found["allowed"]["5432/TCP"]
    calico = bookshop().changed(cni="calico")
    for source, row in place.items():
        for destination, column in place.items():
            assert allowed[row][column] == bool(calico.allowed(source, destination, 5432))
    rules = [each["rule"] for each in found["why"] if each["to"].startswith("shop/db") and each["allowed"]]
    assert any(rule and "NetworkPolicy shop/db-clients spec.ingress[0] [" in rule for rule in rules)


def test_csv_says_the_same(shop: Run, document: Document) -> None:
    """A row for each port and source, a column for each destination."""
    rows = list(csv.reader(io.StringIO(shop(*CALICO, "--port", "8080/TCP", "-o", "csv").stdout)))
    found = document(shop(*CALICO, "--port", "8080/TCP", "-o", "json"))
    wanted = [
        [port, name["pods"][0], *map(str, map(int, row))]
        for port in found["ports"]
        for name, row in zip(found["classes"], found["allowed"][port], strict=True)
    ]
    assert rows == [["port", "from", *(each["pods"][0] for each in found["classes"])], *wanted]


def test_svg_is_the_picture(shop: Run) -> None:
    """With what it shows as its title."""
    assert "<title>Who may open connections to whom: 5432/TCP." in shop(*CALICO, "-o", "svg").stdout


def test_a_cni_that_enforces_nothing_says_so(shop: Run, document: Document) -> None:
    """Everything is allowed, and a note says why."""
    result = shop("reach", "--port", "5432", "-o", "json")
    assert all(all(row) for row in document(result)["allowed"]["5432/TCP"])
    assert not document(result)["enforced"]
    assert "flannel enforces no policies: all 7 have no effect" in result.stderr


def test_without_ports_every_declared_one_is_asked_about(shop: Run, document: Document) -> None:
    """As the containers of the bookshop declare them."""
    ports = document(shop("reach", "--cni", "calico", "-o", "json"))["ports"]
    assert {"5432/TCP", "8080/TCP", "53/UDP"} <= set(ports)
    assert len(ports) == len(set(ports))


def test_pods_without_an_address_of_the_family_are_counted(shop: Run) -> None:
    """Where all are of the other family nobody connects to anybody, and the text says why."""
    text = shop(*CALICO, "--family", "6").stdout
    assert "25 of them without an IPv6 address, which connect nowhere" in text
    assert "0 of 600 pairs allowed" in text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--port", "http"), "'http' is no port"),
        (("--port", "80/QUIC"), "QUIC"),
        (("--family", "5"), "5 is no address family"),
        (("-o", "svg"), "a cell has room for 4 ports"),
    ],
)
def test_what_cannot_be_asked_is_refused(shop: Run, words: tuple[str, ...], said: str) -> None:
    """Status 2 and a line, no traceback."""
    result = shop("reach", "--cni", "calico", *words)
    assert result.exit_code == 2
    assert said in result.stderr
