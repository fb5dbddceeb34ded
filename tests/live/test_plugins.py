from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from k8snetlab import live
from k8snetlab.cluster import Cluster, Options, example
from k8snetlab.cni import NetworkList, Plugin
from k8snetlab.cni.protocol import Command, about_a_node
from k8snetlab.errors import CannotDo
from k8snetlab.live import plugins
from tests import shops
from tests.live.questions import everybody, pod_pairs, services

DUAL = {
    "node_cidr": "172.18.0.0/16,fd00:172::/64",
    "pod_cidr": "10.244.0.0/16,fd00:10:244::/56",
    "service_cidr": "10.96.0.0/12,fd00:10:96::/108",
}

CLUSTERS: Mapping[str, Mapping[str, Any]] = {
    "bridge": {"cni": "bridge"},
    "bridge without hairpin": {"cni": "bridge", "cni_options": {"hairpin": "off", "mtu": "1400"}},
    "bridge that hides pods": {"cni": "bridge", "cni_options": {"masquerade": "on"}, **DUAL},
    "flannel": {"cni": "flannel", **DUAL},
    "flannel host-gw": {"cni": "flannel", "cni_options": {"backend": "host-gw"}},
    "cloud": {"cni": "cloud", **DUAL},
    "cloud without bridges": {"cni": "cloud", "cni_options": {"attach": "ptp"}, **DUAL},
}


@pytest.fixture(scope="module")
def real(kernel: None) -> None:
    """A machine with the real plugins."""
    if plugins.folder() is None:
        pytest.skip("Debian's package containernetworking-plugins is not on this machine")


@pytest.fixture(scope="module", params=CLUSTERS)
def shop(request: pytest.FixtureRequest) -> Cluster:
    """The same pods on every network that the plugin plugs in."""
    return example("same-node-other-node", **CLUSTERS[request.param])


ANSWERS: dict[Options, Mapping[str, Any]] = {}
"""What the plugin answered when the lab was built, by the cluster's options."""


@pytest.fixture(scope="module")
def plugged(real: None, shop: Cluster) -> Iterator[live.Lab]:
    """A lab whose pods the real plugin plugged in."""
    with live.Lab(plugins.unplugged(shop)) as lab:
        ANSWERS[shop.options] = plugins.attach(lab, shop)
        yield lab


def test_the_real_plugin_makes_what_is_compiled(plugged: live.Lab, shop: Cluster) -> None:
    """Bridge, ports, pods, their addresses and routes, the rules that hide pods: line for line, but for names and
    MACs.
    """
    with live.Lab(shop) as lab:
        compiled = plugins.wired(lab, shop)
    assert plugins.wired(plugged, shop) == compiled
    assert any("a port, hairpin" in line or "the end of a cable" in line for line in compiled)


def test_the_real_plugin_answers_what_the_machines_say(plugged: live.Lab, shop: Cluster) -> None:
    """Interfaces, addresses with gateways, routes in their order, DNS: the same JSON, but for what is drawn."""
    for pod, answer in ANSWERS[shop.options].items():
        assert plugins.undrawn(answer) == plugins.undrawn(plugins.answered(shop, pod))


def test_packets_go_through_the_real_plugins_network_as_in_the_walk(plugged: live.Lab, shop: Cluster) -> None:
    """All pods to all pods, and every Service: the walk of the compiled network says how each probe ends."""
    probes = [*pod_pairs(shop), *services(shop, everybody(shop, some=4))]
    compared = live.compare(shop.network, probes, plugged.probe(probes))
    wrong = [str(each) for each in compared if not each.agrees]
    assert probes
    assert not wrong, "\n".join(wrong[:20])


def test_a_plugin_that_was_told_otherwise_is_found_out(real: None) -> None:
    """Two bytes of MTU are a difference on the bridge, its ports and in the pods."""
    shop = example("same-node-other-node", cni="bridge")
    told = shop.changed(cni_options={"mtu": "1498"})
    with live.Lab(plugins.unplugged(told)) as lab:
        plugins.attach(lab, told)
        made = plugins.wired(lab, shop)
    with live.Lab(shop) as lab:
        compiled = plugins.wired(lab, shop)
    differs = {line.partition(": ")[2] for line in set(made) ^ set(compiled)}
    devices = ("a port, hairpin on", "cni0", "eth0")
    assert differs == {f"{name}: mtu {mtu}, up" for name in devices for mtu in (1498, 1500)}


