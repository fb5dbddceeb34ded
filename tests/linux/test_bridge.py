"""Two containers on one bridge: who gets the frame, and who looks at it on its way."""

from k8snetlab.linux.link import FdbEntry, Neighbour
from k8snetlab.linux.netfilter import DROP, InInterface, OutInterface, Patch
from k8snetlab.linux.route import Route
from k8snetlab.trace import Action
from tests.linux.lab import (
    A6,
    B6,
    DROPPED,
    M1,
    PROHIBITED,
    REFUSED,
    SILENT,
    TRACKING,
    UNREACHED,
    A,
    B,
    Flow,
    add,
    check,
    each,
    filters,
    lab,
    mac,
    rejecting,
    rule,
    ruled,
    send,
    set_link,
    set_policy,
    set_sysctls,
    source,
    to,
    told,
)

OFF = {"net.bridge.bridge-nf-call-iptables": 0}
DENIED = filters(rule("filter", "FORWARD", *to(B, 80), to=DROP))
STRANGER = mac(0xEE, 1)

FLOWS = (
    Flow("neighbours reach each other", lab(), "a", B, taker="b", seen=A),
    Flow("neighbours reach each other by IPv6", lab(), "a", B6, taker="b", seen=A6),
    Flow("the machine reaches a container from its bridge address", lab(), "m1", A, taker="a", seen="10.244.1.1"),
    Flow("a container reaches the machine by the bridge address", lab(), "a", "10.244.1.1", 10250, taker="m1", seen=A),
    Flow("a container reaches itself", lab(), "a", A, taker="a", seen=A),
    Flow("nobody listens: a reset", lab(), "a", B, 81, ending=REFUSED, says="nobody on b listens"),
    Flow("nobody listens: port unreachable", lab(), "a", B, 54, "UDP", REFUSED, says="answers port unreachable"),
    Flow("nobody has the address", lab(), "a", "10.244.1.99", ending=UNREACHED, says="nobody on eth0 answers"),
    Flow("a UDP program is not told that", lab(), "a", "10.244.1.99", 53, "UDP", SILENT._replace(verdict=UNREACHED[0])),
    Flow("the neighbour's device is down", set_link(lab(), "b", "eth0", up=False), "a", B, ending=UNREACHED),
    Flow("its bridge port is down", set_link(lab(), "m1", "veth-b", up=False), "a", B, ending=UNREACHED),
    Flow("its port is in no bridge", set_link(lab(), "m1", "veth-b", master="", hairpin=False), "a", B,
         ending=UNREACHED),
    Flow("a route by the port instead of the bridge",
         add(lab(), "m1", routes=(Route(f"{A}/32", "veth-a", scope="link"),)), "m1", A, ending=UNREACHED,
         says="veth-a is a port of cni0"),
    Flow("a route by the port, to a permanent neighbour",
         add(lab(), "m1", routes=(Route(f"{A}/32", "veth-a", scope="link"),),
             neighbours=(Neighbour(A, "veth-a", mac(0x11, 2)),)),
         "m1", A, taker="a", seen=M1),
    Flow("the bridge is down", set_link(lab(), "m1", "cni0", up=False), "a", B, ending=UNREACHED),
    Flow("the own device is down", set_link(lab(), "a", "eth0", up=False), "a", B, ending=UNREACHED, says="no route"),
    Flow(
        "a permanent neighbour with a MAC that nobody has",
        add(lab(), "a", neighbours=(Neighbour(B, "eth0", STRANGER),)), "a", B, ending=SILENT, says="no port of cni0",
    ),
    Flow(
        "a permanent neighbour with the MAC of the bridge is routed by the machine",
        add(lab(), "a", neighbours=(Neighbour(B, "eth0", mac(0x30, 1)),)), "a", B, taker="b", seen=A,
    ),
    Flow(
        "a MAC moves away from its static FDB entry with the first frame",
        add(lab(), "m1", fdb=(FdbEntry(mac(0x11, 3), "cni0", "veth-a"),)), "a", B, taker="b", seen=A,
    ),
    Flow(
        "the bridge carries no frame that is too long, and tells nobody",
        set_link(lab(), "m1", "veth-b", mtu=1427), "a", B, 53, "UDP", DROPPED, size=1404, says="nobody is told",
    ),
    Flow("FORWARD sees what crosses", ruled(DENIED), "a", B, ending=DROPPED, says="-j DROP"),
    Flow("but not with bridge-nf-call-iptables off", ruled(DENIED, sysctls=OFF), "a", B, taker="b", seen=A),
    Flow(
        "way in and way out are the bridge",
        ruled(filters(rule("filter", "FORWARD", InInterface("cni0"), OutInterface("cni0"), to=DROP))), "a", B,
        ending=DROPPED,
    ),
    Flow(
        "way in is not the port", ruled(filters(rule("filter", "FORWARD", InInterface("veth-a"), to=DROP))), "a", B,
        taker="b", seen=A,
    ),
    Flow(
        "PREROUTING sees it",
        ruled(Patch("raw", last=(rule("raw", "PREROUTING", InInterface("cni0"), source(f"{A}/32"), to=DROP),))), "a", B,
        ending=DROPPED,
    ),
    Flow(
        "POSTROUTING sees it",
        ruled(Patch("mangle", last=(rule("mangle", "POSTROUTING", OutInterface("cni0"), *to(B, 80), to=DROP),))),
        "a", B, ending=DROPPED,
    ),
    Flow(
        "the policy of FORWARD holds",
        set_policy(ruled(filters(rule("filter", "FORWARD", source(f"{B}/32"), to=DROP))), "m1", "filter", "FORWARD"),
        "a", B, ending=DROPPED, says="policy is DROP",
    ),
    Flow(
        "ip_forward has no say", set_sysctls(ruled(TRACKING), "m1", **{"net.ipv4.ip_forward": 0}), "a", B,
        taker="b", seen=A,
    ),
    Flow(
        "port unreachable comes back over the bridge",
        ruled(rejecting("FORWARD", B, "icmp-port-unreachable")), "a", B, ending=REFUSED,
    ),
    Flow(
        "prohibited comes back over the bridge",
        ruled(rejecting("FORWARD", B, "icmp-admin-prohibited")), "a", B, ending=PROHIBITED,
    ),
    Flow(
        "a reset comes back through the port", ruled(rejecting("FORWARD", B, "tcp-reset")), "a", B, ending=REFUSED,
        says="through the port the frame came by",
    ),
)  # fmt: skip


@each(FLOWS)
def test_flow(flow: Flow) -> None:
    """Each row of the table above."""
    check(flow)


def test_a_bridge_takes_nothing_off_the_time_to_live() -> None:
    """It passes frames on; only routers count."""
    found = send(lab(), "a", B)
    assert found.arrival is not None and found.arrival.packet.ip.ttl == 64, told(found)


def test_everybody_who_hears_a_question_learns() -> None:
    """One question is asked on the way there; the answer needs none, for the asked one has heard who asked."""
    found = send(lab(), "a", B)
    asked = [step.where for step in (*found.steps, *found.reply) if step.action is Action.ARP]
    assert asked == ["a"], told(found)
