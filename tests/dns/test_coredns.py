"""CoreDNS, plugin by plugin."""

from __future__ import annotations

import random

import pytest

from k8snetlab import api
from k8snetlab.dns import (
    Directory,
    Lost,
    Message,
    Query,
    Question,
    Rcode,
    Record,
    Reply,
    Server,
    Surroundings,
    answered,
    corefile,
)


def service(name: str, address: str, **spec: object) -> api.Service:
    """A Service in the namespace shop."""
    return api.Service(
        metadata=api.ObjectMeta(name=name, namespace="shop"),
        spec=api.ServiceSpec(cluster_ip=address, ports=(api.ServicePort(name="http", port=80),)),
    )


def pod(name: str, address: str) -> api.Pod:
    """A running pod in the namespace shop."""
    return api.Pod(
        metadata=api.ObjectMeta(name=name, namespace="shop"),
        spec=api.PodSpec(containers=(api.Container(name="c"),), node_name="node-1"),
        status=api.PodStatus(phase=api.PodPhase.RUNNING, pod_ip=address),
    )


DIRECTORY = Directory(
    (service("web", "10.96.0.80"), service("db", "10.96.0.54")),
    (),
    (api.namespace_object("shop"),),
    (pod("client", "10.244.1.7"),),
)

KUBERNETES = "kubernetes cluster.local in-addr.arpa {\n fallthrough in-addr.arpa\n pods verified\n }"


class Outside:
    """Name servers elsewhere: they know one name, and count what they are asked."""

    def __init__(self, *, silent: bool = False) -> None:
        self.silent = silent
        self.asked: list[Query] = []

    def __call__(self, query: Query) -> Reply:
        self.asked.append(query)
        if self.silent:
            return Lost.TIMEOUT
        if query.name.lower() == "www.example.com.":
            return Message(answers=(Record(query.name, "A", 300, "203.0.113.10"),))
        return Message(Rcode.NXDOMAIN, authority=(Record(".", "SOA", 900, "a. b. 1 2 3 4 60"),))


def server(*lines: str, zone: str = ".") -> Server:
    """A name server with these lines in its one block."""
    text = "\n".join(lines)
    return Server(corefile(f"{zone} {{\n{text}\n}}"), Surroundings(DIRECTORY, ("10.244.0.2",), ("198.51.100.53",)))


def said(at: Server, name: str, kind: str = "A", outside: Outside | None = None) -> str:
    """The outcome in a word, or the data of the answers."""
    message = answered(at, Question(name, kind, "10.244.1.7"), outside or Outside())
    return " ".join(each.data for each in message.answers) or message.said


def test_names_of_the_cluster_stay_inside_and_others_go_out() -> None:
    """`forward` is asked only what `kubernetes` has no zone for, or hands on."""
    outside = Outside()
    at = server(KUBERNETES, "forward . /etc/resolv.conf")
    assert said(at, "web.shop.svc.cluster.local.", outside=outside) == "10.96.0.80"
    assert said(at, "no.shop.svc.cluster.local.", outside=outside) == "NXDOMAIN"
    assert not outside.asked
    assert said(at, "www.example.com.", outside=outside) == "203.0.113.10"
    assert said(at, "7.7.7.10.in-addr.arpa.", "PTR", outside) == "NXDOMAIN"
    assert [(each.server, each.name) for each in outside.asked] == [
        ("198.51.100.53", "www.example.com."),
        ("198.51.100.53", "7.7.7.10.in-addr.arpa."),
    ]


def test_a_zone_that_no_block_has_is_refused() -> None:
    """And a question behind the last plugin is a failure."""
    at = server(KUBERNETES, zone="cluster.local")
    assert said(at, "www.example.com.") == "REFUSED"
    assert said(server("errors"), "www.example.com.") == "SERVFAIL"


def test_the_longest_zone_takes_the_question() -> None:
    """Whatever the order of the blocks."""
    text = ". {\n template ANY ANY {\n rcode NXDOMAIN\n }\n }\n example.com {\n forward . 198.51.100.9\n }\n"
    at = Server(corefile(text), Surroundings(DIRECTORY))
    assert said(at, "www.example.com.") == "203.0.113.10"
    assert said(at, "www.example.org.") == "NXDOMAIN"


def test_a_cache_asks_once_and_counts_down() -> None:
    """Thirty seconds at most, whatever the records say; absence for as long as its SOA record says."""
    outside = Outside()
    at = server("cache 30", "forward . /etc/resolv.conf")
    ttls = []
    for now in (0.0, 10.0, 29.0, 31.0):
        at.now = now
        ttls.append(answered(at, Question("www.example.com.", "A"), outside).answers[0].ttl)
    assert (ttls, len(outside.asked)) == ([30, 20, 1, 30], 2)
    assert [said(at, "no.example.com.", outside=outside) for _ in range(3)] == ["NXDOMAIN"] * 3
    assert len(outside.asked) == 3


def test_a_cache_may_leave_a_zone_out() -> None:
    """As kubeadm's Corefile does with the cluster's own names."""
    outside = Outside()
    at = server("cache 30 {\n disable success example.com\n }", "forward . /etc/resolv.conf")
    assert [said(at, "www.example.com.", outside=outside) for _ in range(2)] == ["203.0.113.10"] * 2
    assert len(outside.asked) == 2


