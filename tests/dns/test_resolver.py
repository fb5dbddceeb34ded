"""What glibc and musl ask, in order."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from k8snetlab.dns import Lost, Message, Query, Rcode, Record, Reply, ResolvConf, Status, candidates, resolver
from k8snetlab.errors import BadOption
from tests.dns.asking import names, played

SEARCH = ("shop.svc.cluster.local", "svc.cluster.local", "cluster.local")
KNOWN = {"api.shop.svc.cluster.local.": "10.96.0.80", "www.example.com.": "203.0.113.10"}
EMPTY = ("v6.shop.svc.cluster.local.",)
"""Names that exist without an address."""


def conf(*options: tuple[str, str], servers: tuple[str, ...] = ("10.96.0.10",)) -> ResolvConf:
    """A pod's resolv.conf, with options more or others."""
    return ResolvConf(servers, SEARCH, tuple(({"ndots": "5"} | dict(options)).items()))


def knows(query: Query) -> Reply:
    """A name server that knows two names."""
    if query.name in KNOWN:
        return Message(answers=(Record(query.name, "A", 30, KNOWN[query.name]),) if query.type == "A" else ())
    return Message() if query.name in EMPTY else Message(Rcode.NXDOMAIN)


def says(what: Reply) -> Callable[[Query], Reply]:
    """A name server that always says the same."""
    return lambda query: what


def asked(name: str, library: str = "glibc", at: ResolvConf | None = None) -> tuple[Status, list[str]]:
    """What became of a name, and which complete names were asked for, in short."""
    found, log = played(resolver(name, at or conf(), library=library), knows)
    assert [query.type for query, _ in log[:2]] == ["A", "AAAA"]
    return found.status, [each.replace("svc.cluster.local", "S").replace("cluster.local", "C") for each in names(log)]


@pytest.mark.parametrize(
    ("name", "glibc", "musl"),
    [
        ("api", ["api.shop.S."], None),
        ("www.example.com", [*(f"www.example.com.{each}." for each in ("shop.S", "S", "C")), "www.example.com."], None),
        ("www.example.com.", ["www.example.com."], None),
        ("nosuch", ["nosuch.shop.S.", "nosuch.S.", "nosuch.C.", "nosuch."], None),
        ("v6", ["v6.shop.S.", "v6.S.", "v6.C.", "v6."], ["v6.shop.S."]),
        ("a.b.c.d.e.f", ["a.b.c.d.e.f.", "a.b.c.d.e.f.shop.S.", "a.b.c.d.e.f.S.", "a.b.c.d.e.f.C."], ["a.b.c.d.e.f."]),
    ],
)
def test_a_name_becomes_these_questions(name: str, glibc: list[str], musl: list[str] | None) -> None:
    """Search list and dots; where the libraries differ, both are said."""
    assert asked(name)[1] == glibc
    assert asked(name, "musl")[1] == (musl or glibc)


def test_fewer_dots_needed_is_fewer_questions() -> None:
    """ndots:2 asks for www.example.com as it stands at first."""
    assert asked("www.example.com", at=conf(("ndots", "2"))) == (Status.FOUND, ["www.example.com."])


@pytest.mark.parametrize(("library", "status"), [("glibc", Status.NODATA), ("musl", Status.NODATA)])
def test_a_name_without_an_address_is_said_to_have_none(library: str, status: Status) -> None:
    """Even where glibc went on and the last name did not exist."""
    assert asked("v6", library)[0] is status


def test_both_questions_of_a_pair_leave_by_one_port() -> None:
    """A pair has a socket; the next name has another."""
    _, log = played(resolver("nosuch", conf()), knows)
    sockets = [query.socket for query, _ in log]
    assert sockets == sorted(sockets)
    assert [sockets.count(each) for each in dict.fromkeys(sockets)] == [2, 2, 2, 2]


def test_glibc_goes_from_server_to_server_and_waits_for_each() -> None:
    """Two servers, two attempts: 5 s for the first, half of ten for the second."""
    at = conf(servers=("192.0.2.1", "192.0.2.2"))
    found, log = played(resolver("api.", at, ("A",)), says(Lost.TIMEOUT))
    assert found.status is Status.TRY_AGAIN
    assert [(query.server, query.attempt, query.timeout) for query, _ in log] == [
        ("192.0.2.1", 1, 5.0),
        ("192.0.2.2", 1, 5.0),
        ("192.0.2.1", 2, 5.0),
        ("192.0.2.2", 2, 5.0),
    ]


