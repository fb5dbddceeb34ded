"""Bad input: status 2, a line or a document that names the place, and never a traceback."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from .conftest import Run

Document = Callable[[Result], dict[str, Any]]

SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec:
  ports:
  - port: 80
"""

MANIFESTS = {
    "broken YAML": ("kind: Service\n  name: [\n", "", ""),
    "a wrong field": (SERVICE.replace("- port", "- prot: 1\n    port"), "Service shop/api", "spec.ports[0].prot"),
    "a wrong type": (SERVICE.replace("80", "eighty"), "Service shop/api", "spec.ports[0].port"),
    "a duplicate": (f"{SERVICE}---\n{SERVICE}", "Service shop/api", ""),
    "an empty file": ("", "", ""),
    "only comments": ("# nothing\n", "", ""),
    "no object": ("just words\n", "", ""),
}

ASK = ("--from", "shop/web-0", "--to", "svc/shop/api:80")


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_cannot_be_read_is_named(run: Run, document: Document, tmp_path: Path, name: str) -> None:
    """The message begins with the file and says object and field where there are any; JSON says the same."""
    text, thing, field = MANIFESTS[name]
    file = tmp_path / "app.yaml"
    file.write_text(text)
    result = run("trace", "-f", file, *ASK)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {file}")
    as_json = run("trace", "-f", file, *ASK, "-o", "json")
    [error] = document(as_json)["errors"]
    assert (as_json.exit_code, as_json.stderr) == (2, "")
    assert (error["file"], error["object"], error["field"]) == (str(file), thing or None, field or None)
    assert result.stderr.count(f": {error['message']}\n") == 1


def test_a_template_is_no_manifest(run: Run, tmp_path: Path) -> None:
    """Where braces of a template stand in the way, the message says what to take instead."""
    file = tmp_path / "app.yaml"
    file.write_text(SERVICE.replace("port: 80", "port: {{ .Values.port }}"))
    result = run("show", "-f", file, "services")
    assert result.exit_code == 2
    assert f"{file}:6: " in result.stderr and "take what `helm template` prints" in result.stderr


def test_lines_are_counted(run: Run, document: Document, tmp_path: Path) -> None:
    """The line is that of the field, not of the document."""
    file = tmp_path / "app.yaml"
    file.write_text(f"# a comment\n---\n{SERVICE.replace('80', 'eighty')}")
    [error] = document(run("trace", "-f", file, *ASK, "-o", "json"))["errors"]
    assert error["line"] == 8


def test_every_problem_of_every_file_is_said(run: Run, tmp_path: Path) -> None:
    """Two wrong files give two lines, not the first one only."""
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text(SERVICE.replace("80", "eighty").replace("name: api", f"name: {name[0]}"))
    result = run("show", "-f", tmp_path, "services")
    assert [line.split(":")[1].strip() for line in result.stderr.splitlines()] == [
        str(tmp_path / "a.yaml"),
        str(tmp_path / "b.yaml"),
    ]


def test_a_missing_file_is_named(run: Run) -> None:
    """A path that is not there is said with its name."""
    result = run("trace", "-f", "nowhere/app.yaml", *ASK)
    assert result.exit_code == 2
    assert result.stderr == "error: nowhere/app.yaml: there is no such file or folder\n"


