"""What did the kernel say, for those who cannot ask it?

Evidence is a proof that was written down: `data/evidence` holds the counts of every kind of question, and of the
questions those that the notebooks show. It is about one state, known by its fingerprint. If anything changes — a
manifest, an option, a rule that the compiler writes — the fingerprint does too, and the evidence is no longer found:
what was true of another state is no evidence.

What the walk says is never read from a record: it is walked again, and has to agree with what the kernel did then.

Not kept: when it was recorded. What counts is the kernel, and it is named.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from k8snetlab.cluster import Cluster, examples_folder
from k8snetlab.errors import CannotDo
from k8snetlab.linux.host import Network
from k8snetlab.live.probes import Probe
from k8snetlab.live.proof import Answer, Proof
from k8snetlab.live.proving import endings, fingerprint, prove

__all__ = ["evidence", "read", "recorded"]

RERUN = "K8SNETLAB_LIVE"
"""The environment variable that asks this machine's kernel instead of the records: `K8SNETLAB_LIVE=1`."""


def evidence(cluster: Cluster) -> Proof:
    """The recorded proof for a cluster just as it is, from `data/evidence`; with `K8SNETLAB_LIVE=1` a new one, from
    this machine's kernel. What the walk says is walked now; only what the kernel did is read.

    Raises `CannotDo` if none is recorded for this state, or if this machine cannot make one.
    """
    if os.environ.get(RERUN, "0") not in ("", "0"):
        return prove(cluster)
    wanted = fingerprint(cluster.network)
    for path in recorded():
        proof = read(path)
        if proof.cluster.fingerprint == wanted:
            return msgspec.structs.replace(proof, probes=tuple(_walked(cluster.network, each) for each in proof.probes))
    raise CannotDo(f"no evidence is recorded for this cluster as it is; {RERUN}=1 asks the kernel of this machine")


def recorded() -> list[Path]:
    """The files with evidence that come with the package."""
    return sorted((examples_folder() / "evidence").glob("*.json"))


def read(path: Path) -> Proof:
    """A proof that `k8snetlab prove --evidence` wrote."""
    return msgspec.json.decode(path.read_bytes(), type=Proof)


def _walked(network: Network, answer: Answer) -> Answer:
    """The same answer of the kernel beside what the walk says now."""
    probe = Probe(answer.source, answer.address, answer.port, answer.protocol)
    return msgspec.structs.replace(answer, predicted=endings(network, probe))
