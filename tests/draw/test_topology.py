from __future__ import annotations

from itertools import combinations, pairwise, product

import pytest

from k8snetlab import draw
from k8snetlab.cluster import Cluster, example
from k8snetlab.draw.ground import STACK, ground
from k8snetlab.draw.marks import Box, Label, Line
from k8snetlab.draw.theme import Role
from k8snetlab.draw.visits import visits
from k8snetlab.linux.host import Host, Network, Part, assembled
from k8snetlab.linux.link import Link, LinkKind, Peer
from k8snetlab.linux.route import Route
from k8snetlab.trace import Trace, Verdict
from tests.draw import small
from tests.shops import bookshop


def labels(drawing: draw.Drawing) -> list[str]:
    """Every text in a picture."""
    return [label.text for sheet in (*drawing.ground, *drawing.over) for label in sheet.labels]


def lines(drawing: draw.Drawing, role: Role) -> list[Line]:
    """The lines over the ground that have this role."""
    return [line for sheet in drawing.over for line in sheet.lines if line.role is role]


def route(network: Network, name: str, prefix: str) -> Route:
    """A route of a machine."""
    return next(route for route in network[name].routes if route.prefix == prefix)


def places(network: Network, trace: Trace) -> list[str]:
    """The places of a request in words."""
    return [" ".join(visit.place).strip() for visit in visits(network, trace.steps)]


def test_a_network_is_drawn_with_all_its_machines(network: Network) -> None:
    """Nodes, pods, devices, the switch, the router and the client are all named, in the picture and in words."""
    drawing = draw.topology(network)
    assert {"node-1", "node-2", "web-0", "api-0", "cni0", "flannel.1", "eth0", "switch", "router", "external"} <= set(
        labels(drawing)
    )
    assert all(name in drawing.text for name in network)


def test_the_words_name_every_host_on_the_path(network: Network, across: Trace) -> None:
    """Whoever cannot see the picture reads all places of the request and of the reply, in their order."""
    text = draw.topology(network, across).text
    assert (
        "The request passes 1 shop/web-1, 2 node-1 cni0, 3 node-1 routing and netfilter, 4 node-1 flannel.1, "
        "5 node-1 eth0, 6 switch, 7 node-2 eth0, 8 node-2 flannel.1, 9 node-2 routing and netfilter, "
        "10 node-2 cni0, 11 shop/api-0."
    ) in text
    assert "The reply passes 1 shop/api-0, " in text
    assert all(step.where in text for step in (*across.steps, *across.reply))


def test_the_path_follows_the_routes(network: Network) -> None:
    """Without its route through the tunnel a packet is drawn another way: by the card, to the router, lost there."""
    before = small.trace(network, "shop/web-1", "10.244.2.2")
    changed = network.without("node-1", route(network, "node-1", "10.244.2.0/24"))
    after = small.trace(changed, "shop/web-1", "10.244.2.2")
    assert "node-1 flannel.1" in places(network, before)
    assert "node-1 flannel.1" not in places(changed, after)
    assert places(changed, after)[-1] == "router"
    assert draw.topology(network, before).over != draw.topology(changed, after).over


def test_a_loss_is_marked_where_it_happened(network: Network) -> None:
    """A cross stands at the machine that lost the packet, in the place of its number, and the words give the reason."""
    changed = network.without("node-2", route(network, "node-2", "10.244.2.0/24")).without(
        "node-2", route(network, "node-2", "default")
    )
    trace = small.trace(changed, "shop/web-1", "10.244.2.2")
    drawing = draw.topology(changed, trace)
    spot = ground(changed, 4, {"node-2"}).spots["node-2", STACK]
    middles = [sum(x for x, _ in line.points) / 2 for line in lines(drawing, Role.LOST)]
    assert trace.fate is Verdict.UNREACHABLE
    assert [x for x in middles if abs(x - spot.x) < 10]
    assert "The request is lost at 9, node-2: UNREACHABLE, node-2 has no route to 10.244.2.2" in drawing.text


def test_a_delivered_packet_has_no_cross(network: Network, across: Trace) -> None:
    """Where nothing was lost, nothing is marked as lost."""
    drawing = draw.topology(network, across)
    assert not lines(drawing, Role.LOST)
    assert "lost" not in labels(drawing)


