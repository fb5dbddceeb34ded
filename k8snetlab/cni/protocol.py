"""What does the runtime say to the plugin, and what does the plugin answer?

A CNI plugin is a program. The container runtime makes a network namespace for the pod, and then calls, for each plugin
of the network's list in turn, with a few variables and the plugin's configuration on standard input:

- `ADD`: plug the pod in. The answer, on standard output, says which interfaces there are now, which addresses and
  routes the pod has, and what it should know of DNS. The next plugin of the list finds it in its input, as
  `prevResult`; the last answer is the runtime's, which keeps it.
- `CHECK`: is it still so? With what ADD answered as `prevResult`. Silence and exit status 0 mean yes.
- `DEL`: unplug it; in the opposite order. It must succeed even if nothing is left.
- `GC`: of all pods that the plugin remembers, these are still there; clean up after the others.
- `STATUS`: could you ADD?

Plugins call others in the same way: `flannel` writes a configuration for `bridge` from what its daemon left in
`/run/flannel/subnet.env`, and `bridge` asks `host-local` for an address. That is called delegation, and such calls
stand below the one that made them.

A configuration says which version of the contract it was written for, and the version decides: before 0.4.0 there is no
CHECK, and DEL gets no `prevResult`; before 1.0.0 every address says its version; before 1.1.0 there are no GC and
STATUS, and no `mtu`. What is asked for and does not exist is an error here, as it is in the runtime.

Everything is read off machines: the answer of ADD from the devices, addresses and routes that were compiled for node
and pod, the answer of CHECK from what is left of them. So a CHECK says what somebody has broken.

Not modelled: VERSION, results cached on disk, capabilities (`runtimeConfig`) and port mappings, the words of each
plugin's own errors (CHECK's are ours, with code 999, which programs in Go have for "internal"). Guide sections 2.1 and
3.1; CNI specification 1.1.0.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from hashlib import sha256
from typing import Any, TypeAlias

import msgspec

from k8snetlab.address import family
from k8snetlab.cni.plan import Answer, NetworkList, Plugin
from k8snetlab.errors import CannotDo, Problem
from k8snetlab.linux.host import Host
from k8snetlab.linux.link import Link, LinkKind
from k8snetlab.linux.route import Route

__all__ = ["Call", "Command", "Conversation", "about_a_node", "about_a_pod", "container_id", "result"]

POD_DEVICE = "eth0"
FOLDER = "/opt/cni/bin"
INTERNAL = 999
DEFAULT: Mapping[int, str] = {4: "0.0.0.0/0", 6: "::/0"}

Json: TypeAlias = Mapping[str, Any]


class Command(StrEnum):
    """What a runtime can ask of a plugin, as `CNI_COMMAND` has it."""

    ADD = "ADD"
    CHECK = "CHECK"
    DEL = "DEL"
    GC = "GC"
    STATUS = "STATUS"


SINCE: Mapping[Command, tuple[int, int, int]] = {
    Command.ADD: (0, 1, 0),
    Command.DEL: (0, 1, 0),
    Command.CHECK: (0, 4, 0),
    Command.GC: (1, 1, 0),
    Command.STATUS: (1, 1, 0),
}
"""The version of the contract that brought each command."""

WHOLE_NODE = (Command.GC, Command.STATUS)
"""What is asked about a node, not about a pod."""


class Call(msgspec.Struct, frozen=True):
    """One call of a plugin: its name, variables, standard input, and what it printed, with its exit status; before it
    answered, it read files (`reads`: path to text) and called others (`delegated`).
    """

    plugin: str
    environment: Mapping[str, str]
    stdin: Json
    stdout: Json | None = None
    status: int = 0
    delegated: tuple[Call, ...] = ()
    reads: Mapping[str, str] = {}

    def as_dict(self) -> dict[str, Any]:
        """The call as a document."""
        own = {name: getattr(self, name) for name in ("plugin", "environment", "stdin", "stdout", "status", "reads")}
        return {**own, "delegated": [call.as_dict() for call in self.delegated]}

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        variables = [f"{name}={_quoted(value)}" for name, value in self.environment.items()]
        yield from (f"{'  ' if at else '$ '}{each} \\" for at, each in enumerate(variables))
        yield f"  {FOLDER}/{self.plugin} <<EOF"
        yield f"{_pretty(self.stdin)}\nEOF"
        for path, text in self.reads.items():
            yield from (f"  reads {path}", *(f"    {line}" for line in text.splitlines()))
        for call in self.delegated:
            yield from (f"  {line}" for line in str(call).splitlines())
        if self.stdout is not None:
            yield _pretty(self.stdout)
        if self.status:
            yield f"(exit status {self.status})"


class Conversation(msgspec.Struct, frozen=True):
    """All that a runtime calls for one command, in its order. `print` it for what stands on both sides."""

    calls: tuple[Call, ...]

    @property
    def answer(self) -> Json | None:
        """What the last plugin printed: the result that the runtime keeps, an error, or nothing."""
        return self.calls[-1].stdout if self.calls else None

    @property
    def succeeded(self) -> bool:
        """Whether every plugin ended with exit status 0."""
        return not any(call.status for call in self.calls)

    def as_dict(self) -> dict[str, Any]:
        """The calls as a document."""
        return {"calls": [call.as_dict() for call in self.calls]}

    def __str__(self) -> str:
        return "\n\n".join(map(str, self.calls))


# One pod


def about_a_pod(
    command: Command, network: NetworkList, node: Host, pod: Host, added: tuple[Host, Host]
) -> Conversation:
    """What a runtime calls for one pod (`ADD`, `CHECK` or `DEL`). `node` and `pod` are as they are now, and `added` as
    they were when the pod was plugged in. A CHECK that fails is the last call. Raises `CannotDo` for a command that
    the version of the configuration does not have, or that is about a whole node.
    """
    _exists(command, network.version)
    if command in WHOLE_NODE:
        raise CannotDo(Problem(f"{command} is about a node, and {pod.name} is a pod", field="command"))
    asked = _Asked(command, network, result(network, *added))
    variables = _environment(command, pod.name)
    made: list[Call] = []
    for first, plugin in zip((True, *(False for _ in network.plugins)), network.plugins, strict=False):
        broken = next(_broken(asked.result, node, pod), "") if command is Command.CHECK and first else ""
        made.append(_call(asked, plugin, variables, first=first, broken=broken))
        if broken:
            break
    return Conversation(tuple(reversed(made)) if command is Command.DEL else tuple(made))


class _Asked(msgspec.Struct, frozen=True):
    """A command, for which network, and what ADD answered."""

    command: Command
    network: NetworkList
    result: Json

    def told(self, configuration: Json, *, first: bool) -> Json:
        """What stands in a plugin's standard input."""
        head = {"cniVersion": self.network.version, "name": self.network.name}
        known = not first if self.command is Command.ADD else _number(self.network.version) >= (0, 4, 0)
        return {**head, **configuration, **({"prevResult": self.result} if known else {})}

    def failed(self, why: str) -> Json:
        return {"cniVersion": self.network.version, "code": INTERNAL, "msg": why}


