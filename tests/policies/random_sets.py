"""Random policies for a small cluster, and what a walk says of them, to compare compiled policies with the engine."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from typing import Any, NamedTuple

from k8snetlab import api
from k8snetlab.cluster import Cluster
from k8snetlab.linux.walk import World, exchange
from k8snetlab.policies.engine import judged
from k8snetlab.policies.plan import End, Flow, Outside, Policies, choices_of, of
from k8snetlab.trace import Action

NAMESPACES = {"a": {"team": "red"}, "b": {"team": "blue"}, "c": {}}
OUTSIDE = {4: "203.0.113.10", 6: "2001:db8:203::10"}
PORTS = (("TCP", 80), ("TCP", 8080), ("TCP", 8090), ("UDP", 53))
BLOCKS = ("0.0.0.0/0", "10.0.0.0/8", "10.244.0.0/23", "203.0.113.0/24", "203.0.113.8/29", "172.18.0.0/16", "::/0",
          "2001:db8::/32", "fd00:10:244::/56")  # fmt: skip
DUAL = {
    "node_cidr": "172.18.0.0/24,fd00:172::/64",
    "pod_cidr": "10.244.0.0/16,fd00:10:244::/56",
    "service_cidr": "10.96.0.0/12,fd00:10:96::/108",
}


class Asked(NamedTuple):
    """One packet: the name of the Host that sends it, the address and port it goes to, and what it is to the engine."""

    source: str
    address: str
    protocol: str
    port: int
    flow: Flow


def cluster(random: Random, **options: Any) -> Cluster:
    """Nine pods on two nodes, in three namespaces, with a few random policies."""
    names = (f"p{at}" for at in range(9))
    return Cluster.load(
        *(_namespace(name, labels) for name, labels in NAMESPACES.items()),
        *(_pod(random, name) for name in names),
        *(_policy(random, at) for at in range(random.randint(1, 6))),
        nodes=2,
        **options,
    )


def policies(of_cluster: Cluster) -> Policies:
    """What the engine knows of a cluster, with its CNI's choices."""
    return of(of_cluster.objects.objects, choices=choices_of(of_cluster.options.cni))


def questions(of_cluster: Cluster, known: Policies, family: int) -> Iterator[Asked]:
    """Every pod and node to every pod and node and to the outside, at some ports."""
    pods = [each for each in known.endpoints if not each.host_network]
    ends: list[End] = [*pods, *known.machines.values()]
    for source in ends:
        for target in (*ends, Outside((OUTSIDE[family],))):
            if source is target or (source not in pods and target not in pods):
                continue
            for protocol, port in PORTS:
                there = target.address(family)
                flow = Flow(source, target, source.address(family), there, api.Protocol(protocol), port)
                yield Asked(source.name, there, protocol, port, flow)


def disagreements(of_cluster: Cluster, family: int = 4) -> tuple[int, list[str]]:
    """How many packets were sent, and those about which walk and engine do not agree."""
    known = policies(of_cluster)
    found, count = [], 0
    for asked in questions(of_cluster, known, family):
        count += 1
        said = exchange(World(of_cluster.network, Random(0)), asked.source, asked.address, asked.port, asked.protocol)
        last = said.steps[-1] if said.steps else None
        dropped = last is not None and last.action is Action.DROP
        verdict = judged(known, asked.flow)
        if dropped is verdict.allowed:
            found.append(f"{asked[:4]}\n{verdict}\nwalk: {last.why if last is not None else said.reason}")
    return count, found


def _namespace(name: str, labels: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _pod(random: Random, name: str) -> dict[str, Any]:
    ports = [{"containerPort": 53, "protocol": "UDP"}]
    number = random.choice((80, 8080, None))
    if number is not None:
        ports.append({"containerPort": number, "name": "web"})
    if random.random() < 0.3:
        ports.append({"containerPort": 8090, "name": "admin"})
    labels = {"app": random.choice("xyz")} | ({"tier": random.choice(("", "front"))} if random.random() < 0.5 else {})
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": random.choice(list(NAMESPACES)), "labels": labels},
        "spec": {
            "nodeName": random.choice(("node-1", "node-2")),
            "hostNetwork": random.random() < 0.1,
            "containers": [{"name": "main", "image": "main", "ports": ports}],
        },
    }  # fmt: skip


def _policy(random: Random, number: int) -> dict[str, Any]:
    types = random.choice((["Ingress"], ["Egress"], ["Egress", "Ingress"]))
    spec: dict[str, Any] = {"podSelector": _selector(random, "app", "xyz"), "policyTypes": types}
    for direction, peers in (("Ingress", "from"), ("Egress", "to")):
        if direction in types:
            spec[direction.lower()] = [_rule(random, peers) for _ in range(random.randint(0, 3))]
    namespace = random.choice(list(NAMESPACES))
    return {
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": f"policy-{number}", "namespace": namespace}, "spec": spec,
    }  # fmt: skip


def _rule(random: Random, peers: str) -> dict[str, Any]:
    rule: dict[str, Any] = {}
    if random.random() < 0.8:
        rule[peers] = [_peer(random) for _ in range(random.randint(1, 2))]
    if random.random() < 0.6:
        rule["ports"] = [_port(random) for _ in range(random.randint(1, 2))]
    return rule


def _peer(random: Random) -> dict[str, Any]:
    kind = random.random()
    if kind < 0.3:
        return {"ipBlock": _block(random)}
    peer: dict[str, Any] = {}
    if kind < 0.8:
        peer["podSelector"] = _selector(random, *random.choice((("app", "xyz"), ("tier", ("", "front")))))
    if kind > 0.5:
        peer["namespaceSelector"] = _selector(random, "team", ("red", "blue"))
    return peer


def _block(random: Random) -> dict[str, Any]:
    cidr = random.choice(BLOCKS)
    holes = {"0.0.0.0/0": ["203.0.113.10/32", "10.244.1.0/24"], "203.0.113.0/24": ["203.0.113.0/28"],
             "10.0.0.0/8": ["10.244.1.0/24"], "::/0": ["2001:db8:203::/64"]}  # fmt: skip
    return {"cidr": cidr} | ({"except": holes[cidr]} if cidr in holes and random.random() < 0.5 else {})


def _port(random: Random) -> dict[str, Any]:
    return random.choice(
        (
            {"port": 80}, {"port": 8080, "protocol": "TCP"}, {"port": "web"}, {"port": "admin"}, {"protocol": "TCP"},
            {"protocol": "UDP"}, {"port": 53, "protocol": "UDP"}, {"port": 8000, "endPort": 8085},
            {"port": 81, "endPort": 8090},
        )
    )  # fmt: skip


def _selector(random: Random, key: str, values: Any) -> dict[str, Any]:
    some = random.sample(list(values), random.randint(1, len(values) - 1))
    return random.choice(
        (
            {},
            {"matchLabels": {key: some[0]}},
            {"matchExpressions": [{"key": key, "operator": "In", "values": some}]},
            {"matchExpressions": [{"key": key, "operator": "NotIn", "values": some}]},
            {"matchExpressions": [{"key": key, "operator": random.choice(("Exists", "DoesNotExist"))}]},
        )
    )
