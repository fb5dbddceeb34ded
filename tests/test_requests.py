"""Requests to the API server: `applied`, `patched`, `deleted`, and what it answers."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import k8snetlab as k8s
from k8snetlab import api
from k8snetlab.cluster import Cluster
from k8snetlab.errors import AddressInUse, CannotDo, ManifestError, UnknownName
from k8snetlab.trace import Client

Plain = dict[str, Any]

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"

WEB = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
"""

POD = """
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web}}
spec: {containers: [{name: hello, ports: [{containerPort: 8080}]}]}
"""


def service(name: str, **spec: Any) -> Plain:
    """A Service at port 80."""
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}], **spec},
    }  # fmt: skip


@cache
def lab() -> Cluster:
    """One Service, one pod behind it, and a Service with a node port of its own choice."""
    return Cluster.load(WEB, POD, service("gate", type="NodePort", ports=[{"port": 80, "nodePort": 30080}]))


def given(cluster: Cluster) -> dict[str, tuple[tuple[str, ...], list[int]]]:
    """What each Service was given: addresses and node ports."""
    return {
        each.key: (each.cluster_ips, [port.node_port for port in each.spec.ports]) for each in cluster.objects.services
    }


# Nobody else moves


def test_services_keep_what_they_have_whatever_happens_to_others() -> None:
    """Applied, patched and deleted Services leave the addresses and node ports of all others alone."""
    cluster = lab().applied(*(service(f"s{at}", type="NodePort") for at in range(60)))
    before = given(cluster)
    changes = (
        cluster.applied(service("s7", type="LoadBalancer"), service("new")),
        cluster.patched("Service", "s8", {"spec": {"type": "ClusterIP"}}),
        cluster.deleted("Service", "s9").deleted("Service", "s10"),
        cluster.applied(service("aaa", type="NodePort")).deleted("Service", "s0").changed(proxy="iptables", seed=3),
    )
    for changed in changes:
        after = given(changed)
        asked = {"default/s7", "default/s8"}
        assert {key: after[key] for key in after.keys() & before.keys() - asked} == {
            key: before[key] for key in after.keys() & before.keys() - asked
        }
        assert len({ip for ips, _ in after.values() for ip in ips}) == len(after)


def test_a_newcomer_cannot_have_what_was_drawn_for_another() -> None:
    """At load what is written counts first; once a Service lives, its address is its own."""
    drawn = lab().objects.service("default/web").spec.cluster_ip
    with pytest.raises(AddressInUse, match="provided IP is already allocated"):
        lab().applied(service("late", clusterIP=drawn))
    loaded = Cluster.load(WEB, service("late", clusterIP=drawn))
    assert loaded.objects.service("default/late").spec.cluster_ip == drawn


def test_what_was_deleted_is_free() -> None:
    """The node port of a Service that is gone can be had by the next one."""
    with pytest.raises(AddressInUse, match="node port 30080"):
        lab().applied(service("next", type="NodePort", ports=[{"port": 80, "nodePort": 30080}]))
    free = lab().deleted("Service", "gate")
    after = free.applied(service("next", type="NodePort", ports=[{"port": 80, "nodePort": 30080}]))
    assert given(after)["default/next"][1] == [30080]


