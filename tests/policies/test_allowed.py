"""`Cluster.allowed`: the verdict of the bookshop's policies, by the words of a trace."""

from __future__ import annotations

import pytest

from k8snetlab.cluster import Cluster
from k8snetlab.errors import BadOption, UnknownName
from tests.shops import bookshop


def shop(cni: str = "calico") -> Cluster:
    """The bookshop under a CNI that enforces policies."""
    return bookshop().changed(cni=cni)


def test_the_reason_names_rule_and_place() -> None:
    """What allows is a rule of a file; what forbids are all the policies that have no such rule."""
    yes = shop().allowed("deploy/shop/api", "shop/db-0", 5432)
    assert yes
    assert yes.rule is not None and yes.rule.field == "spec.ingress[0]"
    assert "NetworkPolicy shop/db-clients spec.ingress[0]" in yes.reason
    assert "50-network-policies.yaml:" in yes.reason
    no = shop().allowed("shop/web-0", "shop/db-0", 5432)
    assert not no
    assert no.rule is None
    assert [each.object.name for each in no.denied_by] == ["default-deny", "db-clients", "metrics-readers"]
    assert no.reason.endswith("none has a rule that allows 5432/TCP from shop/web-0")


def test_addresses_nodes_and_the_outside_are_ends_too() -> None:
    """An address is whose it is; a node always reaches its own pods, and no others unless they are allowed to it."""
    calico = shop()
    db = calico.objects.pod("shop/db-0")
    other = next(node.name for node in calico.objects.nodes if node.name != db.node_name)
    assert calico.allowed("external", "shop/web-0", 8080)
    assert not calico.allowed("external:203.0.113.7", db.ip, 5432)
    assert calico.allowed(f"node/{db.node_name}", "shop/db-0", 5432)
    assert not calico.allowed(f"node/{other}", "shop/db-0", 5432)
    assert calico.allowed("deploy/shop/payments", "203.0.113.5", 443)
    assert not calico.allowed("deploy/shop/payments", "203.0.113.205", 443)


def test_a_cni_that_enforces_nothing_allows_all_and_says_so() -> None:
    """Flannel's verdict is that of the network, not of the objects."""
    found = shop("flannel").allowed("shop/web-0", "shop/db-0", 5432)
    assert found
    assert found.reason == "flannel enforces no policies"


@pytest.mark.parametrize(
    ("destination", "port", "protocol", "error", "message"),
    [
        ("shop/db-9", 80, "TCP", UnknownName, "did you mean"),
        ("svc/shop/db", 80, "TCP", BadOption, "behind a Service"),
        ("shop/db-0", 0, "TCP", BadOption, "0 is no port"),
        ("shop/db-0", 80, "tcp", BadOption, "none of TCP, UDP, SCTP"),
        ("node/node-9", 80, "TCP", UnknownName, "node-1"),
        ("nobody", 80, "TCP", UnknownName, "there is no pod, node/NAME or address 'nobody'"),
        ("10.0.0", 80, "TCP", BadOption, "10.0.0"),
    ],
)
def test_what_cannot_be_asked_is_said(
    destination: str, port: int, protocol: str, error: type[Exception], message: str
) -> None:
    """Names, ports and protocols that are none."""
    with pytest.raises(error, match=message):
        shop().allowed("shop/web-0", destination, port, protocol)


def test_a_family_can_be_chosen_and_must_be_there() -> None:
    """The bookshop has IPv4 only."""
    with pytest.raises(BadOption, match="no IPv6 address in common"):
        shop().allowed("shop/web-0", "shop/db-0", 5432, family=6)
