"""Where the proxy modes are not the same: rows of `shapes` that end otherwise in a mode, by the name of the row.

A mode that is not named here does everything as the table says. The reasons stand with the rows; what is no documented
difference is a fault of the mode.
"""

from __future__ import annotations

from collections.abc import Mapping

from tests.services.shapes import DROPPED, REFUSED, Ends

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

IPVS: Mapping[str, Ends] = {}

EBPF: Mapping[str, Ends] = {}

DIFFERENCES: Mapping[str, Mapping[str, Ends]] = {"nftables": NFTABLES, "ipvs": IPVS, "ebpf": EBPF}
"""By the name of the mode."""
