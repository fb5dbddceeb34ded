"""What does one pod restart cost the API server? (5.1)

One Service and the two controllers that write down its pods. Choose how many pods there are, what happens to them,
how many endpoints fit into a slice, whether the controllers look after every event or only at the end, and how many
nodes watch. The picture compares the writes and bytes of both, and shows how full the slices are afterwards.

Not modelled: more than one Service at a time. Guide section 5.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache

from k8snetlab import draw
from k8snetlab.cluster import Cluster
from k8snetlab.explore.explorer import Explorer, Setting, View, dropdown, slider
from k8snetlab.services import churn
from k8snetlab.services.churn import Ledger, Pods
from k8snetlab.services.writes import Tally

__all__ = ["CHURNS", "LOOKS", "PodChurn", "SlicesModel"]

SIZES = (10, 50, 100, 500, 1000)
LOOKS: Mapping[str, Callable[[Iterator[Pods]], Iterator[Pods] | tuple[Pods, ...]]] = {
    "after every event": lambda states: states,
    "once, at the end": churn.at_once,
}
"""When the controllers look: what they see of the states that the pods go through."""
CHURNS: Mapping[str, Callable[[Pods], Iterator[Pods]]] = {
    "one pod restarts": lambda pods: churn.restarted(pods, 1),
    "ten pods restart": lambda pods: churn.restarted(pods, 10),
    "one pod stumbles": lambda pods: churn.stumbled(pods, 1),
    "ten pods more": lambda pods: churn.grown(pods, len(pods) + 10),
    "ten pods less": lambda pods: churn.shrunk(pods, len(pods) - 10),
}
"""What happens, by what it is called."""
FEWEST, MOST = 10, 1200


class SlicesModel:
    """The view model: a cluster with a Service `web`, whose pods are multiplied."""

    def __init__(self, cluster: Cluster, service: str = "default/web") -> None:
        self.begin = cluster.ledger(service)
        self.started = lru_cache(maxsize=32)(self._started)

    def _started(self, pods: int, most: int) -> Ledger:
        controller = self.begin.slices
        there = churn.resized(self.begin.pods, pods)
        return churn.started(controller.service, there, controller.nodes, most)

    def ledger(self, *, pods: int, happens: str, most: int, looks: str) -> Ledger:
        """The ledger when it has happened."""
        there = self.started(pods, most)
        return there.after(LOOKS[looks](CHURNS[happens](there.pods)), happens)

    def view(self, *, pods: int, happens: str, most: int, looks: str, nodes: int) -> View:
        """Writes and bytes of both, and what all nodes are sent together."""
        ledger = self.ledger(pods=pods, happens=happens, most=most, looks=looks)
        turn = ledger.last
        lines = [
            f"{ledger.slices.service.name}, {pods:,} pods: {happens}; the controllers look {looks}",
            "",
            f"EndpointSlices of at most {most:,}: {turn.slices}",
            f"Endpoints: {turn.endpoints}",
            "",
            f"{nodes:,} nodes watch: slices send {_sent(turn.slices, nodes)}, Endpoints {_sent(turn.endpoints, nodes)}",
            f"{len(turn.sizes):,} slices: {_spelled(turn.sizes)}",
        ]
        return View("\n".join(lines), draw.ledger(ledger))


def _sent(tally: Tally, nodes: int) -> str:
    """What all watchers together are sent: 1 MB is 1,000,000 bytes."""
    return f"{tally.bytes * nodes / 1_000_000:,.1f} MB"


def _spelled(sizes: tuple[int, ...]) -> str:
    """The sizes in order, equal neighbours counted: `3 × 100 + 51`."""
    runs: list[tuple[int, int]] = []
    for size in sizes:
        if runs and runs[-1][1] == size:
            runs[-1] = (runs[-1][0] + 1, size)
        else:
            runs.append((1, size))
    return " + ".join(f"{count} × {size}" if count > 1 else str(size) for count, size in runs)


class PodChurn(Explorer[SlicesModel]):
    """Let pods come and go. Its settings are `pods`, `happens`, `most`, `looks` and `nodes`."""

    pods = Setting[int]()
    happens = Setting[str]()
    most = Setting[int]()
    looks = Setting[str]()
    nodes = Setting[int]()

    def __init__(self, cluster: Cluster) -> None:
        controls = {
            "pods": slider("Pods", FEWEST, MOST, 250, step=10),
            "happens": dropdown("What happens", tuple(CHURNS), next(iter(CHURNS))),
            "most": dropdown("Endpoints in a slice", SIZES, 100),
            "looks": dropdown("The controllers look", tuple(LOOKS), next(iter(LOOKS))),
            "nodes": slider("Nodes that watch", 1, 5000, 100),
        }
        super().__init__(SlicesModel(cluster), controls, height=170)
