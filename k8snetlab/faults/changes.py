"""What is not as it should be?

Each function here takes something away from the machines, or sets something wrong, at a spot, and finds it by what it
does: *the* route by which a node reaches the pods of another, *the* rule that hid a packet of a pod on its way out.
So it works under whatever CNI has such a thing; where there is none, the network stays the same value.

Not modelled: faults of hardware, and of programs that keep writing the right state back (flanneld would notice a lost
FDB entry after a while). Guide sections 2.1, 2.2 and 3.1.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator
from itertools import chain

import msgspec

from k8snetlab.address import Prefix, family
from k8snetlab.compile import client_address
from k8snetlab.faults.spots import Spot, pods_of
from k8snetlab.flows import Terrain
from k8snetlab.linux import nftables as nft
from k8snetlab.linux.host import Host, Network, sysctls
from k8snetlab.linux.ipset import IpSet
from k8snetlab.linux.link import Address, FdbEntry, Link, LinkKind
from k8snetlab.linux.netfilter import Masquerade, MatchSet, Rule
from k8snetlab.linux.route import Route, RouteType, connected
from k8snetlab.linux.walk import World, exchange
from k8snetlab.trace import Action, Step

__all__ = [
    "as_they_are", "bridges_unasked", "cache_lost", "fdb_lost", "hidden_from_each_other", "narrow", "neighbour_lost",
    "no_forwarding", "no_hairpin", "no_masquerade", "no_proxy_arp", "overlapping", "peer_lost", "route_lost",
    "strict_sources",
]  # fmt: skip

WEB = 80


def as_they_are(terrain: Terrain, spot: Spot) -> Network:
    """Nothing is changed."""
    return terrain.network


def _changed(terrain: Terrain, spot: Spot, change: Callable[[Host], Host]) -> Network:
    """The network with the spot's machine changed; the same value where there is no such machine, or no change."""
    if spot.host not in terrain.network:
        return terrain.network
    before = terrain.network[spot.host]
    after = change(before)
    return terrain.network if after is before else terrain.network.replacing(after)


def _linked(host: Host, matters: Callable[[Link], bool], change: Callable[[Link], Link]) -> Host:
    """The machine with some of its devices changed."""
    if not any(map(matters, host.links)):
        return host
    links = tuple(change(link) if matters(link) else link for link in host.links)
    return msgspec.structs.replace(host, links=links)


def _set(host: Host, key: Callable[[str], bool], value: int) -> Host:
    """The machine with some settings set; those that have the value already are none."""
    changed = {name: value for name, held in host.sysctls.items() if key(name) and held != value}
    return msgspec.structs.replace(host, sysctls={**host.sysctls, **changed}) if changed else host


def _pods(terrain: Terrain, node: str) -> tuple[str, ...]:
    """The addresses of a node's first pod, one a family."""
    pods = pods_of(terrain.layout, node)
    return pods[0].addresses if pods else ()


def _all_pods(terrain: Terrain) -> frozenset[str]:
    """Every address of a pod."""
    pods = (pod for held in terrain.layout.workloads.values() for pod in held)
    return frozenset(address for pod in pods for address in pod.addresses)


def _underlay(terrain: Terrain, node: str) -> tuple[str, ...]:
    """The addresses of a node by which other nodes send to it."""
    stations = terrain.layout.stations
    return stations[node].addresses if node in stations else ()


# Cables and devices


def narrow(terrain: Terrain, spot: Spot) -> Network:
    """Every switch between the nodes carries packets of `value` bytes at most, and drops longer ones in silence."""
    network = terrain.network
    for segment in terrain.layout.segments:
        switch = network[segment.switch]

        def wide(link: Link) -> bool:
            return link.kind is LinkKind.NIC and link.mtu > spot.value

        changed = _linked(switch, wide, lambda link: msgspec.structs.replace(link, mtu=spot.value))
        network = network if changed is switch else network.replacing(changed)
    return network


def no_hairpin(terrain: Terrain, spot: Spot) -> Network:
    """No port of the node's bridge sends a frame back by the port that it came from."""

    def change(host: Host) -> Host:
        return _linked(host, lambda link: link.hairpin, lambda link: msgspec.structs.replace(link, hairpin=False))

    return _changed(terrain, spot, change)


# Routes


