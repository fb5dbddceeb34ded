"""Cilium's own policies: denials, entities, and requests that a proxy reads."""

from __future__ import annotations

from typing import Any

import pytest

from k8snetlab.cluster import Cluster
from k8snetlab.errors import CannotDo, ManifestError
from k8snetlab.linux.datapath import Direction, Permit, Request, Wanted, bpf_policy_list
from k8snetlab.trace import Client
from tests.policies.test_maps import DB, ONLY_WEB, PODS, WEB, entries, maps
from tests.shops import pod

OPS = "default/ops-0"
OTHER = (
    "apiVersion: v1\nkind: Namespace\nmetadata: {name: lab, labels: {team: red}}\n---\n"
    + pod("tool-0", node="node-1", app="web", namespace="lab")
)  # fmt: skip
GET_BOOKS = {"method": "GET", "path": "/books(/[0-9]+)?"}


def cilium(name: str, **spec: Any) -> dict[str, Any]:
    """A CiliumNetworkPolicy about the databases of the namespace default."""
    return {
        "apiVersion": "cilium.io/v2", "kind": "CiliumNetworkPolicy", "metadata": {"name": name},
        "spec": {"endpointSelector": {"matchLabels": {"app": "db"}}, **spec},
    }  # fmt: skip


def ports(*numbers: str, **more: Any) -> list[dict[str, Any]]:
    """Ports of TCP, and what is read there."""
    return [{"ports": [{"port": number, "protocol": "TCP"} for number in numbers], **more}]


def app(name: str, **labels: str) -> list[dict[str, Any]]:
    """Pods of an app as the other end."""
    return [{"matchLabels": {"k8s:app": name, **labels}}]


def cluster(*policies: dict[str, Any]) -> Cluster:
    """Two nodes with Cilium: web-0 and lab/tool-0 on the first, db-0 and ops-0 on the second."""
    return Cluster.load(PODS, OTHER, *policies, nodes=2, cni="cilium")


def ingress(*policies: dict[str, Any]) -> list[str]:
    """The entries of db-0 for what comes in."""
    return entries(cluster(*policies), DB, Direction.INGRESS)


# --- who and where ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "wanted"),
    [
        ({}, ["reserved:unknown ANY", "reserved:host ANY"]),
        ({"fromEndpoints": []}, ["reserved:host ANY"]),
        ({"fromEndpoints": [{}]}, ["reserved:host ANY", DB, OPS, WEB]),
        ({"fromEndpoints": app("web")}, ["reserved:host ANY", WEB]),
        (
            {"fromEndpoints": app("web", **{"k8s:io.kubernetes.pod.namespace": "lab"})},
            ["reserved:host ANY", "lab/tool-0"],
        ),
        (
            {"fromEndpoints": [{"matchLabels": {"io.cilium.k8s.namespace.labels.team": "red"}}]},
            ["reserved:host ANY", "lab/tool-0"],
        ),
        ({"fromEntities": ["remote-node"]}, ["reserved:host ANY", "reserved:remote-node ANY"]),
        ({"fromEntities": ["world"]}, ["reserved:host ANY", "reserved:world ANY"]),
        ({"fromEntities": ["all"]}, ["reserved:unknown ANY", "reserved:host ANY"]),
        ({"fromEntities": ["none"]}, ["reserved:host ANY"]),
        ({"fromCIDR": ["203.0.113.0/24"]}, ["reserved:host ANY", "cidr:203.0.113.0/24 ANY"]),
        (
            {"fromCIDRSet": [{"cidr": "203.0.113.0/30", "except": ["203.0.113.0/31"]}]},
            ["reserved:host ANY", "cidr:203.0.113.2/31 ANY"],
        ),
        ({"toPorts": ports("8080")}, ["reserved:unknown 8080/TCP", "reserved:host ANY"]),
        ({"toPorts": ports("http")}, ["reserved:unknown 8080/TCP", "reserved:host ANY"]),
        ({"toPorts": ports("0")}, ["reserved:unknown TCP", "reserved:host ANY"]),
        (
            {"toPorts": [{"ports": [{"port": "53"}]}]},
            ["reserved:unknown 53/SCTP", "reserved:unknown 53/TCP", "reserved:unknown 53/UDP", "reserved:host ANY"],
        ),
        (
            {"toPorts": [{"ports": [{"port": "80", "endPort": 82, "protocol": "TCP"}]}]},
            ["reserved:unknown 80-81/TCP", "reserved:unknown 82/TCP", "reserved:host ANY"],
        ),
    ],
)  # fmt: skip
def test_a_rule_is_entries(rule: dict[str, Any], wanted: list[str]) -> None:
    """Beside the own node's; a pod is named for its identity."""
    found = ingress(cilium("rule", ingress=[rule]))
    assert sorted(found) == sorted(each if " " in each else f"{each} ANY" for each in wanted)


