"""What kube-proxy arranges around IPVS, and what a packet can tell of it."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from k8snetlab.address import Prefix
from k8snetlab.api import TrafficPolicy
from k8snetlab.cluster import Cluster
from k8snetlab.errors import BadOption
from k8snetlab.linux.counts import counts
from k8snetlab.linux.host import Host, assembled
from k8snetlab.linux.ipvs import Scheduler
from k8snetlab.linux.link import LinkKind
from k8snetlab.linux.text import ip_addr
from k8snetlab.services import MODES
from k8snetlab.services.endpoints import Backend
from k8snetlab.services.exposure import Exposure
from k8snetlab.services.ipvs import DEVICE, Node, part
from k8snetlab.trace import Client, Outcome, Trace
from tests.test_golden_probes import machine

LOCAL = TrafficPolicy.LOCAL
PODS = Prefix.of("10.244.0.0/16")
HERE = Backend("10.244.1.2", 8080, "n1")
THERE = Backend("10.244.2.2", 8080, "n2")
OUTER = ("172.18.0.11", "10.244.1.1")
LB, EXT = "198.51.100.1", "192.0.2.5"


def api(*backends: Backend, **facts: Any) -> Exposure:
    """The port 80 of Service shop/api with these backends."""
    usual = {"service": "api", "protocol": "TCP", "cluster_ip": "10.96.0.7"}
    return Exposure(namespace="shop", name="", port=80, backends=backends, **{**usual, **facts})


def node(**facts: Any) -> Node:
    """Node n1 at 172.18.0.11."""
    usual = {"name": "n1", "addresses": OUTER, "own": {4: OUTER[0]}, "pods": {4: PODS}}
    return Node(**{**usual, **facts})


def compiled(*exposures: Exposure, **facts: Any) -> Host:
    """What the proxy alone makes of a machine."""
    return assembled("n1", "machine", part({4: exposures, 6: ()}, node(**facts)))


def servers(host: Host) -> dict[str, list[str]]:
    """The real servers of each virtual one."""
    return {f"{held.endpoint}/{held.protocol}": [str(each) for each in held.servers] for held in host.ipvs}


def entries(host: Host) -> dict[str, list[str]]:
    """The entries of the IPv4 sets that have some, by the set's name without KUBE-."""
    return {held.name.removeprefix("KUBE-"): list(held.listed) for held in host.ipsets if held.entries}


def rules(host: Host, table: str, chain: str, of: int = 4) -> list[str]:
    """The rules of a chain without its name."""
    return [rule.text.removeprefix(f"-A {chain} ") for rule in host.netfilter.of(of)[table].chains[chain].rules]


# Virtual servers


def test_every_address_of_a_service_port_is_a_virtual_server() -> None:
    """The cluster's, external and load balancers', and the node port at every address of the node."""
    host = compiled(api(HERE, THERE, external_ips=(EXT,), load_balancer_ips=(LB,), node_port=30080))
    both = ["10.244.1.2:8080", "10.244.2.2:8080"]
    assert servers(host) == {
        "10.96.0.7:80/TCP": both, f"{EXT}:80/TCP": both, f"{LB}:80/TCP": both,
        "172.18.0.11:30080/TCP": both, "10.244.1.1:30080/TCP": both,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("backends", "facts", "inside", "outside"),
    [
        ((HERE, THERE), {}, "both", "both"),
        ((HERE, THERE), {"external": LOCAL}, "both", "here"),
        ((HERE, THERE), {"internal": LOCAL}, "here", "both"),
        ((THERE,), {"external": LOCAL}, "there", "there"),
        ((THERE,), {"internal": LOCAL}, "there", "there"),
        ((THERE,), {"internal": LOCAL, "node_port": 0}, "", None),
        ((), {}, "", ""),
        ((Backend("10.244.1.2", 8080, "n1", ready=False),), {}, "", ""),
        ((Backend("10.244.1.2", 8080, "n1", ready=False, terminating=True), THERE), {"external": LOCAL}, "there",
         "here"),
    ],
)  # fmt: skip
def test_policies_choose_who_stands_behind(
    backends: tuple[Backend, ...], facts: dict[str, Any], inside: str, outside: str | None
) -> None:
    """Under policy Local the node's own, and all where it has none; nobody where nobody else is asked for."""
    found = servers(compiled(api(*backends, **{"node_port": 30080, **facts})))
    who = {"both": ["10.244.1.2:8080", "10.244.2.2:8080"], "here": ["10.244.1.2:8080"], "there": ["10.244.2.2:8080"]}
    assert found["10.96.0.7:80/TCP"] == who.get(inside, [])
    assert found.get("172.18.0.11:30080/TCP") == (who.get(outside, []) if outside is not None else None)


