"""The view models: settings in, text and picture out, all of it computed."""

from __future__ import annotations

from typing import Any

import pytest

from k8snetlab import contract, networks
from k8snetlab.cluster import example, recipes
from k8snetlab.cni import VARIANTS
from k8snetlab.explore.cni import LOOKS, CniModel, between
from k8snetlab.explore.contract import NOTHING, ContractModel
from k8snetlab.explore.dns import NameModel
from k8snetlab.explore.external import EDITS, ExternalModel
from k8snetlab.explore.families import CLUSTERS, FamiliesModel
from k8snetlab.explore.plan import Blocks, PlanModel, room
from k8snetlab.explore.pod_to_pod import PodToPodModel, wire
from k8snetlab.explore.policies import LOOKS as LAYERS
from k8snetlab.explore.policies import NONE, OUTSIDE, PLUGINS, PoliciesModel
from k8snetlab.explore.service import POLICIES, SERVICE_TYPES, ServiceModel
from k8snetlab.explore.slices import CHURNS, SlicesModel
from k8snetlab.explore.walk import EVERYTHING, MATTERS, WalkModel
from k8snetlab.services import MODES
from k8snetlab.trace import Action, Client

CLIENT, WEB = "default/client", "svc/default/web:80"


@pytest.fixture(scope="module")
def walk() -> WalkModel:
    """The cluster of notebook 0_0."""
    return WalkModel(example("one-web-one-client"))


def test_the_ends_of_a_walk_are_those_of_the_cluster(walk: WalkModel) -> None:
    """Pods, nodes and the outside may send; Services and pods with ports may be sent to."""
    assert walk.sources == (CLIENT, "default/web", "node/node-1", "node/node-2", "node/node-3", "external")
    assert walk.targets == (WEB, "default/web:8080")


def test_a_stop_shows_its_rule_and_the_packet_after_it(walk: WalkModel) -> None:
    """At the translation the text names the rule and the new destination."""
    places = walk.places(walk.trace(CLIENT, WEB), MATTERS)
    at = next(number for number, place in enumerate(places, 1) if place.step.action is Action.DNAT)
    view = walk.view(source=CLIENT, target=WEB, step=at, detail=MATTERS)
    assert "-j DNAT --to-destination" in " ".join(view.text.split())
    assert walk.cluster.objects.pod("default/web").ip in view.text


def test_every_rule_makes_more_stops(walk: WalkModel) -> None:
    """Rules that only pass the packet on are left out unless asked for."""
    trace = walk.trace(CLIENT, WEB)
    everything = walk.places(trace, EVERYTHING)
    assert len(everything) == len(trace.steps) + len(trace.reply)
    assert len(walk.places(trace, MATTERS)) < len(everything)


def test_a_stop_beyond_the_last_is_the_last(walk: WalkModel) -> None:
    """A slider that is too far to the right shows the end."""
    last = len(walk.places(walk.trace(CLIENT, WEB), MATTERS))
    ends = [walk.view(source=CLIENT, target=WEB, step=step, detail=MATTERS).text for step in (last, last + 50)]
    assert ends[0] == ends[1]


def test_the_way_back_is_told_apart(walk: WalkModel) -> None:
    """Steps of the answer say so."""
    text = walk.view(source=CLIENT, target=WEB, step=10_000, detail=MATTERS).text
    assert "on the way back: default/client" in text


@pytest.fixture(scope="module")
def promises() -> ContractModel:
    """The cluster of notebook 1_1."""
    return ContractModel(example("pods-on-two-nodes"))


@pytest.mark.parametrize(
    ("network", "rule"),
    [
        *(("flannel vxlan", rule) for rule in contract.RULES),
        *((network, "pod-to-pod") for network in networks.ways() if network != "flannel vxlan"),
    ],
)
def test_exactly_the_broken_rule_fails(promises: ContractModel, network: str, rule: str) -> None:
    """Breaking a rule breaks that rule only, on every network."""
    text = promises.view(broken=rule, network=network).text
    assert [line.split()[1] for line in text.splitlines() if line.startswith("BROKEN")] == [f"{rule}:"]


