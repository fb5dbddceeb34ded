"""What can this machine do?

The course itself needs Python and JupyterLab only. Some things need more: a browser to look at it, tcpdump to read
captures, and the programs and the kernel's features with which the same network can be built for real. What is missing
is said with the package that brings it. Programs are looked for on the search path, features in the kernel's own list
of its symbols (built in) and modules (to be loaded). What `k8snetlab prove` needs is tried out, in namespaces made for
the purpose: only that says whether this user may do it here.

Not modelled: whether a program is new enough. `kallsyms(5)`, `user_namespaces(7)`.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

import k8snetlab as k8s
from k8snetlab.cli import output
from k8snetlab.cni import VARIANTS as CNIS
from k8snetlab.tables import aligned

__all__ = ["Capability", "browser", "examined", "print_table"]


class Capability(msgspec.Struct, frozen=True):
    """Something the machine can do or cannot: `package` brings it, and is empty where none does."""

    capability: str
    present: bool
    reason: str
    package: str = ""

    def as_dict(self) -> dict[str, Any]:
        """As the JSON of `k8snetlab doctor`."""
        return msgspec.structs.asdict(self) | {"package": self.package or None}


LAB = "k8snetlab[lab]"
SMALL = "same-node-other-node"
"""The example whose network is looked at under each CNI."""

MODULES: Mapping[str, tuple[str, str]] = {
    "the course in a browser": ("jupyterlab", LAB),
    "a kernel that runs the notebooks": ("ipykernel", LAB),
    "controls in the notebooks": ("ipywidgets", LAB),
    "pictures": ("matplotlib", "matplotlib"),
    "graphs": ("networkx", "networkx"),
}
"""What Python modules bring: the module, and what to install with pip."""

PROGRAMS: Mapping[str, tuple[str, str]] = {
    "reading captures": ("tcpdump", "tcpdump"),
    "links, addresses, routes of the real kernel": ("ip", "iproute2"),
    "bridges and their tables": ("bridge", "iproute2"),
    "rules of iptables": ("iptables-restore", "iptables"),
    "rules of nftables": ("nft", "nftables"),
    "sets of iptables": ("ipset", "ipset"),
    "tracked connections": ("conntrack", "conntrack"),
    "tables of IPVS": ("ipvsadm", "ipvsadm"),
    "network namespaces": ("unshare", "util-linux"),
    "a name server to be updated": ("knotd", "knot"),
    "another one": ("named", "bind9"),
    "asking name servers": ("dig", "bind9-dnsutils"),
}
"""What programs bring: the program, and its Debian package."""

FEATURES: Mapping[str, tuple[str, str]] = {
    "veth": ("veth_xmit", "veth"),
    "bridge": ("br_dev_xmit", "bridge"),
    "VXLAN": ("vxlan_xmit", "vxlan"),
    "conntrack": ("nf_conntrack_in", "nf_conntrack"),
    "nftables": ("nft_do_chain", "nf_tables"),
    "IPVS": ("ip_vs_conn_new", "ip_vs"),
    "IPIP": ("ipip_tunnel_xmit", "ipip"),
    "Open vSwitch": ("ovs_dp_process_packet", "openvswitch"),
    "WireGuard": ("wg_xmit", "wireguard"),
    "eBPF": ("bpf_prog_load", ""),
}
"""What the kernel brings: a function that is there when it is built in, and the module it may be instead."""

HEADINGS = ("", "CAPABILITY", "BECAUSE", "PACKAGE")
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "firefox", "firefox-esr", "microsoft-edge", "safari")


def examined() -> tuple[Capability, ...]:
    """Every capability, in the order in which a learner meets them."""
    return (_python(), *_modules(), browser(), *_programs(), _namespaces(), *_features(), *_proof())


def _python() -> Capability:
    return Capability("Python", present=True, reason=f"{platform.python_version()} at {sys.executable}")


def _modules() -> Iterator[Capability]:
    for capability, (module, package) in MODULES.items():
        present = find_spec(module) is not None
        reason = f"{module} {version(module)}" if present else f"{module} is not installed"
        yield Capability(capability, present, reason, package)


def browser() -> Capability:
    """Whether a browser can be shown here; without one the course prints its address."""
    name = "a browser on this machine"
    if sys.platform in ("darwin", "win32"):
        return Capability(name, present=True, reason="the system has one")
    program = next((name for name in BROWSERS if shutil.which(name)), None)
    if program is None:
        reason = "none is on the search path: open the address elsewhere"
        return Capability(name, present=False, reason=reason, package="chromium")
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return Capability(name, present=False, reason=f"{program} is installed, but there is no screen (DISPLAY)")
    return Capability(name, present=True, reason=program)


def _programs() -> Iterator[Capability]:
    for capability, (program, package) in PROGRAMS.items():
        path = _found(program)
        yield Capability(capability, path is not None, path or f"{program} is not on the search path", package)


def _found(program: str) -> str | None:
    """A program on the search path, or where administrators' programs are, which the path of others may leave out."""
    return shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin:/usr/local/sbin")


