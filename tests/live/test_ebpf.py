"""Proxy mode ebpf on the real kernel: programs lead sockets and packets as the walk says.

Every row of the packet-flow table is asked in `test_shapes`; here is what a table does not show.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from k8snetlab import live
from k8snetlab.address import family
from k8snetlab.cluster import Cluster, example
from k8snetlab.linux.ebpf import Attachment, Program
from k8snetlab.live.proving import prove
from k8snetlab.live.sockets import unbuilt
from k8snetlab.trace import Client
from tests.live.questions import everybody, services
from tests.live.shop import shop
from tests.services.shapes import MANIFEST
from tests.services.test_flows import address

NAMES = ("socket load balancing by eBPF", "packet load balancing by eBPF")


@pytest.fixture(scope="session")
def programs(kernel: None) -> None:
    """A machine whose kernel takes the programs; the test skips, with the kernel's words, where it does not."""
    for each in live.capabilities():
        if each.name in NAMES and not each.present:
            pytest.skip(str(each))


@pytest.fixture(scope="module")
def shapes() -> Cluster:
    """The cluster of the packet-flow table."""
    return Cluster.load(MANIFEST, cni="bridge", proxy="ebpf")


@pytest.fixture(scope="module")
def lab(programs: None, shapes: Cluster) -> Iterator[live.Lab]:
    """The same, on the kernel."""
    with live.Lab(shapes) as built:
        yield built


def disagreements(cluster: Cluster, lab: live.Lab, probes: list[live.Probe]) -> list[str]:
    """What the kernel does that the walk does not say."""
    return [str(each) for each in live.compare(cluster.network, probes, lab.probe(probes)) if not each.agrees]


def test_every_backend_gets_its_share(lab: live.Lab, shapes: Cluster) -> None:
    """Both pods behind a Service are chosen, by chance."""
    probe = live.Probe("default/caller-ant", address(shapes, "web", 4), 80)
    assert {sight.backend for sight in lab.probe([probe] * 40)} == {"default/web-ant", "default/web-bee"}


def test_a_socket_sticks_to_its_backend(lab: live.Lab, shapes: Cluster) -> None:
    """With session affinity a namespace is led to one backend, until the lab forgets."""
    probe = live.Probe("default/caller-ant", address(shapes, "sticky", 4), 80)
    found = set()
    for _ in range(30):
        lab.forget()
        chosen = {sight.backend for sight in lab.probe([probe] * 8)}
        assert len(chosen) == 1
        found |= chosen
    assert found == {"default/web-ant", "default/web-bee"}


ASKS = """
import socket, sys
held = socket.socket()
held.connect((sys.argv[1], 80))
print(*held.getpeername())
"""


def test_the_application_believes_in_the_address_it_asked_for(lab: live.Lab, shapes: Cluster) -> None:
    """getpeername() tells the Service's address, though the packets carry the backend's."""
    vip = address(shapes, "web", 4)
    with lab.capturing("default/caller-ant", "eth0") as capture:
        printed = lab.run("default/caller-ant", sys.executable, "-c", ASKS, vip)
    assert printed.out.split() == [vip, "80"], printed.err
    addresses = {bytes(frame.octets[30:34]) for frame in capture.frames if frame.octets[12:14] == b"\x08\x00"}
    assert addresses and bytes(map(int, vip.split("."))) not in addresses


TALKS = """
import socket, sys
held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
held.settimeout(2)
held.sendto(b"1", (sys.argv[1], 53))
print(*held.recvfrom(100)[1])
"""


def test_a_datagram_seems_to_be_answered_by_whom_it_was_sent_to(lab: live.Lab, shapes: Cluster) -> None:
    """sendto() is led to a backend, and recvfrom() names the Service: a resolver takes no answer from a stranger."""
    vip = address(shapes, "dns", 4)
    printed = lab.run("default/caller-ant", sys.executable, "-c", TALKS, vip)
    assert printed.out.split() == [vip, "53"], printed.err


def test_a_backend_sees_the_client_where_he_came_in_and_the_node_elsewhere(lab: live.Lab, shapes: Cluster) -> None:
    """The program at the node's card keeps the source for a backend of its own, and replaces it for another's."""
    probe = live.Probe("external", address(shapes, "ant", 4), 30080)
    seen = {(sight.backend, sight.source) for sight in lab.probe([probe] * 40)}
    assert seen == {("default/web-ant", "203.0.113.10"), ("default/web-bee", address(shapes, "ant", 4))}


def test_what_a_program_sends_on_passes_no_rule(lab: live.Lab, shapes: Cluster) -> None:
    """A packet for a backend on another node comes and goes by the card, and the node's conntrack has not seen it."""
    node = address(shapes, "cat", 4)
    lab.forget()
    with lab.capturing("cat", "eth0") as capture:
        (sight,) = lab.probe([live.Probe("external", node, 30080)])
    assert sight.client is Client.OPEN and sight.source == node
    assert len({bytes(frame.octets[30:34]) for frame in capture.frames if frame.octets[23:24] == b"\x06"}) >= 3
    assert "dport=8080" not in lab.run("cat", "conntrack", "-L").out


def test_without_the_program_at_egress_the_answer_is_a_stranger(lab: live.Lab, shapes: Cluster) -> None:
    """Nobody gives the answer of a backend its source back: walk and kernel agree that the client waits in vain."""
    gone = Attachment(Program.TO_OUTSIDE, "eth0")
    network = shapes.network.without("ant", gone)
    probe = live.Probe("external", address(shapes, "ant", 4), 30081)
    lab.apply(network)
    sights = lab.probe([probe])
    lab.apply(shapes.network)
    (compared,) = live.compare(network, [probe], sights)
    assert compared.agrees and compared.seen.client is Client.TIMEOUT, str(compared)


