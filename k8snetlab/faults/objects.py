"""What if every machine does what it is told, and was told the wrong thing?

Nothing is lost on the way then, and no machine has an entry too few: a manifest says what nobody meant. Such a fault is
another object in the place of one that was read, and all that follows from it is worked out anew: no endpoints, and so
rules that refuse.

Only objects that somebody wrote can be wrong; what a fresh cluster has by itself (kube-dns) is left alone.

Not modelled: objects that the API server would refuse. Guide sections 2.2 and 5.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec.structs import replace

from k8snetlab import api
from k8snetlab.faults.spots import SYSTEM, Spot
from k8snetlab.flows import Terrain

__all__ = ["SERVICE", "as_they_are", "each_service", "nobody_listens", "selects_nobody"]

SERVICE = "svc/"
"""What the host of a spot begins with that is a Service."""

TYPO = "-v2"
WRONG_PORT = 1


def as_they_are(manifests: api.Manifests, spot: Spot) -> api.Manifests:
    """Nothing is written otherwise."""
    return manifests


def each_service(terrain: Terrain) -> Iterator[Spot]:
    """Every Service that selects pods and has an address; the system's own come last."""
    served = [each for each in terrain.objects.services if each.cluster_ips and each.spec.selector]
    yield from (Spot(f"{SERVICE}{each.key}") for each in sorted(served, key=lambda each: each.key.startswith(SYSTEM)))


def _rewritten(
    manifests: api.Manifests, spot: Spot, change: Callable[[api.ServiceSpec], api.ServiceSpec]
) -> api.Manifests:
    """The manifests with the spot's Service changed; the same value where nobody wrote one."""
    key = spot.host.removeprefix(SERVICE)
    held = next((each for each in manifests.of(api.Service) if each.key == key), None)
    if held is None:
        return manifests
    return manifests.replacing(api.Manifests((replace(held, spec=change(held.spec)),)))


def selects_nobody(manifests: api.Manifests, spot: Spot) -> api.Manifests:
    """The Service asks for another label than its pods have."""

    def change(spec: api.ServiceSpec) -> api.ServiceSpec:
        return replace(spec, selector={name: f"{value}{TYPO}" for name, value in (spec.selector or {}).items()})

    return _rewritten(manifests, spot, change)


def nobody_listens(manifests: api.Manifests, spot: Spot) -> api.Manifests:
    """The Service leads to a port at which its pods do not listen."""

    def change(spec: api.ServiceSpec) -> api.ServiceSpec:
        return replace(spec, ports=tuple(replace(port, target_port=WRONG_PORT) for port in spec.ports))

    return _rewritten(manifests, spot, change)
