"""Does a real C library ask what the model says?

The name servers of a cluster stand on its machines in a lab, at port 53: CoreDNS in its pods, NodeLocal DNSCache on the
nodes if the cluster has it, the world's at the client outside. A program on a machine finds the files that the kubelet
would write — /etc/resolv.conf, /etc/hosts — laid over those of this machine for it alone. So `getent` in a pod reads
the pod's search list, sends real datagrams to the address of the kube-dns Service, through the kernel's rules to a
CoreDNS pod, which asks the world for what is not the cluster's.

    with live.Lab(shop) as lab, lookups.named(lab, shop) as names:
        seen = names.lookup("shop/web-0", "api")
    seen.asked == lookups.expected(shop.resolve("shop/web-0", "api"))

`getent` asks as glibc does; a program that musl is built into is compiled where there is a compiler for that. What both
asked is on record in `data/names`, for who has no such machine: `recorded()`.

What is compared are the questions that reached a name server, in order: name, type, transport and answer, and the
addresses that the program got. The answers are the model's own: what the lab shows is that real libraries ask so, that
the questions arrive, and what is made of the answers.

Not here: nscd and systemd-resolved, which a container has none of; how long somebody waits. A pod whose resolv.conf
names both the cluster's name server and one in the world is shown the questions at both, those too that the first one
hands on. Guide section 2.3; `resolv.conf(5)`, `unshare(1)`.
"""

from __future__ import annotations

import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import NamedTuple

import dns.message
import msgspec

from k8snetlab.address import family
from k8snetlab.cluster import Cluster, examples_folder
from k8snetlab.compile import CLIENT
from k8snetlab.dns import NODE_LOCAL, Lost, Message, Query, Question, Reply, pod_hosts
from k8snetlab.errors import BadOption, CannotDo, Problem
from k8snetlab.flows import sender_of
from k8snetlab.flows.resolution import Resolution, Servers, Standing
from k8snetlab.live.lab import Lab, Opening, Printed
from k8snetlab.live.nameserver import Asked, Socket, read, serve
from k8snetlab.tables import aligned

__all__ = [
    "CASES", "EXAMPLE", "ONE_TYPE", "PROGRAMS", "Case", "Heard", "Lookup", "Names", "compiled", "expected", "heard",
    "named", "recorded", "records",
]  # fmt: skip

PORT = 53
CONNECTIONS = 8
"""So many connections a name server may open to others, one after the other."""

PATIENCE = 10.0
"""Seconds that a name server gets to end."""

_GETADDRINFO = """import socket, sys
of = {"-4": socket.AF_INET, "-6": socket.AF_INET6}.get(sys.argv[1], socket.AF_UNSPEC)
for found in socket.getaddrinfo(sys.argv[-1], None, of, socket.SOCK_STREAM):
    print(found[4][0])
"""

PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "getent": ("getent", "ahosts"),
    "python": (sys.executable, "-I", "-S", "-c", _GETADDRINFO),
    "dig": ("dig", "+search", "+short", "+tries=1", "+time=5"),
}
"""Programs that look a name up, which stands behind these words. `dig` has a resolver of its own: it asks for A alone,
and not for a name with its search list behind it that was not there as it stands.
"""

ONE_TYPE: Mapping[str, str] = {"A": "-4", "AAAA": "-6"}
"""What tells a program to ask for one type alone; `getent` and `dig` understand it otherwise."""

_FILES = """
set -e
folder=$(mktemp -d /run/etc.XXXXXX)
for name in resolv.conf hosts nsswitch.conf; do
  printf %s "$1" > "$folder/$name"; shift
  place=$(readlink -m "/etc/$name")
  case $place in /run/*) mkdir -p "$(dirname "$place")"; : >> "$place";; esac
  if [ -e "$place" ]; then mount --bind "$folder/$name" "$place"; fi
done
exec "$@"
"""
"""Lay the three files over those of this machine, for one program: a link into /run ends in the lab's own /run."""

_NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\n"


