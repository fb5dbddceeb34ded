"""Packets that do not fit: cut, told, or lost without a word."""

import msgspec

from k8snetlab.linux.host import Network
from k8snetlab.linux.netfilter import ACCEPT, DROP, CtState, OutInterface, Patch
from k8snetlab.linux.route import Route
from k8snetlab.linux.socket import Listener
from tests.linux.lab import (
    A6,
    B6,
    C6,
    DROPPED,
    M1,
    M2,
    OUTSIDE,
    SILENT,
    TRACKING,
    VIP,
    A,
    B,
    C,
    Flow,
    Overlay,
    add,
    check,
    each,
    filters,
    lab,
    masquerade,
    rule,
    ruled,
    service,
    set_link,
    to,
)

OUT = masquerade(OutInterface("eth0"))
UDP_SERVICE = service(C, 53, target=53, protocol="UDP")
TRACKED6 = filters(rule("filter", "FORWARD", CtState(("NEW", "ESTABLISHED")), to=ACCEPT), family=6)
NEEDED = "fragmentation-needed"


def narrow_router(mtu: int = 1300) -> Network:
    """The router's way to the containers is narrow."""
    network = lab()
    routes = tuple(msgspec.structs.replace(route, mtu=mtu if route.via else 0) for route in network["router"].routes)
    return network.replacing(msgspec.structs.replace(network["router"], routes=routes))


def narrow_pods(*patches: Patch) -> Network:
    """The bridge of m2 and the cables behind it are narrow."""
    network = ruled(*patches)
    for name, device in (("c", "eth0"), ("m2", "veth-c"), ("m2", "veth-d"), ("d", "eth0"), ("m2", "cni0")):
        network = set_link(network, name, device, mtu=1300)
    return network


def short_pieces(*patches: Patch) -> Network:
    """The cable of a is narrow and so is the card of m2, while m1 has more room: m2 is sent what a could send."""
    network = set_link(set_link(ruled(*patches), "a", "eth0", mtu=1400), "m2", "eth0", mtu=1400)
    return add(network, "m2", listeners=(Listener("UDP", 10250, program="agent"),))


def narrow_ends(*patches: Patch) -> Network:
    """The cables of a and c are narrow, and so is the bridge of m2, but not the tunnel between the machines."""
    network = lab(Overlay.VXLAN, rules={"m1": patches, "m2": patches})
    for name, device in (
        ("a", "eth0"),
        ("c", "eth0"),
        ("m2", "veth-c"),
        ("m2", "veth-d"),
        ("d", "eth0"),
        ("m2", "cni0"),
    ):
        network = set_link(network, name, device, mtu=1400)
    return network


def narrow_underlay(*patches: Patch) -> Network:
    """The machines' own cards are too narrow for the tunnel."""
    network = ruled(*patches, on="m2", overlay=Overlay.VXLAN)
    for name in ("m1", "m2"):
        network = set_link(network, name, "eth0", mtu=1400)
    return network


def wide_pod() -> Network:
    """A container whose MTU leaves no room for the tunnel's headers, as far as its own bridge."""
    network = lab(Overlay.VXLAN)
    for name, device in (("a", "eth0"), ("m1", "veth-a"), ("m1", "cni0")):
        network = set_link(network, name, device, mtu=1500)
    return network


def port_of_b(mtu: int) -> Network:
    """The cable of b has this MTU at both ends; the bridge has 1500."""
    return set_link(set_link(lab(), "b", "eth0", mtu=mtu), "m1", "veth-b", mtu=mtu)


def route_mtu(name: str, via: str, mtu: int) -> Network:
    """The route to c says an MTU of its own."""
    return add(lab(), name, routes=(Route(f"{C}/32", "eth0", via, mtu=mtu),))


def udp(name: str, network: Network, source: str, address: str, size: int, **more: object) -> Flow:
    """A datagram of so many bytes to port 53."""
    return msgspec.structs.replace(Flow(name, network, source, address, 53, "UDP", size=size), **more)


def ping(name: str, network: Network, size: int, **more: object) -> Flow:
    """A ping of so many bytes from a to c."""
    return msgspec.structs.replace(Flow(name, network, "a", C, 0, "ICMP", size=size), **more)


