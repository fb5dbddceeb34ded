"""Policies as entries of maps, by identity."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from k8snetlab.address import Prefix
from k8snetlab.cluster import Cluster
from k8snetlab.linux.datapath import Datapath, Direction, Permit, bpf_ipcache_list, bpf_policy_list
from k8snetlab.policies.identities import prefixes, spread
from k8snetlab.policies.plan import Block
from k8snetlab.trace import Client
from tests.policies.chance import cluster as chance_cluster
from tests.policies.chance import connections, disagreements
from tests.shops import pod

WEB, DB = "default/web-0", "default/db-0"
PODS = "".join(
    pod(name, node=node, app=name[:-2]) for name, node in (("web-0", "node-1"), ("db-0", "node-2"), ("ops-0", "node-2"))
)


def policy(name: str, app: str, **spec: Any) -> dict[str, Any]:
    """A NetworkPolicy about the pods of one app."""
    return {
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, **spec},
    }  # fmt: skip


def app(name: str) -> dict[str, Any]:
    """Pods of an app as the other end of a rule."""
    return {"podSelector": {"matchLabels": {"app": name}}}


def cluster(*policies: dict[str, Any], **options: Any) -> Cluster:
    """Two nodes with Cilium: web-0 on the first, db-0 and ops-0 on the second."""
    return Cluster.load(PODS, *policies, nodes=2, cni="cilium", **options)


ONLY_WEB = policy("from-web", "db", ingress=[{"from": [app("web")], "ports": [{"port": 8080}]}])
ONLY_DB = policy("to-db", "web", policyTypes=["Egress"], egress=[{"to": [app("db")]}])


def maps(of: Cluster, node: str = "node-2") -> Datapath:
    """The maps of a node."""
    found = of.network[node].datapath
    assert found is not None
    return found


def entries(of: Cluster, name: str, direction: Direction, node: str = "node-2") -> list[str]:
    """The entries of a pod's map in a direction, as text with names for identities."""
    held = maps(of, node)
    own = held.by_address[of.objects.pod(name).ip]
    names = {each.identity: each.name for each in held.known if "/" in each.name}
    found = (each for each in held.policies[own.number] if each.direction is direction)
    return [
        f"{names.get(each.identity, held.named(each.identity)[0])} {each.ports}{' denied' if each.deny else ''}"
        for each in found
    ]


# --- agreement --------------------------------------------------------------------------------------------------------


def test_the_walk_through_the_maps_is_the_engine_s_verdict() -> None:
    """Policies by chance in both families: hundreds of connections of pods, nodes and clients."""
    denied = 0
    for seed in range(16):
        chance = Random(seed)
        held = chance_cluster(chance, "cilium")
        asked = list(connections(chance, held, 40))
        assert disagreements(held, asked) == [], f"seed {seed}"
        denied += sum(not held.allowed(*each[:4], family=each.of) for each in asked)
    assert 150 < denied < 400


def test_without_policies_nothing_is_different() -> None:
    """Each pod has the two entries that allow everything, and the cache has no block."""
    plain, policed = cluster(), cluster(ONLY_WEB)
    assert policed.without_policies().diff(plain) == plain.diff(plain)
    assert entries(plain, DB, Direction.INGRESS) == entries(plain, DB, Direction.EGRESS) == ["reserved:unknown ANY"]
    assert entries(policed, "default/ops-0", Direction.INGRESS) == ["reserved:unknown ANY"]


# --- entries ----------------------------------------------------------------------------------------------------------


def test_a_selected_pod_has_entries_for_its_node_and_for_what_is_allowed() -> None:
    """In one direction only: the other one stays open."""
    held = cluster(ONLY_WEB)
    assert entries(held, DB, Direction.INGRESS) == ["reserved:host ANY", f"{WEB} 8080/TCP"]
    assert entries(held, DB, Direction.EGRESS) == ["reserved:unknown ANY"]


def test_copies_of_a_pod_are_one_entry() -> None:
    """They have one identity."""
    more = "".join(pod(f"web-{at}", node="node-1", app="web") for at in range(1, 5))
    held = Cluster.load(PODS, more, ONLY_WEB, nodes=2, cni="cilium")
    assert len(entries(held, DB, Direction.INGRESS)) == 2


