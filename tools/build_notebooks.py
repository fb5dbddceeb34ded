"""Builds the two editions of every notebook from one source.

A source is `notebooks/src/NAME.py` in jupytext's percent format. From it come, both executed:

- the learner's edition `notebooks/NAME.ipynb`,
- the solutions edition `notebooks/solutions/NAME.ipynb`.

**Exercises.** A code cell tagged `exercise` holds one or more blocks. A block starts with a line `# solution:` and
ends with a line `# end`; the lines right after its start that begin with `# learner:` say what the learner finds in
its place:

    # %% tags=["exercise"]
    # solution:
    # learner: backend = ...
    backend = shop.trace("shop/web-0", "svc/shop/api:80").outcomes[0].backend
    # end
    exercise.check(backend)

The solutions edition keeps the block without its marker and learner lines. The learner's edition has the learner
lines, uncommented, and nothing else of the block. Markers are indented as the block is; learner lines take the
indentation of the block's start. Lines outside blocks stand in both editions.

**Cells of one edition.** A cell tagged `solution` stands only in the solutions edition, a cell tagged `learner` only
in the learner's.

**Same input, same bytes.** Cell ids are digests of the cell's source, of all metadata only tags stay, the kernel's
version and the ids of widgets are dropped. A notebook that raises, writes to stderr, shows a path of this machine,
has an empty code cell or needs more than a minute for a cell is refused.

What was built is remembered by digest (of source, package, data and pinned versions) in `artefacts/notebooks.json`,
so that the next build runs only what changed. `--check` builds everything in memory and compares it with the files.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
SOURCES = ROOT / "notebooks" / "src"
REMEMBERED = ROOT / "artefacts" / "notebooks.json"
INPUTS = ("k8snetlab", "data", "tools", "constraints.txt")

START, LEARNER_LINE, END = "# solution:", "# learner:", "# end"
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
CELL_SECONDS = 60
PROCESSES = 2

NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
    "language_info": {
        "codemirror_mode": {"name": "ipython", "version": 3},
        "file_extension": ".py",
        "mimetype": "text/x-python",
        "name": "python",
        "nbconvert_exporter": "python",
        "pygments_lexer": "ipython3",
    },
}


class Edition(StrEnum):
    """Who the notebook is for."""

    LEARNER = "learner"
    SOLUTIONS = "solutions"


class SourceError(ValueError):
    """A source that breaks the convention of this module, or a notebook that may not be published."""


class Target(NamedTuple):
    """One notebook to build."""

    source: Path
    edition: Edition

    @property
    def path(self) -> Path:
        """Where the built notebook lives; its kernel runs in that folder."""
        folder = self.source.parent.parent
        return (folder if self.edition is Edition.LEARNER else folder / "solutions") / f"{self.source.stem}.ipynb"

    @property
    def name(self) -> str:
        """The notebook's path as people say it."""
        return str(self.path.relative_to(ROOT))


def exercise_text(text: str, edition: Edition) -> str:
    r"""The text of an exercise cell as `edition` has it.

    >>> cell = "# solution:\n# learner: port = ...\nport = 80\n# end\nprint(port)"
    >>> exercise_text(cell, Edition.LEARNER)
    'port = ...\nprint(port)'
    >>> exercise_text(cell, Edition.SOLUTIONS)
    'port = 80\nprint(port)'
    """
    kept: list[str] = []
    lines = iter(text.splitlines())
    blocks = 0
    for line in lines:
        if line.strip() == START:
            blocks += 1
            kept += _block(lines, line[: len(line) - len(line.lstrip())], edition)
        elif line.strip() == END or line.lstrip().startswith(LEARNER_LINE):
            raise SourceError(f"{line.strip()!r} stands outside of a {START!r} block")
        else:
            kept.append(line)
    if not blocks:
        raise SourceError(f"an exercise has no {START!r} block")
    return "\n".join(kept)


