"""Does the kernel agree about a whole cluster?

The walk answers every question first (`questions` says which there are). Then the same machines are built on this
kernel and real packets are sent. What comes out is a `Proof`: every question with what the walk said and what
happened, and which kernel it was.

Where load balancing chooses, a question is put many times (`TRIES` for each thing that may happen), and the walk must
have said everything that is seen. A question that ends in an unexpected TIMEOUT is put once more with more patience: a
busy machine may answer late; a network that loses packets will lose them again.

Not proven: what takes longer than one connection — affinity that ends, connections that outlive an endpoint.
"""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgspec

from k8snetlab.cluster import Cluster
from k8snetlab.errors import UnknownName
from k8snetlab.linux import text
from k8snetlab.linux.host import Network
from k8snetlab.linux.netfilter import Netfilter
from k8snetlab.live.comparison import predicted
from k8snetlab.live.lab import Lab
from k8snetlab.live.probes import Probe, Sight
from k8snetlab.live.questions import MOST, Kind, Question, questions
from k8snetlab.tables import aligned
from k8snetlab.trace import Client

__all__ = [
    "Answer", "Answers", "Ending", "Kernel", "Proof", "Seen", "Subject", "Tally", "endings", "fingerprint", "prove",
]  # fmt: skip

TRIES = 15
"""How often a question is put for each thing that may happen: one in three is then missed once in 30 million times."""

AT_ONCE = 2000
"""So many probes are sent between two reports of progress."""

LONGER = 3.0
"""Seconds that a question gets which timed out and should not have."""

# The values


class Ending(msgspec.Struct, frozen=True, order=True):
    """One thing that may happen: what the client is told; if it is connected, who answers and the source he sees."""

    client: Client
    backend: str = ""
    source_seen: str = ""

    def __str__(self) -> str:
        return f"{self.client} by {self.backend}, which sees {self.source_seen}" if self.backend else str(self.client)


class Seen(msgspec.Struct, frozen=True, order=True):
    """One thing that happened on the kernel, its word for it (`OPEN`, `ECONNREFUSED`, …), and how many times."""

    client: Client
    backend: str
    source_seen: str
    error: str
    times: int

    @property
    def ending(self) -> Ending:
        """What the walk would call it."""
        return Ending(self.client, self.backend, self.source_seen)


class Answer(msgspec.Struct, frozen=True, rename={"source": "from", "target": "to"}):
    """A question with what the walk says and what the kernel did."""

    kind: Kind
    source: str
    target: str
    address: str
    port: int
    protocol: str
    predicted: tuple[Ending, ...]
    seen: tuple[Seen, ...]

    @property
    def agrees(self) -> bool:
        """Whether everything that happened is among what may happen."""
        return all(each.ending in self.predicted for each in self.seen)

    @property
    def ended(self) -> str:
        """What clients were told: one of `Client`, or MIXED."""
        told = {each.client for each in self.seen}
        return str(told.pop()) if len(told) == 1 else "MIXED"

    def rows(self) -> list[list[str]]:
        """A row for each thing that may happen or did: who, what, the walk, the kernel."""
        happened = [each.ending for each in self.seen]
        if self.agrees and set(happened) != set(self.predicted):  # which one is chance
            kernel = dict.fromkeys(self.predicted, "one of these")
        else:
            kernel = {ending: "the same" if ending in happened else "not seen" for ending in self.predicted}
        rows = [[str(ending), kernel[ending]] for ending in self.predicted]
        rows += [["nothing like it", str(ending)] for ending in dict.fromkeys(happened) if ending not in self.predicted]
        heads = [[self.source, self.target], *([["", ""]] * len(rows))]
        return [[*head, *row] for head, row in zip(heads, rows, strict=False)]

    def __str__(self) -> str:
        return _answers([self])


class Tally(msgspec.Struct, frozen=True):
    """How many questions of a kind were asked and agree, and what clients were told: `{"OPEN": 600, "REFUSED": 76}`."""

    kind: Kind
    asked: int
    agree: int
    ended: Mapping[str, int]


