"""`k8snetlab show`: machines as the real tools print them, objects as kubectl does, both as rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from typer.testing import Result

from k8snetlab import api
from k8snetlab.cli import rows
from k8snetlab.cli.questions import SHOWABLE
from k8snetlab.cluster import SHOWN, Cluster, example

from .conftest import Run

Document = Callable[[Result], dict[str, Any]]


@pytest.fixture(scope="module")
def bookshop() -> Cluster:
    """The bookshop, for comparison."""
    return example("bookshop")


def test_what_has_text_has_rows() -> None:
    """Every kind of state that a machine prints is there as rows too."""
    assert list(rows.OF_MACHINES) and set(rows.OF_MACHINES) == set(SHOWN)


@pytest.mark.parametrize("what", SHOWN)
def test_state_of_one_machine_is_the_tools_text(shop: Run, bookshop: Cluster, what: str) -> None:
    """With --node the output is the tool's, and nothing else."""
    result = shop("show", what, "--node", "node-1")
    assert result.exit_code == 0
    assert result.stdout.rstrip() == bookshop.node("node-1").show(what).rstrip()


def test_state_of_all_nodes_names_each(shop: Run) -> None:
    """Without --node there is a comment line with the name of each node before its state."""
    lines = shop("show", "routes").stdout.splitlines()
    assert [line for line in lines if line.startswith("#")] == ["# node-1", "# node-2", "# node-3"]


@pytest.mark.parametrize("name", ["shop/web-0", "router", "node/node-2"])
def test_any_machine_can_be_shown(shop: Run, name: str) -> None:
    """Pods and what stands around the nodes have state too."""
    result = shop("show", "addresses", "--node", name)
    assert result.exit_code == 0
    assert "1: lo:" in result.stdout


@pytest.mark.parametrize("node", ["node-1", "node-2"])
def test_what_was_heard_by_bgp_has_text_and_rows(shop: Run, document: Document, node: str) -> None:
    """Every path of one speaker, its own blocks first of all; under a CNI without BGP it is refused."""
    options = ("--cni", "calico", "--cni-option", "mode=bgp", "--node", node)
    found = document(shop("show", "rib", *options, "-o", "json"))
    assert [row["best"] for row in found["rows"]] == [True] * 3
    assert len(shop("show", "rib", *options).stdout.splitlines()) == 3
    assert "no node speaks BGP with CNI flannel" in shop("show", "rib", "--node", node).stderr


@pytest.mark.parametrize("what", sorted({*SHOWABLE} - {"rib"}))
def test_rows_follow_the_schema(shop: Run, document: Document, what: str) -> None:
    """Whatever can be shown has rows, all with the same fields."""
    found = document(shop("show", what, "-o", "json"))
    assert found["what"] == what and found["node"] is None
    assert len({tuple(row) for row in found["rows"]}) <= 1
    empty = (
        "routes6", "endpointslices", "clusternetworkpolicies", "bpf", "ipsets", "ipvs", "nft", "gatewayclasses",
        "gateways", "httproutes", "grpcroutes",
    )  # fmt: skip
    assert found["rows"] or what in (*empty, "wg", "wgconf", "xfrm") or what.startswith("bpf-")


def test_ipsec_has_rows_for_states_and_policies(shop: Run, document: Document) -> None:
    """All with the same fields, and none with a key."""
    options = ("--cni", "cilium", "--cni-option", "encryption=ipsec", "--node", "node-1")
    rows = document(shop("show", "xfrm", *options, "-o", "json"))["rows"]
    assert {row["list"] for row in rows} == {"state", "policy"} and len({tuple(row) for row in rows}) == 1
    assert not any("key" in row for row in rows)


@pytest.mark.parametrize("what", ["routes", "iptables", "ip6tables", "neighbours", "fdb", "rules"])
def test_there_is_a_row_for_each_line(shop: Run, document: Document, what: str) -> None:
    """Text and rows say the same: as many rows as the tool prints lines of that kind."""
    text = shop("show", what, "--node", "node-1").stdout.splitlines()
    found = document(shop("show", what, "--node", "node-1", "-o", "json"))["rows"]
    told = [line for line in text if line.startswith("-A")] if "tables" in what else text
    assert len(found) == len(told)
    assert {row["host"] for row in found} <= {"node-1"}


