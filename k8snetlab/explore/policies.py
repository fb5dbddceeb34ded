"""Who may talk to whom, and which rule says so? (4.1)

A cluster, and sets of policies to lay over it (`recipes`). Choose one, the network plugin, who asks whom, and at which
port. The text tells what the policies say at both ends of the connection, by which rule, in which line; whether the API
would have it otherwise than this plugin; and what becomes of a packet, for a policy that nobody heeds forbids nothing.
Below it is the matrix of all pods at that port, by classes of pods that are treated alike.

The picture is that matrix, or the policies, or who is closed to what, or the packet's way.

Not modelled: several plugins in one cluster. Guide section 4.1.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from k8snetlab import draw
from k8snetlab.address import family
from k8snetlab.cluster import Cluster, recipes
from k8snetlab.errors import LabError
from k8snetlab.explore.explorer import SYSTEM, Explorer, Setting, View, dropdown
from k8snetlab.policies.engine import PolicyVerdict, judged
from k8snetlab.policies.matrix import Port, asked_port
from k8snetlab.policies.plan import BY_THE_BOOK, Flow
from k8snetlab.trace import Trace

__all__ = ["LOOKS", "NONE", "OUTSIDE", "PLUGINS", "PoliciesModel", "WhoMayTalk"]

PLUGINS = ("flannel", "calico", "weave", "cilium")
"""One that heeds no policies, and three that do."""

LOOKS = ("matrix", "policies", "isolation", "path")
NONE = "no policies"
OUTSIDE = "external"
"""Somebody outside of the cluster, as `Cluster.trace` calls him."""


class PoliciesModel:
    """The view model: a cluster, and policies by name that may be applied to it."""

    def __init__(self, cluster: Cluster, policies: Mapping[str, recipes.Recipe]) -> None:
        self.cluster = cluster
        self.policies = policies
        pods = [pod for pod in cluster.objects.pods if pod.networked]
        dns = next(pod.key for pod in pods if pod.namespace == SYSTEM)
        self.ends = (*(pod.key for pod in pods if pod.namespace != SYSTEM), dns, OUTSIDE)
        declared = {
            Port(port.container_port, port.protocol) for pod in pods for each in pod.listeners() for port in each.ports
        }
        self.ports = tuple(str(each) for each in sorted({*declared, asked_port("443")}))
        self.on = lru_cache(maxsize=64)(self._on)

    def _on(self, policies: str, cni: str) -> Cluster:
        bare = self.cluster.changed(cni=cni)
        return bare if policies == NONE else bare.applied(self.policies[policies].path)

    def verdict(self, *, policies: str, cni: str, source: str, target: str, port: str) -> PolicyVerdict:
        """What the policies say, as the plugin reads them."""
        asked = asked_port(port)
        return self.on(policies, cni).allowed(source, target, asked.number, asked.protocol)

    def trace(self, *, policies: str, cni: str, source: str, target: str, port: str) -> Trace:
        """What becomes of the packet. Raises `LabError` where none is sent."""
        cluster = self.on(policies, cni)
        if target == OUTSIDE:
            addresses = (each.ip for each in cluster.network[OUTSIDE].link("eth0").addresses)
            target = next(each for each in addresses if family(each) == 4)
        return cluster.trace(source, f"{target}:{port}")

    def view(self, *, policies: str, cni: str, source: str, target: str, port: str, look: str) -> View:
        """The verdict with its reasons, the packet's end, the matrix; and one of the pictures."""
        cluster = self.on(policies, cni)
        chosen = {"policies": policies, "cni": cni, "source": source, "target": target, "port": port}
        found, reach = self.verdict(**chosen), cluster.reach([port])
        try:
            trace = self.trace(**chosen)
            arrived = f"The packet: {trace.fate}, the client is told {trace.client}: {trace.reason}"
        except LabError as error:
            trace, arrived = None, f"No packet is sent: {error}"
        lines = (
            f"{policies}, under {cni}",
            self.policies[policies].says if policies in self.policies else "Nobody has written a policy.",
            "",
            *str(found).splitlines(),
            *self._otherwise(cluster, found),
            arrived,
            "",
            *str(reach).splitlines(),
        )
        match look:
            case "matrix":
                pair = (source, target) if OUTSIDE not in (source, target) else None
                picture = draw.reach(reach, port, pair=pair)
            case "policies":
                picture = draw.policies(cluster)
            case "isolation":
                picture = draw.isolation(cluster)
            case _ if trace is None:
                picture = draw.nobody(f"{source} -> {target}", arrived)
            case _:
                picture = draw.topology(cluster, trace)
        return View("\n".join(lines), picture)

    def _otherwise(self, cluster: Cluster, found: PolicyVerdict) -> tuple[str, ...]:
        """What the API would have, where the plugin has it otherwise."""
        book = judged(cluster.policies.choosing(BY_THE_BOOK), Flow(*found.flow))
        if book.allowed == found.allowed:
            return ()
        return (f"  by the API it is {'allowed' if book else 'denied'}: {book.reason}",)


class WhoMayTalk(Explorer[PoliciesModel]):
    """Lay policies over a cluster and ask. Its settings are `policies` (a recipe, or `no policies`), `cni`, `source`,
    `target`, `port`, and `look`, what the picture shows.
    """

    policies = Setting[str]()
    cni = Setting[str]()
    source = Setting[str]()
    target = Setting[str]()
    port = Setting[str]()
    look = Setting[str]()

    def __init__(self, cluster: Cluster, policies: Mapping[str, recipes.Recipe] | None = None) -> None:
        model = PoliciesModel(cluster, recipes.each() if policies is None else policies)
        controls = {
            "policies": dropdown("Policies", (NONE, *model.policies), "one-client"),
            "cni": dropdown("CNI", PLUGINS, "calico"),
            "source": dropdown("From", model.ends, "shop/web"),
            "target": dropdown("to", model.ends, "shop/db"),
            "port": dropdown("at", model.ports, "5432/TCP"),
            "look": dropdown("Show", LOOKS, "matrix"),
        }
        super().__init__(model, controls, height=580)

    @property
    def trace(self) -> Trace:
        """What becomes of the packet with the settings as they are. Raises `LabError` where none is sent."""
        return self.model.trace(**{name: value for name, value in self.settings().items() if name != "look"})

    @property
    def verdict(self) -> PolicyVerdict:
        """What the policies say with the settings as they are."""
        return self.model.verdict(**{name: value for name, value in self.settings().items() if name != "look"})
