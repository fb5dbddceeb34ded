"""What would the machines of this cluster really hold?

Here objects become Linux state. For every machine the rooms are asked what they would write there — the CNI its
devices, routes and neighbours, kube-proxy its rules — and this room alone puts their answers together into Hosts.
Each Host is made when a packet first comes by, so a trace through three machines costs three machines.

Around the nodes stands what every cluster has and no manifest says: the *underlay* (`underlay`), one switch for each
subnet, one router that joins them (the first address of each subnet is its), and beyond it the outside world,
203.0.113.0/24 with a client at 203.0.113.10. Who stands where is worked out from the objects alone (`layout`). Who
leads packets for load balancers' addresses to nodes is a choice of the cluster (`balancer`).

Not modelled: several underlay interfaces of a node, machines outside other than the one client. Guide sections 1.1
and 1.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache, partial

import msgspec

from k8snetlab import cni, services
from k8snetlab.address import Prefix
from k8snetlab.compile import underlay
from k8snetlab.compile.balancer import IMPLEMENTATIONS, Parts
from k8snetlab.compile.enforcement import Enforcer, enforcer
from k8snetlab.compile.layout import (
    APISERVER,
    BALANCER,
    CLIENT,
    OUTSIDE,
    RESOLVERS,
    ROUTER,
    Layout,
    Segment,
    Station,
    client_address,
    pod_host,
)
from k8snetlab.compile.plan import address_plan
from k8snetlab.compile.underlay import client, led_through, router_device
from k8snetlab.errors import BadOption, Overlap, Problem
from k8snetlab.linux.ebpf import Ebpf
from k8snetlab.linux.host import Host, Network, Part, assembled
from k8snetlab.linux.link import LinkKind, loopback
from k8snetlab.linux.socket import Listener

__all__ = [
    "APISERVER", "BALANCER", "CLIENT", "IMPLEMENTATIONS", "KUBELET", "OUTSIDE", "PROXIES", "RESOLVERS", "ROUTER",
    "Layout", "Segment", "address_plan", "client", "client_address", "compiled", "led_through", "pod_host",
    "router_device",
]  # fmt: skip

KUBELET = Listener("TCP", 10250, program="kubelet")

PROXIES: tuple[str, ...] = tuple(services.MODES)
"""The modes of kube-proxy that can be compiled."""


def compiled(layout: Layout, plugin: cni.Cni, proxy: str, proxy_options: Mapping[str, str] | None = None) -> Network:
    """The network of a cluster: pods `NAMESPACE/NAME`, nodes, switches, the router and the outside client, by name.

    `proxy` is one of `PROXIES`; `proxy_options` are those of its options that differ from the usual. Hosts are built
    when they are first looked at. Raises `BadOption` for a proxy mode or option that does not exist and for pods that
    the CNI cannot attach, `Overlap` for networks that hold outside addresses.
    """
    if proxy not in services.MODES:
        raise BadOption(Problem(f"there is no proxy mode {proxy!r}; there are {', '.join(PROXIES)}", field="proxy"))
    mode = services.MODES[proxy]
    options = mode.chosen(proxy_options or {})
    refused = plugin.refuses(proxy) if isinstance(plugin, cni.Particular) else ""
    if refused:
        raise BadOption(Problem(refused, object=f"CNI {plugin.name}", field="proxy"))
    _check_outside(layout)
    _check_cache(layout)
    _check_pods(layout, plugin)
    fronted = IMPLEMENTATIONS[layout.load_balancer]
    added = fronted.parts(layout)
    enforced = enforcer(layout, plugin)
    held: dict[str, Host | Callable[[], Host]] = {}
    for name, station in layout.stations.items():
        if name in layout.nodes:
            held[name] = partial(_node, layout, plugin, mode, options, enforced, name, added.get(name, Part()))
        else:
            held[name] = partial(_other, layout, plugin, station)
    for node, workloads in layout.workloads.items():
        left = cache(partial(_left_in_pods, layout, mode, options, node))  # the same in every pod of the node
        for workload in workloads:
            held[workload.name] = partial(_pod, layout, plugin, node, workload, left)
    for segment in layout.segments:
        more = [(BALANCER, router_device(layout, segment))] if fronted.machine else []
        held[segment.switch] = partial(underlay.switch, layout, segment, *more)
    told = underlay.learnt(layout, cni.told_to_router(plugin, layout.cni_plan))
    held[ROUTER] = partial(underlay.router, layout, added.get(ROUTER, Part()), told)
    if fronted.machine:
        held[BALANCER] = partial(underlay.balancer, layout, added[BALANCER])
    held[CLIENT] = partial(underlay.outside, client_address(4), client_address(6))
    return Network(held, _owners(layout, plugin, mode, added))


def _owners(layout: Layout, plugin: cni.Cni, mode: services.Mode, added: Parts) -> Callable[[str], Iterable[str]]:
    """Which machines may own an address, or answer for it."""
    own = layout.owners()
    answering = {each.address: (name,) for name, part in added.items() for each in part.responders}
    answering |= {address: (name,) for address, name in cni.node_addresses(plugin, layout.cni_plan).items()}
    always = (BALANCER,) if BALANCER in added else ()
    everywhere = mode.addresses(layout.exposures)
    if not (answering or always or everywhere):
        return own

    def owning(address: str) -> Iterable[str]:
        proxied = layout.nodes if address in everywhere else ()
        return (*own(address), *always, *answering.get(address, ()), *proxied)

    return owning


# What cannot be built


def _check_outside(layout: Layout) -> None:
    """A network that holds the outside world's addresses cannot be told from it."""
    networks = layout.objects.networks
    for what, blocks in (("node", layout.blocks), ("pod", networks.pods), ("Service", networks.services)):
        for block in blocks:
            for outside in OUTSIDE:
                if block.overlaps(outside):
                    message = f"the {what} network {block} overlaps {outside}, which is the outside world here"
                    raise Overlap(str(block), str(outside), message)


