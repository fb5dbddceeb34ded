"""The matrix, the policies and the isolation of pods, as pictures."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from k8snetlab import api, draw
from k8snetlab.draw.marks import Box
from k8snetlab.draw.theme import Role
from k8snetlab.errors import BadOption, UnknownName
from k8snetlab.policies import plan
from k8snetlab.policies.matrix import Reach, reach
from k8snetlab.policies.plan import Policies


def pod(name: str, node: str = "n1", **spec: Any) -> dict[str, Any]:
    """A pod whose label `app` is its name up to the dash."""
    namespace, _, own = name.partition("/")
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": own, "namespace": namespace, "labels": {"app": own.partition("-")[0]}},
        "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}], **spec},
        "status": {"phase": "Running"},
    }  # fmt: skip


def policy(name: str, **spec: Any) -> dict[str, Any]:
    """A NetworkPolicy of the namespace shop."""
    metadata = {"name": name, "namespace": "shop"}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


CLOSED = policy("closed", podSelector={"matchLabels": {"app": "job"}}, policyTypes=["Ingress", "Egress"])
DB = policy(
    "db",
    podSelector={"matchLabels": {"app": "db"}},
    ingress=[{"from": [{"podSelector": {"matchLabels": {"app": "web"}}}], "ports": [{"port": 5432}]}],
)


def policies(replicas: int = 2, *more: dict[str, Any]) -> Policies:
    """Web servers, a database that only they reach, and a job that nobody reaches."""
    pods = [pod(f"shop/{name}-{at}") for name in ("web", "db", "job") for at in range(replicas)]
    return plan.of(api.load(*pods, CLOSED, DB, *more).objects)


def matrix(replicas: int = 2, *ports: str) -> Reach:
    """All of them with one another."""
    return reach(policies(replicas), ports or ["5432/TCP"])


def cells(drawing: draw.Drawing) -> list[Box]:
    """What is filled, without the legend and the title."""
    [whole] = [box for box in drawing.ground[0].boxes if box.fill is Role.DEVICE and box.width > 20]
    return [box for box in drawing.ground[0].boxes if box.fill is Role.REQUEST and box.y < whole.y + whole.height]


def labels(drawing: draw.Drawing) -> list[str]:
    """Every text."""
    return [label.text for label in drawing.ground[0].labels]


def test_every_pod_of_a_few_has_a_row() -> None:
    """As many cells as pairs may connect; who they are stands in the text."""
    found = matrix()
    drawing = draw.reach(found)
    assert len(cells(drawing)) == found.pairs("5432/TCP")[0]
    assert "shop/db-0 at 5432/TCP: from shop/web-0, shop/web-1." in drawing.alt
    assert "shop/job-0 at 5432/TCP: from nobody." in drawing.alt
    assert f"{found.pairs(5432)[0]} of 30 pairs" in labels(drawing)


def test_many_pods_share_rows_where_they_are_treated_alike() -> None:
    """Three kinds of pods are three rows, however many there are."""
    drawing = draw.reach(matrix(400))
    assert "1,200 pods in 3 rows" in drawing.alt[0]
    assert "shop/web-0 and 399 more" in labels(drawing)
    assert "shop/db-0 and 399 more at 5432/TCP: from shop/web-0 and 399 more." in drawing.alt


def test_ports_are_stripes_of_a_cell() -> None:
    """Web servers reach the database at one port of two: half a cell."""
    one, two = draw.reach(matrix(2, "5432/TCP")), draw.reach(matrix(2, "5432/TCP", "80/TCP"))
    assert len(cells(two)) > len(cells(one))
    assert max(box.width for box in cells(two)) < min(box.width for box in cells(one))
    assert draw.reach(matrix(2, "5432/TCP", "80/TCP"), 5432).alt == one.alt


def test_what_changed_since_stands_out() -> None:
    """Without the database's policy everybody reaches it: new cells have a spot, lost ones a cross."""
    found = policies()
    closed = reach(found, [5432])
    open_ = reach(msgspec.structs.replace(found, network_policies=found.network_policies[:1]), [5432])
    more, less = draw.reach(open_, before=closed), draw.reach(closed, before=open_)
    assert "shop/db-0 to shop/db-1: more is allowed than before." in more.alt
    assert "shop/db-0 to shop/db-1: less is allowed than before." in less.alt
    count = open_.pairs(5432)[0] - closed.pairs(5432)[0]
    assert len(more.over[0].boxes) == len(less.over[0].boxes) == len(less.over[1].lines) / 2 == count
    assert "Nothing has changed." in draw.reach(closed, before=closed).alt


