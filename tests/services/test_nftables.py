"""kube-proxy's nftables mode: what each shape of Service adds to the table."""

from collections.abc import Mapping
from typing import Any

import pytest

from k8snetlab.address import Prefix
from k8snetlab.api import TrafficPolicy
from k8snetlab.linux.counts import Counts, counts
from k8snetlab.linux.host import Host
from k8snetlab.linux.nftables import Among, Named, Table, Verdict, VerdictKind, VerdictMap
from k8snetlab.services.endpoints import Backend
from k8snetlab.services.exposure import Exposure
from k8snetlab.services.nftables import chain_name, table

LOCAL = TrafficPolicy.LOCAL
PODS = Prefix.of("10.244.0.0/16")
HERE = Backend("10.244.1.2", 8080, "n1")
THERE = Backend("10.244.2.2", 8080, "n2")
NAMES = {"namespace": "shop", "service": "api", "protocol": "tcp", "port": ""}


def api(*backends: Backend, **facts: Any) -> Exposure:
    """The port 80 of Service shop/api with these backends."""
    usual = {"service": "api", "protocol": "TCP", "cluster_ip": "10.96.0.7"}
    return Exposure(namespace="shop", name="", port=80, backends=backends, **{**usual, **facts})


def compiled(*exposures: Exposure, of: int = 4, **facts: Any) -> Table:
    """The table of node n1 at 172.18.0.11."""
    usual: dict[str, Any] = {"node": "n1", "address": "172.18.0.11", "pods": PODS}
    return table(exposures, of, **{**usual, **facts})


def own(kind: str, backend: str = "") -> str:
    """The name of a chain or set of shop/api."""
    return chain_name(kind, *NAMES.values(), backend)


def texts(held: Table, chain: str) -> list[str]:
    """The rules of a chain."""
    return [rule.text for rule in held.chain(chain).rules]


def elements(held: Table, name: str) -> Mapping[str, str]:
    """The elements of a set or map: key to what it leads to, as nft prints both."""
    found = held.set(name)
    written = (element.written(found.types, found.data).partition(" : ") for element in found.elements)
    return {key: data for key, _, data in written}


@pytest.mark.parametrize(
    ("kind", "parts", "name"),
    [
        ("service", ("default", "web", "tcp", "http"), "service-SUSTUHLJ-default/web/tcp/http"),
        ("local", ("default", "itp", "tcp", ""), "local-T2BXBU7V-default/itp/tcp/"),
        ("service", ("default", "udp", "udp", "dns"), "service-5UUW55MZ-default/udp/udp/dns"),
        ("affinity", ("default", "sticky", "tcp", "", "10.244.0.2/8080"),
         "affinity-Z3LCJRYK-default/sticky/tcp/__10.244.0.2/8080"),
    ],
)  # fmt: skip
def test_names_are_those_of_a_real_node(kind: str, parts: tuple[str, ...], name: str) -> None:
    """Eight characters of a hash, and what was hashed."""
    assert chain_name(kind, *parts) == name


def test_an_ipv6_backend_has_dots_in_its_name() -> None:
    """Nftables takes no colons in names."""
    assert chain_name("endpoint", "a", "b", "tcp", "", "fd00::2/80").endswith("-a/b/tcp/__fd00..2/80")


def test_a_long_name_is_cut_and_stays_its_own() -> None:
    """240 characters after the kind, three of them dots; the hash is over the whole name."""
    names = [chain_name("service", "n" * 63, "s" * 63, "tcp", "p" * 15, "x" * 99 + end) for end in "ab"]
    assert len(set(names)) == 2
    assert {len(name) for name in names} == {len("service-") + 240}
    assert all(name.endswith("...") for name in names)


def test_a_service_is_one_element_and_one_chain() -> None:
    """Nothing else is added for a cluster address."""
    bare, with_one = compiled(), compiled(api(HERE, THERE))
    assert set(with_one.chains) - set(bare.chains) == {own("service")}
    assert elements(with_one, "service-ips") == {"10.96.0.7 . tcp . 80": f"goto {own('service')}"}
    assert texts(with_one, own("service")) == [
        "meta l4proto tcp dnat ip to numgen random mod 2 map { 0 : 10.244.1.2 . 8080, 1 : 10.244.2.2 . 8080 }"
    ]


