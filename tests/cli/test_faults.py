"""`--fault`: the same questions to a cluster in which something goes wrong."""

from __future__ import annotations

import pytest

from .conftest import Run


def test_a_fault_is_one_more_choice(shop: Run) -> None:
    """The packet is lost, status is 1, and what people say of it is a note beside the answer."""
    words = ("trace", "--from", "shop/web-1", "--to", "shop/web-2:8080")
    assert shop(*words).exit_code == 0
    result = shop(*words, "--fault", "fdb-missing@node-1")
    assert result.exit_code == 1 and "TIMEOUT" in result.stdout
    assert "fdb-missing: Pods of two nodes do not hear each other" in result.stderr


def test_a_fault_is_a_change_to_look_at(shop: Run) -> None:
    """`diff --change fault=NAME` says what is gone; `show` shows the machine without it."""
    result = shop("diff", "--change", "fault=route-missing@node-1")
    assert result.exit_code == 1 and "10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink" in result.stdout
    assert "via 10.244.1.0" not in shop("show", "routes", "--node", "node-1", "--fault", "route-missing").stdout


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("fdb-mising", "fault: there is no fault 'fdb-mising'; did you mean fdb-missing"),
        ("proxy-arp-off", "fault proxy-arp-off: no node answers ARP for others: CNI flannel"),
        ("fdb-missing@node-9", "there is no machine 'node-9'"),
        ("fdb-missing@", "--fault: 'fdb-missing@' names no machine after the @"),
    ],
)
def test_what_cannot_be_broken_is_wrong_input(shop: Run, word: str, said: str) -> None:
    """Status 2, and a line that says why."""
    result = shop("show", "routes", "--fault", word)
    assert result.exit_code == 2 and said in result.stderr and not result.stdout
