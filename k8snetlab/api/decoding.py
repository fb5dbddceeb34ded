"""Is this mapping an object of Kubernetes, and if not, what exactly is wrong with it?

`decode` turns plain data into an object or into a list of problems. Each problem names the field the way people write
it (`spec.ports[0].targetPort`) and says what would be right. One wrong field does not hide the next: the data is
tried again without it.

Three answers are possible: an object; problems; neither, for a kind the lab does not read (a custom resource, a
Role). A kind of Kubernetes under the wrong `apiVersion` is a problem, since the API server would refuse it too.

Not modelled: conversion between API versions. Kubernetes API conventions; KEP-2885 (strict field validation).
"""

from __future__ import annotations

import copy
import hashlib
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from functools import cache
from importlib import import_module
from itertools import chain
from typing import Annotated, Any, Union, get_args, get_origin

import msgspec

from k8snetlab.api import cluster_policies, core, networking, pod, service, workloads
from k8snetlab.api.base import Labels, Object, Path, spelled, to_dict
from k8snetlab.api.validation import broken_rules
from k8snetlab.errors import Problem

__all__ = ["KINDS", "Decoded", "decode", "name_suffix", "safe", "typed"]

_LOADED: Mapping[tuple[str, str], type[Object]] = {
    (cls.api_version, cls.kind): cls
    for cls in (
        core.Namespace, core.Node, pod.Pod, service.Service, service.EndpointSlice, service.Endpoints,
        workloads.Deployment, workloads.ReplicaSet, workloads.StatefulSet, workloads.DaemonSet, workloads.Job,
        workloads.CronJob,
        networking.NetworkPolicy, cluster_policies.ClusterNetworkPolicy, networking.Ingress, networking.IngressClass,
        core.Secret, core.ConfigMap, core.ServiceAccount,
    )
}  # fmt: skip
_GATEWAY: Mapping[str, tuple[str, ...]] = {
    "v1alpha2": ("TLSRoute", "TCPRoute", "UDPRoute"),
    "v1alpha3": ("TLSRoute",),
    "v1beta1": ("GatewayClass", "Gateway", "HTTPRoute", "ReferenceGrant"),
    "v1": (
        "GatewayClass", "Gateway", "HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute", "ReferenceGrant",
    ),
}  # fmt: skip
"""The kinds of the Gateway API in the versions that are served, the one that is printed last."""

_LATER: Mapping[tuple[str, str], str] = {
    ("cilium.io/v2", "CiliumNetworkPolicy"): "k8snetlab.api.cilium",
    **{
        (f"gateway.networking.k8s.io/{version}", kind): "k8snetlab.api.gateway"
        for version, kinds in _GATEWAY.items()
        for kind in kinds
    },
}
"""Kinds that few clusters have, and the modules that are loaded when such an object comes."""


class _Kinds(Mapping[tuple[str, str], type[Object]]):
    def __getitem__(self, key: tuple[str, str]) -> type[Object]:
        found = _LOADED.get(key)
        if found is None:
            found = getattr(import_module(_LATER[key]), key[1])
        return found

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return chain(_LOADED, _LATER)

    def __len__(self) -> int:
        return len(_LOADED) + len(_LATER)


KINDS: Mapping[tuple[str, str], type[Object]] = _Kinds()
"""The kinds the lab reads, by `apiVersion` and `kind`."""

_VERSION_OF = {kind: version for version, kind in KINDS}
_OWN_GROUPS = {"", "extensions", *(version.rpartition("/")[0] for version, _ in KINDS)}

_MOST_PROBLEMS = 10
"""How many problems of one object are said: a file of another program has hundreds."""

_STRING_MAPS = {"labels", "annotations", "matchLabels", "nodeSelector", "selector", "data", "stringData"}


class Decoded(msgspec.Struct, frozen=True):
    """An object, or the problems with it, or neither for a kind the lab does not read."""

    object: Object | None = None
    problems: tuple[Problem, ...] = ()