def test_affinity_is_persistence() -> None:
    """With the time-out of the Service, at every address."""
    host = compiled(api(HERE, affinity=10800, node_port=30080))
    assert {held.persistent for held in host.ipvs} == {10800}


def test_the_scheduler_is_a_choice() -> None:
    """Of all virtual servers at once, since it is an option of the proxy."""
    host = compiled(api(HERE), api(HERE, cluster_ip="10.96.0.8"), scheduler=Scheduler.SH)
    assert {held.scheduler for held in host.ipvs} == {Scheduler.SH}


# kube-ipvs0


def test_service_addresses_are_on_a_device_that_is_down() -> None:
    """Once each; node addresses are on others."""
    host = compiled(
        api(HERE, external_ips=(EXT,), load_balancer_ips=(LB, OUTER[0]), node_port=30080), api(THERE, service="again")
    )
    link = host.link(DEVICE)
    assert (link.kind, link.up) == (LinkKind.DUMMY, False)
    assert [str(address) for address in link.addresses] == ["10.96.0.7/32", f"{EXT}/32", f"{LB}/32"]
    assert all(host.is_local(address) for address in ("10.96.0.7", EXT, LB))
    assert f"inet {LB}/32 scope global kube-ipvs0" in ip_addr(host)


def test_each_node_has_its_own_device() -> None:
    """Devices of one name on a shared cable would need different MAC addresses."""
    assert compiled().link(DEVICE).mac != compiled(name="n2").link(DEVICE).mac


# Sets


def test_sets_hold_what_rules_ask_for() -> None:
    """By policy and protocol; a range of sources with its address and port."""
    ranges = (Prefix.of("203.0.113.0/24"), Prefix.of("172.18.0.0/16"))
    host = compiled(
        api(HERE, THERE, external_ips=(EXT,), load_balancer_ips=(LB,), node_port=30080, source_ranges=ranges),
        api(THERE, service="near", cluster_ip="10.96.0.8", external=LOCAL, external_ips=("192.0.2.6",),
            load_balancer_ips=("198.51.100.2",), node_port=30081, health_check_port=32000),
        api(HERE, service="dns", protocol="UDP", cluster_ip="10.96.0.9", node_port=30082),
        api(HERE, service="sig", protocol="SCTP", cluster_ip="10.96.0.10", node_port=30083, external=LOCAL),
    )  # fmt: skip
    sctp = ["10.244.1.1,sctp:30083", "172.18.0.11,sctp:30083"]
    assert entries(host) == {
        "LOOP-BACK": [f"10.244.1.2,{protocol}:8080,10.244.1.2" for protocol in ("sctp", "tcp", "udp")],
        "CLUSTER-IP": ["10.96.0.7,tcp:80", "10.96.0.8,tcp:80", "10.96.0.9,udp:80", "10.96.0.10,sctp:80"],
        "EXTERNAL-IP": [f"{EXT},tcp:80"],
        "EXTERNAL-IP-LOCAL": ["192.0.2.6,tcp:80"],
        "LOAD-BALANCER": [f"{LB},tcp:80", "198.51.100.2,tcp:80"],
        "LOAD-BALANCER-FW": [f"{LB},tcp:80"],
        "LOAD-BALANCER-LOCAL": ["198.51.100.2,tcp:80"],
        "LOAD-BALANCER-SOURCE-IP": [f"{LB},tcp:80,{LB}"],
        "LOAD-BALANCER-SOURCE-CIDR": [f"{LB},tcp:80,172.18.0.0/16", f"{LB},tcp:80,203.0.113.0/24"],
        "NODE-PORT-TCP": ["30080", "30081"],
        "NODE-PORT-LOCAL-TCP": ["30081"],
        "NODE-PORT-UDP": ["30082"],
        "NODE-PORT-SCTP-HASH": sctp,
        "NODE-PORT-LOCAL-SCTP-HASH": sctp,
        "HEALTH-CHECK-NODE-PORT": ["32000"],
        "IPVS-IPS": [
            "10.96.0.7", "10.96.0.8", "10.96.0.9", "10.96.0.10", EXT, "192.0.2.6", LB, "198.51.100.2",
        ],
    }  # fmt: skip


