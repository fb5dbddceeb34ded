"""Which rules did the kernel itself run, and does the walk name the same?

`lab.follow(probe)` sets the trace flag on the packets of one probe, on every machine that has rules, and lets the
kernel tell which of them matched. `agreement` walks the same probe and puts the two side by side:

    followed = lab.follow(live.Probe("shop/web-0", "10.96.0.10", 80))
    print(live.agreement(lab.network, followed))

Followed are the first packet of the connection and the first answer (the second packet of a handshake, a reset, an
ICMP error, a datagram), also inside of tunnels. Compared is, for each machine and each of both ways, the ordered list
of the rules that matched, as `iptables-save` and `nft list ruleset` print them. Rules that did not match, policies and
the ends of chains are not compared: the walk does not name them. Load balancing is replayed: of all ways in which the
walk's choices can fall, one must be what the kernel did.

The kernel names a rule by its handle. What `nft -a list ruleset` prints has the text of each rule of nftables beside
its handle. A rule of iptables is the one that stands at the same place of the same chain in what `iptables-save`
prints; so iptables must be the one that keeps its rules in nf_tables. What a verdict map has led to is the chain that
goes on; which element it was, the kernel does not tell.

The flag is set in a table of its own, before every other table, which is gone afterwards and never compared; a packet
in a tunnel is recognised by bytes of the inner packet. Counters are left out on both sides: a kernel may lack those of
nfacct.

Not followed: later packets of a connection; pieces of a datagram on a machine that tracks no connections, but for the
first; SCTP, ICMP. Guide section 2.2; `nft(8)`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import TypeAlias

import msgspec

from k8snetlab.address import family
from k8snetlab.linux.host import Host, Network
from k8snetlab.linux.nftables import FAMILIES
from k8snetlab.linux.walk import every
from k8snetlab.live.comparison import walked
from k8snetlab.live.probes import Probe, Sight
from k8snetlab.trace import Step

__all__ = [
    "PATIENCE", "Agreement", "Event", "Followed", "Matched", "Texts", "agreement", "followable", "matched", "texts",
    "told_of", "unwatch", "watch",
]  # fmt: skip

PATIENCE = 0.8
"""Seconds to wait for the end of a followed probe: a SYN that nobody answered is sent again after one second."""

TABLE = "k8snetlab_trace"
_ASKED, _ANSWERED, _PIECE = "asked", "answered", "piece"
_FAMILIES: Mapping[int, str] = {4: "ip", 6: "ip6"}
_OF_PROTOCOL: Mapping[int, str] = {1: "inet", 2: "ip", 10: "ip6"}
_TCP, _UDP, _FRAGMENT = 6, 17, 44

Event: TypeAlias = tuple[str, int, str, str, int, int, str, str]
"""What the agent hears: `inside.tracing.Event`."""

Place: TypeAlias = tuple[str, str, str]
"""A chain: family as nft writes it, table, chain."""

Called: TypeAlias = tuple[str, str]
"""The table of a rule as its own tool calls it, and the rule as that tool prints it."""

Texts: TypeAlias = Mapping[tuple[str, str, str, int], Called]
"""What rules are called, by family, table, chain and handle."""


class Matched(msgspec.Struct, frozen=True):
    """A rule that matched the packet: on which machine, in which table and chain, and as `iptables-save` or `nft list
    ruleset` prints it. A table of nftables has its family before its name.
    """

    where: str
    table: str
    chain: str
    text: str

    def __str__(self) -> str:
        native = " " in self.table
        return f"{self.table} {self.chain} {self.text}" if native else f"-t {self.table} {self.text}"


class Followed(msgspec.Struct, frozen=True):
    """What the kernel told of a probe: the rules that matched its first packet on the way `there`, and the first
    answer on its way `back`. Only each machine's own order is known.
    """

    probe: Probe
    seen: Sight
    there: tuple[Matched, ...]
    back: tuple[Matched, ...]


class Agreement(msgspec.Struct, frozen=True):
    """The rules that the kernel ran, beside those of the walk that comes closest. `walks` is how many ways there are
    for the walk's choices to fall.
    """

    followed: Followed
    there: tuple[Matched, ...]
    back: tuple[Matched, ...]
    walks: int

    @property
    def agrees(self) -> bool:
        """Whether both name the same rules in the same order, on every machine and both ways."""
        ways = ((self.there, self.followed.there), (self.back, self.followed.back))
        return all(_by_machine(walk) == _by_machine(kernel) for walk, kernel in ways)

    @property
    def rules(self) -> int:
        """How many rules the kernel named."""
        return len(self.followed.there) + len(self.followed.back)

    def __str__(self) -> str:
        said = "the walk and the kernel name the same rules" if self.agrees else "the walk and the kernel differ"
        closest = f", the closest of {self.walks} walks" if self.walks > 1 and not self.agrees else ""
        lines = [f"{self.followed.probe}: {self.followed.seen}", f"{said} ({self.rules}){closest}"]
        lines += _columns("there", self.there, self.followed.there)
        lines += _columns("back", self.back, self.followed.back)
        return "\n".join(lines)


# What the kernel is told


def told_of(host: Host) -> tuple[int, ...]:
    """The families of whose packets the kernel can tell on a machine: those that it has rules for."""
    own = {version for table in host.nftables for version in FAMILIES[table.family]}
    return tuple(version for version in _FAMILIES if version in own or host.netfilter.of(version))


def watch(host: Host, probe: Probe, tunnels: Iterable[int]) -> str:
    """The input of `nft -f` that sets the trace flag on the packets of a probe on a machine; empty if the machine has
    no rules. `tunnels` are the ports that VXLAN uses.
    """
    of = family(probe.address)
    return "".join(_table(version, _conditions(version, of, probe.protocol, tunnels)) for version in told_of(host))


def unwatch(host: Host) -> str:
    """The input of `nft -f` that takes back what `watch` did."""
    return "".join(f"delete table {_FAMILIES[each]} {TABLE}\n" for each in told_of(host))


def _table(version: int, conditions: Sequence[tuple[str, str]]) -> str:
    chains = (
        f" chain {way}_{hook} {{\n  type filter hook {hook} priority -301;\n"
        + "".join(f"  {condition} meta nftrace set 1\n" for kind, condition in conditions if kind == way)
        + " }\n"
        for way in (_ASKED, _ANSWERED, _PIECE)
        for hook in ("prerouting", "output")
    )
    return f"table {_FAMILIES[version]} {TABLE} {{\n{''.join(chains)}}}\n"


def _conditions(version: int, of: int, protocol: str, tunnels: Iterable[int]) -> list[tuple[str, str]]:
    """Which packets are followed, and which way each goes; in tables of the other family only those in tunnels."""
    bare = _bare(of, protocol, tunnels) if version == of else ()
    return [*bare, *(pair for port in tunnels for pair in _tunnelled(of, protocol, port))]


def _bare(of: int, protocol: str, tunnels: Iterable[int]) -> Iterator[tuple[str, str]]:
    errors = "destination-unreachable, time-exceeded" + (", packet-too-big" if of == 6 else "")
    yield _ANSWERED, f"{'icmp' if of == 4 else 'icmpv6'} type {{ {errors} }}"
    if protocol == "TCP":
        yield _ASKED, "tcp flags & (fin|syn|rst|ack) == syn"
        yield _ANSWERED, "tcp flags & (syn|ack) == (syn|ack)"
        yield _ANSWERED, "tcp flags & rst == rst"
        return
    yield _ASKED, f"udp dport != {{ {', '.join(map(str, (0, *tunnels)))} }}"  # its bytes say which way it goes


def _tunnelled(of: int, protocol: str, port: int) -> Iterator[tuple[str, str]]:
    """Packets in VXLAN, whose inner IP header begins after the headers of UDP, VXLAN and Ethernet."""
    ip = 8 + 8 + 14
    inside, kind = (ip + 20, _byte(ip + 9)) if of == 4 else (ip + 40, _byte(ip + 6))
    here = f"udp dport {port} {kind}"
    if of == 4:
        yield _ANSWERED, f"{here} 1 {_byte(inside)} {{ 3, 11 }}"
    else:
        yield _ANSWERED, f"{here} 58 {_byte(inside)} {{ 1, 2, 3 }}"
    if protocol == "TCP":
        flags = _byte(inside + 13)
        yield _ASKED, f"{here} {_TCP} {flags} & 0x17 == 0x02"
        yield _ANSWERED, f"{here} {_TCP} {flags} & 0x12 == 0x12"
        yield _ANSWERED, f"{here} {_TCP} {flags} & 0x04 == 0x04"
        return
    yield from _datagrams(of, f"udp dport {port}", ip, inside)


def _datagrams(of: int, here: str, ip: int, inside: int) -> Iterator[tuple[str, str]]:
    """Datagrams in VXLAN, in pieces or not. A later piece has no port: it goes the way of the piece before it."""
    question = "{ 0x302e, 0x312e }"  # a probe's `0.` or `1.`, as no name begins
    if of == 4:
        offset = f"@th,{(ip + 6) * 8},16 & 0x1fff"
        whole = [(f"{here} {_byte(ip + 9)} {_UDP} {offset} == 0", inside)]
    else:
        here, offset = f"{here} {_byte(ip + 6)}", f"{_FRAGMENT} @th,{(inside + 2) * 8},16 & 0xfff8"
        whole = [(f"{here} {_UDP}", inside), (f"{here} {offset} == 0 {_byte(inside)} {_UDP}", inside + 8)]
    yield _PIECE, f"{here} {offset} != 0"
    for condition, udp in whole:
        yield _ASKED, f"{condition} @th,{(udp + 8) * 8},16 {question}"
        yield _ANSWERED, f"{condition} @th,{(udp + 8) * 8},16 != {question}"


def _byte(at: int) -> str:
    return f"@th,{at * 8},8"


def followable(probe: Probe) -> Probe:
    """The probe as it can be followed: a datagram must say by two bytes that it is the question."""
    return msgspec.structs.replace(probe, size=max(probe.size, 2)) if probe.protocol == "UDP" else probe


# What the kernel tells


def texts(ruleset: str, saved: Mapping[int, str]) -> Texts:
    """What rules are called, from what `nft -a list ruleset` and, for each family, `iptables-save` print: in both, the
    rules of a chain stand in the same order. Raises `ValueError` where they do not hold as many.
    """
    own = _listed(ruleset)
    found = {(*place, handle): (" ".join(place[:2]), text) for place, rules in own.items() for handle, text in rules}
    for place, lines in _saved(saved).items():
        handles = [handle for handle, _ in own.get(place, ())]
        found.update(((*place, handle), (place[1], line)) for handle, line in zip(handles, lines, strict=True))
    return found


def _listed(ruleset: str) -> Mapping[Place, list[tuple[int, str]]]:
    """Each chain of nf_tables, with the handles and the texts of its rules."""
    found: dict[Place, list[tuple[int, str]]] = {}
    place: Place = ("", "", "")
    for line in ruleset.splitlines():
        if line.startswith("table "):
            _, family, table, *_ = line.split()
            place = (family, table, "")
        elif line.startswith("\tchain "):
            place = (*place[:2], line.split()[1])
        elif line.startswith("\t\t"):
            text, numbered, handle = line.strip().rpartition(" # handle ")
            if numbered:
                found.setdefault(place, []).append((int(handle), text))
    return found


def _saved(saved: Mapping[int, str]) -> Mapping[Place, list[str]]:
    """Each chain of iptables, with the texts of its rules."""
    lines: dict[Place, list[str]] = {}
    for version, text in saved.items():
        table = ""
        for line in text.splitlines():
            if line.startswith("*"):
                table = line[1:]
            elif line.startswith("-A "):
                lines.setdefault((_FAMILIES[version], table, line.split(" ", 2)[1]), []).append(line)
    return lines


def matched(
    events: Iterable[Event], names: Mapping[str, str], known: Mapping[str, Texts], tunnels: Iterable[int]
) -> tuple[tuple[Matched, ...], tuple[Matched, ...]]:
    """The rules that matched on the way there, and on the way back. `names` says which machine a namespace is, and
    `known` what its rules are called.
    """
    ways: dict[str, list[Matched]] = {_ASKED: [], _ANSWERED: []}
    flagged: dict[str, str] = {}  # the way of the packet that came last to a namespace
    packets: dict[tuple[str, int], str] = {}  # the way of each packet, by the number that the kernel gives it at a hook
    ports = frozenset(tunnels)
    for namespace, protocol, table, chain, handle, number, network, transport in events:
        own = table == TABLE
        way = chain.partition("_")[0]
        if own and handle and way != _PIECE:
            flagged[namespace] = way
        if network:
            told = _way(bytes.fromhex(network), bytes.fromhex(transport), ports)
            packets[namespace, number] = told or flagged[namespace]
        if handle and not own:
            where = names[namespace]
            place = (_OF_PROTOCOL[protocol], table, chain, handle)
            called, text = known[namespace].get(place, (table, f"rule {handle} of nf_tables"))
            ways[packets[namespace, number]].append(Matched(where, called, chain, uncounted(text)))
    return tuple(ways[_ASKED]), tuple(ways[_ANSWERED])


def _way(network: bytes, transport: bytes, tunnels: frozenset[int]) -> str:
    """The way a packet goes, by its bytes; empty for a packet in a tunnel, of which too little is told."""
    protocol = network[9] if network[0] >> 4 == 4 else network[6]
    if protocol == _TCP:
        return _ASKED if transport[13] & 0x17 == 0x02 else _ANSWERED
    if protocol != _UDP:
        return _ANSWERED
    if int.from_bytes(transport[2:4]) in tunnels:
        return ""
    return _ASKED if transport[8:10] in (b"0.", b"1.") else _ANSWERED


_NFACCT = re.compile(r" -m nfacct --nfacct-name +\S+")


def uncounted(rule: str) -> str:
    """The rule without its counter, or with one that has counted nothing."""
    return re.sub(r"\bcounter packets \d+ bytes \d+", "counter packets 0 bytes 0", _NFACCT.sub("", rule))


# What the walk says


def agreement(network: Network, followed: Followed) -> Agreement:
    """The walk beside what the kernel told: of all ways the choices can fall, the first that agrees, or else the one
    that has the most rules in common with the kernel, machine by machine.
    """
    walks = [result for _, result in every(lambda choose: walked(network, followed.probe, choose))]
    found = [Agreement(followed, _named(walk.steps), _named(walk.reply), len(walks)) for walk in walks]
    return next((each for each in found if each.agrees), max(found, key=_in_common))


def _named(steps: Iterable[Step]) -> tuple[Matched, ...]:
    return tuple(
        Matched(step.where, step.rule.table, step.rule.chain, uncounted(step.rule.text))
        for step in steps
        if step.rule is not None
    )


def _in_common(found: Agreement) -> int:
    ways = ((found.there, found.followed.there), (found.back, found.followed.back))
    return sum((Counter(walk) & Counter(kernel)).total() for walk, kernel in ways)


def _by_machine(rules: Iterable[Matched]) -> dict[str, list[Matched]]:
    found: dict[str, list[Matched]] = {}
    for rule in rules:
        found.setdefault(rule.where, []).append(rule)
    return found


def _columns(way: str, walk: Iterable[Matched], kernel: Iterable[Matched]) -> Iterator[str]:
    """Every rule that either names, machine by machine, and who names it."""
    ours, theirs = _by_machine(walk), _by_machine(kernel)
    for where in dict.fromkeys((*ours, *theirs)):
        yield f"{way}, {where}"
        yield "  walk kernel"
        left, right = ours.get(where, []), theirs.get(where, [])
        for kind, a, b, c, d in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
            if kind == "equal":
                yield from (f"   ×     ×     {rule}" for rule in left[a:b])
            else:
                yield from (f"   ×           {rule}" for rule in left[a:b])
                yield from (f"         ×     {rule}" for rule in right[c:d])
