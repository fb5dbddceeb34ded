"""The packet-flow table of Services: who sends to which address, and what comes of it.

The cluster is `shapes.yaml`, on a plain bridge CNI that hides nobody's address. A row says the truth of Kubernetes:
what the client is told, which backends may get his packet, and whom each of them sees as the sender. Proxy modes differ
in few of these; `differences` has the rows of each mode that end otherwise.

The words of a row: a *source* is a pod, a node, `outside` (203.0.113.10, behind the router), `stranger` (192.0.2.77,
there too) or `neighbour` (172.18.0.100, on the nodes' own switch), with `via NODE` where somebody leads the traffic for
that address to a node. A *target* is a Service (its cluster address), a node, `NODE's bridge` (the address of its
device cni0) or an address, with a port. Whom a backend *sees* is `client` (the source's own address), a node (the
address of its card) or `NODE's bridge`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from k8snetlab.trace import Client, Verdict

__all__ = ["MANIFEST", "ROWS", "Ends", "Row"]

MANIFEST = Path(__file__).parent / "shapes.yaml"


class Ends(msgspec.Struct, frozen=True):
    """How it ends: what the client is told, whom each backend sees that may get the packet (by `NAME` or `NAME:PORT`),
    and the same of backends whose answer does not reach the client. All of these are equally likely.

    `fate` is what became of the packet where no backend got it.
    """

    client: Client
    to: Mapping[str, str] = {}
    unheard: Mapping[str, str] = {}
    fate: Verdict = Verdict.DELIVERED


class Row(msgspec.Struct, frozen=True):
    """One question and its answer. `of` is the address family of the target."""

    source: str
    target: str
    ends: Ends
    why: str
    of: int = 4

    @property
    def name(self) -> str:
        """What the row is called: `caller-ant > web:80`."""
        return f"{self.source} > {self.target}{' in IPv6' if self.of == 6 else ''}"


REFUSED = Ends(Client.REFUSED, fate=Verdict.REJECTED)
DROPPED = Ends(Client.TIMEOUT, fate=Verdict.DROPPED)
LOST = Ends(Client.TIMEOUT, fate=Verdict.TIMEOUT)  # nobody knows a way for it
ASTRAY = Ends(Client.UNREACHABLE, fate=Verdict.UNREACHABLE)  # sent to and fro until its time to live is used up


def opens(**seen: str) -> Ends:
    """Each of these backends may get it: `opens(web_ant="client", web_bee="ant")`."""
    return Ends(Client.OPEN, _named(seen))


def unheard(**seen: str) -> Ends:
    """Each of these may get it, and the client hears none of them."""
    return Ends(Client.TIMEOUT, unheard=_named(seen), fate=Verdict.TIMEOUT)


def partly(heard: Mapping[str, str], lost: Mapping[str, str]) -> Ends:
    """Chance decides: the answers of some arrive, those of others do not."""
    return Ends(Client.OPEN, heard, lost)


def _named(seen: Mapping[str, str]) -> Mapping[str, str]:
    return {name.replace("_", "-"): who for name, who in seen.items()}


WEB = opens(web_ant="client", web_bee="client")
"""Both pods, which see the client itself."""

BY_ANT = opens(web_ant="ant's bridge", web_bee="ant")
"""Both pods, masqueraded by ant: its own pod sees the bridge that the packet leaves by."""

BY_BEE = opens(web_ant="bee", web_bee="bee's bridge")
BY_CAT = opens(web_ant="cat", web_bee="cat")

FROM_ANT = opens(web_ant="ant's bridge", web_bee="client")
"""Both pods, for a connection of node ant itself: its card's address is its own."""

FROM_BEE = opens(web_ant="client", web_bee="bee's bridge")

ANT, BEE = opens(web_ant="client"), opens(web_bee="client")