def _block(lines: Iterator[str], indent: str, edition: Edition) -> list[str]:
    learner: list[str] = []
    solution: list[str] = []
    for line in lines:
        stripped = line.strip()
        if stripped == END:
            if not learner:
                raise SourceError(f"a block has no {LEARNER_LINE!r} line")
            return learner if edition is Edition.LEARNER else solution
        if stripped == START:
            raise SourceError(f"a block starts inside a block: {END!r} is missing")
        if stripped.startswith(LEARNER_LINE):
            if solution:
                raise SourceError(f"{LEARNER_LINE!r} lines stand first in their block")
            told = stripped.removeprefix(LEARNER_LINE).removeprefix(" ")
            learner.append(f"{indent}{told}".rstrip())
        else:
            solution.append(line)
    raise SourceError(f"{END!r} is missing")


def edition_of(source: str, edition: Edition) -> Any:
    """The notebook of `edition`, not yet executed, from the text of a source.

    Raises SourceError where the text breaks the convention.
    """
    import jupytext

    notebook = jupytext.reads(source, fmt="py:percent")
    notebook.metadata = NOTEBOOK_METADATA
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    other = {Edition.LEARNER: "solution", Edition.SOLUTIONS: "learner"}[edition]
    seen: Counter[str] = Counter()
    cells = []
    for cell in notebook.cells:
        tags = sorted(cell.metadata.get("tags", []))
        digest = hashlib.sha256(f"{cell.cell_type}\n{cell.source}".encode()).hexdigest()[:12]
        seen[digest] += 1
        cell.id = digest if seen[digest] == 1 else f"{digest}-{seen[digest]}"
        cell.metadata = {"tags": tags} if tags else {}
        if cell.cell_type == "raw":
            raise SourceError("raw cells have no place in a notebook")
        if cell.cell_type == "code":
            _write_code(cell, tags, edition)
        if other not in tags:
            cells.append(cell)
    notebook.cells = cells
    return notebook


def _write_code(cell: Any, tags: list[str], edition: Edition) -> None:
    if not cell.source.strip():
        raise SourceError("a code cell is empty")
    if "exercise" in tags:
        cell.source = exercise_text(cell.source, edition)
    elif any(line.strip() in (START, END) for line in cell.source.splitlines()):
        raise SourceError(f"a {START!r} block stands in a cell that is not tagged 'exercise'")


def execute(notebook: Any, folder: Path) -> None:
    """Runs every cell of `notebook` in a fresh kernel working in `folder`, and keeps what a reader sees."""
    from nbclient import NotebookClient

    with tempfile.TemporaryDirectory() as own:
        client = NotebookClient(
            notebook,
            timeout=CELL_SECONDS,
            kernel_name="python3",
            store_widget_state=False,
            record_timing=False,
            coalesce_streams=True,  # one `print` may arrive in several pieces, cut anywhere
            extra_arguments=["--log-level=ERROR"],
            resources={"metadata": {"path": str(folder)}},
        )
        # What a learner did before must not show in a published notebook.
        client.execute(env=os.environ | {"K8SNETLAB_HOME": own})
    for cell in notebook.cells:
        if cell.cell_type == "code":
            _tidy(cell)


def _tidy(cell: Any) -> None:
    if cell.execution_count is None:
        raise SourceError(f"this cell was not executed:\n{cell.source}")
    for output in cell.outputs:
        if output.get("name") == "stderr":
            raise SourceError(f"this cell writes to stderr:\n{cell.source}\n\n{output.text}")
        if output.output_type == "error":
            raise SourceError(f"a traceback differs between machines; catch the error and print it:\n{cell.source}")
        if str(ROOT) in json.dumps(output):
            raise SourceError(f"this cell shows a path of this machine:\n{cell.source}")
        if WIDGET_VIEW in output.get("data", {}):
            del output.data[WIDGET_VIEW]


def build(target: Target) -> str:
    """The text of the notebook file for `target`, executed."""
    import nbformat

    try:
        notebook = edition_of(target.source.read_text(encoding="utf-8"), target.edition)
        target.path.parent.mkdir(parents=True, exist_ok=True)
        execute(notebook, target.path.parent)
    except Exception as error:
        words = COLOUR.sub("", str(error))
        raise SourceError(f"{target.source.name}, {target.edition} edition: {words}") from None
    text: str = nbformat.writes(notebook)  # type: ignore[no-untyped-call]
    return text.rstrip("\n") + "\n"


