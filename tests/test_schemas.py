"""The JSON Schema files, and documents against them."""

import copy
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from k8snetlab import schemas
from k8snetlab.errors import ManifestError, Problem, UnknownName
from k8snetlab.packet import (
    ARP,
    ESP,
    ICMP,
    SCTP,
    TCP,
    UDP,
    VXLAN,
    Ethernet,
    Header,
    IPv4,
    IPv6,
    Packet,
    Sleeve,
    WireGuard,
)
from k8snetlab.trace import Action, Client, Outcome, Request, Step, Trace, Verdict
from tests.handmade import LOSING, mac, network, traced


def problems(document: dict[str, Any]) -> list[str]:
    """What the schema of the document's own kind finds wrong with it."""
    validator = Draft202012Validator(schemas.load(document["kind"]), format_checker=Draft202012Validator.FORMAT_CHECKER)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(document)]


@pytest.mark.parametrize("kind", schemas.KINDS)
def test_a_schema_is_a_schema(kind: str) -> None:
    """Each file is valid by the rules of draft 2020-12."""
    Draft202012Validator.check_schema(schemas.load(kind))


@pytest.mark.parametrize("kind", schemas.KINDS)
def test_every_document_says_its_version_and_kind(kind: str) -> None:
    """Who reads one knows which schema to ask."""
    schema = schemas.load(kind)
    assert schema["properties"]["schema"] == {"const": schemas.VERSION}
    assert schema["properties"]["kind"] == {"const": kind}
    assert {"schema", "kind"} <= set(schema["required"])


def test_an_unknown_kind_is_an_error_that_names_those_there_are() -> None:
    """A misspelt kind is answered with the right one."""
    with pytest.raises(UnknownName, match="did you mean Trace"):
        schemas.load("Trac")


def test_a_delivered_trace_is_valid() -> None:
    """A walk with translation, a tunnel and an answer."""
    assert problems(traced(network()).as_dict()) == []


def test_a_mixed_trace_without_an_answer_is_valid() -> None:
    """The reply is null, and some outcomes have no backend."""
    document = traced(network(LOSING)).as_dict()
    assert (document["verdict"], document["reply"]) == ("MIXED", None)
    assert problems(document) == []


def test_a_refused_trace_is_valid() -> None:
    """Nobody listens on a port that no rule translates, so an answer comes from the kernel."""
    assert problems(traced(network(), port=81).as_dict()) == []


ABOUT = Packet((IPv4("10.0.0.1", "10.0.0.2", "UDP"), UDP(4000, 53)))
HEADERS: tuple[Header, ...] = (
    Ethernet(mac(1), mac(2)),
    ARP("request", mac(1), "10.0.0.1", mac(0), "10.0.0.2"),
    IPv4("10.0.0.1", "10.0.0.2", "TCP"),
    IPv6("fd00::1", "fd00::2", "TCP"),
    TCP(4000, 80, "S."),
    UDP(4000, 53),
    SCTP(4000, 3868),
    VXLAN(1),
    WireGuard(2**32 - 1, 15),
    ESP(4097, 2),
    Sleeve(mac(1), mac(1), mac(2), encrypted=True),
    ICMP("echo-request"),
    ICMP("fragmentation-needed", 1450, 0, ABOUT),
)


def of_one_step(action: Action, header: Header) -> dict[str, Any]:
    """The JSON of a trace of one step."""
    step = Step("node-1", "eth0", action, Packet((header,)), "because")
    outcome = Outcome(1.0, Verdict.TIMEOUT, Client.TIMEOUT, None, "")
    request = Request("node-1", "10.0.0.2:80", "10.0.0.2", 80)
    trace = Trace(request, Verdict.TIMEOUT, Client.TIMEOUT, "", (step,), (step,), None, "", lambda: (outcome,))
    return trace.as_dict()


@pytest.mark.parametrize("header", HEADERS, ids=lambda header: str(header.layer))
def test_every_header_is_described(header: Header) -> None:
    """No layer a packet can have is unknown to the schema."""
    assert problems(of_one_step(Action.SEND, header)) == []


@pytest.mark.parametrize("action", Action)
def test_every_action_is_described(action: Action) -> None:
    """No step can happen that the schema does not know."""
    assert problems(of_one_step(action, VXLAN(1))) == []


