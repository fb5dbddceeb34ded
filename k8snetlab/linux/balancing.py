"""How do the programs of `ebpf` work on a socket, and on a packet?

A `Balancer` is the programs of one namespace at work, with what their maps remember: which client was sent where
(affinity), which packets were translated, and how to translate the answers.

A socket is led to a backend once, by `dial`; nothing needs to be remembered for that but affinity. A packet goes this
way (`cil_from_netdev`):

    in by the device ─► a frontend? ─no─► the answer to a packet of ours? ─yes─► translate both ends back ─► out again
                             │yes                        └─no─► on, as if nothing had been
                             ▼
         for the inside only: dropped · source not admitted: dropped · no backend: refused by ICMP
                             ▼
         backend here: the destination becomes the backend's, and on it goes, up the stack; the source stays
         backend elsewhere: the source becomes this machine's too, and out again, past all of netfilter

What goes *out again* is led by the routing tables alone (`bpf_fib_lookup`), and costs one hop. The answer of a backend
that is here gets its source back at tc egress (`cil_to_netdev`). The programs at a container's device
(`cil_from_container`, `cil_to_container`) do the same for what no socket program has translated; there the sender's
address is kept, unless he is sent to himself.

A socket without a backend hears `EHOSTUNREACH` from connect() at once; UDP sockets are taken to be connected, too.
Affinity counts for a socket by its namespace (there is no source address yet), for a packet by its source; every use
makes it last again.

Not modelled: fragments (only the first has ports; the others go on as they are), the time-outs of remembered
connections. ICMP errors about a translated packet are translated back in every case; whether Cilium's programs do so
for backends of the same machine was not checked. That a container reaches itself through its device is from the
sources alone; the rest is checked against programs of our own on the real kernel (`live`), not against Cilium's. Guide
sections 2.2 and 3.1.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from typing import NamedTuple

from k8snetlab.linux.conntrack import Tuple
from k8snetlab.linux.ebpf import Backend, Ebpf, Entry, Flag, Frontend, Identity, Key, Program
from k8snetlab.linux.link import Link
from k8snetlab.linux.netns import Namespace, quoted, rewritten
from k8snetlab.linux.skb import Skb
from k8snetlab.packet import ICMP, Ethernet, IPv4, IPv6, Packet
from k8snetlab.trace import Action, Step

__all__ = ["Balancer", "Dialled"]

DIALS: Mapping[tuple[str, int], Program] = {
    ("TCP", 4): Program.CONNECT4,
    ("TCP", 6): Program.CONNECT6,
    ("UDP", 4): Program.CONNECT4,
    ("UDP", 6): Program.CONNECT6,
}
"""The program that sees where a socket wants to go; other protocols have none. A UDP socket is taken to be connected,
as a resolver's is; where one is not, the program at sendmsg() does the same for each datagram.
"""

EPHEMERAL = range(32768, 65536)
"""The source ports that translated packets may have."""

Passed = Generator[Step, None, Packet | None]
"""Steps, and then the frame that goes on, if one does."""


class Dialled(NamedTuple):
    """Where a socket is led to, by which entry of the map; `refused` where there is nobody to lead it to."""

    address: str
    port: int
    entry: Entry
    why: str
    refused: bool = False


class _Flow(NamedTuple):
    """A translated connection: its packets as the client sends them, and as they go on."""

    asked: Tuple
    sent: Tuple
    entry: Entry
    source_too: bool


class Balancer:
    """The programs of one namespace, and what their maps remember."""

    __slots__ = ("_affinity", "_answers", "_ebpf", "_flows", "_led", "at")

    def __init__(self, at: Namespace, ebpf: Ebpf) -> None:
        self.at = at
        self._ebpf = ebpf
        self._affinity: dict[tuple[Key, str], tuple[Backend, float]] = {}  # (frontend, client): backend, last use
        self._led: dict[tuple[str, int, str, int], Dialled] = {}  # (protocol, own port, address, port)
        self._flows: dict[Tuple, _Flow] = {}
        self._answers: dict[Tuple, _Flow] = {}

    def become(self, ebpf: Ebpf) -> None:
        """Look into other maps, and forget nothing."""
        self._ebpf = ebpf

    # 1. The socket

    def dial(self, protocol: str, own: int, address: str, port: int) -> Dialled | None:
        """Where a program of this namespace that connects, or sends, from its port `own` to that address and port is
        led to instead. A UDP socket is led to the same backend every time.
        """
        led = self.led(protocol, own, address, port) if protocol == "UDP" else None
        if led is None:
            led = self._dialled(protocol, address, port)
        if led is not None:
            self._led[protocol, own, address, port] = led
        return led

    def led(self, protocol: str, own: int, address: str, port: int) -> Dialled | None:
        """Where a socket was led to before."""
        return self._led.get((protocol, own, address, port))

    def _dialled(self, protocol: str, address: str, port: int) -> Dialled | None:
        ebpf = self._ebpf
        program = DIALS.get((protocol, 6 if ":" in address else 4))
        if program not in ebpf.programs:
            return None
        found = ebpf.lookup(address, port, protocol) or ebpf.shared_lookup(address, port, protocol, self.at.name)
        if found is None:
            return None
        how = f"{program} at {program.place}"
        if not found.backends:
            why = f"{how}: there is no backend, and connect() ends at once with EHOSTUNREACH"
            return Dialled(address, port, Entry(found), why, refused=True)
        if found.guarded and ebpf.identities.get(address) is not Identity.HOST:
            return None
        slot = self._chosen(found, self.at.name)
        backend = found.backends[slot - 1]
        why = f"{how}: the socket is led to {backend} before any packet exists"
        return Dialled(backend.ip, backend.port, Entry(found, slot), why)

    def _chosen(self, frontend: Frontend, client: str) -> int:
        """The slot of the backend for a client: where he was sent before, else any, all alike."""
        now = self.at.world.now
        key = frontend.key, client
        if frontend.affinity and key in self._affinity:
            backend, last = self._affinity[key]
            if now < last + frontend.affinity and backend in frontend.backends:
                self._affinity[key] = backend, now
                return frontend.backends.index(backend) + 1
        count = len(frontend.backends)
        slot = next((at + 1 for at in range(count - 1) if self.at.happens(1 / (count - at))), count)
        if frontend.affinity:
            self._affinity[key] = frontend.backends[slot - 1], now
        return slot

    # 2. A frame comes in

    def ingress(self, link: Link, frame: Packet) -> Passed:
        """What the program at a device's tc ingress makes of a frame."""
        program = self._ebpf.ingress.get(link.name)
        if program is None:
            return frame
        skb = Skb(frame.popped(), link.name)
        if skb.ip.offset:
            return frame
        answered = self._answers.get(_known_by(skb))
        if program is Program.FROM_CONTAINER:
            if answered is not None and answered.sent.src in self._ebpf.loopback:
                return (yield from self._back_to_himself(link, frame, skb, answered))
            found = self._ebpf.lookup(skb.dst, skb.dport, skb.protocol)
        else:
            found = self._ebpf.services.get(Key(skb.dst, skb.dport, skb.protocol))
        if found is not None:
            return (yield from self._balanced(program, link, frame, skb, found))
        if answered is not None and answered.source_too:
            yield from self._returned(program, skb, answered)
            return None
        return frame

    def _balanced(self, program: Program, link: Link, frame: Packet, skb: Skb, found: Frontend) -> Passed:
        how, entry = f"{program} at {program.place} of {link.name}", Entry(found)
        if program is Program.FROM_OUTSIDE:
            if not found.admits(skb.src):
                why = f"{how}: {skb.src} is in none of the source ranges"
                yield Step(self.at.name, link.name, Action.DROP, skb.packet, why, entry)
                return None
            if found.has(Flag.NON_ROUTABLE):
                why = f"{how}: {skb.dst} is an address for the inside, and this packet comes from outside"
                yield Step(self.at.name, link.name, Action.DROP, skb.packet, why, entry)
                return None
        flow = self._flows.get(skb.tuple)
        if flow is None:
            if not found.backends:
                yield from self._nobody(how, link, frame, skb, entry)
                return None
            flow = self._begun(program, skb, found)
        skb.put(rewritten(skb.packet, skb.ip, dst=flow.sent.dst, dport=flow.sent.dport))
        why = f"{how}: the destination becomes {found.backends[flow.entry.slot - 1]}"
        yield Step(self.at.name, link.name, Action.DNAT, skb.packet, why, flow.entry)
        if flow.sent.src != skb.src or flow.sent.sport != skb.sport:
            skb.put(rewritten(skb.packet, skb.ip, src=flow.sent.src, sport=flow.sent.sport))
            why = f"{how}: {_reason_for_source(flow)}"
            yield Step(self.at.name, link.name, Action.SNAT, skb.packet, why, flow.entry)
        ethernet = frame.headers[0]
        assert isinstance(ethernet, Ethernet)
        if flow.source_too:
            yield from self.at.redirected(skb)
            return None
        if flow.sent.src in self._ebpf.loopback:
            yield from self.at.transmitted(link, skb.packet.pushed(Ethernet(ethernet.dst, ethernet.src)))
            return None
        return skb.packet.pushed(ethernet)

    def _begun(self, program: Program, skb: Skb, found: Frontend) -> _Flow:
        """A connection that was not seen before: its backend, and the source that its packets shall have."""
        slot = self._chosen(found, skb.src)
        backend = found.backends[slot - 1]
        sent = skb.tuple._replace(dst=backend.ip, dport=backend.port or skb.dport)
        elsewhere = program is Program.FROM_OUTSIDE and not backend.here
        if elsewhere:
            own = next((address for address in self._ebpf.source if (":" in address) == (":" in skb.src)), skb.src)
            sent = self._free(sent._replace(src=own))
        elif skb.src == backend.ip:
            sent = sent._replace(src=next(a for a in self._ebpf.loopback if (":" in a) == (":" in skb.src)))
        flow = self._flows[skb.tuple] = _Flow(skb.tuple, sent, Entry(found, slot), elsewhere)
        self._answers[sent.mirrored()] = flow
        return flow

    def _free(self, sent: Tuple) -> Tuple:
        """The packet's tuple with a source port of its own: the client's, if it may be used and is free, else the next.
        (The real program takes one by chance.)
        """
        first = sent.sport if sent.sport in EPHEMERAL else EPHEMERAL.start
        for port in (*range(first, EPHEMERAL.stop), *range(EPHEMERAL.start, first)):
            wanted = sent._replace(sport=port)
            if wanted.mirrored() not in self._answers:
                return wanted
        return sent

    def _nobody(self, how: str, link: Link, frame: Packet, skb: Skb, entry: Entry) -> Generator[Step, None, None]:
        """No backend: the sender is told so in the name of the address that he asked for."""
        yield Step(self.at.name, link.name, Action.REJECT, skb.packet, f"{how}: there is no backend", entry)
        error = ICMP("port-unreachable", 0, 0, quoted(skb.packet))
        ip = IPv4(skb.dst, skb.src, "ICMP", df=False) if skb.version == 4 else IPv6(skb.dst, skb.src, "ICMPv6")
        ethernet = frame.headers[0]
        assert isinstance(ethernet, Ethernet)
        answer = Packet((Ethernet(ethernet.dst, ethernet.src), ip, error))
        self.at.world.send(self.at.transmitted(link, answer))

    # 3. An answer

    def _returned(self, program: Program, skb: Skb, flow: _Flow) -> Generator[Step, None, None]:
        """The answer of a backend elsewhere: both ends become what the client knows, and out it goes."""
        skb.put(_undone(skb.packet, flow))
        why = f"{program}: it answers a packet that was sent on from here; both ends are translated back"
        yield Step(self.at.name, skb.iif, Action.CONNTRACK, skb.packet, why)
        yield from self.at.redirected(skb)

    def _back_to_himself(self, link: Link, frame: Packet, skb: Skb, flow: _Flow) -> Passed:
        """The answer of a container to itself."""
        packet = _undone(skb.packet, flow)
        why = f"{Program.FROM_CONTAINER}: it answers a packet of its own; both ends are translated back"
        yield Step(self.at.name, link.name, Action.CONNTRACK, packet, why)
        ethernet = frame.headers[0]
        assert isinstance(ethernet, Ethernet)
        yield from self.at.transmitted(link, packet.pushed(Ethernet(ethernet.dst, ethernet.src)))
        return None

    def egress(self, link: Link, frame: Packet) -> Generator[Step, None, Packet]:
        """What the program at a device's tc egress makes of a frame: an answer gets the source that was asked."""
        program = self._ebpf.egress.get(link.name)
        if program is None:
            return frame
        skb = Skb(frame.popped())
        flow = self._answers.get(_known_by(skb)) if not skb.ip.offset else None
        if flow is None or flow.source_too or flow.sent.src in self._ebpf.loopback:
            return frame
        packet = _undone(skb.packet, flow)
        why = f"{program} at {program.place} of {link.name}: a known connection, translated back"
        yield Step(self.at.name, link.name, Action.CONNTRACK, packet, why)
        return packet.pushed(frame.headers[0])


