"""What would the real tool print?

The state of a machine, in the words of `ip`, `bridge`, `conntrack`, `iptables-save`, `ipset` and `ipvsadm`: what a
learner meets on a real node reads the same. Every line is made from the state alone; two calls with the same state
give the same bytes.

Order is the kernel's: IPv4 routes by prefix, the default route first; IPv6 routes as the kernel walks its tree, which
puts a network after those inside it, and the default route last. Trailing blanks, of which the real tools leave many,
are left out.

Not modelled, and so not printed: link-local addresses (`fe80::/64`) and multicast entries, which the kernel makes for
every device; statistics; time-outs of addresses. The queueing discipline is the usual one of the kind of device.
Guide section 2.1; iproute2 6.1, conntrack-tools 1.4.7, ipset 7.17, ipvsadm 1.31.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from k8snetlab.address import Prefix, family, number
from k8snetlab.linux import nftables as nft
from k8snetlab.linux.conntrack import Connection, Conntrack, Tuple
from k8snetlab.linux.datapath import Endpoint, Known, Permit
from k8snetlab.linux.ebpf import Attachment, Frontend
from k8snetlab.linux.ebpf import Entry as Slot
from k8snetlab.linux.host import Entry, Host
from k8snetlab.linux.ipset import IpSetEntry
from k8snetlab.linux.ipvs import Destination, Director, RealServer, VirtualServer
from k8snetlab.linux.link import TUNNELS, Address, FdbEntry, Link, LinkKind, Mesh, Neighbour, Responder
from k8snetlab.linux.netfilter import HOOKS, Chain, Rule, Tables
from k8snetlab.linux.route import NextHop, Route, RouteType, RoutingRule
from k8snetlab.linux.wireguard import WireguardPeer, wg_show, wg_showconf
from k8snetlab.linux.xfrm import XfrmPolicy, XfrmState
from k8snetlab.trace.table import endpoint

__all__ = [
    "bridge_fdb",
    "conntrack_list",
    "entry_line",
    "ip_addr",
    "ip_link",
    "ip_link_details",
    "ip_neigh",
    "ip_route",
    "ip_rule",
    "ipset_save",
    "iptables_save",
    "ipvsadm",
    "ipvsadm_connections",
    "ipvsadm_save",
    "nft_list_ruleset",
    "wg",
    "wg_conf",
]


# ip addr, ip link


def ip_addr(host: Host) -> str:
    """`ip addr`: every device with its addresses."""
    netns = _netns_ids(host)
    lines: list[str] = []
    for link in host.links:
        lines += (_first_line(host, link, ""), _second_line(link, netns))
        for address in link.addresses:
            lines += (f"    {_address(address, link)}", "       valid_lft forever preferred_lft forever")
    return _text(lines)


def ip_link(host: Host) -> str:
    """`ip link`: every device."""
    netns = _netns_ids(host)
    return _text(
        line for link in host.links for line in (_first_line(host, link, "mode DEFAULT "), _second_line(link, netns))
    )


def ip_link_details(host: Host) -> str:
    """`ip -d link`: every device with what belongs to its kind, as far as the state says it."""
    netns = _netns_ids(host)
    lines: list[str] = []
    for link in host.links:
        lines += (_first_line(host, link, "mode DEFAULT "), _second_line(link, netns))
        lines += (f"    {line}" for line in _kind(host, link))
    return _text(lines)


def _first_line(host: Host, link: Link, mode: str) -> str:
    name = f"{link.name}@if{link.peer_index}" if link.peer_index else link.name
    if link.kind is LinkKind.VETH and link.peer is not None and link.peer.host == host.name:
        name = f"{link.name}@{link.peer.link}"
    name += "@NONE" if link.kind is LinkKind.IPIP else ""
    flags = _FLAGS.get(link.kind, "BROADCAST,MULTICAST") + ("" if link.arp else ",NOARP")
    up = ",UP,LOWER_UP" if link.up else ""
    master = f"master {link.master} " if link.master else ""
    return (
        f"{link.index}: {name}: <{flags}{up}> mtu {link.mtu} qdisc {_qdisc(link)} {master}state {_state(link)} "
        f"{mode}group default{'' if link.kind is LinkKind.DUMMY else ' qlen 1000'}"
    )


_FLAGS = {
    LinkKind.LOOPBACK: "LOOPBACK",
    LinkKind.DUMMY: "BROADCAST,NOARP",
    LinkKind.IPIP: "NOARP",
    LinkKind.WIREGUARD: "POINTOPOINT,NOARP",
}


def _second_line(link: Link, netns: dict[str, int]) -> str:
    if link.kind is LinkKind.LOOPBACK:
        return f"    link/loopback {link.mac} brd 00:00:00:00:00:00"
    if link.kind is LinkKind.WIREGUARD:
        return "    link/none"
    if link.kind is LinkKind.IPIP:
        return "    link/ipip 0.0.0.0 brd 0.0.0.0"
    abroad = link.kind is LinkKind.VETH and link.peer is not None and link.peer.host in netns
    other = f" link-netnsid {netns[link.peer.host]}" if abroad and link.peer is not None else ""
    return f"    link/ether {link.mac} brd ff:ff:ff:ff:ff:ff{other}"


def _netns_ids(host: Host) -> dict[str, int]:
    """The number by which a machine knows each other network namespace that a cable of its leads to, in order of
    appearance.
    """
    peers = (link.peer.host for link in host.links if link.kind is LinkKind.VETH and link.peer is not None)
    peers = (peer for peer in peers if peer != host.name)
    return {peer: number for number, peer in enumerate(dict.fromkeys(peers))}


def _qdisc(link: Link) -> str:
    if not link.up:
        return "noop"
    return "fq_codel" if link.kind is LinkKind.NIC else "noqueue"


def _state(link: Link) -> str:
    if not link.up:
        return "DOWN"
    return "UNKNOWN" if link.kind in (LinkKind.LOOPBACK, *TUNNELS) else "UP"


def _address(address: Address, link: Link) -> str:
    if address.family == 6:
        return f"inet6 {address} scope {address.scope}"
    broadcast = f" brd {address.prefix.broadcast}" if _has_broadcast(address, link) else ""
    return f"inet {address}{broadcast} scope {address.scope} {link.name}"


def _has_broadcast(address: Address, link: Link) -> bool:
    return address.family == 4 and address.length < 31 and link.kind is not LinkKind.LOOPBACK


def _kind(host: Host, link: Link) -> Iterator[str]:
    """What `ip -d` adds below a device: its kind, and what it is to its bridge."""
    if link.vxlan and link.vxlan.external:
        yield f"{link.kind} external dstport {link.vxlan.port}"
    elif link.vxlan:
        of = link.vxlan
        learning = "" if of.learning else "nolearning "
        yield f"vxlan id {of.vni} local {of.local} dev {of.device} srcport 0 0 dstport {of.port} {learning}ttl auto"
    elif link.kind is LinkKind.IPIP:
        yield "ipip any remote any local any ttl inherit nopmtudisc"
    elif link.kind is LinkKind.VXLAN and link.mesh:
        yield f"vxlan external id 0 srcport 0 0 dstport {link.mesh.port} nolearning ttl auto"
    elif link.kind in (LinkKind.BRIDGE, LinkKind.VETH, LinkKind.DUMMY, LinkKind.WIREGUARD, LinkKind.DATAPATH):
        yield str(link.kind)
    if link.master in _datapaths(host):
        yield "openvswitch_slave"
    elif link.master:
        yield f"bridge_slave state forwarding hairpin {'on' if link.hairpin else 'off'}"


def _datapaths(host: Host) -> set[str]:
    return {link.name for link in host.links if link.kind is LinkKind.DATAPATH}


# ip route, ip rule


def ip_route(host: Host, family: int = 4, table: str = "main") -> str:
    """`ip route show table TABLE`, and `ip -6 route` for family 6. Table `local` is what follows from the addresses."""
    order = _as_in_the_trie if family == 4 else _as_in_the_tree
    found = [(order(route.block()), _route(route, "\n\t")) for route in _stated(host, family, table)]
    if table == "local":
        found += ((order(block), line) for block, line in _local(host, family))
    return _text(line for _, line in sorted(found, key=lambda pair: pair[0]))


def _stated(host: Host, of: int, table: str) -> list[Route]:
    """The routes of one table, the preferred one of the same prefix first."""
    routes = (route for route in host.routes if route.family == of and route.table == table)
    return sorted(routes, key=lambda route: route.metric)


def _as_in_the_trie(block: Prefix) -> tuple[int, int]:
    return block.base, -block.length


def _as_in_the_tree(block: Prefix) -> tuple[int, int]:
    return block.base + block.size, -block.length


def _route(route: Route, between: str = " ") -> str:
    """A route; its next hops, if it has several, stand each after `between`."""
    refused = route.type is not RouteType.UNICAST
    device = route.device or ("lo" if route.family == 6 and refused else "")
    scope = route.scope if route.family == 4 else "global"
    parts = (
        f"{route.type}" if refused else "",
        _destination(route),
        f"via {route.via}" if route.via and not route.hops else "",
        f"dev {device}" if device and not route.hops else "",
        f"proto {route.protocol}" if route.protocol != "boot" else "",
        f"scope {scope}" if scope != "global" else "",
        f"src {route.source}" if route.source else "",
        _metric(route),
        "onlink" if route.onlink else "",
        f"mtu {route.mtu}" if route.mtu else "",
        "pref medium" if route.family == 6 else "",
    )
    return between.join((" ".join(part for part in parts if part), *map(_hop, route.hops)))


def _hop(hop: NextHop) -> str:
    via = f"via {hop.via} " if hop.via else ""
    return f"nexthop {via}dev {hop.device} weight {hop.weight}"


def _destination(route: Route) -> str:
    block = route.block()
    if block.length == 0:
        return "default"
    return block.network if block.length == block.bits else str(block)


def _metric(route: Route) -> str:
    """IPv6 routes always have a metric: where none is stated, the kernel takes 1024, and 256 for its own."""
    if route.family == 4:
        return f"metric {route.metric}" if route.metric else ""
    return f"metric {route.metric or (256 if route.protocol == 'kernel' else 1024)}"


def _local(host: Host, of: int) -> Iterator[tuple[Prefix, str]]:
    """The lines of table `local`, which the kernel keeps by itself: own addresses, broadcast addresses, the loopback
    network. Of a device that is down only its IPv4 addresses stay.
    """
    for link in host.links:
        for address in link.addresses if link.up or of == 4 else ():
            if address.family != of:
                continue
            own, how = Prefix.of(address.ip), f"dev {link.name} proto kernel"
            if of == 6:
                yield own, f"local {address.ip} {how} metric 0 pref medium"
                continue
            yield own, f"local {address.ip} {how} scope host src {address.ip}"
            if link.kind is LinkKind.LOOPBACK and address.length < 32:
                yield address.prefix, f"local {address.prefix} {how} scope host src {address.ip}"
            if address.length < 31 and link.up:
                last = address.prefix.broadcast
                yield Prefix.of(last), f"broadcast {last} {how} scope link src {address.ip}"


def ip_rule(host: Host, family: int = 4) -> str:
    """`ip rule`, and `ip -6 rule` for family 6: which table is looked up for which packets, in order."""
    rules = (rule for rule in host.rules if rule.family == family)
    return _text(_rule(rule) for rule in sorted(rules, key=lambda rule: rule.priority))


def _rule(rule: RoutingRule) -> str:
    mask = "" if rule.mask == 0xFFFFFFFF else f"/{rule.mask:#x}"
    parts = (
        "not" if rule.invert else "",
        f"from {_selector(rule.source) or 'all'}",
        f"to {_selector(rule.to)}" if rule.to else "",
        f"fwmark {rule.mark:#x}{mask}" if rule.mark else "",
        f"iif {rule.iif}" if rule.iif else "",
        f"lookup {rule.table}",
    )
    return f"{rule.priority}:\t" + " ".join(part for part in parts if part)


def _selector(cidr: str) -> str:
    if not cidr:
        return ""
    block = Prefix.of(cidr)
    return block.network if block.length == block.bits else str(block)


# ip neigh, bridge fdb


def ip_neigh(host: Host) -> str:
    """`ip neigh`: the permanent neighbours. Learnt ones come and go with traffic and are not part of the state."""
    entries = sorted(host.neighbours, key=lambda entry: family(entry.ip))
    return _text(_neighbour(entry) for entry in entries)


def _neighbour(entry: Neighbour) -> str:
    return f"{entry.ip} dev {entry.device} lladdr {entry.mac} PERMANENT"


def bridge_fdb(host: Host) -> str:
    """`bridge fdb show`: the entries of tunnel devices and bridges, and each port's own address."""
    lines = [_fdb(entry, host) for entry in host.fdb]
    ports = (link for link in host.links if link.master and link.master not in _datapaths(host))
    lines += (f"{link.mac} dev {link.name} master {link.master} permanent" for link in ports)
    return _text(lines)