def _call(asked: _Asked, plugin: Plugin, variables: Mapping[str, str], *, first: bool, broken: str = "") -> Call:
    """A plugin is called, and calls those that it leaves work to."""
    told = asked.told(plugin.configuration, first=first)
    below: list[Call] = []
    if plugin.delegate is not None:
        below.append(_call(asked, Plugin(plugin.delegate), variables, first=first, broken=broken))
    elif "ipam" in told:
        ipam = str(told["ipam"]["type"])
        given = _addresses_only(asked.result, told["ipam"]) if asked.command is Command.ADD else None
        below.append(Call(ipam, variables, told, given))
    answer = asked.result if asked.command is Command.ADD else None
    if broken:
        answer = asked.failed(broken)
    reads = plugin.reads if asked.command is Command.ADD else {}
    return Call(_type(plugin), variables, told, answer, int(bool(broken)), tuple(below), reads)


def _type(plugin: Plugin) -> str:
    return str(plugin.configuration["type"])


def _environment(command: Command, pod: str) -> dict[str, str]:
    """The variables of a call for one pod, as containerd sets them."""
    container = container_id(pod)
    namespace, _, name = pod.partition("/")
    words = f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID={container}"
    return {
        "CNI_COMMAND": str(command),
        "CNI_CONTAINERID": container,
        "CNI_NETNS": sandbox(pod),
        "CNI_IFNAME": POD_DEVICE,
        "CNI_ARGS": words,
        "CNI_PATH": FOLDER,
    }


def container_id(pod: str) -> str:
    """The identifier of a pod's sandbox; a runtime draws one at random."""
    return sha256(pod.encode()).hexdigest()


