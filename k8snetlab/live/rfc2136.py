"""Does a real name server take what was planned?

RFC 2136 lets a program change a zone by a message to its name server; RFC 8945 lets it sign the message with a secret
that both know (TSIG). That is how external-dns works where no cloud is at hand. `Rfc2136` is such a provider: it takes
the zone by a transfer (AXFR), and a plan becomes one update, so that all of it is done or nothing. The update demands
that every record set it touches is still as it was when the plan was made; if somebody was faster, the server refuses
and nothing is lost.

`served` starts a real server — Knot DNS or BIND, whichever is asked for — for one zone on the loopback:

    with served(zone, KNOT) as provider:
        provider.apply(shop.external_dns(provider.zone()))

A server that refuses says why with a code: REFUSED and NOTAUTH where the signature is missing or unknown, NXRRSET and
YXRRSET where something is not as it was. `apply` raises `CannotDo` with it.

Not here: signatures other than HMAC-SHA256, GSS-TSIG, several zones in one update. Guide section 5.5; RFC 2136,
RFC 5936, RFC 8945; Debian's packages knot and bind9.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import dns.exception
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import dns.tsig
import dns.tsigkeyring
import dns.update
import dns.zone
import msgspec

from k8snetlab.cluster import examples_folder
from k8snetlab.dns.external import Plan
from k8snetlab.dns.zone import RecordSet, Zone
from k8snetlab.errors import CannotDo, Problem

__all__ = [
    "BIND", "KNOT", "SERVERS", "Carried", "Key", "Rfc2136", "Server", "carried", "recorded", "records", "served",
]  # fmt: skip

SECONDS = 5.0


class Key(msgspec.Struct, frozen=True):
    """A secret that server and client know, by its name."""

    name: str
    secret: bytes

    @classmethod
    def of(cls, name: str, seed: str) -> Key:
        """A key for the lab: the secret follows from a word, and is therefore none."""
        return cls(name, sha256(seed.encode()).digest())

    @property
    def text(self) -> str:
        """The secret as configurations have it."""
        return b64encode(self.secret).decode()


class Rfc2136(msgspec.Struct, frozen=True):
    """A provider that speaks to a name server: its address and port, the zone's name, and the key (none: unsigned)."""

    address: str
    port: int
    origin: str
    key: Key | None = None

    def zone(self) -> Zone:
        """The whole zone, by a transfer. Raises `CannotDo` with what the server says."""
        found = dns.zone.Zone(self.origin, relativize=False)
        question = dns.message.make_query(self.origin, "AXFR")
        self._sign(question)
        try:
            dns.query.inbound_xfr(self.address, found, question, port=self.port, timeout=SECONDS, lifetime=SECONDS)
        except (dns.exception.DNSException, OSError) as error:
            raise self._cannot("transfer", str(error) or type(error).__name__) from error
        return Zone.of(self.origin, (_records(name.to_text(), held) for name, held in found.iterate_rdatasets()))

    def apply(self, plan: Plan) -> None:
        """One update with all changes. Raises `CannotDo` with the code of the server's answer."""
        update = dns.update.UpdateMessage(self.origin)
        for change in (*plan.changes, *plan.texts):
            if change.before is None:
                update.absent(change.records.name, change.records.type)
            else:
                update.present(change.before.name, _held(change.before, 0))  # section 2.4.2: no time to live
                update.delete(change.before.name, change.before.type)
            if change.after is not None:
                update.add(change.after.name, _held(change.after))
        self._sign(update)
        try:
            answer = dns.query.tcp(update, self.address, SECONDS, self.port)
        except dns.tsig.PeerError as error:  # the answer itself is about the signature
            raise self._cannot("update", str(error)) from error
        except (dns.exception.DNSException, OSError) as error:
            raise self._cannot("update", str(error) or type(error).__name__) from error
        if answer.rcode() != dns.rcode.NOERROR:
            raise self._cannot("update", dns.rcode.to_text(answer.rcode()))

    def _sign(self, message: dns.message.Message) -> None:
        if self.key is not None:
            message.use_tsig(dns.tsigkeyring.from_text({self.key.name: self.key.text}), algorithm=dns.tsig.HMAC_SHA256)

    def _cannot(self, what: str, why: str) -> CannotDo:
        return CannotDo(Problem(f"{what} refused: {why}", object=f"{self.address}:{self.port}", field=self.origin))


def _records(name: str, held: dns.rdataset.Rdataset) -> RecordSet:
    data = tuple(sorted(each.to_text() for each in held))
    return RecordSet(name.lower(), dns.rdatatype.to_text(held.rdtype), held.ttl, data)


def _held(records: RecordSet, ttl: int | None = None) -> dns.rdataset.Rdataset:
    return dns.rdataset.from_text("IN", records.type, records.ttl if ttl is None else ttl, *records.data)


# Servers


class Server(NamedTuple):
    """A name server that can be started: its name, its program, Debian's package, its configuration (with places for
    folder, port, origin, key and secret), and the words it is started with.
    """

    name: str
    program: str
    package: str
    configuration: str
    words: tuple[str, ...]


KNOT = Server(
    "Knot DNS",
    "knotd",
    "knot",
    """server:
    rundir: "{folder}"
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
database:
    storage: "{folder}"
key:
  - id: {key}
    algorithm: hmac-sha256
    secret: {secret}
acl:
  - id: signed
    key: {key}
    action: [update, transfer]
template:
  - id: default
    storage: "{folder}"
zone:
  - domain: {origin}
    file: "{folder}/zone"
    acl: signed
""",
    ("-c", "{folder}/configuration"),
)

