"""How does a cluster come to life on this machine's kernel?

    with live.Lab(shop) as lab:
        seen = lab.probe([live.Probe("shop/web-0", "10.96.0.1", 443)])
        print(lab.run("node-1", "ip", "route"))
        lab.apply(broken.network)

A `Lab` starts one agent in namespaces of its own (as root, or as an ordinary user in a user namespace), hands it the
commands that make every machine of the network, and asks it to probe. Leaving the `with` block ends the agent, and
with it everything; so does the end of this process, however it comes.

`apply` turns the machines into changed ones by what differs: a what-if costs milliseconds. What machines have learnt
so far — neighbours, connections — is forgotten, as a walk begins without any.

Not built: link failures, several underlay interfaces, SCTP sockets. See `unshare(1)`, `namespaces(7)`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import msgspec

from k8snetlab.address import family
from k8snetlab.cluster import Cluster
from k8snetlab.errors import CannotDo, Problem
from k8snetlab.linux.host import Host, Network, families
from k8snetlab.linux.link import LinkKind
from k8snetlab.linux.netfilter import Recent
from k8snetlab.live import kernel_trace, sockets
from k8snetlab.live.capture import Capture, Frame
from k8snetlab.live.kernel_trace import Followed, Texts
from k8snetlab.live.probes import Probe, Sight, seen
from k8snetlab.live.script import Script, bare, cables, forgotten, namespace, quiet, quiet_devices, script

if TYPE_CHECKING:
    import socket

__all__ = ["Lab", "Opening", "Printed", "refused", "unshare"]

PATIENCE: Mapping[int, float] = {4: 0.5, 6: 1.5}
"""Seconds after which a probe counts as unanswered, by family: longer than an ARP request that nobody answers. In IPv6
a REJECT is heard at the second SYN, a second later: the first error finds the socket locked by the connect that is
still under way (`LockDroppedIcmps`)."""

PROGRAMS: Mapping[str, tuple[str, str]] = {"ipsets": ("ipset", "ipset"), "nftables": ("nft", "nftables")}
"""What only some machines need, by the field of a Host: the program, and Debian's package that brings it."""

_INSIDE = "import sys; sys.path.insert(0, sys.argv.pop()); from inside.agent import main; main()"


class Printed(msgspec.Struct, frozen=True):
    """What a program printed, and its exit status."""

    status: int
    out: str
    err: str


class Opening(NamedTuple):
    """A socket on a machine, `TCP` or `UDP`. Port 0: one that is to connect, of the family of `address`."""

    host: str
    protocol: str
    port: int
    address: str


NEVER: Mapping[str, tuple[Callable[[Host], bool], str]] = {
    "ipvs": (
        lambda host: bool(host.ipvs),
        "a lab makes no virtual servers: IPVS is in few kernels, and was never tried",
    ),
    "wireguard": (
        lambda host: bool(host.peers),
        "a lab makes no WireGuard devices: no kernel it was tried on has them, so the walk alone does",
    ),
    "datapath": (
        lambda host: host.datapath is not None,
        "a lab has none of Cilium's programs at the devices of pods, so the walk alone goes by identity",
    ),
    "ipip": (
        lambda host: any(link.kind is LinkKind.IPIP for link in host.links),
        "a lab makes no IPIP devices: no kernel it was tried on has them, so the walk alone does",
    ),
    "mesh": (
        lambda host: bool(host.meshes),
        "a lab has no router of a mesh, which writes the flows of Open vSwitch or carries frames: the walk alone does",
    ),
}
"""What no lab gives any kernel: how a machine that has it is known, and why."""


def refused(network: Network) -> Problem | None:
    """Why a lab does not hold such machines, wherever it is, or nothing."""
    for field, (has, why) in NEVER.items():
        found = [host.name for host in network.values() if has(host)]
        if found:
            return Problem(why, object=", ".join(found[:3]), field=field)
    return None


