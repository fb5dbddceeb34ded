"""Who is it, rather than: which address is it?

Programs at the devices of a machine may do the work of bridge, routing table and filter for its containers. They go by
*identity*: a number that stands for everybody with the same labels, so that ten thousand copies of one program are one
entry of a rule. Their maps:

    cilium_lxc          address → the container's device, MAC addresses and identity; or "this machine itself"
    cilium_ipcache_v2   network → identity, and which machine to tunnel to (the longest prefix wins)
    cilium_policy_v2_N  endpoint N: (direction, identity, protocol, port) → allowed, denied, or to a proxy

and the programs that look them up:

    from a container ─► cil_from_container ─► source address its own? egress allowed? ─┬─► a container here
    out of the tunnel ─► cil_from_overlay, which takes the identity from the tunnel ───┤   (ingress allowed?)
    into cilium_host ─► cil_from_host, for what the machine itself sends or routes ────┼─► the tunnel, as its identity
                                                                                       └─► up the stack
    out by the network card ─► cil_to_netdev ─► to be hidden? another source. To be encrypted? the WireGuard device,
                                                or with IPsec a mark, by which xfrm knows it
    in by the network card ─► cil_from_netdev ─► an answer to what was hidden: to whom it is for

What goes from container to container, or into the tunnel, meets neither netfilter nor a routing table. The layout of
maps, programs and their outputs is that of Cilium 1.19; `redirecting` lets them work.

Not modelled: the maps' sizes, the proxies themselves, mutual authentication, host firewall. The output of
`bpf endpoint list` is from the tool's sources alone. Guide sections 3.1 and 5.7; `tc-bpf(8)`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from functools import cached_property
from typing import TypeAlias

import msgspec

from k8snetlab.address import Prefix, family, number
from k8snetlab.linux.ebpf import ANY, Attachment, Program

__all__ = [
    "ANYTHING", "HOST", "LOCAL", "PORT_BITS", "REMOTE_NODE", "RESERVED", "WORLD", "Datapath", "Direction", "Endpoint",
    "Known", "Looked", "Missing", "Permit", "Reason", "Request", "Wanted", "bpf_endpoint_list", "bpf_ipcache_list",
    "bpf_policy_list", "is_outside",
]  # fmt: skip

UNKNOWN, HOST, WORLD, REMOTE_NODE = 0, 1, 2, 6

LOCAL = 1 << 24
"""Identities above this one are a machine's own: each stands for a block of addresses outside, and no tunnel carries
it.
"""

RESERVED: Mapping[int, str] = {
    0: "unknown", 1: "host", 2: "world", 3: "unmanaged", 4: "health", 5: "init", 6: "remote-node", 7: "kube-apiserver",
    8: "ingress", 9: "world-ipv4", 10: "world-ipv6", 11: "encrypted-overlay",
}  # fmt: skip
"""The identities that have the same number everywhere."""

PORT_BITS = 16

WORLDS = frozenset({WORLD, 9, 10})
"""Identities of whoever is not known: one, or where there are two families, one for each."""


def is_outside(identity: int) -> bool:
    """Whether an identity is that of nobody in particular: the world, or a block of its addresses."""
    return identity in WORLDS or identity > LOCAL


class Direction(StrEnum):
    """Which way a policy is asked about; the words are those of `cilium-dbg bpf policy get`."""

    INGRESS = "Ingress"
    EGRESS = "Egress"


class Reason(StrEnum):
    """Why the programs drop a packet, in the words of `cilium-dbg monitor`."""

    INVALID_SOURCE = "Invalid source ip"
    POLICY = "Policy denied"
    DENIAL = "Policy denied by denylist"
    UNROUTABLE = "Stale or unroutable IP"
    UNENCRYPTED = "Traffic is unencrypted"
    NO_NODE = "No node ID found"

    @property
    def code(self) -> int:
        """Its number."""
        return _CODES[self]


_CODES: Mapping[Reason, int] = {
    Reason.INVALID_SOURCE: 132,
    Reason.POLICY: 133,
    Reason.DENIAL: 181,
    Reason.UNROUTABLE: 151,
    Reason.UNENCRYPTED: 195,
    Reason.NO_NODE: 197,
}


class Known(msgspec.Struct, frozen=True):
    """An entry of the map `cilium_ipcache_v2`: who has the addresses of a network, and the address of the machine to
    tunnel to, if one must. `key` is not 0 where packets must be encrypted: 255 for WireGuard, with IPsec the number of
    the key. `name` is what the agent knows of it besides: the container, or the machine.
    """

    prefix: str
    identity: int
    tunnel: str = ""
    name: str = ""
    key: int = 0

    @property
    def table(self) -> str:
        return "bpf"

    @property
    def chain(self) -> str:
        """The name of the map."""
        return "cilium_ipcache_v2"

    @property
    def value(self) -> str:
        """The right column of `cilium-dbg bpf ipcache list`."""
        end = self.tunnel or ANY[4]
        flags = "hastunnel" if self.tunnel else "<none>"
        return f"identity={self.identity} encryptkey={self.key} tunnelendpoint={end} flags={flags}"

    @property
    def text(self) -> str:
        return f"{self.prefix} {self.value}"


class Endpoint(msgspec.Struct, frozen=True):
    """An entry of the map `cilium_lxc`: an address of a container here, the device that leads to it (and its index),
    the MAC addresses of both ends and its identity. One without a device is the machine itself.
    """

    address: str
    number: int = 0
    identity: int = HOST
    device: str = ""
    index: int = 0
    mac: str = ""
    node_mac: str = ""

    @property
    def table(self) -> str:
        return "bpf"

    @property
    def chain(self) -> str:
        """The name of the map."""
        return "cilium_lxc"

    @property
    def key(self) -> str:
        """The left column of `cilium-dbg bpf endpoint list`."""
        return f"[{self.address}]:0" if ":" in self.address else f"{self.address}:0"

    @property
    def value(self) -> str:
        """The right column."""
        if not self.device:
            return "(localhost)"
        return (
            f"id={self.number:<5} sec_id={self.identity:<5} flags=0x0000 ifindex={self.index:<3} "
            f"mac={self.mac.upper()} nodemac={self.node_mac.upper()} parent_ifindex=0"
        )

    @property
    def text(self) -> str:
        return f"{self.key} {self.value}"


class Request(msgspec.Struct, frozen=True):
    """A request as a proxy reads it. The names of header lines are alike in large and small letters."""

    method: str = "GET"
    path: str = "/"
    host: str = ""
    headers: Mapping[str, str] = {}


class Wanted(msgspec.Struct, frozen=True):
    """What a proxy lets pass: requests whose method, path and host match these regular expressions as a whole (empty:
    any), and that have these header lines (`Name: value`, or a name alone).

    >>> Wanted("GET", "/books/[0-9]+").takes(Request(path="/books/7"))
    True
    """

    method: str = ""
    path: str = ""
    host: str = ""
    headers: tuple[str, ...] = ()

    def takes(self, request: Request) -> bool:
        """Whether a request is of that kind."""
        said = ((self.method, request.method), (self.path, request.path), (self.host, request.host))
        if not all(not wanted or re.fullmatch(wanted, value) for wanted, value in said):
            return False
        lines = {name.lower(): value for name, value in request.headers.items()}
        return all(_has_line(lines, line) for line in self.headers)


ANYTHING = Wanted()


def _has_line(lines: Mapping[str, str], wanted: str) -> bool:
    name, colon, value = wanted.partition(":")
    held = lines.get(name.strip().lower())
    return held is not None and (not colon or held == value.strip())


class Permit(msgspec.Struct, frozen=True):
    """An entry of an endpoint's policy map: whether traffic with a peer of that identity is allowed (0: any peer), of
    one protocol and port or of all. A denial wins over every permission.

    The map is a trie, so an entry may stand for several ports: those that begin with the same `port_bits` bits as
    `port`. Traffic of an entry with a `proxy` goes to that port of the machine, where a program reads it and lets only
    `requests` pass. `origin` is what the agent remembers besides: the policies that the entry comes from.
    """

    endpoint: int
    direction: Direction
    identity: int = UNKNOWN
    protocol: str = ""
    port: int = 0
    deny: bool = False
    port_bits: int = PORT_BITS
    proxy: int = 0
    requests: tuple[Wanted, ...] = ()
    origin: tuple[str, ...] = ()

    def covers(self, direction: Direction, identity: int, protocol: str, port: int) -> bool:
        """Whether it speaks of such a packet."""
        return (
            self.direction is direction
            and self.identity in (UNKNOWN, identity)
            and self.protocol in ("", protocol)
            and (not self.port or not (self.port ^ port) >> (PORT_BITS - self.port_bits))
        )

    @property
    def kind(self) -> str:
        """What it goes by, as Hubble says it: `all`, `L3-Only`, `L3-L4`, `L4-Only`, `L3-Proto`, `Proto-Only`."""
        if not self.protocol:
            return "L3-Only" if self.identity else "all"
        if not self.port:
            return "L3-Proto" if self.identity else "Proto-Only"
        return "L3-L4" if self.identity else "L4-Only"

    @property
    def table(self) -> str:
        return "bpf"

    @property
    def chain(self) -> str:
        """The name of the endpoint's map."""
        return f"cilium_policy_v2_{self.endpoint:05d}"

    @property
    def ports(self) -> str:
        """`5432/TCP`, `8000-8007/TCP`, `TCP`, or `ANY`."""
        if not self.port:
            return self.protocol or "ANY"
        last = self.port + (1 << (PORT_BITS - self.port_bits)) - 1
        return f"{self.port}{f'-{last}' if last > self.port else ''}/{self.protocol}"

    @property
    def bits(self) -> int:
        """How much of protocol and port must be alike: 24 bits for one port, fewer for several, 8 for the protocol
        alone, or none.
        """
        return 8 + self.port_bits if self.port else 8 if self.protocol else 0

    @property
    def text(self) -> str:
        verdict = "Deny" if self.deny else "Allow"
        peer = f"reserved:{RESERVED[self.identity]}" if self.identity in RESERVED else f"identity={self.identity}"
        proxy = f" to proxy port {self.proxy}" if self.proxy else ""
        return f"{verdict} {self.direction} {peer} {self.ports}{proxy}"


