"""What does a packet do in my manifests? Asked from a shell.

    k8snetlab trace -f manifests/ --from shop/web-0 --to svc/shop/api:80

Every command asks the front door and prints the answer; nothing is computed here. Text is for people, `-o json` for
programs: each document says its kind and has a JSON Schema in `k8snetlab.schemas`. The exit status is the short answer:
0 yes, 1 no, 2 the input is wrong — then every line of standard error names file, line, object and field. Notes go to
standard error too, so that what comes out of standard output is the answer and nothing else.

| file        | what is in it                                                                |
|-------------|------------------------------------------------------------------------------|
| `questions` | the commands about a cluster: `trace`, `dns`, `reach`, `show`, `diff`, …      |
| `options`   | what they have in common: the files and the choices a cluster is loaded with |
| `rows`      | the state of machines and the objects as rows of plain values                |
| `output`    | answers, notes and refusals on the right stream                              |
| `paint`     | colours, where a person looks at a terminal                                  |
| `allowed`   | whether policies let one connection pass, and what would turn that           |
| `check`     | what in policies is probably not wanted                                      |
| `external`  | what the world's DNS would be told: `external-dns`                            |
| `prove`     | the same on the real kernel, compared                                        |
| `doctor`    | what this machine can do                                                     |
| `nameserver`| names of the cluster for `dig`: `dns --serve`                                |
| `lab`       | the course in JupyterLab                                                     |
| `progress`  | how much of it is done                                                       |

Not modelled: a cluster that is asked over the network. Take a dump: `kubectl get pods,svc,… -A -o yaml`.
"""

from __future__ import annotations

import gc
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

import k8snetlab as k8s
from k8snetlab.cli import output, questions
from k8snetlab.cli.allowed import allowed
from k8snetlab.cli.check import check
from k8snetlab.cli.external import external_dns
from k8snetlab.cli.output import Format
from k8snetlab.cli.prove import prove
from k8snetlab.errors import LabError, Problem

__all__ = ["app", "main"]

INTERRUPTED = 130
"""128 + SIGINT, as shells count."""
RARELY = 50_000
"""After how many new objects garbage is looked for: one answer makes many objects that stay and hardly any cycles, and
looking every 700 takes a quarter of its time.
"""


class Commands(TyperGroup):
    """The commands, and what happens when one cannot answer: no traceback, but lines or a document, and status 2."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        words = sys.argv[1:] if args is None else list(args)
        try:
            status = super().main(words, prog_name, complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
        except LabError as error:
            status = output.refuse(error.problems, words)
        except typer.TyperException as error:
            status = output.refuse([_misused(error)], words)
        except (typer.Abort, KeyboardInterrupt):
            status = INTERRUPTED
        except OSError as error:  # writing the answer; whatever reads manifests says more
            status = output.refuse([Problem(error.strerror or str(error), file=str(error.filename or ""))], words)
        sys.exit(status or 0)


def _misused(error: typer.TyperException) -> Problem:
    """A word of the command line that is not understood, and where to read about those that are."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "k8snetlab"
    message = error.format_message().rstrip(".").replace("Value error, ", "")
    return Problem(f"{message}; `{command} --help` says what there is")