class Kernel(msgspec.Struct, frozen=True):
    """The machine on which it happened: kernel release, processor, version of iptables, and as whom."""

    release: str
    architecture: str
    iptables: str
    user: str

    def __str__(self) -> str:
        return f"Linux {self.release} ({self.architecture}), {self.iptables}, as {self.user}"


class Subject(msgspec.Struct, frozen=True):
    """Which cluster it is about: the fingerprint of its state, its choices, its size, and what was changed on it."""

    fingerprint: str
    cni: str
    cni_options: Mapping[str, str]
    proxy: str
    nodes: int
    pods: int
    services: int
    changes: tuple[str, ...]


class Proof(msgspec.Struct, frozen=True):
    """What the walk said and what the kernel did. `probes` are all of them, or, in evidence, those worth keeping."""

    cluster: Subject
    machine: Kernel
    kinds: tuple[Tally, ...]
    left_out: tuple[str, ...]
    probes: tuple[Answer, ...]

    @property
    def asked(self) -> int:
        """How many questions were asked."""
        return sum(each.asked for each in self.kinds)

    @property
    def agrees(self) -> bool:
        """Whether every question ended as the walk says."""
        return all(each.asked == each.agree for each in self.kinds) and not self.disagreements

    @property
    def disagreements(self) -> tuple[Answer, ...]:
        """The questions that ended in a way the walk does not know."""
        return tuple(each for each in self.probes if not each.agrees)

    def between(self, source: str, target: str) -> Answers:
        """What became of one call: `proof.between("shop/web-0", "svc/shop/api:80")`. Raises `UnknownName`."""
        found = tuple(each for each in self.probes if (each.source, each.target) == (source, target))
        if not found:
            raise UnknownName("probe in this proof", f"{source} → {target}", _names(self.probes))
        return Answers(found)

    def keeping(self, *pairs: tuple[str, str]) -> Proof:
        """The same proof with few of its probes: those of these pairs, and every disagreement. Raises `UnknownName`."""
        kept = [each for source, target in pairs for each in self.between(source, target).answers]
        wrong = [each for each in self.disagreements if each not in kept]
        return msgspec.structs.replace(self, probes=(*kept, *wrong))

    def as_dict(self) -> dict[str, Any]:
        """As the JSON of `k8snetlab prove`."""
        plain: dict[str, Any] = msgspec.to_builtins(self)
        for each, written in zip(self.probes, plain["probes"], strict=True):
            written["agrees"] = each.agrees
        return {"agrees": self.agrees, **plain}

    def __str__(self) -> str:
        rows = [["QUESTIONS", "ASKED", "AGREE", "ENDED"]]
        for each in self.kinds:
            ended = ", ".join(f"{told} {count}" for told, count in each.ended.items())
            rows.append([str(each.kind), str(each.asked), str(each.agree), ended])
        agree = sum(each.agree for each in self.kinds)
        wrong = f"\n\n{_answers(self.disagreements[:SHOWN])}" if self.disagreements else ""
        more = f"\n… and {len(self.disagreements) - SHOWN} more" if len(self.disagreements) > SHOWN else ""
        return f"{aligned(rows)}\n\n{agree} of {self.asked} questions end on the kernel as the walk says{wrong}{more}"

    def __repr__(self) -> str:
        return str(self)


SHOWN = 20
"""So many disagreements are printed."""


class Answers(msgspec.Struct, frozen=True):
    """Answers that print as one table."""

    answers: tuple[Answer, ...]

    @property
    def agrees(self) -> bool:
        """Whether all agree."""
        return all(each.agrees for each in self.answers)

    def __str__(self) -> str:
        return _answers(self.answers)

    def __repr__(self) -> str:
        return str(self)


def _answers(answers: Sequence[Answer]) -> str:
    return aligned([["FROM", "TO", "THE WALK SAYS", "THE KERNEL"], *(row for each in answers for row in each.rows())])


def _names(answers: Sequence[Answer]) -> list[str]:
    return [f"{each.source} → {each.target}" for each in answers]


# Asking


def _silent(done: int, whole: int) -> None:
    """Nobody is told."""


