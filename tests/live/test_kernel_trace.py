from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import msgspec
import pytest

from k8snetlab import live
from k8snetlab.cluster import Cluster
from k8snetlab.linux import nftables as nft
from k8snetlab.linux.host import Network
from k8snetlab.linux.netfilter import Chain, Masquerade, Netfilter, Patch, Rule, Table, tables
from k8snetlab.trace import Client
from tests.live.conftest import Ordinary
from tests.live.shop import CLIENT, OUTSIDE, SHOP, WEB_1, WEB_2, node, service, shop

DROPS = {"iptables": "-j DROP", "nftables": "vmap @no-endpoint-nodeports"}
"""How the rule ends that drops what no backend on the node can take, by proxy mode."""


class Built(msgspec.Struct, frozen=True):
    """A cluster, and its lab."""

    cluster: Cluster
    lab: live.Lab

    @property
    def mode(self) -> str:
        """The proxy mode."""
        return self.cluster.options.proxy

    def follow(self, probe: live.Probe) -> live.Agreement:
        """The kernel's rules beside the walk's."""
        return live.agreement(self.lab.network, self.lab.follow(probe))

    def service(self, name: str, version: int = 4) -> str:
        """The address of a Service."""
        return service(self.cluster, name, version)

    def node(self, name: str, version: int = 4) -> str:
        """The address of a node."""
        return node(self.cluster, name, version)


@pytest.fixture(scope="module")
def rule_trace(kernel: None) -> None:
    """A kernel that tells which rules a packet matches; the test skips, saying why, where it does not."""
    able = next(each for each in live.capabilities() if each.name == "rule trace")
    if not able.present:
        pytest.skip(str(able))


@pytest.fixture(
    scope="module",
    params=product(("flannel", "bridge"), ("iptables", "nftables")),
    ids=" ".join,
)
def built(request: pytest.FixtureRequest, rule_trace: None) -> Iterator[Built]:
    """The shop over a tunnel and over routes, in two proxy modes."""
    cluster = shop(*request.param)
    with live.Lab(cluster) as lab:
        yield Built(cluster, lab)


def check(found: live.Agreement, client: Client, *machines: str) -> None:
    """The same rules, a known end, and rules on these machines on the way there."""
    assert found.agrees, str(found)
    assert found.followed.seen.client is client
    assert {rule.where for rule in found.followed.there} == set(machines)


both_families = pytest.mark.parametrize("version", [4, 6])


@both_families
def test_a_service_on_the_own_node(built: Built, version: int) -> None:
    """ClusterIP, backend on the client's node: the node's rules and no other's."""
    found = built.follow(live.Probe(CLIENT, built.service("one", version), 80))
    check(found, Client.OPEN, "node-1")
    assert any("dnat" in rule.text.lower() for rule in found.followed.there)


@both_families
def test_a_service_on_another_node(built: Built, version: int) -> None:
    """ClusterIP, backend on another node: the rules of both nodes, in a tunnel too."""
    found = built.follow(live.Probe(WEB_2, built.service("one", version), 80))
    check(found, Client.OPEN, "node-1", "node-2")


def test_the_walk_is_replayed_with_the_kernels_choice(built: Built) -> None:
    """Two backends: whichever the kernel chooses, one of the two walks names its rules, and both are met."""
    probe = live.Probe(CLIENT, built.service("web"), 80)
    found = [built.follow(probe) for _ in range(12)]
    assert all(each.agrees and each.walks == 2 for each in found), "\n".join(map(str, found))
    assert {each.followed.seen.backend for each in found} == {WEB_1, WEB_2}


def test_a_pod_reaches_itself_by_its_service(built: Built) -> None:
    """Hairpin: marked, sent back to where it came from, and masqueraded."""
    found = built.follow(live.Probe(WEB_1, built.service("one"), 80))
    check(found, Client.OPEN, "node-1")
    assert any("masquerade" in rule.text.lower() for rule in found.followed.there)


