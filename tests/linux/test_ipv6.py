"""IPv6: what is as in IPv4, and what is not."""

from k8snetlab.address import Prefix
from k8snetlab.linux.host import Network
from k8snetlab.linux.netfilter import (
    DROP,
    Destination,
    Dnat,
    Masquerade,
    Match,
    OutInterface,
    Patch,
    Redirect,
    Reject,
    Target,
)
from k8snetlab.linux.route import Route, RouteType, RoutingRule
from tests.linux.lab import (
    A6,
    B6,
    C6,
    DROPPED,
    M1_6,
    M2_6,
    OUTSIDE6,
    REFUSED,
    REJECTED,
    SILENT,
    UNREACHED,
    VIP6,
    A,
    C,
    Flow,
    add,
    check,
    each,
    filters,
    lab,
    masquerade,
    rule,
    ruled,
    service,
    set_link,
    set_sysctls,
    source,
    to,
    without_route,
)

BRIDGE6 = "fd00:10:244:1::1"
THERE = "fd00:10:244:2::/64"
BRIDGES_UNSEEN = {"net.bridge.bridge-nf-call-ip6tables": 0}
OUT = masquerade(OutInterface("eth0"), family=6)
HAIRPIN = masquerade(source(f"{A6}/128"), Destination(Prefix.of(f"{A6}/128")), family=6)


def at_vip(backend: str, target: int = 80) -> Patch:
    """The virtual address is the backend."""
    return service(backend, vip=VIP6, target=target)


def nat(chain: str, *matches: Match, to: Target) -> Patch:
    """One rule of table nat."""
    return Patch("nat", 6, last=(rule("nat", chain, *matches, to=to),))


def rejecting(address: str, kind: str) -> Patch:
    """What is forwarded to the address and port 80 is rejected."""
    return filters(rule("filter", "FORWARD", *to(address, 80), to=Reject(kind)), family=6)


def six_less(name: str, device: str) -> Network:
    """A device without its IPv6 addresses."""
    held = lab()[name].link(device).addresses
    return set_link(lab(), name, device, addresses=tuple(address for address in held if address.family == 4))


def routed(kind: RouteType) -> Network:
    """m1 has a route to c that leads nowhere."""
    return add(lab(), "m1", routes=(Route(f"{C6}/128", type=kind, family=6),))


def refused(network: Network) -> Network:
    """m1 says that nobody can reach c."""
    return add(network, "m1", routes=(Route(f"{C6}/128", type=RouteType.UNREACHABLE, family=6),))


def by_source() -> Network:
    """m1 asks another table for what comes from a, and that refuses everything."""
    refusing = Route("default", type=RouteType.UNREACHABLE, family=6, table="100")
    rules = (RoutingRule(100, "100", source=f"{A6}/128", family=6),)
    return add(lab(), "m1", routes=(refusing,), rules=rules)


def circle() -> Network:
    """Each machine says that the other one knows the way."""
    there = add(lab(), "m1", routes=(Route("fd00:9::/64", "eth0", M2_6, family=6),))
    return add(there, "m2", routes=(Route("fd00:9::/64", "eth0", M1_6, family=6),))


def from_localhost() -> Network:
    """m1 translates what it sends to ::1, and hides behind its card."""
    there = rule("nat", "OUTPUT", *to("::1", 80), to=Dnat(C6, 80))
    return ruled(Patch("nat", 6, last=(there, rule("nat", "POSTROUTING", to=Masquerade()))))


