"""5.7 IPv6 and dual-stack: a Service that turns around, room for 500 nodes, and how much fits into a packet."""

from __future__ import annotations

from functools import cache
from typing import Any

from k8snetlab import api
from k8snetlab.address import Prefix
from k8snetlab.cluster import Cluster, example
from k8snetlab.course.exercise import Exercise, Mistake
from k8snetlab.course.lesson import Lesson
from k8snetlab.course.quiz import Choice, Question
from k8snetlab.errors import LabError
from k8snetlab.trace import Client, Verdict

__all__ = ["LESSON"]

WEB, ASK = "default/web", "svc/default/web:80"
CLIENT, FAR = "default/client", "default/web-2"
ECHO = f"{FAR}:9000/UDP"

FOUR = {"node_cidr": "172.18.0.0/16", "pod_cidr": "10.244.0.0/16", "service_cidr": "10.96.0.0/12"}
SIX = {"node_cidr": "fd00:172::/64", "pod_cidr": "fd00:10:244::/56", "service_cidr": "fd00:10:96::/108"}
BOTH = {name: f"{FOUR[name]},{SIX[name]}" for name in FOUR}

IPV4, IPV6 = api.IPFamily.IPV4, api.IPFamily.IPV6


@cache
def lab() -> Cluster:
    """The cluster of the notebook: both families, and a Service that says nothing of them."""
    return example("service-both-families", **BOTH)


@cache
def dual() -> Cluster:
    """The same with a Service of both families."""
    return lab().patched("Service", WEB, {"spec": {"ipFamilyPolicy": "PreferDualStack"}})


# A Service that turns around


def _anew(policy: str, families: list[str], app: str = "web") -> Cluster:
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    spec = {"ipFamilyPolicy": policy, "ipFamilies": families, "selector": {"app": app}, "ports": ports}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}
    return lab().deleted("Service", WEB).applied(service)


def _there(cluster: Cluster) -> bool:
    return any(service.key == WEB for service in cluster.objects.services)


def _families(cluster: Cluster) -> tuple[api.IPFamily, ...]:
    return cluster.objects.service(WEB).spec.ip_families


def _opens(cluster: Cluster) -> bool:
    """Whether the client reaches the Service over each of its families."""
    calls = [cluster.trace(CLIENT, ASK, family=4 if each is IPV4 else 6) for each in _families(cluster)]
    return all(call.client is Client.OPEN for call in calls)


TURNED = Exercise(
    name="turned",
    wants=Cluster,
    wanted="a cluster, such as lab.deleted(…).applied(…) gives,",
    right=lambda answer: _there(answer) and _families(answer) == (IPV6, IPV4) and _opens(answer),
    praise=lambda answer: (
        f"It has {' and '.join(answer.objects.service(WEB).cluster_ips)}, in this order, and both lead to its pods."
    ),
    mistakes=(
        Mistake(
            "no Service",
            lambda answer: not _there(answer),
            lambda answer: "There is no Service `web` any more. Its manifest has to be applied again.",
            lambda: lab().deleted("Service", WEB),
        ),
        Mistake(
            "nothing changed",
            lambda answer: _families(answer) == (IPV4,),
            lambda answer: "The Service has IPv4 alone, as before.",
            lab,
        ),
        Mistake(
            "the order stayed",
            lambda answer: _families(answer) == (IPV4, IPV6),
            lambda answer: (
                "It has both families, and the first one is still IPv4. The first never changes while a Service lives."
            ),
            dual,
        ),
        Mistake(
            "one family",
            lambda answer: _families(answer) == (IPV6,),
            lambda answer: "It has IPv6 alone: which policy allows two families?",
            lambda: _anew("SingleStack", ["IPv6"]),
        ),
        Mistake(
            "no pods",
            lambda answer: not _opens(answer),
            lambda answer: "The families are right, but nobody answers. Which pods does the selector find?",
            lambda: _anew("PreferDualStack", ["IPv6", "IPv4"], app="wep"),
        ),
    ),
    otherwise="Look at `ipFamilies` of the Service `web`.",
    solution=lambda: _anew("PreferDualStack", ["IPv6", "IPv4"]),
)


# Room for 500 nodes

NODES, BLOCK, WIDEST = 500, 64, 16
"""Nodes, the length of a node's block, and the most bits that the controller counts blocks with."""

PRIVATE = Prefix.of("fc00::/7")
"""Unique local addresses (RFC 4193)."""


