"""External DNS: what objects want, what a zone has, and what follows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from k8snetlab import BadOption, Cluster
from k8snetlab.dns.external import Action, Memory, Owning, Plan, Policy, Registry
from k8snetlab.dns.wanted import ALPHA, PREFIX, Reading
from k8snetlab.dns.zone import RecordSet, Zone

HOSTNAME = f"{PREFIX}hostname"


def service(name: str, says: Mapping[str, str], **spec: Any) -> dict[str, Any]:
    """A Service with annotations; of type LoadBalancer with one port unless `spec` says otherwise."""
    more = {"type": "LoadBalancer", "selector": {"app": name}, "ports": [{"port": 80}], **spec}
    annotations = {f"{PREFIX}{key}": value for key, value in says.items()}
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "annotations": annotations}, "spec": more,
    }  # fmt: skip


def ingress(name: str, *hosts: str, at: tuple[str, ...] = ("203.0.113.7",), **says: str) -> dict[str, Any]:
    """An Ingress with a rule for each host, which its controller takes at these addresses or names."""
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    http = {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}
    taken = [{"ip": each} if each[0].isdigit() else {"hostname": each} for each in at]
    annotations = {f"{PREFIX}{key.replace('_', '-')}": value for key, value in says.items()}
    return {
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"rules": [{"host": host, "http": http} for host in hosts]},
        "status": {"loadBalancer": {"ingress": taken}},
    }  # fmt: skip


def gateway(*listeners: Mapping[str, Any], at: tuple[str, ...] = ("203.0.113.7",), **says: str) -> dict[str, Any]:
    """The Gateway `edge/door` with these listeners, which its controller has bound to these addresses or names."""
    bound = [{"value": each, "type": "IPAddress" if each[0].isdigit() else "Hostname"} for each in at]
    every = [
        {"name": f"l{index}", "port": 80 + index, "protocol": "HTTP", **each} for index, each in enumerate(listeners)
    ]
    annotations = {f"{PREFIX}{key}": value for key, value in says.items()}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": {"name": "door", "namespace": "edge", "annotations": annotations},
        "spec": {"gatewayClassName": "a", "listeners": every}, "status": {"addresses": bound},
    }  # fmt: skip


def route(
    *hosts: str, what: str = "HTTPRoute", accepted: str = "True", says: Mapping[str, str] | None = None, **parent: Any
) -> dict[str, Any]:
    """The route `edge/shop` for these hosts, of which the controller of the Gateway says whether it is accepted."""
    named = {"name": "door", **parent}
    rules = [{"backendRefs": [{"name": "web", "port": 80}]}]
    told = {"parentRef": named, "controllerName": "a/b", "conditions": [{"type": "Accepted", "status": accepted}]}
    annotations = {f"{PREFIX}{key}": value for key, value in (says or {}).items()}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": what,
        "metadata": {"name": "shop", "namespace": "edge", "annotations": annotations},
        "spec": {"parentRefs": [named], **({"hostnames": [*hosts]} if hosts else {}), "rules": rules},
        "status": {"parents": [told] if accepted else []},
    }  # fmt: skip


def elsewhere(made: dict[str, Any], namespace: str) -> dict[str, Any]:
    """The route in another namespace, with its parent where it was."""
    named = made["spec"]["parentRefs"][0] | {"namespace": "edge"}
    told = [{**each, "parentRef": named} for each in made["status"]["parents"]]
    metadata = {**made["metadata"], "namespace": namespace}
    return {**made, "metadata": metadata, "spec": {**made["spec"], "parentRefs": [named]}, "status": {"parents": told}}


def lets_in(which: str, **labels: str) -> dict[str, Any]:
    """A listener for routes of these namespaces."""
    return {
        "allowedRoutes": {"namespaces": {"from": which, **({"selector": {"matchLabels": labels}} if labels else {})}}
    }


def pod(name: str, app: str, **spec: Any) -> dict[str, Any]:
    """A pod with one container that listens on port 80."""
    containers = [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": app}},
        "spec": {"containers": containers, **spec},
    }  # fmt: skip


def of(*objects: Mapping[str, Any], **options: Any) -> Cluster:
    """A cluster whose load balancers have addresses of 198.51.100.0/24."""
    return Cluster.load(*objects, load_balancer="metallb-bgp", **options)


def owned(
    name: str, kind: str, *data: str, by: str = "default", ttl: int = 300, resource: str = "r"
) -> list[RecordSet]:
    """A record set and the TXT record that says whose it is."""
    said = f'"heritage=external-dns,external-dns/owner={by},external-dns/resource={resource}"'
    text = Owning().text_name(f"{name}.example.org.", kind)
    return [RecordSet(f"{name}.example.org.", kind, ttl, data), RecordSet(text, "TXT", ttl, (said,))]


def zone(*sets: RecordSet) -> Zone:
    """example.org with these record sets."""
    return Zone.of("example.org", sets)


def told(plan: Plan) -> list[str]:
    """The changes, a line each, without the zone's name."""
    return [str(each).replace(".example.org.", "") for each in plan.changes]


