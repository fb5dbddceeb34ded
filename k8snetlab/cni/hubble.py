"""What would somebody see who watches flows, and not packets?

Hubble reads what Cilium's programs report of the packets that they meet: who sent it and to whom, by name and identity,
at which *point* (`to-overlay`, `to-endpoint`, `to-stack`, `to-host`), and with which verdict. Here the same is read off
the steps of a trace, in the compact form of `hubble observe`, without the time.

    default/web-0:40000 (ID:12001) -> default/db-1:5432 (ID:12002) to-overlay FORWARDED (TCP Flags: SYN)

The arrow is `->` on the way there, `<-` on the way back, with the two sides as they were, and `<>` where the program
does not know: drops and verdicts of policies. Of an endpoint that no policy selects no verdict is reported. A proxy
that reads requests for a policy reports each of them (`http-request`).

Not modelled: what a proxy reports of answers, flows of sockets (`pre-xlate-fwd`), reports of the network card
(`to-network`), and that only some packets of a connection are reported. Guide section 5.7; Cilium 1.19.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec

from k8snetlab.linux.datapath import RESERVED, Datapath, Endpoint, Known, Missing, Permit, Reason, Request
from k8snetlab.linux.ebpf import Program
from k8snetlab.linux.host import Host
from k8snetlab.packet import ICMP, SCTP, TCP, UDP, IPv4, IPv6, Packet
from k8snetlab.trace import Action, Step, Trace

__all__ = ["Flow", "flows", "requests"]

FORTH, BACK, EITHER = "->", "<-", "<>"


class Flow(msgspec.Struct, frozen=True):
    """One line of `hubble observe`: the node that reports it; both sides with name, port and identity, the one who
    opened the connection first unless the arrow is `<>`; the point or reason; the verdict; and what the packet is.
    """

    node: str
    source: str
    source_identity: int
    arrow: str
    destination: str
    destination_identity: int
    point: str
    verdict: str
    summary: str

    @property
    def text(self) -> str:
        """As `hubble observe -o compact` prints it, after the time."""
        one = f"{self.source} {_identity(self.source_identity)}"
        other = f"{self.destination} {_identity(self.destination_identity)}"
        return f"{one} {self.arrow} {other} {self.point} {self.verdict} ({self.summary})"

    def __str__(self) -> str:
        return self.text


def _identity(number: int) -> str:
    return f"({RESERVED[number]})" if number in RESERVED else f"(ID:{number})"


def flows(trace: Trace, network: Mapping[str, Host]) -> tuple[Flow, ...]:
    """What Hubble would say of a trace through this network; nothing of machines that have no such programs."""
    return (*_told(trace.steps, network, FORTH), *_told(trace.reply, network, BACK))


def requests(trace: Trace, request: Request, network: Mapping[str, Host]) -> tuple[Flow, ...]:
    """What the proxies on a connection's way report of a request in it, up to the first that refuses it."""
    return tuple(_requests(trace.steps, request, network))


def _requests(steps: Iterable[Step], request: Request, network: Mapping[str, Host]) -> Iterator[Flow]:
    for step in steps:
        host, entry = network.get(step.where), step.rule
        if host is None or host.datapath is None or not isinstance(entry, Permit) or not entry.proxy:
            continue
        wanted = any(each.takes(request) for each in entry.requests)
        flow = _flow(step, host.datapath, FORTH, "http-request", "FORWARDED" if wanted else "DROPPED")
        said = f"HTTP/1.1 {request.method} http://{request.host}{request.path}"
        yield msgspec.structs.replace(flow, summary=said)
        if not wanted:
            return


def _told(steps: Iterable[Step], network: Mapping[str, Host], arrow: str) -> Iterator[Flow]:
    for step in steps:
        host = network.get(step.where)
        datapath = host.datapath if host is not None else None
        if datapath is not None:
            for way, point, verdict in _points(step, datapath, arrow):
                yield _flow(step, datapath, way, point, verdict)


def _points(step: Step, datapath: Datapath, arrow: str) -> Iterator[tuple[str, str, str]]:
    """What a program reports of a step: arrow, point and verdict."""
    rule = step.rule
    match step.action:
        case Action.ENCAPSULATE if step.device == datapath.tunnel:
            yield arrow, "to-overlay", "FORWARDED"
        case Action.ROUTE if isinstance(rule, Endpoint) and rule.device:
            yield arrow, "to-endpoint", "FORWARDED"
        case Action.ROUTE if _is_container(step, datapath) and (
            isinstance(rule, Endpoint) or (isinstance(rule, Known) and not (rule.tunnel and datapath.tunnel))
        ):
            yield arrow, "to-stack", "FORWARDED"
        case Action.RULE if isinstance(rule, Permit) and (rule.kind != "all" or rule.origin):
            verdict = "REDIRECTED" if rule.proxy else "ALLOWED"
            yield EITHER, f"policy-verdict:{rule.kind} {rule.direction.upper()}", verdict
            if rule.proxy:
                yield arrow, "to-proxy", "FORWARDED"
        case Action.DROP:
            yield from _drops(step, rule)


def _is_container(step: Step, datapath: Datapath) -> bool:
    return datapath.runs(Program.FROM_CONTAINER, step.device)


def _drops(step: Step, rule: object) -> Iterator[tuple[str, str, str]]:
    reason = next((each for each in Reason if step.why.endswith(f"({each})")), None)
    if reason is None:
        return
    if isinstance(rule, Missing | Permit):
        kind = rule.kind if isinstance(rule, Permit) else "none"
        yield EITHER, f"policy-verdict:{kind} {rule.direction.upper()}", "DENIED"
    yield EITHER, str(reason), "DROPPED"


def _flow(step: Step, datapath: Datapath, arrow: str, point: str, verdict: str) -> Flow:
    packet = step.packet.innermost
    ip, ports = packet.ip, _ports(packet)
    sides = [_side(datapath, ip.src, ports[0]), _side(datapath, ip.dst, ports[1])]
    if arrow == BACK:
        sides.reverse()
    (one, first), (other, second) = sides
    return Flow(step.where, one, first, arrow, other, second, point, verdict, _summary(packet))


def _side(datapath: Datapath, address: str, port: int) -> tuple[str, int]:
    known = datapath.lookup(address)
    named = known is not None and "/" in known.name
    name = known.name if known is not None and named else f"[{address}]" if port and ":" in address else address
    return f"{name}:{port}" if port else name, datapath.identity(address)


def _ports(packet: Packet) -> tuple[int, int]:
    header = packet.headers[1] if len(packet.headers) > 1 else None
    return (header.sport, header.dport) if isinstance(header, TCP | UDP | SCTP) else (0, 0)


_FLAGS = {"S": "SYN", "S.": "SYN, ACK", ".": "ACK", "P.": "ACK, PSH", "F.": "ACK, FIN", "R": "RST", "R.": "ACK, RST"}
_MESSAGES = {"echo-request": "EchoRequest", "echo-reply": "EchoReply", "time-exceeded": "TimeExceeded(TTLExceeded)"}


def _summary(packet: Packet) -> str:
    header = packet.headers[1] if len(packet.headers) > 1 else None
    match header:
        case TCP():
            return f"TCP Flags: {_FLAGS.get(header.flags, header.flags)}"
        case ICMP():
            version = {IPv4: "ICMPv4", IPv6: "ICMPv6"}[type(packet.ip)]
            return f"{version} {_MESSAGES.get(header.message, header.message)}"
        case _:
            return packet.ip.protocol
