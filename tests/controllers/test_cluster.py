"""What a cluster has beside the manifests, and what is kept of a dump."""

import json
from pathlib import Path

import pytest

from k8snetlab import api
from k8snetlab.address import Prefix
from k8snetlab.controllers import Plan, resolved
from k8snetlab.errors import AddressInUse, ManifestError, PoolExhausted, UnknownName
from tests.controllers.example import cluster, node, pod, running, service, workload


def test_manifests_without_nodes_get_a_whole_cluster() -> None:
    """Three workers, the API server's Service and DNS are added, and what was added is said."""
    found = cluster(pod("a"))
    assert [(each.name, each.addresses, each.pod_cidrs) for each in found.nodes] == [
        ("node-1", ("172.18.0.11",), ("10.244.0.0/24",)),
        ("node-2", ("172.18.0.12",), ("10.244.1.0/24",)),
        ("node-3", ("172.18.0.13",), ("10.244.2.0/24",)),
    ]
    assert found.service("default/kubernetes").cluster_ips == ("10.96.0.1",)
    assert found.service("kube-system/kube-dns").cluster_ips == ("10.96.0.10",)
    assert "Service kube-system/kube-dns" in found.assumed
    assert "Pod default/a" not in found.assumed


def test_api_server_stands_on_the_underlay() -> None:
    """The Service default/kubernetes leads to the control plane, which runs no pods here."""
    (piece,) = cluster().slices_of("default/kubernetes")
    assert [each.address for each in piece.endpoints] == ["172.18.0.2"]
    assert [(port.name, port.port) for port in piece.ports] == [("https", 6443)]


def test_dns_has_two_pods_with_three_ports() -> None:
    """DNS answers by UDP and TCP, and offers metrics; its named ports join Service and pods."""
    found = cluster()
    pods = found.pods_of("deploy/kube-system/coredns")
    assert [each.node_name for each in pods] == ["node-1", "node-2"]
    assert [(each.protocol, each.port) for each in found.listens(pods[0])] == [("UDP", 53), ("TCP", 53), ("TCP", 9153)]
    (piece,) = found.slices_of("kube-system/kube-dns")
    assert {port.name for port in piece.ports} == {"dns", "dns-tcp", "metrics"}
    assert len(piece.endpoints) == 2


def test_cluster_of_the_other_family() -> None:
    """An IPv6 cluster is the same cluster with other addresses."""
    found = cluster(pod("a"), families=(6,))
    assert found.node("node-1").addresses == ("fd00:172::11",)
    assert found.service("default/kubernetes").cluster_ips == ("fd00:10:96::1",)
    assert found.service("kube-system/kube-dns").cluster_ips == ("fd00:10:96::a",)
    assert found.pod("default/a").ips == ("fd00:10:244:2::2",)
    assert found.slices_of("default/kubernetes")[0].endpoints[0].address == "fd00:172::2"


def test_what_the_manifests_bring_is_not_added_again() -> None:
    """A DNS Service or DNS pods of one's own are used, whatever they are called."""
    mine = workload("Deployment", "my-dns")
    mine["metadata"]["namespace"] = "kube-system"
    mine["spec"]["selector"]["matchLabels"] = mine["spec"]["template"]["metadata"]["labels"] = {"k8s-app": "kube-dns"}
    found = cluster(mine)
    assert "Deployment kube-system/coredns" not in found.assumed
    assert "Service kube-system/kube-dns" in found.assumed


def test_manifests_with_a_node_are_complete() -> None:
    """Nothing is added to a cluster that names its machines, but its workloads still get their pods."""
    found = cluster(node("a", "172.18.0.5"), workload("Deployment", "web", replicas=2))
    assert found.assumed == ("Namespace default",)
    assert [each.name for each in found.nodes] == ["a"]
    assert [each.node_name for each in found.pods] == ["a", "a"]


def test_node_gets_what_it_lacks() -> None:
    """A Node without addresses or pod range gets the next free ones."""
    found = cluster(node("a"), node("b", "172.18.0.11", spec={"podCIDR": "10.244.0.0/24"}))
    assert (found.node("a").addresses, found.node("a").pod_cidrs) == (("172.18.0.12",), ("10.244.1.0/24",))


def test_nodes_cannot_share_an_address_or_a_range() -> None:
    """Two machines at one address are a mistake."""
    with pytest.raises(AddressInUse) as caught:
        cluster(node("a", "172.18.0.5"), node("b", "172.18.0.5"))
    assert caught.value.owners == ("Node a", "Node b")


def test_pod_network_ends() -> None:
    """A pod network of two ranges is enough for two nodes."""
    with pytest.raises(PoolExhausted, match="all 2 are in use") as caught:
        cluster(pod_cidrs=(Prefix.of("10.1.0.0/23"),))
    assert caught.value.problems[0].object == "Node node-3"


def test_underlay_ends() -> None:
    """A subnet of eight addresses has no eleventh."""
    with pytest.raises(PoolExhausted, match=r"172\.18\.0\.0/29"):
        cluster(node_cidrs=(Prefix.of("172.18.0.0/29"),))


def test_namespaces_that_are_used_exist() -> None:
    """An object's namespace is there even if nobody wrote it down, with its label."""
    plain = service("a")
    plain["metadata"]["namespace"] = "shop"
    found = cluster(plain)
    assert [each.name for each in found.namespaces] == ["default", "kube-system", "shop"]
    assert found.namespace("shop").labels == {"kubernetes.io/metadata.name": "shop"}


