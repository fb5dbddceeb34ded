"""1.1 The networking rules: which one is broken, break one, repair one."""

from __future__ import annotations

from functools import cache

from k8snetlab import contract
from k8snetlab.cluster import Cluster, example
from k8snetlab.course.exercise import Exercise, Mistake
from k8snetlab.course.lesson import Lesson
from k8snetlab.course.quiz import Choice, Question

__all__ = ["LESSON"]


@cache
def lab() -> Cluster:
    """The cluster of the notebook: two pods on each of two nodes, and one on its node's network."""
    return example("pods-on-two-nodes")


@cache
def alone() -> Cluster:
    """The same with a plugin that hides the pods of a node behind it."""
    return lab().changed(cni="bridge", cni_options={"masquerade": "on"})


@cache
def hurt() -> Cluster:
    """The same with one machine that does not route for others."""
    return lab().overlaid("hardened", lab().sysctl("node-2", "net.ipv4.ip_forward", 0).overlays[-1].apply)


def broken(cluster: Cluster) -> tuple[str, ...]:
    """The rules that do not hold."""
    return contract.check(cluster).broken


MASQUERADE = Exercise(
    name="masquerade",
    wants=str,
    wanted="the name of a rule, in quotes,",
    right=lambda answer: answer in broken(alone()),
    praise=lambda answer: "Everybody is reached, but seen under a wrong address: the node's.",
    mistakes=(
        Mistake(
            "reachability",
            lambda answer: answer in ("pod-to-pod", "node-to-pod", "kubelet"),
            lambda answer: (
                f"Check it: with masquerading, {answer} still holds, for the packets arrive. What is wrong with them?"
            ),
            lambda: "pod-to-pod",
        ),
        Mistake(
            "the outside",
            lambda answer: answer == "outside",
            lambda answer: "Masquerading changes what leaves. Who comes in from outside is another matter.",
            lambda: "outside",
        ),
        Mistake(
            "no rule",
            lambda answer: answer not in contract.RULES,
            lambda answer: f"{answer!r} is no rule. `print(k8s.contract.check(alone).broken)` prints names of rules.",
            lambda: "nat",
        ),
    ),
    otherwise="Let `k8s.contract.check(alone)` tell you.",
    solution=lambda: broken(alone())[0],
)


def _first_way() -> Cluster:
    host = lab().network["node-1"]
    return lab().without("node-1", next(route for route in host.routes if route.device == "flannel.1"))


def _no_bridge_route() -> Cluster:
    host = lab().network["node-1"]
    return lab().without("node-1", next(route for route in host.routes if route.device == "cni0"))


def _reach(cluster: Cluster, source: str, target: str) -> bool:
    return cluster.trace(source, target).client == "OPEN"


def _local_is_well(cluster: Cluster) -> bool:
    return _reach(cluster, "default/left-a", "default/left-b:8080") and _reach(
        cluster, "default/right-a", "default/right-b:8080"
    )


def _there(cluster: Cluster) -> bool:
    """Whether a packet from node-1's pod reaches the other node's pod, whatever becomes of the answer."""
    return cluster.trace("default/left-a", "default/right-a:8080").backend is not None


ROUTE = Exercise(
    name="route",
    wants=Cluster,
    wanted="a cluster, such as lab.without(…) gives,",
    right=lambda answer: "pod-to-pod" in broken(answer) and _local_is_well(answer) and not _there(answer),
    praise=lambda answer: "node-1 no longer knows the way to node-2's pods, and its own bridge does not need to.",
    mistakes=(
        Mistake(
            "nothing changed",
            lambda answer: not answer.overlays,
            lambda answer: "This cluster is whole. `without` gives another cluster: use what it returns.",
            lab,
        ),
        Mistake(
            "too much",
            lambda answer: not _local_is_well(answer),
            lambda answer: (
                "Now pods of one node cannot talk either. Take something that only the way to the other node needs."
            ),
            lambda: lab().without("node-1", lab().network["node-1"].link("cni0")),
        ),
        Mistake(
            "the way back",
            lambda answer: "pod-to-pod" in broken(answer) and _there(answer),
            lambda answer: (
                "The packets of node-1's pods still arrive, only the answers are lost. "
                "What does node-1 need to send a packet to the other node's pods?"
            ),
            _no_bridge_route,
        ),
        Mistake(
            "something else",
            lambda answer: "pod-to-pod" not in broken(answer),
            lambda answer: (
                f"Rule 1 still holds; broken: {', '.join(broken(answer)) or 'nothing'}. "
                "Which entry names the network of the other node's pods?"
            ),
            lambda: contract.break_rule(lab(), "kubelet"),
        ),
    ),
    otherwise="Print the routes of node-1 and find the one for the pods of node-2.",
    solution=_first_way,
)

