"""What did the author of this file mean?

Manifests arrive as files, folders, standard input, text and dumps of live clusters, in YAML or JSON, one object or
thousands. `load` reads them all into one value, `Manifests`, or raises one `ManifestError` that lists what is wrong
everywhere: file, line, object and field.

YAML is read as `kubectl` reads it, not as PyYAML does. An unquoted `y`, `no` or `on` is a boolean; `12:30` and
`2024-01-01` are texts; `1e3` and `80.0` are the whole numbers 1000 and 80; a key that stands twice is an error. The C
parser makes the nodes and a small function here makes the values, so that speed, those rules and line numbers come
together.

Input may be hostile or just large: aliases that multiply, nesting without end and files beyond a limit are refused.

This is the only module that knows YAML. Not modelled: Helm templates and Kustomize (render first). YAML 1.1; Kubernetes
sigs.k8s.io/yaml.
"""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from k8snetlab.api.base import KindT, Object, to_dict
from k8snetlab.api.cluster_policies import ClusterNetworkPolicy
from k8snetlab.api.decoding import Decoded, decode, typed
from k8snetlab.api.networking import NetworkPolicy
from k8snetlab.api.validation import broken_rules
from k8snetlab.errors import ManifestError, Problem, UnknownName

if TYPE_CHECKING:  # both are imported when the first text is read: most of the time nobody does
    import json

    import yaml

_Node: TypeAlias = Any
"""A node of PyYAML's. Its `id` says what its `value` is: a text, a list of nodes, or a list of pairs of nodes."""

__all__ = ["JSON_LIMIT", "YAML_LIMIT", "Manifests", "Place", "Source", "UnknownKind", "drafts", "load", "to_yaml"]

MEGABYTE = 1 << 20
YAML_LIMIT = 32 * MEGABYTE
"""The largest YAML file that is read: above it, parsing takes minutes and gigabytes."""
JSON_LIMIT = 256 * MEGABYTE
"""The largest JSON file that is read; JSON is some thirty times faster than YAML."""

_MOST_PROBLEMS = 50
_MOST_REPEATED = 1_000_000
_DEEPEST = 300


class Place(msgspec.Struct, frozen=True):
    """Where an object was written. `line` counts from 1 and is 0 where it is not known."""

    file: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.file


class UnknownKind(msgspec.Struct, frozen=True, order=True):
    """A kind the lab does not read, and how many objects of it there were."""

    api_version: str
    kind: str
    count: int

    def __str__(self) -> str:
        return f"{self.kind} ({self.api_version})" + (f" × {self.count}" if self.count > 1 else "")


class Manifests(msgspec.Struct, frozen=True, dict=True):
    """Objects in the order of the input, what else was there, and by `ref` where each object was written; of policies
    also where each rule was (`NetworkPolicy shop/db spec.ingress[0]`), as far as that is known without reading again.

    >>> Manifests().of(Object)
    ()
    """

    objects: tuple[Object, ...] = ()
    unknown_kinds: tuple[UnknownKind, ...] = ()
    sources: tuple[str, ...] = ()
    places: Mapping[str, Place] = {}

    def of(self, kind: type[KindT]) -> tuple[KindT, ...]:
        """The objects of a kind, in the order of the input: `manifests.of(api.Service)`."""
        return self._by_kind.get(kind, ())  # type: ignore[return-value]

    def placed(self, problem: Problem) -> Problem:
        """The same problem with file and line, where the object it names was read from a file."""
        place = self.places.get(problem.object)
        if place is None or problem.file:
            return problem
        return msgspec.structs.replace(problem, file=place.file, line=place.line)

    def replacing(self, others: Manifests) -> Manifests:
        """These objects with others in the place of their namesakes, or after all if they have none (`kubectl
        apply`)."""
        new = {each.ref: each for each in others.objects}
        rules = tuple(f"{ref} " for ref in new)
        places = {key: place for key, place in self.places.items() if not key.startswith(rules)}
        kept = tuple(new.pop(each.ref, each) for each in self.objects)
        return msgspec.structs.replace(self, objects=(*kept, *new.values()), places={**places, **others.places})

    def without(self, kind: str, key: str) -> Manifests:
        """These objects without one: `without("Service", "shop/api")`. Raises `UnknownName`."""
        kept = tuple(each for each in self.objects if (each.kind, each.key) != (kind, key))
        if len(kept) == len(self.objects):
            raise UnknownName(kind, key, (each.key for each in self.objects if each.kind == kind))
        return msgspec.structs.replace(self, objects=kept)

    @cached_property
    def _by_kind(self) -> dict[type[Object], tuple[Object, ...]]:
        found: dict[type[Object], list[Object]] = {}
        for each in self.objects:
            found.setdefault(type(each), []).append(each)
        return {kind: tuple(objects) for kind, objects in found.items()}


