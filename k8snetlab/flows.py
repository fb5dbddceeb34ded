"""How do several packets tell one story?

Somebody asks: what happens when `shop/web-0` talks to `svc/shop/api:80`? First the words are resolved to a machine
that sends and an address that is sent to; then a packet walks; then the answer. A `curl` is more than one packet: the
connection is opened, a request goes in, a page comes back in segments as large as both ends allow — and each of these
can fail where the others pass.

Names of Services are resolved as the pod's search list would (`api`, `api.shop`, `api.shop.svc.cluster.local`); no
query is sent.

Not modelled: DNS queries as packets, HTTP beyond one request and one answer, retransmission. Guide sections 2.1 and
2.2.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import msgspec

from k8snetlab import api
from k8snetlab.address import Prefix, canonical, family
from k8snetlab.compile import CLIENT, Layout, client, led_through, pod_host
from k8snetlab.controllers import Resolved
from k8snetlab.errors import BadOption, Problem, UnknownName
from k8snetlab.linux.host import Network
from k8snetlab.linux.walk import Choose, Exchange, World, every, exchange
from k8snetlab.packet import TCP, Packet
from k8snetlab.trace import Backend, Client, Outcome, Request, Step, Trace

__all__ = ["Curl", "Session", "Target", "Terrain", "target_of"]

PROTOCOLS = ("TCP", "UDP", "SCTP")
DOMAIN = "cluster.local"
ANSWER = 20_000
"""Bytes of the page that `curl` gets: more than one segment on any MTU below a loopback's."""


class Terrain(msgspec.Struct, frozen=True):
    """What a packet can be sent through: the objects, where they stand, and the compiled network."""

    objects: Resolved
    layout: Layout
    network: Network


class Target(msgspec.Struct, frozen=True):
    """What is connected to: an address and a port, and the words that meant it."""

    text: str
    address: str
    port: int
    protocol: str


# Who and what


def source_of(terrain: Terrain, who: str) -> tuple[Network, str]:
    """The machine that WHO means, and the network with it in: `NAMESPACE/POD`, `deploy/NAMESPACE/NAME`, `node/NAME`,
    `external`, `external:IP`, or the name of any machine. Raises `UnknownName`, or `BadOption` for a pod without a
    network.
    """
    if who == CLIENT:
        return terrain.network, CLIENT
    if who.startswith(f"{CLIENT}:"):
        if who in terrain.network:
            return terrain.network, who
        address = canonical(who.partition(":")[2], field="from")
        return client(terrain.layout, terrain.network, address)
    if who.startswith("node/"):
        return terrain.network, terrain.objects.node(who.removeprefix("node/")).name
    if who in terrain.network:
        return terrain.network, who
    return terrain.network, _host_of(_pod_of(terrain.objects, who))


def _pod_of(objects: Resolved, name: str) -> api.Pod:
    if name.startswith(("deploy/", "deployment/")):
        return _first_of(objects, name.partition("/")[2])
    if name.startswith("pod/"):
        name = name.removeprefix("pod/")
    return objects.pod(name)


def _first_of(objects: Resolved, deployment: str) -> api.Pod:
    found = objects.pods_of(f"deploy/{deployment}")
    if not found:
        raise BadOption(Problem("it has no pods", object=f"Deployment {deployment}", field="spec.replicas"))
    return found[0]


def _host_of(pod: api.Pod) -> str:
    if not pod.networked or not pod.ips:
        why = "it has completed" if pod.completed else f"it is {pod.status.phase}"
        raise BadOption(Problem(f"the pod has no network: {why}", object=pod.ref))
    return pod.spec.node_name if pod.host_network else pod_host(pod)


def target_of(terrain: Terrain, what: str, source: str, of: int | None, via: str | None) -> Target:
    """The address and port that WHAT means to a sender: `svc/NAMESPACE/NAME:PORT`, `NAMESPACE/POD:PORT`,
    `deploy/…:PORT`, `node/NAME:PORT`, `IP:PORT`, `[IPv6]:PORT` or a Service's DNS name, each with `/TCP`, `/UDP`
    or `/SCTP` after it.

    A sender outside reaches a NodePort Service at a node (`via`, else the first), a LoadBalancer at its ingress
    address, any other at its ClusterIP. `of` chooses the family (4 or 6), else the first that both have.
    """
    where, port, protocol = _split(what)
    objects = terrain.objects
    if where.startswith(("svc/", "service/")):
        service = objects.service(where.partition("/")[2])
        return _service_target(terrain, what, service, port, protocol, source, of, via)
    if where.startswith("node/"):
        node = objects.node(where.removeprefix("node/"))
        return Target(what, _of_family(node.addresses, of, node.ref), _number(port, what), protocol)
    if re.fullmatch(r"[0-9.]+", where) or ":" in where:
        return Target(what, canonical(where.strip("[]"), field="to"), _number(port, what), protocol)
    if "/" in where:
        pod = _pod_of(objects, where)
        _host_of(pod)
        found = pod.port_named(port, api.Protocol(protocol)) if not port.isdigit() else int(port)
        if found is None:
            raise UnknownName("port", port, _port_names(pod), field=pod.ref)
        return Target(what, _of_family(pod.ips, of, pod.ref), found, protocol)
    service = _named(objects, where, source)
    return _service_target(terrain, what, service, port, protocol, source, of, via)


