"""What does the API server answer?

`kubectl apply`, `kubectl patch` and `kubectl delete` are requests to the API server: it finds what is there, makes
what is asked of it, and answers with the object as it holds it now, defaults and allocated values included, or with an
error that names the field. Here a request is a pure function from one cluster's objects to a `Change`.

Two things are kept of each object. The *manifest* is what somebody wrote; a cluster with other options is built of
manifests again. The *registry* is what the API server has: no Service loses its address or a node port because another
one comes, changes or goes.

Not modelled: rules for changes of other kinds than Service (a Deployment's selector may change here). Guide section
1.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

import msgspec

from k8snetlab import api, controllers
from k8snetlab.api.manifest import Source
from k8snetlab.api.patch import Patch
from k8snetlab.api.patch import patched as after_patch
from k8snetlab.api.policy_rules import strict_rules as strict_policy_rules
from k8snetlab.api.service_rules import strict_rules
from k8snetlab.api.syntax import Broken
from k8snetlab.api.validation import broken_rules
from k8snetlab.controllers import registry
from k8snetlab.controllers.exposure import Pools
from k8snetlab.controllers.resolved import Resolved
from k8snetlab.errors import CannotDo, LabError, ManifestError, Problem, UnknownName

__all__ = ["Answer", "Asked", "Change", "How", "applied", "deleted", "held", "patched"]


class How(StrEnum):
    """What became of an object."""

    CREATED = "created"
    CONFIGURED = "configured"
    UNCHANGED = "unchanged"
    PATCHED = "patched"
    DELETED = "deleted"


class Asked(NamedTuple):
    """One object of a request, by its `ref`, what became of it, and the object itself where it is there no more."""

    ref: str
    how: How
    gone: api.Object | None = None


class Answer(msgspec.Struct, frozen=True):
    """The objects of the last request as the API server holds them, and what became of each. Printed, it is YAML as of
    `kubectl get -o yaml`."""

    objects: tuple[api.Object, ...] = ()
    how: tuple[How, ...] = ()

    @classmethod
    def of(cls, asked: Sequence[Asked], objects: Resolved) -> Answer:
        """The answer to what was asked, once its outcome is known."""
        found = [(each.gone or objects.named(each.ref), each.how) for each in asked]
        there = [(each, how) for each, how in found if each is not None]
        return cls(tuple(each for each, _ in there), tuple(how for _, how in there))

    def __iter__(self) -> Iterator[api.Object]:
        return iter(self.objects)

    def __len__(self) -> int:
        return len(self.objects)

    def __getitem__(self, index: int) -> api.Object:
        return self.objects[index]

    def __str__(self) -> str:
        return api.to_yaml(*self.objects)

    def __repr__(self) -> str:
        """As `kubectl` says it: `service/web created`."""
        lines = (f"{each.kind.lower()}/{each.name} {how}" for each, how in zip(self.objects, self.how, strict=True))
        return "\n".join(lines) or "<Answer: nothing was asked>"


class Change(NamedTuple):
    """The next cluster's manifests and registry, and what was asked."""

    manifests: api.Manifests
    registry: controllers.Registry
    asked: tuple[Asked, ...]


# --- apply ------------------------------------------------------------------------------------------------------------


def applied(manifests: api.Manifests, objects: Resolved, sources: Sequence[Source]) -> Change:
    """Create what is not there, change what is. Raises `ManifestError`, `AddressInUse` or `PoolExhausted`."""
    new, services = _judged(objects, sources)
    known = {each.ref: each for each in manifests.objects}
    asked = tuple(Asked(each.ref, _how(each, services, known, objects)) for each in new.objects)
    return Change(manifests.replacing(new), _registry(objects, services), asked)


def _judged(objects: Resolved, sources: Sequence[Source]) -> tuple[api.Manifests, Mapping[str, api.Service]]:
    """The objects that are meant, and the Services among them as they come out.

    A Service by itself may be wrong, and yet be right as a change: an ExternalName that still says the address it had.
    """
    try:
        new = api.load(*sources)
    except ManifestError as error:
        try:
            new = api.drafts(*sources)
            there = {service.ref for service in objects.services}
            if any(any(broken_rules(each)) for each in new.objects if each.ref not in there):
                raise
            return new, _served(objects, new)
        except LabError:
            raise error from None
    try:
        for policy in new.of(api.NetworkPolicy):
            _strictly(policy, objects.named(policy.ref))
        return new, _served(objects, new)
    except LabError as error:
        raise error.placed(new.placed) from None


def _strictly(new: api.Object, old: api.Object | None) -> None:
    """Refuse a policy whose blocks are spelled as only an object that is there already may spell them."""
    if isinstance(new, api.NetworkPolicy):
        _refuse(new, strict_policy_rules(new, old if isinstance(old, api.NetworkPolicy) else None))


def _served(objects: Resolved, new: api.Manifests) -> Mapping[str, api.Service]:
    services = new.of(api.Service)
    if not services:
        return {}
    pools = Pools(objects.networks, objects.services)
    found = {}
    for service in services:
        old = objects.named(service.ref)
        if isinstance(old, api.Service):
            found[service.ref] = registry.applied(old, service, objects.networks, pools)
        else:
            _refuse(service, strict_rules(service))
            found[service.ref] = registry.created(service, objects.networks, pools)
    return found


