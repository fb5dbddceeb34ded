"""What does a trace not show, because nothing happened?

A network without enforcement carries what policies forbid, and its machines know nothing of it: no rule says so. The
same happens where policies are enforced and a packet takes a way on which nobody asks them: between two ports of a
bridge whose frames iptables does not see, or out of IPVS to a pod of the same node. That the connection would have been
forbidden is told beside the trace.

Guide section 4.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from k8snetlab.cluster.ends import end_of
from k8snetlab.errors import LabError
from k8snetlab.policies.engine import verdict
from k8snetlab.policies.plan import BY_THE_BOOK
from k8snetlab.trace import Client

if TYPE_CHECKING:
    from k8snetlab.controllers import Resolved
    from k8snetlab.policies.plan import Policies
    from k8snetlab.trace import Trace

__all__ = ["unheeded"]


def unheeded(objects: Resolved, policies: Policies, found: Trace) -> tuple[str, ...]:
    """That policies forbid what a trace shows, where nobody heeds them; else nothing."""
    backend, request = found.backend, found.request
    if not policies.written or backend is None or found.client is not Client.OPEN:
        return ()
    enforced = policies.choices.enforced
    named = policies if enforced else policies.choosing(BY_THE_BOOK)
    service = request.address if request.address != backend.ip else ""
    try:
        source = end_of(objects, named, request.source)
        said = verdict(named, source, backend.ip, backend.port, request.protocol, of=request.family, service=service)
    except LabError:  # an end that policies do not speak of
        return ()
    known = found.source_seen in source.addresses  # else policies were asked about another one
    if said or (enforced and not known):
        return ()
    refs = dict.fromkeys(policy.ref for policy in said.denied_by)
    forbid = "forbids" if len(refs) == 1 else "forbid"
    nobody = "nothing on its way asked them" if enforced else f"{policies.choices.plugin} enforces no policies"
    return (f"{_listed(list(refs))} {forbid} this connection, but {nobody}",)


def _listed(names: list[str]) -> str:
    return " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
