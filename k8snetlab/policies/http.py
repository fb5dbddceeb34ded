"""What does a proxy say to a request that a policy does not like?

Where a CiliumNetworkPolicy reads HTTP, the programs at the devices lead the connection to a proxy of the node (Envoy).
The connection opens as if nothing were there; then every request is compared with what is wanted, and one that is not
is answered with 403 by the proxy itself. The program behind never hears of it.

A request passes if one rule wants it. What another policy allows at that port without reading requests passes as a
whole. Where both ends have such a policy, there are two proxies, and both must agree.

Not modelled: what else a proxy does to a request (header lines of its own, time limits), anything but HTTP/1.1 in the
connection (the proxy answers 400), metrics. Guide section 4.1; Cilium 1.19.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from k8snetlab.linux.datapath import Permit, Request
from k8snetlab.trace import Step

__all__ = ["DENIED", "Request", "RequestVerdict", "answered"]

DENIED = "Access denied"
"""The body of the proxy's answer."""


class RequestVerdict(msgspec.Struct, frozen=True):
    """Whether a request reaches the program; true if it does. `status` is 403 where a proxy answered, otherwise 0: then
    it is for the program to say. `where` is the node of that proxy, `entry` the entry of the policy map that led there.
    """

    request: Request
    status: int = 0
    where: str = ""
    entry: Permit | None = None

    def __bool__(self) -> bool:
        return not self.status

    @property
    def reason(self) -> str:
        """Why, in one sentence."""
        asked = f"{self.request.method} {self.request.path}"
        if self.entry is None:
            return f"no proxy refuses {asked}"
        return f"the proxy on {self.where} answers {asked} with 403: {', '.join(self.entry.origin)} does not want it"


def answered(steps: Iterable[Step], request: Request) -> RequestVerdict:
    """What the proxies on a packet's way say to a request in its connection: the first that refuses it answers."""
    for step in steps:
        entry = step.rule
        if isinstance(entry, Permit) and entry.proxy and not any(each.takes(request) for each in entry.requests):
            return RequestVerdict(request, 403, step.where, entry)
    return RequestVerdict(request)
