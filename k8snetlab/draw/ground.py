"""Where does everything stand?

The plan of a picture of a cluster, in the terms of the network: a column for each machine, its pods one above the
other, under them the devices in the order a packet meets them on its way out — bridge, the kernel's routing and
netfilter, tunnel, network card — all threaded on one *spine*, the cable that leads from the pods down to the switch.
Switches, and routers under them, are bars; clients outside hang from the lowest. Since everything hangs on a spine or
a bar, no two cables cross.

The plan is read from the links of the Hosts: what is plugged into what. A device that is gone is not drawn.

Not modelled: where things stand in a room; a machine's loopback; the devices inside a pod. Guide sections 1.2 and 2.1.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

import msgspec

from k8snetlab.address import family
from k8snetlab.draw.lettering import fitted, width
from k8snetlab.draw.marks import Box, Label, Line, Mark, Sheet, sheet
from k8snetlab.draw.theme import Role
from k8snetlab.linux.host import Host, Network
from k8snetlab.linux.link import TUNNELS, Link, LinkKind

__all__ = ["STACK", "Ground", "Place", "Spot", "Wired", "ground", "network_of"]

Place: TypeAlias = tuple[str, str]
"""A machine and one of its devices. A device that is `STACK` stands for the kernel between the devices, and for a
pod, a switch or a client as a whole."""

STACK = ""

MARGIN, GUTTER, PAD = 14, 30, 10
CHIP, CHIP_HEIGHT, PITCH = 166, 32, 36
BARE = 104
"""How much room a machine without pods has beside its spine."""
SPINE = 66
HEADER = 26
ROW, STACK_ROW, GAP = 28, 46, 6
BAR, BAR_GAP = 46, 22
TITLE, SERVICE, FOOT = 30, 48, 58

COLUMN_OF_PODS = 12
"""More pods than this stand on both sides of the spine."""
PODS, MACHINES = 24, 6
"""What is more than this is counted, not drawn — unless the packet goes there."""


class Wired(Protocol):
    """What has a network: a Cluster."""

    @property
    def network(self) -> Network: ...


def network_of(of: Network | Wired) -> Network:
    """The network itself, or that of a cluster."""
    return of if isinstance(of, Network) else of.network


class Spot(NamedTuple):
    """Where a place is in the picture. `kind` is `row` (a device on a spine), `chip` (a pod beside one), `bar` (a
    switch or router) or `box` (a client); `x` is the spine, the chip's edge that looks at it, or the middle. `column`
    is the machine."""

    kind: str
    x: float
    y: float
    column: str
    inside: float = 0.0
    """For a chip: where a second number stands, beside the first; for a bar: where notes begin, beside its name."""


class Ground(msgspec.Struct, frozen=True):
    """What is drawn under a path: where every place is, the marks, and the same in sentences."""

    width: int
    height: int
    top: float
    spots: Mapping[Place, Spot]
    frames: Mapping[str, Box]
    joints: Mapping[frozenset[str], float]
    """Where two bars are joined, by their names."""
    sheets: tuple[Sheet, ...]
    alt: tuple[str, ...]


class Column(NamedTuple):
    """A machine with its pods: those shown, and how many are not."""

    machine: Host
    pods: tuple[Host, ...]
    more: int


def ground(network: Network, of: int = 4, on_path: Collection[str] = (), above: int = 0, below: int = 0) -> Ground:
    """The plan of a network. Addresses are those of family `of`; `on_path` names machines that must be seen; `above`
    and `below` are pixels kept free for a title and a foot."""
    hosts = [network[name] for name in network]
    hosts += [Host(name, "client") for name in sorted(on_path) if name not in network]
    return _Plan(hosts, of, frozenset(on_path), above, below).ground()


class _Plan:
    """The plan while it is made."""

    def __init__(self, hosts: Sequence[Host], of: int, on_path: frozenset[str], above: int, below: int) -> None:
        self.of, self.on_path, self.below = of, on_path, below
        self.hosts = {host.name: host for host in hosts}
        self.spots: dict[Place, Spot] = {}
        self.frames: dict[str, Box] = {}
        self.joints: dict[frozenset[str], float] = {}
        self.back: list[Mark] = []
        self.front: list[Mark] = []
        self.alt: list[str] = []
        self.top = MARGIN + above

    def ground(self) -> Ground:
        bars = self.bars()
        columns, unseen = self.columns(bars)
        rows = self.rows(columns)
        tallest = max((self.lines(column) for column in columns), default=0)
        devices = self.top + HEADER + tallest * PITCH + GAP
        levels = {
            row: devices + sum(_height(r) + GAP for r in rows[:at]) + _height(row) / 2 for at, row in enumerate(rows)
        }
        bottom = devices + sum(_height(row) + GAP for row in rows) + PAD - GAP
        right = self.stand(columns, levels, bottom)
        if unseen:
            right = self.unseen(unseen, right, (self.top + bottom) / 2)
        lowest = self.lay(bars, bottom, right)
        lowest = self.hang(bars, lowest)
        return Ground(
            width=round(right + MARGIN),
            height=round(lowest + self.below + MARGIN),
            top=self.top,
            spots=self.spots,
            frames=self.frames,
            joints=self.joints,
            sheets=(sheet(self.back), sheet(self.front)),
            alt=tuple(self.alt),
        )

    # What is plugged into what

    def bars(self) -> dict[str, int]:
        """Switches, routers and load balancers, and how far each is from the machines."""
        found: dict[str, int] = {}
        near = {host.name for host in self.hosts.values() if host.kind == "machine"}
        depth = 0
        while near:
            depth += 1
            near = {
                name
                for host in near
                for name in _peers(self.hosts[host])
                if name in self.hosts
                and name not in found
                and self.hosts[name].kind not in ("machine", "container", "client")
            }
            found.update(dict.fromkeys(sorted(near, key=_natural), depth))
        return self._apart(found)

    def _apart(self, bars: Mapping[str, int]) -> dict[str, int]:
        """The same with a row of its own for a load balancer, which has a foot in every subnet like the router."""
        rows = [depth for name, depth in bars.items() if self.hosts[name].kind == "balancer"]
        own = min(rows, default=len(bars) + 1)
        return {name: depth + (depth >= own and self.hosts[name].kind != "balancer") for name, depth in bars.items()}

    def columns(self, bars: Mapping[str, int]) -> tuple[list[Column], list[str]]:
        """Machines in the order of their switches and names, with their pods; and the names of those that find no
        room."""
        order = {name: at for at, name in enumerate(sorted(bars, key=_natural))}

        def switch(host: Host) -> int:
            return min((order[name] for name in _peers(host) if name in order), default=len(order))

        machines = [host for host in self.hosts.values() if host.kind == "machine"]
        machines.sort(key=lambda host: (switch(host), _natural(host.name)))
        pods: dict[str, list[Host]] = {host.name: [] for host in machines}
        for host in self.hosts.values():
            if host.kind == "container":
                home = next((name for name in _peers(host) if name in pods), None)
                pods.setdefault(home or "", []).append(host)
        met = self.on_path | {name for name, held in pods.items() for pod in held if pod.name in self.on_path}
        names = _chosen([host.name for host in machines], met, MACHINES)
        columns = []
        for host in machines:
            if host.name in names:
                held = sorted(pods[host.name], key=lambda pod: _natural(pod.name))
                shown = _chosen([pod.name for pod in held], self.on_path, PODS)
                columns.append(Column(host, tuple(pod for pod in held if pod.name in shown), len(held) - len(shown)))
            self.alt.append(self.said(host, pods[host.name]))
        return columns, [host.name for host in machines if host.name not in names]

    def lines(self, column: Column) -> int:
        """How many rows of pods a machine needs."""
        count = len(column.pods) + bool(column.more)
        return count if len(column.pods) <= COLUMN_OF_PODS else (count + 1) // 2

    def rows(self, columns: Iterable[Column]) -> list[tuple[str, int]]:
        """The rows of devices, the same for all machines: a role and a number."""
        most: dict[str, int] = dict.fromkeys(("bridge", "stack", "tunnel", "card"), 0)
        most["stack"] = 1
        for column in columns:
            for role, links in _devices(column.machine).items():
                most[role] = max(most[role], len(links))
        return [(role, at) for role, count in most.items() for at in range(count)]

    # Machines

    def stand(self, columns: Sequence[Column], levels: Mapping[tuple[str, int], float], bottom: float) -> float:
        """Machines side by side; gives their right edge."""
        x = float(MARGIN + GUTTER / 2)
        for column in columns:
            both = len(column.pods) > COLUMN_OF_PODS
            beside = CHIP if column.pods else BARE
            wide = PAD + beside + SPINE + (CHIP + PAD if both else 0)
            spine = x + PAD + beside + SPINE / 2
            frame = Box(x, self.top, wide, bottom - self.top, Role.MACHINE, Role.FRAME, 8, 1.2)
            self.frames[column.machine.name] = frame
            self.back.append(frame)
            self.head(column, frame)
            self.threaded(column.machine, levels, frame, spine)
            self.comb(column, frame, spine, bottom)
            x += wide + GUTTER
        for host in self.hosts.values():
            if host.kind == "client" and any(
                self.hosts[name].kind == "switch" for name in _peers(host) if name in self.hosts
            ):
                middle = x + CHIP / 2
                self.client(host, middle, x, bottom - CHIP_HEIGHT)
                self.back.append(Line(((middle, bottom), (middle, bottom + BAR_GAP)), width=1.6))
                x += CHIP + GUTTER
        return x - GUTTER / 2

    def head(self, column: Column, frame: Box) -> None:
        address = self.address(column.machine)
        y = frame.y + HEADER / 2 + 1
        room = frame.width - 2 * PAD - width(address, 9)
        name = fitted(column.machine.name, room - 8, 11, "bold")
        self.front.append(Label(frame.x + PAD, y, name, Role.INK, 11, "left", "bold"))
        self.front.append(Label(frame.x + frame.width - PAD, y, address, Role.FAINT, 9, "right"))

    def threaded(self, host: Host, levels: Mapping[tuple[str, int], float], frame: Box, spine: float) -> None:
        """The devices of a machine, on its spine."""
        for role, links in _devices(host).items():
            for at, link in enumerate(links):
                y = levels[role, at]
                self.spots[host.name, link.name] = Spot("row", spine, y, host.name)
                dash = () if link.up else (4.0, 3.0)
                self.front.append(_row(frame, y, ROW, dash))
                text = " ".join(address.ip for address in link.addresses if family(address.ip) == self.of)
                state = text if link.up else "down"
                x = frame.x + PAD + 8
                self.front.append(Label(x, y, link.name, Role.INK, 9.5, "left", "bold"))
                x += width(link.name, 9.5, "bold") + 7
                self.front.append(Label(x, y, fitted(state, spine - 22 - x, 8.5), Role.FAINT, 8.5))
        y = levels["stack", 0]
        self.spots[host.name, STACK] = Spot("row", spine, y, host.name)
        self.front.append(_row(frame, y, STACK_ROW, ()))
        within = "routing, netfilter" if host.datapath is None else "eBPF programs, routing, netfilter"
        self.front.append(Label(frame.x + PAD + 8, y - 14, within, Role.INK, 9))

    def comb(self, column: Column, frame: Box, spine: float, bottom: float) -> None:
        """The pods beside the spine, each with its cable; the spine itself goes down to the switch."""
        lines = self.lines(column)
        y = frame.y + HEADER + PITCH / 2
        ups = [self.spots[place].y for place in self.spots if place[0] == column.machine.name]
        start = y if column.pods else min(ups)
        plugged = any(name in self.hosts for link in _devices(column.machine)["card"] for name in _ends(link))
        self.front.append(Line(((spine, start), (spine, bottom + BAR_GAP if plugged else max(ups))), width=1.6))
        for at, pod in enumerate(column.pods):
            left = at < lines or len(column.pods) <= COLUMN_OF_PODS
            level = y + (at if left else at - lines) * PITCH
            edge = frame.x + PAD + CHIP if left else spine + SPINE / 2
            self.front.append(Line(((edge, level), (spine, level)), width=1.2))
            self.chip(pod, edge - CHIP if left else edge, level)
            inside = edge - 15 if left else edge + 15
            self.spots[pod.name, STACK] = Spot("chip", edge, level, column.machine.name, inside)
        if column.more:
            at = len(column.pods)
            left = at < lines or len(column.pods) <= COLUMN_OF_PODS
            x = frame.x + PAD if left else spine + SPINE / 2
            level = y + (at if left else at - lines) * PITCH
            self.front.append(Label(x + CHIP / 2, level, f"… and {column.more} more pods", Role.FAINT, 9, "center"))

    def chip(self, pod: Host, x: float, y: float) -> None:
        """A pod: its name, and under it its address and namespace."""
        self.box(pod.name, x, y)
        namespace, _, name = pod.name.rpartition("/")
        room = CHIP - 22
        self.front.append(Label(x + 8, y - 7, fitted(name, room, 9.5), Role.INK, 9.5))
        address = self.address(pod)
        self.front.append(Label(x + 8, y + 7.5, address, Role.FAINT, 8.5))
        if namespace:
            left = x + 8 + width(address, 8.5) + 6
            self.front.append(Label(left, y + 7.5, fitted(namespace, x + CHIP - 14 - left, 8.5), Role.FAINT, 8.5))

    def box(self, name: str, x: float, y: float) -> None:
        frame = Box(x, y - CHIP_HEIGHT / 2, CHIP, CHIP_HEIGHT, Role.CONTAINER, Role.FRAME, 5)
        self.frames[name] = frame
        self.front.append(frame)

    def unseen(self, names: Sequence[str], x: float, y: float) -> float:
        """A column of nothing, which says how many machines there are besides."""
        self.front.append(Label(x + 8, y - 8, "…", Role.FAINT, 14))
        self.front.append(Label(x + 8, y + 8, f"{len(names)} more", Role.FAINT, 9))
        self.front.append(Label(x + 8, y + 21, "machines", Role.FAINT, 9))
        return x + 64

    # The underlay

    def lay(self, bars: Mapping[str, int], bottom: float, right: float) -> float:
        """Switches and routers as bars under what they join; gives the lower edge of the lowest."""
        y = bottom + BAR_GAP + BAR / 2
        spans: dict[str, tuple[float, float]] = {}
        for depth in sorted(set(bars.values())):
            for name in sorted((name for name, far in bars.items() if far == depth), key=_natural):
                joined = _peers(self.hosts[name])
                sides = [
                    (self.frames[peer].x, self.frames[peer].x + self.frames[peer].width)
                    for peer in joined
                    if peer in self.frames
                ]
                sides += [spans[peer] for peer in joined if peer in spans]
                left, end = (
                    (min(s[0] for s in sides), max(s[1] for s in sides))
                    if sides
                    else (MARGIN + GUTTER / 2, right - GUTTER / 2)
                )
                spans[name] = left, end
                self.spots[name, STACK] = Spot("bar", (left + end) / 2, y, name, left + CHIP + 14)
                self.front.append(Box(left, y - BAR / 2, end - left, BAR, Role.DEVICE, Role.FRAME, 6, 1.2))
                self.front.append(Label(left + 12, y - 7, name, Role.INK, 10, "left", "bold"))
                said = self.address_range(name)
                self.front.append(Label(left + 12, y + 8, fitted(said, CHIP - 8, 8.5), Role.FAINT, 8.5))
                for peer in joined:
                    if bars.get(peer, depth) < depth:
                        x = self.outlet(peer)
                        self.joints[frozenset((peer, name))] = x
                        self.back.append(Line(((x, self.spots[peer, STACK].y), (x, y)), width=1.6))
                self.alt.append(f"{self.titled(name)} joins {_listed(sorted(joined, key=_natural))}.")
            y += BAR + BAR_GAP
        return y - BAR / 2 - BAR_GAP if bars else bottom

    def outlet(self, bar: str) -> float:
        """Where the cable downwards leaves a bar: under the spine of the last machine on it."""
        joined = _peers(self.hosts[bar])
        spines = [spot.x for place, spot in self.spots.items() if place[0] in joined and spot.kind == "row"]
        return max(spines, default=self.spots[bar, STACK].x)

    def hang(self, bars: Mapping[str, int], lowest: float) -> float:
        """The clients outside, under the lowest bar; gives their lower edge."""
        clients = [
            host for host in self.hosts.values() if host.kind == "client" and (host.name, STACK) not in self.spots
        ]
        if not clients:
            return lowest
        last = max(bars, key=lambda name: (bars[name], name)) if bars else ""
        x = max([self.outlet(name) for name in bars if bars[name] == 1], default=MARGIN + GUTTER / 2 + CHIP - SPINE / 2)
        for host in sorted(clients, key=lambda host: (host.name not in self.on_path, _natural(host.name))):
            y = lowest + BAR_GAP + CHIP_HEIGHT / 2
            above = next((name for name in _peers(host) if name in bars), last)
            if above:
                self.back.append(Line(((x, self.spots[above, STACK].y), (x, y)), width=1.6))
                self.joints[frozenset((above, host.name))] = x
            self.client(host, x, x + SPINE / 2 - CHIP, y)
            x -= CHIP + GUTTER
        return lowest + BAR_GAP + CHIP_HEIGHT

    def client(self, host: Host, x: float, left: float, y: float) -> None:
        """A client: a box whose cable is at `x`."""
        self.spots[host.name, STACK] = Spot("box", x, y, host.name)
        self.box(host.name, left, y)
        self.front.append(Label(left + 8, y - 7, fitted(host.name, x - left - 24, 9.5), Role.INK, 9.5))
        self.front.append(Label(left + 8, y + 7.5, self.address(host), Role.FAINT, 8.5))
        self.alt.append(f"{self.titled(host.name)} is outside of the cluster.")

    # In words

    def address(self, host: Host) -> str:
        """The first address of a machine on a cable; empty where it has none of the family."""
        cabled = [link for link in host.links if link.peer is not None]
        return next((a.ip for link in cabled for a in link.addresses if family(a.ip) == self.of), "")

    def address_range(self, bar: str) -> str:
        """The networks on a bar: its own addresses' (a router), or those of what is plugged into it."""
        own = [
            str(a)
            for link in self.hosts[bar].links
            for a in link.addresses
            if link.kind is LinkKind.NIC and family(a.ip) == self.of
        ]
        if own:
            return ", ".join(own)
        blocks = {
            str(a.prefix)
            for peer in _peers(self.hosts[bar])
            if peer in self.hosts
            for link in self.hosts[peer].links
            if link.peer is not None and link.peer.host == bar
            for a in link.addresses
            if family(a.ip) == self.of
        }
        return ", ".join(sorted(blocks))

    def titled(self, name: str) -> str:
        address = self.address(self.hosts[name])
        return f"{name} ({address})" if address else name

    def said(self, machine: Host, pods: Iterable[Host]) -> str:
        """A machine in a sentence."""
        devices = []
        for links in _devices(machine).values():
            for link in links:
                addresses = [address.ip for address in link.addresses if family(address.ip) == self.of]
                devices.append(f"{link.name} ({', '.join(addresses) or 'no address'}{'' if link.up else ', down'})")
        runs = [self.titled(pod.name) for pod in sorted(pods, key=lambda pod: _natural(pod.name))]
        held = f"; it runs {_listed(runs)}" if runs else "; it runs no pods"
        return f"{self.titled(machine.name)} has {_listed(devices) or 'no devices'}{held}."


