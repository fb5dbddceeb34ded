"""A small cluster, and for each sentence of the policy API flows whose verdict was written down by hand.

A case has policies and lines of flows: `+ shop/web > shop/db:5432` must pass, `- …` must not. `>4` and `>6` choose the
family, `/UDP` and `/SCTP` the protocol, `via ADDRESS` says which Service's address was asked for, `as NAME` under which
DNS name an outside address was found. `out` is an address outside, in both families.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

from k8snetlab import api

CLUSTER = """
{apiVersion: v1, kind: Node, metadata: {name: node-1, labels: {role: edge}}, status: {addresses: [
  {type: InternalIP, address: 172.18.0.11}, {type: InternalIP, address: "fd00:172::11"}]}}
---
{apiVersion: v1, kind: Node, metadata: {name: node-2, labels: {role: core}}, status: {addresses: [
  {type: InternalIP, address: 172.18.0.12}, {type: InternalIP, address: "fd00:172::12"}]}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a, env: prod}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: ops, labels: {team: b}}}
---
{apiVersion: v1, kind: Namespace, metadata: {name: legacy, labels: {kubernetes.io/metadata.name: shop}}}
"""

_POD = """
{apiVersion: v1, kind: Pod, metadata: {name: %(name)s, namespace: %(namespace)s, labels: %(labels)s},
 spec: {nodeName: node-%(node)s, hostNetwork: %(host)s, containers: [{name: c, ports: %(ports)s}, %(more)s]},
 status: {phase: %(phase)s, podIP: "%(v4)s", podIPs: [{ip: "%(v4)s"}, {ip: "%(v6)s"}]}}
