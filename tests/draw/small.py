"""A small network with everything a picture has: machines, pods, a bridge, a tunnel, a Service, a switch, a client."""

from __future__ import annotations

import random

from k8snetlab.address import Prefix
from k8snetlab.linux.host import Host, Network, Part, assembled
from k8snetlab.linux.link import Address, FdbEntry, Link, LinkKind, Neighbour, Peer, Vxlan, loopback
from k8snetlab.linux.netfilter import L4, Chain, Destination, Dnat, Jump, Patch, Protocol4, Rule, Statistic
from k8snetlab.linux.route import Route
from k8snetlab.linux.socket import Listener
from k8snetlab.linux.walk import Exchange, World, every, exchange
from k8snetlab.trace import Backend, Outcome, Request, Trace

SERVICE = "10.96.0.10"
PODS = {"shop/web-0": ("10.244.1.2", 1), "shop/web-1": ("10.244.1.3", 1), "shop/api-0": ("10.244.2.2", 2)}


def pod(name: str, ip: str, node: int, at: int) -> Host:
    """A pod that serves port 80, plugged into the machine's port `veth{at}`."""
    gateway = f"10.244.{node}.1"
    link = Link(
        "eth0",
        2,
        LinkKind.VETH,
        f"0a:00:00:00:0{node}:0{at}",
        1450,
        peer=Peer(f"node-{node}", f"veth{at}"),
        addresses=(Address(ip, 24),),
    )
    routes = (Route("default", "eth0", gateway), Route(f"10.244.{node}.0/24", "eth0", source=ip, scope="link"))
    return assembled(name, "container", Part(links=(loopback(), link), routes=routes, listeners=(Listener("TCP", 80),)))


def service() -> Patch:
    """The Service's rules: half of the connections go to web-0, half to api-0."""
    jump = Rule(
        "nat", "SERVICES", (Destination(Prefix.of(f"{SERVICE}/32")), Protocol4("TCP"), L4("tcp", 80)), Jump("API")
    )
    chains = {
        "SERVICES": Chain("SERVICES", (jump,)),
        "API": Chain("API", (Rule("nat", "API", (Statistic(0.5),), Jump("ONE")), Rule("nat", "API", (), Jump("TWO")))),
        "ONE": Chain("ONE", (Rule("nat", "ONE", (Protocol4("TCP"),), Dnat("10.244.1.2", 80)),)),
        "TWO": Chain("TWO", (Rule("nat", "TWO", (Protocol4("TCP"),), Dnat("10.244.2.2", 80)),)),
    }
    hooks = tuple(Rule("nat", hook, (), Jump("SERVICES")) for hook in ("PREROUTING", "OUTPUT"))
    return Patch("nat", 4, first=hooks, chains=chains)


def node(number: int) -> Host:
    """A machine with cni0, flannel.1 and eth0."""
    ip, other = f"172.18.0.1{number}", 3 - number
    tunnel, remote = f"02:00:00:00:01:0{number}", f"02:00:00:00:01:0{other}"
    pods = [name for name, (_, on) in PODS.items() if on == number]
    links = (
        loopback(),
        Link(
            "eth0",
            2,
            LinkKind.NIC,
            f"02:00:00:00:00:0{number}",
            peer=Peer("switch", f"p{number}"),
            addresses=(Address(ip, 24),),
        ),
        Link(
            "flannel.1",
            3,
            LinkKind.VXLAN,
            tunnel,
            1450,
            addresses=(Address(f"10.244.{number}.0", 32),),
            vxlan=Vxlan(1, ip, "eth0", 8472),
        ),
        Link(
            "cni0",
            4,
            LinkKind.BRIDGE,
            f"02:00:00:00:02:0{number}",
            1450,
            addresses=(Address(f"10.244.{number}.1", 24),),
        ),
        *(
            Link(
                f"veth{at}",
                5 + at,
                LinkKind.VETH,
                f"02:00:00:00:0{number}:1{at}",
                1450,
                master="cni0",
                peer=Peer(name, "eth0"),
                hairpin=True,
            )
            for at, name in enumerate(pods)
        ),
    )
    routes = (
        Route("default", "eth0", "172.18.0.1"),
        Route("172.18.0.0/24", "eth0", source=ip, scope="link"),
        Route(f"10.244.{number}.0/24", "cni0", source=f"10.244.{number}.1", scope="link"),
        Route(f"10.244.{other}.0/24", "flannel.1", f"10.244.{other}.0", onlink=True),
    )
    part = Part(
        links=links,
        routes=routes,
        sysctls={"net.ipv4.ip_forward": 1},
        patches=(service(), Patch("filter")),
        neighbours=(Neighbour(f"10.244.{other}.0", "flannel.1", remote),),
        fdb=(FdbEntry(remote, "flannel.1", f"172.18.0.1{other}"),),
    )
    return assembled(f"node-{number}", "machine", part)


