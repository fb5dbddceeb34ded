"""Which frames pass a device?

A packet socket that is bound to a device gets a copy of every frame that comes or goes there, before the machine's
rules see what comes and after they saw what goes. The kernel writes the copies into memory that it shares with this
process, so that none is lost while the process is busy, up to `FRAMES` of them. See `packet(7)`, packet_mmap.rst.

What comes and what goes is told apart nowhere but on the loopback device, where each frame does both and is kept once.
Frames are as the machine has them: segments that the device may cut are still whole, and checksums that it may fill in
are not filled in. Longer ones than `LONGEST` are cut there.
"""

from __future__ import annotations

import mmap
import socket
import struct
import time

from .namespaces import Namespaces

__all__ = ["Capturing"]

FRAMES = 1024
LONGEST = (1 << 14) - 128

_SLOT, _BLOCK = 1 << 14, 1 << 17
_SOL_PACKET, _RX_RING, _STATISTICS, _VERSION, _IGNORE_OUTGOING = 263, 5, 6, 10, 23
_TPACKET_V2 = 1
_HELD = 1
_EVERYTHING = 3  # ETH_P_ALL
_HEADER = struct.Struct("=IIIHHII")
"""struct tpacket2_hdr: status, length, length kept, offset of the frame, offset of its payload, seconds, ns."""


class Capturing:
    """A capture that is under way at one device."""

    def __init__(self, namespace: str, device: str, namespaces: Namespaces) -> None:
        self._socket = namespaces.socket(namespace, socket.AF_PACKET, socket.SOCK_RAW)
        held = self._socket
        held.setsockopt(_SOL_PACKET, _VERSION, _TPACKET_V2)
        held.setsockopt(_SOL_PACKET, _RX_RING, struct.pack("=IIII", _BLOCK, FRAMES * _SLOT // _BLOCK, _SLOT, FRAMES))
        if device == "lo":
            held.setsockopt(_SOL_PACKET, _IGNORE_OUTGOING, 1)
        self._memory = mmap.mmap(held.fileno(), FRAMES * _SLOT)
        self._begun = time.time_ns()
        held.bind((device, _EVERYTHING))

    def end(self) -> list[tuple[int, str]]:
        """Every frame: microseconds since the capture began, and its bytes in hexadecimal digits. Raises `OSError`
        where there were more than there was room for.
        """
        _, lost = struct.unpack("=II", self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 8))
        found = []
        for at in range(0, FRAMES * _SLOT, _SLOT):
            status, _, kept, begin, _, seconds, nanoseconds = _HEADER.unpack_from(self._memory, at)
            if not status & _HELD:
                break
            octets = self._memory[at + begin : at + begin + kept]
            found.append(((seconds * 10**9 + nanoseconds - self._begun) // 1000, octets.hex()))
        self._memory.close()
        self._socket.close()
        if lost:
            raise OSError(f"{lost} frames more than the {FRAMES} that there is room for")
        return found
