"""What a runtime says to plugins, and what they answer."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from k8snetlab.cluster import Cluster
from k8snetlab.cni.protocol import Call, Conversation
from k8snetlab.errors import BadOption, CannotDo, UnknownName
from k8snetlab.linux.link import Link
from tests.shops import FAMILIES, bookshop

POD = "shop/web-0"


def asked(command: str, network: str = "bridge", name: str = POD) -> Conversation:
    """A command to the bookshop's CNI."""
    return bookshop(network).cni_call(name, command)


def names(calls: tuple[Call, ...]) -> list[Any]:
    """The plugins in the order of calls, those that they call in a list after them."""
    return [part for call in calls for part in (call.plugin, *([names(call.delegated)] if call.delegated else []))]


def answer(conversation: Conversation) -> dict[str, Any]:
    """What the last plugin printed."""
    assert conversation.answer is not None
    return dict(conversation.answer)


def device(shop: Cluster, host: str, name: str, **fields: object) -> Cluster:
    """The cluster with one device of one machine changed."""
    machine = shop.network[host]
    links = tuple(_changed(link, fields) if link.name == name else link for link in machine.links)
    return shop.with_hosts(msgspec.structs.replace(machine, links=links))


def _changed(link: Link, fields: dict[str, object]) -> Link:
    return msgspec.structs.replace(link, **fields)


# Who is called


@pytest.mark.parametrize("network", ["bridge", "cloud"])
def test_the_bridge_plugin_asks_host_local_for_an_address(network: str) -> None:
    """One plugin in the list, and one that it delegates to."""
    assert names(asked("ADD", network).calls) == ["bridge", ["host-local"]]


def test_flannel_hands_the_pod_over_to_bridge() -> None:
    """Then portmap has its turn, with what came before as prevResult."""
    calls = asked("ADD", "flannel").calls
    assert names(calls) == ["flannel", ["bridge", ["host-local"]], "portmap"]
    assert calls[1].stdin["prevResult"] == calls[0].stdout == calls[1].stdout


def test_the_last_plugin_is_the_first_to_unplug() -> None:
    """DEL goes through the list backwards, and prints nothing."""
    conversation = asked("DEL", "flannel")
    assert names(conversation.calls) == ["portmap", "flannel", ["bridge", ["host-local"]]]
    assert conversation.answer is None


# What they are told


def test_flannels_plugin_reads_what_its_daemon_left() -> None:
    """The block with the gateway, the MTU, and that flannel masquerades itself, so that bridge must not."""
    (call, _) = asked("ADD", "flannel").calls
    assert call.stdin == {
        "cniVersion": "0.3.1",
        "name": "cbr0",
        "type": "flannel",
        "delegate": {"hairpinMode": True, "isDefaultGateway": True},
    }
    assert call.reads == {
        "/run/flannel/subnet.env": (
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.2.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
        )
    }
    (delegated,) = call.delegated
    assert delegated.stdin == {
        "cniVersion": "0.3.1",
        "name": "cbr0",
        "type": "bridge",
        "isGateway": True,
        "isDefaultGateway": True,
        "hairpinMode": True,
        "ipMasq": False,
        "mtu": 1450,
        "ipam": {
            "type": "host-local",
            "ranges": [[{"subnet": "10.244.2.0/24"}]],
            "routes": [{"dst": "10.244.0.0/16"}],
        },
    }


def test_options_of_the_cni_are_in_the_configuration() -> None:
    """What was chosen for the cluster is what the plugin is told."""
    options = {"hairpin": "off", "masquerade": "on", "mtu": "1400"}
    (call,) = bookshop().changed(cni="bridge", cni_options=options).cni_call(POD).calls
    assert [call.stdin[name] for name in ("hairpinMode", "ipMasq", "mtu")] == [False, True, 1400]


def test_the_variables_say_which_pod() -> None:
    """Namespace and name of the pod are in CNI_ARGS, where a plugin of Kubernetes looks for them."""
    (call,) = asked("ADD").calls
    assert list(call.environment) == [
        "CNI_COMMAND", "CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS", "CNI_PATH",
    ]  # fmt: skip
    assert "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;" in call.environment["CNI_ARGS"]
    assert call.environment["CNI_NETNS"].startswith("/var/run/netns/cni-")


