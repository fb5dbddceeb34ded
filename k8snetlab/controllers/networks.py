"""Which networks does this cluster consist of?

Three kinds, and they must not share an address: the underlay (the machines' own subnets, one a zone where there are
several), the pod network (cut into one range a node) and the Service network (whose addresses are on no interface).
`Plan` is what somebody asked for; `Networks` is what holds, after defaults and, for a dump of a live cluster, after
looking at its nodes, pods and Services.

A live cluster does not say its ranges anywhere in its objects. Where the usual ranges do not hold what the dump has,
the smallest block that does is taken. Not modelled: several pod ranges a family, secondary Service ranges (KEP-1880).
Guide section 1.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

import msgspec

from k8snetlab import api
from k8snetlab.address import Prefix, family, number
from k8snetlab.errors import BadOption, Overlap, Problem

__all__ = ["Networks", "Plan", "networks_of"]

NODES = {4: "172.18.0.0/16", 6: "fd00:172::/64"}
PODS = {4: "10.244.0.0/16", 6: "fd00:10:244::/56"}
SERVICES = {4: "10.96.0.0/12", 6: "fd00:10:96::/108"}


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for. An empty tuple: not said, so the usual ranges, or for a dump what its objects show.

    `nodes` is how many workers there are when the manifests name no Node. Several node blocks of one family are one
    underlay subnet a zone. The families of the cluster are those of `families`, or of the blocks that were said, or
    IPv4. `pools` are the addresses that a load balancer gives away, none for nobody who does, and `ip_mode` what it
    says of them. `cni_pools` is the pod network of a CNI that asks no node for its range: nodes get none.
    """

    nodes: int = 3
    node_cidrs: tuple[Prefix, ...] = ()
    pod_cidrs: tuple[Prefix, ...] = ()
    service_cidrs: tuple[Prefix, ...] = ()
    families: tuple[int, ...] = ()
    pools: tuple[Prefix, ...] = ()
    cni_pools: tuple[Prefix, ...] = ()
    ip_mode: api.IPMode = api.IPMode.VIP


class Networks(msgspec.Struct, frozen=True):
    """The networks that hold. `families` has the primary family first; `pods` and `services` have one block a
    family."""

    families: tuple[int, ...]
    nodes: tuple[Prefix, ...]
    pods: tuple[Prefix, ...]
    services: tuple[Prefix, ...]

    def zones(self) -> tuple[tuple[Prefix, ...], ...]:
        """The underlay subnets by zone: the first block of each family, the second of each, and so on. A dump whose
        families have not as many subnets each shows only some of them here."""
        by_family = [[block for block in self.nodes if block.family == each] for each in self.families]
        return tuple(zip(*by_family, strict=False))


def networks_of(manifests: api.Manifests, plan: Plan) -> Networks:
    """The networks of a cluster. Raises `Overlap` and `BadOption`."""
    nodes = manifests.of(api.Node)
    families = _families(nodes, plan)
    for field, said in (("pod_cidrs", plan.pod_cidrs), ("service_cidrs", plan.service_cidrs)):
        _one_a_family(field, said, families)
    networks = Networks(
        families,
        _node_blocks(nodes, plan, families),
        _pods(nodes, plan, families),
        _blocks(plan.service_cidrs, SERVICES, families, _hosts(_cluster_ips(manifests)) if nodes else []),
    )
    _disjoint(networks)
    for pool in plan.pools:
        _outside(pool, networks)
    return networks


def _families(nodes: Sequence[api.Node], plan: Plan) -> tuple[int, ...]:
    said = plan.families or _unique(block.family for block in (*plan.pod_cidrs, *plan.service_cidrs, *plan.node_cidrs))
    shown = _unique(Prefix.of(cidr).family for node in nodes for cidr in node.pod_cidrs)
    families = shown or said or _unique(family(each) for node in nodes for each in node.addresses) or (4,)
    if any(each not in (4, 6) for each in families) or len(set(families)) != len(families):
        raise BadOption(Problem(f"{families} are not address families: 4, 6 or both", field="families"))
    return families


def _unique(values: Iterable[int]) -> tuple[int, ...]:
    return tuple(dict.fromkeys(values))


def _one_a_family(field: str, said: Sequence[Prefix], families: Sequence[int]) -> None:
    counts = [sum(block.family == each for block in said) for each in families]
    if any(count > 1 for count in counts) or sum(counts) != len(said):
        blocks = ", ".join(map(str, said))
        wanted = " and ".join(f"IPv{each}" for each in families)
        message = f"takes one block for each family of the cluster ({wanted}), not {blocks}"
        raise BadOption(Problem(message, field=field))


