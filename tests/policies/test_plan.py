"""Reading policies: each decision about what an object means is made once."""

from __future__ import annotations

import pytest

from k8snetlab import api
from k8snetlab.address import Prefix
from k8snetlab.errors import BadOption, UnknownName
from k8snetlab.policies import plan
from k8snetlab.policies.plan import ANY_PORT, ANYONE, EGRESS, INGRESS, Block, Choices, Pods, Ports, Tier

POD = """
apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: shop, labels: {app: %s}}
spec:
  nodeName: node-1
  %s
  containers:
    - name: c
      ports:
        - {name: http, containerPort: 80}
        - {name: web, containerPort: 80}
        - {name: dns, containerPort: 53, protocol: UDP}
status: {phase: %s, podIP: %s, podIPs: [{ip: %s}, {ip: "fd00::%s"}]}
"""


def pod(name: str, last: int, phase: str = "Running", more: str = "") -> str:
    """A pod at 10.0.0.LAST with three names for two ports."""
    address = f"10.0.0.{last}"
    return POD % (name, name, more, phase, address, address, last)


def policy(spec: str, name: str = "p") -> str:
    """A NetworkPolicy of namespace shop; `spec` is written in flow style."""
    head = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\n"
    return f"{head}metadata: {{name: {name}, namespace: shop}}\nspec: {spec}\n"


def cluster_policy(name: str, tier: str, priority: int) -> str:
    """A ClusterNetworkPolicy that denies all pods all pods."""
    rules = "ingress: [{action: Deny, from: [{namespaces: {}}]}]"
    spec = f"{{tier: {tier}, priority: {priority}, subject: {{namespaces: {{}}}}, {rules}}}"
    return (
        "---\napiVersion: policy.networking.k8s.io/v1alpha2\nkind: ClusterNetworkPolicy\n"
        f"metadata: {{name: {name}}}\nspec: {spec}\n"
    )


def read(*texts: str, choices: Choices = plan.BY_THE_BOOK) -> plan.Policies:
    """What the manifests say."""
    return plan.of(api.load("\n---\n".join(texts)).objects, choices=choices)


def test_a_pod_keeps_its_addresses_and_every_name_of_a_port() -> None:
    """One number may have two names; a name counts in its protocol only."""
    web = read(pod("web", 7)).endpoints[0]
    assert (web.name, web.addresses, web.node) == ("shop/web", ("10.0.0.7", "fd00::7"), "node-1")
    assert web.numbers("http", api.Protocol.TCP) == web.numbers("web", api.Protocol.TCP) == (80,)
    assert web.numbers("dns", api.Protocol.TCP) == ()
    assert web.numbers("dns", None) == (53,)


def test_completed_pods_are_left_out() -> None:
    """Their address may be another pod's."""
    found = read(pod("old", 7, "Succeeded"), pod("older", 7, "Failed"), pod("new", 7))
    assert [each.name for each in found.endpoints] == ["shop/new"]
    assert found.end("10.0.0.7") == found.endpoints[0]


def test_a_namespace_has_its_name_as_a_label_whatever_it_says() -> None:
    """A manifest cannot say otherwise, and a namespace that is only used has it too."""
    named = (
        "apiVersion: v1\nkind: Namespace\nmetadata: {name: ops, labels: {kubernetes.io/metadata.name: shop, a: b}}\n"
    )
    found = read(named, pod("web", 7))
    assert found.namespaces["ops"] == {"a": "b", "kubernetes.io/metadata.name": "ops"}
    assert found.namespaces["shop"] == {"kubernetes.io/metadata.name": "shop"}


def test_nothing_said_is_no_limit_and_no_rule_is_nothing() -> None:
    """`ingress: [{}]` opens, `ingress: []` closes; neither is about egress."""
    opened, closed = read(policy("{podSelector: {}, ingress: [{}]}", "a"), policy("{podSelector: {}}", "b")).ingress
    assert [(rule.peers, rule.ports, rule.field) for rule in opened.rules] == [
        ((ANYONE,), (ANY_PORT,), "spec.ingress[0]")
    ]
    assert closed.rules == ()


@pytest.mark.parametrize(
    ("spec", "directions"),
    [
        ("{podSelector: {}}", [INGRESS]),
        ("{podSelector: {}, egress: []}", [INGRESS]),
        ("{podSelector: {}, egress: [{}]}", [INGRESS, EGRESS]),
        ("{podSelector: {}, ingress: [{}], policyTypes: [Egress]}", [EGRESS]),
        ("{podSelector: {}, policyTypes: [Egress, Ingress]}", [INGRESS, EGRESS]),
    ],
)
def test_directions_are_those_of_policy_types(spec: str, directions: list[plan.Direction]) -> None:
    """Said or by default; the order in the list means nothing."""
    found = read(policy(spec))
    assert [each for each in (INGRESS, EGRESS) if found.of(each)] == directions


