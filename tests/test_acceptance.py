"""What the first light promises, on whole clusters: other people's manifests, and nothing scripted."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from k8snetlab import schemas
from k8snetlab.cluster import Cluster
from k8snetlab.linux.host import Entry
from k8snetlab.linux.link import FdbEntry, Neighbour
from k8snetlab.linux.netfilter import Rule
from k8snetlab.linux.route import Route
from k8snetlab.packet import Ethernet
from k8snetlab.trace import Action, Client, Trace, Verdict
from tests.shops import across, bookshop

# Somebody else's manifests


@cache
def boutique(file: Path) -> Trace:
    """A frontend of Online Boutique asks its product catalogue."""
    cluster = Cluster.load(file)
    [frontend] = cluster.objects.pods_of("deploy/default/frontend")
    return cluster.trace(frontend.key, "svc/default/productcatalogservice:3550")


@pytest.fixture
def asked(shared: Path) -> Trace:
    """The trace of `boutique`, where the manifests are beside the clone."""
    return boutique(shared / "real" / "online-boutique.yaml")


def test_a_packet_of_online_boutique_crosses_nodes(asked: Trace) -> None:
    """It leaves the pod by one node and is taken on another."""
    nodes = [step.where for step in asked.steps if step.where.startswith("node-")]
    assert asked.fate is Verdict.DELIVERED
    assert asked.backend is not None and nodes[-1] == asked.backend.node != nodes[0]


def test_the_dnat_rule_is_named(asked: Trace) -> None:
    """The step that gives the packet its backend carries kube-proxy's own rule."""
    [dnat] = [step for step in asked.steps if step.action is Action.DNAT]
    assert dnat.rule is not None and asked.backend is not None
    assert dnat.rule.chain.startswith("KUBE-SEP-")
    assert dnat.rule.text.endswith(f"-j DNAT --to-destination {asked.backend.ip}:{asked.backend.port}")


def test_the_reply_comes_home_under_the_address_that_was_asked(asked: Trace) -> None:
    """The last packet has the Service's address as its source again."""
    last = asked.reply[-1]
    assert (last.where, last.action) == (asked.request.source, Action.DELIVER)
    assert last.packet.ip.src == asked.request.address


def test_every_backend_is_told_with_its_probability(asked: Trace) -> None:
    """One catalogue pod takes all; of the bookshop's three, each takes a third."""
    assert [outcome.probability for outcome in asked.outcomes] == [1.0]
    assert [round(outcome.probability, 6) for outcome in across(bookshop()).outcomes] == [0.333333] * 3


def test_its_json_follows_the_schema(asked: Trace) -> None:
    """What a program gets of the trace is what the package promises."""
    jsonschema.validate(json.loads(json.dumps(asked.as_dict())), schemas.load("Trace"))


# Nothing is scripted: what is taken away is missing


def routes(cluster: Cluster, trace: Trace) -> Iterator[tuple[str, Route]]:
    """The routes that decided, on every machine of the path."""
    for step in (*trace.steps, *trace.reply):
        if step.action is Action.ROUTE:
            for route in cluster.network[step.where].routes:
                hop = f" via {route.via}" if route.via else ""
                if step.why.startswith(f"{route.prefix}{hop} dev {route.device} "):
                    yield step.where, route


def rules(cluster: Cluster, trace: Trace) -> Iterator[tuple[str, Rule]]:
    """The rules that matched."""
    for step in (*trace.steps, *trace.reply):
        if isinstance(step.rule, Rule):
            yield step.where, step.rule


def tunnel_macs(trace: Trace) -> Iterator[tuple[str, str]]:
    """The machines that wrapped a frame, and the MAC it was for."""
    for step in (*trace.steps, *trace.reply):
        if step.action is Action.ENCAPSULATE:
            *_, inner = [header for header in step.packet.headers if isinstance(header, Ethernet)]
            yield step.where, inner.dst


def fdb(cluster: Cluster, trace: Trace) -> Iterator[tuple[str, FdbEntry]]:
    """The forwarding entries that said where a tunnel's other end is."""
    for where, mac in tunnel_macs(trace):
        yield from ((where, entry) for entry in cluster.network[where].fdb if entry.mac == mac)


def neighbours(cluster: Cluster, trace: Trace) -> Iterator[tuple[str, Neighbour]]:
    """The permanent neighbours that said which MAC a tunnel's other end has."""
    for where, mac in tunnel_macs(trace):
        yield from ((where, entry) for entry in cluster.network[where].neighbours if entry.mac == mac)


