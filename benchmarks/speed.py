"""How long do the everyday things take? Prints a table; nothing is asserted.

    make bench          or          python benchmarks/speed.py

Every figure is the median of many runs in one process (or of whole processes, where it says so), with its goal beside
it. A trace here is one packet and its reply, without the list of outcomes; nothing is remembered between two traces but
the compiled state.
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

import k8snetlab as k8s
from k8snetlab import api
from k8snetlab.cluster import examples_folder
from k8snetlab.services.slices import Slices

CLIENT, TARGET = "shop/web-0", "svc/shop/api:80"


def median(action: Callable[[], object], runs: int) -> float:
    """The median time of a call, in seconds, with the garbage collector as it is."""
    took = []
    for _ in range(runs):
        begin = time.perf_counter()
        action()
        took.append(time.perf_counter() - begin)
    return statistics.median(took)


def across_nodes(shop: k8s.Cluster) -> int:
    """A seed with which the trace goes to another node."""
    for seed in range(50):
        trace = shop.trace(CLIENT, TARGET, seed=seed)
        if trace.backend is not None and trace.backend.node != shop.objects.pod(CLIENT).spec.node_name:
            return seed
    raise SystemExit("no backend of the Service is on another node")


def process(*command: str, runs: int = 7) -> float:
    """The median time of a whole process, in seconds, with Python's bytecode in its cache, as after a first use."""
    with TemporaryDirectory() as cache:
        wanted = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        run = partial(
            subprocess.run, command, check=True, capture_output=True, env={**wanted, "PYTHONPYCACHEPREFIX": cache}
        )
        run()
        return median(run, runs)


def main() -> None:
    """Measure, and print the table."""
    folder = examples_folder() / "bookshop"
    shop = k8s.Cluster.load(folder)
    seed = across_nodes(shop)
    manifests = api.load(folder)
    steps = shop.trace(CLIENT, TARGET, seed=seed)
    rows: list[tuple[str, float, str]] = []

    for _ in range(300):
        shop.trace(CLIENT, TARGET, seed=seed)
    gc.collect()
    rows.append(
        ("ClusterIP trace across nodes, warm", median(lambda: shop.trace(CLIENT, TARGET, seed=seed), 2000), "300 µs")
    )
    rows.append((
        "first trace in the bookshop, from parsed objects",
        median(lambda: k8s.Cluster(manifests).trace(CLIENT, TARGET, seed=seed), 21),
        "50 ms",
    ))  # fmt: skip
    rows.append(
        ("all outcomes of that trace", median(lambda: shop.trace(CLIENT, TARGET, seed=seed).outcomes, 101), "—")
    )
    rows.append(("reading the bookshop's manifests", median(lambda: api.load(folder), 11), "—"))
    bare = process(sys.executable, "-c", "pass", runs=15)
    full = process(sys.executable, "-c", "import k8snetlab", runs=15)
    rows.append(("import k8snetlab, over bare Python", full - bare, "80 ms"))
    command = str(Path(sys.executable).with_name("k8snetlab"))
    trace = (command, "trace", "-f", str(folder), "--from", CLIENT, "--to", TARGET)
    rows.append(("k8snetlab trace on the bookshop, whole process", process(*trace), "500 ms"))
    rows.append(("explorer update of 2_1, CPU in the kernel", explorer(), "20 ms"))
    rows.append(("explorer update of 2_2, state compiled anew", explorer_of_services(), "20 ms"))
    rows += ((f"{count:,} Services × 5 endpoints on one node", compiling(count), goal) for count, goal in SERVICES)
    rows.append(("outcomes over 100 endpoints on 200 nodes, first time", outcomes_of_many(), "2 s"))
    rows += slices(10_000)

    print(
        f"Python {sys.version.split()[0]}; the trace has {len(steps.steps)} steps and {len(steps.reply)} in its reply"
    )
    for name, seconds, goal in rows:
        print(f"{name:<52} {shown(seconds):>10}   goal {goal}")


SERVICES = ((100, "50 ms"), (1_000, "0.5 s"), (10_000, "5 s"))
"""How many Services, and the goal: linear."""


def compiling(count: int) -> float:
    """The time to make the rules of one node for so many Services with 5 endpoints each, and their text as
    `iptables-save` prints it, from resolved objects: median of 3 clusters.
    """
    manifests = api.load(*many_services(count))
    took = []
    for _ in range(3):
        cluster = k8s.Cluster(manifests)
        _ = cluster.objects
        gc.collect()
        begin = time.perf_counter()
        cluster.host("node-1").show("iptables")
        took.append(time.perf_counter() - begin)
    return statistics.median(took)


