"""Calico 3.30 against the state of a real node: its routes, devices, sets and chains, and what packets do with them."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from k8snetlab import cni
from k8snetlab.cni.calico import Calico, Mode
from k8snetlab.errors import BadOption, UnknownName
from k8snetlab.linux.host import Network
from k8snetlab.linux.ipset import IpSetEntry
from k8snetlab.linux.link import LinkKind
from k8snetlab.linux.text import (
    bridge_fdb,
    ip_link,
    ip_link_details,
    ip_neigh,
    ip_route,
    ipset_save,
    iptables_save,
)
from k8snetlab.linux.walk import Exchange, World, exchange
from k8snetlab.packet import IPv4
from k8snetlab.trace import Action, Client
from tests.cni.example import machine, network, node, plan, pod, workloads

WEB, DB = "cali0d7763386da", "cali9ae1fe16e6f"
THREE = plan(first=1)
BOTH = plan(machine(1, families=(4, 6)), machine(2, families=(4, 6)), first=1)


def calico(mode: str = "ipip", **options: str) -> Calico:
    """The plugin with these options."""
    return Calico.of({"mode": mode, **options})


def state(mode: str, **options: str) -> Network:
    """Three nodes of one subnet, two pods each."""
    return network(calico(mode, **options), THREE)


def ask(net: Network, source: str, address: str, size: int = 0) -> Exchange:
    """A first packet to port 80, or a datagram of `size` bytes."""
    world = World(net, Random(1))
    return exchange(world, source, address, 80, "UDP" if size else "TCP", payload=bytes(size))


def on_node1(mode: str, **options: str) -> str:
    """The IPv4 routes of node1."""
    return ip_route(node(calico(mode, **options), THREE, machine(1)))


# Routes and devices

IPIP = f"""
default via 172.18.0.1 dev eth0
blackhole 10.244.1.0/26 proto bird
10.244.1.1 dev {WEB} scope link
10.244.1.2 dev {DB} scope link
10.244.2.0/26 via 172.18.0.12 dev tunl0 proto bird onlink
10.244.3.0/26 via 172.18.0.13 dev tunl0 proto bird onlink
172.18.0.0/24 dev eth0 proto kernel scope link src 172.18.0.11
"""

DIRECT = f"""
default via 172.18.0.1 dev eth0
blackhole 10.244.1.0/26 proto bird
10.244.1.1 dev {WEB} scope link
10.244.1.2 dev {DB} scope link
10.244.2.0/26 via 172.18.0.12 dev eth0 proto bird
10.244.3.0/26 via 172.18.0.13 dev eth0 proto bird
172.18.0.0/24 dev eth0 proto kernel scope link src 172.18.0.11
"""

VXLAN = f"""
default via 172.18.0.1 dev eth0
blackhole 10.244.1.0/26 proto 80
10.244.1.1 dev {WEB} scope link
10.244.1.2 dev {DB} scope link
10.244.2.0/26 via 10.244.2.0 dev vxlan.calico onlink
10.244.3.0/26 via 10.244.3.0 dev vxlan.calico onlink
172.18.0.0/24 dev eth0 proto kernel scope link src 172.18.0.11
"""

VXLAN_DIRECT = f"""
default via 172.18.0.1 dev eth0
blackhole 10.244.1.0/26 proto 80
10.244.1.1 dev {WEB} scope link
10.244.1.2 dev {DB} scope link
10.244.2.0/26 via 172.18.0.12 dev eth0 proto 80 onlink
10.244.3.0/26 via 172.18.0.13 dev eth0 proto 80 onlink
172.18.0.0/24 dev eth0 proto kernel scope link src 172.18.0.11
"""


@pytest.mark.parametrize(
    ("mode", "routes"),
    [
        ("ipip", IPIP),
        ("ipip-crosssubnet", DIRECT),
        ("bgp", DIRECT),
        ("vxlan", VXLAN),
        ("vxlan-crosssubnet", VXLAN_DIRECT),
    ],
)
def test_the_routes_of_a_node_are_those_of_a_real_one(mode: str, routes: str) -> None:
    """Each pod by its cable, each block of another node by that node, one's own block into a black hole."""
    assert on_node1(mode) == routes.lstrip()


