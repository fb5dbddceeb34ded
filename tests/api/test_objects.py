"""Objects as values: names, defaults of the API server, and the way back to plain data."""

from typing import Any

import msgspec
import pytest

from k8snetlab import api
from k8snetlab.api.base import kube_name
from k8snetlab.api.pod import Protocol


def made(kind: str, version: str = "v1", **fields: Any) -> Any:
    """The object `a` of that kind, with more fields."""
    plain = {"apiVersion": version, "kind": kind, "metadata": {"name": "a"}, **fields}
    found = api.decode(plain)
    assert found.object is not None, found.problems
    return found.object


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("cluster_ips", "clusterIPs"), ("pod_cidr", "podCIDR"), ("ip_family_policy", "ipFamilyPolicy"),
        ("from_", "from"), ("except_", "except"), ("set_hostname_as_fqdn", "setHostnameAsFQDN"),
        ("host_pid", "hostPID"), ("name", "name"),
    ],
)  # fmt: skip
def test_fields_are_spelled_as_in_the_api(field: str, name: str) -> None:
    """Python's spelling turns into the API's, capitals included."""
    assert kube_name(field) == name


def test_object_names_itself() -> None:
    """Key and ref hold the namespace where the kind has one."""
    assert made("ConfigMap").ref == "ConfigMap default/a"
    assert made("Node").ref == "Node a"
    assert (made("Node").namespace, made("Node").key) == ("", "a")


def test_objects_are_equal_by_value_and_frozen() -> None:
    """Two objects that say the same are equal, and none can be changed."""
    assert made("ConfigMap", data={"a": "b"}) == made("ConfigMap", data={"a": "b"})
    with pytest.raises(AttributeError):
        made("ConfigMap").metadata = api.ObjectMeta(name="b")


def test_service_has_the_defaults_of_the_api_server() -> None:
    """Protocol, target port, type and policies are filled in when nobody says them."""
    spec = made("Service", spec={"ports": [{"port": 80}]}).spec
    assert (spec.type, spec.session_affinity, spec.internal_traffic_policy) == ("ClusterIP", "None", "Cluster")
    assert (spec.ports[0].protocol, spec.ports[0].target_port) == ("TCP", 80)
    assert spec.external_traffic_policy is None


@pytest.mark.parametrize("kind", ["NodePort", "LoadBalancer"])
def test_service_from_outside_has_an_external_policy(kind: str) -> None:
    """Node ports take traffic for the whole cluster unless the Service says Local."""
    assert made("Service", spec={"type": kind, "ports": [{"port": 80}]}).spec.external_traffic_policy == "Cluster"


def test_affinity_lasts_three_hours_by_default() -> None:
    """Client affinity has a time-out of 10800 seconds."""
    spec = made("Service", spec={"sessionAffinity": "ClientIP", "ports": [{"port": 80}]}).spec
    assert spec.session_affinity_config.client_ip.timeout_seconds == 10800


def test_cluster_ip_and_cluster_ips_say_the_same() -> None:
    """The one may be written alone; both can be read."""
    one = made("Service", spec={"clusterIP": "10.96.0.7", "ports": [{"port": 80}]})
    two = made("Service", spec={"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"], "ports": [{"port": 80}]})
    assert one.cluster_ips == two.cluster_ips == ("10.96.0.7",)


def test_headless_service_has_no_address() -> None:
    """`clusterIP: None` is not an address."""
    service = made("Service", spec={"clusterIP": "None"})
    assert (service.headless, service.cluster_ips) == (True, ())


def test_ports_of_a_service_are_found_by_number_and_by_name() -> None:
    """A port is asked for in both ways, with its protocol."""
    service = made("Service", spec={"ports": [{"port": 53, "name": "dns", "protocol": "UDP"}]})
    assert service.port(53, Protocol.UDP) is service.port("dns", Protocol.UDP) is service.spec.ports[0]
    assert service.port(53) is None


def test_policy_types_are_filled_in() -> None:
    """Ingress always, Egress only with an egress rule."""
    for egress, types in ((None, ("Ingress",)), ([], ("Ingress",)), ([{}], ("Ingress", "Egress"))):
        assert made("NetworkPolicy", "networking.k8s.io/v1", spec={"egress": egress}).spec.policy_types == types


def test_missing_and_empty_selector_of_a_peer_differ() -> None:
    """`podSelector: {}` means all pods; no podSelector means nothing said about pods."""
    rule: dict[str, Any] = {"from": [{"podSelector": {}}]}
    peer = made("NetworkPolicy", "networking.k8s.io/v1", spec={"ingress": [rule]}).spec.ingress[0].from_[0]
    assert (peer.pod_selector, peer.namespace_selector) == (api.LabelSelector(), None)


def test_namespace_always_carries_its_name_as_label() -> None:
    """The label kubernetes.io/metadata.name overrules what the manifest says."""
    plain = {"name": "a", "labels": {"kubernetes.io/metadata.name": "b", "team": "c"}}
    assert made("Namespace", metadata=plain).labels == {"kubernetes.io/metadata.name": "a", "team": "c"}