# What ADD answers


def test_the_answer_is_what_stands_on_the_machines() -> None:
    """Bridge, the node's end and the pod's device by name and MAC; address, gateway and routes of the pod."""
    shop = bookshop("bridge")
    node, pod = shop.network["node-3"], shop.network[POD]
    end = pod.link("eth0").peer
    assert end is not None
    told = answer(asked("ADD"))
    sandbox = asked("ADD").calls[0].environment["CNI_NETNS"]
    assert told["interfaces"] == [
        {"name": "cni0", "mac": node.link("cni0").mac},
        {"name": end.link, "mac": node.link(end.link).mac},
        {"name": "eth0", "mac": pod.link("eth0").mac, "sandbox": sandbox, "mtu": 1500},
    ]
    assert told["ips"] == [{"interface": 2, "address": "10.244.2.2/24", "gateway": "10.244.2.1"}]
    assert (told["routes"], told["dns"]) == ([{"dst": "0.0.0.0/0", "gw": "10.244.2.1"}], {})


def test_the_plugin_for_addresses_knows_no_interfaces() -> None:
    """Addresses with their gateway, and the routes it was told."""
    (call, _) = asked("ADD", "flannel").calls
    assert call.delegated[0].delegated[0].stdout == {
        "cniVersion": "0.3.1",
        "ips": [{"version": "4", "address": "10.244.2.2/24", "gateway": "10.244.2.1"}],
        "routes": [{"dst": "10.244.0.0/16"}],
        "dns": {},
    }


def test_with_two_families_there_are_two_of_everything() -> None:
    """Ranges, addresses, default routes."""
    shop = bookshop("bridge", "dual-stack")
    (call,) = shop.cni_call(POD).calls
    assert [each[0]["subnet"] for each in call.stdin["ipam"]["ranges"]] == ["10.244.2.0/24", "fd00:10:244:2::/64"]
    told = answer(shop.cni_call(POD))
    assert [each["address"] for each in told["ips"]] == ["10.244.2.2/24", "fd00:10:244:2::2/64"]
    assert [each["dst"] for each in told["routes"]] == ["0.0.0.0/0", "::/0"]


@pytest.mark.parametrize("families", FAMILIES)
@pytest.mark.parametrize("network", ["bridge", "flannel", "flannel-wireguard", "cloud"])
def test_every_pod_was_plugged_in_and_is_well(network: str, families: str) -> None:
    """The answer of ADD has the pod's own addresses, and where there is a CHECK it is content."""
    shop = bookshop(network, families)
    for pods in shop.layout.workloads.values():
        for workload in pods:
            told = answer(shop.cni_call(workload.name))
            assert tuple(each["address"].partition("/")[0] for each in told["ips"]) == workload.addresses
            if not network.startswith("flannel"):
                assert shop.cni_call(workload.name, "CHECK").succeeded


def test_calicos_plugin_names_the_nodes_end_and_the_addresses() -> None:
    """No MAC, no gateway, no route: the pod's routes are the same everywhere. Two plugins pass it on."""
    shop = bookshop("calico")
    conversation = shop.cni_call(POD)
    assert names(conversation.calls) == ["calico", ["calico-ipam"], "portmap", "bandwidth"]
    address = shop.objects.pod(POD).ips[0]
    end = shop.network[POD].link("eth0").peer
    assert end is not None
    assert answer(conversation) == {
        "cniVersion": "0.3.1",
        "interfaces": [{"name": end.link}],
        "ips": [{"version": "4", "address": f"{address}/32"}],
        "dns": {},
    }


def test_calicos_plugin_reads_the_mtu_that_felix_found() -> None:
    """Unless one was chosen, which then stands in the configuration."""
    found, chosen = (
        bookshop().changed(cni="calico", cni_options=options).cni_call(POD).calls[0]
        for options in ({"mode": "vxlan"}, {"mode": "vxlan", "mtu": "1400"})
    )
    assert (found.stdin["mtu"], found.reads) == (0, {"/var/lib/calico/mtu": "1450"})
    assert (chosen.stdin["mtu"], chosen.reads) == (1400, {})