def test_a_pod_has_its_address_alone_and_a_gateway_that_nobody_has() -> None:
    """The state of web-0: /32, and two routes."""
    plugin, whole = calico(), THREE
    host = pod(plugin, whole, machine(1), whole.workloads["node1"][0])
    assert [str(address) for address in host.link("eth0").addresses] == ["10.244.1.1/32"]
    assert ip_route(host) == "default via 169.254.1.1 dev eth0\n169.254.1.1 dev eth0 scope link\n"
    assert not any("169.254.1.1" in each.owned for each in network(plugin, whole).values())


def test_the_node_s_end_of_a_cable_has_no_address_and_answers_for_all() -> None:
    """One MAC on every cable, no bridge, proxy ARP."""
    host = node(calico(), THREE, machine(1))
    cables = [link for link in host.links if link.kind is LinkKind.VETH]
    assert [(link.name, link.mac, link.addresses, link.master, link.mtu) for link in cables] == [
        (WEB, "ee:ee:ee:ee:ee:ee", (), "", 1480),
        (DB, "ee:ee:ee:ee:ee:ee", (), "", 1480),
    ]
    assert host.sysctl(f"net.ipv4.conf.{WEB}.proxy_arp") == 1


def test_tunl0_is_as_ip_prints_it() -> None:
    """A device without a MAC that is no pod's cable."""
    host = node(calico(), THREE, machine(1))
    assert (
        "3: tunl0@NONE: <NOARP,UP,LOWER_UP> mtu 1480 qdisc noqueue state UNKNOWN mode DEFAULT group default qlen 1000\n"
        "    link/ipip 0.0.0.0 brd 0.0.0.0\n"
    ) in ip_link(host)
    assert [str(address) for address in host.link("tunl0").addresses] == ["10.244.1.0/32"]


@pytest.mark.parametrize("mode", ["vxlan", "vxlan-crosssubnet"])
def test_the_vxlan_device_and_its_entries_are_those_of_a_real_node(mode: str) -> None:
    """Where packets stay within the subnet the entries are there, unused."""
    host = node(calico(mode), THREE, machine(1))
    link = host.link("vxlan.calico")
    assert (link.mac, link.mtu, str(link.addresses[0])) == ("66:f9:37:c3:7e:94", 1450, "10.244.1.0/32")
    details = "vxlan id 4096 local 172.18.0.11 dev eth0 srcport 0 0 dstport 4789 nolearning"
    assert details in ip_link_details(host)
    assert ip_neigh(host) == (
        "10.244.2.0 dev vxlan.calico lladdr 66:2d:bf:44:a6:8b PERMANENT\n"
        "10.244.3.0 dev vxlan.calico lladdr 66:a4:6f:e0:c4:da PERMANENT\n"
    )
    assert bridge_fdb(host) == (
        "66:2d:bf:44:a6:8b dev vxlan.calico dst 172.18.0.12 self permanent\n"
        "66:a4:6f:e0:c4:da dev vxlan.calico dst 172.18.0.13 self permanent\n"
    )


def test_ipv6_has_a_vxlan_device_of_its_own() -> None:
    """Another device, another MAC, 70 bytes; blocks of 64 addresses here as well."""
    host = node(calico("vxlan"), BOTH, machine(1, families=(4, 6)))
    assert host.link("vxlan-v6.calico").mtu == 1430
    assert host.link("vxlan-v6.calico").mac != host.link("vxlan.calico").mac
    assert ip_route(host, 6) == (
        "fd00:10:244:1:: dev vxlan-v6.calico proto kernel metric 256 pref medium\n"
        f"fd00:10:244:1::1 dev {WEB} metric 1024 pref medium\n"
        f"fd00:10:244:1::2 dev {DB} metric 1024 pref medium\n"
        "blackhole fd00:10:244:1::/122 dev lo proto 80 metric 1024 pref medium\n"
        "fd00:10:244:2::/122 via fd00:10:244:2:: dev vxlan-v6.calico metric 1024 onlink pref medium\n"
        "fd00:18::/64 dev eth0 proto kernel metric 256 pref medium\n"
        "default via fd00:18::1 dev eth0 metric 1024 pref medium\n"
    )


def test_the_ipv6_gateway_of_a_pod_follows_from_the_mac_of_its_cable() -> None:
    """fe80:: and ee:ee:ee:ee:ee:ee, which the node's end gives itself."""
    one = BOTH.machines[0]
    host = pod(calico("bgp"), BOTH, one, BOTH.workloads["node1"][0])
    assert ip_route(host, 6) == (
        "fd00:10:244:1::1 dev eth0 proto kernel metric 256 pref medium\n"
        "default via fe80::ecee:eeff:feee:eeee dev eth0 metric 1024 pref medium\n"
    )