def _network(answer: str) -> Prefix | None:
    try:
        return Prefix.of(answer.strip(), strict=True)
    except LabError:
        return None


def _fits(pods: Prefix) -> bool:
    """Whether the nodes get a block each, and the whole is small enough to be counted."""
    return pods.family == 6 and pods.length <= BLOCK and _enough(pods) and BLOCK - pods.length <= WIDEST


def _enough(pods: Prefix) -> bool:
    return pods.length <= BLOCK and 1 << (BLOCK - pods.length) >= NODES


def _taken(pods: Prefix) -> list[str]:
    return [SIX[name] for name in ("node_cidr", "service_cidr") if Prefix.of(SIX[name]).overlaps(pods)]


def _planned(answer: str) -> bool:
    pods = _network(answer)
    return pods is not None and _fits(pods) and PRIVATE.covers(pods) and not _taken(pods)


def _some(answer: str) -> Prefix:
    found = _network(answer)
    assert found is not None
    return found


PLAN = Exercise(
    name="plan",
    wants=str,
    wanted="a network as text, such as 'fd00:10:244::/56',",
    right=_planned,
    praise=lambda answer: (
        f"{1 << (BLOCK - _some(answer).length):,} nodes get a block /{BLOCK} each, and nobody else has these addresses."
    ),
    mistakes=(
        Mistake(
            "no network",
            lambda answer: _network(answer) is None,
            lambda answer: f"{answer!r} is no network: an address, a slash, a length, and zeros behind the length.",
            lambda: "fd00:10:244:1::/55",
        ),
        Mistake(
            "IPv4",
            lambda answer: _some(answer).family == 4,
            lambda answer: "That is IPv4. The dual-stack cluster has such a network already.",
            lambda: "10.128.0.0/14",
        ),
        Mistake(
            "too small",
            lambda answer: not _enough(_some(answer)),
            lambda answer: (
                f"Between /{_some(answer).length} and /{BLOCK} there are {max(0, BLOCK - _some(answer).length)} bits. "
                f"How many do {NODES} nodes need?"
            ),
            lambda: SIX["pod_cidr"],
        ),
        Mistake(
            "too large",
            lambda answer: BLOCK - _some(answer).length > WIDEST,
            lambda answer: (
                f"The controller that cuts the blocks counts them with {WIDEST} bits at most, and there are "
                f"{BLOCK - _some(answer).length} here: it would not start."
            ),
            lambda: "fd00:a00::/40",
        ),
        Mistake(
            "not private",
            lambda answer: not PRIVATE.covers(_some(answer)),
            lambda answer: f"These addresses may belong to somebody. Private ones begin as {PRIVATE} does.",
            lambda: "2001:db8::/52",
        ),
        Mistake(
            "overlap",
            lambda answer: bool(_taken(_some(answer))),
            lambda answer: f"{', '.join(_taken(_some(answer)))} lies in it, and is taken.",
            lambda: "fd00:172::/52",
        ),
    ),
    otherwise="Count the bits between the network and a node's block.",
    solution=lambda: "fd00:10:244::/55",
)


# How much fits into a packet


def _passes(size: int, of: int) -> bool:
    return lab().trace(CLIENT, ECHO, family=of, size=size).verdict is Verdict.DELIVERED


@cache
def _most(of: int) -> int:
    """The largest payload of a datagram that reaches the pod on the other node uncut."""
    low, high = 1, 2000
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _passes(middle, of) else (low, middle - 1)
    return low


def _tunnel() -> int:
    return lab().network["node-1"].link("flannel-v6.1").mtu


def _card() -> int:
    return lab().network[CLIENT].link("eth0").mtu


PAYLOAD = Exercise(
    name="payload",
    wants=int,
    wanted="a whole number",
    right=lambda answer: answer == _most(6),
    praise=lambda answer: (
        f"With 8 bytes of UDP and 40 of IPv6 that is {answer + 48}, the MTU of flannel-v6.1 to the byte."
    ),
    mistakes=(
        Mistake(
            "no headers",
            lambda answer: answer in (_tunnel(), _card()),
            lambda answer: "An MTU counts the packet with its headers, and a payload comes without them.",
            _tunnel,
        ),
        Mistake(
            "that of IPv4",
            lambda answer: answer == _most(4),
            lambda answer: "So much passes over IPv4. Two things are larger in IPv6: the header inside, and outside.",
            lambda: _most(4),
        ),
        Mistake(
            "the pod's MTU",
            lambda answer: answer == _card() - 48,
            lambda answer: "So much leaves the pod. Which device comes after it, and what is its MTU?",
            lambda: _card() - 48,
        ),
        Mistake(
            "too many",
            lambda answer: answer > _most(6),
            lambda answer: f"{answer:,} bytes do not arrive: ask `lab.trace(…, family=6, size={answer})` why.",
            lambda: _most(6) + 1,
        ),
    ),
    otherwise="So many arrive, but one byte more would arrive as well.",
    solution=lambda: _most(6),
)