class Missing(msgspec.Struct, frozen=True):
    """No entry of an endpoint's policy map speaks of such a packet, and that denies it. `origin` are the policies that
    select the endpoint.
    """

    endpoint: int
    direction: Direction
    identity: int
    protocol: str
    port: int
    origin: tuple[str, ...] = ()

    @property
    def table(self) -> str:
        return "bpf"

    @property
    def chain(self) -> str:
        """The name of the endpoint's map."""
        return f"cilium_policy_v2_{self.endpoint:05d}"

    @property
    def text(self) -> str:
        return f"(no entry) {self.direction} identity={self.identity} {self.port}/{self.protocol}"


Looked: TypeAlias = Known | Endpoint | Permit
"""An entry of the maps."""


class Datapath(msgspec.Struct, frozen=True, dict=True):
    """The programs at a machine's devices, and their maps.

    `tunnel` is the device that packets for other machines are wrapped at, empty where they are routed; `encrypts` the
    WireGuard device that they are led to on their way out, if there is one; `host` the device by which the machine
    itself speaks to containers, and `net` its other end. `hides` are the addresses (one a family) behind which the
    program at the network card hides containers from all that is not `inside`. `labels` are those of the
    identities that are not reserved. `selected` says by endpoint and direction which policies select it.
    With IPsec, `key` is the number of the key in use (map `cilium_encrypt_state`), and `nodes` has the number of every
    other machine by each of its addresses (map `cilium_node_map_v2`).
    """

    attached: tuple[Attachment, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    known: tuple[Known, ...] = ()
    permits: tuple[Permit, ...] = ()
    labels: Mapping[int, tuple[str, ...]] = {}
    selected: Mapping[tuple[int, Direction], tuple[str, ...]] = {}
    tunnel: str = ""
    host: str = "cilium_host"
    net: str = "cilium_net"
    encrypts: str = ""
    hides: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()

    key: int = 0
    nodes: Mapping[str, int] = {}

    @cached_property
    def programs(self) -> Mapping[tuple[str, str], Program]:
        """The programs by place (`tc/ingress`) and device."""
        return {(each.program.place, each.device): each.program for each in self.attached}

    def runs(self, program: Program, device: str) -> bool:
        """Whether that program is attached to a device."""
        return self.programs.get((program.place, device)) is program

    @cached_property
    def by_address(self) -> Mapping[str, Endpoint]:
        """The endpoints by address."""
        return {each.address: each for each in self.endpoints}

    @cached_property
    def by_device(self) -> Mapping[tuple[str, int], Endpoint]:
        """The endpoints by device and family."""
        return {(each.device, family(each.address)): each for each in self.endpoints if each.device}

    @cached_property
    def _levels(self) -> tuple[tuple[int, int, Mapping[int, Known]], ...]:
        """The cache by family and mask, the longest first."""
        found: dict[tuple[int, int, int], dict[int, Known]] = {}
        for each in self.known:
            block = Prefix.of(each.prefix)
            found.setdefault((block.family, block.length, block.mask), {})[block.base] = each
        return tuple((of, mask, held) for (of, _, mask), held in sorted(found.items(), key=lambda each: -each[0][1]))

    def lookup(self, address: str) -> Known | None:
        """Who has an address: the entry with the longest prefix."""
        of, value = family(address), number(address)
        for held_of, mask, held in self._levels:
            if held_of == of and value & mask in held:
                return held[value & mask]
        return None

    def identity(self, address: str) -> int:
        """The identity of whoever has an address."""
        found = self.lookup(address)
        return found.identity if found is not None else WORLD

    def permit(self, endpoint: int, direction: Direction, identity: int, protocol: str, port: int) -> Permit | None:
        """The entry of an endpoint's map that decides about a packet: a denial first, then one that leads to a proxy,
        then the most exact; `None` where no entry speaks of it, which denies it.
        """
        held = [each for each in self.policies.get(endpoint, ()) if each.covers(direction, identity, protocol, port)]
        return max(held, key=_precedence, default=None)

    def requests(
        self, endpoint: int, direction: Direction, identity: int, protocol: str, port: int
    ) -> tuple[Wanted, ...]:
        """What a proxy lets pass of such traffic: whatever any entry does that speaks of it."""
        held = [each for each in self.policies.get(endpoint, ()) if each.covers(direction, identity, protocol, port)]
        if any(not each.proxy for each in held):
            return (ANYTHING,)
        return tuple(wanted for each in held for wanted in each.requests)

    def hidden_as(self, source: str, destination: str) -> str:
        """The address behind which a container hides from a destination, or nothing: containers, this machine and
        others of the group see it as it is.
        """
        own = self.by_address.get(source)
        if own is None or not own.device or self.identity(destination) in (HOST, REMOTE_NODE):
            return ""
        if any(block.contains(destination) for block in self._inside):
            return ""
        return next((address for address in self.hides if family(address) == family(destination)), "")

    @cached_property
    def _inside(self) -> tuple[Prefix, ...]:
        return tuple(map(Prefix.of, self.inside))

    @cached_property
    def policies(self) -> Mapping[int, tuple[Permit, ...]]:
        """The policy map of each endpoint."""
        found: dict[int, list[Permit]] = {}
        for each in self.permits:
            found.setdefault(each.endpoint, []).append(each)
        return {endpoint: tuple(held) for endpoint, held in found.items()}

    def answers(self, device: str, address: str) -> bool:
        """Whether a program answers an ARP or NDP question that a container asks: of IPv4 any but about the container's
        own address, of IPv6 only about this machine and containers here.
        """
        if not self.runs(Program.FROM_CONTAINER, device):
            return False
        own = self.by_device.get((device, family(address)))
        if own is not None and own.address == address:
            return False
        return family(address) == 4 or address in self.by_address

    def without(self, gone: Attachment | Looked) -> Datapath:
        """The same with one program or one entry less."""
        field = _FIELDS[type(gone)]
        left = tuple(each for each in getattr(self, field) if each != gone)
        return msgspec.structs.replace(self, **{field: left})

    def holds(self, entry: Attachment | Looked) -> bool:
        """Whether it has that program or entry."""
        return entry in getattr(self, _FIELDS[type(entry)])

    @property
    def entries(self) -> Iterator[Looked]:
        """Every entry of its maps."""
        yield from self.endpoints
        yield from self.known
        yield from self.permits

    def named(self, identity: int) -> tuple[str, ...]:
        """The labels of an identity."""
        if identity in RESERVED:
            return (f"reserved:{RESERVED[identity]}",)
        return self.labels.get(identity, (f"{identity}",))


def _precedence(permit: Permit) -> tuple[bool, bool, int, bool]:
    return permit.deny, bool(permit.proxy), permit.bits, permit.identity != UNKNOWN


_FIELDS: Mapping[type, str] = {Attachment: "attached", Endpoint: "endpoints", Known: "known", Permit: "permits"}


# As the tool prints them


def bpf_ipcache_list(datapath: Datapath | None) -> str:
    """`cilium-dbg bpf ipcache list`: who has which addresses. The real one prints them in the order of its trie."""
    if datapath is None:
        return ""
    return _columns([("IP PREFIX/ADDRESS", "IDENTITY"), *((each.prefix, each.value) for each in datapath.known)])


def bpf_endpoint_list(datapath: Datapath | None) -> str:
    """`cilium-dbg bpf endpoint list`: the containers here, and the machine's own addresses."""
    if datapath is None:
        return ""
    rows = ((each.key, each.value) for each in datapath.endpoints)
    return _columns([("IP ADDRESS", "LOCAL ENDPOINT INFO"), *rows])


def bpf_policy_list(datapath: Datapath | None) -> str:
    """`cilium-dbg bpf policy get --all`: the policy map of each endpoint, a line for each label of an entry."""
    if datapath is None:
        return ""
    maps = [list(held) for held in datapath.policies.values()]
    return "\n".join(f"Endpoint ID: {held[0].endpoint}\n\n{_policy(datapath, held)}" for held in maps)


_POLICY = (
    "POLICY", "DIRECTION", "LABELS (source:key[=value])", "PORT/PROTO", "PROXY PORT", "AUTH TYPE", "BYTES", "PACKETS",
    "PREFIX",
)  # fmt: skip


def _policy(datapath: Datapath, held: Iterable[Permit]) -> str:
    rows: list[tuple[str, ...]] = [_POLICY]
    for each in held:
        first, *more = datapath.named(each.identity)
        verdict = "Deny" if each.deny else "Allow"
        counted = (str(each.proxy or "NONE"), "disabled", "0", "0", str(each.bits))
        rows.append((verdict, str(each.direction), first, each.ports, *counted))
        rows += [("", "", label) for label in more]
    return _columns(rows)


def _columns(rows: list[tuple[str, ...]]) -> str:
    """Rows as columns three blanks apart."""
    widths = [max(len(row[at]) for row in rows if at < len(row)) + 3 for at in range(len(rows[0]))]
    lines = ("".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=False)) for row in rows)
    return "".join(f"{line.rstrip()}\n" for line in lines)
