"""Which names do the objects of a cluster want in the world's DNS?

external-dns reads Services, Ingresses and the routes of the Gateway API. An Ingress wants the hosts of its rules and of
its certificates, and they lead where its controller takes requests (`status.loadBalancer`). A Service wants nothing by
itself: the annotation `hostname` (several: with commas) says names, and its type says where they lead:

| type           | leads to                                                                                        |
|----------------|-------------------------------------------------------------------------------------------------|
| LoadBalancer   | its `externalIPs` if it has any, else the addresses and names of its load balancer              |
| ClusterIP      | nothing, but for the annotation `internal-hostname` (or with `publish_internal`): its ClusterIPs |
| headless       | its ready endpoints; a pod with a hostname has `HOSTNAME.` in front of the name as well           |
| NodePort       | the nodes' ExternalIPs, or InternalIPs where no node has one (annotation `access` chooses); those |
|                | with an endpoint alone under `externalTrafficPolicy: Local`; and SRV records for its ports        |
| ExternalName   | the other name (CNAME)                                                                          |

A route wants its hostnames and those of the annotation; one without hostnames takes those of the listeners. They lead
to the addresses of the Gateway (`status.addresses`) if three agree: the route names the Gateway as a parent, the
Gateway's controller has accepted the route as it is now (`status.parents`), and a listener takes such routes. That one
must be meant (`sectionName`, `port`), speak the route's protocol, let in routes of that namespace and kind
(`allowedRoutes`), and share a host name: `*.example.org` and `shop.example.org` share the second.

Annotations of all: `target` (leads there instead, with commas; that of a route stands at its Gateway), `ttl` (seconds,
or 1m30s), `controller` (anything but `dns-controller` is for somebody else). `ingress-hostname-source`, and for a
route `gateway-hostname-source`, choose among the names: `annotation-only` or `defined-hosts-only`. All begin with
`external-dns.kubernetes.io/` from version 0.22 on, and with `external-dns.alpha.kubernetes.io/` before; a version reads
one of them. What is wanted but leads nowhere, or cannot be read, is left out, and it is said why.

Names that several Services want, with the same type of record, lead to all of them. With Ingresses and routes there is
one winner (`external`).

Not modelled: ListenerSets (external-dns reads them if it is told to), templates of names, set identifiers and what else
is for one provider alone, CRDs. Guide section 5.5; external-dns 0.22.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING, cast

import msgspec

from k8snetlab import api
from k8snetlab.dns.messages import absolute
from k8snetlab.errors import BadOption

if TYPE_CHECKING:
    from k8snetlab.api.gateway import AllowedRoutes, Gateway, Listener, ParentReference, Route, RouteParentStatus

__all__ = ["ALPHA", "PREFIX", "Doors", "LeftOut", "Reading", "Wanted", "Wish", "wanted"]

PREFIX = "external-dns.kubernetes.io/"
"""How annotations begin, from version 0.22 on."""

ALPHA = "external-dns.alpha.kubernetes.io/"
"""How they began before."""

OURS = "dns-controller"


class Wish(msgspec.Struct, frozen=True, order=True):
    """A name and type that an object wants, and where it shall lead. `ttl` 0: it does not say. `resource` is like
    `service/shop/web`.
    """

    name: str
    type: str
    targets: tuple[str, ...]
    ttl: int = 0
    resource: str = ""


class LeftOut(msgspec.Struct, frozen=True, order=True):
    """An object, or a name it wants, for which nothing is done: why."""

    resource: str
    why: str
    name: str = ""

    def __str__(self) -> str:
        return f"{self.resource}{f' {self.name}' if self.name else ''}: {self.why}"


class Wanted(msgspec.Struct, frozen=True):
    """All wishes, and what is left out."""

    wishes: tuple[Wish, ...]
    left: tuple[LeftOut, ...] = ()


class Reading(msgspec.Struct, frozen=True):
    """How objects are read: `prefix` of annotations, and whether ClusterIPs are published for the annotation
    `hostname`.
    """

    prefix: str = PREFIX
    publish_internal: bool = False


_PROTOCOLS: Mapping[str, tuple[str, ...]] = {
    "HTTPRoute": ("HTTP", "HTTPS"),
    "GRPCRoute": ("HTTP", "HTTPS"),
    "TLSRoute": ("TLS",),
    "TCPRoute": ("TCP", "TLS"),
    "UDPRoute": ("UDP",),
}
"""The kinds of routes, and what a listener speaks that takes them."""


class Doors(msgspec.Struct, frozen=True):
    """Gateways by `namespace/name`, the routes that want in, and the labels of the namespaces these stand in."""

    gateways: Mapping[str, Gateway] = {}
    routes: tuple[Route, ...] = ()
    labels: Mapping[str, Mapping[str, str]] = {}

    @classmethod
    def of(cls, objects: Iterable[api.Object]) -> Doors:
        """Those among the objects of a cluster."""
        found: dict[str, list[api.Object]] = {kind: [] for kind in ("Gateway", "Namespace", *_PROTOCOLS)}
        for each in objects:
            if each.kind in found:
                found[each.kind].append(each)
        routes = [each for kind in _PROTOCOLS for each in sorted(found[kind], key=lambda each: each.key)]
        return cls(
            {each.key: cast("Gateway", each) for each in found["Gateway"]},
            tuple(cast("Route", each) for each in routes),
            {each.name: each.labels for each in found["Namespace"]},
        )


def wanted(
    services: Iterable[api.Service],
    ingresses: Iterable[api.Ingress],
    slices: Iterable[api.EndpointSlice],
    nodes: Sequence[api.Node],
    reading: Reading,
    doors: Doors | None = None,
) -> Wanted:
    """What these objects want, in order."""
    left: list[LeftOut] = []
    by_service: dict[str, list[api.Endpoint]] = {}
    for each in slices:
        by_service.setdefault(f"{each.namespace}/{each.service_name}", []).extend(each.endpoints)
    found: dict[tuple[str, str], Wish] = {}
    for service in sorted(services, key=lambda each: each.key):
        for wish in _of_service(service, by_service.get(service.key, ()), nodes, reading, left):
            held = found.get((wish.name, wish.type))
            found[wish.name, wish.type] = wish if held is None else _merged(held, wish)
    in_order = sorted(ingresses, key=lambda each: each.key)
    others = [wish for each in in_order for wish in _of_ingress(each, reading, left)]
    if doors is not None:
        others += (wish for each in doors.routes for wish in _of_route(each, doors, reading, left))
    return Wanted(tuple(sorted([*found.values(), *others])), tuple(sorted(left)))


def _merged(one: Wish, other: Wish) -> Wish:
    return msgspec.structs.replace(one, targets=_ordered((*one.targets, *other.targets)))


def _ordered(targets: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(set(targets)))


# Services


def _of_service(
    service: api.Service,
    endpoints: Sequence[api.Endpoint],
    nodes: Sequence[api.Node],
    reading: Reading,
    left: list[LeftOut],
) -> Iterator[Wish]:
    said = _Said(f"service/{service.key}", service.annotations, reading.prefix, left)
    if not said.is_ours():
        return
    for name in said.names("internal-hostname"):
        yield from said.wishes(name, _ordered(service.cluster_ips), "it has no ClusterIP")
    names = tuple(said.names("hostname"))
    given = said.targets()
    for name in names:
        if given:
            yield from said.wishes(name, given, "")
        elif service.headless:
            yield from _of_endpoints(name, service, endpoints, said)
        elif service.spec.type is api.ServiceType.NODE_PORT:
            yield from _of_node_ports(name, service, endpoints, nodes, said)
        else:
            yield from said.wishes(name, *_leads(service, reading))


def _leads(service: api.Service, reading: Reading) -> tuple[tuple[str, ...], str]:
    """Where a Service leads from outside, or why nowhere."""
    match service.spec.type:
        case api.ServiceType.LOAD_BALANCER:
            balanced = tuple(each.ip or each.hostname for each in service.load_balancer)
            return _ordered(service.spec.external_ips or balanced), "its load balancer has no address yet"
        case api.ServiceType.EXTERNAL_NAME:
            return _ordered(service.spec.external_ips or (service.spec.external_name,)), ""
    own = service.cluster_ips if reading.publish_internal else ()
    return _ordered(own), "a ClusterIP is not published: nobody outside of the cluster reaches it"


def _of_endpoints(name: str, service: api.Service, endpoints: Sequence[api.Endpoint], said: _Said) -> Iterator[Wish]:
    """A headless Service: the name has every ready endpoint, and each with a hostname has a name of its own."""
    ready = [each for each in endpoints if each.ready or service.spec.publish_not_ready_addresses]
    yield from said.wishes(name, _ordered(each.address for each in ready), "it has no ready endpoint")
    for hostname in sorted({each.hostname for each in ready if each.hostname}):
        own = _ordered(each.address for each in ready if each.hostname == hostname)
        yield from said.wishes(f"{hostname}.{name}", own, "")


def _of_node_ports(
    name: str, service: api.Service, endpoints: Sequence[api.Endpoint], nodes: Sequence[api.Node], said: _Said
) -> Iterator[Wish]:
    """A Service by its node ports: the nodes that take its traffic, and where its ports are."""
    if service.spec.external_traffic_policy is api.TrafficPolicy.LOCAL:
        there = {each.node_name for each in endpoints if each.ready}
        nodes = [node for node in nodes if node.name in there]
    public = _ordered(address for node in nodes for address in node.external_addresses)
    private = _ordered(address for node in nodes for address in node.addresses)
    access = said.value("access")
    if access not in ("", "public", "private"):
        said.leave(f"access is public or private, not {access!r}", name)
        return
    chosen = {"public": public, "private": private}.get(access, public or private)
    made = tuple(said.wishes(name, chosen, "no node has such an address"))
    yield from made
    if made:
        for port in service.spec.ports:
            if port.node_port:
                label = f"_{port.name or service.name}._{port.protocol.lower()}"
                target = f"0 50 {port.node_port} {made[0].name}"
                yield Wish(f"{label}.{made[0].name}", "SRV", (target,), said.ttl, said.resource)


# Ingresses


def _of_ingress(ingress: api.Ingress, reading: Reading, left: list[LeftOut]) -> Iterator[Wish]:
    said = _Said(f"ingress/{ingress.key}", ingress.annotations, reading.prefix, left)
    if not said.is_ours():
        return
    which = said.value("ingress-hostname-source")
    hosts = [rule.host for rule in ingress.spec.rules if rule.host]
    hosts += [host for each in ingress.spec.tls for host in each.hosts if host]
    defined = () if which == "annotation-only" else said.checked(hosts)
    named = () if which == "defined-hosts-only" else said.names("hostname")
    balanced = _ordered(each.ip or each.hostname for each in ingress.status.load_balancer.ingress)
    for name in dict.fromkeys((*defined, *named)):
        yield from said.wishes(name, said.targets() or balanced, "no controller has written an address into its status")


# Routes of the Gateway API


def _of_route(route: Route, doors: Doors, reading: Reading, left: list[LeftOut]) -> Iterator[Wish]:
    said = _Said(f"{route.kind.lower()}/{route.key}", route.annotations, reading.prefix, left)
    if not said.is_ours():
        return
    names = _route_names(route, said)
    if names and not route.status.parents:
        said.leave("no controller has accepted it: its status names no parent")
    targets: dict[str, list[str]] = {}
    lost = dict.fromkeys(names)
    asked = []
    for parent in route.status.parents if names else ():
        gateway, why = _door(route, parent, doors)
        if gateway is None:
            said.leave(why)
            continue
        listeners = _open(route, parent.parent_ref, gateway, doors, said)
        asked += [gateway.ref] if listeners else []
        leads = _Said(f"gateway/{gateway.key}", gateway.annotations, reading.prefix, left).targets()
        for name, host in _agreed(names, listeners):
            targets.setdefault(host, []).extend(leads or gateway.addresses)
            lost.pop(name, None)
    for name in lost:
        if asked and (name or not targets):
            said.leave(f"no listener of {' or '.join(asked)} {'has this name' if name else 'says a host name'}", name)
    for host, found in sorted(targets.items()):
        yield from said.wishes(host, _ordered(found), "its Gateway has no address yet")


def _agreed(names: Iterable[str], listeners: Sequence[Listener]) -> Iterator[tuple[str, str]]:
    """Names of a route, each with what it shares with a listener."""
    for name in names:
        for listener in listeners:
            host = _shared(absolute(listener.hostname).lower() if listener.hostname else "", name)
            if host:
                yield name, host


def _route_names(route: Route, said: _Said) -> tuple[str, ...]:
    """The names a route wants; the empty one is whatever a listener says."""
    defined, which = tuple(said.checked(route.spec.hostnames)), said.value("gateway-hostname-source").lower()
    if which == "defined-hosts-only":
        return defined
    named = tuple(said.names("hostname"))
    if which == "annotation-only":
        return named
    if which:
        said.leave(f"gateway-hostname-source is annotation-only or defined-hosts-only, not {which!r}")
    return tuple(dict.fromkeys((*(defined if route.spec.hostnames else ("",)), *named)))


def _door(route: Route, parent: RouteParentStatus, doors: Doors) -> tuple[Gateway | None, str]:
    """The Gateway that has accepted a route, or why there is none."""
    named = parent.parent_ref
    key = f"{named.namespace or route.namespace}/{named.name}"
    if not any(named.is_of(each, route.namespace) for each in route.spec.parent_refs):
        return None, f"its status is about {named.kind} {key}, which is no parent of it any more"
    if (named.group, named.kind) != ("gateway.networking.k8s.io", "Gateway"):
        return None, f"its parent is the {named.kind} {key}: only a Gateway says addresses"
    if key not in doors.gateways:
        return None, f"there is no Gateway {key}"
    if not parent.accepts(route.metadata.generation):
        return None, f"Gateway {key} has not accepted it as it is now"
    return doors.gateways[key], ""


def _open(route: Route, parent: ParentReference, gateway: Gateway, doors: Doors, said: _Said) -> list[Listener]:
    """The listeners that take a route; if none does, it is said of each why."""
    why = {each.name: _closed(route, parent, gateway, each, doors) for each in gateway.spec.listeners}
    found = [each for each in gateway.spec.listeners if not why[each.name]]
    if not found:
        told = "; ".join(f"{name} {reason}" for name, reason in why.items())
        said.leave(f"no listener of {gateway.ref} takes it: {told}")
    return found


def _closed(route: Route, parent: ParentReference, gateway: Gateway, listener: Listener, doors: Doors) -> str:
    """Why a listener does not take a route, or nothing."""
    if parent.section_name not in ("", listener.name):
        return f"is not the section {parent.section_name}"
    if listener.protocol not in _PROTOCOLS[route.kind]:
        return f"speaks {listener.protocol}"
    if parent.port not in (None, listener.port):
        return f"is at port {listener.port}"
    if not _lets_in(listener.allowed_routes, route, gateway, doors):
        return f"lets in no routes of namespace {route.namespace}"
    kinds = {(each.group, each.kind) for each in listener.allowed_routes.kinds}
    if kinds and ("gateway.networking.k8s.io", route.kind) not in kinds:
        return f"lets in no {route.kind}"
    return ""


def _lets_in(allowed: AllowedRoutes, route: Route, gateway: Gateway, doors: Doors) -> bool:
    """Whether routes of that namespace are let in. A selector that is not there selects nothing."""
    match str(allowed.namespaces.from_):
        case "All":
            return True
        case "Same":
            return route.namespace == gateway.namespace
    selector = allowed.namespaces.selector
    return selector is not None and selector.matches(doors.labels.get(route.namespace, {}))


def _shared(one: str, other: str) -> str:
    """The narrower of two names, of which the wider may be a wildcard or empty (any); nothing if they share none.

    >>> _shared("*.example.org.", "shop.example.org."), _shared("*.example.org.", "example.org.")
    ('shop.example.org.', '')
    """
    if not one or not other or one == other:
        return one or other
    wide, narrow = sorted((one, other), key=lambda name: (len(name), not name.startswith("*.")))
    return narrow if wide.startswith("*.") and narrow.endswith(wide[1:]) else ""


# Annotations


class _Said:
    """What the annotations of one object say; what cannot be read is noted in `left`."""

    def __init__(self, resource: str, annotations: Mapping[str, str], prefix: str, left: list[LeftOut]) -> None:
        self.resource = resource
        self.left = left
        self._said = {key.removeprefix(prefix): value for key, value in annotations.items() if key.startswith(prefix)}
        other = ALPHA if prefix == PREFIX else PREFIX
        unread = sorted(key for key in annotations if key.startswith(other))
        if unread:
            self.leave(f"{', '.join(unread)} is not read: annotations begin with {prefix} here")
        self.ttl = self._ttl()

    def leave(self, why: str, name: str = "") -> None:
        self.left.append(LeftOut(self.resource, why, name))

    def value(self, of: str) -> str:
        return self._said.get(of, "").strip()

    def is_ours(self) -> bool:
        controller = self.value("controller")
        if controller in ("", OURS):
            return True
        self.leave(f"it is for the controller {controller!r}")
        return False

    def targets(self) -> tuple[str, ...]:
        """What `target` says."""
        return _ordered(self._listed("target"))

    def names(self, of: str) -> Iterator[str]:
        """The names of an annotation that can be names."""
        return self.checked(self._listed(of))

    def checked(self, names: Iterable[str]) -> Iterator[str]:
        for name in names:
            try:
                yield absolute(name).lower()
            except BadOption as error:
                self.leave("; ".join(problem.message for problem in error.problems), name)

    def wishes(self, name: str, targets: Sequence[str], why: str) -> Iterator[Wish]:
        """A record of each type that the targets are of; none: left out, and why."""
        if not targets:
            self.leave(why, name)
        by_type: dict[str, list[str]] = {}
        for target in targets:
            kind = _type(target)
            by_type.setdefault(kind, []).extend((target,) if kind != "CNAME" else self.checked((target,)))
        for kind, held in sorted(by_type.items()):
            if held:
                yield Wish(name, kind, tuple(held), self.ttl, self.resource)

    def _listed(self, of: str) -> list[str]:
        return [each.strip() for each in self.value(of).split(",") if each.strip()]

    def _ttl(self) -> int:
        said = self.value("ttl")
        if not said:
            return 0
        seconds = _seconds(said)
        if not seconds or seconds >= 1 << 31:
            self.leave(f"ttl {said!r} is no time from 1 second to 68 years (60, or 1m30s)")
            return 0
        return seconds


def _type(target: str) -> str:
    try:
        return "A" if ip_address(target).version == 4 else "AAAA"
    except ValueError:
        return "CNAME"


_UNITS = {"h": 3600, "m": 60, "s": 1}
_DURATION = re.compile(r"(\d+[hms])+")


def _seconds(text: str) -> int:
    """Seconds of a number or of a duration as Go writes it; 0 for anything else.

    >>> _seconds("60"), _seconds("1m30s"), _seconds("soon")
    (60, 90, 0)
    """
    if text.isascii() and text.isdigit():
        return int(text)
    if not _DURATION.fullmatch(text):
        return 0
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([hms])", text))
