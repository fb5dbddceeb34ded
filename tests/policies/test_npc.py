"""Policies as weave-npc's chains and sets."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from k8snetlab.cluster import Cluster
from k8snetlab.cni.weave import set_name
from k8snetlab.linux.text import ipset_save
from k8snetlab.trace import Client, Verdict
from tests.policies.chance import NODES, Asked, connections, disagreements
from tests.policies.chance import cluster as chance_cluster
from tests.shops import pod

PODS = "".join(
    pod(f"{app}-{at}", node=f"node-{at + 1}", app=app) for at in range(2) for app in ("web", "db")
)  # fmt: skip
OTHERS = "".join(
    f"apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{team: {team}}}}}\n---\n"
    for name, team in (("ops", "red"), ("lab", "blue"))
) + pod("tool-0", node="node-1", app="tool", namespace="ops")


def policy(name: str = "db", app: str = "db", **spec: Any) -> dict[str, Any]:
    """A NetworkPolicy about the pods of one app."""
    return {
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name},
        "spec": {"podSelector": {"matchLabels": {"app": app}}, **spec},
    }  # fmt: skip


WEB: dict[str, Any] = {"podSelector": {"matchLabels": {"app": "web"}}}
ONLY_WEB = policy(ingress=[{"from": [WEB], "ports": [{"port": 8080}]}])


def cluster(*policies: dict[str, Any]) -> Cluster:
    """A web server and a database on each of two nodes, and a tool in another namespace."""
    return Cluster.load(PODS, OTHERS, *policies, nodes=2, cni="weave")


def rules(held: Cluster, chain: str, node: str = "node-1") -> list[str]:
    """The rules of one chain, without the option that names it."""
    found = held.network[node].netfilter.ipv4["filter"].chains[chain].rules
    return [rule.text.removeprefix(f"-A {chain} ") for rule in found]


def members(held: Cluster, meaning: str) -> list[str]:
    """Who is in the set with that meaning: names of pods, or what stands there."""
    named = {address: each.key for each in held.objects.pods for address in each.ips}
    return [named.get(entry, entry) for entry in held.network["node-1"].sets[set_name(meaning)].entries]


# --- agreement --------------------------------------------------------------------------------------------------------


def known(held: Cluster, asked: Asked) -> bool:
    """Whether policies are asked in IPv4, and not about packets from a node to another one's pods: these have the
    address of the node's bridge.
    """
    own = {"plain/host-0": "node-1"} | {name: name.removeprefix("node/") for name in NODES}
    if asked.source not in own:
        return asked.of == 4
    here = {pod.key for pod in held.objects.pods_on(own[asked.source])}
    return asked.of == 4 and asked.target in here


def test_the_walk_through_the_chains_is_the_engine_s_verdict() -> None:
    """Policies by chance, with Weave's own reading of them: hundreds of connections."""
    denied = count = 0
    for seed in range(20):
        chance = Random(seed)
        held = chance_cluster(chance, "weave")
        asked = [each for each in connections(chance, held, 40) if known(held, each)]
        assert disagreements(held, asked) == [], f"seed {seed}"
        denied += sum(not held.allowed(*each[:4], family=each.of) for each in asked)
        count += len(asked)
    assert count > 300 and 50 < denied < count / 2


def test_without_policies_nothing_is_different() -> None:
    """The lists are whole and the chains of policies empty."""
    plain = cluster()
    assert cluster(ONLY_WEB).without_policies().diff(plain) == plain.diff(plain)
    assert rules(plain, "WEAVE-NPC-INGRESS") == rules(plain, "WEAVE-NPC-EGRESS-CUSTOM") == []


# --- chains and sets --------------------------------------------------------------------------------------------------


def test_a_rule_asks_two_sets() -> None:
    """Sender and receiver; names and comment are those of a real node."""
    held = cluster(ONLY_WEB)
    [rule] = rules(held, "WEAVE-NPC-INGRESS")
    assert rule == (
        "-p tcp -m set --match-set weave-]M@!{hT*i)c.jsNrcxG{]0ZcZ src "
        "-m set --match-set weave-T~I7^Z6?J|W7Q;/qSTGU0:NfN dst -m tcp --dport 8080 "
        '-m comment --comment "pods: namespace: default, selector: app=web -> '
        'pods: namespace: default, selector: app=db (ingress)" -j ACCEPT'
    )
    assert rules(held, "WEAVE-NPC-INGRESS", "node-2") == [rule]
    assert members(held, "default:app=web") == ["default/web-0", "default/web-1"]


def test_who_is_selected_is_taken_off_the_list_of_the_open_ones() -> None:
    """For that direction alone."""
    held = cluster(ONLY_WEB)
    assert members(held, "ingress-default-allow:default") == ["default/web-0", "default/web-1"]
    assert len(members(held, "egress-default-allow:default")) == 4


def test_an_egress_rule_marks_and_returns() -> None:
    """And only with the first policy that is about egress there is a rule that drops."""
    assert "-m mark ! --mark 0x40000/0x40000 -j DROP" not in rules(cluster(ONLY_WEB), "WEAVE-NPC-EGRESS")
    held = cluster(policy("out", "web", policyTypes=["Egress"], egress=[{"ports": [{"port": 53, "protocol": "UDP"}]}]))
    match = f"-p udp -m set --match-set {set_name('default:app=web')} src -m udp --dport 53 -m comment --comment "
    note = '"pods: namespace: default, selector: app=web -> anywhere (egress)"'
    assert rules(held, "WEAVE-NPC-EGRESS-CUSTOM") == [
        f"{match}{note} -j WEAVE-NPC-EGRESS-ACCEPT", f"{match}{note} -j RETURN",
    ]  # fmt: skip
    assert rules(held, "WEAVE-NPC-EGRESS")[-2:] == [
        "-m state --state NEW -m mark ! --mark 0x40000/0x40000 -j NFLOG --nflog-group 86",
        "-m mark ! --mark 0x40000/0x40000 -j DROP",
    ]


