"""Would the table of verdicts notice a mistake in the engine?

Each mistake that somebody could make is made: one piece of the source is replaced, the module is run under another name
and the table asked. A mistake that changes no verdict shows a sentence of the API that nobody tests.
"""

from __future__ import annotations

import inspect
import sys
from types import ModuleType
from typing import NamedTuple

import pytest

from k8snetlab.api import selectors
from k8snetlab.errors import LabError
from k8snetlab.policies import engine, plan
from tests.policies import table


class Mistake(NamedTuple):
    """What somebody got wrong, where, and what the source reads with it."""

    what: str
    module: ModuleType
    right: str
    wrong: str


PLAN = (
    ("completed pods are left in", "if not each.completed:", "if True:"),
    ("an address of a completed or other pod wins over the node's", "if not each.host_network:", "if True:"),
    ("a pod has one address", "addresses = pod.ips", "addresses = pod.ips[:1]"),
    (
        "names of ports of the first container alone",
        "for container in pod.listeners()",
        "for container in pod.spec.containers[:1]",
    ),
    (
        "one number has one name",
        "if port.name == name and",
        "if port.name == name and port.number not in [p.number for p in self.ports[:self.ports.index(port)]] and",
    ),
    ("a name counts in every protocol", "and protocol in (None, port.protocol))", ")"),
    (
        "the name of a port is looked up at the source",
        "return port in destination.numbers(self.name, protocol)",
        "return port == 80",
    ),
    (
        "names of ports of nodes",
        "if not isinstance(destination, Endpoint) or destination.host_network:",
        "if not isinstance(destination, Endpoint):",
    ),
    ("the protocol does not matter", "if self.protocol not in (None, protocol):", "if False:"),
    (
        "a range ends before its end",
        "return self.first <= port <= self.last",
        "return self.first <= port < max(self.last, self.first + 1)",
    ),
    (
        "a range begins after its begin",
        "return self.first <= port <= self.last",
        "return min(self.first + 1, self.last) <= port <= self.last",
    ),
    (
        "endPort is not read",
        "port.end_port if port.end_port is not None and choices.ranges else port.port",
        "port.port",
    ),
    ("a plugin without ranges reads them", "port.end_port is not None and choices.ranges", "port.end_port is not None"),
    (
        "holes are ignored",
        "return self.prefix.contains(address) and not any(hole.contains(address) for hole in self.holes)",
        "return self.prefix.contains(address)",
    ),
    ("the first hole alone counts", "for hole in self.holes)", "for hole in self.holes[:1])"),
    ("blocks never mean pods", "            return self.pods\n", "            return False\n"),
    ("blocks always mean pods", "            return self.pods\n", "            return True\n"),
    ("blocks always mean nodes", "return self.nodes or isinstance(end, Outside)", "return True"),
    ("blocks never mean nodes", "return self.nodes or isinstance(end, Outside)", "return isinstance(end, Outside)"),
    (
        "an empty namespaceSelector is a missing one",
        "    if peer.namespace_selector is None:\n",
        (
            "    if not (peer.namespace_selector and "
            "(peer.namespace_selector.match_labels or peer.namespace_selector.match_expressions)):\n"
        ),
    ),
    (
        "two selectors in one item are an OR",
        "policies.namespace(endpoint.namespace)) and self.pods",
        "policies.namespace(endpoint.namespace)) or self.pods",
    ),
    (
        "the podSelector beside a namespaceSelector is ignored",
        "Pods(namespaces=peer.namespace_selector, pods=pods,",
        "Pods(namespaces=peer.namespace_selector,",
    ),
    ("selectors mean pods with hostNetwork", "if endpoint.host_network and not self.host_network:", "if False:"),
    (
        "selectors never mean pods with hostNetwork",
        "if endpoint.host_network and not self.host_network:",
        "if endpoint.host_network:",
    ),
    ("a missing list of peers is nobody", "for each in peers) or (ANYONE,)", "for each in peers)"),
    (
        "a missing list of ports is none",
        "for each in ports) or (ANY_PORT,),\n            field=field",
        "for each in ports),\n            field=field",
    ),
    ("policyTypes are ignored", "if direction not in policy.spec.policy_types or", "if"),
    (
        "a policy selects pods of every namespace",
        "namespace=policy.namespace, pods=policy.spec.pod_selector",
        "pods=policy.spec.pod_selector",
    ),
    ("a named port is kept by a plugin that has none", "or (not choices.named_ports and _names_ports(policy))", ""),
    (
        "only the same direction is looked through for named ports",
        "for direction in policy.spec.policy_types for _",
        "for direction in policy.spec.policy_types[:1] for _",
    ),
    (
        "the manifest says what a namespace's name is",
        "namespaces[each.name] = each.labels",
        'namespaces[each.name] = {"kubernetes.io/metadata.name": each.name, **each.metadata.labels}',
    ),
    (
        "priorities count downwards",
        "_TIERS.index(policy.tier), policy.priority,",
        "_TIERS.index(policy.tier), -policy.priority,",
    ),
    ("Baseline is Admin", "Tier.ADMIN if policy.spec.tier is PolicyTier.ADMIN else Tier.BASELINE", "Tier.ADMIN"),
    (
        "a subject's podSelector is ignored",
        "return Pods(namespaces=pods.namespace_selector, pods=pods.pod_selector)",
        "return Pods(namespaces=pods.namespace_selector)",
    ),
    (
        "a subject's namespaceSelector is ignored",
        "return Pods(namespaces=pods.namespace_selector, pods=pods.pod_selector)",
        "return Pods(pods=pods.pod_selector)",
    ),
    ("one network of many counts", "for each in peer.networks)", "for each in peer.networks[:1])"),
    ("UDP is TCP", "_transport_ports(api.Protocol.UDP, each.udp)", "_transport_ports(api.Protocol.TCP, each.udp)"),
    (
        "a rule of unknown domain names means everybody",
        "for each in peer.domain_names if choices.domain_names)",
        "for each in peer.domain_names)",
    ),
    (
        "ClusterNetworkPolicies are read by all",
        "self.cluster_policies if self.choices.cluster_policies else ()",
        "self.cluster_policies",
    ),
    ("a wildcard means the name itself", "and len(asked) > len(wanted) - 1", "or asked == wanted[2:]"),
    ("a name means all names that end like it", "return asked == wanted\n", "return asked.endswith(wanted)\n"),
    (
        "domain names are case-sensitive",
        'self.name.lower().rstrip("."), domain.lower().rstrip(".")',
        'self.name.rstrip("."), domain.rstrip(".")',
    ),
    (
        "pods on a node are not behind its address",
        "if isinstance(end, Endpoint) and end.host_network:\n            found",
        "if False:\n            found",
    ),
    (
        "all nodes are meant",
        "return isinstance(end, Machine) and self.nodes.matches(end.labels)",
        "return isinstance(end, Machine)",
    ),
    ("blocks see the Service's address everywhere", "flow.service and self.choices.blocks_before_dnat", "flow.service"),
    (
        "selectors see the Service's address too",
        "each.means(asked, flow.service, self) if isinstance(each, Block) else each.means(end, address, self)",
        "each.means(asked, flow.service, self)",
    ),
    ("a name has one number", "and protocol in (None, port.protocol))", "and protocol in (None, port.protocol))[:1]"),
    (
        "a podSelector alone means every namespace",
        "return Pods(namespace=namespace, pods=pods",
        "return Pods(pods=pods",
    ),
    (
        "a namespace that nobody wrote has no name",
        "namespaces[name] = with_default_labels(name, {})",
        "namespaces[name] = {}",
    ),
    (
        "ports do not matter",
        "flow.protocol, flow.port) for each in rule.ports):",
        "flow.protocol, flow.port) for each in rule.ports) and False:",
    ),
    ("peers do not matter", "return any(each.means(end, address, self) for each in rule.peers)", "return True"),
    (
        "one port of a rule counts",
        "flow.protocol, flow.port) for each in rule.ports):",
        "flow.protocol, flow.port) for each in rule.ports[:1]):",
    ),
    (
        "one peer counts",
        "return any(each.means(end, address, self) for each in rule.peers)",
        "return rule.peers[0].means(end, address, self)",
    ),
    (
        "both ends are asked about ingress",
        "return self.ingress if direction is INGRESS else self.egress",
        "return self.ingress",
    ),
    (
        "the peer is always the source",
        "        return self.destination, self.destination_address\n\n    def subject",
        "        return self.source, self.source_address\n\n    def subject",
    ),
)

