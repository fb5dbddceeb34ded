"""Which rule decides?

At five places of a packet's way through a machine — PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING — the kernel runs
the chains of the tables raw, mangle, nat and filter, in that order (at POSTROUTING mangle before nat). A chain is a
list of rules; a rule is a list of matches, all of which must hold, and a target. ACCEPT and DROP end the table,
RETURN goes back to the chain that jumped here, a jump to a user chain goes on there (a *goto* too, but its RETURN goes
back to where the last jump came from), and MARK and the like do their
work and pass on. A base chain that comes to its end applies its policy.

Rules are values that print as `iptables-save` prints them. They never point back at what holds them, so the garbage
collector need not look at them (`gc=False`: a node may have a hundred thousand). A chain may have thousands of rules;
the lookup by destination or port below only skips rules that cannot match, in the order the rules stand.

Not modelled: counters, the security table, LOG, NFQUEUE, helpers, the ipt/nft difference of the back end. Guide
sections 2.1 and 2.2; `iptables(8)`, `iptables-extensions(8)`.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from hashlib import sha256
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import msgspec

from k8snetlab.address import Prefix, number
from k8snetlab.linux.skb import Skb

__all__ = [
    "ACCEPT", "BALANCING", "DROP", "HOOKS", "L4", "NOTHING", "NOTRACK", "ORDER", "PRIORITIES", "RETURN", "TABLES",
    "TRACKING", "AddrType", "Chain", "Chains", "Comment", "CtState", "Destination", "Dnat", "Final", "Goto",
    "ICMPv6Type", "InInterface", "Jump", "Mark", "Masquerade", "Match", "MatchSet", "Multiport", "Netfilter",
    "Nfacct", "Nflog", "NoTrack", "Nothing", "OutInterface", "Patch", "Physdev", "PhysdevBridged", "Protocol4",
    "Recent", "Redirect", "Reject", "ReversePath", "Rule", "Scheduled", "Section", "SetMark", "Snat", "Source", "State",
    "Statistic", "Surroundings", "Table", "Tables", "Target", "shortened", "tables",
]  # fmt: skip

HOOKS = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
"""The five places, in the order a packet can meet them."""

TABLES: Mapping[str, tuple[str, ...]] = {
    "raw": ("PREROUTING", "OUTPUT"),
    "mangle": HOOKS,
    "nat": ("PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"),
    "filter": ("INPUT", "FORWARD", "OUTPUT"),
}
"""The tables and their base chains."""


ORDER: Mapping[str, tuple[str, ...]] = {
    "PREROUTING": ("defrag", "raw", "conntrack", "mangle", "nat"),
    "INPUT": ("mangle", "filter", "ipvs answer", "ipvs request", "nat", "confirm"),
    "FORWARD": ("mangle", "filter", "ipvs answer"),
    "OUTPUT": ("raw", "conntrack", "mangle", "nat", "ipvs answer", "ipvs request", "filter"),
    "POSTROUTING": ("mangle", "nat", "confirm"),
}
"""What happens at each hook, by the kernel's priorities: tables, and what conntrack does between them."""

_STAGES = {"defrag": -400, "raw": -300, "conntrack": -200, "mangle": -150, "filter": 0, "confirm": 2**31 - 1}
_NAT = {"PREROUTING": -100, "INPUT": 100, "OUTPUT": -100, "POSTROUTING": 100}
_IPVS = {"INPUT": 98, "FORWARD": 98, "OUTPUT": -99}
PRIORITIES: Mapping[tuple[str, str], int] = {
    **{(hook, phase): stage for phase, stage in _STAGES.items() for hook, phases in ORDER.items() if phase in phases},
    **{(hook, "nat"): priority for hook, priority in _NAT.items()},
    **{(hook, "ipvs answer"): priority for hook, priority in _IPVS.items()},
    **{(hook, "ipvs request"): priority + 1 for hook, priority in _IPVS.items()},
}
"""The priority of each phase at its hook: nftables' chains stand between. IPVS looks at packets beside NAT."""

