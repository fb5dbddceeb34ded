"""Who translates a packet that no socket program has led, on the real kernel?

Programs at tc ingress and tc egress of a machine's cards and of its containers' devices, put together here instruction
by instruction (`bpf`). They do what `linux.balancing` says of packets, with the maps of `sockets` and four more:

    endpoints   address, machine                               → there: it is an endpoint of this machine
    ranges      number of the frontend, machine, source prefix → there: this source may come in
    flows       both addresses and ports, protocol, machine    → the packet as it goes on
    answers     the same of an answer                          → the answer as the client knows it

Not built: a container that is led to itself, errors about translated packets, affinity of clients outside. One program
serves both families; the machine's number and addresses are written into it.

See the kernel's `bpf_tcx_link` (Linux 6.6), `bpf-helpers(7)`.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import NamedTuple

from .bpf import TC, Code, Map, attach, load
from .namespaces import Namespaces
from .sockets import TWO_SCOPES, Sockets, octets_of

__all__ = ["Device", "Packets"]

ROUTABLE, RANGES = 1 << 6, 1 << 7
"""Flags of a frontend that matter for packets."""

_INGRESS, _EGRESS = 46, 47  # BPF_TCX_INGRESS, BPF_TCX_EGRESS
_PASS, _DROP = 0, 2
_UPDATE, _RANDOM, _STORE, _L3, _L4, _LOAD, _DIFFERENCE, _FIB, _REDIRECT = 2, 7, 9, 10, 11, 26, 28, 69, 152
_TRIM, _GROW, _BACK = 38, 50, 23
_PSEUDO, _MANGLED, _NEW, _ANY_NEIGHBOUR = 0x10, 0x20, 1, 4
_ETHERNET = 14
_FLOWS = 1 << 16
_SOURCE_TOO = 1

_ctx, _fp, _held, _kind, _sum = 6, 10, 7, 8, 9
_HEADER, _PORTS, _KEY, _ASKED, _NUMBER, _SENT, _KNOWN, _ANSWER, _ROUTE, _RANGE, _TTL, _MESSAGE = (
    -40, -48, -80, -128, -136, -184, -232, -280, -352, -384, -392, -504,
)  # fmt: skip


class Device(NamedTuple):
    """A device with programs: the namespace, its name, where they are attached (`tc/ingress`, `tc/egress`), the number
    of the machine, the machine's own addresses (of a card), and whether it leads to a container.
    """

    namespace: str
    name: str
    places: list[str]
    machine: int
    own: list[str]
    inner: bool


class _Family(NamedTuple):
    """Where things are in a packet."""

    size: int  # of an address
    ether_type: int
    header: int
    protocol: int
    source: int
    destination: int
    ttl: int
    number: int


_FAMILIES = (
    _Family(4, 0x0800, 20, 9, 12, 16, 8, socket.AF_INET),
    _Family(16, 0x86DD, 40, 6, 8, 24, 7, socket.AF_INET6),
)


class Packets:
    """The programs at the cards of a lab. Raises `OSError` where the kernel refuses."""

    def __init__(
        self,
        devices: list[Device],
        endpoints: list[tuple[int, str]],
        ranges: list[tuple[int, int, str, int]],
        sockets: Sockets,
        namespaces: Namespaces,
    ) -> None:
        self._sockets = sockets
        self._files: list[int] = []
        self._endpoints = {size: Map(Map.HASH, size + 4, 4, len(endpoints)) for size in (4, 16)}
        self._ranges = {size: Map(Map.PREFIXES, size + 8, 4, len(ranges)) for size in (4, 16)}
        self._flows = {size: Map(Map.LRU, 2 * size + 8, 2 * size + 8, _FLOWS) for size in (4, 16)}
        self._answers = {size: Map(Map.LRU, 2 * size + 8, 2 * size + 8, _FLOWS) for size in (4, 16)}
        for machine, address in endpoints:
            octets = octets_of(address)
            self._endpoints[len(octets)][octets + struct.pack("=I", machine)] = bytes(4)
        for machine, number, network, length in ranges:
            octets = octets_of(network)
            key = struct.pack("=IHH", 32 + length, number, machine) + octets
            self._ranges[len(octets)][key] = bytes(4)
        loaded: dict[tuple[str, int, bool], int] = {}  # devices of one kind on one machine share a program
        for device in devices:
            namespaces.enter(device.namespace)
            index = socket.if_nametoindex(device.name)
            for name in device.places:
                place, made = {"tc/ingress": (_INGRESS, self._ingress), "tc/egress": (_EGRESS, self._egress)}[name]
                kind = name, device.machine, device.inner
                if kind not in loaded:
                    loaded[kind] = load(made(device), place, TC)
                    self._files.append(loaded[kind])
                self._files.append(attach(loaded[kind], index, place))
        namespaces.enter("")

    def forget(self) -> None:
        """Forget every connection."""
        for each in (*self._flows.values(), *self._answers.values()):
            each.clear()

    def close(self) -> None:
        """Take the programs away."""
        for file in self._files:
            os.close(file)
        for maps in (self._endpoints, self._ranges, self._flows, self._answers):
            for each in maps.values():
                each.close()
        self._files = []

    # What the programs do

    def _ingress(self, device: Device) -> Code:
        """A packet comes in."""
        code = Code()
        code.copy(_ctx, 1)
        for of in _FAMILIES:
            at = f"{of.size} "
            self._read(code, of, at, device.machine)
            for place, source, size in (
                (_KEY, _HEADER + of.destination, of.size), (_KEY + of.size, _PORTS + 2, 2),
            ):  # fmt: skip
                _move(code, place, source, size)
            code.fill(2, _fp, _KEY + of.size + 2, 0)
            code.write(1, _fp, _KEY + of.size + 4, _kind)
            code.fill(1, _fp, _KEY + of.size + 5, 0)
            code.fill(2, _fp, _KEY + of.size + 6, device.machine)
            code.find(self._sockets.services[of.size], _KEY)
            if device.inner:
                self._inner_scope(code, of, at)
            else:
                code.jump(at + "service", 0, "!=")
                self._answer(code, of)
            code.label(at + "service")
            code.copy(_held, 0)
            if not device.inner:
                self._admit(code, of, at, device.machine)
            code.find(self._flows[of.size], _ASKED)
            code.jump(at + "new", 0)
            code.copy(_held, 0)
            _take(code, _SENT, _held, 2 * of.size + 8)
            code.jump(at + "send")
            code.label(at + "new")
            self._begin(code, of, at, device)
            code.label(at + "send")
            self._rewrite(code, of, "destination", _SENT, _SENT + 2 * of.size)
            code.read(4, 1, _fp, _SENT + 2 * of.size + 4)
            code.jump("pass", 1, "!=", _SOURCE_TOO)
            if not device.inner:
                self._rewrite(code, of, "source", _SENT + of.size, _SENT + 2 * of.size + 2)
                self._redirect(code, of, _SENT + of.size, _SENT)
            code.label(at + "nobody")
            code.jump(at + "datagram", _kind, "==", socket.IPPROTO_UDP)
            self._refuse(code, of, 20)
            code.label(at + "datagram")
            self._refuse(code, of, 8)
            code.label(at + "other")
        code.label("pass")
        code.end(_PASS)
        code.label("drop")
        code.end(_DROP)
        return code

    def _answer(self, code: Code, of: _Family) -> None:
        """The answer of a backend elsewhere: translate both ends back, and send it on."""
        code.find(self._answers[of.size], _ANSWER)
        code.jump("pass", 0)
        code.copy(_held, 0)
        code.read(4, 1, _held, 2 * of.size + 4)
        code.jump("pass", 1, "!=", _SOURCE_TOO)
        _take(code, _KNOWN, _held, 2 * of.size + 8)
        self._rewrite(code, of, "destination", _KNOWN, _KNOWN + 2 * of.size)
        self._rewrite(code, of, "source", _KNOWN + of.size, _KNOWN + 2 * of.size + 2)
        self._redirect(code, of, _KNOWN + of.size, _KNOWN)

    def _inner_scope(self, code: Code, of: _Family, at: str) -> None:
        """r0 := the frontend for what starts inside, where there are two."""
        code.jump("pass", 0)
        code.read(4, 1, 0, 8)
        code.jump(at + "two", 1, "&", TWO_SCOPES)
        code.jump(at + "service")
        code.label(at + "two")
        code.fill(1, _fp, _KEY + of.size + 5, 1)
        code.find(self._sockets.services[of.size], _KEY)
        code.jump("pass", 0)

    def _egress(self, device: Device) -> Code:
        """A packet goes out: an answer of a backend that is here gets the source that was asked."""
        code = Code()
        code.copy(_ctx, 1)
        for of in _FAMILIES:
            at = f"{of.size} "
            self._read(code, of, at, device.machine)
            code.find(self._answers[of.size], _ANSWER)
            code.jump("pass", 0)
            code.copy(_held, 0)
            code.read(4, 1, _held, 2 * of.size + 4)
            code.jump("pass", 1, "==", _SOURCE_TOO)
            _take(code, _KNOWN, _held, 2 * of.size + 8)
            self._rewrite(code, of, "source", _KNOWN + of.size, _KNOWN + 2 * of.size + 2)
            code.jump("pass")
            code.label(at + "other")
        code.label("pass")
        code.end(_PASS)
        return code

    def _read(self, code: Code, of: _Family, at: str, machine: int) -> None:
        """Headers onto the stack, and the key of the packet's connection to `_ASKED` and `_ANSWER`. r8 becomes the
        protocol, r9 where its checksum is.
        """
        code.read(4, 1, _ctx, 16)
        code.jump(at + "other", 1, "!=", socket.htons(of.ether_type))
        _load(code, _ETHERNET, _HEADER, of.header)
        code.jump("pass", 0, "!=")
        if of.size == 4:
            code.read(1, 1, _fp, _HEADER)
            code.jump("pass", 1, "!=", 0x45)
            code.read(2, 1, _fp, _HEADER + 6)
            code.jump("pass", 1, "&", socket.htons(0x3FFF))
        code.read(1, _kind, _fp, _HEADER + of.protocol)
        code.set(_sum, _ETHERNET + of.header + 16)
        code.jump(at + "known", _kind, "==", socket.IPPROTO_TCP)
        code.set(_sum, _ETHERNET + of.header + 6)
        code.jump("pass", _kind, "!=", socket.IPPROTO_UDP)
        code.label(at + "known")
        _load(code, _ETHERNET + of.header, _PORTS, 4)
        code.jump("pass", 0, "!=")
        for key in (_ASKED, _ANSWER):
            _move(code, key, _HEADER + of.source, of.size)
            _move(code, key + of.size, _HEADER + of.destination, of.size)
            _move(code, key + 2 * of.size, _PORTS, 4)
            code.write(1, _fp, key + 2 * of.size + 4, _kind)
            code.fill(1, _fp, key + 2 * of.size + 5, 0)
            code.fill(2, _fp, key + 2 * of.size + 6, machine)

    def _admit(self, code: Code, of: _Family, at: str, machine: int) -> None:
        """Go on only if the frontend, in r7, is for packets from this source."""
        code.read(4, 1, _held, 8)
        code.jump(at + "limited", 1, "&", RANGES)
        code.jump(at + "admitted")
        code.label(at + "limited")
        code.fill(4, _fp, _RANGE, 32 + 8 * of.size)
        code.read(2, 1, _held, 6)
        code.write(2, _fp, _RANGE + 4, 1)
        code.fill(2, _fp, _RANGE + 6, machine)
        _move(code, _RANGE + 8, _HEADER + of.source, of.size)
        code.find(self._ranges[of.size], _RANGE)
        code.jump("drop", 0)
        code.label(at + "admitted")
        code.read(4, 1, _held, 8)
        code.jump(at + "routable", 1, "&", ROUTABLE)
        code.jump("drop")
        code.label(at + "routable")

    def _begin(self, code: Code, of: _Family, at: str, device: Device) -> None:
        """A new connection: choose its backend, write what its packets become to `_SENT`, and remember both ways."""
        code.read(2, 1, _held, 4)
        code.jump(at + "nobody", 1)
        code.call(_RANDOM)
        code.read(2, 1, _held, 4)
        code.modulo(0, 1)
        code.add(0, 1)
        code.write(2, _fp, _KEY + of.size + 2, 0)
        code.find(self._sockets.services[of.size], _KEY)
        code.jump("drop", 0)
        code.read(4, 1, 0, 0)
        code.write(4, _fp, _NUMBER, 1)
        code.find(self._sockets.backends[of.size], _NUMBER)
        code.jump("drop", 0)
        code.copy(_held, 0)
        _take(code, _SENT, _held, of.size)
        code.read(2, 1, _held, of.size)
        code.write(2, _fp, _SENT + 2 * of.size, 1)
        _move(code, _SENT + of.size, _HEADER + of.source, of.size)
        _move(code, _SENT + 2 * of.size + 2, _PORTS, 2)
        code.fill(4, _fp, _SENT + 2 * of.size + 4, 0)
        _move(code, _RANGE, _SENT, of.size)
        code.fill(4, _fp, _RANGE + of.size, device.machine)
        # What the client will be answered by, as he knows it.
        _move(code, _KNOWN, _HEADER + of.source, of.size)
        _move(code, _KNOWN + of.size, _HEADER + of.destination, of.size)
        _move(code, _KNOWN + 2 * of.size, _PORTS, 4)
        code.fill(4, _fp, _KNOWN + 2 * of.size + 4, 0)
        if device.inner:
            for place in range(0, of.size, 4):
                code.read(4, 1, _fp, _SENT + place)
                code.read(4, 2, _fp, _HEADER + of.source + place)
                code.jump_other(at + "here", 1, 2)
        else:
            self._elsewhere(code, of, at, device)
        code.jump("drop")
        code.label(at + "here")
        self._answer_key(code, of)
        self._put(code, self._answers[of.size], _ANSWER, _KNOWN, 0)
        code.label(at + "remember")
        self._put(code, self._flows[of.size], _ASKED, _SENT, 0)

    def _elsewhere(self, code: Code, of: _Family, at: str, device: Device) -> None:
        """Go on at `here` if the backend is an endpoint of this machine; else the machine's source takes part."""
        code.find(self._endpoints[of.size], _RANGE)
        code.jump(at + "here", 0, "!=")
        own = next((each for each in map(octets_of, device.own) if len(each) == of.size), None)
        if own is not None:
            self._own_source(code, of, at, own)

    def _own_source(self, code: Code, of: _Family, at: str, own: bytes) -> None:
        """Give the packet the machine's own address and a source port of its own, by chance."""
        for place in range(0, of.size, 4):
            code.fill(4, _fp, _SENT + of.size + place, struct.unpack("=i", own[place : place + 4])[0])
        code.fill(4, _fp, _SENT + 2 * of.size + 4, _SOURCE_TOO)
        code.fill(4, _fp, _KNOWN + 2 * of.size + 4, _SOURCE_TOO)
        for _ in range(3):
            code.call(_RANDOM)
            code.either(0, socket.htons(0x8000))
            code.write(2, _fp, _SENT + 2 * of.size + 2, 0)
            self._answer_key(code, of)
            self._put(code, self._answers[of.size], _ANSWER, _KNOWN, _NEW)
            code.jump(at + "remember", 0)

    @staticmethod
    def _answer_key(code: Code, of: _Family) -> None:
        """The key of an answer to what is in `_SENT`."""
        _move(code, _ANSWER, _SENT, of.size)
        _move(code, _ANSWER + of.size, _SENT + of.size, of.size)
        _move(code, _ANSWER + 2 * of.size, _SENT + 2 * of.size, 4)

    @staticmethod
    def _put(code: Code, table: Map, key: int, value: int, how: int) -> None:
        code.use(1, table)
        code.copy(2, _fp)
        code.add(2, key)
        code.copy(3, _fp)
        code.add(3, value)
        code.set(4, how)
        code.call(_UPDATE)

    def _rewrite(self, code: Code, of: _Family, end: str, address: int, port: int) -> None:
        """Replace one end of the packet by what is on the stack, and put its checksums right."""
        place = of.source if end == "source" else of.destination
        old, nth = _HEADER + place, 0 if end == "source" else 2
        code.copy(1, _fp)
        code.add(1, old)
        code.set(2, of.size)
        code.copy(3, _fp)
        code.add(3, address)
        code.set(4, of.size)
        code.set(5, 0)
        code.call(_DIFFERENCE)
        code.write(8, _fp, _TTL, 0)
        if of.size == 4:
            code.copy(1, _ctx)
            code.set(2, _ETHERNET + 10)
            code.set(3, 0)
            code.read(8, 4, _fp, _TTL)
            code.set(5, 0)
            code.call(_L3)
        self._checksum(code)
        code.set(3, 0)
        code.read(8, 4, _fp, _TTL)
        code.either(5, _PSEUDO)
        code.call(_L4)
        self._checksum(code)
        code.read(2, 3, _fp, _PORTS + nth)
        code.read(2, 4, _fp, port)
        code.either(5, 2)
        code.call(_L4)
        _store(code, _ETHERNET + place, address, of.size)
        _store(code, _ETHERNET + of.header + nth, port, 2)

    @staticmethod
    def _checksum(code: Code) -> None:
        """Which packet and where its checksum is, and that a UDP datagram may have none."""
        code.copy(1, _ctx)
        code.copy(2, _sum)
        code.copy(5, _kind)  # 6 for TCP, 17 for UDP: the bit of 16 says which
        code.both(5, 0x10)
        code.plus(5, 5)

    def _redirect(self, code: Code, of: _Family, source: int, destination: int) -> None:
        """Send the packet on as the routing tables say: one hop less to live."""
        for place in range(0, 64, 4):
            code.fill(4, _fp, _ROUTE + place, 0)
        code.fill(1, _fp, _ROUTE, of.number)
        code.write(1, _fp, _ROUTE + 1, _kind)
        code.read(4, 1, _ctx, 40)
        code.write(4, _fp, _ROUTE + 8, 1)
        _move(code, _ROUTE + 16, source, of.size)
        _move(code, _ROUTE + 32, destination, of.size)
        code.copy(1, _ctx)
        code.copy(2, _fp)
        code.add(2, _ROUTE)
        code.set(3, 64)
        code.set(4, _ANY_NEIGHBOUR)
        code.call(_FIB)
        code.jump("drop", 0, "!=")
        place = _HEADER + of.ttl
        code.read(1, 1, _fp, place)
        code.jump("drop", 1, "<=", 1)
        if of.size == 4:  # an IPv4 header has a checksum, of 16 bits at a time
            code.read(2, 3, _fp, place)
        code.add(1, -1)
        code.write(1, _fp, place, 1)
        if of.size == 4:
            code.read(2, 4, _fp, place)
            code.copy(1, _ctx)
            code.set(2, _ETHERNET + 10)
            code.set(5, 2)
            code.call(_L3)
        _store(code, _ETHERNET + of.ttl, place, 1)
        code.read(4, 1, _fp, _ROUTE + 8)
        code.set(2, 0)
        code.set(3, 0)
        code.set(4, 0)
        code.call(_REDIRECT)
        code.leave()

    def _refuse(self, code: Code, of: _Family, length: int) -> None:
        """Send back port unreachable, in the name of the address that was asked, about a packet whose header behind the
        addresses has this length.
        """
        quoted, icmp = of.header + length, _MESSAGE + of.header
        code.copy(1, _ctx)
        code.set(2, _ETHERNET + quoted)
        code.set(3, 0)
        code.call(_TRIM)
        code.jump("drop", 0, "!=")
        _load(code, 0, _SENT, 12)
        code.jump("drop", 0, "!=")
        _load(code, _ETHERNET, icmp + 8, quoted)
        code.jump("drop", 0, "!=")
        code.copy(1, _ctx)
        code.set(2, of.header + 8)
        code.set(3, 1)  # behind the Ethernet header
        code.set(4, 0)
        code.call(_GROW)
        code.jump("drop", 0, "!=")
        for at in range(0, of.header + 8, 4):
            code.fill(4, _fp, _MESSAGE + at, 0)
        _move(code, _MESSAGE + of.source, icmp + 8 + of.destination, of.size)
        _move(code, _MESSAGE + of.destination, icmp + 8 + of.source, of.size)
        self._answer_header(code, of, quoted)
        _sum_up(code, icmp, 8 + quoted, icmp + 2)
        _store(code, _ETHERNET, _MESSAGE, of.header + 8)
        _store(code, 0, _SENT + 6, 6)
        _store(code, 6, _SENT, 6)
        code.read(4, 1, _ctx, 40)
        code.set(2, 0)
        code.call(_BACK)
        code.leave()

    @staticmethod
    def _answer_header(code: Code, of: _Family, quoted: int) -> None:
        """The fields of an ICMP error's headers; r5 becomes what its checksum begins with."""
        icmp = _MESSAGE + of.header
        code.fill(1, _fp, _MESSAGE + of.ttl, 64)
        if of.size == 4:
            code.fill(1, _fp, _MESSAGE, 0x45)
            code.fill(2, _fp, _MESSAGE + 2, socket.htons(of.header + 8 + quoted))
            code.fill(1, _fp, _MESSAGE + 9, socket.IPPROTO_ICMP)
            code.fill(2, _fp, icmp, socket.htons(3 << 8 | 3))
            code.set(5, 0)
            _sum_up(code, _MESSAGE, of.header, _MESSAGE + 10)
            code.set(5, 0)
            return
        code.fill(1, _fp, _MESSAGE, 0x60)
        code.fill(2, _fp, _MESSAGE + 4, socket.htons(8 + quoted))
        code.fill(1, _fp, _MESSAGE + 6, socket.IPPROTO_ICMPV6)
        code.fill(2, _fp, icmp, socket.htons(1 << 8 | 4))
        # ICMPv6 counts the addresses, its length and its number too.
        code.fill(4, _fp, _RANGE, _signed(socket.htonl(8 + quoted)))
        code.fill(4, _fp, _RANGE + 4, _signed(socket.htonl(socket.IPPROTO_ICMPV6)))
        code.set(5, 0)
        _difference(code, _RANGE, 8)
        code.copy(5, 0)
        _difference(code, _MESSAGE + of.source, 32)
        code.copy(5, 0)


