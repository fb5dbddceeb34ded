"""One cluster, as a value.

    shop = Cluster.load("bookshop/")
    shop.trace("shop/web-0", "svc/shop/api:80")
    shop.changed(cni="bridge").diff(shop)

A cluster is what was read (manifests), what was chosen (`Options`), what was done to its machines (overlays), and what
its API server has given to Services so far (a registry: no address moves because another Service comes or goes).
Everything else — pods, addresses, slices, devices, routes, rules — is computed from these when it is first asked for,
and kept. A what-if is another value: nothing here changes. Where only the overlays differ, the other value begins with
the same compiled machines, so that taking one route away does not compile anything again. A fault (`faults`) is an
overlay too; some of them choose otherwise (a BGP session that is down), or write otherwise (a selector that nobody
has), rather than change machines.

Not modelled: time. What needs it (connections that stay, affinity) lives in `Cluster.session`. Guide sections 1.1 and
1.2.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

import msgspec

from k8snetlab import api, cni, controllers
from k8snetlab.address import AddressPlan, canonical
from k8snetlab.api.patch import Patch
from k8snetlab.cluster import requests
from k8snetlab.cluster.examples import example_path, example_zone, examples_folder
from k8snetlab.cluster.machine import SHOWN, Machine
from k8snetlab.cluster.options import Options, chosen, plan_of
from k8snetlab.cluster.requests import Answer, Asked, Change
from k8snetlab.compile import Layout, address_plan, compiled
from k8snetlab.difference import Difference, difference
from k8snetlab.errors import BadOption, CannotDo, LabError, Problem, UnknownName
from k8snetlab.flows import Curl, Session, Terrain, asked, curl, name_in, request_of, trace, where_of
from k8snetlab.linux import text
from k8snetlab.linux.host import Entry, Host, Network
from k8snetlab.services.slices import MOST_ENDPOINTS
from k8snetlab.tables import Table, table
from k8snetlab.trace import Trace

if TYPE_CHECKING:  # what few questions need is loaded by these
    from k8snetlab.cni.hubble import Flow
    from k8snetlab.cni.protocol import Conversation
    from k8snetlab.dns import Record, ResolvConf, Server
    from k8snetlab.dns.external import Owning, Plan
    from k8snetlab.dns.wanted import Reading
    from k8snetlab.dns.zone import Zone
    from k8snetlab.flows.resolution import Resolution
    from k8snetlab.policies.engine import PolicyVerdict
    from k8snetlab.policies.explain import Change as PolicyChange
    from k8snetlab.policies.findings import Finding
    from k8snetlab.policies.matrix import Reach
    from k8snetlab.policies.plan import Policies
    from k8snetlab.services.churn import Ledger

__all__ = ["SHOWN", "Answer", "Cluster", "Machine", "Options", "Overlay", "example", "example_zone", "examples_folder"]

Source: TypeAlias = str | Path | Mapping[str, Any] | api.Object
"""What a cluster is loaded from: a file, a folder, YAML or JSON text, a dict, or an object."""


class Overlay(Protocol):
    """A named change that survives `Cluster.changed`: of what was written and chosen, before compiling, and of the
    machines' state, after it.
    """

    @property
    def name(self) -> str:
        """What `Cluster.repaired` takes it away by."""
        ...

    def revise(self, manifests: api.Manifests) -> api.Manifests:
        """The manifests with what it makes of them; the same value where that is nothing."""
        ...

    def choose(self, options: Options) -> Options:
        """The options with what it makes of them."""
        ...

    def apply(self, terrain: Terrain) -> Network:
        """The machines with what it makes of them."""
        ...


class Retouched(msgspec.Struct, frozen=True):
    """An overlay that changes machines only, by a function."""

    name: str
    apply: Callable[[Terrain], Network]

    def revise(self, manifests: api.Manifests) -> api.Manifests:
        """Nothing is written otherwise."""
        return manifests

    def choose(self, options: Options) -> Options:
        """Nothing is chosen otherwise."""
        return options


class Cluster(msgspec.Struct, frozen=True, dict=True):
    """A cluster of machines, computed from objects. Build one with `Cluster.load`."""

    manifests: api.Manifests
    options: Options = Options()
    overlays: tuple[Overlay, ...] = ()
    registry: controllers.Registry = controllers.Registry()
    asked: tuple[Asked, ...] = ()

    @classmethod
    def load(cls, *sources: Source, **options: Any) -> Cluster:
        """Read manifests (files, folders, `-`, text, dicts, objects) with the choices of `Options`.

        Raises `ManifestError` naming file, line, object and field; `BadOption`, `Overlap`, `AddressInUse` or
        `PoolExhausted` when the cluster cannot be built of them.
        """
        return _built(cls(api.load(*sources), chosen(Options(), options)))

    # What follows

    @cached_property
    def objects(self) -> controllers.Resolved:
        """Every object as the controllers leave it: pods with nodes and addresses, Services with theirs, slices."""
        ipam = cni.ipam_of(self.plugin)
        return controllers.resolved(self.revised, self._plan, ipam, self.registry)

    @cached_property
    def revised(self) -> api.Manifests:
        """The manifests, with what the overlays make of them."""
        found = self.manifests
        for overlay in self.overlays:
            found = overlay.revise(found)
        return found

    @cached_property
    def choices(self) -> Options:
        """The options, with what the overlays make of them."""
        found = self.options
        for overlay in self.overlays:
            found = overlay.choose(found)
        return found

    @property
    def _plan(self) -> controllers.Plan:
        return msgspec.structs.replace(plan_of(self.choices), cni_pools=cni.own_pools(self.plugin))

    @cached_property
    def answer(self) -> Answer:
        """What the API server answered to the `applied`, `patched` or `deleted` that made this cluster: the objects
        with defaults and everything allocated. `print` it for YAML; empty after any other change.
        """
        return Answer.of(self.asked, self.objects)

    @cached_property
    def layout(self) -> Layout:
        """Who stands where on the underlay."""
        choices = self.choices
        return Layout(self.objects, choices.load_balancer, choices.dns, choices.world)

    @cached_property
    def plugin(self) -> cni.Cni:
        """The CNI."""
        return cni.named(self.choices.cni, dict(self.choices.cni_options))

    @cached_property
    def compiled(self) -> Network:
        """The state of every machine as manifests and options have it, before any overlay changes it."""
        try:
            return compiled(self.layout, self.plugin, self.choices.proxy, dict(self.choices.proxy_options))
        except LabError as error:
            raise error.placed(self.manifests.placed) from None

    @cached_property
    def network(self) -> Network:
        """The state of every machine, with the overlays applied in their order."""
        network = self.compiled
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
        found = trace(self.terrain, question, self.options.seed if seed is None else seed)
        return msgspec.structs.replace(found, remarks=partial(self._unheeded, found))

    def _unheeded(self, found: Trace) -> tuple[str, ...]:
        from k8snetlab.cluster.notes import unheeded

        return unheeded(self.objects, self.policies, found)

    def curl(
        self,
        source: str,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        seed: int | None = None,
        via: str | None = None,
        family: int | None = None,
    ) -> Curl:
        """Look the name up, connect, ask and get an answer: `url` is WHAT as in `trace`, or `http://WHERE[:PORT]/…`.
        Only names are looked up, not Services or pods by their own (`svc/shop/api:80`). `method` and `headers` matter
        to proxies that read requests for a policy.
        """
        what, drawn = where_of(url), self.options.seed if seed is None else seed
        request = request_of(url, method, headers)
        name = name_in(what)
        if not name:
            return curl(self.terrain, asked(self.terrain, source, what, via=via, of=family), drawn, request)
        types = {4: "A", 6: "AAAA"}
        lookup = self.resolve(source, name, type=types.get(family) if family else None, seed=drawn)
        if not lookup:
            return Curl(failed="resolve", reason=lookup.ended, lookup=lookup)
        question = asked(self.terrain, source, what, via=via, of=family, addresses=lookup.addresses)
        return msgspec.structs.replace(curl(self.terrain, question, drawn, request), lookup=lookup)

    def resolve(
        self,
        source: str,
        name: str,
        *,
        type: str | None = None,
        libc: str = "glibc",
        options: Mapping[str, str] | None = None,
        seed: int | None = None,
    ) -> Resolution:
        """Look a name up as a program of WHO does: every question that its C library sends, each with its way through
        the network, and what the program is told. Name servers begin with nothing remembered.

        `type` is `A`, `AAAA`, `SRV`, `PTR` (of a name or an address), …; else A and AAAA together, as `getaddrinfo`
        asks. `libc` is `glibc` or `musl`; `options` stand in the place of those of resolv.conf: `{"ndots": "2"}`.

        Raises `UnknownName` and `BadOption`, and `ManifestError` for a Corefile that CoreDNS cannot start with.
        """
        from k8snetlab.flows.resolution import resolve

        types = ("A", "AAAA") if type is None else (type,)
        drawn = self.options.seed if seed is None else seed
        return resolve(self.terrain, source, name, types=types, library=libc, options=options, seed=drawn)

    def name_server(self, *, seed: int = 0) -> Server:
        """CoreDNS at work, with the cluster's Corefile: a place, because it remembers. Ask it with `dns.answered`.

        Raises `ManifestError` for a Corefile that it cannot start with.
        """
        from random import Random

        from k8snetlab.flows.resolution import Servers

        return Servers(self.terrain, Random(seed)).coredns()

    def records(self) -> tuple[Record, ...]:
        """Every record that CoreDNS has for objects of the cluster, Service by Service."""
        return tuple(record for zones in self.name_server().zones for record in zones.records())

    def resolv_conf(self, source: str) -> ResolvConf:
        """The /etc/resolv.conf that programs of WHO read. Raises `UnknownName` and `BadOption`."""
        from k8snetlab.flows.names import sender_of
        from k8snetlab.flows.resolution import resolv_conf

        return resolv_conf(self.terrain, sender_of(self.terrain, source))

    def compared(self, source: str, target: str, *, seed: int | None = None, via: str | None = None) -> Counter[str]:
        """How many rules each machine compares with a packet and with its answer, one after the other, as the kernel
        does; the arguments are those of `trace`.
        """
        from k8snetlab.linux.counting import counting

        tally: Counter[str] = Counter()
        watched = [counting(host, tally) for host in self.network.values() if host.filters[4] or host.filters[6]]
        self.with_hosts(*watched).trace(source, target, seed=seed, via=via)
        return tally

    def hubble(self, trace: Trace | Curl) -> tuple[Flow, ...]:
        """What Hubble would say of a trace through this cluster, or of a request, line by line. Raises `CannotDo` where
        no machine has Cilium's programs.
        """
        if all(self.network[name].datapath is None for name in self.layout.nodes):
            raise CannotDo(Problem(f"Hubble hears Cilium's programs, and {self.options.cni} has none", field="cni"))
        from k8snetlab.cni.hubble import flows, requests

        if isinstance(trace, Trace):
            return flows(trace, self.network)
        read = requests(trace.connect, trace.asked, self.network) if trace.request is not None else ()
        return (*flows(trace.connect, self.network), *read)

    @cached_property
    def policies(self) -> Policies:
        """What the policies say, as the CNI reads them. Raises `CannotDo` where Cilium has policies of its own: these
        are in its maps, which `trace` and `curl` ask.
        """
        from k8snetlab.policies import plan

        choices = plan.choices_of(self.plugin.name)
        found = plan.of(self.objects.objects, choices=choices, places=self.manifests.places)
        if found.cilium_policies and self.plugin.policies.backend is cni.Enforcement.IDENTITY:
            message = "Cilium's own policies are compiled and not judged: ask `trace` or `curl` instead"
            problem = Problem(message, object=found.cilium_policies[0].ref)
            raise CannotDo(self.manifests.placed(problem))
        return found

    def allowed(
        self, source: str, destination: str, port: int, protocol: str = "TCP", *, family: int | None = None
    ) -> PolicyVerdict:
        """Whether the policies let a connection pass, and which rule says so; whether it arrives is for `trace`.

        The ends are WHO as in `trace`, or addresses; `port` is the destination's. Under a CNI that enforces no policies
        everything passes: `changed(cni="calico")` asks another one. Raises `UnknownName` and `BadOption`.
        """
        from k8snetlab.cluster.ends import flow_of
        from k8snetlab.policies.engine import judged

        return judged(self.policies, flow_of(self.objects, self.policies, source, destination, port, protocol, family))

    def to_allow(
        self, source: str, destination: str, port: int, protocol: str = "TCP", *, family: int | None = None
    ) -> PolicyChange:
        """The smallest change of policies that lets a connection pass: `applied(*change.objects)` makes it. The
        arguments are those of `allowed`. Raises `CannotDo` where it passes already.
        """
        from k8snetlab.cluster.ends import flow_of
        from k8snetlab.policies import explain

        flow = flow_of(self.objects, self.policies, source, destination, port, protocol, family)
        return explain.to_allow(self.policies, flow)

    def to_forbid(
        self, source: str, destination: str, port: int, protocol: str = "TCP", *, family: int | None = None
    ) -> PolicyChange:
        """The smallest change of policies that stops a connection, as `to_allow`. Raises `CannotDo` where it is stopped
        already, or no policy can stop it.
        """
        from k8snetlab.cluster.ends import flow_of
        from k8snetlab.policies import explain

        flow = flow_of(self.objects, self.policies, source, destination, port, protocol, family)
        return explain.to_forbid(self.policies, flow)

    def findings(self) -> tuple[Finding, ...]:
        """What in the policies is probably not what somebody wanted; `print` one for object, field, file and line."""
        from k8snetlab.policies.findings import findings

        return findings(self.policies)

    def reach(self, ports: Iterable[str | int] | None = None, *, family: int | None = None) -> Reach:
        """Which pods the policies let connect to which, at `80/TCP`, `53/UDP` or 80; without `ports` at every port that
        a container declares. `family` (4 or 6) asks for one alone; otherwise each two pods use the one that they would.

        Raises `BadOption`.
        """
        from k8snetlab.cluster.ends import declared_ports
        from k8snetlab.policies.matrix import reach

        return reach(self.policies, declared_ports(self.objects) if ports is None else ports, of=family)

    def session(self, *, seed: int = 0, now: float = 0.0) -> Session:
        """A place where connections, affinity and time live."""
        return Session(self.terrain, seed, now)

    def get(self, kind: str, namespace: str | None = None) -> Table:
        """A table like `kubectl get`; its rows are objects. Raises `UnknownName` for a kind that has no table."""
        return table(self.objects, kind, namespace)

    def external_dns(self, zone: Zone | str, owning: Owning | None = None, reading: Reading | None = None) -> Plan:
        """What external-dns would do in a zone of the world's DNS (a zone, or the name of an empty one), so that it has
        what Services, Ingresses and routes of Gateways want: a plan, of which nothing is done yet. Raises `BadOption`.
        """
        from k8snetlab.dns import external
        from k8snetlab.dns import wanted as wishes
        from k8snetlab.dns.zone import Zone

        held = Zone.of(zone) if isinstance(zone, str) else zone
        ingresses, how = self.objects.of(api.Ingress), reading or wishes.Reading()
        slices, nodes = self.objects.endpoint_slices, self.objects.nodes
        doors = wishes.Doors.of(self.objects.objects)
        found = wishes.wanted(self.objects.services, ingresses, slices, nodes, how, doors)
        return external.planned(held, found, owning or external.Owning())

    def ledger(self, service: str, *, most: int = MOST_ENDPOINTS) -> Ledger:
        """The controllers that write the endpoints of a Service (`NAMESPACE/NAME` or `svc/NAMESPACE/NAME`), ready to
        be shown what happens to its pods (`k8snetlab.churn`). They begin with nothing written.

        `most` is the number of endpoints in a slice. Raises `UnknownName` and `BadOption`.
        """
        from k8snetlab.services.churn import started

        found = self.objects.service(service.removeprefix("svc/"))
        nodes = {node.name: node for node in self.objects.nodes}
        return started(found, self.objects.meant_by(found), nodes, most)

    def host(self, name: str) -> Machine:
        """Any machine: `shop/web-0`, `node-1`, `router`. Raises `UnknownName`."""
        return Machine(self.network.host(name))

    def node(self, name: str) -> Machine:
        """A node. Raises `UnknownName`."""
        return self.host(self.objects.node(name).name)

    def cni_call(self, name: str, command: str = "ADD") -> Conversation:
        """What the container runtime says to the CNI's plugins, and what they answer: `ADD`, `CHECK` or `DEL` for a
        pod (`NAMESPACE/NAME`), `GC` or `STATUS` for a node. CHECK compares the machines as they are with what ADD
        made. Raises `UnknownName`, `BadOption` for a pod that no plugin is called for, and `CannotDo` for a command
        that the CNI's configuration does not have.
        """
        from k8snetlab.cluster.attachments import Attachments

        return Attachments(self.layout, self.plugin, self.compiled, self.network).asked(name, command)

    def rib(self, name: str) -> tuple[cni.Rib, ...]:
        """What a node, or `router`, has heard by BGP, one value a family; `print` one for all its paths.

        Raises `CannotDo` where nobody speaks BGP, and `UnknownName`.
        """
        plugin = self.plugin
        found = plugin.rib(self.layout.cni_plan, name) if isinstance(plugin, cni.Speaking) else ()
        if not found:
            said = ", ".join(f"{key}={value}" for key, value in self.choices.cni_options)
            raise CannotDo(f"no node speaks BGP with CNI {plugin.name}{f' ({said})' if said else ''}")
        return found

    @cached_property
    def plan(self) -> AddressPlan:
        """All networks of the cluster and who holds which address (guide section 1.2)."""
        shares = cni.shares(self.plugin, self.layout.cni_plan)
        return address_plan(self.layout, self.network, shares, self._plan.pools)

    def diff(self, other: Cluster) -> Difference:
        """What `other` has that this cluster has not, and the other way round, machine by machine."""
        return difference(self.network, other.network)

    # What-ifs

    def changed(self, **options: Any) -> Cluster:
        """Another cluster of the same manifests with other options: `changed(cni="bridge")`. Overlays stay, and so do
        the addresses of Services unless their network is another one.
        """
        others = chosen(self.options, options)
        held = requests.held(self.manifests, self.objects, plan_of(self.options), plan_of(others))
        return _built(Cluster(self.manifests, others, self.overlays, held))

    def applied(self, *sources: Source) -> Cluster:
        """Another cluster after `kubectl apply`: what is not there is created, what is there is changed.

        A Service that changes keeps the addresses and node ports that it was given, where the manifest does not say
        them; any other field that is left out takes its default. `answer` has the objects as the API server holds
        them. Raises `ManifestError`, `AddressInUse` or `PoolExhausted`, naming the field that is refused.
        """
        return self._after(requests.applied(self.manifests, self.objects, sources))

    def patched(self, kind: str, name: str, patch: Patch) -> Cluster:
        """Another cluster after `kubectl patch`: `patched("Service", "shop/api", {"spec": {"type": "NodePort"}})`.

        A mapping is laid over the object, as kubectl's own patches are: `None` takes a field away, a list replaces the
        list, but ports and containers are found by their key (ports by number and protocol). A list of operations
        (`{"op": "replace", "path": "/spec/ports/0/port", "value": 81}`) is a JSON patch. `name` without a namespace is
        in `default`. Raises `UnknownName`, `ManifestError`, `AddressInUse`, `PoolExhausted`, and `CannotDo` for an
        object that no manifest says.
        """
        return self._after(requests.patched(self.manifests, self.objects, kind, name, patch))

    def deleted(self, kind: str, name: str) -> Cluster:
        """Another cluster without one object of the manifests: `deleted("Service", "shop/api")`. What was allocated
        for it is free. Raises `UnknownName`.
        """
        return self._after(requests.deleted(self.manifests, self.objects, kind, name))

    def _after(self, change: Change) -> Cluster:
        return _built(Cluster(change.manifests, self.options, self.overlays, change.registry, change.asked))

    def _with_overlays(self, overlays: tuple[Overlay, ...]) -> Cluster:
        """Another cluster with other overlays; on the same compiled machines, where these write and choose nothing
        else.
        """
        other = Cluster(self.manifests, self.options, overlays, self.registry)
        if other.choices == self.choices and other.revised is self.revised:
            _ = self.compiled
            vars(other).update({name: vars(self)[name] for name in _BELOW_OVERLAYS if name in vars(self)})
        return _built(other)

    def overlaid(self, name: str, apply: Callable[[Terrain], Network]) -> Cluster:
        """Another cluster whose machines are changed by a function, after compiling. The function is applied again
        wherever `changed` and its kin compile anew.
        """
        return self.under(Retouched(name, apply))

    def under(self, overlay: Overlay) -> Cluster:
        """Another cluster with one overlay more."""
        return self._with_overlays((*self.overlays, overlay))

    def broken(self, fault: str, *, on: str = "") -> Cluster:
        """Another cluster with a fault of `k8snetlab.faults`: `broken("route-missing")`. It is put where some packet
        notices it first, or `on` one machine, and survives `changed`; `repaired("route-missing")` takes it away.

        Raises `UnknownName` for a fault or a machine that there is not, `CannotDo` where this cluster has nothing that
        could be broken so, or where nobody would notice.
        """
        faults = import_module("k8snetlab.faults")  # that room knows this one
        broken: Cluster = faults.broken(self, fault, on)
        return broken

    def without_policies(self) -> Cluster:
        """Another cluster in which nobody ever wrote a policy: what is left is what the network itself does."""
        others = tuple(each for each in self.manifests.objects if each.kind not in api.POLICIES)
        if len(others) == len(self.manifests.objects):
            return self
        manifests = msgspec.structs.replace(self.manifests, objects=others)
        return _built(Cluster(manifests, self.options, self.overlays, self.registry))

    def repaired(self, name: str) -> Cluster:
        """Another cluster without the overlays of that name: a fault, or another change of the machines. Raises
        `UnknownName`.
        """
        kept = tuple(overlay for overlay in self.overlays if overlay.name != name)
        if len(kept) == len(self.overlays):
            raise UnknownName("overlay", name, (overlay.name for overlay in self.overlays))
        return self._with_overlays(kept)

    def without(self, host: str, entry: Entry, *, family: int = 0) -> Cluster:
        """Another cluster in which one machine lacks a route, rule, neighbour, FDB entry, link or listener. A netfilter
        rule that stands alike in the tables of both families goes from those of `family` (4 or 6), else of IPv4.

        Raises `UnknownName` where it has none. After a later `changed` it may have none either, which is then well.
        """
        _ = self.network.without(host, entry, family)

        def apply(terrain: Terrain) -> Network:
            try:
                return terrain.network.without(host, entry, family)
            except UnknownName:
                return terrain.network

        return self.overlaid(f"{host} without {text.entry_line(entry)}", apply)

    def with_hosts(self, *hosts: Host) -> Cluster:
        """Another cluster with these machines, just as they are, in the place of their namesakes."""
        return self.overlaid(", ".join(host.name for host in hosts), lambda terrain: terrain.network.replacing(*hosts))

    def bound(self, host: str, address: str) -> Cluster:
        """Another cluster in which the programs of one machine no longer listen on every address of both families, but
        on one address alone: `bound("shop/web-0", "10.244.1.2")`.

        Raises `UnknownName` for a machine that there is not, `BadOption` for an address that it does not have.
        """
        if not self.network.host(host).is_local(canonical(address, field="address")):
            raise BadOption(Problem(f"{host} has no address {address}", field="address"))

        def apply(terrain: Terrain) -> Network:
            if host not in terrain.network:
                return terrain.network
            machine = terrain.network[host]
            sockets = tuple(msgspec.structs.replace(each, address=canonical(address)) for each in machine.listeners)
            return terrain.network.replacing(msgspec.structs.replace(machine, listeners=sockets))

        return self.overlaid(f"{host} listens on {address} only", apply)

    def sysctl(self, host: str, key: str, value: int) -> Cluster:
        """Another cluster in which one machine has another kernel setting: `sysctl("node-1", "net.ipv4.ip_forward",
        0)`.
        """
        self.network.host(host).sysctl(key)

        def apply(terrain: Terrain) -> Network:
            if host not in terrain.network:
                return terrain.network
            machine = terrain.network[host]
            return terrain.network.replacing(msgspec.structs.replace(machine, sysctls={**machine.sysctls, key: value}))

        return self.overlaid(f"{host}: {key} = {value}", apply)

    def __repr__(self) -> str:
        counts = (
            f"{len(self.objects.nodes)} nodes, {len(self.objects.pods)} pods, {len(self.objects.services)} Services"
        )
        overlays = f", changed: {'; '.join(overlay.name for overlay in self.overlays)}" if self.overlays else ""
        return f"<Cluster {self.options.cni}/{self.options.proxy}: {counts}{overlays}>"


def _built(cluster: Cluster) -> Cluster:
    """The cluster itself, after what can be wrong with it would have been said."""
    _ = cluster.network
    return cluster


_BELOW_OVERLAYS = ("objects", "layout", "plugin", "compiled")
"""What depends on the overlays of a cluster only where they write or choose something else."""


def example(name: str, **options: Any) -> Cluster:
    """An example that comes with the package: `example("bookshop")`, or any file or folder under `data/`.

    Raises `UnknownName` naming what there is.
    """
    return Cluster.load(example_path(name), **options)
