"""The state of a machine reads as iproute2 6.1 prints it; the texts below are what it printed for the same state."""

from __future__ import annotations

import pytest

from k8snetlab.address import Prefix
from k8snetlab.linux.conntrack import Connection, Conntrack, Tuple
from k8snetlab.linux.host import Host, Part, assembled
from k8snetlab.linux.link import Address, FdbEntry, Link, LinkKind, Neighbour, Peer, Vxlan, loopback
from k8snetlab.linux.netfilter import ACCEPT, Chain, Comment, Jump, Patch, Rule, Source, tables
from k8snetlab.linux.route import NextHop, Route, RouteType, RoutingRule, multipath
from k8snetlab.linux.text import (
    bridge_fdb,
    conntrack_list,
    entry_line,
    ip_addr,
    ip_link,
    ip_link_details,
    ip_neigh,
    ip_route,
    ip_rule,
    iptables_save,
)

TUNNEL = Vxlan(1, "172.18.0.11", "eth0", 8472)


UNDERLAY = (Address("172.18.0.11", 24), Address("fd00:172::11", 64))
OVERLAY = (Address("10.244.1.0", 32),)


@pytest.fixture
def host() -> Host:
    """A machine with one device of each kind."""
    links = (
        loopback(),
        Link("eth0", 2, LinkKind.NIC, "72:cc:6d:3d:56:a4", addresses=UNDERLAY),
        Link("flannel.1", 3, LinkKind.VXLAN, "0a:aa:00:00:00:01", 1450, addresses=OVERLAY, vxlan=TUNNEL),
        Link("cni0", 4, LinkKind.BRIDGE, "4e:dd:19:81:6f:09", 1450, addresses=(Address("10.244.1.1", 24),)),
        Link(
            "veth3f1c", 5, LinkKind.VETH, "4e:dd:19:81:6f:0a", 1450,
            master="cni0", peer=Peer("pod", "eth0"), peer_index=2, hairpin=True,
        ),
        Link("spare", 6, LinkKind.BRIDGE, "4e:dd:19:81:6f:0b", up=False),
    )  # fmt: skip
    routes = (
        Route("10.244.2.0/24", "flannel.1", "10.244.2.0", onlink=True),
        Route("default", "eth0", "172.18.0.1"),
        Route("10.244.1.0/24", "cni0", source="10.244.1.1", scope="link", protocol="kernel"),
        Route("10.7.0.0/16", "eth0", "172.18.0.7"),
        Route("10.7.0.0/24", "eth0", "172.18.0.7", "172.18.0.11", metric=5, mtu=1400),
        Route("10.7.0.9/32", "eth0", scope="link"),
        Route("10.9.0.0/24", type=RouteType.BLACKHOLE, protocol="80"),
        Route("10.8.0.0/24", type=RouteType.UNREACHABLE),
        Route("default", "eth0", "172.18.0.1", table="2005"),
        Route("default", "eth0", "fd00:172::1", family=6),
        Route("fd00:10:244::/56", "eth0", "fd00:172::2", family=6),
        Route("fd00:10:244:1::/64", "cni0", scope="link", protocol="kernel", family=6),
        Route("fd00:10:244:2::/64", "flannel-v6.1", "fd00:10:244:2::", onlink=True, family=6),
        Route("fd00:7::1/128", "eth0", family=6),
        Route("fd00:8::/64", type=RouteType.BLACKHOLE, family=6),
    )
    rules = (
        RoutingRule(9, "2004", mark=0x200, mask=0xF00),
        RoutingRule(12, "100", mark=5),
        RoutingRule(10, "2005", source="10.0.0.0/8", to="10.1.0.0/16", iif="cni0"),
        RoutingRule(11, "main", source="10.0.0.7/32", invert=True),
    )
    neighbours = (
        Neighbour("fd00:10:244:2::", "flannel-v6.1", "0a:aa:00:00:00:02"),
        Neighbour("10.244.2.0", "flannel.1", "0a:aa:00:00:00:02"),
    )
    fdb = (
        FdbEntry("0a:aa:00:00:00:02", "flannel.1", "172.18.0.12"),
        FdbEntry("02:00:00:00:00:09", "cni0", "veth3f1c"),
    )
    return assembled("node1", "machine", Part(links, routes, rules, neighbours, fdb))


