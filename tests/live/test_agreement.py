from __future__ import annotations

import pytest

from k8snetlab import live
from k8snetlab.cluster import Cluster, example
from tests.live.questions import everybody, pod_pairs, services

CNIS = [("flannel", {}), ("flannel", {"backend": "host-gw"}), ("bridge", {})]


def disagreements(cluster: Cluster, probes: list[live.Probe]) -> list[str]:
    """What the kernel does that the walk does not say."""
    with live.Lab(cluster) as lab:
        sights = lab.probe(probes)
    return [str(each) for each in live.compare(cluster.network, probes, sights) if not each.agrees]


@pytest.mark.parametrize(("cni", "options"), CNIS, ids=["flannel", "flannel host-gw", "bridge"])
def test_the_bookshop_is_on_the_kernel_as_in_the_walk(kernel: None, cni: str, options: dict[str, str]) -> None:
    """All pods to all pods, and every Service from pods, nodes and outside: every probe ends as the walk says."""
    shop = example("bookshop", cni=cni, cni_options=options)
    probes = [*pod_pairs(shop), *services(shop, everybody(shop, some=4))]
    wrong = disagreements(shop, probes)
    assert not wrong, "\n".join(wrong[:20])


DUAL = """
kind: Pod
apiVersion: v1
metadata: {name: web, labels: {app: web}}
spec: {nodeName: node-1, containers: [{name: web, image: web, ports: [{containerPort: 8080}]}]}
---
kind: Pod
apiVersion: v1
metadata: {name: web2, labels: {app: web}}
spec: {nodeName: node-2, containers: [{name: web, image: web, ports: [{containerPort: 8080}]}]}
---
kind: Pod
apiVersion: v1
metadata: {name: client}
spec: {nodeName: node-2, containers: [{name: client, image: client}]}
---
kind: Service
apiVersion: v1
metadata: {name: web}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
---
kind: Service
apiVersion: v1
metadata: {name: none}
spec: {ipFamilyPolicy: RequireDualStack, selector: {app: nobody}, ports: [{port: 80}]}
"""


@pytest.mark.parametrize(("cni", "options"), CNIS, ids=["flannel", "flannel host-gw", "bridge"])
def test_a_cluster_of_both_families_is_on_the_kernel_as_in_the_walk(
    kernel: None, cni: str, options: dict[str, str]
) -> None:
    """The same in IPv4 and IPv6: pods, Services and node ports."""
    cluster = Cluster.load(
        DUAL,
        cni=cni,
        cni_options=options,
        node_cidr="172.18.0.0/16,fd00:172::/64",
        pod_cidr="10.244.0.0/16,fd00:10:244::/56",
        service_cidr="10.96.0.0/12,fd00:10:96::/108",
    )
    probes = [*pod_pairs(cluster), *services(cluster, everybody(cluster, some=4))]
    assert {":" in probe.address for probe in probes} == {True, False}
    wrong = disagreements(cluster, probes)
    assert not wrong, "\n".join(wrong[:20])
