"""A resolver without a network: its questions are answered by a function, and written down."""

from __future__ import annotations

from collections.abc import Callable

from k8snetlab.dns import Found, Query, Reply, Resolving

Log = list[tuple[Query, Reply]]


def played(asking: Resolving, answer: Callable[[Query], Reply]) -> tuple[Found, Log]:
    """What the program is told in the end, and every question with what came of it."""
    log: Log = []
    try:
        queries = next(asking)
        while True:
            replies = tuple(answer(query) for query in queries)
            log += zip(queries, replies, strict=True)
            queries = asking.send(replies)
    except StopIteration as stop:
        found: Found = stop.value
        return found, log


def names(log: Log) -> list[str]:
    """The names that were asked for, each once in a row."""
    found: list[str] = []
    for query, _ in log:
        if not found or found[-1] != query.name:
            found.append(query.name)
    return found
