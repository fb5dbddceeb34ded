"""Whom does a question about policies mean?

The words are those of a trace. Guide section 4.1.
"""

from __future__ import annotations

from k8snetlab import api
from k8snetlab.compile.layout import CLIENT, client_address
from k8snetlab.controllers import Resolved
from k8snetlab.errors import BadOption, Problem
from k8snetlab.policies.engine import checked_port, said_family, transport
from k8snetlab.policies.plan import End, Flow, Outside, Policies

__all__ = ["declared_ports", "end_of", "flow_of"]


def flow_of(
    objects: Resolved, policies: Policies, source: str, destination: str, port: int, protocol: str, of: int | None
) -> Flow:
    """The connection that a question means; without a family (`of`), that of an address, or the first that both ends
    have. Raises `UnknownName` and `BadOption`.
    """
    here, there = (end_of(objects, policies, who) for who in (source, destination))
    return policies.flow(here, there, checked_port(port), transport(protocol), of or said_family(source, destination))


def end_of(objects: Resolved, policies: Policies, who: str) -> End:
    """The end that WHO means: `NAMESPACE/POD`, `deploy/NAMESPACE/NAME` (or `sts/…`, `ds/…`; its first pod),
    `node/NAME`, `external`, `external:IP`, or an address. Raises `UnknownName` and `BadOption`.
    """
    if who == CLIENT:
        return Outside((client_address(4), client_address(6)))
    name = who.removeprefix("pod/")
    if name.count("/") == 2 and not name.startswith(("svc/", "service/")):
        pods = objects.pods_of(name)
        if not pods:
            raise BadOption(Problem("it has no pods", object=who))
        name = pods[0].key
    pod = objects.named(f"Pod {name}")
    if isinstance(pod, api.Pod) and pod.completed:
        raise BadOption(Problem("it has completed: it neither sends nor receives", object=f"Pod {name}"))
    return policies.end(name)


def declared_ports(objects: Resolved) -> tuple[str, ...]:
    """Every port that a container of a pod declares, `80/TCP`, by protocol and number; 80/TCP where none does."""
    found = {
        (port.protocol, port.container_port)
        for pod in objects.pods
        if not pod.completed
        for container in pod.listeners()
        for port in container.ports
    }
    return tuple(f"{number}/{protocol}" for protocol, number in sorted(found)) or ("80/TCP",)
