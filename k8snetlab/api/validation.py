"""Would the API server take this object?

Types say what a field may hold; here are the rules that tie fields together, or that no type can say: what a name may
look like, that several ports need names, that a pod has a container. Each rule is a small generator of `(field,
message)`; `RULES` lists them by kind, so the list is the documentation. Services and policies have so many that they
stand in `service_rules` and `policy_rules`. Thousands of pods are asked at a time, so for these a value is looked at
first, and where it stands is put into words only if it is wrong.

Not modelled: rules about what networking never reads (volumes, resources, security contexts), and rules that need the
old object (immutable fields). Source: k8s.io/kubernetes/pkg/apis/*/validation, Kubernetes 1.37.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from k8snetlab.address import family
from k8snetlab.api.base import Object, spelled
from k8snetlab.api.cluster_policies import ClusterNetworkPolicy
from k8snetlab.api.core import Namespace, Node, Secret
from k8snetlab.api.networking import (
    Ingress,
    IngressBackend,
    NetworkPolicy,
    PathType,
)
from k8snetlab.api.pod import LISTEN, Container, DNSPolicy, Pod, PodTemplateSpec, RestartPolicy, listen_annotation
from k8snetlab.api.policy_rules import cluster_policy_rules, policy_rules, selector_rules
from k8snetlab.api.service import AddressType, Endpoints, EndpointSlice, Service
from k8snetlab.api.service_rules import service_rules
from k8snetlab.api.syntax import (
    IS_LABEL,
    IS_PORT_NAME,
    IS_SUBDOMAIN,
    Broken,
    block_of,
    is_address,
    is_label,
    is_port_name,
    is_subdomain,
)
from k8snetlab.api.workloads import CronJob, DaemonSet, Deployment, Job, ReplicaSet, StatefulSet

__all__ = ["broken_rules"]


def broken_rules(made: Object) -> Broken:
    """Every rule the object breaks, as `(field, message)`; nothing for a good object."""
    yield from _metadata(made)
    for rule in RULES.get(type(made), ()):
        yield from rule(made)
    if made.kind == "CiliumNetworkPolicy":
        from k8snetlab.api.cilium import CiliumNetworkPolicy, cilium_policy_rules  # loaded when there is one

        assert isinstance(made, CiliumNetworkPolicy)
        yield from cilium_policy_rules(made)
    if made.api_version.startswith("gateway."):
        from k8snetlab.api.gateway_rules import gateway_rules  # likewise

        yield from gateway_rules(made)


# --- names ------------------------------------------------------------------------------------------------------------


def _metadata(made: Object) -> Broken:
    name, field = made.metadata.name, "metadata.name"
    if not name:
        yield field, "is required"
    elif isinstance(made, (Namespace, Service)):
        yield from _label(field, name)  # a Service may begin with a digit since 1.36, for good since 1.37 (KEP-5311)
    elif not is_subdomain(name):
        yield field, f"{name!r} is not {IS_SUBDOMAIN}"
    if made.metadata.namespace and not is_label(made.metadata.namespace):
        yield from _label("metadata.namespace", made.metadata.namespace)


def _label(field: str, value: str) -> Broken:
    if not is_label(value):
        yield field, f"{value!r} is not {IS_LABEL}"


def _subdomain(field: str, value: str) -> Broken:
    if not is_subdomain(value):
        yield field, f"{value!r} is not {IS_SUBDOMAIN}"


def _port_name(field: str, value: str) -> Broken:
    if not is_port_name(value):
        yield field, f"{value!r} is not {IS_PORT_NAME}"


def _port_reference(field: str, value: int | str | None) -> Broken:
    if isinstance(value, str):
        yield from _port_name(field, value)
    elif value == 0:
        yield field, "must be between 1 and 65535, not 0"


def _port_number(field: str, value: int) -> Broken:
    """A port that 0 leaves open."""
    if not 0 <= value <= 65535:
        yield field, f"must be between 1 and 65535, not {value}"


def _twice(field: str, values: Iterable[object], what: str) -> Broken:
    seen: set[object] = set()
    for index, value in enumerate(values):
        if value in seen:
            yield field.format(index), f"{what} {value} is there twice"
        seen.add(value)


# --- addresses --------------------------------------------------------------------------------------------------------


def _address(field: str, value: str) -> Broken:
    if not is_address(value):
        yield field, f"{value!r} is not an IP address"


def _cidr(field: str, value: str) -> Broken:
    if block_of(value) is None or "/" not in value:
        yield field, f"{value!r} is not a CIDR block such as 10.0.0.0/8 or fd00::/64"


def _two_families(field: str, values: tuple[str, ...]) -> Broken:
    if len(values) > 2 or (len(values) == 2 and family(values[0]) == family(values[1])):
        yield field, "has at most two entries, one of each family"


# --- nodes and pods ---------------------------------------------------------------------------------------------------


def _node(node: Node) -> Broken:
    for index, cidr in enumerate(node.spec.pod_cidrs):
        yield from _cidr(f"spec.podCIDRs[{index}]", cidr)
    yield from _two_families("spec.podCIDRs", node.spec.pod_cidrs)
    if node.spec.pod_cidrs and node.spec.pod_cidr != node.spec.pod_cidrs[0]:
        yield "spec.podCIDR", f"must be the first of podCIDRs, {node.spec.pod_cidrs[0]}"
    for index, each in enumerate(node.status.addresses):
        if each.type in ("InternalIP", "ExternalIP"):
            yield from _address(f"status.addresses[{index}].address", each.address)


def _pod(pod: Pod) -> Broken:
    yield from _pod_spec("", pod)
    for index, each in enumerate(pod.status.pod_ips):
        if not is_address(each.ip):
            yield from _address(f"status.podIPs[{index}].ip", each.ip)
    if pod.status.pod_ip and not is_address(pod.status.pod_ip):
        yield from _address("status.podIP", pod.status.pod_ip)
    if len(pod.status.pod_ips) > 1:
        yield from _two_families("status.podIPs", pod.status.ips)
    if LISTEN in pod.metadata.annotations:
        yield from _listen("", pod.metadata.annotations)


def _listen(prefix: str, annotations: Mapping[str, str]) -> Broken:
    if LISTEN not in annotations:
        return
    try:
        listen_annotation(annotations[LISTEN])
    except ValueError as error:
        yield f"{prefix}{spelled(('metadata', 'annotations', LISTEN))}", str(error)


def _pod_spec(prefix: str, holder: Pod | PodTemplateSpec) -> Broken:
    spec, field = holder.spec, f"{prefix}spec"
    if not spec.containers:
        yield f"{field}.containers", "is required: a pod has at least one container"
    names: list[str] = []
    for what, containers in (
        ("containers", spec.containers),
        ("initContainers", spec.init_containers),
        ("ephemeralContainers", spec.ephemeral_containers),
    ):
        for index, container in enumerate(containers):
            if container.name in names:
                yield f"{field}.{what}[{index}].name", f"{container.name!r} is the name of two containers"
            names.append(container.name)
            for at, message in _container(container, host_network=spec.host_network):
                yield f"{field}.{what}[{index}].{at}", message
    for name, value in (("hostname", spec.hostname), ("subdomain", spec.subdomain)):
        if value:
            yield from _label(f"{field}.{name}", value)
    nameservers = spec.dns_config.nameservers if spec.dns_config else ()
    for index, server in enumerate(nameservers):
        yield from _address(f"{field}.dnsConfig.nameservers[{index}]", server)
    if spec.dns_policy is DNSPolicy.NONE and not nameservers:
        yield f"{field}.dnsConfig.nameservers", "is required with dnsPolicy None"
    for index, alias in enumerate(spec.host_aliases):
        yield from _address(f"{field}.hostAliases[{index}].ip", alias.ip)


def _container(container: Container, *, host_network: bool) -> Broken:
    if not is_label(container.name):
        yield from _label("name", container.name)
    for index, port in enumerate(container.ports):
        if port.name and not is_port_name(port.name):
            yield from _port_name(f"ports[{index}].name", port.name)
        if port.host_port:
            yield from _port_number(f"ports[{index}].hostPort", port.host_port)
            if host_network and port.host_port != port.container_port:
                yield f"ports[{index}].hostPort", "must equal containerPort with hostNetwork"
        if port.host_ip:
            yield from _address(f"ports[{index}].hostIP", port.host_ip)
    named = [port.name for port in container.ports if port.name]
    if len(set(named)) < len(named):
        yield from _twice("ports", named, "the name")
    for what, probe in (
        ("livenessProbe", container.liveness_probe),
        ("readinessProbe", container.readiness_probe),
        ("startupProbe", container.startup_probe),
    ):
        if probe is None:
            continue
        for how, action in (("httpGet", probe.http_get), ("tcpSocket", probe.tcp_socket)):
            if action:
                yield from _port_reference(f"{what}.{how}.port", action.port)


# --- workloads --------------------------------------------------------------------------------------------------------


def _workload(made: Deployment | ReplicaSet | StatefulSet | DaemonSet) -> Broken:
    yield from selector_rules("spec.selector", made.spec.selector)
    selector, template = made.spec.selector, made.spec.template
    if not selector.match_labels and not selector.match_expressions:
        yield "spec.selector", "must not be empty: it would mean every pod of the namespace"
    if template is None:
        yield "spec.template", "is required"
        return
    yield from _pod_spec("spec.template.", template)
    yield from _listen("spec.template.", template.metadata.annotations)
    if not selector.matches(template.metadata.labels):
        yield "spec.template.metadata.labels", "do not match spec.selector, so the pods would never be found again"
    if template.spec.restart_policy is not RestartPolicy.ALWAYS:
        yield "spec.template.spec.restartPolicy", f"must be Always, not {template.spec.restart_policy}"


def _job(job: Job) -> Broken:
    yield from _job_template("spec.template.", job.spec.template)


def _cron_job(cron: CronJob) -> Broken:
    schedule = cron.spec.schedule
    if len(schedule.split()) != 5 and not schedule.startswith("@"):
        message = f"{schedule!r} is not five fields (minute, hour, day, month, weekday) nor @hourly and its like"
        yield "spec.schedule", message
    yield from _job_template("spec.jobTemplate.spec.template.", cron.spec.job_template.spec.template)


def _job_template(prefix: str, template: PodTemplateSpec) -> Broken:
    yield from _pod_spec(prefix, template)
    yield from _listen(prefix, template.metadata.annotations)
    if template.spec.restart_policy is RestartPolicy.ALWAYS:
        yield f"{prefix}spec.restartPolicy", "must be OnFailure or Never: the pods of a Job come to an end"


# --- EndpointSlices ---------------------------------------------------------------------------------------------------


def _slice(made: EndpointSlice) -> Broken:
    for index, endpoint in enumerate(made.endpoints):
        if not endpoint.addresses:
            yield f"endpoints[{index}].addresses", "is required"
        if made.address_type is AddressType.FQDN:
            continue
        wanted = 4 if made.address_type is AddressType.IPV4 else 6
        for at, each in enumerate(endpoint.addresses):
            if not is_address(each) or family(each) != wanted:
                yield f"endpoints[{index}].addresses[{at}]", f"{each!r} is not an {made.address_type} address"
    yield from _twice("ports[{}].name", [port.name or "" for port in made.ports], "the name")
    for index, port in enumerate(made.ports):
        if port.port is not None and not 1 <= port.port <= 65535:
            yield f"ports[{index}].port", f"must be between 1 and 65535, not {port.port}"


def _endpoints(made: Endpoints) -> Broken:
    for index, subset in enumerate(made.subsets):
        where = f"subsets[{index}]"
        if not subset.addresses and not subset.not_ready_addresses:
            yield where, "has neither addresses nor notReadyAddresses"
        for field, held in (("addresses", subset.addresses), ("notReadyAddresses", subset.not_ready_addresses)):
            for at, each in enumerate(held):
                yield from _address(f"{where}.{field}[{at}].ip", each.ip)
        yield from _twice(where + ".ports[{}].name", [port.name for port in subset.ports], "the name")
        if len(subset.ports) > 1:
            for at, port in enumerate(subset.ports):
                if not port.name:
                    yield f"{where}.ports[{at}].name", "is required when there is more than one port"


# --- ingress ----------------------------------------------------------------------------------------------------------


def _ingress(ingress: Ingress) -> Broken:
    spec = ingress.spec
    if not spec.rules and spec.default_backend is None:
        yield "spec", "must have rules or a defaultBackend"
    if spec.default_backend is not None:
        yield from _backend("spec.defaultBackend", spec.default_backend)
    for index, rule in enumerate(spec.rules):
        if rule.host:
            yield from _ingress_host(f"spec.rules[{index}].host", rule.host)
        for at, path in enumerate(rule.http.paths if rule.http else ()):
            place = f"spec.rules[{index}].http.paths[{at}]"
            yield from _backend(f"{place}.backend", path.backend)
            rooted = path.path.startswith("/") or (path.path_type is PathType.IMPLEMENTATION_SPECIFIC and not path.path)
            if not rooted:
                yield f"{place}.path", f"{path.path!r} must begin with '/'"


def _ingress_host(field: str, host: str) -> Broken:
    if is_address(host):
        yield field, f"{host!r} must be a DNS name, not an address"
    else:
        yield from _subdomain(field, host.removeprefix("*."))


def _backend(place: str, backend: IngressBackend) -> Broken:
    if backend.service is None:
        if not isinstance(backend.resource, Mapping):
            yield place, "must name a service or a resource"
        return
    port = backend.service.port
    if bool(port.name) == bool(port.number):
        yield f"{place}.service.port", "must have a name or a number"
    yield from _port_number(f"{place}.service.port.number", port.number)


# --- secrets ----------------------------------------------------------------------------------------------------------


def _secret(secret: Secret) -> Broken:
    for key, value in secret.data.items():
        try:
            base64.b64decode(value.replace("\n", ""), validate=True)
        except (binascii.Error, ValueError):
            yield spelled(("data", key)), "is not base64; plain text goes into stringData"
    if secret.type == "kubernetes.io/tls":
        for key in ("tls.crt", "tls.key"):
            if key not in secret.data and key not in secret.string_data:
                yield spelled(("data", key)), "is required with type kubernetes.io/tls"


RULES: Mapping[type[Object], tuple[Callable[[Any], Broken], ...]] = {
    Node: (_node,),
    Pod: (_pod,),
    Deployment: (_workload,),
    ReplicaSet: (_workload,),
    StatefulSet: (_workload,),
    DaemonSet: (_workload,),
    Job: (_job,),
    CronJob: (_cron_job,),
    Service: (service_rules,),
    EndpointSlice: (_slice,),
    Endpoints: (_endpoints,),
    NetworkPolicy: (policy_rules,),
    ClusterNetworkPolicy: (cluster_policy_rules,),
    Ingress: (_ingress,),
    Secret: (_secret,),
}
"""The rules of each kind, beside those of every object's metadata."""
