"""Every shape of a Service × every kind of client × every proxy mode: the packet-flow table (`shapes`)."""

from __future__ import annotations

from functools import cache
from typing import TypeAlias

import pytest

from k8snetlab import services
from k8snetlab.address import family
from k8snetlab.cluster import Cluster
from k8snetlab.compile import client_address
from k8snetlab.flows import Session
from k8snetlab.trace import Client, Outcome
from tests.services.differences import DIFFERENCES
from tests.services.shapes import MANIFEST, ROWS, Ends, Row

OUTSIDE = {"outside": "external", "stranger": "external:192.0.2.77", "neighbour": "external:172.18.0.100"}


@cache
def cluster(mode: str) -> Cluster:
    """The cluster of the table, in a proxy mode."""
    return Cluster.load(MANIFEST, cni="bridge", proxy=mode)


def address(shapes: Cluster, name: str, of: int) -> str:
    """The address that the name of a node, of a node's bridge or of a Service means; an address means itself."""
    node = name.removesuffix("'s bridge")
    if node in shapes.layout.nodes:
        links = shapes.network[node].links
        device = "eth0" if node == name else "cni0"
        held = [own for link in links if link.name == device for own in link.addresses if own.family == of]
        return next(own.ip for own in held if own.scope != "link")
    if name[0] in "[0123456789":
        return name.strip("[]")
    return next(ip for ip in shapes.objects.service(f"default/{name}").cluster_ips if family(ip) == of)


def sender(shapes: Cluster, row: Row) -> str:
    """The source of a row, as a trace calls it."""
    source = row.source.partition(" via ")[0]
    if source in OUTSIDE:
        return OUTSIDE[source]
    return f"node/{source}" if source in shapes.layout.nodes else f"default/{source}"


def walked(shapes: Cluster, row: Row) -> tuple[Outcome, ...]:
    """Every way the row's packet can go."""
    name, _, port = row.target.rpartition(":")
    ip = address(shapes, name, row.of)
    via = row.source.partition(" via ")[2] or None
    return shapes.trace(sender(shapes, row), f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}", via=via).outcomes


def seen_as(shapes: Cluster, row: Row, who: str, ip: str) -> str:
    """Whom a backend sees, in the words of the table."""
    sender = who.removeprefix("node/").removeprefix("default/")
    if who.startswith("external"):
        own = who.partition(":")[2] or client_address(row.of)
    elif sender in shapes.layout.nodes:
        own = address(shapes, sender, row.of)
    else:
        own = next(each for each in shapes.objects.pod(f"default/{sender}").ips if family(each) == row.of)
    names = (name for node in shapes.layout.nodes for name in (node, f"{node}'s bridge"))
    return "client" if ip == own else next((name for name in names if address(shapes, name, row.of) == ip), ip)


Ended: TypeAlias = dict[tuple[str, str, str], float]
"""Backend, what the client is told, and whom the backend sees, each with its probability. Where nobody took the packet
the backend is empty and the fate of the packet stands for whom he sees."""


def ended(shapes: Cluster, row: Row, ends: Ends) -> Ended:
    """What came of a row. A backend has its port if the row names it."""
    found: Ended = {}
    who = sender(shapes, row)
    for outcome in walked(shapes, row):
        name, seen = "", str(outcome.verdict)
        if outcome.backend is not None:
            with_port = f"{outcome.backend.pod}:{outcome.backend.port}"
            name = with_port if with_port in {**ends.to, **ends.unheard} else outcome.backend.pod
            seen = seen_as(shapes, row, who, outcome.source_seen)
        key = (name, str(outcome.client), seen)
        found[key] = found.get(key, 0.0) + outcome.probability
    return {key: round(chance, 6) for key, chance in found.items()}


def expected(ends: Ends) -> Ended:
    """The same, as the table has it."""
    if not ends.to and not ends.unheard:
        return {("", str(ends.client), str(ends.fate)): 1.0}
    share = round(1 / (len(ends.to) + len(ends.unheard)), 6)
    heard = {(name, str(Client.OPEN), seen): share for name, seen in ends.to.items()}
    return {**heard, **{(name, str(Client.TIMEOUT), seen): share for name, seen in ends.unheard.items()}}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
@pytest.mark.parametrize("mode", services.MODES)
def test_a_row_ends_as_the_table_says(mode: str, row: Row) -> None:
    """The client's verdict, the backends, whom they see, the packet's fate and the probabilities."""
    shapes = cluster(mode)
    ends = DIFFERENCES.get(mode, {}).get(row.name, row.ends)
    assert ended(shapes, row, ends) == expected(ends), row.why


def test_the_table_names_each_row_once() -> None:
    """A difference belongs to one row, and every difference to some row."""
    names = [row.name for row in ROWS]
    assert len(names) == len(set(names)) >= 150
    assert {name for rows in DIFFERENCES.values() for name in rows} <= set(names)


@pytest.mark.parametrize("mode", services.MODES)
def test_outcomes_add_up_to_one(mode: str) -> None:
    """Whatever the shape, something happens to the packet."""
    for row in ROWS:
        assert sum(outcome.probability for outcome in walked(cluster(mode), row)) == pytest.approx(1.0, abs=1e-8)


def taken(shapes: Cluster, session: Session, who: str) -> str:
    """The backend that a new connection of a session gets."""
    backend = session.trace(f"default/{who}", f"{address(shapes, 'sticky', 4)}:80").backend
    assert backend is not None
    return backend.pod


@pytest.mark.parametrize("mode", services.MODES)
def test_affinity_keeps_a_client_at_its_backend(mode: str) -> None:
    """As long as no pause is longer than its 60 seconds."""
    shapes = cluster(mode)
    session = shapes.session(seed=3)
    first = taken(shapes, session, "caller-ant")
    for _ in range(8):
        session.advance(50)
        assert taken(shapes, session, "caller-ant") == first


@pytest.mark.parametrize("mode", services.MODES)
def test_affinity_ends_with_its_time(mode: str) -> None:
    """After a longer pause the client is given to anybody."""
    shapes = cluster(mode)
    session = shapes.session(seed=3)
    backends = set()
    for _ in range(12):
        backends.add(taken(shapes, session, "caller-ant"))
        session.advance(61)
    assert backends == {"web-ant", "web-bee"}