def test_request_and_reply_differ_without_colour(network: Network, across: Trace) -> None:
    """The request's lines are solid and its numbers in discs; the reply's are dashed and in squares."""
    drawing = draw.topology(network, across)
    assert not any(line.dash for line in lines(drawing, Role.REQUEST))
    assert all(line.dash for line in lines(drawing, Role.REPLY))
    numbers = [box for sheet in drawing.over for box in sheet.boxes if box.height == 13]
    assert {box.radius for box in numbers if box.fill is Role.REQUEST} == {6.5}
    assert {box.radius for box in numbers if box.line is Role.REPLY} == {1.5}


def test_lines_of_request_and_reply_never_cover_each_other(network: Network, across: Trace) -> None:
    """No stretch of the reply runs on top of a stretch of the request."""
    drawing = draw.topology(network, across)

    def stretches(role: Role) -> list[tuple[float, float, float, float]]:
        """The boxes that the straight parts of the lines fill, one pixel to each side."""
        parts = [part for line in lines(drawing, role) for part in pairwise(line.points)]
        return [(min(a, c) - 1, max(a, c) + 1, min(b, d) - 1, max(b, d) + 1) for (a, b), (c, d) in parts]

    def along(one: tuple[float, ...], other: tuple[float, ...]) -> float:
        """How far two straight parts run on top of each other; a crossing is two pixels long."""
        across = min(one[1], other[1]) - max(one[0], other[0])
        down = min(one[3], other[3]) - max(one[2], other[2])
        return max(across, down) if min(across, down) > 0 else 0

    pairs = product(stretches(Role.REQUEST), stretches(Role.REPLY))
    assert max(along(one, other) for one, other in pairs) <= 2


def test_the_service_is_drawn_where_its_address_was_rewritten(network: Network, across: Trace) -> None:
    """The Service stands above the machine whose rules rewrote it, and the rewriting is written there."""
    drawing = draw.topology(network, across)
    assert {"svc/shop/api:80", "10.96.0.10:80  on no interface", "DNAT → 10.244.2.2:80"} <= set(labels(drawing))
    assert "On node-1: DNAT → 10.244.2.2:80; conntrack → 10.96.0.10:80." in drawing.text


def test_no_service_is_drawn_for_a_pod_address(network: Network) -> None:
    """A packet to a pod's own address meets no Service."""
    drawing = draw.topology(network, small.trace(network, "shop/web-1", "10.244.2.2"))
    assert "Service" not in drawing.text
    assert not lines(drawing, Role.SERVICE)


def test_a_frame_that_a_bridge_keeps_does_not_go_through_the_kernel(network: Network) -> None:
    """Two pods of one machine: the bridge passes the frame on, and routing is no place on the way."""
    trace = small.trace(network, "shop/web-1", "10.244.1.2")
    assert places(network, trace) == ["shop/web-1", "node-1 cni0", "shop/web-0"]


def test_a_step_shows_the_way_so_far(network: Network, across: Trace) -> None:
    """Each step adds to the path; the last equals the whole, but for the ring around the place."""
    total = len(across.steps) + len(across.reply)
    reached = [len(draw.topology(network, across, step=step).over[1].lines) for step in range(total + 1)]
    assert reached[0] == 0
    assert reached[-1] == len(draw.topology(network, across).over[1].lines)
    halfway = draw.topology(network, across, step=5)
    assert f"step 5 of {total}" in labels(halfway)
    assert f"Drawn are the first 5 of {total} steps." in halfway.text


def test_a_path_never_moves_the_ground(network: Network, across: Trace) -> None:
    """Stepping through a walk changes what lies over the ground alone, so that nothing jumps."""
    grounds = {draw.topology(network, across, step=step).ground for step in range(0, 40, 5)}
    assert len(grounds) == 1


def test_an_outside_client_reaches_a_machine_by_router_and_switch(network: Network) -> None:
    """Outside traffic is drawn from the client over the router and the switch into the machine."""
    trace = small.trace(network, "external", "172.18.0.11")
    assert places(network, trace)[:4] == ["external", "router", "switch", "node-1 eth0"]


