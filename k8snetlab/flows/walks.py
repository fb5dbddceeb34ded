"""One packet, there and back: how a question becomes a trace.

A `Question` is made of words (`asked`); a walk answers it (`trace`). The walk itself chooses one backend, drawn from a
seed; what else could have been chosen is walked too, from the beginning, when somebody looks at the outcomes.

Not modelled: more than one packet; see `flows.curl` and `flows.session`. Guide sections 2.1 and 2.2.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import msgspec

from k8snetlab.address import family
from k8snetlab.compile import led_through
from k8snetlab.controllers import Resolved
from k8snetlab.errors import BadOption, Problem
from k8snetlab.flows.names import Target, Terrain, sender_of, target_at, target_of
from k8snetlab.linux.host import Network
from k8snetlab.linux.walk import Choose, Exchange, World, every, exchange
from k8snetlab.trace import Backend, Outcome, Request, Trace

__all__ = ["Question", "asked", "merged", "outcome_of", "told", "trace", "walked"]

LARGEST = 65_000
"""Bytes of payload that fit in one packet, whatever its headers."""


class Question(msgspec.Struct, frozen=True):
    """A question made ready: the network to walk, the sending machine, the target, and how the packet is made."""

    network: Network
    host: str
    who: str
    target: Target
    payload: bytes = b""
    df: bool = True


def asked(
    terrain: Terrain,
    who: str,
    what: str,
    *,
    via: str | None = None,
    of: int | None = None,
    size: int = 0,
    df: bool = True,
    addresses: tuple[str, ...] = (),
) -> Question:
    """Resolve the words of a question; `addresses` are those that a resolver found for the name in them. See
    `sender_of` and `target_of` for words and errors.
    """
    if not 0 <= size <= LARGEST:
        raise BadOption(Problem(f"{size} is no payload size from 0 to {LARGEST} bytes", field="size"))
    if of not in (None, 4, 6):
        raise BadOption(Problem(f"{of} is no address family: 4 or 6", field="family"))
    sender = sender_of(terrain, who)
    if via is not None:
        if not sender.outside:
            raise BadOption(Problem(f"it says where traffic from outside arrives, and {who} is inside", field="via"))
        via = terrain.objects.node(via.removeprefix("node/")).name
    seen = terrain if sender.network is terrain.network else msgspec.structs.replace(terrain, network=sender.network)
    target = target_at(seen, what, sender, addresses, via) if addresses else target_of(seen, what, sender, of, via)
    network = _led(seen, sender.host, target) if target.via else sender.network
    return Question(network, sender.host, who, target, bytes(size), df)


def _led(terrain: Terrain, host: str, target: Target) -> Network:
    """The network with the target's address led to the target's node, unless it is that node's own."""
    layout = terrain.layout
    owner = next((name for name, each in layout.stations.items() if target.address in each.addresses), None)
    if owner == terrain.objects.node(target.via).name:
        return terrain.network
    if owner is not None:
        message = f"{target.address} is an address of {owner}: what is sent to it arrives there, not at {target.via}"
        raise BadOption(Problem(message, field="via"))
    return led_through(layout, terrain.network, host, target.address, target.via)


def walked(question: Question, world: World) -> Exchange:
    """Send the packet of a question in a world."""
    target = question.target
    return exchange(
        world,
        question.host,
        target.address,
        target.port,
        target.protocol,
        payload=question.payload,
        df=question.df,
    )


def trace(terrain: Terrain, question: Question, seed: int) -> Trace:
    """The walk of one packet with empty conntrack and affinity; load balancing by `random.Random(seed)`."""
    result = walked(question, World(question.network, random.Random(seed)))
    return told(terrain.objects, question, result, every_outcome(terrain, question, seed))


def every_outcome(terrain: Terrain, question: Question, seed: int) -> Callable[[], tuple[Outcome, ...]]:
    """What walks every way the choices can fall, each from the beginning, when it is called: to every address that a
    name has, and for each of them every choice on the way.
    """
    target = question.target
    places = ((target.address, target.port), *target.others)

    def again(choose: Choose, address: str, port: int) -> Exchange:
        there = msgspec.structs.replace(target, address=address, port=port)
        asked = msgspec.structs.replace(question, target=there)
        return walked(asked, World(question.network, random.Random(seed), choose=choose))

    def explored() -> Iterator[Outcome]:
        for address, port in places:
            for chance, result in every(partial(again, address=address, port=port)):
                yield outcome_of(terrain.objects, chance / len(places), result)

    return lambda: merged(explored())


def told(objects: Resolved, question: Question, result: Exchange, explore: Callable[[], tuple[Outcome, ...]]) -> Trace:
    """An exchange as a trace."""
    target = question.target
    request = Request(
        question.who,
        target.text,
        target.address,
        target.port,
        target.protocol,
        family(target.address),
        len(question.payload),
    )
    backend, seen = _taken(objects, result)
    return Trace(request, result.fate, result.client, result.reason, result.steps, result.reply, backend, seen, explore)


def outcome_of(objects: Resolved, chance: float, result: Exchange) -> Outcome:
    """An exchange as one of several outcomes."""
    backend, seen = _taken(objects, result)
    return Outcome(chance, result.fate, result.client, backend, seen, result.reason)


def merged(outcomes: Iterable[Outcome]) -> tuple[Outcome, ...]:
    """Outcomes that differ only in how they were chosen, as one; the most probable first, then by backend."""
    held: dict[tuple[object, ...], Outcome] = {}
    for each in outcomes:
        key = (each.verdict, each.client, each.backend, each.source_seen, each.reason)
        before = held.get(key)
        chance = each.probability + (before.probability if before is not None else 0.0)
        held[key] = msgspec.structs.replace(each, probability=chance)
    whole = [msgspec.structs.replace(each, probability=round(each.probability, 9)) for each in held.values()]
    return tuple(
        sorted(whole, key=lambda each: (-each.probability, each.backend.ip if each.backend else "", each.reason))
    )


def _taken(objects: Resolved, result: Exchange) -> tuple[Backend | None, str]:
    """Who took the packet, and the source address he saw."""
    if result.arrival is None:
        return None, ""
    packet = result.arrival.packet
    host = result.arrival.host
    ip, port = packet.ip, getattr(packet.headers[1], "dport", 0)
    namespace, slash, name = host.partition("/")
    if not slash:
        return Backend("", host, host, ip.dst, port), ip.src
    return Backend(namespace, name, objects.pod(host).node_name, ip.dst, port), ip.src
