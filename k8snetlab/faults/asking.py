"""Who notices?

A fault is known by what does not work any more. So around the spot of a fault questions are asked, the same of the
whole cluster and of the broken one: pods of both nodes call each other, with short packets and with the longest that
they may send; the nodes call pods; pods call Services (themselves behind them, too) and the world outside; the world
calls node ports. What is compared is what the two ends see: whether it opened, who took it and whom he saw, and how
many machines it took to get there. No answer is expected here: the whole cluster says what is right.

Not modelled: what several packets would show, such as a connection that breaks off. Guide section 4.4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from k8snetlab import api
from k8snetlab.address import family
from k8snetlab.compile import client_address
from k8snetlab.faults.spots import SYSTEM, Spot, pods_of
from k8snetlab.linux.host import families

if TYPE_CHECKING:
    from k8snetlab.cluster import Cluster

__all__ = ["Answer", "Ask", "Notice", "answer", "asks"]

PODS = 2
"""So many pods of each node are asked."""

SERVICES, ENDPOINTS = 12, 60
"""So many Services are called, and fewer if so many pods are behind them: each of these costs a walk."""

WEB = 80
OUTSIDE = "external"


class Ask(NamedTuple):
    """One question: the arguments of `Cluster.trace`."""

    source: str
    target: str
    family: int | None = None
    size: int = 0
    via: str | None = None

    def __str__(self) -> str:
        more = (
            f"IPv{self.family}" if self.family else "",
            f"{self.size:,} bytes" if self.size else "",
            f"by way of {self.via}" if self.via else "",
        )
        said = ", ".join(filter(None, more))
        return f"{self.source} → {self.target}{f' ({said})' if said else ''}"


class Answer(NamedTuple):
    """What both ends see, whichever way load balancing falls: how it ended for the client, who took it, and the source
    that he saw; and how many machines the packet met.
    """

    seen: frozenset[tuple[str, str, str]]
    machines: int

    def as_good_as(self, other: Answer) -> bool:
        """Whether nobody could tell it from the other, and it is no detour."""
        return self.seen == other.seen and self.machines <= other.machines

    def __str__(self) -> str:
        told = sorted(f"{end}{f' by {who}, which sees {source}' if who else ''}" for end, who, source in self.seen)
        return f"{' or '.join(told)}, {self.machines} machine{'s' if self.machines > 1 else ''}"


class Notice(NamedTuple):
    """A question that is answered otherwise than before."""

    ask: Ask
    before: Answer
    now: Answer

    def __str__(self) -> str:
        return f"{self.ask}\n  before: {self.before}\n  now:    {self.now}"


def answer(cluster: Cluster, ask: Ask) -> Answer:
    """What a cluster answers."""
    trace = cluster.trace(ask.source, ask.target, family=ask.family, size=ask.size, via=ask.via)
    seen = (
        (str(each.client), each.backend.name if each.backend is not None else "", each.source_seen)
        for each in trace.outcomes
    )
    return Answer(frozenset(seen), len({step.where for step in trace.steps}))


def asks(cluster: Cluster, spot: Spot) -> Iterator[Ask]:
    """What to ask around a spot: the questions in the order in which they are told."""
    here, there = _ends(cluster, spot)
    pods, others = _pods(cluster, here), _pods(cluster, there)
    short = [*_to_pods(cluster, pods, others), *_to_pods(cluster, others, pods)]
    yield from short
    for node, called in ((here, others), (there, pods)):
        yield from _to_pods(cluster, [node] if node else (), called)
    yield from _to_services(cluster, pods, spot.host)
    yield from (_longest(cluster, ask) for ask in short)
    yield from _to_outside(cluster, pods)
    yield from _from_outside(cluster, here)


def _ends(cluster: Cluster, spot: Spot) -> tuple[str, str]:
    """The two nodes that are asked about: those of the spot, or where it is elsewhere, the first two that have pods."""
    peopled = [name for name, pods in cluster.layout.workloads.items() if pods]
    here = spot.host if spot.host in peopled else next((each for each in peopled if each != spot.other), "")
    there = spot.other if spot.other in peopled else next((each for each in peopled if each != here), "")
    return here, there


def _pods(cluster: Cluster, node: str) -> Sequence[str]:
    return [pod.name for pod in pods_of(cluster.layout, node)[:PODS]]


def _to_pods(cluster: Cluster, callers: Sequence[str], called: Sequence[str]) -> Iterator[Ask]:
    """Every caller to every pod, in each family that both have; where nobody listens, a refusal is an answer too."""
    for pod in called:
        listens = cluster.objects.listens(cluster.objects.pod(pod))
        port = next((port for protocol, port, _ in listens if protocol == api.Protocol.TCP), WEB)
        for caller in callers:
            who = caller if "/" in caller else f"node/{caller}"
            both = [of for of in families(cluster.network[pod]) if of in families(cluster.network[caller])]
            yield from (Ask(who, f"{pod}:{port}", of if len(both) > 1 else None) for of in both)


OUTER_IPV6 = 20
"""So much longer is an outer header of IPv6 than the one of IPv4 that some CNIs reckon with."""


def _longest(cluster: Cluster, ask: Ask) -> Ask:
    """The same question in the longest packet that its sender may send so far and that the whole cluster carries."""
    trace = cluster.trace(ask.source, ask.target, family=ask.family)
    sender = cluster.network[ask.source]
    route = sender.find(trace.request.address)
    room = (route.mtu or sender.link(route.device).mtu) if route is not None else 0
    longer = ask._replace(size=max(0, room - trace.steps[0].packet.length))
    answered = cluster.trace(ask.source, ask.target, family=ask.family, size=longer.size).client is trace.client
    return longer if answered else longer._replace(size=max(0, longer.size - OUTER_IPV6))


def _to_services(cluster: Cluster, pods: Sequence[str], at: str) -> Iterator[Ask]:
    """For each of some Services (the one at a spot first) a pod of the node that is behind it, and one that is not."""
    for first in pods[:1]:
        node = pods_of(cluster.layout, cluster.objects.pod(first).node_name)
        for service in _services(cluster, at):
            for port in service.spec.ports[:1]:
                ask = Ask(first, f"svc/{service.key}:{port.port}/{port.protocol}")
                behind = {who for _, who, _ in answer(cluster, ask).seen}
                yield from (ask._replace(source=pod.name) for pod in [each for each in node if each.name in behind][:1])
                yield from (
                    ask._replace(source=pod.name) for pod in [each for each in node if each.name not in behind][:1]
                )


def _services(cluster: Cluster, at: str) -> Iterator[api.Service]:
    """Some Services of pods that have an address: the one at the spot first, and the system's own last."""
    served = [each for each in cluster.objects.services if each.cluster_ips and each.spec.selector]
    served.sort(key=lambda each: (f"svc/{each.key}" != at, each.key.startswith(SYSTEM)))
    behind = 0
    for service in served[:SERVICES]:
        if behind < ENDPOINTS:
            yield service
        behind += len(cluster.objects.meant_by(service))


def _to_outside(cluster: Cluster, pods: Sequence[str]) -> Iterator[Ask]:
    for pod in pods[:1]:
        for of in families(cluster.network[pod]):
            client = client_address(of)
            yield Ask(pod, f"[{client}]:{WEB}" if family(client) == 6 else f"{client}:{WEB}")


def _from_outside(cluster: Cluster, node: str) -> Iterator[Ask]:
    for service in cluster.objects.services:
        if node and service.spec.type is api.ServiceType.NODE_PORT:
            yield from (
                Ask(OUTSIDE, f"svc/{service.key}:{port.port}/{port.protocol}", via=node)
                for port in service.spec.ports[:1]
            )
