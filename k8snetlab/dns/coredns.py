"""How does CoreDNS find an answer?

A question goes to the server block with the longest zone that holds its name, and there from plugin to plugin, in the
order of `corefile.ORDER`. Each answers, changes the question, or hands it on. Behind the last one is nothing, which
is told as SERVFAIL; a question that no block has a zone for is REFUSED.

The usual Corefile: `cache` looks whether it has answered that before. `kubernetes` has the cluster's zone and answers
every name in it, even if only to say that there is none; for reverse zones it hands on what it does not know
(`fallthrough`). `forward` asks a name server elsewhere. So a name is asked for outside only if it is not in
`cluster.local` — after the resolver has gone through its search list.

A server is a generator: it gives the questions that it sends to other name servers and takes what comes back, so that
they walk the network, or real sockets, like all others.

Not modelled: plugins that are not in `PLUGINS` (they are refused, with their line, unless they cannot change an
answer), health checks of upstream servers, several plugins' rarer options. An upstream server that does not answer is
waited for 2 s, again and again, until 5 s are over. Guide section 2.3; CoreDNS 1.13.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from k8snetlab.address import canonical, family
from k8snetlab.dns.corefile import Block, Corefile, Directive, refused, zone_name
from k8snetlab.dns.messages import Lost, Message, Query, Rcode, Record, Reply, address_of, fitted, within
from k8snetlab.dns.records import Asked, Directory, PodRecords, Zones
from k8snetlab.errors import LabError

__all__ = ["PLUGINS", "SILENT", "Question", "Server", "Surroundings", "answered"]


class Question(NamedTuple):
    """What a name server is asked: by whom (an address), by which transport, and how large an answer may be."""

    name: str
    type: str
    client: str = ""
    transport: str = "UDP"
    size: int = 512


Rest = Callable[[Question], Asked]
"""What the plugins behind one answer."""


class Plugin(Protocol):
    """A plugin at work: it answers, or asks the rest."""

    def answer(self, question: Question, rest: Rest) -> Asked:
        """The answer; nothing where nobody is responsible."""
        ...


class Surroundings(msgspec.Struct, frozen=True):
    """What a name server stands in: the objects it watches, its own addresses, and what its resolv.conf says of other
    name servers and of names to search.
    """

    directory: Directory = Directory()
    own: tuple[str, ...] = ()
    nameservers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    hosts: Mapping[str, tuple[str, ...]] = {}


class Server:
    """A CoreDNS at work: a place, because its caches remember. `now` is in seconds; what is chosen by chance is drawn
    from `rng`. Raises `ManifestError` naming the line of the Corefile that it cannot do.
    """

    def __init__(self, corefile: Corefile, around: Surroundings, rng: random.Random | None = None) -> None:
        self.now = 0.0
        self.random = rng or random.Random(0)
        self.around = around
        self.corefile = corefile
        self._chains = [(block, tuple(self._plugins(block))) for block in corefile.blocks]

    def _plugins(self, block: Block) -> Generator[Plugin, None, None]:
        seen: dict[str, int] = {}
        for line in block.plugins:
            if line.name in seen and line.name not in _SEVERAL:
                raise refused(line.line, f"{line.name} stands in line {seen[line.name]} of this block already")
            seen[line.name] = line.line
            if line.name in SILENT:
                continue
            make = PLUGINS.get(line.name)
            if make is None:
                raise refused(line.line, f"the plugin {line.name} of CoreDNS is not modelled", line.name)
            yield make(line, block, self)

    @property
    def zones(self) -> tuple[Zones, ...]:
        """The zones of its plugins `kubernetes`."""
        return tuple(each.zones for _, plugins in self._chains for each in plugins if isinstance(each, Kubernetes))

    def serve(self, question: Question) -> Generator[tuple[Query, ...], tuple[Reply, ...], Message]:
        """Answer a question, as it is sent: cut where it does not fit. Gives the questions that have to be asked
        elsewhere, and takes what came of them.
        """
        answer = yield from self.whole(question)
        return answer if question.transport == "TCP" else fitted(question.name, answer, question.size)

    def whole(self, question: Question) -> Generator[tuple[Query, ...], tuple[Reply, ...], Message]:
        """The same before it is cut."""
        low = question.name.lower()
        best: tuple[int, tuple[Plugin, ...]] | None = None
        for block, plugins in self._chains:
            for zone in block.zones:
                if block.port == 53 and within(low, zone) and (best is None or len(zone) > best[0]):
                    best = len(zone), plugins
        if best is None:
            return Message(Rcode.REFUSED)
        found = yield from self._handed(best[1], 0, question)
        return found if found is not None else Message(Rcode.SERVFAIL)

    def _handed(self, plugins: Sequence[Plugin], at: int, question: Question) -> Asked:
        if at == len(plugins):
            return None
        found = yield from plugins[at].answer(question, lambda changed: self._handed(plugins, at + 1, changed))
        return found

    def search_of(self, block: Block, question: Question) -> tuple[str, ...]:
        """The search list of the pod that asks, as far as the block's `kubernetes` knows it."""
        plugins = next((plugins for each, plugins in self._chains if each is block), ())
        found = (each.search_of(question) for each in plugins if isinstance(each, Kubernetes))
        return next(found, ())

    def lookup(self, name: str, kind: str) -> Asked:
        """What this server itself answers for another name: how the target of a CNAME is found."""
        found = yield from self.whole(Question(name, kind, transport="TCP"))
        return found


