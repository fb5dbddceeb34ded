from __future__ import annotations

import msgspec
import pytest

from k8snetlab.address import Prefix
from k8snetlab.errors import CannotDo
from k8snetlab.linux import nftables as nft
from k8snetlab.linux.host import DEFAULT_RULES, Host, Network
from k8snetlab.linux.ipset import IpSet, SetType
from k8snetlab.linux.link import Address, FdbEntry, Link, LinkKind, Neighbour, Peer, Responder, Vxlan, loopback
from k8snetlab.linux.netfilter import ACCEPT, Destination, Nfacct, Patch, Rule, tables
from k8snetlab.linux.netfilter import Netfilter as Rules
from k8snetlab.linux.route import NextHop, Route, RouteType, RoutingRule, multipath
from k8snetlab.linux.text import nft_list_ruleset
from k8snetlab.live.script import bare, cables, forgotten, namespace, script

A = Link(
    "eth0", 2, LinkKind.NIC, "02:00:00:00:00:0a", peer=Peer("shop/b", "eth0"), addresses=(Address("192.0.2.1", 24),)
)
B = msgspec.structs.replace(
    A, index=5, mac="02:00:00:00:00:0b", peer=Peer("a", "eth0"), addresses=(Address("192.0.2.2", 24),)
)
CONNECTED = Route("192.0.2.0/24", "eth0", scope="link", protocol="kernel", source="192.0.2.1")
GATEWAY = Route("default", "eth0", "192.0.2.2")


def host(*routes: Route, **more: object) -> Host:
    """Machine `a` with its cable, and what a test is about."""
    return msgspec.structs.replace(Host("a", links=(loopback(), A), routes=routes), **more)


def other(**more: object) -> Host:
    """Machine `shop/b` at the other end."""
    return msgspec.structs.replace(Host("shop/b", links=(B,)), **more)


def lines(text: str) -> list[str]:
    """The lines of a batch."""
    return text.splitlines()


def test_a_namespace_has_no_slash() -> None:
    """A pod's name becomes a file name below /run/netns."""
    assert namespace("shop/web-0") == "shop_web-0"


def test_a_cable_is_made_once_with_both_ends() -> None:
    """Names, indexes, addresses and MTUs of both ends are said in one command."""
    namespaces, made = cables(Network({"a": host(), "shop/b": other()}))
    assert lines(namespaces) == ["netns add a", "netns add shop_b"]
    one = "link add name eth0 index 2 address 02:00:00:00:00:0a mtu 1500 netns a type veth"
    assert lines(made) == [f"{one} peer name eth0 index 5 address 02:00:00:00:00:0b mtu 1500 netns shop_b"]


def test_ends_with_the_same_index_get_different_ones() -> None:
    """Else the kernel notices the cable a second late."""
    alike = other(links=(msgspec.structs.replace(B, index=2),))
    made = cables(Network({"a": host(), "shop/b": alike}))[1]
    assert "name eth0 index 2 " in made
    assert "name eth0 index 1002 " in made


def test_a_cable_that_ends_nowhere_is_made_too() -> None:
    """The machine has the device, and nobody is at its other end."""
    made = cables(Network({"a": host()}))[1]
    assert lines(made) == ["link add name eth0 index 2 address 02:00:00:00:00:0a mtu 1500 netns a type veth peer up"]


def test_a_machine_that_is_there_needs_nothing() -> None:
    """From a Host to itself, no program is called."""
    there = host(CONNECTED, GATEWAY)
    empty = script(there, there)
    assert not any((empty.ip, empty.ip6, empty.bridge, empty.iptables, empty.ip6tables, empty.sysctls))


def test_connected_routes_come_before_gateways() -> None:
    """An address brings no route along; the gateway is on the cable when its route is added."""
    there = host(GATEWAY, CONNECTED)
    assert lines(script(bare(there), there).ip) == [
        "link set dev lo up",
        "link set dev eth0 up",
        "address add 192.0.2.1/24 dev eth0 scope global brd + noprefixroute",
        "route add 192.0.2.0/24 dev eth0 proto 2 scope link src 192.0.2.1",
        "route add 0.0.0.0/0 via 192.0.2.2 dev eth0 proto 3 scope global",
    ]


