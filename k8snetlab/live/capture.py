"""What is really on the cable?

    with lab.capturing("node-1", "eth0") as capture:
        lab.probe(probes)
    Path("node-1.pcap").write_bytes(capture.pcap)

A capture takes every frame that comes to or leaves one device of one machine while the block runs, as `tcpdump -i`
does, without any program of its own: an ordinary user who may make namespaces may capture in them. The walk's own
capture of the same place is `Trace.pcap`.

Not the same as on hardware: frames are as the machine has them, before a device cuts long segments and fills in
checksums, so TCP and UDP checksums are often not right. At most 1,024 frames, each up to 16,256 bytes. See `packet(7)`.
"""

from __future__ import annotations

import msgspec

from k8snetlab.wire import pcap

__all__ = ["Capture", "Frame"]


class Frame(msgspec.Struct, frozen=True):
    """One frame: microseconds since the capture began, and its bytes from the Ethernet header on."""

    time: int
    octets: bytes


class Capture:
    """What passes `device` of machine `host`. `frames` is empty until the capture has ended."""

    def __init__(self, host: str, device: str) -> None:
        self.host = host
        self.device = device
        self.frames: tuple[Frame, ...] = ()

    @property
    def pcap(self) -> bytes:
        """A capture file that tcpdump and Wireshark open."""
        return pcap((frame.time, frame.octets) for frame in self.frames)

    def __repr__(self) -> str:
        return f"<Capture {self.host} {self.device}: {len(self.frames)} frames>"
