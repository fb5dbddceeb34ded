"""How does the lab come into being, and vanish without a trace?

This process is started as the first of its own network, mount and process namespaces. It lays an empty /run over the
machine's, reads one JSON object a line, does what it says, and answers with one line. Everything it makes lives in
those namespaces: when it ends — told to, its standard input closed, or killed — the kernel ends every process it
started and takes back every namespace, device and file. There is nothing to clean up, and two labs never meet.

    {"do": "run", "jobs": [[NAMESPACE, [PROGRAM, …], INPUT], …]}      programs, side by side → [[status, out, err], …]
    {"do": "write", "values": [[NAMESPACE, PATH, VALUE], …]}          sysctls, without a program → [[number, error], …]
    {"do": "accounts", "names": [[NAMESPACE, NAME], …]}               nfacct counters → [[number, error], …]
    {"do": "listen", "sockets": [[NAMESPACE, NAME, PROTOCOL, PORT, ADDRESS], …]}
    {"do": "hand", "sockets": as above, "path": PATH}                 open them, and hand them over (`handing`)
    {"do": "lead", "members": …, "frontends": …, …}                   maps of `sockets`, `packets` → why not at devices
    {"do": "mislead"}                                                 forget who was led where
    {"do": "probe", "probes": [[NAMESPACE, PROTOCOL, ADDRESS, PORT, SIZE, WHOLE, SECONDS], …]}
    {"do": "trace", "names": [NAMESPACE, …], "probes": …}             the same, and `tracing.Event`s → [ends, events]
    {"do": "capture", "namespace": NAMESPACE, "device": DEVICE}       begin → its number
    {"do": "captured", "number": NUMBER}                              end it → [[microseconds, hexadecimal], …]

An answer is `{"ok": …}` or `{"error": "…"}`. See `unshare(1)`, `user_namespaces(7)`, `pid_namespaces(7)`.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from types import FrameType
from typing import Any

from .accounts import create
from .capturing import Capturing
from .handing import hand
from .namespaces import Namespaces, mount_tmpfs
from .packets import Device, Packets
from .prober import Probe, probe
from .responder import Wanted, serve
from .sockets import Frontend, Member, Sockets
from .tracing import Event, traced

__all__ = ["main"]

_SIDE_BY_SIDE = 8
_SECONDS = 60


class _Agent:
    def __init__(self) -> None:
        self.namespaces = Namespaces()
        self.responder = 0
        self.captures: list[Capturing] = []
        self.sockets: Sockets | None = None
        self.packets: Packets | None = None

    def run(self, jobs: list[tuple[str, list[str], str]]) -> list[tuple[int, str, str]]:
        """Start the programs, a few at a time, each in its namespace; wait for all."""
        answers: list[tuple[int, str, str]] = []
        running: deque[subprocess.Popen[str]] = deque()
        for namespace, command, text in jobs:
            if len(running) >= _SIDE_BY_SIDE:
                answers.append(_finished(running.popleft()))
            self.namespaces.enter(namespace)
            running.append(_started(command, text))
        self.namespaces.enter("")
        return answers + [_finished(each) for each in running]

    def write(self, values: list[tuple[str, str, str]]) -> list[tuple[int, str]]:
        """Write kernel settings; the numbers of those that could not be written, with the reason."""
        failed: list[tuple[int, str]] = []
        for number, (namespace, path, value) in enumerate(values):
            try:
                self.namespaces.enter(namespace)
                with open(path, "w", encoding="ascii") as file:  # noqa: PTH123 - thousands of them
                    file.write(value)
            except OSError as error:
                failed.append((number, error.strerror or str(error)))
        self.namespaces.enter("")
        return failed

    def accounts(self, names: list[tuple[str, str]]) -> list[tuple[int, str]]:
        """Create counters that rules ask for; the numbers of those that could not be created, with the reason."""
        failed: list[tuple[int, str]] = []
        for number, (namespace, name) in enumerate(names):
            try:
                self.namespaces.enter(namespace)
                create(name)
            except OSError as error:
                failed.append((number, error.strerror or str(error)))
        self.namespaces.enter("")
        return failed

    def listen(self, sockets: list[list[Any]]) -> int:
        """Serve these sockets, and no longer those before; how many there are."""
        if self.responder:
            os.kill(self.responder, signal.SIGKILL)
            os.waitpid(self.responder, 0)
        self.responder = serve([Wanted(*each) for each in sockets], self.namespaces)
        self.namespaces.enter("")
        return len(sockets)

    def hand(self, sockets: list[list[Any]], path: str) -> int:
        """Open these sockets and hand them over to who listens at a path; how many there are."""
        hand([Wanted(*each) for each in sockets], path, self.namespaces)
        self.namespaces.enter("")
        return len(sockets)

    def lead(
        self,
        members: list[list[Any]],
        frontends: list[list[Any]],
        backends: list[tuple[str, int]],
        identities: list[tuple[int, str, int]],
        shared: tuple[int, int],
        devices: list[list[Any]],
        endpoints: list[tuple[int, str]],
        ranges: list[tuple[int, int, str, int]],
    ) -> str:
        """Lead sockets and packets to backends by these maps, and no longer by those before; why the kernel refuses the
        programs at devices, or nothing.
        """
        for each in (self.packets, self.sockets):
            if each is not None:
                each.close()
        self.packets = self.sockets = None
        if not members:
            return ""
        led = [Member(*each) for each in members], [Frontend(*each) for each in frontends]
        try:
            self.sockets = Sockets(*led, backends, identities, shared, self.namespaces)
            cards = [Device(*each) for each in devices]
            self.packets = Packets(cards, endpoints, ranges, self.sockets, self.namespaces)
        except OSError as error:
            if self.sockets is None:
                raise
            return error.strerror or str(error)
        finally:
            self.namespaces.enter("")
        return ""

    def mislead(self) -> None:
        """Forget who was led where."""
        for each in (self.packets, self.sockets):
            if each is not None:
                each.forget()

    def probe(self, probes: list[list[Any]]) -> list[tuple[str, str]]:
        """Send the probes; how each ended, and what was answered."""
        return list(probe([Probe(*each) for each in probes], self.namespaces))

    def trace(self, names: list[str], probes: list[list[Any]]) -> tuple[list[tuple[str, str]], list[Event]]:
        """Send the probes; how each ended, and what the kernel told about traced packets in these namespaces."""
        ended: list[tuple[str, str]] = []
        events = traced(names, lambda: ended.extend(self.probe(probes)), self.namespaces)
        self.namespaces.enter("")
        return ended, events

    def capture(self, namespace: str, device: str) -> int:
        """Begin to capture at a device; the number of the capture."""
        self.captures.append(Capturing(namespace, device, self.namespaces))
        self.namespaces.enter("")
        return len(self.captures) - 1

    def captured(self, number: int) -> list[tuple[int, str]]:
        """End a capture; its frames."""
        return self.captures[number].end()


def _started(command: list[str], text: str) -> subprocess.Popen[str]:
    """A program whose standard input is `text`: a file in memory, so that nobody has to wait to hand it over."""
    with os.fdopen(os.memfd_create("input"), "w+") as file:
        file.write(text)
        file.seek(0)
        return subprocess.Popen(  # noqa: S603 - the lab's own commands
            command, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )


def _finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, err = process.communicate(timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        err += f"killed after {_SECONDS} seconds"
    return process.returncode, out, err


def main() -> None:
    """Obey until standard input ends."""
    _end_with_asker()
    mount_tmpfs("/run")
    agent = _Agent()
    does: dict[str, Callable[..., Any]] = {
        "run": agent.run, "write": agent.write, "accounts": agent.accounts, "listen": agent.listen,
        "hand": agent.hand, "lead": agent.lead, "mislead": agent.mislead,
        "probe": agent.probe, "trace": agent.trace, "capture": agent.capture, "captured": agent.captured,
    }  # fmt: skip
    _say({"ok": {"pid": os.getpid()}})
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            _say({"ok": does[asked.pop("do")](**asked)})
        except Exception as error:  # whatever it is, the other side must hear of it
            _say({"error": f"{type(error).__name__}: {error}"})


def _end_with_asker() -> None:
    """End at once when nobody can ask any more, whatever is being done: the kernel tells by SIGIO of all that happens
    to the pipe, its end too.
    """
    pipe = sys.stdin.fileno()

    def look(number: int, frame: FrameType | None) -> None:
        poll = select.poll()
        poll.register(pipe, 0)  # a hang-up is told to whoever looks
        if poll.poll(0):
            os._exit(0)

    signal.signal(signal.SIGIO, look)
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    look(signal.SIGIO, None)


def _say(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
