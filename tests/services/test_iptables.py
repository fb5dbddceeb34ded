from fractions import Fraction
from typing import Any

import pytest

from k8snetlab.address import Prefix
from k8snetlab.api import TrafficPolicy
from k8snetlab.linux.netfilter import Chain, Jump, Statistic, Table, tables
from k8snetlab.services.endpoints import Backend
from k8snetlab.services.exposure import Exposure
from k8snetlab.services.iptables import chain_name, patches

LOCAL = TrafficPolicy.LOCAL
PODS = Prefix.of("10.244.0.0/16")
HERE = Backend("10.244.1.2", 8080, "n1")
THERE = Backend("10.244.2.2", 8080, "n2")


def api(*backends: Backend, **facts: Any) -> Exposure:
    """The port 80 of Service shop/api with these backends."""
    usual = {"service": "api", "protocol": "TCP", "cluster_ip": "10.96.0.7"}
    return Exposure(namespace="shop", name="", port=80, backends=backends, **{**usual, **facts})


def compiled(*exposures: Exposure, of: int = 4, pods: Prefix | None = PODS) -> dict[str, Table]:
    """The tables of node n1 at 172.18.0.11."""
    return dict(tables(of, patches(exposures, of, node="n1", address="172.18.0.11", pods=pods)))


def own(table: Table, kind: str) -> Chain | None:
    """The chain of shop/api of that kind, if there is one."""
    return table.chains.get(chain_name(kind, "shop/api", "tcp"))


def texts(chain: Chain | None) -> list[str]:
    """The rules of a chain without its name."""
    assert chain is not None
    return [rule.text.removeprefix(f"-A {chain.name} ") for rule in chain.rules]


def jumps(chain: Chain | None) -> list[str]:
    """The kinds of chains that a chain jumps to, in order, each once."""
    assert chain is not None
    targets = (rule.target.chain for rule in chain.rules if isinstance(rule.target, Jump))
    return list(dict.fromkeys(target.rpartition("-")[0] for target in targets))


@pytest.mark.parametrize(
    ("kind", "port", "protocol", "backend", "name"),
    [
        ("SVC", "default/kubernetes:https", "tcp", "", "KUBE-SVC-NPX46M4PTMTKRN6Y"),
        ("SEP", "default/kubernetes:https", "tcp", "172.18.0.1:6443", "KUBE-SEP-UC6BXPXVZR4P64JB"),
        ("SVC", "default/udp:dns", "udp", "", "KUBE-SVC-5EGDAWQLUBMZ742O"),
        ("SEP", "default/dual", "tcp", "[fd00:10:244::2]:8080", "KUBE-SEP-DZFRACF57XNMGU2D"),
    ],
)
def test_chains_have_the_names_of_a_real_node(kind: str, port: str, protocol: str, backend: str, name: str) -> None:
    """The hash is over the Service port, its protocol and the backend, as a real kube-proxy's is."""
    assert chain_name(kind, port, protocol, backend) == name


def test_a_chain_name_fits_into_the_kernel() -> None:
    """The kernel holds 28 characters, however long the Service is called."""
    assert len(chain_name("SVC", "n" * 63 + "/" + "s" * 63, "sctp")) <= 28


@pytest.mark.parametrize("count", [1, 2, 3, 7, 30])
def test_every_backend_has_the_same_share(count: int) -> None:
    """Rule i of n fires with 1/(n-i) of what is left: the shares are equal to nine decimals."""
    backends = [Backend(f"10.244.1.{last}", 80, "n1") for last in range(2, count + 2)]
    chain = own(compiled(api(*backends))["nat"], "SVC")
    assert chain is not None
    left, shares = Fraction(1), []
    for rule in chain.rules[1:]:
        chance = next((Fraction(m.probability) for m in rule.matches if isinstance(m, Statistic)), Fraction(1))
        shares.append(left * chance)
        left *= 1 - chance
    assert [float(share) for share in shares] == pytest.approx([1 / count] * count, rel=1e-8)


def test_nothing_is_built_until_something_jumps_there() -> None:
    """A fresh set of tables holds the chains of Services as functions."""
    nat = compiled(api(HERE, THERE))["nat"]
    assert [name for name in nat.chains.built if "-S" in name] == []


def test_only_the_chains_on_the_way_are_built() -> None:
    """Following a packet to one backend leaves the other backend's chain unbuilt."""
    nat = compiled(api(HERE, THERE))["nat"]
    names = [chain_name("SEP", "shop/api", "tcp", str(backend)) for backend in (HERE, THERE)]
    for name in ("KUBE-SERVICES", chain_name("SVC", "shop/api", "tcp"), names[0]):
        assert nat.chains[name].rules
    assert [name in nat.chains.built for name in names] == [True, False]


