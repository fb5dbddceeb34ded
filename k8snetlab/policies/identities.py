"""Which numbers does a policy mean?

Selectors mean identities, and blocks of addresses are identities too (`maps` says why). `Identities` has the numbers of
a cluster; a `Clause` is what a policy says about one pod, in numbers: whose traffic, to which ports, and what becomes
of it. Ports are prefixes of their numbers.

Guide section 4.1; Cilium 1.19.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import NamedTuple

import msgspec

from k8snetlab.address import Prefix
from k8snetlab.api.cilium import NAMESPACE
from k8snetlab.linux.datapath import LOCAL, PORT_BITS, UNKNOWN, WORLDS, Datapath, Wanted
from k8snetlab.policies.plan import EGRESS, INGRESS, Anyone, Block, Endpoint, Peer, Pods, Policies, Ports

__all__ = ["Clause", "Identities", "Stretch", "identities", "stretches", "prefixes", "spread"]

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
            yield from self.inside(peer)

    def inside(self, block: Block) -> Iterator[int]:
        """The identities of what is in a block of addresses."""
        held = tuple(prefixes(block))
        yield from (number for each, number in self.blocks.items() if any(part.covers(each) for part in held))
        yield from (self.worlds[part.family] for part in held if not part.length and part.family in self.worlds)

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


def identities(policies: Policies, datapath: Datapath, more: Iterable[Block] = ()) -> Identities:
    """The numbers of a cluster, as any of its machines knows them; `more` are the blocks of Cilium's own policies.
    Blocks of a family that the machine's cache does not have are left out.
    """
    worlds = {of: each.identity for each in datapath.known for of in ALL if each.prefix == ALL[of]}
    taken = {Prefix.of(each.prefix) for each in datapath.known if each.identity not in WORLDS}
    blocks = {
        part
        for block in (*_blocks(policies), *more)
        for part in prefixes(block)
        if part.length and part.family in worlds
    }
    numbered = {block: LOCAL + at for at, block in enumerate(sorted(blocks - taken), 1)}
    pods = {number: endpoint for number, labels in datapath.labels.items() if (endpoint := _endpoint(number, labels))}
    return Identities(policies, pods, numbered, worlds)


def _blocks(policies: Policies) -> Iterator[Block]:
    for direction in (INGRESS, EGRESS):
        for policy in policies.of(direction):
            for rule in policy.rules:
                yield from (peer for peer in rule.peers if isinstance(peer, Block))


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


class Stretch(NamedTuple):
    """A stretch of ports: of one protocol (empty: all), those that begin with `bits` bits of `port` (0: all)."""

    protocol: str = ""
    port: int = 0
    bits: int = PORT_BITS


class Clause(NamedTuple):
    """What a policy says about one pod in a direction: traffic with these identities and ports is allowed or denied,
    and where `requests` is said, only such requests pass.
    """

    policy: str
    identities: tuple[int, ...]
    ports: tuple[Stretch, ...]
    deny: bool = False
    requests: tuple[Wanted, ...] | None = None


def stretches(ports: Ports, own: Endpoint) -> Iterator[Stretch]:
    """Ports as prefixes. Names are those of the pod itself."""
    protocol = str(ports.protocol or "")
    if ports.name:
        for each in own.ports:
            if each.name == ports.name and ports.protocol in (None, each.protocol):
                yield Stretch(str(each.protocol), each.number)
    elif ports.every:
        yield Stretch(protocol)
    else:
        yield from (Stretch(protocol, port, bits) for port, bits in spread(ports.first, ports.last))
