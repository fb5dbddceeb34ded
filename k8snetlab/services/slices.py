"""Who answers for this Service at the moment, and what had to be written to say so?

The EndpointSlice controller watches Services and Pods and writes down, for each Service with a selector, the
addresses of the pods that are meant (`targets`): one set of slices for each address family and each set of ports, at
most 100 endpoints in a slice. `--max-endpoints-per-slice` raises that to 1,000 at the most.

It does not fill slices anew. It looks at those that are there and tries to write as few of them as it can:

1. Endpoints that are no longer meant leave their slice, those that changed are changed in place. A slice that becomes
   empty is deleted.
2. New endpoints go into the slices that have to be written anyway, the fullest first.
3. What is left, if it is less than a slice, goes as a whole into the slice that it fills best of those untouched so
   far. If it fits into none, it gets a slice of its own: one write instead of two.
4. A slice that would be deleted is used for one that would be created.

So part-filled slices stay part-filled: nobody ever merges two. A Service that means nobody keeps one empty slice
without ports. A slice whose ports nobody has any more, or of a family that the Service has lost, is deleted.

Where the real controller takes endpoints and slices in the order of a Go map, which is another one each time, here
endpoints come in the order of the pods and slices in the order in which they are given: what a real one does once in
a while, this one does always. Names that are drawn are computed.

Slices that a person wrote are left alone, and so are those of other controllers. `at` is the time of the change for
the annotation `endpoints.kubernetes.io/last-change-trigger-time`; without it the annotation goes when a slice is
written, as it does when the real controller does not know what triggered it.

Not modelled: `generation` and `resourceVersion`; proportional hints (`topology-mode: Auto`), which stay as they are;
stale caches and retries. Guide sections 2.2 and 5.1; KEP-752.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import NamedTuple, TypeAlias

import msgspec
from msgspec.structs import replace

from k8snetlab import api
from k8snetlab.api.decoding import name_suffix
from k8snetlab.errors import BadOption, Problem
from k8snetlab.services import targets
from k8snetlab.services.targets import Ports
from k8snetlab.services.writes import Deed, Write, stamped

__all__ = [
    "HEADLESS", "MANAGED_BY", "MOST_ENDPOINTS", "SERVICE_NAME", "Slices", "Synced", "made_by_controller", "same",
]  # fmt: skip

MOST_ENDPOINTS = 100
"""How many endpoints the controller puts into one slice unless it is told otherwise."""
LIMIT = 1000
"""The most that the API takes."""

MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
SERVICE_NAME = "kubernetes.io/service-name"
HEADLESS = "service.kubernetes.io/headless"
_CONTROLLER = "endpointslice-controller.k8s.io"
_RESERVED = (MANAGED_BY, SERVICE_NAME, HEADLESS)

Identity: TypeAlias = tuple[object, ...]
"""What makes an endpoint the same one after a change: its addresses, host name and pod."""

Meant: TypeAlias = Mapping[Ports, Mapping[Identity, api.Endpoint]]
"""The endpoints that there should be in one family, by their ports."""


class Synced(NamedTuple):
    """The slices after a sync, and the writes it took."""

    slices: tuple[api.EndpointSlice, ...]
    writes: tuple[Write[api.EndpointSlice], ...]


class _Reading(NamedTuple):
    """What a pod says of a Service: its ports, and itself in each family. `pod` tells whether it is still true."""

    pod: api.Pod
    ports: Ports
    endpoints: tuple[tuple[Identity, api.Endpoint] | None, ...]


class Slices(msgspec.Struct, frozen=True):
    """The EndpointSlice controller at work on one Service: a value, and the next one after each `sync`.

    `pieces` are the slices that it wrote. `most` is the number of endpoints that fit into one. Raises `BadOption` for
    more than 1,000. What it read of a pod is kept as long as the pod stays the same value, so that one pod of ten
    thousand is read again and not all.
    """

    service: api.Service
    nodes: Mapping[str, api.Node]
    most: int = MOST_ENDPOINTS
    pieces: tuple[api.EndpointSlice, ...] = ()
    readings: Mapping[int, _Reading] = {}

    def __post_init__(self) -> None:
        if not 1 <= self.most <= LIMIT:
            raise BadOption(Problem(f"a slice takes 1 to {LIMIT} endpoints, not {self.most}", field="most"))

    def sync(self, pods: Iterable[api.Pod], at: str = "") -> tuple[Slices, tuple[Write[api.EndpointSlice], ...]]:
        """The controller after it looked at the pods that the selector means, and what it wrote.

        A Service without a selector, and an ExternalName, has no slices of this controller: nothing is written.
        """
        if not targets.has_controller(self.service):
            return self, ()
        readings = self._readings(pods)
        synced = _synced(self.service, _meant(self.service, readings.values()), self.pieces, self.most, at)
        return replace(self, pieces=synced.slices, readings=readings), synced.writes

    def of(self, service: api.Service) -> Slices:
        """The same controller when the Service has changed."""
        return replace(self, service=service, readings={})

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many endpoints each slice holds."""
        return tuple(len(each.endpoints) for each in self.pieces)

    def _readings(self, pods: Iterable[api.Pod]) -> dict[int, _Reading]:
        # A pod is a value; the key is its identity, which lasts as long as the reading holds the pod.
        known, found = self.readings, {}
        families = targets.families(self.service)
        for pod in pods:
            seen = known.get(id(pod))
            if seen is None:
                seen = _read(self.service, families, pod, self.nodes)
            found[id(pod)] = seen
        return found


