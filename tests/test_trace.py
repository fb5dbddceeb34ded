"""What a trace says of a walk, in each of its forms."""

import json
from collections.abc import Callable, Iterator
from io import BytesIO

import dpkt
import pytest

from k8snetlab.cluster import Cluster, example
from k8snetlab.errors import UnknownName
from k8snetlab.packet import ARP, ICMP, SCTP, TCP, UDP, Ethernet, IPv4, IPv6, Packet
from k8snetlab.trace import Action, Client, Outcome, Request, Step, Trace, Verdict
from k8snetlab.trace.table import WIDTH, brief, chance
from tests.handmade import LOSING, VIP, mac, network, traced
from tests.shops import pod, service


@pytest.fixture(name="trace")
def delivered() -> Trace:
    """The walk to the backend on the other machine."""
    return traced(network())


@pytest.fixture
def lost() -> Trace:
    """The same walk where a rule drops what is forwarded to the other machine."""
    return traced(network(LOSING))


# Verdict


def test_a_trace_has_the_verdict_that_all_outcomes_share(trace: Trace) -> None:
    """Both backends answer, so chance changes nothing."""
    assert trace.verdict is Verdict.DELIVERED


def test_a_trace_is_mixed_when_outcomes_differ(lost: Trace) -> None:
    """One backend can be reached and the other cannot: the fate of this walk stays known."""
    assert (lost.verdict, lost.fate) == (Verdict.MIXED, Verdict.DROPPED)


def test_outcomes_are_walked_once_and_only_when_asked_for(trace: Trace) -> None:
    """They cost as many walks as there are ways, so nobody pays for them who does not look."""
    calls = []

    def explore() -> tuple[Outcome, ...]:
        calls.append(1)
        return trace.explore()

    counted = Trace(trace.request, trace.fate, trace.client, trace.reason, (), (), None, "", explore)
    assert not calls
    assert counted.outcomes == counted.outcomes
    assert len(calls) == 1


# Table


def test_the_table_names_every_machine_in_the_order_it_is_met(trace: Trace) -> None:
    """Machines stand as headings on lines of their own."""
    there = str(trace).split("\n\nBack\n")[0]
    headings = [line for line in there.splitlines() if line in ("shop/c2", "node-1", "node-2", "shop/c4")]
    assert headings == ["shop/c2", "node-1", "node-2", "shop/c4"]


def test_the_table_leaves_out_rules_that_only_pass_the_packet_on(trace: Trace) -> None:
    """Jumps go; the mark, the translation and the count of what is missing stay."""
    text = str(trace)
    assert "-j SERVICE" not in text
    assert "-A THERE -j DNAT --to-destination 10.244.2.4:8080" in text
    assert "-j MARK --set-xmark 0x1/0x1" in text
    assert "(2 rules that only passed the packet on are left out" in text


def test_the_table_keeps_a_rule_that_chose() -> None:
    """With the choice falling on the first backend, the rule with the probability is what decided."""
    text = str(traced(network(), choose=lambda probability: True))
    assert "-m statistic --mode random --probability 0.25000000000 -j HERE" in text


def test_full_prints_every_step(trace: Trace) -> None:
    """The rules that only pass on are there too, and the numbers have no gaps."""
    text = trace.full()
    assert (
        f"-A PREROUTING -d {VIP}/32 -m comment --comment shop/api -j SERVICE".replace("shop/api", '"shop/api"') in text
    )
    numbers = [
        int(line.split()[0]) for line in text.splitlines() if line.startswith("  ") and line.split()[0].isdigit()
    ]
    assert numbers == [*range(1, len(trace.steps) + 1), *range(1, len(trace.reply) + 1)]


def test_step_numbers_are_the_same_in_both_tables(trace: Trace) -> None:
    """A number seen in the short table finds its step in the long one and in the JSON."""
    number = next(number for number, step in enumerate(trace.steps, 1) if step.action is Action.DNAT)
    row = next(line for line in str(trace).splitlines() if " DNAT " in line)
    assert row.split()[0] == str(number)


def test_the_table_fits_its_width(trace: Trace) -> None:
    """Long reasons and rules go on in the next line."""
    assert max(len(line) for line in trace.full().splitlines()) <= WIDTH


