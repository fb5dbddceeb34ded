from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from k8snetlab import live
from k8snetlab.cluster import Cluster, example
from k8snetlab.errors import CannotDo, UnknownName
from k8snetlab.trace import Client
from tests.live.conftest import NOBODY, Ordinary

ROOT = Path(__file__).resolve().parents[2]
WEB, OTHER = "default/web-1", "default/client"

TWO = """
apiVersion: v1
kind: Pod
metadata: {name: web-1}
spec: {nodeName: node-1, containers: [{name: web, image: web, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {nodeName: node-2, containers: [{name: client, image: client}]}
"""


@pytest.fixture(scope="module")
def two() -> Cluster:
    """A client, and a web server on another node."""
    return Cluster.load(TWO)


@pytest.fixture(scope="module")
def lab(kernel: None, two: Cluster) -> Iterator[live.Lab]:
    """The same, on the kernel."""
    with live.Lab(two) as built:
        yield built


def question(two: Cluster) -> live.Probe:
    """The client asks the web server."""
    return live.Probe(OTHER, two.network[WEB].link("eth0").addresses[0].ip, 8080)


def test_a_program_says_who_it_is_and_whom_it_sees(lab: live.Lab, two: Cluster) -> None:
    """A probe is answered with the backend's name and the source it saw."""
    (sight,) = lab.probe([question(two)])
    assert sight == live.Sight(Client.OPEN, "OPEN", WEB, two.network[OTHER].link("eth0").addresses[0].ip)


def test_a_program_runs_where_it_is_told_to(lab: live.Lab) -> None:
    """`ip route` on a node prints that node's routes."""
    assert "flannel.1 onlink" in lab.run("node-1", "ip", "route").out
    with pytest.raises(UnknownName):
        lab.run("node-9", "true")


def test_a_what_if_is_applied_and_taken_back(lab: live.Lab, two: Cluster) -> None:
    """Without the route to the other node's pods nobody answers; with it, all is well again."""
    node = two.network["node-2"]
    route = next(route for route in node.routes if route.device == "flannel.1")
    lab.apply(two.network.without("node-2", route))
    broken = lab.probe([question(two)])
    lab.apply(two.network)
    assert [broken[0].client, lab.probe([question(two)])[0].client] == [Client.TIMEOUT, Client.OPEN]


def test_a_long_datagram_is_too_long_for_a_tunnel(lab: live.Lab, two: Cluster) -> None:
    """1,422 bytes of payload fit an MTU of 1,450 bytes, one more does not, and the sender is told so at once."""
    asked = question(two)
    sizes = [msgspec.structs.replace(asked, protocol="UDP", size=size) for size in (1422, 1423)]
    assert [sight.end for sight in lab.probe(sizes)] == ["ECONNREFUSED", "EMSGSIZE"]


def test_two_labs_with_the_same_names_do_not_meet(lab: live.Lab, two: Cluster) -> None:
    """Each has machines of its own: what one loses, the other keeps."""
    with live.Lab(two) as second:
        second.apply(two.network.without(WEB, two.network[WEB].listeners[0]))
        found = [each.probe([question(two)])[0].client for each in (second, lab)]
    assert found == [Client.REFUSED, Client.OPEN]


def test_a_refused_command_names_machine_and_line(kernel: None, two: Cluster) -> None:
    """A state that the kernel cannot hold is an error, not a lab that is a little wrong."""
    node = two.network["node-1"]
    wrong = msgspec.structs.replace(node.routes[0], via="", source="192.0.2.77", prefix="198.51.100.0/24")
    network = two.network.replacing(msgspec.structs.replace(node, routes=(*node.routes, wrong)))
    with pytest.raises(CannotDo, match=r"(?s)node-1: ip -batch.*: route add 198\.51\.100\.0/24"), live.Lab(network):
        pass


def test_a_lab_whose_agent_is_killed_says_so(kernel: None) -> None:
    """The next question is an error with a reason."""
    with live.Lab(Cluster.load(TWO)) as built:
        assert built._agent is not None
        built._agent.kill()
        built._agent.wait()  # until then it may answer once more
        with pytest.raises(CannotDo, match="ended"):
            built.run("node-1", "true")


ORDINARY = """
import os
from k8snetlab import live
from k8snetlab.cluster import Cluster
import sys
cluster = Cluster.load(sys.argv[1])
address = cluster.network["default/web-1"].link("eth0").addresses[0].ip
with live.Lab(cluster) as lab:
    print(os.getuid(), lab.probe([live.Probe("default/client", address, 8080)])[0].client)
"""


def test_an_ordinary_user_has_a_lab_too(kernel: None, ordinary: Ordinary) -> None:
    """Without any privilege, in a user namespace."""
    assert ordinary(ORDINARY, TWO) == (f"{NOBODY} OPEN\n", "")


def test_building_is_quick(kernel: None) -> None:
    """Three nodes with nine pods: a second is a bound for a busy machine, a third of one is usual."""
    shop = example("bookshop")
    assert len(shop.network) > 12
    begun = time.monotonic()
    with live.Lab(shop):
        took = time.monotonic() - begun
    assert took < 3


def test_virtual_servers_are_not_made(kernel: None) -> None:
    """The lab says so before it builds anything."""
    with pytest.raises(CannotDo, match="makes no virtual servers"), live.Lab(example("bookshop", proxy="ipvs")):
        pass


def test_programs_of_cilium_are_not_loaded() -> None:
    """What it can do without is said at once, not after a lab was built that differs."""
    shop = example("bookshop", cni="cilium")
    with pytest.raises(CannotDo, match="node-1, node-2, node-3: datapath: a lab has none of Cilium's"), live.Lab(shop):
        pass


def test_wireguard_devices_are_not_made(kernel: None) -> None:
    """The lab says so before it builds anything, and names the nodes."""
    shop = example("bookshop", cni_options={"backend": "wireguard"})
    with pytest.raises(CannotDo, match="node-1, node-2, node-3: wireguard: a lab makes no WireGuard"), live.Lab(shop):
        pass


def test_ipip_devices_are_not_made(kernel: None) -> None:
    """The same of Calico's usual tunnels."""
    with (
        pytest.raises(CannotDo, match="ipip: a lab makes no IPIP devices"),
        live.Lab(example("bookshop", cni="calico")),
    ):
        pass