Source: TypeAlias = str | Path | Mapping[str, Any] | Object | Manifests
"""A path, a folder, `-`, YAML or JSON text, plain data, an object, or manifests loaded before."""


def load(*sources: Source) -> Manifests:
    """Read objects from any mix of sources, in order.

    A `str` with a line break, or one that begins with `{`, is text; `-` is standard input; any other is a path. Raises
    `ManifestError` with every problem of every source.
    """
    return _read(sources, decode)


def drafts(*sources: Source) -> Manifests:
    """The same objects, before anybody asks whether the fields of each fit together. Raises `ManifestError`."""
    return _read(sources, typed)


def _read(sources: Sequence[Source], decoder: Callable[[Mapping[str, object]], Decoded]) -> Manifests:
    with _collector_at_rest():  # until the plain data is gone, too
        return _taken(sources, decoder)


def _taken(sources: Sequence[Source], decoder: Callable[[Mapping[str, object]], Decoded]) -> Manifests:
    reading = _Reading(decoder)
    for source in sources:
        reading.take(source)
    return reading.result()


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Python's cyclic garbage collector, switched off for a while.

    Reading makes hundreds of thousands of values that live on and have no cycles; the collector would look through
    all of them again and again, and take eight of nine seconds.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class _Reading:
    """What has been read so far, from one call of `load`."""

    def __init__(self, decoder: Callable[[Mapping[str, object]], Decoded]) -> None:
        self.decoder = decoder
        self.objects: list[Object] = []
        self.unknown: dict[tuple[str, str], int] = {}
        self.sources: list[str] = []
        self.places: dict[str, Place] = {}
        self.problems: list[Problem] = []
        self.origins: dict[str, tuple[_Document, str]] = {}
        self.refs: set[str] = set()

    def result(self) -> Manifests:
        if self.problems:
            raise ManifestError(_capped(self.problems))
        unknown = tuple(sorted(UnknownKind(version, kind, count) for (version, kind), count in self.unknown.items()))
        return Manifests(tuple(self.objects), unknown, tuple(self.sources), self.places)

    def take(self, source: Source) -> None:
        if isinstance(source, Manifests):
            self._take_manifests(source)
        elif isinstance(source, Object):
            if self.decoder is decode:
                self.problems += [Problem(what, object=source.ref, field=field) for field, what in broken_rules(source)]
            self._keep(source, None, "")
        elif isinstance(source, Mapping):
            self._take_document(_Document("", source))
        elif isinstance(source, str) and ("\n" in source or source.lstrip().startswith("{")):
            self._take_text("<text>", source.encode())
        elif source == "":
            self.problems.append(Problem("is neither text nor the name of a file or folder: it is empty"))
        elif str(source) == "-":
            self._take_text("<stdin>", sys.stdin.buffer.read(JSON_LIMIT + 1))
        else:
            for path in self._files(Path(source)):
                self._take_file(path)

    def _take_manifests(self, manifests: Manifests) -> None:
        for each in manifests.objects:
            self._keep(each, None, "")
        for kind in manifests.unknown_kinds:
            self._count(kind.api_version, kind.kind, kind.count)
        self.sources += manifests.sources
        self.places.update(manifests.places)

    def _files(self, path: Path) -> Iterator[Path]:
        if not path.is_dir():
            yield path
            return
        files = sorted(
            each
            for each in path.rglob("*")
            if each.suffix in (".yaml", ".yml", ".json")
            and not any(part.startswith(".") for part in each.relative_to(path).parts)
        )
        if not files:
            self.problems.append(Problem("there is no .yaml, .yml or .json file in this folder", file=str(path)))
        yield from files

    def _take_file(self, path: Path) -> None:
        try:
            size = path.stat().st_size
            content = path.read_bytes() if size <= JSON_LIMIT else b" " * (JSON_LIMIT + 1)
        except FileNotFoundError:
            self.problems.append(Problem("there is no such file or folder", file=str(path)))
        except OSError as error:
            self.problems.append(Problem(f"cannot be read: {error.strerror}", file=str(path)))
        else:
            self._take_text(str(path), content)

    def _take_text(self, file: str, content: bytes) -> None:
        self.sources.append(file)
        before = len(self.objects), sum(self.unknown.values()), len(self.problems)
        try:
            for document in _documents(file, content):
                self._take_document(document)
        except _UnreadableError as error:
            self.problems += error.problems
        # An empty list is an answer of kubectl's; a file without any document is a mistake.
        if before == (len(self.objects), sum(self.unknown.values()), len(self.problems)) and not _is_list(content):
            self.problems.append(Problem("is empty: there is no object in it", file=file))

    def _take_document(self, document: _Document) -> None:
        for data, at in _items(document.data, ""):
            self._take_item(document, data, at)

    def _take_item(self, document: _Document, data: object, at: str) -> None:
        if not isinstance(data, _OBJECT):
            what = "a list" if isinstance(data, list) else f"{data!r}"
            self.problems.append(document.placed(Problem(f"is not an object of Kubernetes but {what}"), at))
            return
        decoded = self.decoder(data)
        if decoded.problems:
            self.problems += [document.placed(problem, at) for problem in decoded.problems]
        elif decoded.object is None:
            self._count(str(data["apiVersion"]), str(data["kind"]), 1)
        else:
            self._keep(decoded.object, document, at)

    def _count(self, version: str, kind: str, count: int) -> None:
        self.unknown[version, kind] = self.unknown.get((version, kind), 0) + count

    def _keep(self, made: Object, document: _Document | None, at: str) -> None:
        ref = made.ref
        if ref in self.refs:
            self._twice(ref, document, at)
            return
        self.refs.add(ref)
        self.objects.append(made)
        if document is not None and document.file:
            self.places[ref] = Place(document.file, document.first_line(at))
            if not self.places[ref].line:
                self.origins[ref] = (document, at)
            elif isinstance(made, NetworkPolicy | ClusterNetworkPolicy):
                self._keep_rules(made, document, at)

    def _keep_rules(self, policy: NetworkPolicy | ClusterNetworkPolicy, document: _Document, at: str) -> None:
        """Where each rule of a policy stands: a verdict points at one."""
        for field, rules in (("ingress", policy.spec.ingress), ("egress", policy.spec.egress)):
            for index in range(len(rules)):
                rule = f"spec.{field}[{index}]"
                line = document.line(f"{at}.{rule}" if at else rule)
                self.places[f"{policy.ref} {rule}"] = Place(document.file, line)

    def _twice(self, ref: str, document: _Document | None, at: str) -> None:
        message = "is there twice"
        if ref in self.origins:
            origin, where = self.origins[ref]
            message += f", first at {Place(origin.file, origin.line(where))}"
        elif ref in self.places:
            message += f", first at {self.places[ref]}"
        problem = Problem(message, object=ref)
        self.problems.append(document.placed(problem, at) if document else problem)


