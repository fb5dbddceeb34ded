"""One cluster, as a value.

    shop = Cluster.load("bookshop/")
    shop.trace("shop/web-0", "svc/shop/api:80")
    shop.changed(cni="bridge").diff(shop)

A cluster is what was read (manifests), what was chosen (`Options`) and what was done to its machines (overlays).
Everything else — pods, addresses, slices, devices, routes, rules — is computed from these when it is first asked for,
and kept. A what-if is another value: nothing here changes.

Not modelled: time. What needs it (connections that stay, affinity) lives in `Cluster.session`. Guide sections 1.1 and
1.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from k8snetlab import api, cni, controllers
from k8snetlab.address import AddressPlan, Prefix, Range
from k8snetlab.compile import OUTSIDE, Layout, client_address, compiled
from k8snetlab.difference import Difference, difference
from k8snetlab.errors import BadOption, LabError, Problem, UnknownName
from k8snetlab.flows import Curl, Session, Terrain, asked, curl, trace, where_of
from k8snetlab.linux import text
from k8snetlab.linux.host import Entry, Host, Network
from k8snetlab.tables import Table, table
from k8snetlab.trace import Trace

__all__ = ["Cluster", "Machine", "Options", "Overlay", "example"]

Source: TypeAlias = str | Path | Mapping[str, Any] | api.Object
"""What a cluster is loaded from: a file, a folder, YAML or JSON text, a dict, or an object."""


class Options(msgspec.Struct, frozen=True):
    """What the manifests do not say. CIDRs are comma separated: one a family, or for nodes one an underlay subnet.

    Empty means the usual ones (172.18.0.0/16, 10.244.0.0/16, 10.96.0.0/12), or what a dump's objects show.
    """

    cni: str = "flannel"
    cni_options: tuple[tuple[str, str], ...] = ()
    proxy: str = "iptables"
    nodes: int = 3
    pod_cidr: str = ""
    service_cidr: str = ""
    node_cidr: str = ""
    seed: int = 0


class Overlay(msgspec.Struct, frozen=True):
    """A named change of the machines' state, applied after compiling. It survives `Cluster.changed`."""

    name: str
    apply: Callable[[Terrain], Network]


