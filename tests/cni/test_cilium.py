"""Cilium, against the state of real nodes."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from k8snetlab import cni, contract
from k8snetlab.cluster import Cluster
from k8snetlab.cni.cilium import lxc_name, router
from k8snetlab.cni.identities import identities, security_labels
from k8snetlab.errors import BadOption
from k8snetlab.linux.datapath import Datapath, Direction, Permit, bpf_endpoint_list, bpf_ipcache_list, bpf_policy_list
from k8snetlab.linux.host import Host, Network
from k8snetlab.linux.link import LinkKind
from k8snetlab.linux.text import ip_addr, ip_link_details, ip_route, ip_rule, iptables_save
from k8snetlab.linux.walk import Exchange, World, exchange
from k8snetlab.packet import UDP, VXLAN, Geneve
from k8snetlab.trace import Action, Client, Step
from tests.cni.example import machine, network, node, plan, pod, workloads
from tests.shops import bookshop

VXLAN_MODE = cni.named("cilium")
GENEVE = cni.named("cilium", {"mode": "geneve"})
NATIVE = cni.named("cilium", {"mode": "native"})


def datapath(host: Host) -> Datapath:
    """The programs and maps of a machine that has some."""
    assert host.datapath is not None
    return host.datapath


def number(name: str, whole: cni.Plan | None = None) -> int:
    """The identity of the pods called so."""
    labels = security_labels(cni.Workload(f"default/{name}", (), labels={"app": name}))
    return identities(whole or plan())[labels]


def sent(net: Network, source: str, target: str, port: int = 80) -> Exchange:
    """One packet, and what came of it."""
    return exchange(World(net, Random(1)), source, target, port)


def wrapped(found: Exchange) -> list[tuple[int, ...]]:
    """The identifiers of the tunnels that a packet went through, and of those of its answer."""
    steps = (*found.steps, *found.reply)
    held = (step.packet.headers for step in steps if step.action is Action.ENCAPSULATE)
    return [tuple(header.vni for header in headers if isinstance(header, VXLAN)) for headers in held]


# The state of a node


def test_all_routes_lead_to_the_nodes_own_cilium_host() -> None:
    """Where a pod is stands in a map; the table only says that pods are behind cilium_host, and how long packets may
    be.
    """
    assert ip_route(node(VXLAN_MODE, plan(), machine(1))) == (
        "default via 172.18.0.1 dev eth0\n"
        "10.244.1.0/24 via 10.244.1.174 dev cilium_host proto kernel src 10.244.1.174\n"
        "10.244.1.174 dev cilium_host proto kernel scope link\n"
        "10.244.2.0/24 via 10.244.1.174 dev cilium_host proto kernel src 10.244.1.174 mtu 1450\n"
        "10.244.3.0/24 via 10.244.1.174 dev cilium_host proto kernel src 10.244.1.174 mtu 1450\n"
        "172.18.0.0/24 dev eth0 proto kernel scope link src 172.18.0.11\n"
    )


def test_in_native_mode_routes_lead_to_the_nodes_of_the_subnet() -> None:
    """As `autoDirectNodeRoutes` writes them; a node that needs a gateway gets none."""
    routes = ip_route(node(NATIVE, plan(machine(1), machine(2), machine(3, zone=19)), machine(1)))
    assert "10.244.2.0/24 via 172.18.0.12 dev eth0 proto kernel\n" in routes
    assert "10.244.3.0/24" not in routes


def test_the_rule_of_the_local_table_moves_back() -> None:
    """What is meant for a proxy must be led there before own addresses are looked up."""
    host = node(VXLAN_MODE, plan(), machine(1))
    assert ip_rule(host) == (
        "9:\tfrom all fwmark 0x200/0xf00 lookup 2004\n"
        "100:\tfrom all lookup local\n"
        "32766:\tfrom all lookup main\n"
        "32767:\tfrom all lookup default\n"
    )
    assert ip_route(host, table="2004") == "local default dev lo\n"


def test_devices_are_in_no_bridge_and_keep_the_mtu() -> None:
    """A pair of the node's own, a tunnel without entries, and an end for each pod."""
    host = node(VXLAN_MODE, plan(), machine(1))
    lines = ip_addr(host)
    assert "cilium_net@cilium_host: <BROADCAST,MULTICAST,NOARP,UP,LOWER_UP> mtu 1500" in lines
    assert "cilium_host@cilium_net: <BROADCAST,MULTICAST,NOARP,UP,LOWER_UP> mtu 1500" in lines
    assert "inet 10.244.1.174/32 scope global cilium_host" in lines
    assert "vxlan external dstport 8472" in ip_link_details(host)
    assert {link.mtu for link in host.links if link.kind is not LinkKind.LOOPBACK} == {1500}
    assert not host.fdb and not host.neighbours and not any(link.master for link in host.links)