TRACKING = frozenset({"defrag", "conntrack", "confirm"})
"""The phases of conntrack: they exist only where connections are tracked."""

BALANCING = frozenset({"ipvs answer", "ipvs request"})
"""The phases of IPVS: they exist only where there are virtual servers."""


class Surroundings(Protocol):
    """What a match may ask of the machine it runs on."""

    def is_local(self, address: str) -> bool:
        """Whether the address is the machine's own."""
        ...

    def is_local_on(self, address: str, device: str) -> bool:
        """Whether the address is on that device of the machine."""
        ...

    def leads_back(self, skb: Skb) -> bool:
        """Whether an answer to the packet's source would leave by the device that the packet came by (`rpfilter`)."""
        ...

    def happens(self, probability: float) -> bool:
        """Whether a choice with this probability falls so (`statistic`)."""
        ...

    def seen(self, list_name: str, address: str, seconds: int) -> bool:
        """Whether the list holds the address, put there at most `seconds` ago (`recent`)."""
        ...

    def remember(self, list_name: str, address: str) -> None:
        """Put the address on the list (`recent --set`)."""
        ...

    def in_set(self, name: str, skb: Skb, directions: tuple[str, ...]) -> bool:
        """Whether the set holds the packet (`set --match-set`)."""
        ...


class Match(Protocol):
    """One condition of a rule. `str()` prints it as `iptables-save` does."""

    def test(self, skb: Skb, at: Surroundings) -> bool: ...


def _not(invert: bool) -> str:  # noqa: FBT001 - the field of that name
    return "! " if invert else ""


class Source(msgspec.Struct, frozen=True, gc=False):
    """`-s CIDR`."""

    block: Prefix
    invert: bool = False

    def test(self, skb: Skb, at: Surroundings) -> bool:
        block = self.block
        return (number(skb.src) & block.mask == block.base) != self.invert

    def __str__(self) -> str:
        return f"{_not(self.invert)}-s {self.block}"


class Destination(msgspec.Struct, frozen=True, gc=False):
    """`-d CIDR`."""

    block: Prefix
    invert: bool = False

    def test(self, skb: Skb, at: Surroundings) -> bool:
        block = self.block
        return (number(skb.dst) & block.mask == block.base) != self.invert

    def __str__(self) -> str:
        return f"{_not(self.invert)}-d {self.block}"


class InInterface(msgspec.Struct, frozen=True, gc=False):
    """`-i DEVICE`; a trailing `+` stands for any ending."""

    device: str
    invert: bool = False

    def test(self, skb: Skb, at: Surroundings) -> bool:
        return _same_device(self.device, skb.iif) != self.invert

    def __str__(self) -> str:
        return f"{_not(self.invert)}-i {self.device}"


class OutInterface(msgspec.Struct, frozen=True, gc=False):
    """`-o DEVICE`; a trailing `+` stands for any ending."""

    device: str
    invert: bool = False

    def test(self, skb: Skb, at: Surroundings) -> bool:
        return _same_device(self.device, skb.oif) != self.invert

    def __str__(self) -> str:
        return f"{_not(self.invert)}-o {self.device}"


def _same_device(pattern: str, device: str) -> bool:
    return device.startswith(pattern[:-1]) if pattern.endswith("+") else device == pattern


class Protocol4(msgspec.Struct, frozen=True, gc=False):
    """`-p tcp|udp|sctp|icmp|ipv6-icmp`: the layer-4 protocol. `name` is the packet's (`TCP`, `ICMPv6`)."""

    name: str
    invert: bool = False

    def test(self, skb: Skb, at: Surroundings) -> bool:
        return (skb.protocol == self.name) != self.invert

    def __str__(self) -> str:
        return f"{_not(self.invert)}-p {_PROTOCOL.get(self.name, self.name.lower())}"


_PROTOCOL = {"ICMPv6": "ipv6-icmp", "IPIP": "4"}
"""Names that differ from the packet's. Number 4 is printed as /etc/protocols calls it, if it does (`ipencap`)."""


