"""Where the proxy modes are not the same: rows of `shapes` that end otherwise in a mode, by the name of the row.

A mode that is not named here does everything as the table says. The reasons stand with the rows; what is no documented
difference is a fault of the mode.
"""

from __future__ import annotations

from collections.abc import Mapping

from k8snetlab.trace import Client, Verdict
from tests.services.shapes import DROPPED, FROM_ANT, LOST, REFUSED, WEB, Ends, opens, unheard

__all__ = ["DIFFERENCES"]

# A cluster address is looked up as a whole: a port that it has not is rejected, and what is in the Service network and
# no Service's is dropped at once. Node ports are open at the address of the node's card alone. What the node itself
# sends is refused as well.
NFTABLES: Mapping[str, Ends] = {
    "caller-ant > web:81": REFUSED,
    "caller-ant > web:8080": REFUSED,
    "caller-ant > web:80/UDP": REFUSED,
    "ant > web:81": REFUSED,
    "caller-ant > 10.96.99.99:80": DROPPED,
    "ant > 10.96.99.99:80": DROPPED,
    "caller-ant > multi:82": REFUSED,
    "caller-ant > nobody:81": REFUSED,
    "caller-ant > sctp:7": REFUSED,
    "caller-ant > web6:81 in IPv6": REFUSED,
    "ant > 127.0.0.1:30080": REFUSED,
    "ant > 127.0.0.7:30080": REFUSED,
    "ant > 127.0.0.1:30081": REFUSED,
    "caller-ant > ant's bridge:30080": REFUSED,
    "caller-ant > bee's bridge:30080": REFUSED,
    "caller-ant > ant's bridge:30080 in IPv6": REFUSED,
    "ant > 198.51.100.8:80": REFUSED,
    "ant > 192.0.2.7:80": REFUSED,
}

# A Service address is the node's own there. Its other ports are rejected, and the node itself is told as well.
OTHER_PORTS = (
    "caller-ant > web:81", "caller-ant > web:8080", "caller-ant > web:80/UDP", "ant > web:81", "caller-ant > multi:82",
    "caller-ant > nobody:81", "caller-ant > sctp:7", "caller-ant > 198.51.100.1:81",
    "outside via ant > 198.51.100.1:81",
    "ant > 198.51.100.8:80", "ant > 192.0.2.7:80", "caller-ant > web6:81 in IPv6",
)  # fmt: skip

# No virtual server has a loopback address.
LOOPBACK = ("ant > 127.0.0.1:30080", "ant > 127.0.0.7:30080", "ant > 127.0.0.1:30081")

# Under policy Local every client gets the node's own backends, pods and the node too, whom nobody masquerades.
# A node without one of its own sends packets to all of them, which answer a client outside past it.
BOTH_UNHEARD = unheard(web_ant="client", web_bee="client")
NONE_HERE_IPVS = (
    "outside > cat:30081", "neighbour > cat:30081", "outside via cat > 198.51.100.2:80", "outside > cat:30083",
    "outside via cat > 192.0.2.6:80", "outside > cat:30081 in IPv6",
)  # fmt: skip

# A node's own packets have the address they are for as their source. Where nobody masquerades them, the other nodes,
# which have that address too, do not even answer for themselves.
MISTAKEN = Ends(Client.UNREACHABLE, fate=Verdict.UNREACHABLE)

IPVS: Mapping[str, Ends] = {
    **dict.fromkeys((*OTHER_PORTS, *LOOPBACK), REFUSED),
    **dict.fromkeys(NONE_HERE_IPVS, BOTH_UNHEARD),
    **dict.fromkeys(("cat > 198.51.100.2:80", "cat > 192.0.2.6:80"), MISTAKEN),
    **dict.fromkeys(("caller-cat > near:80", "cat > near:80"), WEB),  # it has a node port: all backends stand behind it
    "outside via cat > near:80": opens(web_ant="cat", web_bee="cat"),
    "caller-cat > zone-local:80": REFUSED,  # it has none: nobody stands behind it
    "caller-ant > ant:30081": opens(web_ant="client"),
    "caller-ant > bee:30081": opens(web_bee="client"),
    "web-ant > ant:30081": opens(web_ant="ant's bridge"),
    "ant > ant:30081": opens(web_ant="client"),
    "ant > ant:30081 in IPv6": opens(web_ant="client"),
    "ant > 198.51.100.2:80": opens(web_ant="198.51.100.2"),
    "ant > cat:30081": Ends(Client.TIMEOUT, unheard={"": "DROPPED", "web-bee": "client"}),  # led back, ant is mistaken
    "outside > bee:30106": unheard(leaving_ant="client"),
    "outside > cat:30107": unheard(mixed_bee="client"),
    "caller-ant > ant:30107": opens(mixed_ant="client"),
    "outside > ant:30109": unheard(bee="client"),
}