CLUSTER_IP = (
    Row("caller-ant", "web:80", WEB, "a pod keeps its address"),
    Row("caller-cat", "web:80", WEB, "whichever node it is on"),
    Row("web-ant", "web:80", opens(web_ant="ant's bridge", web_bee="client"),
        "hairpin: masqueraded only where the backend is the sender"),
    Row("web-bee", "web:80", opens(web_ant="client", web_bee="bee's bridge"), "hairpin is judged per backend"),
    Row("ant", "web:80", FROM_ANT, "a node is no pod: masqueraded"),
    Row("cat", "web:80", WEB, "masqueraded with the address it has anyway"),
    Row("host-bee", "web:80", FROM_BEE, "a pod with the node's network sends as the node"),
    Row("outside via ant", "web:80", BY_ANT, "led to a node, a cluster address works, and the node hides the client"),
    Row("outside via cat", "web:80", BY_CAT, "also by a node without a backend"),
    Row("neighbour via cat", "web:80", BY_CAT, "who is no pod is masqueraded"),
    Row("caller-ant", "web:81", LOST, "no rule for this port: the packet leaves the cluster"),
    Row("caller-ant", "web:8080", LOST, "the target port is not a port of the Service"),
    Row("caller-ant", "web:80/UDP", LOST, "nor is another protocol"),
    Row("ant", "web:81", LOST, "a node is not told either"),
    Row("caller-ant", "10.96.99.99:80", LOST, "an address of no Service"),
    Row("ant", "10.96.99.99:80", LOST, "nor does a node know a way to it"),
    Row("outside", "web:80", LOST, "nobody outside knows where cluster addresses are"),
    Row("caller-ant", "multi:80", opens(**{"web-ant:8080": "client", "web-bee:8080": "client"}), "the first port"),
    Row("caller-ant", "multi:81", opens(**{"web-ant:8081": "client", "web-bee:8081": "client"}), "the second port"),
    Row("caller-ant", "multi:82", LOST, "no third port"),
    Row("caller-ant", "named:80", opens(**{"named-ant:8080": "client", "named-bee:9090": "client"}),
        "a named target port is each pod's own number"),
    Row("caller-ant", "manual:80", opens(web_bee="client"), "a slice written by hand; what it does not say is ready"),
    Row("ant", "elder:80", opens(**{"external:172.18.0.200:9000": "client"}), "a machine that is no pod"),
    Row("caller-ant", "elder:80", Ends(Client.TIMEOUT, unheard={"external:172.18.0.200": "client"}),
        "that machine knows no way back to pods, and this CNI does not hide them"),
)  # fmt: skip

NODE_PORT = (
    Row("outside", "ant:30080", BY_ANT, "policy Cluster: masqueraded, whatever backend is taken"),
    Row("outside", "bee:30080", BY_BEE, "every node takes it"),
    Row("outside", "cat:30080", BY_CAT, "also one without a backend"),
    Row("neighbour", "ant:30080", BY_ANT, "from the nodes' own network too"),
    Row("caller-ant", "ant:30080", BY_ANT, "pods as well are masqueraded, to a backend beside them too"),
    Row("caller-ant", "bee:30080", BY_BEE, "by the node that was asked"),
    Row("caller-ant", "cat:30080", BY_CAT, "which need not have a backend"),
    Row("web-ant", "ant:30080", BY_ANT, "a backend that asks for itself"),
    Row("ant", "ant:30080", FROM_ANT, "a node asks itself"),
    Row("ant", "bee:30080", BY_BEE, "or another"),
    Row("cat", "cat:30080", WEB, "without a backend of its own"),
    Row("ant", "127.0.0.1:30080", FROM_ANT, "node ports answer at the loopback address"),
    Row("ant", "127.0.0.7:30080", FROM_ANT, "and at all of 127.0.0.0/8"),
    Row("ant", "[::1]:30080", REFUSED, "but never at ::1"),
    Row("caller-ant", "ant's bridge:30080", BY_ANT, "and at any other address of the node"),
    Row("caller-ant", "bee's bridge:30080", BY_BEE, "also of another node"),
    Row("outside", "ant:30080/UDP", REFUSED, "another protocol: nobody listens"),
    Row("outside", "ant:30999", REFUSED, "no Service has this port, and nobody listens"),
    Row("outside", "ant:80", REFUSED, "the Service's own port is not opened on nodes"),
    Row("caller-cat", "node:80", WEB, "the cluster address of a NodePort Service is like any other"),
)  # fmt: skip

