"""Who answers for this Service at the moment?

The EndpointSlice controller watches Services and Pods and writes down, for each Service with a selector, the
addresses of the pods that are meant: one set of slices for each address family and each set of ports, at most 100
endpoints in a slice.

What people get wrong, and what therefore stands here as it is in the controller:

- An unready pod is in the slice, marked `ready: false`. Only pods that completed, that have no address, or whose node
  is gone are left out.
- A pod that is being deleted is never ready, but may still be `serving`. `publishNotReadyAddresses` makes every pod
  ready.
- A named target port is looked up in each pod, by name and protocol; pods that give it another number go into slices
  of their own, and a pod without it goes into a slice without that port.
- A Service that means nobody has one empty slice without ports.
- `trafficDistribution` becomes hints on the ready endpoints; kube-proxy decides what to do with them.

Slices in the input that a person wrote are left alone; those of a real controller stay as they are while they are
right, and follow when pods or Services change. Not modelled: proportional zone
hints (`topology-mode: Auto`), mirroring of hand-written Endpoints objects, and the history of a slice: a controller
that has seen pods come and go keeps part-filled slices, while here they are filled in order. Guide section 2.2;
KEP-752, KEP-1672, KEP-2433.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec.structs import replace

from k8snetlab import api
from k8snetlab.address import family as family_of
from k8snetlab.api.decoding import name_suffix
from k8snetlab.api.service import ForNode, ForZone, ObjectReference

__all__ = ["MANAGED_BY", "MOST_ENDPOINTS", "endpoint_slices", "made_by_controller", "reconciled", "selected"]

MOST_ENDPOINTS = 100
"""How many endpoints the controller puts into one slice (its default; the API allows 1,000)."""

MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
_CONTROLLER = "endpointslice-controller.k8s.io"
_SERVICE_NAME = "kubernetes.io/service-name"
_HEADLESS = "service.kubernetes.io/headless"

Ports = tuple[api.EndpointPort, ...]


def endpoint_slices(
    service: api.Service, pods: Iterable[api.Pod], nodes: Mapping[str, api.Node]
) -> tuple[api.EndpointSlice, ...]:
    """The slices the controller would write for a Service, given the pods its selector means and the nodes by name.

    Nothing for a Service without a selector (its slices are written by hand) and for an ExternalName (it is only a
    DNS name).
    """
    if not service.spec.selector or service.spec.type is api.ServiceType.EXTERNAL_NAME:
        return ()
    there = [pod for pod in pods if _belongs(pod, service, nodes)]
    by_ports: dict[Ports, list[api.Pod]] = {}
    for pod in there:
        by_ports.setdefault(_ports(service, pod), []).append(pod)
    return tuple(each for family in _families(service) for each in _of_family(service, family, by_ports, nodes))


def selected(services: Iterable[api.Service], pods: Iterable[api.Pod]) -> dict[str, tuple[api.Pod, ...]]:
    """The pods each Service means, by the Service's key: those of its namespace that carry every label of its selector.

    Pods are filed under the labels that selectors ask for, so ten thousand pods and a thousand Services take one pass.
    """
    services = [each for each in services if each.spec.selector]
    filed: dict[tuple[str, str, str], list[api.Pod]] = {
        (service.namespace, *pair): [] for service in services for pair in service.spec.selector.items()
    }
    for pod in pods:
        for pair in pod.labels.items():
            if (found := filed.get((pod.namespace, *pair))) is not None:
                found.append(pod)
    return {service.key: tuple(_meant(service, filed)) for service in services}


def _meant(service: api.Service, filed: Mapping[tuple[str, str, str], Sequence[api.Pod]]) -> Iterator[api.Pod]:
    wanted = service.spec.selector
    fewest = min((filed[service.namespace, *pair] for pair in wanted.items()), key=len)
    return (pod for pod in fewest if api.has_labels(pod.labels, wanted))


def made_by_controller(slices: Iterable[api.EndpointSlice]) -> bool:
    """Whether the EndpointSlice controller has already written slices for a Service, among those given."""
    return any(each.labels.get(MANAGED_BY) == _CONTROLLER for each in slices)


def reconciled(
    service: api.Service, given: Sequence[api.EndpointSlice], made: Sequence[api.EndpointSlice]
) -> tuple[api.EndpointSlice, ...]:
    """The controller's slices of a Service after it looked again: those given if they still say what it would write,
    else what it would write, under the names that are there.
    """
    hints = not any(key in service.annotations for key in _PROPORTIONAL)
    if _said(given, hints=hints) == _said(made, hints=hints):
        return tuple(given)
    names = {of: [each.metadata for each in given if each.address_type is of] for of in api.AddressType}
    return tuple(
        replace(each, metadata=names[each.address_type].pop(0)) if names[each.address_type] else each for each in made
    )


_PROPORTIONAL = ("service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints")


def _said(slices: Iterable[api.EndpointSlice], *, hints: bool) -> set[tuple[object, ...]]:
    """What slices say of a Service's endpoints, whatever slice each stands in."""
    return {
        (each.address_type, each.ports, end.address, end.ready, end.serving, end.terminating, hints and _names(end))
        for each in slices
        for end in each.endpoints
    }