def route_lost(terrain: Terrain, spot: Spot) -> Network:
    """The machine has no more the routes by which it reaches the first pod of the other node. Its default route is not
    such a route: it leads to much else.
    """

    def change(host: Host) -> Host:
        for address in _pods(terrain, spot.other):
            route = host.find(address)
            if route is not None and route.type is RouteType.UNICAST and route.prefix != "default":
                host = host.without(route)
        return host

    return _changed(terrain, spot, change)


OTHER_NETWORK = "docker0"
"""The bridge of another program for containers, which knows nothing of the cluster."""


def overlapping(terrain: Terrain, spot: Spot) -> Network:
    """The node has a bridge of some other program too, and the network on it has the address of the other node's first
    pod: half of the range that its route is for, so that the kernel finds it first.
    """

    def change(host: Host) -> Host:
        for address in _pods(terrain, spot.other)[:1]:
            route = host.find(address)
            if route is not None:
                host = _with_network(host, _half(route, address), _all_pods(terrain))
        return host

    return _changed(terrain, spot, change)


WIDEST = 16


def _half(route: Route, address: str) -> Prefix:
    """The half of a route's range that an address is in; of a default route, what is usual for such a bridge."""
    block = route.block()
    length = min(max(block.length + 1, WIDEST), block.bits - 2)
    return Prefix.of(f"{address}/{length}")


def _with_network(host: Host, block: Prefix, taken: Collection[str]) -> Host:
    """The machine with that bridge, whose address is the last of its network that no pod has."""
    own = next(ip for ip in map(block.address, range(block.size - 2, -1, -1)) if ip not in taken)
    index = max(link.index for link in host.links) + 1
    bridge = Link(
        OTHER_NETWORK, index, LinkKind.BRIDGE, "02:42:00:00:00:01", addresses=(Address(own, block.length),)
    )  # fmt: skip
    return msgspec.structs.replace(
        host,
        links=(*host.links, bridge),
        routes=(*host.routes, connected(block, OTHER_NETWORK, own)),
        sysctls={**sysctls(OTHER_NETWORK), **host.sysctls},
    )


# Who is behind which address


def _macs_of(host: Host, addresses: tuple[str, ...]) -> frozenset[str]:
    """The MAC addresses that a machine's tunnels send to these addresses."""
    return frozenset(entry.mac for entry in host.fdb if entry.dst in addresses)


def fdb_lost(terrain: Terrain, spot: Spot) -> Network:
    """The node's tunnel does not know any more on which machine the other end's MAC address is."""
    there = _underlay(terrain, spot.other)

    def change(host: Host) -> Host:
        lost: list[FdbEntry] = [entry for entry in host.fdb if entry.dst in there]
        for entry in lost:
            host = host.without(entry)
        return host

    return _changed(terrain, spot, change)


def neighbour_lost(terrain: Terrain, spot: Spot) -> Network:
    """The node does not know any more which MAC address the other end of the tunnel has."""

    def change(host: Host) -> Host:
        macs = _macs_of(host, _underlay(terrain, spot.other))
        for entry in [each for each in host.neighbours if each.mac in macs]:
            host = host.without(entry)
        return host

    return _changed(terrain, spot, change)


def peer_lost(terrain: Terrain, spot: Spot) -> Network:
    """The node's WireGuard device has the other node for a peer no more, or its IPsec no state for what goes there."""
    there = terrain.network[spot.other].owned if spot.other in terrain.network else {}

    def change(host: Host) -> Host:
        for peer in [each for each in host.wireguard if each.endpoint in there]:
            host = host.without(peer)
        for state in [each for each in (host.xfrm.states if host.xfrm else ()) if each.dst in there]:
            host = host.without(state)
        return host

    return _changed(terrain, spot, change)


def cache_lost(terrain: Terrain, spot: Spot) -> Network:
    """The node's programs know nothing any more of who is behind the other node."""
    there = _underlay(terrain, spot.other)

    def change(host: Host) -> Host:
        for entry in [each for each in (host.datapath.known if host.datapath else ()) if each.tunnel in there]:
            host = host.without(entry)
        return host

    return _changed(terrain, spot, change)


# Settings


