"""The worked example of CONTRIBUTING.md works, as it is printed there."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import k8snetlab as k8s
from k8snetlab import cni

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
