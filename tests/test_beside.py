"""One flow on several networks: what is read off its traces."""

from __future__ import annotations

from k8snetlab.trace.beside import Hop, sides
from tests.shops import across, bookshop, zones


def test_what_a_tunnel_adds_is_counted() -> None:
    """The largest frame is the one between the nodes; a plain network adds nothing."""
    tunnel, plain = sides({name: across(bookshop(name)) for name in ("flannel", "bridge")})
    assert (tunnel.added, plain.added) == (50, 0)
    assert tunnel.wire is not None and [header.layer for header in tunnel.wire.headers].count("ipv4") == 2


def test_a_switch_is_passed_and_has_no_devices() -> None:
    """The machines on the way in order, with the devices that the packet met; a mere switch has its name only."""
    [side] = sides({"flannel": across(bookshop("flannel"))})
    node, switch, other = side.between
    assert switch == Hop("switch", ())
    assert node.devices[1:] == ("cni0", "flannel.1", "eth0")
    assert other.devices[:3] == ("eth0", "flannel.1", "cni0")


def test_who_routes_shortens_the_time_to_live() -> None:
    """Two nodes on one subnet; the router between two subnets looks at the tunnel's header alone."""
    flat, cloud, zoned = sides({"flat": across(bookshop("bridge")), "cloud": across(bookshop("cloud")),
                                "zoned": across(zones("flannel"))})  # fmt: skip
    assert (flat.spent, cloud.spent, zoned.spent) == (2, 3, 2)
    assert "router" in {hop.where for hop in cloud.hops}


def test_of_a_packet_that_is_never_sent_there_are_no_bytes() -> None:
    """Without a route in the pod there is no frame, and no hop behind it."""
    shop = bookshop("bridge")
    lost = shop.without("shop/web-0", shop.network["shop/web-0"].routes[0])
    [side] = sides({"lost": lost.trace("shop/web-0", "svc/shop/api:80")})
    assert side.wire is side.sent is None and side.added == 0
    assert [hop.where for hop in side.hops] in ([], ["shop/web-0"])