def _fdb(entry: FdbEntry, host: Host) -> str:
    if entry.device in host.ports:
        return f"{entry.mac} dev {entry.dst} master {entry.device} static"
    return f"{entry.mac} dev {entry.device} dst {entry.dst} self permanent"


# wg


def wg(host: Host) -> str:
    """`wg show`: every WireGuard device with its peers."""
    devices = ((link, link.wireguard) for link in host.links if link.wireguard is not None)
    return "\n".join(wg_show(link.name, own, _peers_of(host, link)) for link, own in devices)


def wg_conf(host: Host) -> str:
    """`wg showconf` of every WireGuard device, each under a comment with its name."""
    devices = ((link, link.wireguard) for link in host.links if link.wireguard is not None)
    return "\n".join(f"# {link.name}\n{wg_showconf(own, _peers_of(host, link))}" for link, own in devices)


def _peers_of(host: Host, link: Link) -> tuple[WireguardPeer, ...]:
    return tuple(peer for peer in host.wireguard if peer.device == link.name)


# One entry


def entry_line(entry: Entry) -> str:
    """One entry of a machine on one line, in the words of its tool."""
    match entry:
        case Rule():
            return f"-t {entry.table} {entry.text}"
        case nft.Rule():
            return f"{entry.table} {entry.chain} {entry.text}"
        case nft.Held():
            return f"{entry.table} {entry.text}"
        case Route():
            return _route(entry)
        case RoutingRule():
            return _rule(entry).replace("\t", " ")
        case Neighbour():
            return _neighbour(entry)
        case FdbEntry():
            return f"{entry.mac} dev {entry.device}" + (f" dst {entry.dst}" if entry.dst else "")
        case Link():
            return _link(entry)
        case Attachment():
            return entry.text
        case Frontend():
            return Slot(entry).text
        case Known() | Endpoint() | Permit():
            return f"{entry.chain} {entry.text}"
        case Responder():
            return f"{entry.program or 'a program'} answers for {entry.address} on {entry.device}"
        case VirtualServer() | Destination():
            return entry.text
        case XfrmState() | XfrmPolicy():
            return entry.text
        case WireguardPeer():
            return entry.text
        case IpSetEntry():
            return f"add {entry.set} {entry.entry}"
        case _:
            return f"{entry.protocol} {entry.address or '*'}:{entry.port}"