USED: dict[str, Callable[[Cluster, Trace], Iterator[tuple[str, Entry]]]] = {
    "route": routes,
    "rule": rules,
    "fdb": fdb,
    "neighbour": neighbours,
}


def used(network: str, kind: str, families: str = "IPv4") -> list[tuple[str, Entry]]:
    """Every entry of a kind on the path of a trace across nodes, each once."""
    cluster = bookshop(network, families)
    found: list[tuple[str, Entry]] = []
    for each in USED[kind](cluster, across(cluster)):
        if each not in found:
            found.append(each)
    return found


def entries() -> list[Any]:
    """A case for each entry on the paths of two networks."""
    return [
        pytest.param(network, families, where, entry, id=f"{network}-{families}-{kind}-{number}-{where}")
        for network, families in (("flannel", "IPv4"), ("bridge", "IPv4"), ("flannel", "IPv6"))
        for kind in USED
        for number, (where, entry) in enumerate(used(network, kind, families))
    ]


def told(trace: Trace) -> object:
    """All that a trace says."""
    return trace.fate, trace.client, trace.reason, trace.steps, trace.reply


@pytest.mark.parametrize(("network", "families", "where", "entry"), entries())
def test_without_any_entry_of_its_path_the_packet_goes_another_way(
    network: str, families: str, where: str, entry: Entry
) -> None:
    """The machine lacks one entry, no other machine is compiled again, and the trace is another."""
    cluster = bookshop(network, families)
    whole = across(cluster)
    _ = cluster.network["node-1"], cluster.network["node-2"], cluster.network["node-3"]
    poorer = cluster.without(where, entry, family=whole.request.family)
    again = across_again(cluster, poorer, whole)
    assert told(again) != told(whole)
    assert all(poorer.network[name] is cluster.network[name] for name in ("node-1", "node-2", "node-3", "switch")
               if name != where)  # fmt: skip


def across_again(cluster: Cluster, poorer: Cluster, whole: Trace) -> Trace:
    """The same question in a cluster that lacks something, with the seed that gave the first answer."""
    asked = whole.request.source, whole.request.target
    seed = next(seed for seed in range(100) if told(cluster.trace(*asked, seed=seed)) == told(whole))
    return poorer.trace(*asked, seed=seed)


def test_the_path_has_every_kind_of_entry() -> None:
    """VXLAN needs routes, rules, forwarding entries and neighbours; host routes need the first two only."""
    assert [len(used("flannel", kind)) > 0 for kind in USED] == [True, True, True, True]
    assert [len(used("bridge", kind)) > 0 for kind in USED] == [True, True, False, False]


@pytest.mark.parametrize("kind", ["fdb", "neighbour"])
def test_without_the_other_end_of_the_tunnel_nothing_arrives(kind: str) -> None:
    """A tunnel that lost an entry on the way there delivers nothing, and says why."""
    where, entry = used("flannel", kind)[0]
    trace = across_again(bookshop(), bookshop().without(where, entry), across(bookshop()))
    assert trace.backend is None
    assert trace.reason.startswith(where)


# What-ifs are values


def test_a_what_if_leaves_the_cluster_as_it_was() -> None:
    """A route is taken away in another cluster; this one still delivers."""
    cluster = bookshop()
    before = cluster.trace("shop/web-0", "shop/web-1:8080")
    for where, entry in used("flannel", "route"):
        _ = cluster.without(where, entry).trace("shop/web-0", "shop/web-1:8080")
    after = cluster.trace("shop/web-0", "shop/web-1:8080")
    assert told(after) == told(before)


def test_what_was_done_to_a_machine_survives_another_cni() -> None:
    """A node that does not forward is broken on the other network too, until it is repaired."""
    here, there = bookshop().objects.pod("shop/web-0"), "shop/web-1:8080"
    broken = bookshop().sysctl(here.node_name, "net.ipv4.ip_forward", 0).changed(cni="bridge")
    assert broken.trace(here.key, there).client is Client.TIMEOUT
    [overlay] = broken.overlays
    assert broken.repaired(overlay.name).trace(here.key, there).client is Client.OPEN


@pytest.mark.parametrize("network", ["flannel", "bridge"])
def test_the_same_input_gives_the_same_bytes(network: str) -> None:
    """Two clusters made of the same files tell the same trace, to the last byte of its JSON."""
    first = json.dumps(across(bookshop(network)).as_dict())
    again = bookshop.__wrapped__(network)
    assert json.dumps(across(again).as_dict()) == first
