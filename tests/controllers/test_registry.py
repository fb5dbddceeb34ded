"""What becomes of a Service when it changes: what stays, what goes, what comes, and what is refused."""

import random
from collections.abc import Iterator
from typing import Any

import pytest

from k8snetlab import api
from k8snetlab.api.patch import patched
from k8snetlab.controllers import Networks, Plan, registry
from k8snetlab.controllers.exposure import Pools, exposed
from k8snetlab.controllers.networks import networks_of
from k8snetlab.controllers.registry import Registry
from k8snetlab.errors import AddressInUse, LabError, ManifestError

Plain = dict[str, Any]

SINGLE: Plain = {}
DUAL: Plain = {"families": (4, 6)}
V6_FIRST: Plain = {"families": (6, 4)}

HEADLESS: Plain = {"clusterIP": "None", "selector": {"app": "a"}}
ALIAS: Plain = {"type": "ExternalName", "externalName": "db.example.com"}
NODE_PORT: Plain = {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}
BALANCER: Plain = {"type": "LoadBalancer", "ports": [{"port": 80, "nodePort": 30080}]}
LOCAL: Plain = {**BALANCER, "externalTrafficPolicy": "Local", "healthCheckNodePort": 30090}
CLASSY: Plain = {**BALANCER, "loadBalancerClass": "example.com/lb"}
PREFER: Plain = {"ipFamilyPolicy": "PreferDualStack"}
REQUIRE: Plain = {"ipFamilyPolicy": "RequireDualStack"}
FIXED: Plain = {"clusterIP": "10.96.0.7"}
BOTH: Plain = {**PREFER, "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00:10:96::7"]}
TWO_PORTS: Plain = {
    "type": "NodePort",
    "ports": [{"name": "a", "port": 80, "nodePort": 30080}, {"name": "b", "port": 81, "nodePort": 30081}],
}


def draft(name: str = "web", **spec: Any) -> api.Service:
    """A Service of this spec, at port 80 if nothing else is said, before anybody judges it."""
    metadata = {"name": name}
    found = api.typed(
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": [{"port": 80}], **spec}}
    )
    assert isinstance(found.object, api.Service), found.problems
    return found.object


def networks(**plan: Any) -> Networks:
    """The networks of a cluster without nodes of its own."""
    return networks_of(api.Manifests(), Plan(**plan))


def living(plan: Plain, *before: api.Service) -> tuple[api.Service, ...]:
    """The Services as the API server has them."""
    return exposed(before, networks(**plan))


def after_patch(plan: Plain, before: Plain, patch: Plain, *others: api.Service) -> api.Service:
    """The Service `web` after `kubectl patch` of its spec."""
    old, *rest = living(plan, draft(**before), *others)
    sent = api.typed(patched(api.to_dict(old), {"spec": patch})).object
    assert isinstance(sent, api.Service)
    return registry.updated(old, sent, networks(**plan), Pools(networks(**plan), (old, *rest)))


def after_apply(plan: Plain, before: Plain, after: Plain) -> api.Service:
    """The Service `web` after `kubectl apply` of another manifest."""
    (old,) = living(plan, draft(**before))
    return registry.applied(old, draft(**after), networks(**plan), Pools(networks(**plan), (old,)))


def facts(service: api.Service) -> Plain:
    """What is of interest of a Service, by name; empty things are left out."""
    spec = api.to_dict(service)["spec"]
    assert isinstance(spec, dict)
    numbers = [port.node_port for port in service.spec.ports]
    balanced = [each.ip for each in service.load_balancer]
    return {**spec, "nodePorts": numbers, "policy": spec.get("externalTrafficPolicy"), "ingress": balanced}


NEW = "something that was allocated"
GONE = None

# --- what a patch of the spec makes of a Service ----------------------------------------------------------------------