def test_nothing_is_built_until_a_packet_asks() -> None:
    """Sets and the chains of Services are given as functions."""
    held = compiled(api(HERE, THERE))
    assert held.tracks
    assert not held.sets.built
    assert own("service") not in held.chains.built


def test_every_way_leads_to_a_chain_or_set_that_exists() -> None:
    """No rule or element names what is not there, whatever the shape of the Service."""
    shapes = [
        api(*backends, service=f"s{number}", internal=internal, external=external, node_port=30000, affinity=affinity,
            external_ips=("192.0.2.1",), load_balancer_ips=("192.0.2.2",), source_ranges=ranges)
        for number, (backends, internal, external, ranges, affinity) in enumerate(
            (backends, internal, external, ranges, affinity)
            for backends in ((), (HERE,), (THERE,), (HERE, THERE))
            for internal in TrafficPolicy for external in TrafficPolicy
            for ranges in ((), (Prefix.of("172.18.0.0/24"),)) for affinity in (0, 60)
        )
    ]  # fmt: skip
    held = compiled(*shapes, services=(Prefix.of("10.96.0.0/16"),))
    ways = [element.data for each in held.sets.values() for element in each.elements]
    for rule in held.rules:
        for statement in rule.statements:
            ways.append(statement if isinstance(statement, Verdict) else None)
            if isinstance(statement, VerdictMap) and isinstance(statement.among, Among):
                ways += (element.data for element in statement.among.elements)
            among = getattr(statement, "among", getattr(statement, "right", None))
            assert not isinstance(among, Named) or among.name in held.sets
    named = {way.chain for way in ways if isinstance(way, Verdict) and way.chain}
    assert named <= set(held.chains)
    assert {way.kind for way in ways if isinstance(way, Verdict)} <= {
        VerdictKind.GOTO, VerdictKind.JUMP, VerdictKind.DROP,
    }  # fmt: skip


def test_no_endpoint_is_refused_at_every_address() -> None:
    """Nobody can answer anywhere."""
    held = compiled(api(node_port=30080, external_ips=("192.0.2.1",)))
    assert elements(held, "service-ips") == {}
    assert elements(held, "no-endpoint-services") == {
        '10.96.0.7 . tcp . 80 comment "shop/api"': "goto reject-chain",
        '192.0.2.1 . tcp . 80 comment "shop/api"': "goto reject-chain",
    }
    assert elements(held, "no-endpoint-nodeports") == {'tcp . 30080 comment "shop/api"': "goto reject-chain"}


def test_no_local_endpoint_under_internal_policy_local_is_dropped() -> None:
    """Another node may have one, this one has not."""
    held = compiled(api(THERE, internal=LOCAL))
    assert elements(held, "no-endpoint-services") == {'10.96.0.7 . tcp . 80 comment "shop/api"': "drop"}
    assert elements(held, "service-ips") == {}


def test_no_local_endpoint_under_external_policy_local_still_has_the_short_way() -> None:
    """Pods and the node go to any backend; who else comes finds the chain's end, and is dropped after NAT."""
    held = compiled(api(THERE, external=LOCAL, node_port=30080))
    assert elements(held, "service-nodeports") == {"tcp . 30080": f"goto {own('external')}"}
    assert elements(held, "no-endpoint-nodeports") == {'tcp . 30080 comment "shop/api"': "drop"}
    assert texts(held, own("external")) == [
        f'ip saddr 10.244.0.0/16 goto {own("service")} comment "short-circuit pod traffic"',
        'fib saddr type local meta mark set meta mark | 0x00004000 comment "masquerade local traffic"',
        f'fib saddr type local goto {own("service")} comment "short-circuit local traffic"',
    ]


def test_external_policy_local_ends_at_the_local_backends() -> None:
    """Strangers are held to the node's own, and keep their address."""
    held = compiled(api(HERE, THERE, external=LOCAL, node_port=30080))
    assert texts(held, own("external"))[-1] == f"goto {own('local')}"
    assert texts(held, own("local")) == [
        "meta l4proto tcp dnat ip to numgen random mod 1 map { 0 : 10.244.1.2 . 8080 }"
    ]