def test_a_gateway_that_no_route_covers_is_onlink() -> None:
    """The kernel would refuse it otherwise, though it keeps such a route when the covering one is deleted."""
    there = host(GATEWAY)
    assert "route add 0.0.0.0/0 via 192.0.2.2 dev eth0 proto 3 scope global onlink" in script(bare(there), there).ip


def test_a_lost_route_is_deleted_and_nothing_else_happens() -> None:
    """A what-if costs one command."""
    whole = host(CONNECTED, GATEWAY)
    assert lines(script(whole, whole.without(GATEWAY)).ip) == [
        "route del 0.0.0.0/0 via 192.0.2.2 dev eth0 proto 3 scope global"
    ]


def test_routes_go_and_come_with_their_device() -> None:
    """The kernel deletes the routes of a device that goes down; they are added again when it is up."""
    whole = host(CONNECTED)
    down = host(CONNECTED, links=(loopback(), msgspec.structs.replace(A, up=False)))
    assert lines(script(whole, down).ip) == ["link set dev eth0 down"]
    assert lines(script(down, whole).ip) == [
        "link set dev eth0 up",
        "route add 192.0.2.0/24 dev eth0 proto 2 scope link src 192.0.2.1",
    ]


def test_refusing_routes_have_no_device() -> None:
    """A blackhole is said by its type."""
    there = host(Route("203.0.113.0/24", type=RouteType.BLACKHOLE))
    assert "route add blackhole 203.0.113.0/24 proto 3" in lines(script(bare(there), there).ip)


def test_a_multipath_route_names_its_next_hops() -> None:
    """Each with its weight; a gateway that no route covers is onlink."""
    there = host(multipath("198.51.100.1/32", [NextHop("eth0", "192.0.2.2"), NextHop("eth0", "192.0.9.9", 2)], "bgp"))
    hops = "nexthop via 192.0.2.2 dev eth0 weight 1 onlink nexthop via 192.0.9.9 dev eth0 weight 2 onlink"
    assert f"route add 198.51.100.1/32 proto bgp scope global {hops}" in lines(script(bare(there), there).ip)


def test_no_program_answers_for_addresses_of_others() -> None:
    """The lab on the kernel says so instead of leaving it out."""
    with pytest.raises(CannotDo, match=r"198\.51\.100\.1: no program in the lab answers ARP"):
        script(bare(host()), host(responders=(Responder("198.51.100.1", "eth0"),)))


def test_the_kernels_own_ipv6_routes_have_its_metric() -> None:
    """256 for connected routes, as `ip -6 route` shows it."""
    there = host(Route("2001:db8::/64", "eth0", scope="link", protocol="kernel", family=6))
    assert "route add 2001:db8::/64 dev eth0 proto 2 metric 256" in lines(script(bare(there), there).ip)


TUNNEL = Link("flannel.1", 3, LinkKind.VXLAN, "02:00:00:00:00:01", 1450, vxlan=Vxlan(1, "192.0.2.1", "eth0", 8472))


def test_a_tunnel_is_made_with_what_it_knows() -> None:
    """The vxlan device, its permanent neighbour and its FDB entry."""
    there = host(
        links=(loopback(), A, TUNNEL),
        neighbours=(Neighbour("10.244.1.0", "flannel.1", "02:00:00:00:00:02"),),
        fdb=(FdbEntry("02:00:00:00:00:02", "flannel.1", "192.0.2.2"),),
    )
    made = script(bare(there), there)
    assert (
        "link add name flannel.1 index 3 address 02:00:00:00:00:01 mtu 1450 type vxlan "
        "id 1 local 192.0.2.1 dev eth0 dstport 8472 nolearning"
    ) in lines(made.ip)
    assert "neigh replace 10.244.1.0 lladdr 02:00:00:00:00:02 dev flannel.1 nud permanent" in lines(made.ip)
    assert lines(made.bridge) == ["fdb append 02:00:00:00:00:02 dev flannel.1 dst 192.0.2.2 self permanent"]


