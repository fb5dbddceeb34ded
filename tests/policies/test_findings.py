"""What is probably not what somebody wanted."""

from __future__ import annotations

import pytest

from k8snetlab import api
from k8snetlab.address import Prefix
from k8snetlab.policies import plan
from k8snetlab.policies.covering import covers_peer, covers_ports, covers_selector
from k8snetlab.policies.findings import Finding, FindingKind, findings
from k8snetlab.policies.plan import ANY_PORT, ANYONE, Block, Ports
from tests.policies import table
from tests.policies.table import CLOSED, cnp, into_db, np, out_of_web, ports_of
from tests.shops import bookshop

ALL = "ingress: [{action: %s, from: [{namespaces: {}}]}]"
PROJECT = "ingress: [{action: %s, from: [{namespaces: {matchLabels: {team: b}}}]}]"
SHOP = "{pods: {namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}, podSelector: {}}}"
NEEDS_DNS = "{to: [{namespaceSelector: {}, podSelector: {matchLabels: {k8s-app: kube-dns}}}], ports: [{port: 53%s}]}"


def found(*policies: str, cni: str = "") -> tuple[Finding, ...]:
    """What is found in these policies."""
    choices = plan.choices_of(cni) if cni else plan.BY_THE_BOOK
    return findings(plan.of((*table.cluster(), *table.written(policies)), choices=choices))


def of(kind: FindingKind, *policies: str, cni: str = "") -> list[str]:
    """Object, field and message of the findings of a kind."""
    said = found(*policies, cni=cni)
    return [f"{each.object.rpartition('/')[2]} {each.field}: {each.message}" for each in said if each.kind is kind]


K = FindingKind