@both_families
def test_a_node_asks_a_service(built: Built, version: int) -> None:
    """A program on a node: its packet is translated in OUTPUT."""
    found = built.follow(live.Probe("node-2", built.service("one", version), 80))
    check(found, Client.OPEN, "node-1", "node-2")
    first = next(rule for rule in found.followed.there if rule.where == "node-2")
    assert "output" in first.chain.lower()


@both_families
def test_a_node_port_from_outside(built: Built, version: int) -> None:
    """Traffic policy Cluster: any node takes it, masquerades it, and passes it on."""
    found = built.follow(live.Probe(OUTSIDE, built.node("node-3", version), 30080))
    check(found, Client.OPEN, "node-3", {WEB_1: "node-1", WEB_2: "node-2"}[found.followed.seen.backend])


def test_a_local_node_port_from_outside(built: Built) -> None:
    """Traffic policy Local: the node with the backend passes it on as it is."""
    found = built.follow(live.Probe(OUTSIDE, built.node("node-1"), 30081))
    check(found, Client.OPEN, "node-1")
    assert not any("masquerade" in rule.text.lower() for rule in found.followed.there)


def test_a_local_node_port_without_a_backend(built: Built) -> None:
    """The node without one drops the packet, and the last rule says so."""
    found = built.follow(live.Probe(OUTSIDE, built.node("node-3"), 30081))
    check(found, Client.TIMEOUT, "node-3")
    assert found.followed.there[-1].text.endswith(DROPS[built.mode])


def test_a_service_without_endpoints(built: Built) -> None:
    """The rule that rejects is the last, and the answer is followed too, out of the node that gives it."""
    found = built.follow(live.Probe(CLIENT, built.service("none"), 80))
    check(found, Client.REFUSED, "node-1")
    assert "reject" in found.followed.there[-1].text.lower()


def test_a_service_without_endpoints_in_the_other_family(built: Built) -> None:
    """The same in IPv6, where the program hears of it at its second SYN only, which is not followed."""
    found = built.follow(live.Probe(CLIENT, built.service("none", 6), 80))
    check(found, Client.TIMEOUT, "node-1")
    assert "reject" in found.followed.there[-1].text.lower()


def test_a_datagram_there_and_back(built: Built) -> None:
    """UDP to another node: nobody listens, and the refusal comes back through both nodes, where the rules of iptables
    look at it; kube-proxy's own tables look at first packets only.
    """
    address = built.cluster.network[WEB_2].link("eth0").addresses[0].ip
    found = built.follow(live.Probe(CLIENT, address, 9, "UDP"))
    check(found, Client.REFUSED, "node-1", "node-2")
    looking = {name for name in ("node-1", "node-2") if built.cluster.network[name].netfilter.ipv4}
    assert {rule.where for rule in found.followed.back} == looking


@both_families
def test_a_datagram_in_pieces(built: Built, version: int) -> None:
    """2,000 bytes that may be cut: every piece is in a packet of its own on the way to the other node, of one flow."""
    link = built.cluster.network[WEB_2].link("eth0")
    address = next(each.ip for each in link.addresses if each.family == version)
    found = built.follow(live.Probe(CLIENT, address, 9, "UDP", size=2000, whole=False))
    check(found, Client.REFUSED, "node-1", "node-2")


@pytest.mark.parametrize("source", ["node-1", CLIENT])
def test_a_masquerade_that_changes_nothing(built: Built, source: str) -> None:
    """The rule matches a packet that has the node's address already: it is named all the same."""
    network = built.cluster.network
    address = network[WEB_2].link("eth0").addresses[0].ip
    built.lab.apply(with_masquerade(network))
    found = built.follow(live.Probe(source, address, 8080))
    built.lab.apply(network)
    check(found, Client.OPEN, "node-1", "node-2")
    assert any(rule.text.endswith("-j MASQUERADE") for rule in found.followed.there)


