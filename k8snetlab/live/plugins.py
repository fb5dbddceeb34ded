"""Would the real plugin have made the same?

The CNIs `bridge`, `flannel` and `cloud` do not plug pods in themselves: they leave that to the plugins `bridge` and
`ptp`, programs with a contract — a network configuration on standard input, a few variables, a result on standard
output. What they leave on node and pod is compiled by `cni.bridge` and `cni.cables`. Here the program itself does the
work:

    with live.Lab(unplugged(shop)) as lab:
        attach(lab, shop)

The lab is built without any pod's cable, with all else as compiled, and the plugin is called for one pod after the
other as a kubelet would (`ADD`). Addresses come from `host-local`, the real one too, in the order of pods. Then packets
must go as the walk says, and what stands on the machines must be what a lab of the compiled state has: `wired` prints
it.

Compared: the bridge's addresses, MTU and state; of every port and of the node's end of every other cable MTU, state,
addresses and hairpin mode; of every pod addresses with broadcast and scope, MTU, state; the routes of bridge, cables
and pods with protocol, scope, source and metric; the rules that
hide pods, word for word; and what the plugin answered, with what `cni.protocol` reads off the compiled machines. Not
compared, because they are drawn at random: the names, numbers and MACs of devices, and the link-local addresses that
follow from MACs.

After DEL there must be what a cluster without the pod has; `reserved` says which addresses `host-local` still keeps.
GC and STATUS came with version 1.1.0 of the contract. Debian's plugins speak 1.0.0 and refuse them, and so does
`cni.protocol` in that version; what newer plugins do is not compared.

Not here: chained plugins (`portmap`, `bandwidth`). CNI specification 1.0.0; Debian's package
containernetworking-plugins.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from k8snetlab import cni
from k8snetlab.address import number
from k8snetlab.cluster import Cluster
from k8snetlab.cni.bridge import BRIDGE, NETWORK, POD_DEVICE
from k8snetlab.cni.protocol import Command, container_id, result
from k8snetlab.compile import compiled
from k8snetlab.errors import CannotDo, Problem
from k8snetlab.linux.host import Network, Part
from k8snetlab.linux.link import loopback
from k8snetlab.live.lab import Lab, Printed
from k8snetlab.live.script import namespace

__all__ = [
    "FOLDERS", "answered", "asked_about", "asked_again", "attach", "configuration", "folder", "reserved", "undrawn",
    "unplugged", "wired",
]  # fmt: skip

FOLDERS = ("/usr/lib/cni", "/opt/cni/bin")
"""Where plugins are: Debian's place, and everybody else's."""

PLUGINS = ("bridge", "ptp")
"""The plugins that give pods their cables."""

VERSION = "1.0.0"
EVERYTHING = {4: "0.0.0.0/0", 6: "::/0"}


# The lab before any pod is plugged in


class _Unplugged(msgspec.Struct, frozen=True):
    """A CNI that does all it does on nodes, but has not plugged in a pod."""

    plugin: cni.Cni

    @property
    def name(self) -> str:
        return self.plugin.name

    @property
    def options(self) -> tuple[cni.Option, ...]:
        return self.plugin.options

    @property
    def policies(self) -> cni.PolicyAttachment:
        return self.plugin.policies

    @property
    def overhead(self) -> int:
        return self.plugin.overhead

    @property
    def summary(self) -> str:
        return self.plugin.summary

    def pod_mtu(self, machine: cni.Machine) -> int:
        return self.plugin.pod_mtu(machine)

    def node(self, plan: cni.Plan, machine: cni.Machine, workloads: object) -> Part:
        return self.plugin.node(plan, machine, ())

    def pod(self, plan: cni.Plan, machine: cni.Machine, workload: cni.Workload) -> Part:
        return Part(links=(loopback(),))

    def router(self, plan: cni.Plan) -> Part:
        return cni.told_to_router(self.plugin, plan)


def unplugged(cluster: Cluster) -> Network:
    """The machines as they are before a pod has a cable: all else is as compiled."""
    return compiled(cluster.layout, _Unplugged(cluster.plugin), cluster.options.proxy)


# What the plugin is told


def configuration(cluster: Cluster, node: str) -> dict[str, Any]:
    """What a node's plugin is told: the configuration that an administrator writes, or flannel's plugin, for the
    version of the contract that Debian's plugins speak. Raises `CannotDo` for a CNI that uses neither `bridge` nor
    `ptp`.
    """
    plugin = cluster.plugin
    if isinstance(plugin, cni.Configured):
        network = plugin.network(cluster.layout.cni_plan, cluster.layout.machines[node])
        for each in network.plugins:
            told = each.delegate or each.configuration
            if told["type"] in PLUGINS:
                ipam = {**told["ipam"], "dataDir": _remembered(node)}
                return {"cniVersion": VERSION, "name": network.name, **told, "ipam": ipam}
    raise CannotDo(f"{cluster.options.cni} uses none of the plugins {', '.join(PLUGINS)}")


def _remembered(node: str) -> str:
    """Where `host-local` writes down what it has given away; nodes share their files in a lab."""
    return f"/run/cni/{node}"


def folder() -> Path | None:
    """Where the real plugins are on this machine, if they are."""
    return next((Path(each) for each in FOLDERS if (Path(each) / "bridge").exists()), None)


# Calling it

_WITH_PROC = ("unshare", "--mount", "--pid", "--fork", "--mount-proc")
"""A plugin looks itself up in /proc, which must be that of its own process namespace."""


def attach(lab: Lab, cluster: Cluster) -> dict[str, Any]:
    """Let the plugin plug in every pod, on each node in the order of addresses: what it answered, by pod. Raises
    `CannotDo` where the machine has no plugins, or with what the plugin says.
    """
    where = folder()
    if where is None:
        places = " or ".join(FOLDERS)
        raise CannotDo(f"no plugins in {places}: Debian's package containernetworking-plugins brings them")
    answers = {}
    for node, workloads in cluster.layout.workloads.items():
        told = configuration(cluster, node)
        for workload in sorted(workloads, key=lambda each: number(each.addresses[0])):
            answers[workload.name] = _add(lab, where, node, workload.name, told)
    return answers


def answered(cluster: Cluster, pod: str) -> dict[str, Any]:
    """What the plugin should answer for a pod, as the machines that were compiled say it."""
    node = cluster.objects.pod(pod).node_name
    network = cni.NetworkList(VERSION, NETWORK, (cni.Plugin(configuration(cluster, node)),))
    return dict(result(network, cluster.network[node], cluster.network[pod]))


def undrawn(answer: Mapping[str, Any]) -> dict[str, Any]:
    """An answer without what is drawn: MACs, the name of the node's end, the path of the namespace."""
    kept = [
        {
            "name": BRIDGE if each["name"] == BRIDGE else POD_DEVICE if each.get("sandbox") else "the node's end",
            "inside": bool(each.get("sandbox")),
        }
        for each in answer["interfaces"]
    ]
    return {**answer, "interfaces": kept}


