"""Clusters that nobody thought of, and what happens to them.

Everything follows from a seed: the cluster (nodes, pods, CNI, Services), what is then changed on its machines
(settings flipped, MTUs, hairpin modes and devices changed, entries lost) and what is asked. A failure prints the
seed and the round; `PYTHONPATH=. python -m tests.live.fuzz SEED ROUNDS` plays it again.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

import msgspec

from k8snetlab import live
from k8snetlab.cluster import Cluster
from k8snetlab.linux.host import Entry, Host, Network
from k8snetlab.linux.link import Link, LinkKind
from k8snetlab.linux.netfilter import Jump
from k8snetlab.live import Compared, Probe
from tests.live.questions import SILENT, addresses, everybody, pods, services

CNIS: tuple[tuple[str, dict[str, str]], ...] = (
    ("flannel", {}),
    ("flannel", {"hairpin": "off"}),
    ("flannel", {"backend": "host-gw"}),
    ("flannel", {"directrouting": "on"}),
    ("flannel", {"mtu": "1400"}),
    ("bridge", {}),
    ("bridge", {"hairpin": "off"}),
)
NODES = ("172.18.0.0/16", "172.18.1.0/24,172.18.2.0/24")
PROBES = 60
ROUNDS_A_CLUSTER = 4


# A cluster


def cluster(rng: random.Random) -> Cluster:
    """A cluster of one to four nodes, a few pods and Services, by one of the CNIs; one in ten has both families."""
    dual = rng.random() < 0.1
    cni, options = rng.choice(CNIS)
    count = rng.randint(1, 4)
    families = {
        "node_cidr": "172.18.0.0/16,fd00:172::/64",
        "pod_cidr": "10.244.0.0/16,fd00:10:244::/56",
        "service_cidr": "10.96.0.0/12,fd00:10:96::/108",
    }
    networks = families if dual else {"node_cidr": rng.choice(NODES)}
    objects = [*_pods(rng, count), *_services(rng, dual=dual)]
    return Cluster.load(*objects, cni=cni, cni_options=options, nodes=count, **networks)


def _pods(rng: random.Random, nodes: int) -> Iterator[Mapping[str, object]]:
    for number in range(rng.randint(2, 8)):
        ports: list[dict[str, object]] = [
            {"containerPort": port} for port in rng.sample((8080, 9090), rng.randint(0, 2))
        ]
        if rng.random() < 0.3:
            ports.append({"containerPort": 5353, "protocol": "UDP"})
        ready = "True" if rng.random() < 0.9 else "False"
        yield {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"p{number}", "labels": {"app": rng.choice("abc")}},
            "spec": {
                "nodeName": f"node-{rng.randint(1, nodes)}",
                "hostNetwork": number == 0 and rng.random() < 0.3,
                "containers": [{"name": "c", "image": "i", "ports": ports}],
            },
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
        }


def _services(rng: random.Random, *, dual: bool) -> Iterator[Mapping[str, object]]:
    for app in "abc":
        if rng.random() < 0.2:
            continue
        udp = rng.random() < 0.3
        spec: dict[str, object] = {
            "selector": {"app": app},
            "type": rng.choice(("ClusterIP", "NodePort")),
            "ports": [{"port": 80, "targetPort": rng.choice((8080, 9090)), "name": "tcp"}],
        }
        if udp:
            spec["ports"] = [*spec["ports"], {"port": 53, "targetPort": 5353, "protocol": "UDP", "name": "udp"}]  # type: ignore[misc]
        if spec["type"] == "NodePort" and rng.random() < 0.4:
            spec["externalTrafficPolicy"] = "Local"
        if rng.random() < 0.2:
            spec["internalTrafficPolicy"] = "Local"
        if rng.random() < 0.2:
            spec["sessionAffinity"] = "ClientIP"
        if dual:
            spec["ipFamilyPolicy"] = "RequireDualStack"
        yield {"apiVersion": "v1", "kind": "Service", "metadata": {"name": app}, "spec": spec}


# What happens to it

Change = tuple[str, Network]


def changed(rng: random.Random, network: Network) -> tuple[Network, tuple[str, ...]]:
    """The network after nought to three things have happened to its machines, and what they were."""
    said: list[str] = []
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        text, network = rng.choice(HAPPENINGS)(rng, network)
        said.append(text)
    return network, tuple(said)


def _flipped(rng: random.Random, network: Network) -> Change:
    """Another value of a setting that the walk reads."""
    host = _any(rng, network, "machine", "machine", "container", "router")
    key = rng.choice([key for key in host.sysctls if key != "net.ipv4.ip_default_ttl"])
    values = (0, 1, 2) if key.endswith(("rp_filter", "arp_ignore")) else (0, 1)
    value = rng.choice([each for each in values if each != host.sysctls[key]])
    after = msgspec.structs.replace(host, sysctls={**host.sysctls, key: value})
    return f"{host.name}: {key} = {value}", network.replacing(after)


def _well_known(rng: random.Random, network: Network) -> Change:
    """Another value of one of the settings that break real clusters."""
    keys = {
        "net.ipv4.ip_forward": (0,),
        "net.ipv4.conf.all.rp_filter": (1, 2),
        "net.ipv4.conf.eth0.rp_filter": (1, 2),
        "net.ipv4.conf.cni0.rp_filter": (1, 2),
        "net.ipv4.conf.flannel.1.rp_filter": (1, 2),
        "net.ipv4.conf.all.route_localnet": (0, 1),
        "net.bridge.bridge-nf-call-iptables": (0,),
        "net.bridge.bridge-nf-call-ip6tables": (0,),
        "net.ipv6.conf.all.forwarding": (0,),
    }
    host = _any(rng, network, "machine")
    key = rng.choice([key for key in keys if key in host.sysctls])
    value = rng.choice(keys[key])
    after = msgspec.structs.replace(host, sysctls={**host.sysctls, key: value})
    return f"{host.name}: {key} = {value}", network.replacing(after)


def _lost(rng: random.Random, network: Network) -> Change:
    """One route, neighbour or FDB entry less."""
    host = _any(rng, network, "machine", "machine", "container", "router", "client")
    entries: list[Entry] = [*host.routes, *host.neighbours, *host.fdb]
    if not entries:
        return f"{host.name} has nothing to lose", network
    entry = rng.choice(entries)
    return f"{host.name} without {entry}", network.without(host.name, entry)


def _rule_lost(rng: random.Random, network: Network) -> Change:
    """One netfilter rule less."""
    host = _any(rng, network, "machine")
    rules = [rule for tables in (host.netfilter.ipv4, host.netfilter.ipv6) for t in tables.values() for rule in t.rules]
    if not rules:
        return f"{host.name} has no rules", network
    rule = rng.choice(rules)
    return f"{host.name} without {rule.table}: {rule.text}", network.without(host.name, rule)


def _jump_lost(rng: random.Random, network: Network) -> Change:
    """A base chain that no longer jumps to a program's chain."""
    host = _any(rng, network, "machine")
    rules = [
        rule
        for tables in (host.netfilter.ipv4, host.netfilter.ipv6)
        for table in tables.values()
        for chain in table.chains.values()
        if chain.policy
        for rule in chain.rules
        if isinstance(rule.target, Jump)
    ]
    if not rules:
        return f"{host.name} has no rules", network
    rule = rng.choice(rules)
    return f"{host.name} without {rule.table}: {rule.text}", network.without(host.name, rule)