def decode(data: Mapping[str, object]) -> Decoded:
    """Read one object from plain data.

    >>> api = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "api"}, "spec": {"port": 80}}
    >>> decode(api).problems[0].field
    'spec.port'
    """
    found = typed(data)
    if found.object is None:
        return found
    broken = tuple(broken_rules(found.object))
    if broken:
        return Decoded(problems=tuple(_named(Problem(message, field=field), data) for field, message in broken))
    return found


def typed(data: Mapping[str, object]) -> Decoded:
    """Read one object without asking whether its fields fit together: what is sent to the API server to change an
    object that is there is only judged after the two have met.
    """
    version, kind = data.get("apiVersion"), data.get("kind")
    known = isinstance(version, str) and isinstance(kind, str)
    cls = (_LOADED.get((version, kind)) or KINDS.get((version, kind))) if known else None  # type: ignore[arg-type]
    if cls is None:
        problem = _kind_problem(version, kind)
        return Decoded(problems=(_named(problem, data),) if problem else ())
    body = {key: value for key, value in data.items() if key != "apiVersion"}
    try:
        made = msgspec.convert(body, cls)
    except msgspec.ValidationError:
        body = _without_nulls(body)
        try:
            made = msgspec.convert(body, cls)
        except msgspec.ValidationError as error:
            problems = tuple(_all_problems(body, cls, error))
            return Decoded(problems=tuple(_named(each, data) for each in problems))
    if not made.name and made.metadata.generate_name:
        made = _with_generated_name(made)
    return Decoded(object=made)


def _kind_problem(version: object, kind: object) -> Problem | None:
    for field, value in (("apiVersion", version), ("kind", kind)):
        if value is None or value == "":
            return Problem("is required: every object says its apiVersion and its kind", field=field)
        if not isinstance(value, str):
            return Problem(f"must be text, not {value!r}", field=field)
    group = str(version).rpartition("/")[0]
    if (version, kind) not in KINDS and kind in _VERSION_OF and group in _OWN_GROUPS:
        return Problem(f"Kubernetes has no {kind} in {version}; it is in {_VERSION_OF[str(kind)]}", field="apiVersion")
    return _misspelt(str(version), str(kind))


def _misspelt(version: str, kind: str) -> Problem | None:
    """A kind that is nearly one of ours, in the same version, is a typing error and not a kind to pass over.

    No kind of Kubernetes that the lab leaves out is spelled that closely.
    """
    if (version, kind) in KINDS:
        return None
    from difflib import get_close_matches  # only when something went wrong

    own = [known for among, known in KINDS if among == version]
    close = get_close_matches(kind, own, n=1, cutoff=0.8)
    if not close:
        return None
    return Problem(f"Kubernetes has no {kind} in {version}; did you mean {close[0]}?", field="kind")


def _named(problem: Problem, data: Mapping[str, object]) -> Problem:
    return msgspec.structs.replace(problem, object=_reference(data))


def _reference(data: Mapping[str, object]) -> str:
    kind = str(data.get("kind") or "object")
    metadata = data.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    name = str(metadata.get("name") or metadata.get("generateName") or "")
    if not name:
        return f"{kind} without a name"
    cls = next((cls for (_, known), cls in KINDS.items() if known == kind), None)
    if cls is None or not cls.namespaced:
        return f"{kind} {name}"
    return f"{kind} {metadata.get('namespace') or 'default'}/{name}"


# --- what is not said ------------------------------------------------------------------------------------------------


def _without_nulls(data: Mapping[str, object]) -> dict[str, object]:
    """The same data as Go reads it: a field that is null was not said; in a map of texts it is the empty text."""
    return {key: _clean(key, value) for key, value in data.items() if value is not None}


def _clean(key: str, value: object) -> object:
    if isinstance(value, Mapping):
        if key in _STRING_MAPS:
            return {name: "" if item is None else item for name, item in value.items()}
        return _without_nulls(value)
    if isinstance(value, list):
        return [_clean("", item) for item in value]
    return value


# --- what is wrong ---------------------------------------------------------------------------------------------------


_AT = re.compile(r"(?P<message>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>.*)`)?\Z", re.DOTALL)
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")


