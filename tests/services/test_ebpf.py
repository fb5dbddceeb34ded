"""What Cilium's agent makes of Services: frontends, their numbers, flags and backends, and where programs stand."""

from __future__ import annotations

from typing import Any

import pytest

from k8snetlab.address import Prefix
from k8snetlab.api import TrafficPolicy
from k8snetlab.cluster import Cluster, example
from k8snetlab.linux.ebpf import Backend as Slot
from k8snetlab.linux.ebpf import Entry, Frontend, Identity, Key, Program, Scope
from k8snetlab.services.ebpf import frontends, identities
from k8snetlab.services.endpoints import Backend
from k8snetlab.services.exposure import Exposure
from k8snetlab.trace import Action, Client

LOCAL = TrafficPolicy.LOCAL
NODE, NODE6 = "172.18.0.11", "fd00:172::11"
HERE = Backend("10.244.1.2", 8080, "n1")
THERE = Backend("10.244.2.2", 8080, "n2")


def api(*backends: Backend, **facts: Any) -> Exposure:
    """The port 80 of Service shop/api with these backends."""
    usual = {"service": "api", "protocol": "TCP", "cluster_ip": "10.96.0.7"}
    return Exposure(namespace="shop", name="", port=80, backends=backends, **{**usual, **facts})


def printed(*ports: Exposure, of: int = 4, addresses: tuple[str, ...] = (NODE,)) -> list[str]:
    """Every frontend of node n1 and its backends, a line each."""
    held = frontends({of: ports}, node="n1", zone="", addresses=addresses)
    return [f"{Entry(found).service} {Entry(found).value}: {_where(found)}" for found in held.values()]


def _where(found: Frontend) -> str:
    return " ".join("here" if backend.here else "there" for backend in found.backends)


@pytest.mark.parametrize(
    ("port", "lines"),
    [
        (
            api(HERE, THERE),
            ["10.96.0.7:80/TCP (0) 0.0.0.0:0 (1) (0) [ClusterIP, non-routable]: here there"],
        ),
        (api(), ["10.96.0.7:80/TCP (0) 0.0.0.0:0 (1) (0) [ClusterIP, non-routable]: "]),
        (
            api(HERE, THERE, internal=LOCAL),
            ["10.96.0.7:80/TCP (0) 0.0.0.0:0 (1) (0) [ClusterIP, InternalLocal, non-routable]: here"],
        ),
        (
            api(THERE, internal=LOCAL),
            ["10.96.0.7:80/TCP (0) 0.0.0.0:0 (1) (0) [ClusterIP, InternalLocal, non-routable]: "],
        ),
        (
            api(HERE, affinity=60),
            ["10.96.0.7:80/TCP (0) 0.0.0.0:0 (1) (0) [ClusterIP, sessionAffinity, non-routable]: here"],
        ),
        (
            api(THERE, node_port=30080),
            [
                "10.96.0.7:80/TCP (0) 0.0.0.0:0 (1) (0) [ClusterIP, non-routable]: there",
                "0.0.0.0:30080/TCP (0) 0.0.0.0:0 (2) (0) [NodePort, non-routable]: there",
                "172.18.0.11:30080/TCP (0) 0.0.0.0:0 (3) (0) [NodePort]: there",
            ],
        ),
        (
            api(HERE, THERE, node_port=30080, external=LOCAL),
            [
                "10.96.0.7:80/TCP (0) 0.0.0.0:0 (1) (0) [ClusterIP, Local, non-routable]: here there",
                "0.0.0.0:30080/TCP (0) 0.0.0.0:0 (2) (0) [NodePort, Local, two-scopes, non-routable]: here",
                "0.0.0.0:30080/TCP/i (0) 0.0.0.0:0 (3) (0) [NodePort, Local, two-scopes, non-routable]: here there",
                "172.18.0.11:30080/TCP (0) 0.0.0.0:0 (4) (0) [NodePort, Local, two-scopes]: here",
                "172.18.0.11:30080/TCP/i (0) 0.0.0.0:0 (5) (0) [NodePort, Local, two-scopes]: here there",
            ],
        ),
        (
            api(HERE, external_ips=("192.0.2.5",), load_balancer_ips=("198.51.100.1",),
                source_ranges=(Prefix.of("203.0.113.0/24"),)),
            [
                "10.96.0.7:80/TCP (0) 0.0.0.0:0 (1) (0) [ClusterIP, non-routable]: here",
                "192.0.2.5:80/TCP (0) 0.0.0.0:0 (2) (0) [ExternalIPs]: here",
                "198.51.100.1:80/TCP (0) 0.0.0.0:0 (3) (0) [LoadBalancer, check source-range]: here",
            ],
        ),
    ],
    ids=["plain", "no endpoints", "near", "near elsewhere", "affinity", "node port", "two scopes", "from outside"],
)  # fmt: skip
def test_a_service_port_becomes_frontends(port: Exposure, lines: list[str]) -> None:
    """Every way to it is one, numbered in order, with its flags and the backends of its policy."""
    assert printed(port) == lines


def test_both_policies_local_have_one_scope() -> None:
    """Where inside and outside follow the same policy, one entry does for both."""
    held = frontends(
        {4: (api(HERE, THERE, node_port=30080, internal=LOCAL, external=LOCAL),)}, node="n1", zone="", addresses=(NODE,)
    )
    assert {key.scope for key in held} == {Scope.EXTERNAL}
    assert held[Key(NODE, 30080, "TCP")].backends == (Slot("10.244.1.2", 8080, here=True),)