def test_another_service_network_gives_all_addresses_anew() -> None:
    """What somebody wrote or patched stays; what was only allocated comes from the new network."""
    cluster = lab().patched(
        "Service", "web", {"spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30081}]}}
    )
    moved = cluster.changed(service_cidr="10.112.0.0/16")
    assert all(ip.startswith("10.112.") for ips, _ in given(moved).values() for ip in ips)
    assert given(moved)["default/web"][1] == [30081]
    assert moved.objects.service("default/web").spec.type is api.ServiceType.NODE_PORT


def test_a_dual_stack_service_outlives_another_network() -> None:
    """A patch of the policy is written down, the address that it brought is not."""
    dual = {"service_cidr": "10.96.0.0/12,fd00:10:96::/108"}
    cluster = Cluster.load(WEB, **dual).patched("Service", "web", {"spec": {"ipFamilyPolicy": "RequireDualStack"}})
    moved = cluster.changed(service_cidr="10.112.0.0/16,fd00:10:112::/108")
    assert [ip.split(".")[0].split("::")[0] for ip in given(moved)["default/web"][0]] == ["10", "fd00:10:112"]


# Traffic follows


def test_packets_follow_the_change() -> None:
    """A patched target port, and a Service that was taken away from its pods."""
    assert lab().trace("default/web-1", "svc/default/web:80").client is Client.OPEN
    port = {"spec": {"ports": [{"port": 80, "targetPort": 9090}]}}
    assert lab().patched("Service", "web", port).trace("default/web-1", "svc/default/web:80").client is Client.REFUSED
    nobody = lab().patched("Service", "web", {"spec": {"selector": {"app": None, "tier": "x"}}})
    assert nobody.trace("default/web-1", "svc/default/web:80").client is Client.REFUSED


def test_node_port_that_a_patch_opened_answers() -> None:
    """The allocated number is in the answer, and in the rules."""
    cluster = lab().patched("Service", "web", {"spec": {"type": "NodePort"}})
    (answer,) = cluster.answer
    assert isinstance(answer, api.Service)
    assert cluster.trace("external", f"node/node-1:{answer.spec.ports[0].node_port}").client is Client.OPEN


# Answers


def test_answer_says_what_became_of_each_object() -> None:
    """As kubectl does: created, configured, unchanged, patched, deleted."""
    assert repr(lab().applied(WEB, service("gate"), service("new")).answer).splitlines() == [
        "service/web unchanged", "service/gate configured", "service/new created",
    ]  # fmt: skip
    assert repr(lab().patched("Service", "web", {"metadata": {"labels": {"a": "b"}}}).answer) == "service/web patched"
    assert repr(lab().patched("Service", "web", {}).answer) == "service/web unchanged"
    assert repr(lab().deleted("Pod", "web-1").answer) == "pod/web-1 deleted"
    assert len(lab().answer) == len(lab().changed(seed=1).answer) == 0


def test_answer_is_yaml_that_loads_again() -> None:
    """Printed, it has the defaults and everything that was allocated; applied again, nothing changes."""
    cluster = lab().applied(service("new", type="LoadBalancer", externalTrafficPolicy="Local"))
    text = str(cluster.answer)
    for line in ("  sessionAffinity: None", "  internalTrafficPolicy: Cluster", "    protocol: TCP", "  - IPv4"):
        assert line in text.splitlines()
    assert api.load(text).objects == cluster.answer.objects
    assert repr(cluster.applied(text).answer) == "service/new unchanged"


def test_answer_of_other_kinds_is_what_they_became() -> None:
    """A Pod has its node and its address; what is gone is said once more."""
    (pod,) = lab().applied(POD.replace("web-1", "web-2")).answer
    assert isinstance(pod, api.Pod)
    assert pod.node_name
    assert pod.ip
    (gone,) = lab().deleted("Service", "default/web").answer
    assert gone == lab().objects.service("default/web")


def test_services_of_a_real_cluster_are_unchanged_when_they_are_sent_again() -> None:
    """A dump holds what a real API server made of its manifests, so there is nothing to change; nor is there in what
    those manifests, which the dump remembers, say."""
    golden = Path(__file__).parent / "golden"
    files = [golden / f"{name}.json" for name in ("nodes", "pods", "svc", "endpointslices")]
    cluster = Cluster.load(*files)
    assert {str(how) for how in cluster.applied(golden / "svc.json").answer.how} == {"unchanged"}
    written = [each.annotations[LAST_APPLIED] for each in cluster.objects.services if LAST_APPLIED in each.annotations]
    assert written
    for text in written:
        (answer,) = cluster.applied(json.loads(text)).answer
        assert isinstance(answer, api.Service)
        old = cluster.objects.service(answer.key)
        assert answer.spec == old.spec
        assert answer.metadata.uid == old.metadata.uid


def test_the_manifests_that_a_real_cluster_was_made_of_get_the_same_defaults() -> None:
    """Created anew, each Service has the spec that the real API server gave it, but for what is drawn."""
    golden = Path(__file__).parent / "golden"
    cluster = Cluster.load(*(golden / f"{name}.json" for name in ("nodes", "pods", "svc", "endpointslices")))
    empty = Cluster.load(golden / "nodes.json", service_cidr=",".join(map(str, cluster.objects.networks.services)))
    for old in cluster.objects.services:
        if LAST_APPLIED in old.annotations:
            (answer,) = empty.applied(json.loads(old.annotations[LAST_APPLIED])).answer
            assert isinstance(answer, api.Service)
            assert not_drawn(answer) == not_drawn(old)


def not_drawn(service: api.Service) -> api.ServiceSpec:
    """The spec without what an API server draws at random."""
    ports = tuple(replace(port, node_port=0) for port in service.spec.ports)
    address = "None" if service.headless else ""
    return replace(service.spec, cluster_ip=address, cluster_ips=(), ports=ports, health_check_node_port=0)


# Patches


@pytest.mark.parametrize(
    ("patch", "ports"),
    [
        ([{"op": "replace", "path": "/spec/ports/0/port", "value": 81}], [81]),
        ([{"op": "add", "path": "/spec/ports/-", "value": {"name": "b", "port": 90}}], [80, 90]),
        ([{"op": "add", "path": "/spec/ports/0", "value": {"name": "b", "port": 90}}], [90, 80]),
        ([{"op": "test", "path": "/spec/ports/0/port", "value": 80}], [80]),
        ([{"op": "replace", "path": "/spec/ports", "value": [{"port": 5}]}], [5]),
        (
            [
                {"op": "copy", "from": "/spec/ports/0", "path": "/spec/ports/-"},
                {"op": "replace", "path": "/spec/ports/1/name", "value": "b"},
                {"op": "replace", "path": "/spec/ports/1/port", "value": 90},
                {"op": "move", "from": "/spec/ports/1", "path": "/spec/ports/0"},
            ],
            [90, 80],
        ),
        ({"spec": {"ports": [{"name": "b", "port": 90}]}}, [80, 90]),
        ({"spec": {"ports": [{"$patch": "delete", "port": 80}, {"port": 90}]}}, [90]),
        ({"spec": {"ports": [{"$patch": "replace"}, {"port": 90}]}}, [90]),
    ],
)
def test_patches_of_ports(patch: Any, ports: list[int]) -> None:
    """Operations take places; a mapping finds ports by number and protocol."""
    (answer,) = lab().patched("Service", "web", patch).answer
    assert isinstance(answer, api.Service)
    assert [port.port for port in answer.spec.ports] == ports


@pytest.mark.parametrize(
    ("patch", "field", "message"),
    [
        ([{"op": "remove", "path": "/spec/selector/tier"}], "patch[0]", "there is nothing at /spec/selector/tier"),
        ([{"op": "replace", "path": "/spec/ports/3", "value": {}}], "patch[0]", "the list has no place 3"),
        ([{"op": "test", "path": "/spec/type", "value": "NodePort"}], "patch[0]", "it is 'ClusterIP'"),
        ([{"op": "add", "path": "/spec/type"}], "patch[0]", "needs a value"),
        ([{"op": "add", "path": "spec", "value": 1}], "patch[0]", "path must be a place such as /spec/type"),
        ([{"op": "put", "path": "/spec"}], "patch[0].op", "there are add, remove, replace, move, copy, test"),
        ([{"op": "remove", "path": "/spec/ports"}], "spec.ports", "Required value"),
        ({"spec": {"typ": "NodePort"}}, "spec.typ", "did you mean type?"),
        ({"spec": {"type": "Nodeport"}}, "spec.type", 'Unsupported value: "Nodeport"'),
        ({"spec": {"clusterIP": "10.96.0.77"}}, "spec.clusterIPs[0]", "may not change once set"),
        ({"metadata": {"name": "other"}}, "metadata.name", 'Invalid value: "default/other": field is immutable'),
        ({"kind": "Namespace"}, "kind", "field is immutable"),
        (["spec"], "patch[0]", "'spec' is no operation"),
    ],
)
def test_patch_that_cannot_be_done(patch: Any, field: str, message: str) -> None:
    """The object, and the field or the operation, are named."""
    with pytest.raises(ManifestError) as caught:
        lab().patched("Service", "web", patch)
    problem = caught.value.problems[0]
    assert (problem.object, problem.field) == ("Service default/web", field)
    assert message in problem.message


def test_other_kinds_are_patched_as_written() -> None:
    """A Deployment gets more pods; a pod another label; a policy another rule."""
    shop = k8s.example("bookshop")
    deployment = shop.manifests.of(api.Deployment)[0]
    more = shop.patched("Deployment", deployment.key, {"spec": {"replicas": 7}})
    assert len(more.objects.pods_of(f"deploy/{deployment.key}")) == 7
    away = lab().patched("Pod", "web-1", {"metadata": {"labels": {"app": "other"}}})
    assert away.trace("default/web-1", "svc/default/web:80").client is Client.REFUSED
    with pytest.raises(ManifestError, match=r"spec\.containers"):
        lab().patched("Pod", "web-1", {"spec": {"containers": None}})


def test_what_follows_from_others_is_not_patched() -> None:
    """A pod of a Deployment would be put right again; what is not there is unknown."""
    shop = k8s.example("bookshop")
    made = next(pod for pod in shop.objects.pods if pod.owner)
    with pytest.raises(CannotDo, match="follows from the others"):
        shop.patched("Pod", made.key, {"metadata": {"labels": {"a": "b"}}})
    with pytest.raises(UnknownName, match="did you mean default/web"):
        lab().patched("Service", "wep", {})
    with pytest.raises(UnknownName, match="did you mean Service"):
        lab().patched("service", "web", {})


def test_services_that_nobody_wrote_are_patched_too() -> None:
    """The cluster's own DNS Service keeps its address."""
    cluster = lab().patched("Service", "kube-system/kube-dns", {"spec": {"sessionAffinity": "ClientIP"}})
    assert given(cluster) == given(lab())
    assert given(cluster.changed(seed=5)) == given(lab())


# Refusals


def test_a_refused_manifest_names_file_and_line(tmp_path: Path) -> None:
    """Also where it is refused only because of what is there."""
    path = tmp_path / "web.yaml"
    path.write_text(f"# a comment{WEB}  clusterIP: 10.96.0.99\n")
    with pytest.raises(ManifestError) as caught:
        lab().applied(path)
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.field) == (str(path), 2, "spec.clusterIPs[0]")