class Lookup(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a program did: its exit status, the addresses that it printed (each once, in text order), and the questions
    that arrived at name servers, in the order in which they did. `type` was asked for, or A and AAAA; `options` stood
    in the place of those of resolv.conf.
    """

    source: str
    name: str
    program: str
    status: int
    addresses: tuple[str, ...]
    asked: tuple[Asked, ...]
    options: Mapping[str, str] = {}
    type: str | None = None


def expected(resolution: Resolution) -> tuple[Asked, ...]:
    """The questions that arrive at name servers as the model has it, in order."""
    return tuple(
        Asked(rung.query.name, rung.query.type, rung.reply.said, rung.query.transport)
        for rung in resolution.rungs
        if isinstance(rung.reply, Message)
    )


@contextmanager
def named(lab: Lab, cluster: Cluster) -> Iterator[Names]:
    """The name servers of a cluster at work in its lab, with nothing remembered, until the block ends. Raises
    `ManifestError` for a Corefile that CoreDNS cannot start with.
    """
    standing = Servers(cluster.terrain, Random(cluster.options.seed)).standing()
    openings = [_openings(each) for each in standing]
    told: list[Asked] = []
    here, there = socket.socketpair()
    with here, there, lab.handed([opening for each in openings for opening in each]) as sockets:
        rest = iter(sockets)
        threads = []
        for each, wanted in zip(standing, openings, strict=True):
            held = [(opening, next(rest)) for opening in wanted]
            answering = _Asking(each, [pair for pair in held if not pair[0].port])
            served = [Socket(sock, answering.answer, each.host) for opening, sock in held if opening.port]
            threads.append(threading.Thread(target=serve, args=(served, told.append, there), daemon=True))
        for thread in threads:
            thread.start()
        try:
            yield Names(lab, cluster, standing, told)
        finally:
            here.send(b"end")
            for thread in threads:
                thread.join(PATIENCE)


def _openings(standing: Standing) -> list[Opening]:
    """The sockets of one name server: where it listens, and from where it asks."""
    listening = [
        Opening(standing.host, protocol, PORT, address) for address in standing.addresses for protocol in ("UDP", "TCP")
    ]
    asking = [
        Opening(standing.host, protocol, 0, any_)
        for any_ in ("0.0.0.0", "::")
        for protocol in ("UDP", *(["TCP"] * CONNECTIONS))
    ]
    return listening + asking


class _Asking:
    """A name server in the lab, with the sockets from which it asks others. One thread uses it."""

    def __init__(self, standing: Standing, held: Sequence[tuple[Opening, socket.socket]]) -> None:
        self._server = standing.server
        self._began = time.monotonic()
        self._datagrams = {_family(opening): sock for opening, sock in held if opening.protocol == "UDP"}
        self._streams = [(_family(opening), sock) for opening, sock in held if opening.protocol == "TCP"]
        self._connected: dict[str, socket.socket] = {}

    def answer(self, question: Question) -> Message:
        """The model's answer; what it asks others, it asks them for real."""
        self._server.now = time.monotonic() - self._began
        asking = self._server.serve(question)
        try:
            queries = next(asking)
            while True:
                queries = asking.send(tuple(self._reply(each) for each in queries))
        except StopIteration as stop:
            message: Message = stop.value
            return message

    def _reply(self, query: Query) -> Reply:
        octets = dns.message.make_query(query.name, query.type, id=secrets.randbelow(1 << 16)).to_wire()
        try:
            found = self._by_tcp(query, octets) if query.transport == "TCP" else self._by_udp(query, octets)
        except TimeoutError:
            return Lost.TIMEOUT
        except ConnectionRefusedError:
            return Lost.CLOSED
        except (OSError, ValueError):
            return Lost.UNREACHABLE
        return found

    def _by_udp(self, query: Query, octets: bytes) -> Message:
        sock = self._datagrams[family(query.server)]
        ends = time.monotonic() + query.timeout
        sock.connect((query.server, PORT))
        sock.settimeout(query.timeout)
        sock.send(octets)
        while time.monotonic() < ends:
            reply = sock.recv(65_535)
            if reply[:2] == octets[:2]:
                return read(reply)
        raise TimeoutError

    def _by_tcp(self, query: Query, octets: bytes) -> Message:
        sock = self._connected.pop(query.server, None) or self._stream(query)
        sock.settimeout(query.timeout)
        sock.sendall(len(octets).to_bytes(2, "big") + octets)
        reply = _exactly(sock, int.from_bytes(_exactly(sock, 2), "big"))
        self._connected[query.server] = sock  # it may be asked there again
        return read(reply)

    def _stream(self, query: Query) -> socket.socket:
        wanted = family(query.server)
        at = next((at for at, (of, _) in enumerate(self._streams) if of == wanted), None)
        if at is None:
            raise TimeoutError
        sock = self._streams.pop(at)[1]
        sock.settimeout(query.timeout)
        sock.connect((query.server, PORT))
        return sock


def _family(opening: Opening) -> int:
    return family(opening.address)


def _exactly(sock: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        more = sock.recv(count - len(found))
        if not more:
            raise ConnectionResetError
        found += more
    return found


class Names:
    """Programs on the machines of a lab, which look names up."""

    def __init__(self, lab: Lab, cluster: Cluster, standing: Sequence[Standing], told: list[Asked]) -> None:
        self._lab = lab
        self._cluster = cluster
        self._standing = standing
        self._told = told

    def run(self, who: str, *command: str, options: Mapping[str, str] | None = None) -> Printed:
        """Run a program on the machine that WHO means, with the files that the kubelet would write; `options` stand in
        the place of those of resolv.conf. Raises `UnknownName` and `BadOption`.
        """
        sender = sender_of(self._cluster.terrain, who)
        conf = self._cluster.resolv_conf(who).with_options(options or {})
        known = pod_hosts(sender.pod) if sender.pod is not None else {"localhost": ("127.0.0.1", "::1")}
        hosts = "".join(f"{address}\t{name}\n" for name, addresses in known.items() for address in addresses)
        files = (conf.text, hosts, _NSSWITCH)
        return self._lab.run(
            sender.host, "unshare", "-m", "--propagation", "private", "sh", "-c", _FILES, "sh", *files, *command
        )

    def lookup(
        self,
        who: str,
        name: str,
        program: str = "getent",
        options: Mapping[str, str] | None = None,
        type: str | None = None,
    ) -> Lookup:
        """Let a program of `PROGRAMS`, or any other that takes a name as its last word, look a name up; for one `type`
        (A or AAAA) only if it takes the words of `ONE_TYPE`. Raises as `run` does, and `CannotDo` for what does not
        start.
        """
        words = PROGRAMS.get(program, (program,))
        if type is not None:
            if type not in ONE_TYPE or program in ("getent", "dig"):
                raise BadOption(Problem(f"{program} does not ask for {type} alone", field="type"))
            words = (*words, ONE_TYPE[type])
        self._told.clear()
        printed = self.run(who, *words, name, options=options)
        if printed.status in (126, 127):
            raise CannotDo(Problem(f"{program} does not start: {printed.err.strip()}", object=who))
        first = self._first(who)
        asked = tuple(msgspec.structs.replace(each, client="", host="") for each in self._told if each.host in first)
        found = _addresses(printed.out)
        return Lookup(who, name, Path(program).name, printed.status, found, asked, options or {}, type)

    def _first(self, who: str) -> frozenset[str]:
        """The machines of the name servers that a program asks itself."""
        found = set()
        for server in self._cluster.resolv_conf(who).asked:
            hosts = {each.host for each in self._standing if server in each.addresses}
            if server == NODE_LOCAL:
                hosts = hosts & {self._node(who)}
            found |= hosts or self._behind()
        return frozenset(found)

    def _node(self, who: str) -> str:
        sender = sender_of(self._cluster.terrain, who)
        return sender.pod.node_name if sender.pod is not None else sender.host

    def _behind(self) -> set[str]:
        """The machines of the name servers behind the cluster's address."""
        return {each.host for each in self._standing if each.host != CLIENT and NODE_LOCAL not in each.addresses}


def _addresses(out: str) -> tuple[str, ...]:
    words = (line.split()[0] for line in out.splitlines() if line.strip())
    return tuple(sorted({each for each in words if each[0].isdigit() or ":" in each}))


# A C library that few machines have

_C = """
#include <arpa/inet.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

int main(int count, char **words) {
    struct addrinfo wanted = {.ai_socktype = SOCK_STREAM}, *each;
    char text[INET6_ADDRSTRLEN];
    if (count > 2) wanted.ai_family = strcmp(words[1], "-6") ? AF_INET : AF_INET6;
    if (count < 2 || getaddrinfo(words[count - 1], NULL, &wanted, &each)) return 2;
    for (; each; each = each->ai_next)
        if (!getnameinfo(each->ai_addr, each->ai_addrlen, text, sizeof text, NULL, 0, NI_NUMERICHOST)) puts(text);
    return 0;
}
"""


def compiled(folder: Path, compiler: str = "musl-gcc") -> Path:
    """A program `musl` in a folder that looks names up by musl. Raises `CannotDo` where nothing compiles it."""
    if shutil.which(compiler) is None:
        raise CannotDo(Problem(f"there is no {compiler}: Debian's packages musl-tools and gcc bring it"))
    source, program = folder / "musl.c", folder / "musl"
    source.write_text(_C, encoding="ascii")
    ran = subprocess.run(  # noqa: S603
        [compiler, "-static", "-o", program, source], capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise CannotDo(Problem(f"{compiler}: {ran.stderr.strip()}"))
    return program


# What was asked, for those who have no lab

EXAMPLE = "names-of-every-shape"
"""The cluster of the records."""

NAMES = (
    "web", "web.default", "web.default.svc.cluster.local", "web.default.svc.cluster.local.", "stock", "stock.warehouse",
    "all", "empty", "nobody", "bank", "db", "db-0.db", "desk.db", "shopwindow.all", "wed", "kubernetes", "example.com",
    "www.example.com", "www.example.com.", "nosuch.example.com", "a.b.c.d.e.example.com",
)  # fmt: skip
"""The names that are looked up for the records, as a pod does; some of them by others, and with other options."""


class Case(NamedTuple):
    """Who looks up what, with which options of resolv.conf; one type alone, or A and AAAA."""

    who: str
    name: str
    options: Mapping[str, str] = {}
    type: str | None = None


def _cases() -> Iterator[Case]:
    client = "default/client"
    yield from (Case(client, name) for name in NAMES)
    counted = ("web", "stock.warehouse", "www.example.com", "web.default.svc.cluster.local")
    yield from (Case(client, name, {"ndots": n}) for name in counted for n in ("1", "2", "3", "4"))
    yield from (Case(client, name, {}, kind) for name in ("web", "www.example.com") for kind in ONE_TYPE)
    others = "warehouse/counter", "default/agent", "node/node-2"
    yield from (Case(who, name) for who in others for name in ("web", "stock", "web.default", "www.example.com"))


CASES = tuple(_cases())
"""What is looked up for the records."""


class Heard(msgspec.Struct, frozen=True):
    """What name servers heard of a real C library: `dns` is the option of the cluster."""

    library: str
    version: str
    dns: str
    lookups: tuple[Lookup, ...]

    def differing(self, cluster: Cluster) -> tuple[Lookup, ...]:
        """Those lookups that the model has otherwise: other questions or answers, another order, other addresses."""
        found = []
        for each in self.lookups:
            said = cluster.resolve(each.source, each.name, type=each.type, libc=self.library, options=each.options)
            if (each.asked, each.addresses) != (expected(said), tuple(sorted(said.addresses))):
                found.append(each)
        return tuple(found)

    def __str__(self) -> str:
        rows = [("FROM", "NAME", "TYPE", "OPTIONS", "QUESTIONS", "ADDRESSES")]
        for each in self.lookups:
            options = " ".join(f"{key}:{value}" for key, value in each.options.items())
            told = str(len(each.asked)), ", ".join(each.addresses) or "none"
            rows.append((each.source, each.name, each.type or "", options, *told))
        return f"{self.library} {self.version}, dns={self.dns}\n{aligned(rows)}"

    def __repr__(self) -> str:
        return str(self)


def heard(cluster: Cluster, library: str, program: str, version: str) -> Heard:
    """Let a program look up all `CASES`, in a lab; where `getent` cannot ask for one type, Python does."""
    typed = "python" if program == "getent" else program
    with Lab(cluster) as lab, named(lab, cluster) as names:
        lookups = tuple(
            names.lookup(who, name, typed if kind else program, options, kind) for who, name, options, kind in CASES
        )
    return Heard(library, version, cluster.options.dns, lookups)


def recorded() -> tuple[Heard, ...]:
    """What was heard of glibc and musl, from `data/names`."""
    return tuple(msgspec.json.decode(path.read_bytes(), type=Heard) for path in records())


def records() -> list[Path]:
    """The files with such records that come with the package."""
    return sorted((examples_folder() / "names").glob("*.json"))