class L4(msgspec.Struct, frozen=True, gc=False):
    """`-m tcp --sport A --dport B`; a port of 0 is not tested. `name` is `tcp`, `udp` or `sctp`."""

    name: str
    dport: int = 0
    sport: int = 0

    def test(self, skb: Skb, at: Surroundings) -> bool:
        return (not self.dport or skb.dport == self.dport) and (not self.sport or skb.sport == self.sport)

    def __str__(self) -> str:
        ports = (f" --sport {self.sport}" if self.sport else "") + (f" --dport {self.dport}" if self.dport else "")
        return f"-m {self.name}{ports}"


class Multiport(msgspec.Struct, frozen=True, gc=False):
    """`-m multiport --dports 80,443,8000:8010`: pairs of first and last port."""

    dports: tuple[tuple[int, int], ...]

    def test(self, skb: Skb, at: Surroundings) -> bool:
        return any(first <= skb.dport <= last for first, last in self.dports)

    def __str__(self) -> str:
        ports = ",".join(str(first) if first == last else f"{first}:{last}" for first, last in self.dports)
        return f"-m multiport --dports {ports}"


class Comment(msgspec.Struct, frozen=True, gc=False):
    """`-m comment --comment "…"`: holds always; says what the rule is for."""

    text: str

    def test(self, skb: Skb, at: Surroundings) -> bool:
        return True

    def __str__(self) -> str:
        if _PLAIN.fullmatch(self.text):
            return f"-m comment --comment {self.text}"
        escaped = re.sub(r"""([\\"'])""", r"\\\1", self.text)
        return f'-m comment --comment "{escaped}"'


_PLAIN = re.compile(r"[A-Za-z0-9_-]*")
"""What needs no quotes."""


class Nfacct(msgspec.Struct, frozen=True, gc=False):
    """`-m nfacct --nfacct-name N`: holds always; the kernel counts what passes."""

    name: str

    def test(self, skb: Skb, at: Surroundings) -> bool:
        return True

    def __str__(self) -> str:
        return f"-m nfacct --nfacct-name  {self.name}"


class Mark(msgspec.Struct, frozen=True, gc=False):
    """`-m mark --mark VALUE/MASK`."""

    value: int
    mask: int = 0xFFFFFFFF
    invert: bool = False

    def test(self, skb: Skb, at: Surroundings) -> bool:
        return (skb.mark & self.mask == self.value) != self.invert

    def __str__(self) -> str:
        mask = "" if self.mask == 0xFFFFFFFF else f"/{self.mask:#x}"
        return f"-m mark {_not(self.invert)}--mark {self.value:#x}{mask}"


class CtState(msgspec.Struct, frozen=True, gc=False):
    """`-m conntrack --ctstate NEW,ESTABLISHED,RELATED,INVALID,UNTRACKED,SNAT,DNAT`."""

    states: tuple[str, ...]
    invert: bool = False

    def test(self, skb: Skb, at: Surroundings) -> bool:
        found = skb.state in self.states
        known = skb.connection
        if not found and known is not None:
            found = ("DNAT" in self.states and known.is_dnat) or ("SNAT" in self.states and known.is_snat)
        return found != self.invert

    def __str__(self) -> str:
        return f"-m conntrack {_not(self.invert)}--ctstate {','.join(self.states)}"


class State(CtState, frozen=True, gc=False):
    """`-m state --state NEW,RELATED,ESTABLISHED`: an older word for the same."""

    def __str__(self) -> str:
        return f"-m state {_not(self.invert)}--state {','.join(self.states)}"


class AddrType(msgspec.Struct, frozen=True, gc=False):
    """`-m addrtype --src-type LOCAL` or `--dst-type LOCAL`: an address of this machine. `side` is `src` or `dst`;
    with `out_only` (`--limit-iface-out`) only the addresses of the device that the packet leaves by count.
    """

    side: str
    invert: bool = False
    out_only: bool = False

    def test(self, skb: Skb, at: Surroundings) -> bool:
        address = skb.src if self.side == "src" else skb.dst
        own = at.is_local_on(address, skb.oif) if self.out_only else at.is_local(address)
        return own != self.invert

    def __str__(self) -> str:
        limit = " --limit-iface-out" if self.out_only else ""
        return f"-m addrtype {_not(self.invert)}--{self.side}-type LOCAL{limit}"


