"""Is it true?

`k8snetlab prove` builds the cluster on the kernel of this machine, sends real packets, and prints where they did what
the walk says and where not.

Exit status: 0 they agree everywhere, 1 they disagree somewhere, 2 the input is wrong — and 3, which no other command
has, this machine cannot hold the cluster: a program, a permission or a part of the kernel is missing, and it says
which. So a script can tell "not true" from "not tried".

Not modelled: remote machines; what is proven is proven here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

import k8snetlab as k8s
from k8snetlab.cli import output
from k8snetlab.cli.options import about_a_cluster
from k8snetlab.cli.output import Format
from k8snetlab.errors import BadOption, CannotDo, Problem

if TYPE_CHECKING:
    from k8snetlab.live.proving import Labs

__all__ = ["prove"]

DISAGREES = 1
CANNOT = 3

Output: TypeAlias = Annotated[Format, typer.Option("--output", "-o", help="Text for people, JSON for programs.")]
Evidence: TypeAlias = Annotated[Path | None, typer.Option(metavar="FILE", help="Write the proof to this file (JSON).")]
Most: TypeAlias = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="At most so many questions of a kind (2000); every target is called still."),
]
Bird: TypeAlias = Annotated[
    bool, typer.Option("--bird", help="Let BIRD speak BGP and write the routes between nodes (Calico, mode bgp).")
]


@about_a_cluster
def prove(
    cluster: k8s.Cluster,
    evidence: Evidence = None,
    most: Most = None,
    speaking: Bird = False,
    as_: Output = Format.TEXT,
) -> None:
    """Build the cluster on the real kernel, send real packets, and compare with the walk.

    Every pod calls every pod; a pod of each node, every node and a client outside call every port of every Service,
    and every node port. Where load balancing chooses, a question is put many times. Nothing of it is left behind.

    With --bird the routes between nodes are not put there but learnt: a real BIRD speaks BGP on every node, and what it
    hears and writes must be what is computed, before the first packet is sent.

    Exit status 0 if all agree, 1 if not, 3 if this machine cannot hold the cluster; `k8snetlab doctor` says why.
    """
    _writable(evidence)
    try:
        proof = _proven(cluster, most, k8s.live.speaking if speaking else k8s.live.Lab)
    except CannotDo as error:
        output.explain(error.problems, as_)
        raise typer.Exit(CANNOT) from error
    if evidence is not None:
        evidence.write_bytes(output.written("Proof", proof.as_dict()))
    if as_ is Format.JSON:
        output.document("Proof", proof.as_dict())
    else:
        output.say(f"{proof}\n{proof.machine}")
    if speaking:
        output.note("the routes between nodes were learnt and written by BIRD: they are those that were computed")
    for each in proof.left_out:
        output.note(each)
    if not proof.agrees:
        raise typer.Exit(DISAGREES)


def _writable(evidence: Path | None) -> None:
    """Nobody waits for a proof that cannot be kept."""
    if evidence is not None and (evidence.is_dir() or not evidence.resolve().parent.is_dir()):
        why = "is a folder" if evidence.is_dir() else "there is no folder for it"
        raise BadOption(Problem(why, file=str(evidence), field="--evidence"))


def _proven(cluster: k8s.Cluster, most: int | None, by: Labs) -> k8s.live.Proof:
    lacking = k8s.live.lacking(k8s.live.tried())
    if lacking:
        raise CannotDo(Problem(_why(each), object="this machine", field=each.name) for each in lacking)
    with _progress() as told:
        return k8s.live.prove(cluster, most or k8s.live.MOST, told, by)


def _why(lacking: k8s.live.Capability) -> str:
    install = f": install the package {lacking.package}" if lacking.package else ""
    return f"it cannot hold the cluster: {lacking.reason}{install}"


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, where a person looks at it; it is gone when the answer is there."""
    if not sys.stderr.isatty():
        yield lambda done, whole: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    percent = TextColumn("{task.percentage:>3.0f}%")
    columns = (TextColumn("{task.description}"), BarColumn(), percent, TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("walking")

        def told(done: int, whole: int) -> None:
            bar.update(task, completed=done, total=whole, description="walking" if 2 * done < whole else "sending")

        yield told