def test_ipv6_pools_go_without_ipip() -> None:
    """The device carries IPv4 only: IPv6 is routed plainly beside it."""
    assert "fd00:10:244:2::/122 via fd00:18::12 dev eth0 proto bird metric 1024" in ip_route(
        node(calico("ipip"), BOTH, machine(1, families=(4, 6))), 6
    )


# Numbers


@pytest.mark.parametrize(
    ("mode", "families", "mtu"),
    [
        ("ipip", (4,), 1480),
        ("ipip-crosssubnet", (4,), 1480),
        ("vxlan", (4,), 1450),
        ("vxlan-crosssubnet", (4,), 1450),
        ("vxlan", (6,), 1430),
        ("vxlan", (4, 6), 1430),
        ("ipip", (4, 6), 1480),
        ("bgp", (4, 6), 1500),
    ],
)
def test_the_mtu_is_the_smallest_of_the_encapsulations_that_are_on(
    mode: str, families: tuple[int, ...], mtu: int
) -> None:
    """Whether a packet is wrapped or not; of an IPv6 pool VXLAN takes 70 bytes."""
    one = machine(1, families=families)
    host = node(calico(mode), plan(one, first=1), one)
    assert {link.mtu for link in host.links if link.kind is LinkKind.VETH} == {mtu}


@pytest.mark.parametrize(
    ("mode", "length"), [("bgp", 1042), ("ipip", 1062), ("vxlan", 1092), ("vxlan-crosssubnet", 1042)]
)
def test_the_bytes_on_the_wire_follow_from_the_mode(mode: str, length: int) -> None:
    """A datagram of 1000 bytes to a pod of another node, as the frame leaves the node's card."""
    found = ask(state(mode), "default/web-0", "10.244.2.1", 1000)
    sent = [
        step for step in found.steps if (step.where, step.device, step.action) == ("node1", "eth0", Action.TRANSMIT)
    ]
    assert [step.packet.length for step in sent] == [length]


@pytest.mark.parametrize("nodes", [1, 2, 3, 9])
@pytest.mark.parametrize(("mode", "entries"), [("bgp", 0), ("ipip", 0), ("vxlan", 1), ("vxlan-crosssubnet", 1)])
def test_entries_grow_with_the_nodes_not_with_the_pods(mode: str, entries: int, nodes: int) -> None:
    """A route a block of another node; neighbours and FDB entries with VXLAN only, used or not."""
    machines = [machine(number) for number in range(1, nodes + 1)]
    host = node(calico(mode), plan(*machines, first=1), machines[0], count=30)
    others = [route for route in host.routes if route.prefix.startswith("10.244.") and route.via]
    assert (len(others), len(host.neighbours), len(host.fdb)) == (
        nodes - 1, entries * (nodes - 1), entries * (nodes - 1),
    )  # fmt: skip


# Chains and sets


RAW = """
-A PREROUTING -j cali-PREROUTING
-A OUTPUT -j cali-OUTPUT
-A cali-OUTPUT -j MARK --set-xmark 0x0/0x1b0000
-A cali-OUTPUT -j cali-to-host-endpoint
-A cali-OUTPUT -m mark --mark 0x10000/0x10000 -j ACCEPT
-A cali-PREROUTING -j MARK --set-xmark 0x0/0x1b0000
-A cali-PREROUTING -i cali+ -j MARK --set-xmark 0x80000/0x80000
-A cali-PREROUTING -m mark --mark 0x80000/0x80000 -j cali-rpf-skip
-A cali-PREROUTING -m mark --mark 0x80000/0x80000 -m rpfilter --validmark --invert -j DROP
-A cali-PREROUTING -m mark --mark 0x0/0x80000 -j cali-from-host-endpoint
-A cali-PREROUTING -m mark --mark 0x10000/0x10000 -j ACCEPT
"""