def test_every_jump_leads_to_a_chain() -> None:
    """No rule names a chain that does not exist, whatever the shape of the Service."""
    shapes = [
        api(*backends, service=f"s{number}", internal=internal, external=external, node_port=30000, affinity=60,
            external_ips=("192.0.2.1",), load_balancer_ips=("192.0.2.2",), source_ranges=ranges)
        for number, (backends, internal, external, ranges) in enumerate(
            (backends, internal, external, ranges)
            for backends in ((), (HERE,), (THERE,), (HERE, THERE))
            for internal in TrafficPolicy for external in TrafficPolicy
            for ranges in ((), (Prefix.of("172.18.0.0/24"),))
        )
    ]  # fmt: skip
    for table in compiled(*shapes).values():
        assert {rule.target.chain for rule in table.rules if isinstance(rule.target, Jump)} <= set(table.chains)


def test_a_service_without_backends_refuses_at_once() -> None:
    """Nobody can answer anywhere: REJECT in the table filter, and no rule in nat."""
    found = compiled(api())
    about = '-d 10.96.0.7/32 -p tcp -m comment --comment "shop/api has no endpoints" -m tcp --dport 80'
    assert texts(found["filter"].chains["KUBE-SERVICES"]) == [f"{about} -j REJECT --reject-with icmp-port-unreachable"]
    assert jumps(found["nat"].chains["KUBE-SERVICES"]) == ["KUBE"]


def test_ipv6_refuses_with_its_own_message() -> None:
    """ICMPv6 has another name for the same thing."""
    found = compiled(api(cluster_ip="fd00:10:96::7"), of=6, pods=None)
    assert texts(found["filter"].chains["KUBE-SERVICES"])[0].endswith("--reject-with icmp6-port-unreachable")


def test_internal_policy_local_without_a_local_backend_drops() -> None:
    """There is a backend, but not on this node: the packet is dropped without a word."""
    found = compiled(api(THERE, internal=LOCAL))
    assert texts(found["filter"].chains["KUBE-SERVICES"]) == [
        '-d 10.96.0.7/32 -p tcp -m comment --comment "shop/api has no local endpoints" -m tcp --dport 80 -j DROP'
    ]


def test_external_policy_local_without_a_local_backend_drops_strangers_only() -> None:
    """Pods and the node still take the short way; what is left is dropped at every outside address."""
    found = compiled(api(THERE, external=LOCAL, node_port=30080, external_ips=("192.0.2.5",)))
    about, anywhere = "shop/api external destinations", f"-j {chain_name('SVC', 'shop/api', 'tcp')}"
    assert texts(own(found["nat"], "EXT")) == [
        f'-s 10.244.0.0/16 -m comment --comment "pod traffic for {about}" {anywhere}',
        f'-m comment --comment "masquerade LOCAL traffic for {about}" -m addrtype --src-type LOCAL -j KUBE-MARK-MASQ',
        f'-m comment --comment "route LOCAL traffic for {about}" -m addrtype --src-type LOCAL {anywhere}',
    ]
    assert [text.rpartition(" ")[2] for text in texts(found["filter"].chains["KUBE-EXTERNAL-SERVICES"])] == ["DROP"] * 2


def test_external_policy_cluster_masquerades_everybody() -> None:
    """The answer must come back through this node, also for a pod as client."""
    assert texts(own(compiled(api(HERE, node_port=30080))["nat"], "EXT"))[0] == (
        '-m comment --comment "masquerade traffic for shop/api external destinations" -j KUBE-MARK-MASQ'
    )


def test_the_cluster_address_is_masqueraded_for_strangers_only() -> None:
    """A pod keeps its address; what comes from outside the cluster CIDR is marked."""
    first = texts(own(compiled(api(HERE))["nat"], "SVC"))[0]
    assert first.startswith("! -s 10.244.0.0/16 -d 10.96.0.7/32 ")
    assert first.endswith("-j KUBE-MARK-MASQ")


def test_without_a_cluster_cidr_nobody_is_a_stranger() -> None:
    """A proxy that was not told the pod network masks nobody at the cluster address."""
    assert jumps(own(compiled(api(HERE), pods=None)["nat"], "SVC")) == ["KUBE-SEP"]


def test_the_mark_stands_in_the_chain_of_the_internal_policy() -> None:
    """With internal policy Local and a node port, only the local chain sees the cluster address."""
    nat = compiled(api(HERE, THERE, internal=LOCAL, node_port=30080))["nat"]
    assert jumps(own(nat, "SVL")) == ["KUBE-MARK", "KUBE-SEP"]
    assert jumps(own(nat, "SVC")) == ["KUBE-SEP"]


