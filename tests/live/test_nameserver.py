"""The model's CoreDNS behind real sockets, asked by `dig` and by bytes that are no questions."""

from __future__ import annotations

import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import pytest

from k8snetlab import CannotDo, Cluster, example
from k8snetlab.dns import Message, Question, Record
from k8snetlab.live.nameserver import Answering, Asked, Socket, answering, opened, read, replied, serve
from tests.live.shop import DUAL_STACK

MANY = """
apiVersion: v1
kind: Service
metadata: {name: many}
spec: {clusterIP: None, selector: {app: many}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: many}
spec:
  replicas: 60
  selector: {matchLabels: {app: many}}
  template:
    metadata: {labels: {app: many}}
    spec: {containers: [{name: hello, image: registry.example.com/hello:1}]}
"""
KUBE_DNS = "kube-dns.kube-system.svc.cluster.local."


@contextmanager
def listening(answer: Answering) -> Iterator[tuple[int, list[Asked]]]:
    """A name server at a port of the loopback, and what it was asked."""
    told: list[Asked] = []
    here, there = socket.socketpair()
    with here, there, opened("127.0.0.1", 0) as (sockets, port):
        thread = threading.Thread(target=serve, args=([Socket(each, answer) for each in sockets], told.append, there))
        thread.start()
        try:
            yield port, told
        finally:
            here.send(b"end")
            thread.join()


@pytest.fixture
def dig() -> str:
    """The program; the test skips where it is not."""
    program = shutil.which("dig")
    if program is None:
        pytest.skip("no dig on this machine: Debian's package bind9-dnsutils brings it")
    return program


def dug(dig: str, port: int, *words: str) -> list[list[str]]:
    """The records in the answers, their five fields each."""
    command = [dig, "@127.0.0.1", "-p", str(port), "+noall", "+answer", "+tries=1", "+time=5", *words]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [line.split(None, 4) for line in out.splitlines() if line and not line.startswith(";")]


def test_dig_gets_every_record_of_the_cluster(dig: str) -> None:
    """Of every type and shape that the model has: name, class, type and data, all in one conversation."""
    cluster = example("names-of-every-shape")
    records = cluster.records()
    assert {each.type for each in records} == {"A", "CNAME", "PTR", "SOA", "SRV", "TXT"}
    asked = dict.fromkeys((each.name, each.type) for each in records)
    with listening(answering(cluster)) as (port, told):
        words = [word for name, kind in asked for word in (name, kind, "+noall", "+answer", "+noidnout")]
        seen = dug(dig, port, *words)
    wanted = {(each.name, each.type, each.data) for each in records}
    assert {(name, kind, data) for name, _, _, kind, data in seen} >= wanted
    assert len(told) == len(asked)


@pytest.mark.parametrize(
    ("name", "kind", "data"),
    [("web.ipv6.svc.cluster.local.", "AAAA", None), ("www.example.com.", "A", "203.0.113.10")],
)
def test_dig_gets_what_is_elsewhere(dig: str, name: str, kind: str, data: str | None) -> None:
    """A name of the world comes from the world; a name that is nowhere from nobody."""
    with listening(answering(example("names-of-every-shape"))) as (port, _):
        assert [record[4] for record in dug(dig, port, name, kind)] == ([data] if data else [])


def test_dig_gets_addresses_of_both_families(dig: str) -> None:
    """AAAA and the reverse name of an address of IPv6."""
    both = MANY.replace("clusterIP: None", "ipFamilyPolicy: RequireDualStack").replace("60", "3")
    cluster = Cluster.load(both, **DUAL_STACK)
    records = [each for each in cluster.records() if each.type == "AAAA" or each.name.endswith("ip6.arpa.")]
    with listening(answering(cluster)) as (port, _):
        seen = dug(dig, port, *(word for each in records for word in (each.name, each.type, "+noall", "+answer")))
    assert {(line[0], line[4]) for line in seen} == {(each.name, each.data) for each in records} != set()


def test_an_answer_too_long_for_a_datagram_is_asked_for_again_by_tcp(dig: str) -> None:
    """512 bytes without EDNS: a cut answer; whoever takes it as it is has less."""
    with listening(answering(Cluster.load(MANY))) as (port, told):
        name = "many.default.svc.cluster.local"
        whole = dug(dig, port, name, "+noedns")
        cut = dug(dig, port, name, "+noedns", "+ignore")
        wider = dug(dig, port, name, "+bufsize=4096")
    assert (len(whole), len(wider)) == (60, 60) and 0 < len(cut) < 60
    assert [each.transport for each in told] == ["UDP", "TCP", "UDP", "UDP"]


def test_dig_understands_every_type_that_a_record_may_have(dig: str) -> None:
    """Those too that no object of a cluster makes."""
    data = {
        "A": "192.0.2.1", "AAAA": "2001:db8::1", "CNAME": "b.example.", "MX": "10 b.example.", "NS": "b.example.",
        "PTR": "b.example.", "SOA": "a.example. b.example. 1 2 3 4 5", "SRV": "0 100 80 b.example.", "TXT": '"1.1.0"',
    }  # fmt: skip

    def answer(question: Question) -> Message:
        return Message(answers=(Record(question.name, question.type, 5, data[question.type]),))

    with listening(answer) as (port, _):
        seen = dug(dig, port, *(word for kind in data for word in ("a.example.", kind, "+noall", "+answer")))
    assert {kind: said for _, _, _, kind, said in seen} == data


def one(question: Question) -> Message:
    """A name server with one address for all."""
    return Message(answers=(Record(question.name, "A", 5, "192.0.2.1"),), authoritative=True)


