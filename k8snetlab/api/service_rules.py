"""Would the API server take this Service?

A Service is a union of four types with many fields that only make sense for some of them. Each rule here is one
decision of the API server about a Service as it stands: which fields its type may have, how its ports are named, how
addresses, families and policy fit together. What depends on the cluster (which addresses, ports and families there
are), or on the Service before (what may not change any more), is not here: `controllers` knows that. The same holds
for a policy that does not fit the number of families: on the way from two to one both are said at once.

A Service that a real API server has stored breaks none of these rules, however old it is. What is sent today must be
spelled more strictly (`strict_rules`); what an object has already may stay. Not modelled: warnings (`externalIPs` is
deprecated since Kubernetes 1.36, KEP-5707). Kubernetes 1.37; KEP-5311 (names), KEP-4858 (addresses).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

from k8snetlab.address import family
from k8snetlab.api.service import (
    HEADLESS,
    IPFamily,
    Service,
    ServicePort,
    ServiceSpec,
    ServiceType,
    SessionAffinity,
)
from k8snetlab.api.syntax import (
    IS_LABEL,
    IS_PORT_NAME,
    IS_QUALIFIED_NAME,
    IS_SUBDOMAIN,
    Broken,
    block_of,
    duplicate,
    forbidden,
    invalid,
    is_address,
    is_label,
    is_port_name,
    is_qualified_name,
    is_subdomain,
    required,
)

__all__ = ["address_rules", "service_rules", "strict_rules"]

SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
TOPOLOGY_HINTS = "service.kubernetes.io/topology-aware-hints"
TOPOLOGY_MODE = "service.kubernetes.io/topology-mode"

LONGEST_AFFINITY = 86400
"""A day, in seconds."""

_ONLY_LOAD_BALANCER = "may only be used when `type` is 'LoadBalancer'"


def service_rules(service: Service) -> Broken:
    """Every rule that the Service breaks, as `(field, message)`."""
    yield from _type(service)
    yield from _ports(service)
    yield from _affinity(service.spec)
    yield from address_rules(service.spec)
    yield from _external_ips(service.spec)
    yield from _load_balancer(service)
    yield from _external_traffic(service.spec)
    yield from _topology(service)
    for index, ingress in enumerate(service.load_balancer):
        if ingress.ip and not is_address(ingress.ip):
            yield invalid(f"status.loadBalancer.ingress[{index}].ip", ingress.ip, "must be a valid IP address")


def strict_rules(service: Service, old: Service | None = None) -> Broken:
    """How addresses and blocks must be spelled since Kubernetes 1.36 in what is sent to the API server, except those
    that the Service had before."""
    had = frozenset() if old is None else frozenset(each for _, each in _spelled(old.spec))
    for field, value in _spelled(service.spec):
        if value in had:
            continue
        block = block_of(value.strip())
        if isinstance(block, ipaddress.IPv6Network) and block.network_address.ipv4_mapped is not None:
            yield invalid(field, value, "must not be an IPv4-mapped IPv6 address")
        elif block is not None and "/" in value and ipaddress.ip_interface(value.strip()).ip != block.network_address:
            yield invalid(field, value, f"must not have bits set beyond the prefix length, as {block} has none")


def _spelled(spec: ServiceSpec) -> Iterator[tuple[str, str]]:
    """Every address and block that somebody wrote, with its field."""
    for name, values in (
        ("clusterIPs", spec.cluster_ips),
        ("externalIPs", spec.external_ips),
        ("loadBalancerSourceRanges", spec.load_balancer_source_ranges),
    ):
        yield from ((f"spec.{name}[{index}]", value) for index, value in enumerate(values))


# --- the type ---------------------------------------------------------------------------------------------------------


def _type(service: Service) -> Broken:
    spec = service.spec
    if spec.type is ServiceType.EXTERNAL_NAME:
        yield from _external_name(spec)
    elif not spec.ports and not service.headless:
        yield required("spec.ports", "only a headless Service and an ExternalName can do without")
    if service.headless and spec.from_outside:
        yield invalid("spec.clusterIPs[0]", HEADLESS, f"may not be set to 'None' for {spec.type} services")


def _external_name(spec: ServiceSpec) -> Broken:
    """An alias in DNS, and nothing that has an address. The name may end with a dot."""
    own = {
        "clusterIPs": spec.cluster_ips or spec.cluster_ip,
        "ipFamilies": spec.ip_families,
        "ipFamilyPolicy": spec.ip_family_policy,
    }
    for field, said in own.items():
        if said:
            yield forbidden(f"spec.{field}", "may not be set for ExternalName services")
    name = spec.external_name.removesuffix(".")
    if not name:
        yield required("spec.externalName")
    elif not is_subdomain(name):
        yield invalid("spec.externalName", name, f"must be {IS_SUBDOMAIN}")


# --- ports ------------------------------------------------------------------------------------------------------------


def _ports(service: Service) -> Broken:
    ports = service.spec.ports
    for index, port in enumerate(ports):
        yield from _port(f"spec.ports[{index}]", port, service)
    yield from _named_twice(ports)
    yield from duplicate("spec.ports[{}]", [f"{port.port}/{port.protocol}" for port in ports])
    said: set[tuple[str, int]] = set()
    for index, port in enumerate(ports):
        if port.node_port and (port.protocol, port.node_port) in said:
            yield f"spec.ports[{index}].nodePort", f"Duplicate value: {port.node_port}"
        said.add((port.protocol, port.node_port))


def _named_twice(ports: tuple[ServicePort, ...]) -> Broken:
    """A name tells ports apart for EndpointSlices and DNS. Ports without any are not alike."""
    yield from duplicate("spec.ports[{}].name", [port.name or index for index, port in enumerate(ports)])


def _port(place: str, port: ServicePort, service: Service) -> Broken:
    if port.name and not is_label(port.name):
        yield invalid(f"{place}.name", port.name, f"must be {IS_LABEL}")
    elif not port.name and len(service.spec.ports) > 1:
        yield required(f"{place}.name", "with several ports each needs a name")
    if isinstance(port.target_port, str) and not is_port_name(port.target_port):
        yield invalid(f"{place}.targetPort", port.target_port, f"must be {IS_PORT_NAME}")
    if port.app_protocol is not None and not is_qualified_name(port.app_protocol):
        yield invalid(f"{place}.appProtocol", port.app_protocol, f"must be {IS_QUALIFIED_NAME}")
    if port.node_port and service.spec.type is ServiceType.CLUSTER_IP:
        yield forbidden(f"{place}.nodePort", "may not be used when `type` is 'ClusterIP'")


# --- affinity ---------------------------------------------------------------------------------------------------------


def _affinity(spec: ServiceSpec) -> Broken:
    if spec.session_affinity is not SessionAffinity.CLIENT_IP or spec.session_affinity_config is None:
        return
    seconds = spec.session_affinity_config.client_ip.timeout_seconds
    if not 0 < seconds <= LONGEST_AFFINITY:
        field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
        yield invalid(field, seconds, f"must be greater than 0 and at most {LONGEST_AFFINITY}")


# --- addresses and families -------------------------------------------------------------------------------------------


def address_rules(spec: ServiceSpec) -> Broken:
    """The rules about the Service's own addresses and families, as far as they hold in every cluster."""
    if spec.type is ServiceType.EXTERNAL_NAME:
        return
    yield from duplicate("spec.ipFamilies[{}]", spec.ip_families)
    yield from _two_spellings(spec)
    ips = spec.cluster_ips or ((spec.cluster_ip,) if spec.cluster_ip else ())
    wrong = [(index, ip) for index, ip in enumerate(ips) if not is_address(ip) and (index, ip) != (0, HEADLESS)]
    for index, ip in wrong:
        yield invalid(f"spec.clusterIPs[{index}]", ip, "must be a valid IP address")
    if len(ips) > 2:
        yield invalid("spec.clusterIPs", ips, "may only hold up to 2 values")
    if len(ips) > 1 and ips[0] == HEADLESS:
        yield invalid("spec.clusterIPs", ips, "'None' must be the first and only value")
    elif not wrong:
        yield from _families(spec, ips)