def _all_problems(body: dict[str, Any], cls: type[Object], error: msgspec.ValidationError) -> Iterator[Problem]:
    """The problem msgspec met first; then, with something that fits in that place, the next one."""
    body = copy.deepcopy(body)
    for _ in range(_MOST_PROBLEMS):
        path, message = _located(str(error), body, cls)
        yield Problem(message, field=spelled(path))
        if not _mended(body, path, cls):
            return
        try:
            msgspec.convert(body, cls)
        except msgspec.ValidationError as following:
            error = following
        else:
            return


_REQUIRED = "is required"
_NOTHING = object()
_FITTING: tuple[object, ...] = (None, "a", 1, {}, [])


def _mended(body: Any, path: Path, cls: type[Object]) -> bool:
    """Put something that fits in place of what is wrong: a plain value of the right type, or nothing."""
    parent, kind = _value_at(body, path[:-1]), _type_at(cls, path)
    if not path or not isinstance(parent, dict | list):
        return False
    if isinstance(parent, dict) and not _fits(path[-1], _map_types(_type_at(cls, path[:-1]))[0]):
        return parent.pop(path[-1], _NOTHING) is not _NOTHING
    candidates = (*(tuple(kind)[:1] if isinstance(kind, type) and issubclass(kind, StrEnum) else ()), *_FITTING)
    fitting = [each for each in candidates if kind is not object and _fits(each, kind)]
    if fitting:
        parent[path[-1]] = copy.copy(fitting[0])  # type: ignore[index]
        return True
    return isinstance(parent, dict) and parent.pop(path[-1], _NOTHING) is not _NOTHING


def _located(text: str, body: dict[str, Any], cls: type[Object]) -> tuple[Path, str]:
    """Where msgspec's message points, as a path into the data, and the message in our words."""
    parts = _AT.match(text)
    assert parts is not None
    message, path = parts["message"], _path(parts["path"] or "")
    if parts["key"]:
        return _wrong_key((*path,), body, cls, message)
    path = _filled(path, body, cls)
    if field := re.match(r"Object contains unknown field `(.*)`", message):
        return (*path, field[1]), _unknown_field(field[1], _type_at(cls, path))
    if field := re.match(r"Object missing required field `(.*)`", message):
        return (*path, field[1]), _REQUIRED
    return path, _explained(message, _value_at(body, path), _type_at(cls, path))


def _path(text: str) -> Path:
    steps = (_STEP.match(text, at.start()) for at in _STEP.finditer(text))
    return tuple(step[1] or (int(step[2]) if step[2] != "..." else "...") for step in steps if step is not None)


def _filled(path: Path, body: Any, cls: Any) -> Path:
    """The path with `...`, which stands for some key of a map, replaced by the first key that is wrong."""
    done: Path = ()
    for step in path:
        if step == "...":
            mapping, kinds = _value_at(body, done), _map_types(_type_at(cls, done))
            step = next((key for key, value in mapping.items() if not _fits(value, kinds[1])), "...")
        done = (*done, step)
    return done


def _wrong_key(path: Path, body: Any, cls: Any, message: str) -> tuple[Path, str]:
    mapping, kinds = _value_at(body, path), _map_types(_type_at(cls, path))
    key = next((key for key in mapping if not _fits(key, kinds[0])), "")
    return (*path, key), _explained(message, key, kinds[0])


def _fits(value: object, kind: Any) -> bool:
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        return False
    return True


def _map_types(kind: Any) -> tuple[Any, Any]:
    args = get_args(kind)
    return (args[0], args[1]) if len(args) == 2 else (str, str)


def _value_at(value: Any, path: Path) -> Any:
    for step in path:
        if isinstance(value, Mapping):
            value = value.get(step)
        elif isinstance(value, Sequence) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return None
    return value


def _type_at(kind: Any, path: Path) -> Any:
    """The declared type at a path, without `Annotated` and `None`."""
    for step in path:
        kind = _bare(kind)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            kind = _types(kind).get(str(step), object)
        else:
            args = get_args(kind)
            kind = (args[0] if isinstance(step, int) else args[-1]) if args else object
    return _bare(kind)


def _bare(kind: Any) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        rest = [each for each in get_args(kind) if each is not type(None)]
        return _bare(rest[0]) if len(rest) == 1 else kind
    return kind


