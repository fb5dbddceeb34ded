"""Every shape of a Service on the real kernel: the rows of the packet-flow table of Services."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from k8snetlab import live
from k8snetlab.compile.underlay import client, led_through
from k8snetlab.linux.host import Network
from k8snetlab.live import Probe
from tests.live import recordings
from tests.services.shapes import ROWS, Row
from tests.services.test_flows import OUTSIDE, address, cluster, sender

MODES = ("iptables", "nftables", "ebpf")
"""The modes whose rules, or programs, the lab can give the kernel."""

NEEDS = {"nftables": ("nftables",), "ebpf": ("socket load balancing by eBPF", "packet load balancing by eBPF")}
"""What a mode needs beside a lab."""

TRIES = 6
"""So often each row is asked: with two backends, both are seen nearly always."""

STRANGER = "stranger"


def via(row: Row) -> str:
    """The node that the row's traffic is led to, or nothing."""
    return row.source.partition(" via ")[2]


def rows(*, strange: bool) -> dict[str, list[Row]]:
    """The rows that a prober can ask, by the node that they are led to; those of the stranger apart, because he stands
    in the place of the client outside.
    """
    found: dict[str, list[Row]] = {}
    for row in ROWS:
        if not row.target.endswith("/SCTP") and row.source.startswith(STRANGER) is strange:
            found.setdefault(via(row), []).append(row)
    return found


def network(mode: str, led_to: str, *, strange: bool) -> Network:
    """The cluster with the clients of the table, the addresses of Services led to a node."""
    shapes = cluster(mode)
    found, neighbour = client(shapes.layout, shapes.network, OUTSIDE["neighbour"].partition(":")[2])
    outside = "external"
    if strange:  # he is at the cable of the client outside, who therefore is not there
        found, outside = client(shapes.layout, found, OUTSIDE[STRANGER].partition(":")[2])
        found = Network({name: found[name] for name in found if name != "external"})
    for each in recordings.virtual(shapes) if led_to else ():
        for name in (outside,) if ":" in each else (outside, neighbour):
            found = led_through(shapes.layout, found, name, each, led_to)
    return found


def probe(mode: str, row: Row) -> Probe:
    """A row as a question to the kernel."""
    shapes = cluster(mode)
    name, _, port = row.target.rpartition(":")
    number, _, protocol = port.partition("/")
    who = sender(shapes, row)
    host = who.removeprefix("node/") if who.startswith("node/") else "bee" if who.endswith("/host-bee") else who
    return Probe(host, address(shapes, name, row.of), int(number), protocol or "TCP")


def wrong(mode: str, *, strange: bool) -> Iterator[str]:
    """What the kernel did that the walk does not say, led to each node in turn."""
    groups = rows(strange=strange)
    first, *_ = groups
    with live.Lab(network(mode, first, strange=strange)) as lab:
        for led_to, group in groups.items():
            lab.apply(network(mode, led_to, strange=strange))
            questions = {probe(mode, row): TRIES for row in group}
            walked = recordings.said(lab.network, [*questions])
            seen = recordings.again(lab, questions, walked, recordings.asked(lab, questions))
            yield from recordings.surprises(walked, seen)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("strange", [False, True], ids=["clients", "stranger"])
def test_the_kernel_does_what_the_table_says(kernel: None, mode: str, strange: bool) -> None:
    """Each row several times: nobody answers, and nobody is seen, whom the walk does not say."""
    for each in live.capabilities():
        if each.name in NEEDS.get(mode, ()) and not each.present:
            pytest.skip(str(each))
    found = list(wrong(mode, strange=strange))
    assert not found, "\n".join(found)


def test_nearly_every_row_is_asked() -> None:
    """All but those of SCTP, which has no prober."""
    asked: Sequence[Row] = [
        row for strange in (False, True) for group in rows(strange=strange).values() for row in group
    ]
    left_out = Counter(row.target.rpartition("/")[2] for row in ROWS if row not in asked)
    assert set(left_out) == {"SCTP"} and len(asked) >= 180
