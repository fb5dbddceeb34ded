"""How is each rule broken, and no other?

For each rule a change of the machines' state, as an administrator, a program or a fault might make it: a firewall rule,
a masquerade rule that is too wide, a program that is down, a route too many. Each is made for every family that pods
have addresses of.

Not modelled: hardware. Guide section 1.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from k8snetlab.address import Prefix, family, number
from k8snetlab.compile import KUBELET, ROUTER, router_device
from k8snetlab.errors import BadOption
from k8snetlab.flows import Terrain
from k8snetlab.linux.datapath import HOST, REMOTE_NODE, Datapath, Direction, Permit
from k8snetlab.linux.host import Host, Network
from k8snetlab.linux.netfilter import (
    ACCEPT,
    DROP,
    Comment,
    CtState,
    Destination,
    Masquerade,
    Netfilter,
    Patch,
    Rule,
    Snat,
    Source,
    Table,
    tables,
)
from k8snetlab.linux.route import Route

__all__ = ["BREAKERS"]


class Spot(NamedTuple):
    """Where a rule is broken: a node with pods, its range of one family, and the pods' range of the cluster."""

    host: str
    own: Prefix
    everyone: Prefix


def _spots(terrain: Terrain) -> Iterator[Spot]:
    """The first node with pods, once for each family."""
    name = next((name for name, pods in terrain.layout.workloads.items() if pods), None)
    if name is None:
        raise BadOption("no pod runs in this cluster, so there is nothing to break")
    for own in terrain.layout.machines[name].pod_cidrs or _around_pods(terrain, name):
        yield Spot(name, own, terrain.layout.cni_plan.pod_cidr(own.family))


def _around_pods(terrain: Terrain, node: str) -> Iterator[Prefix]:
    """For a node that has no range of its own, the smallest block of each family that holds all its pods' addresses."""
    held = [address for pod in terrain.layout.workloads[node] for address in pod.addresses]
    for of in (4, 6):
        values = [number(address) for address in held if family(address) == of]
        if values:
            bits = 32 if of == 4 else 128
            shift = (min(values) ^ max(values)).bit_length()
            yield Prefix(of, min(values) >> shift << shift, bits - shift)


def _ruled(terrain: Terrain, rules: Callable[[Spot], Sequence[Rule]]) -> Network:
    """The network with more rules for each family, at the top of a base chain of one machine."""
    network = terrain.network
    for spot in _spots(terrain):
        host = network[spot.host]
        network = network.replacing(_topped(host, spot.own.family, *rules(spot)))
    return network


def _topped(host: Host, of: int, *rules: Rule) -> Host:
    """The machine with these rules, all of one chain, at its top."""
    first = rules[0]
    held = dict(host.netfilter.of(of))
    table = held.get(first.table) or tables(of, [Patch(first.table, of)])[first.table]
    chain = table.chains[first.chain]
    longer = msgspec.structs.replace(chain, rules=(*rules, *chain.rules))
    held[first.table] = Table(first.table, table.chains.replacing(longer))
    both = (held, host.netfilter.ipv6) if of == 4 else (host.netfilter.ipv4, held)
    return msgspec.structs.replace(host, netfilter=Netfilter(*both))


NEW = CtState(("NEW",))


def _no_pod_to_pod(terrain: Terrain) -> Network:
    """A firewall on one node that lets its pods open no connection to pods elsewhere. Where packets between pods pass
    programs and no firewall, the maps of these say so.
    """
    host = terrain.network[next(_spots(terrain)).host]
    if host.datapath is not None:
        denied = tuple(_denied(host.datapath))
        stricter = msgspec.structs.replace(host.datapath, permits=(*host.datapath.permits, *denied))
        return terrain.network.replacing(msgspec.structs.replace(host, datapath=stricter))

    def rules(spot: Spot) -> tuple[Rule]:
        between = (Source(spot.own), Destination(spot.everyone))
        return (Rule("filter", "FORWARD", (*between, Comment("no pod may call another node"), NEW), DROP),)

    return _ruled(terrain, rules)


def _denied(datapath: Datapath) -> Iterator[Permit]:
    """An entry for each endpoint and each identity that pods have."""
    for endpoint in datapath.policies:
        for identity in datapath.labels:
            yield Permit(endpoint, Direction.EGRESS, identity, deny=True)


def _no_node_to_pod(terrain: Terrain) -> Network:
    """A firewall on one node that lets the node itself open no connection to pods on other nodes."""

    def rules(spot: Spot) -> tuple[Rule, Rule]:
        own = Rule("filter", "OUTPUT", (Destination(spot.own), Comment("this machine's own pods"), NEW), ACCEPT)
        elsewhere = (Destination(spot.everyone), Comment("this machine may not call pods elsewhere"), NEW)
        return own, Rule("filter", "OUTPUT", elsewhere, DROP)

    return _ruled(terrain, rules)


def _hidden_pods(terrain: Terrain) -> Network:
    """A masquerade rule that is too wide: it hides the node's pods behind the node even from other pods. Where packets
    between pods meet no rule of the node, the pods themselves may have one that hides who called.
    """
    spots = tuple(_spots(terrain))
    datapath = terrain.network[spots[0].host].datapath
    if datapath is not None:
        return _hidden_in_pods(terrain, spots, datapath)

    def rules(spot: Spot) -> tuple[Rule]:
        between = (Source(spot.own), Destination(spot.everyone))
        return (Rule("nat", "POSTROUTING", (*between, Comment("masquerade too much")), Masquerade()),)

    return _ruled(terrain, rules)


def _hidden_in_pods(terrain: Terrain, spots: Sequence[Spot], datapath: Datapath) -> Network:
    """A rule in each pod of the node that takes all callers for one but machines."""
    network = terrain.network
    machines = [Prefix.of(each.prefix) for each in datapath.known if each.identity in (HOST, REMOTE_NODE)]
    for spot in spots:
        of = spot.own.family
        known = (Rule("nat", "INPUT", (Source(own),), ACCEPT) for own in machines if own.family == of)
        hidden = (Source(spot.everyone), Comment("hide who called"))
        rules = (*known, Rule("nat", "INPUT", hidden, Snat(spot.own.address(1))))
        for pod in terrain.layout.workloads[spot.host]:
            network = network.replacing(_topped(network[pod.name], of, *rules))
    return network


def _no_kubelet(terrain: Terrain) -> Network:
    """The kubelet of one node does not listen: no logs, no exec there."""
    return terrain.network.without(next(_spots(terrain)).host, KUBELET)


def _leaky_router(terrain: Terrain) -> Network:
    """Somebody taught the router the pods' addresses, for packets from outside too: pods can be reached from there."""
    routes: list[Route] = []
    for name, own, _ in _spots(terrain):
        station = terrain.layout.stations[name]
        device = router_device(terrain.layout, station.segment)
        via = (address for address in station.addresses if family(address) == own.family)
        routes.extend(Route(str(own), device, address, family=own.family) for address in via)
    router = terrain.network[ROUTER]
    everybody = tuple(rule for rule in router.rules if not rule.iif)
    routes = [route for route in routes if route not in router.routes]
    return terrain.network.replacing(msgspec.structs.replace(router, routes=(*router.routes, *routes), rules=everybody))


BREAKERS: Mapping[str, Callable[[Terrain], Network]] = {
    "pod-to-pod": _no_pod_to_pod,
    "node-to-pod": _no_node_to_pod,
    "same-address": _hidden_pods,
    "kubelet": _no_kubelet,
    "outside": _leaky_router,
}
"""For each rule the change of the machines' state that breaks it."""