class ReversePath(msgspec.Struct, frozen=True, gc=False):
    """`-m rpfilter --validmark`: whether an answer would leave by the device the packet came by; inverted, whether the
    packet claims a source that does not live there.
    """

    invert: bool = False

    def test(self, skb: Skb, at: Surroundings) -> bool:
        return at.leads_back(skb) != self.invert

    def __str__(self) -> str:
        return f"-m rpfilter --validmark{' --invert' if self.invert else ''}"


class ICMPv6Type(msgspec.Struct, frozen=True, gc=False):
    """`-m icmp6 --icmpv6-type N`."""

    number: int

    def test(self, skb: Skb, at: Surroundings) -> bool:
        return skb.icmpv6_type == self.number

    def __str__(self) -> str:
        return f"-m icmp6 --icmpv6-type {self.number}"


class Statistic(msgspec.Struct, frozen=True, gc=False):
    """`-m statistic --mode random --probability P`: how iptables balances load. The kernel holds P in 31 bits."""

    probability: float

    def test(self, skb: Skb, at: Surroundings) -> bool:
        return at.happens(self.probability)

    def __str__(self) -> str:
        return f"-m statistic --mode random --probability {round(self.probability * 2**31) / 2**31:.11f}"


class Recent(msgspec.Struct, frozen=True, gc=False):
    """`-m recent`: session affinity. With `seconds` it asks whether the source was seen (`--rcheck … --reap`),
    without it puts the source on the list (`--set`).
    """

    name: str
    seconds: int = 0
    family: int = 4

    def test(self, skb: Skb, at: Surroundings) -> bool:
        if self.seconds:
            return at.seen(self.name, skb.src, self.seconds)
        at.remember(self.name, skb.src)
        return True

    def __str__(self) -> str:
        what = f"--rcheck --seconds {self.seconds} --reap" if self.seconds else "--set"
        mask = "255.255.255.255" if self.family == 4 else "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
        return f"-m recent {what} --name {self.name} --mask {mask} --rsource"


class MatchSet(msgspec.Struct, frozen=True):
    """`-m set --match-set NAME dst,dst`: whether the packet is in a set (`linux.ipset`), by one direction, `src` or
    `dst`, for each part of its entries.
    """

    name: str
    directions: tuple[str, ...]
    invert: bool = False

    def test(self, skb: Skb, at: Surroundings) -> bool:
        return at.in_set(self.name, skb, self.directions) != self.invert

    def __str__(self) -> str:
        return f"-m set {_not(self.invert)}--match-set {self.name} {','.join(self.directions)}"


class Physdev(msgspec.Struct, frozen=True):
    """`-m physdev --physdev-is-in`: whether the packet came by a port of a bridge."""

    invert: bool = False

    def test(self, skb: Skb, at: Surroundings) -> bool:
        return (skb.bridged is not None) != self.invert

    def __str__(self) -> str:
        return f"-m physdev {_not(self.invert)}--physdev-is-in"


class PhysdevBridged(msgspec.Struct, frozen=True):
    """`-m physdev --physdev-in PORT --physdev-is-bridged`, or `--physdev-out`: whether a frame that a bridge passes on
    without routing came by that port, or leaves by it. `side` is `in` or `out`.
    """

    side: str
    port: str

    def test(self, skb: Skb, at: Surroundings) -> bool:
        if skb.bridged is None or not skb.leaves_by:
            return False
        return (skb.bridged[0] if self.side == "in" else skb.leaves_by) == self.port

    def __str__(self) -> str:
        return f"-m physdev --physdev-{self.side} {self.port} --physdev-is-bridged"


