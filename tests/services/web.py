"""The Service `web`, its pods and their nodes, for what the controllers write about them."""

from __future__ import annotations

from typing import Any

from k8snetlab import api

NODES = {
    name: api.Node(metadata=api.ObjectMeta(name=name, labels={"topology.kubernetes.io/zone": zone} if zone else {}))
    for name, zone in (("node-1", "zone-a"), ("node-2", "zone-b"), ("nowhere", ""))
}


def pod(name: str, *ips: str, **fields: Any) -> api.Pod:
    """A running pod on node-1 with a container port `http` 8080, ready unless its fields say otherwise."""
    spec = {
        "nodeName": "node-1",
        "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": 8080}]}],
        **fields.pop("spec", {}),
    }
    status = {
        "phase": "Running",
        "podIPs": [{"ip": ip} for ip in ips],
        "conditions": [{"type": "Ready", "status": str(fields.pop("ready", True))}],
        **fields.pop("status", {}),
    }
    metadata = {"name": name, "labels": {"app": "web"}, **fields.pop("metadata", {})}
    found = api.decode({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": status})
    assert isinstance(found.object, api.Pod), found.problems
    return found.object


def service(**spec: Any) -> api.Service:
    """The Service `web` for `app: web`, port 80 to 8080."""
    spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}], **spec}
    found = api.decode({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec})
    assert isinstance(found.object, api.Service), found.problems
    return found.object


def pods(number: int) -> tuple[api.Pod, ...]:
    """So many pods of the Service, all alike."""
    return tuple(pod(f"web-{at}", f"10.0.{at // 250}.{at % 250 + 1}") for at in range(number))