NODE_PORT_LOCAL = (
    Row("outside", "ant:30081", ANT, "policy Local: the node's own backend, which sees the client"),
    Row("outside", "bee:30081", BEE, "each node has its own"),
    Row("outside", "cat:30081", DROPPED, "no backend here, though there are some elsewhere: dropped, not refused"),
    Row("neighbour", "cat:30081", DROPPED, "near or far"),
    Row("caller-ant", "ant:30081", WEB, "a pod goes straight to any backend, unmasqueraded"),
    Row("caller-cat", "cat:30081", WEB, "also where there is no backend"),
    Row("caller-ant", "bee:30081", partly({"web-bee": "client"}, {"web-ant": "client"}),
        "bee takes it for pod traffic; a backend elsewhere answers past bee, with an address nobody asked"),
    Row("caller-ant", "cat:30081", unheard(web_ant="client", web_bee="client"), "on cat no backend answers by cat"),
    Row("web-ant", "ant:30081", opens(web_ant="ant's bridge", web_bee="client"), "hairpin"),
    Row("ant", "ant:30081", FROM_ANT, "the node itself reaches all of them, masqueraded"),
    Row("cat", "cat:30081", WEB, "also without one of its own"),
    Row("ant", "bee:30081", BEE, "to another node, a node is from outside"),
    Row("ant", "cat:30081", DROPPED, "and is dropped there alike"),
    Row("ant", "127.0.0.1:30081", FROM_ANT, "at the loopback address it comes from the node itself"),
    Row("caller-cat", "node-local:80", WEB, "the policy for outside does not touch the cluster address"),
    Row("outside via cat", "node-local:80", BY_CAT, "even for who comes from outside"),
)  # fmt: skip