def _hairpin(rng: random.Random, network: Network) -> Change:
    """A bridge port that sends frames back, or no longer does."""
    host = _any(rng, network, "machine")
    ports = [link for link in host.links if link.master]
    if not ports:
        return f"{host.name} has no ports", network
    port = rng.choice(ports)
    return _with_link(network, host, msgspec.structs.replace(port, hairpin=not port.hairpin), "hairpin")


def _mtu(rng: random.Random, network: Network) -> Change:
    """A device with another MTU."""
    host = _any(rng, network, "machine", "container", "switch", "router")
    link = rng.choice([link for link in host.links if link.kind is not LinkKind.LOOPBACK])
    return _with_link(network, host, msgspec.structs.replace(link, mtu=rng.choice((1280, 1400, 1450, 1500))), "mtu")


def _down(rng: random.Random, network: Network) -> Change:
    """A device that somebody has set down."""
    host = _any(rng, network, "machine", "container", "switch")
    link = rng.choice([link for link in host.links if link.kind is not LinkKind.LOOPBACK])
    return _with_link(network, host, msgspec.structs.replace(link, up=False), "down")


def _with_link(network: Network, host: Host, link: Link, what: str) -> Change:
    links = tuple(link if held.name == link.name else held for held in host.links)
    text = {"hairpin": f"hairpin {link.hairpin}", "mtu": f"mtu {link.mtu}", "down": "down"}[what]
    return f"{host.name} {link.name}: {text}", network.replacing(msgspec.structs.replace(host, links=links))