def _tunnel(link: Link) -> str:
    of = link.vxlan
    if of is None:
        return ""
    return f"external port {of.port}" if of.external else f"vni {of.vni} local {of.local} port {of.port}"


def _link(link: Link) -> str:
    parts = (
        f"{link.name} {link.kind} {link.mac} mtu {link.mtu} {'up' if link.up else 'down'}",
        f"master {link.master}{' hairpin' if link.hairpin else ''}" if link.master else "",
        _tunnel(link),
        f"key {link.wireguard.public} port {link.wireguard.port}" if link.wireguard else "",
        _mesh(link.mesh) if link.mesh else "",
        f"to {link.peer.host} {link.peer.link}" if link.peer else "",
    )
    return " ".join(part for part in parts if part)


def _mesh(mesh: Mesh) -> str:
    """How many machines a mesh reaches, and by whose help those that are not reached directly."""
    relayed = ", ".join(f"{peer.host} by {peer.next_host}" for peer in mesh.peers if peer.next_host != peer.host)
    return f"mesh {mesh.wrapping} port {mesh.port} to {len(mesh.peers)} machines{f' ({relayed})' if relayed else ''}"


# conntrack -L


def conntrack_list(conntrack: Conntrack) -> str:
    """`conntrack -L`: every connection, its two tuples, and whether it was answered.

    Time passes for a real table. Here each connection shows the seconds it is kept from its last packet on (the
    kernel's defaults), and a TCP connection that was answered counts as established.
    """
    return _text(_connection(connection) for connection in conntrack)