def answered(server: Server, question: Question, elsewhere: Callable[[Query], Reply] | None = None) -> Message:
    """An answer without a network: questions to other name servers are answered by a function, else by nobody."""
    asking = server.serve(question)
    try:
        queries = next(asking)
        while True:
            queries = asking.send(tuple(elsewhere(each) if elsewhere else Lost.TIMEOUT for each in queries))
    except StopIteration as stop:
        message: Message = stop.value
        return message


# Lines of plugins


def _number(line: Directive, word: str, least: int = 0) -> int:
    if word.isdecimal() and int(word) >= least:
        return int(word)
    raise refused(line.line, f"{word!r} is no number from {least}", line.name)


def _unknown(plugin: str, line: Directive) -> LabError:
    return refused(line.line, f"the option {line.name!r} is not modelled, or there is none of that name", plugin)


def _zones(words: Sequence[str], block: Block, line: int) -> tuple[str, ...]:
    """The zones that a plugin names, else those of its block."""
    return tuple(zone_name(word, line) for word in words) or block.zones


class _Through(NamedTuple):
    """For which names a plugin hands on what it does not know (`fallthrough`)."""

    zones: tuple[str, ...] = ()

    def __call__(self, low: str) -> bool:
        return any(within(low, zone) for zone in self.zones)


def _through(line: Directive) -> _Through:
    return _Through(tuple(zone_name(word, line.line) for word in line.arguments) or (".",))


# kubernetes


class Kubernetes:
    """The names of the cluster (`dns.records`)."""

    def __init__(self, line: Directive, block: Block, server: Server) -> None:
        self._server = server
        self._through = _Through()
        around = server.around
        zones = Zones(around.directory, _zones(line.arguments, block, line.line), own=around.own)
        for option in line.body:
            zones = self._with(zones, option)
        self.zones = zones

    def _with(self, zones: Zones, option: Directive) -> Zones:
        words = option.arguments
        match option.name:
            case "pods" if len(words) == 1 and words[0] in PodRecords.__members__.values():
                return msgspec.structs.replace(zones, pods=PodRecords(words[0]))
            case "ttl" if len(words) == 1 and _number(option, words[0]) <= 3600:
                return msgspec.structs.replace(zones, ttl=int(words[0]))
            case "namespaces" if words:
                return msgspec.structs.replace(zones, namespaces=frozenset(word.lower() for word in words))
            case "endpoint_pod_names":
                return msgspec.structs.replace(zones, pod_names=True)
            case "noendpoints":
                return msgspec.structs.replace(zones, endpoints=False)
            case "ignore" if words == ("empty_service",):
                return msgspec.structs.replace(zones, empty_services=False)
            case "fallthrough":
                self._through = _through(option)
                return zones
            case "endpoint" | "tls" | "kubeconfig" | "startup_timeout":  # how the API server is reached
                return zones
            case "pods" | "ttl" | "namespaces" | "ignore":
                raise refused(option.line, f"{str(option)!r} is nothing that the plugin takes", "kubernetes")
            case _:
                raise _unknown("kubernetes", option)

    def answer(self, question: Question, rest: Rest) -> Asked:
        """What the zone has; a name that it has not does not exist, unless another plugin may know."""
        low = question.name.lower()
        if not self.zones.zone_of(low):
            return (yield from rest(question))
        found = yield from self.zones.answer(question.name, question.type, self._server.lookup)
        if found is not None:
            return found
        if self._through(low):
            return (yield from rest(question))
        return self.zones.refusal(question.name)

    def search_of(self, question: Question) -> tuple[str, ...]:
        """The search list of the pod that asks, for `autopath`; nothing unless pods are verified."""
        zone = self.zones.zone_of(question.name.lower())
        pods = self.zones.directory.by_pod_ip.get(question.client, ())
        if not zone or not pods or self.zones.pods is not PodRecords.VERIFIED:
            return ()
        return (f"{pods[0].namespace}.svc.{zone}", f"svc.{zone}", zone, *self._server.around.search, "")


