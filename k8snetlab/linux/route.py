"""Where does the packet go next?

Linux asks twice. First the *policy routing rules*, lowest priority number first, choose a table; then the route with
the *longest matching prefix* in that table wins (then the lowest metric). A rule whose table has no match is passed
over, and the next one is tried. Addresses of the machine itself stand in the table `local`, which rule 0 looks up
before all others.

A route says a device, perhaps a gateway (`via`), the preferred source (`src`), and its scope: `link` for what is on
the cable, `global` for what is behind a gateway. `onlink` says the gateway is reachable though no connected route
covers it. `unreachable`, `prohibit` and `blackhole` routes refuse the packet, with and without a word.

A *multipath* route has several next hops (ECMP). Each flow takes one of them, by a hash over its addresses, or over
addresses and ports (`fib_multipath_hash_policy` 1), and all its packets take the same; seen from outside that is
chance, with the weights as odds.

Not modelled: TOS, realms, nexthop objects, per-route congestion settings, other hash policies. Guide section 2.1;
`ip-route(8)`, `ip-rule(8)`, RFC 1812, RFC 2992.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from functools import cached_property

import msgspec

from k8snetlab.address import Prefix, number

__all__ = ["NextHop", "Route", "RouteTable", "RouteType", "RoutingRule", "connected", "default_rules", "multipath"]


class RouteType(StrEnum):
    """What a route does with a packet; the values are the words of `ip route`."""

    UNICAST = "unicast"
    LOCAL = "local"
    BLACKHOLE = "blackhole"
    UNREACHABLE = "unreachable"
    PROHIBIT = "prohibit"


class NextHop(msgspec.Struct, frozen=True):
    """One way of a multipath route: a device, perhaps a gateway, and how many flows take it compared to the others."""

    device: str
    via: str = ""
    weight: int = 1


class Route(msgspec.Struct, frozen=True):
    """One route: `Route("10.244.2.0/24", via="10.244.2.0", device="flannel.1", onlink=True)`.

    `prefix` is a CIDR or `default`; `protocol` is who put it there (`kernel`, `boot` — not printed —, `bird`, `80`);
    `mtu` is 0 unless the route limits it. A multipath route has `hops`, and their first as its own `device` and `via`:
    `multipath` makes one.
    """

    prefix: str
    device: str = ""
    via: str = ""
    source: str = ""
    scope: str = "global"
    protocol: str = "boot"
    onlink: bool = False
    metric: int = 0
    table: str = "main"
    type: RouteType = RouteType.UNICAST
    mtu: int = 0
    family: int = 4
    hops: tuple[NextHop, ...] = ()

    def block(self) -> Prefix:
        """The destinations it is for."""
        if self.prefix == "default":
            return Prefix(self.family, 0, 0)
        return Prefix.of(self.prefix)


def multipath(prefix: str, hops: Sequence[NextHop], protocol: str = "boot", metric: int = 0) -> Route:
    """The route with these next hops, at least one; with only one it is a route like any other."""
    first = hops[0]
    several = tuple(hops) if len(hops) > 1 else ()
    of = 6 if ":" in prefix else 4
    return Route(prefix, first.device, first.via, protocol=protocol, metric=metric, family=of, hops=several)


def connected(block: Prefix, device: str, own: str) -> Route:
    """The route that the kernel makes by itself when a device gets an address of that block. In IPv6 it names no
    source.
    """
    source = own if block.family == 4 else ""
    return Route(str(block), device, source=source, scope="link", protocol="kernel", family=block.family)


class RoutingRule(msgspec.Struct, frozen=True, dict=True):
    """One line of `ip rule`: which packets look into which table. `source` and `to` are CIDRs, or empty for all."""

    priority: int
    table: str
    source: str = ""
    to: str = ""
    mark: int = 0
    mask: int = 0xFFFFFFFF
    iif: str = ""
    invert: bool = False
    family: int = 4

    @cached_property
    def is_plain(self) -> bool:
        """Whether it selects every packet."""
        return not (self.source or self.to or self.mark or self.iif or self.invert)

    def selects(self, src: str, dst: str, mark: int, iif: str) -> bool:
        """Whether a packet with these facts looks into the table. `src` is empty while a source is yet to be found."""
        found = (
            (not self.source or (src != "" and Prefix.of(self.source).contains(src)))
            and (not self.to or Prefix.of(self.to).contains(dst))
            and (not self.mark or mark & self.mask == self.mark)
            and (not self.iif or iif == self.iif)
        )
        return found != self.invert


def default_rules(family: int) -> tuple[RoutingRule, ...]:
    """The rules every machine starts with: `local`, `main`, and in IPv4 `default`."""
    rules = (RoutingRule(0, "local", family=family), RoutingRule(32766, "main", family=family))
    return rules if family == 6 else (*rules, RoutingRule(32767, "default", family=family))


class RouteTable:
    """The routes of one table and family, ready for longest-prefix lookups. Built once from the host's routes."""

    __slots__ = ("_levels",)

    def __init__(self, routes: Iterable[Route]) -> None:
        by_length: dict[int, tuple[int, dict[int, Route]]] = {}
        for route in routes:
            block = route.block()
            _, found = by_length.setdefault(block.length, (block.mask, {}))
            held = found.get(block.base)
            if held is None or route.metric < held.metric:
                found[block.base] = route
        self._levels = tuple(by_length[length] for length in sorted(by_length, reverse=True))

    def lookup(self, dst: str) -> Route | None:
        """The best route to `dst`, or `None`."""
        value = number(dst)
        for mask, found in self._levels:
            route = found.get(value & mask)
            if route is not None:
                return route
        return None