def test_a_label_that_makes_no_identity_selects_nobody() -> None:
    """The agent compares selectors with the labels of identities, and a template's hash is none."""
    by_hash = {"podSelector": {"matchLabels": {"pod-template-hash": "5d9"}}}
    copy = pod("web-1", node="node-1", app="web").replace("app: web", "app: web, pod-template-hash: 5d9")
    held = Cluster.load(PODS, copy, policy("by-hash", "db", ingress=[{"from": [by_hash]}]), nodes=2, cni="cilium")
    assert "pod-template-hash" in held.objects.pod("default/web-1").labels
    assert entries(held, DB, Direction.INGRESS) == ["reserved:host ANY"]


def test_a_range_is_a_few_prefixes() -> None:
    """8000 to 8010 is eight ports, two and one; the tool prints first and last of each."""
    held = cluster(policy("range", "db", ingress=[{"ports": [{"port": 8000, "endPort": 8010}]}]))
    assert entries(held, DB, Direction.INGRESS)[:-1] == [
        "reserved:unknown 8000-8007/TCP", "reserved:unknown 8008-8009/TCP", "reserved:unknown 8010/TCP",
    ]  # fmt: skip
    rows = [line.split() for line in bpf_policy_list(maps(held)).splitlines()]
    assert ["Allow", "Ingress", "reserved:unknown", "8000-8007/TCP", "NONE", "disabled", "0", "0", "21"] in rows


@pytest.mark.parametrize(("first", "last"), [(1, 65535), (80, 80), (1, 1), (32768, 65535), (1023, 1025), (5, 9000)])
def test_prefixes_of_ports_are_the_range_and_no_more(first: int, last: int) -> None:
    """Each port once."""
    covered = [
        port for start, bits in spread(first, last) for port in range(start, start + (1 << (16 - bits)))
    ]  # fmt: skip
    assert covered == list(range(first, last + 1))
    permits = [Permit(1, Direction.INGRESS, 0, "TCP", port, port_bits=bits) for port, bits in spread(first, last)]
    for port in (first - 1, first, last, last + 1):
        if 0 < port < 65536:
            inside = any(each.covers(Direction.INGRESS, 9, "TCP", port) for each in permits)
            assert inside is (first <= port <= last)


def test_a_protocol_alone_is_an_entry_of_eight_bits() -> None:
    """Its ports do not count."""
    held = cluster(policy("udp", "db", ingress=[{"ports": [{"protocol": "UDP"}]}]))
    assert entries(held, DB, Direction.INGRESS)[0] == "reserved:unknown UDP"


def named(number: int, name: str) -> str:
    """A pod with a port of that number called shop."""
    made = pod(name, node="node-2", app=name[:-2]).replace("containerPort: 8080", f"containerPort: {number}")
    return made.replace("name: http", "name: shop")


def test_a_name_in_ingress_is_the_pods_own_number() -> None:
    """Others may call other numbers so."""
    allowed = policy("by-name", "api", ingress=[{"ports": [{"port": "shop"}]}])
    held = Cluster.load(PODS, named(81, "api-0"), named(82, "cart-0"), allowed, nodes=2, cni="cilium")
    assert entries(held, "default/api-0", Direction.INGRESS)[0] == "reserved:unknown 81/TCP"


def test_each_container_of_a_pod_has_names() -> None:
    """And a name that no container has is nothing."""
    both = pod("api-0", node="node-2", app="api").replace(
        "containerPort: 8080}", "containerPort: 8080}, {name: metrics, containerPort: 9090}"
    )
    allowed = policy("by-name", "api", ingress=[{"ports": [{"port": "metrics"}, {"port": "nobody"}]}])
    held = Cluster.load(PODS, both, allowed, nodes=2, cni="cilium")
    assert entries(held, "default/api-0", Direction.INGRESS) == ["reserved:unknown 9090/TCP", "reserved:host ANY"]


def test_a_name_in_egress_is_one_number_for_the_whole_cluster() -> None:
    """Where pods disagree about it, it means nothing: not even at pods that the rule does not mean."""
    rule = {"to": [app("api")], "ports": [{"port": "shop"}]}
    allowed = policy("by-name", "web", policyTypes=["Egress"], egress=[rule])
    one = Cluster.load(PODS, named(81, "api-0"), allowed, nodes=2, cni="cilium")
    assert entries(one, WEB, Direction.EGRESS, "node-1") == ["default/api-0 81/TCP"]
    two = Cluster.load(PODS, named(81, "api-0"), named(82, "cart-0"), allowed, nodes=2, cni="cilium")
    assert entries(two, WEB, Direction.EGRESS, "node-1") == []


def test_cluster_wide_policies_are_not_read() -> None:
    """Cilium does from 1.20 on."""
    deny = {
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": "deny"},
        "spec": {
            "tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
            "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}],
        },
    }  # fmt: skip
    assert entries(cluster(deny), DB, Direction.INGRESS) == ["reserved:unknown ANY"]


