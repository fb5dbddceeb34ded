from __future__ import annotations

import pytest

from k8snetlab import draw
from k8snetlab.address import AddressPlan, Prefix, Range
from k8snetlab.draw.headers import rows
from k8snetlab.draw.lettering import fitted, width, wrapped
from k8snetlab.draw.theme import Role
from k8snetlab.errors import BadOption, UnknownName
from k8snetlab.linux.host import Network
from k8snetlab.trace import Trace
from tests.draw import small


def labels(drawing: draw.Drawing) -> list[str]:
    """Every text in a picture."""
    return [label.text for sheet in (*drawing.ground, *drawing.over) for label in sheet.labels]


def plan(**blocks: str) -> AddressPlan:
    """An address plan: networks by kind, `node_pods` one block after the other."""
    ranges = [Range(kind, kind, Prefix.of(block)) for kind, block in blocks.items() if kind != "node_pods"]
    parts = [Prefix.of(block) for block in blocks.get("node_pods", "").split()]
    ranges += [Range(f"pods of node-{at}", "node pods", block) for at, block in enumerate(parts, 1)]
    return AddressPlan(tuple(ranges))


def crosses(drawing: draw.Drawing) -> int:
    """How many crosses a picture has: two strokes each."""
    return sum(line.role is Role.LOST for sheet in drawing.ground for line in sheet.lines) // 2


# Headers


def test_a_tunnel_pushes_headers_on(across: Trace) -> None:
    """The widest row has the tunnel's headers at the left of the frame that they carry."""
    widest = max(rows(across.steps), key=lambda row: len(row.parts))
    assert [part.name for part in widest.parts] == ["Ethernet", "IPv4", "UDP", "VXLAN", "Ethernet", "IPv4", "TCP"]


def test_bytes_of_headers_add_up_to_the_packet(across: Trace) -> None:
    """The total of every row is the length of the packet after that step."""
    assert all(sum(part.length for part in row.parts) == row.step.packet.length for row in rows(across.steps))


def test_rewriting_is_marked_in_the_header_that_changed(across: Trace) -> None:
    """DNAT to another address on the same port changes the IP header, and not the one inside of it."""
    row = next(row for row in rows(across.steps) if row.step.action == "DNAT")
    assert [part.name for at, part in enumerate(row.parts[::-1]) if at in row.new] == ["IPv4"]


def test_headers_of_the_reply_are_drawn_from_its_steps(across: Trace) -> None:
    """Given the reply's steps, the picture starts at the backend."""
    drawing = draw.headers(across.reply)
    assert drawing.alt[1].startswith("shop/api-0, SEND: IPv4 10.244.2.2 → 10.244.1.3")


def test_headers_say_what_they_show(across: Trace) -> None:
    """Every row stands in the text alternative with its addresses and bytes."""
    drawing = draw.headers(across)
    assert len(drawing.alt) == 1 + len(rows(across.steps))
    assert "VXLAN vni 1" in drawing.text
    assert "IPv4  20 B" in labels(drawing)


# Outcomes


def test_outcomes_are_bars_of_their_probability(network: Network) -> None:
    """Two backends with a chance of one half each have bars of equal length, half of the whole."""
    trace = small.trace(network, "shop/web-1", small.SERVICE, target="svc/shop/api:80")
    drawing = draw.outcomes(trace)
    bars = [box.width for box in drawing.ground[0].boxes if box.fill is Role.REQUEST]
    [whole] = {box.width for box in drawing.ground[0].boxes if box.fill is Role.DEVICE}
    assert bars == [whole / 2, whole / 2]
    assert {"shop/web-0", "shop/api-0", "1/2"} <= set(labels(drawing))
    assert "shop/api-0 (10.244.2.2:80) on node-2 with probability 1/2: DELIVERED, client OPEN" in drawing.text


def test_an_outcome_that_fails_has_a_cross_and_a_reason(network: Network) -> None:
    """A pod that gets itself as backend without masquerading loses the packet; the picture and the words say so."""
    drawing = draw.outcomes(small.trace(network, "shop/web-0", small.SERVICE))
    assert crosses(drawing) == 1
    assert "Nobody with probability 1/2: DROPPED, client TIMEOUT" in drawing.text


