"""The packet-flow tables of the simulated kernel, on the real one."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from k8snetlab import live
from k8snetlab.errors import CannotDo
from k8snetlab.live import Compared, Probe
from tests.linux import (
    test_bridge,
    test_filter,
    test_ipset,
    test_ipv6,
    test_mtu,
    test_nat,
    test_nftables,
    test_routing,
    test_tunnel,
)
from tests.linux.lab import Flow

ALWAYS = (test_bridge, test_filter, test_ipv6, test_mtu, test_nat, test_routing, test_tunnel)
SOMETIMES = {"ipset": test_ipset, "nft": test_nftables}
TABLES = {
    module.__name__.rpartition("test_")[2]: module.FLOWS
    for module in (*ALWAYS, *(module for program, module in SOMETIMES.items() if shutil.which(program)))
}
"""The tables by name; sets, and rules of nftables, can be tried where the programs are that make them."""


def asked(flow: Flow) -> bool:
    """Whether a prober can ask it: there are none for pings and SCTP, nor for large segments of TCP."""
    return flow.protocol == "UDP" or (flow.protocol == "TCP" and not flow.size)


def together(flows: Sequence[Flow]) -> list[list[Flow]]:
    """The rows by network. What is large is asked by itself: it teaches its sender the MTU of a path."""
    groups: list[list[Flow]] = []
    for flow in flows:
        small = () if flow.size else groups
        group = next((held for held in small if not held[0].size and held[0].network == flow.network), None)
        if group is None:
            groups.append(group := [])
        group.append(flow)
    return groups


def played(flows: Sequence[Flow]) -> Iterator[tuple[Flow, Compared]]:
    """Every row on the kernel, on its network as it is: a lab is told what changes from network to network, and
    another one is built where devices differ.
    """
    waiting = together(flows)
    while waiting:
        left: list[list[Flow]] = []
        with live.Lab(waiting[0][0].network) as lab:
            for group in waiting:
                try:
                    lab.apply(group[0].network)
                except CannotDo:
                    left.append(group)
                    continue
                yield from zip(group, _compared(lab, group), strict=True)
        waiting = left


def _compared(lab: live.Lab, group: Sequence[Flow]) -> tuple[Compared, ...]:
    probes = [Probe(flow.source, flow.address, flow.port, flow.protocol, flow.size, flow.df) for flow in group]
    return live.compare(lab.network, probes, lab.probe(probes))


LABS = 12
"""So many labs are there at once."""

PART = 40
"""So many rows are asked one after the other; most of the time goes by until a probe counts as unanswered."""


def parts() -> list[tuple[str, list[Flow]]]:
    """The rows that can be asked, in parts of a table, with its name."""
    rows = {name: [flow for flow in flows if asked(flow)] for name, flows in TABLES.items()}
    return [(name, held[at : at + PART]) for name, held in rows.items() for at in range(0, len(held), PART)]


def _wrong(name: str, rows: Sequence[Flow]) -> list[str]:
    return [f"{name}: {flow.name}: {compared}" for flow, compared in played(rows) if not compared.agrees]


def test_the_kernel_ends_every_row_as_the_table_says(kernel: None) -> None:
    """Every row of every table that can be asked, several labs at once: what the kernel did is what the walk says."""
    with ThreadPoolExecutor(LABS) as pool:
        wrong = [line for lines in pool.map(_wrong, *zip(*parts(), strict=True)) for line in lines]
    assert not wrong, "\n".join(wrong)
