"""2.2 Services: the dice, a selector, who is seen, and the nearest pod."""

from __future__ import annotations

from functools import cache

from k8snetlab.api import TrafficPolicy
from k8snetlab.cluster import Cluster, example
from k8snetlab.course.exercise import Exercise, Mistake
from k8snetlab.course.lesson import Lesson
from k8snetlab.course.quiz import Choice, Question
from k8snetlab.errors import LabError
from k8snetlab.services import MODES
from k8snetlab.trace import Action, Client, Trace

__all__ = ["LESSON"]

CLIENT = "default/client"
MANY = 5

_POD = """
apiVersion: v1
kind: Pod
metadata: {{name: web-{at}, namespace: default, labels: {{app: web}}}}
spec:
  nodeName: node-1
  containers: [{{name: hello, image: hello, ports: [{{name: http, containerPort: 8080}}]}}]
"""

_SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  type: {type}
  selector: {{app: {app}}}
  ports: [{{name: http, port: 80, targetPort: {target}{node_port}}}]
{policy}
"""


def _service(
    name: str, app: str, type_: str = "ClusterIP", target: str = "http", port: int = 0, policy: str = ""
) -> str:
    node_port = f", nodePort: {port}" if port else ""
    said = f"  externalTrafficPolicy: {policy}" if policy else ""
    return _SERVICE.format(name=name, type=type_, app=app, target=target, node_port=node_port, policy=said)


@cache
def lab() -> Cluster:
    """The cluster of the notebook: three pods behind one Service."""
    return example("service-three-backends")


@cache
def gate() -> Cluster:
    """The cluster with two NodePorts."""
    return example("service-node-ports")


@cache
def sick() -> Cluster:
    """The cluster with three Services that do not work."""
    return example("services-that-do-not-work")


# The dice


@cache
def _dice() -> tuple[float, ...]:
    """The probabilities in the rules of a Service with five ready pods, in their order; the last rule has none: 1."""
    more = lab().applied(*(_POD.format(at=at) for at in range(4, MANY + 1)))
    lines = more.node("node-1").show("iptables").splitlines()
    jumps = [line for line in lines if line.startswith("-A KUBE-SVC-") and '"default/web:http ->' in line]
    return tuple(
        float(line.split("--probability ")[1].split()[0]) if "--probability" in line else 1.0 for line in jumps
    )


def _near(answer: float, wanted: float) -> bool:
    return abs(answer - wanted) < 0.002


DICE = Exercise(
    name="dice",
    wants=float,
    wanted="a number with a point, such as 0.5,",
    right=lambda answer: _near(answer, _dice()[2]),
    praise=lambda answer: f"Three are left when it is asked. All {MANY}: {', '.join(f'{p:.3f}' for p in _dice())}.",
    mistakes=(
        Mistake(
            "the share",
            lambda answer: _near(answer, 1 / MANY),
            lambda answer: (
                "So often each pod is chosen in the end. But this rule is only asked when two others said no."
            ),
            lambda: 1 / MANY,
        ),
        Mistake(
            "counted from the wrong end",
            lambda answer: _near(answer, _dice()[1]) or _near(answer, _dice()[3]),
            lambda answer: "One off. How many pods are still possible when the third rule is asked?",
            lambda: _dice()[3],
        ),
        Mistake(
            "a percentage",
            lambda answer: answer > 1,
            lambda answer: "A probability is at most 1: a half is 0.5.",
            lambda: 33.3,
        ),
    ),
    otherwise="Write down the rule for the first of five, then for the second: there is a pattern.",
    solution=lambda: 1 / 3,
)


# The selector


def _orders(cluster: Cluster) -> Trace | None:
    try:
        return cluster.trace(CLIENT, "svc/default/orders:80")
    except LabError:
        return None


def _works(cluster: Cluster) -> bool:
    trace = _orders(cluster)
    return trace is not None and trace.client is Client.OPEN


def _selected(cluster: Cluster) -> tuple[str, ...]:
    """The pods that the Service orders selects."""
    wanted = cluster.objects.service("default/orders").spec.selector
    return tuple(
        pod.name
        for pod in cluster.objects.pods
        if pod.namespace == "default" and wanted and all(pod.labels.get(key) == value for key, value in wanted.items())
    )


def _selector(cluster: Cluster) -> str:
    labels = cluster.objects.service("default/orders").spec.selector
    return ", ".join(f"{key}: {value}" for key, value in labels.items()) or "nothing"


ORDERS = Exercise(
    name="orders",
    wants=Cluster,
    wanted="a cluster, such as sick.applied(…) gives,",
    right=lambda answer: _works(answer) and "orders" in _selected(answer),
    praise=lambda answer: "The selector finds the pod, the slice holds its address, and every node got its rules.",
    mistakes=(
        Mistake(
            "the Service is gone",
            lambda answer: _orders(answer) is None,
            lambda answer: "There is no Service orders with port 80 any more. Keep its name and port.",
            lambda: sick().deleted("Service", "default/orders"),
        ),
        Mistake(
            "another pod answers",
            _works,
            lambda answer: f"Something answers, but it is {', '.join(_selected(answer))}, and not orders.",
            lambda: sick().applied(_service("orders", "prices")),
        ),
        Mistake(
            "nothing selected",
            lambda answer: not _selected(answer),
            lambda answer: (
                f"The selector ({_selector(answer)}) finds no pod. `kubectl get pods --show-labels` would show "
                "what the pods have."
            ),
            sick,
        ),
        Mistake(
            "the port",
            lambda answer: bool(_selected(answer)),
            lambda answer: (
                f"The selector finds {', '.join(_selected(answer))} now. But a packet still does not get to the "
                "program: which port does it listen on, and what is that port's name?"
            ),
            lambda: sick().applied(_service("orders", "orders", target="web")),
        ),
    ),
    otherwise="Compare the Service's selector and targetPort with the pod's labels and ports.",
    solution=lambda: sick().applied(_service("orders", "orders")),
)


# Who is seen


def _outside(cluster: Cluster, node: str) -> Trace | None:
    address = cluster.objects.node(node).addresses[0]
    try:
        return cluster.trace("external", f"{address}:30081")
    except LabError:
        return None


def _sees_all(cluster: Cluster) -> bool:
    trace = _outside(cluster, "node-1")
    client = cluster.network["external"].link("eth0").addresses[0].ip
    return trace is not None and all(o.client is Client.OPEN and o.source_seen == client for o in trace.outcomes)


def _open(cluster: Cluster) -> bool:
    trace = _outside(cluster, "node-1")
    return trace is not None and trace.client is Client.OPEN


def _has_node_port(cluster: Cluster) -> bool:
    return any(port.node_port == 30081 for service in cluster.objects.services for port in service.spec.ports)


SEEING = Exercise(
    name="seeing",
    wants=Cluster,
    wanted="a cluster, such as gate.applied(…) gives,",
    right=lambda answer: _sees_all(answer) and any(s.name == "open" for s in answer.objects.services),
    praise=lambda answer: "The pods see the client itself, and node-3, which has no pod, now drops its requests.",
    mistakes=(
        Mistake(
            "the port is gone",
            lambda answer: not _has_node_port(answer),
            lambda answer: (
                "No Service has the node port 30081 any more. Only type NodePort (or LoadBalancer) has node ports."
            ),
            lambda: gate().applied(_service("open", "web")),
        ),
        Mistake(
            "nobody answers",
            lambda answer: not _open(answer),
            lambda answer: (
                "The port is there, but nobody answers. Look at the EndpointSlice: does the selector find pods?"
            ),
            lambda: gate().applied(_service("open", "open", "NodePort", port=30081, policy="Local")),
        ),
        Mistake(
            "still a node",
            lambda answer: not _sees_all(answer),
            lambda answer: (
                f"The pods still see {_seen(answer)}, an address of a node. Which field of the Service decides that?"
            ),
            gate,
        ),
    ),
    otherwise="The Service should still be called open.",
    solution=lambda: gate().applied(_service("open", "web", "NodePort", port=30081, policy="Local")),
)


def _seen(cluster: Cluster) -> str:
    trace = _outside(cluster, "node-1")
    return ", ".join(sorted({outcome.source_seen for outcome in trace.outcomes})) if trace is not None else "nobody"


# The nearest pod


_NEAR = """
apiVersion: v1
kind: Service
metadata: {{name: open}}
spec:
  type: NodePort
  selector: {{app: {app}}}
  {said}
  ports: [{{name: http, port: 80, targetPort: http, nodePort: 30081}}]
