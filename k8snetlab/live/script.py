"""What must be typed to make this machine?

A `Host` is a value; the kernel wants commands. `cables` says how all namespaces, bridges and cables of a network come
into being, in one call of `ip` for the whole network. `script` then says how one machine becomes another — from bare
devices to a compiled Host at first, and from a Host to a changed one later — as the input of `ip -batch`,
`bridge -batch`, `ipset restore`, `iptables-restore` and `nft -f`, one call of each, and as a list of sysctls. Nothing
here runs anything.

Of base chains with one priority the kernel runs the newest first, and rules that are replaced are new: whatever changes
of a machine's rules, nftables' tables are made again after those of iptables, in their order.

Hosts are applied as they are. What the kernel would add by itself is refused (routes that come with an address,
router advertisements), and what is added are settings that keep a lab quick and quiet, and change no path: no rate
limit and no delay for ICMP and ARP answers, an unanswered ARP request given up after a fraction of a second instead
of three, no second SYN-ACK to a client who did not hear the first, no duplicate address detection, no ICMP redirects
(`QUIET`, `QUIET_DEVICE`). The IPv6 link-local addresses stay: without one a router cannot ask for its neighbours.

Three things the kernel does not let one say as a Host says it: a gateway that no stated route covers is added with
`onlink`; routes over a device that is down are left out, for there are none; a device whose cable ends nowhere has its
other end in the lab's own namespace. Two devices with one index, or with 1, which is the loopback's, get another. A
NIC is one end of a veth, since a lab has no hardware.

See `ip-link(8)`, `ip-address(8)`, `ip-route(8)`, `bridge(8)`, `iptables-restore(8)`, `nft(8)`, the kernel's
ip-sysctl.rst.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from k8snetlab.address import family
from k8snetlab.errors import CannotDo, Problem
from k8snetlab.linux.host import Host, Network
from k8snetlab.linux.ipset import SetType
from k8snetlab.linux.link import Address, FdbEntry, Link, LinkKind, Neighbour
from k8snetlab.linux.netfilter import TABLES, Nfacct, Tables
from k8snetlab.linux.nftables import Set, Table
from k8snetlab.linux.route import NextHop, Route, RouteType, RoutingRule
from k8snetlab.linux.text import iptables_save, nft_list_ruleset

__all__ = ["Script", "bare", "cables", "forgotten", "namespace", "quiet", "quiet_devices", "script"]

QUIET: Mapping[str, str] = {
    "ipv4/icmp_ratelimit": "0",
    "ipv4/icmp_ratemask": "0",
    "ipv4/tcp_synack_retries": "0",
    "ipv6/icmp/ratelimit": "0",
    "ipv6/icmp/ratemask": "",
    "ipv4/conf/all/accept_redirects": "0",
    "ipv4/conf/default/accept_redirects": "0",
    "ipv4/conf/all/send_redirects": "0",
    "ipv4/conf/default/send_redirects": "0",
    "ipv6/conf/all/accept_redirects": "0",
    "ipv6/conf/default/accept_redirects": "0",
    "ipv6/conf/default/accept_ra": "0",
    "ipv6/conf/all/accept_dad": "0",
    "ipv6/conf/default/accept_dad": "0",
    "ipv6/conf/default/router_solicitations": "0",
}
"""Settings of every namespace, below /proc/sys/net: quick and quiet."""

QUIET_DEVICE: Mapping[str, str] = {
    "retrans_time_ms": "40",
    "mcast_solicit": "2",
    "ucast_solicit": "2",
    "proxy_delay": "0",
    "unres_qlen_bytes": "16777216",
}
"""Settings of every device's neighbour table, in both families."""

_ALIKE = 1000
"""Added to the index of one end of a cable whose ends have the same. The kernel would take such a device for one
without a lower half, and be up to a second late in noticing that the cable is plugged in (`linkwatch_urgent_event`).
"""

VXLAN_ADDS = 50
"""Bytes of the headers of Ethernet, VXLAN, UDP and IPv4; those of IPv6 are 20 more."""

_TAKEN = 2000
"""Where the indexes of devices begin that cannot have their own. The kernel would give them one that the other end of
the cable may have.
"""

_FIRST = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
"""Written before all others, because the kernel changes other settings along with them."""


