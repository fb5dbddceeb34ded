"""Where does a rule count that names a counter?

`-m nfacct --nfacct-name N` counts into an object of that name, which must exist before the rule does. Debian's tool
for it is not everywhere; the request is one netlink message. See `nfacct(8)`, linux/netfilter/nfnetlink_acct.h.
"""

from __future__ import annotations

import os
import socket
import struct

__all__ = ["create"]

_NETLINK_NETFILTER = 12
_NEW = 7 << 8  # subsystem ACCT, message NEW
_FLAGS = 0x1 | 0x4 | 0x400  # REQUEST, ACK, CREATE
_NAME = 1


def create(name: str) -> None:
    """Create the counter in the namespace of this thread. Raises `OSError` where the kernel cannot."""
    text = name.encode() + b"\0"
    attribute = struct.pack("=HH", 4 + len(text), _NAME) + text
    body = struct.pack("=BBH", 0, 0, 0) + attribute.ljust(-(-len(attribute) // 4) * 4, b"\0")
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.send(struct.pack("=IHHII", 16 + len(body), _NEW, _FLAGS, 1, 0) + body)
        answer = netlink.recv(4096)
    failed = -int(struct.unpack_from("=i", answer, 16)[0])
    if failed:
        raise OSError(failed, os.strerror(failed), name)
