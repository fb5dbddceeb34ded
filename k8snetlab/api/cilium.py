"""What can Cilium be told that a NetworkPolicy cannot say?

A `CiliumNetworkPolicy` stands in a namespace and selects pods as a NetworkPolicy does. Beside that it

- denies (`ingressDeny`, `egressDeny`): a denial wins over every permission of every policy;
- means others by what they are (`fromEntities: [host, world]`), and not by address;
- reads HTTP (`toPorts[].rules.http`): which methods, paths and header lines pass.

Its words have meanings of their own. A missing `fromEndpoints` is no limit, an empty list means nobody, and `{}` in it
means the pods of the policy's own namespace. Other namespaces are named by the label
`k8s:io.kubernetes.pod.namespace`. A direction is isolated as soon as a rule, also one that denies, is about it
(`enableDefaultDeny` says otherwise).

Not modelled, and refused with a message, since a policy would mean something else without them: `toFQDNs` (an agent
reads DNS answers and allows the addresses in them), `toServices`, `icmps`, nodes and groups, `authentication`, TLS, and
rules about protocols other than HTTP; selectors by other sources of labels than `k8s` and `any`. Not modelled: policies
for the whole cluster and for nodes. Guide section 4.1; Cilium 1.19 (cilium.io/v2).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import ClassVar

from msgspec import UNSET

from k8snetlab.api.base import Kept, Object, Part, kube_name
from k8snetlab.api.selectors import LabelSelector, LabelSelectorRequirement, Operator
from k8snetlab.api.syntax import Broken, block_of, forbidden, invalid, is_port_name, required

__all__ = [
    "CiliumEgressRule", "CiliumIngressRule", "CiliumNetworkPolicy", "CiliumPolicyRule", "CiliumPorts",
    "CiliumRequirement", "CiliumSelector", "Entity", "HTTPRule", "cilium_policy_rules",
]  # fmt: skip

NAMESPACE = "io.kubernetes.pod.namespace"
"""The label of an identity that names its namespace."""


class CiliumRequirement(Part, frozen=True, kw_only=True):
    """An expression about a label, whose key may begin with the source of the label (`k8s:app`)."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()


class CiliumSelector(Part, frozen=True, kw_only=True):
    """Pods by the labels of their identity."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[CiliumRequirement, ...] = ()

    @property
    def keys(self) -> Iterator[tuple[str, str]]:
        """Every key with its place."""
        yield from ((f"matchLabels[{key}]", key) for key in self.match_labels)
        yield from ((f"matchExpressions[{at}].key", each.key) for at, each in enumerate(self.match_expressions))

    @property
    def plain(self) -> LabelSelector:
        """The selector without the sources of labels."""
        return LabelSelector(
            match_labels={_bare(key): value for key, value in self.match_labels.items()},
            match_expressions=tuple(
                LabelSelectorRequirement(key=_bare(each.key), operator=each.operator, values=each.values)
                for each in self.match_expressions
            ),
        )

    @property
    def names_a_namespace(self) -> bool:
        """Whether it says which namespaces are meant; otherwise it is the policy's own."""
        return any(_bare(key).startswith((NAMESPACE, "io.cilium.k8s.namespace.labels.")) for _, key in self.keys)


def _bare(key: str) -> str:
    return key.removeprefix("k8s:").removeprefix("any:")


class Entity(StrEnum):
    """Who somebody is, whatever his address."""

    ALL = "all"
    WORLD = "world"
    WORLD_IPV4 = "world-ipv4"
    WORLD_IPV6 = "world-ipv6"
    CLUSTER = "cluster"
    HOST = "host"
    REMOTE_NODE = "remote-node"
    KUBE_APISERVER = "kube-apiserver"
    INGRESS = "ingress"
    HEALTH = "health"
    INIT = "init"
    UNMANAGED = "unmanaged"
    NONE = "none"


class CIDRRule(Part, frozen=True, kw_only=True):
    """A block of addresses less some blocks inside it."""

    cidr: str
    except_: tuple[str, ...] = ()


class HTTPRule(Part, frozen=True, kw_only=True):
    """A kind of request: `method`, `path` and `host` are regular expressions for the whole text (empty: any), `headers`
    are lines `Name: value`, or names alone, that must be there.
    """

    method: str = ""
    path: str = ""
    host: str = ""
    headers: tuple[str, ...] = ()
    header_matches: Kept = UNSET


class CiliumPort(Part, frozen=True, kw_only=True):
    """A port: its number as a text, or its name; `0` for all of a protocol."""

    port: str
    end_port: int = 0
    protocol: str = "ANY"


class CiliumL7(Part, frozen=True, kw_only=True):
    """What is asked of the requests on a port; one that matches none is answered with 403."""

    http: tuple[HTTPRule, ...] = ()
    dns: Kept = UNSET
    kafka: Kept = UNSET
    l7: Kept = UNSET
    l7proto: Kept = UNSET


