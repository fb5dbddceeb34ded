"""Weave Net 2.8.1, against the state of a real node."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from itertools import permutations
from random import Random

import pytest
from msgspec.structs import replace

from k8snetlab import cni
from k8snetlab.cluster import Cluster
from k8snetlab.cni.weave import Weave, set_name
from k8snetlab.contract import RULES, break_rule, check
from k8snetlab.errors import BadOption, CannotDo, PoolExhausted
from k8snetlab.linux.host import Host
from k8snetlab.linux.text import bridge_fdb, ip_addr, ip_link_details, ip_neigh, ip_route, ipset_save, iptables_save
from k8snetlab.linux.walk import Exchange, World, exchange
from k8snetlab.live.lab import Lab
from k8snetlab.packet import ESP, VXLAN, IPv4, Packet, Sleeve
from k8snetlab.trace import Action, Client, Step
from k8snetlab.wire import encode
from tests.cni.example import machine, network, node, plan, workloads

MODES: Mapping[str, dict[str, str]] = {
    "fastdp": {},
    "sleeve": {"mode": "sleeve"},
    "fastdp encrypted": {"encryption": "on"},
    "sleeve encrypted": {"mode": "sleeve", "encryption": "on"},
}
ALL_MODES = pytest.mark.parametrize("options", MODES.values(), ids=MODES)

POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {app}}}}}
spec:
  nodeName: node-{node}
  containers: [{{name: it, image: it, ports: [{{containerPort: 5432}}, {{containerPort: 53, protocol: UDP}}]}}]
"""
NODE = """
apiVersion: v1
kind: Node
metadata: {{name: node-{node}}}
status: {{addresses: [{{type: InternalIP, address: 172.18.0.1{node}}}]}}
"""
NODES = "---".join(NODE.format(node=node) for node in (1, 2, 3))
PODS = "---".join(
    POD.format(name=f"{app}-{node - 1}", app=app, node=node) for node in (1, 2, 3) for app in ("web", "db")
)


@cache
def cluster(**options: str) -> Cluster:
    """Three nodes with a pod `web-N` and a pod `db-N` each; options are Weave's."""
    return Cluster.load(NODES, PODS, cni="weave", cni_options=options, node_cidr="172.18.0.0/24")


def built(**options: str) -> Host:
    """The first node."""
    return cluster(**options).network["node-1"]


def sent(
    source: str,
    address: str,
    port: int = 5432,
    protocol: str = "TCP",
    *,
    size: int = 0,
    options: Mapping[str, str] = MODES["fastdp"],
) -> Exchange:
    """One packet from a pod or node."""
    world = World(cluster(**options).network, Random(1))
    return exchange(world, source, address, port, protocol, payload=bytes(size))


def done(found: Exchange, *actions: Action) -> list[Step]:
    """The steps on the way there that did this."""
    return [step for step in found.steps if step.action in actions]


# The literal state of a node


def test_one_route_leads_to_all_pods() -> None:
    """The only one of the overlay, at any number of nodes; nothing else names another node."""
    assert ip_route(built()) == (
        "default via 172.18.0.1 dev eth0\n"
        "10.32.0.0/12 dev weave proto kernel scope link src 10.32.0.1\n"
        "172.18.0.0/24 dev eth0 proto kernel scope link src 172.18.0.11\n"
    )
    assert ip_neigh(built()) == ""
    assert "vxlan-6784" not in bridge_fdb(built())


