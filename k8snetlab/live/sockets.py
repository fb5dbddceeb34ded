"""Which maps must the kernel hold, so that sockets are led as the walk leads them?

The programs are the same for every cluster (`inside.sockets`); what differs are the entries of their maps, which are
written down here from the Hosts: one set of maps for each machine, whose pods look into it too, and for each namespace
whose it is and which programs work there.

Only what works on sockets is built. Programs at devices, which balance packets from outside, are not: what they decide
is not proven here (`by_devices` says when that is).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from k8snetlab.linux.ebpf import Ebpf, Flag, Identity, Scope
from k8snetlab.linux.host import Network
from k8snetlab.live.comparison import walked
from k8snetlab.live.probes import Probe
from k8snetlab.live.script import namespace

__all__ = ["Maps", "by_devices", "maps"]

FLAGS = {Flag.AFFINITY: 1 << 4, Flag.TWO_SCOPES: 1 << 13}
"""The bits that the programs look at, as Cilium numbers them; a guarded frontend has bit 0."""

GUARDED = 1
IDENTITIES = {Identity.HOST: 1, Identity.REMOTE: 6}
SCOPES = {Scope.EXTERNAL: 0, Scope.INTERNAL: 1}


class Maps(NamedTuple):
    """Rows for the agent: namespaces, frontends, backends (numbered from 1), identities, and the shared ports."""

    members: list[tuple[str, int, bool, list[str]]]
    frontends: list[tuple[int, str, int, str, int, int, int, int, list[int]]]
    backends: list[tuple[str, int]]
    identities: list[tuple[int, str, int]]
    shared: tuple[int, int]

    def as_dict(self) -> dict[str, Any]:
        """As the agent is told."""
        return self._asdict()


def maps(network: Network) -> Maps:
    """The maps of all machines of a network. Machines without programs do not appear."""
    held: list[Ebpf] = []
    members: list[tuple[str, int, bool, list[str]]] = []
    for host in network.values():
        if host.ebpf is not None:
            places = sorted(program.place for program in host.ebpf.programs)
            members.append((namespace(host.name), _number(held, host.ebpf), host.name == host.ebpf.machine, places))
    backends: dict[tuple[str, int], int] = {}
    found = Maps(members, [], [], [], held[0].shared if held else (0, 0))
    for number, ebpf in enumerate(held):
        found.identities.extend((number, address, IDENTITIES[of]) for address, of in ebpf.identities.items())
        for frontend in ebpf.services.values():
            key = frontend.key
            if key.protocol not in ("TCP", "UDP"):
                continue
            flags = sum(bit for flag, bit in FLAGS.items() if frontend.has(flag)) | (GUARDED * frontend.guarded)
            slots = [backends.setdefault((each.ip, each.port), len(backends) + 1) for each in frontend.backends]
            row = (number, key.address, key.port, key.protocol, SCOPES[key.scope], frontend.number, flags)
            found.frontends.append((*row, frontend.affinity, slots))
    found.backends.extend(backends)
    return found


def _number(held: list[Ebpf], ebpf: Ebpf) -> int:
    """Which of the maps known so far these are; others are a machine's own, or those of a what-if."""
    for number, other in enumerate(held):
        if other.machine == ebpf.machine and (other.services, other.identities) == (ebpf.services, ebpf.identities):
            return number
    held.append(ebpf)
    return len(held) - 1


def by_devices(network: Network, probe: Probe) -> bool:
    """Whether a program at a device has its hand in what becomes of a probe."""
    steps = walked(network, probe).steps
    return any(step.rule is not None and step.rule.table == "bpf" and step.device for step in steps)
