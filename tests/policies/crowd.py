"""Pods by chance, for policies by chance: of one family or both, waiting, completed, on the network of their node.

The namespaces, labels and blocks are those that the policies of `chance` ask for.
"""

from __future__ import annotations

from random import Random

from k8snetlab import api
from k8snetlab.policies import plan
from tests.policies import chance
from tests.policies.chance import Manifest

NODES = ("n1", "n2")
NUMBERS = (53, 80, 443, 8080)


def policies(rng: Random, *, pods: int = 12) -> plan.Policies:
    """A dozen pods on two nodes, some policies of both kinds, and what a network plugin might make of them."""
    objects = [_node(name, index) for index, name in enumerate(NODES)]
    objects += [_namespace("red", team="red"), _namespace("blue", team="blue")]  # and plain, which nobody wrote
    objects += [_pod(rng, number) for number in range(pods)]
    objects += [chance.network_policy(rng, number) for number in range(rng.randint(1, 8))]
    objects += [chance.cluster_policy(rng, number) for number in range(rng.choice((0, 0, 2, 4)))]
    # The API server would take them all; a range that runs backwards is simply never met.
    return plan.of(api.drafts(*objects).objects, choices=_choices(rng))


def _choices(rng: Random) -> plan.Choices:
    """By the book, as one of the plugins, or as nobody does."""
    if rng.random() < 0.4:
        return plan.BY_THE_BOOK
    if rng.random() < 0.5:
        return plan.choices_of(rng.choice(("calico", "cilium", "weave", "flannel")))
    coin = [rng.random() < 0.5 for _ in range(7)]
    return plan.Choices(
        host_network_subjects=coin[0], host_network_peers=coin[1], own_node_to_pod=coin[2], pod_to_own_node=coin[3],
        blocks_mean_pods=coin[4], blocks_mean_nodes=coin[5], ranges=coin[6],
        families=rng.choice(((4, 6), (4,), (6,))),
    )  # fmt: skip


def _namespace(name: str, **labels: str) -> Manifest:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def _node(name: str, index: int) -> Manifest:
    held = [f"172.18.0.{index + 2}", f"fd00:172::{index + 2}"]
    status = {"addresses": [{"type": "InternalIP", "address": each} for each in held]}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status}


def _pod(rng: Random, number: int) -> Manifest:
    at, host = rng.randrange(2), rng.random() < 0.25
    four = f"172.18.0.{at + 2}" if host else f"10.244.{at}.{number + 2}"
    six = f"fd00:172::{at + 2}" if host else f"fd00:10:244:{at}::{number + 2:x}"
    held = rng.choice(([four], [four], [four, six], [six, four], [six], []))
    ports = [
        {"name": name, "containerPort": rng.choice(NUMBERS), "protocol": rng.choice(("TCP", "UDP"))}
        for name in ("http", "also", "sql")
        if rng.random() < 0.5
    ]
    spec = {"hostNetwork": host, "containers": [{"name": "main", "image": "main", "ports": ports}]}
    if held:
        spec["nodeName"] = NODES[at]
    phase = "Succeeded" if rng.random() < 0.05 else "Running" if held else "Pending"
    labels = {key: rng.choice(values) for key, values in LABELS.items() if rng.random() < 0.7}
    return {
        "apiVersion": "v1", "kind": "Pod", "spec": spec,
        "metadata": {"name": f"p{number}", "namespace": rng.choice(("red", "blue", "plain")), "labels": labels},
        "status": {"phase": phase, "podIPs": [{"ip": each} for each in held]},
    }  # fmt: skip


LABELS = {"app": ("web", "db", "job"), "tier": ("front", "back", "")}
