"""The ring of addresses: halves, the lowest first, and what happens when nothing is left."""

from __future__ import annotations

import pytest

from k8snetlab.address import Prefix
from k8snetlab.cni.ring import addresses, bridges, shares
from k8snetlab.errors import AddressInUse, PoolExhausted

POOL = Prefix.of("10.32.0.0/12")


@pytest.mark.parametrize(
    ("machines", "expected"),
    [
        ("a", ["10.32.0.0/12"]),
        ("ab", ["10.32.0.0/13", "10.40.0.0/13"]),
        ("abc", ["10.32.0.0/13", "10.40.0.0/14", "10.44.0.0/14"]),
        ("abcd", ["10.32.0.0/14", "10.36.0.0/14", "10.40.0.0/14", "10.44.0.0/14"]),
        ("abcde", ["10.32.0.0/14", "10.36.0.0/14", "10.40.0.0/14", "10.44.0.0/15", "10.46.0.0/15"]),
    ],
)
def test_the_pool_is_halved_until_each_machine_has_a_share(machines: str, expected: list[str]) -> None:
    """The lower half for the first half of the machines; three of them are what is seen on real clusters."""
    assert [str(share) for share in shares(POOL, machines).values()] == expected


def test_only_the_first_address_of_the_whole_network_is_left_out() -> None:
    """10.40.0.0 is an address like any other, and it is the bridge's."""
    assert bridges(POOL, "abc") == {"a": "10.32.0.1", "b": "10.40.0.0", "c": "10.44.0.0"}


def test_pods_get_the_lowest_addresses_after_the_bridge() -> None:
    """In the order they start; those that have one keep it."""
    pods = {"a": ["x", "y", "z"], "b": ["v", "w"]}
    assert addresses(POOL, "ab", pods, {"y": "10.32.0.2"}) == {
        "x": "10.32.0.3", "y": "10.32.0.2", "z": "10.32.0.4", "v": "10.40.0.1", "w": "10.40.0.2",
    }  # fmt: skip


def test_a_machine_without_addresses_is_given_some_of_another_share() -> None:
    """A /28 for two machines: 6 addresses for pods of the first, then out of the upper half of the second's share."""
    found = addresses(Prefix.of("10.32.0.0/28"), "ab", {"a": [f"pod{at}" for at in range(8)]}, {})
    assert list(found.values())[5:] == ["10.32.0.7", "10.32.0.11", "10.32.0.12"]


def test_an_exhausted_ring_says_how_many_addresses_there_were() -> None:
    """16, without the first and the last, and without two bridges: 12 pods."""
    pods = {"a": [f"pod{at}" for at in range(12)]}
    assert len(addresses(Prefix.of("10.32.0.0/28"), "ab", pods, {})) == 12
    with pytest.raises(PoolExhausted) as refused:
        addresses(Prefix.of("10.32.0.0/28"), "ab", {"a": [*pods["a"], "late"]}, {})
    assert (refused.value.pool, refused.value.size) == ("10.32.0.0/28", 12)
    assert "Pod late" in str(refused.value)


def test_more_machines_than_addresses_cannot_share() -> None:
    """Each needs one for its bridge."""
    with pytest.raises(PoolExhausted, match="Node"):
        bridges(Prefix.of("10.32.0.0/30"), "abcde")


def test_a_pod_cannot_keep_the_address_of_a_bridge() -> None:
    """The error names both."""
    with pytest.raises(AddressInUse, match="bridge of Node b"):
        addresses(POOL, "ab", {"a": ["x"]}, {"x": "10.40.0.0"})
