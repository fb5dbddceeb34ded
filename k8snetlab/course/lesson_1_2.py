"""1.2 The networks of a cluster: lay out, cut, and hand out addresses."""

from __future__ import annotations

from functools import cache

from k8snetlab.address import Prefix
from k8snetlab.cluster import Cluster, example
from k8snetlab.course.exercise import Exercise, Mistake
from k8snetlab.course.lesson import Lesson
from k8snetlab.course.quiz import Choice, Question
from k8snetlab.errors import LabError

__all__ = ["LESSON"]

NODES, SERVICES = Prefix.of("10.0.0.0/16"), Prefix.of("10.96.0.0/12")
WANTED, LENGTH = 1000, 24
MAX_PODS = 110
NOT_FOR_PODS = 3
"""The network's own address, the bridge's, the broadcast address."""

PRIVATE = tuple(Prefix.of(block) for block in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"))
"""RFC 1918, and the shared addresses of RFC 6598 that some clusters use."""


@cache
def lab() -> Cluster:
    """The cluster of the notebook: an object for each kind of address."""
    return example("every-kind-of-address")


def _network(text: str) -> Prefix | None:
    try:
        return Prefix.of(text, strict=True)
    except (LabError, ValueError):
        return None


def _count(block: Prefix) -> int:
    return 1 << (LENGTH - block.length) if block.length <= LENGTH else 0


def _suits(text: str) -> bool:
    block = _network(text)
    return (
        block is not None
        and any(private.covers(block) for private in PRIVATE)
        and not block.overlaps(NODES)
        and not block.overlaps(SERVICES)
        and _count(block) >= WANTED
    )


def _is(text: str, wanted: str) -> bool:
    block = _network(text)
    if block is None:
        return wanted == "nonsense"
    return {
        "nodes": block.overlaps(NODES),
        "services": block.overlaps(SERVICES),
        "public": not any(private.covers(block) for private in PRIVATE),
        "small": _count(block) < WANTED,
    }.get(wanted, False)


PODS = Exercise(
    name="pods",
    wants=str,
    wanted="a network as text",
    right=_suits,
    praise=lambda answer: (
        f"{answer} holds {_count(Prefix.of(answer)):,} blocks /{LENGTH} and shares no address with the others."
    ),
    mistakes=(
        Mistake(
            "no network",
            lambda answer: _is(answer, "nonsense"),
            lambda answer: (
                f"{answer!r} is no network: it is written ADDRESS/LENGTH, and the address has zeros after LENGTH bits."
            ),
            lambda: "10.130.0.0/14",
        ),
        Mistake(
            "over the nodes",
            lambda answer: _is(answer, "nodes"),
            lambda answer: f"{answer} shares addresses with the machines in {NODES}.",
            lambda: "10.0.0.0/8",
        ),
        Mistake(
            "over the Services",
            lambda answer: _is(answer, "services"),
            lambda answer: (
                f"{answer} shares addresses with the Services. {SERVICES} "
                "is larger than it looks: a /12 is sixteen /16."
            ),
            lambda: "10.100.0.0/14",
        ),
        Mistake(
            "public",
            lambda answer: _is(answer, "public"),
            lambda answer: f"{answer} belongs to somebody on the Internet, who can then not be reached from pods.",
            lambda: "20.0.0.0/8",
        ),
        Mistake(
            "too small",
            lambda answer: _is(answer, "small"),
            lambda answer: (
                f"Nothing overlaps, but there are only {_count(Prefix.of(answer)):,} "
                f"blocks /{LENGTH}. How many bits make {WANTED:,}?"
            ),
            lambda: "10.244.0.0/16",
        ),
    ),
    otherwise="Try the network in the planner above.",
    solution=lambda: "10.128.0.0/14",
)


def _holds(length: int) -> int:
    return max(0, (1 << (32 - length)) - NOT_FOR_PODS) if 0 <= length <= 32 else 0


BLOCK = Exercise(
    name="block",
    wants=int,
    wanted="a whole number",
    right=lambda answer: _holds(answer) >= MAX_PODS > _holds(answer + 1),
    praise=lambda answer: f"A /{answer} holds {_holds(answer)} pods, a /{answer + 1} only {_holds(answer + 1)}.",
    mistakes=(
        Mistake(
            "no length",
            lambda answer: not 8 <= answer <= 32,
            lambda answer: "The length of a block is the number of bits that all its addresses share, at most 32.",
            lambda: 128,
        ),
        Mistake(
            "too large",
            lambda answer: _holds(answer + 1) >= MAX_PODS,
            lambda answer: f"A /{answer} holds {_holds(answer):,} pods: enough, but half of it would do as well.",
            lambda: 24,
        ),
        Mistake(
            "too small",
            lambda answer: _holds(answer) < MAX_PODS,
            lambda answer: f"A /{answer} has room for {_holds(answer)} pods, fewer than {MAX_PODS}.",
            lambda: 26,
        ),
    ),
    otherwise="Turn the planner's block until it just holds 110 pods.",
    solution=lambda: next(length for length in range(32, 0, -1) if _holds(length) >= MAX_PODS),
)

_NEWCOMER = """
apiVersion: v1
kind: Pod
metadata: {name: zz-newcomer, namespace: default}
spec: {nodeName: node-1, containers: [{name: hello, image: hello}]}
"""


@cache
def _newcomer() -> str:
    return lab().applied(_NEWCOMER).objects.pod("default/zz-newcomer").ip


def _block_of(node: str) -> Prefix:
    return Prefix.of(lab().objects.node(node).pod_cidrs[0])


NEXT = Exercise(
    name="next",
    wants=str,
    wanted="an address as text",
    right=lambda answer: answer == _newcomer(),
    praise=lambda answer: f"{answer} is the next after those that node-1 has given, in its own block.",
    mistakes=(
        Mistake(
            "not an address",
            lambda answer: _network(answer) is None or "/" in answer,
            lambda answer: f"{answer!r} is no address. An address has four numbers and no length.",
            lambda: "10.244.1",
        ),
        Mistake(
            "another block",
            lambda answer: not _block_of("node-1").contains(answer),
            lambda answer: f"{answer} is not in the block of node-1. `lab.get('nodes')` shows the blocks.",
            lambda: lab().objects.pod("default/elsewhere").ip,
        ),
        Mistake(
            "taken",
            lambda answer: any(answer in pod.ips for pod in lab().objects.pods),
            lambda answer: f"{lab().plan.whose(answer)}.",
            lambda: lab().objects.pod("default/ordinary").ip,
        ),
        Mistake(
            "the gateway",
            lambda answer: answer in (_block_of("node-1").address(0), _block_of("node-1").address(1)),
            lambda answer: (
                "The first addresses of a block are not for pods: they are the network's own and the bridge's."
            ),
            lambda: _block_of("node-1").address(1),
        ),
    ),
    otherwise="It is in the right block. Which is the highest address given so far there, in all namespaces?",
    solution=_newcomer,
)

QUESTIONS = (
    Question(
        "arp",
        "A pod sends to 10.96.0.53, a ClusterIP. Which machine answers an ARP request for this address?",
        (
            Choice("the node of the Service's pod", "It does not have the address either. Who needs an answer?"),
            Choice(
                "none, and none is needed",
                "Right: the pod asks for its gateway's MAC only, and the rewriting happens before the next question.",
                right=True,
            ),
            Choice(
                "kube-proxy's machine", "kube-proxy runs on every node and gives no node the address, in iptables mode."
            ),
        ),
        proof=lambda: not any(lab().network[name].is_local("10.96.0.53") for name in lab().network),
    ),
    Question(
        "limit",
        "Pods 10.244.0.0/16, a block /24 for each node. What is the largest number of nodes?",
        (
            Choice("256", "Yes: 24 − 16 = 8 bits are left to number the blocks.", right=True),
            Choice("254", "No block is lost: the first and the last are as good as the others."),
            Choice("65,536", "So many addresses are in the network; a block takes 256 of them."),
        ),
        proof=lambda: _count(Prefix.of("10.244.0.0/16")) == 256,
    ),
    Question(
        "overlap",
        "Pods use 10.1.0.0/16, and so does an office behind a VPN. What do pods notice that call the office?",
        (
            Choice("an error when the cluster is created", "The cluster knows nothing of the office."),
            Choice(
                "nothing: the VPN's route is better",
                "Inside the cluster the routes to the pods' blocks are more specific.",
            ),
            Choice("they reach a pod, or nobody", "Yes: their packets stay in the pod network.", right=True),
        ),
    ),
    Question(
        "zone",
        "Two nodes are in different underlay networks. What must the router between them know about pods?",
        (
            Choice("every node's block, always", "Only if packets cross it as they are. An overlay hides them."),
            Choice("nothing, if an overlay carries the packets", "Right: it sees packets between nodes.", right=True),
            Choice("the addresses of all Services", "Those never leave the node that rewrites them."),
        ),
    ),
)

LESSON = Lesson("1_2", "The networks of a cluster", (PODS, BLOCK, NEXT), QUESTIONS)