def test_the_packet_is_printed_only_where_it_changed(trace: Trace) -> None:
    """The original destination stands in one row of the way there: where the packet sets out."""
    there = str(trace).split("\nThere\n")[1].split("\n\nBack\n")[0]
    assert there.count(f"TCP 10.244.1.2:40000 > {VIP}:80 [S]") == 1


def test_encapsulation_is_printed_as_two_lines(trace: Trace) -> None:
    """The tunnel's addresses stand above the packet that rides in it."""
    lines = str(trace).splitlines()
    at = next(number for number, line in enumerate(lines) if "VXLAN vni 1: 172.18.0.1 > 172.18.0.2" in line)
    assert "TCP 10.244.1.2:40000 > 10.244.2.4:8080 [S]" in lines[at + 1]


def test_the_heading_says_how_it_ended(trace: Trace, lost: Trace) -> None:
    """Verdict, what the client is told, and who took the packet stand on top."""
    assert "DELIVERED, client OPEN" in str(trace)
    assert "taken by shop/c4 on node-2, 10.244.2.4:8080, which sees 10.244.1.2" in str(trace)
    assert "MIXED (this time DROPPED), client TIMEOUT" in str(lost)


def test_a_lost_packet_is_told_with_the_rule_that_lost_it(lost: Trace) -> None:
    """The rule prints as iptables-save prints it."""
    assert "-A FORWARD -s 10.244.1.2/32 -d 10.244.2.0/24 -j DROP" in str(lost)


def test_a_trace_is_the_same_text_each_time() -> None:
    """Same input, same bytes."""
    assert str(traced(network())) == str(traced(network()))


def test_repr_is_one_line(trace: Trace) -> None:
    """It counts the steps there and back."""
    ways = f"{len(trace.steps)} steps, reply {len(trace.reply)}"
    assert repr(trace) == f"<Trace shop/c2 → {VIP}:80: DELIVERED, {ways}>"


# Outcomes


def test_chances_list_every_backend_with_its_probability(trace: Trace) -> None:
    """The rule takes one packet in four for the first backend."""
    lines = trace.chances().splitlines()
    assert lines[0].split() == ["CHANCE", "VERDICT", "CLIENT", "BACKEND", "NODE", "ADDRESS", "SEES"]
    rows = {line.split()[3]: line.split()[0] for line in lines[1:]}
    assert rows == {"shop/c3": "1/4", "shop/c4": "3/4"}


@pytest.mark.parametrize(
    ("probability", "words"),
    [(1.0, "1"), (1 / 3, "1/3"), (0.33333333349, "1/3"), (0.123456, "12.35 %"), (0.5 * (1 - 1 / 7), "3/7")],
)
def test_a_probability_prints_as_people_say_it(probability: float, words: str) -> None:
    """A third that iptables holds in 31 bits is still a third."""
    assert chance(probability) == words


# In few words

V4 = IPv4("10.0.0.1", "10.0.0.2", "UDP")


@pytest.mark.parametrize(
    ("packet", "words"),
    [
        (Packet((V4, UDP(4000, 53))), "UDP 10.0.0.1:4000 > 10.0.0.2:53"),
        (Packet((IPv6("fd00::1", "fd00::2", "TCP"), TCP(4000, 80, "S."))), "TCP [fd00::1]:4000 > [fd00::2]:80 [S.]"),
        (Packet((V4, SCTP(4000, 3868))), "UDP 10.0.0.1:4000 > 10.0.0.2:3868 [INIT]"),
        (
            Packet(
                (IPv4("10.0.0.9", "10.0.0.1", "ICMP"), ICMP("fragmentation-needed", 1450, 0, Packet((V4, UDP(1, 2)))))
            ),
            "10.0.0.9 > 10.0.0.1 ICMP fragmentation-needed (mtu 1450)",
        ),
        (
            Packet((Ethernet(mac(1), mac(2)), ARP("reply", mac(1), "10.0.0.1", mac(2), "10.0.0.2"))),
            f"ARP 10.0.0.1 is at {mac(1)}",
        ),
        (
            Packet((IPv4("10.0.0.1", "10.0.0.2", "UDP", offset=1480),), bytes(20)),
            "UDP 10.0.0.1 > 10.0.0.2 fragment at 1480",
        ),
    ],
    ids=["UDP", "TCP over IPv6", "SCTP", "ICMP", "ARP", "fragment"],
)
def test_a_packet_in_few_words(packet: Packet, words: str) -> None:
    """Addresses with their ports, and what is special."""
    assert brief(packet) == (words,)