def asking(**changes: object) -> dns.message.QueryMessage:
    """A question, with other facts."""
    message = dns.message.make_query("a.example.", "A", use_edns=0)
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def twice() -> bytes:
    """A message with two questions."""
    message = asking()
    message.question *= 2
    return message.to_wire()


def version_1() -> bytes:
    """A message in an EDNS that is not there."""
    message = asking()
    message.use_edns(1)
    return message.to_wire()


# Messages are numbered at random, so what each is has a name of its own.
MESSAGES: Mapping[str, tuple[bytes, str | None]] = {
    "nothing": (b"", None),
    "a request of HTTP": (b"GET / HTTP", None),
    "an answer": (asking(flags=dns.flags.QR).to_wire(), None),
    "two questions": (twice(), "FORMERR"),
    "no question": (asking(question=[]).to_wire(), "FORMERR"),
    "cut off": (asking().to_wire()[:-14], "FORMERR"),
    "more behind it": (asking().to_wire() + b"more", "FORMERR"),
    "an update": (bytes([0, 1, 0x28, 0, 0, 1, 0, 0, 0, 0, 0, 0]), "NOTIMP"),
    "EDNS 1": (version_1(), "BADVERS"),
    "another class": (dns.message.make_query("version.bind.", "TXT", "CH").to_wire(), "REFUSED"),
    "a transfer": (dns.message.make_query("a.example.", "AXFR").to_wire(), "REFUSED"),
    "a question": (asking().to_wire(), "NOERROR"),
    "an unknown type": (dns.message.make_query("A.example.", "TYPE65432").to_wire(), "NOERROR"),
}


@pytest.mark.parametrize(("octets", "said"), MESSAGES.values(), ids=MESSAGES)
def test_what_is_no_question_gets_a_code_or_nothing(octets: bytes, said: str | None) -> None:
    """Each as CoreDNS takes it; the number of the message comes back."""
    reply, _ = replied(octets, "UDP", "", one)
    assert (dns.rcode.to_text(dns.message.from_wire(reply).rcode()) if reply else None) == said
    assert not reply or (reply[:2] == octets[:2] and reply[2] & 0x80)


def test_no_bytes_do_harm() -> None:
    """Messages with bytes changed, cut off and put in: an answer that can be read, or none."""
    rng = random.Random(53)
    answer = answering(example("names-of-every-shape"))
    good = [asking().to_wire(), twice(), version_1(), dns.message.make_query(KUBE_DNS, "SRV", payload=600).to_wire()]
    for _ in range(2000):
        octets = bytearray(rng.choice(good))
        for _ in range(rng.randint(0, 4)):
            octets[rng.randrange(len(octets))] = rng.randrange(256)
        cut = bytes(octets[: rng.choice((len(octets), rng.randrange(len(octets) + 1)))])
        reply, _asked = replied(cut, rng.choice(("UDP", "TCP")), "", answer)
        assert not reply or dns.message.from_wire(reply).id == int.from_bytes(cut[:2], "big")


def test_an_answer_comes_back_as_the_model_gave_it() -> None:
    """Written and read again, it is the same value."""
    records = tuple(example("names-of-every-shape").records())
    message = Message(answers=records[:20], authority=records[:1], authoritative=True, truncated=True)
    reply, _ = replied(dns.message.make_query(KUBE_DNS, "A").to_wire(), "TCP", "", lambda _: message)
    assert read(reply) == message
    with pytest.raises(ValueError, match="too short"):
        read(reply[:9])


def test_a_connection_carries_several_questions_in_pieces() -> None:
    """The second half of a message may come later, with the next message behind it."""
    octets = asking().to_wire()
    stream = (len(octets).to_bytes(2, "big") + octets) * 2
    with listening(one) as (port, told), socket.create_connection(("127.0.0.1", port), 5) as connection:
        for piece in (stream[:1], stream[1:30], stream[30:]):
            connection.sendall(piece)
        connection.shutdown(socket.SHUT_WR)
        came = b"".join(iter(lambda: connection.recv(4096), b""))
    assert len(told) == 2 and came[: len(came) // 2] == came[len(came) // 2 :]


def test_a_name_server_that_fails_says_so_and_lives_on() -> None:
    """SERVFAIL for one question; the next one is served."""

    def answer(question: Question) -> Message:
        if question.type == "TXT":
            raise ValueError(question.name)
        return one(question)

    with listening(answer) as (port, told), socket.socket(type=socket.SOCK_DGRAM) as asker:
        asker.settimeout(5)
        for kind in ("TXT", "A"):
            asker.sendto(dns.message.make_query("a.example.", kind).to_wire(), ("127.0.0.1", port))
            asker.recv(512)
    assert [each.said for each in told] == ["SERVFAIL", "NOERROR"]


def test_a_port_in_use_is_told() -> None:
    """Number and remedy."""
    with (
        opened("127.0.0.1", 0) as (_, port),
        pytest.raises(CannotDo, match=f"port {port} is in use already"),
        opened("127.0.0.1", port),
    ):
        pass


def test_the_command_serves_until_it_is_interrupted(dig: str) -> None:
    """The port is told, then each question; Ctrl-C is no error."""
    code = "from k8snetlab.cli import main; main()"
    words = [sys.executable, "-c", code, "dns", "-f", "-", "--serve", "--port", "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(MANY)
        process.stdin.close()
        first = process.stdout.readline()
        port = int(first.partition(" port ")[2].partition(",")[0])
        assert dug(dig, port, KUBE_DNS)[0][4] == "10.96.0.10"
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.stderr is not None
        assert (process.wait(10), process.stderr.read()) == (0, "")
    assert rest.endswith(f"Ctrl-C ends it.\nUDP  A     {KUBE_DNS}  NOERROR\n")