app = typer.Typer(
    name="k8snetlab",
    cls=Commands,
    rich_markup_mode=None,  # plain help comes at once
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _examples(*lines: str) -> str:
    """Lines for the end of a help text; the mark at their head keeps them apart."""
    return "\b\n" + "\n".join(("Examples:", *(f"  {line}" for line in lines)))


@app.callback(
    invoke_without_command=True,
    epilog=_examples(
        "k8snetlab lab",
        "k8snetlab trace -f app.yaml --from default/web --to svc/default/api:80",
        "k8snetlab show -f app.yaml iptables --node node-1",
        "k8snetlab diff -f app.yaml --change cni=bridge",
    ),
)
def front(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Kubernetes networking, computed: manifests in, every hop of every packet out.

    Exit status: 0 the answer is yes, 1 it is no, 2 the input is wrong.
    """
    if version:
        typer.echo(f"k8snetlab {k8s.__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("lab", epilog=_examples("k8snetlab lab", "k8snetlab lab ~/networking --no-browser"))
def open_the_course(
    folder: Annotated[
        Path | None,
        typer.Argument(metavar="[DIR]", help="Where your copy of the notebooks is, or shall be.", show_default=False),
    ] = None,
    browser: Annotated[bool, typer.Option(help="Open a browser where there is a screen.")] = True,
    port: Annotated[int, typer.Option(help="The first port to try.", min=1, max=65535)] = 8888,
) -> None:
    """Open the course in JupyterLab.

    In a clone without DIR the notebooks of the clone are opened. Otherwise they are copied to DIR (./k8snetlab-course);
    notebooks that you have changed there stay as you left them. The address is printed too. Ctrl-C ends it.
    """
    from k8snetlab.cli.lab import run

    raise typer.Exit(run(folder, port, open_browser=browser))


@app.command("doctor", epilog=_examples("k8snetlab doctor", "k8snetlab doctor -o json"))
def examine_the_machine(
    as_: Annotated[Format, typer.Option("--output", "-o", help="Text for people, JSON for programs.")] = Format.TEXT,
) -> None:
    """Say what this machine can do. What is missing is named with the package that brings it."""
    from k8snetlab.cli.doctor import examined, print_table

    found = examined()
    if as_ is Format.JSON:
        output.document("Doctor", {"capabilities": [each.as_dict() for each in found]})
    else:
        print_table(found)


@app.command("progress", epilog=_examples("k8snetlab progress", "k8snetlab progress --reset"))
def tell_the_progress(
    as_: Annotated[Format, typer.Option("--output", "-o", help="Text for people, JSON for programs.")] = Format.TEXT,
    reset: Annotated[bool, typer.Option("--reset", help="Forget what was done, and begin anew.")] = False,
) -> None:
    """Say how far you are through the course: exercises, questions and predictions of each notebook."""
    from k8snetlab.cli.progress import progressed

    progressed(as_, reset=reset)


app.command(
    epilog=_examples(
        "k8snetlab trace -f app/ --from shop/web-0 --to svc/shop/api:80",
        "k8snetlab trace -f app/ --from external --to svc/shop/web:80 --via node-2 -o prose",
        "k8snetlab trace -f app/ --from shop/web-0 --to 10.244.2.7:53/UDP -o json",
        "k8snetlab trace -f app/ --from shop/web-0 --to api:80 -o pcap | tcpdump -nn -r -",
    )
)(questions.trace)
app.command(
    epilog=_examples(
        "k8snetlab reach -f app/ --cni calico",
        "k8snetlab reach -f app/ --cni cilium --port 80/TCP --port 5432/TCP -o json",
        "k8snetlab reach -f app/ --cni calico --port 8080 -o svg > matrix.svg",
    )
)(questions.reach)
app.command(
    epilog=_examples(
        "k8snetlab show -f app/ iptables --node node-1",
        "k8snetlab show -f app/ routes --node shop/web-0",
        "k8snetlab show -f app/ pods -n shop",
        "k8snetlab show -f app/ fdb -o json",
    )
)(questions.show)
app.command(
    epilog=_examples(
        "k8snetlab dns -f app/ --from shop/web-0 api",
        "k8snetlab dns -f app/ --from shop/web-0 www.example.com --libc musl -o prose",
        "k8snetlab dns -f app/ --from shop/web-0 _http._tcp.api.shop.svc.cluster.local --type SRV",
        "k8snetlab dns -f app/ --from shop/web-0 api --dns node-local -o json",
        "k8snetlab dns -f app/ --serve --port 5353",
    )
)(questions.dns)
app.command(
    epilog=_examples(
        "k8snetlab cni -f app/ shop/web-0",
        "k8snetlab cni -f app/ shop/web-0 CHECK --cni bridge",
        "k8snetlab cni -f app/ node-1 GC --cni bridge -o json",
    )
)(questions.cni)
app.command(
    epilog=_examples(
        "k8snetlab diff -f app/ --change cni=bridge",
        "k8snetlab diff -f app/ --change cni-option=backend=host-gw -o json",
    )
)(questions.diff)
app.command(epilog=_examples("k8snetlab contract -f app/ --cni bridge"))(questions.contract)
app.command(
    epilog=_examples(
        "k8snetlab allowed -f app/ --cni calico --from shop/web-0 --to shop/db-0:5432",
        "k8snetlab allowed -f app/ --cni calico --from shop/web-0 --to shop/db-0:5432 --change | kubectl apply -f -",
    )
)(allowed)
app.command(epilog=_examples("k8snetlab check -f app/ --cni calico", "k8snetlab check -f app/ -o json"))(check)
app.command(
    "external-dns",
    epilog=_examples(
        "k8snetlab external-dns -f app/ --zone example.org",
        "k8snetlab external-dns -f app/ --zone example.org --against org.zone --owner shop --policy upsert-only",
    ),
)(external_dns)
app.command(
    epilog=_examples(
        "k8snetlab prove -f app/",
        "k8snetlab prove -f app/ --cni bridge -o json",
        "k8snetlab prove -f app/ --evidence proof.json",
    )
)(prove)


def main() -> None:
    """The program `k8snetlab`."""
    gc.set_threshold(RARELY)
    if hasattr(signal, "SIGPIPE"):  # a reader that has seen enough (`| head`) ends us silently, like any filter
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    app()
