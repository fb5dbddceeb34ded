"""How many pods are there, and how are they called?

A Deployment makes a ReplicaSet for its template and the ReplicaSet makes pods: `web`, `web-7d4b9c6f5d`,
`web-7d4b9c6f5d-x2k8q`. The middle part is a hash of the template, so a changed template gives other pods; the last
part is drawn. A StatefulSet numbers its pods, and they keep name and DNS name. A DaemonSet makes a pod for every node
that takes it. A Job makes as many pods as may run at once. A CronJob makes Jobs at its times, and so no pod by
itself.

Pods that are already there and belong to a workload count; only what is missing is made. A pod belongs by its owner
reference, or, in a dump without the ReplicaSets, by name and labels. Pods that completed or are being deleted do not
count.

Not modelled: rolling updates (the pods of the newest template are there at once), `generateName` collisions. Guide
section 1.1; Kubernetes "Workload Management".
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec.structs import replace

from k8snetlab import api
from k8snetlab.api.decoding import name_suffix, safe
from k8snetlab.controllers.scheduler import refusal

__all__ = ["Expanded", "expanded"]

_HASH = "pod-template-hash"
_REVISION = "deployment.kubernetes.io/revision"
_LONGEST_PREFIX = 58
"""A generated name has at most 63 characters, five of them drawn."""

DAEMON_TOLERATIONS = tuple(
    api.Toleration(key=f"node.kubernetes.io/{key}", operator=api.TolerationOperator.EXISTS, effect=effect)
    for key, effect in (
        ("not-ready", api.TaintEffect.NO_EXECUTE),
        ("unreachable", api.TaintEffect.NO_EXECUTE),
        ("disk-pressure", api.TaintEffect.NO_SCHEDULE),
        ("memory-pressure", api.TaintEffect.NO_SCHEDULE),
        ("pid-pressure", api.TaintEffect.NO_SCHEDULE),
        ("unschedulable", api.TaintEffect.NO_SCHEDULE),
    )
)
"""What the DaemonSet controller lets its pods bear, beside what their template says."""


class Expanded(msgspec.Struct, frozen=True):
    """All pods in the order of their making, the ReplicaSets, and which pods belong to which workload (both as `ref`,
    `key`)."""

    pods: tuple[api.Pod, ...]
    replica_sets: tuple[api.ReplicaSet, ...]
    replicas: Mapping[str, tuple[str, ...]]


def expanded(given: Sequence[api.Object], nodes: Sequence[api.Node]) -> Expanded:
    """The pods that the workloads among `given` make, beside those that are given."""
    making = _Making(given, nodes)
    for each in given:
        making.take(each)
    return making.result()


class _Making:
    """What has been made so far, from one call of `expanded`."""

    def __init__(self, given: Sequence[api.Object], nodes: Sequence[api.Node]) -> None:
        self.nodes = nodes
        self.pods: list[api.Pod] = []
        self.replica_sets: list[api.ReplicaSet] = []
        self.replicas: dict[str, list[str]] = {}
        there = [each for each in given if isinstance(each, api.Pod)]
        self.names = {pod.key for pod in there}
        self.owned: dict[str, list[api.Pod]] = {}
        self.orphans: dict[str, list[api.Pod]] = {}
        for pod in there:
            owner = pod.owner
            if owner is None:
                self.orphans.setdefault(pod.namespace, []).append(pod)
            else:
                self.owned.setdefault(f"{owner.kind} {pod.namespace}/{owner.name}", []).append(pod)
        self.sets: dict[str, list[api.ReplicaSet]] = {}
        for each in given:
            if isinstance(each, api.ReplicaSet) and each.owner is not None:
                self.sets.setdefault(f"{each.owner.kind} {each.namespace}/{each.owner.name}", []).append(each)

    def result(self) -> Expanded:
        return Expanded(
            tuple(self.pods),
            tuple(self.replica_sets),
            {ref: tuple(dict.fromkeys(keys)) for ref, keys in self.replicas.items()},
        )

    def take(self, each: api.Object) -> None:
        match each:
            case api.Pod():
                self.pods.append(each)
            case api.Deployment():
                self._deployment(each)
            case api.ReplicaSet() if not (each.owner and each.owner.kind == "Deployment"):
                self._replica_set(each)
            case api.StatefulSet():
                self._stateful_set(each)
            case api.DaemonSet():
                self._daemon_set(each)
            case api.Job():
                self._job(each)

    # Deployments and ReplicaSets

    def _deployment(self, deployment: api.Deployment) -> None:
        sets = sorted(self.sets.get(deployment.ref, ()), key=_revision)
        if not sets:
            sets = self._sets_of_pods(deployment) or [_replica_set(deployment, _template_hash(deployment))]
        # The newest ReplicaSet makes up what the older ones, which an update is emptying, do not hold.
        older = sets[:-1]
        wanted = max(0, deployment.spec.replicas - sum(each.spec.replicas for each in older))
        newest = replace(sets[-1], spec=replace(sets[-1].spec, replicas=wanted))
        for each in (*older, newest):
            self._replica_set(each)
            self.replicas.setdefault(deployment.ref, []).extend(self.replicas[each.ref])

    def _sets_of_pods(self, deployment: api.Deployment) -> list[api.ReplicaSet]:
        """The ReplicaSets that pods of a dump belong to, when the dump itself has none: the hash stands in a label."""
        found: dict[str, int] = {}
        prefix = f"ReplicaSet {deployment.namespace}/{deployment.name}-"
        named = [pod for ref, pods in self.owned.items() if ref.startswith(prefix) for pod in pods]
        for pod in (*named, *self.orphans.get(deployment.namespace, ())):
            hashed = pod.labels.get(_HASH, "")
            ours = pod.name.startswith(f"{deployment.name}-{hashed}-") and deployment.spec.selector.matches(pod.labels)
            if hashed and ours and _active(pod):
                found[hashed] = found.get(hashed, 0) + 1
        current = _template_hash(deployment)
        newest = current if current in found else max(found, key=lambda each: found[each], default=current)
        return [_replica_set(deployment, each, found[each]) for each in sorted(found, key=lambda each: each == newest)]

    def _replica_set(self, each: api.ReplicaSet) -> None:
        self.replica_sets.append(each)
        template = each.spec.template
        held = self._held(each, each.spec.selector)
        made: list[api.Pod] = []
        if template is not None:
            wanted = range(each.spec.replicas - sum(_active(pod) for pod in held))
            made = [self._drawn(template, each, str(index)) for index in wanted]
        self._keep(each, held, made)

    def _held(self, owner: api.Object, selector: api.LabelSelector) -> list[api.Pod]:
        adopted = [pod for pod in self.orphans.get(owner.namespace, ()) if selector.matches(pod.labels)]
        return [*self.owned.get(owner.ref, ()), *adopted]

    def _keep(self, owner: api.Object, held: Iterable[api.Pod], made: Sequence[api.Pod]) -> None:
        self.pods += made
        self.replicas[owner.ref] = [pod.key for pod in (*held, *made)]

    def _drawn(self, template: api.PodTemplateSpec, owner: api.Object, *which: str, stem: str = "") -> api.Pod:
        """A pod with a drawn name, which nobody has yet."""
        prefix = f"{stem or owner.name}-"
        tries = 0
        while True:
            name = prefix[:_LONGEST_PREFIX] + name_suffix(str(tries), owner.ref, *which, str(tries))
            if f"{owner.namespace}/{name}" not in self.names:
                break
            tries += 1
        self.names.add(f"{owner.namespace}/{name}")
        return _pod(template, owner, name, generate_name=prefix)

    # The others

    def _stateful_set(self, each: api.StatefulSet) -> None:
        held = self._held(each, each.spec.selector)
        names = {pod.name for pod in held}
        start = each.spec.ordinals.start
        wanted = [f"{each.name}-{index}" for index in range(start, start + each.spec.replicas)]
        made = [_numbered(each, name) for name in wanted if name not in names]
        self.names.update(pod.key for pod in made)
        self._keep(each, held, made)

    def _daemon_set(self, each: api.DaemonSet) -> None:
        held = self._held(each, each.spec.selector)
        served = {pod.node_name for pod in held if _active(pod)}
        template = each.spec.template
        spec = replace(template.spec, tolerations=(*template.spec.tolerations, *DAEMON_TOLERATIONS))
        made = []
        for node in self.nodes:
            if node.name not in served and not refusal(spec, node):
                bound = replace(template, spec=replace(spec, node_name=node.name))
                made.append(self._drawn(bound, each, node.name))
        self._keep(each, held, made)

    def _job(self, job: api.Job) -> None:
        spec, held = job.spec, self.owned.get(job.ref, [])
        left = spec.parallelism
        if spec.completions is not None:
            succeeded = sum(pod.status.phase is api.PodPhase.SUCCEEDED for pod in held)
            left = min(left, spec.completions - max(succeeded, job.status.succeeded))
        if job.status.completion_time or spec.suspend or (spec.completions is None and job.status.succeeded):
            left = 0
        indexed = spec.completion_mode == "Indexed"
        made: list[api.Pod] = []
        for index in range(left - sum(_active(pod) for pod in held)):
            stem = f"{job.name}-{index}" if indexed else ""
            labels = {"batch.kubernetes.io/job-name": job.name, "job-name": job.name}
            template = _labelled(spec.template, labels)
            if indexed:
                template = replace(template, spec=replace(template.spec, hostname=stem))
            made.append(self._drawn(template, job, str(index), stem=stem))
        self._keep(job, held, made)


def _active(pod: api.Pod) -> bool:
    return not pod.completed and not pod.terminating


def _pod(template: api.PodTemplateSpec, owner: api.Object, name: str, generate_name: str = "") -> api.Pod:
    reference = api.OwnerReference(
        api_version=owner.api_version, kind=owner.kind, name=owner.name, uid=owner.metadata.uid, controller=True,
        block_owner_deletion=True,
    )  # fmt: skip
    metadata = api.ObjectMeta(
        name=name,
        generate_name=generate_name,
        namespace=owner.namespace,
        labels=template.metadata.labels,
        annotations=template.metadata.annotations,
        owner_references=(reference,),
    )
    return api.Pod(metadata=metadata, spec=template.spec)


def _labelled(template: api.PodTemplateSpec, labels: Mapping[str, str]) -> api.PodTemplateSpec:
    return replace(template, metadata=replace(template.metadata, labels={**template.metadata.labels, **labels}))


def _numbered(owner: api.StatefulSet, name: str) -> api.Pod:
    """A StatefulSet's pod: its host name is its name, its subdomain the headless Service, and so it has a DNS name."""
    index = name.rpartition("-")[2]
    labels = {"apps.kubernetes.io/pod-index": index, "statefulset.kubernetes.io/pod-name": name}
    template = _labelled(owner.spec.template, labels)
    spec = replace(template.spec, hostname=name, subdomain=owner.spec.service_name)
    return _pod(replace(template, spec=spec), owner, name, generate_name=f"{owner.name}-")


