from __future__ import annotations

import pytest

from k8snetlab.cluster import Cluster
from k8snetlab.errors import UnknownName
from tests.shops import bookshop, pod, service


def lines(cluster: Cluster, kind: str, namespace: str | None = None) -> list[str]:
    """The lines of a table, their columns one blank apart."""
    return [" ".join(line.split()) for line in str(cluster.get(kind, namespace)).splitlines()]


def row(cluster: Cluster, kind: str, name: str) -> str:
    """The line of one object."""
    return next(line for line in lines(cluster, kind) if f" {name} " in f" {line} ")


def test_pods_are_listed_with_node_and_address() -> None:
    """As `kubectl get pods -A -o wide` does."""
    assert lines(bookshop(), "pods", "shop")[0] == "NAMESPACE NAME READY STATUS IP NODE"
    pod_ = bookshop().objects.pod("shop/web-0")
    assert row(bookshop(), "pods", "web-0") == f"shop web-0 1/1 Running {pod_.ip} {pod_.node_name}"


@pytest.mark.parametrize(
    ("status", "ready", "said"),
    [
        ("phase: Succeeded", "0/1", "Completed"),
        ("phase: Failed", "0/1", "Error"),
        ("phase: Pending", "0/1", "Pending"),
        ("phase: Running, conditions: [{type: Ready, status: 'False'}]", "0/1", "Running"),
        ("phase: Running, conditions: [{type: Ready, status: 'True'}]", "1/1", "Running"),
    ],
)
def test_the_state_of_a_pod_is_what_kubectl_says(status: str, ready: str, said: str) -> None:
    """Ready containers, and a word; what ended is Completed or Error."""
    assert row(Cluster.load(pod("a", status=status)), "pods", "a").startswith(f"default a {ready} {said}")


def test_of_several_containers_those_that_are_ready_are_counted() -> None:
    """A dump says which."""
    two = pod(
        "a",
        status="phase: Running, conditions: [{type: Ready, status: 'False'}],"
        " containerStatuses: [{name: web, ready: true}, {name: log, ready: false}]",
    ).replace("  containers:", "  containers:\n    - {name: log, image: example}")
    assert row(Cluster.load(two), "pods", "a").startswith("default a 1/2 Running")


def test_a_pod_that_is_being_deleted_is_terminating() -> None:
    """Whatever its phase says."""
    going = pod("a").replace("labels:", "deletionTimestamp: '2026-11-22T12:00:00Z', labels:")
    assert "Terminating" in row(Cluster.load(going), "pods", "a")


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("web", "NodePort {} <none> 80:30080/TCP app.kubernetes.io/name=web"),
        ("bank", "ExternalName <none> gateway.bank.example <none> <none>"),
        ("db", "ClusterIP None <none> 5432/TCP app.kubernetes.io/name=db"),
        ("kube-dns", "ClusterIP 10.96.0.10 <none> 53/UDP,53/TCP,9153/TCP k8s-app=kube-dns"),
    ],
)
def test_services_are_listed_with_what_leads_to_them(name: str, rest: str) -> None:
    """Type, ClusterIP, external addresses, ports with node ports, selector."""
    service_ = next(each for each in bookshop().objects.services if each.name == name)
    assert row(bookshop(), "services", name) == f"{service_.namespace} {name} {rest.format(*service_.spec.cluster_ips)}"


@pytest.mark.parametrize(
    ("status", "said"),
    [("", "<pending>"), ("{ip: 192.0.2.10}", "192.0.2.10"), ("{hostname: lb.example.com}", "lb.example.com")],
)
def test_a_load_balancer_is_pending_until_it_has_an_address(status: str, said: str) -> None:
    """Then its address or its name."""
    ingress = f"status: {{loadBalancer: {{ingress: [{status}]}}}}\n---"
    cluster = Cluster.load(service("web", "type: LoadBalancer").replace("---", ingress if status else "---"))
    assert f" {said} " in row(cluster, "svc", "web")


def test_external_addresses_are_listed() -> None:
    """The field externalIPs stands beside the addresses of load balancers."""
    cluster = Cluster.load(service("web", "externalIPs: [192.0.2.7]"))
    assert " 192.0.2.7 " in row(cluster, "svc", "web")


def test_nodes_are_listed_with_their_ranges() -> None:
    """Address, pod CIDR, zone."""
    assert lines(bookshop(), "nodes")[:2] == [
        "NAME STATUS INTERNAL-IP POD-CIDR ZONE",
        "node-1 Ready 172.18.0.11 10.244.0.0/24 <none>",
    ]


def test_slices_are_listed_with_their_endpoints() -> None:
    """Ports and addresses; those that are not ready are marked."""
    down = "phase: Running, conditions: [{type: Ready, status: 'False'}]"
    cluster = Cluster.load(service("web"), pod("a"), pod("b", status=down))
    [found] = [line for line in lines(cluster, "endpointslices") if " web-" in line]
    assert found.endswith("IPv4 8080 10.244.0.2,10.244.0.3 (not ready)")


def test_an_empty_slice_is_unset() -> None:
    """A Service that means nobody has one slice with nothing in it."""
    cluster = Cluster.load(service("web", app="nobody"))
    [found] = [line for line in lines(cluster, "endpointslices") if " web-" in line]
    assert found.endswith("IPv4 <unset> <unset>")