@pytest.mark.parametrize("network", networks.ways())
def test_nothing_broken_breaks_nothing(promises: ContractModel, network: str) -> None:
    """An untouched cluster keeps all promises, and its packet arrives."""
    text = promises.view(broken=NOTHING, network=network).text
    assert "BROKEN" not in text
    assert "the client is told OPEN" in text


@pytest.mark.parametrize(
    ("rule", "client"),
    [
        ("pod-to-pod", Client.TIMEOUT),
        ("node-to-pod", Client.TIMEOUT),
        ("same-address", Client.OPEN),
        ("kubelet", Client.REFUSED),
        ("outside", Client.OPEN),
    ],
)
def test_the_packet_of_the_picture_feels_the_broken_rule(promises: ContractModel, rule: str, client: Client) -> None:
    """The packet that is drawn shows what is wrong, and is well without the fault (or stays outside)."""
    pair = promises.pair(rule)
    broken, _ = promises.judged("flannel vxlan", rule)
    trace, whole = broken.trace(pair.source, pair.target), promises.cluster.trace(pair.source, pair.target)
    assert trace.client is client
    assert (trace.client, trace.source_seen) != (whole.client, whole.source_seen)


@pytest.mark.parametrize(
    ("blocks", "nodes", "pods"),
    [
        (Blocks("172.18.0.0/16", "10.244.0.0/16", "10.96.0.0/12", 24), 256, 253),
        (Blocks("172.18.0.0/16", "10.244.0.0/16", "10.96.0.0/12", 26), 1024, 61),
        (Blocks("192.168.1.0/28", "10.0.0.0/8", "10.96.0.0/12", 24), 13, 253),
        (Blocks("172.18.0.0/16", "10.244.0.0/24", "10.96.0.0/12", 20), 0, 4093),
    ],
)
def test_the_room_of_a_plan_is_calculated(blocks: Blocks, nodes: int, pods: int) -> None:
    """Nodes need an address and a block; a block loses three addresses."""
    assert (room(blocks).nodes, room(blocks).pods_a_node) == (nodes, pods)


SETTINGS = {
    "node_cidr": "172.18.0.0/16",
    "pod_cidr": "10.244.0.0/16",
    "service_cidr": "10.96.0.0/12",
    "node_length": 24,
    "nodes": 3,
    "address": "",
}


def test_an_overlap_is_named() -> None:
    """Networks that share addresses stand in the text."""
    text = PlanModel().view(**{**SETTINGS, "pod_cidr": "10.96.0.0/16"}).text  # type: ignore[arg-type]
    assert "OVERLAP: pods (10.96.0.0/16) and Services (10.96.0.0/12)" in text


def test_a_plan_that_is_too_small_says_so() -> None:
    """A thousand nodes do not fit into 256 blocks."""
    text = PlanModel().view(**{**SETTINGS, "nodes": 1000}).text  # type: ignore[arg-type]
    assert "TOO SMALL: only 256 fit" in text


@pytest.mark.parametrize(
    "wrong", [{"pod_cidr": "10.244.0.0"}, {"pod_cidr": "ten"}, {"address": "nobody"}, {"node_cidr": ""}]
)
def test_what_is_no_network_is_said_and_not_raised(wrong: dict[str, str]) -> None:
    """Half a text in an input field is no reason for a traceback."""
    view = PlanModel().view(**{**SETTINGS, **wrong})  # type: ignore[arg-type]
    assert view.text
    assert view.picture.svg


def test_an_address_is_placed_in_its_network() -> None:
    """The address that is asked about is told to be in a node's block."""
    text = PlanModel().view(**{**SETTINGS, "address": "10.244.1.7"}).text  # type: ignore[arg-type]
    assert "pods of node-2" in text.splitlines()[-1]


@pytest.fixture(scope="module")
def ways() -> PodToPodModel:
    """The cluster of notebook 2_1."""
    return PodToPodModel(example("same-node-other-node"))


USUAL = {"to": "other node", "size": 1000, "missing": "nothing", "mtu": "as usual", "df": True}


