"""What is the state of one machine, and of the whole network?

Everything the walk reads and the real kernel can be told stands in one shape: a `Host` for every network namespace —
pods, nodes, switches, routers and outside clients alike — and a `Network` that maps names to Hosts. They are values:
taking a route away makes another Host and another Network, and the walk through it goes another way, without anything
being compiled again.

A Host states every sysctl that the walk reads. What Linux derives by itself is derived here too: the table `local`
(own addresses) from the links, and nothing else — connected routes are stated, so that they can be lost.

Not modelled: capabilities, cgroups, processes other than listeners. Guide section 2.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from itertools import chain
from typing import TypeAlias

import msgspec

from k8snetlab.address import family
from k8snetlab.errors import LabError, Problem, UnknownName
from k8snetlab.linux import nftables as nft
from k8snetlab.linux.datapath import Datapath, Endpoint, Known, Looked, Permit
from k8snetlab.linux.ebpf import Attachment, Ebpf, Frontend
from k8snetlab.linux.ipset import IpSet, IpSetEntry
from k8snetlab.linux.ipvs import Destination, VirtualServer, VirtualServers
from k8snetlab.linux.link import FdbEntry, Link, LinkKind, Neighbour, Responder
from k8snetlab.linux.netfilter import (
    BALANCING,
    HOOKS,
    ORDER,
    PRIORITIES,
    TRACKING,
    TRANSLATING,
    Chain,
    CtState,
    Jump,
    Netfilter,
    Patch,
    Rule,
    Table,
    tables,
)
from k8snetlab.linux.route import Route, RouteTable, RouteType, RoutingRule, default_rules
from k8snetlab.linux.socket import Listener
from k8snetlab.linux.wireguard import WireguardPeer, WireguardPeers
from k8snetlab.linux.xfrm import Xfrm, XfrmPolicy, XfrmState

__all__ = ["Entry", "Found", "Host", "Network", "Part", "assembled", "sysctls"]

Entry: TypeAlias = (
    Link | Route | RoutingRule | Neighbour | FdbEntry | Responder | Rule | nft.Rule | nft.Held | Listener | Attachment
    | Frontend | VirtualServer | Destination | IpSetEntry | WireguardPeer | Looked | XfrmState | XfrmPolicy
)  # fmt: skip
"""Anything that can be taken out of a Host."""

DEFAULT_RULES = (*default_rules(4), *default_rules(6))

LOCAL = Route("local", "lo", type=RouteType.LOCAL, table="local")
"""What the table `local` says of every own address."""


Phase: TypeAlias = Chain | nft.Entrance | tuple[Chain | nft.Entrance, ...] | None
"""What runs in one phase of a hook: a base chain, or, where conntrack translates, perhaps several."""


class Host(msgspec.Struct, frozen=True, dict=True):
    """One network namespace. `kind` says what stands there (`machine`, `container`, `switch`, `router`, `client`);
    the walk does not read it.
    """

    name: str
    kind: str = "machine"
    links: tuple[Link, ...] = ()
    routes: tuple[Route, ...] = ()
    rules: tuple[RoutingRule, ...] = DEFAULT_RULES
    neighbours: tuple[Neighbour, ...] = ()
    fdb: tuple[FdbEntry, ...] = ()
    sysctls: Mapping[str, int] = {}
    netfilter: Netfilter = Netfilter()
    listeners: tuple[Listener, ...] = ()
    responders: tuple[Responder, ...] = ()
    ebpf: Ebpf | None = None
    ipsets: tuple[IpSet, ...] = ()
    ipvs: tuple[VirtualServer, ...] = ()
    nftables: tuple[nft.Table, ...] = ()
    wireguard: tuple[WireguardPeer, ...] = ()
    datapath: Datapath | None = None
    xfrm: Xfrm | None = None

    def link(self, name: str) -> Link:
        """The device of that name. Raises `UnknownName`."""
        try:
            return self._links[name]
        except KeyError:
            raise UnknownName("device", name, self._links, field=self.name) from None

    @cached_property
    def _links(self) -> dict[str, Link]:
        return {link.name: link for link in self.links}

    @cached_property
    def owned(self) -> Mapping[str, str]:
        """Own addresses and the device each is on: the table `local`. A device that is down keeps its IPv4 addresses
        and loses its IPv6 addresses; but a dummy, which asks nobody whether an address is taken, has them from the
        start.
        """
        found: dict[str, str] = {}
        for link in self.links:
            for address in link.addresses:
                if link.up or address.family == 4 or link.kind is LinkKind.DUMMY:
                    found.setdefault(address.ip, link.name)
        return found

    def is_local(self, address: str) -> bool:
        """Whether a packet to this address is for the machine itself: an own address, or anything in 127.0.0.0/8."""
        return address in self.owned or (address.startswith("127.") and "127.0.0.1" in self.owned)

    @cached_property
    def loops(self) -> bool:
        """Whether its loopback device is up, which all packets of the machine to itself go through."""
        return any(link.kind is LinkKind.LOOPBACK and link.up for link in self.links)

    @cached_property
    def tables(self) -> Mapping[tuple[str, int], RouteTable]:
        """The routing tables by name and family, ready for lookups. Routes of devices that are down do not count."""
        found: dict[tuple[str, int], list[Route]] = {}
        for route in self.routes:
            device = self._links.get(route.device)
            if not route.device or (device is not None and device.up):
                found.setdefault((route.table, route.family), []).append(route)
        return {key: RouteTable(routes) for key, routes in found.items()}

    @cached_property
    def _lookups(self) -> Mapping[int, tuple[tuple[RoutingRule, bool, RouteTable | None], ...]]:
        """By family the policy routing rules in order: the rule, whether it asks the table `local`, and its table."""
        found: dict[int, list[tuple[RoutingRule, bool, RouteTable | None]]] = {4: [], 6: []}
        for rule in sorted(self.rules, key=lambda rule: rule.priority):
            table = self.tables.get((rule.table, rule.family))
            if rule.table == "local" or table is not None:
                found[rule.family].append((rule, rule.table == "local", table))
        return {of: tuple(steps) for of, steps in found.items()}

    def find(self, dst: str, src: str = "", mark: int = 0, iif: str = "lo") -> Route | None:
        """Policy routing: the route in the table of the first rule that selects the packet and has one for `dst`.

        What the machine itself sends comes by `lo`. For an own address it is a route of type `local`.
        """
        for rule, local, table in self._lookups[6 if ":" in dst else 4]:
            if rule.is_plain or rule.selects(src, dst, mark, iif):
                if local and self.is_local(dst):
                    return LOCAL
                route = table.lookup(dst) if table is not None else None
                if route is not None:
                    return route
        return None

    def refused_source(self, src: str, dst: str, device: str) -> str:
        """Why what comes by a device from `src` to `dst` (IPv4) is not taken, or nothing: an own address comes from
        nobody else, and rp_filter asks for the way back (`fib_validate_source`). ARP requests are asked too.
        """
        if device == "lo":
            return ""
        if src in self.owned:
            return f"{src} is an own address of {self.name}: none from it may come by {device} (martian source)"
        strict = max(self.sysctl("net.ipv4.conf.all.rp_filter"), self.sysctl(f"net.ipv4.conf.{device}.rp_filter"))
        if not strict:
            return ""
        back = self.find(src, dst)
        if back is None or back.type is not RouteType.UNICAST:
            return f"rp_filter: there is no route back to {src}"
        bare = all(address.family == 6 for address in self.link(device).addresses)
        if back.device != device and (strict == 1 or bare):
            return f"rp_filter: an answer to {src} would leave by {back.device}, but the packet came by {device}"
        return ""

    @cached_property
    def ports(self) -> Mapping[str, tuple[Link, ...]]:
        """The ports of each bridge, by the bridge's name."""
        found: dict[str, list[Link]] = {link.name: [] for link in self.links if link.kind is LinkKind.BRIDGE}
        for link in self.links:
            if link.master:
                found.setdefault(link.master, []).append(link)
        return {name: tuple(links) for name, links in found.items()}

    @cached_property
    def tracks(self) -> Mapping[int, bool]:
        """Whether connections are tracked, by family: only where some rule needs it, which translates or looks at a
        connection. A table nat without such a rule does not.
        """
        return {of: self._needs_tracking(of) for of in (4, 6)}

    def _needs_tracking(self, of: int) -> bool:
        tables = self.netfilter.of(of)
        if "nat" in tables and _translates(tables["nat"]):
            return True
        rules = (rule for table in tables.values() for rule in table.rules)
        if any(isinstance(match, CtState) for rule in rules for match in rule.matches):
            return True
        return any(table.tracks for table in self.nftables if of in nft.FAMILIES[table.family])

    @cached_property
    def filters(self) -> Mapping[int, bool]:
        """Whether anything looks at packets of a family, so that its hooks are worth a look."""
        return {of: bool(self.netfilter.of(of) or self._entrances[of] or self.ipvs) for of in (4, 6)}

    @cached_property
    def _entrances(self) -> Mapping[int, tuple[nft.Entrance, ...]]:
        """The base chains of nftables by family, the newest first."""
        newest = tuple(reversed(self.nftables))
        return {
            of: tuple(door for table in newest if of in nft.FAMILIES[table.family]
                      for door in reversed(table.entrances))
            for of in (4, 6)
        }  # fmt: skip

    @cached_property
    def phases(self) -> Mapping[tuple[str, int], tuple[tuple[str, Phase], ...]]:
        """What there is to do at each hook, by hook and family, in the order of `netfilter.ORDER` and of the priorities
        of nftables' base chains: tables with their base chain, and what conntrack and IPVS do. What could not do
        anything is left out.
        """
        return {(hook, of): self._phases(hook, of) for hook in HOOKS for of in (4, 6)}

    def _phases(self, hook: str, of: int) -> tuple[tuple[str, Phase], ...]:
        held = self.netfilter.of(of)
        chains = {name: table.chains[hook] for name, table in held.items() if hook in table.chains}
        busy = {name: chain for name, chain in chains.items() if chain.rules or chain.policy != "ACCEPT"}
        doors = [door for door in self._entrances[of] if door.base.hook == hook.lower()]
        nat = tuple(sorted((door for door in doors if door.base.type == "nat"), key=lambda door: door.base.priority))
        # One chain of type nat is enough for conntrack to translate at every hook.
        translates = "nat" in held or any(door.base.type == "nat" for door in self._entrances[of])
        needed = {*busy, *(("nat",) if translates else ()), *(TRACKING if self.tracks[of] else ())}
        if self.ipvs:
            needed |= BALANCING
        order: list[tuple[int, str, Phase]] = [
            (PRIORITIES[hook, phase], phase, busy.get(phase)) for phase in ORDER[hook] if phase in needed
        ]
        if not doors:
            return tuple((phase, chain) for _, phase, chain in order)
        if nat:
            merged = _in_turn(nat, busy.get("nat"), PRIORITIES[hook, "nat"])
            order = [(at, phase, merged if phase == "nat" else chain) for at, phase, chain in order]
        own: list[tuple[int, str, Phase]] = [
            (door.base.priority, "nftables", door) for door in doors if door.base.type != "nat"
        ]
        return tuple((phase, chain) for _, phase, chain in sorted((*own, *order), key=lambda each: each[0]))

    @cached_property
    def sets(self) -> Mapping[str, IpSet]:
        """The sets by name."""
        return {held.name: held for held in self.ipsets}

    @cached_property
    def virtual_servers(self) -> VirtualServers:
        """The virtual servers, ready for lookups."""
        return VirtualServers(self.ipvs)

    @cached_property
    def permanent(self) -> Mapping[tuple[str, str], str]:
        """The permanent neighbours: `(device, address)` to MAC."""
        return {(entry.device, entry.ip): entry.mac for entry in self.neighbours}

    @cached_property
    def answered(self) -> frozenset[tuple[str, str]]:
        """What its programs answer ARP and NDP questions for: `(device, address)`."""
        return frozenset((each.device, each.address) for each in self.responders)

    @cached_property
    def forwarding(self) -> Mapping[tuple[str, str], tuple[FdbEntry, ...]]:
        """The permanent FDB entries by `(device, MAC)`."""
        found: dict[tuple[str, str], list[FdbEntry]] = {}
        for entry in self.fdb:
            found.setdefault((entry.device, entry.mac), []).append(entry)
        return {key: tuple(entries) for key, entries in found.items()}

    @cached_property
    def tunnels(self) -> Mapping[tuple[int, int], tuple[Link, ...]]:
        """The tunnel devices that are up, by the family and the UDP port of the socket they hold. A WireGuard device
        holds one of each family.
        """
        found: dict[tuple[int, int], list[Link]] = {}
        for link in self.links:
            if link.vxlan is not None and link.up:
                for of in (4, 6) if link.vxlan.external else (family(link.vxlan.local),):
                    found.setdefault((of, link.vxlan.port), []).append(link)
            elif link.wireguard is not None and link.up:
                for of in (4, 6):
                    found.setdefault((of, link.wireguard.port), []).append(link)
        return {key: tuple(links) for key, links in found.items()}

    @cached_property
    def peers(self) -> Mapping[str, WireguardPeers]:
        """The peers of each WireGuard device, by its name."""
        return {
            link.name: WireguardPeers(link.wireguard, (peer for peer in self.wireguard if peer.device == link.name))
            for link in self.links
            if link.wireguard is not None
        }

    @cached_property
    def meshes(self) -> Mapping[int, Link]:
        """The entrances to a mesh that are up, by the UDP port that they take frames from others at."""
        return {link.mesh.port: link for link in self.links if link.mesh is not None and link.up}

    def sysctl(self, key: str) -> int:
        """A kernel setting, e.g. `net.ipv4.ip_forward`. A Host that does not state it is misbuilt: `LabError`."""
        try:
            return self.sysctls[key]
        except KeyError:
            raise LabError(Problem("the machine does not state this sysctl", object=self.name, field=key)) from None

    def without(self, entry: Entry, family: int = 0) -> Host:
        """The same machine with one route, rule, set element, neighbour, FDB entry, link, listener, responder, eBPF
        program or frontend, virtual or real server, entry of a set, WireGuard peer, or state or policy of xfrm less. A
        bridge that goes sets its ports free. A netfilter rule may stand alike in the tables of both families: it goes
        from those of `family`, if that is given, else from the first that have it. Raises `UnknownName`.
        """
        if isinstance(entry, nft.Rule | nft.Held):
            if entry.table not in (table.name for table in self.nftables):
                raise UnknownName("table", entry.table, [table.name for table in self.nftables], field=self.name)
            kept = (table.without(entry) if table.name == entry.table else table for table in self.nftables)
            return msgspec.structs.replace(self, nftables=tuple(kept))
        if isinstance(entry, Rule):
            for of in (family,) if family else (4, 6):
                if _has(self.netfilter, of, entry):
                    return msgspec.structs.replace(self, netfilter=self.netfilter.without(of, entry))
            raise UnknownName("rule", entry.text, field=self.name)
        if isinstance(entry, Attachment | Frontend | Known | Endpoint | Permit):
            return self._without_bpf(entry)
        if isinstance(entry, Destination):
            return self._without_server(entry)
        if isinstance(entry, IpSetEntry):
            return self._without_element(entry)
        if isinstance(entry, XfrmState | XfrmPolicy):
            return self._without_transform(entry)
        field = _FIELDS[type(entry)]
        held: tuple[Entry, ...] = getattr(self, field)
        if entry not in held:
            raise UnknownName(type(entry).__name__.lower(), repr(entry), field=self.name)
        left = tuple(other for other in held if other != entry)
        if isinstance(entry, Link):
            left = tuple(_freed(other, entry) for other in left if isinstance(other, Link))
        return msgspec.structs.replace(self, **{field: left})

    def _without_bpf(self, entry: Attachment | Frontend | Looked) -> Host:
        """A program that is both balancer's and datapath's is one program."""
        ebpf = self.ebpf if isinstance(entry, Attachment | Frontend) else None
        datapath = None if isinstance(entry, Frontend) else self.datapath
        balances = ebpf is not None and isinstance(entry, Attachment | Frontend) and ebpf.holds(entry)
        delivers = datapath is not None and not isinstance(entry, Frontend) and datapath.holds(entry)
        if not (balances or delivers):
            raise UnknownName("entry of eBPF", repr(entry), field=self.name)
        changed = self
        if ebpf is not None and isinstance(entry, Attachment | Frontend) and balances:
            changed = msgspec.structs.replace(changed, ebpf=ebpf.without(entry))
        if datapath is not None and not isinstance(entry, Frontend) and delivers:
            changed = msgspec.structs.replace(changed, datapath=datapath.without(entry))
        return changed

    def _without_server(self, entry: Destination) -> Host:
        if entry.virtual not in self.ipvs or entry.server not in entry.virtual.servers:
            raise UnknownName("real server", entry.text, field=self.name)
        fewer = entry.virtual.without(entry.server)
        held = tuple(fewer if each == entry.virtual else each for each in self.ipvs)
        return msgspec.structs.replace(self, ipvs=held)

    def _without_transform(self, entry: XfrmState | XfrmPolicy) -> Host:
        if self.xfrm is None or entry not in self.xfrm.entries:
            raise UnknownName("entry of xfrm", entry.text, field=self.name)
        return msgspec.structs.replace(self, xfrm=self.xfrm.without(entry))

    def _without_element(self, entry: IpSetEntry) -> Host:
        held = self.sets.get(entry.set)
        if held is None or entry.entry not in held.entries:
            raise UnknownName("entry", f"{entry.set} {entry.entry}", field=self.name)
        fewer = held.without(entry.entry)
        return msgspec.structs.replace(self, ipsets=tuple(fewer if each is held else each for each in self.ipsets))

    def unplugged(self, name: str) -> Host:
        """The same machine after the other end of one of its cables is gone: a veth goes with it, a NIC stays."""
        link = self.link(name)
        if link.kind is LinkKind.VETH:
            return self.without(link)
        alone = msgspec.structs.replace(link, peer=None)
        return msgspec.structs.replace(self, links=tuple(alone if held == link else held for held in self.links))


