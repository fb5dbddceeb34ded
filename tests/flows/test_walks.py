from __future__ import annotations

import random

import pytest

from k8snetlab.errors import BadOption
from k8snetlab.flows.walks import merged
from k8snetlab.trace import Action, Backend, Client, Outcome, Verdict
from tests.shops import across, bookshop


def test_a_trace_says_what_was_asked() -> None:
    """The words, the address they meant, the family and the size."""
    request = bookshop().trace("shop/web-0", "api:80", size=100).request
    assert (request.source, request.target, request.port, request.protocol, request.family, request.size) == (
        "shop/web-0",
        "api:80",
        80,
        "TCP",
        4,
        100,
    )


def test_a_trace_says_who_took_the_packet_and_whom_he_saw() -> None:
    """The backend with its node and port after translation; the pod's own address as the source."""
    trace = across(bookshop())
    assert trace.backend is not None
    pod = bookshop().objects.pod(f"{trace.backend.namespace}/{trace.backend.pod}")
    assert (trace.backend.node, trace.backend.ip, trace.backend.port) == (pod.node_name, pod.ip, 8080)
    assert trace.source_seen == bookshop().objects.pod("shop/web-0").ip


def test_a_machine_is_a_backend_too() -> None:
    """A kubelet has no namespace, and its machine's name."""
    assert bookshop().trace("shop/web-0", "node/node-1:10250").backend == Backend(
        "", "node-1", "node-1", "172.18.0.11", 10250
    )


def test_the_seed_draws_the_backend() -> None:
    """Over many seeds all three are drawn; with one seed always the same."""
    drawn = {bookshop().trace("shop/web-0", "api:80", seed=seed).backend for seed in range(30)}
    assert len(drawn) == 3
    assert (
        bookshop().trace("shop/web-0", "api:80", seed=7).steps == bookshop().trace("shop/web-0", "api:80", seed=7).steps
    )


def test_the_clusters_seed_is_used_unless_another_is_given() -> None:
    """`Options.seed` is the seed of every trace of the cluster."""
    one = bookshop().changed(seed=5).trace("shop/web-0", "api:80")
    assert one.steps == bookshop().trace("shop/web-0", "api:80", seed=5).steps


def test_outcomes_are_found_by_walking() -> None:
    """A rule taken away changes the chances, and nobody asks the Service."""
    cluster = bookshop()
    trace = across(cluster)
    statistic = next(step for step in trace.steps if step.rule is not None and "--probability" in step.rule.text)
    rule = next(
        rule
        for chain in cluster.network[statistic.where].netfilter.ipv4["nat"].chains.values()
        for rule in chain.rules
        if rule == statistic.rule
    )
    chances = [outcome.probability for outcome in cluster.without(statistic.where, rule).trace(*ASKED).outcomes]
    assert sum(chances) == pytest.approx(1) and len(chances) == 2


ASKED = ("shop/web-0", "svc/shop/api:80")


@pytest.mark.parametrize("network", ["flannel", "bridge"])
def test_chances_add_up_to_one(network: str) -> None:
    """For every Service of the bookshop, from a pod, a node and outside."""
    cluster = bookshop(network)
    for service in cluster.objects.services:
        if service.cluster_ips:
            port = service.spec.ports[0]
            for who in ("shop/web-0", "node/node-1", "external"):
                outcomes = cluster.trace(who, f"svc/{service.key}:{port.port}/{port.protocol}").outcomes
                assert sum(outcome.probability for outcome in outcomes) == pytest.approx(1, abs=1e-6)


def test_outcomes_that_end_alike_are_one() -> None:
    """Three backends that all refuse for the same reason are one outcome; different backends stay apart."""
    lost = Outcome(0.25, Verdict.TIMEOUT, Client.TIMEOUT, None, "", "lost")
    won = Outcome(0.5, Verdict.DELIVERED, Client.OPEN, Backend("a", "b", "c", "10.0.0.1", 80), "10.0.0.2", "taken")
    half = Outcome(0.5, Verdict.TIMEOUT, Client.TIMEOUT, None, "", "lost")
    assert merged([lost, won, lost]) == (half, won)


def test_the_order_of_outcomes_does_not_depend_on_the_walk() -> None:
    """The most probable first, then by address."""
    found = [
        Outcome(1 / 8, Verdict.DELIVERED, Client.OPEN, Backend("", "", "", f"10.0.0.{at}", 80), "") for at in range(8)
    ]
    shuffled = random.Random(1).sample(found, 8)
    assert merged(shuffled) == merged(found) == tuple(found)


def test_a_verdict_that_depends_on_chance_is_mixed() -> None:
    """One of three backends is cut off: the trace is MIXED, its fate is what was drawn."""
    cluster = bookshop()
    backend = across(cluster).backend
    assert backend is not None
    listener = cluster.network[backend.name].listeners[0]
    trace = cluster.without(backend.name, listener).trace(*ASKED)
    assert trace.verdict is Verdict.MIXED
    assert {outcome.verdict for outcome in trace.outcomes} == {Verdict.DELIVERED, Verdict.REJECTED}


@pytest.mark.parametrize("size", [-1, 65_001, 10**9])
def test_a_packet_has_a_size(size: int) -> None:
    """More than 65,000 bytes fit in no packet."""
    with pytest.raises(BadOption, match=f"size: {size} is no payload size from 0 to 65000 bytes"):
        bookshop().trace(*ASKED, size=size)


def test_a_packet_that_is_too_large_is_not_sent() -> None:
    """With DF the device says so at once; without, it is cut and put together again."""
    whole = bookshop().trace("shop/web-0", "shop/web-1:8080/UDP", size=2000)
    assert (whole.fate, whole.client) == (Verdict.DROPPED, Client.TIMEOUT)
    cut = bookshop().trace("shop/web-0", "shop/web-1:8080", size=2000, df=False)
    assert cut.fate is Verdict.DELIVERED
    assert {Action.FRAGMENT, Action.REASSEMBLE} <= {step.action for step in cut.steps}
