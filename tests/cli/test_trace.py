"""`k8snetlab trace`: a packet's path as text, diagram, document, picture and capture."""

from __future__ import annotations

import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

from k8snetlab.api import load

from .conftest import Run

Document = Callable[[Result], dict[str, Any]]

TO_API = ("--from", "shop/web-0", "--to", "svc/shop/api:80")


def test_text_tells_the_way_there_and_back_and_the_chances(shop: Run) -> None:
    """The table has the DNAT rule by name, the reply, and each backend with its probability."""
    result = shop("trace", *TO_API)
    assert result.exit_code == 0
    assert "DNAT" in result.stdout and "KUBE-SEP-" in result.stdout and "\nBack\n" in result.stdout
    assert result.stdout.count("1/3") == 3
    assert result.stderr == ""


def test_the_rules_left_out_can_be_had(shop: Run) -> None:
    """The table says how many rules it leaves out and which option prints them, and that option does."""
    assert "-o full prints them" in shop("trace", *TO_API).stdout
    assert "KUBE-SERVICES" in shop("trace", *TO_API, "-o", "full").stdout


@pytest.mark.parametrize(
    ("as_", "words"), [("prose", "wants to reach"), ("mermaid", "sequenceDiagram"), ("svg", "<svg ")]
)
def test_a_trace_is_told_in_other_ways(shop: Run, as_: str, words: str) -> None:
    """Sentences, a sequence diagram and a picture are a choice of output."""
    result = shop("trace", *TO_API, "-o", as_)
    assert result.exit_code == 0
    assert words in result.stdout[:400]


def test_json_follows_the_schema(shop: Run, document: Document) -> None:
    """The document of a trace is a Trace, with the probabilities of its outcomes adding up to one."""
    found = document(shop("trace", *TO_API, "-o", "json"))
    assert found["verdict"] == "DELIVERED"
    assert sum(each["probability"] for each in found["outcomes"]) == pytest.approx(1)
    assert found["reply"]["verdict"] == "DELIVERED"


@pytest.mark.parametrize(
    ("to", "verdict", "client"),
    [
        ("shop/db-0:99", "REJECTED", "REFUSED"),
        ("svc/shop/api:81", "TIMEOUT", "TIMEOUT"),
        ("203.0.113.77:80", "UNREACHABLE", "UNREACHABLE"),
    ],
)
def test_a_packet_that_is_not_delivered_is_an_answer(
    shop: Run, document: Document, to: str, verdict: str, client: str
) -> None:
    """A port that nobody listens on, a port that no Service exposes and an address that nobody has give status 1."""
    result = shop("trace", "--from", "shop/web-0", "--to", to, "-o", "json")
    assert result.exit_code == 1
    assert (document(result)["verdict"], document(result)["client"]) == (verdict, client)


def test_the_seed_decides_between_backends(shop: Run) -> None:
    """The same seed gives the same bytes, and another one another backend."""
    told = [shop("trace", *TO_API, "--seed", seed).stdout for seed in ("0", "0", "1", "2", "3", "4")]
    assert told[0] == told[1]
    assert len({next(line for line in text.splitlines() if line.startswith("taken by")) for text in told}) > 1


def test_the_cni_decides_the_way(shop: Run) -> None:
    """Flannel wraps the packet for another node; with host routes, and with the plain bridge, nothing is wrapped."""
    across = ("trace", "--from", "shop/db-0", "--to", "svc/shop/search:9200", "-o", "full")
    assert "ENCAPSULATE" in shop(*across).stdout
    assert "ENCAPSULATE" not in shop(*across, "--cni-option", "backend=host-gw").stdout
    assert "ENCAPSULATE" not in shop(*across, "--cni", "bridge").stdout


def test_the_scheduler_of_ipvs_is_an_option(shop: Run) -> None:
    """A hash of the source leaves no choice."""
    asked = ("trace", "--from", "shop/web-0", "--to", "svc/shop/api:80", "--proxy", "ipvs")
    assert "1/3" in shop(*asked).stdout
    hashed = shop(*asked, "--proxy-option", "scheduler=sh").stdout
    assert "1/3" not in hashed and "chosen by a hash of the source address (sh)" in " ".join(hashed.split())


def test_via_chooses_where_outside_traffic_arrives(shop: Run, document: Document) -> None:
    """A client outside enters by the node that --via names."""
    found = document(shop("trace", "--from", "external", "--to", "svc/shop/web:80", "--via", "node-2", "-o", "json"))
    nodes = [step["where"] for step in found["steps"] if step["where"].startswith("node-")]
    assert nodes[0] == "node-2"


def test_size_and_df_decide_about_fragments(shop: Run, document: Document) -> None:
    """A packet larger than the MTU of a tunnel is answered when it must not be cut, and cut when it may."""
    words = ("trace", "--from", "node/node-1", "--to", "node/node-2:10250/TCP", "--size", "3000")
    kept = document(shop(*words, "-o", "json"))
    cut = document(shop(*words, "--no-df", "-o", "json"))
    assert kept["request"]["size"] == 3000
    assert {step["action"] for step in cut["steps"]} >= {"FRAGMENT", "REASSEMBLE"}
    assert kept["verdict"] != cut["verdict"] == "DELIVERED"