def no_proxy_arp(terrain: Terrain, spot: Spot) -> Network:
    """The node answers no ARP question for others."""
    return _changed(terrain, spot, lambda host: _set(host, lambda key: key.endswith(".proxy_arp"), 0))


def strict_sources(terrain: Terrain, spot: Spot) -> Network:
    """On all its devices the node takes only what it would answer by the same device."""
    return _changed(terrain, spot, lambda host: _set(host, lambda key: key.endswith(".rp_filter"), 1))


FORWARDING = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")


def no_forwarding(terrain: Terrain, spot: Spot) -> Network:
    """The node is no router: it takes what is for itself."""
    return _changed(terrain, spot, lambda host: _set(host, lambda key: key in FORWARDING, 0))


def bridges_unasked(terrain: Terrain, spot: Spot) -> Network:
    """The node's rules see nothing of what its bridge passes on."""
    return _changed(terrain, spot, lambda host: _set(host, lambda key: key.startswith("net.bridge."), 0))


# Rules


def no_masquerade(terrain: Terrain, spot: Spot) -> Network:
    """The rule is gone that hides the node's pods behind the node when they call the world outside: the one that a
    packet of the first pod meets.
    """
    network = terrain.network
    for address in _pods(terrain, spot.host):
        step = _hidden(terrain, spot.host, family(address))
        if step is not None:
            network = network.replacing(_bare(network[spot.host], step))
    return network


def _hidden(terrain: Terrain, node: str, of: int) -> Step | None:
    """What hides the first pod of a node from the outside, if something does there."""
    pod = pods_of(terrain.layout, node)[0].name
    sent = exchange(World(terrain.network, random.Random(0)), pod, client_address(of), WEB)
    return next((step for step in sent.steps if step.action is Action.SNAT and step.where == node), None)


def _bare(host: Host, step: Step) -> Host:
    """The machine without what hid a packet: the rule, or what its programs hide containers behind."""
    if isinstance(step.rule, Rule | nft.Rule):
        return host.without(step.rule)
    if host.datapath is not None and host.datapath.hides:
        return msgspec.structs.replace(host, datapath=msgspec.structs.replace(host.datapath, hides=()))
    return host


def hidden_from_each_other(terrain: Terrain, spot: Spot) -> Network:
    """The set of networks that need no masquerading has lost the one in which the other node's pods are."""
    pods = _pods(terrain, spot.other)

    def change(host: Host) -> Host:
        for held in [each for each in _spared_by_nft(host) if _holds(each, pods)]:
            host = host.without(held)
        spared = set(_spared(host))
        sets = tuple(_without(held, pods) if held.name in spared else held for held in host.ipsets)
        return host if sets == host.ipsets else msgspec.structs.replace(host, ipsets=sets)

    return _changed(terrain, spot, change)


def _spared(host: Host) -> Iterator[str]:
    """The sets whose members rules that masquerade leave alone."""
    tables = chain(host.netfilter.ipv4.values(), host.netfilter.ipv6.values())
    for rule in (rule for table in tables if table.name == "nat" for rule in table.rules):
        if isinstance(rule.target, Masquerade):
            yield from (match.name for match in rule.matches if isinstance(match, MatchSet) and match.invert)


def _spared_by_nft(host: Host) -> Iterator[nft.Held]:
    """The same for rules of nftables: every element of those sets."""
    for table in host.nftables:
        hiding = [rule for rule in table.rules if any(isinstance(each, nft.Masquerade) for each in rule.statements)]
        matches = (each for rule in hiding for each in rule.statements if isinstance(each, nft.Match) and each.invert)
        names = [match.right.name for match in matches if isinstance(match.right, nft.Named)]
        for name in names:
            yield from (nft.Held(table.name, name, element) for element in table.sets[name].elements)


def _holds(held: nft.Held, addresses: tuple[str, ...]) -> bool:
    """Whether an element is a network that holds one of the addresses."""
    blocks = [part for part in held.element.key if isinstance(part, Prefix)]
    return any(block.contains(address) for block in blocks for address in addresses)


def _without(held: IpSet, addresses: tuple[str, ...]) -> IpSet:
    """A set of networks without those that hold one of the addresses."""
    kept = tuple(
        entry for entry in held.entries if not any(Prefix.of(entry).contains(address) for address in addresses)
    )
    return held if kept == held.entries else msgspec.structs.replace(held, entries=kept)
