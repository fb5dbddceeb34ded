"""How do the programs of `datapath` bring a packet to a container?

A `Redirector` is the programs of one machine at work, with the flows that they have let through. The answers of such a
flow are not judged; what goes the way of its first packet is, each time (maps `cilium_ct4_global`,
`cilium_ct_any4_global` and those of IPv6).

Between two containers of one machine a packet goes from device to device. To one on another machine it is wrapped, and
the tunnel's network identifier says who sent it; where there is no tunnel, it goes up the stack, is routed as any
other, and the receiving machine finds the sender in its cache by his address. What comes for the machine itself goes
up the stack too, through the pair cilium_net and cilium_host if it came by the tunnel.

Into `cilium_host` the machine's own routes lead whatever it sends, or routes, to containers. There the identity follows
from the packet's mark, which a rule of netfilter gives the machine's own packets (0xc00), and the program those that it
sends up the stack (0xf00 with the identity); where there is none, from the source address, except that an address of
the machine itself proves nothing: it may be that of a packet from outside, which was translated here.

Each program that hands a packet on counts as a hop. A tunnel does not.

The program at the network card may hide containers behind the machine's address (map `cilium_snat_v4_external`): the
first packets of TCP and UDP and echo requests to whoever is outside, and what follows them; netfilter sees neither. A
port that another flow has is replaced by the next free one (the real program takes one by chance).

With WireGuard the program at the network card leads what is in the tunnel to the WireGuard device: whole packets, with
their outer headers; without a tunnel, what goes from container to container. Containers of one machine are never
encrypted. With IPsec (as since 1.18) the same packets get a mark and go through the stack once more, where a policy of
`xfrm` knows them by it; what comes back out of ESP goes to cilium_host, and there on as if it had come unwrapped. That
way through the stack is left out here, with the rules and the hop on it.

Checked against the sources of 2026 (bpf_lxc.c, bpf_host.c): who is asked first, what is dropped and by which reason,
marks and hops; the hop of the delivery to cilium_host is not certain. What stands in brackets after the reason for a
drop is what Cilium calls it.

A packet that a policy sends to a proxy (`Permit.proxy`) goes on here as if the proxy had read it, agreed, and sent it
on in the sender's name; what the proxy says to a request is asked of `policies.http`.

Not modelled: fragments but the first are asked for no policy (as with Cilium's map of fragments); the time after which
a flow is forgotten; direct redirection past the stack of the machine (`bpf.hostLegacyRouting` is thought to be on).
Guide sections 3.1 and 5.7.
"""

from __future__ import annotations

from collections.abc import Generator

import msgspec

from k8snetlab.errors import UnknownName
from k8snetlab.linux.conntrack import Tuple
from k8snetlab.linux.datapath import (
    HOST,
    LOCAL,
    REMOTE_NODE,
    WORLD,
    Datapath,
    Direction,
    Endpoint,
    Known,
    Missing,
    Reason,
    is_outside,
)
from k8snetlab.linux.ebpf import ANY, Program
from k8snetlab.linux.link import Link
from k8snetlab.linux.netns import Namespace, Steps, rewritten
from k8snetlab.linux.skb import Skb
from k8snetlab.packet import ICMP, VXLAN, Ethernet, Packet
from k8snetlab.trace import Action, Step
from k8snetlab.trace.step import RuleText

__all__ = ["Redirector"]

Taken = Generator[Step, None, bool]
"""Steps, and then whether the program has taken the frame, so that nobody else sees it."""

HIDDEN = ("TCP", "UDP", "ICMP", "ICMPv6")
"""The protocols whose packets can be hidden."""

Passed = Generator[Step, None, Packet | None]
"""Steps, and then the frame that goes on, if one does."""

MAGIC, MAGIC_HOST, MAGIC_IDENTITY = 0xF00, 0xC00, 0xF00
"""The part of a mark that says what it means, and two meanings: sent by the machine itself, sent by that identity."""

MARK_OVERLAY, MARK_ENCRYPTED = 0x400, 0x1E00
"""What the outer packets of the tunnel and of WireGuard are marked with."""

MARK_ENCRYPT, MARK_DECRYPT = 0xE00, 0xD00
"""What IPsec is to encrypt, and to decrypt; above stand the number of the key (4 bits) and of the machine (16)."""

TUNNELLED = "what is in the tunnel"