def test_ip_addr(host: Host) -> None:
    """Flags, MTU, state, bridge, link layer and addresses of every device."""
    assert (
        ip_addr(host)
        == """\
1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536 qdisc noqueue state UNKNOWN group default qlen 1000
    link/loopback 00:00:00:00:00:00 brd 00:00:00:00:00:00
    inet 127.0.0.1/8 scope host lo
       valid_lft forever preferred_lft forever
    inet6 ::1/128 scope host
       valid_lft forever preferred_lft forever
2: eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500 qdisc fq_codel state UP group default qlen 1000
    link/ether 72:cc:6d:3d:56:a4 brd ff:ff:ff:ff:ff:ff
    inet 172.18.0.11/24 brd 172.18.0.255 scope global eth0
       valid_lft forever preferred_lft forever
    inet6 fd00:172::11/64 scope global
       valid_lft forever preferred_lft forever
3: flannel.1: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1450 qdisc noqueue state UNKNOWN group default qlen 1000
    link/ether 0a:aa:00:00:00:01 brd ff:ff:ff:ff:ff:ff
    inet 10.244.1.0/32 scope global flannel.1
       valid_lft forever preferred_lft forever
4: cni0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1450 qdisc noqueue state UP group default qlen 1000
    link/ether 4e:dd:19:81:6f:09 brd ff:ff:ff:ff:ff:ff
    inet 10.244.1.1/24 brd 10.244.1.255 scope global cni0
       valid_lft forever preferred_lft forever
5: veth3f1c@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1450 qdisc noqueue master cni0 state UP group default qlen 1000
    link/ether 4e:dd:19:81:6f:0a brd ff:ff:ff:ff:ff:ff link-netnsid 0
6: spare: <BROADCAST,MULTICAST> mtu 1500 qdisc noop state DOWN group default qlen 1000
    link/ether 4e:dd:19:81:6f:0b brd ff:ff:ff:ff:ff:ff
"""
    )


def test_ip_link(host: Host) -> None:
    """The two lines of a device, with its mode."""
    first, second = ip_link(host).splitlines()[8:10]
    assert first.startswith("5: veth3f1c@if2: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1450 qdisc noqueue master cni0 ")
    assert first.endswith(" state UP mode DEFAULT group default qlen 1000")
    assert second == "    link/ether 4e:dd:19:81:6f:0a brd ff:ff:ff:ff:ff:ff link-netnsid 0"


def test_ip_link_details_say_what_belongs_to_the_kind(host: Host) -> None:
    """The tunnel's facts, and what a port is to its bridge."""
    lines = ip_link_details(host).splitlines()
    assert "    vxlan id 1 local 172.18.0.11 dev eth0 srcport 0 0 dstport 8472 nolearning ttl auto" in lines
    assert lines[lines.index("    veth") + 1] == "    bridge_slave state forwarding hairpin on"


def test_ip_route_is_in_the_order_of_the_kernel(host: Host) -> None:
    """The default route first; of two with the same start the longer one."""
    assert (
        ip_route(host)
        == """\
default via 172.18.0.1 dev eth0
10.7.0.0/24 via 172.18.0.7 dev eth0 src 172.18.0.11 metric 5 mtu 1400
10.7.0.0/16 via 172.18.0.7 dev eth0
10.7.0.9 dev eth0 scope link
unreachable 10.8.0.0/24
blackhole 10.9.0.0/24 proto 80
10.244.1.0/24 dev cni0 proto kernel scope link src 10.244.1.1
10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink
"""
    )