def test_geneve_has_its_own_device_and_port() -> None:
    """The same, by another header."""
    host = node(GENEVE, plan(), machine(1))
    assert "geneve external dstport 6081" in ip_link_details(host)
    assert host.link("cilium_geneve").kind is LinkKind.GENEVE


def test_a_pod_has_an_address_that_stands_alone() -> None:
    """Its MTU is the underlay's; its default route has the one that fits the tunnel."""
    one = machine(1)
    host = pod(VXLAN_MODE, plan(), one, workloads(one)[0])
    assert ip_route(host) == "default via 10.244.1.174 dev eth0 mtu 1450\n10.244.1.174 dev eth0 scope link\n"
    assert [str(address) for address in host.link("eth0").addresses] == ["10.244.1.2/32"]
    assert host.link("eth0").mtu == 1500


def test_device_names_are_those_of_a_hash() -> None:
    """`lxc` and twelve hexadecimal digits: as long as a name may be."""
    assert len(lxc_name("a" * 63 + "/" + "b" * 253)) == 15


@pytest.mark.parametrize(("options", "mtu"), [({}, 1450), ({"mode": "geneve"}, 1450), ({"mode": "native"}, 1500)])
def test_the_mtu_sits_on_routes(options: dict[str, str], mtu: int) -> None:
    """A tunnel over IPv4 adds 50 bytes."""
    one = machine(1)
    routes = pod(cni.named("cilium", options), plan(), one, workloads(one)[0]).routes
    assert [route.mtu for route in routes if route.prefix == "default"] == [mtu]


def test_over_ipv6_a_tunnel_takes_seventy_bytes() -> None:
    """The outer header is 20 bytes longer."""
    machines = tuple(machine(at, families=(6,)) for at in (1, 2))
    routes = node(VXLAN_MODE, plan(*machines), machines[0]).routes
    assert [route.mtu for route in routes if route.prefix == "fd00:10:244:2::/64"] == [1430]


def test_each_node_more_costs_one_route_and_no_neighbour() -> None:
    """N - 1 routes on each of n nodes, and no FDB entry."""
    for count in (2, 5, 9):
        machines = tuple(machine(at) for at in range(1, count + 1))
        host = node(VXLAN_MODE, plan(*machines), machines[0])
        assert sum(1 for route in host.routes if route.mtu) == count - 1
        assert (len(host.neighbours), len(host.fdb)) == (0, 0)


# Maps


def test_the_cache_says_who_has_which_address() -> None:
    """Everybody of one set of labels has one identity, wherever he is; what is not known is the world."""
    web, db = number("web"), number("db")
    here, there = "encryptkey=0 tunnelendpoint=0.0.0.0 flags=<none>", "encryptkey=0 tunnelendpoint=172.18.0.12"
    whole = plan(machine(1), machine(2))
    assert bpf_ipcache_list(node(VXLAN_MODE, whole, machine(1)).datapath) == (
        "IP PREFIX/ADDRESS   IDENTITY\n"
        f"0.0.0.0/0           identity=2 {here}\n"
        f"10.244.1.2/32       identity={web} {here}\n"
        f"10.244.1.3/32       identity={db} {here}\n"
        f"10.244.1.174/32     identity=1 {here}\n"
        f"172.18.0.11/32      identity=1 {here}\n"
        f"10.244.2.2/32       identity={web} {there} flags=hastunnel\n"
        f"10.244.2.3/32       identity={db} {there} flags=hastunnel\n"
        f"10.244.2.0/24       identity=2 {there} flags=hastunnel\n"
        f"10.244.2.31/32      identity=6 {there} flags=hastunnel\n"
        f"172.18.0.12/32      identity=6 {here}\n"
    )


