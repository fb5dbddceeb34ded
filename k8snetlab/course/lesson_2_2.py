"""2.2 Services: the dice, a selector, and who is seen."""

from __future__ import annotations

from functools import cache

from k8snetlab.cluster import Cluster, example
from k8snetlab.course.exercise import Exercise, Mistake
from k8snetlab.course.lesson import Lesson
from k8snetlab.course.quiz import Choice, Question
from k8snetlab.errors import LabError
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
)

LESSON = Lesson("2_2", "Services", (DICE, ORDERS, SEEING), QUESTIONS)
