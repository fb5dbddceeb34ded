"""Lookups that walk the network."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from k8snetlab.cluster import Cluster
from k8snetlab.dns import Question, Status, answered
from k8snetlab.errors import BadOption, ManifestError, UnknownName
from k8snetlab.flows.resolution import Rung, world_corefile
from k8snetlab.trace import Action, Verdict
from tests.shops import bookshop

DENY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: shop}
spec: {podSelector: {}, policyTypes: [Egress]}
"""

NOBODY = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: coredns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  replicas: 0
  selector: {matchLabels: {k8s-app: kube-dns}}
  template:
    metadata: {labels: {k8s-app: kube-dns}}
    spec: {containers: [{name: coredns, image: coredns}]}
"""


def corefile(text: str) -> str:
    """The ConfigMap of CoreDNS with a Corefile."""
    lines = "\n".join(f"    {line}" for line in text.splitlines())
    head = "kind: ConfigMap\napiVersion: v1\nmetadata: {name: coredns, namespace: kube-system}\ndata:\n  Corefile: |\n"
    return f"{head}{lines}\n"


@cache
def cached() -> Cluster:
    """The bookshop with NodeLocal DNSCache."""
    return bookshop().changed(dns="node-local")


def asked(rungs: tuple[Rung, ...]) -> list[str]:
    """NAME TYPE and the outcome of each question."""
    return [f"{each.query.name} {each.query.type} {each.said}" for each in rungs]


def test_a_name_of_the_own_namespace_costs_two_questions() -> None:
    """A and AAAA of the first name on the search list, answered by a CoreDNS pod behind the Service."""
    found = bookshop().resolve("shop/web-0", "api")
    assert found and found.addresses == bookshop().objects.service("shop/api").cluster_ips
    assert asked(found.rungs) == [
        "api.shop.svc.cluster.local. A NOERROR",
        "api.shop.svc.cluster.local. AAAA NODATA",
    ]
    coredns = bookshop().objects.pods_of("deploy/kube-system/coredns")
    assert {each.answered_by for each in found.rungs} <= {pod.key for pod in coredns}
    assert found.seconds == 0


def test_each_question_is_a_packet_with_a_way_and_an_answer() -> None:
    """Translated by kube-proxy's rules to the pod that answers, and the answer back."""
    rung = bookshop().resolve("shop/web-0", "api", type="A").rungs[0]
    assert rung.trace.fate is Verdict.DELIVERED
    assert Action.DNAT in {step.action for step in rung.trace.steps}
    assert rung.trace.backend is not None and rung.trace.backend.port == 53
    sizes = [steps[-1].packet.innermost.payload for steps in (rung.trace.steps, rung.trace.reply)]
    assert [len(payload) for payload in sizes] == [12 + 28 + 4, 12 + 28 + 4 + 28 + 14]


def test_a_pair_leaves_by_one_port_and_reaches_one_pod() -> None:
    """Conntrack knows the second question; the next name is drawn anew."""
    rungs = bookshop().resolve("shop/web-0", "nosuch").rungs
    pairs = [(a.answered_by, b.answered_by) for a, b in zip(rungs[::2], rungs[1::2], strict=True)]
    assert all(a == b for a, b in pairs)
    assert len(set(pairs)) == 2


def test_a_name_of_the_world_is_asked_for_outside_at_last() -> None:
    """Eight questions of the program, and two of CoreDNS."""
    found = bookshop().resolve("shop/web-0", "www.example.com")
    assert (found.count, found.found.name) == (8, "www.example.com.")
    beyond = [(each.host, each.query.server, each.said) for rung in found.rungs for each in rung.beyond]
    assert [(server, said) for _, server, said in beyond] == [("203.0.113.10", "NOERROR")] * 2
    assert {host for host, _, _ in beyond} <= {each.answered_by for each in found.rungs}


def test_names_of_the_world_can_be_given() -> None:
    """Addresses of both families; what is not given does not exist."""
    world = bookshop().changed(world={"db.example.org": "198.51.100.7,2001:db8::7"})
    assert world.resolve("node/node-1", "db.example.org").addresses == ("198.51.100.7", "2001:db8::7")
    assert world.resolve("external", "xdb.example.org").status is Status.NXDOMAIN
    with pytest.raises(BadOption, match="world: db: 'ten' does not"):
        bookshop().changed(world={"db": "ten"}).resolve("external", "db")
    with pytest.raises(BadOption, match="empty label"):
        world_corefile({"a..b": "198.51.100.7"})