@pytest.mark.parametrize(
    ("network", "length"),
    [
        ("bridge", 1042), ("flannel vxlan", 1092), ("flannel directrouting", 1042), ("flannel host-gw", 1042),
        ("calico ipip", 1062), ("cilium geneve", 1092), ("weave encryption", 1126),
    ],
)  # fmt: skip
def test_a_frame_is_as_large_as_its_network_makes_it(ways: PodToPodModel, network: str, length: int) -> None:
    """1000 bytes of UDP payload are 1042 on the cable, and 50 more in VXLAN."""
    frame = wire(ways.trace(network=network, **USUAL), ways.node)  # type: ignore[arg-type]
    assert frame is not None
    assert frame.length == length


def test_nothing_leaves_the_node_for_a_neighbour(ways: PodToPodModel) -> None:
    """On the same node no frame goes to the other."""
    trace = ways.trace(network="flannel vxlan", **{**USUAL, "to": "same node"})  # type: ignore[arg-type]
    assert wire(trace, ways.node) is None


@pytest.mark.parametrize(
    ("network", "missing", "client"),
    [
        ("flannel vxlan", "route", Client.TIMEOUT),
        ("flannel vxlan", "neighbour", Client.UNREACHABLE),
        ("flannel vxlan", "FDB entry", Client.TIMEOUT),
        ("flannel wireguard", "WireGuard peer", Client.UNREACHABLE),
        ("cilium wireguard", "WireGuard peer", Client.TIMEOUT),
        ("cilium vxlan", "cache entry", Client.OPEN),  # the entry of the whole node leads there, too
        ("cilium vxlan", "route", Client.OPEN),  # a program asks its map, and not the routes
    ],
)
def test_each_missing_entry_has_its_symptom(ways: PodToPodModel, network: str, missing: str, client: Client) -> None:
    """What the client is told depends on which entry is gone, and on who would have asked for it."""
    whole = ways.on(network, "nothing", "as usual")
    assert ways.entry(whole, missing) is not None
    trace = ways.trace(network=network, **{**USUAL, "size": 0, "missing": missing})  # type: ignore[arg-type]
    assert trace.client is client


@pytest.mark.parametrize("network", networks.ways())
def test_the_view_names_the_devices_that_the_packet_passed(ways: PodToPodModel, network: str) -> None:
    """On every network a datagram arrives, and the text has the MTU of all devices on its way out."""
    text = ways.view(network=network, **USUAL).text  # type: ignore[arg-type]
    assert "the client is told OPEN" in text
    assert "MTU: the pod's eth0 " in text and " eth0 1500" in text


def test_an_entry_that_a_network_does_not_have_is_not_missed(ways: PodToPodModel) -> None:
    """Host routes need no FDB: the text says that nothing is missing, and the packet arrives."""
    view = ways.view(network="flannel host-gw", **{**USUAL, "missing": "FDB entry"})  # type: ignore[arg-type]
    assert "nothing is missing" in view.text
    assert "DELIVERED" in view.text


def test_a_datagram_that_may_be_cut_arrives(ways: PodToPodModel) -> None:
    """Without DF a large datagram goes in fragments."""
    trace = ways.trace(network="flannel vxlan", **{**USUAL, "size": 3000, "df": False})  # type: ignore[arg-type]
    assert trace.client is Client.OPEN
    assert any(step.action is Action.FRAGMENT for step in trace.steps)


@pytest.fixture(scope="module")
def services() -> ServiceModel:
    """The cluster of notebook 2_2."""
    return ServiceModel(example("service-three-backends"))


USUAL_SERVICE: dict[str, Any] = {
    "kind": "ClusterIP", "proxy": "iptables", "external": "Cluster", "internal": "Cluster", "affinity": "None",
    "source": "a pod", "ready": 3,
}  # fmt: skip


@pytest.mark.parametrize("proxy", MODES)
@pytest.mark.parametrize("kind", SERVICE_TYPES)
@pytest.mark.parametrize("ready", [1, 2, 3])
def test_every_ready_pod_is_equally_likely_for_a_pod(services: ServiceModel, kind: str, proxy: str, ready: int) -> None:
    """A pod that asks inside of the cluster reaches each of the ready pods, whatever the type and the mode."""
    outcomes = services.trace(kind=kind, source="a pod", ready=ready, proxy=proxy).outcomes
    assert [round(outcome.probability, 6) for outcome in outcomes] == [round(1 / ready, 6)] * ready


