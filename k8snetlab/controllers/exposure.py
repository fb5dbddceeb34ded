"""Which addresses and node ports does this Service get?

The API server allocates them when a Service is created. Its Service network has two bands: the lower one (at most 256
addresses) is left for people who write `clusterIP` themselves, such as 10.96.0.1 for the API server and 10.96.0.10
for DNS; the others are drawn from the upper band, and from the lower one only when the upper one is full. Node ports
(30000 to 32767) are drawn alike, from 30086 on. Here the draw follows from the Service's name, so that one more
Service does not move the others; and a Service that the API server has already keeps what it got.

A headless Service gets no address, an ExternalName neither. One node port serves a port that is there for TCP and for
UDP. A load balancer that is to know the nodes with endpoints gets one more port, for its health checks.

Not modelled: ServiceCIDR objects (KEP-1880), several load balancers. Guide section 2.2; KEP-3070 and KEP-3668 (the
two bands).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence

from msgspec.structs import replace

from k8snetlab import api
from k8snetlab.address import Prefix, canonical, family, number, text
from k8snetlab.api.syntax import invalid, is_address
from k8snetlab.controllers.families import settled
from k8snetlab.controllers.networks import Networks
from k8snetlab.errors import AddressInUse, ManifestError, PoolExhausted, Problem

__all__ = ["NODE_PORTS", "Pools", "created", "exposed", "shortest"]

NODE_PORTS = range(30000, 32768)
"""The ports a NodePort Service may open (the API server's `--service-node-port-range`)."""


def exposed(
    given: Sequence[api.Service], networks: Networks, stored: Iterable[api.Service] = ()
) -> tuple[api.Service, ...]:
    """The Services with addresses, families and node ports, in the same order. Those among them that are `stored` are
    as they were; of the others, what their manifests ask for counts before anything is drawn.

    Raises `AddressInUse` when two ask for one address or port, `PoolExhausted`, and `ManifestError` for an address, a
    port or a family that this cluster does not have.
    """
    there = {service.ref: service for service in stored}
    pools = Pools(networks, (there[each.ref] for each in given if each.ref in there))
    fresh = {each.ref: settled(_both_spelled(each), networks.families) for each in given if each.ref not in there}
    for service in fresh.values():
        pools.claim(service)
    return tuple(there.get(each.ref) or pools.filled(fresh[each.ref]) for each in given)


def created(service: api.Service, networks: Networks, pools: Pools) -> api.Service:
    """One more Service, with all that it asks for and all that is allocated. Raises like `exposed`."""
    fresh = settled(_both_spelled(service), networks.families)
    pools.claim(fresh)
    return pools.filled(fresh)


def _both_spelled(service: api.Service) -> api.Service:
    """`clusterIP` alone is the first of `clusterIPs` too."""
    service = shortest(service)
    if not service.spec.cluster_ip or service.spec.cluster_ips:
        return service
    return replace(service, spec=replace(service.spec, cluster_ips=(service.spec.cluster_ip,)))


def shortest(service: api.Service) -> api.Service:
    """The Service with its addresses in their shortest spelling, which is the only one in this package."""
    spec = service.spec
    ip, *ips = (canonical(each) if is_address(each) else each for each in (spec.cluster_ip, *spec.cluster_ips))
    if (ip, tuple(ips)) == (spec.cluster_ip, spec.cluster_ips):
        return service
    return replace(service, spec=replace(spec, cluster_ip=ip, cluster_ips=tuple(ips)))


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


class Pools:
    """What an API server has to give: addresses of its Service network and node ports. It lives for one request."""

    def __init__(self, networks: Networks, services: Iterable[api.Service] = ()) -> None:
        self.blocks = networks.services
        self.addresses = {block.family: _Pool(str(block), *_bands(block)) for block in networks.services}
        name = f"node ports {NODE_PORTS.start}-{NODE_PORTS.stop - 1}"
        self.ports = _Pool(name, *_halves(NODE_PORTS, _offset(len(NODE_PORTS), 32, 128)))
        for service in services:
            self.hold(service)

    def hold(self, service: api.Service) -> None:
        """Put down what a Service has."""
        for pool, value in self._had(service):
            pool.owners[value] = service.ref

    def release(self, service: api.Service) -> None:
        """Take back what a Service had."""
        for pool, value in self._had(service):
            pool.owners.pop(value, None)

    def _had(self, service: api.Service) -> Iterator[tuple[_Pool, int]]:
        for ip in service.cluster_ips:
            yield self.addresses[family(ip)], number(ip)
        for port in _numbers(service):
            yield self.ports, port

    def claim(self, service: api.Service) -> None:
        """Give a Service all that it asks for."""
        for index in range(len(service.cluster_ips)):
            self.claim_address(service, index)
        if service.spec.from_outside:
            for index, port in enumerate(service.spec.ports):
                if port.node_port:
                    self.claim_port(service, f"spec.ports[{index}].nodePort", port.node_port)
        if service.spec.checks_health and service.spec.health_check_node_port:
            self.claim_health_check(service)

    def claim_address(self, service: api.Service, index: int) -> None:
        """Give the address that it asks for in that place."""
        ip = service.cluster_ips[index]
        field = "spec.clusterIPs"
        block = next((block for block in self.blocks if block.contains(ip)), None)
        if block is None:
            blocks = " or ".join(map(str, self.blocks))
            why = (
                f"failed to allocate IP {ip}: the provided IP is not in the valid range. The Service network is "
                f"{blocks}; choose the network with service_cidr"
            )
            raise _refused(service, *invalid(field, service.cluster_ips, why))
        why = f"failed to allocate IP {ip}: provided IP is already allocated"
        self._take(self.addresses[block.family], number(ip), service, ip, *invalid(field, service.cluster_ips, why))

    def claim_port(self, service: api.Service, field: str, port: int) -> None:
        """Give the node port that it asks for. Another port of the same Service may have it already: two protocols
        share it."""
        if port not in NODE_PORTS:
            ports = f"{NODE_PORTS.start}-{NODE_PORTS.stop - 1}"
            why = f"provided port is not in the valid range. The range of valid ports is {ports}"
            raise _refused(service, *invalid(field, port, why))
        said = invalid(field, port, "provided port is already allocated")
        self._take(self.ports, port, service, f"node port {port}", *said)

    def claim_health_check(self, service: api.Service) -> None:
        """Give the port for health checks that it asks for. Nobody shares it."""
        port, field = service.spec.health_check_node_port, "spec.healthCheckNodePort"
        if any(port == each.node_port for each in service.spec.ports):
            said = invalid(field, port, "provided port is already allocated")[1]
            raise AddressInUse(f"node port {port}", (service.ref, service.ref), field=field, said=said)
        self.claim_port(service, field, port)

    def _take(self, pool: _Pool, value: int, service: api.Service, shown: str, field: str, said: str) -> None:
        owner = pool.owners.setdefault(value, service.ref)
        if owner != service.ref:
            raise AddressInUse(shown, (owner, service.ref), field=field, said=said)

    # What nobody asked for

    def filled(self, service: api.Service) -> api.Service:
        """A new Service with everything that is drawn for it."""
        service = self.with_addresses(service)
        if not service.spec.from_outside:
            return service
        numbers = {port.port: port.node_port for port in reversed(service.spec.ports) if port.node_port}
        ports: list[api.ServicePort] = []
        for port in service.spec.ports:
            if not port.node_port and _draws_ports(service):
                if port.port not in numbers:
                    numbers[port.port] = self.draw_port(service, port)
                port = replace(port, node_port=numbers[port.port])
            ports.append(port)
        spec = service.spec if tuple(ports) == service.spec.ports else replace(service.spec, ports=tuple(ports))
        return self.with_health_check(service if spec is service.spec else replace(service, spec=spec))

    def with_addresses(self, service: api.Service) -> api.Service:
        """An address for each family that has none yet."""
        spec = service.spec
        if spec.type is api.ServiceType.EXTERNAL_NAME or service.headless:
            return service
        missing = spec.ip_families[len(spec.cluster_ips) :]
        if not missing:
            return service
        ips = (*spec.cluster_ips, *(self._drawn(service, each.number) for each in missing))
        return replace(service, spec=replace(spec, cluster_ip=ips[0], cluster_ips=ips))

    def _drawn(self, service: api.Service, of: int) -> str:
        return text(self.addresses[of].draw(f"{service.key}/{of}", service.ref), of)

    def draw_port(self, service: api.Service, port: api.ServicePort) -> int:
        """A node port for one port."""
        return self.ports.draw(f"{service.key}:{port.port}", service.ref)

    def with_health_check(self, service: api.Service) -> api.Service:
        """A port for health checks, where one is needed and none is there."""
        if not service.spec.checks_health or service.spec.health_check_node_port:
            return service
        port = self.ports.draw(f"{service.key} health", service.ref)
        return replace(service, spec=replace(service.spec, health_check_node_port=port))

    def with_missing_ports(self, service: api.Service) -> api.Service:
        """A node port of its own for every port that has none: on a change, unlike at the beginning, two protocols do
        not come to share one by themselves."""
        if not _draws_ports(service) or all(port.node_port for port in service.spec.ports):
            return service
        ports = tuple(
            port if port.node_port else replace(port, node_port=self.draw_port(service, port))
            for port in service.spec.ports
        )
        return replace(service, spec=replace(service.spec, ports=ports))


def _draws_ports(service: api.Service) -> bool:
    spec = service.spec
    if spec.type is api.ServiceType.LOAD_BALANCER:
        return spec.allocate_load_balancer_node_ports is not False
    return spec.type is api.ServiceType.NODE_PORT


def _numbers(service: api.Service) -> Iterator[int]:
    spec = service.spec
    if spec.from_outside:
        yield from (port.node_port for port in spec.ports if port.node_port)
    if spec.checks_health and spec.health_check_node_port:
        yield spec.health_check_node_port


def _refused(service: api.Service, field: str, message: str) -> ManifestError:
    return ManifestError(Problem(message, object=service.ref, field=field))