# hosts


class Hosts:
    """Addresses written into the Corefile, as in /etc/hosts."""

    def __init__(self, line: Directive, block: Block, server: Server) -> None:
        words = list(line.arguments)
        file = words.pop(0) if words else ""
        if file and "/" not in file:
            words.insert(0, file)
            file = ""
        if file not in ("", "/etc/hosts"):
            raise refused(line.line, f"the file {file} is not here: write its lines into the block", "hosts")
        self._zones = _zones(words, block, line.line)
        self._ttl = 3600
        self._through = _Through()
        self._reverse = True
        self._names: dict[str, list[str]] = {name: list(held) for name, held in server.around.hosts.items()}
        for option in line.body:
            self._read(option)

    def _read(self, option: Directive) -> None:
        match option.name:
            case "ttl" if len(option.arguments) == 1:
                self._ttl = _number(option, option.arguments[0], 1)
            case "fallthrough":
                self._through = _through(option)
            case "no_reverse":
                self._reverse = False
            case "reload":
                pass
            case address:
                try:
                    held = canonical(address)
                except LabError:
                    raise refused(option.line, f"{address!r} is neither an address nor an option", "hosts") from None
                for name in option.arguments:
                    self._names.setdefault(zone_name(name, option.line), []).append(held)

    def answer(self, question: Question, rest: Rest) -> Asked:
        """What the lines say. A name without a line is handed on, or SERVFAIL: there is no zone to deny it with."""
        low = question.name.lower()
        if question.type == "PTR":
            address = address_of(low) if self._reverse else ""
            names = [name for name, held in self._names.items() if address in held]
            if not names:
                return (yield from rest(question))
            return self._said(tuple(Record(question.name, "PTR", self._ttl, name) for name in names))
        if not any(within(low, zone) for zone in self._zones):
            return (yield from rest(question))
        held = self._names.get(low, ())
        of = {"A": 4, "AAAA": 6}.get(question.type)
        found = (Record(question.name, question.type, self._ttl, each) for each in held if family(each) == of)
        answers = tuple(dict.fromkeys(found))
        if answers or held:
            return self._said(answers)
        if self._through(low):
            return (yield from rest(question))
        return Message(Rcode.SERVFAIL)

    def _said(self, answers: tuple[Record, ...]) -> Message:
        return Message(Rcode.NOERROR, answers, authoritative=True)


# rewrite


class _Rule(NamedTuple):
    """One `rewrite` of names: what it fits, what it makes of it, and whether owner names of the answer are put back."""

    fits: Callable[[str], str | None]
    back: bool
    goes_on: bool


