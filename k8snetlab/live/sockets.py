"""Which maps must the kernel hold, so that sockets and packets are led as the walk leads them?

The programs are the same for every cluster (`inside.sockets`, `inside.packets`); what differs are the entries of their
maps, which are written down here from the Hosts: one set of maps for each machine, whose pods look into it too, for
each namespace whose it is and which programs work there, and for each device which programs stand at it.

Not built is what happens to a container that a program at its device leads to itself, and to an ICMP error about a
packet that one has translated (`unbuilt` says when that is).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from k8snetlab.linux.ebpf import Ebpf, Flag, Identity, Program, Scope
from k8snetlab.linux.host import Network
from k8snetlab.live.comparison import walked
from k8snetlab.live.probes import Probe
from k8snetlab.live.script import namespace
from k8snetlab.packet import ICMP
from k8snetlab.trace import Action

__all__ = ["Maps", "maps", "unbuilt"]

FLAGS = {Flag.AFFINITY: 1 << 4, Flag.SOURCE_RANGE: 1 << 7, Flag.TWO_SCOPES: 1 << 13}
"""The bits that the programs look at, as Cilium numbers them."""

GUARDED, ROUTABLE = 1 << 0, 1 << 6
IDENTITIES = {Identity.HOST: 1, Identity.REMOTE: 6}
SCOPES = {Scope.EXTERNAL: 0, Scope.INTERNAL: 1}


class Maps(NamedTuple):
    """Rows for the agent: namespaces, frontends, backends (numbered from 1), identities, the shared ports;
    devices, endpoints of each machine, and source ranges.
    """

    members: list[tuple[str, int, bool, list[str]]]
    frontends: list[tuple[int, str, int, str, int, int, int, int, list[int]]]
    backends: list[tuple[str, int]]
    identities: list[tuple[int, str, int]]
    shared: tuple[int, int]
    devices: list[tuple[str, str, list[str], int, tuple[str, ...], bool]]
    endpoints: list[tuple[int, str]]
    ranges: list[tuple[int, int, str, int]]

    def as_dict(self) -> dict[str, Any]:
        """As the agent is told."""
        return self._asdict()


def maps(network: Network) -> Maps:
    """The maps of all machines of a network. Machines without programs do not appear."""
    held: list[Ebpf] = []
    found = Maps([], [], [], [], (0, 0), [], [], [])
    for host in network.values():
        if host.ebpf is not None:
            number = _number(held, host.ebpf)
            name = namespace(host.name)
            places = sorted(program.place for program in host.ebpf.programs)
            found.members.append((name, number, host.name == host.ebpf.machine, places))
            own = host.ebpf.source
            found.devices.extend((name, device, at, number, own, inner) for device, at, inner in _devices(host.ebpf))
    backends: dict[tuple[str, int], int] = {}
    for number, ebpf in enumerate(held):
        found.identities.extend((number, address, IDENTITIES[of]) for address, of in ebpf.identities.items())
        here: dict[str, None] = {}
        for frontend in ebpf.services.values():
            key = frontend.key
            if key.protocol not in ("TCP", "UDP"):
                continue
            flags = sum(bit for flag, bit in FLAGS.items() if frontend.has(flag)) | (GUARDED * frontend.guarded)
            flags |= 0 if frontend.has(Flag.NON_ROUTABLE) else ROUTABLE
            slots = [backends.setdefault((each.ip, each.port), len(backends) + 1) for each in frontend.backends]
            row = (number, key.address, key.port, key.protocol, SCOPES[key.scope], frontend.number, flags)
            found.frontends.append((*row, frontend.affinity, slots))
            found.ranges.extend((number, frontend.number, each.network, each.length) for each in frontend.sources)
            here.update((each.ip, None) for each in frontend.backends if each.here)
        found.endpoints.extend((number, address) for address in here)
    found.backends.extend(backends)
    return found._replace(shared=held[0].shared if held else (0, 0))


def _devices(ebpf: Ebpf) -> list[tuple[str, list[str], bool]]:
    """The devices with programs, where these stand, and whether they are a container's."""
    places: dict[str, list[str]] = {}
    inner: dict[str, bool] = {}
    for each in ebpf.attached:
        if each.device:
            places.setdefault(each.device, []).append(each.program.place)
            inner[each.device] = each.program in (Program.FROM_CONTAINER, Program.TO_CONTAINER)
    return [(device, places[device], inner[device]) for device in sorted(places)]


def _number(held: list[Ebpf], ebpf: Ebpf) -> int:
    """Which of the maps known so far these are; others are a machine's own, or those of a what-if."""
    for number, other in enumerate(held):
        if other.machine == ebpf.machine and (other.services, other.identities) == (ebpf.services, ebpf.identities):
            return number
    held.append(ebpf)
    return len(held) - 1


def unbuilt(network: Network, probe: Probe) -> bool:
    """Whether something has its hand in what becomes of a probe that is not built."""
    result = walked(network, probe)
    changed = [step for step in result.steps if step.device and step.rule is not None and step.rule.table == "bpf"]
    to_himself = any(step.packet.ip.src in _loopback(network[step.where].ebpf) for step in changed)
    header = result.answer.headers[1] if result.answer is not None else None
    error = isinstance(header, ICMP) and header.is_error
    return to_himself or (error and any(step.action is Action.DNAT for step in changed))


def _loopback(ebpf: Ebpf | None) -> tuple[str, ...]:
    return ebpf.loopback if ebpf is not None else ()
