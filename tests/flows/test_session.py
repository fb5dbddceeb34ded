from __future__ import annotations

from functools import cache

import pytest

from k8snetlab.cluster import Cluster
from k8snetlab.errors import BadOption, UnknownName
from k8snetlab.flows import Session
from k8snetlab.trace import Action, Client
from tests.shops import bookshop, pod, service

RULES = pytest.mark.parametrize("proxy", ["iptables", "nftables"])
"""The modes of kube-proxy whose rules remember clients."""


@cache
def sticky(proxy: str = "iptables") -> Cluster:
    """A Service with ClientIP affinity of 100 seconds, three backends, and two clients on one node."""
    affinity = "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 100}}"
    backends = "".join(pod(f"web-{number}", node=f"node-{number}") for number in (1, 2, 3))
    return Cluster.load(backends, pod("a", app="client"), pod("b", app="client"), service("web", affinity), proxy=proxy)


def drawn(session: Session, who: str = "default/a") -> str:
    """The backend that the next connection gets."""
    backend = session.trace(who, "svc/default/web:80").backend
    assert backend is not None
    return backend.pod


@RULES
def test_affinity_keeps_the_backend(proxy: str) -> None:
    """Whoever was drawn first takes every connection of that client."""
    session = sticky(proxy).session(seed=1)
    assert len({drawn(session) for _ in range(12)}) == 1


@RULES
def test_affinity_ends_after_its_time_out(proxy: str) -> None:
    """A client that stays away for longer is drawn anew: over many pauses every backend is met."""
    session = sticky(proxy).session(seed=1)
    met = set()
    for _ in range(20):
        met.add(drawn(session))
        session.advance(101)
    assert met == {"web-1", "web-2", "web-3"}


@RULES
def test_every_connection_keeps_affinity_alive(proxy: str) -> None:
    """The time-out counts from the last connection, not from the first."""
    session = sticky(proxy).session(seed=1)
    first = drawn(session)
    for _ in range(10):
        session.advance(99)
        assert drawn(session) == first


@RULES
def test_affinity_is_one_for_each_client(proxy: str) -> None:
    """Another client is drawn for himself: over many sessions the two differ somewhere."""
    pairs = [
        (session := sticky(proxy).session(seed=seed), drawn(session), drawn(session, "default/b")) for seed in range(12)
    ]
    assert any(one != other for _, one, other in pairs)


def test_without_affinity_every_connection_is_drawn() -> None:
    """A session alone makes nobody stick."""
    session = bookshop().session(seed=1)
    backends = {session.trace("shop/web-0", "svc/shop/api:80").backend for _ in range(20)}
    assert len(backends) == 3


def test_a_trace_outside_of_a_session_remembers_nothing() -> None:
    """The affinity of a session is not that of the cluster."""
    session = sticky().session(seed=1)
    drawn(session)
    seeds = {sticky().trace("default/a", "svc/default/web:80", seed=seed).backend for seed in range(20)}
    assert len(seeds) == 3


def test_connections_stay_in_conntrack() -> None:
    """Each connection is a line on the node that translated it, as `conntrack -L` prints it."""
    session = sticky().session(seed=1)
    for _ in range(3):
        drawn(session)
    lines = session.conntrack("node-1").splitlines()
    assert len([line for line in lines if "dport=80 " in line and "ESTABLISHED" in line]) == 3


def remembered(session: Session, protocol: str) -> int:
    """How many connections of a protocol node-1 knows."""
    return sum(line.startswith(protocol) for line in session.conntrack("node-1").splitlines())


