"""What the EndpointSlice controller does with slices that are there: as few writes as it can, and never a merger.

The sequences are those of a real controller (Kubernetes 1.36) that was watched while a Service grew and shrank.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from k8snetlab import api
from k8snetlab.errors import BadOption
from k8snetlab.services.slices import MANAGED_BY, Slices
from k8snetlab.services.writes import TRIGGER_TIME, Deed, Write
from tests.services.web import NODES, pod, pods, service

STEPS = (1, 99, 101, 250, 260)


def deeds(writes: Sequence[Write[api.EndpointSlice]]) -> list[tuple[str, str]]:
    """What was done to which slice."""
    return [(write.deed.value, write.object.name) for write in writes]


def gone_through(sizes: Sequence[int]) -> Slices:
    """The controller after the Service had so many pods, one number after the other, with one look at each."""
    held = Slices(service(), NODES)
    for size in sizes:
        held, _ = held.sync(pods(size))
    return held


def at_work(held: api.Service | None = None, *there: api.Pod, most: int = 100) -> Slices:
    """The controller after it looked at these pods."""
    return Slices(held or service(), NODES, most).sync(there)[0]


# Packing


def test_one_look_a_step_packs_as_a_real_controller_does() -> None:
    """What is left over goes as a whole into one slice that can take all of it, else into a slice of its own."""
    found = [sorted(gone_through(STEPS[: at + 1]).sizes, reverse=True) for at in range(len(STEPS))]
    assert found == [[1], [99], [99, 2], [100, 99, 51], [100, 99, 61]]


def test_one_look_a_pod_packs_as_a_real_controller_does() -> None:
    """One pod at a time fills the fullest slice that is not full."""
    held, found = Slices(service(), NODES), {}
    everybody = pods(260)
    for number in range(1, 261):
        held, _ = held.sync(everybody[:number])
        found[number] = held.sizes
    assert [found[step] for step in STEPS] == [(1,), (99,), (100, 1), (100, 100, 50), (100, 100, 60)]


@pytest.mark.parametrize(("order", "after", "then"), [("newest", (100, 30), (100, 31)), ("oldest", (70, 60), (71, 60))])
def test_which_pods_leave_decides_what_is_left(order: str, after: tuple[int, ...], then: tuple[int, ...]) -> None:
    """260 pods shrink to 130 and one comes back: slices stay as full as the pods that left made them."""
    everybody = pods(260)
    held, _ = Slices(service(), NODES).sync(everybody)
    for number in range(259, 129, -1):
        left = everybody[:number] if order == "newest" else everybody[260 - number :]
        held, _ = held.sync(left)
    assert held.sizes == after
    held, _ = held.sync((*left, pod("new", "10.9.9.9")))
    assert held.sizes == then


def test_slices_are_never_merged() -> None:
    """Two slices of one endpoint each stay two."""
    everybody = pods(200)
    held, _ = Slices(service(), NODES).sync(everybody)
    held, _ = held.sync((everybody[0], everybody[150]))
    assert held.sizes == (1, 1)
    held, writes = held.sync((everybody[0], everybody[150]))
    assert (held.sizes, writes) == ((1, 1), ())


def test_a_slice_that_must_be_written_is_filled_first() -> None:
    """One pod leaves a full slice and one comes: one write, though another slice has room."""
    everybody = pods(150)
    held, _ = Slices(service(), NODES).sync(everybody)
    held, writes = held.sync((*everybody[1:], pod("new", "10.9.9.9")))
    assert held.sizes == (100, 50)
    assert [write.deed for write in writes] == [Deed.UPDATE]


def test_a_new_slice_is_preferred_to_two_updates() -> None:
    """Two slices with room for one endpoint each are left alone when two come."""
    everybody = pods(200)
    held, _ = Slices(service(), NODES).sync(everybody)
    held, _ = held.sync((*everybody[1:100], *everybody[101:]))
    assert held.sizes == (99, 99)
    held, writes = held.sync((*everybody[1:100], *everybody[101:], *pods(203)[200:202]))
    assert held.sizes == (99, 99, 2)
    assert [write.deed for write in writes] == [Deed.CREATE]


def test_as_many_as_a_slice_holds_get_a_slice_of_their_own() -> None:
    """A hundred at once do not go into an empty slice of another generation, but into a new one."""
    held = at_work(None, *pods(1))
    held, writes = held.sync(pods(101))
    assert held.sizes == (1, 100)
    assert [write.deed for write in writes] == [Deed.CREATE]


@pytest.mark.parametrize(("most", "sizes"), [(10, (10, 10, 5)), (100, (25,)), (1000, (25,))])
def test_slices_may_be_smaller_or_larger(most: int, sizes: tuple[int, ...]) -> None:
    """`--max-endpoints-per-slice` decides."""
    assert at_work(None, *pods(25), most=most).sizes == sizes


@pytest.mark.parametrize("most", [0, 1001])
def test_a_slice_has_its_limits(most: int) -> None:
    """The API takes no more than 1,000."""
    with pytest.raises(BadOption, match="1 to 1000"):
        Slices(service(), NODES, most)


# Writes


def test_every_pod_is_one_write() -> None:
    """99 pods that come one by one are one creation and 98 updates; from 101 to 250 they are 148 and one new slice.

    The real run had 98, and then 144 and one: there, some pods came while the Service waited in the queue.
    """
    held, done = Slices(service(), NODES), {}
    everybody = pods(250)
    for number in range(1, 251):
        held, writes = held.sync(everybody[:number])
        done[number] = [write.deed for write in writes]
    assert [done[number] for number in range(1, 100)] == [[Deed.CREATE], *[[Deed.UPDATE]] * 98]
    later = [deed for number in range(102, 251) for deed in done[number]]
    assert (later.count(Deed.UPDATE), later.count(Deed.CREATE), len(later)) == (148, 1, 149)


def test_nothing_new_is_no_write() -> None:
    """The controller looks often, and writes when there is something to say."""
    held = at_work(None, *pods(3))
    same = tuple(replace(each) for each in pods(3))
    assert held.sync(same) == (replace(held, readings=held.sync(same)[0].readings), ())


def test_a_pod_that_is_not_ready_is_one_update_in_place() -> None:
    """Its endpoint keeps its place, and only its slice is written."""
    everybody = pods(150)
    held = at_work(None, *everybody)
    held, writes = held.sync((pod("web-0", "10.0.0.1", ready=False), *everybody[1:]))
    assert deeds(writes) == [("update", held.pieces[0].name)]
    assert [end.ready for end in held.pieces[0].endpoints[:2]] == [False, True]


def test_a_pod_with_another_uid_is_another_word_for_the_same_endpoint() -> None:
    """A StatefulSet's pod that comes back with its name and address changes in place."""
    held = at_work(None, pod("web-0", "10.0.0.1", metadata={"uid": "one"}), pod("web-1", "10.0.0.2"))
    held, writes = held.sync((pod("web-0", "10.0.0.1", metadata={"uid": "two"}), pod("web-1", "10.0.0.2")))
    assert len(writes) == 1
    assert [end.target_ref and end.target_ref.uid for end in held.pieces[0].endpoints] == ["two", ""]