def _capped(problems: Sequence[Problem]) -> list[Problem]:
    shown = list(problems[:_MOST_PROBLEMS])
    if len(problems) > _MOST_PROBLEMS:
        shown.append(Problem(f"… and {len(problems) - _MOST_PROBLEMS} more problems"))
    return shown


def _items(data: Any, at: str) -> Iterator[tuple[Any, str]]:
    """The objects in a document, each with its place in it: the document itself, or the items of a list."""
    if not _lists(data):
        if data is not None:
            yield data, at
        return
    kind = str(data["kind"]).removesuffix("List")
    for index, item in enumerate(data["items"]):
        if kind and isinstance(item, _OBJECT) and "kind" not in item:
            item = {"apiVersion": data.get("apiVersion"), "kind": kind, **item}
        where = f"{at}.items[{index}]" if at else f"items[{index}]"
        if _lists(item):
            yield from _items(item, where)
        elif item is not None:
            yield item, where


def _lists(data: Any) -> bool:
    """Whether it is a list of objects, as the API server answers."""
    return isinstance(data, _OBJECT) and isinstance(data.get("items"), list) and str(data.get("kind")).endswith("List")


_OBJECT = (dict, Mapping)
"""Nearly all are dicts, and that is seen at once."""


def _is_list(content: bytes) -> bool:
    return re.search(rb"""["']?kind["']?\s*:\s*["']?\w*List\b""", content[:4096]) is not None