class CiliumPorts(Part, frozen=True, kw_only=True):
    """Ports, and what may be said on them."""

    ports: tuple[CiliumPort, ...] = ()
    rules: CiliumL7 | None = None
    terminating_tls: Kept = UNSET
    originating_tls: Kept = UNSET
    server_names: Kept = UNSET
    listener: Kept = UNSET


class CiliumIngressRule(Part, frozen=True, kw_only=True):
    """From whom, to which ports. What is not said is no limit; an empty list means nobody."""

    from_endpoints: tuple[CiliumSelector, ...] | None = None
    from_entities: tuple[Entity, ...] | None = None
    from_cidr: tuple[str, ...] | None = None
    from_cidr_set: tuple[CIDRRule, ...] | None = None
    to_ports: tuple[CiliumPorts, ...] = ()
    from_requires: Kept = UNSET
    from_nodes: Kept = UNSET
    from_groups: Kept = UNSET
    icmps: Kept = UNSET
    authentication: Kept = UNSET


class CiliumEgressRule(Part, frozen=True, kw_only=True):
    """To whom, at which ports. What is not said is no limit; an empty list means nobody."""

    to_endpoints: tuple[CiliumSelector, ...] | None = None
    to_entities: tuple[Entity, ...] | None = None
    to_cidr: tuple[str, ...] | None = None
    to_cidr_set: tuple[CIDRRule, ...] | None = None
    to_ports: tuple[CiliumPorts, ...] = ()
    to_requires: Kept = UNSET
    to_fqdns: Kept = UNSET
    to_services: Kept = UNSET
    to_nodes: Kept = UNSET
    to_groups: Kept = UNSET
    icmps: Kept = UNSET
    authentication: Kept = UNSET


class EnableDefaultDeny(Part, frozen=True, kw_only=True):
    """Whether the pods are isolated: as a rule in every direction that the policy has rules about."""

    ingress: bool | None = None
    egress: bool | None = None


class CiliumPolicyRule(Part, frozen=True, kw_only=True):
    """Which pods are meant, and what is allowed and denied them."""

    endpoint_selector: CiliumSelector | None = None
    ingress: tuple[CiliumIngressRule, ...] = ()
    ingress_deny: tuple[CiliumIngressRule, ...] = ()
    egress: tuple[CiliumEgressRule, ...] = ()
    egress_deny: tuple[CiliumEgressRule, ...] = ()
    enable_default_deny: EnableDefaultDeny = EnableDefaultDeny()
    description: Kept = UNSET
    labels: Kept = UNSET
    log: Kept = UNSET
    node_selector: Kept = UNSET


class CiliumNetworkPolicy(Object, frozen=True, kw_only=True, tag="CiliumNetworkPolicy"):
    """One rule (`spec`), or several (`specs`), for pods of one namespace."""

    kind: ClassVar[str] = "CiliumNetworkPolicy"
    api_version: ClassVar[str] = "cilium.io/v2"

    spec: CiliumPolicyRule | None = None
    specs: tuple[CiliumPolicyRule, ...] = ()
    status: Kept = UNSET

    @property
    def rules(self) -> tuple[CiliumPolicyRule, ...]:
        """All its rules."""
        return (*((self.spec,) if self.spec is not None else ()), *self.specs)


# --- what Cilium refuses ----------------------------------------------------------------------------------------------

MOST_PORTS = 40
PROTOCOLS = ("ANY", "TCP", "UDP", "SCTP")
HERE = "is Cilium's, but not modelled here, and the policy would mean something else without it"


def cilium_policy_rules(policy: CiliumNetworkPolicy) -> Broken:
    """Every rule that a CiliumNetworkPolicy breaks."""
    if not policy.rules:
        yield required("spec", "spec or specs must be said")
    places = (["spec"] if policy.spec is not None else []) + [f"specs[{at}]" for at in range(len(policy.specs))]
    for place, rule in zip(places, policy.rules, strict=True):
        yield from _rule(place, policy, rule)


def _rule(place: str, policy: CiliumNetworkPolicy, rule: CiliumPolicyRule) -> Broken:
    yield from _unmodelled(place, rule, ("node_selector",))
    if rule.endpoint_selector is None:
        yield required(f"{place}.endpointSelector")
    else:
        yield from _selector(f"{place}.endpointSelector", rule.endpoint_selector)
        said = rule.endpoint_selector.plain.match_labels.get(NAMESPACE, policy.namespace)
        if said != policy.namespace:
            yield invalid(f"{place}.endpointSelector", said, f"the policy stands in namespace {policy.namespace}")
    for field in ("ingress", "ingress_deny", "egress", "egress_deny"):
        name = field.replace("_deny", "Deny")
        for at, each in enumerate(getattr(rule, field)):
            yield from _side(f"{place}.{name}[{at}]", each, denies=field.endswith("_deny"))