def test_scaled_to_zero_one_empty_slice_is_kept() -> None:
    """One of the slices becomes the placeholder, the others are deleted."""
    held = at_work(None, *pods(250))
    first = held.pieces[0].name
    held, writes = held.sync(())
    assert sorted(write.deed for write in writes) == [Deed.DELETE, Deed.DELETE, Deed.UPDATE]
    assert [(each.name, each.endpoints, each.ports) for each in held.pieces] == [(first, (), ())]
    assert held.sync(())[1] == ()


def test_the_placeholder_becomes_the_first_slice() -> None:
    """The first pod of a Service is an update: its ports are new, and the empty slice is used for them."""
    empty = at_work()
    held, writes = empty.sync(pods(1))
    assert deeds(writes) == [("update", empty.pieces[0].name)]
    assert [port.port for port in held.pieces[0].ports] == [8080]


def test_other_ports_use_the_slices_that_are_there() -> None:
    """When the Service's target port changes, every slice is written once, under its old name."""
    held = at_work(None, *pods(150))
    names = sorted(each.name for each in held.pieces)
    held, writes = held.of(service(ports=[{"port": 80, "targetPort": 9090}])).sync(pods(150))
    assert {write.deed for write in writes} == {Deed.UPDATE}
    assert sorted(each.name for each in held.pieces) == names
    assert {port.port for each in held.pieces for port in each.ports} == {9090}


def test_a_family_that_is_gone_takes_its_slices_with_it() -> None:
    """From two families to one: the second family's slices are deleted, the first family's are not touched."""
    both = service(ipFamilies=["IPv4", "IPv6"], ipFamilyPolicy="RequireDualStack")
    held = at_work(both, pod("a", "10.0.0.1", "fd00::1"))
    held, writes = held.of(service(ipFamilies=["IPv4"])).sync((pod("a", "10.0.0.1", "fd00::1"),))
    assert [(write.deed, write.object.address_type) for write in writes] == [(Deed.DELETE, "IPv6")]
    assert [each.address_type for each in held.pieces] == ["IPv4"]


def test_labels_of_the_service_are_followed() -> None:
    """Another label on the Service is an update of every slice; those that file the slice stay."""
    held = at_work(None, *pods(2))
    old = held.service
    labelled = replace(old, metadata=replace(old.metadata, labels={"team": "a", MANAGED_BY: "me"}))
    held, writes = held.of(labelled).sync(pods(2))
    assert [write.deed for write in writes] == [Deed.UPDATE]
    assert held.pieces[0].labels["team"] == "a"
    assert held.pieces[0].labels[MANAGED_BY] == "endpointslice-controller.k8s.io"


