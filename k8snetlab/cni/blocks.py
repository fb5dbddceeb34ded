"""Which block does a pod's address come from?

Calico does not follow `node.spec.podCIDR`. Its IPAM cuts the pool of the whole cluster into blocks, /26 in IPv4 and
/122 in IPv6: 64 addresses each. A node that needs an address claims a block, which then has an *affinity* to it; when
the block is full the node claims another, wherever one is free. Only when the pool has no free block left does a node
*borrow*: it takes an address out of a block of another node, unless `StrictAffinity` forbids it. Blocks are what nodes
tell each other about: one route for 64 pods, and one more, of a single address, for each that was borrowed.

Every address of a block can be given, the first and the last as well. A node with a tunnel takes one for its end of it
before any pod does.

A real Calico begins to look for a node's block at a place that is a hash of the node's name. Here a node begins with
the first block of its `podCIDR`, if that is in the pool: addresses then read as in the other plugins, and a new pod
moves nobody else's. Addresses that pods already have are kept: a block belongs to the node whose pods were first in it.

Not modelled: several pools, reserved addresses, handles and garbage collection, blocks that are given back, the limit
on blocks a node. Guide sections 1.2 and 3.1; Calico 3.30.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

import msgspec

from k8snetlab.address import Prefix, text
from k8snetlab.errors import BadOption, PoolExhausted, Problem

__all__ = ["LENGTH", "Allocation", "Wish", "allocated", "outside"]

LENGTH: Mapping[int, int] = {4: 26, 6: 122}
"""How long the prefix of a block is, by family: 64 addresses each."""


class Wish(msgspec.Struct, frozen=True):
    """What one node asks the IPAM for: where it would begin (its pod CIDR), whether it needs an address for a tunnel
    and which one it has already, and its pods in the order they come, with the addresses that some of them have.
    """

    node: str
    begins: Prefix | None = None
    tunnel: bool = False
    kept_tunnel: str = ""
    pods: tuple[str, ...] = ()
    kept: Mapping[str, str] = {}


class Allocation(msgspec.Struct, frozen=True):
    """Who has what of one pool: the node that each block is affine to, in the order they were claimed; every pod's
    address and node; every node's tunnel address.
    """

    pool: Prefix
    length: int
    affinity: Mapping[Prefix, str]
    addresses: Mapping[str, str]
    homes: Mapping[str, str]
    tunnels: Mapping[str, str]

    def of(self, node: str) -> tuple[Prefix, ...]:
        """The blocks of a node, in the order it claimed them."""
        return tuple(block for block, owner in self.affinity.items() if owner == node)

    def block(self, address: str) -> Prefix:
        """The block that an address of the pool is in."""
        return Prefix.of(f"{address}/{self.length}")

    def borrowed(self, node: str) -> tuple[str, ...]:
        """The addresses of a node's pods, and of its tunnel, that are in blocks of others."""
        own = [self.addresses[pod] for pod, home in self.homes.items() if home == node]
        tunnel = self.tunnels.get(node)
        held = [tunnel, *own] if tunnel else own
        return tuple(address for address in held if self.affinity.get(self.block(address)) != node)

    def networks(self, node: str) -> tuple[Prefix, ...]:
        """What a node tells the others: its blocks, and every address it borrowed."""
        return (*self.of(node), *(Prefix.of(address) for address in self.borrowed(node)))


def allocated(pool: Prefix, wishes: Sequence[Wish], length: int = 0, *, strict: bool = False) -> Allocation:
    """Give every node its blocks, its tunnel's address and its pods' addresses.

    Raises `PoolExhausted`, with the numbers, when no address is left that the node may take, and `BadOption` for an
    address that is kept and not in the pool.

    >>> found = allocated(Prefix.of("10.244.0.0/16"), [Wish("node1", Prefix.of("10.244.1.0/24"), pods=("shop/web-0",))])
    >>> found.addresses, found.of("node1")
    ({'shop/web-0': '10.244.1.0'}, (Prefix.of('10.244.1.0/26'),))
    """
    register = _Register(pool, length or LENGTH[pool.family], wishes)
    for wish in wishes:
        register.begin(wish)
    for wish in wishes:
        register.keep(wish)
    for wish in wishes:
        register.end_tunnel(wish, strict=strict)
    for wish in wishes:
        for pod in wish.pods:
            if pod not in wish.kept:
                register.give(wish.node, pod, strict=strict)
    return register.result()


