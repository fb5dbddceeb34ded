"""Who may talk to whom, all pods with all pods?

The verdicts of `engine`, for every pair of pods at once and a few ports. Asking ten thousand pods one by one would take
an hour; the matrix asks what pods can be told apart by (`classes`), and works on sets of classes, 64 to a machine word:

1. What a rule means at the other end is a row of bits: the union of its peers' columns.
2. The pods that the same policies select are one *group* a direction. What the group may send to, or hear from, is a
   row of bits too: the union of the rows of its rules, with the tiers of ClusterNetworkPolicies before and after.
3. A connection needs both ends: the egress row of the source's group has the destination's class, and the ingress row
   of the destination's group has the source's.

A port of a rule that is a name is one more column of the destination. A flow has one family, the first of the source's
that the destination has too, and blocks of addresses of the other family are left out of the rows.

What is about two pods and not about their classes comes last: a pod reaches itself, and a node its own pods. `allowed`
is about pods that stand apart; `expanded`, `reaches` and the queries know all of it.

The matrix is what the policies say. Whether packets arrive, and somebody listens, is for a trace. Ends that are no pods
are asked for one by one, of `engine`. Guide section 4.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import msgspec
import numpy as np
from numpy.typing import NDArray

from k8snetlab import api
from k8snetlab.address import family
from k8snetlab.errors import BadOption, Problem, UnknownName
from k8snetlab.policies.classes import Bools, Columns, Indexes, PodClasses, distinct
from k8snetlab.policies.engine import PolicyVerdict, same_node, transport, verdict
from k8snetlab.policies.plan import EGRESS, INGRESS, Direction, Endpoint, Policies, Policy, RuleAction, Tier

if TYPE_CHECKING:
    from k8snetlab.policies.changes import ReachDifference

__all__ = ["AskedPort", "PodClass", "Port", "Reach", "asked_port", "reach"]

Bits: TypeAlias = NDArray[np.uint64]
"""Rows of bits, one a class, 64 in a word."""
Packed: TypeAlias = NDArray[np.uint8]
"""Rows of bits, 8 in a byte, the first in the lowest place: `numpy.unpackbits(…, bitorder="little")`."""

_BLOCK = 256
"""How many rows are worked on at a time: enough to be fast, few enough to stay in the processor's cache."""


class Port(NamedTuple):
    """A port of the destination, written `80/TCP`."""

    number: int
    protocol: api.Protocol

    def __str__(self) -> str:
        return f"{self.number}/{self.protocol}"


AskedPort: TypeAlias = str | int | Port
"""A port as people say it: `80/TCP`, `53/UDP`, `80` or 80."""


def asked_port(written: AskedPort) -> Port:
    """`80/TCP`, `53/UDP`, `80` or 80. Raises `BadOption`.

    >>> str(asked_port("80"))
    '80/TCP'
    """
    number, _, protocol = str(written).partition("/")
    if not number.isdecimal() or not number.isascii() or not 1 <= int(number) <= 65535:
        raise BadOption(Problem(f"{written!r} is no port such as 80, 80/TCP or 53/UDP", field="port"))
    return Port(int(number), transport(protocol or "TCP"))


class PodClass(NamedTuple):
    """Pods that all policies treat alike, at the ports that were asked about. `pods` are `NAMESPACE/NAME`."""

    id: int
    pods: tuple[str, ...]

    def __str__(self) -> str:
        more = f" and {len(self.pods) - 1} more" if len(self.pods) > 1 else ""
        return f"{self.pods[0]}{more}"


