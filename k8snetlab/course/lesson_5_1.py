"""5.1 EndpointSlices: where new endpoints go, how large a slice should be, and what an update rolls out."""

from __future__ import annotations

from functools import cache
from typing import Any

from k8snetlab.cluster import Cluster, example
from k8snetlab.course.exercise import Exercise, Mistake
from k8snetlab.course.lesson import Lesson
from k8snetlab.course.quiz import Choice, Question
from k8snetlab.services import churn
from k8snetlab.services.churn import Ledger, Turn

__all__ = ["LESSON"]

WEB = "default/web"
MORE = 60
REPLACED = 20
BYTES, SLICES = 10_000, 20


@cache
def lab() -> Cluster:
    """The cluster of the notebook: a Service with 250 pods."""
    return example("service-many-pods")


@cache
def _there(most: int = 100) -> Ledger:
    return lab().ledger(WEB, most=most)


# Where new endpoints go


@cache
def _before() -> Turn:
    """After one restart."""
    there = _there()
    return there.after(churn.restarted(there.pods, 1)).last


@cache
def _sizes() -> tuple[int, ...]:
    """The slices when so many pods more are seen in one look."""
    there = _there()
    there = there.after(churn.restarted(there.pods, 1))
    return there.after(churn.at_once(churn.grown(there.pods, len(there.pods) + MORE))).last.sizes


def _filled(sizes: tuple[int, ...], more: int) -> list[int]:
    """What filling up the emptiest places first, slice by slice, would give."""
    found = []
    for size in sizes:
        taken = min(100 - size, more)
        found.append(size + taken)
        more -= taken
    return found + ([more] if more else [])


def _split() -> list[int]:
    """The emptiest slice made full, and the rest in a new one: two writes."""
    *others, least = sorted(_before().sizes, reverse=True)
    return [*others, 100, MORE - (100 - least)]


SIZES: Exercise[list[Any]] = Exercise(
    name="sizes",
    wants=list,
    wanted="a list of numbers, such as [100, 100, 50],",
    right=lambda answer: sorted(answer) == sorted(_sizes()),
    praise=lambda answer: "As a whole into one slice, or into a new one: a single write, and no slice is merged.",
    mistakes=(
        Mistake(
            "not numbers",
            lambda answer: not all(isinstance(each, int) for each in answer),
            lambda answer: "A list of whole numbers, please: how many endpoints are in each slice?",
            lambda: ["100", "100"],
        ),
        Mistake(
            "too many in one",
            lambda answer: max(answer, default=0) > 100,
            lambda answer: f"A slice of {max(answer)} is too large: {_there().slices.most} fit into one.",
            lambda: [99, 100, 51 + MORE],
        ),
        Mistake(
            "some are lost",
            lambda answer: sum(answer) != sum(_before().sizes) + MORE,
            lambda answer: f"These are {sum(answer)} endpoints. How many pods are there now?",
            lambda: [99, 100, 51, 50],
        ),
        Mistake(
            "all filled up",
            lambda answer: sorted(answer) == sorted(_filled(_before().sizes, MORE)),
            lambda answer: (
                "That would be tidy, and would write every slice that has room. The controller wants one write."
            ),
            lambda: _filled(_before().sizes, MORE),
        ),
        Mistake(
            "divided",
            lambda answer: sorted(answer) == sorted(_split()),
            lambda answer: "Two slices are written there, an old one and a new one. It could be one.",
            _split,
        ),
    ),
    otherwise=f"Which slice could take all {MORE} of them? If none can, what then?",
    solution=lambda: list(_sizes()),
)


# How large a slice should be


def _stumbled(most: int) -> Ledger:
    there = _there(most)
    return there.after(churn.stumbled(there.pods, 1), "one pod stumbles")


def _number(answer: Ledger) -> int:
    return len(answer.last.sizes)


LIMITS = Exercise(
    name="limits",
    wants=churn.Ledger,
    wanted="a ledger, such as lab.ledger(…).after(…) gives,",
    right=lambda answer: (
        len(answer.pods) == len(_there().pods)
        and answer.last.events == 2
        and answer.last.slices.bytes < BYTES
        and _number(answer) <= SLICES
    ),
    praise=lambda answer: (
        f"{answer.last.slices.bytes:,} bytes with {_number(answer)} slices of at most {answer.slices.most}."
    ),
    mistakes=(
        Mistake(
            "other pods",
            lambda answer: len(answer.pods) != len(_there().pods),
            lambda answer: f"There are {len(answer.pods)} pods now. Keep the {len(_there().pods)} of the lab.",
            lambda: _there().after(churn.shrunk(_there().pods, 249)),
        ),
        Mistake(
            "nothing happened",
            lambda answer: len(answer.turns) < 2 or answer.last.events != 2,
            lambda answer: "Let one pod stumble: `ledger.after(k8s.churn.stumbled(ledger.pods, 1))`.",
            lambda: _there(15),
        ),
        Mistake(
            "too many bytes",
            lambda answer: answer.last.slices.bytes >= BYTES,
            lambda answer: (
                f"A watcher is sent {answer.last.slices.bytes:,} bytes. What is sent is the slice that the pod is in: "
                "how large may it be?"
            ),
            lambda: _stumbled(100),
        ),
        Mistake(
            "too many slices",
            lambda answer: _number(answer) > SLICES,
            lambda answer: f"That is few bytes, and {_number(answer)} slices. At least how many have to be in each?",
            lambda: _stumbled(5),
        ),
    ),
    otherwise="`lab.ledger(…, most=…)` decides how many endpoints fit into a slice.",
    solution=lambda: _stumbled(15),
)


