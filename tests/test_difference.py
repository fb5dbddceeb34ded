from __future__ import annotations

import json
import re

import jsonschema
import pytest
from msgspec.structs import replace

from k8snetlab import schemas
from k8snetlab.cluster import Cluster
from k8snetlab.difference import Change, Difference, How, difference
from k8snetlab.linux import nftables as nft
from k8snetlab.linux.host import Host, Network
from k8snetlab.linux.link import Address, Link, LinkKind, Neighbour
from k8snetlab.linux.route import Route, RoutingRule
from k8snetlab.linux.socket import Listener
from tests.shops import bookshop, pod

EMPTY = Host("m", links=(Link("eth0", 2, LinkKind.NIC),), sysctls={"net.ipv4.ip_forward": 0})


def told(before: Host, after: Host) -> list[str]:
    """The changes from one state of a machine to another, as text."""
    return [str(change) for change in difference(Network({"m": before}), Network({"m": after})).changes]


@pytest.mark.parametrize(
    ("field", "entry", "line"),
    [
        ("routes", Route("10.0.0.0/8", "eth0", "192.0.2.1"), "route: 10.0.0.0/8 via 192.0.2.1 dev eth0"),
        ("rules", RoutingRule(100, "vpn", mark=1), "rule: 100: from all fwmark 0x1 lookup vpn"),
        (
            "neighbours",
            Neighbour("192.0.2.1", "eth0", "02:00:00:00:00:01"),
            "neighbour: 192.0.2.1 dev eth0 lladdr 02:00:00:00:00:01 PERMANENT",
        ),
        ("listeners", Listener("TCP", 80), "listener: TCP *:80"),
        ("listeners", Listener("UDP", 53, "10.0.0.1"), "listener: UDP 10.0.0.1:53"),
    ],
)
def test_an_entry_comes_and_goes(field: str, entry: object, line: str) -> None:
    """What the other has more is added; the other way round it is removed."""
    more = replace(EMPTY, **{field: (*getattr(EMPTY, field), entry)})
    assert told(EMPTY, more) == [f"+ {line}"]
    assert told(more, EMPTY) == [f"- {line}"]


def test_an_address_comes_with_its_device() -> None:
    """An address alone does not change the device's line."""
    more = replace(EMPTY, links=(replace(EMPTY.links[0], addresses=(Address("192.0.2.7", 24),)),))
    assert told(EMPTY, more) == ["+ address: 192.0.2.7/24 dev eth0"]


def test_a_changed_entry_says_what_it_was() -> None:
    """Of the earlier line only the words that were others."""
    narrow = replace(EMPTY, links=(replace(EMPTY.links[0], mtu=1400),))
    assert told(EMPTY, narrow) == ["~ link: eth0 nic 00:00:00:00:00:00 mtu 1400 up  (was 1500)"]
    before = replace(EMPTY, routes=(Route("10.0.0.0/8", "eth0", "192.0.2.1"),))
    after = replace(EMPTY, routes=(Route("10.0.0.0/8", "eth0", "192.0.2.2"),))
    assert told(before, after) == ["~ route: 10.0.0.0/8 via 192.0.2.2 dev eth0  (was 192.0.2.1)"]
    assert told(EMPTY, replace(EMPTY, sysctls={"net.ipv4.ip_forward": 1})) == [
        "~ sysctl: net.ipv4.ip_forward = 1  (was 0)"
    ]


def test_routes_of_other_metric_are_other_routes() -> None:
    """A second route to the same place does not change the first."""
    one = replace(EMPTY, routes=(Route("10.0.0.0/8", "eth0"),))
    two = replace(EMPTY, routes=(*one.routes, Route("10.0.0.0/8", "eth0", metric=5)))
    assert told(one, two) == ["+ route: 10.0.0.0/8 dev eth0 metric 5"]


def test_a_policy_is_a_difference() -> None:
    """A chain that drops by default has no other rules."""
    node = bookshop().network["node-1"]
    table = node.netfilter.ipv4["filter"]
    closed = table.chains.replacing(replace(table.chains["FORWARD"], policy="DROP"))
    tables = {**node.netfilter.ipv4, "filter": replace(table, chains=closed)}
    other = bookshop().with_hosts(replace(node, netfilter=replace(node.netfilter, ipv4=tables)))
    assert [str(change) for change in bookshop().diff(other).changes] == [
        "~ iptables: filter: :FORWARD DROP  (was ACCEPT)"
    ]


