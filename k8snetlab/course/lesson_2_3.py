"""2.3 DNS: a name with few questions, ndots for one pod, and a policy that lets names through."""

from __future__ import annotations

from functools import cache
from typing import Any

from k8snetlab import api
from k8snetlab.cluster import Cluster, example
from k8snetlab.course.exercise import Exercise, Mistake
from k8snetlab.course.lesson import Lesson
from k8snetlab.course.quiz import Choice, Question
from k8snetlab.dns import LIBRARIES, Status
from k8snetlab.errors import LabError
from k8snetlab.flows.resolution import Resolution
from k8snetlab.trace import Client

__all__ = ["LESSON", "closed", "lab"]

CLIENT, AGENT = "default/client", "default/agent"
WORLD, STOCK = "www.example.com", "stock.warehouse"
WHOLE = "stock.warehouse.svc.cluster.local"

DENY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: no-way-out}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
"""
"""What breaks names in the notebook."""


@cache
def lab() -> Cluster:
    """The cluster of the notebook."""
    return example("names-of-every-shape")


@cache
def closed() -> Cluster:
    """The same with a CNI that enforces policies, and one that lets the client send nothing."""
    return lab().changed(cni="calico").applied(DENY)


# A name with few questions


def _asked(name: str) -> Resolution | None:
    """The lookup of a name by the client; None for what is no name."""
    try:
        return lab().resolve(CLIENT, name)
    except LabError:
        return None


def _found(name: str) -> bool:
    lookup = _asked(name)
    return lookup is not None and lookup.addresses == lab().objects.service("warehouse/stock").cluster_ips


def _count(name: str) -> int:
    lookup = _asked(name)
    return lookup.count if lookup is not None else 0


SPELLING: Exercise[str] = Exercise(
    name="spelling",
    wants=str,
    wanted='a name, such as "web",',
    right=lambda answer: _found(answer) and _count(answer) == 2,
    praise=lambda answer: "One for A and one for AAAA: a name that is complete is asked for just as it stands.",
    mistakes=(
        Mistake(
            "no name",
            lambda answer: _asked(answer) is None,
            lambda answer: f"{answer!r} cannot be asked for: between two dots there must be something.",
            lambda: "stock..warehouse",
        ),
        Mistake(
            "an address",
            lambda answer: _found(answer) and _count(answer) == 0,
            lambda answer: "An address needs no question at all, but it may be another one tomorrow. Give a name.",
            lambda: lab().objects.service("warehouse/stock").cluster_ips[0],
        ),
        Mistake(
            "not from here",
            lambda answer: not _found(answer) and not _asked(answer),
            lambda answer: "Nobody has it, whatever is put behind: the client is in default, the Service elsewhere.",
            lambda: "stock",
        ),
        Mistake(
            "another Service",
            lambda answer: not _found(answer),
            lambda answer: "It is found, but it is something else. Which namespace has the Service stock?",
            lambda: "web",
        ),
        Mistake(
            "no end",
            lambda answer: _found(f"{answer}.") and _count(f"{answer}.") == 2,
            lambda answer: f"All labels are there, and still it costs {_count(answer)}: who says that it ends here?",
            lambda: WHOLE,
        ),
        Mistake(
            "the list is walked",
            lambda answer: _count(answer) > 2,
            lambda answer: f"It is found after {_count(answer)} questions. Which of them were in vain, and why?",
            lambda: STOCK,
        ),
    ),
    otherwise='Ask `lab.resolve("default/client", name)`, and look at the ladder.',
    solution=lambda: f"{WHOLE}.",
)


# ndots for one pod


def _costs(cluster: Cluster, name: str) -> set[int]:
    """How many questions a name costs, with every library; those that do not find it count as none."""
    lookups = (cluster.resolve(CLIENT, name, libc=libc) for libc in LIBRARIES)
    return {each.count if each else 0 for each in lookups}


def _configured(**spec: Any) -> Cluster:
    return lab().patched("Pod", CLIENT, {"spec": spec})


def _ndots(value: str) -> Cluster:
    return _configured(dnsConfig={"options": [{"name": "ndots", "value": value}]})


NDOTS: Exercise[Cluster] = Exercise(
    name="ndots",
    wants=Cluster,
    wanted="a cluster, such as lab.patched(…) gives,",
    right=lambda answer: _costs(answer, WORLD) == {2} and _costs(answer, STOCK) == {4},
    praise=lambda answer: "Two dots are enough for the world, one dot still means a Service of another namespace.",
    mistakes=(
        Mistake(
            "nothing was changed",
            lambda answer: answer.resolv_conf(CLIENT) == lab().resolv_conf(CLIENT),
            lambda answer: "The client still reads the same resolv.conf. Its `dnsConfig` has a list of `options`.",
            lambda: _configured(hostname="somebody"),
        ),
        Mistake(
            "no Services",
            lambda answer: not answer.resolve(CLIENT, STOCK) and not answer.resolv_conf(CLIENT).search,
            lambda answer: "Now it is quick, and knows no Service any more: the search list is gone.",
            lambda: _configured(dnsPolicy="Default"),
        ),
        Mistake(
            "too small",
            lambda answer: _costs(answer, WORLD) == {2},
            lambda answer: "The world is quick. But count `stock.warehouse` with glibc, and look it up with musl.",
            lambda: _ndots("1"),
        ),
        Mistake(
            "too large",
            lambda answer: _costs(answer, STOCK) == {4},
            lambda answer: "Services are as before, and so is the world. How many dots has its name?",
            lambda: _ndots("3"),
        ),
    ),
    otherwise="Look both names up in your cluster, with glibc and with musl, and count.",
    solution=lambda: _ndots("2"),
)


# A policy that lets names through


def _client(cluster: Cluster, what: str) -> Client:
    return cluster.trace(CLIENT, what).client


def _enforced(cluster: Cluster) -> bool:
    """Whether the client is still kept from everything else."""
    return all(_client(cluster, what) is not Client.OPEN for what in ("svc/default/web:80", "svc/warehouse/stock:80"))


def _by_tcp(cluster: Cluster) -> bool:
    return _client(cluster, "svc/kube-system/kube-dns:53") is Client.OPEN


def _resolves(cluster: Cluster) -> bool:
    return bool(cluster.resolve(CLIENT, "web"))


def _allowed(to: str, ports: str = "[{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]") -> Cluster:
    rule = f"{{to: [{to}], ports: {ports}}}" if to else "{}"
    return closed().applied(f"""
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {{name: names}}
spec:
  podSelector: {{matchLabels: {{app: client}}}}
  policyTypes: [Egress]
  egress: [{rule}]