def _check_cache(layout: Layout) -> None:
    """NodeLocal DNSCache has an IPv4 address, which pods must be able to reach."""
    if layout.dns == "node-local" and 4 not in layout.objects.networks.families:
        raise BadOption(Problem("node-local listens on an IPv4 address, and this cluster has IPv6 only", field="dns"))


MANY = 5
"""So many pods are named of those that cannot be attached."""


def _check_pods(layout: Layout, plugin: cni.Cni) -> None:
    """Whether the CNI can attach the pods whose address is outside of their node's range: it may, or may not, be one
    that gives such addresses. A dump of a cluster with another CNI fails here, not in the middle of a trace.
    """
    problems: list[Problem] = []
    for node, workloads in layout.workloads.items():
        machine = layout.machines[node]
        ranges = layout.objects.networks.pods if cni.own_pools(plugin) else machine.pod_cidrs
        for workload in workloads:
            if all(_held(ranges, address) for address in workload.addresses):
                continue
            try:
                plugin.pod(layout.cni_plan, machine, workload)
            except BadOption as error:
                problems.extend(error.problems)
    if len(problems) > MANY:
        problems[MANY:] = [Problem(f"and so are the addresses of {len(problems) - MANY} more pods")]
    if problems:
        raise BadOption(problems)


def _held(blocks: Iterable[Prefix], address: str) -> bool:
    return any(block.contains(address) for block in blocks)


# The machines of the cluster


def _node(
    layout: Layout,
    plugin: cni.Cni,
    mode: services.Mode,
    options: Mapping[str, str],
    enforced: Enforcer,
    name: str,
    added: Part,
) -> Host:
    """A node: its card, kubelet and what else listens there, the rules of kube-proxy, what the CNI writes, what makes
    policies hold, and what else is `added`.
    """
    machine = layout.machines[name]
    station = layout.stations[name]
    own = Part(
        links=(loopback(), underlay.nic(station, machine.mtu)),
        routes=tuple(underlay.underlay_routes(station)),
        listeners=_unique((KUBELET, *_served(layout, station), *_hosted(layout, name), *_checked(layout, name))),
    )
    wired = plugin.node(layout.cni_plan, machine, layout.workloads[name])
    place = _place(layout, name, options, own, wired)
    rules = mode.node(layout.exposures, place)
    if wired.datapath is not None:
        rules = msgspec.structs.replace(rules, ebpf=_balancing(layout, place, rules.ebpf, wired))
    written = cni.in_its_language(plugin, *enforced(name, wired))
    return assembled(name, "machine", own, *_cached(layout, name), rules, *written, added)


