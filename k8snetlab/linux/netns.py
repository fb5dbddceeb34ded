"""What does one machine do with a packet?

This is the path, in one place, in the order the packet meets it:

    a frame arrives
      ├─ at a bridge port ─► (PREROUTING) ─► for the bridge itself? go on below
      │                                      for another port? (FORWARD) ─► (POSTROUTING) ─► that port
      ▼
    PREROUTING ─► routing decision ─┬─► for us: INPUT ─► a socket, a tunnel's end, or an answer by the kernel
    raw, conntrack, mangle, nat     └─► for others: TTL, MTU ─► FORWARD ─┐
                                                    mangle, filter       ├─► POSTROUTING ─► neighbour ─► device
    a socket sends ─► routing decision ─► OUTPUT ────────────────────────┘   mangle, nat
                                          raw, conntrack, mangle, nat, filter

Base chains of nftables stand between these tables, by their priorities: see `nftables`. On a machine with virtual
servers, IPVS looks at packets in INPUT, OUTPUT and FORWARD too: see `ipvs`. Where eBPF programs are attached to a
device, frames pass them before and after all of this: see `balancing` and `redirecting`.

The table nat is asked for the first packet of a connection only; conntrack translates the rest, and the answers. A
frame that crosses a bridge passes the hooks in brackets while `bridge-nf-call-iptables` is 1. A packet that is lost
leaves a step that says by what; nothing is lost in silence here, even where the real kernel says nothing.

A `Namespace` is a place: its connections, learnt neighbours and affinity lists change as packets pass. Everything else
stands in its `Host`, which does not.

Not modelled: multicast, router advertisements, path-MTU caches, ICMP rate limits, early demultiplexing, conntrack's
view of TCP windows. Guide sections 2.1 and 2.2; RFC 791, 792, 826, 1122, 1812, 4443, 4861, 7348; `br_netfilter`.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from k8snetlab.address import number
from k8snetlab.errors import UnknownName
from k8snetlab.linux import mesh
from k8snetlab.linux import nftables as nft
from k8snetlab.linux.conntrack import Connection, Conntrack, Tuple
from k8snetlab.linux.host import Host, Phase
from k8snetlab.linux.ipset import SetType
from k8snetlab.linux.ipvs import ConnectionEntry, Director
from k8snetlab.linux.link import Link, LinkKind
from k8snetlab.linux.netfilter import (
    DROP,
    Chain,
    Chains,
    Dnat,
    Final,
    Goto,
    Line,
    Masquerade,
    NoTrack,
    Redirect,
    Reject,
    Rule,
    SetMark,
    Snat,
    Target,
)
from k8snetlab.linux.route import NextHop, Route, RouteType
from k8snetlab.linux.skb import Skb
from k8snetlab.linux.socket import Listener
from k8snetlab.linux.wireguard import padding, session
from k8snetlab.packet import (
    ESP,
    ICMP,
    SCTP,
    TCP,
    UDP,
    VXLAN,
    Ethernet,
    Geneve,
    Header,
    IPHeader,
    IPv4,
    IPv6,
    Packet,
    Ports,
    WireGuard,
)
from k8snetlab.trace import Action, Step
from k8snetlab.trace.step import RuleText

if TYPE_CHECKING:
    from k8snetlab.linux.balancing import Balancer
    from k8snetlab.linux.redirecting import Redirector
    from k8snetlab.linux.walk import World
    from k8snetlab.linux.xfrm import Xfrm, XfrmPolicy

__all__ = ["BROADCAST", "PASSING", "Namespace", "Steps", "quoted"]

Steps: TypeAlias = Iterator[Step]
Passed: TypeAlias = Generator[Step, None, bool]
"""Steps, and then whether the packet goes on."""

SOURCE_SIDE = frozenset({"POSTROUTING", "INPUT"})
"""Where NAT rewrites sources; at the other hooks it rewrites destinations."""

DECIDING = (Dnat, Snat, Masquerade, Redirect, Reject)
"""Targets that end a table, beside ACCEPT and DROP."""

PASSING = frozenset({"net-unreachable", "host-unreachable", "no-route", "addr-unreachable", "time-exceeded"})
"""Errors that end a TCP handshake, but are not reported to a UDP socket (`icmp_err_convert`)."""

_NO_LINES: Iterator[Line] = iter(())
TAGGED = 18
"""Bytes that a frame that arrives may have beyond the MTU: an Ethernet header and a VLAN tag (`is_skb_forwardable`)."""

BROADCAST = "ff:ff:ff:ff:ff:ff"
_UDP_VXLAN_SPORT = 49152


class Namespace:
    """One machine at work: its Host, and what it remembers."""

    __slots__ = (
        "balancer",
        "conntrack",
        "cuts",
        "director",
        "fragments",
        "host",
        "learnt",
        "name",
        "paths",
        "ports",
        "recent",
        "redirector",
        "sets",
        "sockets",
        "world",
    )

    def __init__(self, host: Host, world: World) -> None:
        self.host = host
        self.name = host.name
        self.world = world
        self.balancer: Balancer | None = None  # the eBPF programs at work, where there are any
        self.redirector: Redirector | None = None  # those that bring packets to containers
        self.conntrack = Conntrack()
        self.learnt: dict[tuple[str, str], str] = {}  # (device, address) -> MAC
        self.ports: dict[tuple[str, str], str] = {}  # (bridge, MAC) -> port
        self.paths: dict[tuple[str, Tuple], NextHop] = {}  # (prefix, flow) -> the way taken
        self.recent: dict[str, dict[str, float]] = {}
        self.sets: dict[tuple[str, nft.Key], float] = {}  # (dynamic set, key) -> until when
        self.sockets: set[Tuple] = set()  # tuples that open connections expect answers by
        self.director: Director | None = None  # there once IPVS has something to remember
        self.cuts = 0  # packets that were fragmented here: the identification of the last one
        self.fragments: dict[tuple[str, str, str, int], list[Packet]] = {}

    # What matches ask (netfilter.Surroundings)

    def is_local(self, address: str) -> bool:
        return self.host.is_local(address)

    def is_local_on(self, address: str, device: str) -> bool:
        return self.host.owned.get(address) == device

    def leads_back(self, skb: Skb) -> bool:
        route = self.host.find(skb.src, skb.dst, skb.mark)
        return skb.iif == "lo" or (route is not None and route.device == skb.iif)

    def happens(self, probability: float) -> bool:
        return self.world.choose(probability)

    def seen(self, list_name: str, address: str, seconds: int) -> bool:
        since = self.recent.get(list_name, {}).get(address)
        return since is not None and self.world.now - since <= seconds

    def remember(self, list_name: str, address: str) -> None:
        self.recent.setdefault(list_name, {})[address] = self.world.now

    def in_set(self, name: str, skb: Skb, directions: tuple[str, ...]) -> bool:
        held = self.host.sets.get(name)
        if held is None:
            raise UnknownName("set", name, self.host.sets, field=self.name)
        if held.type is SetType.LIST:
            return any(self.in_set(each, skb, directions) for each in held.entries)
        return held.holds(skb, directions)

    # What rules of nftables ask (nft.Surroundings)

    def holds(self, name: str, key: nft.Key) -> bool:
        return self.sets.get((name, key), -math.inf) > self.world.now

    def hold(self, name: str, key: nft.Key, seconds: int) -> None:
        self.sets[name, key] = self.world.now + seconds if seconds else math.inf

    # 1. A frame arrives

    def receive(self, device: str, frame: Packet) -> Steps:
        """Take a frame from the cable at `device`."""
        link = self.host.link(device)
        ethernet = frame.headers[0]
        if not isinstance(ethernet, Ethernet):  # the loopback device passes packets, not frames
            yield from self._ip_receive(Skb(frame, device))
            return
        if not link.up:
            yield Step(self.name, device, Action.DROP, frame, f"{device} is down")
            return
        if frame.length > link.mtu + TAGGED:
            why = f"{frame.length - 14} bytes do not fit the MTU of {device}, {link.mtu}; nobody is told"
            yield Step(self.name, device, Action.DROP, frame, why)
            return
        yield Step(self.name, device, Action.RECEIVE, frame, f"arrives at {device}")
        if self.balancer is not None:
            passed = yield from self.balancer.ingress(link, frame)
            if passed is None:
                return
            frame = passed
        if self.redirector is not None:
            passed = yield from self.redirector.ingress(link, frame)
            if passed is None:
                return
            frame = passed
        if link.master:
            yield from self._bridge_receive(link, frame)
        elif link.mesh is not None:  # a program takes all that comes here
            yield from mesh.sent(self, link, link.mesh, frame)
        elif ethernet.dst in (link.mac, BROADCAST):
            yield from self._ip_receive(Skb(frame.popped(), device))
        else:
            yield Step(self.name, device, Action.DROP, frame, f"the frame is for {ethernet.dst}, not for {link.mac}")

    # 2. The bridge

    def _bridge_receive(self, port: Link, frame: Packet, mark: int = 0) -> Steps:
        bridge = self.host.link(port.master)
        ethernet = frame.headers[0]
        assert isinstance(ethernet, Ethernet)
        if not bridge.up:
            yield Step(self.name, port.name, Action.DROP, frame, f"{bridge.name} is down, and so are its ports")
            return
        self.ports[bridge.name, ethernet.src] = port.name
        if bridge.kind is LinkKind.DATAPATH:
            yield from self._flow(bridge, frame, mark)
            return
        skb = Skb(frame.popped(), bridge.name)
        skb.mark = mark
        target = ethernet.dst
        if self._filters_bridges(skb.version):
            skb.bridged = (port.name, ethernet)
            asked_for = skb.dst
            if not (yield from self._hook("PREROUTING", skb)):
                return
            if skb.dst != asked_for:
                target = yield from self._translated_on(bridge, skb)
            if target == bridge.mac:
                skb.cut = 0  # on its way up from the bridge, the kernel forgets how long the fragments were
                yield from self._route_in(skb)
                return
        elif target == bridge.mac:
            yield from self._ip_receive(skb)
            return
        if target:
            yield from self._bridge_forward(bridge, port, skb, Ethernet(ethernet.src, target))

    def _flow(self, datapath: Link, frame: Packet, mark: int) -> Steps:
        """A switch of Open vSwitch: the flow for the MAC says where the frame goes, and netfilter is not asked."""
        ethernet = frame.headers[0]
        assert isinstance(ethernet, Ethernet)
        name = self._bridge_port(datapath, ethernet.dst)
        if name is None:
            why = f"the router finds no port of {datapath.name} for {ethernet.dst}"
            yield Step(self.name, datapath.name, Action.LOST, frame, why)
            return
        why = f"the flow of {datapath.name} for {ethernet.dst} leads to {name}"
        yield Step(self.name, datapath.name, Action.BRIDGE, frame, why)
        yield from self._transmit(self.host.link(name), frame, mark)

    def _filters_bridges(self, version: int) -> bool:
        name = "iptables" if version == 4 else "ip6tables"
        return self.host.filters[version] and bool(self.host.sysctl(f"net.bridge.bridge-nf-call-{name}"))

    def _translated_on(self, bridge: Link, skb: Skb) -> Generator[Step, None, str]:
        """The MAC address for a frame whose destination a rule changed: somebody on this very bridge, who then gets it
        without being routed, or the bridge itself. Empty if it ends here (`br_nf_pre_routing_finish`).
        """
        route = self._lookup(skb)
        if skb.version == 6 and (route is None or route.type not in (RouteType.UNICAST, RouteType.LOCAL)):
            why = f"{self.name} has no way to {skb.dst}, which a rule made of the destination; the bridge tells nobody"
            yield Step(self.name, bridge.name, Action.DROP, skb.packet, why)  # `br_nf_pre_routing_finish_ipv6`
            return ""
        no_router = skb.version == 4 and self._not_a_router(skb)  # of IPv6 that is asked when it is forwarded only
        if route is None or route.device != bridge.name or no_router:
            return bridge.mac
        mac = yield from self._neighbour(bridge, route.via or skb.dst, skb.src)
        if mac is None:
            yield from self._unanswered(bridge, route.via or skb.dst, skb, skb.packet)
        return mac or ""

    def _bridge_forward(self, bridge: Link, port: Link | None, skb: Skb, ethernet: Ethernet) -> Steps:
        """Choose the port for a frame that came by `port`, or from this machine itself where that is `None`."""
        frame = skb.packet.pushed(ethernet)
        name = self._bridge_port(bridge, ethernet.dst)
        if name is None:
            yield Step(self.name, bridge.name, Action.LOST, frame, f"no port of {bridge.name} leads to {ethernet.dst}")
            return
        if port is not None and name == port.name and not port.hairpin:
            why = f"{name} would be both way in and way out, and its hairpin mode is off"
            yield Step(self.name, bridge.name, Action.DROP, frame, why)
            return
        yield Step(self.name, bridge.name, Action.BRIDGE, frame, f"{ethernet.dst} is behind port {name}")
        if skb.bridged is not None:
            skb.oif, skb.leaves_by = bridge.name, name
            if not (yield from self._hook("FORWARD", skb)):
                return
            if not (yield from self._hook("POSTROUTING", skb)):
                return
            frame = skb.packet.pushed(ethernet)
        out = self.host.link(name)
        # What iptables sees on a bridge is cut for the bridge's MTU, whatever the port takes (`br_nf_dev_queue_xmit`).
        # In IPv6 that makes it eight bytes longer, and so too long for a port that it did not fit before.
        stays_whole = not skb.cut and (skb.ip.df or skb.version == 6)
        untouched = min(out.mtu, skb.cut) if skb.cut else out.mtu if stays_whole else bridge.mtu
        if skb.bridged is None or skb.packet.length <= untouched:
            yield from self._transmit(out, frame, skb.mark)
        elif stays_whole or skb.cut > bridge.mtu:
            why = f"{skb.packet.length} bytes do not fit the MTU of {name}, {out.mtu}, and a bridge tells nobody"
            yield Step(self.name, name, Action.DROP, frame, why)
        else:
            for piece in (yield from self._cut(bridge, skb, bridge.mtu)):
                yield from self._transmit(out, piece.pushed(ethernet), skb.mark)

    def _bridge_port(self, bridge: Link, mac: str) -> str | None:
        """The port a MAC was last seen at; until then that of its static entry, or where a flooded frame is taken."""
        known = self.ports.get((bridge.name, mac))
        if known is not None and known in {link.name for link in self.host.ports[bridge.name] if link.up}:
            return known
        static = self.host.forwarding.get((bridge.name, mac))
        return static[0].dst if static else self.world.flooded(self.host, bridge, mac)

    # 3. PREROUTING and the routing decision

    def _ip_receive(self, skb: Skb) -> Steps:
        if (yield from self._hook("PREROUTING", skb)):
            yield from self._route_in(skb)

    def _route_in(self, skb: Skb) -> Steps:
        route = self._lookup(skb)
        local = route is not None and route.type is RouteType.LOCAL
        refused = self._martian(skb) or ("" if local else self._not_a_router(skb))
        if refused:
            yield Step(self.name, skb.iif, Action.DROP, skb.packet, refused)
            return
        if (yield from self._refused(skb, route)) or route is None:
            return
        refused = self._source_check(skb)
        if refused:
            yield Step(self.name, skb.iif, Action.DROP, skb.packet, refused)
        elif local:
            yield from self._input(skb)
        else:
            skb.oif = route.device
            yield Step(self.name, skb.oif, Action.ROUTE, skb.packet, _routed(skb.dst, route))
            yield from self._forward(skb, route)

    def _lookup(self, skb: Skb, mark: int | None = None) -> Route | None:
        """The route of a packet, by its mark or another one."""
        route = self.host.find(skb.dst, skb.src, skb.mark if mark is None else mark, skb.iif or "lo")
        return self._path(route, skb.tuple) if route is not None and route.hops else route

    def _path(self, route: Route, flow: Tuple) -> Route:
        """The way that a flow takes by a multipath route: the same for all its packets. Addresses make a flow, and
        ports only if the machine says so.
        """
        if not self.host.sysctls.get(f"net.ipv{route.family}.fib_multipath_hash_policy"):
            flow = Tuple("", flow.src, 0, flow.dst, 0)
        taken = self.paths.get((route.prefix, flow))
        if taken is None:
            left = sum(hop.weight for hop in route.hops)
            for taken in route.hops:
                if taken.weight >= left or self.world.choose(taken.weight / left):
                    break
                left -= taken.weight
            assert taken is not None
            self.paths[route.prefix, flow] = taken
        return msgspec.structs.replace(route, device=taken.device, via=taken.via)

    def _martian(self, skb: Skb) -> str:
        """Why no packet with such an address may come by this device, or nothing: loopback addresses stay inside."""
        if skb.iif == "lo":
            return ""
        if skb.version == 6:
            return f"::1 may not come by {skb.iif} (martian)" if "::1" in (skb.src, skb.dst) else ""
        if not (skb.src.startswith("127.") or skb.dst.startswith("127.")) or self._routes_localnet(skb.iif):
            return ""
        return f"a packet from {skb.src} to {skb.dst} may not come by {skb.iif} (martian; route_localnet is 0)"

    def _routes_localnet(self, device: str) -> bool:
        """Whether 127.0.0.0/8 may be on the cable of a device."""
        stated = self.host.sysctl
        return bool(stated("net.ipv4.conf.all.route_localnet") or stated(f"net.ipv4.conf.{device}.route_localnet"))

    def _not_a_router(self, skb: Skb) -> str:
        """Why a packet for somebody else ends here, or nothing."""
        forwarding = "net.ipv4.ip_forward" if skb.version == 4 else "net.ipv6.conf.all.forwarding"
        if self.host.sysctl(forwarding):
            return ""
        return f"{skb.dst} is not an address of {self.name}, and {forwarding} is 0: it does not route for others"

    def _source_check(self, skb: Skb) -> str:
        """Why the kernel would not take a packet with this source here, or nothing."""
        return "" if skb.version == 6 else self.host.refused_source(skb.src, skb.dst, skb.iif)

    def _refused(self, skb: Skb, route: Route | None) -> Passed:
        """Say what happens when there is no way on; true if so."""
        if route is None:
            yield from self._answer_error(skb, "net-unreachable")
            why = f"{self.name} has no route to {skb.dst}"
            yield Step(self.name, skb.iif, Action.UNREACHABLE, skb.packet, why)
            return True
        if route.type in (RouteType.UNICAST, RouteType.LOCAL):
            return False
        if route.type is RouteType.BLACKHOLE:
            why = f"{route.type} {route.prefix}: packets to {skb.dst} end here, and nobody is told"
            yield Step(self.name, skb.iif, Action.LOST, skb.packet, why)
            return True
        yield from self._answer_error(
            skb, "host-unreachable" if route.type is RouteType.UNREACHABLE else "admin-prohibited"
        )
        yield Step(self.name, skb.iif, Action.UNREACHABLE, skb.packet, f"{route.type} {route.prefix} refuses {skb.dst}")
        return True

    # 4. For us: INPUT

    def _input(self, skb: Skb) -> Steps:
        if _is_fragment(skb.ip) and not (yield from self._reassemble(skb, self.name)):
            return
        if not (yield from self._hook("INPUT", skb)):
            return
        if skb.protocol == "IPIP":
            yield from self._out_of_ip(skb)
            return
        entrance = mesh.entrance(self.host, skb)
        if entrance is not None and entrance.mesh is not None:
            yield from mesh.received(self, entrance, entrance.mesh, skb)
            return
        if self.host.xfrm is not None and skb.protocol == "ESP":
            yield from self._unseal(skb, self.host.xfrm)
            return
        ends = self.host.tunnels.get((skb.version, skb.dport), ()) if skb.protocol == "UDP" else ()
        if not ends:
            yield from self._deliver(skb)
        elif ends[0].wireguard is not None:
            yield from self._decrypt(ends[0], skb)
        else:
            yield from self._decapsulate(ends, skb)

    def _out_of_ip(self, skb: Skb) -> Steps:
        """IP in IP: the device takes packets from anybody to any address of the machine."""
        link = next((link for link in self.host.links if link.kind is LinkKind.IPIP and link.up), None)
        if link is None:
            yield from self._answer_error(skb, "port-unreachable")
            why = f"no device of {self.name} takes IP in IP: the kernel answers port unreachable"
            yield Step(self.name, skb.iif, Action.REJECT, skb.packet, why)
            return
        inner = Skb(skb.packet.popped(), link.name)
        inner.mark = skb.mark
        why = f"{link.name} takes the outer header off: 20 bytes less"
        yield Step(self.name, link.name, Action.DECAPSULATE, inner.packet, why)
        self.world.later(self._ip_receive(inner))

    def _decapsulate(self, ends: tuple[Link, ...], skb: Skb) -> Steps:
        """Tunnel devices hold the port, whatever address the packet came to; its network identifier says which."""
        headers = skb.packet.headers
        vni = headers[2].vni if len(headers) > 2 and isinstance(headers[2], VXLAN) else 0
        meant = (end for end in ends if end.vxlan is not None and (end.vxlan.external or end.vxlan.vni == vni))
        link = next(meant, None)
        if link is None:
            why = f"no tunnel of {self.name} on port {skb.dport} has network identifier {vni}"
            yield Step(self.name, skb.iif, Action.DROP, skb.packet, why)
            return
        frame = skb.packet.popped(3)
        ethernet = frame.headers[0]
        assert isinstance(ethernet, Ethernet)
        less = skb.packet.length - frame.length + ethernet.length
        why = f"{link.name} takes the outer headers off: {less} bytes less"
        yield Step(self.name, link.name, Action.DECAPSULATE, frame, why)
        if self.redirector is not None and link.vxlan is not None and link.vxlan.external:
            self.world.later(self._out_of_tunnel(link, frame, vni))
        elif link.master:
            self.world.later(self._bridge_receive(link, frame, skb.mark))
        elif ethernet.dst in (link.mac, BROADCAST):
            inner = Skb(frame.popped(), link.name)
            inner.mark = skb.mark  # a mark goes through a tunnel, though not over a cable
            self.world.later(self._ip_receive(inner))
        else:
            yield Step(self.name, link.name, Action.DROP, frame, f"the frame is for {ethernet.dst}, not for {link.mac}")

    def _decrypt(self, link: Link, skb: Skb) -> Steps:
        """A WireGuard device gets a message: from a peer, and with a source that this peer may send from, or not at
        all.
        """
        headers = skb.packet.headers
        message = headers[2] if len(headers) > 2 else None
        peer = self.host.peers[link.name].sender(message.receiver) if isinstance(message, WireGuard) else None
        if peer is None:
            why = f"{link.name} has no peer with whom it could have agreed on this session; nobody is told"
            yield Step(self.name, link.name, Action.DROP, skb.packet, why)
            return
        packet = skb.packet.popped(3)
        source = packet.ip.src
        if self.host.peers[link.name].behind(source) is not peer:
            why = f"{source} is not among the allowed IPs of the peer that sent it, {', '.join(peer.allowed)}"
            yield Step(self.name, link.name, Action.DROP, packet, f"{why}; nobody is told")
            return
        less = skb.packet.length - packet.length
        why = f"{link.name} decrypts what its peer {peer.name} sent: {less} bytes less"
        yield Step(self.name, link.name, Action.DECAPSULATE, packet, why)
        self.world.later(self._ip_receive(Skb(packet, link.name)))

    def _deliver(self, skb: Skb) -> Steps:
        ports = skb.packet.headers[1]
        if isinstance(ports, ICMP):
            yield from self._icmp_in(skb, ports)
            return
        opening = isinstance(ports, TCP) and ports.flags == "S"
        if skb.tuple in self.sockets and not opening:
            yield Step(self.name, skb.iif, Action.DELIVER, skb.packet, f"an open connection of {self.name} expects it")
            self.world.arrived(self, skb, None)
            return
        if isinstance(ports, TCP) and not opening:
            yield from self._no_connection(skb, ports)
            return
        listener = self._listener(skb)
        if listener is not None:
            program = f"{listener.program} " if listener.program else "a program "
            where = f"{listener.address or '*'}:{listener.port}"
            assumed = " (assumed: no manifest declares the port)" if listener.assumed else ""
            why = f"{program}listens on {where}/{listener.protocol}{assumed}"
            yield Step(self.name, skb.iif, Action.DELIVER, skb.packet, why)
            self.world.arrived(self, skb, listener)
            return
        nobody = f"nobody on {self.name} listens on {skb.dst}:{skb.dport}/{skb.protocol}"
        if isinstance(ports, TCP):
            yield Step(self.name, skb.iif, Action.RESET, skb.packet, f"{nobody}: the kernel answers with a reset")
            self._answer(_reset(skb.ip, ports))
        elif isinstance(ports, SCTP):
            yield Step(self.name, skb.iif, Action.RESET, skb.packet, f"{nobody}: the kernel answers with an ABORT")
            self._answer(_back(skb.ip, SCTP(ports.dport, ports.sport, "ABORT")))
        else:
            yield from self._answer_error(skb, "port-unreachable")
            yield Step(self.name, skb.iif, Action.REJECT, skb.packet, f"{nobody}: the kernel answers port unreachable")

    def _no_connection(self, skb: Skb, ports: TCP) -> Steps:
        """A TCP segment of no connection that is open here."""
        why = f"{self.name} has no connection {skb.src}:{skb.sport} > {skb.dst}:{skb.dport}"
        if "R" in ports.flags:
            yield Step(self.name, skb.iif, Action.LOST, skb.packet, f"{why}; the reset is ignored")
            return
        yield Step(self.name, skb.iif, Action.RESET, skb.packet, f"{why}: the kernel answers with a reset")
        self._answer(_reset(skb.ip, ports))

    def _listener(self, skb: Skb) -> Listener | None:
        best: Listener | None = None
        for listener in self.host.listeners:
            if listener.takes(skb.protocol, skb.dst, skb.dport) and (best is None or listener.address):
                best = listener
        return best

    def _icmp_in(self, skb: Skb, message: ICMP) -> Steps:
        if message.about is None:
            if message.message == "echo-request":
                yield Step(self.name, skb.iif, Action.DELIVER, skb.packet, "the kernel answers echo requests itself")
                self.world.arrived(self, skb, Listener(skb.protocol, message.ident, program="kernel"))
            elif skb.tuple in self.sockets:
                yield Step(self.name, skb.iif, Action.DELIVER, skb.packet, "the echo reply that was waited for")
                self.world.arrived(self, skb, None)
            return
        inner = Skb(message.about)
        if inner.tuple.mirrored() in self.sockets:
            why = f"the program that sent {inner.src} > {inner.dst} is told: {message.message}"
            if inner.protocol == "UDP" and message.message in PASSING:
                why = f"{message.message} may pass: the program that sent {inner.src} > {inner.dst} by UDP is not told"
            yield Step(self.name, skb.iif, Action.DELIVER, skb.packet, why)
            self.world.arrived(self, skb, None)
        else:
            about = f"{inner.src}:{inner.sport} > {inner.dst}:{inner.dport}"
            why = f"{message.message} is about a packet {about} that nobody here sent"
            yield Step(self.name, skb.iif, Action.LOST, skb.packet, why)

    # 5. For others: TTL, MTU, FORWARD

    def _forward(self, skb: Skb, route: Route) -> Steps:
        ip = skb.ip
        if ip.ttl <= 1:
            yield from self._answer_error(skb, "time-exceeded")
            why = "its time to live is used up: probably it goes round in circles"
            yield Step(self.name, skb.iif, Action.UNREACHABLE, skb.packet, why)
            return
        link = self.host.link(route.device)
        mtu = route.mtu or link.mtu
        largest = skb.cut or (0 if skb.joined else skb.packet.length)
        if largest > mtu and (ip.df or ip.version == 6):
            yield from self._answer_error(skb, "fragmentation-needed", mtu)
            not_cut = "it may not be cut (DF)" if ip.version == 4 else "routers do not cut IPv6"
            why = f"{largest} bytes do not fit the MTU of {link.name}, {mtu}, and {not_cut}"
            yield Step(self.name, link.name, Action.DROP, skb.packet, why)
            return
        skb.put(Packet((_with_ttl(ip, ip.ttl - 1), *skb.packet.headers[1:]), skb.packet.payload))
        if not (yield from self._hook("FORWARD", skb)):
            return
        yield from self._leave(skb, route)

    # 6. A socket sends: OUTPUT

    def source_for(self, dst: str) -> str:
        """The address a socket gets that connects to `dst`; empty where there is no route."""
        if self.host.is_local(dst):
            return "127.0.0.1" if dst.startswith("127.") else dst
        route = self.host.find(dst)
        if route is None or route.type is not RouteType.UNICAST:
            return ""
        return route.source or self._select(route.device, route.via or dst)

    def _select(self, device: str, towards: str) -> str:
        """The address of a device to use as source: one whose network holds the next hop, else its first, else
        another device's (`inet_select_addr`). The loopback's own is for nobody else; in IPv6 an address is its own
        best source (RFC 6724, section 5, rule 1), and of other devices the one that is most like the destination.
        """
        family = 6 if ":" in towards else 4
        if family == 6 and towards in self.host.owned:
            return towards
        link = self.host.link(device)
        own = [address for address in link.addresses if address.family == family and address.scope != "host"]
        for address in own:
            if address.prefix.contains(towards):
                return address.ip
        if own:
            return own[0].ip
        others = (a for other in self.host.links if other.up or family == 4 for a in other.addresses)
        held = [a.ip for a in others if a.family == family and a.scope == "global"]
        if family == 6 and held:  # the longest common prefix (rule 8); of the same length, the first
            return min(held, key=lambda ip: (number(ip) ^ number(towards)).bit_length())
        return held[0] if held else ""

    def output(self, packet: Packet, why: str) -> Steps:
        """A packet from a socket, or from the kernel itself, sets out."""
        return self._output(Skb(packet), why)

    def _output(self, skb: Skb, why: str) -> Steps:
        yield Step(self.name, "", Action.SEND, skb.packet, why)
        route = self._lookup(skb)
        refused = self._no_way_out(skb, route)
        if refused or route is None:
            yield Step(self.name, "", Action.UNREACHABLE, skb.packet, f"{refused}: it does not leave {self.name}")
            return
        skb.oif = route.device
        too_long = self._too_long(skb, route)
        if too_long:  # said by the socket, before any rule is asked
            yield Step(self.name, route.device, Action.DROP, skb.packet, too_long)
            return
        if self.host.filters[skb.version]:
            asked_for = skb.dst
            mark = skb.routed = skb.mark
            if not (yield from self._hook("OUTPUT", skb)):
                return
            if skb.dst != asked_for or skb.routed != mark:
                route = self._lookup(skb, skb.routed)
                refused = self._no_way_out(skb, route)
                if refused or route is None:
                    yield self._astray(skb, refused)
                    return
                skb.oif = route.device
        yield Step(self.name, skb.oif, Action.ROUTE, skb.packet, _routed(skb.dst, route))
        yield from self._leave(skb, route)

    def _astray(self, skb: Skb, why: str) -> Step:
        """What the rules made of a packet has no way out. A program that sends by UDP, or a ping, is told so by its
        call; TCP and SCTP take it for lost, and try again.
        """
        if skb.protocol in ("TCP", "SCTP"):
            said = f"{why}; what the rules made of the packet is lost without a word"
            return Step(self.name, "", Action.DROP, skb.packet, said)
        said = f"{why}, where the rules would have it: it does not leave {self.name}"
        return Step(self.name, "", Action.UNREACHABLE, skb.packet, said)

    def _no_way_out(self, skb: Skb, route: Route | None) -> str:
        """Why what the machine itself sends cannot go by this route, or nothing."""
        if route is None:
            return f"there is no route to {skb.dst}"
        if route.type is RouteType.LOCAL:
            return ""
        if route.type is not RouteType.UNICAST:
            return f"{route.type} {route.prefix}"
        if skb.src.startswith("127.") and route.device != "lo" and not self._routes_localnet(route.device):
            return f"nothing from {skb.src} may leave by {route.device} (martian; route_localnet is 0)"
        return ""

    def _too_long(self, skb: Skb, route: Route) -> str:
        """Why a packet that may not be cut does not leave by this route, or nothing."""
        if not skb.ip.df or route.type is RouteType.LOCAL:
            return ""
        mtu = route.mtu or self.host.link(route.device).mtu
        if skb.packet.length <= mtu:
            return ""
        return f"{skb.packet.length} bytes do not fit the MTU of {route.device}, {mtu} (message too long)"

    # 7. POSTROUTING, neighbour, device

    def _leave(self, skb: Skb, route: Route) -> Steps:
        if not (yield from self._hook("POSTROUTING", skb)):
            return
        if route.type is RouteType.LOCAL:
            if not self.host.loops:
                yield Step(self.name, "lo", Action.DROP, skb.packet, "lo is down: even own addresses are out of reach")
                return
            skb.iif, skb.oif = "lo", ""
            yield from self._ip_receive(skb)
            return
        link = self.host.link(route.device)
        if self.host.xfrm is not None and (yield from self.transformed(link, skb)):
            return
        mtu = route.mtu or link.mtu
        if skb.packet.length <= mtu and not skb.cut:
            yield from self._to_neighbour(link, route, skb, skb.packet)
            return
        too_long = self._too_long(skb, route)
        if too_long:
            yield Step(self.name, link.name, Action.DROP, skb.packet, too_long)
            return
        for piece in (yield from self._cut(link, skb, mtu)):
            yield from self._to_neighbour(link, route, skb, piece)

    def _cut(self, link: Link, skb: Skb, mtu: int) -> Generator[Step, None, tuple[Packet, ...]]:
        """Fragments that fit a device; of a packet that conntrack put together, such as it was before: the kernel keeps
        them in a list (`ip_do_fragment`). Those have no room in front for the headers of a tunnel, and are made anew.
        """
        if not _is_fragment(skb.ip):
            self.cuts += 1
        kept = mtu if link.vxlan is not None or link.kind is LinkKind.IPIP else skb.joined or mtu
        pieces = fragments(skb.packet, min(mtu, skb.cut or mtu, kept), self.cuts)
        why = f"{skb.packet.length} bytes do not fit the MTU of {link.name}, {mtu}: cut into {len(pieces)} fragments"
        if skb.packet.length <= mtu:
            why = f"conntrack put it together, so it is cut into {len(pieces)} fragments as before"
        yield Step(self.name, link.name, Action.FRAGMENT, skb.packet, why)
        return pieces

    def _to_neighbour(self, link: Link, route: Route, skb: Skb, packet: Packet) -> Steps:
        if not link.up:
            yield Step(self.name, link.name, Action.DROP, packet, f"{link.name} is down")
            return
        if link.wireguard is not None:
            yield from self._encrypt(link, mtu=route.mtu or link.mtu, skb=skb, packet=packet)
            return
        hop = route.via or skb.dst
        if link.kind is LinkKind.IPIP:
            yield from self._into_ip(link, hop, packet, skb.mark)
            return
        mac = yield from self._neighbour(link, hop, skb.src)
        if mac is None:
            yield from self._unanswered(link, hop, skb, packet)
            return
        ethernet = Ethernet(link.mac, mac)
        if link.kind is LinkKind.BRIDGE:
            own = Skb(packet)
            own.mark = skb.mark
            yield from self._bridge_forward(link, None, own, ethernet)
        else:
            yield from self._transmit(link, packet.pushed(ethernet), skb.mark)

    def _unanswered(self, link: Link, hop: str, skb: Skb, packet: Packet) -> Steps:
        """Nobody answered for the next hop. The sender is told by ICMP even if it is a program here."""
        why = f"nobody on {link.name} answers for {hop}"
        if link.master:
            why = f"{link.name} is a port of {link.master}, which takes whatever answers for {hop}"
        yield Step(self.name, link.name, Action.UNREACHABLE, packet, why)
        if not packet.ip.offset:
            yield from self._answer_error(skb, "host-unreachable")

    def _neighbour(self, link: Link, address: str, source: str) -> Generator[Step, None, str | None]:
        """The MAC address of a neighbour: known for good, learnt before, or asked for now. A device that asks nobody
        writes its own.
        """
        if not link.arp:
            return link.mac
        mac = self.host.permanent.get((link.name, address)) or self.learnt.get((link.name, address))
        if mac is not None:
            return mac
        sender = source if self.host.is_local(source) else self._select(link.name, address)
        answer = self.world.asked(self.host, link, address, sender)
        if answer is None:
            return None
        self.learnt[link.name, address] = answer.sender_mac
        yield Step(
            self.name, link.name, Action.ARP, Packet((Ethernet(answer.sender_mac, link.mac), answer)), str(answer)
        )
        return answer.sender_mac

    def _transmit(self, link: Link, frame: Packet, mark: int = 0) -> Steps:
        """Put a frame on the cable, or into the tunnel."""
        peer = link.peer
        if self.redirector is not None:
            passed = yield from self.redirector.egress(link, frame, mark)
            if passed is None:
                return
            frame = passed
        if not link.up:
            yield Step(self.name, link.name, Action.DROP, frame, f"{link.name} is down")
        elif frame.length > link.mtu + TAGGED:
            why = f"{frame.length - 14} bytes do not fit the MTU of {link.name}, {link.mtu}; nobody is told"
            yield Step(self.name, link.name, Action.DROP, frame, why)
        elif link.mesh is not None and link.kind is LinkKind.VXLAN:
            yield from mesh.sent(self, link, link.mesh, frame, mark)
        elif link.vxlan is not None:
            yield from self._encapsulate(link, frame, mark)
        elif peer is None or peer.host not in self.world.network:
            yield Step(
                self.name, link.name, Action.LOST, frame, f"nothing is plugged in at the other end of {link.name}"
            )
        else:
            if self.balancer is not None:
                frame = yield from self.balancer.egress(link, frame)
            yield Step(self.name, link.name, Action.TRANSMIT, frame, f"to {peer.host} {peer.link}")
            self.world.later(self.world.at(peer.host).receive(peer.link, frame))

    # 8. Past all of this: what a program at a device sends on by itself

    def redirected(self, skb: Skb) -> Steps:
        """Send a packet on as the routing tables say, past netfilter (`bpf_fib_lookup`, `bpf_redirect_neigh`)."""
        route = self._lookup(skb)
        if route is None or route.type is not RouteType.UNICAST:
            why = f"the program finds no route to {skb.dst}, and drops it (FIB lookup failed)"
            yield Step(self.name, skb.iif, Action.DROP, skb.packet, why)
            return
        if skb.ip.ttl <= 1:
            yield from self._answer_error(skb, "time-exceeded")
            yield Step(self.name, skb.iif, Action.UNREACHABLE, skb.packet, "its time to live is used up")
            return
        skb.oif = route.device
        skb.put(Packet((_with_ttl(skb.ip, skb.ip.ttl - 1), *skb.packet.headers[1:]), skb.packet.payload))
        why = f"{_routed(skb.dst, route)}: the program sends it on, past netfilter"
        yield Step(self.name, skb.oif, Action.ROUTE, skb.packet, why)
        yield from self._to_neighbour(self.host.link(route.device), route, skb, skb.packet)

    def transmitted(self, link: Link, frame: Packet) -> Steps:
        """Put a frame on the cable as it is (`bpf_redirect`, or a program with a raw socket)."""
        return self._transmit(link, frame)

    def one_hop(self, skb: Skb) -> Passed:
        """One hop less to live; whether the packet lives on."""
        if skb.ip.ttl <= 1:
            yield from self._answer_error(skb, "time-exceeded")
            yield Step(self.name, skb.iif, Action.UNREACHABLE, skb.packet, "its time to live is used up")
            return False
        skb.put(Packet((_with_ttl(skb.ip, skb.ip.ttl - 1), *skb.packet.headers[1:]), skb.packet.payload))
        return True

    def taken_up(self, skb: Skb) -> Steps:
        """A packet goes up the stack, as if no program had seen it."""
        return self._ip_receive(skb)

    def into_tunnel(self, link: Link, frame: Packet, remote: str, vni: int, mark: int) -> Steps:
        """Wrap a frame at an external tunnel device, as the program says (`bpf_skb_set_tunnel_key`)."""
        if not link.up:
            yield Step(self.name, link.name, Action.DROP, frame, f"{link.name} is down")
        elif frame.length > link.mtu + TAGGED:
            why = f"{frame.length - 14} bytes do not fit the MTU of {link.name}, {link.mtu}; nobody is told"
            yield Step(self.name, link.name, Action.DROP, frame, why)
        else:
            yield from self._wrap(link, frame, self.source_for(remote), remote, vni, mark)

    def encrypted(self, link: Link, skb: Skb, mark: int) -> Steps:
        """A packet goes to a WireGuard device, past all routes (`bpf_redirect`); what comes of it has a mark."""
        if not link.up:
            yield Step(self.name, link.name, Action.DROP, skb.packet, f"{link.name} is down")
            return
        yield from self._encrypt(link, mtu=link.mtu, skb=skb, packet=skb.packet, mark=mark)

    def _out_of_tunnel(self, link: Link, frame: Packet, vni: int) -> Steps:
        """A frame that an external tunnel device took out of its wrapping: programs see it first."""
        if self.balancer is not None:
            passed = yield from self.balancer.ingress(link, frame)
            if passed is None:
                return
            frame = passed
        if self.redirector is not None and (yield from self.redirector.overlay(link, frame, vni)):
            return
        ethernet = frame.headers[0]
        assert isinstance(ethernet, Ethernet)
        if ethernet.dst in (link.mac, BROADCAST):
            yield from self._ip_receive(Skb(frame.popped(), link.name))
        else:
            yield Step(self.name, link.name, Action.DROP, frame, f"the frame is for {ethernet.dst}, not for {link.mac}")

    def switched(self, port: Link, frame: Packet, mark: int) -> Steps:
        """A frame comes out of a tunnel that is a port of a bridge."""
        return self._bridge_receive(port, frame, mark)

    def outer_port(self, frame: Packet) -> int:
        """The source port of a tunnel's UDP: the same for all packets of a flow."""
        return _UDP_VXLAN_SPORT + hash_ports(frame) % 16384

    def pieces(self, packet: Packet, mtu: int) -> tuple[Packet, ...]:
        """A packet in fragments that a program on this machine made."""
        self.cuts += 1
        return fragments(packet, mtu, self.cuts)

    def wrapped(self, skb: Skb, why: str) -> Steps:
        """The outer packet of a tunnel sets out."""
        return self._output(skb, why)

    def _encapsulate(self, link: Link, frame: Packet, mark: int) -> Steps:
        vxlan = link.vxlan
        ethernet = frame.headers[0]
        assert vxlan is not None and isinstance(ethernet, Ethernet)
        if vxlan.external:
            why = f"no program tells {link.name} which machine to send to"
            yield Step(self.name, link.name, Action.LOST, frame, why)
            return
        entries = self.host.forwarding.get((link.name, ethernet.dst))
        if not entries:
            why = f"{link.name} has no FDB entry for {ethernet.dst}: it does not know which machine to send to"
            yield Step(self.name, link.name, Action.LOST, frame, why)
            return
        yield from self._wrap(link, frame, vxlan.local, entries[0].dst, vxlan.vni, mark)

    def _wrap(self, link: Link, frame: Packet, local: str, remote: str, vni: int, mark: int) -> Steps:
        """Put the outer headers on, and send what comes of it."""
        ethernet = frame.headers[0]
        assert link.vxlan is not None and isinstance(ethernet, Ethernet)
        ip = IPv4(local, remote, "UDP", df=False) if ":" not in remote else IPv6(local, remote, "UDP")
        header = Geneve(vni) if link.kind is LinkKind.GENEVE else VXLAN(vni)
        outer = frame.pushed(ip, UDP(self.outer_port(frame), link.vxlan.port), header)
        skb = Skb(outer)
        skb.mark = mark  # the outer packet inherits it: rules may meet the same mark twice
        route = self._lookup(skb)
        if route is not None and route.device == link.name:
            why = f"the route to {remote} leads into {link.name} itself: a circle, and nobody is told"
            yield Step(self.name, link.name, Action.LOST, frame, why)
            return
        more = outer.length - frame.length + 14
        what = f"identifier {vni}, to" if link.vxlan.external else f"{ethernet.dst} is on"
        why = f"{what} {remote}: {more} bytes more"
        yield Step(self.name, link.name, Action.ENCAPSULATE, outer, why)
        self.world.later(self._output(skb, f"{link.name} sends the frame to {remote} in UDP"))

    def _encrypt(self, link: Link, mtu: int, skb: Skb, packet: Packet, mark: int = 0) -> Steps:
        """A packet leaves by a WireGuard device: encrypted for the peer that its destination is behind. Marks do not
        go along, unlike through VXLAN: the outer packet has the device's own, if it has one.
        """
        own, dst = link.wireguard, packet.ip.dst
        peer = self.host.peers[link.name].behind(dst)
        if own is None or peer is None:
            why = f"{link.name} has no peer that {dst} is behind (required key not available)"
            yield Step(self.name, link.name, Action.UNREACHABLE, packet, why)
            if not packet.ip.offset:
                yield from self._answer_error(skb, "host-unreachable")
            return
        route = self.host.find(peer.endpoint)
        source = self.source_for(peer.endpoint)
        if route is None or not source or route.device == link.name:
            what = "leads into the device itself: a circle" if route is not None and source else "is missing"
            why = f"the route to the peer at {peer.place} {what}, and nobody is told"
            yield Step(self.name, link.name, Action.LOST, packet, why)
            return
        message = WireGuard(session(own.public, peer.public), padding(packet.length, mtu))
        six = ":" in peer.endpoint
        ip = IPv6(source, peer.endpoint, "UDP", df=False) if six else IPv4(source, peer.endpoint, "UDP", df=False)
        outer = packet.pushed(ip, UDP(own.port, peer.port), message)
        more = outer.length - packet.length
        why = f"{dst} is behind peer {peer.name} at {peer.place}: encrypted for it, {more} bytes more"
        yield Step(self.name, link.name, Action.ENCAPSULATE, outer, why)
        sent = Skb(outer)
        sent.mark = mark
        self.world.later(self._output(sent, f"{link.name} sends it to {peer.endpoint} in UDP"))

    def transformed(self, link: Link, skb: Skb) -> Passed:
        """Whether a policy of xfrm takes what would leave by a device: it is then wrapped, or lost. What was wrapped is
        not asked about again.
        """
        xfrm = self.host.xfrm
        policy = xfrm.policy(skb.src, skb.dst, skb.mark) if xfrm is not None and skb.protocol != "ESP" else None
        if xfrm is None or policy is None:
            return False
        yield from self._seal(link, skb, policy, xfrm)
        return True

    def _seal(self, link: Link, skb: Skb, policy: XfrmPolicy, xfrm: Xfrm) -> Steps:
        """A packet that a policy of xfrm selects: into another one, as the state for it says."""
        state = xfrm.outwards(policy, skb.mark) if policy.outer_dst else None
        if state is None:
            why = "no state wraps what this policy selects (XfrmOutNoStates)"
            if not policy.outer_dst:
                why = "it may leave only encrypted, and no other policy says how (XfrmOutPolBlock)"
            yield Step(self.name, link.name, Action.DROP, skb.packet, f"{why}: nobody is told", policy)
            return
        six = ":" in state.dst
        ip = IPv6(state.src, state.dst, "ESP") if six else IPv4(state.src, state.dst, "ESP", df=skb.ip.df)
        pad = -(skb.packet.length + 2) % 4
        outer = skb.packet.pushed(ip, ESP(state.spi, pad))
        more = outer.length - skb.packet.length
        why = f"encrypted for {state.dst}, SPI {state.spi:#010x}: {more} bytes more"
        yield Step(self.name, link.name, Action.ENCAPSULATE, outer, why, state)
        sent = Skb(outer)
        sent.mark = state.marked(skb.mark)
        self.world.later(self._output(sent, f"{self.name} sends it to {state.dst} in ESP"))

    def _unseal(self, skb: Skb, xfrm: Xfrm) -> Steps:
        """What came in ESP: as the state of its SPI says, else nobody can read it."""
        header = skb.packet.headers[1]
        spi = header.spi if isinstance(header, ESP) else 0
        state = xfrm.inwards(skb.dst, spi, skb.mark)
        if state is None:
            why = f"no state of {self.name} has SPI {spi:#010x} and mark {skb.mark:#x} (XfrmInNoStates): nobody is told"
            yield Step(self.name, skb.iif, Action.DROP, skb.packet, why)
            return
        inner = Skb(skb.packet.popped(2), skb.iif)
        inner.mark = state.marked(skb.mark)
        less = skb.packet.length - inner.packet.length
        why = f"decrypted, it comes from {state.src}: {less} bytes less"
        yield Step(self.name, skb.iif, Action.DECAPSULATE, inner.packet, why, state)
        again = self._ip_receive(inner) if self.redirector is None else self.redirector.unsealed(inner)
        self.world.later(again)

    def _into_ip(self, link: Link, remote: str, packet: Packet, mark: int) -> Steps:
        """IP in IP: the gateway is the machine to send to. Time to live and DF are those of the inner packet."""
        inner = packet.ip
        route = self.host.find(remote)
        source = self.source_for(remote)
        if isinstance(inner, IPv6) or not source or (route is not None and route.device == link.name):
            why = f"{link.name} finds no way to {remote} beyond itself, or the packet is not IPv4: nobody is told"
            yield Step(self.name, link.name, Action.LOST, packet, why)
            return
        outer = packet.pushed(IPv4(source, remote, "IPIP", inner.ttl, inner.df))
        yield Step(self.name, link.name, Action.ENCAPSULATE, outer, f"to the machine {remote}: 20 bytes more")
        skb = Skb(outer)
        skb.mark = mark
        self.world.later(self._output(skb, f"{link.name} sends the packet to {remote} in another one"))

    # Netfilter and conntrack

    def _hook(self, hook: str, skb: Skb) -> Passed:
        """Everything that happens at one hook, in the order of `ORDER`; whether the packet goes on."""
        for phase, chain in self.host.phases[hook, skb.version]:
            if phase == "conntrack":
                self._track(skb)
            elif phase == "confirm":
                self._confirm(skb)
            elif phase == "nat":
                if skb.connection is not None and not (yield from self._nat(hook, chain, skb, skb.connection)):
                    return False
            elif phase == "defrag":
                if _is_fragment(skb.ip) and not (yield from self._reassemble(skb, "conntrack")):
                    return False
            elif isinstance(chain, Chain):
                rule, steps = self._traverse(phase, chain, skb)
                yield from steps
                if rule is None:
                    if chain.policy == "DROP":
                        why = f"no rule of {phase} {hook} matched, and its policy is DROP"
                        yield Step(self.name, skb.iif or skb.oif, Action.DROP, skb.packet, why)
                        return False
                elif rule.target == DROP or isinstance(rule.target, Reject):
                    yield from self._lost_to(rule, rule.target, rule.says, skb)
                    return False
            elif isinstance(chain, nft.Entrance):
                ran = yield from self._run(chain, skb)
                if ran.end is not None and not (yield from self._survives(ran, skb)):
                    return False
                if chain.base.type == "route":
                    skb.routed = skb.mark
            elif phase == "ipvs answer":
                yield from self._answered(skb)
            elif phase == "ipvs request" and skb.virtual is None and not (yield from self._scheduled(skb)):
                return False
        return True

    def _run(self, entrance: nft.Entrance, skb: Skb) -> Generator[Step, None, nft.Ran]:
        """A base chain of nftables: a step for each rule that matched and passed the packet on; how it ended."""
        ran = nft.traverse(entrance, skb, self)
        device = skb.oif or skb.iif
        for rule, words in ran.passed:
            yield Step(self.name, device, Action.RULE, skb.packet, words, rule)
        if ran.rule is None and entrance.base.policy == "drop":
            why = f"no rule of {entrance.chain.name} decided, and its policy is drop"
            return nft.Ran([], None, nft.DROP, why)
        if ran.rule is not None and ran.end == nft.ACCEPT:
            yield Step(self.name, device, Action.RULE, skb.packet, ran.words, ran.rule)
        return ran

    def _survives(self, ran: nft.Ran, skb: Skb) -> Passed:
        """Whether the packet goes on after a base chain of nftables."""
        if ran.end == nft.DROP or isinstance(ran.end, Reject):
            yield from self._lost_to(ran.rule, ran.end, ran.words, skb)
            return False
        return True

    def _reassemble(self, skb: Skb, who: str) -> Passed:
        """Put a fragment to the others; whether the packet is whole now, and goes on."""
        key = (skb.src, skb.dst, skb.protocol, skb.ip.id)
        held = self.fragments.setdefault(key, [])
        held.append(skb.packet)
        whole = reassembled(held)
        if whole is None:
            why = f"{who} keeps it until the other fragments are here"
            yield Step(self.name, skb.iif, Action.REASSEMBLE, skb.packet, why)
            return False
        del self.fragments[key]
        skb.cut = skb.joined = max(piece.length for piece in held)
        skb.put(whole)
        yield Step(self.name, skb.iif, Action.REASSEMBLE, whole, f"{who} has all fragments")
        return True

    def _track(self, skb: Skb) -> None:
        """Find the packet's connection, or begin one."""
        if skb.connection is not None:  # seen already: it came back by the loopback device, or answers such a packet
            return
        if not skb.tracked or not self.host.tracks[skb.version]:
            skb.state = "UNTRACKED"
            return
        header = skb.packet.headers[1]
        if isinstance(header, ICMP) and header.about is not None:
            key = Skb(header.about).tuple.mirrored()
            found = self.conntrack.find(key)
            if found is not None and skb.dst == key.dst:
                skb.connection, skb.state, skb.reply = found, "RELATED", key != found.original
            else:
                skb.state = "INVALID"
            return
        key = skb.tuple
        found = self.conntrack.find(key)
        if found is None:
            if not _may_begin(header):
                skb.state = "INVALID"
                return
            began = isinstance(header, TCP) and header.flags == "S"
            skb.connection = Connection(key, began=began, now=self.world.now)
            skb.state = "NEW"
            return
        if key == found.original and found.began and not found.seen_reply and _goes_on(header):
            skb.state = "INVALID"
            return
        skb.connection = found
        found.last = self.world.now
        skb.reply = key != found.original
        if skb.reply:
            found.seen_reply = True
        skb.state = "ESTABLISHED" if found.seen_reply else "NEW"

    def _confirm(self, skb: Skb) -> None:
        connection = skb.connection
        if connection is not None and not connection.confirmed and not skb.reply:
            self.conntrack.confirm(connection)

    def _nat(self, hook: str, chain: Phase, skb: Skb, connection: Connection) -> Passed:
        """Table nat, and chains of that type, for a new connection; then the translation that the connection has.
        Whether the packet goes on.
        """
        source_side = hook in SOURCE_SIDE
        decided = connection.confirmed or (connection.source_nat if source_side else connection.destination_nat)
        rule: RuleText | None = None
        target: Target | None = None
        why = ""
        if not decided and not skb.reply:
            for asked in chain if isinstance(chain, tuple) else (chain,):
                if isinstance(asked, Chain):
                    own, steps = self._traverse("nat", asked, skb)
                    yield from steps
                    if own is not None and isinstance(own.target, DECIDING):
                        rule, target, why = own, own.target, own.says
                        break
                elif asked is not None:
                    ran = yield from self._run(asked, skb)
                    if ran.end is not None and not (yield from self._survives(ran, skb)):
                        return False
                    if isinstance(ran.end, DECIDING):
                        rule, target, why = ran.rule, ran.end, ran.words
                        break
            self._bind(hook, target, skb, connection)
        changed = connection.translated and self._translate(hook, skb, connection)
        if changed:
            skb.routed = skb.mark
        if rule is not None:
            action = Action.SNAT if source_side else Action.DNAT
            if not changed:
                action, why = Action.RULE, f"{why}, as it is already"
            yield Step(self.name, skb.oif or skb.iif, action, skb.packet, why, rule)
            return True
        if not changed:
            return True
        why = "a known connection: conntrack translates it as its first packet was"
        if not decided and not skb.reply:
            why = "another connection has this source port already: conntrack takes a free one"
        elif skb.state == "RELATED":
            why = "the error is about a known connection: it is translated like that connection"
        elif skb.reply:
            why += ", backwards"
        yield Step(self.name, skb.oif or skb.iif, Action.CONNTRACK, skb.packet, why)
        return True

    def _bind(self, hook: str, target: Target | None, skb: Skb, connection: Connection) -> None:
        """Decide one side of a new connection's translation; no two connections may have the same answers."""
        if target is not None:
            connection.reply = self._bound(hook, target, skb, connection.reply)
        if hook in SOURCE_SIDE:
            connection.reply = self.conntrack.free(connection.reply)
            connection.source_nat = True
        else:
            connection.destination_nat = True
        connection.translated = connection.reply != connection.original.mirrored()

    def _bound(self, hook: str, target: Target, skb: Skb, reply: Tuple) -> Tuple:
        """The reply tuple of a connection as the target of its deciding rule wants it."""
        if isinstance(target, Dnat):
            return reply._replace(src=target.address, sport=target.port or reply.sport)
        if isinstance(target, Redirect):
            return reply._replace(src=self._own_address(hook, skb), sport=target.port)
        if isinstance(target, Snat | Masquerade):
            address = target.address if isinstance(target, Snat) else self._masquerade_source(skb)
            wanted = reply._replace(dst=address)
            if target.random_fully and skb.protocol in ("TCP", "UDP", "SCTP"):
                wanted = wanted._replace(dport=self.world.random.randrange(1024, 65536))
            return wanted
        return reply

    def _own_address(self, hook: str, skb: Skb) -> str:
        """Where REDIRECT leads: the first address of the device that the packet came by, or the loopback address."""
        if hook == "OUTPUT":
            return "127.0.0.1" if skb.version == 4 else "::1"
        own = (address.ip for address in self.host.link(skb.iif).addresses if address.family == skb.version)
        return next(own, skb.dst)

    def _masquerade_source(self, skb: Skb) -> str:
        route = self._lookup(skb)
        hop = route.via if route is not None and route.device == skb.oif and route.via else skb.dst
        return self._select(skb.oif, hop)

    def _translate(self, hook: str, skb: Skb, connection: Connection) -> bool:
        """Rewrite the packet as its connection says; true if that changed it."""
        wanted = connection.original.mirrored() if skb.reply else connection.reply.mirrored()
        header = skb.packet.headers[1]
        if connection.scheduled and (hook in SOURCE_SIDE) is skb.reply:
            return False  # IPVS does this side
        if isinstance(header, ICMP) and header.about is not None:
            return self._translate_error(hook, skb, header, wanted)
        ip = skb.ip
        if hook in SOURCE_SIDE:
            if (wanted.src, wanted.sport) == (skb.src, skb.sport):
                return False
            packet = rewritten(skb.packet, ip, src=wanted.src, sport=wanted.sport)
        else:
            if (wanted.dst, wanted.dport) == (skb.dst, skb.dport):
                return False
            packet = rewritten(skb.packet, ip, dst=wanted.dst, dport=wanted.dport)
        skb.put(packet)
        return True

    def _translate_error(self, hook: str, skb: Skb, header: ICMP, wanted: Tuple) -> bool:
        """An ICMP error is translated outside like an answer, and inside the other way round."""
        connection = skb.connection
        assert connection is not None and header.about is not None
        inner = Skb(header.about)
        sent = connection.original if skb.reply else connection.reply
        if hook in SOURCE_SIDE:
            if not (connection.is_dnat if skb.reply else connection.is_snat):
                return False
            about = rewritten(header.about, inner.ip, dst=sent.dst, dport=sent.dport)
            outer = _with_addresses(skb.ip, src=wanted.src)
        else:
            if not (connection.is_snat if skb.reply else connection.is_dnat):
                return False
            about = rewritten(header.about, inner.ip, src=sent.src, sport=sent.sport)
            outer = _with_addresses(skb.ip, dst=wanted.dst)
        packet = Packet((outer, ICMP(header.message, header.mtu, header.ident, about)), skb.packet.payload)
        changed = packet != skb.packet
        skb.put(packet)
        return changed

    def _lost_to(self, rule: RuleText | None, target: object, why: str, skb: Skb) -> Steps:
        """A rule, or a policy where there is none, dropped or rejected the packet."""
        action = Action.REJECT if isinstance(target, Reject) else Action.DROP
        yield Step(self.name, skb.iif or skb.oif, action, skb.packet, why, rule)
        if isinstance(target, Reject):
            yield from self._reject(skb, target.kind)

    def _traverse(self, table: str, chain: Chain, skb: Skb) -> tuple[Rule | None, list[Step]]:
        """The rules in their order, with jumps and returns: the rule that decided (`None`: the policy does), and a step
        for each rule that matched and passed the packet on.
        """
        chains: Chains[Chain] = self.host.netfilter.of(skb.version)[table].chains
        built = chains.built
        lines = iter(chain.lines(skb))
        callers: list[Iterator[Line]] = []
        steps: list[Step] = []
        where, device = self.name, skb.oif or skb.iif
        while True:
            for tests, jump, rule, says in lines:
                for test in tests:
                    if not test(skb, self):
                        break
                else:
                    if jump:
                        steps.append(Step(where, device, Action.RULE, skb.packet, says, rule))
                        if rule.target.__class__ is not Goto:
                            callers.append(lines)
                        lines = iter((built.get(jump) or chains[jump]).lines(skb))
                        break
                    target = rule.target
                    if isinstance(target, Final):
                        if target.verdict != "DROP":
                            steps.append(Step(where, device, Action.RULE, skb.packet, says, rule))
                        if target.verdict != "RETURN":
                            return rule, steps
                        lines = _NO_LINES
                        break
                    if isinstance(target, DECIDING):
                        return rule, steps
                    if isinstance(target, SetMark):
                        skb.mark = (skb.mark & ~target.mask & 0xFFFFFFFF) ^ target.value
                        if table == "mangle":  # in OUTPUT, no other table chooses another route by a mark
                            skb.routed = skb.mark
                    elif isinstance(target, NoTrack):
                        skb.tracked = False
                    steps.append(Step(where, device, Action.RULE, skb.packet, says, rule))
            else:
                if not callers:
                    return None, steps
                lines = callers.pop()

    # IPVS

    def _answered(self, skb: Skb) -> Steps:
        """What a real server sends back gets the virtual address as its source (`ip_vs_out`)."""
        director, header = self.director, skb.packet.headers[1] if not skb.ip.offset else None
        if director is None or skb.virtual is not None:
            return
        error = header.about if isinstance(header, ICMP) else None
        entry = director.answer(skb.tuple if error is None else Skb(error).tuple.mirrored(), self.world.now)
        if entry is None:
            return
        skb.virtual = entry
        asked = entry.request
        if error is None:
            skb.put(rewritten(skb.packet, skb.ip, src=asked.dst, sport=asked.dport))
        else:
            assert isinstance(header, ICMP)
            about = rewritten(error, error.ip, dst=asked.dst, dport=asked.dport)
            outer = _with_addresses(skb.ip, src=asked.dst)
            skb.put(Packet((outer, ICMP(header.message, header.mtu, header.ident, about)), skb.packet.payload))
        why = "an answer of a real server: IPVS gives it the virtual server's address"
        yield Step(self.name, skb.oif or skb.iif, Action.SNAT, skb.packet, why, entry.destination)

    def _scheduled(self, skb: Skb) -> Passed:
        """A packet for a virtual server goes on to a real one (`ip_vs_in`); true if it has not been taken away."""
        if self.director is None:
            self.director = Director()
        key = skb.tuple
        entry = self.director.request(key, self.world.now)
        if entry is None:
            virtual = self.host.virtual_servers.find(key, skb.mark)
            if virtual is None or _is_fragment(skb.ip) or not _may_be_scheduled(skb.packet.headers[1]):
                return True
            entry = self.director.schedule(virtual, key, self.world.now, self.world.choose)
            if entry is None:
                why = f"the virtual server {virtual.endpoint} has no real server that takes it"
                yield Step(self.name, skb.iif or skb.oif, Action.REJECT, skb.packet, why, virtual)
                yield from self._answer_error(skb, "port-unreachable")
                return False
        return (yield from self._to_real_server(skb, entry))

    def _to_real_server(self, skb: Skb, entry: ConnectionEntry) -> Passed:
        """Another destination, and a way of its own to it: from OUTPUT on, if it is not on this machine."""
        server = entry.answer
        local = self.host.is_local(server.src)
        route = None if local else self.host.find(server.src)
        if route is not None and route.hops:
            route = self._path(route, server.mirrored())
        if not local and (yield from self._kept_from(skb, server.src, route)):
            return False
        packet = rewritten(skb.packet, skb.ip, dst=server.src, dport=server.sport)
        if not local:
            packet = Packet((_with_ttl(packet.ip, packet.ip.ttl - 1), *packet.headers[1:]), packet.payload)
        skb.put(packet)
        skb.virtual = entry
        self._let_conntrack_know(skb, server.src, server.sport)
        why = f"IPVS sends it to a real server: {entry.why}"
        yield Step(self.name, skb.oif or skb.iif, Action.DNAT, skb.packet, why, entry.destination)
        if local or route is None:
            return True
        skb.iif, skb.oif, skb.bridged = "", route.device, None
        yield Step(self.name, skb.oif, Action.ROUTE, skb.packet, _routed(server.src, route))
        if (yield from self._hook("OUTPUT", skb)):
            yield from self._leave(skb, route)
        return False

    def _kept_from(self, skb: Skb, server: str, route: Route | None) -> Passed:
        """Say what keeps a packet from a real server on another machine; true if something does."""
        device = skb.iif or skb.oif
        if route is None or route.type is not RouteType.UNICAST:
            why = f"IPVS has no way to the real server {server}"
            yield Step(self.name, device, Action.UNREACHABLE, skb.packet, why)
            yield from self._answer_error(skb, "host-unreachable")
            return True
        if skb.src.startswith("127.") or skb.src == "::1":
            why = f"IPVS sends nothing from {skb.src} to another machine"
            yield Step(self.name, device, Action.DROP, skb.packet, why)
            return True
        if skb.ip.ttl <= 1:
            yield Step(self.name, device, Action.UNREACHABLE, skb.packet, "its time to live is used up")
            yield from self._answer_error(skb, "time-exceeded")
            return True
        mtu = route.mtu or self.host.link(route.device).mtu
        if skb.packet.length > mtu and (skb.ip.df or skb.version == 6):
            why = f"{skb.packet.length} bytes do not fit the MTU of {route.device}, {mtu}, on the way to {server}"
            yield Step(self.name, device, Action.DROP, skb.packet, why)
            yield from self._answer_error(skb, "fragmentation-needed", mtu)
            return True
        return False

    def _let_conntrack_know(self, skb: Skb, server: str, port: int) -> None:
        """The connection's answers come from the real server; without `vs.conntrack` it is no longer tracked."""
        connection = skb.connection
        if not self.host.sysctl("net.ipv4.vs.conntrack"):
            skb.connection, skb.tracked, skb.state = None, False, "UNTRACKED"
        elif connection is not None and not connection.confirmed and not skb.reply:
            connection.reply = connection.reply._replace(src=server, sport=port)
            connection.scheduled = connection.translated = True

    # Answers by the kernel

    def _reject(self, skb: Skb, kind: str) -> Steps:
        header = skb.packet.headers[1] if not skb.ip.offset else None
        if kind == "tcp-reset":
            if isinstance(header, TCP) and "R" not in header.flags:
                reset = _reset(skb.ip, header)
                if skb.bridged is not None:
                    self.world.send(self._back_by_the_port(*skb.bridged, reset))
                else:
                    self._answer(reset, skb)
            return
        yield from self._answer_error(skb, kind.removeprefix("icmp6-").removeprefix("icmp-"))

    def _answer_error(self, skb: Skb, message: str, mtu: int = 0) -> Steps:
        """Queue an ICMP error to the sender of a packet; never about an error, nor about a fragment but the first (RFC
        1122, 3.2.2).
        """
        header = skb.packet.headers[1] if not skb.ip.offset else None
        if header is None or (isinstance(header, ICMP) and header.about is not None):
            return
        source = skb.dst if self.is_local(skb.dst) else self.source_for(skb.src)
        if not source:
            return
        version = skb.version
        icmp = ICMP(message, mtu, 0, quoted(skb.packet))
        if version == 4:
            packet = Packet((IPv4(source, skb.src, "ICMP", df=False), icmp))
        else:
            packet = Packet((IPv6(source, skb.src, "ICMPv6"), icmp))
        yield Step(self.name, skb.iif or skb.oif, Action.ICMP, packet, f"{self.name} tells {skb.src}: {message}")
        self._answer(packet, skb)

    def _answer(self, packet: Packet, about: Skb | None = None) -> None:
        """Queue an answer of the kernel's own. It shares the connection of the packet that it is about, though that may
        never get through (`nf_ct_attach`).
        """
        skb = Skb(packet)
        if about is not None and about.connection is not None:
            skb.connection, skb.reply, skb.state = about.connection, not about.reply, "RELATED"
        self.world.send(self._output(skb, f"{self.name} answers"))

    def _back_by_the_port(self, port: str, ethernet: Ethernet, reset: Packet) -> Steps:
        """A reset for a frame that a bridge carries goes back through its port, past all rules and translations: its
        source is the address that the packet was translated to (`nf_send_reset`).
        """
        frame = reset.pushed(Ethernet(ethernet.dst, ethernet.src))
        yield Step(self.name, port, Action.SEND, frame, f"{self.name} answers through the port the frame came by")
        yield from self._transmit(self.host.link(port), frame)


