from __future__ import annotations

import pytest

from k8snetlab.cluster import Cluster
from k8snetlab.compile import KUBELET
from k8snetlab.errors import BadOption
from k8snetlab.linux.host import Host, Network
from tests.shops import bookshop, pod, service


def built(network: Network) -> set[str]:
    """The machines that have been built so far."""
    return {name for name, host in network._held.items() if isinstance(host, Host)}


def test_nothing_is_built_before_a_packet_comes_by() -> None:
    """Loading a cluster compiles no machine."""
    assert built(bookshop.__wrapped__().network) == set()


def test_a_trace_costs_the_machines_it_meets() -> None:
    """A packet to a pod on the same node leaves all other nodes alone."""
    cluster = Cluster.load(pod("a"), pod("b"), pod("c", node="node-2"), pod("d", node="node-3"))
    cluster.trace("default/a", "default/b:8080")
    assert built(cluster.network) == {"default/a", "default/b", "node-1"}


def test_every_machine_states_the_sysctls_that_are_read() -> None:
    """Pods, nodes, switches, the router and the client outside: none leaves a setting open."""
    network = bookshop().network
    for name in network:
        for link in network[name].links:
            assert network[name].sysctl(f"net.ipv4.conf.{link.name}.rp_filter") in (0, 1, 2)
        assert network[name].sysctl("net.ipv4.ip_forward") in (0, 1)


def test_a_pod_listens_where_its_containers_do() -> None:
    """The declared port, held by the container of that name."""
    [listener] = Cluster.load(pod("a")).network["default/a"].listeners
    assert (listener.port, listener.program, listener.assumed) == (8080, "web", False)


def test_a_port_nobody_declares_is_assumed_where_services_send() -> None:
    """A pod without declared ports listens on the target ports of its Services, and it is marked."""
    silent = pod("a").replace(", ports: [{name: http, containerPort: 8080}]", "")
    cluster = Cluster.load(silent, service("web", target=9999))
    [listener] = cluster.network["default/a"].listeners
    assert (listener.port, listener.assumed) == (9999, True)
    assert "assumed: no manifest declares the port" in cluster.trace("default/a", "default/a:9999").reason


def test_every_node_has_a_kubelet() -> None:
    """It listens on port 10250, whatever runs there."""
    network = bookshop().network
    assert all(KUBELET in network[node.name].listeners for node in bookshop().objects.nodes)


def test_a_pod_on_its_nodes_network_listens_on_the_node() -> None:
    """It has no Host of its own; its port is a port of the node."""
    cluster = Cluster.load(pod("agent", spec="hostNetwork: true"))
    assert "default/agent" not in cluster.network
    assert ("default/agent", 8080) in {(each.program, each.port) for each in cluster.network["node-1"].listeners}
    assert cluster.trace("node/node-2", "default/agent:8080").backend is not None


def test_a_completed_pod_on_its_nodes_network_listens_no_more() -> None:
    """Its port on the node is closed."""
    cluster = Cluster.load(pod("agent", spec="hostNetwork: true", status="phase: Succeeded"))
    assert 8080 not in {each.port for each in cluster.network["node-1"].listeners}


def test_two_pods_cannot_hold_one_port_of_a_node() -> None:
    """The first one gets the socket."""
    shared = "hostNetwork: true"
    cluster = Cluster.load(pod("one", spec=shared), pod("two", spec=shared))
    assert [each.program for each in cluster.network["node-1"].listeners if each.port == 8080] == ["default/one"]


def test_a_proxy_mode_that_does_not_exist_is_refused() -> None:
    """The message says which do."""
    with pytest.raises(BadOption, match="proxy: there is no proxy mode 'magic'; there are iptables"):
        Cluster.load(pod("a"), proxy="magic")


@pytest.mark.parametrize(("network", "reaches"), [("bridge", True), ("flannel-host-gw", True), ("flannel", False)])
def test_the_api_servers_machine_takes_part_in_the_pod_network(network: str, reaches: bool) -> None:
    """It is no node: host routes lead it to pods, but it has no range of its own and so no tunnel."""
    trace = bookshop(network).trace("control-plane", "shop/web-0:8080")
    assert (trace.backend is not None) is reaches
