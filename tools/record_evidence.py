"""Record what this machine's kernel does, for those who have no such machine.

    python tools/record_evidence.py            write what is missing or no longer true into data/evidence
    python tools/record_evidence.py --all      write everything anew

Each record is a proof (`k8snetlab prove`) of one cluster: the counts of every kind of question, and of the questions
those few that the notebooks show. It needs a machine that can hold a lab; `k8snetlab doctor` says what is missing. A
proof with a disagreement is not written.

Into data/zones goes how real name servers took the plan of notebook 5_5, where they are on this machine; into
data/names what real C libraries ask in notebook 2_3's cluster.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

import k8snetlab as k8s
from k8snetlab.cli.output import written
from k8snetlab.compile import RESOLVERS
from k8snetlab.course.lesson_5_5 import planned
from k8snetlab.linux.host import Entry
from k8snetlab.live import lookups
from k8snetlab.live.proving import fingerprint, prove
from k8snetlab.live.records import evidence, read
from k8snetlab.live.rfc2136 import SERVERS, carried

FOLDER = Path(__file__).resolve().parent.parent / "data" / "evidence"
ZONES = FOLDER.parent / "zones"
NAMES = FOLDER.parent / "names"

BOTH = {
    "node_cidr": "172.18.0.0/16,fd00:172::/64",
    "pod_cidr": "10.244.0.0/16,fd00:10:244::/56",
    "service_cidr": "10.96.0.0/12,fd00:10:96::/108",
}
"""Networks of both families."""


NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "flannel-vxlan": {"cni": "flannel"},
    "cloud": {"cni": "cloud"},
    "calico-bgp": {"cni": "calico", "cni_options": {"mode": "bgp"}},
    "calico-bgp-session-down": {"cni": "calico", "cni_options": {"mode": "bgp", "peers_down": "node-1:node-2"}},
    "calico-tor": {"cni": "calico", "cni_options": {"topology": "tor"}},
    "calico-vxlan": {"cni": "calico", "cni_options": {"mode": "vxlan"}},
}
"""Notebook 3_1's networks, those that a kernel can be given: it has no IPIP, and no programs of Cilium or Weave."""


class Record(NamedTuple):
    """A cluster, and the calls that are kept of its proof."""

    cluster: Callable[[], k8s.Cluster]
    kept: tuple[tuple[str, str], ...]


def _neighbours(**options: object) -> k8s.Cluster:
    return k8s.example("same-node-other-node", **options)


def _lacking(kind: str) -> k8s.Cluster:
    """Notebook 2_1's cluster without one of the three entries by which node-1 finds node-2."""
    cluster = _neighbours()
    node = cluster.network["node-1"]
    route = next(route for route in node.routes if route.via and route.device == "flannel.1")
    neighbour = next(entry for entry in node.neighbours if entry.ip == route.via)
    fdb = next(entry for entry in node.fdb if entry.mac == neighbour.mac)
    entries: Mapping[str, Entry] = {"route": route, "neighbour": neighbour, "fdb": fdb}
    return cluster.without("node-1", entries[kind])


def _dual() -> k8s.Cluster:
    """Notebook 5_7's cluster, with a Service of both families."""
    cluster = k8s.example("service-both-families", **BOTH)
    return cluster.patched("Service", "default/web", {"spec": {"ipFamilyPolicy": "PreferDualStack"}})


def _bound() -> k8s.Cluster:
    """The same, with programs of the Service's pods that listen on IPv4 alone."""
    cluster = _dual()
    for name in ("default/web-1", "default/web-2"):
        cluster = cluster.bound(name, cluster.objects.pod(name).ip)
    return cluster


SHOP = (("shop/api-77bfb645fb-2w2jr", "shop/db-0:5432"),)
PODS = (("default/here-a", "default/here-b:8080"), ("default/here-a", "default/there:8080"))
ONE_WAY = (("default/here-a", "default/there:8080"), ("default/there", "default/here-a:8080"))
BALANCED = (("default/client", "svc/default/web:80"), ("default/web-2", "svc/default/web:80"))
DOORS = tuple(("external", f"node/{node}:{port}") for port in (30081, 30082) for node in ("node-1", "node-3"))
ASKED = (("default/client", "svc/default/web:80"),)
WAYS = (("default/client", "default/far-2:8080"), ("default/client", "svc/default/far:80"))
SICK = tuple(("default/client", f"svc/default/{name}:80") for name in ("orders", "prices", "reviews"))
TIERS = (
    ("shop/web", "shop/api:8081"), ("shop/web", "shop/db:5432"), ("shop/api", "shop/db:5432"),
    ("default/shell", "shop/web:8080"), ("default/shell", "shop/db:5432"),
)  # fmt: skip
SERVER = tuple(("shop/web", target) for target in ("shop/api:8081", "shop/db:5432"))

