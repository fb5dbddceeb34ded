"""Where is the packet now? (0.0)

One packet, one place at a time: choose who talks to whom and step through what happens, there and back. The
picture is the network with the way so far; the text says what was done at this place, why, by which rule, and
what the packet looks like afterwards, header by header.

*What matters* shows the steps that change or choose something; *every rule* shows each rule that matched,
too.

Not modelled: what is on the cable besides this packet. Guide sections 1.1 to 2.2.
"""

from __future__ import annotations

import textwrap
from functools import lru_cache
from typing import Any, NamedTuple

from k8snetlab import draw
from k8snetlab.cluster import Cluster
from k8snetlab.explore.explorer import SYSTEM, Explorer, Setting, View, dropdown, slider
from k8snetlab.packet import Packet
from k8snetlab.trace import Action, Step, Trace
from k8snetlab.trace.table import telling

__all__ = ["PacketWalk", "Place", "WalkModel", "header_lines"]

OF_THE_CLUSTER = ("default/kubernetes", "kube-system/kube-dns")
"""Services that every cluster has: no lesson is about them."""

MATTERS, EVERYTHING = "what matters", "every rule"


class Place(NamedTuple):
    """One step of a walk: its number among all steps of there and back, whether it is on the way back, and the step."""

    number: int
    back: bool
    step: Step


class WalkModel:
    """The view model: every pair of ends of a cluster, and the walk between them."""

    def __init__(self, cluster: Cluster, sources: tuple[str, ...] = (), targets: tuple[str, ...] = ()) -> None:
        self.cluster = cluster
        self.sources = sources or _sources(cluster)
        self.targets = targets or _targets(cluster)

    def trace(self, source: str, target: str) -> Trace:
        """The walk between two ends, each time anew."""
        return self.cluster.trace(source, target)

    def places(self, trace: Trace, detail: str) -> tuple[Place, ...]:
        """The steps to stop at."""
        whole = (*trace.steps, *trace.reply)
        kept = telling(whole) if detail == MATTERS else enumerate(whole, 1)
        return tuple(Place(number, number > len(trace.steps), step) for number, step in kept)

    def view(self, *, source: str, target: str, step: int, detail: str) -> View:
        """What there is to see at the `step`-th stop, counted from 1; beyond the last it is the last."""
        trace = self.trace(source, target)
        places = self.places(trace, detail)
        at = min(step, len(places))
        place = places[at - 1]
        picture = draw.topology(self.cluster, trace, step=place.number)
        return View(_told(trace, place, at, len(places)), picture)


def _sources(cluster: Cluster) -> tuple[str, ...]:
    pods = tuple(pod.key for pod in cluster.objects.pods if pod.networked and pod.namespace != SYSTEM)
    return (*pods, *(f"node/{node.name}" for node in cluster.objects.nodes), "external")


def _targets(cluster: Cluster) -> tuple[str, ...]:
    services = tuple(
        f"svc/{service.key}:{port.port}"
        for service in cluster.objects.services
        for port in service.spec.ports
        if service.cluster_ips and port.protocol == "TCP" and service.key not in OF_THE_CLUSTER
    )
    pods = tuple(
        f"{pod.key}:{port.container_port}"
        for pod in cluster.objects.pods
        if pod.networked and pod.namespace != SYSTEM
        for container in pod.spec.containers
        for port in container.ports
        if port.protocol == "TCP"
    )
    return (*services, *pods)


def _told(trace: Trace, place: Place, at: int, count: int) -> str:
    step = place.step
    way = "on the way back" if place.back else "on the way there"
    device = f", {step.device}" if step.device else ""
    lines = [
        f"{trace.request.source} → {trace.request.target}   {trace.fate}, the client is told: {trace.client}",
        "",
        f"Stop {at} of {count}, {way}: {step.where}{device}",
        f"{step.action}: {step.why}",
    ]
    if step.rule is not None:
        rule = f"rule of table {step.rule.table}: {step.rule.text}"
        lines += textwrap.wrap(rule, 110, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False)
    lines += ["", f"The packet now, outermost header first, {step.packet.length} bytes:", *header_lines(step.packet)]
    return "\n".join(lines)


@lru_cache(maxsize=1024)
def header_lines(packet: Packet) -> tuple[str, ...]:
    """One line for each header of a packet: its layer, its bytes, what it says."""
    lines = [f"  {header.layer:<9}{header.length:>4}  {header}" for header in packet.headers]
    if packet.payload:
        lines.append(f"  {'payload':<9}{len(packet.payload):>4}")
    return tuple(lines)


class PacketWalk(Explorer[WalkModel]):
    """Step through a packet's walk. `source`, `target`, `step` and `detail` are its settings."""

    source = Setting[str]()
    target = Setting[str]()
    step = Setting[int]()
    detail = Setting[str]()

    def __init__(self, cluster: Cluster) -> None:
        model = WalkModel(cluster)
        controls = {
            "source": dropdown("From", model.sources, model.sources[0]),
            "target": dropdown("To", model.targets, model.targets[0]),
            "detail": dropdown("Show", (MATTERS, EVERYTHING), MATTERS),
            "step": slider("Stop", 1, 2, 1),
        }
        super().__init__(model, controls, height=600)

    @property
    def actions(self) -> tuple[Action, ...]:
        """What is done at each stop: `explorer.step = explorer.actions.index("DNAT") + 1` goes to a certain one."""
        trace = self.model.trace(self.source, self.target)
        return tuple(place.step.action for place in self.model.places(trace, self.detail))

    def _changed(self, change: Any) -> None:
        places = self.model.places(self.model.trace(self.source, self.target), self.detail)
        slider = self.controls["step"]
        if slider.max != len(places):
            slider.max = len(places)  # a stop beyond the end moves to the end by itself
        super()._changed(change)