"""


def _pod(
    key: str, node: int, last: int, labels: str = "{}", ports: str = "[]", more: str = "", phase: str = "Running"
) -> str:
    namespace, name = key.split("/")
    host = last == 0
    v4, v6 = f"10.244.{node}.{last}", f"fd00:10:244:{node}::{last}"
    if host:
        v4, v6 = f"172.18.0.1{node}", f"fd00:172::1{node}"
    facts = {"name": name, "namespace": namespace, "labels": labels, "node": node, "host": str(host).lower()}
    return _POD % {**facts, "ports": ports, "more": more, "phase": phase, "v4": v4, "v6": v6}


PODS = (
    _pod("shop/web", 1, 2, "{app: web, tier: front}", "[{name: http, containerPort: 80}]"),
    _pod(
        "shop/api", 1, 3, '{app: api, tier: back, note: ""}',
        "[{name: http, containerPort: 8080}, {name: metrics, containerPort: 8080}, {name: admin, containerPort: 8081},"
        " {name: dns, containerPort: 53, protocol: UDP}]",
    ),
    _pod(
        "shop/db", 2, 3, "{app: db, tier: back}", "[{name: pg, containerPort: 5432}]",
        "{name: replica, ports: [{name: pg, containerPort: 5433}]}",
    ),
    _pod("ops/tool", 2, 4, "{app: web}"),
    _pod("ops/watch", 1, 5, "{app: watch}", "[{name: http, containerPort: 9000}]"),
    _pod("ops/agent", 1, 0, "{app: agent}", "[{name: http, containerPort: 80, hostPort: 80}]"),
    _pod("lab/rat", 2, 6),
    _pod("legacy/old", 1, 7, "{app: web}"),
    _pod("kube-system/dns", 1, 8, "{k8s-app: kube-dns}", "[{name: dns, containerPort: 53, protocol: UDP}]"),
    _pod("shop/done", 2, 4, "{app: done}", phase="Succeeded"),
)  # fmt: skip

OUTSIDE = ("203.0.113.10", "2001:db8:203::10")


class Case(NamedTuple):
    """What the API says, policies, flows with their verdicts, and whose choices count (attributes of `Choices`, or the
    name of a CNI).
    """

    says: str
    policies: tuple[str, ...]
    flows: str
    choices: Any = None


def np(spec: str, namespace: str = "shop") -> str:
    """A NetworkPolicy."""
    head = "apiVersion: networking.k8s.io/v1, kind: NetworkPolicy"
    return f"{{{head}, metadata: {{name: NAME, namespace: {namespace}}}, spec: {spec}}}"


def cnp(tier: str, priority: int, rules: str, subject: str = "{namespaces: {}}") -> str:
    """A ClusterNetworkPolicy."""
    head = "apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy"
    spec = f"{{tier: {tier}, priority: {priority}, subject: {subject}, {rules}}}"
    return f"{{{head}, metadata: {{name: NAME}}, spec: {spec}}}"


def into_db(*peers: str, ports: str = "") -> str:
    """The db of the shop lets in these peers."""
    said = f", ports: [{ports}]" if ports else ""
    return np(f"{{podSelector: {{matchLabels: {{app: db}}}}, ingress: [{{from: [{', '.join(peers)}]{said}}}]}}")


def ports_of(app: str, *ports: str) -> str:
    """A pod of the shop lets everybody in at these ports."""
    return np(f"{{podSelector: {{matchLabels: {{app: {app}}}}}, ingress: [{{ports: [{', '.join(ports)}]}}]}}")


def out_of_web(rules: str) -> str:
    """What the web of the shop may send."""
    return np(f"{{podSelector: {{matchLabels: {{app: web}}}}, policyTypes: [Egress], egress: [{rules}]}}")


CLOSED = np("{podSelector: {}}")
SEALED = np("{podSelector: {}, policyTypes: [Ingress, Egress]}")
OPEN = np("{podSelector: {}, ingress: [{}]}")

CASES: tuple[Case, ...] = (
    # --- isolation ----------------------------------------------------------------------------------------------------
    Case(
        "where no policy is, everything passes", (),
        """
        + lab/rat > shop/db:5432
        + shop/web > out:443
        + out >6 shop/web:80/SCTP
        + shop/web > node/node-2:10250
        """,
    ),
    Case(
        "a policy without rules closes its pods to all but themselves and their node", (CLOSED,),
        """
        - shop/web > shop/db:5432
        - shop/web >6 shop/db:5432
        - out > shop/web:80
        - node/node-1 > shop/db:5432
        + node/node-2 > shop/db:5432
        + node/node-2 >6 shop/db:5432
        + shop/db > shop/db:5432
        + shop/web > ops/watch:9000
        + ops/tool > ops/watch:9000
        """,
    ),
    Case(
        "Egress alone closes the way out and not the way in", (np("{podSelector: {}, policyTypes: [Egress]}"),),
        """
        - shop/web > shop/db:5432
        - shop/web > out:443
        - shop/web > kube-system/dns:53/UDP
        + ops/tool > shop/web:80
        + shop/web > node/node-1:10250
        - shop/web > node/node-2:10250
        + shop/web > shop/web:80
        """,
    ),
    Case(
        "an empty list of egress rules does not say Egress", (np("{podSelector: {}, egress: []}"),),
        """
        + shop/web > out:443
        - out > shop/web:80
        """,
    ),
    Case(
        "an egress rule says Egress, and Ingress is always said", (np("{podSelector: {}, egress: [{}]}"),),
        """
        + shop/web > out:443
        - out > shop/web:80
        """,
    ),
    Case(
        "an egress rule that allows nothing of what is sent closes the way out",
        (np("{podSelector: {}, ingress: [{}], egress: [{ports: [{port: 1}]}]}"),),
        """
        - shop/web > out:443
        + shop/web > out:1
        + out > shop/web:80
        """,
    ),
    Case(
        "the order of policyTypes means nothing", (np("{podSelector: {}, policyTypes: [Egress, Ingress]}"),),
        """
        - shop/web > out:443
        - out > shop/web:80
        """,
    ),
    Case(
        "rules of a direction that policyTypes does not name have no effect",
        (np("{podSelector: {}, policyTypes: [Ingress], ingress: [{}], egress: [{ports: [{port: 1}]}]}"),),
        """
        + shop/web > out:443
        + out > shop/web:80
        """,
    ),
    Case(
        "nor have they the other way round",
        (np("{podSelector: {}, policyTypes: [Egress], egress: [{}], ingress: [{ports: [{port: 1}]}]}"),),
        """
        + out > shop/web:80
        + shop/web > out:443
        """,
    ),
    Case(
        "a rule that says nothing lets everything in", (OPEN,),
        """
        + out > shop/db:1/SCTP
        + lab/rat >6 shop/db:53/UDP
        + node/node-1 > shop/db:22
        """,
    ),
    Case(
        "an empty list of peers is anybody",
        (np("{podSelector: {}, ingress: [{from: [], ports: [{port: 80}]}]}"),),
        """
        + out > shop/web:80
        + lab/rat > shop/web:80
        - out > shop/web:81
        """,
    ),
    Case(
        "an empty list of ports is every port", (into_db("{podSelector: {}}"),),
        """
        + shop/web > shop/db:1
        + shop/web > shop/db:65535/UDP
        - lab/rat > shop/db:1
        """,
    ),
    Case(
        "policies only add, in whatever order", (CLOSED, into_db("{podSelector: {matchLabels: {app: web}}}"), CLOSED),
        """
        + shop/web > shop/db:5432
        - shop/api > shop/db:5432
        - shop/web > shop/api:8080
        """,
    ),
    Case(
        "a connection needs both ends: the way out is closed", (SEALED, OPEN),
        """
        - shop/web > shop/db:5432
        + lab/rat > shop/db:5432
        + shop/web > shop/web:80
        """,
    ),
    Case(
        "a connection needs both ends: the way in is closed", (CLOSED, out_of_web("{}")),
        """
        - shop/web > shop/db:5432
        + shop/web > out:443
        """,
    ),
    Case(
        "a policy is about pods of its own namespace", (np("{podSelector: {}}", "ops"),),
        """
        - shop/web > ops/watch:9000
        + ops/watch > shop/web:80
        + shop/web > shop/db:5432
        """,
    ),
    # --- selectors ----------------------------------------------------------------------------------------------------
    Case(
        "a podSelector alone means pods of the policy's namespace",
        (into_db("{podSelector: {matchLabels: {app: web}}}"),),
        """
        + shop/web > shop/db:5432
        + shop/web >6 shop/db:5432
        - ops/tool > shop/db:5432
        - legacy/old > shop/db:5432
        - shop/api > shop/db:5432
        """,
    ),
    Case(
        "an empty podSelector means all pods of the policy's namespace", (into_db("{podSelector: {}}"),),
        """
        + shop/api > shop/db:5432
        - ops/tool > shop/db:5432
        - out > shop/db:5432
        """,
    ),
    Case(
        "an empty namespaceSelector means all pods everywhere, and nobody else",
        (into_db("{namespaceSelector: {}}"),),
        """
        + ops/tool > shop/db:5432
        + lab/rat > shop/db:5432
        + shop/web > shop/db:5432
        - out > shop/db:5432
        - node/node-1 > shop/db:5432
        - ops/agent > shop/db:5432
        """,
    ),
    Case(
        "a namespaceSelector alone means all pods of those namespaces",
        (into_db("{namespaceSelector: {matchLabels: {team: b}}}"),),
        """
        + ops/tool > shop/db:5432
        + ops/watch > shop/db:5432
        - shop/web > shop/db:5432
        - lab/rat > shop/db:5432
        """,
    ),
    Case(
        "two selectors in one item are an AND",
        (into_db("{namespaceSelector: {matchLabels: {team: b}}, podSelector: {matchLabels: {app: web}}}"),),
        """
        + ops/tool > shop/db:5432
        - ops/watch > shop/db:5432
        - shop/web > shop/db:5432
        """,
    ),
    Case(
        "two items are an OR, each by its own rules",
        (into_db("{namespaceSelector: {matchLabels: {team: b}}}", "{podSelector: {matchLabels: {app: web}}}"),),
        """
        + ops/tool > shop/db:5432
        + ops/watch > shop/db:5432
        + shop/web > shop/db:5432
        - shop/api > shop/db:5432
        - legacy/old > shop/db:5432
        """,
    ),
    Case(
        "several labels are an AND",
        (
            into_db(
                "{podSelector: {matchLabels: {tier: back, app: api}}}",
                "{podSelector: {matchLabels: {tier: back, app: web}}}",
            ),
        ),
        """
        + shop/api > shop/db:5432
        - shop/web > shop/db:5432
        """,
    ),
    Case(
        "labels and expressions are an AND",
        (
            into_db(
                "{podSelector: {matchLabels: {tier: front},"
                " matchExpressions: [{key: app, operator: In, values: [api]}]}}"
            ),
        ),
        """
        - shop/web > shop/db:5432
        - shop/api > shop/db:5432
        """,
    ),
    Case(
        "In wants the key and one of the values",
        (
            into_db(
                "{namespaceSelector: {}, podSelector:"
                " {matchExpressions: [{key: tier, operator: In, values: [front, x]}]}}"
            ),
        ),
        """
        + shop/web > shop/db:5432
        - shop/api > shop/db:5432
        - lab/rat > shop/db:5432
        """,
    ),
    Case(
        "NotIn matches a pod that lacks the key",
        (
            into_db(
                "{namespaceSelector: {}, podSelector:"
                " {matchExpressions: [{key: tier, operator: NotIn, values: [front]}]}}"
            ),
        ),
        """
        + lab/rat > shop/db:5432
        + ops/tool > shop/db:5432
        + shop/api > shop/db:5432
        - shop/web > shop/db:5432
        """,
    ),
    Case(
        "NotIn selects subjects that lack the key, too",
        (np("{podSelector: {matchExpressions: [{key: note, operator: NotIn, values: [x]}]}}"),),
        """
        - lab/rat > shop/web:80
        - lab/rat > shop/api:8080
        """,
    ),
    Case(
        "Exists wants the key, in every namespace that is meant",
        (into_db("{namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: Exists}]}}"),),
        """
        + ops/tool > shop/db:5432
        + shop/web > shop/db:5432
        - lab/rat > shop/db:5432
        """,
    ),
    Case(
        "DoesNotExist wants its absence, in every namespace that is meant",
        (into_db("{namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: DoesNotExist}]}}"),),
        """
        + lab/rat > shop/db:5432
        + kube-system/dns > shop/db:5432
        - ops/tool > shop/db:5432
        """,
    ),
    Case(
        "expressions on namespaces look at the namespaces' labels",
        (into_db("{namespaceSelector: {matchExpressions: [{key: team, operator: Exists}]}}"),),
        """
        + ops/tool > shop/db:5432
        + shop/web > shop/db:5432
        - lab/rat > shop/db:5432
        """,
    ),
    Case(
        "a namespace without the label is meant by DoesNotExist and NotIn",
        (
            into_db(
                "{namespaceSelector: {matchExpressions: [{key: team, operator: DoesNotExist},"
                " {key: env, operator: NotIn, values: [prod]}]}}"
            ),
        ),
        """
        + lab/rat > shop/db:5432
        + legacy/old > shop/db:5432
        - ops/tool > shop/db:5432
        - shop/web > shop/db:5432
        """,
    ),
    Case(
        "an empty value needs the key", (into_db('{podSelector: {matchLabels: {note: ""}}}'),),
        """
        + shop/api > shop/db:5432
        - shop/web > shop/db:5432
        """,
    ),
    Case(
        "labels are case-sensitive", (into_db("{podSelector: {matchLabels: {app: Web}}}"),),
        """
        - shop/web > shop/db:5432
        """,
    ),
    Case(
        "every namespace carries its name, whatever its manifest says",
        (into_db("{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}}"),),
        """
        + shop/web > shop/db:5432
        - legacy/old > shop/db:5432
        """,
    ),
    Case(
        "also a namespace that nobody wrote",
        (into_db("{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: lab}}}"),),
        """
        + lab/rat > shop/db:5432
        - shop/web > shop/db:5432
        """,
    ),
    # --- ports --------------------------------------------------------------------------------------------------------
    Case(
        "a number, in TCP unless said", (ports_of("db", "{port: 5432}"),),
        """
        + shop/web > shop/db:5432
        + out >6 shop/db:5432
        - shop/web > shop/db:5433
        - shop/web > shop/db:5431
        - shop/web > shop/db:5432/UDP
        """,
    ),
    Case(
        "a number in another protocol", (ports_of("db", "{port: 53, protocol: UDP}", "{port: 9, protocol: SCTP}"),),
        """
        + shop/web > shop/db:53/UDP
        - shop/web > shop/db:53
        + shop/web > shop/db:9/SCTP
        - shop/web > shop/db:9/UDP
        """,
    ),
    Case(
        "a protocol alone is all its ports", (ports_of("db", "{protocol: SCTP}"),),
        """
        + shop/web > shop/db:1/SCTP
        + shop/web > shop/db:65535/SCTP
        - shop/web > shop/db:1
        - shop/web > shop/db:1/UDP
        """,
    ),
    Case(
        "an entry that says nothing is all of TCP", (ports_of("db", "{}"),),
        """
        + shop/web > shop/db:65535
        - shop/web > shop/db:53/UDP
        """,
    ),
    Case(
        "a range includes both of its ends", (ports_of("db", "{port: 8000, endPort: 8080}"),),
        """
        + shop/web > shop/db:8000
        + shop/web > shop/db:8040
        + shop/web > shop/db:8080
        - shop/web > shop/db:7999
        - shop/web > shop/db:8081
        - shop/web > shop/db:8040/UDP
        """,
    ),
    Case(
        "a range may be one port, or in another protocol",
        (ports_of("db", "{port: 7, endPort: 7}", "{port: 20, endPort: 30, protocol: UDP}"),),
        """
        + shop/web > shop/db:7
        - shop/web > shop/db:8
        + shop/web > shop/db:30/UDP
        - shop/web > shop/db:30
        """,
    ),
    Case(
        "a name is another number in each pod",
        (np("{podSelector: {}, ingress: [{ports: [{port: http}]}]}"),),
        """
        + ops/tool > shop/web:80
        + ops/tool > shop/api:8080
        - ops/tool > shop/api:80
        - ops/tool > shop/web:8080
        - ops/tool > shop/db:80
        """,
    ),
    Case(
        "one number may have several names", (ports_of("api", "{port: metrics}"),),
        """
        + ops/tool > shop/api:8080
        - ops/tool > shop/api:8081
        """,
    ),
    Case(
        "one name may stand for several numbers", (ports_of("db", "{port: pg}"),),
        """
        + ops/tool > shop/db:5432
        + ops/tool > shop/db:5433
        - ops/tool > shop/db:5434
        """,
    ),
    Case(
        "a name counts in its own protocol", (ports_of("api", "{port: dns}"),),
        """
        - ops/tool > shop/api:53
        - ops/tool > shop/api:53/UDP
        """,
    ),
    Case(
        "and the rule must say that protocol", (ports_of("api", "{port: dns, protocol: UDP}"),),
        """
        + ops/tool > shop/api:53/UDP
        - ops/tool > shop/api:53
        """,
    ),
    Case(
        "a name that nobody has matches nothing", (ports_of("web", "{port: https}"),),
        """
        - ops/tool > shop/web:80
        - ops/tool > shop/web:443
        """,
    ),
    Case(
        "in egress the name is the destination's", (out_of_web("{ports: [{port: http}]}"),),
        """
        + shop/web > shop/api:8080
        + shop/web > ops/watch:9000
        - shop/web > shop/api:80
        - shop/web > out:80
        - shop/web > node/node-2:80
        """,
    ),
    Case(
        "peers and ports of a rule are an AND, rules are an OR",
        (
            np(
                "{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {app: web}}}], ports: [{port: 1}]},"
                " {from: [{podSelector: {matchLabels: {app: api}}}], ports: [{port: 2}, {port: 3}]}]}"
            ),
        ),
        """
        + shop/web > shop/db:1
        - shop/web > shop/db:2
        + shop/api > shop/db:2
        + shop/api > shop/db:3
        - shop/api > shop/db:1
        """,
    ),
    # --- addresses ----------------------------------------------------------------------------------------------------
    Case(
        "a block means pods, by their address", (into_db("{ipBlock: {cidr: 10.244.1.0/24}}"),),
        """
        + shop/web > shop/db:5432
        + ops/watch > shop/db:5432
        - ops/tool > shop/db:5432
        - shop/web >6 shop/db:5432
        - out > shop/db:5432
        """,
    ),
    Case(
        "a block has holes", (into_db("{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.0/28, 203.0.113.64/26]}}"),),
        """
        - out > shop/db:5432
        + 203.0.113.16 > shop/db:5432
        - 203.0.113.100 > shop/db:5432
        + 203.0.113.128 > shop/db:5432
        - 203.0.114.1 > shop/db:5432
        """,
    ),
    Case(
        "a hole of one block may be in another block",
        (
            into_db(
                "{ipBlock: {cidr: 203.0.113.0/24, except: [203.0.113.0/28]}}", "{ipBlock: {cidr: 203.0.113.10/32}}"
            ),
        ),
        """
        + out > shop/db:5432
        - 203.0.113.11 > shop/db:5432
        + 203.0.113.20 > shop/db:5432
        """,
    ),
    Case(
        "::/0 does not mean IPv4", (into_db('{ipBlock: {cidr: "::/0"}}'),),
        """
        - out >4 shop/db:5432
        + out >6 shop/db:5432
        - shop/web >4 shop/db:5432
        + shop/web >6 shop/db:5432
        """,
    ),
    Case(
        "0.0.0.0/0 does not mean IPv6", (into_db("{ipBlock: {cidr: 0.0.0.0/0}}"),),
        """
        + out >4 shop/db:5432
        - out >6 shop/db:5432
        + ops/tool >4 shop/db:5432
        + node/node-1 > shop/db:5432
        """,
    ),
    Case(
        "blocks of IPv6 have holes too",
        (into_db('{ipBlock: {cidr: "fd00:10:244::/48", except: ["fd00:10:244:2::/64"]}}'),),
        """
        + shop/web >6 shop/db:5432
        - ops/tool >6 shop/db:5432
        - shop/web >4 shop/db:5432
        """,
    ),
    Case(
        "bits beyond the length do not matter", (into_db("{ipBlock: {cidr: 10.244.1.77/24}}"),),
        """
        + shop/web > shop/db:5432
        - ops/tool > shop/db:5432
        """,
    ),
    Case(
        "egress to a block", (out_of_web("{to: [{ipBlock: {cidr: 203.0.113.0/24}}], ports: [{port: 443}]}"),),
        """
        + shop/web > out:443
        - shop/web > out:80
        - shop/web > shop/db:443
        - shop/web >6 out:443
        """,
    ),
    Case(
        "egress to a block with pods in it", (out_of_web("{to: [{ipBlock: {cidr: 10.244.2.0/24}}]}"),),
        """
        + shop/web > shop/db:5432
        + shop/web > lab/rat:1/UDP
        - shop/web > shop/api:8080
        """,
    ),
    Case(
        "a node is an address", (into_db("{ipBlock: {cidr: 172.18.0.11/32}}"),),
        """
        + node/node-1 > shop/db:5432
        + ops/agent > shop/db:5432
        - shop/web > shop/db:5432
        """,
    ),
    # --- egress by selectors, DNS -------------------------------------------------------------------------------------
    Case(
        "egress by selectors",
        (
            out_of_web(
                "{to: [{podSelector: {matchLabels: {app: api}}},"
                " {namespaceSelector: {matchLabels: {team: b}}, podSelector: {matchLabels: {app: watch}}}]}"
            ),
        ),
        """
        + shop/web > shop/api:8080
        + shop/web > ops/watch:9000
        - shop/web > ops/tool:80
        - shop/web > shop/db:5432
        - shop/web > out:443
        + shop/api > shop/db:5432
        """,
    ),
    Case(
        "egress to DNS must name the protocol that is used",
        (
            out_of_web(
                "{to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: kube-system}},"
                " podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: 53, protocol: UDP}]}"
            ),
        ),
        """
        + shop/web > kube-system/dns:53/UDP
        - shop/web > kube-system/dns:53
        - shop/web > shop/api:53/UDP
        """,
    ),
    Case(
        "what is behind a Service counts, not what was asked for",
        (out_of_web("{to: [{podSelector: {}}], ports: [{port: 80}]}, {to: [{ipBlock: {cidr: 10.96.0.0/12}}]}"),),
        """
        - shop/web > shop/api:8080 via 10.96.0.20
        + shop/web > shop/api:80 via 10.96.0.20
        """,
    ),
    Case(
        "unless the plugin looks at blocks before",
        (out_of_web("{to: [{podSelector: {}}], ports: [{port: 80}]}, {to: [{ipBlock: {cidr: 10.96.0.0/12}}]}"),),
        """
        + shop/web > shop/api:8080 via 10.96.0.20
        - shop/web > shop/api:8080
        + shop/web > shop/api:80 via 203.0.113.9
        """,
        {"blocks_before_dnat": True},
    ),
    # --- what no policy forbids, and whom none means ------------------------------------------------------------------
    Case(
        "a pod reaches itself, at every address and port", (SEALED,),
        """
        + shop/web >4 shop/web:80
        + shop/web >6 shop/web:53/UDP
        + shop/web > shop/web:80 via 10.96.0.9
        - shop/web > shop/api:8080
        """,
    ),
    Case(
        "a pod behind its own Service is a choice", (SEALED,),
        """
        + shop/web > shop/web:80
        - shop/web > shop/web:80 via 10.96.0.9
        """,
        {"own_service": False},
    ),
    Case(
        "its own node reaches a pod, by either address, and pods of the node's network with it", (SEALED,),
        """
        + node/node-1 >4 shop/web:80
        + node/node-1 >6 shop/web:80
        + ops/agent > shop/web:80
        - ops/agent > shop/db:5432
        - node/node-2 > shop/web:80
        + shop/web > node/node-1:22
        + shop/web > ops/agent:80
        - shop/db > ops/agent:80
        """,
    ),
    Case(
        "the way to its own node is a choice", (SEALED,),
        """
        + node/node-1 > shop/web:80
        - shop/web > node/node-1:22
        - shop/web > ops/agent:80
        """,
        {"pod_to_own_node": False},
    ),
    Case(
        "the way from its own node is one too", (SEALED,),
        """
        - node/node-1 > shop/web:80
        - ops/agent > shop/web:80
        """,
        {"own_node_to_pod": False},
    ),
    Case(
        "a pod with hostNetwork is its node: no selector means it", (np("{podSelector: {}}", "ops"), CLOSED),
        """
        + lab/rat > ops/agent:80
        - lab/rat > ops/watch:9000
        """,
    ),
    Case(
        "or it is a pod like others: as a subject", (np("{podSelector: {}}", "ops"),),
        """
        - lab/rat > ops/agent:80
        + node/node-1 > ops/agent:80
        """,
        {"host_network_subjects": True},
    ),
    Case(
        "or as a peer", (into_db("{namespaceSelector: {}, podSelector: {matchLabels: {app: agent}}}"),),
        """
        + ops/agent > shop/db:5432
        - node/node-1 > shop/db:5432
        - 172.18.0.11 > shop/db:5432
        """,
        {"host_network_peers": True},
    ),
    Case(
        "the names of its ports are not the node's", (out_of_web("{ports: [{port: http}]}"),),
        """
        - shop/web > ops/agent:80
        + shop/web > ops/watch:9000
        """,
        {"pod_to_own_node": False},
    ),
    Case(
        "a completed pod is nobody, and its address another's", (into_db("{podSelector: {matchLabels: {app: done}}}"),),
        """
        - 10.244.2.4 > shop/db:5432
        - ops/tool > shop/db:5432
        """,
    ),
    # --- ClusterNetworkPolicy -----------------------------------------------------------------------------------------
    Case(
        "Admin denies what NetworkPolicies allow",
        (OPEN, cnp("Admin", 5, "ingress: [{action: Deny, from: [{namespaces: {matchLabels: {team: b}}}]}]")),
        """
        - ops/tool > shop/web:80
        - ops/tool >6 shop/web:80
        + lab/rat > shop/web:80
        + out > shop/web:80
        """,
    ),
    Case(
        "Admin accepts what NetworkPolicies forbid",
        (CLOSED, cnp("Admin", 5, "ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: b}}}]}]")),
        """
        + ops/tool > shop/web:80
        - lab/rat > shop/web:80
        """,
    ),
    Case(
        "Admin decides at one end only",
        (CLOSED, cnp("Admin", 5, "egress: [{action: Accept, to: [{namespaces: {}}]}]")),
        """
        - shop/web > shop/db:5432
        + shop/web > ops/watch:9000
        """,
    ),
    Case(
        "Pass leaves the tier, its other policies too",
        (
            into_db("{namespaceSelector: {matchLabels: {team: b}}}"),
            cnp(
                "Admin", 5,
                "ingress: [{action: Pass, from: [{namespaces: {matchLabels: {team: b}}}]},"
                " {action: Deny, from: [{namespaces: {}}]}]",
            ),
            cnp("Admin", 6, "ingress: [{action: Deny, from: [{namespaces: {}}]}]"),
        ),
        """
        + ops/tool > shop/db:5432
        + ops/tool > shop/web:80
        - shop/web > shop/db:5432
        - lab/rat > shop/web:80
        """,
    ),
    Case(
        "the smaller priority is asked first",
        (
            cnp("Admin", 9, "ingress: [{action: Deny, from: [{namespaces: {}}]}]"),
            cnp("Admin", 10, "ingress: [{action: Accept, from: [{namespaces: {}}]}]"),
            cnp("Admin", 2, "ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: b}}}]}]"),
        ),
        """
        + ops/tool > shop/db:5432
        - shop/web > shop/db:5432
        """,
    ),
    Case(
        "the first rule that matches counts",
        (
            cnp(
                "Admin", 0,
                "ingress: [{action: Accept, from: [{pods: {podSelector: {matchLabels: {app: web}}}}]},"
                " {action: Deny, from: [{namespaces: {}}]},"
                " {action: Accept, from: [{pods: {podSelector: {matchLabels: {app: api}}}}]}]",
            ),
        ),
        """
        + shop/web > shop/db:5432
        + ops/tool > shop/db:5432
        - shop/api > shop/db:5432
        + out > shop/db:5432
        """,
    ),
    Case(
        "what no rule matches is not closed",
        (cnp("Admin", 5, "ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: b}}}]}]"),),
        """
        + lab/rat > shop/web:80
        + out > shop/web:80
        + shop/web > out:443
        """,
    ),
    Case(
        "Baseline is asked where no NetworkPolicy selects",
        (
            into_db("{namespaceSelector: {matchLabels: {team: b}}}"),
            cnp("Baseline", 5, "ingress: [{action: Deny, from: [{namespaces: {}}]}]"),
        ),
        """
        - ops/tool > shop/web:80
        + ops/tool > shop/db:5432
        + out > shop/web:80
        - out > shop/db:5432
        """,
    ),
    Case(
        "Baseline does not open what a NetworkPolicy closes",
        (CLOSED, cnp("Baseline", 5, "ingress: [{action: Accept, from: [{namespaces: {}}]}]")),
        """
        - ops/tool > shop/web:80
        """,
    ),
    Case(
        "Pass in Admin leads to Baseline, and Pass in Baseline to what is usual",
        (
            cnp("Admin", 5, "ingress: [{action: Pass, from: [{namespaces: {}}]}]"),
            cnp(
                "Baseline", 5,
                "ingress: [{action: Pass, from: [{namespaces: {matchLabels: {team: b}}}]},"
                " {action: Deny, from: [{namespaces: {}}]}]",
            ),
        ),
        """
        + ops/tool > shop/web:80
        - lab/rat > shop/web:80
        """,
    ),
    Case(
        "Admin stands before Baseline whatever the priorities",
        (
            cnp("Baseline", 0, "ingress: [{action: Deny, from: [{namespaces: {}}]}]"),
            cnp("Admin", 1000, "ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: b}}}]}]"),
        ),
        """
        + ops/tool > shop/web:80
        - lab/rat > shop/web:80
        """,
    ),
    Case(
        "a subject is all pods of namespaces, or some of them",
        (
            cnp(
                "Admin", 5, "ingress: [{action: Deny, from: [{namespaces: {}}]}]",
                "{pods: {namespaceSelector: {matchLabels: {team: a}}, podSelector: {matchLabels: {app: web}}}}",
            ),
            cnp(
                "Admin", 6, "egress: [{action: Deny, to: [{namespaces: {}}]}]", "{namespaces: {matchLabels: {team: b}}}"
            ),
        ),
        """
        - lab/rat > shop/web:80
        + lab/rat > shop/api:8080
        + lab/rat > ops/tool:80
        - ops/tool > lab/rat:80
        + ops/tool > out:443
        """,
    ),
    Case(
        "ports are numbers and ranges of a protocol",
        (
            cnp(
                "Admin", 5,
                "ingress: [{action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 80}}},"
                " {tcp: {destinationPort: {range: {start: 90, end: 99}}}},"
                " {udp: {destinationPort: {range: {start: 1, end: 65535}}}}]}]",
            ),
        ),
        """
        - lab/rat > shop/web:80
        - lab/rat > shop/web:90
        - lab/rat > shop/web:99
        + lab/rat > shop/web:81
        + lab/rat > shop/web:100
        + lab/rat > shop/web:89
        - lab/rat > shop/web:1/UDP
        + lab/rat > shop/web:80/SCTP
        """,
    ),
    Case(
        "a named port counts in every protocol",
        (
            cnp(
                "Admin", 5,
                "ingress: [{action: Deny, from: [{namespaces: {}}],"
                " protocols: [{destinationNamedPort: dns}, {destinationNamedPort: http}]}]",
            ),
        ),
        """
        - lab/rat > shop/api:53/UDP
        + lab/rat > shop/api:53
        - lab/rat > shop/api:8080
        + lab/rat > shop/db:8080
        """,
    ),
    Case(
        "networks mean pods too, by their address",
        (
            cnp(
                "Admin", 5,
                "egress: [{action: Deny, to: [{networks: [203.0.113.0/24, 10.244.2.0/24]},"
                ' {networks: ["2001:db8::/32"]}]}]',
            ),
        ),
        """
        - shop/web > out:443
        - shop/web >6 out:443
        - shop/web > shop/db:5432
        + shop/web >6 shop/db:5432
        + shop/web > shop/api:8080
        + shop/web > 198.51.100.1:443
        """,
    ),
    Case(
        "nodes are meant by their labels, and what uses their addresses",
        (cnp("Admin", 5, "egress: [{action: Deny, to: [{nodes: {matchLabels: {role: edge}}}]}]"),),
        """
        - shop/db > node/node-1:10250
        - shop/db >6 node/node-1:10250
        - shop/db > ops/agent:80
        + shop/web > node/node-1:10250
        + shop/db > shop/web:80
        + shop/web > node/node-2:10250
        """,
    ),
    Case(
        "domain names are those that an address was found under",
        (
            cnp(
                "Admin", 5,
                'egress: [{action: Accept, to: [{domainNames: ["*.example.com", bank.test]}]},'
                " {action: Deny, to: [{networks: [0.0.0.0/0]}]}]",
            ),
        ),
        """
        + shop/web >4 out:443 as www.example.com
        + shop/web >4 out:443 as a.b.example.com
        - shop/web >4 out:443 as example.com
        + shop/web >4 out:443 as Bank.test.
        - shop/web >4 out:443 as www.bank.test
        - shop/web >4 out:443
        + shop/web >6 out:443
        """,
    ),
    Case(
        "a rule of domain names that a plugin does not read is not there",
        (
            cnp(
                "Admin", 5,
                "egress: [{action: Accept, to: [{domainNames: [bank.test]}]},"
                " {action: Deny, to: [{networks: [0.0.0.0/0]}]}]",
            ),
        ),
        """
        - shop/web >4 out:443 as bank.test
        """,
        "calico",
    ),
    Case(
        "pods with hostNetwork are neither subjects nor peers, whatever a plugin does with NetworkPolicies",
        (cnp("Admin", 5, "ingress: [{action: Deny, from: [{namespaces: {}}]}]"),),
        """
        + lab/rat > ops/agent:80
        + ops/agent > shop/db:5432
        - lab/rat > ops/watch:9000
        """,
        {"host_network_subjects": True, "host_network_peers": True},
    ),
    Case(
        "itself and its own node are above every tier",
        (
            cnp(
                "Admin", 0,
                "ingress: [{action: Deny, from: [{namespaces: {}}]}], egress: [{action: Deny, to: [{nodes: {}}]}]",
            ),
        ),
        """
        + shop/web > shop/web:80
        + node/node-1 > shop/web:80
        + shop/web > node/node-1:10250
        - shop/web > node/node-2:10250
        """,
    ),
    # --- what plugins do ----------------------------------------------------------------------------------------------
    Case(
        "flannel enforces nothing",
        (SEALED, cnp("Admin", 0, "ingress: [{action: Deny, from: [{namespaces: {}}]}]")),
        """
        + shop/web > shop/db:5432
        + out > shop/web:80
        """,
        "flannel",
    ),
    Case(
        "Calico judges the way to the own node and a pod behind its own Service", (SEALED,),
        """
        + node/node-1 > shop/web:80
        - shop/web > node/node-1:22
        - shop/web > shop/web:80 via 10.96.0.9
        + shop/web > shop/web:80
        """,
        "calico",
    ),
    Case(
        "in Calico a block means pods and nodes", (into_db("{ipBlock: {cidr: 0.0.0.0/0}}"),),
        """
        + shop/web > shop/db:5432
        + node/node-1 > shop/db:5432
        """,
        "calico",
    ),
    Case(
        "in Cilium a block means neither", (into_db("{ipBlock: {cidr: 0.0.0.0/0}}"),),
        """
        - shop/web > shop/db:5432
        - node/node-1 > shop/db:5432
        - ops/agent > shop/db:5432
        + node/node-2 > shop/db:5432
        + out > shop/db:5432
        """,
        "cilium",
    ),
    Case(
        "Cilium judges the way to the own node, and not a pod behind its own Service", (SEALED,),
        """
        - shop/web > node/node-1:22
        + shop/web > shop/web:80 via 10.96.0.9
        """,
        "cilium",
    ),
    Case(
        "Weave cuts a range to its first port", (ports_of("web", "{port: 8000, endPort: 8080}"),),
        """
        + lab/rat >4 shop/web:8000
        - lab/rat >4 shop/web:8001
        """,
        "weave",
    ),
    Case(
        "Weave skips a policy that names a port, in whichever direction",
        (
            ports_of("web", "{port: http}", "{port: 1}"),
            np(
                "{podSelector: {matchLabels: {app: api}}, ingress: [{ports: [{port: 9}]}],"
                " egress: [{ports: [{port: x}]}]}"
            ),
        ),
        """
        + lab/rat >4 shop/web:80
        + lab/rat >4 shop/web:2
        + lab/rat >4 shop/api:1
        + shop/api >4 out:443
        """,
        "weave",
    ),
    Case(
        "Weave enforces nothing in IPv6 and reads no ClusterNetworkPolicy",
        (CLOSED, cnp("Admin", 0, "ingress: [{action: Accept, from: [{namespaces: {}}]}]")),
        """
        - lab/rat >4 shop/web:80
        + lab/rat >6 shop/web:80
        + shop/web >4 node/node-1:22
        """,
        "weave",
    ),
)  # fmt: skip


# --- asking -----------------------------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """A line of a case, read."""

    line: str
    allowed: bool
    source: str
    destination: str
    port: int
    protocol: str
    of: int | None
    service: str
    domain: str


_LINE = re.compile(
    r"(?P<sign>[+-]) (?P<source>\S+) >(?P<of>[46]?) (?P<to>\S+):(?P<port>\d+)(/(?P<protocol>\w+))?"
    r"( via (?P<service>\S+))?( as (?P<domain>\S+))?"
)


@cache
def flows(text: str) -> tuple[Asked, ...]:
    """The flows of a case."""
    return tuple(_read(line.strip()) for line in text.strip().splitlines())


def _read(line: str) -> Asked:
    found = _LINE.fullmatch(line)
    assert found is not None, line
    return Asked(
        line, found["sign"] == "+", found["source"], found["to"], int(found["port"]), found["protocol"] or "TCP",
        int(found["of"]) if found["of"] else None, found["service"] or "", found["domain"] or "",
    )  # fmt: skip


@cache
def cluster() -> tuple[api.Object, ...]:
    """The nodes, namespaces and pods that all cases share."""
    return api.load("\n---\n".join((CLUSTER, *PODS)).replace(", ]", "]")).objects


@cache
def written(case_policies: tuple[str, ...]) -> tuple[api.Object, ...]:
    """The policies of a case, as objects; they have no names of their own, so they get one each."""
    texts = [text.replace("NAME", f"policy-{index}", 1) for index, text in enumerate(case_policies)]
    return api.load("\n---\n".join(texts) + "\n").objects if texts else ()


def wrong(case: Case, plan: ModuleType, engine: ModuleType) -> Iterator[str]:
    """The flows of a case that are judged otherwise by a plan and an engine, those of the package or others."""
    choices = plan.BY_THE_BOOK
    if isinstance(case.choices, str):
        choices = plan.choices_of(case.choices)
    elif case.choices:
        choices = plan.Choices(**case.choices)
    policies = plan.of((*cluster(), *written(case.policies)), choices=choices)
    for asked in flows(case.flows):
        source, destination = (_end(plan, policies, who, asked.domain) for who in (asked.source, asked.destination))
        found = engine.verdict(
            policies, source, destination, asked.port, asked.protocol, of=asked.of, service=asked.service
        )
        if bool(found) != asked.allowed:
            yield f"{case.says}: {asked.line}\n{found}"


def _end(plan: ModuleType, policies: Any, who: str, domain: str) -> Any:
    return plan.Outside(OUTSIDE, domain) if who == "out" else policies.end(who)
