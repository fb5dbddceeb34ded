"""The rules of real kube-proxies, against ours from the same objects. `tests/golden/README.md` says what counts as
equal.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from k8snetlab.address import Prefix, family
from k8snetlab.api import EndpointSlice, Node, Object, Service, decode
from k8snetlab.linux.netfilter import tables
from k8snetlab.linux.text import iptables_save, nft_list_ruleset
from k8snetlab.services import nftables
from k8snetlab.services.exposure import exposures
from k8snetlab.services.iptables import patches

SHAPES = {4: ("10.244.0.0/16", "10.96.0.0/16"), 6: ("fd00:10:244::/56", "fd00:10:96::/112")}
BOUTIQUE = {4: ("10.244.0.0/16", "10.96.0.0/16"), 6: ("fd00:10:244::/48", "fd00:96::/112")}
"""The pod network and the Service network that the real kube-proxies were told, by family."""

SAVE = {4: "iptables", 6: "ip6tables"}

ARBITRARY = {"KUBE-SERVICES", "KUBE-NODEPORTS", "KUBE-EXTERNAL-SERVICES", "KUBE-PROXY-FIREWALL"}
"""The chains with rules of many Services: kube-proxy writes them in the order of a Go map, another one each time."""


class Dump(msgspec.Struct, frozen=True):
    """What a dump says: the declared chains of each table in order, and the rules of each chain in order."""

    chains: dict[str, list[str]]
    rules: dict[tuple[str, str], list[str]]


def read(text: str) -> Dump:
    """A dump without dates and counters, its rules in order where their order means something."""
    chains: dict[str, list[str]] = {}
    rules: dict[tuple[str, str], list[str]] = {}
    for line in text.splitlines():
        if line.startswith("*"):
            table = line[1:]
            chains[table] = []
        elif line.startswith(":"):
            chains[table].append(line.partition(" [")[0])
        elif line.startswith("-A"):
            rules.setdefault((table, line.split()[1]), []).append(line)
    return Dump(chains, {(t, c): sorted(held) if c in ARBITRARY else held for (t, c), held in rules.items()})


def blocks(text: str, of: int) -> dict[str, list[str]]:
    """kube-proxy's table of a family in a list of nft's: the lines of each set, map and chain by its kind and name.
    kube-proxy makes them in the order of a Go map, another one each time; the lines of each have their order.
    """
    _, _, rest = text.partition(f"table {'ip' if of == 4 else 'ip6'} kube-proxy {{\n")
    table, _, _ = rest.partition("\n}\n")
    held = [block.split("\n") for block in table.replace("\n\tset ", "\n\n\tset ", 1).split("\n\n")]
    return {lines[0].strip(): lines[1:] for lines in held}


class Recorded(msgspec.Struct, frozen=True):
    """The objects of a real cluster."""

    nodes: tuple[Node, ...]
    services: tuple[Service, ...]
    slices: tuple[EndpointSlice, ...]
    networks: Mapping[int, tuple[str, str]]

    @classmethod
    def of(cls, documents: Iterable[Mapping[str, Any]], networks: Mapping[int, tuple[str, str]]) -> "Recorded":
        """The nodes, Services and EndpointSlices among plain objects."""
        objects: list[Object] = []
        for document in documents:
            decoded = decode(document)
            assert decoded.object, decoded.problems
            objects.append(decoded.object)
        return cls(
            tuple(o for o in objects if isinstance(o, Node)),
            tuple(o for o in objects if isinstance(o, Service)),
            tuple(o for o in objects if isinstance(o, EndpointSlice)),
            networks,
        )

    def node(self, name: str, of: int) -> tuple[str, str]:
        """The zone and the own address of the node of that name."""
        node = next(node for node in self.nodes if node.name == name)
        own = [a.address for a in node.status.addresses if a.type == "InternalIP" and family(a.address) == of]
        return node.labels["topology.kubernetes.io/zone"], own[0]

    def saved(self, name: str, of: int) -> str:
        """What iptables-save prints on the node of that name by our rules."""
        zone, own = self.node(name, of)
        ports = exposures(self.services, self.slices, of)
        pods, _ = map(Prefix.of, self.networks[of])
        return iptables_save(tables(of, patches(ports, of, node=name, zone=zone, address=own, pods=pods)))

    def listed(self, name: str, of: int) -> str:
        """What nft lists on the node of that name by our rules."""
        zone, own = self.node(name, of)
        ports = exposures(self.services, self.slices, of)
        pods, services = map(Prefix.of, self.networks[of])
        held = nftables.table(ports, of, node=name, zone=zone, address=own, pods=pods, services=(services,))
        return nft_list_ruleset([held])


@pytest.fixture(scope="module")
def shapes(golden: Path) -> Recorded:
    """The cluster with a Service of every shape."""
    files = ("nodes", "svc", "endpointslices")
    items = (item for name in files for item in json.loads((golden / f"{name}.json").read_text())["items"])
    return Recorded.of(items, SHAPES)


@pytest.fixture(scope="module")
def boutique(shared: Path) -> Recorded:
    """A real application on a real cluster."""
    api = json.loads((shared / "golden" / "boutique" / "api.json").read_text())
    return Recorded.of((item for kind in ("nodes", "services", "endpointslices") for item in api[kind]), BOUTIQUE)


@pytest.mark.parametrize("of", [4, 6])
@pytest.mark.parametrize("node", ["n1", "n2", "n3"])
def test_a_node_has_the_rules_that_kube_proxy_wrote(shapes: Recorded, golden: Path, node: str, of: int) -> None:
    """Chains, rules and their order equal the dump of the real node, for every shape of Service."""
    ours, real = read(shapes.saved(node, of)), read((golden / f"{node}.{SAVE[of]}").read_text())
    assert ours.rules == real.rules
    assert ours.chains == real.chains


@pytest.mark.parametrize("of", [4, 6])
@pytest.mark.parametrize("node", ["b-node-1", "b-node-2", "b-node-3"])
def test_a_real_application_has_the_rules_that_kube_proxy_wrote(
    boutique: Recorded, shared: Path, node: str, of: int
) -> None:
    """The same for somebody else's manifests on another cluster."""
    dump = (shared / "golden" / "boutique" / f"{node}.{SAVE[of]}").read_text()
    ours, real = read(boutique.saved(node, of)), read(dump)
    assert ours.rules == real.rules
    assert ours.chains == real.chains