# --- documents: plain data, and where each piece of it stands ---------------------------------------------------------


class _UnreadableError(Exception):
    """A text that is no YAML or JSON, or not one we read."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__()


class _Document:
    """One document of a file: its data, and its nodes when somebody asks for a line."""

    def __init__(self, file: str, data: Any, nodes: Callable[[], _Node] = lambda: None) -> None:
        self.file = file
        self.data = data
        self._nodes = nodes

    def first_line(self, at: str) -> int:
        """The line of an object, 0 where asking would mean parsing again."""
        return 0 if isinstance(self._nodes, _Later) else self.line(at)

    def line(self, field: str) -> int:
        """The line of a field, or of the nearest thing around it that is there."""
        node, line = self._nodes(), 0
        for step in (None, *_steps(field)):
            if step is not None:
                found = _child(node, step)
                if found is None:
                    break
                node, line = found
            else:
                line = node.start_mark.line + 1 if node is not None else 0
        return line

    def placed(self, problem: Problem, at: str) -> Problem:
        where = ".".join(part for part in (at, problem.field) if part)
        return msgspec.structs.replace(problem, file=self.file, line=self.line(where))


class _Later:
    """The nodes of a JSON text: JSON is YAML too, but slow to read that way, so only on demand."""

    def __init__(self, text: str, start: int, end: int) -> None:
        self.text = text
        self.start = start
        self.end = end

    def __call__(self) -> _Node:
        if self.end - self.start > YAML_LIMIT:
            return None
        return _later_node("\n" * self.text.count("\n", 0, self.start) + self.text[self.start : self.end])


@lru_cache(maxsize=4)
def _later_node(text: str) -> _Node:
    import yaml

    # A tab may stand between JSON's tokens but not between YAML's; inside JSON's strings there is none.
    try:
        return next(_nodes(text.replace("\t", " ")), None)
    except (yaml.YAMLError, RecursionError):
        return None


_FIELD_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d+)\]|\[([^\]]*)\]")


def _steps(field: str) -> Iterator[str | int]:
    for step in _FIELD_STEP.finditer(field):
        yield int(step[2]) if step[2] is not None else (step[1] or step[3])


def _child(node: _Node, step: str | int) -> tuple[_Node, int] | None:
    """The node one step further, and the line where it is written (that of its key, in a mapping)."""
    if node is None:
        return None
    if node.id == _SEQUENCE and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step].start_mark.line + 1
    if node.id == _MAPPING:
        for key, value in node.value:
            if key.id == _SCALAR and key.value == str(step):
                return value, key.start_mark.line + 1
    return None


def _documents(file: str, content: bytes) -> Iterator[_Document]:
    text = _decoded(file, content)
    if text.lstrip()[:1] in ("{", "["):
        documents = _json_documents(file, text)
        if documents is not None:
            yield from documents
            return
    if len(content) > YAML_LIMIT:
        size, limit = len(content) / MEGABYTE, YAML_LIMIT // MEGABYTE
        message = f"has {size:.0f} MB, and YAML is read up to {limit} MB: use JSON (kubectl get … -o json)"
        raise _UnreadableError(Problem(message, file=file))
    yield from _yaml_documents(file, text)


def _decoded(file: str, content: bytes) -> str:
    if len(content) > JSON_LIMIT:
        raise _UnreadableError(Problem(f"is larger than {JSON_LIMIT // MEGABYTE} MB", file=file))
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _UnreadableError(Problem("is not UTF-8 text", file=file, line=line)) from None
    return text


# --- JSON -----------------------------------------------------------------------------------------------------------


class _TwiceError(ValueError):
    """A key stands twice in a JSON object."""


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _TwiceError
    return made


def _whole(text: str) -> int | float:
    number = float(text)
    return int(number) if number.is_integer() and abs(number) < 1e21 else number


@cache
def _json_decoder() -> json.JSONDecoder:
    import json

    return json.JSONDecoder(object_pairs_hook=_pairs, parse_float=_whole)


_UNSURE = object()


@cache
def _quick_decoder() -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(float_hook=_whole)


def _quick_json(text: str) -> Any:
    """What a text of one JSON value says, five times faster than `json` reads it; `_UNSURE` where that one should look.

    msgspec keeps the last of two pairs with one key and says nothing. But then what it read, written again, has fewer
    colons than the text.
    """
    if "\\u003" in text and ("\\u003a" in text or "\\u003A" in text):
        return _UNSURE
    try:
        value = _quick_decoder().decode(text)
        again = msgspec.json.encode(value)
    except (msgspec.MsgspecError, RecursionError, UnicodeError):
        return _UNSURE
    return value if again.count(b":") == text.count(":") else _UNSURE


def _json_documents(file: str, text: str) -> list[_Document] | None:
    """The documents of a JSON text, one after the other; None when it should be read as YAML after all."""
    import json

    quick = _quick_json(text)
    if quick is not _UNSURE:
        return [_Document(file, quick, _Later(text, 0, len(text)))]
    documents: list[_Document] = []
    at, decoder = 0, _json_decoder()
    try:
        while (at := _blank_end(text, at)) < len(text):
            start = at
            data, at = decoder.raw_decode(text, start)
            documents.append(_Document(file, data, _Later(text, start, at)))
    except _TwiceError:
        if len(text) <= YAML_LIMIT:
            return None  # the reader of YAML names both lines
        raise _UnreadableError(Problem("a key stands twice in one object", file=file)) from None
    except RecursionError:
        raise _UnreadableError(Problem("is nested too deeply", file=file)) from None
    except json.JSONDecodeError as error:
        if not file.endswith(".json") and len(text) <= YAML_LIMIT:
            return None
        raise _UnreadableError(Problem(f"is not JSON: {error.msg}", file=file, line=error.lineno)) from None
    return documents


def _blank_end(text: str, at: int) -> int:
    blank = _BLANK.match(text, at)
    return blank.end() if blank else at


_BLANK = re.compile(r"\s*")


# --- YAML -----------------------------------------------------------------------------------------------------------

_SCALAR, _SEQUENCE, _MAPPING = "scalar", "sequence", "mapping"
_PLAIN = "plain"
_TEXT = "tag:yaml.org,2002:str"
_OWN_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("int", "float", "bool", "null")}


@cache
def _loader() -> type[yaml.CSafeLoader]:
    """PyYAML's C parser; which plain words are booleans and numbers is decided here, not by PyYAML."""
    import yaml

    class Loader(yaml.CSafeLoader):
        depth = 0

        def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
            if kind is not yaml.ScalarNode:
                return ""
            return _PLAIN if implicit[0] else _TEXT

        # The parser calls these two around each node. It has no limit of its own and would run out of stack.
        def descend_resolver(self, current_node: Any, current_index: Any) -> None:
            self.depth += 1
            if self.depth > _DEEPEST:
                raise RecursionError

        def ascend_resolver(self) -> None:
            self.depth -= 1

    return Loader


