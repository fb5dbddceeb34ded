"""Which names a cluster has, and what they lead to."""

from __future__ import annotations

from functools import cache
from time import perf_counter

import pytest

from k8snetlab import api
from k8snetlab.cluster import Cluster
from k8snetlab.dns import Directory, Question, Rcode, Server, Surroundings, Zones, absolute, answered, corefile

TOWN = """
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: town}
spec:
  selector: {app: shop}
  ipFamilyPolicy: PreferDualStack
  ports: [{name: http, port: 80}, {name: q, port: 90, protocol: UDP}]
---
apiVersion: v1
kind: Service
metadata: {name: db, namespace: town}
spec: {clusterIP: None, selector: {app: db}, ports: [{name: sql, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: empty, namespace: town}
spec: {clusterIP: None, selector: {app: nobody}, ports: [{port: 1}]}
---
apiVersion: v1
kind: Service
metadata: {name: idle, namespace: town}
spec: {selector: {app: nobody}, ports: [{port: 1}]}
---
apiVersion: v1
kind: Service
metadata: {name: peers, namespace: town}
spec: {clusterIP: None, publishNotReadyAddresses: true, selector: {app: sick}, ports: [{name: sql, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: sick, namespace: town}
spec: {clusterIP: None, selector: {app: sick}, ports: [{name: sql, port: 5432}]}
---
apiVersion: v1
kind: Service
metadata: {name: portless, namespace: town}
spec: {clusterIP: None, selector: {app: db}}
---
apiVersion: v1
kind: Service
metadata: {name: near, namespace: town}
spec: {type: ExternalName, externalName: shop.town.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: far, namespace: town}
spec: {type: ExternalName, externalName: www.example.com}
---
apiVersion: v1
kind: Service
metadata: {name: round, namespace: town}
spec: {type: ExternalName, externalName: about.town.svc.cluster.local}
---
apiVersion: v1
kind: Service
metadata: {name: about, namespace: town}
spec: {type: ExternalName, externalName: round.town.svc.cluster.local}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db, namespace: town}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: db, image: db, ports: [{containerPort: 5432}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: shop, namespace: town, labels: {app: shop}}
spec: {hostname: front, subdomain: elsewhere, containers: [{name: shop, image: shop, ports: [{containerPort: 80}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: sick, namespace: town, labels: {app: sick}}
spec: {nodeName: node-1, containers: [{name: sick, image: sick, ports: [{containerPort: 5432}]}]}
status: {phase: Running, podIP: 10.244.0.77, conditions: [{type: Ready, status: "False"}]}
"""


@cache
def town() -> Cluster:
    """A dual-stack cluster with a Service of each shape."""
    return Cluster.load(TOWN, pod_cidr="10.244.0.0/16,fd00:10:244::/56", service_cidr="10.96.0.0/16,fd00:10:96::/112")


def directory() -> Directory:
    """What its name servers watch."""
    objects = town().objects
    return Directory(objects.services, objects.endpoint_slices, objects.namespaces, objects.pods)


@cache
def server(pods: str = "insecure", option: str = "") -> Server:
    """Its name server, which asks nobody else."""
    text = f".:53 {{\n kubernetes cluster.local in-addr.arpa ip6.arpa {{\n pods {pods}\n ttl 30\n {option}\n }}\n }}"
    own = (town().objects.pods_of("deploy/kube-system/coredns")[0].ip,)
    return Server(corefile(text), Surroundings(directory(), own))


def said(name: str, kind: str, at: Server | None = None) -> str:
    """The outcome in a word, or the data of the answers."""
    message = answered(at or server(), Question(absolute(name), kind, transport="TCP"))
    return " ".join(f"{each.type}:{each.data}" for each in message.answers) or message.said


def ip(pod: str) -> str:
    """The primary address of a pod."""
    return town().objects.pod(pod).ip


def filled(text: str) -> str:
    """A text with addresses in the place of `{shop}` (ClusterIP), `{shop6}`, `{idle}`, `{db-0}` and `{-shop}` (the
    pod's, with dashes).
    """
    objects = town().objects
    four, six = objects.service("town/shop").cluster_ips
    held = {"shop": four, "shop6": six, "idle": objects.service("town/idle").cluster_ips[0], "pod": ip("town/shop")}
    held |= {name: ip(f"town/{name}") for name in ("db-0", "db-1", "sick")}
    return text.format(**held, dashed=ip("town/shop").replace(".", "-"))


