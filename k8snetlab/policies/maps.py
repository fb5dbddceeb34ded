"""How do policies fit into a table of numbers?

Where a network goes by identities (`linux.datapath`), a policy is no list of rules that a packet is compared with, but
entries of a map, one map for each pod:

    (direction, identity of the other end, protocol, port) → allowed, or denied, or to a proxy

- The *agent* of each node works out which identities a selector means: ten thousand pods with the same labels are one
  number and so one entry. It selects by the labels of identities. A label that makes no identity (the hash of a
  pod's template, the name of a StatefulSet's pod) is not there for selectors either.
- A block of addresses (`ipBlock`) becomes identities too, from 16777217 on, which only this node knows: the block less
  its exceptions is cut into prefixes, and each prefix has an entry in the cache of addresses. Since the cache gives the
  longest prefix, and pods and nodes stand there with their own addresses, a block never means a pod or a node.
  `0.0.0.0/0` without exceptions is the world itself.
- A port is a number: the trie under the map takes prefixes of a port, so a range becomes a few entries (8000 to 8010:
  8000/13, 8008/15, 8010/16). A name is the pod's own number in ingress; in egress it is the one number that all
  pods of the cluster give it, and where they give it several, nothing (Cilium 1.19).
- A direction in which no policy selects the pod has one entry that allows everything. In the others only what is
  entered passes; the pod's own node always stands there for ingress (`reserved:host`), or kubelet could not probe.

Of Cilium 1.19: ClusterNetworkPolicy is read from 1.20 on and has no effect here. Not certain, and so said: entries that
a broader one makes superfluous are kept; real numbers of blocks follow the order in which policies came, here that of
the prefixes. Not modelled: sizes of the maps, counters, `toFQDNs` (an agent that reads DNS answers and adds identities
for the addresses in them). Guide sections 3.1 and 4.1; Cilium 1.19, KEP-2079.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property

import msgspec

from k8snetlab.address import Prefix
from k8snetlab.linux.datapath import HOST, LOCAL, PORT_BITS, UNKNOWN, WORLDS, Datapath, Known, Permit
from k8snetlab.linux.datapath import Direction as Way
from k8snetlab.policies.plan import (
    EGRESS,
    INGRESS,
    Anyone,
    Block,
    Direction,
    Endpoint,
    Peer,
    Pods,
    Policies,
    Policy,
    Ports,
    Rule,
)

__all__ = ["Identities", "enforced", "identities", "prefixes", "spread"]

WAY: Mapping[Direction, Way] = {INGRESS: Way.INGRESS, EGRESS: Way.EGRESS}
ALL = {4: "0.0.0.0/0", 6: "::/0"}


# --- who has which number ---------------------------------------------------------------------------------------------


class Identities(msgspec.Struct, frozen=True, dict=True):
    """The numbers that the policies of a cluster are compiled to: pods by identity (as `Endpoint`s that have the labels
    of the identity and nothing else), blocks of addresses, and the world by family.
    """

    policies: Policies
    pods: Mapping[int, Endpoint]
    blocks: Mapping[Prefix, int]
    worlds: Mapping[int, int]

    def meant(self, peer: Peer) -> tuple[int, ...]:
        """The identities of a rule's other end, sorted; `UNKNOWN` alone for anyone."""
        key = id(peer)  # selectors cannot be hashed; the policies keep every peer alive
        if key not in self._meant:
            self._meant[key] = tuple(sorted(self._identities(peer)))
        return self._meant[key]

    def _identities(self, peer: Peer) -> Iterator[int]:
        if isinstance(peer, Anyone):
            yield UNKNOWN
        elif isinstance(peer, Pods):
            yield from (number for number, each in self.pods.items() if peer.selects(each, self.policies))
        elif isinstance(peer, Block):
            held = tuple(prefixes(peer))
            yield from (number for block, number in self.blocks.items() if any(each.covers(block) for each in held))
            yield from (self.worlds[each.family] for each in held if not each.length and each.family in self.worlds)

    @cached_property
    def _meant(self) -> dict[int, tuple[int, ...]]:
        return {}

    @property
    def labels(self) -> Mapping[int, tuple[str, ...]]:
        """The labels of the blocks' identities: the block itself, and that it is a part of the world."""
        names = {2: "world", 9: "world-ipv4", 10: "world-ipv6"}
        return {
            number: (f"cidr:{block}", f"reserved:{names[self.worlds[block.family]]}")
            for block, number in self.blocks.items()
        }


def identities(policies: Policies, datapath: Datapath) -> Identities:
    """The numbers of a cluster, as any of its machines knows them. Blocks of a family that the machine's cache does not
    have are left out.
    """
    worlds = {of: each.identity for each in datapath.known for of in ALL if each.prefix == ALL[of]}
    taken = {Prefix.of(each.prefix) for each in datapath.known if each.identity not in WORLDS}
    blocks = {
        part
        for direction in (INGRESS, EGRESS)
        for policy in policies.of(direction)
        for rule in policy.rules
        for peer in rule.peers
        if isinstance(peer, Block)
        for part in prefixes(peer)
        if part.length and part.family in worlds
    }
    numbered = {block: LOCAL + at for at, block in enumerate(sorted(blocks - taken), 1)}
    pods = {number: endpoint for number, labels in datapath.labels.items() if (endpoint := _endpoint(number, labels))}
    return Identities(policies, pods, numbered, worlds)


NAMESPACE = "io.kubernetes.pod.namespace"
"""The label by which an identity says its namespace."""