def test_the_devices_of_a_node_are_those_of_a_real_one() -> None:
    """A bridge, a cable from it to the datapath, the tunnel, and the pods' cables with odd numbers from 11 on."""
    shown = [line.split(" qdisc")[0] for line in ip_addr(built()).splitlines() if line[0].isdigit()]
    first, second, (one, two) = shown[:2], shown[2:7], shown[7:]
    assert first == ["1: lo: <LOOPBACK,UP,LOWER_UP> mtu 65536", "2: eth0: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1500"]
    assert second == [
        "3: datapath: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1376",
        "5: weave: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1376",
        "7: vethwe-datapath@vethwe-bridge: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1376",
        "8: vethwe-bridge@vethwe-datapath: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1376",
        "9: vxlan-6784: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 65470",
    ]
    assert one.startswith("11: vethwepl") and one.split(": ")[1].endswith("@if10") and one.endswith("mtu 1376")
    assert two.startswith("13: vethwepl") and len(two.split(": ")[1].partition("@")[0]) == len("vethwepl1a2b3c4")
    assert "    inet 10.32.0.1/12 brd 10.47.255.255 scope global weave\n" in ip_addr(built())


def test_the_datapath_is_a_switch_of_open_vswitch() -> None:
    """The tunnel and the cable are its ports, not the bridge's."""
    masters = {link.name: link.master for link in built().links}
    assert masters["vxlan-6784"] == masters["vethwe-datapath"] == "datapath"
    assert masters["vethwe-bridge"] == "weave"
    details = ip_link_details(built())
    assert "    vxlan external id 0 srcport 0 0 dstport 6784 nolearning ttl auto\n    openvswitch_slave\n" in details


def test_without_open_vswitch_a_program_stands_at_the_end_of_the_cable() -> None:
    """In sleeve mode there is neither datapath nor tunnel."""
    names = [link.name for link in built(mode="sleeve").links]
    assert names[:5] == ["lo", "eth0", "weave", "vethwe-pcap", "vethwe-bridge"]


def test_a_pod_has_the_whole_network_on_its_cable() -> None:
    """A /12, so that pods anywhere are neighbours; its device keeps the number it had on the node."""
    pod = cluster().network["default/web-0"]
    assert ip_route(pod) == (
        "default via 10.32.0.1 dev eth0\n10.32.0.0/12 dev eth0 proto kernel scope link src 10.32.0.2\n"
    )
    assert "\n10: eth0@if11: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1376 " in ip_addr(pod)


def test_the_ring_gives_the_addresses() -> None:
    """Whatever the nodes' pod CIDRs would be: they have none."""
    ips = {pod.name: pod.ips[0] for pod in cluster().objects.pods if pod.namespace == "default"}
    assert ips == {
        "web-0": "10.32.0.2", "db-0": "10.32.0.3", "web-1": "10.40.0.1", "db-1": "10.40.0.2",
        "web-2": "10.44.0.1", "db-2": "10.44.0.2",
    }  # fmt: skip
    assert [node.pod_cidrs for node in cluster().objects.nodes] == [(), (), ()]


