from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from k8snetlab import api
from k8snetlab.address import Prefix
from k8snetlab.cluster import SHOWN, Cluster, Options, example
from k8snetlab.errors import (
    AddressInUse,
    BadOption,
    LabError,
    ManifestError,
    Overlap,
    PoolExhausted,
    UnknownName,
)
from k8snetlab.linux.route import Route
from k8snetlab.trace import Client
from tests.shops import DATA, ZONES, bookshop, pod, service, zones

# Loading


def test_a_cluster_is_loaded_from_files_folders_text_and_objects(tmp_path: Path) -> None:
    """Any mix of them, in one call."""
    (tmp_path / "a.yaml").write_text(pod("a"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "b.yaml").write_text(pod("b"))
    [given] = api.load(service("web")).objects
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "empty"}}
    cluster = Cluster.load(tmp_path / "a.yaml", str(tmp_path / "folder"), pod("c"), given, manifest)
    assert [each.name for each in cluster.objects.pods if each.namespace == "default"] == ["a", "b", "c"]
    assert (cluster.objects.namespace("empty").name, cluster.objects.service("default/web").name) == ("empty", "web")


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"cni": "calico9"}, BadOption, "cni: there is no CNI 'calico9'; there are bridge, "),
        ({"cni": 7}, BadOption, "cni: 7 is no text"),
        ({"cni_options": {"backend": "udp"}}, BadOption, "CNI flannel: backend: 'udp' is none of vxlan, host-gw"),
        ({"cni_options": {"speed": "9"}}, BadOption, "CNI flannel: speed: flannel has no such option"),
        ({"cni_options": "backend=vxlan"}, BadOption, "cni_options: 'backend=vxlan' is no mapping"),
        ({"proxy": "magic"}, BadOption, "proxy: there is no proxy mode 'magic'"),
        ({"nodes": 0}, BadOption, "nodes: 0 is no number of nodes from 1 to 5000"),
        ({"nodes": 5001}, BadOption, "nodes: 5001 is no number of nodes"),
        ({"nodes": "3"}, BadOption, "nodes: '3' is no number of nodes"),
        ({"nodes": True}, BadOption, "nodes: True is no number of nodes"),
        ({"seed": "x"}, BadOption, "seed: 'x' is no whole number"),
        ({"pod_cidr": "10.244.0.1/16"}, BadOption, "pod_cidr: 10.244.0.1/16 has host bits set"),
        ({"pod_cidr": "10.244.0.0"}, BadOption, ""),
        ({"pod_cidr": 5}, BadOption, "pod_cidr: 5 is no CIDR and no list of CIDRs"),
        ({"pod_cidr": ["10.1.0.0/16", 5]}, BadOption, "is no CIDR and no list of CIDRs"),
        ({"pod_cidr": "10.1.0.0/16,10.2.0.0/16"}, BadOption, "takes one block for each family"),
        ({"color": "red"}, BadOption, "there is no option 'color'; there are cni, cni_options, proxy, proxy_options"),
        ({"pod_cidr": "172.18.0.0/20"}, Overlap, "the node network 172.18.0.0/16 and the pod network 172.18.0.0/20"),
        ({"service_cidr": "10.244.128.0/20"}, Overlap, "the pod network 10.244.0.0/16 and the Service network"),
        ({"node_cidr": "10.1.0.0/16,10.1.2.0/24"}, Overlap, "10.1.0.0/16"),
        ({"pod_cidr": "10.244.0.0/23"}, PoolExhausted, "no address is left in 10.244.0.0/23 in ranges of /24"),
    ],
)
def test_an_option_that_does_not_fit_is_refused(options: dict[str, Any], error: type[LabError], said: str) -> None:
    """At load, with the option and what would fit."""
    with pytest.raises(error) as raised:
        Cluster.load(pod("a"), **options)
    assert said in str(raised.value)


def test_blocks_may_be_given_as_values() -> None:
    """A list of texts or prefixes is the same as one text."""
    asked = Cluster.load(pod("a"), pod_cidr=[Prefix.of("10.9.0.0/16")], node_cidr=["192.0.2.0/24"])
    assert (asked.options.pod_cidr, asked.options.node_cidr) == ("10.9.0.0/16", "192.0.2.0/24")


def test_two_pods_cannot_have_one_address() -> None:
    """The error names both, with file and line."""
    taken = "phase: Running, podIP: 10.244.0.9"
    with pytest.raises(AddressInUse) as error:
        Cluster.load(pod("a", status=taken), pod("b", status=taken))
    assert (error.value.address, error.value.owners) == ("10.244.0.9", ("Pod default/a", "Pod default/b"))
    assert error.value.problems[0].line > 0


