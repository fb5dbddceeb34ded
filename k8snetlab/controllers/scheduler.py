"""On which machine does this pod run?

The scheduler first asks which nodes could take the pod, then which of them suits best. A node refuses a pod that does
not tolerate its taints, that selects other nodes (`nodeSelector`, required `nodeAffinity`), or for which it has no
room (a kubelet takes 110 pods). Of the others the pod gets the one with the fewest pods of the same owner, then the
fewest pods at all, then the first by order: replicas spread, and the same input gives the same places.

A pod that no node takes stays Pending and says why, in the words of the real scheduler. A pod whose `nodeName` is
written in the manifest never meets the scheduler.

Not modelled: CPU and memory, affinity between pods, topology spread constraints, host ports, preferences, preemption.
Guide section 1.1; Kubernetes "Assigning Pods to Nodes", "Taints and Tolerations".
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from k8snetlab import api
from k8snetlab.errors import UnknownName

__all__ = ["bound", "refusal"]

_COPIED = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")
"""Labels that a pod takes over from its node when it is bound (KEP-4742)."""

_UNSCHEDULABLE = api.Taint(key="node.kubernetes.io/unschedulable", effect=api.TaintEffect.NO_SCHEDULE)
_NO_ROOM = "Too many pods"
_OTHER_NODES = "node(s) didn't match Pod's node affinity/selector"


def refusal(spec: api.PodSpec, node: api.Node) -> str:
    """Why a node does not take a pod, in the scheduler's words; empty if it does."""
    for taint in (*node.spec.taints, *((_UNSCHEDULABLE,) if node.spec.unschedulable else ())):
        keeps_out = taint.effect is not api.TaintEffect.PREFER_NO_SCHEDULE
        if keeps_out and not any(each.tolerates(taint) for each in spec.tolerations):
            return f"node(s) had untolerated taint {taint}"
    if not api.has_labels(node.labels, spec.node_selector):
        return _OTHER_NODES
    affinity = spec.affinity and spec.affinity.node_affinity
    required = affinity and affinity.required_during_scheduling_ignored_during_execution
    if required and not required.matches(node.name, node.labels):
        return _OTHER_NODES
    return ""


def bound(pods: Sequence[api.Pod], nodes: Sequence[api.Node]) -> tuple[api.Pod, ...]:
    """The pods with a node, in the same order; those without one have a condition that says why.

    Raises `UnknownName` for a pod that names a node which is not there.
    """
    placing = _Placing(nodes)
    for pod in pods:
        if pod.node_name:
            placing.count(pod)
    return tuple(placing.placed(pod) for pod in pods)


class _Placing:
    """How full the nodes are while pods are placed, one after the other."""

    def __init__(self, nodes: Sequence[api.Node]) -> None:
        self.nodes = nodes
        self.index = {node.name: index for index, node in enumerate(nodes)}
        self.room = [_room(node) for node in nodes]
        self.total = [0] * len(nodes)
        self.of_owner: dict[str, Counter[int]] = {}
        self.queues: dict[tuple[str, int], list[tuple[int, int, int]]] = {}
        self.refused: dict[int, list[str]] = {}

    def count(self, pod: api.Pod) -> None:
        index = self.index.get(pod.node_name)
        if index is None:
            raise UnknownName("node", pod.node_name, self.index, object=pod.ref, field="spec.nodeName")
        if not pod.completed:
            self.total[index] += 1
            self.of_owner.setdefault(_owner(pod), Counter())[index] += 1

    def placed(self, pod: api.Pod) -> api.Pod:
        if pod.node_name:
            return _on(pod, self.nodes[self.index[pod.node_name]])
        if pod.status.phase is not None:
            return pod  # a dump shows it waiting
        index = self._best(pod)
        if index is None:
            return _waiting(pod, self._why(pod.spec))
        self.total[index] += 1
        self.of_owner[_owner(pod)][index] += 1
        return _on(replace(pod, spec=self._spec_on(pod.spec, index)), self.nodes[index])

    def _best(self, pod: api.Pod) -> int | None:
        """The best node with room. The queue of an owner is sorted by (its pods there, all pods there, order); an
        entry that has become too low since it was written goes back with its new value.
        """
        owner = _owner(pod)
        counts = self.of_owner.setdefault(owner, Counter())
        queue = self.queues.get((owner, id(pod.spec)))
        if queue is None:
            queue = [(counts[index], self.total[index], index) for index in self._able(pod.spec)]
            heapq.heapify(queue)
            self.queues[owner, id(pod.spec)] = queue
        while queue:
            entry = queue[0]
            now = (counts[entry[2]], self.total[entry[2]], entry[2])
            if self.total[entry[2]] >= self.room[entry[2]]:
                heapq.heappop(queue)
            elif now == entry:
                return entry[2]
            else:
                heapq.heapreplace(queue, now)
        return None

    def _able(self, spec: api.PodSpec) -> Iterator[int]:
        for index, why in enumerate(self._refusals(spec)):
            if not why:
                yield index

    def _refusals(self, spec: api.PodSpec) -> list[str]:
        if id(spec) not in self.refused:
            self.refused[id(spec)] = [refusal(spec, node) for node in self.nodes]
        return self.refused[id(spec)]

    def _why(self, spec: api.PodSpec) -> str:
        reasons = Counter(why or _NO_ROOM for why in self._refusals(spec))
        listed = ", ".join(sorted(f"{count} {why}" for why, count in reasons.items()))
        return f"0/{len(self.nodes)} nodes are available: {listed}."

    def _spec_on(self, spec: api.PodSpec, index: int) -> api.PodSpec:
        return replace(spec, node_name=self.nodes[index].name)


def _owner(pod: api.Pod) -> str:
    """What replicas are spread over: the pods of one controller. A pod without one stands for itself."""
    owner = pod.owner
    return f"{owner.kind} {pod.namespace}/{owner.name}" if owner else pod.ref


def _room(node: api.Node) -> int:
    said = str(node.status.allocatable.get("pods", ""))
    return int(said) if said.isdecimal() else 1 << 30


def _on(pod: api.Pod, node: api.Node) -> api.Pod:
    copied = {key: node.metadata.labels[key] for key in _COPIED if key in node.metadata.labels}
    if pod.status.phase is not None or not copied or api.has_labels(pod.labels, copied):
        return pod
    return replace(pod, metadata=replace(pod.metadata, labels={**pod.labels, **copied}))


def _waiting(pod: api.Pod, why: str) -> api.Pod:
    condition = api.PodCondition(type="PodScheduled", status="False", reason="Unschedulable", message=why)
    return replace(pod, status=replace(pod.status, phase=api.PodPhase.PENDING, conditions=(condition,)))
