"""Which addresses belong to which machine, when nobody is in charge?

Weave Net's IPAM asks neither the API server nor `node.spec.podCIDR`. The machines agree on a *ring*: the whole pod
network (10.32.0.0/12), cut into ranges with an owner each. The first ones agree by a vote (Paxos) and halve the network
until each has a share: three have 10.32.0.0/13, 10.40.0.0/14 and 10.44.0.0/14. From its share a machine gives addresses
without asking anybody, the lowest free one first; the very first one it keeps, for its own bridge. The network's first
and last address are nobody's, but the first of any other share is an address like all others: 10.40.0.0.

Who has no address left asks another machine, which gives away half of what it has free. Here that is the machine with
most left, and the upper half of its share; which half a real one gives is unsure, and so is who gets which share: real
machines are sorted by their names in the mesh, here they stand in the order they joined.

Not modelled: the vote, machines that join later (all are there at first), machines that are gone and leave their share.
Guide section 1.2; Weave Net 2.8.1 (archived in 2024).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from k8snetlab.address import Prefix, number, text
from k8snetlab.errors import AddressInUse, PoolExhausted

__all__ = ["addresses", "bridges", "shares"]


def shares(pool: Prefix, machines: Sequence[str]) -> dict[str, Prefix]:
    """The share of each machine: the pool, halved until each has one. Raises `PoolExhausted` for more machines than
    addresses.

    >>> [str(share) for share in shares(Prefix.of("10.32.0.0/12"), ["a", "b", "c"]).values()]
    ['10.32.0.0/13', '10.40.0.0/14', '10.44.0.0/14']
    """
    return dict(_halved(pool, machines)) if machines else {}


def _halved(block: Prefix, machines: Sequence[str]) -> Iterator[tuple[str, Prefix]]:
    if len(machines) == 1:
        yield machines[0], block
        return
    if block.size == 1:
        raise PoolExhausted(str(block), block.size, f"Node {machines[1]}")
    middle = len(machines) // 2
    low, high = block.subnets(block.length + 1)
    yield from _halved(low, machines[:middle])
    yield from _halved(high, machines[middle:])


def bridges(pool: Prefix, machines: Sequence[str]) -> dict[str, str]:
    """The address of each machine's own bridge: the first of its share that can be given. Raises `PoolExhausted`.

    >>> bridges(Prefix.of("10.32.0.0/12"), ["a", "b"])
    {'a': '10.32.0.1', 'b': '10.40.0.0'}
    """
    found = {}
    for name, share in shares(pool, machines).items():
        usable = _usable(pool, share)
        if not usable:
            raise PoolExhausted(f"the share {share} of {pool}", 0, f"Node {name}")
        found[name] = text(usable.start, pool.family)
    return found


def addresses(
    pool: Prefix, machines: Sequence[str], pods: Mapping[str, Sequence[str]], kept: Mapping[str, str]
) -> dict[str, str]:
    """The address of every pod, by its name: those in `kept` as they are, the others the lowest free of their
    machine's share. `pods` names the pods of each machine in the order they start.

    Raises `PoolExhausted` with the number of addresses that pods can have, and `AddressInUse` for a pod that keeps the
    address of a bridge.

    >>> addresses(Prefix.of("10.32.0.0/12"), ["a", "b"], {"b": ["shop/web-0"]}, {})
    {'shop/web-0': '10.40.0.1'}
    """
    own = {owner: _usable(pool, share) for owner, share in shares(pool, machines).items()}
    bridge = bridges(pool, machines)
    for pod, address in kept.items():
        for owner, held in bridge.items():
            if address == held:
                raise AddressInUse(address, (f"the bridge of Node {owner}", f"Pod {pod}"), field="status.podIP")
    taken = {number(address) for address in (*bridge.values(), *kept.values())}
    found: dict[str, str] = {}
    next_of = {owner: usable.start for owner, usable in own.items()}
    for machine, names in pods.items():
        for pod in names:
            if pod in kept:
                found[pod] = kept[pod]
                continue
            value = _lowest(range(next_of.get(machine, 0), own[machine].stop), taken) if machine in own else None
            if value is not None:
                next_of[machine] = value + 1
            else:
                value = _donated(own, taken)
            if value is None:
                raise PoolExhausted(str(pool), sum(map(len, own.values())) - len(bridge), f"Pod {pod}")
            taken.add(value)
            found[pod] = text(value, pool.family)
    return found


def _usable(pool: Prefix, share: Prefix) -> range:
    """What of a share can be given: all but the pool's first and last address."""
    first, last = pool.base, pool.base + pool.size - 1
    return range(max(share.base, first + 1), min(share.base + share.size, last))


def _lowest(values: range, taken: set[int]) -> int | None:
    return next((value for value in values if value not in taken), None)


def _donated(own: Mapping[str, range], taken: set[int]) -> int | None:
    """An address out of the upper half of the share with most addresses left, or out of its lower half."""
    left = {owner: len(usable) - sum(value in usable for value in taken) for owner, usable in own.items()}
    donor = max(left, key=lambda owner: left[owner], default=None)
    if donor is None or not left[donor]:
        return None
    usable = own[donor]
    middle = usable.start + len(usable) // 2
    upper = _lowest(range(middle, usable.stop), taken)
    return upper if upper is not None else _lowest(range(usable.start, middle), taken)