WISHES: Mapping[str, tuple[list[dict[str, Any]], list[str]]] = {
    "a load balancer, two names": (
        [service("web", {"hostname": "shop.example.org,www.example.org."})],
        ["create shop A 198.51.100.1", "create www A 198.51.100.1"],
    ),
    "without the annotation nothing": ([service("web", {})], []),
    "externalIPs first": (
        [service("web", {"hostname": "shop.example.org"}, externalIPs=["203.0.113.9", "2001:db8::9"])],
        ["create shop A 203.0.113.9", "create shop AAAA 2001:db8::9"],
    ),
    "a ClusterIP is nobody's business outside": (
        [service("web", {"hostname": "shop.example.org"}, type="ClusterIP")],
        [],
    ),
    "but for the annotation of its own": (
        [service("web", {"internal-hostname": "in.example.org"}, type="ClusterIP", clusterIP="10.96.7.7")],
        ["create in A 10.96.7.7"],
    ),
    "headless: every pod, and each with a hostname": (
        [
            service("web", {"hostname": "web.example.org"}, type="ClusterIP", clusterIP="None"),
            pod("a", "web", hostname="one", subdomain="web"),
            pod("b", "web"),
        ],
        ["create one.web A 10.244.2.2", "create web A 10.244.0.3 10.244.2.2"],
    ),
    "node ports lead to nodes": (
        [service("web", {"hostname": "shop.example.org"}, type="NodePort"), pod("a", "web")],
        ["create shop A 172.18.0.11 172.18.0.12 172.18.0.13"],
    ),
    "to those with a pod, if traffic is local": (
        [
            service("web", {"hostname": "shop.example.org"}, type="NodePort", externalTrafficPolicy="Local"),
            pod("a", "web", nodeName="node-2"),
        ],
        ["create shop A 172.18.0.12"],
    ),
    "an ExternalName is a CNAME": (
        [service("web", {"hostname": "shop.example.org"}, type="ExternalName", externalName="shop.example.net")],
        ["create shop CNAME shop.example.net."],
    ),
    "a target of one's own": (
        [service("web", {"hostname": "shop.example.org", "target": "cdn.example.net"})],
        ["create shop CNAME cdn.example.net."],
    ),
    "the hosts of an Ingress": (
        [ingress("front", "shop.example.org", "*.example.org")],
        ["create * A 203.0.113.7", "create shop A 203.0.113.7"],
    ),
    "its annotation too, or alone": (
        [ingress("front", "shop.example.org", hostname="www.example.org", ingress_hostname_source="annotation-only")],
        ["create www A 203.0.113.7"],
    ),
    "behind a name it is a CNAME": (
        [ingress("front", "shop.example.org", at=("lb.example.net",))],
        ["create shop CNAME lb.example.net."],
    ),
    "an Ingress without an address waits": ([ingress("front", "shop.example.org", at=())], []),
    "two Services of one name share it": (
        [service("web", {"hostname": "shop.example.org"}), service("api", {"hostname": "shop.example.org"})],
        ["create shop A 198.51.100.1 198.51.100.2"],
    ),
    "of two Ingresses one has it": (
        [ingress("b", "shop.example.org", at=("203.0.113.8",)), ingress("a", "shop.example.org", at=("203.0.113.9",))],
        ["create shop A 203.0.113.8"],
    ),
    "addresses win over a name": (
        [ingress("b", "shop.example.org"), ingress("a", "shop.example.org", at=("lb.example.net",))],
        ["create shop A 203.0.113.7"],
    ),
    "another zone is left alone": ([ingress("a", "shop.example.com")], []),
    "somebody else's controller": ([ingress("a", "shop.example.org", controller="mine")], []),
}


