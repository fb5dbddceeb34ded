"""Who needs a rule, if a program can look it up?

eBPF lets a machine run small checked programs at fixed places of the kernel, with *maps* that programs and user space
share. For load balancing two places matter:

    a program calls connect() ─► cgroup/connect4 ─► the kernel makes the packet …        the SOCKET
    a frame comes to a device ─► tc ingress ─► bridge, PREROUTING, routing …             the PACKET
    … POSTROUTING, neighbour ─► tc egress ─► the frame leaves

At the *socket* the destination is replaced before any packet exists: the packet that leaves carries the backend's
address, no NAT happens on the way, and the answer needs no translation. The application still believes in the address
that it asked for, because programs at `recvmsg` and `getpeername` tell it so. This works for whoever is in the cgroup
that the programs are attached to: at the root of the tree, every process of the machine, in whatever namespace.

Who comes from elsewhere has made a packet already. For him a program at the device's tc ingress translates packet by
packet, remembers the connection in a map of its own, and translates back at tc egress, or at tc ingress when the
answer comes from another machine. Netfilter and its connection tracking are not asked.

Both look into the same map: address, port, protocol and scope lead to a *frontend* (slot 0: how many backends, which
number, which flags), slots 1 to n to its *backends*. A frontend may have two scopes: one for what comes from outside,
one for what starts here. The layout is that of Cilium 1.19 (`cilium_lb4_services_v2`), whose programs these are.

The maps of one machine are one value here (`Ebpf`); every namespace of the machine holds it, with the programs that
concern it. `balancing` lets them work.

Not modelled: the maps' sizes and what happens when they are full, XDP, direct server return, Maglev, wildcard entries,
IPv4 addresses in IPv6 sockets, programs that guard bind(). Guide sections 2.2 and 3.1; `bpf(2)`, `tc-bpf(8)`, the
kernel's prog_cgroup_sockaddr.rst.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple, TypeAlias

import msgspec

from k8snetlab.address import Prefix

__all__ = [
    "ANY", "Attachment", "Backend", "Ebpf", "Entry", "Flag", "Frontend", "Identity", "Key", "Program", "Scope",
    "Services", "bpf_lb_list", "sockets",
]  # fmt: skip

MAP: Mapping[int, str] = {4: "cilium_lb4_services_v2", 6: "cilium_lb6_services_v2"}
"""The map of frontends and backends, by family."""

ANY: Mapping[int, str] = {4: "0.0.0.0", 6: "::"}
"""The address that stands for every address of a machine, by family."""


class Scope(StrEnum):
    """Whom an entry is for: who comes from outside, or who starts inside. An entry with one scope is for both."""

    EXTERNAL = "external"
    INTERNAL = "internal"


class Identity(StrEnum):
    """What an address is known to be (map `cilium_ipcache_v2`): this machine's, or another machine's of the group."""

    HOST = "host"
    REMOTE = "remote-node"


class Flag(StrEnum):
    """What a frontend asks of the programs; the words and their order are those of `cilium-dbg bpf lb list`."""

    LOCAL = "Local"  # from outside only backends of this machine
    INTERNAL_LOCAL = "InternalLocal"  # from inside only backends of this machine
    TWO_SCOPES = "two-scopes"  # there is another entry for the inside
    AFFINITY = "sessionAffinity"
    NON_ROUTABLE = "non-routable"  # not for packets from outside
    SOURCE_RANGE = "check source-range"


class Backend(msgspec.Struct, frozen=True):
    """Who may answer. `here` says whether it is an endpoint of this machine (map `cilium_lxc`)."""

    ip: str
    port: int
    here: bool = False

    def __str__(self) -> str:
        return _at(self.ip, self.port)


class Key(NamedTuple):
    """What a frontend is found by."""

    address: str
    port: int
    protocol: str
    scope: Scope = Scope.EXTERNAL


class Frontend(msgspec.Struct, frozen=True):
    """One address and port that is balanced. `number` tells it from others (the index of its reverse translation);
    `kind` is what its owner calls it.

    `affinity` is in seconds, 0 for none. A `guarded` one is another's address: sockets are led to its backends only
    where the address is this machine's own, so that nobody can take over an address of the outside by claiming it.
    """

    key: Key
    number: int
    kind: str
    backends: tuple[Backend, ...] = ()
    flags: tuple[Flag, ...] = ()
    affinity: int = 0
    sources: tuple[Prefix, ...] = ()
    guarded: bool = False

    def has(self, flag: Flag) -> bool:
        """Whether it has this flag."""
        return flag in self.flags

    def admits(self, source: str) -> bool:
        """Whether packets from this address may be balanced."""
        return not self.has(Flag.SOURCE_RANGE) or any(block.contains(source) for block in self.sources)

    @property
    def entries(self) -> Iterator[Entry]:
        """Its slots, the frontend's own first."""
        return (Entry(self, slot) for slot in range(len(self.backends) + 1))