# The quiz


def _one_family_by_default() -> bool:
    return _families(lab()) == (IPV4,)


def _refused(cluster: Cluster, patch: dict[str, Any]) -> bool:
    try:
        cluster.patched("Service", WEB, {"spec": patch})
    except LabError:
        return True
    return False


def _the_first_stays() -> bool:
    back = dual().patched("Service", WEB, {"spec": {"ipFamilyPolicy": "SingleStack"}})
    return _families(back) == (IPV4,) and _refused(dual(), {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"]})


def _refused_where_one_only() -> bool:
    alone = lab().changed(**FOUR)
    prefers = alone.patched("Service", WEB, {"spec": {"ipFamilyPolicy": "PreferDualStack"}})
    return _refused(alone, {"ipFamilyPolicy": "RequireDualStack"}) and _families(prefers) == (IPV4,)


def _a_program_answers_where_it_listens() -> bool:
    cluster = dual()
    for name in ("default/web-1", FAR):
        cluster = cluster.bound(name, cluster.objects.pod(name).ip)
    clients = [cluster.trace(CLIENT, ASK, family=of).client for of in (4, 6)]
    return clients == [Client.OPEN, Client.REFUSED]


def _nobody_cuts() -> bool:
    wide = lab().changed(cni_options={"mtu": "1500"})
    four, six = (wide.trace(CLIENT, ECHO, family=of, size=1440, df=False) for of in (4, 6))
    return (four.verdict, six.verdict) == (Verdict.DELIVERED, Verdict.DROPPED)


QUESTIONS = (
    Question(
        "default",
        "A cluster becomes dual-stack. What becomes of a new Service that says nothing of families?",
        (
            Choice("it has both", "That would be handy, and surprising: nothing becomes dual-stack by itself."),
            Choice("it has the cluster's first family", "Yes: SingleStack, of the family named first.", right=True),
            Choice("it is refused", "All manifests written before dual-stack would be."),
        ),
        proof=_one_family_by_default,
    ),
    Question(
        "policies",
        "In what do PreferDualStack and RequireDualStack differ?",
        (
            Choice(
                "in clusters of one family: one takes what there is, the other is refused",
                "Yes, and in a dual-stack cluster in nothing.",
                right=True,
            ),
            Choice("the first gives IPv6 only when IPv4 fails", "A policy is about addresses, not about failures."),
            Choice("the second sends each packet over both", "A packet has one family, always."),
        ),
        proof=_refused_where_one_only,
    ),
    Question(
        "first",
        "A dual-stack Service, IPv4 first, is set back to SingleStack. Which address does it keep?",
        (
            Choice("that of IPv4", "Yes: the first family never changes, the second may come and go.", right=True),
            Choice("that of IPv6, if `ipFamilies` says so", "The API server refuses that: the first address is fixed."),
            Choice("a new one", "An address is never taken back while the Service lives."),
        ),
        proof=_the_first_stays,
    ),
    Question(
        "program",
        "A program listens on IPv4 alone, its pod has both. What does a client over IPv6 meet?",
        (
            Choice("the program, translated", "No node translates between the families."),
            Choice("silence", "The packet does arrive, and a kernel that is asked for a closed port answers."),
            Choice("a reset", "Yes: endpoints tell where a pod is, not where its program listens.", right=True),
        ),
        proof=_a_program_answers_where_it_listens,
    ),
    Question(
        "cutting",
        "A datagram that may be cut is too large for the tunnel. Who cuts it?",
        (
            Choice("the node, in both families", "A router of IPv6 never does."),
            Choice(
                "over IPv4 the node, over IPv6 nobody on the way",
                "Yes: the sender is told (Packet Too Big), and has to send smaller pieces.",
                right=True,
            ),
            Choice("nobody, in either family", "Routers of IPv4 may, unless DF is set."),
        ),
        proof=_nobody_cuts,
    ),
)

LESSON = Lesson("5_7", "IPv6 and dual-stack", (TURNED, PLAN, PAYLOAD), QUESTIONS)
