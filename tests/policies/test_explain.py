"""The smallest change that turns a verdict, and no other one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from k8snetlab import api
from k8snetlab.errors import CannotDo
from k8snetlab.policies import explain, plan
from k8snetlab.policies.engine import judged
from tests.policies import table
from tests.policies.table import cnp, into_db, np, ports_of
from tests.shops import bookshop


def asked(line: str, *policies: str, choices: plan.Choices = plan.BY_THE_BOOK) -> tuple[plan.Policies, plan.Flow]:
    """The policies of a case, and the flow of one line of the table."""
    found = plan.of((*table.cluster(), *table.written(policies)), choices=choices)
    (flow,) = table.flows(line)
    ends = [plan.Outside(table.OUTSIDE) if who == "out" else found.end(who) for who in (flow.source, flow.destination)]
    return found, found.flow(ends[0], ends[1], flow.port, api.Protocol(flow.protocol), flow.of)


def turned(line: str, *policies: str, choices: plan.Choices = plan.BY_THE_BOOK) -> explain.Change:
    """The smallest change for a line of the table: `-` is denied now, `+` is allowed."""
    found, flow = asked(line, *policies, choices=choices)
    return (explain.to_forbid if line.startswith("+") else explain.to_allow)(found, flow)


WEB = "{podSelector: {matchLabels: {app: web}}}"


@pytest.mark.parametrize(
    ("line", "policies", "says"),
    [
        ("- shop/web > shop/db:5433", (into_db(WEB, ports="{port: 5432}"),),
         "NetworkPolicy shop/policy-0 needs one more port in spec.ingress[0].ports"),
        ("- shop/api > shop/db:5432", (into_db(WEB, ports="{port: 5432}"),),
         "NetworkPolicy shop/policy-0 needs one more peer in spec.ingress[0].from"),
        ("- shop/api > shop/db:1", (into_db(WEB, ports="{port: 5432}"),),
         "NetworkPolicy shop/policy-0 needs one more rule in spec.ingress"),
        ("- shop/api > shop/db:1", (table.CLOSED,),
         "NetworkPolicy shop/allow-1-tcp-ingress is new and allows it at shop/db"),
        ("- shop/web > out:443", (table.SEALED,),
         "NetworkPolicy shop/allow-443-tcp-egress is new and allows it at shop/web"),
        ("- ops/tool > shop/db:1", (cnp("Admin", 5, "ingress: [{action: Deny, from: [{namespaces: {}}]}]"),),
         "ClusterNetworkPolicy accept-1-tcp is new and accepts it before all others of tier Admin"),
        ("- ops/tool > shop/db:1", (cnp("Baseline", 7, "ingress: [{action: Deny, from: [{namespaces: {}}]}]"),),
         "ClusterNetworkPolicy accept-1-tcp is new and accepts it before all others of tier Baseline"),
        ("- ops/tool > shop/db:1", (cnp("Baseline", 0, "ingress: [{action: Deny, from: [{namespaces: {}}]}]"),),
         "ClusterNetworkPolicy accept-1-tcp is new and accepts it before all others of tier Admin"),
        ("+ shop/web > shop/db:5432", (into_db(WEB, "{podSelector: {matchLabels: {app: api}}}"),),
         "ClusterNetworkPolicy deny-5432-tcp is new and denies it before all others of tier Admin"),
        ("+ shop/web > shop/db:5432", (ports_of("db", "{port: 5432}"),),
         "ClusterNetworkPolicy deny-5432-tcp is new and denies it before all others of tier Admin"),
        ("+ out > shop/db:5432", (ports_of("db", "{port: 5432}"),),
         "NetworkPolicy shop/policy-0 spec.ingress[0] needs a hole for 203.0.113.10"),
        ("+ out > shop/db:5432", (into_db("{ipBlock: {cidr: 203.0.113.0/24}}", ports="{port: 5432}"),),
         "NetworkPolicy shop/policy-0 spec.ingress[0] needs a hole for 203.0.113.10"),
        ("+ shop/web > out:443", (), "ClusterNetworkPolicy deny-443-tcp is new and denies it before all others"),
        ("+ out > shop/db:5432", (),
         "NetworkPolicy shop/all-but-5432-tcp is new and allows everything but 203.0.113.10"),
    ],
)  # fmt: skip
def test_the_smallest_change_is_found_and_turns_nothing_else(line: str, policies: tuple[str, ...], says: str) -> None:
    """A port, a peer, a rule, or a policy of its own, in this order, as long as no other verdict turns."""
    change = turned(line, *policies)
    assert change.says[0].startswith(says)
    assert bool(change.verdict) is line.startswith("-")
    assert change.also == ()


def test_where_no_place_is_before_it_the_policy_itself_is_changed() -> None:
    """Priority 0 of Admin is asked first; a rule there counts for all of its subject, and that is said."""
    change = turned("- ops/tool > shop/db:1", cnp("Admin", 0, "ingress: [{action: Deny, from: [{namespaces: {}}]}]"))
    assert change.says == ("ClusterNetworkPolicy policy-0 needs a rule before spec.ingress[0]",)
    assert "ops/tool -> shop/web 1/TCP" in change.also


def test_a_plugin_without_tiers_takes_the_entry_away() -> None:
    """Under Weave nothing can deny: what allows must go."""
    change = turned(
        "+ shop/web > shop/db:5432", into_db(WEB, "{podSelector: {matchLabels: {app: api}}}", ports="{port: 5432}"),
        choices=plan.choices_of("weave"),
    )  # fmt: skip
    assert change.says == ("spec.ingress[0].from of NetworkPolicy shop/policy-0 needs one entry less",)
    (found,) = change.objects
    assert isinstance(found, api.NetworkPolicy)
    assert len(found.spec.ingress[0].from_) == 1


def test_both_ends_may_need_a_change() -> None:
    """The way out of web and the way into db are closed."""
    change = turned("- shop/web > shop/db:5432", table.SEALED)
    assert [each.name for each in change.objects] == ["allow-5432-tcp-egress", "allow-5432-tcp-ingress"]
    assert change.also == ()


def test_replicas_are_one_kind() -> None:
    """A selector rests on labels that somebody chose, and means no other pods of the namespace."""
    found, _ = asked("- shop/web > shop/db:5432")
    pod = found.by_name["shop/api"]
    replica = plan.Endpoint("shop/api-2", "shop", {**pod.labels, "pod-template-hash": "abc"})
    assert explain.own_labels(replica) == pod.labels
    assert explain.selector_for(found, pod) == api.LabelSelector(match_labels={"app": "api"})


def test_a_pod_without_labels_of_its_own_is_meant_by_what_it_lacks() -> None:
    """All others of the namespace have some label that it has not."""
    plain = plan.Endpoint("shop/plain", "shop", {"tier": "back"})
    found = plan.of(table.cluster())
    found = plan.Policies(endpoints=(*found.endpoints, plain), namespaces=found.namespaces)
    selector = explain.selector_for(found, plain)
    assert [each.name for each in found.endpoints if each.namespace == "shop" and selector.matches(each.labels)] == [
        "shop/plain"
    ]


@pytest.mark.parametrize(
    ("line", "policies", "why"),
    [
        ("+ shop/web > shop/web:80", (table.SEALED,), "no policy can stop it: shop/web always reaches itself"),
        ("+ node/node-1 > shop/web:80", (table.SEALED,), "no policy can stop it: a node always reaches its own pods"),
        ("+ out > node/node-1:80", (), "no policy can stop it: node/node-1 is no pod"),
    ],
)
def test_what_no_policy_can_do_is_said(line: str, policies: tuple[str, ...], why: str) -> None:
    """With the reason."""
    with pytest.raises(CannotDo, match=why):
        turned(line, *policies)


def test_what_is_so_already_is_said() -> None:
    """Nothing needs to change."""
    found, flow = asked("+ shop/web > shop/db:5432")
    with pytest.raises(CannotDo, match="it is allowed already: no policy selects shop/db for ingress"):
        explain.to_allow(found, flow)
    with pytest.raises(CannotDo, match="it is denied already"):
        explain.to_forbid(*asked("- shop/web > shop/db:5432", table.CLOSED))


def changes() -> Iterator[tuple[str, plan.Policies, plan.Flow]]:
    """Every ninth flow of the table, under the choices of the API."""
    lines = [
        (case, line.strip())
        for case in table.CASES
        if case.choices is None
        for line in case.flows.strip().splitlines()
        if " via " not in line and " as " not in line
    ]
    for case, line in lines[::9]:
        yield (line, *asked(line, *case.policies))


def test_every_change_does_what_it_says() -> None:
    """Applied to the policies that it was found for, it turns the verdict; most turn no other."""
    alone, made = 0, 0
    for line, policies, flow in changes():
        try:
            change = (explain.to_forbid if line.startswith("+") else explain.to_allow)(policies, flow)
        except CannotDo:
            assert line.startswith("+"), line
            continue
        kept = [each for each in policies.written if each.ref not in {new.ref for new in change.objects}]
        after = plan.of((*table.cluster(), *kept, *change.objects))
        assert bool(judged(after, flow)) is line.startswith("-"), line
        made, alone = made + 1, alone + (not change.also)
    assert alone >= 0.8 * made > 20


def test_a_change_can_be_applied_to_a_cluster() -> None:
    """It is an object like any other, with file and line where it was, and it prints as a manifest."""
    shop = bookshop().changed(cni="calico")
    change = shop.to_allow("shop/web-0", "shop/db-0", 5432)
    assert str(change).startswith("# NetworkPolicy shop/db-clients needs one more peer in spec.ingress[0].from\n")
    after = shop.applied(*change.objects)
    assert after.allowed("shop/web-0", "shop/db-0", 5432)
    assert not after.allowed("shop/web-0", "shop/db-0", 5433)
    again = after.to_forbid("shop/web-0", "shop/db-0", 5432)
    assert not after.applied(*again.objects).allowed("shop/web-0", "shop/db-0", 5432)


def test_policies_that_do_not_select_the_pod_are_left_alone() -> None:
    """A policy of another namespace stays as it is."""
    change = turned("- shop/web > shop/db:5432", table.CLOSED, np("{podSelector: {}}", "ops"))
    assert [each.namespace for each in change.objects] == ["shop"]