class Redirector:
    """The programs of one machine, and the flows they know."""

    __slots__ = ("_answers", "_datapath", "_flows", "_hidden", "_opened", "_shown", "at")

    def __init__(self, at: Namespace, datapath: Datapath) -> None:
        self.at = at
        self._datapath = datapath
        self._flows: set[tuple[int, Tuple]] = set()  # (endpoint, tuple) of what was let through
        self._answers: set[tuple[int, Tuple]] = set()  # (endpoint, tuple) of the answers to that
        self._opened: set[Tuple] = set()  # tuples of flows that containers here began
        self._hidden: dict[Tuple, Tuple] = {}  # as a container sends it: as it goes on
        self._shown: dict[Tuple, Tuple] = {}  # the answer to what goes on: as the container sent it

    def become(self, datapath: Datapath) -> None:
        """Look into other maps, and forget nothing."""
        self._datapath = datapath

    # 1. A container sends

    def ingress(self, link: Link, frame: Packet) -> Passed:
        """What the program at a device's ingress makes of a frame."""
        own = self._datapath.by_device.get((link.name, 6 if ":" in frame.ip.src else 4))
        if own is not None and self._datapath.runs(Program.FROM_CONTAINER, link.name):
            yield from self._from_container(own, link, frame)
            return None
        if self._datapath.key and self._datapath.runs(Program.FROM_OUTSIDE, link.name):
            skb = Skb(frame.popped(), link.name)
            if skb.protocol == "ESP":
                yield from self._sealed(link, skb)
                return None
        if self._shown and self._datapath.runs(Program.FROM_OUTSIDE, link.name):
            return (yield from self._answered(link, frame))
        return frame

    def _from_container(self, own: Endpoint, link: Link, frame: Packet) -> Steps:
        """A container has sent a frame."""
        skb = Skb(frame.popped(), link.name)
        how = _how(Program.FROM_CONTAINER, link)
        if skb.src != own.address:
            why = f"{how}: {skb.src} is not the address of this endpoint"
            yield self._dropped(link, skb, why, Reason.INVALID_SOURCE)
            return
        peer = self._datapath.identity(skb.dst)
        if not (yield from self._allowed(own, Direction.EGRESS, peer, skb, link, how)):
            return
        there = self._datapath.by_address.get(skb.dst)
        if there is not None and there.device:
            yield from self._to_endpoint(there, own.identity, skb, link, how)
            return
        known = self._datapath.lookup(skb.dst)
        if there is None and known is not None and known.tunnel and self._datapath.tunnel:
            yield from self._wrapped(own.identity, known.tunnel, skb, frame, link, how, known)
            return
        yield from self._up(own, skb, link, how, there or known)

    def _up(self, own: Endpoint, skb: Skb, link: Link, how: str, entry: RuleText | None) -> Steps:
        """Up the stack, with the sender's identity as the mark."""
        skb.mark = MAGIC_IDENTITY | (own.identity & 0xFFFF) << 16 | own.identity >> 16
        if not (yield from self.at.one_hop(skb)):
            return
        why = f"{how}: {skb.dst} is no endpoint here and behind no tunnel: up the stack"
        if isinstance(entry, Endpoint):
            why = f"{how}: {skb.dst} is an address of this machine: up the stack"
        yield Step(self.at.name, link.name, Action.ROUTE, skb.packet, why, entry)
        yield from self.at.taken_up(skb)

    # 2. A frame comes out of the tunnel

    def overlay(self, link: Link, frame: Packet, identity: int) -> Taken:
        """What the program at the tunnel device makes of a frame that came with that identity."""
        if not self._datapath.runs(Program.FROM_OVERLAY, link.name):
            return False
        skb = Skb(frame.popped(), link.name)
        how = _how(Program.FROM_OVERLAY, link)
        there = self._datapath.by_address.get(skb.dst)
        if there is not None and there.device:
            yield from self._to_endpoint(there, identity, skb, link, how)
            return True
        if not (yield from self.at.one_hop(skb)):
            return True
        why = f"{how}: {skb.dst} is no endpoint here: by {self._datapath.net} to {self._datapath.host}"
        yield Step(self.at.name, link.name, Action.ROUTE, skb.packet, why, there)
        net, host = self._link(self._datapath.net), self._link(self._datapath.host)
        if net is None or host is None:
            yield self._dropped(link, skb, f"{how}: {self._datapath.net} is not there", Reason.UNROUTABLE)
            return True
        yield from self.at.transmitted(net, skb.packet.pushed(Ethernet(net.mac, host.mac)))
        return True

    # 3. The machine itself sends, or routes

    def egress(self, link: Link, frame: Packet, mark: int) -> Passed:
        """What the program at a device's egress makes of a frame; what that of cilium_host lets pass goes to the pair's
        other end.
        """
        datapath = self._datapath
        if datapath.runs(Program.TO_OUTSIDE, link.name):
            frame = yield from self._hide(link, frame)
            if datapath.key:
                return (yield from self._to_transform(link, frame, mark))
            return (yield from self._to_network(link, frame)) if datapath.encrypts else frame
        if not datapath.runs(Program.FROM_HOST, link.name):
            return frame
        skb = Skb(frame.popped(), link.name)
        how = _how(Program.FROM_HOST, link)
        identity = self._sender(skb, mark)
        there = datapath.by_address.get(skb.dst)
        if there is not None and there.device:
            yield from self._to_endpoint(there, identity, skb, link, how)
            return None
        known = datapath.lookup(skb.dst)
        if there is None and known is not None and known.tunnel and datapath.tunnel:
            yield from self._wrapped(identity, known.tunnel, skb, frame, link, how, known)
            return None
        if there is None and (known is None or is_outside(known.identity)):
            why = f"{how}: no entry says where {skb.dst} is, and back to the stack it would go in circles"
            yield self._dropped(link, skb, why, Reason.UNROUTABLE, known)
            return None
        net = self._link(datapath.net)
        return skb.packet.pushed(Ethernet(link.mac, net.mac)) if net is not None else frame

    def _sender(self, skb: Skb, mark: int) -> int:
        """Who sent a packet that comes into cilium_host."""
        if mark & MAGIC == MAGIC_IDENTITY:
            return (mark >> 16 & 0xFFFF) | (mark & 0xFF) << 16
        if mark & MAGIC == MAGIC_HOST:
            return HOST
        found = self._datapath.identity(skb.src)
        return found if found != HOST else WORLD

    # 4. A frame leaves by the network card

    def _to_network(self, link: Link, frame: Packet) -> Passed:
        """What the program at the network card makes of a frame: what is in the tunnel is encrypted whole; else what a
        container here sends to a container elsewhere.
        """
        skb = Skb(frame.popped(), link.name)
        known = self._datapath.lookup(skb.dst)
        what = self._secret(skb, known)
        if not what:
            return frame
        device = self._link(self._datapath.encrypts)
        how = _how(Program.TO_OUTSIDE, link)
        if device is None:
            why = f"{how}: {what} must be encrypted, and {self._datapath.encrypts} is not there"
            yield self._dropped(link, skb, why, Reason.UNENCRYPTED, known)
            return None
        yield Step(self.at.name, link.name, Action.ROUTE, skb.packet, f"{how}: {what} goes to {device.name}", known)
        yield from self.at.encrypted(device, skb, MARK_ENCRYPTED)
        return None

    def _secret(self, skb: Skb, known: Known | None) -> str:
        """What it is about a packet that must be encrypted, in words, or nothing."""
        headers = skb.packet.headers
        if len(headers) > 2 and isinstance(headers[2], VXLAN):
            return TUNNELLED
        own = self._datapath.by_address.get(skb.src)
        secret = known is not None and known.key and own is not None and own.device
        return "what goes from container to container" if secret else ""

    def _to_transform(self, link: Link, frame: Packet, mark: int) -> Passed:
        """The same with IPsec: a mark says for which machine and by which key, and xfrm does the rest."""
        skb = Skb(frame.popped(), link.name)
        known = self._datapath.lookup(skb.dst)
        what = "" if mark & MAGIC == MARK_ENCRYPT else self._secret(skb, known)
        if not what:
            return frame
        how = _how(Program.TO_OUTSIDE, link)
        remote = skb.dst if what is TUNNELLED or known is None else known.tunnel
        node = self._datapath.nodes.get(remote)
        if node is None:
            yield self._dropped(link, skb, f"{how}: {what} must be encrypted", Reason.NO_NODE, known)
            return None
        skb.mark = node << 16 | self._datapath.key << 12 | MARK_ENCRYPT
        why = f"{how}: {what} is to be encrypted for {remote}, node {node}: its mark is {skb.mark:#x}"
        yield Step(self.at.name, link.name, Action.ROUTE, skb.packet, why, known)
        return None if (yield from self.at.transformed(link, skb)) else frame

    def _sealed(self, link: Link, skb: Skb) -> Steps:
        """Something in ESP has come: by its mark, xfrm finds the state that unwraps what that machine sends."""
        how, node = _how(Program.FROM_OUTSIDE, link), self._datapath.nodes.get(skb.src)
        if node is None:
            yield self._dropped(link, skb, f"{how}: {skb.src} is no machine of the group", Reason.NO_NODE)
            return
        skb.mark = node << 16 | MARK_DECRYPT
        why = f"{how}: it is encrypted, and from node {node}: its mark is {skb.mark:#x}"
        yield Step(self.at.name, link.name, Action.ROUTE, skb.packet, why)
        yield from self.at.taken_up(skb)

    def unsealed(self, skb: Skb) -> Steps:
        """What xfrm unwrapped comes once more by the network card, and goes to cilium_host, which knows where to."""
        link, host, net = map(self._link, (skb.iif, self._datapath.host, self._datapath.net))
        if link is None or host is None or net is None or not self._datapath.runs(Program.FROM_OUTSIDE, skb.iif):
            yield from self.at.taken_up(skb)
            return
        why = f"{_how(Program.FROM_OUTSIDE, link)}: it was encrypted, and goes by {host.name}"
        yield Step(self.at.name, link.name, Action.ROUTE, skb.packet, why)
        yield from self.at.transmitted(host, skb.packet.pushed(Ethernet(host.mac, net.mac)))

    def _hide(self, link: Link, frame: Packet) -> Generator[Step, None, Packet]:
        """A container's packet to the outside gets the machine's address, if the container began to speak."""
        skb = Skb(frame.popped(), link.name)
        key = skb.tuple
        if key not in self._opened or skb.ip.offset or skb.protocol not in HIDDEN:
            return frame
        behind = self._datapath.hidden_as(skb.src, skb.dst)
        if not behind:
            return frame
        sent = self._hidden.get(key)
        if sent is None:
            sent = self._hidden[key] = self._free(key._replace(src=behind))
            self._shown[sent.mirrored()] = key
        skb.put(rewritten(skb.packet, skb.ip, src=sent.src, sport=sent.sport))
        why = f"{_how(Program.TO_OUTSIDE, link)}: {key.src} hides behind {behind} from all outside"
        yield Step(self.at.name, link.name, Action.SNAT, skb.packet, why, self._datapath.lookup(skb.dst))
        return skb.packet.pushed(frame.headers[0])

    def _free(self, sent: Tuple) -> Tuple:
        """The tuple with its own port, or else the next that no other flow to the same place has."""
        ports = (*range(sent.sport, 65536), *range(1024, sent.sport))
        free = (wanted for port in ports if (wanted := sent._replace(sport=port)).mirrored() not in self._shown)
        return next(free, sent)

    def _answered(self, link: Link, frame: Packet) -> Generator[Step, None, Packet]:
        """An answer to what was hidden, or an error about it, gets the container's address back."""
        skb = Skb(frame.popped(), link.name)
        asked = self._shown.get(_known_by(skb)) if not skb.ip.offset else None
        if asked is None:
            return frame
        header = skb.packet.headers[1]
        if isinstance(header, ICMP) and header.about is not None:
            about = rewritten(header.about, header.about.ip, src=asked.src, sport=asked.sport)
            skb.put(_readdressed(skb.packet, asked.src, about))
        else:
            skb.put(rewritten(skb.packet, skb.ip, dst=asked.src, dport=asked.sport))
        why = f"{_how(Program.FROM_OUTSIDE, link)}: it answers what {asked.src} sent from behind this machine"
        yield Step(self.at.name, link.name, Action.CONNTRACK, skb.packet, why)
        return skb.packet.pushed(frame.headers[0])

    # Where packets go

    def _to_endpoint(self, there: Endpoint, identity: int, skb: Skb, link: Link, how: str) -> Steps:
        """To a container here, if its policy lets the packet in."""
        if not (yield from self.at.one_hop(skb)):
            return
        if not (yield from self._allowed(there, Direction.INGRESS, identity, skb, link, how)):
            return
        device = self._link(there.device)
        if device is None:
            yield self._dropped(link, skb, f"{how}: {there.device} is not there", Reason.UNROUTABLE, there)
            return
        why = f"{how}: {skb.dst} is endpoint {there.number}, to {there.device}; it comes from {self._who(identity)}"
        yield Step(self.at.name, link.name, Action.ROUTE, skb.packet, why, there)
        yield from self.at.transmitted(device, skb.packet.pushed(Ethernet(there.node_mac, there.mac)))

    def _wrapped(
        self, identity: int, remote: str, skb: Skb, frame: Packet, link: Link, how: str, known: RuleText
    ) -> Steps:
        """Into the tunnel, with the sender's identity as the network identifier; the machine itself is another's
        remote node.
        """
        said = self._abroad(identity, skb.version)
        device = self._link(self._datapath.tunnel)
        if device is None:
            why = f"{how}: {self._datapath.tunnel} is not there"
            yield self._dropped(link, skb, why, Reason.UNROUTABLE, known)
            return
        why = f"{how}: {skb.dst} is behind {remote}: into {device.name} as {self._who(said)}"
        yield Step(self.at.name, link.name, Action.ROUTE, skb.packet, why, known)
        mark = MARK_OVERLAY if self._datapath.runs(Program.TO_OVERLAY, device.name) else 0
        yield from self.at.into_tunnel(device, skb.packet.pushed(frame.headers[0]), remote, said, mark)

    def _abroad(self, identity: int, of: int) -> int:
        """An identity as other machines know it: a block of addresses is no more than the world to them."""
        if identity <= LOCAL:
            return REMOTE_NODE if identity == HOST else identity
        everywhere = f"{ANY[of]}/0"
        return next((each.identity for each in self._datapath.known if each.prefix == everywhere), WORLD)

    def _allowed(
        self, own: Endpoint, direction: Direction, peer: int, skb: Skb, link: Link, how: str
    ) -> Generator[Step, None, bool]:
        """Whether an endpoint's policy lets a packet pass. Answers of a known flow pass, and errors about it; what goes
        the way of its first packet is asked about each time.
        """
        flow = own.number, _known_by(skb)
        known = flow in self._flows
        if skb.ip.offset or flow in self._answers or (known and _is_error(skb)):
            return True
        permit = self._datapath.permit(own.number, direction, peer, skb.protocol, skb.dport)
        who = f"{'to' if direction is Direction.EGRESS else 'from'} {self._who(peer)}"
        judged = f"{how}: {direction.lower()} of endpoint {own.number} {who} is"
        if permit is None:
            origin = self._datapath.selected.get((own.number, direction), ())
            nothing = Missing(own.number, direction, peer, skb.protocol, skb.dport, origin)
            selected = f": no entry is for it, and it is selected by {', '.join(origin)}" if origin else ""
            yield self._dropped(link, skb, f"{judged} not allowed{selected}", Reason.POLICY, nothing)
            return False
        by = f" by {', '.join(permit.origin)}" if permit.origin else ""
        if permit.deny:
            yield self._dropped(link, skb, f"{judged} not allowed{by}", Reason.DENIAL, permit)
            return False
        if known:
            return True
        self._flows.add(flow)
        self._answers.add((own.number, skb.tuple.mirrored()))
        if direction is Direction.EGRESS:
            self._opened.add(skb.tuple)
        proxy = f", and goes through the proxy at port {permit.proxy}" if permit.proxy else ""
        if permit.proxy:
            wanted = self._datapath.requests(own.number, direction, peer, skb.protocol, skb.dport)
            permit = permit if wanted == permit.requests else msgspec.structs.replace(permit, requests=wanted)
        yield Step(self.at.name, link.name, Action.RULE, skb.packet, f"{judged} allowed{by}{proxy}", permit)
        return True

    def _dropped(self, link: Link, skb: Skb, why: str, reason: Reason, entry: RuleText | None = None) -> Step:
        return Step(self.at.name, link.name, Action.DROP, skb.packet, f"{why} ({reason})", entry)

    def _link(self, name: str) -> Link | None:
        try:
            return self.at.host.link(name)
        except UnknownName:
            return None

    def _who(self, identity: int) -> str:
        first = self._datapath.named(identity)[0]
        return f"identity {identity}" if first == f"{identity}" else f"identity {identity} ({first})"


def _readdressed(packet: Packet, to: str, about: Packet) -> Packet:
    """An error with another receiver, about the packet as he sent it."""
    header = packet.headers[1]
    assert isinstance(header, ICMP)
    outer = msgspec.structs.replace(packet.ip, dst=to)
    return Packet((outer, ICMP(header.message, header.mtu, header.ident, about)), packet.payload)


def _how(program: Program, link: Link) -> str:
    return f"{program} at {program.place} of {link.name}"


def _known_by(skb: Skb) -> Tuple:
    """The tuple by which a packet's flow is known; of an ICMP error, that of the packet it is about."""
    header = skb.packet.headers[1] if not skb.ip.offset and len(skb.packet.headers) > 1 else None
    if isinstance(header, ICMP) and header.about is not None:
        return Skb(header.about).tuple.mirrored()
    return skb.tuple


def _is_error(skb: Skb) -> bool:
    header = skb.packet.headers[1] if len(skb.packet.headers) > 1 else None
    return isinstance(header, ICMP) and header.about is not None