class Rewrite:
    """Another name is asked for. The question in the answer is always the one that was asked; the names of its
    records are put back only with `answer auto`.
    """

    def __init__(self, line: Directive, block: Block, server: Server) -> None:
        _ = block, server
        words = list(line.arguments)
        goes_on = bool(words) and words[0] == "continue"
        if words and words[0] in ("continue", "stop"):
            words.pop(0)
        parts: list[Directive] = list(line.body)
        if not words and parts:  # rewrite { name … ; answer … }
            words = [parts[0].name, *parts[0].arguments]
            words += [word for part in parts[1:] for word in (part.name, *part.arguments)]
        self._type: tuple[str, str] | None = None
        self._rule: _Rule | None = None
        match words:
            case ["type", old, new]:
                self._type = old.upper(), new.upper()
            case ["name", *rest]:
                self._rule = self._named(line, rest, goes_on=goes_on)
            case _:
                raise refused(line.line, f"{str(line)!r} is not modelled: only name and type are", "rewrite")

    def _named(self, line: Directive, words: list[str], *, goes_on: bool) -> _Rule:
        back = words[-2:] == ["answer", "auto"]
        words = words[:-2] if back else words
        how = words.pop(0) if words and words[0] in _MATCHES else "exact"
        if len(words) != 2:
            raise refused(line.line, "what follows must be a name to find and one to put in its place", "rewrite")
        return _Rule(_MATCHES[how](line, *words), back, goes_on)

    def changed(self, question: Question) -> Question | None:
        """The question as this line makes it, or None where it does not fit."""
        if self._type is not None:
            old, new = self._type
            return question._replace(type=new) if question.type == old else None
        assert self._rule is not None
        name = self._rule.fits(question.name.lower())
        return question._replace(name=name) if name is not None else None

    def answer(self, question: Question, rest: Rest) -> Asked:
        """The answer to the changed question. Of several lines only the first that fits counts, unless it says
        `continue`.
        """
        changed = self.changed(question)
        if changed is None or isinstance(question, _Rewritten):
            return (yield from rest(question))
        stop = self._rule is None or not self._rule.goes_on
        found = yield from rest(_Rewritten(*changed) if stop else changed)
        if found is None or self._rule is None or not self._rule.back:
            return found
        low = changed.name.lower()
        answers = tuple(
            msgspec.structs.replace(each, name=question.name) if each.name.lower() == low else each
            for each in found.answers
        )
        return msgspec.structs.replace(found, answers=answers)


class _Rewritten(Question):
    """A question that no other `rewrite` may change."""


def _exact(line: Directive, old: str, new: str) -> Callable[[str], str | None]:
    found, put = zone_name(old, line.line), zone_name(new, line.line)
    return lambda name: put if name == found else None


def _prefix(line: Directive, old: str, new: str) -> Callable[[str], str | None]:
    return lambda name: new + name[len(old) :] if name.startswith(old.lower()) else None


def _suffix(line: Directive, old: str, new: str) -> Callable[[str], str | None]:
    found, put = (word if word.endswith(".") else f"{word}." for word in (old.lower(), new))
    return lambda name: name[: -len(found)] + put if name.endswith(found) else None


def _substring(line: Directive, old: str, new: str) -> Callable[[str], str | None]:
    return lambda name: name.replace(old.lower(), new) if old.lower() in name else None


def _regex(line: Directive, old: str, new: str) -> Callable[[str], str | None]:
    try:
        pattern = re.compile(old)
    except re.error as error:
        raise refused(line.line, f"{old!r} is no regular expression: {error}", "rewrite") from None
    put = re.sub(r"\{(\d+)\}", r"\\g<\1>", new)

    def fits(name: str) -> str | None:
        bare = name.rstrip(".")
        found = pattern.search(bare) or pattern.search(name)
        if found is None:
            return None
        try:
            whole = found.expand(put)
        except (re.error, IndexError):
            raise refused(line.line, f"{new!r} names a group that {old!r} does not have", "rewrite") from None
        return whole if whole.endswith(".") else f"{whole}."

    return fits


_MATCHES: Mapping[str, Callable[[Directive, str, str], Callable[[str], str | None]]] = {
    "exact": _exact, "prefix": _prefix, "suffix": _suffix, "substring": _substring, "regex": _regex,
}  # fmt: skip


# template


