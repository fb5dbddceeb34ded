"""How does a cloud route pods, if nobody wraps their packets?

A cloud's virtual network has a router that no one sees: every machine has it as its gateway, and it forwards by a
*route table* that the customer may write to. So an overlay is not needed: a controller (`cloud-controller-manager`)
writes one entry for each node, `10.244.1.0/24 → the machine node-1`, and the node needs nothing but its bridge and its
default route. The packet crosses the network as the pod sent it, with the full MTU; even a node of the same subnet is
reached through the router.

What that costs:

- *One entry a node*, and route tables are short: a node beyond the limit is known to Kubernetes and unreachable for
  pods (condition `NetworkUnavailable`). Here such a cluster is refused, with the numbers. How many entries a table
  takes depends on provider and contract (50 was Amazon's usual quota for years, Google allows hundreds): the default
  is only that old quota. Families are counted apart.
- *Source and destination check*. A cloud takes a packet from a machine only if its source is that machine's own
  address, and gives it one only if its destination is. A node forwards for its pods, so the check must be switched off
  for it (`canIpForward`, `SourceDestCheck=false`). With `source-dest-check=on` it is left on, and the router drops what
  has a pod's address: pods of one node talk, all else is lost in silence.
- *The route table ends where the network does*. A pod's address means nothing on the Internet, so the node hides pods
  that speak to anything but pods: chain IP-MASQ, as kOps writes it (`masquerade=off` leaves it out; answers from
  outside are then lost).

State of a node: as with the plugin `bridge`, without host routes, or, with `attach=ptp`, a cable for each pod and no
bridge, as managed clusters of clouds have it. State of the router: the entries. They are for
packets from the underlay's subnets only; for what comes from outside there are no pods.

Not modelled: the controller's calls, several route tables, the check on packets between two machines of one subnet,
secondary addresses of a card (Amazon's VPC CNI, Google's alias ranges), which need no entries. Guide sections 2.1 and
3.1; kOps 1.30.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import ClassVar

import msgspec

from k8snetlab.cni.bridge import HAIRPIN, MTU, Wiring, forwarding, mtu_of
from k8snetlab.cni.cables import Cables
from k8snetlab.cni.plan import (
    UNENFORCED,
    Machine,
    NetworkList,
    Option,
    Plan,
    PolicyAttachment,
    Workload,
    chosen,
    number_of,
)
from k8snetlab.errors import BadOption, Problem
from k8snetlab.linux.host import Part
from k8snetlab.linux.netfilter import (
    DROP,
    RETURN,
    AddrType,
    Chain,
    Comment,
    Destination,
    Jump,
    Masquerade,
    Patch,
    Rule,
    Source,
)
from k8snetlab.linux.route import Route

__all__ = ["Cloud"]

LONGEST = 100_000
"""More entries than any provider's route table has."""

CHAIN = "IP-MASQ"


class Attach(StrEnum):
    """Which plugin gives pods their cables."""

    BRIDGE = "bridge"
    PTP = "ptp"


