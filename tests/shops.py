"""The bookshop on every network, and small clusters of a few lines: what tests of the upper rooms ask."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from k8snetlab.cluster import Cluster, example
from k8snetlab.trace import Trace

DATA = Path(__file__).resolve().parents[1] / "data"

NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "bridge": {"cni": "bridge"},
    "flannel": {"cni": "flannel"},
    "flannel-directrouting": {"cni": "flannel", "cni_options": {"directrouting": "on"}},
    "flannel-host-gw": {"cni": "flannel", "cni_options": {"backend": "host-gw"}},
    "flannel-wireguard": {"cni": "flannel", "cni_options": {"backend": "wireguard"}},
    "cloud": {"cni": "cloud"},
    "calico": {"cni": "calico"},
    "calico-ipip-crosssubnet": {"cni": "calico", "cni_options": {"mode": "ipip-crosssubnet"}},
    "calico-vxlan": {"cni": "calico", "cni_options": {"mode": "vxlan"}},
    "calico-vxlan-crosssubnet": {"cni": "calico", "cni_options": {"mode": "vxlan-crosssubnet"}},
    "calico-bgp": {"cni": "calico", "cni_options": {"mode": "bgp"}},
    "calico-bgp-reflector": {"cni": "calico", "cni_options": {"mode": "bgp", "topology": "route-reflector"}},
    "calico-bgp-tor": {"cni": "calico", "cni_options": {"mode": "bgp", "topology": "tor"}},
    "cilium": {"cni": "cilium"},
    "cilium-geneve": {"cni": "cilium", "cni_options": {"mode": "geneve"}},
    "cilium-native": {"cni": "cilium", "cni_options": {"mode": "native"}},
    "cilium-wireguard": {"cni": "cilium", "cni_options": {"encryption": "wireguard"}},
    "cilium-native-wireguard": {"cni": "cilium", "cni_options": {"mode": "native", "encryption": "wireguard"}},
    "cilium-alone": {"cni": "cilium", "proxy": "ebpf"},
    "cloud-ptp": {"cni": "cloud", "cni_options": {"attach": "ptp"}},
}
"""Every way between two nodes."""

FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "IPv4": {},
    "IPv6": {"pod_cidr": "fd00:10:244::/56", "service_cidr": "fd00:10:96::/108"},
    "dual-stack": {
        "pod_cidr": "10.244.0.0/16,fd00:10:244::/56",
        "service_cidr": "10.96.0.0/12,fd00:10:96::/108",
    },
}
"""Every choice of address families."""

ZONES = "172.18.1.0/24,172.18.2.0/24,172.18.3.0/24"
"""An underlay subnet for each of three zones."""


@cache
def bookshop(network: str = "flannel", families: str = "IPv4", node_cidr: str = "") -> Cluster:
    """The bookshop on three nodes."""
    return example("bookshop", **NETWORKS[network], **FAMILIES[families], node_cidr=node_cidr)


@cache
def zones(network: str = "flannel") -> Cluster:
    """The bookshop on the machines of data/nodes/three-zones.yaml."""
    return Cluster.load(DATA / "nodes" / "three-zones.yaml", DATA / "bookshop", **NETWORKS[network])


def across(cluster: Cluster, source: str = "shop/web-0", target: str = "svc/shop/api:80") -> Trace:
    """A trace whose backend is on another node than its source: that of the first seed that draws one."""
    node = cluster.objects.pod(source).node_name
    traces = (cluster.trace(source, target, seed=seed) for seed in range(100))
    return next(trace for trace in traces if trace.backend is not None and trace.backend.node != node)


POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {app}}}}}
spec:
  nodeName: {node}
  containers:
    - {{name: {app}, image: example, ports: [{{name: http, containerPort: 8080}}]}}
  {spec}
status: {{{status}}}
---
"""

SERVICE = """
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: {namespace}}}
spec: {{selector: {{app: {app}}}, ports: [{{name: http, port: 80, targetPort: {target}}}], {more}}}
---
"""


def pod(
    name: str, node: str = "node-1", app: str = "web", namespace: str = "default", spec: str = "", status: str = ""
) -> str:
    """A pod on a node, listening on 8080, which is called http. `spec` is one more line, `status` its fields."""
    return POD.format(name=name, node=node, app=app, namespace=namespace, spec=spec, status=status)


def service(
    name: str, more: str = "type: ClusterIP", app: str = "web", namespace: str = "default", target: int = 8080
) -> str:
    """A Service of the pods with that label `app`, port 80 to `target`; `more` goes into its spec."""
    return SERVICE.format(name=name, more=more, app=app, namespace=namespace, target=target)
