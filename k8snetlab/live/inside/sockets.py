"""Who leads a socket to a backend, on the real kernel?

Programs at the root of the cgroup tree, as on a node with Cilium: at connect() and sendmsg() they replace the
destination, at recvmsg() and getpeername() they put back what was asked. They are put together here, instruction by
instruction (`bpf`), and do what `linux.balancing` says of sockets, with maps of the same layout:

    namespaces   cookie of a namespace                           → which machine's, whether its own, which programs work
    services     address, port, slot, protocol, scope, machine   → backend or time-out, count, number, flags
    backends     number                                          → address, port
    identities   address, machine                                → 1 its own, 6 another node's
    affinity     cookie of the namespace, number of the frontend → backend, last use
    asked        cookie of the socket, backend                   → the address and port that were asked

A real node has a kernel and maps of its own. Here all machines share one, so the key of a service has the number of the
machine where real ones have nothing, and the namespace of the socket says which it is. Sockets of namespaces that are
not of this lab pass untouched. Nothing outlives this process.

See the kernel's prog_cgroup_sockaddr.rst, `bpf-helpers(7)`.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from typing import NamedTuple

from .bpf import SOCKETS, Code, Map, attach, load
from .namespaces import Namespaces

__all__ = ["Frontend", "Member", "Sockets", "octets_of"]

PLACES: dict[str, tuple[int, int, int]] = {
    "cgroup/connect4": (10, 4, 1),
    "cgroup/connect6": (11, 16, 2),
    "cgroup/sendmsg4": (14, 4, 4),
    "cgroup/sendmsg6": (15, 16, 8),
    "cgroup/recvmsg4": (19, 4, 16),
    "cgroup/recvmsg6": (20, 16, 32),
    "cgroup/getpeername4": (29, 4, 64),
    "cgroup/getpeername6": (30, 16, 128),
}
"""Where programs are attached: the kernel's number of the place, the bytes of an address, and a bit of our own."""

_FORWARD = ("cgroup/connect4", "cgroup/connect6", "cgroup/sendmsg4", "cgroup/sendmsg6")

GUARDED, AFFINITY, TWO_SCOPES = 1 << 0, 1 << 4, 1 << 13
"""Flags of a frontend."""

_OWN = 1 << 15
"""Beside the bits of the programs: the namespace is the machine's own."""

_UPDATE, _NOW, _RANDOM, _COOKIE, _NAMESPACE, _RESULT = 2, 5, 7, 46, 122, 187
_UNREACHABLE = -113
_HOST = 1
_PROTOCOLS = {"TCP": 6, "UDP": 17}
_SO_NETNS_COOKIE = 71
_GROUPS = "/run/cgroup"
_SECOND = 1_000_000_000
_ASKED = 1 << 16

_ctx, _fp = 6, 10
_service, _backend = 7, 9
_IP, _PORT, _PROTOCOL = {4: 4, 16: 8}, 24, 36  # of struct bpf_sock_addr
_KEY, _ORIGINAL, _OLD, _SEEN, _CLIENT, _STUCK, _NUMBER, _BITS = -32, -56, -80, -112, -128, -144, -152, -160
_libc = ctypes.CDLL(None, use_errno=True)


class Member(NamedTuple):
    """A namespace: its name, the number of its machine, whether it is the machine's own, and where programs work."""

    namespace: str
    machine: int
    own: bool
    places: list[str]


class Frontend(NamedTuple):
    """An address that is led somewhere: on which machine, what it is found by, its number and flags, the seconds of its
    affinity, and the numbers of its backends.
    """

    machine: int
    address: str
    port: int
    protocol: str
    scope: int
    number: int
    flags: int
    affinity: int
    backends: list[int]


def octets_of(address: str) -> bytes:
    """An address as it is in a packet."""
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


