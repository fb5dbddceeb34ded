"""What did the kernel say about a whole cluster?

A `Proof` is every question with what the walk says and what happened, and which kernel it was. It is a value: it
prints as a table, becomes JSON and comes back, and can be asked for one call.

An answer agrees if everything that happened is among what the walk says may happen. Where load balancing chooses, one
of several things happens, and it is not printed which: what is printed is the same wherever the kernel agrees.

Not kept: the order in which things happened, and times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from k8snetlab.errors import UnknownName
from k8snetlab.live.questions import Kind
from k8snetlab.tables import aligned
from k8snetlab.trace import Client

__all__ = [
    "Answer", "Answers", "Ending", "Kernel", "Proof", "Seen", "Subject", "Tally",
]  # fmt: skip

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
        rows = [[str(ending), kernel[ending]] for ending in self.predicted[:FEW]]
        if len(self.predicted) > FEW:
            rows.append([f"… or {len(self.predicted) - FEW} others", ""])
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

FEW = 6
"""So many of the things that may happen to one question are printed."""


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