@pytest.mark.parametrize("enum", [Verdict, Client, Action])
def test_the_schema_knows_no_word_that_does_not_exist(enum: type[Verdict] | type[Client] | type[Action]) -> None:
    """Its lists of words are those of the program, no more and no less."""
    trace = schemas.load("Trace")
    places = {
        Verdict: trace["properties"]["verdict"]["enum"],
        Client: trace["$defs"]["client"]["enum"],
        Action: trace["$defs"]["step"]["properties"]["action"]["enum"],
    }
    assert sorted(places[enum]) == sorted(enum)


def test_a_field_that_nobody_described_is_noticed() -> None:
    """The schemas are strict, so a field cannot slip into the JSON."""
    document = traced(network()).as_dict()
    document["steps"][0]["packet"]["colour"] = "red"
    assert [problem for problem in problems(document) if "colour" in problem]


def test_the_errors_of_an_input_are_valid() -> None:
    """Facts that an error does not have are null."""
    error = ManifestError(
        [Problem("no such field", "shop.yaml", 7, "Service shop/api", "spec.prots"), Problem("it is empty")]
    )
    errors = [problem.as_dict() for problem in error.problems]
    assert problems({"schema": schemas.VERSION, "kind": "Error", "errors": errors}) == []


CHANGE = {"host": "node-1", "kind": "route", "how": "changed", "text": "default via ::1", "before": "default via ::2"}
CAPABILITY = {"capability": "captures", "present": False, "reason": "tcpdump is not in PATH", "package": "tcpdump"}
CHECK = {"rule": "pod-to-pod", "title": "…", "holds": True, "evidence": "6 packets", "failures": []}
STANDING = {
    "section": "2_1", "title": "Pod to pod", "exercises": 1, "of_exercises": 3, "questions": 0, "of_questions": 5,
    "predictions": 2,
}  # fmt: skip
CALL: dict[str, Any] = {
    "plugin": "bridge",
    "environment": {"CNI_COMMAND": "DEL"},
    "stdin": {"cniVersion": "1.1.0", "name": "cbr0", "type": "bridge"},
    "stdout": None,
    "status": 0,
    "reads": {},
    "delegated": [],
}
RECORDS = {"name": "shop.example.org.", "type": "A", "ttl": 300, "data": ["203.0.113.7"]}
EXAMPLES: tuple[dict[str, Any], ...] = (
    {
        "kind": "Show",
        "what": "routes",
        "node": "node-1",
        "rows": [{"host": "node-1", "prefix": "default", "metric": 0}],
    },
    {"kind": "Cni", "name": "shop/web-0", "command": "DEL", "succeeded": True, "calls": [CALL]},
    {
        "kind": "Resolution",
        "source": "shop/web-0",
        "name": "localhost",
        "types": ["A"],
        "libc": "musl",
        "resolv_conf": "nameserver 10.96.0.10\n",
        "left_out": [],
        "queries": [],
        "status": "FOUND",
        "found_as": "localhost.",
        "result": [{"name": "localhost.", "type": "A", "ttl": 0, "data": "127.0.0.1"}],
        "addresses": ["127.0.0.1"],
        "from_hosts": True,
        "seconds": 0.0,
    },
    {"kind": "Diff", "different": True, "changes": [CHANGE]},
    {"kind": "Doctor", "capabilities": [CAPABILITY]},
    {"kind": "Contract", "holds": True, "checks": [CHECK]},
    {
        "kind": "ExternalDns",
        "zone": "example.org.",
        "diff": ["+ …"],
        "changes": [{"action": "create", "before": None, "after": RECORDS, "resource": "service/shop/web"}],
        "ownership": [{"action": "delete", "before": RECORDS, "after": None, "resource": ""}],
        "left": [{"resource": "service/shop/api", "name": "", "why": "…"}],
    },
    {"kind": "Progress", "file": "progress.json", "lessons": [STANDING]},
)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: str(example["kind"]))
def test_an_example_of_each_other_kind_is_valid(example: dict[str, Any]) -> None:
    """The smallest document of the kind that says something."""
    assert problems({"schema": schemas.VERSION, **example}) == []


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: str(example["kind"]))
def test_no_field_of_a_document_may_be_missing(example: dict[str, Any]) -> None:
    """Readers need not ask whether a field is there."""
    for name in example:
        if name != "kind":
            less = {"schema": schemas.VERSION, **copy.deepcopy(example)}
            del less[name]
            assert problems(less), name
