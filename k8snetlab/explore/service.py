"""Who rewrites the destination, and to what? (2.2)

One Service, up to three pods that answer for it. Choose the Service's type and policies, the proxy mode, how many of
the pods are ready, and who asks: a pod, a pod of the Service itself, a node, or somebody outside. The picture shows who
may get the packet, how likely that is, and the source that each of them sees; the text adds what decided (rules, map
entries, virtual servers) and where a few connections of one client went, one after the other.

A Service of type LoadBalancer gets its address from MetalLB in layer 2 mode. One of type ExternalName is another name
for a second Service, `NAME-itself`, with the same pods. A headless Service has no port of its own, and is asked at the
pods'. What a type has no use for is left out of the Service, and the text says so.

Not modelled: what the sources do with an answer of an application. Guide section 2.2.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache, lru_cache
from typing import Any, NamedTuple

from k8snetlab import draw
from k8snetlab.cluster import Cluster
from k8snetlab.errors import BadOption
from k8snetlab.explore.explorer import Explorer, Setting, View, dropdown, slider
from k8snetlab.services import MODES
from k8snetlab.trace import Action, Step, Trace
from k8snetlab.trace.table import chances, endpoint

__all__ = ["AFFINITIES", "POLICIES", "SERVICE_TYPES", "ServiceModel", "WhoAnswers", "deciding"]

SERVICE_TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "headless", "ExternalName")
POLICIES = ("Cluster", "Local")
AFFINITIES = ("None", "ClientIP")

PORT, NODE_PORT = 80, 30080
CONNECTIONS, PAUSE = 6, 10.0
"""So many connections, and seconds between them, show what affinity does."""


class Source(NamedTuple):
    """Who asks, as a trace calls it, and the node that outside traffic is led to (empty: as the network does it)."""

    name: str
    via: str = ""


class ServiceModel:
    """The view model: a cluster with a Service `web`, pods with the label `app: web`, and a client."""

    def __init__(self, cluster: Cluster, name: str = "web") -> None:
        self.cluster = cluster
        self.service = next(service for service in cluster.objects.services if service.name == name)
        pods = [pod for pod in cluster.objects.pods if pod.namespace == self.service.namespace]
        self.backends = [pod for pod in pods if pod.labels.get("app") == self.service.spec.selector["app"]]
        self.client = next(pod for pod in pods if pod not in self.backends)
        nodes = [node.name for node in cluster.objects.nodes]
        other = next(node for node in reversed(nodes) if node != self.client.node_name)
        self.sources = {
            "a pod": Source(self.client.key),
            "a pod of the Service": Source(self.backends[0].key),
            "a node": Source(f"node/{self.client.node_name}"),
            "another node": Source(f"node/{other}"),
            "outside": Source("external"),
            **{f"outside, led to {node}": Source("external", node) for node in (self.client.node_name, other)},
        }
        self.bare = cache(self._bare)
        self.with_ = lru_cache(maxsize=64)(self._with)

    def _bare(self, proxy: str) -> Cluster:
        """The cluster in a proxy mode, without the Service."""
        return self.cluster.deleted("Service", self.service.key).changed(proxy=proxy, load_balancer="metallb-l2")

    def _with(self, kind: str, proxy: str, external: str, internal: str, affinity: str, ready: int) -> Cluster:
        return self.bare(proxy).applied(
            *self._services(kind, _fitting(kind, external, internal, affinity)),
            *(self._not_ready(pod.name) for pod in self.backends[ready:]),
        )

    def _services(self, kind: str, fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
        port = {"name": "http", "port": PORT, "targetPort": "http"}
        if kind in ("NodePort", "LoadBalancer"):
            port["nodePort"] = NODE_PORT
        name, spec = self.service.name, {"selector": dict(self.service.spec.selector), "ports": [port], **fields}
        if kind == "ExternalName":
            yield self._object("Service", self.behind, spec)
            alias = f"{self.behind}.{self.service.namespace}.svc.cluster.local"
            spec = {"type": "ExternalName", "externalName": alias}
        elif kind == "headless":
            spec["clusterIP"] = "None"
        else:
            spec["type"] = kind
        yield self._object("Service", name, spec)

    def _not_ready(self, name: str) -> dict[str, Any]:
        pod = next(pod for pod in self.backends if pod.name == name)
        containers = [{"name": "hello", "image": "hello", "ports": [{"name": "http", "containerPort": 8080}]}]
        found = self._object("Pod", name, {"nodeName": pod.node_name, "containers": containers})
        found["metadata"]["labels"] = dict(pod.labels)
        return {**found, "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "False"}]}}

    def _object(self, kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        metadata: dict[str, Any] = {"name": name, "namespace": self.service.namespace}
        return {"apiVersion": "v1", "kind": kind, "metadata": metadata, "spec": spec}

    @property
    def behind(self) -> str:
        """The Service that an ExternalName leads to."""
        return f"{self.service.name}-itself"

    def target(self, kind: str) -> str:
        """What is asked for."""
        port = self.backends[0].spec.containers[0].ports[0].container_port if kind == "headless" else PORT
        return f"svc/{self.service.key}:{port}"

    def trace(
        self,
        *,
        kind: str,
        source: str,
        ready: int,
        proxy: str = "iptables",
        external: str = "Cluster",
        internal: str = "Cluster",
        affinity: str = "None",
    ) -> Trace:
        """The first packet of a connection to the Service, as this source asks for it."""
        cluster, who = self.with_(kind, proxy, external, internal, affinity, ready), self.sources[source]
        return cluster.trace(who.name, self.target(kind), via=who.via or None)

    def visits(self, *, kind: str, source: str, **settings: Any) -> tuple[str, ...]:
        """Where the connections of one client go, one after the other. Nothing for who is led to a node: a session
        cannot change its cables.
        """
        who = self.sources[source]
        if who.via:
            return ()
        cluster = self.with_(kind, *(settings[name] for name in ("proxy", "external", "internal", "affinity", "ready")))
        session = cluster.session(seed=1)
        taken = []
        for _ in range(CONNECTIONS):
            trace = session.trace(who.name, self.target(kind))
            taken.append(trace.backend.pod if trace.backend is not None else "nobody")
            session.advance(PAUSE)
        return tuple(taken)

    def view(self, **settings: Any) -> View:
        """Who may get the packet, what they see, and what decides."""
        asked = (
            f"{self.sources[settings['source']].name} → {self.service.name}, {settings['kind']}, {settings['proxy']}, "
            f"{settings['ready']} of {len(self.backends)} pods ready"
        )
        try:
            trace = self.trace(**settings)
        except BadOption as error:  # a name without an address: there is nothing that a packet could be sent to
            lines = [asked, str(error), *self._remarks(settings)]
            return View("\n".join(lines), draw.nobody(asked, str(error)))
        lines = [
            f"{asked}: {endpoint(trace.request.address, trace.request.port)}",
            f"{trace.verdict}, this time the client is told {trace.client}",
            "",
            chances(trace.outcomes),
            *self._one_after_the_other(settings),
            "",
            *deciding(trace, self.service.key),
            *self._remarks(settings),
        ]
        return View("\n".join(lines), draw.outcomes(trace))

    def _one_after_the_other(self, settings: dict[str, Any]) -> Iterator[str]:
        taken = self.visits(**settings)
        if len(set(taken)) > 1 or settings["affinity"] != "None":
            yield f"\n{CONNECTIONS} connections, {PAUSE:.0f} s apart, go to: {', '.join(taken)}" if taken else ""

    def _remarks(self, settings: dict[str, Any]) -> Iterator[str]:
        kind = settings["kind"]
        if kind == "ExternalName":
            yield f"An ExternalName is an alias in DNS: the client was led to {self.behind}, which has the rules."
        if kind == "headless":
            yield "A headless Service is a name for its ready pods: no address, no port and no rule of its own."
        chosen = {name: settings[name] for name in ("external", "internal", "affinity")}
        usual = {"external": "Cluster", "internal": "Cluster", "affinity": "None"}
        used = _fitting(kind, **chosen)
        unused = [FIELDS[name] for name, value in chosen.items() if value != usual[name] and FIELDS[name] not in used]
        if unused:
            yield f"Of no use for this type: {', '.join(unused)}."


FIELDS = {
    "external": "externalTrafficPolicy",
    "internal": "internalTrafficPolicy",
    "affinity": "sessionAffinity",
}
"""What the settings are called in a Service."""


def _fitting(kind: str, external: str, internal: str, affinity: str) -> dict[str, Any]:
    """Those of the settings that a type has a use for."""
    if kind == "headless":
        return {}
    fields = {FIELDS["internal"]: internal, FIELDS["affinity"]: affinity}
    return {**fields, FIELDS["external"]: external} if kind in ("NodePort", "LoadBalancer") else fields


def deciding(trace: Trace, service: str) -> tuple[str, ...]:
    """What matched and speaks of the Service, marks, translates or refuses, by machine, and what it did."""
    ruled = [step for step in trace.steps if step.rule is not None and _decides(step, service)]
    if not ruled:
        return (f"No rule matched: {trace.reason}",)
    lines = []
    where = ""
    for step in ruled:
        if step.where != where:
            where = step.where
            lines.append(f"What decided on {where}:")
        assert step.rule is not None
        ip = step.packet.innermost.ip
        after = f"   now {ip}" if step.action in (Action.DNAT, Action.SNAT) else ""
        lines.append(f"  {step.rule.table:<6} {step.rule.text}{after}")
        if not step.rule.text.startswith("-A "):  # what was found in a map stands in no rule
            lines.append(f"{'':<9}{step.why}")
    return tuple(lines)


def _decides(step: Step, service: str) -> bool:
    assert step.rule is not None
    told = f"{step.rule.chain} {step.rule.text} {step.why}"  # nftables names the Service in chains and in what it found
    marks = step.rule.chain == "KUBE-MARK-MASQ" or "meta mark set" in step.rule.text
    return step.action is not Action.RULE or service in told or marks


class WhoAnswers(Explorer[ServiceModel]):
    """Ask a Service. Its settings are `kind`, `proxy`, `external`, `internal` (traffic policies), `affinity`, `source`
    and `ready`.
    """

    kind = Setting[str]()
    proxy = Setting[str]()
    external = Setting[str]()
    internal = Setting[str]()
    affinity = Setting[str]()
    source = Setting[str]()
    ready = Setting[int]()

    def __init__(self, cluster: Cluster) -> None:
        model = ServiceModel(cluster)
        controls = {
            "kind": dropdown("Type", SERVICE_TYPES, "ClusterIP"),
            "proxy": dropdown("Proxy mode", tuple(MODES), "iptables"),
            "external": dropdown("externalTrafficPolicy", POLICIES, "Cluster"),
            "internal": dropdown("internalTrafficPolicy", POLICIES, "Cluster"),
            "affinity": dropdown("sessionAffinity", AFFINITIES, "None"),
            "source": dropdown("Asked by", tuple(model.sources), next(iter(model.sources))),
            "ready": slider("Pods ready", 0, len(model.backends), len(model.backends)),
        }
        super().__init__(model, controls, height=220)

    @property
    def trace(self) -> Trace:
        """The walk with the settings as they are."""
        return self.model.trace(**self.settings())