def test_three_addresses_are_shown_and_the_rest_is_counted() -> None:
    """As kubectl does it, for slices and for Endpoints."""
    cluster = Cluster.load(service("web"), *(pod(f"a{at}") for at in range(5)))
    [found] = [line for line in lines(cluster, "slices") if " web-" in line]
    assert found.endswith("10.244.0.2,10.244.0.3,10.244.0.4 + 2 more...")
    assert row(cluster, "endpoints", "web").endswith("10.244.0.2:8080,10.244.0.3:8080,10.244.0.4:8080 + 2 more...")


def test_endpoints_are_listed_with_their_ports() -> None:
    """Those that are ready; the API server's own among them."""
    down = "phase: Running, conditions: [{type: Ready, status: 'False'}]"
    cluster = Cluster.load(service("web"), pod("a"), pod("b", status=down), service("idle", app="nobody"))
    assert row(cluster, "ep", "web") == "default web 10.244.0.2:8080"
    assert row(cluster, "ep", "idle") == "default idle <none>"
    assert row(cluster, "ep", "kubernetes") == "default kubernetes 172.18.0.2:6443"


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        (("ep", "endpoints", "Endpoints"), "endpoints"),
        (("po", "pod", "pods", "Pod", "PODS"), "pods"),
        (("svc", "service", "services"), "services"),
        (("no", "node", "nodes"), "nodes"),
        (("endpointslice", "endpointslices", "slices", "EndpointSlice"), "endpointslices"),
        (("deploy", "deployment", "deployments"), "deployments"),
        (("sts", "statefulset"), "statefulsets"),
        (("ds", "daemonsets"), "daemonsets"),
        (("netpol", "networkpolicy", "networkpolicies"), "networkpolicies"),
        (("ing", "ingress", "ingresses"), "ingresses"),
        (("ingressclass", "ingressclasses"), "ingressclasses"),
        (("cm", "configmaps"), "configmaps"),
        (("sa", "serviceaccounts"), "serviceaccounts"),
        (("cj", "cronjob"), "cronjobs"),
        (("ns", "namespaces"), "namespaces"),
        (("secret", "secrets"), "secrets"),
    ],
)
def test_a_kind_goes_by_the_names_kubectl_takes(words: tuple[str, ...], kind: str) -> None:
    """Singular, plural, short, in any case; each lists something of the bookshop."""
    tables = [bookshop().get(word) for word in words]
    assert {table.kind for table in tables} == {kind}
    assert len(tables[0]) > 0 and len({str(table) for table in tables}) == 1


def test_a_kind_without_a_table_is_refused() -> None:
    """The message says what comes close."""
    with pytest.raises(UnknownName, match="there is no kind 'podz'; did you mean pods"):
        bookshop().get("podz")


def test_a_namespace_narrows_a_table() -> None:
    """Rows of that namespace, sorted by name; none where there is nothing."""
    names = [each.name for each in bookshop().get("services", "warehouse")]
    assert names == sorted(names) and "stock" in names and "api" not in names
    assert str(bookshop().get("services", "nowhere")) == "No resources found"


def test_rows_are_objects() -> None:
    """By number and in a loop; `repr` is the table, for a notebook's plain text."""
    table = bookshop().get("services", "warehouse")
    assert table[0] is bookshop().objects.service(f"warehouse/{table[0].name}") and len(table) == 4
    assert repr(table) == str(table)


def test_columns_stand_below_their_heads() -> None:
    """Three blanks apart, no blanks at the end."""
    head, *rest = str(bookshop().get("pods")).splitlines()
    at = head.index("STATUS")
    assert all(line[at - 1] == " " and line[at] != " " for line in rest)
    assert not any(line.endswith(" ") for line in (head, *rest))


def test_html_escapes_what_it_shows() -> None:
    """<none> is text."""
    assert "&lt;none&gt;" in bookshop().get("services")._repr_html_()


def test_a_table_is_rows_for_programs() -> None:
    """Keys are the heads, in small letters."""
    assert set(bookshop().get("services").as_dict()["rows"][0]) == {
        "namespace", "name", "type", "cluster_ip", "external_ip", "ports", "selector",
    }  # fmt: skip


def test_policies_are_listed_with_what_they_select() -> None:
    """A selector is printed as kubectl does: sorted by key, expressions in words, nothing for all pods."""
    said = (
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: a}\nspec: {podSelector: {matchLabels: "
        "{b: x}, matchExpressions: [{key: c, operator: NotIn, values: [z, x]}, {key: a, operator: In, values: [v]}, "
        "{key: d, operator: Exists}, {key: e, operator: DoesNotExist}]}}\n---\n"
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: b}\nspec: {podSelector: {}}\n---\n"
        "apiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\nmetadata: {name: c}\n"
        "spec: {tier: Admin, priority: 7, subject: {namespaces: {}}}\n"
    )
    cluster = Cluster.load(pod("a"), said)
    assert row(cluster, "netpol", "a") == "default a a in (v),b=x,c notin (x,z),d,!e"
    assert row(cluster, "networkpolicies", "b") == "default b <none>"
    assert lines(cluster, "cnp") == ["NAME TIER PRIORITY", "c Admin 7"]