def _refuse(about: api.Object, broken: Broken) -> None:
    problems = [Problem(message, object=about.ref, field=field) for field, message in broken]
    if problems:
        raise ManifestError(problems)


def _how(
    new: api.Object, services: Mapping[str, api.Service], known: Mapping[str, api.Object], objects: Resolved
) -> How:
    old = objects.named(new.ref)
    if old is None:
        return How.CREATED
    same = services[new.ref] == old if new.ref in services else known.get(new.ref) == new
    return How.UNCHANGED if same else How.CONFIGURED


def _registry(objects: Resolved, changed: Mapping[str, api.Service]) -> controllers.Registry:
    services = {**{each.ref: each for each in objects.services}, **changed}
    return controllers.Registry(objects.networks.services, tuple(services.values()))


def held(
    manifests: api.Manifests, objects: Resolved, before: controllers.Plan, after: controllers.Plan
) -> controllers.Registry:
    """What the API server has when the plan is another one. Another load balancer has not said anything yet: of what
    the old one said only what stands in a manifest is left.
    """
    if (before.pools, before.ip_mode) == (after.pools, after.ip_mode):
        return _registry(objects, {})
    said = {service.ref: service.status for service in manifests.of(api.Service)}
    nothing = api.ServiceStatus()
    changed = {
        service.ref: msgspec.structs.replace(service, status=said.get(service.ref, nothing))
        for service in objects.services
    }
    return _registry(objects, changed)


# --- patch ------------------------------------------------------------------------------------------------------------


def patched(manifests: api.Manifests, objects: Resolved, kind: str, name: str, patch: Patch) -> Change:
    """Change one object. Raises `UnknownName`, and `ManifestError` and its kin naming the field."""
    key = _key(kind, name)
    known = {each.key: each for each in manifests.objects if each.kind == kind}
    old = objects.named(f"{kind} {key}")
    if isinstance(old, api.Service):
        sent = _sent(old, patch)
        assert isinstance(sent, api.Service)
        new = registry.updated(old, sent, objects.networks, Pools(objects.networks, objects.services))
        manifest = known.get(key, old)
        assert isinstance(manifest, api.Service)
        written: api.Object = registry.as_written(new, sent, old, manifest)
        changed: Mapping[str, api.Service] = {new.ref: new}
        same = new == old
    else:
        old = known.get(key) or _not_written(kind, key, objects)
        written, changed = _sent(old, patch), {}
        _refuse(old, broken_rules(written))
        _strictly(written, old)
        same = written == old
    asked = Asked(old.ref, How.UNCHANGED if same else How.PATCHED)
    return Change(manifests.replacing(api.Manifests((written,))), _registry(objects, changed), (asked,))


def _not_written(kind: str, key: str, objects: Resolved) -> api.Object:
    """Raise what is to be said of an object that has no manifest."""
    if objects.named(f"{kind} {key}") is None:
        raise UnknownName(kind, key, (each.key for each in objects.objects if each.kind == kind))
    message = "is not written in any manifest but follows from the others: change what it follows from"
    raise CannotDo(Problem(message, object=f"{kind} {key}"))


def _sent(old: api.Object, patch: Patch) -> api.Object:
    """What the patch makes of an object, its fields not yet held against each other."""
    try:
        data = after_patch(api.to_dict(old), patch)
    except ManifestError as error:
        raise ManifestError(_about(old, error.problems)) from None
    for field, said in (("apiVersion", old.api_version), ("kind", old.kind)):
        if data.get(field) != said:
            raise ManifestError(Problem("Forbidden: field is immutable", object=old.ref, field=field))
    decoded = api.typed(data)
    if decoded.object is None:
        raise ManifestError(_about(old, decoded.problems))
    if decoded.object.ref != old.ref:
        message = f'Invalid value: "{decoded.object.key}": field is immutable'
        raise ManifestError(Problem(message, object=old.ref, field="metadata.name"))
    return decoded.object


def _about(old: api.Object, problems: Sequence[Problem]) -> list[Problem]:
    return [msgspec.structs.replace(each, object=old.ref) for each in problems]


# --- delete -----------------------------------------------------------------------------------------------------------


def deleted(manifests: api.Manifests, objects: Resolved, kind: str, name: str) -> Change:
    """Take one object away; what was allocated for it is free. Raises `UnknownName`."""
    key = _key(kind, name)
    rest = manifests.without(kind, key)
    ref = f"{kind} {key}"
    left = tuple(service for service in objects.services if service.ref != ref)
    gone = objects.named(ref) or next(each for each in manifests.objects if each.ref == ref)
    return Change(rest, controllers.Registry(objects.networks.services, left), (Asked(ref, How.DELETED, gone),))


def _key(kind: str, name: str) -> str:
    """`namespace/name`; a name alone is in `default`. Raises `UnknownName` for a kind that is none."""
    kinds = {known: (version, known) for version, known in api.KINDS}
    if kind not in kinds:
        raise UnknownName("kind", kind, kinds)
    return name if "/" in name or not api.KINDS[kinds[kind]].namespaced else f"{api.DEFAULT_NAMESPACE}/{name}"