# HTML


def test_a_notebook_shows_html_and_the_same_text(trace: Trace) -> None:
    """The text of a notebook's output is `str()`: it can be compared."""
    shown = trace._repr_mimebundle_()
    assert list(shown) == ["text/plain", "text/html"]
    assert shown["text/plain"] == str(trace)
    assert shown["text/html"].count("<table>") == 2


def test_html_is_escaped() -> None:
    """What comes from a manifest is text, whatever is in it."""
    step = Step("<b>", "eth0", Action.SEND, Packet((V4, UDP(1, 2))), "a < b & c")
    request = Request("<i>", "10.0.0.2:2", "10.0.0.2", 2, "UDP")
    html = Trace(request, Verdict.TIMEOUT, Client.TIMEOUT, "<u>", (step,), (), None, "", tuple)._repr_html_()
    assert "a &lt; b &amp; c" in html
    assert not any(tag in html for tag in ("<b>", "<i>", "<u>"))


# Sentences


def test_the_story_follows_the_packet(trace: Trace) -> None:
    """Sending, the translation, the tunnel and the listener come in this order, with the addresses of the steps."""
    told = " ".join(trace.explain().split())
    parts = (
        f"shop/c2 sends to {VIP}:80",
        f"TCP 10.244.1.2:40000 > {VIP}:80 [S]",
        f"A rule of THERE (table nat) changes the destination {VIP}:80 → 10.244.2.4:8080",
        "The device flannel.1 wraps the frame into a packet 172.18.0.1 → 172.18.0.2",
        "On node-2: The frame arrives at eth0",
        "web listens on *:8080/TCP",
        "And back",
        f"Conntrack changes the source 10.244.2.4:8080 → {VIP}:80",
        "In the end: the packet is delivered",
        "one of 2 ways",
        "shop/c3 (10.244.1.3) with probability 1/4, DELIVERED",
    )
    found = [told.find(part) for part in parts]
    assert -1 not in found, dict(zip(parts, found, strict=True))
    assert found == sorted(found)


def test_the_story_tells_a_choice_with_its_probability() -> None:
    """The probability is the one that stands in the rule."""
    told = " ".join(traced(network(), choose=lambda probability: True).explain().split())
    assert "A rule of SERVICE (table nat) takes its chance of 1/4: on to HERE" in told


def test_the_story_of_nftables_tells_lookups_and_choices() -> None:
    """A lookup says what was found in which map; with affinity, chance chooses a chain."""
    affinity = "sessionAffinity: ClientIP, sessionAffinityConfig: {clientIP: {timeoutSeconds: 100}}"
    backends = "".join(pod(f"web-{number}", node=f"node-{number}") for number in (1, 2, 3))
    shop = Cluster.load(backends, pod("a", app="client"), service("web", affinity), proxy="nftables")
    trace = shop.trace("default/a", "svc/default/web:80")
    told = " ".join(trace.explain().split())
    assert f"A rule of services (table ip kube-proxy) matches: {trace.request.address} . tcp . 80 is in" in told
    assert "(table ip kube-proxy) takes its chance of 1/3: chance falls on" in told
    kept = str(trace)
    assert all(part in kept for part in ("vmap @service-ips", "numgen random mod 3 vmap", "update @affinity-"))


def test_the_story_of_a_lost_packet_says_so(lost: Trace) -> None:
    """Nothing comes back, and the program waits."""
    told = " ".join(lost.explain().split())
    assert "The packet is dropped by a rule of FORWARD (table filter): dropped" in told
    assert "Nothing comes back." in told
    assert "The program is told nothing, and waits until its time is up." in told


def steps_of_every_action() -> Iterator[Step]:
    """One step for each action there is."""
    inner = Packet((Ethernet(mac(1), mac(2)), V4, UDP(4000, 53)))
    for action in Action:
        yield Step("node-1", "eth0", action, inner, f"because of {action}")


