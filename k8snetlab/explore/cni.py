"""What does the same packet meet under another CNI plugin? (3.1)

One client and four things it may ask for: a pod of its own node, a pod of another node, the Service in front of those,
and a server outside of the cluster. Choose the network (each CNI with each of its ways between nodes), the family, the
proxy mode, and whether the nodes share a subnet. The picture shows the path, or the headers after each change; the text
tells how it ended, whom the server saw, what was on the cable between the nodes, and what the client's node holds so
that its pods reach those of others.

A network that cannot be built so (a plugin without that family) is said in the picture's place, and a packet that is
lost is lost: nothing forbids nodes in two subnets to a plugin that needs one.

Not modelled: several plugins in one cluster, a change of the plugin while pods run. Guide section 3.1.
"""

from __future__ import annotations

from functools import cache, lru_cache

from k8snetlab import draw
from k8snetlab.address import family as family_of
from k8snetlab.cluster import Cluster, networks
from k8snetlab.errors import LabError
from k8snetlab.explore.explorer import SYSTEM, Explorer, Setting, View, dropdown
from k8snetlab.explore.families import NETWORKS as CIDRS
from k8snetlab.explore.walk import OF_THE_CLUSTER, header_lines
from k8snetlab.packet import Ethernet, IPv4, IPv6, Packet
from k8snetlab.services import MODES
from k8snetlab.trace import Trace
from k8snetlab.trace.table import table, telling

__all__ = ["FAMILIES", "FLOWS", "LOOKS", "SUBNETS", "CniModel", "SamePacket", "between"]

FLOWS = ("pod of the same node", "pod of another node", "Service", "server outside")
FAMILIES = tuple(CIDRS)
OF = {"IPv4": 4, "IPv6": 6}
LOOKS = ("path", "headers")

SUBNETS = {
    "one subnet": {},
    "two subnets": {"IPv4": "172.18.1.0/24,172.18.2.0/24", "IPv6": "fd00:172:1::/64,fd00:172:2::/64"},
}
"""Where the nodes are: the networks by family, if not the usual one."""

PAYLOAD = 1000
"""Bytes that the client sends: enough to see what headers are to it."""


