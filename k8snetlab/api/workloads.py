"""Who makes the pods?

People write Deployments, StatefulSets, DaemonSets and Jobs; controllers make Pods from the template in them. For the
network three things follow: how many pods there are, how they are called (only a StatefulSet's pods keep their names)
and which labels they carry.

Not modelled: how an update rolls out. Guide section 1.1; Kubernetes "Workload Management".
"""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import UNSET, Meta

from k8snetlab.api.base import Kept, Object, ObjectMeta, Part
from k8snetlab.api.pod import PodTemplateSpec
from k8snetlab.api.selectors import LabelSelector

__all__ = [
    "CronJob",
    "DaemonSet",
    "Deployment",
    "DeploymentSpec",
    "Job",
    "JobSpec",
    "ReplicaSet",
    "ReplicaSetSpec",
    "StatefulSet",
    "Workload",
]

Count = Annotated[int, Meta(ge=0)]


class DeploymentSpec(Part, frozen=True, kw_only=True):
    """How many pods, and from which template."""

    selector: LabelSelector
    template: PodTemplateSpec
    replicas: Count = 1
    min_ready_seconds: Kept = UNSET
    paused: Kept = UNSET
    progress_deadline_seconds: Kept = UNSET
    revision_history_limit: Kept = UNSET
    strategy: Kept = UNSET


class Deployment(Object, frozen=True, kw_only=True, tag="Deployment"):
    """Interchangeable pods, made through a ReplicaSet."""

    kind: ClassVar[str] = "Deployment"
    api_version: ClassVar[str] = "apps/v1"

    spec: DeploymentSpec
    status: Kept = UNSET


class ReplicaSetSpec(Part, frozen=True, kw_only=True):
    """How many pods, and from which template."""

    selector: LabelSelector
    template: PodTemplateSpec | None = None
    replicas: Count = 1
    min_ready_seconds: Kept = UNSET


class ReplicaSet(Object, frozen=True, kw_only=True, tag="ReplicaSet"):
    """The pods of one version of a template."""

    kind: ClassVar[str] = "ReplicaSet"
    api_version: ClassVar[str] = "apps/v1"

    spec: ReplicaSetSpec
    status: Kept = UNSET


class StatefulSetOrdinals(Part, frozen=True, kw_only=True):
    """The number of the first pod."""

    start: Count = 0


class StatefulSetSpec(Part, frozen=True, kw_only=True):
    """How many numbered pods, from which template, and the headless Service that gives them DNS names."""

    selector: LabelSelector
    template: PodTemplateSpec
    service_name: str = ""
    replicas: Count = 1
    ordinals: StatefulSetOrdinals = StatefulSetOrdinals()
    min_ready_seconds: Kept = UNSET
    persistent_volume_claim_retention_policy: Kept = UNSET
    pod_management_policy: Kept = UNSET
    revision_history_limit: Kept = UNSET
    update_strategy: Kept = UNSET
    volume_claim_templates: Kept = UNSET


class StatefulSet(Object, frozen=True, kw_only=True, tag="StatefulSet"):
    """Numbered pods that keep their names: `db-0`, `db-1`."""

    kind: ClassVar[str] = "StatefulSet"
    api_version: ClassVar[str] = "apps/v1"

    spec: StatefulSetSpec
    status: Kept = UNSET


class DaemonSetSpec(Part, frozen=True, kw_only=True):
    """From which template each node gets a pod."""

    selector: LabelSelector
    template: PodTemplateSpec
    min_ready_seconds: Kept = UNSET
    revision_history_limit: Kept = UNSET
    update_strategy: Kept = UNSET


class DaemonSet(Object, frozen=True, kw_only=True, tag="DaemonSet"):
    """One pod on every node that takes it."""

    kind: ClassVar[str] = "DaemonSet"
    api_version: ClassVar[str] = "apps/v1"

    spec: DaemonSetSpec
    status: Kept = UNSET


class JobSpec(Part, frozen=True, kw_only=True):
    """How many pods at a time, until how many have succeeded."""

    template: PodTemplateSpec
    parallelism: Count = 1
    completions: Count | None = None
    completion_mode: str = "NonIndexed"
    suspend: bool = False
    selector: LabelSelector | None = None
    active_deadline_seconds: Kept = UNSET
    backoff_limit: Kept = UNSET
    backoff_limit_per_index: Kept = UNSET
    managed_by: Kept = UNSET
    manual_selector: Kept = UNSET
    max_failed_indexes: Kept = UNSET
    pod_failure_policy: Kept = UNSET
    pod_replacement_policy: Kept = UNSET
    scheduling: Kept = UNSET
    success_policy: Kept = UNSET
    ttl_seconds_after_finished: Kept = UNSET


class JobStatus(Part, frozen=True, kw_only=True):
    """How far the Job is."""

    succeeded: int = 0
    failed: int = 0
    active: int = 0
    completion_time: str | None = None
    completed_indexes: Kept = UNSET
    conditions: Kept = UNSET
    failed_indexes: Kept = UNSET
    ready: Kept = UNSET
    start_time: Kept = UNSET
    terminating: Kept = UNSET
    uncounted_terminated_pods: Kept = UNSET


class Job(Object, frozen=True, kw_only=True, tag="Job"):
    """Pods that run until they are done."""

    kind: ClassVar[str] = "Job"
    api_version: ClassVar[str] = "batch/v1"

    spec: JobSpec
    status: JobStatus = JobStatus()


class JobTemplateSpec(Part, frozen=True, kw_only=True):
    """What a CronJob makes its Jobs from."""

    metadata: ObjectMeta = ObjectMeta()
    spec: JobSpec


class CronJobSpec(Part, frozen=True, kw_only=True):
    """When, and which Job."""

    schedule: str
    job_template: JobTemplateSpec
    suspend: bool = False
    concurrency_policy: Kept = UNSET
    failed_jobs_history_limit: Kept = UNSET
    starting_deadline_seconds: Kept = UNSET
    successful_jobs_history_limit: Kept = UNSET
    time_zone: Kept = UNSET


class CronJob(Object, frozen=True, kw_only=True, tag="CronJob"):
    """Jobs by the clock. Between its times it has no pod."""

    kind: ClassVar[str] = "CronJob"
    api_version: ClassVar[str] = "batch/v1"

    spec: CronJobSpec
    status: Kept = UNSET


Workload = Deployment | ReplicaSet | StatefulSet | DaemonSet | Job