def _side(place: str, rule: CiliumIngressRule | CiliumEgressRule, *, denies: bool) -> Broken:
    way = "from" if isinstance(rule, CiliumIngressRule) else "to"
    ingress = ("from_requires", "from_nodes", "from_groups", "icmps", "authentication")
    egress = ("to_requires", "to_fqdns", "to_services", "to_nodes", "to_groups", "icmps", "authentication")
    yield from _unmodelled(place, rule, ingress if way == "from" else egress)
    for at, selector in enumerate(getattr(rule, f"{way}_endpoints") or ()):
        yield from _selector(f"{place}.{way}Endpoints[{at}]", selector)
    for at, cidr in enumerate(getattr(rule, f"{way}_cidr") or ()):
        yield from _block(f"{place}.{way}CIDR[{at}]", cidr)
    for at, said in enumerate(getattr(rule, f"{way}_cidr_set") or ()):
        yield from _block(f"{place}.{way}CIDRSet[{at}].cidr", said.cidr)
        for index, hole in enumerate(said.except_):
            yield from _hole(f"{place}.{way}CIDRSet[{at}].except[{index}]", hole, said.cidr)
    for at, ports in enumerate(rule.to_ports):
        yield from _ports(f"{place}.toPorts[{at}]", ports, denies=denies)


def _selector(place: str, selector: CiliumSelector) -> Broken:
    for field, key in selector.keys:
        source, colon, _ = key.partition(":")
        if colon and source not in ("k8s", "any"):
            yield forbidden(f"{place}.{field}", f"the source {source!r} {HERE}")
    for at, each in enumerate(selector.match_expressions):
        wants = each.operator in (Operator.IN, Operator.NOT_IN)
        if wants is not bool(each.values):
            why = "must be specified" if wants else "may not be specified"
            yield invalid(f"{place}.matchExpressions[{at}].values", list(each.values), f"{why} with {each.operator}")


def _block(field: str, value: str) -> Broken:
    if block_of(value) is None:
        yield invalid(field, value, "must be an address or a block of addresses")


def _hole(field: str, value: str, of: str) -> Broken:
    yield from _block(field, value)
    outer, inner = block_of(of), block_of(value)
    if (
        outer is not None
        and inner is not None
        and not (
            inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]
        )
    ):
        yield invalid(field, value, f"must be inside {of}")


def _ports(place: str, ports: CiliumPorts, *, denies: bool) -> Broken:
    yield from _unmodelled(place, ports, ("terminating_tls", "originating_tls", "server_names", "listener"))
    if len(ports.ports) > MOST_PORTS:
        yield invalid(f"{place}.ports", len(ports.ports), f"must have at most {MOST_PORTS} items")
    for at, port in enumerate(ports.ports):
        yield from _port(f"{place}.ports[{at}]", port, reads=ports.rules is not None)
    if ports.rules is None:
        return
    if denies:
        yield forbidden(f"{place}.rules", "a rule that denies cannot read requests")
    if not ports.ports:
        yield required(f"{place}.ports", "rules about requests need a port")
    yield from _unmodelled(f"{place}.rules", ports.rules, ("dns", "kafka", "l7", "l7proto"))
    for at, rule in enumerate(ports.rules.http):
        yield from _http(f"{place}.rules.http[{at}]", rule)


def _port(place: str, port: CiliumPort, *, reads: bool) -> Broken:
    if port.protocol not in PROTOCOLS:
        yield invalid(f"{place}.protocol", port.protocol, f"must be one of {', '.join(PROTOCOLS)}")
    elif reads and port.protocol != "TCP":
        yield invalid(f"{place}.protocol", port.protocol, "rules about requests need TCP")
    if not port.port.isdecimal():
        if not is_port_name(port.port):
            yield invalid(f"{place}.port", port.port, "must be a number or the name of a port")
        if port.end_port:
            yield invalid(f"{place}.endPort", port.end_port, "a name has no range")
        return
    if int(port.port) > 65535:
        yield invalid(f"{place}.port", port.port, "must be at most 65535")
    if port.end_port and not max(int(port.port), 1) <= port.end_port <= 65535:
        yield invalid(f"{place}.endPort", port.end_port, "must be from `port` to 65535")
    if reads and int(port.port) == 0:
        yield invalid(f"{place}.port", port.port, "rules about requests need a port")


def _http(place: str, rule: HTTPRule) -> Broken:
    yield from _unmodelled(place, rule, ("header_matches",))
    for field in ("method", "path", "host"):
        value = getattr(rule, field)
        try:
            re.compile(value)
        except re.error as error:
            yield invalid(f"{place}.{field}", value, f"is no regular expression: {error}")
    for at, line in enumerate(rule.headers):
        if not line.partition(":")[0].strip():
            yield invalid(f"{place}.headers[{at}]", line, "must be `Name: value` or a name")


def _unmodelled(place: str, part: Part, fields: Iterable[str]) -> Broken:
    """Fields that are known and cannot be passed over."""
    for field in fields:
        if getattr(part, field) not in (UNSET, None):
            yield forbidden(f"{place}.{kube_name(field)}", HERE)