@pytest.mark.parametrize(("protocol", "stays", "gone"), [("UDP", 29, 30), ("TCP", 431_999, 432_000)])
def test_connections_are_forgotten_in_time(protocol: str, stays: int, gone: int) -> None:
    """30 seconds after a question and answer by UDP; an open TCP connection stays for five days."""
    line = service("web", target=8080).replace("port: 80,", f"port: 80, protocol: {protocol},")
    web = pod("web-1", node="node-2").replace("containerPort: 8080", f"containerPort: 8080, protocol: {protocol}")
    session = Cluster.load(line, web, pod("a", app="a"), cni="bridge").session()
    assert session.trace("default/a", f"svc/default/web:80/{protocol}").client is Client.OPEN
    session.advance(stays)
    assert remembered(session, protocol.lower()) == 1
    session.advance(gone - stays)
    assert remembered(session, protocol.lower()) == 0


def test_what_nobody_answered_is_forgotten_sooner() -> None:
    """A SYN to a pod that is gone: 120 seconds."""
    session = Cluster.load(pod("a"), service("web")).session()
    assert session.trace("default/a", "10.244.9.9:80").client is not Client.OPEN
    before = remembered(session, "tcp")
    session.advance(119)
    assert remembered(session, "tcp") == before
    session.advance(1)
    assert remembered(session, "tcp") == 0


def test_neighbours_are_learnt_once() -> None:
    """The second packet asks nobody for a MAC address."""
    session = bookshop().session()
    actions = [[step.action for step in session.trace("shop/web-0", "shop/web-1:8080").steps] for _ in range(2)]
    assert Action.ARP in actions[0] and Action.ARP not in actions[1]


def test_the_outcome_of_a_session_is_what_happened() -> None:
    """Other choices are not walked: they would have to undo what was before."""
    [outcome] = bookshop().session().trace("shop/web-0", "svc/shop/api:80").outcomes
    assert outcome.probability == 1.0


def test_the_same_seed_gives_the_same_session() -> None:
    """Step for step."""
    one, other = bookshop().session(seed=3), bookshop().session(seed=3)
    for _ in range(4):
        assert one.trace("shop/web-0", "api:80").steps == other.trace("shop/web-0", "api:80").steps


def test_time_runs_forward() -> None:
    """From the moment given, by the seconds given."""
    session = bookshop().session(now=1000.0)
    session.advance(2.5)
    assert session.now == 1002.5
    with pytest.raises(BadOption, match="time does not run backwards"):
        session.advance(-1)


def test_a_session_has_the_cables_it_began_with() -> None:
    """A client that is not in the network cannot join; the one outside is there."""
    session = bookshop().session()
    assert session.trace("external", "svc/shop/web:80").backend is not None
    with pytest.raises(BadOption, match="a session has the cables it began with"):
        session.trace("external:198.51.100.7", "svc/shop/web:80")


def test_conntrack_of_a_machine_that_is_not_there() -> None:
    """The message says which are."""
    with pytest.raises(UnknownName, match="there is no machine 'node-9'"):
        bookshop().session().conntrack("node-9")


def test_an_open_connection_has_more_packets() -> None:
    """They go to the same backend, whichever new ones are drawn."""
    session = bookshop().session(seed=3)
    opened = session.trace("shop/web-0", "svc/shop/api:80")
    for _ in range(5):
        more = session.again(opened)
        assert (more.client, more.backend) == (Client.OPEN, opened.backend)


def test_what_opened_no_connection_cannot_go_on() -> None:
    """A refusal has no second packet."""
    session = bookshop().session()
    refused = session.trace("shop/web-0", "shop/db-0:81")
    with pytest.raises(BadOption, match="opened no connection"):
        session.again(refused)


def test_a_session_goes_on_with_other_machines() -> None:
    """A route that is taken away is missed at once, and the connection is known when it is back."""
    whole = bookshop()
    session = whole.session()
    opened = session.trace("shop/web-0", "shop/db-0:5432")
    node = whole.network[whole.objects.pod("shop/web-0").node_name]
    session.become(whole.sysctl(node.name, "net.ipv4.ip_forward", 0))
    assert session.again(opened).client is Client.TIMEOUT
    session.become(whole)
    assert session.again(opened).client is Client.OPEN
