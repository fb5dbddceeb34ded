"""Who rewrites the destination, and to what? (2.2)

One Service, up to three pods that answer for it. Choose the Service's type, how many of its pods are ready,
and who asks: a pod, a pod of the Service itself, a node, or somebody outside. The picture shows who may get
the packet and how likely that is; the text adds the source each of them sees and the rules that decided.

Not modelled: what the sources do with an answer of an application. Guide section 2.2.
"""

from __future__ import annotations

from functools import cache

from k8snetlab import draw
from k8snetlab.cluster import Cluster
from k8snetlab.explore.explorer import Explorer, Setting, View, dropdown, slider
from k8snetlab.trace import Action, Step, Trace
from k8snetlab.trace.table import chances

__all__ = ["SERVICE_TYPES", "ServiceModel", "WhoAnswers", "deciding"]

SERVICE_TYPES = ("ClusterIP", "NodePort", "NodePort, policy Local")

_MANIFEST = """
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  type: {type}
  selector: {{app: {app}}}
  ports: [{{name: http, port: 80, targetPort: http{node_port}}}]
{policy}
"""

_NOT_READY = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {app}}}}}
spec:
  nodeName: {node}
  containers: [{{name: hello, image: hello, ports: [{{name: http, containerPort: 8080}}]}}]
status: {{phase: Running, conditions: [{{type: Ready, status: "False"}}]}}
"""


class ServiceModel:
    """The view model: a cluster with a Service `web`, pods with the label `app: web`, and a client."""

    def __init__(self, cluster: Cluster, name: str = "web") -> None:
        self.cluster = cluster
        self.service = next(service for service in cluster.objects.services if service.name == name)
        pods = [pod for pod in cluster.objects.pods if pod.namespace == self.service.namespace]
        self.backends = [pod for pod in pods if pod.labels.get("app") == self.service.spec.selector["app"]]
        self.client = next(pod for pod in pods if pod not in self.backends)
        self.sources = {
            "a pod": self.client.key,
            "a pod of the Service": self.backends[0].key,
            "a node": f"node/{self.client.node_name}",
            "outside": "external",
        }
        self.with_ = cache(self._with)

    def _with(self, kind: str, ready: int) -> Cluster:
        type_, _, local = kind.partition(", ")
        node_port = ", nodePort: 30080" if type_ == "NodePort" else ""
        policy = "  externalTrafficPolicy: Local" if local else ""
        values = {
            "name": self.service.name,
            "namespace": self.service.namespace,
            "app": self.service.spec.selector["app"],
        }
        objects = [_MANIFEST.format(type=type_, node_port=node_port, policy=policy, **values)]
        objects += [
            _NOT_READY.format(**{**values, "name": pod.name}, node=pod.node_name) for pod in self.backends[ready:]
        ]
        return self.cluster.applied(*objects)

    def trace(self, *, kind: str, source: str, ready: int) -> Trace:
        """The first packet of a connection to the Service, as this source asks for it."""
        return self.with_(kind, ready).trace(self.sources[source], f"svc/{self.service.key}:80")

    def view(self, *, kind: str, source: str, ready: int) -> View:
        """Who may get the packet, what they see, and which rules decide."""
        trace = self.trace(kind=kind, source=source, ready=ready)
        to = f"{trace.request.address}:{trace.request.port}"
        lines = [
            f"{trace.request.source} → {self.service.name}, {kind}, {ready} of {len(self.backends)} pods ready: {to}",
            f"{trace.verdict}, this time the client is told {trace.client}",
            "",
            chances(trace.outcomes),
            "",
            *deciding(trace, self.service.key),
        ]
        return View("\n".join(lines), draw.outcomes(trace))


def deciding(trace: Trace, service: str) -> tuple[str, ...]:
    """The rules that matched and speak of the Service, mark, translate or refuse, by machine, and what they did."""
    ruled = [step for step in trace.steps if step.rule is not None and _decides(step, service)]
    if not ruled:
        return (f"No rule matched: {trace.reason}",)
    lines = []
    where = ""
    for step in ruled:
        if step.where != where:
            where = step.where
            lines.append(f"Rules on {where}:")
        assert step.rule is not None
        ip = step.packet.innermost.ip
        after = f"   now {ip}" if step.action in (Action.DNAT, Action.SNAT) else ""
        lines.append(f"  {step.rule.table:<6} {step.rule.text}{after}")
    return tuple(lines)


def _decides(step: Step, service: str) -> bool:
    assert step.rule is not None
    told = f"{step.rule.chain} {step.rule.text} {step.why}"  # nftables names the Service in chains and in what it found
    return step.action is not Action.RULE or service in told or step.rule.chain == "KUBE-MARK-MASQ"


class WhoAnswers(Explorer[ServiceModel]):
    """Ask a Service. Its settings are `kind`, `source` and `ready`."""

    kind = Setting[str]()
    source = Setting[str]()
    ready = Setting[int]()

    def __init__(self, cluster: Cluster) -> None:
        model = ServiceModel(cluster)
        controls = {
            "kind": dropdown("Type", SERVICE_TYPES, "ClusterIP"),
            "source": dropdown("Asked by", tuple(model.sources), next(iter(model.sources))),
            "ready": slider("Pods ready", 0, len(model.backends), len(model.backends)),
        }
        super().__init__(model, controls, height=220)

    @property
    def trace(self) -> Trace:
        """The walk with the settings as they are."""
        return self.model.trace(**self.settings())
