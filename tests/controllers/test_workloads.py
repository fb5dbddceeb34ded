"""Workloads become pods: how many, with which names and labels."""

import re
from typing import Any

import pytest

from k8snetlab import api
from tests.controllers.example import CONTAINER, cluster, node, own, running, workload

LETTERS = "[bcdfghjklmnpqrstvwxz2456789]"


def owned(plain: dict[str, Any], kind: str, name: str, **labels: str) -> dict[str, Any]:
    """The pod with an owner and labels."""
    plain["metadata"]["ownerReferences"] = [
        {"apiVersion": "apps/v1", "kind": kind, "name": name, "controller": True, "uid": "u"}
    ]
    plain["metadata"]["labels"] = labels
    return plain


def test_deployment_makes_a_replica_set_and_its_pods() -> None:
    """Names have three parts, and labels carry the hash of the template."""
    found = cluster(workload("Deployment", "web", replicas=2))
    (replica_set,) = [each for each in found.of(api.ReplicaSet) if each.namespace == "default"]
    assert re.fullmatch("web-[456789bcdf]{1,10}", replica_set.name)
    pods = found.pods_of("deploy/default/web")
    assert len(pods) == len({each.name for each in pods}) == 2
    for each in pods:
        assert re.fullmatch(f"{replica_set.name}-{LETTERS}{{5}}", each.name)
        assert each.labels == {"app": "web", "pod-template-hash": replica_set.name.removeprefix("web-")}
        assert each.owner is not None
        assert (each.owner.kind, each.owner.name) == ("ReplicaSet", replica_set.name)


def test_another_template_gives_other_pods() -> None:
    """The hash follows from the template, not from the number of replicas."""
    names = [
        {each.name for each in own(cluster(workload("Deployment", "web", **fields)))}
        for fields in ({"replicas": 1}, {"replicas": 2}, {"replicas": 2, "pod_spec": {"hostname": "h"}})
    ]
    assert names[0] < names[1]
    assert not names[1] & names[2]


def test_long_names_are_cut() -> None:
    """A generated name has at most 63 characters."""
    pods = own(cluster(workload("Deployment", "a" * 60)))
    assert [len(each.name) for each in pods] == [63]


def test_stateful_set_numbers_its_pods() -> None:
    """Names and host names are stable, and the subdomain is the headless Service."""
    found = cluster(workload("StatefulSet", "db", replicas=2, serviceName="db", ordinals={"start": 5}))
    pods = found.pods_of("sts/default/db")
    assert [(each.name, each.spec.hostname, each.spec.subdomain) for each in pods] == [
        ("db-5", "db-5", "db"),
        ("db-6", "db-6", "db"),
    ]
    assert pods[0].labels["statefulset.kubernetes.io/pod-name"] == "db-5"


def test_daemon_set_makes_a_pod_for_each_node_that_takes_it() -> None:
    """A tainted node is left out, an unschedulable one is not: its pods are exempt."""
    tainted = {"taints": [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]}
    nodes = (
        node("a", "172.18.0.5", spec=tainted),
        node("b", "172.18.0.6", spec={"unschedulable": True}),
        node("c", "172.18.0.7"),
    )
    found = cluster(*nodes, workload("DaemonSet", "agent"))
    assert [each.node_name for each in found.pods_of("ds/default/agent")] == ["b", "c"]
    bears = {"tolerations": [{"operator": "Exists"}]}
    found = cluster(*nodes, workload("DaemonSet", "agent", pod_spec=bears))
    assert [each.node_name for each in found.pods] == ["a", "b", "c"]


def job(**spec: Any) -> dict[str, Any]:
    """A Job."""
    template = {"spec": {"containers": [CONTAINER], "restartPolicy": "Never"}}
    plain = {"template": template, **spec}
    status = plain.pop("status", {})
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": plain, "status": status}


@pytest.mark.parametrize(
    ("spec", "pods"),
    [
        ({}, 1),
        ({"parallelism": 3}, 3),
        ({"parallelism": 3, "completions": 2}, 2),
        ({"parallelism": 3, "completions": 4, "status": {"succeeded": 2}}, 2),
        ({"suspend": True}, 0),
        ({"status": {"completionTime": "2026-11-22T00:00:00Z"}}, 0),
    ],
)
def test_job_makes_the_pods_that_run_now(spec: dict[str, Any], pods: int) -> None:
    """As many as may run at once and are still needed."""
    assert len(cluster(job(**spec)).pods_of("job/default/j")) == pods