def sandbox(pod: str) -> str:
    """The path of a pod's network namespace, named as containerd does it."""
    drawn = sha256(f"{pod} network namespace".encode()).hexdigest()
    return f"/var/run/netns/cni-{drawn[:8]}-{drawn[8:12]}-{drawn[12:16]}-{drawn[16:20]}-{drawn[20:32]}"


# The answer of ADD


def result(network: NetworkList, node: Host, pod: Host) -> Json:
    """What ADD answers for a pod that stands as these machines have it: interfaces of the node and of the pod, its
    addresses, its routes.
    """
    match next((plugin.answer for plugin in network.plugins if plugin.answer is not Answer.WHOLE), Answer.WHOLE):
        case Answer.WHOLE:
            return _whole(network, node, pod, list(_routes(network, pod)))
        case Answer.ROUTED:
            return _routed(network, node, pod)
        case Answer.NODE_END:
            return _short(network, node, pod)
        case Answer.ADDRESSES:
            return _unplaced(network, pod)


def _whole(network: NetworkList, node: Host, pod: Host, routes: list[dict[str, str]]) -> dict[str, Any]:
    """An answer that names everything, with these routes."""
    version = _number(network.version)
    own = pod.link(POD_DEVICE)
    outside = [_interface(link) for link in _on_node(node, own)]
    inside: dict[str, Any] = {**_interface(own), "sandbox": sandbox(pod.name)}
    if version >= (1, 1, 0):
        inside["mtu"] = own.mtu
    return {
        "cniVersion": network.version,
        "interfaces": [*outside, inside],
        "ips": [_ip(version, each.ip, str(each), pod, len(outside)) for each in own.addresses],
        "routes": routes,
        "dns": {},
    }


def _routed(network: NetworkList, node: Host, pod: Host) -> Json:
    """An answer with every route of the pod; what is of IPv6 comes first."""
    found = sorted(pod.routes, key=lambda route: (-route.family, route.prefix == "default"))
    routes = [{"dst": _destination(each), **({"gw": each.via} if each.via else {})} for each in found]
    whole = _whole(network, node, pod, routes)
    return {**whole, "ips": sorted(whole["ips"], key=lambda ip: ":" not in ip["address"])}


def _unplaced(network: NetworkList, pod: Host) -> Json:
    """An answer with addresses and gateways, and no word on which interface has them."""
    version, held = _number(network.version), pod.link(POD_DEVICE).addresses
    ips = (_ip(version, each.ip, str(each), pod, 0) for each in held)
    bare = [{name: value for name, value in ip.items() if name != "interface"} for ip in ips]
    return {"cniVersion": network.version, "ips": bare, "dns": {}}


def _short(network: NetworkList, node: Host, pod: Host) -> Json:
    """An answer that names the node's end of the cable, and addresses without gateways."""
    version, own = _number(network.version), pod.link(POD_DEVICE)
    said = [{"version": str(each.family)} if version < (1, 0, 0) else {} for each in own.addresses]
    return {
        "cniVersion": network.version,
        "interfaces": [{"name": link.name} for link in _on_node(node, own)],
        "ips": [{**more, "address": str(each)} for more, each in zip(said, own.addresses, strict=True)],
        "dns": {},
    }


def _on_node(node: Host, own: Link) -> Iterator[Link]:
    """The node's devices that belong to a pod's cable: its bridge, if there is one, and its other end."""
    end = next((link for link in node.links if own.peer is not None and link.name == own.peer.link), None)
    if end is not None and end.master:
        yield node.link(end.master)
    if end is not None:
        yield end


def _interface(link: Link) -> dict[str, Any]:
    return {"name": link.name, "mac": link.mac}


def _ip(version: tuple[int, ...], ip: str, address: str, pod: Host, interface: int) -> dict[str, Any]:
    of = family(ip)
    said: dict[str, Any] = {"version": str(of)} if version < (1, 0, 0) else {}
    default = next((route for route in pod.routes if route.family == of and route.prefix == "default"), None)
    gateway = {"gateway": default.via} if default is not None else {}
    return {**said, "interface": interface, "address": address, **gateway}


def _routes(network: NetworkList, pod: Host) -> Iterator[dict[str, str]]:
    """The routes that the plugin for addresses was told, as far as the pod has them, and the default routes that a
    plugin made by itself (`isDefaultGateway`), with their gateways.
    """
    there = {_destination(route): route for route in pod.routes}
    for plugin in network.plugins:
        told = plugin.delegate or plugin.configuration
        asked = [route["dst"] for route in told.get("ipam", {}).get("routes", ())]
        yield from ({"dst": dst} for dst in asked if dst in there)
        if told.get("isDefaultGateway"):
            made = (dst for dst in DEFAULT.values() if dst in there and dst not in asked)
            yield from ({"dst": dst, "gw": there[dst].via} for dst in made)