# --- blocks -----------------------------------------------------------------------------------------------------------


def to_block(cidr: str, *holes: str) -> dict[str, Any]:
    """A policy that lets web reach a block."""
    block = {"cidr": cidr, "except": list(holes)}
    return policy("to-block", "web", policyTypes=["Egress"], egress=[{"to": [{"ipBlock": block}]}])


def test_a_block_has_an_identity_that_only_nodes_know() -> None:
    """From 16777217 on, for each prefix that is left of the block."""
    held = cluster(to_block("203.0.113.0/24", "203.0.113.128/26"))
    assert entries(held, WEB, Direction.EGRESS, "node-1") == ["cidr:203.0.113.0/25 ANY", "cidr:203.0.113.192/26 ANY"]
    listed = bpf_ipcache_list(maps(held, "node-1"))
    assert "203.0.113.192/26    identity=16777218 encryptkey=0 tunnelendpoint=0.0.0.0 flags=<none>" in listed
    assert maps(held, "node-1").named(16777218) == ("cidr:203.0.113.192/26", "reserved:world")


@pytest.mark.parametrize(
    ("block", "holes", "left"),
    [
        ("10.0.0.0/8", (), ["10.0.0.0/8"]),
        ("10.0.0.0/30", ("10.0.0.1/32",), ["10.0.0.0/32", "10.0.0.2/31"]),
        ("10.0.0.0/30", ("10.0.0.0/31", "10.0.0.2/31"), []),
        ("::/0", ("8000::/1",), ["::/1"]),
        ("10.0.0.0/30", ("192.0.2.0/24",), ["10.0.0.0/30"]),
    ],
)
def test_a_block_less_its_exceptions_is_a_few_prefixes(block: str, holes: tuple[str, ...], left: list[str]) -> None:
    """As few as can be."""
    found = prefixes(Block(prefix=Prefix.of(block), holes=tuple(map(Prefix.of, holes))))
    assert list(map(str, found)) == left


def test_everywhere_is_the_world_and_its_blocks() -> None:
    """Neither pods nor nodes; a block that another policy says is a part of it."""
    other = policy("other", "ops", ingress=[{"from": [{"ipBlock": {"cidr": "203.0.113.0/24"}}]}])
    held = cluster(to_block("0.0.0.0/0"), other)
    assert entries(held, WEB, Direction.EGRESS, "node-1") == ["reserved:world ANY", "cidr:203.0.113.0/24 ANY"]
    assert held.trace(WEB, "203.0.113.10:80").client is Client.OPEN
    assert held.trace(WEB, f"{DB}:8080").client is Client.TIMEOUT


def test_a_block_that_is_a_pod_or_a_node_means_nobody() -> None:
    """Their own entries are in the cache already, and keep their identities."""
    pods_own, nodes_own = (f"{ip}/32" for ip in (cluster().objects.pod(DB).ip, "172.18.0.12"))
    for block in (pods_own, nodes_own):
        held = cluster(to_block(block))
        assert entries(held, WEB, Direction.EGRESS, "node-1") == []
        assert maps(held, "node-1").known == maps(cluster(), "node-1").known


def test_a_block_that_is_a_nodes_pod_network_leads_where_it_did() -> None:
    """Its entry in the cache is there already, with the tunnel's other end."""
    block = cluster().objects.node("node-2").pod_cidrs[0]
    before = next(each for each in maps(cluster(), "node-1").known if each.prefix == block)
    after = next(each for each in maps(cluster(to_block(block)), "node-1").known if each.prefix == block)
    assert (after.identity, after.tunnel) == (16777217, before.tunnel)


# --- the walk ---------------------------------------------------------------------------------------------------------


def test_the_drop_names_the_policies_that_select_the_pod() -> None:
    """At the node of the receiver, and Hubble tells it twice."""
    held = cluster(ONLY_WEB)
    trace = held.trace("default/ops-0", f"{DB}:8080")
    assert trace.client is Client.TIMEOUT and trace.steps[-1].where == "node-2"
    assert trace.reason.endswith("it is selected by NetworkPolicy default/from-web (Policy denied)")
    said = [f"{each.point} {each.verdict}" for each in held.hubble(trace)]
    assert said == ["policy-verdict:none INGRESS DENIED", "Policy denied DROPPED"]