def test_names_of_sets_fit() -> None:
    """In IPv6 the longest are cut at 31 characters."""
    names = [held.name for held in compiled().ipsets]
    assert len(names) == len(set(names)) == 34
    assert max(map(len, names)) == 31
    assert "KUBE-6-LOAD-BALANCER-SOURCE-CID" in names


# Rules


def test_rules_do_not_grow_with_services() -> None:
    """Ten Services and a thousand have the same rules; only sets and virtual servers grow."""
    few, many = (
        compiled(*(api(HERE, cluster_ip=f"10.96.{at // 250}.{at % 250 + 1}", node_port=30000 + at) for at in range(n)))
        for n in (10, 1000)
    )
    assert few.netfilter == many.netfilter
    found = counts(many)
    assert (found.rules, found.sets, found.virtual_servers, found.real_servers) == (counts(few).rules, 17, 3000, 3000)


def test_the_rules_of_a_node_without_services() -> None:
    """What is there without any Service; rules about empty sets are left out where they could only do harm."""
    host = compiled()
    assert rules(host, "nat", "KUBE-SERVICES") == [
        "-s 127.0.0.0/8 -j RETURN", "-m addrtype --dst-type LOCAL -j KUBE-NODE-PORT",
    ]  # fmt: skip
    assert rules(host, "nat", "KUBE-SERVICES", 6)[0] == "-s ::1/128 -j RETURN"
    assert rules(host, "nat", "KUBE-POSTROUTING") == [
        "-m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-j MARK --set-xmark 0x4000/0x0",
        '-m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully',
    ]
    assert rules(host, "filter", "KUBE-IPVS-FILTER")[-1] == (
        "-m conntrack --ctstate NEW -m set --match-set KUBE-IPVS-IPS dst -j REJECT --reject-with icmp-port-unreachable"
    )
    assert rules(host, "filter", "INPUT") == [
        '-m comment --comment "kubernetes ipvs access filter" -j KUBE-IPVS-FILTER',
        '-m comment --comment "kube-proxy firewall rules" -j KUBE-PROXY-FIREWALL',
        '-m comment --comment "kubernetes health check rules" -j KUBE-NODE-PORT',
    ]
    assert rules(host, "nat", "KUBE-NODE-PORT") == [] and "mangle" not in host.netfilter.ipv4


def test_the_order_in_kube_services() -> None:
    """Load balancers, cluster addresses, external addresses, node ports, and last what IPVS shall have."""
    found = rules(
        compiled(
            api(HERE, external_ips=(EXT,), load_balancer_ips=(LB,), node_port=30080),
            api(HERE, cluster_ip="10.96.0.8", external=LOCAL, external_ips=("192.0.2.6",), node_port=30081),
        ),
        "nat", "KUBE-SERVICES",
    )  # fmt: skip
    short = [
        " ".join(word for word in rule.split() if word.startswith(("KUBE", "!", "--src", "--dst", "ACCEPT", "RETURN")))
        for rule in found
    ]
    assert short == [
        "RETURN", "KUBE-LOAD-BALANCER KUBE-LOAD-BALANCER", "! KUBE-CLUSTER-IP KUBE-MARK-MASQ",
        "KUBE-EXTERNAL-IP KUBE-MARK-MASQ", "KUBE-EXTERNAL-IP ! ! --src-type ACCEPT",
        "KUBE-EXTERNAL-IP --dst-type ACCEPT", "KUBE-EXTERNAL-IP-LOCAL ! ! --src-type ACCEPT",
        "KUBE-EXTERNAL-IP-LOCAL --dst-type ACCEPT", "--dst-type KUBE-NODE-PORT", "KUBE-CLUSTER-IP ACCEPT",
        "KUBE-LOAD-BALANCER ACCEPT",
    ]  # fmt: skip


def test_without_a_cluster_cidr_only_the_nodes_own_packets_are_known() -> None:
    """They come from a Service address."""
    found = rules(compiled(api(HERE), pods={}), "nat", "KUBE-SERVICES")
    assert found[1].endswith("-m set --match-set KUBE-CLUSTER-IP src,dst -j KUBE-MARK-MASQ")


