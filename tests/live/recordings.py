"""Clusters whose real rules and real connections were recorded, and who asked there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

import msgspec

from k8snetlab import live
from k8snetlab.cluster import Cluster
from k8snetlab.compile.underlay import client, led_through
from k8snetlab.linux.host import Network
from k8snetlab.linux.netfilter import Netfilter
from k8snetlab.live import Probe
from k8snetlab.live.kernel_trace import uncounted
from k8snetlab.trace import Client
from tests.live.questions import addresses

Seen = tuple[Client, str, str]
"""What a client was told, who answered, and the source that he saw."""

Answers = dict[Probe, set[Seen]]


class Rules(StrEnum):
    """Whose rules the machines have: those that were compiled, or those that the real kube-proxy wrote."""

    COMPILED = "compiled"
    RECORDED = "recorded"


def with_client(cluster: Cluster, network: Network, own: Sequence[str], via: str) -> tuple[Network, str]:
    """The network with a client on the underlay, whose traffic for Services is led to the node `via`; and its name."""
    network, name = client(cluster.layout, network, own[0])
    for address in virtual(cluster):
        if (":" in address) == (":" in own[0]):
            network = led_through(cluster.layout, network, name, address, via)
    return network, name


def virtual(cluster: Cluster) -> list[str]:
    """The addresses of Services that are nobody's card: ClusterIPs, external IPs, those of load balancers."""
    return [
        address
        for service in cluster.objects.services
        for address in (
            *service.cluster_ips,
            *service.spec.external_ips,
            *(each.ip for each in service.load_balancer if each.ip),
        )
    ]


def services(cluster: Cluster, network: Network, sources: Sequence[str]) -> Iterator[tuple[str, Probe]]:
    """Every source to every port of every Service, at each of its addresses and at every node: its key and a probe.

    A source asks in the families that it has an address of.
    """
    nodes = [address for node in cluster.objects.nodes for address in node.addresses]
    for service in cluster.objects.services:
        own = [address for address in virtual(cluster) if address in _own(cluster, service.key)]
        for port in service.spec.ports:
            targets = [(address, port.port) for address in own]
            targets += [(address, port.node_port) for address in nodes if port.node_port]
            for source in sources:
                families = {":" in address for address in addresses(network[source])}
                for address, number in targets:
                    if (":" in address) in families:
                        yield service.key, Probe(source, address, number, str(port.protocol))


def _own(cluster: Cluster, key: str) -> set[str]:
    service = cluster.objects.service(key)
    balanced = (each.ip for each in service.load_balancer if each.ip)
    return {*service.cluster_ips, *service.spec.external_ips, *balanced}


def sticky(cluster: Cluster) -> set[str]:
    """The keys of Services with affinity, where the first choice decides the next."""
    return {service.key for service in cluster.objects.services if str(service.spec.session_affinity) == "ClientIP"}


def restore(lab: live.Lab, folder: Path, nodes: Sequence[str], mode: str) -> None:
    """The rules that were recorded in a proxy mode instead of those that were compiled; everything else stays."""
    hosts = (msgspec.structs.replace(lab.network[name], netfilter=Netfilter(), nftables=()) for name in nodes)
    lab.apply(lab.network.replacing(*hosts))
    for name in nodes:
        for ending, restoring, saving in DUMPS[mode]:
            rules = (folder / f"{name}.{ending}").read_text(encoding="utf-8")
            assert lab.run(name, *restoring.split(), text=rules).status == 0
            assert as_rules(lab.run(name, *saving.split()).out) == as_rules(rules)


DUMPS = {
    "iptables": [(each, f"{each}-restore", f"{each}-save") for each in ("iptables", "ip6tables")],
    "nftables": [("nft", "nft -f -", "nft list ruleset")],
}
"""The dumps of a mode: how a file ends, what reads it, and what would write it."""


def as_rules(dump: str) -> list[str]:
    """The rules of a dump of iptables, or all that one of nftables holds, without what was counted."""
    lines = [" ".join(uncounted(line).split()) for line in dump.splitlines()]
    appended = [line for line in lines if line.startswith("-A ")]
    return appended or [line for line in lines if line]


def answers(
    network: Network, often: Mapping[Probe, int], folder: Path, nodes: Sequence[str], mode: str, rules: Rules
) -> Answers:
    """What the kernel answers under these rules, each probe put so often."""
    with live.Lab(network) as lab:
        if rules is Rules.RECORDED:
            restore(lab, folder, nodes, mode)
        return asked(lab, often)


def asked(lab: live.Lab, often: Mapping[Probe, int]) -> Answers:
    """All that was seen of each probe when it is put so many times; those that are put alike, at once."""
    sights: Answers = {probe: set() for probe in often}
    for tries in sorted(set(often.values())):
        every = [probe for probe, count in often.items() if count == tries] * tries
        for probe, sight in zip(every, lab.probe(every), strict=True):
            sights[probe].add((sight.client, sight.backend, sight.source))
    return sights


def again(lab: live.Lab, often: Mapping[Probe, int], walked: Answers, seen: Answers) -> Answers:
    """The same answers, but what was silent and should not have been is asked once more by itself: all labs of a
    machine share one table of neighbours, and its kernel drops packets while that is full. A network that loses packets
    will lose them again.
    """
    silent = [probe for probe, ends in seen.items() if {end[0] for end in ends - walked[probe]} == {Client.TIMEOUT}]
    for probe in silent:
        lab.forget()
        seen = {**seen, **asked(lab, {probe: often[probe]})}
    return seen


def said(network: Network, probes: Sequence[Probe]) -> Answers:
    """All that the walk says may happen."""
    return {
        probe: {(each.client, each.backend, each.source) for each in live.predicted(network, probe)} for probe in probes
    }


def surprises(walked: Answers, seen: Answers) -> list[str]:
    """The probes of which something was seen that the walk does not say."""
    return [
        f"{probe}: the walk says {walked[probe]}; seen {ends}" for probe, ends in seen.items() if ends - walked[probe]
    ]