@pytest.mark.parametrize(("objects", "expected"), WISHES.values(), ids=WISHES)
def test_what_objects_want(objects: list[dict[str, Any]], expected: list[str]) -> None:
    """In an empty zone everything that leads somewhere is created."""
    assert told(of(*objects).external_dns("example.org")) == expected


SHOP = [ingress("front", "shop.example.org")]
ANY: dict[str, Any] = {}
WIDE = {"hostname": "*.example.org"}
TEAM = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team", "labels": {"door": "open"}}}

ROUTES: Mapping[str, tuple[list[dict[str, Any]], list[str], list[str]]] = {
    "the hostnames of a route lead to its Gateway": (
        [gateway(ANY, at=("203.0.113.7", "2001:db8::7")), route("shop.example.org", "*.example.org")],
        ["create * A 203.0.113.7", "create * AAAA 2001:db8::7", "create shop A 203.0.113.7",
         "create shop AAAA 2001:db8::7"],
        [],
    ),
    "the narrower of two names": (
        [gateway(WIDE), route("a.shop.example.org", "*.eu.example.org")],
        ["create *.eu A 203.0.113.7", "create a.shop A 203.0.113.7"], [],
    ),
    "of which either may be the listener's": (
        [gateway({"hostname": "shop.example.org"}), route("*.example.org")], ["create shop A 203.0.113.7"], [],
    ),
    "without hostnames those of the listeners": (
        [gateway(ANY, WIDE, {"hostname": "shop.example.org", "port": 443}), route()],
        ["create * A 203.0.113.7", "create shop A 203.0.113.7"], [],
    ),
    "or none at all": ([gateway(ANY), route()], [], ["no listener of Gateway edge/door says a host name"]),
    "a star is not the name above it": (
        [gateway(WIDE), route("example.org", "www.example.org")], ["create www A 203.0.113.7"],
        ["example.org.: no listener of Gateway edge/door has this name"],
    ),
    "the annotation of the route": (
        [gateway(WIDE), route("shop.example.org", says={"hostname": "www.example.org", "ttl": "60"})],
        ["create shop A 203.0.113.7", "create www A 203.0.113.7"], [],
    ),
    "alone": (
        [gateway(ANY), route("shop.example.org", says={
            "hostname": "www.example.org", "gateway-hostname-source": "annotation-only"})],
        ["create www A 203.0.113.7"], [],
    ),
    "or not at all": (
        [gateway(WIDE), route(says={"hostname": "www.example.org", "gateway-hostname-source": "defined-hosts-only"})],
        [], [],
    ),
    "a target of the Gateway": (
        [gateway(ANY, target="cdn.example.net"), route("shop.example.org")], ["create shop CNAME cdn.example.net."], [],
    ),
    "a Gateway behind a name": (
        [gateway(ANY, at=("lb.example.net",)), route("shop.example.org")], ["create shop CNAME lb.example.net."], [],
    ),
    "a Gateway without an address waits": (
        [gateway(ANY, at=()), route("shop.example.org")], [],
        ["shop.example.org.: its Gateway has no address yet"],
    ),
    "nobody has looked at the route": (
        [gateway(ANY), route("shop.example.org", accepted="")], [],
        ["no controller has accepted it: its status names no parent"],
    ),
    "it was not accepted": (
        [gateway(ANY), route("shop.example.org", accepted="False")], [],
        ["Gateway edge/door has not accepted it as it is now"],
    ),
    "there is no such Gateway": ([route("shop.example.org")], [], ["there is no Gateway edge/door"]),
    "its parent is a Service": (
        [gateway(ANY), route("shop.example.org", group="", kind="Service")], [],
        ["its parent is the Service edge/door: only a Gateway says addresses"],
    ),
    "one listener is meant": (
        [gateway({"hostname": "a.example.org"}, {"hostname": "b.example.org"}), route(sectionName="l1")],
        ["create b A 203.0.113.7"], [],
    ),
    "or those of one port": (
        [gateway({"hostname": "a.example.org"}, {"hostname": "b.example.org"}), route(port=80)],
        ["create a A 203.0.113.7"], [],
    ),
    "a listener lets in its own namespace": (
        [gateway(ANY), elsewhere(route("shop.example.org"), "team")], [],
        ["no listener of Gateway edge/door takes it: l0 lets in no routes of namespace team"],
    ),
    "unless it says all": (
        [gateway(lets_in("All")), elsewhere(route("shop.example.org"), "team")], ["create shop A 203.0.113.7"], [],
    ),
    "or some, by their labels": (
        [gateway(lets_in("Selector", door="open")), TEAM, elsewhere(route("shop.example.org"), "team")],
        ["create shop A 203.0.113.7"], [],
    ),
    "and not others": (
        [gateway(lets_in("Selector", door="shut")), TEAM, elsewhere(route("shop.example.org"), "team")], [],
        ["no listener of Gateway edge/door takes it: l0 lets in no routes of namespace team"],
    ),
    "kinds may be chosen": (
        [gateway({"allowedRoutes": {"kinds": [{"kind": "GRPCRoute"}]}}), route("shop.example.org")], [],
        ["no listener of Gateway edge/door takes it: l0 lets in no HTTPRoute"],
    ),
    "and each protocol has its own": (
        [gateway({"protocol": "UDP"}, {"protocol": "TCP"}), route("shop.example.org", what="GRPCRoute")], [],
        ["no listener of Gateway edge/door takes it: l0 speaks UDP; l1 speaks TCP"],
    ),
    "a port has a name by annotation": (
        [gateway({"protocol": "UDP"}), route(what="UDPRoute", says={"hostname": "game.example.org"})],
        ["create game A 203.0.113.7"], [],
    ),
    "somebody else's route": (
        [gateway(ANY), route("shop.example.org", says={"controller": "mine"})], [], ["it is for the controller 'mine'"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("objects", "expected", "why"), ROUTES.values(), ids=ROUTES)
def test_what_routes_want(objects: list[dict[str, Any]], expected: list[str], why: list[str]) -> None:
    """Where Gateway, controller and route agree, the route's names lead to the Gateway; else it is said why not."""
    plan = of(*objects).external_dns("example.org")
    assert told(plan) == expected
    assert [f"{each.name}: {each.why}".removeprefix(": ") for each in plan.left] == why


HAVE = owned("shop", "A", "192.0.2.1")
OTHER = owned("shop", "A", "192.0.2.1", by="blue")

PLANS: Mapping[str, tuple[list[dict[str, Any]], list[RecordSet], Owning, list[str]]] = {
    "ours is updated": (SHOP, HAVE, Owning(), ["update shop A 192.0.2.1 → 203.0.113.7"]),
    "ours is deleted when nobody wants it": ([], HAVE, Owning(), ["delete shop A 192.0.2.1"]),
    "a person's record is left alone": (SHOP, HAVE[:1], Owning(), []),
    "so is another owner's": (SHOP, OTHER, Owning(), []),
    "who says to be that owner has it": (SHOP, OTHER, Owning(owner="blue"), ["update shop A 192.0.2.1 → 203.0.113.7"]),
    "another owner's is not deleted either": ([], OTHER, Owning(), []),
    "without a registry everything is ours": (
        SHOP, [*HAVE[:1], RecordSet("b.example.org.", "A", 60, ("192.0.2.2",))], Owning(registry=Registry.NOOP),
        ["delete b A 192.0.2.2", "update shop A 192.0.2.1 → 203.0.113.7"],
    ),
    "upsert-only deletes nothing": ([], HAVE, Owning(policy=Policy.UPSERT_ONLY), []),
    "but updates": (SHOP, HAVE, Owning(policy=Policy.UPSERT_ONLY), ["update shop A 192.0.2.1 → 203.0.113.7"]),
    "create-only does not": (SHOP, HAVE, Owning(policy=Policy.CREATE_ONLY), []),
    "names outside of the domains are not looked after": ([], HAVE, Owning(domains=("eu.example.org",)), []),
    "nor those inside of the excluded": (SHOP, [], Owning(excluded=("shop.example.org",)), []),
    "another type is another record set": (
        [ingress("front", "shop.example.org", at=("lb.example.net",))], HAVE, Owning(),
        ["delete shop A 192.0.2.1", "create shop CNAME lb.example.net."],
    ),
    "which cannot be where nothing may be deleted": (
        [ingress("front", "shop.example.org", at=("lb.example.net",))], HAVE, Owning(policy=Policy.UPSERT_ONLY), [],
    ),
    "no second type beside another owner's": (
        [ingress("front", "shop.example.org", at=("203.0.113.7", "2001:db8::7"))],
        [*owned("shop", "A", "203.0.113.7", by="blue")], Owning(), [],
    ),
    "no CNAME beside a person's text": (
        [ingress("front", "shop.example.org", at=("lb.example.net",))],
        [RecordSet("shop.example.org.", "TXT", 60, ('"mine"',))], Owning(), [],
    ),
    "who has a name keeps it": (
        [ingress("b", "shop.example.org", at=("203.0.113.8",)), ingress("c", "shop.example.org", at=("203.0.113.9",))],
        owned("shop", "A", "203.0.113.9", resource="ingress/default/c"), Owning(), [],
    ),
    "a time to live is changed if one is said": (
        [ingress("front", "shop.example.org", at=("192.0.2.1",), ttl="1m")], HAVE, Owning(),
        ["update shop A 192.0.2.1"],
    ),
}  # fmt: skip


@pytest.mark.parametrize(("objects", "held", "owning", "expected"), PLANS.values(), ids=PLANS)
def test_what_is_done_in_a_zone(
    objects: list[dict[str, Any]], held: list[RecordSet], owning: Owning, expected: list[str]
) -> None:
    """Policy, ownership and domains; what is carried out leaves nothing to do."""
    cluster = of(*objects, service("idle", {}))
    provider = Memory(zone(*held))
    plan = cluster.external_dns(provider.zone(), owning)
    assert told(plan) == expected
    provider.apply(plan)
    assert not cluster.external_dns(provider.zone(), owning)


def test_what_is_left_alone_says_why() -> None:
    """Nothing is lost without a word: every object that wants something is done or named."""
    objects = (
        service("a", {"hostname": "a.example.org"}, type="ClusterIP"),
        service("b", {"ttl": "soon"}),
        ingress("c", "shop.example.org"),
        ingress("d", "d.example.com", at=()),
    )
    left = [str(each) for each in of(*objects).external_dns(zone(*OTHER)).left]
    assert left == [
        "ingress/default/c shop.example.org. A: the name belongs to the owner 'blue', for r",
        "ingress/default/d d.example.com.: no controller has written an address into its status",
        "service/default/a a.example.org.: a ClusterIP is not published: nobody outside of the cluster reaches it",
        "service/default/b: ttl 'soon' is no time from 1 second to 68 years (60, or 1m30s)",
    ]


def test_a_name_that_cannot_be_is_said() -> None:
    """A label of 64 characters is one too long."""
    (left,) = of(service("b", {"hostname": f"{'x' * 64}.example.org"})).external_dns("example.org").left
    assert (left.resource, left.name) == ("service/default/b", f"{'x' * 64}.example.org")
    assert "has 64 characters, 63 may be" in left.why


def test_each_version_reads_its_own_annotations() -> None:
    """The prefix changed with 0.22, and who has the other one is told."""
    old = service("web", {})
    old["metadata"]["annotations"] = {f"{ALPHA}hostname": "shop.example.org"}
    new = of(old).external_dns("example.org")
    assert not new and "is not read: annotations begin with external-dns.kubernetes.io/" in str(new.left[0])
    assert told(of(old).external_dns("example.org", reading=Reading(ALPHA))) == ["create shop A 198.51.100.1"]


def test_ownership_stands_beside_every_record() -> None:
    """One TXT record for each name and type, under a name of its own."""
    plan = of(*SHOP).external_dns("example.org", Owning(owner="green"))
    assert str(plan.diff) == (
        "+ a-shop.example.org.                 300 IN TXT   "
        '"heritage=external-dns,external-dns/owner=green,external-dns/resource=ingress/default/front"\n'
        "+ shop.example.org.                   300 IN A     203.0.113.7"
    )


@pytest.mark.parametrize(
    ("owning", "expected"),
    [
        (Owning(), "cname-*.example.org."),
        (Owning(wildcard="any"), "cname-any.example.org."),
        (Owning(prefix="own-"), "own-cname-*.example.org."),
        (Owning(suffix="-own"), "cname-*-own.example.org."),
        (Owning(prefix="%{record_type}.own."), "cname.own.*.example.org."),
    ],
)
def test_the_names_of_ownership(owning: Owning, expected: str) -> None:
    """The type stands in front, unless prefix or suffix have a place for it."""
    assert owning.text_name("*.example.org.", "CNAME") == expected


def test_two_owners_live_in_one_zone() -> None:
    """Each sees the other's records and leaves them; a name that both want belongs to the first."""
    blue, green = Owning(owner="blue"), Owning(owner="green")
    provider = Memory(zone())
    one = of(ingress("front", "shop.example.org", "blue.example.org"))
    other = of(ingress("front", "shop.example.org", "green.example.org", at=("203.0.113.8",)))
    provider.apply(one.external_dns(provider.zone(), blue))
    plan = other.external_dns(provider.zone(), green)
    assert told(plan) == ["create green A 203.0.113.8"]
    provider.apply(plan)
    gone = of(service("idle", {})).external_dns(provider.zone(), blue)
    assert [each.records.name for each in gone.of(Action.DELETE)] == ["blue.example.org.", "shop.example.org."]


def test_a_zone_file_comes_back_as_it_was() -> None:
    """What is printed can be read, whatever the types are."""
    text = "@ 3600 SOA ns hostmaster 1 60 60 600 60\n@ NS ns\nshop 60 A 192.0.2.1\n A 192.0.2.2\nmail MX 10 shop\n"
    read = Zone.parsed(text, "example.org")
    assert Zone.parsed(str(read), "example.org") == read
    assert read.at("shop.example.org") == (RecordSet("shop.example.org.", "A", 60, ("192.0.2.1", "192.0.2.2")),)


def test_what_is_no_zone_is_refused() -> None:
    """The file and the line, the name outside, the CNAME that does not stand alone, options that cannot be."""
    with pytest.raises(BadOption, match=r"org\.zone:2: zone: no zone file: unknown rdatatype"):
        Zone.parsed("shop A 192.0.2.1\nbad bad bad\n", "example.org", "org.zone")
    with pytest.raises(BadOption, match=r"shop\.example\.com\. is not in the zone example\.org\."):
        zone(RecordSet("shop.example.com.", "A", 60, ("192.0.2.1",)))
    with pytest.raises(BadOption, match="a name with a CNAME has nothing else, and this one has A, CNAME"):
        zone(*owned("shop", "A", "192.0.2.1"), *owned("shop", "CNAME", "x."))
    with pytest.raises(BadOption, match="a prefix or a suffix"):
        Owning(prefix="a", suffix="b")
    with pytest.raises(BadOption, match="needs a word for the owner"):
        Owning(owner="")