def test_every_action_has_its_sentence() -> None:
    """No step is left untold, and each sentence gives the reason."""
    steps = tuple(steps_of_every_action())
    request = Request("node-1", "10.0.0.2:53", "10.0.0.2", 53, "UDP")
    told = " ".join(Trace(request, Verdict.DROPPED, Client.TIMEOUT, "", steps, (), None, "", tuple).explain().split())
    assert [action for action in Action if f"because of {action}" not in told] == []


# Diagram


def test_the_diagram_draws_each_frame_between_machines(trace: Trace) -> None:
    """Participants stand in the order they are met; the answer's arrows are dashed."""
    lines = [line.strip() for line in trace.mermaid().splitlines()]
    assert lines[:5] == [
        "sequenceDiagram",
        "participant m0 as shop/c2",
        "participant m1 as node-1",
        "participant m2 as node-2",
        "participant m3 as shop/c4",
    ]
    arrows = [line.split(":")[0] for line in lines if ">>" in line]
    assert arrows == ["m0->>m1", "m1->>m2", "m2->>m3", "m3-->>m2", "m2-->>m1", "m1-->>m0"]


def test_the_diagram_notes_what_changed_the_packet(trace: Trace) -> None:
    """Translation and encapsulation are notes over the machine that did them."""
    diagram = trace.mermaid()
    assert f"Note over m1: DNAT destination {VIP}:80 → 10.244.2.4:8080 by THERE" in diagram
    assert "Note over m1: ENCAPSULATE by flannel.1, 50 bytes more" in diagram
    assert "Note over m3: DELIVER: web listens on *:8080/TCP" in diagram


def test_the_diagram_escapes_what_mermaid_would_read() -> None:
    """A semicolon ends a statement there, and a hash begins an entity."""
    step = Step("node-1", "eth0", Action.DROP, Packet((V4, UDP(1, 2))), "rule #1; dropped")
    request = Request("node-1", "10.0.0.2:2", "10.0.0.2", 2, "UDP")
    trace = Trace(request, Verdict.DROPPED, Client.TIMEOUT, "", (step,), (), None, "", tuple)
    assert "rule #35;1#59; dropped" in trace.mermaid()


def test_a_frame_that_nobody_takes_is_a_lost_arrow() -> None:
    """Mermaid draws it with a cross."""
    step = Step("node-1", "eth0", Action.TRANSMIT, Packet((Ethernet(mac(1), mac(2)), V4, UDP(1, 2))), "to nobody")
    request = Request("node-1", "10.0.0.2:2", "10.0.0.2", 2, "UDP")
    trace = Trace(request, Verdict.TIMEOUT, Client.TIMEOUT, "", (step,), (), None, "", tuple)
    assert "m0-xm0: UDP 10.0.0.1:1 → 10.0.0.2:2" in trace.mermaid()


# JSON


def test_json_holds_every_step_with_its_packet_and_rule(trace: Trace) -> None:
    """What the table folds is all there."""
    document = json.loads(json.dumps(trace.as_dict()))
    assert len(document["steps"]) == len(trace.steps)
    dnat = next(step for step in document["steps"] if step["action"] == "DNAT")
    assert dnat["rule"] == {
        "table": "nat",
        "chain": "THERE",
        "text": "-A THERE -j DNAT --to-destination 10.244.2.4:8080",
    }
    assert dnat["packet"]["headers"][0]["dst"] == "10.244.2.4"
    assert [outcome["probability"] for outcome in document["outcomes"]] == [0.25, 0.75]


def test_json_says_how_the_answer_fared(trace: Trace, lost: Trace) -> None:
    """The reply has its own verdict and is null where nothing was sent back."""
    assert trace.as_dict()["reply"]["verdict"] == "DELIVERED"
    assert lost.as_dict()["reply"] is None


# Captures


def frames(capture: bytes) -> list[tuple[float, dpkt.ethernet.Ethernet]]:
    """The frames of a capture as dpkt reads them."""
    return [(float(time), dpkt.ethernet.Ethernet(octets)) for time, octets in dpkt.pcap.Reader(BytesIO(capture))]


def count(steps: tuple[Step, ...], chosen: Callable[[Step], bool]) -> int:
    """How many steps are such."""
    return sum(1 for step in steps if chosen(step))