# The ladder


def test_a_ladder_has_a_column_for_every_machine(across: Trace) -> None:
    """All machines on the path stand at the top, in the order in which the packet meets them."""
    heads = [box for box in draw.trace(across).ground[1].boxes if box.y == 16]
    assert len(heads) == len({step.where for step in (*across.steps, *across.reply)})


def test_a_ladder_tells_sending_rewriting_and_wrapping(across: Trace) -> None:
    """What changed the packet is told in order, frame by frame, there and back."""
    text = draw.trace(across).text
    told = (
        "SEND",
        "TRANSMIT to node-1",
        "DNAT, destination",
        "ENCAPSULATE",
        "TRANSMIT to switch",
        "DECAPSULATE",
        ": DELIVER,",
    )
    at = [text.index(words) for words in told]
    assert at == sorted(at)
    assert "CONNTRACK, source 10.244.2.2:80 → 10.96.0.10:80" in text


def test_a_ladder_ends_with_a_cross_where_the_packet_is_lost(network: Network) -> None:
    """The note of the machine that lost the packet is marked."""
    trace = small.trace(network, "shop/web-1", "10.244.2.2", port=81)
    lost = draw.trace(trace)
    assert sum(line.role is Role.LOST for sheet in lost.ground for line in sheet.lines) == 2
    assert "RESET" in lost.text


# The address plan


def test_networks_that_share_no_address_have_lines_of_their_own() -> None:
    """Three networks far apart are three number lines, in the order of their addresses."""
    drawing = draw.plan(plan(underlay="172.18.0.0/16", pods="10.244.0.0/16", services="10.96.0.0/12"))
    names = [text for text in labels(drawing) if text in ("underlay", "pods", "services")]
    assert names == ["services", "pods", "underlay"]
    assert drawing.alt[0].endswith("none overlap.")
    assert not crosses(drawing)


def test_small_networks_are_enlarged() -> None:
    """Blocks of nodes are too small on the line of all pods, and are drawn again below with their names."""
    drawing = draw.plan(plan(pods="10.244.0.0/16", node_pods="10.244.0.0/24 10.244.1.0/24 10.244.2.0/24"))
    assert {"pods of node-1", "pods of node-2", "pods of node-3", "10.244.3.255"} <= set(labels(drawing))


def test_an_overlap_is_marked_and_said() -> None:
    """Services inside of the pods' network have a frame, a cross and a sentence; a node's block of pods has not."""
    drawing = draw.plan(plan(pods="10.96.0.0/11", services="10.96.0.0/16", node_pods="10.96.0.0/24 10.96.1.0/24"))
    said = [sentence for sentence in drawing.alt if sentence.endswith("overlap.")][1:]
    assert crosses(drawing) > 1
    assert said == ["pods (10.96.0.0/11) and services (10.96.0.0/16) overlap."]


def test_a_plan_of_both_families_is_drawn() -> None:
    """IPv6 networks stand on lines of their own; their sizes are too large for counting."""
    drawing = draw.plan(plan(pods="fd00:10:244::/56", services="10.96.0.0/12"))
    assert {"fd00:10:244::/56", "fd00:10:244:ff:ffff:ffff:ffff:ffff"} <= set(labels(drawing))


# Graphs


def test_a_graph_has_machines_devices_and_cables(network: Network) -> None:
    """A pod hangs on its node's bridge by a cable and a port."""
    found = draw.graph(network)
    assert found.nodes["shop/web-0"]["kind"] == "container"
    assert found.edges[("shop/web-0", "eth0"), ("node-1", "veth0")]["relation"] == "cable"
    assert found.edges[("node-1", "veth0"), ("node-1", "cni0")]["relation"] == "port"
    assert found.nodes["node-1", "cni0"]["addresses"] == ("10.244.1.1/24",)


