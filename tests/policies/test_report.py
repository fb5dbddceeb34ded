"""The matrix as text and data, where pods are many."""

from __future__ import annotations

from k8snetlab import api
from k8snetlab.policies import plan
from k8snetlab.policies.matrix import Reach, reach


def crowd(spaces: int, pods: int) -> Reach:
    """Namespaces with pods on two nodes, where every other namespace lets only its own pods in, and an agent a node."""
    objects = [
        {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"w-{at}", "namespace": f"ns-{space:02}"},
            "spec": {"nodeName": f"n{at % 2}", "containers": [{"name": "c", "image": "i"}]},
        }
        for space in range(spaces)
        for at in range(pods)
    ]  # fmt: skip
    objects += [
        {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"agent-{at}", "namespace": "ops"},
            "spec": {"nodeName": f"n{at}", "hostNetwork": True, "containers": [{"name": "c", "image": "i"}]},
        }
        for at in range(2)
    ]  # fmt: skip
    objects += [
        {
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "own", "namespace": f"ns-{space:02}"},
            "spec": {"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]},
        }
        for space in range(0, spaces, 2)
    ]  # fmt: skip
    return reach(plan.of(api.load(*objects).objects), ["80/TCP"])


def test_many_classes_are_told_by_namespace() -> None:
    """How many pods are isolated, and which part of the pairs is allowed."""
    lines = str(crowd(80, 4)).splitlines()
    closed = next(line.split() for line in lines if line.startswith("ns-00"))
    open_ = next(line.split() for line in lines if line.startswith("ns-01"))
    assert closed[:4] == ["ns-00", "4", "4", "0"]
    assert open_[:4] == ["ns-01", "4", "0", "0"]
    assert open_[4:6] == ["100", "%"]
    assert lines[-1] == "and 160 pairs of one node, of which one uses the node's network"


def test_more_than_a_thousand_pods_are_told_by_class_unless_asked_for() -> None:
    """By class the pairs of one node stand beside the matrix; pod by pod they are in it."""
    found = crowd(4, 300)
    short, long = found.as_dict(), found.as_dict(expand=True)
    assert len(short["classes"]) == len(found.classes)
    assert sum(len(each["pods"]) for each in short["classes"]) == len(long["classes"]) == 1202
    assert ["ops/agent-0", "ns-00/w-0"] in short["own_node"]["80/TCP"]
    assert long["own_node"] == {}
    place = {each["pods"][0]: each["id"] for each in long["classes"]}
    row = long["allowed"]["80/TCP"][place["ops/agent-0"]]
    assert row[place["ns-00/w-0"]]
    assert not row[place["ns-00/w-1"]]
    assert found.csv().count("\n") == 1 + len(found.classes)
    assert found.csv(expand=True).count("\n") == 1203


def test_nobody_is_no_error() -> None:
    """A cluster without pods has an empty matrix."""
    found = reach(plan.of([]), [80])
    assert str(found) == "0 pods in 0 classes of pods treated alike"
    assert found.as_dict()["allowed"] == {"80/TCP": []}
    assert found.pairs(80) == (0, 0)


def test_what_is_not_in_the_matrix_is_said() -> None:
    """Cilium's own policies are asked by a trace, and not here."""
    own = {
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": "l7"},
        "spec": {"endpointSelector": {}, "ingress": [{}]},
    }  # fmt: skip
    found = reach(plan.of(api.load(own).objects), [80])
    assert "1 CiliumNetworkPolicy is not in it: trace asks them" in str(found)