def test_what_a_plugin_refuses_is_said(real: None) -> None:
    """A pod that is plugged in twice: the plugin's own words, and the pod."""
    shop = example("same-node-other-node", cni="bridge")
    with live.Lab(plugins.unplugged(shop)) as lab:
        plugins.attach(lab, shop)
        with pytest.raises(CannotDo, match=r"(?s)the plugin bridge: .*msg"):
            plugins.attach(lab, shop)


def test_the_real_check_fails_where_ours_does(real: None) -> None:
    """All is well after ADD; without the default route the plugin refuses, and so does the walk's."""
    shop, pod = example("same-node-other-node", cni="bridge"), "default/here-a"
    default = next(route for route in shop.network[pod].routes if route.prefix == "default")
    with live.Lab(plugins.unplugged(shop)) as lab:
        answer = plugins.attach(lab, shop)[pod]
        assert plugins.asked_again(lab, shop, pod, Command.CHECK, answer) == {}
        assert shop.cni_call(pod, "CHECK").succeeded
        assert lab.run(pod, "ip", "route", "del", "default").status == 0
        assert plugins.asked_again(lab, shop, pod, Command.CHECK, answer)["code"]
    assert not shop.without(pod, default).cni_call(pod, "CHECK").succeeded


def test_the_real_plugin_takes_the_cable_away_twice(real: None) -> None:
    """DEL unplugs the pod, and a second DEL finds nothing and is content."""
    shop, pod = example("same-node-other-node", cni="bridge"), "default/here-a"
    with live.Lab(plugins.unplugged(shop)) as lab:
        answer = plugins.attach(lab, shop)[pod]
        assert "eth0" in lab.run(pod, "ip", "link").out
        assert plugins.asked_again(lab, shop, pod, Command.DEL, answer) == {}
        assert "eth0" not in lab.run(pod, "ip", "link").out
        assert plugins.asked_again(lab, shop, pod, Command.DEL, answer) == {}


NODE = """
apiVersion: v1
kind: Node
metadata: {{name: node-{at}}}
spec: {{podCIDR: 10.244.{at}.0/24}}
status: {{addresses: [{{type: InternalIP, address: 172.18.0.1{at}}}]}}
---
"""


@pytest.mark.parametrize("network", ["bridge that hides pods", "cloud without bridges"])
def test_the_real_plugin_leaves_what_a_cluster_without_the_pod_has(real: None, network: str) -> None:
    """After DEL no cable, route or rule of the pod is left, and its address is free; ours is as silent."""
    options = {name: value for name, value in CLUSTERS[network].items() if name.startswith("cni")}
    others = [NODE.format(at=1), NODE.format(at=2), shops.pod("a"), shops.pod("c", "node-2")]
    shop, fewer = Cluster.load(*others, shops.pod("b"), **options), Cluster.load(*others, **options)
    with live.Lab(plugins.unplugged(shop)) as lab:
        answers = plugins.attach(lab, shop)
        assert plugins.reserved(lab, shop, "node-1") == ("10.244.1.2", "10.244.1.3")
        assert plugins.asked_again(lab, shop, "default/b", Command.DEL, answers["default/b"]) == {}
        left, kept = plugins.wired(lab, fewer), plugins.reserved(lab, shop, "node-1")
    with live.Lab(fewer) as lab:
        assert left == plugins.wired(lab, fewer)
    assert kept == ("10.244.1.2",)
    said = shop.cni_call("default/b", "DEL")
    assert said.succeeded and said.answer is None


@pytest.mark.parametrize("command", [Command.GC, Command.STATUS])
def test_a_plugin_of_an_older_contract_is_asked_in_vain(real: None, command: Command) -> None:
    """The real one speaks 1.0.0 and knows no such command; neither does ours in that version."""
    shop = example("same-node-other-node", cni="bridge")
    with live.Lab(plugins.unplugged(shop)) as lab:
        assert plugins.asked_about(lab, shop, "node-1", command)["code"]
    told = NetworkList("1.0.0", "cbr0", (Plugin(plugins.configuration(shop, "node-1")),))
    with pytest.raises(CannotDo, match=f"version 1.0.0, which has no {command}"):
        about_a_node(command, told, ())