def router() -> Host:
    """The router between the machines and the client outside."""
    links = (
        loopback(),
        Link(
            "eth0",
            2,
            LinkKind.NIC,
            "02:fe:00:00:00:01",
            peer=Peer("switch", "p9"),
            addresses=(Address("172.18.0.1", 24),),
        ),
        Link(
            "wan0",
            3,
            LinkKind.NIC,
            "02:fe:00:00:00:02",
            peer=Peer("external", "eth0"),
            addresses=(Address("203.0.113.1", 24),),
        ),
    )
    routes = (
        Route("172.18.0.0/24", "eth0", source="172.18.0.1", scope="link"),
        Route("203.0.113.0/24", "wan0", source="203.0.113.1", scope="link"),
    )
    return assembled("router", "router", Part(links=links, routes=routes, sysctls={"net.ipv4.ip_forward": 1}))


def client() -> Host:
    """The client outside."""
    link = Link(
        "eth0",
        2,
        LinkKind.NIC,
        "02:fd:00:00:00:01",
        peer=Peer("router", "wan0"),
        addresses=(Address("203.0.113.10", 24),),
    )
    routes = (
        Route("default", "eth0", "203.0.113.1"),
        Route("203.0.113.0/24", "eth0", source="203.0.113.10", scope="link"),
    )
    return assembled("external", "client", Part(links=(loopback(), link), routes=routes))


def switch() -> Host:
    """The switch that the machines and the router are plugged into."""
    ends = ((1, "node-1"), (2, "node-2"), (9, "router"))
    ports = (
        Link(f"p{at}", 1 + at, LinkKind.NIC, f"02:ff:00:00:00:0{at}", master="br0", peer=Peer(name, "eth0"))
        for at, name in ends
    )
    return assembled("switch", "switch", Part(links=(Link("br0", 1, LinkKind.BRIDGE, "02:ff:00:00:00:00"), *ports)))


def network() -> Network:
    """The whole network, made anew."""
    ports = {1: 0, 2: 0}
    hosts = {}
    for name, (ip, on) in PODS.items():
        hosts[name] = pod(name, ip, on, ports[on])
        ports[on] += 1
    for host in (node(1), node(2), switch(), router(), client()):
        hosts[host.name] = host
    return Network(hosts)


def trace(of: Network, source: str, address: str, port: int = 80, target: str = "", seed: int = 7) -> Trace:
    """The trace of one TCP packet, with every outcome of its load balancing."""
    names = {ip: (name, on) for name, (ip, on) in PODS.items()}

    def backend(found: Exchange) -> Backend | None:
        if found.arrival is None or found.arrival.packet.ip.dst not in names:
            return None
        name, on = names[found.arrival.packet.ip.dst]
        namespace, _, short = name.partition("/")
        return Backend(namespace, short, f"node-{on}", found.arrival.packet.ip.dst, port)

    def outcomes() -> tuple[Outcome, ...]:
        ways = every(lambda choose: exchange(World(of, random.Random(seed), choose=choose), source, address, port))
        return tuple(
            Outcome(chance, way.fate, way.client, backend(way), way.source, way.reason) for chance, way in ways
        )

    found = exchange(World(of, random.Random(seed)), source, address, port)
    request = Request(source, target or f"{address}:{port}", address, port)
    return Trace(
        request,
        found.fate,
        found.client,
        found.reason,
        found.steps,
        found.reply,
        backend(found),
        found.source,
        outcomes,
    )
