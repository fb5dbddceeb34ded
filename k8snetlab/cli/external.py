"""What would external-dns do in my zone?

`k8snetlab external-dns` reads the objects and a zone file, and prints the difference: what would be created, changed
and deleted, and what is left alone, and why. Nothing is sent anywhere.

Not modelled: zones that are asked over the network; take a zone file, or `dig AXFR`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

import k8snetlab as k8s
from k8snetlab.cli import output
from k8snetlab.cli.options import about_a_cluster
from k8snetlab.cli.output import Format
from k8snetlab.dns.external import Owning, Policy, Registry
from k8snetlab.dns.wanted import ALPHA, PREFIX, Reading
from k8snetlab.dns.zone import Zone
from k8snetlab.errors import BadOption, Problem

__all__ = ["external_dns"]

NO = 1

Origin: TypeAlias = Annotated[str, typer.Option("--zone", metavar="NAME", help="The zone, such as example.org.")]
Against: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="FILE", help="A zone file: what the zone has by now (nothing, unless given).")
]
Owner: TypeAlias = Annotated[str, typer.Option("--txt-owner-id", "--owner", help="The word that marks what is ours.")]
How: TypeAlias = Annotated[Policy, typer.Option(help="How much may be done.")]
By: TypeAlias = Annotated[Registry, typer.Option(help="How it is known what is ours.")]
Before: TypeAlias = Annotated[str, typer.Option("--txt-prefix", help="Before the names of TXT records.")]
After: TypeAlias = Annotated[str, typer.Option("--txt-suffix", help="After their first label.")]
Wildcard: TypeAlias = Annotated[str, typer.Option("--txt-wildcard-replacement", help="What stands there for a *.")]
Domains: TypeAlias = Annotated[
    list[str] | None, typer.Option("--domain-filter", metavar="NAME", help="Only names in this domain. Repeatable.")
]
Excluded: TypeAlias = Annotated[
    list[str] | None, typer.Option("--exclude-domains", metavar="NAME", help="No names in this domain. Repeatable.")
]
Managed: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--managed-record-types", metavar="TYPE", help="Types looked after (A AAAA CNAME). Repeatable."),
]
Old: TypeAlias = Annotated[
    bool, typer.Option("--alpha-annotations", help=f"Read annotations as before 0.22, beginning with {ALPHA}.")
]
Internal: TypeAlias = Annotated[
    bool, typer.Option("--publish-internal-services", help="Publish ClusterIPs for the annotation hostname too.")
]
Output: TypeAlias = Annotated[Format, typer.Option("--output", "-o", help="Text for people, JSON for programs.")]


@about_a_cluster
def external_dns(
    cluster: k8s.Cluster,
    zone: Origin,
    against: Against = None,
    owner: Owner = "default",
    policy: How = Policy.SYNC,
    registry: By = Registry.TXT,
    prefix: Before = "",
    suffix: After = "",
    wildcard: Wildcard = "",
    domains: Domains = None,
    excluded: Excluded = None,
    managed: Managed = None,
    alpha: Old = False,
    internal: Internal = False,
    as_: Output = Format.TEXT,
) -> None:
    """Say what external-dns would create, change and delete in a zone: a dry run. Options are called as its own.

    Exit status 0 if nothing is to be done, 1 if something is.
    """
    types = tuple(each.upper() for each in managed or ("A", "AAAA", "CNAME"))
    owning = Owning(
        owner, policy, registry, prefix, suffix, wildcard, tuple(domains or ()), tuple(excluded or ()), types
    )
    reading = Reading(ALPHA if alpha else PREFIX, internal)
    plan = cluster.external_dns(_zone(zone, against), owning, reading)
    if as_ is Format.JSON:
        output.document("ExternalDns", plan.as_dict())
    else:
        output.say(str(plan))
    if plan:
        raise typer.Exit(NO)


def _zone(name: str, file: Path | None) -> Zone:
    if file is None:
        return Zone.of(name)
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        message = getattr(error, "strerror", None) or "is not UTF-8 text"
        raise BadOption(Problem(message, file=str(file), field="--against")) from error
    return Zone.parsed(text, name, str(file))
