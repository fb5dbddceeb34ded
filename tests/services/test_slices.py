"""What the EndpointSlice controller writes for a Service, compared with what a real one wrote."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from k8snetlab import api
from k8snetlab.services.slices import Slices, made_by_controller
from k8snetlab.services.targets import selected
from tests.services.web import NODES, pod, service


def written(held: api.Service, *pods: api.Pod) -> tuple[api.EndpointSlice, ...]:
    """The slices of a Service with these pods."""
    return Slices(held, NODES).sync(pods)[0].pieces


def conditions(endpoints: Iterable[api.Endpoint]) -> list[tuple[bool | None, ...]]:
    """Ready, serving and terminating of each endpoint."""
    return [(each.conditions.ready, each.conditions.serving, each.conditions.terminating) for each in endpoints]


# What a real controller wrote

LIVE = ("annotations", "creationTimestamp", "generation", "name", "resourceVersion", "uid")


def comparable(piece: api.EndpointSlice) -> dict[str, Any]:
    """A slice without what a live object has beside: its drawn name, its times and versions."""
    plain: Any = api.to_dict(piece)
    plain["metadata"] = {key: value for key, value in plain["metadata"].items() if key not in LIVE}
    plain.get("endpoints", []).sort(key=lambda each: each["addresses"])
    return dict(plain)


def compared(pieces: Iterable[api.EndpointSlice]) -> list[str]:
    """Slices as sorted texts."""
    return sorted(json.dumps(comparable(each), sort_keys=True) for each in pieces)


def test_slices_equal_those_of_a_real_controller(golden: Path) -> None:
    """From nodes, pods and Services of a real cluster come the slices its controller wrote, field by field."""
    manifests = api.load(*(golden / f"{name}.json" for name in ("nodes", "pods", "svc", "endpointslices")))
    nodes = {node.name: node for node in manifests.of(api.Node)}
    meant = selected(manifests.of(api.Service), manifests.of(api.Pod))
    made = [
        piece
        for each in manifests.of(api.Service)
        for piece in Slices(each, nodes).sync(meant.get(each.key, ()))[0].pieces
    ]
    given = [each for each in manifests.of(api.EndpointSlice) if made_by_controller([each])]
    assert len(given) == 15
    assert compared(made) == compared(given)


def test_slices_equal_those_of_a_real_application(shared: Path) -> None:
    """The same for a dozen Services that were not written for this project."""
    dump = json.loads((shared / "golden" / "boutique" / "api.json").read_text())
    kinds = ("nodes", "pods", "services", "endpointslices")
    manifests = api.load(*(each for kind in kinds for each in dump[kind]))
    nodes = {node.name: node for node in manifests.of(api.Node)}
    meant = selected(manifests.of(api.Service), manifests.of(api.Pod))
    made = [
        piece
        for each in manifests.of(api.Service)
        for piece in Slices(each, nodes).sync(meant.get(each.key, ()))[0].pieces
    ]
    given = [each for each in manifests.of(api.EndpointSlice) if made_by_controller([each])]
    assert {each.service_name: [e.addresses for e in each.endpoints] for each in made} == {
        each.service_name: [e.addresses for e in each.endpoints] for each in given
    }


# Who is in


def test_selector_wants_every_label_in_its_namespace() -> None:
    """A pod of another namespace, or without one of the labels, is not meant."""
    held = service(selector={"app": "web", "tier": "front"})
    pods = (
        pod("in", metadata={"labels": {"app": "web", "tier": "front", "more": "x"}}),
        pod("without"),
        pod("elsewhere", metadata={"namespace": "other", "labels": {"app": "web", "tier": "front"}}),
    )
    assert [each.name for each in selected([held], pods)["default/web"]] == ["in"]


def test_service_without_selector_or_of_another_kind_has_none() -> None:
    """Slices of a Service without a selector are written by hand; an ExternalName is only a DNS name."""
    assert written(service(selector={}), pod("a", "10.0.0.1")) == ()
    assert written(service(type="ExternalName", externalName="a.example", ports=[]), pod("a", "10.0.0.1")) == ()


def test_service_with_nobody_has_one_empty_slice() -> None:
    """Scaled to zero, a Service keeps a slice without endpoints and without ports."""
    (piece,) = written(service())
    assert (piece.endpoints, piece.ports, piece.address_type) == ((), (), "IPv4")


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_completed_pods_are_out(phase: str) -> None:
    """A pod that is done has no endpoint, though its address still stands in its status."""
    (piece,) = written(service(), pod("a", "10.0.0.1", status={"phase": phase}))
    assert piece.endpoints == ()


def test_pods_without_an_address_or_a_node_are_out() -> None:
    """Before it has an address, or when its node is gone, a pod has no endpoint."""
    gone = pod("a", "10.0.0.1", spec={"nodeName": "gone"})
    (piece,) = written(service(), pod("b"), gone)
    assert piece.endpoints == ()
    (piece,) = written(service(publishNotReadyAddresses=True), gone)
    assert len(piece.endpoints) == 1


def test_unready_and_terminating_pods_are_in() -> None:
    """They are written with their conditions; who uses them is for others to decide."""
    leaving = {"deletionTimestamp": "2026-11-22T00:00:00Z"}
    (piece,) = written(
        service(),
        pod("a", "10.0.0.1"),
        pod("b", "10.0.0.2", ready=False),
        pod("c", "10.0.0.3", metadata=leaving),
        pod("d", "10.0.0.4", metadata=leaving, ready=False),
    )
    assert conditions(piece.endpoints) == [
        (True, True, False),
        (False, False, False),
        (False, True, True),
        (False, False, True),
    ]


def test_publish_not_ready_makes_everybody_ready() -> None:
    """The Service asks for it, and the slice says so; `serving` stays what it is."""
    (piece,) = written(service(publishNotReadyAddresses=True), pod("a", "10.0.0.1", ready=False))
    assert conditions(piece.endpoints) == [(True, False, False)]


# Ports


def test_named_target_port_is_looked_up_in_each_pod() -> None:
    """Pods with another number for the name go into slices of their own; pods without it into one without ports."""
    held = service(ports=[{"port": 80, "targetPort": "http"}])
    other = {"containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 9090}]}]}
    bare = {"containers": [{"name": "c"}]}
    pieces = written(held, pod("a", "10.0.0.1"), pod("b", "10.0.0.2", spec=other), pod("c", "10.0.0.3", spec=bare))
    assert [[port.port for port in piece.ports] for piece in pieces] == [[8080], [9090], []]
    assert [[each.address for each in piece.endpoints] for piece in pieces] == [
        ["10.0.0.1"],
        ["10.0.0.2"],
        ["10.0.0.3"],
    ]


def test_pod_that_lacks_one_port_is_there_for_the_others() -> None:
    """Each set of ports has its slice."""
    held = service(ports=[{"name": "a", "port": 80}, {"name": "b", "port": 81, "targetPort": "admin"}])
    (piece,) = written(held, pod("a", "10.0.0.1"))
    assert [(port.name, port.port) for port in piece.ports] == [("a", 80)]


def test_headless_service_without_ports_has_endpoints() -> None:
    """Names need no ports."""
    (piece,) = written(service(clusterIP="None", ports=[]), pod("a", "10.0.0.1"))
    assert (piece.ports, len(piece.endpoints)) == ((), 1)
    assert piece.labels["service.kubernetes.io/headless"] == ""


# Families, sizes, names


def test_each_family_has_its_slices() -> None:
    """A dual-stack Service has one set of slices a family; a pod without such an address is missing there."""
    held = service(ipFamilies=["IPv4", "IPv6"], ipFamilyPolicy="RequireDualStack")
    pieces = written(held, pod("a", "10.0.0.1", "fd00::1"), pod("b", "10.0.0.2"))
    assert [(piece.address_type, [e.address for e in piece.endpoints]) for piece in pieces] == [
        ("IPv4", ["10.0.0.1", "10.0.0.2"]),
        ("IPv6", ["fd00::1"]),
    ]


@pytest.mark.parametrize(("pods", "sizes"), [(99, [99]), (100, [100]), (101, [100, 1]), (250, [100, 100, 50])])
def test_slice_holds_a_hundred(pods: int, sizes: list[int]) -> None:
    """The 101st endpoint begins another slice, with another name."""
    pieces = written(service(), *(pod(f"p{each}", f"10.0.{each // 250}.{each % 250 + 1}") for each in range(pods)))
    assert [len(piece.endpoints) for piece in pieces] == sizes
    assert len({piece.name for piece in pieces}) == len(sizes)


def test_slice_carries_the_labels_of_its_service() -> None:
    """The Service's own labels are copied; those that file the slice cannot be overruled."""
    held = api.load(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  labels:\n    team: a\n"
        "    kubernetes.io/service-name: other\nspec: {selector: {app: web}, ports: [{port: 80}]}\n"
    ).of(api.Service)[0]
    (piece,) = written(held)
    assert piece.labels == {
        "team": "a",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        "kubernetes.io/service-name": "web",
    }


