"""How load balancers bring packets to nodes: who gets them, whom the backends see, with which probability."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from k8snetlab.cluster import Cluster
from k8snetlab.compile import BALANCER, IMPLEMENTATIONS, ROUTER
from k8snetlab.errors import BadOption, Overlap
from k8snetlab.trace import Client, Trace, Verdict
from tests.shops import ZONES, pod

BOTH = {"pod_cidr": "10.244.0.0/16,fd00:10:244::/56", "service_cidr": "10.96.0.0/12,fd00:10:96::/108"}
ROUTED = [name for name, each in IMPLEMENTATIONS.items() if each.gives is not None]


def balanced(name: str, **spec: Any) -> dict[str, Any]:
    """A Service of type LoadBalancer for the pods of app `web`."""
    usual = {"type": "LoadBalancer", "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {**usual, **spec}}


def node(number: int, *labels: str) -> dict[str, Any]:
    """A node at 172.18.0.1N, with pods in 10.244.N.0/24."""
    return {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": f"n{number}", "labels": dict.fromkeys(labels, "")},
        "spec": {"podCIDR": f"10.244.{number}.0/24"},
        "status": {"addresses": [{"type": "InternalIP", "address": f"172.18.0.1{number}"}]},
    }  # fmt: skip


@cache
def cluster(load_balancer: str, **options: Any) -> Cluster:
    """Three nodes, a pod of app `web` on the first and the second, and a Service for each policy."""
    services = (balanced("wide"), balanced("local", externalTrafficPolicy="Local", healthCheckNodePort=31000))
    pods = (pod("one", app="web", node="n1"), pod("two", app="web", node="n2"), pod("client", app="client", node="n3"))
    nodes = (node(1), node(2), node(3))
    return Cluster.load(*nodes, *pods, *services, cni="bridge", load_balancer=load_balancer, **options)


def leaving(load_balancer: str) -> Cluster:
    """The same while the first pod goes away."""
    going = "labels: {app: web}, deletionTimestamp: '2026-01-01T00:00:00Z'"
    return cluster(load_balancer).applied(pod("one", node="n1").replace("labels: {app: web}", going))


def seen(trace: Trace) -> dict[tuple[str, str], float]:
    """Who takes the packet and whom he sees, with the probability."""
    return {
        (outcome.backend.pod, outcome.source_seen): round(outcome.probability, 6)
        for outcome in trace.outcomes
        if outcome.backend is not None
    }


def entered(trace: Trace) -> set[str]:
    """The nodes by which the packet comes in."""
    return {next(step.where for step in trace.steps if step.where in ("n1", "n2", "n3"))}


CLIENT = "203.0.113.10"


# Addresses


def test_nobody_gives_addresses_unless_asked_to() -> None:
    """The Service stays pending, and is reached at a node port of the first node."""
    assert "<pending>" in str(cluster("none").get("services"))
    request = cluster("none").trace("external", "svc/default/wide:80").request
    assert request.address == "172.18.0.11" and request.port >= 30000


@pytest.mark.parametrize("name", ROUTED)
def test_services_get_the_lowest_addresses_of_the_pool(name: str) -> None:
    """In the order of the manifests, without the pool's first address."""
    services = [cluster(name).objects.service(f"default/{each}") for each in ("wide", "local")]
    assert [each.load_balancer[0].ip for each in services] == ["198.51.100.1", "198.51.100.2"]


def test_a_proxy_says_that_no_rules_are_wanted() -> None:
    """`ipMode: Proxy`: kube-proxy leaves the address alone."""
    [ingress] = cluster("proxy").objects.service("default/wide").load_balancer
    assert str(ingress.ip_mode) == "Proxy"
    assert "198.51.100.1" not in cluster("proxy").node("n1").show("iptables")
    assert "198.51.100.1" in cluster("cloud").node("n1").show("iptables")


def test_a_dual_stack_service_has_an_address_of_each_family() -> None:
    """Each from the pool of its family, and both can be reached."""
    shop = Cluster.load(pod("one", app="web"), balanced("wide", ipFamilyPolicy="RequireDualStack"),
                        load_balancer="metallb-l2", **BOTH)  # fmt: skip
    [four, six] = shop.objects.service("default/wide").load_balancer
    assert (four.ip, six.ip) == ("198.51.100.1", "2001:db8:198::1")
    clients = {shop.trace("external", "svc/default/wide:80", family=of).client for of in (4, 6)}
    assert clients == {Client.OPEN}


