"""Cilium with IPsec: what is wrapped, by which state, and what becomes of what has none."""

from __future__ import annotations

from functools import cache

import pytest

from k8snetlab import contract
from k8snetlab.cluster import Cluster
from k8snetlab.linux.xfrm import XfrmDirection, XfrmPolicy, XfrmState
from k8snetlab.packet import ESP, UDP, VXLAN, Ethernet, IPv4, IPv6, Packet
from k8snetlab.trace import Action, Client, Trace
from k8snetlab.wire import encode
from tests.shops import FAMILIES, pod

A, B, ASKED = "default/a", "default/b", "default/b:8080"


@cache
def shop(mode: str = "vxlan", families: str = "IPv4", encryption: str = "ipsec") -> Cluster:
    """A pod on each of two nodes."""
    options = {"mode": mode, "encryption": encryption}
    return Cluster.load(pod("a"), pod("b", "node-2"), cni="cilium", cni_options=options, **FAMILIES[families])


def on_the_cable(trace: Trace) -> list[Packet]:
    """The frames between the nodes, on their way there."""
    return [step.packet for step in trace.steps if step.where == "switch" and step.action is Action.RECEIVE]


def without(cluster: Cluster, host: str, *gone: XfrmState | XfrmPolicy) -> Cluster:
    """The cluster with something less in the lists of a machine."""
    for entry in gone:
        cluster = cluster.without(host, entry)
    return cluster


def states(cluster: Cluster, host: str) -> tuple[XfrmState, ...]:
    """The states of a machine: outwards, inwards, of one other after the other."""
    xfrm = cluster.network[host].xfrm
    assert xfrm is not None
    return xfrm.states


def policies(cluster: Cluster, host: str) -> tuple[XfrmPolicy, ...]:
    """The policies of a machine for what leaves."""
    xfrm = cluster.network[host].xfrm
    assert xfrm is not None
    return tuple(policy for policy in xfrm.policies if policy.direction is XfrmDirection.OUT)


@pytest.mark.parametrize(
    ("mode", "families", "outer"),
    [("vxlan", "IPv4", IPv4), ("geneve", "dual-stack", IPv4), ("native", "IPv4", IPv4), ("native", "IPv6", IPv6)],
)
def test_pods_speak_and_nobody_on_the_cable_can_read_it(mode: str, families: str, outer: type) -> None:
    """Every rule of the network model holds; the frame is ESP, and neither the packet nor the sender's identity is in
    its bytes.
    """
    cluster = shop(mode, families)
    assert contract.check(cluster).holds
    trace = cluster.trace(A, ASKED)
    assert trace.client is Client.OPEN
    [frame] = on_the_cable(trace)
    assert [type(header) for header in frame.headers[:3]] == [Ethernet, outer, ESP]
    assert encode(frame.innermost) not in encode(frame)
    tunnel = [header for header in frame.headers if isinstance(header, VXLAN)]
    assert bool(tunnel) is (mode != "native")
    assert all(header.vni.to_bytes(3, "big") not in encode(frame)[14:] for header in tunnel)
    assert trace.source_seen == cluster.objects.pod(A).ips[0]


@pytest.mark.parametrize(("mode", "wire"), [("vxlan", 1146), ("native", 1098)])
def test_a_thousand_bytes_are_so_many_on_the_wire(mode: str, wire: int) -> None:
    """IP 20, ESP 8, IV 8, what is inside and padding to a multiple of 4 with the two bytes that end it, ICV 16."""
    [frame] = on_the_cable(shop(mode).trace(A, "default/b:8080/UDP", size=1000))
    assert (frame.length, len(encode(frame))) == (wire, wire)


def test_routes_lose_seventy_seven_bytes() -> None:
    """A sum for planning: the longest packet that a pod may send still fits when it is wrapped."""
    cluster = shop()
    assert {route.mtu for route in cluster.network["node-1"].routes if route.prefix == "10.244.1.0/24"} == {1500 - 127}
    trace = cluster.trace(A, ASKED, size=1373 - 44)
    assert trace.client is Client.OPEN and max(frame.length for frame in on_the_cable(trace)) <= 1514