def _namespaces() -> Capability:
    name = "making network namespaces"
    if not sys.platform.startswith("linux"):
        reason = f"this is {platform.system()}: use Linux, or a virtual machine with it"
        return Capability(name, present=False, reason=reason)
    if os.geteuid() == 0:
        return Capability(name, present=True, reason="as root")
    for setting, wanted, words in USER_NAMESPACES:
        value = _number(setting)
        if value is not None and not wanted(value):
            return Capability(name, present=False, reason=f"not root, and {words} ({setting} is {value})")
    return Capability(name, present=True, reason="in a user namespace, without being root")


USER_NAMESPACES: Sequence[tuple[str, Callable[[int], bool], str]] = (
    ("/proc/sys/user/max_user_namespaces", lambda value: value > 0, "the kernel allows no user namespaces"),
    ("/proc/sys/kernel/unprivileged_userns_clone", lambda value: value == 1, "user namespaces are for root only"),
    ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", lambda value: value == 0, "AppArmor restricts them"),
)
"""What must hold so that anybody may make user namespaces. A setting that is not there forbids nothing."""


def _number(setting: str) -> int | None:
    try:
        return int(Path(setting).read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _features() -> Iterator[Capability]:
    for feature, (symbol, module) in FEATURES.items():
        capability = f"{feature} in the kernel"
        if not sys.platform.startswith("linux"):
            yield Capability(capability, present=False, reason=f"this is {platform.system()}")
        elif symbol in _symbols():
            yield Capability(capability, present=True, reason="built in, or loaded")
        elif module and module in _loadable():
            yield Capability(capability, present=True, reason=f"in the module {module}, which root can load")
        else:
            reason = f"kernel {platform.release()} has no {module or 'such code'}"
            yield Capability(capability, present=False, reason=reason)


@cache
def _symbols() -> frozenset[str]:
    """Those of the functions in `FEATURES` that the running kernel has."""
    wanted = {symbol.encode() for symbol, _ in FEATURES.values()}
    try:
        with Path("/proc/kallsyms").open("rb") as lines:
            return frozenset(word.decode() for line in lines if (word := line.split()[2]) in wanted)
    except OSError:
        return frozenset()


@cache
def _loadable() -> frozenset[str]:
    """The modules that are there for the running kernel."""
    folder = Path("/lib/modules") / platform.release()
    found: set[str] = set()
    for listed in ("modules.dep", "modules.builtin"):
        try:
            lines = (folder / listed).read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        found.update(Path(line.partition(":")[0]).name.partition(".")[0].replace("-", "_") for line in lines)
    return frozenset(found)


def _proof() -> Iterator[Capability]:
    """What a cluster on the real kernel needs, as tried; first of all, whether one can be built."""
    tried = k8s.live.tried()
    lacking = k8s.live.lacking(tried)
    name = "a cluster on the real kernel"
    if lacking:
        first = lacking[0]
        yield Capability(name, present=False, reason=f"{first.name}: {first.reason}", package=first.package)
    else:
        yield Capability(name, present=True, reason="tried: k8snetlab prove works here")
    named = {program for program, _ in PROGRAMS.values()}
    for each in (each for each in tried if each.name not in named):
        yield Capability(f"real kernel: {each.name}", each.present, each.reason, each.package)
    yield from _networks()


def _networks() -> Iterator[Capability]:
    """Which CNIs, with the options that they have by themselves, a lab gives a kernel; the others are walked only."""
    for cni in CNIS:
        why = k8s.live.refused(k8s.example(SMALL, cni=cni).network)
        reason = f"not applied to any kernel: {why.message}" if why is not None else "its state is applied as it is"
        yield Capability(f"real kernel: a network of {cni}", present=why is None, reason=reason)


def print_table(found: Sequence[Capability]) -> None:
    """Print the capabilities, and last the commands that bring what is missing."""
    rows = [
        ("yes" if each.present else "no", each.capability, each.reason, "" if each.present else each.package)
        for each in found
    ]
    if output.on_a_terminal():
        from k8snetlab.cli import paint

        paint.table(HEADINGS, rows)
    else:
        output.say(aligned([HEADINGS, *rows]))
    output.say("\n".join(_remedies(found)))


def _remedies(found: Sequence[Capability]) -> Iterator[str]:
    missing = sorted({each.package for each in found if not each.present and each.package})
    from_pip = {package for _, package in MODULES.values()}
    ours = " ".join(f"'{package}'" for package in missing if package in from_pip)
    theirs = " ".join(package for package in missing if package not in from_pip)
    if ours:
        yield f"\n{sys.executable} -m pip install {ours}"
    if theirs:
        yield f"\non Debian and Ubuntu: apt-get install {theirs}"
