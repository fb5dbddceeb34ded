"""What would somebody say who watched the packet?

Sentences in the order the packet meets things, a paragraph for each machine it comes to. Every sentence is made from
its step and the packet before it: addresses, sizes and names are those of the steps, and the reasons the walk's own.

Not modelled: style. Guide sections 2.1 and 2.2.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby

from k8snetlab.packet import SCTP, TCP, UDP, Ethernet, IPv4, IPv6, Packet
from k8snetlab.trace.step import Action, Client, Outcome, Request, Step, Verdict
from k8snetlab.trace.table import brief, chance, endpoint, telling

__all__ = ["asked", "balanced", "changes", "ended", "noted", "story"]

WIDTH = 100


def asked(request: Request) -> str:
    """What the trace is about: `shop/web-0 wants to reach svc/shop/api:80, and sends to 10.96.3.4:80 (TCP).`"""
    address = endpoint(request.address, request.port)
    wants = "" if request.target == address else f" wants to reach {request.target}, and"
    return _filled(f"{request.source}{wants} sends to {address} ({request.protocol}).")


def story(steps: Sequence[Step]) -> str:
    """The steps told in sentences, a paragraph for each stay on a machine."""
    befores = [None, *(step.packet for step in steps)]
    numbered = [(step, befores[number - 1]) for number, step in telling(steps)]
    paragraphs = []
    for where, stay in groupby(numbered, key=lambda told: told[0].where):  # one visit, which may not be the only one
        sentences = " ".join(f"{_sentence(step, before)}." for step, before in stay)
        paragraphs.append(_filled(f"On {where}: {sentences}"))
    return "\n\n".join(paragraphs)


def ended(verdict: Verdict, client: Client, reason: str) -> str:
    """How it ended, for the packet and for the program that sent it."""
    return _filled(f"In the end: {_VERDICTS[verdict]} ({reason}). {_CLIENTS[client]}.")


def balanced(outcomes: Sequence[Outcome]) -> str:
    """What load balancing could have chosen; empty where it had no choice. Where a backend can be reached in several
    ways, they are told apart by whom it sees.
    """
    if len(outcomes) < 2:
        return ""
    often = Counter(outcome.backend for outcome in outcomes)
    ways = []
    for outcome in outcomes:
        who = f"{outcome.backend.name} ({outcome.backend.ip})" if outcome.backend is not None else "nobody"
        if outcome.backend is not None and often[outcome.backend] > 1:
            who += f", which sees {outcome.source_seen},"
        ways.append(f"{who} with probability {chance(outcome.probability)}, {outcome.verdict}")
    return _filled(f"This was one of {len(outcomes)} ways the load balancing can fall: {'; '.join(ways)}.")


def noted(notes: Sequence[str]) -> str:
    """What else is to be said."""
    return "\n".join(_filled(f"Note: {note}.") for note in notes)


def changes(before: Packet | None, after: Packet) -> list[str]:
    """Which end of the outermost IP packet changed: `["destination 10.96.3.4:80 → 10.244.2.3:8080"]`."""
    if before is None:
        return []
    pairs = zip(("source", "destination"), _ends(before), _ends(after), strict=True)
    return [f"{name} {old} → {new}" for name, old, new in pairs if old != new]


def _ends(packet: Packet) -> tuple[str, str]:
    for at, ip in enumerate(packet.headers):
        if isinstance(ip, IPv4 | IPv6):
            ports = packet.headers[at + 1] if at + 1 < len(packet.headers) else None
            if isinstance(ports, TCP | UDP | SCTP):
                return endpoint(ip.src, ports.sport), endpoint(ip.dst, ports.dport)
            return ip.src, ip.dst
    return "", ""


def _sentence(step: Step, before: Packet | None) -> str:
    return _SENTENCES[step.action](step, before)


def _by(step: Step) -> str:
    if step.rule is None:
        return "the kernel"
    who = _WHO.get(step.rule.table, "a rule of {} (table " + step.rule.table + ")")
    return who.format(step.rule.chain)


_WHO: Mapping[str, str] = {"bpf": "an eBPF program with the map {}", "ipvs": "IPVS, for its virtual server {},"}
"""Who decides in tables that hold no rules."""


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


_CHANCE = re.compile(r"--probability ([0-9.]+)|numgen random mod ([0-9]+)")
"""How iptables and nftables write that chance decides."""


def _ruled(step: Step, before: Packet | None) -> str:
    chosen = _CHANCE.search(step.rule.text) if step.rule is not None else None
    if chosen is None:
        return _capital(f"{_by(step)} matches: {step.why}")
    share = float(chosen[1]) if chosen[1] else 1 / int(chosen[2])
    return _capital(f"{_by(step)} takes its chance of {chance(share)}: {step.why}")


def _translated(step: Step, before: Packet | None) -> str:
    changed = " and the ".join(changes(before, step.packet))
    did = f"changes the {changed}" if changed else "translates the packet"
    return _capital(f"{'conntrack' if step.rule is None else _by(step)} {did} ({step.why})")


def _encapsulated(step: Step, before: Packet | None) -> str:
    outer = step.packet.ip
    return f"The device {step.device} wraps the {_wrapped(step)} into a packet {outer.src} → {outer.dst}: {step.why}"


def _wrapped(step: Step) -> str:
    """What is carried in a tunnel: whole frames, or packets."""
    return "frame" if any(isinstance(header, Ethernet) for header in step.packet.headers) else "packet"


def _finished(words: str) -> Callable[[Step, Packet | None], str]:
    def sentence(step: Step, before: Packet | None) -> str:
        return f"{words} by {_by(step)}: {step.why}" if step.rule is not None else f"{words}: {step.why}"

    return sentence


_SENTENCES: Mapping[Action, Callable[[Step, Packet | None], str]] = {
    Action.SEND: lambda step, before: (
        f"A packet sets out, {brief(step.packet)[0]}, {step.packet.length} bytes: {step.why}"
    ),
    Action.ROUTE: lambda step, before: f"The routing decision: {step.why}",
    Action.RULE: _ruled,
    Action.DNAT: _translated,
    Action.SNAT: _translated,
    Action.CONNTRACK: _translated,
    Action.ARP: lambda step, before: f"It asks on {step.device} for a MAC address, and hears: {step.why}",
    Action.FORWARD: lambda step, before: (
        f"The packet is passed on with a time to live of {step.packet.ip.ttl}: {step.why}"
    ),
    Action.FRAGMENT: lambda step, before: f"The packet is cut: {step.why}",
    Action.REASSEMBLE: lambda step, before: f"Fragments are put together: {step.why}",
    Action.ENCAPSULATE: _encapsulated,
    Action.DECAPSULATE: lambda step, before: f"The {_wrapped(step)} is unwrapped again: {step.why}",
    Action.BRIDGE: lambda step, before: f"The bridge {step.device} chooses a port: {step.why}",
    Action.TRANSMIT: lambda step, before: f"The frame leaves by {step.device}, {step.why}",
    Action.RECEIVE: lambda step, before: f"The frame {step.why}",
    Action.DELIVER: lambda step, before: f"{brief(step.packet)[-1]} is delivered: {step.why}",
    Action.ICMP: lambda step, before: f"The kernel sends an ICMP error: {step.why}",
    Action.RESET: lambda step, before: f"The packet is refused: {step.why}",
    Action.DROP: _finished("The packet is dropped"),
    Action.REJECT: _finished("The packet is rejected"),
    Action.UNREACHABLE: _finished("There is no way on"),
    Action.LOST: _finished("The packet is lost"),
}

_VERDICTS: Mapping[Verdict, str] = {
    Verdict.DELIVERED: "the packet is delivered",
    Verdict.DROPPED: "the packet is dropped",
    Verdict.REJECTED: "the packet is rejected",
    Verdict.UNREACHABLE: "the packet finds no way",
    Verdict.TIMEOUT: "no answer comes",
    Verdict.MIXED: "it depends on chance",
}

_CLIENTS: Mapping[Client, str] = {
    Client.OPEN: "The program has its connection",
    Client.REFUSED: "The program is told at once that the connection is refused",
    Client.UNREACHABLE: "The program is told that the destination is unreachable",
    Client.TIMEOUT: "The program is told nothing, and waits until its time is up",
}


def _filled(text: str) -> str:
    return textwrap.fill(text, WIDTH, break_long_words=False, break_on_hyphens=False)
