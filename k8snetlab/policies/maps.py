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

A CiliumNetworkPolicy (`cilium`) adds denials, and entries that lead to a proxy which reads requests (`http`). What
several policies say of the same identity and ports is one entry; if one of them reads requests, the entry leads to the
proxy, which then lets pass whatever the others allow.

Of Cilium 1.19: ClusterNetworkPolicy is read from 1.20 on and has no effect here. Not certain, and so said: entries that
a broader one makes superfluous are kept; real numbers of blocks follow the order in which policies came, here that of
the prefixes. Not modelled: sizes of the maps, counters, `toFQDNs` (an agent that reads DNS answers and adds identities
for the addresses in them). Guide sections 3.1 and 4.1; Cilium 1.19, KEP-2079.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from hashlib import sha256
from typing import NamedTuple

import msgspec

from k8snetlab.address import Prefix
from k8snetlab.linux.datapath import ANYTHING, HOST, Datapath, Known, Permit, Wanted
from k8snetlab.linux.datapath import Direction as Way
from k8snetlab.policies import cilium
from k8snetlab.policies.identities import Clause, Identities, Stretch, identities, stretches
from k8snetlab.policies.plan import EGRESS, INGRESS, Direction, Endpoint, Policies

__all__ = ["Agent"]

WAY: Mapping[Direction, Way] = {INGRESS: Way.INGRESS, EGRESS: Way.EGRESS}
PROXY: Mapping[Direction, int] = {
    direction: 10000 + int.from_bytes(sha256(f"cilium-http-{direction.lower()}".encode()).digest()[:4], "big") % 10000
    for direction in (INGRESS, EGRESS)
}
"""Where the proxy of a node listens; the real one takes a port by chance, from 10000 to 20000."""


class Agent(msgspec.Struct, frozen=True, dict=True):
    """What compiles the policies of a cluster on its nodes, those that only Cilium knows among them."""

    policies: Policies

    def node(self, datapath: Datapath) -> Datapath:
        """The programs and maps of a machine with its policies: a map for each pod of the machine that some policy
        selects, and the blocks of all policies in the cache.
        """
        known = self._known(datapath)
        permits: list[Permit] = []
        selected: dict[tuple[int, Way], tuple[str, ...]] = {}
        pods = dict(_own_pods(self.policies, datapath))
        for number, held in datapath.policies.items():
            for direction in (INGRESS, EGRESS):
                way = WAY[direction]
                said = self._said(known, *pods[number], direction) if number in pods else Said()
                if not said.isolating:
                    permits += (each for each in held if each.direction is way)
                else:
                    selected[number, way] = said.isolating
                permits += sorted(_entries(number, direction, said), key=_listed)
        return msgspec.structs.replace(
            datapath,
            permits=tuple(permits),
            selected=selected,
            known=tuple(_cache(known.blocks, datapath)),
            labels={**datapath.labels, **known.labels},
        )

    def _known(self, datapath: Datapath) -> Identities:
        """The numbers, which are the same on all nodes and worked out on the first."""
        if not self._found:
            self._found.append(identities(self.policies, datapath, cilium.blocks(self.policies.cilium_policies)))
        return self._found[0]

    @cached_property
    def _found(self) -> list[Identities]:
        return []

    def _said(self, known: Identities, pod: Endpoint, identity: int, direction: Direction) -> Said:
        """What all policies say about a pod in a direction."""
        labelled = known.pods.get(identity)
        if labelled is None:
            return Said()
        selecting = self.policies.selecting(labelled, direction)
        clauses = [
            Clause(
                policy.ref,
                tuple(number for peer in rule.peers for number in known.meant(peer)),
                tuple(each for ports in rule.ports for each in stretches(ports, pod)),
            )
            for policy in selecting
            for rule in policy.rules
        ]
        isolating = [policy.ref for policy in selecting]
        for rule in cilium.selecting(self.policies.cilium_policies, known, labelled, direction):
            clauses += cilium.clauses(rule, known, pod, direction)
            isolating += [rule.policy.ref] if rule.isolates(direction) else []
        return Said(tuple(clauses), tuple(dict.fromkeys(isolating)))


class Said(NamedTuple):
    """All clauses about a pod in a direction, and the policies that isolate it."""

    clauses: tuple[Clause, ...] = ()
    isolating: tuple[str, ...] = ()


def _own_pods(policies: Policies, datapath: Datapath) -> Iterator[tuple[int, tuple[Endpoint, int]]]:
    """The pods of a machine by the number of their endpoint, with their identity."""
    for each in datapath.endpoints:
        pod = policies.by_address.get(each.address)
        if each.device and isinstance(pod, Endpoint):
            yield each.number, (pod, each.identity)


Key = tuple[int, Stretch, bool]
"""What an entry is found by: an identity, ports, and whether it denies."""


def _entries(number: int, direction: Direction, said: Said) -> Iterator[Permit]:
    """The map of one pod in a direction; what several clauses say of the same traffic is one entry."""
    found: dict[Key, list[Clause]] = {}
    for clause in said.clauses:
        for key in ((identity, ports, clause.deny) for identity in clause.identities for ports in clause.ports):
            found.setdefault(key, []).append(clause)
    if direction is INGRESS and said.isolating:
        found.setdefault((HOST, Stretch(), False), [])
    for (identity, ports, deny), clauses in found.items():
        requests = tuple(_requests(clauses))
        yield Permit(
            number,
            WAY[direction],
            identity,
            ports.protocol,
            ports.port,
            deny,
            ports.bits,
            PROXY[direction] if requests else 0,
            requests,
            tuple(dict.fromkeys(clause.policy for clause in clauses)),
        )


def _requests(clauses: Iterable[Clause]) -> Iterator[Wanted]:
    """What a proxy lets pass; nothing where no clause reads requests. One that does not lets everything pass."""
    if any(clause.requests is not None for clause in clauses):
        for clause in clauses:
            yield from clause.requests if clause.requests is not None else (ANYTHING,)


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
