"""Who speaks to whom, in which order?

A Mermaid sequence diagram: the machines are its participants, in the order the packet meets them; every frame on a
cable is an arrow, dashed on the way back; what changes the packet, and what ends it, is a note. JupyterLab, GitHub and
many wikis draw Mermaid from its text.

Not modelled: devices and rules that only pass the packet on; the table has them. Guide section 2.1;
https://mermaid.js.org/syntax/sequenceDiagram.html
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from k8snetlab.trace.prose import changes
from k8snetlab.trace.step import FATES, Action, Step
from k8snetlab.trace.table import brief

__all__ = ["mermaid"]

THERE, BACK, LOST = "->>", "-->>", "-x"


def mermaid(steps: Sequence[Step], reply: Sequence[Step]) -> str:
    """The diagram of a packet's way there and back, as Mermaid's text."""
    names = {where: f"m{number}" for number, where in enumerate(dict.fromkeys(step.where for step in (*steps, *reply)))}
    lines = ["sequenceDiagram", *(f"    participant {short} as {_safe(where)}" for where, short in names.items())]
    for part, arrow in ((steps, THERE), (reply, BACK)):
        lines += (f"    {line}" for at in range(len(part)) for line in _lines(part, at, names, arrow))
    return "\n".join(lines) + "\n"


def _lines(steps: Sequence[Step], at: int, names: dict[str, str], arrow: str) -> Iterator[str]:
    step = steps[at]
    here = names[step.where]
    rule = f" by {step.rule.chain}" if step.rule is not None else ""
    match step.action:
        case Action.TRANSMIT:
            there = _taker(steps, at)
            packet = " inside ".join(reversed(brief(step.packet)))
            yield f"{here}{arrow if there else LOST}{names.get(there, here)}: {_safe(packet)}"
        case Action.DNAT | Action.SNAT | Action.CONNTRACK:
            for change in (
                changes(steps[at - 1].packet, step.packet) if at else [step.why]
            ):  # at a socket: no packet yet
                yield f"Note over {here}: {_safe(f'{step.action} {change}{rule}')}"
        case Action.ENCAPSULATE:
            more = step.packet.length - step.packet.innermost.length
            yield f"Note over {here}: {_safe(f'{step.action} by {step.device}, {more} bytes more')}"
        case Action.DECAPSULATE:
            yield f"Note over {here}: {_safe(f'{step.action} by {step.device}')}"
        case Action.FRAGMENT | Action.REASSEMBLE | Action.ICMP:
            yield f"Note over {here}: {_safe(f'{step.action} {step.why}')}"
        case action if action in FATES:
            yield f"Note over {here}: {_safe(f'{step.action}{rule}: {step.why}')}"
        case _:
            return


def _taker(steps: Sequence[Step], at: int) -> str:
    """Who got the frame that step `at` put on a cable: the next step with the very same frame is his."""
    sent = steps[at]
    later = (step for step in steps[at + 1 :] if step.packet == sent.packet)
    return next((step.where for step in later if (step.where, step.device) != (sent.where, sent.device)), "")


SYNTAX = str.maketrans({"#": "#35;", ";": "#59;", "<": "#lt;", ">": "→"})
"""What Mermaid would read as its own, as what it prints so."""


def _safe(text: str) -> str:
    return text.translate(SYNTAX)
