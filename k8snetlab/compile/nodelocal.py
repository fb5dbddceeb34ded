"""Who answers pods when a name server stands on every node?

NodeLocal DNSCache runs with the node's network on each node. A dummy device, *nodelocaldns*, gives the node one more
address, 169.254.20.10, the same on all nodes; kubelets write it into every resolv.conf in the place of the cluster's
DNS. So a question never leaves the node unless the cache does not know the answer: then it goes to the cluster's DNS,
by TCP, or for names of the world to the node's own name servers.

The rules of CNIs that enforce policies stand before its own: they see to that themselves, again and again. So a pod
whose egress is denied does not reach the cache either, unless a policy allows 169.254.20.10.

Its rules keep those packets away from conntrack: two questions that leave one socket at the same time race for their
entry there, and the loser is dropped (and asked again after five seconds).

Not modelled: the variant that takes the address of kube-dns as well, so that resolv.conf need not change; the race
itself; health checks. Guide section 2.3; Kubernetes "Using NodeLocal DNSCache".
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

from k8snetlab.address import Prefix
from k8snetlab.dns.resolvconf import NODE_LOCAL
from k8snetlab.linux.host import Part
from k8snetlab.linux.link import Address, Link, LinkKind
from k8snetlab.linux.netfilter import ACCEPT, L4, NOTRACK, Comment, Destination, Patch, Protocol4, Rule, Source, Target
from k8snetlab.linux.socket import Listener

__all__ = ["PROGRAM", "node_local"]

PROGRAM = "node-cache"
DEVICE = "nodelocaldns"
INDEX = 900
"""The device comes last."""

_BLOCK = Prefix.of(f"{NODE_LOCAL}/32")


def node_local(node: str) -> Part:
    """What NodeLocal DNSCache adds to a node: the device with its address, its listeners and its rules."""
    digest = sha256(f"{node} {DEVICE}".encode()).digest()
    mac = "02:" + ":".join(f"{byte:02x}" for byte in digest[:5])
    device = Link(DEVICE, INDEX, LinkKind.DUMMY, mac, up=False, addresses=(Address(NODE_LOCAL, 32),))
    listeners = tuple(Listener(protocol, 53, NODE_LOCAL, PROGRAM) for protocol in ("UDP", "TCP"))
    return Part(
        links=(device,),
        listeners=listeners,
        patches=(Patch("raw", first=tuple(_raw())), Patch("filter", first=tuple(_filter()))),
    )


def _raw() -> Iterator[Rule]:
    yield from _rules("raw", "PREROUTING", NOTRACK, to=True)
    yield from _rules("raw", "OUTPUT", NOTRACK, to=False)
    yield from _rules("raw", "OUTPUT", NOTRACK, to=True)


def _filter() -> Iterator[Rule]:
    yield from _rules("filter", "INPUT", ACCEPT, to=True)
    yield from _rules("filter", "OUTPUT", ACCEPT, to=False)


def _rules(table: str, chain: str, target: Target, *, to: bool) -> Iterator[Rule]:
    said = "skip conntrack" if table == "raw" else "allow DNS traffic"
    for protocol in ("UDP", "TCP"):
        name = protocol.lower()
        end = Destination(_BLOCK) if to else Source(_BLOCK)
        ports = L4(name, dport=53) if to else L4(name, sport=53)
        comment = Comment(f"NodeLocal DNS Cache: {said}")
        yield Rule(table, chain, (end, Protocol4(protocol), ports, comment), target)
