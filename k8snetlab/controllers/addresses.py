"""Which address does this pod have?

The CNI's IPAM decides, when the pod starts on its node. `cni.ipam.host_local`, which most CNIs use, counts through the
pod range of the node: the first address is the node's own, on its bridge, and pods get the following ones in the order
they start. Other plugins cut the pod network differently, and so the IPAM is a parameter: a function from the pods of
each node to addresses.

A pod with `hostNetwork` has the addresses of its node and takes none. A pod that completed has given its address back.
Addresses that a dump shows are kept, and two pods cannot hold the same one.

Not modelled: addresses asked for by annotation. Guide sections 1.2 and 2.1; CNI specification, KEP-563 (dual-stack).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from msgspec.structs import replace

from k8snetlab import api
from k8snetlab.address import Prefix, canonical, family
from k8snetlab.cni import Ipam, Machine
from k8snetlab.errors import AddressInUse

__all__ = ["addressed"]


def addressed(
    pods: Sequence[api.Pod], nodes: Sequence[api.Node], pools: Sequence[Prefix], ipam: Ipam
) -> tuple[api.Pod, ...]:
    """The pods with addresses of these pools, phase and readiness, in the same order. Raises `AddressInUse` and
    `PoolExhausted`.
    """
    kept = _kept(pods)
    machines = [
        Machine(node.name, (), tuple(map(Prefix.of, node.pod_cidrs)), annotations=node.metadata.annotations)
        for node in nodes
    ]
    shown = dict.fromkeys(block.family for machine in machines for block in machine.pod_cidrs)
    families = shown or dict.fromkeys(pool.family for pool in pools)
    own_pools = [pool for of in families for pool in pools if pool.family == of]
    waiting: dict[str, list[str]] = {}
    for pod in pods:
        if pod.node_name and not pod.host_network and not pod.completed and (pod.ips or _starting(pod)):
            waiting.setdefault(pod.node_name, []).append(pod.key)
    own = {pool.family: ipam(pool, machines, waiting, kept[pool.family]) for pool in own_pools}
    by_name = {node.name: node for node in nodes}
    return tuple(_running(pod, by_name.get(pod.node_name), own) for pod in pods)


def _starting(pod: api.Pod) -> bool:
    """Whether the pod gets an address now: a dump's pod that is still Pending has none yet."""
    return pod.status.phase is not api.PodPhase.PENDING


def _kept(pods: Iterable[api.Pod]) -> dict[int, dict[str, str]]:
    """The addresses that pods already have, by family and pod."""
    kept: dict[int, dict[str, str]] = {4: {}, 6: {}}
    owners: dict[str, str] = {}
    for pod in pods:
        if not pod.networked or pod.host_network:
            continue
        for said in pod.ips:
            address = canonical(said)
            if address in owners:
                raise AddressInUse(address, (owners[address], pod.ref), field="status.podIP")
            owners[address] = pod.ref
            kept[family(address)][pod.key] = address
    return kept


_READY = (
    api.PodCondition(type="PodScheduled", status="True"),
    api.PodCondition(type="Initialized", status="True"),
    api.PodCondition(type="ContainersReady", status="True"),
    api.PodCondition(type="Ready", status="True"),
)


def _running(pod: api.Pod, node: api.Node | None, own: Mapping[int, Mapping[str, str]]) -> api.Pod:
    if node is None or pod.completed:
        return pod
    if pod.ips:
        ips = tuple(canonical(each) for each in pod.ips)
    elif not _starting(pod):
        return pod
    elif pod.host_network:
        ips = _one_a_family(node)
    else:
        ips = tuple(found[pod.key] for found in own.values() if pod.key in found)
    status = pod.status
    hosts = _one_a_family(node)
    return replace(
        pod,
        status=replace(
            status,
            phase=status.phase or api.PodPhase.RUNNING,
            conditions=status.conditions or _READY,
            pod_ip=next(iter(ips), ""),
            pod_ips=tuple(api.PodIP(ip=each) for each in ips),
            host_ip=status.host_ip or next(iter(hosts), ""),
            host_ips=status.host_ips if status.host_ip else tuple(api.PodIP(ip=each) for each in hosts),
        ),
    )


def _one_a_family(node: api.Node) -> tuple[str, ...]:
    return tuple({family(each): each for each in reversed(node.addresses)}.values())[::-1]
