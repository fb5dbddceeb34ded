"""Whose address is this, and is there room? (1.2)

Three networks must not share an address: the machines', the pods' and the Services'. Lay them out on a number
line, cut the pods' into one block a node, and see what overlaps, how many nodes get a block and how many pods
a block holds. Type an address to be told whose it is.

A block of a node loses three addresses before the first pod: the network's own, the bridge's (the pods'
gateway), and the broadcast address. The kubelet stops at 110 pods a node unless it is told otherwise.

Not modelled: several pod CIDRs of one family, blocks of different sizes. Guide section 1.2; RFC 4632.
"""

from __future__ import annotations

import ipywidgets as widgets
import msgspec

from k8snetlab import draw
from k8snetlab.address import AddressPlan, Prefix, Range
from k8snetlab.errors import LabError
from k8snetlab.explore.explorer import Explorer, Setting, View, slider

__all__ = ["AddressPlanner", "Blocks", "PlanModel", "Room", "blocks", "room"]

MAX_PODS = 110
"""The kubelet's limit of pods a node (`maxPods`)."""

NOT_FOR_PODS = 3
"""Of a node's block: the network's address, the bridge's, the broadcast address."""

SHOWN_BLOCKS = 4
"""How many nodes' blocks are drawn; the rest is counted."""


class Blocks(msgspec.Struct, frozen=True):
    """The networks of a plan and the length of a node's block: "
    "`Blocks("172.18.0.0/16", "10.244.0.0/16", "10.96.0.0/12", 24)`."""

    nodes: str
    pods: str
    services: str
    node_length: int = 24


class Room(msgspec.Struct, frozen=True):
    """How many of each fit."""

    node_addresses: int
    node_blocks: int
    pods_a_node: int
    services: int

    @property
    def nodes(self) -> int:
        """Nodes that get both an address and a block."""
        return min(self.node_addresses, self.node_blocks)

    @property
    def pods(self) -> int:
        """Pods in the whole cluster."""
        return self.nodes * min(self.pods_a_node, MAX_PODS)


def room(wanted: Blocks) -> Room:
    """How many nodes, pods and Services fit. Raises `BadOption` for what is no network.

    >>> room(Blocks("172.18.0.0/16", "10.244.0.0/16", "10.96.0.0/12", 24)).node_blocks
    256
    """
    nodes, pods, services = (_block(text) for text in (wanted.nodes, wanted.pods, wanted.services))
    blocks = 1 << (wanted.node_length - pods.length) if wanted.node_length >= pods.length else 0
    size = 1 << (pods.bits - wanted.node_length)
    # The router has one address of the nodes' network; network and broadcast address are nobody's.
    return Room(max(0, nodes.size - 3), blocks, max(0, size - NOT_FOR_PODS), max(0, services.size - 2))


def _block(text: str) -> Prefix:
    return Prefix.of(text.strip(), strict=True)


def blocks(wanted: Blocks, nodes: int) -> AddressPlan:
    """The networks as an address plan, with a block for each of the first few of so many nodes."""
    pods = _block(wanted.pods)
    count = min(nodes, SHOWN_BLOCKS, room(wanted).node_blocks)
    cut = tuple(
        Range(f"pods of node-{at + 1}", "node pods", Prefix(pods.family, pods.base + at * size, wanted.node_length))
        for size in (1 << (pods.bits - wanted.node_length),)
        for at in range(count)
    )
    return AddressPlan(
        (
            Range("nodes", "underlay", _block(wanted.nodes)),
            Range("pods", "pods", pods),
            *cut,
            Range("Services", "services", _block(wanted.services)),
        )
    )


class PlanModel:
    """The view model: networks as text, a number of nodes, and an address to ask about."""

    def view(
        self, *, node_cidr: str, pod_cidr: str, service_cidr: str, node_length: int, nodes: int, address: str
    ) -> View:
        """The plan, what overlaps in it, and what fits. Text that is no network is named, and the usual plan drawn."""
        wanted = Blocks(node_cidr, pod_cidr, service_cidr, node_length)
        try:
            fits, plan = room(wanted), blocks(wanted, nodes)
            asked = plan.whose(address.strip()) if address.strip() else ""
        except (LabError, ValueError) as error:
            return View(
                f"This is no plan: {error}", draw.plan(blocks(Blocks("10.0.0.0/16", "10.1.0.0/16", "10.2.0.0/16"), 3))
            )
        lines = [str(plan), "", *_fitting(fits, node_length, nodes), *_clashing(plan)]
        if asked:
            lines += ["", asked]
        return View("\n".join(lines), draw.plan(plan))


def _fitting(fits: Room, node_length: int, nodes: int) -> tuple[str, ...]:
    verdict = "there is room" if nodes <= fits.nodes else f"TOO SMALL: only {fits.nodes:,} fit"
    limit = f", the kubelet stops at {MAX_PODS}" if fits.pods_a_node > MAX_PODS else ""
    blocks = f"{fits.node_addresses:,} addresses for nodes, {fits.node_blocks:,} blocks /{node_length} for their pods"
    pods = f"{fits.pods_a_node:,} pods have an address on one node{limit}; {fits.pods:,} pods in all"
    return f"{blocks}: for {nodes:,} nodes {verdict}", f"{pods}; {fits.services:,} Services"


def _clashing(plan: AddressPlan) -> tuple[str, ...]:
    if plan.overlaps:
        return ("An address in an overlap means two things. No cluster works like that.",)
    return ("No two of these networks share an address.",)


def _text(description: str, value: str) -> widgets.Text:
    return widgets.Text(
        description=description,
        value=value,
        continuous_update=False,
        style={"description_width": "initial"},
        layout=widgets.Layout(width="260px", margin="2px 20px 2px 2px"),
    )


class AddressPlanner(Explorer[PlanModel]):
    """Lay out networks. All settings are texts, save `node_length` and `nodes`."""

    node_cidr = Setting[str]()
    pod_cidr = Setting[str]()
    service_cidr = Setting[str]()
    node_length = Setting[int]()
    nodes = Setting[int]()
    address = Setting[str]()

    def __init__(self) -> None:
        controls = {
            "node_cidr": _text("Nodes", "172.18.0.0/16"),
            "pod_cidr": _text("Pods", "10.244.0.0/16"),
            "service_cidr": _text("Services", "10.96.0.0/12"),
            "node_length": slider("Block of a node: /", 18, 30, 24),
            "nodes": slider("Number of nodes", 1, 1000, 3),
            "address": _text("Whose is", "10.244.1.7"),
        }
        super().__init__(PlanModel(), controls, height=480)

    @property
    def room(self) -> Room:
        """How many of each fit with the settings as they are. Raises `BadOption` for what is no network."""
        return room(Blocks(self.node_cidr, self.pod_cidr, self.service_cidr, self.node_length))