def test_indexed_job_names_its_pods() -> None:
    """The index stands in name and host name."""
    found = cluster(job(completionMode="Indexed", completions=2, parallelism=2)).pods_of("job/default/j")
    assert [each.spec.hostname for each in found] == ["j-0", "j-1"]
    assert re.fullmatch(f"j-1-{LETTERS}{{5}}", found[1].name)


def test_cron_job_has_no_pods_between_its_times() -> None:
    """A CronJob makes Jobs by the clock, and there is none here."""
    cron = {"schedule": "0 * * * *", "jobTemplate": {"spec": job()["spec"]}}
    plain = {"apiVersion": "batch/v1", "kind": "CronJob", "metadata": {"name": "c"}, "spec": cron}
    assert own(cluster(plain)) == []


def test_scaled_to_zero_there_are_no_pods() -> None:
    """Zero replicas are said, not defaulted."""
    assert cluster(workload("Deployment", "web", replicas=0)).pods_of("deploy/default/web") == ()


# Pods that are there


def test_pods_of_a_replica_set_count() -> None:
    """Only what is missing is made; the pods of the input keep their names."""
    there = owned(running("web-6f5d-aaaaa", "node-1", "10.244.0.7"), "ReplicaSet", "web", app="web")
    found = cluster(there, workload("ReplicaSet", "web", replicas=3)).pods_of("rs/default/web")
    assert (len(found), found[0].name) == (3, "web-6f5d-aaaaa")


def test_pods_of_a_deployment_count_without_their_replica_set() -> None:
    """A dump of pods and Deployments tells the ReplicaSet by name and label; a new pod joins it."""
    labels = {"app": "web", "pod-template-hash": "6f5d"}
    there = [
        owned(running(f"web-6f5d-aaaa{each}", "node-1", f"10.244.0.{each}"), "ReplicaSet", "web-6f5d", **labels)
        for each in (2, 3)
    ]
    found = cluster(*there, workload("Deployment", "web", replicas=3)).pods_of("deploy/default/web")
    assert [each.name[:12] for each in found] == ["web-6f5d-aaa"] * 2 + [found[2].name[:12]]
    assert found[2].name.startswith("web-6f5d-")


def test_replica_sets_of_a_dump_make_up_the_deployment() -> None:
    """During an update two ReplicaSets have pods; together they are as many as the Deployment wants."""
    sets = []
    for name, replicas, revision in (("web-old", 1, "1"), ("web-new", 1, "2")):
        plain = workload("ReplicaSet", "web", replicas=replicas)
        plain["metadata"] = {
            "name": name,
            "annotations": {"deployment.kubernetes.io/revision": revision},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "controller": True}],
        }
        sets.append(plain)
    found = cluster(*sets, workload("Deployment", "web", replicas=4))
    assert len(found.pods_of("rs/default/web-old")) == 1
    assert len(found.pods_of("rs/default/web-new")) == 3
    assert len(found.pods_of("deploy/default/web")) == 4


def test_pods_that_completed_or_leave_do_not_count() -> None:
    """They are replaced at once."""
    gone = owned(running("web-a", "node-1", "10.244.0.2"), "ReplicaSet", "web", app="web")
    gone["status"]["phase"] = "Failed"
    leaving = owned(running("web-b", "node-1", "10.244.0.3"), "ReplicaSet", "web", app="web")
    leaving["metadata"]["deletionTimestamp"] = "2026-11-22T00:00:00Z"
    found = cluster(gone, leaving, workload("ReplicaSet", "web", replicas=1)).pods_of("rs/default/web")
    assert len(found) == 3


def test_stateful_set_and_daemon_set_fill_the_gaps() -> None:
    """The number, or the node, says which pod is missing."""
    there = owned(running("db-1", "node-1", "10.244.0.2"), "StatefulSet", "db", app="db")
    found = cluster(there, workload("StatefulSet", "db", replicas=3)).pods_of("sts/default/db")
    assert [each.name for each in found] == ["db-1", "db-0", "db-2"]
    nodes = node("a", "172.18.0.5"), node("b", "172.18.0.6")
    there = owned(running("x", "a", "10.244.0.2"), "DaemonSet", "agent", app="agent")
    found = cluster(*nodes, there, workload("DaemonSet", "agent")).pods_of("ds/default/agent")
    assert [each.node_name for each in found] == ["a", "b"]
