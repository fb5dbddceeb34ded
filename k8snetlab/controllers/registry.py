"""What does the API server make of a change to a Service?

Nobody writes a whole Service each time. What was allocated comes back by itself where the new text does not say it;
what the new type has no use for is taken away; the rest must not contradict what is there. In the API server's order:

1. Values that it allocated and that the new text leaves out are put back: addresses, node ports (found by the port's
   number and protocol in what is applied, then by its name), the port for health checks.
2. `clusterIP` and `clusterIPs`, two spellings of one thing, are brought in line.
3. The families are settled (`families`), and what is new is allocated (`exposure`).
4. What the new type has no use for goes, if the new text left it alone; its addresses and ports are free again.
5. What may not change is compared with what it was, and the whole is judged like a new Service (`api.service_rules`).

| change | goes | comes |
|---|---|---|
| to ExternalName | addresses, families, policy, node ports | |
| from ExternalName | | addresses, families, policy |
| to ClusterIP | node ports, health check port, `externalTrafficPolicy`, class, status of the load balancer | |
| to NodePort or LoadBalancer | | node ports that are not there yet |
| LoadBalancer to NodePort | health check port, class, `allocateLoadBalancerNodePorts`, status; node ports stay | |
| SingleStack to two | | the second address |
| two to SingleStack | the second address | |

The first address and family, `None`, the class of a load balancer and the port for health checks stay as they are as
long as the type has them.

A manifest may say the `status` here, since no cloud is there to write it. Not modelled: who owns which field (server-
side apply), conflicts of `resourceVersion`, rules for changes of other kinds. Kubernetes 1.37; KEP-563.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from k8snetlab import api
from k8snetlab.address import Prefix
from k8snetlab.api.service_rules import address_rules, service_rules, strict_rules
from k8snetlab.api.syntax import Broken, forbidden, invalid
from k8snetlab.controllers.exposure import Pools, created, shortest
from k8snetlab.controllers.families import settled
from k8snetlab.controllers.networks import Networks
from k8snetlab.errors import ManifestError, Problem

__all__ = ["Registry", "applied", "as_written", "created", "updated"]

_EXTERNAL_NAME = api.ServiceType.EXTERNAL_NAME
_SINGLE = api.IPFamilyPolicy.SINGLE_STACK


class Registry(msgspec.Struct, frozen=True):
    """The Services that an API server has, and the Service network that their addresses are of."""

    blocks: tuple[Prefix, ...] = ()
    services: tuple[api.Service, ...] = ()

    def of(self, networks: Networks) -> tuple[api.Service, ...]:
        """Its Services in a cluster of these networks: none where the Service network is another one."""
        return self.services if self.blocks == networks.services else ()


def applied(old: api.Service, new: api.Service, networks: Networks, pools: Pools) -> api.Service:
    """The Service after `kubectl apply` of a manifest: what it does not say of addresses and families stays, and a
    port that it means keeps its node port. Any other field takes its default again. Raises like `updated`.
    """
    spec, was = new.spec, old.spec
    if _has_address(old) and _has_address(new):
        families = spec.ip_families or was.ip_families
        spec = replace(spec, ip_families=families, ip_family_policy=spec.ip_family_policy or was.ip_family_policy)
    if was.from_outside and spec.from_outside:
        spec = replace(spec, ports=_with_node_ports(spec.ports, was.ports, lambda port: (port.port, port.protocol)))
    return updated(old, replace(new, spec=spec), networks, pools)


def updated(old: api.Service, new: api.Service, networks: Networks, pools: Pools) -> api.Service:
    """The Service after its text was replaced by another one, with what is allocated. `pools` know what is in use,
    the old Service's own included, and what changes is changed in them.

    Raises `ManifestError` with every rule that is broken, `AddressInUse` or `PoolExhausted`.
    """
    new = _with_metadata(_one_address(_put_back(shortest(new), old), old), old)
    _refuse(new, address_rules(new.spec))
    new = settled(new, networks.families, old)
    new = _with_addresses(new, old, pools)
    new = _with_ports(new, old, pools)
    new = _without_what_is_of_no_use(new, old)
    _refuse(new, _broken(new, old))
    pools.release(old)
    pools.hold(new)
    return new


def _refuse(service: api.Service, broken: Broken) -> None:
    problems = [Problem(message, object=service.ref, field=field) for field, message in broken]
    if problems:
        raise ManifestError(problems)


def _has_address(service: api.Service) -> bool:
    """Whether it is of a type that has a cluster address; `None` counts as one."""
    return service.spec.type is not _EXTERNAL_NAME


# --- what was allocated comes back ------------------------------------------------------------------------------------


def _put_back(new: api.Service, old: api.Service) -> api.Service:
    spec, was = new.spec, old.spec
    if _has_address(old) and _has_address(new):
        ip, ips = spec.cluster_ip or was.cluster_ip, spec.cluster_ips or was.cluster_ips
        if (ip, ips) != (spec.cluster_ip, spec.cluster_ips):
            spec = replace(spec, cluster_ip=ip, cluster_ips=ips)
    if was.from_outside and spec.from_outside:
        ports = _with_node_ports(spec.ports, was.ports, lambda port: port.name)
        spec = spec if ports == spec.ports else replace(spec, ports=ports)
    if was.checks_health and spec.checks_health and not spec.health_check_node_port:
        spec = replace(spec, health_check_node_port=was.health_check_node_port)
    return new if spec is new.spec else replace(new, spec=spec)


def _with_node_ports(
    ports: Sequence[api.ServicePort], before: Sequence[api.ServicePort], key: Callable[[api.ServicePort], object]
) -> tuple[api.ServicePort, ...]:
    """Ports with the node ports of their namesakes, except those that the new text gives out itself."""
    known = {key(port): port.node_port for port in before}
    said = {port.node_port for port in ports}
    return tuple(
        replace(port, node_port=known[key(port)])
        if not port.node_port and known.get(key(port), 0) not in said
        else port
        for port in ports
    )


def _one_address(new: api.Service, old: api.Service) -> api.Service:
    """The two spellings of the address in line: who changes `clusterIP` alone means both."""
    spec, was = new.spec, old.spec
    ips = spec.cluster_ips
    if was.cluster_ips and not ips and was.cluster_ip == spec.cluster_ip:
        ips = was.cluster_ips
    if was.cluster_ip != spec.cluster_ip and was.cluster_ips == ips:
        ips = (spec.cluster_ip,) if spec.cluster_ip else ()
    return new if ips == spec.cluster_ips else replace(new, spec=replace(spec, cluster_ips=ips))


def _with_metadata(new: api.Service, old: api.Service) -> api.Service:
    """Who and how old the object is stays; so does what a load balancer said, unless the manifest plays its part."""
    fields = ("uid", "creation_timestamp", "resource_version", "generation", "owner_references", "finalizers")
    kept = {name: getattr(old.metadata, name) for name in fields if not getattr(new.metadata, name)}
    status = new.status if new.status != api.ServiceStatus() else old.status
    return replace(new, metadata=replace(new.metadata, **kept), status=status)


# --- what is allocated ------------------------------------------------------------------------------------------------


def _with_addresses(new: api.Service, old: api.Service, pools: Pools) -> api.Service:
    if not _has_address(new) or new.headless or old.headless:
        return new
    before = len(old.spec.cluster_ips) if _has_address(old) else 0
    if len(new.spec.ip_families) <= before:
        return new
    for index in range(before, len(new.cluster_ips)):
        pools.claim_address(new, index)
    return pools.with_addresses(new)


def _with_ports(new: api.Service, old: api.Service, pools: Pools) -> api.Service:
    spec, was = new.spec, old.spec
    if spec.from_outside:
        had = {port.node_port for port in was.ports} if was.from_outside else set()
        for index, port in enumerate(spec.ports):
            if port.node_port and port.node_port not in had:
                pools.claim_port(new, f"spec.ports[{index}].nodePort", port.node_port)
        new = pools.with_missing_ports(new)
    if not new.spec.checks_health or was.checks_health:
        return new
    if new.spec.health_check_node_port:
        pools.claim_health_check(new)
    return pools.with_health_check(new)


# --- what the new type has no use for ---------------------------------------------------------------------------------


def _without_what_is_of_no_use(new: api.Service, old: api.Service) -> api.Service:
    """A field goes if the old type had a use for it, the new one has not, and the new text did not change it. If it
    did, the rules will refuse it.
    """
    gone = dict(_of_no_use(new.spec, old.spec))
    if gone:
        new = replace(new, spec=replace(new.spec, **gone))
    if new.spec.type is not api.ServiceType.LOAD_BALANCER and new.load_balancer:
        new = replace(new, status=replace(new.status, load_balancer=type(new.status.load_balancer)()))
    return new


def _of_no_use(spec: api.ServiceSpec, was: api.ServiceSpec) -> Iterator[tuple[str, object]]:
    if was.type is not _EXTERNAL_NAME and spec.type is _EXTERNAL_NAME:
        if (spec.cluster_ip, spec.cluster_ips) == (was.cluster_ip, was.cluster_ips):
            yield "cluster_ip", ""
            yield "cluster_ips", ()
        if spec.ip_families == was.ip_families:
            yield "ip_families", ()
        if spec.ip_family_policy == was.ip_family_policy:
            yield "ip_family_policy", None
    if was.from_outside and not spec.from_outside and _node_ports(spec) <= _node_ports(was):
        yield "ports", tuple(replace(port, node_port=0) for port in spec.ports)
    if was.checks_health and not spec.checks_health and spec.health_check_node_port == was.health_check_node_port:
        yield "health_check_node_port", 0
    balanced = was.type is api.ServiceType.LOAD_BALANCER and spec.type is not api.ServiceType.LOAD_BALANCER
    if balanced and spec.allocate_load_balancer_node_ports == was.allocate_load_balancer_node_ports:
        yield "allocate_load_balancer_node_ports", None
    if balanced and spec.load_balancer_class == was.load_balancer_class:
        yield "load_balancer_class", None
    inside = was.externally_accessible and not spec.externally_accessible
    if inside and spec.external_traffic_policy == was.external_traffic_policy:
        yield "external_traffic_policy", None


def _node_ports(spec: api.ServiceSpec) -> set[int]:
    return {port.node_port for port in spec.ports if port.node_port}


# --- what may not change ----------------------------------------------------------------------------------------------


def _broken(new: api.Service, old: api.Service) -> Broken:
    if (new.name, new.namespace) != (old.name, old.namespace):
        yield invalid("metadata.name", new.key, "field is immutable")
    if _has_address(old) and _has_address(new):
        yield from _other_addresses(new.spec, old.spec)
        if new.headless == old.headless is False:
            yield from _other_families(new.spec, old.spec)
    balanced = api.ServiceType.LOAD_BALANCER
    if (new.spec.type, old.spec.type) == (balanced, balanced):
        wanted = new.spec.load_balancer_class
        if wanted != old.spec.load_balancer_class:
            yield invalid("spec.loadBalancerClass", wanted, "may not change once set")
    checked = old.spec.checks_health and new.spec.checks_health
    if checked and new.spec.health_check_node_port != old.spec.health_check_node_port:
        yield forbidden("spec.healthCheckNodePort", "field is immutable")
    yield from service_rules(new)
    yield from strict_rules(new, old)


def _other_addresses(spec: api.ServiceSpec, was: api.ServiceSpec) -> Broken:
    """The first address is for ever; the second may come and go, but not be swapped."""
    for index, (before, after) in enumerate(zip(was.cluster_ips, spec.cluster_ips, strict=False)):
        if before != after and (index == 0 or len(was.cluster_ips) == len(spec.cluster_ips)):
            yield invalid(f"spec.clusterIPs[{index}]", spec.cluster_ips, "may not change once set")
    if len(spec.cluster_ips) == 1 < len(was.cluster_ips) and spec.ip_family_policy is not _SINGLE:
        why = "must be set to 'SingleStack' when releasing the secondary clusterIP"
        yield invalid("spec.ipFamilyPolicy", spec.ip_family_policy, why)


def _other_families(spec: api.ServiceSpec, was: api.ServiceSpec) -> Broken:
    same = len(spec.ip_families) == len(was.ip_families)
    changed = spec.ip_families != was.ip_families if same else spec.ip_families[:1] != was.ip_families[:1]
    if changed:
        yield invalid("spec.ipFamilies[0]", spec.ip_families, "may not change once set")
    if len(spec.ip_families) == 1 < len(was.ip_families) and spec.ip_family_policy is not _SINGLE:
        why = "must be set to 'SingleStack' when releasing the secondary ipFamily"
        yield invalid("spec.ipFamilyPolicy", spec.ip_family_policy, why)


# --- what somebody wrote ----------------------------------------------------------------------------------------------


def as_written(new: api.Service, sent: api.Service, old: api.Service, written: api.Service) -> api.Service:
    """The manifest that stands for a Service after a patch: without what was only allocated.

    `new` is what came out, `sent` what the patch made of `old`, and `written` the manifest of `old`.
    """

    def said(name: str, empty: object) -> object:
        value, of_patch, before, of_manifest = (getattr(each.spec, name) for each in (new, sent, old, written))
        return _said(value, of_patch, before, of_manifest, empty)

    ports_before, ports_of_manifest = (
        {(p.port, p.protocol): p.node_port for p in each.spec.ports} for each in (old, written)
    )
    ports = []
    for port, of_patch in zip(new.spec.ports, sent.spec.ports, strict=True):
        key = (port.port, port.protocol)
        number = _said(port.node_port, of_patch.node_port, ports_before.get(key, 0), ports_of_manifest.get(key, 0), 0)
        ports.append(replace(port, node_port=number))
    fields = {name: said(name, empty) for name, empty in _ALLOCATED.items()}
    status = written.status if sent.status == old.status else new.status
    return replace(new, spec=replace(new.spec, ports=tuple(ports), **fields), status=status)


_ALLOCATED: Mapping[str, object] = {
    "cluster_ip": "", "cluster_ips": (), "ip_families": (), "ip_family_policy": None, "health_check_node_port": 0,
}  # fmt: skip


def _said(value: object, sent: object, before: object, written: object, empty: object) -> object:
    """What the manifest should say of a field: as before where it is as before, else what the patch said."""
    if value and value == before:
        return written
    return value if value == sent or written else empty
