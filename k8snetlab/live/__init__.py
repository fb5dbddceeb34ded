"""Does the real kernel agree?

The state that the walk uses is applied to the Linux kernel of this machine, in namespaces: real devices, real routes,
real rules, real packets.

    with live.Lab(shop) as lab:
        sights = lab.probe(probes)
    compared = live.compare(shop.network, probes, sights)

or, everything at once, `live.prove(shop)`; `live.evidence(shop)` is such a proof from the records.

Here is what a machine must bring: Linux, `unshare` (util-linux), `ip` and `bridge` (iproute2), `iptables-restore`
(iptables) and `conntrack`, and for machines with such rules `nft` (nftables) and `ipset`; it may be an ordinary user
who asks, unless eBPF programs are to be loaded. `capabilities()` says what is missing and why.

Read on: `script` (what is typed), `inside.agent` (who types it), `sockets` (what is told to eBPF programs), `lab`,
`comparison`, `questions`, `proof`, `proving`, `records`; and `plugins` and `bird`, for who wants to see real CNI
plugins, and real speakers of BGP, make the same. `rfc2136` and `route53` carry plans for the world's DNS out at real
name servers, `nameserver` is one itself, and `lookups` has real C libraries ask it; they are loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any

from k8snetlab.live.bird import speaking
from k8snetlab.live.capability import Capability, capabilities, lacking, missing, tried
from k8snetlab.live.comparison import Compared, Outcome, compare, predicted
from k8snetlab.live.kernel_trace import Agreement, Followed, Matched, agreement
from k8snetlab.live.lab import Lab, Printed, refused
from k8snetlab.live.probes import Probe, Sight
from k8snetlab.live.proof import Proof
from k8snetlab.live.proving import prove
from k8snetlab.live.questions import MOST, questions
from k8snetlab.live.records import evidence

__all__ = [
    "Agreement", "Capability", "Compared", "Followed", "Lab", "MOST", "Matched", "Outcome", "Printed", "Probe",
    "Proof", "Sight", "agreement", "capabilities", "compare", "evidence", "lacking", "missing", "predicted",
    "prove", "questions", "refused", "speaking", "tried",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    """What speaks DNS, which needs a library of its own."""
    if name in ("lookups", "nameserver", "rfc2136", "route53"):
        module: ModuleType = import_module(f"k8snetlab.live.{name}")
        return module
    raise AttributeError(f"module 'k8snetlab.live' has no attribute {name!r}")
