"""The size of what is written, compared with what a real API server gave."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from k8snetlab import api
from k8snetlab.services.slices import Slices
from k8snetlab.services.writes import Deed, Tally, Write, served_bytes
from tests.services.web import NODES, pods, service


def decoded(item: dict[str, Any]) -> api.EndpointSlice | api.Endpoints:
    """One object of a dump."""
    found = api.decode(item)
    assert isinstance(found.object, api.EndpointSlice | api.Endpoints), found.problems
    return found.object


@pytest.mark.parametrize("kind", ["endpointslices", "endpoints"])
def test_sizes_are_those_of_a_real_server(golden: Path, kind: str) -> None:
    """To the byte, for every slice and every Endpoints object of a real cluster."""
    for item in json.loads((golden / f"{kind}.json").read_text())["items"]:
        item["metadata"].pop("managedFields", None)
        assert served_bytes(decoded(item)) == len(json.dumps(item, separators=(",", ":"))), item["metadata"]["name"]


def test_what_the_server_adds_is_counted_once() -> None:
    """An object that was never stored is as long as one that was."""
    [fresh] = Slices(service(), NODES).sync(pods(2))[0].pieces
    stored = replace(
        fresh,
        metadata=replace(
            fresh.metadata, uid="x" * 36, resource_version="123456", generation=7,
            creation_timestamp="2026-11-22T20:52:02Z",
        ),
    )  # fmt: skip
    assert served_bytes(fresh) == served_bytes(stored)


def test_an_endpoint_costs_the_same_wherever_it_stands() -> None:
    """The size grows by one endpoint and its comma."""
    sizes = [served_bytes(Slices(service(), NODES).sync(pods(number))[0].pieces[0]) for number in (2, 3, 4)]
    assert sizes[1] - sizes[0] == sizes[2] - sizes[1]


def test_signs_of_html_are_longer() -> None:
    """Go writes `<` as six characters."""
    plain, sign = (api.Endpoints(metadata=api.ObjectMeta(name="a", annotations={"b": each})) for each in ("cc", "<>"))
    assert served_bytes(sign) == served_bytes(plain) + 10


def test_tallies_add_up() -> None:
    """Writes are counted by their sort, with the bytes of all."""
    [piece] = Slices(service(), NODES).sync(pods(1))[0].pieces
    one, two = Tally.of([Write(Deed.CREATE, piece)]), Tally.of([Write(Deed.UPDATE, piece), Write(Deed.DELETE, piece)])
    both = one + two
    assert (both.creates, both.updates, both.deletes, both.writes) == (1, 1, 1, 3)
    assert both.bytes == 3 * served_bytes(piece)
    assert str(both) == f"1 create, 1 update, 1 delete, {both.bytes:,} bytes to each watcher"
    assert str(Tally()) == "no write, 0 bytes to each watcher"