LOAD_BALANCER = (
    Row("outside via ant", "198.51.100.1:80", BY_ANT, "policy Cluster: the node that got it masquerades"),
    Row("outside via cat", "198.51.100.1:80", BY_CAT, "any node may get it"),
    Row("outside", "ant:30082", BY_ANT, "its node port"),
    Row("caller-ant", "198.51.100.1:80", BY_ANT, "a pod never leaves its node for it, and is masqueraded"),
    Row("caller-cat", "198.51.100.1:80", BY_CAT, "by the rules of its own node"),
    Row("ant", "198.51.100.1:80", FROM_ANT, "nor does a node"),
    Row("caller-ant", "lb:80", WEB, "its cluster address"),
    Row("outside via ant", "198.51.100.1:81", ASTRAY, "no rule for another port: the node sends it back to the router"),
    Row("caller-ant", "198.51.100.1:81", LOST, "and a pod's leaves the cluster"),
    Row("outside via ant", "198.51.100.2:80", ANT, "policy Local: seen as he is"),
    Row("outside via bee", "198.51.100.2:80", BEE, "on each node its own backend"),
    Row("outside via cat", "198.51.100.2:80", DROPPED, "a node without one should not have got it"),
    Row("caller-cat", "198.51.100.2:80", WEB, "pods take the short way to any backend"),
    Row("cat", "198.51.100.2:80", WEB, "and so does a node"),
    Row("ant", "198.51.100.2:80", FROM_ANT, "masqueraded"),
    Row("outside", "cat:30083", DROPPED, "its node port follows the policy too"),
    Row("caller-cat", "lb-local:80", WEB, "its cluster address does not"),
    Row("outside", "ant:31083", opens(ant="client"), "the health check node port is kube-proxy itself"),
    Row("outside", "cat:31083", opens(cat="client"), "on every node: it says there that no endpoint is here"),
    Row("outside via ant", "198.51.100.3:80", BY_ANT, "203.0.113.10 is in the source ranges"),
    Row("stranger via ant", "198.51.100.3:80", DROPPED, "192.0.2.77 is not"),
    Row("caller-ant", "198.51.100.3:80", DROPPED, "pods are judged too"),
    Row("caller-bee", "198.51.100.3:80", BY_BEE, "those of bee are in the ranges"),
    Row("ant", "198.51.100.3:80", DROPPED, "and nodes"),
    Row("stranger", "ant:30084", BY_ANT, "node ports are not limited"),
    Row("caller-ant", "lb-ranges:80", WEB, "nor is the cluster address"),
    Row("stranger via ant", "198.51.100.4:80", BY_ANT, "a range of length 0 lets everybody in, whatever else is said"),
    Row("stranger via ant", "198.51.100.5:80", BY_ANT, "ranges of the other family limit nothing"),
    Row("ant", "198.51.100.6:80", FROM_ANT, "a node within the ranges"),
    Row("caller-ant", "198.51.100.6:80", DROPPED, "a pod on it is not the node"),
    Row("outside via ant", "198.51.100.6:80", DROPPED, "nor is he"),
    Row("caller-ant", "198.51.100.7:80", LOST, "ipMode Proxy: no rules, so the packet leaves for the load balancer"),
    Row("ant", "198.51.100.7:80", LOST, "a node's too"),
    Row("outside", "ant:30088", BY_ANT, "which sends to node ports"),
    Row("outside", "ant:30089", BY_ANT, "as does one that has a name instead of an address"),
    Row("outside via ant", "198.51.100.8:80", REFUSED, "no endpoints: refused"),
    Row("caller-ant", "198.51.100.8:80", REFUSED, "pods too"),
    Row("ant", "198.51.100.8:80", LOST, "but what the node itself sends is not looked at"),
    Row("outside", "ant:30090", REFUSED, "its node port"),
)  # fmt: skip

EXTERNAL_IPS = (
    Row("outside via ant", "192.0.2.5:80", BY_ANT, "policy Cluster: masqueraded"),
    Row("caller-ant", "192.0.2.5:80", BY_ANT, "pods stay on their node"),
    Row("ant", "192.0.2.5:80", FROM_ANT, "as the node does"),
    Row("outside via ant", "192.0.2.6:80", ANT, "policy Local"),
    Row("outside via cat", "192.0.2.6:80", DROPPED, "where there is no backend"),
    Row("caller-cat", "192.0.2.6:80", WEB, "the short way of pods"),
    Row("cat", "192.0.2.6:80", WEB, "and of nodes"),
    Row("outside via ant", "192.0.2.7:80", REFUSED, "no endpoints"),
    Row("caller-ant", "192.0.2.7:80", REFUSED, "for pods as well"),
    Row("ant", "192.0.2.7:80", LOST, "not for what the node itself sends"),
)  # fmt: skip

INTERNAL_LOCAL = (
    Row("caller-ant", "near:80", ANT, "internal policy Local: the pod on the same node"),
    Row("caller-bee", "near:80", BEE, "on each node its own"),
    Row("caller-cat", "near:80", DROPPED, "never another node's"),
    Row("web-ant", "near:80", opens(web_ant="ant's bridge"), "hairpin"),
    Row("ant", "near:80", opens(web_ant="ant's bridge"), "for a node too"),
    Row("cat", "near:80", DROPPED, "with nothing to fall back to"),
    Row("outside via cat", "near:80", DROPPED, "whoever is led to the cluster address"),
    Row("outside via ant", "near:80", opens(web_ant="ant's bridge"), "and masqueraded where there is a backend"),
    Row("outside", "cat:30007", BY_CAT, "it does not touch node ports"),
    Row("caller-cat", "near-nobody:80", REFUSED, "no endpoint anywhere is refused, not dropped"),
)  # fmt: skip

