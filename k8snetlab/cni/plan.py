"""What does a CNI need to know before it can program a machine?

Little: which machines there are, with their underlay addresses and pod CIDRs; which ranges pods and Services have;
and which pods run on the machine at hand. These values say it, free of any Kubernetes object, so that a CNI is a pure
function from them to the devices, routes, neighbours and rules of a machine.

Names and MAC addresses that the real programs draw at random are derived here by hashing the name of what they belong
to: the same cluster has the same state each time, and a what-if does not rename the devices it leaves alone.

Not modelled: several underlay devices of one machine, several pod ranges of one family. Guide sections 1.2 and 2.1; CNI
specification 1.1.0.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from enum import StrEnum
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import Any, NamedTuple, TypeVar, cast

import msgspec

from k8snetlab.address import Prefix, family
from k8snetlab.errors import BadOption, Problem
from k8snetlab.linux.link import Address

__all__ = [
    "UNENFORCED", "Answer", "Enforcement", "Machine", "NetworkList", "Option", "Plan", "Plugin", "PolicyAttachment",
    "PolicyMarks", "Remote", "Workload", "chosen", "derived_mac", "number_of",
]  # fmt: skip

FIRST_INDEX = 3
"""The interface index of the first device that a CNI makes: 1 is `lo`, 2 the machine's own `eth0`."""


T = TypeVar("T")


class Machine(msgspec.Struct, frozen=True):
    """A node before any CNI ran: the name of its Host, the underlay addresses of its `device`, the pod CIDRs it was
    given (at most one a family), and its annotations, where some CNIs publish what the others need; `gateways` are
    those of its default routes.
    """

    name: str
    addresses: tuple[Address, ...]
    pod_cidrs: tuple[Prefix, ...] = ()
    device: str = "eth0"
    mtu: int = 1500
    annotations: Mapping[str, str] = {}
    gateways: tuple[str, ...] = ()

    def address(self, of: int) -> Address | None:
        """The first underlay address of family `of` (4 or 6)."""
        return next((address for address in self.addresses if family(address.ip) == of), None)

    def pod_cidr(self, of: int) -> Prefix | None:
        """The range of family `of` that pods of this machine have their addresses from."""
        return next((block for block in self.pod_cidrs if block.family == of), None)

    def gateway(self, of: int) -> str:
        """The gateway of its default route of family `of`, or nothing."""
        return next((gateway for gateway in self.gateways if family(gateway) == of), "")

    def reaches(self, other: str) -> bool:
        """Whether that underlay address is on this machine's own cable, so that no gateway is needed."""
        own = self.address(family(other))
        return own is not None and own.prefix.contains(other)


class Workload(msgspec.Struct, frozen=True):
    """A pod that is to be attached: the name of its Host (`shop/web-0`), its addresses, at most one a family, its
    service account and its labels.
    """

    name: str
    addresses: tuple[str, ...]
    account: str = "default"
    labels: Mapping[str, str] = {}

    def address(self, of: int) -> str:
        """Its address of family `of`, or nothing."""
        return next((address for address in self.addresses if family(address) == of), "")


class Remote(NamedTuple):
    """Another machine as a route sees it: where its pods are, and which underlay address leads to them."""

    machine: Machine
    pods: Prefix
    via: str


class Plan(msgspec.Struct, frozen=True, dict=True):
    """The whole cluster as a CNI sees it: all machines in order, the ranges of pods and Services, and the pods of every
    machine by its name, for CNIs whose nodes tell each other where pods are.
    """

    machines: tuple[Machine, ...]
    pod_cidrs: tuple[Prefix, ...]
    service_cidrs: tuple[Prefix, ...] = ()
    workloads: Mapping[str, tuple[Workload, ...]] = {}

    @cached_property
    def _found(self) -> dict[Hashable, object]:
        return {}

    def once(self, key: Hashable, find: Callable[[Plan], T]) -> T:
        """What a function finds out about the plan, worked out the first time that this key is asked for."""
        if key not in self._found:
            self._found[key] = find(self)
        return cast("T", self._found[key])

    @property
    def families(self) -> tuple[int, ...]:
        """The families that pods have addresses of, the cluster's first family first."""
        return tuple(dict.fromkeys(block.family for block in self.pod_cidrs))

    def pod_cidr(self, of: int) -> Prefix:
        """The range of family `of` that all pods of the cluster have their addresses from."""
        return next(block for block in self.pod_cidrs if block.family == of)

    def others(self, machine: Machine, of: int) -> Iterator[Remote]:
        """The other machines that have pods and an underlay address of that family."""
        for other in self.machines:
            pods, via = other.pod_cidr(of), other.address(of)
            if pods is not None and via is not None and other.name != machine.name:
                yield Remote(other, pods, via.ip)