def test_a_mark_says_for_which_node_and_by_which_key() -> None:
    """The program at the card gives it, and the state has it; on the way back another one tells who sent."""
    cluster = shop()
    out, into = states(cluster, "node-1")[:2]
    node = out.mark >> 16
    assert (out.mark & 0xFFFF, out.mask, into.mark) == (0x3E00, 0xFFFFFF00, node << 16 | 0xD00)
    assert (out.src, out.dst, out.reqid) == ("172.18.0.11", "172.18.0.12", 2)
    assert any(f"its mark is {out.mark:#x}" in step.why for step in cluster.trace(A, ASKED).steps)
    assert out.key == states(cluster, "node-2")[1].key != into.key


def test_without_a_tunnel_the_ends_are_those_of_cilium_host() -> None:
    """And the policy goes by the other node's pod network."""
    cluster = shop("native")
    out, *_ = states(cluster, "node-1")
    held = [cluster.network[f"node-{at}"].link("cilium_host").addresses[0].ip for at in (1, 2)]
    assert ([out.src, out.dst], out.reqid) == (held, 1)
    assert policies(cluster, "node-1")[0].dst == "10.244.1.0/24"


def test_what_has_no_state_is_lost_in_silence() -> None:
    """At the sender, at the receiver, where no policy says how, and where the machine is not known."""
    cluster = shop()
    out, _, *_ = states(cluster, "node-1")
    _, into, *_ = states(cluster, "node-2")
    lost = {
        "XfrmOutNoStates": without(cluster, "node-1", out),
        "XfrmInNoStates": without(cluster, "node-2", into),
        "XfrmOutPolBlock": without(cluster, "node-1", policies(cluster, "node-1")[0]),
    }
    for why, changed in lost.items():
        trace = changed.trace(A, ASKED)
        assert trace.client is Client.TIMEOUT and why in trace.reason


def test_only_without_the_last_policy_it_is_sent_readable() -> None:
    """That is what the policy is for that blocks."""
    cluster = shop()
    first, *_, blocking = policies(cluster, "node-1")
    trace = without(cluster, "node-1", first, blocking).trace(A, ASKED)
    assert trace.client is Client.OPEN
    [frame] = on_the_cable(trace)
    assert isinstance(frame.headers[2], UDP) and encode(frame.innermost) in encode(frame)


def test_the_lists_print_like_the_tools() -> None:
    """`ip xfrm state` and `ip xfrm policy`."""
    out, *_ = states(shop(), "node-1")
    said = shop().node("node-1").show("xfrm")
    assert said.startswith(
        "# ip xfrm state\n"
        "src 172.18.0.11 dst 172.18.0.12\n"
        "\tproto esp spi 0x00000003 reqid 2 mode tunnel\n"
        "\treplay-window 0 \n"
        f"\tmark {out.mark:#x}/0xffffff00 output-mark 0xe00/0xf00\n"
        f"\taead rfc4106(gcm(aes)) 0x{out.key} 128\n"
    )
    assert (
        "src 172.18.0.11/32 dst 172.18.0.12/32 \n"
        "\tdir out priority 0 \n"
        f"\tmark {out.mark:#x}/0xffffff00 \n"
        "\ttmpl src 172.18.0.11 dst 172.18.0.12\n"
        "\t\tproto esp spi 0x00000003 reqid 2 mode tunnel\n"
    ) in said
    assert said.endswith("src 0.0.0.0/0 dst 0.0.0.0/0 \n\tdir out action block priority 100 \n\tmark 0xe00/0xf00 \n")
    assert shop(encryption="none").node("node-1").show("xfrm") == ""


def test_a_lost_state_is_a_difference_and_a_fault() -> None:
    """`diff` tells it; the fault of a missing peer finds it."""
    cluster = shop()
    out, *_ = states(cluster, "node-1")
    assert out.text in str(cluster.diff(without(cluster, "node-1", out)))
    assert out not in states(cluster.broken("peer-missing", on="node-1"), "node-1")


def test_pods_of_one_node_are_never_encrypted() -> None:
    """Nor is what nodes say to each other."""
    both = Cluster.load(pod("a"), pod("b"), cni="cilium", cni_options={"encryption": "ipsec"})
    assert not any(isinstance(header, ESP) for step in both.trace(A, ASKED).steps for header in step.packet.headers)
    [frame] = on_the_cable(shop().trace("node/node-1", "node/node-2:10250"))
    assert not any(isinstance(header, ESP) for header in frame.headers)
