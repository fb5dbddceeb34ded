"""Policies as Calico's chains and sets: what they look like, and that they decide as the engine does."""

from __future__ import annotations

from functools import cache
from random import Random

import pytest

from k8snetlab.cluster import Cluster
from k8snetlab.linux import text
from k8snetlab.trace import Client, Verdict
from tests.policies.chance import cluster, connections, disagreements
from tests.shops import bookshop

BGP = {"mode": "bgp"}
"""Without a tunnel, whose end would be the address that a node sends from."""

DATAPLANES = ("iptables", "nftables")

PODS = "".join(
    f"""
apiVersion: v1
kind: Pod
metadata: {{name: {app}-{node}, labels: {{app: {app}}}}}
spec: {{nodeName: node{node + 1}, containers: [{{name: {app}, image: {app}, ports: [{{containerPort: {port}}}]}}]}}
---
"""
    for node in range(3)
    for app, port in (("web", 8080), ("db", 5432))
)
DB = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{protocol: TCP, port: 5432}]
"""
DB_0 = "cali9ae1fe16e6f"

NODES = "".join(
    f"""
apiVersion: v1
kind: Node
metadata: {{name: node{number}}}
status: {{addresses: [{{type: InternalIP, address: 172.18.0.1{number}}}]}}
---
"""
    for number in (1, 2, 3)
)


@cache
def example(*policies: str) -> Cluster:
    """A web server and a database on each of three nodes, with these policies."""
    return Cluster.load(NODES + PODS + "---".join(policies), cni="calico", pod_cidr="10.244.0.0/16")


def rules(held: Cluster, node: str, chain: str, of: int = 4) -> list[str]:
    """The rules of one chain of table filter, without the option that names the chain."""
    found = held.network[node].netfilter.of(of)["filter"].chains[chain].rules
    return [rule.text.removeprefix(f"-A {chain} ").removeprefix(f"-A {chain}") for rule in found]


def policy(name: str, spec: str) -> str:
    """A NetworkPolicy about the databases."""
    return f"""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: {name}}}