class Cluster(msgspec.Struct, frozen=True, dict=True):
    """A cluster of machines, computed from objects. Build one with `Cluster.load`."""

    manifests: api.Manifests
    options: Options = Options()
    overlays: tuple[Overlay, ...] = ()

    @classmethod
    def load(cls, *sources: Source, **options: Any) -> Cluster:
        """Read manifests (files, folders, `-`, text, dicts, objects) with the choices of `Options`.

        Raises `ManifestError` naming file, line, object and field; `BadOption`, `Overlap`, `AddressInUse` or
        `PoolExhausted` when the cluster cannot be built of them.
        """
        cluster = cls(api.load(*sources), chosen(Options(), options))
        _ = cluster.network
        return cluster

    # What follows

    @cached_property
    def objects(self) -> controllers.Resolved:
        """Every object as the controllers leave it: pods with nodes and addresses, Services with theirs, slices."""
        return controllers.resolved(self.manifests, _plan(self.options))

    @cached_property
    def layout(self) -> Layout:
        """Who stands where on the underlay."""
        return Layout(self.objects)

    @cached_property
    def plugin(self) -> cni.Cni:
        """The CNI."""
        return cni.named(self.options.cni, dict(self.options.cni_options))

    @cached_property
    def network(self) -> Network:
        """The state of every machine, with the overlays applied in their order."""
        try:
            network = compiled(self.layout, self.plugin, self.options.proxy)
        except LabError as error:
            raise error.placed(self.manifests.placed) from None
        for overlay in self.overlays:
            network = overlay.apply(Terrain(self.objects, self.layout, network))
        return network

    @property
    def terrain(self) -> Terrain:
        """What a packet is sent through."""
        return Terrain(self.objects, self.layout, self.network)

    # Questions

    def trace(
        self,
        source: str,
        target: str,
        *,
        seed: int | None = None,
        via: str | None = None,
        family: int | None = None,
        size: int = 0,
        df: bool = True,
    ) -> Trace:
        """The walk of one packet from WHO to WHAT and back, beginning with empty conntrack.

        `source` is `NAMESPACE/POD`, `deploy/NAMESPACE/NAME`, `node/NAME`, `external` or `external:IP`; `target` is
        `svc/NAMESPACE/NAME:PORT`, `NAMESPACE/POD:PORT`, `node/NAME:PORT`, `IP:PORT` or a DNS name with `:PORT`, with
        `/UDP` or `/SCTP` after it. `via` names the node where outside traffic arrives; `size` is the payload in
        bytes, `df` forbids to cut it. Raises `UnknownName` and `BadOption`.
        """
        question = asked(self.terrain, source, target, via=via, of=family, size=size, df=df)
        return trace(self.terrain, question, self.options.seed if seed is None else seed)

    def curl(
        self, source: str, url: str, *, seed: int | None = None, via: str | None = None, family: int | None = None
    ) -> Curl:
        """Connect, ask and get an answer: `url` is WHAT as in `trace`, or `http://WHERE[:PORT]/…`."""
        question = asked(self.terrain, source, where_of(url), via=via, of=family)
        return curl(self.terrain, question, self.options.seed if seed is None else seed)

    def session(self, *, seed: int = 0, now: float = 0.0) -> Session:
        """A place where connections, affinity and time live."""
        return Session(self.terrain, seed, now)

    def get(self, kind: str, namespace: str | None = None) -> Table:
        """A table like `kubectl get`; its rows are objects. Raises `UnknownName` for a kind that has no table."""
        return table(self.objects, kind, namespace)

    def host(self, name: str) -> Machine:
        """Any machine: `shop/web-0`, `node-1`, `router`. Raises `UnknownName`."""
        return Machine(self.network.host(name))

    def node(self, name: str) -> Machine:
        """A node. Raises `UnknownName`."""
        return self.host(self.objects.node(name).name)

    @cached_property
    def plan(self) -> AddressPlan:
        """All networks of the cluster and who holds which address (guide section 1.2)."""
        return _address_plan(self)

    def diff(self, other: Cluster) -> Difference:
        """What `other` has that this cluster has not, and the other way round, machine by machine."""
        return difference(self.network, other.network)

    # What-ifs

    def changed(self, **options: Any) -> Cluster:
        """Another cluster of the same manifests with other options: `changed(cni="bridge")`. Overlays stay."""
        cluster = Cluster(self.manifests, chosen(self.options, options), self.overlays)
        _ = cluster.network
        return cluster

    def applied(self, *sources: Source) -> Cluster:
        """Another cluster with these objects added, or put in the place of their namesakes."""
        return Cluster(self.manifests.replacing(api.load(*sources)), self.options, self.overlays)

    def deleted(self, kind: str, name: str) -> Cluster:
        """Another cluster without one object of the manifests: `deleted("Service", "shop/api")`. Raises
        `UnknownName`.
        """
        return Cluster(self.manifests.without(kind, name), self.options, self.overlays)

    def overlaid(self, name: str, apply: Callable[[Terrain], Network]) -> Cluster:
        """Another cluster whose machines are changed by a function, after compiling."""
        return Cluster(self.manifests, self.options, (*self.overlays, Overlay(name, apply)))

    def repaired(self, name: str) -> Cluster:
        """Another cluster without the overlays of that name. Raises `UnknownName`."""
        kept = tuple(overlay for overlay in self.overlays if overlay.name != name)
        if len(kept) == len(self.overlays):
            raise UnknownName("overlay", name, (overlay.name for overlay in self.overlays))
        return Cluster(self.manifests, self.options, kept)

    def without(self, host: str, entry: Entry) -> Cluster:
        """Another cluster in which one machine lacks a route, rule, neighbour, FDB entry, link or listener."""
        _ = self.network.without(host, entry)
        return self.overlaid(f"{host} without {entry}", lambda terrain: terrain.network.without(host, entry))

    def with_hosts(self, *hosts: Host) -> Cluster:
        """Another cluster with these machines in the place of their namesakes."""
        return self.overlaid(", ".join(host.name for host in hosts), lambda terrain: terrain.network.replacing(*hosts))

    def sysctl(self, host: str, key: str, value: int) -> Cluster:
        """Another cluster in which one machine has another kernel setting: `sysctl("node-1", "net.ipv4.ip_forward",
        0)`.
        """
        self.network.host(host).sysctl(key)

        def apply(terrain: Terrain) -> Network:
            machine = terrain.network.host(host)
            return terrain.network.replacing(msgspec.structs.replace(machine, sysctls={**machine.sysctls, key: value}))

        return self.overlaid(f"{host}: {key} = {value}", apply)

    def __repr__(self) -> str:
        counts = (
            f"{len(self.objects.nodes)} nodes, {len(self.objects.pods)} pods, {len(self.objects.services)} Services"
        )
        overlays = f", changed: {'; '.join(overlay.name for overlay in self.overlays)}" if self.overlays else ""
        return f"<Cluster {self.options.cni}/{self.options.proxy}: {counts}{overlays}>"


class Machine(msgspec.Struct, frozen=True):
    """A machine of the cluster, to look at with the real tools' eyes."""

    host: Host

    def show(self, what: str) -> str:
        """The state of one kind, printed like the real tool: one of `SHOWN`. Raises `UnknownName`."""
        if what not in SHOWN:
            raise UnknownName("kind of state", what, SHOWN)
        return SHOWN[what](self.host)

    def __repr__(self) -> str:
        return f"<Machine {self.host.name}: {len(self.host.links)} links, {len(self.host.routes)} routes>"


