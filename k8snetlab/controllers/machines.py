"""Which addresses and which pod range does each machine have?

A node's own addresses come from the underlay: its administrator or its cloud gives them. Its pod range is cut from
the pod network by the controller manager (`--allocate-node-cidrs`): the next free block of 256 addresses, or of 2^64
in IPv6, in the order the nodes joined. What a Node already says is kept, and where it says nothing but its pods have
addresses of one block, it is that block.

Not modelled: cloud routes. Guide section 1.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from msgspec.structs import replace

from k8snetlab import api
from k8snetlab.address import Prefix, canonical, family, hosts, number, text
from k8snetlab.controllers.networks import Networks
from k8snetlab.errors import AddressInUse, BadOption, PoolExhausted, Problem

__all__ = ["CONTROL_PLANE_INDEX", "FIRST_NODE_INDEX", "ZONE", "nodes", "numbered"]

ZONE = "topology.kubernetes.io/zone"
CONTROL_PLANE_INDEX = 2
FIRST_NODE_INDEX = 11
NODE_LENGTH = {4: 24, 6: 64}
"""How long the prefix of one node's pod range is."""


def numbered(block: Prefix, index: int) -> str:
    """The address of machine `index` of a subnet; in IPv6 it reads the same: 172.18.0.11 and fd00:172::11."""
    return block.address(index if block.family == 4 else int(str(index), 16))


def nodes(given: Sequence[api.Node], pods: Iterable[api.Pod], networks: Networks) -> tuple[api.Node, ...]:
    """The nodes with addresses and pod ranges. Raises `PoolExhausted`, `AddressInUse` and `BadOption`."""
    _used_once(given)
    addressed = tuple(_with_addresses(given, networks))
    return tuple(_with_pod_cidrs(addressed, _shown(pods, networks), networks))


def _used_once(given: Sequence[api.Node]) -> None:
    owners: dict[str, str] = {}
    for node in given:
        for address in (*node.addresses, *node.pod_cidrs):
            if address in owners:
                raise AddressInUse(address, (owners[address], node.ref))
            owners[address] = node.ref


def _with_addresses(given: Sequence[api.Node], networks: Networks) -> Iterator[api.Node]:
    zones = networks.zones()
    taken = {number(canonical(address)) for node in given for address in node.addresses}
    for index, node in enumerate(given):
        if node.addresses:
            said = tuple(_canonical(each) for each in node.status.addresses)
            yield replace(node, status=replace(node.status, addresses=said))
            continue
        blocks = zones[index % len(zones)]
        own = tuple(
            api.NodeAddress(type="InternalIP", address=_free(block, FIRST_NODE_INDEX, taken, node.ref))
            for block in blocks
        )
        host = api.NodeAddress(type="Hostname", address=node.name)
        yield replace(node, status=replace(node.status, addresses=(*own, *node.status.addresses, host)))


def _canonical(each: api.NodeAddress) -> api.NodeAddress:
    return replace(each, address=canonical(each.address)) if each.type.endswith("IP") else each


def _free(block: Prefix, first: int, taken: set[int], wanted_by: str) -> str:
    usable = hosts(block)
    index = first
    while (value := number(numbered(block, index)) if index < block.size else usable.stop) in taken:
        index += 1
    if value >= usable.stop:
        raise PoolExhausted(str(block), len(usable), wanted_by)
    taken.add(value)
    return text(value, block.family)


def _with_pod_cidrs(
    given: Sequence[api.Node], shown: Mapping[tuple[str, int], Prefix], networks: Networks
) -> Iterator[api.Node]:
    taken = [Prefix.of(cidr) for node in given for cidr in node.pod_cidrs] + list(shown.values())
    free = [_ranges(block, taken) for block in networks.pods]
    for node in given:
        if node.pod_cidrs:
            yield node
            continue
        own = tuple(
            str(shown.get((node.name, pool.family)) or _next(blocks, pool, node.ref))
            for blocks, pool in zip(free, networks.pods, strict=True)
        )
        yield replace(node, spec=replace(node.spec, pod_cidr=next(iter(own), ""), pod_cidrs=own))


def _shown(pods: Iterable[api.Pod], networks: Networks) -> dict[tuple[str, int], Prefix]:
    """The pod range of each node and family, where all addresses of its pods lie in one block and no other node's
    do."""
    users: dict[Prefix, set[str]] = {}
    for pod in pods:
        for address in pod.ips if pod.networked and not pod.host_network else ():
            users.setdefault(Prefix.of(f"{address}/{NODE_LENGTH[family(address)]}"), set()).add(pod.node_name)
    found: dict[tuple[str, int], list[Prefix]] = {}
    for block, names in users.items():
        if len(names) == 1 and any(pool.covers(block) for pool in networks.pods):
            found.setdefault((next(iter(names)), block.family), []).append(block)
    return {owner: blocks[0] for owner, blocks in found.items() if len(blocks) == 1}


def _ranges(pool: Prefix, taken: Sequence[Prefix]) -> Iterator[Prefix]:
    length = NODE_LENGTH[pool.family]
    if pool.length > length:
        message = f"{pool} is smaller than the /{length} that each node gets of it"
        raise BadOption(Problem(message, field="pod_cidrs"))
    for block in pool.subnets(length):
        if not any(block.overlaps(each) for each in taken):
            yield block


def _next(blocks: Iterator[Prefix], pool: Prefix, wanted_by: str) -> str:
    block = next(blocks, None)
    if block is None:
        length = NODE_LENGTH[pool.family]
        raise PoolExhausted(f"{pool} in ranges of /{length}", 1 << length - pool.length, wanted_by)
    return str(block)
