"""Would the API server take this policy?

The rules of NetworkPolicy are those of the API server's own code, those of ClusterNetworkPolicy stand in its custom
resource definition. Types say the rest: which fields there are, which protocols, that `from` of a ClusterNetworkPolicy
must be there. What is sent to an API server of 1.36 or later must besides be spelled strictly (`strict_rules`); what an
object has already may stay.

Not modelled: leading zeros in addresses, which old servers took. Source: k8s.io/kubernetes/pkg/apis/networking,
Kubernetes 1.37; KEP-4858 (strict spelling); policy.networking.k8s.io/v1alpha2.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence

from k8snetlab.address import number
from k8snetlab.api.base import Part
from k8snetlab.api.cluster_policies import (
    ClusterNetworkPolicy,
    ClusterNetworkPolicyEgressPeer,
    ClusterNetworkPolicyEgressRule,
    ClusterNetworkPolicyIngressPeer,
    ClusterNetworkPolicyIngressRule,
    ClusterNetworkPolicyProtocol,
    NamespacedPod,
    RuleAction,
)
from k8snetlab.api.networking import IPBlock, NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort
from k8snetlab.api.selectors import LabelSelector, Operator
from k8snetlab.api.syntax import (
    IS_PORT_NAME,
    Broken,
    block_of,
    duplicate,
    forbidden,
    invalid,
    is_port_name,
    required,
)

__all__ = ["cluster_policy_rules", "policy_rules", "selector_rules", "strict_rules"]


def selector_rules(field: str, selector: LabelSelector | None) -> Broken:
    """In and NotIn need values, Exists and DoesNotExist may have none."""
    for index, each in enumerate(selector.match_expressions if selector is not None else ()):
        place = f"{field}.matchExpressions[{index}].values"
        wants = each.operator in (Operator.IN, Operator.NOT_IN)
        if wants and not each.values:
            yield required(place, "must be specified when `operator` is 'In' or 'NotIn'")
        if not wants and each.values:
            yield forbidden(place, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")


# --- NetworkPolicy ----------------------------------------------------------------------------------------------------


def policy_rules(policy: NetworkPolicy) -> Broken:
    """Every rule that a NetworkPolicy breaks."""
    spec = policy.spec
    yield from selector_rules("spec.podSelector", spec.pod_selector)
    for index, rule in enumerate(spec.ingress):
        yield from _rule(f"spec.ingress[{index}]", "from", rule.from_, rule.ports)
    for index, out in enumerate(spec.egress):
        yield from _rule(f"spec.egress[{index}]", "to", out.to, out.ports)
    if len(spec.policy_types) > 2:
        yield invalid(
            "spec.policyTypes", list(map(str, spec.policy_types)), "may not specify more than two policyTypes"
        )


def _rule(place: str, side: str, peers: Sequence[NetworkPolicyPeer], ports: Sequence[NetworkPolicyPort]) -> Broken:
    for index, port in enumerate(ports):
        yield from _port(f"{place}.ports[{index}]", port)
    for index, peer in enumerate(peers):
        yield from _peer(f"{place}.{side}[{index}]", peer)


def _port(place: str, port: NetworkPolicyPort) -> Broken:
    if port.port is None:
        if port.end_port is not None:
            yield invalid(f"{place}.endPort", port.end_port, "may not be specified when `port` is not specified")
    elif isinstance(port.port, str):
        if port.end_port is not None:
            yield invalid(f"{place}.endPort", port.end_port, "may not be specified when `port` is non-numeric")
        if not is_port_name(port.port):
            yield invalid(f"{place}.port", port.port, f"must be {IS_PORT_NAME}")
    else:
        yield from _number(f"{place}.port", port.port)
        if port.end_port is not None:
            if port.end_port < port.port:
                yield invalid(f"{place}.endPort", port.end_port, "must be greater than or equal to `port`")
            yield from _number(f"{place}.endPort", port.end_port)


def _number(field: str, value: int) -> Broken:
    if not 1 <= value <= 65535:
        yield invalid(field, value, "must be between 1 and 65535, inclusive")


def _peer(place: str, peer: NetworkPolicyPeer) -> Broken:
    selects = peer.pod_selector is not None or peer.namespace_selector is not None
    yield from selector_rules(f"{place}.podSelector", peer.pod_selector)
    yield from selector_rules(f"{place}.namespaceSelector", peer.namespace_selector)
    if peer.ip_block is not None:
        yield from _ip_block(f"{place}.ipBlock", peer.ip_block)
        if selects:
            yield forbidden(place, "may not specify both ipBlock and another peer")
    elif not selects:
        yield required(place, "must specify a peer")


def _ip_block(place: str, said: IPBlock) -> Broken:
    if not said.cidr:
        yield required(f"{place}.cidr")
        return
    yield from _cidr(f"{place}.cidr", said.cidr)
    block = block_of(said.cidr)
    for index, each in enumerate(said.except_):
        field = f"{place}.except[{index}]"
        yield from _cidr(field, each)
        hole = block_of(each)
        if block is not None and hole is not None and not _strictly_inside(hole, block):
            yield invalid(field, each, f"must be a strict subset of `{said.cidr}`")


def _cidr(field: str, value: str) -> Broken:
    if "/" not in value or block_of(value) is None:
        yield invalid(field, value, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)")


def _strictly_inside(
    hole: ipaddress.IPv4Network | ipaddress.IPv6Network, block: ipaddress.IPv4Network | ipaddress.IPv6Network
) -> bool:
    if hole.version != block.version or hole.prefixlen <= block.prefixlen:
        return False
    return block.network_address <= hole.network_address <= block.broadcast_address  # type: ignore[operator]


def strict_rules(policy: NetworkPolicy, old: NetworkPolicy | None = None) -> Broken:
    """How blocks must be spelled since Kubernetes 1.36 in what is sent to the API server, except those that the policy
    had before."""
    had = frozenset() if old is None else frozenset(value for _, value in _blocks(old))
    for field, value in _blocks(policy):
        block = block_of(value)
        if value in had or block is None:
            continue
        if isinstance(block, ipaddress.IPv6Network) and block.network_address.ipv4_mapped is not None:
            yield invalid(field, value, "must not be an IPv4-mapped IPv6 address")
        elif number(value.partition("/")[0]) != int(block.network_address):
            yield invalid(field, value, f"must not have bits set beyond the prefix length, as {block} has none")


def _blocks(policy: NetworkPolicy) -> Iterator[tuple[str, str]]:
    """Every block of addresses with its field."""
    sides = [(f"spec.ingress[{at}].from", rule.from_) for at, rule in enumerate(policy.spec.ingress)]
    sides += [(f"spec.egress[{at}].to", rule.to) for at, rule in enumerate(policy.spec.egress)]
    for place, peers in sides:
        for index, peer in enumerate(peers):
            if peer.ip_block is not None:
                yield f"{place}[{index}].ipBlock.cidr", peer.ip_block.cidr
                for at, each in enumerate(peer.ip_block.except_):
                    yield f"{place}[{index}].ipBlock.except[{at}]", each


# --- ClusterNetworkPolicy ---------------------------------------------------------------------------------------------

MOST = 25
"""So many rules a direction, peers and protocols a rule, and blocks or names a peer."""
LONGEST_NAME = 100
LONGEST_CIDR = 43

# The definition's own pattern. It says `A-z`, which lets some more signs begin and end a label than a name has.
_DOMAIN = re.compile(r"(\*\.)?([a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.)+[a-zA-z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?\.?")


def cluster_policy_rules(policy: ClusterNetworkPolicy) -> Broken:
    """Every rule that a ClusterNetworkPolicy breaks."""
    spec = policy.spec
    subject = {"namespaces": spec.subject.namespaces, "pods": spec.subject.pods}
    yield from _one_of("spec.subject", subject)
    yield from _pods("spec.subject", spec.subject.namespaces, spec.subject.pods)
    yield from _most("spec.ingress", spec.ingress)
    for index, rule in enumerate(spec.ingress):
        yield from _cluster_rule(f"spec.ingress[{index}]", rule, "from", rule.from_)
    yield from _most("spec.egress", spec.egress)
    for index, out in enumerate(spec.egress):
        yield from _cluster_rule(f"spec.egress[{index}]", out, "to", out.to)


def _cluster_rule(
    place: str,
    rule: ClusterNetworkPolicyIngressRule | ClusterNetworkPolicyEgressRule,
    side: str,
    peers: Sequence[ClusterNetworkPolicyIngressPeer | ClusterNetworkPolicyEgressPeer],
) -> Broken:
    if len(rule.name) > LONGEST_NAME:
        yield invalid(f"{place}.name", rule.name, f"may not be longer than {LONGEST_NAME}")
    if not peers:
        yield invalid(f"{place}.{side}", [], "should have at least 1 items")
    yield from _most(f"{place}.{side}", peers)
    for index, peer in enumerate(peers):
        yield from _cluster_peer(f"{place}.{side}[{index}]", peer, rule.action)
    yield from _most(f"{place}.protocols", rule.protocols)
    for index, each in enumerate(rule.protocols):
        yield from _protocol(f"{place}.protocols[{index}]", each)
    unnamed = any(isinstance(each, ClusterNetworkPolicyEgressPeer) and _has_no_names(each) for each in peers)
    if unnamed and any(each.destination_named_port for each in rule.protocols):
        why = "networks/nodes/domainNames peer cannot be set with namedPorts since there are no namedPorts for them"
        yield invalid(place, "object", why)


def _has_no_names(peer: ClusterNetworkPolicyEgressPeer) -> bool:
    return bool(peer.networks or peer.domain_names or peer.nodes is not None)


def _cluster_peer(
    place: str, peer: ClusterNetworkPolicyIngressPeer | ClusterNetworkPolicyEgressPeer, action: RuleAction
) -> Broken:
    said: dict[str, object] = {"namespaces": peer.namespaces, "pods": peer.pods}
    if isinstance(peer, ClusterNetworkPolicyEgressPeer):
        said |= {
            "nodes": peer.nodes, "networks": peer.networks or None, "domainNames": peer.domain_names or None,
        }  # fmt: skip
        yield from selector_rules(f"{place}.nodes", peer.nodes)
        yield from _networks(f"{place}.networks", peer.networks)
        yield from _domain_names(f"{place}.domainNames", peer.domain_names, action)
    yield from _one_of(place, said)
    yield from _pods(place, peer.namespaces, peer.pods)


def _pods(place: str, namespaces: LabelSelector | None, pods: NamespacedPod | None) -> Broken:
    yield from selector_rules(f"{place}.namespaces", namespaces)
    if pods is not None:
        yield from selector_rules(f"{place}.pods.namespaceSelector", pods.namespace_selector)
        yield from selector_rules(f"{place}.pods.podSelector", pods.pod_selector)


def _networks(field: str, networks: Sequence[str]) -> Broken:
    yield from _most(field, networks)
    yield from duplicate(f"{field}[{{}}]", networks)
    for index, each in enumerate(networks):
        block = block_of(each)
        mapped = isinstance(block, ipaddress.IPv6Network) and block.network_address.ipv4_mapped is not None
        if "/" not in each or block is None or mapped or len(each) > LONGEST_CIDR:
            yield invalid(f"{field}[{index}]", each, "Invalid CIDR format provided")


def _domain_names(field: str, names: Sequence[str], action: RuleAction) -> Broken:
    yield from _most(field, names)
    yield from duplicate(f"{field}[{{}}]", names)
    for index, each in enumerate(names):
        if not _DOMAIN.fullmatch(each):
            yield invalid(f"{field}[{index}]", each, "must be a domain name, with `*.` before it for all names below")
    if names and action is not RuleAction.ACCEPT:
        yield forbidden(field, f"domainNames are only supported for Accept rules, not {action}")


def _protocol(place: str, said: ClusterNetworkPolicyProtocol) -> Broken:
    kinds = {"tcp": said.tcp, "udp": said.udp, "sctp": said.sctp}
    yield from _one_of(place, {**kinds, "destinationNamedPort": said.destination_named_port or None})
    for name, match in kinds.items():
        if match is None:
            continue
        port = match.destination_port
        field = f"{place}.{name}.destinationPort"
        yield from _one_of(field, {"number": port.number, "range": port.range_})
        if port.range_ is not None and not port.range_.start < port.range_.end:
            yield invalid(f"{field}.range", "object", "Start port must be less than End port")


def _one_of(field: str, said: Mapping[str, Part | object | None]) -> Broken:
    """Exactly one of these must be there."""
    there = [name for name, value in said.items() if value is not None]
    if not there:
        yield required(field, f"must have one of {', '.join(said)}")
    elif len(there) > 1:
        yield invalid(field, len(there), f"must have at most 1 of {', '.join(said)}, and has {' and '.join(there)}")


def _most(field: str, items: Sequence[object]) -> Broken:
    if len(items) > MOST:
        yield invalid(field, len(items), f"must have at most {MOST} items")
