"""What does every cluster have that nobody writes into a manifest?

Manifests without a Node are an application, not a cluster. They run on a cluster as it comes out of the box: some
workers, the Service `default/kubernetes` in front of the API server, and DNS. Manifests with a Node are a cluster
already, and nothing is added to it.

When pods in the input name other nodes than those, they are the nodes; their addresses are read off the pods' `hostIP`.

Not modelled: control-plane nodes as places for pods; the API server is an address on the underlay. Guide section 1.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from k8snetlab import api
from k8snetlab.address import family
from k8snetlab.controllers.machines import CONTROL_PLANE_INDEX, ZONE, numbered
from k8snetlab.controllers.networks import Networks, Plan
from k8snetlab.errors import BadOption, Problem
from k8snetlab.services.mirroring import SKIP

__all__ = ["namespaces", "objects"]

DNS_INDEX = 10
"""The address of the DNS Service in the Service network: 10.96.0.10."""

_DNS = {"k8s-app": "kube-dns"}


def objects(manifests: api.Manifests, networks: Networks, plan: Plan) -> tuple[api.Object, ...]:
    """What is added to the manifests: nothing if they name a Node, else workers, the API server's Service and DNS."""
    if manifests.of(api.Node):
        return ()
    there = {each.ref for each in manifests.objects}
    added = (*_nodes(manifests, networks, plan), *_api_server(networks), *_dns(manifests, networks))
    return tuple(each for each in added if each.ref not in there)


def namespaces(given: Sequence[api.Object]) -> tuple[api.Namespace, ...]:
    """A Namespace for each name that objects use and nobody wrote down: an object cannot exist without its
    namespace."""
    there = {each.name for each in given if isinstance(each, api.Namespace)}
    used = {each.namespace for each in given if each.namespaced}
    return tuple(api.namespace_object(name) for name in sorted(used - there))


def _nodes(manifests: api.Manifests, networks: Networks, plan: Plan) -> Iterator[api.Node]:
    if plan.nodes < 1:
        raise BadOption(Problem(f"a cluster has at least one node, not {plan.nodes}", field="nodes"))
    named = {pod.node_name for pod in manifests.of(api.Pod) if pod.node_name}
    usual = [f"node-{each}" for each in range(1, plan.nodes + 1)]
    zones = len(networks.zones())
    for index, name in enumerate(usual if named <= {*usual} else sorted(named)):
        labels = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
        if zones > 1:
            labels[ZONE] = f"zone-{_letters(index % zones)}"
        yield api.Node(metadata=api.ObjectMeta(name=name, labels=labels), status=_status(name, manifests, networks))


def _letters(index: int) -> str:
    return chr(ord("a") + index) if index < 26 else _letters(index // 26 - 1) + _letters(index % 26)


def _status(name: str, manifests: api.Manifests, networks: Networks) -> api.NodeStatus:
    shown = next((p.status for p in manifests.of(api.Pod) if p.node_name == name and p.status.host_ip), None)
    hosts = [each.ip for each in shown.host_ips] or [shown.host_ip] if shown else []
    own = tuple(api.NodeAddress(type="InternalIP", address=each) for each in hosts if family(each) in networks.families)
    # A kubelet takes 110 pods unless it is told otherwise.
    return api.NodeStatus(
        addresses=own, allocatable={"pods": "110"}, conditions=(api.NodeCondition(type="Ready", status="True"),)
    )


def _api_server(networks: Networks) -> Iterator[api.Object]:
    """The Service that the API server writes for itself, and the slice and the Endpoints with its own address. Its
    family is the primary one."""
    of = api.IPFamily.of(networks.families[0])
    block = next(block for block in networks.nodes if block.family == of.number)
    address = numbered(block, CONTROL_PLANE_INDEX)
    yield api.Service(
        metadata=api.ObjectMeta(
            name="kubernetes", namespace="default", labels={"component": "apiserver", "provider": "kubernetes"}
        ),
        spec=api.ServiceSpec(
            ports=(api.ServicePort(name="https", port=443, target_port=6443),),
            cluster_ip=networks.services[0].address(1),
        ),
    )
    yield api.EndpointSlice(
        metadata=api.ObjectMeta(
            name="kubernetes", namespace="default", labels={"kubernetes.io/service-name": "kubernetes"}
        ),
        address_type=api.AddressType(of),
        endpoints=(api.Endpoint(addresses=(address,), conditions=api.EndpointConditions(ready=True)),),
        ports=(api.EndpointPort(name="https", port=6443),),
    )
    yield api.Endpoints(
        metadata=api.ObjectMeta(name="kubernetes", namespace="default", labels={SKIP: "true"}),
        subsets=(
            api.EndpointSubset(
                addresses=(api.EndpointAddress(ip=address),), ports=(api.SubsetPort(name="https", port=6443),)
            ),
        ),
    )


def _dns(manifests: api.Manifests, networks: Networks) -> Iterator[api.Object]:
    """CoreDNS as kubeadm installs it: a Service at the tenth address, and two pods. Not twice, whatever the input
    calls it."""
    servers = (
        *((pod.namespace, pod.labels) for pod in manifests.of(api.Pod)),
        *((each.namespace, each.spec.template.metadata.labels) for each in manifests.of(api.Deployment)),
        *((each.namespace, each.spec.template.metadata.labels) for each in manifests.of(api.DaemonSet)),
    )
    brought = any(namespace == "kube-system" and api.has_labels(labels, _DNS) for namespace, labels in servers)
    yield api.Service(
        metadata=api.ObjectMeta(
            name="kube-dns", namespace="kube-system", labels={**_DNS, "kubernetes.io/name": "CoreDNS"}
        ),
        spec=api.ServiceSpec(
            selector=_DNS,
            cluster_ip=networks.services[0].address(DNS_INDEX),
            ports=tuple(
                api.ServicePort(name=name, port=port, protocol=protocol, target_port=port)
                for name, port, protocol in _DNS_PORTS
            ),
        ),
    )
    if brought:
        return
    container = api.Container(
        name="coredns",
        image="registry.k8s.io/coredns/coredns",
        ports=tuple(
            api.ContainerPort(name=name, container_port=port, protocol=protocol) for name, port, protocol in _DNS_PORTS
        ),
    )
    yield api.Deployment(
        metadata=api.ObjectMeta(name="coredns", namespace="kube-system", labels=_DNS),
        spec=api.DeploymentSpec(
            replicas=2,
            selector=api.LabelSelector(match_labels=_DNS),
            template=api.PodTemplateSpec(
                metadata=api.ObjectMeta(labels=_DNS),
                spec=api.PodSpec(containers=(container,), dns_policy=api.DNSPolicy.DEFAULT),
            ),
        ),
    )


_DNS_PORTS = (
    ("dns", 53, api.Protocol.UDP),
    ("dns-tcp", 53, api.Protocol.TCP),
    ("metrics", 9153, api.Protocol.TCP),
)