def _cached(layout: Layout, node: str) -> Iterator[Part]:
    """What a name server on every node adds, where the cluster has that."""
    if layout.dns == "node-local":
        from k8snetlab.compile.nodelocal import node_local  # few clusters have it

        yield node_local(node)


def _balancing(layout: Layout, place: services.Place, proxy: Ebpf | None, wired: Part) -> Ebpf:
    """What the programs of a CNI that works by programs balance: for pods alone where another proxy does the rest."""
    if proxy is None:
        return services.per_packet(layout.exposures, place)
    datapath = wired.datapath
    if datapath is None or not datapath.tunnel:
        return proxy
    own = tuple(address.ip for link in wired.links if link.name == datapath.host for address in link.addresses)
    return services.through_tunnel(proxy, datapath.tunnel, own)


def _checked(layout: Layout, node: str) -> Iterator[Listener]:
    """Where kube-proxy answers load balancers that ask whether the node has a backend."""
    for ports in layout.exposures.values():
        yield from services.health_listeners(ports, node)


def _place(layout: Layout, name: str, options: Mapping[str, str], *parts: Part) -> services.Place:
    """What a node's proxy knows of the node and of the cluster."""
    links = [link for part in parts for link in part.links if link.kind is not LinkKind.LOOPBACK]
    networks = layout.objects.networks
    return services.Place(
        node=layout.nodes[name],
        addresses=tuple(address.ip for link in links for address in link.addresses),
        pods=networks.pods,
        services=networks.services,
        links=tuple(links),
        nodes=layout.node_addresses,
        options=options,
    )


def _served(layout: Layout, station: Station) -> Iterator[Listener]:
    """What EndpointSlices say is served at the node's own address, the API server first of all."""
    for address in station.addresses:
        yield from layout.served_elsewhere.get(address, ())


def _hosted(layout: Layout, node: str) -> Iterator[Listener]:
    """What pods with `hostNetwork` listen on: their node's ports."""
    for pod in layout.objects.pods_on(node):
        if pod.host_network and pod.networked:
            for protocol, port, assumed in layout.objects.listens(pod):
                yield Listener(protocol, port, program=pod_host(pod), assumed=assumed)


def _other(layout: Layout, plugin: cni.Cni, station: Station) -> Host:
    """A machine that is no node. The API server's takes part in the pod network, as far as one without pods can."""
    own = underlay.station(station)
    if station.kind != "machine":
        return assembled(station.name, station.kind, own)
    machine = cni.Machine(station.name, own.links[1].addresses)
    return assembled(station.name, station.kind, own, plugin.node(layout.cni_plan, machine, ()))


def _left_in_pods(layout: Layout, mode: services.Mode, options: Mapping[str, str], node: str) -> Part:
    """What the proxy leaves in each pod of a node."""
    return mode.pod(layout.exposures, _place(layout, node, options))


def _pod(layout: Layout, plugin: cni.Cni, node: str, workload: cni.Workload, left: Callable[[], Part]) -> Host:
    """A pod: what the CNI and the proxy leave in it, and where its containers listen."""
    pod = layout.objects.pod(workload.name)
    holders = {(port.protocol, port.container_port): each.name for each in pod.listeners() for port in each.ports}
    listeners = tuple(
        Listener(protocol, port, program=holders.get((protocol, port), ""), assumed=assumed)
        for protocol, port, assumed in layout.objects.listens(pod)
    )
    wired = plugin.pod(layout.cni_plan, layout.machines[node], workload)
    return assembled(workload.name, "container", wired, left(), Part(listeners=_unique(listeners)))


def _unique(listeners: Iterable[Listener]) -> tuple[Listener, ...]:
    """One socket for each protocol, address and port: the first that asks."""
    held: dict[tuple[str, str, int], Listener] = {}
    for listener in listeners:
        held.setdefault((listener.protocol, listener.address, listener.port), listener)
    return tuple(held.values())
