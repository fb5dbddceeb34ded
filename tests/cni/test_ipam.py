"""Addresses are given as host-local gives them."""

from __future__ import annotations

import pytest

from k8snetlab.address import Prefix
from k8snetlab.cni.ipam import assigned, block_of, gateway, next_free
from k8snetlab.errors import AddressInUse, BadOption, PoolExhausted

BLOCK = Prefix.of("10.244.1.0/24")


def test_pods_get_the_addresses_after_the_gateway_in_turn() -> None:
    """The node holds .1, so the first pod has .2."""
    assert gateway(BLOCK) == "10.244.1.1"
    assert assigned(BLOCK, ["a", "b", "c"]) == {"a": "10.244.1.2", "b": "10.244.1.3", "c": "10.244.1.4"}


def test_ipv6_pods_are_counted_the_same_way() -> None:
    """The first address is the gateway in both families."""
    assert assigned(Prefix.of("fd00:10:244:1::/64"), ["a", "b"]) == {
        "a": "fd00:10:244:1::2",
        "b": "fd00:10:244:1::3",
    }


def test_kept_addresses_stay_and_are_not_given_twice() -> None:
    """What a dump says holds; the others go round it."""
    found = assigned(BLOCK, ["a", "b", "c"], {"b": "10.244.1.2", "gone": "10.244.1.3"})
    assert found == {"a": "10.244.1.4", "b": "10.244.1.2", "c": "10.244.1.5"}


def test_two_pods_that_keep_one_address_are_an_error() -> None:
    """An address means one thing only."""
    with pytest.raises(AddressInUse) as caught:
        assigned(BLOCK, ["a", "b"], {"a": "10.244.1.9", "b": "10.244.1.9"})
    assert caught.value.address == "10.244.1.9"
    assert caught.value.owners == ("Pod a", "Pod b")


def test_an_address_given_back_is_used_again_only_after_a_whole_turn() -> None:
    """Packets still on their way to the old pod must not reach a new one."""
    assert next_free(BLOCK, {"10.244.1.3"}, "c", last="10.244.1.3") == "10.244.1.4"
    assert next_free(BLOCK, {"10.244.1.254"}, "d", last="10.244.1.254") == "10.244.1.2"


def test_a_small_range_runs_out() -> None:
    """A /29 has six addresses for hosts; one is the gateway's."""
    small = Prefix.of("10.244.1.0/29")
    assert len(assigned(small, "abcde")) == 5
    with pytest.raises(PoolExhausted, match=r"Pod f: no address is left in 10.244.1.0/29: all 5 are in use"):
        assigned(small, "abcdef")


def test_an_address_of_another_node_cannot_come_from_host_local() -> None:
    """The error names the pod, the field and the range."""
    with pytest.raises(BadOption, match=r"Pod shop/web-0: status.podIP: 10.244.7.2 is in no pod CIDR .*10.244.1.0/24"):
        block_of([BLOCK], "10.244.7.2", "shop/web-0")