def test_rules_and_elements_of_nftables_differ() -> None:
    """An element that leads somewhere else has changed; base chains and rules come and go."""
    name, base = "ip t", nft.Base("filter", "forward", 0)

    def held(verdict: nft.Verdict, *rules: nft.Rule) -> Host:
        found = nft.Set("m", ("inet_service",), ("verdict",), (nft.Element((80,), verdict),))
        return replace(EMPTY, nftables=(nft.Table.of(name, (nft.Chain("c", rules, base),), (found,)),))

    assert told(held(nft.ACCEPT), held(nft.DROP, nft.Rule(name, "c", (nft.DROP,)))) == [
        "+ nft: ip t c drop", "~ nft: ip t @m { 80 : drop }  (was accept)",
    ]  # fmt: skip
    assert told(EMPTY, held(nft.ACCEPT)) == [
        "+ nft: ip t c: type filter hook forward priority filter; policy accept;",
        "+ nft: ip t @m { 80 : accept }",
    ]


def test_a_machine_comes_and_goes() -> None:
    """Its kind is all that is said of it."""
    whole, less = Network({"m": EMPTY, "pod": Host("pod", "container")}), Network({"m": EMPTY})
    assert difference(less, whole).added == (Change("pod", "host", How.ADDED, "container"),)
    assert difference(whole, less).removed == (Change("pod", "host", How.REMOVED, "container"),)


def test_a_cluster_does_not_differ_from_itself() -> None:
    """Loaded twice, from the same files."""
    same = bookshop().diff(bookshop.__wrapped__())
    assert not same and str(same) == same.summary() == "no difference"


def test_the_other_direction_has_added_and_removed_swapped() -> None:
    """From flannel to bridge, and back."""
    there, back = bookshop().diff(bookshop("bridge")), bookshop("bridge").diff(bookshop())
    assert {(c.host, c.kind, c.text) for c in there.added} == {(c.host, c.kind, c.text) for c in back.removed}
    assert {(c.host, c.text, c.before) for c in there.changed} == {(c.host, c.before, c.text) for c in back.changed}


def test_another_cni_changes_what_it_is_about() -> None:
    """The tunnel goes with its neighbours and entries, routes to other nodes are others, kube-proxy's rules stay."""
    changes = bookshop().diff(bookshop("bridge")).on("node-1")
    assert {change.kind for change in changes} == {
        "link", "address", "route", "neighbour", "fdb", "sysctl", "iptables",
    }  # fmt: skip
    assert not [change for change in changes if "KUBE-" in change.text]


def test_the_summary_counts_by_machine_and_kind() -> None:
    """One line a machine: + for what came, - for what went, ~ for what changed."""
    base = Cluster.load(pod("a"), nodes=1)
    assert base.diff(base.sysctl("node-1", "net.ipv4.ip_forward", 0)).summary() == "node-1: sysctl ~1"
    route = base.network["node-1"].routes[0]
    assert base.diff(base.without("node-1", route)).summary() == "node-1: route -1"
    assert "default/b: host +1" in base.diff(base.applied(pod("b"))).summary().splitlines()


def test_machines_that_changed_alike_stand_together() -> None:
    """In the summary, and in a long difference, where the first of them is told for all."""
    found = bookshop().diff(bookshop("calico"))
    assert found.summary().splitlines()[0] == (
        "kube-system/coredns-5bc94d69c-jwthd, kube-system/coredns-5bc94d69c-k6v95, ops/metrics-cfb7bb747-kp4pt "
        "and 19 more: link ~1, address +1-1, route +1-2~1"
    )
    assert len(found.changes) > 1000 and len(str(found).splitlines()) < 200
    assert len(found.full().splitlines()) == len(found.changes) + len({change.host for change in found.changes})


def test_of_many_entries_of_a_kind_the_first_are_told() -> None:
    """How many more came and went is counted; a short difference is told whole."""
    found = bookshop().diff(bookshop("calico"))
    assert re.search(r"^  … and \d+ more of iptables: \+\d+-\d+$", str(found), flags=re.MULTILINE)
    assert str(found).endswith(f"(told in short; `.full()` prints all {len(found.changes):,} changes)")
    few = bookshop().diff(bookshop().sysctl("node-1", "net.ipv4.ip_forward", 0))
    assert str(few) == few.full() == "node-1:\n  ~ sysctl: net.ipv4.ip_forward = 0  (was 1)"


def test_changes_stand_by_machine() -> None:
    """`str` has a heading for each; `repr` counts."""
    found = bookshop().diff(bookshop().sysctl("node-2", "net.ipv4.ip_forward", 0))
    assert str(found) == "node-2:\n  ~ sysctl: net.ipv4.ip_forward = 0  (was 1)"
    assert repr(found) == "<Difference +0 -0 ~1>"
    assert bool(found) and not Difference(())


@pytest.mark.parametrize("other", ["bridge", "flannel"])
def test_a_difference_is_a_document(other: str) -> None:
    """Its JSON follows the schema, empty or not."""
    jsonschema.validate(json.loads(json.dumps(bookshop().diff(bookshop(other)).as_dict())), schemas.load("Diff"))
