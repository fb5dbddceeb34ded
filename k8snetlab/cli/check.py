"""What in my network policies is probably not what I wanted?

`k8snetlab check` prints what `Cluster.findings` has: one line a finding, with file, line, object and field first, as
compilers do, so that editors find the place.

Not modelled: which findings matter to whom; programs choose by `kind`.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import typer

import k8snetlab as k8s
from k8snetlab.cli import output
from k8snetlab.cli.options import about_a_cluster
from k8snetlab.cli.output import Format

__all__ = ["check"]

NO = 1

Output: TypeAlias = Annotated[Format, typer.Option("--output", "-o", help="Text for people, JSON for programs.")]


@about_a_cluster
def check(cluster: k8s.Cluster, as_: Output = Format.TEXT) -> None:
    """Look through network policies for what is probably not wanted.

    Rules that never decide, selectors that mean nobody, an OR that reads like an AND, egress without DNS, what is open
    to the world and to pods to come.

    Exit status 0 if nothing is found, 1 if something is.
    """
    found = cluster.findings()
    if as_ is Format.JSON:
        output.document("Findings", {"findings": [each.as_dict() for each in found]})
    else:
        output.say("\n".join(each.located for each in found) if found else "nothing found")
    if found:
        raise typer.Exit(NO)
