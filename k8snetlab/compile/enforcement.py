"""Who makes policies hold?

The CNI says where rules belong (`cni.PolicyAttachment`), the room of policies says what they are, and here both meet:
for each node, what is written there beside what the CNI writes anyway, or in its place. A CNI that is not in `WRITERS`
enforces nothing, and a cluster without policies has nothing to enforce; its machines are what they would be without
this module.

Guide section 4.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from k8snetlab import api, cni
from k8snetlab.compile.layout import Layout
from k8snetlab.linux.host import Part

if TYPE_CHECKING:  # loaded for clusters with policies
    from k8snetlab.policies.plan import Policies

__all__ = ["WRITERS", "Enforcer", "enforcer"]

Enforcer: TypeAlias = Callable[[str, Part], tuple[Part, ...]]
"""From a node's name and what the CNI writes there, what is written there when policies hold."""


def _felix(plugin: cni.Cni, policies: Policies) -> Enforcer:
    from k8snetlab.policies.rules import Ruleset

    ruleset = Ruleset(policies, plugin.policies)
    return lambda node, wired: (wired, ruleset.node(_cables(wired)))


def _cilium(plugin: cni.Cni, policies: Policies) -> Enforcer:
    from k8snetlab.policies.maps import Agent

    agent = Agent(policies)

    def enforced(node: str, wired: Part) -> tuple[Part, ...]:
        if wired.datapath is None:
            return (wired,)
        return (msgspec.structs.replace(wired, datapath=agent.node(wired.datapath)),)

    return enforced


def _weave(plugin: cni.Cni, policies: Policies) -> Enforcer:
    from k8snetlab.cni.weave import set_name
    from k8snetlab.policies.npc import Controller

    controller = Controller(policies, set_name)
    return lambda node, wired: controller.node(wired)


WRITERS: Mapping[str, Callable[[cni.Cni, Policies], Enforcer]] = {
    "calico": _felix, "cilium": _cilium, "weave": _weave
}  # fmt: skip
"""Who writes the rules of policies, by the name of the CNI."""


def enforcer(layout: Layout, plugin: cni.Cni) -> Enforcer:
    """What makes the policies of a cluster hold under a CNI. The policies are read when the first node is built."""
    objects = layout.objects
    if all(each.kind not in api.POLICIES for each in objects.objects) or plugin.name not in WRITERS:
        return _nothing

    @cache
    def made() -> Enforcer:
        from k8snetlab.policies import plan

        policies = plan.of(objects.objects, choices=plan.choices_of(plugin.name))
        return WRITERS[plugin.name](plugin, policies)

    def enforced(node: str, wired: Part) -> tuple[Part, ...]:
        return made()(node, wired)

    return enforced


def _nothing(node: str, wired: Part) -> tuple[Part, ...]:
    return (wired,)


def _cables(wired: Part) -> dict[str, str]:
    """The node's end of each pod's cable, by the pod's name."""
    return {link.peer.host: link.name for link in wired.links if link.peer is not None}
