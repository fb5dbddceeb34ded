"""Which node a pod gets, and why it may get none."""

from typing import Any

import pytest

from k8snetlab.controllers import Resolved
from tests.controllers.example import cluster, node, own, pod, running, workload


def places(found: Resolved) -> list[str]:
    """The nodes of the pods from the manifests."""
    return [each.node_name for each in own(found)]


def why(found: Resolved) -> str:
    """Why the only pod waits."""
    (waiting,) = own(found)
    assert (waiting.node_name, waiting.ips, waiting.status.phase) == ("", (), "Pending")
    return waiting.status.conditions[0].message


NODES = (
    node("a", "172.18.0.5", labels={"disk": "ssd", "cpus": "4"}),
    node("b", "172.18.0.6", labels={"disk": "hdd", "cpus": "8"}),
)


def test_replicas_spread() -> None:
    """Pods of one owner go where there are fewest of them, then where there are fewest at all."""
    found = cluster(*NODES, workload("Deployment", "web", replicas=3), workload("Deployment", "api", replicas=2))
    assert places(found) == ["a", "b", "a", "b", "a"]


def test_pods_of_the_input_count_before_others_are_placed() -> None:
    """What already runs, runs, wherever it stands in the input."""
    assert places(cluster(*NODES, pod("new"), running("old", "a", "10.244.0.2"))) == ["b", "a"]


def test_named_node_is_not_asked() -> None:
    """A pod that names its node goes there, taint or not."""
    tainted = node("c", "172.18.0.7", spec={"taints": [{"key": "x", "effect": "NoSchedule"}]})
    assert places(cluster(*NODES, tainted, pod("p", nodeName="c"))) == ["c"]


def test_node_selector() -> None:
    """All labels must be there."""
    assert places(cluster(*NODES, pod("p", nodeSelector={"disk": "hdd"}))) == ["b"]


@pytest.mark.parametrize(
    ("expressions", "place"),
    [
        ([{"key": "disk", "operator": "In", "values": ["hdd"]}], "b"),
        ([{"key": "disk", "operator": "NotIn", "values": ["ssd"]}], "b"),
        ([{"key": "cpus", "operator": "Gt", "values": ["4"]}], "b"),
        ([{"key": "gpu", "operator": "Exists"}], ""),
    ],
)
def test_required_affinity(expressions: list[dict[str, Any]], place: str) -> None:
    """The required terms of node affinity are obeyed."""
    terms = {"nodeSelectorTerms": [{"matchExpressions": expressions}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    assert places(cluster(*NODES, pod("p", affinity=affinity))) == [place]


def test_taints_keep_pods_away() -> None:
    """Pods avoid the control plane unless they tolerate it; a mere preference keeps nobody away."""
    taint = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}
    plane = node("a", "172.18.0.5", spec={"taints": [taint]})
    assert why(cluster(plane, pod("p"))) == (
        "0/1 nodes are available: 1 node(s) had untolerated taint {node-role.kubernetes.io/control-plane: }."
    )
    bears = [{"key": taint["key"], "operator": "Exists", "effect": "NoSchedule"}]
    assert places(cluster(plane, pod("p", tolerations=bears))) == ["a"]
    rather_not = node("a", "172.18.0.5", spec={"taints": [{"key": "x", "effect": "PreferNoSchedule"}]})
    assert places(cluster(rather_not, pod("p"))) == ["a"]


def test_waiting_pod_says_why() -> None:
    """All reasons are counted, in the scheduler's words."""
    cordoned = node("c", "172.18.0.7", spec={"unschedulable": True})
    assert why(cluster(*NODES, cordoned, pod("p", nodeSelector={"gpu": "yes"}))) == (
        "0/3 nodes are available: 1 node(s) had untolerated taint {node.kubernetes.io/unschedulable: }, "
        "2 node(s) didn't match Pod's node affinity/selector."
    )


def test_kubelet_takes_so_many_pods() -> None:
    """A full node takes no more."""
    small = node("a", "172.18.0.5")
    small["status"]["allocatable"] = {"pods": "2"}
    found = cluster(small, workload("Deployment", "web", replicas=3))
    assert places(found) == ["a", "a", ""]
    assert own(found)[2].status.conditions[0].message == "0/1 nodes are available: 1 Too many pods."


def test_bound_pod_takes_over_the_zone() -> None:
    """The labels of zone and region are copied from the node."""
    zone = {"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "disk": "ssd"}
    (placed,) = own(cluster(node("a", "172.18.0.5", labels=zone), pod("p", labels={"app": "web"})))
    assert placed.labels == {"app": "web", "topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r"}


def test_pending_pod_of_a_dump_stays_pending() -> None:
    """What a dump shows waiting still waits."""
    (waiting,) = own(cluster(*NODES, pod("p", status={"phase": "Pending"})))
    assert (waiting.node_name, waiting.ips) == ("", ())
