"""The cluster as it stands: every object with its node, its addresses and its ports.

`Resolved` is what the rest of the package works on. It is a value: looking something up never changes it. A name that
is not there raises `UnknownName` with those that come close.

It also answers who listens. Nothing in Kubernetes says where a process listens; `containerPorts` are what the author
wrote down. A pod listens on those; a pod that declares none is assumed to listen where the Services that select it
send traffic; the annotation `k8snetlab.io/listen` overrules both.

Guide section 1.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import NamedTuple

import msgspec

from k8snetlab import api
from k8snetlab.api.pod import LISTEN, listen_annotation
from k8snetlab.controllers.networks import Networks
from k8snetlab.errors import UnknownName
from k8snetlab.services import legacy, targets

__all__ = ["Listener", "Resolved", "listens"]

_WORKLOADS = {
    "deploy": "Deployment", "deployment": "Deployment", "rs": "ReplicaSet", "replicaset": "ReplicaSet",
    "sts": "StatefulSet", "statefulset": "StatefulSet", "ds": "DaemonSet", "daemonset": "DaemonSet", "job": "Job",
}  # fmt: skip


class Listener(NamedTuple):
    """A port a pod listens on. `assumed`: nobody wrote it down, but a Service sends traffic there."""

    protocol: api.Protocol
    port: int
    assumed: bool = False


def listens(pod: api.Pod, services: Iterable[api.Service]) -> tuple[Listener, ...]:
    """Where a pod listens, given the Services that select it: each port once, in the order of the manifest."""
    if LISTEN in pod.annotations:
        said = listen_annotation(pod.annotations[LISTEN])
        return tuple(dict.fromkeys(Listener(protocol, port) for protocol, port in said))
    declared = (
        Listener(port.protocol, port.container_port) for container in pod.listeners() for port in container.ports
    )
    found = tuple(dict.fromkeys(declared))
    if found:
        return found
    targets = (
        Listener(port.protocol, port.target_port, assumed=True)
        for service in services
        for port in service.spec.ports
        if isinstance(port.target_port, int)
    )
    return tuple(dict.fromkeys(targets))


class Resolved(msgspec.Struct, frozen=True, dict=True):
    """All objects of a cluster. `assumed` names those that nobody wrote (by `ref`); `replicas` the pods of each
    workload."""

    networks: Networks
    objects: tuple[api.Object, ...]
    assumed: tuple[str, ...] = ()
    replicas: Mapping[str, tuple[str, ...]] = {}

    # By kind

    def of(self, kind: type[api.KindT]) -> tuple[api.KindT, ...]:
        """The objects of a kind: `cluster.of(api.NetworkPolicy)`."""
        if kind is api.Endpoints:
            return self.endpoints  # type: ignore[return-value]
        return self._by_kind.get(kind, ())  # type: ignore[return-value]

    @property
    def nodes(self) -> tuple[api.Node, ...]:
        """The machines, in the order they joined."""
        return self.of(api.Node)

    @property
    def pods(self) -> tuple[api.Pod, ...]:
        """All pods, in the order of their making, also those without a node or a network."""
        return self.of(api.Pod)

    @property
    def services(self) -> tuple[api.Service, ...]:
        """All Services, with addresses and node ports."""
        return self.of(api.Service)

    @property
    def endpoint_slices(self) -> tuple[api.EndpointSlice, ...]:
        """All EndpointSlices, given and made."""
        return self.of(api.EndpointSlice)

    @cached_property
    def endpoints(self) -> tuple[api.Endpoints, ...]:
        """All Endpoints objects: those that people wrote, and what the controller of the deprecated API writes for
        every Service with a selector. Nothing reads them any more, so they are made only when somebody asks."""
        there = {each.key: each for each in self._by_kind.get(api.Endpoints, ()) if isinstance(each, api.Endpoints)}
        known = {pod.namespace for pod in self.pods}
        for service in self.services:
            if targets.has_controller(service) and (service.key not in there or service.namespace in known):
                writer = legacy.EndpointsObject(service, there.get(service.key))
                written = writer.sync(self.meant_by(service))[0].written
                if written is not None:
                    there[service.key] = written
        return tuple(there.values())

    @property
    def namespaces(self) -> tuple[api.Namespace, ...]:
        """All namespaces, written down or only used."""
        return self.of(api.Namespace)

    # By name

    def node(self, name: str) -> api.Node:
        """The node of that name, or `UnknownName`."""
        return self._named(api.Node, name, "node")

    def pod(self, key: str) -> api.Pod:
        """The pod `NAMESPACE/NAME`, or `UnknownName`."""
        return self._named(api.Pod, key, "pod")

    def service(self, key: str) -> api.Service:
        """The Service `NAMESPACE/NAME`, or `UnknownName`."""
        return self._named(api.Service, key, "Service")

    def namespace(self, name: str) -> api.Namespace:
        """The namespace of that name, or `UnknownName`."""
        return self._named(api.Namespace, name, "namespace")

    def named(self, ref: str) -> api.Object | None:
        """The object of that `ref`, such as `Service shop/api`, if it is there."""
        return self._by_ref.get(ref)

    # What belongs together

    def pods_on(self, node: str) -> tuple[api.Pod, ...]:
        """The pods that run, or ran, on a node; empty for a name that is none."""
        return self._by_node.get(node, ())

    def pods_of(self, workload: str) -> tuple[api.Pod, ...]:
        """The pods of a workload: `deploy/shop/web`, `sts/shop/db`, `ds/…`, `rs/…`, `job/…`. `UnknownName` if it is
        not there."""
        short, _, key = workload.partition("/")
        kind = _WORKLOADS.get(short.lower())
        if kind is None:
            raise UnknownName("kind of workload", short, _WORKLOADS)
        keys = self.replicas.get(f"{kind} {key}")
        if keys is None:
            known = [ref.removeprefix(f"{kind} ") for ref in self.replicas if ref.startswith(f"{kind} ")]
            raise UnknownName(kind, key, known)
        return tuple(self.pod(each) for each in keys)

    def services_of(self, pod: api.Pod) -> tuple[api.Service, ...]:
        """The Services whose selector means the pod."""
        return self._by_pod.get(pod.key, ())

    def meant_by(self, service: api.Service) -> tuple[api.Pod, ...]:
        """The pods that the selector of a Service means."""
        return self._meant.get(service.key, ())

    def slices_of(self, service: str) -> tuple[api.EndpointSlice, ...]:
        """The EndpointSlices of the Service `NAMESPACE/NAME`."""
        return self._by_service.get(service, ())

    def listens(self, pod: api.Pod) -> tuple[Listener, ...]:
        """Where a pod listens: protocol, port, and whether that is assumed."""
        return listens(pod, self.services_of(pod))

    # Indexes, made when first asked for

    def _named(self, kind: type[api.KindT], key: str, what: str) -> api.KindT:
        found = self._by_ref.get(f"{kind.kind} {key}")
        if isinstance(found, kind):
            return found
        raise UnknownName(what, key, (each.key for each in self.of(kind)))

    @cached_property
    def _by_kind(self) -> dict[type[api.Object], tuple[api.Object, ...]]:
        found: dict[type[api.Object], list[api.Object]] = {}
        for each in self.objects:
            found.setdefault(type(each), []).append(each)
        return {kind: tuple(objects) for kind, objects in found.items()}

    @cached_property
    def _by_ref(self) -> dict[str, api.Object]:
        return {each.ref: each for each in self.objects}

    @cached_property
    def _by_node(self) -> dict[str, tuple[api.Pod, ...]]:
        found: dict[str, list[api.Pod]] = {}
        for pod in self.pods:
            found.setdefault(pod.node_name, []).append(pod)
        return {node: tuple(pods) for node, pods in found.items() if node}

    @cached_property
    def _by_service(self) -> dict[str, tuple[api.EndpointSlice, ...]]:
        found: dict[str, list[api.EndpointSlice]] = {}
        for each in self.endpoint_slices:
            found.setdefault(f"{each.namespace}/{each.service_name}", []).append(each)
        return {service: tuple(each) for service, each in found.items()}

    @cached_property
    def _meant(self) -> dict[str, tuple[api.Pod, ...]]:
        return targets.selected(self.services, self.pods)

    @cached_property
    def _by_pod(self) -> dict[str, tuple[api.Service, ...]]:
        found: dict[str, list[api.Service]] = {}
        for service in self.services:
            for pod in self.meant_by(service):
                found.setdefault(pod.key, []).append(service)
        return {pod: tuple(services) for pod, services in found.items()}
