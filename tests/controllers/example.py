"""Small manifests that the tests of this folder share."""

from typing import Any

from k8snetlab import api
from k8snetlab.controllers import Plan, Resolved, resolved

Plain = dict[str, Any]

CONTAINER: Plain = {"name": "c", "ports": [{"containerPort": 8080, "name": "http"}]}


def node(name: str, *addresses: str, spec: Plain | None = None, **metadata: Any) -> Plain:
    """A node of these addresses."""
    own = [{"type": "InternalIP", "address": each} for each in addresses]
    return {
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, **metadata}, "spec": spec or {},
        "status": {"addresses": own},
    }  # fmt: skip


def pod(name: str, *, labels: dict[str, str] | None = None, status: Plain | None = None, **spec: Any) -> Plain:
    """A pod with one container."""
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels or {}},
        "spec": {"containers": [CONTAINER], **spec}, "status": status or {},
    }  # fmt: skip


def running(name: str, on: str, *ips: str, **fields: Any) -> Plain:
    """A pod as a dump shows it: on a node, with addresses."""
    status = {"phase": "Running", "podIPs": [{"ip": ip} for ip in ips]}
    return pod(name, status=status, nodeName=on, **fields)


def service(name: str, *, status: Plain | None = None, **spec: Any) -> Plain:
    """A Service at port 80."""
    return {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec},
        "status": status or {},
    }  # fmt: skip


def workload(kind: str, name: str, *, pod_spec: Plain | None = None, **spec: Any) -> Plain:
    """A Deployment, ReplicaSet, StatefulSet or DaemonSet whose pods carry `app: NAME`."""
    template = {"metadata": {"labels": {"app": name}}, "spec": {"containers": [CONTAINER], **(pod_spec or {})}}
    return {
        "apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template, **spec},
    }  # fmt: skip


def cluster(*plain: Plain, **plan: Any) -> Resolved:
    """What the manifests become."""
    return resolved(api.load(*plain), Plan(**plan))


def own(found: Resolved) -> list[api.Pod]:
    """The pods that come from the manifests: all but those of DNS."""
    return [each for each in found.pods if each.namespace != "kube-system"]