def test_a_manifest_that_is_wrong_by_itself_may_be_right_as_a_change() -> None:
    """`kubectl edit`: the type becomes ExternalName while the old address still stands there."""
    written = str(lab().patched("Service", "web", {}).answer)
    edited = written.replace("type: ClusterIP", "type: ExternalName\n  externalName: db.example.com")
    with pytest.raises(ManifestError, match="may not be set for ExternalName services"):
        Cluster.load(edited)
    assert lab().applied(edited).objects.service("default/web").cluster_ips == ()
    with pytest.raises(ManifestError, match=r"spec\.clusterIPs: Forbidden"):
        lab().applied(edited.replace("clusterIP: 10.", "clusterIP: 10.96.0.9 # "))


@pytest.mark.parametrize(
    ("fields", "field", "message"),
    [
        (
            {"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.1.2.3/8"]},
            "spec.loadBalancerSourceRanges[0]",
            "bits",
        ),
        ({"externalIPs": ["::ffff:192.0.2.1"]}, "spec.externalIPs[0]", "must not be an IPv4-mapped IPv6 address"),
    ],
)
def test_what_is_sent_today_is_spelled_strictly(fields: Plain, field: str, message: str) -> None:
    """A dump may have the older spellings, and a Service that has them may change elsewhere."""
    old = Cluster.load(service("old", **fields))
    assert repr(old.patched("Service", "old", {"spec": {"selector": {"app": "b"}}}).answer) == "service/old patched"
    with pytest.raises(ManifestError) as created:
        lab().applied(service("new", **fields))
    with pytest.raises(ManifestError) as changed:
        lab().patched("Service", "web", {"spec": fields})
    for caught in (created, changed):
        (problem,) = caught.value.problems
        assert (problem.field, message in problem.message) == (field, True)


