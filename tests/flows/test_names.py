from __future__ import annotations

from functools import cache

import pytest

from k8snetlab.cluster import Cluster
from k8snetlab.errors import BadOption, UnknownName
from k8snetlab.flows import sender_of, target_of
from k8snetlab.trace import Client
from tests.shops import FAMILIES, bookshop, pod, service


def meant(what: str, who: str = "shop/web-0", cluster: Cluster | None = None, family: int | None = None) -> str:
    """ADDRESS:PORT/PROTOCOL that WHAT means to WHO."""
    terrain = (cluster or bookshop()).terrain
    found = target_of(terrain, what, sender_of(terrain, who), family)
    return f"{found.address}:{found.port}/{found.protocol}"


def address(pod_name: str) -> str:
    """The address of a pod of the bookshop."""
    return bookshop().objects.pod(pod_name).ip


def cluster_ip(name: str) -> str:
    """The ClusterIP of a Service of the bookshop."""
    return bookshop().objects.service(name).cluster_ips[0]


# Who


@pytest.mark.parametrize(
    ("who", "host"),
    [
        ("shop/web-0", "shop/web-0"),
        ("pod/shop/web-0", "shop/web-0"),
        ("node/node-1", "node-1"),
        ("node-1", "node-1"),
        ("external", "external"),
        ("external:172.18.0.100", "external:172.18.0.100"),
        ("router", "router"),
        ("control-plane", "control-plane"),
        ("sts/shop/web", "shop/web-0"),
        ("statefulset/shop/web", "shop/web-0"),
    ],
)
def test_who_is_a_machine(who: str, host: str) -> None:
    """Pods, workloads, nodes, clients, and any machine by its name."""
    assert sender_of(bookshop().terrain, who).host == host


@pytest.mark.parametrize("who", ["deploy/shop/api", "deployment/shop/api"])
def test_a_workload_means_its_first_pod(who: str) -> None:
    """Pod names are generated; the Deployment's is known."""
    assert sender_of(bookshop().terrain, who).host == bookshop().objects.pods_of("deploy/shop/api")[0].key


def test_a_pod_on_its_nodes_network_is_its_node() -> None:
    """What such a pod sends leaves the node as the node's own."""
    agent = bookshop().objects.pods_of("ds/ops/node-agent")[0]
    assert sender_of(bookshop().terrain, agent.key).host == agent.node_name


@pytest.mark.parametrize(
    ("who", "said"),
    [
        ("shop/web-9", "there is no pod 'shop/web-9'; did you mean shop/web-"),
        ("web-0", "there is no pod 'web-0'; did you mean shop/web-0"),
        ("node/node-9", "there is no node 'node-9'; did you mean node-"),
        ("deploy/shop/apy", "there is no Deployment 'shop/apy'; did you mean shop/api"),
        ("shop/web/0", "there is no kind of workload 'shop'"),
        ("", "there is no pod ''"),
    ],
)
def test_who_is_not_there_is_told_who_is(who: str, said: str) -> None:
    """The message has names that come close."""
    with pytest.raises(UnknownName) as error:
        sender_of(bookshop().terrain, who)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("status", "said"),
    [("phase: Succeeded", "it has completed"), ("phase: Failed", "it has completed"), ("phase: Pending", "is Pending")],
)
def test_a_pod_without_a_network_sends_nothing(status: str, said: str) -> None:
    """Completed and pending pods are wrong input, as sender and as target."""
    cluster = Cluster.load(pod("job", status=status), pod("web-1"))
    with pytest.raises(BadOption, match=f"Pod default/job: the pod has no network: .*{said}"):
        cluster.trace("default/job", "default/web-1:8080")
    with pytest.raises(BadOption, match="Pod default/job: the pod has no network"):
        cluster.trace("default/web-1", "default/job:8080")


def test_a_deployment_without_pods_sends_nothing() -> None:
    """Scaled to zero, there is nobody who could."""
    none = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 0\n"
    none += "  selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n"
    none += "    spec: {containers: [{name: web, image: example}]}\n"
    with pytest.raises(BadOption, match="deploy/default/web: it has no pods"):
        Cluster.load(none).trace("deploy/default/web", "10.96.0.10:53")


# What: pods, nodes, addresses


