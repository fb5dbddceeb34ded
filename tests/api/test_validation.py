"""Objects that the API server would refuse, and how the refusal reads."""

from typing import Any

import pytest

from k8snetlab import api

POD_SPEC = {"containers": [{"name": "c"}]}
TEMPLATE = {"metadata": {"labels": {"app": "a"}}, "spec": POD_SPEC}
SELECTOR = {"matchLabels": {"app": "a"}}
TWO_PORTS = [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]

VERSION = {kind: version for version, kind in api.KINDS}


def refused(kind: str, **fields: Any) -> list[tuple[str, str]]:
    """Field and message of each problem of the object `a` of that kind."""
    plain = {"apiVersion": VERSION[kind], "kind": kind, "metadata": {"name": "a"}, **fields}
    return [(each.field, each.message) for each in api.decode(plain).problems]


def service(**spec: Any) -> list[tuple[str, str]]:
    """What is wrong with a Service of this spec."""
    return refused("Service", spec={"ports": [{"port": 80}], **spec})


def policy(**rule: Any) -> list[tuple[str, str]]:
    """What is wrong with a policy that has this ingress rule."""
    return refused("NetworkPolicy", spec={"ingress": [rule]})


@pytest.mark.parametrize(
    ("plain", "field", "message"),
    [
        ({"kind": "Pod"}, "apiVersion", "is required"),
        ({"apiVersion": "v1"}, "kind", "is required"),
        ({"apiVersion": "v1", "kind": "Deployment"}, "apiVersion", "it is in apps/v1"),
        ({"apiVersion": "batch/v1beta1", "kind": "CronJob"}, "apiVersion", "it is in batch/v1"),
        ({"apiVersion": "extensions/v1beta1", "kind": "Ingress"}, "apiVersion", "it is in networking.k8s.io/v1"),
        ({"apiVersion": 1, "kind": "Pod"}, "apiVersion", "must be text"),
        ({"apiVersion": "v1", "kind": "Servce"}, "kind", "did you mean Service?"),
        ({"apiVersion": "apps/v1", "kind": "deployment"}, "kind", "did you mean Deployment?"),
        ({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}, "spec", "is required"),
        ({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}, "metadata.name", "is required"),
        ({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "A"}}, "metadata.name", "'A' is not"),
        (
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "a.b"}},
            "metadata.namespace",
            "'a.b' is not",
        ),
        ({"apiVersion": "v1", "kind": "ConfigMap", "metadata": []}, "metadata", "must be a mapping, not a list"),
        (
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"app": True}}},
            "metadata.labels.app",
            "write it in quotes",
        ),
        (
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"x/y": "-a"}}},
            "metadata.labels[x/y]",
            "'-a' is not a label value",
        ),
        (
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"-a": "b"}}},
            "metadata.labels.-a",
            "'-a' is not a label key",
        ),
    ],
)  # fmt: skip
def test_what_is_no_object(plain: dict[str, Any], field: str, message: str) -> None:
    """Kind, version, name and labels are looked at first."""
    (problem,) = api.decode(plain).problems
    assert problem.field == field
    assert message in problem.message


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"ports": []}, "spec.ports"),
        ({"ports": [{"port": 0}]}, "spec.ports[0].port"),
        ({"ports": [{"port": 70000}]}, "spec.ports[0].port"),
        ({"ports": [{"port": 80, "targetPort": 70000}]}, "spec.ports[0].targetPort"),
        ({"ports": [{"port": 80, "targetPort": "a--b"}]}, "spec.ports[0].targetPort"),
        ({"ports": [{"port": 80, "targetPort": "much-too-long-name"}]}, "spec.ports[0].targetPort"),
        ({"ports": [{"port": 80, "targetPort": "80"}]}, "spec.ports[0].targetPort"),
        ({"ports": [{"port": 80, "protocol": "tcp"}]}, "spec.ports[0].protocol"),
        ({"ports": [{"port": 80, "name": "A"}]}, "spec.ports[0].name"),
        ({"ports": [{"port": 80, "name": "a"}, {"port": 81}]}, "spec.ports[1].name"),
        ({"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]}, "spec.ports[1].name"),
        ({"ports": [{"port": 80, "name": "a"}, {"port": 80, "name": "b"}]}, "spec.ports[1]"),
        ({"ports": [{"port": 80, "nodePort": 30080}]}, "spec.ports[0].nodePort"),
        ({"type": "Nodeport"}, "spec.type"),
        ({"type": "ExternalName"}, "spec.externalName"),
        ({"type": "ExternalName", "externalName": "a.example", "clusterIP": "10.0.0.1"}, "spec.clusterIPs"),
        ({"type": "NodePort", "clusterIP": "None"}, "spec.clusterIPs[0]"),
        ({"clusterIP": "10.0.0.256"}, "spec.clusterIPs[0]"),
        ({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.2"]}, "spec.clusterIPs"),
        ({"ipFamilies": ["IPv6"], "clusterIP": "10.0.0.1"}, "spec.clusterIPs[0]"),
        ({"externalTrafficPolicy": "Local"}, "spec.externalTrafficPolicy"),
        ({"healthCheckNodePort": 31000}, "spec.healthCheckNodePort"),
        (
            {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 0}}},
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
        ),
        ({"externalIPs": ["nowhere"]}, "spec.externalIPs[0]"),
        ({"loadBalancerSourceRanges": ["10.0.0.0/8"]}, "spec.loadBalancerSourceRanges"),
        ({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0"]}, "spec.loadBalancerSourceRanges[0]"),
        ({"selector": {"app": 1}}, "spec.selector.app"),
        ({"selector": {"matchLabels": {"app": "a"}}}, "spec.selector.matchLabels"),
        ({"slector": {}}, "spec.slector"),
    ],
)
def test_service_is_refused(spec: dict[str, Any], field: str) -> None:
    """Each rule of a Service names the field that breaks it."""
    assert field in [each for each, _ in service(**spec)]


@pytest.mark.parametrize(
    "spec",
    [
        {"ports": [{"port": 53, "name": "a", "protocol": "UDP"}, {"port": 53, "name": "b"}]},
        {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}], "externalTrafficPolicy": "Local"},
        {"clusterIP": "None", "ports": None},
        {"clusterIP": "", "ports": TWO_PORTS},
        {"ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "PreferDualStack"},
        {"type": "ExternalName", "externalName": "db.example.com.", "ports": []},
        {"externalIPs": ["192.0.2.1"], "externalTrafficPolicy": "Local"},
    ],
)
def test_service_is_taken(spec: dict[str, Any]) -> None:
    """What the API server takes is taken here."""
    assert service(**spec) == []


def test_service_may_begin_with_a_digit() -> None:
    """Names of Services follow the rule of other names since Kubernetes 1.36 (KEP-5311, stable in 1.37)."""
    assert refused("Service", metadata={"name": "1a"}, spec={"ports": [{"port": 80}]}) == []


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"containers": []}, "spec.containers"),
        ({"containers": [{"name": "c"}, {"name": "c"}]}, "spec.containers[1].name"),
        ({"containers": [{"name": "C"}]}, "spec.containers[0].name"),
        (
            {"containers": [{"name": "c", "ports": [{"containerport": 80}]}]},
            "spec.containers[0].ports[0].containerport",
        ),
        (
            {"containers": [{"name": "c", "ports": [{"containerPort": "http"}]}]},
            "spec.containers[0].ports[0].containerPort",
        ),
        (
            {"containers": [{"name": "c", "ports": [{"containerPort": 80, "hostPort": 81}]}], "hostNetwork": True},
            "spec.containers[0].ports[0].hostPort",
        ),
        (
            {"containers": [{"name": "c", "readinessProbe": {"httpGet": {"port": "-"}}}]},
            "spec.containers[0].readinessProbe.httpGet.port",
        ),
        ({"containers": [{"name": "c"}], "hostname": "a.b"}, "spec.hostname"),
        ({"containers": [{"name": "c"}], "dnsPolicy": "None"}, "spec.dnsConfig.nameservers"),
        ({"containers": [{"name": "c"}], "dnsConfig": {"nameservers": ["dns"]}}, "spec.dnsConfig.nameservers[0]"),
        ({"containers": [{"name": "c"}], "hostAliases": [{"ip": "x"}]}, "spec.hostAliases[0].ip"),
        ({"containers": [{"name": "c"}], "hostnetwork": True}, "spec.hostnetwork"),
    ],
)  # fmt: skip
def test_pod_is_refused(spec: dict[str, Any], field: str) -> None:
    """Each rule of a pod names the field that breaks it."""
    assert field in [each for each, _ in refused("Pod", spec=spec)]


