"""What the manifests do not say: which CNI, which proxy mode, how many machines, which ranges.

Options are a value; `chosen` makes another one of words from outside and refuses what does not fit. Whether the CNI or
the proxy mode exists is for its own room to say.

Not modelled: options of single machines. `k8snetlab --help` has the same on the command line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from k8snetlab import controllers
from k8snetlab.address import Prefix
from k8snetlab.api import IPMode
from k8snetlab.compile import IMPLEMENTATIONS, RESOLVERS
from k8snetlab.errors import BadOption, Problem

__all__ = ["MOST_NODES", "Options", "chosen", "plan_of"]

MOST_NODES = 5000
"""As many nodes as Kubernetes itself promises to carry."""


class Options(msgspec.Struct, frozen=True):
    """What the manifests do not say. CIDRs are comma separated: one a family, or for nodes one an underlay subnet.

    Empty means the usual ones (172.18.0.0/16, 10.244.0.0/16, 10.96.0.0/12), or what a dump's objects show. `nodes` is
    the number of workers where the manifests name no Node. `load_balancer` is who gives Services of type LoadBalancer
    their addresses and leads packets to nodes (`compile.balancer`), from `load_balancer_cidr` (the usual ones:
    198.51.100.0/24 and 2001:db8:198::/64). `dns` is who answers pods: `cluster` (CoreDNS behind its Service) or
    `node-local` (NodeLocal DNSCache on every node). `world` are names of the world outside with their addresses, by
    comma; example.com and www.example.com are there already. `seed` draws the backend that a trace is sent to.
    """

    cni: str = "flannel"
    cni_options: tuple[tuple[str, str], ...] = ()
    proxy: str = "iptables"
    proxy_options: tuple[tuple[str, str], ...] = ()
    nodes: int = 3
    pod_cidr: str = ""
    service_cidr: str = ""
    node_cidr: str = ""
    load_balancer: str = "none"
    load_balancer_cidr: str = ""
    dns: str = "cluster"
    world: tuple[tuple[str, str], ...] = ()
    seed: int = 0


def chosen(options: Options, given: Mapping[str, Any]) -> Options:
    """Options with some of them changed; another CNI or proxy mode begins with its own defaults. Raises `BadOption`
    naming what exists.
    """
    known = Options.__struct_fields__
    for name in given:
        if name not in known:
            raise BadOption(Problem(f"there is no option {name!r}; there are {', '.join(known)}", field=name))
    values = {name: _FITTING.get(name, _word)(name, value) for name, value in given.items()}
    if values.get("cni", options.cni) != options.cni:
        values.setdefault("cni_options", ())
    if values.get("proxy", options.proxy) != options.proxy:
        values.setdefault("proxy_options", ())
    return msgspec.structs.replace(options, **values)


def _word(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    raise BadOption(Problem(f"{value!r} is no text", field=name))


def _pairs(name: str, value: object) -> tuple[tuple[str, str], ...]:
    if isinstance(value, Mapping):
        return tuple(sorted((str(key), str(each)) for key, each in value.items()))
    raise BadOption(Problem(f"{value!r} is no mapping of options to values", field=name))


def _cidrs(name: str, value: object) -> str:
    """One text, or several texts or prefixes, as one text."""
    if isinstance(value, str | Prefix):
        return str(value)
    if isinstance(value, list | tuple) and all(isinstance(each, str | Prefix) for each in value):
        return ",".join(map(str, value))
    raise BadOption(Problem(f"{value!r} is no CIDR and no list of CIDRs", field=name))


def _resolver(name: str, value: object) -> str:
    if value in RESOLVERS:
        return str(value)
    raise BadOption(Problem(f"there is no {value!r} that answers pods; there are {', '.join(RESOLVERS)}", field=name))


def _count(name: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_NODES:
        return value
    raise BadOption(Problem(f"{value!r} is no number of nodes from 1 to {MOST_NODES}", field=name))


def _whole(name: str, value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise BadOption(Problem(f"{value!r} is no whole number", field=name))


_FITTING: Mapping[str, Callable[[str, object], Any]] = {
    "cni_options": _pairs,
    "proxy_options": _pairs,
    "dns": _resolver,
    "world": _pairs,
    "nodes": _count,
    "pod_cidr": _cidrs,
    "service_cidr": _cidrs,
    "node_cidr": _cidrs,
    "load_balancer_cidr": _cidrs,
    "seed": _whole,
}
"""What makes an option's value fit, or says that it does not; the others are words."""


def plan_of(options: Options) -> controllers.Plan:
    """What the controllers need to know of the options. Raises `BadOption` for what is no CIDR, and for load balancers
    that there are not.
    """
    if options.load_balancer not in IMPLEMENTATIONS:
        known = ", ".join(name for name in IMPLEMENTATIONS if name != "none")
        message = f"there is no load balancer {options.load_balancer!r}; there are {known}, or none"
        raise BadOption(Problem(message, field="load_balancer"))
    gives = IMPLEMENTATIONS[options.load_balancer].gives
    pools = _blocks(options.load_balancer_cidr, "load_balancer_cidr") or USUAL_POOLS
    return controllers.Plan(
        nodes=options.nodes,
        node_cidrs=_blocks(options.node_cidr, "node_cidr"),
        pod_cidrs=_blocks(options.pod_cidr, "pod_cidr"),
        service_cidrs=_blocks(options.service_cidr, "service_cidr"),
        pools=pools if gives is not None else (),
        ip_mode=gives or IPMode.VIP,
    )


USUAL_POOLS = (Prefix.of("198.51.100.0/24"), Prefix.of("2001:db8:198::/64"))
"""What load balancers give away: TEST-NET-2 (RFC 5737) and a part of the documentation prefix (RFC 3849)."""


def _blocks(text: str, field: str) -> tuple[Prefix, ...]:
    return tuple(Prefix.of(part.strip(), strict=True, field=field) for part in text.split(",") if part.strip())
