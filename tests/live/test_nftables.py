"""Machines with tables of nftables: what they remember, what runs first, and who may have them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from k8snetlab import live
from k8snetlab.cluster import Cluster
from k8snetlab.errors import CannotDo
from k8snetlab.linux.text import nft_list_ruleset
from k8snetlab.trace import Client
from tests.live.conftest import Ordinary
from tests.live.shop import CLIENT, SHOP, WEB_1, WEB_2, service, shop

STICKY = SHOP.replace("ipFamilyPolicy: RequireDualStack", "sessionAffinity: ClientIP")


@pytest.fixture(scope="module")
def nftables(kernel: None) -> None:
    """A machine that takes such tables; the test skips, saying why, where it does not."""
    able = next(each for each in live.capabilities() if each.name == "nftables")
    if not able.present:
        pytest.skip(str(able))


@pytest.fixture(scope="module")
def sticky(nftables: None) -> Iterator[tuple[live.Lab, str]]:
    """The shop where a client stays at its backend, and the address of that Service."""
    cluster = Cluster.load(STICKY, proxy="nftables")
    with live.Lab(cluster) as lab:
        yield lab, service(cluster, "web")


def backend(lab: live.Lab, address: str) -> str:
    """Who takes the client's connection to the Service."""
    (sight,) = lab.probe([live.Probe(CLIENT, address, 80)])
    return sight.backend


def test_a_client_stays_at_its_backend_until_the_lab_forgets(sticky: tuple[live.Lab, str]) -> None:
    """The kernel puts it into a dynamic set; when the lab forgets, chance decides anew."""
    lab, address = sticky
    first = backend(lab, address)
    assert {backend(lab, address) for _ in range(8)} == {first}
    met = {first}
    for _ in range(30):
        lab.forget()
        met.add(backend(lab, address))
    assert met == {WEB_1, WEB_2}


def test_nothing_is_left_in_dynamic_sets(sticky: tuple[live.Lab, str]) -> None:
    """What packets put there is gone, and the kernel holds the table as it was compiled."""
    lab, address = sticky
    table = next(each for each in lab.network["node-1"].nftables if each.family == "ip")
    backend(lab, address)
    assert "expires" in lab.run("node-1", "nft", "list", "table", *table.name.split()).out
    lab.forget()
    assert lab.run("node-1", "nft", "list", "table", *table.name.split()).out == nft_list_ruleset([table])


def test_tables_run_before_those_of_iptables_whatever_changes(nftables: None) -> None:
    """kube-proxy masquerades before flannel does; also after a rule of flannel was lost and came back."""
    cluster = shop("flannel", "nftables")
    network = cluster.network
    lost = next(iter(network["node-1"].netfilter.ipv4["nat"].rules))
    probe = live.Probe(CLIENT, service(cluster, "one"), 80)
    with live.Lab(cluster) as lab:
        for now in (network, network.without("node-1", lost), network):
            lab.apply(now)
            found = live.agreement(now, lab.follow(probe))
            assert found.agrees, str(found)


def test_without_the_program_a_lab_says_what_to_install(kernel: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is built."""
    network = shop("bridge", "nftables").network
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CannotDo, match="no program nft: install the package nftables"), live.Lab(network):
        pass


ORDINARY = """
import sys
from k8snetlab import live
from k8snetlab.cluster import Cluster
cluster = Cluster.load(sys.argv[1], proxy="nftables")
address = next(service.cluster_ips[0] for service in cluster.objects.services if service.metadata.name == "web")
with live.Lab(cluster) as lab:
    probe = live.Probe("default/client", address, 80)
    print(len({lab.probe([probe])[0].backend for _ in range(8)}), live.agreement(lab.network, lab.follow(probe)).agrees)
"""


def test_an_ordinary_user_has_such_tables_too(nftables: None, ordinary: Ordinary) -> None:
    """Without any privilege, in a user namespace: with affinity, and with the kernel's own trace of rules."""
    assert ordinary(ORDINARY, STICKY) == ("1 True\n", "")


def test_a_service_that_nobody_serves_is_refused(sticky: tuple[live.Lab, str]) -> None:
    """By an element of a map, whose chain rejects."""
    lab, _ = sticky
    address = next(host for host in lab.network["node-1"].nftables[0].set("no-endpoint-services").elements).key[0]
    (sight,) = lab.probe([live.Probe(CLIENT, str(address), 80)])
    assert sight.client is Client.REFUSED