MANGLE = """
-A PREROUTING -j cali-PREROUTING
-A POSTROUTING -j cali-POSTROUTING
-A cali-POSTROUTING -m mark --mark 0x10000/0x10000 -j RETURN
-A cali-POSTROUTING -j MARK --set-xmark 0x0/0x1b0000
-A cali-POSTROUTING -m conntrack --ctstate DNAT -j cali-to-host-endpoint
-A cali-POSTROUTING -m comment --comment "Host endpoint policy accepted packet." -m mark --mark 0x10000/0x10000 \
-j RETURN
-A cali-PREROUTING -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A cali-PREROUTING -m mark --mark 0x10000/0x10000 -j ACCEPT
-A cali-PREROUTING -j cali-from-host-endpoint
-A cali-PREROUTING -m comment --comment "Host endpoint policy accepted packet." -m mark --mark 0x10000/0x10000 -j ACCEPT
"""

NAT = """
-A PREROUTING -j cali-PREROUTING
-A OUTPUT -j cali-OUTPUT
-A POSTROUTING -j cali-POSTROUTING
-A cali-OUTPUT -j cali-fip-dnat
-A cali-POSTROUTING -j cali-fip-snat
-A cali-POSTROUTING -j cali-nat-outgoing
-A cali-POSTROUTING -o tunl0 -m addrtype ! --src-type LOCAL --limit-iface-out -m addrtype --src-type LOCAL \
-j MASQUERADE --random-fully
-A cali-PREROUTING -j cali-fip-dnat
-A cali-nat-outgoing -m set --match-set cali40masq-ipam-pools src -m set ! --match-set cali40all-ipam-pools dst \
-j MASQUERADE --random-fully
"""

FILTER = f"""
-A INPUT -j cali-INPUT
-A FORWARD -j cali-FORWARD
-A FORWARD -m comment --comment "Policy explicitly accepted packet." -m mark --mark 0x10000/0x10000 -j ACCEPT
-A FORWARD -j MARK --set-xmark 0x10000/0x10000
-A OUTPUT -j cali-OUTPUT
-A cali-FORWARD -j MARK --set-xmark 0x0/0x1a0000
-A cali-FORWARD -m mark --mark 0x0/0x10000 -j cali-from-hep-forward
-A cali-FORWARD -i cali+ -j cali-from-wl-dispatch
-A cali-FORWARD -o cali+ -j cali-to-wl-dispatch
-A cali-FORWARD -j cali-to-hep-forward
-A cali-FORWARD -j cali-cidr-block
-A cali-INPUT -p 4 -m comment --comment "Allow IPIP packets from Calico hosts" -m set --match-set \
cali40all-hosts-net src -m addrtype --dst-type LOCAL -j ACCEPT
-A cali-INPUT -p 4 -m comment --comment "Drop IPIP packets from non-Calico hosts" -j DROP
-A cali-INPUT -i cali+ -g cali-wl-to-host
-A cali-INPUT -m mark --mark 0x10000/0x10000 -j ACCEPT
-A cali-INPUT -j MARK --set-xmark 0x0/0x1b0000
-A cali-INPUT -j cali-from-host-endpoint
-A cali-INPUT -m comment --comment "Host endpoint policy accepted packet." -m mark --mark 0x10000/0x10000 -j ACCEPT
-A cali-OUTPUT -m mark --mark 0x10000/0x10000 -j ACCEPT
-A cali-OUTPUT -o cali+ -j RETURN
-A cali-OUTPUT -p 4 -m comment --comment "Allow IPIP packets to other Calico hosts" -m set --match-set \
cali40all-hosts-net dst -m addrtype --src-type LOCAL -j ACCEPT
-A cali-OUTPUT -j MARK --set-xmark 0x0/0x1b0000
-A cali-OUTPUT -m conntrack ! --ctstate DNAT -j cali-to-host-endpoint
-A cali-OUTPUT -m comment --comment "Host endpoint policy accepted packet." -m mark --mark 0x10000/0x10000 -j ACCEPT
-A cali-from-wl-dispatch -i {WEB} -g cali-fw-{WEB}
-A cali-from-wl-dispatch -i {DB} -g cali-fw-{DB}
-A cali-from-wl-dispatch -m comment --comment "Unknown interface" -j DROP
-A cali-fw-{WEB} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A cali-fw-{WEB} -m conntrack --ctstate INVALID -j DROP
-A cali-fw-{WEB} -j MARK --set-xmark 0x0/0x30000
-A cali-fw-{WEB} -p udp -m comment --comment "Drop VXLAN encapped packets originating in workloads" -m multiport \
--dports 4789 -j DROP
-A cali-fw-{WEB} -p 4 -m comment --comment "Drop IPinIP encapped packets originating in workloads" -j DROP
-A cali-fw-{WEB} -j cali-pro-kns.default
-A cali-fw-{WEB} -m comment --comment "Return if profile accepted" -m mark --mark 0x10000/0x10000 -j RETURN
-A cali-fw-{WEB} -j cali-pro-ksa.default.default
-A cali-fw-{WEB} -m comment --comment "Return if profile accepted" -m mark --mark 0x10000/0x10000 -j RETURN
-A cali-fw-{WEB} -m comment --comment "Drop if no profiles matched" -j DROP
-A cali-pri-kns.default -j MARK --set-xmark 0x10000/0x10000
-A cali-pro-kns.default -j MARK --set-xmark 0x10000/0x10000
-A cali-to-wl-dispatch -o {WEB} -g cali-tw-{WEB}
-A cali-to-wl-dispatch -o {DB} -g cali-tw-{DB}
-A cali-to-wl-dispatch -m comment --comment "Unknown interface" -j DROP
-A cali-tw-{WEB} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A cali-tw-{WEB} -m conntrack --ctstate INVALID -j DROP
-A cali-tw-{WEB} -j MARK --set-xmark 0x0/0x30000
-A cali-tw-{WEB} -j cali-pri-kns.default
-A cali-tw-{WEB} -m comment --comment "Return if profile accepted" -m mark --mark 0x10000/0x10000 -j RETURN
-A cali-tw-{WEB} -j cali-pri-ksa.default.default
-A cali-tw-{WEB} -m comment --comment "Return if profile accepted" -m mark --mark 0x10000/0x10000 -j RETURN
-A cali-tw-{WEB} -m comment --comment "Drop if no profiles matched" -j DROP
-A cali-wl-to-host -j cali-from-wl-dispatch
-A cali-wl-to-host -m comment --comment "Configured DefaultEndpointToHostAction" -j ACCEPT
"""