def test_a_nodes_range_can_run_out() -> None:
    """254 addresses less the node's own: the next pod has none left."""
    with pytest.raises(PoolExhausted, match=r"Pod .*: no address is left in 10.244.0.0/24: all 253 are in use"):
        Cluster.load("".join(pod(f"web-{number}") for number in range(254)))


@pytest.mark.parametrize("nothing", ["# nothing\n", "", "\n"])
def test_nothing_is_no_cluster(nothing: str) -> None:
    """Text without an object is an error, not an empty cluster nor the working folder."""
    with pytest.raises(ManifestError):
        Cluster.load(nothing)


# What-ifs


def test_another_cni_begins_with_its_own_options() -> None:
    """Options of flannel mean nothing to bridge; those of the same CNI stay."""
    host_gw = bookshop("flannel-host-gw")
    assert host_gw.changed(cni="bridge").options.cni_options == ()
    assert host_gw.changed(nodes=2).options.cni_options == (("backend", "host-gw"),)
    assert host_gw.changed(cni="flannel").options.cni_options == (("backend", "host-gw"),)


def test_a_change_that_does_not_fit_is_refused_at_once() -> None:
    """Not when the first packet is sent."""
    with pytest.raises(Overlap):
        bookshop().changed(service_cidr="10.244.0.0/20")
    with pytest.raises(ManifestError):
        bookshop().applied("kind: Pod\n")


def test_applied_objects_are_added_or_take_a_place() -> None:
    """A new pod is there; a Service of the same name is another one."""
    more = bookshop().applied(pod("extra"), service("api", app="nobody", namespace="shop"))
    assert more.objects.pod("default/extra").ip
    assert more.trace("shop/web-0", "svc/shop/api:80").client is Client.REFUSED
    assert bookshop().trace("shop/web-0", "svc/shop/api:80").client is Client.OPEN


def test_a_deleted_object_is_gone() -> None:
    """Without the Service its name is unknown; what is not there cannot be deleted."""
    less = bookshop().deleted("Service", "shop/api")
    with pytest.raises(UnknownName):
        less.trace("shop/web-0", "svc/shop/api:80")
    with pytest.raises(UnknownName):
        less.deleted("Service", "shop/api")


def test_overlays_survive_a_change_of_objects() -> None:
    """A route that was taken away stays away when a pod is added."""
    node = bookshop().network["node-1"]
    route = next(route for route in node.routes if route.device == "flannel.1")
    changed = bookshop().without("node-1", route).applied(pod("extra", node="node-3"))
    assert route not in changed.network["node-1"].routes


def test_what_another_cni_does_not_have_need_not_be_taken_away() -> None:
    """A tunnel's route is missing from a network without tunnels anyway; with flannel it is missed again."""
    node = bookshop().network["node-1"]
    route = next(route for route in node.routes if route.device == "flannel.1")
    elsewhere = bookshop().without("node-1", route).changed(cni="bridge")
    assert not elsewhere.diff(bookshop("bridge"))
    assert route not in elsewhere.changed(cni="flannel").network["node-1"].routes


def test_what_is_not_there_cannot_be_taken_away() -> None:
    """Neither from a machine that lacks it, nor from a machine that is not there."""
    with pytest.raises(UnknownName, match="there is no route"):
        bookshop().without("node-1", Route("198.51.100.0/24", "eth0"))
    with pytest.raises(UnknownName, match="there is no machine 'node-9'"):
        bookshop().without("node-9", Route("198.51.100.0/24", "eth0"))


def test_a_sysctl_is_one_that_machines_have() -> None:
    """A misspelt one is an error, not a setting that nobody reads."""
    with pytest.raises(LabError, match="the machine does not state this sysctl"):
        bookshop().sysctl("node-1", "net.ipv4.ip_forwards", 0)


def test_a_machine_that_goes_takes_its_overlay_along() -> None:
    """With two nodes there is no third one to change."""
    assert "node-3" not in bookshop().sysctl("node-3", "net.ipv4.ip_forward", 0).changed(nodes=2).network


def test_overlays_have_names_to_repair_them_by() -> None:
    """In the words of the tool; unknown ones say which there are."""
    node = bookshop().network["node-1"]
    broken = bookshop().without("node-1", node.routes[-1]).sysctl("node-2", "net.ipv4.ip_forward", 0)
    assert [overlay.name for overlay in broken.overlays] == [
        "node-1 without 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink",
        "node-2: net.ipv4.ip_forward = 0",
    ]
    whole = broken.repaired(broken.overlays[0].name).repaired(broken.overlays[1].name)
    assert not whole.diff(bookshop())
    with pytest.raises(UnknownName, match="there is no overlay 'node-1'; there are node-1 without"):
        broken.repaired("node-1")


def test_overlays_are_applied_in_their_order() -> None:
    """The later one sees what the earlier one did."""
    key = "net.ipv4.ip_forward"
    assert bookshop().sysctl("node-1", key, 0).sysctl("node-1", key, 1).network["node-1"].sysctl(key) == 1
    assert bookshop().sysctl("node-1", key, 1).sysctl("node-1", key, 0).network["node-1"].sysctl(key) == 0