def prove(cluster: Cluster, most: int = MOST, told: Callable[[int, int], None] = _silent) -> Proof:
    """Walk every question, build the cluster on this kernel, send the packets, and compare.

    `most` bounds the questions of a kind; `told` hears how much is done, of how much. Raises `CannotDo` where this
    machine cannot hold the cluster (`capabilities()` says why).
    """
    network = cluster.network
    asked, left_out = questions(cluster, most)
    said = []
    for number, question in enumerate(asked):
        told(number, 2 * len(asked))
        said.append(endings(network, question.probe))
    tries = [number for number, ends in enumerate(said) for _ in range(TRIES * len(ends) if len(ends) > 1 else 1)]
    with Lab(cluster) as lab:
        kernel = _kernel(lab)
        sights: list[list[Sight]] = [[] for _ in asked]
        for start in range(0, len(tries), AT_ONCE):
            told(len(asked) + start * len(asked) // len(tries), 2 * len(asked))
            batch = tries[start : start + AT_ONCE]
            for number, sight in zip(batch, lab.probe([asked[number].probe for number in batch]), strict=True):
                sights[number].append(sight)
        _ask_again(lab, asked, said, sights)
    told(2 * len(asked), 2 * len(asked))
    answers = tuple(map(_answer, asked, said, sights))
    return Proof(_subject(cluster), kernel, tuple(_tallies(answers)), left_out, answers)


def endings(network: Network, probe: Probe) -> tuple[Ending, ...]:
    """Everything that may happen to a probe, as the walk says."""
    return tuple(Ending(*msgspec.structs.astuple(each)) for each in predicted(network, probe))


def _ask_again(
    lab: Lab, asked: Sequence[Question], said: Sequence[tuple[Ending, ...]], sights: list[list[Sight]]
) -> None:
    """Put those questions again, with more patience, that timed out although the walk says they do not."""
    late = [
        number
        for number, question in enumerate(sights)
        for sight in question
        if sight.client is Client.TIMEOUT and Ending(Client.TIMEOUT) not in said[number]
    ]
    for number, sight in zip(late, lab.probe([asked[each].probe for each in late], LONGER), strict=True):
        held = sights[number]
        held[next(at for at, each in enumerate(held) if each.client is Client.TIMEOUT)] = sight


def _answer(question: Question, predicted: tuple[Ending, ...], sights: Sequence[Sight]) -> Answer:
    counted = Counter((sight.client, sight.backend, sight.source, sight.end) for sight in sights)
    seen = tuple(sorted(Seen(*what, times) for what, times in counted.items()))
    probe = question.probe
    return Answer(
        question.kind, probe.source, question.target, probe.address, probe.port, probe.protocol, predicted, seen
    )


def _tallies(answers: Sequence[Answer]) -> Iterator[Tally]:
    for kind in Kind:
        held = [each for each in answers if each.kind is kind]
        if held:
            ended = Counter(each.ended for each in held)
            agree = sum(each.agrees for each in held)
            yield Tally(kind, len(held), agree, dict(sorted(ended.items())))


def _kernel(lab: Lab) -> Kernel:
    printed = lab.run("", "iptables", "--version")
    user = "root" if os.geteuid() == 0 else "an ordinary user"
    return Kernel(platform.release(), platform.machine(), printed.out.strip(), user)


def _subject(cluster: Cluster) -> Subject:
    return Subject(
        fingerprint(cluster.network),
        cluster.options.cni,
        dict(cluster.options.cni_options),
        cluster.options.proxy,
        len(cluster.objects.nodes),
        len(cluster.objects.pods),
        len(cluster.objects.services),
        tuple(overlay.name for overlay in cluster.overlays),
    )


# Which state it is about


_STATE = msgspec.json.Encoder(order="sorted")


def fingerprint(network: Network) -> str:
    """What a state is known by: the SHA-256 of everything that every machine holds."""
    digest = sha256()
    for name in sorted(network):
        host = network[name]
        rules = [text.iptables_save(host.netfilter.of(of)) for of in (4, 6)]
        plain = msgspec.structs.replace(host, netfilter=Netfilter())  # built chain by chain: as text, all is there
        digest.update(_STATE.encode((plain, rules)))
    return digest.hexdigest()
