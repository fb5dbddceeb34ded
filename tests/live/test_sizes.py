from __future__ import annotations

from itertools import product

import msgspec
import pytest

from k8snetlab import live
from k8snetlab.cluster import Cluster
from k8snetlab.linux.host import Network

POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec: {{nodeName: node-1, containers: [{{name: c, image: c}}]}}
"""
SIZES = (1340, 1352, 1353, 1372, 1376, 1377, 1430, 2000)
"""Bytes of payload around a port's MTU of 1400, in both families."""


@pytest.fixture(scope="module")
def two() -> Cluster:
    """Two pods on one bridge, in both families."""
    return Cluster.load(
        "---".join(POD.format(name=name) for name in ("a", "b")),
        cni="bridge",
        node_cidr="172.18.0.0/16,fd00:172::/64",
        pod_cidr="10.244.0.0/16,fd00:10:244::/56",
        service_cidr="10.96.0.0/12,fd00:10:96::/108",
    )


def narrow(network: Network, filtered: int) -> Network:
    """The network in which the port of pod b takes 1,400 bytes, and iptables sees the bridge or not."""
    node = network["node-1"]
    links = tuple(
        msgspec.structs.replace(link, mtu=1400) if link.peer and link.peer.host == "default/b" else link
        for link in node.links
    )
    settings = {f"net.bridge.bridge-nf-call-{name}": filtered for name in ("iptables", "ip6tables")}
    return network.replacing(msgspec.structs.replace(node, links=links, sysctls={**node.sysctls, **settings}))


@pytest.mark.parametrize("filtered", [0, 1], ids=["iptables blind", "iptables sees"])
def test_what_a_narrow_port_takes_is_as_in_the_walk(kernel: None, two: Cluster, filtered: int) -> None:
    """Datagrams of every size around the MTU of a bridge port, which may be cut or not, from a pod and from its
    node.
    """
    network = narrow(two.network, filtered)
    addresses = [address.ip for address in network["default/b"].link("eth0").addresses]
    asked = product(("default/a", "node-1"), addresses, (9,), ("UDP",), SIZES, (True, False))
    probes = [live.Probe(*each) for each in asked]
    with live.Lab(network) as lab:
        compared = live.compare(network, probes, lab.probe(probes))
    wrong = [f"{each} {'whole' if each.probe.whole else 'may be cut'}" for each in compared if not each.agrees]
    assert not wrong, "\n".join(wrong)
