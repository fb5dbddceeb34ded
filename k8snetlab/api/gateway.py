"""How does the web come in, when the one who owns the door and the one who owns the shop are two people?

An Ingress is door and way in one object. The Gateway API takes it apart, along the lines of who may decide what:

| object                       | says                                                                          |
|------------------------------|-------------------------------------------------------------------------------|
| GatewayClass                 | which controller makes doors of this kind (like IngressClass)                 |
| Gateway                      | a door: addresses, and `listeners` (port, protocol, host name, certificate)   |
| HTTPRoute, GRPCRoute         | which requests go to which Services: these two read requests                  |
| TLSRoute, TCPRoute, UDPRoute | the same for connections, by the name in the first TLS message or by the port |
| ReferenceGrant               | who from another namespace may name the objects of this one                   |

A route names its door (`parentRefs`), and the door says in each listener whose routes it lets in (`allowedRoutes`: of
its own namespace unless it says otherwise). Both must agree. Where both have host names, a route is attached with those
that are in both: `*.example.com` is every name below, of any number of labels, and not `example.com` itself.

The controller answers in `status`: the addresses of a Gateway, and for each parent of a route whether it is `Accepted`.
Until then the conditions are `Unknown`, as the API server writes them when an object is made.

All served versions of a kind have one form, so an object of `v1beta1` (or of `v1alpha2`, `v1alpha3` for the routes that
came later) is the same value as one of `v1`.

Not modelled: nothing routes yet; the objects are read, checked and printed, and their host names may become names of
the world's DNS (`dns.wanted`). ListenerSet and BackendTLSPolicy are kinds that are not read. Guide section 5.3; Gateway
API 1.6, channel standard. Fields of the experimental channel are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated, ClassVar, TypeAlias

from msgspec import UNSET, Meta

from k8snetlab.api.base import Kept, Object, Part, Port
from k8snetlab.api.selectors import LabelSelector

__all__ = [
    "AllowedRoutes", "BackendRef", "CORSFilter", "Condition", "ConnectionRule", "FilterType", "Fraction",
    "FromNamespaces", "GROUP", "GRPCBackendRef", "GRPCFilterType", "GRPCMethodMatch", "GRPCRoute", "GRPCRouteFilter",
    "GRPCRouteMatch", "GRPCRouteRule", "GRPCRouteSpec", "Gateway", "GatewayAddress", "GatewayClass",
    "GatewayClassSpec", "GatewayClassStatus", "GatewaySpec", "GatewayStatus", "HTTPBackendRef", "HTTPMethod",
    "HTTPPathMatch", "HTTPRoute", "HTTPRouteFilter", "HTTPRouteMatch", "HTTPRouteRule", "HTTPRouteSpec",
    "HTTPTimeouts", "HeaderFilter", "HeaderLine", "Listener", "ListenerTLS", "LocalObjectReference", "MirrorFilter",
    "ObjectReference", "ParentReference", "PathMatchType", "PathModifier", "PathModifierType", "PortRouteSpec",
    "RedirectFilter", "ReferenceGrant", "ReferenceGrantFrom", "ReferenceGrantSpec", "ReferenceGrantTo",
    "RewriteFilter", "Route", "RouteGroupKind", "RouteNamespaces", "RouteParentStatus", "RouteStatus", "Scheme",
    "TCPRoute", "TLSMode", "TLSRoute", "TLSRouteSpec", "UDPRoute", "ValueMatch", "ValueMatchType",
]  # fmt: skip

GROUP = "gateway.networking.k8s.io"
"""The API group of all these kinds."""


class Condition(Part, frozen=True, kw_only=True):
    """What a controller says of an object: `status` is True, False or Unknown."""

    type: str
    status: str
    observed_generation: int = 0
    reason: str = ""
    message: str = ""
    last_transition_time: str = ""


def _waiting(*types: str) -> tuple[Condition, ...]:
    """What stands there before any controller has looked."""
    return tuple(
        Condition(
            type=each,
            status="Unknown",
            reason="Pending",
            message="Waiting for controller",
            last_transition_time="1970-01-01T00:00:00Z",
        )
        for each in types
    )


def _says(conditions: Sequence[Condition], type: str) -> str:
    return next((each.status for each in conditions if each.type == type), "")


# --- GatewayClass -----------------------------------------------------------------------------------------------------


class GatewayClassSpec(Part, frozen=True, kw_only=True):
    """Which controller, with which parameters."""

    controller_name: str
    parameters_ref: Kept = UNSET
    description: str = ""


class GatewayClassStatus(Part, frozen=True, kw_only=True):
    """Whether the controller has taken the class."""

    conditions: tuple[Condition, ...] = _waiting("Accepted")
    supported_features: Kept = UNSET


class GatewayClass(Object, frozen=True, kw_only=True, tag="GatewayClass"):
    """Which controller makes the Gateways of this class."""

    kind: ClassVar[str] = "GatewayClass"
    api_version: ClassVar[str] = f"{GROUP}/v1"
    namespaced: ClassVar[bool] = False

    spec: GatewayClassSpec
    status: GatewayClassStatus = GatewayClassStatus()

    @property
    def accepted(self) -> str:
        """True, False or Unknown."""
        return _says(self.status.conditions, "Accepted")


# --- Gateway ----------------------------------------------------------------------------------------------------------


class TLSMode(StrEnum):
    """Who decrypts: the Gateway, or the Service behind it."""

    TERMINATE = "Terminate"
    PASSTHROUGH = "Passthrough"


class ObjectReference(Part, frozen=True, kw_only=True):
    """An object by group, kind and name; nothing said is a Secret of the own namespace."""

    group: str = ""
    kind: str = "Secret"
    name: str
    namespace: str = ""


class ListenerTLS(Part, frozen=True, kw_only=True):
    """What a listener does with TLS, and its certificates."""

    mode: TLSMode = TLSMode.TERMINATE
    certificate_refs: tuple[ObjectReference, ...] = ()
    options: Mapping[str, str] = {}


class FromNamespaces(StrEnum):
    """Whose routes a listener lets in."""

    ALL = "All"
    SELECTOR = "Selector"
    SAME = "Same"


class RouteNamespaces(Part, frozen=True, kw_only=True):
    """Whose routes: those of all namespaces, of some, or of the Gateway's own."""

    from_: FromNamespaces = FromNamespaces.SAME
    selector: LabelSelector | None = None