FILTER = """
-A INPUT -d 127.0.0.1/32 -p tcp -m tcp --dport 6784 -m addrtype ! --src-type LOCAL -m conntrack ! --ctstate RELATED,ESTABLISHED -m comment --comment "Block non-local access to Weave Net control port" -j DROP
-A INPUT -i weave -j WEAVE-NPC-EGRESS
-A FORWARD -i weave -m comment --comment "NOTE: this must go before \\'-j KUBE-FORWARD\\'" -j WEAVE-NPC-EGRESS
-A FORWARD -o weave -m comment --comment "NOTE: this must go before \\'-j KUBE-FORWARD\\'" -j WEAVE-NPC
-A FORWARD -o weave -m state --state NEW -j NFLOG --nflog-group 86
-A FORWARD -o weave -j DROP
-A FORWARD -i weave ! -o weave -j ACCEPT
-A FORWARD -o weave -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A WEAVE-NPC -m state --state RELATED,ESTABLISHED -j ACCEPT
-A WEAVE-NPC -d 224.0.0.0/4 -j ACCEPT
-A WEAVE-NPC -m physdev --physdev-out vethwe-bridge --physdev-is-bridged -j ACCEPT
-A WEAVE-NPC -m state --state NEW -j WEAVE-NPC-DEFAULT
-A WEAVE-NPC -m state --state NEW -j WEAVE-NPC-INGRESS
-A WEAVE-NPC-DEFAULT -m set --match-set weave-;rGqyMIl1HN^cfDki~Z$3]6!N dst -m comment --comment "DefaultAllow ingress isolation for namespace: default" -j ACCEPT
-A WEAVE-NPC-EGRESS -m state --state RELATED,ESTABLISHED -j ACCEPT
-A WEAVE-NPC-EGRESS -m physdev --physdev-in vethwe-bridge --physdev-is-bridged -j RETURN
-A WEAVE-NPC-EGRESS -m addrtype --dst-type LOCAL -j RETURN
-A WEAVE-NPC-EGRESS -d 224.0.0.0/4 -j RETURN
-A WEAVE-NPC-EGRESS -m state --state NEW -j WEAVE-NPC-EGRESS-DEFAULT
-A WEAVE-NPC-EGRESS -m state --state NEW -m mark ! --mark 0x40000/0x40000 -j WEAVE-NPC-EGRESS-CUSTOM
-A WEAVE-NPC-EGRESS-ACCEPT -j MARK --set-xmark 0x40000/0x40000
-A WEAVE-NPC-EGRESS-DEFAULT -m set --match-set weave-s_+ChJId4Uy_$}G;WdH|~TK)I src -m comment --comment "DefaultAllow egress isolation for namespace: default" -j WEAVE-NPC-EGRESS-ACCEPT
-A WEAVE-NPC-EGRESS-DEFAULT -m set --match-set weave-s_+ChJId4Uy_$}G;WdH|~TK)I src -m comment --comment "DefaultAllow egress isolation for namespace: default" -j RETURN
"""  # noqa: E501
NAT = """
-A WEAVE -m set --match-set weaver-no-masq-local dst -m comment --comment "Prevent SNAT to locally running containers" -j RETURN
-A WEAVE -s 10.32.0.0/12 -d 224.0.0.0/4 -j RETURN
-A WEAVE ! -s 10.32.0.0/12 -d 10.32.0.0/12 -j MASQUERADE
-A WEAVE -s 10.32.0.0/12 ! -d 10.32.0.0/12 -j MASQUERADE
"""  # noqa: E501


def alone() -> Host:
    """A node without kube-proxy and without other namespaces: Weave's own rules only."""
    held = cluster().layout.cni_plan
    at = machine(1)
    return node(cni.named("weave"), cni.Plan((at, *held.machines[1:]), held.pod_cidrs, (), held.workloads), at, count=0)


@pytest.mark.parametrize(("table", "rules"), [("filter", FILTER), ("nat", "\n-A POSTROUTING -j WEAVE" + NAT)])
def test_the_rules_of_a_node_are_those_of_a_real_one(table: str, rules: str) -> None:
    """Chain by chain, as long as no NetworkPolicy is there. The apostrophes are escaped as iptables-save does."""
    lines = iptables_save({table: alone().netfilter.ipv4[table]}).splitlines()
    assert [line for line in lines if line.startswith("-A")] == rules.strip().splitlines()


def test_the_chains_stand_above_those_of_kube_proxy() -> None:
    """Or packets for Services would be accepted before any policy is asked."""
    forward = [rule.text for rule in built().netfilter.ipv4["filter"].chains["FORWARD"].rules]
    assert forward[0].endswith("-j WEAVE-NPC-EGRESS")
    assert next(at for at, rule in enumerate(forward) if "KUBE-FORWARD" in rule and "NOTE" not in rule) > 5


def test_the_sets_hold_all_pods_of_the_cluster_and_the_share_of_the_node() -> None:
    """Six pods that no policy selects; what of the network is this node's own."""
    saved = ipset_save(built()).splitlines()
    allowed = set_name("ingress-default-allow:default")
    pods = ["10.32.0.2", "10.32.0.3", "10.40.0.1", "10.40.0.2", "10.44.0.1", "10.44.0.2"]
    assert [line for line in saved if line.startswith(f"add {allowed} ")] == [f"add {allowed} {ip}" for ip in pods]
    assert saved[-1] == "add weaver-no-masq-local 10.32.0.0/13"


