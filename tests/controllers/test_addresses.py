"""Which addresses pods get, and which ports they listen on."""

from collections.abc import Mapping, Sequence

import pytest

from k8snetlab import api
from k8snetlab.address import Prefix
from k8snetlab.cni import Machine
from k8snetlab.controllers import Plan, listens, resolved
from k8snetlab.errors import AddressInUse, PoolExhausted
from tests.controllers.example import cluster, node, own, pod, running, service, workload

ONE = node("a", "172.18.0.5")


def test_addresses_count_up_from_the_second() -> None:
    """The first address is the node's own; pods get the following ones in the order of the input."""
    found = cluster(ONE, pod("a"), pod("b"), pod("c"))
    assert [each.ip for each in found.pods] == ["10.244.0.2", "10.244.0.3", "10.244.0.4"]


def test_both_families_have_an_address() -> None:
    """In a dual-stack cluster every pod has two addresses, the primary one first."""
    assert own(cluster(pod("a"), nodes=1, families=(4, 6)))[0].ips == ("10.244.0.4", "fd00:10:244::4")


def test_addresses_of_a_dump_are_kept() -> None:
    """New pods get what is free around them."""
    found = cluster(ONE, pod("new"), pod("newer"), running("old", "a", "10.244.0.3"))
    assert [each.ip for each in found.pods] == ["10.244.0.2", "10.244.0.4", "10.244.0.3"]


def test_started_pod_says_so() -> None:
    """Phase, readiness and the node's address are filled in."""
    (started,) = cluster(ONE, pod("a")).pods
    assert (started.status.phase, started.ready, started.networked) == ("Running", True, True)
    assert (started.status.host_ip, started.status.pod_ip) == ("172.18.0.5", "10.244.0.2")


def test_readiness_of_a_dump_is_kept() -> None:
    """A pod that says it is not ready is not."""
    plain = running("a", "a", "10.244.0.2")
    plain["status"]["conditions"] = [{"type": "Ready", "status": "False"}]
    assert not cluster(ONE, plain).pods[0].ready


def test_host_network_has_the_addresses_of_the_node() -> None:
    """Such a pod takes nothing from the pod range, and two of them share an address."""
    found = cluster(ONE, pod("a", hostNetwork=True), pod("b", hostNetwork=True), pod("c"))
    assert [each.ip for each in found.pods] == ["172.18.0.5", "172.18.0.5", "10.244.0.2"]


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_completed_pod_has_given_its_address_back(phase: str) -> None:
    """Another pod may have it."""
    plain = running("old", "a", "10.244.0.2")
    plain["status"]["phase"] = phase
    old, new = cluster(ONE, plain, pod("new")).pods
    assert (old.networked, new.ip) == (False, "10.244.0.2")


def test_two_pods_cannot_have_one_address() -> None:
    """The error names the address and both pods."""
    with pytest.raises(AddressInUse) as caught:
        cluster(ONE, running("a", "a", "10.244.0.2"), running("b", "a", "10.244.0.2"))
    assert (caught.value.address, caught.value.owners) == ("10.244.0.2", ("Pod default/a", "Pod default/b"))


def test_addresses_are_canonical() -> None:
    """An IPv6 address has one spelling, however the dump wrote it."""
    both = node("a", "172.18.0.5", "fd00:172::5", spec={"podCIDRs": ["10.244.0.0/24", "fd00:10:244::/64"]})
    found = cluster(both, running("p", "a", "10.244.0.2", "FD00:10:244:0::2"))
    assert found.pods[0].ips == ("10.244.0.2", "fd00:10:244::2")


def test_range_of_a_node_ends() -> None:
    """A range of eight addresses holds five pods: two have no host, one is the node's."""
    small = node("a", "172.18.0.5", spec={"podCIDR": "10.244.0.0/29"})
    with pytest.raises(PoolExhausted, match="all 5 are in use"):
        cluster(small, workload("Deployment", "web", replicas=6))


def test_addresses_come_from_the_plugin() -> None:
    """Another IPAM gives other addresses: where they come from is the CNI's business."""

    def from_the_top(
        pool: Prefix, machines: Sequence[Machine], pods: Mapping[str, Sequence[str]], kept: Mapping[str, str]
    ) -> Mapping[str, str]:
        keys = [key for machine in machines for key in pods.get(machine.name, ()) if key not in kept]
        return {**kept, **{key: Prefix.of("10.244.9.0/24").address(200 - at) for at, key in enumerate(keys)}}

    found = resolved(api.load(ONE, pod("a"), pod("b")), Plan(), from_the_top)
    assert [each.ip for each in found.pods] == ["10.244.9.200", "10.244.9.199"]


# Who listens


def test_pod_listens_on_its_declared_ports() -> None:
    """Sidecars count, and each port once."""
    side = {"name": "s", "restartPolicy": "Always", "ports": [{"containerPort": 9000}, {"containerPort": 8080}]}
    found = cluster(ONE, pod("a", initContainers=[side]), service("s", selector={}))
    assert found.listens(found.pods[0]) == (("TCP", 8080, False), ("TCP", 9000, False))


def test_pod_that_declares_nothing_listens_where_services_send() -> None:
    """That is an assumption, and marked as one; a named target port says nothing."""
    bare = pod("a", labels={"app": "web"}, containers=[{"name": "c"}])
    ports = [{"name": "a", "port": 80, "targetPort": 8080}, {"name": "b", "port": 81, "targetPort": "http"}]
    found = cluster(ONE, bare, service("s", selector={"app": "web"}, ports=ports), service("t", selector={"app": "x"}))
    assert found.listens(found.pods[0]) == (("TCP", 8080, True),)


def test_annotation_overrules() -> None:
    """What the annotation says holds, even when it is nothing."""
    for text, ports in (("53/UDP, 80", (("UDP", 53, False), ("TCP", 80, False))), ("", ())):
        plain = pod("a")
        plain["metadata"]["annotations"] = {"k8snetlab.io/listen": text}
        (listening,) = api.load(plain).of(api.Pod)
        assert listens(listening, ()) == ports