spec: {{podSelector: {{matchLabels: {{app: db}}}}, {spec}}}
"""


def test_a_device_s_chain_asks_policies_where_it_would_ask_profiles() -> None:
    """The tier, the policy, what happens at its end; the profiles stay behind it."""
    assert rules(example(DB), "node1", f"cali-tw-{DB_0}") == [
        "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        "-m conntrack --ctstate INVALID -j DROP",
        "-j MARK --set-xmark 0x0/0x30000",
        '-m comment --comment "Start of tier default" -j MARK --set-xmark 0x0/0x20000',
        "-m mark --mark 0x0/0x20000 -j cali-pi-_ow6sOLvn1e12_cxXXGR",
        '-m comment --comment "Return if policy accepted" -m mark --mark 0x10000/0x10000 -j RETURN',
        (
            '-m comment --comment "End of tier default. Drop if no policies passed packet" '
            "-m mark --mark 0x0/0x20000 -j DROP"
        ),
        "-j cali-pri-kns.default",
        '-m comment --comment "Return if profile accepted" -m mark --mark 0x10000/0x10000 -j RETURN',
        "-j cali-pri-ksa.default.default",
        '-m comment --comment "Return if profile accepted" -m mark --mark 0x10000/0x10000 -j RETURN',
        '-m comment --comment "Drop if no profiles matched" -j DROP',
    ]


def test_a_policy_s_chain_asks_a_set_and_sets_a_bit() -> None:
    """The name of the set is a hash of the selector; a last RETURN is left out; the comment names the policy."""
    assert rules(example(DB), "node1", "cali-pi-_ow6sOLvn1e12_cxXXGR") == [
        (
            '-p tcp -m comment --comment "Policy default/knp.default.db ingress" '
            "-m set --match-set cali40s:XdTkeoA4uORlm_7HsXcm20F src -m multiport --dports 5432 "
            "-j MARK --set-xmark 0x10000/0x10000"
        )
    ]
    web = [example(DB).objects.pod(f"default/web-{node}").ip for node in range(3)]
    held = example(DB).network["node1"].sets["cali40s:XdTkeoA4uORlm_7HsXcm20F"]
    assert (str(held.type), sorted(held.entries)) == ("hash:net", sorted(web))


def test_a_pod_and_a_direction_without_policies_have_no_section() -> None:
    """The policy is about packets to databases: web servers, and what databases send, go by the profiles alone."""
    plain, some = example(), example(DB)
    for chain in (f"cali-fw-{DB_0}", "cali-tw-cali0d7763386da"):
        assert rules(plain, "node1", chain) == rules(some, "node1", chain)


def test_a_cluster_without_policies_is_what_it_was() -> None:
    """Taking the only policy away leaves the same bytes as never having had one."""
    for node in ("node1", "node2"):
        before, after = example().network[node], example(DB).deleted("NetworkPolicy", "default/db").network[node]
        assert text.iptables_save(before.netfilter.ipv4) == text.iptables_save(after.netfilter.ipv4)
        assert before.ipsets == after.ipsets


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("ingress: []", ['-m comment --comment "Policy default/knp.default.p ingress"']),
        ("ingress: [{}]", ["-m comment … -j MARK --set-xmark 0x10000/0x10000"]),
        ("ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]", ["-m comment … -j MARK --set-xmark 0x10000/0x10000"]),
        ("ingress: [{ports: [{protocol: UDP}]}]", ["-p udp -m comment … -j MARK --set-xmark 0x10000/0x10000"]),
        (
            "ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]}]",
            [
                "-m comment … -j MARK --set-xmark 0x80000/0x180000",
                "-s 10.1.0.0/16 -j MARK --set-xmark 0x0/0x80000",
                "-s 10.0.0.0/8 -m mark --mark 0x80000/0x80000 -j MARK --set-xmark 0x10000/0x10000",
            ],
        ),
        (
            "ingress: [{ports: [{port: 81}, {port: 80}, {port: sql}, {port: 90, endPort: 99}]}]",
            [
                "-m comment … -j MARK --set-xmark 0x0/0x180000",
                "-p tcp -m multiport --dports 80:81,90:99 -j MARK --set-xmark 0x80000/0x80000",
                "-m set --match-set cali40n:… dst,dst -j MARK --set-xmark 0x80000/0x80000",
                "-p tcp -m mark --mark 0x80000/0x80000 -j MARK --set-xmark 0x10000/0x10000",
            ],
        ),
        (
            "policyTypes: [Egress], egress: [{to: [{namespaceSelector: {}}], ports: [{port: sql}]}]",
            ["-p tcp -m comment … -m set --match-set cali40n:… dst,dst -j MARK --set-xmark 0x10000/0x10000"],
        ),
        (
            "ingress: [{from: [{ipBlock: {cidr: 'fd00::/8'}}]}]",
            ['-m comment --comment "Policy default/knp.default.p ingress"'],
        ),
    ],
    ids=[
        "nothing",
        "all",
        "all of IPv4",
        "a protocol",
        "an exception",
        "ports of all sorts",
        "names of a peer",
        "IPv6",
    ],
)
def test_what_a_rule_becomes(spec: str, expected: list[str]) -> None:
    """One rule of the API, and those of iptables that it takes."""
    held = example(policy("p", spec))
    name = next(name for name in held.network["node1"].netfilter.ipv4["filter"].chains if name.startswith(POLICY))
    assert [_short(rule) for rule in rules(held, "node1", name)] == [_short(rule) for rule in expected]


POLICY = ("cali-pi-", "cali-po-")


def _short(rule: str) -> str:
    words = rule.split(" ")
    kept = ["cali40n:…" if word.startswith("cali40n:") else word for word in words]
    joined = " ".join(kept)
    head, found, tail = joined.partition('-m comment --comment "Policy default/knp.default.p ')
    behind = tail.partition('"')[2]
    return f"{head}-m comment …{behind}" if found and behind else joined


def test_policies_of_one_selector_share_a_chain() -> None:
    """Two that stand side by side by their names; one with another selector stands alone."""
    other = DB.replace("name: db", "name: z").replace("matchLabels: {app: db}", "")
    held = example(policy("a", "ingress: [{}]"), policy("b", "ingress: []"), other)
    jumps = [rule for rule in rules(held, "node1", f"cali-tw-{DB_0}") if "-j cali-gi-" in rule or "-j cali-pi-" in rule]
    assert [rule.partition("-j ")[2][:8] for rule in jumps] == ["cali-gi-", "cali-pi-"]
    group = rules(held, "node1", jumps[0].partition("-j ")[2])
    assert [rule.partition("-j ")[0] for rule in group] == ["", "-m mark --mark 0x0/0x30000 "]


def test_more_ports_than_one_multiport_holds_are_several() -> None:
    """Fifteen places, and a range takes two."""
    ports = ", ".join(f"{{port: {100 * number}, endPort: {100 * number + 1}}}" for number in range(1, 9))
    found = rules(held := example(policy("p", f"ingress: [{{ports: [{ports}]}}]")), "node1", _policy_chain(held))
    assert [rule.count(":") for rule in found if "multiport" in rule] == [7, 1]


def _policy_chain(held: Cluster) -> str:
    return next(name for name in held.network["node1"].netfilter.ipv4["filter"].chains if name.startswith(POLICY))


def test_tiers_stand_in_their_order_and_drop_nothing_but_the_middle_one() -> None:
    """Calico's names for what the API calls Admin and Baseline."""
    above = """
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: no-%s}
spec:
  tier: %s
  priority: 1
  subject: {namespaces: {}}
  ingress: [{action: Deny, from: [{namespaces: {matchLabels: {team: red}}}]}]
"""
    held = example(above % ("base", "Baseline"), above % ("admin", "Admin"), DB)
    section = rules(held, "node1", f"cali-tw-{DB_0}")
    started = [rule.partition("Start of tier ")[2].partition('"')[0] for rule in section if "Start of tier" in rule]
    assert started == ["kube-admin", "default", "kube-baseline"]
    assert [rule for rule in section if "End of tier" in rule and "End of tier default." not in rule] == []
    chain = next(rule.partition("-j ")[2] for rule in section if "-j cali-pi-" in rule)
    assert [rule.partition("-j ")[2] for rule in rules(held, "node1", chain)] == [
        "MARK --set-xmark 0x40000/0x40000", "DROP",
    ]  # fmt: skip