def _add(lab: Lab, where: Path, node: str, pod: str, told: Mapping[str, Any]) -> Any:
    printed = _called(lab, where, node, pod, "ADD", told)
    if printed.status:
        said = printed.out.strip() or printed.err.strip()
        raise CannotDo(Problem(f"the plugin {told['type']}: {said}", object=pod))
    return json.loads(printed.out)


def asked_again(lab: Lab, cluster: Cluster, pod: str, command: Command, answer: Mapping[str, Any]) -> dict[str, Any]:
    """What the plugin says to `CHECK` or `DEL` for a pod that it plugged in with that answer: its error, or nothing."""
    node = cluster.objects.pod(pod).node_name
    told = {**configuration(cluster, node), "prevResult": answer}
    return _error(_called(lab, _there(), node, pod, command, told))


def asked_about(lab: Lab, cluster: Cluster, node: str, command: Command) -> dict[str, Any]:
    """What the plugin says to `GC` or `STATUS`: its error, or nothing."""
    where, told = _there(), configuration(cluster, node)
    variables = {"CNI_COMMAND": command, "CNI_PATH": str(where), "PATH": os.environ["PATH"]}
    return _error(_run(lab, where, node, variables, told))


def reserved(lab: Lab, cluster: Cluster, node: str) -> tuple[str, ...]:
    """The addresses that `host-local` keeps for pods of a node, as it has written them down."""
    name = configuration(cluster, node)["name"]
    files = _text(lab, node, "ls", f"{_remembered(node)}/{name}").split()
    return tuple(sorted(each for each in files if not each.startswith(("last_reserved", "lock"))))