class Template:
    """One answer for every name of a zone: `template IN AAAA . { rcode NXDOMAIN }`."""

    def __init__(self, line: Directive, block: Block, server: Server) -> None:
        _ = server
        if len(line.arguments) < 2 or line.arguments[0] not in ("IN", "ANY"):
            raise refused(line.line, "it begins with a class and a type: template IN A example.org", "template")
        self._type = line.arguments[1].upper()
        self._zones = _zones(line.arguments[2:], block, line.line)
        self._rcode = Rcode.NOERROR
        self._answers: list[tuple[str, str, int, str]] = []
        self._authority: list[tuple[str, str, int, str]] = []
        self._matches: list[re.Pattern[str]] = []
        self._through = _Through()
        for option in line.body:
            self._read(option)

    def _read(self, option: Directive) -> None:
        words = option.arguments
        match option.name:
            case "rcode" if len(words) == 1 and words[0].upper() in Rcode.__members__:
                self._rcode = Rcode(words[0].upper())
            case "match" if words:
                try:
                    self._matches += [re.compile(word) for word in words]
                except re.error as error:
                    raise refused(option.line, f"{words[0]!r} is no regular expression: {error}", "template") from None
            case "answer" if len(words) == 1:
                self._answers.append(self._record(option, words[0]))
            case "authority" if len(words) == 1:
                self._authority.append(self._record(option, words[0]))
            case "fallthrough":
                self._through = _through(option)
            case _:
                raise _unknown("template", option)

    def _record(self, option: Directive, text: str) -> tuple[str, str, int, str]:
        match text.replace("{{ .Name }}", "{{.Name}}").split(None, 4):
            case [name, ttl, "IN", kind, data] if ttl.isdecimal() and "{{" not in name.replace("{{.Name}}", "") + data:
                return name, kind, int(ttl), data
            case _:
                message = 'an answer reads like "{{ .Name }} 60 IN A 192.0.2.1"; other variables are not modelled'
                raise refused(option.line, message, "template")

    def answer(self, question: Question, rest: Rest) -> Asked:
        """The same for all, where class, type, zone and pattern fit."""
        low = question.name.lower()
        if self._type not in ("ANY", question.type) or not any(within(low, zone) for zone in self._zones):
            return (yield from rest(question))
        if self._matches and not any(each.search(low) for each in self._matches):
            if self._through(low):
                return (yield from rest(question))
            return Message(Rcode.NXDOMAIN, authoritative=True)
        answers, authority = (
            tuple(Record(name.replace("{{.Name}}", question.name), kind, ttl, data) for name, kind, ttl, data in lines)
            for lines in (self._answers, self._authority)
        )
        return Message(self._rcode, answers, authority, authoritative=True)


# cache


class _Held(NamedTuple):
    message: Message
    until: float


class Cache:
    """What was answered before is answered again, for so many seconds as its records say, and at most as many as the
    line says: `cache 30`. Absence is remembered too, for as long as its SOA record says.
    """

    def __init__(self, line: Directive, block: Block, server: Server) -> None:
        words = list(line.arguments)
        most = _number(line, words.pop(0), 1) if words and words[0].isdecimal() else 0
        self._zones = _zones(words, block, line.line)
        self._server = server
        self._most = {True: most or 3600, False: most or 1800}
        self._least = {True: 5, False: 5}
        self._never: dict[bool, tuple[str, ...]] = {True: (), False: ()}
        self._held: dict[tuple[str, str], _Held] = {}
        for option in line.body:
            self._read(option)

    def _read(self, option: Directive) -> None:
        words = option.arguments
        match option.name:
            case "success" | "denial" if 1 <= len(words) <= 3:
                numbers = [_number(option, word) for word in words]
                good = option.name == "success"
                if len(numbers) > 1:
                    self._most[good] = numbers[1]
                if len(numbers) > 2:
                    self._least[good] = numbers[2]
            case "disable" if words and words[0] in ("success", "denial"):
                zones = tuple(zone_name(word, option.line) for word in words[1:]) or (".",)
                self._never[words[0] == "success"] += zones
            case "prefetch" | "servfail" | "keepttl":
                pass
            case _:
                raise _unknown("cache", option)

    def answer(self, question: Question, rest: Rest) -> Asked:
        """What is remembered, its seconds counted down; else what the rest says, which is remembered."""
        low = question.name.lower()
        if not any(within(low, zone) for zone in self._zones):
            return (yield from rest(question))
        now = self._server.now
        held = self._held.get((low, question.type))
        if held is not None and now < held.until:
            return _with_ttl(held.message, int(held.until - now), question.name)
        found = yield from rest(question)
        seconds = self._seconds(low, found) if found is not None else None
        if found is None or seconds is None:
            return found
        known = _with_ttl(found, seconds, question.name)
        self._held[low, question.type] = _Held(known, now + seconds)
        return known

    def _seconds(self, low: str, message: Message) -> int | None:
        """For how long an answer is remembered; None for one that is not."""
        good = bool(message.rcode is Rcode.NOERROR and message.answers)
        if message.truncated or message.rcode not in (Rcode.NOERROR, Rcode.NXDOMAIN):
            return None
        if any(within(low, zone) for zone in self._never[good]):
            return None
        records = (*message.answers, *message.authority, *message.additional)
        if not good and not message.authority:
            return None
        denied = (int(each.data.split()[-1]) for each in message.authority if each.type == "SOA" and not good)
        ttl = min((*(each.ttl for each in records), *denied))
        return min(max(ttl, self._least[good]), self._most[good])


