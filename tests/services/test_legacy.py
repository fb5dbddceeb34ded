"""The one Endpoints object of a Service, compared with what a real controller wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from k8snetlab import api
from k8snetlab.controllers import resolved
from k8snetlab.services.legacy import OVER_CAPACITY, EndpointsObject
from k8snetlab.services.writes import Deed
from tests.services.web import pod, pods, service


def written(held: api.Service, *there: api.Pod) -> api.Endpoints:
    """The Endpoints object of a Service with these pods."""
    found = EndpointsObject(held).sync(there)[0].written
    assert found is not None
    return found


def test_endpoints_equal_those_of_a_real_controller(golden: Path) -> None:
    """From nodes, pods and Services of a real cluster come the objects its controller wrote: subsets and labels."""
    cluster = resolved(api.load(*(golden / f"{name}.json" for name in ("nodes", "pods", "svc", "endpointslices"))))
    given = {each.key: each for each in api.load(golden / "endpoints.json").of(api.Endpoints)}
    del given["default/kubernetes"]  # the API server writes that one
    assert {each.key: (each.subsets, each.labels) for each in cluster.endpoints} == {
        key: (each.subsets, each.labels) for key, each in given.items()
    }


def test_endpoints_of_a_dump_stay_as_they_are(golden: Path) -> None:
    """With the objects in the dump nothing is written again."""
    files = ("nodes", "pods", "svc", "endpointslices", "endpoints")
    manifests = api.load(*(golden / f"{name}.json" for name in files))
    assert sorted(resolved(manifests).endpoints, key=str) == sorted(manifests.of(api.Endpoints), key=str)


def test_one_family_only() -> None:
    """A Service with two families has one object, with addresses of the first."""
    both = service(ipFamilies=["IPv6", "IPv4"], ipFamilyPolicy="RequireDualStack")
    assert written(both, pod("a", "10.0.0.1", "fd00::1")).ready == ("fd00::1",)


def test_unready_pods_stand_apart_and_leaving_ones_are_gone() -> None:
    """There is a list for pods that are not ready, and nothing for those that are being deleted."""
    leaving = pod("c", "10.0.0.3", metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    there = (pod("a", "10.0.0.1"), pod("b", "10.0.0.2", ready=False), leaving)
    found = written(service(), *there)
    assert (found.ready, found.not_ready) == (("10.0.0.1",), ("10.0.0.2",))
    assert written(service(publishNotReadyAddresses=True), *there).ready == ("10.0.0.1", "10.0.0.2", "10.0.0.3")


def test_ports_of_the_same_pods_share_a_subset() -> None:
    """A port that one of two pods lacks has a subset of its own, and the other pod stands in both."""
    held = service(ports=[{"name": "a", "port": 80}, {"name": "b", "port": 81, "targetPort": "http"}])
    bare = pod("bare", "10.0.0.2", spec={"containers": [{"name": "c"}]})
    found = written(held, pod("full", "10.0.0.1"), bare)
    assert [([port.port for port in each.ports], [end.ip for end in each.addresses]) for each in found.subsets] == [
        ([80], ["10.0.0.1", "10.0.0.2"]),
        ([8080], ["10.0.0.1"]),
    ]


def test_a_headless_service_needs_no_ports() -> None:
    """Its addresses stand in a subset without ports."""
    [subset] = written(service(clusterIP="None", ports=[]), pod("a", "10.0.0.1")).subsets
    assert (len(subset.addresses), subset.ports) == (1, ())


def test_nobody_is_an_object_without_subsets() -> None:
    """It is there all the same."""
    assert written(service()).subsets == ()


def test_a_service_without_selector_is_for_others() -> None:
    """No object is made."""
    assert EndpointsObject(service(selector={})).sync(pods(1)) == (EndpointsObject(service(selector={})), ())


def test_above_a_thousand_the_rest_is_cut_off() -> None:
    """An annotation says so; with less it goes again."""
    held, writes = EndpointsObject(service()).sync(pods(1005))
    assert held.written is not None
    assert (len(held.written.ready), held.written.annotations[OVER_CAPACITY]) == (1000, "truncated")
    assert [write.deed for write in writes] == [Deed.CREATE]
    assert held.sync(pods(1005))[1] == ()
    held, _ = held.sync(pods(1000))
    assert held.written is not None
    assert (len(held.written.ready), held.written.annotations) == (1000, {})


def test_those_that_are_not_ready_are_cut_off_first() -> None:
    """Of 999 ready pods and five others, one of the five is kept."""
    others = tuple(pod(f"x-{at}", f"10.1.0.{at + 1}", ready=False) for at in range(5))
    found = written(service(), *pods(999), *others)
    assert (len(found.ready), len(found.not_ready)) == (999, 1)


@pytest.mark.parametrize(("number", "writes"), [(1, 1), (250, 1)])
def test_any_change_writes_the_whole_object(number: int, writes: int) -> None:
    """One pod of many that is not ready: one write, of everything."""
    held, _ = EndpointsObject(service()).sync(pods(number))
    held, done = held.sync((pod("web-0", "10.0.0.1", ready=False), *pods(number)[1:]))
    assert len(done) == writes
    assert len(done[0].object.ready) + len(done[0].object.not_ready) == number