@pytest.mark.parametrize(
    ("who", "name", "options", "status", "count"),
    [
        ("shop/web-0", "api.shop", {}, Status.FOUND, 4),
        ("shop/web-0", "api.shop.svc.cluster.local.", {}, Status.FOUND, 2),
        ("shop/web-0", "nosuch", {}, Status.NXDOMAIN, 8),
        ("shop/web-0", "nosuch", {"libc": "musl", "type": "A"}, Status.NXDOMAIN, 4),
        ("shop/web-0", "api", {"type": "AAAA"}, Status.NODATA, 4),
        ("shop/web-0", "10.96.0.10", {"type": "PTR"}, Status.FOUND, 1),
        ("shop/web-0", "_http._tcp.api.shop.svc.cluster.local", {"type": "SRV"}, Status.FOUND, 1),
        ("shop/web-0", "10.1.2.3", {}, Status.FOUND, 0),
        ("shop/web-0", "web-0", {}, Status.FOUND, 0),
        ("shop/web-0", "localhost", {}, Status.FOUND, 0),
        ("node/node-1", "api", {}, Status.NXDOMAIN, 2),
        ("external", "api.shop.svc.cluster.local", {}, Status.NXDOMAIN, 2),
    ],
)
def test_what_is_told_and_what_it_costs(
    who: str, name: str, options: dict[str, Any], status: Status, count: int
) -> None:
    """The end of a lookup, and how many questions it took."""
    found = bookshop().resolve(who, name, **options)
    assert (found.status, found.count) == (status, count)


def test_a_policy_that_denies_egress_breaks_dns_where_it_stands() -> None:
    """On the pod's own node, named; after twenty seconds the program gives up."""
    found = bookshop("calico").applied(DENY).resolve("shop/web-0", "api")
    assert (found.status, found.count, found.seconds) == (Status.TRY_AGAIN, 8, 20.0)
    assert found.lost is not None
    assert found.lost.trace.fate is Verdict.DROPPED
    assert found.lost.trace.steps[-1].where == bookshop("calico").objects.pod("shop/web-0").node_name
    assert "NetworkPolicy shop/deny" in found.lost.reason
    assert "TIMEOUT after 5 s" in str(found) and "nothing (" in found.explain()


def test_the_cache_on_the_node_must_be_allowed_too() -> None:
    """Felix's rules stand before those of NodeLocal DNSCache: its address is one like any other."""
    shop = bookshop("calico").changed(dns="node-local").applied(DENY)
    found = shop.resolve("shop/web-0", "api", type="A")
    assert found.lost is not None and "NetworkPolicy shop/deny" in found.lost.reason
    allowed = DENY.replace("policyTypes", "egress: [{to: [{ipBlock: {cidr: 169.254.20.10/32}}]}], policyTypes")
    assert shop.applied(allowed).resolve("shop/web-0", "api")


def test_without_coredns_the_port_is_closed() -> None:
    """The reject ends glibc's search at once; musl does not hear of it."""
    nobody = bookshop().applied(NOBODY)
    found = nobody.resolve("shop/web-0", "api", type="A")
    assert (asked(found.rungs), found.seconds) == (["api.shop.svc.cluster.local. A REFUSED"] * 2, 0.0)
    waiting = nobody.resolve("shop/web-0", "api", type="A", libc="musl")
    assert (asked(waiting.rungs), waiting.seconds) == (["api.shop.svc.cluster.local. A TIMEOUT"] * 2, 5.0)


def test_without_its_service_the_address_is_nobodys() -> None:
    """The kubelets still write it into every file."""
    gone = Cluster.load(
        "kind: Node\napiVersion: v1\nmetadata: {name: one}\n"
        "status: {addresses: [{type: InternalIP, address: 172.18.0.2}]}\n---\n"
        "kind: Pod\napiVersion: v1\nmetadata: {name: a, namespace: x}\nspec: {nodeName: one, containers: [{name: a}]}"
    )
    found = gone.resolve("x/a", "b")
    assert found.resolv_conf.nameservers == ("10.96.0.10",)
    assert {each.said for each in found.rungs} == {"TIMEOUT"}


def test_a_program_that_is_no_name_server_does_not_answer() -> None:
    """The packet arrives, and nothing comes back."""
    other = """
kind: Pod
apiVersion: v1
metadata: {name: a, namespace: x, annotations: {k8snetlab.io/listen: "53/UDP"}}
spec: {dnsPolicy: None, dnsConfig: {nameservers: [127.0.0.1]}, containers: [{name: a, image: a}]}
"""
    found = Cluster.load(other.replace("dnsPolicy: None", 'dnsPolicy: "None"')).resolve("x/a", "b", type="A")
    assert "is no name server" in found.rungs[0].reason


def test_a_cache_on_every_node_asks_by_tcp_and_remembers() -> None:
    """The question stays on the node; the second one is answered at once, until its time is over."""
    session = cached().session()
    first, again = (session.resolve("shop/web-0", "api", type="A") for _ in range(2))
    assert first.resolv_conf.nameservers == ("169.254.20.10",)
    (rung,) = first.rungs
    node = cached().objects.pod("shop/web-0").node_name
    assert {step.where for step in rung.trace.steps} == {"shop/web-0", node}
    assert [(each.query.transport, each.query.server) for each in rung.beyond] == [("TCP", "10.96.0.10")]
    assert again.addresses == first.addresses and not again.rungs[0].beyond
    session.advance(31)
    assert session.resolve("shop/web-0", "api", type="A").rungs[0].beyond


