"""A cluster nobody thought of, what happened to it, and what it is asked: as a value.

A case holds the objects as they are in the running cluster, with all their addresses, so that one can be taken away
and the others stay what they are. `cases` draws them: everything follows from the seed.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import yaml

from k8snetlab import api
from k8snetlab.cluster import Cluster
from k8snetlab.errors import LabError
from k8snetlab.linux.host import Network
from k8snetlab.live import Probe
from tests.live import happenings
from tests.live.happenings import Happening
from tests.live.questions import SILENT, addresses, everybody, pods, services
from tests.live.shop import DUAL_STACK

CNIS: tuple[tuple[str, dict[str, str]], ...] = (
    ("flannel", {}),
    ("flannel", {"hairpin": "off"}),
    ("flannel", {"backend": "host-gw"}),
    ("flannel", {"directrouting": "on"}),
    ("flannel", {"mtu": "1400"}),
    ("bridge", {}),
    ("calico", {"mode": "bgp"}),
    ("calico", {"mode": "bgp", "topology": "tor"}),
    ("calico", {"mode": "vxlan"}),
    ("calico", {"mode": "vxlan-crosssubnet"}),
    ("bridge", {"hairpin": "off"}),
    ("cloud", {}),
    ("cloud", {"source-dest-check": "on"}),
)
PROXIES = ("iptables", "iptables", "nftables")
"""The proxy modes, each as often as it stands here."""

NODES = ("172.18.0.0/16", "172.18.1.0/24,172.18.2.0/24")
EVERY = 9
"""Of so many seeds one has a cluster of both families."""

PROBES = 60
"""So many are drawn for a case; those in a family that their sender does not have are left out."""


class Case(msgspec.Struct, frozen=True):
    """The objects of a cluster as it runs, the options it was built with, what happened, and the probes."""

    objects: tuple[Mapping[str, Any], ...]
    options: Mapping[str, Any]
    happened: tuple[Happening, ...] = ()
    probes: tuple[Probe, ...] = ()

    @property
    def cluster(self) -> Cluster:
        """The cluster as compiled. Raises `LabError` if the objects do not fit each other any more, and where there is
        no node: some would be assumed.
        """
        if not any(each["kind"] == "Node" for each in self.objects):
            raise LabError("a case has at least one node")
        return Cluster.load(*self.objects, **self.options)

    @property
    def network(self) -> Network:
        """The machines after what happened."""
        return happenings.after(self.cluster.network, self.happened)

    @property
    def manifest(self) -> str:
        """The objects as YAML."""
        return str(yaml.safe_dump_all(map(_plain, self.objects), sort_keys=False))

    def __str__(self) -> str:
        said = (f"{key} {value}" for key, value in self.options.items() if value)
        return f"{', '.join(said)}; {'; '.join(map(str, self.happened)) or 'as compiled'}"


def _plain(value: Any) -> Any:
    """Without subclasses of `str`, which are enums here."""
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, str) else value


def dual(seed: int) -> bool:
    """Whether the cluster of a seed has both families."""
    return seed % EVERY == 1


def cases(seed: int, count: int) -> Iterator[Case]:
    """The cluster of a seed as compiled, and the same after changes of its machines; each with its probes."""
    rng = random.Random(seed)
    shop = cluster(rng, DUAL_STACK if dual(seed) else {"node_cidr": rng.choice(NODES)})
    case = running(shop)
    for number in range(count):
        happened = happenings.chosen(rng, shop.network) if number else ()
        yield msgspec.structs.replace(case, happened=happened, probes=tuple(questions(rng, shop)))


def running(shop: Cluster) -> Case:
    """The cluster with every address that it has been given written down, as a dump of it would have them."""
    held = shop.objects
    own = (each for each in held.of(api.EndpointSlice) if each.metadata.name == "kubernetes")
    objects = (*held.nodes, *held.pods, *held.services, *own)
    said = {name: getattr(shop.options, name) for name in ("cni", "proxy", "node_cidr", "pod_cidr", "service_cidr")}
    options = {**said, "cni_options": dict(shop.options.cni_options)}
    return Case(tuple(map(api.to_dict, objects)), options)


# A cluster


def cluster(rng: random.Random, networks: Mapping[str, str]) -> Cluster:
    """A cluster of one to four nodes, a few pods and Services, by one of the CNIs and one of the proxy modes."""
    cni, options = rng.choice(CNIS)
    proxy = rng.choice(PROXIES)
    count = rng.randint(1, 4)
    families = {"ipFamilyPolicy": "RequireDualStack"} if networks == DUAL_STACK else {}
    objects = [*_pods(rng, count), *_services(rng, families)]
    return Cluster.load(*objects, cni=cni, cni_options=options, proxy=proxy, nodes=count, **networks)


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


def _services(rng: random.Random, families: Mapping[str, str]) -> Iterator[Mapping[str, object]]:
    for app in "abc":
        if rng.random() < 0.2:
            continue
        ports = [{"port": 80, "targetPort": rng.choice((8080, 9090)), "name": "tcp"}]
        if rng.random() < 0.3:
            ports.append({"port": 53, "targetPort": 5353, "protocol": "UDP", "name": "udp"})
        spec: dict[str, object] = {
            "selector": {"app": app},
            "type": rng.choice(("ClusterIP", "NodePort")),
            "ports": ports,
            **families,
        }
        if spec["type"] == "NodePort" and rng.random() < 0.4:
            spec["externalTrafficPolicy"] = "Local"
        if rng.random() < 0.2:
            spec["internalTrafficPolicy"] = "Local"
        if rng.random() < 0.2:
            spec["sessionAffinity"] = "ClientIP"
        yield {"apiVersion": "v1", "kind": "Service", "metadata": {"name": app}, "spec": spec}


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