@pytest.mark.parametrize(
    ("kind", "policies", "says"),
    [
        (K.SELECTS_NOBODY, (np("{podSelector: {matchLabels: {app: dbb}}}"),),
         "policy-0 spec.podSelector: no pod is selected: none has app=dbb"),
        (K.SELECTS_NOBODY, (np("{podSelector: {matchLabels: {app: watch}}}"),),
         "policy-0 spec.podSelector: no pod is selected in namespace shop; app=watch is in ops"),
        (K.SELECTS_NOBODY, (cnp("Admin", 1, ALL % "Deny", "{namespaces: {matchLabels: {team: c}}}"),),
         "ClusterNetworkPolicy policy-0 spec.subject: no pod is selected: no namespace has team=c"),
        (K.MEANS_NOBODY, (into_db("{podSelector: {matchLabels: {app: watch}}}"),),
         "policy-0 spec.ingress[0].from[0]: no pod is meant in namespace shop; app=watch is in ops"),
        (K.MEANS_NOBODY, (into_db("{podSelector: {}}", "{namespaceSelector: {matchLabels: {team: x}}}"),),
         "policy-0 spec.ingress[0].from[1]: no pod is meant: no namespace has team=x"),
        (K.MEANS_NOBODY,
         (into_db("{namespaceSelector: {matchLabels: {team: b}}, podSelector: {matchLabels: {app: db}}}"),),
         "policy-0 spec.ingress[0].from[0]: no pod is meant: none in ops has app=db"),
        (K.UNKNOWN_PORT, (ports_of("db", "{port: http}"),),
         "policy-0 spec.ingress[0]: no selected pod calls a port http/TCP"),
        (K.UNKNOWN_PORT, (ports_of("api", "{port: dns}"),),
         "policy-0 spec.ingress[0]: no selected pod calls a port dns/TCP; it is a name of UDP"),
        (K.WITHOUT_EFFECT, (np("{podSelector: {}, policyTypes: [Ingress], egress: [{}]}"),),
         "policy-0 spec.egress: policyTypes does not name Egress, so these rules do nothing"),
        (K.REDUNDANT, (into_db("{namespaceSelector: {}}"), into_db("{namespaceSelector: {matchLabels: {team: b}}}")),
         "policy-1 spec.ingress[0]: NetworkPolicy shop/policy-0 spec.ingress[0] allows all that it allows"),
        (K.REDUNDANT, (into_db("{podSelector: {}}", ports="{port: 80}"), into_db("{podSelector: {}}")),
         "policy-0 spec.ingress[0]: NetworkPolicy shop/policy-1 spec.ingress[0] allows all that it allows"),
        (K.REDUNDANT, (into_db("{podSelector: {}}"), into_db("{podSelector: {}}")),
         "policy-1 spec.ingress[0]: NetworkPolicy shop/policy-0 spec.ingress[0] allows all that it allows"),
        (K.REDUNDANT, (np("{podSelector: {}, ingress: [{}, {ports: [{port: 80}]}]}"),),
         "policy-0 spec.ingress[1]: spec.ingress[0] allows all that it allows"),
        (K.SHADOWED, (cnp("Admin", 1, ALL % "Accept"), cnp("Admin", 2, PROJECT % "Deny")),
         "ClusterNetworkPolicy policy-1 spec.ingress[0]: ClusterNetworkPolicy policy-0 spec.ingress[0] decides"),
        (K.SHADOWED, (cnp("Admin", 1, ALL % "Deny"), into_db("{podSelector: {}}")),
         "policy-1 spec.ingress[0]: ClusterNetworkPolicy policy-0 spec.ingress[0] decides before it"),
        (K.SHADOWED, (CLOSED, cnp("Baseline", 1, ALL % "Deny", SHOP)),
         "ClusterNetworkPolicy policy-1 spec.ingress[0]: NetworkPolicy shop/policy-0 selects all of these pods"),
        (K.SAME_PRIORITY, (cnp("Admin", 1, ALL % "Accept"), cnp("Admin", 1, PROJECT % "Deny")),
         "ClusterNetworkPolicy policy-1 spec.priority: ClusterNetworkPolicy policy-0 has priority 1 too"),
        (K.LOOSE_SPELLING, (into_db("{ipBlock: {cidr: 10.0.0.1/8}}"),),
         "policy-0 spec.ingress[0].from[0].ipBlock.cidr: Invalid value"),
        (K.OR_LIKE_AND,
         (into_db("{namespaceSelector: {matchLabels: {team: b}}}", "{podSelector: {matchLabels: {app: web}}}"),),
         "policy-0 spec.ingress[0]: namespaceSelector team=b and podSelector app=web are two items, so either is"),
        (K.NO_DNS, (out_of_web("{to: [{podSelector: {}}]}"),),
         "policy-0 spec.egress: the way out of 1 pod is closed, to the cluster's DNS (53/UDP) too"),
        (K.NO_DNS, (out_of_web(NEEDS_DNS % ""),), "policy-0 spec.egress: the way out of 1 pod is closed"),
        (K.OPEN_TO_ALL, (ports_of("web", "{port: 80}"),),
         "policy-0 spec.ingress[0]: every address is let in, inside and outside of the cluster, at 80/TCP"),
        (K.OPEN_TO_ALL, (into_db("{ipBlock: {cidr: 0.0.0.0/0}}"),), "policy-0 spec.ingress[0]: every address is let"),
        (K.FUTURE_PODS, (into_db("{namespaceSelector: {}}"),),
         "policy-0 spec.ingress[0]: pods without any label are let in, from every namespace there is or will be"),
        (K.FUTURE_PODS, (into_db("{podSelector: {}}"),),
         "Namespace shop : a new pod without the labels that policies ask for is open to everybody"),
        (K.UNSELECTED, (into_db("{podSelector: {}}"),),
         "Namespace shop : no policy selects 2 of 3 pods for ingress: everybody may connect"),
    ],
)  # fmt: skip
def test_each_kind_is_found(kind: FindingKind, policies: tuple[str, ...], says: str) -> None:
    """With the field that it is about, and what is so."""
    assert any(each.startswith(says) for each in of(kind, *policies))


