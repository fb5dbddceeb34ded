"""Where does a question for a name go, and what comes back?

A program looks a name up. Its C library makes questions of it (`dns.resolver`); each is a datagram to a name server,
which walks the network like any other packet: to the address of the kube-dns Service, through kube-proxy's rules and
the CNI to a CoreDNS pod, past the policies that stand on the way, and its answer back. What the name server asks others
meanwhile walks too. So DNS breaks where the network breaks, and a trace of each question shows at which hop.

Name servers stand where packets for port 53 arrive: CoreDNS in the pods of the Service kube-system/kube-dns, with the
Corefile of the ConfigMap `coredns` or the usual one; NodeLocal DNSCache on the nodes, if the cluster has it; and one in
the world outside, at 203.0.113.10 and 2001:db8:203::10, which the nodes' resolv.conf names. What reaches any other
program is not answered.

Time passes only while somebody waits. A question that gets no answer costs the seconds that its sender waits; those of
a pair are waited for together.

Not modelled: the time that packets and answers take, answers that come too late and are taken after all, programs that
remember names themselves. Guide section 2.3.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeVar

import msgspec

from k8snetlab import api, dns
from k8snetlab.address import canonical, family
from k8snetlab.compile import CLIENT, client_address, pod_host
from k8snetlab.dns import NODE_LOCAL, Found, Lost, Message, Query, Record, Reply, ResolvConf, Server, Status
from k8snetlab.errors import BadOption, LabError, Problem
from k8snetlab.flows.names import Sender, Target, Terrain, sender_of
from k8snetlab.flows.walks import Question, outcome_of, told
from k8snetlab.linux.socket import Listener
from k8snetlab.linux.walk import Arrival, Exchange, World, exchange
from k8snetlab.packet import TCP, Packet
from k8snetlab.trace import Client, Trace

__all__ = ["Resolution", "Rung", "Servers", "Standing", "kubelet", "resolve", "resolv_conf"]

PORT = 53
DNS_INDEX = 10
"""The address in the Service network that kubelets are told where there is no kube-dns Service."""

EDNS_RECORD = 11
MOST_BYTES = 65_000
T = TypeVar("T")


class Rung(msgspec.Struct, frozen=True):
    """One question and what came of it: who asked (`host`), who answered (a machine, or empty), the packets' way, and
    what the name server asked others before it answered. `seconds` is how long the sender waited, `reason` why there
    is no answer.
    """

    query: Query
    host: str
    reply: Reply
    trace: Trace
    answered_by: str = ""
    seconds: float = 0.0
    beyond: tuple[Rung, ...] = ()

    @property
    def said(self) -> str:
        """The outcome in one word: NOERROR, NODATA, NXDOMAIN, …, TIMEOUT, REFUSED, UNREACHABLE."""
        return self.reply.said if isinstance(self.reply, Message) else str(self.reply)

    @property
    def reason(self) -> str:
        """Why there is no answer; empty where there is one."""
        return "" if isinstance(self.reply, Message) else self.trace.reason

    @property
    def answers(self) -> tuple[Record, ...]:
        """The records of the answer."""
        return self.reply.answers if isinstance(self.reply, Message) else ()

    def as_dict(self) -> dict[str, Any]:
        """The question for JSON."""
        known = isinstance(self.reply, Message)
        return {
            "from": self.host,
            "server": self.query.server,
            "answered_by": self.answered_by or None,
            "transport": self.query.transport,
            "attempt": self.query.attempt,
            "name": self.query.name,
            "type": self.query.type,
            "rcode": str(self.reply.rcode) if isinstance(self.reply, Message) else None,
            "timeout": None if known else self.seconds,
            "lost": None if known else str(self.reply),
            "truncated": self.reply.truncated if isinstance(self.reply, Message) else False,
            "reason": self.reason or None,
            "answers": [record.as_dict() for record in self.answers],
            "verdict": str(self.trace.fate),
            "forwarded": [each.as_dict() for each in self.beyond],
        }


class Resolution(msgspec.Struct, frozen=True):
    """What became of a name in a program: every question of its C library in order, and what the program was told.

    `seconds` have passed meanwhile. `from_hosts` says that /etc/hosts knew the name, and nobody was asked.
    """

    source: str
    name: str
    types: tuple[str, ...]
    library: str
    resolv_conf: ResolvConf
    rungs: tuple[Rung, ...]
    found: Found
    seconds: float = 0.0
    from_hosts: bool = False

    @property
    def status(self) -> Status:
        """What the program was told."""
        return self.found.status

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses it got, in the order of the answers."""
        return self.found.addresses

    @property
    def count(self) -> int:
        """How many questions its C library sent; those of name servers among themselves are not counted."""
        return len(self.rungs)

    @property
    def lost(self) -> Rung | None:
        """The first question that got no answer."""
        return next((each for each in self.rungs if isinstance(each.reply, Lost)), None)

    def __bool__(self) -> bool:
        return self.status is Status.FOUND

    # As text

    def __str__(self) -> str:
        from k8snetlab.flows.ladder import table

        return table(self)

    @property
    def ended(self) -> str:
        """What the program was told, in a line."""
        from k8snetlab.flows.ladder import ended

        return ended(self)

    def explain(self) -> str:
        """The lookup in sentences."""
        from k8snetlab.flows.ladder import story

        return story(self)

    def __repr__(self) -> str:
        return f"<Resolution {self.source} → {self.name}: {self.status}, {self.count} questions, {self.seconds:g} s>"

    def as_dict(self) -> dict[str, Any]:
        """The JSON of this lookup (see `k8snetlab.schemas`)."""
        return {
            "source": self.source,
            "name": self.name,
            "types": list(self.types),
            "libc": self.library,
            "resolv_conf": self.resolv_conf.text,
            "left_out": list(self.resolv_conf.left_out),
            "queries": [each.as_dict() for each in self.rungs],
            "status": str(self.status),
            "found_as": self.found.name or None,
            "result": [record.as_dict() for record in self.found.records],
            "addresses": list(self.addresses),
            "from_hosts": self.from_hosts,
            "seconds": self.seconds,
        }