def test_with_two_families_there_are_two_worlds() -> None:
    """9 and 10 in the place of 2."""
    both = machine(1, families=(4, 6))
    found = datapath(node(VXLAN_MODE, plan(both), both))
    assert [(each.prefix, each.identity) for each in found.known[:2]] == [("0.0.0.0/0", 9), ("::/0", 10)]


def test_endpoints_are_the_machines_own_addresses_and_its_pods() -> None:
    """The map that the programs deliver by."""
    lines = bpf_endpoint_list(node(VXLAN_MODE, plan(), machine(1)).datapath).splitlines()
    assert lines[1].split() == ["10.244.1.174:0", "(localhost)"]
    assert lines[2].split() == ["172.18.0.11:0", "(localhost)"]
    assert lines[3].startswith("10.244.1.2:0 ") and f"sec_id={number('web')}" in lines[3]
    assert len(lines) == 5


HEAD = (
    "POLICY", "DIRECTION", "LABELS (source:key[=value])", "PORT/PROTO", "PROXY PORT", "AUTH TYPE", "BYTES", "PACKETS",
    "PREFIX",
)  # fmt: skip


def test_an_endpoint_that_no_policy_selects_allows_everything() -> None:
    """An entry for each direction, which speaks of any peer."""
    text = bpf_policy_list(node(VXLAN_MODE, plan(), machine(1), count=1).datapath)
    assert text.splitlines()[2:] == [
        "   ".join(HEAD),
        "Allow    Ingress     reserved:unknown              ANY          NONE         disabled    0       0         0",
        "Allow    Egress      reserved:unknown              ANY          NONE         disabled    0       0         0",
    ]


def test_an_entry_for_some_labels_prints_all_of_them() -> None:
    """The labels of the identity, one a line, and how exact the entry is."""
    host = node(VXLAN_MODE, plan(), machine(1), count=1)
    some = Permit(7, Direction.INGRESS, number("web"), "TCP", 5432)
    lines = bpf_policy_list(msgspec.structs.replace(datapath(host), permits=(some,))).splitlines()
    assert lines[3].split() == ["Allow", "Ingress", "k8s:app=web", "5432/TCP", "NONE", "disabled", "0", "0", "24"]
    assert lines[-1].strip() == "k8s:io.kubernetes.pod.namespace=default"


def test_identities_are_above_the_reserved_ones_and_alike_on_all_nodes() -> None:
    """One number a set of labels, from 256 to 65535."""
    numbers = identities(plan())
    assert len(numbers) == 2 and all(256 <= each <= 65535 for each in numbers.values())
    caches = [datapath(node(VXLAN_MODE, plan(), machine(at))) for at in (1, 2, 3)]
    assert {each.identity("10.244.2.2") for each in caches} == {number("web")}


def test_labels_that_change_with_every_copy_make_no_identity() -> None:
    """Else each copy would be somebody else."""
    copies = {"apps.kubernetes.io/pod-index": "0", "pod-template-hash": "5d9", "app.kubernetes.io/name": "web"}
    labels = security_labels(cni.Workload("shop/web-0", (), "buyer", copies))
    assert labels == (
        "k8s:app.kubernetes.io/name=web",
        "k8s:io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name=shop",
        "k8s:io.cilium.k8s.policy.cluster=default",
        "k8s:io.cilium.k8s.policy.serviceaccount=buyer",
        "k8s:io.kubernetes.pod.namespace=shop",
    )


def test_without_an_annotation_cilium_host_takes_an_address_that_no_pod_has() -> None:
    """Every node must know it of every other, and a pod more must not change it."""
    three = machine(3)
    own = router(plan(), three, 4)
    assert three.pod_cidrs[0].contains(own) and own == router(plan(machine(1), three), three, 4)
    assert own not in {address for each in workloads(three, 120) for address in each.addresses}


def test_a_broken_annotation_is_said() -> None:
    """What cannot be read is not skipped."""
    broken = msgspec.structs.replace(machine(1), annotations={"network.cilium.io/ipv4-cilium-host": "10.244.1"})
    with pytest.raises(BadOption, match="ipv4-cilium-host"):
        node(VXLAN_MODE, plan(broken), broken)


