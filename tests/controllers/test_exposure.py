"""Which addresses, families and node ports Services get."""

from typing import Any

import pytest

from k8snetlab import api
from k8snetlab.address import Prefix
from k8snetlab.errors import AddressInUse, ManifestError, PoolExhausted, Problem
from tests.controllers.example import cluster, service

DUAL = {"families": (4, 6)}


def spec(plan: dict[str, Any] | None = None, **fields: Any) -> api.ServiceSpec:
    """The spec of the one Service `a`, as it comes out."""
    return cluster(service("a", **fields), **(plan or {})).service("default/a").spec


def refused(plan: dict[str, Any] | None = None, **fields: Any) -> Problem:
    """What is wrong with the Service `a` in this cluster."""
    with pytest.raises(ManifestError) as caught:
        spec(plan, **fields)
    return caught.value.problems[0]


# Addresses


def test_address_is_drawn_from_the_upper_band() -> None:
    """The first 256 addresses are left for those who choose."""
    (address,) = spec().cluster_ips
    assert Prefix.of("10.96.0.0/12").contains(address)
    assert not Prefix.of("10.96.0.0/24").contains(address)


def test_one_more_service_does_not_move_the_others() -> None:
    """The address follows from the name."""
    alone = cluster(service("a")).service("default/a")
    assert cluster(service("c"), service("a"), service("b")).service("default/a") == alone


def test_chosen_address_is_kept_and_nobody_else_gets_it() -> None:
    """Addresses that are written count first, wherever they stand."""
    drawn = spec().cluster_ip
    found = cluster(service("a"), service("b", clusterIP=drawn))
    assert found.service("default/b").spec.cluster_ip == drawn
    assert found.service("default/a").spec.cluster_ip != drawn


def test_lower_band_is_used_when_the_upper_is_full() -> None:
    """A Service network of 32 addresses has 15 of each kind; then it is exhausted."""
    small = {"service_cidrs": (Prefix.of("10.96.0.0/27"),)}
    taken = [service(f"s{each}") for each in range(28)]
    addresses = {each.spec.cluster_ip for each in cluster(*taken, **small).services}
    assert addresses == {f"10.96.0.{each}" for each in range(1, 31)}
    with pytest.raises(PoolExhausted, match="all 30 are in use"):
        cluster(*taken, service("last"), **small)


def test_two_services_cannot_have_one_address() -> None:
    """Nor can one take what the API server or DNS has."""
    for taken in ("10.96.0.1", "10.96.0.10"):
        with pytest.raises(AddressInUse, match=taken):
            spec(clusterIP=taken)


def test_headless_and_external_name_get_none() -> None:
    """Neither has an address to allocate."""
    assert spec(clusterIP="None").cluster_ips == ("None",)
    outside = spec(type="ExternalName", externalName="db.example.com", ports=[])
    assert (outside.cluster_ips, outside.ip_families, outside.ip_family_policy) == ((), (), None)


# Families


@pytest.mark.parametrize(
    ("plan", "fields", "families", "policy"),
    [
        ({}, {}, ["IPv4"], "SingleStack"),
        (DUAL, {}, ["IPv4"], "SingleStack"),
        (DUAL, {"ipFamilies": ["IPv6"]}, ["IPv6"], "SingleStack"),
        (DUAL, {"ipFamilyPolicy": "PreferDualStack"}, ["IPv4", "IPv6"], "PreferDualStack"),
        ({}, {"ipFamilyPolicy": "PreferDualStack"}, ["IPv4"], "PreferDualStack"),
        (DUAL, {"ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6"]}, ["IPv6", "IPv4"], "RequireDualStack"),
        (DUAL, {"clusterIP": "fd00:10:96::7"}, ["IPv6"], "SingleStack"),
        ({"families": (6, 4)}, {}, ["IPv6"], "SingleStack"),
        (DUAL, {"clusterIP": "None", "selector": {"a": "b"}}, ["IPv4"], "SingleStack"),
        ({}, {"clusterIP": "None"}, ["IPv4", "IPv6"], "RequireDualStack"),
    ],
)
def test_families_are_filled_in(plan: dict[str, Any], fields: dict[str, Any], families: list[str], policy: str) -> None:
    """One family unless the Service asks for two; a headless one without selector has both, whatever the cluster."""
    found = spec(plan, **fields)
    assert (list(found.ip_families), found.ip_family_policy) == (families, policy)
    if found.cluster_ip != "None":
        assert [api.IPFamily.of(6 if ":" in each else 4) for each in found.cluster_ips] == families


def test_family_that_the_cluster_lacks_is_refused() -> None:
    """An IPv4 cluster gives no IPv6 address, and cannot be dual-stack."""
    assert refused(ipFamilies=["IPv6"]).field == "spec.ipFamilies[0]"
    assert refused(clusterIP="fd00:10:96::7").field == "spec.clusterIPs[0]"
    assert refused(ipFamilyPolicy="RequireDualStack").field == "spec.ipFamilyPolicy"


# Node ports


def ports(**fields: Any) -> list[int]:
    """The node ports of a Service."""
    return [each.node_port for each in spec(**fields).ports]


def test_node_ports_are_drawn_above_the_first_ones() -> None:
    """The first 86 ports are left for those who choose; a ClusterIP Service has none."""
    (port,) = ports(type="NodePort")
    assert 30086 <= port <= 32767
    assert ports() == [0]


def test_chosen_node_port_is_kept() -> None:
    """Two Services cannot have the same one, and one outside the range cannot be had."""
    mine: dict[str, Any] = {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}
    assert ports(**mine) == [30080]
    with pytest.raises(AddressInUse, match="node port 30080"):
        cluster(service("a", **mine), service("b", **mine))
    assert refused(type="NodePort", ports=[{"port": 80, "nodePort": 80}]).field == "spec.ports[0].nodePort"


def test_one_node_port_serves_two_protocols() -> None:
    """A port that is there for TCP and UDP has one node port for both."""
    udp, tcp = {"name": "a", "port": 53, "protocol": "UDP"}, {"name": "b", "port": 53, "protocol": "TCP"}
    first, second = ports(type="NodePort", ports=[udp, tcp])
    assert first == second
    assert ports(type="NodePort", ports=[udp, {**tcp, "nodePort": 30053}]) == [30053, 30053]


def test_load_balancer_may_do_without_node_ports() -> None:
    """With allocateLoadBalancerNodePorts false none are opened."""
    assert ports(type="LoadBalancer", allocateLoadBalancerNodePorts=False) == [0]


def test_local_load_balancer_has_a_health_check() -> None:
    """It asks each node whether it has endpoints; a NodePort Service has nobody to ask."""
    assert spec(type="LoadBalancer", externalTrafficPolicy="Local").health_check_node_port >= 30086
    assert spec(type="NodePort", externalTrafficPolicy="Local").health_check_node_port == 0