def test_host_name_is_for_the_service_of_the_subdomain() -> None:
    """`hostname` and `subdomain` give a DNS name in the Service of that name only."""
    named = {"hostname": "one", "subdomain": "web"}
    (piece,) = written(service(), pod("a", "10.0.0.1", spec=named), pod("b", "10.0.0.2", spec={"hostname": "two"}))
    assert [each.hostname for each in piece.endpoints] == ["one", None]


# Hints


@pytest.mark.parametrize("wish", ["PreferClose", "PreferSameZone"])
def test_same_zone_is_hinted_by_zone(wish: str) -> None:
    """Each ready endpoint is meant for its own zone; an unready one for nobody."""
    (piece,) = written(service(trafficDistribution=wish), pod("a", "10.0.0.1"), pod("b", "10.0.0.2", ready=False))
    first, second = piece.endpoints
    assert first.hints is not None
    assert ([each.name for each in first.hints.for_zones], first.hints.for_nodes) == (["zone-a"], ())
    assert second.hints is None


def test_same_node_is_hinted_by_node_and_zone() -> None:
    """The node comes first and the zone second: kube-proxy falls back."""
    (piece,) = written(service(trafficDistribution="PreferSameNode"), pod("a", "10.0.0.1"))
    hints = piece.endpoints[0].hints
    assert hints is not None
    assert ([each.name for each in hints.for_zones], [each.name for each in hints.for_nodes]) == (
        ["zone-a"],
        ["node-1"],
    )


def test_no_zone_no_zone_hint() -> None:
    """Where nodes have no zone there is nothing to prefer."""
    (piece,) = written(service(trafficDistribution="PreferClose"), pod("a", "10.0.0.1", spec={"nodeName": "nowhere"}))
    assert (piece.endpoints[0].zone, piece.endpoints[0].hints) == (None, None)