# Netfilter

OWN = "SNAT --to-source 10.244.1.174"


def test_the_chains_are_those_of_a_real_node() -> None:
    """Feeders first; what leaves the node's pod network is hidden, what the node itself sends is marked."""
    saved = iptables_save(node(VXLAN_MODE, plan(), machine(1)).netfilter.ipv4)
    wanted = (
        ("-s 10.244.1.0/24 ! -d 10.244.1.0/24 ! -o cilium_+", "cilium masquerade non-cluster", "MASQUERADE"),
        ("-m mark --mark 0xa00/0xe00", "exclude proxy return traffic from masquerade", "ACCEPT"),
        ("! -s 10.244.1.0/24 ! -d 10.244.1.0/24 -o cilium_host", "cilium host->cluster masquerade", OWN),
        ("-s 127.0.0.1/32 -o cilium_host", "cilium host->cluster from 127.0.0.1 masquerade", OWN),
        (
            "-o cilium_host -m mark --mark 0xf00/0xf00 -m conntrack --ctstate DNAT",
            "hairpin traffic that originated from a local pod",
            OWN,
        ),
    )
    assert [line for line in saved[saved.index("*nat") :].splitlines() if line.startswith("-A")] == [
        '-A POSTROUTING -m comment --comment "cilium-feeder: CILIUM_POST_nat" -j CILIUM_POST_nat',
        *(f'-A CILIUM_POST_nat {match} -m comment --comment "{said}" -j {target}' for match, said, target in wanted),
    ]
    assert '-A CILIUM_FORWARD -i lxc+ -m comment --comment "cilium: cluster->any on lxc+ forward accept" -j ACCEPT' in (
        saved
    )
    assert "-j MARK --set-xmark 0xc00/0xf00" in saved


def test_in_native_mode_no_pod_is_hidden_from_another() -> None:
    """There packets between nodes leave by eth0, so the whole pod network is left out."""
    saved = iptables_save(node(NATIVE, plan(), machine(1)).netfilter.ipv4)
    assert "-A CILIUM_POST_nat -s 10.244.1.0/24 ! -d 10.244.0.0/16 ! -o cilium_+" in saved


def test_masquerading_can_be_switched_off() -> None:
    """Then there is no table nat at all."""
    quiet = cni.named("cilium", {"masquerade": "off"})
    assert "nat" not in node(quiet, plan(), machine(1)).netfilter.ipv4


# The walk


def test_the_network_identifier_is_who_sent_it() -> None:
    """Both ways: web asks, db answers; and nobody's rules are asked in between."""
    net = network(VXLAN_MODE, plan(machine(1), machine(2, zone=19)))
    found = sent(net, "default/web-0", "10.244.2.3")
    assert found.client is Client.OPEN
    assert wrapped(found) == [(number("web"),), (number("db"),)]
    assert found.arrival is not None and found.arrival.packet.ip.src == "10.244.1.2"
    rules = [step.rule.table for step in found.steps if step.rule is not None and step.packet.ip.src == "10.244.1.2"]
    assert set(rules) == {"bpf"}


def test_geneve_carries_it_in_its_own_header() -> None:
    """To UDP port 6081."""
    found = sent(network(GENEVE, plan(machine(1), machine(2))), "default/web-0", "10.244.2.3")
    outer = next(step.packet.headers for step in found.steps if step.action is Action.ENCAPSULATE)
    assert isinstance(outer[2], Geneve) and outer[2].vni == number("web")
    assert isinstance(outer[1], UDP) and outer[1].dport == 6081


def test_a_thousand_bytes_are_1092_on_the_wire() -> None:
    """1042 as they are: Ethernet, IPv4 and UDP; and 50 for the tunnel."""
    for plugin, size in ((VXLAN_MODE, 1092), (GENEVE, 1092), (NATIVE, 1042)):
        world = World(network(plugin, plan(machine(1), machine(2))), Random(1))
        found = exchange(world, "default/web-0", "10.244.2.3", 9, "UDP", payload=bytes(1000))
        assert {step.packet.length for step in found.steps if left_by_card(step)} == {size}