def test_ip_6_route_has_the_default_route_last(host: Host) -> None:
    """A network stands after those inside it, and every line has a metric."""
    assert (
        ip_route(host, 6)
        == """\
fd00:7::1 dev eth0 metric 1024 pref medium
blackhole fd00:8::/64 dev lo metric 1024 pref medium
fd00:10:244:1::/64 dev cni0 proto kernel metric 256 pref medium
fd00:10:244:2::/64 via fd00:10:244:2:: dev flannel-v6.1 metric 1024 onlink pref medium
fd00:10:244::/56 via fd00:172::2 dev eth0 metric 1024 pref medium
default via fd00:172::1 dev eth0 metric 1024 pref medium
"""
    )


def test_ip_route_prints_each_next_hop_on_a_line() -> None:
    """In both families; on one line where one line is asked for."""
    four = multipath("198.51.100.1/32", [NextHop("eth0", "172.18.0.11"), NextHop("eth0", "172.18.0.12", 2)], "bgp", 20)
    six = multipath(
        "2001:db8:198::1/128", [NextHop("eth0", "fd00:172::11"), NextHop("eth0", "fd00:172::12")], "bgp", 20
    )
    router = assembled("router", "router", Part((loopback(), Link("eth0", 2, LinkKind.NIC)), (four, six)))
    assert (
        ip_route(router)
        == """\
198.51.100.1 proto bgp metric 20
\tnexthop via 172.18.0.11 dev eth0 weight 1
\tnexthop via 172.18.0.12 dev eth0 weight 2
"""
    )
    assert (
        ip_route(router, 6)
        == """\
2001:db8:198::1 proto bgp metric 20 pref medium
\tnexthop via fd00:172::11 dev eth0 weight 1
\tnexthop via fd00:172::12 dev eth0 weight 1
"""
    )
    hops = "nexthop via 172.18.0.11 dev eth0 weight 1 nexthop via 172.18.0.12 dev eth0 weight 2"
    assert entry_line(four) == f"198.51.100.1 proto bgp metric 20 {hops}"


def test_ip_route_of_another_table(host: Host) -> None:
    """Tables are printed one at a time, without naming the table."""
    assert ip_route(host, table="2005") == "default via 172.18.0.1 dev eth0\n"
    assert ip_route(host, table="2004") == ""


def test_table_local_follows_from_the_addresses(host: Host) -> None:
    """Own addresses, the loopback network, and broadcast addresses; a single address (/32) has no broadcast."""
    assert (
        ip_route(host, table="local")
        == """\
local 10.244.1.0 dev flannel.1 proto kernel scope host src 10.244.1.0
local 10.244.1.1 dev cni0 proto kernel scope host src 10.244.1.1
broadcast 10.244.1.255 dev cni0 proto kernel scope link src 10.244.1.1
local 127.0.0.0/8 dev lo proto kernel scope host src 127.0.0.1
local 127.0.0.1 dev lo proto kernel scope host src 127.0.0.1
broadcast 127.255.255.255 dev lo proto kernel scope link src 127.0.0.1
local 172.18.0.11 dev eth0 proto kernel scope host src 172.18.0.11
broadcast 172.18.0.255 dev eth0 proto kernel scope link src 172.18.0.11
"""
    )
    assert ip_route(host, 6, "local") == (
        "local ::1 dev lo proto kernel metric 0 pref medium\n"
        "local fd00:172::11 dev eth0 proto kernel metric 0 pref medium\n"
    )


def test_ip_rule(host: Host) -> None:
    """Rules by priority, with what selects the packets."""
    assert ip_rule(host) == (
        "0:\tfrom all lookup local\n"
        "9:\tfrom all fwmark 0x200/0xf00 lookup 2004\n"
        "10:\tfrom 10.0.0.0/8 to 10.1.0.0/16 iif cni0 lookup 2005\n"
        "11:\tnot from 10.0.0.7 lookup main\n"
        "12:\tfrom all fwmark 0x5 lookup 100\n"
        "32766:\tfrom all lookup main\n"
        "32767:\tfrom all lookup default\n"
    )
    assert ip_rule(host, 6) == "0:\tfrom all lookup local\n32766:\tfrom all lookup main\n"