def quoted(packet: Packet) -> Packet:
    """What an ICMP error quotes of the packet it is about: its headers."""
    return Packet(packet.headers[:2])


def hash_ports(frame: Packet) -> int:
    """A number that is the same for all packets of a flow: VXLAN makes its outer source port of it (RFC 7348, section
    5). Of fragments only the addresses count, since all but the first have no ports.
    """
    inner = Skb(frame.popped())
    value = 0
    for char in f"{inner.src}{inner.dst}":
        value = (value * 31 + ord(char)) & 0xFFFF
    return value if _is_fragment(inner.ip) else (value ^ inner.sport ^ inner.dport) & 0xFFFF


def rewritten(packet: Packet, ip: IPHeader, *, src: str = "", sport: int = 0, dst: str = "", dport: int = 0) -> Packet:
    """The packet with other addresses and ports; what is not given stays."""
    header = packet.headers[1]
    ports: Ports
    if isinstance(header, TCP):
        ports = TCP(sport or header.sport, dport or header.dport, header.flags, header.mss)
    elif isinstance(header, UDP):
        ports = UDP(sport or header.sport, dport or header.dport)
    elif isinstance(header, SCTP):
        ports = SCTP(sport or header.sport, dport or header.dport, header.chunk)
    elif isinstance(header, ICMP):
        ports = ICMP(header.message, header.mtu, sport or dport or header.ident, header.about)
    else:
        return Packet((_with_addresses(ip, src=src, dst=dst), *packet.headers[1:]), packet.payload)
    return Packet((_with_addresses(ip, src=src, dst=dst), ports, *packet.headers[2:]), packet.payload)