def left_by_card(step: Step) -> bool:
    """Whether a frame left a node by its network card."""
    return step.where == "node1" and step.device == "eth0" and step.action is Action.TRANSMIT


def test_a_packet_that_fits_no_tunnel_is_refused_in_the_pod() -> None:
    """The pod's device would take it; its route does not."""
    world = World(network(VXLAN_MODE, plan(machine(1), machine(2))), Random(1))
    found = exchange(world, "default/web-0", "10.244.2.3", 9, "UDP", payload=bytes(1450 - 27))
    assert "1451 bytes do not fit the MTU of eth0, 1450" in found.reason


def test_a_node_is_another_nodes_remote_node() -> None:
    """Its own packets go by cilium_host, and identity 1 is sent as 6."""
    found = sent(network(VXLAN_MODE, plan(machine(1), machine(2))), "node1", "10.244.2.3")
    assert (found.client, found.source) == (Client.OPEN, "10.244.1.174")
    assert wrapped(found) == [(6,), (number("db"),)]


def test_the_gateway_is_answered_for_by_the_program() -> None:
    """A pod hears the MAC address of its own cable's other end, for whatever address it asks."""
    net = network(VXLAN_MODE, plan(machine(1), machine(2)))
    found = sent(net, "default/web-0", "10.244.2.3")
    said = next(step for step in found.steps if step.action is Action.ARP)
    assert said.why == f"10.244.1.174 is at {net['node1'].link(lxc_name('default/web-0')).mac}"


def test_nobody_sends_with_an_address_that_is_not_his() -> None:
    """The program knows whose cable it is."""
    world = World(network(VXLAN_MODE, plan(machine(1), machine(2))), Random(1))
    found = exchange(world, "default/web-0", "10.244.2.3", 80, source="10.244.1.3")
    assert found.reason.endswith("10.244.1.3 is not the address of this endpoint (Invalid source ip)")


def test_each_program_counts_as_a_hop_and_the_tunnel_does_not() -> None:
    """63 on the same node and on another."""
    for target in ("10.244.1.3", "10.244.2.3"):
        found = sent(network(VXLAN_MODE, plan(machine(1), machine(2))), "default/web-0", target)
        assert found.arrival is not None and found.arrival.packet.ip.ttl == 63


# What breaks


def denied_to_world(net: Network) -> Network:
    """The network in which web-0 may reach db, and nobody else."""
    host = net["node1"]
    own = datapath(host).by_address["10.244.1.2"].number
    kept = tuple(each for each in datapath(host).permits if (each.endpoint, each.direction) != (own, Direction.EGRESS))
    only = (*kept, Permit(own, Direction.EGRESS, number("db", plan(machine(1), machine(2)))))
    return net.replacing(msgspec.structs.replace(host, datapath=msgspec.structs.replace(datapath(host), permits=only)))


def without_known(net: Network, *prefixes: str) -> Network:
    """The network in which the cache of node1 lost entries."""
    for prefix in prefixes:
        entry = next(each for each in datapath(net["node1"]).known if each.prefix == prefix)
        net = net.without("node1", entry)
    return net


def test_without_its_entry_a_remote_pod_is_reached_but_is_nobody() -> None:
    """The entry of its node's network still leads there; by that it belongs to the world, which the policy denies."""
    net = network(VXLAN_MODE, plan(machine(1), machine(2)))
    assert sent(without_known(net, "10.244.2.3/32"), "default/web-0", "10.244.2.3").client is Client.OPEN
    strict = denied_to_world(net)
    assert sent(strict, "default/web-0", "10.244.2.3").client is Client.OPEN
    lost = sent(without_known(strict, "10.244.2.3/32"), "default/web-0", "10.244.2.3")
    assert lost.reason.endswith("to identity 2 (reserved:world) is not allowed (Policy denied)")


def test_without_that_of_its_network_too_nobody_knows_where_it_is() -> None:
    """Up the stack, and by the route into cilium_host, whose program does not send it in circles."""
    net = without_known(network(VXLAN_MODE, plan(machine(1), machine(2))), "10.244.2.3/32", "10.244.2.0/24")
    found = sent(net, "default/web-0", "10.244.2.3")
    assert found.reason.endswith("(Stale or unroutable IP)")
    assert found.client is Client.TIMEOUT


