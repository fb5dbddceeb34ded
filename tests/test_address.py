from __future__ import annotations

import ipaddress

import pytest

from k8snetlab.address import (
    AddressPlan,
    Prefix,
    Range,
    canonical,
    family,
    hosts,
    is_canonical,
    number,
    special,
    text,
)
from k8snetlab.errors import BadOption


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("10.0.0.1", "10.0.0.1"), ("FD00:0:0::1", "fd00::1"), ("fd00:0:0:1::1", "fd00:0:0:1::1"), ("::", "::"),
        ("fd00:010::1", "fd00:10::1"), ("fd00::1:2:3:4:5:6", "fd00:0:1:2:3:4:5:6"), ("fd00:0:1::2", "fd00:0:1::2"),
    ],
)  # fmt: skip
def test_an_address_is_written_in_one_way(written: str, read: str) -> None:
    """RFC 5952: small letters, the longest run of zeros as ::."""
    assert canonical(written) == read


@pytest.mark.parametrize("wrong", ["", "10.0.0", "10.0.0.256", "010.0.0.1", "10.0.0.0/8", "web", "1:2"])
def test_what_is_no_address_is_refused_with_its_place(wrong: str) -> None:
    """The error names the object and the field that it was told."""
    with pytest.raises(BadOption) as error:
        canonical(wrong, field="status.podIP", object="Pod shop/web-0")
    assert (error.value.problems[0].object, error.value.problems[0].field) == ("Pod shop/web-0", "status.podIP")


@pytest.mark.parametrize("groups", [1, 2, 3, 5, 6, 7])
def test_what_is_taken_for_canonical_at_a_glance_is(groups: int) -> None:
    """The shortcut for texts that need no parsing never takes one that would be written otherwise."""
    for before in range(groups + 1):
        for each in ("1", "fd00", "0", "0a"):
            written = ":".join(["1"] * before) + "::" + ":".join([each] + ["b"] * (groups - before - 1))
            assert not is_canonical(written) or canonical(written) == str(ipaddress.ip_address(written)) == written


def test_an_address_is_a_number_and_back() -> None:
    """Arithmetic is done on integers, in both families."""
    assert number("10.0.0.1") == 167772161 and text(167772161, 4) == "10.0.0.1"
    assert text(number("fd00::1") + 1, 6) == "fd00::2"
    assert (family("10.0.0.1"), family("fd00::1")) == (4, 6)


def test_a_block_holds_the_addresses_of_its_family_only() -> None:
    """::/0 holds every IPv6 address and no IPv4 address."""
    assert Prefix.of("0.0.0.0/0").contains("8.8.8.8") and not Prefix.of("0.0.0.0/0").contains("fd00::1")
    assert Prefix.of("::/0").contains("fd00::1") and not Prefix.of("::/0").contains("8.8.8.8")


def test_a_block_knows_its_ends() -> None:
    """Size, first and last address, and any address between."""
    block = Prefix.of("10.244.1.0/24")
    assert (block.size, block.network, block.broadcast, block.address(7)) == (
        256,
        "10.244.1.0",
        "10.244.1.255",
        "10.244.1.7",
    )


def test_host_bits_are_dropped_or_refused() -> None:
    """172.18.0.11/16 names its network, unless the caller is strict."""
    assert str(Prefix.of("172.18.0.11/16")) == "172.18.0.0/16"
    with pytest.raises(BadOption, match=r"pod_cidr: 172.18.0.11/16 has host bits set"):
        Prefix.of("172.18.0.11/16", strict=True, field="pod_cidr")


@pytest.mark.parametrize("wrong", ["10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/x", "x/8", ""])
def test_what_is_no_block_is_refused(wrong: str) -> None:
    """The message says what was read."""
    with pytest.raises(BadOption):
        Prefix.of(wrong)


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("10.0.0.0/8", "10.244.0.0/16", True),
        ("10.244.0.0/16", "10.0.0.0/8", True),
        ("10.244.0.0/24", "10.244.1.0/24", False),
        ("10.0.0.0/8", "::/0", False),
    ],
)
def test_two_blocks_overlap_when_one_covers_the_other(one: str, other: str, overlap: bool) -> None:
    """CIDR blocks never overlap in part."""
    assert Prefix.of(one).overlaps(Prefix.of(other)) is overlap