def test_ciliums_plugin_has_no_other_and_names_all_routes() -> None:
    """Its agent gives the addresses; the gateway stands beside the default route, and IPv6 before IPv4."""
    shop = bookshop("cilium", "dual-stack")
    conversation = shop.cni_call(POD)
    assert names(conversation.calls) == ["cilium-cni"]
    assert conversation.calls[0].stdin == {
        "cniVersion": "0.3.1",
        "name": "cilium",
        "type": "cilium-cni",
        "enable-debug": False,
        "log-file": "/var/run/cilium/cilium-cni.log",
    }
    told, pod = answer(conversation), shop.network[POD]
    via = {route.family: route.via for route in pod.routes if route.prefix == "default"}
    four, six = shop.objects.pod(POD).ips
    assert [each["name"] for each in told["interfaces"]] == [shop.network[POD].link("eth0").peer.link, "eth0"]  # type: ignore[union-attr]
    assert told["ips"] == [
        {"version": "6", "interface": 1, "address": f"{six}/128", "gateway": via[6]},
        {"version": "4", "interface": 1, "address": f"{four}/32", "gateway": via[4]},
    ]
    assert told["routes"] == [
        {"dst": f"{via[6]}/128"},
        {"dst": "::/0", "gw": via[6]},
        {"dst": f"{via[4]}/32"},
        {"dst": "0.0.0.0/0", "gw": via[4]},
    ]


def test_weaves_plugin_names_the_address_and_the_gateway() -> None:
    """No interface and no route; portmap passes it on."""
    shop = bookshop().changed(cni="weave", cni_options={"hairpin": "off"})
    conversation = shop.cni_call(POD)
    assert names(conversation.calls) == ["weave-net", "portmap"]
    first, second = conversation.calls
    assert first.stdin == {"cniVersion": "0.3.0", "name": "weave", "type": "weave-net", "hairpinMode": False}
    default = next(route for route in shop.network[POD].routes if route.prefix == "default")
    address = shop.objects.pod(POD).ips[0]
    assert answer(conversation) == {
        "cniVersion": "0.3.0",
        "ips": [{"version": "4", "address": f"{address}/12", "gateway": default.via}],
        "dns": {},
    }
    assert second.stdin["prevResult"] == first.stdout


# What CHECK finds


def test_a_check_has_the_answer_of_add_in_its_input() -> None:
    """And says nothing when all is as it was."""
    conversation = asked("CHECK")
    (call,) = conversation.calls
    assert call.stdin["prevResult"] == answer(asked("ADD"))
    assert (call.stdout, call.status, conversation.succeeded) == (None, 0, True)


def test_a_check_says_what_somebody_broke() -> None:
    """A route, an address, a MAC, the device itself, the port of the bridge: each by its name."""
    shop = bookshop("bridge")
    pod = shop.network[POD]
    route, eth0 = pod.routes[0], pod.link("eth0")
    assert eth0.peer is not None
    broken = {
        "shop/web-0 has no route to 0.0.0.0/0": shop.without(POD, route),
        "shop/web-0 has lost its address 10.244.2.2/24": device(shop, POD, "eth0", addresses=()),
        "eth0 of shop/web-0 has the MAC 0a:00:00:00:00:01, and not 0a:58:0a:f4:02:02": device(
            shop, POD, "eth0", mac="0a:00:00:00:00:01"
        ),
        f"node-3 has no interface {eth0.peer.link}": shop.without(POD, eth0),  # both ends of the cable go
        f"{eth0.peer.link} of node-3 is no port of cni0": device(shop, "node-3", eth0.peer.link, master=""),
        "node-3 has no interface cni0": shop.without("node-3", shop.network["node-3"].link("cni0")),
    }
    for why, changed in broken.items():
        conversation = changed.cni_call(POD, "CHECK")
        assert answer(conversation) == {"cniVersion": "1.1.0", "code": 999, "msg": why}
        assert (conversation.calls[-1].status, conversation.succeeded) == (1, False)


# What a version does not have