def _port_names(pod: api.Pod) -> list[str]:
    return [port.name for container in pod.spec.containers for port in container.ports if port.name]


def _split(what: str) -> tuple[str, str, str]:
    """`WHERE:PORT[/PROTOCOL]` in its three parts."""
    rest, protocol = what, "TCP"
    head, _, tail = what.rpartition("/")
    if tail.upper() in PROTOCOLS and ":" in head:
        rest, protocol = head, tail.upper()
    where, colon, port = rest.rpartition(":")
    if not colon or not where or not port or (":" in where and not where.startswith("[")):
        message = f"{what!r} has no port: write WHERE:PORT, or [IPv6]:PORT, and /UDP or /SCTP after it if it is not TCP"
        raise BadOption(Problem(message, field="to"))
    return where, port, protocol


def _number(port: str, what: str) -> int:
    if port.isdigit() and 0 < int(port) < 65536:
        return int(port)
    raise BadOption(Problem(f"{port!r} in {what!r} is no port number from 1 to 65535", field="to"))


def _of_family(addresses: tuple[str, ...], of: int | None, ref: str) -> str:
    found = next((address for address in addresses if of is None or family(address) == of), None)
    if found is None:
        raise BadOption(
            Problem(f"it has no IPv{of} address" if of else "it has no address", object=ref, field="family")
        )
    return found


def _named(objects: Resolved, name: str, source: str) -> api.Service:
    """The Service of a DNS name, completed by the sender's search list."""
    namespace = source.partition("/")[0] if "/" in source else "default"
    labels = name.rstrip(".").split(".")
    if labels[2:] not in ([], ["svc"], ["svc", *DOMAIN.split(".")]):
        raise UnknownName("Service with the DNS name", name, field="to")
    where = labels[1] if len(labels) > 1 else namespace
    return objects.service(f"{where}/{labels[0]}")


def _service_target(
    terrain: Terrain,
    what: str,
    service: api.Service,
    port: str,
    protocol: str,
    source: str,
    of: int | None,
    via: str | None,
) -> Target:
    spec = service.spec
    if spec.type is api.ServiceType.EXTERNAL_NAME:
        message = f"it is only another name for {spec.external_name}: nothing in the cluster forwards to it"
        raise BadOption(Problem(message, object=service.ref, field="spec.type"))
    wanted = service.port(int(port) if port.isdigit() else port, api.Protocol(protocol))
    if service.headless:
        return _headless_target(terrain, what, service, port, wanted, protocol, of)
    number = wanted.port if wanted is not None else _number_or_unknown(service, port, what)
    if terrain.network[source].kind == "client" and wanted is not None:
        ingress = tuple(each.ip for each in service.load_balancer if each.ip)
        if ingress:
            return Target(what, _of_family(ingress, of, service.ref), number, protocol)
        if wanted.node_port:
            node = terrain.objects.node(via) if via else terrain.objects.nodes[0]
            return Target(what, _of_family(node.addresses, of, node.ref), wanted.node_port, protocol)
    return Target(what, _of_family(service.cluster_ips, of, service.ref), number, protocol)


def _number_or_unknown(service: api.Service, port: str, what: str) -> int:
    """A port the Service does not have may still be asked for by number: that is a question about the network."""
    if not port.isdigit():
        raise UnknownName("port", port, [each.name for each in service.spec.ports if each.name], field=service.ref)
    return _number(port, what)


