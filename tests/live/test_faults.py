"""Faults on the real kernel: whoever notices one in the walk notices it there."""

from __future__ import annotations

import pytest

from k8snetlab import faults, live
from k8snetlab.cluster import Cluster
from k8snetlab.live import Probe
from tests.faults.test_faults import shop

pytestmark = pytest.mark.usefixtures("kernel")

TRIES = 4
"""So often each question is put: with two backends, both are seen mostly."""

ON_THE_KERNEL = {
    "flannel": (
        "route-missing", "fdb-missing", "neighbour-missing", "ip-forward-off", "bridge-nf-call-off",
        "masquerade-missing",
    ),
    "calico-vxlan": ("proxy-arp-off", "pool-missing"),
}  # fmt: skip
"""By network the faults that one lab is told, one after the other."""

OTHER_DEVICES = ("hairpin-off", "mtu-too-large", "pod-cidr-overlap")
"""The faults of devices: each needs a lab of its own."""


def probes(hurt: Cluster, fault: str) -> list[Probe]:
    """The first questions that are answered otherwise, as a prober asks them: what is long goes by UDP."""
    found = []
    for ask, _, _ in faults.noticed(hurt, fault)[:2]:
        trace = hurt.trace(ask.source, ask.target, family=ask.family, size=ask.size)
        request = trace.request
        source = ask.source.removeprefix("node/")
        longer = ("UDP", ask.size + 24) if ask.size else (request.protocol, 0)  # UDP 8, TCP 20 and options
        found.append(Probe(source, request.address, request.port, longer[0], size=longer[1]))
    return found


def wrong(lab: live.Lab, hurt: Cluster, fault: str) -> list[str]:
    """What the kernel does otherwise than the walk says."""
    asked = [each for each in probes(hurt, fault) for _ in range(TRIES)]
    compared = live.compare(hurt.network, asked, lab.probe(asked))
    return [f"{fault}: {each}" for each in compared if not each.agrees]


@pytest.mark.parametrize("network", ON_THE_KERNEL)
def test_the_kernel_notices_a_fault_as_the_walk_does(network: str) -> None:
    """Every fault in turn in one lab: how its first questions end, and who answers them."""
    whole, found = shop(network), []
    with live.Lab(whole.network) as lab:
        for fault in ON_THE_KERNEL[network]:
            hurt = whole.broken(fault)
            lab.apply(hurt.network)
            found += wrong(lab, hurt, fault)
    assert not found, "\n".join(found)


@pytest.mark.parametrize("fault", OTHER_DEVICES)
def test_the_kernel_notices_a_faulty_device_as_the_walk_does(fault: str) -> None:
    """What is long, what goes back where it came from, what another network takes."""
    hurt = shop("flannel").broken(fault)
    with live.Lab(hurt.network) as lab:
        found = wrong(lab, hurt, fault)
    assert not found, "\n".join(found)
