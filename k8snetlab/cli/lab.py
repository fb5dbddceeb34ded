"""How is the course opened?

In a clone the notebooks are those of the clone: what a learner writes can be compared and taken back with git. An
installed package must not be written to, so its notebooks are copied to a folder of the learner's. A copy is refreshed
by a newer package only where the learner has not changed it, which a list of fingerprints in that folder tells.

JupyterLab runs as a child: quiet, without its news, started with the Python that runs this, so that the notebooks find
the package. It says where it listens in a file of its runtime folder; the address printed here is read from it, token
included.

Not modelled: many learners on one machine (that is JupyterHub's).
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
import webbrowser
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import quote

import typer

import k8snetlab
from k8snetlab.cli import output
from k8snetlab.cli.doctor import browser
from k8snetlab.errors import CannotDo, LabError, Problem

__all__ = ["command", "copied", "notebooks", "run"]

COPY = "k8snetlab-course"
FINGERPRINTS = ".k8snetlab.json"
FIRST = "0_*.ipynb"
START_SECONDS = 60.0
STOP_SECONDS = 10.0
NEWS = "@jupyterlab/apputils-extension:announcements"


def run(folder: Path | None, port: int, *, open_browser: bool) -> int:
    """Open the course and stay until it is closed; gives the exit status."""
    if find_spec("jupyterlab") is None:
        fix = "make lab" if _in_a_clone() else f"{sys.executable} -m pip install 'k8snetlab[lab]'"
        raise CannotDo(Problem(f"JupyterLab is not installed; this installs it: {fix}"))
    source = notebooks()
    if folder is None and _in_a_clone():
        course = source
    else:
        course = folder or Path(COPY)
        for line in copied(source, course):
            output.note(line)
    shown = open_browser and browser().present
    return _served(course.resolve(), port, shown)


def notebooks() -> Path:
    """The notebooks that come with the package: beside it in a clone, inside it when it is installed."""
    here = Path(k8snetlab.__file__).resolve().parent
    for folder in (here / "_notebooks", here.parent / "notebooks"):
        if folder.is_dir():
            return folder
    raise LabError("the notebooks are missing: neither k8snetlab/_notebooks nor notebooks/ is there")


def _in_a_clone() -> bool:
    return notebooks().name == "notebooks"


# The learner's copy


def copied(source: Path, target: Path) -> Iterator[str]:
    """Copy the notebooks to a folder, and say what was done. What the learner has changed there stays as it is."""
    if target.exists() and not target.is_dir():
        raise CannotDo(Problem("is there and is no folder", file=str(target)))
    known = _fingerprints(target)
    given: dict[str, str] = {}
    fresh, kept = 0, []
    for path in sorted(source.rglob("*.ipynb")):
        name = path.relative_to(source).as_posix()
        if any(part.startswith(".") or part == "src" for part in path.relative_to(source).parts):
            continue
        copy = target / name
        content = path.read_bytes()
        if copy.exists() and _fingerprint(copy.read_bytes()) not in (known.get(name), _fingerprint(content)):
            kept.append(name)
            given[name] = known.get(name, "")
            continue
        given[name] = _fingerprint(content)
        if not copy.exists() or copy.read_bytes() != content:
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
            fresh += 1
    if given != known:
        (target / FINGERPRINTS).write_text(json.dumps(given, indent=1) + "\n", encoding="utf-8")
    if fresh:
        yield f"{fresh} notebooks copied to {target}"
    if kept:
        yield f"left as you changed them: {', '.join(kept)} (delete one to get it afresh)"


def _fingerprints(folder: Path) -> Mapping[str, str]:
    """What was copied into the folder before, by name."""
    try:
        found: dict[str, str] = json.loads((folder / FINGERPRINTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def _fingerprint(content: bytes) -> str:
    return sha256(content).hexdigest()


# JupyterLab


def command(course: Path, port: int) -> list[str]:
    """The command that serves a folder."""
    words = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--log-level=ERROR", "--LabApp.log_level=ERROR",
        f"--ServerApp.root_dir={course}", f"--ServerApp.port={port}",
    ]  # fmt: skip
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        words.append("--allow-root")
    return words


def _served(course: Path, port: int, show: bool) -> int:
    try:
        with TemporaryDirectory() as settings, _server(command(course, port), Path(settings)) as server:
            address = _address(server, course)
            if address is None:
                raise CannotDo(Problem("JupyterLab did not start; what it said stands above"))
            typer.echo(f"The course is open at\n\n    {address}\n\nCtrl-C ends it.")
            if show:
                webbrowser.open(address)
            return server.wait()
    except KeyboardInterrupt:  # that is how one leaves
        return 0


@contextmanager
def _server(words: list[str], settings: Path) -> Iterator[subprocess.Popen[bytes]]:
    """JupyterLab, which ends when we do, however that comes: Ctrl-C, a closed terminal, `kill`."""
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _interrupt)
    # In a session of its own it hears no Ctrl-C, to which it would answer with a question.
    server = subprocess.Popen(words, env=os.environ | environment(settings), start_new_session=True)
    try:
        yield server
    finally:
        if server.poll() is None:
            server.terminate()
            try:
                server.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()


def environment(settings: Path) -> dict[str, str]:
    """What JupyterLab shall know: a folder of settings beside the learner's own ones, and a token.

    The settings switch its news off, which would ask the internet and cover the page. With a token that it did not make
    it does not print an address of its own.
    """
    written = settings / "labconfig" / "page_config.json"
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(json.dumps({"disabledExtensions": {NEWS: True}}), encoding="utf-8")
    paths = os.pathsep.join(filter(None, (str(settings), os.environ.get("JUPYTER_CONFIG_PATH"))))
    return {"JUPYTER_CONFIG_PATH": paths, "JUPYTER_TOKEN": os.environ.get("JUPYTER_TOKEN") or secrets.token_hex(24)}


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _address(server: subprocess.Popen[bytes], course: Path) -> str | None:
    """Where the server shows the first notebook, with its token, as soon as it says so; nothing if it ends before."""
    from jupyter_core.paths import jupyter_runtime_dir

    said = Path(jupyter_runtime_dir()) / f"jpserver-{server.pid}.json"
    until = time.monotonic() + START_SECONDS
    while server.poll() is None and time.monotonic() < until:
        try:
            facts = json.loads(said.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            time.sleep(0.05)
            continue
        first = next((f"/tree/{quote(path.name)}" for path in sorted(course.glob(FIRST))), "")
        token = f"?token={facts['token']}" if facts["token"] else ""
        return f"{facts['url']}lab{first}{token}"
    return None
