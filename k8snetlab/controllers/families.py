"""Of which address families is this Service?

`ipFamilies` says it, in order, the primary one first; `ipFamilyPolicy` says whether one, two where the cluster has two,
or two for certain. Whoever says neither gets the cluster's first family alone, in a dual-stack cluster too: nothing
ever becomes dual-stack by itself, and two families or two addresses without a policy are refused. The exception is a
headless Service without a selector: nobody knows of which family the endpoints will be that somebody writes for it, so
it has both, even where the cluster has one.

On a change the policy decides: to `PreferDualStack` or `RequireDualStack` adds the second family, to `SingleStack`
takes it away, and nothing else does. A Service that prefers two keeps what it has until something of this is said anew.

Not modelled: Services stored before Kubernetes 1.20. KEP-563; Kubernetes 1.37.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from k8snetlab import api
from k8snetlab.address import family
from k8snetlab.api.syntax import Broken, invalid
from k8snetlab.errors import ManifestError, Problem

__all__ = ["settled"]

_SINGLE = api.IPFamilyPolicy.SINGLE_STACK
_PREFER = api.IPFamilyPolicy.PREFER_DUAL_STACK
_REQUIRE = api.IPFamilyPolicy.REQUIRE_DUAL_STACK


def settled(service: api.Service, cluster: Sequence[int], old: api.Service | None = None) -> api.Service:
    """The Service with its families and its policy, for a cluster of these families (4, 6). `old` is the Service that
    it takes the place of. An ExternalName has neither.

    Raises `ManifestError` for a family that the cluster does not have, or a policy that does not fit.
    """
    if service.spec.type is api.ServiceType.EXTERNAL_NAME or (old is not None and _still_prefers(service, old)):
        return service
    spec = replace(service.spec, ip_family_policy=service.spec.ip_family_policy or _policy(service, old))
    service = replace(service, spec=spec)
    have = tuple(map(api.IPFamily.of, cluster))
    if old is not None:
        service = _reduced(service, old)
        _refuse(service, _too_few(service, old))
    _refuse(service, _too_many(service.spec))
    _refuse(service, _strange_addresses(service, have))
    spec = service.spec
    own = tuple(api.IPFamily.of(family(ip)) for ip in service.cluster_ips)
    said = (spec.ip_families + own[len(spec.ip_families) :]) or have[:1]
    by_hand = service.headless and not spec.selector
    if not by_hand:
        _refuse(service, _strange(spec, have))
    if spec.ip_family_policy is not _SINGLE:
        said = tuple(dict.fromkeys((*said, *(tuple(api.IPFamily) if by_hand else have))))
    return replace(service, spec=replace(spec, ip_families=said))


def _policy(service: api.Service, old: api.Service | None) -> api.IPFamilyPolicy:
    """What holds where none is said."""
    if old is not None and old.spec.ip_family_policy is not None:
        return old.spec.ip_family_policy
    return _REQUIRE if service.headless and not service.spec.selector else _SINGLE


def _still_prefers(service: api.Service, old: api.Service) -> bool:
    """Whether it preferred two families before and nothing was said anew: then a cluster that has become dual-stack in
    the meantime changes nothing."""
    spec, was = service.spec, old.spec
    return (
        spec.ip_family_policy is _PREFER
        and was.ip_family_policy in (None, _PREFER)
        and (spec.type, spec.cluster_ip, spec.cluster_ips, spec.ip_families)
        == (was.type, was.cluster_ip, was.cluster_ips, was.ip_families)
    )


def _reduced(service: api.Service, old: api.Service) -> api.Service:
    """With `SingleStack`, what was left as it was loses its second half: the policy alone says it clearly enough."""
    spec, was = service.spec, old.spec
    if spec.ip_family_policy is not _SINGLE:
        return service
    if (spec.cluster_ip, spec.cluster_ips) == (was.cluster_ip, was.cluster_ips):
        spec = replace(spec, cluster_ips=spec.cluster_ips[:1])
    if spec.ip_families == was.ip_families:
        spec = replace(spec, ip_families=spec.ip_families[:1])
    return replace(service, spec=spec)


def _refuse(service: api.Service, broken: Broken) -> None:
    problems = [Problem(message, object=service.ref, field=field) for field, message in broken]
    if problems:
        raise ManifestError(problems)


def _too_few(service: api.Service, old: api.Service) -> Broken:
    policy = service.spec.ip_family_policy
    if policy is _SINGLE:
        return
    for what, before, after in (
        ("cluster IP", old.spec.cluster_ips, service.spec.cluster_ips),
        ("IP family", old.spec.ip_families, service.spec.ip_families),
    ):
        if after and len(after) < len(before) and after[0] == before[0]:
            yield invalid("spec.ipFamilyPolicy", policy, f"must be 'SingleStack' to release the secondary {what}")


def _too_many(spec: api.ServiceSpec) -> Broken:
    if spec.ip_family_policy is not _SINGLE:
        return
    for what, said in (("cluster IPs", spec.cluster_ips), ("IP families", spec.ip_families)):
        if len(said) == 2:
            why = f"must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
            yield invalid("spec.ipFamilyPolicy", _SINGLE, why)


def _strange_addresses(service: api.Service, have: Sequence[api.IPFamily]) -> Broken:
    """Addresses that tell a family which the cluster does not have."""
    for index, ip in enumerate(service.cluster_ips):
        told = api.IPFamily.of(family(ip))
        if index >= len(service.spec.ip_families) and told not in have:
            field = f"spec.clusterIPs[{index}]"
            yield invalid(field, service.spec.cluster_ips, f"{told} is not configured on this cluster")


def _strange(spec: api.ServiceSpec, have: Sequence[api.IPFamily]) -> Broken:
    if spec.ip_family_policy is _REQUIRE and len(have) < 2:
        yield invalid("spec.ipFamilyPolicy", _REQUIRE, "this cluster is not configured for dual-stack services")
    for index, each in enumerate(spec.ip_families):
        if each not in have:
            yield invalid(f"spec.ipFamilies[{index}]", each, "not configured on this cluster")
