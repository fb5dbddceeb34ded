"""What goes wrong in real clusters?

    shop = k8s.example("bookshop")
    broken = shop.broken("route-missing")
    print(k8s.faults.FAULTS["route-missing"].symptom)         # what people say of it
    print(k8s.faults.noticed(broken, "route-missing")[0])     # who is answered otherwise, before and now
    k8s.faults.check(broken.repaired("route-missing"), "route-missing").holds

A fault is an overlay: a named change of the machines, of what was chosen, or of what was written, which survives
`changed` and goes with `repaired`. It is put where it is noticed: on the first spot around which some packet fares
otherwise than in the whole cluster (`spots`, `asking`). A CNI that has nothing of the kind, or where nobody would
notice, is told from the state and by walking packets, not by its name.

`check` asks the same questions again. A fault may also be mended by other means than `repaired`: a route put back by
hand, an MTU that fits (`changed(cni_options={"mtu": "1300"})`). It is mended when everybody is answered as in a whole
cluster.

    fault                    what is wrong                                                        section
    mtu-too-large            pods may send more than the cables between the nodes carry           3.1
    route-missing            a node has no route to another node's pods                           2.1
    pod-cidr-overlap         a node has another network with addresses of pods                    1.2
    proxy-arp-off            a node answers no ARP for others on its pods' cables                 3.1
    bgp-peer-down            a node's BGP sessions are down                                       3.1
    fdb-missing              a tunnel does not know the machine behind a MAC address              2.1
    neighbour-missing        a tunnel does not know the MAC address of its other end              2.1
    peer-missing             an encrypted tunnel does not know a peer                             3.1
    rp-filter-strict         a node takes only what it would answer by the same device            2.1
    ip-forward-off           a node forwards nothing                                              2.1
    bridge-nf-call-off       what a bridge passes on is shown to no rule                          2.2
    hairpin-off              a bridge sends nothing back where it came from                       2.2
    ipcache-lost             programs do not know who is behind another node                      3.1
    weave-link-down          two nodes of a mesh cannot connect                                   3.1
    masquerade-missing       pods are not hidden from the world outside                           2.1
    pool-missing             pods are hidden from each other                                      3.1
    selector-wrong           a Service asks for labels that no pod has                            2.2
    target-port-wrong        a Service leads to a port at which nobody listens                    2.2

Not modelled: faults that come and go, faults of programs above the network. Guide section 4.4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from k8snetlab import api
from k8snetlab.errors import CannotDo, Problem, UnknownName
from k8snetlab.faults import changes, choices, objects, spots
from k8snetlab.faults.asking import Answer, Ask, Notice, answer, asks
from k8snetlab.faults.spots import Spot
from k8snetlab.flows import Terrain
from k8snetlab.linux.host import Network

if TYPE_CHECKING:
    from k8snetlab.cluster import Cluster, Options

__all__ = ["FAULTS", "Answer", "Ask", "Check", "Fault", "Notice", "broken", "check", "noticed"]

TRIED = 12
"""So many spots are tried: that a fault is put on the first that somebody notices is no reason to walk for ever."""


class Fault(msgspec.Struct, frozen=True):
    """A kind of fault: what is wrong (`title`), what people say who suffer from it (`symptom`; it does not tell the
    cause), the section of the guide that has to do with it, and what a cluster must have to be broken so (`needs`).
    """

    name: str
    title: str
    symptom: str
    lesson: str
    needs: str
    spots: Callable[[Terrain], Iterator[Spot]]
    change: Callable[[Terrain, Spot], Network] = changes.as_they_are
    choice: Callable[[Options, Spot], Options] = choices.as_they_are
    revision: Callable[[api.Manifests, Spot], api.Manifests] = objects.as_they_are

    def __str__(self) -> str:
        return f"{self.name}: {self.title} (section {self.lesson})"


class Placed(msgspec.Struct, frozen=True):
    """A fault at its spot: an overlay of a cluster."""

    fault: Fault
    spot: Spot

    @property
    def name(self) -> str:
        """The fault's."""
        return self.fault.name

    def revise(self, manifests: api.Manifests) -> api.Manifests:
        """What the fault makes of what was written."""
        return self.fault.revision(manifests, self.spot)

    def choose(self, options: Options) -> Options:
        """What the fault makes of what was chosen."""
        return self.fault.choice(options, self.spot)

    def apply(self, terrain: Terrain) -> Network:
        """What the fault makes of the machines."""
        return self.fault.change(terrain, self.spot)


class Check(msgspec.Struct, frozen=True):
    """Whether a fault is mended: `evidence` says what was asked, `failures` who is still answered otherwise."""

    fault: str
    holds: bool
    evidence: str
    failures: tuple[Notice, ...] = ()

    def __str__(self) -> str:
        head = f"{'mended' if self.holds else 'BROKEN'}  {self.fault}: {self.evidence}"
        return "\n".join((head, *(f"{failure}" for failure in self.failures)))