def test_without_a_cluster_cidr_nobody_is_a_stranger() -> None:
    """A proxy that was not told the pod network masks nobody at the cluster address, and knows no pod."""
    held = compiled(api(HERE, external=LOCAL, node_port=30080), pods=None)
    assert not any("cluster-ips" in text for text in texts(held, "services"))
    assert not any("pod traffic" in text for text in texts(held, own("external")))


def test_source_ranges_are_asked_even_without_an_endpoint() -> None:
    """The check comes before NAT and does not know whether anybody would answer."""
    facts: dict[str, Any] = {"load_balancer_ips": ("192.0.2.2",), "source_ranges": (Prefix.of("198.51.100.0/24"),)}
    held = compiled(api(**facts))
    assert elements(held, "firewall-ips") == {"192.0.2.2 . tcp . 80": f"goto {own('firewall')}"}
    assert texts(held, own("firewall")) == ["ip saddr != 198.51.100.0/24 drop"]


def test_a_node_in_the_ranges_may_come_from_the_load_balancers_address() -> None:
    """A node may hold that address itself; ranges inside of others are merged, as nft does."""
    ranges = (Prefix.of("172.18.0.0/24"), Prefix.of("172.18.0.0/25"), Prefix.of("172.18.0.0/24"))
    held = compiled(api(HERE, load_balancer_ips=("192.0.2.2",), source_ranges=ranges))
    assert texts(held, own("firewall")) == ["ip saddr != { 172.18.0.0/24, 192.0.2.2 } drop"]


def test_affinity_has_a_set_and_a_chain_for_each_backend() -> None:
    """Who is in the set goes to its chain; the chain puts him there again."""
    held = compiled(api(HERE, THERE, affinity=10800))
    sets, chains = ([own(kind, f"{b.ip}/8080") for b in (HERE, THERE)] for kind in ("affinity", "endpoint"))
    assert texts(held, own("service")) == [
        *(f"ip saddr @{seen} goto {way}" for seen, way in zip(sets, chains, strict=True)),
        f"numgen random mod 2 vmap {{ 0 : goto {chains[0]}, 1 : goto {chains[1]} }}",
    ]
    assert texts(held, chains[0]) == [
        f"update @{sets[0]} {{ ip saddr }}", "meta l4proto tcp dnat to 10.244.1.2:8080",
    ]  # fmt: skip
    assert held.set(sets[0]).timeout == 10800


def test_only_backends_of_the_node_can_reach_themselves() -> None:
    """The set of hairpin connections holds no others."""
    assert list(elements(compiled(api(HERE, THERE)), "hairpin-connections")) == ["10.244.1.2 . 10.244.1.2 . tcp . 8080"]


def test_node_ports_are_at_the_nodes_own_address() -> None:
    """One address in the set; none if the node has none in the family."""
    assert list(elements(compiled(), "nodeport-ips")) == ["172.18.0.11"]
    assert not elements(compiled(of=6, address="", pods=None), "nodeport-ips")


def test_unallocated_addresses_are_dropped_in_every_service_network() -> None:
    """Two Service networks are a set of two."""
    held = compiled(services=(Prefix.of("10.96.0.0/16"), Prefix.of("10.97.0.0/16")))
    assert texts(held, "cluster-ips-check")[1].startswith("ip daddr { 10.96.0.0/16, 10.97.0.0/16 } drop")
    assert len(texts(compiled(), "cluster-ips-check")) == 1


def test_two_services_with_one_address_are_one_element() -> None:
    """A map holds a key once: the first Service has it."""
    one, other = (api(HERE, service=name, external_ips=("192.0.2.1",)) for name in ("api", "web"))
    assert elements(compiled(one, other), "service-ips")["192.0.2.1 . tcp . 80"] == f"goto {own('external')}"


@pytest.mark.parametrize("number", [10, 100])
def test_the_table_grows_by_elements(number: int) -> None:
    """For each Service one chain with one rule, one map element and one cluster address; the rest stands."""
    backends = [Backend(f"10.244.2.{last}", 80, "n2") for last in range(2, 7)]
    many = [api(*backends, service=f"s{n}", cluster_ip=f"10.96.0.{n}") for n in range(1, number + 1)]
    bare, full = (counts(Host("n1", nftables=(held,))) for held in (compiled(), compiled(*many)))
    assert full == Counts(bare.chains + number, bare.rules + number, bare.sets, bare.elements + 2 * number)