class RouteGroupKind(Part, frozen=True, kw_only=True):
    """A kind of route."""

    group: str = GROUP
    kind: str


class AllowedRoutes(Part, frozen=True, kw_only=True):
    """Which routes may be attached: by namespace, and by kind (none said: those of the protocol)."""

    namespaces: RouteNamespaces = RouteNamespaces()
    kinds: tuple[RouteGroupKind, ...] = ()


class Listener(Part, frozen=True, kw_only=True):
    """A port where a Gateway takes connections, for one host name, for all below one (`*.`), or for all (empty)."""

    name: str
    port: Port
    protocol: str
    hostname: str = ""
    tls: ListenerTLS | None = None
    allowed_routes: AllowedRoutes = AllowedRoutes()


class GatewayAddress(Part, frozen=True, kw_only=True):
    """An address that is wanted, or bound: of type IPAddress, Hostname, or one of the controller's own."""

    type: str = "IPAddress"
    value: str = ""


class GatewaySpec(Part, frozen=True, kw_only=True):
    """The class, the listeners, the addresses that are asked for."""

    gateway_class_name: str
    listeners: tuple[Listener, ...]
    addresses: tuple[GatewayAddress, ...] = ()
    infrastructure: Kept = UNSET
    allowed_listeners: Kept = UNSET
    tls: Kept = UNSET
    default_scope: Kept = UNSET


class GatewayStatus(Part, frozen=True, kw_only=True):
    """The addresses that are bound, and what the controller says."""

    addresses: tuple[GatewayAddress, ...] = ()
    conditions: tuple[Condition, ...] = _waiting("Accepted", "Programmed")
    listeners: Kept = UNSET
    attached_listener_sets: Kept = UNSET


