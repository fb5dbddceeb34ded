"""Every CNI with everything that can be chosen about it, derived from the options that the CNIs declare."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import product
from typing import Any

from k8snetlab import cni
from k8snetlab.cni import Option
from k8snetlab.errors import BadOption

SAMPLES: Mapping[str, str] = {
    "mtu": "1300",
    "routes": "9",
    "reflectors": "2",
    "blocksize": "28",
    "peers_down": "node-3",
    "links_down": "node-1:node-2",
}
"""A value for each option that takes any."""

BESIDE: Mapping[str, Mapping[str, str]] = {"reflectors": {"topology": "route-reflector"}}
"""What an option means nothing without."""


@cache
def choices() -> Mapping[str, Mapping[str, Any]]:
    """Options of a cluster by a name: for each CNI all combinations of what decides the way of packets that it takes,
    and every other choice alone.
    """
    return {
        " ".join((name, *(f"{option}={value}" for option, value in chosen.items()))): _asked(name, chosen)
        for name, variant in cni.VARIANTS.items()
        for chosen in _chosen(variant({}).options)
        if _taken(name, chosen)
    }


def _chosen(options: tuple[Option, ...]) -> Iterator[dict[str, str]]:
    deciding = [option for option in options if option.way]
    for values in product(*(option.values for option in deciding)):
        yield {option.name: str(value) for option, value in zip(deciding, values, strict=True)}
    for option in options:
        if not option.way:
            for value in option.values or (SAMPLES[option.name],):
                if value != option.default:
                    yield {**BESIDE.get(option.name, {}), option.name: value}


def _taken(name: str, chosen: Mapping[str, str]) -> bool:
    """Whether the CNI takes these together."""
    try:
        cni.named(name, chosen)
    except BadOption:
        return False
    return True


def _asked(name: str, chosen: Mapping[str, str]) -> Mapping[str, Any]:
    """Beside the proxy that it works with."""
    plugin = cni.named(name, chosen)
    proxy = "ebpf" if isinstance(plugin, cni.Particular) and plugin.refuses("iptables") else "iptables"
    return {"cni": name, "cni_options": dict(chosen), "proxy": proxy}