@pytest.mark.parametrize(("table", "rules"), [("raw", RAW), ("mangle", MANGLE), ("nat", NAT), ("filter", FILTER)])
def test_the_rules_of_a_node_are_those_of_a_real_one(table: str, rules: str) -> None:
    """With IPIP and pods that no policy selects; the chains of the second pod are like those of the first."""
    tables = node(calico(), THREE, machine(1)).netfilter.ipv4
    lines = iptables_save({table: tables[table]}).splitlines()
    own = (f"-A cali-tw-{DB}", f"-A cali-fw-{DB}")
    assert [line for line in lines if line.startswith("-A") and not line.startswith(own)] == rules.strip().splitlines()


def test_vxlan_is_not_tracked_and_taken_from_nodes_only() -> None:
    """In the place of the rules about IPIP."""
    saved = iptables_save(node(calico("vxlan"), THREE, machine(1)).netfilter.ipv4)
    assert saved.count("-p udp -m udp --dport 4789 -j CT --notrack\n") == 2
    assert "-p 4" not in saved.replace('-p 4 -m comment --comment "Drop IPinIP encapped', "")
    assert (
        '-A cali-INPUT -p udp -m comment --comment "Allow IPv4 VXLAN packets from allowed hosts" -m multiport --dports '
        "4789 -m set --match-set cali40all-vxlan-net src -m addrtype --dst-type LOCAL -j ACCEPT\n"
    ) in saved


def test_the_rules_of_ipv6_ask_sets_of_ipv6() -> None:
    """And let pods find their neighbours whatever policies say."""
    saved = iptables_save(node(calico("bgp"), BOTH, machine(1, families=(4, 6))).netfilter.ipv6)
    assert "cali60masq-ipam-pools" in saved and "cali40" not in saved
    assert saved.count("-A cali-wl-to-host -p ipv6-icmp -m icmp6 --icmpv6-type ") == 6


@pytest.mark.parametrize(
    ("mode", "own"),
    [
        ("bgp", ()),
        ("ipip", (("cali40all-hosts-net", ("172.18.0.11", "172.18.0.12", "172.18.0.13")),)),
        ("vxlan", (("cali40all-vxlan-net", ("172.18.0.12", "172.18.0.13")),)),
    ],
)
def test_the_sets_hold_pools_and_the_nodes_of_the_tunnel(
    mode: str, own: tuple[tuple[str, tuple[str, ...]], ...]
) -> None:
    """Both pools' sets in every mode."""
    host = node(calico(mode), THREE, machine(1))
    pools = (("cali40all-ipam-pools", ("10.244.0.0/16",)), ("cali40masq-ipam-pools", ("10.244.0.0/16",)))
    assert tuple((held.name, held.listed) for held in host.ipsets) == (*pools, *own)
    assert "create cali40all-ipam-pools hash:net family inet hashsize 1024 maxelem 1048576\n" in ipset_save(host)


