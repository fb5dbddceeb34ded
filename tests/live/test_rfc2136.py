"""Plans carried out by real name servers, by signed updates."""

from __future__ import annotations

import shutil

import msgspec
import pytest

from k8snetlab import CannotDo, Cluster
from k8snetlab.course.lesson_5_5 import planned
from k8snetlab.dns.external import Memory, Owning
from k8snetlab.dns.zone import RecordSet, Zone
from k8snetlab.live.rfc2136 import SERVERS, Key, Server, carried, recorded, served

WEB = """
apiVersion: v1
kind: Service
metadata: {name: web, annotations: {external-dns.kubernetes.io/hostname: "shop.example.org,both.example.org"}}
spec: {type: LoadBalancer, selector: {app: web}, ports: [{port: 80}], externalIPs: [203.0.113.7, "2001:db8::7"]}
---
apiVersion: v1
kind: Service
metadata: {name: old, annotations: {external-dns.kubernetes.io/hostname: old.example.org}}
spec: {type: ExternalName, externalName: shop.example.net}
"""
HELD = (
    RecordSet("gone.example.org.", "A", 300, ("192.0.2.2",)),
    RecordSet("a-gone.example.org.", "TXT", 300, ('"heritage=external-dns,external-dns/owner=default"',)),
    RecordSet("www.example.org.", "A", 60, ("192.0.2.3",)),
)


@pytest.fixture(params=list(SERVERS.values()), ids=list(SERVERS))
def server(request: pytest.FixtureRequest) -> Server:
    """A name server that is on this machine; the test skips, naming the package, where it is not."""
    found: Server = request.param
    if shutil.which(found.program) is None:
        pytest.skip(f"no {found.program} on this machine: Debian's package {found.package} brings it")
    return found


def differing(before: Zone, after: Zone) -> list[str]:
    """The lines of two zones that differ, but for the SOA record: a server counts its serial number up."""
    return [line for line in before.diff(after).lines if " SOA " not in line]


def test_a_real_server_has_what_was_planned(server: Server) -> None:
    """After the update the whole zone is as the plan says, but for the serial number, and nothing is left to do; taken
    back, it is as it was in the beginning.
    """
    shop, nothing = Cluster.load(WEB), Cluster.load(WEB.replace("hostname", "nothing"))
    with served(Zone.of("example.org", HELD), server) as provider:
        before = provider.zone()
        plan = shop.external_dns(before)
        provider.apply(plan)
        assert differing(plan.after, provider.zone()) == []
        assert not shop.external_dns(provider.zone())
        provider.apply(nothing.external_dns(provider.zone()))
        changed = differing(before, provider.zone())
        assert sorted(line.split()[1] for line in changed) == ["a-gone.example.org.", "gone.example.org."]


def test_a_real_server_refuses_what_is_not_signed(server: Server) -> None:
    """No signature, another secret, another key: the zone stays as it was."""
    with served(Zone.of("example.org", HELD), server) as provider:
        plan, before = Cluster.load(WEB).external_dns(provider.zone()), provider.zone()
        for key in (None, Key.of("external-dns", "another"), Key.of("another", "example.org.")):
            with pytest.raises(CannotDo, match="update refused"):
                msgspec.structs.replace(provider, key=key).apply(plan)
        with pytest.raises(CannotDo, match="transfer refused"):
            msgspec.structs.replace(provider, key=None).zone()
        assert provider.zone() == before


def test_a_plan_that_is_too_old_changes_nothing(server: Server) -> None:
    """Somebody was faster: the server refuses the whole update, and the other's records stay."""
    shop = Cluster.load(WEB)
    with served(Zone.of("example.org", HELD), server) as provider:
        late = shop.external_dns(provider.zone())
        provider.apply(shop.external_dns(provider.zone(), Owning(owner="blue", domains=("shop.example.org",))))
        between = provider.zone()
        with pytest.raises(CannotDo, match="YXRRSET"):
            provider.apply(late)
        assert provider.zone() == between


def test_two_providers_end_alike(server: Server) -> None:
    """The one that is a value and the one behind a socket have the same zone."""
    shop = Cluster.load(WEB)
    with served(Zone.of("example.org", HELD), server) as provider:
        memory = Memory(provider.zone())
        for each in (memory, provider):
            each.apply(shop.external_dns(each.zone()))
        assert differing(memory.zone(), provider.zone()) == []


def test_the_server_at_hand_says_what_is_on_record(server: Server) -> None:
    """Every answer and the zone afterwards, of the plan of notebook 5_5; versions may differ."""
    (record,) = [each for each in recorded() if each.server == server.name]
    seen = carried(planned(), server)
    assert msgspec.structs.replace(seen, version=record.version) == record
    assert record.version


def test_every_record_is_of_the_plan_as_it_is() -> None:
    """The lines that went and came are those of the plan of today, on machines without a server too."""
    wanted = set(differing(planned().zone, planned().after))
    assert len(recorded()) == len(SERVERS)
    for each in recorded():
        gone = {f"- {line}" for line in each.before if line not in each.after}
        come = {f"+ {line}" for line in each.after if line not in each.before}
        assert gone | come == wanted


def test_a_server_that_does_not_start_says_why(server: Server) -> None:
    """A configuration that it does not take is told by its own words."""
    broken = server._replace(configuration="nonsense\n")
    with (
        pytest.raises(CannotDo, match=f"{server.name} does not start"),
        served(Zone.of("example.org"), broken),
    ):
        pass
