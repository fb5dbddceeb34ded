"""How far am I through the course, asked from a shell.

The notebooks remember what was solved in one small file (`course.progress`); here it is printed, or forgotten.

Not modelled: marks, times, several learners of one account.
"""

from __future__ import annotations

import msgspec

from k8snetlab.cli import output
from k8snetlab.cli.output import Format
from k8snetlab.course import lessons, progress
from k8snetlab.course.standing import standings
from k8snetlab.tables import aligned

__all__ = ["progressed"]

HEADINGS = ("SECTION", "TITLE", "EXERCISES", "QUESTIONS", "PREDICTIONS")


def progressed(as_: Format, *, reset: bool) -> None:
    """Print what is remembered, after forgetting it all if that is wanted."""
    if reset:
        progress.reset()
    found = standings(progress.load(), lessons())
    if as_ is Format.JSON:
        rows = [msgspec.to_builtins(each) for each in found]
        output.document("Progress", {"file": str(progress.path()), "lessons": rows})
        return
    rows = [
        (each.section, each.title, _share(each.exercises, each.of_exercises),
         _share(each.questions, each.of_questions), str(each.predictions))
        for each in found
    ]  # fmt: skip
    output.say(aligned([HEADINGS, *rows]))
    output.say(f"\nkept in {progress.path()}")


def _share(done: int, of: int) -> str:
    return f"{done} of {of}"