def test_types_there_and_back() -> None:
    """Through all types and back to ClusterIP: the address changes only on the way through ExternalName."""
    cluster = lab()
    first = given(cluster)["default/web"][0]
    for kind in ("NodePort", "LoadBalancer", "ClusterIP"):
        cluster = cluster.patched("Service", "web", {"spec": {"type": kind}})
        assert given(cluster)["default/web"][0] == first
    cluster = cluster.patched("Service", "web", {"spec": {"type": "ExternalName", "externalName": "a.example"}})
    assert given(cluster)["default/web"] == ((), [0])
    taken = cluster.applied(service("squatter", clusterIP=first[0]))
    back = taken.patched("Service", "web", {"spec": {"type": "ClusterIP"}})
    assert given(back)["default/web"][0] not in ((), first)


def test_what_a_load_balancer_gave_stays_with_its_service() -> None:
    """Other Services come and go, and it keeps its address; another load balancer gives another one."""
    cluster = Cluster.load(
        WEB, POD, *(service(f"s{at}", type="LoadBalancer") for at in range(3)), load_balancer="metallb-l2"
    )
    had = {each.key: each.load_balancer for each in cluster.objects.services}
    less = cluster.deleted("Service", "s0").patched("Service", "s2", {"spec": {"externalTrafficPolicy": "Local"}})
    more = less.applied(service("a", type="LoadBalancer"))
    for each in more.objects.services:
        if each.name in ("s1", "s2"):
            assert each.load_balancer == had[each.key]
            assert each.load_balancer
    nobody = less.changed(load_balancer="none")
    assert not any(each.load_balancer for each in nobody.objects.services)
    back = less.patched("Service", "s1", {"spec": {"type": "ClusterIP"}})
    assert not back.objects.service("default/s1").load_balancer