def _translates(table: Table) -> bool:
    """Whether some rule of iptables' table nat translates. The end of a packet's way is looked at first: what
    masquerades there is found before the chains of Services are built.
    """
    last = table.chains["POSTROUTING"].rules
    called = (rule.target.chain for rule in last if isinstance(rule.target, Jump) and rule.target.chain in table.chains)
    near = (rule for name in called for rule in table.chains[name].rules)
    return any(isinstance(rule.target, TRANSLATING) for rule in chain(last, near, table.rules))


def _in_turn(doors: tuple[nft.Entrance, ...], table: Chain | None, priority: int) -> tuple[Chain | nft.Entrance, ...]:
    """The chains of type nat at one hook, by priority; iptables' own after those of the same priority."""
    before = tuple(door for door in doors if door.base.priority <= priority)
    after = tuple(door for door in doors if door.base.priority > priority)
    return (*before, *((table,) if table is not None else ()), *after)


def _freed(port: Link, gone: Link) -> Link:
    return msgspec.structs.replace(port, master="", hairpin=False) if port.master == gone.name else port


_FIELDS: Mapping[type, str] = {
    Link: "links", Route: "routes", RoutingRule: "rules", Neighbour: "neighbours", FdbEntry: "fdb",
    Listener: "listeners", Responder: "responders", VirtualServer: "ipvs", WireguardPeer: "wireguard",
}  # fmt: skip