def test_a_block_is_cut_into_equal_ones() -> None:
    """As the controller manager cuts the pod network, one /24 a node."""
    assert [str(each) for each in Prefix.of("10.244.0.0/22").subnets(24)] == [
        "10.244.0.0/24",
        "10.244.1.0/24",
        "10.244.2.0/24",
        "10.244.3.0/24",
    ]


@pytest.mark.parametrize(
    ("block", "first", "last"),
    [
        ("10.244.1.0/24", "10.244.1.1", "10.244.1.254"),
        ("10.0.0.0/31", "10.0.0.0", "10.0.0.1"),
        ("10.0.0.5/32", "10.0.0.5", "10.0.0.5"),
        ("fd00::/64", "fd00::1", "fd00::ffff:ffff:ffff:ffff"),
    ],
)
def test_hosts_are_the_addresses_somebody_may_have(block: str, first: str, last: str) -> None:
    """Not network and broadcast in IPv4 (RFC 919), except in a /31 (RFC 3021); not the routers' anycast in IPv6."""
    found = hosts(Prefix.of(block))
    of = Prefix.of(block).family
    assert (text(found[0], of), text(found[-1], of)) == (first, last)


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("127.0.0.53", "machine itself"),
        ("::1", "machine itself"),
        ("169.254.1.1", "link-local"),
        ("fe80::1", "link-local"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("0.0.0.0", "no address"),
        ("255.255.255.255", "broadcast"),
        ("10.0.0.1", ""),
        ("fd00::1", ""),
    ],
)
def test_some_addresses_mean_the_same_everywhere(address: str, word: str) -> None:
    """Loopback, link-local, multicast and broadcast are nobody's (RFC 6890)."""
    assert word in special(address)
    assert bool(special(address)) is bool(word)


PLAN = AddressPlan(
    (
        Range("underlay", "underlay", Prefix.of("172.18.0.0/16")),
        Range("pods", "pods", Prefix.of("10.244.0.0/16")),
        Range("pods of node-1", "node pods", Prefix.of("10.244.0.0/24")),
        Range("Services", "services", Prefix.of("10.96.0.0/12")),
    ),
    {"10.244.0.2": "pod shop/web-0"},
)


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        (
            "10.244.0.2",
            "10.244.0.2 is pod shop/web-0, in pods of node-1 (10.244.0.0/24), in pods (10.244.0.0/16)",
        ),
        ("10.244.9.9", "10.244.9.9 belongs to nobody yet; it is in pods (10.244.0.0/16)"),
        ("8.8.8.8", "8.8.8.8 is in no network of this cluster: it is somewhere outside"),
        ("127.0.0.1", "127.0.0.1 is nobody's: it means the machine itself, on every machine"),
    ],
)
def test_a_plan_says_whose_an_address_is(address: str, sentence: str) -> None:
    """Its owner, and the networks it lies in, the narrowest first."""
    assert PLAN.whose(address) == sentence


def test_nobody_can_have_the_ends_of_a_network() -> None:
    """The broadcast address of a node's pods is in its network and yet free for no pod."""
    assert PLAN.whose("10.244.0.255").startswith("10.244.0.255 can be nobody's")


def test_a_plan_is_asked_about_addresses_only() -> None:
    """A name is no address."""
    with pytest.raises(BadOption, match="address: 'web'"):
        PLAN.whose("web")


def test_networks_that_nest_on_purpose_do_not_overlap() -> None:
    """A node's pods are in the cluster's pods; that is no mistake."""
    assert PLAN.overlaps == ()


@pytest.mark.parametrize(("kind", "count"), [("services", 2), ("node pods", 1), ("underlay", 2)])
def test_networks_that_share_addresses_are_told(kind: str, count: int) -> None:
    """A second network inside the pods' is one overlap with them and one with the node's range, unless it nests."""
    wider = AddressPlan((*PLAN.ranges, Range("new", kind, Prefix.of("10.244.0.0/25"))))
    assert len(wider.overlaps) == count
    assert "OVERLAP: " in str(wider)


def test_a_plan_prints_as_a_table() -> None:
    """One line a network: what it is for, its block, how many addresses."""
    assert str(PLAN).splitlines()[2] == "pods of node-1  10.244.0.0/24  256 addresses"


def test_a_prefix_prints_as_it_is_written() -> None:
    """`repr` can be pasted back."""
    assert repr(Prefix.of("10.0.0.0/8")) == "Prefix.of('10.0.0.0/8')"
