"""How do pixels become a PNG quickly?

A PNG is a signature and chunks; the pixels are one zlib stream, which may be cut into as many chunks as one likes.
Here every chunk holds a strip of rows whose packing ends on a byte (a full flush): a strip that did not change since
the last picture need not be packed again. Only the check sum at the end of the stream spans all strips, and sums of
strips can be added up.

Rows are packed without a filter and at the lowest level, which is quickest for flat colours. PNG specification, third
edition (W3C 2025); RFC 1950, RFC 1951.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

__all__ = ["Packer"]

ROWS = 48
"""Rows in a strip."""
SIGNATURE = b"\x89PNG\r\n\x1a\n"
RGBA = 6
MODULUS = 65521


class Packer:
    """Packs picture after picture of one size, and remembers the strips of the last one."""

    def __init__(self) -> None:
        self._last: NDArray[np.uint8] | None = None
        self._strips: list[tuple[bytes, int]] = []

    def pack(self, pixels: NDArray[np.uint8]) -> bytes:
        """The PNG of pixels with red, green, blue and opacity, of shape (height, width, 4)."""
        height, width, _ = pixels.shape
        rows = np.zeros((height, 1 + 4 * width), np.uint8)  # each row begins with the number of its filter: none
        rows[:, 1:] = pixels.reshape(height, 4 * width)
        last = self._last if self._last is not None and self._last.shape == rows.shape else None
        strips = []
        for at, top in enumerate(range(0, height, ROWS)):
            strip = rows[top : top + ROWS]
            if last is not None and np.array_equal(strip, last[top : top + ROWS]):
                strips.append(self._strips[at])
            else:
                strips.append(_strip(strip))
        self._last, self._strips = rows, strips
        check = 1
        for at, (_, sum_of_strip) in enumerate(strips):
            check = _added(check, sum_of_strip, len(rows[at * ROWS : (at + 1) * ROWS]) * rows.shape[1])
        head = _chunk(b"IHDR", struct.pack(">2I5B", width, height, 8, RGBA, 0, 0, 0))
        start = _chunk(b"IDAT", b"\x78\x01")
        end = _chunk(b"IDAT", b"\x03\x00" + struct.pack(">I", check))  # an empty last block
        return b"".join((SIGNATURE, head, start, *(packed for packed, _ in strips), end, _chunk(b"IEND", b"")))


def _strip(rows: NDArray[np.uint8]) -> tuple[bytes, int]:
    """The chunk of some rows, and their check sum."""
    packing = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = packing.compress(rows.data) + packing.flush(zlib.Z_FULL_FLUSH)
    return _chunk(b"IDAT", packed), zlib.adler32(rows.data)


def _chunk(kind: bytes, contents: bytes) -> bytes:
    check = zlib.crc32(contents, zlib.crc32(kind))
    return b"".join((struct.pack(">I", len(contents)), kind, contents, struct.pack(">I", check)))


def _added(first: int, second: int, length: int) -> int:
    """The Adler-32 sum of two pieces on end, from the sums of each and the length of the second."""
    low = ((first & 0xFFFF) + (second & 0xFFFF) - 1) % MODULUS
    high = (length * ((first & 0xFFFF) - 1) + (first >> 16) + (second >> 16)) % MODULUS
    return high << 16 | low
