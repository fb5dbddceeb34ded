"""Which address family does this packet use? (5.7)

A cluster has one family or both, in an order; a Service takes from them what its policy and its families say; a
program listens on every address or on those of one family; a client has addresses of its own. A connection needs all
four to meet in one family. Turn them, and the text says for each family how far a client gets; the picture shows the
family that was chosen, and who may take the packet there.

The client takes the first family of the Service that it has too, or the one that it is told to. Where the API server
refuses the Service, the plugin the cluster, or there is no address to ask, the reason stands in the picture's place.

A program that is bound to a family which its pod lacks listens where nobody else can come, on the loopback device.

Not modelled: DNS and the order in which a client's library sorts the addresses that it hears (RFC 6724), clients that
try both at once (RFC 8305). Guide section 5.7; KEP-563.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from k8snetlab import api, draw
from k8snetlab.address import family
from k8snetlab.cluster import Cluster
from k8snetlab.cni import VARIANTS
from k8snetlab.errors import LabError, ManifestError
from k8snetlab.explore.explorer import Explorer, Setting, View, dropdown
from k8snetlab.explore.service import deciding
from k8snetlab.trace import Trace
from k8snetlab.trace.table import chances

__all__ = ["ASKED", "CLUSTERS", "FAMILIES", "POLICIES", "PROGRAMS", "FamiliesModel", "WhichFamily"]

NETWORKS = {
    "IPv4": {"node_cidr": "172.18.0.0/16", "pod_cidr": "10.244.0.0/16", "service_cidr": "10.96.0.0/12"},
    "IPv6": {"node_cidr": "fd00:172::/64", "pod_cidr": "fd00:10:244::/56", "service_cidr": "fd00:10:96::/108"},
}
"""The networks of a cluster of each family."""

CLUSTERS = ("IPv4", "IPv6", "IPv4, IPv6", "IPv6, IPv4")
"""The families of the cluster, the primary one first."""

UNSAID = "(not said)"
"""What a manifest leaves out."""

POLICIES = (UNSAID, *api.IPFamilyPolicy)
FAMILIES = (UNSAID, *CLUSTERS)

PROGRAMS = {"every address": 0, "IPv4 only": 4, "IPv6 only": 6}
"""Where the program of the Service's pods listens: the one family, or 0."""

CHOICE = "its choice"
ASKED = (CHOICE, "IPv4", "IPv6")
"""The family that the client asks for."""

OF = {"IPv4": 4, "IPv6": 6}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
PORT = 80


