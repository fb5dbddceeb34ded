"""Weave's policies on the real kernel: its chains, its sets and its lists of sets, on the pods of one bridge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import product
from random import Random

import msgspec

from k8snetlab import live
from k8snetlab.cluster import Cluster
from k8snetlab.trace import Client
from tests.policies.chance import NUMBERS, PODS, network_policy

ROUNDS, PROBES, WALKED = 4, 300, 20
PATIENCE = 0.4
"""Seconds: what is dropped is never answered, and everything else at once."""

WAY_OUT = ("vethwe-bridge", "vethwe-datapath", "datapath", "vxlan-6784")
"""The devices by which a bridge is joined to others. The lab's kernel has no such switch, and one node needs none."""


def one_bridge(chance: Random) -> Cluster:
    """All pods on one node, with policies by chance, and without the way to other nodes."""
    pods = (each | {"spec": each["spec"] | {"nodeName": "node-1"}} if "spec" in each else each for each in PODS)
    policies = [network_policy(chance, number) for number in range(chance.randint(1, 5))]
    held = Cluster.load(*pods, *policies, cni="weave", nodes=1)
    node = held.network["node-1"]
    for name in WAY_OUT:
        node = node.without(node.link(name))
    kept = {key: value for key, value in node.sysctls.items() if not any(f".{name}." in key for name in WAY_OUT)}
    return held.with_hosts(msgspec.structs.replace(node, sysctls=kept))


def test_random_policies_are_on_the_kernel_as_the_engine_says(
    kernel: None, record_property: Callable[[str, object], None]
) -> None:
    """In each round other policies: a thousand verdicts, by TCP and UDP, with Weave's own reading of the policies."""
    counted: Counter[str] = Counter()
    wrong: list[str] = []
    with live.Lab(one_bridge(Random(0))) as lab:
        for seed in range(1, ROUNDS + 1):
            chance = Random(seed)
            held = one_bridge(chance)
            lab.apply(held.network)
            pods = {pod.key: pod.ip for pod in held.objects.pods if pod.networked and pod.key != "plain/host-0"}
            every = list(product((*pods, "node/node-1"), pods, NUMBERS, ("TCP", "UDP")))
            asked = chance.sample([each for each in every if each[0] != each[1]], PROBES)
            probes = [live.Probe(each[0].removeprefix("node/"), pods[each[1]], *each[2:]) for each in asked]
            sights = lab.probe(probes, PATIENCE)
            for each, sight in zip(asked, sights, strict=True):
                said = held.allowed(*each)
                counted["allowed" if said else "denied"] += 1
                if bool(said) != (sight.client is not Client.TIMEOUT):
                    wrong.append(f"seed {seed}, {each}: the kernel {sight}, the engine {said}")
            some = live.compare(held.network, probes[:WALKED], sights[:WALKED])
            wrong += [f"seed {seed}: {each}" for each in some if not each.agrees]
    record_property("figures", f"Weave's policies on the real kernel: {dict(counted)}")
    assert not wrong, "\n".join(wrong[:10])
    assert min(counted["allowed"], counted["denied"]) > 100