def _any(rng: random.Random, network: Network, *kinds: str) -> Host:
    kind = rng.choice(kinds)
    return rng.choice([host for host in network.values() if host.kind == kind] or list(network.values()))


HAPPENINGS: tuple[Callable[[random.Random, Network], Change], ...] = (
    _flipped, _well_known, _well_known, _lost, _lost, _rule_lost, _jump_lost, _hairpin, _mtu, _down,
)  # fmt: skip


# What is asked


def questions(rng: random.Random, shop: Cluster) -> list[Probe]:
    """Some probes: to Services and node ports, to pods, to machines, by TCP and UDP, small and large."""
    senders = everybody(shop, some=len(pods(shop)) or 1)
    ways = [_to_machine(rng, shop, senders) for _ in range(PROBES // 2)]
    to_services = list(services(shop, senders))
    ways += rng.sample(to_services, min(len(to_services), PROBES - len(ways)))
    return [_sized(rng, probe) for probe in ways if _asks(shop, probe)]


def _to_machine(rng: random.Random, shop: Cluster, senders: list[str]) -> Probe:
    target = rng.choice([host for host in shop.network.values() if addresses(host)])
    port = rng.choice([(each.protocol, each.port) for each in target.listeners] + [("UDP", SILENT), ("TCP", SILENT)])
    return Probe(rng.choice(senders), rng.choice(addresses(target)), port[1], port[0])


def _sized(rng: random.Random, probe: Probe) -> Probe:
    if probe.protocol != "UDP" or rng.random() < 0.5:
        return probe
    return msgspec.structs.replace(probe, size=rng.choice((1200, 1390, 1430, 2000)), whole=rng.random() < 0.7)


def _asks(shop: Cluster, probe: Probe) -> bool:
    """Whether the sender has an address of the family at all."""
    six = ":" in probe.address
    links = shop.network[probe.source].links
    return any((address.family == 6) == six for link in links for address in link.addresses if link.name != "lo")


# Rounds


class Round(msgspec.Struct, frozen=True):
    """One round: the seed of its cluster, its number, what had happened, and how every probe ended."""

    seed: int
    number: int
    options: str
    happened: tuple[str, ...]
    compared: tuple[Compared, ...]

    @property
    def wrong(self) -> list[Compared]:
        """The probes on which walk and kernel disagree."""
        return [each for each in self.compared if not each.agrees]

    def __str__(self) -> str:
        head = f"seed {self.seed} round {self.number}: {self.options}; {'; '.join(self.happened) or 'as compiled'}"
        return "\n".join([head, *(f"    {each}" for each in self.wrong)])


def rounds(seed: int, count: int = ROUNDS_A_CLUSTER) -> Iterator[Round]:
    """The rounds of the cluster of one seed."""
    rng = random.Random(seed)
    shop = cluster(rng)
    with live.Lab(shop) as lab:
        for number in range(count):
            network, happened = (shop.network, ()) if number == 0 else changed(rng, shop.network)
            lab.apply(network)
            probes = questions(rng, shop)
            compared = _again(lab, network, live.compare(network, probes, lab.probe(probes)))
            yield Round(seed, number, f"{shop!r} {dict(shop.options.cni_options)}", happened, compared)


def _again(lab: live.Lab, network: Network, compared: tuple[Compared, ...]) -> tuple[Compared, ...]:
    """The same, with each probe that disagrees asked once more by itself, a little later: a machine without a route
    says so to one sender five times, and then once a second only (`ip_error`), which no lab can change; and one probe
    may have taught its sender the MTU of a path that another takes.
    """
    told = []
    for each in compared:
        if not each.agrees:
            time.sleep(1.1)
            lab.forget()
            each = live.compare(network, [each.probe], lab.probe([each.probe]))[0]
        told.append(each)
    return tuple(told)


def main() -> None:
    """Play seeds from SEED on, ROUNDS of them, and print what disagrees."""
    first, many = int(sys.argv[1]), int(sys.argv[2])
    ends: Counter[str] = Counter()
    played = wrong = 0
    for seed in range(first, first + many):
        for each in rounds(seed):
            played += 1
            ends.update(str(done.seen.client) for done in each.compared)
            if each.wrong:
                wrong += 1
                sys.stdout.write(f"{each}\n")
                sys.stdout.flush()
    sys.stdout.write(f"{played} rounds, {wrong} with disagreements; {dict(ends)}\n")


if __name__ == "__main__":
    main()