SHOWN: Mapping[str, Callable[[Host], str]] = {
    "addresses": text.ip_addr,
    "links": text.ip_link,
    "routes": text.ip_route,
    "routes6": lambda host: text.ip_route(host, 6),
    "rules": text.ip_rule,
    "neighbours": text.ip_neigh,
    "fdb": text.bridge_fdb,
    "iptables": lambda host: text.iptables_save(host.netfilter.ipv4),
    "ip6tables": lambda host: text.iptables_save(host.netfilter.ipv6),
    "sysctls": lambda host: "\n".join(f"{key} = {value}" for key, value in sorted(host.sysctls.items())),
}
"""What a machine can show, and how."""


def chosen(options: Options, given: Mapping[str, Any]) -> Options:
    """Options with some of them changed. Raises `BadOption` naming what exists."""
    known = Options.__struct_fields__
    for name in given:
        if name not in known:
            raise BadOption(Problem(f"there is no option {name!r}; there are {', '.join(known)}", field=name))
    values = dict(given)
    if "cni_options" in values:
        values["cni_options"] = tuple(sorted((key, str(value)) for key, value in dict(values["cni_options"]).items()))
    elif "cni" in values and values["cni"] != options.cni:
        values["cni_options"] = ()
    for name in ("pod_cidr", "service_cidr", "node_cidr"):
        if name in values:
            values[name] = values[name] if isinstance(values[name], str) else ",".join(map(str, values[name]))
    if not isinstance(values.get("nodes", 1), int) or not 1 <= values.get("nodes", 1) <= 5000:
        raise BadOption(Problem(f"{values['nodes']!r} is no number of nodes from 1 to 5000", field="nodes"))
    return msgspec.structs.replace(options, **values)


def _plan(options: Options) -> controllers.Plan:
    return controllers.Plan(
        nodes=options.nodes,
        node_cidrs=_blocks(options.node_cidr, "node_cidr"),
        pod_cidrs=_blocks(options.pod_cidr, "pod_cidr"),
        service_cidrs=_blocks(options.service_cidr, "service_cidr"),
    )


def _blocks(text: str, field: str) -> tuple[Prefix, ...]:
    return tuple(Prefix.of(part.strip(), strict=True, field=field) for part in text.split(",") if part.strip())


def _address_plan(cluster: Cluster) -> AddressPlan:
    objects, layout = cluster.objects, cluster.layout
    ranges: list[Range] = [
        Range(segment.switch.replace("switch", "underlay"), "underlay", block)
        for segment in layout.segments
        for block in segment.blocks
    ]
    ranges.extend(Range("pods", "pods", block) for block in objects.networks.pods)
    ranges.extend(
        Range(f"pods of {name}", "node pods", block)
        for name, machine in layout.machines.items()
        for block in machine.pod_cidrs
    )
    ranges.extend(Range("Services", "services", block) for block in objects.networks.services)
    ranges.extend(Range("outside", "outside", block) for block in OUTSIDE)
    return AddressPlan(tuple(ranges), dict(_owners(cluster)))


def _owners(cluster: Cluster) -> Iterable[tuple[str, str]]:
    objects, layout = cluster.objects, cluster.layout
    for segment in layout.segments:
        for address in segment.gateways:
            yield address, "the router, the gateway of the nodes"
    for of in (4, 6):
        yield client_address(of), "a client outside"
    for station in layout.stations.values():
        for address in station.addresses:
            yield address, f"node {station.name}" if station.name in layout.nodes else station.name
    for name in layout.nodes:
        for address, device in cluster.network[name].owned.items():
            if device not in ("lo", "eth0"):
                yield address, f"the device {device} of node {name}"
    for workloads in layout.workloads.values():
        for pod in workloads:
            for address in pod.addresses:
                yield address, f"pod {pod.name}"
    for service in objects.services:
        for address in service.cluster_ips:
            yield address, f"Service {service.namespace}/{service.name}: on no interface anywhere, only in rules"


def example(name: str, **options: Any) -> Cluster:
    """An example that comes with the package: `example("bookshop")`, or any file or folder under `data/`.

    Raises `UnknownName` naming what there is.
    """
    root = examples_folder()
    for candidate in (
        root / name,
        root / f"{name}.yaml",
        root / "manifests" / name,
        root / "manifests" / f"{name}.yaml",
    ):
        if candidate.exists() and root in candidate.resolve().parents:
            return Cluster.load(candidate, **options)
    raise UnknownName("example", name, _examples(root))


def _examples(root: Path) -> Iterable[str]:
    for path in sorted(root.iterdir()):
        if path.is_dir() and path.name != "manifests":
            yield path.name
    for path in sorted(root.glob("manifests/*.yaml")):
        yield path.stem


def examples_folder() -> Path:
    """Where the examples are: beside the package in a clone, inside it in an installed wheel."""
    here = Path(__file__).resolve().parent
    for folder in (here / "_data", here.parent / "data"):
        if folder.is_dir():
            return folder
    raise LabError("the examples are missing: neither k8snetlab/_data nor data/ is there")