def _endpoint(number: int, labels: Iterable[str]) -> Endpoint | None:
    """A pod with the labels of an identity, or nothing for one that is no pod's."""
    said = dict(each.removeprefix("k8s:").split("=", 1) for each in labels if each.startswith("k8s:"))
    if NAMESPACE not in said:
        return None
    own = {key: value for key, value in said.items() if not key.startswith("io.cilium.k8s.") and key != NAMESPACE}
    return Endpoint(f"identity {number}", said[NAMESPACE], own)


def prefixes(block: Block) -> Iterator[Prefix]:
    """A block less its exceptions, as few prefixes as can be, in order."""
    yield from _less(block.prefix, block.holes)


def _less(block: Prefix, holes: Iterable[Prefix]) -> Iterator[Prefix]:
    inside = [hole for hole in holes if hole.overlaps(block)]
    if not inside:
        yield block
    elif not any(hole.covers(block) for hole in inside):
        for half in block.subnets(block.length + 1):
            yield from _less(half, inside)


# --- ports ------------------------------------------------------------------------------------------------------------


def spread(first: int, last: int) -> Iterator[tuple[int, int]]:
    """A range of ports as prefixes: the first port of each, and how many of its bits count.

    >>> list(spread(8000, 8010))
    [(8000, 13), (8008, 15), (8010, 16)]
    """
    while first <= last:
        room = PORT_BITS if first == 0 else (first & -first).bit_length() - 1
        fits = (last - first + 1).bit_length() - 1
        size = min(room, fits)
        yield first, PORT_BITS - size
        first += 1 << size


def _ports(ports: Ports, own: Endpoint) -> Iterator[tuple[str, int, int]]:
    """Protocol (empty for all), port (0 for all) and how many of its bits count. Names are those of the pod itself."""
    protocol = str(ports.protocol or "")
    if ports.name:
        for each in own.ports:
            if each.name == ports.name and ports.protocol in (None, each.protocol):
                yield str(each.protocol), each.number, PORT_BITS
    elif ports.every:
        yield protocol, 0, PORT_BITS
    else:
        yield from ((protocol, port, bits) for port, bits in spread(ports.first, ports.last))


# --- the maps ---------------------------------------------------------------------------------------------------------


def enforced(known: Identities, datapath: Datapath) -> Datapath:
    """The programs and maps of a machine with its policies: a map for each pod of the machine that some policy selects,
    and the blocks of all policies in the cache.
    """
    permits: list[Permit] = []
    selected: dict[tuple[int, Way], tuple[str, ...]] = {}
    pods = dict(_own_pods(known.policies, datapath))
    for number, held in datapath.policies.items():
        for direction in (INGRESS, EGRESS):
            way = WAY[direction]
            selecting = _selecting(known, pods[number][1], direction) if number in pods else ()
            if not selecting:
                permits += (each for each in held if each.direction is way)
                continue
            selected[number, way] = tuple(dict.fromkeys(policy.ref for policy in selecting))
            permits += sorted(_entries(known, number, pods[number][0], direction, selecting), key=_listed)
    return msgspec.structs.replace(
        datapath,
        permits=tuple(permits),
        selected=selected,
        known=tuple(_cache(known.blocks, datapath)),
        labels={**datapath.labels, **known.labels},
    )


def _own_pods(policies: Policies, datapath: Datapath) -> Iterator[tuple[int, tuple[Endpoint, int]]]:
    """The pods of a machine by the number of their endpoint, with their identity."""
    for each in datapath.endpoints:
        pod = policies.by_address.get(each.address)
        if each.device and isinstance(pod, Endpoint):
            yield each.number, (pod, each.identity)


def _selecting(known: Identities, identity: int, direction: Direction) -> tuple[Policy, ...]:
    """The policies of a direction that select an identity."""
    pod = known.pods.get(identity)
    return known.policies.selecting(pod, direction) if pod is not None else ()


def _entries(
    known: Identities, number: int, pod: Endpoint, direction: Direction, policies: Iterable[Policy]
) -> Iterator[Permit]:
    """The map of one pod in a direction in which some policy selects it."""
    way = WAY[direction]
    found: dict[tuple[int, str, int, int], dict[str, None]] = {}
    for policy in policies:
        for rule in policy.rules:
            for key in _keys(known, pod, rule):
                found.setdefault(key, {})[policy.ref] = None
    if direction is INGRESS:
        found.setdefault((HOST, "", 0, PORT_BITS), {})
    for (identity, protocol, port, bits), origin in found.items():
        yield Permit(number, way, identity, protocol, port, port_bits=bits, origin=tuple(origin))


def _keys(known: Identities, pod: Endpoint, rule: Rule) -> Iterator[tuple[int, str, int, int]]:
    for peer in rule.peers:
        for identity in known.meant(peer):
            for ports in rule.ports:
                yield from ((identity, *each) for each in _ports(ports, pod))


def _listed(permit: Permit) -> tuple[bool, int, str, int, int]:
    """Where an entry is printed: denials first, then by identity."""
    return not permit.deny, permit.identity, permit.protocol, permit.port, permit.port_bits


def _cache(blocks: Mapping[Prefix, int], datapath: Datapath) -> Iterator[Known]:
    """The cache of addresses with the blocks: one that is there already (the pod network of a node, which is said to be
    the world) gets another identity, and leads where it did.
    """
    left = {str(block): number for block, number in blocks.items()}
    for each in datapath.known:
        number = left.pop(each.prefix, 0)
        yield msgspec.structs.replace(each, identity=number) if number else each
    yield from (Known(prefix, number) for prefix, number in left.items())