def test_a_capture_of_everything_has_each_frame_once(trace: Trace) -> None:
    """A frame is written as it leaves a device, and not again as it arrives at the other end."""
    found = [frame for _, frame in frames(trace.pcap()) if not isinstance(frame.data, dpkt.arp.ARP)]
    assert len(found) == count((*trace.steps, *trace.reply), lambda step: step.action is Action.TRANSMIT)


def test_a_capture_at_a_device_has_both_directions(trace: Trace) -> None:
    """As `tcpdump -i eth0` in the client would print: question and answer, after those for a MAC address."""
    found = [frame for _, frame in frames(trace.pcap("shop/c2", "eth0"))]
    assert [type(frame.data).__name__ for frame in found] == ["ARP", "ARP", "IP", "IP"]
    assert [frame.data.data.flags for frame in found[2:]] == [dpkt.tcp.TH_SYN, dpkt.tcp.TH_SYN | dpkt.tcp.TH_ACK]


def test_an_arp_exchange_is_captured_as_question_and_answer(trace: Trace) -> None:
    """The question goes to everybody and asks for the address that the answer then tells."""
    (_, question), (_, answer) = frames(trace.pcap("shop/c2", "eth0"))[:2]
    assert question.dst == b"\xff" * 6
    assert (question.data.tpa, question.data.spa) == (answer.data.spa, answer.data.tpa)


def test_the_tunnel_device_sees_the_frame_without_its_wrapping(trace: Trace) -> None:
    """The same packet is plain at flannel.1 and inside UDP at eth0."""
    [first, *_] = [frame for _, frame in frames(trace.pcap("node-1", "flannel.1"))]
    outer = next(frame for _, frame in frames(trace.pcap("node-1", "eth0")) if isinstance(frame.data, dpkt.ip.IP))
    assert isinstance(first.data.data, dpkt.tcp.TCP)
    assert outer.data.data.dport == 8472
    assert bytes(outer.data.data.data)[8:] == bytes(first)


def test_captures_lists_where_frames_are_seen(trace: Trace) -> None:
    """Each of these places has a capture with that many frames."""
    assert {point.where for point in trace.captures} == {"shop/c2", "node-1", "node-2", "shop/c4"}
    for point in trace.captures:
        assert len(frames(trace.pcap(point.where, point.device))) == point.frames


def test_capturing_where_nothing_passes_is_an_error(trace: Trace) -> None:
    """The error names the places where something does."""
    with pytest.raises(UnknownName, match="node-1 eth9") as caught:
        trace.pcap("node-1", "eth9")
    assert "node-1 eth0" in caught.value.known


def test_the_times_of_a_capture_are_those_of_the_steps(trace: Trace) -> None:
    """A millisecond a step, from 0, so that captures of several places fit together."""
    sent = [number for number, step in enumerate((*trace.steps, *trace.reply)) if step.action is Action.TRANSMIT]
    times = [time for time, frame in frames(trace.pcap()) if isinstance(frame.data, dpkt.ip.IP)]
    assert times == pytest.approx([number / 1000 for number in sent])


def test_an_ipv6_question_goes_to_the_group_of_the_address() -> None:
    """RFC 2464: the last 24 bits of the address stand in the multicast MAC, so few machines are disturbed."""
    answer = Packet((Ethernet(mac(2), mac(1)), ARP("reply", mac(2), "fd00::2", mac(1), "fd00::1")))
    step = Step("node-1", "eth0", Action.ARP, answer, "fd00::2 is there")
    request = Request("node-1", "[fd00::2]:80", "fd00::2", 80, family=6)
    trace = Trace(request, Verdict.TIMEOUT, Client.TIMEOUT, "", (step,), (), None, "", tuple)
    [(_, question), _] = frames(trace.pcap("node-1"))
    assert question.dst.hex(":") == "33:33:ff:00:00:02"


def test_a_diagram_notes_what_was_done_at_the_socket() -> None:
    """In ebpf mode the first note is about the client, before any frame."""
    trace = example("service-three-backends", proxy="ebpf").trace("default/client", "svc/default/web:80")
    notes = [line for line in trace.mermaid().splitlines() if "Note over" in line or "->>" in line]
    assert "before any packet exists" in notes[0]
