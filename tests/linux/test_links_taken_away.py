"""Devices that are taken out of a network: what is left must still be a network."""

from __future__ import annotations

import pytest

from k8snetlab.cluster import Cluster, example
from k8snetlab.linux.link import Link
from k8snetlab.trace import Client


@pytest.fixture(scope="module")
def lab() -> Cluster:
    """Two pods on each of two nodes."""
    return example("pods-on-two-nodes")


def links(cluster: Cluster, host: str) -> dict[str, Link]:
    """The devices of a machine by name."""
    return {link.name: link for link in cluster.network[host].links}


def test_a_bridge_that_goes_sets_its_ports_free(lab: Cluster) -> None:
    """Linux releases the ports of a deleted bridge; they stay devices of the machine."""
    after = lab.without("node-1", links(lab, "node-1")["cni0"])
    assert {link.master for link in after.network["node-1"].links} == {""}
    assert after.trace("default/left-a", "default/left-b:8080").client is not Client.OPEN


def test_one_end_of_a_veth_pair_takes_the_other_with_it(lab: Cluster) -> None:
    """A virtual cable has two ends or none."""
    end = next(link for link in links(lab, "node-1").values() if link.peer and link.peer.host == "default/left-a")
    after = lab.without("node-1", end)
    assert list(links(after, "default/left-a")) == ["lo"]
    assert after.trace("default/left-b", "default/left-a:8080").client is Client.UNREACHABLE


def test_a_nic_that_goes_leaves_an_empty_port(lab: Cluster) -> None:
    """The switch keeps its port, with nothing plugged in."""
    after = lab.without("node-2", links(lab, "node-2")["eth0"])
    assert links(after, "switch")["p-node-2"].peer is None
    assert after.trace("default/left-a", "default/right-a:8080").client is not Client.OPEN