def test_namespaces_are_a_list_of_lists() -> None:
    """Of all pods of each namespace with the labels; with labels of pods too it is a plain set."""
    red = {"matchLabels": {"team": "red"}}
    both = {"namespaceSelector": red, "podSelector": {"matchLabels": {"app": "tool"}}}
    held = cluster(policy(ingress=[{"from": [{"namespaceSelector": red}, both]}]))
    assert members(held, ":team=red") == [set_name("ops:")]
    assert members(held, ":team=redapp=tool") == ["ops/tool-0"]
    assert f"create {set_name(':team=red')} list:set size 8\n" in ipset_save(held.network["node-1"])
    assert held.trace("ops/tool-0", "default/db-1:8080").client is Client.OPEN
    assert held.trace("default/web-0", "default/db-1:8080").verdict is Verdict.DROPPED
    notes = [rule.partition('"')[2].partition(" ->")[0] for rule in rules(held, "WEAVE-NPC-INGRESS")]
    assert notes == ["namespaces: selector: team=red", "namespaces: selector: team=redapp=tool"]


def test_a_block_is_an_address_and_what_it_leaves_out_a_set() -> None:
    """Of networks."""
    block = {"cidr": "203.0.113.0/24", "except": ["203.0.113.128/25", "203.0.113.0/26"]}
    held = cluster(policy("out", "web", policyTypes=["Egress"], egress=[{"to": [{"ipBlock": block}]}]))
    meaning = "default:ipblock-except:203.0.113.0/26 203.0.113.128/25"
    assert rules(held, "WEAVE-NPC-EGRESS-CUSTOM")[0] == (
        f"-d 203.0.113.0/24 -m set --match-set {set_name('default:app=web')} src "
        f"-m set ! --match-set {set_name(meaning)} dst -m comment --comment "
        '"pods: namespace: default, selector: app=web -> '
        'cidr: 203.0.113.0/24 except [203.0.113.0/26 203.0.113.128/25] (egress)" -j WEAVE-NPC-EGRESS-ACCEPT'
    )
    assert sorted(members(held, meaning)) == ["203.0.113.0/26", "203.0.113.128/25"]


def test_two_policies_that_say_the_same_share_rule_and_set() -> None:
    """The rule is there once."""
    assert len(rules(cluster(ONLY_WEB, policy("again", ingress=ONLY_WEB["spec"]["ingress"])), "WEAVE-NPC-INGRESS")) == 1


# --- what it does not understand --------------------------------------------------------------------------------------


def test_a_policy_with_a_named_port_has_no_effect() -> None:
    """Refused as a whole: its pods are not even isolated."""
    held = cluster(policy(ingress=[{"from": [WEB], "ports": [{"port": "http"}]}]))
    assert rules(held, "WEAVE-NPC-INGRESS") == []
    assert len(members(held, "ingress-default-allow:default")) == 4
    assert held.trace("ops/tool-0", "default/db-1:8080").client is Client.OPEN


def test_of_a_range_the_first_port_is_meant() -> None:
    """`endPort` came after weave-npc's time."""
    held = cluster(policy(ingress=[{"ports": [{"port": 8000, "endPort": 8090}]}]))
    assert " --dport 8000 " in rules(held, "WEAVE-NPC-INGRESS")[0]
    assert held.trace("default/web-0", "default/db-1:8080").verdict is Verdict.DROPPED


def test_a_block_of_ipv6_is_left_out() -> None:
    """There is no IPv6."""
    held = cluster(policy(ingress=[{"from": [{"ipBlock": {"cidr": "::/0"}}, {"ipBlock": {"cidr": "0.0.0.0/0"}}]}]))
    [rule] = rules(held, "WEAVE-NPC-INGRESS")
    assert '"cidr: 0.0.0.0/0 -> ' in rule and " -s " not in rule


# --- the walk ---------------------------------------------------------------------------------------------------------


def test_ingress_is_judged_on_the_receivers_node() -> None:
    """The sender's node lets everything pass that its bridge hands to another."""
    trace = cluster(ONLY_WEB).trace("ops/tool-0", "default/db-1:8080")
    assert (trace.verdict, trace.reason) == (Verdict.DROPPED, "node-2: dropped (no policy lets it in)")


@pytest.mark.parametrize(("asks", "client"), [(1, Client.TIMEOUT), (0, Client.OPEN)])
def test_pods_on_one_bridge_are_held_back_where_the_bridge_asks(asks: int, client: Client) -> None:
    """Without bridge-nf-call-iptables nobody asks about frames that are not routed."""
    held = cluster(ONLY_WEB).sysctl("node-1", "net.bridge.bridge-nf-call-iptables", asks)
    assert held.trace("ops/tool-0", "default/db-0:8080").client is client


def test_what_is_allowed_names_the_policy_that_does() -> None:
    """Though no rule's text does."""
    trace = cluster(ONLY_WEB).trace("default/web-0", "default/db-1:8080")
    assert trace.client is Client.OPEN
    assert any(step.rule is not None and "(NetworkPolicy default/db)" in step.why for step in trace.steps)