def test_other_hints_are_written_in_every_slice() -> None:
    """A wish for the same zone changes no endpoint, and all slices."""
    held = at_work(None, *pods(150))
    held, writes = held.of(service(trafficDistribution="PreferSameZone")).sync(pods(150))
    assert [write.deed for write in writes] == [Deed.UPDATE, Deed.UPDATE]
    assert all(end.hints for each in held.pieces for end in each.endpoints)
    held, writes = held.of(service()).sync(pods(150))
    assert len(writes) == 2
    assert not any(end.hints for each in held.pieces for end in each.endpoints)


def test_hints_by_processors_are_left_as_they_are() -> None:
    """With `topology-mode: Auto` somebody else decides."""
    held = at_work(service(trafficDistribution="PreferSameZone"), *pods(2))
    old = held.service
    auto = replace(old, metadata=replace(old.metadata, annotations={"service.kubernetes.io/topology-mode": "Auto"}))
    assert held.of(auto).sync(pods(2))[1] == ()


def test_slices_of_a_service_of_the_same_name_before_it_are_deleted() -> None:
    """The uid tells the old Service from the new one: its slices are not used."""
    owned = service()
    first = replace(owned, metadata=replace(owned.metadata, uid="one"))
    held = at_work(first, *pods(2))
    held, writes = held.of(replace(owned, metadata=replace(owned.metadata, uid="two"))).sync(pods(2))
    assert [write.deed for write in writes] == [Deed.CREATE, Deed.DELETE]
    assert held.sizes == (2,)


def test_a_service_that_is_being_deleted_gets_no_new_slice() -> None:
    """Its slices go with it; a new one would stay behind."""
    leaving = service()
    held = Slices(
        replace(leaving, metadata=replace(leaving.metadata, deletion_timestamp="2026-01-01T00:00:00Z")), NODES
    )
    assert held.sync(pods(2))[1] == ()


def test_the_time_of_the_change_is_that_of_the_last_write() -> None:
    """A write says when its cause happened; one without a known cause says nothing."""
    held, _ = Slices(service(), NODES).sync(pods(1), at="2026-01-01T00:00:00Z")
    assert held.pieces[0].annotations == {TRIGGER_TIME: "2026-01-01T00:00:00Z"}
    held, _ = held.sync(pods(2))
    assert held.pieces[0].annotations == {}


def test_of_ten_thousand_pods_one_is_read_again() -> None:
    """A hundred slices at first, and then one write for one pod: what was read of the others is kept."""
    everybody = pods(10_000)
    held, writes = Slices(service(), NODES).sync(everybody)
    assert (len(writes), set(held.sizes)) == (100, {100})
    everybody = (*everybody[:5_000], pod("web-5000", everybody[5_000].ip, ready=False), *everybody[5_001:])
    after, writes = held.sync(everybody)
    again = [key for key, reading in after.readings.items() if held.readings.get(key) is not reading]
    assert (len(writes), len(again)) == (1, 1)
    assert sum(new is not old for new, old in zip(after.pieces, held.pieces, strict=True)) == 1


# Whatever happens


def moved(there: dict[str, api.Pod], rng: random.Random) -> dict[str, api.Pod]:
    """The pods after a few have come, gone, or changed: readiness, port number, deletion."""
    found = {name: each for name, each in there.items() if rng.random() > 0.2}
    for _ in range(rng.randrange(12)):
        number = rng.randrange(60)
        ports = [{"name": "http", "containerPort": rng.choice((8080, 8080, 9090))}] if rng.random() < 0.9 else []
        ips = (f"10.0.0.{number + 1}", f"fd00::{number + 1:x}")[: rng.choice((1, 2, 2))]
        leaving = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if rng.random() < 0.2 else {}
        found[f"web-{number}"] = pod(
            f"web-{number}", *ips, ready=rng.random() < 0.8, metadata=leaving,
            spec={"containers": [{"name": "c", "ports": ports}]},
        )  # fmt: skip
    return found


@pytest.mark.parametrize("seed", range(8))
def test_slices_always_say_what_there_is_and_writes_say_how(seed: int) -> None:
    """After any history every endpoint stands in one slice as a fresh controller would write it, no slice is too
    full, and who carries out the writes has the same slices."""
    rng = random.Random(seed)
    both = service(
        ipFamilies=["IPv4", "IPv6"], ipFamilyPolicy="RequireDualStack", ports=[{"port": 80, "targetPort": "http"}]
    )
    held, there, stored = Slices(both, NODES, most=7), dict[str, api.Pod](), dict[str, api.EndpointSlice]()
    for _ in range(40):
        there = moved(there, rng)
        held, writes = held.sync(there.values())
        assert said(held) == said(Slices(both, NODES, most=7).sync(there.values())[0])
        assert max(held.sizes) <= 7
        for write in writes:
            assert (write.object.name in stored) is (write.deed is not Deed.CREATE)
            stored[write.object.name] = write.object
            if write.deed is Deed.DELETE:
                del stored[write.object.name]
        assert stored == {each.name: each for each in held.pieces}
        assert held.sync(there.values())[1] == ()


def said(held: Slices) -> list[tuple[object, ...]]:
    """Every endpoint with its family and ports, sorted; and the families that have none."""
    found = [(each.address_type, each.ports, end) for each in held.pieces for end in each.endpoints]
    return sorted(found, key=str)
