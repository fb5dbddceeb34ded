"""What stood in the place of EndpointSlices, and what does it cost?

One Endpoints object a Service, of the same name, with all its pods: whenever one pod changes, all are written again
and sent to everybody who watches. It has one address family, the Service's first; no zones; no `serving` and no
`terminating`: a pod that is being deleted is simply gone, unless the Service publishes addresses that are not ready.
Pods that are not ready stand in `notReadyAddresses`.

Ports that the same pods have make one subset with them; a pod stands in as many subsets as it needs. Above 1,000
addresses the rest is cut off (first those that are not ready) and an annotation says so. That does not hurt
kube-proxy, which reads slices by default since 1.19 and nothing else since 1.22.

The API is deprecated since 1.33 and still served; the controller still runs. Where the real one orders subsets and
their ports by a hash, here they stand by number and name.

Not modelled: the write that the real controller repeats at every sync of a truncated object; it changes nothing, and
nobody is sent anything. Guide section 5.1; KEP-752, KEP-4974.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil
from typing import NamedTuple, TypeAlias

import msgspec
from msgspec.structs import replace

from k8snetlab import api
from k8snetlab.address import family as family_of
from k8snetlab.services import targets
from k8snetlab.services.slices import HEADLESS
from k8snetlab.services.writes import Deed, Write, stamped

__all__ = ["MOST_ADDRESSES", "OVER_CAPACITY", "EndpointsObject", "subsets"]

MOST_ADDRESSES = 1000
"""How many addresses the controller writes at the most."""
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
_MANAGED_BY = "endpoints.kubernetes.io/managed-by"

Subsets: TypeAlias = tuple[api.EndpointSubset, ...]


class _Reading(NamedTuple):
    """What a pod says of a Service: its address, the ports it has, and whether it is ready. A headless Service may have
    no ports: None stands for that."""

    pod: api.Pod
    address: api.EndpointAddress | None
    ports: tuple[api.SubsetPort | None, ...]
    ready: bool


class EndpointsObject(msgspec.Struct, frozen=True):
    """The Endpoints controller at work on one Service: a value, and the next one after each `sync`.

    `written` is the object as it stands, None before the first sync.
    """

    service: api.Service
    written: api.Endpoints | None = None
    readings: Mapping[int, _Reading] = {}

    def sync(self, pods: Iterable[api.Pod], at: str = "") -> tuple[EndpointsObject, tuple[Write[api.Endpoints], ...]]:
        """The controller after it looked at the pods that the selector means, and what it wrote: one object, or
        nothing."""
        if not targets.has_controller(self.service):
            return self, ()
        readings = self._readings(pods)
        wanted, cut = _fitting(_repacked(readings.values()))
        before = self.written
        labels = _labels(self.service)
        if before and before.subsets == wanted and before.labels == labels and cut == (_annotation(before) != ""):
            return replace(self, readings=readings), ()
        old = before.metadata if before else api.ObjectMeta(name=self.service.name, namespace=self.service.namespace)
        annotations = stamped(((key, value) for key, value in old.annotations.items() if key != OVER_CAPACITY), at)
        if cut:
            annotations[OVER_CAPACITY] = "truncated"
        made = api.Endpoints(metadata=replace(old, labels=labels, annotations=annotations), subsets=wanted)
        deed = Deed.UPDATE if before else Deed.CREATE
        return replace(self, written=made, readings=readings), (Write(deed, made),)

    def _readings(self, pods: Iterable[api.Pod]) -> dict[int, _Reading]:
        known, found = self.readings, {}
        for pod in pods:
            seen = known.get(id(pod))
            if seen is None:
                seen = _read(self.service, pod)
            found[id(pod)] = seen
        return found


def subsets(service: api.Service, pods: Iterable[api.Pod]) -> Subsets:
    """The subsets that a Service should have, before any is cut off."""
    return _repacked(_read(service, pod) for pod in pods)


def _annotation(each: api.Endpoints) -> str:
    return each.annotations.get(OVER_CAPACITY, "")


def _labels(service: api.Service) -> dict[str, str]:
    own = {key: value for key, value in service.labels.items() if key != HEADLESS}
    return {**own, **({HEADLESS: ""} if service.headless else {}), _MANAGED_BY: "endpoint-controller"}


# One pod


def _read(service: api.Service, pod: api.Pod) -> _Reading:
    published = service.spec.publish_not_ready_addresses
    wanted = targets.families(service)[0].number
    address = next((each for each in pod.ips if family_of(each) == wanted), None)
    if address is None or pod.completed or (pod.terminating and not published):
        return _Reading(pod, None, (), ready=False)
    ports = _ports(service, pod) if service.spec.ports else (None,)
    return _Reading(pod, _address(service, pod, address), ports, ready=published or pod.ready)


def _address(service: api.Service, pod: api.Pod, address: str) -> api.EndpointAddress:
    return api.EndpointAddress(
        ip=address,
        hostname=targets.host_name(service, pod),
        node_name=pod.node_name,
        target_ref=targets.reference(pod),
    )


def _ports(service: api.Service, pod: api.Pod) -> tuple[api.SubsetPort, ...]:
    return tuple(
        api.SubsetPort(name=port.name or "", port=port.port, protocol=port.protocol, app_protocol=port.app_protocol)
        for port in targets.ports_of(service, pod)
        if port.port is not None
    )


# All pods


def _repacked(readings: Iterable[_Reading]) -> Subsets:
    """One subset for all ports that the same pods have."""
    offering: dict[api.SubsetPort | None, list[_Reading]] = {}
    for reading in readings:
        if reading.address is not None:
            for port in reading.ports:
                offering.setdefault(port, []).append(reading)
    joined: dict[tuple[int, ...], list[api.SubsetPort | None]] = {}
    for port, pods in offering.items():
        joined.setdefault(tuple(map(id, pods)), []).append(port)
    found = (_subset(ports, offering[ports[0]]) for ports in joined.values())
    return tuple(sorted(found, key=lambda each: [_order(port) for port in each.ports]))


def _subset(ports: Iterable[api.SubsetPort | None], pods: Iterable[_Reading]) -> api.EndpointSubset:
    ready: list[api.EndpointAddress] = []
    not_ready: list[api.EndpointAddress] = []
    for reading in pods:
        if reading.address is not None:
            (ready if reading.ready else not_ready).append(reading.address)
    return api.EndpointSubset(
        addresses=tuple(sorted(ready, key=_place)),
        not_ready_addresses=tuple(sorted(not_ready, key=_place)),
        ports=tuple(sorted((port for port in ports if port is not None), key=_order)),
    )


def _place(address: api.EndpointAddress) -> tuple[str, str]:
    """Addresses are sorted as text, and those of one node by their pods."""
    return address.ip, address.target_ref.uid if address.target_ref else ""


def _order(port: api.SubsetPort) -> tuple[int, str, str]:
    return port.port, port.protocol, port.name


def _fitting(wanted: Subsets) -> tuple[Subsets, bool]:
    """The subsets with at most 1,000 addresses, and whether any was cut off: those that are not ready go first, and
    each subset keeps its share."""
    ready = sum(len(each.addresses) for each in wanted)
    not_ready = sum(len(each.not_ready_addresses) for each in wanted)
    if ready + not_ready <= MOST_ADDRESSES:
        return wanted, False
    if ready > MOST_ADDRESSES:
        shares = _shares([len(each.addresses) for each in wanted], MOST_ADDRESSES)
        cut = (
            replace(each, addresses=each.addresses[:share], not_ready_addresses=())
            for each, share in zip(wanted, shares, strict=True)
        )
    else:
        shares = _shares([len(each.not_ready_addresses) for each in wanted], MOST_ADDRESSES - ready)
        cut = (
            replace(each, not_ready_addresses=each.not_ready_addresses[:share])
            for each, share in zip(wanted, shares, strict=True)
        )
    return tuple(cut), True


def _shares(counts: list[int], room: int) -> list[int]:
    """How much of the room each gets: its part, rounded up, until there is none left."""
    total, left, found = sum(counts), room, []
    for count in counts:
        found.append(min(left, ceil(count / total * room)))
        left -= found[-1]
    return found