PATCHES: list[tuple[str, Plain, Plain, Plain, Plain]] = [
    # types
    ("to NodePort", SINGLE, FIXED, {"type": "NodePort"},
     {"type": "NodePort", "clusterIP": "10.96.0.7", "nodePorts": NEW, "policy": "Cluster"}),
    ("to LoadBalancer", SINGLE, FIXED, {"type": "LoadBalancer"},
     {"clusterIP": "10.96.0.7", "nodePorts": NEW, "allocateLoadBalancerNodePorts": True}),
    ("NodePort to LoadBalancer", SINGLE, NODE_PORT, {"type": "LoadBalancer"},
     {"nodePorts": [30080], "allocateLoadBalancerNodePorts": True}),
    ("LoadBalancer to NodePort", SINGLE, LOCAL, {"type": "NodePort"},
     {"nodePorts": [30080], "policy": "Local", "healthCheckNodePort": GONE, "allocateLoadBalancerNodePorts": GONE}),
    ("NodePort to ClusterIP", SINGLE, {**NODE_PORT, **FIXED}, {"type": "ClusterIP"},
     {"clusterIP": "10.96.0.7", "nodePorts": [0], "policy": GONE}),
    ("LoadBalancer to ClusterIP", SINGLE, {**LOCAL, **FIXED}, {"type": "ClusterIP"},
     {"clusterIP": "10.96.0.7", "nodePorts": [0], "policy": GONE, "healthCheckNodePort": GONE,
      "allocateLoadBalancerNodePorts": GONE}),
    ("type taken away", SINGLE, NODE_PORT, {"type": None}, {"type": "ClusterIP", "nodePorts": [0], "policy": GONE}),
    ("class goes with the type", SINGLE, CLASSY, {"type": "ClusterIP"}, {"loadBalancerClass": GONE}),
    ("externalIPs keep the policy", SINGLE, {**NODE_PORT, "externalIPs": ["192.0.2.1"]}, {"type": "ClusterIP"},
     {"nodePorts": [0], "policy": "Cluster"}),
    ("externalIPs bring the policy", SINGLE, FIXED, {"externalIPs": ["192.0.2.1"]}, {"policy": "Cluster"}),
    ("externalIPs take the policy along", SINGLE, {"externalIPs": ["192.0.2.1"]}, {"externalIPs": None},
     {"policy": GONE}),
    ("ClusterIP to ExternalName", DUAL, BOTH, ALIAS,
     {"clusterIP": GONE, "clusterIPs": GONE, "ipFamilies": GONE, "ipFamilyPolicy": GONE,
      "internalTrafficPolicy": GONE}),
    ("NodePort to ExternalName", SINGLE, NODE_PORT, ALIAS, {"clusterIP": GONE, "nodePorts": [0], "policy": GONE}),
    ("LoadBalancer to ExternalName", SINGLE, LOCAL, ALIAS,
     {"clusterIP": GONE, "nodePorts": [0], "healthCheckNodePort": GONE, "allocateLoadBalancerNodePorts": GONE}),
    ("headless to ExternalName", SINGLE, HEADLESS, ALIAS, {"clusterIP": GONE, "ipFamilies": GONE}),
    ("ExternalName to ClusterIP", SINGLE, ALIAS, {"type": "ClusterIP"},
     {"clusterIP": NEW, "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "externalName": "db.example.com",
      "internalTrafficPolicy": "Cluster"}),
    ("ExternalName to ClusterIP in two families", DUAL, ALIAS, {"type": "ClusterIP", **PREFER},
     {"ipFamilies": ["IPv4", "IPv6"], "clusterIPs": NEW}),
    ("ExternalName to an address", SINGLE, ALIAS, {"type": "ClusterIP", "clusterIP": "10.96.0.9"},
     {"clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"]}),
    ("ExternalName to headless", SINGLE, {**ALIAS, "selector": {"app": "a"}},
     {"type": "ClusterIP", "clusterIP": "None"}, {"clusterIPs": ["None"], "ipFamilies": ["IPv4"]}),
    ("ExternalName to headless without selector", SINGLE, ALIAS, {"type": "ClusterIP", "clusterIP": "None"},
     {"clusterIPs": ["None"], "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "RequireDualStack"}),
    ("ExternalName to NodePort", SINGLE, ALIAS, {"type": "NodePort"}, {"clusterIP": NEW, "nodePorts": NEW}),
    # node ports
    ("another node port", SINGLE, NODE_PORT, {"ports": [{"port": 80, "nodePort": 30081}]}, {"nodePorts": [30081]}),
    ("node port taken away comes back", SINGLE, NODE_PORT, {"ports": [{"port": 80, "nodePort": None}]},
     {"nodePorts": [30080]}),
    ("target changes, node port stays", SINGLE, NODE_PORT, {"ports": [{"port": 80, "targetPort": 8080}]},
     {"nodePorts": [30080]}),
    ("one more port", SINGLE, TWO_PORTS, {"ports": [{"name": "c", "port": 82, "nodePort": 30082}]},
     {"nodePorts": [30080, 30081, 30082]}),
    ("one port less", SINGLE, TWO_PORTS, {"ports": [{"port": 81, "$patch": "delete"}]}, {"nodePorts": [30080]}),
    ("two ports swap", SINGLE, TWO_PORTS,
     {"ports": [{"port": 80, "nodePort": 30081}, {"port": 81, "nodePort": 30080}]}, {"nodePorts": [30081, 30080]}),
    ("two protocols, one number", SINGLE, {"type": "NodePort", "ports": [{"name": "t", "port": 53, "nodePort": 30053}]},
     {"ports": [{"name": "u", "port": 53, "protocol": "UDP", "nodePort": 30053}]}, {"nodePorts": [30053, 30053]}),
    ("no node ports for new ports", SINGLE, {**BALANCER, "allocateLoadBalancerNodePorts": False},
     {"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]}, {"nodePorts": [30080, 0]}),
    ("node ports stay when switched off", SINGLE, BALANCER, {"allocateLoadBalancerNodePorts": False},
     {"nodePorts": [30080]}),
    # health checks
    ("to Local", SINGLE, BALANCER, {"externalTrafficPolicy": "Local"}, {"healthCheckNodePort": NEW}),
    ("to Local with a port", SINGLE, BALANCER, {"externalTrafficPolicy": "Local", "healthCheckNodePort": 30099},
     {"healthCheckNodePort": 30099}),
    ("back to Cluster", SINGLE, LOCAL, {"externalTrafficPolicy": "Cluster"}, {"healthCheckNodePort": GONE}),
    ("health check port comes back", SINGLE, LOCAL, {"healthCheckNodePort": None}, {"healthCheckNodePort": 30090}),
    # families
    ("to two", DUAL, FIXED, PREFER, {"ipFamilies": ["IPv4", "IPv6"], "clusterIPs": NEW, "clusterIP": "10.96.0.7"}),
    ("to two for certain", DUAL, FIXED, REQUIRE, {"ipFamilies": ["IPv4", "IPv6"]}),
    ("to two with an address", DUAL, FIXED, {**PREFER, "clusterIPs": ["10.96.0.7", "fd00:10:96::9"]},
     {"clusterIPs": ["10.96.0.7", "fd00:10:96::9"], "ipFamilies": ["IPv4", "IPv6"]}),
    ("to two, IPv6 first", V6_FIRST, {"clusterIP": "fd00:10:96::7"}, PREFER,
     {"ipFamilies": ["IPv6", "IPv4"], "clusterIP": "fd00:10:96::7"}),
    ("two preferred, one had", SINGLE, FIXED, PREFER, {"ipFamilies": ["IPv4"], "ipFamilyPolicy": "PreferDualStack"}),
    ("to one", DUAL, BOTH, {"ipFamilyPolicy": "SingleStack"},
     {"clusterIPs": ["10.96.0.7"], "ipFamilies": ["IPv4"], "clusterIP": "10.96.0.7"}),
    ("to one, said in full", DUAL, BOTH,
     {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"], "clusterIPs": ["10.96.0.7"]},
     {"clusterIPs": ["10.96.0.7"], "ipFamilies": ["IPv4"]}),
    ("from required to preferred", DUAL, {**BOTH, **REQUIRE}, PREFER, {"clusterIPs": ["10.96.0.7", "fd00:10:96::7"]}),
    ("policy taken away", DUAL, BOTH, {"ipFamilyPolicy": None}, {"ipFamilyPolicy": "PreferDualStack"}),
    ("headless to two", DUAL, HEADLESS, PREFER, {"ipFamilies": ["IPv4", "IPv6"], "clusterIPs": ["None"]}),
    ("headless to one", DUAL, {**HEADLESS, **PREFER}, {"ipFamilyPolicy": "SingleStack"}, {"ipFamilies": ["IPv4"]}),
    ("headless changes its family", DUAL, HEADLESS, {"ipFamilies": ["IPv6"]}, {"ipFamilies": ["IPv6"]}),
    # addresses
    ("address taken away comes back", SINGLE, FIXED, {"clusterIP": None}, {"clusterIP": "10.96.0.7"}),
    ("address emptied comes back", SINGLE, FIXED, {"clusterIP": ""}, {"clusterIPs": ["10.96.0.7"]}),
    ("both spellings taken away", DUAL, BOTH, {"clusterIP": None, "clusterIPs": None},
     {"clusterIPs": ["10.96.0.7", "fd00:10:96::7"]}),
    # the rest
    ("selector", SINGLE, FIXED, {"selector": {"app": "b"}}, {"selector": {"app": "b"}, "clusterIP": "10.96.0.7"}),
    ("affinity off", SINGLE, {"sessionAffinity": "ClientIP"}, {"sessionAffinity": "None"},
     {"sessionAffinityConfig": GONE}),
    ("class set together with the type", SINGLE, FIXED, {"type": "LoadBalancer", "loadBalancerClass": "a.example/b"},
     {"loadBalancerClass": "a.example/b"}),
    ("load balancer's word is cleared", SINGLE, BALANCER, {"type": "NodePort"}, {"ingress": []}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("plan", "before", "patch", "wanted"), [row[1:] for row in PATCHES], ids=[row[0] for row in PATCHES]
)
def test_patch_leaves_takes_and_brings(plan: Plain, before: Plain, patch: Plain, wanted: Plain) -> None:
    """Fields of the spec after a patch; `NEW` was allocated, `GONE` is not there any more."""
    found = facts(after_patch(plan, before, patch))
    for field, value in wanted.items():
        if value is NEW:
            assert found.get(field) and 0 not in (found[field] if isinstance(found[field], list) else [found[field]])
        else:
            assert found.get(field) == value, field


REFUSALS: list[tuple[str, Plain, Plain, Plain, str, str]] = [
    ("another address", SINGLE, FIXED, {"clusterIP": "10.96.0.8"}, "spec.clusterIPs[0]", "may not change once set"),
    ("to headless", SINGLE, FIXED, {"clusterIP": "None"}, "spec.clusterIPs[0]", "may not change once set"),
    ("from headless", SINGLE, HEADLESS, {"clusterIP": "10.96.0.8"}, "spec.clusterIPs[0]", "may not change once set"),
    ("headless NodePort", SINGLE, HEADLESS, {"type": "NodePort"}, "spec.clusterIPs[0]", "may not be set to 'None'"),
    ("second address swapped", DUAL, BOTH, {"clusterIPs": ["10.96.0.7", "fd00:10:96::9"]},
     "spec.clusterIPs[1]", "may not change once set"),
    ("second address left out", DUAL, BOTH, {"clusterIPs": ["10.96.0.7"]},
     "spec.ipFamilyPolicy", "must be 'SingleStack' to release the secondary cluster IP"),
    ("second family left out", DUAL, BOTH, {"ipFamilies": ["IPv4"]},
     "spec.ipFamilyPolicy", "must be 'SingleStack' to release the secondary IP family"),
    ("addresses turned round", DUAL, BOTH,
     {"clusterIP": "fd00:10:96::7", "clusterIPs": ["fd00:10:96::7", "10.96.0.7"], "ipFamilies": ["IPv6", "IPv4"]},
     "spec.clusterIPs[0]", "may not change once set"),
    ("another family", DUAL, FIXED, {"ipFamilies": ["IPv6"]}, "spec.clusterIPs[0]", "expected an IPv6 value"),
    ("second family without a policy", DUAL, FIXED, {"ipFamilies": ["IPv4", "IPv6"]},
     "spec.ipFamilyPolicy", "multiple IP families"),
    ("second address without a policy", DUAL, FIXED, {"clusterIPs": ["10.96.0.7", "fd00:10:96::7"]},
     "spec.ipFamilyPolicy", "multiple cluster IPs"),
    ("two families in a cluster of one", SINGLE, FIXED, REQUIRE, "spec.ipFamilyPolicy", "not configured for dual"),
    ("a family that is not there", SINGLE, ALIAS, {"type": "ClusterIP", "ipFamilies": ["IPv6"]},
     "spec.ipFamilies[0]", "not configured on this cluster"),
    ("spellings that differ", SINGLE, FIXED, {"clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.9"]},
     "spec.clusterIPs", "first value must match `clusterIP`"),
    ("no address at all", SINGLE, FIXED, {"clusterIP": "web"}, "spec.clusterIPs[0]", "must be a valid IP address"),
    ("ExternalName with another address", SINGLE, FIXED, {**ALIAS, "clusterIP": "10.96.0.9"},
     "spec.clusterIPs", "Forbidden: may not be set for ExternalName services"),
    ("ExternalName without a name", SINGLE, FIXED, {"type": "ExternalName"}, "spec.externalName", "Required value"),
    ("ExternalName with another policy", SINGLE, FIXED, {**ALIAS, **PREFER}, "spec.ipFamilyPolicy", "Forbidden"),
    ("ClusterIP with another node port", SINGLE, NODE_PORT,
     {"type": "ClusterIP", "ports": [{"port": 80, "nodePort": 30081}]}, "spec.ports[0].nodePort", "Forbidden"),
    ("ClusterIP with another policy", SINGLE, NODE_PORT, {"type": "ClusterIP", "externalTrafficPolicy": "Local"},
     "spec.externalTrafficPolicy", "may only be set for externally-accessible services"),
    ("policy of a ClusterIP", SINGLE, FIXED, {"externalTrafficPolicy": "Local"},
     "spec.externalTrafficPolicy", "Invalid value"),
    ("another class", SINGLE, CLASSY, {"loadBalancerClass": "example.com/other"},
     "spec.loadBalancerClass", "may not change once set"),
    ("no class any more", SINGLE, CLASSY, {"loadBalancerClass": None}, "spec.loadBalancerClass", "may not change"),
    ("a class too late", SINGLE, BALANCER, {"loadBalancerClass": "a.example/b"}, "spec.loadBalancerClass", "may not"),
    ("class kept but changed", SINGLE, CLASSY, {"type": "ClusterIP", "loadBalancerClass": "a.example/b"},
     "spec.loadBalancerClass", "Forbidden"),
    ("another health check port", SINGLE, LOCAL, {"healthCheckNodePort": 30091},
     "spec.healthCheckNodePort", "Forbidden: field is immutable"),
    ("health check port without checks", SINGLE, BALANCER, {"healthCheckNodePort": 30091},
     "spec.healthCheckNodePort", "may only be set when"),
    ("health check at a node port", SINGLE, BALANCER,
     {"externalTrafficPolicy": "Local", "healthCheckNodePort": 30080}, "spec.healthCheckNodePort", "already allocated"),
    ("node port out of range", SINGLE, NODE_PORT, {"ports": [{"port": 80, "nodePort": 8080}]},
     "spec.ports[0].nodePort", "not in the valid range. The range of valid ports is 30000-32767"),
    ("node port of another", SINGLE, FIXED, {"type": "NodePort", "ports": [{"port": 80, "nodePort": 31111}]},
     "spec.ports[0].nodePort", "Invalid value: 31111: provided port is already allocated"),
    ("health check port of another", SINGLE, BALANCER, {"externalTrafficPolicy": "Local", "healthCheckNodePort": 31111},
     "spec.healthCheckNodePort", "provided port is already allocated"),
    ("address of another", SINGLE, ALIAS, {"type": "ClusterIP", "clusterIP": "10.96.0.111"},
     "spec.clusterIPs", "failed to allocate IP 10.96.0.111: provided IP is already allocated"),
    ("second address of another", DUAL, FIXED, {**PREFER, "clusterIPs": ["10.96.0.7", "fd00:10:96::111"]},
     "spec.clusterIPs", "failed to allocate IP fd00:10:96::111"),
    ("address of nobody's network", SINGLE, ALIAS, {"type": "ClusterIP", "clusterIP": "192.0.2.1"},
     "spec.clusterIPs", "not in the valid range"),
    ("second port without a name", SINGLE, FIXED, {"ports": [{"port": 81}]}, "spec.ports[0].name", "Required value"),
    ("range for nobody", SINGLE, {**BALANCER, "loadBalancerSourceRanges": ["10.0.0.0/8"]}, {"type": "NodePort"},
     "spec.loadBalancerSourceRanges", "Forbidden"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("plan", "before", "patch", "field", "message"),
    [row[1:] for row in REFUSALS],
    ids=[row[0] for row in REFUSALS],
)
def test_change_is_refused(plan: Plain, before: Plain, patch: Plain, field: str, message: str) -> None:
    """What may not change, and what belongs to another Service."""
    dual = plan is DUAL
    other = draft("other", type="NodePort", ports=[{"port": 80, "nodePort": 31111}], clusterIP="10.96.0.111", **(
        {**PREFER, "clusterIPs": ["10.96.0.111", "fd00:10:96::111"]} if dual else {}
    ))  # fmt: skip
    with pytest.raises(LabError) as caught:
        after_patch(plan, before, patch, other)
    found = {each.field: each.message for each in caught.value.problems}
    assert message in found[field]


APPLIED: list[tuple[str, Plain, Plain, Plain]] = [
    ("what is not said stays", {**FIXED, **NODE_PORT}, {"type": "NodePort"},
     {"clusterIP": "10.96.0.7", "nodePorts": [30080]}),
    ("what has a default takes it", NODE_PORT, {}, {"type": "ClusterIP", "nodePorts": [0]}),
    ("a port is renamed", NODE_PORT, {"type": "NodePort", "ports": [{"port": 80, "name": "http"}]},
     {"nodePorts": [30080]}),
    ("a port gets another number", TWO_PORTS,
     {"type": "NodePort", "ports": [{"name": "a", "port": 8080}, {"name": "b", "port": 81}]},
     {"nodePorts": [30080, 30081]}),
    ("ports are turned round", TWO_PORTS,
     {"type": "NodePort", "ports": [{"name": "b", "port": 81}, {"name": "a", "port": 80}]},
     {"nodePorts": [30081, 30080]}),
    ("a node port is given on", TWO_PORTS,
     {"type": "NodePort", "ports": [{"name": "a", "port": 80}, {"name": "c", "port": 82, "nodePort": 30080}]},
     {"nodePorts": NEW}),
    ("node ports stay through types", NODE_PORT, {"type": "LoadBalancer"}, {"nodePorts": [30080]}),
    ("a node port that is still written goes", NODE_PORT, {**NODE_PORT, "type": "ClusterIP"}, {"nodePorts": [0]}),
    ("an address that is still written goes", FIXED, {**ALIAS, **FIXED}, {"clusterIP": GONE}),
    ("a policy goes to its default", LOCAL, {"type": "LoadBalancer"},
     {"policy": "Cluster", "healthCheckNodePort": GONE}),
    ("affinity goes to its default", {"sessionAffinity": "ClientIP"}, {}, {"sessionAffinity": "None"}),
]  # fmt: skip


@pytest.mark.parametrize(("before", "after", "wanted"), [row[1:] for row in APPLIED], ids=[row[0] for row in APPLIED])
def test_manifest_is_applied(before: Plain, after: Plain, wanted: Plain) -> None:
    """What was allocated stays where the manifest does not say it; everything else is as the manifest says."""
    found = facts(after_apply(SINGLE, before, after))
    for field, value in wanted.items():
        if value is NEW:
            assert 0 not in found[field]
        else:
            assert found.get(field) == value, field


def test_manifest_without_families_keeps_them() -> None:
    """Applied again, a dual-stack Service stays what it is, whatever the manifest leaves out."""
    for said in ({}, PREFER, FIXED, BOTH):
        assert after_apply(DUAL, BOTH, said).spec.cluster_ips == ("10.96.0.7", "fd00:10:96::7")


def test_manifest_to_one_family() -> None:
    """The policy alone, beside the addresses as they were, says it clearly."""
    found = after_apply(DUAL, BOTH, {**BOTH, "ipFamilyPolicy": "SingleStack"})
    assert (found.spec.cluster_ips, found.spec.ip_families) == (("10.96.0.7",), ("IPv4",))


def test_service_that_prefers_two_waits_to_be_asked() -> None:
    """It was made in a cluster of one family; that the cluster has two now changes nothing until something is said."""
    (old,) = living(SINGLE, draft(**FIXED, **PREFER))
    cluster = networks(**DUAL)
    sent = with_another_selector(old)
    assert registry.updated(old, sent, cluster, Pools(cluster, (old,))).spec.ip_families == ("IPv4",)
    again = api.typed(patched(api.to_dict(old), {"spec": REQUIRE})).object
    assert isinstance(again, api.Service)
    assert registry.updated(old, again, cluster, Pools(cluster, (old,))).spec.ip_families == ("IPv4", "IPv6")


def with_another_selector(service: api.Service) -> api.Service:
    """The same Service with another selector."""
    found = api.typed(patched(api.to_dict(service), {"spec": {"selector": {"app": "b"}}})).object
    assert isinstance(found, api.Service)
    return found


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ipFamilies": ["IPv4", "IPv6"]}, "multiple IP families"),
        ({"ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "SingleStack"}, "multiple IP families"),
        ({"clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00:10:96::7"]}, "multiple cluster IPs"),
    ],
)
def test_new_service_of_two_families_needs_a_policy(fields: Plain, message: str) -> None:
    """It is refused, not made dual-stack by itself."""
    with pytest.raises(ManifestError) as caught:
        living(DUAL, draft(**fields))
    (problem,) = caught.value.problems
    assert problem.field == "spec.ipFamilyPolicy"
    assert message in problem.message


# --- who has what -----------------------------------------------------------------------------------------------------


def test_what_was_given_up_is_free_at_once() -> None:
    """In one request, a node port may go from one Service to the next."""
    cluster = networks()
    one, two = living(SINGLE, draft("one", **NODE_PORT), draft("two"))
    pools = Pools(cluster, (one, two))
    with pytest.raises(AddressInUse):
        registry.applied(two, draft("two", **NODE_PORT), cluster, Pools(cluster, (one, two)))
    registry.applied(one, draft("one"), cluster, pools)
    assert registry.applied(two, draft("two", **NODE_PORT), cluster, pools).spec.ports[0].node_port == 30080


def test_stored_services_come_first() -> None:
    """Whoever asks later for an address that was drawn does not get it; the Service that has it keeps it."""
    (first,) = living(SINGLE, draft("first"))
    with pytest.raises(AddressInUse, match="already allocated"):
        exposed((draft("second", clusterIP=first.spec.cluster_ip), draft("first")), networks(), (first,))


def test_collision_moves_the_newcomer_only() -> None:
    """Two names may be drawn to one address: the one that was there keeps it, wherever it stands."""
    (old,) = living(SINGLE, draft("old"))
    moved = type(old)(metadata=api.ObjectMeta(name="new"), spec=old.spec)
    alone, late = exposed((draft("new"), draft("old")), networks(), (moved,))
    assert alone == moved
    assert late.spec.cluster_ip != old.spec.cluster_ip


def test_registry_of_another_network_counts_for_nothing() -> None:
    """With another Service network all addresses are new."""
    held = Registry(networks().services, living(SINGLE, draft()))
    assert held.of(networks()) == held.services
    assert held.of(networks(**DUAL)) == ()


def test_one_node_port_serves_two_protocols_only_from_the_beginning() -> None:
    """On a change each port gets its own: the API server shares numbers at creation alone."""
    both = [{"name": "t", "port": 53}, {"name": "u", "port": 53, "protocol": "UDP"}]
    (made,) = living(SINGLE, draft(type="NodePort", ports=both))
    changed = after_patch(SINGLE, {"ports": both}, {"type": "NodePort"})
    assert len({port.node_port for port in made.spec.ports}) == 1
    assert len({port.node_port for port in changed.spec.ports}) == 2


def test_a_service_becomes_no_other() -> None:
    """Name and namespace are for ever."""
    (old,) = living(SINGLE, draft())
    with pytest.raises(ManifestError, match="field is immutable") as caught:
        registry.updated(old, draft("other"), networks(), Pools(networks(), (old,)))
    assert caught.value.problems[0].field == "metadata.name"


# --- any change at all ------------------------------------------------------------------------------------------------

CHOICES: dict[str, list[Any]] = {
    "type": ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName", None],
    "clusterIP": ["", "None", "10.96.0.7", "10.96.0.8", "fd00:10:96::7", "FD00:10:96::7", "x", None],
    "clusterIPs": [
        [], ["None"], ["10.96.0.7"], ["10.96.0.7", "fd00:10:96::7"], ["fd00:10:96::7", "10.96.0.7"],
        ["10.96.0.7", "fd00:10:96::8"], None,
    ],
    "ipFamilies": [["IPv4"], ["IPv6"], ["IPv4", "IPv6"], ["IPv6", "IPv4"], None],
    "ipFamilyPolicy": ["SingleStack", "PreferDualStack", "RequireDualStack", None],
    "externalName": ["a.example", "", None],
    "selector": [{"a": "b"}, {"a": None}, None],
    "externalTrafficPolicy": ["Local", "Cluster", None],
    "healthCheckNodePort": [0, 30001, 30002, 80, None],
    "allocateLoadBalancerNodePorts": [True, False, None],
    "loadBalancerClass": ["a.example/b", "c", None],
    "externalIPs": [["192.0.2.1"], ["127.0.0.1"], None],
    "sessionAffinity": ["None", "ClientIP", None],
    "ports": [
        [{"port": 80}], [{"port": 80, "nodePort": 30001}], [{"name": "b", "port": 90, "nodePort": 30002}], None,
        [{"name": "a", "port": 80}, {"name": "b", "port": 80, "protocol": "UDP"}],
        [{"name": "a", "port": 80, "nodePort": 30001}, {"name": "b", "port": 80, "protocol": "UDP", "nodePort": 30001}],
    ],
}  # fmt: skip


def drawn(chance: random.Random, most: int) -> Plain:
    """Some fields of a spec, with values that may fit or not."""
    return {name: chance.choice(CHOICES[name]) for name in chance.sample(list(CHOICES), chance.randint(0, most))}


def histories(seed: int) -> Iterator[tuple[Networks, dict[str, api.Service], str]]:
    """Two Services that are created, applied and patched at random, after every request that was granted."""
    chance = random.Random(seed)
    cluster = networks(families=chance.choice([(4,), (6,), (4, 6), (6, 4)]))
    there: dict[str, api.Service] = {}
    for _ in range(8):
        name, pools = chance.choice("ab"), Pools(cluster, there.values())
        try:
            if name not in there:
                made = api.decode(api.to_dict(draft(name, **drawn(chance, 4)))).object
                if not isinstance(made, api.Service):
                    continue
                there[name] = registry.created(made, cluster, pools)
            elif chance.random() < 0.5:
                there[name] = registry.applied(there[name], draft(name, **drawn(chance, 4)), cluster, pools)
            else:
                sent = api.typed(patched(api.to_dict(there[name]), {"spec": drawn(chance, 3)})).object
                assert isinstance(sent, api.Service)
                there[name] = registry.updated(there[name], sent, cluster, pools)
        except LabError:
            continue
        yield cluster, there, name


@pytest.mark.parametrize("seed", range(60))
def test_whatever_is_granted_fits_together(seed: int) -> None:
    """It loads again as it is, changes nothing when it is sent again, and has what its type needs for itself."""
    for cluster, there, name in histories(seed):
        service, spec = there[name], there[name].spec
        assert api.decode(api.to_dict(service)).object == service
        assert registry.applied(service, service, cluster, Pools(cluster, there.values())) == service
        assert exposed(tuple(there.values()), cluster) == tuple(there.values())
        assert (spec.type == "ExternalName") == (not spec.cluster_ips)
        if service.cluster_ips:
            assert [4 if "." in ip else 6 for ip in service.cluster_ips] == [of.number for of in spec.ip_families]
        if spec.type == "NodePort" or spec.allocate_load_balancer_node_ports:
            assert all(port.node_port for port in spec.ports)
        assert bool(spec.health_check_node_port) == spec.checks_health
        owned = [ip for each in there.values() for ip in each.cluster_ips]
        owned += [str(number) for each in there.values() for number in sorted(numbers(each))]
        assert len(set(owned)) == len(owned)


def numbers(service: api.Service) -> set[int]:
    """All node ports of a Service."""
    ports = {port.node_port for port in service.spec.ports} if service.spec.from_outside else set()
    return (ports | {service.spec.health_check_node_port}) - {0}
