"""Kubernetes networking, computed.

    import k8snetlab as k8s

    shop = k8s.example("bookshop")                      # or k8s.Cluster.load("manifests/", cni="flannel")
    trace = shop.trace("shop/web-0", "svc/shop/api:80")  # every hop, there and back
    print(trace)                                         # a table; trace.explain() is prose
    print(trace.outcomes)                                # every backend with its probability
    print(shop.node("node-1").show("iptables"))          # what kube-proxy writes there

A cluster is compiled into the Linux state that its machines would hold — devices, routes, neighbours, netfilter rules —
and one small simulated kernel walks packets through that state. Nothing is scripted: take a route away and the packet
goes another way.

Read on in this order: `linux.netns` (the path of a packet), `linux.netfilter`, `services.iptables`, `cni.flannel`,
`compile`, `cluster`. Drawings, the real kernel, widgets and exercises are leaves: `k8s.draw`, `k8s.live`,
`k8s.explore` and `k8s.course` are loaded when first used.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from k8snetlab.address import AddressPlan, Prefix
from k8snetlab.cluster import Cluster, Options, example
from k8snetlab.errors import (
    AddressInUse,
    BadOption,
    CannotDo,
    LabError,
    ManifestError,
    Overlap,
    PoolExhausted,
    Problem,
    UnknownName,
)
from k8snetlab.packet import Packet
from k8snetlab.trace import Action, Client, Step, Trace, Verdict

if TYPE_CHECKING:
    from k8snetlab import contract, faults
    from k8snetlab.cluster import networks
    from k8snetlab.dns import external
    from k8snetlab.services import churn

__version__ = "0.1.0"

__all__ = [
    "Action", "AddressInUse", "AddressPlan", "BadOption", "CannotDo", "Client", "Cluster", "LabError", "ManifestError",
    "Options", "Overlap", "Packet", "PoolExhausted", "Prefix", "Problem", "Step", "Trace", "UnknownName", "Verdict",
    "churn", "contract", "example", "external", "faults", "networks",
]  # fmt: skip

_LATER = {
    "churn": "services.churn",
    "contract": "contract",
    "course": "course",
    "draw": "draw",
    "explore": "explore",
    "external": "dns.external",
    "faults": "faults",
    "live": "live",
    "networks": "cluster.networks",
    "recipes": "cluster.recipes",
}
"""What is loaded when first asked for, so that the import stays light."""


def __getattr__(name: str) -> Any:
    """One of the rooms that are loaded later."""
    if name in _LATER:
        room: ModuleType = import_module(f"k8snetlab.{_LATER[name]}")
        return room
    raise AttributeError(f"module 'k8snetlab' has no attribute {name!r}")