class Scheduled(msgspec.Struct, frozen=True):
    """`-m ipvs --vproto N --vaddr A --vport P`: a client's packet that IPVS sends on from that virtual server."""

    protocol: str
    address: str
    port: int

    def test(self, skb: Skb, at: Surroundings) -> bool:
        entry = skb.virtual
        if entry is None or skb.dst != entry.answer.src:
            return False
        asked = entry.request
        return (asked.protocol, asked.dst, asked.dport) == (self.protocol, self.address, self.port)

    def __str__(self) -> str:
        host = "/128" if ":" in self.address else ""
        return f"-m ipvs --vproto {_NUMBERS[self.protocol]} --vaddr {self.address}{host} --vport {self.port}"


_NUMBERS = {"TCP": 6, "UDP": 17, "SCTP": 132}


class Target(Protocol):
    """What a rule does. `str()` prints it from `-j` on."""

    @property
    def says(self) -> str:
        """What it does, in words for a learner."""
        ...


class Final(msgspec.Struct, frozen=True, gc=False):
    """`-j ACCEPT`, `-j DROP` or `-j RETURN`."""

    verdict: str

    @property
    def says(self) -> str:
        return {"ACCEPT": "accepted", "DROP": "dropped", "RETURN": "back to the calling chain"}[self.verdict]

    def __str__(self) -> str:
        return f"-j {self.verdict}"


class Nothing(msgspec.Struct, frozen=True, gc=False):
    """No target: the rule only counts, and says something by its comment."""

    @property
    def says(self) -> str:
        return "noted"

    def __str__(self) -> str:
        return ""


class NoTrack(msgspec.Struct, frozen=True, gc=False):
    """`-j NOTRACK` in table raw: conntrack shall not look at this packet."""

    @property
    def says(self) -> str:
        return "not to be tracked"

    def __str__(self) -> str:
        return "-j CT --notrack"


ACCEPT = Final("ACCEPT")
DROP = Final("DROP")
RETURN = Final("RETURN")
NOTHING = Nothing()
NOTRACK = NoTrack()


class Jump(msgspec.Struct, frozen=True, gc=False):
    """`-j CHAIN`: go on in a user chain, and come back when it says nothing."""

    chain: str

    @property
    def says(self) -> str:
        return f"on to {self.chain}"

    def __str__(self) -> str:
        return f"-j {self.chain}"


class Goto(Jump, frozen=True, gc=False):
    """`-g CHAIN`: go on in a user chain for good; when it says nothing, the chain that jumped to this one goes on."""

    def __str__(self) -> str:
        return f"-g {self.chain}"


class Nflog(msgspec.Struct, frozen=True, gc=False):
    """`-j NFLOG --nflog-group N`: a program is told of the packet, which goes on."""

    group: int

    @property
    def says(self) -> str:
        return f"told to the programs of group {self.group}"

    def __str__(self) -> str:
        return f"-j NFLOG --nflog-group {self.group}"


class SetMark(msgspec.Struct, frozen=True, gc=False):
    """`-j MARK --set-xmark VALUE/MASK`: clear the bits of the mask, then flip the bits of the value."""

    value: int
    mask: int = 0xFFFFFFFF

    @property
    def says(self) -> str:
        return f"mark becomes (mark & ~{self.mask:#x}) ^ {self.value:#x}"

    def __str__(self) -> str:
        return f"-j MARK --set-xmark {self.value:#x}/{self.mask:#x}"


class Dnat(msgspec.Struct, frozen=True, gc=False):
    """`-j DNAT --to-destination ADDRESS:PORT`; port 0 keeps the port."""

    address: str
    port: int = 0

    @property
    def says(self) -> str:
        return f"destination becomes {self.to}"

    @property
    def to(self) -> str:
        host = f"[{self.address}]" if ":" in self.address and self.port else self.address
        return f"{host}:{self.port}" if self.port else host

    def __str__(self) -> str:
        return f"-j DNAT --to-destination {self.to}"


