from collections.abc import Iterable
from typing import Any

from k8snetlab.api import EndpointSlice, Service, TrafficPolicy, decode
from k8snetlab.services.endpoints import Backend
from k8snetlab.services.exposure import Exposure, exposures


def service(*, status: dict[str, Any] | None = None, labels: dict[str, str] | None = None, **spec: Any) -> Service:
    """The Service default/api at 10.96.0.7 and port 80, with more of a spec."""
    plain = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "api", "labels": labels or {}},
        "spec": {"clusterIP": "10.96.0.7", "ports": [{"port": 80}], **spec}, "status": {"loadBalancer": status or {}},
    }  # fmt: skip
    found = decode(plain).object
    assert isinstance(found, Service)
    return found


def piece(
    addresses: Iterable[str], *, service: str = "api", of: str = "IPv4", ports: Any = None, **endpoint: Any
) -> EndpointSlice:
    """A slice of a Service with these addresses, of default/api and at port 8080 if nothing is said."""
    plain = {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": of,
        "metadata": {"name": "api-x", "labels": {"kubernetes.io/service-name": service}},
        "endpoints": [{"addresses": [address], **endpoint} for address in addresses],
        "ports": [{"name": "", "port": 8080}] if ports is None else ports,
    }  # fmt: skip
    found = decode(plain).object
    assert isinstance(found, EndpointSlice)
    return found


def only(held: Service, *slices: EndpointSlice) -> Exposure:
    """The one exposure in IPv4."""
    (found,) = exposures([held], slices, 4)
    return found


def test_the_number_is_the_slices_and_not_target_port() -> None:
    """What the slice says is dialled, whatever targetPort says."""
    held = service(ports=[{"port": 80, "targetPort": 9999}])
    assert [str(b) for b in only(held, piece(["10.244.0.2"])).backends] == ["10.244.0.2:8080"]


def test_ports_join_by_name() -> None:
    """A slice port of another name belongs to another port of the Service."""
    held = service(ports=[{"name": "web", "port": 80}, {"name": "admin", "port": 81}])
    slices = [piece(["10.244.0.2"], ports=[{"name": "admin", "port": 9000}])]
    assert [len(found.backends) for found in exposures([held], slices, 4)] == [0, 1]


def test_a_slice_of_another_service_is_not_joined() -> None:
    """The label of the slice names its Service."""
    assert not only(service(), piece(["10.244.0.2"], service="web")).backends


def test_backends_are_sorted_as_text_and_stand_once() -> None:
    """Two slices may hold the same endpoint; 10.244.0.10 comes before 10.244.0.2."""
    slices = (piece(["10.244.0.2", "10.244.0.10"]), piece(["10.244.0.2"]))
    assert [b.ip for b in only(service(), *slices).backends] == ["10.244.0.10", "10.244.0.2"]


def test_conditions_not_said_mean_ready_and_serving_and_not_terminating() -> None:
    """A slice written by hand often has no conditions."""
    assert only(service(), piece(["10.244.0.2"], nodeName="n1")).backends == (Backend("10.244.0.2", 8080, "n1"),)


def test_each_family_has_its_own_address_and_slices() -> None:
    """A dual-stack Service is exposed once a family, with the slices of that family."""
    held = service(clusterIPs=["10.96.0.7", "fd00:10:96::7"], ipFamilyPolicy="RequireDualStack")
    slices = [piece(["10.244.0.2"]), piece(["fd00:10:244::2"], of="IPv6")]
    (found,) = exposures([held], slices, 6)
    assert (found.cluster_ip, [str(b) for b in found.backends]) == ("fd00:10:96::7", ["[fd00:10:244::2]:8080"])


def test_names_only_need_no_proxy() -> None:
    """Headless Services and those of another proxy are not exposed."""
    headless = service(clusterIP="None")
    other = service(labels={"service.kubernetes.io/service-proxy-name": "mine"})
    assert exposures([headless, other], [], 4) == ()


def test_only_addresses_in_vip_mode_are_load_balancer_addresses() -> None:
    """Host names and addresses of proxying load balancers are nothing to the nodes."""
    ingress = [{"ip": "192.0.2.1"}, {"ip": "192.0.2.2", "ipMode": "Proxy"}, {"hostname": "lb.example"}]
    assert only(service(type="LoadBalancer", status={"ingress": ingress})).load_balancer_ips == ("192.0.2.1",)


def test_an_all_embracing_source_range_limits_nothing() -> None:
    """0.0.0.0/0 among the ranges makes the others meaningless."""
    held = service(type="LoadBalancer", loadBalancerSourceRanges=["10.0.0.0/8", "0.0.0.0/0"])
    assert only(held).source_ranges == ()


def test_source_ranges_are_per_family() -> None:
    """An IPv6 range does not limit IPv4 clients."""
    held = service(type="LoadBalancer", loadBalancerSourceRanges=["2001:db8::/32"])
    assert only(held).source_ranges == ()


def test_affinity_lasts_three_hours_unless_said() -> None:
    """The default of sessionAffinity ClientIP is 10800 s."""
    assert only(service(sessionAffinity="ClientIP")).affinity == 10800


def test_no_affinity_is_zero_seconds() -> None:
    """Without affinity every connection chooses anew."""
    assert only(service()).affinity == 0


def test_what_is_reached_from_outside_needs_all_backends() -> None:
    """Pods and nodes take the short way to any backend, so policy Local alone is not enough."""
    held = service(type="NodePort", externalTrafficPolicy="Local", ports=[{"port": 80, "nodePort": 30080}])
    assert only(held).policies == {TrafficPolicy.CLUSTER, TrafficPolicy.LOCAL}


def test_an_internal_service_with_policy_local_uses_local_backends_only() -> None:
    """Nothing falls back to other nodes."""
    assert only(service(internalTrafficPolicy="Local")).policies == {TrafficPolicy.LOCAL}