"""


def _near_service(said: str, app: str = "web") -> Cluster:
    return gate().applied(_NEAR.format(said=said, app=app))


def _reached(cluster: Cluster, who: str) -> frozenset[str]:
    """The pods that may get a connection of a pod to the cluster address of open; nothing if one does not succeed."""
    try:
        outcomes = cluster.trace(f"default/{who}", "svc/default/open:80").outcomes
    except LabError:
        return frozenset()
    taken = {outcome.backend.pod for outcome in outcomes if outcome.backend and outcome.client is Client.OPEN}
    return frozenset(taken) if all(outcome.client is Client.OPEN for outcome in outcomes) else frozenset()


def _stays(cluster: Cluster) -> bool:
    """Whether each pod behind the Service reaches itself alone: it is the only one on its node."""
    return all(_reached(cluster, pod) == {pod} for pod in ("web-1", "web-2"))


STAYING = Exercise(
    name="staying",
    wants=Cluster,
    wanted="a cluster, such as gate.applied(…) gives,",
    right=lambda answer: (
        answer.options.proxy == gate().options.proxy
        and _stays(answer)
        and _reached(answer, "client") == {"web-1", "web-2"}
    ),
    praise=lambda answer: (
        "Each node's rules name its own pod where there is one, and all of them elsewhere: a wish, and no condition."
    ),
    mistakes=(
        Mistake(
            "another mode",
            lambda answer: answer.options.proxy != gate().options.proxy,
            lambda answer: (
                f"The proxy mode has become {answer.options.proxy}. Modes differ in such things, so keep the one that "
                "was there, and say in the Service what you want."
            ),
            lambda: gate().changed(proxy="ipvs"),
        ),
        Mistake(
            "nobody for web-1",
            lambda answer: not _reached(answer, "web-1"),
            lambda answer: (
                "web-1 reaches nobody at the cluster address of open. Are name, selector and port as they were?"
            ),
            lambda: _near_service("internalTrafficPolicy: Cluster", app="open"),
        ),
        Mistake(
            "nobody for the client",
            lambda answer: not _reached(answer, "client"),
            lambda answer: (
                "web-1 and web-2 stay at home, but the client on node-3, where there is no such pod, gets nothing at "
                "all. What you said is a condition; what is wanted is a preference."
            ),
            lambda: _near_service("internalTrafficPolicy: Local"),
        ),
        Mistake(
            "the policy for the outside",
            lambda answer: _outward(answer) is TrafficPolicy.LOCAL,
            lambda answer: (
                "externalTrafficPolicy is about who comes from outside, by node ports. Pods that ask at the cluster "
                "address still go to "
                f"{' and '.join(sorted(_reached(answer, 'web-1')))} alike."
            ),
            lambda: _near_service("externalTrafficPolicy: Local"),
        ),
        Mistake(
            "the zone",
            lambda answer: not _stays(answer),
            lambda answer: (
                f"web-1 may still be sent to {' or '.join(sorted(_reached(answer, 'web-1')))}. These nodes have no "
                "zones; and a zone would be wider than a node."
            ),
            lambda: _near_service("trafficDistribution: PreferSameZone"),
        ),
    ),
    otherwise="The client on node-3 should be able to reach both pods.",
    solution=lambda: _near_service("trafficDistribution: PreferSameNode"),
)


def _outward(cluster: Cluster) -> TrafficPolicy | None:
    found = next((service for service in cluster.objects.services if service.key == "default/open"), None)
    return found.spec.external_traffic_policy if found is not None else None


# The proofs of the quiz


def _pending() -> bool:
    service = lab().patched("Service", "default/web", {"spec": {"type": "LoadBalancer"}}).objects.service("default/web")
    return not service.load_balancer


def _at_the_socket() -> bool:
    """In ebpf mode the first frame carries a backend's address, in the others the Service's."""
    sent = {}
    for mode in MODES:
        trace = lab().changed(proxy=mode).trace(CLIENT, "svc/default/web:80")
        first = next(step for step in trace.steps if step.action is Action.TRANSMIT)
        sent[mode] = first.packet.ip.dst == trace.request.address
    return sent == {"iptables": True, "nftables": True, "ipvs": True, "ebpf": False}


def _nearest() -> bool:
    near = lab().patched("Service", "default/web", {"spec": {"internalTrafficPolicy": "Local"}})
    gone = near.patched("Pod", "default/web-1", {"status": {"conditions": [{"type": "Ready", "status": "False"}]}})
    return gone.trace(CLIENT, "svc/default/web:80").client is Client.TIMEOUT


def _every_rule() -> bool:
    """A connection that is for no Service is compared with a rule for each of them, in iptables mode only."""
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}
    named = ({"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"s-{at}"}, "spec": spec} for at in range(50))
    many = lab().applied(*named)
    grown = {
        mode: _compared(many.changed(proxy=mode)) - _compared(lab().changed(proxy=mode))
        for mode in ("iptables", "nftables")
    }
    return grown == {"iptables": 50, "nftables": 0}


def _compared(cluster: Cluster) -> int:
    return cluster.compared(CLIENT, "default/web-1:8080")["node-1"]


def _hairpin() -> bool:
    loop = lab().trace("default/web-1", "svc/default/web:80")
    return any(o.backend is not None and o.backend.pod == "web-1" and o.client is Client.OPEN for o in loop.outcomes)


QUESTIONS = (
    Question(
        "where",
        "Where is the destination of a pod's packet to a ClusterIP rewritten?",
        (
            Choice("on the pod's own node", "Yes: every node has the rules of every Service.", right=True),
            Choice(
                "on the node of the chosen pod",
                "By then the packet already carries the pod's address: that is how it got there.",
            ),
            Choice(
                "in the process kube-proxy",
                "It only writes rules. It could be stopped and the packets would still flow.",
            ),
        ),
        proof=lambda: all(
            step.where == "node-1"
            for step in lab().trace(CLIENT, "svc/default/web:80").steps
            if step.action is Action.DNAT
        ),
    ),
    Question(
        "second",
        "Does a second packet of the same connection throw the dice again?",
        (
            Choice(
                "yes, that is load balancing", "Half of the connection would end at a pod that has never heard of it."
            ),
            Choice(
                "no, conntrack repeats the first decision",
                "Right: the table nat is asked once for each connection.",
                right=True,
            ),
            Choice("only after the pod has restarted", "Even then conntrack remembers; that is a fault of its own."),
        ),
    ),
    Question(
        "endpoints",
        "`kubectl get endpointslices` shows no address for a Service. What does a pod's connection get?",
        (
            Choice("a time-out", "That is what a *local* policy without a local pod gives, or an unknown port."),
            Choice("refused", "Yes: a rule rejects packets for a Service that has no ready endpoint.", right=True),
            Choice("a DNS error", "The name still leads to the ClusterIP: the Service exists."),
        ),
        proof=lambda: sick().trace(CLIENT, "svc/default/orders:80").client is Client.REFUSED,
    ),
    Question(
        "source",
        "A web server's log shows the addresses of nodes instead of customers. Which Service is it behind?",
        (
            Choice("a ClusterIP, asked by pods", "Pods keep their address when they call a ClusterIP."),
            Choice(
                "a NodePort with externalTrafficPolicy Cluster",
                "Yes: the node that took the request hides the client behind itself.",
                right=True,
            ),
            Choice("a NodePort with externalTrafficPolicy Local", "That one keeps the client's address."),
        ),
        proof=lambda: _open(gate()) and not _sees_all(gate()),
    ),
    Question(
        "hairpin",
        "Why is the source replaced when a pod reaches itself through its Service?",
        (
            Choice(
                "otherwise it would answer itself directly, past conntrack",
                "Yes: and its client side would not know the answer.",
                right=True,
            ),
            Choice(
                "because a node must not forward to itself",
                "Nothing forbids that; the bridge port only needs hairpin mode.",
            ),
            Choice("to hide it from network policies", "That is a side effect at best."),
        ),
        proof=_hairpin,
    ),
    Question(
        "pending",
        "In a cluster on bare metal a Service of type LoadBalancer stays `<pending>`. What is missing?",
        (
            Choice(
                "somebody who gives it an address and brings packets to nodes",
                "Yes: Kubernetes leaves that to a cloud or to MetalLB. Its node port works already.",
                right=True,
            ),
            Choice("ready pods", "It would have its address without any; only nobody would answer there."),
            Choice("kube-proxy in nftables mode", "Every mode writes rules for such an address, once there is one."),
        ),
        proof=_pending,
    ),
    Question(
        "near",
        "internalTrafficPolicy is Local, and the only pod on the client's node is not ready; others are. What now?",
        (
            Choice("the connection goes to another node", "That is what `trafficDistribution` would do: a preference."),
            Choice("it is refused", "Refused means that there is no ready endpoint anywhere."),
            Choice(
                "it times out", "Yes: its packets are dropped. Local is a condition, and has no plan B.", right=True
            ),
        ),
        proof=_nearest,
    ),
    Question(
        "socket",
        "In a client pod, tcpdump shows connections to pod addresses only, although the program calls Services. Why?",
        (
            Choice(
                "an eBPF program at the socket replaces the address before there is a packet",
                "Yes: so does Cilium's replacement of kube-proxy. The program itself notices nothing.",
                right=True,
            ),
            Choice("kube-proxy has translated them", "It does so on the node, after the packet has left the pod."),
            Choice("DNS gave pod addresses", "It would for a headless Service; an ordinary one has its own address."),
        ),
        proof=_at_the_socket,
    ),
    Question(
        "compared",
        "Which connection is compared with most rules in iptables mode?",
        (
            Choice("one to the largest Service", "Its endpoints are throws of dice; there may be many, but not most."),
            Choice(
                "one that is for no Service at all",
                "Yes: it passes the rule of every Service before it is clear that none is meant.",
                right=True,
            ),
            Choice("one that exists already", "Conntrack knows it: the table nat is not asked."),
        ),
        proof=_every_rule,
    ),
)

LESSON = Lesson("2_2", "Services", (DICE, ORDERS, SEEING, STAYING), QUESTIONS)
