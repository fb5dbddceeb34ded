"""2.1 Pod to pod: how large may it be, what is missing, which way costs nothing?"""

from __future__ import annotations

from functools import cache

from k8snetlab.cluster import Cluster, example, networks
from k8snetlab.course.exercise import Exercise, Mistake
from k8snetlab.course.lesson import Lesson
from k8snetlab.course.quiz import Choice, Question
from k8snetlab.linux.host import Entry
from k8snetlab.packet import Ethernet, Packet
from k8snetlab.trace import Action, Client, Trace, Verdict

__all__ = ["LESSON"]

HERE, NEAR, FAR = "default/here-a", "default/here-b", "default/there"
UDP_HEADER, IP_HEADER = 8, 20
KINDS = ("route", "neighbour", "fdb")


@cache
def lab() -> Cluster:
    """The cluster of the notebook: two pods on one node, one on another."""
    return example("same-node-other-node")


@cache
def hurt() -> Cluster:
    """The same, where one machine lacks one entry."""
    entry = next(entry for entry in lab().network["node-2"].neighbours if entry.device == "flannel.1")
    return lab().overlaid("something is missing", lambda terrain: terrain.network.without("node-2", entry))


def _datagram(size: int, cluster: Cluster | None = None) -> Trace:
    return (cluster or lab()).trace(HERE, f"{FAR}:9000/UDP", size=size)


def _arrives(size: int) -> bool:
    return 0 <= size <= 9000 and _datagram(size).fate is Verdict.DELIVERED


def _mtu(cluster: Cluster) -> int:
    return cluster.network[HERE].link("eth0").mtu


def _underlay(cluster: Cluster) -> int:
    return cluster.network["node-1"].link("eth0").mtu


def _largest() -> int:
    return next(size for size in range(_mtu(lab()), 0, -1) if _arrives(size))


LARGEST = Exercise(
    name="largest",
    wants=int,
    wanted="a whole number",
    right=lambda answer: _arrives(answer) and not _arrives(answer + 1),
    praise=lambda answer: (
        f"{answer} bytes, a UDP header and an IP header make {_datagram(answer).steps[0].packet.length}."
    ),
    mistakes=(
        Mistake(
            "the MTU itself",
            lambda answer: answer == _mtu(lab()),
            lambda answer: f"{answer} is how large the IP packet may be. Its headers are a part of it.",
            lambda: _mtu(lab()),
        ),
        Mistake(
            "one header only",
            lambda answer: answer in (_mtu(lab()) - UDP_HEADER, _mtu(lab()) - IP_HEADER),
            lambda answer: "You took off one header. A datagram in an IP packet has two above its payload.",
            lambda: _mtu(lab()) - IP_HEADER,
        ),
        Mistake(
            "without the tunnel",
            lambda answer: answer in (_underlay(lab()), _underlay(lab()) - UDP_HEADER - IP_HEADER),
            lambda answer: "That would fit the cable between the nodes. The pod's packet gets more headers on its way.",
            lambda: _underlay(lab()) - UDP_HEADER - IP_HEADER,
        ),
        Mistake(
            "Ethernet too",
            lambda answer: answer == _mtu(lab()) - UDP_HEADER - IP_HEADER - 14,
            lambda answer: "You took off the Ethernet header as well. An MTU counts from the IP header on.",
            lambda: _mtu(lab()) - UDP_HEADER - IP_HEADER - 14,
        ),
        Mistake(
            "too small",
            _arrives,
            lambda answer: f"{answer} bytes arrive, and so does one byte more.",
            lambda: 1000,
        ),
    ),
    otherwise="So much does not arrive. The reason of the trace names the device and its MTU.",
    solution=_largest,
)


def _missing() -> tuple[str, str]:
    change = lab().diff(hurt()).removed[0]
    return change.host, change.kind


