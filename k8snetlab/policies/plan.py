"""What do the policies say, once every decision about reading them is made?

A NetworkPolicy can be written in many ways that mean the same, and in some that look the same and mean something else.
Here each policy becomes one `Policy` a direction, in the order of asking, and nobody reads the objects again:

- `subject`: the pods it is about; `rules`: what it says, in order, each with `peers` (the other end) and `ports` (of
  the destination). Both tuples are alternatives: no limit is said by `ANYONE` and `ANY_PORT`, and a rule without ports
  (whose only names mean nothing to a plugin) matches nothing.
- A NetworkPolicy isolates its subject: what no rule of any of them accepts is denied (`isolates`). A
  ClusterNetworkPolicy does not: what no rule matches goes on to the next policy or tier.
- What the API leaves to the network plugin stands in `Choices`, and is already in the normal form: whether pods with
  `hostNetwork` are meant by a selector, whether a block of addresses means pods, that a range of ports is cut short, or
  that a policy is not there at all. What is about a flow and not about a rule (own node, own Service) is asked of
  `Choices` by the engine.

The ends of a flow are pods (`Endpoint`), nodes (`Machine`) and everything else (`Outside`). A pod with `hostNetwork` is
an `Endpoint` whose addresses are its node's. Completed pods are left out: they neither send nor receive, and their
address may be another pod's by now.

Not modelled: policies of a CNI's own (Calico's GlobalNetworkPolicy, tiers of one's own), host endpoints. Guide section
4.1; Kubernetes "Network Policies", KEP-2079 (endPort), NPEP-285.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from functools import cached_property, lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple, TypeAlias, cast

import msgspec

from k8snetlab import api
from k8snetlab.address import Prefix, canonical, family, is_canonical
from k8snetlab.api.cluster_policies import NamespacedPod, PolicyTier, RuleAction, TransportMatch
from k8snetlab.api.networking import NetworkPolicyPeer, NetworkPolicyPort
from k8snetlab.errors import BadOption, Problem, UnknownName

if TYPE_CHECKING:  # loaded for clusters that have such policies
    from k8snetlab.api.cilium import CiliumNetworkPolicy

__all__ = [
    "ANYONE", "ANY_PORT", "BY_THE_BOOK", "CHOICES", "EGRESS", "INGRESS", "Anyone", "Block", "Choices", "Direction",
    "Domain", "End", "Endpoint", "Flow", "Machine", "Machines", "NamedPort", "Outside", "Peer", "Pods", "Policies",
    "Policy", "Ports", "Rule", "RuleAction", "Tier", "choices_of", "of", "with_default_labels",
]  # fmt: skip

Direction: TypeAlias = api.PolicyType
"""Seen from the pod that a policy selects."""
INGRESS = api.PolicyType.INGRESS
EGRESS = api.PolicyType.EGRESS

LAST_PORT = 65535


# --- who talks --------------------------------------------------------------------------------------------------------


class NamedPort(NamedTuple):
    """A port that a container gives a name. A name may stand for several numbers, a number may have several names."""

    name: str
    protocol: api.Protocol
    number: int


@lru_cache(maxsize=1 << 10)
def _named(ports: tuple[tuple[str, api.Protocol, int], ...]) -> tuple[NamedPort, ...]:
    """The ports of a pod: pods of one workload share them."""
    return tuple(NamedPort(*each) for each in ports)


class Endpoint(msgspec.Struct, frozen=True):
    """A pod as policies see it. `name` is `NAMESPACE/NAME`; `addresses` has at most one a family and is empty while the
    pod waits for a node; with `host_network` they are the node's.
    """

    name: str
    namespace: str
    labels: Mapping[str, str] = {}
    addresses: tuple[str, ...] = ()
    ports: tuple[NamedPort, ...] = ()
    node: str = ""
    host_network: bool = False

    @classmethod
    def of(cls, pod: api.Pod) -> Endpoint:
        """The pod; ports of ordinary containers and sidecars have names, those of other init containers do not."""
        named = [
            (port.name, port.protocol, port.container_port)
            for container in pod.listeners()
            for port in container.ports
            if port.name
        ]
        addresses = pod.ips
        if not all(map(is_canonical, addresses)):
            addresses = tuple(_canonical(each, pod.ref) for each in addresses)
        return cls(pod.key, pod.namespace, pod.labels, addresses, _named(tuple(named)), pod.node_name, pod.host_network)

    def address(self, of: int) -> str:
        """Its address of family `of` (4 or 6), or nothing."""
        return _of_family(self.addresses, of)

    def numbers(self, name: str, protocol: api.Protocol | None) -> tuple[int, ...]:
        """The ports that the pod gives this name, in a protocol or (None) in any; mostly one or none."""
        return tuple(port.number for port in self.ports if port.name == name and protocol in (None, port.protocol))


class Machine(msgspec.Struct, frozen=True):
    """A node as policies see it: what kubelet, and pods with `hostNetwork`, send from."""

    name: str
    addresses: tuple[str, ...] = ()
    labels: Mapping[str, str] = {}

    def address(self, of: int) -> str:
        """Its first address of family `of` (4 or 6), or nothing."""
        return _of_family(self.addresses, of)


class Outside(msgspec.Struct, frozen=True):
    """An address that is no pod's and no node's; `domain` is the DNS name it was found under, if that is known."""

    addresses: tuple[str, ...]
    domain: str = ""

    @property
    def name(self) -> str:
        """The DNS name, or the addresses."""
        return self.domain or ", ".join(self.addresses)

    def address(self, of: int) -> str:
        """Its address of family `of` (4 or 6), or nothing."""
        return _of_family(self.addresses, of)


End: TypeAlias = Endpoint | Machine | Outside
"""One end of a flow."""


class Flow(NamedTuple):
    """A connection that somebody opens: from one end to another, by these two addresses (empty where a pod has none
    yet), to a port of the destination. Source ports do not matter to policies; replies are part of the connection.
    Both ends are the real ones: behind a Service, the destination is the backend and its port, and `service` is the
    address that the source asked for.
    """

    source: End
    destination: End
    source_address: str
    destination_address: str
    protocol: api.Protocol
    port: int
    service: str = ""

    def peer(self, direction: Direction) -> tuple[End, str]:
        """The other end, seen from the pod that a policy of this direction selects, and its address."""
        if direction is INGRESS:
            return self.source, self.source_address
        return self.destination, self.destination_address

    def subject(self, direction: Direction) -> End:
        """The end that a policy of this direction may select."""
        return self.destination if direction is INGRESS else self.source

    @property
    def called(self) -> tuple[str, str]:
        """What messages call source and destination: by name, or by the address that is used."""
        return _called(self.source, self.source_address), _called(self.destination, self.destination_address)


# --- what rules ask ---------------------------------------------------------------------------------------------------


class Anyone(msgspec.Struct, frozen=True):
    """Every other end: pods, nodes, the whole world."""

    def means(self, end: End, address: str, policies: Policies) -> bool:
        """Yes."""
        return True


class Pods(msgspec.Struct, frozen=True, kw_only=True):
    """Pods by the labels of their namespace and their own. `namespace`, where said, is the only one. Without
    `host_network` a pod that uses its node's network is not meant, whatever its labels are.
    """

    namespace: str = ""
    namespaces: api.LabelSelector = api.LabelSelector()
    pods: api.LabelSelector = api.LabelSelector()
    host_network: bool = False

    def selects(self, endpoint: Endpoint, policies: Policies) -> bool:
        """Whether a pod is meant."""
        if endpoint.host_network and not self.host_network:
            return False
        if self.namespace:
            return self.namespace == endpoint.namespace and self.pods.matches(endpoint.labels)
        return self.namespaces.matches(policies.namespace(endpoint.namespace)) and self.pods.matches(endpoint.labels)

    def means(self, end: End, address: str, policies: Policies) -> bool:
        """Whether the end is such a pod."""
        return isinstance(end, Endpoint) and self.selects(end, policies)


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """Addresses: those of `prefix` less those of `holes`. Without `pods` or `nodes`, an end that is one is not meant
    although its address is.
    """

    prefix: Prefix
    holes: tuple[Prefix, ...] = ()
    pods: bool = True
    nodes: bool = True

    def contains(self, address: str) -> bool:
        """Whether the address is meant, whoever has it."""
        return self.prefix.contains(address) and not any(hole.contains(address) for hole in self.holes)

    def means(self, end: End, address: str, policies: Policies) -> bool:
        """Whether the end is meant, by the address that it uses."""
        if not address or not self.contains(address):
            return False
        if isinstance(end, Endpoint) and not end.host_network:
            return self.pods
        return self.nodes or isinstance(end, Outside)


class Machines(msgspec.Struct, frozen=True):
    """Nodes by their labels, and what uses their addresses."""

    nodes: api.LabelSelector

    def means(self, end: End, address: str, policies: Policies) -> bool:
        """Whether the end is such a node, or a pod with the addresses of one."""
        if isinstance(end, Endpoint) and end.host_network:
            found = policies.machines.get(end.node)
            return found is not None and self.nodes.matches(found.labels)
        return isinstance(end, Machine) and self.nodes.matches(end.labels)


class Domain(msgspec.Struct, frozen=True):
    """Whatever was found under a DNS name; `*.example.com` means every name below, at any depth, and not itself."""

    name: str

    def matches(self, domain: str) -> bool:
        """Whether a DNS name is meant; letters count alike, large or small, and a last dot does not count."""
        wanted, asked = self.name.lower().rstrip("."), domain.lower().rstrip(".")
        if wanted.startswith("*."):
            return asked.endswith(wanted[1:]) and len(asked) > len(wanted) - 1
        return asked == wanted

    def means(self, end: End, address: str, policies: Policies) -> bool:
        """Whether the end was found under such a name."""
        return isinstance(end, Outside) and bool(end.domain) and self.matches(end.domain)


Peer: TypeAlias = Anyone | Pods | Block | Machines | Domain
"""The other end of a rule. `means(end, address, policies)` tells whether a flow's end is one of them."""