def _with_ttl(message: Message, ttl: int, name: str) -> Message:
    def counted(records: tuple[Record, ...]) -> tuple[Record, ...]:
        return tuple(
            msgspec.structs.replace(each, ttl=ttl, name=name if each.name.lower() == name.lower() else each.name)
            for each in records
        )

    return msgspec.structs.replace(
        message,
        answers=counted(message.answers),
        authority=counted(message.authority),
        additional=counted(message.additional),
    )


# autopath


class Autopath:
    """The server walks the search list for the resolver: where the first name of the list is not there, the next
    ones are looked up at once, and what is found is given back behind a CNAME.
    """

    def __init__(self, line: Directive, block: Block, server: Server) -> None:
        if not line.arguments:
            raise refused(line.line, "it needs a resolv.conf, or @kubernetes", "autopath")
        *zones, source = line.arguments
        self._zones = _zones(zones, block, line.line)
        self._server = server
        self._block = block
        self._pods = source == "@kubernetes"
        if not self._pods and source != "/etc/resolv.conf":
            raise refused(line.line, f"{source!r} is neither /etc/resolv.conf nor @kubernetes", "autopath")

    def _search(self, question: Question) -> tuple[str, ...]:
        if not self._pods:
            return (*self._server.around.search, "")
        return self._server.search_of(self._block, question)

    def answer(self, question: Question, rest: Rest) -> Asked:
        """The first answer on the search list that says more than that there is no such name."""
        low = question.name.lower()
        search = self._search(question) if any(within(low, zone) for zone in self._zones) else ()
        if not search or not low.endswith(f".{search[0]}"):
            return (yield from rest(question))
        base = question.name[: -len(search[0])]
        first: Message | None = None
        for at, each in enumerate(search):
            found = yield from rest(question._replace(name=f"{base}{each}"))
            if at == 0:
                first = found
            if found is not None and found.rcode is not Rcode.NXDOMAIN:
                return _behind_alias(found, question.name)
        return first


def _behind_alias(message: Message, name: str) -> Message:
    other = next((each for each in message.answers if each.name.lower() != name.lower()), None)
    if other is None:
        return message
    alias = Record(name, "CNAME", other.ttl, other.name)
    return msgspec.structs.replace(message, answers=(alias, *message.answers))


# forward

READ_TIMEOUT = 2.0
DEADLINE = 5.0