def made_by_controller(slices: Iterable[api.EndpointSlice]) -> bool:
    """Whether the EndpointSlice controller has written slices, among those given."""
    return any(each.labels.get(MANAGED_BY) == _CONTROLLER for each in slices)


# What should be


def _read(
    service: api.Service, families: Sequence[api.IPFamily], pod: api.Pod, nodes: Mapping[str, api.Node]
) -> _Reading:
    if targets.belongs(service, pod, nodes):
        node = nodes.get(pod.node_name)
        found = (targets.endpoint(service, pod, node, family) for family in families)
        endpoints = tuple(None if each is None else (_identity(each), each) for each in found)
    elif pod.completed or not pod.ips:
        return _Reading(pod, (), ())
    else:
        endpoints = (None,) * len(families)
    return _Reading(pod, targets.ports_of(service, pod), endpoints)


def _identity(endpoint: api.Endpoint) -> Identity:
    pod = endpoint.target_ref
    addresses = endpoint.addresses if len(endpoint.addresses) == 1 else tuple(sorted(endpoint.addresses))
    if pod is None:
        return addresses, endpoint.hostname
    return addresses, endpoint.hostname, pod.namespace, pod.name


def _meant(service: api.Service, readings: Iterable[_Reading]) -> tuple[Meant, ...]:
    """What there should be, family by family."""
    found: tuple[dict[Ports, dict[Identity, api.Endpoint]], ...] = tuple({} for _ in targets.families(service))
    for reading in readings:
        for by_ports, endpoint in zip(found, reading.endpoints, strict=False):
            group = by_ports.setdefault(reading.ports, {})
            if endpoint is not None:
                group[endpoint[0]] = endpoint[1]
    return found


# From what is to what should be


_Untouched: TypeAlias = tuple[api.EndpointSlice, tuple[api.Endpoint, ...]]
"""A slice that need not be written, and its endpoints as they would be."""


class _Plan(NamedTuple):
    """What is to be done with slices. Those to create have no name yet."""

    create: list[api.EndpointSlice]
    update: list[api.EndpointSlice]
    delete: list[api.EndpointSlice]


def _synced(
    service: api.Service, meant: Sequence[Meant], given: Sequence[api.EndpointSlice], most: int, at: str
) -> Synced:
    slices: list[api.EndpointSlice] = []
    writes: list[Write[api.EndpointSlice]] = []
    families = [api.AddressType(family) for family in targets.families(service)]
    for family, wanted in zip(families, meant, strict=True):
        own = [each for each in given if each.address_type is family]
        plan = _recycled(service, _planned(service, family, wanted, own, most))
        kept, done = _finished(service, family, own, plan, at)
        slices += kept
        writes += done
    lost = [each for each in given if each.address_type not in families]
    return Synced(tuple(slices), (*writes, *(Write(Deed.DELETE, each) for each in lost)))


