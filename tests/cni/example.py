"""A cluster of a few nodes, made without any Kubernetes object. Zones are underlay subnets with a router between."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from k8snetlab import cni
from k8snetlab.address import Prefix
from k8snetlab.linux.host import Host, Network, Part, assembled
from k8snetlab.linux.link import Address, Link, LinkKind, Peer, loopback
from k8snetlab.linux.route import Route, connected
from k8snetlab.linux.socket import Listener

CLUSTER = (Prefix.of("10.244.0.0/16"), Prefix.of("fd00:10:244::/56"))


def machine(number: int, *, zone: int = 18, families: Sequence[int] = (4,), mtu: int = 1500) -> cni.Machine:
    """`nodeN` with 172.ZONE.0.1N/24 and fd00:ZONE::1N/64, pod CIDRs 10.244.N.0/24 and fd00:10:244:N::/64."""
    addresses = {4: Address(f"172.{zone}.0.1{number}", 24), 6: Address(f"fd00:{zone}::1{number}", 64)}
    blocks = {4: Prefix.of(f"10.244.{number}.0/24"), 6: Prefix.of(f"fd00:10:244:{number}::/64")}
    published = f'{{"VNI":1,"VtepMAC":"0a:aa:00:00:00:0{number}"}}'
    gateways = {1: "10.244.1.174", 2: "10.244.2.31"}
    own = {"network.cilium.io/ipv4-cilium-host": gateways[number]} if number in gateways else {}
    return cni.Machine(
        name=f"node{number}",
        addresses=tuple(addresses[of] for of in families),
        pod_cidrs=tuple(blocks[of] for of in families),
        mtu=mtu,
        annotations={"flannel.alpha.coreos.com/backend-data": published, **own},
        gateways=tuple(_gateway(addresses[of]) for of in families),
    )


def plan(*machines: cni.Machine, first: int = 2) -> cni.Plan:
    """A plan of these machines, each with its `workloads`, whose addresses begin with `first`; three machines in one
    subnet when none is given.
    """
    machines = machines or (machine(1), machine(2), machine(3))
    families = {block.family for each in machines for block in each.pod_cidrs}
    networks = tuple(block for block in CLUSTER if block.family in families)
    return cni.Plan(machines, networks, workloads={each.name: workloads(each, first=first) for each in machines})


def workloads(of: cni.Machine, count: int = 2, first: int = 2) -> tuple[cni.Workload, ...]:
    """Pods `default/web-N`, `default/db-N`, … with the addresses .2, .3, … (`first`, …) of the machine's pod CIDRs."""
    names = ("web", "db", *(f"pod{number}" for number in range(3, count + 1)))
    number = int(of.name.removeprefix("node")) - 1
    return tuple(
        cni.Workload(
            f"default/{name}-{number}", tuple(block.address(at) for block in of.pod_cidrs), labels={"app": name}
        )
        for at, name in enumerate(names[:count], first)
    )


def node(plugin: cni.Cni, whole: cni.Plan, of: cni.Machine, count: int | None = None) -> Host:
    """The Host of one machine with the pods of the plan, or with `count` others."""
    pods = workloads(of, count) if count is not None else whole.workloads[of.name]
    return assembled(of.name, "machine", _underlay(of), plugin.node(whole, of, pods))


def pod(plugin: cni.Cni, whole: cni.Plan, of: cni.Machine, workload: cni.Workload) -> Host:
    """The Host of one pod, which listens on port 80."""
    listening = Part(listeners=(Listener("TCP", 80),))
    return assembled(workload.name, "container", plugin.pod(whole, of, workload), listening)


def network(plugin: cni.Cni, whole: cni.Plan) -> Network:
    """All machines and pods, a switch for each zone, and a router that knows the zones and what the plugin tells it."""
    held: dict[str, Host] = {}
    zones: dict[str, list[cni.Machine]] = {}
    for each in whole.machines:
        held[each.name] = node(plugin, whole, each)
        for workload in whole.workloads[each.name]:
            held[workload.name] = pod(plugin, whole, each, workload)
        zones.setdefault(_zone(each), []).append(each)
    for zone, there in zones.items():
        held[f"switch{zone}"] = _switch(zone, there)
    held["router"] = _router(zones, cni.told_to_router(plugin, whole))
    return Network(held)


def _zone(of: cni.Machine) -> str:
    return of.addresses[0].ip.split(".")[1] if of.address(4) else of.addresses[0].ip.split(":")[1]


def _gateway(address: Address) -> str:
    return address.prefix.address(1)


def _mac(name: str) -> str:
    return "02:00:00:00:00:" + {"router18": "f1", "router19": "f2"}.get(name, f"{int(name[-1]):02x}")


def _connected(address: Address, device: str) -> Route:
    return connected(address.prefix, device, address.ip)


def _underlay(of: cni.Machine) -> Part:
    cable = Peer(f"switch{_zone(of)}", f"port{of.name}")
    nic = Link("eth0", 2, LinkKind.NIC, _mac(of.name), of.mtu, peer=cable, addresses=of.addresses)
    defaults = tuple(Route("default", "eth0", _gateway(own), family=own.family) for own in of.addresses)
    return Part(links=(loopback(), nic), routes=(*defaults, *(_connected(own, "eth0") for own in of.addresses)))


def _switch(zone: str, there: Sequence[cni.Machine]) -> Host:
    mac = f"02:00:00:01:{zone}"
    ends = [(each.name, "eth0") for each in there] + [("router", f"eth{zone}")]
    ports = tuple(
        Link(f"port{name}", at, LinkKind.NIC, f"{mac}:{at:02x}", 9000, master="br0", peer=Peer(name, device))
        for at, (name, device) in enumerate(ends, 2)
    )
    bridge = Link("br0", 1, LinkKind.BRIDGE, f"{mac}:01", 9000)
    return assembled(f"switch{zone}", "switch", Part(links=(bridge, *ports)))


def _router(zones: Mapping[str, Sequence[cni.Machine]], told: Part) -> Host:
    links: list[Link] = [loopback()]
    routes: list[Route] = []
    for at, (zone, there) in enumerate(zones.items(), 2):
        held = tuple(Address(_gateway(address), address.length) for address in there[0].addresses)
        cable = Peer(f"switch{zone}", "portrouter")
        links.append(Link(f"eth{zone}", at, LinkKind.NIC, _mac(f"router{zone}"), peer=cable, addresses=held))
        routes += (_connected(address, f"eth{zone}") for address in held)
        near = (route for route in told.routes if any(address.prefix.contains(route.via) for address in held))
        routes += (msgspec.structs.replace(route, device=f"eth{zone}") for route in near)
    forwarding = {"net.ipv4.ip_forward": 1, "net.ipv6.conf.all.forwarding": 1}
    own = Part(links=tuple(links), routes=tuple(routes), sysctls=forwarding)
    return assembled("router", "router", own, Part(patches=told.patches))