class Gateway(Object, frozen=True, kw_only=True, tag="Gateway"):
    """A door into the cluster."""

    kind: ClassVar[str] = "Gateway"
    api_version: ClassVar[str] = f"{GROUP}/v1"

    spec: GatewaySpec
    status: GatewayStatus = GatewayStatus()

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where it takes connections, as its controller says."""
        return tuple(each.value for each in self.status.addresses)

    @property
    def programmed(self) -> str:
        """True, False or Unknown."""
        return _says(self.status.conditions, "Programmed")


# --- what routes have in common ---------------------------------------------------------------------------------------


class ParentReference(Part, frozen=True, kw_only=True):
    """The door a route wants: a Gateway, one listener of it (`section_name`), or those of one port."""

    group: str = GROUP
    kind: str = "Gateway"
    namespace: str = ""
    name: str
    section_name: str = ""
    port: Port | None = None

    def is_of(self, other: ParentReference, namespace: str) -> bool:
        """Whether both mean the same parent, seen from a route in this namespace."""
        mine = (self.group, self.kind, self.namespace or namespace, self.name)
        return mine == (other.group, other.kind, other.namespace or namespace, other.name)


class RouteParentStatus(Part, frozen=True, kw_only=True):
    """What the controller of a parent says of a route."""

    parent_ref: ParentReference
    controller_name: str = ""
    conditions: tuple[Condition, ...] = ()

    def accepts(self, generation: int) -> bool:
        """Whether the route is accepted as it is now."""
        found = next((each for each in self.conditions if each.type == "Accepted"), None)
        return found is not None and found.status == "True" and found.observed_generation == generation


class RouteStatus(Part, frozen=True, kw_only=True):
    """What each parent says."""

    parents: tuple[RouteParentStatus, ...] = ()


Weight = Annotated[int, Meta(ge=0, le=1_000_000)]


class BackendRef(Part, frozen=True, kw_only=True):
    """Where requests go: a Service, its port, and how large its share is beside the others'."""

    group: str = ""
    kind: str = "Service"
    name: str
    namespace: str = ""
    port: Port | None = None
    weight: Weight = 1


class ConnectionRule(Part, frozen=True, kw_only=True):
    """Where connections go; nothing is read of them."""

    name: str = ""
    backend_refs: tuple[BackendRef, ...]


# --- HTTPRoute --------------------------------------------------------------------------------------------------------


class PathMatchType(StrEnum):
    """How a path is compared: whole, by its elements, or by a regular expression of the controller's dialect."""

    EXACT = "Exact"
    PATH_PREFIX = "PathPrefix"
    REGULAR_EXPRESSION = "RegularExpression"


class ValueMatchType(StrEnum):
    """How a value is compared."""

    EXACT = "Exact"
    REGULAR_EXPRESSION = "RegularExpression"


class HTTPMethod(StrEnum):
    """The methods of RFC 9110, and PATCH."""

    GET = "GET"
    HEAD = "HEAD"
    POST = "POST"
    PUT = "PUT"
    DELETE = "DELETE"
    CONNECT = "CONNECT"
    OPTIONS = "OPTIONS"
    TRACE = "TRACE"
    PATCH = "PATCH"


class HTTPPathMatch(Part, frozen=True, kw_only=True):
    """A path; every path unless it says more."""

    type: PathMatchType = PathMatchType.PATH_PREFIX
    value: str = "/"


class ValueMatch(Part, frozen=True, kw_only=True):
    """A header line or a parameter of the query, by name and value."""

    type: ValueMatchType = ValueMatchType.EXACT
    name: str
    value: str


class HTTPRouteMatch(Part, frozen=True, kw_only=True):
    """Requests that are meant: everything said must be so."""

    path: HTTPPathMatch = HTTPPathMatch()
    headers: tuple[ValueMatch, ...] = ()
    query_params: tuple[ValueMatch, ...] = ()
    method: HTTPMethod | None = None


class HeaderLine(Part, frozen=True, kw_only=True):
    """A header line."""

    name: str
    value: str


class HeaderFilter(Part, frozen=True, kw_only=True):
    """Header lines that are set, added and removed."""

    set: tuple[HeaderLine, ...] = ()
    add: tuple[HeaderLine, ...] = ()
    remove: tuple[str, ...] = ()


class Fraction(Part, frozen=True, kw_only=True):
    """So many of so many."""

    numerator: int
    denominator: int = 100


class MirrorFilter(Part, frozen=True, kw_only=True):
    """A copy of each request, or of some, goes to another backend; its answer is thrown away."""

    backend_ref: BackendRef
    percent: Annotated[int, Meta(ge=0, le=100)] | None = None
    fraction: Fraction | None = None


class PathModifierType(StrEnum):
    """What of a path is replaced."""

    REPLACE_FULL_PATH = "ReplaceFullPath"
    REPLACE_PREFIX_MATCH = "ReplacePrefixMatch"


class PathModifier(Part, frozen=True, kw_only=True):
    """The path as it becomes: the whole, or the prefix that matched."""

    type: PathModifierType
    replace_full_path: str | None = None
    replace_prefix_match: str | None = None


class Scheme(StrEnum):
    """The scheme of a URL."""

    HTTP = "http"
    HTTPS = "https"


