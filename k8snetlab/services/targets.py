"""Which pods does a Service mean, and what is there to say of each?

A Service has a selector; the controllers that write EndpointSlices and Endpoints ask the same questions of every pod
that the selector finds: does it belong, which numbers do the ports have there, is it ready?

What people get wrong:

- An unready pod is an endpoint, marked so. Only pods that completed, that have no address, or whose node is gone are
  none.
- A pod that is being deleted is never ready, but may still be `serving`. `publishNotReadyAddresses` makes every pod
  ready.
- A named target port is looked up in each pod, by name and protocol; another pod may give the name to another number,
  and a third one may not have it.
- `trafficDistribution` becomes hints on the ready endpoints; kube-proxy decides what to do with them.

Not modelled: proportional zone hints (`topology-mode: Auto`); hints that are there stay. Guide section 2.2; KEP-752,
KEP-1672, KEP-2433, KEP-4444.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from k8snetlab import api
from k8snetlab.address import family as family_of
from k8snetlab.api.service import ForNode, ForZone, ObjectReference

__all__ = [
    "Ports", "belongs", "endpoint", "families", "has_controller", "host_name", "ports_of", "proportional", "reference",
    "selected",
]  # fmt: skip

Ports: TypeAlias = tuple[api.EndpointPort, ...]
"""The ports of a Service as one pod has them, in the Service's order."""


def has_controller(service: api.Service) -> bool:
    """Whether controllers write endpoints for a Service: it has a selector, and is more than a DNS name."""
    return bool(service.spec.selector) and service.spec.type is not api.ServiceType.EXTERNAL_NAME


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


def belongs(service: api.Service, pod: api.Pod, nodes: Mapping[str, api.Node]) -> bool:
    """Whether a pod that the selector means is an endpoint at all."""
    known = pod.node_name in nodes or service.spec.publish_not_ready_addresses
    return known and bool(pod.ips) and not pod.completed


def families(service: api.Service) -> tuple[api.IPFamily, ...]:
    """The families of a Service, the primary one first."""
    if service.spec.ip_families:
        return service.spec.ip_families
    return tuple(api.IPFamily.of(family_of(each)) for each in service.cluster_ips) or (api.IPFamily.IPV4,)


def ports_of(service: api.Service, pod: api.Pod) -> Ports:
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


def endpoint(service: api.Service, pod: api.Pod, node: api.Node | None, family: api.IPFamily) -> api.Endpoint | None:
    """The pod as an EndpointSlice names it, or None if it has no address of the family."""
    addresses = tuple(address for address in pod.ips if family_of(address) == family.number)
    if not addresses:
        return None
    ready = service.spec.publish_not_ready_addresses or (pod.ready and not pod.terminating)
    zone = node.zone if node else ""
    return api.Endpoint(
        addresses=addresses,
        conditions=api.EndpointConditions(ready=ready, serving=pod.ready, terminating=pod.terminating),
        hostname=host_name(service, pod) or None,
        node_name=pod.node_name or None,
        zone=zone or None,
        target_ref=reference(pod),
        hints=_hints(service, zone, pod.node_name) if ready else None,
    )


def reference(pod: api.Pod) -> ObjectReference:
    """How an endpoint says which pod it is."""
    return ObjectReference(kind="Pod", namespace=pod.namespace, name=pod.name, uid=pod.metadata.uid)


def host_name(service: api.Service, pod: api.Pod) -> str:
    """The name that the pod has in the Service's DNS domain; empty unless its subdomain is the Service's name."""
    return pod.spec.hostname if pod.spec.subdomain == service.name else ""


_PROPORTIONAL = ("service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode")


def proportional(service: api.Service) -> bool:
    """Whether the Service asks for hints by the processors of each zone; `trafficDistribution` then does not count."""
    said = next((service.annotations[key] for key in _PROPORTIONAL if key in service.annotations), "")
    return said in ("Auto", "auto")


def _hints(service: api.Service, zone: str, node: str) -> api.EndpointHints | None:
    wanted = service.spec.traffic_distribution
    if wanted is None or proportional(service):
        return None
    nodes = (ForNode(name=node),) if wanted is api.TrafficDistribution.PREFER_SAME_NODE and node else ()
    zones = (ForZone(name=zone),) if zone else ()
    return api.EndpointHints(for_zones=zones, for_nodes=nodes) if zones or nodes else None
