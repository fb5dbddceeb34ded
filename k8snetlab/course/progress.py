"""How far through the course am I?

One small JSON file remembers, for each lesson, which exercises were solved, which quiz questions were
answered right and which predictions were made. It lies in `$K8SNETLAB_HOME`, else in
`$XDG_STATE_HOME/k8snetlab`, else in `~/.local/state/k8snetlab`; deleting it resets the course. It only ever
changes what a progress bar shows, never a checked output: a notebook runs the same with and without it, and
where the file cannot be written nothing is kept.

Not modelled: several learners of one account, times, marks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

__all__ = ["Progress", "load", "path", "record", "reset"]


class Progress(msgspec.Struct, frozen=True):
    """What was done, by lesson: names such as `exercise ttl`, `question nat`, `prediction 2`."""

    done: Mapping[str, tuple[str, ...]] = {}

    def of(self, lesson: str, kind: str) -> tuple[str, ...]:
        """The names of one kind (`exercise`, `question`, `prediction`) that are done in a lesson."""
        mark = f"{kind} "
        return tuple(item.removeprefix(mark) for item in self.done.get(lesson, ()) if item.startswith(mark))

    def with_(self, lesson: str, item: str) -> Progress:
        """The progress with one thing more done."""
        items = {*self.done.get(lesson, ()), item}
        return Progress({**self.done, lesson: tuple(sorted(items))})


def path() -> Path:
    """The file that remembers."""
    home = os.environ.get("K8SNETLAB_HOME")
    if home:
        return Path(home) / "progress.json"
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "k8snetlab" / "progress.json"


def load() -> Progress:
    """What the file says; nothing done where there is no file, or none that can be read."""
    try:
        return msgspec.json.decode(path().read_bytes(), type=Progress)
    except (OSError, RuntimeError, msgspec.DecodeError):
        return Progress()


def record(lesson: str, item: str) -> None:
    """Remember that something is done. Silent where nothing can be written: the course works without."""
    before = load()
    if item in before.done.get(lesson, ()):
        return
    _write(before.with_(lesson, item))


def reset() -> None:
    """Forget everything."""
    _write(Progress())


def _write(progress: Progress) -> None:
    try:
        target = path()
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_suffix(f".{os.getpid()}")
        fresh.write_bytes(msgspec.json.format(msgspec.json.encode(progress), indent=1) + b"\n")
        fresh.replace(target)
    except (OSError, RuntimeError):
        return
