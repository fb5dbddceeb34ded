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
from k8snetlab.linux.text import iptables_save
from k8snetlab.services.exposure import exposures
from k8snetlab.services.iptables import patches

PODS = {4: Prefix.of("10.244.0.0/16"), 6: Prefix.of("fd00:10:244::/56")}
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


class Recorded(msgspec.Struct, frozen=True):
    """The objects of a real cluster."""

    nodes: tuple[Node, ...]
    services: tuple[Service, ...]
    slices: tuple[EndpointSlice, ...]

    @classmethod
    def of(cls, documents: Iterable[Mapping[str, Any]]) -> "Recorded":
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
        )

    def saved(self, name: str, of: int) -> str:
        """What iptables-save prints on the node of that name by our rules."""
        node = next(node for node in self.nodes if node.name == name)
        own = [a.address for a in node.status.addresses if a.type == "InternalIP" and family(a.address) == of]
        ports = exposures(self.services, self.slices, of)
        zone = node.labels["topology.kubernetes.io/zone"]
        return iptables_save(tables(of, patches(ports, of, node=name, zone=zone, address=own[0], pods=PODS[of])))


@pytest.fixture(scope="module")
def shapes(golden: Path) -> Recorded:
    """The cluster with a Service of every shape."""
    files = ("nodes", "svc", "endpointslices")
    return Recorded.of(item for name in files for item in json.loads((golden / f"{name}.json").read_text())["items"])


@pytest.fixture(scope="module")
def boutique(shared: Path) -> Recorded:
    """A real application on a real cluster."""
    api = json.loads((shared / "golden" / "boutique" / "api.json").read_text())
    return Recorded.of(item for kind in ("nodes", "services", "endpointslices") for item in api[kind])


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