def many_services(count: int) -> Iterator[dict[str, object]]:
    """Services with an EndpointSlice of 5 pods on three nodes each; every tenth has a node port."""
    for number in (1, 2, 3):
        yield {
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": f"node-{number}"},
            "spec": {"podCIDR": f"10.{number}.0.0/16"},
            "status": {"addresses": [{"type": "InternalIP", "address": f"172.18.0.{number + 10}"}]},
        }  # fmt: skip
    for number in range(count):
        name = f"svc-{number}"
        kind = "NodePort" if number % 10 == 0 else "ClusterIP"
        ports = [{"port": 80, "targetPort": 8080}]
        yield {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": {"app": name}, "type": kind, "ports": ports},
        }  # fmt: skip
        labels = {"kubernetes.io/service-name": name, "endpointslice.kubernetes.io/managed-by": CONTROLLER}
        yield {
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": {"name": name, "labels": labels},
            "addressType": "IPv4", "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
            "endpoints": [endpoint(5 * number + each) for each in range(5)],
        }  # fmt: skip


CONTROLLER = "endpointslice-controller.k8s.io"


def endpoint(number: int) -> dict[str, object]:
    """A ready pod on one of three nodes."""
    node, host = number % 3 + 1, number // 3
    return {
        "addresses": [f"10.{node}.{host // 250}.{host % 250 + 2}"], "conditions": {"ready": True},
        "nodeName": f"node-{node}", "targetRef": {"kind": "Pod", "namespace": "default", "name": f"pod-{number}"},
    }  # fmt: skip


def outcomes_of_many() -> float:
    """The time to walk to each of 100 endpoints, when their nodes have never been looked at: of 10,000 pods on 200
    nodes, behind 100 Services.
    """
    manifests = api.load(*many_pods(10_000, nodes=200, services=100))
    cluster = k8s.Cluster(manifests)
    trace = cluster.trace(cluster.objects.pods[0].key, "svc/default/app-50:80")
    begin = time.perf_counter()
    assert len(trace.outcomes) == 100
    return time.perf_counter() - begin


def many_pods(pods: int, *, nodes: int, services: int) -> Iterator[dict[str, object]]:
    """Nodes, Deployments that share the pods, and a Service for each."""
    for number in range(nodes):
        address = f"172.18.{number // 200}.{10 + number % 200}"
        yield {
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": f"node-{number}"},
            "status": {"addresses": [{"type": "InternalIP", "address": address}]},
        }  # fmt: skip
    for number in range(services):
        name = f"app-{number}"
        containers = [{"name": "c", "image": "example", "ports": [{"containerPort": 80}]}]
        template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": containers}}
        spec = {"replicas": pods // services, "selector": {"matchLabels": {"app": name}}, "template": template}
        yield {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
        yield {
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": {"app": name}, "ports": [{"port": 80}]},
        }  # fmt: skip


def slices(number: int) -> list[tuple[str, float, str]]:
    """The EndpointSlice controller with so many pods of one Service: its first look, and one after a pod changed."""
    ledger = k8s.example("service-many-pods").ledger("default/web")
    pods = k8s.churn.resized(ledger.pods, number)
    fresh = Slices(ledger.slices.service, ledger.slices.nodes)
    held, _ = fresh.sync(pods)
    changed = next(k8s.churn.stumbled(pods, 1))
    return [
        (f"EndpointSlices of {number:,} pods", median(lambda: fresh.sync(pods), 5), "2 s"),
        (f"EndpointSlices when one of {number:,} pods changed", median(lambda: held.sync(changed), 21), "50 ms"),
    ]


def explorer() -> float:
    """The CPU time from a changed control to the changed picture and text, state cached: median of 60 changes."""
    from k8snetlab.explore.pod_to_pod import PodToPod

    widget = PodToPod(k8s.example("same-node-other-node"))
    rng = random.Random(7)
    for size in (0, 1000):
        for missing in ("nothing", "route"):
            widget.size, widget.missing = size, missing
    took = []
    for _ in range(60):
        size = rng.choice([size for size in range(0, 3000, 100) if size != widget.size])
        begin = time.process_time()
        widget.size = size
        took.append(time.process_time() - begin)
    return statistics.median(took)


def explorer_of_services() -> float:
    """The CPU time from a changed control to the changed picture and text, nearly always of another cluster: median of
    60 changes of any control.
    """
    from k8snetlab.explore.service import WhoAnswers

    widget = WhoAnswers(k8s.example("service-three-backends"))
    rng = random.Random(7)
    took = []
    for _ in range(60):
        name = rng.choice(list(widget.controls))
        control = widget.controls[name]
        choices = range(control.min, control.max + 1) if name == "ready" else control.options
        value = rng.choice([choice for choice in choices if choice != control.value])
        begin = time.process_time()
        setattr(widget, name, value)
        took.append(time.process_time() - begin)
    return statistics.median(took)


def shown(seconds: float) -> str:
    """A time with a fitting unit."""
    return f"{seconds * 1e6:.0f} µs" if seconds < 0.001 else f"{seconds * 1e3:.1f} ms"


if __name__ == "__main__":
    main()