class Entry(msgspec.Struct, frozen=True):
    """One slot of a frontend in the map: slot 0 is the frontend itself. It prints as `cilium-dbg bpf lb list` does.

    >>> vip = Frontend(Key("10.96.0.7", 80, "TCP"), 3, "Virtual", (Backend("10.244.1.3", 8080),))
    >>> Entry(vip, 1).text
    '10.96.0.7:80/TCP (1)   10.244.1.3:8080/TCP (3) (1)'
    """

    frontend: Frontend
    slot: int = 0

    @property
    def table(self) -> str:
        return "bpf"

    @property
    def chain(self) -> str:
        """The name of the map."""
        return MAP[6 if ":" in self.frontend.key.address else 4]

    @property
    def service(self) -> str:
        """The left column."""
        key = self.frontend.key
        inner = "/i" if key.scope is Scope.INTERNAL else ""
        return f"{_at(key.address, key.port)}/{key.protocol}{inner} ({self.slot})"

    @property
    def value(self) -> str:
        """The right column."""
        frontend = self.frontend
        if not self.slot:
            nobody = _at(ANY[6 if ":" in frontend.key.address else 4], 0)
            return f"{nobody} ({frontend.number}) (0) [{', '.join((frontend.kind, *frontend.flags))}]"
        backend = frontend.backends[self.slot - 1]
        return f"{backend}/{frontend.key.protocol} ({frontend.number}) ({self.slot})"

    @property
    def text(self) -> str:
        return f"{self.service}   {self.value}"


def _at(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


Held: TypeAlias = Frontend | Callable[[], Frontend]


class Services(Mapping[Key, Frontend]):
    """The frontends by key, in their order. One may be given as a function without arguments: it is then made when
    somebody looks it up, and once only.
    """

    __slots__ = ("_held",)

    def __init__(self, held: Mapping[Key, Held]) -> None:
        self._held = dict(held)

    def __getitem__(self, key: Key) -> Frontend:
        held = self._held[key]
        if not isinstance(held, Frontend):
            held = self._held[key] = held()
        return held

    def __iter__(self) -> Iterator[Key]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def __eq__(self, other: object) -> bool:
        return self is other or super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]

    def without(self, key: Key) -> Services:
        """The same frontends, one less."""
        return Services({other: held for other, held in self._held.items() if other != key})


class Program(StrEnum):
    """The programs by name, each with the place it is made for."""

    CONNECT4 = "cil_sock4_connect"
    CONNECT6 = "cil_sock6_connect"
    SENDMSG4 = "cil_sock4_sendmsg"
    SENDMSG6 = "cil_sock6_sendmsg"
    RECVMSG4 = "cil_sock4_recvmsg"
    RECVMSG6 = "cil_sock6_recvmsg"
    PEER4 = "cil_sock4_getpeername"
    PEER6 = "cil_sock6_getpeername"
    FROM_OUTSIDE = "cil_from_netdev"
    TO_OUTSIDE = "cil_to_netdev"
    FROM_CONTAINER = "cil_from_container"
    TO_CONTAINER = "cil_to_container"
    FROM_OVERLAY = "cil_from_overlay"
    TO_OVERLAY = "cil_to_overlay"
    FROM_HOST = "cil_from_host"
    TO_HOST = "cil_to_host"

    @property
    def place(self) -> str:
        """Where it is attached: `cgroup/connect4`, `tc/ingress`, …"""
        return _PLACES[self]