def _nodes(text: str) -> Iterator[_Node]:
    loader = _loader()(text)
    try:
        while loader.check_node():
            yield loader.get_node()
    finally:
        loader.dispose()


def _yaml_documents(file: str, text: str) -> Iterator[_Document]:
    import yaml

    values = _Values(file, aliases="&" in text and "*" in text)
    try:
        for node in _composed(text):
            yield _Document(file, values.of_document(node), lambda node=node: node)  # type: ignore[misc]
    except yaml.YAMLError as error:
        raise _UnreadableError(*values.problems, _syntax(file, text, error)) from None
    except RecursionError:
        raise _UnreadableError(*values.problems, Problem("is nested too deeply", file=file)) from None
    if values.problems:
        raise _UnreadableError(*values.problems)


def _composed(text: str) -> Iterator[_Node]:
    """The documents of a text as nodes, one at a time."""
    import yaml

    done = 0
    try:
        for node in _nodes(text):
            yield node
            done += 1
    except yaml.YAMLError:
        parts = list(_parts(text))
        if len(parts) == 1:
            raise
        yield from islice((node for part in parts for node in _nodes(part)), done, None)


def _parts(text: str) -> Iterator[str]:
    """A text that is not YAML, cut where files without a last line break were joined: `- {}---`.

    Empty lines in front of a part keep the line numbers.
    """
    begin = 0
    for glued in _GLUED.finditer(text):
        yield "\n" * text.count("\n", 0, begin) + text[begin : glued.start()]
        begin = glued.end()
    yield "\n" * text.count("\n", 0, begin) + text[begin:]