class Sockets:
    """The programs of a lab and their maps. Raises `OSError` where the kernel refuses."""

    def __init__(
        self,
        members: list[Member],
        frontends: list[Frontend],
        backends: list[tuple[str, int]],
        identities: list[tuple[int, str, int]],
        shared: tuple[int, int],
        namespaces: Namespaces,
    ) -> None:
        self._shared = shared
        self._files: list[int] = []
        self._members = Map(Map.HASH, 8, 4, len(members))
        self._affinity = Map(Map.LRU, 16, 16, _ASKED)
        slots = sum(len(each.backends) + 1 for each in frontends)
        self.services = {size: Map(Map.HASH, size + 8, 12, slots) for size in (4, 16)}
        self.backends = {size: Map(Map.HASH, 4, size + 4, len(backends)) for size in (4, 16)}
        self._identities = {size: Map(Map.HASH, size + 4, 4, len(identities)) for size in (4, 16)}
        self._asked = {size: Map(Map.LRU, 12 + size, size + 4, _ASKED) for size in (4, 16)}
        for member in members:
            bits = sum(PLACES[place][2] for place in member.places) | (_OWN if member.own else 0)
            self._members[_cookie(member.namespace, namespaces)] = struct.pack("=HH", member.machine, bits)
        for frontend in frontends:
            self._write(frontend)
        for number, (address, port) in enumerate(backends, 1):
            octets = octets_of(address)
            self.backends[len(octets)][struct.pack("=I", number)] = octets + struct.pack("!HH", port, 0)
        for machine, address, identity in identities:
            octets = octets_of(address)
            self._identities[len(octets)][octets + struct.pack("=I", machine)] = struct.pack("=I", identity)
        self._attach()

    def _write(self, each: Frontend) -> None:
        """The slots of a frontend: its own first, then one for each backend."""
        octets = octets_of(each.address)
        for slot in range(len(each.backends) + 1):
            first = each.backends[slot - 1] if slot else each.affinity
            key = octets + struct.pack("!H", each.port)
            key += struct.pack("=HBBH", slot, _PROTOCOLS[each.protocol], each.scope, each.machine)
            count = 0 if slot else len(each.backends)
            self.services[len(octets)][key] = struct.pack("=IHHI", first, count, each.number, each.flags)

    def _attach(self) -> None:
        os.makedirs(_GROUPS, exist_ok=True)  # noqa: PTH103 - no pathlib in here
        held = os.path.exists(f"{_GROUPS}/cgroup.procs")  # noqa: PTH110 - the same
        if not held and _libc.mount(b"none", _GROUPS.encode(), b"cgroup2", 0, None):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), "cgroup2")
        group = os.open(_GROUPS, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for place, (kind, size, bit) in PLACES.items():
                code = self._forward(size, bit) if place in _FORWARD else self._backward(size, bit)
                program = load(code, kind, SOCKETS)
                self._files.append(program)
                self._files.append(attach(program, group, kind))
        finally:
            os.close(group)

    def forget(self) -> None:
        """Forget who was led where."""
        for each in (self._affinity, *self._asked.values()):
            each.clear()

    def close(self) -> None:
        """Take the programs away."""
        for file in self._files:
            os.close(file)
        for each in (
            self._members, self._affinity, *self.services.values(), *self.backends.values(),
            *self._identities.values(), *self._asked.values(),
        ):  # fmt: skip
            each.close()
        self._files = []

    # What the programs do

    def _begun(self, size: int, bit: int) -> Code:
        """Which machine's socket is it? r8 becomes its number; what was asked is put on the stack."""
        code = Code()
        code.copy(_ctx, 1)
        code.call(_NAMESPACE)
        code.write(8, _fp, _CLIENT, 0)
        code.find(self._members, _CLIENT)
        code.jump("pass", 0)
        code.read(2, 8, 0, 0)
        code.read(2, 1, 0, 2)
        code.write(8, _fp, _BITS, 1)
        code.jump("works", 1, "&", bit)
        code.jump("pass")
        code.label("works")
        for at in range(0, size, 4):
            code.read(4, 1, _ctx, _IP[size] + at)
            code.write(4, _fp, _ORIGINAL + at, 1)
        code.read(4, 1, _ctx, _PORT)
        code.write(2, _fp, _ORIGINAL + size, 1)
        return code

    @staticmethod
    def _put(code: Code, table: Map, key: int, value: int) -> None:
        code.use(1, table)
        code.copy(2, _fp)
        code.add(2, key)
        code.copy(3, _fp)
        code.add(3, value)
        code.set(4, 0)
        code.call(_UPDATE)

    def _forward(self, size: int, bit: int) -> Code:
        """Replace the destination."""
        code = self._begun(size, bit)
        code.read(4, 1, _ctx, _PROTOCOL)
        code.jump("known", 1, "==", _PROTOCOLS["TCP"])
        code.jump("pass", 1, "!=", _PROTOCOLS["UDP"])
        code.label("known")
        code.write(1, _fp, _KEY + size + 4, 1)
        for at in range(0, size, 4):
            code.read(4, 1, _fp, _ORIGINAL + at)
            code.write(4, _fp, _KEY + at, 1)
        code.read(2, 1, _fp, _ORIGINAL + size)
        code.write(2, _fp, _KEY + size, 1)
        code.write(2, _fp, _KEY + size + 6, 8)
        self._look_up(code, size, "direct", "shared")
        code.label("shared")
        self._own_address(code, size)
        for at in range(0, size, 4):
            code.fill(4, _fp, _KEY + at, 0)
        self._look_up(code, size, "any", "pass")
        code.label("found")
        code.read(2, 1, _service, 4)
        code.jump("nobody", 1)
        code.read(4, 1, _service, 8)
        code.jump("guarded", 1, "&", GUARDED)
        code.jump("free")
        code.label("guarded")
        self._identity(code, size)
        code.jump("pass", 0)
        code.read(4, 1, 0, 0)
        code.jump("pass", 1, "!=", _HOST)
        code.label("free")
        self._stuck(code, size)
        self._choose(code, size)
        code.label("chosen")
        code.find(self.backends[size], _NUMBER)
        code.jump("nobody", 0)
        code.copy(_backend, 0)
        self._note(code, size)
        self._lead(code, size)
        code.label("nobody")
        code.set(1, _UNREACHABLE)
        code.call(_RESULT)
        code.end(0)
        return code

    def _look_up(self, code: Code, size: int, name: str, otherwise: str) -> None:
        """The frontend of the key, the inner one if there are two; go on at `found`, or elsewhere."""
        code.fill(2, _fp, _KEY + size + 2, 0)
        code.fill(1, _fp, _KEY + size + 5, 0)
        code.find(self.services[size], _KEY)
        code.jump(otherwise, 0)
        code.copy(_service, 0)
        code.read(4, 1, 0, 8)
        code.jump(f"{name} inner", 1, "&", TWO_SCOPES)
        code.jump("found")
        code.label(f"{name} inner")
        code.fill(1, _fp, _KEY + size + 5, 1)
        code.find(self.services[size], _KEY)
        code.jump(otherwise, 0)
        code.copy(_service, 0)
        code.jump("found")

    def _own_address(self, code: Code, size: int) -> None:
        """Go on only where the port is shared by all addresses of machines, and the address is one."""
        code.read(2, 1, _fp, _ORIGINAL + size)
        code.swap(1)
        code.jump("pass", 1, "<", self._shared[0])
        code.jump("pass", 1, ">", self._shared[1])
        code.read(8, 1, _fp, _BITS)
        code.jump("loops", 1, "&", _OWN)
        code.jump("no loop")
        code.label("loops")
        if size == 4:
            code.read(1, 1, _fp, _ORIGINAL)
            code.jump("any address", 1, "==", 127)
        else:
            for at in range(0, 12, 4):
                code.read(4, 1, _fp, _ORIGINAL + at)
                code.jump("no loop", 1, "!=", 0)
            code.read(4, 1, _fp, _ORIGINAL + 12)
            code.jump("any address", 1, "==", int.from_bytes(b"\0\0\0\1", "little" if _IS_LITTLE else "big"))
        code.label("no loop")
        self._identity(code, size)
        code.jump("pass", 0)
        code.label("any address")

    def _identity(self, code: Code, size: int) -> None:
        """r0 := where it says what the address that was asked is known to be, or 0. Uses the place of `_SEEN`."""
        for at in range(0, size, 4):
            code.read(4, 1, _fp, _ORIGINAL + at)
            code.write(4, _fp, _SEEN + at, 1)
        code.write(4, _fp, _SEEN + size, 8)
        code.find(self._identities[size], _SEEN)

    def _stuck(self, code: Code, size: int) -> None:
        """Go on at `chosen` with the backend that this namespace was led to before, if that still counts."""
        code.read(4, 1, _service, 8)
        code.jump("sticks", 1, "&", AFFINITY)
        code.jump("choose")
        code.label("sticks")
        code.read(2, 1, _service, 6)
        code.write(8, _fp, _CLIENT + 8, 1)
        code.call(_NOW)
        code.write(8, _fp, _STUCK + 8, 0)
        code.find(self._affinity, _CLIENT)
        code.jump("choose", 0)
        code.read(4, 1, _service, 0)
        code.multiply(1, _SECOND)
        code.read(8, 2, 0, 8)
        code.plus(1, 2)
        code.read(8, 2, _fp, _STUCK + 8)
        code.jump_less("choose", 1, 2)
        code.read(4, 1, 0, 0)
        code.write(4, _fp, _NUMBER, 1)
        code.write(8, 0, 8, 2)
        code.jump("chosen")

    def _choose(self, code: Code, size: int) -> None:
        """Any backend, all alike: by chance for TCP, by the socket for UDP."""
        code.label("choose")
        code.read(4, 1, _ctx, _PROTOCOL)
        code.jump("by socket", 1, "==", _PROTOCOLS["UDP"])
        code.call(_RANDOM)
        code.jump("drawn")
        code.label("by socket")
        code.copy(1, _ctx)
        code.call(_COOKIE)
        code.label("drawn")
        code.read(2, 1, _service, 4)
        code.modulo(0, 1)
        code.add(0, 1)
        code.write(2, _fp, _KEY + size + 2, 0)
        code.find(self.services[size], _KEY)
        code.jump("nobody", 0)
        code.read(4, 1, 0, 0)
        code.write(4, _fp, _NUMBER, 1)
        code.read(4, 1, _service, 8)
        code.jump("remember", 1, "&", AFFINITY)
        code.jump("chosen")
        code.label("remember")
        code.read(4, 1, _fp, _NUMBER)
        code.write(8, _fp, _STUCK, 1)
        self._put(code, self._affinity, _CLIENT, _STUCK)

    def _note(self, code: Code, size: int) -> None:
        """Note what this socket asked for, by the backend that it gets."""
        code.copy(1, _ctx)
        code.call(_COOKIE)
        code.write(8, _fp, _SEEN, 0)
        for at in range(0, size + 4, 4):
            code.read(4, 1, _backend, at)
            code.write(4, _fp, _SEEN + 8 + at, 1)
        for at in range(0, size, 4):
            code.read(4, 1, _fp, _ORIGINAL + at)
            code.write(4, _fp, _OLD + at, 1)
        code.read(2, 1, _fp, _ORIGINAL + size)
        code.write(4, _fp, _OLD + size, 1)
        self._put(code, self._asked[size], _SEEN, _OLD)

    @staticmethod
    def _lead(code: Code, size: int) -> None:
        """The socket's address and port become those that `_backend` points at, and the call goes on."""
        for at in range(0, size, 4):
            code.read(4, 1, _backend, at)
            code.write(4, _ctx, _IP[size] + at, 1)
        code.read(2, 1, _backend, size)
        code.write(4, _ctx, _PORT, 1)
        code.label("pass")
        code.end(1)

    def _backward(self, size: int, bit: int) -> Code:
        """Put back what was asked."""
        code = self._begun(size, bit)
        code.copy(1, _ctx)
        code.call(_COOKIE)
        code.write(8, _fp, _SEEN, 0)
        for at in range(0, size, 4):
            code.read(4, 1, _fp, _ORIGINAL + at)
            code.write(4, _fp, _SEEN + 8 + at, 1)
        code.read(2, 1, _fp, _ORIGINAL + size)
        code.write(4, _fp, _SEEN + 8 + size, 1)
        code.find(self._asked[size], _SEEN)
        code.jump("pass", 0)
        code.copy(_backend, 0)
        self._lead(code, size)
        return code


_IS_LITTLE = struct.pack("=H", 1) == b"\1\0"


def _cookie(namespace: str, namespaces: Namespaces) -> bytes:
    """The number by which the kernel knows a namespace."""
    with namespaces.socket(namespace, socket.AF_INET, socket.SOCK_DGRAM) as held:
        return held.getsockopt(socket.SOL_SOCKET, _SO_NETNS_COOKIE, 8)