# The socket is led to a backend: what leaves a pod or node carries the backend's address and the sender's own, at node
# ports and load balancer addresses too, and nothing is masqueraded.
UNMASKED = (
    "web-ant > web:80", "web-bee > web:80", "caller-ant > ant:30080", "caller-ant > bee:30080",
    "caller-ant > cat:30080", "web-ant > ant:30080", "web-ant > ant:30081", "caller-ant > 198.51.100.1:80",
    "caller-cat > 198.51.100.1:80", "caller-bee > 198.51.100.3:80", "caller-ant > 192.0.2.5:80", "web-ant > sticky:80",
    "web-ant > web:80 in IPv6", "caller-ant > bee:30080 in IPv6", "caller-ant > [2001:db8:51::1]:80 in IPv6",
)  # fmt: skip

# So no other node is asked, which might have dropped the packet, or let the answer go astray.
STRAIGHT = ("caller-ant > bee:30081", "caller-ant > cat:30081")
STRAIGHT_FROM_NODE = ("ant > bee:30080", "ant > bee:30081", "ant > cat:30081")

# Nor do source ranges hold for those inside.
INSIDE = ("caller-ant > 198.51.100.3:80", "caller-ant > 198.51.100.6:80")

# Without a backend for it, connect() fails at once; it matters not whether another node has one.
NOBODY = Ends(Client.UNREACHABLE, fate=Verdict.UNREACHABLE)
LED_TO_NOBODY = (
    "caller-ant > 198.51.100.8:80", "ant > 198.51.100.8:80", "caller-ant > 192.0.2.7:80", "ant > 192.0.2.7:80",
    "caller-cat > near:80", "cat > near:80", "caller-cat > near-nobody:80", "caller-ant > nobody:80", "ant > nobody:80",
    "caller-ant > bee:30101", "ant > ant:30101", "caller-ant > sick:80", "caller-ant > gone:80",
    "caller-cat > zone-local:80", "caller-ant > dns-nobody:53/UDP", "caller-ant > nobody:80 in IPv6",
)  # fmt: skip

# From outside the node hides the client only from backends on other nodes.
HALF_HIDDEN_BY_ANT = opens(web_ant="client", web_bee="ant")
THROUGH_ANT = (
    "outside > ant:30080", "neighbour > ant:30080", "outside via ant > 198.51.100.1:80", "outside > ant:30082",
    "outside via ant > 198.51.100.3:80", "stranger > ant:30084", "stranger via ant > 198.51.100.4:80",
    "stranger via ant > 198.51.100.5:80", "outside > ant:30088", "outside > ant:30089",
    "outside via ant > 192.0.2.5:80", "outside > ant:30009", "outside > ant:30080 in IPv6",
    "outside > ant:30082 in IPv6", "outside via ant > [2001:db8:51::1]:80 in IPv6",
)  # fmt: skip

# Where a node has no backend of its own under policy Local, it says so.
NONE_HERE = (
    "outside > cat:30081", "neighbour > cat:30081", "outside via cat > 198.51.100.2:80", "outside > cat:30083",
    "outside via cat > 192.0.2.6:80", "outside > bee:30106", "outside > cat:30107", "outside > ant:30109",
    "outside > cat:30081 in IPv6",
)  # fmt: skip

# Cluster addresses are not for who comes from outside.
NOT_FROM_OUTSIDE = (
    "outside via ant > web:80", "outside via cat > web:80", "neighbour via cat > web:80",
    "outside via cat > node-local:80", "outside via ant > near:80", "outside via ant > nobody:80",
    "outside via ant > same-zone:80", "outside via cat > web:80 in IPv6",
)  # fmt: skip

# Node ports are those of nodes, not of the bridges on them.
BRIDGES = (
    "caller-ant > ant's bridge:30080", "caller-ant > bee's bridge:30080", "caller-ant > ant's bridge:30080 in IPv6",
)  # fmt: skip

EBPF: Mapping[str, Ends] = {
    **dict.fromkeys((*UNMASKED, *STRAIGHT, *INSIDE), WEB),
    **dict.fromkeys(STRAIGHT_FROM_NODE, FROM_ANT),
    **dict.fromkeys(LED_TO_NOBODY, NOBODY),
    **dict.fromkeys(THROUGH_ANT, HALF_HIDDEN_BY_ANT),
    **dict.fromkeys((*NONE_HERE, *BRIDGES), REFUSED),
    **dict.fromkeys(NOT_FROM_OUTSIDE, DROPPED),
    "outside > bee:30080": opens(web_ant="bee", web_bee="client"),
    "ant > 198.51.100.3:80": FROM_ANT,
    "web-ant > near:80": opens(web_ant="client"),
    "caller-ant > cat:30109": opens(bee="client"),
    # Loopback addresses of both families are a node's own.
    "ant > [::1]:30080": opens(web_ant="fd00:10:244:1::1", web_bee="fd00:172:18::11"),
    # A socket is not led from an external address that is not the node's own, and only pods' devices balance packets.
    "ant > 192.0.2.5:80": LOST,
    "cat > 192.0.2.6:80": LOST,
    # No socket program knows SCTP, which is balanced packet by packet at pods' devices, and not for nodes.
    "bee > sctp:7/SCTP": LOST,
    "sctp-bee > sctp:7/SCTP": opens(sctp_bee="169.254.42.1"),
}

DIFFERENCES: Mapping[str, Mapping[str, Ends]] = {"nftables": NFTABLES, "ipvs": IPVS, "ebpf": EBPF}
"""By the name of the mode."""
