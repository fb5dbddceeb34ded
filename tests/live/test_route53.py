"""Plans carried out at Route 53, as moto plays it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from k8snetlab import CannotDo, Cluster, UnknownName
from k8snetlab.live.route53 import Route53

WEB = """
apiVersion: v1
kind: Service
metadata: {name: web, annotations: {external-dns.kubernetes.io/hostname: "shop.example.org,*.example.org"}}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80}], externalIPs: [203.0.113.7]}
"""


@pytest.fixture
def hosted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Route53]:
    """An empty hosted zone example.org, with SOA and NS as Route 53 makes them."""
    import boto3
    from moto import mock_aws

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "nobody")
    with mock_aws():
        client = boto3.client("route53", region_name="us-east-1")
        client.create_hosted_zone(Name="example.org", CallerReference="1")
        yield Route53.of(client, "example.org")


def test_a_plan_is_one_batch(hosted: Route53) -> None:
    """The zone is then as planned, and nothing is left to do; a wildcard is a name like others."""
    shop = Cluster.load(WEB)
    plan = shop.external_dns(hosted.zone())
    hosted.apply(plan)
    assert hosted.zone() == plan.after
    assert not shop.external_dns(hosted.zone())
    moved = Cluster.load(WEB.replace("203.0.113.7", "203.0.113.8"))
    hosted.apply(moved.external_dns(hosted.zone()))
    assert [each.data for each in hosted.zone().at("*.example.org")] == [("203.0.113.8",)]


def test_what_is_not_as_it_was_is_refused(hosted: Route53) -> None:
    """A plan that is carried out twice changes nothing the second time, and says so."""
    plan = Cluster.load(WEB).external_dns(hosted.zone())
    hosted.apply(plan)
    with pytest.raises(CannotDo, match="update refused: InvalidChangeBatch"):
        hosted.apply(plan)
    assert hosted.zone() == plan.after


def test_a_zone_that_is_not_there_is_named(hosted: Route53) -> None:
    """With those that are."""
    with pytest.raises(UnknownName, match=r"example\.com\..*example\.org\."):
        Route53.of(hosted.client, "example.com")