@pytest.mark.parametrize("source", ["a pod", "a pod of the Service", "a node", "outside"])
@pytest.mark.parametrize("kind", ["ClusterIP", "NodePort"])
def test_a_service_without_ready_pods_refuses(services: ServiceModel, kind: str, source: str) -> None:
    """Nobody is ready: refused. From outside a ClusterIP is not reached at all."""
    client = services.trace(kind=kind, source=source, ready=0).client
    assert client is (Client.TIMEOUT if (kind, source) == ("ClusterIP", "outside") else Client.REFUSED)


@pytest.mark.parametrize("proxy", MODES)
@pytest.mark.parametrize("kind", ["NodePort", "LoadBalancer"])
def test_policy_local_keeps_the_source(services: ServiceModel, kind: str, proxy: str) -> None:
    """From outside the pod sees the client with policy Local; without, at least pods on other nodes do not."""
    client = services.cluster.network["external"].link("eth0").addresses[0].ip
    seen = {
        policy: {
            outcome.source_seen
            for outcome in services.trace(kind=kind, source="outside", ready=3, proxy=proxy, external=policy).outcomes
        }
        for policy in POLICIES
    }
    assert seen["Local"] == {client}
    assert seen["Cluster"] - {client}


@pytest.mark.parametrize(
    ("proxy", "client"),
    [("iptables", Client.TIMEOUT), ("nftables", Client.TIMEOUT), ("ebpf", Client.REFUSED)],
)
def test_a_node_without_a_pod_takes_nothing_under_policy_local(
    services: ServiceModel, proxy: str, client: Client
) -> None:
    """Who is led to node-3, while only the pod on node-1 is ready, is dropped; eBPF refuses."""
    trace = services.trace(kind="NodePort", source="outside, led to node-3", ready=1, proxy=proxy, external="Local")
    assert trace.client is client


def test_the_policy_for_the_inside_is_the_nodes_own(services: ServiceModel) -> None:
    """With internalTrafficPolicy Local the client reaches the pod of its node alone."""
    trace = services.trace(kind="ClusterIP", source="a pod", ready=3, internal="Local")
    assert [outcome.backend.pod for outcome in trace.outcomes if outcome.backend is not None] == ["web-1"]


@pytest.mark.parametrize("proxy", MODES)
def test_affinity_shows_in_connections_one_after_the_other(services: ServiceModel, proxy: str) -> None:
    """Six connections end at one pod with affinity, and at more of them without."""
    with_, without = (
        services.visits(**{**USUAL_SERVICE, "proxy": proxy, "affinity": affinity}) for affinity in ("ClientIP", "None")
    )
    assert len(set(with_)) == 1 < len(set(without))


def test_a_headless_service_needs_no_rule(services: ServiceModel) -> None:
    """The client has a pod's own address from the beginning, and no rule of the Service is met."""
    view = services.view(**{**USUAL_SERVICE, "kind": "headless"})
    assert "No rule matched" in view.text
    assert "name for its ready pods" in view.text


def test_a_name_without_an_address_is_said_and_not_raised(services: ServiceModel) -> None:
    """A headless Service without a ready pod has nothing that one could send to."""
    view = services.view(**{**USUAL_SERVICE, "kind": "headless", "ready": 0})
    assert "its name has no address" in view.text
    assert "no packet was sent" in view.picture.text


def test_an_external_name_leads_to_the_service_behind_it(services: ServiceModel) -> None:
    """The rules that decide are those of another Service."""
    view = services.view(**{**USUAL_SERVICE, "kind": "ExternalName"})
    assert "default/web-itself:http" in view.text


def test_what_a_type_has_no_use_for_is_named(services: ServiceModel) -> None:
    """A ClusterIP has no policy for the outside: the API server would refuse one."""
    view = services.view(**{**USUAL_SERVICE, "external": "Local"})
    assert "Of no use for this type: externalTrafficPolicy." in view.text