@pytest.mark.parametrize(("local", "room"), [("192.0.2.1", 1450), ("fd00::1", 1470)])
def test_a_tunnel_may_have_a_larger_mtu_than_fits_its_device(local: str, room: int) -> None:
    """The kernel allows it only if the device becomes smaller afterwards."""
    eth0 = msgspec.structs.replace(A, mtu=1300)
    tunnel = msgspec.structs.replace(TUNNEL, mtu=1400, vxlan=Vxlan(1, local, "eth0", 8472))
    wide = msgspec.structs.replace(tunnel, mtu=1450)
    before, after = host(links=(loopback(), eth0, wide)), host(links=(loopback(), eth0, tunnel))
    assert lines(script(before, after).ip) == [
        f"link set dev eth0 mtu {room}",
        "link set dev flannel.1 mtu 1400",
        "link set dev eth0 mtu 1300",
    ]
    made = lines(script(bare(after), after).ip)
    assert made[made.index(f"link set dev eth0 mtu {room}") + 1].startswith("link add name flannel.1 ")
    assert "link set dev eth0 mtu 1300" in made


def test_a_tunnel_that_leads_elsewhere_is_another_device() -> None:
    """Its network identifier, port and ends cannot be changed."""
    other = msgspec.structs.replace(TUNNEL, vxlan=Vxlan(2, "192.0.2.1", "eth0", 8472))
    before, after = host(links=(loopback(), A, TUNNEL)), host(links=(loopback(), A, other))
    with pytest.raises(CannotDo, match=r"flannel\.1"):
        script(before, after)


def test_hairpin_mode_goes_with_the_bridge() -> None:
    """A port that leaves its bridge has no such mode any more, and must be told it again when it comes back."""
    bridge = Link("br0", 9, LinkKind.BRIDGE, "02:00:00:00:00:09")
    port = msgspec.structs.replace(A, master="br0", hairpin=True)
    plugged = host(links=(loopback(), bridge, port))
    alone = host(links=(loopback(), bridge, msgspec.structs.replace(A, master="", hairpin=False)))
    assert lines(script(plugged, alone).ip) == ["link set dev eth0 nomaster"]
    assert lines(script(alone, plugged).ip) == [
        "link set dev eth0 master br0",
        "link set dev eth0 type bridge_slave hairpin on",
    ]


def test_routing_rules_are_added_by_family() -> None:
    """`ip` takes rules of IPv6 only where its command line says so."""
    rules = (RoutingRule(100, "100", mark=1), RoutingRule(100, "100", to="2001:db8::/32", family=6))
    there = host(rules=(*rules, *DEFAULT_RULES))
    made = script(bare(there), there)
    assert "rule add from all fwmark 0x1/0xffffffff lookup 100 pref 100" in lines(made.ip)
    assert lines(made.ip6) == ["rule add from all to 2001:db8::/32 lookup 100 pref 100"]


def test_sysctls_know_devices_with_dots() -> None:
    """The name of a device is one folder, whatever it holds; forwarding is written first."""
    there = host(sysctls={"net.ipv4.conf.flannel.1.rp_filter": 2, "net.ipv4.ip_forward": 1})
    made = script(bare(there), there).sysctls
    assert made[0] == ("ipv4/ip_forward", "1")
    assert ("ipv4/conf/flannel.1/rp_filter", "2") in made


def test_a_lost_rule_restores_its_tables() -> None:
    """`iptables-restore` replaces whole tables; a table that is no longer there is emptied."""
    rule = Rule("filter", "FORWARD", (Destination(Prefix.of("192.0.2.2/32")), Nfacct("drops")), ACCEPT)
    whole = host(netfilter=Rules(tables(4, [Patch("filter", last=(rule,))])))
    assert script(whole, whole.without(rule)).iptables.startswith("*filter\n:INPUT ACCEPT [0:0]\n")
    assert script(bare(whole), whole).accounts == ("drops",)
    assert script(whole, host()).iptables == (
        "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"
    )


