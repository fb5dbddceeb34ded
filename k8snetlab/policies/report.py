"""How is a matrix of all pods told to people and to programs?

As text: by class, with a mark in every cell, as long as there is room for it; else a line for each namespace. As CSV: a
row for each source and port, a column for each destination. As plain data, for JSON: the same with reasons.

Data and CSV are pod by pod up to 1,000 pods, and whenever somebody wants it; beyond that they are by class. Guide
section 4.1.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from k8snetlab.errors import BadOption
from k8snetlab.policies.classes import Bools, Indexes
from k8snetlab.policies.matrix import PodClass, Port, Reach
from k8snetlab.policies.plan import EGRESS, INGRESS

__all__ = ["as_csv", "as_dict", "as_text"]

MOST_PODS = 1_000
"""How many pods are told one by one unless somebody asks for it."""
MOST_REASONS = 2_500
"""How many reasons are given at most: one for each two classes and port, if they are not more."""
MOST_COLUMNS = 32
"""How many classes a matrix of text may have."""

YES, NO, ITSELF = "■", "·", "="


def as_text(found: Reach) -> str:
    """For people: who may open connections to whom."""
    pods, classes = len(found.pods), len(found.classes)
    alike = f"{classes:,} class{'' if classes == 1 else 'es'} of pods treated alike"
    lines = [f"{pods:,} pod{'' if pods == 1 else 's'} in {alike}"]
    choices, written = found.policies.choices, found.policies.written
    if not choices.enforced and written:
        lines.append(f"{choices.plugin} enforces no policies: the {len(written)} that there are have no effect")
    if found.of and (without := _without(found, found.of)):
        lines.append(f"{without:,} of them without an IPv{found.of} address, which connect nowhere")
    if aside := len(found.policies.cilium_policies):
        lines.append(f"{aside} CiliumNetworkPolic{'y is' if aside == 1 else 'ies are'} not in it: trace asks them")
    if not pods:
        return "\n".join(lines)
    if classes <= MOST_COLUMNS:
        lines += ["", *_classes_listed(found.classes)]
        for port in found.ports:
            lines += ["", *_matrix(found, port)]
    else:
        for port in found.ports:
            lines += ["", *_by_namespace(found, port)]
    near = {pair for port in found.ports for pair in found.near(port)}
    if near:
        lines += ["", f"and {len(near):,} pairs of one node, of which one uses the node's network"]
    return "\n".join(lines)


def _without(found: Reach, of: int) -> int:
    """How many pods have addresses, but none of this family."""
    return sum(bool(each.addresses) and not each.address(of) for each in found.policies.endpoints)


def _classes_listed(classes: Sequence[PodClass]) -> Iterator[str]:
    for each in classes:
        more = f" and {len(each.pods) - 4} more" if len(each.pods) > 4 else ""
        yield f"{each.id + 1:>3}  {', '.join(each.pods[:4])}{more}"


def _matrix(found: Reach, port: Port) -> Iterator[str]:
    yes, of = found.pairs(port)
    allowed = found.allowed(port)
    yield f"{port}: {yes:,} of {of:,} pairs allowed   (rows are sources: {YES} allowed, {NO} not, {ITSELF} itself)"
    yield "     " + " ".join(f"{each.id + 1:>2}" for each in found.classes)
    for row, each in enumerate(found.classes):
        cells = [YES if allowed[row, column] else NO for column in range(len(allowed))]
        if len(each.pods) == 1:
            cells[row] = ITSELF
        yield f"{row + 1:>3}  " + " ".join(f"{cell:>2}" for cell in cells)


def _by_namespace(found: Reach, port: Port) -> Iterator[str]:
    """How much of what each namespace might reach, and be reached by, is allowed."""
    names, group = _namespaces(found)
    sizes = np.bincount(group, minlength=len(names))
    counts = found.counted(group, port)
    closed = {way: set(found.isolated(way)) for way in (INGRESS, EGRESS)}
    yes, of = found.pairs(port)
    yield f"{port}: {yes:,} of {of:,} pairs allowed"
    wide = max(len("NAMESPACE"), *map(len, names))
    head = f"{'NAMESPACE':<{wide}}  {'PODS':>6}  {'ISOLATED IN':>11}  {'OUT':>6}"
    yield f"{head}  {'REACHED BY':>10}  {'REACHES':>7}  INSIDE"
    members: dict[str, list[str]] = {}
    for pod, endpoint in zip(found.pods, found.policies.endpoints, strict=True):
        members.setdefault(endpoint.namespace, []).append(pod)
    for at, name in enumerate(names):
        size, others = int(sizes[at]), len(found.pods) - int(sizes[at])
        inside = _percent(int(counts[at, at]), size * (size - 1))
        coming = _percent(int(counts[:, at].sum() - counts[at, at]), size * others)
        going = _percent(int(counts[at].sum() - counts[at, at]), size * others)
        shut = [sum(pod in closed[way] for pod in members[name]) for way in (INGRESS, EGRESS)]
        yield f"{name:<{wide}}  {size:>6,}  {shut[0]:>11,}  {shut[1]:>6,}  {coming:>10}  {going:>7}  {inside:>6}"


def _namespaces(found: Reach) -> tuple[list[str], Indexes]:
    spaces = [each.namespace for each in found.policies.endpoints]
    names = sorted(set(spaces))
    place = {name: at for at, name in enumerate(names)}
    return names, np.array([place[each] for each in spaces], np.intp)


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "-"


# --- for programs -----------------------------------------------------------------------------------------------------


def _pod_by_pod(found: Reach, *, expand: bool) -> bool:
    return expand or len(found.pods) <= MOST_PODS


def _told(found: Reach, port: Port, *, expand: bool) -> Bools:
    return found.matrix(port) if _pod_by_pod(found, expand=expand) else found.allowed(port)


def as_csv(found: Reach, *, expand: bool = False) -> str:
    """A row for each port and source, `1` or `0` for each destination; beyond 1,000 pods by class, named by its first
    pod, unless `expand` is true.
    """
    single = _pod_by_pod(found, expand=expand)
    names = found.pods if single else tuple(map(str, found.classes))
    written = io.StringIO()
    rows = csv.writer(written, lineterminator="\n")
    rows.writerow(("port", "from", *names))
    for port in found.ports:
        for name, row in zip(names, _told(found, port, expand=expand).astype(int).tolist(), strict=True):
            rows.writerow((str(port), name, *row))
    return written.getvalue()


def as_dict(found: Reach, *, expand: bool = False) -> dict[str, Any]:
    """Ports, classes, the matrix of each port (rows are sources), and reasons.

    Pod by pod up to 1,000 pods or with `expand`: a class then has one pod, and everything counts. By class the matrix
    is about two pods that stand apart; `own_node` has the pairs that may connect beside it. There is a reason for each
    two classes of pods alike and each port, unless these are more than 2,500.
    """
    single = _pod_by_pod(found, expand=expand)
    classes = [(pod,) for pod in found.pods] if single else [each.pods for each in found.classes]
    return {
        "ports": [str(port) for port in found.ports],
        "enforced": found.policies.choices.enforced,
        "classes": [{"id": at, "pods": list(pods)} for at, pods in enumerate(classes)],
        "allowed": {str(port): _told(found, port, expand=expand).tolist() for port in found.ports},
        "own_node": {} if single else {str(port): [list(pair) for pair in found.near(port)] for port in found.ports},
        "why": list(_reasons(found)),
    }


def _reasons(found: Reach) -> Iterator[dict[str, Any]]:
    if len(found.classes) ** 2 * len(found.ports) > MOST_REASONS:
        return
    for port in found.ports:
        for source in found.classes:
            for destination in found.classes:
                here, there = source.pods[0], destination.pods[-1]
                try:
                    yield found.why(here, there, port).as_dict()
                except BadOption as error:
                    yield {
                        "from": here, "to": there, "port": str(port), "allowed": False,
                        "reason": error.problems[0].message, "rule": None,
                    }  # fmt: skip
