"""A lookup in words: the ladder of its questions, and the story.

Each question is a line; those that a name server sends on stand below it, indented. What became of the name stands at
the end.

Guide section 2.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from k8snetlab.dns import Lost, Message, Rcode, Status

if TYPE_CHECKING:
    from k8snetlab.flows.resolution import Resolution, Rung

__all__ = ["story", "table"]

MOST = 3
"""So many records of an answer are shown."""


def table(of: Resolution) -> str:
    """The file, the questions with their answers, and the end."""
    parts = [f"{of.source} looks up {of.name} ({', '.join(of.types)}) with {of.library}", of.resolv_conf.text.rstrip()]
    parts += (f"left out of resolv.conf: {each}" for each in of.resolv_conf.left_out)
    rows: list[tuple[str, ...]] = [("#", "TO", "NAME", "TYPE", "ANSWER")]
    for number, rung in enumerate(of.rungs, 1):
        rows += _rows(rung, str(number), 0)
    if of.rungs:
        parts.append(_columns(rows))
    parts.append(ended(of))
    return "\n\n".join(part for part in parts if part)


def _rows(rung: Rung, number: str, depth: int) -> Iterator[tuple[str, ...]]:
    to = f"{rung.query.server} by TCP" if rung.query.transport == "TCP" else rung.query.server
    again = f" (attempt {rung.query.attempt})" if rung.query.attempt > 1 else ""
    yield f"{'  ' * depth}{number}", to, rung.query.name, rung.query.type, f"{outcome(rung)}{again}"
    for at, each in enumerate(rung.beyond, 1):
        yield from _rows(each, f"{number}.{at}", depth + 1)


def _columns(rows: Sequence[tuple[str, ...]]) -> str:
    wide = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, wide, strict=True)).rstrip() for row in rows
    )


def outcome(rung: Rung) -> str:
    """What came of a question, in few words."""
    reply = rung.reply
    if isinstance(reply, Lost):
        waited = f" after {rung.seconds:g} s" if rung.seconds else ""
        return f"{reply}{waited}: {rung.reason}"
    data = [each.data for each in reply.answers]
    shown = ", ".join(data[:MOST]) + (f" and {len(data) - MOST} more" if len(data) > MOST else "")
    cut = " (cut)" if reply.truncated else ""
    return f"{shown or reply.said}{cut}, says {rung.answered_by}"


def ended(of: Resolution) -> str:
    """What the program was told, and what that cost."""
    if of.from_hosts:
        return f"{_found(of)}: /etc/hosts knows it, nobody is asked" if not _literal(of) else _found(of)
    cost = f"{of.count} question{'s' if of.count != 1 else ''}, {of.seconds:g} s of waiting"
    match of.status:
        case Status.FOUND:
            return f"{_found(of)} ({cost})"
        case Status.NXDOMAIN:
            return f"NXDOMAIN: there is no such name ({cost})"
        case Status.NODATA:
            return f"NODATA: the name exists, but has no {' or '.join(of.types)} record ({cost})"
        case Status.TRY_AGAIN:
            return f"TRY_AGAIN: no answer that says anything ({cost})"
        case Status.FAILED:
            return f"FAILED: the name server refuses ({cost})"


def _literal(of: Resolution) -> bool:
    return of.name in of.addresses


def _found(of: Resolution) -> str:
    data = ", ".join(each.data for each in of.found.records)
    return f"FOUND {of.found.name}: {data}"


# The story


def story(of: Resolution) -> str:
    """The lookup in sentences, in the order in which things happen."""
    if of.from_hosts:
        return f"A program of {of.source} looks up {of.name}. Nobody is asked: {ended(of)}."
    return "\n\n".join((_beginning(of), *_middle(of), f"In the end: {ended(of)}."))


def _beginning(of: Resolution) -> str:
    conf = of.resolv_conf
    ndots = conf.number("ndots", 1, 15)
    dots = of.name.count(".")
    said = [f"A program of {of.source} looks up {of.name}. Its C library, {of.library}, reads /etc/resolv.conf."]
    if of.rungs and of.rungs[0].query.name.endswith("arpa."):
        said.append("Addresses are looked up under their reverse names, which are complete.")
    elif of.name.endswith("."):
        said.append("The name ends with a dot: it is complete, and nothing is put behind it.")
    elif dots >= ndots:
        after = "" if of.library == "musl" or not conf.search else ", and with the search list behind it after that"
        said.append(f"The name has {_counted(dots)}, and ndots is {ndots}: it is tried as it stands{after}.")
    elif conf.search:
        said.append(
            f"The name has {_counted(dots)}, fewer than ndots:{ndots}: the {len(conf.search)} domains of the search"
            " list are put behind it first, one after the other."
        )
    return " ".join(said)


def _counted(dots: int) -> str:
    return f"{dots or 'no'} dot{'s' if dots != 1 else ''}"


def _middle(of: Resolution) -> Iterator[str]:
    """A sentence for each complete name."""
    at = 0
    while at < len(of.rungs):
        same = [each for each in of.rungs[at:] if each.query.name == of.rungs[at].query.name]
        group = of.rungs[at : at + len(same)]
        yield _sentence(group)
        at += len(group)


def _sentence(rungs: Sequence[Rung]) -> str:
    first = rungs[0]
    kinds = " and ".join(dict.fromkeys(each.query.type for each in rungs))
    servers = ", ".join(dict.fromkeys(each.query.server for each in rungs))
    times = f", {len(rungs)} questions in all," if len(rungs) > len({each.query.type for each in rungs}) else ""
    told = "; ".join(dict.fromkeys(_told(each) for each in rungs))
    return f"It asks {servers} for {first.query.name} ({kinds}){times} and hears: {told}."


def _told(rung: Rung) -> str:
    reply = rung.reply
    if isinstance(reply, Lost):
        return f"nothing ({rung.reason})" if reply is Lost.TIMEOUT else f"{reply} ({rung.reason})"
    meaning = {Rcode.NXDOMAIN: "there is no such name", Rcode.SERVFAIL: "the server failed"}
    said = meaning.get(reply.rcode, f"{reply.rcode}") if reply.rcode is not Rcode.NOERROR else _data(rung, reply)
    asked = "".join(f", which asked {each.query.server}" for each in rung.beyond[:1])
    return f"{said}, from {rung.answered_by}{asked}"


def _data(rung: Rung, reply: Message) -> str:
    if reply.nodata:
        return f"no {rung.query.type} record"
    if reply.truncated:
        return "an answer that was cut"
    return ", ".join(f"{each.type} {each.data}" for each in reply.answers)