@pytest.mark.parametrize(
    ("meaning", "name"),
    [
        ("default:", "weave-k?Z;25^M}|1s7P3|H9i;*;MhG"),
        ("kube-system:", "weave-iuZcey(5DeXbzgRFs8Szo]+@p"),
        ("ingress-default-allow:kube-system", "weave-P.B|!ZhkAr5q=XZ?3}tMBA+0"),
        ("egress-default-allow:kube-system", "weave-E1ney4o[ojNrLk.6rOHi;7MPE"),
        ("default:app=web", "weave-]M@!{hT*i)c.jsNrcxG{]0ZcZ"),
        ("default:app=db", "weave-T~I7^Z6?J|W7Q;/qSTGU0:NfN"),
    ],
)
def test_the_names_of_sets_are_those_of_real_nodes(meaning: str, name: str) -> None:
    """SHA-1 in base 85: 31 characters at most, as many as a set may have."""
    assert set_name(meaning) == name
    assert len(name) <= 31


def test_policies_attach_to_the_chains_of_weave_npc() -> None:
    """One for packets to pods and one for packets from them, the same for all pods of a node."""
    attachment = Weave.policies
    assert attachment.chains("vethwepl1234567") == ("WEAVE-NPC-INGRESS", "WEAVE-NPC-EGRESS-CUSTOM")
    assert set(attachment.chains("")) < set(built().netfilter.ipv4["filter"].chains)


# Every pod reaches every other


@ALL_MODES
def test_the_contract_holds(options: dict[str, str]) -> None:
    """Pods and nodes reach pods, without NAT, in every mode."""
    assert check(cluster(**options)).holds


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("mode", ["fastdp", "sleeve"])
def test_each_rule_of_the_contract_can_be_broken_alone(mode: str, rule: str) -> None:
    """Though nodes have no pod CIDRs."""
    whole = Cluster.load(PODS, cni="weave", cni_options={"mode": mode})
    assert check(break_rule(whole, rule)).broken == (rule,)


@pytest.mark.parametrize("mode", ["fastdp", "sleeve"])
def test_the_contract_holds_while_frames_are_relayed(mode: str) -> None:
    """Two nodes cannot connect, and the third helps."""
    assert check(cluster(mode=mode, links_down="node-1:node-2")).holds


@ALL_MODES
def test_pods_of_both_families_reach_each_other_by_ipv4(options: dict[str, str]) -> None:
    """Machines have both families; pods get IPv4 only, and lose nothing by it."""
    machines = (machine(1, families=(4, 6)), machine(2, families=(4, 6)))
    net = network(cni.named("weave", options), plan(*machines))
    pods = [workload for each in machines for workload in workloads(each)]
    for here, there in permutations(pods, 2):
        found = exchange(World(net, Random(1)), here.name, there.addresses[0], 80)
        assert found.client is Client.OPEN, found.reason
        assert found.arrival is not None
        assert (found.arrival.host, found.arrival.packet.ip.src) == (there.name, here.addresses[0])


def test_pods_of_different_nodes_are_on_one_segment() -> None:
    """No router between: the TTL stays, and the frame keeps the sender's MAC."""
    found = sent("default/web-0", "10.40.0.2")
    assert found.arrival is not None and found.arrival.packet.ip.ttl == 64
    own = cluster().network["default/web-0"].link("eth0").mac
    last = next(step for step in reversed(found.steps) if step.action is Action.RECEIVE)
    assert getattr(last.packet.headers[0], "src", "") == own


def test_a_client_outside_sees_the_node() -> None:
    """What leaves the pod network is masqueraded by chain WEAVE."""
    found = sent("default/web-0", "203.0.113.10", 80)
    assert found.arrival is not None and found.arrival.packet.ip.src == "172.18.0.11"