ENGINE = (
    (
        "one end is enough",
        "return self.egress.allowed and self.ingress.allowed",
        "return self.egress.allowed or self.ingress.allowed",
    ),
    (
        "the way out does not matter",
        "return self.egress.allowed and self.ingress.allowed",
        "return self.ingress.allowed",
    ),
    ("the way in does not matter", "return self.egress.allowed and self.ingress.allowed", "return self.egress.allowed"),
    ("Pass accepts", "allowed = decision.rule.action is RuleAction.ACCEPT", "allowed = True"),
    (
        "Pass denies",
        "if decision is not None and decision.rule.action is not RuleAction.PASS:",
        "if decision is not None:",
    ),
    (
        "Pass goes on in the same tier",
        "decision = next(_deciding(policies, flow, direction, asked), None)",
        (
            "decision = next((d for d in _deciding(policies, flow, direction, asked)"
            " if d.rule.action is not RuleAction.PASS), None)"
        ),
    ),
    (
        "the last rule counts",
        "decision = next(_deciding(policies, flow, direction, asked), None)",
        "decision = ([None, *_deciding(policies, flow, direction, asked)])[-1]",
    ),
    (
        "a ClusterNetworkPolicy isolates",
        "isolated = tier is Tier.NETWORK_POLICY and bool(asked)",
        "isolated = bool(asked)",
    ),
    ("a NetworkPolicy does not isolate", "isolated = tier is Tier.NETWORK_POLICY and bool(asked)", "isolated = False"),
    (
        "a pod does not reach itself",
        "if same(flow.source, flow.destination) and (choices.own_service or not flow.service):",
        "if False:",
    ),
    ("a pod always reaches itself through a Service", "and (choices.own_service or not flow.service):", ":"),
    (
        "a pod never reaches itself through a Service",
        "and (choices.own_service or not flow.service):",
        "and not flow.service:",
    ),
    ("the own node is judged", "if direction is INGRESS and choices.own_node_to_pod:", "if False:"),
    (
        "the own node is never judged",
        "if direction is INGRESS and choices.own_node_to_pod:",
        "if direction is INGRESS:",
    ),
    ("the way to the own node is judged", "if direction is EGRESS and choices.pod_to_own_node:", "if False:"),
    (
        "the way to the own node is never judged",
        "if direction is EGRESS and choices.pod_to_own_node:",
        "if direction is EGRESS:",
    ),
    (
        "every node is the own node",
        "return bool(pod.node) and _node_of(other) == pod.node",
        "return bool(_node_of(other))",
    ),
    (
        "a pod is on its own node's network",
        'return end.node if isinstance(end, Endpoint) and end.host_network else ""',
        'return end.node if isinstance(end, Endpoint) else ""',
    ),
    (
        "a pod with hostNetwork is not its node",
        'return end.node if isinstance(end, Endpoint) and end.host_network else ""',
        'return ""',
    ),
    ("IPv6 is enforced by all", "if used and family(used) not in choices.families:", "if False:"),
    ("the family that is asked for is not looked at", "of = of or said_family(source, destination)", "of = 4"),
)