@pytest.mark.parametrize(
    ("kind", "policies"),
    [
        (K.SELECTS_NOBODY, (CLOSED,)),
        (K.MEANS_NOBODY, (into_db("{podSelector: {}}", "{ipBlock: {cidr: 192.0.2.0/24}}"),)),
        (K.UNKNOWN_PORT, (out_of_web("{ports: [{port: http}]}"),)),
        (K.WITHOUT_EFFECT, (np("{podSelector: {}, egress: [{}]}"),)),
        (K.REDUNDANT, (into_db("{podSelector: {}}", ports="{port: 80}"),
                       into_db("{podSelector: {}}", ports="{port: 81}"))),
        (K.REDUNDANT, (np("{podSelector: {matchLabels: {app: api}}, ingress: [{}]}"), into_db("{podSelector: {}}"))),
        (K.REDUNDANT, (into_db("{ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}"),
                       into_db("{ipBlock: {cidr: 10.1.0.0/24}}"))),
        (K.SHADOWED, (CLOSED, cnp("Baseline", 1, ALL % "Deny"))),
        (K.SHADOWED, (cnp("Admin", 1, ALL % "Pass"), into_db("{podSelector: {}}"))),
        (K.SHADOWED, (cnp("Admin", 1, PROJECT % "Deny"), cnp("Admin", 2, ALL % "Accept"))),
        (K.SAME_PRIORITY, (cnp("Admin", 1, ALL % "Deny"), cnp("Baseline", 1, ALL % "Accept"))),
        (K.SAME_PRIORITY, (cnp("Admin", 1, ALL % "Deny"), cnp("Admin", 1, PROJECT % "Deny"))),
        (K.LOOSE_SPELLING, (into_db("{ipBlock: {cidr: 10.0.0.0/8}}"),)),
        (K.OR_LIKE_AND,
         (into_db("{namespaceSelector: {matchLabels: {team: b}}, podSelector: {matchLabels: {app: web}}}"),)),
        (K.OR_LIKE_AND, (into_db("{namespaceSelector: {matchLabels: {team: b}}}", "{podSelector: {}}"),)),
        (K.NO_DNS, (out_of_web(NEEDS_DNS % ", protocol: UDP"),)),
        (K.NO_DNS, (CLOSED,)),
        (K.OPEN_TO_ALL, (into_db("{ipBlock: {cidr: 10.0.0.0/8}}"),)),
        (K.FUTURE_PODS, (CLOSED, into_db("{podSelector: {}}"))),
        (K.NOT_ENFORCED, (ports_of("db", "{port: http}"),)),
    ],
)  # fmt: skip
def test_what_is_well_is_not_found(kind: FindingKind, policies: tuple[str, ...]) -> None:
    """Neighbours of the mistakes above."""
    assert of(kind, *policies) == []


def test_what_a_plugin_does_not_enforce_is_said_first() -> None:
    """Flannel nothing, Weave not all; what the policies say is looked at all the same."""
    flannel = found(into_db("{podSelector: {matchLabels: {app: x}}}"), cni="flannel")
    assert {each.kind for each in flannel} >= {K.NOT_ENFORCED, K.MEANS_NOBODY}
    assert of(K.NOT_ENFORCED, ports_of("db", "{port: http}"), cni="weave") == [
        "policy-0 : weave skips the whole policy, because it names a port"
    ]
    assert of(K.NOT_ENFORCED, ports_of("db", "{port: 1, endPort: 2}"), cnp("Admin", 1, ALL % "Deny"), cni="weave") == [
        "policy-0 spec.ingress[0].ports: weave ignores endPort: only the first port of a range is meant",
        "ClusterNetworkPolicy policy-1 : weave does not read this kind of policy",
    ]


def test_a_block_with_pods_in_it_is_said_where_blocks_mean_no_pods() -> None:
    """Cilium goes by identities, and a pod has one of its own."""
    said = into_db("{ipBlock: {cidr: 10.244.1.0/24}}"), into_db("{ipBlock: {cidr: 192.0.2.0/24}}")
    assert of(K.NOT_ENFORCED, *said, cni="cilium") == [
        "policy-0 spec.ingress[0]: in cilium a block means no pods, and 5 pods would be in it"
    ]
    assert of(K.NOT_ENFORCED, *said, cni="calico") == []