class Reach(msgspec.Struct, frozen=True, eq=False, dict=True):
    """Which pods may open connections to which, at some ports. Make one with `reach` or `Cluster.reach`."""

    policies: Policies
    ports: tuple[Port, ...]
    of: int | None
    grouped: PodClasses
    halves: Mapping[tuple[Port, int], tuple[_Half, _Half]]
    kinds: _Kinds

    # What was asked

    @cached_property
    def pods(self) -> tuple[str, ...]:
        """The pods in the order of rows and columns of `expanded`."""
        return tuple(each.name for each in self.policies.endpoints)

    @cached_property
    def classes(self) -> tuple[PodClass, ...]:
        """The pods by class, in the order of rows and columns of `allowed`."""
        members: list[list[str]] = [[] for _ in self.grouped.first]
        for name, of_pod in zip(self.pods, self.grouped.of_pod.tolist(), strict=True):
            members[of_pod].append(name)
        return tuple(PodClass(index, tuple(names)) for index, names in enumerate(members))

    @cached_property
    def sizes(self) -> Indexes:
        """How many pods each class has."""
        return np.bincount(self.grouped.of_pod, minlength=len(self.grouped.first)).astype(np.intp)

    def class_of(self, pod: str) -> PodClass:
        """The class of a pod. Raises `UnknownName`."""
        return self.classes[int(self.grouped.of_pod[self._index(pod)])]

    # The answer

    def allowed(self, port: AskedPort) -> Bools:
        """Whether the pods of a class (row) may open connections to those of another (column): for two pods that stand
        apart, not on one node where one of them uses the node's network. A class of one pod may, as it reaches itself.
        """
        return _unpacked(self._by_class(self.port(port)), len(self.sizes))

    def expanded(self, port: AskedPort) -> Packed:
        """The same, pod by pod, 8 pods to a byte: `numpy.unpackbits(…, axis=1, count=len(pods), bitorder="little")`.
        Rows are sources. Everything counts: a pod reaches itself, and a node its own pods.
        """
        asked, of_pod, count = self.port(port), self.grouped.of_pod, len(self.pods)
        by_class = self._by_class(asked)
        rows = np.empty((len(by_class), -(-count // 8)), np.uint8)
        for begin in range(0, len(by_class), _BLOCK):
            some = _unpacked(by_class[begin : begin + _BLOCK], len(by_class))
            rows[begin : begin + _BLOCK] = np.packbits(some.take(of_pod, axis=1), axis=1, bitorder="little")
        found = rows[of_pod]
        here, there = self._near(asked)
        np.bitwise_or.at(found, (here, there >> 3), np.left_shift(1, there & 7).astype(np.uint8))
        return found

    def matrix(self, port: AskedPort) -> Bools:
        """The same, pod by pod, one pod to a byte: for clusters of a few thousand pods."""
        return _unpacked(self.expanded(port), len(self.pods))

    def reaches(self, source: str, destination: str, port: AskedPort) -> bool:
        """Whether one pod may open a connection to another. Raises `UnknownName` and `BadOption`."""
        here, there = self._index(source), self._index(destination)
        asked = self.port(port)
        row, column = self.grouped.of_pod[here], self.grouped.of_pod[there]
        if self._by_class(asked)[row, column >> 3] >> (column & 7) & 1:
            return True
        near = self._near(asked)
        return bool(((near[0] == here) & (near[1] == there)).any())

    def why(self, source: str, destination: str, port: AskedPort) -> PolicyVerdict:
        """The verdict on one pair, with its reason and the rule that decided."""
        asked = asked_port(port)
        return verdict(self.policies, source, destination, asked.number, asked.protocol, of=self.of)

    def sources_of(self, pod: str, port: AskedPort) -> tuple[str, ...]:
        """The other pods that may open connections to this one."""
        return self._others(pod, port, to=True)

    def targets_of(self, pod: str, port: AskedPort) -> tuple[str, ...]:
        """The other pods that this one may open connections to."""
        return self._others(pod, port, to=False)

    def isolated(self, direction: Direction = INGRESS) -> tuple[str, ...]:
        """The pods that a NetworkPolicy closes in a direction, but for what its rules let through."""
        closed = self.halves[self.ports[0], _first_family(self.halves)][direction is INGRESS].isolated
        return tuple(name for name, each in zip(self.pods, closed[self.grouped.of_pod], strict=True) if each)

    def counted(self, group_of_pod: Indexes, port: AskedPort) -> NDArray[np.int64]:
        """How many pairs of two different pods may connect, between groups of pods: `group_of_pod` has the number of
        each pod's group, from 0. Rows are sources.
        """
        asked, of_pod, groups = self.port(port), self.grouped.of_pod, int(group_of_pod.max(initial=-1)) + 1
        by_class = self._by_class(asked)
        held = np.zeros((groups, len(by_class)), np.float64)
        np.add.at(held, (group_of_pod, of_pod), 1)
        found = np.zeros((groups, groups), np.float64)
        for begin in range(0, len(by_class), _BLOCK):
            some = slice(begin, begin + _BLOCK)
            found += held[:, some] @ (_unpacked(by_class[some], len(by_class)) @ held.T)
        themselves = _diagonal(by_class)[of_pod]
        np.subtract.at(found, (group_of_pod[themselves], group_of_pod[themselves]), 1)
        here, there = self._near(asked)
        apart = here != there
        np.add.at(found, (group_of_pod[here[apart]], group_of_pod[there[apart]]), 1)
        return found.astype(np.int64)

    def pairs(self, port: AskedPort) -> tuple[int, int]:
        """How many pairs of two different pods may connect, and how many pairs there are."""
        count = len(self.pods)
        return int(self.counted(np.zeros(count, np.intp), port).sum()), count * (count - 1)

    def near(self, port: AskedPort) -> tuple[tuple[str, str], ...]:
        """Pairs of pods that may connect although their classes may not, because one uses the network of the other's
        node. A pod and itself are not said.
        """
        here, there = self._near(self.port(port))
        return tuple((self.pods[a], self.pods[b]) for a, b in zip(here, there, strict=True) if a != b)

    def diff(self, other: Reach) -> ReachDifference:
        """What `other` allows and this does not, and the other way round, with a flow that shows each change. Raises
        `BadOption` where they were asked about different ports.
        """
        from k8snetlab.policies.changes import difference

        return difference(self, other)

    # Told

    def as_dict(self, *, expand: bool = False) -> dict[str, Any]:
        """Plain data: pod by pod up to 1,000 pods or with `expand`, else by class."""
        from k8snetlab.policies.report import as_dict

        return as_dict(self, expand=expand)

    def csv(self, *, expand: bool = False) -> str:
        """A row for each port and source, a column for each destination, `1` or `0`."""
        from k8snetlab.policies.report import as_csv

        return as_csv(self, expand=expand)

    def __str__(self) -> str:
        from k8snetlab.policies.report import as_text

        return as_text(self)

    def __repr__(self) -> str:
        ports = ", ".join(map(str, self.ports))
        return f"<Reach {len(self.pods):,} pods in {len(self.sizes):,} classes at {ports}>"

    # How

    def _index(self, pod: str) -> int:
        if pod not in self._places:
            raise UnknownName("pod", pod, self.pods)
        return self._places[pod]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: index for index, name in enumerate(self.pods)}

    def port(self, written: AskedPort) -> Port:
        """One of the ports that were asked about. Raises `UnknownName` for another."""
        asked = asked_port(written)
        if asked not in self.ports:
            raise UnknownName("port among those asked about:", str(asked), map(str, self.ports))
        return asked

    @cached_property
    def _known(self) -> dict[Port, Packed]:
        return {}

    def _by_class(self, port: Port) -> Packed:
        """The verdicts by class, packed."""
        if port not in self._known:
            self._known[port] = self._combined(port)
        return self._known[port]

    def _combined(self, port: Port) -> Packed:
        """Egress and ingress, each in the family that the two classes use."""
        codes = [code for code in self.kinds.codes() if code in (4, 6)]
        found = self.kinds.chosen({code: self._of_family(port, code) for code in codes})
        single = np.flatnonzero(self.sizes == 1)
        single = single[self.kinds.pairs(single, single) != NO_FAMILY]
        found[single, single >> 3] |= np.left_shift(1, single & 7).astype(np.uint8)
        return found

    def _of_family(self, port: Port, code: int) -> Packed:
        egress, ingress = self.halves[port, code]
        opened = _turned(ingress.rows[ingress.group].view(np.uint8))[: len(self.sizes)]
        opened &= egress.rows[egress.group].view(np.uint8)[:, : opened.shape[1]]
        return opened

    def _near(self, port: Port) -> tuple[Indexes, Indexes]:
        """The pairs of pods, by their places, that are allowed although their classes are not."""
        if port not in self._known_near:
            self._known_near[port] = self._found_near(port)
        return self._known_near[port]

    @cached_property
    def _known_near(self) -> dict[Port, tuple[Indexes, Indexes]]:
        return {}

    def _found_near(self, port: Port) -> tuple[Indexes, Indexes]:
        of_pod, by_class = self.grouped.of_pod, self._by_class(port)
        pairs = [pair for pair in self._neighbours if self._passes(port, *pair)]
        themselves = np.arange(len(self.pods))
        here = np.concatenate((themselves, np.array([pair[0] for pair in pairs], np.intp)))
        there = np.concatenate((themselves, np.array([pair[1] for pair in pairs], np.intp)))
        row, column = of_pod[here], of_pod[there]
        common = self.kinds.pairs(row, column) != NO_FAMILY
        new = common & ((by_class[row, column >> 3] >> (column & 7) & 1) == 0)
        return here[new], there[new]

    @cached_property
    def _neighbours(self) -> tuple[tuple[int, int], ...]:
        """Pods of one node, of which one uses the node's network, in both orders."""
        hosts: dict[str, list[int]] = {}
        for index, pod in enumerate(self.policies.endpoints):
            if pod.host_network and pod.node:
                hosts.setdefault(pod.node, []).append(index)
        return tuple(
            pair
            for index, pod in enumerate(self.policies.endpoints)
            for host in hosts.get(pod.node, ())
            if host != index
            for pair in ({(host, index), (index, host)} if not pod.host_network else {(host, index)})
        )

    def _passes(self, port: Port, here: int, there: int) -> bool:
        """Whether the policies of the end that is asked let two pods of one node connect."""
        choices, pods = self.policies.choices, self.policies.endpoints
        source, destination = pods[here], pods[there]
        if source.host_network and destination.host_network:
            return True
        row, column = int(self.grouped.of_pod[here]), int(self.grouped.of_pod[there])
        code = int(self.kinds.pairs(row, column))
        if code not in (4, 6):
            return False
        egress, ingress = self.halves[port, code]
        leaves = (choices.pod_to_own_node and same_node(source, destination)) or egress.has(row, column)
        enters = (choices.own_node_to_pod and same_node(destination, source)) or ingress.has(column, row)
        return leaves and enters

    def _others(self, pod: str, port: AskedPort, *, to: bool) -> tuple[str, ...]:
        index, asked = self._index(pod), self.port(port)
        by_class, own = self._by_class(asked), self.grouped.of_pod[index]
        if to:
            meant = (by_class[:, own >> 3] >> (own & 7) & 1).astype(np.bool_)
        else:
            meant = _unpacked(by_class[own : own + 1], len(self.sizes))[0]
        found = meant[self.grouped.of_pod]
        here, there = self._near(asked)
        found[(here if to else there)[(there if to else here) == index]] = True
        found[index] = False
        return tuple(self.pods[each] for each in np.flatnonzero(found))


# --- bits -------------------------------------------------------------------------------------------------------------


def _words(rows: Bools) -> Bits:
    """Rows of booleans as rows of bits, in whole words."""
    count = rows.shape[1]
    packed = np.zeros((len(rows), -(-count // 64) * 8), np.uint8)
    packed[:, : -(-count // 8)] = np.packbits(rows, axis=1, bitorder="little")
    return packed.view(np.uint64)


def _turned(rows: Packed) -> Packed:
    """The bits with rows and columns exchanged; bits that no row has are 0.

    Squares of 8 × 8 bits, each in one word, are turned in themselves: their single bits, then their squares of 2 × 2,
    then those of 4 × 4 change places. The squares then change places as a whole.
    """
    count, size = rows.shape
    squares = np.zeros((-(-count // 8), 8, size), np.uint8)
    squares.reshape(-1, size)[:count] = rows
    words = np.ascontiguousarray(squares.transpose(0, 2, 1)).view("<u8")
    for shift, mask in ((7, 0x00AA00AA00AA00AA), (14, 0x0000CCCC0000CCCC), (28, 0x00000000F0F0F0F0)):
        moved = (words ^ (words >> np.uint64(shift))) & np.uint64(mask)
        words ^= moved ^ (moved << np.uint64(shift))
    return np.ascontiguousarray(words.view(np.uint8).transpose(1, 2, 0)).reshape(size * 8, len(squares))


def _unpacked(rows: Packed, count: int) -> Bools:
    return np.unpackbits(rows, axis=1, count=count, bitorder="little").view(np.bool_)


def _diagonal(rows: Packed) -> Bools:
    index = np.arange(len(rows))
    found: Bools = (rows[index, index >> 3] >> (index & 7).astype(np.uint8) & 1).astype(np.bool_)
    return found


def _united(rows: Bits, target: Indexes, member: Indexes, count: int) -> Bits:
    """For each of `count` targets the union of its members' rows. `target` ascends; `member` names a row for each.

    The first members of all targets are joined at once, then the second ones, and so on.
    """
    found = np.zeros((count, rows.shape[1]), np.uint64)
    many = np.bincount(target, minlength=count)
    begin = np.concatenate(([0], np.cumsum(many)[:-1])) if count else many
    order = np.argsort(-many, kind="stable")
    for rank in range(int(many.max(initial=0))):
        some = order[: np.count_nonzero(many > rank)]
        found[some] |= rows[member[begin[some] + rank]]
    return found


# --- families ---------------------------------------------------------------------------------------------------------

NO_FAMILY, UNENFORCED = 0, 1
"""What two pods have in common if it is neither 4 nor 6: nothing; a family that the network plugin does not look at."""


class _Kinds(NamedTuple):
    """Which family two classes use: `kind` has the sort of each class (which families, in which order), `table` the
    family for each two sorts.
    """

    kind: Indexes
    table: NDArray[np.uint8]

    def codes(self) -> tuple[int, ...]:
        return tuple(int(code) for code in np.unique(self.table))

    def pairs(self, row: Indexes | int, column: Indexes | int) -> NDArray[np.uint8]:
        found: NDArray[np.uint8] = self.table[self.kind[row], self.kind[column]]
        return found

    def chosen(self, by_family: Mapping[int, Packed]) -> Packed:
        """For each two classes the verdict of the family that they use."""
        if self.table.size == 1 and by_family:
            return next(iter(by_family.values()))
        found = np.zeros((len(self.kind), -(-len(self.kind) // 8)), np.uint8)
        for code in self.codes():
            if code != NO_FAMILY:
                those = np.packbits((self.table == code)[:, self.kind], axis=1, bitorder="little")[self.kind]
                found |= those & by_family[code] if code in by_family else those
        return found


def _families(policies: Policies, first: Sequence[Endpoint], of: int | None) -> _Kinds:
    sorts: dict[tuple[int, ...], int] = {}
    pods: list[Endpoint] = []
    kind = np.empty(len(first), np.intp)
    for index, pod in enumerate(first):
        had = tuple(family(each) for each in pod.addresses)
        kind[index] = sorts.setdefault(had, len(sorts))
        if len(pods) < len(sorts):
            pods.append(pod)
    table = np.array([[_family(policies, here, there, of) for there in pods] for here in pods], np.uint8)
    return _Kinds(kind, table.reshape(len(pods), len(pods)))


def _family(policies: Policies, here: Endpoint, there: Endpoint, of: int | None) -> int:
    """The family that two pods use, as the engine chooses it."""
    try:
        flow = policies.flow(here, there, 1, api.Protocol.TCP, of)
    except BadOption:
        return NO_FAMILY
    if not policies.choices.enforced:
        return UNENFORCED
    used = flow.source_address or flow.destination_address
    if not used:
        return of or 4  # neither has an address, so no block means either, in any family
    return family(used) if family(used) in policies.choices.families else UNENFORCED


def _first_family(halves: Mapping[tuple[Port, int], object]) -> int:
    return next(iter(halves))[1]


# --- one end ----------------------------------------------------------------------------------------------------------


class _Half(NamedTuple):
    """What one end allows at one port: `rows` has for each group of subjects the classes that may be at the other end,
    `group` the group of each class, `isolated` which classes a NetworkPolicy closes.
    """

    rows: Bits
    group: Indexes
    isolated: Bools

    def has(self, subject: int, other: int) -> bool:
        """Whether one class may, seen from another."""
        row = self.rows[self.group[subject]].view(np.uint8)
        return bool(row[other >> 3] >> (other & 7) & 1)


class _Line(NamedTuple):
    """A rule that is about some of the ports asked for: the columns of its peers, and for each port whether it means
    its number (None), or the columns of the names it gives (empty: not at all).
    """

    action: RuleAction
    peers: tuple[int, ...]
    ports: tuple[tuple[int, ...] | None, ...]


class _Side:
    """All policies of one direction, read into columns."""

    def __init__(self, policies: Policies, direction: Direction, ports: Sequence[Port], columns: Columns) -> None:
        self.direction = direction
        self.policies = policies.of(direction)
        self.subjects = [columns.of_pods(each.subject) for each in self.policies]
        self.lines = [tuple(_lines(each, ports, columns)) for each in self.policies]

    def names(self) -> tuple[int, ...]:
        """The columns of all names of ports."""
        found = {column for lines in self.lines for line in lines for names in line.ports for column in names or ()}
        return tuple(sorted(found))


def _lines(policy: Policy, ports: Sequence[Port], columns: Columns) -> Iterator[_Line]:
    for rule in policy.rules:
        meant: list[tuple[int, ...] | None] = []
        for port in ports:
            fitting = [each for each in rule.ports if each.protocol in (None, port.protocol)]
            if any(not each.name and each.first <= port.number <= each.last for each in fitting):
                meant.append(None)
            else:
                names = (columns.of_name(each.name, port.protocol, port.number) for each in fitting if each.name)
                meant.append(tuple(dict.fromkeys(names)))
        if any(each is None or each for each in meant):
            peers = [columns.of_peer(peer) for peer in rule.peers]
            yield _Line(rule.action, tuple({each for each in peers if each is not None}), tuple(meant))


class _Judge:
    """One direction, with the classes known: gives the half of each port and family."""

    def __init__(self, side: _Side, classes: PodClasses) -> None:
        self._side = side
        self._classes = classes
        subjects = classes.columns[side.subjects]
        # Whether a name is a port's is asked of the destination: at the ingress end that is the subject.
        named = classes.columns[list(side.names())] if side.direction is INGRESS else subjects[:0]
        self.group, self._first = distinct(np.packbits(np.concatenate((subjects, named)), axis=0).T)
        self._selected = subjects[:, self._first]
        own = np.array([each.isolates for each in side.policies], np.bool_)
        self._isolated: Bools = np.logical_or.reduce(self._selected[own], axis=0)
        self._lines = [line for lines in side.lines for line in lines]
        self._begin = np.cumsum([0, *(len(lines) for lines in side.lines)])
        self._pairs = self._rules_by_group(own)

    def _rules_by_group(self, own: Bools) -> tuple[Indexes, Indexes]:
        """The groups, and the rules of the NetworkPolicies that select them; groups ascend."""
        chosen = self._selected & own[:, None]
        group, policy = np.nonzero(chosen.T)
        count = np.diff(self._begin)[policy] if len(policy) else policy
        skipped = np.cumsum(count) - count
        rule = np.repeat(self._begin[policy] - skipped, count) + np.arange(int(count.sum()))
        return np.repeat(group, count), rule

    def peers(self, columns: Bits) -> Bits:
        """For each rule the classes of its peers; `columns` has the classes of each column, in one family."""
        peers = [line.peers for line in self._lines]
        target = np.repeat(np.arange(len(peers)), [len(each) for each in peers])
        return _united(columns, target, np.array([each for some in peers for each in some], np.intp), len(peers))

    def half(self, port: int, peers: Bits) -> _Half:
        """What this end allows at one of the ports. `peers` has the classes that each rule means."""
        meant = [line.ports[port] for line in self._lines]
        numbers = np.array([each is None for each in meant], np.bool_)
        names = {each: index for index, each in enumerate(dict.fromkeys(each for each in meant if each))}
        name = np.array([names.get(each, -1) if each else -1 for each in meant], np.intp)
        classes = np.zeros((len(names), len(self.group)), np.bool_)
        for columns, index in names.items():
            classes[index] = self._classes.columns[list(columns)].any(axis=0)
        if self._side.direction is INGRESS:
            asked = _Asked(peers, numbers, name, classes[:, self._first])
        else:
            peers = peers.copy()
            by_name = name >= 0
            peers[by_name] &= _words(classes)[name[by_name]]
            asked = _Asked(peers, numbers | by_name, np.full(len(meant), -1), classes[:, self._first])
        return _Half(self._rows(asked), self.group, self._isolated[self.group])

    def _rows(self, asked: _Asked) -> Bits:
        group, rule = self._pairs
        fits = asked.fits(rule, group)
        rows = _united(asked.peers, group[fits], rule[fits], len(self._first))
        accepted, denied = self._tier(Tier.BASELINE, asked)
        rows[~self._isolated] = ~denied[~self._isolated]
        accepted, denied = self._tier(Tier.ADMIN, asked)
        return accepted | (rows & ~denied)

    def _tier(self, tier: Tier, asked: _Asked) -> tuple[Bits, Bits]:
        """What the rules of a tier accept and deny for each group: the first that matches counts."""
        shape = (len(self._first), asked.peers.shape[1])
        accepted, denied, undecided = (
            np.zeros(shape, np.uint64),
            np.zeros(shape, np.uint64),
            ~np.zeros(shape, np.uint64),
        )
        for index, policy in enumerate(self._side.policies):
            if policy.tier is not tier:
                continue
            groups = np.flatnonzero(self._selected[index])
            for rule in range(self._begin[index], self._begin[index + 1]):
                some = groups[asked.fits(np.full(len(groups), rule), groups)]
                matched = undecided[some] & asked.peers[rule]
                undecided[some] ^= matched
                if self._lines[rule].action is RuleAction.ACCEPT:
                    accepted[some] |= matched
                elif self._lines[rule].action is RuleAction.DENY:
                    denied[some] |= matched
        return accepted, denied


class _Asked(NamedTuple):
    """One port: the classes that each rule means there, whether the rule is about it whoever the subject is, else the
    names by which it may be, and which groups have these.
    """

    peers: Bits
    always: Bools
    name: Indexes
    named: Bools

    def fits(self, rule: Indexes, group: Indexes) -> Bools:
        """Whether rules are about the port, each for a group."""
        found = self.always[rule]
        if len(self.named):
            found = found | ((self.name[rule] >= 0) & self.named[self.name[rule], group])
        return found


# --- all together -----------------------------------------------------------------------------------------------------


def reach(policies: Policies, ports: Iterable[AskedPort], *, of: int | None = None) -> Reach:
    """All pods with all pods, at these ports (`80/TCP`, `53/UDP`, `80`), in one family (4 or 6) or in the one that each
    two would use. Raises `BadOption`.
    """
    asked = tuple(dict.fromkeys(asked_port(port) for port in ports))
    if not asked:
        raise BadOption(Problem("say at least one port, such as 80/TCP", field="port"))
    columns = Columns(policies)
    sides = tuple(_Side(policies, direction, asked, columns) for direction in (EGRESS, INGRESS))
    classes = columns.classes()
    kinds = _families(policies, [policies.endpoints[index] for index in classes.first], of)
    egress, ingress = (_Judge(side, classes) for side in sides)
    halves: dict[tuple[Port, int], tuple[_Half, _Half]] = {}
    for code in sorted({code for code in kinds.codes() if code in (4, 6)} or {4}):
        rows = _words(classes.columns)
        rows[[column for column, block in columns.blocks.items() if block.prefix.family != code]] = 0
        leaving, entering = egress.peers(rows), ingress.peers(rows)
        for index, port in enumerate(asked):
            halves[port, code] = egress.half(index, leaving), ingress.half(index, entering)
    return Reach(policies, asked, of, classes, halves, kinds)