def test_with_another_pod_the_devices_of_the_others_stay() -> None:
    """A what-if must not rename devices."""
    plugin, one = cni.named("weave"), machine(1)
    before = plugin.node(plan(), one, workloads(one, 3))
    after = plugin.node(plan(), one, workloads(one, 4))
    assert set(before.links) < set(after.links)


# Bytes


@pytest.mark.parametrize(
    ("options", "length", "added"),
    [
        (MODES["fastdp"], 1092, 50),
        (MODES["fastdp encrypted"], 1126, 84),
        (MODES["sleeve"], 1104, 62),
        (MODES["sleeve encrypted"], 1128, 86),
    ],
    ids=["fastdp", "fastdp encrypted", "sleeve", "sleeve encrypted"],
)
def test_the_bytes_on_the_wire_are_counted(options: dict[str, str], length: int, added: int) -> None:
    """A datagram of 1000 bytes, as a frame between two nodes; the capture has as many."""
    found = sent("default/web-0", "10.40.0.1", 53, "UDP", size=1000, options=options)
    frame = next(step.packet for step in found.steps if (step.where, step.action) == ("switch", Action.RECEIVE))
    assert (frame.length, len(encode(frame))) == (length, length)
    assert cni.named("weave", options).overhead == added


@pytest.mark.parametrize("size", range(4))
def test_esp_pads_to_four_bytes(size: int) -> None:
    """84 to 87 bytes more."""
    found = sent("default/web-0", "10.40.0.1", 53, "UDP", size=size, options={"encryption": "on"})
    outer = done(found, Action.ENCAPSULATE)[0].packet
    inner = done(found, Action.DECAPSULATE)[0].packet
    pad = next(header.pad for header in outer.headers if isinstance(header, ESP))
    assert outer.length - inner.length + 14 == 84 + pad
    assert (outer.length - 20 - 8 - 8 - 16) % 4 == 0


@pytest.mark.parametrize("options", [MODES["fastdp encrypted"], MODES["sleeve encrypted"]])
def test_nobody_on_the_way_reads_what_is_encrypted(options: dict[str, str]) -> None:
    """The trace knows the inner packet; the capture does not show it."""
    found = sent("default/web-0", "10.40.0.1", 53, "UDP", size=64, options=options)
    outer = done(found, Action.ENCAPSULATE)[0].packet
    hidden = encode(Packet(outer.headers[-3:], outer.payload))
    assert hidden not in encode(outer)
    assert bytes(64) not in encode(outer)


@ALL_MODES
@pytest.mark.parametrize("underlay", [1400, 1500, 9000])
def test_the_mtu_of_pods_is_a_constant(options: dict[str, str], underlay: int) -> None:
    """1460-20-8-8-14-34, whatever the underlay has."""
    assert cni.named("weave", options).pod_mtu(machine(1, mtu=underlay)) == 1376 == 1460 - 20 - 8 - 8 - 14 - 34


def test_another_mtu_can_be_asked_for() -> None:
    """WEAVE_MTU, right or wrong."""
    assert built(mtu="8916").link("weave").mtu == 8916


# How frames cross


def test_the_identifier_names_both_nodes() -> None:
    """Twelve bits each: source 1, destination 2; the answer has them the other way round."""
    found = sent("default/web-0", "10.40.0.1")
    there = done(found, Action.ENCAPSULATE)[0].packet
    back = next(step.packet for step in found.reply if step.action is Action.ENCAPSULATE)
    numbers = [header.vni for packet in (there, back) for header in packet.headers if isinstance(header, VXLAN)]
    assert numbers == [1 | 2 << 12, 2 | 1 << 12]
    ip = there.ip
    assert isinstance(ip, IPv4) and (ip.df, ip.ttl, ip.dst) == (True, 64, "172.18.0.12")