def test_listen_annotation_is_read() -> None:
    """What the annotation says must be ports and protocols."""
    bad = {"name": "a", "annotations": {"k8snetlab.io/listen": "80/tcp"}}
    assert refused("Pod", metadata=bad, spec=POD_SPEC)[0][0] == "metadata.annotations[k8snetlab.io/listen]"
    good = {"name": "a", "annotations": {"k8snetlab.io/listen": "80, 53/UDP"}}
    assert refused("Pod", metadata=good, spec=POD_SPEC) == []


@pytest.mark.parametrize("kind", ["Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"])
def test_selector_must_find_the_pods(kind: str) -> None:
    """A workload that would not find its own pods again is refused."""
    other = {"matchLabels": {"app": "b"}}
    assert refused(kind, spec={"selector": other, "template": TEMPLATE})[0][0] == "spec.template.metadata.labels"
    assert refused(kind, spec={"selector": {}, "template": TEMPLATE})[0][0] == "spec.selector"
    assert refused(kind, spec={"selector": SELECTOR, "template": TEMPLATE}) == []


def test_pods_of_a_job_come_to_an_end() -> None:
    """The default restart policy, Always, does not fit a Job."""
    assert refused("Job", spec={"template": {"spec": POD_SPEC}})[0][0] == "spec.template.spec.restartPolicy"