def _two_spellings(spec: ServiceSpec) -> Broken:
    """`clusterIP` is the older spelling of the first of `clusterIPs`."""
    if not spec.cluster_ips:
        return
    if not spec.cluster_ip:
        yield invalid("spec.clusterIPs", spec.cluster_ips, "must be empty when `clusterIP` is not specified")
    elif spec.cluster_ips[0] != spec.cluster_ip:
        yield invalid("spec.clusterIPs", spec.cluster_ips, "first value must match `clusterIP`")


def _families(spec: ServiceSpec, ips: tuple[str, ...]) -> Broken:
    if len(ips) > 1 and len({family(ip) for ip in ips}) == 1:
        yield invalid("spec.clusterIPs", ips, "may specify no more than one IP for each IP family")
    if ips[:1] != (HEADLESS,):
        for index, (ip, wanted) in enumerate(zip(ips, spec.ip_families, strict=False)):
            if IPFamily.of(family(ip)) is not wanted:
                why = f"expected an {wanted} value as indicated by `ipFamilies[{index}]`"
                yield invalid(f"spec.clusterIPs[{index}]", ip, why)


def _external_ips(spec: ServiceSpec) -> Broken:
    for index, ip in enumerate(spec.external_ips):
        field = f"spec.externalIPs[{index}]"
        if not is_address(ip):
            yield invalid(field, ip, "must be a valid IP address")
        elif why := _special(ip):
            yield invalid(field, ip, why)