class Script(msgspec.Struct, frozen=True):
    """How one machine becomes what it should be: the input of each program, empty where it need not be called.

    `ipset` makes and fills the sets that rules ask, `ipset_gone` takes away those that none asks any more. `ip6` are
    the lines that `ip` takes for IPv6 only when told so on its command line. `accounts` are the counters that rules
    name.
    """

    ip: str = ""
    ip6: str = ""
    bridge: str = ""
    ipset: str = ""
    iptables: str = ""
    ip6tables: str = ""
    nft: str = ""
    ipset_gone: str = ""
    sysctls: tuple[tuple[str, str], ...] = ()
    accounts: tuple[str, ...] = ()


def namespace(host: str) -> str:
    """The name of a machine's namespace, which may hold no slash: `shop/web-0` → `shop_web-0`. No name in Kubernetes
    has an underscore, so no two machines share one.
    """
    return host.replace("/", "_")


# The whole network: namespaces, bridges, cables


def cables(network: Network) -> tuple[str, str]:
    """Two inputs of `ip -batch`: one that makes every namespace, and one that makes every bridge and cable in them.

    Devices have their name, index, MAC and MTU, and are down. Tunnels come later, with `script`.
    """
    links = [(host, link) for host in network.values() for link in host.links]
    made = (line for host, link in links for line in _made(network, host, link))
    return _lines(f"netns add {namespace(name)}" for name in network), _lines(made)


def _made(network: Network, host: Host, link: Link) -> Iterator[str]:
    if link.kind in (LinkKind.BRIDGE, LinkKind.DUMMY):  # few kernels have dummies; a bridge without ports is one
        yield f"link add {_device(host, link)} type bridge"
    elif link.kind in (LinkKind.NIC, LinkKind.VETH):
        other = _other_end(network, host, link)
        if other is None:
            yield f"link add {_device(host, link)} type veth peer up"
        elif (host.name, link.name) < (other[0].name, other[1].name):
            moved = _ALIKE if link.index == other[1].index else 0
            yield f"link add {_device(host, link)} type veth peer {_device(*other, moved)}"


def _device(host: Host, link: Link, moved: int = 0) -> str:
    taken = [held.index for held in host.links].count(link.index) > 1 or link.index <= 1
    index = _TAKEN + host.links.index(link) if taken else link.index
    return f"name {link.name} index {index + moved} address {link.mac} mtu {link.mtu} netns {namespace(host.name)}"


def _other_end(network: Network, host: Host, link: Link) -> tuple[Host, Link] | None:
    """The machine and device at the other end of a cable, if they agree that there is one."""
    if link.peer is None or link.peer.host not in network:
        return None
    there = network[link.peer.host]
    end = next((held for held in there.links if held.name == link.peer.link), None)
    if end is None or end.peer is None or (end.peer.host, end.peer.link) != (host.name, link.name):
        return None
    return there, end


def bare(host: Host) -> Host:
    """A machine as `cables` leaves it: its devices without tunnels, down and without addresses; nothing else."""
    links = tuple(
        msgspec.structs.replace(link, up=False, master="", hairpin=False, addresses=())
        for link in host.links
        if link.kind is not LinkKind.VXLAN
    )
    return Host(host.name, host.kind, links)


def quiet(network: Network) -> Iterator[tuple[str, str, str]]:
    """The settings that keep a lab quick: namespace, path below /proc/sys/net, value."""
    for name in network:
        for path, value in QUIET.items():
            yield namespace(name), path, value


def quiet_devices(network: Network) -> Iterator[tuple[str, str, str]]:
    """The settings of every device that keep a lab quick, once the devices are there."""
    for host in network.values():
        for link in host.links:
            for of in ("ipv4", "ipv6"):
                for name, value in QUIET_DEVICE.items():
                    yield namespace(host.name), f"{of}/neigh/{link.name}/{name}", value


# One machine