def test_family_chooses_the_addresses(shop: Run, document: Document) -> None:
    """In a dual-stack cluster --family 6 takes IPv6 to a pod."""
    dual = (
        "--pod-cidr", "10.244.0.0/16,fd00:10:244::/56", "--service-cidr", "10.96.0.0/12,fd00:10:96::/108",
        "--node-cidr", "172.18.0.0/16,fd00:172::/64",
    )  # fmt: skip
    words = ("trace", "--from", "shop/web-0", "--to", "shop/db-0:5432", "-o", "json", *dual)
    families = [document(shop(*words, *more))["request"]["family"] for more in ((), ("--family", "6"))]
    assert families == [4, 6]


def records(capture: bytes) -> int:
    """How many frames a capture file holds."""
    at, count = 24, 0
    while at < len(capture):
        [length] = struct.unpack_from("<I", capture, at + 8)
        at, count = at + 16 + length, count + 1
    return count


def test_a_capture_goes_to_standard_output(shop: Run) -> None:
    """-o pcap writes a capture file; --at and --device narrow it to one place."""
    whole = shop("trace", *TO_API, "-o", "pcap")
    here = shop("trace", *TO_API, "-o", "pcap", "--at", "shop/web-0", "--device", "eth0")
    assert whole.exit_code == here.exit_code == 0
    assert whole.stdout_bytes[:4] == here.stdout_bytes[:4] == b"\xd4\xc3\xb2\xa1"
    assert records(whole.stdout_bytes) > records(here.stdout_bytes) >= 2


def test_tcpdump_opens_the_capture(shop: Run, program: Callable[[str, str], str], tmp_path: Path) -> None:
    """The capture is one that tcpdump reads, and it decodes what is inside the tunnel."""
    tcpdump = program("tcpdump", "tcpdump")
    capture = tmp_path / "trace.pcap"
    result = shop("trace", "--from", "shop/db-0", "--to", "svc/shop/search:9200", "-o", "pcap")
    capture.write_bytes(result.stdout_bytes)
    done = subprocess.run([tcpdump, "-nn", "-r", str(capture)], capture_output=True, text=True, check=True)
    assert ".8472: OTV" in done.stdout and "Flags [S.]" in done.stdout


@pytest.mark.parametrize("words", [("--at", "node-1"), ("--device", "eth0")])
def test_a_place_without_a_capture_is_refused(shop: Run, words: tuple[str, str]) -> None:
    """--at and --device belong to captures."""
    result = shop("trace", *TO_API, *words)
    assert result.exit_code == 2
    assert "need -o pcap" in result.stderr


def test_manifests_come_from_standard_input_too(run: Run) -> None:
    """`-f -` reads what another program writes."""
    container = "{name: c, image: i, ports: [{containerPort: 80}]}"
    pods = "---\n".join(
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec: {{containers: [{container}]}}\n" for name in "ab"
    )
    result = run("trace", "-f", "-", "--from", "default/a", "--to", "default/b:80", stdin=pods)
    assert result.exit_code == 0, result.stderr


def test_files_and_folders_add_up(run: Run) -> None:
    """-f may be repeated."""
    shop = Path(__file__).parents[2] / "data"
    words = ("trace", "-f", shop / "nodes" / "three-zones.yaml", "-f", shop / "bookshop", *TO_API)
    assert run(*words).exit_code == 0


def test_unknown_kinds_are_noted_once(run: Run) -> None:
    """Kinds that the lab does not read are a note on standard error, and standard output stays the answer."""
    text = "".join(
        f"---\napiVersion: example.com/v1\nkind: Widget\nmetadata: {{name: w{number}}}\n" for number in range(3)
    )
    result = run("trace", "-f", "-", "--from", "node/node-1", "--to", "node/node-2:10250", stdin=text)
    assert result.exit_code == 0
    assert result.stderr == "note: not read, because the lab does not know them: Widget (example.com/v1) × 3\n"


def test_a_shop_of_others_is_explained(run: Run, document: Document, shared: Path) -> None:
    """In somebody else's manifests the path crosses nodes, names the DNAT rule, and lists every backend."""
    boutique = shared / "real" / "online-boutique.yaml"
    assert load(boutique).objects
    words = ("-f", boutique, "--from", "deploy/default/frontend", "--to", "svc/default/productcatalogservice:3550")
    result = run("trace", *words, "-o", "json")
    found = document(result)
    rules = [step["rule"]["chain"] for step in found["steps"] if step["action"] == "DNAT"]
    nodes = {step["where"] for step in found["steps"] if step["where"].startswith("node-")}
    assert result.exit_code == 0
    assert rules and rules[0].startswith("KUBE-SEP-")
    assert len(nodes) == 2
    assert found["reply"]["steps"][-1]["action"] == "DELIVER"
    assert [each["probability"] for each in found["outcomes"]] == [1.0]


def test_hubble_tells_flows(shop: Run) -> None:
    """A line for each thing that Cilium's programs report, where there are any."""
    asked = ("--from", "shop/web-0", "--to", "svc/shop/api:80", "-o", "hubble")
    told = shop("trace", *asked, "--cni", "cilium").stdout.splitlines()
    assert told and all(line.startswith("shop/web-0:") for line in told)
    assert told[-1].endswith("to-endpoint FORWARDED (TCP Flags: SYN, ACK)")
    refused = shop("trace", *asked)
    assert refused.exit_code == 2
    assert "flannel has none" in refused.stderr
