"""What would somebody see who logs in to that machine?

The state of a Host in the words of the real tools, by the name of its kind.

Not modelled: what only time makes (learnt neighbours, connections): see `Cluster.session`. Guide section 2.1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from k8snetlab.errors import UnknownName
from k8snetlab.linux import text
from k8snetlab.linux.counts import Counts, counts
from k8snetlab.linux.datapath import bpf_endpoint_list, bpf_ipcache_list, bpf_policy_list
from k8snetlab.linux.ebpf import bpf_lb_list
from k8snetlab.linux.host import Host
from k8snetlab.linux.xfrm import ip_xfrm

__all__ = ["SHOWN", "Machine"]


class Machine(msgspec.Struct, frozen=True):
    """A machine of the cluster, to look at with the real tools' eyes."""

    host: Host

    def show(self, what: str) -> str:
        """The state of one kind, printed like the real tool: one of `SHOWN`. Raises `UnknownName`."""
        if what not in SHOWN:
            raise UnknownName("kind of state", what, SHOWN)
        return SHOWN[what](self.host)

    def counts(self, family: int = 4) -> Counts:
        """How many chains, rules, sets and elements the machine holds for family 4 or 6. This builds every chain."""
        return counts(self.host, family)

    def __repr__(self) -> str:
        return f"<Machine {self.host.name}: {len(self.host.links)} links, {len(self.host.routes)} routes>"


SHOWN: Mapping[str, Callable[[Host], str]] = {
    "addresses": text.ip_addr,
    "links": text.ip_link,
    "routes": text.ip_route,
    "routes6": lambda host: text.ip_route(host, 6),
    "rules": text.ip_rule,
    "neighbours": text.ip_neigh,
    "fdb": text.bridge_fdb,
    "iptables": lambda host: text.iptables_save(host.netfilter.ipv4),
    "ip6tables": lambda host: text.iptables_save(host.netfilter.ipv6),
    "nft": lambda host: text.nft_list_ruleset(host.nftables),
    "bpf": lambda host: bpf_lb_list(host.ebpf),
    "bpf-ipcache": lambda host: bpf_ipcache_list(host.datapath),
    "bpf-endpoint": lambda host: bpf_endpoint_list(host.datapath),
    "bpf-policy": lambda host: bpf_policy_list(host.datapath),
    "ipsets": text.ipset_save,
    "ipvs": text.ipvsadm,
    "wg": text.wg,
    "wgconf": text.wg_conf,
    "xfrm": lambda host: ip_xfrm(host.xfrm),
    "sysctls": lambda host: "\n".join(f"{key} = {value}" for key, value in sorted(host.sysctls.items())),
}
"""What a machine can show, and how."""