AFFINITY = (
    Row("caller-ant", "sticky:80", WEB, "the first choice is random"),
    Row("outside", "ant:30009", BY_ANT, "at a node port too"),
    Row("web-ant", "sticky:80", opens(web_ant="ant's bridge", web_bee="client"), "hairpin"),
)  # fmt: skip

CONDITIONS = (
    Row("caller-ant", "nobody:80", REFUSED, "no endpoints at all"),
    Row("ant", "nobody:80", REFUSED, "for a node too"),
    Row("outside via ant", "nobody:80", REFUSED, "and from outside"),
    Row("caller-ant", "nobody:81", LOST, "another port is still no port"),
    Row("outside", "ant:30101", REFUSED, "its node port"),
    Row("caller-ant", "bee:30101", REFUSED, "from a pod"),
    Row("ant", "ant:30101", REFUSED, "from the node itself"),
    Row("outside", "ant:30102", REFUSED, "policy Local without any endpoint: refused, not dropped"),
    Row("caller-ant", "half:80", opens(half_bee="client"), "an unready pod is left out"),
    Row("caller-ant", "sick:80", REFUSED, "and is no last resort"),
    Row("caller-ant", "published:80", opens(sick_ant="client"), "unless the Service publishes unready addresses"),
    Row("caller-ant", "leaving:80", opens(leaving_ant="client"), "one that goes away and still serves is"),
    Row("outside", "ant:30106", opens(leaving_ant="client"), "for policy Local as well"),
    Row("outside", "bee:30106", DROPPED, "on its own node"),
    Row("caller-cat", "cat:30106", opens(leaving_ant="client"), "and for pods everywhere"),
    Row("caller-ant", "mixed:80", opens(mixed_bee="client"), "while somebody is ready, nobody who leaves is asked"),
    Row("outside", "ant:30107", opens(mixed_ant="client"), "but on a node that has no other, policy Local takes him"),
    Row("outside", "bee:30107", opens(mixed_bee="client"), "and on the next the ready one"),
    Row("outside", "cat:30107", DROPPED, "and on the third nobody"),
    Row("caller-ant", "ant:30107", opens(mixed_bee="client"), "a pod's short way knows the ready one only"),
    Row("caller-ant", "gone:80", REFUSED, "one that goes away and serves no more is no endpoint"),
    Row("caller-ant", "host:80", opens(**{"bee:8090": "client"}), "a backend with its node's network"),
    Row("caller-bee", "host:80", opens(bee="client"), "beside it"),
    Row("ant", "host:80", opens(bee="client"), "from another node"),
    Row("bee", "host:80", opens(bee="client"), "from its own"),
    Row("outside", "bee:30109", opens(bee="client"), "policy Local"),
    Row("outside", "ant:30109", DROPPED, "of which there is one on bee alone"),
    Row("caller-ant", "ant:30109", opens(bee="client"), "a pod's short way from its own node"),
    Row("caller-ant", "bee:30109", opens(bee="client"), "and on the backend's"),
    Row("caller-ant", "cat:30109", unheard(bee="client"), "and on a third, which the answer does not come back by"),
)  # fmt: skip

ZONES = (
    Row("caller-ant", "same-zone:80", opens(spread_ant="client"), "ant is alone in its zone"),
    Row("caller-bee", "same-zone:80", opens(spread_bee="client", spread_cat="client"), "bee and cat share one"),
    Row("cat", "same-zone:80", opens(spread_bee="client", spread_cat="cat's bridge"), "nodes are in zones too"),
    Row("outside via ant", "same-zone:80", opens(spread_ant="ant's bridge"), "and who is led to them"),
    Row("caller-bee", "same-node:80", opens(spread_bee="client"), "PreferSameNode"),
    Row("caller-cat", "same-node:80", opens(spread_cat="client"), "on each node its own"),
    Row("caller-cat", "two-zones:80", BEE, "no pod on cat: its zone"),
    Row("caller-ant", "two-zones:80", ANT, "a pod on ant: that one"),
    Row("caller-ant", "other-zone:80", opens(far_bee="client"), "nobody in this zone: anybody"),
    Row("caller-bee", "other-zone:80", opens(far_bee="client"), "somebody in that one"),
    Row("caller-ant", "zone-half:80", opens(half_bee="client"), "an unready pod in the zone is nobody"),
    Row("caller-cat", "zone-local:80", DROPPED, "policy Local does not look at zones"),
    Row("caller-bee", "zone-local:80", opens(far_bee="client"), "only at the node"),
)  # fmt: skip