@pytest.mark.parametrize(
    ("what", "target"),
    [
        ("shop/web-1:8080", "{shop/web-1}:8080/TCP"),
        ("shop/web-1:http", "{shop/web-1}:8080/TCP"),
        ("pod/shop/web-1:http", "{shop/web-1}:8080/TCP"),
        ("shop/web-1:8080/UDP", "{shop/web-1}:8080/UDP"),
        ("shop/web-1:8080/sctp", "{shop/web-1}:8080/SCTP"),
        ("sts/shop/db:postgres", "{shop/db-0}:5432/TCP"),
        ("node/node-2:10250", "172.18.0.12:10250/TCP"),
        ("203.0.113.10:80", "203.0.113.10:80/TCP"),
        ("[fd00:0::1]:80", "fd00::1:80/TCP"),
        ("[fd00::1]:53/UDP", "fd00::1:53/UDP"),
        ("localhost:8080", "127.0.0.1:8080/TCP"),
    ],
)
def test_what_is_an_address_and_a_port(what: str, target: str) -> None:
    """Every form, with and without a protocol."""
    for name in ("shop/web-1", "shop/db-0"):
        target = target.replace(f"{{{name}}}", address(name))
    assert meant(what) == target


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("svc/shop/api", "'svc/shop/api' has no port: write WHERE:PORT"),
        ("10.0.0.1", "has no port"),
        ("", "has no port"),
        (":80", "has no port"),
        ("shop/web-1:", "has no port"),
        ("fd00::1", "has no port: write WHERE:PORT, or [IPv6]:PORT"),
        ("::1:80", "has no port: write WHERE:PORT, or [IPv6]:PORT"),
        ("10.0.0:80", "to: '10.0.0' does not appear to be an IPv4 or IPv6 address"),
        ("[fd00::x]:80", "does not appear to be"),
        ("10.0.0.1:0", "'0' in '10.0.0.1:0' is no port number from 1 to 65535"),
        ("10.0.0.1:65536", "no port number"),
        ("10.0.0.1:http", "no port number"),
        ("10.0.0.1:²", "no port number"),
        ("10.0.0.1:80/ICMP", "'ICMP' in '10.0.0.1:80/ICMP' is no protocol: there are TCP, UDP, SCTP"),
        ("svc/shop/api:80/", "'' in 'svc/shop/api:80/' is no protocol"),
        ("[fd00::1:80", "has no port: write WHERE:PORT, or [IPv6]:PORT"),
        ("10.0.0.1]:80", "has no port"),
        ("shop/web-1:99999", "no port number"),
        ("svc/shop/api:0", "no port number"),
        ("node/node-1:kubelet", "no port number"),
    ],
)
def test_what_cannot_be_connected_to_is_refused(what: str, said: str) -> None:
    """No port, no address, no number: the message says how to write it."""
    with pytest.raises(BadOption) as error:
        meant(what)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("shop/web-9:80", "there is no pod 'shop/web-9'; did you mean shop/web-"),
        ("shop/web-1:htpp", "Pod shop/web-1: there is no port 'htpp'; did you mean http?"),
        ("node/node-9:80", "there is no node 'node-9'"),
        ("svc/shop/apy:80", "there is no Service 'shop/apy'; did you mean shop/api"),
        ("svc/shop/api:htpp", "Service shop/api: there is no port 'htpp'; did you mean http?"),
        ("svc/shop/api:http/UDP", "Service shop/api: there is no port 'http'"),
    ],
)
def test_what_is_not_there_is_told_what_is(what: str, said: str) -> None:
    """The message has names that come close."""
    with pytest.raises(UnknownName) as error:
        meant(what)
    assert said in str(error.value)


# What: Services


@pytest.mark.parametrize("what", ["svc/shop/api:80", "service/shop/api:80", "svc/shop/api:http", "api:80", "api:http"])
def test_a_service_is_its_cluster_ip_from_inside(what: str) -> None:
    """By port number or name."""
    assert meant(what) == f"{cluster_ip('shop/api')}:80/TCP"


def test_a_port_nobody_exposes_may_be_asked_for() -> None:
    """That is a question about the network: nothing is translated, and nobody answers."""
    trace = bookshop().trace("shop/web-0", "svc/shop/api:81")
    assert (trace.request.port, trace.client, trace.backend) == (81, Client.TIMEOUT, None)


def test_an_udp_service_is_asked_by_udp() -> None:
    """The port of the protocol, of two that have the same number."""
    trace = bookshop().trace("shop/web-0", "svc/kube-system/kube-dns:53/UDP")
    assert trace.request.protocol == "UDP" and trace.client is Client.OPEN


def test_an_sctp_service_is_asked_by_sctp() -> None:
    """SCTP goes the same way with its own header."""
    line = service("web", target=8080).replace("port: 80,", "port: 80, protocol: SCTP,")
    listening = pod("web-1", node="node-2").replace("containerPort: 8080", "containerPort: 8080, protocol: SCTP")
    trace = Cluster.load(line, listening, pod("a", app="a")).trace("default/a", "svc/default/web:80/SCTP")
    assert trace.client is Client.OPEN and trace.backend is not None and trace.backend.pod == "web-1"


