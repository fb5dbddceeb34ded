"""How long does it take to know who can talk to whom in a large cluster, and to read its objects?

    make bench          or          python benchmarks/policies.py

A cluster is generated: namespaces with labels, pods of both families with named ports, and policies with selectors of
every form, blocks of addresses with holes, named ports and ranges. The same numbers give the same cluster. Each line
has its goal beside it; memory is the peak of a process of its own that does nothing else.
"""

from __future__ import annotations

import gc
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import numpy as np

from k8snetlab import api
from k8snetlab.policies import plan
from k8snetlab.policies.engine import verdict
from k8snetlab.policies.matrix import Reach, reach

Data = dict[str, Any]

TEAMS = ("books", "cards", "games", "music")
STAGES = ("dev", "test", "prod")
TIERS = ("web", "api", "db", "cache", "job")
BLOCKS: tuple[Data, ...] = (
    {"cidr": "192.0.2.0/24"}, {"cidr": "198.51.100.0/24", "except": ["198.51.100.7/32"]}, {"cidr": "2001:db8::/32"},
    {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8", "169.254.169.254/32"]}, {"cidr": "172.18.0.0/16"},
    {"cidr": "10.0.0.0/17", "except": ["10.0.64.0/18"]}, {"cidr": "10.0.128.0/17"}, {"cidr": "fd00:10::/32"},
)  # fmt: skip
"""The world outside, the nodes, and what the pods of one zone or another have."""
PODS_A_NAMESPACE = 50
REPLICAS = 10


def generated(pods: int, policies: int, *, seed: int = 7) -> Iterator[Data]:
    """A cluster as plain data: 50 pods a namespace in Deployments of 10, 50 pods a node."""
    rng = random.Random(seed)
    namespaces = max(1, pods // PODS_A_NAMESPACE)
    for number in range(max(1, pods // 50)):
        yield node(number)
    for number in range(namespaces):
        labels = {"team": TEAMS[number % 4], "stage": STAGES[number % 3]}
        yield {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"ns-{number}", "labels": labels}}
    for number in range(pods):
        yield pod(number, namespaces)
    for number in range(policies):
        yield policy(number, namespaces, rng)


def node(number: int) -> Data:
    """A node with a block of 256 pod addresses in each family."""
    high, low = divmod(number, 256)
    addresses = [f"172.18.{high}.{low}", f"fd00:172::{number + 1:x}"]
    return {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": f"node-{number}"},
        "spec": {
            "podCIDR": f"10.{high}.{low}.0/24", "podCIDRs": [f"10.{high}.{low}.0/24", f"fd00:10:{number:x}::/112"]
        },
        "status": {"addresses": [{"type": "InternalIP", "address": each} for each in addresses]},
    }  # fmt: skip


def pod(number: int, namespaces: int) -> Data:
    """A running pod. Web pods listen on 8080 or 8081 under one name."""
    at, of = number % namespaces, number // namespaces
    group = of // REPLICAS
    tier = TIERS[group % len(TIERS)]
    labels = {"app": f"app-{group}", "tier": tier, "version": f"v{of % 2}", "pod-template-hash": f"h{group:07x}"}
    if of % 7 == 0:
        labels["canary"] = "" if of % 2 else "true"
    machine, host = divmod(number, 50)
    high, low = divmod(machine, 256)
    addresses = [f"10.{high}.{low}.{host + 2}", f"fd00:10:{machine:x}::{host + 2:x}"]
    ports = [
        {"name": "http", "containerPort": 8080 + number % 2},
        {"name": "metrics", "containerPort": 9090, "protocol": "TCP"},
        {"name": "dns", "containerPort": 53, "protocol": "UDP"},
    ]
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": f"app-{group}-{of:04x}", "namespace": f"ns-{at}", "labels": labels},
        "spec": {
            "nodeName": f"node-{machine}",
            "containers": [{"name": "main", "image": f"registry.example.com/app-{group}:1.0", "ports": ports}],
        },
        "status": {
            "phase": "Running", "podIP": addresses[0], "podIPs": [{"ip": each} for each in addresses],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }  # fmt: skip


def policy(number: int, namespaces: int, rng: random.Random) -> Data:
    """A policy of a form that its number says; what it selects is drawn."""
    spec: Data = {"podSelector": pod_selector(rng), "policyTypes": ["Ingress"]}
    if number % 10 == 0:
        spec = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"] if number % 20 else ["Ingress"]}
        if number % 20:
            spec["egress"] = [{"ports": [{"port": "dns", "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}]
    else:
        spec["ingress"] = [{"from": peers(rng), "ports": ports(rng)} for _ in range(rng.randint(1, 3))]
        if number % 3 == 0:
            spec["policyTypes"] = ["Ingress", "Egress"]
            spec["egress"] = [{"to": peers(rng), "ports": ports(rng)} for _ in range(rng.randint(1, 2))]
    metadata = {"name": f"policy-{number}", "namespace": f"ns-{rng.randrange(namespaces)}"}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


def pod_selector(rng: random.Random) -> Data:
    """A selector of pods, of any form."""
    values = sorted(rng.sample(TIERS, 2))
    return rng.choice((
        {"matchLabels": {"tier": rng.choice(TIERS)}},
        {"matchLabels": {"app": f"app-{rng.randrange(10)}", "version": f"v{rng.randrange(2)}"}},
        {"matchExpressions": [{"key": "tier", "operator": "In", "values": values}]},
        {"matchExpressions": [{"key": "tier", "operator": "NotIn", "values": values}]},
        {"matchExpressions": [{"key": "canary", "operator": "Exists"}]},
        {
            "matchLabels": {"tier": rng.choice(TIERS)},
            "matchExpressions": [{"key": "canary", "operator": "DoesNotExist"}],
        },
        {"matchLabels": {"canary": ""}},
        {},
    ))  # fmt: skip


def namespace_selector(rng: random.Random) -> Data:
    """A selector of namespaces, of any form."""
    return rng.choice((
        {"matchLabels": {"team": rng.choice(TEAMS)}},
        {"matchLabels": {"kubernetes.io/metadata.name": f"ns-{rng.randrange(20)}"}},
        {"matchExpressions": [{"key": "stage", "operator": "NotIn", "values": ["prod"]}]},
        {"matchLabels": {"team": rng.choice(TEAMS), "stage": rng.choice(STAGES)}},
        {},
    ))  # fmt: skip


def peers(rng: random.Random) -> list[Data]:
    """The other ends of a rule: pods here, pods elsewhere, addresses with and without holes."""
    return [peer(rng) for _ in range(rng.randint(1, 3))]


def peer(rng: random.Random) -> Data:
    """One of the other ends of a rule."""
    return rng.choice((
        {"podSelector": pod_selector(rng)},
        {"namespaceSelector": namespace_selector(rng)},
        {"namespaceSelector": namespace_selector(rng), "podSelector": pod_selector(rng)},
        {"ipBlock": rng.choice(BLOCKS)},
    ))  # fmt: skip


def ports(rng: random.Random) -> list[Data]:
    """Ports of a rule: by number, by name, by range, all of a protocol, all."""
    some: tuple[list[Data], ...] = (
        [{"port": 8080}],
        [{"port": "http"}],
        [{"port": 8000, "endPort": 8999}, {"port": "metrics", "protocol": "TCP"}],
        [{"port": 5432}, {"port": 6379}],
        [{"protocol": "UDP", "port": 53}],
        [{"protocol": "TCP"}],
        [],
    )
    return rng.choice(some)


def as_json(objects: list[Data]) -> str:
    """The objects as `kubectl get -o json` prints them."""
    listed = {"apiVersion": "v1", "kind": "List", "items": objects}
    return msgspec.json.format(msgspec.json.encode(listed), indent=4).decode()


def as_yaml(objects: list[Data]) -> str:
    """The objects as documents of a file, as `kubectl get -o yaml` writes fields."""
    import yaml

    return yaml.dump_all(objects, Dumper=yaml.CSafeDumper, sort_keys=True)


def median(action: Callable[[], object], runs: int) -> float:
    """The median time of a call, in seconds; the garbage of one run is not on the bill of the next."""
    took = []
    for _ in range(runs):
        gc.collect()
        begin = time.perf_counter()
        action()
        took.append(time.perf_counter() - begin)
    return statistics.median(took)


PORTS = ("8080/TCP", "9090/TCP", "53/UDP", "5432/TCP")


def by_class(objects: tuple[api.Object, ...]) -> Reach:
    """From loaded objects to the verdicts of all classes at four ports."""
    found = reach(plan.of(objects), PORTS)
    for port in PORTS:
        found.allowed(port)
    return found


def pod_by_pod(objects: tuple[api.Object, ...]) -> int:
    """From loaded objects to four packed matrices, held at the same time: their bytes."""
    found = by_class(objects)
    return sum(matrix.nbytes for matrix in [found.expanded(port) for port in PORTS])


def one_by_one(objects: tuple[api.Object, ...], pairs: int) -> float:
    """The engine's time for one verdict with its reason, in seconds: the mean of pairs drawn by chance."""
    policies, rng = plan.of(objects), random.Random(7)
    drawn = [(rng.choice(policies.endpoints), rng.choice(policies.endpoints)) for _ in range(pairs)]
    begin = time.perf_counter()
    for source, destination in drawn:
        verdict(policies, source, destination, 8080)
    return (time.perf_counter() - begin) / pairs


def peak(pods: int, policies: int) -> tuple[float, float]:
    """The peak memory in MB of a process that computes the packed matrices, and of one that only has the objects."""
    asked = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import policies as p\n"
    asked += f"objects = p.api.load(*p.generated({pods}, {policies})).objects\n"
    say = "\nprint(next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    run = [
        subprocess.run([sys.executable, "-c", asked + more + say], check=True, capture_output=True, text=True).stdout
        for more in ("p.pod_by_pod(objects)", "")
    ]
    return int(run[0]) / 1024, int(run[1]) / 1024


def whole_process(folder: Path, pods: int, policies: int, form: str) -> float:
    """The median time of `k8snetlab reach` on a file of these objects, bytecode in its cache as after a first use."""
    objects = list(generated(pods, policies))
    path = folder / f"cluster.{form}"
    path.write_text(as_json(objects) if form == "json" else as_yaml(objects))
    words = [str(Path(sys.executable).with_name("k8snetlab")), "reach", "-f", str(path), "--cni", "calico"]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = str(folder / "bytecode")

    def run() -> None:
        subprocess.run([*words, *(word for port in PORTS for word in ("--port", port))], check=True,
                       capture_output=True, env=environment)  # fmt: skip

    run()
    return median(run, 5)


def main() -> None:
    """Measure, and print the table."""
    rows: list[tuple[str, str, str]] = []
    for pods, policies, runs, goals in ((1_000, 100, 9, ("50 ms", "-")), (10_000, 1_000, 5, ("0.5 s", "1.7 s"))):
        objects = api.load(*generated(pods, policies)).objects
        found = by_class(objects)
        what = f"{pods:,} pods, {policies:,} policies, {len(PORTS)} ports"
        took = shown(median(partial(by_class, objects), runs))
        rows.append((f"{what}: {len(found.classes):,} classes", took, goals[0]))
        took = shown(median(partial(pod_by_pod, objects), runs))
        rows.append((f"{what}: pod by pod, {pod_by_pod(objects) / 1e6:.1f} MB packed", took, goals[1]))
        rows.append((f"{what}: one verdict with its reason", shown(one_by_one(objects, 2_000)), "-"))
    used, held = peak(10_000, 1_000)
    rows.append(("peak memory of that process, all it loaded included", f"{used:.0f} MB", "400 MB"))
    rows.append(("peak memory with the objects alone", f"{held:.0f} MB", "-"))
    with TemporaryDirectory() as name:
        folder = Path(name)
        for form in ("json", "yaml"):
            took = shown(whole_process(folder, 1_000, 100, form))
            rows.append((f"k8snetlab reach on 1,000 × 100, whole process, {form.upper()}", took, "1 s"))
        many = list(generated(10_000, 1_000))
        for form, text, goal in (("json", as_json(many), "0.5 s"), ("yaml", as_yaml(many), "3 s")):
            path = folder / f"many.{form}"
            path.write_text(text)
            took = shown(median(partial(api.load, path), 3))
            size = f"{path.stat().st_size / 1e6:.0f} MB"
            rows.append((f"reading {len(many):,} objects, {form.upper()}, {size}", took, goal))
    print(f"Python {sys.version.split()[0]}, numpy {np.__version__}")
    for what, took, goal in rows:
        print(f"{what:<66} {took:>10}   goal {goal}")


def shown(seconds: float) -> str:
    """A time with a fitting unit."""
    if seconds < 0.001:
        return f"{seconds * 1e6:.0f} µs"
    return f"{seconds * 1e3:.1f} ms" if seconds < 0.1 else f"{seconds:.2f} s"


if __name__ == "__main__":
    main()