def _planned(
    service: api.Service, family: api.AddressType, wanted: Meant, given: Sequence[api.EndpointSlice], most: int
) -> _Plan:
    plan = _Plan([], [], [each for each in given if not _owned(each, service)])
    by_ports: dict[frozenset[api.EndpointPort], list[api.EndpointSlice]] = {}
    for each in given:
        if _owned(each, service):
            by_ports.setdefault(frozenset(each.ports), []).append(each)
    for ports, endpoints in wanted.items():
        packed = _packed(service, family, ports, endpoints, by_ports.pop(frozenset(ports), []), most)
        for done, more in zip(plan, packed, strict=True):
            done += more
    for rest in by_ports.values():
        plan.delete.extend(rest)
    if len(given) == len(plan.delete) and not plan.create:
        return _with_placeholder(plan, _new(service, family, (), ()))
    return plan


def _with_placeholder(plan: _Plan, placeholder: api.EndpointSlice) -> _Plan:
    """The plan with one empty slice, unless the only one that there is says the same."""
    if len(plan.delete) == 1:
        [there] = plan.delete
        if not there.endpoints and not there.ports and there.labels == placeholder.labels:
            return plan._replace(delete=[])
    return plan._replace(create=[placeholder])


def _packed(
    service: api.Service,
    family: api.AddressType,
    ports: Ports,
    wanted: Mapping[Identity, api.Endpoint],
    given: Sequence[api.EndpointSlice],
    most: int,
) -> _Plan:
    """The steps 1 to 3 of the module's docstring, for slices of one set of ports."""
    left = dict(wanted)
    plan, untouched = _looked_through(service, given, left)
    rest = deque(left.values())
    update = _filled(plan.update, rest, most)
    while rest:
        best = _best(untouched, len(rest), most)
        if best is None:
            plan.create.append(_new(service, family, _taken(rest, most), ports))
        else:
            piece, endpoints = untouched.pop(best)
            update.append(replace(piece, endpoints=(*endpoints, *_taken(rest, most))))
    # Other hints alone are a reason to write a slice, but not one to fill it.
    update += [replace(piece, endpoints=found) for piece, found in untouched if _other_hints(piece.endpoints, found)]
    return plan._replace(update=update)


def _looked_through(
    service: api.Service, given: Sequence[api.EndpointSlice], left: dict[Identity, api.Endpoint]
) -> tuple[_Plan, list[_Untouched]]:
    """Which slices have to be written or deleted, and which not. What they hold is taken from what is left to
    place."""
    labels, proportional = _free(_labels(service)), targets.proportional(service)
    plan = _Plan([], [], [])
    untouched: list[_Untouched] = []
    for piece in given:
        endpoints, changed = _kept(piece, left, proportional=proportional)
        if changed and not endpoints:
            plan.delete.append(piece)
        elif changed or _free(piece.labels) != labels:
            plan.update.append(replace(piece, endpoints=endpoints))
        else:
            untouched.append((piece, endpoints))
    return plan, untouched


def _filled(pieces: Sequence[api.EndpointSlice], rest: deque[api.Endpoint], most: int) -> list[api.EndpointSlice]:
    """The slices in their order, filled up with the rest: the fullest first."""
    found = list(pieces)
    for at in sorted(range(len(found)), key=lambda at: -len(found[at].endpoints)):
        piece = found[at]
        if taken := _taken(rest, most - len(piece.endpoints)):
            found[at] = replace(piece, endpoints=(*piece.endpoints, *taken))
    return found


def _best(untouched: Sequence[_Untouched], number: int, most: int) -> int | None:
    """The fullest of the slices that can take so many, if one can. A whole slice of them is never put into another."""
    fitting = [at for at, (piece, _) in enumerate(untouched) if number < most and len(piece.endpoints) + number <= most]
    return max(fitting, key=lambda at: len(untouched[at][0].endpoints), default=None)


def _taken(rest: deque[api.Endpoint], most: int) -> tuple[api.Endpoint, ...]:
    return tuple(rest.popleft() for _ in range(min(most, len(rest))))


def _other_hints(old: Iterable[api.Endpoint], new: Iterable[api.Endpoint]) -> bool:
    return any(one is not other and one.hints != other.hints for one, other in zip(old, new, strict=True))


