"""0.0 A packet goes for a walk: who rewrites, who refuses, how far is it?"""

from __future__ import annotations

from functools import cache

from k8snetlab.cluster import Cluster, example
from k8snetlab.course.exercise import Exercise, Mistake
from k8snetlab.course.lesson import Lesson
from k8snetlab.course.quiz import Choice, Question
from k8snetlab.packet import IPv4
from k8snetlab.trace import Action, Client, Step, Trace

__all__ = ["LESSON"]

CLIENT, WEB, SERVICE = "default/client", "default/web", "svc/default/web:80"


@cache
def lab() -> Cluster:
    """The cluster of the notebook: one client, one web server, one Service."""
    return example("manifests/one-web-one-client.yaml")


@cache
def walk() -> Trace:
    """The client's first packet."""
    return lab().trace(CLIENT, SERVICE)


def _step(action: Action) -> Step:
    return next(step for step in walk().steps if step.action is action)


def _ttl(step: Step) -> int:
    return step.packet.innermost.ip.ttl


def _arrival() -> int:
    return _ttl(walk().steps[-1])


def _machines() -> int:
    return len({step.where for step in walk().steps})


REWRITER = Exercise(
    name="rewriter",
    wants=str,
    wanted="the name of a machine or a pod, in quotes,",
    right=lambda answer: answer == _step(Action.DNAT).where,
    praise=lambda answer: f"{answer} is the client's own node: Service rules work where a connection begins.",
    mistakes=(
        Mistake(
            "the pod's node",
            lambda answer: answer == lab().objects.pod(WEB).node_name,
            lambda answer: f"The backend runs on {answer}. With which destination does the packet get there?",
            lambda: "node-2",
        ),
        Mistake(
            "a pod",
            lambda answer: answer in (CLIENT, WEB),
            lambda answer: (
                f"Look at the destination when the packet leaves or reaches {answer}: no rule of its own acts."
            ),
            lambda: CLIENT,
        ),
        Mistake(
            "the Service",
            lambda answer: answer in ("web", "default/web:80", SERVICE, lab().objects.service(WEB).cluster_ips[0]),
            lambda answer: (
                "A Service is no machine: nothing runs there. Some machine holds the rules that stand for it."
            ),
            lambda: SERVICE,
        ),
        Mistake(
            "the network",
            lambda answer: answer.startswith(("switch", "router")),
            lambda answer: f"{answer} only carries frames between machines. What are their addresses by then?",
            lambda: "switch",
        ),
    ),
    otherwise="Print the steps and find the one whose action is DNAT. The answer is where it happens.",
    solution=lambda: _step(Action.DNAT).where,
)


def _asks(answer: Trace) -> bool:
    return answer.request.source == CLIENT


REFUSED = Exercise(
    name="refused",
    wants=Trace,
    wanted="a trace, such as lab.trace(…) gives,",
    right=lambda answer: _asks(answer) and answer.client is Client.REFUSED,
    praise=lambda answer: (
        f"{answer.request.address} has no program on port {answer.request.port}, and its kernel says so."
    ),
    mistakes=(
        Mistake(
            "another sender",
            lambda answer: not _asks(answer),
            lambda answer: f"This packet starts at {answer.request.source}; let {CLIENT} send it.",
            lambda: lab().trace("node/node-1", f"{WEB}:81"),
        ),
        Mistake(
            "it is open",
            lambda answer: answer.client is Client.OPEN,
            lambda answer: "Somebody listens there. Choose a port that no program of the target listens on.",
            walk,
        ),
        Mistake(
            "silence",
            lambda answer: answer.client is Client.TIMEOUT,
            lambda answer: (
                "Nobody said no: the packet was lost, and the client waits. To refuse, somebody must be there: "
                "aim at the pod instead of an address that no machine has."
            ),
            lambda: lab().trace(CLIENT, "svc/default/web:81"),
        ),
    ),
    otherwise="The client should be told REFUSED. Who is there to refuse a connection?",
    solution=lambda: lab().trace(CLIENT, f"{WEB}:81"),
)