def test_devices_whose_names_begin_alike_share_a_dispatch_chain() -> None:
    """No packet passes a list of all pods; what is no pod's device is dropped in the shared chain too."""
    many = node(calico("bgp"), THREE, machine(1), count=30).netfilter.ipv4["filter"].chains
    shared = [name for name in many if name.startswith("cali-to-wl-dispatch-")]
    assert shared
    assert all(str(many[name].rules[-1]).endswith('--comment "Unknown interface" -j DROP') for name in shared)
    endings = [str(rule.target) for name in (*shared, "cali-to-wl-dispatch") for rule in many[name].rules]
    assert sum(ending.startswith("-g cali-tw-") for ending in endings) == 30


def test_policies_attach_to_the_chains_of_the_pod_s_device() -> None:
    """The chains are there; under flannel there are none."""
    plugin = calico()
    chains = node(plugin, THREE, machine(1)).netfilter.ipv4[plugin.policies.table].chains
    assert plugin.policies.chains(WEB) == (f"cali-tw-{WEB}", f"cali-fw-{WEB}")
    assert all(name in chains for name in plugin.policies.chains(WEB))
    assert cni.named("flannel").policies.backend is cni.Enforcement.NONE


# What packets do


def test_a_pod_of_the_same_node_is_routed_to() -> None:
    """No bridge: one hop less to live, egress chain of the one and ingress chain of the other, then ACCEPT."""
    found = ask(state("bgp"), "default/web-0", "10.244.1.2")
    chains = [str(step.rule.chain) for step in found.steps if step.rule is not None]
    assert found.client is Client.OPEN and found.arrival is not None and found.arrival.packet.ip.ttl == 63
    assert chains.index(f"cali-fw-{WEB}") < chains.index(f"cali-tw-{DB}") < chains.index("FORWARD", 9)


def test_ip_in_ip_keeps_the_time_to_live_and_costs_twenty_bytes() -> None:
    """The outer packet goes from node to node; the inner one does not know."""
    found = ask(state("ipip"), "default/web-0", "10.244.2.1")
    [wrapped] = [step for step in found.steps if step.action is Action.ENCAPSULATE]
    outer, inner = wrapped.packet.headers[:2]
    assert isinstance(outer, IPv4) and isinstance(inner, IPv4)
    assert (outer.src, outer.dst, outer.protocol, outer.ttl) == ("172.18.0.11", "172.18.0.12", "IPIP", inner.ttl)
    assert found.client is Client.OPEN


def test_without_proxy_arp_a_pod_has_no_gateway() -> None:
    """Nobody answers for 169.254.1.1: even the other pod of the node is out of reach."""
    net = state("bgp")
    host = net["node1"]
    off = msgspec.structs.replace(host, sysctls={**host.sysctls, f"net.ipv4.conf.{WEB}.proxy_arp": 0})
    found = ask(net.replacing(off), "default/web-0", "10.244.1.2")
    assert found.client is Client.UNREACHABLE and "nobody on eth0 answers for 169.254.1.1" in found.reason


def test_a_node_without_a_default_route_answers_nobody() -> None:
    """Proxy ARP is for addresses that the node reaches by another device."""
    net = state("bgp")
    default = next(route for route in net["node1"].routes if route.prefix == "default")
    assert ask(net.without("node1", default), "default/web-0", "10.244.1.2").client is Client.UNREACHABLE


def test_an_address_of_the_block_that_no_pod_has_ends_on_the_node() -> None:
    """The black hole keeps it from going round between node and router."""
    found = ask(state("bgp"), "default/web-1", "10.244.1.40")
    assert (found.steps[-1].where, found.steps[-1].action) == ("node1", Action.LOST)


def test_a_tunnel_packet_from_a_machine_that_is_no_node_is_dropped() -> None:
    """What the set does not hold is no Calico host."""
    net = state("ipip").without("node2", IpSetEntry("cali40all-hosts-net", "172.18.0.11"))
    assert "Drop IPIP packets from non-Calico hosts" in ask(net, "default/web-0", "10.244.2.1").reason


