"""Which pods do the policies treat alike?

Ten thousand pods make a hundred million pairs, but most pods are copies of one another: to the policies, a pod is only
what their selectors, blocks and names of ports say of it. Every such question is a *column*, a set of pods. Pods that
are in the same columns are one class: whatever one of them may do, so may the others. Columns that no rule needs for
the ports that were asked about do not count.

A column is found without asking every pod. Pods with equal labels in one namespace are asked once; each label has the
set of those that carry it, and a selector is a few unions and intersections of such sets. Blocks of addresses are
compared with all addresses at once.

Two things are no columns, because they are about two pods and not about one: a pod reaches itself, and a node its own
pods. `matrix` adds them. Guide section 4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from k8snetlab import api
from k8snetlab.address import number
from k8snetlab.api.selectors import LabelSelectorRequirement, Operator
from k8snetlab.policies.plan import Anyone, Block, Domain, Endpoint, Machines, NamedPort, Peer, Pods, Policies

__all__ = ["EVERYONE", "Bools", "Columns", "Indexes", "PodClasses", "distinct"]

Bools: TypeAlias = NDArray[np.bool_]
Indexes: TypeAlias = NDArray[np.intp]

EVERYONE = 0
"""The column that all pods are in."""


class PodClasses(NamedTuple):
    """The pods by class, in the order of the first pod of each.

    `of_pod` has the class of each endpoint, `first` the first endpoint of each class; `columns` (columns × classes)
    says which classes are in which column.
    """

    of_pod: Indexes
    first: Indexes
    columns: Bools


class Columns:
    """The questions that policies ask of pods, each once, in the order in which they came up."""

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        self._ids: dict[Hashable, int] = {EVERYONE: EVERYONE}
        self._of_groups: dict[int, Callable[[_Groups], Bools]] = {}
        self.blocks: dict[int, Block] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def of_peer(self, peer: Peer) -> int | None:
        """The column of the pods that a peer means; None for one that means no pod whatever it is."""
        if isinstance(peer, Anyone):
            return EVERYONE
        if isinstance(peer, Pods):
            return self.of_pods(peer)
        if isinstance(peer, Block):
            return self._of_block(peer)
        return None if isinstance(peer, Domain) else self._of_machines(peer)

    def of_pods(self, pods: Pods) -> int:
        """The column of the pods that a selector means."""
        where = pods.namespace or _selector_key(pods.namespaces)
        key = ("pods", where, _selector_key(pods.pods), pods.host_network)
        return self._column(key, lambda groups: groups.selected(pods))

    def of_name(self, name: str, protocol: api.Protocol, port: int) -> int:
        """The column of the pods in which a name stands for this port. What uses its node's network has no names."""
        return self._column(("name", name, protocol, port), lambda groups: groups.naming(name, protocol, port))

    def _of_machines(self, machines: Machines) -> int:
        key = ("machines", _selector_key(machines.nodes))
        return self._column(key, lambda groups: groups.where(lambda pod: machines.means(pod, "", self._policies)))

    def _of_block(self, block: Block) -> int:
        found = self._ids.setdefault(("block", block), len(self._ids))
        self.blocks[found] = block
        return found

    def _column(self, key: Hashable, found: Callable[[_Groups], Bools]) -> int:
        column = self._ids.setdefault(key, len(self._ids))
        self._of_groups.setdefault(column, found)
        return column

    def classes(self) -> PodClasses:
        """The pods by the columns that they are in."""
        pods = self._policies.endpoints
        groups = _Groups(self._policies)
        of_groups = np.zeros((len(self), len(groups.pods)), np.bool_)
        of_groups[EVERYONE] = True
        for column, found in self._of_groups.items():
            of_groups[column] = found(groups)
        of_blocks = _in_blocks(tuple(self.blocks.values()), pods)
        kind = distinct(np.packbits(of_groups, axis=0).T, groups.apart)[0]
        of_pod, first = distinct(np.packbits(of_blocks, axis=0).T, kind[groups.of_pod])
        columns = of_groups[:, groups.of_pod[first]]
        columns[list(self.blocks)] = of_blocks[:, first]
        return PodClasses(of_pod, first, columns)