BIND = Server(
    "BIND",
    "named",
    "bind9",
    """options {{
  directory "{folder}";
  listen-on port {port} {{ 127.0.0.1; }};
  listen-on-v6 {{ none; }};
  pid-file "{folder}/pid";
  session-keyfile "{folder}/session";
  recursion no;
  dnssec-validation no;
  notify no;
}};
controls {{ }};
key {key} {{ algorithm hmac-sha256; secret "{secret}"; }};
zone "{origin}" {{
  type primary;
  file "{folder}/zone";
  allow-update {{ key {key}; }};
  allow-transfer {{ key {key}; }};
}};
""",
    ("-f", "-n", "1", "-c", "{folder}/configuration"),
)

SERVERS: Mapping[str, Server] = {"knot": KNOT, "bind": BIND}
"""The name servers that can be started, by the name that people use."""


@contextmanager
def served(zone: Zone, server: Server = KNOT, key: Key | None = None) -> Iterator[Rfc2136]:
    """A real name server for one zone, on the loopback, and the provider that may change it. It has SOA, NS and its
    own address if the zone says none. Raises `CannotDo` where the program is missing or does not start.
    """
    program = shutil.which(server.program)
    if program is None:
        raise CannotDo(Problem(f"there is no program {server.program}: install the package {server.package}"))
    key = key or Key.of("external-dns", zone.origin)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        with closing(socket.socket()) as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        facts = {"folder": name, "port": port, "origin": zone.origin, "key": key.name, "secret": key.text}
        (folder / "zone").write_text(f"{_whole(zone)}\n", encoding="utf-8")
        (folder / "configuration").write_text(server.configuration.format(**facts), encoding="utf-8")
        command = [program, *(word.format(**facts) for word in server.words)]
        with (folder / "said").open("wb") as said:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said)  # noqa: S603
        provider = Rfc2136("127.0.0.1", port, zone.origin, key)
        try:
            _wait(process, provider, folder / "said", server)
            yield provider
        finally:
            process.terminate()
            try:
                process.wait(timeout=SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _whole(zone: Zone) -> Zone:
    """A zone with what a server wants of every zone."""
    missing = []
    if (zone.origin, "SOA") not in zone.by_key:
        data = f"ns.{zone.origin} hostmaster.{zone.origin} 1 3600 600 86400 60"
        missing.append(RecordSet(zone.origin, "SOA", 3600, (data,)))
    if (zone.origin, "NS") not in zone.by_key:
        missing.append(RecordSet(zone.origin, "NS", 3600, (f"ns.{zone.origin}",)))
        missing.append(RecordSet(f"ns.{zone.origin}", "A", 3600, ("127.0.0.1",)))
    return zone.changed((), missing)


def _wait(process: subprocess.Popen[bytes], provider: Rfc2136, said: Path, server: Server) -> None:
    ends = time.monotonic() + 2 * SECONDS
    while True:
        try:
            provider.zone()
        except CannotDo as error:
            if process.poll() is not None or time.monotonic() > ends:
                last = said.read_text(errors="replace").strip().splitlines()
                why = last[-1] if last else str(error)
                raise CannotDo(Problem(f"{server.name} does not start: {why}", object=server.program)) from error
            time.sleep(0.05)
        else:
            return


# What servers said, for those who have none


class Carried(msgspec.Struct, frozen=True):
    """How a server took a plan: its `version`; what it answered, by how it was asked; and the lines of the zone before
    and after, without the SOA record.
    """

    server: str
    version: str
    answers: Mapping[str, str]
    before: tuple[str, ...]
    after: tuple[str, ...]

    def __str__(self) -> str:
        said = [f"  {how:<36} {answer}" for how, answer in self.answers.items()]
        return "\n".join([f"{self.server} {self.version}", *said])

    def __repr__(self) -> str:
        return str(self)


def carried(plan: Plan, server: Server) -> Carried:
    """Ask a real server to carry out a plan: without a signature, with one it does not know, as is right, and once
    more. Raises `CannotDo` where there is no such server.
    """
    with served(plan.zone, server) as provider:
        before = _lines(provider.zone())
        stranger = Key.of("external-dns", "another secret")
        asked = {
            "without a signature": msgspec.structs.replace(provider, key=None),
            "signed with another secret": msgspec.structs.replace(provider, key=stranger),
            "signed": provider,
            "signed, and the plan is too old": provider,
        }
        answers = {how: _answer(each, plan) for how, each in asked.items()}
        return Carried(server.name, _version(server), answers, before, _lines(provider.zone()))


def recorded() -> tuple[Carried, ...]:
    """How the servers of `SERVERS` took the plan of the example `names-for-the-world`, from `data/zones`."""
    return tuple(msgspec.json.decode(path.read_bytes(), type=Carried) for path in records())


def records() -> list[Path]:
    """The files with such records that come with the package."""
    return sorted((examples_folder() / "zones").glob("*.json"))


def _answer(provider: Rfc2136, plan: Plan) -> str:
    try:
        provider.apply(plan)
    except CannotDo as error:
        return error.problems[0].message
    return "NOERROR"


def _lines(zone: Zone) -> tuple[str, ...]:
    return tuple(line for each in zone.sets if each.type != "SOA" for line in each.lines)


def _version(server: Server) -> str:
    said = subprocess.run([server.program, "-V"], capture_output=True, text=True, check=False)  # noqa: S603
    return next((word.strip(",") for word in said.stdout.split() if word[:1].isdigit()), "")