# Breaking


def broken(cluster: Cluster, name: str, on: str = "") -> Cluster:
    """The cluster with a fault where somebody notices it, or `on` that machine, or `svc/NAMESPACE/NAME`. Raises
    `UnknownName` for a fault, a machine or a Service that there is not, `CannotDo` where the cluster has nothing that
    could be broken so.
    """
    if on.startswith(objects.SERVICE):
        cluster.objects.service(on.removeprefix(objects.SERVICE))
    elif on:
        cluster.network.host(on)
    return _placed(cluster, _named(name), on)[0]


def _named(name: str) -> Fault:
    if name not in FAULTS:
        raise UnknownName("fault", name, FAULTS, field="fault")
    return FAULTS[name]


class _Found(NamedTuple):
    """A cluster with a fault, and where that is."""

    cluster: Cluster
    spot: Spot


def _placed(cluster: Cluster, fault: Fault, on: str = "") -> _Found:
    """The cluster with the fault at the first spot where somebody notices it."""
    whole: dict[Ask, Answer] = {}
    there = False
    for spot in [each for each in fault.spots(cluster.terrain) if on in ("", each.host)][:TRIED]:
        found = cluster.under(Placed(fault, spot))
        if found.network is cluster.network:  # nothing was changed, and so nothing compiled
            continue
        there = True
        if next(_notices(cluster, found, spot, whole), None) is not None:
            return _Found(found, spot)
    where = f" on {on}" if on else ""
    why = f"nobody in this cluster would notice it{where}" if there else f"{fault.needs}{where}"
    raise CannotDo(Problem(f"{why}: CNI {cluster.options.cni}", object=f"fault {fault.name}"))


def _notices(whole: Cluster, hurt: Cluster, spot: Spot, known: dict[Ask, Answer] | None = None) -> Iterator[Notice]:
    """Who is answered otherwise in a cluster than in the whole one. `known` keeps what the whole one answers."""
    known = {} if known is None else known
    for ask in dict.fromkeys(asks(whole, spot)):
        if ask not in known:
            known[ask] = answer(whole, ask)
        now = answer(hurt, ask)
        if not now.as_good_as(known[ask]):
            yield Notice(ask, known[ask], now)


# Looking at it


def noticed(cluster: Cluster, name: str) -> tuple[Notice, ...]:
    """Who is answered otherwise than in a cluster without the fault. Raises `UnknownName` where it is not there."""
    _named(name)
    placed = _overlay(cluster, name)
    if placed is None:
        raise UnknownName("overlay", name, (overlay.name for overlay in cluster.overlays))
    return tuple(_notices(cluster.repaired(name), cluster, placed.spot))


def _overlay(cluster: Cluster, name: str) -> Placed | None:
    return next((each for each in cluster.overlays if isinstance(each, Placed) and each.name == name), None)


def check(cluster: Cluster, name: str) -> Check:
    """Whether a fault is mended: whether everybody who would notice it is answered as in a cluster without it, be it
    that the overlay was taken away or that something else made it harmless.
    """
    fault, placed = _named(name), _overlay(cluster, name)
    if placed is not None:
        whole = cluster.repaired(name)
        questions = list(dict.fromkeys(asks(whole, placed.spot)))
    else:
        whole = msgspec.structs.replace(cluster, overlays=())
        try:
            hurt, spot = _placed(whole, fault)
        except CannotDo as error:
            return Check(name, holds=True, evidence=str(error))
        questions = [notice.ask for notice in _notices(whole, hurt, spot)]
    notices = (Notice(ask, answer(whole, ask), answer(cluster, ask)) for ask in questions)
    failures = tuple(notice for notice in notices if not notice.now.as_good_as(notice.before))
    told = f"{len(questions)} questions were asked, {len(failures)} are answered otherwise than in a whole cluster"
    return Check(name, not failures, told, failures)


# The faults

