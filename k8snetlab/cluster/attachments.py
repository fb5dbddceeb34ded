"""How was this pod plugged in?

The calls of a container runtime to the plugins of a cluster's CNI (`cni.protocol`), found by the names of pods and
nodes. What ADD answered is read off the machines as they were compiled, what CHECK answers off the machines as they
are.

Not modelled: what a runtime does when a plugin fails. Guide section 2.1; CNI specification 1.1.0.
"""

from __future__ import annotations

import msgspec

from k8snetlab import cni
from k8snetlab.cni.protocol import Command, Conversation, about_a_node, about_a_pod
from k8snetlab.compile import Layout, pod_host
from k8snetlab.errors import BadOption, CannotDo, Problem
from k8snetlab.linux.host import Network

__all__ = ["Attachments"]


class Attachments(msgspec.Struct, frozen=True):
    """The pods of a cluster as the runtime of each node knows them."""

    layout: Layout
    plugin: cni.Cni
    compiled: Network
    network: Network

    def asked(self, name: str, command: str) -> Conversation:
        """What is called for a pod or a node. Raises `UnknownName`, `BadOption`, `CannotDo`."""
        if command not in list(Command):
            message = f"{command!r} is no command of the CNI; there are {', '.join(Command)}"
            raise BadOption(Problem(message, field="command"))
        asked = Command(command)
        if "/" in name and not name.startswith("node/"):
            return self._about_a_pod(asked, name)
        node = self.layout.objects.node(name.removeprefix("node/")).name
        pods = [workload.name for workload in self.layout.workloads[node]]
        return about_a_node(asked, self._configuration(node), pods)

    def _about_a_pod(self, command: Command, name: str) -> Conversation:
        pod = self.layout.objects.pod(name)
        if pod.host_network:
            message = "it uses the network of its node: no plugin is called for it"
            raise BadOption(Problem(message, object=f"Pod {name}", field="spec.hostNetwork"))
        host, node = pod_host(pod), pod.node_name
        if host not in self.compiled:
            raise BadOption(Problem("it does not run, so it was never plugged in", object=f"Pod {name}"))
        now, then = self.network, self.compiled
        added = then[node], then[host]
        return about_a_pod(command, self._configuration(node), now[node], now[host], added)

    def _configuration(self, node: str) -> cni.NetworkList:
        if not isinstance(self.plugin, cni.Configured):
            raise CannotDo(f"what the runtime is told under {self.plugin.name} is not known here")
        return self.plugin.network(self.layout.cni_plan, self.layout.machines[node])