def _replica_set(deployment: api.Deployment, hashed: str, replicas: int = 0) -> api.ReplicaSet:
    spec = deployment.spec
    selector = replace(spec.selector, match_labels={**spec.selector.match_labels, _HASH: hashed})
    template = _labelled(spec.template, {_HASH: hashed})
    owner = api.OwnerReference(
        api_version=deployment.api_version, kind=deployment.kind, name=deployment.name, uid=deployment.metadata.uid,
        controller=True, block_owner_deletion=True,
    )  # fmt: skip
    metadata = api.ObjectMeta(
        name=f"{deployment.name}-{hashed}",
        namespace=deployment.namespace,
        labels=template.metadata.labels,
        owner_references=(owner,),
    )
    return api.ReplicaSet(
        metadata=metadata, spec=api.ReplicaSetSpec(replicas=replicas, selector=selector, template=template)
    )


def _template_hash(deployment: api.Deployment) -> str:
    """Ten letters at most that follow from the template, in the alphabet of the real ones (which hash Go's own
    print)."""
    said = msgspec.json.encode(api.to_dict(deployment.spec.template), order="deterministic")
    return safe(str(zlib.crc32(said)))


def _revision(each: api.ReplicaSet) -> tuple[int, str]:
    number = each.annotations.get(_REVISION, "")
    return (int(number) if number.isdecimal() else 0, each.name)