class Forward:
    """Ask another name server: `forward . /etc/resolv.conf`, `forward example.org 192.0.2.53`."""

    def __init__(self, line: Directive, block: Block, server: Server) -> None:
        if len(line.arguments) < 2:
            raise refused(line.line, "it needs a zone and a name server: forward . /etc/resolv.conf", "forward")
        self._zone = zone_name(line.arguments[0], line.line)
        self._server = server
        self._to = [each for word in line.arguments[1:] for each in self._servers(line, word)]
        self._except: tuple[str, ...] = ()
        self._tcp = False
        self._udp = False
        self._policy = "random"
        for option in line.body:
            self._read(option)
        if block.named("loop") is not None:
            self._looped(line)

    def _servers(self, line: Directive, word: str) -> tuple[str, ...]:
        if word == "/etc/resolv.conf":
            return self._server.around.nameservers
        bare = word.removeprefix("dns://").removesuffix(":53")
        try:
            return (canonical(bare.strip("[]")),)
        except LabError:
            message = f"{word!r} is no name server: an address (port 53), or /etc/resolv.conf"
            raise refused(line.line, message, "forward") from None

    def _read(self, option: Directive) -> None:
        match option.name:
            case "except" if option.arguments:
                self._except += tuple(zone_name(word, option.line) for word in option.arguments)
            case "force_tcp":
                self._tcp = True
            case "prefer_udp":
                self._udp = True
            case "policy" if option.arguments in (("random",), ("round_robin",), ("sequential",)):
                self._policy = option.arguments[0]
            case "expire" | "health_check" | "max_concurrent" | "max_fails" | "max_idle_conns":
                pass
            case _:
                raise _unknown("forward", option)

    def _looped(self, line: Directive) -> None:
        """The plugin `loop` ends CoreDNS when a question comes back."""
        around = self._server.around
        there = around.directory.by_endpoint
        leading = {key for each in around.own for key in there.get(each, ())}
        services = around.directory.by_cluster_ip
        own = next(
            (
                each
                for each in self._to
                if each in around.own or _loopback(each) or (each in services and services[each].key.lower() in leading)
            ),
            None,
        )
        if own is not None:
            message = f"Loop: questions are forwarded to {own}, which is this name server itself: CoreDNS stops"
            raise refused(line.line, message, "loop")

    def answer(self, question: Question, rest: Rest) -> Asked:
        """What a name server elsewhere says; SERVFAIL where none answers in time."""
        low = question.name.lower()
        if not within(low, self._zone) or any(within(low, zone) for zone in self._except):
            return (yield from rest(question))
        order = self._order()
        waited, at = 0.0, 0
        transport = "TCP" if self._tcp else "UDP" if self._udp else question.transport
        while order and waited < DEADLINE:
            query = Query(order[at % len(order)], question.name, question.type, transport, READ_TIMEOUT, at + 1)
            (reply,) = yield (query,)
            if isinstance(reply, Message):
                if reply.truncated and self._udp and transport == "UDP":
                    transport = "TCP"
                    continue
                return reply
            waited += READ_TIMEOUT if reply is Lost.TIMEOUT else 0.0
            at += 1
            if reply is not Lost.TIMEOUT and at >= len(order):
                break
        return Message(Rcode.SERVFAIL)

    def _order(self) -> list[str]:
        if self._policy == "sequential" or len(self._to) < 2:
            return self._to
        return self._server.random.sample(self._to, len(self._to))


def _loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"


# loadbalance


class Loadbalance:
    """Addresses are given in another order each time."""

    def __init__(self, line: Directive, block: Block, server: Server) -> None:
        _ = block
        if line.arguments not in ((), ("round_robin",)):
            raise refused(line.line, f"{str(line)!r} is not modelled: only round_robin is", "loadbalance")
        self._server = server

    def answer(self, question: Question, rest: Rest) -> Asked:
        """The answer with its addresses shuffled, behind the CNAMEs."""
        found = yield from rest(question)
        if found is None or len(found.answers) < 2:
            return found
        addresses = [each for each in found.answers if each.type in ("A", "AAAA")]
        others = [each for each in found.answers if each.type not in ("A", "AAAA")]
        self._server.random.shuffle(addresses)
        aliases = [each for each in others if each.type == "CNAME"]
        rest_of = [each for each in others if each.type != "CNAME"]
        return msgspec.structs.replace(found, answers=(*aliases, *addresses, *rest_of))


PLUGINS: Mapping[str, Callable[[Directive, Block, Server], Plugin]] = {
    "loadbalance": Loadbalance, "cache": Cache, "rewrite": Rewrite, "autopath": Autopath, "template": Template,
    "hosts": Hosts, "kubernetes": Kubernetes, "forward": Forward,
}  # fmt: skip
"""The plugins that are modelled."""

SILENT = frozenset({
    "bind", "bufsize", "cancel", "debug", "dnstap", "errors", "health", "log", "loop", "metadata", "multisocket",
    "nsid", "pprof", "prometheus", "ready", "reload", "root", "timeouts", "trace",
})  # fmt: skip
"""The plugins that change no answer. `loop` is looked at by `forward`."""

_SEVERAL = frozenset({"rewrite", "forward", "template", "bind", "log"})
"""The plugins that a block may have several lines of."""
