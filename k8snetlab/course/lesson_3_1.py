"""3.1 CNI plugins: a network for two subnets, a session that ends, and how many pods a block holds."""

from __future__ import annotations

from functools import cache

from k8snetlab import cni
from k8snetlab.cluster import Cluster, example, networks
from k8snetlab.course.exercise import Exercise, Mistake
from k8snetlab.course.lesson import Lesson
from k8snetlab.course.quiz import Choice, Question
from k8snetlab.errors import BadOption, LabError
from k8snetlab.trace import Action, Client, Trace

__all__ = ["LESSON"]

CLIENT, NODE = "default/client", "node-1"
NEAR, FAR_2, FAR_3 = "default/near", "default/far-2", "default/far-3"
PAYLOAD = 1000

ZONES = "172.18.1.0/24,172.18.2.0/24"
"""Nodes in two subnets: node-1 and node-3 in the first, node-2 in the second."""


@cache
def lab() -> Cluster:
    """The cluster of the notebook: a client, and pods at every distance from it."""
    return example("one-flow-many-networks")


@cache
def on(plugin: str, **options: str) -> Cluster:
    """The same with another CNI."""
    return lab().changed(cni=plugin, cni_options=options)


@cache
def zoned(plugin: str, **options: str) -> Cluster:
    """The same with nodes in two subnets."""
    return on(plugin, **options).changed(node_cidr=ZONES)


def _sent(cluster: Cluster, source: str, target: str) -> Trace:
    return cluster.trace(source, f"{target}:9000/UDP", size=PAYLOAD)


def _opens(cluster: Cluster, source: str, target: str) -> bool:
    return cluster.trace(source, f"{target}:8080").client is Client.OPEN


# A network for two subnets

PAIRS = ((CLIENT, NEAR), (CLIENT, FAR_2), (CLIENT, FAR_3), (FAR_2, FAR_3), (FAR_3, FAR_2))


def _lost(cluster: Cluster) -> Trace | None:
    """The first packet between pods that does not arrive."""
    walks = (_sent(cluster, source, target) for source, target in PAIRS)
    return next((walk for walk in walks if walk.client is not Client.OPEN), None)


def _added(cluster: Cluster, target: str) -> int:
    """Bytes that are added to a packet of the client on its way."""
    frames = [step.packet.length for step in _sent(cluster, CLIENT, target).steps if step.action is Action.TRANSMIT]
    return max(frames) - frames[0]


def _subnets(cluster: Cluster) -> int:
    nodes = (machine for machine in cluster.layout.machines.values())
    return len({address.prefix.network for machine in nodes for address in machine.addresses})


def _enforces(cluster: Cluster) -> bool:
    return cluster.plugin.policies.backend is not cni.Enforcement.NONE


def _suits(cluster: Cluster) -> bool:
    return (
        _subnets(cluster) == 2
        and _lost(cluster) is None
        and _enforces(cluster)
        and not networks.held(cluster, NODE).router
        and not _added(cluster, FAR_3)
    )


def _why(walk: Trace | None) -> str:
    return f"{walk.request.source} does not reach {walk.request.target}: {walk.reason}." if walk is not None else ""


SUITING = Exercise(
    name="subnets",
    wants=Cluster,
    wanted="a cluster, such as zones.changed(cni=…, cni_options={…}) gives,",
    right=_suits,
    praise=lambda answer: (
        f"Between subnets {_added(answer, FAR_2)} bytes are added, within one none, and the router need not know pods."
    ),
    mistakes=(
        Mistake(
            "one subnet",
            lambda answer: _subnets(answer) != 2,
            lambda answer: "Its nodes are not in two subnets: begin with `zones`.",
            lambda: on("calico", mode="vxlan-crosssubnet"),
        ),
        Mistake(
            "the router knows",
            lambda answer: networks.held(answer, NODE).router > 0,
            lambda answer: "The router has routes to the pods, and it is not yours to configure.",
            lambda: zoned("calico", topology="tor"),
        ),
        Mistake(
            "does not arrive",
            lambda answer: _lost(answer) is not None,
            lambda answer: _why(_lost(answer)),
            lambda: zoned("calico", mode="bgp"),
        ),
        Mistake(
            "no policies",
            lambda answer: not _enforces(answer),
            lambda answer: f"All packets arrive. But {answer.plugin.name} does not enforce NetworkPolicies.",
            lambda: zoned("flannel", directrouting="on"),
        ),
        Mistake(
            "always wrapped",
            lambda answer: _added(answer, FAR_3) > 0,
            lambda answer: (
                f"All packets arrive, but {_added(answer, FAR_3)} bytes are added for far-3 too, whose node is on the "
                "client's own subnet."
            ),
            lambda: zoned("cilium"),
        ),
    ),
    otherwise="Send a packet to each of the pods, and look where bytes are added.",
    solution=lambda: zoned("calico", mode="vxlan-crosssubnet"),
)