def test_a_source_outside_of_the_network_is_drawn_too(network: Network) -> None:
    """A client that is not part of the network that is drawn gets a box of its own."""
    trace = small.trace(network, "external", "172.18.0.11")
    without = Network({name: network[name] for name in network if name != "external"})
    assert "external" in labels(draw.topology(without, trace))


def test_a_device_that_is_down_says_so(network: Network) -> None:
    """What is switched off stays in the picture, dashed, with the word."""
    host = network["node-1"]
    links = tuple(_down(link) if link.name == "flannel.1" else link for link in host.links)
    changed = network.replacing(_with(host, links))
    assert "down" in labels(draw.topology(changed))
    assert "flannel.1 (10.244.1.0, down)" in draw.topology(changed).text


@pytest.mark.parametrize("pods", [1, 10, 12, 13, 24, 25, 60])
def test_nothing_overlaps_however_many_pods(pods: int) -> None:
    """Pods and devices keep apart, and stay inside of the picture; what has no room is counted."""
    network = _crowded(pods)
    drawing = draw.topology(network)
    boxes = [box for sheet in drawing.ground[1:] for box in sheet.boxes]
    assert not [(one, other) for one, other in combinations(boxes, 2) if _overlap(one, other)]
    assert all(box.x >= 0 and box.x + box.width <= drawing.width for box in boxes)
    assert all(box.y >= 0 and box.y + box.height <= drawing.height for box in boxes)
    hidden = [text for text in labels(drawing) if text.endswith("more pods")]
    assert hidden == ([f"… and {pods - 23} more pods"] if pods > 24 else [])


def test_a_load_balancer_has_a_row_of_its_own(network: Network) -> None:
    """It is plugged into every switch like the router, and does not cover it."""
    eth0 = Link("eth0", 2, LinkKind.NIC, peer=Peer("switch", "balancer"))
    port = Link("balancer", 99, LinkKind.NIC, master="br0", peer=Peer("load-balancer", "eth0"))
    switch = _with(network["switch"], (*network["switch"].links, port))
    drawing = draw.topology(network.replacing(switch, Host("load-balancer", "balancer", (eth0,))))
    assert "load-balancer" in labels(drawing)
    boxes = [box for sheet in drawing.ground[1:] for box in sheet.boxes]
    assert not [(one, other) for one, other in combinations(boxes, 2) if _overlap(one, other)]


def test_a_pod_on_the_path_is_always_shown() -> None:
    """Of a crowd of pods, the one that the packet goes to is in the picture."""
    network = _crowded(60)
    trace = small.trace(network, "node-1", "10.244.1.61")
    assert "pod-60" in labels(draw.topology(network, trace))


def test_long_names_are_shortened_in_the_picture_and_whole_in_the_words() -> None:
    """A name that has no room keeps its beginning and its end; the text alternative gives all of it."""
    name = "a-rather-long-deployment-name-7c9c5b6f8d-x2k4z"
    network = Network({**{host: small.network()[host] for host in ("node-1", "switch")}, name: _named(name)})
    drawing = draw.topology(network)
    [short] = [text for text in labels(drawing) if text.startswith("a-rather")]
    assert "…" in short
    assert short.endswith("x2k4z")
    assert name in drawing.text


def test_many_machines_are_counted() -> None:
    """Of many machines the first and those on the path are drawn, and the others counted."""
    base = small.network()
    machines = {f"node-{at}": _with(base["node-1"], base["node-1"].links[:2], f"node-{at}") for at in range(1, 13)}
    network = Network({**machines, "switch": base["switch"]})
    assert "7 more" in labels(draw.topology(network))


# Other states of the small network


def _down(link: Link) -> Link:
    return Link(
        link.name, link.index, link.kind, link.mac, link.mtu, up=False, addresses=link.addresses, vxlan=link.vxlan
    )


def _with(host: Host, links: tuple[Link, ...], name: str = "") -> Host:
    part = Part(links=links, routes=host.routes, sysctls=host.sysctls)
    return assembled(name or host.name, host.kind, part)


def _named(name: str) -> Host:
    return small.pod(name, "10.244.1.9", 1, 0)


