"""Policies on the real kernel: the engine, the walk through the compiled rules, and what programs see agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from random import Random

import pytest

from k8snetlab import live
from k8snetlab.cluster import Cluster
from k8snetlab.linux import text
from k8snetlab.trace import Client
from tests.policies.chance import NUMBERS, OUTSIDE, Asked, cluster

BACKENDS: Mapping[str, Mapping[str, str]] = {
    "iptables": {"mode": "bgp"},
    "nftables": {"mode": "bgp", "dataplane": "nftables"},
}
"""Calico's two ways to write the same rules."""

ROUNDS, PROBES, WALKED = 5, 400, 20
PATIENCE = 0.4
"""Seconds: what is dropped is never answered, and everything else at once."""


def connections(chance: Random, held: Cluster) -> Iterator[Asked]:
    """Connections of every pair of ends, by chance. A pod does not ask itself: such a packet stays in it."""
    pods = [pod.key for pod in held.objects.pods if pod.networked and pod.key != "plain/host-0"]
    sources, nodes = [*pods, "node/node-1", "node/node-2"], ["node/node-2"]
    every = [
        Asked(source, target, port, protocol, of)
        for source, target in product(sources, [*pods, *nodes, "outside"])
        if source != target and (source in pods or target in pods)
        for port, protocol, of in product(NUMBERS, ("TCP", "UDP"), (4, 6))
    ]
    return iter(chance.sample(every, PROBES))


def address(held: Cluster, end: str, of: int) -> str:
    """The address of a pod, a node or the client outside."""
    if end == "outside":
        return OUTSIDE[of]
    ips = held.objects.node(end[5:]).addresses if end.startswith("node/") else held.objects.pod(end).ips
    return next(ip for ip in ips if (":" in ip) == (of == 6))


@pytest.mark.parametrize("backend", BACKENDS)
def test_random_policies_are_on_the_kernel_as_the_engine_says(
    kernel: None, backend: str, record_property: Callable[[str, object], None]
) -> None:
    """In each round other policies, of both kinds, in both families: two thousand verdicts, by TCP and UDP."""
    counted: Counter[str] = Counter()
    wrong: list[str] = []
    with live.Lab(cluster(Random(0), "calico", BACKENDS[backend])) as lab:
        for seed in range(1, ROUNDS + 1):
            chance = Random(seed)
            held = cluster(chance, "calico", BACKENDS[backend])
            lab.apply(held.network)
            asked = list(connections(chance, held))
            probes = [_probe(held, each) for each in asked]
            sights = lab.probe(probes, PATIENCE)
            for each, sight in zip(asked, sights, strict=True):
                to = address(held, each.target, each.of) if each.target == "outside" else each.target
                said = held.allowed(each.source, to, each.port, each.protocol, family=each.of)
                counted["allowed" if said else "denied"] += 1
                if bool(said) != (sight.client is not Client.TIMEOUT):
                    wrong.append(f"seed {seed}, {each}: the kernel {sight}, the engine {said}")
            some = live.compare(held.network, probes[:WALKED], sights[:WALKED])
            wrong += [f"seed {seed}: {each}" for each in some if not each.agrees]
    record_property("figures", f"random policies on the real kernel ({backend}): {dict(counted)}")
    assert not wrong, "\n".join(wrong[:10])
    assert min(counted["allowed"], counted["denied"]) > 500


def _probe(held: Cluster, asked: Asked) -> live.Probe:
    source = asked.source.removeprefix("node/")
    return live.Probe(source, address(held, asked.target, asked.of), asked.port, asked.protocol)


def test_the_kernel_prints_chains_and_sets_as_the_package_does(kernel: None) -> None:
    """Every rule of table filter in both families, and every set with its entries."""
    held = cluster(Random(5), "calico", BACKENDS["iptables"])
    node = held.network["node-1"]
    with live.Lab(held) as lab:
        for of, program in ((4, "iptables-save"), (6, "ip6tables-save")):
            printed = lab.run("node-1", program, "-t", "filter").out.replace("-p ipencap", "-p 4")
            own = text.iptables_save({"filter": node.netfilter.of(of)["filter"]})
            assert _sorted(printed, "-A ") == _sorted(own, "-A ")
        found = lab.run("node-1", "ipset", "save").out.splitlines()
    kept = sorted(line.partition(" bucketsize ")[0] for line in found)
    assert kept == sorted(text.ipset_save(node).splitlines())
    assert sum(line.startswith("create cali40s:") for line in kept) >= 3


def _sorted(lines: str, start: str) -> list[str]:
    """The kernel lists chains by their names, the package as they were written; rules of a chain stand in order."""
    return sorted((line for line in lines.splitlines() if line.startswith(start)), key=lambda line: line.split(" ")[1])