_GLUED = re.compile(r"(?<=[}\]])---(?=[ \t]*\r?\n)")


def _syntax(file: str, text: str, error: yaml.YAMLError) -> Problem:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = mark.line + 1 if mark else text.count("\n", 0, getattr(error, "position", 0)) + 1
    written = text.split("\n", line)[line - 1] if 0 < line <= text.count("\n") + 1 else ""
    if "{{" in written:
        return Problem("is a template: render it first (helm template, kustomize build)", file=file, line=line)
    if re.match(r" *\t", written):
        return Problem("a tab cannot indent YAML: use spaces", file=file, line=line)
    said = getattr(error, "problem", None) or getattr(error, "reason", None) or "cannot be read"
    context = getattr(error, "context", None)
    return Problem(f"is not YAML: {said}" + (f" {context}" if context else ""), file=file, line=line)


class _Values:
    """Makes plain data from the nodes of one file."""

    def __init__(self, file: str, *, aliases: bool) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self._aliases = aliases
        self._known: dict[int, tuple[Any, int] | None] = {}
        self._size = 0
        self._repeated = 0

    def of_document(self, node: _Node) -> Any:
        """An alias ends with its document, and what is known goes by the place of nodes in memory: the next document's
        may stand where these stood.
        """
        self._known.clear()
        return self.of(node)

    def of(self, node: _Node) -> Any:
        if node.id == _SCALAR:
            return self._scalar(node)
        return self._shared(node) if self._aliases else self._collection(node)

    def _shared(self, node: _Node) -> Any:
        """A collection that may be met again through an alias: it is made once, and counted each time."""
        if id(node) in self._known:
            known = self._known[id(node)]
            if known is None:
                raise _UnreadableError(self._problem("an alias stands inside what it repeats", node))
            self._repeated += known[1]
            self._size += known[1]
            if self._repeated > _MOST_REPEATED:
                raise _UnreadableError(self._problem(f"aliases repeat more than {_MOST_REPEATED:,} values", node))
            return known[0]
        self._known[id(node)] = None
        before = self._size
        value = self._collection(node)
        self._known[id(node)] = (value, self._size - before)
        return value

    def _collection(self, node: _Node) -> Any:
        self._size += len(node.value) + 1
        if node.id == _MAPPING:
            return self._mapping(node)
        return [self.of(each) for each in node.value]

    def _mapping(self, node: _Node) -> dict[str, Any]:
        made: dict[str, Any] = {}
        merged: list[_Node] = []
        for key_node, value_node in node.value:
            if key_node.id != _SCALAR:
                hint = "; of a template take what `helm template` prints" if key_node.id == _MAPPING else ""
                self.problems.append(self._problem(f"a key must be a word, not a list or a mapping{hint}", key_node))
                continue
            key = key_node.value
            if key_node.tag is _PLAIN and key in _SPECIAL:
                if key == "<<":
                    merged.append(value_node)
                    continue
                key = _key(_plain(key))
            elif key_node.tag is _PLAIN and key[:1] in _NUMERIC:
                key = _key(_plain(key))
            if key in made:
                self.problems.append(self._twice(node, key_node, key))
            value = value_node.value
            if value_node.id != _SCALAR:
                value = self.of(value_node)
            elif value_node.tag is _PLAIN:
                value = _plain(value)
            elif value_node.tag is not _TEXT:
                value = self._scalar(value_node)
            made[key] = value
        return self._with_merged(made, merged) if merged else made

    def _with_merged(self, made: dict[str, Any], merged: list[_Node]) -> dict[str, Any]:
        """`<<` brings in the pairs of other mappings; what stands here wins, and of several the first."""
        for node in merged:
            for each in node.value if node.id == _SEQUENCE else [node]:
                more = self.of(each)
                if isinstance(more, dict):
                    made = {**more, **made}
                else:
                    self.problems.append(self._problem("'<<' takes a mapping or a list of mappings", each))
        return made

    def _twice(self, node: _Node, second: _Node, key: str) -> Problem:
        first = next(each for each, _ in node.value if each.id == _SCALAR and each.value == second.value)
        lines = first.start_mark.line + 1, second.start_mark.line + 1
        return self._problem(f"the key {key!r} stands twice, in lines {lines[0]} and {lines[1]}", second)

    def _scalar(self, node: _Node) -> Any:
        if node.tag == _PLAIN:
            return _plain(node.value)
        if node.tag in _OWN_TAGS:
            return _plain(node.value)
        if node.tag != _TEXT:
            self.problems.append(self._problem(f"the tag {node.tag} has no meaning in a manifest", node))
        return node.value

    def _problem(self, message: str, node: _Node) -> Problem:
        return Problem(message, file=self.file, line=node.start_mark.line + 1)