def test_in_nftables_the_same_chains_stand_in_one_table() -> None:
    """Names are whole, sets have no colon, and devices are found in a map."""
    held = example(DB).changed(cni_options={"dataplane": "nftables"}).network["node1"].nftables[0]
    found = [rule.text for rule in held.chain("filter-cali-pi-default/default/knp.default.db").rules]
    assert found == [
        (
            "ip saddr @cali40s-XdTkeoA4uORlm_7HsXcm20F tcp dport 5432 counter packets 0 bytes 0 "
            'meta mark set meta mark | 0x00010000 comment "Policy default/knp.default.db ingress"'
        )
    ]
    assert next(rule.text for rule in held.chain("filter-cali-to-wl-dispatch").rules) == (
        "oifname vmap @filter-cali-to-wl-dispatch"
    )
    assert {str(each.data) for each in held.set("filter-cali-to-wl-dispatch").elements} == {
        "goto filter-cali-tw-cali0d7763386da", f"goto filter-cali-tw-{DB_0}",
    }  # fmt: skip
    assert held.set("cali40s-XdTkeoA4uORlm_7HsXcm20F").flags == ("interval",)


# What they decide


@pytest.mark.parametrize("dataplane", DATAPLANES)
def test_the_walk_through_the_chains_is_the_engine_s_verdict(dataplane: str) -> None:
    """Policies by chance, of both kinds, in both families: hundreds of connections of pods, nodes and clients."""
    denied = 0
    for seed in range(16):
        chance = Random(seed)
        held = cluster(chance, "calico", {**BGP, "dataplane": dataplane})
        asked = list(connections(chance, held, 40))
        assert disagreements(held, asked) == [], f"seed {seed}"
        denied += sum(not held.allowed(*each[:4], family=each.of) for each in asked)
    assert 150 < denied < 400


@pytest.mark.parametrize("dataplane", DATAPLANES)
def test_a_trace_says_which_policy_did_not_allow_it(dataplane: str) -> None:
    """The rule that drops stands at the end of a tier and names no policy; the trace does."""
    walk = bookshop("calico").changed(cni_options={"dataplane": dataplane}).trace("shop/web-0", "svc/shop/db:5432")
    assert walk.verdict is Verdict.DROPPED
    assert "not allowed by NetworkPolicy shop/db-clients, NetworkPolicy shop/default-deny" in walk.reason
    allowed = example(DB).trace("default/web-1", "default/db-0:5432")
    assert any(step.rule and "NetworkPolicy default/db, spec.ingress[0]" in step.why for step in allowed.steps)


def test_replies_pass() -> None:
    """Nobody may open a connection to the web server, whose own connections are answered all the same."""
    closed = policy("closed", "ingress: []").replace("app: db", "app: web")
    held = example(DB, closed)
    assert held.trace("default/web-0", "default/db-1:5432").client is Client.OPEN
    assert held.trace("default/db-0", "default/web-1:8080").verdict is Verdict.DROPPED


@pytest.mark.parametrize("dataplane", DATAPLANES)
def test_a_policy_does_not_end_a_connection_that_is_open(dataplane: str) -> None:
    """After it is applied, the old connection goes on and no new one begins; and without it again one does."""
    before = example().changed(cni_options={"dataplane": dataplane})
    session = before.session()
    opened = session.trace("default/web-0", "default/db-1:5432")
    session.become(before.applied(policy("closed", "ingress: []")))
    assert session.again(opened).verdict is Verdict.DELIVERED
    assert session.trace("default/web-0", "default/db-1:5432").verdict is Verdict.DROPPED
    session.become(before)
    assert session.trace("default/web-0", "default/db-1:5432").client is Client.OPEN


