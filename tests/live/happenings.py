"""What may happen to a machine of a cluster?

Each happening is a value that makes another network of a network, and says in words what it does. It keeps its meaning
in a smaller cluster: what it names and is not there any more cannot be changed, and the network stays as it is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import TypeAlias

import msgspec

from k8snetlab.errors import UnknownName
from k8snetlab.linux import nftables as nft
from k8snetlab.linux import text
from k8snetlab.linux.host import Host, Network, families, sysctls
from k8snetlab.linux.link import FdbEntry, Link, LinkKind, Neighbour
from k8snetlab.linux.netfilter import Jump, Rule
from k8snetlab.linux.route import Route, RouteType

DEVICE = "DEV"
KINDS = tuple(sysctls(DEVICE))
"""Every kind of setting that the walk reads: `net.ipv4.conf.DEV.rp_filter` is one, whatever the device."""

MTUS = (1280, 1400, 1450, 1500)
TUNNEL_MTU = 1400
"""A tunnel cannot be told to take more than its device has room for."""

UNREAD = "net.ipv4.ip_default_ttl"
"""Machines state it, and no path depends on it."""


class Loss(StrEnum):
    """The kinds of entry that can be lost."""

    ROUTE = "route"
    NEIGHBOUR = "neighbour"
    FDB_ENTRY = "FDB entry"
    RULE = "rule"
    JUMP = "jump"
    ELEMENT = "set element"


class Flipped(msgspec.Struct, frozen=True):
    """A setting with another value."""

    host: str
    key: str
    value: int

    def after(self, network: Network) -> Network:
        host = network.get(self.host)
        if host is None or self.key not in host.sysctls:
            return network
        return network.replacing(msgspec.structs.replace(host, sysctls={**host.sysctls, self.key: self.value}))

    @property
    def kind(self) -> str:
        """The setting without the name of its device."""
        return kind(self.key)

    def __str__(self) -> str:
        return f"{self.host}: {self.key} = {self.value}"


class Lost(msgspec.Struct, frozen=True):
    """An entry less: a route, neighbour, FDB entry, a rule of iptables of one family, a rule of nftables, or an element
    of its sets and maps.
    """

    host: str
    entry: Route | Neighbour | FdbEntry | Rule | nft.Rule | nft.Held
    family: int = 0

    def after(self, network: Network) -> Network:
        try:
            return network.without(self.host, self.entry, self.family)
        except UnknownName:
            return network

    @property
    def kind(self) -> Loss:
        """Which kind of entry; a jump is a rule of a base chain that leads to a program's own."""
        match self.entry:
            case Route():
                return Loss.ROUTE
            case Neighbour():
                return Loss.NEIGHBOUR
            case FdbEntry():
                return Loss.FDB_ENTRY
            case Rule(chain=chain, target=Jump()) if chain.isupper() and "-" not in chain:
                return Loss.JUMP
            case nft.Held():
                return Loss.ELEMENT
            case nft.Rule(statements=(*_, nft.Verdict(kind=nft.VerdictKind.JUMP))):
                return Loss.JUMP
            case _:
                return Loss.RULE

    def __str__(self) -> str:
        return f"{self.host}: without {self.kind} {self._text}"

    @property
    def _text(self) -> str:
        match self.entry:
            case Route(family=of) as route:
                return text.ip_route(Host(self.host, routes=(route,)), of).strip()
            case Neighbour() as neighbour:
                return text.ip_neigh(Host(self.host, neighbours=(neighbour,))).strip()
            case FdbEntry() as entry:
                return f"{entry.mac} dev {entry.device} dst {entry.dst}"
            case Rule() as rule:
                return f"{'ip6tables' if self.family == 6 else 'iptables'} -t {rule.table} {rule.text}"
            case nft.Rule() | nft.Held() as native:
                return text.entry_line(native)


class Hairpin(msgspec.Struct, frozen=True):
    """A bridge port that sends frames back where they came from (1), or does not (0)."""

    host: str
    device: str
    value: int

    def after(self, network: Network) -> Network:
        return _with_link(network, self, lambda link: msgspec.structs.replace(link, hairpin=bool(self.value)))

    def __str__(self) -> str:
        return f"{self.host}: {self.device} hairpin {self.value}"


class Mtu(msgspec.Struct, frozen=True):
    """A device with another MTU, in bytes."""

    host: str
    device: str
    value: int

    def after(self, network: Network) -> Network:
        return _with_link(network, self, lambda link: msgspec.structs.replace(link, mtu=self.value))

    def __str__(self) -> str:
        return f"{self.host}: {self.device} mtu {self.value}"