PROTOCOLS = (
    Row("caller-ant", "dns:53/UDP", opens(dns_ant="client", dns_bee="client"), "UDP"),
    Row("caller-ant", "dns:53", opens(dns_ant="client", dns_bee="client"), "the same number in TCP"),
    Row("ant", "dns:53/UDP", opens(dns_ant="ant's bridge", dns_bee="client"), "from a node"),
    Row("outside", "cat:30053/UDP", opens(dns_ant="cat", dns_bee="cat"), "one node port"),
    Row("outside", "cat:30053", opens(dns_ant="cat", dns_bee="cat"), "for both"),
    Row("caller-ant", "dns-nobody:53/UDP", REFUSED, "a UDP client is told too, by ICMP"),
    Row("caller-ant", "sctp:7/SCTP", opens(sctp_bee="client"), "SCTP"),
    Row("bee", "sctp:7/SCTP", opens(sctp_bee="bee's bridge"), "masqueraded like the others"),
    Row("sctp-bee", "sctp:7/SCTP", opens(sctp_bee="bee's bridge"), "hairpin"),
    Row("outside", "ant:30077/SCTP", opens(sctp_bee="ant"), "node port"),
    Row("caller-ant", "sctp:7", LOST, "not for TCP"),
    Row("outside", "ant:30077", REFUSED, "nor at the node port"),
)  # fmt: skip

IPV6 = (
    Row("caller-ant", "web:80", WEB, "the second address of a dual-stack Service", 6),
    Row("web-ant", "web:80", opens(web_ant="ant's bridge", web_bee="client"), "hairpin", 6),
    Row("ant", "web:80", FROM_ANT, "a node", 6),
    Row("outside via cat", "web:80", BY_CAT, "from outside", 6),
    Row("caller-ant", "web6:80", WEB, "a Service of IPv6 only", 6),
    Row("caller-ant", "web6:81", LOST, "a port it has not", 6),
    Row("outside", "ant:30080", BY_ANT, "node port", 6),
    Row("caller-ant", "bee:30080", BY_BEE, "from a pod", 6),
    Row("caller-ant", "ant's bridge:30080", BY_ANT, "at any address of the node", 6),
    Row("outside", "ant:30081", ANT, "policy Local", 6),
    Row("outside", "cat:30081", DROPPED, "without a backend", 6),
    Row("ant", "ant:30081", FROM_ANT, "the node's short way", 6),
    Row("outside via ant", "[2001:db8:51::1]:80", BY_ANT, "a load balancer's address", 6),
    Row("caller-ant", "[2001:db8:51::1]:80", BY_ANT, "from a pod", 6),
    Row("caller-ant", "nobody:80", REFUSED, "no endpoints", 6),
    Row("outside", "ant:30101", REFUSED, "nor at the node port", 6),
    Row("outside", "ant:30082", BY_ANT, "the load balancer's node port", 6),
)  # fmt: skip

ROWS = (
    *CLUSTER_IP, *NODE_PORT, *NODE_PORT_LOCAL, *LOAD_BALANCER, *EXTERNAL_IPS, *INTERNAL_LOCAL, *AFFINITY, *CONDITIONS,
    *ZONES, *PROTOCOLS, *IPV6,
)  # fmt: skip
