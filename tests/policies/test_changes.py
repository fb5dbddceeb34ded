"""What another set of policies changes, with a flow that shows it."""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest

from k8snetlab import api
from k8snetlab.errors import BadOption
from k8snetlab.policies import plan
from k8snetlab.policies.matrix import reach
from tests.policies import crowd
from tests.shops import bookshop

SHUT = {
    "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
    "metadata": {"name": "shut", "namespace": "ops"}, "spec": {"podSelector": {}},
}  # fmt: skip


def test_a_policy_more_forbids_and_says_which() -> None:
    """Nobody reaches the metrics any more; pods that lost the same are told together, with reasons."""
    before = bookshop().changed(cni="calico")
    found = before.reach([80]).diff(before.applied(SHUT).reach([80]))
    assert found.allowed == ()
    metrics = before.objects.pods_of("deploy/ops/metrics")[0].key
    [change] = [each for each in found.denied if "shop/web-0" in each.sources]
    assert change.destinations == (metrics,)
    assert change.before and not change.after
    assert "NetworkPolicy ops/shut selects" in change.after.reason
    assert change.flow[1] == metrics
    assert "80/TCP" in str(change) and "now denied" in str(found)


def test_changes_are_exactly_the_cells_that_differ() -> None:
    """Clusters by chance, a policy less or another network plugin: every pair that differs is in one change."""
    seen = 0
    for seed in range(40):
        rng = Random(seed)
        policies = crowd.policies(rng)
        if seed % 2:
            other = msgspec.structs.replace(policies, network_policies=policies.network_policies[1:])
        else:
            other = policies.choosing(plan.choices_of(rng.choice(("calico", "cilium", "flannel"))))
        before, after = reach(policies, ["80/TCP", "53/UDP"]), reach(other, ["80/TCP", "53/UDP"])
        for port in before.ports:
            told: dict[tuple[str, str], bool] = {}
            for change in before.diff(after).changes:
                if change.port == port:
                    cells = {(a, b) for a in change.sources for b in change.destinations if a != b}
                    real = {cell for cell in cells if before.reaches(*cell, port) != after.reaches(*cell, port)}
                    assert len(real) == change.pairs
                    assert bool(change.before) != bool(change.after) == change.allowed
                    assert change.flow[0] != change.flow[1]
                    assert not real & told.keys()
                    told |= dict.fromkeys(real, change.allowed)
            differs = np.argwhere(before.matrix(port) != after.matrix(port))
            assert {(before.pods[row], before.pods[column]) for row, column in differs} == told.keys()
            seen += len(told)
    assert seen > 200


def test_the_same_is_no_difference() -> None:
    """Nothing is said, and the answer is no."""
    found = bookshop().changed(cni="calico").reach([80])
    assert not found.diff(found)
    assert str(found.diff(found)) == "no difference"


def test_pods_of_one_side_are_named() -> None:
    """They are not compared."""
    pod: dict[str, Any] = {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }  # fmt: skip
    one = reach(plan.of(api.load(pod).objects), [80])
    two = reach(plan.of(api.load(pod, {**pod, "metadata": {"name": "b"}}).objects), [80])
    found = one.diff(two)
    assert (found.added, found.removed, found.changes) == (("default/b",), (), ())
    assert two.diff(one).removed == ("default/b",)
    assert found


def test_other_ports_cannot_be_compared() -> None:
    """There must be one in common, and the family the same."""
    shop = bookshop().changed(cni="calico")
    with pytest.raises(BadOption, match="other ports"):
        shop.reach([80]).diff(shop.reach([81]))
    with pytest.raises(BadOption, match="different families"):
        shop.reach([80]).diff(shop.reach([80], family=4))
