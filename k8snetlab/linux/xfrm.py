"""Must this packet be hidden from everybody on the way, and by which key?

IPsec in Linux (*xfrm*, "transform") has two lists. *Policies* say which packets: by direction, source, destination and
mark, the smallest priority first; what a policy selects must be wrapped as its template says, or is dropped (action
`block`), and what no policy selects leaves as it is. *States* (security associations) say how: one for each direction
between two machines, with its own key, found by both ends of the outer header, the request id and the mark on the way
out, and by destination, number (SPI) and mark on the way in. A packet that must be wrapped and has no state is dropped,
and so is one that comes wrapped and has none: no error is sent, only a counter counts (`/proc/net/xfrm_stat`).

In tunnel mode the whole packet goes into another one, protocol ESP: 20 bytes of IPv4 (40 of IPv6) and 34 and padding.
Wrapping comes after POSTROUTING, and the outer packet passes OUTPUT and POSTROUTING of its own; what was unwrapped
begins anew at the device by which the outer packet came. A state may give what it has wrapped, or unwrapped, a mark.

AES-GCM with 128 bits is what states here have (RFC 4106): a key of 16 bytes and a salt of 4. The keys are hashed from
names, for looking at and never for use.

Not modelled: transport mode (see `mesh`), other algorithms, replay windows, lifetimes, policies of direction in and
fwd (all here are optional: they forbid nothing), offload to a card. Guide section 3.1; RFC 4301, RFC 4303, RFC 4106;
`ip-xfrm(8)`.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property

import msgspec

from k8snetlab.address import Prefix

__all__ = ["Xfrm", "XfrmDirection", "XfrmPolicy", "XfrmState", "ip_xfrm"]


class XfrmDirection(StrEnum):
    """Which way the packets of a policy go; the words are those of `ip xfrm policy`."""

    OUT = "out"
    IN = "in"
    FORWARD = "fwd"


class XfrmState(msgspec.Struct, frozen=True):
    """A security association: both ends of the outer header, its number, the request that policies name it by, the
    mark that a packet must have, the mark that it gets, and the key with its salt, in hexadecimal.
    """

    src: str
    dst: str
    spi: int
    reqid: int
    mark: int
    mask: int
    output_mark: int
    output_mask: int
    key: str

    @property
    def table(self) -> str:
        return "xfrm"

    @property
    def chain(self) -> str:
        """Which of the two lists it stands in."""
        return "state"

    @property
    def text(self) -> str:
        """The state on one line."""
        return f"src {self.src} dst {self.dst} proto esp spi {self.spi:#010x} reqid {self.reqid} {self._marks}"

    @property
    def _marks(self) -> str:
        return f"mark {self.mark:#x}/{self.mask:#x} output-mark {self.output_mark:#x}/{self.output_mask:#x}"

    @property
    def lines(self) -> str:
        """The state as `ip xfrm state` prints it."""
        return (
            f"src {self.src} dst {self.dst}\n"
            f"\tproto esp spi {self.spi:#010x} reqid {self.reqid} mode tunnel\n"
            f"\treplay-window 0 \n"
            f"\t{self._marks}\n"
            f"\taead rfc4106(gcm(aes)) 0x{self.key} 128\n"
        )

    def marked(self, mark: int) -> int:
        """The mark of a packet after its transformation."""
        return mark & ~self.output_mask | self.output_mark


class XfrmPolicy(msgspec.Struct, frozen=True):
    """Which packets must be wrapped, and how: the ends of the outer header, the state's number (0: any) and request.
    Without ends the packets are dropped. `optional` packets may also come as they are.
    """

    direction: XfrmDirection
    src: str
    dst: str
    priority: int = 0
    mark: int = 0
    mask: int = 0
    outer_src: str = ""
    outer_dst: str = ""
    spi: int = 0
    reqid: int = 0
    optional: bool = False

    @property
    def table(self) -> str:
        return "xfrm"

    @property
    def chain(self) -> str:
        """Which of the two lists it stands in."""
        return "policy"

    @property
    def text(self) -> str:
        """The policy on one line."""
        return " ".join(self.lines.split())

    @property
    def lines(self) -> str:
        """The policy as `ip xfrm policy` prints it."""
        action = "" if self.outer_dst else "action block "
        said = f"src {self.src} dst {self.dst} \n\tdir {self.direction} {action}priority {self.priority} \n"
        if self.mask:
            said += f"\tmark {self.mark:#x}/{self.mask:#x} \n"
        if self.outer_dst:
            spi = f"spi {self.spi:#010x} " if self.spi else ""
            level = "\t\tlevel use \n" if self.optional else ""
            said += f"\ttmpl src {self.outer_src} dst {self.outer_dst}\n"
            said += f"\t\tproto esp {spi}reqid {self.reqid} mode tunnel\n{level}"
        return said

    def selects(self, src: str, dst: str, mark: int) -> bool:
        """Whether it speaks of packets with these addresses and that mark."""
        return mark & self.mask == self.mark and Prefix.of(self.src).contains(src) and Prefix.of(self.dst).contains(dst)


class Xfrm(msgspec.Struct, frozen=True, dict=True):
    """The two lists of a machine."""

    states: tuple[XfrmState, ...] = ()
    policies: tuple[XfrmPolicy, ...] = ()

    @property
    def entries(self) -> tuple[XfrmState | XfrmPolicy, ...]:
        """Everything in the two lists."""
        return (*self.states, *self.policies)

    @cached_property
    def _out(self) -> tuple[XfrmPolicy, ...]:
        own = (policy for policy in self.policies if policy.direction is XfrmDirection.OUT)
        return tuple(sorted(own, key=lambda policy: policy.priority))

    def policy(self, src: str, dst: str, mark: int) -> XfrmPolicy | None:
        """The policy for a packet that leaves, if there is one."""
        return next((policy for policy in self._out if policy.selects(src, dst, mark)), None)

    def outwards(self, policy: XfrmPolicy, mark: int) -> XfrmState | None:
        """The state that wraps what a policy selects."""
        serving = (state for state in self.states if _serves(state, policy))
        return next((state for state in serving if mark & state.mask == state.mark), None)

    def inwards(self, dst: str, spi: int, mark: int) -> XfrmState | None:
        """The state that unwraps a packet that came wrapped."""
        of_that = (state for state in self.states if state.dst == dst and state.spi == spi)
        return next((state for state in of_that if mark & state.mask == state.mark), None)

    def without(self, gone: XfrmState | XfrmPolicy) -> Xfrm:
        """The same with one state or policy less."""
        if isinstance(gone, XfrmState):
            return Xfrm(tuple(each for each in self.states if each != gone), self.policies)
        return Xfrm(self.states, tuple(each for each in self.policies if each != gone))


def _serves(state: XfrmState, policy: XfrmPolicy) -> bool:
    ends = state.src == policy.outer_src and state.dst == policy.outer_dst
    return ends and state.reqid == policy.reqid and policy.spi in (0, state.spi)


def ip_xfrm(xfrm: Xfrm | None) -> str:
    """`ip xfrm state; ip xfrm policy`, each under a comment with its name."""
    if xfrm is None:
        return ""
    states = "".join(state.lines for state in xfrm.states)
    return f"# ip xfrm state\n{states}\n# ip xfrm policy\n{''.join(policy.lines for policy in xfrm.policies)}"
