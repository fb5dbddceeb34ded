"""What does every Kubernetes object look like?

An object says its `kind`, carries `metadata` and, mostly, a `spec` (what is wanted) and a `status` (what is). Here
are the pieces that all kinds share: how a field is spelled, the two kinds of values (`Part`, `Object`), constrained
texts and numbers, and the way back to plain data.

Three choices run through the room:

- A field that is not of the real API is an error. Fields that matter to networking are typed; the others are declared
  as `Kept`: they are accepted, kept and printed, and never read.
- What the API server would fill in is filled in when a value is made (`protocol: TCP`, `targetPort: 80`), so that a
  reader never asks "was it set?".
- `None` and empty mean "not said". They are not printed.

Not modelled: API versions that Kubernetes 1.37 no longer serves, custom resources, server-side apply. Guide section
1.1; Kubernetes API conventions.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Annotated, ClassVar, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Meta

__all__ = [
    "DEFAULT_NAMESPACE",
    "IntOrString",
    "Kept",
    "KindT",
    "LabelKey",
    "LabelValue",
    "Labels",
    "Object",
    "ObjectMeta",
    "OwnerReference",
    "Part",
    "Path",
    "Port",
    "kube_name",
    "spelled",
    "to_dict",
]

DEFAULT_NAMESPACE = "default"

# Words in capitals where they do not begin a name: clusterIP, podCIDRs, providerID, setHostnameAsFQDN.
_CAPITALS = {
    "ip": "IP", "ips": "IPs", "cidr": "CIDR", "cidrs": "CIDRs", "id": "ID", "ipc": "IPC", "pid": "PID", "fqdn": "FQDN",
    "fqdns": "FQDNs", "tls": "TLS",
}  # fmt: skip


def kube_name(field: str) -> str:
    """The API's spelling of a field: `kube_name("cluster_ips") == "clusterIPs"`; `from_` is `from`."""
    first, *rest = field.rstrip("_").split("_")
    return first + "".join(_CAPITALS.get(word, word.capitalize()) for word in rest)


Kept: TypeAlias = object
"""A field of the real API that is accepted, kept and printed, and never read. Its default is `UNSET`."""

Port = Annotated[int, Meta(ge=1, le=65535)]
IntOrString = Annotated[int, Meta(ge=0, le=65535)] | str
LabelKey = Annotated[
    str,
    Meta(
        pattern=r"\A(?![-_.])(?:[-A-Za-z0-9_.]{1,63}|[-a-z0-9.]{1,253}(?<![-.])/(?![-_.])[-A-Za-z0-9_.]{1,63})(?<![-_.])\Z",
        description="a label key: [prefix/]name, where the name has at most 63 letters, digits, '-', '_' or '.', "
        "begins and ends with a letter or digit, and the prefix is a DNS name",
    ),
]
LabelValue = Annotated[
    str,
    Meta(
        pattern=r"\A(?![-_.])[-A-Za-z0-9_.]{0,63}(?<![-_.])\Z",
        description="a label value: at most 63 letters, digits, '-', '_' or '.', beginning and ending with a letter or "
        "digit, or empty",
    ),
]
Labels = Mapping[LabelKey, LabelValue]


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename=kube_name, gc=False):
    """A piece of an object, such as a port or a selector: frozen, equal by value, strict about its fields.

    Plain data has no cycles, so the garbage collector need not look through the many thousands of them.
    """


class OwnerReference(Part, frozen=True, kw_only=True):
    """Who made this object, and goes on looking after it when `controller` is true."""

    api_version: str
    kind: str
    name: str
    uid: str = ""
    controller: bool = False
    block_owner_deletion: Kept = UNSET


class ObjectMeta(Part, frozen=True, kw_only=True):
    """Name, namespace, labels and history of an object. Times are RFC 3339 texts, as the API writes them."""

    name: str = ""
    generate_name: str = ""
    namespace: str = ""
    labels: Labels = {}
    annotations: Mapping[str, str] = {}
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: str | None = None
    deletion_timestamp: str | None = None
    deletion_grace_period_seconds: int | None = None
    owner_references: tuple[OwnerReference, ...] = ()
    finalizers: tuple[str, ...] = ()
    self_link: Kept = UNSET
    managed_fields: Kept = UNSET


class Object(Part, frozen=True, kw_only=True, tag_field="kind"):
    """One object of a cluster. Two objects are equal when they say the same; `ref` and `key` name them."""

    kind: ClassVar[str]
    api_version: ClassVar[str]
    namespaced: ClassVar[bool] = True

    metadata: ObjectMeta

    @property
    def name(self) -> str:
        """The name, unique among the objects of this kind in the namespace."""
        return self.metadata.name

    @property
    def namespace(self) -> str:
        """The namespace, `default` where the object does not say, and empty for a kind that is in none."""
        return (self.metadata.namespace or DEFAULT_NAMESPACE) if self.namespaced else ""

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels, which selectors match."""
        return self.metadata.labels

    @property
    def annotations(self) -> Mapping[str, str]:
        """The annotations, which carry everything else."""
        return self.metadata.annotations

    @property
    def key(self) -> str:
        """`namespace/name`, or the name alone for a kind that is in no namespace."""
        return f"{self.namespace}/{self.name}" if self.namespaced else self.name

    @property
    def ref(self) -> str:
        """How messages name this object: `Service shop/api`, `Node node-1`."""
        return f"{self.kind} {self.key}"

    @property
    def owner(self) -> OwnerReference | None:
        """The controller that made this object, if one did."""
        return next((owner for owner in self.metadata.owner_references if owner.controller), None)


Path: TypeAlias = tuple[str | int, ...]
"""A way into an object: names of fields, keys of maps and places in lists, as the API spells them."""


def spelled(path: Path) -> str:
    """The way as people write it; a key with dots stands in brackets.

    >>> spelled(("spec", "ports", 0, "port")), spelled(("metadata", "labels", "k8s.io/a"))
    ('spec.ports[0].port', 'metadata.labels[k8s.io/a]')
    """
    out = ""
    for step in path:
        if isinstance(step, int) or any(each in step for each in "./["):
            out += f"[{step}]"
        else:
            out += f".{step}" if out else step
    return out


KindT = TypeVar("KindT", bound=Object)
"""Some kind of object."""


def to_dict(value: Object | Part) -> dict[str, object]:
    """Plain data that says the same, as `kubectl get -o json` would: what is empty and not said is left out.

    Defaults of the API server are printed, so loading the result gives an equal object.
    """
    plain = _plain(value)
    assert isinstance(plain, dict)
    return plain


def _plain(value: object) -> object:
    if isinstance(value, msgspec.Struct):
        return _plain_struct(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    # An enum is a str too; the plain text is what JSON and YAML want.
    return str(value) if isinstance(value, str) else value


def _plain_struct(value: msgspec.Struct) -> dict[str, object]:
    out: dict[str, object] = {}
    if isinstance(value, Object):
        out["apiVersion"] = value.api_version
        out["kind"] = value.kind
    for name, encoded, default in _shape(type(value)):
        item = getattr(value, name)
        if item is UNSET or (item is None and default is None):
            continue
        plain = _plain(item)
        if not plain and item == default:
            continue
        out[encoded] = plain
    return out


@cache
def _shape(cls: type[msgspec.Struct]) -> tuple[tuple[str, str, object], ...]:
    return tuple((field.name, field.encode_name, _default(field)) for field in msgspec.structs.fields(cls))


def _default(field: msgspec.structs.FieldInfo) -> object:
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