class Redirect(msgspec.Struct, frozen=True, gc=False):
    """`-j REDIRECT --to-ports PORT`: to this machine itself."""

    port: int

    @property
    def says(self) -> str:
        return f"redirected to port {self.port} here"

    def __str__(self) -> str:
        return f"-j REDIRECT --to-ports {self.port}"


class Snat(msgspec.Struct, frozen=True, gc=False):
    """`-j SNAT --to-source ADDRESS`."""

    address: str
    random_fully: bool = False

    @property
    def says(self) -> str:
        return f"source becomes {self.address}"

    def __str__(self) -> str:
        return f"-j SNAT --to-source {self.address}{' --random-fully' if self.random_fully else ''}"


class Masquerade(msgspec.Struct, frozen=True, gc=False):
    """`-j MASQUERADE`: the source becomes the address of the device the packet leaves by."""

    random_fully: bool = False

    @property
    def says(self) -> str:
        return "source becomes the address of the outgoing device"

    def __str__(self) -> str:
        return f"-j MASQUERADE{' --random-fully' if self.random_fully else ''}"


TRANSLATING = (Dnat, Redirect, Snat, Masquerade)
"""The targets that rewrite addresses: a rule with one of them turns connection tracking on."""


class Reject(msgspec.Struct, frozen=True, gc=False):
    """`-j REJECT --reject-with KIND`: drop it and tell the sender. KIND as printed: `icmp-port-unreachable`,
    `tcp-reset`, …
    """

    kind: str

    @property
    def says(self) -> str:
        return f"rejected with {self.kind}"

    def __str__(self) -> str:
        return f"-j REJECT --reject-with {self.kind}"


class Rule(msgspec.Struct, frozen=True, gc=False):
    """One rule of one chain: matches in the order they print, and a target. `about` is what the rule stands for where
    its text does not say it: traces tell it, `iptables-save` does not.

    >>> str(Rule("filter", "FORWARD", (Source(Prefix.of("10.244.0.0/16")),), ACCEPT))
    '-A FORWARD -s 10.244.0.0/16 -j ACCEPT'
    """

    table: str
    chain: str
    matches: tuple[Match, ...]
    target: Target
    about: str = ""

    @property
    def text(self) -> str:
        """The rule as `iptables-save` prints it."""
        return " ".join([part for part in ("-A", self.chain, *map(str, self.matches), str(self.target)) if part])

    @property
    def comment(self) -> str:
        """What the rule says of itself, or nothing."""
        return next((match.text for match in self.matches if isinstance(match, Comment)), "")

    @property
    def says(self) -> str:
        """What it does, in words: its comment, what its target says, and what it stands for."""
        before = f"{self.comment}: " if self.comment else ""
        after = f" ({self.about})" if self.about else ""
        return f"{before}{self.target.says}{after}"

    def __str__(self) -> str:
        return self.text


Test: TypeAlias = Callable[[Skb, Surroundings], bool]
Line: TypeAlias = tuple[tuple[Test, ...], str, Rule, str]
"""A rule made ready to run: the tests that can fail, the chain it jumps to (empty if it does not jump), the rule, and
what to say when it matches."""

LONG = 12
"""Chains with more rules than this are looked up by destination or port."""


class Chain(msgspec.Struct, frozen=True, dict=True):
    """A list of rules. `policy` is `ACCEPT` or `DROP` for base chains and empty for user chains."""

    name: str
    rules: tuple[Rule, ...] = ()
    policy: str = ""

    @cached_property
    def _lines(self) -> tuple[Line, ...]:
        return tuple(_line(rule) for rule in self.rules)

    @cached_property
    def _index(self) -> tuple[str, dict[Any, tuple[Line, ...]], tuple[Line, ...]]:
        if len(self.rules) <= LONG:
            return "", {}, self._lines
        for field, key_of in (("dst", _host_destination), ("dport", _exact_port)):
            keys = [key_of(rule) for rule in self.rules]
            others = sum(key is None for key in keys)
            if others <= LONG:
                return field, *_grouped(keys, self._lines)
        return "", {}, self._lines

    def lines(self, skb: Skb) -> tuple[Line, ...]:
        """The rules that this packet may match, in their order."""
        field, groups, rest = self._index
        return groups.get(getattr(skb, field), rest) if field else rest

    def without(self, rule: Rule) -> Chain:
        """The chain with one rule less: the first that equals it, as `iptables -D` does."""
        at = self.rules.index(rule)
        return Chain(self.name, (*self.rules[:at], *self.rules[at + 1 :]), self.policy)