# What an update rolls out


@cache
def _rolled() -> Turn:
    there = _there()
    return there.after(churn.restarted(there.pods, REPLACED)).last


ROLLED = Exercise(
    name="rolled",
    wants=int,
    wanted="a whole number",
    right=lambda answer: answer == _rolled().slices.writes,
    praise=lambda answer: (
        f"Each of {_rolled().events} events is a write, and Endpoints need {_rolled().endpoints.writes}."
    ),
    mistakes=(
        Mistake(
            "one a pod",
            lambda answer: answer == REPLACED,
            lambda answer: "One write for each pod? How many events was one restart?",
            lambda: REPLACED,
        ),
        Mistake(
            "one coming, one going",
            lambda answer: answer == 2 * REPLACED,
            lambda answer: (
                "A pod comes and a pod goes, but each does it in two steps: with an address and ready; being "
                "deleted and gone."
            ),
            lambda: 2 * REPLACED,
        ),
        Mistake(
            "that of Endpoints",
            lambda answer: answer == _rolled().endpoints.writes,
            lambda answer: (
                "So many times the Endpoints object is written: there, a pod that is being deleted is gone "
                "already. Is it in a slice, too?"
            ),
            lambda: 3 * REPLACED,
        ),
    ),
    otherwise="Count the writes of one restart first.",
    solution=lambda: _rolled().slices.writes,
)


# The quiz


def _small_costs_more() -> bool:
    few = churn.resized(_there().pods, 20)
    controller = _there().slices
    there = churn.started(controller.service, few, controller.nodes)
    turn = there.after(churn.stumbled(few, 1)).last
    return turn.slices.bytes > turn.endpoints.bytes


def _never_merged() -> bool:
    there = _there()
    there = there.after(churn.at_once(churn.shrunk(there.pods, 60, churn.Leaving.ANY)))
    return len(there.last.sizes) == 3


def _leaving_is_in_the_slice() -> bool:
    there = _there()
    state = next(churn.shrunk(there.pods, 249))
    slices, endpoints = there.slices.sync(state)[0], there.endpoints.sync(state)[0]
    told = [each for piece in slices.pieces for each in piece.endpoints if each.terminating]
    return len(told) == 1 and endpoints.written is not None and len(endpoints.written.ready) == 249


_BY_HAND = """
apiVersion: v1
kind: Service
metadata: {name: old}
spec: {ports: [{port: 80}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: old}
subsets: [{addresses: [{ip: 192.0.2.1}], ports: [{port: 80}]}]
"""


def _mirrored() -> bool:
    found = lab().applied(_BY_HAND).objects.slices_of("default/old")
    return [each.endpoints[0].address for each in found] == ["192.0.2.1"]


QUESTIONS = (
    Question(
        "watchers",
        "Who is sent a slice when it was written?",
        (
            Choice("the nodes that run pods of the Service", "They are no different: any pod may call the Service."),
            Choice(
                "every node",
                "Yes: each kube-proxy watches all slices, and a slice of 25 kB goes to 1,000 nodes as 25 MB.",
                right=True,
            ),
            Choice("the pods of the Service", "Pods know nothing of slices."),
        ),
    ),
    Question(
        "small",
        "A Service has 20 pods. Which costs fewer bytes when one of them stumbles?",
        (
            Choice("its EndpointSlice", "It is one object as well, and says more of every pod."),
            Choice("its Endpoints object", "Yes: slices pay from about a hundred pods on.", right=True),
            Choice("both the same", "A slice has conditions and a zone for each endpoint, Endpoints have not."),
        ),
        proof=_small_costs_more,
    ),
    Question(
        "merged",
        "250 pods shrink to 60, chosen at random. How many slices are there?",
        (
            Choice("one, since 60 fit into it", "To merge would be three writes instead of none. Nobody does it."),
            Choice("three", "Right: each lost some of its endpoints, and none became empty.", right=True),
            Choice("none, until a pod comes", "Even a Service without pods keeps an empty slice."),
        ),
        proof=_never_merged,
    ),
    Question(
        "leaving",
        "A pod is being deleted. What do the two objects say of it?",
        (
            Choice(
                "it is in the slice, marked terminating, and not in Endpoints",
                "Yes: kube-proxy may still send to it when nobody else is left.",
                right=True,
            ),
            Choice("it is in neither", "It is still there, and it may still serve. One of them can say so."),
            Choice("it stands in both until it is gone", "Endpoints have only two lists: ready and not ready."),
        ),
        proof=_leaving_is_in_the_slice,
    ),
    Question(
        "by hand",
        "Someone writes an Endpoints object for a Service without a selector. Does kube-proxy use it?",
        (
            Choice("no, it reads slices only", "It reads slices only, indeed. But somebody writes one for it."),
            Choice("yes, it reads both", "It reads slices since 1.19, and nothing else since 1.22."),
            Choice("yes, through a mirror", "A controller of its own mirrors it into a slice.", right=True),
        ),
        proof=_mirrored,
    ),
)

LESSON = Lesson("5_1", "EndpointSlices", (SIZES, LIMITS, ROLLED), QUESTIONS)