_NUMBER = {"ICMP": 1, "TCP": 6, "UDP": 17, "ICMPv6": 58, "SCTP": 132, "IPIP": 4, "ESP": 50}
_UNANSWERED = {
    "TCP": "120 SYN_SENT", "SCTP": "3 COOKIE_WAIT", "UDP": "30", "ICMP": "30", "ICMPv6": "30", "IPIP": "600",
    "ESP": "600",
}  # fmt: skip
_ANSWERED = {**_UNANSWERED, "TCP": "432000 ESTABLISHED", "SCTP": "210 ESTABLISHED"}
_ASSURED = ("TCP", "SCTP")
"""Protocols whose answered connections are kept even when the table is full; UDP must talk for two seconds first."""

_PORTLESS = ("IPIP", "ESP")
"""Protocols that conntrack knows the addresses of only."""

_ECHO = {"ICMP": (8, 0), "ICMPv6": (128, 129)}


def _connection(connection: Connection) -> str:
    protocol = connection.original.protocol
    answered = connection.seen_reply
    echo, reply = _ECHO.get(protocol, (0, 0))
    parts = (
        f"{'unknown' if protocol in _PORTLESS else protocol.lower():<8} {_NUMBER[protocol]}",
        (_ANSWERED if answered else _UNANSWERED)[protocol],
        _tuple(connection.original, echo),
        "" if answered else "[UNREPLIED]",
        _tuple(connection.reply, reply),
        "[ASSURED]" if answered and protocol in _ASSURED else "",
        f"mark={connection.mark}",
        "use=1",
    )
    return " ".join(part for part in parts if part)


