"""What can this machine do?

The lab needs namespaces of its own, a few programs, and a kernel with certain parts. Each is tried for real, in
namespaces made for the purpose, and what is missing is said with its reason and with what brings it. Nothing is
assumed from version numbers, and nothing missing is imitated: what cannot be tried here is skipped, with that reason.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from functools import cache

import msgspec

from k8snetlab.errors import LabError
from k8snetlab.linux.host import Network
from k8snetlab.live import bird
from k8snetlab.live.lab import Lab, unshare
from k8snetlab.live.plugins import FOLDERS, folder

__all__ = ["Capability", "capabilities", "lacking", "missing", "tried"]

PROGRAMS = {
    "unshare": "util-linux",
    "ip": "iproute2",
    "bridge": "iproute2",
    "iptables-restore": "iptables",
    "ip6tables-restore": "iptables",
    "conntrack": "conntrack",
}
"""The programs that the lab runs, and Debian's packages that bring them."""

RULES = """*filter
:FORWARD ACCEPT [0:0]
-A FORWARD -m comment --comment "rules" -m conntrack --ctstate NEW -m addrtype --dst-type LOCAL -j REJECT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A PREROUTING -p tcp -m tcp --dport 80 -m statistic --mode random --probability 0.5 -j DNAT --to-destination {to}
-A PREROUTING -m recent --name seen --set --rsource -j MARK --set-xmark 0x4000/0x4000
-A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE --random-fully
COMMIT
"""
"""Rules with every match and target that kube-proxy and the CNIs use."""

LINKS = """link add name a type bridge
link add name b type veth peer name c
link add name d type vxlan id 1 local 192.0.2.1 dev b dstport 8472 nolearning
"""

TABLE = """table ip k8snetlab_rules {
  set seen { type ipv4_addr; size 65535; flags dynamic,timeout; timeout 3h; }
  map services { type ipv4_addr . inet_proto . inet_service : verdict; elements = { 192.0.2.1 . tcp . 80 : goto web }; }
  chain web { numgen random mod 2 vmap { 0 : goto first, 1 : goto second }; }
  chain first { update @seen { ip saddr }; meta l4proto tcp dnat to 192.0.2.2:80; }
  chain second { meta l4proto tcp dnat ip to numgen random mod 1 map { 0 : 192.0.2.3 . 80 }; }
  chain entrance { type nat hook prerouting priority -100; ip daddr . meta l4proto . th dport vmap @services; }
  chain leaving { type nat hook postrouting priority 100; masquerade fully-random; }
  chain passing { type filter hook forward priority 0; ct state new fib daddr type local reject; }
}
"""
"""A table with every kind of statement that kube-proxy uses."""

TRACED = """table ip k8snetlab_trace {
  chain flagged { type filter hook prerouting priority -301; @th,240,8 & 0x17 == 0x02 meta nftrace set 1; }
}
list chain ip nat POSTROUTING
"""
"""A trace flag set by a packet's bytes, and whether nft sees the rules that iptables made."""

SPARED = (
    "counters", "nftables", "rule trace", "ipset", "CNI plugins", bird.PROGRAM, "WireGuard devices", "IPIP devices",
    "socket load balancing by eBPF", "packet load balancing by eBPF",
)  # fmt: skip
"""What a lab can do without: rules work without counters, packets pass whether or not the kernel tells, the lab plugs
in pods and writes routes by itself, few networks have sets or tables of nftables, only proxy mode ebpf has such
programs, and WireGuard and IPIP are in the walk alone.
"""


class Capability(msgspec.Struct, frozen=True):
    """One thing that a machine can do or not: `reason` says how that is known; `package` is Debian's that brings it."""

    name: str
    present: bool
    reason: str
    package: str = ""

    def __str__(self) -> str:
        install = f" (package {self.package})" if self.package and not self.present else ""
        return f"{self.name}: {'yes' if self.present else 'no'}, {self.reason}{install}"


@cache
def capabilities() -> tuple[Capability, ...]:
    """What the lab needs, tried on this machine: programs, namespaces, and parts of the kernel. Tried once only."""
    return tried()


def tried() -> tuple[Capability, ...]:
    """The same, tried now."""
    if sys.platform != "linux":
        return (Capability("linux", present=False, reason=f"this is {sys.platform}"),)
    programs = tuple(_program(name, package) for name, package in PROGRAMS.items())
    if not all(each.present for each in programs):
        return programs
    namespaces = _namespaces()
    if not namespaces.present:
        return (*programs, namespaces)
    try:
        with Lab(Network({})) as lab:
            return (*programs, namespaces, *_kernel(lab))
    except LabError as error:
        return (*programs, namespaces, Capability("agent", present=False, reason=str(error)))


