"""Which address does this pod have?

The CNI's IPAM decides, when the pod starts on its node. `host_local`, which most CNIs use, counts through the pod
range of the node: the first address is the node's own, on its bridge, and pods get the following ones in the order
they start. Other plugins cut the pod network differently, and so the IPAM is a parameter: a function from the pods of
each node to addresses.

A pod with `hostNetwork` has the addresses of its node and takes none. A pod that completed has given its address back.
Addresses that a dump shows are kept, and two pods cannot hold the same one.

Not modelled: addresses asked for by annotation. Guide sections 1.2 and 2.1; CNI specification, KEP-563 (dual-stack).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeAlias

from msgspec.structs import replace

from k8snetlab import api
from k8snetlab.address import Prefix, canonical, family
from k8snetlab.cni import ipam
from k8snetlab.errors import AddressInUse

__all__ = ["Ipam", "addressed", "host_local"]

Ipam: TypeAlias = Callable[[Sequence[api.Node], int, Mapping[str, Sequence[str]], Mapping[str, str]], Mapping[str, str]]
"""From the nodes, a family (4 or 6), the keys of each node's pods in the order they start, and the addresses some of
them keep: the address of every pod, by its key. A pod without an entry has no address of that family. Raises
`PoolExhausted`."""


def host_local(
    nodes: Sequence[api.Node], of: int, pods: Mapping[str, Sequence[str]], kept: Mapping[str, str]
) -> Mapping[str, str]:
    """Each node gives out the addresses of its own pod range, one after the other."""
    found: dict[str, str] = {}
    for node in nodes:
        block = next((each for each in map(Prefix.of, node.pod_cidrs) if each.family == of), None)
        own = pods.get(node.name, ())
        if block is not None and own:
            found.update(ipam.assigned(block, own, {key: kept[key] for key in own if key in kept}))
    return found


def addressed(pods: Sequence[api.Pod], nodes: Sequence[api.Node], plugin: Ipam) -> tuple[api.Pod, ...]:
    """The pods with addresses, phase and readiness, in the same order. Raises `AddressInUse` and `PoolExhausted`."""
    kept = _kept(pods)
    families = tuple(dict.fromkeys(Prefix.of(cidr).family for node in nodes for cidr in node.pod_cidrs))
    waiting: dict[str, list[str]] = {}
    for pod in pods:
        if pod.node_name and not pod.host_network and not pod.completed and (pod.ips or _starting(pod)):
            waiting.setdefault(pod.node_name, []).append(pod.key)
    own = {of: plugin(nodes, of, waiting, kept[of]) for of in families}
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