def distinct(rows: NDArray[np.uint8], extra: Indexes | None = None) -> tuple[Indexes, Indexes]:
    """Which rows are equal, with a further number for each row: the place of each among those that differ, and where
    each of these stands first.
    """
    if extra is not None:
        tail = np.ascontiguousarray(extra, np.int64).view(np.uint8).reshape(len(extra), 8)
        rows = np.concatenate((rows, tail), axis=1)
    rows = np.ascontiguousarray(rows)
    size, whole = rows.shape[1], rows.tobytes()
    places: dict[bytes, int] = {}
    of_row = np.empty(len(rows), np.intp)
    first: list[int] = []
    for index in range(len(rows)):
        key = whole[index * size : (index + 1) * size]
        place = places.setdefault(key, len(places))
        if place == len(first):
            first.append(index)
        of_row[index] = place
    return of_row, np.array(first, np.intp)


# --- pods by their labels ---------------------------------------------------------------------------------------------


class _Groups:
    """Pods that no selector can tell apart: namespace, labels, names of ports, families, and the node whose network
    they use. `pods` has the first of each group; the groups of a namespace stand together.
    """

    def __init__(self, policies: Policies) -> None:
        self._policies = policies
        found: dict[str, dict[Hashable, list[int]]] = {}
        named: dict[tuple[NamedPort, ...], int] = {}
        for index, pod in enumerate(policies.endpoints):
            labels, ports = tuple(sorted(pod.labels.items())), named.setdefault(pod.ports, len(named))
            key = (labels, ports, _families(pod), pod.node if pod.host_network else None)
            found.setdefault(pod.namespace, {}).setdefault(key, []).append(index)
        self.of_pod: Indexes = np.empty(len(policies.endpoints), np.intp)
        self.pods: list[Endpoint] = []
        self.places: dict[str, slice] = {}
        for namespace, groups in found.items():
            begin = len(self.pods)
            for members in groups.values():
                self.of_pod[members] = len(self.pods)
                self.pods.append(policies.endpoints[members[0]])
            self.places[namespace] = slice(begin, len(self.pods))
        self._named = tuple(named)
        self._ports = np.array([named[pod.ports] for pod in self.pods], np.intp)
        self.apart = self._apart()
        self._with_pair: dict[tuple[str, str], Bools] = {}
        self._with_key: dict[str, Bools] = {}
        self._own_network = self.where(lambda pod: not pod.host_network)
        self._selected: dict[Hashable, Bools] = {}
        self._none = np.zeros(len(self.pods), np.bool_)
        self._index()

    def _apart(self) -> Indexes:
        """What tells groups apart beside all columns: families, and the node whose network they use."""
        found: dict[Hashable, int] = {}
        keys = ((_families(pod), pod.node if pod.host_network else None) for pod in self.pods)
        return np.array([found.setdefault(key, len(found)) for key in keys], np.intp)

    def _index(self) -> None:
        pairs: dict[tuple[str, str], list[int]] = {}
        for index, pod in enumerate(self.pods):
            for pair in pod.labels.items():
                pairs.setdefault(pair, []).append(index)
        for pair, groups in pairs.items():
            self._with_pair[pair] = with_pair = np.zeros(len(self.pods), np.bool_)
            with_pair[groups] = True
            known = self._with_key.get(pair[0])
            self._with_key[pair[0]] = with_pair if known is None else known | with_pair

    def where(self, means: Callable[[Endpoint], bool]) -> Bools:
        """The groups whose pods are meant, asked one by one."""
        return np.fromiter((means(pod) for pod in self.pods), np.bool_, len(self.pods))

    def naming(self, name: str, protocol: api.Protocol, port: int) -> Bools:
        """The groups in whose pods a name stands for this port; each list of names is asked once."""
        wanted = NamedPort(name, protocol, port)
        found: Bools = np.array([wanted in ports for ports in self._named], np.bool_)[self._ports] & self._own_network
        return found

    def selected(self, pods: Pods) -> Bools:
        """The groups that a selector means."""
        if pods.namespace:
            found = np.zeros(len(self.pods), np.bool_)
            place = self.places.get(pods.namespace)
            if place is not None:
                found[place] = self._labelled(pods.pods)[place]
        else:
            found = self._in_namespaces(pods.namespaces) & self._labelled(pods.pods)
        return found if pods.host_network else found & self._own_network

    def _in_namespaces(self, selector: api.LabelSelector) -> Bools:
        key = ("namespaces", _selector_key(selector))
        if key not in self._selected:
            self._selected[key] = found = np.zeros(len(self.pods), np.bool_)
            for namespace, place in self.places.items():
                found[place] = selector.matches(self._policies.namespace(namespace))
        return self._selected[key]

    def _labelled(self, selector: api.LabelSelector) -> Bools:
        """The groups whose labels a selector matches, wherever they are: all that it asks for must hold."""
        key = _selector_key(selector)
        if key not in self._selected:
            found = ~self._none
            for pair in selector.match_labels.items():
                found &= self._with_pair.get(pair, self._none)
            for each in selector.match_expressions:
                found &= self._expressed(each)
            self._selected[key] = found
        return self._selected[key]

    def _expressed(self, each: LabelSelectorRequirement) -> Bools:
        match each.operator:
            case Operator.IN:
                return self._one_of(each)
            case Operator.NOT_IN:
                return ~self._one_of(each)
            case Operator.EXISTS:
                return self._with_key.get(each.key, self._none)
            case Operator.DOES_NOT_EXIST:
                return ~self._with_key.get(each.key, self._none)

    def _one_of(self, each: LabelSelectorRequirement) -> Bools:
        found = self._none.copy()
        for value in each.values:
            found |= self._with_pair.get((each.key, value), self._none)
        return found


