"""Calico's IPAM: blocks that nodes claim, addresses that they borrow, and what happens when there are none left."""

from __future__ import annotations

import pytest

from k8snetlab.address import Prefix
from k8snetlab.cni.blocks import Allocation, Wish, allocated
from k8snetlab.errors import BadOption, PoolExhausted

POOL = Prefix.of("10.244.0.0/24")
"""Four blocks of 64."""


def pods(count: int, prefix: str = "pod") -> tuple[str, ...]:
    """So many names."""
    return tuple(f"{prefix}-{number}" for number in range(count))


def blocks(found: Allocation, node: str) -> list[str]:
    """The blocks of a node, as text."""
    return [str(block) for block in found.of(node)]


def test_a_block_is_given_from_its_first_address_to_its_last() -> None:
    """There is no network and no broadcast address."""
    found = allocated(POOL, [Wish("a", pods=pods(64))])
    assert (found.addresses["pod-0"], found.addresses["pod-63"]) == ("10.244.0.0", "10.244.0.63")
    assert blocks(found, "a") == ["10.244.0.0/26"]


def test_the_end_of_a_tunnel_takes_the_first_address() -> None:
    """Before any pod does."""
    found = allocated(POOL, [Wish("a", tunnel=True, pods=pods(1))])
    assert (found.tunnels["a"], found.addresses["pod-0"]) == ("10.244.0.0", "10.244.0.1")


def test_a_node_without_pods_and_tunnel_claims_nothing() -> None:
    """With plain BGP an empty node has nothing to tell."""
    assert not allocated(POOL, [Wish("a", Prefix.of("10.244.0.0/26"))]).affinity


def test_a_full_node_claims_the_next_block() -> None:
    """The one after its own, if nobody begins there; else any that is free."""
    near = allocated(POOL, [Wish("a", POOL, pods=pods(65))])
    assert blocks(near, "a") == ["10.244.0.0/26", "10.244.0.64/26"]
    beside = Wish("b", Prefix.of("10.244.0.64/26"), pods=pods(1, "other"))
    assert blocks(allocated(POOL, [Wish("a", POOL, pods=pods(65)), beside]), "a") == [
        "10.244.0.0/26",
        "10.244.0.128/26",
    ]


def test_a_node_borrows_when_no_block_is_free() -> None:
    """Its blocks and each borrowed address are what it tells the others."""
    found = allocated(POOL, [Wish("a", pods=pods(193)), Wish("b", Prefix.of("10.244.0.64/26"), pods=pods(1, "other"))])
    assert len(found.of("a")) == 3 and blocks(found, "b") == ["10.244.0.64/26"]
    assert found.borrowed("a") == ("10.244.0.64",)
    assert str(found.networks("a")[-1]) == "10.244.0.64/32"
    assert found.addresses["other-0"] == "10.244.0.65"


def test_with_strict_affinity_nobody_borrows() -> None:
    """The error says how much the node has."""
    wishes = [Wish("a", pods=pods(193)), Wish("b", Prefix.of("10.244.0.64/26"), pods=pods(1, "other"))]
    with pytest.raises(
        PoolExhausted, match=r"Pod pod-192: no address is left in the 3 blocks of a .*: all 192 are in use"
    ):
        allocated(POOL, wishes, strict=True)


def test_an_empty_pool_is_an_error_with_numbers() -> None:
    """All addresses of all blocks are taken."""
    with pytest.raises(
        PoolExhausted, match=r"Pod pod-256: no address is left in 10.244.0.0/24, in 4 blocks of /26: all 256"
    ):
        allocated(POOL, [Wish("a", pods=pods(257))])


def test_what_was_given_stays_when_it_is_kept() -> None:
    """The same nodes, pods and addresses give the same blocks, tunnels and loans again."""
    wishes = [
        Wish("a", POOL, tunnel=True, pods=pods(200)),
        Wish("b", Prefix.of("10.244.0.64/26"), tunnel=True, pods=pods(9, "other")),
    ]
    once = allocated(POOL, wishes)
    again = allocated(
        POOL,
        [Wish(w.node, w.begins, w.tunnel, "", w.pods, {pod: once.addresses[pod] for pod in w.pods}) for w in wishes],
    )
    assert (again.affinity, again.addresses, again.tunnels) == (once.affinity, once.addresses, once.tunnels)
    assert again.borrowed("a") == once.borrowed("a") != ()


def test_pods_of_a_dump_show_whose_a_block_is() -> None:
    """A real Calico does not follow the pod CIDR."""
    found = allocated(POOL, [Wish("a", Prefix.of("10.244.0.0/26"), True, "", ("web",), {"web": "10.244.0.133"})])
    assert blocks(found, "a") == ["10.244.0.128/26"]
    assert found.tunnels["a"] == "10.244.0.128"


def test_an_address_of_no_pool_was_given_by_another_plugin() -> None:
    """It cannot be kept."""
    with pytest.raises(
        BadOption, match=r"Pod web: status.podIP: 192.0.2.1 is in no pool of the cluster \(10.244.0.0/24\)"
    ):
        allocated(POOL, [Wish("a", pods=("web",), kept={"web": "192.0.2.1"})])


def test_blocks_of_ipv6_have_64_addresses_as_well() -> None:
    """/122."""
    found = allocated(Prefix.of("fd00:10:244::/56"), [Wish("a", Prefix.of("fd00:10:244:1::/64"), pods=pods(65))])
    assert blocks(found, "a") == ["fd00:10:244:1::/122", "fd00:10:244:1::40/122"]


def test_a_block_may_have_another_size_but_must_fit_the_pool() -> None:
    """Four addresses a block here."""
    assert len(allocated(POOL, [Wish("a", pods=pods(9))], 30).of("a")) == 3
    with pytest.raises(BadOption, match="a block of /20 is larger than the pool"):
        allocated(POOL, [Wish("a", pods=pods(1))], 20)