def test_glibc_gives_up_the_list_when_nobody_answers() -> None:
    """The first name, then the name as it stands: 20 s with one server."""
    found, log = played(resolver("api", conf(), ("A",)), says(Lost.TIMEOUT))
    assert (names(log), sum(query.timeout for query, _ in log)) == (["api.shop.svc.cluster.local.", "api."], 20.0)
    assert found.status is Status.TRY_AGAIN


def test_glibc_gives_up_at_once_where_the_port_is_closed() -> None:
    """The other library does not hear of that, and waits."""
    _, log = played(resolver("api", conf(), ("A",)), says(Lost.CLOSED))
    assert names(log) == ["api.shop.svc.cluster.local."]
    assert all(query.hears for query, _ in log)
    _, log = played(resolver("api", conf(), ("A",), "musl"), says(Lost.TIMEOUT))
    assert [(query.timeout, query.hears) for query, _ in log] == [(2.5, False)] * 2


def test_musl_asks_all_servers_at_once() -> None:
    """And takes the first that answers."""

    def one(query: Query) -> Reply:
        return knows(query) if query.server == "192.0.2.2" else Lost.TIMEOUT

    at = conf(servers=("192.0.2.1", "192.0.2.2"))
    found, log = played(resolver("api", at, library="musl"), one)
    assert (found.addresses, len(log)) == (("10.96.0.80",), 4)


def test_a_server_that_fails_does_not_end_the_search_of_glibc() -> None:
    """SERVFAIL is asked about at the next server, and the next name is tried; musl stops."""
    _, log = played(resolver("api", conf(), ("A",)), says(Message(Rcode.SERVFAIL)))
    assert len(names(log)) == 4
    found, log = played(resolver("api", conf(), ("A",), "musl"), says(Message(Rcode.SERVFAIL)))
    assert (found.status, len(names(log))) == (Status.TRY_AGAIN, 1)


@pytest.mark.parametrize("library", ["glibc", "musl"])
def test_an_answer_that_was_cut_is_asked_for_by_tcp(library: str) -> None:
    """Both libraries; the whole answer counts."""

    def cut(query: Query) -> Reply:
        whole = tuple(Record(query.name, "A", 30, f"10.0.0.{at}") for at in range(40))
        return Message(answers=whole if query.transport == "TCP" else whole[:20], truncated=query.transport == "UDP")

    found, log = played(resolver("many.example.", conf(), ("A",), library), cut)
    assert [query.transport for query, _ in log] == ["UDP", "TCP"]
    assert len(found.addresses) == 40


def test_options_of_glibc_are_heard() -> None:
    """timeout, attempts, use-vc, edns0, rotate; numbers beyond the limits are cut."""
    at = conf(("timeout", "1"), ("attempts", "9"), ("use-vc", ""), ("edns0", ""), servers=("192.0.2.1",))
    _, log = played(resolver("api.", at, ("A",)), says(Lost.TIMEOUT))
    assert {(query.transport, query.timeout, query.size) for query, _ in log} == {("TCP", 1.0, 1200)}
    assert len(log) == 5
    at = conf(("rotate", ""), servers=("192.0.2.1", "192.0.2.2"))
    _, log = played(resolver("nosuch", at, ("A",)), knows)
    assert [query.server[-1] for query, _ in log] == ["1", "2", "1", "2"]


def test_musl_reads_no_search_list_that_is_too_long() -> None:
    """Its buffer holds 256 characters: such a line is as if it were not there."""
    long = ResolvConf(("10.96.0.10",), (*SEARCH, *(f"{at:02}.corp.example.com" for at in range(10))), (("ndots", "5"),))
    assert candidates("api", long, "musl") == ("api.",)
    assert len(candidates("api", long)) == 14


@pytest.mark.parametrize(("name", "library", "why"), [("a..b", "glibc", "empty label"), ("a", "dietlibc", "C library")])
def test_what_cannot_be_asked_is_refused(name: str, library: str, why: str) -> None:
    """Names that are none, and libraries that are not modelled."""
    with pytest.raises(BadOption, match=why):
        candidates(name, conf(), library)


def test_a_name_that_grows_too_long_is_not_asked_for() -> None:
    """With its search domain behind it, it would be no name."""
    assert len(candidates(".".join(["a" * 60] * 4), conf())) == 1
