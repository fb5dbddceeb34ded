"""Small clusters with policies by chance, and connections to ask about.

Ten pods in three namespaces on two nodes, in both families: names of ports that mean different numbers, a number with
two names, a pod with `hostNetwork`, one that is completed. The policies use everything that the API has.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import Any, NamedTuple

from k8snetlab.cluster import Cluster
from k8snetlab.trace import Verdict

DUAL_STACK: Mapping[str, str] = {
    "node_cidr": "172.18.0.0/24,fd00:172::/64",
    "pod_cidr": "10.244.0.0/16,fd00:10:244::/56",
    "service_cidr": "10.96.0.0/12,fd00:10:96::/108",
}
OUTSIDE = {4: "203.0.113.10", 6: "2001:db8:203::10"}
NODES = ("node/node-1", "node/node-2")
TRANSPORTS = ("TCP", "UDP", "SCTP")
NUMBERS = (80, 443, 8080, 9090, 53)

Manifest = dict[str, Any]


class Asked(NamedTuple):
    """A connection: who opens it, whom to (a pod, or an address outside), its port, protocol and family."""

    source: str
    target: str
    port: int
    protocol: str
    of: int


def _port(name: str, number: int, protocol: str = "TCP") -> Manifest:
    return {"name": name, "containerPort": number, "protocol": protocol}


def _pod(name: str, node: int, labels: Mapping[str, str], *ports: Manifest, **spec: Any) -> Manifest:
    namespace, _, own = name.partition("/")
    container = {"name": "main", "image": "main", "ports": list(ports)}
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": own, "namespace": namespace, "labels": dict(labels)},
        "spec": {"nodeName": f"node-{node}", "containers": [container], **spec},
    }  # fmt: skip


def _namespace(name: str, **labels: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


HTTP, ALSO, METRICS = _port("http", 80), _port("also", 80), _port("metrics", 9090)
PODS: tuple[Manifest, ...] = (
    _namespace("red", team="red", env="prod"), _namespace("blue", team="blue"), _namespace("plain"),
    _pod("red/web-0", 1, {"app": "web", "tier": "front"}, HTTP, ALSO),
    _pod("red/web-1", 2, {"app": "web", "tier": ""}, _port("http", 8080), METRICS),
    _pod("red/db-0", 1, {"app": "db"}, _port("http", 53, "UDP"), _port("sql", 443)),
    _pod("red/db-1", 2, {"app": "db", "tier": "back"}, _port("http", 53, "SCTP"), _port("sql", 443, "UDP")),
    _pod("blue/web-0", 1, {"app": "web"}, HTTP),
    _pod("blue/job-0", 2, {"app": "job", "tier": "front"}),
    _pod("blue/bare-0", 1, {}),
    _pod("plain/web-0", 2, {"app": "web", "tier": "front"}, _port("http", 9090), METRICS),
    _pod("plain/host-0", 1, {"app": "web"}, _port("http", 8081), hostNetwork=True),
    _pod("plain/done-0", 1, {"app": "web"}, HTTP) | {"status": {"phase": "Succeeded", "podIP": "10.244.0.99"}},
)  # fmt: skip


def cluster(chance: Random, cni: str, options: Mapping[str, str] | None = None, *, most: int = 5) -> Cluster:
    """The pods with up to so many NetworkPolicies and half as many ClusterNetworkPolicies."""
    own = [network_policy(chance, number) for number in range(chance.randint(1, most))]
    above = [cluster_policy(chance, number) for number in range(chance.randint(0, most // 2))]
    return Cluster.load(*PODS, *own, *above, cni=cni, cni_options=dict(options or {}), nodes=2, **DUAL_STACK)


def connections(chance: Random, held: Cluster, count: int) -> Iterator[Asked]:
    """Connections between pods, from nodes, to nodes and to the outside. (Nobody outside reaches a pod's address.)"""
    pods = [pod.key for pod in held.objects.pods if pod.networked and pod.namespace != "kube-system"]
    inside = [name for name in pods if name != "plain/host-0"]
    for _ in range(count):
        of = chance.choice((4, 6))
        source = chance.choice((*pods, *pods, *NODES))
        target = chance.choice((*inside, *inside, *NODES, OUTSIDE[of]))
        if source in NODES and target not in inside:
            target = chance.choice(inside)
        yield Asked(source, target, chance.choice(NUMBERS), chance.choice(TRANSPORTS), of)


def disagreements(held: Cluster, asked: list[Asked]) -> list[str]:
    """Where the walk through the compiled rules does not end as the engine says."""
    wrong = []
    for each in asked:
        target = f"[{each.target}]" if ":" in each.target else each.target
        walk = held.trace(each.source, f"{target}:{each.port}/{each.protocol}", family=each.of)
        said = held.allowed(each.source, each.target, each.port, each.protocol, family=each.of)
        if bool(said) != (walk.verdict is not Verdict.DROPPED):
            wrong.append(f"{each}: the walk says {walk.verdict} ({walk.reason}), the engine {said}")
    return wrong


# NetworkPolicies


def network_policy(chance: Random, number: int) -> Manifest:
    """One NetworkPolicy in one of the namespaces."""
    types = chance.choice((["Ingress"], ["Egress"], ["Ingress", "Egress"], ["Egress", "Ingress"]))
    spec: Manifest = {"podSelector": _selector(chance), "policyTypes": types}
    for kind, field in (("Ingress", "from"), ("Egress", "to")):
        if kind in types and chance.random() < 0.9:
            spec[kind.lower()] = [_rule(chance, field) for _ in range(chance.randint(0, 2))]
    metadata = {"name": f"p-{number}", "namespace": chance.choice(("red", "red", "blue", "plain"))}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def _rule(chance: Random, field: str) -> Manifest:
    rule: Manifest = {}
    if chance.random() < 0.85:
        rule[field] = [_peer(chance) for _ in range(chance.randint(1, 2))]
    if chance.random() < 0.6:
        rule["ports"] = [_policy_port(chance) for _ in range(chance.randint(1, 3))]
    return rule


def _selector(chance: Random) -> Manifest:
    return chance.choice((
        {}, {}, {"matchLabels": {"app": chance.choice(("web", "db", "job"))}}, {"matchLabels": {"tier": ""}},
        {"matchExpressions": [_expression(chance, "tier", ("front", "back", ""))]},
        {"matchLabels": {"app": "web"}, "matchExpressions": [_expression(chance, "tier", ("front", "back"))]},
    ))  # fmt: skip


def _namespaces(chance: Random) -> Manifest:
    return chance.choice((
        {}, {"matchLabels": {"team": chance.choice(("red", "blue"))}},
        {"matchLabels": {"kubernetes.io/metadata.name": chance.choice(("red", "blue", "plain"))}},
        {"matchExpressions": [_expression(chance, "team", ("red", "green"))]},
    ))  # fmt: skip


def _expression(chance: Random, key: str, values: tuple[str, ...]) -> Manifest:
    operator = chance.choice(("In", "NotIn", "Exists", "DoesNotExist"))
    asked = {"key": key, "operator": operator}
    some = chance.sample(values, chance.randint(1, len(values)))
    return asked | ({"values": some} if operator in ("In", "NotIn") else {})


def _peer(chance: Random) -> Manifest:
    which = chance.random()
    if which < 0.3:
        return {"podSelector": _selector(chance)}
    if which < 0.5:
        return {"namespaceSelector": _namespaces(chance)}
    if which < 0.75:
        return {"namespaceSelector": _namespaces(chance), "podSelector": _selector(chance)}
    return {"ipBlock": chance.choice((
        {"cidr": "0.0.0.0/0"}, {"cidr": "::/0"}, {"cidr": "10.244.0.0/24"}, {"cidr": "fd00:10:244::/64"},
        {"cidr": "203.0.113.0/24"}, {"cidr": "2001:db8:203::/64", "except": ["2001:db8:203::8/125"]},
        {"cidr": "10.244.0.0/16", "except": ["10.244.1.0/26", "10.244.0.2/32"]},
        {"cidr": "0.0.0.0/0", "except": ["203.0.113.0/28"]}, {"cidr": "::/0", "except": ["fd00:10:244::/64"]},
        {"cidr": "172.18.0.0/24"},
    ))}  # fmt: skip


def _policy_port(chance: Random) -> Manifest:
    protocol = {} if chance.random() < 0.4 else {"protocol": chance.choice(TRANSPORTS)}
    which = chance.random()
    if which < 0.2:
        return protocol or {"protocol": "TCP"}
    if which < 0.5:
        return protocol | {"port": chance.choice(("http", "also", "metrics", "sql", "nobody"))}
    if which < 0.7:
        return protocol | {"port": chance.choice((53, 80, 443)), "endPort": chance.choice((443, 8080, 9090))}
    return protocol | {"port": chance.choice(NUMBERS)}


# ClusterNetworkPolicies


def cluster_policy(chance: Random, number: int) -> Manifest:
    """One ClusterNetworkPolicy of either tier."""
    spec: Manifest = {
        "tier": chance.choice(("Admin", "Baseline")),
        "priority": chance.randint(0, 3),
        "subject": _cluster_pods(chance),
    }
    for field, peers in (("ingress", "from"), ("egress", "to")):
        if chance.random() < 0.7:
            rules = range(chance.randint(1, 3))
            spec[field] = [_cluster_rule(chance, peers) for _ in rules]
    if "ingress" not in spec and "egress" not in spec:
        spec["ingress"] = [_cluster_rule(chance, "from")]
    return {
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": f"c-{number}"}, "spec": spec,
    }  # fmt: skip


def _cluster_pods(chance: Random) -> Manifest:
    if chance.random() < 0.5:
        return {"namespaces": _namespaces(chance)}
    return {"pods": {"namespaceSelector": _namespaces(chance), "podSelector": _selector(chance)}}


def _cluster_rule(chance: Random, field: str) -> Manifest:
    peers = [_cluster_peer(chance, field) for _ in range(chance.randint(1, 2))]
    rule: Manifest = {"action": chance.choice(("Accept", "Deny", "Pass")), field: peers}
    if chance.random() < 0.6:
        named = not any("networks" in each or "nodes" in each for each in peers)  # these have no names of ports
        rule["protocols"] = [_cluster_port(chance, 0.2 if named else 0) for _ in range(chance.randint(1, 2))]
    return rule


def _cluster_peer(chance: Random, field: str) -> Manifest:
    which = chance.random()
    if field == "to" and which < 0.2:
        return {"networks": chance.choice((["0.0.0.0/0"], ["203.0.113.0/24", "10.244.0.0/24"], ["::/0"]))}
    if field == "to" and which < 0.3:
        return {"nodes": {}}
    return _cluster_pods(chance)


def _cluster_port(chance: Random, named: float) -> Manifest:
    which = chance.random()
    if which < named:
        return {"destinationNamedPort": chance.choice(("http", "metrics"))}
    kind = chance.choice(("tcp", "udp", "sctp"))
    if which < 0.4:
        return {kind: {"destinationPort": {"range": {"start": 1, "end": 65535}}}}
    if which < 0.6:
        return {kind: {"destinationPort": {"range": {"start": 80, "end": chance.choice((443, 8080))}}}}
    return {kind: {"destinationPort": {"number": chance.choice(NUMBERS)}}}