# A session that ends


@cache
def _without(down: str) -> Cluster | str:
    """The cluster with sessions to the router, some of which are down; or why there is no such cluster."""
    try:
        cluster = on("calico", topology="tor", peers_down=down)
        _ = cluster.network
    except LabError as error:
        return str(error)
    return cluster


def _reached(down: str) -> tuple[bool, ...]:
    """Whether somebody on another node reaches the pod on node-1, on node-2, on node-3."""
    cluster = _without(down)
    if isinstance(cluster, str):
        return ()
    return tuple(any(_opens(cluster, other, pod) for other in ENDS if other != pod) for pod in ENDS)


ENDS = (NEAR, FAR_2, FAR_3)
"""A pod on each node."""

SILENCED = Exercise(
    name="session",
    wants=str,
    wanted='text for peers_down, such as "node-1:node-2",',
    right=lambda answer: _reached(answer) == (True, False, True),
    praise=lambda answer: "The router forgets one network, and nobody else had been told of it but through the router.",
    mistakes=(
        Mistake(
            "no such session",
            lambda answer: isinstance(_without(answer), str),
            lambda answer: f"There is no such cluster: {_without(answer)}.",
            lambda: "far-2",
        ),
        Mistake(
            "nothing changed",
            lambda answer: all(_reached(answer)),
            lambda answer: (
                "Everybody is still reached: the two have no session that could end. Who talks to whom here?"
            ),
            lambda: "node-1:node-2",
        ),
        Mistake(
            "everything",
            lambda answer: not any(_reached(answer)),
            lambda answer: "Nobody is reached any more, from no other node.",
            lambda: "router",
        ),
        Mistake(
            "another one",
            lambda answer: True,
            lambda answer: "far-2 is still reached. On which node is it?",
            lambda: "node-1:router",
        ),
    ),
    otherwise='Ask `.rib("router")` of that cluster what the router has heard.',
    solution=lambda: "node-2:router",
)


# How many pods a block holds

MOST = 320
"""More pods of one node are not tried."""


@cache
def crowded(pods: int) -> Cluster:
    """Calico as it is by default, with so many pods on node-2; those of DNS give way where there are many."""
    spec = {"nodeName": "node-2", "containers": [{"name": "hello", "image": "hello"}]}
    more = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"more-{number}"}, "spec": spec}
        for number in range(pods)
    ]
    clusters = (on("calico").applied(*more[:number]) if number else on("calico") for number in (pods - 2, pods - 1))
    return next(cluster for cluster in clusters if _pods_of(cluster) == pods)


def _pods_of(cluster: Cluster) -> int:
    return sum(1 for pod in cluster.objects.pods if pod.node_name == "node-2" and pod.networked)


def _routes(pods: int) -> int:
    """Routes of node-1 to the pods of others."""
    return networks.held(crowded(pods), NODE).routes


def _most() -> int:
    low, high = 2, 128
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _routes(middle) == _routes(2) else (low, middle - 1)
    return low


def _size() -> int:
    """Addresses of a block."""
    option = next(each for each in on("calico").plugin.options if each.name == "blocksize")
    return 1 << (32 - int(option.default))


BLOCK = Exercise(
    name="block",
    wants=int,
    wanted="a whole number",
    right=lambda answer: answer == _most(),
    praise=lambda answer: (
        f"The tunnel's end has the one address more: with {answer + 1} pods node-2 claims a second block."
    ),
    mistakes=(
        Mistake(
            "the whole block",
            lambda answer: answer == _size(),
            lambda answer: (
                "A block has so many addresses. But something else on node-2 has one of them: look at its `addresses`."
            ),
            _size,
        ),
        Mistake(
            "like a subnet",
            lambda answer: _size() - 4 <= answer < _most(),
            lambda answer: "A block is no subnet: its first and its last address are given to pods like all others.",
            lambda: _size() - 2,
        ),
        Mistake(
            "the pod CIDR",
            lambda answer: 250 <= answer <= 256,
            lambda answer: "That is the size of a node's podCIDR. Which ranges do the routes of node-1 have?",
            lambda: 253,
        ),
        Mistake(
            "too many",
            lambda answer: answer > _most(),
            lambda answer: (
                f"With {answer:,} pods there, node-1 has {_routes(min(answer, MOST))} routes to others, and not "
                f"{_routes(2)}."
            ),
            lambda: 100,
        ),
        Mistake(
            "too few",
            lambda answer: answer < _size() - 4,
            lambda answer: "So many fit, and more.",
            lambda: 32,
        ),
    ),
    otherwise="Count the addresses of a block, and who has them.",
    solution=_most,
)


