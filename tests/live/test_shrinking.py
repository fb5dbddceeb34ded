from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import msgspec
import pytest

from k8snetlab import live
from k8snetlab.cluster import Cluster
from k8snetlab.errors import LabError
from k8snetlab.linux.host import Network
from k8snetlab.live import Probe
from tests.live import fuzz
from tests.live.cases import Case, cases, running
from tests.live.fuzz import Given
from tests.live.happenings import Flipped
from tests.live.questions import pod_pairs
from tests.live.shrinking import shrunk
from tests.shops import bookshop, pod, service


def without_ways(network: Network) -> Network:
    """The same machines, none of which knows the way to another machine's pods."""
    changed = []
    for host in network.values():
        routes = tuple(route for route in host.routes if not route.via or route.prefix == "default")
        changed.append(msgspec.structs.replace(host, routes=routes))
    return network.replacing(*changed)


def without_source_checks(network: Network) -> Network:
    """The same machines, whatever their rp_filter says."""
    changed = []
    for host in network.values():
        sysctls = {key: 0 if key.endswith("rp_filter") else value for key, value in host.sysctls.items()}
        changed.append(msgspec.structs.replace(host, sysctls=sysctls))
    return network.replacing(*changed)


def differ(case: Case, given: Given) -> bool:
    """Whether a probe of the case ends otherwise in the other network: the kernel's part is played by a walk."""
    one, other = case.network, given(case.network)
    return any(live.predicted(one, probe) != live.predicted(other, probe) for probe in case.probes)


def first(given: Given) -> Case:
    """The first random case in which the two differ."""
    drawn = (case for seed in range(2, 50) for case in cases(seed, 8))
    return next(case for case in drawn if len(case.happened) > 1 and differ(case, given))


def kinds(case: Case) -> Counter[str]:
    """How many objects of each kind a case has."""
    return Counter(str(each["kind"]) for each in case.objects)


def smaller(case: Case) -> Iterator[Case]:
    """The case without one thing, for every thing it has."""
    for field in ("probes", "happened", "objects"):
        held = getattr(case, field)
        for number in range(len(held)):
            yield msgspec.structs.replace(case, **{field: held[:number] + held[number + 1 :]})


def test_a_missing_way_is_shrunk_to_one_pair_on_two_nodes() -> None:
    """No Service, no happening, one probe, and the two machines between which the way is missing."""
    case = first(without_ways)
    pairs = msgspec.structs.replace(case, probes=tuple(pod_pairs(case.cluster)))
    found = shrunk(pairs, lambda case: differ(case, without_ways))
    assert (len(found.probes), found.happened) == (1, ())
    assert kinds(found)["Node"] == 2
    assert 1 <= kinds(found)["Pod"] <= 2
    assert set(kinds(found)) == {"Node", "Pod"}


def test_a_setting_that_is_not_read_is_shrunk_to_the_happenings_that_show_it() -> None:
    """Of several happenings those are left that the difference needs: a flipped setting is one of them."""
    case = first(without_source_checks)
    found = shrunk(case, lambda each: differ(each, without_source_checks))
    assert len(found.happened) < len(case.happened)
    assert any(isinstance(each, Flipped) and each.kind.endswith("rp_filter") for each in found.happened)


@pytest.mark.parametrize("given", [without_ways, without_source_checks])
def test_nothing_can_be_taken_away_from_what_is_left(given: Given) -> None:
    """Without any one of its objects, happenings and probes the case does not differ, or cannot be built."""
    found = shrunk(first(given), lambda case: differ(case, given))
    assert [each for each in smaller(found) if _still(each, given)] == []


def _still(case: Case, given: Given) -> bool:
    try:
        return differ(case, given)
    except LabError:
        return False


def test_only_so_many_cases_are_tried() -> None:
    """A kernel takes a second for each."""
    tried: list[Case] = []
    shrunk(first(without_ways), lambda case: bool(tried.append(case)), most=7)  # type: ignore[func-returns-value]
    assert len(tried) == 7


def test_a_running_cluster_is_the_same_when_it_is_read_again() -> None:
    """With all addresses written down, the machines are those of the cluster."""
    shop = bookshop()
    assert dict(running(shop).network) == dict(shop.network)


def test_a_kernel_that_does_something_else_is_reported(kernel: None) -> None:
    """The report has the seed, the smallest cluster, what walk and kernel say, and the rules of both."""
    shop = Cluster.load(pod("one", "node-1"), pod("two", "node-2"), service("web", "web"), cni="bridge", nodes=2)
    lost = next(route for route in shop.network["default/one"].routes if route.prefix == "default")
    way = Probe("default/one", shop.network["default/two"].link("eth0").addresses[0].ip, 8080)
    harmless = Flipped("node-1", "net.ipv4.conf.all.proxy_arp", 1)
    case = msgspec.structs.replace(running(shop), happened=(harmless,), probes=(way,))

    def without_route(network: Network) -> Network:
        return network.without("default/one", lost)

    found = fuzz.Round(7, 3, case, fuzz.disagreements(case, without_route), 0)
    head, ends, walk, rules, *manifests = fuzz.report(found, without_route).split("\n\n")
    assert head == "seed 7, round 3: make fuzz SEED=7 ROUNDS=8"
    assert ends.startswith("cni bridge, proxy iptables; as compiled\n")
    assert ends.endswith("; the kernel: UNREACHABLE (ENETUNREACH)")
    assert walk.startswith("The walk\ndefault/one\n")
    assert "the walk and the kernel differ (0)" in rules
    assert sorted(re.findall("^kind: (.*)$", "".join(manifests), re.MULTILINE)) == ["Node", "Pod"]
