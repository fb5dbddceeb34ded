"""Faults: each is put where it is noticed, shows the symptom, and goes without a trace."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import pytest

import k8snetlab as k8s
from k8snetlab import faults
from k8snetlab.cluster import SHOWN, Cluster
from k8snetlab.errors import CannotDo, UnknownName
from k8snetlab.faults import FAULTS
from tests.shops import FAMILIES, NETWORKS, pod, service

SHOP = (
    pod("web-1", "node-1"), pod("client", "node-1", app="client"), pod("web-2", "node-2"),
    pod("far", "node-3", app="client"), service("web", "type: NodePort"),
)  # fmt: skip

MORE: Mapping[str, Mapping[str, Any]] = {
    "weave": {"cni": "weave"},
    "calico-nftables": {"cni": "calico", "cni_options": {"dataplane": "nftables"}, "proxy": "nftables"},
}
PODS = "default/web-1 → default/web-2:8080"
BACK = "default/web-2 → default/web-1:8080"
NODE = "node/node-1 → default/web-2:8080"
OWN = "default/web-1 → svc/default/web:80/TCP"
OUT = "default/web-1 → 203.0.113.10:80"

ROWS: tuple[tuple[str, str, str, str, str], ...] = (
    # fault, network, the first question that is answered otherwise, the answer, and what decides, in words of the trace
    ("mtu-too-large", "flannel", f"{PODS} (1,406 bytes)", "TIMEOUT", "do not fit the MTU of"),
    ("mtu-too-large", "weave", f"{PODS} (1,332 bytes)", "TIMEOUT", "do not fit the MTU of"),
    ("route-missing", "flannel", PODS, "TIMEOUT", ""),
    ("route-missing", "calico", PODS, "TIMEOUT", ""),
    ("route-missing", "cloud", BACK, "TIMEOUT", ""),
    ("route-missing", "cilium", NODE, "TIMEOUT", ""),
    ("pod-cidr-overlap", "flannel", PODS, "UNREACHABLE", "docker0"),
    ("pod-cidr-overlap", "weave", NODE, "UNREACHABLE", "docker0"),
    ("proxy-arp-off", "calico", PODS, "UNREACHABLE", "169.254.1.1"),
    ("bgp-peer-down", "calico", PODS, "TIMEOUT", ""),
    ("fdb-missing", "flannel", PODS, "TIMEOUT", "flannel.1"),
    ("neighbour-missing", "flannel", PODS, "UNREACHABLE", "10.244.1.0"),
    ("peer-missing", "flannel-wireguard", PODS, "UNREACHABLE", "flannel-wg"),
    ("rp-filter-strict", "cilium-native", PODS, "TIMEOUT", "rp_filter"),
    ("ip-forward-off", "flannel", PODS, "TIMEOUT", "forward"),
    ("bridge-nf-call-off", "flannel", "default/client → svc/default/web:80/TCP", "TIMEOUT", ""),
    ("hairpin-off", "flannel", OWN, "TIMEOUT", ""),
    ("ipcache-lost", "cilium", PODS, "TIMEOUT", ""),
    ("weave-link-down", "weave", PODS, "OPEN", ""),
    ("masquerade-missing", "flannel", OUT, "TIMEOUT", ""),
    ("masquerade-missing", "calico", OUT, "TIMEOUT", ""),
    ("pool-missing", "calico", PODS, "OPEN", ""),
    ("pool-missing", "calico-nftables", PODS, "OPEN", ""),
    ("selector-wrong", "flannel", OWN, "REFUSED", "has no endpoints"),
    ("target-port-wrong", "cilium", OWN, "REFUSED", "listens on"),
)


@cache
def shop(network: str, families: str = "IPv4") -> Cluster:
    """Two web servers, a client beside the first, a pod on the third node."""
    return Cluster.load(*SHOP, **{**NETWORKS, **MORE}[network], **FAMILIES[families])


def state(cluster: Cluster) -> dict[str, str]:
    """Everything that the nodes and the router print."""
    hosts = [host for host in cluster.network.values() if host.kind in ("machine", "router", "switch")]
    return {f"{host.name} {what}": show(host) for host in hosts for what, show in SHOWN.items()}


@pytest.mark.parametrize(("fault", "network", "ask", "client", "why"), ROWS, ids=lambda value: str(value)[:20])
def test_a_fault_is_noticed_and_goes_without_a_trace(fault: str, network: str, ask: str, client: str, why: str) -> None:
    """Somebody is answered otherwise, for the reason that the trace tells; repaired, every byte is as it was."""
    whole = shop(network)
    hurt = whole.broken(fault)
    [first, *_] = faults.noticed(hurt, fault)
    assert str(first.ask) == ask
    assert not first.now.as_good_as(first.before)
    trace = hurt.trace(first.ask.source, first.ask.target, size=first.ask.size)
    assert client in {str(outcome.client) for outcome in trace.outcomes}
    assert why in trace.full()
    assert state(hurt.repaired(fault)) == state(whole)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_title_does_not_tell_the_symptom(fault: str) -> None:
    """What is wrong and what people say of it are two things, each in its own words."""
    found = FAULTS[fault]
    assert found.name == fault and found.title and found.symptom
    assert found.symptom not in found.title and found.title not in found.symptom
    assert str(found) == f"{fault}: {found.title} (section {found.lesson})"
    assert f"    {fault:24} {found.title}" in (faults.__doc__ or "")


@pytest.mark.parametrize(
    ("fault", "network", "why"),
    [
        ("proxy-arp-off", "flannel", "no node answers ARP for others"),
        ("bgp-peer-down", "flannel", "no node speaks BGP"),
        ("bgp-peer-down", "calico-vxlan", "no node speaks BGP"),
        ("fdb-missing", "calico", "no node has a tunnel with forwarding entries"),
        ("hairpin-off", "calico", "no bridge of a node has such ports"),
        ("weave-link-down", "bridge", "the nodes are no mesh"),
        ("masquerade-missing", "bridge", "no node hides its pods"),
    ],
)
def test_what_a_cluster_does_not_have_cannot_be_broken(fault: str, network: str, why: str) -> None:
    """The error says what would be needed, the fault and the CNI; nothing there is nothing to mend."""
    with pytest.raises(CannotDo, match=why) as caught:
        shop(network).broken(fault)
    assert f"fault {fault}" in str(caught.value) and shop(network).options.cni in str(caught.value)


def test_a_fault_that_nobody_notices_is_none() -> None:
    """On a bridge without policy routing every answer leaves by the device that its question came by."""
    with pytest.raises(CannotDo, match="nobody in this cluster would notice it on node-1"):
        shop("bridge").broken("rp-filter-strict", on="node-1")


def test_a_fault_can_be_put_on_a_machine() -> None:
    """`on` names it; the first spot is taken else."""
    hurt = shop("flannel").broken("ip-forward-off", on="node-2")
    assert hurt.network["node-2"].sysctl("net.ipv4.ip_forward") == 0
    assert hurt.network["node-1"].sysctl("net.ipv4.ip_forward") == 1
    assert "ip-forward-off" in repr(hurt)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"fault": "mtu-to-large"}, UnknownName, "did you mean mtu-too-large"),
        ({"fault": "route-missing", "on": "node-9"}, UnknownName, "no machine 'node-9'"),
        ({"fault": "route-missing", "on": "external"}, CannotDo, "no machine has a route .* on external"),
    ],
)
def test_wrong_words_are_refused(given: dict[str, Any], error: type[Exception], words: str) -> None:
    """A fault that there is not, a machine that there is not, a machine that cannot have it."""
    with pytest.raises(error, match=words):
        shop("flannel").broken(**given)


def test_what_is_not_broken_has_no_notices() -> None:
    """Only an overlay that is there can be looked at."""
    with pytest.raises(UnknownName, match="overlay"):
        faults.noticed(shop("flannel"), "route-missing")


def test_a_fault_survives_another_choice() -> None:
    """Under another CNI the same two nodes have no route to each other; where there is nothing, nothing is broken."""
    hurt = shop("flannel").broken("route-missing").changed(cni="calico")
    assert {str(each.now).partition(",")[0] for each in faults.noticed(hurt, "route-missing")} >= {"TIMEOUT"}
    assert faults.check(hurt.repaired("route-missing"), "route-missing").holds
    down = shop("calico").broken("bgp-peer-down").changed(cni="flannel")
    assert not down.diff(shop("flannel")) and faults.check(down, "bgp-peer-down").holds


def test_an_mtu_that_fits_mends_cables_that_are_too_narrow() -> None:
    """The cables are as narrow as before, 1400 bytes, to which a bridge adds the 4 of a VLAN tag; but pods say shorter
    things now.
    """
    hurt = shop("flannel").broken("mtu-too-large")
    assert faults.check(hurt.changed(cni_options={"mtu": "1354"}), "mtu-too-large").holds
    assert not faults.check(hurt.changed(cni_options={"mtu": "1355"}), "mtu-too-large").holds


def test_a_lost_session_is_lost_in_every_view() -> None:
    """The RIBs forget what it had brought, and so do the routes."""
    whole, hurt = shop("calico-bgp"), shop("calico-bgp").broken("bgp-peer-down", on="node-2")
    assert "10.244.1.0/26" in str(whole.rib("node-1")[0])
    assert "10.244.1.0/26" not in str(hurt.rib("node-1")[0])
    assert hurt.options == whole.options and hurt.choices != whole.choices
    assert hurt.repaired("bgp-peer-down").rib("node-1") == whole.rib("node-1")


def test_a_wrong_manifest_is_a_fault_too() -> None:
    """The Service is as somebody wrote it, and other faults and choices go with it."""
    hurt = shop("flannel").broken("selector-wrong", on="svc/default/web")
    assert hurt.objects.service("default/web").spec.selector == {"app": "web-v2"}
    assert hurt.manifests == shop("flannel").manifests
    assert "web-1" not in str(hurt.get("endpoints", "default"))
    both = hurt.changed(cni="calico").broken("proxy-arp-off")
    assert faults.check(both.repaired("selector-wrong").repaired("proxy-arp-off"), "selector-wrong").holds
    with pytest.raises(UnknownName, match="default/wep"):
        hurt.broken("target-port-wrong", on="svc/default/wep")


def test_two_faults_are_two_overlays() -> None:
    """Each is mended by itself, in any order."""
    whole = shop("flannel")
    both = whole.broken("hairpin-off").broken("masquerade-missing")
    assert [overlay.name for overlay in both.overlays] == ["hairpin-off", "masquerade-missing"]
    one = both.repaired("hairpin-off")
    assert faults.check(one, "hairpin-off").holds and not faults.check(one, "masquerade-missing").holds
    assert not whole.diff(one.repaired("masquerade-missing"))


def test_faults_speak_both_families() -> None:
    """With two families the questions are asked in each, and a lost route is lost in both."""
    hurt = shop("flannel", "dual-stack").broken("route-missing")
    told = [str(each.ask) for each in faults.noticed(hurt, "route-missing")]
    assert any("(IPv4" in each for each in told) and any("(IPv6" in each for each in told)


def test_a_check_prints() -> None:
    """What was asked and who is still answered otherwise, with before and now."""
    hurt = shop("flannel").broken("hairpin-off")
    said = str(faults.check(hurt, "hairpin-off"))
    assert said.startswith("BROKEN  hairpin-off: ") and f"{OWN}\n  before: OPEN by" in said
    assert str(faults.check(hurt.repaired("hairpin-off"), "hairpin-off")).startswith("mended  hairpin-off: ")


def test_the_front_door_leads_to_faults() -> None:
    """`k8s.faults` is the room, loaded when asked for."""
    assert k8s.faults is faults
