"""Which promise is broken, and who notices? (1.1)

Break one of the rules of the network model and look at all of them: exactly one check fails. The picture
shows a packet that feels it. What is broken is the state of a machine — a firewall rule, a masquerade rule, a
listener, a route — and the checks send real walks through that state.

Not modelled: rules broken by hardware, by policies, or two at once. Guide section 1.1.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import msgspec

from k8snetlab import contract, draw
from k8snetlab.cluster import Cluster, networks
from k8snetlab.explore.explorer import SYSTEM, Explorer, Setting, View, dropdown
from k8snetlab.trace import Trace

__all__ = ["NOTHING", "ContractModel", "Pair", "RuleBreaker"]

NOTHING = "nothing"
EXAMPLES = 3
"""So many failures of a broken rule are shown."""


class Pair(msgspec.Struct, frozen=True):
    """Who sends and who is sent to, as `Cluster.trace` takes them."""

    source: str
    target: str


class ContractModel:
    """The view model: a cluster on each network, whole or with one rule broken."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.judged = cache(self._judged)

    def _judged(self, network: str, rule: str) -> tuple[Cluster, contract.Report]:
        """The cluster with the rule broken, and what its contract says: kept, for it sends a hundred packets."""
        cluster = networks.on(self.cluster, network)
        if rule != NOTHING:
            cluster = contract.break_rule(cluster, rule)
        return cluster, contract.check(cluster)

    def pair(self, rule: str) -> Pair:
        """Two ends whose packet would feel that the rule is broken: on the first node with pods, and on another."""
        pods = [pod for pod in self.cluster.objects.pods if pod.networked and pod.namespace != SYSTEM]
        here = min(pods, key=lambda pod: (pod.node_name, pod.key))
        there = next(pod for pod in pods if pod.node_name != here.node_name)
        match rule:
            case "node-to-pod":
                return Pair(f"node/{here.node_name}", self._listening(there.key))
            case "kubelet":
                return Pair(f"node/{there.node_name}", f"node/{here.node_name}:10250")
            case "outside":
                return Pair("external", self._listening(here.key))
            case _:
                return Pair(here.key, self._listening(there.key))

    def _listening(self, pod: str) -> str:
        return f"{pod}:{self.cluster.network[pod].listeners[0].port}"

    def view(self, *, broken: str, network: str) -> View:
        """All checks on the chosen network with the chosen rule broken, and a packet that feels it."""
        cluster, report = self.judged(network, broken)
        pair = self.pair(broken)
        trace = cluster.trace(pair.source, pair.target)
        return View("\n".join((*_told(report), "", *_felt(trace))), draw.topology(cluster, trace))


def _told(report: contract.Report) -> Iterator[str]:
    for check in report:
        yield f"{'holds ' if check.holds else 'BROKEN'}  {check.rule}: {check.title}"
        if not check.holds:
            yield f"        {check.evidence}. For example:"
            yield from (f"        ✗ {failure}" for failure in check.failures[-EXAMPLES - 1 : -1] or check.failures)


def _felt(trace: Trace) -> tuple[str, ...]:
    seen = f", and the receiver sees {trace.source_seen}" if trace.source_seen else ""
    return (
        f"The picture: {trace.request.source} → {trace.request.target}",
        f"{trace.fate}, the client is told {trace.client}{seen}",
        trace.reason,
    )


class RuleBreaker(Explorer[ContractModel]):
    """Break a rule. `broken` is the name of one, or `nothing`; `network` is one of `networks.ways()`."""

    broken = Setting[str]()
    network = Setting[str]()

    def __init__(self, cluster: Cluster) -> None:
        rules = [("nothing", NOTHING), *((f"{name}: {title}", name) for name, (title, _) in contract.RULES.items())]
        controls = {
            "broken": dropdown("Break", rules, NOTHING),
            "network": dropdown("Network", tuple(networks.ways()), "flannel vxlan"),
        }
        super().__init__(ContractModel(cluster), controls, height=600)
