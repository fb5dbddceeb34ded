"""A small network, and a trace through it, for every picture."""

from __future__ import annotations

import pytest

from k8snetlab.linux.host import Network
from k8snetlab.trace import Trace
from tests.draw import small


@pytest.fixture(scope="session")
def network() -> Network:
    """Two machines with three pods, a switch, a router and a client outside."""
    return small.network()


@pytest.fixture(scope="session")
def across(network: Network) -> Trace:
    """web-1 asks the Service; api-0 on the other machine answers."""
    return small.trace(network, "shop/web-1", small.SERVICE, target="svc/shop/api:80", seed=7)
