"""The worked example of CONTRIBUTING.md works, as it is printed there."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from typer.testing import CliRunner

import k8snetlab as k8s
from k8snetlab import cni
from k8snetlab.cli import app
from tests.shops import DATA, FAMILIES, pod

TEXT = (Path(__file__).resolve().parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture
def ptp() -> Iterator[None]:
    """The CNI of the example, one of the variants for as long as a test lasts."""
    [code] = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    module = ModuleType("k8snetlab.cni.ptp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, module.__name__, module)
        exec(compile(code, "CONTRIBUTING.md", "exec"), module.__dict__)  # noqa: S102  # our own text
        patch.setattr(cni, "VARIANTS", {**cni.VARIANTS, "ptp": module.PointToPoint.of})
        yield


def test_the_example_keeps_the_contract(ptp: None) -> None:
    """Every rule of the networking contract holds with the CNI of the example."""
    broken = [str(check) for check in k8s.contract.check(k8s.example("bookshop", cni="ptp")) if not check.holds]
    assert broken == []


@pytest.mark.parametrize("families", FAMILIES)
def test_it_does_so_in_every_family(ptp: None, families: str) -> None:
    """IPv4, IPv6 alone, and both: a pod on each of three nodes."""
    pods = "".join(pod(f"a-{node}", node=f"node-{node}") for node in (1, 2, 3))
    cluster = k8s.Cluster.load(pods, nodes=3, cni="ptp", **FAMILIES[families])
    assert k8s.contract.check(cluster).holds


def test_it_is_measured_like_the_others(ptp: None) -> None:
    """Nothing else names it, and it has a row in the table and in the comparison of one flow."""
    assert "ptp" in k8s.networks.ways()
    figures = k8s.networks.figures("ptp")
    assert (figures.mtu, figures.encapsulation, figures.across) == (1500, 0, False)
    flows = k8s.networks.flows(k8s.example("same-node-other-node"), "default/here-a", "default/there:8080")
    assert any(said.startswith("ptp: Ethernet 14 | IPv4 20 | TCP") for said in k8s.draw.side_by_side(flows).alt)


def test_explorers_offer_it(ptp: None) -> None:
    """Those that compare networks."""
    for explorer in (
        k8s.explore.RuleBreaker(k8s.example("pods-on-two-nodes")),
        k8s.explore.PodToPod(k8s.example("same-node-other-node")),
    ):
        explorer.network = "ptp"
        assert "OPEN" in explorer.summary()


def test_the_command_line_knows_it(ptp: None) -> None:
    """As a choice, and as what may be changed."""
    words = ("-f", str(DATA / "bookshop"), "--change", "cni=ptp")
    found = CliRunner().invoke(app, ["diff", *words], catch_exceptions=False)
    assert found.exit_code == 1 and "link: cni0" in found.stdout


def test_its_picture_is_drawn_from_its_state(ptp: None) -> None:
    """The bridge goes, and nothing comes for it."""
    lab = k8s.example("same-node-other-node")
    other = lab.changed(cni="ptp")
    was, now = (each.trace("default/here-a", "default/there:8080") for each in (lab, other))
    said = k8s.draw.before_after(lab, other, was, now, titles=("before", "after")).alt
    assert "before: node-1 (172.18.0.11) has cni0 (10.244.0.1), flannel.1 (10.244.0.0) and eth0" in " ".join(said)
    assert "after: node-1 (172.18.0.11) has eth0 (172.18.0.11); it runs" in " ".join(said)


@pytest.mark.parametrize("name", cni.VARIANTS)
def test_every_cni_has_its_row_in_the_table(name: str) -> None:
    """The docstring of the room lists them."""
    assert cni.__doc__ is not None
    assert re.search(rf"^    {name} +\S", cni.__doc__, flags=re.MULTILINE)
