"""What can be asked about a cluster?

The path of a packet, the state of machines, the difference that a choice makes, the rules of the network model. Each
command is one question to `Cluster`, and its answer as text or JSON.

Not modelled: several questions in one call. Loading is most of the time; scripts with many questions use the Python
front door.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Annotated, TypeAlias

import typer

import k8snetlab as k8s
from k8snetlab.cli import nameserver, output, rows
from k8snetlab.cli.options import about_a_cluster, broken, changes, one_of
from k8snetlab.cli.output import Format
from k8snetlab.cni.protocol import Command
from k8snetlab.errors import BadOption, CannotDo, Problem, UnknownName
from k8snetlab.tables import KINDS

__all__ = ["cni", "contract", "diff", "dns", "reach", "show", "trace"]

NO = 1

Output: TypeAlias = Annotated[Format, typer.Option("--output", "-o", help="Text for people, JSON for programs.")]


# The path of a packet


class Story(StrEnum):
    """How a trace can be told."""

    TEXT = "text"  # a table of what mattered
    FULL = "full"  # every step
    PROSE = "prose"  # sentences
    HUBBLE = "hubble"  # what Cilium's Hubble would say of it
    JSON = "json"
    MERMAID = "mermaid"  # a sequence diagram
    SVG = "svg"  # the cluster with the path in it
    PCAP = "pcap"  # a capture


Who: TypeAlias = Annotated[str, typer.Option("--from", metavar="WHO", help="Who sends.")]
What: TypeAlias = Annotated[str, typer.Option("--to", metavar="WHAT", help="What is connected to.")]
Told: TypeAlias = Annotated[Story, typer.Option("--output", "-o", help="How to tell it.")]
Family: TypeAlias = Annotated[int | None, typer.Option(metavar="4|6", help="The address family.")]
Via: TypeAlias = Annotated[str | None, typer.Option(metavar="NODE", help="Where outside traffic arrives.")]
Size: TypeAlias = Annotated[int, typer.Option(metavar="BYTES", help="Payload of the packet.")]
DontFragment: TypeAlias = Annotated[bool, typer.Option("--df/--no-df", help="Whether routers may not cut the packet.")]
At: TypeAlias = Annotated[str | None, typer.Option(metavar="HOST", help="Capture (-o pcap) on this machine only.")]
Device: TypeAlias = Annotated[str | None, typer.Option(metavar="DEV", help="Capture on devices of this name only.")]


@about_a_cluster
def trace(
    cluster: k8s.Cluster,
    source: Who,
    target: What,
    as_: Told = Story.TEXT,
    family: Family = None,
    via: Via = None,
    size: Size = 0,
    df: DontFragment = True,
    at: At = None,
    device: Device = None,
) -> None:
    """Follow a packet, there and back.

    WHO is NAMESPACE/POD, deploy/NAMESPACE/NAME, node/NAME, external or external:IP. WHAT is svc/NAMESPACE/NAME:PORT,
    NAMESPACE/POD:PORT, deploy/NAMESPACE/NAME:PORT, node/NAME:PORT, IP:PORT, [IPv6]:PORT or a Service's DNS name with
    :PORT; /UDP or /SCTP may follow.

    Exit status 0 only if every outcome that load balancing may choose is DELIVERED.
    """
    _fits(as_, at, device)
    _only(family in (None, 4, 6), "--family", f"{family} is no address family: there are 4 and 6")
    found = cluster.trace(source, target, via=via, family=family, size=size, df=df)
    if as_ is Story.PCAP:
        output.raw(found.pcap(at, device))
    elif as_ is Story.SVG:
        output.say(k8s.draw.topology(cluster, found).svg)
    elif as_ is Story.JSON:
        output.document("Trace", found.as_dict())
    elif as_ is Story.HUBBLE:
        output.say("\n".join(map(str, cluster.hubble(found))))
    else:
        output.say(TOLD[as_](found))
        for note in found.notes if as_ in (Story.TEXT, Story.FULL) else ():
            output.say(f"\n{textwrap.fill(f'Note: {note}.', output.columns())}")
    if any(outcome.verdict is not k8s.Verdict.DELIVERED for outcome in found.outcomes):
        raise typer.Exit(NO)


TOLD: Mapping[Story, Callable[[k8s.Trace], str]] = {
    Story.TEXT: lambda found: found.table(output.columns(), more="-o full"),
    Story.FULL: lambda found: found.full(output.columns()),
    Story.PROSE: k8s.Trace.explain,
    Story.MERMAID: k8s.Trace.mermaid,
}


def _fits(as_: Story, at: str | None, device: str | None) -> None:
    if as_ is Story.PCAP and output.on_a_terminal():
        message = "a capture is no text for a terminal: end the line with > FILE or | tcpdump -nn -r -"
        raise CannotDo(Problem(message, field="-o"))
    if as_ is not Story.PCAP and (at or device):
        raise BadOption(Problem("--at and --device choose where to capture: they need -o pcap", field="--at"))


# All pods with all pods


class Matrix(StrEnum):
    """How the matrix of all pods can be told."""

    TEXT = "text"
    JSON = "json"
    CSV = "csv"  # a row for each source and port
    SVG = "svg"  # the matrix as a picture


Ports: TypeAlias = Annotated[
    list[str] | None, typer.Option("--port", "-p", metavar="PORT", help="A port such as 80/TCP. Repeatable.")
]
Expand: TypeAlias = Annotated[bool, typer.Option("--expand", help="Pod by pod, however many there are (json, csv).")]
Reached: TypeAlias = Annotated[Matrix, typer.Option("--output", "-o", help="How to tell it.")]


@about_a_cluster
def reach(
    cluster: k8s.Cluster, port: Ports = None, family: Family = None, expand: Expand = False, as_: Reached = Matrix.TEXT
) -> None:
    """Say which pods may connect to which. Policies decide; whether somebody listens does not matter.

    Without --port every port is asked about that a container declares. The verdicts are those of the CNI: one that
    enforces no policies (flannel) allows everything, so name the one that you have. Pods that all policies treat alike
    are one class; JSON and CSV are pod by pod up to 1,000 pods.

    Exit status 0.
    """
    _only(family in (None, 4, 6), "--family", f"{family} is no address family: there are 4 and 6")
    found = cluster.reach(port or None, family=family)
    choices, written = cluster.policies.choices, cluster.policies.written
    if written and not choices.enforced:
        output.note(f"{choices.plugin} enforces no policies: all {len(written)} have no effect; --cni calico would")
    if as_ is Matrix.JSON:
        output.compact("Reach", found.as_dict(expand=expand))
    elif as_ is Matrix.CSV:
        output.raw(found.csv(expand=expand).encode())
    elif as_ is Matrix.SVG:
        output.say(k8s.draw.reach(found).svg)
    else:
        output.say(str(found))


# The state of machines, and objects

PLAN = "plan"
RIB = "rib"
RECORDS = "records"
OTHER_WORDS = {
    "address": "addresses", "addr": "addresses", "link": "links", "route": "routes", "rule": "rules",
    "neighbour": "neighbours", "neighbors": "neighbours", "neighbor": "neighbours", "neigh": "neighbours",
    "sysctl": "sysctls", "nftables": "nft", "slices": "endpointslices",
}  # fmt: skip
"""What people also call them."""

SHOWABLE = (*rows.OF_MACHINES, RIB, PLAN, RECORDS, *KINDS)


Kind: TypeAlias = Annotated[
    str,
    typer.Argument(
        metavar="WHAT",
        help=f"One of {', '.join(SHOWABLE)}, or another kind of object.",
        autocompletion=one_of(SHOWABLE),
    ),
]


class Shape(StrEnum):
    """How what is shown can be printed."""

    TEXT = "text"
    JSON = "json"
    YAML = "yaml"  # objects only, whole


Shaped: TypeAlias = Annotated[
    Shape, typer.Option("--output", "-o", help="Text for people, rows as JSON for programs, or whole objects as YAML.")
]
HostName: TypeAlias = Annotated[
    str | None, typer.Option(metavar="HOST", help="Of this node only, or of any machine: NAMESPACE/POD, router, …")
]
Namespace: TypeAlias = Annotated[
    str | None, typer.Option("--namespace", "-n", metavar="NS", help="Objects of this namespace only.")
]


@about_a_cluster
def show(
    cluster: k8s.Cluster,
    what: Kind,
    node: HostName = None,
    namespace: Namespace = None,
    as_: Shaped = Shape.TEXT,
) -> None:
    """Show the state of machines, or objects. They are printed as the real tools and kubectl print them.

    Of machines: what `ip`, `bridge`, `iptables-save`, `nft` and so on would print on each node. Of the cluster: its
    objects as the controllers leave them (pods with nodes and addresses, EndpointSlices), the plan of its addresses,
    and the DNS records that follow from them. Under a CNI that speaks BGP: what each node, or with --node the router,
    has heard (rib). As YAML an object has all defaults and everything that was allocated.
    """
    what = OTHER_WORDS.get(what, what)
    if what in rows.OF_MACHINES:
        _only(namespace is None, "--namespace", f"machines, and so their {what}, are in no namespace")
        _show_machines(cluster, what, node, as_)
    elif what == RIB:
        _only(namespace is None, "--namespace", "what is heard by BGP is in no namespace")
        _only(as_ is not Shape.YAML, "-o", f"only objects are YAML, not the {what}")
        _show_ribs(cluster, node, as_)
    elif what == PLAN:
        _only(namespace is None and node is None, "WHAT", "the plan is that of the whole cluster")
        _only(as_ is not Shape.YAML, "-o", "only objects are YAML, not the plan")
        _answer(as_, what, node, str(cluster.plan), rows.of_plan(cluster.plan))
    elif what == RECORDS:
        _only(namespace is None and node is None, "WHAT", "the records are those of the whole cluster")
        _only(as_ is not Shape.YAML, "-o", "only objects are YAML, not records")
        held = cluster.records()
        _answer(as_, what, node, "\n".join(map(str, held)), [{**each.as_dict()} for each in held])
    else:
        _show_objects(cluster, what, node, namespace, as_)


def _show_machines(cluster: k8s.Cluster, what: str, node: str | None, as_: Shape) -> None:
    _only(as_ is not Shape.YAML, "-o", f"only objects are YAML, not {what}")
    names = [each.name for each in cluster.objects.nodes] if node is None else [node.removeprefix("node/")]
    machines = [cluster.host(name) for name in names]
    if as_ is Shape.JSON:
        rows_of = rows.OF_MACHINES[what]
        found = [{"host": machine.host.name, **row} for machine in machines for row in rows_of(machine.host)]
        output.document("Show", {"what": what, "node": node, "rows": found})
    elif node is not None:
        output.say(machines[0].show(what))
    else:
        output.say("\n\n".join(f"# {machine.host.name}\n{machine.show(what).rstrip()}" for machine in machines))


def _show_ribs(cluster: k8s.Cluster, node: str | None, as_: Shape) -> None:
    """What nodes, or one, have heard by BGP."""
    names = [each.name for each in cluster.objects.nodes] if node is None else [node.removeprefix("node/")]
    ribs = {name: cluster.rib(name) for name in names}
    told = {name: "\n".join(map(str, held)) for name, held in ribs.items()}
    text = told[names[0]] if node is not None else "\n\n".join(f"# {name}\n{said}" for name, said in told.items())
    found = [{"host": name, **row} for name, held in ribs.items() for rib in held for row in rows.of_rib(rib)]
    _answer(as_, RIB, node, text, found)


def _show_objects(cluster: k8s.Cluster, kind: str, node: str | None, namespace: str | None, as_: Shape) -> None:
    try:
        table = cluster.get(kind, namespace)
    except UnknownName:
        raise UnknownName("kind of thing to show,", kind, SHOWABLE) from None
    if node is not None:
        _only(table.kind == "pods", "--node", f"{table.kind} are not of one node")
        name = cluster.objects.node(node.removeprefix("node/")).name
        table = k8s.tables.Table(table.kind, table.columns, tuple(pod for pod in table if pod.node_name == name))
    if as_ is Shape.YAML:
        output.say(k8s.api.to_yaml(*table))
    else:
        _answer(as_, table.kind, node, str(table), [rows.of_object(each) for each in table])


def _answer(as_: Shape, what: str, node: str | None, text: str, found: list[rows.Row]) -> None:
    if as_ is Shape.JSON:
        output.document("Show", {"what": what, "node": node, "rows": found})
    else:
        output.say(text)


def _only(fits: object, field: str, why: str) -> None:
    if not fits:
        raise BadOption(Problem(why, field=field))


# What a change changes


# What the runtime says to the CNI


Attached: TypeAlias = Annotated[str, typer.Argument(metavar="NAME", help="A pod (NAMESPACE/NAME), or a node.")]
Asked: TypeAlias = Annotated[
    Command, typer.Argument(metavar="COMMAND", help="ADD, CHECK or DEL a pod; GC or STATUS of a node.")
]


@about_a_cluster
def cni(cluster: k8s.Cluster, name: Attached, command: Asked = Command.ADD, as_: Output = Format.TEXT) -> None:
    """Show what the container runtime says to the CNI's plugins, and what they answer. It is the JSON of the CNI
    specification: how a pod was plugged in, whether it still is as it was, and how it is unplugged.

    Exit status 0 if every plugin succeeds, 1 if one does not.
    """
    said = cluster.cni_call(name, command)
    if as_ is Format.JSON:
        content = {"name": name, "command": command.value, "succeeded": said.succeeded, **said.as_dict()}
        output.document("Cni", content)
    else:
        output.say(str(said))
    if not said.succeeded:
        raise typer.Exit(NO)


# Names


class Lookup(StrEnum):
    """How a lookup can be told."""

    TEXT = "text"  # the ladder of questions
    PROSE = "prose"  # sentences
    JSON = "json"


Name: TypeAlias = Annotated[str, typer.Argument(metavar="NAME", help="The name to look up; for PTR also an address.")]
Asker: TypeAlias = Annotated[str, typer.Option("--from", metavar="WHO", help="Who looks it up.")]
Serve: TypeAlias = Annotated[bool, typer.Option("--serve", help="Answer dig and others at a port of this machine.")]
Port: TypeAlias = Annotated[
    int, typer.Option(metavar="N", help="Which port, with --serve; 0 is any.", min=0, max=65535)
]
Kind_: TypeAlias = Annotated[
    str | None, typer.Option("--type", metavar="TYPE", help="A, AAAA, SRV, PTR, …; else A and AAAA together.")
]
Library: TypeAlias = Annotated[str, typer.Option(metavar="NAME", help="The C library: glibc or musl.")]
LookedUp: TypeAlias = Annotated[Lookup, typer.Option("--output", "-o", help="How to tell it.")]


@about_a_cluster
def dns(
    cluster: k8s.Cluster,
    source: Asker = "",
    name: Name = "",
    type_: Kind_ = None,
    libc: Library = "glibc",
    as_: LookedUp = Lookup.TEXT,
    serve: Serve = False,
    port: Port = nameserver.PORT,
) -> None:
    """Look a name up as a program in a pod does: every question that its C library sends, and the answers. Questions
    are packets: what stops packets stops them, and the answer says where.

    WHO is NAMESPACE/POD, deploy/NAMESPACE/NAME, node/NAME, external or external:IP.

    With --serve nobody is named: the cluster's CoreDNS answers whoever asks at a port of this machine (127.0.0.1).

    Exit status 0 if the name is found, 1 if it is not: no such name, no such record, no answer.
    """
    if serve:
        if source or name:
            raise BadOption(Problem("it answers whoever asks: give neither NAME nor --from", field="--serve"))
        nameserver.serve(cluster, port)
        return
    for given, field in ((name, "NAME"), (source, "--from")):
        if not given:
            raise BadOption(Problem("it is missing; only --serve goes without", field=field))
    found = cluster.resolve(source, name, type=type_, libc=libc)
    if as_ is Lookup.JSON:
        output.document("Resolution", found.as_dict())
    else:
        output.say(found.explain() if as_ is Lookup.PROSE else str(found))
    if not found:
        raise typer.Exit(NO)


# What a choice changes


class Telling(StrEnum):
    """How a difference can be told."""

    TEXT = "text"
    FULL = "full"  # every entry
    JSON = "json"


Length: TypeAlias = Annotated[Telling, typer.Option("--output", "-o", help="Text in short or in full, or JSON.")]
Change: TypeAlias = Annotated[
    list[str] | None, typer.Option(metavar="OPTION=VALUE", help="An option to change. Repeatable.")
]
Apply: TypeAlias = Annotated[
    list[str] | None, typer.Option(metavar="F", help="A file to apply, as kubectl does. Repeatable.")
]


FAULT = "fault="


@about_a_cluster
def diff(
    cluster: k8s.Cluster,
    change: Change = None,
    apply: Apply = None,
    as_: Length = Telling.TEXT,
) -> None:
    """Say what another choice or manifest would change. Devices, addresses, routes, neighbours and rules are compared.

    OPTION is one of cni, cni-option (=K=V), proxy, proxy-option (=K=V), nodes, pod-cidr, service-cidr, node-cidr,
    load-balancer, load-balancer-cidr, dns, seed, or fault (=NAME or =NAME@MACHINE).

    Exit status 0 if nothing differs, 1 if something does.
    """
    _only(change or apply, "--change", "say what to change, with --change or --apply")
    wrong = [word.removeprefix(FAULT) for word in change or () if word.startswith(FAULT)]
    chosen = [word for word in change or () if not word.startswith(FAULT)]
    other = cluster.changed(**changes(chosen)) if chosen else cluster
    found = cluster.diff(broken(other.applied(*apply) if apply else other, wrong))
    if as_ is Telling.JSON:
        output.document("Diff", found.as_dict())
    else:
        told = found.full() if as_ is Telling.FULL else found.table(more="-o full")
        output.say(f"{told}\n\n{found.summary()}" if found else told)
    if found:
        raise typer.Exit(NO)


# What every cluster promises


@about_a_cluster
def contract(cluster: k8s.Cluster, as_: Output = Format.TEXT) -> None:
    """Check what every cluster promises. Packets go between pods, nodes, the API server and a client outside.

    Exit status 0 if all hold, 1 if one does not.
    """
    report = k8s.contract.check(cluster)
    if as_ is Format.JSON:
        output.document("Contract", report.as_dict())
    else:
        output.say(str(report))
    if not report.holds:
        raise typer.Exit(NO)
