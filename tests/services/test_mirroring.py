"""Endpoints that a person wrote, and the slices that kube-proxy can read."""

from __future__ import annotations

from typing import Any

import pytest

from k8snetlab import api
from k8snetlab.cluster import Cluster
from k8snetlab.services.mirroring import MIRRORED, mirrored
from k8snetlab.services.slices import MANAGED_BY
from k8snetlab.services.writes import Deed
from tests.services.web import service

BY_HAND = service(selector={})


def endpoints(*addresses: str, **metadata: Any) -> api.Endpoints:
    """The Endpoints `web` with these addresses and port 9000."""
    subsets = [{"addresses": [{"ip": each} for each in addresses], "ports": [{"port": 9000}]}] if addresses else []
    return decoded(subsets, **metadata)


def decoded(subsets: list[dict[str, Any]], **metadata: Any) -> api.Endpoints:
    """The Endpoints `web` with these subsets."""
    plain = {"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "web", **metadata}, "subsets": subsets}
    found = api.decode(plain)
    assert isinstance(found.object, api.Endpoints), found.problems
    return found.object


def test_addresses_become_a_slice() -> None:
    """With the port, the name of the Service and that of the controller; of the conditions only `ready`."""
    [piece], [write] = mirrored(endpoints("192.0.2.1"), BY_HAND)
    assert (piece.service_name, piece.labels[MANAGED_BY]) == ("web", MIRRORED)
    assert [port.port for port in piece.ports] == [9000]
    assert piece.endpoints[0].conditions == api.EndpointConditions(ready=True)
    assert piece.owner is not None and piece.owner.kind == "Endpoints"
    assert write.deed is Deed.CREATE


def test_addresses_that_are_not_ready_are_mirrored_as_such() -> None:
    """They come after the others."""
    subsets = [{"addresses": [{"ip": "192.0.2.1"}], "notReadyAddresses": [{"ip": "192.0.2.2"}]}]
    [piece], _ = mirrored(decoded(subsets), BY_HAND)
    assert [(end.address, end.ready) for end in piece.endpoints] == [("192.0.2.1", True), ("192.0.2.2", False)]


def test_each_family_has_its_slice() -> None:
    """An Endpoints object may mix families, a slice may not."""
    pieces, _ = mirrored(endpoints("192.0.2.1", "2001:db8::1"), BY_HAND)
    assert [(each.address_type, each.endpoints[0].address) for each in pieces] == [
        ("IPv4", "192.0.2.1"),
        ("IPv6", "2001:db8::1"),
    ]


def test_a_thousand_addresses_of_a_subset_are_mirrored() -> None:
    """The rest is not."""
    [piece], _ = mirrored(endpoints(*(f"10.0.{at // 250}.{at % 250 + 1}" for at in range(1005))), BY_HAND)
    assert len(piece.endpoints) == 1000


@pytest.mark.parametrize(
    ("metadata", "held"),
    [
        ({"labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}}, BY_HAND),
        ({"annotations": {"control-plane.alpha.kubernetes.io/leader": "{}"}}, BY_HAND),
        ({}, service()),
        ({}, None),
    ],
    ids=["label", "leader election", "selector", "no Service"],
)
def test_what_is_not_mirrored(metadata: dict[str, Any], held: api.Service | None) -> None:
    """A label, a leader election, a selector, no Service: nothing is made, and what was made before is deleted."""
    before = mirrored(endpoints("192.0.2.1"), BY_HAND).slices
    pieces, writes = mirrored(endpoints("192.0.2.1", **metadata), held, before)
    assert (pieces, [write.deed for write in writes]) == ((), [Deed.DELETE])


def test_labels_and_annotations_are_copied() -> None:
    """Except what kubectl applied, and the time of the change."""
    notes = {"a": "b", "kubectl.kubernetes.io/last-applied-configuration": "{}"}
    [piece], _ = mirrored(endpoints("192.0.2.1", labels={"team": "a"}, annotations=notes), BY_HAND)
    assert (piece.labels["team"], piece.annotations) == ("a", {"a": "b"})


def test_a_mirror_is_written_again_when_it_is_no_longer_true() -> None:
    """Another address is an update of the slice, and the same addresses are nothing; other ports use it too."""
    before = mirrored(endpoints("192.0.2.1"), BY_HAND).slices
    assert mirrored(endpoints("192.0.2.1"), BY_HAND, before) == (before, ())
    after, writes = mirrored(endpoints("192.0.2.1", "192.0.2.2"), BY_HAND, before)
    assert ([write.deed for write in writes], after[0].name) == ([Deed.UPDATE], before[0].name)
    other = decoded([{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 9001}]}])
    after, writes = mirrored(other, BY_HAND, before)
    assert ([write.deed for write in writes], after[0].name) == ([Deed.UPDATE], before[0].name)


def test_nothing_to_mirror_deletes() -> None:
    """Without addresses there is no slice; no placeholder is kept."""
    before = mirrored(endpoints("192.0.2.1"), BY_HAND).slices
    pieces, writes = mirrored(endpoints(), BY_HAND, before)
    assert (pieces, [write.deed for write in writes]) == ((), [Deed.DELETE])


MANIFESTS = """
apiVersion: v1
kind: Service
metadata: {name: elsewhere}
spec: {ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: elsewhere}
subsets: [{addresses: [{ip: 10.244.1.2}], ports: [{port: 8080}]}]
---
apiVersion: v1
kind: Pod
metadata: {name: server}
spec: {nodeName: node-2, containers: [{name: c, image: i, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {nodeName: node-1, containers: [{name: c, image: i}]}
"""


def test_packets_find_what_a_person_wrote() -> None:
    """In a cluster, the mirror leads to the address of the Endpoints object, as a slice by hand would."""
    cluster = Cluster.load(MANIFESTS)
    server = cluster.objects.pod("default/server").ip
    cluster = cluster.applied(MANIFESTS.replace("10.244.1.2", server))
    trace = cluster.trace("default/client", "svc/default/elsewhere:80")
    assert trace.backend is not None
    assert (trace.backend.pod, trace.backend.ip) == ("server", server)
