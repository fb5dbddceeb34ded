"""Policies that the API server would refuse, with its words."""

from __future__ import annotations

from typing import Any

import pytest

from k8snetlab import api
from k8snetlab.api.policy_rules import strict_rules
from k8snetlab.cluster import Cluster
from k8snetlab.errors import ManifestError
from tests.shops import pod

IN = {"key": "a", "operator": "In"}


def policy(spec: dict[str, Any]) -> api.NetworkPolicy:
    """The NetworkPolicy `a`, which is right."""
    said = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "a"}, "spec": spec}
    found = api.decode(said).object
    assert isinstance(found, api.NetworkPolicy)
    return found


def refused(spec: dict[str, Any], kind: str = "NetworkPolicy") -> list[tuple[str, str]]:
    """Field and message of each problem of a policy with that spec."""
    version = next(version for version, known in api.KINDS if known == kind)
    said = {"apiVersion": version, "kind": kind, "metadata": {"name": "a"}, "spec": spec}
    return [(each.field, each.message) for each in api.decode(said).problems]


def block(cidr: str, *holes: str) -> dict[str, Any]:
    """The spec of a policy with one block of addresses."""
    return {"ingress": [{"from": [{"ipBlock": {"cidr": cidr, "except": list(holes)}}]}]}


BLOCK = "spec.ingress[0].from[0].ipBlock"


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({"podSelector": {"matchExpressions": [IN]}}, "spec.podSelector.matchExpressions[0].values", "Required value"),
        (
            {"podSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}},
            "spec.podSelector.matchExpressions[0].values",
            "Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
        ),
        ({"podSelector": {"matchLabels": {"a": "-"}}}, "spec.podSelector.matchLabels.a", "is not a label value"),
        ({"podSelector": {"matchExpressions": [{"key": "a", "operator": "in"}]}},
         "spec.podSelector.matchExpressions[0].operator", "Unsupported value"),
        ({"policyTypes": ["Ingress", "Egress", "Ingress"]}, "spec.policyTypes", "more than two policyTypes"),
        ({"policyTypes": ["ingress"]}, "spec.policyTypes[0]", 'supported values: "Ingress", "Egress"'),
        ({"egress": [{"to": [{}]}]}, "spec.egress[0].to[0]", "Required value: must specify a peer"),
        ({"ingress": [{"from": [{"namespaceSelector": {"matchExpressions": [IN]}}]}]},
         "spec.ingress[0].from[0].namespaceSelector.matchExpressions[0].values", "Required value"),
        ({"ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "namespaceSelector": {}}]}]},
         "spec.ingress[0].from[0]", "Forbidden: may not specify both ipBlock and another peer"),
        (block(""), f"{BLOCK}.cidr", "Required value"),
        (block("10.0.0.1"), f"{BLOCK}.cidr", "must be a valid CIDR value"),
        (block("10.0.0.0/255.0.0.0"), f"{BLOCK}.cidr", "must be a valid CIDR value"),
        (block("10.0.0.0/33"), f"{BLOCK}.cidr", "must be a valid CIDR value"),
        (block("fe80::%eth0/64"), f"{BLOCK}.cidr", "must be a valid CIDR value"),
        (block("10.0.0.0/8", "10.0.0"), f"{BLOCK}.except[0]", "must be a valid CIDR value"),
        (block("10.0.0.0/8", "10.0.0.0/8"), f"{BLOCK}.except[0]", "must be a strict subset of `10.0.0.0/8`"),
        (block("10.0.0.0/8", "10.1.0.0/16", "11.0.0.0/16"), f"{BLOCK}.except[1]", "strict subset"),
        (block("0.0.0.0/0", "fd00::/8"), f"{BLOCK}.except[0]", "strict subset"),
        ({"ingress": [{"ports": [{"endPort": 90}]}]}, "spec.ingress[0].ports[0].endPort",
         "Invalid value: 90: may not be specified when `port` is not specified"),
        ({"ingress": [{"ports": [{"port": "http", "endPort": 90}]}]}, "spec.ingress[0].ports[0].endPort",
         "non-numeric"),
        ({"ingress": [{"ports": [{"port": 80, "endPort": 79}]}]}, "spec.ingress[0].ports[0].endPort",
         "must be greater than or equal to `port`"),
        ({"ingress": [{"ports": [{"port": 80, "endPort": 70000}]}]}, "spec.ingress[0].ports[0].endPort",
         "must be between 1 and 65535"),
        ({"ingress": [{"ports": [{"port": 0}]}]}, "spec.ingress[0].ports[0].port", "must be between 1 and 65535"),
        ({"ingress": [{"ports": [{"port": "80"}]}]}, "spec.ingress[0].ports[0].port", "with a letter in it"),
        ({"ingress": [{"ports": [{"port": 80, "protocol": "tcp"}]}]}, "spec.ingress[0].ports[0].protocol",
         'Unsupported value: "tcp"'),
    ],
)  # fmt: skip
def test_a_network_policy_is_refused(spec: dict[str, Any], field: str, message: str) -> None:
    """Each rule of the API server names the field that breaks it."""
    assert [said for at, said in refused(spec) if at == field and message in said] != []


def cluster(**rule: Any) -> dict[str, Any]:
    """The spec of a ClusterNetworkPolicy with this egress rule."""
    said = {"action": "Deny", "to": [{"namespaces": {}}], **rule}
    return {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}}, "egress": [said]}


NAMED = {"destinationNamedPort": "http"}


