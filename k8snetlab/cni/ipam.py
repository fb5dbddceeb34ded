"""Which address does a new pod get?

The plugin `host-local` keeps a file for each address it gave away, on each node for itself: no node asks another,
because each has its own pod CIDR (`node.spec.podCIDR`). The first address of the range is the gateway, which the node
itself holds; pods get the following ones in turn. An address that was given back is not used again until the turn
comes round, so that a new pod does not at once receive what was meant for an old one.

Not modelled: the files under `/var/lib/cni/networks`, several ranges a family, addresses asked for by CNI_ARGS. Guide
sections 1.2 and 2.1; the plugin's documentation in containernetworking/plugins.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TypeAlias

from k8snetlab.address import Prefix, hosts, number, text
from k8snetlab.cni.plan import Machine
from k8snetlab.errors import AddressInUse, BadOption, PoolExhausted, Problem

__all__ = ["Ipam", "assigned", "block_of", "gateway", "host_local", "next_free"]

Ipam: TypeAlias = Callable[
    [Prefix, Sequence[Machine], Mapping[str, Sequence[str]], Mapping[str, str]], Mapping[str, str]
]
"""From the pool of a family, the machines, the names of each machine's pods in the order they start, and the addresses
some of them keep: the address of every pod, by its name. A pod without an entry has no address of that family. Raises
`PoolExhausted`."""


def host_local(
    pool: Prefix, machines: Sequence[Machine], pods: Mapping[str, Sequence[str]], kept: Mapping[str, str]
) -> Mapping[str, str]:
    """Each node gives out the addresses of its own pod CIDR, one after the other."""
    found: dict[str, str] = {}
    for machine in machines:
        block, own = machine.pod_cidr(pool.family), pods.get(machine.name, ())
        if block is not None and own:
            found.update(assigned(block, own, {pod: kept[pod] for pod in own if pod in kept}))
    return found


def gateway(block: Prefix) -> str:
    """The address that the node itself takes: the first one of the range, `10.244.1.1` of `10.244.1.0/24`."""
    return block.address(1)


def next_free(block: Prefix, taken: Collection[str], wanted_by: str, last: str = "") -> str:
    """The next address after `last` that nobody has, from the start again at the end. Raises `PoolExhausted`.

    >>> next_free(Prefix.of("10.244.1.0/24"), {"10.244.1.2"}, "shop/web-0")
    '10.244.1.3'
    """
    own = _for_pods(block)
    at = number(last) + 1 if last else own.start
    for values in (range(max(at, own.start), own.stop), range(own.start, min(at, own.stop))):
        for value in values:
            address = text(value, block.family)
            if address not in taken:
                return address
    raise PoolExhausted(str(block), len(own), wanted_by)


def assigned(block: Prefix, pods: Iterable[str], kept: Mapping[str, str] | None = None) -> dict[str, str]:
    """The address of every pod of one node, by its name: those in `kept` as they are, the others in order.

    Raises `PoolExhausted` when the range is too small and `AddressInUse` when two pods keep one address.

    >>> assigned(Prefix.of("10.244.1.0/24"), ["shop/web-0", "shop/db-0"], {"shop/db-0": "10.244.1.2"})
    {'shop/web-0': '10.244.1.3', 'shop/db-0': '10.244.1.2'}
    """
    kept = kept or {}
    taken: dict[str, str] = {}
    for pod, address in kept.items():
        if address in taken:
            raise AddressInUse(address, (f"Pod {taken[address]}", f"Pod {pod}"), field="status.podIP")
        taken[address] = pod
    found: dict[str, str] = {}
    last = ""
    for pod in pods:
        if pod in kept:
            found[pod] = kept[pod]
            continue
        last = found[pod] = next_free(block, taken, f"Pod {pod}", last)
        taken[last] = pod
    return found


def block_of(blocks: Iterable[Prefix], address: str, pod: str) -> Prefix:
    """The range of a node that holds the pod's address. A pod whose address is in none cannot have got it from this
    plugin: `BadOption`.
    """
    held = tuple(blocks)
    for block in held:
        if block.contains(address):
            return block
    ranges = ", ".join(map(str, held)) or "none"
    message = (
        f"{address} is in no pod CIDR of its node ({ranges}), and host-local gives no other addresses: the pod was "
        "attached by another CNI. Leave the pods' status.podIP and podIPs out to have addresses given anew"
    )
    raise BadOption(Problem(message, object=f"Pod {pod}", field="status.podIP"))


def _for_pods(block: Prefix) -> range:
    usable = hosts(block)
    return range(max(usable.start, block.base + 2), usable.stop)
