"""Which addresses and node ports does this Service get?

The API server allocates them when a Service is created. Its Service network has two bands: the lower one (at most 256
addresses) is left for people who write `clusterIP` themselves, such as 10.96.0.1 for the API server and 10.96.0.10
for DNS; the others are drawn from the upper band, and from the lower one only when the upper one is full. Node ports
(30000 to 32767) are drawn alike, from 30086 on. Here the draw follows from the Service's name, so that one more
Service does not move the others.

Families: a Service has one address unless its `ipFamilyPolicy` says otherwise. A headless Service gets none, an
ExternalName neither; a headless Service without a selector is dual-stack even where the cluster is not.

Not modelled: ServiceCIDR objects (KEP-1880), several load balancers. Guide section 2.2; KEP-3070 and KEP-3668 (the
two bands), KEP-563 (dual-stack).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from k8snetlab import api
from k8snetlab.address import Prefix, canonical, family, number, text
from k8snetlab.controllers.networks import Networks
from k8snetlab.errors import AddressInUse, ManifestError, PoolExhausted, Problem

__all__ = ["NODE_PORTS", "exposed"]

NODE_PORTS = range(30000, 32768)
"""The ports a NodePort Service may open (the API server's `--service-node-port-range`)."""


def exposed(given: Sequence[api.Service], networks: Networks) -> tuple[api.Service, ...]:
    """The Services with addresses, families and node ports, in the same order.

    Raises `AddressInUse` when two ask for one address or port, `PoolExhausted`, and `ManifestError` for an address, a
    port or a family that this cluster does not have.
    """
    families = {service.ref: _families(service, networks.families) for service in given}
    pools = {block.family: _Pool(str(block), *_bands(block)) for block in networks.services}
    ports = _Pool("node ports 30000-32767", *_halves(NODE_PORTS, _offset(len(NODE_PORTS), 32, 128)))
    for service in given:
        for field, value, of in _said_addresses(service, networks):
            pools[of].take(value, service.ref, field, text(value, of))
        for field, port in _said_ports(service):
            ports.take(port, service.ref, field, f"node port {port}")
    return tuple(_with_ports(_with_addresses(each, families[each.ref], pools), ports) for each in given)


# --- pools of numbers -------------------------------------------------------------------------------------------------


def _offset(size: int, step: int, most: int) -> int:
    """How many numbers at the beginning of a range are left for people: a share of it, at least 16 and at most
    `most`."""
    return min(max(16, size // step), most) if size > 16 else 0


def _halves(whole: range, offset: int) -> tuple[range, range]:
    return range(whole.start + offset, whole.stop), range(whole.start, whole.start + offset)


def _bands(block: Prefix) -> tuple[range, range]:
    """The addresses that are drawn first, and those that are drawn last; without the network's own and the
    broadcast."""
    offset = max(1, _offset(block.size, 16, 256))
    last = block.base + block.size - (1 if block.family == 4 else 0)
    return range(block.base + offset, last), range(block.base + 1, block.base + offset)


class _Pool:
    """Numbers to give away, each once."""

    def __init__(self, name: str, first: range, then: range) -> None:
        self.name = name
        self.bands = (first, then)
        self.owners: dict[int, str] = {}

    def take(self, value: int, owner: str, field: str, shown: str) -> None:
        """Give the number that the owner asked for."""
        if self.owners.get(value, owner) != owner:
            raise AddressInUse(shown, (self.owners[value], owner), field=field)
        self.owners[value] = owner

    def draw(self, key: str, owner: str) -> int:
        """Give a free number that follows from the key: the next one, if that is taken."""
        drawn = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])
        for band in self.bands:
            for step in range(min(len(band), len(self.owners) + 1)):
                value = band[(drawn + step) % len(band)]
                if value not in self.owners:
                    self.owners[value] = owner
                    return value
        raise PoolExhausted(self.name, sum(len(band) for band in self.bands), owner)


# --- families ---------------------------------------------------------------------------------------------------------


def _families(service: api.Service, cluster: tuple[int, ...]) -> tuple[api.IPFamily, ...]:
    """The families of a Service, the primary one first; none for an ExternalName."""
    spec = service.spec
    if spec.type is api.ServiceType.EXTERNAL_NAME:
        return ()
    own = tuple(api.IPFamily.of(family(each)) for each in service.cluster_ips)
    said = spec.ip_families + own[len(spec.ip_families) :]
    have = tuple(map(api.IPFamily.of, cluster))
    by_hand = service.headless and not spec.selector
    if not by_hand and (missing := [each for each in said if each not in have]):
        field = "spec.ipFamilies" if spec.ip_families else "spec.clusterIP"
        raise ManifestError(Problem(f"this cluster has no {missing[0]} addresses", object=service.ref, field=field))
    policy = spec.ip_family_policy or (_DUAL if by_hand else api.IPFamilyPolicy.SINGLE_STACK)
    if policy is api.IPFamilyPolicy.SINGLE_STACK:
        return (said or have)[:1]
    if policy is _DUAL and len(have) == 1 and not by_hand:
        message = f"RequireDualStack needs a cluster with both families; this one has {have[0]}"
        raise ManifestError(Problem(message, object=service.ref, field="spec.ipFamilyPolicy"))
    return tuple(dict.fromkeys((*said, *(tuple(api.IPFamily) if by_hand else have))))


_DUAL = api.IPFamilyPolicy.REQUIRE_DUAL_STACK


# --- what is written in the manifest ----------------------------------------------------------------------------------


def _said_addresses(service: api.Service, networks: Networks) -> Iterator[tuple[str, int, int]]:
    for index, each in enumerate(service.cluster_ips):
        address, field = canonical(each), "spec.clusterIP" if index == 0 else f"spec.clusterIPs[{index}]"
        block = next((block for block in networks.services if block.contains(address)), None)
        if block is None:
            blocks = " or ".join(map(str, networks.services))
            message = f"{address} is not in the Service network {blocks}; choose the network with service_cidr"
            raise ManifestError(Problem(message, object=service.ref, field=field))
        yield field, number(address), block.family


def _said_ports(service: api.Service) -> Iterator[tuple[str, int]]:
    wanted = [(f"spec.ports[{index}].nodePort", port.node_port) for index, port in enumerate(service.spec.ports)]
    for field, port in (*wanted, ("spec.healthCheckNodePort", service.spec.health_check_node_port)):
        if not port:
            continue
        if port not in NODE_PORTS:
            message = f"{port} is not a node port: they are {NODE_PORTS.start} to {NODE_PORTS.stop - 1}"
            raise ManifestError(Problem(message, object=service.ref, field=field))
        yield field, port


# --- what is allocated ------------------------------------------------------------------------------------------------


def _with_addresses(service: api.Service, families: tuple[api.IPFamily, ...], pools: dict[int, _Pool]) -> api.Service:
    spec = service.spec
    if spec.type is api.ServiceType.EXTERNAL_NAME:
        return service
    policy = spec.ip_family_policy
    if policy is None:
        policy = api.IPFamilyPolicy.SINGLE_STACK if len(families) == 1 else _DUAL
    if service.headless:
        ips = spec.cluster_ips
    else:
        said = {family(each): canonical(each) for each in service.cluster_ips}
        ips = tuple(said.get(each.number) or _drawn(service, each.number, pools) for each in families)
    return replace(
        service,
        spec=replace(spec, cluster_ip=ips[0], cluster_ips=ips, ip_families=families, ip_family_policy=policy),
    )


def _drawn(service: api.Service, of: int, pools: dict[int, _Pool]) -> str:
    return text(pools[of].draw(f"{service.key}/{of}", service.ref), of)


def _with_ports(service: api.Service, pool: _Pool) -> api.Service:
    """Node ports for every port, and one for health checks where the load balancer needs to know the right nodes.

    One number serves a port that is there for TCP and for UDP.
    """
    spec = service.spec
    if not spec.from_outside:
        return service
    numbers = {port.port: port.node_port for port in reversed(spec.ports) if port.node_port}
    ports: list[api.ServicePort] = []
    for port in spec.ports:
        if not port.node_port and spec.allocate_load_balancer_node_ports is not False:
            if port.port not in numbers:
                numbers[port.port] = pool.draw(f"{service.key}:{port.port}", service.ref)
            port = replace(port, node_port=numbers[port.port])
        ports.append(port)
    local = spec.external_traffic_policy is api.TrafficPolicy.LOCAL
    check = spec.health_check_node_port
    if not check and local and spec.type is api.ServiceType.LOAD_BALANCER:
        check = pool.draw(f"{service.key} health", service.ref)
    if tuple(ports) == spec.ports and check == spec.health_check_node_port:
        return service
    return replace(service, spec=replace(spec, ports=tuple(ports), health_check_node_port=check))