def test_the_deciding_rules_name_the_service(services: ServiceModel) -> None:
    """Rules that other things need stay out of the text."""
    text = services.view(**USUAL_SERVICE).text
    rules = [line for line in text.splitlines() if line.strip().startswith(("nat", "filter"))]
    assert len(rules) == 3
    assert all("default/web" in line for line in rules)


@pytest.mark.parametrize(
    ("proxy", "words"),
    [
        ("nftables", "10.96.49.66 . tcp . 80 is in @service-ips"),
        ("ipvs", "IPVS sends it to a real server"),
        ("ebpf", "before any packet exists"),
    ],
)
def test_each_mode_says_what_it_looked_up(services: ServiceModel, proxy: str, words: str) -> None:
    """What stands in a map or among virtual servers is told, and on which machine it was found."""
    assert words in services.view(**{**USUAL_SERVICE, "proxy": proxy}).text


@pytest.fixture(scope="module")
def same_packet() -> CniModel:
    """The cluster of notebook 3_1."""
    return CniModel(example("one-flow-many-networks"))


USUAL_FLOW = {"flow": "pod of another node", "family": "IPv4", "proxy": "iptables", "subnets": "one subnet"}


@pytest.mark.parametrize("network", networks.ways())
def test_the_frame_between_nodes_is_as_long_as_was_measured(same_packet: CniModel, network: str) -> None:
    """The explorer shows what the table of all networks says, on another cluster and by TCP."""
    trace = same_packet.trace(network=network, **USUAL_FLOW)
    frame = between(same_packet.on(network, "IPv4", "iptables", "one subnet"), trace)
    assert trace.client is Client.OPEN
    assert frame is not None
    way: dict[str, Any] = dict(networks.ways()[network])
    measured = networks.figures(way.pop("cni"), **way)
    sent = next(step.packet.length for step in trace.steps if step.action is Action.TRANSMIT)
    assert abs(frame.length - sent - measured.encapsulation) <= (15 if measured.encrypted else 0)


@pytest.mark.parametrize("proxy", MODES)
@pytest.mark.parametrize("network", ["flannel vxlan", "calico ipip", "cilium vxlan", "weave sleeve"])
def test_a_service_answers_on_every_network(same_packet: CniModel, network: str, proxy: str) -> None:
    """Whoever rewrites the destination, the packet to a pod of another node arrives, and the pod sees the client."""
    trace = same_packet.trace(network=network, **{**USUAL_FLOW, "flow": "Service", "proxy": proxy})
    assert trace.client is Client.OPEN
    assert trace.source_seen == same_packet.on(network, "IPv4", proxy, "one subnet").objects.pod(same_packet.source).ip


def test_nodes_of_other_subnets_are_lost_without_a_tunnel(same_packet: CniModel) -> None:
    """A route to a node must lead over the own cable."""
    apart = {**USUAL_FLOW, "subnets": "two subnets"}
    clients = {name: same_packet.trace(network=name, **apart).client for name in ("calico bgp", "calico ipip")}
    assert clients == {"calico bgp": Client.TIMEOUT, "calico ipip": Client.OPEN}


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
def test_the_server_outside_sees_a_node(same_packet: CniModel, family: str) -> None:
    """In both families the client is hidden behind its node."""
    trace = same_packet.trace(network="cilium vxlan", **{**USUAL_FLOW, "flow": "server outside", "family": family})
    node = same_packet.on("cilium vxlan", family, "iptables", "one subnet").network["node-1"]
    assert trace.source_seen in node.owned


def test_a_network_without_that_family_is_said_and_not_raised(same_packet: CniModel) -> None:
    """Weave has no IPv6: text and picture say so."""
    view = same_packet.view(network="weave fastdp", **{**USUAL_FLOW, "family": "IPv6"}, look="path")
    assert "Not possible: " in view.text
    assert "IPv4 only" in view.text
    assert "no packet was sent" in view.picture.text