def test_named_port_belongs_to_a_pod_and_a_protocol() -> None:
    """The name is looked up among containers and sidecars, not among init containers that end."""
    init = [
        {"name": "once", "ports": [{"name": "http", "containerPort": 1}]},
        {"name": "side", "restartPolicy": "Always", "ports": [{"name": "admin", "containerPort": 9000}]},
    ]
    ports = [{"name": "http", "containerPort": 8080}]
    pod = made("Pod", spec={"initContainers": init, "containers": [{"name": "c", "ports": ports}]})
    assert pod.port_named("http", Protocol.TCP) == 8080
    assert pod.port_named("http", Protocol.UDP) is None
    assert pod.port_named("admin", Protocol.TCP) == 9000


def test_fields_nobody_reads_are_kept() -> None:
    """A real field of a container stays and prints, whatever is in it."""
    container = {"name": "c", "resources": {"limits": {"cpu": "1"}}, "env": [{"name": "A", "value": "b"}]}
    volume: dict[str, Any] = {"name": "v", "emptyDir": {}}
    printed: Any = api.to_dict(made("Pod", spec={"containers": [container], "volumes": [volume]}))
    assert printed["spec"]["containers"] == [container]
    assert printed["spec"]["volumes"] == [volume]


def test_object_prints_what_was_said_and_the_defaults() -> None:
    """The way back leaves out what is empty, and prints as the API server would."""
    assert api.to_dict(made("Service", spec={"ports": [{"port": 80}]})) == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "a"},
        "spec": {
            "type": "ClusterIP",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
            "sessionAffinity": "None",
            "internalTrafficPolicy": "Cluster",
        },
    }


def test_slice_that_says_nothing_is_ready() -> None:
    """Absent conditions of an endpoint count as ready, serving and not terminating."""
    piece = made("EndpointSlice", "discovery.k8s.io/v1", addressType="IPv4", endpoints=[{"addresses": ["10.0.0.1"]}])
    endpoint = piece.endpoints[0]
    assert (endpoint.ready, endpoint.serving, endpoint.terminating) == (True, True, False)


def test_generated_names_follow_from_the_object() -> None:
    """`generateName` gets its letters from the object, always the same ones."""
    plain = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "a-"}}
    first, second = api.decode(plain).object, api.decode(plain).object
    assert first == second
    assert first is not None
    assert len(first.name) == len("a-12345")


def test_every_kind_prints_back() -> None:
    """Each kind of object survives the way to plain data and back."""
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}}
    apps = {"selector": {"matchLabels": {"a": "b"}}, "template": template}
    once = {"template": {"spec": {"containers": [{"name": "c"}], "restartPolicy": "Never"}}}
    service, connections = {"group": "", "kind": "Service"}, [{"backendRefs": [{"name": "a", "port": 1}]}]
    specs: dict[str, dict[str, Any]] = {
        "Pod": {"spec": template["spec"]},
        "Service": {"spec": {"ports": [{"port": 80}]}},
        "EndpointSlice": {"addressType": "IPv6", "endpoints": [{"addresses": ["fd00::1"]}]},
        **{kind: {"spec": apps} for kind in ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet")},
        "Job": {"spec": once},
        "CronJob": {"spec": {"schedule": "0 * * * *", "jobTemplate": {"spec": once}}},
        "ClusterNetworkPolicy": {"spec": {"tier": "Baseline", "priority": 0, "subject": {"namespaces": {}}}},
        "CiliumNetworkPolicy": {"spec": {"endpointSelector": {}, "egress": [{"toEntities": ["world"]}]}},
        "Ingress": {"spec": {"defaultBackend": {"service": {"name": "a", "port": {"number": 80}}}}},
        "GatewayClass": {"spec": {"controllerName": "example.net/gateways"}},
        "Gateway": {
            "spec": {"gatewayClassName": "a", "listeners": [{"name": "a", "port": 80, "protocol": "HTTP"}]},
            "status": {"addresses": [{"value": "203.0.113.7"}]},
        },
        "TLSRoute": {"spec": {"hostnames": ["*.example.org"], "rules": connections}},
        **{kind: {"spec": {"rules": connections}} for kind in ("TCPRoute", "UDPRoute")},
        "ReferenceGrant": {"spec": {"from": [{**service, "namespace": "a"}], "to": [service]}},
    }  # fmt: skip
    for version, kind in api.KINDS:
        one = made(kind, version, **specs.get(kind, {}))
        assert api.decode(api.to_dict(one)).object == one


def test_changed_object_keeps_its_defaults() -> None:
    """A value made from another one is filled in like any other."""
    service = made("Service", spec={"ports": [{"port": 80}]})
    spec = msgspec.structs.replace(service.spec, type=api.ServiceType.NODE_PORT)
    assert spec.external_traffic_policy == "Cluster"
