from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import ExitStack

import dpkt
import pytest

from k8snetlab import live
from k8snetlab.cluster import Cluster
from k8snetlab.errors import UnknownName
from k8snetlab.linux.link import LinkKind
from k8snetlab.trace import Client, Trace
from k8snetlab.wire import pcap
from tests.live.shop import OUTSIDE, WEB_1, WEB_2, node, service, shop

VXLAN = 8472
SYN, ACK = 0x02, 0x10


@pytest.fixture(scope="module", params=["flannel", "bridge"])
def built(request: pytest.FixtureRequest, kernel: None) -> Iterator[tuple[Cluster, live.Lab]]:
    """The shop over a tunnel and over routes, and its lab."""
    cluster = shop(request.param)
    with live.Lab(cluster) as lab:
        yield cluster, lab


Layer = tuple[str | int | bytes, ...]


def layers(octets: bytes) -> tuple[Layer, ...]:
    """The headers of a frame, without what each kernel chooses for itself: the client's port, the tunnel's source
    port, identifications, lengths and checksums.
    """
    frame = dpkt.ethernet.Ethernet(octets)
    ip = frame.data
    if isinstance(ip, dpkt.ip.IP):
        head: Layer = (dpkt.utils.inet_to_str(ip.src), dpkt.utils.inet_to_str(ip.dst), ip.p, ip.ttl, ip.df)
    elif isinstance(ip, dpkt.ip6.IP6):
        head = (dpkt.utils.inet_to_str(ip.src), dpkt.utils.inet_to_str(ip.dst), ip.nxt, ip.hlim)
    else:
        return ((frame.src.hex(":"), frame.dst.hex(":"), frame.type),)
    outer: tuple[Layer, ...] = ((frame.src.hex(":"), frame.dst.hex(":"), frame.type), head)
    inside = ip.data
    if isinstance(inside, dpkt.udp.UDP) and inside.dport == VXLAN:
        vni = int.from_bytes(bytes(inside.data)[4:7])
        return (*outer, ("VXLAN", inside.dport, vni), *layers(bytes(inside.data)[8:]))
    if isinstance(inside, dpkt.tcp.TCP):
        return (*outer, ("TCP", inside.flags, inside.sport if inside.flags & ACK else inside.dport))
    return outer


def handshake(file: bytes) -> list[tuple[Layer, ...]]:
    """The first two packets of a TCP connection in a capture file: SYN, and SYN with ACK."""
    found = [layers(octets) for _, octets in dpkt.pcap.Reader(io.BytesIO(file))]
    return [each for each in found if each[-1][0] == "TCP" and int(each[-1][1]) & SYN]


def cables(cluster: Cluster, walk: Trace) -> list[tuple[str, str]]:
    """The places of a walk's captures, without bridges: the walk sees frames at their ports."""
    places = [(point.where, point.device) for point in walk.captures]
    return [(host, device) for host, device in places if cluster.network[host].link(device).kind is not LinkKind.BRIDGE]


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("source", [WEB_2, WEB_1, "node-3", OUTSIDE])
def test_the_handshake_is_on_every_cable_as_in_the_walk(
    built: tuple[Cluster, live.Lab], source: str, version: int
) -> None:
    """On each cable and tunnel where the walk sees the packet or its answer, the kernel's frames have the same headers:
    MACs, addresses, hop limits, tunnels. From pods and nodes by the Service's address, from outside by a node's port.
    """
    cluster, lab = built
    asked, port = service(cluster, "one", version), 80
    if source == OUTSIDE:
        asked, port = node(cluster, "node-2", version), 30082
    walk = cluster.trace(source, f"[{asked}]:{port}" if version == 6 else f"{asked}:{port}")
    lab.forget()
    with ExitStack() as stack:
        captures = [stack.enter_context(lab.capturing(where, device)) for where, device in cables(cluster, walk)]
        (sight,) = lab.probe([live.Probe(source, asked, port)])
    assert sight.client is Client.OPEN
    assert len(captures) >= 2
    for capture in captures:
        place = f"{capture.host} {capture.device}"
        assert handshake(capture.pcap) == handshake(walk.pcap(capture.host, capture.device)), place


def test_a_capture_holds_what_passed_meanwhile(built: tuple[Cluster, live.Lab]) -> None:
    """Frames before and after the block are not in it, and times rise from its beginning."""
    cluster, lab = built
    probe = live.Probe(WEB_2, cluster.network[WEB_1].link("eth0").addresses[0].ip, 8080)
    lab.probe([probe])
    with lab.capturing(WEB_2, "eth0") as capture:
        assert capture.pcap == pcap(())
        lab.probe([probe])
    lab.probe([probe])
    times = [frame.time for frame in capture.frames]
    assert times == sorted(times)
    assert times[0] >= 0
    assert len(handshake(capture.pcap)) == 2


def test_an_unknown_device_is_an_error(built: tuple[Cluster, live.Lab]) -> None:
    """The message names those that there are."""
    with pytest.raises(UnknownName, match="eth0"), built[1].capturing("node-1", "eth7"):
        pass