_TRUE = ("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON")
_FALSE = ("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF")
_NULL = ("", "~", "null", "Null", "NULL")
_WORDS: dict[str, Any] = {**dict.fromkeys(_TRUE, True), **dict.fromkeys(_FALSE, False), **dict.fromkeys(_NULL)}
_SPECIAL = {*_WORDS, "<<"}
_NUMERIC = tuple("+-.0123456789")
_INTEGER = re.compile(r"[-+]?(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")


@lru_cache(maxsize=1 << 16)
def _plain(text: str) -> Any:
    """What an unquoted word means: true or false, nothing, a number, or itself."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in _NUMERIC:
        return text
    digits = text.replace("_", "")
    if _INTEGER.fullmatch(digits):
        return _integer(digits)
    return _whole(digits) if _FLOAT.fullmatch(digits) else text


def _integer(digits: str) -> int:
    bare = digits.lstrip("+-")
    octal = len(bare) > 1 and bare[0] == "0" and bare[1].isdigit()
    value = int(bare, 8) if octal else int(bare, 0)
    return -value if digits[0] == "-" else value


def _key(value: Any) -> str:
    """A key is a text in JSON: `80:` is "80", and `on:` is "true"."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


# --- and back -------------------------------------------------------------------------------------------------------


def to_yaml(*objects: Object) -> str:
    """The objects as `kubectl get -o yaml` prints them, with all defaults, one document each. Loading the text gives
    equal objects.

    >>> namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
    >>> print(to_yaml(*load(namespace).objects), end="")
    apiVersion: v1
    kind: Namespace
    metadata:
      name: shop
    """
    import yaml

    return yaml.dump_all(map(to_dict, objects), Dumper=_dumper(), allow_unicode=True, sort_keys=True, width=1000)


@cache
def _dumper() -> type[yaml.SafeDumper]:
    """PyYAML's printer; which texts need quotes follows from how they would be read here."""
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
        return dumper.represent_scalar(_TEXT, value, style=None if value and _plain(value) == value else '"')

    Dumper.add_representer(str, text)
    return Dumper