def _destination(route: Route) -> str:
    return DEFAULT[route.family] if route.prefix == "default" else str(route.block())


def _addresses_only(whole: Json, ipam: Json) -> Json:
    """What the plugin for addresses answered: no interfaces, and the routes that it was told."""
    ips = [{name: value for name, value in ip.items() if name != "interface"} for ip in whole["ips"]]
    routes = {"routes": list(ipam["routes"])} if ipam.get("routes") else {}
    return {"cniVersion": whole["cniVersion"], "ips": ips, **routes, "dns": {}}


# The answer of CHECK


def _broken(expected: Json, node: Host, pod: Host) -> Iterator[str]:
    """What is not any more as ADD said it."""
    bridge = expected["interfaces"][0]["name"] if len(expected["interfaces"]) > 2 else ""
    for interface in expected["interfaces"]:
        where = pod if "sandbox" in interface else node
        link = next((link for link in where.links if link.name == interface["name"]), None)
        if link is None:
            yield f"{where.name} has no interface {interface['name']}"
        elif link.mac != interface.get("mac", link.mac):
            yield f"{interface['name']} of {where.name} has the MAC {link.mac}, and not {interface['mac']}"
        elif where is node and link.kind is LinkKind.VETH and link.master != bridge:
            yield f"{link.name} of {node.name} is no port of {bridge}"
    held = {str(address) for link in pod.links for address in link.addresses}
    yield from (
        f"{pod.name} has lost its address {ip['address']}" for ip in expected["ips"] if ip["address"] not in held
    )
    there = {(_destination(route), route.via) for route in pod.routes} | {(_destination(r), "") for r in pod.routes}
    for route in expected.get("routes", ()):
        if (route["dst"], route.get("gw", "")) not in there:
            yield f"{pod.name} has no route to {route['dst']}"


# The whole node


def about_a_node(command: Command, network: NetworkList, pods: Iterable[str]) -> Conversation:
    """What a runtime calls for a whole node: `GC`, to have the plugins clean up after all but these pods, or `STATUS`,
    to learn whether pods can be plugged in. Raises `CannotDo` before version 1.1.0, and for commands about a pod.
    """
    _exists(command, network.version)
    if command not in WHOLE_NODE:
        raise CannotDo(Problem(f"{command} is about a pod: {', '.join(WHOLE_NODE)} are about a node", field="command"))
    attached = [{"containerID": container_id(pod), "ifname": POD_DEVICE} for pod in pods]
    return _for_the_node(command, network, {"cni.dev/valid-attachments": attached} if command is Command.GC else {})


def _for_the_node(command: Command, network: NetworkList, more: Json) -> Conversation:
    variables = {"CNI_COMMAND": str(command), "CNI_PATH": FOLDER}
    head = {"cniVersion": network.version, "name": network.name}
    told = [{**head, **plugin.configuration, **more} for plugin in network.plugins]
    made = (
        Call(_type(plugin), variables, said, delegated=tuple(_ipam_too(variables, said)))
        for plugin, said in zip(network.plugins, told, strict=True)
    )
    return Conversation(tuple(made))


def _ipam_too(variables: Mapping[str, str], told: Json) -> Iterator[Call]:
    if "ipam" in told:
        yield Call(str(told["ipam"]["type"]), variables, told)


def _exists(command: Command, version: str) -> None:
    if _number(version) < SINCE[command]:
        since = ".".join(map(str, SINCE[command]))
        message = f"the configuration is for version {version}, which has no {command}: it came with {since}"
        raise CannotDo(Problem(message, field="cniVersion"))


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


WIDE = 100


def _pretty(value: Any, indent: str = "") -> str:
    """JSON for people: what fits on a line stands on one."""
    short = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(short) <= WIDE or not isinstance(value, Mapping | list):
        return short
    deeper = f"{indent}  "
    if isinstance(value, Mapping):
        parts = [f"{deeper}{json.dumps(name)}: {_pretty(each, deeper)}" for name, each in value.items()]
        return "\n".join(("{", ",\n".join(parts), f"{indent}}}"))
    return "\n".join(("[", ",\n".join(f"{deeper}{_pretty(each, deeper)}" for each in value), f"{indent}]"))


def _quoted(value: str) -> str:
    return f"'{value}'" if ";" in value else value