def _there() -> Path:
    where = folder()
    if where is None:
        raise CannotDo("there are no plugins")
    return where


def _error(printed: Printed) -> dict[str, Any]:
    return dict(json.loads(printed.out)) if printed.status else {}


def _called(lab: Lab, where: Path, node: str, pod: str, command: str, told: Mapping[str, Any]) -> Printed:
    variables = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container_id(pod),
        "CNI_NETNS": f"/run/netns/{namespace(pod)}",
        "CNI_IFNAME": POD_DEVICE,
        "CNI_PATH": str(where),
        "PATH": os.environ["PATH"],
    }
    return _run(lab, where, node, variables, told)


def _run(lab: Lab, where: Path, node: str, variables: Mapping[str, str], told: Mapping[str, Any]) -> Printed:
    words = (f"{name}={value}" for name, value in variables.items())
    return lab.run(node, *_WITH_PROC, "env", *words, str(where / told["type"]), text=json.dumps(told))


# What stands there

ENDS = "veth"
ENDS_NAME = re.compile(r"dev veth\w+")


def wired(lab: Lab, cluster: Cluster) -> tuple[str, ...]:
    """What the plugin leaves on nodes and in pods, read from the kernel: a line for each thing, without names and MACs
    that are drawn.
    """
    lines: list[str] = []
    for node, workloads in cluster.layout.workloads.items():
        lines += sorted(f"{node}: {line}" for line in _on_node(lab, node))
        for workload in workloads:
            lines += sorted(f"{workload.name}: {line}" for line in _in_pod(lab, workload.name))
    return tuple(lines)


def _on_node(lab: Lab, node: str) -> Iterator[str]:
    for device in _json(lab, node, "ip", "-j", "-d", "address"):
        if device["ifname"] == BRIDGE:
            yield from _device(BRIDGE, device)
        elif device.get("master") == BRIDGE:
            hairpin = device["linkinfo"]["info_slave_data"]["hairpin"]
            yield from _device(f"a port, hairpin {'on' if hairpin else 'off'}", device)
        elif device["ifname"].startswith(ENDS):
            yield from _device("the end of a cable", device)
    yield from (line for line in _routes(lab, node) if f"dev {BRIDGE} " in line)
    yield from (ENDS_NAME.sub("dev the cable", line) for line in _routes(lab, node) if f"dev {ENDS}" in line)
    for command in ("iptables-save", "ip6tables-save"):
        rules = _text(lab, node, command, "-t", "nat").splitlines()
        yield from (f"{command}: {line}" for line in rules if line.startswith("-A ") and "CNI-" in line)


def _in_pod(lab: Lab, pod: str) -> Iterator[str]:
    for device in _json(lab, pod, "ip", "-j", "address"):
        yield from _device(device["ifname"], device)
    yield from _routes(lab, pod)


def _device(name: str, device: Mapping[str, Any]) -> Iterator[str]:
    yield f"{name}: mtu {device['mtu']}, {'up' if 'UP' in device['flags'] else 'down'}"
    for held in device["addr_info"]:
        if held["scope"] != "link":
            broadcast = f" brd {held['broadcast']}" if "broadcast" in held else ""
            yield f"{name}: {held['local']}/{held['prefixlen']}{broadcast} scope {held['scope']}"


def _routes(lab: Lab, host: str) -> Iterator[str]:
    for family in ("-4", "-6"):
        for line in _text(lab, host, "ip", family, "route").splitlines():
            if not line.startswith("fe80::"):
                yield f"{line.strip()} "


def _json(lab: Lab, host: str, *command: str) -> list[dict[str, Any]]:
    return msgspec.json.decode(_text(lab, host, *command), type=list[dict[str, Any]])


def _text(lab: Lab, host: str, *command: str) -> str:
    printed = lab.run(host, *command)
    if printed.status:
        raise CannotDo(Problem(f"{' '.join(command)}: {printed.err.strip()}", object=host))
    return printed.out
