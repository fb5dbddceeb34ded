"""How much does a machine hold?

What a proxy writes for a Service costs memory, time to load, and, if the kernel looks at rule after rule, time for
every packet. These are the numbers that grow, or do not, with the number of Services; they are taken from the values,
not from their text.

Guide section 2.2.
"""

from __future__ import annotations

import msgspec

from k8snetlab.address import family as address_family
from k8snetlab.linux import nftables as nft
from k8snetlab.linux.host import Host

__all__ = ["Counts", "counts"]


class Counts(msgspec.Struct, frozen=True):
    """Chains and rules of all tables; sets (maps too, and ipsets) and their elements; virtual servers of IPVS and the
    real servers behind all of them; slots of the eBPF map of Services, of which a frontend has one and each of its
    backends another.
    """

    chains: int = 0
    rules: int = 0
    sets: int = 0
    elements: int = 0
    virtual_servers: int = 0
    real_servers: int = 0
    slots: int = 0

    @property
    def entries(self) -> int:
        """All that is written one by one: rules, elements, servers and slots."""
        return self.rules + self.elements + self.virtual_servers + self.real_servers + self.slots


def counts(host: Host, family: int = 4) -> Counts:
    """What a machine holds for family 4 or 6, in tables of iptables and of nftables together. This builds every chain
    and set.
    """
    chains = [chain.rules for table in host.netfilter.of(family).values() for chain in table.chains.values()]
    own = [table for table in host.nftables if family in nft.FAMILIES[table.family]]
    sets = [len(held.elements) for table in own for held in table.sets.values()]
    sets += [len(held.entries) for held in host.ipsets if held.family == family]
    servers = [len(virtual.servers) for virtual in host.ipvs if virtual.family == family]
    every = [*map(len, chains), *(len(chain.rules) for table in own for chain in table.chains.values())]
    frontends = host.ebpf.services.values() if host.ebpf is not None else ()
    slots = [1 + len(each.backends) for each in frontends if address_family(each.key.address) == family]
    return Counts(len(every), sum(every), len(sets), sum(sets), len(servers), sum(servers), sum(slots))