def _known_by(skb: Skb) -> Tuple:
    """The tuple by which an answer is known; of an ICMP error, that of an answer to the packet it is about."""
    header = skb.packet.headers[1]
    if isinstance(header, ICMP) and header.about is not None:
        return Skb(header.about).tuple.mirrored()
    return skb.tuple


def _undone(packet: Packet, flow: _Flow) -> Packet:
    """An answer, or an error, as the client would get it had nothing been translated."""
    asked, sent = flow.asked, flow.sent
    header = packet.headers[1]
    if not (isinstance(header, ICMP) and header.about is not None):
        return rewritten(packet, packet.ip, src=asked.dst, sport=asked.dport, dst=asked.src, dport=asked.sport)
    about = rewritten(header.about, header.about.ip, src=asked.src, sport=asked.sport, dst=asked.dst, dport=asked.dport)
    source = asked.dst if packet.ip.src == sent.dst else packet.ip.src
    return Packet(
        (_with(packet.ip, source, asked.src), ICMP(header.message, header.mtu, header.ident, about)), packet.payload
    )


def _with(ip: IPv4 | IPv6, src: str, dst: str) -> IPv4 | IPv6:
    if isinstance(ip, IPv4):
        return IPv4(src, dst, ip.protocol, ip.ttl, ip.df, ip.id, ip.offset, ip.more)
    return IPv6(src, dst, ip.protocol, ip.ttl, ip.df, ip.id, ip.offset, ip.more)


def _reason_for_source(flow: _Flow) -> str:
    if flow.source_too:
        return f"the backend is elsewhere, and must answer here: the source becomes {flow.sent.src}"
    return f"the sender is the backend: the source becomes {flow.sent.src}, or it would answer itself"