def test_an_external_name_is_nothing_to_connect_to() -> None:
    """It is another name, for somebody outside."""
    with pytest.raises(
        BadOption, match=r"Service shop/bank: spec.type: it is only another name for gateway.bank.examp"
    ):
        meant("svc/shop/bank:443")


def alias(name: str, of: str) -> str:
    """A Service that is another name for something."""
    spec = f"{{type: ExternalName, externalName: {of}}}"
    return f"apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec: {spec}\n---\n"


def test_another_name_of_a_service_leads_to_it() -> None:
    """Through as many aliases as there are. No port is translated."""
    far = alias("far", "near.default.svc.cluster.local")
    shop = Cluster.load(service("web"), pod("web-1"), far, alias("near", "web.default.svc.cluster.local."))
    trace = shop.trace("default/web-1", "far:80")
    assert trace.request.address == shop.objects.service("default/web").cluster_ips[0]
    assert trace.client is Client.OPEN


def test_aliases_in_a_circle_have_no_address() -> None:
    """A resolver gives up as well."""
    one, two = alias("one", "two.default.svc.cluster.local"), alias("two", "one.default.svc.cluster.local")
    with pytest.raises(BadOption, match="leads back to it"):
        Cluster.load(one, two, pod("a")).trace("default/a", "one:80")


@cache
def headless() -> Cluster:
    """A headless Service whose port is not the port of its pods."""
    return Cluster.load(service("web", "clusterIP: None"), pod("web-1"), pod("web-2", node="node-2"))


def test_a_headless_service_translates_no_port() -> None:
    """Its name is the pods' addresses; port 80 is port 80 of a pod, where nobody listens."""
    trace = headless().trace("default/web-2", "svc/default/web:80")
    assert (trace.request.port, trace.client) == (80, Client.REFUSED)
    assert headless().trace("default/web-2", "svc/default/web:8080").client is Client.OPEN


def test_a_headless_service_is_any_of_its_pods() -> None:
    """The client takes the first address of the answer, and each is first as often as the others."""
    trace = headless().trace("default/web-2", "svc/default/web:8080")
    taken = {outcome.backend.pod: outcome.probability for outcome in trace.outcomes if outcome.backend}
    assert taken == {"web-1": 0.5, "web-2": 0.5}


def test_the_port_name_of_a_headless_service_is_the_pods_port() -> None:
    """A name is looked up, as an SRV record would: the pod's port."""
    assert headless().trace("default/web-2", "svc/default/web:http").request.port == 8080


def test_a_headless_service_without_a_ready_pod_has_no_address() -> None:
    """Its name does not resolve."""
    with pytest.raises(BadOption, match="Service default/web: the Service is headless and no endpoint of it is ready"):
        Cluster.load(service("web", "clusterIP: None"), pod("a", app="a")).trace("default/a", "web:80")


# What: names


@pytest.mark.parametrize(
    ("who", "name"),
    [
        ("shop/web-0", "api"),
        ("shop/web-0", "api.shop"),
        ("shop/web-0", "api.shop.svc"),
        ("shop/web-0", "api.shop.svc.cluster.local"),
        ("shop/web-0", "api.shop.svc.cluster.local."),
        ("deploy/warehouse/stock", "api.shop"),
        ("deploy/warehouse/stock", "api.shop.svc"),
    ],
)
def test_a_name_is_completed_by_the_senders_search_list(who: str, name: str) -> None:
    """The own namespace is left out at will; the others have to be said."""
    assert meant(f"{name}:80", who) == f"{cluster_ip('shop/api')}:80/TCP"


@pytest.mark.parametrize(
    ("who", "name"),
    [
        ("deploy/warehouse/stock", "api"),
        ("shop/web-0", "api."),
        ("shop/web-0", "api.shop."),
        ("shop/web-0", "api.shop.svc.cluster.local.shop"),
        ("shop/web-0", "www.example.com"),
        ("shop/web-0", "web-0.api"),
        ("shop/web-0", "a.b.c.shop"),
    ],
)
def test_a_name_that_means_nothing_is_unknown(who: str, name: str) -> None:
    """Another namespace's Service, a name that is complete already, a name of the Internet."""
    with pytest.raises(UnknownName, match=f"to: there is no DNS name '{name}'"):
        meant(f"{name}:80", who)