# Who is asked


def kubelet(terrain: Terrain, node: str = "") -> dns.Kubelet:
    """What the kubelet of a node was told: the address of the cluster's DNS, and the node's own resolv.conf."""
    objects = terrain.objects
    if terrain.layout.dns == "node-local":
        servers: tuple[str, ...] = (NODE_LOCAL,)
    else:
        servers = (cluster_dns(terrain),)
    held = objects.node(node).addresses if node else objects.nodes[0].addresses
    families = dict.fromkeys(family(address) for address in held)
    return dns.Kubelet(servers, ResolvConf(tuple(client_address(of) for of in families)))


def cluster_dns(terrain: Terrain) -> str:
    """The address of the cluster's DNS: that of the Service kube-dns, or where it should be."""
    known = {service.key: service for service in terrain.objects.services}
    service = known.get("kube-system/kube-dns") or next(
        (each for each in known.values() if each.metadata.labels.get("k8s-app") == "kube-dns" and each.cluster_ips),
        None,
    )
    if service is not None and service.cluster_ips:
        return service.cluster_ips[0]
    return terrain.objects.networks.services[0].address(DNS_INDEX)


def resolv_conf(terrain: Terrain, sender: Sender) -> ResolvConf:
    """The /etc/resolv.conf that a sender reads."""
    if sender.pod is not None:
        return kubelet(terrain, sender.pod.node_name).written(sender.pod)
    if sender.host in terrain.layout.nodes:
        return kubelet(terrain, sender.host).node
    return ResolvConf(tuple(client_address(of) for of in sender.families))


# Who answers