def test_a_sender_that_the_receivers_cache_does_not_know_is_known_by_the_tunnel() -> None:
    """The receiver believes the network identifier."""
    net = network(VXLAN_MODE, plan(machine(1), machine(2)))
    entry = next(each for each in datapath(net["node2"]).known if each.prefix == "10.244.1.2/32")
    found = sent(net.without("node2", entry), "default/web-0", "10.244.2.3")
    assert any(f"it comes from identity {number('web')}" in step.why for step in found.steps)


def test_without_an_entry_of_its_policy_map_a_pod_lets_nobody_in() -> None:
    """The SYN is dropped, and nobody is told."""
    net = network(VXLAN_MODE, plan(machine(1), machine(2)))
    own = datapath(net["node2"]).by_address["10.244.2.3"].number
    entry = next(
        each for each in datapath(net["node2"]).permits
        if (each.endpoint, each.direction) == (own, Direction.INGRESS)
    )  # fmt: skip
    found = sent(net.without("node2", entry), "default/web-0", "10.244.2.3")
    assert found.client is Client.TIMEOUT
    assert found.reason.endswith("is not allowed (Policy denied)")


def test_without_the_program_at_its_device_a_pod_is_routed() -> None:
    """The kernel answers for the gateway, and its routes lead into cilium_host."""
    net = network(VXLAN_MODE, plan(machine(1), machine(2)))
    device = lxc_name("default/web-0")
    program = next(each for each in datapath(net["node1"]).attached if each.device == device)
    found = sent(net.without("node1", program), "default/web-0", "10.244.2.3")
    assert found.client is Client.OPEN
    assert any(step.where == "node1" and step.device == "cilium_host" for step in found.steps)


def test_an_option_that_does_not_exist_is_refused() -> None:
    """The modes are named."""
    with pytest.raises(BadOption, match="mode: 'ipip' is none of vxlan, geneve, native"):
        cni.named("cilium", {"mode": "ipip"})


# Encryption

WIREGUARD = cni.named("cilium", {"encryption": "wireguard"})
NATIVE_WIREGUARD = cni.named("cilium", {"mode": "native", "encryption": "wireguard"})


@pytest.mark.parametrize(
    ("plugin", "mtu", "wire"),
    [(WIREGUARD, 1370, 1162), (NATIVE_WIREGUARD, 1420, 1114)],
    ids=["vxlan", "native"],
)
def test_wireguard_takes_eighty_bytes_of_every_route(plugin: cni.Cni, mtu: int, wire: int) -> None:
    """A thousand bytes are 1028, or in the tunnel 1078; padded to 16; and 60 and an Ethernet header more."""
    net = network(plugin, plan(machine(1), machine(2)))
    assert [route.mtu for route in net["default/web-0"].routes if route.prefix == "default"] == [mtu]
    assert net["node1"].link("cilium_wg0").mtu == 1420
    world = World(net, Random(1))
    found = exchange(world, "default/web-0", "10.244.2.3", 9, "UDP", payload=bytes(1000))
    assert {step.packet.length for step in found.steps if left_by_card(step)} == {wire}


def test_behind_a_peer_is_its_node_or_are_its_pods() -> None:
    """With a tunnel only outer packets are encrypted."""
    for plugin, allowed in ((WIREGUARD, ("172.18.0.12/32",)), (NATIVE_WIREGUARD, ("10.244.2.2/32", "10.244.2.3/32"))):
        host = node(plugin, plan(machine(1), machine(2)), machine(1))
        assert [(peer.allowed, peer.place) for peer in host.wireguard] == [(allowed, "172.18.0.12:51871")]
        there = node(plugin, plan(machine(1), machine(2)), machine(2)).link("cilium_wg0")
        assert there.wireguard is not None and host.wireguard[0].public == there.wireguard.public


def test_the_cache_says_that_pods_elsewhere_are_to_be_encrypted_for() -> None:
    """255 stands for WireGuard."""
    known = datapath(node(WIREGUARD, plan(machine(1), machine(2)), machine(1))).known
    assert {each.prefix for each in known if each.key == 255} == {"10.244.2.2/32", "10.244.2.3/32"}