@pytest.mark.parametrize(
    ("name", "kind", "outcome"),
    [
        ("shop.town.svc.cluster.local", "A", "A:{shop}"),
        ("SHOP.Town.svc.cluster.LOCAL", "A", "A:{shop}"),
        ("shop.town.svc.cluster.local", "AAAA", "AAAA:{shop6}"),
        ("shop.town.svc.cluster.local", "MX", "NODATA"),
        ("shop.town.svc.cluster.local", "TXT", "NODATA"),
        ("shop.town.svc.cluster.local", "ANY", "NODATA"),
        ("idle.town.svc.cluster.local", "A", "A:{idle}"),
        ("idle.town.svc.cluster.local", "AAAA", "NODATA"),
        ("_http._tcp.shop.town.svc.cluster.local", "SRV", "SRV:0 50 80 shop.town.svc.cluster.local."),
        ("_http._udp.shop.town.svc.cluster.local", "SRV", "NXDOMAIN"),
        ("_q._udp.shop.town.svc.cluster.local", "A", "A:{shop}"),
        (
            "shop.town.svc.cluster.local",
            "SRV",
            "SRV:0 25 80 shop.town.svc.cluster.local. SRV:0 25 90 shop.town.svc.cluster.local.",
        ),
        ("db.town.svc.cluster.local", "A", "A:{db-0} A:{db-1}"),
        ("db-0.db.town.svc.cluster.local", "A", "A:{db-0}"),
        ("db-0.db.town.svc.cluster.local", "AAAA", "NODATA"),
        ("db-0.town.svc.cluster.local", "A", "NXDOMAIN"),
        (
            "_sql._tcp.db.town.svc.cluster.local",
            "SRV",
            "SRV:0 50 5432 db-0.db.town.svc.cluster.local. SRV:0 50 5432 db-1.db.town.svc.cluster.local.",
        ),
        ("portless.town.svc.cluster.local", "A", "A:{db-0} A:{db-1}"),
        ("portless.town.svc.cluster.local", "SRV", "NODATA"),
        ("empty.town.svc.cluster.local", "A", "NXDOMAIN"),
        ("sick.town.svc.cluster.local", "A", "NXDOMAIN"),
        ("peers.town.svc.cluster.local", "A", "A:{sick}"),
        ("front.shop.town.svc.cluster.local", "A", "NXDOMAIN"),
        ("{dashed}.shop.town.svc.cluster.local", "A", "A:{pod}"),
        (
            "near.town.svc.cluster.local",
            "A",
            "CNAME:shop.town.svc.cluster.local. A:{shop}",
        ),
        ("near.town.svc.cluster.local", "CNAME", "CNAME:shop.town.svc.cluster.local."),
        ("near.town.svc.cluster.local", "SRV", "NODATA"),
        ("far.town.svc.cluster.local", "A", "CNAME:www.example.com."),
        ("round.town.svc.cluster.local", "A", "NODATA"),
        ("town.svc.cluster.local", "A", "NODATA"),
        ("nowhere.svc.cluster.local", "A", "NXDOMAIN"),
        ("svc.cluster.local", "A", "NODATA"),
        ("cluster.local", "A", "NODATA"),
        ("cluster.local", "NS", "NS:kube-dns.kube-system.svc.cluster.local."),
        ("ns.dns.cluster.local", "A", "A:10.96.0.10"),
        ("dns-version.cluster.local", "TXT", 'TXT:"1.1.0"'),
        ("a.b.c.shop.town.svc.cluster.local", "A", "NXDOMAIN"),
        ("shop.town.cluster.local", "A", "NXDOMAIN"),
        ("1-2-3-4.town.pod.cluster.local", "A", "A:1.2.3.4"),
        ("fd00--7.town.pod.cluster.local", "AAAA", "AAAA:fd00::7"),
        ("words.town.pod.cluster.local", "A", "NXDOMAIN"),
        ("1-2-3-4.nowhere.pod.cluster.local", "A", "NXDOMAIN"),
        ("9.9.9.10.in-addr.arpa", "PTR", "NXDOMAIN"),
        ("10.0.96.10.in-addr.arpa", "PTR", "PTR:kube-dns.kube-system.svc.cluster.local."),
        ("www.example.com", "A", "SERVFAIL"),
    ],
)
def test_every_shape_of_name_has_its_answer(name: str, kind: str, outcome: str) -> None:
    """Service, endpoint, port, alias, namespace, pod, address: what is there, what has no data, what is not there."""
    assert said(filled(name), kind) == filled(outcome)