def _names(endpoint: api.Endpoint) -> tuple[frozenset[str], ...]:
    hints = endpoint.hints or api.EndpointHints()
    return frozenset(each.name for each in hints.for_zones), frozenset(each.name for each in hints.for_nodes)


def _belongs(pod: api.Pod, service: api.Service, nodes: Mapping[str, api.Node]) -> bool:
    known = pod.node_name in nodes or service.spec.publish_not_ready_addresses
    return known and bool(pod.ips) and not pod.completed


def _families(service: api.Service) -> tuple[api.IPFamily, ...]:
    if service.spec.ip_families:
        return service.spec.ip_families
    return tuple(api.IPFamily.of(family_of(each)) for each in service.cluster_ips) or (api.IPFamily.IPV4,)


def _ports(service: api.Service, pod: api.Pod) -> Ports:
    """The Service's ports as this pod has them; without those that it lacks."""
    found = ((port, _target(port, pod)) for port in service.spec.ports)
    return tuple(
        api.EndpointPort(name=port.name, protocol=port.protocol, port=number, app_protocol=port.app_protocol)
        for port, number in found
        if number is not None
    )


def _target(port: api.ServicePort, pod: api.Pod) -> int | None:
    if isinstance(port.target_port, int):
        return port.target_port
    return pod.port_named(port.target_port, port.protocol)


def _of_family(
    service: api.Service,
    family: api.IPFamily,
    by_ports: Mapping[Ports, Sequence[api.Pod]],
    nodes: Mapping[str, api.Node],
) -> list[api.EndpointSlice]:
    slices: list[api.EndpointSlice] = []
    for ports, pods in by_ports.items():
        endpoints = [
            _endpoint(service, pod, address, nodes.get(pod.node_name))
            for pod in pods
            for address in pod.ips
            if family_of(address) == family.number
        ]
        for begin in range(0, len(endpoints), MOST_ENDPOINTS):
            part = tuple(endpoints[begin : begin + MOST_ENDPOINTS])
            slices.append(_slice(service, family, part, ports, len(slices)))
    return slices or [_slice(service, family, (), (), 0)]


def _endpoint(service: api.Service, pod: api.Pod, address: str, node: api.Node | None) -> api.Endpoint:
    ready = service.spec.publish_not_ready_addresses or (pod.ready and not pod.terminating)
    named = bool(pod.spec.hostname) and pod.spec.subdomain == service.name
    zone = node.zone if node else ""
    return api.Endpoint(
        addresses=(address,),
        conditions=api.EndpointConditions(ready=ready, serving=pod.ready, terminating=pod.terminating),
        hostname=pod.spec.hostname if named else None,
        node_name=pod.node_name or None,
        zone=zone or None,
        target_ref=ObjectReference(kind="Pod", namespace=pod.namespace, name=pod.name, uid=pod.metadata.uid),
        hints=_hints(service.spec.traffic_distribution, zone, pod.node_name) if ready else None,
    )


def _hints(wanted: api.TrafficDistribution | None, zone: str, node: str) -> api.EndpointHints | None:
    if wanted is None:
        return None
    nodes = (ForNode(name=node),) if wanted is api.TrafficDistribution.PREFER_SAME_NODE and node else ()
    zones = (ForZone(name=zone),) if zone else ()
    return api.EndpointHints(for_zones=zones, for_nodes=nodes) if zones or nodes else None


def _slice(
    service: api.Service, family: api.IPFamily, endpoints: tuple[api.Endpoint, ...], ports: Ports, index: int
) -> api.EndpointSlice:
    own = {key: value for key, value in service.labels.items() if key not in (MANAGED_BY, _SERVICE_NAME, _HEADLESS)}
    headless = {_HEADLESS: ""} if service.headless else {}
    prefix = f"{service.name}-"
    owner = api.OwnerReference(
        api_version="v1", kind="Service", name=service.name, uid=service.metadata.uid, controller=True,
        block_owner_deletion=True,
    )  # fmt: skip
    return api.EndpointSlice(
        metadata=api.ObjectMeta(
            name=prefix[:58] + name_suffix("slice", service.key, family, str(index)),
            generate_name=prefix,
            namespace=service.namespace,
            labels={**own, **headless, MANAGED_BY: _CONTROLLER, _SERVICE_NAME: service.name},
            owner_references=(owner,),
        ),
        address_type=api.AddressType(family),
        endpoints=endpoints,
        ports=ports,
    )