REPAIR = Exercise(
    name="repair",
    wants=Cluster,
    wanted="a cluster, such as hurt.sysctl(…) gives,",
    right=lambda answer: not broken(answer),
    praise=lambda answer: (
        "Every rule holds again. A node is a router: a kernel that does not forward is no use for one."
    ),
    mistakes=(
        Mistake(
            "nothing changed",
            lambda answer: broken(answer) == broken(hurt()) and len(answer.overlays) == len(hurt().overlays),
            lambda answer: (
                "This is the cluster as it was given. Read what the report says happened to a packet, and where."
            ),
            hurt,
        ),
        Mistake(
            "the wrong place",
            lambda answer: broken(answer) == broken(hurt()),
            lambda answer: (
                "You changed something and the same rules stay broken. The reason names the machine and the setting."
            ),
            lambda: hurt().sysctl("node-1", "net.ipv4.ip_forward", 1),
        ),
        Mistake(
            "worse",
            lambda answer: len(broken(answer)) > len(broken(hurt())),
            lambda answer: f"Now more is broken: {', '.join(broken(answer))}. Start again from `hurt`.",
            lambda: contract.break_rule(hurt(), "outside"),
        ),
    ),
    otherwise="Something is better, but not everything. Check the report of your cluster.",
    solution=lambda: hurt().sysctl("node-2", "net.ipv4.ip_forward", 1),
)


QUESTIONS = (
    Question(
        "nat",
        "What does “without NAT” mean in rule 1?",
        (
            Choice(
                "No machine in the cluster uses NAT at all",
                "Services are NAT, and the way out of the cluster usually is. The rule is about pod to pod.",
            ),
            Choice(
                "The packet arrives with the addresses it was sent with", "Yes, source and destination.", right=True
            ),
            Choice("Pods have public addresses", "They are private in most clusters, and the rule still holds."),
        ),
        proof=lambda: (
            lab().trace("default/left-a", "default/right-a:8080").source_seen == lab().objects.pod("default/left-a").ip
        ),
    ),
    Question(
        "host",
        "A pod with hostNetwork: true listens on port 9100. Who else can listen on 9100 on that node?",
        (
            Choice(
                "nobody on the node's own network",
                "Right: the port is taken for every program that uses the node's network.",
                right=True,
            ),
            Choice("any other pod with hostNetwork", "They share one network, hence one set of ports."),
            Choice(
                "nobody at all, not even ordinary pods", "An ordinary pod has a network of its own, with all its ports."
            ),
        ),
        proof=lambda: any(listener.port == 9100 for listener in lab().network["node-2"].listeners),
    ),
    Question(
        "logs",
        "`kubectl logs` fails for the pods of one node; everything else works. Which rule do you suspect?",
        (
            Choice("pods reach all pods", "Then the applications would complain first."),
            Choice(
                "the API server reaches the kubelets", "Yes: logs, exec and port-forward all go that way.", right=True
            ),
            Choice("pod addresses mean nothing outside", "Logs do not travel to the pod's address at all."),
        ),
        proof=lambda: broken(contract.break_rule(lab(), "kubelet")) == ("kubelet",),
    ),
    Question(
        "probe",
        "A policy should let the kubelet's probes in. Which source "
        "address do they have with flannel, on the pod's own node?",
        (
            Choice(
                "the node's eth0 address",
                "The route to the node's own pods leads over the bridge, and the source follows the route.",
            ),
            Choice("the bridge's address, first of the node's pod block", "Yes, cni0's.", right=True),
            Choice("a random pod address", "Nothing on the way draws addresses by chance."),
        ),
        proof=lambda: (
            lab().trace("node/node-1", "default/left-a:8080").source_seen
            == lab().network["node-1"].link("cni0").addresses[0].ip
        ),
    ),
)

LESSON = Lesson("1_1", "The networking rules", (MASQUERADE, ROUTE, REPAIR), QUESTIONS, {"hurt": hurt})
