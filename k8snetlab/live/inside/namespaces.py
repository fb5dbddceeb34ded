"""How can one process stand in many network namespaces?

A thread may enter another namespace (`setns(2)`), and a socket stays in the namespace it was made in. So one process
opens sockets in thirty machines, one after the other, and serves them all. A program that is started while the thread
stands in a namespace begins its life there.

Names of namespaces stand below /run/netns, where `ip netns` puts them. See `namespaces(7)`, `setns(2)`.
"""

from __future__ import annotations

import ctypes
import os
import socket

__all__ = ["Namespaces", "mount_tmpfs"]

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


class Namespaces:
    """The namespaces that this process has been in. The empty name is the one it began in."""

    def __init__(self) -> None:
        self._open = {"": os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)}
        self._here = ""

    def enter(self, name: str) -> None:
        """Stand in the namespace of that name. Raises `OSError` if there is none."""
        if name == self._here:
            return
        held = self._open.get(name)
        if held is None:
            held = self._open[name] = os.open(f"/run/netns/{name}", os.O_RDONLY | os.O_CLOEXEC)
        if _libc.setns(held, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)
        self._here = name

    def socket(self, name: str, family: int, kind: int, protocol: int = 0) -> socket.socket:
        """A socket of that namespace, which does not block."""
        self.enter(name)
        return socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)


def mount_tmpfs(path: str) -> None:
    """An empty file system in memory over `path`, seen by this process and those it starts."""
    if _libc.mount(b"tmpfs", path.encode(), b"tmpfs", 0, None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), path)
