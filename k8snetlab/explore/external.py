"""What will be created, changed, deleted? (5.5)

A zone in which a person, this cluster and another cluster have records. Choose what happens to the objects of this
cluster, how much external-dns may do, under which owner's name it works, which domain it looks after, and which
version reads the annotations. The picture shows every name before and after, and why something is left alone.

Not modelled: what happens between two looks of external-dns; each plan begins with the same zone. Guide section 5.5.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from k8snetlab import draw
from k8snetlab.cluster import Cluster, example_zone
from k8snetlab.dns.external import ALPHA, PREFIX, Owning, Plan, Policy, Reading, Registry, Zone
from k8snetlab.explore.explorer import Explorer, Setting, View, dropdown

__all__ = ["EDITS", "ExternalModel", "ZonePlanner"]


def _annotated(service: str, **said: str | None) -> Callable[[Cluster], Cluster]:
    annotations = {f"{PREFIX}{key}": value for key, value in said.items()}
    return lambda cluster: cluster.patched("Service", f"default/{service}", {"metadata": {"annotations": annotations}})


EDITS: Mapping[str, Callable[[Cluster], Cluster]] = {
    "nothing": lambda cluster: cluster,
    "the Service shop wants no name any more": _annotated("shop", hostname=None),
    "it is deleted": lambda cluster: cluster.deleted("Service", "default/shop"),
    "it wants a name more": _annotated("shop", hostname="shop.example.org,buy.example.org"),
    "it leads to a CDN": _annotated("shop", target="cdn.example.net"),
    "the Service stock wants a name": _annotated("stock", hostname="stock.example.org"),
    "the Ingress wants mail.example.org": lambda cluster: cluster.patched(
        "Ingress",
        "default/front",
        {"metadata": {"annotations": {f"{PREFIX}hostname": "mail.example.org"}}},
    ),
    "api wants the name of shop": _annotated("api", hostname="shop.example.org"),
}
"""What happens to the objects, by what it is called."""

OWNERS = ("blue", "green", "nobody asks (registry noop)")
ALL = "every name"
DOMAINS = (ALL, "shop.example.org", "not blog.example.org")
VERSIONS: Mapping[str, str] = {"0.22": PREFIX, "0.21": ALPHA}


class ExternalModel:
    """The view model: a cluster that wants names, and the zone they are in."""

    def __init__(self, cluster: Cluster, zone: Zone | None = None) -> None:
        self.cluster = cluster
        self.zone = zone if zone is not None else example_zone("example.org")

    def plan(self, *, happens: str, policy: str, owner: str, domain: str, version: str) -> Plan:
        """What external-dns would do."""
        registry = Registry.TXT if owner in OWNERS[:2] else Registry.NOOP
        excluded = (domain.removeprefix("not "),) if domain.startswith("not ") else ()
        domains = (domain,) if domain != ALL and not excluded else ()
        owning = Owning(owner if registry is Registry.TXT else "", Policy(policy), registry, domains=domains,
                        excluded=excluded)  # fmt: skip
        return EDITS[happens](self.cluster).external_dns(self.zone, owning, Reading(VERSIONS[version]))

    def view(self, *, happens: str, policy: str, owner: str, domain: str, version: str) -> View:
        """The difference of the zone, what is left alone, and both in one picture."""
        plan = self.plan(happens=happens, policy=policy, owner=owner, domain=domain, version=version)
        only = f", domain {domain}" if domain != ALL else ""
        head = f"{happens}; policy {policy}, owner {owner}{only}, external-dns {version}"
        return View(f"{head}\n\n{plan}", draw.zone(plan))


class ZonePlanner(Explorer[ExternalModel]):
    """Edit objects, and see what becomes of a zone. Its settings are `happens`, `policy`, `owner`, `domain` and
    `version`.
    """

    happens = Setting[str]()
    policy = Setting[str]()
    owner = Setting[str]()
    domain = Setting[str]()
    version = Setting[str]()

    def __init__(self, cluster: Cluster) -> None:
        controls = {
            "happens": dropdown("What happens", tuple(EDITS), "nothing"),
            "policy": dropdown("Policy", tuple(map(str, Policy)), "sync"),
            "owner": dropdown("Owner", OWNERS, "blue"),
            "domain": dropdown("Domain", DOMAINS, ALL),
            "version": dropdown("external-dns", tuple(VERSIONS), "0.22"),
        }
        super().__init__(ExternalModel(cluster), controls, height=330)