NODE_LOCAL_COREFILE = """\
cluster.local:53 {{
    errors
    cache {{
        success 9984 30
        denial 9984 5
    }}
    reload
    loop
    bind {own}
    forward . {cluster} {{
        force_tcp
    }}
    prometheus :9253
    health {own}:8080
}}
in-addr.arpa:53 ip6.arpa:53 {{
    errors
    cache 30
    reload
    loop
    bind {own}
    forward . {cluster} {{
        force_tcp
    }}
    prometheus :9253
}}
.:53 {{
    errors
    cache 30
    reload
    loop
    bind {own}
    forward . /etc/resolv.conf
    prometheus :9253
}}
"""
"""The Corefile of NodeLocal DNSCache."""

WORLD = {name: f"{client_address(4)},{client_address(6)}" for name in ("example.com", "www.example.com")}
"""Names that the world outside has in any case."""

SOA = ". 900 IN SOA a.root-servers.net. nstld.verisign-grs.com. 1 1800 900 604800 900"
"""What the world says with what it does not have."""


class Standing(NamedTuple):
    """A name server where it stands: its machine, its addresses there, and itself."""

    host: str
    addresses: tuple[str, ...]
    server: Server


class Servers:
    """The name servers of a cluster: places, because they remember answers. Each is started when a question reaches
    it. What is chosen by chance is drawn from `rng`.
    """

    def __init__(self, terrain: Terrain, rng: random.Random) -> None:
        self._terrain = terrain
        self._random = rng
        self._running: dict[str, Server] = {}
        objects = terrain.objects
        self._directory = dns.Directory(objects.services, objects.endpoint_slices, objects.namespaces, objects.pods)

    def at(self, arrival: Arrival) -> tuple[str, Server] | None:
        """The name server that a packet arrived at, with the name of its machine; None if it is another program.

        Raises `ManifestError` for a Corefile that CoreDNS could not start with.
        """
        for name, start in self._standing(arrival):
            if name not in self._running:
                self._running[name] = start()
            return name, self._running[name]
        return None

    def standing(self) -> tuple[Standing, ...]:
        """All of them, each where it stands: for who wants to set them up elsewhere.

        Raises `ManifestError` for a Corefile that CoreDNS could not start with.
        """
        pods = (each for each in self._pods.values() if each.networked)
        found = [
            Standing(each.node_name if each.host_network else pod_host(each), each.ips, self._coredns(each))
            for each in pods
        ]
        if self._terrain.layout.dns == "node-local":
            found += (Standing(node, (NODE_LOCAL,), self._node_local(node)) for node in self._terrain.layout.nodes)
        if CLIENT in self._terrain.network:
            world = self._world()
            held = {each.ip for link in self._terrain.network[CLIENT].links for each in link.addresses}
            found.append(Standing(CLIENT, tuple(each for each in world.around.own if each in held), world))
        return tuple(found)

    def coredns(self) -> Server:
        """CoreDNS in the first of its pods; where there is none, as it would be.

        Raises `ManifestError` for a Corefile that CoreDNS could not start with.
        """
        for pod in self._pods.values():
            return self._coredns(pod)
        return self._started(dns.DEFAULT, "CoreDNS", (), kubelet(self._terrain).node)

    def world(self) -> Server:
        """The name server of the world outside."""
        return self._world()

    def _standing(self, arrival: Arrival) -> Iterator[tuple[str, Callable[[], Server]]]:
        program = arrival.listener.program if arrival.listener is not None else ""
        address = arrival.packet.ip.dst
        if arrival.host == CLIENT:
            yield CLIENT, self._world
        elif address == NODE_LOCAL:
            yield arrival.host, lambda: self._node_local(arrival.host)
        else:
            pod = self._pods.get(program if arrival.host in self._terrain.layout.nodes else arrival.host)
            if pod is not None:
                yield pod.key, lambda: self._coredns(pod)

    @cached_property
    def _pods(self) -> Mapping[str, api.Pod]:
        """The pods that CoreDNS runs in, by `namespace/name`: those of kube-dns, and those with its image."""
        objects = self._terrain.objects
        named = (each for each in objects.services if each.metadata.labels.get("k8s-app") == "kube-dns")
        known = next((each for each in objects.services if each.key == "kube-system/kube-dns"), None)
        services = (*named, *((known,) if known is not None else ()))
        found = {pod.key: pod for service in services for pod in objects.meant_by(service)}
        found |= {pod.key: pod for pod in objects.pods if any("coredns" in each.image for each in pod.spec.containers)}
        return found

    def _coredns(self, pod: api.Pod) -> Server:
        written = self._terrain.objects.named(f"ConfigMap {pod.namespace}/coredns")
        text = written.data.get("Corefile", "") if isinstance(written, api.ConfigMap) else ""
        where = f"ConfigMap {pod.namespace}/coredns"
        conf = kubelet(self._terrain, pod.node_name).written(pod)
        return self._started(text or dns.DEFAULT, where, pod.ips, conf)

    def _node_local(self, node: str) -> Server:
        text = NODE_LOCAL_COREFILE.format(own=NODE_LOCAL, cluster=cluster_dns(self._terrain))
        return self._started(
            text, "ConfigMap kube-system/node-local-dns", (NODE_LOCAL,), kubelet(self._terrain, node).node
        )

    def _world(self) -> Server:
        text = world_corefile(WORLD | dict(self._terrain.layout.world))
        return self._started(text, "world", (client_address(4), client_address(6)), ResolvConf())

    def _started(self, text: str, where: str, own: Sequence[str], conf: ResolvConf) -> Server:
        around = dns.Surroundings(self._directory, tuple(own), conf.nameservers, conf.search)
        try:
            return Server(dns.corefile(text, where), around, self._random)
        except LabError as error:
            raise error.placed(lambda each: each if each.file else msgspec.structs.replace(each, file=where)) from None


