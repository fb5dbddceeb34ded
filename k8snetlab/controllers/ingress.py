"""Which address does a load balancer give this Service?

A Service of type LoadBalancer asks for an address outside the cluster, and somebody outside Kubernetes gives it one and
writes it into `status.loadBalancer.ingress`. Until then it is pending: `<pending>` for ever, where nobody is there to
do it. Addresses are taken from a pool, the lowest free one first, one for each family of the Service; the first and the
last address of a pool are not given away.

What a Service has already is kept. `spec.loadBalancerIP` is honoured where it is free and in the pool; a Service with a
`loadBalancerClass` is for somebody else. When the pool is used up, the others stay pending.

Not modelled: pools for some namespaces only, host names instead of addresses. Guide section 2.2; KEP-1860 (ipMode),
KEP-1959 (loadBalancerClass).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice

from msgspec.structs import replace

from k8snetlab import api
from k8snetlab.address import Prefix, canonical, text
from k8snetlab.api.service import LoadBalancerStatus

__all__ = ["ingressed"]


def ingressed(
    services: Sequence[api.Service], pools: Iterable[Prefix], mode: api.IPMode = api.IPMode.VIP
) -> tuple[api.Service, ...]:
    """The Services with addresses of these pools, one pool a family; `mode` is what is said of each address."""
    taken = {canonical(each.ip) for service in services for each in service.load_balancer if each.ip}
    free = {pool.family: _Free(pool, taken) for pool in pools}
    return tuple(_ingressed(service, free, mode) if _waits(service) else service for service in services)


class _Free:
    """The addresses of a pool that nobody has, the lowest first."""

    def __init__(self, pool: Prefix, taken: set[str]) -> None:
        self.pool = pool
        self.taken = taken
        inner = range(pool.base + 1, pool.base + pool.size - 1)
        self._left = (address for value in inner if (address := text(value, pool.family)) not in taken)

    def drawn(self, wanted: str) -> Iterator[str]:
        """The address that is wanted, or another, if there is one left."""
        fits = wanted and self.pool.contains(wanted) and wanted not in self.taken
        for address in (wanted,) if fits else islice(self._left, 1):
            self.taken.add(address)
            yield address


def _waits(service: api.Service) -> bool:
    wanted = service.spec.type is api.ServiceType.LOAD_BALANCER
    return wanted and not service.load_balancer and service.spec.load_balancer_class is None


def _ingressed(service: api.Service, free: Mapping[int, _Free], mode: api.IPMode) -> api.Service:
    wanted = canonical(service.spec.load_balancer_ip) if service.spec.load_balancer_ip else ""
    families = [of.number for of in service.spec.ip_families if of.number in free]
    found = [address for of in families for address in free[of].drawn(wanted)]
    ingress = tuple(api.LoadBalancerIngress(ip=address, ip_mode=mode) for address in found)
    return replace(service, status=replace(service.status, load_balancer=LoadBalancerStatus(ingress=ingress)))
