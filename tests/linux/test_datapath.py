"""What programs look up that deliver by identity."""

from __future__ import annotations

import pytest

from k8snetlab.errors import UnknownName
from k8snetlab.linux.datapath import (
    Datapath,
    Direction,
    Endpoint,
    Known,
    Permit,
    Reason,
    bpf_endpoint_list,
    bpf_ipcache_list,
    bpf_policy_list,
)
from k8snetlab.linux.ebpf import Attachment, Program
from k8snetlab.linux.host import Host
from k8snetlab.linux.text import entry_line

FROM = Attachment(Program.FROM_CONTAINER, "lxc1")
OWN = Endpoint("10.0.0.2", 7, 300, "lxc1", 5, "0a:00:00:00:00:02", "0a:00:00:00:00:01")
SIX = Endpoint("fd00::2", 7, 300, "lxc1", 5)
ITSELF = Endpoint("10.0.0.1")
WORLD, THERE, ONE = Known("0.0.0.0/0", 2), Known("10.1.0.0/24", 2, "192.0.2.2"), Known("10.1.0.9/32", 301, "192.0.2.2")
IN, OUT = Direction.INGRESS, Direction.EGRESS


def datapath(*permits: Permit) -> Datapath:
    """A machine with one container."""
    return Datapath((FROM,), (ITSELF, OWN, SIX), (WORLD, THERE, ONE), permits)


def test_the_longest_prefix_says_who_has_an_address() -> None:
    """A container, its machine's network, or the world; of a family without entries it is the world too."""
    held = datapath()
    assert [held.identity(address) for address in ("10.1.0.9", "10.1.0.8", "10.2.0.1", "fd00::9")] == [301, 2, 2, 2]
    assert held.lookup("10.1.0.8") == THERE and held.lookup("fd00::9") is None


def test_the_most_exact_entry_decides_and_a_denial_before_all() -> None:
    """By identity and port, by port, by identity, by nothing."""
    entries = (Permit(7, IN), Permit(7, IN, 301), Permit(7, IN, 0, "TCP", 80), Permit(7, IN, 301, "TCP", 80))
    kinds = []
    for count in range(1, 5):
        found = datapath(*entries[:count]).permit(7, IN, 301, "TCP", 80)
        assert found is not None
        kinds.append((found.kind, found.bits))
    assert kinds == [("all", 0), ("L3-Only", 0), ("L4-Only", 24), ("L3-L4", 24)]
    assert datapath(*entries, Permit(7, IN, deny=True)).permit(7, IN, 301, "TCP", 80) == Permit(7, IN, deny=True)


@pytest.mark.parametrize(
    "asked",
    [(8, IN, 301, "TCP", 80), (7, OUT, 301, "TCP", 80), (7, IN, 302, "TCP", 80), (7, IN, 301, "UDP", 80),
     (7, IN, 301, "TCP", 81)],
)  # fmt: skip
def test_an_entry_speaks_of_nothing_else(asked: tuple[int, Direction, int, str, int]) -> None:
    """Another endpoint, direction, peer, protocol or port."""
    assert datapath(Permit(7, IN, 301, "TCP", 80)).permit(*asked) is None


def test_an_entry_of_a_protocol_alone_has_a_kind_of_its_own() -> None:
    """With a peer and without."""
    assert (Permit(7, IN, 0, "UDP").kind, Permit(7, IN, 9, "UDP").kind) == ("Proto-Only", "L3-Proto")
    assert (Permit(7, IN, 0, "UDP").ports, Permit(7, IN, 0, "UDP").bits) == ("UDP", 8)


def test_a_program_answers_for_any_address_but_the_containers_own() -> None:
    """So a container that asks whether its address is taken hears nobody; of IPv6 only known addresses are."""
    held = datapath()
    assert held.answers("lxc1", "10.9.9.9") and not held.answers("lxc1", "10.0.0.2")
    assert not held.answers("lxc2", "10.9.9.9")
    assert not held.answers("lxc1", "fd00::9") and not held.answers("lxc1", "fd00::2")


def test_each_entry_and_program_can_be_taken_away() -> None:
    """Once."""
    permit = Permit(7, IN)
    host = Host("node", datapath=datapath(permit))
    for entry in (FROM, OWN, ONE, permit):
        fewer = host.without(entry)
        assert fewer.datapath is not None and not fewer.datapath.holds(entry)
        with pytest.raises(UnknownName):
            fewer.without(entry)


def test_entries_are_named_with_their_map() -> None:
    """As one line."""
    assert entry_line(ONE) == (
        "cilium_ipcache_v2 10.1.0.9/32 identity=301 encryptkey=0 tunnelendpoint=192.0.2.2 flags=hastunnel"
    )
    assert entry_line(ITSELF) == "cilium_lxc 10.0.0.1:0 (localhost)"
    assert entry_line(Permit(7, OUT, 1, "TCP", 80, deny=True)) == (
        "cilium_policy_v2_00007 Deny Egress reserved:host 80/TCP"
    )


def test_a_machine_without_programs_prints_nothing() -> None:
    """No map is there."""
    assert [show(None) for show in (bpf_ipcache_list, bpf_endpoint_list, bpf_policy_list)] == ["", "", ""]


def test_reasons_have_the_numbers_of_the_monitor() -> None:
    """Those above 130 are drops."""
    assert {reason: reason.code for reason in Reason} == {
        "Invalid source ip": 132, "Policy denied": 133, "Stale or unroutable IP": 151,
        "Policy denied by denylist": 181, "Traffic is unencrypted": 195, "No node ID found": 197,
    }  # fmt: skip
