"""Every CNI with everything that can be chosen about it, derived from the options that the CNIs declare."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from typing import Any, TypeAlias

from k8snetlab import cni
from k8snetlab.cni import Option
from k8snetlab.errors import BadOption

Chosen: TypeAlias = Callable[[Sequence[Option]], Iterator[Mapping[str, str]]]

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
def ways() -> Mapping[str, tuple[str, Mapping[str, str]]]:
    """For each CNI all combinations of what decides the way of packets that it takes, by a name."""
    return _named(_together)


@cache
def choices() -> Mapping[str, Mapping[str, Any]]:
    """Options of a cluster by a name: all ways, and every other choice alone."""
    return {name: _asked(*choice) for name, choice in {**ways(), **_named(_alone)}.items()}


def _named(chosen: Chosen) -> Mapping[str, tuple[str, Mapping[str, str]]]:
    return {
        " ".join((name, *(f"{option}={value}" for option, value in each.items()))): (name, each)
        for name, variant in cni.VARIANTS.items()
        for each in chosen(variant({}).options)
        if _taken(name, each)
    }


def _together(options: Sequence[Option]) -> Iterator[Mapping[str, str]]:
    deciding = [option for option in options if option.way]
    for values in product(*(option.values for option in deciding)):
        yield {option.name: str(value) for option, value in zip(deciding, values, strict=True)}


def _alone(options: Sequence[Option]) -> Iterator[Mapping[str, str]]:
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