SELECTORS = (
    (
        "NotIn wants the key",
        "return labels.get(self.key) not in self.values\n            case Operator.EXISTS",
        "return self.key in labels and labels[self.key] not in self.values\n            case Operator.EXISTS",
    ),
    (
        "In takes a missing key",
        "return labels.get(self.key) in self.values\n            case Operator.NOT_IN",
        "return labels.get(self.key, self.values[0]) in self.values\n            case Operator.NOT_IN",
    ),
    (
        "Exists wants a value",
        "return self.key in labels\n            case Operator.DOES",
        "return self.key not in labels\n            case Operator.DOES",
    ),
    (
        "DoesNotExist is always true",
        "return self.key not in labels\n\n    def __str__",
        "return True\n\n    def __str__",
    ),
    (
        "one expression is enough",
        "and all(each.matches(labels) for each in self.match_expressions)",
        "and (not self.match_expressions or any(each.matches(labels) for each in self.match_expressions))",
    ),
    ("one label is enough", "return all(labels.get(key) == value", "return not wanted or any(labels.get(key) == value"),
    (
        "labels or expressions",
        "has_labels(labels, self.match_labels) and all(",
        "has_labels(labels, self.match_labels) or all(",
    ),
    ("an empty value is a missing key", "all(labels.get(key) == value", "all(labels.get(key, '') == value"),
)

MISTAKES = tuple(
    Mistake(*each)
    for module, listed in ((plan, PLAN), (engine, ENGINE), (selectors, SELECTORS))
    for each in ((what, module, right, wrong) for what, right, wrong in listed)
)


def mistaken(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    """A plan and an engine with the mistake."""
    if mistake.module is plan:
        other = run(plan, mistake, monkeypatch)
        return other, run(engine, Mistake("", engine, plan.__name__, other.__name__), monkeypatch)
    if mistake.module is engine:
        return plan, run(engine, mistake, monkeypatch)
    other = run(selectors, mistake, monkeypatch)
    for name in ("LabelSelector", "LabelSelectorRequirement"):
        monkeypatch.setattr(getattr(selectors, name), "matches", getattr(other, name).matches)
    return plan, engine


def run(module: ModuleType, mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module with one piece of its source replaced."""
    source = inspect.getsource(module)
    assert source.count(mistake.right) == 1, f"{mistake.right!r} is not there once"
    made = ModuleType(f"{module.__name__}_mistaken")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    exec(compile(source.replace(mistake.right, mistake.wrong), made.__name__, "exec"), vars(made))  # noqa: S102
    return made


@pytest.mark.parametrize("mistake", MISTAKES, ids=[each.what.replace(" ", "-") for each in MISTAKES])
def test_the_table_notices_a_mistake(mistake: Mistake, monkeypatch: pytest.MonkeyPatch) -> None:
    """At least one flow is judged otherwise, or cannot be asked about any more."""
    other_plan, other_engine = mistaken(mistake, monkeypatch)
    try:
        noticed = any(any(table.wrong(case, other_plan, other_engine)) for case in table.CASES)
    except LabError:
        noticed = True
    assert noticed, mistake.what