def script(before: Host, after: Host) -> Script:
    """How a machine becomes another one. Raises `CannotDo` where it would need other devices, or programs that answer
    for addresses of others: none runs here.
    """
    if after.responders:
        message = "no program in the lab answers ARP for an address that the machine has not"
        raise CannotDo(Problem(message, object=after.name, field=after.responders[0].address))
    _same_devices(before, after)
    old, new = dict(_effective(before)), dict(_effective(after))
    gone = [*(entry for entry in before.neighbours if entry not in after.neighbours)]
    ip = (
        *(f"route del {_route(before, route)}" for line, route in old.items() if _is_gone(line, route, new, after)),
        *(f"neigh del {entry.ip} dev {entry.device}" for entry in gone if _is_up(after, entry.device)),
        *(line for link in after.links if link.vxlan is None for line in _link(_held(before, link), link)),
        *(line for link in after.links if link.vxlan is not None for line in _roomy(before, after, link)),
        *(_added(after, route) for line, route in new.items() if line not in old),
        *(_neighbour(entry) for entry in after.neighbours if not _kept(before, after, entry)),
        *_rules(before, after, 4),
    )
    fdb = (
        *(f"fdb del {_fdb(before, entry)}" for entry in before.fdb if entry not in after.fdb),
        *(f"fdb append {_fdb(after, entry)}" for entry in after.fdb if entry not in before.fdb),
    )
    four = _restore(before.netfilter.ipv4, after.netfilter.ipv4)
    six = _restore(before.netfilter.ipv6, after.netfilter.ipv6)
    moved = bool(after.nftables and (four or six))
    return Script(
        ip=_lines(ip),
        ip6=_lines(_rules(before, after, 6)),
        bridge=_lines(fdb),
        ipset=_lines(_sets(before, after)),
        iptables=four,
        ip6tables=six,
        nft=_replaced(before.nftables, after.nftables) if moved or before.nftables != after.nftables else "",
        ipset_gone=_lines(f"destroy {name}" for name in _lists_first(before) if name not in after.sets),
        sysctls=tuple(_sysctls(before, after)),
        accounts=tuple(_accounts(after)) if four or six else (),
    )


def _lists_first(host: Host) -> Iterator[str]:
    """The names of sets, those of lists of sets first: what a list names cannot be destroyed."""
    return iter(sorted(host.sets, key=lambda name: host.sets[name].type is not SetType.LIST))


def _sets(before: Host, after: Host) -> Iterator[str]:
    """Sets that are new or hold something else. Rules may ask a set already: it is emptied, not made anew."""
    for held in after.ipsets:
        known = before.sets.get(held.name)
        if known is not None and (known.type, known.family) != (held.type, held.family):
            message = "a set would be of another type, while rules ask it: build another lab"
            raise CannotDo(Problem(message, object=after.name, field=held.name))
        if known != held:
            first, *rest = held.lines
            yield f"flush {held.name}" if known is not None else first
            yield from rest


def _same_devices(before: Host, after: Host) -> None:
    fresh = {link.name for link in after.links if link.kind is LinkKind.VXLAN and _held(before, link) is None}
    held = {(link.name, link.mac, link.peer, link.vxlan) for link in before.links}
    wanted = {(link.name, link.mac, link.peer, link.vxlan) for link in after.links if link.name not in fresh}
    if held != wanted:
        names = sorted({name for name, *_ in held ^ wanted})
        message = "the machine would need other devices or cables: build another lab"
        raise CannotDo(Problem(message, object=after.name, field=", ".join(names)))


def _held(host: Host, link: Link) -> Link | None:
    return _named(host, link.name)


def _named(host: Host, device: str) -> Link | None:
    return next((held for held in host.links if held.name == device), None)


def _is_up(host: Host, device: str) -> bool:
    return any(link.name == device and link.up for link in host.links)


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


# Devices and addresses


def _link(before: Link | None, after: Link) -> Iterator[str]:
    """A device: made if it is a tunnel, then its addresses, its bridge, its MTU, and last up or down."""
    name = after.name
    if before is None:
        yield _tunnel(after)
        before = msgspec.structs.replace(after, up=False, master="", hairpin=False, addresses=())
    held, wanted = _kept_addresses(before, after), _addresses(after)
    yield from (f"address del {address} dev {name}" for address in held if address not in wanted)
    if after.kind is LinkKind.BRIDGE and not before.up:  # a bridge follows its ports, unless its MTU was once changed
        yield f"link set dev {name} mtu {after.mtu - 1}"
        yield f"link set dev {name} mtu {after.mtu}"
    elif after.mtu != before.mtu:
        yield f"link set dev {name} mtu {after.mtu}"
    if after.master != before.master:
        yield f"link set dev {name} master {after.master}" if after.master else f"link set dev {name} nomaster"
    hairpin = before.hairpin and after.master == before.master  # a port that changes its bridge begins without
    if after.master and after.hairpin != hairpin:
        yield f"link set dev {name} type bridge_slave hairpin {'on' if after.hairpin else 'off'}"
    if after.up != before.up:
        yield f"link set dev {name} {'up' if after.up else 'down'}"
    yield from (f"address add {_address(after, address)}" for address in wanted if address not in held)