@pytest.mark.parametrize("of", [4, 6])
def test_node_ports_come_after_every_service_address(shapes: Recorded, of: int) -> None:
    """The one rule of KUBE-SERVICES that has a place is the last."""
    services = [line for line in shapes.saved("n1", of).splitlines() if line.startswith("-A KUBE-SERVICES")]
    assert services[-1].endswith("-j KUBE-NODEPORTS")


@pytest.mark.parametrize("of", [4, 6])
@pytest.mark.parametrize("node", ["n1", "n2", "n3"])
def test_a_node_has_the_table_that_kube_proxy_wrote(shapes: Recorded, golden: Path, node: str, of: int) -> None:
    """In nftables mode: sets, maps with their elements, chains and rules equal the dump, line by line."""
    assert blocks(shapes.listed(node, of), of) == blocks((golden / f"{node}.nft").read_text(), of)


@pytest.mark.parametrize("of", [4, 6])
@pytest.mark.parametrize("node", ["b-node-1", "b-node-2", "b-node-3"])
def test_a_real_application_has_the_table_that_kube_proxy_wrote(
    boutique: Recorded, shared: Path, node: str, of: int
) -> None:
    """The same for somebody else's manifests on another cluster."""
    dump = (shared / "golden" / "boutique" / f"{node}.nft").read_text()
    assert blocks(boutique.listed(node, of), of) == blocks(dump, of)