_PLACES: Mapping[Program, str] = {
    Program.CONNECT4: "cgroup/connect4",
    Program.CONNECT6: "cgroup/connect6",
    Program.SENDMSG4: "cgroup/sendmsg4",
    Program.SENDMSG6: "cgroup/sendmsg6",
    Program.RECVMSG4: "cgroup/recvmsg4",
    Program.RECVMSG6: "cgroup/recvmsg6",
    Program.PEER4: "cgroup/getpeername4",
    Program.PEER6: "cgroup/getpeername6",
    Program.FROM_OUTSIDE: "tc/ingress",
    Program.TO_OUTSIDE: "tc/egress",
    Program.FROM_CONTAINER: "tc/ingress",
    Program.TO_CONTAINER: "tc/egress",
    Program.FROM_OVERLAY: "tc/ingress",
    Program.TO_OVERLAY: "tc/egress",
    Program.FROM_HOST: "tc/egress",
    Program.TO_HOST: "tc/ingress",
}


class Attachment(msgspec.Struct, frozen=True):
    """A program where it runs: at the cgroup, or at a device."""

    program: Program
    device: str = ""

    @property
    def text(self) -> str:
        """`cgroup/connect4 cil_sock4_connect`, `tc/ingress eth0 cil_from_netdev`."""
        return " ".join(part for part in (self.program.place, self.device, self.program) if part)

    def __str__(self) -> str:
        return self.text


def sockets() -> tuple[Attachment, ...]:
    """Every program that works on sockets."""
    return tuple(Attachment(program) for program, place in _PLACES.items() if place.startswith("cgroup/"))


class Ebpf(msgspec.Struct, frozen=True, dict=True):
    """The programs that work in one namespace of a machine, and the machine's maps.

    `machine` names the machine: in its own namespace, loopback addresses are its own too. `shared` are the first and
    last port that are balanced at every address of a machine; `source` are the addresses (one a family) that packets
    get which go on to another machine, `loopback` those that a sender gets who would be sent to himself.
    """

    machine: str
    attached: tuple[Attachment, ...] = ()
    services: Services = Services({})
    identities: Mapping[str, Identity] = {}
    shared: tuple[int, int] = (30000, 32767)
    source: tuple[str, ...] = ()
    loopback: tuple[str, ...] = ("169.254.42.1", "fe80::1")

    @cached_property
    def programs(self) -> frozenset[Program]:
        """The programs that are attached to the cgroup."""
        return frozenset(each.program for each in self.attached if not each.device)

    @cached_property
    def ingress(self) -> Mapping[str, Program]:
        """The program at each device's tc ingress."""
        return {each.device: each.program for each in self.attached if each.program.place == "tc/ingress"}

    @cached_property
    def egress(self) -> Mapping[str, Program]:
        """The program at each device's tc egress."""
        return {each.device: each.program for each in self.attached if each.program.place == "tc/egress"}

    def without(self, gone: Attachment | Frontend) -> Ebpf:
        """The same with one program or one frontend less."""
        if isinstance(gone, Frontend):
            return msgspec.structs.replace(self, services=self.services.without(gone.key))
        return msgspec.structs.replace(self, attached=tuple(each for each in self.attached if each != gone))

    def holds(self, entry: Attachment | Frontend) -> bool:
        """Whether it has that program or frontend."""
        if isinstance(entry, Frontend):
            return self.services.get(entry.key) == entry
        return entry in self.attached

    def lookup(self, address: str, port: int, protocol: str) -> Frontend | None:
        """The frontend for what starts inside: the inner scope, where there are two."""
        found = self.services.get(Key(address, port, protocol))
        if found is None or not found.has(Flag.TWO_SCOPES):
            return found
        return self.services.get(Key(address, port, protocol, Scope.INTERNAL))

    def shared_lookup(self, address: str, port: int, protocol: str, namespace: str) -> Frontend | None:
        """The frontend that a socket of that namespace means by an address of a machine, of whichever of the group, or
        by a loopback address, if that is the machine's own.
        """
        first, last = self.shared
        if not first <= port <= last:
            return None
        loops = namespace == self.machine and (address.startswith("127.") or address == "::1")
        if not loops and address not in self.identities:
            return None
        return self.lookup(ANY[6 if ":" in address else 4], port, protocol)


HEAD = ("SERVICE ADDRESS", "BACKEND ADDRESS (REVNAT_ID) (SLOT)")


def bpf_lb_list(ebpf: Ebpf | None) -> str:
    """`cilium-dbg bpf lb list`: every slot of every frontend. The real one prints them in the order of its hash table;
    here slots stand in their order. This makes every frontend.
    """
    if ebpf is None:
        return ""
    rows = [HEAD, *((each.service, each.value) for found in ebpf.services.values() for each in found.entries)]
    width = max(len(left) for left, _ in rows) + 3
    return "".join(f"{left:<{width}}{right}\n" for left, right in rows)