def test_the_picture_is_the_path_or_the_headers(same_packet: CniModel) -> None:
    """The text is the same, and says what is on the cable and what the node holds."""
    path, headers = (same_packet.view(network="flannel vxlan", **USUAL_FLOW, look=look) for look in LOOKS)
    assert path.text == headers.text
    assert "On the cable between the nodes: 1,108 bytes" in path.text
    assert "routes 2, neighbours 2, fdb 2" in path.text
    assert "The request passes" in path.picture.text
    assert "VXLAN" in headers.picture.text


@pytest.fixture(scope="module")
def slices() -> SlicesModel:
    """The cluster of notebook 5_1."""
    return SlicesModel(example("service-many-pods"))


RESTART = {"pods": 250, "happens": "one pod restarts", "most": 100, "looks": "after every event"}


def test_a_restart_is_four_writes_of_a_slice(slices: SlicesModel) -> None:
    """And three of the Endpoints object, which are larger."""
    turn = slices.ledger(**RESTART).last  # type: ignore[arg-type]
    assert (turn.slices.writes, turn.endpoints.writes) == (4, 3)
    assert turn.slices.bytes < turn.endpoints.bytes


def test_controllers_that_look_once_write_once(slices: SlicesModel) -> None:
    """The new pod takes the place of the old one in its slice."""
    turn = slices.ledger(**{**RESTART, "looks": "once, at the end"}).last  # type: ignore[arg-type]
    assert (turn.events, turn.slices.writes, turn.sizes) == (1, 1, (100, 100, 50))


@pytest.mark.parametrize("happens", CHURNS)
def test_every_churn_is_counted(slices: SlicesModel, happens: str) -> None:
    """Whatever happens, the text has both sums and the picture both bars."""
    view = slices.view(**{**RESTART, "pods": 30, "happens": happens}, nodes=10)  # type: ignore[arg-type]
    turn = slices.ledger(**{**RESTART, "pods": 30, "happens": happens}).last  # type: ignore[arg-type]
    assert f"{turn.slices.bytes:,} bytes to each watcher" in view.text
    assert f"{turn.endpoints.bytes:,} bytes to each watcher" in view.picture.text


def test_nodes_multiply_what_is_sent(slices: SlicesModel) -> None:
    """A thousand nodes are sent a thousand times the bytes of one."""
    turn = slices.ledger(**RESTART).last  # type: ignore[arg-type]
    text = slices.view(**RESTART, nodes=1000).text  # type: ignore[arg-type]
    assert f"slices send {turn.slices.bytes / 1000:,.1f} MB" in text


def test_equal_slices_are_said_once(slices: SlicesModel) -> None:
    """A hundred slices of ten are no line of a hundred numbers."""
    text = slices.view(**{**RESTART, "pods": 1000, "most": 10, "happens": "one pod stumbles"}, nodes=1).text  # type: ignore[arg-type]
    assert text.endswith("100 slices: 100 × 10")


@pytest.fixture(scope="module")
def laid() -> PoliciesModel:
    """The cluster of notebook 4_1, and all recipes."""
    return PoliciesModel(recipes.stage(), recipes.each())


TO_DB = {"source": "shop/web", "target": "shop/db", "port": "5432/TCP"}


@pytest.mark.parametrize("cni", [plugin for plugin in PLUGINS if plugin != "flannel"])
def test_what_policies_deny_is_dropped(laid: PoliciesModel, cni: str) -> None:
    """Under each plugin that heeds them, verdict and packet agree, and the one who may still arrives."""
    view = laid.view(policies="one-client", cni=cni, look="matrix", **TO_DB)
    assert "5432/TCP: denied" in view.text
    assert "The packet: DROPPED, the client is told TIMEOUT" in view.text
    allowed = {**TO_DB, "source": "shop/api"}
    assert laid.trace(policies="one-client", cni=cni, **allowed).client is Client.OPEN


def test_flannel_carries_what_the_policies_forbid(laid: PoliciesModel) -> None:
    """The packet arrives, and the text says what the API would have."""
    view = laid.view(policies="one-client", cni="flannel", look="path", **TO_DB)
    assert "by the API it is denied" in view.text
    assert "the client is told OPEN" in view.text


def test_nobody_has_written_a_policy(laid: PoliciesModel) -> None:
    """Without policies everybody may, and the API agrees."""
    text = laid.view(policies=NONE, cni="calico", look="isolation", **TO_DB).text
    assert "allowed" in text
    assert "by the API" not in text