def _with_addresses(ip: IPHeader, *, src: str = "", dst: str = "") -> IPHeader:
    if isinstance(ip, IPv4):
        return IPv4(src or ip.src, dst or ip.dst, ip.protocol, ip.ttl, ip.df, ip.id, ip.offset, ip.more)
    return IPv6(src or ip.src, dst or ip.dst, ip.protocol, ip.ttl, ip.df, ip.id, ip.offset, ip.more)


def _with_ttl(ip: IPHeader, ttl: int) -> IPHeader:
    if isinstance(ip, IPv4):
        return IPv4(ip.src, ip.dst, ip.protocol, ttl, ip.df, ip.id, ip.offset, ip.more)
    return IPv6(ip.src, ip.dst, ip.protocol, ttl, ip.df, ip.id, ip.offset, ip.more)


def _with_fragment(ip: IPHeader, offset: int, *, more: bool, ident: int) -> IPHeader:
    if isinstance(ip, IPv4):
        return IPv4(ip.src, ip.dst, ip.protocol, ip.ttl, ip.df, ident, offset, more)
    return IPv6(ip.src, ip.dst, ip.protocol, ip.ttl, ip.df, ident, offset, more)


def _is_fragment(ip: IPHeader) -> bool:
    return ip.more or ip.offset > 0


