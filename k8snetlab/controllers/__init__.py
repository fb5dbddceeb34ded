"""What do the manifests become in a running cluster?

A manifest says what is wanted. Controllers, scheduler and allocators make it so: Deployments become Pods, Pods get a
node and an address, Services get addresses and ports, EndpointSlices say who answers. This room does all of that in
one pure step, `resolved`: the same manifests and the same plan give the same cluster, down to the letters in the
pods' names.

The order is the order of a real start, and the order of the modules:

1. `networks`: which address ranges the cluster has, and that they do not overlap;
2. `assumed`: what a cluster has beside the manifests (nodes, the API server's Service, DNS), when they name no Node;
3. `machines`: addresses and pod ranges of the nodes;
4. `workloads`: Deployments and the others become Pods;
5. `scheduler`: each Pod gets a node, or stays Pending with a reason;
6. `addresses`: Pods get addresses from the IPAM of the CNI; `exposure`: Services get theirs, and node ports;
   `ingress`: load balancers theirs, if somebody gives them some;
7. EndpointSlices (`services.slices`) from the two, and mirrors of Endpoints that people wrote (`services.mirroring`).

What a dump of a live cluster already says is kept: names, nodes, addresses, conditions, slices. Not modelled: time.
Nothing rolls out, restarts or waits; a CronJob has no pods between its times. Guide sections 1.1 and 1.2.
"""

from __future__ import annotations

import msgspec

from k8snetlab import api
from k8snetlab.cni.ipam import Ipam, host_local
from k8snetlab.controllers import addresses, assumed, exposure, ingress, machines, scheduler, workloads
from k8snetlab.controllers.networks import Networks, Plan, networks_of
from k8snetlab.controllers.registry import Registry
from k8snetlab.controllers.resolved import Listener, Resolved, listens
from k8snetlab.errors import LabError
from k8snetlab.services import mirroring, slices, targets

__all__ = ["Ipam", "Listener", "Networks", "Plan", "Registry", "Resolved", "host_local", "listens", "resolved"]


def resolved(
    manifests: api.Manifests,
    plan: Plan = Plan(),  # noqa: B008 - frozen
    ipam: Ipam = host_local,
    registry: Registry = Registry(),  # noqa: B008 - frozen
) -> Resolved:
    """The cluster that the manifests describe.

    `ipam` gives pods their addresses and belongs to the CNI. Services that are in the registry of the same Service
    network are as they are there. Raises `Overlap`, `AddressInUse`, `PoolExhausted`,
    `BadOption`, `UnknownName` or `ManifestError`; the problems name object and field, and file and line where they
    are known.
    """
    try:
        return _resolved(manifests, plan, ipam, registry)
    except LabError as error:
        raise error.placed(manifests.placed) from None


def _resolved(manifests: api.Manifests, plan: Plan, ipam: Ipam, registry: Registry) -> Resolved:
    networks = networks_of(manifests, plan)
    added = assumed.objects(manifests, networks, plan)
    given = (*added, *manifests.objects)
    ranges = networks if not plan.cni_pools else msgspec.structs.replace(networks, pods=())
    nodes = machines.nodes(_of(given, api.Node), _of(given, api.Pod), ranges)
    made = workloads.expanded(given, nodes)
    pods = scheduler.bound(made.pods, nodes)
    pods = addresses.addressed(pods, nodes, networks.pods, ipam)
    served = exposure.exposed(_of(given, api.Service), networks, registry.of(networks))
    served = ingress.ingressed(served, plan.pools, plan.ip_mode)
    pieces = _slices(served, pods, nodes, _of(given, api.EndpointSlice), _of(given, api.Endpoints))
    changed = (*nodes, *pods, *made.replica_sets, *served, *pieces)
    kept = tuple(each for each in given if not isinstance(each, _CHANGED))
    namespaces = assumed.namespaces((*kept, *changed))
    return Resolved(
        networks=networks,
        objects=(*namespaces, *kept, *changed),
        assumed=tuple(each.ref for each in (*namespaces, *added)),
        replicas=made.replicas,
    )


_CHANGED = (api.Node, api.Pod, api.ReplicaSet, api.Service, api.EndpointSlice)
"""The kinds that leave this room other than they came."""


def _of(objects: tuple[api.Object, ...], kind: type[api.KindT]) -> tuple[api.KindT, ...]:
    return tuple(each for each in objects if isinstance(each, kind))


def _slices(
    services: tuple[api.Service, ...],
    pods: tuple[api.Pod, ...],
    nodes: tuple[api.Node, ...],
    given: tuple[api.EndpointSlice, ...],
    endpoints: tuple[api.Endpoints, ...],
) -> tuple[api.EndpointSlice, ...]:
    """The slices people wrote, those of the controller after it looked again, and mirrors of Endpoints people wrote.

    A dump may have slices and no pods: where no pod of a namespace is known, its slices are all there is to know. It
    may have mirrors and no Endpoints: they are believed as well.
    """
    by_hand: list[api.EndpointSlice] = []
    written: dict[str, list[api.EndpointSlice]] = {}
    mirrors: dict[str, list[api.EndpointSlice]] = {}
    for each in given:
        if slices.made_by_controller([each]):
            written.setdefault(f"{each.namespace}/{each.service_name}", []).append(each)
        elif mirroring.is_mirror(each):
            mirrors.setdefault(f"{each.namespace}/{each.service_name}", []).append(each)
        else:
            by_hand.append(each)
    by_key = {service.key: service for service in services}
    for one in endpoints:
        by_hand += mirroring.mirrored(one, by_key.get(one.key), mirrors.pop(one.key, ())).slices
    meant = targets.selected(services, pods)
    by_name = {node.name: node for node in nodes}
    known = {pod.namespace for pod in pods}
    made: list[api.EndpointSlice] = []
    for service in services:
        own = tuple(written.pop(service.key, ()))
        if own and service.namespace not in known:
            made += own
        else:
            controller = slices.Slices(service, by_name, pieces=own)
            made += controller.sync(meant.get(service.key, ()))[0].pieces
    believed = (each for rest in mirrors.values() for each in rest)
    orphans = (each for rest in written.values() for each in rest if each.namespace not in known)
    return (*by_hand, *believed, *made, *orphans)
