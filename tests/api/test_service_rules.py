"""Which Services the API server refuses, and in which words; which it takes, and with which defaults."""

from typing import Any

import pytest

from k8snetlab import api
from k8snetlab.api.decoding import Decoded

Plain = dict[str, Any]

EXTERNAL_NAME: Plain = {"type": "ExternalName", "externalName": "db.example.com", "ports": []}
LOCAL: Plain = {"type": "LoadBalancer", "externalTrafficPolicy": "Local"}
TOPOLOGY = "service.kubernetes.io/topology"
RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"


def decoded(annotations: dict[str, str] | None = None, status: Plain | None = None, **spec: Any) -> Decoded:
    """A Service of this spec, at port 80 if nothing else is said."""
    metadata = {"name": "web", "annotations": annotations or {}}
    body = {"ports": [{"port": 80}], **spec}
    return api.decode(
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": body, "status": status or {}}
    )


def ports(*each: Plain) -> Plain:
    """A spec with these ports."""
    return {"ports": list(each)}


def affinity(seconds: int) -> Plain:
    """A spec in which a client keeps its backend for so long."""
    return {"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": seconds}}}


REFUSED: list[tuple[Plain, str, str]] = [
    # the type
    ({"ports": []}, "spec.ports", "Required value"),
    ({"type": "NodePort", "clusterIP": "None"}, "spec.clusterIPs[0]", "may not be set to 'None' for NodePort"),
    ({"type": "LoadBalancer", "clusterIP": "None"}, "spec.clusterIPs[0]", "for LoadBalancer services"),
    ({"type": "External"}, "spec.type", 'Unsupported value: "External": supported values: "ClusterIP"'),
    ({**EXTERNAL_NAME, "externalName": ""}, "spec.externalName", "Required value"),
    ({**EXTERNAL_NAME, "externalName": "."}, "spec.externalName", "Required value"),
    ({**EXTERNAL_NAME, "externalName": "-a.example"}, "spec.externalName", 'Invalid value: "-a.example"'),
    ({**EXTERNAL_NAME, "externalName": "a..example"}, "spec.externalName", "RFC 1123"),
    ({**EXTERNAL_NAME, "externalName": "DB.example.com"}, "spec.externalName", "small letters"),
    ({**EXTERNAL_NAME, "externalName": "a.example.."}, "spec.externalName", "Invalid value"),
    ({**EXTERNAL_NAME, "externalName": "http://a.example"}, "spec.externalName", "Invalid value"),
    ({**EXTERNAL_NAME, "clusterIP": "10.96.0.7"}, "spec.clusterIPs", "Forbidden: may not be set for ExternalName"),
    ({**EXTERNAL_NAME, "clusterIP": "None"}, "spec.clusterIPs", "Forbidden"),
    ({**EXTERNAL_NAME, "ipFamilies": ["IPv4"]}, "spec.ipFamilies", "Forbidden"),
    ({**EXTERNAL_NAME, "ipFamilyPolicy": "SingleStack"}, "spec.ipFamilyPolicy", "Forbidden"),
    # ports
    (ports({"port": 0}), "spec.ports[0].port", "Invalid value: 0: must be at least 1"),
    (ports({"port": -1}), "spec.ports[0].port", "Invalid value: -1"),
    (ports({"port": 65536}), "spec.ports[0].port", "Invalid value: 65536: must be at most 65535"),
    (ports({"targetPort": 80}), "spec.ports[0].port", "required"),
    (ports({"port": 80}, {"port": 81}), "spec.ports[0].name", "Required value"),
    (ports({"port": 80, "name": "a"}, {"port": 81}), "spec.ports[1].name", "Required value"),
    (ports({"port": 80, "name": "a"}, {"port": 81, "name": "a"}), "spec.ports[1].name", 'Duplicate value: "a"'),
    (ports({"port": 80, "name": "a"}, {"port": 80, "name": "b"}), "spec.ports[1]", 'Duplicate value: "80/TCP"'),
    (ports({"port": 80, "name": "HTTP"}), "spec.ports[0].name", 'Invalid value: "HTTP"'),
    (ports({"port": 80, "name": "a_b"}), "spec.ports[0].name", "Invalid value"),
    (ports({"port": 80, "name": "a" * 64}), "spec.ports[0].name", "at most 63"),
    (ports({"port": 80, "name": "a-"}), "spec.ports[0].name", "Invalid value"),
    (ports({"port": 80, "protocol": "tcp"}), "spec.ports[0].protocol", 'Unsupported value: "tcp"'),
    (ports({"port": 80, "protocol": "ICMP"}), "spec.ports[0].protocol", '"SCTP"'),
    (ports({"port": 80, "targetPort": 65536}), "spec.ports[0].targetPort", ""),
    (ports({"port": 80, "targetPort": "80"}), "spec.ports[0].targetPort", "with a letter in it"),
    (ports({"port": 80, "targetPort": "a--b"}), "spec.ports[0].targetPort", "no '--'"),
    (ports({"port": 80, "targetPort": "sixteen-letters-"}), "spec.ports[0].targetPort", "at most 15"),
    (ports({"port": 80, "targetPort": "Http"}), "spec.ports[0].targetPort", "Invalid value"),
    (ports({"port": 80, "appProtocol": "a b"}), "spec.ports[0].appProtocol", 'Invalid value: "a b"'),
    (ports({"port": 80, "appProtocol": "/h2c"}), "spec.ports[0].appProtocol", "Invalid value"),
    (ports({"port": 80, "nodePort": 30080}), "spec.ports[0].nodePort", "Forbidden: may not be used when `type` is"),
    (
        {"type": "NodePort", **ports({"port": 80, "name": "a", "nodePort": 30080},
                                     {"port": 81, "name": "b", "nodePort": 30080})},
        "spec.ports[1].nodePort", "Duplicate value: 30080",
    ),
    # selector
    ({"selector": {"app": "-"}}, "spec.selector.app", "label value"),
    ({"selector": {"a b": "c"}}, "spec.selector.a b", "label key"),
    ({"selector": {"app": "a" * 64}}, "spec.selector.app", "at most 63"),
    # affinity
    (affinity(0), "spec.sessionAffinityConfig.clientIP.timeoutSeconds", "Invalid value: 0: must be greater than 0"),
    (affinity(-5), "spec.sessionAffinityConfig.clientIP.timeoutSeconds", "Invalid value: -5"),
    (affinity(86401), "spec.sessionAffinityConfig.clientIP.timeoutSeconds", "at most 86400"),
    ({"sessionAffinity": "clientIP"}, "spec.sessionAffinity", 'Unsupported value: "clientIP"'),
    # addresses and families
    ({"clusterIP": "none"}, "spec.clusterIPs[0]", 'Invalid value: "none": must be a valid IP address'),
    ({"clusterIP": "10.96.0"}, "spec.clusterIPs[0]", "must be a valid IP address"),
    ({"clusterIP": "10.96.0.07"}, "spec.clusterIPs[0]", "must be a valid IP address"),
    ({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.8"]}, "spec.clusterIPs", "first value must match `clusterIP`"),
    ({"clusterIPs": ["10.96.0.8"]}, "spec.clusterIPs", "must be empty when `clusterIP` is not specified"),
    (
        {"clusterIP": "None", "clusterIPs": ["None", "10.96.0.7"], "ipFamilyPolicy": "RequireDualStack"},
        "spec.clusterIPs", "'None' must be the first and only value",
    ),
    (
        {"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "10.96.0.8"], "ipFamilyPolicy": "PreferDualStack"},
        "spec.clusterIPs", "no more than one IP for each IP family",
    ),
    (
        {"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7", "10.96.0.8"]},
        "spec.clusterIPs", "may only hold up to 2 values",
    ),
    ({"ipFamilies": ["IPv4", "IPv4"]}, "spec.ipFamilies[1]", 'Duplicate value: "IPv4"'),
    ({"ipFamilies": ["ipv4"]}, "spec.ipFamilies[0]", 'Unsupported value: "ipv4"'),
    ({"ipFamilyPolicy": "DualStack"}, "spec.ipFamilyPolicy", "Unsupported value"),
    ({"clusterIP": "10.96.0.7", "ipFamilies": ["IPv6"]}, "spec.clusterIPs[0]", "expected an IPv6 value"),
    # external addresses
    ({"externalIPs": ["web"]}, "spec.externalIPs[0]", "must be a valid IP address"),
    ({"externalIPs": ["192.0.2.1", "0.0.0.0"]}, "spec.externalIPs[1]", "may not be unspecified (0.0.0.0)"),
    ({"externalIPs": ["127.0.0.1"]}, "spec.externalIPs[0]", "loopback"),
    ({"externalIPs": ["::1"]}, "spec.externalIPs[0]", "loopback"),
    ({"externalIPs": ["169.254.1.1"]}, "spec.externalIPs[0]", "link-local range"),
    ({"externalIPs": ["fe80::1"]}, "spec.externalIPs[0]", "link-local range"),
    ({"externalIPs": ["224.0.0.5"]}, "spec.externalIPs[0]", "link-local multicast"),
    # load balancers
    ({"loadBalancerSourceRanges": ["10.0.0.0/8"]}, "spec.loadBalancerSourceRanges", "Forbidden"),
    ({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.1"]}, "spec.loadBalancerSourceRanges[0]", "CIDR"),
    ({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.0.0.0/33"]}, "spec.loadBalancerSourceRanges[0]", "CIDR"),
    ({"annotations": {RANGES: "10.0.0.0/8"}}, f"metadata.annotations[{RANGES}]", "Forbidden"),
    ({"type": "LoadBalancer", "annotations": {RANGES: "10.0.0.0/8, x"}}, f"metadata.annotations[{RANGES}]", '"x"'),
    ({"allocateLoadBalancerNodePorts": False}, "spec.allocateLoadBalancerNodePorts", "Forbidden"),
    ({"type": "NodePort", "allocateLoadBalancerNodePorts": True}, "spec.allocateLoadBalancerNodePorts", "Forbidden"),
    ({"loadBalancerClass": "example.com/lb"}, "spec.loadBalancerClass", "Forbidden: may only be used when `type` is"),
    ({"type": "LoadBalancer", "loadBalancerClass": "a b"}, "spec.loadBalancerClass", 'Invalid value: "a b"'),
    ({"type": "LoadBalancer", "loadBalancerClass": ""}, "spec.loadBalancerClass", "Invalid value"),
    # traffic policies
    ({"externalTrafficPolicy": "Local"}, "spec.externalTrafficPolicy", "may only be set for externally-accessible"),
    ({"externalTrafficPolicy": "Cluster"}, "spec.externalTrafficPolicy", 'Invalid value: "Cluster"'),
    ({**EXTERNAL_NAME, "externalTrafficPolicy": "Local"}, "spec.externalTrafficPolicy", "Invalid value"),
    ({"type": "NodePort", "externalTrafficPolicy": "Global"}, "spec.externalTrafficPolicy", '"Cluster", "Local"'),
    ({"internalTrafficPolicy": "local"}, "spec.internalTrafficPolicy", 'Unsupported value: "local"'),
    ({"healthCheckNodePort": 31000}, "spec.healthCheckNodePort", "may only be set when `type` is 'LoadBalancer' and"),
    ({"type": "LoadBalancer", "healthCheckNodePort": 31000}, "spec.healthCheckNodePort", "Invalid value: 31000"),
    ({**LOCAL, "type": "NodePort", "healthCheckNodePort": 31000}, "spec.healthCheckNodePort", "may only be set when"),
    ({**LOCAL, "healthCheckNodePort": 70000}, "spec.healthCheckNodePort", "Invalid value: 70000"),
    ({"trafficDistribution": "PreferLocal"}, "spec.trafficDistribution", '"PreferSameZone", "PreferSameNode"'),
    (
        {"annotations": {f"{TOPOLOGY}-aware-hints": "auto", f"{TOPOLOGY}-mode": "x"}},
        f"metadata.annotations[{TOPOLOGY}-mode]", "must match",
    ),
    # what a load balancer says
    (
        {"type": "LoadBalancer", "status": {"loadBalancer": {"ingress": [{"ip": "lb.example"}]}}},
        "status.loadBalancer.ingress[0].ip", "must be a valid IP address",
    ),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "field", "message"), REFUSED)
def test_service_is_refused_by_name_of_the_field(spec: Plain, field: str, message: str) -> None:
    """The field is spelled as the API server spells it, and so is the kind of mistake."""
    problems = {each.field: each.message for each in decoded(**spec).problems}
    assert message in problems[field]


TAKEN: list[tuple[Plain, str, object]] = [
    ({}, "type", "ClusterIP"),
    ({}, "session_affinity", "None"),
    ({}, "internal_traffic_policy", "Cluster"),
    ({}, "external_traffic_policy", None),
    ({}, "allocate_load_balancer_node_ports", None),
    ({"type": "NodePort"}, "external_traffic_policy", "Cluster"),
    ({"type": "NodePort"}, "allocate_load_balancer_node_ports", None),
    ({"type": "LoadBalancer"}, "external_traffic_policy", "Cluster"),
    ({"type": "LoadBalancer"}, "allocate_load_balancer_node_ports", True),
    ({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False}, "allocate_load_balancer_node_ports", False),
    ({"externalIPs": ["192.0.2.1"]}, "external_traffic_policy", "Cluster"),
    ({"externalIPs": ["192.0.2.1"], "externalTrafficPolicy": "Local"}, "external_traffic_policy", "Local"),
    ({"externalIPs": ["fd00::1"]}, "external_ips", ("fd00::1",)),
    ({"clusterIP": "None", "ports": []}, "ports", ()),
    ({"clusterIP": "None", "sessionAffinity": "ClientIP"}, "session_affinity", "ClientIP"),
    ({"clusterIP": "None", "trafficDistribution": "PreferSameNode"}, "traffic_distribution", "PreferSameNode"),
    ({"trafficDistribution": "PreferClose"}, "traffic_distribution", "PreferClose"),
    (EXTERNAL_NAME, "internal_traffic_policy", None),
    ({**EXTERNAL_NAME, "internalTrafficPolicy": "Local"}, "internal_traffic_policy", None),
    ({**EXTERNAL_NAME, "externalName": "db.example.com."}, "external_name", "db.example.com."),
    ({**EXTERNAL_NAME, "externalName": "10.0.0.1"}, "external_name", "10.0.0.1"),
    ({**EXTERNAL_NAME, **ports({"port": 80, "nodePort": 30080})}, "type", "ExternalName"),
    ({"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}}, "session_affinity_config", None),
    ({"type": "LoadBalancer", "loadBalancerClass": "example.com/lb"}, "load_balancer_class", "example.com/lb"),
    ({"type": "LoadBalancer", "loadBalancerSourceRanges": [" 10.0.0.0/8 "]}, "type", "LoadBalancer"),
    ({"type": "LoadBalancer", "loadBalancerSourceRanges": ["10.1.2.3/8"]}, "type", "LoadBalancer"),
    ({"type": "LoadBalancer", "annotations": {RANGES: " "}}, "type", "LoadBalancer"),
    (ports({"port": 53, "name": "a", "protocol": "UDP"}, {"port": 53, "name": "b"}), "type", "ClusterIP"),
    ({"type": "NodePort", **ports({"port": 53, "name": "a", "protocol": "UDP", "nodePort": 30053},
                                  {"port": 53, "name": "b", "nodePort": 30053})}, "type", "NodePort"),
    (ports({"port": 80, "name": "much-longer-than-fifteen-letters"}), "type", "ClusterIP"),
    (ports({"port": 80, "name": "8080"}), "type", "ClusterIP"),
    (ports({"port": 80, "appProtocol": "kubernetes.io/h2c"}), "type", "ClusterIP"),
    (ports({"port": 80, "protocol": "SCTP", "targetPort": "a1"}), "type", "ClusterIP"),
    (affinity(86400), "session_affinity", "ClientIP"),
    ({"publishNotReadyAddresses": True}, "publish_not_ready_addresses", True),
]  # fmt: skip


@pytest.mark.parametrize(("spec", "field", "value"), TAKEN)
def test_service_is_taken_with_its_defaults(spec: Plain, field: str, value: object) -> None:
    """What the API server takes is taken here, and what it fills in or drops is filled in or dropped."""
    found = decoded(**spec)
    assert isinstance(found.object, api.Service), found.problems
    assert getattr(found.object.spec, field) == value


@pytest.mark.parametrize(("said", "meant"), [(None, 80), (0, 80), ("", 80), (8080, 8080), ("http", "http")])
def test_target_port_is_the_port_if_not_said(said: object, meant: object) -> None:
    """A number, or a name that each pod explains."""
    found = decoded(ports=[{"port": 80, "targetPort": said}]).object
    assert isinstance(found, api.Service)
    assert found.spec.ports[0].target_port == meant


def test_affinity_lasts_three_hours_if_not_said() -> None:
    """10800 seconds, however much of the setting is left out."""
    configs: tuple[Plain | None, ...] = ({}, {"clientIP": {}}, {"clientIP": None}, None)
    for config in configs:
        found = decoded(sessionAffinity="ClientIP", sessionAffinityConfig=config).object
        assert isinstance(found, api.Service)
        assert found.spec.session_affinity_config is not None
        assert found.spec.session_affinity_config.client_ip.timeout_seconds == 10800


def test_every_broken_rule_is_said() -> None:
    """Not only the first one."""
    found = decoded(externalTrafficPolicy="Local", clusterIP="x", loadBalancerClass="a")
    assert [each.field for each in found.problems] == [
        "spec.clusterIPs[0]", "spec.loadBalancerClass", "spec.externalTrafficPolicy",
    ]  # fmt: skip
