"""Real speakers of BGP: BIRD on every node learns, and writes, what is computed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping

import pytest

from k8snetlab import CannotDo, Cluster, UnknownName, example, live
from k8snetlab.live import bird

BOTH = {
    "pod_cidr": "10.244.0.0/16,fd00:10:244::/56",
    "service_cidr": "10.96.0.0/12,fd00:10:96::/108",
    "node_cidr": "172.18.0.0/16,fd00:172::/64",
}
TOPOLOGIES: Mapping[str, Mapping[str, str]] = {
    "mesh": {"mode": "bgp"},
    "two reflectors": {"mode": "bgp", "topology": "route-reflector", "reflectors": "2"},
    "top of rack": {"mode": "bgp", "topology": "tor"},
}


@pytest.fixture(scope="session")
def speakers(kernel: None) -> None:
    """A machine that can hold a lab and has BIRD."""
    if shutil.which(bird.PROGRAM) is None:
        pytest.skip(f"no {bird.PROGRAM} on this machine: Debian's package {bird.PACKAGE} brings it")


def shop(options: Mapping[str, str], **more: str) -> Cluster:
    """The bookshop under Calico."""
    return example("bookshop", cni="calico", cni_options=options, **more)


@pytest.mark.parametrize("options", TOPOLOGIES.values(), ids=TOPOLOGIES)
def test_bird_hears_and_writes_what_is_computed(speakers: None, options: Mapping[str, str]) -> None:
    """Paths and routes of both families, on every node and on the router; and pods reach each other by them."""
    cluster = shop(options, **BOTH)
    with bird.speaking(cluster) as lab:
        speaking = ("node-1", "node-2", "node-3", *(["router"] if options.get("topology") == "tor" else []))
        for name in speaking:
            known = [path for rib in cluster.rib(name) for path in rib.paths if not path.refused]
            assert sorted(map(repr, known)) == sorted(
                repr(path) for paths in bird.heard(lab, cluster, name).values() for path in paths
            )
            assert len(bird.written(lab, name)) == sum(
                route.protocol == "bird" for route in cluster.network[name].routes
            )
        pods = [pod for pods in cluster.layout.workloads.values() for pod in pods]
        probes = [live.Probe(pods[0].name, address, 10250) for pod in pods[-2:] for address in pod.addresses]
        assert [each for each in live.compare(cluster.network, probes, lab.probe(probes)) if not each.agrees] == []


def test_a_session_that_ends_takes_its_routes_with_it(speakers: None) -> None:
    """The same as without the session from the beginning; what the others had said stays."""
    cluster = shop({"mode": "bgp"})
    silent = shop({"mode": "bgp", "peers_down": "node-1:node-2"})
    with bird.speaking(cluster) as lab:
        before = bird.written(lab, "node-1")
        bird.silenced(lab, cluster, silent)
        assert {*before} - {*bird.written(lab, "node-1")} == {"10.244.1.0/26 via 172.18.0.12 dev eth0"}


def test_what_bird_does_not_learn_is_said(speakers: None) -> None:
    """A lab whose speakers never agree with what is computed names the machine and the lines."""
    cluster, other = shop({"mode": "bgp"}), shop({"mode": "bgp", "peers_down": "node-3"})
    with bird.speaking(other) as lab, pytest.raises(CannotDo, match=r"node-1: routes: BIRD has not .*10\.244\.2\.0/26"):
        bird.settled(lab, cluster, seconds=0.2)


def test_who_does_not_speak_bgp_has_no_configuration() -> None:
    """A CNI without it, a mode without it, a machine that is no speaker."""
    with pytest.raises(CannotDo, match="nobody speaks BGP under flannel"):
        bird.configuration(example("bookshop"), "node-1")
    with pytest.raises(CannotDo, match="nobody speaks BGP under calico"):
        bird.configuration(shop({"mode": "vxlan"}), "node-1")
    with pytest.raises(UnknownName, match="router"):
        bird.configuration(shop({"mode": "bgp"}), "router")


def test_a_reflector_reflects_for_its_clients_alone() -> None:
    """Between reflectors, and at clients, sessions are plain."""
    cluster = shop(TOPOLOGIES["two reflectors"])
    told = {name: bird.configuration(cluster, name).count("rr client") for name in ("node-1", "node-2", "node-3")}
    assert told == {"node-1": 1, "node-2": 1, "node-3": 0}