def test_schedule_has_five_fields() -> None:
    """A CronJob says when."""
    job = {"spec": {"template": {"spec": {**POD_SPEC, "restartPolicy": "Never"}}}}
    assert refused("CronJob", spec={"schedule": "daily", "jobTemplate": job})[0][0] == "spec.schedule"
    assert refused("CronJob", spec={"schedule": "@daily", "jobTemplate": job}) == []


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({"from": [{}]}, "spec.ingress[0].from[0]"),
        ({"from": [{"ipBlock": {"cidr": "10.0.0.0"}}]}, "spec.ingress[0].from[0].ipBlock.cidr"),
        (
            {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["11.0.0.0/24"]}}]},
            "spec.ingress[0].from[0].ipBlock.except[0]",
        ),
        ({"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}, "spec.ingress[0].from[0]"),
        (
            {"from": [{"podSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}]},
            "spec.ingress[0].from[0].podSelector.matchExpressions[0].values",
        ),
        ({"ports": [{"port": "http", "endPort": 90}]}, "spec.ingress[0].ports[0].endPort"),
        ({"ports": [{"port": 80, "endPort": 79}]}, "spec.ingress[0].ports[0].endPort"),
        ({"ports": [{"protocol": "ICMP"}]}, "spec.ingress[0].ports[0].protocol"),
        ({"to": []}, "spec.ingress[0].to"),
    ],
)
def test_policy_is_refused(rule: dict[str, Any], field: str) -> None:
    """Each rule of a policy names the field that breaks it."""
    assert field in [each for each, _ in policy(**rule)]


def test_block_with_host_bits_is_taken() -> None:
    """10.0.0.1/8 means 10.0.0.0/8, as it always did."""
    assert policy(**{"from": [{"ipBlock": {"cidr": "10.0.0.1/8"}}]}) == []


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({}, "spec"),
        ({"rules": [{"host": "10.0.0.1"}]}, "spec.rules[0].host"),
        ({"rules": [{"host": "a.*.com"}]}, "spec.rules[0].host"),
        ({"defaultBackend": {}}, "spec.defaultBackend"),
        ({"defaultBackend": {"service": {"name": "a"}}}, "spec.defaultBackend.service.port"),
        (
            {"rules": [{"http": {"paths": [{"path": "a", "pathType": "Prefix", "backend": {"resource": {}}}]}}]},
            "spec.rules[0].http.paths[0].path",
        ),
        ({"rules": [{"http": {"paths": [{"backend": {"resource": {}}}]}}]}, "spec.rules[0].http.paths[0].pathType"),
    ],
)
def test_ingress_is_refused(spec: dict[str, Any], field: str) -> None:
    """Each rule of an Ingress names the field that breaks it."""
    assert field in [each for each, _ in refused("Ingress", spec=spec)]


def test_slice_addresses_fit_their_type() -> None:
    """An IPv4 slice has no IPv6 address in it."""
    endpoints = [{"addresses": ["10.0.0.1"]}, {"addresses": ["fd00::1"]}]
    found = refused("EndpointSlice", addressType="IPv4", endpoints=endpoints)
    assert found == [("endpoints[1].addresses[0]", "'fd00::1' is not an IPv4 address")]


def test_endpoints_have_addresses_and_named_ports() -> None:
    """A subset is not empty, its addresses are addresses, and several ports have names."""
    assert refused("Endpoints", subsets=[{}]) == [("subsets[0]", "has neither addresses nor notReadyAddresses")]
    wrong = [{"addresses": [{"ip": "web"}], "ports": [{"port": 1}, {"port": 2, "name": "b"}]}]
    assert [field for field, _ in refused("Endpoints", subsets=wrong)] == [
        "subsets[0].addresses[0].ip",
        "subsets[0].ports[0].name",
    ]


def test_node_ranges_are_one_a_family() -> None:
    """Two pod ranges of one family are refused, and so is a first one that is not podCIDR."""
    assert refused("Node", spec={"podCIDRs": ["10.0.0.0/24", "10.0.1.0/24"]})[0][0] == "spec.podCIDRs"
    assert refused("Node", spec={"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.0.0.0/24"]})[0][0] == "spec.podCIDR"