def test_changes_are_of_the_same_pods_at_one_port() -> None:
    """Others cannot be laid on each other."""
    with pytest.raises(BadOption, match="same pods"):
        draw.reach(matrix(2), before=matrix(3))
    with pytest.raises(BadOption, match="one port"):
        draw.reach(matrix(2, "80", "81"), before=matrix(2, "80", "81"))


def test_the_pair_that_is_asked_about_has_a_frame() -> None:
    """Around the cell of its source's row and its destination's column, whatever else is drawn."""
    found = matrix(2)
    at = [
        draw.reach(found, pair=pair).over[0].boxes[0]
        for pair in (("shop/db-0", "shop/db-1"), ("shop/db-1", "shop/db-0"))
    ]
    assert (at[0].x, at[0].y) == (at[1].x + at[1].width - 1, at[1].y - at[1].height + 1)
    assert "Asked about: shop/db-0 to shop/db-1." in draw.reach(found, pair=("shop/db-0", "shop/db-1")).alt
    with pytest.raises(UnknownName, match="shop/db-2"):
        draw.reach(found, pair=("shop/db-0", "shop/db-2"))


def test_too_many_ports_and_unknown_ones_are_refused() -> None:
    """A cell has room for four."""
    found = matrix(1, *map(str, range(1, 6)))
    with pytest.raises(BadOption, match="1/TCP"):
        draw.reach(found)
    with pytest.raises(UnknownName):
        draw.reach(found, 80)


def test_namespaces_are_rows_where_pods_are_too_many() -> None:
    """Pods that are all treated otherwise: a cell then is the share of its pairs."""
    pods = [pod(f"ns-{at % 30}/w{at}-0") for at in range(240)]
    own = [
        {
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": f"p{at}", "namespace": f"ns-{at % 30}"},
            "spec": {"podSelector": {"matchLabels": {"app": f"w{at}"}}, "policyTypes": [way]},
        }
        for at in range(240)
        for way in (("Ingress", "Egress")[at % 7 % 2],)
    ]  # fmt: skip
    drawing = draw.reach(reach(plan.of(api.load(*pods, *own[::2]).objects), [80]))
    assert "240 pods in" in drawing.alt[0]
    assert "ns-29: all 8 pods" in " ".join(labels(drawing))


def test_policies_show_peers_ports_and_subjects() -> None:
    """The database's policy has its rule at the left and no limit at the right; the job's has crosses on both sides."""
    drawing = draw.policies(policies())
    assert {"shop/db", "app=db of shop", "5432/TCP", "app=web of shop (2)", "not limited by it"} <= set(labels(drawing))
    assert labels(drawing).count("nobody") == 2
    assert "NetworkPolicy shop/db selects app=db of shop: 2 pods today." in drawing.alt


def test_a_policy_of_the_cluster_says_tier_and_action() -> None:
    """Deny has a cross on its arrow, and the word."""
    baseline = {
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": {"name": "base"},
        "spec": {
            "tier": "Baseline", "priority": 5, "subject": {"namespaces": {}},
            "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}],
        },
    }  # fmt: skip
    drawing = draw.policies(policies(1, baseline))
    assert {"base (Baseline, 5)", "Deny: any port"} <= set(labels(drawing))


def test_gates_are_open_barred_or_shut() -> None:
    """Web: open both ways; database: bars for what comes in; job: shut both ways."""
    said = draw.isolation(policies()).alt
    assert "shop/web-0 and 1 more: ingress open, egress open." in said
    assert "shop/db-0 and 1 more: ingress 1 rule, egress open." in said
    assert "shop/job-0 and 1 more: ingress shut, egress shut." in said


@pytest.mark.parametrize("picture", [draw.policies, draw.isolation])
def test_where_nothing_is_enforced_the_picture_says_so(picture: Any) -> None:
    """The policies are there, and have no effect."""
    open_ = policies().choosing(plan.choices_of("flannel"))
    assert "flannel enforces no policies: the 2 that there are have no effect." in picture(open_).alt
    with pytest.raises(UnknownName, match="light"):
        picture(open_, theme="blue")