class RedirectFilter(Part, frozen=True, kw_only=True):
    """The client is told to ask elsewhere; what is not said stays as it was."""

    scheme: Scheme | None = None
    hostname: str = ""
    path: PathModifier | None = None
    port: Port | None = None
    status_code: int = 302


class RewriteFilter(Part, frozen=True, kw_only=True):
    """The backend sees another host name or path."""

    hostname: str = ""
    path: PathModifier | None = None


class CORSFilter(Part, frozen=True, kw_only=True):
    """Which pages of other origins may read the answers."""

    allow_origins: tuple[str, ...] = ()
    allow_credentials: bool | None = None
    allow_methods: tuple[str, ...] = ()
    allow_headers: tuple[str, ...] = ()
    expose_headers: tuple[str, ...] = ()
    max_age: Annotated[int, Meta(ge=1)] = 5


class LocalObjectReference(Part, frozen=True, kw_only=True):
    """An object of the route's own namespace."""

    group: str
    kind: str
    name: str


class FilterType(StrEnum):
    """What is done to a request or its answer."""

    REQUEST_HEADER_MODIFIER = "RequestHeaderModifier"
    RESPONSE_HEADER_MODIFIER = "ResponseHeaderModifier"
    REQUEST_MIRROR = "RequestMirror"
    REQUEST_REDIRECT = "RequestRedirect"
    URL_REWRITE = "URLRewrite"
    CORS = "CORS"
    EXTERNAL_AUTH = "ExternalAuth"
    EXTENSION_REF = "ExtensionRef"


class HTTPRouteFilter(Part, frozen=True, kw_only=True):
    """One thing that is done; the field of its type says how."""

    type: FilterType
    request_header_modifier: HeaderFilter | None = None
    response_header_modifier: HeaderFilter | None = None
    request_mirror: MirrorFilter | None = None
    request_redirect: RedirectFilter | None = None
    url_rewrite: RewriteFilter | None = None
    cors: CORSFilter | None = None
    external_auth: Kept = UNSET
    extension_ref: LocalObjectReference | None = None


class HTTPBackendRef(BackendRef, frozen=True, kw_only=True):
    """A backend, and what is done to the requests that go there."""

    filters: tuple[HTTPRouteFilter, ...] = ()


class HTTPTimeouts(Part, frozen=True, kw_only=True):
    """How long a request, and one try at a backend, may take (`10s`, `500ms`; `0s` for ever)."""

    request: str = ""
    backend_request: str = ""


class HTTPRouteRule(Part, frozen=True, kw_only=True):
    """Requests (one of `matches`), what is done to them, and where they go, by share."""

    name: str = ""
    matches: tuple[HTTPRouteMatch, ...] = (HTTPRouteMatch(),)
    filters: tuple[HTTPRouteFilter, ...] = ()
    backend_refs: tuple[HTTPBackendRef, ...] = ()
    timeouts: HTTPTimeouts | None = None
    retry: Kept = UNSET
    session_persistence: Kept = UNSET


class HTTPRouteSpec(Part, frozen=True, kw_only=True):
    """Doors, host names (none: those of the listeners) and rules."""

    parent_refs: tuple[ParentReference, ...] = ()
    hostnames: tuple[str, ...] = ()
    rules: tuple[HTTPRouteRule, ...] = (HTTPRouteRule(),)
    use_default_gateways: Kept = UNSET


class HTTPRoute(Object, frozen=True, kw_only=True, tag="HTTPRoute"):
    """Which HTTP requests go to which Services."""

    kind: ClassVar[str] = "HTTPRoute"
    api_version: ClassVar[str] = f"{GROUP}/v1"

    spec: HTTPRouteSpec = HTTPRouteSpec()
    status: RouteStatus = RouteStatus()


# --- GRPCRoute --------------------------------------------------------------------------------------------------------


class GRPCMethodMatch(Part, frozen=True, kw_only=True):
    """A service, a method, or both."""

    type: ValueMatchType = ValueMatchType.EXACT
    service: str = ""
    method: str = ""


class GRPCRouteMatch(Part, frozen=True, kw_only=True):
    """Calls that are meant: everything said must be so."""

    method: GRPCMethodMatch | None = None
    headers: tuple[ValueMatch, ...] = ()


class GRPCFilterType(StrEnum):
    """What is done to a call or its answer."""

    REQUEST_HEADER_MODIFIER = "RequestHeaderModifier"
    RESPONSE_HEADER_MODIFIER = "ResponseHeaderModifier"
    REQUEST_MIRROR = "RequestMirror"
    EXTENSION_REF = "ExtensionRef"


