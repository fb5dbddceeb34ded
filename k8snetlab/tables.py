"""What would `kubectl get` print?

A `Table` holds objects and prints columns. The columns are those of kubectl's wide output as far as they concern the
network.

Not modelled: ages, restarts, images. Guide section 1.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from k8snetlab import api
from k8snetlab.controllers import Resolved
from k8snetlab.errors import UnknownName

__all__ = ["KINDS", "Table", "table"]

Column: TypeAlias = tuple[str, Callable[[Any], str]]


class Table(msgspec.Struct, frozen=True):
    """Rows of objects with the columns to print."""

    kind: str
    columns: tuple[Column, ...]
    rows: tuple[Any, ...]

    def cells(self) -> list[list[str]]:
        """The printed cells, row by row, without the head."""
        return [[value(row) for _, value in self.columns] for row in self.rows]

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, at: int) -> Any:
        return self.rows[at]

    def __str__(self) -> str:
        if not self.rows:
            return "No resources found"
        return aligned([[name for name, _ in self.columns], *self.cells()])

    def __repr__(self) -> str:
        return str(self)

    def as_dict(self) -> dict[str, Any]:
        """The rows as the JSON of `k8snetlab show`."""
        names = [name.lower().replace("-", "_").replace("(s)", "s") for name, _ in self.columns]
        return {"rows": [dict(zip(names, row, strict=True)) for row in self.cells()]}

    def _repr_html_(self) -> str:
        head = "".join(f"<th style='text-align:left'>{name}</th>" for name, _ in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td style='text-align:left'>{_escaped(cell)}</td>" for cell in row) + "</tr>"
            for row in self.cells()
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _escaped(cell: str) -> str:
    return cell.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns of equal width, three spaces apart, as kubectl prints them."""
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _none(text: str) -> str:
    return text or "<none>"


def _ports(service: api.Service) -> str:
    return _none(
        ",".join(
            f"{port.port}:{port.node_port}/{port.protocol}" if port.node_port else f"{port.port}/{port.protocol}"
            for port in service.spec.ports
        )
    )


def _external(service: api.Service) -> str:
    found = [*(each.ip or each.hostname for each in service.load_balancer), *service.spec.external_ips]
    if service.spec.external_name:
        found.append(service.spec.external_name)
    if not found and service.spec.type is api.ServiceType.LOAD_BALANCER:
        return "<pending>"
    return _none(",".join(found))


def _labels(labels: Mapping[str, str]) -> str:
    return _none(",".join(f"{key}={value}" for key, value in sorted(labels.items())))


def _phase(pod: api.Pod) -> str:
    return "Terminating" if pod.terminating else str(pod.status.phase)


_NAME: tuple[Column, ...] = (("NAMESPACE", lambda o: o.namespace), ("NAME", lambda o: o.name))

KINDS: Mapping[str, tuple[str, tuple[Column, ...]]] = {
    "pods": (
        "pods",
        (
            *_NAME,
            ("READY", lambda o: "yes" if o.ready else "no"),
            ("STATUS", _phase),
            ("IP", lambda o: _none(",".join(o.ips))),
            ("NODE", lambda o: _none(o.node_name)),
        ),
    ),
    "services": (
        "services",
        (
            *_NAME,
            ("TYPE", lambda o: str(o.spec.type)),
            ("CLUSTER-IP", lambda o: _none(",".join(o.spec.cluster_ips))),
            ("EXTERNAL-IP", _external),
            ("PORT(S)", _ports),
            ("SELECTOR", lambda o: _labels(o.spec.selector)),
        ),
    ),
    "nodes": (
        "nodes",
        (
            ("NAME", lambda o: o.name),
            ("STATUS", lambda o: "Ready" if o.ready else "NotReady"),
            ("INTERNAL-IP", lambda o: _none(",".join(o.addresses))),
            ("POD-CIDR", lambda o: _none(",".join(o.pod_cidrs))),
            ("ZONE", lambda o: _none(o.zone)),
        ),
    ),
    "endpointslices": (
        "endpoint_slices",
        (
            *_NAME,
            ("ADDRESSTYPE", lambda o: str(o.address_type)),
            ("PORTS", lambda o: _none(",".join(str(port.port) for port in o.ports))),
            ("ENDPOINTS", lambda o: _none(",".join(_endpoint(each) for each in o.endpoints))),
        ),
    ),
}
"""What can be listed: the attribute of the objects, and the columns."""

_ALIASES = {
    "pod": "pods", "po": "pods", "service": "services", "svc": "services", "node": "nodes", "no": "nodes",
    "endpointslice": "endpointslices", "eps": "endpointslices", "slices": "endpointslices", "slice": "endpointslices",
}  # fmt: skip


def _endpoint(endpoint: api.Endpoint) -> str:
    return endpoint.address if endpoint.ready else f"{endpoint.address} (not ready)"


def _names(cls: type[api.Object]) -> tuple[str, str]:
    """What a kind is called on kubectl's command line: `networkpolicy` and `networkpolicies`."""
    one = cls.kind.lower()
    if one.endswith("y"):
        return one, f"{one[:-1]}ies"
    return one, f"{one}es" if one.endswith("s") else f"{one}s"


def table(objects: Resolved, kind: str, namespace: str | None) -> Table:
    """The objects of one kind, of all namespaces or of one. Raises `UnknownName` for a kind without a table."""
    wanted = _ALIASES.get(kind.lower(), kind.lower())
    if wanted in KINDS:
        attribute, columns = KINDS[wanted]
        found: tuple[api.Object, ...] = getattr(objects, attribute)
    else:
        cls = next((each for each in api.KINDS.values() if wanted in _names(each)), None)
        if cls is None:
            raise UnknownName("kind", kind, KINDS)
        found = objects.of(cls)
        columns = _NAME if cls.namespaced else _NAME[1:]
    rows = sorted(
        (row for row in found if namespace in (None, row.namespace)), key=lambda row: (row.namespace, row.name)
    )
    return Table(wanted, columns, tuple(rows))
