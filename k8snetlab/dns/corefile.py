"""What does a Corefile say?

CoreDNS is configured by one file: server blocks, each for some zones, with a line for each plugin. Lines in a block may
stand in any order: which plugin sees a question first was decided when CoreDNS was built (`ORDER`).

    .:53 {                          # zones, and the port
        kubernetes cluster.local {  # a plugin with arguments, and with a block of its own
            pods insecure
        }
        forward . /etc/resolv.conf
    }

`(name) { … }` is a snippet, and `import name` in a block puts its lines there; a pattern (`import custom/*.override`)
means files, of which there are none here. A `#` begins a comment. What cannot be read, or is not known, is refused with
its line.

Not modelled: files other than the one in the ConfigMap, arguments of snippets, transports other than plain DNS (`tls://`,
`https://`, …). Guide section 2.3; CoreDNS manual, "Configuration"; Caddyfile syntax version 1.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec

from k8snetlab.dns.messages import absolute, reverse_name
from k8snetlab.errors import LabError, ManifestError, Problem

__all__ = ["DEFAULT", "ORDER", "Block", "Corefile", "Directive", "corefile", "refused", "zone_name"]

WHERE = "ConfigMap kube-system/coredns"

DEFAULT = """\
.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
}
"""
"""The Corefile that kubeadm writes. Older releases, and most clusters that were upgraded, have a plain `cache 30`."""

ORDER = (
    "root", "metadata", "geoip", "cancel", "tls", "quic", "timeouts", "multisocket", "reload", "nsid", "bufsize",
    "bind", "debug", "trace", "ready", "health", "pprof", "prometheus", "errors", "log", "dnstap", "local", "dns64",
    "acl", "any", "chaos", "loadbalance", "tsig", "cache", "rewrite", "header", "dnssec", "autopath", "minimal",
    "template", "transfer", "hosts", "route53", "azure", "clouddns", "k8s_external", "kubernetes", "file", "auto",
    "secondary", "etcd", "loop", "forward", "grpc", "erratic", "whoami", "on", "sign", "view", "nomad",
)  # fmt: skip
"""The plugins of CoreDNS 1.13, in the order in which they see a question."""


class Directive(NamedTuple):
    """A line of a block: the plugin's name, its arguments, the lines of its own block, and where it stands."""

    name: str
    arguments: tuple[str, ...]
    line: int
    body: tuple[Directive, ...] = ()

    def __str__(self) -> str:
        return " ".join((self.name, *self.arguments))


class Block(msgspec.Struct, frozen=True):
    """A server block: its zones (absolute), the port it listens on, and its plugins in the order that they act in."""

    zones: tuple[str, ...]
    port: int
    plugins: tuple[Directive, ...]
    line: int = 0

    def named(self, plugin: str) -> Directive | None:
        """The first line of a plugin, if it has one."""
        return next((each for each in self.plugins if each.name == plugin), None)


class Corefile(msgspec.Struct, frozen=True):
    """The server blocks of a file."""

    blocks: tuple[Block, ...]
    text: str = ""

    def __str__(self) -> str:
        return self.text


@lru_cache(maxsize=64)
def corefile(text: str, where: str = WHERE) -> Corefile:
    """Read a Corefile. Raises `ManifestError` naming the line of what cannot be read, of plugins that CoreDNS does not
    have, and of zones that two blocks have.
    """
    try:
        tokens = tuple(_tokens(text))
        blocks = tuple(_Reader(tokens).blocks())
        if not blocks:
            raise refused(0, "there is no server block in it")
        _check_once(blocks)
    except ManifestError as error:
        raise ManifestError(msgspec.structs.replace(each, file=each.file or where) for each in error.problems) from None
    return Corefile(blocks, text)


def refused(line: int, message: str, field: str = "", where: str = "") -> ManifestError:
    """What is said of a line that means nothing."""
    return ManifestError(Problem(message, file=where, line=line, object="Corefile", field=field))


def _check_once(blocks: Sequence[Block]) -> None:
    seen: dict[tuple[str, int], int] = {}
    for block in blocks:
        for zone in block.zones:
            before = seen.setdefault((zone, block.port), block.line)
            if before != block.line:
                message = f"zone {zone} on port {block.port} is served by the block in line {before} already"
                raise refused(block.line, message)


# Words

_WORD = re.compile(r'"(?:[^"\\]|\\.)*"|#.*|[^\s"]+')


class _Token(NamedTuple):
    text: str
    line: int


def _tokens(text: str) -> Iterator[_Token]:
    for line, written in enumerate(text.splitlines(), 1):
        if written.count('"') % 2:
            raise refused(line, "a quotation mark is not closed in its line")
        for found in _WORD.finditer(written):
            word = found[0]
            if word.startswith("#"):
                break
            yield _Token(word.strip('"') if word.startswith('"') else word, line)