def _tuple(of: Tuple, icmp_type: int) -> str:
    addresses = f"src={of.src} dst={of.dst}"
    if of.protocol in _ECHO:
        return f"{addresses} type={icmp_type} code=0 id={of.sport or of.dport}"
    return addresses if of.protocol in _PORTLESS else f"{addresses} sport={of.sport} dport={of.dport}"


# iptables-save


_SAVED = ("mangle", "raw", "filter", "nat")


def iptables_save(tables: Tables) -> str:
    """`iptables-save` (or `ip6tables-save`) of these tables in its own order of tables: base chains in the order of
    the hooks, then the others by name.

    Counters are printed as zero, and the lines with dates are left out. This builds every chain.
    """
    held = (tables[name] for name in _SAVED if name in tables)
    return _text(line for table in held for line in _table(table.name, list(table.chains.values())))


def _table(name: str, chains: list[Chain]) -> Iterator[str]:
    base = sorted((chain for chain in chains if chain.policy), key=lambda chain: HOOKS.index(chain.name))
    own = sorted((chain for chain in chains if not chain.policy), key=lambda chain: chain.name)
    yield f"*{name}"
    for chain in (*base, *own):
        yield f":{chain.name} {chain.policy or '-'} [0:0]"
    for chain in (*base, *own):
        yield from (rule.text for rule in chain.rules)
    yield "COMMIT"


# ipset save, ipvsadm


def ipset_save(host: Host) -> str:
    """`ipset save`: the sets in the order they were made, and their entries by address and port."""
    return _text(line for held in host.ipsets for line in held.lines)


def ipvsadm(host: Host, director: Director | None = None) -> str:
    """`ipvsadm -Ln`: every virtual server and its real servers, by address and port, with the connections that a
    director knows of.
    """
    lines = [
        "IP Virtual Server version 1.2.1 (size=4096)",
        "Prot LocalAddress:Port Scheduler Flags",
        "  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn",
    ]
    for virtual in _virtual_servers(host):
        lines.append(str(virtual))
        counts = director.counts(virtual) if director is not None else {}
        for server in _real_servers(virtual):
            active, inactive = counts.get(server, (0, 0))
            lines.append(f"  -> {server!s:<28} {'Masq':<7} {server.weight:<6} {active:<10} {inactive}")
    return _text(lines)


def ipvsadm_connections(director: Director) -> str:
    """`ipvsadm -Lnc`: the connection table, with the time that each is kept from its last packet on (the kernel's
    usual ones), and the templates of persistence, whose client has no port.
    """
    lines = ["IPVS connection entries", "pro expire state       source             virtual            destination"]
    for asked, answer, answered in director.connections:
        expire, state = _KEPT.get((asked.protocol, answered), ("01:00", "NONE"))
        ends = (endpoint(asked.src, asked.sport), endpoint(asked.dst, asked.dport), endpoint(*answer[1:3]))
        lines.append(f"{asked.protocol:<3} {expire}  {state:<11} {ends[0]:<18} {ends[1]:<18} {ends[2]}")
    for held in director.templates:
        minutes, seconds = divmod(held.virtual.persistent, 60)
        ends = (endpoint(held.client, 0), held.virtual.endpoint, str(held.server))
        protocol = held.virtual.protocol or "IP"
        lines.append(f"{protocol:<3} {minutes:02}:{seconds:02}  {'NONE':<11} {ends[0]:<18} {ends[1]:<18} {ends[2]}")
    return _text(lines)