class Lab:
    """The machines of a cluster, or of any network, in namespaces of this kernel. `network` is what they are now.

    Raises `CannotDo` where this machine does not allow it, or where the kernel refuses a command: the message names
    the machine, the command and what was said.
    """

    def __init__(self, cluster: Cluster | Network) -> None:
        self.network = cluster.network if isinstance(cluster, Cluster) else cluster
        self._agent: subprocess.Popen[bytes] | None = None
        self.without_counters: tuple[str, ...] = ()
        """Machines whose rules were applied without their nfacct counters, because the kernel has none."""
        self._handed: frozenset[tuple[str, str, int]] = frozenset()
        self._texts: tuple[Network, Mapping[str, Texts]] | None = None

    def __enter__(self) -> Self:
        why = refused(self.network)
        if why is not None:
            raise CannotDo(why)
        for field, (program, package) in PROGRAMS.items():
            if any(getattr(host, field) for host in self.network.values()) and shutil.which(program) is None:
                raise CannotDo(Problem(f"there is no program {program}: install the package {package}", field=field))
        command = [*unshare(os.geteuid()), sys.executable, "-I", "-S", "-c", _INSIDE, str(Path(__file__).parent)]
        pipe = subprocess.PIPE
        self._agent = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe)  # noqa: S603
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the agent and everything it made."""
        agent, self._agent = self._agent, None
        if agent is None:
            return
        for pipe in (agent.stdin, agent.stdout, agent.stderr):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        try:
            agent.wait(timeout=10)
        except subprocess.TimeoutExpired:
            agent.kill()
            agent.wait()

    # Building

    def _build(self) -> None:
        namespaces, links = cables(self.network)
        self._answer()
        self._batch([("", ["ip", "-batch", "-"], namespaces)])
        self._write(quiet(self.network))
        self._batch([("", ["ip", "-batch", "-"], links)])
        self._become({host.name: script(bare(host), host) for host in self.network.values()})
        self._write(quiet_devices(self.network))
        self._listen()
        if any(host.ebpf is not None for host in self.network.values()):
            self._lead()

    def apply(self, network: Network) -> None:
        """Make the machines what they are in another network with the same machines and cables, and let them forget
        what they have learnt. Raises `CannotDo` if there are others.
        """
        if set(network) != set(self.network):
            names = ", ".join(sorted(set(network) ^ set(self.network)))
            raise CannotDo(Problem("the network has other machines: build another lab", object=names))
        changed = {name: host for name, host in network.items() if host != self.network[name]}
        self._become({name: script(self.network[name], host) for name, host in changed.items()})
        leading = any(host.ebpf != self.network[name].ebpf for name, host in changed.items())
        listening = any(host.listeners != self.network[name].listeners for name, host in changed.items())
        self.network = network
        self.forget()
        if listening:
            self._listen()
        if leading:
            self._lead()

    def forget(self) -> None:
        """Let every machine forget learnt neighbours, connections, affinity, and what it knows about paths. The lists
        of affinity that iptables has belong to the machine's root: an ordinary user's lab keeps them.
        """
        jobs: list[tuple[str, list[str], str]] = []
        lists: list[tuple[str, str, str]] = []
        for host in self.network.values():
            where = namespace(host.name)
            jobs.append((where, ["ip", "-batch", "-"], "neigh flush all\nroute flush cache\n"))
            if 6 in families(host):
                jobs.append((where, ["ip", "-6", "-batch", "-"], "route flush cache\n"))
            if any(host.tracks.values()):
                jobs.append((where, ["conntrack", "-F"], ""))
            remembered = forgotten(host)
            if remembered:
                jobs.append((where, ["nft", "-f", "-"], remembered))
            lists.extend((where, f"/proc/thread-self/net/xt_recent/{name}", "/") for name in _affinity(host))
        self._batch(jobs)
        self._ask("write", values=lists)
        self._ask("mislead")

    def _become(self, scripts: Mapping[str, Script]) -> None:
        scripts = self._counted(scripts)
        ipset = ["ipset", "restore"]
        self._batch([(namespace(name), ipset, each.ipset) for name, each in scripts.items() if each.ipset])
        self._batch([job for name, each in scripts.items() for job in _first(namespace(name), each)])
        self._batch([job for name, each in scripts.items() for job in _second(namespace(name), each)])
        self._batch([(namespace(name), ipset, each.ipset_gone) for name, each in scripts.items() if each.ipset_gone])
        self._write((namespace(name), *pair) for name, each in scripts.items() for pair in each.sysctls)

    def _counted(self, scripts: Mapping[str, Script]) -> Mapping[str, Script]:
        """The scripts, without counters on machines where there can be none."""
        names = [(namespace(name), account) for name, each in scripts.items() for account in each.accounts]
        if not names:
            return scripts
        refused = {names[number][0] for number, _ in self._ask("accounts", names=names)}
        self.without_counters = tuple(sorted({*self.without_counters, *refused}))
        return {name: _without_counters(each) if namespace(name) in refused else each for name, each in scripts.items()}

    def counters_refused(self) -> str:
        """Why no nfacct counter can be made here, or nothing."""
        return next((str(why) for _, why in self._ask("accounts", names=[("", "k8snetlab")])), "")

    def sockets_refused(self) -> str:
        """Why no program can lead sockets here, or nothing."""
        return self._refused([])

    def devices_refused(self) -> str:
        """Why no program can lead packets at devices here, or nothing."""
        return self._refused([("", "lo", ["tc/ingress", "tc/egress"], 0, ("192.0.2.1",), False)])

    def _refused(self, devices: list[tuple[str, str, list[str], int, tuple[str, ...], bool]]) -> str:
        """Why no program can lead sockets, or packets at these devices."""
        tried = sockets.Maps([("", 0, True, [])], [], [], [], (0, 0), devices, [], [])
        try:
            refused = str(self._ask("lead", **tried.as_dict()))
            self._lead()
        except CannotDo as error:
            return str(error)
        return refused

    def _lead(self) -> None:
        """Lead the sockets of pods and nodes, and packets from outside, to backends, where eBPF programs do."""
        try:
            refused = self._ask("lead", **sockets.maps(self.network).as_dict())
        except CannotDo as error:
            refused = str(error)
        if refused:
            raise CannotDo(Problem(f"the kernel takes no programs here: {refused}", field="ebpf"))

    def _batch(self, jobs: Sequence[tuple[str, list[str], str]]) -> None:
        if not jobs:
            return
        for (where, command, text), (status, out, err) in zip(jobs, self._ask("run", jobs=jobs), strict=True):
            if status:
                message = f"{' '.join(command)}: {err.strip() or out.strip()}{_line_of(err, text)}"
                raise CannotDo(Problem(message, object=where))

    def _write(self, values: Iterable[tuple[str, str, str]]) -> None:
        wanted = [(where, f"/proc/sys/net/{path}", value) for where, path, value in values]
        for number, why in self._ask("write", values=wanted):
            where, path, value = wanted[number]
            raise CannotDo(Problem(f"{value} cannot be written: {why}", object=where, field=path))

    def _listen(self) -> None:
        sockets = [
            (namespace(host.name), host.name, listener.protocol, listener.port, listener.address)
            for host in self.network.values()
            for listener in host.listeners
            if listener.protocol in ("TCP", "UDP") and (host.name, listener.protocol, listener.port) not in self._handed
        ]
        self._ask("listen", sockets=sockets)

    # Asking

    def probe(self, probes: Sequence[Probe], patience: float = 0) -> tuple[Sight, ...]:
        """Send every probe, all at once, and say what each sender saw, in the same order. `patience` is in seconds,
        and `PATIENCE` unless given.
        """
        asked = [_question(each, patience or PATIENCE[family(each.address)]) for each in probes]
        return tuple(seen(end, words) for end, words in self._ask("probe", probes=asked))

    def follow(self, probe: Probe) -> Followed:
        """Send one probe, and let the kernel tell which rules its first packet and the first answer match. What
        machines have learnt is forgotten before, as a walk begins without any. See `kernel_trace`.
        """
        probe = kernel_trace.followable(probe)
        hosts = {namespace(host.name): host for host in self.network.values() if kernel_trace.told_of(host)}
        tunnels = sorted({link.vxlan.port for host in hosts.values() for link in host.links if link.vxlan})
        known = self._rule_texts(hosts)
        self.forget()
        asked = _question(probe, kernel_trace.PATIENCE)
        nft = ["nft", "-f", "-"]
        self._batch([(name, nft, kernel_trace.watch(host, probe, tunnels)) for name, host in hosts.items()])
        try:
            ((end, words),), events = self._ask("trace", names=list(hosts), probes=[asked])
        finally:
            self._batch([(name, nft, kernel_trace.unwatch(host)) for name, host in hosts.items()])
        names = {name: host.name for name, host in hosts.items()}
        there, back = kernel_trace.matched(events, names, known, tunnels)
        return Followed(probe, seen(end, words), there, back)

    @contextlib.contextmanager
    def capturing(self, host: str, device: str) -> Iterator[Capture]:
        """Capture every frame that passes a device of a machine while the block runs. Raises `UnknownName`."""
        self.network.host(host).link(device)
        number = self._ask("capture", namespace=namespace(host), device=device)
        capture = Capture(host, device)
        try:
            yield capture
        finally:
            found = self._ask("captured", number=number)
            capture.frames = tuple(Frame(time, bytes.fromhex(octets)) for time, octets in found)

    @contextlib.contextmanager
    def handed(self, wanted: Sequence[Opening]) -> Iterator[tuple[socket.socket, ...]]:
        """Sockets on machines of the lab, in the order of what is wanted, for this process to serve: the lab itself
        answers at these ports only before and after. Raises `CannotDo` where one cannot be opened.
        """
        import socket
        import tempfile

        before = self._handed
        self._handed = before | {(each.host, each.protocol, each.port) for each in wanted if each.port}
        found: list[socket.socket] = []
        try:
            self._listen()
            with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as taker:
                taker.bind(f"{folder}/sockets")
                taker.listen(1)
                sockets = [(namespace(each.host), each.host, each.protocol, each.port, each.address) for each in wanted]
                self._ask("hand", sockets=sockets, path=f"{folder}/sockets")
                with taker.accept()[0] as giver:
                    while len(found) < len(wanted):
                        _, files, _, _ = socket.recv_fds(giver, 1, 253)
                        found += (socket.socket(fileno=each) for each in files)
            yield tuple(found)
        finally:
            for each in found:
                each.close()
            self._handed = before
            if self._agent is not None:
                self._listen()

    def _rule_texts(self, hosts: Mapping[str, Host]) -> Mapping[str, Texts]:
        """What each machine's rules are called, by namespace; asked for once for each network."""
        if self._texts is None or self._texts[0] is not self.network:
            commands = (["nft", "-a", "list", "ruleset"], ["iptables-save"], ["ip6tables-save"])
            printed = self._ask("run", jobs=[(name, command, "") for name in hosts for command in commands])
            outs = [out for _, out, _ in printed]
            found = {
                name: kernel_trace.texts(outs[at], {4: outs[at + 1], 6: outs[at + 2]})
                for at, name in zip(range(0, len(outs), len(commands)), hosts, strict=True)
            }
            self._texts = self.network, found
        return self._texts[1]

    def run(self, host: str, *command: str, text: str = "") -> Printed:
        """Run a program on a machine and wait for it: `lab.run("node-1", "ip", "route")`. The empty name is the
        namespace of the lab itself. Raises `UnknownName`.
        """
        if host:
            self.network.host(host)
        ((status, out, err),) = self._ask("run", jobs=[(namespace(host), command, text)])
        return Printed(status, out, err)

    def _ask(self, what: str, **facts: Any) -> Any:
        agent = self._agent
        if agent is None or agent.stdin is None:
            raise CannotDo("the lab is closed: ask inside of its `with` block")
        with contextlib.suppress(BrokenPipeError):  # what it said before it ended is the better message
            agent.stdin.write(json.dumps({"do": what, **facts}).encode() + b"\n")
            agent.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        agent = self._agent
        assert agent is not None and agent.stdout is not None and agent.stderr is not None
        try:
            line = agent.stdout.readline()
        except BaseException:  # interrupted: its answer would pass for that of the next question
            self.close()
            raise
        if not line:
            said = agent.stderr.read().decode(errors="replace").strip()
            raise CannotDo(f"the lab's agent ended: {said.splitlines()[-1] if said else 'it said nothing'}")
        answer = msgspec.json.decode(line)
        if "error" in answer:
            raise CannotDo(f"the lab's agent: {answer['error']}")
        return answer["ok"]


