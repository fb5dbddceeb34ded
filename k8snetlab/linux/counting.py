"""How many rules is a packet compared with?

The kernel looks at the rules of a chain one after the other, until one of them decides. `counting` gives the same
machine with a counter on each rule, so that a walk through it counts every comparison — without the shortcuts that the
walk takes elsewhere. What a rule looks up in a set or a map, and what IPVS and eBPF look up in theirs, is no comparison
with a rule: it costs about the same among ten entries and among ten thousand.

Guide section 2.2.
"""

from __future__ import annotations

from collections import Counter
from functools import partial

import msgspec

from k8snetlab.linux import nftables as nft
from k8snetlab.linux.host import Host
from k8snetlab.linux.netfilter import Chain, Chains, Match, Netfilter, Rule, Surroundings, Table, Tables
from k8snetlab.linux.skb import Skb

__all__ = ["counting"]


def counting(host: Host, tally: Counter[str]) -> Host:
    """The same machine, which adds to `tally` under its name for every rule that it compares with a packet."""
    four, six = (_counting_tables(host.netfilter.of(of), host.name, tally) for of in (4, 6))
    tables = tuple(_counting_table(table, _Tick(host.name, tally)) for table in host.nftables)
    return msgspec.structs.replace(host, netfilter=Netfilter(four, six), nftables=tables)


class _Counted(msgspec.Struct, frozen=True, gc=False):
    """The matches of a rule as one, with a counter before them. The walk's shortcuts know no such match."""

    matches: tuple[Match, ...]
    name: str
    tally: Counter[str]

    def test(self, skb: Skb, at: Surroundings) -> bool:
        self.tally[self.name] += 1
        return all(match.test(skb, at) for match in self.matches)

    def __str__(self) -> str:
        return " ".join(map(str, self.matches))


def _counting_tables(tables: Tables, name: str, tally: Counter[str]) -> Tables:
    def chain(table: Table, called: str) -> Chain:
        held = table.chains[called]
        rules = (
            Rule(rule.table, rule.chain, (_Counted(rule.matches, name, tally),), rule.target) for rule in held.rules
        )
        return Chain(held.name, tuple(rules), held.policy)

    return {
        key: Table(table.name, Chains({called: partial(chain, table, called) for called in table.chains}))
        for key, table in tables.items()
    }


class _Tick(msgspec.Struct, frozen=True):
    """The statement `counter`, with what it counted kept elsewhere."""

    name: str
    tally: Counter[str]

    def run(self, skb: Skb, at: nft.Surroundings, table: nft.Table) -> None:
        self.tally[self.name] += 1

    def __str__(self) -> str:
        return "counter"


def _counting_table(table: nft.Table, tick: _Tick) -> nft.Table:
    def chain(called: str) -> nft.Chain:
        held = table.chain(called)
        rules = (msgspec.structs.replace(rule, statements=(tick, *rule.statements)) for rule in held.rules)
        return msgspec.structs.replace(held, rules=tuple(rules))

    chains: Chains[nft.Chain] = Chains({called: partial(chain, called) for called in table.chains})
    return msgspec.structs.replace(table, chains=chains)