def _roomy(before: Host, after: Host, link: Link) -> Iterator[str]:
    """A tunnel, after the devices below. Its MTU can be set only while the device below has room for what the tunnel
    adds; if that one is too small by now, as it may become at any time, it is large for a moment.
    """
    held, of = _held(before, link), link.vxlan
    below = None if of is None else _named(after, of.device)
    room = 0 if of is None else link.mtu + (VXLAN_ADDS if family(of.local) == 4 else VXLAN_ADDS + 20)
    if below is None or below.mtu >= room or (held is not None and held.mtu == link.mtu):
        yield from _link(held, link)
        return
    yield f"link set dev {below.name} mtu {room}"
    yield from _link(held, link)
    yield f"link set dev {below.name} mtu {below.mtu}"


def _addresses(link: Link) -> list[Address]:
    """The addresses that must be said: the loopback has its own by itself, and a device that is down has none of
    IPv6.
    """
    own = link.kind is LinkKind.LOOPBACK
    return [a for a in link.addresses if (link.up or a.family == 4) and not (own and a.scope == "host")]


def _kept_addresses(before: Link, after: Link) -> list[Address]:
    """The addresses that a device still has, once it is up or down as it shall be."""
    return [address for address in _addresses(before) if after.up or address.family == 4]


def _tunnel(link: Link) -> str:
    of = link.vxlan
    if of is None:
        raise CannotDo(Problem("a tunnel device that does not say where it leads", field=link.name))
    learning = "learning" if of.learning else "nolearning"
    return (
        f"link add name {link.name} index {link.index} address {link.mac} mtu {link.mtu} type vxlan "
        f"id {of.vni} local {of.local} dev {of.device} dstport {of.port} {learning}"
    )


def _address(link: Link, address: Address) -> str:
    """An address that brings no route along; in IPv6 it can be used at once."""
    broadcast = address.family == 4 and address.length < 31 and link.kind is not LinkKind.LOOPBACK
    more = " brd +" if broadcast else " nodad" if address.family == 6 else ""
    return f"{address} dev {link.name} scope {address.scope}{more} noprefixroute"


# Routes


def _effective(host: Host) -> Iterator[tuple[str, Route]]:
    """The routes that there can be, those on the cable first: not over a device that is down, and no second one with
    the same destination and metric, but for those that lone addresses bring.
    """
    found: dict[tuple[int, str, str, int, str], Route] = {}
    for route in sorted(host.routes, key=lambda route: bool(route.via)):
        if not route.device or _is_up(host, route.device):
            own = route.device if _is_shared(route) else ""
            found.setdefault((route.family, route.table, str(route.block()), route.metric, own), route)
    return ((repr(route), route) for route in found.values())


def _is_gone(line: str, route: Route, new: Mapping[str, Route], after: Host) -> bool:
    """Whether a route must be deleted: with a device that goes down it goes by itself."""
    return line not in new and (not route.device or _is_up(after, route.device))


def _added(host: Host, route: Route) -> str:
    onlink = " onlink" if not route.hops and route.via and (route.onlink or not _covered(host, route)) else ""
    return f"route {'append' if _is_shared(route) else 'add'} {_route(host, route)}{onlink}"


def _is_shared(route: Route) -> bool:
    """Whether there may be several of these: a lone IPv6 address brings a route on each device that has it."""
    return route.family == 6 and route.protocol == "kernel" and route.block().length == 128


def _covered(host: Host, route: Route | NextHop) -> bool:
    """Whether a stated route says that the gateway is on the cable."""
    table = host.tables.get(("main", family(route.via)))
    found = table.lookup(route.via) if table is not None else None
    return found is not None and not found.via and found.device == route.device


def _hop(host: Host, hop: NextHop) -> str:
    via, onlink = (f" via {hop.via}", "" if _covered(host, hop) else " onlink") if hop.via else ("", "")
    return f"nexthop{via} dev {hop.device} weight {hop.weight}{onlink}"


def _route(host: Host, route: Route) -> str:
    refused = route.type is not RouteType.UNICAST
    parts = (
        f"{route.type}" if refused else "",
        str(route.block()),
        f"via {route.via}" if route.via and not route.hops else "",
        f"dev {route.device}" if route.device and not route.hops else "",
        f"proto {_PROTOCOL.get(route.protocol, route.protocol)}",
        f"scope {route.scope}" if route.family == 4 and not refused else "",
        f"src {route.source}" if route.source else "",
        _metric(route),
        f"table {route.table}" if route.table != "main" else "",
        f"mtu {route.mtu}" if route.mtu else "",
        *(_hop(host, hop) for hop in route.hops),
    )
    return " ".join(part for part in parts if part)