def _selector_key(selector: api.LabelSelector) -> Hashable:
    """The selector as something that can be looked up."""
    return (
        tuple(sorted(selector.match_labels.items())),
        tuple((each.key, each.operator, each.values) for each in selector.match_expressions),
    )


def _families(pod: Endpoint) -> tuple[int, ...]:
    return tuple([6 if ":" in each else 4 for each in pod.addresses])


# --- pods by their addresses ------------------------------------------------------------------------------------------

_LOW = (1 << 64) - 1


def _in_blocks(blocks: Sequence[Block], pods: Sequence[Endpoint]) -> Bools:
    """Blocks × pods: whose address is in which block, and may be meant by it."""
    found = np.zeros((len(blocks), len(pods)), np.bool_)
    if not blocks:
        return found
    own_network = np.fromiter((not pod.host_network for pod in pods), np.bool_, len(pods))
    held = {of: _addresses([pod.address(of) for pod in pods], of) for of in {block.prefix.family for block in blocks}}
    for row, block in zip(found, blocks, strict=True):
        row |= held[block.prefix.family].within(block.prefix.base, block.prefix.mask)
        for hole in block.holes:
            if hole.family == block.prefix.family:
                row &= ~held[hole.family].within(hole.base, hole.mask)
        row &= np.where(own_network, block.pods, block.nodes)
    return found


class _Addresses(NamedTuple):
    """One address a pod, as two halves of 64 bits, and whether the pod has one."""

    high: NDArray[np.uint64]
    low: NDArray[np.uint64]
    there: Bools

    def within(self, base: int, mask: int) -> Bools:
        """Which are in the block."""
        high = (self.high & np.uint64(mask >> 64)) == np.uint64(base >> 64)
        low = (self.low & np.uint64(mask & _LOW)) == np.uint64(base & _LOW)
        found: Bools = self.there & high & low
        return found


def _addresses(texts: Sequence[str], of: int) -> _Addresses:
    numbers = [number(each.partition("%")[0]) if each else 0 for each in texts]
    there = np.array([each != "" for each in texts], np.bool_)
    low = np.array([each & _LOW for each in numbers], np.uint64)
    high = np.array([each >> 64 for each in numbers], np.uint64) if of == 6 else np.zeros_like(low)
    return _Addresses(high, low, there)