def test_sleeve_names_sender_source_and_destination() -> None:
    """From port 6783 to port 6783; the names are the MACs of the bridges."""
    names = {name: cluster().network[name].link("weave").mac for name in ("node-1", "node-2", "node-3")}
    found = sent("default/web-0", "10.40.0.1", options={"mode": "sleeve", "links_down": "node-1:node-2"})
    headers = [
        (header.sender, header.src, header.dst)
        for step in done(found, Action.ENCAPSULATE)
        for header in step.packet.headers
        if isinstance(header, Sleeve)
    ]
    ends = (names["node-1"], names["node-2"])
    assert headers == [(names["node-1"], *ends), (names["node-3"], *ends)]


@ALL_MODES
def test_a_node_between_relays_the_frames(options: dict[str, str]) -> None:
    """Wrapped twice, unwrapped twice; the pods notice nothing."""
    found = sent("default/web-0", "10.40.0.1", options={**options, "links_down": "node-1:node-2"})
    steps = [(step.where, step.action) for step in done(found, Action.ENCAPSULATE, Action.DECAPSULATE)]
    assert steps == [
        ("node-1", Action.ENCAPSULATE), ("node-3", Action.DECAPSULATE),
        ("node-3", Action.ENCAPSULATE), ("node-2", Action.DECAPSULATE),
    ]  # fmt: skip
    assert found.client is Client.OPEN, found.reason
    assert found.arrival is not None and found.arrival.packet.ip.ttl == 64


def test_where_no_way_is_left_nobody_answers() -> None:
    """The mesh has fallen apart: node-1 is alone."""
    down = {"links_down": "node-1:node-2,node-1:node-3"}
    found = sent("default/web-0", "10.40.0.1", options=down)
    assert found.client is Client.UNREACHABLE
    assert "nobody on eth0 answers for 10.40.0.1" in found.reason
    assert sent("default/web-1", "10.44.0.1", options=down).client is Client.OPEN
    assert not check(cluster(**down)).holds


def test_who_has_another_key_reads_nothing() -> None:
    """Encryption is for all nodes or for none."""
    one = cluster()
    other = cluster(encryption="on").network["node-2"]
    found = exchange(World(one.with_hosts(other).network, Random(1)), "default/web-0", "10.40.0.1", 5432)
    assert found.client is Client.TIMEOUT
    assert "cannot read this" in found.reason


# What is too long


def small(mode: str) -> Cluster:
    """The nodes' cards take 1420 bytes."""
    made = cluster(mode=mode)
    return made.with_hosts(*(_narrow(made.network[name]) for name in made.layout.nodes))


def _narrow(host: Host) -> Host:
    return replace(host, links=tuple(replace(link, mtu=1420) if link.name == "eth0" else link for link in host.links))


def long(mode: str, *, df: bool = True, size: int = 1348) -> Exchange:
    """A datagram as long as the pods' MTU allows, 1376 bytes, over the small underlay."""
    world = World(small(mode).network, Random(1))
    return exchange(world, "default/web-0", "10.40.0.1", 53, "UDP", payload=bytes(size), df=df)


def test_sleeve_tells_what_fits() -> None:
    """1420 less 62: the program answers in the name of the other pod, with DF set."""
    found = long("sleeve")
    told = done(found, Action.ICMP)[0].packet
    assert (told.ip.src, told.ip.dst, str(told.headers[1])) == (
        "10.40.0.1", "10.32.0.2", "ICMP fragmentation-needed (mtu 1358)",
    )  # fmt: skip
    assert found.answer == told


def test_sleeve_cuts_what_may_be_cut() -> None:
    """Without DF the packet arrives in two pieces, and is put together by the pod."""
    found = long("sleeve", df=False)
    assert found.client is Client.OPEN, found.reason
    assert len(done(found, Action.ENCAPSULATE)) == 2