def test_findings_of_a_cluster_have_file_and_line() -> None:
    """The bookshop's: a public face, and a report that only runs at night."""
    said = [str(each) for each in bookshop().changed(cni="calico").findings()]
    assert any(
        "50-network-policies.yaml:33: NetworkPolicy shop/public-faces: spec.ingress[0]: every" in each for each in said
    )
    assert any("none in ops has app.kubernetes.io/name=report [peer means nobody]" in each for each in said)


@pytest.mark.parametrize(
    ("wide", "narrow", "covered"),
    [
        ("{}", "{matchLabels: {a: b}}", True),
        ("{matchLabels: {a: b}}", "{}", False),
        ("{matchLabels: {a: b}}", "{matchLabels: {a: b, c: d}}", True),
        ("{matchExpressions: [{key: a, operator: In, values: [b, c]}]}", "{matchLabels: {a: b}}", True),
        ("{matchExpressions: [{key: a, operator: In, values: [b, c]}]}", "{matchLabels: {a: d}}", False),
        ("{matchExpressions: [{key: a, operator: NotIn, values: [b]}]}", "{matchLabels: {a: c}}", True),
        ("{matchExpressions: [{key: a, operator: NotIn, values: [b]}]}", "{matchLabels: {a: b}}", False),
        ("{matchExpressions: [{key: a, operator: NotIn, values: [b]}]}",
         "{matchExpressions: [{key: a, operator: DoesNotExist}]}", True),
        ("{matchExpressions: [{key: a, operator: NotIn, values: [b]}]}",
         "{matchExpressions: [{key: a, operator: Exists}]}", False),
        ("{matchExpressions: [{key: a, operator: Exists}]}", "{matchLabels: {a: b}}", True),
        ("{matchExpressions: [{key: a, operator: DoesNotExist}]}", "{matchLabels: {c: d}}", False),
    ],
)  # fmt: skip
def test_a_selector_covers_what_follows_from_it(wide: str, narrow: str, covered: bool) -> None:
    """Requirement by requirement, whatever pods there are."""
    one, two = (selector(each) for each in (wide, narrow))
    assert covers_selector(one, two) is covered


def selector(text: str) -> api.LabelSelector:
    """A selector in flow style."""
    (made,) = table.written((np(f"{{podSelector: {text}}}"),))
    assert isinstance(made, api.NetworkPolicy)
    return made.spec.pod_selector


def test_ports_and_blocks_cover_what_is_inside() -> None:
    """A range its parts, all ports a name, a block smaller ones outside of its holes."""
    tcp = api.Protocol.TCP
    assert covers_ports(ANY_PORT, Ports(tcp, name="http"))
    assert covers_ports(Ports(tcp, 80, 90), Ports(tcp, 85, 90))
    assert not covers_ports(Ports(tcp, 80, 90), Ports(tcp, 85, 91))
    assert not covers_ports(Ports(tcp), Ports())
    assert not covers_ports(Ports(tcp, 80, 80), Ports(tcp, name="http"))
    nothing = plan.of(())
    prefix = Prefix.of
    holed = Block(prefix=prefix("10.0.0.0/8"), holes=(prefix("10.1.0.0/16"),))
    assert covers_peer(ANYONE, holed, nothing)
    assert covers_peer(holed, Block(prefix=prefix("10.2.0.0/16")), nothing)
    assert not covers_peer(holed, Block(prefix=prefix("10.1.2.0/24")), nothing)
    assert covers_peer(holed, Block(prefix=prefix("10.0.0.0/9"), holes=(prefix("10.1.0.0/16"),)), nothing)
    assert not covers_peer(holed, Block(prefix=prefix("10.0.0.0/9")), nothing)