def _crowded(pods: int) -> Network:
    base = small.network()
    hosts = {
        f"default/pod-{at}": small.pod(f"default/pod-{at}", f"10.244.1.{at + 1}", 1, at) for at in range(1, pods + 1)
    }
    node = base["node-1"]
    ports = tuple(
        Link(
            f"veth{at}", 10 + at, LinkKind.VETH, f"02:00:00:00:03:{at:02x}", 1450,
            master="cni0", peer=Peer(f"default/pod-{at}", "eth0"),
        )
        for at in range(1, pods + 1)
    )  # fmt: skip
    return Network({**hosts, "node-1": _with(node, (*node.links[:4], *ports)), "switch": base["switch"]})


def _overlap(one: Box, other: Box) -> bool:
    apart = one.x + one.width <= other.x or other.x + other.width <= one.x
    above = one.y + one.height <= other.y or other.y + other.height <= one.y
    return not apart and not above


def test_labels_have_room(network: Network, across: Trace) -> None:
    """No label runs over the edge of the picture."""
    from k8snetlab.draw.lettering import width

    drawing = draw.topology(network, across)
    for label in (label for sheet in (*drawing.ground, *drawing.over) for label in sheet.labels):
        assert isinstance(label, Label)
        long = width(label.text, label.size, label.weight)
        left = label.x - {"left": 0.0, "center": 0.5, "right": 1.0}[label.align] * long
        assert 0 <= left <= left + long <= drawing.width, label


# Modes


@pytest.fixture(scope="module")
def backends() -> Cluster:
    """Three backends, and a client beside one of them."""
    return example("service-three-backends")


def drawn(cluster: Cluster, source: str = "default/client", target: str = "svc/default/web:80") -> draw.Drawing:
    """The picture of a trace in a cluster."""
    return draw.topology(cluster, cluster.trace(source, target))


def test_a_socket_that_is_led_elsewhere_is_shown_at_its_pod(backends: Cluster) -> None:
    """In ebpf mode the Service's box says where the socket was led, and its line ends at the client's pod."""
    drawing = drawn(backends.changed(proxy="ebpf"))
    assert any("at the socket" in label.text for sheet in drawing.over for label in sheet.labels)
    assert any(sentence.startswith("On default/client: cil_sock4_connect") for sentence in drawing.alt)
    ruled = [
        line for sheet in drawing.over for line in sheet.lines if line.role is Role.SERVICE and len(line.points) > 2
    ]
    frames = [box for sheet in drawing.ground for box in sheet.boxes]
    (x, y) = ruled[0].points[-1]
    assert [box for box in frames if box.x == x and box.y <= y <= box.y + box.height]


@pytest.mark.parametrize("mode", ["iptables", "nftables", "ipvs"])
def test_a_mode_of_the_node_is_shown_at_the_node(backends: Cluster, mode: str) -> None:
    """Whatever rewrites on the node stands in the node's row."""
    drawing = drawn(backends.changed(proxy=mode))
    assert any(sentence.startswith("On node-1: DNAT → 10.244.") for sentence in drawing.alt)
    assert not any("at the socket" in label.text for sheet in drawing.over for label in sheet.labels)


def test_a_load_balancer_says_what_it_rewrote(backends: Cluster) -> None:
    """A load balancer that opens its own connection has its notes in its bar; the Service stands above the node."""
    exposed = backends.patched("Service", "default/web", {"spec": {"type": "LoadBalancer"}})
    drawing = drawn(exposed.changed(load_balancer="proxy"), "external")
    texts = [label.text for sheet in drawing.over for label in sheet.labels]
    assert "svc/default/web:80" in texts
    assert any(sentence.startswith("On load-balancer: DNAT → 172.18.0.") for sentence in drawing.alt)


def test_a_ladder_begins_at_the_socket(backends: Cluster) -> None:
    """What a program did before there was a packet is the first rung."""
    cluster = backends.changed(proxy="ebpf")
    drawing = draw.trace(cluster.trace("default/client", "svc/default/web:80"))
    assert "before any packet exists" in drawing.alt[1]


def test_where_programs_deliver_the_picture_says_so() -> None:
    """Cilium's programs do what routes and netfilter do elsewhere; its pair of devices stays inside of the node."""
    said = labels(draw.topology(bookshop("cilium")))
    assert said.count("eBPF programs, routing, netfilter") == 3
    assert said.count("cilium_vxlan") == 3 and "cilium_host" not in said
    assert "eBPF programs, routing, netfilter" not in labels(draw.topology(bookshop()))
