"""What does a controller cost the API server?

A controller reads much and writes little, and what it writes is what counts: each write goes to etcd, and each is
sent as a whole, however small the change, to everybody who watches objects of that kind. For EndpointSlices and
Endpoints these are the kube-proxies of all nodes.

The size of an object is counted as the API server gives it in JSON, with what a living object has beside what it says
(`uid`, `resourceVersion`, `creationTimestamp`, `generation`) and without `managedFields`, which cost some 200 to 400
bytes more an object. kube-proxy asks for protobuf, which is shorter: measured on a real server, a full slice shrank to
0.46 of its JSON, an Endpoints object to 0.62.

Not modelled: the request that a client sends (as long as the answer), compression, retries. Guide section 5.1; KEP-752.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from functools import lru_cache
from typing import Generic, TypeVar

import msgspec
from msgspec.structs import replace

from k8snetlab import api

__all__ = ["TRIGGER_TIME", "Deed", "Tally", "Write", "served_bytes", "stamped"]

KindT = TypeVar("KindT", api.EndpointSlice, api.Endpoints)

TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
"""The annotation that says when the change happened that a write is the answer to."""


class Deed(StrEnum):
    """What is done to an object."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


class Write(msgspec.Struct, Generic[KindT], frozen=True):
    """One write to the API server: what is done, and the object after it, or the last one before a deletion."""

    deed: Deed
    object: KindT

    @property
    def bytes(self) -> int:
        """What each watcher is sent: the whole object, also when it was deleted."""
        return served_bytes(self.object)

    def __str__(self) -> str:
        return f"{self.deed} {self.object.ref} ({self.bytes} bytes)"


class Tally(msgspec.Struct, frozen=True):
    """How many writes of each sort, and the bytes that one watcher is sent for them."""

    creates: int = 0
    updates: int = 0
    deletes: int = 0
    bytes: int = 0

    @classmethod
    def of(cls, writes: Iterable[Write[KindT]]) -> Tally:
        """The sum of some writes."""
        found = [(write.deed, write.bytes) for write in writes]
        counts = {deed: sum(each is deed for each, _ in found) for deed in Deed}
        return cls(counts[Deed.CREATE], counts[Deed.UPDATE], counts[Deed.DELETE], sum(size for _, size in found))

    @property
    def writes(self) -> int:
        """All writes."""
        return self.creates + self.updates + self.deletes

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.creates + other.creates,
            self.updates + other.updates,
            self.deletes + other.deletes,
            self.bytes + other.bytes,
        )

    def __str__(self) -> str:
        sorts = ((self.creates, Deed.CREATE), (self.updates, Deed.UPDATE), (self.deletes, Deed.DELETE))
        said = ", ".join(f"{count} {deed}{'' if count == 1 else 's'}" for count, deed in sorts if count)
        return f"{said or 'no write'}, {self.bytes:,} bytes to each watcher"


def stamped(annotations: Iterable[tuple[str, str]], at: str) -> dict[str, str]:
    """Annotations with the time of the change. Without one, the old time goes: it is not that of this change."""
    kept = {key: value for key, value in annotations if key != TRIGGER_TIME}
    return {**kept, TRIGGER_TIME: at} if at else kept


_LIVING = {"uid": "0" * 36, "resource_version": "100000", "creation_timestamp": "2026-01-01T00:00:00Z"}
"""What the API server adds to an object, as long as it usually is."""


def served_bytes(each: api.EndpointSlice | api.Endpoints) -> int:
    """The length of an object as compact JSON, without `managedFields`.

    Its endpoints are measured one by one and remembered: of a thousand that are written again, one is new.
    """
    if isinstance(each, api.EndpointSlice):
        bare = _length(replace(_living(each, generation=1), endpoints=(), ports=()))
        return bare + _list("endpoints", each.endpoints) + _list("ports", each.ports)
    bare = _length(replace(_living(each), subsets=()))
    return bare + (_list("subsets", each.subsets) if each.subsets else 0)


def _living(each: KindT, generation: int = 0) -> KindT:
    metadata = each.metadata
    missing = {name: value for name, value in _LIVING.items() if not getattr(metadata, name)}
    if generation and not metadata.generation:
        missing["generation"] = generation  # type: ignore[assignment]
    return replace(each, metadata=replace(metadata, **missing, managed_fields=msgspec.UNSET))


def _list(name: str, parts: tuple[api.Part, ...]) -> int:
    """A field with its comma: `"ports":null,` or `"ports":[…],`."""
    if not parts:
        return len(f'"{name}":null,')
    return len(f'"{name}":[],') + sum(map(_part_length, parts)) + len(parts) - 1


def _part_length(part: api.Part) -> int:
    return _subset_length(part) if isinstance(part, api.EndpointSubset) else _remembered_length(part)


def _subset_length(subset: api.EndpointSubset) -> int:
    fields = (
        ("addresses", subset.addresses),
        ("notReadyAddresses", subset.not_ready_addresses),
        ("ports", subset.ports),
    )
    return len("{}") - 1 + sum(_list(name, parts) for name, parts in fields if parts)


@lru_cache(maxsize=1 << 16)
def _remembered_length(part: api.Part) -> int:
    return _length(part)


def _length(value: api.Object | api.Part) -> int:
    text = msgspec.json.encode(api.to_dict(value))
    # Go writes these three as \u003c, so that a browser takes no text for a tag.
    return len(text) + 5 * sum(text.count(sign) for sign in (b"<", b">", b"&"))