@pytest.mark.parametrize("policies", ["no-internet", "outside-only", "cluster-no-way-out"])
def test_the_outside_is_an_end_too(laid: PoliciesModel, policies: str) -> None:
    """It may be asked about in both directions, and what is denied does not arrive."""
    for source, target, port in (("shop/web", OUTSIDE, "443/TCP"), (OUTSIDE, "shop/web", "8080/TCP")):
        chosen = {"policies": policies, "cni": "calico", "source": source, "target": target, "port": port}
        assert laid.view(look="matrix", **chosen).text
        assert laid.verdict(**chosen) or laid.trace(**chosen).client is Client.TIMEOUT


@pytest.mark.parametrize("look", LAYERS)
def test_every_look_at_policies_has_its_picture(laid: PoliciesModel, look: str) -> None:
    """The same text under another picture."""
    first = laid.view(policies="three-tiers", cni="cilium", look=LAYERS[0], **TO_DB)
    view = laid.view(policies="three-tiers", cni="cilium", look=look, **TO_DB)
    assert view.text == first.text
    assert (view.picture.text == first.picture.text) is (look == LAYERS[0])


@pytest.fixture(scope="module")
def families() -> FamiliesModel:
    """The cluster of notebook 5_7."""
    return FamiliesModel(example("service-both-families"))


BOTH = {
    "families": "IPv4, IPv6",
    "cni": "flannel",
    "policy": "PreferDualStack",
    "order": "(not said)",
    "program": "every address",
    "source": "a pod",
    "asked": "its choice",
}


@pytest.mark.parametrize("of", CLUSTERS)
def test_a_client_takes_the_first_family(families: FamiliesModel, of: str) -> None:
    """Which one is the first, the cluster says, where the Service does not."""
    call = families.trace(**{**BOTH, "families": of})
    assert (":" in call.request.address) == of.startswith("IPv6")
    assert call.client is Client.OPEN


def test_a_service_that_says_nothing_has_one_family(families: FamiliesModel) -> None:
    """In a dual-stack cluster too; the other one is no address to ask, and the picture says so."""
    view = families.view(**{**BOTH, "policy": "(not said)", "asked": "IPv6"})
    assert "IPv4 to 10.96.49.66: DELIVERED, client OPEN" in view.text
    assert view.text.endswith("it has no IPv6 address")
    assert "it has no IPv6 address" in view.picture.text


def test_what_the_api_server_refuses_is_shown(families: FamiliesModel) -> None:
    """Two families are too many for a cluster of one."""
    view = families.view(**{**BOTH, "policy": "RequireDualStack", "families": "IPv6"})
    assert "not configured for dual-stack" in view.text
    assert "no packet was sent" in view.picture.text


def test_a_plugin_without_the_family_of_a_cluster_is_no_matter_of_the_api_server(families: FamiliesModel) -> None:
    """There is no such cluster, and it is the plugin that says so; beside IPv4, pods just have no address."""
    text = families.view(**{**BOTH, "families": "IPv6", "cni": "weave"}).text
    assert "There is no such cluster:\ncni: " in text
    beside = families.trace(**{**BOTH, "cni": "weave", "asked": "IPv6"})
    assert beside.client is Client.UNREACHABLE


@pytest.mark.parametrize(("program", "refused"), [("IPv4 only", 6), ("IPv6 only", 4)])
def test_a_program_refuses_the_family_it_is_not_bound_to(families: FamiliesModel, program: str, refused: int) -> None:
    """It answers in the other one."""
    for of in (4, 6):
        call = families.trace(**{**BOTH, "program": program, "asked": f"IPv{of}"})
        assert call.client is (Client.REFUSED if of == refused else Client.OPEN)


def test_a_program_of_a_family_that_its_pod_lacks_is_alone(families: FamiliesModel) -> None:
    """It listens on the loopback device, where nobody comes."""
    call = families.trace(**{**BOTH, "families": "IPv6", "program": "IPv4 only"})
    assert call.client is Client.REFUSED