def test_a_what_if_of_machines_compiles_nothing_again() -> None:
    """Objects, layout and the machines that were built are the same values."""
    cluster = bookshop()
    _ = cluster.network["node-2"]
    other = cluster.sysctl("node-1", "net.ipv4.ip_forward", 0)
    assert other.objects is cluster.objects and other.layout is cluster.layout
    assert other.network["node-2"] is cluster.network["node-2"]


def test_a_machine_can_be_put_in_the_place_of_another() -> None:
    """`with_hosts` takes whole machines, as they are."""
    from msgspec.structs import replace

    deaf = replace(bookshop().network["shop/web-1"], listeners=())
    assert bookshop().with_hosts(deaf).trace("shop/web-0", "shop/web-1:8080").client is Client.REFUSED


# Looking


WIREGUARD = {"cni_options": {"backend": "wireguard"}}
CILIUM: dict[str, Any] = {"cni": "cilium"}
ONLY_WITH: dict[str, dict[str, Any]] = {
    "bpf": {"proxy": "ebpf"},
    "ipsets": {"proxy": "ipvs"},
    "ipvs": {"proxy": "ipvs"},
    "nft": {"proxy": "nftables"},
    "wg": WIREGUARD,
    "wgconf": WIREGUARD,
    "bpf-ipcache": CILIUM,
    "bpf-endpoint": CILIUM,
    "bpf-policy": CILIUM,
    "xfrm": {"cni": "cilium", "cni_options": {"encryption": "ipsec"}},
}
"""The kinds of state that only one proxy mode, backend or CNI has."""


@pytest.mark.parametrize("what", SHOWN)
def test_every_kind_of_state_is_printed(what: str) -> None:
    """Of a node with both families each kind has something to show, with the options that bring it."""
    shop = bookshop(families="dual-stack").changed(**ONLY_WITH.get(what, {}))
    assert shop.node("node-1").show(what).strip()


def test_a_machine_counts_what_it_holds() -> None:
    """Iptables mode writes more rules, nftables mode has elements instead; IPv6 is counted by itself."""
    held = {mode: bookshop().changed(proxy=mode).node("node-1") for mode in ("iptables", "nftables")}
    iptables, nftables = (held[mode].counts() for mode in ("iptables", "nftables"))
    assert iptables.rules > nftables.rules and iptables.chains > nftables.chains
    assert iptables.elements == 0 < nftables.elements
    assert held["nftables"].counts(6).elements < nftables.elements


@pytest.mark.parametrize("host", ["shop/web-0", "node-1", "switch", "router", "external", "control-plane"])
def test_every_machine_can_be_shown(host: str) -> None:
    """Pods, nodes, and what stands around them."""
    assert "127.0.0.1" in bookshop().host(host).show("addresses") or host == "switch"
    assert repr(bookshop().host(host)).startswith(f"<Machine {host}: ")


def test_what_cannot_be_shown_is_told_what_can() -> None:
    """Kinds of state, machines and nodes have names."""
    with pytest.raises(UnknownName, match="there is no kind of state 'route'; did you mean routes"):
        bookshop().node("node-1").show("route")
    with pytest.raises(UnknownName, match="there is no machine 'shop/web-9'"):
        bookshop().host("shop/web-9")
    with pytest.raises(UnknownName, match="there is no node 'router'"):
        bookshop().node("router")


def test_a_cluster_says_what_it_is() -> None:
    """CNI, proxy, counts, and what was done to it."""
    assert repr(bookshop()) == "<Cluster flannel/iptables: 3 nodes, 25 pods, 19 Services>"
    changed = bookshop().sysctl("node-1", "net.ipv4.ip_forward", 0)
    assert repr(changed).endswith("19 Services, changed: node-1: net.ipv4.ip_forward = 0>")


# The address plan


@pytest.mark.parametrize(
    ("address", "owner"),
    [
        ("172.18.0.11", "node node-1"),
        ("172.18.0.1", "the router, the gateway of the nodes"),
        ("172.18.0.2", "control-plane"),
        ("203.0.113.10", "a client outside"),
        ("10.244.0.1", "the device cni0 of node node-1"),
        ("10.244.1.0", "the device flannel.1 of node node-2"),
        ("10.244.0.2", "pod kube-system/coredns-"),
        ("10.96.0.10", "Service kube-system/kube-dns: on no interface anywhere, only in rules"),
    ],
)
def test_the_plan_knows_every_owner(address: str, owner: str) -> None:
    """Nodes, the router, devices that the CNI made, pods, Services, the client outside."""
    assert bookshop().plan.whose(address).startswith(f"{address} is {owner}")


