from __future__ import annotations

import json

import pytest
from msgspec.structs import replace

from k8snetlab.address import Prefix
from k8snetlab.cluster import Cluster
from k8snetlab.errors import BadOption, CannotDo
from k8snetlab.flows import where_of
from k8snetlab.linux.netfilter import DROP, Comment, Netfilter, Rule, Source, Table
from k8snetlab.trace import Action, Client
from tests.shops import FAMILIES, bookshop, pod, service


def narrow(cluster: Cluster, host: str, towards: str, mtu: int) -> Cluster:
    """The cluster in which one cable is narrow: a device of a host, towards another, has a smaller MTU."""
    there = cluster.network[host]
    links = (
        replace(link, mtu=mtu) if link.peer is not None and link.peer.host == towards else link for link in there.links
    )
    return cluster.with_hosts(replace(there, links=tuple(links)))


def pair(**options: object) -> Cluster:
    """A client and a server on two nodes."""
    return Cluster.load(pod("client", app="client"), pod("server", node="node-2"), **options)


ASKED = ("default/client", "default/server:8080")


def test_a_page_comes_back() -> None:
    """The connection opens, the request arrives, and the answer in segments as large as the tunnel allows."""
    told = bookshop().curl("shop/web-0", "http://api/orders")
    assert (told.ok, told.failed, told.segments) == (True, "", (1410,))
    assert str(told).endswith("200 OK")


def test_the_segments_are_as_large_as_both_devices_allow() -> None:
    """Host routes leave 1,460 bytes for TCP, VXLAN 1,410; IPv6 headers are 20 bytes longer."""
    assert pair(cni="bridge").curl(*ASKED).segment == 1460
    assert pair().curl(*ASKED).segment == 1410
    assert pair(cni="bridge", **FAMILIES["dual-stack"]).curl(*ASKED, family=6).segment == 1440


def test_a_refused_connection_is_the_end() -> None:
    """Nobody listens: curl fails at connect, and nothing else is sent."""
    told = pair().curl("default/client", "default/server:81")
    assert (told.ok, told.failed, told.connect.client, told.request, told.answer) == (
        False, "connect", Client.REFUSED, None, (),
    )  # fmt: skip


def test_all_its_packets_are_steps_in_their_order() -> None:
    """SYN, SYN-ACK, request, answer: all four are sent, one after the other."""
    told = pair().curl(*ASKED)
    flags = [step.packet.headers[-1].flags for step in told.steps  # type: ignore[union-attr]
             if step.action is Action.SEND and len(step.packet.headers) == 2]  # fmt: skip
    assert flags == ["S", "S.", "P.", "."]


def test_a_narrow_cable_that_says_nothing_is_a_black_hole() -> None:
    """The classic: small packets pass and the connection opens; full segments are lost in a switch, and curl hangs."""
    told = narrow(pair(), "switch", "node-1", 1400).curl(*ASKED)
    assert (told.connect.client, told.ok, told.failed) == (Client.OPEN, False, "answer")
    assert "do not fit the MTU of p-node-1, 1400; nobody is told" in told.reason


def test_a_router_that_says_so_makes_segments_smaller() -> None:
    """Pods with the underlay's MTU on a tunnel: the node says what fits, and the second try arrives."""
    told = pair(cni_options={"mtu": 1500}).curl(*ASKED)
    assert (told.ok, told.segments) == (True, (1460, 1410))
    assert any(step.action is Action.ICMP for step in told.answer)


def test_a_smaller_segment_follows_from_the_mtu_that_was_told() -> None:
    """IPv6 headers are longer, and its tunnel takes 70 bytes: 1,430 less 60."""
    told = pair(**FAMILIES["dual-stack"]).curl(*ASKED, family=6)
    assert (told.ok, told.segments) == (True, (1390, 1370))


def test_a_filtered_message_makes_a_black_hole_again() -> None:
    """Whoever drops ICMP breaks path MTU discovery: the sender never learns."""
    cluster = pair(cni_options={"mtu": 1500})
    node = cluster.network["node-2"]
    table = node.netfilter.ipv4["filter"]
    own = next(link for link in node.links if link.name == "cni0").addresses[0].ip
    rule = Rule("filter", "OUTPUT", (Source(Prefix.of(own)), Comment("no ICMP, for security")), DROP)
    output = table.chains["OUTPUT"]
    chains = table.chains.replacing(replace(output, rules=(rule, *output.rules)))
    tables = {**node.netfilter.ipv4, "filter": Table("filter", chains)}
    silent = cluster.with_hosts(replace(node, netfilter=Netfilter(tables, node.netfilter.ipv6)))
    told = silent.curl(*ASKED)
    assert (told.connect.client, told.ok, told.failed, told.segments) == (Client.OPEN, False, "answer", (1460,))