def _line(rule: Rule) -> Line:
    tests = tuple(match.test for match in rule.matches if not isinstance(match, Comment | Nfacct))
    jump = rule.target.chain if isinstance(rule.target, Jump) else ""
    return tests, jump, rule, rule.says


def _host_destination(rule: Rule) -> str | None:
    for match in rule.matches:
        if isinstance(match, Destination) and not match.invert and match.block.length == match.block.bits:
            return match.block.network
    return None


def _exact_port(rule: Rule) -> int | None:
    return next((match.dport for match in rule.matches if isinstance(match, L4) and match.dport), None)


def _grouped(keys: Sequence[Any], lines: Sequence[Line]) -> tuple[dict[Any, tuple[Line, ...]], tuple[Line, ...]]:
    """For every key the lines with that key and those without any, in order; and the lines without any."""
    rest = [at for at, key in enumerate(keys) if key is None]
    found: dict[Any, list[int]] = {}
    for at, key in enumerate(keys):
        if key is not None:
            found.setdefault(key, []).append(at)
    groups = {key: tuple(lines[at] for at in sorted((*places, *rest))) for key, places in found.items()}
    return groups, tuple(lines[at] for at in rest)


Named: TypeAlias = Mapping[str, Chain | Callable[[], Chain]]


class Called(Protocol):
    """Something with a name."""

    @property
    def name(self) -> str: ...


C = TypeVar("C", bound=Called)


class Chains(Mapping[str, C], Generic[C]):
    """The chains of a table by name, in the order they are listed. A chain may be given as a function without
    arguments: it is then built when something jumps to it, and once only. `more` gives user chains whose very names are
    worked out only when one of them is asked for. (`nftables` keeps its chains and sets so too.)
    """

    __slots__ = ("_held", "_more", "built")

    def __init__(
        self,
        held: Mapping[str, C | Callable[[], C]],
        more: Iterable[Callable[[], Mapping[str, C | Callable[[], C]]]] = (),
    ) -> None:
        self._held = dict(held)
        self._more = list(more)
        self.built: dict[str, C] = {}  # those that something asked for

    def _all(self) -> dict[str, C | Callable[[], C]]:
        while self._more:
            self._held.update(self._more.pop(0)())
        return self._held

    def __getitem__(self, name: str) -> C:
        found = self.built.get(name)
        if found is None:
            held = self._held.get(name) or self._all()[name]
            found = self.built[name] = held() if callable(held) else held
        return found

    def __contains__(self, name: object) -> bool:
        return name in self._held or (name not in HOOKS and name in self._all())

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def replacing(self, *chains: C) -> Chains[C]:
        """The same chains with some of them replaced or added."""
        return Chains({**self._all(), **self.built, **{chain.name: chain for chain in chains}})


class Table(msgspec.Struct, frozen=True):
    """One table: its name and chains."""

    name: str
    chains: Chains[Chain]

    @property
    def rules(self) -> Iterator[Rule]:
        """Every rule, chain by chain. This builds every chain."""
        return (rule for chain in self.chains.values() for rule in chain.rules)


Tables: TypeAlias = Mapping[str, Table]
"""The tables of one family by name."""


class Netfilter(msgspec.Struct, frozen=True):
    """The rules of a machine: tables by name for IPv4 (`iptables`) and for IPv6 (`ip6tables`)."""

    ipv4: Tables = {}
    ipv6: Tables = {}

    def of(self, family: int) -> Tables:
        """The tables of family 4 or 6."""
        return self.ipv4 if family == 4 else self.ipv6

    def without(self, family: int, rule: Rule) -> Netfilter:
        """The same rules, one less."""
        tables = dict(self.of(family))
        table = tables[rule.table]
        tables[rule.table] = Table(table.name, table.chains.replacing(table.chains[rule.chain].without(rule)))
        return Netfilter(tables, self.ipv6) if family == 4 else Netfilter(self.ipv4, tables)