class Cloud(msgspec.Struct, frozen=True):
    """A bridge on each node, and one entry for each node in the provider's route table."""

    name: ClassVar[str] = "cloud"
    policies: ClassVar[PolicyAttachment] = UNENFORCED
    options: ClassVar[tuple[Option, ...]] = (
        Option("attach", tuple(Attach), Attach.BRIDGE, "which plugin gives pods their cables", way=True),
        Option("routes", (), "50", "how many entries the provider's route table takes: one a node"),
        Option("source-dest-check", ("on", "off"), "off", "whether the provider drops what has a pod's address"),
        Option("masquerade", ("on", "off"), "on", "whether nodes hide pods that speak to anything but pods"),
        HAIRPIN,
        MTU,
    )

    attach: Attach = Attach.BRIDGE
    routes: int = 50
    checked: bool = False
    masquerade: bool = True
    hairpin: bool = True
    mtu: int = 0

    @classmethod
    def of(cls, options: Mapping[str, str]) -> Cloud:
        """The variant with these options. Raises `BadOption`."""
        value = chosen(cls.name, cls.options, options)
        attach = Attach(value["attach"])
        if attach is Attach.PTP and value["hairpin"] == "off":
            message = "hairpin belongs to the ports of a bridge, and with attach=ptp there is none"
            raise BadOption(Problem(message, object=f"CNI {cls.name}", field="hairpin"))
        return cls(
            attach,
            number_of(cls.name, "routes", value["routes"], 1, LONGEST),
            value["source-dest-check"] == "on",
            value["masquerade"] == "on",
            value["hairpin"] == "on",
            mtu_of(cls.name, value["mtu"]),
        )

    @property
    def overhead(self) -> int:
        """Bytes that this CNI adds to a packet between nodes: none."""
        return 0

    @property
    def summary(self) -> str:
        """What it does, in one sentence."""
        check = "; the provider's source and destination check is on" if self.checked else ""
        cables = "a bridge on each node" if self.attach is Attach.BRIDGE else "a cable from each pod to its node"
        return f"{cables}, an entry a node in the provider's route table, no encapsulation{check}"

    def pod_mtu(self, machine: Machine) -> int:
        """The MTU of the pods' devices: the underlay's, since nothing is added to a packet."""
        return self.mtu or machine.mtu

    def node(self, plan: Plan, machine: Machine, workloads: Sequence[Workload]) -> Part:
        """The pods' cables, and the chain that hides pods from all but pods."""
        wired = self._wiring(machine).node(machine, workloads)
        hidden = tuple(_masquerade(plan, machine)) if self.masquerade else ()
        return msgspec.structs.replace(wired, sysctls=forwarding(machine), patches=hidden)

    def pod(self, plan: Plan, machine: Machine, workload: Workload) -> Part:
        """The pod's end of the cable."""
        return self._wiring(machine).pod(machine, workload)

    def router(self, plan: Plan) -> Part:
        """The provider's route table, and its check. Raises `BadOption` when the table is too short."""
        routes = []
        for of in plan.families:
            entries = [
                Route(str(block), via=via.ip, family=of)
                for each in plan.machines
                if (block := each.pod_cidr(of)) is not None and (via := each.address(of)) is not None
            ]
            if len(entries) > self.routes:
                message = (
                    f"{len(entries)} nodes need {len(entries)} entries for IPv{of}, one each, and the provider's route "
                    f"table takes {self.routes}: pods on {len(entries) - self.routes} of them would be out of reach"
                )
                raise BadOption(Problem(message, object=f"CNI {self.name}", field="routes"))
            routes += entries
        return Part(routes=tuple(routes), patches=tuple(_check(plan)) if self.checked else ())

    def network(self, plan: Plan, machine: Machine) -> NetworkList:
        """What the runtime is told on that machine."""
        return self._wiring(machine).network(machine)

    def _wiring(self, machine: Machine) -> Wiring | Cables:
        if self.attach is Attach.PTP:
            return Cables(self.pod_mtu(machine))
        return Wiring(self.pod_mtu(machine), self.hairpin)


def _masquerade(plan: Plan, machine: Machine) -> Iterator[Patch]:
    """Chain IP-MASQ: all that leaves for anything but pods gets the node's address."""
    directs = Comment(
        f"ip-masq: ensure nat POSTROUTING directs all non-LOCAL destination traffic to our custom {CHAIN} chain"
    )
    spared = Comment("ip-masq: pod cidr is not subject to MASQUERADE")
    last = Comment("ip-masq: outbound traffic is subject to MASQUERADE (must be last in chain)")
    for of in plan.families:
        if machine.pod_cidr(of) is None:
            continue
        jump = Rule("nat", "POSTROUTING", (directs, AddrType("dst", invert=True)), Jump(CHAIN))
        rules = (
            Rule("nat", CHAIN, (Destination(plan.pod_cidr(of)), spared), RETURN),
            Rule("nat", CHAIN, (last,), Masquerade()),
        )
        yield Patch("nat", of, last=(jump,), chains={CHAIN: Chain(CHAIN, rules)})


def _check(plan: Plan) -> Iterator[Patch]:
    """The provider's check: no machine may send from, or get, an address that is not its own. Of all addresses here
    those of pods are such.
    """
    for of in plan.families:
        pods = plan.pod_cidr(of)
        rules = tuple(
            Rule("filter", "FORWARD", (match, Comment(f"{what} check: the address of no machine")), DROP)
            for what, match in (("source", Source(pods)), ("destination", Destination(pods)))
        )
        yield Patch("filter", of, last=rules)