def test_lines_of_hosts_are_answered_and_the_rest_handed_on() -> None:
    """Without `fallthrough` a name that has no line is a failure."""
    lines = "203.0.113.5 api.example.com"
    at = server(f"hosts {{\n {lines}\n fallthrough\n }}", "forward . /etc/resolv.conf")
    assert [said(at, "API.example.com."), said(at, "www.example.com.")] == ["203.0.113.5", "203.0.113.10"]
    assert [said(at, "api.example.com.", "AAAA"), said(at, "5.113.0.203.in-addr.arpa.", "PTR")] == [
        "NODATA",
        "api.example.com.",
    ]
    assert said(server(f"hosts {{\n {lines}\n }}", "forward . /etc/resolv.conf"), "www.example.com.") == "SERVFAIL"


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("rewrite name shop.example.com web.shop.svc.cluster.local", "shop.example.com."),
        ("rewrite name suffix .shop.example.com .shop.svc.cluster.local", "web.shop.example.com."),
        ("rewrite name prefix old- we", "old-b.shop.svc.cluster.local."),
        ("rewrite name substring wob web", "wob.shop.svc.cluster.local."),
        (r"rewrite name regex (.*)\.in\.(.*)\.example {1}.{2}.svc.cluster.local", "web.in.shop.example."),
        ("rewrite continue name a.example b.example\nrewrite name b.example web.shop.svc.cluster.local", "a.example."),
    ],
)
def test_another_name_is_asked_for(line: str, name: str) -> None:
    """Each way that `rewrite` finds names."""
    assert said(server(line, KUBERNETES), name) == "10.96.0.80"


def test_records_have_their_old_name_back_only_if_that_is_said() -> None:
    """A resolver that compares names takes nothing from an answer about another one."""
    words = "rewrite name shop.example.com web.shop.svc.cluster.local"
    names = [
        answered(server(line, KUBERNETES), Question("shop.example.com.", "A")).answers[0].name
        for line in (words, f"{words} answer auto")
    ]
    assert names == ["web.shop.svc.cluster.local.", "shop.example.com."]


def test_only_the_first_rewrite_that_fits_counts() -> None:
    """Unless it says `continue`."""
    at = server("rewrite name a.example b.example", "rewrite name b.example web.shop.svc.cluster.local", KUBERNETES)
    assert said(at, "a.example.") == "SERVFAIL"
    assert said(server("rewrite type AAAA A", KUBERNETES), "web.shop.svc.cluster.local.", "AAAA") == "10.96.0.80"


def test_a_template_answers_for_a_whole_zone() -> None:
    """With a code, or with records."""
    at = server(
        'template IN A wild.example {\n match ^a\n answer "{{ .Name }} 60 IN A 192.0.2.1"\n fallthrough\n }',
        "template IN AAAA . {\n rcode NOERROR\n }",
        "forward . /etc/resolv.conf",
    )
    assert [said(at, "any.wild.example."), said(at, "b.wild.example."), said(at, "www.example.com.", "AAAA")] == [
        "192.0.2.1",
        "NXDOMAIN",
        "NODATA",
    ]


def test_autopath_walks_the_search_list_for_a_pod() -> None:
    """One question instead of four: the answer stands behind a CNAME. Only pods that are verified have a list."""
    outside = Outside()
    at = server("autopath @kubernetes", KUBERNETES, "forward . /etc/resolv.conf")
    assert said(at, "www.example.com.shop.svc.cluster.local.", outside=outside) == "www.example.com. 203.0.113.10"
    unknown = answered(at, Question("www.example.com.shop.svc.cluster.local.", "A", "10.9.9.9"), outside)
    assert unknown.rcode is Rcode.NXDOMAIN


def test_a_silent_upstream_is_asked_until_the_time_is_over() -> None:
    """Two seconds each, five in all; by TCP where that is forced."""
    outside = Outside(silent=True)
    assert said(server("forward . 192.0.2.1 {\n force_tcp\n }"), "www.example.com.", outside=outside) == "SERVFAIL"
    assert [(each.transport, each.timeout) for each in outside.asked] == [("TCP", 2.0)] * 3


def test_a_large_answer_is_cut_for_udp_only() -> None:
    """The server knows what the question allows."""
    lines = "\n".join(f"10.0.{at}.1 many.example" for at in range(60))
    at = server(f"hosts {{\n{lines}\n}}")
    sizes = [
        len(answered(at, Question("many.example.", "A", transport=transport, size=size)).answers)
        for transport, size in (("UDP", 512), ("UDP", 1232), ("TCP", 512))
    ]
    assert sizes[0] < sizes[1] == sizes[2] == 60


def test_addresses_come_in_another_order_each_time() -> None:
    """That is what `loadbalance` does; the same chance gives the same order."""
    text = ". {\n loadbalance\n hosts {\n" + "\n".join(f"10.0.0.{at} m.example" for at in range(9)) + "\n }\n }"

    def orders(seed: int) -> list[str]:
        at = Server(corefile(text), Surroundings(), random.Random(seed))
        return [said(at, "m.example.") for _ in range(3)]

    assert orders(1) == orders(1)
    assert len(set(orders(1))) == 3


def test_an_alias_to_the_world_is_followed_outside() -> None:
    """ExternalName: the CNAME, and what the world says of the other name; nothing more if it says nothing."""
    far = api.Service(
        metadata=api.ObjectMeta(name="far", namespace="shop"),
        spec=api.ServiceSpec(type=api.ServiceType.EXTERNAL_NAME, external_name="www.example.com"),
    )
    around = Surroundings(Directory((far,), (), (api.namespace_object("shop"),)), (), ("198.51.100.53",))
    at = Server(corefile(f". {{\n{KUBERNETES}\nforward . /etc/resolv.conf\n}}"), around)
    assert said(at, "far.shop.svc.cluster.local.") == "www.example.com. 203.0.113.10"
    assert said(at, "far.shop.svc.cluster.local.", outside=Outside(silent=True)) == "www.example.com."
