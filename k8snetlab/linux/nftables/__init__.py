"""Which rule decides, if the rules are nftables' own?

nftables has no tables but those a program makes. A table belongs to a family (`ip`, `ip6`, `inet` for both) and holds
chains, sets and maps. A *base chain* states where it stands: its type (`filter`, `nat`, `route`), its hook, and its
priority among everything else at that hook, iptables and conntrack included: −300 raw, −200 conntrack, −150 mangle,
−100 destination NAT, 0 filter, 100 source NAT. A rule is a list of statements, run from left to right: a match that
fails ends the rule, the others do their work at once, and a verdict ends the chain.

What sets it apart from iptables:

- `accept` ends its own base chain only, and the packet goes on to the next one, which may still drop it. `drop` is
  final.
- `jump` comes back to the calling chain, `goto` does not.
- A set answers "is it one of these?" in one lookup, a verdict map "and what shall become of it?", however many there
  are: ten thousand Services are one rule. Keys may be several fields at once (`ip daddr . meta l4proto . th dport`).
- A dynamic set is filled by the packets themselves, and forgets after its time-out.

NAT is conntrack's, once a connection: chains of type nat are asked for first packets only, one after the other by their
priorities, until one has decided; then the connection is bound, if to nothing. They do not track connections by
themselves: some rule of the machine must translate, or look at a connection. All of them run where conntrack translates
(−100, and 100 for sources), whatever priority they state. Of two base chains with the same priority the newer runs
first; here that is the later table, and nftables before iptables. A mark set in OUTPUT chooses another route if the
chain is of type route (or iptables' mangle), not if it is of type filter.

Values print as `nft list ruleset` (1.0.6) does, elements in its order.

Not modelled: families arp, bridge and netdev, flow tables, stateful objects, limits, quotas, logging and queues;
`numgen inc` and hashes; addresses of several (`dnat to a-b`), port ranges of NAT; time-outs of single elements that a
rule did not add. Guide sections 2.2 and 4.1; `nft(8)`.
"""

from k8snetlab.linux.nftables.chains import FAMILIES, Base, Chain, Entrance, Held, Ran, Rule, Table, traverse
from k8snetlab.linux.nftables.fields import Atom, Field, Key, Span, Surroundings
from k8snetlab.linux.nftables.sets import (
    ACCEPT,
    CONTINUE,
    DROP,
    RETURN,
    Among,
    Element,
    End,
    Named,
    Set,
    Statement,
    Verdict,
    VerdictKind,
    goto,
    jump,
)
from k8snetlab.linux.nftables.statements import (
    Bits,
    Choice,
    Counter,
    Dnat,
    Flags,
    Found,
    Masked,
    Masquerade,
    Match,
    NoTrack,
    Numgen,
    Redirect,
    Reject,
    Right,
    SetMark,
    Snat,
    Update,
    VerdictMap,
    duration,
)

__all__ = [
    "ACCEPT", "CONTINUE", "DROP", "FAMILIES", "RETURN", "Among", "Atom", "Base", "Bits", "Chain", "Choice", "Counter",
    "Dnat", "Element", "End", "Entrance", "Field", "Flags", "Found", "Held", "Key", "Masked", "Masquerade", "Match",
    "Named", "NoTrack", "Numgen", "Ran", "Redirect", "Reject", "Right", "Rule", "Set", "SetMark", "Snat", "Span",
    "Statement", "Surroundings", "Table", "Update", "Verdict", "VerdictKind", "VerdictMap", "duration", "goto", "jump",
    "traverse",
]  # fmt: skip