# The quiz


def _nobody_has_the_gateway() -> bool:
    return not any("169.254.1.1" in host.owned for host in on("calico").network.values())


def _only_a_bridge_loses_large_packets() -> bool:
    flannel, weave = (on(name, mtu="1500").curl(CLIENT, f"{FAR_2}:8080") for name in ("flannel", "weave"))
    return flannel.ok and weave.failed == "answer"


def _a_mesh_relays_and_bgp_does_not() -> bool:
    bgp = on("calico", mode="bgp", peers_down="node-1:node-2")
    return not _opens(bgp, CLIENT, FAR_2) and _opens(on("weave", links_down="node-1:node-2"), CLIENT, FAR_2)


def _flannel_lets_everything_pass() -> bool:
    return not _enforces(on("flannel")) and _enforces(on("calico")) and _enforces(on("cilium"))


def _cilium_asks_a_map() -> bool:
    routes = {route.via for route in on("cilium").network[NODE].routes if route.via and route.prefix != "default"}
    owned = on("cilium").network[NODE].owned
    return len(routes) == 1 and routes <= set(owned)


def _a_provider_refuses() -> bool:
    try:
        _ = lab().changed(cni="cloud", cni_options={"routes": "2"}).network
    except BadOption as error:
        return "takes 2" in str(error)
    return False


QUESTIONS = (
    Question(
        "gateway",
        "Whose address is 169.254.1.1, the gateway of Calico's pods?",
        (
            Choice("the node's, on the bridge", "There is no bridge, and the cables have no IPv4 address at all."),
            Choice("nobody's", "Yes: the node answers for it because of proxy ARP, and routes.", right=True),
            Choice("the router's", "The router is behind the node, and sees no ARP of pods."),
        ),
        proof=_nobody_has_the_gateway,
    ),
    Question(
        "black-hole",
        "Pods have an MTU that is too large for the tunnel. When does a connection open and then hang?",
        (
            Choice(
                "when nobody can tell the sender: a switch drops it, or the ICMP message is filtered",
                "Yes: small packets arrive, large ones are lost in silence.",
                right=True,
            ),
            Choice("always", "A node that routes says so (fragmentation needed), and TCP sends less."),
            Choice("never, TCP finds out", "It finds out by ICMP, and a bridge sends none."),
        ),
        proof=_only_a_bridge_loses_large_packets,
    ),
    Question(
        "relay",
        "Two nodes of three lose their connection to each other. Who still delivers between them?",
        (
            Choice("a full mesh of BGP sessions", "What is heard from one peer of the same AS is not told to another."),
            Choice("Weave's mesh", "Yes: the third relays the frames, wrapped anew.", right=True),
            Choice("both", "Only one of the two passes on what it hears."),
        ),
        proof=_a_mesh_relays_and_bgp_does_not,
    ),
    Question(
        "policies",
        "A NetworkPolicy is created in a cluster with flannel. What happens?",
        (
            Choice("the API server refuses it", "The API server does not know which plugin there is."),
            Choice("nothing: it is stored, and no packet is dropped", "Yes, and nothing warns you.", right=True),
            Choice("kube-proxy enforces it", "kube-proxy is about Services."),
        ),
        proof=_flannel_lets_everything_pass,
    ),
    Question(
        "where",
        "Where does a node with Cilium in tunnel mode look up which node a pod is on?",
        (
            Choice("in its routing table", "The routes lead to the node's own cilium_host, all of them."),
            Choice("in the FDB of the tunnel", "That tunnel is told for each packet where to send it."),
            Choice("in the map ipcache", "Yes, and the sender's identity travels in the tunnel's header.", right=True),
        ),
        proof=_cilium_asks_a_map,
    ),
    Question(
        "limits",
        "What ends the growth of a cluster that is routed by a provider's route table?",
        (
            Choice(
                "the table: it takes so many entries, and a node needs one", "Yes, unless it is raised.", right=True
            ),
            Choice("the MTU", "Nothing is wrapped: pods have the full MTU."),
            Choice("the FDB of each node", "There is no tunnel, and no FDB for it."),
        ),
        proof=_a_provider_refuses,
    ),
)

LESSON = Lesson("3_1", "CNI plugins", (SUITING, SILENCED, BLOCK), QUESTIONS)