class Down(msgspec.Struct, frozen=True):
    """A device that somebody has set down."""

    host: str
    device: str

    def after(self, network: Network) -> Network:
        return _with_link(network, self, lambda link: msgspec.structs.replace(link, up=False))

    def __str__(self) -> str:
        return f"{self.host}: {self.device} down"


class Rerouted(msgspec.Struct, frozen=True):
    """A route that leads elsewhere than it should."""

    host: str
    route: Route
    device: str
    via: str

    def after(self, network: Network) -> Network:
        host = network.get(self.host)
        if host is None or self.device not in {link.name for link in host.links}:
            return network
        routes = tuple(self.route_after if route == self.route else route for route in host.routes)
        return network.replacing(msgspec.structs.replace(host, routes=routes))

    @property
    def route_after(self) -> Route:
        """The route as it is now; its source, if it had one, may belong to the other device, and is chosen anew."""
        scope = "global" if self.via else "link"
        return msgspec.structs.replace(
            self.route, device=self.device, via=self.via, scope=scope, source="", onlink=False
        )

    def __str__(self) -> str:
        return f"{self.host}: route {self.route.prefix} by {self.device}{self.via and f' via {self.via}'}"


Hosts: TypeAlias = Sequence[Host]
Happening: TypeAlias = Flipped | Lost | Rerouted | Hairpin | Mtu | Down


def kind(key: str) -> str:
    """`net.ipv4.conf.flannel.1.rp_filter` → `net.ipv4.conf.DEV.rp_filter`; what is not of one device stays.

    >>> kind("net.ipv4.conf.all.rp_filter")
    'net.ipv4.conf.all.rp_filter'
    """
    head, _, name = key.rpartition(".")
    named = f"net.ipv4.conf.{DEVICE}.{name}"
    return named if key not in KINDS and head.startswith("net.ipv4.conf.") else key


def after(network: Network, happenings: Sequence[Happening]) -> Network:
    """The network after all of them, in their order."""
    for each in happenings:
        network = each.after(network)
    return network


def _with_link(network: Network, what: Hairpin | Mtu | Down, changed: Callable[[Link], Link]) -> Network:
    host = network.get(what.host)
    if host is None or what.device not in {link.name for link in host.links}:
        return network
    links = tuple(changed(link) if link.name == what.device else link for link in host.links)
    return network.replacing(msgspec.structs.replace(host, links=links))


# Chosen at random


def chosen(rng: random.Random, network: Network) -> tuple[Happening, ...]:
    """One to four things that happen to the machines of a network, each to what the one before left. Half of the time
    all of them happen to one node: rp_filter, for one, shows only where a route has changed too.
    """
    found: list[Happening] = []
    nodes = sorted(name for name, host in network.items() if host.kind == "machine")
    hit = {rng.choice(nodes)} if rng.random() < 0.5 else set(network)
    for _ in range(rng.choice((1, 1, 2, 3, 4))):
        happening = rng.choice(CHOICES)(rng, [network[name] for name in sorted(hit)])
        network = happening.after(network)
        found.append(happening)
    return tuple(found)


def _flipped(rng: random.Random, hosts: Hosts) -> Happening:
    """Another value of a setting that the walk reads and that matters in this cluster, each kind as often."""
    keys = _keys(hosts)
    key, having = rng.choice(list(keys[rng.choice(sorted(keys))].items()))
    host = rng.choice(having)
    values = (0, 1, 2) if key.endswith(("rp_filter", "arp_ignore")) else (0, 1)
    return Flipped(host.name, key, rng.choice([each for each in values if each != host.sysctls[key]]))


def _keys(hosts: Hosts) -> Mapping[str, Mapping[str, list[Host]]]:
    """By kind the settings of nodes, pods and routers, and whose they are."""
    found: dict[str, dict[str, list[Host]]] = {}
    for host in hosts:
        of = families(host)
        for key in host.sysctls if host.kind in ("machine", "container", "router") else ():
            six = "ipv6" in key or "ip6tables" in key
            if key != UNREAD and (not six or 6 in of):
                found.setdefault(kind(key), {}).setdefault(key, []).append(host)
    return found


