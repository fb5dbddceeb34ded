from k8snetlab.api import TrafficPolicy
from k8snetlab.services.endpoints import Backend, chosen

CLUSTER = frozenset({TrafficPolicy.CLUSTER})
LOCAL = frozenset({TrafficPolicy.LOCAL})
BOTH = CLUSTER | LOCAL


def backend(last: int, node: str = "n1", **facts: bool | frozenset[str]) -> Backend:
    """The backend 10.0.0.`last` on a node."""
    return Backend(f"10.0.0.{last}", 80, node, **facts)  # type: ignore[arg-type]


def leaving(last: int, node: str = "n1") -> Backend:
    """A backend that stops and still answers."""
    return backend(last, node, ready=False, serving=True, terminating=True)


def test_ready_backends_are_used() -> None:
    """Of a ready and an unready backend the ready one is chosen."""
    ready, unready = backend(1), backend(2, ready=False, serving=False)
    assert chosen([ready, unready], CLUSTER, "n1").cluster == (ready,)


def test_an_unready_backend_is_never_a_fallback() -> None:
    """A backend that neither is ready nor terminates is not used, even if it is the only one."""
    choice = chosen([backend(1, ready=False, serving=True)], BOTH, "n1")
    assert (choice.reachable, choice.anywhere) == ((), False)


def test_terminating_backends_serve_when_nothing_is_ready() -> None:
    """Serving and terminating backends are the last resort."""
    assert chosen([leaving(1), leaving(2)], CLUSTER, "n1").cluster == (leaving(1), leaving(2))


def test_terminating_backends_are_left_alone_while_one_is_ready() -> None:
    """One ready backend anywhere is enough to spare the terminating ones."""
    assert chosen([leaving(1), backend(2, "n2")], CLUSTER, "n1").cluster == (backend(2, "n2"),)


def test_a_terminating_backend_that_does_not_serve_is_not_used() -> None:
    """Terminating and failing its probe: gone."""
    assert not chosen([backend(1, ready=False, serving=False, terminating=True)], CLUSTER, "n1").anywhere


def test_a_terminating_backend_that_counts_as_ready_is_used() -> None:
    """A Service that publishes unready addresses says ready of a terminating pod, and means it."""
    published = backend(1, ready=True, serving=False, terminating=True)
    assert chosen([published], CLUSTER, "n1").cluster == (published,)


def test_policy_local_keeps_to_the_node() -> None:
    """Only backends on the asking node count under policy Local."""
    assert chosen([backend(1, "n1"), backend(2, "n2")], LOCAL, "n2").local == (backend(2, "n2"),)


def test_policy_local_without_a_local_backend_still_knows_of_others() -> None:
    """No backend here, but one elsewhere: the packet is dropped, not refused."""
    choice = chosen([backend(1, "n1")], LOCAL, "n2")
    assert (choice.local, choice.anywhere) == ((), True)


def test_local_terminating_backends_serve_though_others_are_ready_elsewhere() -> None:
    """The local set is judged by itself."""
    choice = chosen([leaving(1, "n1"), backend(2, "n2")], BOTH, "n1")
    assert (choice.local, choice.cluster) == ((leaving(1, "n1"),), (backend(2, "n2"),))


def test_everything_that_can_be_reached_is_named_once() -> None:
    """The union of both policies has no backend twice."""
    choice = chosen([leaving(1, "n1"), backend(2, "n2"), backend(3, "n2")], BOTH, "n1")
    assert [str(each) for each in choice.reachable] == ["10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80"]


def test_a_backend_without_a_node_is_local_nowhere() -> None:
    """A manual endpoint without a node name serves policy Cluster only."""
    choice = chosen([backend(1, "")], BOTH, "n1")
    assert (choice.local, choice.cluster) == ((), (backend(1, ""),))


def test_zone_hints_keep_traffic_in_the_zone() -> None:
    """If every ready backend carries a hint, those for this zone are used."""
    near, far = backend(1, for_zones=frozenset({"a"})), backend(2, for_zones=frozenset({"b"}))
    assert chosen([near, far], CLUSTER, "n1", "a").cluster == (near,)


def test_one_backend_without_a_hint_switches_hints_off() -> None:
    """Hints are all or nothing."""
    hinted, plain = backend(1, for_zones=frozenset({"a"})), backend(2)
    assert chosen([hinted, plain], CLUSTER, "n1", "a").cluster == (hinted, plain)


def test_an_unready_backend_without_a_hint_does_not_switch_hints_off() -> None:
    """Hints are judged over ready backends alone."""
    near, far = backend(1, for_zones=frozenset({"a"})), backend(2, for_zones=frozenset({"b"}))
    assert chosen([near, far, backend(3, ready=False)], CLUSTER, "n1", "a").cluster == (near,)


def test_a_zone_without_a_hinted_backend_uses_all() -> None:
    """Traffic of zone c goes anywhere if nothing is hinted for c."""
    backends = (backend(1, for_zones=frozenset({"a"})), backend(2, for_zones=frozenset({"b"})))
    assert chosen(backends, CLUSTER, "n1", "c").cluster == backends


def test_a_node_without_a_zone_uses_all() -> None:
    """Zone hints mean nothing to a node that has no zone."""
    backends = (backend(1, for_zones=frozenset({"a"})), backend(2, for_zones=frozenset({"b"})))
    assert chosen(backends, CLUSTER, "n1").cluster == backends


def test_node_hints_come_before_zone_hints() -> None:
    """PreferSameNode: the node first, then its zone."""
    zone = frozenset({"a"})
    here = backend(1, "n1", for_zones=zone, for_nodes=frozenset({"n1"}))
    near = backend(2, "n2", for_zones=zone, for_nodes=frozenset({"n2"}))
    far = backend(3, "n9", for_zones=frozenset({"b"}), for_nodes=frozenset({"n9"}))
    backends = (here, near, far)
    assert chosen(backends, CLUSTER, "n1", "a").cluster == (here,)
    assert chosen(backends, CLUSTER, "n3", "a").cluster == (here, near)


def test_policy_local_ignores_hints() -> None:
    """A local backend hinted for another zone is used under policy Local."""
    far = backend(1, "n1", for_zones=frozenset({"b"}))
    assert chosen([far, backend(2, "n2", for_zones=frozenset({"a"}))], BOTH, "n1", "a").local == (far,)


def test_the_last_resort_ignores_hints() -> None:
    """Terminating backends are used whatever zone they are hinted for."""
    only = Backend("10.0.0.1", 80, "n2", ready=False, terminating=True, for_zones=frozenset({"b"}))
    assert chosen([only], CLUSTER, "n1", "a").cluster == (only,)


def test_an_ipv6_backend_is_written_in_brackets() -> None:
    """The port is kept apart from an IPv6 address."""
    assert str(Backend("fd00::2", 80)) == "[fd00::2]:80"
