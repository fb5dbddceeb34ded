"""What real CoreDNS answered, and what real glibc resolvers asked, against ours from the same objects."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from k8snetlab import api
from k8snetlab.dns import (
    Directory,
    Message,
    Query,
    Question,
    Rcode,
    Record,
    ResolvConf,
    Server,
    Status,
    Surroundings,
    absolute,
    answered,
    corefile,
    resolver,
)
from tests.dns.asking import played

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
BOUTIQUE = Path(__file__).resolve().parents[3] / "shared" / "golden" / "boutique"
SHAPES: dict[str, str] = json.loads((GOLDEN / "dns.json").read_text())

COREFILE = corefile(""".:53 {
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        ttl 30
        fallthrough in-addr.arpa ip6.arpa
    }
    forward . 198.18.0.53
}""")
"""What the recorded servers were told."""

OUTSIDE = {"example.net.": "198.18.0.80", "example.com.": "93.184.216.34"}


def outside(query: Query) -> Message:
    """The name server that stood for the world: addresses under two domains, nothing else."""
    for domain, address in OUTSIDE.items():
        if query.type == "A" and query.name.endswith(domain):
            return Message(answers=(Record(query.name, "A", 60, address),), authoritative=True)
    return Message(Rcode.NXDOMAIN, authoritative=True)


def server(objects: Iterable[api.Object | None]) -> Server:
    """A name server that watches these objects."""
    held = [each for each in objects if each is not None]

    def of(kind: type[api.KindT]) -> tuple[api.KindT, ...]:
        return tuple(each for each in held if isinstance(each, kind))

    names = sorted({each.namespace for each in held if each.namespace} | {"default", "kube-system"})
    spaces = tuple(map(api.namespace_object, names))
    return Server(COREFILE, Surroundings(Directory(of(api.Service), of(api.EndpointSlice), spaces, of(api.Pod))))


@cache
def shapes() -> Server:
    """The recorded cluster with a Service of every shape."""
    files = ("svc", "pods", "endpointslices")
    return server(
        api.decode(each).object for name in files for each in json.loads((GOLDEN / f"{name}.json").read_text())["items"]
    )


@cache
def boutique() -> tuple[Server, dict[str, Any]]:
    """The recorded Online Boutique, and what was asked there."""
    dumped = json.loads((BOUTIQUE / "api.json").read_text())
    lists = (held if isinstance(held, list) else held["items"] for held in dumped.values())
    recorded: dict[str, Any] = json.loads((BOUTIQUE / "dns.json").read_text())
    return server(api.decode(each).object for held in lists for each in held), recorded


def plain(text: str) -> str:
    """A record as dig prints it, without the widths of its columns and the zone's serial number."""
    return re.sub(r"(hostmaster\.cluster\.local\.) \S+", r"\1 SERIAL", " ".join(text.split()))


@pytest.mark.parametrize("asked", SHAPES)
def test_coredns_answers_as_the_real_one_did(asked: str) -> None:
    """Code, records and the number of records in each part; dig counts the EDNS record as an additional one."""
    name, kind = asked.split()
    message = answered(shapes(), Question(absolute(name), kind, transport="TCP"), outside)
    text = SHAPES[asked]
    lines = [plain(line) for line in text.splitlines() if line and not line.startswith(";")]
    counts = [int(number) for number in re.findall(r"(?:ANSWER|AUTHORITY|ADDITIONAL): (\d+)", text)]
    assert f"status: {message.rcode}," in text
    assert counts == [len(message.answers), len(message.authority), len(message.additional) + 1]
    assert sorted(plain(str(record)) for record in (*message.answers, *message.authority)) == sorted(lines)


needs_boutique = pytest.mark.skipif(
    not BOUTIQUE.is_dir(), reason="../shared is absent: the recorded boutique cluster is not here"
)


@needs_boutique
def test_coredns_answers_about_the_boutique_as_the_real_one_did() -> None:
    """76 questions: Services, ports, addresses of Services and of pods."""

    def facts(records: Iterable[Record]) -> list[list[object]]:
        return sorted([each.name, each.type, each.ttl, plain(each.data)] for each in records)

    def said(records: Iterable[list[Any]]) -> list[list[object]]:
        return sorted([name, kind, ttl, plain(data)] for name, kind, ttl, data in records)

    at, recorded = boutique()
    for each in recorded["queries"]:
        found = answered(at, Question(absolute(each["query"]), each["type"], transport="TCP"), outside)
        assert (found.rcode, found.authoritative) == (each["rcode"], each["aa"]), each
        assert facts(found.answers) == said(each["answers"])
        assert facts(found.authority) == said(each["authority"])
        assert facts(found.additional) == said(each["additional"])


@needs_boutique
def test_glibc_asks_as_the_real_one_did() -> None:
    """34 searches of `getent ahostsv4` from two namespaces: every question and its code, in order."""
    at, recorded = boutique()
    for each in recorded["searches"]:
        domains = (f"{each['from_namespace']}.svc.cluster.local", "svc.cluster.local", "cluster.local")
        conf = ResolvConf(("10.96.0.10",), domains, (("ndots", "5"),))
        found, log = played(
            resolver(each["name"], conf, ("A",)),
            lambda query: answered(at, Question(query.name, query.type, transport="TCP"), outside),
        )
        asked = [(query.type, query.name, str(reply.rcode)) for query, reply in log if isinstance(reply, Message)]
        assert asked == [(step["type"], step["query"], step["rcode"]) for step in each["queries"]]
        assert (found.status is Status.FOUND) is each["found"]
        assert sorted(found.addresses) == sorted(each["addresses"])