def test_the_plan_knows_load_balancers() -> None:
    """The address that a status shows belongs to the Service."""
    status = "status: {loadBalancer: {ingress: [{ip: 192.0.2.10}]}}\n---"
    cluster = Cluster.load(pod("a"), service("web", "type: LoadBalancer").replace("---", status))
    assert cluster.plan.whose("192.0.2.10") == "192.0.2.10 is the load balancer of Service default/web"


def test_the_plan_has_the_shares_of_a_ring() -> None:
    """Under Weave a node has a part of one network; its ends are addresses like all others, those of the pool not."""
    plan = bookshop().changed(cni="weave").plan
    assert [(held.name, str(held.block)) for held in plan.ranges if held.kind == "shares"] == [
        ("share of node-1", "10.32.0.0/13"),
        ("share of node-2", "10.40.0.0/14"),
        ("share of node-3", "10.44.0.0/14"),
    ]
    assert plan.overlaps == ()
    assert plan.whose("10.43.255.255").startswith("10.43.255.255 belongs to nobody yet; it is in share of node-2")
    assert plan.whose("10.47.255.255").startswith("10.47.255.255 can be nobody's")


def test_the_plan_has_the_pool_of_a_load_balancer() -> None:
    """It may be a part of the nodes' own network, where one of them answers ARP for it."""
    shop = Cluster.load(pod("a"), service("web", "type: LoadBalancer"), load_balancer="metallb-l2")
    pools = [str(held.block) for held in shop.plan.ranges if held.kind == "load balancers"]
    assert pools == ["198.51.100.0/24", "2001:db8:198::/64"]
    assert shop.plan.whose("198.51.100.1").endswith("of Service default/web, in load balancers (198.51.100.0/24)")
    assert shop.changed(load_balancer_cidr="172.18.255.0/24").plan.overlaps == ()


def test_the_plan_has_every_zone() -> None:
    """Each underlay subnet is a network of its own, and so is each node's range."""
    for cluster in (bookshop(node_cidr=ZONES), zones()):
        names = [held.name for held in cluster.plan.ranges]
        assert names[:3] == ["underlay-1", "underlay-2", "underlay-3"]
        assert names.count("pods") == names.count("Services") == 1
        assert cluster.plan.overlaps == ()


def test_a_dual_stack_plan_has_both_families() -> None:
    """Two blocks of each kind, and owners of both."""
    plan = bookshop(families="dual-stack").plan
    assert {held.block.family for held in plan.ranges if held.kind == "node pods"} == {4, 6}
    assert plan.whose("fd00:172::11").startswith("fd00:172::11 is node node-1")


# Examples


@pytest.mark.parametrize("name", ["bookshop", "one-web-one-client", "manifests/one-web-one-client.yaml"])
def test_an_example_is_found_by_its_name(name: str) -> None:
    """Folders and files under data/, with and without their ending."""
    assert example(name).objects.pods


@pytest.mark.parametrize("name", ["bookshp", "../data/bookshop", "/etc/passwd", ".", ""])
def test_an_example_is_one_of_ours(name: str) -> None:
    """Nothing outside of data/, and not the whole of it."""
    with pytest.raises(UnknownName, match="there is no example"):
        example(name)


def test_an_example_takes_the_options_of_load() -> None:
    """The same words."""
    assert example("bookshop", cni="bridge", nodes=2).options == Options(cni="bridge", nodes=2)


def test_the_examples_are_those_of_this_clone() -> None:
    """`data/` beside the package."""
    assert example("bookshop").manifests.objects == api.load(DATA / "bookshop").objects


def test_a_bound_program_answers_at_one_address() -> None:
    """The other family is refused, by the machine itself."""
    both = {"node_cidr": "172.18.0.0/16,fd00:172::/64", "pod_cidr": "10.244.0.0/16,fd00:10:244::/56"}
    cluster = example("service-both-families", **both, service_cidr="10.96.0.0/12,fd00:10:96::/108")
    bound = cluster.bound("default/web-2", cluster.objects.pod("default/web-2").ip)
    clients = [bound.trace("default/client", "default/web-2:8080", family=of).client for of in (4, 6)]
    assert clients == ["OPEN", "REFUSED"]


def test_nothing_is_bound_to_an_address_of_another_machine() -> None:
    """The address has to be one of the machine's own; the loopback's are."""
    with pytest.raises(BadOption, match="has no address"):
        bookshop().bound("node-1", "192.0.2.1")
    assert bookshop().bound("node-1", "127.0.0.1").network["node-1"].listeners[0].address == "127.0.0.1"


def test_who_is_not_there_is_bound_to_nothing() -> None:
    """A machine that a later change takes away keeps no sockets."""
    address = bookshop().objects.node("node-3").addresses[0]
    assert "node-3" not in bookshop().bound("node-3", address).changed(nodes=2).network