def test_an_unknown_name_tells_names_that_work_there() -> None:
    """From another namespace with the namespace, from the own one without."""
    with pytest.raises(UnknownName, match=r"did you mean stock.warehouse\?"):
        meant("stock:80", "shop/web-0")


@pytest.mark.parametrize("name", ["db-0.db", "db-0.db.shop", "db-0.db.shop.svc.cluster.local"])
def test_a_pod_of_a_stateful_set_has_a_name(name: str) -> None:
    """Its hostname in the headless Service that is its subdomain."""
    assert meant(f"{name}:5432") == f"{address('shop/db-0')}:5432/TCP"


@pytest.mark.parametrize(
    ("who", "said"),
    [
        ("node/node-1", "node-1 does not ask the cluster's DNS for 'api.shop'"),
        ("external", "external does not ask the cluster's DNS"),
        ("deploy/kube-system/coredns", "with dnsPolicy Default, does not ask the cluster's DNS"),
    ],
)
def test_only_pods_that_ask_the_clusters_dns_know_its_names(who: str, said: str) -> None:
    """Nodes, outside clients and pods with dnsPolicy Default ask somebody else."""
    with pytest.raises(BadOption) as error:
        meant("api.shop:80", who)
    assert said in str(error.value)


def test_a_pod_on_its_nodes_network_can_ask_for_the_clusters_dns() -> None:
    """It has to say so: ClusterFirstWithHostNet; ClusterFirst means the node's file there."""
    shared = "hostNetwork: true\n  dnsPolicy: "
    cluster = Cluster.load(
        pod("asks", spec=f"{shared}ClusterFirstWithHostNet"),
        pod("silent", spec=f"{shared}ClusterFirst"),
        service("web"),
    )
    assert meant("web:80", "default/asks", cluster).endswith(":80/TCP")
    with pytest.raises(BadOption, match="its node's network, does not ask the cluster's DNS"):
        meant("web:80", "default/silent", cluster)


# From outside


@cache
def gates() -> Cluster:
    """Services with every kind of way in, their pods on node-2 and node-3."""
    balanced = "type: LoadBalancer, "
    status = "status: {{loadBalancer: {{ingress: [{}]}}}}\n---\n"
    return Cluster.load(
        pod("web-1", node="node-2"),
        pod("web-2", node="node-3"),
        pod("web-3", node="node-1", app="other"),
        service("plain"),
        service("port", "type: NodePort").replace("port: 80,", "port: 80, nodePort: 30080,"),
        service("vip", balanced + "externalTrafficPolicy: Cluster").replace("---", status.format("{ip: 192.0.2.10}")),
        service("local", balanced + "externalTrafficPolicy: Local").replace("---", status.format("{ip: 192.0.2.11}")),
        service("proxied", balanced + "externalTrafficPolicy: Cluster").replace(
            "---", status.format("{ip: 192.0.2.12, ipMode: Proxy}")
        ),
        service("named", balanced + "externalTrafficPolicy: Cluster").replace(
            "---", status.format("{hostname: lb.example.com}")
        ),
    )


@pytest.mark.parametrize("via", ["node-1", "node-2", "node-3"])
def test_a_node_port_is_reached_at_any_node(via: str) -> None:
    """At the node that `via` names, at the first without it."""
    trace = gates().trace("external", "svc/default/port:80", via=via)
    node = gates().objects.node(via)
    assert (trace.request.address, trace.request.port, trace.client) == (node.addresses[0], 30080, Client.OPEN)
    assert gates().trace("external", "svc/default/port:80").request.address == "172.18.0.11"


@pytest.mark.parametrize(
    ("who", "where"),
    [
        ("default/web-1", "172.18.0.11:30080"),
        ("default/web-1", "172.18.0.12:30080"),
        ("node/node-1", "172.18.0.11:30080"),
        ("node/node-1", "172.18.0.13:30080"),
        ("node/node-1", "127.0.0.1:30080"),
        ("external", "172.18.0.13:30080"),
        ("external:172.18.0.100", "172.18.0.12:30080"),
    ],
)
def test_a_node_port_is_open_to_everybody(who: str, where: str) -> None:
    """To pods, nodes (on 127.0.0.1 too) and clients outside; every backend may be chosen."""
    trace = gates().trace(who, where)
    assert {outcome.client for outcome in trace.outcomes} == {Client.OPEN}
    assert {outcome.backend.pod for outcome in trace.outcomes if outcome.backend} == {"web-1", "web-2"}


def test_a_pods_own_loopback_has_no_node_ports() -> None:
    """127.0.0.1 of a pod is the pod."""
    assert gates().trace("default/web-1", "127.0.0.1:30080").client is Client.REFUSED