def test_each_family_has_its_own_node_addresses() -> None:
    """IPv6 node ports stand at the node's IPv6 address and at ::."""
    port = api(Backend("fd00::2", 8080, "n1"), cluster_ip="fd00:10:96::7", node_port=30080)
    assert [line.partition(" ")[0] for line in printed(port, of=6, addresses=(NODE, NODE6))] == [
        "[fd00:10:96::7]:80/TCP", "[::]:30080/TCP", f"[{NODE6}]:30080/TCP",
    ]  # fmt: skip


def test_frontends_are_made_when_they_are_looked_up() -> None:
    """Ten thousand Services cost a node no more than their keys until somebody asks for one."""
    ports = tuple(api(HERE, cluster_ip=f"10.97.{n // 250}.{n % 250}") for n in range(1000))
    held = frontends({4: ports}, node="n1", zone="", addresses=(NODE,))
    assert len(held) == 1000
    assert held[Key("10.97.0.3", 80, "TCP")].number == 4


def test_the_first_who_claims_an_address_keeps_it() -> None:
    """Two Services with one external address and port: the second has no frontend there."""
    held = frontends(
        {4: (api(HERE, external_ips=("192.0.2.5",)), api(THERE, cluster_ip="10.96.0.8", external_ips=("192.0.2.5",)))},
        node="n1", zone="", addresses=(NODE,),
    )  # fmt: skip
    assert held[Key("192.0.2.5", 80, "TCP")].backends[0].ip == HERE.ip and len(held) == 3


def test_addresses_of_nodes_are_known() -> None:
    """A node's own are its own, the others remote."""
    known = identities((NODE,), (NODE, "172.18.0.12"))
    assert known == {NODE: Identity.HOST, "172.18.0.12": Identity.REMOTE}


@pytest.fixture(scope="module")
def shop() -> Cluster:
    """The bookshop without kube-proxy."""
    return example("bookshop", proxy="ebpf")


def test_programs_stand_at_the_cgroup_and_at_devices(shop: Cluster) -> None:
    """At the node's card those for the outside, at the pods' cables those for containers."""
    ebpf = shop.network["node-1"].ebpf
    assert ebpf is not None
    assert ebpf.ingress["eth0"] is Program.FROM_OUTSIDE and ebpf.egress["eth0"] is Program.TO_OUTSIDE
    veths = {device for device, program in ebpf.ingress.items() if program is Program.FROM_CONTAINER}
    assert len(veths) == len(shop.layout.workloads["node-1"]) and len(ebpf.programs) == 8


def test_a_pod_has_the_programs_and_maps_of_its_node(shop: Cluster) -> None:
    """The same entries, for the cgroup alone."""
    pod, node = shop.network["shop/web-0"].ebpf, shop.network["node-3"].ebpf
    assert pod is not None and node is not None
    assert (pod.machine, pod.services, pod.programs) == ("node-3", node.services, node.programs)
    assert not pod.ingress and not pod.egress


def test_no_rule_of_kube_proxy_is_written(shop: Cluster) -> None:
    """Netfilter is the CNI's alone, and loopback addresses stay inside."""
    assert "KUBE-" not in shop.node("node-1").show("iptables")
    assert shop.network["node-1"].sysctl("net.ipv4.conf.all.route_localnet") == 0


def test_a_pod_sends_to_the_backend_itself(shop: Cluster) -> None:
    """No node on the way translates anything: connect() was the only place."""
    found = shop.trace("shop/web-0", "svc/shop/api:80")
    translated = [step for step in (*found.steps, *found.reply) if step.action in (Action.DNAT, Action.SNAT)]
    assert [step.where for step in translated] == ["shop/web-0"]
    assert found.client is Client.OPEN and "cil_sock4_connect" in found.explain()


def test_a_session_sticks_per_namespace(shop: Cluster) -> None:
    """Two pods may be led to two backends; each keeps its own until the time-out has passed."""
    text = """
    apiVersion: v1
    kind: Service
    metadata: {name: sticky, namespace: shop}
    spec:
      selector: {app.kubernetes.io/name: api}
      ports: [{port: 80, targetPort: 8080}]
      sessionAffinity: ClientIP
      sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}
    """
    session = shop.applied(text).session(seed=3)
    chosen = [session.trace("shop/web-0", "svc/shop/sticky:80").backend for _ in range(6)]
    assert len({each.name for each in chosen if each}) == 1
    later = set()
    for _ in range(20):
        session.advance(60)
        backend = session.trace("shop/web-0", "svc/shop/sticky:80").backend
        later.add(backend.name if backend else "")
    assert len(later) == 3


def test_a_change_of_mode_is_a_difference(shop: Cluster) -> None:
    """Rules go, programs and entries come; the entries are told of nodes, whose maps they are in."""
    found = [change for change in shop.changed(proxy="iptables").diff(shop).changes if change.kind == "bpf"]
    assert {change.host for change in found if "cgroup/connect4" in change.text} >= {"node-1", "shop/web-0"}
    assert {change.host for change in found if "[ClusterIP" in change.text} == {"node-1", "node-2", "node-3"}
