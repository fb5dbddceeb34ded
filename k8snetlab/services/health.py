"""How does a load balancer outside learn which nodes to send to?

Under external policy `Local` a node without a backend drops what it gets, so the load balancer should not send it
anything. It asks each node at the Service's *health check node port*: kube-proxy answers 200 where the node has a ready
endpoint of the Service and 503 where it has none, with the number. The answer comes by the same proxy on every node, in
every mode, whatever the Service's own ports are.

An endpoint that goes away is not counted, though a node that has no other still sends it what arrives (`endpoints`):
that is the time in which the load balancer turns to other nodes.

Not modelled: how often is asked and how long until it counts, the weight header. Guide section 2.2; KEP-1669.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from k8snetlab.linux.socket import Listener
from k8snetlab.services.endpoints import Backend
from k8snetlab.services.exposure import Exposure

__all__ = ["health_listeners", "ready_on"]


def ready_on(backends: Iterable[Backend], node: str) -> int:
    """How many ready endpoints a node has among these: each address once, whatever its ports."""
    return len({backend.ip for backend in backends if backend.node == node and backend.ready})


def health_listeners(exposures: Iterable[Exposure], node: str) -> Iterator[Listener]:
    """What kube-proxy listens on for load balancers, on the node of that name: one port for each Service that has a
    health check node port.
    """
    found: dict[tuple[str, str, int], list[Backend]] = {}
    for exposure in exposures:
        if exposure.health_check_port:
            key = (exposure.namespace, exposure.service, exposure.health_check_port)
            found.setdefault(key, []).extend(exposure.backends)
    for (namespace, service, port), backends in found.items():
        count = ready_on(backends, node)
        said = {
            "service": {"namespace": namespace, "name": service},
            "localEndpoints": count,
            "serviceProxyHealthy": True,
        }
        status = 200 if count else 503
        yield Listener("TCP", port, program="kube-proxy", status=status, body=json.dumps(said, indent="\t"))
