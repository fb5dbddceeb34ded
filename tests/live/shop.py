"""A small shop in both families, for tests that look closely."""

from __future__ import annotations

from collections.abc import Mapping

from k8snetlab.cluster import Cluster

WEB_1, WEB_2, CLIENT = "default/web-1", "default/web-2", "default/client"
OUTSIDE = "external"

DUAL_STACK: Mapping[str, str] = {
    "node_cidr": "172.18.0.0/16,fd00:172::/64",
    "pod_cidr": "10.244.0.0/16,fd00:10:244::/56",
    "service_cidr": "10.96.0.0/12,fd00:10:96::/108",
}

SHOP = """
kind: Pod
apiVersion: v1
metadata: {name: web-1, labels: {app: web, only: one}}
spec: {nodeName: node-1, containers: [{name: web, image: web, ports: [{containerPort: 8080}]}]}
---
kind: Pod
apiVersion: v1
metadata: {name: web-2, labels: {app: web}}
spec: {nodeName: node-2, containers: [{name: web, image: web, ports: [{containerPort: 8080}]}]}
---
kind: Pod
apiVersion: v1
metadata: {name: client}
spec: {nodeName: node-1, containers: [{name: client, image: client}]}
---
kind: Service
apiVersion: v1
metadata: {name: web}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080, nodePort: 30080}]
---
kind: Service
apiVersion: v1
metadata: {name: one}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: {only: one}
  ports: [{port: 80, targetPort: 8080, nodePort: 30082}]
---
kind: Service
apiVersion: v1
metadata: {name: local}
spec:
  type: NodePort
  externalTrafficPolicy: Local
  ipFamilyPolicy: RequireDualStack
  selector: {only: one}
  ports: [{port: 80, targetPort: 8080, nodePort: 30081}]
---
kind: Service
apiVersion: v1
metadata: {name: none}
spec: {ipFamilyPolicy: RequireDualStack, selector: {app: nobody}, ports: [{port: 80}]}
"""


def shop(cni: str, proxy: str = "iptables", /, **options: str) -> Cluster:
    """A web server on node-1 and one on node-2, a client on node-1; a Service of both servers (node port 30080), two of
    the first alone (30082, and 30081 for its own node only), and one of nobody. `options` are the CNI's.
    """
    return Cluster.load(SHOP, cni=cni, cni_options=options, proxy=proxy, **DUAL_STACK)


def service(cluster: Cluster, name: str, version: int = 4) -> str:
    """The address of a Service in one family."""
    return _of(version, cluster.objects.service(f"default/{name}").cluster_ips)


def node(cluster: Cluster, name: str, version: int = 4) -> str:
    """The address of a node in one family."""
    return _of(version, next(node for node in cluster.objects.nodes if node.name == name).addresses)


def _of(version: int, addresses: tuple[str, ...]) -> str:
    return next(address for address in addresses if (":" in address) == (version == 6))
