"""A small network made by hand, and a walk through it as a trace.

Two machines joined by a VXLAN tunnel, a client on the first, a backend on each, and a virtual address that a rule of
chance maps to one of the two. No word of Kubernetes: what is tested with it needs machines and rules only.
"""

import random

from k8snetlab.address import Prefix
from k8snetlab.linux.host import Host, Network, Part, assembled
from k8snetlab.linux.link import Address, FdbEntry, Link, LinkKind, Neighbour, Peer, Vxlan, loopback
from k8snetlab.linux.netfilter import (
    DROP,
    Chain,
    Comment,
    Destination,
    Dnat,
    Jump,
    Patch,
    Rule,
    SetMark,
    Source,
    Statistic,
)
from k8snetlab.linux.route import Route
from k8snetlab.linux.socket import Listener
from k8snetlab.linux.walk import Choose, World, every, exchange
from k8snetlab.trace import Backend, Outcome, Request, Trace

VIP = "10.96.3.4"


def mac(number: int) -> str:
    """A MAC address made of a small number."""
    return f"0a:00:00:00:00:{number:02x}"


def container(number: int, node: int, *listeners: Listener) -> Host:
    """A container behind the bridge of a machine, listening as told."""
    ip = f"10.244.{node}.{number}"
    eth0 = Link("eth0", 2, LinkKind.VETH, mac(10 * node + number), 1450, peer=Peer(f"node-{node}", f"veth{number}"),
                addresses=(Address(ip, 24),))  # fmt: skip
    routes = (
        Route(f"10.244.{node}.0/24", "eth0", source=ip, scope="link", protocol="kernel"),
        Route("default", "eth0", via=f"10.244.{node}.1"),
    )
    return assembled(f"shop/c{number}", "container", Part((loopback(), eth0), routes, listeners=listeners))


def rules(*first: Rule) -> tuple[Patch, ...]:
    """A virtual address that is one of two backends, by chance; and what else is wanted."""
    comment = Comment("shop/api")
    nat = (Rule("nat", "PREROUTING", (Destination(Prefix.of(f"{VIP}/32")), comment), Jump("SERVICE")),)
    choice = (
        Rule("nat", "SERVICE", (), SetMark(0x1, 0x1)),
        Rule("nat", "SERVICE", (Statistic(0.25),), Jump("HERE")),
        Rule("nat", "SERVICE", (), Jump("THERE")),
    )
    here = (Rule("nat", "HERE", (), Dnat("10.244.1.3", 8080)),)
    there = (Rule("nat", "THERE", (), Dnat("10.244.2.4", 8080)),)
    chains = {"SERVICE": Chain("SERVICE", choice), "HERE": Chain("HERE", here), "THERE": Chain("THERE", there)}
    return (Patch("nat", last=nat, chains=chains), Patch("filter", last=first))


def machine(number: int, ports: tuple[int, ...], patches: tuple[Patch, ...]) -> Host:
    """A machine with a bridge for its containers and a tunnel to the other machine."""
    other = 3 - number
    links = (
        loopback(),
        Link("eth0", 2, LinkKind.NIC, mac(number), addresses=(Address(f"172.18.0.{number}", 16),),
             peer=Peer(f"node-{other}", "eth0")),
        Link("cni0", 3, LinkKind.BRIDGE, mac(100 + number), 1450, addresses=(Address(f"10.244.{number}.1", 24),)),
        Link("flannel.1", 4, LinkKind.VXLAN, mac(110 + number), 1450, addresses=(Address(f"10.244.{number}.0", 32),),
             vxlan=Vxlan(1, f"172.18.0.{number}", "eth0", 8472)),
        *(Link(f"veth{port}", 10 + port, LinkKind.VETH, mac(120 + port), 1450, master="cni0", hairpin=True,
               peer=Peer(f"shop/c{port}", "eth0")) for port in ports),
    )  # fmt: skip
    routes = (
        Route("172.18.0.0/16", "eth0", source=f"172.18.0.{number}", scope="link", protocol="kernel"),
        Route(f"10.244.{number}.0/24", "cni0", source=f"10.244.{number}.1", scope="link", protocol="kernel"),
        Route(f"10.244.{other}.0/24", "flannel.1", via=f"10.244.{other}.0", onlink=True),
    )
    neighbour = Neighbour(f"10.244.{other}.0", "flannel.1", mac(110 + other))
    entry = FdbEntry(mac(110 + other), "flannel.1", f"172.18.0.{other}")
    forwards = {"net.ipv4.ip_forward": 1}
    return assembled(f"node-{number}", "machine", Part(links, routes, (), (neighbour,), (entry,), forwards, patches))


def network(*first: Rule) -> Network:
    """Client c2 and backend c3 on node-1, backend c4 on node-2."""
    web = Listener("TCP", 8080, program="web")
    containers = (container(2, 1), container(3, 1, web), container(4, 2, web))
    hosts = (*containers, machine(1, (2, 3), rules(*first)), machine(2, (4,), ()))
    return Network({host.name: host for host in hosts})


BACKENDS = {
    "shop/c3": Backend("shop", "c3", "node-1", "10.244.1.3", 8080),
    "shop/c4": Backend("shop", "c4", "node-2", "10.244.2.4", 8080),
}


def traced(lab: Network, port: int = 80, choose: Choose | None = None) -> Trace:
    """A walk from c2 to the virtual address, as a trace; it chooses the other machine unless told otherwise."""

    def walked(choose: Choose) -> tuple[Trace, Outcome]:
        found = exchange(World(lab, random.Random(7), choose=choose), "shop/c2", VIP, port, sport=40000)
        backend = BACKENDS[found.arrival.host] if found.arrival is not None else None
        seen = found.arrival.packet.ip.src if found.arrival is not None else ""
        request = Request("shop/c2", f"{VIP}:{port}", VIP, port)
        ending = (found.fate, found.client, found.reason)
        trace = Trace(request, *ending, found.steps, found.reply, backend, seen, explore)
        return trace, Outcome(1.0, found.fate, found.client, backend, seen, found.reason)

    def explore() -> tuple[Outcome, ...]:
        return tuple(Outcome(p, o.verdict, o.client, o.backend, o.source_seen, o.reason) for p, (_, o) in every(walked))

    return walked(choose or (lambda probability: False))[0]


LOSING = Rule("filter", "FORWARD", (Source(Prefix.of("10.244.1.2/32")), Destination(Prefix.of("10.244.2.0/24"))), DROP)
"""Drops what the client sends to the other machine."""
