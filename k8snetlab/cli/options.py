"""Which cluster is asked about?

Every question begins with manifests and with the choices that manifests do not make: CNI, proxy mode, networks. Those
options are written down once, here. A command that asks about a cluster takes it as its first argument, and
`about_a_cluster` puts the options that load it in its place.

Not modelled: configuration files and environment variables. What was asked stands in the command.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, TypeAlias

import typer

import k8snetlab as k8s
from k8snetlab.cli import output
from k8snetlab.cni import ARCHIVED, named
from k8snetlab.cni import VARIANTS as CNIS
from k8snetlab.cni import Option as CniOption
from k8snetlab.compile import IMPLEMENTATIONS, PROXIES, RESOLVERS
from k8snetlab.errors import BadOption, LabError, Problem
from k8snetlab.faults import FAULTS

__all__ = ["about_a_cluster", "broken", "changes", "one_of", "pairs"]

USUAL = k8s.Options()


def one_of(names: Iterable[str]) -> Callable[[str], list[str]]:
    """What the shell may complete a word to."""

    def completed(incomplete: str) -> list[str]:
        return [name for name in names if name.startswith(incomplete)]

    return completed


def options_of(cni: str) -> str:
    """The options of a CNI in one line, with the values that they take."""
    return f"{cni}: {', '.join(map(_said, named(cni).options))}"


def _living(cni: str) -> str:
    """The name of a CNI, and whether its project has ended."""
    return f"{cni} (archived in {ARCHIVED[cni]})" if cni in ARCHIVED else cni


def _said(option: CniOption) -> str:
    return f"{option.name}={'|'.join(option.values) or option.default or '…'}"


Files: TypeAlias = Annotated[
    list[str], typer.Option("--file", "-f", metavar="F", help="A file, a folder, or - for standard input. Repeatable.")
]
CniName: TypeAlias = Annotated[
    str, typer.Option(metavar="NAME", help=f"The CNI: {', '.join(map(_living, CNIS))}.", autocompletion=one_of(CNIS))
]
CniOptions: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="K=V",
        help=f"An option of it. Repeatable. There are, by CNI: {'; '.join(map(options_of, CNIS))}.",
    ),
]
Proxy: TypeAlias = Annotated[
    str,
    typer.Option(metavar="MODE", help=f"The mode of kube-proxy: {', '.join(PROXIES)}.", autocompletion=one_of(PROXIES)),
]
ProxyOptions: TypeAlias = Annotated[
    list[str] | None, typer.Option(metavar="K=V", help="An option of it, such as scheduler=sh. Repeatable.")
]
Nodes: TypeAlias = Annotated[int, typer.Option(metavar="N", help="How many nodes, where the input has none.")]
PodCidr: TypeAlias = Annotated[
    str, typer.Option(metavar="CIDR[,CIDR]", help="Where pods get their addresses: one network a family.")
]
ServiceCidr: TypeAlias = Annotated[
    str, typer.Option(metavar="CIDR[,CIDR]", help="Where Services get theirs: one network a family.")
]
NodeCidr: TypeAlias = Annotated[str, typer.Option(metavar="CIDR[,CIDR]", help="The subnets that nodes stand in.")]
LoadBalancer: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help=f"Who gives LoadBalancer Services addresses: {', '.join(IMPLEMENTATIONS)}.",
        autocompletion=one_of(IMPLEMENTATIONS),
    ),
]
LoadBalancerCidr: TypeAlias = Annotated[
    str, typer.Option(metavar="CIDR[,CIDR]", help="Which addresses it gives: one network a family.")
]
Dns: TypeAlias = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help=f"Who answers pods' DNS questions: {', '.join(RESOLVERS)}.",
        autocompletion=one_of(RESOLVERS),
    ),
]
World: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=IP[,IP]", help="A name of the world outside, with its addresses. Repeatable."),
]
Seed: TypeAlias = Annotated[int, typer.Option(metavar="N", help="What chance is drawn from.")]
Faults: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME[@WHERE]",
        help=f"What goes wrong, on that machine (or svc/NS/NAME) or where it is noticed first. {', '.join(FAULTS)}.",
        autocompletion=one_of(FAULTS),
    ),
]


def load(
    *,
    file: Files,
    cni: CniName = USUAL.cni,
    cni_option: CniOptions = None,
    proxy: Proxy = USUAL.proxy,
    proxy_option: ProxyOptions = None,
    nodes: Nodes = USUAL.nodes,
    pod_cidr: PodCidr = USUAL.pod_cidr,
    service_cidr: ServiceCidr = USUAL.service_cidr,
    node_cidr: NodeCidr = USUAL.node_cidr,
    load_balancer: LoadBalancer = USUAL.load_balancer,
    load_balancer_cidr: LoadBalancerCidr = USUAL.load_balancer_cidr,
    dns: Dns = USUAL.dns,
    world: World = None,
    seed: Seed = USUAL.seed,
    fault: Faults = None,
) -> k8s.Cluster:
    """The cluster that these options mean; kinds that the lab does not read are mentioned, and what people say of its
    faults.
    """
    chosen = {
        "cni": cni, "cni_options": pairs(cni_option or (), "--cni-option"), "proxy": proxy,
        "proxy_options": pairs(proxy_option or (), "--proxy-option"), "nodes": nodes, "pod_cidr": pod_cidr,
        "service_cidr": service_cidr, "node_cidr": node_cidr, "seed": seed, "load_balancer": load_balancer,
        "load_balancer_cidr": load_balancer_cidr, "dns": dns, "world": pairs(world or (), "--world"),
    }  # fmt: skip
    cluster = k8s.Cluster.load(*file, **chosen)
    unknown = cluster.manifests.unknown_kinds
    if unknown:
        output.note(f"not read, because the lab does not know them: {', '.join(map(str, unknown))}")
    return broken(cluster, fault or ())


def broken(cluster: k8s.Cluster, words: Iterable[str]) -> k8s.Cluster:
    """The cluster with faults, each `NAME` or `NAME@MACHINE`. Raises `UnknownName` and `CannotDo`."""
    for word in words:
        name, at, machine = word.partition("@")
        if at and not machine:
            raise BadOption(Problem(f"{word!r} names no machine after the @", field="--fault"))
        cluster = cluster.broken(name, on=machine.removeprefix("node/"))
        output.note(f"{name}: {FAULTS[name].symptom}")
    return cluster


def about_a_cluster(question: Callable[..., None]) -> Callable[..., None]:
    """A command of `question`, whose first parameter is a cluster: the options that load it take its place."""
    parameters = list(inspect.signature(question, eval_str=True).parameters.values())[1:]
    loading = list(inspect.signature(load, eval_str=True).parameters.values())
    names = {parameter.name for parameter in loading}

    def command(**given: Any) -> None:
        cluster = load(**{name: value for name, value in given.items() if name in names})
        try:
            question(cluster, **{name: value for name, value in given.items() if name not in names})
        except LabError as error:  # what is wrong with an object has a place in a file
            raise LabError(map(cluster.manifests.placed, error.problems)) from error

    files, choices = loading[0], loading[1:]
    whole = [files, *(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters), *choices]
    command.__name__ = question.__name__
    command.__doc__ = question.__doc__
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in whole}
    command.__signature__ = inspect.Signature(whole)  # type: ignore[attr-defined]
    return command


def pairs(words: Iterable[str], field: str) -> dict[str, str]:
    """`["backend=host-gw"]` → `{"backend": "host-gw"}`. Raises `BadOption`.

    >>> pairs(["mtu=1400"], "--cni-option")
    {'mtu': '1400'}
    """
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise BadOption(Problem(f"{word!r} is not KEY=VALUE", field=field))
        found[key.strip()] = value.strip()
    return found


def changes(words: Sequence[str]) -> dict[str, Any]:
    """What `--change` says, as options of a cluster. `cni-option=K=V` and `proxy-option=K=V` may stand several times.
    Raises `BadOption`.

    >>> changes(["cni=flannel", "cni-option=backend=host-gw", "nodes=4"])
    {'cni': 'flannel', 'nodes': 4, 'cni_options': {'backend': 'host-gw'}}
    """
    found: dict[str, Any] = {}
    options: dict[str, list[str]] = {}
    for word in words:
        [(name, value)] = pairs([word], "--change").items()
        name = name.replace("-", "_")
        if name.removesuffix("s") in ("cni_option", "proxy_option"):
            options.setdefault(name.removesuffix("s"), []).append(value)
        else:
            found[name] = _number(value, name) if name in ("nodes", "seed") else value
    for name, words in options.items():
        found[f"{name}s"] = pairs(words, f"--change {name.replace('_', '-')}")
    return found


def _number(text: str, name: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise BadOption(Problem(f"{text!r} is not a number", field=f"--change {name}")) from None