def world_corefile(names: Mapping[str, str]) -> str:
    """The Corefile of a name server that knows these names, with their addresses by comma, and denies all others."""
    lines = [".:53 {"]
    for name, addresses in names.items():
        held = [_address(each, name) for each in addresses.split(",")]
        pattern = "^" + dns.absolute(name.lower(), "world").replace(".", "\\.") + "$"
        for kind, of in (("A", 4), ("AAAA", 6)):
            answers = [f'answer "{{{{ .Name }}}} 300 IN {kind} {each}"' for each in held if family(each) == of]
            if answers:
                lines += [f"template IN {kind} . {{", f"match {pattern}", *answers, "fallthrough", "}"]
        lines += ["template ANY ANY . {", f"match {pattern}", f'authority "{SOA}"', "fallthrough", "}"]
    lines += ["template ANY ANY . {", "rcode NXDOMAIN", f'authority "{SOA}"', "}", "}"]
    return "\n".join(lines)


def _address(text: str, name: str) -> str:
    try:
        return canonical(text.strip())
    except LabError as error:
        raise BadOption(Problem(f"{name}: {error.problems[0].message}", field="world")) from None


# The walk


class Walking:
    """Questions on their way: a world that they walk in, the name servers, and the ports they were sent from."""

    def __init__(self, terrain: Terrain, world: World, servers: Servers) -> None:
        self._terrain = terrain
        self._world = world
        self._servers = servers
        self._ports: dict[tuple[str, str, int], Exchange] = {}
        self._busy: list[tuple[str, str, str]] = []

    def play(self, host: str, asking: Generator[tuple[Query, ...], tuple[Reply, ...], T]) -> tuple[T, tuple[Rung, ...]]:
        """Let a resolver or a name server on a machine ask until it has its answer, and say what it asked."""
        rungs: list[Rung] = []
        try:
            queries = next(asking)
            while True:
                sent = self._together(host, queries)
                rungs += sent
                queries = asking.send(tuple(each.reply for each in sent))
        except StopIteration as stop:
            answer: T = stop.value
            return answer, tuple(rungs)

    def _together(self, host: str, queries: Sequence[Query]) -> list[Rung]:
        """Questions that are sent at one time, and waited for at one time."""
        began = self._world.now
        sent = []
        for query in queries:
            self._world.now = began
            sent.append(self._one(host, query))
        self._world.now = began
        self._world.advance(max((each.seconds for each in sent), default=0.0))
        return sent

    def _one(self, host: str, query: Query) -> Rung:
        """One question there, and its answer back, if both arrive in time."""
        began = self._world.now
        served = _Served()
        result = self._sent(host, query, served)
        waited = self._world.now - began
        reply: Reply = served.reply
        if result.client is not Client.OPEN or served.message is None:
            reply = _LOST.get(result.client, Lost.TIMEOUT)
        if isinstance(reply, Lost) and not query.hears:
            reply = Lost.TIMEOUT
        if waited > query.timeout:
            reply = Lost.TIMEOUT
            late = f"{served.host} answers only after {waited:g} s: nobody waits any more"
            result = msgspec.structs.replace(result, reason=late)
        elif served.host and served.message is None:
            result = msgspec.structs.replace(result, reason=served.why)
        seconds = query.timeout if reply is Lost.TIMEOUT else min(waited, query.timeout)
        return Rung(query, host, reply, self._told(host, query, result), served.by, seconds, served.beyond)

    def _sent(self, host: str, query: Query, served: _Served) -> Exchange:
        """The packets of one question. By TCP a connection comes first."""
        payload = bytes(dns.length(query.name) + (EDNS_RECORD if query.size > 512 else 0))

        largest = MOST_BYTES

        def says(arrival: Arrival) -> bytes | None:
            self._served(arrival, query, served)
            if served.message is None:
                return None
            return bytes(min(dns.length(query.name, served.message), largest))

        world, server = self._world, query.server
        if query.transport == "TCP":
            opened = exchange(world, host, server, PORT)
            if opened.client is not Client.OPEN or opened.arrival is None or opened.answer is None:
                return opened
            largest = min(_segment(opened.arrival.packet), _segment(opened.answer))
            sent = exchange(
                world,
                host,
                server,
                PORT,
                payload=payload,
                source=opened.source,
                sport=opened.sport,
                flags="P.",
                says=says,
            )
            return msgspec.structs.replace(sent, steps=(*opened.steps, *opened.reply, *sent.steps))
        key = host, server, query.socket
        before = self._ports.get(key) if query.socket else None
        sport, flags = (before.sport, "P.") if before is not None else (0, "S")
        result = exchange(world, host, server, PORT, "UDP", payload=payload, sport=sport, flags=flags, says=says)
        self._ports[key] = result
        return result

    def _served(self, arrival: Arrival, query: Query, served: _Served) -> None:
        """Let the name server that was reached answer, and note what it said and asked."""
        served.host = arrival.host
        standing = self._servers.at(arrival)
        if standing is None:
            served.why = f"what listens on port {PORT} of {arrival.host} is no name server: it does not answer"
            return
        name, server = standing
        busy = (name, query.name, query.type)
        if busy in self._busy:
            served.why = f"{name} asks itself in the end: name servers ask each other in a circle"
            return
        asked = dns.Question(query.name, query.type, arrival.packet.ip.src, query.transport, query.size)
        server.now = self._world.now
        self._busy.append(busy)
        served.message, served.beyond = self.play(arrival.host, server.serve(asked))
        self._busy.pop()
        served.by = name

    def _told(self, host: str, query: Query, result: Exchange) -> Trace:
        target = Target(f"{query.server}:{PORT}", query.server, PORT, query.transport)
        question = Question(self._world.network, host, host, target)
        only = (outcome_of(self._terrain.objects, 1.0, result),)
        return told(self._terrain.objects, question, result, lambda: only)