def test_the_cluster_is_all_pods_and_nodes() -> None:
    """And not the world."""
    found = ingress(cilium("rule", ingress=[{"fromEntities": ["cluster"]}]))
    assert {"reserved:remote-node ANY", f"{WEB} ANY", "lab/tool-0 ANY"} < set(found)
    assert not any("world" in each or "unknown" in each for each in found)


def test_a_denial_isolates_and_wins() -> None:
    """Over a NetworkPolicy that allows the same."""
    deny = cilium("deny", ingressDeny=[{"fromEndpoints": app("web"), "toPorts": ports("8080")}])
    assert ingress(deny, ONLY_WEB) == [f"{WEB} 8080/TCP denied", "reserved:host ANY", f"{WEB} 8080/TCP"]
    trace = cluster(deny, ONLY_WEB).trace(WEB, f"{DB}:8080")
    assert trace.reason.endswith("by CiliumNetworkPolicy default/deny (Policy denied by denylist)")
    assert cluster(deny).trace(OPS, f"{DB}:8080").client is Client.TIMEOUT


def test_a_policy_may_deny_without_isolating() -> None:
    """`enableDefaultDeny` leaves the entry for everything else."""
    deny = cilium("deny", ingressDeny=[{"fromEndpoints": app("web")}], enableDefaultDeny={"ingress": False})
    assert ingress(deny) == ["reserved:unknown ANY", f"{WEB} ANY denied"]
    assert cluster(deny).trace(WEB, f"{DB}:8080").client is Client.TIMEOUT
    assert cluster(deny).trace(OPS, f"{DB}:8080").client is Client.OPEN


def test_a_policy_is_about_its_own_namespace() -> None:
    """A pod of another one with the same labels stays open."""
    closed = cilium("closed", endpointSelector={"matchLabels": {"app": "web"}}, ingress=[{"fromEndpoints": []}])
    held = cluster(closed)
    assert entries(held, WEB, Direction.INGRESS, "node-1") == ["reserved:host ANY"]
    assert entries(held, "lab/tool-0", Direction.INGRESS, "node-1") == ["reserved:unknown ANY"]


def test_other_plugins_do_not_know_them() -> None:
    """They are Cilium's."""
    held = cluster(cilium("closed", ingress=[{"fromEndpoints": []}]))
    assert held.trace(WEB, f"{DB}:8080").client is Client.TIMEOUT
    for cni in ("calico", "flannel"):
        assert held.changed(cni=cni).trace(WEB, f"{DB}:8080").client is Client.OPEN


def test_what_the_engine_does_not_know_it_does_not_judge() -> None:
    """An answer that left them out would be wrong; under another plugin they do not count."""
    held = cluster(cilium("closed", ingress=[{"fromEndpoints": []}]))
    with pytest.raises(CannotDo, match="CiliumNetworkPolicy default/closed: Cilium's own policies are compiled"):
        held.allowed(WEB, DB, 8080)
    assert held.changed(cni="calico").allowed(WEB, DB, 8080)


# --- requests ---------------------------------------------------------------------------------------------------------

READS = cilium("reads", ingress=[{"fromEndpoints": app("web"), "toPorts": ports("8080", rules={"http": [GET_BOOKS]})}])


@pytest.mark.parametrize(
    ("wanted", "request_", "passes"),
    [
        (Wanted(), Request("DELETE", "/"), True),
        (Wanted("GET"), Request("POST"), False),
        (Wanted("GET|HEAD"), Request("HEAD"), True),
        (Wanted(path="/books"), Request(path="/books/7"), False),
        (Wanted(path="/books/.*"), Request(path="/books/7?page=2"), True),
        (Wanted(host="api"), Request(host="api.shop"), False),
        (Wanted(headers=("X-Token: 1",)), Request(headers={"x-token": "1"}), True),
        (Wanted(headers=("X-Token: 1",)), Request(headers={"X-Token": "2"}), False),
        (Wanted(headers=("X-Token",)), Request(headers={"X-Token": "2"}), True),
        (Wanted(headers=("X-Token",)), Request(), False),
    ],
)
def test_a_request_is_wanted_as_a_whole(wanted: Wanted, request_: Request, passes: bool) -> None:
    """Every expression must match, from beginning to end."""
    assert wanted.takes(request_) is passes


def test_what_is_read_goes_to_a_proxy() -> None:
    """The entry has the proxy's port; Hubble says that the flow was redirected."""
    held = cluster(READS)
    row = next(line.split() for line in bpf_policy_list(maps(held)).splitlines() if "8080/TCP" in line)
    assert row[4].isdecimal() and 10000 <= int(row[4]) < 20000
    trace = held.trace(WEB, f"{DB}:8080")
    assert trace.client is Client.OPEN
    said = [f"{each.point} {each.verdict}" for each in held.hubble(trace)]
    assert "policy-verdict:L3-L4 INGRESS REDIRECTED" in said and "to-proxy FORWARDED" in said