ANYONE = Anyone()


class Ports(msgspec.Struct, frozen=True):
    """Ports of the destination: a range of numbers in one protocol (None: all, those without ports too), or a `name`,
    which every destination pod gives its own number, and which nothing but a pod has.
    """

    protocol: api.Protocol | None = None
    first: int = 0
    last: int = LAST_PORT
    name: str = ""

    @property
    def every(self) -> bool:
        """Whether every port of the protocol is meant."""
        return not self.name and self.first == 0 and self.last == LAST_PORT

    def match(self, destination: End, protocol: api.Protocol, port: int) -> bool:
        """Whether a port of that destination is meant."""
        if self.protocol not in (None, protocol):
            return False
        if not self.name:
            return self.first <= port <= self.last
        # What uses a node's address is behind the node's ports, and those have no names.
        if not isinstance(destination, Endpoint) or destination.host_network:
            return False
        return port in destination.numbers(self.name, protocol)

    def __str__(self) -> str:
        protocol = str(self.protocol or "any protocol")
        if self.name:
            return f"{self.name}/{protocol}"
        if self.every:
            return protocol if self.protocol else "any port"
        return f"{self.first}/{protocol}" if self.first == self.last else f"{self.first}-{self.last}/{protocol}"


ANY_PORT = Ports()


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One rule: what becomes of a flow whose other end is one of `peers` and whose port is one of `ports`. `field` is
    where it stands in its object (`spec.ingress[0]`), `name` what a ClusterNetworkPolicy calls it.
    """

    action: RuleAction = RuleAction.ACCEPT
    peers: tuple[Peer, ...]
    ports: tuple[Ports, ...]
    field: str
    name: str = ""


class Tier(StrEnum):
    """The three stages that a connection is judged in, in this order."""

    ADMIN = "Admin"
    NETWORK_POLICY = "NetworkPolicy"
    BASELINE = "Baseline"


_TIERS = tuple(Tier)


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """One policy in one direction. A policy about both directions is two of these, with the same `object`."""

    object: api.NetworkPolicy | api.ClusterNetworkPolicy
    tier: Tier
    direction: Direction
    subject: Pods
    rules: tuple[Rule, ...]
    priority: int = 0

    @property
    def ref(self) -> str:
        """How messages name it: `NetworkPolicy shop/db-clients`."""
        return self.object.ref

    @property
    def namespace(self) -> str:
        """The namespace it stands in; empty for a ClusterNetworkPolicy."""
        return self.object.namespace

    @property
    def isolates(self) -> bool:
        """Whether its subject is closed but for what some policy of the tier accepts."""
        return self.tier is Tier.NETWORK_POLICY


# --- what is left to the network plugin -------------------------------------------------------------------------------


class Choices(msgspec.Struct, frozen=True, kw_only=True):
    """What the API leaves open, or a plugin does otherwise. The defaults are what the API says, and where it says
    nothing, what its documentation calls usual.

    - `plugin`: whose choices these are, for messages.
    - `enforced`: whether policies have any effect.
    - `host_network_subjects`, `host_network_peers`: whether selectors mean pods with `hostNetwork` (in NetworkPolicies;
      ClusterNetworkPolicies never mean them). Otherwise these pods are nothing but their node.
    - `own_node_to_pod`, `pod_to_own_node`: whether a node always reaches its own pods, and they it.
    - `own_service`: whether a pod that is its own backend always reaches itself through a Service. (Without a Service
      it always does: such packets never leave the pod.)
    - `blocks_mean_pods`, `blocks_mean_nodes`: whether `ipBlock` and `networks` mean a pod, or a node, by its address.
    - `blocks_before_dnat`: whether egress blocks see a Service's address instead of the backend's.
    - `ranges`: whether `endPort` is heeded; otherwise the first port alone is meant.
    - `named_ports`: whether names of ports are understood; otherwise a policy with one is not there at all.
    - `common_names`: whether, in egress, a name means the one number that all pods of the cluster give it, at whatever
      pod; a name that they give several numbers then means nothing.
    - `cluster_policies`: whether ClusterNetworkPolicies are read; `domain_names`: whether those rules of theirs are.
    - `families`: in which families anything is enforced.
    """

    plugin: str = "the network"
    enforced: bool = True
    host_network_subjects: bool = False
    host_network_peers: bool = False
    own_node_to_pod: bool = True
    pod_to_own_node: bool = True
    own_service: bool = True
    blocks_mean_pods: bool = True
    blocks_mean_nodes: bool = True
    blocks_before_dnat: bool = False
    ranges: bool = True
    named_ports: bool = True
    common_names: bool = False
    cluster_policies: bool = True
    domain_names: bool = True
    families: tuple[int, ...] = (4, 6)


BY_THE_BOOK = Choices()
CHOICES: Mapping[str, Choices] = {
    # Felix's chains: what a pod sends to its node goes through the pod's egress policies, as does what comes back to it
    # from a Service; both are seen after DNAT. Rules of domainNames need a DNS proxy that open-source Calico lacks.
    "calico": Choices(plugin="calico", pod_to_own_node=False, own_service=False, domain_names=False),
    # Rules are by identity. A block stands for the identities that are no pod's, no node's: "world" and its parts.
    # Nodes have the identities host and remote-node; only what comes from the own host is let in unasked. Packets that
    # the load balancer sends back to their pod are not judged. A name of a port in egress is looked up in one table for
    # the whole cluster. ClusterNetworkPolicy is read from Cilium 1.20 on.
    "cilium": Choices(
        plugin="cilium", pod_to_own_node=False, blocks_mean_pods=False, blocks_mean_nodes=False, common_names=True,
        cluster_policies=False, domain_names=False,
    ),
    # weave-npc 2.8.1: written for NetworkPolicy and IPv4 alone. A packet to an address of the own node is let through.
    "weave": Choices(
        plugin="weave", own_service=False, ranges=False, named_ports=False, cluster_policies=False, domain_names=False,
        families=(4,),
    ),
}  # fmt: skip
"""What the CNIs that enforce policies choose, by name (Calico 3.30, Cilium 1.19, Weave Net 2.8.1)."""


def choices_of(cni: str) -> Choices:
    """What a CNI does where the API leaves it open; a CNI that is not in `CHOICES` enforces nothing."""
    return CHOICES.get(cni) or Choices(plugin=cni, enforced=False)


# --- the whole cluster ------------------------------------------------------------------------------------------------


class Policies(msgspec.Struct, frozen=True, dict=True, kw_only=True):
    """All pods, nodes and namespaces of a cluster, and all policies about them. Make one with `of`.

    `endpoints` and `network_policies` are in the order of the objects; `namespaces` has the labels of each, also of one
    that is only used, and `kubernetes.io/metadata.name` is always the name; `places` tells by `ref` where an object was
    written. `cilium_policies` are compiled (`maps`), and neither read here nor judged by the engine.
    """

    endpoints: tuple[Endpoint, ...] = ()
    machines: Mapping[str, Machine] = {}
    namespaces: Mapping[str, Mapping[str, str]] = {}
    network_policies: tuple[api.NetworkPolicy, ...] = ()
    cluster_policies: tuple[api.ClusterNetworkPolicy, ...] = ()
    cilium_policies: tuple[CiliumNetworkPolicy, ...] = ()
    choices: Choices = BY_THE_BOOK
    places: Mapping[str, api.Place] = {}

    @property
    def written(self) -> tuple[api.NetworkPolicy | api.ClusterNetworkPolicy, ...]:
        """All policies as somebody wrote them, whether they have an effect or not."""
        return (*self.network_policies, *self.cluster_policies)

    def place(self, ref: str, field: str = "") -> api.Place | None:
        """Where an object was written, or the rule of it that a field is in, if it was read from a file."""
        rule = field.partition("]")[0] + "]"
        return self.places.get(f"{ref} {rule}") or self.places.get(ref)

    def choosing(self, choices: Choices) -> Policies:
        """The same under another network plugin."""
        return msgspec.structs.replace(self, choices=choices)

    # The policies, read

    @cached_property
    def ingress(self) -> tuple[Policy, ...]:
        """What is asked about packets to a pod, in the order of asking: by tier, by priority, by name where that is
        the same; NetworkPolicies, whose order does not matter, as they were written.
        """
        return self._read(INGRESS)

    @cached_property
    def egress(self) -> tuple[Policy, ...]:
        """What is asked about packets from a pod, in the same order."""
        return self._read(EGRESS)

    def of(self, direction: Direction) -> tuple[Policy, ...]:
        """The policies of a direction, in the order of asking."""
        return self.ingress if direction is INGRESS else self.egress

    def _read(self, direction: Direction) -> tuple[Policy, ...]:
        if not self.choices.enforced:
            return ()
        own = (_network_policy(each, direction, self.choices) for each in self.network_policies)
        above = self.cluster_policies if self.choices.cluster_policies else ()
        cluster = (_cluster_policy(each, direction, self.choices) for each in above)
        found = [each for each in (*own, *cluster) if each is not None]
        if direction is EGRESS and self.choices.common_names:
            found = [self._with_numbers(each) for each in found]
        return tuple(sorted(found, key=_asked))

    def _with_numbers(self, policy: Policy) -> Policy:
        """A policy whose names of ports are the numbers that the whole cluster gives them."""
        rules = (
            msgspec.structs.replace(rule, ports=tuple(each for ports in rule.ports for each in self.common(ports)))
            for rule in policy.rules
        )
        return msgspec.structs.replace(policy, rules=tuple(rules))

    def common(self, ports: Ports) -> Iterator[Ports]:
        """Ports with the number that all pods of the cluster give a name; nothing where they do not agree."""
        if not ports.name:
            yield ports
            return
        own = (each for each in self.endpoints if not each.host_network)
        numbers = {number for each in own for number in each.numbers(ports.name, ports.protocol)}
        if len(numbers) == 1:
            [number] = numbers
            yield Ports(ports.protocol, number, number)

    # Who is meant

    def namespace(self, name: str) -> Mapping[str, str]:
        """The labels of a namespace."""
        return self.namespaces[name]

    def selecting(self, end: End, direction: Direction) -> tuple[Policy, ...]:
        """The policies of a direction that select an end, in the order of asking. Only pods are ever selected."""
        if not isinstance(end, Endpoint):
            return ()
        key = (end.name, direction)
        if key not in self._selecting:
            asked = self._at_home(end.namespace, direction)
            self._selecting[key] = tuple(each for each in asked if each.subject.selects(end, self))
        return self._selecting[key]

    def _at_home(self, namespace: str, direction: Direction) -> tuple[Policy, ...]:
        """The policies of a direction that may select pods of a namespace, in the order of asking."""
        key = (namespace, direction)
        if key not in self._homes:
            asked = self.of(direction)
            self._homes[key] = tuple(each for each in asked if each.subject.namespace in ("", namespace))
        return self._homes[key]

    def selected(self, policy: Policy) -> tuple[Endpoint, ...]:
        """The pods that a policy selects."""
        return self.meant(policy.subject)

    def meant(self, pods: Pods) -> tuple[Endpoint, ...]:
        """The pods that a selector means."""
        if pods.namespace:
            return tuple(each for each in self.by_namespace.get(pods.namespace, ()) if pods.selects(each, self))
        named = {name for name, labels in self.namespaces.items() if pods.namespaces.matches(labels)}
        found = [
            (index, each)
            for labels, homes in self._alike
            if pods.pods.matches(labels)
            for home, members in homes.items()
            if home in named
            for index, each in members
            if pods.host_network or not each.host_network
        ]
        return tuple(each for _, each in sorted(found, key=itemgetter(0)))

    @cached_property
    def _alike(self) -> tuple[tuple[Mapping[str, str], dict[str, list[tuple[int, Endpoint]]]], ...]:
        """The pods with their places, by the labels that they share and by namespace: replicas are asked about once."""
        found: dict[tuple[tuple[str, str], ...], dict[str, list[tuple[int, Endpoint]]]] = {}
        for index, each in enumerate(self.endpoints):
            homes = found.setdefault(tuple(sorted(each.labels.items())), {})
            homes.setdefault(each.namespace, []).append((index, each))
        return tuple((dict(labels), homes) for labels, homes in found.items())

    def matches(self, rule: Rule, direction: Direction, flow: Flow) -> bool:
        """Whether a rule is about a flow: the other end is one of its peers, and the port one of its ports."""
        end, address = flow.peer(direction)
        if not any(each.match(flow.destination, flow.protocol, flow.port) for each in rule.ports):
            return False
        if direction is EGRESS and flow.service and self.choices.blocks_before_dnat:
            asked = Outside((flow.service,))
            return any(
                each.means(asked, flow.service, self) if isinstance(each, Block) else each.means(end, address, self)
                for each in rule.peers
            )
        return any(each.means(end, address, self) for each in rule.peers)

    # Who is where

    @cached_property
    def by_name(self) -> Mapping[str, Endpoint]:
        """The pods by `NAMESPACE/NAME`."""
        return {each.name: each for each in self.endpoints}

    @cached_property
    def by_namespace(self) -> Mapping[str, tuple[Endpoint, ...]]:
        """The pods of each namespace that has any."""
        found: dict[str, list[Endpoint]] = {}
        for each in self.endpoints:
            found.setdefault(each.namespace, []).append(each)
        return {namespace: tuple(pods) for namespace, pods in found.items()}

    @cached_property
    def by_address(self) -> Mapping[str, End]:
        """The pods with a network of their own, and the nodes, by each of their addresses."""
        found: dict[str, End] = {}
        for machine in self.machines.values():
            found |= dict.fromkeys(machine.addresses, machine)
        for each in self.endpoints:
            if not each.host_network:
                found |= dict.fromkeys(each.addresses, each)
        return found

    def end(self, who: str) -> End:
        """One end by what people call it: `NAMESPACE/POD`, `node/NAME`, `external:ADDRESS` or an address, which is
        that of a pod, of a node or of nobody here. Raises `UnknownName` and `BadOption`.
        """
        kind, _, name = who.partition("/")
        if who in self.by_name:
            return self.by_name[who]
        if kind == "node" and name:
            if name not in self.machines:
                raise UnknownName("node", name, self.machines)
            return self.machines[name]
        if kind in ("svc", "service"):
            message = "policies see what is behind a Service: ask for one of its pods, and for the pod's port"
            raise BadOption(Problem(message, object=who))
        if name:
            raise UnknownName("pod", who, self.by_name)
        if not any(sign in who for sign in ".:"):
            raise UnknownName("pod, node/NAME or address", who, self.by_name)
        address = _canonical(who.removeprefix("external:"), "")
        return self.by_address.get(address) or Outside((address,))

    def flow(self, source: End, destination: End, port: int, protocol: api.Protocol, of: int | None = None) -> Flow:
        """The flow between two ends in a family, or in the first one of the source that the destination has too.
        Raises `BadOption` where they have none in common. An end without any address (a pod that waits) goes with all.
        """
        families = (of,) if of else (*dict.fromkeys(family(each) for each in source.addresses), 4, 6)
        for each in families:
            here, there = source.address(each), destination.address(each)
            if (here or not source.addresses) and (there or not destination.addresses):
                return Flow(source, destination, here, there, protocol, port)
        which = f"no IPv{of} address in common" if of else "no family in common"
        raise BadOption(Problem(f"{source.name} and {destination.name} have {which}", field="family"))

    @cached_property
    def _selecting(self) -> dict[tuple[str, Direction], tuple[Policy, ...]]:
        return {}

    @cached_property
    def _homes(self) -> dict[tuple[str, Direction], tuple[Policy, ...]]:
        return {}


def of(
    objects: Iterable[api.Object], *, choices: Choices = BY_THE_BOOK, places: Mapping[str, api.Place] | None = None
) -> Policies:
    """The policies of a cluster from its objects (pods with nodes and addresses, as the controllers leave them; other
    kinds are passed over). `places` tells where objects were written, by `ref`.

    >>> of([api.Namespace(metadata=api.ObjectMeta(name="shop"))]).namespaces
    {'shop': {'kubernetes.io/metadata.name': 'shop'}}
    """
    endpoints: list[Endpoint] = []
    machines: dict[str, Machine] = {}
    namespaces: dict[str, Mapping[str, str]] = {}
    own: list[api.NetworkPolicy] = []
    above: list[api.ClusterNetworkPolicy] = []
    ciliums: list[CiliumNetworkPolicy] = []
    for each in objects:
        if isinstance(each, api.Pod):
            if not each.completed:
                endpoints.append(Endpoint.of(each))
        elif isinstance(each, api.Node):
            addresses = tuple(_canonical(ip, each.ref) for ip in (*each.addresses, *each.external_addresses))
            machines[each.name] = Machine(each.name, addresses, each.labels)
        elif isinstance(each, api.Namespace):
            namespaces[each.name] = each.labels
        elif isinstance(each, api.NetworkPolicy):
            own.append(each)
        elif isinstance(each, api.ClusterNetworkPolicy):
            above.append(each)
        elif each.kind == "CiliumNetworkPolicy":
            ciliums.append(cast("CiliumNetworkPolicy", each))
    for name in (*(each.namespace for each in endpoints), *(each.namespace for each in own)):
        if name not in namespaces:
            namespaces[name] = with_default_labels(name, {})
    return Policies(
        endpoints=tuple(endpoints), machines=machines, namespaces=namespaces, network_policies=tuple(own),
        cluster_policies=tuple(above), cilium_policies=tuple(ciliums), choices=choices, places=places or {},
    )  # fmt: skip


def with_default_labels(namespace: str, labels: Mapping[str, str]) -> dict[str, str]:
    """The labels of a namespace as the API server keeps them: its name is among them, whatever was said."""
    return {**labels, "kubernetes.io/metadata.name": namespace}


# --- reading NetworkPolicies ------------------------------------------------------------------------------------------


def _network_policy(policy: api.NetworkPolicy, direction: Direction, choices: Choices) -> Policy | None:
    if direction not in policy.spec.policy_types or (not choices.named_ports and _names_ports(policy)):
        return None
    subject = Pods(
        namespace=policy.namespace, pods=policy.spec.pod_selector, host_network=choices.host_network_subjects
    )
    rules = tuple(
        Rule(
            peers=tuple(_peer(each, policy.namespace, choices) for each in peers) or (ANYONE,),
            ports=tuple(_ports(each, choices) for each in ports) or (ANY_PORT,),
            field=field,
        )
        for field, peers, ports in _written(policy, direction)
    )
    return Policy(object=policy, tier=Tier.NETWORK_POLICY, direction=direction, subject=subject, rules=rules)


def _written(
    policy: api.NetworkPolicy, direction: Direction
) -> Iterator[tuple[str, tuple[NetworkPolicyPeer, ...], tuple[NetworkPolicyPort, ...]]]:
    """Where each rule of a direction stands, its peers and its ports."""
    if direction is INGRESS:
        for index, rule in enumerate(policy.spec.ingress):
            yield f"spec.ingress[{index}]", rule.from_, rule.ports
    else:
        for index, out in enumerate(policy.spec.egress):
            yield f"spec.egress[{index}]", out.to, out.ports


def _names_ports(policy: api.NetworkPolicy) -> bool:
    """Whether any rule says a port by its name, in a direction that the policy is about."""
    ports = (
        each for direction in policy.spec.policy_types for _, _, ports in _written(policy, direction) for each in ports
    )
    return any(isinstance(each.port, str) for each in ports)


def _peer(peer: NetworkPolicyPeer, namespace: str, choices: Choices) -> Peer:
    if peer.ip_block is not None:
        return _block(peer.ip_block.cidr, choices, peer.ip_block.except_)
    pods = peer.pod_selector or api.LabelSelector()
    if peer.namespace_selector is None:
        return Pods(namespace=namespace, pods=pods, host_network=choices.host_network_peers)
    return Pods(namespaces=peer.namespace_selector, pods=pods, host_network=choices.host_network_peers)


def _block(cidr: str, choices: Choices, holes: Iterable[str] = ()) -> Block:
    return Block(
        prefix=Prefix.of(cidr),
        holes=tuple(Prefix.of(each) for each in holes),
        pods=choices.blocks_mean_pods,
        nodes=choices.blocks_mean_nodes,
    )


def _ports(port: NetworkPolicyPort, choices: Choices) -> Ports:
    if port.port is None:
        return Ports(port.protocol)
    if isinstance(port.port, str):
        return Ports(port.protocol, name=port.port)
    last = port.end_port if port.end_port is not None and choices.ranges else port.port
    return Ports(port.protocol, port.port, last)


# --- reading ClusterNetworkPolicies -----------------------------------------------------------------------------------


def _cluster_policy(policy: api.ClusterNetworkPolicy, direction: Direction, choices: Choices) -> Policy | None:
    rules = _ingress_rules(policy) if direction is INGRESS else _egress_rules(policy, choices)
    kept = tuple(rule for rule in rules if rule.peers)
    if not kept:
        return None
    subject = policy.spec.subject
    return Policy(
        object=policy,
        tier=Tier.ADMIN if policy.spec.tier is PolicyTier.ADMIN else Tier.BASELINE,
        direction=direction,
        subject=_cluster_pods(subject.namespaces, subject.pods),
        rules=kept,
        priority=policy.spec.priority,
    )


def _ingress_rules(policy: api.ClusterNetworkPolicy) -> Iterator[Rule]:
    for index, rule in enumerate(policy.spec.ingress):
        peers = tuple(_cluster_pods(each.namespaces, each.pods) for each in rule.from_)
        ports = tuple(_cluster_ports(rule.protocols)) or (ANY_PORT,)
        yield Rule(action=rule.action, peers=peers, ports=ports, field=f"spec.ingress[{index}]", name=rule.name)


def _egress_rules(policy: api.ClusterNetworkPolicy, choices: Choices) -> Iterator[Rule]:
    for index, rule in enumerate(policy.spec.egress):
        peers = tuple(each for peer in rule.to for each in _egress_peers(peer, choices))
        ports = tuple(_cluster_ports(rule.protocols)) or (ANY_PORT,)
        yield Rule(action=rule.action, peers=peers, ports=ports, field=f"spec.egress[{index}]", name=rule.name)


def _cluster_pods(namespaces: api.LabelSelector | None, pods: NamespacedPod | None) -> Pods:
    if pods is not None:
        return Pods(namespaces=pods.namespace_selector, pods=pods.pod_selector)
    return Pods(namespaces=namespaces or api.LabelSelector())


def _egress_peers(peer: api.ClusterNetworkPolicyEgressPeer, choices: Choices) -> Iterator[Peer]:
    if peer.networks:
        yield from (_block(each, choices) for each in peer.networks)
    elif peer.domain_names:
        yield from (Domain(each) for each in peer.domain_names if choices.domain_names)
    elif peer.nodes is not None:
        yield Machines(peer.nodes)
    else:
        yield _cluster_pods(peer.namespaces, peer.pods)


def _cluster_ports(protocols: Iterable[api.ClusterNetworkPolicyProtocol]) -> Iterator[Ports]:
    for each in protocols:
        if each.destination_named_port:
            yield Ports(name=each.destination_named_port)
        elif each.tcp is not None:
            yield _transport_ports(api.Protocol.TCP, each.tcp)
        elif each.udp is not None:
            yield _transport_ports(api.Protocol.UDP, each.udp)
        elif each.sctp is not None:
            yield _transport_ports(api.Protocol.SCTP, each.sctp)


def _transport_ports(protocol: api.Protocol, match: TransportMatch) -> Ports:
    port = match.destination_port
    if port.range_ is not None:
        return Ports(protocol, port.range_.start, port.range_.end)
    return Ports(protocol, port.number or 0, port.number or 0)


def _asked(policy: Policy) -> tuple[int, int, str]:
    own = policy.tier is Tier.NETWORK_POLICY
    return _TIERS.index(policy.tier), policy.priority, "" if own else policy.object.name


def _called(end: End, address: str) -> str:
    if isinstance(end, Outside):
        return f"{end.domain} ({address})" if end.domain else address
    return f"node/{end.name}" if isinstance(end, Machine) else end.name


def _canonical(address: str, object: str) -> str:
    return canonical(address, field="address", object=object)


def _of_family(addresses: tuple[str, ...], of: int) -> str:
    for each in addresses:
        if (":" in each) is (of == 6):
            return each
    return ""
