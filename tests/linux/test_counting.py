"""How many rules a packet is compared with, counted one by one."""

from __future__ import annotations

from collections import Counter

import pytest

from k8snetlab.cluster import Cluster, example
from k8snetlab.linux.counting import counting

CLIENT = "default/client"


def more(services: int) -> Cluster:
    """The three backends, with more Services of the same pods in front of them."""
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}
    objects = (
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"more-{at}"}, "spec": spec}
        for at in range(services)
    )
    return example("service-three-backends", cni="bridge").applied(*objects)


def compared(cluster: Cluster, mode: str, target: str = "default/web-1:8080") -> int:
    """What node-1 compares with a connection of the client."""
    return cluster.changed(proxy=mode).compared(CLIENT, target)["node-1"]


def test_every_service_is_a_rule_more_in_iptables_mode() -> None:
    """A connection that is for no Service is compared with a rule for each of them."""
    few, many = more(10), more(60)
    assert compared(many, "iptables") - compared(few, "iptables") == 50


@pytest.mark.parametrize("mode", ["nftables", "ipvs", "ebpf"])
def test_other_modes_compare_no_more_for_more_services(mode: str) -> None:
    """They look it up."""
    assert compared(more(60), mode) == compared(more(10), mode)


def test_counting_changes_no_walk() -> None:
    """The same steps with and without counters, but for the text of rules."""
    cluster = more(20)
    tally: Counter[str] = Counter()
    for mode in ("iptables", "nftables"):
        plain = cluster.changed(proxy=mode)
        watched = plain.with_hosts(counting(plain.network["node-1"], tally))
        one, other = (each.trace(CLIENT, "svc/default/web:80", seed=2) for each in (plain, watched))
        assert [(step.where, step.action, step.packet) for step in one.steps] == [
            (step.where, step.action, step.packet) for step in other.steps
        ]
    assert set(tally) == {"node-1"}


def test_what_a_node_holds_grows_in_every_mode() -> None:
    """A lookup is quick because somebody wrote the entries; each mode has its own kind of them."""
    few, many = more(10), more(60)
    for mode in ("iptables", "nftables", "ipvs", "ebpf"):
        before, after = (each.changed(proxy=mode).node("node-1").counts().entries for each in (few, many))
        assert after - before >= 50 * 3, mode