def _has(netfilter: Netfilter, of: int, rule: Rule) -> bool:
    table = netfilter.of(of).get(rule.table)
    return table is not None and rule.chain in table.chains and rule in table.chains[rule.chain].rules


class Part(msgspec.Struct, frozen=True):
    """What one program contributes to a machine: a CNI, kube-proxy, the machine's own configuration. `assembled`
    makes a Host of several.
    """

    links: tuple[Link, ...] = ()
    routes: tuple[Route, ...] = ()
    rules: tuple[RoutingRule, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    fdb: tuple[FdbEntry, ...] = ()
    sysctls: Mapping[str, int] = {}
    patches: tuple[Patch, ...] = ()
    listeners: tuple[Listener, ...] = ()
    responders: tuple[Responder, ...] = ()
    ebpf: Ebpf | None = None
    ipsets: tuple[IpSet, ...] = ()
    ipvs: tuple[VirtualServer, ...] = ()
    nftables: tuple[nft.Table, ...] = ()
    wireguard: tuple[WireguardPeer, ...] = ()
    datapath: Datapath | None = None
    xfrm: Xfrm | None = None


def assembled(name: str, kind: str, *parts: Part) -> Host:
    """The machine that these parts make together, in the order given; a part's own rule for table `local` stands in the
    place of the usual one. Two devices or two tables of nftables that have one name are a `LabError`.
    """
    links = tuple(link for part in parts for link in part.links)
    names = [link.name for link in links]
    for twice in sorted({link for link in names if names.count(link) > 1}):
        raise LabError(Problem("two devices have this name", object=name, field=twice))
    own = tuple(table for part in parts for table in part.nftables)
    labels = [table.name for table in own]
    for twice in sorted({label for label in labels if labels.count(label) > 1}):
        raise LabError(Problem("two nftables tables have this name", object=name, field=twice))
    patches = [patch for part in parts for patch in part.patches]
    added = tuple(rule for part in parts for rule in part.rules)
    moved = {rule.family for rule in added if rule.table == "local"}
    usual = (rule for rule in DEFAULT_RULES if rule.table != "local" or rule.family not in moved)
    rules = (*usual, *added)
    stated: dict[str, int] = sysctls(*names)
    for part in parts:
        stated.update(part.sysctls)
    return Host(
        name=name,
        kind=kind,
        links=links,
        routes=tuple(route for part in parts for route in part.routes),
        rules=tuple(sorted(rules, key=lambda rule: (rule.family, rule.priority))),
        neighbours=tuple(entry for part in parts for entry in part.neighbours),
        fdb=tuple(entry for part in parts for entry in part.fdb),
        sysctls=stated,
        netfilter=Netfilter(tables(4, patches), tables(6, patches)),
        listeners=tuple(listener for part in parts for listener in part.listeners),
        responders=tuple(responder for part in parts for responder in part.responders),
        ebpf=next((part.ebpf for part in parts if part.ebpf is not None), None),
        ipsets=tuple(held for part in parts for held in part.ipsets),
        ipvs=tuple(virtual for part in parts for virtual in part.ipvs),
        nftables=own,
        wireguard=tuple(peer for part in parts for peer in part.wireguard),
        datapath=next((part.datapath for part in parts if part.datapath is not None), None),
        xfrm=next((part.xfrm for part in parts if part.xfrm is not None), None),
    )


def sysctls(*devices: str) -> dict[str, int]:
    """Every sysctl that the walk reads, as a fresh network namespace has it, with those of the named devices."""
    stated = {
        "net.ipv4.ip_forward": 0,
        "net.ipv6.conf.all.forwarding": 0,
        "net.ipv4.conf.all.rp_filter": 0,
        "net.ipv4.conf.all.route_localnet": 0,
        "net.ipv4.conf.all.proxy_arp": 0,
        "net.ipv4.conf.all.arp_ignore": 0,
        "net.bridge.bridge-nf-call-iptables": 1,
        "net.bridge.bridge-nf-call-ip6tables": 1,
    }
    for device in devices:
        stated[f"net.ipv4.conf.{device}.rp_filter"] = 0
        stated[f"net.ipv4.conf.{device}.route_localnet"] = 0
        stated[f"net.ipv4.conf.{device}.proxy_arp"] = 0
    return stated


class Found(msgspec.Struct, frozen=True):
    """Who answered an ARP request: the machine, its device and MAC; and the bridge ports between, as `(machine,
    bridge, port towards the answer, port towards the question)`; of a mesh its entrance and the machine behind it.
    """

    host: str
    link: str
    mac: str
    bridges: tuple[tuple[str, str, str, str], ...]


class Network(Mapping[str, Host]):
    """All machines by name. A machine may be given as a function: it is then built when a packet first comes by.

    `owners` says which machines may own an address, so that an ARP request need not wake every machine; it must name
    every one that does. Machines put in by `replacing` are always asked.
    """

    __slots__ = ("_asked", "_held", "_owners", "memory")

    def __init__(
        self,
        held: Mapping[str, Host | Callable[[], Host]],
        owners: Callable[[str], Iterable[str]] | None = None,
        asked: frozenset[str] = frozenset(),
    ) -> None:
        self._held = dict(held)
        self._owners = owners
        self._asked = asked
        self.memory: dict[tuple[str, str, str, str], tuple[Found, ...]] = {}
        """What `linux.walk` found out about who is where on a cable; it follows from the state alone."""

    def __getitem__(self, name: str) -> Host:
        held = self._held[name]
        if not isinstance(held, Host):
            held = self._held[name] = held()
        return held

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def host(self, name: str) -> Host:
        """The machine of that name. Raises `UnknownName`."""
        if name not in self._held:
            raise UnknownName("machine", name, self._held)
        return self[name]

    def may_own(self, address: str) -> frozenset[str]:
        """The machines that may answer for an address; the search looks at no other."""
        if self._owners is None:
            return frozenset(self._held)
        return self._asked.union(self._owners(address))

    def replacing(self, *hosts: Host) -> Network:
        """Another network, with these machines in the place of their namesakes, or added."""
        held = {**self._held, **{host.name: host for host in hosts}}
        return Network(held, self._owners, self._asked.union(host.name for host in hosts))

    def without(self, name: str, entry: Entry, family: int = 0) -> Network:
        """Another network, in which one machine has one entry less (`Host.without`); of a link, the other end of its
        cable notices.
        """
        changed = {name: self.host(name).without(entry, family)}
        if isinstance(entry, Link) and entry.peer is not None and entry.peer.host in self:
            other = entry.peer.host  # perhaps the same machine
            changed[other] = changed.get(other, self[other]).unplugged(entry.peer.link)
        return self.replacing(*changed.values())


def families(host: Host) -> tuple[int, ...]:
    """The address families that the machine has addresses of, beyond its loopback."""
    return tuple(sorted({family(a.ip) for link in host.links if link.name != "lo" for a in link.addresses}))
