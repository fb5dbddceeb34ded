"""Which networks a cluster has, and which it cannot have."""

import pytest

from k8snetlab.address import Prefix
from k8snetlab.controllers import Plan
from k8snetlab.errors import BadOption, Overlap
from tests.controllers.example import cluster, node, running, service


def blocks(*cidrs: str) -> tuple[Prefix, ...]:
    """The blocks of these CIDRs."""
    return tuple(map(Prefix.of, cidrs))


def test_usual_networks() -> None:
    """Without a word from anybody a cluster has the networks that kubeadm's users have."""
    networks = cluster().networks
    assert (networks.families, networks.nodes, networks.pods, networks.services) == (
        (4,), blocks("172.18.0.0/16"), blocks("10.244.0.0/16"), blocks("10.96.0.0/12"),
    )  # fmt: skip


def test_two_families_have_two_blocks_each() -> None:
    """A dual-stack cluster has one block a family, the primary one first."""
    networks = cluster(families=(6, 4)).networks
    assert networks.pods == blocks("fd00:10:244::/56", "10.244.0.0/16")
    assert networks.services == blocks("fd00:10:96::/108", "10.96.0.0/12")


def test_blocks_that_were_said_decide_the_families() -> None:
    """Who names an IPv6 pod block wants IPv6; what was not said is the usual."""
    networks = cluster(pod_cidrs=blocks("fd00:1::/56")).networks
    assert (networks.families, networks.services) == ((6,), blocks("fd00:10:96::/108"))


def test_several_node_blocks_are_zones() -> None:
    """Nodes are dealt to the zones in turn, and each zone counts its own addresses."""
    found = cluster(node_cidrs=blocks("10.1.0.0/24", "10.2.0.0/24"))
    assert [(each.zone, each.addresses) for each in found.nodes] == [
        ("zone-a", ("10.1.0.11",)),
        ("zone-b", ("10.2.0.11",)),
        ("zone-a", ("10.1.0.12",)),
    ]


def test_zones_have_both_families() -> None:
    """In a dual-stack cluster a zone that names its IPv4 block gets an IPv6 one beside it."""
    found = cluster(node_cidrs=blocks("10.1.0.0/24", "10.2.0.0/24"), families=(4, 6))
    assert found.node("node-2").addresses == ("10.2.0.11", "fd00:172:0:1::11")


@pytest.mark.parametrize(
    ("plan", "first", "second"),
    [
        (Plan(pod_cidrs=blocks("10.96.0.0/16")), "10.96.0.0/16", "10.96.0.0/12"),
        (Plan(pod_cidrs=blocks("172.18.128.0/17")), "172.18.0.0/16", "172.18.128.0/17"),
        (Plan(service_cidrs=blocks("172.16.0.0/12")), "172.18.0.0/16", "172.16.0.0/12"),
        (Plan(node_cidrs=blocks("10.1.0.0/16", "10.1.2.0/24")), "10.1.0.0/16", "10.1.2.0/24"),
    ],
)
def test_overlapping_networks_are_refused(plan: Plan, first: str, second: str) -> None:
    """An address means one thing only; the error has both networks."""
    with pytest.raises(Overlap, match="share addresses") as caught:
        cluster(**{name: getattr(plan, name) for name in plan.__struct_fields__})
    assert (caught.value.first, caught.value.second) == (first, second)


@pytest.mark.parametrize(
    ("plan", "field"),
    [
        ({"pod_cidrs": blocks("10.1.0.0/16", "10.2.0.0/16")}, "pod_cidrs"),
        ({"service_cidrs": blocks("fd00::/108"), "families": (4,)}, "service_cidrs"),
        ({"families": (5,)}, "families"),
        ({"nodes": 0}, "nodes"),
        ({"pod_cidrs": blocks("10.1.0.0/25")}, "pod_cidrs"),
        ({"node_cidrs": blocks("10.1.0.0/24", "10.2.0.0/24", "fd00:1::/64")}, "node_cidrs"),
    ],
)
def test_options_that_do_not_fit_are_refused(plan: dict[str, tuple[Prefix, ...]], field: str) -> None:
    """Each option that cannot be is named."""
    with pytest.raises(BadOption) as caught:
        cluster(**plan)
    assert caught.value.problems[0].field == field


def test_networks_of_a_dump_hold_what_it_shows() -> None:
    """A live cluster does not say its ranges; blocks are taken that hold its nodes, pods and Services."""
    found = cluster(
        node("a", "192.168.80.11", spec={"podCIDR": "10.32.0.0/24"}),
        node("b", "192.168.80.12", spec={"podCIDR": "10.32.9.0/24"}),
        service("api", clusterIP="10.43.0.1"),
        service("web", clusterIP="10.43.77.7"),
    )
    assert found.networks.nodes == blocks("192.168.80.0/24")
    assert found.networks.pods == blocks("10.32.0.0/20")
    assert found.networks.services == blocks("10.43.0.0/17")


def test_pods_alone_show_their_nodes() -> None:
    """A dump of pods without nodes still says which nodes there are, where, and which addresses belong to them."""
    one = running("a", "worker-2", "10.244.7.5")
    one["status"]["hostIP"] = "172.18.0.4"
    found = cluster(one, running("b", "worker-1", "10.244.0.9"))
    assert [(each.name, each.addresses, each.pod_cidrs) for each in found.nodes] == [
        ("worker-1", ("172.18.0.11",), ("10.244.0.0/24",)),
        ("worker-2", ("172.18.0.4",), ("10.244.7.0/24",)),
    ]