def test_without_the_pool_in_the_set_pods_of_other_nodes_see_the_node() -> None:
    """What is in no pool counts as outside, and gets a node's address as its source."""
    net = state("ipip").without("node1", IpSetEntry("cali40all-ipam-pools", "10.244.0.0/16"))
    found = ask(net, "default/web-0", "10.244.2.1")
    assert found.arrival is not None and found.arrival.packet.ip.src == "10.244.1.0"


def test_a_pod_that_speaks_to_a_node_is_hidden() -> None:
    """Nodes' addresses are in no pool; without natOutgoing the pod is seen."""
    seen = [
        step.packet.ip.src
        for on in ("on", "off")
        for step in ask(state("bgp", natoutgoing=on), "default/web-0", "172.18.0.12").steps
        if (step.where, step.action) == ("node2", Action.RECEIVE)
    ]
    assert seen == ["172.18.0.11", "10.244.1.1"]


def test_a_pod_cannot_pretend_to_be_another() -> None:
    """Its packet has a source that lives behind another cable."""
    world = World(state("bgp"), Random(1))
    found = exchange(world, "default/web-0", "10.244.2.1", 80, source="10.244.1.2")
    assert "rpfilter" in str(found.steps[-1].rule) and found.steps[-1].action is Action.DROP


# BGP


def test_a_session_that_is_down_takes_its_routes_along() -> None:
    """On both ends, and nowhere else."""
    host = node(calico("bgp", peers_down="node1:node2"), THREE, machine(1))
    assert "10.244.2.0/26" not in ip_route(host) and "10.244.3.0/26 via 172.18.0.13" in ip_route(host)
    assert "10.244.2.0/26" in ip_route(node(calico("bgp", peers_down="node1:node2"), THREE, machine(3)))
    net = state("bgp", peers_down="node2")
    assert ask(net, "default/web-0", "10.244.3.1").client is Client.OPEN
    assert ask(net, "default/web-0", "10.244.2.1").client is not Client.OPEN


@pytest.mark.parametrize(
    ("options", "sessions"),
    [
        ({}, 15),
        ({"topology": "route-reflector"}, 5),
        ({"topology": "route-reflector", "reflectors": "2"}, 9),
        ({"topology": "tor"}, 6),
    ],
)
def test_the_sessions_of_six_nodes_are_those_of_the_topology(options: dict[str, str], sessions: int) -> None:
    """A full mesh n(n-1)/2, with r reflectors r a client and those between them, with the router one a node."""
    whole = plan(*(machine(number) for number in range(1, 7)), first=1)
    [pool] = calico("bgp", **options).pools(whole)
    assert pool.bgp is not None and len(pool.bgp.sessions) == sessions


def test_a_mesh_of_too_many_is_refused_with_numbers() -> None:
    """Sessions grow with the square of the nodes."""
    one = machine(1)
    many = plan(*(msgspec.structs.replace(one, name=f"node{number}") for number in range(1, 1202)), first=1)
    with pytest.raises(BadOption, match="1,201 nodes in a full mesh are 720,600 BGP sessions: take route reflectors"):
        calico("bgp").pools(many)


def test_a_reflector_is_no_hop() -> None:
    """Routes by way of node1 lead straight to the node of the block."""
    host = node(calico("bgp", topology="route-reflector"), THREE, machine(2))
    assert "10.244.3.0/26 via 172.18.0.13 dev eth0 proto bird\n" in ip_route(host)
    [rib] = calico("bgp", topology="route-reflector").rib(THREE, "node2")
    assert "via 172.18.0.13 [from node1] (100) [i] originator 172.18.0.13 cluster 244.0.0.1" in str(rib)


def test_with_the_only_reflector_gone_nobody_knows_anybody() -> None:
    """What a mesh would have survived."""
    net = state("bgp", topology="route-reflector", peers_down="node1")
    assert "proto bird" not in ip_route(net["node2"]).replace("blackhole 10.244.2.0/26 proto bird", "")