def _kept(
    piece: api.EndpointSlice, left: dict[Identity, api.Endpoint], *, proportional: bool
) -> tuple[tuple[api.Endpoint, ...], bool]:
    """The endpoints of a slice that stay, as they are now, taken from what is left to place; and whether they are
    other than those that are written."""
    found = []
    changed = False
    for old in piece.endpoints:
        new = left.pop(_identity(old), None)
        if new is None:
            changed = True
            continue
        if new is not old:
            changed = changed or not same(new, old)
            if proportional:
                new = replace(new, hints=old.hints)
        found.append(new)
    return tuple(found), changed


def same(one: api.Endpoint, other: api.Endpoint) -> bool:
    """Whether two endpoints of one identity say the same. Hints are another matter, and so is the version of the
    pod."""
    if (one.node_name, one.zone, one.conditions) != (other.node_name, other.zone, other.conditions):
        return False
    mine, its = one.target_ref, other.target_ref
    if mine is None or its is None:
        return mine is its
    return replace(mine, resource_version="") == replace(its, resource_version="")


def _recycled(service: api.Service, plan: _Plan) -> _Plan:
    """The plan with creations in the place of deletions: an update of a slice that is there instead of two writes."""
    create, update, delete = list(plan.create), list(plan.update), []
    for each in plan.delete:
        if create and _owned(each, service):
            new = create.pop()
            update.append(replace(new, metadata=replace(new.metadata, name=each.name)))
        else:
            delete.append(each)
    return _Plan(create, update, delete)


def _finished(
    service: api.Service, family: api.AddressType, given: Sequence[api.EndpointSlice], plan: _Plan, at: str
) -> tuple[list[api.EndpointSlice], list[Write[api.EndpointSlice]]]:
    """The slices of one family after the plan was carried out, in the order in which they were there, and the
    writes."""
    there = {each.name: each for each in given}
    created: list[api.EndpointSlice] = []
    if not service.metadata.deletion_timestamp:
        names = _names(service, family, {*there})
        created = [_written(each, replace(each.metadata, name=next(names)), service, at) for each in plan.create]
    updated = {each.name: _written(each, there[each.name].metadata, service, at) for each in plan.update}
    gone = {each.name for each in plan.delete}
    kept = [updated.get(each.name, each) for each in given if each.name not in gone]
    writes = [Write(Deed.CREATE, each) for each in created]
    writes += [Write(Deed.UPDATE, updated[each.name]) for each in plan.update]
    writes += [Write(Deed.DELETE, each) for each in plan.delete]
    return kept + created, writes


def _written(each: api.EndpointSlice, metadata: api.ObjectMeta, service: api.Service, at: str) -> api.EndpointSlice:
    annotations = stamped(metadata.annotations.items(), at)
    return replace(each, metadata=replace(metadata, labels=_labels(service), annotations=annotations))


# One slice


def _owned(each: api.EndpointSlice, service: api.Service) -> bool:
    """Whether a slice belongs to this Service, and not to one of the same name that was there before it. Where a
    manifest leaves the uid out, the name decides."""
    uid = service.metadata.uid
    return any(
        owner.kind == "Service" and owner.name == service.name and (owner.uid == uid or not (owner.uid and uid))
        for owner in each.metadata.owner_references
    )


def _free(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels that are copied from the Service."""
    return {key: value for key, value in labels.items() if key not in _RESERVED}


def _labels(service: api.Service) -> dict[str, str]:
    headless = {HEADLESS: ""} if service.headless else {}
    return {**_free(service.labels), **headless, MANAGED_BY: _CONTROLLER, SERVICE_NAME: service.name}


def _names(service: api.Service, family: api.AddressType, taken: set[str]) -> Iterator[str]:
    """Names for new slices, none of which is taken."""
    for index in count(len(taken)):
        name = f"{service.name}-"[:58] + name_suffix("slice", service.key, family, str(index))
        if name not in taken:
            yield name


def _new(
    service: api.Service, family: api.AddressType, endpoints: tuple[api.Endpoint, ...], ports: Ports
) -> api.EndpointSlice:
    owner = api.OwnerReference(
        api_version="v1", kind="Service", name=service.name, uid=service.metadata.uid, controller=True,
        block_owner_deletion=True,
    )  # fmt: skip
    return api.EndpointSlice(
        metadata=api.ObjectMeta(
            generate_name=f"{service.name}-",
            namespace=service.namespace,
            labels=_labels(service),
            owner_references=(owner,),
        ),
        address_type=family,
        endpoints=endpoints,
        ports=ports,
    )
