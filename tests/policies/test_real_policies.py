"""Policies that other people run: the Online Boutique's, one a service and a deny-all."""

from __future__ import annotations

from pathlib import Path

import pytest

from k8snetlab import api
from k8snetlab.cluster import Cluster

CALLERS = {
    ("adservice", 9555): {"frontend"},
    ("cartservice", 7070): {"frontend", "checkoutservice"},
    ("checkoutservice", 5050): {"frontend"},
    ("currencyservice", 7000): {"frontend", "checkoutservice"},
    ("emailservice", 8080): {"checkoutservice"},
    ("frontend", 8080): {"every"},
    ("paymentservice", 50051): {"checkoutservice"},
    ("productcatalogservice", 3550): {"frontend", "checkoutservice", "recommendationservice"},
    ("recommendationservice", 8080): {"frontend"},
    ("redis-cart", 6379): {"cartservice"},
    ("shippingservice", 50051): {"frontend", "checkoutservice"},
}
"""Whom each service lets in, read from the policies by eye."""


@pytest.fixture(scope="module")
def boutique(shared: Path) -> Cluster:
    """The shop under a CNI that enforces its policies."""
    names = ("online-boutique.yaml", "online-boutique-network-policies.yaml")
    return Cluster.load(*(shared / "real" / name for name in names), cni="calico")


def test_every_service_lets_in_its_callers_at_its_port(boutique: Cluster) -> None:
    """All pairs of services; the front is open to all, and so is the way out of each."""
    apps = sorted({pod.labels["app"] for pod in boutique.objects.pods if "app" in pod.labels})
    assert set(apps) == {app for app, _ in CALLERS} | {"loadgenerator"}
    for (server, port), callers in CALLERS.items():
        for client in apps:
            if client == server:
                continue
            found = boutique.allowed(f"deploy/default/{client}", f"deploy/default/{server}", port)
            assert bool(found) is (client in callers or "every" in callers), str(found)
            other = boutique.allowed(f"deploy/default/{client}", f"deploy/default/{server}", port + 1)
            assert bool(other) is ("every" in callers), str(other)


def test_the_world_sees_the_front_alone_and_names_are_found(boutique: Cluster) -> None:
    """Nobody may call the load generator; everybody may ask the DNS."""
    dns = next(pod.key for pod in boutique.objects.pods if pod.labels.get("k8s-app") == "kube-dns")
    for server, port in CALLERS:
        assert bool(boutique.allowed("external", f"deploy/default/{server}", port)) is (server == "frontend")
        assert boutique.allowed(f"deploy/default/{server}", dns, 53, "UDP")
        assert not boutique.allowed(f"deploy/default/{server}", "deploy/default/loadgenerator", port)


def test_the_only_thing_to_look_at_is_the_open_front(boutique: Cluster) -> None:
    """The policies are well made; pods of kube-system have none."""
    found = [(each.object, each.field, str(each.kind)) for each in boutique.findings()]
    assert found == [
        ("NetworkPolicy default/frontend", "spec.ingress[0]", "open to all addresses"),
        ("Namespace kube-system", "", "selected by no policy"),
    ]


def test_one_more_caller_is_one_more_peer(boutique: Cluster) -> None:
    """The smallest change is an entry in the policy of the service, and nothing else opens."""
    change = boutique.to_allow("deploy/default/frontend", "deploy/default/redis-cart", 6379)
    assert change.says == ("NetworkPolicy default/redis-cart needs one more peer in spec.ingress[0].from",)
    assert change.also == ()
    assert [each.ref for each in boutique.applied(*change.objects).objects.of(api.NetworkPolicy)].count(
        "NetworkPolicy default/redis-cart"
    ) == 1
