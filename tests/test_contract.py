from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache

import jsonschema
import pytest

from k8snetlab import cni, contract, schemas
from k8snetlab.cluster import Cluster
from k8snetlab.contract import BREAKERS, RULES, Report, rules
from k8snetlab.errors import BadOption, UnknownName
from tests.choices import choices
from tests.shops import FAMILIES, NETWORKS, ZONES, bookshop, pod, zones

ACROSS_ROUTERS = {
    "flannel": True,
    "flannel-directrouting": True,
    "flannel-host-gw": False,
    "flannel-wireguard": True,
    "bridge": False,
    "cloud": True,
    "calico": True,
    "calico-ipip-crosssubnet": True,
    "calico-vxlan": True,
    "calico-vxlan-crosssubnet": True,
    "calico-bgp": False,
    "calico-bgp-reflector": False,
    "calico-bgp-tor": True,
    "cilium": True,
    "cilium-geneve": True,
    "cilium-native": False,
    "cloud-ptp": True,
    "cilium-wireguard": True,
}
"""Whether a network carries packets to nodes of another subnet."""


@cache
def small(network: str, families: str) -> Cluster:
    """Two pods on each of two nodes."""
    pods = "".join(pod(f"{name}-{node}", node=f"node-{node}") for node in (1, 2) for name in ("a", "b"))
    return Cluster.load(pods, nodes=2, **NETWORKS[network], **FAMILIES[families])


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_keeps_every_rule(network: str) -> None:
    """The bookshop, with both families."""
    report = contract.check(bookshop(network, "dual-stack"))
    assert report.holds, str(report)


NOT_KEPT: Mapping[str, tuple[str, ...]] = {
    "bridge masquerade=on": ("same-address",),
    "cloud source-dest-check=on": ("pod-to-pod", "node-to-pod"),
    "calico peers_down=node-3": ("pod-to-pod", "node-to-pod"),
}
"""Choices that are meant to break a rule."""


@pytest.mark.parametrize("families", FAMILIES)
@pytest.mark.parametrize("choice", choices())
def test_every_choice_of_every_cni_keeps_every_rule(choice: str, families: str) -> None:
    """All combinations of what decides the way of packets, and every other option: pods on three nodes, with IPv4,
    with IPv6 alone, and with both. A CNI without IPv6 says so.
    """
    pods = "".join(pod(f"a-{node}", node=f"node-{node}") for node in (1, 2, 3))
    asked = {**choices()[choice], **FAMILIES[families]}
    pools = cni.own_pools(cni.named(asked["cni"]))
    if families == "IPv6" and pools and not any(pool.family == 6 for pool in pools):
        with pytest.raises(BadOption, match="addresses of IPv4 only, and the cluster has IPv6 alone: take another CNI"):
            Cluster.load(pods, nodes=3, **asked)
        return
    report = contract.check(Cluster.load(pods, nodes=3, **asked))
    assert report.broken == NOT_KEPT.get(choice, ()), str(report)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("families", FAMILIES)
@pytest.mark.parametrize("network", NETWORKS)
def test_each_rule_can_be_broken_alone(network: str, families: str, rule: str) -> None:
    """For each rule there is a change of one machine's state that makes it fail, and no other."""
    assert contract.check(contract.break_rule(small(network, families), rule)).broken == (rule,)


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule != "kubelet"])
def test_a_rule_about_pods_is_broken_in_both_families(rule: str) -> None:
    """On a dual-stack cluster the failures name addresses of both."""
    cluster = small("flannel", "dual-stack")
    failures = " ".join(contract.check(contract.break_rule(cluster, rule))[rule].failures)
    assert "10.244." in failures and "fd00:10:244" in failures


@pytest.mark.parametrize(("network", "carries"), ACROSS_ROUTERS.items())
@pytest.mark.parametrize("cluster", ["node_cidr", "dump"])
def test_host_routes_end_at_a_router(cluster: str, network: str, carries: bool) -> None:
    """With nodes in several subnets only a tunnel reaches them all, and the report says which rules fail."""
    shop = bookshop(network, node_cidr=ZONES) if cluster == "node_cidr" else zones(network)
    report = contract.check(shop)
    assert report.broken == (() if carries else ("pod-to-pod", "node-to-pod")), str(report)


def test_a_plugin_that_masquerades_hides_pods_from_each_other() -> None:
    """The bridge plugin's own ipMasq hides pods from other nodes: the third rule says so."""
    assert contract.check(bookshop().changed(cni="bridge", cni_options={"masquerade": "on"})).broken == (
        "same-address",
    )