def missing() -> str:
    """Why this machine cannot hold a lab, or nothing."""
    return "; ".join(map(str, lacking(capabilities())))


def lacking(found: Iterable[Capability]) -> tuple[Capability, ...]:
    """Those that are missing and needed."""
    return tuple(each for each in found if not each.present and each.name not in SPARED)


def _program(name: str, package: str) -> Capability:
    path = shutil.which(name)
    return Capability(name, path is not None, path or "not on this machine", package)


def _namespaces() -> Capability:
    tried = subprocess.run([*unshare(os.geteuid()), "true"], capture_output=True, text=True, check=False)  # noqa: S603
    who = "root" if os.geteuid() == 0 else f"user {os.geteuid()}"
    reason = f"as {who}, by unshare" if not tried.returncode else f"as {who}: {tried.stderr.strip()}"
    return Capability("namespaces", not tried.returncode, reason)


def _kernel(lab: Lab) -> Iterator[Capability]:
    """The parts of the kernel, tried in the lab's own namespace."""
    yield _tried(lab, "devices", ["ip", "-batch", "-"], LINKS, "veth, bridge and vxlan")
    four, six = (RULES.format(to=to) for to in ("192.0.2.1:80", "[2001:db8::1]:80"))
    yield _tried(lab, "iptables", ["iptables-restore"], four, "every match and target that the lab uses")
    yield _tried(lab, "ip6tables", ["ip6tables-restore"], six, "every match and target that the lab uses")
    yield _tried(lab, "conntrack table", ["conntrack", "-L"], "", "it can be read")
    path = "/proc/sys/net/bridge/bridge-nf-call-iptables"
    yield _tried(lab, "bridge netfilter", ["cat", path], "", "iptables sees frames that cross a bridge")
    yield _tried(lab, "settings", ["cat", "/proc/sys/net/ipv6/conf/all/forwarding"], "", "IPv6 is there")
    refused = lab.counters_refused()
    yield Capability("counters", not refused, refused or "nfacct objects can be made")
    yield from _nftables(lab)
    yield _program("ipset", "ipset")
    yield _tried(
        lab, "WireGuard devices", ["ip", "-batch", "-"], "link add name w type wireguard\n", "devices can be made"
    )
    yield _tried(lab, "IPIP devices", ["ip", "-batch", "-"], "link add name i type ipip\n", "devices can be made")
    yield _plugins()
    yield _program(bird.PROGRAM, bird.PACKAGE)
    refused = lab.sockets_refused()
    says = "programs at connect() and sendmsg() are loaded and attached, without a compiler"
    yield Capability("socket load balancing by eBPF", not refused, f"{refused} (it needs root)" if refused else says)
    refused = lab.devices_refused()
    says = "programs at tc ingress and egress are loaded and attached, without a compiler"
    reason = f"{refused} (it needs root, and Linux 6.6)" if refused else says
    yield Capability("packet load balancing by eBPF", not refused, reason)


def _nftables(lab: Lab) -> Iterator[Capability]:
    """What `nft` is needed for: rules of its own, and to let the kernel tell which rules a packet matches."""
    tried = (
        ("nftables", TABLE, "sets, maps and every statement that kube-proxy uses"),
        ("rule trace", TRACED, "the kernel tells which rules a packet matches"),
    )
    for name, text, says in tried:
        if shutil.which("nft"):
            yield _tried(lab, name, ["nft", "-f", "-"], text, says)
        else:
            yield Capability(name, present=False, reason="nft is not on this machine", package="nftables")


def _plugins() -> Capability:
    """The real plugins, which another lab can be built with for comparison."""
    where = folder()
    reason = str(where) if where else f"not in {' or '.join(FOLDERS)}"
    return Capability("CNI plugins", where is not None, reason, "containernetworking-plugins")


def _tried(lab: Lab, name: str, command: list[str], text: str, says: str) -> Capability:
    printed = lab.run("", *command, text=text)
    said = (printed.err.strip() or printed.out.strip()).partition("\n")[0]  # what follows counts lines of a batch
    return Capability(name, printed.status == 0, says if printed.status == 0 else f"{command[0]}: {said}")
