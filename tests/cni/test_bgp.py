"""BGP: who hears what from whom, what is refused, and which path is the best."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest

from k8snetlab.cni.bgp import Path, Rib, Session, Speaker, Table
from k8snetlab.errors import UnknownName


def speaker(number: int, asn: int = 64512, cluster: str = "") -> Speaker:
    """`nN` with 172.18.0.N and the network 10.244.N.0/26."""
    return Speaker(f"n{number}", f"172.18.0.{number}", asn, (f"10.244.{number}.0/26",), cluster)


def mesh(*speakers: Speaker) -> Table:
    """Everybody talks to everybody."""
    return Table(speakers, [Session(one.name, other.name) for one, other in combinations(speakers, 2)])


def line(*speakers: Speaker) -> Table:
    """Everybody talks to the one before and the one after."""
    return Table(speakers, [Session(a.name, b.name) for a, b in pairwise(speakers)])


def heard(table: Table, name: str) -> list[str]:
    """The networks that a speaker has routes to."""
    return list(table.rib(name).best)


def test_in_a_mesh_everybody_hears_of_everybody() -> None:
    """From the one whose network it is, with that one as the next hop."""
    rib = mesh(speaker(1), speaker(2), speaker(3)).rib("n1")
    assert [(path.network, path.peer, path.next_hop) for path in rib.paths if path.peer] == [
        ("10.244.2.0/26", "n2", "172.18.0.2"),
        ("10.244.3.0/26", "n3", "172.18.0.3"),
    ]


def test_within_an_autonomous_system_nothing_is_passed_on() -> None:
    """In a line the ends do not hear of each other."""
    assert heard(line(speaker(1), speaker(2), speaker(3)), "n1") == ["10.244.1.0/26", "10.244.2.0/26"]


def test_between_autonomous_systems_everything_is_passed_on() -> None:
    """With the numbers of the systems in the path, and the next hop that said it."""
    rib = line(speaker(1, 1), speaker(2, 2), speaker(3, 3)).rib("n1")
    assert (rib.best["10.244.3.0/26"].as_path, rib.best["10.244.3.0/26"].next_hop) == ((2, 3), "172.18.0.2")


def test_a_path_with_the_own_number_in_it_is_refused() -> None:
    """It has been here before, or in another part of the same system, which cannot be told apart."""
    rib = line(speaker(1, 1), speaker(2, 2), speaker(3, 1)).rib("n1")
    assert "10.244.3.0/26" not in rib.best
    assert [path.refused for path in rib.paths if path.refused] == ["the own AS 1 is in the path"]


def test_a_reflector_passes_on_for_its_clients() -> None:
    """From clients to all, to clients from all; the next hop stays."""
    table = Table(
        [speaker(1, cluster="1.1.1.1"), speaker(2), speaker(3), speaker(4)],
        [Session("n1", "n2", client="n2"), Session("n1", "n3", client="n3"), Session("n1", "n4")],
    )
    assert len(heard(table, "n2")) == len(heard(table, "n3")) == len(heard(table, "n4")) == 4
    assert table.rib("n2").best["10.244.4.0/26"].next_hop == "172.18.0.4"


def test_a_reflector_passes_nothing_between_those_that_are_no_clients() -> None:
    """They must have a session of their own."""
    table = Table([speaker(1, cluster="1.1.1.1"), speaker(2), speaker(3)], [Session("n1", "n2"), Session("n1", "n3")])
    assert heard(table, "n2") == ["10.244.1.0/26", "10.244.2.0/26"]


def test_two_reflectors_of_a_cluster_hear_each_other_s_echo() -> None:
    """They tell each other of their clients, who are clients of both; each client hears everything twice."""
    reflectors = [speaker(1, cluster="1.1.1.1"), speaker(2, cluster="1.1.1.1")]
    clients = [speaker(3), speaker(4)]
    sessions = [Session(r.name, c.name, client=c.name) for r in reflectors for c in clients]
    table = Table([*reflectors, *clients], [Session("n1", "n2"), *sessions])
    echoes = [path for path in table.rib("n1").paths if path.clusters]
    assert {(path.peer, path.network, path.refused) for path in echoes} == {
        ("n2", "10.244.3.0/26", ""), ("n2", "10.244.4.0/26", ""),
    }  # fmt: skip
    assert table.rib("n1").best["10.244.4.0/26"].peer == "n4"
    assert [path.peer for path in table.rib("n3").paths if path.network == "10.244.4.0/26"] == ["n1", "n2"]
    assert table.rib("n3").best["10.244.4.0/26"].peer == "n1"


def test_a_reflector_refuses_its_own_cluster_from_a_client() -> None:
    """A client that is a reflector of the same cluster says what has been here before."""
    speakers = [speaker(1, cluster="1.1.1.1"), speaker(2, cluster="1.1.1.1"), speaker(3)]
    table = Table(speakers, [Session("n1", "n2", client="n2"), Session("n2", "n3", client="n3")])
    assert {path.refused for path in table.rib("n1").paths} == {"", "the own cluster 1.1.1.1 is in the path"}


def test_a_session_less_is_what_it_brought_less() -> None:
    """The others stay."""
    speakers = [speaker(1), speaker(2), speaker(3)]
    assert heard(Table(speakers, [Session("n1", "n2"), Session("n2", "n3")]), "n1") == [
        "10.244.1.0/26",
        "10.244.2.0/26",
    ]


NETWORK = "10.244.9.0/26"
NEAR = Path(NETWORK, "172.18.0.2", "n2", (7,), external=True)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (Path(NETWORK, "172.18.0.3", "n3", (7, 8), external=True), "a longer AS path"),
        (Path(NETWORK, "172.18.0.3", "n3", (7,)), "heard within the system"),
        (Path(NETWORK, "172.18.0.3", "n3", (7,), external=True), "a higher address"),
        (Path(NETWORK, "172.18.0.1", "n1", (), local_pref=50), "a lower preference"),
        (Path(NETWORK, "172.18.0.1", "n1", (), refused="no"), "refused"),
    ],
)
def test_the_best_path_wins_whatever_the_order(other: Path, why: str) -> None:
    """Preference, length of the AS path, eBGP before iBGP, lowest identifier."""
    addresses = {f"n{number}": f"172.18.0.{number}" for number in (1, 2, 3)}
    for paths in ((NEAR, other), (other, NEAR)):
        assert Rib(speaker(5), paths, addresses).best[NETWORK] == NEAR, why


def test_a_rib_prints_the_best_path_of_each_network_with_a_star() -> None:
    """And why a path is refused."""
    table = line(speaker(1, 1), speaker(2, 2), speaker(3, 1))
    assert str(table.rib("n1")).splitlines() == [
        "* 10.244.1.0/26        blackhole [own]",
        "* 10.244.2.0/26        via 172.18.0.2 [from n2] (100) [AS2i] as-path 2",
        "  10.244.3.0/26        via 172.18.0.2 [from n2] (100) [AS1i] as-path 2 1 refused: the own AS 1 is in the path",
    ]


def test_an_unknown_speaker_is_named_with_those_that_exist() -> None:
    """And its peers are those it has sessions with."""
    table = mesh(speaker(1), speaker(2))
    assert table.peers("n1") == ("n2",)
    with pytest.raises(UnknownName, match="there is no BGP speaker 'n7'"):
        table.rib("n7")
