"""Which device does the frame leave by, and who is at its other end?

A link is a device of one machine as `ip link` shows it. A *veth* is one end of a virtual cable, whose other end is in
another network namespace; a *nic* is plugged into a switch; a *bridge* is a switch in software, and devices with
`master` set are its ports; a *vxlan* or *geneve* device wraps whole frames into UDP, an *ipip* device packets into
packets (IP in IP: 20 bytes, and no frame inside); *loopback* leads back to the machine itself; a *dummy* leads nowhere,
and is there to hold addresses; an *openvswitch* device is a switch whose flows a program writes (Open vSwitch's
datapath), and no rule of netfilter is asked about what passes it.

Neighbours (the ARP table: address → MAC) belong to a link, and so do the FDB entries of a vxlan device (MAC → remote
machine) and of a bridge (MAC → port). Who asks for the MAC of an address is answered by the machine that has it, or by
a program that listens for such questions on some device of another machine (`Responder`). A *wireguard* device has
peers instead, and no use for MACs: see `wireguard`.

Some devices are an entrance to a *mesh*: whatever frame comes to one is carried to a machine of the mesh that has its
MAC behind it, perhaps by others that relay it. `Mesh` is what the router there has worked out.

Not modelled: carrier loss, queueing disciplines, VLANs, bonding, spanning tree, offloads. Guide section 2.1;
`ip-link(8)`, `bridge(8)`, RFC 2003, RFC 7348.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from k8snetlab.address import Prefix, family, text
from k8snetlab.linux.wireguard import Wireguard

__all__ = [
    "TUNNELS", "Address", "FdbEntry", "Link", "LinkKind", "Mesh", "MeshPeer", "Neighbour", "Peer", "Responder",
    "Vxlan", "Wrapping", "link_local", "loopback",
]  # fmt: skip


class LinkKind(StrEnum):
    """The kinds of device; the values are those of `ip link add … type KIND`, and `nic` is hardware."""

    LOOPBACK = "loopback"
    NIC = "nic"
    VETH = "veth"
    BRIDGE = "bridge"
    VXLAN = "vxlan"
    GENEVE = "geneve"
    IPIP = "ipip"
    DUMMY = "dummy"
    WIREGUARD = "wireguard"
    DATAPATH = "openvswitch"


TUNNELS = (LinkKind.VXLAN, LinkKind.GENEVE, LinkKind.IPIP, LinkKind.WIREGUARD)
"""The kinds that put packets into other packets."""


class Address(msgspec.Struct, frozen=True):
    """An address on a link: `Address("10.244.1.1", 24)`. `scope` is `global`, `link` or `host` (`ip-address(8)`)."""

    ip: str
    length: int
    scope: str = "global"

    @property
    def prefix(self) -> Prefix:
        """The network the address is in."""
        return Prefix.of(f"{self.ip}/{self.length}")

    @property
    def family(self) -> int:
        return family(self.ip)

    def __str__(self) -> str:
        return f"{self.ip}/{self.length}"


class Peer(msgspec.Struct, frozen=True):
    """The other end of a cable: a link of another host (or of the same one)."""

    host: str
    link: str


class Vxlan(msgspec.Struct, frozen=True):
    """What makes a device a tunnel: network identifier, own outer address, outer device, UDP port. An `external` one
    is told for each packet where to send it and with which identifier, and takes any (`collect metadata`).
    """

    vni: int
    local: str
    device: str
    port: int = 4789
    learning: bool = False
    external: bool = False


class Wrapping(StrEnum):
    """How a mesh carries frames from machine to machine."""

    VXLAN = "vxlan"
    ESP = "vxlan in esp"
    SLEEVE = "sleeve"
    NACL = "sleeve, encrypted"


class MeshPeer(msgspec.Struct, frozen=True):
    """Another machine of a mesh: its name there and its number of 12 bits, the machine and the device at which frames
    for it come out, and the machine and underlay address that they are sent to next (its own, or a relay's).
    """

    name: str
    number: int
    host: str
    link: str
    next_host: str
    via: str


class Mesh(msgspec.Struct, frozen=True):
    """What the router of a mesh knows: its own name and number, its underlay address, the UDP port, how frames are
    carried, and the machines that can be reached.
    """

    name: str
    number: int
    local: str
    port: int
    wrapping: Wrapping
    peers: tuple[MeshPeer, ...] = ()


class Link(msgspec.Struct, frozen=True):
    """One device. `index` is the interface index; `master` names the bridge whose port it is; `hairpin` lets a bridge
    port send a frame back where it came from; `peer_index` is the index of the other end, which `ip` shows as
    `@ifN`. A device without `arp` asks for no neighbours: whatever leaves by it goes to its other end.
    """

    name: str
    index: int
    kind: LinkKind
    mac: str = "00:00:00:00:00:00"
    mtu: int = 1500
    up: bool = True
    master: str = ""
    peer: Peer | None = None
    addresses: tuple[Address, ...] = ()
    vxlan: Vxlan | None = None
    hairpin: bool = False
    peer_index: int = 0
    wireguard: Wireguard | None = None
    arp: bool = True
    mesh: Mesh | None = None


class Neighbour(msgspec.Struct, frozen=True):
    """A permanent line of the ARP or NDP table: `10.244.2.0 dev flannel.1 lladdr … PERMANENT`. What is learnt is no
    state of the machine's making and stands in the session instead.
    """

    ip: str
    device: str
    mac: str


class FdbEntry(msgspec.Struct, frozen=True):
    """A permanent forwarding entry: on a vxlan device `MAC dst ADDRESS`, on a bridge `MAC dev PORT` (then `dst` is
    empty).
    """

    mac: str
    device: str
    dst: str = ""


class Responder(msgspec.Struct, frozen=True):
    """A program that answers ARP and NDP questions for an address that is on no device of the machine. What comes for
    that address then arrives here, and the machine's rules and routes say what becomes of it.
    """

    address: str
    device: str
    program: str = ""


def link_local(mac: str) -> str:
    """The IPv6 address that a device gives itself: `fe80::` and its MAC address (RFC 4291, appendix A).

    >>> link_local("ee:ee:ee:ee:ee:ee")
    'fe80::ecee:eeff:feee:eeee'
    """
    octets = bytes.fromhex(mac.replace(":", ""))
    own = bytes((octets[0] ^ 2, *octets[1:3], 0xFF, 0xFE, *octets[3:]))
    return text((0xFE80 << 112) + int.from_bytes(own, "big"), 6)


def loopback(*extra: str) -> Link:
    """The device `lo` with 127.0.0.1 and ::1, and `extra` addresses."""
    own = (Address("127.0.0.1", 8, "host"), Address("::1", 128, "host"))
    more = tuple(Address(ip, 32 if family(ip) == 4 else 128) for ip in extra)
    return Link("lo", 1, LinkKind.LOOPBACK, mtu=65536, addresses=own + more)