TTL = Exercise(
    name="ttl",
    wants=int,
    wanted="a whole number",
    right=lambda answer: answer == _arrival(),
    praise=lambda answer: f"Two nodes routed the packet, and each took one from {_ttl(walk().steps[0])}.",
    mistakes=(
        Mistake(
            "as it started",
            lambda answer: answer == _ttl(walk().steps[0]),
            lambda answer: (
                f"{answer} is what it starts with. Every machine that routes it for somebody else takes one."
            ),
            lambda: 64,
        ),
        Mistake(
            "every machine",
            lambda answer: answer == _ttl(walk().steps[0]) - _machines(),
            lambda answer: (
                "You took one for each machine. The pods do not route, and a switch never looks at the IP header."
            ),
            lambda: 64 - _machines(),
        ),
        Mistake(
            "the outer packet",
            lambda answer: answer == _arrival() + 1,
            lambda answer: (
                "One router too few. The packet is routed where it enters "
                "the network between the nodes, and where it leaves it."
            ),
            lambda: _arrival() + 1,
        ),
        Mistake(
            "how many instead of what is left",
            lambda answer: 0 <= answer < 10,
            lambda answer: "That is a number of hops. The question is what is left of the time to live at the end.",
            lambda: 2,
        ),
    ),
    otherwise="Look at `step.packet.innermost.ip.ttl` of the last step.",
    solution=_arrival,
)


def _answered_by() -> str:
    return str(walk().reply[-1].packet.innermost.ip.src)


QUESTIONS = (
    Question(
        "address",
        "Which address is in the answer's source field when it reaches the client?",
        (
            Choice("the web pod's", "On the way back conntrack undid the rewriting on the client's node before that."),
            Choice(
                "the Service's",
                "Yes: the client must hear from the address it spoke to, or it would not recognise the answer.",
                right=True,
            ),
            Choice(
                "the web pod's node's",
                "No rule hid the pod behind its node: inside the cluster there is no NAT for that.",
            ),
        ),
        proof=lambda: _answered_by() == lab().objects.service(WEB).cluster_ips[0],
    ),
    Question(
        "where",
        "On which network interface is the Service's address configured?",
        (
            Choice(
                "on none", "Right: it stands only in rules. No machine would answer an ARP request for it.", right=True
            ),
            Choice("on every node", "That holds for IPVS mode, which is deprecated; with iptables it is on none."),
            Choice("on a load balancer's", "A ClusterIP needs no such machine: every node rewrites for its own pods."),
        ),
        proof=lambda: (
            not any(lab().network[host].is_local(lab().objects.service(WEB).cluster_ips[0]) for host in lab().network)
        ),
    ),
    Question(
        "encapsulated",
        "With flannel's VXLAN, what do the switches between the nodes see?",
        (
            Choice(
                "a packet between the two pods",
                "It is in there, but wrapped: that is why the underlay need not know pods.",
            ),
            Choice(
                "a UDP packet between the two nodes",
                "Yes, to port 8472, and the pods' frame is its payload.",
                right=True,
            ),
            Choice(
                "a TCP connection between the nodes", "The tunnel is UDP: it must not repeat what TCP inside repeats."
            ),
        ),
        proof=lambda: any(
            isinstance(step.packet.headers[1], IPv4) and step.packet.headers[1].protocol == "UDP"
            for step in walk().steps
            if step.where == "switch"
        ),
    ),
    Question(
        "silent",
        "curl hangs and then says “timed out”. What do you know?",
        (
            Choice(
                "the program crashed",
                "Then its kernel would answer with a reset, and curl would say “refused” at once.",
            ),
            Choice(
                "a packet was lost, there or back",
                "Yes. Nobody refused it; now find the last step that was made.",
                right=True,
            ),
            Choice("there is no route", "A sender without a route is told at once, without a time-out."),
        ),
    ),
)

LESSON = Lesson("0_0", "A packet goes for a walk", (REWRITER, REFUSED, TTL), QUESTIONS)