def test_the_largest_packet_that_sleeve_carries_whole() -> None:
    """1358 bytes, and no more."""
    assert long("sleeve", size=1358 - 28).client is Client.OPEN
    assert long("sleeve", size=1358 - 27).client is Client.TIMEOUT


def test_fastdp_loses_what_is_too_long() -> None:
    """The outer packet has DF: nobody tells the pod, which waits. (A real router would fall back to sleeve.)"""
    found = long("fastdp")
    assert found.client is Client.TIMEOUT
    assert "1426 bytes do not fit the MTU of eth0, 1420" in found.reason


# What cannot be


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mode": "fast"}, "'fast' is none of fastdp, sleeve"),
        ({"links_down": "node-1"}, "node-1:node-2"),
        ({"links_down": "node-1:node-9"}, "there is no node node-9"),
        ({"mtu": "many"}, "no whole number"),
    ],
)
def test_an_option_that_does_not_fit_is_refused(options: dict[str, str], says: str) -> None:
    """Before any packet is sent."""
    with pytest.raises(BadOption, match=says):
        Cluster.load(PODS, cni="weave", cni_options=options)


def test_a_cluster_of_ipv6_alone_cannot_have_it() -> None:
    """Weave Net gives pods IPv4 addresses only."""
    with pytest.raises(BadOption, match="addresses of IPv4 only, and the cluster has IPv6 alone"):
        Cluster.load(PODS, cni="weave", service_cidr="fd00:10:96::/112")


def test_in_a_dual_stack_cluster_pods_have_one_address() -> None:
    """The other family is not there for them."""
    both = Cluster.load(PODS, cni="weave", service_cidr="10.96.0.0/16,fd00:10:96::/112")
    assert {len(pod.ips) for pod in both.objects.pods if not pod.host_network} == {1}
    assert check(both).holds


def test_pods_of_another_network_were_attached_by_another_cni() -> None:
    """A dump of a flannel cluster cannot be read as one of Weave."""
    dumped = POD.format(name="web-0", app="web", node=1) + "status: {phase: Running, podIP: 10.244.1.2}\n"
    with pytest.raises(BadOption, match=r"10\.244\.1\.2 is not in the pod network 10\.32\.0\.0/12"):
        Cluster.load(dumped, cni="weave")


def test_a_dump_keeps_its_addresses() -> None:
    """Whatever share they are of: all addresses are on one segment."""
    dumped = POD.format(name="web-0", app="web", node=1) + "status: {phase: Running, podIP: 10.46.0.9}\n"
    kept = Cluster.load(dumped + "---" + POD.format(name="web-1", app="web", node=2), cni="weave")
    assert check(kept).holds
    assert "add weaver-no-masq-local 10.46.0.9\n" in ipset_save(kept.network["node-1"])


def test_an_exhausted_ring_is_an_error_with_numbers() -> None:
    """A /29 for three nodes: 6 addresses, 3 of them for bridges."""
    with pytest.raises(PoolExhausted, match=r"10\.32\.0\.0/29: all 3 are in use"):
        Cluster.load(NODES, PODS, cni="weave", pod_cidr="10.32.0.0/29")


@pytest.mark.parametrize("mode", ["fastdp", "sleeve"])
def test_the_lab_has_no_router_of_a_mesh(mode: str) -> None:
    """Neither mode can be tried on the real kernel here, and the reason is said."""
    with pytest.raises(CannotDo, match="no router of a mesh"), Lab(cluster(mode=mode)):
        pass


def test_it_is_said_that_the_project_is_archived() -> None:
    """Nobody should choose it today without knowing."""
    assert "2.8.1 (archived in 2024)" in cni.named("weave").summary
    assert cni.ARCHIVED == {"weave": 2024}


def test_a_cluster_changes_to_weave() -> None:
    """Other addresses, other devices, the same Services: what differs is found in the state."""
    before = Cluster.load(PODS)
    after = before.changed(cni="weave")
    assert check(after).holds
    assert "10.32.0.0/12 dev weave" in str(after.diff(before))
