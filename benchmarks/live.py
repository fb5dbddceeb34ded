"""How quick is the real kernel's lab? Prints a table; nothing is asserted.

    make bench          or          python benchmarks/live.py

Three nodes with nine pods are built and taken down in turn, each time by an agent of its own; then every pod asks every
other, again and again. Beside each median stands its goal. What a machine lacks for a lab is said instead.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import k8snetlab as k8s
from k8snetlab import live

RUNS = 25
PROBES = 8000


def cluster() -> k8s.Cluster:
    """Three nodes, three pods with a listener on each, and one Service for all."""
    return k8s.Cluster.load(*_objects(), cni="flannel")


def _objects() -> Iterator[dict[str, object]]:
    for number in range(9):
        yield {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"web-{number}", "labels": {"app": "web"}},
            "spec": {
                "nodeName": f"node-{number % 3 + 1}",
                "containers": [{"name": "web", "image": "web", "ports": [{"containerPort": 8080}]}],
            },
        }
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }


def lives(shop: k8s.Cluster) -> tuple[float, float]:
    """How long building a lab takes, and how long taking it down, in seconds."""
    begun = time.perf_counter()
    with live.Lab(shop):
        built = time.perf_counter()
    return built - begun, time.perf_counter() - built


def rate(shop: k8s.Cluster, address: str, port: int) -> float:
    """Probes a second: all pods ask the same, all at once."""
    pods = [host.name for host in shop.network.values() if host.kind == "container"]
    probes = [live.Probe(pods[number % len(pods)], address, port) for number in range(PROBES)]
    with live.Lab(shop) as lab:
        begun = time.perf_counter()
        lab.probe(probes)
        return len(probes) / (time.perf_counter() - begun)


def main() -> None:
    """Measure, and print the table."""
    if live.missing():
        print(f"no lab on this machine: {live.missing()}")
        return
    shop = cluster()
    shop.network.values()
    times = [lives(shop) for _ in range(RUNS)]
    built, gone = (statistics.median(each) for each in zip(*times, strict=True))
    pod = shop.network["default/web-8"].link("eth0").addresses[0].ip
    service = shop.objects.service("default/web").cluster_ips[0]
    print(f"{'three nodes with nine pods, built':<52} {built * 1e3:>7.0f} ms   goal 600 ms")
    print(f"{'the same, taken down':<52} {gone * 1e3:>7.0f} ms   goal —")
    print(f"{'probes of a pod':<52} {rate(shop, pod, 8080):>7.0f} /s   goal 5000 /s")
    print(f"{'probes of a Service':<52} {rate(shop, service, 80):>7.0f} /s   goal 5000 /s")
    print(f"{'probes of a closed port':<52} {rate(shop, pod, 9):>7.0f} /s   goal —")


if __name__ == "__main__":
    main()