def _row(frame: Box, y: float, height: float, dash: tuple[float, ...]) -> Box:
    return Box(frame.x + PAD, y - height / 2, frame.width - 2 * PAD, height, Role.DEVICE, Role.FRAME, 4, 1.0, dash)


def _height(row: tuple[str, int]) -> int:
    return STACK_ROW if row[0] == "stack" else ROW


def _devices(host: Host) -> dict[str, list[Link]]:
    """The devices of a machine that are drawn, by role: ports of bridges and cables to pods are the comb."""
    found: dict[str, list[Link]] = {"bridge": [], "tunnel": [], "card": []}
    for link in host.links:
        if link.kind is LinkKind.BRIDGE:
            found["bridge"].append(link)
        elif link.kind is LinkKind.NIC:
            found["card"].append(link)
        elif link.kind in (LinkKind.DATAPATH, *TUNNELS):
            found["tunnel"].append(link)
    return found


def _peers(host: Host) -> list[str]:
    """The machines at the other ends of the cables."""
    return list(dict.fromkeys(name for link in host.links for name in _ends(link) if name != host.name))


def _ends(link: Link) -> Iterator[str]:
    if link.peer is not None:
        yield link.peer.host


def _chosen(names: Sequence[str], met: Collection[str], room: int) -> set[str]:
    """As many names as there is room for: those that must be seen, then the first ones."""
    if len(names) <= room:
        return set(names)
    must = [name for name in names if name in met]
    rest = [name for name in names if name not in met]
    return {*must, *rest[: max(0, room - 1 - len(must))]}


def _natural(name: str) -> tuple[tuple[int, str], ...]:
    """A key by which node-10 comes after node-9."""
    return tuple((int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name))


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else ""