def _signed(number: int) -> int:
    """32 bits as instructions hold them."""
    return int(struct.unpack("=i", struct.pack("=I", number))[0])


def _difference(code: Code, at: int, size: int) -> None:
    """r0 := r5 and the sum of these bytes of the stack."""
    code.set(1, 0)
    code.set(2, 0)
    code.copy(3, _fp)
    code.add(3, at)
    code.set(4, size)
    code.call(_DIFFERENCE)


def _sum_up(code: Code, at: int, size: int, to: int) -> None:
    """Write the checksum of these bytes of the stack, begun in r5, to a place of it."""
    _difference(code, at, size)
    for _ in range(2):
        code.copy(1, 0)
        code.halve(1, 16)
        code.both(0, 0xFFFF)
        code.plus(0, 1)
    code.other(0, 0xFFFF)
    code.write(2, _fp, to, 0)


def _move(code: Code, to: int, source: int, size: int) -> None:
    """Copy bytes from one place of the stack to another."""
    for at in range(0, size, min(size, 4)):
        width = min(size, 4)
        code.read(width, 1, _fp, source + at)
        code.write(width, _fp, to + at, 1)


def _take(code: Code, to: int, base: int, size: int) -> None:
    """Copy bytes from a map's value to the stack."""
    for at in range(0, size, 4):
        code.read(4, 1, base, at)
        code.write(4, _fp, to + at, 1)


def _load(code: Code, at: int, to: int, size: int) -> None:
    """Copy bytes of the packet to the stack; r0 is 0 if they are there."""
    code.copy(1, _ctx)
    code.set(2, at)
    code.copy(3, _fp)
    code.add(3, to)
    code.set(4, size)
    code.call(_LOAD)


def _store(code: Code, at: int, source: int, size: int) -> None:
    """Copy bytes of the stack into the packet."""
    code.copy(1, _ctx)
    code.set(2, at)
    code.copy(3, _fp)
    code.add(3, source)
    code.set(4, size)
    code.set(5, 0)
    code.call(_STORE)
