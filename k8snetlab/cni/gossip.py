"""How do machines without a master know each other, and the way?

Every machine of a Weave mesh opens a TCP connection (port 6783) to every other that it hears of, and tells its
neighbours what it knows: which machines there are, and who is connected with whom. Such *gossip* reaches everybody
after as many rounds as the mesh is wide (`heard`). From what it knows, each machine computes by itself the shortest way
to each other; where two cannot connect (a firewall between them), the way leads by a third that relays the frames
(`next_hops`). Machines between which no way is left are not reached at all.

Of several ways of one length the one by the machine that joined first is taken here; which a real one takes is unsure.

Not modelled: the order in which news arrive, connections that only one side could establish, the limit of 200
connections a machine. Guide section 3.1; Weave Net 2.8.1 (archived in 2024).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from k8snetlab.errors import BadOption, Problem

__all__ = ["Mesh", "heard", "links", "mesh", "next_hops"]


class Mesh(msgspec.Struct, frozen=True):
    """The machines in the order they joined, and the pairs of them that cannot connect."""

    machines: tuple[str, ...]
    down: frozenset[frozenset[str]] = frozenset()

    def connected(self, one: str, other: str) -> bool:
        """Whether the two have a connection."""
        return one != other and frozenset((one, other)) not in self.down


def links(words: str) -> tuple[tuple[str, str], ...]:
    """`node-1:node-2,node-2:node-3` as pairs. Raises `BadOption`.

    >>> links("node-1:node-2")
    (('node-1', 'node-2'),)
    """
    found = []
    for word in filter(None, words.split(",")):
        one, colon, other = word.strip().partition(":")
        if not colon or not one or not other or one == other:
            message = f"{word!r} is no pair of nodes, such as node-1:node-2; several stand with commas"
            raise BadOption(Problem(message, object="CNI weave", field="links_down"))
        found.append((one, other))
    return tuple(found)


def mesh(machines: Iterable[str], down: Iterable[tuple[str, str]] = ()) -> Mesh:
    """The mesh of these machines without these connections. Raises `BadOption` for a machine that there is not."""
    there = tuple(machines)
    pairs = tuple(down)
    unknown = sorted({name for pair in pairs for name in pair if name not in there})
    if unknown:
        message = f"there is no node {unknown[0]}; there are {', '.join(there)}"
        raise BadOption(Problem(message, object="CNI weave", field="links_down"))
    return Mesh(there, frozenset(map(frozenset, pairs)))


def heard(of: Mesh) -> tuple[Mapping[str, frozenset[frozenset[str]]], ...]:
    """What gossip tells: after each round, the connections that each machine knows of. At first it knows its own; the
    last round is the one that brings no news.
    """
    own = {
        name: frozenset(frozenset((name, other)) for other in of.machines if of.connected(name, other))
        for name in of.machines
    }
    rounds = [own]
    while True:
        before = rounds[-1]
        after = {
            name: before[name].union(*(before[other] for other in of.machines if of.connected(name, other)))
            for name in of.machines
        }
        if after == before:
            return tuple(rounds)
        rounds.append(after)


def next_hops(of: Mesh, own: str) -> dict[str, str]:
    """The neighbour that leads to each machine, for those that can be reached: the shortest way, breadth first.

    >>> next_hops(mesh(["a", "b", "c"], [("a", "c")]), "a")
    {'b': 'b', 'c': 'b'}
    """
    found: dict[str, str] = {}
    left = [name for name in of.machines if name != own]
    edge = [own]
    while edge and left:
        further = []
        for at in edge:
            near = [name for name in left if of.connected(at, name)]
            left = [name for name in left if name not in near] if of.down else []
            for name in near:
                found[name] = found.get(at, name)
            further += near
        edge = further
    return {name: found[name] for name in _in_order(of, found)}


def _in_order(of: Mesh, found: Mapping[str, str]) -> Iterator[str]:
    return (name for name in of.machines if name in found)