def test_without_the_program_nobody_is_led(lab: live.Lab, shapes: Cluster) -> None:
    """The program at connect() taken away from a node: its packets carry the Service's address, which nobody has. A
    pod's do too, and are balanced at its device, packet by packet.
    """
    vip = address(shapes, "web", 4)
    probes = [live.Probe(who, vip, 80) for who in ("ant", "default/caller-ant", "default/caller-cat")]
    gone = Attachment(Program.CONNECT4)
    network = shapes.network.without("ant", gone).without("default/caller-ant", gone)
    lab.apply(network)
    with lab.capturing("default/caller-ant", "eth0") as capture:
        sights = lab.probe(probes)
    lab.apply(shapes.network)
    assert [sight.client for sight in sights] == [Client.TIMEOUT, Client.OPEN, Client.OPEN]
    assert all(each.agrees for each in live.compare(network, probes, sights))
    assert bytes(map(int, vip.split("."))) in {bytes(frame.octets[30:34]) for frame in capture.frames}
    assert lab.probe(probes)[0].client is Client.OPEN


def test_without_its_entry_a_service_is_nobody(lab: live.Lab, shapes: Cluster) -> None:
    """A frontend taken out of a node's maps: for its own sockets the walk and the kernel lose the Service together."""
    node, vip = "cat", address(shapes, "web6", 6)
    ebpf = shapes.network[node].ebpf
    assert ebpf is not None
    gone = next(found for key, found in ebpf.services.items() if key.address == vip)
    network = shapes.network.without(node, gone)
    lab.apply(network)
    sights = lab.probe([live.Probe(node, vip, 80)])
    lab.apply(shapes.network)
    (compared,) = live.compare(network, [live.Probe(node, vip, 80)], sights)
    assert compared.agrees and compared.seen.client is Client.TIMEOUT, str(compared)


def test_other_programs_of_the_machine_are_left_alone(lab: live.Lab, shapes: Cluster) -> None:
    """The programs stand at the root of the cgroups, but a namespace that is not the lab's passes untouched."""
    with live.Lab(Cluster.load(MANIFEST, cni="bridge")) as other:
        probe = live.Probe("default/caller-ant", address(shapes, "web", 4), 80)
        assert {sight.client for sight in other.probe([probe] * 4)} == {Client.OPEN}
        assert "KUBE-SVC" in other.run("ant", "iptables-save", "-t", "nat").out


def test_the_bookshop_is_on_the_kernel_as_in_the_walk(programs: None) -> None:
    """Every Service from everybody, through a tunnel: what a program sends on goes into it by itself."""
    books = example("bookshop", proxy="ebpf")
    probes = [each for each in services(books, everybody(books, some=4)) if not unbuilt(books.network, each)]
    with live.Lab(books) as built:
        wrong = disagreements(books, built, probes)
    assert not wrong, "\n".join(wrong[:20])


def both_families() -> Cluster:
    """A small cluster with IPv4 and IPv6."""
    return shop("flannel").changed(proxy="ebpf")


def test_a_cluster_of_both_families_is_on_the_kernel_as_in_the_walk(programs: None) -> None:
    """The same in IPv4 and IPv6: Services and node ports."""
    cluster = both_families()
    probes = [each for each in services(cluster, everybody(cluster, 4)) if not unbuilt(cluster.network, each)]
    assert {family(probe.address) for probe in probes} == {4, 6}
    with live.Lab(cluster) as built:
        wrong = disagreements(cluster, built, probes)
    assert not wrong, "\n".join(wrong[:20])


def test_a_proof_holds(programs: None) -> None:
    """Every question about a cluster of both families, from inside and outside, ends as the walk says."""
    proof = prove(both_families(), most=100)
    assert proof.agrees, str(proof)
    assert {"pod to Service", "outside to Service", "outside to node port"} <= {str(each.kind) for each in proof.kinds}


def test_only_who_is_led_to_himself_at_his_device_is_left_out(shapes: Cluster) -> None:
    """A container that is its own backend, and that no socket program has led, is not built."""
    pod, vip = "default/web-ant", address(shapes, "web", 4)
    probe = live.Probe(pod, vip, 80)
    assert not unbuilt(shapes.network, probe)
    alone = address(shapes, "near", 4)
    network = shapes.network.without(pod, Attachment(Program.CONNECT4))
    assert unbuilt(network, live.Probe(pod, alone, 80))


def test_programs_that_are_replaced_are_gone(lab: live.Lab, shapes: Cluster) -> None:
    """Another state has other programs and sockets, and nobody holds the old ones: there are as many as before."""
    before = links()
    fewer = shapes.network.without("default/web-ant", shapes.network["default/web-ant"].listeners[0])
    lab.apply(fewer.without("cat", Attachment(Program.CONNECT4)))
    lab.apply(shapes.network)
    assert links() == before


def test_nothing_is_left_in_the_kernel(programs: None, shapes: Cluster) -> None:
    """Programs and maps are files of the lab's agent: they end with it."""
    before = links()
    with live.Lab(shapes):
        assert links() > before
    assert links() == before


def links() -> int:
    """How many programs are attached by what this process has started, as the files of those processes tell."""
    count = 0
    todo = [os.getpid()]
    while todo:
        process = Path(f"/proc/{todo.pop()}")
        with contextlib.suppress(OSError):  # it has ended meanwhile
            for thread in (process / "task").iterdir():
                todo += map(int, (thread / "children").read_text(encoding="ascii").split())
            count += sum(str(file.readlink()) == "anon_inode:bpf_link" for file in (process / "fd").iterdir())
    return count