class FamiliesModel:
    """The view model: a cluster with a Service `web`, pods with the label `app: web`, and a client."""

    def __init__(self, cluster: Cluster, name: str = "web") -> None:
        self.cluster = cluster
        self.service = next(service for service in cluster.objects.services if service.name == name)
        pods = [pod for pod in cluster.objects.pods if pod.namespace == self.service.namespace]
        self.backends = [pod.key for pod in pods if pod.labels.get("app") == self.service.spec.selector["app"]]
        client = next(pod for pod in pods if pod.key not in self.backends)
        node = next(node.name for node in reversed(cluster.objects.nodes) if node.name != client.node_name)
        self.sources = {
            "a pod": client.key,
            "a pod of the Service": self.backends[0],
            "its node": f"node/{client.node_name}",
            "another node": f"node/{node}",
        }
        self.bare = cache(self._bare)
        self.with_ = cache(self._with)

    def _bare(self, families: str, cni: str) -> Cluster:
        """The cluster of these families, with the plugin, without the Service."""
        cidrs = [NETWORKS[each] for each in families.split(", ")]
        joined = {name: ",".join(each[name] for each in cidrs) for name in NETWORKS["IPv4"]}
        return self.cluster.deleted("Service", self.service.key).changed(cni=cni, **joined)

    def _with(self, families: str, cni: str, policy: str, order: str, program: str) -> Cluster:
        """The same with the Service, and with its pods' program where it listens. Raises what the API server says."""
        cluster = self.bare(families, cni).applied(self.manifest(policy, order))
        of = PROGRAMS[program]
        for key in self.backends if of else ():
            cluster = cluster.bound(key, self._own(cluster, key, of))
        return cluster

    def _own(self, cluster: Cluster, key: str, of: int) -> str:
        """The pod's address of a family, else the loopback's."""
        ips = (each.ip for each in cluster.objects.pod(key).status.pod_ips)
        return next((ip for ip in ips if family(ip) == of), LOOPBACK[of])

    def manifest(self, policy: str, order: str) -> dict[str, Any]:
        """The Service as it is written."""
        spec: dict[str, Any] = {
            "selector": dict(self.service.spec.selector),
            "ports": [{"name": "http", "port": PORT, "targetPort": "http"}],
        }
        if policy != UNSAID:
            spec["ipFamilyPolicy"] = policy
        if order != UNSAID:
            spec["ipFamilies"] = order.split(", ")
        metadata = {"name": self.service.name, "namespace": self.service.namespace}
        return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}

    def trace(
        self,
        *,
        source: str,
        families: str = "IPv4, IPv6",
        cni: str = "flannel",
        policy: str = UNSAID,
        order: str = UNSAID,
        program: str = "every address",
        asked: str = CHOICE,
    ) -> Trace:
        """The first packet of a connection to the Service. Raises `LabError` where the Service is refused, or where
        there is no address to send it to.
        """
        cluster = self.with_(families, cni, policy, order, program)
        return cluster.trace(self.sources[source], f"svc/{self.service.key}:{PORT}", family=OF.get(asked))

    def view(self, **settings: Any) -> View:
        """What the Service became, how far a client gets in each family, and what decided."""
        said = f"{settings['policy']}, ipFamilies {settings['order']}"
        title = f"A cluster of {settings['families']} with {settings['cni']}, a Service with ipFamilyPolicy {said}"
        try:
            service = self._made(settings)
        except LabError as error:
            refuses = "The API server refuses it:" if isinstance(error, ManifestError) else "There is no such cluster:"
            lines = [title, refuses, str(error)]
            return View("\n".join(lines), draw.nobody(f"Service {self.service.name}", str(error)))
        lines = [title, f"{service.spec.ip_family_policy}: {', '.join(service.cluster_ips)}", *self._each(settings)]
        source = f"{self.sources[settings['source']]} asks over {settings['asked']}"
        try:
            trace = self.trace(**settings)
        except LabError as error:
            return View("\n".join([*lines, "", f"{source}: {error}"]), draw.nobody(source, str(error)))
        lines += ["", source, chances(trace.outcomes), "", *deciding(trace, self.service.key)]
        return View("\n".join(lines), draw.outcomes(trace))

    def _made(self, settings: dict[str, Any]) -> api.Service:
        names = ("families", "cni", "policy", "order", "program")
        return self.with_(*(settings[name] for name in names)).objects.service(self.service.key)

    def _each(self, settings: dict[str, Any]) -> Iterator[str]:
        """A line for each family: how a connection over it ends."""
        for asked in OF:
            try:
                trace = self.trace(**{**settings, "asked": asked})
            except LabError as error:
                yield f"  {asked}: {error}"
            else:
                yield f"  {asked} to {trace.request.address}: {trace.verdict}, client {trace.client}: {trace.reason}"


class WhichFamily(Explorer[FamiliesModel]):
    """Let families meet. Its settings are `families` (of the cluster), `cni`, `policy` and `order` (of the Service),
    `program`, `source` and `asked`.
    """

    families = Setting[str]()
    cni = Setting[str]()
    policy = Setting[str]()
    order = Setting[str]()
    program = Setting[str]()
    source = Setting[str]()
    asked = Setting[str]()

    def __init__(self, cluster: Cluster) -> None:
        model = FamiliesModel(cluster)
        controls = {
            "families": dropdown("Cluster", CLUSTERS, "IPv4, IPv6"),
            "cni": dropdown("CNI", tuple(VARIANTS), "flannel"),
            "policy": dropdown("ipFamilyPolicy", tuple(map(str, POLICIES)), UNSAID),
            "order": dropdown("ipFamilies", FAMILIES, UNSAID),
            "program": dropdown("The program listens on", tuple(PROGRAMS), "every address"),
            "source": dropdown("Asked by", tuple(model.sources), next(iter(model.sources))),
            "asked": dropdown("over", ASKED, CHOICE),
        }
        super().__init__(model, controls, height=180)

    @property
    def trace(self) -> Trace:
        """The walk with the settings as they are. Raises `LabError` where no packet is sent."""
        return self.model.trace(**self.settings())