def test_a_router_that_speaks_bgp_knows_the_blocks_and_the_nodes_need_not() -> None:
    """The nodes find their own AS in what it tells them, and refuse it; packets go by the default route."""
    net = state("bgp", topology="tor")
    assert "10.244.2.0/26 via 172.18.0.12 dev eth18 proto bird\n" in ip_route(net["router"])
    assert "10.244.2.0/26" not in ip_route(net["node1"])
    [rib] = calico("bgp", topology="tor").rib(THREE, "node1")
    assert [path.refused for path in rib.paths if path.peer] == ["the own AS 64512 is in the path"] * 2
    assert ask(net, "default/web-0", "10.244.2.1").client is Client.OPEN


def test_a_next_hop_beyond_the_subnet_is_looked_for_behind_the_default_route() -> None:
    """BGP between subnets without encapsulation: the router between knows nothing of pods."""
    whole = plan(machine(1), machine(2, zone=19), first=1)
    net = network(calico("bgp"), whole)
    assert "10.244.2.0/26 via 172.18.0.1 dev eth0 proto bird\n" in ip_route(net["node1"])
    assert ask(net, "default/web-0", "10.244.2.1").client is not Client.OPEN


@pytest.mark.parametrize("mode", ["ipip-crosssubnet", "vxlan-crosssubnet"])
def test_across_subnets_packets_are_wrapped_and_within_they_are_not(mode: str) -> None:
    """One neighbour on the cable, one behind a router."""
    net = network(calico(mode), plan(machine(1), machine(2), machine(3, zone=19), first=1))
    wrapped = [
        any(step.action is Action.ENCAPSULATE for step in ask(net, "default/web-0", address).steps)
        for address in ("10.244.2.1", "10.244.3.1")
    ]
    assert wrapped == [False, True]


# Options


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mode": "vxlan", "topology": "tor"}, "topology belongs to BGP, and mode vxlan does without"),
        ({"mode": "ipip", "topology": "tor"}, "tor belongs to mode bgp"),
        ({"reflectors": "2"}, "reflectors belong to topology route-reflector"),
        ({"peers_down": "a:b:c"}, "'a:b:c' is no machine, and no two machines with a colon between"),
        ({"blocksize": "33"}, "'33' is no whole number from 20 to 32"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, str], says: str) -> None:
    """Nothing is ignored."""
    with pytest.raises(BadOption, match=says):
        cni.named("calico", options)


def test_with_the_router_of_the_rack_nothing_is_wrapped() -> None:
    """The mode need not be said."""
    assert Calico.of({"topology": "tor"}) == Calico.of({"topology": "tor", "mode": "bgp"})


def test_a_peer_that_does_not_exist_is_named_with_those_that_do() -> None:
    """The machines are known once the plan is."""
    with pytest.raises(UnknownName, match="there is no BGP speaker 'node9'"):
        node(calico("bgp", peers_down="node9"), THREE, machine(1))


def test_a_machine_that_is_no_node_of_the_plan_gets_nothing() -> None:
    """No daemon of Calico runs there."""
    assert calico().node(THREE, msgspec.structs.replace(machine(9), pod_cidrs=()), ()).links == ()


def test_a_pod_with_an_address_of_no_pool_was_attached_by_another() -> None:
    """Named, with the pools there are."""
    stray = cni.Workload("default/stray", ("192.0.2.7",))
    with pytest.raises(BadOption, match=r"Pod default/stray: status.podIP: 192.0.2.7 is in no pool of the cluster"):
        calico().pod(THREE, machine(1), stray)


def test_a_tunnel_address_that_a_node_published_is_kept() -> None:
    """Annotations of a dump say what IPAM gave."""
    said = {"projectcalico.org/IPv4IPIPTunnelAddr": "10.244.1.9"}
    one = msgspec.structs.replace(machine(1), annotations=said)
    assert [str(own) for own in node(calico(), plan(one, first=1), one).link("tunl0").addresses] == ["10.244.1.9/32"]


@pytest.mark.parametrize("mode", list(Mode))
def test_borrowed_addresses_are_told_one_by_one(mode: Mode) -> None:
    """A pod whose address is in the block of another node has a route of its own there."""
    one, two = machine(1), machine(2)
    pods = {"node1": workloads(one, first=1), "node2": (cni.Workload("default/guest", ("10.244.1.33",)),)}
    whole = msgspec.structs.replace(plan(one, two, first=1), workloads=pods)
    net = network(calico(mode), whole)
    assert "10.244.1.33 via" in ip_route(net["node1"])
    assert ask(net, "default/web-0", "10.244.1.33").client is Client.OPEN