RECORDS: Mapping[str, Record] = {
    "bookshop-flannel-vxlan": Record(lambda: k8s.example("bookshop"), SHOP),
    "bookshop-flannel-host-gw": Record(lambda: k8s.example("bookshop", cni_options={"backend": "host-gw"}), SHOP),
    "bookshop-flannel-vxlan-nftables": Record(lambda: k8s.example("bookshop", proxy="nftables"), SHOP),
    "bookshop-dual-stack-flannel-vxlan-nftables": Record(
        lambda: k8s.example("bookshop", proxy="nftables", **BOTH), SHOP
    ),
    "bookshop-calico-bgp": Record(lambda: k8s.example("bookshop", cni="calico", cni_options={"mode": "bgp"}), SHOP),
    "bookshop-bridge": Record(lambda: k8s.example("bookshop", cni="bridge"), SHOP),
    "bookshop-dual-stack-flannel-vxlan": Record(lambda: k8s.example("bookshop", **BOTH), SHOP),
    "bookshop-dual-stack-flannel-host-gw": Record(
        lambda: k8s.example("bookshop", cni_options={"backend": "host-gw"}, **BOTH), SHOP
    ),
    "bookshop-dual-stack-bridge": Record(lambda: k8s.example("bookshop", cni="bridge", **BOTH), SHOP),
    "same-node-other-node": Record(_neighbours, PODS),
    "same-node-other-node-host-gw": Record(lambda: _neighbours(cni_options={"backend": "host-gw"}), PODS),
    "same-node-other-node-without-fdb": Record(lambda: _lacking("fdb"), ONE_WAY),
    "same-node-other-node-without-neighbour": Record(lambda: _lacking("neighbour"), ONE_WAY),
    "same-node-other-node-without-route": Record(lambda: _lacking("route"), ONE_WAY),
    "service-three-backends": Record(lambda: k8s.example("service-three-backends"), BALANCED),
    **{
        f"service-three-backends-{mode}": Record(partial(k8s.example, "service-three-backends", proxy=mode), BALANCED)
        for mode in ("nftables", "ebpf")
    },
    "service-node-ports": Record(lambda: k8s.example("service-node-ports"), DOORS),
    "service-node-ports-nftables": Record(lambda: k8s.example("service-node-ports", proxy="nftables"), DOORS),
    "service-both-families": Record(_dual, ASKED),
    "service-both-families-ipv6": Record(
        lambda: k8s.example("service-both-families", **{name: both.split(",")[1] for name, both in BOTH.items()}), ASKED
    ),
    "service-both-families-bound": Record(_bound, ASKED),
    **{
        f"one-flow-many-networks-{name}": Record(partial(k8s.example, "one-flow-many-networks", **options), WAYS)
        for name, options in NETWORKS.items()
    },
    "who-may-talk-three-tiers": Record(
        lambda: k8s.recipes.named("three-tiers").cluster(cni="calico", cni_options={"mode": "vxlan"}), TIERS
    ),
    "who-may-talk-one-server": Record(
        lambda: k8s.recipes.named("one-server").cluster(cni="calico", cni_options={"mode": "vxlan"}), SERVER
    ),
    "services-that-do-not-work": Record(lambda: k8s.example("services-that-do-not-work"), SICK),
}
"""What is recorded, by file name."""


def is_true(path: Path, cluster: k8s.Cluster) -> bool:
    """Whether there is a record of this very state, and the walk agrees with it today."""
    if not path.exists() or read(path).cluster.fingerprint != fingerprint(cluster.network):
        return False
    return evidence(cluster).agrees


def carry() -> None:
    """Write down how real name servers take a plan."""
    ZONES.mkdir(exist_ok=True)
    plan = planned()
    for name, server in SERVERS.items():
        if shutil.which(server.program) is None:
            print(f"{name}.json: no {server.program} here", file=sys.stderr)
            continue
        text = msgspec.json.format(msgspec.json.encode(carried(plan, server)), indent=2) + b"\n"
        path = ZONES / f"{name}.json"
        if not path.exists() or path.read_bytes() != text:
            path.write_bytes(text)
            print(f"{path.name}: written")


def listen() -> int:
    """Write down what C libraries ask; 1 if it is not what the model says."""
    NAMES.mkdir(exist_ok=True)
    wrong = 0
    with tempfile.TemporaryDirectory() as folder:
        programs = {"glibc": "getent"}
        try:
            programs["musl"] = str(lookups.compiled(Path(folder)))
        except k8s.CannotDo as error:
            print(f"musl: {error}", file=sys.stderr)
        for library, program in programs.items():
            for dns in RESOLVERS:
                wrong |= _heard(library, program, dns)
    return wrong


def _heard(library: str, program: str, dns: str) -> int:
    cluster = k8s.example(lookups.EXAMPLE, dns=dns)
    found = lookups.heard(cluster, library, program, _version(library))
    path = NAMES / f"{library}-{dns}.json"
    differing = found.differing(cluster)
    text = _lines(found)
    if differing:
        print(f"{path.name}: the model disagrees about {', '.join(each.name for each in differing)}", file=sys.stderr)
    elif not path.exists() or path.read_bytes() != text:
        path.write_bytes(text)
        print(f"{path.name}: written")
    return int(bool(differing))


def _lines(found: lookups.Heard) -> bytes:
    """JSON with one line for each lookup."""
    empty = msgspec.json.encode(msgspec.structs.replace(found, lookups=()))
    rows = b",\n".join(map(msgspec.json.encode, found.lookups))
    return empty.removesuffix(b"[]}") + b"[\n" + rows + b"\n]}\n"


def _version(library: str) -> str:
    if library == "glibc":
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").removeprefix("glibc ")
    loader = next(iter(sorted(Path("/lib").glob("ld-musl-*.so.1"))), None)
    said = subprocess.run([loader], capture_output=True, text=True, check=False).stderr if loader else ""
    return said.partition("Version ")[2].partition("\n")[0]


def main(arguments: list[str]) -> int:
    """Write the records; exit 1 if the kernel disagrees about one."""
    carry()
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.json"):
        if path.stem not in RECORDS:
            path.unlink()
    wrong = listen()
    for name, record in RECORDS.items():
        path = FOLDER / f"{name}.json"
        cluster = record.cluster()
        if "--all" not in arguments and is_true(path, cluster):
            continue
        proof = prove(cluster)
        if proof.agrees:
            path.write_bytes(written("Proof", proof.keeping(*record.kept).as_dict()))
            print(f"{path.name}: {proof.asked} questions agree")
        else:
            print(f"{path.name}: not written\n{proof}", file=sys.stderr)
            wrong = 1
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
