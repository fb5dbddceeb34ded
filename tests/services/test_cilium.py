"""The packet-flow table of Services under Cilium, beside another proxy and in its place.

What the client hears and who gets the packet is the same as on flannel in the same mode, with few exceptions. Whom a
backend sees is not compared: each CNI hides senders behind addresses of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import pytest

from k8snetlab.cluster import Cluster
from tests.services.shapes import MANIFEST, ROWS, Row
from tests.services.test_flows import walked

COMPARED = [row for row in ROWS if "bridge" not in row.target]
"""Cilium has no bridge to send to."""

AT_THE_POD = ("caller-cat > near:80", "caller-cat > zone-local:80")
"""A program balances for pods, and refuses where there is no backend for them; kube-proxy drops."""

ACCEPTED_FIRST = ("198.51.100.3:80", "198.51.100.6:80", "198.51.100.8:80", "192.0.2.7:80")
"""What a pod sends, CILIUM_FORWARD accepts before kube-proxy's own rules in table filter are asked."""

KNOWN: Mapping[str, set[str]] = {
    "ebpf": set(),
    "nftables": set(AT_THE_POD),
    "iptables": {*AT_THE_POD, "caller-ant > 198.51.100.8:80", "caller-ant > 192.0.2.7:80"},
}
"""What ends otherwise: in mode iptables also where kube-proxy would have refused."""


@cache
def cluster(plugin: str, mode: str, proxy: str) -> Cluster:
    """The cluster of the table."""
    options = {"mode": mode} if mode else {}
    return Cluster.load(MANIFEST, cni=plugin, cni_options=options, proxy=proxy)


def ends(shapes: Cluster, row: Row) -> list[tuple[str, str]]:
    """Who may get a row's packet, and what the client hears."""
    return sorted((each.backend.pod if each.backend else "", str(each.client)) for each in walked(shapes, row))


@pytest.mark.parametrize("mode", ["vxlan", "geneve", "native"])
@pytest.mark.parametrize("proxy", ["iptables", "nftables", "ebpf"])
def test_rows_end_as_on_flannel(proxy: str, mode: str) -> None:
    """All rows but those that are named above."""
    here, there = cluster("cilium", mode, proxy), cluster("flannel", "", proxy)
    different = {row.name for row in COMPARED if ends(here, row) != ends(there, row)}
    assert different == KNOWN[proxy]


def test_rows_end_the_same_where_a_program_masquerades() -> None:
    """Cilium in the place of kube-proxy, and without a table nat."""
    plain = cluster("cilium", "vxlan", "ebpf")
    hiding = plain.changed(cni_options={"bpf-masquerade": "on"})
    assert [row.name for row in COMPARED if ends(plain, row) != ends(hiding, row)] == []


def test_a_program_refuses_for_a_pod_where_kube_proxy_drops() -> None:
    """`internalTrafficPolicy: Local` without a backend on the node."""
    row = next(row for row in COMPARED if row.name == AT_THE_POD[0])
    assert ends(cluster("cilium", "vxlan", "iptables"), row) == [("", "REFUSED")]
    assert ends(cluster("flannel", "", "iptables"), row) == [("", "TIMEOUT")]


def test_what_a_pod_sends_is_accepted_before_source_ranges_are_asked() -> None:
    """Cilium's rules stand at the top; the packet then goes where the default route leads."""
    rows = [row for row in COMPARED if row.source == "caller-ant" and row.target in ACCEPTED_FIRST]
    assert len(rows) >= 4
    for row in rows:
        (only,) = walked(cluster("cilium", "vxlan", "iptables"), row)
        assert only.reason.startswith("router: blackhole default"), only.reason
