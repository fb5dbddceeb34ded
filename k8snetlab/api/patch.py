"""What does a patch make of an object?

`kubectl patch` sends only what shall be different. Kubernetes knows three ways to say it; two are here, on plain data:

- A *strategic merge patch*, kubectl's own: a mapping that is laid over the object. `null` takes a field away. A list
  replaces the list, except the few lists whose entries have a key: there an entry changes its namesake, or is added;
  `$patch: delete` in an entry takes its namesake away, and in a mapping or a list `$patch: replace` begins anew.
- A *JSON patch*: a list of operations on places such as `/spec/ports/0/port` (RFC 6902, RFC 6901). One that does not
  work refuses all.

A JSON merge patch (RFC 7386) is the first without keys of lists; it is not here, since it differs in lists alone. The
ports of a Service are told apart by number and protocol, as server-side apply does; kubectl's own patches look at the
number only, and so confuse port 53 over TCP with port 53 over UDP.

Not modelled: `$setElementOrder`, `$deleteFromPrimitiveList`, `$retainKeys`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from k8snetlab.errors import ManifestError, Problem

__all__ = ["Patch", "patched"]

Patch: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]]
"""A mapping to lay over an object, or a list of operations."""

KEYS: Mapping[str, tuple[str, ...]] = {
    "ports": ("port", "containerPort", "protocol"),
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "hostAliases": ("ip",),
    "imagePullSecrets": ("name",),
    "conditions": ("type",),
    "ownerReferences": ("uid",),
}
"""The lists whose entries have a key, and the fields that make it. Those of an object itself, beside its `metadata`
and `spec`, have none: the endpoints and ports of an EndpointSlice are replaced."""

_USUAL = {"protocol": "TCP"}
_DIRECTIVE = "$patch"


def patched(data: Mapping[str, Any], patch: Patch) -> dict[str, Any]:
    """The data after the patch. Raises `ManifestError` naming the operation that cannot be done.

    >>> patched({"spec": {"type": "NodePort", "a": 1}}, {"spec": {"type": "ClusterIP", "a": None}})
    {'spec': {'type': 'ClusterIP'}}
    >>> patched({"spec": {"ports": [{"port": 80}]}}, [{"op": "replace", "path": "/spec/ports/0/port", "value": 81}])
    {'spec': {'ports': [{'port': 81}]}}
    """
    if isinstance(patch, Mapping):
        return _merged(data, patch, {})
    made: Any = copy.deepcopy(dict(data))
    for index, operation in enumerate(patch):
        if not isinstance(operation, Mapping):
            raise ManifestError(Problem(f"{operation!r} is no operation", field=f"patch[{index}]"))
        made = _operated(made, operation, f"patch[{index}]")
    if not isinstance(made, dict):
        raise ManifestError(Problem("the patch leaves no object", field="patch"))
    return made


# --- laid over --------------------------------------------------------------------------------------------------------


def _merged(
    data: Mapping[str, Any], patch: Mapping[str, Any], keys: Mapping[str, tuple[str, ...]] = KEYS
) -> dict[str, Any]:
    made: dict[str, Any] = {} if patch.get(_DIRECTIVE) == "replace" else dict(data)
    for key, value in patch.items():
        if key == _DIRECTIVE:
            continue
        if value is None:
            made.pop(key, None)
        elif isinstance(value, Mapping):
            before = made.get(key)
            made[key] = _merged(before if isinstance(before, Mapping) else {}, value)
        elif isinstance(value, list) and key in keys and isinstance(made.get(key), list):
            made[key] = _merged_list(made[key], value, keys[key])
        else:
            made[key] = copy.deepcopy(value)
    return made


def _merged_list(before: list[Any], patch: list[Any], key: tuple[str, ...]) -> list[Any]:
    if any(not isinstance(each, Mapping) for each in (*before, *patch)):
        return copy.deepcopy(patch)
    if any(set(each) == {_DIRECTIVE} and each[_DIRECTIVE] == "replace" for each in patch):
        return [dict(each) for each in patch if _DIRECTIVE not in each]
    made = {_key(each, key): each for each in before}
    for each in patch:
        name = _key(each, key)
        if each.get(_DIRECTIVE) == "delete":
            made.pop(name, None)
        else:
            made[name] = _merged(made.get(name, {}), each)
    return list(made.values())


def _key(entry: Mapping[str, Any], key: tuple[str, ...]) -> tuple[Any, ...]:
    return tuple(entry.get(name, _USUAL.get(name)) for name in key)


# --- operations -------------------------------------------------------------------------------------------------------


def _operated(data: Any, operation: Mapping[str, Any], place: str) -> Any:
    name = str(operation.get("op", ""))
    if name not in _OPERATIONS:
        known = ", ".join(_OPERATIONS)
        raise ManifestError(Problem(f"{name!r} is no operation: there are {known}", field=f"{place}.op"))
    try:
        return _OPERATIONS[name](data, operation)
    except (LookupError, TypeError, ValueError) as error:
        path = operation.get("path")
        said = str(error.args[0]) if isinstance(error, _PatchError) else f"there is nothing at {path}"
        raise ManifestError(Problem(f"{name} {path}: {said}", field=place)) from None


class _PatchError(ValueError):
    """An operation that does not work, and why."""


def _steps(operation: Mapping[str, Any], field: str = "path") -> list[str]:
    pointer = operation.get(field)
    if not isinstance(pointer, str) or (pointer and not pointer.startswith("/")):
        raise _PatchError(f"{field} must be a place such as /spec/type")
    return [step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:]]


def _value(operation: Mapping[str, Any]) -> Any:
    if "value" not in operation:
        raise _PatchError("needs a value")
    return copy.deepcopy(operation["value"])


def _at(data: Any, steps: Sequence[str]) -> Any:
    for step in steps:
        data = data[_index(step, len(data) - 1)] if isinstance(data, list) else data[step]
    return data


def _index(step: str, last: int) -> int:
    if not step.isdecimal() or int(step) > last:
        raise _PatchError(f"the list has no place {step}")
    return int(step)


def _add(data: Any, operation: Mapping[str, Any]) -> Any:
    return _put(data, _steps(operation), _value(operation))


def _put(data: Any, steps: Sequence[str], value: Any) -> Any:
    if not steps:
        return value
    parent, last = _at(data, steps[:-1]), steps[-1]
    if isinstance(parent, list):
        parent.insert(len(parent) if last == "-" else _index(last, len(parent)), value)
    else:
        parent[last] = value
    return data


def _remove(data: Any, operation: Mapping[str, Any]) -> Any:
    _taken(data, _steps(operation))
    return data


def _taken(data: Any, steps: Sequence[str]) -> Any:
    if not steps:
        raise _PatchError("the whole object cannot be taken away")
    parent, last = _at(data, steps[:-1]), steps[-1]
    return parent.pop(_index(last, len(parent) - 1) if isinstance(parent, list) else last)


def _replace(data: Any, operation: Mapping[str, Any]) -> Any:
    steps, value = _steps(operation), _value(operation)
    if not steps:
        return value
    parent, last = _at(data, steps[:-1]), steps[-1]
    parent[_index(last, len(parent) - 1) if isinstance(parent, list) else last]  # what is replaced must be there
    parent[_index(last, len(parent) - 1) if isinstance(parent, list) else last] = value
    return data


def _move(data: Any, operation: Mapping[str, Any]) -> Any:
    return _put(data, _steps(operation), _taken(data, _steps(operation, "from")))


def _copy(data: Any, operation: Mapping[str, Any]) -> Any:
    return _put(data, _steps(operation), copy.deepcopy(_at(data, _steps(operation, "from"))))


def _test(data: Any, operation: Mapping[str, Any]) -> Any:
    found = _at(data, _steps(operation))
    if found != _value(operation):
        raise _PatchError(f"it is {found!r}")
    return data


_OPERATIONS: Mapping[str, Callable[[Any, Mapping[str, Any]], Any]] = {
    "add": _add, "remove": _remove, "replace": _replace, "move": _move, "copy": _copy, "test": _test,
}  # fmt: skip