MISSING = Exercise(
    name="missing",
    wants=tuple,
    wanted='a pair such as ("node-1", "route")',
    right=lambda answer: answer == _missing(),
    praise=lambda answer: f"{answer[0]} cannot address the other node's tunnel device, so every answer is lost there.",
    mistakes=(
        Mistake(
            "no pair",
            lambda answer: len(answer) != 2 or answer[1] not in KINDS or answer[0] not in lab().network,
            lambda answer: f"Give the name of a machine and one of {', '.join(KINDS)}.",
            lambda: ("fdb", "node-3"),
        ),
        Mistake(
            "the sender's node",
            lambda answer: answer[0] == "node-1",
            lambda answer: "The packet left node-1 and was delivered. What was lost, and where?",
            lambda: ("node-1", _missing()[1]),
        ),
        Mistake(
            "another machine",
            lambda answer: answer[0] != _missing()[0],
            lambda answer: (
                f"{answer[0]} does what it should. Read the last steps of the trace: where does the answer end?"
            ),
            lambda: ("switch", _missing()[1]),
        ),
        Mistake(
            "a route",
            lambda answer: answer[1] == "route",
            lambda answer: (
                f"{answer[0]} did choose the tunnel device for the answer, so it has a route. What did it need next?"
            ),
            lambda: (_missing()[0], "route"),
        ),
        Mistake(
            "the FDB",
            lambda answer: answer[1] == "fdb",
            lambda answer: (
                "The FDB is asked for a MAC address. Did the answer "
                "ever get one? Compare the three lists of both nodes."
            ),
            lambda: (_missing()[0], "fdb"),
        ),
    ),
    otherwise='Compare `show("routes")`, `show("neighbours")` and `show("fdb")` of both nodes.',
    solution=_missing,
)


def _frame(trace: Trace) -> Packet | None:
    """The first frame on the switch; `None` where none came."""
    return next((step.packet for step in trace.steps if step.where == "switch"), None)


def _wrapped(cluster: Cluster) -> bool:
    """Whether a packet with an address of its own is inside of the one on the cable."""
    frame = _frame(_datagram(100, cluster))
    return frame is not None and frame.innermost.ip != frame.ip


def _lost(cluster: Cluster) -> bool:
    return cluster.trace(HERE, f"{FAR}:8080").client is not Client.OPEN


BARE = Exercise(
    name="bare",
    wants=Cluster,
    wanted="a cluster, such as lab.changed(…) gives,",
    right=lambda answer: (
        not _lost(answer)
        and not _wrapped(answer)
        and _mtu(answer) == _underlay(answer)
        and _datagram(_underlay(answer) - UDP_HEADER - IP_HEADER, answer).fate is Verdict.DELIVERED
    ),
    praise=lambda answer: (
        f"{answer.plugin.name} leads packets to the other node as they are, {_mtu(answer)} bytes and all."
    ),
    mistakes=(
        Mistake(
            "it does not work",
            _lost,
            lambda answer: "Now here-a does not reach there at all.",
            lambda: lab().without("node-1", next(r for r in lab().network["node-1"].routes if r.device == "flannel.1")),
        ),
        Mistake(
            "still wrapped",
            _wrapped,
            lambda answer: "The frame between the nodes still carries a packet inside of a packet.",
            lambda: lab().changed(cni_options={"mtu": "1500"}),
        ),
        Mistake(
            "small pods",
            lambda answer: _mtu(answer) < _underlay(answer),
            lambda answer: (
                f"Nothing is wrapped, but the pods' devices still say {_mtu(answer)}: "
                "this way keeps room for a tunnel that other nodes may need."
            ),
            lambda: lab().changed(cni="flannel", cni_options={"directrouting": "on"}),
        ),
    ),
    otherwise="Check the frame on the switch, and the MTU of the pod's eth0.",
    solution=lambda: lab().changed(cni="flannel", cni_options={"backend": "host-gw"}),
)