def test_a_file_of_50_megabytes_is_refused_at_once(run: Run, tmp_path: Path) -> None:
    """YAML of 50 MB is not parsed: the message says the limit and the way out."""
    file = tmp_path / "large.yaml"
    file.write_bytes(b"# filler\n" * (50 * 1024 * 1024 // 9))
    result = run("trace", "-f", file, *ASK)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {file}: has 50 MB") and "JSON" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--from", "shop/web-9", "--to", "svc/shop/api:80"), "there is no pod 'shop/web-9'; did you mean shop/web-"),
        (("--from", "shop/web-0", "--to", "svc/shop/apy:80"), "there is no Service 'shop/apy'; did you mean shop/api"),
        (("--from", "node/node-7", "--to", "svc/shop/api:80"), "there is no node 'node-7'"),
        (("--from", "shop/web-0", "--to", "svc/shop/api:nosuch"), "nosuch"),
        (("--from", "shop/web-0", "--to", "svc/shop/api"), "has no port"),
        (("--from", "shop/web-0", "--to", "shop/db-0:99999"), "is no port number"),
        (("--from", "external:300.1.1.1", "--to", "svc/shop/web:80"), "300.1.1.1"),
        (("--from", "external", "--to", "svc/shop/web:80", "--via", ""), "there is no node ''"),
        ((*ASK, "--via", "node-1"), "where traffic from outside arrives, and shop/web-0 is inside"),
        ((*ASK, "--family", "6"), "has no IPv6 address"),
        ((*ASK, "--family", "5"), "5 is no address family"),
        ((*ASK, "--size", "-1"), "-1 is no payload size"),
        ((*ASK, "--nodes", "0"), "0 is no number of nodes"),
        ((*ASK, "--cni", "cilum"), "cilum"),
        ((*ASK, "--proxy", "magic"), "magic"),
        ((*ASK, "--cni-option", "backend"), "is not KEY=VALUE"),
        ((*ASK, "--proxy-option", "scheduler"), "is not KEY=VALUE"),
        ((*ASK, "--proxy", "ipvs", "--proxy-option", "scheduler=udp"), "udp"),
        ((*ASK, "--cni-option", "backend=udp"), "udp"),
        ((*ASK, "--pod-cidr", "10.244.0.0"), "10.244.0.0"),
        ((*ASK, "--pod-cidr", "172.18.0.0/20"), "172.18.0.0/16"),
        ((*ASK, "--service-cidr", "10.244.128.0/20"), "10.244.0.0/16"),
        ((*ASK, "--pod-cidr", "10.244.0.0/30"), "10.244.0.0/30"),
    ],
)
def test_a_question_that_makes_no_sense_is_refused(shop: Run, words: tuple[str, ...], said: str) -> None:
    """Names that are not there, networks that overlap and values that do not exist are said, with what there is."""
    result = shop("trace", *words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: ") and said in result.stderr


def test_what_is_wrong_with_an_object_has_its_place(run: Run) -> None:
    """A question that an object cannot answer names the file and the line where the object stands."""
    shop = Path(__file__).parents[2] / "data" / "bookshop"
    result = run("trace", "-f", shop, "--from", "shop/web-0", "--to", "svc/shop/bank:443")
    assert result.exit_code == 2
    assert "23-checkout.yaml:" in result.stderr and "Service shop/bank: spec.type: " in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("trace",), "Missing option"),
        (("trace", "-f"), "requires an argument"),
        (("trace", "--nosuch"), "No such option: --nosuch"),
        (("trace", "-f", "x", *ASK, "-o", "xml"), "'--output' / '-o': 'xml' is not one of 'text', "),
        (("trace", "-f", "x", *ASK, "--nodes", "many"), "--nodes"),
        (("tracee",), "Did you mean 'trace'?"),
        (("show", "-f", "x"), "Missing argument"),
        (("doctor", "now"), "unexpected extra argument"),
    ],
)
def test_a_command_line_that_is_not_understood_says_where_to_read(run: Run, words: tuple[str, ...], said: str) -> None:
    """Unknown commands, options and values are wrong input too, and the message names the help that knows better."""
    result = run(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr and "--help` says what there is" in result.stderr


def test_json_was_asked_for_even_in_a_wrong_command_line(run: Run, document: Document) -> None:
    """A program that asked for JSON reads JSON, whatever else it got wrong."""
    result = run("trace", "--nosuch", "-o", "json")
    assert result.exit_code == 2
    assert "--nosuch" in document(result)["errors"][0]["message"]


def test_a_folder_that_may_not_be_read_is_an_error(run: Run, tmp_path: Path) -> None:
    """What stands in the way of reading is said, not raised."""
    file = tmp_path / "app.yaml"
    file.mkdir()
    result = run("trace", "-f", file, *ASK)
    assert result.exit_code == 2
    assert str(file) in result.stderr