def test_what_is_allowed_names_the_policy_that_does() -> None:
    """By identity and port."""
    held = cluster(ONLY_WEB)
    trace = held.trace(WEB, f"{DB}:8080")
    assert trace.client is Client.OPEN
    assert any(step.why.endswith("is allowed by NetworkPolicy default/from-web") for step in trace.steps)
    assert "policy-verdict:L3-L4 INGRESS ALLOWED" in {f"{each.point} {each.verdict}" for each in held.hubble(trace)}


def test_the_own_node_comes_in_and_another_does_not() -> None:
    """As kubelet must."""
    held = cluster(ONLY_WEB)
    assert held.trace("node/node-2", f"{DB}:9").client is not Client.TIMEOUT
    assert held.trace("node/node-1", f"{DB}:9").client is Client.TIMEOUT


def test_egress_is_judged_on_the_senders_node_and_behind_a_service_on_the_backend() -> None:
    """The Service's own address is no pod's, and no rule is needed for it."""
    service = (
        "---\napiVersion: v1\nkind: Service\nmetadata: {name: db}\n"
        "spec: {selector: {app: db}, ports: [{port: 5432, targetPort: 8080}]}\n"
    )
    held = Cluster.load(PODS, service, ONLY_DB, nodes=2, cni="cilium", proxy="ebpf")
    assert held.trace(WEB, "svc/default/db:5432").client is Client.OPEN
    lost = held.trace(WEB, "default/ops-0:8080")
    assert (lost.client, lost.steps[-1].where) == (Client.TIMEOUT, "node-1")


def test_an_open_connection_ends_with_the_policy_that_allowed_it() -> None:
    """Every packet that goes the way of the first is judged; only answers are not. (Rules that go by conntrack let it
    go on.)
    """
    open_to_all, closed = cluster(), cluster(policy("closed", "db", ingress=[]))
    session = open_to_all.session()
    opened = session.trace(WEB, f"{DB}:8080")
    assert session.again(opened).client is Client.OPEN
    session.become(closed)
    assert session.again(opened).reason.endswith("it is selected by NetworkPolicy default/closed (Policy denied)")


def test_answers_are_not_judged() -> None:
    """A pod that may reach nobody still answers, and is told of errors."""
    quiet = cluster(policy("quiet", "db", policyTypes=["Egress"], egress=[]))
    assert quiet.trace(WEB, f"{DB}:8080").client is Client.OPEN
    assert quiet.trace(DB, f"{WEB}:8080").client is Client.TIMEOUT
    assert cluster(ONLY_DB).trace(WEB, f"{DB}:9/UDP").client is Client.REFUSED


# --- faults -----------------------------------------------------------------------------------------------------------


def forgotten(held: Cluster, name: str) -> Cluster:
    """The cluster in which node-1's cache lost the entry of a pod."""
    entry = next(each for each in maps(held, "node-1").known if each.name == name)
    return held.without("node-1", entry)


def test_a_pod_that_the_cache_forgot_is_the_world() -> None:
    """A rule that means it by its labels no longer does, though the packet would find its way."""
    assert cluster(ONLY_DB).trace(WEB, f"{DB}:8080").client is Client.OPEN
    lost = forgotten(cluster(ONLY_DB), DB).trace(WEB, f"{DB}:8080")
    assert "to identity 2 (reserved:world) is not allowed" in lost.reason


def test_a_pod_that_the_cache_forgot_is_reached_by_who_may_reach_the_world() -> None:
    """The opposite mistake: `0.0.0.0/0` means no pod, until the cache forgets one."""
    held = cluster(to_block("0.0.0.0/0"))
    assert held.trace(WEB, f"{DB}:8080").client is Client.TIMEOUT
    assert forgotten(held, DB).trace(WEB, f"{DB}:8080").client is Client.OPEN


def test_the_receiver_believes_the_tunnel_and_not_its_cache() -> None:
    """So a sender that it forgot still comes in."""
    held = cluster(ONLY_WEB)
    entry = next(each for each in maps(held).known if each.name == WEB)
    assert held.without("node-2", entry).trace(WEB, f"{DB}:8080").client is Client.OPEN


def test_without_a_tunnel_the_receiver_asks_its_cache() -> None:
    """There a sender that it forgot is nobody."""
    held = cluster(ONLY_WEB, cni_options={"mode": "native"})
    assert held.trace(WEB, f"{DB}:8080").client is Client.OPEN
    entry = next(each for each in maps(held).known if each.name == WEB)
    assert "from identity 2 (reserved:world)" in held.without("node-2", entry).trace(WEB, f"{DB}:8080").reason
