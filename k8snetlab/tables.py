"""What would `kubectl get` print?

A `Table` holds objects and prints columns. The columns are those of kubectl's wide output as far as they concern the
network; a node's pod range and zone, which kubectl hides in other commands, stand beside its address.

Not modelled: ages, restarts, images, the columns of kinds that the network does not see. Guide section 1.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
        return as_html([name for name, _ in self.columns], self.cells())


def as_html(names: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows of cells under the names of their columns, as a browser's table."""
    head = "".join(f"<th style='text-align:left'>{name}</th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td style='text-align:left'>{_escaped(cell)}</td>" for cell in row) + "</tr>" for row in rows
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


_ENDED = {api.PodPhase.SUCCEEDED: "Completed", api.PodPhase.FAILED: "Error"}


def _status(pod: api.Pod) -> str:
    phase = pod.status.phase or api.PodPhase.PENDING
    return "Terminating" if pod.terminating else _ENDED.get(phase, str(phase))


def _ready(pod: api.Pod) -> str:
    """Ready containers of all that stay. Where no status says which, they are ready as the pod is."""
    count = sum(1 for _ in pod.listeners())
    if pod.completed:
        return f"0/{count}"
    said = pod.status.container_statuses
    if isinstance(said, list | tuple) and not pod.ready:
        return f"{sum(1 for each in said if isinstance(each, Mapping) and each.get('ready') is True)}/{count}"
    return f"{count if pod.ready else 0}/{count}"


def _slice_ports(piece: api.EndpointSlice) -> str:
    return _some(["*" if port.port is None else str(port.port) for port in piece.ports], "<unset>")


def _in_slice(piece: api.EndpointSlice) -> str:
    """Addresses; kubectl does not say which of them are not ready."""
    told = [each.address if each.ready else f"{each.address} (not ready)" for each in piece.endpoints]
    return _some(told, "<unset>")


def _in_endpoints(each: api.Endpoints) -> str:
    """Addresses with their ports; kubectl leaves out those that are not ready, and so does this."""
    found = []
    for subset in each.subsets:
        for port in subset.ports or (None,):
            for address in subset.addresses:
                ip = f"[{address.ip}]" if ":" in address.ip and port is not None else address.ip
                found.append(ip if port is None else f"{ip}:{port.port}")
    return _some(found, "<none>")


def _some(told: Sequence[str], nothing: str) -> str:
    """The first three, and how many more there are."""
    more = f" + {len(told) - _SHOWN} more..." if len(told) > _SHOWN else ""
    return ",".join(told[:_SHOWN]) + more if told else nothing


def _hostnames(route: Any) -> str:
    """As JSON, which is how kubectl prints a list of a custom resource."""
    return msgspec.json.encode(route.spec.hostnames).decode() if route.spec.hostnames else ""


_SHOWN = 3
"""How many addresses kubectl prints in a line."""


_NAME: tuple[Column, ...] = (("NAMESPACE", lambda o: o.namespace), ("NAME", lambda o: o.name))

KINDS: Mapping[str, tuple[Column, ...]] = {
    "pods": (
        *_NAME,
        ("READY", _ready),
        ("STATUS", _status),
        ("IP", lambda o: _none(",".join(o.ips))),
        ("NODE", lambda o: _none(o.node_name)),
    ),
    "services": (
        *_NAME,
        ("TYPE", lambda o: str(o.spec.type)),
        ("CLUSTER-IP", lambda o: _none(",".join(o.spec.cluster_ips))),
        ("EXTERNAL-IP", _external),
        ("PORT(S)", _ports),
        ("SELECTOR", lambda o: _labels(o.spec.selector)),
    ),
    "nodes": (
        ("NAME", lambda o: o.name),
        ("STATUS", lambda o: "Ready" if o.ready else "NotReady"),
        ("INTERNAL-IP", lambda o: _none(",".join(o.addresses))),
        ("POD-CIDR", lambda o: _none(",".join(o.pod_cidrs))),
        ("ZONE", lambda o: _none(o.zone)),
    ),
    "endpointslices": (
        *_NAME,
        ("ADDRESSTYPE", lambda o: str(o.address_type)),
        ("PORTS", _slice_ports),
        ("ENDPOINTS", _in_slice),
    ),
    "endpoints": (*_NAME, ("ENDPOINTS", _in_endpoints)),
    "networkpolicies": (*_NAME, ("POD-SELECTOR", lambda o: str(o.spec.pod_selector))),
    "clusternetworkpolicies": (
        ("NAME", lambda o: o.name),
        ("TIER", lambda o: str(o.spec.tier)),
        ("PRIORITY", lambda o: str(o.spec.priority)),
    ),
    "gatewayclasses": (
        ("NAME", lambda o: o.name),
        ("CONTROLLER", lambda o: o.spec.controller_name),
        ("ACCEPTED", lambda o: o.accepted),
    ),
    "gateways": (
        *_NAME,
        ("CLASS", lambda o: o.spec.gateway_class_name),
        ("ADDRESS", lambda o: ",".join(o.addresses)),
        ("PROGRAMMED", lambda o: o.programmed),
    ),
    "httproutes": (*_NAME, ("HOSTNAMES", _hostnames)),
    "grpcroutes": (*_NAME, ("HOSTNAMES", _hostnames)),
}
"""The columns of the kinds that have more than a name."""

_SHORT = {
    "po": "pods", "svc": "services", "no": "nodes", "slice": "endpointslices", "slices": "endpointslices",
    "ep": "endpoints", "cj": "cronjobs", "cm": "configmaps", "cnp": "clusternetworkpolicies",
    "deploy": "deployments", "ds": "daemonsets",
    "ing": "ingresses", "netpol": "networkpolicies", "ns": "namespaces", "rs": "replicasets",
    "sa": "serviceaccounts", "sts": "statefulsets",
    "gc": "gatewayclasses", "gtw": "gateways", "refgrant": "referencegrants",
}  # fmt: skip
"""kubectl's short names of kinds, and ours for EndpointSlices."""


def _names(cls: type[api.Object]) -> tuple[str, str]:
    """What a kind is called on kubectl's command line: `networkpolicy` and `networkpolicies`."""
    one = cls.kind.lower()
    if cls is api.Endpoints:
        return one, one
    if one.endswith("y") and not one.endswith("ay"):
        return one, f"{one[:-1]}ies"
    return one, f"{one}es" if one.endswith("s") else f"{one}s"


def table(objects: Resolved, kind: str, namespace: str | None) -> Table:
    """The objects of one kind, of all namespaces or of one. Raises `UnknownName` for a kind without a table."""
    wanted = _SHORT.get(kind.lower(), kind.lower())
    cls = next((each for each in api.KINDS.values() if wanted in _names(each)), None)
    if cls is None:
        raise UnknownName("kind", kind, (_names(each)[1] for each in api.KINDS.values()))
    name = _names(cls)[1]
    columns = KINDS.get(name, _NAME if cls.namespaced else _NAME[1:])
    found = (row for row in objects.of(cls) if namespace in (None, row.namespace))
    return Table(name, columns, tuple(sorted(found, key=lambda row: (row.namespace, row.name))))