def _segment(syn: Packet) -> int:
    """The bytes that fit into a segment for the sender of a SYN: the first one of an answer stands for all."""
    header = syn.headers[1]
    return header.mss if isinstance(header, TCP) and header.mss else 536


class _Served:
    """What a name server did with a question; nothing, if it was not reached."""

    def __init__(self) -> None:
        self.host = ""
        self.by = ""
        self.why = ""
        self.message: Message | None = None
        self.beyond: tuple[Rung, ...] = ()

    @property
    def reply(self) -> Reply:
        """Its answer."""
        return self.message if self.message is not None else Lost.TIMEOUT


_LOST = {Client.REFUSED: Lost.CLOSED, Client.UNREACHABLE: Lost.UNREACHABLE}


def prepared(terrain: Terrain, world: World) -> Servers:
    """The name servers of a cluster, and the one outside started in this world."""
    if CLIENT in world.network:
        there = world.at(CLIENT).host.listeners
        wanted = (Listener(protocol, PORT, program="name server") for protocol in ("UDP", "TCP"))
        world.start(CLIENT, *(each for each in wanted if each not in there))
    return Servers(terrain, world.random)


def resolve(
    terrain: Terrain,
    who: str,
    name: str,
    *,
    types: Sequence[str] = dns.PAIR,
    library: str = "glibc",
    options: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Resolution:
    """Look a name up as a program of WHO would, with machines and name servers that remember nothing.

    `types` are asked for together: A and AAAA unless told otherwise; PTR takes an address as well. `library` is `glibc`
    or `musl`; `options` stand in the place of those of resolv.conf.

    Raises `UnknownName` and `BadOption`, and `ManifestError` for a Corefile that CoreDNS cannot start with.
    """
    sender = sender_of(terrain, who)
    world = World(sender.network, random.Random(seed))
    walking = Walking(terrain, world, prepared(terrain, world))
    return looked_up(terrain, walking, world, sender, who, name, types, library, options)


def looked_up(
    terrain: Terrain,
    walking: Walking,
    world: World,
    sender: Sender,
    who: str,
    name: str,
    types: Sequence[str],
    library: str,
    options: Mapping[str, str] | None = None,
) -> Resolution:
    """The same in a world that is there already."""
    wanted = _types(types)
    conf = resolv_conf(terrain, sender).with_options(options or {})
    asking = dns.resolver(_meant(name, wanted), conf, wanted, library)
    known = _known(sender, name, wanted)
    if known is not None:
        return Resolution(who, name, wanted, library, conf, (), known, from_hosts=True)
    began = world.now
    found, rungs = walking.play(sender.host, asking)
    return Resolution(who, name, wanted, library, conf, rungs, found, world.now - began)


KINDS = ("A", "AAAA", "ANY", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT")
"""The types of record that can be asked for."""


def _types(types: Sequence[str]) -> tuple[str, ...]:
    wanted = tuple(each.upper() for each in types)
    for each in wanted:
        if each not in KINDS:
            raise BadOption(Problem(f"there is no record type {each!r}; there are {', '.join(KINDS)}", field="type"))
    return wanted


def _meant(name: str, types: tuple[str, ...]) -> str:
    """What is looked up: for PTR, an address means its reverse name."""
    if "PTR" in types:
        try:
            return dns.reverse_name(canonical(name))
        except LabError:
            return name
    return name


def _known(sender: Sender, name: str, types: tuple[str, ...]) -> Found | None:
    """What is known without asking: addresses, and the names of /etc/hosts. Of these only addresses can be asked."""
    if not set(types) <= set(dns.PAIR):
        return None
    try:
        held: tuple[str, ...] = (canonical(name),)
    except LabError:
        hosts = dns.pod_hosts(sender.pod) if sender.pod is not None else {"localhost": ("127.0.0.1", "::1")}
        held = hosts.get(name.removesuffix("."), ())
    of = {4: "A", 6: "AAAA"}
    records = tuple(Record(f"{name.rstrip('.')}.", of[family(each)], 0, each) for each in held)
    kept = tuple(each for each in records if each.type in types)
    return Found(Status.FOUND, kept, f"{name.rstrip('.')}.") if kept else None
