"""Objects of the Gateway API: what they mean when nothing is said, what is refused, how they are printed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from k8snetlab import Cluster, api
from k8snetlab.api.gateway import FromNamespaces, Gateway, HTTPRoute, PathMatchType

GROUP = "gateway.networking.k8s.io"
LISTENER = {"name": "web", "port": 80, "protocol": "HTTP"}
CERTIFIED = {"certificateRefs": [{"name": "cert"}]}
BACKEND = {"name": "web", "port": 80}


def plain(kind: str, version: str = "v1", **spec: Any) -> dict[str, Any]:
    """An object `a` of that kind."""
    return {"apiVersion": f"{GROUP}/{version}", "kind": kind, "metadata": {"name": "a"}, "spec": spec}


def gateway(*listeners: Mapping[str, Any], **spec: Any) -> dict[str, Any]:
    """A Gateway with these listeners, or one for HTTP."""
    return plain("Gateway", gatewayClassName="c", listeners=[*(listeners or (LISTENER,))], **spec)


def route(*rules: Mapping[str, Any], **spec: Any) -> dict[str, Any]:
    """An HTTPRoute with these rules, or with one that says nothing."""
    return plain("HTTPRoute", rules=[*(rules or ({},))], **spec)


def filtered(type: str, **how: Any) -> dict[str, Any]:
    """A route with one filter."""
    return route({"filters": [{"type": type, **how}]})


def test_a_gateway_waits_for_its_controller() -> None:
    """What the API server fills in: routes of its own namespace, and conditions nobody knows about yet."""
    made = api.decode(gateway()).object
    assert isinstance(made, Gateway)
    assert made.spec.listeners[0].allowed_routes.namespaces.from_ is FromNamespaces.SAME
    assert (made.addresses, made.programmed) == ((), "Unknown")


def test_a_route_without_rules_means_every_path() -> None:
    """One rule with one match, the prefix `/`."""
    made = api.decode(plain("HTTPRoute")).object
    assert isinstance(made, HTTPRoute)
    (match,) = made.spec.rules[0].matches
    assert (match.path.type, match.path.value) == (PathMatchType.PATH_PREFIX, "/")


def test_every_served_version_is_one_value() -> None:
    """A Gateway of v1beta1 is the Gateway of v1; a version that is not served is refused."""
    old = gateway() | {"apiVersion": f"{GROUP}/v1beta1"}
    assert api.decode(old) == api.decode(gateway())
    (problem,) = api.decode(gateway() | {"apiVersion": f"{GROUP}/v1alpha2"}).problems
    assert problem.message.endswith(f"it is in {GROUP}/v1")


REFUSED: Mapping[str, tuple[dict[str, Any], str]] = {
    "a class without a domain": (plain("GatewayClass", controllerName="mine"), "spec.controllerName"),
    "no listener": (plain("Gateway", gatewayClassName="c", listeners=[]), "spec.listeners"),
    "a name twice": (gateway(LISTENER, {**LISTENER, "port": 81}), "spec.listeners[1].name"),
    "a place twice": (gateway(LISTENER, {**LISTENER, "name": "b"}), "spec.listeners[1]"),
    "port 0": (gateway({**LISTENER, "port": 0}), "spec.listeners[0].port"),
    "an address for a host": (gateway({**LISTENER, "hostname": "192.0.2.1"}), "spec.listeners[0].hostname"),
    "a star in the middle": (gateway({**LISTENER, "hostname": "a.*.org"}), "spec.listeners[0].hostname"),
    "TCP with a host": (gateway({**LISTENER, "protocol": "TCP", "hostname": "a.org"}), "spec.listeners[0].hostname"),
    "HTTP with TLS": (gateway({**LISTENER, "tls": CERTIFIED}), "spec.listeners[0].tls"),
    "TLS without": (gateway({**LISTENER, "protocol": "TLS"}), "spec.listeners[0].tls"),
    "no certificate": (gateway({**LISTENER, "protocol": "HTTPS", "tls": {}}), "spec.listeners[0].tls.certificateRefs"),
    "HTTPS passed through": (
        gateway({**LISTENER, "protocol": "HTTPS", "tls": {"mode": "Passthrough"}}), "spec.listeners[0].tls.mode",
    ),
    "a namespace from nowhere": (
        gateway({**LISTENER, "allowedRoutes": {"namespaces": {"from": "Some"}}}),
        "spec.listeners[0].allowedRoutes.namespaces.from",
    ),
    "an address that is none": (gateway(addresses=[{"value": "here"}]), "spec.addresses[0].value"),
    "a parent twice": (route(parentRefs=[{"name": "a"}, {"name": "a"}]), "spec.parentRefs[1]"),
    "a parent once with a section": (
        route(parentRefs=[{"name": "a"}, {"name": "a", "sectionName": "b"}]), "spec.parentRefs[1].sectionName",
    ),
    "a host that is none": (route(hostnames=["Shop.example.org"]), "spec.hostnames[0]"),
    "a path without a slash": (route({"matches": [{"path": {"value": "a"}}]}), "spec.rules[0].matches[0].path.value"),
    "a path that climbs": (route({"matches": [{"path": {"value": "/a/.."}}]}), "spec.rules[0].matches[0].path.value"),
    "a Service without a port": (route({"backendRefs": [{"name": "a"}]}), "spec.rules[0].backendRefs[0].port"),
    "a weight below 0": (
        route({"backendRefs": [{**BACKEND, "weight": -1}]}), "spec.rules[0].backendRefs[0].weight",
    ),
    "a filter without its field": (filtered("CORS"), "spec.rules[0].filters[0].cors"),
    "a filter with another's": (
        filtered("CORS", cors={}, urlRewrite={}), "spec.rules[0].filters[0].urlRewrite",
    ),
    "no such filter": (filtered("Delay"), "spec.rules[0].filters[0].type"),
    "no redirect": (
        filtered("RequestRedirect", requestRedirect={"statusCode": 200}),
        "spec.rules[0].filters[0].requestRedirect.statusCode",
    ),
    "a path of the other type": (
        filtered("URLRewrite", urlRewrite={"path": {"type": "ReplaceFullPath"}}),
        "spec.rules[0].filters[0].urlRewrite.path.replaceFullPath",
    ),
    "sent elsewhere and here": (
        route({"filters": [{"type": "RequestRedirect", "requestRedirect": {}}], "backendRefs": [BACKEND]}),
        "spec.rules[0].backendRefs",
    ),
    "a time of no unit": (route({"timeouts": {"backendRequest": "10"}}), "spec.rules[0].timeouts.backendRequest"),
    "a call without a name": (
        plain("GRPCRoute", rules=[{"matches": [{"method": {}}]}]), "spec.rules[0].matches[0].method",
    ),
    "two rules for a port": (plain("TCPRoute", rules=[{"backendRefs": [BACKEND]}] * 2), "spec.rules"),
    "a connection to nobody": (plain("UDPRoute", rules=[{"backendRefs": []}]), "spec.rules[0].backendRefs"),
    "TLS for no name": (plain("TLSRoute", rules=[{"backendRefs": [BACKEND]}]), "spec.hostnames"),
    "a grant to nobody": (
        {**plain("ReferenceGrant"), "spec": {"from": [], "to": [{"group": "", "kind": "Service"}]}}, "spec.from",
    ),
    "a field that is none": (route(hostname="a.org"), "spec.hostname"),
}  # fmt: skip


@pytest.mark.parametrize(("data", "field"), REFUSED.values(), ids=REFUSED)
def test_what_the_api_server_refuses(data: dict[str, Any], field: str) -> None:
    """One thing is wrong, and the message names its field."""
    assert [problem.field for problem in api.decode(data).problems] == [field]


def test_tables_are_those_of_kubectl() -> None:
    """The columns of the definitions, and plural and short names as kubectl knows them."""
    taken = gateway() | {"status": {"addresses": [{"value": "203.0.113.7"}]}}
    cluster = Cluster.load(
        plain("GatewayClass", controllerName="example.net/doors"), taken, route(hostnames=["a.org", "*.b.org"])
    )
    assert str(cluster.get("gc")).splitlines()[1].split() == ["a", "example.net/doors", "Unknown"]
    assert str(cluster.get("gateways")).splitlines()[1].split() == ["default", "a", "c", "203.0.113.7", "Unknown"]
    assert str(cluster.get("httproute")).splitlines()[1].split() == ["default", "a", '["a.org","*.b.org"]']


def test_examples_of_the_gateway_api_load(shared: Path) -> None:
    """All of them, as they are; two kinds are not read."""
    files = sorted((shared / "real" / "gateway-api").glob("*.yaml"))
    manifests = [api.load(file) for file in files]
    assert len(files) > 80
    assert Counter(each.kind for one in manifests for each in one.objects if each.api_version.startswith(GROUP)) == {
        "HTTPRoute": 48, "Gateway": 24, "GRPCRoute": 7, "GatewayClass": 4, "TCPRoute": 3, "UDPRoute": 3,
        "ReferenceGrant": 3, "TLSRoute": 2,
    }  # fmt: skip
    assert {each.kind for one in manifests for each in one.unknown_kinds} == {"BackendTLSPolicy", "ListenerSet"}
    for one in manifests:
        assert api.load(*map(api.to_dict, one.objects)).objects == one.objects