@pytest.mark.parametrize("cni", VARIANTS)
def test_every_network_has_a_view_of_both_families(families: FamiliesModel, cni: str) -> None:
    """A plugin that cannot do one of them says why."""
    view = families.view(**{**BOTH, "cni": cni})
    assert "IPv4" in view.text
    assert "IPv6" in view.text


# 5.5


@pytest.fixture(scope="module")
def external() -> ExternalModel:
    """The cluster of notebook 5_5, and its zone."""
    return ExternalModel(example("names-for-the-world", load_balancer="metallb-bgp"))


ASKED_OF_ZONE = {"happens": "nothing", "policy": "sync", "owner": "blue", "domain": "every name", "version": "0.22"}


@pytest.mark.parametrize("happens", EDITS)
def test_every_edit_leaves_others_records_alone(external: ExternalModel, happens: str) -> None:
    """Whatever happens to our objects: what a person or another cluster has made stays."""
    plan = external.plan(**{**ASKED_OF_ZONE, "happens": happens})
    for name in ("blog.example.org.", "mail.example.org.", "www.example.org."):
        assert plan.after.at(name) == external.zone.at(name)


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("owner", "green", "owner green"),
        ("owner", "nobody asks (registry noop)", "3 to delete"),
        ("policy", "create-only", "policy create-only does not update"),
        ("domain", "shop.example.org", "it is not in the domains looked after"),
        ("domain", "not blog.example.org", "it is not in the domains looked after"),
        ("version", "0.21", "is not read"),
    ],
)
def test_every_setting_counts(external: ExternalModel, setting: str, value: str, expected: str) -> None:
    """Text and picture say what it changed."""
    view = external.view(**{**ASKED_OF_ZONE, setting: value})
    assert expected in view.text
    assert view.picture != external.view(**ASKED_OF_ZONE).picture


# 2.3


@pytest.fixture(scope="module")
def names() -> NameModel:
    """The cluster of notebook 2_3."""
    return NameModel(example("names-of-every-shape"))


LOOKED_UP = {
    "name": "web", "source": "default/client", "policy": "ClusterFirst", "ndots": "(not said)", "libc": "glibc",
    "cache": "no",
}  # fmt: skip


def test_pods_that_no_service_means_are_those_that_ask(names: NameModel) -> None:
    """One of each namespace, and at last one in the network of its node."""
    assert list(names.sources.values()) == ["default/client", "warehouse/counter", "default/agent"]
    assert "host network" in list(names.sources)[-1]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, "10.96.0.10"),
        ({"source": "warehouse/counter"}, "NXDOMAIN: there is no such name (8 questions"),
        ({"policy": "Default"}, "nameserver 203.0.113.10"),
        ({"policy": "None"}, "NXDOMAIN: there is no such name (2 questions"),
        ({"cache": "on every node"}, "nameserver 169.254.20.10"),
        ({"policy": "None", "cache": "on every node"}, "nameserver 169.254.20.10"),
        ({"name": "stock.warehouse", "ndots": "1"}, "With musl: NXDOMAIN"),
        ({"name": "stock.warehouse", "ndots": "1", "libc": "musl"}, "With glibc: FOUND"),
        ({"name": "10.1.2.3"}, "FOUND 10.1.2.3.: 10.1.2.3"),
        ({"name": "client"}, "/etc/hosts knows it, nobody is asked"),
        ({"name": "a..b"}, "it has an empty label"),
        ({"name": ""}, "NODATA"),
    ],
)
def test_a_lookup_says_what_the_settings_make_of_it(
    names: NameModel, settings: dict[str, str], expected: str
) -> None:
    """The file, the questions, the end, and what the other library does; what is no name is said, not raised."""
    view = names.view(**{**LOOKED_UP, **settings})
    assert expected in view.text
    assert view.picture.alt


def test_the_host_network_decides_with_the_policy(names: NameModel) -> None:
    """ClusterFirst is the node's file there; the policy made for such pods is the cluster's."""
    agent = {**LOOKED_UP, "source": list(names.sources)[-1]}
    assert not names.asked(**agent)
    assert names.asked(**{**agent, "policy": "ClusterFirstWithHostNet"})