def _pods(nodes: Sequence[api.Node], plan: Plan, families: Sequence[int]) -> tuple[Prefix, ...]:
    """The pod networks. What nodes say of their ranges means nothing to a CNI with a pool of its own."""
    if not plan.cni_pools:
        shown = [Prefix.of(cidr) for node in nodes for cidr in node.pod_cidrs]
        return _blocks(plan.pod_cidrs, PODS, families, shown)
    own = {block.family: str(block) for block in plan.cni_pools}
    if not set(families) & set(own):
        gives, wanted = (" and ".join(f"IPv{of}" for of in each) for each in (own, families))
        message = (
            f"the CNI gives pods addresses of {gives} only, and the cluster has {wanted} alone: "
            f"take another CNI, or networks of {gives} too"
        )
        raise BadOption(Problem(message, field="cni"))
    return _blocks(plan.pod_cidrs, {**PODS, **own}, families, [])


def _blocks(
    said: Sequence[Prefix], usual: dict[int, str], families: Sequence[int], shown: Sequence[Prefix]
) -> tuple[Prefix, ...]:
    """For each family the block that was said, else the usual one, else the smallest that holds what the dump shows."""
    return tuple(
        next((block for block in said if block.family == each), None)
        or _holding([block for block in shown if block.family == each], Prefix.of(usual[each]))
        for each in families
    )


def _holding(shown: Sequence[Prefix], usual: Prefix) -> Prefix:
    if all(usual.covers(block) for block in shown):
        return usual
    low, high = min(block.base for block in shown), max(block.base + block.size - 1 for block in shown)
    room = 12 if usual.family == 4 else 20  # a block no smaller than this many bits leaves addresses to give away
    shift = max((low ^ high).bit_length(), room)
    return Prefix(usual.family, low >> shift << shift, usual.bits - shift)


def _node_blocks(nodes: Sequence[api.Node], plan: Plan, families: Sequence[int]) -> tuple[Prefix, ...]:
    said = list(plan.node_cidrs)
    if not said and nodes:
        return _around(nodes) or _usual_nodes(families, 1)
    zones = max((sum(block.family == each for block in said) for each in families), default=0) or 1
    for each in families:
        count = sum(block.family == each for block in said)
        if count == 0:
            said += [block for block in _usual_nodes(families, zones) if block.family == each]
        elif count != zones:
            message = f"has {count} IPv{each} blocks for {zones} zones: each zone needs one of each family"
            raise BadOption(Problem(message, field="node_cidrs"))
    return tuple(said)


def _usual_nodes(families: Sequence[int], zones: int) -> tuple[Prefix, ...]:
    """The usual underlay; with several zones, the IPv6 subnets beside it and the IPv4 halves of it are numbered."""
    blocks: list[Prefix] = []
    for each in families:
        first = Prefix.of(NODES[each])
        step = first.size if each == 6 else 1 << 8
        length = first.length if zones == 1 or each == 6 else 24
        blocks += [Prefix(each, first.base + zone * step, length) for zone in range(zones)]
    return tuple(blocks)


def _around(nodes: Iterable[api.Node]) -> tuple[Prefix, ...]:
    """The /24 or /64 around each address where every zone has its own; else the usual underlay for those it holds."""
    zones: dict[Prefix, set[str]] = {}
    for node in nodes:
        for address in node.addresses:
            zones.setdefault(Prefix.of(f"{address}/{24 if family(address) == 4 else 64}"), set()).add(node.zone)
    if len(set().union(*zones.values())) > 1 and all(len(each) == 1 for each in zones.values()):
        return tuple(zones)
    usual = {of: Prefix.of(block) for of, block in NODES.items()}
    return tuple(dict.fromkeys(usual[block.family] if usual[block.family].covers(block) else block for block in zones))


def _cluster_ips(manifests: api.Manifests) -> Iterable[str]:
    return (address for service in manifests.of(api.Service) for address in service.cluster_ips)


def _hosts(addresses: Iterable[str]) -> list[Prefix]:
    return [Prefix(family(each), number(each), 32 if family(each) == 4 else 128) for each in addresses]


def _outside(pool: Prefix, networks: Networks) -> None:
    """The addresses of load balancers may lie in a subnet of the nodes, but not among those of pods or Services."""
    for what, blocks in (("pod", networks.pods), ("Service", networks.services)):
        for block in blocks:
            if pool.overlaps(block):
                message = f"the load balancers' addresses {pool} and the {what} network {block} share addresses"
                raise Overlap(str(pool), str(block), message)


def _disjoint(networks: Networks) -> None:
    named = [
        (what, block)
        for what, blocks in (("node", networks.nodes), ("pod", networks.pods), ("Service", networks.services))
        for block in blocks
    ]
    for (what, block), (other, second) in combinations(named, 2):
        if block.overlaps(second):
            raise Overlap(
                str(block), str(second), f"the {what} network {block} and the {other} network {second} share addresses"
            )