def _headless_target(
    terrain: Terrain,
    what: str,
    service: api.Service,
    port: str,
    wanted: api.ServicePort | None,
    protocol: str,
    of: int | None,
) -> Target:
    """A headless Service is its endpoints: a name for all of them, without an address or port of its own. The first
    one is taken, and the port is the pod's.
    """
    for piece in terrain.objects.slices_of(service.key):
        for endpoint in piece.endpoints:
            if endpoint.ready and (of is None or family(endpoint.address) == of):
                number = next(
                    (p.port for p in piece.ports if wanted is not None and (p.name or "") == wanted.name), None
                )
                return Target(what, endpoint.address, number or _number_or_unknown(service, port, what), protocol)
    raise BadOption(
        Problem("the Service is headless and no endpoint of it is ready: its name has no address", object=service.ref)
    )


# One packet, there and back


class Asked(msgspec.Struct, frozen=True):
    """A question made ready: the network to walk, the sending machine, the target, and how the packet is made."""

    network: Network
    host: str
    who: str
    target: Target
    payload: bytes
    df: bool


def asked(
    terrain: Terrain,
    who: str,
    what: str,
    *,
    via: str | None = None,
    of: int | None = None,
    size: int = 0,
    df: bool = True,
) -> Asked:
    """Resolve the words of a question. See `source_of` and `target_of` for them and their errors."""
    if size < 0 or size > 65_000:
        raise BadOption(Problem(f"{size} is no payload size from 0 to 65000 bytes", field="size"))
    network, host = source_of(terrain, who)
    seen = msgspec.structs.replace(terrain, network=network)
    target = target_of(seen, what, host, of, via)
    if via is not None and network[host].kind == "client":
        network = led_through(terrain.layout, network, host, target.address, via)
    return Asked(network, host, who, target, bytes(size), df)


def walked(asked: Asked, world: World) -> Exchange:
    """Send the packet of a question in a world."""
    target = asked.target
    return exchange(world, asked.host, target.address, target.port, target.protocol, payload=asked.payload, df=asked.df)


def trace(terrain: Terrain, asked: Asked, seed: int) -> Trace:
    """The walk of one packet with empty conntrack and affinity; load balancing by `random.Random(seed)`."""

    def again(choose: Choose | None) -> Exchange:
        return walked(asked, World(asked.network, random.Random(seed), choose=choose))

    def explore() -> tuple[Outcome, ...]:
        return merged(_outcome(terrain.objects, chance, result) for chance, result in every(again))

    return told(terrain.objects, asked, again(None), explore)


def told(objects: Resolved, asked: Asked, result: Exchange, explore: Callable[[], tuple[Outcome, ...]]) -> Trace:
    """An exchange as a trace."""
    target = asked.target
    request = Request(
        asked.who, target.text, target.address, target.port, target.protocol, family(target.address), len(asked.payload)
    )
    backend, seen = _taken(objects, result)
    return Trace(request, result.fate, result.client, result.reason, result.steps, result.reply, backend, seen, explore)


def _outcome(objects: Resolved, chance: float, result: Exchange) -> Outcome:
    backend, seen = _taken(objects, result)
    return Outcome(chance, result.fate, result.client, backend, seen, result.reason)


def merged(outcomes: object) -> tuple[Outcome, ...]:
    """Outcomes that differ only in how they were chosen, as one; the most probable first, then by backend."""
    held: dict[tuple[object, ...], Outcome] = {}
    assert hasattr(outcomes, "__iter__")
    for outcome in outcomes:
        key = (outcome.verdict, outcome.client, outcome.backend, outcome.source_seen, outcome.reason)
        before = held.get(key)
        held[key] = (
            outcome
            if before is None
            else msgspec.structs.replace(before, probability=before.probability + outcome.probability)
        )
    whole = [msgspec.structs.replace(each, probability=round(each.probability, 9)) for each in held.values()]
    return tuple(
        sorted(whole, key=lambda each: (-each.probability, each.backend.ip if each.backend else "", each.reason))
    )


def _taken(objects: Resolved, result: Exchange) -> tuple[Backend | None, str]:
    """Who took the packet, and the source address he saw."""
    if result.arrival is None:
        return None, ""
    packet = result.arrival.packet
    ip, header = packet.headers[0], packet.headers[1]
    seen = getattr(ip, "src", "")
    port = getattr(header, "dport", 0)
    host = result.arrival.host
    namespace, slash, name = host.partition("/")
    if not slash:
        return Backend("", host, host, packet.ip.dst, port), seen
    return Backend(namespace, name, objects.pod(host).spec.node_name, packet.ip.dst, port), seen


# Several packets


