"""What happened to the packet, where, why, and by which rule?

A walk says what it does as it goes: each `Step` names the machine and the device, what was done, the packet *after* it,
the reason in words, and the rule that decided, if one did. A `Trace` is the finished list, with a verdict. Nothing here
moves a packet; these are the values that `linux` makes, and what everything else is made from:

| a trace as      | is in          |                                                          |
|-----------------|----------------|----------------------------------------------------------|
| values          | `step`         | `Step`, `Action`, `Verdict`, `Outcome`, …                |
| a table         | `table`        | `str(trace)`, `trace.full()`, HTML in a notebook         |
| sentences       | `prose`        | `trace.explain()`                                        |
| a diagram       | `diagram`      | `trace.mermaid()`                                        |
| all of it       | `trace`        | `Trace`, with JSON (`as_dict`) and captures (`pcap`)     |

Two questions are kept apart. The `verdict` is the packet's fate; `client` is what `connect()` would tell the program:

| what happened                                   | verdict     | client      |
|-------------------------------------------------|-------------|-------------|
| a listener got it, and its answer came back      | DELIVERED   | OPEN        |
| RST, or ICMP port unreachable                    | REJECTED    | REFUSED     |
| ICMP admin prohibited, no route, no neighbour    | REJECTED or UNREACHABLE | UNREACHABLE |
| a rule, a policy, rp_filter or an MTU lost it    | DROPPED     | TIMEOUT     |
| nobody answers, or the reply is lost             | TIMEOUT     | TIMEOUT     |

Not modelled: time on the wire, retransmissions, congestion. Guide sections 2.1 and 2.2.
"""

from k8snetlab.trace.step import FATES, Action, Backend, Client, Outcome, Request, RuleText, Step, Verdict
from k8snetlab.trace.trace import CapturePoint, Trace

__all__ = [
    "FATES",
    "Action",
    "Backend",
    "CapturePoint",
    "Client",
    "Outcome",
    "Request",
    "RuleText",
    "Step",
    "Trace",
    "Verdict",
]