_KEPT = {
    ("TCP", True): ("15:00", "ESTABLISHED"), ("TCP", False): ("01:00", "SYN_RECV"),
    ("UDP", True): ("05:00", "UDP"), ("UDP", False): ("05:00", "UDP"),
    ("SCTP", True): ("15:00", "ESTABLISHED"), ("SCTP", False): ("00:03", "INIT1"),
}  # fmt: skip


def ipvsadm_save(host: Host) -> str:
    """`ipvsadm -Sn`: the commands that would make the same virtual and real servers."""
    lines: list[str] = []
    for virtual in _virtual_servers(host):
        lines.append(virtual.text)
        lines += (Destination(virtual, server).text for server in _real_servers(virtual))
    return _text(lines)


def _virtual_servers(host: Host) -> list[VirtualServer]:
    return sorted(
        host.ipvs,
        key=lambda held: (
            held.mark, held.family, _NUMBER.get(held.protocol, 0), number(held.address or "0.0.0.0"), held.port,
        ),
    )  # fmt: skip


def _real_servers(virtual: VirtualServer) -> list[RealServer]:
    return sorted(virtual.servers, key=lambda server: (number(server.address), server.port))


# nft list ruleset


def nft_list_ruleset(tables: Iterable[nft.Table]) -> str:
    """`nft list ruleset` of these tables, in the order given. This builds every chain and set.

    Counters are printed as zero; what packets put into dynamic sets is not part of the state.
    """
    return _text(line for table in tables for line in _nft_table(table))


def _nft_table(table: nft.Table) -> Iterator[str]:
    yield f"table {table.name} {{"
    if table.comment:
        yield f'\tcomment "{table.comment}"'
    parts = [*map(_nft_set, table.sets.values()), *map(_nft_chain, table.chains.values())]
    for place, lines in enumerate(parts):
        if place:
            yield ""
        yield from (f"\t{line}" for line in lines)
    yield "}"


def _nft_set(held: nft.Set) -> Iterator[str]:
    data = f" : {' . '.join(held.data)}" if held.data else ""
    yield f"{'map' if held.data else 'set'} {held.name} {{"
    yield f"\ttype {' . '.join(held.types)}{data}"
    if held.size:
        yield f"\tsize {held.size}"
    if set(held.flags) - {"timeout"} or (held.flags and not held.timeout):
        yield f"\tflags {','.join(held.flags)}"
    if held.auto_merge:
        yield "\tauto-merge"
    if held.timeout:
        yield f"\ttimeout {nft.duration(held.timeout)}"
    if held.comment:
        yield f'\tcomment "{held.comment}"'
    yield from _nft_elements(held)
    yield "}"


_IN_A_LINE = {"ipv4_addr": 2, "mark": 5, "inet_service": 5, "inet_proto": 5, "ct_state": 2}
"""How many elements of a type nft prints in one line; of others, and of several fields, one."""


def _nft_elements(held: nft.Set) -> Iterator[str]:
    """The elements, a few in a line, those after the first line below each other."""
    many = _IN_A_LINE.get(held.types[0], 1) if len(held.types) == 1 else 1
    texts = [element.written(held.types, held.data) for element in held.ordered]
    lines = [", ".join(texts[at : at + many]) for at in range(0, len(texts), many)]
    for place, line in enumerate(lines):
        start = "\t\t     " if place else "\telements = { "
        yield f"{start}{line}{' }' if place == len(lines) - 1 else ','}"


def _nft_chain(chain: nft.Chain) -> Iterator[str]:
    yield f"chain {chain.name} {{"
    if chain.comment:
        yield f'\tcomment "{chain.comment}"'
    if chain.base is not None:
        yield f"\t{chain.base.text}"
    yield from (f"\t{rule.text}" for rule in chain.rules)
    yield "}"


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