def test_dump_of_a_real_cluster_is_kept_as_it_is(golden: Path) -> None:
    """Every object of a dump leaves as it came, and no slice is made again."""
    manifests = api.load(*(golden / f"{name}.json" for name in ("nodes", "pods", "svc", "endpointslices")))
    found = resolved(manifests)
    there = {each.ref: each for each in found.objects}
    assert all(there[each.ref] == each for each in manifests.objects)
    assert set(there) - {each.ref for each in manifests.objects} == {"Namespace default"}
    assert found.networks.families == (4, 6)


def test_dump_of_a_real_application_is_kept_as_it_is(shared: Path) -> None:
    """The same with pods that belong to Deployments: all addresses and names stay."""
    dump = json.loads((shared / "golden" / "boutique" / "api.json").read_text())
    kinds = ("nodes", "pods", "services", "endpointslices")
    manifests = api.load(*(each for kind in kinds for each in dump[kind]))
    found = resolved(manifests)
    assert [(each.key, each.ips) for each in found.pods] == [(each.key, each.ips) for each in manifests.of(api.Pod)]
    assert sorted(found.endpoint_slices, key=str) == sorted(manifests.of(api.EndpointSlice), key=str)


def test_slices_of_a_dump_follow_when_a_pod_goes(golden: Path) -> None:
    """Without one of its pods a Service has slices of the same names with one endpoint less; the others stay."""
    manifests = api.load(*(golden / f"{name}.json" for name in ("nodes", "pods", "svc", "endpointslices")))
    whole, less = resolved(manifests), resolved(manifests.without("Pod", "default/p11"))
    (before,), (after,) = whole.slices_of("default/web"), less.slices_of("default/web")
    assert (before.name, len(before.endpoints), len(after.endpoints)) == (after.name, 3, 2)
    assert whole.slices_of("default/lb") == less.slices_of("default/lb")
    assert whole.slices_of("default/manual") == less.slices_of("default/manual")


def test_slices_without_pods_are_believed(golden: Path) -> None:
    """A dump that has no pods still says who answers."""
    manifests = api.load(*(golden / f"{name}.json" for name in ("nodes", "svc", "endpointslices")))
    assert {each.ref for each in resolved(manifests).endpoint_slices} == {
        each.ref for each in manifests.of(api.EndpointSlice)
    }


def test_pods_of_a_dump_are_not_made_twice(shared: Path) -> None:
    """The manifests of an application together with a dump of its pods give the pods of the dump."""
    dump = json.loads((shared / "golden" / "boutique" / "api.json").read_text())
    manifests = api.load(
        *dump["nodes"], *dump["pods"], *dump["services"], *dump["endpointslices"],
        *api.load(shared / "real" / "online-boutique.yaml").of(api.Deployment),
    )  # fmt: skip
    found = resolved(manifests)
    assert {each.key for each in found.pods} == {each.key for each in manifests.of(api.Pod)}
    assert len(found.pods_of("deploy/default/frontend")) == 1


def test_same_manifests_give_the_same_cluster() -> None:
    """Nothing is drawn that does not follow from the input."""
    plain = workload("Deployment", "web", replicas=3)
    assert cluster(plain) == cluster(plain)


def test_names_that_are_not_there_come_with_those_that_are_close() -> None:
    """A look-up that fails suggests."""
    found = cluster(pod("web"), service("api"))
    for ask, close in ((found.pod, "default/wbe"), (found.service, "default/apii"), (found.node, "node1")):
        with pytest.raises(UnknownName, match="did you mean"):
            ask(close)
    for missing in ("deploy/default/web", "thing/default/web"):
        with pytest.raises(UnknownName):
            found.pods_of(missing)


def test_objects_are_found_by_kind_and_by_node() -> None:
    """Kinds that need no controller are there too."""
    policy = {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "a"}, "spec": {}}
    found = cluster(policy, pod("a", nodeName="node-3"))
    assert [each.ref for each in found.of(api.NetworkPolicy)] == ["NetworkPolicy default/a"]
    assert [each.key for each in found.pods_on("node-3")] == ["default/a"]
    assert len(found.nodes) == 3
    assert found.pods_on("nowhere") == ()


def test_problem_found_late_still_names_file_and_line(tmp_path: Path) -> None:
    """An address that is asked for twice is said with the place of the second one."""
    path = tmp_path / "a.yaml"
    documents = [service("a", clusterIP="10.96.0.7"), service("b", clusterIP="10.96.0.7")]
    path.write_text("\n---\n".join(map(json.dumps, documents)))
    with pytest.raises(AddressInUse) as caught:
        resolved(api.load(path), Plan())
    (problem,) = caught.value.problems
    assert (problem.file, problem.line, problem.object, problem.field) == (
        str(path), 3, "Service default/b", "spec.clusterIPs",
    )  # fmt: skip
    assert str(caught.value) == (
        f'{path}:3: Service default/b: spec.clusterIPs: Invalid value: ["10.96.0.7"]: failed to allocate IP 10.96.0.7: '
        "provided IP is already allocated: 10.96.0.7 is asked for by Service default/a and by Service default/b"
    )


def test_pod_on_an_unknown_node_is_refused() -> None:
    """A complete cluster knows its nodes."""
    with pytest.raises(UnknownName) as caught:
        cluster(node("a", "172.18.0.5"), running("p", "b", "10.244.0.2"))
    assert caught.value.problems[0].field == "spec.nodeName"


def test_address_outside_the_service_network_is_refused() -> None:
    """The API server would not take it either; the message says what to change."""
    with pytest.raises(ManifestError, match="choose the network with service_cidr"):
        cluster(service("a", clusterIP="192.0.2.1"))