class _Reader:
    """Reads tokens from left to right."""

    def __init__(self, tokens: Sequence[_Token]) -> None:
        self.tokens = tokens
        self.at = 0
        self.snippets: dict[str, tuple[Directive, ...]] = {}

    def blocks(self) -> Iterator[Block]:
        """The server blocks; snippets are kept aside."""
        while self.at < len(self.tokens):
            line = self.tokens[self.at].line
            if self.tokens[self.at].text == "import":
                _ = tuple(self._whole((self._directive(),)))
                continue
            keys = list(self._keys())
            lines = self._body(line)
            if len(keys) == 1 and keys[0].startswith("("):
                self.snippets[keys[0].strip("()")] = lines
                continue
            if any(key.startswith("(") for key in keys) or not keys:
                raise refused(line, "a block begins with its zones, or is a snippet: (name) { … }")
            yield from self._served(keys, line, tuple(self._whole(lines)))

    def _keys(self) -> Iterator[str]:
        """The words before the brace."""
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            self.at += 1
            if token.text == "{":
                return
            if token.text == "}":
                raise refused(token.line, "this } closes nothing")
            yield from (word for word in token.text.split(",") if word)
        raise refused(self.tokens[-1].line, "a server block has no {")

    def _body(self, opened: int) -> tuple[Directive, ...]:
        """The lines of a block up to its closing brace, which is taken as well."""
        found: list[Directive] = []
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            if token.text == "}":
                self.at += 1
                return tuple(found)
            found.append(self._directive())
        raise refused(opened, "the { of this line is never closed")

    def _directive(self) -> Directive:
        first = self.tokens[self.at]
        self.at += 1
        arguments: list[str] = []
        while self.at < len(self.tokens) and self.tokens[self.at].line == first.line:
            token = self.tokens[self.at]
            if token.text == "}":
                break
            self.at += 1
            if token.text == "{":
                return Directive(first.text, tuple(arguments), first.line, self._body(first.line))
            arguments.append(token.text)
        return Directive(first.text, tuple(arguments), first.line)

    def _whole(self, lines: Sequence[Directive]) -> Iterator[Directive]:
        """The lines with those of snippets in the place of `import`."""
        for each in lines:
            if each.name != "import":
                yield each
                continue
            name = " ".join(each.arguments)
            if "*" in name:
                continue
            if name not in self.snippets:
                known = ", ".join(sorted(self.snippets)) or "none"
                raise refused(each.line, f"there is no snippet {name!r} before this line; there are: {known}", "import")
            yield from self._whole(self.snippets[name])

    def _served(self, keys: Sequence[str], line: int, lines: tuple[Directive, ...]) -> Iterator[Block]:
        for each in lines:
            if each.name not in ORDER:
                raise refused(each.line, f"CoreDNS has no plugin {each.name!r}", each.name)
        plugins = tuple(sorted(lines, key=lambda each: ORDER.index(each.name)))
        zones: dict[int, list[str]] = {}
        for key in keys:
            zone, port = _served_zone(key, line)
            zones.setdefault(port, []).append(zone)
        for port, served in zones.items():
            yield Block(tuple(served), port, plugins, line)


def _served_zone(key: str, line: int) -> tuple[str, int]:
    """A zone and a port from the head of a block: `cluster.local:53`, `dns://.`, `10.0.0.0/8`."""
    scheme, slashes, rest = key.partition("://")
    if not slashes:
        scheme, rest = "dns", key
    if scheme != "dns":
        raise refused(line, f"{scheme}:// is not modelled: only plain DNS is", key)
    zone, colon, port = rest.rpartition(":")
    if not colon:
        zone, port = rest, "53"
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise refused(line, f"{port!r} is no port", key)
    return zone_name(zone or ".", line), int(port)


def zone_name(word: str, line: int) -> str:
    """A zone as it is written in a Corefile: a name, or a network that stands for its reverse zone.

    >>> zone_name("cluster.local", 1), zone_name("10.96.0.0/16", 1)
    ('cluster.local.', '96.10.in-addr.arpa.')
    """
    network, slash, bits = word.partition("/")
    if not slash:
        try:
            return absolute(word.lower())
        except LabError as error:
            raise refused(line, error.problems[0].message, word) from None
    try:
        labels = reverse_name(network).split(".")
        length = int(bits)
    except ValueError:
        raise refused(line, f"{word!r} is neither a name nor a network", word) from None
    unit = 8 if "in-addr" in labels else 4
    kept, left = divmod(length, unit)
    if left:
        message = f"the reverse zones of {word} are several: only whole steps of {unit} bits are modelled"
        raise refused(line, message, word)
    return ".".join(labels[len(labels) - 3 - kept :])
