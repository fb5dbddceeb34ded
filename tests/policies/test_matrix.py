"""The matrix: for all pairs what the engine says of each, and questions about the whole."""

from __future__ import annotations

import random

import numpy as np
import pytest

from k8snetlab import api
from k8snetlab.cluster import Cluster
from k8snetlab.errors import BadOption, UnknownName
from k8snetlab.policies import plan
from k8snetlab.policies.engine import verdict
from k8snetlab.policies.matrix import Reach, asked_port, reach
from k8snetlab.policies.plan import EGRESS, INGRESS
from tests.policies import crowd
from tests.shops import bookshop

PORTS = ("80/TCP", "53/UDP", "8080/TCP", "81/SCTP")


def by_the_engine(found: Reach, port: str) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """All pairs, asked one by one; two pods without a family in common do not connect."""
    asked, ends = asked_port(port), found.policies.endpoints
    verdicts = np.zeros((len(ends), len(ends)), np.bool_)
    for row, source in enumerate(ends):
        for column, destination in enumerate(ends):
            try:
                said = verdict(found.policies, source, destination, asked.number, asked.protocol, of=found.of)
            except BadOption:
                continue
            verdicts[row, column] = said.allowed
    return verdicts


@pytest.mark.parametrize("family", [None, 4, 6])
def test_all_pairs_are_as_the_engine_says(family: int | None) -> None:
    """Some thirty thousand verdicts: clusters, policies and what plugins make of them, drawn by chance."""
    yes = total = 0
    for seed in range(40):
        policies = crowd.policies(random.Random(f"{family} {seed}"))
        found = reach(policies, PORTS[: seed % 4 + 1], of=family)
        for port in map(str, found.ports):
            wanted = by_the_engine(found, port)
            wrong = np.argwhere(found.matrix(port) != wanted)
            assert not len(wrong), (seed, port, *(found.pods[each] for each in wrong[0]))
            yes, total = yes + int(wanted.sum()), total + wanted.size
    assert total > 10_000
    assert 0.2 < yes / total < 0.8


def test_questions_about_one_pod_are_rows_and_columns() -> None:
    """Sources, targets, counts and single verdicts are the same matrix, without the pod itself."""
    for seed in range(20):
        found = reach(crowd.policies(random.Random(seed)), ["80/TCP"])
        whole = found.matrix("80/TCP")
        np.fill_diagonal(whole, val=False)
        for index, pod in enumerate(found.pods):
            assert found.targets_of(pod, 80) == tuple(np.array(found.pods)[whole[index]])
            assert found.sources_of(pod, 80) == tuple(np.array(found.pods)[whole[:, index]])
        assert found.pairs(80) == (whole.sum(), len(whole) * (len(whole) - 1))
        for row, column in np.argwhere(whole):
            assert found.reaches(found.pods[row], found.pods[column], 80)


def shop(cni: str = "calico") -> Cluster:
    """The bookshop, where policies are enforced."""
    return bookshop().changed(cni=cni)


def test_pods_that_no_policy_tells_apart_are_one_class() -> None:
    """The replicas of a Deployment stand together, and a class has the verdict of each of its pods."""
    found = shop().reach(["5432/TCP"])
    classes = {each.pods: each.id for each in found.classes}
    api_pods = next(pods for pods in classes if pods[0].startswith("shop/api"))
    assert len(api_pods) == len(bookshop().objects.pods_of("deploy/shop/api"))
    assert found.class_of(api_pods[-1]).pods == api_pods
    assert len(found.classes) < len(found.pods)
    db = found.class_of("shop/db-0").id
    assert found.allowed("5432/TCP")[classes[api_pods], db]
    assert not found.allowed("5432/TCP")[found.class_of("shop/web-0").id, db]


def test_expanded_has_eight_pods_to_a_byte() -> None:
    """Rows are sources, the first pod stands in the lowest bit."""
    found = shop().reach(["5432/TCP"])
    packed = found.expanded("5432/TCP")
    assert packed.shape == (len(found.pods), -(-len(found.pods) // 8))
    row, column = found.pods.index("shop/web-0"), found.pods.index("shop/db-0")
    assert packed[row, column // 8] >> column % 8 & 1 == 0
    assert packed[column, column // 8] >> column % 8 & 1 == 1


def test_the_engine_says_why() -> None:
    """The matrix knows that; the engine knows which policies."""
    said = shop().reach(["5432/TCP"]).why("shop/web-0", "shop/db-0", "5432/TCP")
    assert not said
    assert said.denied_by


def test_isolated_pods_are_those_that_a_policy_closes() -> None:
    """By direction; where nothing is enforced nobody is."""
    found = shop().reach()
    assert "shop/db-0" in found.isolated(INGRESS)
    wanted = {each.name for each in found.policies.endpoints if found.policies.selecting(each, EGRESS)}
    assert set(found.isolated(EGRESS)) == wanted
    assert shop("flannel").reach().isolated() == ()


def test_a_node_reaches_its_own_pods_although_their_class_is_closed() -> None:
    """Pods of two nodes are one class; what uses the network of one node reaches the pods there and not the others."""
    pods = [
        {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "shop", "labels": {"app": name[:2]}},
            "spec": {"nodeName": node, "hostNetwork": name == "agent", "containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": "Running", "podIPs": [{"ip": ip}]},
        }
        for name, node, ip in (("db-0", "n1", "10.1.0.2"), ("db-1", "n2", "10.2.0.2"), ("agent", "n1", "172.18.0.2"))
    ]  # fmt: skip
    closed = {
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "closed", "namespace": "shop"}, "spec": {"podSelector": {}},
    }  # fmt: skip
    found = reach(plan.of(api.load(*pods, closed).objects), [80])
    assert [each.pods for each in found.classes] == [("shop/db-0", "shop/db-1"), ("shop/agent",)]
    assert found.sources_of("shop/db-0", 80) == ("shop/agent",)
    assert found.sources_of("shop/db-1", 80) == ()
    assert found.near(80) == (("shop/agent", "shop/db-0"),)


@pytest.mark.parametrize("wrong", ["", "0", "70000/TCP", "80/ICMP", "http", "80/tcp", "٨٠"])
def test_what_is_no_port_is_refused(wrong: str) -> None:
    """A port is a number, and a protocol that policies know."""
    with pytest.raises(BadOption):
        shop().reach([wrong])


def test_pods_and_ports_that_were_not_asked_about_are_unknown() -> None:
    """The message names those that were."""
    found = shop().reach([80])
    with pytest.raises(UnknownName, match="80/TCP"):
        found.allowed(81)
    with pytest.raises(UnknownName, match="shop/web"):
        found.sources_of("shop/web-9", 80)
