"""Who reads the Endpoints that a person wrote?

A Service without a selector has no controller that looks for pods; who wants endpoints behind it writes them down.
Those who still write an Endpoints object, though kube-proxy reads only EndpointSlices, are helped by a controller of
its own: it mirrors the object into slices, one for each set of ports and family, with at most 1,000 addresses a
subset. The rest of a longer subset is not mirrored.

It leaves alone what has the label `endpointslice.kubernetes.io/skip-mirror: "true"` or a leader election in it, and
what belongs to a Service with a selector or to no Service at all. Slices that it wrote before it deletes then. Labels
and annotations are copied, except the time of the last change and what kubectl applied last.

An address that is mirrored says whether it is ready, and nothing of `serving`, `terminating` or a zone.

Not modelled: the events for addresses that were left out. Guide section 5.1; KEP-752.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from msgspec.structs import replace

from k8snetlab import api
from k8snetlab.address import family as family_of
from k8snetlab.api.decoding import name_suffix
from k8snetlab.services.slices import MANAGED_BY, SERVICE_NAME, Synced
from k8snetlab.services.targets import Ports
from k8snetlab.services.writes import TRIGGER_TIME, Deed, Write

__all__ = ["MIRRORED", "SKIP", "is_mirror", "mirrored"]

MIRRORED = "endpointslicemirroring-controller.k8s.io"
"""The controller's name in the label `managed-by`."""
SKIP = "endpointslice.kubernetes.io/skip-mirror"
MOST_ADDRESSES = 1000
"""How many addresses of a subset are mirrored."""

_LEADER = "control-plane.alpha.kubernetes.io/leader"
_NOT_COPIED = (TRIGGER_TIME, "kubectl.kubernetes.io/last-applied-configuration")


def is_mirror(each: api.EndpointSlice) -> bool:
    """Whether this controller wrote the slice."""
    return each.labels.get(MANAGED_BY) == MIRRORED


def mirrored(endpoints: api.Endpoints, service: api.Service | None, given: Sequence[api.EndpointSlice] = ()) -> Synced:
    """The slices that mirror an Endpoints object, given those that do so far, and what has to be written."""
    wanted = _wanted(endpoints) if _wants_mirror(endpoints, service) else {}
    slices: list[api.EndpointSlice] = []
    spare, writes = list(given), []
    for (family, ports), found in wanted.items():
        there = next((each for each in spare if _fits(each, family, ports)), None)
        if there is not None:
            spare.remove(there)
        made = _slice(endpoints, family, ports, found, there, len(slices))
        slices.append(made)
        if there is None:
            writes.append(Write(Deed.CREATE, made))
        elif made != there:
            writes.append(Write(Deed.UPDATE, made))
    return _recycled(slices, writes, spare)


def _fits(each: api.EndpointSlice, family: api.AddressType, ports: Ports) -> bool:
    return each.address_type is family and frozenset(each.ports) == frozenset(ports)


def _recycled(
    slices: list[api.EndpointSlice], writes: list[Write[api.EndpointSlice]], spare: list[api.EndpointSlice]
) -> Synced:
    """A slice that nobody needs is used for a new one of its family, and deleted only if there is none."""
    renamed: dict[str, api.EndpointSlice] = {}
    done = []
    for write in writes:
        old = next((each for each in spare if each.address_type is write.object.address_type), None)
        if write.deed is Deed.CREATE and old is not None:
            spare.remove(old)
            renamed[write.object.name] = replace(
                write.object, metadata=replace(write.object.metadata, name=old.name, uid=old.metadata.uid)
            )
            write = Write(Deed.UPDATE, renamed[write.object.name])
        done.append(write)
    done += [Write(Deed.DELETE, each) for each in spare]
    return Synced(tuple(renamed.get(each.name, each) for each in slices), tuple(done))


def _wants_mirror(endpoints: api.Endpoints, service: api.Service | None) -> bool:
    left_alone = endpoints.labels.get(SKIP) == "true" or _LEADER in endpoints.annotations
    return not left_alone and service is not None and not service.spec.selector


def _wanted(endpoints: api.Endpoints) -> Mapping[tuple[api.AddressType, Ports], dict[object, api.Endpoint]]:
    """What should be mirrored, by family and ports; subsets of the same ports come together."""
    found: dict[tuple[api.AddressType, Ports], dict[object, api.Endpoint]] = {}
    for subset in endpoints.subsets:
        ports = tuple(
            api.EndpointPort(name=port.name, port=port.port, protocol=port.protocol, app_protocol=port.app_protocol)
            for port in subset.ports
        )
        for address, ready in _first(subset):
            family = api.AddressType.IPV4 if family_of(address.ip) == 4 else api.AddressType.IPV6
            found.setdefault((family, ports), {})[address.ip, address.hostname, address.target_ref] = api.Endpoint(
                addresses=(address.ip,),
                conditions=api.EndpointConditions(ready=ready),
                hostname=address.hostname or None,
                node_name=address.node_name,
                target_ref=address.target_ref,
            )
    return found


def _first(subset: api.EndpointSubset) -> Iterator[tuple[api.EndpointAddress, bool]]:
    """The addresses of a subset that are mirrored, and whether each is ready."""
    ready = subset.addresses[:MOST_ADDRESSES]
    yield from ((each, True) for each in ready)
    yield from ((each, False) for each in subset.not_ready_addresses[: MOST_ADDRESSES - len(ready)])


def _slice(
    endpoints: api.Endpoints,
    family: api.AddressType,
    ports: Ports,
    found: Mapping[object, api.Endpoint],
    there: api.EndpointSlice | None,
    index: int,
) -> api.EndpointSlice:
    owner = api.OwnerReference(
        api_version="v1", kind="Endpoints", name=endpoints.name, uid=endpoints.metadata.uid, controller=True,
        block_owner_deletion=True,
    )  # fmt: skip
    name = f"{endpoints.name}-"[:58] + name_suffix("mirror", endpoints.key, family, str(index))
    old = there.metadata if there else api.ObjectMeta(name=name, generate_name=f"{endpoints.name}-")
    metadata = replace(
        old,
        namespace=endpoints.namespace,
        labels={**endpoints.labels, SERVICE_NAME: endpoints.name, MANAGED_BY: MIRRORED},
        annotations={key: value for key, value in endpoints.annotations.items() if key not in _NOT_COPIED},
        owner_references=(owner,),
    )
    kept = list(found.values())[:MOST_ADDRESSES]
    if there is not None:
        kept.sort(key=_as_in(there))
        ports = there.ports
    return api.EndpointSlice(metadata=metadata, address_type=family, endpoints=tuple(kept), ports=ports)


def _as_in(there: api.EndpointSlice) -> Callable[[api.Endpoint], int]:
    """The order of a slice that is there: another order alone is no change. New ones come last."""
    place = {each.addresses: at for at, each in enumerate(there.endpoints)}
    return lambda each: place.get(each.addresses, len(place))
