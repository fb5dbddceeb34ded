from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from k8snetlab import live
from k8snetlab.cluster import Cluster
from k8snetlab.live.lab import unshare
from tests.live.conftest import NOBODY

ROOT = Path(__file__).resolve().parents[2]
SOON = 10.0
"""Seconds in which everything must be over on a busy machine; usually it is a fraction of one."""

TWO = """
apiVersion: v1
kind: Pod
metadata: {name: web}
spec: {nodeName: node-1, containers: [{name: web, image: web, ports: [{containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {nodeName: node-2, containers: [{name: client, image: client}]}
"""

PROGRAM = """
import sys, time
from k8snetlab import live
from k8snetlab.cluster import Cluster
cluster = Cluster.load(sys.argv[1])
print("begins", flush=True)
with live.Lab(cluster) as lab:
    print(lab._agent.pid, flush=True)
    """

BUSY = 'lab.run("node-1", "sleep", "60")'

# A program that has a lab


class Start(msgspec.Struct, frozen=True):
    """How a user starts Python: the command, the environment, and as whom (nothing: as who runs the tests)."""

    python: str
    path: str
    user: int | None = None

    def __call__(self, code: str, folder: Path) -> subprocess.Popen[str]:
        """The program, in a session of its own, with `folder` for its temporary files."""
        environment = {
            "PATH": os.environ["PATH"], "PYTHONPATH": self.path, "TMPDIR": str(folder), "HOME": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
        }  # fmt: skip
        return subprocess.Popen(
            [self.python, "-c", code, TWO],
            user=self.user,
            group=self.user,
            extra_groups=None if self.user is None else [],
            cwd="/",
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )


@pytest.fixture
def as_oneself() -> Start:
    """A program of whoever runs the tests."""
    return Start(sys.executable, str(ROOT))


@pytest.fixture
def as_nobody(for_everybody: Path, python_for_everybody: str) -> Start:
    """A program of an ordinary user. Skips where there can be none, or none with namespaces of its own."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user; the other tests run as this one")
    tried = subprocess.run(
        [*unshare(NOBODY), "true"],
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        capture_output=True,
        check=False,
    )
    if tried.returncode:
        pytest.skip(f"ordinary users have no namespaces here: {tried.stderr.decode().strip()}")
    return Start(python_for_everybody, str(for_everybody), NOBODY)


@pytest.fixture(params=["as_oneself", "as_nobody"])
def start(kernel: None, request: pytest.FixtureRequest) -> Start:
    """Each of both."""
    started = request.getfixturevalue(request.param)
    assert isinstance(started, Start)
    return started


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder for temporary files, where everybody may write."""
    with tempfile.TemporaryDirectory() as path:
        Path(path).chmod(0o777)
        yield Path(path)


# What it leaves