def test_an_address_leads_back_to_every_service_that_has_it() -> None:
    """A pod in two headless Services has two names: its hostname counts in the one that it calls its subdomain."""
    name = ".".join(reversed(ip("town/db-0").split("."))) + ".in-addr.arpa"
    assert said(name, "PTR").split() == [
        "PTR:db-0.db.town.svc.cluster.local.",
        f"PTR:{ip('town/db-0').replace('.', '-')}.portless.town.svc.cluster.local.",
    ]


def test_pods_have_records_only_if_that_is_said() -> None:
    """Disabled: none; verified: only addresses of pods in their own namespace."""
    own = f"{ip('town/shop').replace('.', '-')}.town.pod.cluster.local"
    other = own.replace(".town.", ".default.")
    assert [said(own, "A", server(mode)) for mode in ("disabled", "verified")] == ["NXDOMAIN", f"A:{ip('town/shop')}"]
    assert said(other, "A", server("verified")) == "NXDOMAIN"


def test_what_is_not_there_is_denied_by_the_zone() -> None:
    """The SOA record says who denies it, and for how long that may be remembered."""
    message = answered(server(), Question("nosuch.town.svc.cluster.local.", "A"))
    assert message.rcode is Rcode.NXDOMAIN
    assert [(each.name, each.type, each.ttl) for each in message.authority] == [("cluster.local.", "SOA", 30)]


@pytest.mark.parametrize(
    ("option", "name", "outcome"),
    [
        ("namespaces default", "shop.town.svc.cluster.local", "NXDOMAIN"),
        ("noendpoints", "db.town.svc.cluster.local", "NXDOMAIN"),
        ("ignore empty_service", "idle.town.svc.cluster.local", "NXDOMAIN"),
        ("endpoint_pod_names", "shop.shop.town.svc.cluster.local", "A:{pod}"),
    ],
)
def test_options_of_the_plugin_change_the_zone(option: str, name: str, outcome: str) -> None:
    """What is shown, and how endpoints without a hostname are called."""
    assert said(name, "A", server(option=option)) == filled(outcome)


def test_every_record_that_is_listed_is_answered() -> None:
    """The zone as a list and the zone as it is asked say the same."""
    zones = Zones(directory(), ("cluster.local.", "in-addr.arpa.", "ip6.arpa."), ttl=30)
    records = [each for each in zones.records() if each.type != "CNAME"]
    assert {each.type for each in records} == {"SOA", "TXT", "A", "AAAA", "SRV", "PTR"}
    for record in records:
        assert record in answered(server(), Question(record.name, record.type, transport="TCP")).answers


def test_a_large_zone_answers_at_once() -> None:
    """100,000 records: an answer is found, not searched for."""
    services = tuple(
        api.Service(
            metadata=api.ObjectMeta(name=f"s{at}", namespace="town"),
            spec=api.ServiceSpec(
                cluster_ip=f"10.{at >> 16}.{at >> 8 & 255}.{at & 255}", ports=(api.ServicePort(name="http", port=80),)
            ),
        )
        for at in range(33_334)  # an A, an SRV and a PTR record each
    )
    text = ".:53 {\n kubernetes cluster.local in-addr.arpa\n }"
    big = Server(corefile(text), Surroundings(Directory(services, (), (api.namespace_object("town"),))))
    _ = answered(big, Question("s1.town.svc.cluster.local.", "A"))
    took = []
    for at in range(0, 2000, 10):
        began = perf_counter()
        assert answered(big, Question(f"s{at}.town.svc.cluster.local.", "A")).answers
        took.append(perf_counter() - began)
    assert sorted(took)[len(took) // 2] < 300e-6  # 100 us on a machine that is not busy
