"""What can be said when an input cannot be used.

Two things go wrong in a network lab, and they are kept apart. *Losing a packet is an answer*: it stands in a trace,
with its reason. *Building the lab wrongly is an error*: it is raised at once and names the file, the line, the object
and the field. Every error here is a `LabError` and also the builtin that fits, so that `except KeyError` and `except
LabError` both work, and carries its facts as attributes.

Not modelled: warnings. What is worth saying is either an error or part of an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import msgspec

__all__ = [
    "AddressInUse",
    "BadOption",
    "CannotDo",
    "LabError",
    "ManifestError",
    "Overlap",
    "PoolExhausted",
    "Problem",
    "UnknownName",
]


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong with an input: where it stands and what it is.

    `line` counts from 1 and is 0 where the place has no line (an object given from Python). `object` reads like
    `Service shop/api`, `field` like `spec.ports[0].port`.
    """

    message: str
    file: str = ""
    line: int = 0
    object: str = ""
    field: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.file and self.line else self.file
        return ": ".join(part for part in (place, self.object, self.field, self.message) if part)

    def as_dict(self) -> dict[str, Any]:
        """All five facts, for the JSON of the command line."""
        return {
            "file": self.file or None,
            "line": self.line or None,
            "object": self.object or None,
            "field": self.field or None,
            "message": self.message,
        }


class LabError(Exception):
    """The lab cannot be built or asked this way. `problems` says why, one `Problem` for each reason."""

    problems: tuple[Problem, ...]

    def __init__(self, problems: str | Problem | Iterable[Problem]) -> None:
        if isinstance(problems, str):
            problems = Problem(problems)
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def placed(self, place: Callable[[Problem], Problem]) -> Self:
        """This error with every problem put in its place: `raise error.placed(manifests.placed)`."""
        self.problems = tuple(place(problem) for problem in self.problems)
        self.args = ("\n".join(str(problem) for problem in self.problems),)
        return self

    def __str__(self) -> str:  # KeyError would print the repr of its argument
        return str(self.args[0]) if self.args else ""


class ManifestError(LabError, ValueError):
    """A manifest cannot be read: broken YAML, an unknown field, a wrong type, a duplicate object, an empty file."""


class BadOption(LabError, ValueError):
    """An option has a value that does not exist or does not fit the others."""


class UnknownName(LabError, KeyError):
    """A pod, Service, node or other thing of that name is not here. `name` and `known` are its facts."""

    def __init__(self, what: str, name: str, known: Iterable[str] = (), *, field: str = "", object: str = "") -> None:
        self.name = name
        self.known: tuple[str, ...] = tuple(sorted(known))
        super().__init__(Problem(f"there is no {what} {name!r}{_hint(name, self.known)}", object=object, field=field))


class AddressInUse(LabError, ValueError):
    """Two things ask for the same address. `address` and `owners` are its facts; the last owner came too late. `said`
    stands before them in the message."""

    def __init__(self, address: str, owners: Sequence[str], *, field: str = "", said: str = "") -> None:
        self.address = address
        self.owners = tuple(owners)
        facts = f"{address} is asked for by {' and by '.join(owners)}"
        message = f"{said}: {facts}" if said else facts
        super().__init__(Problem(message, object=owners[-1], field=field))


class PoolExhausted(LabError, ValueError):
    """No address or port is left in a pool. `pool` and `size` are its facts."""

    def __init__(self, pool: str, size: int, wanted_by: str) -> None:
        self.pool = pool
        self.size = size
        super().__init__(Problem(f"no address is left in {pool}: all {size} are in use", object=wanted_by))


class Overlap(LabError, ValueError):
    """Two networks that must be disjoint share addresses. `first` and `second` are its facts."""

    def __init__(self, first: str, second: str, message: str) -> None:
        self.first = first
        self.second = second
        super().__init__(message)


class CannotDo(LabError, RuntimeError):
    """The machine, or this version of the lab, cannot do what was asked; the message says what would be needed."""


def _hint(name: str, known: Sequence[str]) -> str:
    from difflib import get_close_matches  # only when something went wrong

    close = get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"; did you mean {', '.join(close)}?"
    if not known:
        return ""
    shown = ", ".join(known[:8])
    return f"; there are {shown}{' …' if len(known) > 8 else ''}"