def test_secret_is_base64() -> None:
    """Plain text in data is the usual mistake."""
    found = refused("Secret", data={"a": "not base64!"})
    assert found == [("data.a", "is not base64; plain text goes into stringData")]


def test_messages_say_what_would_be_right() -> None:
    """Closed sets are listed, near misses are suggested, limits are numbers."""
    assert service(type="Nodeport")[0][1] == (
        'Unsupported value: "Nodeport": supported values: "ClusterIP", "NodePort", "LoadBalancer", "ExternalName"'
    )
    assert service(selctor={})[0][1] == "there is no such field; did you mean selector?"
    assert service(ports=[{"port": 70000}])[0][1] == "Invalid value: 70000: must be at most 65535"
    assert service(ports={"port": 80})[0][1] == "must be a list, not a mapping"
    assert service(ports=[{"port": 80.5}])[0][1] == "must be a whole number, not a number 80.5"


def test_problems_beside_each_other_are_all_said() -> None:
    """Unknown fields and wrong types of one object come together; a required one that was wrong is not said twice."""
    found = service(a=1, b=2, ports=[{"port": "x", "protocol": "y"}])
    assert sorted(field for field, _ in found) == ["spec.a", "spec.b", "spec.ports[0].port", "spec.ports[0].protocol"]
