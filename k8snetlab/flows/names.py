"""Who is meant, and what?

WHO sends: a pod, a node, a client outside. WHAT is connected to: a Service, a pod, an address, a name. Both are words
of a person, and each becomes one thing here — a machine that sends, an address and a port that are sent to — or an
error that says which words there are.

Names are looked up in the sender's place. A pod with the usual dnsPolicy asks the cluster's DNS and tries its search
list: its own namespace, `svc.cluster.local`, `cluster.local`, and the name as it stands. Nodes, pods with the network
of their node and clients outside do not ask the cluster's DNS: Service names mean nothing to them.

The name of a headless Service has the addresses of all its ready endpoints. Clients take the first one of the answer,
whose order changes from answer to answer: each is as likely as the others. The name of an ExternalName Service is
another name for another name, which is looked up in its place, port and all.

A trace takes names like that, without asking: it is the walk of one packet. What a program asks, and whether anybody
answers, is another question (`flows.resolution`); `curl` begins with it.

Not modelled here: dnsConfig, other names than those of Services and of pods with a hostname, what the world's DNS says.
Guide sections 2.2 and 2.3; the DNS specification of Kubernetes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

from k8snetlab import api
from k8snetlab.address import canonical, family
from k8snetlab.compile import CLIENT, Layout, client, pod_host
from k8snetlab.controllers import Resolved
from k8snetlab.errors import BadOption, Problem, UnknownName
from k8snetlab.linux.host import Network, families

__all__ = ["Sender", "Target", "Terrain", "name_in", "sender_of", "split", "target_at", "target_of"]

PROTOCOLS = tuple(api.Protocol)
DOMAIN = ("svc", "cluster", "local")


class Terrain(msgspec.Struct, frozen=True):
    """What a packet can be sent through: the objects, where they stand, and the compiled network."""

    objects: Resolved
    layout: Layout
    network: Network


class Sender(msgspec.Struct, frozen=True):
    """Who sends: the machine, the network that it is in (a client may have been added), and the pod, if it is one."""

    network: Network
    host: str
    pod: api.Pod | None = None

    @property
    def outside(self) -> bool:
        """Whether it is a client outside of the cluster."""
        return self.network[self.host].kind == "client"

    @property
    def families(self) -> tuple[int, ...]:
        """The families it has addresses of."""
        return families(self.network[self.host])


class Target(msgspec.Struct, frozen=True):
    """What is connected to: an address and a port, and the words that meant it. `via` is the node at which traffic
    from outside for that address arrives, where somebody leads it there. `others` are more addresses and ports that a
    name has, any of which may be taken instead.
    """

    text: str
    address: str
    port: int
    protocol: str
    via: str = ""
    others: tuple[tuple[str, int], ...] = ()


# Who


def sender_of(terrain: Terrain, who: str) -> Sender:
    """The machine that WHO means: `NAMESPACE/POD`, `deploy/NAMESPACE/NAME` (or `sts/…`, `ds/…`; its first pod),
    `node/NAME`, `external`, `external:IP`, or the name of any machine.

    Raises `UnknownName`, and `BadOption` for a pod without a network or an address that no client can have.
    """
    network = terrain.network
    if who.startswith(f"{CLIENT}:") and who not in network:
        return Sender(*client(terrain.layout, network, canonical(who.partition(":")[2], field="from")))
    if who.startswith("node/"):
        return Sender(network, terrain.objects.node(who.removeprefix("node/")).name)
    if who in network and "/" not in who:
        return Sender(network, who)
    pod = _pod_of(terrain.objects, who)
    return Sender(network, _host_of(pod), pod)


def _pod_of(objects: Resolved, name: str) -> api.Pod:
    """The pod of a name: its own, or that of the workload it is the first pod of."""
    name = name.removeprefix("pod/")
    if name.count("/") != 2:
        return objects.pod(name)
    pods = objects.pods_of(name)
    if not pods:
        raise BadOption(Problem("it has no pods", object=name))
    return pods[0]


def _host_of(pod: api.Pod) -> str:
    if not pod.networked:
        why = "it has completed" if pod.completed else f"it is {pod.status.phase}"
        raise BadOption(Problem(f"the pod has no network: {why}", object=pod.ref))
    return pod.node_name if pod.host_network else pod_host(pod)


# What


def target_of(terrain: Terrain, what: str, sender: Sender, of: int | None = None, via: str | None = None) -> Target:
    """The address and port that WHAT means to a sender: `svc/NAMESPACE/NAME:PORT`, `NAMESPACE/POD:PORT`,
    `deploy/NAMESPACE/NAME:PORT`, `node/NAME:PORT`, `IP:PORT`, `[IPv6]:PORT` or a DNS name with `:PORT`, each with
    `/TCP`, `/UDP` or `/SCTP` after it. PORT is a number, or the name of a Service's or container's port.

    A sender outside reaches a NodePort Service at a node (`via`, else the first), a LoadBalancer at its ingress
    address (led to `via`; else as the cluster's load balancer does, or where there is none, to the first node that a
    health check would choose), any other at its ClusterIP, which nobody leads anywhere but to `via`. `of` is the family
    (4 or 6); else the first that both have.

    Raises `UnknownName` for what is not there, `BadOption` for what cannot be connected to.
    """
    question = _Question(terrain, what, sender, of, via or "", *split(what))
    where = question.where
    if where.startswith(("svc/", "service/")):
        return question.to_service(terrain.objects.service(where.partition("/")[2]))
    if where.startswith("node/"):
        node = terrain.objects.node(where.removeprefix("node/"))
        return question.to(question.address(node.addresses, node.ref), question.number())
    if re.fullmatch(r"[0-9.]+", where) or ":" in where:
        return question.to(canonical(where.strip("[]"), field="to"), question.number())
    if "/" in where:
        return question.to_pod(_pod_of(terrain.objects, where))
    return question.to_name()


def name_in(what: str) -> str:
    """The DNS name in WHAT, if it is one that a resolver is asked for; else nothing.

    >>> name_in("api.shop:80"), name_in("svc/shop/api:80"), name_in("10.96.0.10:80")
    ('api.shop', '', '')
    """
    where, port, _ = split(what)
    number = port.isascii() and port.isdigit()
    return where if number and "/" not in where and ":" not in where and not re.fullmatch(r"[0-9.]+", where) else ""


def target_at(terrain: Terrain, what: str, sender: Sender, addresses: Iterable[str], via: str | None = None) -> Target:
    """WHAT as a resolver found it: the first of its addresses that the sender has a family for; the others of that
    family may be taken as well.
    """
    where, port, protocol = split(what)
    question = _Question(terrain, what, sender, None, via or "", where, port, protocol)
    held = tuple(addresses)
    first = question.address(held, where)
    others = tuple((each, question.number()) for each in held if each != first and family(each) == family(first))
    return msgspec.structs.replace(question.to(first, question.number()), others=others)


def split(what: str) -> tuple[str, str, api.Protocol]:
    """`WHERE:PORT[/PROTOCOL]` in its three parts. Raises `BadOption` where there is no port."""
    rest, protocol = what, api.Protocol.TCP
    head, _, tail = what.rpartition("/")
    if tail.upper() in PROTOCOLS and ":" in head:
        rest, protocol = head, api.Protocol(tail.upper())
    where, colon, port = rest.rpartition(":")
    bracketed = where.startswith("[") and where.endswith("]")
    if not colon or not where or not port or (not bracketed and any(sign in where for sign in ":[]")):
        message = f"{what!r} has no port: write WHERE:PORT, or [IPv6]:PORT, and /UDP or /SCTP after it if it is not TCP"
        raise BadOption(Problem(message, field="to"))
    if "/" in port:
        word = port.partition("/")[2]
        raise BadOption(Problem(f"{word!r} in {what!r} is no protocol: there are {', '.join(PROTOCOLS)}", field="to"))
    return where, port, protocol


class _Question(msgspec.Struct, frozen=True):
    """WHAT in its parts, and who asks."""

    terrain: Terrain
    what: str
    sender: Sender
    of: int | None
    via: str
    where: str
    port: str
    protocol: api.Protocol

    def to(self, address: str, port: int, via: str = "") -> Target:
        """The answer."""
        return Target(self.what, address, port, str(self.protocol), via or self.via)

    # Its port and its family

    @property
    def named(self) -> bool:
        """Whether the port is a name."""
        return not (self.port.isascii() and self.port.isdigit())

    def number(self) -> int:
        """The port as a number, where no name can stand."""
        if not self.named and 0 < int(self.port) < 65536:
            return int(self.port)
        raise BadOption(Problem(f"{self.port!r} in {self.what!r} is no port number from 1 to 65535", field="to"))

    def address(self, addresses: Iterable[str], ref: str) -> str:
        """One of these addresses: of the family asked for, else of one that the sender has, else the first."""
        held = tuple(addresses)
        if self.of is not None:
            found = next((address for address in held if family(address) == self.of), None)
            if found is None:
                raise BadOption(Problem(f"it has no IPv{self.of} address", object=ref, field="family"))
            return found
        if not held:
            raise BadOption(Problem("it has no address", object=ref))
        if len(held) == 1:
            return held[0]
        return next((address for address in held if family(address) in self.sender.families), held[0])

    # What it can be

    def to_pod(self, pod: api.Pod) -> Target:
        """A pod, on a port number or on a container's named port."""
        _host_of(pod)
        port = pod.port_named(self.port, self.protocol) if self.named else self.number()
        if port is None:
            names = (port.name for each in pod.listeners() for port in each.ports if port.name)
            raise UnknownName("port", self.port, names, object=pod.ref)
        return self.to(self.address(pod.ips, pod.ref), port)

    def to_service(self, service: api.Service, known_as: tuple[str, ...] = ()) -> Target:
        """A Service, as the sender can reach it; `known_as` are the Services whose other name led to it."""
        if service.spec.type is api.ServiceType.EXTERNAL_NAME:
            return self._to_another_name(service, known_as)
        if service.headless:
            return self._to_the_endpoints(service)
        wanted = service.port(self.port if self.named else int(self.port), self.protocol)
        number = wanted.port if wanted is not None else self._asked_for_all_the_same(service)
        if self.sender.outside and wanted is not None:
            ingress = self._ingress(service)
            if ingress:
                led = self.via or ("" if self._carried else self._healthy(service))
                return self.to(self.address(ingress, service.ref), number, led)
            if wanted.node_port:
                nodes = self.terrain.objects
                node = nodes.node(self.via) if self.via else nodes.nodes[0]
                return self.to(self.address(node.addresses, node.ref), wanted.node_port)
        return self.to(self.address(service.cluster_ips, service.ref), number)

    def _asked_for_all_the_same(self, service: api.Service) -> int:
        """A port the Service does not have may still be asked for by number: that is a question about the network."""
        if self.named:
            names = (each.name for each in service.spec.ports if each.name)
            raise UnknownName("port", self.port, names, object=service.ref)
        return self.number()

    @property
    def _carried(self) -> bool:
        """Whether a load balancer of the cluster leads packets to nodes by itself."""
        return self.terrain.layout.load_balancer != "none"

    def _ingress(self, service: api.Service) -> tuple[str, ...]:
        """The addresses at which a load balancer can be reached. What a dump says of one with `ipMode: Proxy` stands
        nowhere in this network, unless the cluster's own load balancer serves it.
        """
        at = (each for each in service.load_balancer if self._carried or each.ip_mode is not api.IPMode.PROXY)
        return tuple(each.ip for each in at if each.ip)

    def _healthy(self, service: api.Service) -> str:
        """The first node that a load balancer sends to: with policy Local one with a ready endpoint (its health check
        port says so), else any.
        """
        nodes = [node.name for node in self.terrain.objects.nodes]
        if service.spec.external_traffic_policy is api.TrafficPolicy.LOCAL:
            local = {endpoint.node_name for _, endpoint in self._ready(service)}
            nodes = [name for name in nodes if name in local] or nodes
        return nodes[0]

    def _to_the_endpoints(self, service: api.Service) -> Target:
        """A headless Service is its endpoints: a name for all of them, without an address of its own. No port is
        translated: a number is a port of the pod. A name is looked up there, as an SRV record would.
        """
        found: dict[str, int] = {}
        for piece, endpoint in self._ready(service):
            if self.of in (None, family(endpoint.address)):
                port = next((port.port for port in piece.ports if self.named and port.name == self.port), None)
                found.setdefault(endpoint.address, port or self._asked_for_all_the_same(service))
        if not found:
            message = "the Service is headless and no endpoint of it is ready: its name has no address"
            raise BadOption(Problem(message, object=service.ref))
        of = family(self.address(found, service.ref))
        (address, port), *others = ((ip, number) for ip, number in found.items() if family(ip) == of)
        return msgspec.structs.replace(self.to(address, port), others=tuple(others))

    def _to_another_name(self, service: api.Service, known_as: tuple[str, ...]) -> Target:
        """An ExternalName is an alias (CNAME): the name behind it is looked up, if it is one of the cluster's. No
        address and no port is translated.
        """
        name = service.spec.external_name.rstrip(".")
        if service.key in known_as:
            message = f"it is another name for {name}, which leads back to it: the name has no address"
            raise BadOption(Problem(message, object=service.ref, field="spec.externalName"))
        found = self._record(name.split("."), (*known_as, service.key))
        if found is None:
            message = f"it is only another name for {name}: nothing in the cluster forwards to it"
            raise BadOption(Problem(message, object=service.ref, field="spec.type"))
        return found

    def _ready(self, service: api.Service) -> Iterator[tuple[api.EndpointSlice, api.Endpoint]]:
        for piece in self.terrain.objects.slices_of(service.key):
            yield from ((piece, endpoint) for endpoint in piece.endpoints if endpoint.ready)

    # What a name means

    def to_name(self) -> Target:
        """A DNS name, as the sender's resolver would find it."""
        if self.where == "localhost":
            return self.to("::1" if self.of == 6 else "127.0.0.1", self.number())
        namespace = self._search_list()
        searched = (f".{namespace}.svc.cluster.local", ".svc.cluster.local", ".cluster.local", "")
        for suffix in ("",) if self.where.endswith(".") else searched:
            found = self._record(f"{self.where.rstrip('.')}{suffix}".split("."))
            if found is not None:
                return found
        services = self.terrain.objects.services
        known = (each.name if each.namespace == namespace else f"{each.name}.{each.namespace}" for each in services)
        raise UnknownName("DNS name", self.where, known, field="to")

    def _record(self, labels: list[str], known_as: tuple[str, ...] = ()) -> Target | None:
        """What the cluster's DNS says of a complete name: a Service, or a pod of one by its hostname."""
        *left, namespace = labels[:-3] or [""]
        if tuple(labels[-3:]) != DOMAIN or not 1 <= len(left) <= 2:
            return None
        service = next((each for each in self.terrain.objects.services if each.key == f"{namespace}/{left[-1]}"), None)
        if service is None or len(left) == 1:
            return self.to_service(service, known_as) if service is not None else None
        for _, endpoint in self._ready(service):
            if endpoint.hostname == left[0] and self.of in (None, family(endpoint.address)):
                return self.to(endpoint.address, self.number())
        return None

    def _search_list(self) -> str:
        """The namespace whose Services the sender calls by their first name. Raises `BadOption` for senders that do
        not ask the cluster's DNS.
        """
        pod = self.sender.pod
        if pod is not None and _asks_the_cluster(pod):
            return pod.namespace
        who = self.sender.host
        if pod is not None:
            shared = " and its node's network" if pod.host_network else ""
            who = f"{pod.ref}, with dnsPolicy {pod.spec.dns_policy}{shared},"
        message = f"{who} does not ask the cluster's DNS for {self.where!r}: write svc/NAMESPACE/NAME or an address"
        raise BadOption(Problem(message, field="to"))


def _asks_the_cluster(pod: api.Pod) -> bool:
    """Whether the pod's resolv.conf names the cluster's DNS: `ClusterFirst` means the node's where the network is."""
    policy = pod.spec.dns_policy
    if policy is api.DNSPolicy.CLUSTER_FIRST:
        return not pod.host_network
    return policy is api.DNSPolicy.CLUSTER_FIRST_WITH_HOST_NET