def processes(session: int) -> list[str]:
    """The names of the living processes of a session, by /proc."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        head, _, tail = text.rpartition(")")
        fields = tail.split()
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(head.partition("(")[2])
    return found


def machine() -> tuple[list[str], list[str], list[str], str]:
    """What a lab could leave outside of its namespaces: mounts, files in /run, named namespaces, devices."""
    named = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    devices = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
    mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return mounts, sorted(path.name for path in Path("/run").iterdir()), named.splitlines(), devices


def until(done: Callable[[], bool]) -> bool:
    """Whether it is so, soon."""
    deadline = time.monotonic() + SOON
    while not done() and time.monotonic() < deadline:
        time.sleep(0.02)
    return done()


def first_words(program: subprocess.Popen[str], count: int) -> Iterator[str]:
    """The first lines that a program prints."""
    assert program.stdout is not None
    return (program.stdout.readline().strip() for _ in range(count))


def agent(parent: int) -> int:
    """The agent, as the machine outside numbers it."""
    return int(Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii"))


ENDS = {
    "the block ends": ("pass", None, None),
    "an error": ("1 / 0", None, None),
    "SIGKILL": ("time.sleep(60)", "program", signal.SIGKILL),
    "SIGKILL while the agent is busy": (BUSY, "program", signal.SIGKILL),
    "SIGTERM while the agent is busy": (BUSY, "program", signal.SIGTERM),
    "Ctrl-C": (BUSY, "all", signal.SIGINT),
    "SIGKILL of unshare": (BUSY, "unshare", signal.SIGKILL),
    "SIGKILL of the agent": (BUSY, "agent", signal.SIGKILL),
}
"""How a lab may end: what the program does in the block, and who gets which signal."""


@pytest.mark.parametrize("end", ENDS)
def test_however_a_lab_ends_nothing_is_left(start: Start, folder: Path, end: str) -> None:
    """No process, no mount, no namespace, no device, no file."""
    does, whom, number = ENDS[end]
    before = machine()
    with start(PROGRAM + does, folder) as program:
        _, parent = first_words(program, 2)
        if does is BUSY:
            assert until(lambda: "sleep" in processes(program.pid))
        if whom == "all":
            os.killpg(program.pid, signal.SIGINT)
        elif whom is not None and number is not None:
            targets = {
                "program": lambda: program.pid,
                "unshare": lambda: int(parent),
                "agent": lambda: agent(int(parent)),
            }
            os.kill(targets[whom](), number)
        assert until(lambda: processes(program.pid) == [])
        _, said = program.communicate(timeout=SOON)
    assert machine() == before
    assert list(folder.iterdir()) == []
    if whom in ("unshare", "agent"):
        assert "CannotDo: the lab's agent ended" in said


@pytest.mark.parametrize("seconds", [0.02, 0.06, 0.1, 0.15, 0.2, 0.25])
def test_a_program_killed_while_it_builds_leaves_nothing(
    as_oneself: Start, kernel: None, folder: Path, seconds: float
) -> None:
    """Whatever the agent has made by then."""
    before = machine()
    with as_oneself(PROGRAM + "pass", folder) as program:
        assert list(first_words(program, 1)) == ["begins"]
        time.sleep(seconds)
        program.kill()
        assert until(lambda: processes(program.pid) == [])
    assert machine() == before
    assert list(folder.iterdir()) == []


INTERRUPTED = """
    try:
        lab.run("node-1", "sleep", "60")
    except KeyboardInterrupt:
        lab.run("node-1", "true")
"""


def test_an_interrupted_question_closes_the_lab(as_oneself: Start, kernel: None, folder: Path) -> None:
    """Its answer, still to come, is not taken for that of the next one."""
    with as_oneself(PROGRAM.rstrip() + INTERRUPTED, folder) as program:
        list(first_words(program, 2))
        assert until(lambda: "sleep" in processes(program.pid))
        program.send_signal(signal.SIGINT)
        _, said = program.communicate(timeout=SOON)
    assert "CannotDo: the lab is closed" in said


ASKS = """address = cluster.network["default/web"].link("eth0").addresses[0].ip
    print(lab.probe([live.Probe("default/client", address, 8080)])[0].backend)
"""


def test_labs_of_several_users_are_built_at_once(
    as_oneself: Start, as_nobody: Start, kernel: None, folder: Path
) -> None:
    """Three with the same names, one of them an ordinary user's: each finds its own web server."""
    programs = [who(PROGRAM + ASKS, folder) for who in (as_oneself, as_nobody, as_oneself)]
    said = [program.communicate(timeout=3 * SOON) for program in programs]
    assert [(out.split()[-1:], err) for out, err in said] == [(["default/web"], "")] * 3


def test_labs_one_after_the_other_keep_nothing_open(kernel: None) -> None:
    """The files that this process has open are those from before."""
    cluster = Cluster.load(TWO)
    before = sorted(Path("/proc/self/fd").iterdir())
    for _ in range(5):
        with live.Lab(cluster):
            pass
    assert sorted(Path("/proc/self/fd").iterdir()) == before