@pytest.mark.parametrize("plugin", [WIREGUARD, NATIVE_WIREGUARD], ids=["vxlan", "native"])
def test_pods_of_one_node_and_nodes_themselves_are_not_encrypted(plugin: cni.Cni) -> None:
    """Only what leaves the node, and only what pods are part of."""
    net = network(plugin, plan(machine(1), machine(2)))
    for source, target in (("default/web-0", "10.244.1.3"), ("node1", "172.18.0.12")):
        assert not any(step.device == "cilium_wg0" for step in sent(net, source, target).steps)


def test_without_the_device_nothing_leaves_readable() -> None:
    """It is dropped, and not sent as it is."""
    net = network(NATIVE_WIREGUARD, plan(machine(1), machine(2)))
    lost = sent(net.without("node1", net["node1"].link("cilium_wg0")), "default/web-0", "10.244.2.3")
    assert lost.reason.endswith("(Traffic is unencrypted)")


def test_outer_packets_have_marks_of_their_own() -> None:
    """So the chain that marks what the node itself sends leaves them alone."""
    found = sent(network(WIREGUARD, plan(machine(1), machine(2))), "default/web-0", "10.244.2.3")
    assert not any(step.rule is not None and "0xc00/0xf00" in step.rule.text for step in found.steps)


def test_encrypted_packets_find_a_node_of_another_subnet_by_its_address() -> None:
    """The default route leads them to the card, whose program asks the peers; it does not for the node's own."""
    net = network(NATIVE_WIREGUARD, plan(machine(1), machine(2, zone=19)))
    assert sent(net, "default/web-0", "10.244.2.3").client is Client.OPEN
    assert sent(net, "node1", "10.244.2.3").client is not Client.OPEN


# Masquerading by a program


def hiding(mode: str = "vxlan", **more: str) -> Cluster:
    """The bookshop with Cilium in the place of kube-proxy, which hides pods by a program."""
    options = {"mode": mode, "bpf-masquerade": "on", **more}
    return bookshop("cilium").changed(cni_options=options, proxy="ebpf")


@pytest.mark.parametrize("mode", ["vxlan", "native"])
def test_a_program_hides_pods_from_all_outside(mode: str) -> None:
    """The web server outside sees the node, and its answer finds the pod; no table nat is there."""
    shop = hiding(mode)
    home = shop.objects.pod("shop/web-0").node_name
    trace = shop.trace("shop/web-0", "203.0.113.10:80")
    assert (trace.client, trace.source_seen) == (Client.OPEN, shop.objects.node(home).addresses[0])
    assert [step.action for step in trace.steps if "hides behind" in step.why] == [Action.SNAT]
    assert [step.action for step in trace.reply if "answers what" in step.why] == [Action.CONNTRACK]
    assert "nat" not in shop.network[home].netfilter.ipv4


def test_nodes_and_pods_see_pods_as_they_are() -> None:
    """What is in the cluster is not hidden from, with a tunnel or without."""
    for mode in ("vxlan", "native"):
        shop = hiding(mode)
        own = shop.objects.pod("shop/web-0").ip
        assert shop.trace("shop/web-0", "node/node-2:10250").source_seen == own
        assert contract.check(shop).holds


def test_an_answer_of_a_pod_is_not_hidden() -> None:
    """A client outside who uses a node port hears the address that he asked."""
    shop = hiding()
    port = next(port.node_port for each in shop.objects.services for port in each.spec.ports if port.node_port)
    assert {each.client for each in shop.trace("external", f"node/node-1:{port}").outcomes} == {Client.OPEN}


def test_an_error_about_a_hidden_packet_reaches_the_pod() -> None:
    """Nobody listens outside, and the pod is told."""
    trace = hiding().trace("shop/web-0", "203.0.113.10:9/UDP")
    assert trace.client is Client.REFUSED


def test_masquerading_by_a_program_needs_the_programs_of_the_proxy() -> None:
    """As Cilium itself says when it starts."""
    with pytest.raises(BadOption, match=r"CNI cilium: proxy: bpf-masquerade needs .* and the proxy is iptables"):
        bookshop("cilium").changed(cni_options={"bpf-masquerade": "on"})