@pytest.mark.parametrize("cni", ["flannel", "bridge", "cloud"])
def test_a_network_that_heeds_no_policy_says_so(cni: str) -> None:
    """Where a policy forbids what passes all the same, and nowhere else."""
    shop = bookshop().changed(cni=cni)
    passed = shop.trace("shop/web-0", "svc/shop/db:5432")
    assert passed.client is Client.OPEN
    told = " ".join(passed.explain().split())
    assert f"NetworkPolicy shop/metrics-readers forbid this connection, but {cni} enforces no policies." in told
    assert shop.trace("shop/web-0", "svc/shop/api:80").notes == ()
    assert shop.changed(cni="calico").trace("shop/web-0", "svc/shop/api:80").notes == ()


SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: db}
spec:
  type: NodePort
  externalTrafficPolicy: %s
  selector: {app: db}
  ports: [{port: 5432, nodePort: 30432}]
"""
FROM_CLIENTS = policy("clients", "ingress: [{from: [{ipBlock: {cidr: 203.0.113.0/24}}]}]")


@pytest.mark.parametrize("proxy", ["iptables", "nftables"])
@pytest.mark.parametrize("dataplane", DATAPLANES)
def test_behind_a_service_policies_see_the_backend_and_the_first_source(dataplane: str, proxy: str) -> None:
    """The destination is rewritten before policies are asked, the source after it: on the backend's node a client is
    known as itself, and one whose packet another node passed on is not.
    """
    options = {"dataplane": dataplane}
    shop = Cluster.load(NODES + PODS, SERVICE % "Local", FROM_CLIENTS, cni="calico", cni_options=options, proxy=proxy)
    assert shop.trace("external", "node/node1:30432").client is Client.OPEN
    assert shop.trace("default/web-0", "svc/default/db:5432").verdict is Verdict.DROPPED
    everywhere = shop.applied(SERVICE % "Cluster")
    ends = {(each.backend and each.backend.pod, each.verdict) for each in
            everywhere.trace("external", "node/node1:30432").outcomes}  # fmt: skip
    assert ends == {("db-0", Verdict.DELIVERED), (None, Verdict.DROPPED)}


@pytest.mark.parametrize("dataplane", DATAPLANES)
def test_a_pod_behind_its_own_service_needs_leave_like_anybody(dataplane: str) -> None:
    """Its packet comes back by way of the node; the one that it sends to its own address never leaves it."""
    options = {"dataplane": dataplane}
    shop = Cluster.load(NODES + PODS, SERVICE % "Local", DB, cni="calico", cni_options=options)
    own = {each.verdict for each in shop.trace("default/db-0", "svc/default/db:5432").outcomes}
    assert own == {Verdict.DROPPED}
    assert shop.trace("default/db-0", "default/db-0:5432").client is Client.OPEN
    leave = policy("own", "ingress: [{from: [{podSelector: {matchLabels: {app: db}}}]}]")
    allowed = shop.applied(leave).trace("default/db-0", "svc/default/db:5432").outcomes
    assert {each.client for each in allowed} == {Client.OPEN}


@pytest.mark.parametrize("proxy", ["iptables", "ipvs"])
def test_a_way_on_which_nobody_asks_policies_is_told(proxy: str) -> None:
    """IPVS sends to a pod of its own node from INPUT to OUTPUT, where Felix's chains for pods are not met."""
    closed = policy("closed", "ingress: []")
    alone = PODS.replace("app: db}}\nspec: {nodeName: node2", "app: x}}\nspec: {nodeName: node2")
    shop = Cluster.load(
        NODES + alone.replace("app: db}}\nspec: {nodeName: node3", "app: x}}\nspec: {nodeName: node3"),
        SERVICE % "Local", closed, cni="calico", proxy=proxy,
    )  # fmt: skip
    found = shop.trace("default/web-0", "svc/default/db:5432")
    told = ("NetworkPolicy default/closed forbids this connection, but nothing on its way asked them",)
    assert (found.verdict, found.notes) == {
        "iptables": (Verdict.DROPPED, ()), "ipvs": (Verdict.DELIVERED, told),
    }[proxy]  # fmt: skip


def test_long_names_are_cut_where_the_tools_take_no_more() -> None:
    """A comment has 255 characters in iptables and 128 in nftables, a chain 28 and 256, a set 31."""
    held = example(policy("-".join(["long"] * 50), "ingress: [{ports: [{port: 80}]}]"))
    chain = _policy_chain(held)
    assert len(chain) == 28
    (rule, *_) = held.network["node1"].netfilter.ipv4["filter"].chains[chain].rules
    assert rule.comment.startswith("Policy default/knp.default.long-") and len(rule.comment) <= 255
    table = held.changed(cni_options={"dataplane": "nftables"}).network["node1"].nftables[0]
    (long,) = (name for name in table.chains if name.startswith("filter-cali-pi-"))
    assert len(long) == len("filter-cali-pi-_") + 43
    assert len(table.chain(long).rules[0].comment) == 128
