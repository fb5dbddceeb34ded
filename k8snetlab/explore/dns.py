"""Which name is really asked? (2.3)

A program looks a name up. Choose the name, who asks, the pod's dnsPolicy and ndots, the C library of its image, and
whether the nodes have a cache of their own (NodeLocal DNSCache). The picture is the ladder: every question from left to
right, every answer back, and what name servers ask each other meanwhile. The text says what the pod's resolv.conf says,
counts the questions, and tells what the other library would have done.

With dnsPolicy `None` the pod names the cluster's own name server in its dnsConfig, and no search list.

Not modelled: programs that remember names themselves, and what happens to the address afterwards. Guide section 2.3.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import ipywidgets as widgets

from k8snetlab import api, draw
from k8snetlab.cluster import Cluster
from k8snetlab.dns import LIBRARIES
from k8snetlab.errors import LabError
from k8snetlab.explore.explorer import SYSTEM, Explorer, Setting, View, dropdown
from k8snetlab.flows.resolution import Resolution

__all__ = ["CACHES", "NAMES", "NDOTS", "NameModel", "WhichName"]

NAMES = (
    "web", "web.default", "web.default.svc.cluster.local", "web.default.svc.cluster.local.", "stock",
    "stock.warehouse", "all", "db-0.db", "bank", "nobody", "www.example.com", "www.example.com.",
)  # fmt: skip
"""Names to begin with; any other can be written."""

UNSAID = "(not said)"
NDOTS = (UNSAID, "1", "2", "3", "4", "5")
CACHES = {"no": "cluster", "on every node": "node-local"}
"""Whether there is a cache on the nodes, and what the cluster calls it."""


class NameModel:
    """The view model: a cluster, and its pods that no Service leads to: these ask."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        objects = cluster.objects
        meant = {pod.key for service in objects.services for pod in objects.meant_by(service)}
        asking = [pod for pod in objects.pods if pod.key not in meant and pod.namespace != SYSTEM]
        self.sources = {_called(pod): pod.key for pod in sorted(asking, key=lambda pod: pod.host_network)}
        self.with_ = lru_cache(maxsize=64)(self._with)

    def _with(self, source: str, policy: str, ndots: str, cache: str) -> Cluster:
        """The cluster in which the pod that asks has this dnsPolicy and dnsConfig."""
        config: dict[str, Any] = {}
        if ndots != UNSAID:
            config["options"] = [{"name": "ndots", "value": ndots}]
        if policy == api.DNSPolicy.NONE:
            config["nameservers"] = list(self._servers(cache))
        spec = {"dnsPolicy": policy, **({"dnsConfig": config} if config else {})}
        return self._cached(cache).patched("Pod", self.sources[source], {"spec": spec})

    def _cached(self, cache: str) -> Cluster:
        return self.cluster.changed(dns=CACHES[cache])

    def _servers(self, cache: str) -> tuple[str, ...]:
        """What the kubelets call the cluster's DNS: that of a pod with a policy that asks for it."""
        asks = next(iter(self.sources.values()))
        usual = {"spec": {"dnsPolicy": str(api.DNSPolicy.CLUSTER_FIRST_WITH_HOST_NET)}}
        return self._cached(cache).patched("Pod", asks, usual).resolv_conf(asks).nameservers

    def asked(self, *, name: str, source: str, policy: str, ndots: str, libc: str, cache: str) -> Resolution:
        """The lookup. Raises `BadOption` for what is no name."""
        return self.with_(source, policy, ndots, cache).resolve(self.sources[source], name.strip(), libc=libc)

    def view(self, **settings: Any) -> View:
        """The ladder, what the pod reads, and what the other library would have done."""
        said = f"dnsPolicy {settings['policy']}, ndots {settings['ndots']}, NodeLocal DNSCache: {settings['cache']}"
        head = f"{settings['source']}: {said}"
        try:
            found = self.asked(**settings)
        except LabError as error:
            return View(f"{head}\n{error}", draw.nobody(f"the name {settings['name']!r}", str(error)))
        other = next(each for each in LIBRARIES if each != settings["libc"])
        beside = self.asked(**{**settings, "libc": other})
        lines = [head, found.ended, f"With {other}: {beside.ended}", "", str(found)]
        return View("\n".join(lines), draw.lookup(found))


def _called(pod: api.Pod) -> str:
    return f"{pod.key} (host network)" if pod.host_network else pod.key


class WhichName(Explorer[NameModel]):
    """Look names up. Its settings are `name`, `source`, `policy`, `ndots`, `libc` and `cache`."""

    name = Setting[str]()
    source = Setting[str]()
    policy = Setting[str]()
    ndots = Setting[str]()
    libc = Setting[str]()
    cache = Setting[str]()

    def __init__(self, cluster: Cluster) -> None:
        model = NameModel(cluster)
        sources = tuple(model.sources)
        policies = tuple(map(str, api.DNSPolicy))
        name = widgets.Combobox(
            description="Name",
            options=NAMES,
            value=NAMES[0],
            continuous_update=False,
            style={"description_width": "initial"},
            layout=widgets.Layout(margin="2px 20px 2px 2px"),
        )
        controls = {
            "name": name,
            "source": dropdown("Asked by", sources, sources[0]),
            "policy": dropdown("dnsPolicy", policies, str(api.DNSPolicy.CLUSTER_FIRST)),
            "ndots": dropdown("ndots", NDOTS, UNSAID),
            "libc": dropdown("C library", tuple(LIBRARIES), "glibc"),
            "cache": dropdown("NodeLocal DNSCache", tuple(CACHES), "no"),
        }
        super().__init__(model, controls, height=420)