def test_a_path_as_a_graph_follows_the_trace(across: Trace) -> None:
    """From the client's place a walk along the edges leads to the backend; each edge knows its steps."""
    found = draw.path(across)
    assert found.has_edge("shop/web-1", ("shop/web-1", "eth0"))
    assert found.edges["shop/web-1", ("shop/web-1", "eth0")] == {"numbers": (2,), "flow": "request"}
    assert set(found) >= {("node-1", "flannel.1"), ("node-2", "flannel.1"), ("shop/api-0", "eth0")}


def test_one_capture_point_of_a_path(across: Trace) -> None:
    """At the switch one sees the switch and its neighbours, and nothing of the pods."""
    found = draw.path(across, "switch")
    assert {("switch", "br0"), ("node-1", "eth0"), ("node-2", "eth0")} <= set(found)
    assert not [node for node in found if str(node[0]).startswith("shop/")]
    assert set(draw.path(across, ("switch", "br0"))) < set(found)


def test_a_capture_point_off_the_path_is_named(across: Trace) -> None:
    """Where the packet never was, nothing can be captured; the error says so."""
    with pytest.raises(UnknownName, match="place on this path"):
        draw.path(across, "shop/web-0")


# Letters


def test_a_fitted_text_keeps_its_ends() -> None:
    """What is too long loses its middle, and then has room."""
    short = fitted("shop/checkout-7c9c5b6f8d-x2k4z", 100)
    assert short.startswith("shop/")
    assert short.endswith("2k4z")
    assert width(short) <= 100


def test_a_wrapped_text_says_when_it_is_cut() -> None:
    """At most so many lines; an ellipsis where more was to be said."""
    found = wrapped("one two three four five six seven eight nine ten eleven twelve", 90, 10, 2)
    assert len(found) == 2
    assert found[1].endswith("…")
    assert all(width(line) <= 90 for line in found)


# Curves


def test_curves_name_their_last_values_and_say_all_of_them() -> None:
    """At the right end stands the name with its value, and the text alternative has every point."""
    drawing = draw.curves({"a": {10: 40, 1000: 4000}, "b": {10: 9, 1000: 9}}, title="rules", across="Services")
    assert {"a: 4,000", "b: 9", "Services"} <= set(labels(drawing))
    assert drawing.alt == (
        "rules, by the number of Services.",
        "a: 40 at 10, 4,000 at 1,000.",
        "b: 9 at 10, 9 at 1,000.",
    )


def test_a_curve_of_zero_lies_on_the_ground() -> None:
    """Zero has no logarithm, and a line of its own."""
    drawing = draw.curves({"a": {1: 10, 10: 100}, "none": {1: 0, 10: 0}}, title="rules", across="Services")
    assert "0" in labels(drawing)


def test_the_names_of_equal_curves_do_not_hide_each_other() -> None:
    """Two curves at the same height have their names one over the other."""
    drawing = draw.curves({"a": {1: 10, 10: 10}, "b": {1: 10, 10: 10}}, title="rules", across="Services")
    heights = [label.y for sheet in drawing.ground for label in sheet.labels if label.text in ("a: 10", "b: 10")]
    assert abs(heights[0] - heights[1]) >= 12


def test_curves_with_long_names_list_them_under_the_picture() -> None:
    """What would be cut off at the right stands below, in as many lines as it needs, and makes the picture higher."""
    names = ", ".join(f"network {number}" for number in range(30))
    short, long = (
        draw.curves({name: {1: 10, 10: 4000}, "b": {1: 1, 10: 1}}, title="routes", across="nodes")
        for name in ("a", names)
    )
    written = [label for sheet in long.ground for label in sheet.labels]
    assert {"4,000", "b: 1"} <= {label.text for label in written}
    assert " ".join(label.text for label in written if "network" in label.text) == f"{names}: 4,000"
    assert all(label.x + width(label.text, label.size) <= long.width for label in written if label.align == "left")
    assert long.height > short.height
    assert names in long.text


@pytest.mark.parametrize("of", [{}, {"a": {1: -1}}, {str(at): {1: 1} for at in range(9)}])
def test_curves_that_cannot_be_drawn_are_refused(of: dict[str, dict[int, int]]) -> None:
    """Nothing, less than nothing, and more curves than anybody tells apart."""
    with pytest.raises(BadOption, match="curves"):
        draw.curves(of, title="rules", across="Services")


