from __future__ import annotations

import pytest

from k8snetlab import live
from k8snetlab.cluster import Cluster, example
from tests.live.questions import everybody, pod_pairs, services
from tests.live.shop import shop

CASES: list[tuple[str, str, dict[str, str]]] = [
    ("flannel", "iptables", {}),
    ("flannel", "iptables", {"backend": "host-gw"}),
    ("bridge", "iptables", {}),
    ("cloud", "iptables", {}),
    ("cloud", "iptables", {"attach": "ptp"}),
    ("cloud", "iptables", {"source-dest-check": "on"}),
    ("calico", "iptables", {"mode": "bgp"}),
    ("calico", "iptables", {"mode": "bgp", "topology": "tor"}),
    ("calico", "iptables", {"mode": "bgp", "peers_down": "node-1:node-2"}),
    ("calico", "iptables", {"mode": "vxlan"}),
    ("calico", "iptables", {"mode": "vxlan-crosssubnet"}),
    ("flannel", "nftables", {}),
    ("bridge", "nftables", {}),
]
NAMES = [
    "flannel", "flannel host-gw", "bridge", "cloud", "cloud without bridges", "cloud with the provider's check",
    "calico bgp", "calico bgp tor", "calico bgp less a session", "calico vxlan", "calico vxlan-crosssubnet",
    "flannel nftables", "bridge nftables",
]  # fmt: skip


def disagreements(cluster: Cluster, probes: list[live.Probe]) -> list[str]:
    """What the kernel does that the walk does not say."""
    with live.Lab(cluster) as lab:
        sights = lab.probe(probes)
    return [str(each) for each in live.compare(cluster.network, probes, sights) if not each.agrees]


@pytest.mark.parametrize(("cni", "proxy", "options"), CASES, ids=NAMES)
def test_the_bookshop_is_on_the_kernel_as_in_the_walk(
    kernel: None, cni: str, proxy: str, options: dict[str, str]
) -> None:
    """All pods to all pods, and every Service from pods, nodes and outside: every probe ends as the walk says."""
    bookshop = example("bookshop", cni=cni, proxy=proxy, cni_options=options)
    probes = [*pod_pairs(bookshop), *services(bookshop, everybody(bookshop, some=4))]
    wrong = disagreements(bookshop, probes)
    assert not wrong, "\n".join(wrong[:20])


@pytest.mark.parametrize(("cni", "proxy", "options"), CASES, ids=NAMES)
def test_a_cluster_of_both_families_is_on_the_kernel_as_in_the_walk(
    kernel: None, cni: str, proxy: str, options: dict[str, str]
) -> None:
    """The same in IPv4 and IPv6: pods, Services and node ports."""
    cluster = shop(cni, proxy, **options)
    probes = [*pod_pairs(cluster), *services(cluster, everybody(cluster, some=4))]
    assert {":" in probe.address for probe in probes} == {True, False}
    wrong = disagreements(cluster, probes)
    assert not wrong, "\n".join(wrong[:20])
