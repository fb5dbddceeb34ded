"""The walk answers as real connections did: probes sent through a real cluster's rules, in both modes."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from k8snetlab.cluster import Cluster
from k8snetlab.trace import Client

GOLDEN = Path(__file__).parent / "golden"
BOUTIQUE = Path(__file__).resolve().parents[2] / "shared" / "golden" / "boutique"
RECORDED = ("nodes", "namespaces", "pods", "services", "endpointslices")  # the file has workloads without templates
VERDICTS = {"OPEN": Client.OPEN, "REFUSED": Client.REFUSED, "TIMEOUT": Client.TIMEOUT}


MODES = ("iptables", "nftables")
"""The modes of kube-proxy that were recorded."""


@cache
def golden(mode: str) -> Cluster:
    """The golden cluster: a plain bridge with host routes, as its README says."""
    names = ("nodes", "pods", "svc", "endpointslices")
    return Cluster.load(
        *(GOLDEN / f"{name}.json" for name in names),
        cni="bridge",
        proxy=mode,
        pod_cidr="10.244.0.0/16,fd00:10:244::/56",
        service_cidr="10.96.0.0/12,fd00:10:96::/108",
    )


def golden_probes() -> list[Any]:
    """`(mode, source, address, port, verdict, who answered, source he saw)` of each probe of the files."""
    probes = []
    for mode in MODES:
        for key, (verdict, answer) in json.loads((GOLDEN / f"probe-{mode}.json").read_text()).items():
            source, address, port = key.split()
            pod, seen = "", ""
            if answer:
                name, peer, _ = answer.split()
                pod = name.removeprefix("fl-")
                seen = peer.removeprefix("::ffff:").rpartition(":")[0]
            name = f"{mode}-{source}-{address}-{port}"
            probes.append(pytest.param(mode, source, address, int(port), verdict, pod, seen, id=name))
    return probes


def machine(name: str) -> tuple[str, str | None]:
    """The sender that a name of the golden lab means, and the node by which its traffic to Services comes in."""
    if name == "fl-ext":
        return "external:172.18.0.100", "n1"
    kind, number = name.removeprefix("fl-")[0], name.removeprefix("fl-")[1:]
    return (f"default/p{number}", None) if kind == "p" else (f"node/n{number}", None)


@pytest.mark.parametrize(("mode", "source", "address", "port", "verdict", "pod", "seen"), golden_probes())
def test_a_probe_of_the_golden_cluster_ends_as_it_did(
    mode: str, source: str, address: str, port: int, verdict: str, pod: str, seen: str
) -> None:
    """Verdict, backend and the source he saw are among the outcomes of the walk, and no verdict differs."""
    who, via = machine(source)
    on_link = address.startswith("172.18.")
    outcomes = golden(mode).trace(who, f"{address}:{port}", via=None if on_link else via).outcomes
    assert {outcome.client for outcome in outcomes} == {VERDICTS[verdict]}
    if pod:
        backends = {(outcome.backend.pod, outcome.source_seen) for outcome in outcomes if outcome.backend}
        assert (pod, seen) in backends


@cache
def boutique(mode: str) -> Cluster:
    """Online Boutique on three real nodes."""
    recorded = json.loads((BOUTIQUE / "api.json").read_text())
    return Cluster.load(
        *(document for kind in RECORDED for document in recorded[kind]),
        cni="bridge",
        proxy=mode,
        pod_cidr="10.244.0.0/16,fd00:10:244::/56",
        service_cidr="10.96.0.0/16,fd00:10:96::/108",
        node_cidr="192.168.80.0/24",
    )


@pytest.mark.skipif(not BOUTIQUE.is_dir(), reason="../shared is absent: the recorded boutique cluster is not here")
@pytest.mark.parametrize("mode", MODES)
def test_every_probe_of_the_boutique_ends_as_it_did(mode: str) -> None:
    """2 nodes' worth of clients, every Service address and node port: verdicts, backends and sources agree."""
    clients = json.loads((BOUTIQUE / "clients.json").read_text())
    wrong: list[str] = []
    for probe in json.loads((BOUTIQUE / "probes.json").read_text()):
        if probe["mode"] != mode:
            continue
        kind, _, name = probe["from"].partition(":")
        who = {"pod": name, "node": f"node/{name}", "ext": f"external:{clients[probe['from']]['ips'][0]}"}[kind]
        led = clients[probe["from"]].get("routes_service_and_vip_ranges_via")
        target = f"{probe['to']}:{probe['port']}/{probe['proto']}"
        outcomes = boutique(mode).trace(who, target, via=led if probe["kind"] != "nodePort" else None).outcomes
        said = {str(outcome.client) for outcome in outcomes}
        opened = [outcome for outcome in outcomes if outcome.client is Client.OPEN]
        backends = {outcome.backend.name for outcome in opened if outcome.backend}
        seen = {outcome.source_seen for outcome in opened}
        answered = probe["backends"]  # empty for the API server, which does not say whom it saw
        agree = said == set(probe["verdicts"]) and (not answered or backends == set(answered))
        if not agree or not seen >= set(probe["source_seen"]):
            wrong.append(f"{probe['from']} → {target} {probe['kind']}: {said} {backends} {seen}")
    assert not wrong, "\n".join(wrong[:20])
