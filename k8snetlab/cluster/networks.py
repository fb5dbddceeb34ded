"""What does each kind of pod network cost, and what can it do?

    print(networks.table())                    # every CNI with every backend, a line each
    networks.figures("flannel", backend="wireguard").encrypted
    flows = networks.flows(lab, "default/a", "default/b:80")     # a trace on each
    print(networks.beside(flows))                                # and k8s.draw.side_by_side(flows)
    k8s.draw.curves(networks.growth("routes"), title="Routes to other nodes, on a node", across="nodes")

Nothing here is a list of facts. For each network a cluster is compiled and asked: a packet with a payload of 1,000
bytes goes from a pod to one on another node, and what is on the cable then is counted, header by header; its bytes are
searched for the packet inside, to see whether others can read it; nodes are put into different subnets, to see whether
pods still reach each other; and clusters of several sizes are compiled, and what their first node and their router
hold is counted.

What one more node costs is the difference between two clusters. A network that refuses a size (a provider's route
table is short) has no figures there.

Not modelled: memory, processor time, time to converge. Guide sections 2.1 and 5.7.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from k8snetlab import cni
from k8snetlab.address import Prefix
from k8snetlab.cluster import Cluster
from k8snetlab.compile import ROUTER
from k8snetlab.errors import BadOption, UnknownName
from k8snetlab.linux.host import Host
from k8snetlab.linux.link import LinkKind
from k8snetlab.linux.route import Route, RouteType
from k8snetlab.packet import Ethernet, Packet
from k8snetlab.tables import aligned, as_html
from k8snetlab.trace import Action, Client, Trace
from k8snetlab.trace.beside import Side, sides
from k8snetlab.wire import encode

__all__ = [
    "SIZES", "Entries", "Figures", "Networks", "Sides", "beside", "each", "entries", "figures", "flows", "growth",
    "held", "on", "table", "ways",
]  # fmt: skip

SIZES = (2, 3, 10, 50, 200)
"""The cluster sizes that growth is measured at."""

PAYLOAD = 1000
SERVER, PORT = "default/server", 5000

PODS = f"""
apiVersion: v1
kind: Pod
metadata: {{name: client}}
spec: {{nodeName: node-1, containers: [{{name: client, image: client}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: server}}
spec:
  nodeName: node-2
  containers: [{{name: server, image: server, ports: [{{containerPort: {PORT}, protocol: UDP}}]}}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: agent}}
spec:
  selector: {{matchLabels: {{app: agent}}}}
  template:
    metadata: {{labels: {{app: agent}}}}
    spec: {{containers: [{{name: agent, image: agent}}]}}
"""
"""Two pods that talk, and one on each node: some networks know of no node without pods."""

POD_CIDRS: Mapping[int, str] = {4: "100.64.0.0/10", 6: "fd00:64::/44"}
"""Room for the pods of many nodes."""

SERVICE_CIDRS: Mapping[int, str] = {4: "10.96.0.0/12", 6: "fd00:10:96::/108"}


class Entries(msgspec.Struct, frozen=True):
    """What one node holds so that its pods reach those of others, and what the router between the nodes holds for
    them: routes, permanent neighbours and FDB entries of tunnels, peers of WireGuard or IPsec; `cache` are entries of
    the map in which eBPF programs look up who has an address.
    """

    routes: int = 0
    neighbours: int = 0
    fdb: int = 0
    peers: int = 0
    router: int = 0
    cache: int = 0

    @property
    def total(self) -> int:
        """All of them together."""
        return sum(msgspec.structs.astuple(self))

    def __sub__(self, other: Entries) -> Entries:
        mine, theirs = msgspec.structs.astuple(self), msgspec.structs.astuple(other)
        return Entries(*(one - another for one, another in zip(mine, theirs, strict=True)))


class Figures(msgspec.Struct, frozen=True):
    """What was measured of one network. `wire` is the length of the whole frame between nodes, `sent` that of the frame
    which the pod sent, both in bytes; `headers` are those on the wire, outermost first; `across` says whether nodes of
    another subnet are reached; `policies` by what NetworkPolicies are enforced; `one_more` is what each node and the
    router get for one node more.
    """

    name: str
    summary: str
    headers: tuple[str, ...]
    sent: int
    wire: int
    encrypted: bool
    mtu: int
    across: bool
    policies: cni.Enforcement
    three: Entries
    one_more: Entries

    @property
    def encapsulation(self) -> int:
        """Bytes that are added between nodes, padding included."""
        return self.wire - self.sent


class Networks(msgspec.Struct, frozen=True):
    """The figures of several networks, as a table."""

    rows: tuple[Figures, ...]

    def __getitem__(self, name: str) -> Figures:
        """The figures of one network. Raises `UnknownName`."""
        for row in self.rows:
            if row.name == name:
                return row
        raise UnknownName("network", name, (row.name for row in self.rows))

    def __iter__(self) -> Iterator[Figures]:
        return iter(self.rows)

    def as_dict(self) -> dict[str, Any]:
        """The rows as a document."""
        return {"rows": [{**msgspec.to_builtins(row), "encapsulation": row.encapsulation} for row in self.rows]}

    def __str__(self) -> str:
        return aligned([HEAD, *map(_cells, self.rows)])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        kept = ([cell.replace(" ", "\N{NO-BREAK SPACE}") for cell in _cells(row)] for row in self.rows)
        return as_html(HEAD, kept)


def _cells(row: Figures) -> list[str]:
    """How the figures are printed: of each kind of entry how many there are with three nodes, and how many more with
    one node more.
    """
    kinds = Entries.__struct_fields__
    return [
        row.name,
        f"{row.mtu:,}",
        f"{row.encapsulation} B",
        "yes" if row.encrypted else "no",
        "yes" if row.across else "no",
        str(row.policies),
        *(_grows(getattr(row.three, kind), getattr(row.one_more, kind)) for kind in kinds),
    ]


HEAD = [
    "NETWORK",
    "MTU",
    "ADDED",
    "ENCRYPTED",
    "OTHER SUBNETS",
    "POLICIES",
    *(each.upper() for each in Entries.__struct_fields__),
]


def _grows(three: int, more: int) -> str:
    return f"{three} +{more}" if more else str(three)


# Which networks there are


def ways() -> dict[str, Mapping[str, str]]:
    """Every CNI, and every value of its options that decide the way of packets (`backend`, not `hairpin`), the others
    being as usual: the name of the network, and the CNI with its options.
    """
    found: dict[str, Mapping[str, str]] = {}
    for name, variant in cni.VARIANTS.items():
        deciding = [option for option in variant({}).options if option.way]
        if not deciding:
            found[name] = {"cni": name}
        for option in deciding:
            for value in option.values:
                if option is not deciding[0] and value == option.default:
                    continue
                found[f"{name} {_worded(option.name, value)}"] = {"cni": name, option.name: str(value)}
    return found


def _worded(option: str, value: str) -> str:
    """A choice as a word: that of the value, or of an option that is on."""
    return option if value == "on" else str(value)


def on(cluster: Cluster, network: str, **options: str) -> Cluster:
    """The same cluster on one of these networks, by its name, with more options of its CNI. Raises `UnknownName`, and
    `BadOption` where the network does not fit the cluster.
    """
    known = ways()
    if network not in known:
        raise UnknownName("network", network, known)
    chosen = {**known[network], **options}
    return cluster.changed(cni=chosen.pop("cni"), cni_options=chosen)


def each(cluster: Cluster) -> dict[str, Cluster]:
    """The same cluster on every one of these networks, by its name."""
    return {name: on(cluster, name) for name in ways()}


# One flow on all of them


class Sides(msgspec.Struct, frozen=True):
    """One flow on several networks, as a table."""

    rows: tuple[Side, ...]

    def __getitem__(self, name: str) -> Side:
        """The flow on one network. Raises `UnknownName`."""
        for row in self.rows:
            if row.name == name:
                return row
        raise UnknownName("network", name, (row.name for row in self.rows))

    def __iter__(self) -> Iterator[Side]:
        return iter(self.rows)

    def __str__(self) -> str:
        return aligned([["NETWORK", "CLIENT", "BYTES", "ADDED", "HEADERS", "TTL", "DEVICES"], *map(_told, self.rows)])

    def __repr__(self) -> str:
        return str(self)


def _told(side: Side) -> list[str]:
    headers = [header.layer for header in side.wire.headers] if side.wire is not None else []
    return [
        side.name,
        str(side.trace.client),
        f"{side.wire.length:,}" if side.wire is not None else "-",
        f"+{side.added}",
        " ".join(headers) or "-",
        f"-{side.spent}" if side.spent else "0",
        str(sum(len(hop.devices) for hop in side.hops)),
    ]


def flows(cluster: Cluster, source: str, target: str, **asked: Any) -> dict[str, Trace]:
    """The same flow on each of these networks, by its name; `asked` is what `Cluster.trace` takes beside its ends.
    A network that gives pods no addresses of the family that is asked for, else of the cluster's first, is left out.
    """
    of = asked.get("family") or cluster.objects.networks.families[0]
    there = (name for name, options in ways().items() if _has(options["cni"], of))
    return {name: on(cluster, name).trace(source, target, **asked) for name in there}


def beside(traces: Mapping[str, Trace]) -> Sides:
    """Traces of one flow side by side: how the client fared, the bytes and headers of the largest frame, what was taken
    off the time to live, and how many devices of machines were passed (`rows` names them).
    """
    return Sides(sides(traces))


# Measuring


@lru_cache(maxsize=256)
def _cluster(plugin: str, options: tuple[tuple[str, str], ...], nodes: int, of: int, subnets: int = 1) -> Cluster:
    zones = {4: "172.18.{}.0/24", 6: "fd00:172:{}::/64"}[of] if subnets > 1 else ""
    return Cluster.load(
        PODS if nodes > 1 else "",
        cni=plugin,
        cni_options=dict(options),
        nodes=nodes,
        pod_cidr=POD_CIDRS[of],
        service_cidr=SERVICE_CIDRS[of],
        node_cidr=",".join(zones.format(number) for number in range(1, subnets + 1)) if zones else "",
    )


def figures(plugin: str, *, family: int = 4, **options: str) -> Figures:
    """What is measured of a CNI with these options, for pods of family 4 or 6. Raises `BadOption`."""
    held = tuple(sorted(options.items()))
    small = _cluster(plugin, held, 2, family)
    trace = _asked(small, family)
    sent = next(step.packet for step in trace.steps if step.action is Action.TRANSMIT)
    wire = max(_on_cables(small, trace), key=lambda frame: frame.length)
    return Figures(
        name=" ".join((plugin, *(_worded(option, value) for option, value in held))),
        summary=small.plugin.summary,
        headers=tuple(type(header).__name__ for header in wire.headers),
        sent=sent.length,
        wire=wire.length,
        encrypted=encode(wire.innermost) not in encode(wire),
        mtu=small.network[SERVER].link("eth0").mtu,
        across=_asked(_cluster(plugin, held, 2, family, 2), family).client is Client.OPEN,
        policies=small.plugin.policies.backend,
        three=entries(plugin, 3, family=family, **options),
        one_more=entries(plugin, 4, family=family, **options) - entries(plugin, 3, family=family, **options),
    )


def _asked(cluster: Cluster, of: int) -> Trace:
    return cluster.trace("default/client", f"{SERVER}:{PORT}/UDP", size=PAYLOAD, family=of)


def _on_cables(cluster: Cluster, trace: Trace) -> Iterator[Packet]:
    """The frames that passed a switch between the nodes."""
    for step in trace.steps:
        if cluster.network[step.where].kind == "switch" and isinstance(step.packet.headers[0], Ethernet):
            yield step.packet


def entries(plugin: str, nodes: int, *, family: int = 4, **options: str) -> Entries:
    """What the first of so many nodes, all on one subnet, and the router hold for the pods of other nodes. Raises
    `BadOption` where the CNI refuses so many.
    """
    return held(_cluster(plugin, tuple(sorted(options.items())), nodes, family), "node-1", family)


def held(cluster: Cluster, name: str, family: int = 4) -> Entries:
    """What one node of any cluster, and the router, hold for the pods of other nodes, in one family. Raises
    `UnknownName`; a family that pods do not have has no entries.
    """
    node, router = cluster.network[cluster.objects.node(name).name], cluster.network[ROUTER]
    plan = cluster.layout.cni_plan
    if family not in plan.families:
        return Entries()
    pods, own = plan.pod_cidr(family), cluster.layout.machines[node.name].pod_cidrs
    tunnels = {link.name for link in node.links if link.kind not in AT_HOME}
    return Entries(
        routes=sum(1 for route in node.routes if _leads_to(route, pods, () if _elsewhere(route, node) else own)),
        neighbours=sum(1 for entry in node.neighbours if entry.device in tunnels),
        fdb=sum(1 for entry in node.fdb if entry.device in tunnels),
        peers=len(node.wireguard) + (len(node.xfrm.states) // 2 if node.xfrm is not None else 0),
        router=sum(1 for route in router.routes if _leads_to(route, pods)),
        cache=sum(1 for each in node.datapath.known if each.tunnel) if node.datapath is not None else 0,
    )


AT_HOME = (LinkKind.LOOPBACK, LinkKind.BRIDGE, LinkKind.VETH, LinkKind.DUMMY)
"""Devices that lead to what is on the node itself."""


def _elsewhere(route: Route, node: Host) -> bool:
    """Whether its gateway is another machine. An address that another node has borrowed is such a route, although it is
    out of the node's own part of the pod network.
    """
    return bool(route.via) and route.via not in node.owned


def _leads_to(route: Route, pods: Prefix, own: Sequence[Prefix] = ()) -> bool:
    """Whether it is a route to pods of others: into the pod network, and not only to one's own part of it."""
    block = route.block()
    within = [each for each in (pods, *own) if block.length >= each.length and each.contains(block.network)]
    return within == [pods] and route.type is RouteType.UNICAST


# All of them


def table(family: int = 4) -> Networks:
    """The figures of every network that gives pods addresses of that family."""
    there = (options for options in ways().values() if _has(options["cni"], family))
    return Networks(tuple(figures(family=family, **_words(options)) for options in there))


def _has(plugin: str, family: int) -> bool:
    """Whether a CNI has addresses of that family: one with pools of its own may not."""
    pools = cni.own_pools(cni.named(plugin))
    return not pools or any(pool.family == family for pool in pools)


def _words(options: Mapping[str, str]) -> dict[str, Any]:
    return {("plugin" if name == "cni" else name): value for name, value in options.items()}


def growth(what: str, sizes: Sequence[int] = SIZES, *, family: int = 4) -> dict[str, dict[int, int]]:
    """How a kind of entry (`routes`, `neighbours`, `fdb`, `peers`, `router`) grows with the number of nodes: values by
    size for each network, as `draw.curves` takes them. Networks that grow alike share a curve. A size that a network
    refuses has no value. Raises `BadOption` for no such kind.
    """
    if what not in Entries.__struct_fields__:
        raise BadOption(f"{what!r} is none of {', '.join(Entries.__struct_fields__)}")
    alike: dict[tuple[tuple[int, int], ...], list[str]] = {}
    for name, options in ways().items():
        points = tuple(_points(what, sizes, {**_words(options), "family": family}))
        alike.setdefault(points, []).append(name)
    return {", ".join(names): dict(points) for points, names in alike.items()}


def _points(what: str, sizes: Sequence[int], options: Mapping[str, Any]) -> Iterator[tuple[int, int]]:
    for nodes in sizes:
        try:
            held = entries(nodes=nodes, **options)
        except BadOption:
            return
        yield nodes, getattr(held, what)