@pytest.mark.parametrize(("node", "count", "status"), [("node-1", 1, 200), ("node-2", 0, 503)])
def test_a_load_balancer_is_told_which_nodes_have_a_backend(node: str, count: int, status: int) -> None:
    """kube-proxy answers at the health check node port of every node, and counts the ready endpoints there."""
    policy = "type: LoadBalancer, externalTrafficPolicy: Local, healthCheckNodePort: 31000"
    shop = Cluster.load(pod("web-1"), pod("web-0", status="conditions: [{type: Ready, status: 'False'}]"),
                        service("web", policy))  # fmt: skip
    told = shop.curl("external", f"http://{shop.objects.node(node).addresses[0]}:31000")
    assert (told.status, json.loads(told.body)["localEndpoints"]) == (status, count)
    assert f"\n  {status} " in str(told)


def test_policy_cluster_has_no_port_for_health_checks() -> None:
    """Any node will do."""
    shop = Cluster.load(pod("web-1"), service("web", "type: LoadBalancer"))
    assert not any(listener.program == "kube-proxy" for listener in shop.network["node-1"].listeners)


def test_curl_speaks_tcp() -> None:
    """HTTP over UDP is not asked here."""
    with pytest.raises(BadOption, match="url: HTTP runs over TCP, not over UDP"):
        bookshop().curl("shop/web-0", "10.96.0.10:53/UDP")


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("http://api", "api:80"),
        ("http://api/", "api:80"),
        ("http://api:8080/a/b?c=d#e", "api:8080"),
        ("http://api?c=d", "api:80"),
        ("https://api.shop/x", "api.shop:443"),
        ("http://user:secret@api/x", "api:80"),
        ("http://10.0.0.1", "10.0.0.1:80"),
        ("http://[fd00::1]/", "[fd00::1]:80"),
        ("svc/shop/api:80", "svc/shop/api:80"),
    ],
)
def test_a_url_says_where(url: str, where: str) -> None:
    """Host and port; 80 and 443 are what the schemes mean."""
    assert where_of(url) == where


@pytest.mark.parametrize("url", ["ftp://api/", "http://", "http:///x", "http://api:99999/", "http://[fd00::1/"])
def test_what_is_no_url_is_refused(url: str) -> None:
    """Another scheme, no host, a port that is none."""
    with pytest.raises(BadOption, match="is no URL"):
        where_of(url)


def test_the_story_is_told_line_by_line() -> None:
    """`str` has a line for each part, and says at which it failed."""
    lines = str(narrow(pair(), "switch", "node-1", 1400).curl(*ASKED)).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["connect", "request", "answer", "curl"]
    assert repr(pair().curl(*ASKED)) == "<Curl default/client → default/server:8080: OK>"


# Names


def test_a_name_is_looked_up_before_anything_is_connected() -> None:
    """Also one of the world; the lookup is told with the rest."""
    told = bookshop().curl("shop/web-0", "http://api")
    assert told.lookup is not None and told.lookup.count == 2
    assert told.connect.request.address == told.lookup.addresses[0]
    outside = bookshop().curl("shop/web-0", "http://www.example.com")
    assert outside.ok and outside.lookup is not None and outside.lookup.count == 8
    assert bookshop().curl("shop/web-0", "svc/shop/api:80").lookup is None


def test_a_family_that_there_is_not_is_refused() -> None:
    """Also for a name."""
    with pytest.raises(BadOption, match="5 is no address family"):
        bookshop().curl("shop/web-0", "http://api", family=5)


def test_a_name_that_is_not_found_is_the_end() -> None:
    """Nothing is sent to anybody but name servers."""
    told = bookshop().curl("shop/web-0", "http://nosuch")
    assert (told.ok, told.failed, told.steps) == (False, "resolve", ())
    assert str(told) == (
        "shop/web-0 → nosuch\n  curl fails at resolve: NXDOMAIN: there is no such name (8 questions, 0 s of waiting)"
    )
    assert repr(told) == "<Curl shop/web-0 → nosuch: failed at resolve>"
    with pytest.raises(CannotDo, match="nothing was connected to"):
        _ = told.connect
