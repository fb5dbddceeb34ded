"""What the walk says of a whole connection, and the kernel does."""

from __future__ import annotations

import msgspec
import pytest

from k8snetlab import live
from k8snetlab.linux.host import Network
from k8snetlab.linux.netfilter import DROP, CtState, Netfilter, tables
from k8snetlab.linux.route import Route
from k8snetlab.live import Outcome, Probe
from k8snetlab.trace import Client
from tests.linux.lab import ROUTER, A, C, add, filters, lab, rule, without_route

INVALID = filters(rule("filter", "FORWARD", CtState(("INVALID",)), to=DROP))
THERE, BACK = "10.244.2.0/24", "10.244.1.0/24"


def firewall(network: Network) -> Network:
    """The router drops what conntrack finds invalid."""
    return network.replacing(msgspec.structs.replace(network["router"], netfilter=Netfilter(tables(4, [INVALID]), {})))


def around(network: Network) -> Network:
    """The way from m1 to the containers of m2 leads over the router; the way back does not."""
    return add(without_route(network, "m1", THERE), "m1", routes=(Route(THERE, "eth0", ROUTER),))


def around_both_ways(network: Network) -> Network:
    """The way back leads over the router too."""
    back = without_route(around(network), "m2", BACK)
    return add(back, "m2", routes=(Route(BACK, "eth0", ROUTER),))


@pytest.mark.parametrize(
    ("network", "outcome"),
    [
        (lab(), Outcome(Client.OPEN, "c", A)),
        (around(lab()), Outcome(Client.OPEN, "c", A)),
        (around(firewall(lab())), Outcome(Client.OPEN)),
        (around_both_ways(firewall(lab())), Outcome(Client.OPEN, "c", A)),
    ],
    ids=["the usual way", "another way back", "another way back past a firewall", "both ways past the firewall"],
)
def test_a_connection_is_more_than_its_handshake(kernel: None, network: Network, outcome: Outcome) -> None:
    """Where answers go another way, conntrack takes the client's second packet for INVALID; a firewall that drops those
    lets the client connect, and nothing else. The kernel does the same.
    """
    probe = Probe("a", C, 80)
    assert live.predicted(network, probe) == (outcome,)
    with live.Lab(network) as lab:
        (compared,) = live.compare(network, [probe], lab.probe([probe]))
    assert compared.agrees, str(compared)