class Curl(msgspec.Struct, frozen=True):
    """A TCP connection, a request of `request_size` bytes on it, and the first full segment of an answer.

    `ok` only if all three arrive; `failed` names the first that does not (`connect`, `request`, `answer`).
    """

    connect: Trace
    request: Exchange | None = None
    answer: tuple[Step, ...] = ()
    ok: bool = False
    failed: str = ""
    reason: str = ""
    segment: int = 0

    @property
    def steps(self) -> tuple[Step, ...]:
        """Every step of the story, in order."""
        asked = self.request.steps if self.request is not None else ()
        return (*self.connect.steps, *self.connect.reply, *asked, *self.answer)

    def __str__(self) -> str:
        to = f"{self.connect.request.target} ({self.connect.request.address}:{self.connect.request.port})"
        lines = [f"{self.connect.request.source} → {to}", f"  connect  {self.connect.client}: {self.connect.reason}"]
        if self.request is not None:
            taken = self.request.arrival
            lines.append(f"  request  {f'arrives at {taken.host}' if taken is not None else self.request.reason}")
        if self.answer:
            lines.append(f"  answer   segments of {self.segment} bytes: {'arrive' if self.ok else self.reason}")
        lines.append("  200 OK" if self.ok else f"  curl fails at {self.failed}: {self.reason}")
        return "\n".join(lines)

    def __repr__(self) -> str:
        ended = "OK" if self.ok else f"failed at {self.failed}"
        return f"<Curl {self.connect.request.source} → {self.connect.request.target}: {ended}>"


REQUEST = b"GET / HTTP/1.1\r\nHost: shop\r\n\r\n"


def curl(terrain: Terrain, asked: Asked, seed: int) -> Curl:
    """Open a TCP connection, send a request, and take the answer's first full segment."""
    world = World(asked.network, random.Random(seed))
    opened = walked(asked, world)
    connect = told(terrain.objects, asked, opened, trace(terrain, asked, seed).explore)
    if opened.client is not Client.OPEN or opened.arrival is None or opened.answer is None:
        return Curl(connect, failed="connect", reason=opened.reason)
    segment = min(_mss(opened.arrival.packet), _mss(opened.answer))
    target = asked.target
    sent = exchange(
        world,
        asked.host,
        target.address,
        target.port,
        payload=REQUEST,
        source=opened.source,
        sport=opened.sport,
        flags="P.",
    )
    if sent.arrival is None:
        return Curl(connect, sent, failed="request", reason=sent.reason, segment=segment)
    world.arrivals.clear()
    page = _segment_back(sent.arrival.packet, segment)
    steps = (
        *world.at(sent.arrival.host).output(page, "the program answers with a page"),
        *world.run(),
        *world.answer(),
    )
    back = any(arrival.host == asked.host and arrival.packet.payload for arrival in world.arrivals)
    last = steps[-1]
    reason = "" if back else f"{last.where}: {last.why}"
    return Curl(connect, sent, steps, back, "" if back else "answer", reason, segment)


def _mss(packet: Packet) -> int:
    header = packet.headers[1]
    return header.mss if isinstance(header, TCP) and header.mss else 536


def _segment_back(packet: Packet, segment: int) -> Packet:
    header = packet.headers[1]
    assert isinstance(header, TCP)
    ip = msgspec.structs.replace(packet.ip, src=packet.ip.dst, dst=packet.ip.src, ttl=64, df=True)
    return Packet((ip, TCP(header.dport, header.sport, ".")), bytes(min(segment, ANSWER)))


class Session:
    """A place where time passes: connections, affinity and learnt neighbours stay from one packet to the next.

    `now` is in seconds; `advance` lets them pass. Load balancing is drawn from `random.Random(seed)`.
    """

    def __init__(self, terrain: Terrain, seed: int, now: float) -> None:
        self._terrain = terrain
        self.world = World(terrain.network, random.Random(seed), now)

    @property
    def now(self) -> float:
        return self.world.now

    def advance(self, seconds: float) -> None:
        """Let time pass; entries that are idle for longer than their time-out are then no longer found."""
        self.world.now += seconds

    def trace(self, who: str, what: str, *, of: int | None = None, size: int = 0) -> Trace:
        """Send a packet in this session. Its outcomes are the one that happened."""
        question = asked(self._terrain, who, what, of=of, size=size)
        if question.network is not self.world.network:
            raise BadOption(
                Problem("a session has the clients it began with: use one that is in the network", field="from")
            )
        result = walked(question, self.world)
        only = (_outcome(self._terrain.objects, 1.0, result),)
        return told(self._terrain.objects, question, result, lambda: only)


def blocks_of(terrain: Terrain) -> tuple[Prefix, ...]:
    """The underlay subnets."""
    return terrain.layout.blocks