class _Register:
    """The IPAM at work: which blocks are claimed, and which addresses taken."""

    def __init__(self, pool: Prefix, length: int, wishes: Sequence[Wish]) -> None:
        if length < pool.length:
            raise BadOption(Problem(f"a block of /{length} is larger than the pool {pool}", field="blocksize"))
        self.pool, self.length = pool, length
        self.affinity: dict[Prefix, str] = {}
        self.own: dict[str, list[Prefix]] = {}
        self.homes: dict[str, str] = {}
        self.tunnels: dict[str, str] = {}
        self.addresses = {pod: address for wish in wishes for pod, address in wish.kept.items()}
        self.taken = {*self.addresses.values(), *(wish.kept_tunnel for wish in wishes if wish.kept_tunnel)}
        self._from: dict[Prefix, int] = {}  # how far a block has been given out
        self._begun = {self._first(wish) for wish in wishes}

    def begin(self, wish: Wish) -> None:
        """A node claims the block it begins with, unless its pods show that it has others."""
        first = self._first(wish)
        if not (wish.pods or wish.tunnel) or first is None or first in self.affinity:
            return
        if not wish.kept or any(first.contains(address) for address in wish.kept.values()):
            self._claim(first, wish.node)

    def _first(self, wish: Wish) -> Prefix | None:
        if wish.begins is None or not self.pool.overlaps(wish.begins):
            return None
        base = wish.begins if self.pool.covers(wish.begins) else self.pool
        return Prefix.of(f"{base.network}/{self.length}")

    def keep(self, wish: Wish) -> None:
        """Pods that have an address keep it; its block is the node's, if it is nobody's yet."""
        for pod, address in wish.kept.items():
            if not self.pool.contains(address):
                raise BadOption(Problem(outside(address, (self.pool,)), object=f"Pod {pod}", field="status.podIP"))
            block = Prefix.of(f"{address}/{self.length}")
            if block not in self.affinity:
                self._claim(block, wish.node)
            self.homes[pod] = wish.node

    def end_tunnel(self, wish: Wish, *, strict: bool) -> None:
        """The address of a node's end of the tunnel."""
        if wish.tunnel:
            self.tunnels[wish.node] = wish.kept_tunnel or self._next(wish.node, f"Node {wish.node}", strict=strict)

    def give(self, node: str, pod: str, *, strict: bool) -> None:
        """The address of a new pod."""
        self.addresses[pod] = self._next(node, f"Pod {pod}", strict=strict)
        self.homes[pod] = node

    def _claim(self, block: Prefix, node: str) -> None:
        self.affinity[block] = node
        self.own.setdefault(node, []).append(block)

    def _next(self, node: str, wanted_by: str, *, strict: bool) -> str:
        """From the node's own blocks, else from one it claims now, else from another node's."""
        address = self._in(self.own.get(node, ()))
        if not address:
            fresh = next(self._unclaimed(node), None)
            if fresh is not None:
                self._claim(fresh, node)
                address = self._in((fresh,))
            elif not strict:
                address = self._in(self.affinity)
        if not address:
            raise PoolExhausted(*self._said(node, strict=strict), wanted_by)
        self.taken.add(address)
        return address

    def _in(self, blocks: Iterable[Prefix]) -> str:
        for block in blocks:
            for value in range(self._from.get(block, block.base), block.base + block.size):
                address = text(value, block.family)
                if address not in self.taken:
                    self._from[block] = value + 1
                    return address
            self._from[block] = block.base + block.size
        return ""

    def _unclaimed(self, node: str) -> Iterator[Prefix]:
        """The free blocks in the order a node claims them: those after its own that no other node begins with, then
        any.
        """
        own = self.own.get(node)
        if own:
            near = own[-1].base + own[-1].size
            if near < self.pool.base + self.pool.size:
                yield from self._unused([Prefix(self.pool.family, near, self.length)], self._begun)
        yield from self._unused(self.pool.subnets(self.length), self._begun)
        yield from self._unused(self.pool.subnets(self.length), ())

    def _unused(self, blocks: Iterable[Prefix], spared: Collection[Prefix | None]) -> Iterator[Prefix]:
        return (block for block in blocks if block not in self.affinity and block not in spared)

    def _said(self, node: str, *, strict: bool) -> tuple[str, int]:
        """What is exhausted: the pool, or with strict affinity what the node may take of it."""
        count = len(self.own.get(node, ()))
        each = 1 << self.pool.bits - self.length
        if strict and len(self.taken) < self.pool.size:
            blocks = "1 block" if count == 1 else f"{count} blocks"
            return f"the {blocks} of {node} (no block of {self.pool} is free, strictaffinity is on)", count * each
        return f"{self.pool}, in {len(self.affinity)} blocks of /{self.length}", self.pool.size

    def result(self) -> Allocation:
        """Who has what."""
        return Allocation(self.pool, self.length, self.affinity, self.addresses, self.homes, self.tunnels)


def outside(address: str, pools: Iterable[Prefix]) -> str:
    """Why an address cannot be a pod's of this cluster."""
    held = ", ".join(map(str, pools)) or "none"
    return (
        f"{address} is in no pool of the cluster ({held}): the pod was attached by another CNI. Leave the pods' "
        "status.podIP and podIPs out to have addresses given anew"
    )