BREAKING: Mapping[str, tuple[int, ...]] = {
    "net.ipv4.ip_forward": (0,),
    "net.ipv4.conf.all.rp_filter": (1, 2),
    "net.ipv4.conf.eth0.rp_filter": (1, 2),
    "net.ipv4.conf.cni0.rp_filter": (1, 2),
    "net.ipv4.conf.flannel.1.rp_filter": (1, 2),
    "net.ipv4.conf.all.route_localnet": (0, 1),
    "net.bridge.bridge-nf-call-iptables": (0,),
    "net.bridge.bridge-nf-call-ip6tables": (0,),
    "net.ipv6.conf.all.forwarding": (0,),
}
"""The settings of nodes that break real clusters, and by which values."""


def _breaking(rng: random.Random, hosts: Hosts) -> Happening:
    """One of the settings that break real clusters."""
    host = _any(rng, hosts, "machine")
    matters = [key for key in BREAKING if key in host.sysctls and ("6" not in key or 6 in families(host))]
    key = rng.choice(matters)
    others = [value for value in BREAKING[key] if value != host.sysctls[key]]
    return Flipped(host.name, key, rng.choice(others)) if others else _flipped(rng, hosts)


def _lost(rng: random.Random, hosts: Hosts) -> Happening:
    """An entry less, each kind of entry as often; routes are lost by everybody."""
    native = any(host.nftables for host in hosts)
    kind = rng.choice([each for each in Loss if native or each is not Loss.ELEMENT])
    everybody = ("machine", "machine", "machine", "container", "router", "client")
    host = _any(rng, hosts, *(everybody if kind is Loss.ROUTE else ("machine",)))
    entries = [lost for lost in _entries(host) if lost.kind is kind]
    return rng.choice(entries) if entries else _flipped(rng, hosts)


def _entries(host: Host) -> Iterator[Lost]:
    entries: tuple[Route | Neighbour | FdbEntry, ...] = (*host.routes, *host.neighbours, *host.fdb)
    yield from (Lost(host.name, entry) for entry in entries)
    for of in (4, 6):
        rules = (rule for table in host.netfilter.of(of).values() for rule in table.rules)
        yield from (Lost(host.name, rule, of) for rule in rules)
    for table in host.nftables:
        yield from (Lost(host.name, rule) for rule in table.rules)
        sets = ((each.name, element) for each in table.sets.values() for element in each.elements)
        yield from (Lost(host.name, nft.Held(table.name, name, element)) for name, element in sets)


def _rerouted(rng: random.Random, hosts: Hosts) -> Happening:
    """A route of a node that leads to another machine of the underlay, or out of another device."""
    host = _any(rng, hosts, "machine")
    others = sorted({each.via for each in host.routes if each.via and each.family == 4})
    routes = [route for route in host.routes if route.family == 4 and route.type is RouteType.UNICAST]
    if not routes:
        return _flipped(rng, hosts)
    via = rng.choice(["", *others])
    underlay = next((each.device for each in routes if each.via == via), "") if via else ""
    return Rerouted(host.name, rng.choice(routes), underlay or _device(rng, host).name, via)


def _hairpin(rng: random.Random, hosts: Hosts) -> Happening:
    """A bridge port of a node turned round."""
    host = _any(rng, hosts, "machine")
    ports = [link for link in host.links if link.master]
    if not ports:
        return _flipped(rng, hosts)
    port = rng.choice(ports)
    return Hairpin(host.name, port.name, 0 if port.hairpin else 1)


def _mtu(rng: random.Random, hosts: Hosts) -> Happening:
    host = _any(rng, hosts, "machine", "container", "switch", "router")
    link = _device(rng, host)
    most = TUNNEL_MTU if link.kind is LinkKind.VXLAN else max(MTUS)
    return Mtu(host.name, link.name, rng.choice([mtu for mtu in MTUS if mtu != link.mtu and mtu <= most]))


def _down(rng: random.Random, hosts: Hosts) -> Happening:
    host = _any(rng, hosts, "machine", "container", "switch")
    return Down(host.name, _device(rng, host).name)


def _device(rng: random.Random, host: Host) -> Link:
    return rng.choice([link for link in host.links if link.kind is not LinkKind.LOOPBACK])


def _any(rng: random.Random, hosts: Hosts, *kinds: str) -> Host:
    kind = rng.choice(kinds)
    return rng.choice([host for host in hosts if host.kind == kind] or hosts)


CHOICES: tuple[Callable[[random.Random, Hosts], Happening], ...] = (
    _flipped, _flipped, _flipped, _breaking, _breaking, _lost, _lost, _lost, _lost, _rerouted, _rerouted,
    _hairpin, _mtu, _down,
)  # fmt: skip
"""Each as often as it stands here."""