class GRPCRouteFilter(Part, frozen=True, kw_only=True):
    """One thing that is done; the field of its type says how."""

    type: GRPCFilterType
    request_header_modifier: HeaderFilter | None = None
    response_header_modifier: HeaderFilter | None = None
    request_mirror: MirrorFilter | None = None
    extension_ref: LocalObjectReference | None = None


class GRPCBackendRef(BackendRef, frozen=True, kw_only=True):
    """A backend, and what is done to the calls that go there."""

    filters: tuple[GRPCRouteFilter, ...] = ()


class GRPCRouteRule(Part, frozen=True, kw_only=True):
    """Calls (one of `matches`; none said is all), what is done to them, and where they go."""

    name: str = ""
    matches: tuple[GRPCRouteMatch, ...] = ()
    filters: tuple[GRPCRouteFilter, ...] = ()
    backend_refs: tuple[GRPCBackendRef, ...] = ()
    session_persistence: Kept = UNSET


class GRPCRouteSpec(Part, frozen=True, kw_only=True):
    """Doors, host names and rules."""

    parent_refs: tuple[ParentReference, ...] = ()
    hostnames: tuple[str, ...] = ()
    rules: tuple[GRPCRouteRule, ...] = ()
    use_default_gateways: Kept = UNSET


class GRPCRoute(Object, frozen=True, kw_only=True, tag="GRPCRoute"):
    """Which gRPC calls go to which Services."""

    kind: ClassVar[str] = "GRPCRoute"
    api_version: ClassVar[str] = f"{GROUP}/v1"

    spec: GRPCRouteSpec = GRPCRouteSpec()
    status: RouteStatus = RouteStatus()


# --- routes that read no requests -------------------------------------------------------------------------------------


class TLSRouteSpec(Part, frozen=True, kw_only=True):
    """Doors, names of the first TLS message (SNI), and where such connections go."""

    parent_refs: tuple[ParentReference, ...] = ()
    hostnames: tuple[str, ...] = ()
    rules: tuple[ConnectionRule, ...]
    use_default_gateways: Kept = UNSET


class TLSRoute(Object, frozen=True, kw_only=True, tag="TLSRoute"):
    """Which TLS connections go to which Services."""

    kind: ClassVar[str] = "TLSRoute"
    api_version: ClassVar[str] = f"{GROUP}/v1"

    spec: TLSRouteSpec
    status: RouteStatus = RouteStatus()


class PortRouteSpec(Part, frozen=True, kw_only=True):
    """Doors, and where everything goes that comes in there."""

    hostnames: ClassVar[tuple[str, ...]] = ()

    parent_refs: tuple[ParentReference, ...] = ()
    rules: tuple[ConnectionRule, ...]
    use_default_gateways: Kept = UNSET


class TCPRoute(Object, frozen=True, kw_only=True, tag="TCPRoute"):
    """All connections of a listener go to these Services."""

    kind: ClassVar[str] = "TCPRoute"
    api_version: ClassVar[str] = f"{GROUP}/v1"

    spec: PortRouteSpec
    status: RouteStatus = RouteStatus()


class UDPRoute(Object, frozen=True, kw_only=True, tag="UDPRoute"):
    """All datagrams of a listener go to these Services."""

    kind: ClassVar[str] = "UDPRoute"
    api_version: ClassVar[str] = f"{GROUP}/v1"

    spec: PortRouteSpec
    status: RouteStatus = RouteStatus()


Route: TypeAlias = HTTPRoute | GRPCRoute | TLSRoute | TCPRoute | UDPRoute
"""Any kind of route."""


# --- ReferenceGrant ---------------------------------------------------------------------------------------------------


class ReferenceGrantFrom(Part, frozen=True, kw_only=True):
    """Objects of a kind in another namespace."""

    group: str
    kind: str
    namespace: str


class ReferenceGrantTo(Part, frozen=True, kw_only=True):
    """Objects of a kind in this namespace, all or one."""

    group: str
    kind: str
    name: str = ""


class ReferenceGrantSpec(Part, frozen=True, kw_only=True):
    """Who may name what."""

    from_: tuple[ReferenceGrantFrom, ...]
    to: tuple[ReferenceGrantTo, ...]


class ReferenceGrant(Object, frozen=True, kw_only=True, tag="ReferenceGrant"):
    """Lets objects of other namespaces name objects of this one."""

    kind: ClassVar[str] = "ReferenceGrant"
    api_version: ClassVar[str] = f"{GROUP}/v1"

    spec: ReferenceGrantSpec