@pytest.mark.parametrize(("what", "sign"), [("ipvs", "  -> 1"), ("ipsets", "add ")])
def test_there_is_a_row_for_each_server_and_entry(shop: Run, document: Document, what: str, sign: str) -> None:
    """In ipvs mode; what is empty has a row without an entry."""
    asked = ("show", what, "--node", "node-1", "--proxy", "ipvs")
    told = [line for line in shop(*asked).stdout.splitlines() if line.startswith(sign)]
    found = document(shop(*asked, "-o", "json"))["rows"]
    assert len(told) == sum(1 for row in found if row["server" if what == "ipvs" else "entry"] is not None) > 10


def test_rules_in_rows_are_those_of_the_tool(shop: Run, document: Document) -> None:
    """The text of a rule's row is its line of iptables-save."""
    lines = set(shop("show", "iptables", "--node", "node-1").stdout.splitlines())
    found = document(shop("show", "iptables", "--node", "node-1", "-o", "json"))["rows"]
    assert {row["text"] for row in found} <= lines


def test_another_proxy_mode_has_another_kind_of_state(shop: Run, bookshop: Cluster, document: Document) -> None:
    """With --proxy nftables the table is what nft lists, and its rules and elements are rows."""
    asked = ("show", "nft", "--node", "node-1", "--proxy", "nftables")
    text = shop(*asked).stdout
    assert text.rstrip() == bookshop.changed(proxy="nftables").node("node-1").show("nft").rstrip()
    found = document(shop(*asked, "-o", "json"))["rows"]
    assert {row["kind"] for row in found} == {"rule", "set element", "map element"}
    assert all(row["text"] in text for row in found)


def test_objects_print_as_kubectl_prints_them(shop: Run, bookshop: Cluster) -> None:
    """Pods of one namespace, with the columns of kubectl get -o wide."""
    result = shop("show", "pods", "-n", "warehouse")
    assert result.stdout.rstrip() == str(bookshop.get("pods", "warehouse"))


def test_pods_of_one_node(shop: Run, document: Document) -> None:
    """For pods --node is a choice."""
    found = document(shop("show", "pods", "--node", "node-1", "-o", "json"))["rows"]
    assert found and {row["node"] for row in found} == {"node-1"}


def test_slices_are_endpointslices(shop: Run, document: Document) -> None:
    """The short word `slices` shows what kube-proxy reads: who is ready behind a Service."""
    found = document(shop("show", "slices", "-n", "shop", "-o", "json"))["rows"]
    ready = {row["service"]: len(row["ready"]) for row in found}
    assert ready["api"] == 3


def test_endpoints_are_shown_as_well(shop: Run, document: Document) -> None:
    """What the deprecated API would say of the same pods, in rows with ports."""
    found = document(shop("show", "endpoints", "-n", "shop", "-o", "json"))["rows"]
    api = next(row for row in found if row["name"] == "api")
    assert len(api["ready"]) == 3
    assert api["not_ready"] == []
    assert all(port.endswith("/TCP") for port in api["ports"])


def test_other_kinds_have_names(shop: Run, document: Document) -> None:
    """Kinds without columns of their own are listed by name."""
    found = document(shop("show", "deployments", "-n", "shop", "-o", "json"))["rows"]
    assert {"namespace": "shop", "name": "api"} in found


def test_the_plan_names_every_network(shop: Run) -> None:
    """The plan lists the underlay, pods, each node's pods and Services."""
    result = shop("show", "plan")
    assert "10.244.0.0/16" in result.stdout and "10.96.0.0/12" in result.stdout and "pods of node-2" in result.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rotues",), "did you mean routes"),
        (("routes", "--node", "node-9"), "there is no machine 'node-9'"),
        (("pods", "--node", "node-9"), "there is no node 'node-9'"),
        (("services", "--node", "node-1"), "services are not of one node"),
        (("routes", "-n", "shop"), "in no namespace"),
        (("plan", "--node", "node-1"), "the whole cluster"),
    ],
)
def test_what_cannot_be_shown_is_refused(shop: Run, words: tuple[str, ...], said: str) -> None:
    """A name that is not there, and a choice that does not fit, are wrong input."""
    result = shop("show", *words)
    assert result.exit_code == 2
    assert said in result.stderr and result.stdout == ""


def test_services_are_whole_as_yaml(shop: Run, bookshop: Cluster) -> None:
    """With defaults and everything that was allocated; it can be loaded again."""
    text = shop("show", "services", "-n", "shop", "-o", "yaml").stdout
    assert api.load(text).of(api.Service) == tuple(bookshop.get("services", "shop"))


@pytest.mark.parametrize("what", ["routes", "plan"])
def test_only_objects_are_yaml(shop: Run, what: str) -> None:
    """The tools of machines print none."""
    result = shop("show", what, "-o", "yaml")
    assert result.exit_code == 2
    assert "only objects are YAML" in result.stderr