def test_what_is_given_stays() -> None:
    """An address of the status is kept and not given twice; one that is asked for is given; another class waits."""
    given = {**balanced("given"), "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}}}
    asked, other = (
        balanced("asked", loadBalancerIP="198.51.100.9"),
        balanced("other", loadBalancerClass="example.com/x"),
    )
    shop = Cluster.load(pod("one", app="web"), balanced("first"), given, asked, other, load_balancer="cloud")
    held = {each.name: [at.ip for at in each.load_balancer] for each in shop.objects.services if each.load_balancer}
    assert held == {"first": ["198.51.100.2"], "given": ["198.51.100.1"], "asked": ["198.51.100.9"]}


def test_a_pool_that_is_used_up_leaves_services_pending() -> None:
    """A pool of four addresses gives two away."""
    services = [balanced(f"s{number}") for number in range(3)]
    shop = Cluster.load(pod("one", app="web"), *services, load_balancer="cloud", load_balancer_cidr="192.0.2.0/30")
    assert [len(shop.objects.service(f"default/s{number}").load_balancer) for number in range(3)] == [1, 1, 0]


def test_options_that_cannot_be() -> None:
    """A load balancer that nobody knows, and a pool among the pods."""
    with pytest.raises(BadOption, match="metallb-l2"):
        cluster("none").changed(load_balancer="metallb")
    with pytest.raises(Overlap, match="pod network"):
        cluster("none").changed(load_balancer="cloud", load_balancer_cidr="10.244.7.0/24")


# MetalLB in layer 2


@pytest.mark.parametrize("service", ["wide", "local"])
def test_one_node_answers_for_an_address(service: str) -> None:
    """Every packet comes in by it, and it alone answers the router's question."""
    trace = cluster("metallb-l2").trace("external", f"svc/default/{service}:80")
    ip = trace.request.address
    holders = {name for name in ("n1", "n2", "n3") for each in cluster("metallb-l2").network[name].responders
               if each.address == ip}  # fmt: skip
    assert entered(trace) == holders and len(holders) == 1


def test_the_leader_has_the_smallest_hash() -> None:
    """SHA-256 of node name, `#` and address: for 198.51.100.1 it begins with cb at n1, 01 at n2 and a5 at n3."""
    [holder] = (name for name in ("n1", "n2", "n3") if cluster("metallb-l2").network[name].answered & {
        ("eth0", "198.51.100.1")})  # fmt: skip
    assert holder == LEADER


LEADER = "n2"


def test_under_policy_local_a_node_with_an_endpoint_leads() -> None:
    """It delivers to its own pod, which sees the client."""
    trace = cluster("metallb-l2").trace("external", "svc/default/local:80")
    [(backend, source)] = seen(trace)
    assert source == CLIENT and backend in ("one", "two")
    assert trace.backend is not None and entered(trace) == {trace.backend.node}


def test_without_endpoints_nobody_answers() -> None:
    """The address is withdrawn: the router asks in vain."""
    shop = cluster("metallb-l2").deleted("Pod", "default/one").deleted("Pod", "default/two")
    trace = shop.trace("external", "svc/default/wide:80")
    assert (trace.verdict, trace.steps[-1].where) == (Verdict.UNREACHABLE, ROUTER)


def test_a_responder_can_be_taken_away() -> None:
    """What the state says is what happens: without it nobody answers."""
    shop = cluster("metallb-l2")
    responder = next(each for each in shop.network[LEADER].responders if each.address == "198.51.100.1")
    silent = shop.without(LEADER, responder)
    assert silent.trace("external", "svc/default/wide:80").verdict is Verdict.UNREACHABLE
    assert str(shop.diff(silent)) == f"{LEADER}:\n  - responder: metallb-speaker answers for 198.51.100.1 on eth0"


def test_a_pool_in_the_nodes_subnet_needs_no_route() -> None:
    """The router and the neighbours ask on the cable by themselves."""
    shop = cluster("metallb-l2", load_balancer_cidr="172.18.250.0/24")
    assert "172.18.250" not in shop.host(ROUTER).show("routes")
    for who in ("external", "external:172.18.0.100"):
        assert shop.trace(who, "svc/default/wide:80").client is Client.OPEN


# MetalLB with BGP


def test_the_router_spreads_flows_over_all_nodes() -> None:
    """Each of three nodes takes a third, and each of two backends half of that: what is seen says by which it came."""
    found = seen(cluster("metallb-bgp").trace("external", "svc/default/wide:80"))
    sources = {"one": ("10.244.1.1", "172.18.0.12", "172.18.0.13"), "two": ("172.18.0.11", "10.244.2.1", "172.18.0.13")}
    assert found == {(pod, source): round(1 / 6, 6) for pod, all_of in sources.items() for source in all_of}


def test_under_policy_local_nodes_without_endpoints_announce_nothing() -> None:
    """Two next hops, each to its own pod, and none is dropped."""
    trace = cluster("metallb-bgp").trace("external", "svc/default/local:80")
    assert seen(trace) == {("one", CLIENT): 0.5, ("two", CLIENT): 0.5}
    assert cluster("metallb-bgp").host(ROUTER).show("routes").splitlines()[-4:-1] == [
        "198.51.100.2 proto bgp metric 20",
        "\tnexthop via 172.18.0.11 dev eth0 weight 1",
        "\tnexthop via 172.18.0.12 dev eth0 weight 1",
    ]


def test_an_announcement_of_one_node_is_a_route_like_any_other() -> None:
    """No next hops in the plural."""
    alone = cluster("metallb-bgp").deleted("Pod", "default/two")
    assert "198.51.100.2 via 172.18.0.11 dev eth0 proto bgp metric 20" in alone.host(ROUTER).show("routes")


def test_the_ways_to_one_backend_are_told_apart() -> None:
    """By whom it sees."""
    told = " ".join(cluster("metallb-bgp").trace("external", "svc/default/wide:80").explain().split())
    assert "default/one (10.244.1.2), which sees 172.18.0.13, with probability 1/6, DELIVERED" in told


def test_a_flow_keeps_its_way() -> None:
    """The request of an opened connection goes where its first packet went, by ECMP and by conntrack."""
    for seed in range(8):
        assert cluster("metallb-bgp").curl("external", "http://198.51.100.1", seed=seed).ok


def test_an_endpoint_that_goes_away_is_announced_while_it_serves() -> None:
    """Its node delivers to it, as long as it has no other."""
    routes = leaving("metallb-bgp").host(ROUTER).show("routes")
    assert "198.51.100.2 proto bgp metric 20\n\tnexthop via 172.18.0.11 dev eth0 weight 1\n\tnexthop via" in routes


def test_nodes_may_be_left_out() -> None:
    """The label is for all load balancers."""
    marked = node(3, "node.kubernetes.io/exclude-from-external-load-balancers")
    shop = cluster("metallb-bgp").applied(marked)
    sources = {source for _, source in seen(shop.trace("external", "svc/default/wide:80"))}
    assert "172.18.0.13" not in sources and len(sources) == 4


# A load balancer in the network


def test_a_cloud_passes_packets_through() -> None:
    """They go by the load balancer, and a backend of policy Local still sees the client; the answer goes past it."""
    trace = cluster("cloud").trace("external", "svc/default/local:80")
    assert BALANCER in {step.where for step in trace.steps}
    assert BALANCER not in {step.where for step in trace.reply}
    assert seen(trace) == {("one", CLIENT): 0.5, ("two", CLIENT): 0.5}


def test_a_cloud_asks_for_health_under_policy_local_only() -> None:
    """One that goes away is not healthy: all goes to the other node. Under policy Cluster every node is used."""
    shop = leaving("cloud")
    assert seen(shop.trace("external", "svc/default/local:80")) == {("two", CLIENT): 1.0}
    assert len(seen(shop.trace("external", "svc/default/wide:80"))) == 3


def test_a_cloud_without_a_healthy_node_drops() -> None:
    """Nobody is there to send to, and nobody is told."""
    shop = cluster("cloud").deleted("Pod", "default/one").deleted("Pod", "default/two")
    trace = shop.trace("external", "svc/default/local:80")
    assert (trace.client, trace.steps[-1].where) == (Client.TIMEOUT, BALANCER)
    assert shop.trace("external", "svc/default/wide:80").client is Client.REFUSED


def test_a_proxy_is_who_the_backend_sees() -> None:
    """It opens a connection of its own to a node port: policy Local keeps an address, but not the client's."""
    trace = cluster("proxy").trace("external", "svc/default/local:80")
    assert seen(trace) == {("one", "172.18.255.253"): 0.5, ("two", "172.18.255.253"): 0.5}
    assert BALANCER in {step.where for step in trace.reply}


def test_pods_leave_the_cluster_for_a_proxy() -> None:
    """No rules of their node shorten the way; for a VIP they do. This CNI hides the pod outside."""
    for name, leaves in (("proxy", True), ("cloud", False)):
        shop = cluster(name).changed(cni_options={"masquerade": "on"})
        trace = shop.trace("default/client", "198.51.100.1:80")
        assert trace.client is Client.OPEN
        assert (BALANCER in {step.where for step in trace.steps}) is leaves


# Any of them


@pytest.mark.parametrize("name", ROUTED)
def test_outcomes_add_up_to_one(name: str) -> None:
    """Whoever chooses, and however often."""
    for target in ("svc/default/wide:80", "svc/default/local:80"):
        trace = cluster(name).trace("external", target)
        assert sum(outcome.probability for outcome in trace.outcomes) == pytest.approx(1.0, abs=1e-8)
        assert {outcome.client for outcome in trace.outcomes} == {Client.OPEN}


@pytest.mark.parametrize("name", ROUTED)
def test_nodes_may_stand_in_several_subnets(name: str) -> None:
    """Three zones with a switch each."""
    pods = [pod(f"web-{number}", app="web", node=f"node-{number}") for number in (1, 2, 3)]
    shop = Cluster.load(*pods, balanced("wide"), node_cidr=ZONES, cni="flannel", load_balancer=name)
    assert shop.trace("external", "svc/default/wide:80").verdict is Verdict.DELIVERED


@pytest.mark.parametrize("name", ROUTED)
def test_somebody_may_still_say_where_it_arrives(name: str) -> None:
    """`via` leads the address to a node, whoever else would have got it."""
    assert entered(cluster(name).trace("external", "svc/default/wide:80", via="n2")) == {"n2"}