def with_masquerade(network: Network) -> Network:
    """The network whose node-1 masquerades all that leaves it, and keeps the port."""
    node = network["node-1"]
    held = {**tables(4, [Patch("nat")]), **node.netfilter.ipv4}
    nat = held["nat"]
    rules = (Rule("nat", "POSTROUTING", (), Masquerade()), *nat.chains["POSTROUTING"].rules)
    chains = nat.chains.replacing(Chain("POSTROUTING", rules, "ACCEPT"))
    held["nat"] = Table("nat", chains)
    return network.replacing(msgspec.structs.replace(node, netfilter=Netfilter(held, node.netfilter.ipv6)))


@both_families
def test_a_rule_for_both_families(built: Built, version: int) -> None:
    """A table of family inet beside the others, with a rule that counts."""
    network = built.cluster.network
    node, table = network["node-1"], "inet both"
    forward = nft.Base("filter", "forward", -5)
    counting = nft.Rule(table, "counting", (nft.Match((nft.Field.L4PROTO,), "tcp"), nft.Counter()))
    own = nft.Table.of(table, [nft.Chain("counting", (counting,), forward)])
    built.lab.apply(network.replacing(msgspec.structs.replace(node, nftables=(*node.nftables, own))))
    found = [built.follow(live.Probe(CLIENT, built.service("one", version), 80)) for _ in range(2)]
    built.lab.apply(network)
    for each in found:
        check(each, Client.OPEN, "node-1")
        assert [rule.text for rule in each.followed.there if rule.table == table] == [counting.text]


def test_nothing_stays_behind(built: Built) -> None:
    """The table that sets the flag is gone, and the rules are what they were."""
    before = built.lab.run("node-1", "nft", "list", "ruleset").out
    built.follow(live.Probe(CLIENT, built.service("one"), 80))
    counted = [text.split() for text in (before, built.lab.run("node-1", "nft", "list", "ruleset").out)]
    assert "k8snetlab" not in counted[1]
    assert len(counted[0]) == len(counted[1])


def test_both_columns_are_shown_where_they_differ(built: Built) -> None:
    """A walk through a network that lost a rule names one less, and the text says who names which."""
    followed = built.lab.follow(live.Probe(CLIENT, built.service("one"), 80))
    network = without_a_rule(built.lab.network)
    found = live.agreement(network, followed)
    assert not found.agrees
    lines = str(found).splitlines()
    assert [line for line in lines if line.startswith("         ×")]
    assert [line for line in lines if line.startswith("   ×     ×")]
    assert "the walk and the kernel differ" in lines[1]


def without_a_rule(network: Network) -> Network:
    """The network without the rule by which node-1's kube-proxy looks at what is forwarded."""
    node = network["node-1"]
    rules: tuple[Rule | nft.Rule, ...]
    if node.nftables:
        rules = node.nftables[0].chain("filter-forward").rules
    else:
        rules = node.netfilter.ipv4["filter"].chains["FORWARD"].rules
    endings = ("-j KUBE-FORWARD", "jump service-endpoints-check")
    return network.without("node-1", next(rule for rule in rules if rule.text.endswith(endings)))


ORDINARY = """
import sys
from k8snetlab import live
from k8snetlab.cluster import Cluster
cluster = Cluster.load(sys.argv[1])
address = next(service.cluster_ips[0] for service in cluster.objects.services if service.metadata.name == "one")
with live.Lab(cluster) as lab:
    with lab.capturing("node-1", "eth0") as capture:
        found = live.agreement(lab.network, lab.follow(live.Probe("default/web-2", address, 80)))
    print(found.agrees, found.rules > 50, len(capture.frames) > 1)
"""


def test_an_ordinary_user_follows_and_captures_too(rule_trace: None, ordinary: Ordinary) -> None:
    """Without any privilege, in a user namespace."""
    text = SHOP.replace("ipFamilyPolicy: RequireDualStack", "sessionAffinity: None")
    assert ordinary(ORDINARY, text) == ("True True True\n", "")