@pytest.mark.parametrize(("block", "shut"), [("203.0.113.0/24", True), ("172.18.0.0/16", False)])
def test_a_load_balancer_that_does_not_admit_the_node_is_shut_for_it(block: str, shut: bool) -> None:
    """The node's packets do not pass INPUT, so that OUTPUT must look."""
    host = compiled(api(HERE, load_balancer_ips=(LB,), source_ranges=(Prefix.of(block),)))
    own = f"-s {LB}/32 -m ipvs --vproto 6 --vaddr {LB} --vport 80 -j DROP"
    assert rules(host, "filter", "KUBE-IPVS-OUT-FILTER") == ([own] if shut else [])


# In a cluster

SHOP = """
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec: {nodeName: node-1, containers: [{name: web, image: web, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-2, labels: {app: web}}
spec: {nodeName: node-2, containers: [{name: web, image: web, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: caller}
spec: {nodeName: node-3, containers: [{name: caller, image: caller}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, clusterIP: 10.96.5.5, type: NodePort, sessionAffinity: ClientIP,
       ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}
---
apiVersion: v1
kind: Service
metadata: {name: shared}
spec: {selector: {app: web}, clusterIP: 10.96.5.6, type: LoadBalancer, ports: [{port: 80, targetPort: 8080}]}
status: {loadBalancer: {ingress: [{ip: 172.18.0.200}]}}
"""


@cache
def shop(*options: tuple[str, str]) -> Cluster:
    """Two backends on two nodes, a caller on the third."""
    return Cluster.load(SHOP, proxy="ipvs", proxy_options=dict(options))


def test_a_trace_names_virtual_and_real_server() -> None:
    """The step that chooses, and the one that brings the answer back."""
    trace = shop().trace("default/caller", "svc/default/shared:80")
    decided = [step.rule for step in (*trace.steps, *trace.reply) if step.rule and step.rule.table == "ipvs"]
    assert [rule.chain for rule in decided] == ["TCP 10.96.5.6:80 rr"] * 2
    assert trace.backend is not None
    assert decided[0].text == f"-a -t 10.96.5.6:80 -r {trace.backend.ip}:8080 -m -w 1"
    assert "IPVS, for its virtual server TCP 10.96.5.6:80 rr, changes the destination" in " ".join(
        trace.explain().split()
    )


def test_a_service_address_answers_no_ping() -> None:
    """In iptables mode nobody is there; here the node is, and rejects it."""
    found = shop().trace("default/caller", "10.96.5.5:9")
    assert (found.client, found.reason) == (Client.REFUSED, "node-3: rejected with icmp-port-unreachable")


def test_affinity_is_by_address() -> None:
    """Cluster address and node port each remember the client for themselves."""
    for seed in range(4):
        session = shop().session(seed=seed)
        inside = {who(session.trace("default/caller", "svc/default/web:80")) for _ in range(4)}
        outside = {who(session.trace("default/caller", "node/node-3:30080")) for _ in range(4)}
        assert len(inside) == len(outside) == 1
    session = shop().session(seed=1)
    first = who(session.trace("default/caller", "svc/default/web:80"))
    session.advance(10801)
    assert who(session.trace("default/caller", "svc/default/web:80")) != first  # the next one's turn


def who(trace: Trace) -> str:
    """The pod that took the packet."""
    assert trace.backend is not None
    return trace.backend.pod


def test_turns_are_taken_in_a_session() -> None:
    """After the first, which is drawn, the servers follow each other."""
    session = shop().session(seed=3)
    found = [who(session.trace("default/caller", "svc/default/shared:80")) for _ in range(4)]
    assert found[0] != found[1] and found[:2] == found[2:]
    assert session.ipvs("node-3").count(" ESTABLISHED ") == 4
    assert "ESTABLISHED" not in session.ipvs("node-1")  # each node balances for itself


def chances(outcomes: tuple[Outcome, ...]) -> list[float]:
    """How likely each outcome is."""
    return [outcome.probability for outcome in outcomes]