@pytest.mark.parametrize(
    ("url", "method", "status"),
    [("/books", "GET", 200), ("/books/7", "GET", 200), ("/books", "POST", 403), ("/admin", "GET", 403)],
)
def test_the_proxy_refuses_what_nobody_wants(url: str, method: str, status: int) -> None:
    """The connection opens all the same, and 403 comes back over it."""
    told = cluster(READS).curl(WEB, f"http://{cluster().objects.pod(DB).ip}:8080{url}", method=method)
    assert (told.ok, told.status) == (True, status)
    if status == 403:
        assert told.body == "Access denied"
        assert told.reason == (
            f"the proxy on node-2 answers {method} {url} with 403: CiliumNetworkPolicy default/reads does not want it"
        )


def test_hubble_tells_of_requests() -> None:
    """Behind the flow of the connection, with what was asked for."""
    held = cluster(READS)
    for method, verdict in (("GET", "FORWARDED"), ("PUT", "DROPPED")):
        told = held.hubble(held.curl(WEB, f"http://{held.objects.pod(DB).ip}:8080/books", method=method))[-1]
        assert (told.point, told.verdict) == ("http-request", verdict)
        assert told.summary == f"HTTP/1.1 {method} http://{held.objects.pod(DB).ip}:8080/books"
    refused = held.curl(OPS, f"{DB}:8080")
    assert held.hubble(refused)[-1].point == "Policy denied"


def test_who_may_not_connect_is_not_answered() -> None:
    """Reading comes after identity and port."""
    told = cluster(READS).curl(OPS, f"{DB}:8080")
    assert (told.failed, told.status) == ("connect", 0)


@pytest.mark.parametrize("other", [ONLY_WEB, cilium("all", ingress=[{"fromEntities": ["cluster"]}])])
def test_what_another_policy_allows_passes_as_a_whole(other: dict[str, Any]) -> None:
    """By the same entry or by a broader one: the proxy reads, and lets everything pass."""
    held = cluster(READS, other)
    assert held.curl(WEB, f"{DB}:8080", method="DELETE").status == 200
    steps = held.trace(WEB, f"{DB}:8080").steps
    assert any(isinstance(step.rule, Permit) and step.rule.proxy for step in steps)


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"ingress": [{"toFQDNs": []}]}, r"spec.ingress\[0\].toFQDNs: there is no such field"),
        ({"egress": [{"toFQDNs": [{"matchName": "a.b"}]}]}, r"spec.egress\[0\].toFQDNs: Forbidden: is Cilium's"),
        ({"egress": [{"icmps": []}]}, r"icmps: Forbidden: is Cilium's, but not modelled here"),
        ({"endpointSelector": None}, r"spec.endpointSelector: Required value"),
        ({"ingress": [{"fromEndpoints": app("a", **{"reserved:host": ""})}]}, r"the source 'reserved'"),
        ({"ingress": [{"fromCIDR": ["10.0.0.300"]}]}, r"fromCIDR\[0\]: Invalid value"),
        ({"ingress": [{"fromCIDRSet": [{"cidr": "10.0.0.0/8", "except": ["11.0.0.0/9"]}]}]}, r"inside 10.0.0.0/8"),
        ({"ingress": [{"toPorts": ports("70000")}]}, r"must be at most 65535"),
        ({"ingress": [{"toPorts": ports("80", rules={"http": [{"path": "("}]})}]}, r"is no regular expression"),
        ({"ingress": [{"toPorts": ports("80", rules={"kafka": []})}]}, r"kafka: Forbidden"),
        ({"ingress": [{"toPorts": [{"ports": [{"port": "80"}], "rules": {"http": [{}]}}]}]}, r"need TCP"),
        ({"ingressDeny": [{"toPorts": ports("80", rules={"http": [{}]})}]}, r"a rule that denies cannot read"),
        ({"ingress": [{"toPorts": [{"ports": [{"port": "http", "endPort": 90}]}]}]}, r"a name has no range"),
        ({"ingress": [{"fromEntities": ["everybody"]}]}, r"fromEntities\[0\]"),
        ({"endpointSelector": {"matchLabels": {"io.kubernetes.pod.namespace": "lab"}}}, r"stands in namespace default"),
    ],
)  # fmt: skip
def test_what_cilium_refuses_or_is_not_modelled_is_said(spec: dict[str, Any], words: str) -> None:
    """With object and field; nothing is passed over, since a policy would mean something else."""
    with pytest.raises(ManifestError, match=words):
        cluster(cilium("bad", **spec))