def test_a_peer_is_one_of_four_forms() -> None:
    """A podSelector alone stays at home; with a namespaceSelector both must match; a block has holes."""
    peers = (
        "[{podSelector: {matchLabels: {a: b}}}, {namespaceSelector: {}}, "
        "{namespaceSelector: {matchLabels: {c: d}}, podSelector: {matchLabels: {a: b}}}, "
        "{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]"
    )
    found = read(policy(f"{{podSelector: {{}}, ingress: [{{from: {peers}}}]}}")).ingress[0].rules[0].peers
    ab, cd = api.LabelSelector(match_labels={"a": "b"}), api.LabelSelector(match_labels={"c": "d"})
    assert found == (
        Pods(namespace="shop", pods=ab), Pods(), Pods(namespaces=cd, pods=ab),
        Block(prefix=Prefix.of("10.0.0.0/8"), holes=(Prefix.of("10.1.0.0/16"),)),
    )  # fmt: skip


def test_ports_are_numbers_ranges_names_or_a_protocol() -> None:
    """TCP where nobody says."""
    ports = "[{port: 80}, {port: 80, endPort: 90, protocol: UDP}, {port: http}, {protocol: SCTP}]"
    found = read(policy(f"{{podSelector: {{}}, ingress: [{{ports: {ports}}}]}}")).ingress[0].rules[0].ports
    tcp, udp, sctp = api.Protocol.TCP, api.Protocol.UDP, api.Protocol.SCTP
    assert found == (Ports(tcp, 80, 80), Ports(udp, 80, 90), Ports(tcp, name="http"), Ports(sctp))
    assert [str(each) for each in found] == ["80/TCP", "80-90/UDP", "http/TCP", "SCTP"]


def test_tiers_stand_in_the_order_of_asking() -> None:
    """Admin by priority, then NetworkPolicies as written, then Baseline; equal priorities by name."""
    found = read(
        cluster_policy("z", "Baseline", 0), cluster_policy("b", "Admin", 7), cluster_policy("a", "Admin", 7),
        policy("{podSelector: {}}", "w"), policy("{podSelector: {}}", "v"), cluster_policy("c", "Admin", 3),
    )  # fmt: skip
    assert [each.object.name for each in found.ingress] == ["c", "a", "b", "w", "v", "z"]
    assert [each.isolates for each in found.ingress] == [False, False, False, True, True, False]
    assert found.ingress[0].tier is Tier.ADMIN
    assert found.egress == ()


def test_host_network_is_a_choice_of_the_plugin() -> None:
    """By default such a pod is its node: no selector of a NetworkPolicy means it."""
    host = pod("agent", 9, more="hostNetwork: true")
    said = policy("{podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}")
    for choices, expected in (
        (plan.BY_THE_BOOK, (False, False)),
        (Choices(host_network_subjects=True), (True, False)),
        (Choices(host_network_peers=True), (False, True)),
    ):
        found = read(host, said, choices=choices)
        agent, rules = found.endpoints[0], found.ingress[0].rules
        meant = rules[0].peers[0].means(agent, agent.addresses[0], found)
        assert (bool(found.selecting(agent, INGRESS)), meant) == expected


def test_a_plugin_may_cut_or_skip_what_it_does_not_know() -> None:
    """Weave reads the first port of a range, and not at all a policy with a named port; flannel reads nothing."""
    ranged = policy("{podSelector: {}, ingress: [{ports: [{port: 80, endPort: 90}]}]}", "ranged")
    named = policy("{podSelector: {}, ingress: [{ports: [{port: http}]}, {ports: [{port: 80}]}]}", "named")
    weave = read(ranged, named, choices=plan.choices_of("weave"))
    assert [(each.object.name, each.rules[0].ports[0].last) for each in weave.ingress] == [("ranged", 80)]
    assert read(ranged, named, choices=plan.choices_of("flannel")).ingress == ()


@pytest.mark.parametrize(
    ("domain", "meant"),
    [("www.k8s.io", True), ("a.b.K8S.io.", True), ("k8s.io", False), ("wwwk8s.io", False), ("k8s.io.evil.com", False)],
)
def test_a_wildcard_means_whole_labels_below(domain: str, meant: bool) -> None:
    """`*.k8s.io` is every name below k8s.io, at any depth, and not itself."""
    assert plan.Domain("*.k8s.io").matches(domain) is meant


def test_ends_have_names_or_addresses() -> None:
    """An address that is nobody's is outside; a name that is not there is an error."""
    found = read(pod("web", 7))
    assert found.end("shop/web") == found.end("10.0.0.7") == found.end("fd00:0::7")
    assert found.end("203.0.113.9") == found.end("external:203.0.113.9") == plan.Outside(("203.0.113.9",))
    with pytest.raises(UnknownName, match="did you mean shop/web"):
        found.end("shop/wed")
    with pytest.raises(BadOption):
        found.end("10.0.0.700")


def test_a_flow_has_one_family() -> None:
    """The first of the source that the destination has; none in common is an error."""
    found = read(pod("web", 7))
    web, outside = found.endpoints[0], plan.Outside(("2001:db8::1",))
    assert found.flow(web, outside, 80, api.Protocol.TCP).source_address == "fd00::7"
    with pytest.raises(BadOption, match="no IPv4 address in common"):
        found.flow(web, outside, 80, api.Protocol.TCP, 4)