def of_nftables(name: str, *rules: nft.Statement) -> nft.Table:
    """A table with one chain, and a set that packets fill."""
    seen = nft.Set("seen", ("ipv4_addr",), elements=(nft.Element(("192.0.2.9",)),), flags=("dynamic",), size=9)
    chain = nft.Chain("forward", tuple(nft.Rule(name, "forward", (each,)) for each in rules))
    return nft.Table.of(name, [chain], [seen])


def test_tables_of_nftables_are_replaced_in_one_step() -> None:
    """All are made anew in their order, because of chains with one priority the newest runs first."""
    one, two = of_nftables("ip one", nft.DROP), of_nftables("ip two", nft.DROP)
    whole = host(nftables=(one, two))
    assert script(bare(whole), whole).nft == nft_list_ruleset((one, two))
    fewer = host(nftables=(of_nftables("ip one"), two))
    assert script(whole, fewer).nft == f"delete table ip one\ndelete table ip two\n{nft_list_ruleset(fewer.nftables)}"
    assert script(whole, host()).nft == "delete table ip one\ndelete table ip two\n"


def test_tables_of_nftables_follow_those_of_iptables() -> None:
    """A changed rule of iptables makes its chains the newest: nftables' tables are made again after them."""
    rule = Rule("filter", "FORWARD", (), ACCEPT)
    table = of_nftables("ip one", nft.DROP)
    whole = host(netfilter=Rules(tables(4, [Patch("filter", last=(rule,))])), nftables=(table,))
    assert script(whole, whole).nft == ""
    assert script(whole, whole.without(rule)).nft == f"delete table ip one\n{nft_list_ruleset((table,))}"


def test_dynamic_sets_forget_what_packets_put_there() -> None:
    """They hold again what they are configured with."""
    assert forgotten(host()) == ""
    assert lines(forgotten(host(nftables=(of_nftables("ip one"),)))) == [
        "flush set ip one seen",
        "add element ip one seen { 192.0.2.9 }",
    ]


def test_other_devices_need_another_lab() -> None:
    """A machine cannot be given a cable later."""
    with pytest.raises(CannotDo, match="eth0"):
        script(host(), host(links=(loopback(),)))


WEB = IpSet("WEB", SetType.IP_PORT, ("192.0.2.1,tcp:80",))


def test_sets_are_made_before_the_rules_that_ask_them() -> None:
    """In an input of their own, with their entries."""
    assert lines(script(bare(host()), host(ipsets=(WEB,))).ipset) == [
        "create WEB hash:ip,port family inet hashsize 1024 maxelem 65536", "add WEB 192.0.2.1,tcp:80",
    ]  # fmt: skip


def test_a_set_that_changes_is_emptied() -> None:
    """Rules may ask it: it cannot be made anew. One that is the same is left alone."""
    more = IpSet("WEB", SetType.IP_PORT, ("192.0.2.1,tcp:81",))
    changed = script(host(ipsets=(WEB,)), host(ipsets=(more,)))
    assert lines(changed.ipset) == ["flush WEB", "add WEB 192.0.2.1,tcp:81"]
    assert script(host(ipsets=(WEB,)), host(ipsets=(WEB,))).ipset == ""


def test_a_set_that_goes_is_taken_away_after_the_rules() -> None:
    """The kernel keeps a set that is asked."""
    gone = script(host(ipsets=(WEB,)), host())
    assert (gone.ipset, gone.ipset_gone) == ("", "destroy WEB\n")


def test_a_set_keeps_its_type() -> None:
    """Another type needs another lab."""
    with pytest.raises(CannotDo, match="another type"):
        script(host(ipsets=(WEB,)), host(ipsets=(IpSet("WEB", SetType.IP),)))
