"""What does every Kubernetes cluster promise about its network?

A pod network may be built in many ways, but the rules it must keep are few: pods reach each other without NAT; nodes
reach pods without NAT; the address a pod sees as its own is the one that others see; the kubelet reaches its pods
(probes), and the API server the kubelets (exec, logs, port-forward); and a pod address means nothing outside of the
cluster. Each rule is a check here that sends real walks through the cluster, in every family that pods have addresses
of, and says what it sent. For each rule `BREAKERS` has a change of the machines' state that makes exactly that rule
fail. So that each fault is told once, the first two rules judge whether a packet arrives, at the address it was sent
to; the third judges the source it arrives with.

Echo requests are used where no listener is promised. On a node with many pods two of them stand for the others, which
hang on the same bridge; in a cluster with many pods each asks some of the others, spread evenly. The evidence says how
many packets were sent.

The promise is about the network that a CNI builds, and not about what policies then forbid in it: they are left aside.

Guide section 1.1; Kubernetes "The Kubernetes network model".
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from k8snetlab.cni import Enforcement
from k8snetlab.contract.breakers import BREAKERS
from k8snetlab.contract.rules import RULES, Probe, Subjects, subjects_of
from k8snetlab.errors import UnknownName

if TYPE_CHECKING:
    from k8snetlab.cluster import Cluster

__all__ = ["BREAKERS", "RULES", "Check", "Report", "break_rule", "check"]

TOLD = 10
"""So many failures of one rule are told."""


class Check(msgspec.Struct, frozen=True):
    """One rule and how it stands: `evidence` says what was sent, `failures` what went wrong (at most ten are told)."""

    rule: str
    title: str
    holds: bool
    evidence: str
    failures: tuple[str, ...] = ()

    def __str__(self) -> str:
        head = f"{'holds ' if self.holds else 'BROKEN'}  {self.title}\n        {self.evidence}"
        return "\n".join((head, *(f"        ✗ {failure}" for failure in self.failures)))


class Report(msgspec.Struct, frozen=True):
    """The checks in the order of the guide."""

    checks: tuple[Check, ...]

    @property
    def holds(self) -> bool:
        """Whether every rule holds."""
        return all(check.holds for check in self.checks)

    @property
    def broken(self) -> tuple[str, ...]:
        """The rules that do not hold."""
        return tuple(check.rule for check in self.checks if not check.holds)

    def __iter__(self) -> Iterator[Check]:
        return iter(self.checks)

    def __getitem__(self, rule: str) -> Check:
        for each in self.checks:
            if each.rule == rule:
                return each
        raise UnknownName("rule", rule, RULES)

    def __str__(self) -> str:
        return "\n".join(str(check) for check in self.checks)

    def __repr__(self) -> str:
        held = sum(check.holds for check in self.checks)
        return f"<Report: {held} of {len(self.checks)} rules hold>"

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON."""
        rows = [
            {"rule": c.rule, "title": c.title, "holds": c.holds, "evidence": c.evidence, "failures": list(c.failures)}
            for c in self.checks
        ]
        return {"schema": "k8snetlab/v1", "kind": "Contract", "holds": self.holds, "checks": rows}


def check(cluster: Cluster) -> Report:
    """Check every rule on a cluster, as if it had no policies."""
    enforced = cluster.plugin.policies.backend is not Enforcement.NONE
    subjects = subjects_of((cluster.without_policies() if enforced else cluster).terrain)
    return Report(tuple(_judged(rule, title, probe, subjects) for rule, (title, probe) in RULES.items()))


def _judged(rule: str, title: str, probe: Probe, subjects: Subjects) -> Check:
    evidence, failures = probe(subjects)
    told = tuple(failures[:TOLD])
    if len(failures) > TOLD:
        told = (*told, f"… and {len(failures) - TOLD} more")
    return Check(rule, title, not failures, evidence, told)


def break_rule(cluster: Cluster, rule: str) -> Cluster:
    """The cluster with the machine state changed so that this rule fails, and no other. Raises `UnknownName`."""
    if rule not in BREAKERS:
        raise UnknownName("rule", rule, BREAKERS)
    return cluster.overlaid(f"break {rule}", BREAKERS[rule])
