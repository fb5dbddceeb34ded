"""Pods come and go, and both controllers write it down."""

from __future__ import annotations

import pytest

from k8snetlab.cluster import example
from k8snetlab.errors import BadOption, UnknownName
from k8snetlab.services import churn
from k8snetlab.services.churn import Leaving, Ledger, Pods
from tests.services.web import NODES, pod, pods, service


def ledger(number: int, most: int = 100) -> Ledger:
    """A Service with so many pods."""
    return churn.started(service(), pods(number), NODES, most)


def told(there: Pods) -> list[str]:
    """Each pod's name, with a mark for one that is not ready and one that is leaving."""
    return [f"{each.name}{'' if each.ready else '?'}{'-' if each.terminating else ''}" for each in there]


def test_a_restart_is_four_events() -> None:
    """A new pod comes, it is ready, the old one is leaving, it is gone."""
    states = [told(state) for state in churn.restarted(pods(2), 1)]
    new = states[-1][-1]
    assert states == [
        ["web-0", "web-1", f"{new}?"],
        ["web-0", "web-1", new],
        ["web-0-", "web-1", new],
        ["web-1", new],
    ]


def test_restarting_all_leaves_none_of_the_old() -> None:
    """As many as before, one after the other, and never fewer that are ready."""
    states = list(churn.restarted(pods(3), 3))
    assert {each.name for each in states[-1]}.isdisjoint(each.name for each in pods(3))
    assert len(states) == 12 and len(states[-1]) == 3
    assert min(sum(each.ready and not each.terminating for each in state) for state in states) == 3


def test_growing_pods_get_an_address_and_then_ready() -> None:
    """Each new pod has a name and an address of its own."""
    states = list(churn.grown(pods(1), 3))
    assert [[each.ready for each in state] for state in states] == [
        [True, False], [True, True], [True, True, False], [True, True, True],
    ]  # fmt: skip
    assert len({each.ip for each in states[-1]}) == len({each.name for each in states[-1]}) == 3


@pytest.mark.parametrize(("leaving", "left"), [(Leaving.NEWEST, "web-0"), (Leaving.OLDEST, "web-2")])
def test_the_newest_leave_first_unless_asked_otherwise(leaving: Leaving, left: str) -> None:
    """A ReplicaSet deletes the youngest pods."""
    assert told(list(churn.shrunk(pods(3), 1, leaving))[-1]) == [left]


def test_who_leaves_by_chance_follows_from_the_seed() -> None:
    """The same seed, the same pods."""
    found = [told(list(churn.shrunk(pods(20), 5, Leaving.ANY, seed=seed))[-1]) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]


def test_a_stumble_ends_where_it_began() -> None:
    """Not ready, and ready again, as the same pod."""
    first, second = churn.stumbled(pods(2), 1)
    assert (told(first), second) == (["web-0?", "web-1"], pods(2))


@pytest.mark.parametrize("number", [-1, 3])
def test_only_pods_that_are_there_restart(number: int) -> None:
    """Two pods: not three, and not less than none."""
    with pytest.raises(BadOption, match="between 0 and 2"):
        list(churn.restarted(pods(2), number))


def test_there_must_be_a_pod_to_make_others_like() -> None:
    """Nothing cannot be multiplied."""
    with pytest.raises(BadOption, match="no pod"):
        churn.resized((), 1)


def test_families_of_new_pods_are_those_of_the_old() -> None:
    """A pod with two addresses gets companions with two."""
    new = churn.resized((pod("a", "10.0.0.1", "fd00::1"),), 2)[1]
    assert new.ips == ("10.0.0.2", "fd00::2")


# What is written


def test_one_restart_of_250() -> None:
    """Four writes of a slice against three of the whole: a pod that is gone was no address any more."""
    turn = ledger(250).after(churn.restarted(ledger(250).pods, 1)).last
    assert (turn.slices.writes, turn.endpoints.writes) == (4, 3)
    assert turn.slices.bytes < turn.endpoints.bytes


def test_one_stumble_of_250() -> None:
    """A real server: 24,826 bytes of one slice against 38,716 of the object, with what manages their fields."""
    there = ledger(250)
    turn = there.after(list(churn.stumbled(there.pods, 1))[:1]).last
    assert (turn.slices.writes, turn.endpoints.writes) == (1, 1)
    assert turn.endpoints.bytes / turn.slices.bytes == pytest.approx(38_716 / 24_826, rel=0.05)


def test_up_to_a_hundred_pods_slices_cost_more() -> None:
    """An endpoint says more than an address: conditions and zone."""
    turn = ledger(1).after(churn.grown(ledger(1).pods, 99)).last
    assert turn.slices.writes == turn.endpoints.writes
    assert turn.slices.bytes / turn.endpoints.bytes == pytest.approx(1_305_648 / 841_576, rel=0.1)


def test_at_once_is_one_look() -> None:
    """What happens before the controller looks is one change."""
    there = ledger(1)
    turn = there.after(churn.at_once(churn.grown(there.pods, 99))).last
    assert (turn.events, turn.pods, turn.slices.writes, turn.endpoints.writes) == (1, 99, 1, 1)
    assert churn.at_once(()) == ()


def test_smaller_slices_send_less_and_are_more() -> None:
    """What is written for one pod is as large as its slice."""
    sent = {}
    for most in (10, 100, 1000):
        there = ledger(300, most)
        sent[most] = there.after(churn.stumbled(there.pods, 1)).last.slices.bytes
        assert len(there.last.sizes) == -(-300 // most)
    assert sent[10] < sent[100] < sent[1000]


def test_a_cluster_opens_a_ledger() -> None:
    """For a Service of its own, with the pods that the selector means."""
    lab = example("service-many-pods")
    there = lab.ledger("svc/default/web")
    assert there.last.sizes == tuple(len(each.endpoints) for each in lab.objects.slices_of("default/web"))
    with pytest.raises(UnknownName, match="web"):
        lab.ledger("default/wbe")


def test_a_ledger_is_read_as_a_table() -> None:
    """One line a turn: what happened, the slices, the writes and the bytes of both."""
    there = ledger(250).after(churn.stumbled(pods(250), 1), "one stumbles")
    head, first, last = str(there).splitlines()
    assert head.split() == [
        "pods", "slices", "writes:", "slices", "Endpoints", "bytes", "a", "watcher:", "slices", "Endpoints",
    ]  # fmt: skip
    assert first.split()[-6:-2] == ["250", "100+100+50", "3", "1"]
    assert last.startswith("one stumbles")