class Section(msgspec.Struct, frozen=True):
    """Rules for a user chain that another program writes. They stand ahead of its first rule that jumps to a chain
    whose name begins with `ahead_of`, and at its end where there is no such rule. `rules` are worked out when the chain
    is built.
    """

    rules: Callable[[], Iterable[Rule]]
    ahead_of: str

    def put_into(self, chain: Chain) -> Chain:
        """That chain with the section in its place."""
        at = next((at for at, rule in enumerate(chain.rules) if self._follows(rule)), len(chain.rules))
        return Chain(chain.name, (*chain.rules[:at], *self.rules(), *chain.rules[at:]), chain.policy)

    def _follows(self, rule: Rule) -> bool:
        return isinstance(rule.target, Jump) and rule.target.chain.startswith(self.ahead_of)


class Patch(msgspec.Struct, frozen=True):
    """What one program adds to one table of one family: rules of its own at the top or the bottom of base chains, and
    its own chains. Programs of a node (kube-proxy, a CNI) each return patches; `tables` puts them together.

    `first` are inserted at the top of their base chain (`iptables -I`, keeping their order), `last` appended (`-A`).
    `chains` maps the names of user chains to the chain or to a function that builds it; `more` gives such a map when
    one of its chains is asked for, where to name them all is work. `sections` go into chains of other programs, by
    their names; a chain that nobody writes gets none.
    """

    table: str
    family: int = 4
    first: tuple[Rule, ...] = ()
    last: tuple[Rule, ...] = ()
    chains: Named = {}
    more: Callable[[], Named] | None = None
    sections: Mapping[str, Section] = {}


def tables(family: int, patches: Iterable[Patch]) -> Tables:
    """The tables of one family that these patches make together, in the order given. Tables nobody asked for do not
    exist.

    A table with an empty patch exists, with its base chains and nothing in them.
    """
    wanted: dict[str, list[Patch]] = {}
    for patch in patches:
        if patch.family == family:
            wanted.setdefault(patch.table, []).append(patch)
    return {name: _table(name, wanted[name]) for name in TABLES if name in wanted}


def _table(name: str, patches: Sequence[Patch]) -> Table:
    held: dict[str, Chain | Callable[[], Chain]] = {}
    for hook in TABLES[name]:
        rules: tuple[Rule, ...] = ()
        for patch in patches:
            first = tuple(rule for rule in patch.first if rule.chain == hook)
            last = tuple(rule for rule in patch.last if rule.chain == hook)
            rules = (*first, *rules, *last)
        held[hook] = Chain(hook, rules, "ACCEPT")
    for patch in patches:
        held.update(patch.chains)
    for patch in patches:
        for chain, section in patch.sections.items():
            if chain in held:
                held[chain] = partial(_with_section, held[chain], section)
    return Table(name, Chains(held, [patch.more for patch in patches if patch.more is not None]))


def _with_section(held: Chain | Callable[[], Chain], section: Section) -> Chain:
    return section.put_into(held() if callable(held) else held)


def shortened(prefix: str, rest: str, longest: int) -> str:
    """A name of two parts; where it would be too long, a hash stands for the second: an underscore and base64.

    >>> shortened("cali-pri-", "ksa.default.default", 28), shortened("cali-pri-", "ksa.kube-system.coredns", 28)
    ('cali-pri-ksa.default.default', 'cali-pri-_u2Tn2rSoAPffvE7JO6')
    """
    if len(prefix) + len(rest) <= longest:
        return prefix + rest
    digest = urlsafe_b64encode(sha256(rest.encode()).digest()).decode().rstrip("=")
    return f"{prefix}_{digest}"[:longest]