def build_all(targets: Iterable[Target]) -> Iterator[tuple[Target, str]]:
    """Every target with its text, in order, two at a time."""
    targets = list(targets)
    with ProcessPoolExecutor(PROCESSES) as pool:
        yield from zip(targets, pool.map(build, targets), strict=True)


def targets_of(names: Iterable[str]) -> list[Target]:
    """Both editions of the named sources; of all where no name is given. A name may be a prefix such as `2_1`."""
    sources = sorted(SOURCES.glob("*.py"))
    wanted = [Path(name).stem for name in names]
    for name in wanted:
        if not any(source.stem.startswith(name) for source in sources):
            raise SourceError(f"no source in {SOURCES.relative_to(ROOT)} starts with {name!r}")
    return [
        Target(source, edition)
        for source in sources
        if not wanted or source.stem.startswith(tuple(wanted))
        for edition in Edition
    ]


def digest_of_inputs() -> str:
    """A digest of everything but the sources that a notebook's outputs may depend on."""
    digest = hashlib.sha256()
    for name in INPUTS:
        top = ROOT / name
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_dir() or path.suffix == ".pyc":
                continue
            digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return digest.hexdigest()


class Remembered:
    """Which notebooks were built here from what is there now."""

    def __init__(self) -> None:
        """Reads what earlier builds noted, and digests the inputs as they are."""
        self._inputs = digest_of_inputs().encode()
        self._digests: dict[str, str] = json.loads(REMEMBERED.read_text()) if REMEMBERED.exists() else {}

    def _digest(self, target: Target) -> str:
        return hashlib.sha256(self._inputs + target.source.read_bytes() + target.path.read_bytes()).hexdigest()

    def has(self, target: Target) -> bool:
        """Whether source, inputs and notebook of `target` are as they were after its last build."""
        return target.path.exists() and self._digests.get(target.name) == self._digest(target)

    def add(self, target: Target) -> None:
        """Notes that `target` was built just now."""
        self._digests[target.name] = self._digest(target)
        REMEMBERED.parent.mkdir(exist_ok=True)
        REMEMBERED.write_text(json.dumps(self._digests, indent=1, sort_keys=True) + "\n")


def strays() -> list[Path]:
    """Notebooks that no source builds."""
    built = {target.path for target in targets_of([])}
    there = [*SOURCES.parent.glob("*.ipynb"), *SOURCES.parent.glob("solutions/*.ipynb")]
    return sorted(path for path in there if path not in built)


def check(targets: list[Target]) -> int:
    """Builds `targets` anew and prints how they differ from the files. Gives the number of differing files."""
    differing = 0
    for target, text in build_all(targets):
        there = target.path.read_text(encoding="utf-8") if target.path.exists() else ""
        if there == text:
            continue
        differing += 1
        names = (f"{target.name} (the file)", f"{target.name} (built)")
        difference = list(difflib.unified_diff(there.splitlines(), text.splitlines(), *names, lineterm="", n=1))
        for line in difference[:60]:
            print(line[:200])
    for path in strays():
        differing += 1
        print(f"{path.relative_to(ROOT)}: no source builds this notebook")
    print(f"{len(targets)} notebooks built, {differing} differ" + ("; run `make notebooks`" if differing else ""))
    return differing


def main(arguments: list[str] | None = None) -> int:
    """Builds or checks the notebooks; 0 where all is well, 1 otherwise."""
    parser = argparse.ArgumentParser(description="Build the learner's and the solutions edition of the notebooks.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="sources, or how their names start; all by default")
    parser.add_argument("--force", action="store_true", help="build even what did not change")
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a file is not what is built")
    options = parser.parse_args(arguments)
    try:
        targets = targets_of(options.names)
        if options.check:
            return 1 if check(targets) else 0
        remembered = Remembered()
        todo = [target for target in targets if options.force or not remembered.has(target)]
        for target, text in build_all(todo):
            target.path.write_text(text, encoding="utf-8")
            remembered.add(target)
            print(f"built {target.name}", flush=True)
    except SourceError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{len(todo)} of {len(targets)} notebooks built")
    return 0


if __name__ == "__main__":
    sys.exit(main())