class CniModel:
    """The view model: a cluster with a client, a pod beside it, a pod of another node, and a Service that has no pod
    of the client's node.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        pods = [pod for pod in cluster.objects.pods if pod.networked and pod.namespace != SYSTEM]
        client = pods[0]
        self.source, self.node = client.key, client.node_name
        self.near = next(pod.key for pod in pods if pod.node_name == self.node and pod is not client)
        self.far = next(pod.key for pod in pods if pod.node_name != self.node)
        service = next(each for each in cluster.objects.services if each.key not in OF_THE_CLUSTER)
        self.service = f"svc/{service.key}:{service.spec.ports[0].port}"
        self.bare = cache(self._bare)
        self.on = lru_cache(maxsize=64)(self._on)

    def _on(self, network: str, family: str, proxy: str, subnets: str) -> Cluster:
        return networks.on(self.bare(family, proxy, subnets), network)

    def _bare(self, family: str, proxy: str, subnets: str) -> Cluster:
        """The cluster on the network that it had."""
        cidrs = dict(CIDRS[family])
        if SUBNETS[subnets]:
            cidrs["node_cidr"] = SUBNETS[subnets][family]
        return self.cluster.changed(proxy=proxy, **cidrs)

    def target(self, cluster: Cluster, flow: str, of: int) -> str:
        """What the client asks for, in family `of`."""
        match flow:
            case "Service":
                return self.service
            case "server outside":
                addresses = cluster.network["external"].link("eth0").addresses
                address = next(each.ip for each in addresses if family_of(each.ip) == of)
                return f"[{address}]:443" if of == 6 else f"{address}:443"
            case _:
                return f"{self.near if flow == FLOWS[0] else self.far}:8080"

    def trace(self, *, network: str, flow: str, family: str, proxy: str, subnets: str) -> Trace:
        """The walk of the packet. Raises `LabError` where there is no such cluster, or no address to send it to."""
        cluster = self.on(network, family, proxy, subnets)
        return cluster.trace(self.source, self.target(cluster, flow, OF[family]), size=PAYLOAD)

    def view(self, *, network: str, flow: str, family: str, proxy: str, subnets: str, look: str) -> View:
        """The path of the packet or its headers, and what the nodes hold for it."""
        title = f"{self.source} asks a {flow} over {family}: {network}, proxy {proxy}, nodes in {subnets}"
        try:
            trace = self.trace(network=network, flow=flow, family=family, proxy=proxy, subnets=subnets)
        except LabError as error:
            return View(f"{title}\nNot possible: {error}", draw.nobody(f"{network}, {family}", str(error)))
        cluster = self.on(network, family, proxy, subnets)
        steps = [step for step in trace.steps if not step.packet.later_fragment]
        lines = [
            title,
            cluster.plugin.summary,
            f"{trace.fate}, the client is told {trace.client}: {trace.reason}",
            *([f"The server sees {trace.source_seen}"] if trace.source_seen else []),
            *self._wire(cluster, trace),
            *self._held(cluster, family),
            "",
            table(telling(steps)),
        ]
        picture = draw.topology(cluster, trace) if look == "path" else draw.headers(steps)
        return View("\n".join(lines), picture)

    def _wire(self, cluster: Cluster, trace: Trace) -> tuple[str, ...]:
        frame = between(cluster, trace)
        if frame is None:
            return ("Nothing of it is on the cable between the nodes",)
        return (f"On the cable between the nodes: {frame.length:,} bytes", *header_lines(frame))

    def _held(self, cluster: Cluster, family: str) -> tuple[str, ...]:
        """What there is for pods of other nodes: on the client's node, and on the router."""
        held = networks.held(cluster, self.node, OF[family])
        counted = [f"{name} {getattr(held, name)}" for name in held.__struct_fields__ if getattr(held, name)]
        return (f"Held by {self.node} and the router for pods of other nodes: {', '.join(counted)}",)


def between(cluster: Cluster, trace: Trace) -> Packet | None:
    """The largest frame of the request that passed a switch between the nodes; none where it never left its node."""
    found = (step.packet for step in trace.steps if cluster.network[step.where].kind == "switch")
    return max((each for each in found if _data(each)), key=lambda frame: frame.length, default=None)


def _data(packet: Packet) -> bool:
    """Whether it is a frame with an IP packet: no question for a MAC address."""
    return isinstance(packet.headers[0], Ethernet) and any(isinstance(each, IPv4 | IPv6) for each in packet.headers)


class SamePacket(Explorer[CniModel]):
    """Send the same packet over another network. Its settings are `network`, `flow`, `family`, `proxy`, `subnets`, and
    `look`, what the picture shows.
    """

    network = Setting[str]()
    flow = Setting[str]()
    family = Setting[str]()
    proxy = Setting[str]()
    subnets = Setting[str]()
    look = Setting[str]()

    def __init__(self, cluster: Cluster) -> None:
        model = CniModel(cluster)
        controls = {
            "network": dropdown("Network", tuple(networks.ways()), "flannel vxlan"),
            "flow": dropdown("To a", FLOWS, FLOWS[1]),
            "family": dropdown("over", FAMILIES, "IPv4"),
            "proxy": dropdown("Proxy", tuple(MODES), "iptables"),
            "subnets": dropdown("Nodes in", tuple(SUBNETS), "one subnet"),
            "look": dropdown("Show", LOOKS, "path"),
        }
        super().__init__(model, controls, height=580)

    @property
    def trace(self) -> Trace:
        """The walk with the settings as they are. Raises `LabError` where no packet is sent."""
        return self.model.trace(**{name: value for name, value in self.settings().items() if name != "look"})
