"""How does a frame cross a mesh of machines?

Some overlays are one Ethernet segment over many machines: a frame keeps its MAC addresses and its TTL, and a *router*
on every machine finds out behind which other machine a MAC is, by the frames that came from there. It carries the frame
to that machine, and if the two have no connection, to one that is nearer: a machine in between takes the outer headers
off, looks for whom the frame is, and wraps it again.

Four wrappings, all to a UDP port, with DF set in the outer header as the first two want it:

    vxlan       in the kernel; the network identifier holds two numbers of 12 bits: from whom, and for whom
    vxlan in esp    the same, encrypted by the kernel (transport mode)
    sleeve      by the router, a program: names of sender, source and destination before the frame
    sleeve, encrypted   the same, unreadable but for the name of the sender

The kernel cuts nothing and tells the pods nothing when a packet with VXLAN is too long for the underlay. The program
does: it answers fragmentation needed in the name of the destination, or cuts what may be cut.

Who has a MAC follows from the state, as behind a bridge's flooded port; what a router has learnt lives in its machine.
Here an encrypted packet passes the machine's own rules once, as ESP; a real one passes them before it is encrypted too.

Not modelled: heartbeats, the measuring of path MTUs (the sender knows the MTU of its own device only), several frames
in one datagram, broadcasts other than ARP's. RFC 7348, RFC 4303.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING

from k8snetlab.linux.host import Host
from k8snetlab.linux.link import Link, Mesh, MeshPeer, Wrapping
from k8snetlab.linux.skb import Skb
from k8snetlab.packet import ESP, ICMP, UDP, VXLAN, Ethernet, Header, IPv4, Packet, Sleeve
from k8snetlab.trace import Action, Step

if TYPE_CHECKING:
    from k8snetlab.linux.netns import Namespace

__all__ = ["entrance", "overhead", "received", "sent"]

NUMBER_BITS = 12
SPI = 0x1000
"""Security parameter indexes begin somewhere: they are drawn at random by real routers."""

_KERNEL = (Wrapping.VXLAN, Wrapping.ESP)
_SECRET = (Wrapping.ESP, Wrapping.NACL)


def overhead(wrapping: Wrapping) -> int:
    """Bytes that a packet becomes longer between machines, the inner Ethernet header counted (not ESP's padding of up
    to 3).

    >>> [overhead(each) for each in Wrapping]
    [50, 84, 62, 86]
    """
    outer = IPv4.length + UDP.length
    if wrapping in _KERNEL:
        inside = VXLAN.length + (ESP(0).length if wrapping is Wrapping.ESP else 0)
    else:
        inside = Sleeve("", "", "", wrapping is Wrapping.NACL).length
    return outer + inside + Ethernet.length


# In


def sent(at: Namespace, link: Link, mesh: Mesh, frame: Packet, mark: int = 0) -> Iterator[Step]:
    """A frame enters the mesh at this machine."""
    ethernet = frame.headers[0]
    assert isinstance(ethernet, Ethernet)
    peer = _behind(at, link, mesh, ethernet.dst)
    if peer is None:
        why = f"no machine that {mesh.name} reaches has {ethernet.dst} behind it"
        yield Step(at.name, link.name, Action.LOST, frame, why)
        return
    yield from _carried(at, link, mesh, frame, peer, (mesh.number, mesh.name), mark)


def _behind(at: Namespace, link: Link, mesh: Mesh, mac: str) -> MeshPeer | None:
    """The machine that has a MAC: the one that a frame from it came from, else the one that it would be found at."""
    known = at.ports.get((link.name, mac))
    learnt = next((peer for peer in mesh.peers if peer.host == known), None)
    return learnt or at.world.beyond(at.host, link, mac)


def _carried(
    at: Namespace, link: Link, mesh: Mesh, frame: Packet, peer: MeshPeer, origin: tuple[int, str], mark: int
) -> Iterator[Step]:
    """Wrap a frame and send it to the next machine on the way to a peer."""
    for piece in (yield from _fitting(at, link, mesh, frame, peer, own=origin[1] == mesh.name)):
        outer = piece.pushed(*_outer(at, mesh, piece, peer, origin))
        relayed = "" if peer.next_host == peer.host else f", by {peer.next_host}, which relays it"
        why = f"for {peer.host}{relayed}: {outer.length - piece.length + Ethernet.length} bytes more"
        yield Step(at.name, link.name, Action.ENCAPSULATE, outer, why)
        skb = Skb(outer)
        skb.mark = mark
        at.world.later(at.wrapped(skb, f"{link.name} sends the frame to {peer.via} ({mesh.wrapping})"))


def _outer(at: Namespace, mesh: Mesh, frame: Packet, peer: MeshPeer, origin: tuple[int, str]) -> tuple[Header, ...]:
    number, name = origin
    if mesh.wrapping not in _KERNEL:
        headers = UDP(mesh.port, mesh.port), Sleeve(mesh.name, name, peer.name, mesh.wrapping in _SECRET)
        return (IPv4(mesh.local, peer.via, "UDP", df=frame.ip.df), *headers)
    vxlan = VXLAN(number | peer.number << NUMBER_BITS)
    udp = UDP(at.outer_port(frame), mesh.port)
    if mesh.wrapping is Wrapping.VXLAN:
        return IPv4(mesh.local, peer.via, "UDP"), udp, vxlan
    trailer = 2
    pad = -(udp.length + vxlan.length + frame.length + trailer) % 4
    return IPv4(mesh.local, peer.via, "ESP"), ESP(SPI + mesh.number, pad), udp, vxlan


def _fitting(
    at: Namespace, link: Link, mesh: Mesh, frame: Packet, peer: MeshPeer, *, own: bool
) -> Generator[Step, None, tuple[Packet, ...]]:
    """The frame, or what the router makes of one that would be too long: fragments, or an error to its sender."""
    packet, route = frame.popped(), at.host.find(peer.via)
    if mesh.wrapping in _KERNEL or route is None or not route.device:
        return (frame,)
    room = (route.mtu or at.host.link(route.device).mtu) - overhead(mesh.wrapping)
    if packet.length <= room:
        return (frame,)
    ethernet = frame.headers[0]
    assert isinstance(ethernet, Ethernet)
    too_long = f"{packet.length} bytes do not fit: {room} are left of the MTU of {route.device}"
    if packet.ip.version == 4 and not packet.ip.df:
        yield Step(at.name, link.name, Action.FRAGMENT, frame, f"{too_long}, so the router cuts the packet")
        return tuple(piece.pushed(ethernet) for piece in at.pieces(packet, room))
    if own and packet.ip.version == 4 and not _is_error(packet):
        error = ICMP("fragmentation-needed", room, 0, Packet(packet.headers[:2]))
        answer = Packet((IPv4(packet.ip.dst, packet.ip.src, "ICMP", df=False), error))
        says = f"the router tells {packet.ip.src}, as if it were {packet.ip.dst}: fragmentation needed"
        yield Step(at.name, link.name, Action.ICMP, answer, says)
        at.world.send(at.transmitted(link, answer.pushed(Ethernet(ethernet.dst, ethernet.src))))
    yield Step(at.name, link.name, Action.DROP, frame, f"{too_long}, and it may not be cut (DF)")
    return ()


def _is_error(packet: Packet) -> bool:
    header = packet.headers[1]
    return isinstance(header, ICMP) and header.is_error


# Out


def entrance(host: Host, skb: Skb) -> Link | None:
    """The entrance to a mesh that a packet for this machine is for, if it is for one."""
    meshes = host.meshes
    if not meshes:
        return None
    inner = skb.packet.headers[2] if skb.protocol == "ESP" and len(skb.packet.headers) > 2 else None
    port = inner.dport if isinstance(inner, UDP) else skb.dport
    return meshes.get(port) if skb.protocol in ("UDP", "ESP") else None


def received(at: Namespace, link: Link, mesh: Mesh, skb: Skb) -> Iterator[Step]:
    """A wrapped frame arrives: for this machine, or for another that it is nearer to."""
    headers = skb.packet.headers
    start = next((place for place, header in enumerate(headers) if isinstance(header, Ethernet)), 0)
    ends = _ends(mesh, headers[:start])
    if ends is None:
        why = f"{mesh.name} expects frames in {mesh.wrapping}, and cannot read this"
        yield Step(at.name, skb.iif, Action.DROP, skb.packet, why)
        return
    source, target = ends
    frame = skb.packet.popped(start)
    less = skb.packet.length - frame.length + Ethernet.length
    why = f"{link.name} takes the outer headers off: {less} bytes less"
    yield Step(at.name, link.name, Action.DECAPSULATE, frame, why)
    if target not in (mesh.number, mesh.name):
        yield from _relayed(at, link, mesh, frame, ends, skb.mark)
        return
    ethernet = frame.headers[0]
    assert isinstance(ethernet, Ethernet)
    origin = _known(mesh, source)
    if origin is not None:
        at.ports[link.name, ethernet.src] = origin.host
    at.world.later(at.switched(link, frame, skb.mark) if link.master else at.transmitted(link, frame))


def _ends(mesh: Mesh, outer: Sequence[Header]) -> tuple[int, int] | tuple[str, str] | None:
    """From whom a wrapped frame is and for whom; nothing, if it is not wrapped as this mesh does."""
    secret = mesh.wrapping in _SECRET
    last = outer[-1] if outer else None
    if mesh.wrapping in _KERNEL and isinstance(last, VXLAN):
        readable = any(isinstance(header, ESP) for header in outer) == secret
        return (last.vni & (1 << NUMBER_BITS) - 1, last.vni >> NUMBER_BITS) if readable else None
    if mesh.wrapping not in _KERNEL and isinstance(last, Sleeve) and last.encrypted == secret:
        return last.src, last.dst
    return None


def _known(mesh: Mesh, end: int | str) -> MeshPeer | None:
    return next((peer for peer in mesh.peers if end in (peer.number, peer.name)), None)


def _relayed(
    at: Namespace, link: Link, mesh: Mesh, frame: Packet, ends: tuple[int, int] | tuple[str, str], mark: int
) -> Iterator[Step]:
    """Send a frame on that is between two others."""
    source, target = (_known(mesh, end) for end in ends)
    if source is None or target is None:
        yield Step(at.name, link.name, Action.LOST, frame, f"it is for {ends[1]}, whom {mesh.name} does not reach")
        return
    yield from _carried(at, link, mesh, frame, target, (source.number, source.name), mark)