def test_a_backend_that_reaches_itself_is_masqueraded() -> None:
    """Otherwise it would get an answer from its own address and drop it."""
    nat = compiled(api(HERE))["nat"]
    first = nat.chains[chain_name("SEP", "shop/api", "tcp", str(HERE))].rules[0]
    assert (str(first.matches[0]), first.target) == ("-s 10.244.1.2/32", Jump("KUBE-MARK-MASQ"))


def test_affinity_is_asked_before_chance() -> None:
    """The rules that remember a client stand before those that throw a dice."""
    rules = texts(own(compiled(api(HERE, THERE, affinity=60))["nat"], "SVC"))
    assert ["recent" if "-m recent" in rule else "chance" for rule in rules[1:]] == ["recent"] * 2 + ["chance"] * 2


def test_affinity_in_ipv6_looks_at_the_whole_address() -> None:
    """The mask has 128 bits."""
    backend = Backend("fd00:10:244:1::2", 8080, "n1")
    found = compiled(api(backend, cluster_ip="fd00:10:96::7", affinity=60), of=6, pods=None)
    assert "--mask ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff --rsource" in texts(own(found["nat"], "SVC"))[0]


def test_source_ranges_stand_between_the_load_balancer_and_the_service() -> None:
    """KUBE-FW lets the ranges in; the table filter drops who is left."""
    facts: dict[str, Any] = {"load_balancer_ips": ("192.0.2.2",), "source_ranges": (Prefix.of("198.51.100.0/24"),)}
    found = compiled(api(HERE, **facts))
    assert jumps(own(found["nat"], "FW")) == ["KUBE-EXT"]
    comment = f"shop/api traffic not accepted by {chain_name('FW', 'shop/api', 'tcp')}"
    assert texts(found["filter"].chains["KUBE-PROXY-FIREWALL"]) == [
        f'-d 192.0.2.2/32 -p tcp -m comment --comment "{comment}" -m tcp --dport 80 -j DROP'
    ]


def test_a_node_in_the_ranges_may_come_from_the_load_balancers_address() -> None:
    """A node may hold that address itself, and would use it as the source."""
    facts: dict[str, Any] = {"load_balancer_ips": ("192.0.2.2",), "source_ranges": (Prefix.of("172.18.0.0/24"),)}
    sources = [text.split()[1] for text in texts(own(compiled(api(HERE, **facts))["nat"], "FW"))[:-1]]
    assert sources == ["172.18.0.0/24", "192.0.2.2/32"]


def test_source_ranges_do_not_limit_node_ports() -> None:
    """A node port leads to KUBE-EXT past KUBE-FW."""
    facts: dict[str, Any] = {"load_balancer_ips": ("192.0.2.2",), "source_ranges": (Prefix.of("198.51.100.0/24"),)}
    assert jumps(compiled(api(HERE, node_port=30080, **facts))["nat"].chains["KUBE-NODEPORTS"]) == ["KUBE-EXT"]


def test_node_ports_at_loopback_are_counted_in_ipv4_only() -> None:
    """The kernel can be told to route 127.0.0.0/8, and cannot for ::1."""
    four = compiled(api(HERE, node_port=30080))["nat"].chains["KUBE-NODEPORTS"]
    backend = Backend("fd00:10:244:1::2", 8080, "n1")
    six = compiled(api(backend, cluster_ip="fd00:10:96::7", node_port=30080), of=6, pods=None)["nat"]
    assert (len(four.rules), len(six.chains["KUBE-NODEPORTS"].rules)) == (2, 1)


def test_every_node_takes_health_checks() -> None:
    """The check is answered also where no backend is: that is what it asks."""
    facts: dict[str, Any] = {"external": LOCAL, "load_balancer_ips": ("192.0.2.2",), "health_check_port": 31000}
    assert texts(compiled(api(THERE, **facts))["filter"].chains["KUBE-NODEPORTS"]) == [
        '-p tcp -m comment --comment "shop/api health check node port" -m tcp --dport 31000 -j ACCEPT'
    ]


def test_every_protocol_has_its_own_chain() -> None:
    """TCP and UDP at one port and of one name do not share chains."""
    found = compiled(api(HERE), api(HERE, protocol="UDP"))["nat"]
    assert len([name for name in found.chains if name.startswith("KUBE-SVC-")]) == 2


def test_rules_say_which_chain_they_stand_in() -> None:
    """A rule taken out of its chain still knows where it was."""
    for name, table in compiled(api(HERE, THERE, node_port=30080, affinity=5)).items():
        for chain in table.chains.values():
            assert {(rule.table, rule.chain) for rule in chain.rules} <= {(name, chain.name)}