@cache
def _types(cls: type[msgspec.Struct]) -> dict[str, Any]:
    return {field.encode_name: field.type for field in msgspec.structs.fields(cls)}


# --- in words ---------------------------------------------------------------------------------------------------------

_WORDS = {
    "str": "text", "int": "a whole number", "bool": "true or false", "array": "a list", "object": "a mapping",
    "null": "nothing", "float": "a number", "int | str": "a whole number or a name", "int | null": "a whole number",
    "str | null": "text", "bool | null": "true or false",
}  # fmt: skip


@cache
def _descriptions() -> Mapping[str, str]:
    """What each pattern of a constrained text means."""
    return {
        meta.pattern: meta.description
        for annotated in get_args(Labels)
        if get_origin(annotated) is Annotated
        for meta in annotated.__metadata__
    }


def _unknown_field(name: str, kind: Any) -> str:
    from difflib import get_close_matches  # only when something went wrong

    known = [*_types(kind)] if isinstance(kind, type) and issubclass(kind, msgspec.Struct) else []
    close = get_close_matches(name, known, n=1, cutoff=0.6)
    same = [each for each in known if each.lower() == name.lower()]
    hint = (same or close)[:1]
    return "there is no such field" + (f"; did you mean {hint[0]}?" if hint else "")


def _explained(message: str, value: object, kind: Any) -> str:
    if message.startswith("Invalid enum value"):
        return _not_among(value, kind)
    if match := re.match(r"Expected `str` matching regex '(.*)'", message, re.DOTALL):
        pattern = match[1].encode().decode("unicode_escape")
        return f"{value!r} is not {_descriptions().get(pattern, f'a text like {match[1]}')}"
    if match := re.match(r"Expected `\w+` (>=|<=) (-?\d+)", message):
        return f"Invalid value: {value}: must be {'at least' if match[1] == '>=' else 'at most'} {match[2]}"
    if match := re.match(r"Expected `([^`]+)`, got `(\w+)`", message):
        return _wrong_type(match[1], match[2], value)
    return message


def _not_among(value: object, kind: Any) -> str:
    kind = _bare(kind)
    if not (isinstance(kind, type) and issubclass(kind, StrEnum)):
        return f"{value!r} is not one of the values that exist"
    return f"Unsupported value: {_quoted(value)}: supported values: {', '.join(map(_quoted, kind))}"


def _quoted(value: object) -> str:
    return f'"{value}"'


def _wrong_type(wanted: str, got: str, value: object) -> str:
    right = _WORDS.get(wanted, _WORDS.get(wanted.removesuffix(" | null"), wanted))
    if right == "text" and got in ("bool", "int", "float"):
        shown = str(value).lower() if got == "bool" else str(value)
        return f"must be text, but {shown} is {_WORDS[got]}: write it in quotes"
    shown = f" {value!r}" if got in ("str", "int", "float") else ""
    return f"must be {right}, not {_WORDS.get(got, got)}{shown}"


# --- generated names --------------------------------------------------------------------------------------------------

_SAFE = "bcdfghjklmnpqrstvwxz2456789"
"""The letters of generated names: no vowels, so no words, and no digits that look like letters."""


def safe(text: str) -> str:
    """The text in the letters of generated names, one for one: what the API server does to a hash."""
    return "".join(_SAFE[ord(each) % len(_SAFE)] for each in text)


def name_suffix(*parts: str, length: int = 5) -> str:
    """The letters the API server would draw for a generated name; here they follow from what is named.

    >>> name_suffix("shop/web", "0") == name_suffix("shop/web", "0")
    True
    """
    digest = hashlib.sha256("\0".join(parts).encode()).digest()
    return "".join(_SAFE[byte % len(_SAFE)] for byte in digest[:length])


def _with_generated_name(made: Object) -> Object:
    base = made.metadata.generate_name
    said = msgspec.json.encode(to_dict(made), order="deterministic").decode()
    name = base[:58] + name_suffix(base, said)
    return msgspec.structs.replace(made, metadata=msgspec.structs.replace(made.metadata, name=name))