class Answer(StrEnum):
    """What a plugin names in its answer to ADD: all interfaces with their MACs, gateways and the routes that were asked
    for; the same with all routes of the pod, IPv6 first; the node's end and addresses alone; addresses and gateways.
    """

    WHOLE = "whole"
    ROUTED = "with all routes"
    NODE_END = "node end"
    ADDRESSES = "addresses"


class Plugin(msgspec.Struct, frozen=True):
    """One plugin of a network: its configuration (`type` is the program's name), which configuration it hands over to
    another plugin, which files it reads for that, and how much it answers.
    """

    configuration: Mapping[str, Any]
    delegate: Mapping[str, Any] | None = None
    reads: Mapping[str, str] = {}
    answer: Answer = Answer.WHOLE


class NetworkList(msgspec.Struct, frozen=True):
    """What a runtime finds in `/etc/cni/net.d` on one node: the version of the contract, the network's name, and the
    plugins that it calls in turn.
    """

    version: str
    name: str
    plugins: tuple[Plugin, ...]


class Enforcement(StrEnum):
    """By what a CNI enforces NetworkPolicies: chains of iptables, the same translated into nftables, or maps of eBPF
    programs that go by identities.
    """

    NONE = "none"
    IPTABLES = "iptables"
    NFTABLES = "nftables"
    IDENTITY = "identity"


class PolicyMarks(NamedTuple):
    """The bits of a packet's mark by which a CNI's chains tell each other how policies decided: it is accepted, it goes
    on to the next tier, it is to be dropped; and two that a policy may use for itself.
    """

    accepted: int = 0
    passed: int = 0
    dropped: int = 0
    whole: int = 0
    part: int = 0


class PolicyAttachment(msgspec.Struct, frozen=True):
    """Where the rules of NetworkPolicies belong under a CNI, if it enforces them: the table, and the chains that every
    packet to a pod and every packet from it passes, where `{device}` stands for the node's end of the pod's cable. By
    identity there is a map for each pod, and no chain.

    In these chains, policies are asked ahead of the first jump to a chain whose name begins with `otherwise`, one for
    packets to and one for packets from a pod. `longest` is how long the CNI lets names of chains be.
    """

    backend: Enforcement = Enforcement.NONE
    table: str = ""
    to_pod: str = ""
    from_pod: str = ""
    otherwise: tuple[str, str] = ("", "")
    marks: PolicyMarks = PolicyMarks()
    longest: int = 28

    def chains(self, device: str) -> tuple[str, str]:
        """The chains for packets to and from the pod behind that device."""
        return self.to_pod.format(device=device), self.from_pod.format(device=device)


UNENFORCED = PolicyAttachment()
"""Policies are accepted by the API server and have no effect."""


class Option(msgspec.Struct, frozen=True):
    """One thing about a CNI that can be chosen: its name, the values it takes (none listed: any that fits), what
    holds when nobody chooses, and what it means. `way` says whether it decides how packets get from pod to pod: such
    choices are networks of their own where networks are compared.
    """

    name: str
    values: tuple[str, ...]
    default: str
    summary: str
    way: bool = False


def chosen(cni: str, options: Iterable[Option], given: Mapping[str, str]) -> dict[str, str]:
    """Every option with its value, given or default. An option or a value that does not exist is a `BadOption` that
    says which do.

    >>> chosen("bridge", [Option("hairpin", ("on", "off"), "on", "…")], {"hairpin": "off"})
    {'hairpin': 'off'}
    """
    known = {option.name: option for option in options}
    for name, value in given.items():
        if name not in known:
            raise _bad(cni, name, f"{cni} has no such option; it has {', '.join(known)}")
        if known[name].values and value not in known[name].values:
            raise _bad(cni, name, f"{value!r} is none of {', '.join(known[name].values)}")
    return {name: given.get(name, option.default) for name, option in known.items()}


def number_of(cni: str, option: str, value: str, smallest: int, largest: int) -> int:
    """The value of an option that takes a whole number between two limits; anything else is a `BadOption`."""
    if not value.isascii() or not value.isdigit() or not smallest <= int(value) <= largest:
        raise _bad(cni, option, f"{value!r} is no whole number from {smallest} to {largest}")
    return int(value)


def _bad(cni: str, option: str, message: str) -> BadOption:
    return BadOption(Problem(message, object=f"CNI {cni}", field=option))


@lru_cache(maxsize=1 << 14)
def derived_mac(of: str) -> str:
    """A locally administered unicast MAC for the thing of that name (the kernel would draw one at random)."""
    digest = sha256(of.encode()).digest()
    return ":".join(f"{byte:02x}" for byte in (digest[0] & 0xFC | 0x02, *digest[1:6]))