def _without(kind: str) -> Trace:
    node = lab().network["node-1"]
    route = next(r for r in node.routes if r.device == "flannel.1" and r.via)
    neighbour = next(n for n in node.neighbours if n.ip == route.via)
    entries: dict[str, Entry] = {
        "route": route,
        "neighbour": neighbour,
        "fdb": next(f for f in node.fdb if f.mac == neighbour.mac),
    }
    return lab().without("node-1", entries[kind]).trace(HERE, f"{FAR}:8080")


def _carries_frames(network: str) -> bool:
    """Whether a frame is inside of the frame between nodes."""
    frame = _frame(networks.on(lab(), network).trace(HERE, f"{FAR}:8080"))
    return frame is not None and sum(isinstance(header, Ethernet) for header in frame.headers) > 1


QUESTIONS = (
    Question(
        "bridge",
        "Two pods of one node talk. Which table does the node look into?",
        (
            Choice("its routing table", "The frame is addressed to the other pod's MAC, not to the node."),
            Choice("the bridge's forwarding table", "Yes: which port leads to this MAC address.", right=True),
            Choice("the VXLAN device's FDB", "That is asked when a frame leaves for another node."),
        ),
        proof=lambda: {
            step.action for step in lab().trace(HERE, f"{NEAR}:8080").steps if step.where == "node-1"
        }.isdisjoint({Action.FORWARD, Action.ENCAPSULATE}),
    ),
    Question(
        "unreachable",
        "A client is told “host unreachable” after a moment. Which entry is missing on its node?",
        (
            Choice("the FDB entry", "Then the tunnel device drops the frame and says nothing: a time-out."),
            Choice(
                "the neighbour",
                "Yes: the node asks for the MAC address itself, and reports that nobody answers.",
                right=True,
            ),
            Choice("the route", "Then the packet takes the default route and is lost outside: a time-out."),
        ),
        proof=lambda: (
            _without("neighbour").client is Client.UNREACHABLE
            and _without("fdb").client is Client.TIMEOUT
            and _without("route").client is Client.TIMEOUT
        ),
    ),
    Question(
        "mtu",
        "Small requests work across nodes, large answers never arrive. What do you look at first?",
        (
            Choice(
                "MTU of pods, tunnel and underlay, and whether ICMP is let through",
                "Yes. Size is the only difference.",
                right=True,
            ),
            Choice("the routes between the nodes", "A missing route stops small packets, too."),
            Choice("the Service's endpoints", "Those decide at the first packet, which was small and arrived."),
        ),
    ),
    Question(
        "overhead",
        "VXLAN over IPv4 makes each frame 50 bytes longer. Of what?",
        (
            Choice("IP 20, TCP 20, VXLAN 10", "VXLAN travels in UDP, and its header has 8 bytes."),
            Choice(
                "IP 20, UDP 8, VXLAN 8, the inner Ethernet header 14",
                "Right: the inner frame is payload, with its own Ethernet header.",
                right=True,
            ),
            Choice("a second Ethernet header and a checksum", "That would not bring it to another machine."),
        ),
        proof=lambda: _underlay(lab()) - _mtu(lab()) == IP_HEADER + UDP_HEADER + 8 + 14,
    ),
    Question(
        "two frames",
        "A frame between two nodes has two Ethernet headers. Under which plugin was it caught?",
        (
            Choice("Calico with IP in IP", "What is inside there is an IP packet, without a frame of its own."),
            Choice(
                "flannel with VXLAN or Cilium with Geneve",
                "Yes. Both carry whole frames, in UDP datagrams.",
                right=True,
            ),
            Choice("Cilium in native mode", "Then the pod's packet is on the cable as it is, with one frame."),
        ),
        proof=lambda: (
            [_carries_frames(name) for name in ("calico ipip", "flannel vxlan", "cilium geneve", "cilium native")]
            == [False, True, True, False]
        ),
    ),
)

LESSON = Lesson("2_1", "Pod to pod", (LARGEST, MISSING, BARE), QUESTIONS, {"hurt": hurt})
