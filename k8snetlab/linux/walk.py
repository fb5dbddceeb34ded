"""How does a packet get from machine to machine, and an answer back?

A `World` is one simulated kernel for a whole network: it holds the machines that a packet has met so far, the frames
that are on the cables, and the packets that machines want to send in answer. `exchange` sends one packet and then
what it brings about — the answer of the program that got it, a reset, an ICMP error — and says how it ended. `every`
repeats that for each way the load-balancing choices can fall.

Who answers an ARP request follows from the links alone, so the search for him is remembered with the network; what
each machine learns from it is kept in the world, and begins empty.

Not modelled: two packets on their way at once, retransmissions. Guide section 2.1; RFC 826, RFC 9293.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import TypeVar

import msgspec

from k8snetlab.address import family
from k8snetlab.errors import LabError
from k8snetlab.linux.balancing import Balancer, Dialled
from k8snetlab.linux.conntrack import Tuple
from k8snetlab.linux.host import Found, Host, Network
from k8snetlab.linux.link import Link, LinkKind, MeshPeer, link_local
from k8snetlab.linux.netns import PASSING, Namespace, Steps
from k8snetlab.linux.redirecting import Redirector
from k8snetlab.linux.route import RouteType
from k8snetlab.linux.skb import Skb
from k8snetlab.linux.socket import Listener
from k8snetlab.packet import ARP, ICMP, SCTP, TCP, UDP, IPv4, IPv6, Packet, Ports
from k8snetlab.trace import FATES, Action, Client, Step, Verdict

__all__ = ["Arrival", "Exchange", "World", "every", "exchange"]

Choose = Callable[[float], bool]
"""Decides whether something with this probability happens."""

FRAMES = 2000
"""More frames than this for one packet mean a loop that no TTL ends (bridges in a ring)."""

T = TypeVar("T")


Trail = tuple[tuple[str, str, str, str], ...]
"""The bridges between a question and its answer, as `Found.bridges` has them."""


class Arrival(msgspec.Struct, frozen=True):
    """A packet that reached a program: on which machine, the packet, and the listener (`None`: an open connection)."""

    host: str
    packet: Packet
    listener: Listener | None


class World:
    """The machines at work. `now` is in seconds; `choose` decides load balancing, by `random` unless told otherwise."""

    def __init__(self, network: Network, rng: random.Random, now: float = 0.0, choose: Choose | None = None) -> None:
        self.network = network
        self.random = rng
        self.now = now
        self.choose: Choose = choose or self._by_chance
        self._next: deque[Steps] = deque()
        self.arrivals: list[Arrival] = []
        self.silent = False
        self._answers: deque[Steps] = deque()
        self._namespaces: dict[str, Namespace] = {}

    def _by_chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def at(self, name: str) -> Namespace:
        """The machine of that name, at work. Raises `UnknownName`."""
        found = self._namespaces.get(name)
        if found is None:
            found = self._namespaces[name] = Namespace(self.network.host(name), self)
            _program(found)
        return found

    def become(self, network: Network) -> None:
        """Make the machines those of another network: they remember what they knew, but for those that are gone."""
        self.network = network
        for name, namespace in tuple(self._namespaces.items()):
            if name in network:
                namespace.host = network[name]
                _program(namespace)
            else:
                del self._namespaces[name]

    def advance(self, seconds: float) -> None:
        """Let time pass: machines forget connections that nothing was seen of for long."""
        self.now += seconds
        for namespace in self._namespaces.values():
            namespace.conntrack.expire(self.now)
            if namespace.director is not None:
                namespace.director.expire(self.now)

    def run(self) -> Steps:
        """Let every frame on the cables arrive, and all that follows from it, until nothing moves."""
        for _ in range(FRAMES):
            if not self._next:
                return
            last = None
            for last in self._next.popleft():
                yield last
        self._next.clear()
        if last is not None:
            why = "the frame goes round in circles: the bridges form a ring"
            yield Step(last.where, last.device, Action.LOST, last.packet, why)

    def start(self, name: str, *listeners: Listener) -> None:
        """Start programs on a machine, in this world only."""
        at = self.at(name)
        at.host = msgspec.structs.replace(at.host, listeners=(*at.host.listeners, *listeners))

    def later(self, steps: Steps) -> None:
        """Do this after what is being done now: a frame is on its way, or a packet waits in a queue of its machine."""
        self._next.append(steps)

    def arrived(self, at: Namespace, skb: Skb, listener: Listener | None) -> None:
        """A program got a packet: note it, and queue what it answers."""
        self.arrivals.append(Arrival(at.name, skb.packet, listener))
        if listener is None or self.silent:
            return
        answer = _answer_of(at, skb)
        if skb.protocol == "TCP":
            at.sockets.add(skb.tuple)
        self.send(at.output(answer, f"{at.name} answers"))

    def send(self, steps: Steps) -> None:
        """Queue what a machine sends in answer."""
        self._answers.append(steps)

    def answer(self) -> Steps:
        """Send what was queued, and what that brings about."""
        while self._answers:
            yield from self._answers.popleft()
            yield from self.run()

    def beyond(self, host: Host, entrance: Link, mac: str) -> MeshPeer | None:
        """The machine of a mesh behind which a MAC is: what its router learns when an answer comes by."""
        assert entrance.mesh is not None
        for peer in entrance.mesh.peers:
            visited = {(host.name, entrance.master or entrance.name)}
            if any(_taken(self.network, *end, mac, visited) for end in _exit(self.network, peer)):
                return peer
        return None

    # Who is on the cable?

    def asked(self, host: Host, link: Link, address: str, sender: str) -> ARP | None:
        """Ask everybody on the cable of `link` for the MAC of `address`; the answer, or `None`. Everyone who hears it
        learns. An answer that arrives at a bridge's port is the bridge's: the port itself never hears one. Where
        several machines answer (proxy ARP), chance decides who is the first.
        """
        if link.master:
            return None
        key = (host.name, link.name, address, sender)
        memory = self.network.memory
        if key not in memory:
            memory[key] = _search(self.network, host, link, address, sender)
        if not memory[key]:
            return None
        found = self._first(memory[key])
        for name, bridge, towards, back in found.bridges:
            ports = self.at(name).ports
            if towards:
                ports[bridge, found.mac] = towards
            if back:
                ports[bridge, link.mac] = back
        if sender:
            self.at(found.host).learnt[found.link, sender] = link.mac
        return ARP("reply", found.mac, address, link.mac, sender)

    def _first(self, answers: Sequence[Found]) -> Found:
        """Whose answer comes first: each has the same chance."""
        for left, found in zip(range(len(answers), 1, -1), answers, strict=False):
            if self.choose(1 / left):
                return found
        return answers[-1]

    def flooded(self, host: Host, bridge: Link, mac: str) -> str | None:
        """The port of a bridge behind which a MAC is that the bridge has not learnt: where the flooded frame is
        taken.
        """
        for port in host.ports[bridge.name]:
            if port.up and _behind(self.network, port, mac, {(host.name, bridge.name)}):
                return port.name
        return None


def _search(network: Network, host: Host, link: Link, address: str, sender: str) -> tuple[Found, ...]:
    """Breadth first over cables and bridges, from a device outwards, to the machines that answer for the address."""
    allowed = network.may_own(address)
    queue: deque[tuple[str, str, Trail]] = deque()
    if link.kind is LinkKind.BRIDGE:
        allowed = allowed.union((host.name,))
        for port in host.ports[link.name] if link.up else ():
            if port.up and port.peer is not None:
                queue.append((port.peer.host, port.peer.link, ((host.name, link.name, port.name, ""),)))
    elif link.up and link.peer is not None:
        queue.append((link.peer.host, link.peer.link, ()))
        allowed = allowed.union((link.peer.host,))
    visited: set[tuple[str, str]] = {(host.name, link.name)}
    answers: dict[tuple[str, str], Found] = {}
    while queue:
        name, device, trail = queue.popleft()
        if name not in allowed or name not in network or (name, device) in visited:
            continue
        visited.add((name, device))
        there = network[name]
        arrived = there.link(device)
        if not arrived.up:
            continue
        listening = there.link(arrived.master) if arrived.master else arrived
        if arrived.mesh is not None and not arrived.master:
            queue.extend(_onward(network, name, arrived, trail, allowed))
            continue
        if listening.kind is not LinkKind.DATAPATH and _answers(there, listening, address, sender):
            answers.setdefault((name, listening.name), Found(name, listening.name, listening.mac, trail))
        if arrived.master and listening.up:
            for port in there.ports[arrived.master]:
                if port.name != device and port.up:
                    step = (name, arrived.master, port.name, device)
                    queue.extend(_onward(network, name, port, (*trail, step), allowed))
    return tuple(answers.values())


def _answers(there: Host, link: Link, address: str, sender: str) -> bool:
    """Whether a machine that hears the question on `link` answers it (`arp_process`, `ndisc_recv_ns`)."""
    if not link.up or sender in there.owned:
        return False
    if (link.name, address) in there.answered:
        return True
    if there.datapath is not None and there.datapath.answers(link.name, address):
        return True
    here = any(own.ip == address for own in link.addresses)  # several devices may have the same address
    if family(address) == 6:
        return here or address == link_local(link.mac)
    if sender and there.refused_source(sender, address, link.name):
        return False
    if address in there.owned and not address.startswith("127."):
        return here or not there.sysctl("net.ipv4.conf.all.arp_ignore")
    if not (
        there.sysctl("net.ipv4.conf.all.proxy_arp") or there.sysctl(f"net.ipv4.conf.{link.name}.proxy_arp")
    ) or not there.sysctl("net.ipv4.ip_forward"):
        return False
    route = there.find(address, sender, iif=link.name)
    return route is not None and route.type is RouteType.UNICAST and route.device != link.name


def _behind(network: Network, port: Link, mac: str, visited: set[tuple[str, str]]) -> bool:
    """Whether a frame for `mac` that leaves by this port is taken by somebody."""
    return any(_taken(network, host, device, mac, visited) for host, device in _ends(network, port))


def _taken(network: Network, name: str, device: str, mac: str, visited: set[tuple[str, str]]) -> bool:
    """Whether a frame for `mac` that arrives at a device is taken there, or by somebody beyond."""
    there = network[name]
    arrived = there.link(device)
    if not arrived.up:
        return False
    if not arrived.master:
        if arrived.mesh is None:
            return arrived.mac == mac
        if (name, device) in visited:
            return False
        visited.add((name, device))
        return any(_taken(network, *end, mac, visited) for end in _ends(network, arrived))
    bridge = there.link(arrived.master)
    if not bridge.up or (bridge.mac == mac and bridge.kind is LinkKind.BRIDGE):
        return bridge.up
    if (there.name, arrived.master) in visited:
        return False
    visited.add((there.name, arrived.master))
    others = (other for other in there.ports[arrived.master] if other.name != arrived.name and other.up)
    return any(_behind(network, other, mac, visited) for other in others)


def _ends(network: Network, link: Link) -> Iterator[tuple[str, str]]:
    """The machines and devices at which a frame arrives that enters this device: the other end of its cable, or of a
    mesh every machine that can be reached.
    """
    if link.mesh is not None:
        for peer in link.mesh.peers:
            yield from _exit(network, peer)
    elif link.peer is not None and link.peer.host in network:
        yield link.peer.host, link.peer.link


def _onward(
    network: Network, name: str, link: Link, trail: Trail, allowed: Collection[str]
) -> Iterator[tuple[str, str, Trail]]:
    """The same for a question on its way. The routers of a mesh learn who asked, and who answered."""
    if link.mesh is None:
        if link.peer is not None:
            yield link.peer.host, link.peer.link, trail
        return
    for peer in link.mesh.peers:
        if peer.host in allowed:
            learnt = ((name, link.name, peer.host, ""), (peer.host, peer.link, "", name))
            yield from ((*end, (*trail, *learnt)) for end in _exit(network, peer))


def _exit(network: Network, peer: MeshPeer) -> Iterator[tuple[str, str]]:
    """Where a frame arrives that comes out of a mesh: at a port of the switch there, or at the end of the cable that a
    program puts it on.
    """
    there = network[peer.host].links if peer.host in network else ()
    out = next((link for link in there if link.name == peer.link), None)
    if out is None:
        return
    if out.master:
        yield peer.host, peer.link
    elif out.up and out.peer is not None and out.peer.host in network:
        yield out.peer.host, out.peer.link


def _answer_of(at: Namespace, skb: Skb) -> Packet:
    """What a program sends back: the second packet of a TCP or SCTP handshake, or a datagram."""
    header = skb.packet.headers[1]
    ports: Ports
    if isinstance(header, TCP):
        ports = TCP(header.dport, header.sport, "S.", _mss(at, skb.src))
    elif isinstance(header, SCTP):
        ports = SCTP(header.dport, header.sport, "INIT ACK")
    elif isinstance(header, ICMP):
        ports = ICMP("echo-reply", 0, header.ident)
    else:
        ports = UDP(header.dport, header.sport) if isinstance(header, UDP) else UDP(0, 0)
    payload = skb.packet.payload if isinstance(header, UDP | ICMP) else b""
    return _packet(skb.dst, skb.src, skb.protocol, ports, payload, df=skb.ip.df)


def _mss(at: Namespace, towards: str) -> int:
    """The largest segment that fits the device towards an address, as a SYN announces it."""
    route = at.host.find(towards)
    if route is None or not route.device:
        return 536
    mtu = route.mtu or at.host.link(route.device).mtu
    return min(mtu, 65535) - (40 if family(towards) == 4 else 60)


def _packet(src: str, dst: str, protocol: str, ports: Ports, payload: bytes, *, df: bool) -> Packet:
    if ":" in dst:
        return Packet((IPv6(src, dst, protocol, df=df), ports), payload)
    return Packet((IPv4(src, dst, protocol, df=df), ports), payload)


def _program(at: Namespace) -> None:
    """Put the eBPF programs of a machine to work, those that were there with what they know."""
    ebpf, datapath = at.host.ebpf, at.host.datapath
    if ebpf is None or at.balancer is None:
        at.balancer = Balancer(at, ebpf) if ebpf is not None else None
    else:
        at.balancer.become(ebpf)
    if datapath is None or at.redirector is None:
        at.redirector = Redirector(at, datapath) if datapath is not None else None
    else:
        at.redirector.become(datapath)


class Exchange(msgspec.Struct, frozen=True):
    """One packet and what came back. `arrival` says who took it, if anyone did."""

    source: str
    sport: int
    fate: Verdict
    client: Client
    reason: str
    steps: tuple[Step, ...]
    reply: tuple[Step, ...]
    arrival: Arrival | None
    answer: Packet | None = None


def exchange(
    world: World,
    client: str,
    address: str,
    port: int,
    protocol: str = "TCP",
    *,
    payload: bytes = b"",
    source: str = "",
    sport: int = 0,
    flags: str = "S",
    df: bool = True,
    says: Callable[[Arrival], bytes | None] | None = None,
) -> Exchange:
    """Send one packet from a machine to `address` and `port`, and let the answer come back.

    `protocol` is `TCP`, `UDP`, `SCTP` or `ICMP` (an echo request); `source` and `sport` are the kernel's choice
    unless given. With `df` a packet that is too long is refused rather than cut (for IPv6, by the sender itself).
    `says` is what the program that gets the packet answers, or nothing; it may send packets of its own before.
    """
    at = world.at(client)
    sport = sport or world.random.randrange(32768, 61000)
    dialled: Dialled | None = None
    if at.balancer is not None:
        dialled = (at.balancer.dial if flags == "S" else at.balancer.led)(protocol, sport, address, port)
    if dialled is not None:
        address, port = dialled.address, dialled.port
    source = source or at.source_for(address)
    ports: Ports
    if protocol == "TCP":
        ports = TCP(sport, port, flags, _mss(at, address) if flags == "S" else 0)
    elif protocol == "UDP":
        ports = UDP(sport, port)
    elif protocol == "SCTP":
        ports = SCTP(sport, port)
    elif protocol in ("ICMP", "ICMPv6"):
        ports = ICMP("echo-request", 0, sport)
        protocol = "ICMP" if family(address) == 4 else "ICMPv6"
        port = 0
    else:
        raise LabError(f"{protocol} is not a protocol that a packet can be sent by: TCP, UDP, SCTP, ICMP")
    nowhere = "0.0.0.0" if family(address) == 4 else "::"
    packet = _packet(source or nowhere, address, protocol, ports, payload, df=df)
    led = () if dialled is None or flags != "S" else (_led(client, packet, dialled),)
    if dialled is not None and dialled.refused:
        return Exchange(
            source, sport, Verdict.UNREACHABLE, Client.UNREACHABLE, f"{client}: {dialled.why}", led, (), None
        )
    if not source:
        why = f"{client} has no route to {address}, or no address of its own towards it: the program is told at once"
        step = Step(client, "", Action.UNREACHABLE, packet, why)
        return Exchange("", sport, Verdict.UNREACHABLE, Client.UNREACHABLE, why, (*led, step), (), None)
    expected = Tuple(protocol, address, port, source, sport)
    at.sockets.add(expected)
    world.arrivals.clear()
    world.silent = says is not None
    steps = (*led, *at.output(packet, f"a program on {client} sends to {address}:{port}"), *world.run())
    world.silent = False
    taken = next((arrival for arrival in world.arrivals if arrival.listener is not None or flags != "S"), None)
    if says is not None and taken is not None:
        _say(world, taken, says(taken))
    world.arrivals.clear()
    reply = tuple(world.answer())
    back = next((a for a in world.arrivals if a.host == client and _concerns(a.packet, expected)), None)
    fate, told, reason = _ending(client, steps, reply, taken, back)
    return Exchange(source, sport, fate, told, reason, steps, reply, taken, back.packet if back else None)


def _say(world: World, taken: Arrival, payload: bytes | None) -> None:
    """Queue what a program answers to a datagram or a segment, if anything."""
    if payload is None:
        return
    at = world.at(taken.host)
    answer = msgspec.structs.replace(_answer_of(at, Skb(taken.packet)), payload=payload)
    header = answer.headers[1]
    if isinstance(header, TCP):
        answer = msgspec.structs.replace(answer, headers=(answer.ip, TCP(header.sport, header.dport, "P.")))
    world.send(at.output(answer, f"{at.name} answers"))


def _led(client: str, packet: Packet, dialled: Dialled) -> Step:
    """What a program at the socket did; the packet is the one that will be."""
    action = Action.UNREACHABLE if dialled.refused else Action.DNAT
    return Step(client, "", action, packet, dialled.why, dialled.entry)


_REFUSING = {"port-unreachable"}


def _ending(
    client: str, steps: tuple[Step, ...], reply: tuple[Step, ...], taken: Arrival | None, back: Arrival | None
) -> tuple[Verdict, Client, str]:
    last = next((step for step in reversed(steps) if step.action in FATES), None)
    fate = FATES[last.action] if last is not None else Verdict.TIMEOUT
    reason = f"{last.where}: {last.why}" if last is not None else "nobody answered"
    if back is not None:
        header = back.packet.headers[1]
        if isinstance(header, ICMP) and header.about is not None:
            if header.message == "fragmentation-needed":
                return Verdict.DROPPED, Client.TIMEOUT, reason
            return fate, _told(header), reason
        if isinstance(header, TCP) and "R" in header.flags:
            return Verdict.REJECTED, Client.REFUSED, reason
        if isinstance(header, SCTP) and header.chunk == "ABORT":
            return Verdict.REJECTED, Client.REFUSED, reason
        return fate, Client.OPEN, reason
    if taken is not None:
        lost = next((step for step in reversed(reply) if step.action in FATES), None)
        where = f"{lost.where}: {lost.why}" if lost is not None else "nothing came back"
        return Verdict.TIMEOUT, Client.TIMEOUT, f"the answer is lost: {where}"
    if last is not None and last.action is Action.UNREACHABLE and (last.where, last.device) == (client, ""):
        tunnelled = sum(isinstance(header, IPv4 | IPv6) for header in last.packet.headers) > 1
        return fate, Client.TIMEOUT if tunnelled else Client.UNREACHABLE, reason
    return fate, Client.TIMEOUT, reason


def _concerns(packet: Packet, expected: Tuple) -> bool:
    """Whether a packet is what the client's socket waits for: its answer, or an error about what it sent."""
    header = packet.headers[1]
    if isinstance(header, ICMP) and header.about is not None:
        return Skb(header.about).tuple.mirrored() == expected
    return Skb(packet).tuple == expected


def _told(error: ICMP) -> Client:
    """What a program learns from an ICMP error about its packet."""
    assert error.about is not None
    if error.message in _REFUSING:
        return Client.REFUSED
    passing = error.message in PASSING and error.about.ip.protocol == "UDP"
    return Client.TIMEOUT if passing else Client.UNREACHABLE


def every(run: Callable[[Choose], T]) -> Iterator[tuple[float, T]]:
    """Run once for each way the choices can fall: pairs of probability and result, which add up to 1.

    `run` is given the function that decides; it must begin afresh each time.
    """
    todo: list[tuple[bool, ...]] = [()]
    while todo:
        script = todo.pop()
        taken: list[bool] = []
        chance = 1.0

        def choose(probability: float, script: tuple[bool, ...] = script, taken: list[bool] = taken) -> bool:
            nonlocal chance
            at = len(taken)
            value = script[at] if at < len(script) else probability > 0.0
            if at >= len(script) and 0.0 < probability < 1.0:
                todo.append((*taken, False))
            taken.append(value)
            chance *= probability if value else 1.0 - probability
            return value

        result = run(choose)
        yield chance, result