@pytest.mark.parametrize(
    ("spec", "field", "message"),
    [
        ({**cluster(), "tier": "Middle"}, "spec.tier", 'supported values: "Admin", "Baseline"'),
        ({**cluster(), "priority": 1001}, "spec.priority", "must be at most 1000"),
        ({**cluster(), "subject": {}}, "spec.subject", "must have one of namespaces, pods"),
        ({**cluster(), "subject": {"namespaces": {}, "pods": {"podSelector": {}}}}, "spec.subject",
         "has namespaces and pods"),
        ({**cluster(), "subject": {"pods": {}}}, "spec.subject.pods.podSelector", "is required"),
        ({**cluster(), "egress": [{"action": "Deny"}]}, "spec.egress[0].to", "is required"),
        ({**cluster(), "ingress": [{"action": "Deny", "from": [{"networks": ["10.0.0.0/8"]}]}]},
         "spec.ingress[0].from[0].networks", "no such field"),
        ({**cluster(), "egress": [cluster()["egress"][0]] * 26}, "spec.egress", "at most 25 items"),
        (cluster(action="Allow"), "spec.egress[0].action", 'supported values: "Accept", "Deny", "Pass"'),
        (cluster(name="a" * 101), "spec.egress[0].name", "may not be longer than 100"),
        (cluster(to=[]), "spec.egress[0].to", "at least 1 items"),
        (cluster(to=[{}]), "spec.egress[0].to[0]", "must have one of"),
        (cluster(to=[{"namespaces": {}, "networks": ["10.0.0.0/8"]}]), "spec.egress[0].to[0]", "at most 1"),
        (cluster(to=[{"networks": ["10.0.0.0"]}]), "spec.egress[0].to[0].networks[0]", "Invalid CIDR format provided"),
        (cluster(to=[{"networks": ["::ffff:10.0.0.0/104"]}]), "spec.egress[0].to[0].networks[0]", "Invalid CIDR"),
        (cluster(to=[{"networks": ["10.0.0.0/8"] * 2}]), "spec.egress[0].to[0].networks[1]", "Duplicate value"),
        (cluster(to=[{"nodes": {"matchExpressions": [IN]}}]), "spec.egress[0].to[0].nodes.matchExpressions[0].values",
         "Required value"),
        (cluster(to=[{"domainNames": ["a.example.com"]}]), "spec.egress[0].to[0].domainNames",
         "only supported for Accept"),
        (cluster(action="Accept", to=[{"domainNames": ["a.*.com"]}]), "spec.egress[0].to[0].domainNames[0]",
         "domain name"),
        (cluster(to=[{"networks": ["10.0.0.0/8"]}], protocols=[NAMED]), "spec.egress[0]", "no namedPorts"),
        (cluster(protocols=[{}]), "spec.egress[0].protocols[0]",
         "must have one of tcp, udp, sctp, destinationNamedPort"),
        (cluster(protocols=[{"tcp": {}}]), "spec.egress[0].protocols[0].tcp.destinationPort", "is required"),
        (cluster(protocols=[{"tcp": {"destinationPort": {}}}]), "spec.egress[0].protocols[0].tcp.destinationPort",
         "must have one of number, range"),
        (cluster(protocols=[{"udp": {"destinationPort": {"number": 0}}}]),
         "spec.egress[0].protocols[0].udp.destinationPort.number", "must be at least 1"),
        (cluster(protocols=[{"tcp": {"destinationPort": {"range": {"start": 9, "end": 9}}}}]),
         "spec.egress[0].protocols[0].tcp.destinationPort.range", "Start port must be less than End port"),
    ],
)  # fmt: skip
def test_a_cluster_network_policy_is_refused(spec: dict[str, Any], field: str, message: str) -> None:
    """Each rule of its definition names the field that breaks it."""
    assert [said for at, said in refused(spec, "ClusterNetworkPolicy") if at == field and message in said] != []


@pytest.mark.parametrize(
    "spec",
    [
        cluster(protocols=[NAMED]),
        cluster(to=[{"networks": ["10.0.0.1/8", "::/0"]}, {"nodes": {}}]),
        cluster(action="Accept", to=[{"domainNames": ["*.example.com", "example.com."]}]),
        {**cluster(), "priority": 0, "egress": []},
    ],
)
def test_a_cluster_network_policy_is_taken(spec: dict[str, Any]) -> None:
    """What its definition takes is taken here."""
    assert refused(spec, "ClusterNetworkPolicy") == []


def test_blocks_are_spelled_strictly_when_they_are_new() -> None:
    """Host bits and IPv4-mapped addresses: only what the object had before may stay."""
    old = policy(block("10.0.0.1/8", "10.9.0.1/16"))
    assert [field for field, _ in strict_rules(old)] == [f"{BLOCK}.cidr", f"{BLOCK}.except[0]"]
    assert list(strict_rules(old, old)) == []
    mapped = policy(block("::ffff:10.0.0.0/104"))
    assert [why for _, why in strict_rules(mapped)] == [
        'Invalid value: "::ffff:10.0.0.0/104": must not be an IPv4-mapped IPv6 address'
    ]


def test_what_is_applied_is_judged_strictly_and_what_is_stored_is_not() -> None:
    """A cluster may hold what nobody could create in it any more."""
    text = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec:\n"
    loose = text + "  podSelector: {}\n  ingress: [{from: [{ipBlock: {cidr: 10.0.0.1/8}}]}]\n"
    stored = Cluster.load(pod("web"), loose)
    assert [each.how for each in [*stored.applied(loose).asked]] == ["unchanged"]
    with pytest.raises(ManifestError, match=r"<text>:1: NetworkPolicy default/b: .*must not have bits set beyond"):
        stored.applied(loose.replace("name: a", "name: b"))
    with pytest.raises(ManifestError, match="must not have bits set beyond"):
        stored.patched("NetworkPolicy", "a", {"spec": block("10.7.0.1/16")})