def test_ip_neigh(host: Host) -> None:
    """IPv4 before IPv6, as the kernel asks its tables."""
    assert ip_neigh(host) == (
        "10.244.2.0 dev flannel.1 lladdr 0a:aa:00:00:00:02 PERMANENT\n"
        "fd00:10:244:2:: dev flannel-v6.1 lladdr 0a:aa:00:00:00:02 PERMANENT\n"
    )


def test_bridge_fdb(host: Host) -> None:
    """Tunnel entries have a destination, entries of a bridge a port, and a port its own address."""
    assert bridge_fdb(host) == (
        "0a:aa:00:00:00:02 dev flannel.1 dst 172.18.0.12 self permanent\n"
        "02:00:00:00:00:09 dev veth3f1c master cni0 static\n"
        "4e:dd:19:81:6f:0a dev veth3f1c master cni0 permanent\n"
    )


def test_iptables_save_lists_base_chains_before_the_others() -> None:
    """Base chains in the order of the hooks, user chains by name, then the rules in the same order."""
    chains = {name: Chain(name, (Rule("filter", name, (), ACCEPT),)) for name in ("ZETA", "ALPHA")}
    jump = Rule("filter", "FORWARD", (Source(Prefix.of("10.244.0.0/16")), Comment("to alpha")), Jump("ALPHA"))
    assert (
        iptables_save(tables(4, [Patch("filter", 4, last=(jump,), chains=chains)]))
        == """\
*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:ALPHA - [0:0]
:ZETA - [0:0]
-A FORWARD -s 10.244.0.0/16 -m comment --comment "to alpha" -j ALPHA
-A ALPHA -j ACCEPT
-A ZETA -j ACCEPT
COMMIT
"""
    )


def test_a_comment_with_quotes_is_escaped() -> None:
    """As `iptables-save` does, so that the line can be restored."""
    assert str(Comment('name: "cbr0"')) == r'-m comment --comment "name: \"cbr0\""'


def test_conntrack_shows_both_tuples_of_a_translated_connection() -> None:
    """The reply tuple says what NAT did: here the answer comes from a backend, not from the address asked."""
    table, connection = Conntrack(), Connection(Tuple("TCP", "10.244.1.2", 40000, "10.96.0.20", 80))
    connection.reply = Tuple("TCP", "10.244.2.3", 8080, "10.244.1.2", 40000)
    connection.seen_reply = True
    table.confirm(connection)
    assert conntrack_list(table) == (
        "tcp      6 432000 ESTABLISHED src=10.244.1.2 dst=10.96.0.20 sport=40000 dport=80 "
        "src=10.244.2.3 dst=10.244.1.2 sport=8080 dport=40000 [ASSURED] mark=0 use=1\n"
    )


def test_conntrack_says_what_was_not_answered() -> None:
    """The mark stands before the tuple that nobody has seen yet."""
    table = Conntrack()
    table.confirm(Connection(Tuple("UDP", "10.244.1.2", 40000, "10.244.2.3", 53)))
    assert conntrack_list(table) == (
        "udp      17 30 src=10.244.1.2 dst=10.244.2.3 sport=40000 dport=53 [UNREPLIED] "
        "src=10.244.2.3 dst=10.244.1.2 sport=53 dport=40000 mark=0 use=1\n"
    )


@pytest.mark.parametrize(
    ("protocol", "line"),
    [
        ("ICMP", "icmp     1 30 src=a dst=b type=8 code=0 id=7 src=b dst=a type=0 code=0 id=7 mark=0 use=1\n"),
        ("ICMPv6", "icmpv6   58 30 src=a dst=b type=128 code=0 id=7 src=b dst=a type=129 code=0 id=7 mark=0 use=1\n"),
    ],
)
def test_conntrack_shows_the_identifier_of_an_echo(protocol: str, line: str) -> None:
    """Echo requests have no ports; their identifier takes that part."""
    table, connection = Conntrack(), Connection(Tuple(protocol, "a", 7, "b", 7))
    connection.seen_reply = True
    table.confirm(connection)
    assert conntrack_list(table) == line