def _special(ip: str) -> str:
    """Why no packet from outside can be for this address; nothing for an ordinary one."""
    address = ipaddress.ip_address(ip)
    if address.is_unspecified:
        return f"may not be unspecified ({ip})"
    if address.is_loopback:
        return "may not be in the loopback range (127.0.0.0/8, ::1/128)"
    if address.is_link_local:
        return "may not be in the link-local range (169.254.0.0/16, fe80::/10)"
    if any(address in block for block in _LINK_LOCAL_MULTICAST):
        return "may not be in the link-local multicast range (224.0.0.0/24, ff02::/16)"
    return ""


_LINK_LOCAL_MULTICAST = (ipaddress.ip_network("224.0.0.0/24"), ipaddress.ip_network("ff02::/16"))


# --- load balancers and traffic from outside --------------------------------------------------------------------------


def _load_balancer(service: Service) -> Broken:
    spec = service.spec
    balanced = spec.type is ServiceType.LOAD_BALANCER
    yield from _source_ranges(service)
    if spec.allocate_load_balancer_node_ports is not None and not balanced:
        yield forbidden("spec.allocateLoadBalancerNodePorts", _ONLY_LOAD_BALANCER)
    if spec.load_balancer_class is None:
        return
    if not balanced:
        yield forbidden("spec.loadBalancerClass", _ONLY_LOAD_BALANCER)
    elif not is_qualified_name(spec.load_balancer_class):
        yield invalid("spec.loadBalancerClass", spec.load_balancer_class, f"must be {IS_QUALIFIED_NAME}")


def _source_ranges(service: Service) -> Broken:
    """The field, or the annotation that was there before it. Blanks around a block are allowed for its sake."""
    ranges, field = service.spec.load_balancer_source_ranges, "spec.loadBalancerSourceRanges"
    places = [f"{field}[{index}]" for index in range(len(ranges))]
    if not ranges and SOURCE_RANGES in service.annotations:
        field = f"metadata.annotations[{SOURCE_RANGES}]"
        said = service.annotations[SOURCE_RANGES].strip()
        ranges = tuple(said.split(",")) if said else ()
        places = [field] * len(ranges)
    elif not ranges:
        return
    if service.spec.type is not ServiceType.LOAD_BALANCER:
        yield forbidden(field, _ONLY_LOAD_BALANCER)
    for place, block in zip(places, ranges, strict=True):
        if "/" not in block or block_of(block.strip()) is None:
            yield invalid(place, block.strip(), "must be a valid CIDR value, such as 10.0.0.0/8 or fd00::/64")


def _external_traffic(spec: ServiceSpec) -> Broken:
    policy = spec.external_traffic_policy
    if policy is not None and not spec.externally_accessible:
        yield invalid("spec.externalTrafficPolicy", policy, "may only be set for externally-accessible services")
    port = spec.health_check_node_port
    if port and not spec.checks_health:
        why = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        yield invalid("spec.healthCheckNodePort", port, why)
    elif not 0 <= port <= 65535:
        yield invalid("spec.healthCheckNodePort", port, "must be between 1 and 65535, inclusive")


def _topology(service: Service) -> Broken:
    """The annotation has an older spelling, which must not say something else."""
    old, new = service.annotations.get(TOPOLOGY_HINTS), service.annotations.get(TOPOLOGY_MODE)
    if old is not None and new is not None and old != new:
        why = f"must match annotations[{TOPOLOGY_HINTS}] when both are specified"
        yield invalid(f"metadata.annotations[{TOPOLOGY_MODE}]", new, why)