_PROTOCOL = {"kernel": 2, "boot": 3, "static": 4, "bird": 12}
"""Who wrote a route, by number: of several lines at once, `ip` takes a name after a number for that number."""


def _metric(route: Route) -> str:
    metric = route.metric or (256 if route.family == 6 and route.protocol == "kernel" else 0)
    return f"metric {metric}" if metric else ""


def _rules(before: Host, after: Host, of: int) -> Iterator[str]:
    old = [rule for rule in before.rules if rule.family == of]
    new = [rule for rule in after.rules if rule.family == of]
    yield from (f"rule del {_rule(rule)}" for rule in old if rule not in new)
    yield from (f"rule add {_rule(rule)}" for rule in new if rule not in old)


def _rule(rule: RoutingRule) -> str:
    parts = (
        "not" if rule.invert else "",
        f"from {rule.source or 'all'}",
        f"to {rule.to}" if rule.to else "",
        f"fwmark {rule.mark:#x}/{rule.mask:#x}" if rule.mark else "",
        f"iif {rule.iif}" if rule.iif else "",
        f"lookup {rule.table} pref {rule.priority}",
    )
    return " ".join(part for part in parts if part)


# Neighbours and FDB


def _kept(before: Host, after: Host, entry: Neighbour) -> bool:
    """Whether a permanent neighbour is there already; a device that went down has lost all of its."""
    return not _is_up(after, entry.device) or (entry in before.neighbours and _is_up(before, entry.device))


def _neighbour(entry: Neighbour) -> str:
    return f"neigh replace {entry.ip} lladdr {entry.mac} dev {entry.device} nud permanent"


def _fdb(host: Host, entry: FdbEntry) -> str:
    if entry.device in host.ports:
        return f"{entry.mac} dev {entry.dst} master static"
    return f"{entry.mac} dev {entry.device} dst {entry.dst} self permanent"


# Rules of netfilter


def _restore(before: Tables, after: Tables) -> str:
    """The input of `iptables-restore`, which replaces the tables it names; empty where nothing changes."""
    new = iptables_save(after)
    if new == iptables_save(before):
        return ""
    return new + _lines(line for name in before if name not in after for line in _emptied(name))


def _emptied(table: str) -> Iterator[str]:
    yield f"*{table}"
    yield from (f":{hook} ACCEPT [0:0]" for hook in TABLES[table])
    yield "COMMIT"


def _replaced(before: Iterable[Table], after: Iterable[Table]) -> str:
    """The input of `nft -f` that makes all tables anew, in one step."""
    return _lines(f"delete table {table.name}" for table in before) + nft_list_ruleset(after)


def forgotten(host: Host) -> str:
    """The input of `nft -f` that takes out of dynamic sets what packets have put there; empty if there are none."""
    held = ((table, each) for table in host.nftables for each in table.sets.values() if "dynamic" in each.flags)
    return "".join(_as_configured(table, each) for table, each in held)


def _as_configured(table: Table, held: Set) -> str:
    own = ", ".join(element.written(held.types, held.data) for element in held.ordered)
    filled = f"add element {table.name} {held.name} {{ {own} }}\n" if own else ""
    return f"flush set {table.name} {held.name}\n{filled}"


def _accounts(host: Host) -> list[str]:
    """The counters that the rules name; they must be there before the rules are."""
    tables = (*host.netfilter.ipv4.values(), *host.netfilter.ipv6.values())
    matches = (match for table in tables for rule in table.rules for match in rule.matches)
    return sorted({match.name for match in matches if isinstance(match, Nfacct)})


# Settings


def _sysctls(before: Host, after: Host) -> Iterator[tuple[str, str]]:
    """Paths below /proc/sys/net and values, of what the machine states."""
    keys = sorted(after.sysctls, key=lambda key: (key not in _FIRST, key))
    for key in keys:
        if before.sysctls.get(key) != after.sysctls[key]:
            yield _path(key), str(after.sysctls[key])


def _path(key: str) -> str:
    """`net.ipv4.conf.flannel.1.rp_filter` → `ipv4/conf/flannel.1/rp_filter`: names of devices have dots too."""
    parts = key.removeprefix("net.").split(".")
    if len(parts) > 4 and parts[1] in ("conf", "neigh"):
        parts[2:-1] = [".".join(parts[2:-1])]
    return "/".join(parts)
