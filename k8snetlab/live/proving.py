"""Does the kernel agree about a whole cluster?

The walk answers every question first (`questions` says which there are). Then the same machines are built on this
kernel and real packets are sent. What comes out is a `Proof`.

Where load balancing chooses, a question is put many times (`TRIES` for each thing that may happen), and the walk must
have said everything that is seen. A question to which, unexpectedly, no answer came in time is put once more with more
patience: a busy machine may answer late; a network that loses packets will lose them again.

A large cluster is asked in parts, and forgets between them whom it has met: the machines of a real one have a kernel
each, ours share one and its limits.

Not proven: what takes longer than one connection — affinity that ends, connections that outlive an endpoint; what
eBPF programs decide that are not built here (`sockets`).
"""

from __future__ import annotations

import os
import platform
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cache
from hashlib import sha256
from typing import TypeAlias

import msgspec

from k8snetlab.cluster import Cluster
from k8snetlab.linux import text
from k8snetlab.linux.ebpf import bpf_lb_list
from k8snetlab.linux.host import Network
from k8snetlab.linux.netfilter import Netfilter
from k8snetlab.live.comparison import predicted
from k8snetlab.live.lab import Lab
from k8snetlab.live.probes import Probe, Sight
from k8snetlab.live.proof import Answer, Ending, Kernel, Proof, Seen, Subject, Tally
from k8snetlab.live.questions import MOST, Kind, Question, questions
from k8snetlab.live.sockets import unbuilt
from k8snetlab.trace import Client

__all__ = ["endings", "fingerprint", "prove"]

TRIES = 15
"""How often a question is put for each thing that may happen: one in three is then missed once in 30 million times."""

AT_ONCE = 2000
"""So many probes are sent between two reports of progress, unless one question alone is more."""

NEIGHBOURS = 400
"""So many neighbours may be learnt before all are forgotten again: the kernel remembers 1024 (`gc_thresh3`, `arp(7)`)
for all of its namespaces together, those of other labs too, and drops packets when it is full.
"""

LONGER = 3.0
"""Seconds that a question gets which timed out and should not have."""


def _silent(done: int, whole: int) -> None:
    """Nobody is told."""


Labs: TypeAlias = Callable[[Cluster], AbstractContextManager[Lab]]
"""What builds a lab of a cluster: `Lab` itself, or one whose nodes find their routes by themselves."""


def prove(cluster: Cluster, most: int = MOST, told: Callable[[int, int], None] = _silent, by: Labs = Lab) -> Proof:
    """Walk every question, build the cluster on this kernel, send the packets, and compare.

    `most` bounds the questions of a kind; `told` hears how much is done, of how much. Raises `CannotDo` where this
    machine cannot hold the cluster (`capabilities()` says why).
    """
    network = cluster.network
    asked, left_out = _provable(network, *questions(cluster, most))
    said = []
    for number, question in enumerate(asked):
        told(number, 2 * len(asked))
        said.append(endings(network, question.probe))
    with by(cluster) as lab:
        kernel = _kernel(lab)
        sights: list[list[Sight]] = [[] for _ in asked]
        for batch in _batches(cluster, asked, said):
            told(len(asked) + batch[0], 2 * len(asked))
            lab.forget()
            for number, sight in zip(batch, lab.probe([asked[number].probe for number in batch]), strict=True):
                sights[number].append(sight)
        _ask_again(lab, asked, said, sights)
    told(2 * len(asked), 2 * len(asked))
    answers = tuple(map(_answer, asked, said, sights))
    return Proof(_subject(cluster), kernel, tuple(_tallies(answers)), left_out, answers)


def endings(network: Network, probe: Probe) -> tuple[Ending, ...]:
    """Everything that may happen to a probe, as the walk says."""
    return tuple(Ending(*msgspec.structs.astuple(each)) for each in predicted(network, probe))


