"""How does this packet get from pod to pod, and what does it carry on the way? (2.1)

The same packet on every network that there is: to a neighbour on the same node or to another node, over a tunnel or
over host routes, large or small, with one entry of the node missing. The picture shows its headers after each
change; the text says where it went, how large it was on the cable between the nodes, and how it ended.

A missing entry is taken out of the node's compiled state: the route that its kernel would take, what a tunnel needs
besides, or what eBPF programs look up. Where that network has no such entry, the text says so.

Not modelled: a path whose MTU changes in its middle. Guide section 2.1; RFC 7348.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import TypeVar

import ipywidgets as widgets

from k8snetlab import draw
from k8snetlab.address import Prefix, family
from k8snetlab.cluster import Cluster, networks
from k8snetlab.explore.explorer import SYSTEM, Explorer, Setting, View, dropdown, slider
from k8snetlab.explore.walk import header_lines
from k8snetlab.linux.host import Entry
from k8snetlab.packet import Packet
from k8snetlab.trace import Action, Trace
from k8snetlab.trace.beside import sides
from k8snetlab.trace.table import table, telling

__all__ = ["MISSING", "PodToPod", "PodToPodModel", "wire"]

E = TypeVar("E")

MISSING = ("nothing", "route", "neighbour", "FDB entry", "WireGuard peer", "cache entry")
"""What may be taken away from the sender's node."""

SAME, OTHER = "same node", "other node"
USUAL = "as usual"


class PodToPodModel:
    """The view model: three pods, two of them on one node, on several networks."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        pods = [pod for pod in cluster.objects.pods if pod.networked and pod.namespace != SYSTEM]
        self.node = min(pod.node_name for pod in pods)
        self.source, self.same, *_ = (pod.key for pod in pods if pod.node_name == self.node)
        self.other = next(pod.key for pod in pods if pod.node_name != self.node)
        self.on = cache(self._on)

    def _on(self, network: str, missing: str, mtu: str) -> Cluster:
        cluster = networks.on(self.cluster, network, **({} if mtu == USUAL else {"mtu": mtu}))
        entry = self.entry(cluster, missing)
        return cluster if entry is None else cluster.without(self.node, entry)

    def entry(self, cluster: Cluster, missing: str) -> Entry | None:
        """The entry of that kind that leads to the other node; `None` where this network has none."""
        host = cluster.network[self.node]
        other = cluster.objects.pod(self.other)
        route = _longest([r for r in host.routes if r.prefix != "default"], lambda each: each.prefix, other.ip)
        neighbour = next((n for n in host.neighbours if route is not None and n.ip == route.via), None)
        match missing:
            case "route":
                return route
            case "neighbour":
                return neighbour
            case "FDB entry":
                return next((f for f in host.fdb if neighbour is not None and f.mac == neighbour.mac), None)
            case "WireGuard peer":
                ends = {other.ip, *cluster.objects.node(other.node_name).addresses}
                return next((p for p in host.wireguard if any(_holds(block, ends) for block in p.allowed)), None)
            case "cache entry":
                known = host.datapath.known if host.datapath is not None else ()
                return _longest(known, lambda each: each.prefix, other.ip)
            case _:
                return None

    def trace(self, *, network: str, to: str, size: int, missing: str, mtu: str, df: bool) -> Trace:
        """The walk of one packet with `size` bytes of payload."""
        target = self.same if to == SAME else self.other
        cluster = self.on(network, missing, mtu)
        protocol = "UDP" if size else "TCP"
        port = next(each.port for each in cluster.network[target].listeners if each.protocol == protocol)
        return cluster.trace(self.source, f"{target}:{port}/{protocol}", size=size, df=df)

    def view(self, *, network: str, to: str, size: int, missing: str, mtu: str, df: bool) -> View:
        """The headers of the packet on its way, and where it went."""
        trace = self.trace(network=network, to=to, size=size, missing=missing, mtu=mtu, df=df)
        lines = [f"{trace.request.source} → {trace.request.target} on {network}"]
        whole = self.on(network, "nothing", mtu)
        if missing != "nothing" and self.entry(whole, missing) is None:
            lines.append(f"({self.node} has no {missing} for the other node on this network: nothing is missing)")
        lines += [f"{trace.fate}, the client is told {trace.client}: {trace.reason}", _devices(whole, self.node, trace)]
        frame = wire(trace, self.node)
        if frame is not None:
            lines += [f"On the cable between the nodes: {frame.length} bytes", *header_lines(frame)]
        lines += ["", table(telling(trace.steps))]
        return View("\n".join(lines), draw.headers([step for step in trace.steps if not step.packet.later_fragment]))


def wire(trace: Trace, node: str) -> Packet | None:
    """The frame as it leaves the node towards another one; `None` if it never does."""
    steps = (s for s in trace.steps if s.where == node and s.action is Action.TRANSMIT and s.device == "eth0")
    found = next(steps, None)
    return found.packet if found is not None else None


def _devices(cluster: Cluster, node: str, trace: Trace) -> str:
    """The MTUs of the pod's device and of those of its node that the packet passed, and of the pod's default route."""
    [side] = sides({"": trace})
    pod, host = cluster.network[trace.request.source], cluster.network[node]
    passed = dict.fromkeys(name for hop in side.hops if hop.where == node for name in hop.devices)
    shown = [("the pod's eth0", pod.link("eth0").mtu)]
    shown += [("its default route", each.mtu) for each in pod.routes if each.prefix == "default" and each.mtu]
    shown += [(link.name, link.mtu) for name in passed for link in host.links if link.name == name]
    return "MTU: " + ", ".join(f"{name} {mtu}" for name, mtu in shown)


def _longest(entries: Sequence[E], prefix: Callable[[E], str], address: str) -> E | None:
    """The entry with the longest prefix that holds an address; `None` where none does."""
    holding = [each for each in entries if _holds(prefix(each), {address})]
    return max(holding, key=lambda each: Prefix.of(prefix(each)).length, default=None)


def _holds(block: str, addresses: Collection[str]) -> bool:
    held = Prefix.of(block)
    return any(family(each) == held.family and held.contains(each) for each in addresses)


class PodToPod(Explorer[PodToPodModel]):
    """Send a packet. Its settings are `network` (one of `networks.ways()`), `to`, `size` (0 is a TCP SYN), `missing`,
    `mtu` (of the pods) and `df`.
    """

    network = Setting[str]()
    to = Setting[str]()
    size = Setting[int]()
    missing = Setting[str]()
    mtu = Setting[str]()
    df = Setting[bool]()

    def __init__(self, cluster: Cluster) -> None:
        controls = {
            "network": dropdown("Network", tuple(networks.ways()), "flannel vxlan"),
            "to": dropdown("To the", (SAME, OTHER), OTHER),
            "missing": dropdown("Missing", MISSING, "nothing"),
            "mtu": dropdown("MTU of pods", (USUAL, "1400", "1500"), USUAL),
            "df": widgets.Checkbox(description="must not be cut (DF)", value=True, indent=False),
            "size": slider("Bytes of payload", 0, 3000, 0),
        }
        super().__init__(PodToPodModel(cluster), controls, height=440)

    @property
    def trace(self) -> Trace:
        """The walk with the settings as they are."""
        return self.model.trace(**self.settings())
