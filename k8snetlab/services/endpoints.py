"""Which of a Service's endpoints may this packet go to, from this node?

An EndpointSlice lists every pod behind a Service, usable or not. Each node's proxy sorts them by itself, in this
order:

1. *Ready* endpoints are usable. (A slice that says nothing means ready. A Service with `publishNotReadyAddresses` has
   its unready pods written as ready, so they count.)
2. If every ready endpoint carries a *hint* (KEP-2433, KEP-3015), only those hinted for this node stay; if none is,
   those hinted for this node's zone; if none is, all. One endpoint without a hint switches hints off for the whole
   Service.
3. If there is no ready endpoint at all, *serving and terminating* ones are used as a last resort (KEP-1669). An
   unready pod is never one.

For policy `Local` only endpoints on the node itself count: its ready ones, else its serving and terminating ones,
whatever other nodes have and whatever the hints say. No usable endpoint anywhere is one thing (the client is refused
at once); none on this node under policy `Local` is another (the packet is dropped, since another node may have one).

All proxy modes share this choice; they differ in the rules they write for it.

Not modelled: endpoint addresses after the first one (no proxy uses them). Guide section 2.2; KEP-2086 (internal
traffic policy), KEP-1669, KEP-2433, KEP-3015, KEP-4444.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import msgspec

from k8snetlab.api import TrafficPolicy

__all__ = ["Backend", "Chosen", "chosen", "hinted"]


class Backend(msgspec.Struct, frozen=True, gc=False):
    """One address and port behind a Service. `node` is where it runs and may be empty; `for_nodes` and `for_zones`
    are its hints: who should use it.
    """

    ip: str
    port: int
    node: str = ""
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    for_nodes: frozenset[str] = frozenset()
    for_zones: frozenset[str] = frozenset()

    @property
    def last_resort(self) -> bool:
        """Whether it may be used when nothing is ready: it goes away, but still answers."""
        return not self.ready and self.serving and self.terminating

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


class Chosen(msgspec.Struct, frozen=True):
    """A node's choice for one Service port: the endpoints for policy `Cluster`, those for policy `Local`, and whether
    anything usable exists in the whole cluster. A policy that the port does not use has no endpoints here.
    """

    cluster: tuple[Backend, ...] = ()
    local: tuple[Backend, ...] = ()
    anywhere: bool = False

    def leads(self, policy: TrafficPolicy) -> bool:
        """Whether traffic that follows a policy finds an endpoint from this node."""
        return self.anywhere if policy is TrafficPolicy.CLUSTER else bool(self.local)

    @property
    def by_policy(self) -> tuple[tuple[TrafficPolicy, tuple[Backend, ...]], ...]:
        """The endpoints of each policy."""
        return (TrafficPolicy.CLUSTER, self.cluster), (TrafficPolicy.LOCAL, self.local)

    @property
    def reachable(self) -> tuple[Backend, ...]:
        """Every endpoint that some packet may be sent to from this node, each once."""
        if not self.local or not self.cluster:
            return self.cluster or self.local
        return tuple(sorted({*self.cluster, *self.local}, key=str))


def chosen(endpoints: Sequence[Backend], policies: Collection[TrafficPolicy], node: str, zone: str = "") -> Chosen:
    """The endpoints that a node in a zone uses for a Service port whose traffic follows these policies.

    `zone` is empty for a node without the label `topology.kubernetes.io/zone`. The order of `endpoints` is kept.

    >>> near, far = Backend("10.0.1.2", 80, node="n1"), Backend("10.0.2.2", 80, node="n2")
    >>> [str(e) for e in chosen([near, far], {TrafficPolicy.LOCAL}, "n1").local]
    ['10.0.1.2:80']
    """
    cluster: tuple[Backend, ...] = ()
    local: tuple[Backend, ...] = ()
    if TrafficPolicy.CLUSTER in policies:
        cluster = hinted(_ready(endpoints), node, zone) or _last_resort(endpoints)
    if TrafficPolicy.LOCAL in policies:
        here = [endpoint for endpoint in endpoints if endpoint.node == node]
        local = _ready(here) or _last_resort(here)
    anywhere = bool(cluster or local) or any(endpoint.ready or endpoint.last_resort for endpoint in endpoints)
    return Chosen(cluster, local, anywhere)


def hinted(ready: tuple[Backend, ...], node: str, zone: str) -> tuple[Backend, ...]:
    """Those of the ready endpoints that are hinted for the node, else for the zone, else all of them."""
    for wanted, hints in ((node, "for_nodes"), (zone, "for_zones")):
        if all(getattr(endpoint, hints) for endpoint in ready):
            near = tuple(endpoint for endpoint in ready if wanted in getattr(endpoint, hints))
            if near:
                return near
    return ready


def _ready(endpoints: Iterable[Backend]) -> tuple[Backend, ...]:
    return tuple([endpoint for endpoint in endpoints if endpoint.ready])


def _last_resort(endpoints: Iterable[Backend]) -> tuple[Backend, ...]:
    return tuple(endpoint for endpoint in endpoints if endpoint.last_resort)