FLOWS = (
    # Ways
    Flow("on one bridge", lab(), "a", B6, taker="b", seen=A6),
    Flow("to another machine", lab(), "a", C6, taker="c", seen=A6),
    Flow("from outside", lab(), "outside", C6, taker="c", seen=OUTSIDE6),
    Flow("to the outside", lab(), "a", OUTSIDE6, taker="outside", seen=A6),
    Flow("a machine to itself", lab(), "m1", M1_6, 10250, taker="m1", seen=M1_6),
    Flow("a machine to ::1", lab(), "m1", "::1", 10250, taker="m1", seen="::1"),
    Flow("an address of another device of the machine", lab(), "a", M1_6, 10250, taker="m1", seen=A6),
    Flow("a ping", lab(), "a", C6, 0, "ICMP", taker="c", seen=A6),
    # Nobody
    Flow("nobody listens", lab(), "a", C6, 81, ending=REFUSED),
    Flow("nobody listens: UDP", lab(), "a", C6, 54, "UDP", REFUSED),
    Flow("nobody has the address", lab(), "a", "fd00:10:244:1::99", ending=UNREACHED),
    Flow("nobody has the address over there", lab(), "a", "fd00:10:244:2::99", ending=UNREACHED),
    Flow("the receiver has IPv4 only", six_less("c", "eth0"), "a", C6, ending=UNREACHED),
    Flow("a device that goes down loses its addresses", set_link(lab(), "m1", "eth0", up=False), "a", M1_6, 10250,
         ending=UNREACHED),
    # Settings and routes
    Flow("forwarding is off", set_sysctls(lab(), "m1", **{"net.ipv6.conf.all.forwarding": 0}), "a", C6, ending=DROPPED,
         says="forwarding is 0"),
    Flow("ip_forward has no say", set_sysctls(lab(), "m1", **{"net.ipv4.ip_forward": 0}), "a", C6, taker="c", seen=A6),
    Flow("no route on the machine", without_route(without_route(lab(), "m1", THERE, 6), "m1", "default", 6), "a", C6,
         ending=UNREACHED),
    Flow("no route in the container", without_route(lab(), "a", "default", 6), "a", C6, ending=UNREACHED),
    Flow("no way back", without_route(lab(), "c", "default", 6), "a", C6, ending=SILENT, taker="c", seen=A6),
    Flow("a route that refuses", routed(RouteType.UNREACHABLE), "a", C6, ending=UNREACHED),
    Flow("a route that prohibits", routed(RouteType.PROHIBIT), "a", C6, ending=UNREACHED),
    Flow("a blackhole", routed(RouteType.BLACKHOLE), "a", C6, ending=SILENT),
    Flow("a table for one source", by_source(), "a", C6, ending=UNREACHED),
    Flow("a circle ends by the hop limit", circle(), "a", "fd00:9::1", ending=UNREACHED, says="time-exceeded"),
    # Translation
    Flow("DNAT to another machine", ruled(at_vip(C6)), "a", VIP6, taker="c", seen=A6),
    Flow("DNAT to a neighbour", ruled(at_vip(B6)), "a", VIP6, taker="b", seen=A6),
    Flow("DNAT to a neighbour, bridges unseen", ruled(at_vip(B6), sysctls=BRIDGES_UNSEEN), "a", VIP6, ending=SILENT,
         taker="b", seen=A6),
    Flow("DNAT of what the machine sends", ruled(at_vip(C6)), "m1", VIP6, taker="c", seen=M1_6),
    Flow("hairpin", ruled(at_vip(A6), HAIRPIN), "a", VIP6, taker="a", seen=BRIDGE6),
    Flow("hairpin without masquerade: a answers itself past the translation", ruled(at_vip(A6)), "a", VIP6,
         ending=SILENT, taker="a", seen=A6),
    Flow("masquerade", ruled(OUT), "a", C6, taker="c", seen=M1_6),
    Flow("DNAT and masquerade", ruled(at_vip(C6), OUT), "a", VIP6, taker="c", seen=M1_6),
    Flow("DNAT to where nobody listens", ruled(at_vip(C6, 81)), "a", VIP6, ending=REFUSED),
    Flow("DNAT to where nobody listens: UDP", ruled(service(C6, 53, vip=VIP6, target=54, protocol="UDP"), OUT), "a",
         VIP6, 53, "UDP", REFUSED),
    Flow("DNAT to nobody", ruled(at_vip("fd00:10:244:1::99")), "a", VIP6, ending=UNREACHED),
    Flow("DNAT to nobody over there", ruled(at_vip("fd00:10:244:2::99"), OUT), "a", VIP6, ending=UNREACHED),
    Flow("DNAT to where no way leads: the bridge drops it", refused(ruled(at_vip(C6))), "a", VIP6, ending=DROPPED,
         says="the bridge tells nobody"),
    Flow("DNAT to where no way leads, bridges unseen", refused(ruled(at_vip(C6), sysctls=BRIDGES_UNSEEN)), "a", VIP6,
         ending=UNREACHED),
    Flow("DNAT to ::1: there is no route_localnet", ruled(at_vip("::1", 10250)), "a", VIP6, ending=DROPPED),
    Flow("DNAT of ::1: the answer may not come from a cable", from_localhost(), "m1", "::1", ending=SILENT, taker="c",
         seen=M1_6, says="martian"),
    Flow("REDIRECT of what is sent", ruled(nat("OUTPUT", *to(C6, 81), to=Redirect(80)), on="a"), "a", C6, 81,
         taker="a", seen=A6),
    Flow("REDIRECT of what arrives", ruled(nat("PREROUTING", *to(C6, 80), to=Redirect(10250))), "a", C6, taker="m1",
         seen=A6),
    # REJECT behind the translation
    Flow("REJECT behind DNAT", ruled(at_vip(C6), rejecting(C6, "icmp6-port-unreachable")), "a", VIP6, ending=REFUSED),
    Flow("REJECT behind DNAT to a neighbour", ruled(at_vip(B6), rejecting(B6, "icmp6-port-unreachable")), "a", VIP6,
         ending=REFUSED),
    Flow("a reset behind DNAT to a neighbour does not find back", ruled(at_vip(B6), rejecting(B6, "tcp-reset")), "a",
         VIP6, ending=REJECTED),
    # The rules of one family
    Flow("rules of IPv6 do not meet IPv4", ruled(filters(rule("filter", "FORWARD", to=DROP), family=6)), "a", C,
         taker="c", seen=A),
)  # fmt: skip


@each(FLOWS)
def test_flow(flow: Flow) -> None:
    """Each row of the table above."""
    check(flow)