def _question(probe: Probe, patience: float) -> tuple[str, str, str, int, int, bool, float]:
    """A probe as the agent wants it."""
    where = namespace(probe.source)
    return where, probe.protocol, probe.address, probe.port, probe.size, probe.whole, patience


def unshare(user: int) -> list[str]:
    """The command that gives a program namespaces of its own: an ordinary user needs a user namespace for them."""
    flags = ["-nmp"] if user == 0 else ["-Urnmp"]
    return ["unshare", *flags, "--propagation", "private", "--kill-child", "--fork", "--"]


def _affinity(host: Host) -> list[str]:
    """The lists of who was seen, by name."""
    tables = (*host.netfilter.ipv4.values(), *host.netfilter.ipv6.values())
    matches = (match for table in tables for rule in table.rules for match in rule.matches)
    return sorted({match.name for match in matches if isinstance(match, Recent)})


def _first(where: str, each: Script) -> Iterable[tuple[str, list[str], str]]:
    """The programs that need nothing but bare devices."""
    programs = (
        (["ip", "-batch", "-"], each.ip),
        (["iptables-restore", "-w"], each.iptables),
        (["ip6tables-restore", "-w"], each.ip6tables),
    )
    return ((where, command, text) for command, text in programs if text)


def _second(where: str, each: Script) -> Iterable[tuple[str, list[str], str]]:
    """The programs that need tunnels, addresses, and the rules of iptables."""
    programs = (
        (["ip", "-6", "-batch", "-"], each.ip6),
        (["bridge", "-batch", "-"], each.bridge),
        (["nft", "-f", "-"], each.nft),
    )
    return ((where, command, text) for command, text in programs if text)


def _without_counters(each: Script) -> Script:
    four, six = (_uncounted(text) for text in (each.iptables, each.ip6tables))
    return msgspec.structs.replace(each, iptables=four, ip6tables=six)


def _uncounted(rules: str) -> str:
    """The rules without their counters, which never decide anything."""
    words = "-m nfacct --nfacct-name  "
    lines = []
    for line in rules.splitlines(keepends=True):
        before, found, after = line.partition(words)
        lines.append(before + after.partition(" ")[2] if found else line)
    return "".join(lines)


def _line_of(said: str, text: str) -> str:
    """The line of a batch that a message like `Command failed -:7` is about."""
    number = said.rpartition("-:")[2].strip().split("\n")[0]
    lines = text.splitlines()
    return f": {lines[int(number) - 1]}" if number.isdigit() and 0 < int(number) <= len(lines) else ""
