"""Names, and how large answers are."""

from __future__ import annotations

import pytest

from k8snetlab.dns import Message, Record, absolute, fitted, length, reverse_name
from k8snetlab.dns.messages import address_of, chain
from k8snetlab.errors import BadOption


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("a..b", "empty label"),
        (".a", "empty label"),
        ("a" * 64, "64 characters, 63 may be"),
        (".".join(["a" * 63] * 4), "255 characters, 253 may be"),
        ("bücher.example", "not ASCII"),
        ("a b", "not ASCII text"),
    ],
)
def test_what_is_no_name_is_refused(name: str, why: str) -> None:
    """The message says which part of it is wrong."""
    with pytest.raises(BadOption, match=why):
        absolute(name)


@pytest.mark.parametrize("address", ["10.96.0.10", "fd00:10:244::2"])
def test_a_reverse_name_leads_back(address: str) -> None:
    """Of both families."""
    assert address_of(reverse_name(address)) == address


@pytest.mark.parametrize("name", ["1.2.3.in-addr.arpa.", "x.2.3.4.in-addr.arpa.", "300.2.3.4.in-addr.arpa.", "a."])
def test_other_names_mean_no_address(name: str) -> None:
    """Too short, no number, too large, elsewhere."""
    assert address_of(name) == ""


def many(count: int) -> Message:
    """So many addresses of one name."""
    return Message(answers=tuple(Record("db.town.svc.cluster.local.", "A", 30, f"10.0.0.{at}") for at in range(count)))


def test_a_small_answer_is_sent_as_it_is() -> None:
    """Ten addresses fit into 512 bytes without compression."""
    assert length("db.town.svc.cluster.local.", many(10)) == 12 + 27 + 4 + 10 * (27 + 14)
    assert fitted("db.town.svc.cluster.local.", many(10), 512) == many(10)


def test_an_answer_that_is_too_large_is_cut_and_says_so() -> None:
    """Compressed, an address takes 16 bytes: 29 fit behind a head of 43."""
    cut = fitted("db.town.svc.cluster.local.", many(100), 512)
    assert (cut.truncated, len(cut.answers)) == (True, (512 - 43) // 16)
    assert fitted("db.town.svc.cluster.local.", many(29), 512) == many(29)


def test_an_answer_is_what_the_name_leads_to() -> None:
    """Behind CNAMEs; records of other names are not taken."""
    records = (
        Record("a.", "CNAME", 5, "B."),
        Record("b.", "A", 5, "10.0.0.1"),
        Record("other.", "A", 5, "10.0.0.2"),
    )
    assert chain("A.", records) == records[:2]