def test_the_scheduler_is_an_option_of_the_proxy() -> None:
    """With a hash of the source there is no choice; the option goes when the mode does."""
    assert chances(shop().trace("default/caller", "svc/default/shared:80").outcomes) == [0.5, 0.5]
    hashed = shop(("scheduler", "sh"))
    assert chances(hashed.trace("default/caller", "svc/default/shared:80").outcomes) == [1.0]
    assert hashed.changed(proxy="iptables").options.proxy_options == ()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scheduler": "random"}, "'random' is no scheduler; there are rr, wrr, lc, wlc, sed, nq, sh, dh"),
        ({"speed": "high"}, "no option 'speed'; there are scheduler, strict-arp"),
    ],
)
def test_an_option_that_does_not_exist_is_refused(options: dict[str, str], said: str) -> None:
    """With what there is."""
    with pytest.raises(BadOption, match=said):
        Cluster.load(SHOP, proxy="ipvs", proxy_options=options)


def test_a_mode_without_options_takes_none() -> None:
    """The mode says so."""
    with pytest.raises(BadOption, match="no option 'scheduler'; it has none"):
        Cluster.load(SHOP, proxy="iptables", proxy_options={"scheduler": "rr"})
    assert MODES["iptables"].chosen({}) == {}


@pytest.mark.parametrize(("strict", "answers"), [("false", True), ("true", False)])
def test_every_node_answers_for_a_load_balancers_address(strict: str, answers: bool) -> None:
    """An address on kube-ipvs0 is the node's own, so it answers ARP requests for it, unless it is told not to."""
    found = shop(("strict-arp", strict)).trace("external:172.18.0.99", "172.18.0.200:80")
    assert (found.client is Client.OPEN) is answers, found


@pytest.mark.parametrize(("strict", "nodes"), [("false", 3), ("true", 1)])
def test_who_announces_addresses_by_arp_needs_strict_arp(strict: str, nodes: int) -> None:
    """One node shall answer for the load balancer's address; on kube-ipvs0 every node has it, and the first that is
    heard gets the packets.
    """
    announced = Cluster.load(
        SHOP.partition("status:")[0], proxy="ipvs", proxy_options={"strict-arp": strict}, load_balancer="metallb-l2"
    )
    address = announced.objects.service("default/shared").load_balancer[0].ip
    seen = {outcome.source_seen for outcome in announced.trace("external", f"{address}:80").outcomes}
    assert len({source.rpartition(".")[0] for source in seen}) == nodes  # each node hides the client by its own


def test_the_device_takes_the_next_index() -> None:
    """No other device of the node has it."""
    indexes = [link.index for link in shop().network["node-1"].links]
    assert len(indexes) == len(set(indexes))


def test_the_address_plan_knows_where_service_addresses_are() -> None:
    """On the device of every node."""
    assert shop().plan.owners["10.96.5.5"] == "Service default/web: on kube-ipvs0 of every node"


# A golden cluster, in another mode than it was recorded in

GOLDEN = Path(__file__).parents[1] / "golden"


@cache
def recorded(mode: str) -> Cluster:
    """The golden cluster in a proxy mode."""
    names = ("nodes", "pods", "svc", "endpointslices")
    return Cluster.load(
        *(GOLDEN / f"{name}.json" for name in names), cni="bridge", proxy=mode,
        pod_cidr="10.244.0.0/16,fd00:10:244::/56", service_cidr="10.96.0.0/12,fd00:10:96::/108",
    )  # fmt: skip


DIFFERENT = {
    "fl-ext 172.18.0.13 30083": (
        "TIMEOUT",
        "p13",
    ),  # policy Local, none here: another node's pod, which answers past it
    "fl-p31 10.96.0.13 80": ("REFUSED", ""),  # internal policy Local, none here: nobody stands behind it
    "fl-p31 10.96.0.10 81": ("REFUSED", ""),  # a port that the Service has not
}
"""Probes that end otherwise than in iptables mode."""


@pytest.mark.parametrize("probe", json.loads((GOLDEN / "probe-iptables.json").read_text()))
def test_a_golden_probe_ends_as_in_iptables_mode(probe: str) -> None:
    """Same verdicts, same backends, but for documented differences."""
    source, address, port = probe.split()
    sender, via = machine(source)
    led = None if address.startswith("172.18.") else via

    def ended(mode: str) -> set[tuple[str, str]]:
        outcomes = recorded(mode).trace(sender, f"{address}:{port}", via=led).outcomes
        return {(str(each.client), each.backend.pod if each.backend else "") for each in outcomes}

    assert ended("ipvs") == ({DIFFERENT[probe]} if probe in DIFFERENT else ended("iptables"))