def _provable(
    network: Network, asked: tuple[Question, ...], left_out: tuple[str, ...]
) -> tuple[tuple[Question, ...], tuple[str, ...]]:
    """Without the questions that eBPF programs decide which are not built here."""
    if not any(host.ebpf is not None for host in network.values()):
        return asked, left_out
    rest = tuple(each for each in asked if not unbuilt(network, each.probe))
    before, after = (Counter(each.kind for each in questions) for questions in (asked, rest))
    lost = (
        f"{kind}: {before[kind] - after[kind]} of {before[kind]} questions are left to eBPF programs that are not built"
        for kind in Kind
        if before[kind] > after[kind]
    )
    return rest, (*left_out, *lost)


def _batches(cluster: Cluster, asked: Sequence[Question], said: Sequence[tuple[Ending, ...]]) -> Iterator[list[int]]:
    """The numbers of the questions, each as often as it is put, in parts that the kernel's memory holds."""
    homes = {pod.name: node for node, pods in cluster.layout.workloads.items() for pod in pods}
    batch: list[int] = []
    known: set[tuple[str, str]] = set()
    for number, ends in enumerate(said):
        new = set(_neighbours(asked[number].probe, ends, homes))
        if batch and (len(known | new) > NEIGHBOURS or len(batch) > AT_ONCE):
            yield batch
            batch, known = [], set()
        batch += [number] * (TRIES * len(ends) if len(ends) > 1 else 1)
        known |= new
    if batch:
        yield batch


def _neighbours(probe: Probe, ends: Sequence[Ending], homes: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Who will know whose MAC address when the probe has ended: pods of one node each other, else by their node."""
    for backend in {each.backend or probe.address for each in ends}:
        node, other = homes.get(probe.source, ""), homes.get(backend, "")
        for pod, home in ((probe.source, node), (backend, other)):
            yield from ((pod, home), (home, pod))
        if node == other:
            yield from ((probe.source, backend), (backend, probe.source))


def _ask_again(
    lab: Lab, asked: Sequence[Question], said: Sequence[tuple[Ending, ...]], sights: list[list[Sight]]
) -> None:
    """Put those questions again, with more patience, that ended late although the walk says they do not."""
    late = [
        (number, place)
        for number, held in enumerate(sights)
        for place, sight in enumerate(held)
        if _is_late(sight) and Ending(sight.client) not in said[number]
    ]
    lab.forget()
    again = lab.probe([asked[number].probe for number, _ in late], LONGER)
    for (number, place), sight in zip(late, again, strict=True):
        sights[number][place] = sight


def _is_late(sight: Sight) -> bool:
    """Whether nothing came in time: no answer at all, or a connection but not the name of who took it."""
    return sight.client is Client.TIMEOUT or (sight.client is Client.OPEN and not sight.backend)


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
    """What a state is known by: the SHA-256 of everything that every machine holds. What a machine has not says
    nothing, so that evidence stays true when the lab learns of more that machines may have.
    """
    digest = sha256()
    for name in sorted(network):
        host = network[name]
        rules = [text.iptables_save(host.netfilter.of(of)) for of in (4, 6)]
        if host.nftables:
            rules.append(text.nft_list_ruleset(host.nftables))
        if host.ebpf is not None:
            rules += [bpf_lb_list(host.ebpf), *(each.text for each in host.ebpf.attached)]
        # What is built piece by piece is all there as text.
        plain = msgspec.structs.replace(host, netfilter=Netfilter(), nftables=(), ebpf=None)
        digest.update(_STATE.encode((_stated(plain), rules)))
    return digest.hexdigest()


def _stated(value: object) -> object:
    """A value without the fields that say nothing: those that are as they are unless somebody says otherwise."""
    if isinstance(value, msgspec.Struct):
        held = ((name, getattr(value, name), usual) for name, usual in _fields(type(value)))
        return {name: _stated(each) for name, each, usual in held if each != usual}
    if isinstance(value, tuple):
        return [_stated(each) for each in value]
    return value


@cache
def _fields(kind: type[msgspec.Struct]) -> tuple[tuple[str, object], ...]:
    """The fields of a value, each with what it is unless said."""
    return tuple(
        (each.name, each.default_factory() if each.default_factory is not msgspec.NODEFAULT else each.default)
        for each in msgspec.structs.fields(kind)
    )
