"""How does a program get into the kernel, without a compiler?

An eBPF program is a list of 64-bit instructions: an operation, two of eleven registers, an offset and a number. The
kernel checks that it ends and touches nothing that is not its own, and then runs it at the place it is attached to. It
is small enough to be written down by hand: `Code` puts instructions together, with names for the places that are jumped
to. Maps hold what programs and we share. One system call does everything: bpf(2).

Maps, programs and links are files of this process: when it ends, however it comes, the kernel takes the programs away.

Calling convention: r1 is the context at first, r1 to r5 are arguments of a call, r0 its result, r6 to r9 survive calls,
r10 is the end of 512 bytes of stack. See `bpf(2)`, the kernel's instruction-set.rst.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator

__all__ = ["SOCKETS", "TC", "Code", "Map", "attach", "load"]

TC, SOCKETS = 3, 18
"""The kinds of programs: BPF_PROG_TYPE_SCHED_CLS at devices, BPF_PROG_TYPE_CGROUP_SOCK_ADDR at sockets."""

_libc = ctypes.CDLL(None, use_errno=True)
_CALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "ppc64le": 361, "s390x": 351}
_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE, _MAP_NEXT, _PROG_LOAD, _LINK_CREATE = 0, 1, 2, 3, 4, 5, 28
_LICENSE = ctypes.create_string_buffer(b"Dual BSD/GPL")
_LOG = 1 << 16
_NO_PREALLOC = 1
_LOOKUP = 1


def _bpf(command: int, *fields: int, layout: str) -> int:
    number = _CALL.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"the number of bpf(2) on {platform.machine()} is not known here")
    attributes = struct.pack(layout, *fields)
    held = ctypes.create_string_buffer(attributes, len(attributes))
    found = int(_libc.syscall(number, command, held, len(attributes)))
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found


# Maps


class Map:
    """A table in the kernel with keys and values of fixed sizes. Raises `OSError` where the kernel refuses."""

    HASH, LRU, PREFIXES = 1, 9, 11

    def __init__(self, kind: int, key: int, value: int, entries: int) -> None:
        flags = _NO_PREALLOC if kind == self.PREFIXES else 0
        self.file = _bpf(_MAP_CREATE, kind, key, value, max(entries, 1), flags, layout="=IIIII")
        self._key = key

    def __setitem__(self, key: bytes, value: bytes) -> None:
        held = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value))
        addresses = (ctypes.addressof(each) for each in held)
        _bpf(_MAP_UPDATE, self.file, 0, *addresses, 0, layout="=IIQQQ")

    def __iter__(self) -> Iterator[bytes]:
        before, after = 0, ctypes.create_string_buffer(self._key)
        while True:
            try:
                _bpf(_MAP_NEXT, self.file, 0, before, ctypes.addressof(after), layout="=IIQQ")
            except FileNotFoundError:
                return
            yield after.raw
            held = ctypes.create_string_buffer(after.raw, self._key)
            before = ctypes.addressof(held)

    def clear(self) -> None:
        """Delete every entry."""
        for key in list(self):
            held = ctypes.create_string_buffer(key, len(key))
            _bpf(_MAP_DELETE, self.file, 0, ctypes.addressof(held), layout="=IIQ")

    def close(self) -> None:
        """Let it go; the kernel keeps it while programs use it."""
        os.close(self.file)


# Programs

_WIDTH = {1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}
_JUMPS = {"==": 0x15, ">": 0x25, ">=": 0x35, "&": 0x45, "!=": 0x55, "<": 0xA5, "<=": 0xB5}


class Code:
    """Instructions, in the order they were asked for. Registers are numbers, places in memory a register and an offset;
    a jump names a label that is set later (a program goes forwards only).
    """

    def __init__(self) -> None:
        self._lines: list[tuple[int, int, int, int, int | str]] = []
        self._labels: dict[str, int] = {}

    def _add(self, code: int, to: int = 0, source: int = 0, offset: int | str = 0, number: int = 0) -> None:
        self._lines.append((code, to, source, number, offset))

    def label(self, name: str) -> None:
        """Jumps to this name come here."""
        self._labels[name] = len(self._lines)

    def set(self, to: int, number: int) -> None:
        """Register := number."""
        self._add(0xB7, to, number=number)

    def copy(self, to: int, source: int) -> None:
        """Register := register."""
        self._add(0xBF, to, source)

    def add(self, to: int, number: int) -> None:
        """Register += number."""
        self._add(0x07, to, number=number)

    def multiply(self, to: int, number: int) -> None:
        """Register *= number."""
        self._add(0x27, to, number=number)

    def plus(self, to: int, source: int) -> None:
        """Register += register."""
        self._add(0x0F, to, source)

    def both(self, to: int, number: int) -> None:
        """Register &= number."""
        self._add(0x57, to, number=number)

    def either(self, to: int, number: int) -> None:
        """Register |= number."""
        self._add(0x47, to, number=number)

    def other(self, to: int, number: int) -> None:
        """Register ^= number."""
        self._add(0xA7, to, number=number)

    def halve(self, to: int, times: int) -> None:
        """Register >>= number of bits."""
        self._add(0x77, to, number=times)

    def modulo(self, to: int, source: int) -> None:
        """Register %= register, of 32 bits."""
        self._add(0x9C, to, source)

    def swap(self, to: int) -> None:
        """The 16 bits of a number from the network, as this machine counts."""
        self._add(0xDC, to, number=16)

    def read(self, width: int, to: int, base: int, offset: int) -> None:
        """Register := memory of 1, 2, 4 or 8 bytes."""
        self._add(0x61 | _WIDTH[width], to, base, offset)

    def write(self, width: int, base: int, offset: int, source: int) -> None:
        """Memory := register."""
        self._add(0x63 | _WIDTH[width], base, source, offset)

    def fill(self, width: int, base: int, offset: int, number: int) -> None:
        """Memory := number."""
        self._add(0x62 | _WIDTH[width], base, 0, offset, number)

    def jump(self, where: str, register: int | None = None, how: str = "==", number: int = 0) -> None:
        """Go on at a label: always, or if a register compares so with a number."""
        if register is None:
            self._add(0x05, offset=where)
        else:
            self._add(_JUMPS[how], register, 0, where, number)

    def jump_less(self, where: str, one: int, other: int) -> None:
        """Go on at a label if one register is less than the other."""
        self._add(0xAD, one, other, where)

    def jump_other(self, where: str, one: int, other: int) -> None:
        """Go on at a label if two registers differ."""
        self._add(0x5D, one, other, where)

    def call(self, function: int) -> None:
        """Call a function of the kernel."""
        self._add(0x85, number=function)

    def use(self, to: int, table: Map) -> None:
        """Register := map."""
        self._add(0x18, to, 1, 0, table.file)
        self._add(0)

    def find(self, table: Map, key: int) -> None:
        """r0 := where the value of the key at this place of the stack is, or 0."""
        self.use(1, table)
        self.copy(2, 10)
        self.add(2, key)
        self.call(_LOOKUP)

    def end(self, result: int) -> None:
        """End the program with this result."""
        self.set(0, result)
        self.leave()

    def leave(self) -> None:
        """End the program with the result in r0."""
        self._add(0x95)

    @property
    def octets(self) -> bytes:
        """The instructions as the kernel wants them."""
        found = b""
        for at, (code, to, source, number, offset) in enumerate(self._lines):
            where = self._labels[offset] - at - 1 if isinstance(offset, str) else offset
            found += struct.pack("=BBhi", code, source << 4 | to, where, number)
        return found


def load(code: Code, place: int, kind: int) -> int:
    """Load a program of a kind (`TC`, `SOCKETS`) that is made for this place (`BPF_CGROUP_…`, `BPF_TCX_…`); its file.
    Raises `OSError` with the last lines of what the kernel's verifier said.
    """
    octets = code.octets
    held, log = ctypes.create_string_buffer(octets, len(octets)), ctypes.create_string_buffer(_LOG)
    count = len(octets) // 8
    addresses = ctypes.addressof(held), ctypes.addressof(_LICENSE)

    def tried(level: int) -> int:
        said = (level, _LOG, ctypes.addressof(log)) if level else (0, 0, 0)
        fields = (kind, count, *addresses, *said, 0, 0, b"k8snetlab", 0, place)
        return _bpf(_PROG_LOAD, *fields, layout="=IIQQIIQII16sII")  # type: ignore[arg-type]

    try:
        return tried(0)
    except OSError as error:
        if error.errno == errno.EPERM:  # no program at all; what the verifier refuses is another error
            raise
    try:
        return tried(1)
    except OSError as error:
        told = log.value.decode(errors="replace").strip().splitlines()[-6:]
        raise OSError(error.errno, f"{os.strerror(error.errno or 0)}: {' | '.join(told)}") from None


def attach(program: int, target: int, place: int) -> int:
    """Attach a program beside others, to a cgroup (its file) or to a device of this namespace (its index); the file
    that holds it there.
    """
    return _bpf(_LINK_CREATE, program, target, place, 0, layout="=IIII")