FLOWS = (
    # The sender's own device
    udp("it fits", lab(), "a", C, 1400, taker="c", seen=A),
    udp("too big for the own device", lab(), "a", C, 1600, ending=DROPPED),
    udp("cut by the sender", lab(), "a", C, 1600, df=False, taker="c", seen=A),
    udp("cut into many", lab(), "a", C, 6000, df=False, taker="c", seen=A),
    udp("cut by the sender: IPv6", lab(), "a", C6, 1600, df=False, taker="c", seen=A6),
    ping("a ping, cut", lab(), 4000, df=False, taker="c", seen=A),
    ping("a ping, cut and masqueraded", ruled(OUT), 4000, df=False, taker="c", seen=M1),
    ping("a ping one byte too big", lab(), 1473, ending=DROPPED),
    # On the way
    udp("a router says that it does not fit", narrow_router(), "outside", C, 1400, ending=DROPPED, says=NEEDED),
    udp("a router cuts", narrow_router(), "outside", C, 1400, df=False, taker="c", seen=OUTSIDE),
    udp("a router cuts what was cut", narrow_router(), "outside", C, 3000, df=False, taker="c", seen=OUTSIDE),
    udp("a router of IPv6 says so", narrow_router(), "outside", C6, 1400, ending=DROPPED),
    udp("a router of IPv6 never cuts", narrow_router(), "outside", C6, 1400, df=False, ending=DROPPED),
    udp("not even what was cut", narrow_router(), "outside", C6, 3000, df=False, ending=DROPPED),
    udp("a machine says that it does not fit its bridge", narrow_pods(), "a", C, 1400, ending=DROPPED, says=NEEDED),
    udp("a machine cuts for its bridge", narrow_pods(), "a", C, 1400, df=False, taker="c", seen=A),
    # The MTU of a route
    udp("the MTU of the sender's route", route_mtu("a", "10.244.1.1", 1300), "a", C, 1400, ending=DROPPED),
    udp("the MTU of a route on the way", route_mtu("m1", M2, 1300), "a", C, 1400, ending=DROPPED, says=NEEDED),
    udp("the MTU of a route on the way: cut", route_mtu("m1", M2, 1300), "a", C, 1400, df=False, taker="c", seen=A),
    udp("a route cannot widen a device", route_mtu("m1", M2, 9000), "a", C, 1400, taker="c", seen=A),
    # With translation: the error finds the client, and the pieces stay together
    udp("told through DNAT", narrow_pods(UDP_SERVICE), "a", VIP, 1400, ending=DROPPED, says=NEEDED),
    udp("told through DNAT and masquerade", narrow_pods(UDP_SERVICE, OUT), "a", VIP, 1400, ending=DROPPED, says=NEEDED),
    udp("told by the machine that translates", set_link(ruled(UDP_SERVICE, OUT), "m1", "eth0", mtu=1300), "a", VIP,
        1400, ending=DROPPED, says=NEEDED),
    udp("cut behind DNAT", narrow_pods(UDP_SERVICE), "a", VIP, 1400, df=False, taker="c", seen=A),
    udp("cut before DNAT on a bridge", ruled(service(B, 53, target=53, protocol="UDP")), "a", B, 4000, df=False,
        taker="b", seen=A),
    udp("pieces through a plain bridge", lab(), "a", B, 4000, df=False, taker="b", seen=A),
    udp("pieces through a bridge with rules", ruled(TRACKING, OUT), "a", B, 4000, df=False, taker="b", seen=A),
    udp("pieces through a bridge with rules: IPv6", ruled(TRACKED6), "a", B6, 4000, df=False, taker="b", seen=A6),
    udp("pieces through a machine that tracks", ruled(TRACKING, OUT), "a", C, 4000, df=False, taker="c", seen=M1),
    udp("pieces through a machine that tracks: IPv6", ruled(TRACKED6), "a", C6, 4000, df=False, taker="c", seen=A6),
    udp("pieces stay as short as they were", short_pieces(OUT), "a", M2, 2000, df=False, port=10250, taker="m2",
        seen=M1),
    udp("but not in a tunnel", narrow_ends(TRACKED6), "a", C6, 1390, df=False, ending=DROPPED, says=NEEDED),
    udp("without tracking a rule about a port meets the first piece alone",
        ruled(filters(rule("filter", "FORWARD", *to(C, 53, "UDP"), to=DROP))), "a", C, 4000, df=False, ending=DROPPED),
    # Tunnels
    udp("the most that fits a VXLAN tunnel", lab(Overlay.VXLAN), "a", C, 1422, taker="c", seen=A),
    udp("one byte more", lab(Overlay.VXLAN), "a", C, 1423, ending=DROPPED),
    udp("the outer packet is cut", narrow_underlay(), "a", C, 1400, taker="c", seen=A),
    udp("the outer packet is cut, and met by rules", narrow_underlay(OUT), "a", C, 1400, taker="c", seen=A),
    udp("a container that does not know of the tunnel", wide_pod(), "a", C, 1460, ending=DROPPED, says=NEEDED),
    # On a bridge nobody is told
    udp("a narrow port of a bridge", port_of_b(1300), "a", B, 1400, ending=DROPPED),
    udp("a port narrower by a VLAN tag: only the answer does not fit", port_of_b(1424), "a", B, 1400, ending=SILENT,
        taker="b", seen=A),
    udp("a port narrower by a byte more", port_of_b(1423), "a", B, 1400, ending=DROPPED),
    udp("a narrow receiver", set_link(lab(), "b", "eth0", mtu=1300), "a", B, 1400, ending=DROPPED),
)  # fmt: skip


@each(FLOWS)
def test_flow(flow: Flow) -> None:
    """Each row of the table above."""
    check(flow)
