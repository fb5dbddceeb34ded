"""Would the API server take this object of the Gateway API?

The rules are those of its definitions (limits, patterns, and the expressions that tie fields together). What only a
controller can judge, such as whether a Service is there or a certificate fits, is said by it in `status`, and no reason
to refuse the object.

Gateway API 1.6, channel standard.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from msgspec import UNSET

from k8snetlab.api.base import Object, kube_name
from k8snetlab.api.gateway import (
    BackendRef,
    FilterType,
    Gateway,
    GatewayClass,
    GatewaySpec,
    GRPCBackendRef,
    GRPCFilterType,
    GRPCRoute,
    GRPCRouteFilter,
    GRPCRouteRule,
    HTTPBackendRef,
    HTTPPathMatch,
    HTTPRoute,
    HTTPRouteFilter,
    HTTPRouteRule,
    Listener,
    ParentReference,
    PathMatchType,
    PathModifierType,
    ReferenceGrant,
    Route,
    TCPRoute,
    TLSMode,
    TLSRoute,
    UDPRoute,
)
from k8snetlab.api.syntax import Broken, duplicate, forbidden, invalid, is_address, is_label, is_subdomain, required

__all__ = ["gateway_rules"]

_CONTROLLER = re.compile(r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+")
_DURATION = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}")
_REDIRECTS = (301, 302, 303, 307, 308)
"""The answers that send a client elsewhere (RFC 9110, section 15.4)."""
_CLEAR = frozenset({"HTTP", "TCP", "UDP"})
_SPOILED = ("//", "/./", "/../", "%2f", "%2F", "#")
_HOST = "a DNS name, which may begin with '*.' and is no address"


def gateway_rules(made: Object) -> Broken:
    """Every rule that an object of the Gateway API breaks."""
    match made:
        case GatewayClass():
            domain, slash, path = made.spec.controller_name.partition("/")
            if not (slash and is_subdomain(domain) and _CONTROLLER.fullmatch(path)):
                why = "must be a domain and a path, like example.net/gateway-controller"
                yield invalid("spec.controllerName", made.spec.controller_name, why)
        case Gateway():
            yield from _gateway(made.spec)
        case HTTPRoute() | GRPCRoute():
            yield from _route(made, hostnames=16, rules=16)
            yield from _request_rules(made.spec.rules)
        case TLSRoute() | TCPRoute() | UDPRoute():
            yield from _route(made, hostnames=1024, rules=1)
            yield from _connection_rules(made)
        case ReferenceGrant():
            yield from _count("spec.from", made.spec.from_, 1, 16)
            yield from _count("spec.to", made.spec.to, 1, 16)
            for at, each in enumerate(made.spec.from_):
                if not is_label(each.namespace):
                    yield invalid(f"spec.from[{at}].namespace", each.namespace, "is no name of a namespace")


def _count(field: str, items: Sequence[object], least: int, most: int) -> Broken:
    if len(items) < least:
        yield required(field, "must have at least one item")
    if len(items) > most:
        yield invalid(field, len(items), f"must have at most {most} items")


def _host(field: str, value: str) -> Broken:
    if is_address(value) or not is_subdomain(value.removeprefix("*.")) or len(value) > 253:
        yield invalid(field, value, f"must be {_HOST}")


def _section(field: str, value: str) -> Broken:
    if not is_subdomain(value):
        yield invalid(field, value, "must be small letters, digits, '-' or '.', at most 253 characters")


# Gateways


def _gateway(spec: GatewaySpec) -> Broken:
    if not spec.gateway_class_name:
        yield required("spec.gatewayClassName")
    yield from _count("spec.listeners", spec.listeners, 1, 64)
    yield from duplicate("spec.listeners[{}].name", [each.name for each in spec.listeners])
    places = [(each.port, each.protocol, each.hostname) for each in spec.listeners]
    for at, place in enumerate(places):
        if place in places[:at]:
            why = "port, protocol and hostname together must differ from those of every other listener"
            yield invalid(f"spec.listeners[{at}]", list(place), why)
    for at, listener in enumerate(spec.listeners):
        yield from _listener(f"spec.listeners[{at}]", listener)
    yield from _count("spec.addresses", spec.addresses, 0, 16)
    for at, each in enumerate(spec.addresses):
        if each.type == "Hostname" and each.value:
            yield from _host(f"spec.addresses[{at}].value", each.value)
        elif each.type == "IPAddress" and each.value and not is_address(each.value):
            yield invalid(f"spec.addresses[{at}].value", each.value, "must be an IP address with type IPAddress")


def _listener(place: str, listener: Listener) -> Broken:
    yield from _section(f"{place}.name", listener.name)
    protocol, tls = listener.protocol.upper(), listener.tls
    if listener.hostname:
        yield from _host(f"{place}.hostname", listener.hostname)
        if protocol in ("TCP", "UDP"):
            yield forbidden(f"{place}.hostname", f"{protocol} knows no host names")
    if tls is not None and protocol in _CLEAR:
        yield forbidden(f"{place}.tls", f"a listener of protocol {protocol} has no TLS")
    if tls is None and protocol == "TLS":
        yield required(f"{place}.tls", "protocol TLS needs a mode")
    if tls is None:
        return
    if protocol == "HTTPS" and tls.mode is not TLSMode.TERMINATE:
        yield invalid(f"{place}.tls.mode", tls.mode, "must be Terminate with protocol HTTPS")
    if tls.mode is TLSMode.TERMINATE and not tls.certificate_refs and not tls.options:
        yield required(f"{place}.tls.certificateRefs", "who decrypts needs a certificate")


# Routes


def _route(made: Route, *, hostnames: int, rules: int) -> Broken:
    spec = made.spec
    yield from _count("spec.parentRefs", spec.parent_refs, 0, 32)
    yield from _parents(spec.parent_refs, made.namespace)
    if isinstance(made, TLSRoute):
        yield from _count("spec.hostnames", spec.hostnames, 1, hostnames)
    else:
        yield from _count("spec.hostnames", spec.hostnames, 0, hostnames)
    for at, name in enumerate(spec.hostnames):
        yield from _host(f"spec.hostnames[{at}]", name)
    yield from _count("spec.rules", spec.rules, 0, rules)
    yield from duplicate("spec.rules[{}].name", [each.name for each in spec.rules if each.name])


def _parents(parents: Sequence[ParentReference], namespace: str) -> Broken:
    for at, each in enumerate(parents):
        place = f"spec.parentRefs[{at}]"
        if not each.name:
            yield required(f"{place}.name")
        if each.section_name:
            yield from _section(f"{place}.sectionName", each.section_name)
        for other in parents[:at]:
            if not each.is_of(other, namespace):
                continue
            if (each.section_name, each.port) == (other.section_name, other.port):
                yield invalid(place, each.section_name, "sectionName must differ where a parent is named twice")
            elif bool(each.section_name) is not bool(other.section_name) and each.port == other.port:
                yield required(f"{place}.sectionName", "a parent that is named twice has one each time, or never")


def _request_rules(rules: Sequence[HTTPRouteRule | GRPCRouteRule]) -> Broken:
    for at, rule in enumerate(rules):
        place = f"spec.rules[{at}]"
        yield from _filters(place, rule.filters)
        yield from _backends(place, rule.backend_refs)
        yield from _calls(place, rule) if isinstance(rule, GRPCRouteRule) else _requests(place, rule)


def _backends(place: str, backends: Sequence[HTTPBackendRef | GRPCBackendRef]) -> Broken:
    yield from _count(f"{place}.backendRefs", backends, 0, 16)
    for at, backend in enumerate(backends):
        yield from _backend(f"{place}.backendRefs[{at}]", backend)
        yield from _filters(f"{place}.backendRefs[{at}]", backend.filters)


def _calls(place: str, rule: GRPCRouteRule) -> Broken:
    for at, match in enumerate(rule.matches):
        if match.method is not None and not (match.method.service or match.method.method):
            yield required(f"{place}.matches[{at}].method", "a service or a method")


def _requests(place: str, rule: HTTPRouteRule) -> Broken:
    if rule.backend_refs and any(each.type is FilterType.REQUEST_REDIRECT for each in rule.filters):
        yield forbidden(f"{place}.backendRefs", "who is sent elsewhere (RequestRedirect) comes to no backend")
    for at, match in enumerate(rule.matches):
        yield from _path(f"{place}.matches[{at}].path.value", match.path)
    for field in ("request", "backend_request"):
        said = getattr(rule.timeouts, field) if rule.timeouts else ""
        if said and not _DURATION.fullmatch(said):
            yield invalid(f"{place}.timeouts.{kube_name(field)}", said, "must be a time like 10s, 1m30s or 500ms")


def _path(field: str, path: HTTPPathMatch) -> Broken:
    if path.type is PathMatchType.REGULAR_EXPRESSION:
        return
    if not path.value.startswith("/"):
        yield invalid(field, path.value, "must begin with '/'")
    for each in _SPOILED:
        if each in path.value:
            yield invalid(field, path.value, f"must not contain {each!r}")
    if path.value.endswith(("/..", "/.")):
        yield invalid(field, path.value, "must not end with '/..' or '/.'")


_FIELDS: Mapping[str, str] = {each.value: each.name.lower() for each in (*FilterType, *GRPCFilterType)}
"""The field that belongs to each type of filter."""


def _filters(place: str, filters: Sequence[HTTPRouteFilter | GRPCRouteFilter]) -> Broken:
    for at, each in enumerate(filters):
        where, own = f"{place}.filters[{at}]", _FIELDS[each.type]
        for field in sorted(set(_FIELDS.values())):
            said = getattr(each, field, None) not in (None, UNSET)
            if said and field != own:
                yield forbidden(f"{where}.{kube_name(field)}", f"the type is {each.type}")
            if not said and field == own:
                yield required(f"{where}.{kube_name(field)}", f"the type is {each.type}")
        if each.request_mirror is not None:
            yield from _backend(f"{where}.requestMirror.backendRef", each.request_mirror.backend_ref)
        if isinstance(each, HTTPRouteFilter):
            yield from _modified(where, each)
    types = {str(each.type) for each in filters}
    if {"RequestRedirect", "URLRewrite"} <= types:
        yield forbidden(f"{place}.filters", "RequestRedirect and URLRewrite exclude each other")


def _modified(where: str, each: HTTPRouteFilter) -> Broken:
    """Answers, host names and paths that a filter writes."""
    redirect = each.request_redirect
    if redirect is not None and redirect.status_code not in _REDIRECTS:
        why = f"must be one of {', '.join(map(str, _REDIRECTS))}"
        yield invalid(f"{where}.requestRedirect.statusCode", redirect.status_code, why)
    for field, change in (("requestRedirect", each.request_redirect), ("urlRewrite", each.url_rewrite)):
        if change is None:
            continue
        if change.hostname and (change.hostname.startswith("*.") or not is_subdomain(change.hostname)):
            yield invalid(f"{where}.{field}.hostname", change.hostname, "must be a DNS name")
        if change.path is not None:
            full = change.path.type is PathModifierType.REPLACE_FULL_PATH
            own, other = ("replaceFullPath", "replacePrefixMatch")[:: 1 if full else -1]
            values = (change.path.replace_full_path, change.path.replace_prefix_match)[:: 1 if full else -1]
            if values[0] is None:
                yield required(f"{where}.{field}.path.{own}", f"the type is {change.path.type}")
            if values[1] is not None:
                yield forbidden(f"{where}.{field}.path.{other}", f"the type is {change.path.type}")


def _backend(place: str, backend: BackendRef) -> Broken:
    if not backend.name:
        yield required(f"{place}.name")
    if not backend.group and backend.kind == "Service" and backend.port is None:
        yield required(f"{place}.port", "a Service is reached at a port")


def _connection_rules(made: TLSRoute | TCPRoute | UDPRoute) -> Broken:
    if not made.spec.rules:
        yield required("spec.rules", "must have one item")
    for at, rule in enumerate(made.spec.rules):
        yield from _count(f"spec.rules[{at}].backendRefs", rule.backend_refs, 1, 16)
        for index, backend in enumerate(rule.backend_refs):
            yield from _backend(f"spec.rules[{at}].backendRefs[{index}]", backend)
