"""Who hears of whom, and which way frames go."""

from __future__ import annotations

import pytest

from k8snetlab.cni.gossip import heard, links, mesh, next_hops
from k8snetlab.errors import BadOption

CHAIN = mesh("abcd", [("a", "c"), ("a", "d"), ("b", "d")])
"""a – b – c – d: each is connected with the next only."""


def test_all_are_neighbours_while_every_connection_is_up() -> None:
    """One hop to everybody."""
    assert next_hops(mesh("abc"), "b") == {"a": "a", "c": "c"}


def test_a_lost_connection_leads_by_a_third() -> None:
    """The shortest way, by the one that joined first."""
    assert next_hops(mesh("abcd", [("a", "d")]), "a") == {"b": "b", "c": "c", "d": "b"}


def test_the_way_may_have_several_hops() -> None:
    """The next one is all a machine must know."""
    assert [next_hops(CHAIN, name) for name in "abcd"] == [
        {"b": "b", "c": "b", "d": "b"},
        {"a": "a", "c": "c", "d": "c"},
        {"a": "b", "b": "b", "d": "d"},
        {"a": "c", "b": "c", "c": "c"},
    ]


def test_machines_without_any_way_are_not_reached() -> None:
    """The mesh has fallen apart."""
    apart = mesh("abc", [("a", "c"), ("b", "c")])
    assert (next_hops(apart, "a"), next_hops(apart, "c")) == ({"b": "b"}, {})


def test_news_go_one_hop_a_round() -> None:
    """Along a chain of four, the last one hears of the first connection after two rounds."""
    rounds = heard(CHAIN)
    first = frozenset("ab")
    assert [first in known["d"] for known in rounds] == [False, False, True]
    assert len(set(rounds[-1].values())) == 1


@pytest.mark.parametrize("of", [mesh("abcd"), CHAIN, mesh("abc", [("a", "c"), ("b", "c")])])
def test_each_machine_reaches_those_it_heard_of(of: object) -> None:
    """The ways follow from what gossip told, and from nothing else."""
    assert isinstance(of, type(CHAIN))
    for name, known in heard(of)[-1].items():
        assert {other for pair in known for other in pair} - {name} == set(next_hops(of, name))


@pytest.mark.parametrize("words", ["node-1", "node-1:", ":node-2", "a:a", "a:b,c"])
def test_a_connection_is_a_pair_of_nodes(words: str) -> None:
    """Anything else is refused with an example."""
    with pytest.raises(BadOption, match="node-1:node-2"):
        links(words)


def test_an_unknown_node_has_no_connections() -> None:
    """The error names those there are."""
    with pytest.raises(BadOption, match="no node x; there are a, b"):
        mesh("ab", [("a", "x")])
