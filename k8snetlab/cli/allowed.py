"""Do my policies let this connection pass, and what would it take to turn that?

`k8snetlab allowed` prints the verdict at both ends with the rule that decides; with `--change` the smallest change that
turns it, as manifests for `kubectl apply`.

Not modelled: Services; ask about a pod behind one, and its port.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

import k8snetlab as k8s
from k8snetlab.cli import output
from k8snetlab.cli.options import about_a_cluster
from k8snetlab.cli.output import Format
from k8snetlab.errors import BadOption, Problem
from k8snetlab.flows.names import split

__all__ = ["allowed"]

NO = 1

Who: TypeAlias = Annotated[str, typer.Option("--from", metavar="WHO", help="Who connects.")]
What: TypeAlias = Annotated[str, typer.Option("--to", metavar="WHO:PORT", help="To whom, at which port.")]
Family: TypeAlias = Annotated[int | None, typer.Option(metavar="4|6", help="The address family.")]
Change: TypeAlias = Annotated[bool, typer.Option("--change", help="Print the smallest change that turns the verdict.")]
Output: TypeAlias = Annotated[Format, typer.Option("--output", "-o", help="Text for people, JSON for programs.")]


@about_a_cluster
def allowed(
    cluster: k8s.Cluster,
    source: Who,
    target: What,
    change: Change = False,
    family: Family = None,
    as_: Output = Format.TEXT,
) -> None:
    """Say whether policies let a connection pass, and which rule decides.

    WHO is NAMESPACE/POD, deploy/NAMESPACE/NAME, node/NAME, external, external:IP or an address; PORT is the pod's own,
    and /UDP or /SCTP may follow. The verdict is that of the CNI: one that enforces no policies allows everything.

    Exit status 0 if it is allowed, 1 if not.
    """
    if family not in (None, 4, 6):
        raise BadOption(Problem(f"{family} is no address family: there are 4 and 6", field="--family"))
    where, port, protocol = split(target)
    if not (port.isascii() and port.isdigit()):
        raise BadOption(Problem(f"{port!r} in {target!r} is no number: policies see the pod's own port", field="to"))
    asked = (source, where.strip("[]"), int(port), str(protocol))
    found = cluster.allowed(*asked, family=family)
    turned = None
    if change:
        turned = (cluster.to_forbid if found else cluster.to_allow)(*asked, family=family)
    if as_ is Format.JSON:
        ends = {"egress": found.egress.as_dict(), "ingress": found.ingress.as_dict()}
        output.document("Allowed", {**found.as_dict(), **ends, "change": turned.as_dict() if turned else None})
    else:
        output.say(str(turned or found))
    if not found:
        raise typer.Exit(NO)