def fragments(packet: Packet, mtu: int, ident: int) -> tuple[Packet, ...]:
    """The packet in pieces of at most `mtu` bytes, under one identification; a fragment keeps the one it has.

    Headers after the IP header ride in the first piece, which is as long as they are at least; offsets count from its
    end. All but the last hold a multiple of eight bytes (RFC 791, RFC 8200).
    """
    ip = packet.ip
    cut = _with_fragment(ip, ip.offset, more=True, ident=ip.id if _is_fragment(ip) else ident)
    whole = packet.length - ip.length
    inner = whole - len(packet.payload)
    first = max((mtu - cut.length) // 8 * 8, (inner + 7) // 8 * 8)
    pieces = [Packet((cut, *packet.headers[1:]), packet.payload[: first - inner])]
    room = (mtu - cut.length) // 8 * 8
    for offset in range(first, whole, room):
        more = ip.more or offset + room < whole
        header = _with_fragment(ip, ip.offset + offset, more=more, ident=cut.id)
        pieces.append(Packet((header,), packet.payload[offset - inner : offset - inner + room]))
    return tuple(pieces)


def reassembled(pieces: list[Packet]) -> Packet | None:
    """The packet that these fragments are, or `None` while some are missing."""
    held = sorted(pieces, key=lambda piece: piece.ip.offset)
    end = 0
    for piece in held:
        if piece.ip.offset != end:
            return None
        end += piece.length - piece.ip.length
    if held[-1].ip.more:
        return None
    header = _with_fragment(held[0].ip, 0, more=False, ident=0)
    return Packet((header, *held[0].headers[1:]), b"".join(piece.payload for piece in held))


def _may_be_scheduled(header: Header) -> bool:
    """Whether IPVS takes the packet for the first of a connection."""
    if isinstance(header, TCP):
        return header.flags == "S"
    return isinstance(header, UDP) or (isinstance(header, SCTP) and header.chunk == "INIT")


def _may_begin(header: Header) -> bool:
    """Whether conntrack takes the packet for the first of a connection: a TCP connection may be picked up in the
    middle, but not by its second packet, its end or a reset; an answer to a ping begins nothing.
    """
    if isinstance(header, TCP):
        return header.flags in ("S", ".", "P.")
    return not isinstance(header, ICMP) or header.message == "echo-request"


def _goes_on(header: Header) -> bool:
    """Whether the packet is for an open TCP connection: the third of a handshake, or data."""
    return isinstance(header, TCP) and header.flags in (".", "P.")


def _back(ip: IPHeader, ports: Ports) -> Packet:
    if isinstance(ip, IPv4):
        return Packet((IPv4(ip.dst, ip.src, ip.protocol), ports))
    return Packet((IPv6(ip.dst, ip.src, ip.protocol), ports))


def _reset(ip: IPHeader, ports: TCP) -> Packet:
    return _back(ip, TCP(ports.dport, ports.sport, "R."))


def _routed(dst: str, route: Route) -> str:
    if route.type is RouteType.LOCAL:
        return f"{dst} is an address of this machine: by lo"
    hop = f" via {route.via}" if route.via else ""
    several = f", and this one of its {len(route.hops)} ways is the flow's" if route.hops else ""
    return f"{route.prefix}{hop} dev {route.device} is the longest match for {dst}{several}"