def test_a_load_balancer_is_reached_at_its_address() -> None:
    """Outside traffic for it is led to a node: the first, or `via`."""
    trace = gates().trace("external", "svc/default/vip:80")
    assert (trace.request.address, trace.client) == ("192.0.2.10", Client.OPEN)
    led = gates().trace("external", "svc/default/vip:80", via="node-3")
    assert next(step.where for step in led.steps if step.where.startswith("node-")) == "node-3"


def test_a_load_balancer_with_policy_local_asks_for_health() -> None:
    """It sends to a node that has an endpoint, and the client's address stays."""
    trace = gates().trace("external", "svc/default/local:80")
    assert next(step.where for step in trace.steps if step.where.startswith("node-")) == "node-2"
    assert (trace.client, trace.source_seen) == (Client.OPEN, "203.0.113.10")


def test_a_node_without_an_endpoint_drops_with_policy_local() -> None:
    """Where traffic is led to the wrong node all the same."""
    assert gates().trace("external", "svc/default/local:80", via="node-1").client is Client.TIMEOUT


@pytest.mark.parametrize("name", ["proxied", "named"])
def test_a_load_balancer_that_opens_connections_itself_comes_by_the_node_port(name: str) -> None:
    """No rule knows its address; what arrives is for the node port."""
    trace = gates().trace("external", f"svc/default/{name}:80")
    assert trace.request.address == "172.18.0.11" and trace.request.port >= 30000


def test_a_pod_reaches_a_load_balancer_on_its_own_node() -> None:
    """It is asked at its ClusterIP by name, and its address is short-cut by the pod's own node."""
    assert gates().trace("default/web-3", "svc/default/vip:80").request.address.startswith("10.")
    trace = gates().trace("default/web-3", "192.0.2.10:80")
    assert trace.client is Client.OPEN
    assert "external" not in {step.where for step in trace.steps}


def test_via_is_for_traffic_from_outside() -> None:
    """A pod or node is inside already; nothing is guessed."""
    for who in ("default/web-1", "node/node-1", "control-plane"):
        with pytest.raises(BadOption, match=f"via: it says where traffic from outside arrives, and {who} is inside"):
            gates().trace(who, "svc/default/port:80", via="node-1")


def test_a_nodes_own_address_cannot_be_led_elsewhere() -> None:
    """What is sent to node-1 arrives at node-1."""
    with pytest.raises(BadOption, match=r"172.18.0.11 is an address of node-1: what is sent to it arrives there"):
        gates().trace("external", "172.18.0.11:30080", via="node-2")


# Families


def dual() -> Cluster:
    """The bookshop with both families; Services have one unless they ask for two."""
    return bookshop(families="dual-stack")


@pytest.mark.parametrize("family", [4, 6])
def test_the_family_can_be_chosen(family: int) -> None:
    """Of a pod's addresses, of a node's, of localhost."""
    for what in ("shop/web-1:8080", "node/node-1:10250", "localhost:8080"):
        trace = dual().trace("shop/web-0", what, family=family)
        assert trace.request.family == family and trace.client is Client.OPEN


def test_a_family_that_is_not_there_is_refused() -> None:
    """A Service with one family has no address of the other."""
    with pytest.raises(BadOption, match="Service shop/api: family: it has no IPv6 address"):
        dual().trace("shop/web-0", "svc/shop/api:80", family=6)


@pytest.mark.parametrize("family", [0, 5, 46])
def test_there_are_two_families(family: int) -> None:
    """Anything but 4 and 6 is no family."""
    with pytest.raises(BadOption, match=f"family: {family} is no address family: 4 or 6"):
        dual().trace("shop/web-0", "svc/shop/api:80", family=family)


def test_without_a_choice_it_is_a_family_that_both_have() -> None:
    """A client with an IPv6 address only asks a dual-stack Service at its IPv6 address."""
    both = service("web", "type: NodePort, ipFamilyPolicy: RequireDualStack")
    cluster = Cluster.load(both, pod("web-1"), **FAMILIES["dual-stack"])
    assert cluster.trace("external:2001:db8:9::1", "svc/default/web:80").request.family == 6
    assert cluster.trace("external:198.51.100.1", "svc/default/web:80").request.family == 4
    assert cluster.trace("external", "svc/default/web:80").request.family == 4


def test_an_ipv6_cluster_speaks_ipv6() -> None:
    """A name, a backend, an answer: all in the one family there is."""
    trace = bookshop(families="IPv6").trace("shop/web-0", "api:80")
    assert (trace.request.family, trace.client) == (6, Client.OPEN)