_ALL = (
    Fault(
        "mtu-too-large",
        "pods may send more than the cables between the nodes carry",
        "Short questions are answered at once; long ones hang for ever. A ping goes through, a TLS handshake stops.",
        "3.1",
        "no pod is there that could send anything",
        spots.underlay,
        changes.narrow,
    ),
    Fault(
        "route-missing",
        "a node has no route to another node's pods",
        "Packets for the pods of one node get lost on their way, though the pods run and all machines see each other.",
        "2.1",
        "no machine has a route of its own to pods elsewhere",
        spots.each_way,
        changes.route_lost,
    ),
    Fault(
        "pod-cidr-overlap",
        "a node has another network with addresses of pods",
        "Since somebody installed a program on one node, some pods cannot be reached from there. Others can.",
        "1.2",
        "no node has a way to pods elsewhere",
        spots.each_pair,
        changes.overlapping,
    ),
    Fault(
        "proxy-arp-off",
        "a node answers no ARP for others on its pods' cables",
        "The pods of one node reach nobody, not even each other. Their interfaces are up, their routes are right.",
        "3.1",
        "no node answers ARP for others",
        spots.each_node,
        changes.no_proxy_arp,
    ),
    Fault(
        "bgp-peer-down",
        "a node's BGP sessions are down",
        "The pods of one node are cut off from the others. The nodes themselves talk to each other.",
        "3.1",
        "no node speaks BGP",
        spots.each_node,
        choice=choices.peer_down,
    ),
    Fault(
        "fdb-missing",
        "a tunnel does not know the machine behind a MAC address",
        "Pods of two nodes do not hear each other, though routes and neighbours stand as they should.",
        "2.1",
        "no node has a tunnel with forwarding entries",
        spots.each_pair,
        changes.fdb_lost,
    ),
    Fault(
        "neighbour-missing",
        "a tunnel does not know the MAC address of its other end",
        "Pods of two nodes do not hear each other; after some seconds callers are told that there is no route to host.",
        "2.1",
        "no node has permanent neighbours at a tunnel",
        spots.each_pair,
        changes.neighbour_lost,
    ),
    Fault(
        "peer-missing",
        "an encrypted tunnel does not know a peer",
        "Between two nodes nobody gets an answer, and on the cable between them nothing is seen.",
        "3.1",
        "no node has WireGuard or IPsec",
        spots.each_pair,
        changes.peer_lost,
    ),
    Fault(
        "rp-filter-strict",
        "a node takes only what it would answer by the same device",
        "A capture shows the packets as they come in. No program gets them, no rule drops them, nobody answers.",
        "2.1",
        "no node has that setting",
        spots.each_node,
        changes.strict_sources,
    ),
    Fault(
        "ip-forward-off",
        "a node forwards nothing",
        "One node itself is well, and reaches its own pods. What comes from its pods or goes to them ends there.",
        "2.1",
        "no node forwards",
        spots.each_node,
        changes.no_forwarding,
    ),
    Fault(
        "bridge-nf-call-off",
        "what a bridge passes on is shown to no rule",
        "A Service answers everybody but the pods that stand on the same node as the one that is chosen.",
        "2.2",
        "no node shows bridged packets to its rules",
        spots.each_node,
        changes.bridges_unasked,
    ),
    Fault(
        "hairpin-off",
        "a bridge sends nothing back where it came from",
        "A pod that calls the Service it belongs to hangs now and then, and nobody else ever does.",
        "2.2",
        "no bridge of a node has such ports",
        spots.each_node,
        changes.no_hairpin,
    ),
    Fault(
        "ipcache-lost",
        "programs do not know who is behind another node",
        "From one node the pods of another cannot be reached. Between the nodes themselves all is well.",
        "3.1",
        "no node has programs that look up who is where",
        spots.each_pair,
        changes.cache_lost,
    ),
    Fault(
        "weave-link-down",
        "two nodes of a mesh cannot connect",
        "Everything works, but between two nodes it takes longer than anywhere else.",
        "3.1",
        "the nodes are no mesh",
        spots.each_pair,
        choice=choices.link_down,
    ),
    Fault(
        "masquerade-missing",
        "pods are not hidden from the world outside",
        "Pods of one node get no answer from anywhere outside of the cluster. The node does, and so do other pods.",
        "2.1",
        "no node hides its pods",
        spots.each_node,
        changes.no_masquerade,
    ),
    Fault(
        "pool-missing",
        "pods are hidden from each other",
        "Everybody is answered, but servers write down the address of a node where a pod has called.",
        "3.1",
        "no node has a set of networks to which pods show themselves",
        spots.each_pair,
        changes.hidden_from_each_other,
    ),
    Fault(
        "selector-wrong",
        "a Service asks for labels that no pod has",
        "Whoever calls one Service is refused at once, although its pods are up and answer at their own addresses.",
        "2.2",
        "no manifest has a Service of pods",
        objects.each_service,
        revision=objects.selects_nobody,
    ),
    Fault(
        "target-port-wrong",
        "a Service leads to a port at which nobody listens",
        "Whoever calls one Service is refused at once, although all its pods are there as endpoints.",
        "2.2",
        "no manifest has a Service of pods",
        objects.each_service,
        revision=objects.nobody_listens,
    ),
)

FAULTS: Mapping[str, Fault] = {fault.name: fault for fault in _ALL}
"""The faults by name, in the order of the guide's sections that they have to do with."""
