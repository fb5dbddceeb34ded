"""What Hubble says of a trace."""

from __future__ import annotations

import re

import msgspec
import pytest

from k8snetlab.cluster import Cluster
from k8snetlab.errors import CannotDo
from k8snetlab.linux.datapath import Direction, Permit
from k8snetlab.linux.host import Network
from tests.shops import pod

PODS = "".join(pod(name, node=node, app=name[:-2]) for name, node in (("web-0", "node-1"), ("db-1", "node-2")))


def lines(cluster: Cluster, source: str = "default/web-0", target: str = "default/db-1:8080") -> list[str]:
    """The lines of a trace, with `N` in the place of ports and identities."""
    told = cluster.hubble(cluster.trace(source, target))
    return [re.sub(r":\d+ \(", ":N (", re.sub(r"ID:\d+", "ID:N", each.text)) for each in told]


@pytest.fixture(scope="module")
def cluster() -> Cluster:
    """Two pods on two nodes."""
    return Cluster.load(PODS, nodes=2, cni="cilium")


def test_a_flow_is_seen_where_it_leaves_and_where_it_arrives(cluster: Cluster) -> None:
    """There and back; the side that opened the connection stays on the left."""
    web, db = "default/web-0:N (ID:N)", "default/db-1:N (ID:N)"
    assert lines(cluster) == [
        f"{web} -> {db} to-overlay FORWARDED (TCP Flags: SYN)",
        f"{web} -> {db} to-endpoint FORWARDED (TCP Flags: SYN)",
        f"{web} <- {db} to-overlay FORWARDED (TCP Flags: SYN, ACK)",
        f"{web} <- {db} to-endpoint FORWARDED (TCP Flags: SYN, ACK)",
    ]


def test_what_leaves_the_cluster_goes_to_the_stack(cluster: Cluster) -> None:
    """The other side has no name, and is the world."""
    assert lines(cluster, target="203.0.113.10:80")[0] == (
        "default/web-0:N (ID:N) -> 203.0.113.10:80 (world) to-stack FORWARDED (TCP Flags: SYN)"
    ).replace(":80 (", ":N (")


def only(cluster: Cluster, *permits: Permit) -> Cluster:
    """The cluster in which db-1 has these entries for what comes in, and no other."""

    def changed(network: Network) -> Network:
        host = network["node-2"]
        held = host.datapath
        assert held is not None
        kept = tuple(each for each in held.permits if each.direction is not Direction.INGRESS)
        return network.replacing(
            msgspec.structs.replace(host, datapath=msgspec.structs.replace(held, permits=(*kept, *permits)))
        )

    return cluster.overlaid("a policy", lambda terrain: changed(terrain.network))


def endpoint(cluster: Cluster) -> tuple[int, int]:
    """The number of db-1's endpoint, and the identity of web-0."""
    one, two = cluster.network["node-1"].datapath, cluster.network["node-2"].datapath
    assert one is not None and two is not None
    numbers = [each.number for each in two.endpoints if each.device]
    named = (each for each in one.known if each.name == "default/web-0")
    address = cluster.objects.pod("default/db-1").ip
    assert two.by_address[address].number in numbers
    return two.by_address[address].number, next(named).identity


def test_a_denied_flow_is_told_twice(cluster: Cluster) -> None:
    """The verdict of the policy, and the drop."""
    both = "default/web-0:N (ID:N) <> default/db-1:N (ID:N)"
    assert lines(only(cluster))[-2:] == [
        f"{both} policy-verdict:none INGRESS DENIED (TCP Flags: SYN)",
        f"{both} Policy denied DROPPED (TCP Flags: SYN)",
    ]


def test_an_allowed_flow_says_by_what(cluster: Cluster) -> None:
    """By identity and port: L3-L4."""
    number, web = endpoint(cluster)
    told = lines(only(cluster, Permit(number, Direction.INGRESS, web, "TCP", 8080)))
    both = "default/web-0:N (ID:N) <> default/db-1:N (ID:N)"
    assert f"{both} policy-verdict:L3-L4 INGRESS ALLOWED (TCP Flags: SYN)" in told


def test_a_denial_wins_over_a_permission(cluster: Cluster) -> None:
    """Though the permission is more exact."""
    number, web = endpoint(cluster)
    denied = Permit(number, Direction.INGRESS, deny=True)
    told = lines(only(cluster, Permit(number, Direction.INGRESS, web, "TCP", 8080), denied))
    assert told[-1].endswith("Policy denied by denylist DROPPED (TCP Flags: SYN)")


def test_without_cilium_there_is_nothing_to_hear(cluster: Cluster) -> None:
    """Said, and not answered with an empty list."""
    other = cluster.changed(cni="flannel")
    with pytest.raises(CannotDo, match="flannel has none"):
        other.hubble(other.trace("default/web-0", "default/db-1:8080"))
