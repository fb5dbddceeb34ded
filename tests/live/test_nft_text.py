"""What the package prints of nftables, the real nft takes, and lists again to the letter."""

from __future__ import annotations

import shutil
import subprocess
from random import Random

import pytest

from k8snetlab.cluster import Cluster
from tests.linux.test_nftables import LISTED
from tests.policies.chance import cluster as with_policies
from tests.shops import pod, service

pytestmark = [
    pytest.mark.usefixtures("kernel"),
    pytest.mark.skipif(shutil.which("nft") is None, reason="nft is not on this machine"),
]


def listed(text: str) -> str:
    """What nft lists in an empty network namespace after it was told this."""
    words = ["unshare", "-Urn", "sh", "-c", "nft -f - && nft list ruleset"]
    return subprocess.run(words, input=text, capture_output=True, text=True, check=True).stdout


def test_a_table_of_every_form_is_listed_as_it_is_printed() -> None:
    """Intervals, time-outs, maps, several fields, comments, priorities."""
    assert listed(LISTED) == LISTED


@pytest.mark.parametrize("families", [("10.244.0.0/16", "10.96.0.0/12"), ("fd00:10:244::/56", "fd00:10:96::/108")])
def test_the_table_of_a_node_is_listed_as_it_is_printed(families: tuple[str, str]) -> None:
    """kube-proxy's own, with affinity, policy Local, source ranges, and a Service that nobody serves."""
    pods, services = families
    affinity = "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 90}}"
    outside = "type: LoadBalancer, externalTrafficPolicy: Local, loadBalancerSourceRanges: [192.0.2.0/24]"
    cluster = Cluster.load(
        *(pod(f"web-{number}", node=f"node-{number}") for number in (1, 2, 3)),
        service("web", affinity), service("shop", outside), service("none", app="nobody"),
        proxy="nftables", pod_cidr=pods, service_cidr=services,
        node_cidr="fd00:172::/64" if ":" in pods else "172.18.0.0/16",
    )  # fmt: skip
    text = cluster.node("node-1").show("nft")
    assert listed(text) == text


def test_the_tables_of_calico_are_listed_as_they_are_printed() -> None:
    """Chains, sets and verdict maps in both families, with policies by chance."""
    held = with_policies(Random(5), "calico", {"mode": "vxlan", "dataplane": "nftables"})
    text = held.node("node-1").show("nft")
    assert text.count('comment "Policy ') >= 4
    assert listed(text) == text