@pytest.mark.parametrize(
    ("command", "name", "since"), [("CHECK", POD, "0.4.0"), ("GC", "node-1", "1.1.0"), ("STATUS", "node-1", "1.1.0")]
)
def test_an_old_configuration_has_not_every_command(command: str, name: str, since: str) -> None:
    """Flannel's is for 0.3.1."""
    with pytest.raises(CannotDo, match=f"version 0.3.1, which has no {command}: it came with {since}"):
        asked(command, "flannel", name)


def test_an_old_answer_has_versions_of_addresses_and_no_mtu() -> None:
    """What a plugin prints follows the version that it is asked in."""
    old = answer(asked("ADD", "flannel"))
    assert old["ips"][0]["version"] == "4"
    assert not any("mtu" in each for each in old["interfaces"])
    assert "prevResult" not in asked("DEL", "flannel").calls[0].stdin
    assert "prevResult" in asked("DEL").calls[0].stdin


# Whole nodes


def test_garbage_collection_names_the_pods_that_are_left() -> None:
    """By container and interface; the plugin for addresses is told as well."""
    (call,) = asked("GC", name="node/node-1").calls
    left = call.stdin["cni.dev/valid-attachments"]
    assert len(left) == len(bookshop("bridge").layout.workloads["node-1"])
    assert {each["ifname"] for each in left} == {"eth0"}
    assert call.delegated[0].stdin == call.stdin
    assert list(call.environment) == ["CNI_COMMAND", "CNI_PATH"]


def test_a_status_is_asked_without_a_pod() -> None:
    """Nothing is printed when pods can be plugged in."""
    conversation = asked("STATUS", name="node-1")
    assert (conversation.answer, conversation.succeeded) == (None, True)


# What cannot be asked


@pytest.mark.parametrize(
    ("command", "name", "error", "why"),
    [
        ("add", POD, BadOption, "'add' is no command of the CNI; there are ADD, CHECK, DEL, GC, STATUS"),
        ("ADD", "node-1", CannotDo, "ADD is about a pod: GC, STATUS are about a node"),
        ("GC", POD, CannotDo, "GC is about a node, and shop/web-0 is a pod"),
        ("ADD", "shop/nobody", UnknownName, "there is no pod 'shop/nobody'"),
        ("GC", "node-9", UnknownName, "there is no node 'node-9'"),
    ],
)
def test_a_wrong_question_is_answered_plainly(command: str, name: str, error: type[Exception], why: str) -> None:
    """Pods have names with a namespace, nodes have none."""
    with pytest.raises(error, match=why):
        asked(command, name=name)


def test_no_plugin_is_called_for_a_pod_of_the_host_network() -> None:
    """It has what its node has."""
    pod = """
apiVersion: v1
kind: Pod
metadata: {name: agent}
spec: {nodeName: node-1, hostNetwork: true, containers: [{name: agent, image: agent}]}
"""
    with pytest.raises(BadOption, match=r"Pod default/agent: spec.hostNetwork: .* no plugin is called for it"):
        Cluster.load(pod, cni="bridge").cni_call("default/agent")


# How it is printed


def test_a_call_is_printed_as_a_shell_would_make_it() -> None:
    """Variables, program, input, and what it printed; delegated calls further in."""
    text = str(asked("ADD", "flannel"))
    assert text.startswith("$ CNI_COMMAND=ADD \\\n  CNI_CONTAINERID=")
    assert "  /opt/cni/bin/flannel <<EOF\n" in text
    assert "\n  reads /run/flannel/subnet.env\n    FLANNEL_NETWORK=10.244.0.0/16\n" in text
    assert '\n      "routes": [{"dst": "10.244.0.0/16"}],\n' in text
    assert "(exit status" not in text
    broken = bookshop("bridge").without(POD, bookshop("bridge").network[POD].routes[0]).cni_call(POD, "CHECK")
    assert str(broken).endswith("(exit status 1)")


def test_a_conversation_is_a_document() -> None:
    """All of it is JSON."""
    document = asked("ADD", "flannel").as_dict()
    assert json.loads(json.dumps(document)) == document
    assert [call["plugin"] for call in document["calls"]] == ["flannel", "portmap"]
