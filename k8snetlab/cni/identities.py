"""Which number do pods with the same labels share?

Cilium gives every set of *security labels* a number, the same on all nodes: from 256 to 65535 for what is in the
cluster; smaller ones are reserved (`linux.datapath.RESERVED`). A policy that says "from app=web" then means a few
numbers, however many pods there are, and a new copy of a pod changes no rule anywhere.

Security labels are those of the pod, with the source `k8s:`, but the ones that change with every copy or every version
(`pod-template-hash`, a StatefulSet's pod name, …), and what Cilium adds: namespace, service account, cluster.

The real number is drawn by chance when the first pod with the labels comes. Here it is hashed from them; of two sets
with the same hash, the one that comes later in the alphabet takes the next free number.

Not modelled: other labels of the namespace (they tell no more pods apart than its name does), label filters of one's
own, identities of nodes and FQDNs. Those of blocks of addresses (from 1 << 24 on) come with policies. Guide section
5.7; Cilium 1.19.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256

from k8snetlab.cni.plan import Plan, Workload

__all__ = ["LARGEST", "SMALLEST", "identities", "security_labels"]

SMALLEST, LARGEST = 256, 65535

IGNORED = re.compile(
    r"io\.kubernetes|kubernetes\.io|.*beta\.kubernetes\.io|k8s\.io|statefulset\.kubernetes\.io/pod-name|apps\.kubernetes\.io/pod-index"
    r"|batch\.kubernetes\.io/(job-completion-index|controller-uid)|batch\.job-name|controller-uid"
    r"|pod-template-(generation|hash)|controller-revision-hash|annotation|etcd_node"
)
"""Labels that tell copies and versions of one thing apart, by how their keys begin."""


def security_labels(workload: Workload) -> tuple[str, ...]:
    """The labels that make a pod's identity, sorted.

    >>> security_labels(Workload("shop/web-0", (), labels={"app": "web", "pod-template-hash": "5d9"}))[:1]
    ('k8s:app=web',)
    """
    namespace = workload.name.partition("/")[0]
    own = {key: value for key, value in workload.labels.items() if not IGNORED.match(key)}
    added = {
        "io.cilium.k8s.namespace.labels.kubernetes.io/metadata.name": namespace,
        "io.cilium.k8s.policy.cluster": "default",
        "io.cilium.k8s.policy.serviceaccount": workload.account,
        "io.kubernetes.pod.namespace": namespace,
    }
    return tuple(sorted(f"k8s:{key}={value}" for key, value in {**own, **added}.items()))


def identities(plan: Plan) -> Mapping[tuple[str, ...], int]:
    """The number of every set of security labels that some pod of the cluster has."""
    return plan.once("identities", _numbered)


def _numbered(plan: Plan) -> Mapping[tuple[str, ...], int]:
    sets = {security_labels(pod) for pods in plan.workloads.values() for pod in pods}
    found: dict[tuple[str, ...], int] = {}
    taken: set[int] = set()
    for labels in sorted(sets):
        number = SMALLEST + int.from_bytes(sha256(";".join(labels).encode()).digest()[:8], "big") % _ROOM
        while number in taken:
            number = SMALLEST + (number + 1 - SMALLEST) % _ROOM
        taken.add(number)
        found[labels] = number
    return found


_ROOM = LARGEST - SMALLEST + 1
