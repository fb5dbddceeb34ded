"""Do walk and kernel agree about clusters that nobody thought of?

    make fuzz ROUNDS=5000 SEED=1000

A round is a case (`cases`): a cluster, what happened to its machines, and probes. Walk and kernel answer each probe,
and must say the same. Several clusters are on the kernel at once, since most of a round is waiting for answers that
never come. Everything follows from the seed but the kernel's own choices. A disagreement is asked for once more, shrunk
(`shrinking`), and printed with all that one needs to find out who is wrong.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from threading import Lock

import msgspec

from k8snetlab import live
from k8snetlab.errors import LabError
from k8snetlab.linux.host import Network
from k8snetlab.live import Compared
from k8snetlab.live.comparison import walked
from k8snetlab.trace.table import table, telling
from tests.live import happenings
from tests.live.cases import Case, cases, dual
from tests.live.happenings import Flipped, Lost
from tests.live.shrinking import MOST, shrunk

ROUNDS_A_CLUSTER = 8
LABS = 6
"""So many clusters are on the kernel at once. All namespaces share its table of 1024 neighbours."""

PAUSE = 1.1
"""Seconds until a machine says again to a sender that there is no route."""

TRIES = 4
"""How often a probe is asked again where chance decides: the first answer may have been one of several."""

READING = Lock()
"""One cluster is read at a time: msgspec learns a type when it first decodes one, and does not expect two threads."""

SHRUNK = 3
"""So many disagreements of a long run are shrunk, which takes minutes each."""


# One round


class Round(msgspec.Struct, frozen=True):
    """One round: the seed of its cluster, its number, the case, how each probe ended, and how many were asked again."""

    seed: int
    number: int
    case: Case
    compared: tuple[Compared, ...]
    again: int

    @property
    def wrong(self) -> list[Compared]:
        """The probes on which walk and kernel disagree."""
        return [each for each in self.compared if not each.agrees]

    def __str__(self) -> str:
        head = f"seed {self.seed}, round {self.number}: {self.case}"
        return "\n".join([head, *(f"    {each}" for each in self.wrong)])


def rounds(seed: int, count: int = ROUNDS_A_CLUSTER) -> tuple[Round, ...]:
    """The rounds of the cluster of one seed."""
    with READING:
        drawn = tuple(cases(seed, count))
        compiled = drawn[0].cluster.network
    found = []
    with live.Lab(compiled) as lab:
        for number, case in enumerate(drawn):
            network = happenings.after(compiled, case.happened)
            lab.apply(network)
            compared = live.compare(network, case.probes, lab.probe(case.probes))
            again = sum(not each.agrees for each in compared)
            found.append(Round(seed, number, case, _again(lab, network, compared), again))
    return tuple(found)


def _again(lab: live.Lab, network: Network, compared: tuple[Compared, ...]) -> tuple[Compared, ...]:
    """The same, with each probe that disagrees asked once more by itself, a little later; the first that disagrees then
    is enough. What many probes at once may do to each other, and no walk of one of them knows:

    - a machine without a route says so to one sender five times, then once a second (`ip_error`: no lab can change it);
    - of many packets that wait for a neighbour who never answers, some are dropped without a word if another one comes
      while their senders are being told (`neigh_invalidate`);
    - one probe may have taught its sender the MTU of a path that another takes.
    """
    told = list(compared)
    for number, each in enumerate(compared):
        if not each.agrees:
            told[number] = _asked_alone(lab, network, each, PAUSE if len(compared) > 1 else 0)
            if not told[number].agrees:
                break
    return tuple(told)


def _asked_alone(lab: live.Lab, network: Network, before: Compared, pause: float) -> Compared:
    found = before
    for _ in range(TRIES if len(before.predicted) > 1 else 1):
        time.sleep(pause)
        lab.forget()
        found = live.compare(network, [before.probe], lab.probe([before.probe]))[0]
        if not found.agrees:
            break
    return found


# Many rounds


def clusters(first: int, count: int) -> Iterator[tuple[int, int]]:
    """The seeds of so many rounds, from the first on, and how many rounds each has."""
    for done in range(0, count, ROUNDS_A_CLUSTER):
        yield first + done // ROUNDS_A_CLUSTER, min(ROUNDS_A_CLUSTER, count - done)


def played(first: int, count: int) -> Iterator[Round]:
    """So many rounds, of the clusters from a seed on, in their order; several clusters are played at once."""
    with ThreadPoolExecutor(LABS) as pool:
        for each in pool.map(rounds, *zip(*clusters(first, count), strict=True)):
            yield from each


class Topic(StrEnum):
    """What is counted."""

    ROUNDS = "rounds"
    PROXIES = "proxy modes"
    PROBES = "probes"
    VERDICTS = "verdicts"
    FLIPPED = "sysctls flipped"
    LOST = "entries lost"
    OTHERS = "devices changed"
    AGAIN = "asked again"
    DISAGREEMENTS = "disagreements"


Figures = Counter[tuple[Topic, str]]


def figures(played: Iterable[Round]) -> Figures:
    """What was played, counted."""
    counted: Figures = Counter()
    for each in played:
        counted.update(happened(each.case))
        counted[Topic.ROUNDS, "dual-stack" if dual(each.seed) else "IPv4"] += 1
        counted[Topic.PROXIES, str(each.case.options["proxy"])] += 1
        counted[Topic.PROBES, ""] += len(each.compared)
        counted[Topic.AGAIN, ""] += each.again
        counted[Topic.DISAGREEMENTS, ""] += bool(each.wrong)
        counted.update((Topic.VERDICTS, str(probe.seen.client)) for probe in each.compared)
    return counted


def happened(case: Case) -> Figures:
    """What happened in a case, counted."""
    return Counter(map(_counted, case.happened))


def _counted(happening: happenings.Happening) -> tuple[Topic, str]:
    match happening:
        case Flipped(kind=kind):
            return Topic.FLIPPED, kind
        case Lost(kind=kind):
            return Topic.LOST, kind
        case _:
            return Topic.OTHERS, type(happening).__name__.lower()


def of(topic: Topic, counted: Figures) -> dict[str, int]:
    """What was counted of one topic, sorted by name."""
    return {name: count for (each, name), count in sorted(counted.items()) if each is topic}


def said(counted: Figures) -> str:
    """The figures as lines, one a topic."""
    lines = []
    for topic in Topic:
        found = of(topic, counted)
        whole = sum(found.values())
        shares = topic is Topic.VERDICTS
        parts = (
            f"{name} {count / whole:.0%}" if shares else f"{name} {count}".strip() for name, count in found.items()
        )
        lines.append(f"{topic:<16} {', '.join(parts) or 0}")
    return "\n".join(lines)


# A disagreement


Given = Callable[[Network], Network]
"""What the kernel is given in the place of a network."""


def as_it_is(network: Network) -> Network:
    """The same network that is walked."""
    return network


def disagreements(case: Case, given: Given = as_it_is) -> tuple[Compared, ...]:
    """The probes of a case on which walk and kernel disagree, in a lab of its own."""
    compiled = case.cluster.network
    network = happenings.after(compiled, case.happened)
    with live.Lab(compiled) as lab:
        lab.apply(given(network))
        compared = live.compare(network, case.probes, lab.probe(case.probes))
        return tuple(each for each in _again(lab, network, compared) if not each.agrees)


def report(round: Round, given: Given = as_it_is, most: int = MOST) -> str:
    """A disagreement as one wants to read it: the smallest case with it, its manifests, what the walk does, and which
    rules walk and kernel run. Where it does not come again in a cluster of its own, that is said.
    """
    case = msgspec.structs.replace(round.case, probes=tuple(each.probe for each in round.wrong))
    found = disagreements(case, given)
    again = f"make fuzz SEED={round.seed} ROUNDS={ROUNDS_A_CLUSTER}"
    if not found:
        return f"{round}\n{again}\nIt does not come again by itself: the rounds before may matter."
    one = msgspec.structs.replace(case, probes=(found[0].probe,))
    smallest = shrunk(one, lambda smaller: bool(disagreements(smaller, given)), most)
    return "\n\n".join([f"seed {round.seed}, round {round.number}: {again}", *_told(smallest, given)])


def _told(case: Case, given: Given) -> Iterator[str]:
    """The parts of a report on a case."""
    probe = case.probes[0]
    yield "\n".join(map(str, (case, *disagreements(case, given))))
    walk = walked(case.network, probe)
    yield f"The walk\n{table(telling((*walk.steps, *walk.reply)))}"
    with live.Lab(case.cluster.network) as lab:
        lab.apply(given(case.network))
        try:
            yield f"The rules\n{live.agreement(case.network, lab.follow(probe))}"
        except LabError as error:
            yield f"The rules cannot be followed: {error}"
    yield f"The manifests\n{case.manifest}"


# Long runs


def main() -> None:
    """Play ROUNDS rounds of the seeds from SEED on, and print what was done and what disagrees."""
    count, first = int(sys.argv[1]), int(sys.argv[2])
    if live.missing():
        sys.exit(f"no lab on this machine: {live.missing()}")
    begun = time.monotonic()
    counted: Figures = Counter()
    for done, each in enumerate(played(first, count), 1):
        counted.update(figures([each]))
        wrong = counted[Topic.DISAGREEMENTS, ""]
        if each.wrong:
            sys.stdout.write(f"\n{report(each) if wrong <= SHRUNK else each}\n\n")
        _progress(f"{done} of {count} rounds, {wrong} with disagreements, {time.monotonic() - begun:.0f} s")
    sys.stdout.write(f"\n{said(counted)}\n{'seconds':<16} {time.monotonic() - begun:.1f}\n")
    sys.exit(1 if counted[Topic.DISAGREEMENTS, ""] else 0)


def _progress(line: str) -> None:
    """One line that is written again and again."""
    sys.stderr.write(f"\r{line}")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