""")


SYSTEM = "namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}}"
COREDNS = "podSelector: {matchLabels: {k8s-app: kube-dns}}"


def _policies(cluster: Cluster) -> int:
    return len(cluster.objects.of(api.NetworkPolicy))


def _blocks(cluster: Cluster) -> bool:
    """Whether a policy names addresses."""
    rules = (rule for each in cluster.objects.of(api.NetworkPolicy) for rule in each.spec.egress)
    return any(peer.ip_block is not None for rule in rules for peer in rule.to)


OPENED: Exercise[Cluster] = Exercise(
    name="opened",
    wants=Cluster,
    wanted="a cluster, such as closed.applied(…) gives,",
    right=lambda answer: _resolves(answer) and _by_tcp(answer) and _enforced(answer),
    praise=lambda answer: "Names by UDP and by TCP, to CoreDNS and to nobody else. This belongs beside every deny.",
    mistakes=(
        Mistake(
            "everything",
            lambda answer: not _enforced(answer),
            lambda answer: "Names are found, and everything else is open as well: try to connect to `web`.",
            lambda: _allowed(""),
        ),
        Mistake(
            "only UDP",
            _resolves,
            lambda answer: "It works, until an answer is too long for UDP: then the question is asked again by TCP.",
            lambda: _allowed(f"{{{SYSTEM}}}", "[{port: 53, protocol: UDP}]"),
        ),
        Mistake(
            "the Service's address",
            _blocks,
            lambda answer: "The packet has another destination when the policy is asked: kube-proxy was there first.",
            lambda: _allowed("{ipBlock: {cidr: 10.96.0.10/32}}"),
        ),
        Mistake(
            "the own namespace",
            lambda answer: _policies(answer) > _policies(closed()),
            lambda answer: "Still nobody answers. A `podSelector` alone means pods of the policy's own namespace.",
            lambda: _allowed(f"{{{COREDNS}}}"),
        ),
    ),
    otherwise='Ask `answer.resolve("default/client", "web").lost`: at which hop does the question end?',
    solution=lambda: _allowed(f"{{{SYSTEM}, {COREDNS}}}"),
)


# The quiz


def _four_dots_are_too_few() -> bool:
    name = "web.default.svc.cluster.local"
    return (lab().resolve(CLIENT, name).count, lab().resolve(CLIENT, f"{name}.").count) == (8, 2)


def _no_such_type() -> bool:
    return lab().resolve(CLIENT, "web.default.svc.cluster.local.", type="AAAA").status is Status.NODATA


def _empty_ones_differ() -> bool:
    return [lab().resolve(CLIENT, name).status for name in ("empty", "nobody")] == [Status.FOUND, Status.NXDOMAIN]


def _asks_the_world() -> bool:
    return not lab().resolve(AGENT, "web") and bool(lab().resolve(AGENT, WORLD))


def _musl_does_not_search() -> bool:
    told = [lab().resolve(CLIENT, STOCK, libc=libc, options={"ndots": "1"}).status for libc in ("glibc", "musl")]
    return told == [Status.FOUND, Status.NXDOMAIN]


def _judged_behind_the_service() -> bool:
    return not _resolves(_allowed("{ipBlock: {cidr: 10.96.0.10/32}}")) and _resolves(_allowed(f"{{{SYSTEM}}}"))


QUESTIONS = (
    Question(
        "dots",
        "With `ndots:5`, which of these is asked for just as it stands, and nothing else?",
        (
            Choice("web.default.svc.cluster.local", "It has four dots, fewer than five: the list comes first."),
            Choice("web.default.svc.cluster.local.", "Yes: the dot at the end makes it complete.", right=True),
            Choice("web", "That becomes web.default.svc.cluster.local, which is handy, but not what it says."),
        ),
        proof=_four_dots_are_too_few,
    ),
    Question(
        "nodata",
        "A Service has an IPv4 address only. What is answered to a question for AAAA?",
        (
            Choice("NXDOMAIN", "That would say that there is no such name at all, and a resolver may believe it."),
            Choice("no error, and no record", "Yes, called NODATA: the name exists, this type does not.", right=True),
            Choice("the IPv4 address, mapped into IPv6", "Name servers do not translate unless told to (DNS64)."),
        ),
        proof=_no_such_type,
    ),
    Question(
        "empty",
        "No pod of a Service is ready. What does its name lead to?",
        (
            Choice(
                "its ClusterIP, if it has one; a headless one does not exist",
                "Yes: a ClusterIP does not depend on pods, and a headless Service is nothing but its pods.",
                right=True,
            ),
            Choice("NXDOMAIN in both cases", "The ClusterIP belongs to the Service, not to its pods."),
            Choice("the last known pods", "Records are made of what is there now."),
        ),
        proof=_empty_ones_differ,
    ),
    Question(
        "host",
        "A pod with `hostNetwork: true` says no dnsPolicy. Whom does it ask?",
        (
            Choice("the cluster's DNS, as all pods", "The default policy says ClusterFirst, and means it for others."),
            Choice("whom its node asks", "Yes. ClusterFirstWithHostNet is for pods that want Services.", right=True),
            Choice("nobody", "It has a resolv.conf like everybody, only another one."),
        ),
        proof=_asks_the_world,
    ),
    Question(
        "musl",
        "An image moves from Debian to Alpine. Which name may stop to work?",
        (
            Choice("web", "No dot, fewer than any ndots: both libraries search."),
            Choice(
                "stock.warehouse, with `ndots:1`",
                "Yes: musl does not search for a name that has enough dots. glibc does, when all else fails.",
                right=True,
            ),
            Choice("www.example.com.", "A complete name is the same question everywhere."),
        ),
        proof=_musl_does_not_search,
    ),
    Question(
        "judged",
        "An egress policy allows port 53 of 10.96.0.10, the address in resolv.conf. Are names found?",
        (
            Choice("yes", "The packet goes there only in the eyes of the program."),
            Choice("no", "Right: policies see the pod that kube-proxy has put in its place.", right=True),
            Choice("only by TCP", "The protocol makes no difference to the address."),
        ),
        proof=_judged_behind_the_service,
    ),
)

LESSON = Lesson("2_3", "DNS", (SPELLING, NDOTS, OPENED), QUESTIONS)