def test_the_api_server_of_a_dump_is_asked_too() -> None:
    """It runs on a node of the input, and calls the kubelet of each."""
    assert "API servers asked kubelets 4 times" in contract.check(zones())["kubelet"].evidence


def test_without_an_api_server_the_evidence_says_so() -> None:
    """A dump of nodes and pods only."""
    nodes = "".join(f"apiVersion: v1\nkind: Node\nmetadata: {{name: node-{number}}}\n---\n" for number in (1, 2))
    report = contract.check(Cluster.load(nodes, pod("a"), pod("b", node="node-2")))
    assert report.holds
    assert report["kubelet"].evidence.endswith("there is no API server to ask")


def test_the_evidence_says_what_was_sent() -> None:
    """Counts of pods and packets, for one family and for two."""
    assert contract.check(small("bridge", "IPv4"))["pod-to-pod"].evidence == (
        "6 pods sent 30 echo requests to each other"
    )
    assert contract.check(small("bridge", "dual-stack"))["pod-to-pod"].evidence == (
        "6 pods sent 60 echo requests to each other, by IPv4 and IPv6"
    )


def test_of_many_pods_on_a_node_two_are_asked() -> None:
    """They hang on the same bridge; the evidence says so."""
    many = Cluster.load("".join(pod(f"web-{number}") for number in range(9)), nodes=1)
    assert contract.check(many)["node-to-pod"].evidence.endswith("2 of 11 pods, two a node,")


def test_in_a_large_cluster_each_pod_asks_some_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of packets stays bounded, and every pod is asked by somebody."""
    monkeypatch.setattr(rules, "PAIRS", 60)
    subjects = rules.subjects_of(bookshop().terrain)
    assert len(subjects.pairs) <= 60
    assert {each.source.pod for each in subjects.pairs} == {each.pod for each in subjects.everyone}
    assert {each.target.pod for each in subjects.pairs} == {each.pod for each in subjects.everyone}


def test_a_failure_says_who_and_why() -> None:
    """A missing route is found by the pods that need it, with the reason of the walk."""
    cluster = small("bridge", "IPv4")
    node = cluster.network["node-1"]
    route = next(route for route in node.routes if route.prefix == "10.244.1.0/24")
    check = contract.check(cluster.without("node-1", route))["pod-to-pod"]
    assert not check.holds
    assert any("default/a-1 → default/a-2 10.244.1." in failure for failure in check.failures)
    assert str(check).startswith("BROKEN  pods reach all pods")


def test_no_more_than_ten_failures_are_told() -> None:
    """The rest is counted."""
    check = contract.check(contract.break_rule(bookshop(), "pod-to-pod"))["pod-to-pod"]
    assert len(check.failures) == 11 and check.failures[-1].endswith(" more")


def test_a_report_is_a_document() -> None:
    """Its JSON follows the schema."""
    jsonschema.validate(
        json.loads(json.dumps(contract.check(small("flannel", "IPv4")).as_dict())), schemas.load("Contract")
    )


def test_a_report_is_read_by_rule() -> None:
    """By name; an unknown one says which there are. In the order of the guide otherwise."""
    report = contract.check(small("flannel", "IPv4"))
    assert report["outside"].holds and [check.rule for check in report] == list(RULES)
    with pytest.raises(UnknownName, match="there is no rule 'poods'"):
        report["poods"]


def test_a_report_prints_every_rule() -> None:
    """`str` has a line and its evidence for each, `repr` the count."""
    report = contract.check(contract.break_rule(small("flannel", "IPv4"), "kubelet"))
    assert str(report).count("holds ") == 4 and str(report).count("BROKEN") == 1
    assert repr(report) == "<Report: 4 of 5 rules hold>"
    assert isinstance(report, Report)


def test_for_each_rule_there_is_a_breaker() -> None:
    """And an unknown one says which rules there are."""
    assert list(BREAKERS) == list(RULES)
    with pytest.raises(UnknownName, match="there is no rule 'gravity'"):
        contract.break_rule(bookshop(), "gravity")


def test_where_no_pod_runs_nothing_can_be_broken() -> None:
    """The rules hold of nobody; breaking one is refused."""
    empty = Cluster.load("apiVersion: v1\nkind: Node\nmetadata: {name: alone}\n")
    assert contract.check(empty).holds
    with pytest.raises(BadOption, match="no pod runs in this cluster"):
        contract.break_rule(empty, "outside")


def test_what_is_broken_can_be_repaired() -> None:
    """The breaker is an overlay with a name."""
    broken = contract.break_rule(small("flannel", "IPv4"), "outside")
    assert contract.check(broken.repaired("break outside")).holds