def test_a_question_without_a_packet_has_a_picture() -> None:
    """It says who asked, and why nothing was sent."""
    drawing = draw.nobody("a pod → web", "the name has no address")
    assert {"a pod → web", "the name has no address"} <= set(labels(drawing))
    assert crosses(drawing) >= 1


# Side by side


def test_flows_stand_side_by_side_with_their_bytes(across: Trace, network: Network) -> None:
    """A row for each network with the headers of its largest frame, to one scale, and what was added on the way."""
    near = small.trace(network, "shop/web-1", "10.244.1.2")
    drawing = draw.side_by_side({"tunnel": across, "bridge": near})
    boxes = [box for box in drawing.ground[0].boxes if box.fill in (Role.ETHERNET, Role.IP, Role.PORTS, Role.TUNNEL)]
    lengths = {Role.ETHERNET: 14, Role.IP: 20, Role.TUNNEL: 8}
    scales = {round(box.width / lengths[box.fill], 6) for box in boxes if box.fill in lengths}
    assert len(scales) == 1 and len(boxes) == 7 + 3
    assert {"tunnel", "bridge", "+50"} <= set(labels(drawing))
    assert drawing.alt[1].startswith("tunnel: Ethernet 14 | IPv4 20 | UDP 8 | VXLAN 8 | Ethernet 14 | IPv4 20 | TCP ")
    assert "50 of them added on the way. It passes shop/web-1: eth0, node-1: " in drawing.alt[1]


def test_a_flow_that_was_never_sent_has_a_row_too(network: Network) -> None:
    """Its reason stands where the headers would be, beside a cross."""
    empty = network.without("shop/web-0", network["shop/web-0"].routes[0])
    drawing = draw.side_by_side({"whole": small.trace(network, "shop/web-0", "10.244.2.2"),
                                 "no route": small.trace(empty, "shop/web-0", "10.244.2.2")})  # fmt: skip
    assert crosses(drawing) == 1
    assert drawing.alt[2].startswith("no route: nothing is sent: ")


def test_side_by_side_needs_a_trace() -> None:
    """Nothing at all is no picture."""
    with pytest.raises(BadOption, match="at least one trace"):
        draw.side_by_side({})


# Before and after


def test_a_change_is_drawn_where_it_is(network: Network) -> None:
    """A device that goes has a dashed outline before, and the same device a solid one where it comes."""
    tunnel = network["node-1"].link("flannel.1")
    after = network.without("node-1", tunnel)
    was, now = (small.trace(each, "shop/web-1", "10.244.2.2") for each in (network, after))

    def outlines(one: Network, other: Network) -> list[bool]:
        sheets = draw.before_after(one, other, was, now).ground
        strong = [box for sheet in sheets[1:] for box in sheet.boxes if box.line is Role.INK and box.thickness > 2]
        return [bool(box.dash) for box in strong]

    assert outlines(network, after) == [True]
    assert outlines(after, network) == [False]


def test_what_a_change_does_is_said(network: Network) -> None:
    """Both ways of the packet, and between them what differs, machine by machine."""
    after = network.without("node-1", network["node-1"].link("flannel.1"))
    was, now = (small.trace(each, "shop/web-1", "10.244.2.2") for each in (network, after))
    drawing = draw.before_after(network, after, was, now, titles=("with", "without"))
    assert drawing.alt[0] == "Two networks, one over the other: with, without."
    assert any(said.startswith("node-1: link -1") for said in drawing.alt)
    assert sum("The way of a packet" in said for said in drawing.alt) == 2
    assert "with: node-1 (172.18.0.11) has cni0 (10.244.1.1), flannel.1 (10.244.1.0) and eth0" in drawing.text


def test_no_change_is_said_as_well(network: Network) -> None:
    """Without traces, and without a difference, the picture has no outline."""
    drawing = draw.before_after(network, network)
    assert "The two do not differ." in drawing.alt
    assert not [box for sheet in drawing.ground[1:] for box in sheet.boxes if box.thickness > 2]
