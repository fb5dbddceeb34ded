"""Calico in a cluster: addresses in blocks, what nodes hear from each other, and a peer that is down and up again."""

from __future__ import annotations

import pytest

from k8snetlab.cluster import Cluster, example
from k8snetlab.errors import BadOption, CannotDo, PoolExhausted, UnknownName
from k8snetlab.trace import Verdict
from tests.shops import bookshop, pod


def many(count: int, **options: str) -> Cluster:
    """So many pods on node-1 and one on node-2, in a pod network of 512 addresses; a block for each node."""
    pods = "".join(pod(f"p{number}") for number in range(count)) + pod("other", node="node-2")
    calico = {"mode": "bgp", "blocksize": "24", **options}
    return Cluster.load(pods, nodes=2, pod_cidr="10.244.0.0/23", cni="calico", cni_options=calico)


def test_pods_have_addresses_of_their_node_s_block() -> None:
    """The first address is the tunnel's, if there is one, and no bridge has any."""
    web = bookshop("calico").objects.pod("shop/web-0")
    assert web.ip.startswith("10.244.") and web.ip.rpartition(".")[2] != "0"
    assert {each.ip for each in bookshop("calico-bgp").objects.pods} >= {"10.244.0.0"}


def test_another_cni_gives_other_addresses_and_services_keep_theirs() -> None:
    """What-ifs of the same manifests."""
    flannel, calico = bookshop(), bookshop().changed(cni="calico")
    assert flannel.objects.pod("shop/web-0").ip != calico.objects.pod("shop/web-0").ip
    assert flannel.objects.service("shop/api").cluster_ips == calico.objects.service("shop/api").cluster_ips
    assert "cali" in str(flannel.diff(calico))


def test_a_full_node_borrows_and_tells_so() -> None:
    """The address has a route of its own on the node of the block, and packets find it."""
    shop = many(300)
    borrowed = next(
        each for each in shop.objects.pods if each.ip.startswith("10.244.1.") and each.node_name == "node-1"
    )
    assert f"{borrowed.ip} via 172.18.0.11 dev eth0 proto bird" in shop.node("node-2").show("routes")
    assert shop.trace("default/other", f"{borrowed.ip}:8080").verdict is Verdict.DELIVERED
    assert f"* {borrowed.ip}/32" in str(shop.rib("node-2")[0])


def test_nobody_borrows_with_strict_affinity() -> None:
    """The error names the pod and the numbers; without it the whole pool must be used up first."""
    with pytest.raises(PoolExhausted, match=r"the 1 block of node-1 .* all 256 are in use"):
        many(300, strictaffinity="on")
    with pytest.raises(PoolExhausted, match=r"no address is left in 10.244.0.0/23, in 2 blocks of /24: all 512"):
        many(513)


def test_a_peer_that_is_down_and_up_again() -> None:
    """Its routes are withdrawn on both ends; without the option everything is as before."""
    up = bookshop("calico-bgp")
    down = up.changed(cni_options={"mode": "bgp", "peers_down": "node-1:node-2"})
    withdrawn = {(change.host, change.text.partition(" via ")[0]) for change in up.diff(down).removed}
    blocks = {name: str(up.rib(name)[0].paths[0].network) for name in ("node-1", "node-2")}
    assert withdrawn == {("node-1", blocks["node-2"]), ("node-2", blocks["node-1"])}
    assert not up.diff(down.changed(cni_options={"mode": "bgp"}))


def test_peers_that_do_not_exist_are_found_at_once() -> None:
    """Not in the middle of a trace."""
    with pytest.raises(UnknownName, match="there is no BGP speaker 'node-9'"):
        bookshop("calico-bgp").changed(cni_options={"mode": "bgp", "peers_down": "node-9"})
    with pytest.raises(BadOption, match="peers_down belongs to BGP"):
        bookshop().changed(cni="calico", cni_options={"mode": "vxlan", "peers_down": "node-1"})


def test_who_has_heard_what_is_told_for_each_family() -> None:
    """Nobody has heard anything where nobody speaks."""
    assert bookshop("calico", "dual-stack").rib("node-1")[0].speaker.address == "172.18.0.11"
    assert len(bookshop("calico", "dual-stack").rib("node-1")) == 2
    assert [path.refused for path in bookshop("calico-bgp-tor").rib("router")[0].paths] == ["", "", ""]
    with pytest.raises(CannotDo, match="no node speaks BGP with CNI flannel"):
        bookshop().rib("node-1")


def test_profiles_follow_the_service_account() -> None:
    """A pod's chains ask its namespace's profile and its account's."""
    shop = Cluster.load(pod("a", namespace="x", spec="serviceAccountName: builder"), nodes=1, cni="calico")
    assert "cali-pri-ksa.x.builder" in shop.node("node-1").show("iptables")


def test_the_whole_way_there_and_back_is_told_with_its_tunnel() -> None:
    """A packet in a packet, in the trace's own words."""
    shop = example("bookshop", cni="calico")
    source = shop.objects.pod("shop/web-0")
    target = next(each for each in shop.objects.pods if each.node_name != source.node_name and not each.host_network)
    trace = shop.trace("shop/web-0", f"{target.namespace}/{target.name}:9999")
    assert "IP in IP: 172.18.0." in trace.full()
    assert trace.pcap()