def test_the_cache_is_part_of_the_machine() -> None:
    """Its device, its listener and the rules that keep its packets from conntrack can be looked at."""
    node = cached().node("node-1")
    assert "nodelocaldns" in node.show("addresses") and "169.254.20.10/32" in node.show("addresses")
    assert "-d 169.254.20.10/32 -p udp -m udp --dport 53" in node.show("iptables")
    with pytest.raises(BadOption, match="IPv6 only"):
        bookshop(families="IPv6").changed(dns="node-local")
    with pytest.raises(BadOption, match="there are cluster, node-local"):
        bookshop().changed(dns="unbound")


def test_a_corefile_of_the_input_is_the_one_that_counts() -> None:
    """Here it knows a name that nobody else does; one that CoreDNS cannot start with is an error with its line."""
    text = ".:53 {\n hosts {\n 192.0.2.5 printer.office\n fallthrough\n }\n kubernetes cluster.local\n}"
    shop = bookshop().applied(corefile(text))
    assert shop.resolve("shop/web-0", "printer.office.").addresses == ("192.0.2.5",)
    with pytest.raises(ManifestError, match=r"ConfigMap kube-system/coredns:2: .*no plugin 'kubernets'"):
        bookshop().applied(corefile(".:53 {\n kubernets cluster.local\n}")).resolve("shop/web-0", "api")
    with pytest.raises(ManifestError, match=r":2: .*Loop"):
        bookshop().applied(corefile(".:53 {\n forward . 10.96.0.10\n loop\n}")).resolve("shop/web-0", "api")


def test_name_servers_that_ask_in_a_circle_end() -> None:
    """Without `loop`, a Corefile that forwards to its own Service answers nothing."""
    shop = bookshop().applied(corefile(".:53 {\n forward . 10.96.0.10\n}"))
    found = shop.resolve("shop/web-0", "api.", type="A")
    assert found.status is Status.TRY_AGAIN
    assert found.seconds == 20.0 or found.rungs[0].said in ("SERVFAIL", "TIMEOUT")


def test_many_endpoints_are_asked_for_by_tcp() -> None:
    """An answer of more than 512 bytes is cut, and the whole of it fetched."""
    many = """
kind: Service
apiVersion: v1
metadata: {name: many, namespace: x}
spec: {clusterIP: None, selector: {app: many}}
---
kind: Deployment
apiVersion: apps/v1
metadata: {name: many, namespace: x}
spec:
  replicas: 40
  selector: {matchLabels: {app: many}}
  template: {metadata: {labels: {app: many}}, spec: {containers: [{name: c, image: c}]}}
"""
    cluster = Cluster.load(many)
    found = cluster.resolve(cluster.objects.pods_of("deploy/x/many")[0].key, "many", type="A")
    assert [(each.query.transport, len(each.answers)) for each in found.rungs] == [("UDP", 29), ("TCP", 40)]
    assert len(found.addresses) == 40


@pytest.mark.parametrize("network", ["bridge", "calico-bgp", "cilium", "cilium-alone"])
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_names_are_found_on_every_network(network: str, family: str) -> None:
    """Bridges, routes, programs; both families."""
    shop = bookshop(network, family)
    assert shop.resolve("shop/web-0", "api").addresses == shop.objects.service("shop/api").cluster_ips
    outside = shop.resolve("shop/web-0", "www.example.com.")
    assert bool(outside) is (network != "bridge")  # a plain bridge does not masquerade: no answer finds back


@pytest.mark.parametrize(
    ("who", "name", "options", "error", "why"),
    [
        ("shop/nobody", "api", {}, UnknownName, "no pod"),
        ("shop/web-0", "a..b", {}, BadOption, "empty label"),
        ("shop/web-0", "a" * 64, {}, BadOption, "63 may be"),
        ("shop/web-0", "api", {"type": "WKS"}, BadOption, "no record type 'WKS'"),
        ("shop/web-0", "api", {"libc": "bionic"}, BadOption, "there are glibc, musl"),
    ],
)
def test_what_cannot_be_asked_is_an_error(
    who: str, name: str, options: dict[str, Any], error: type[Exception], why: str
) -> None:
    """Who is not there, what is no name, types and libraries that are not modelled."""
    with pytest.raises(error, match=why):
        bookshop().resolve(who, name, **options)


def test_the_zone_can_be_listed_and_asked() -> None:
    """The records of the cluster's Corefile, and a server that answers with them."""
    records = bookshop().records()
    api = next(each for each in records if each.name == "api.shop.svc.cluster.local." and each.type == "A")
    message = answered(bookshop().name_server(), Question("api.shop.svc.cluster.local.", "A"))
    assert message.answers == (api,) and api.ttl == 30
    assert bookshop().applied(NOBODY).records()


def test_a_session_has_the_cables_it_began_with() -> None:
    """A client that stands elsewhere needs other cables."""
    with pytest.raises(BadOption, match="cables it began with"):
        bookshop().session().resolve("external:198.18.0.1", "api")
