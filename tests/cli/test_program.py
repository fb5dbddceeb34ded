"""The program as a process: entry point, pipes, interrupts, terminals, help."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import k8snetlab as k8s

from .conftest import BOOKSHOP, Run

WORDS = [sys.executable, "-c", "from k8snetlab.cli import main; main()"]
TRACE = ["trace", "-f", str(BOOKSHOP), "--from", "shop/web-0", "--to", "svc/shop/api:80"]


def test_the_installed_program_answers() -> None:
    """The script beside Python is this program."""
    program = Path(sys.executable).parent / "k8snetlab"
    if not program.exists():
        pytest.skip("k8snetlab is not installed beside this Python: pip install -e .")
    done = subprocess.run([str(program), *TRACE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("shop/web-0 → svc/shop/api:80")


def test_an_answer_is_not_held_up_by_looking_for_garbage() -> None:
    """From its first command on the program looks rarely: the objects of an answer stay until it is there."""
    code = "import atexit, gc; atexit.register(lambda: print(gc.get_threshold()[0])); from k8snetlab.cli import main; "
    words = [sys.executable, "-c", f"{code}main()", "--version"]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) >= 50_000


def test_the_working_folder_does_not_matter(tmp_path: Path) -> None:
    """The program and its schemas are found from anywhere, and it leaves nothing behind."""
    done = subprocess.run([*WORDS, *TRACE, "-o", "json"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_reader_may_stop_reading() -> None:
    """`| head -1` is no error: the program ends like any other filter, without a word."""
    words = [*WORDS, "show", "-f", str(BOOKSHOP), "iptables", "-o", "json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == b"{\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == -signal.SIGPIPE


@contextmanager
def started(words: list[str], stdin: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process that hears Ctrl-C even where these tests run in the background, where shells switch it off."""
    process = subprocess.Popen(
        words,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509  # no threads here
    )
    with process:
        try:
            yield process
        finally:
            process.kill()  # where the test failed: nothing is left behind


def test_ctrl_c_ends_without_a_traceback() -> None:
    """An interrupt while reading gives status 130, as shells count, and no word."""
    words = [*WORDS, "show", "-f", "-", "pods"]
    with started(words, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None and process.stderr is not None
        process.stdin.write(b"# waiting\n" * 50_000)  # more than a pipe holds: it is reading by now,
        process.stdin.flush()
        time.sleep(0.5)  # and now it waits for more
        process.send_signal(signal.SIGINT)
        process.wait(30)
        said = process.stderr.read()
    assert process.returncode == 130
    assert said == b""


def test_a_full_disk_is_said() -> None:
    """An answer that cannot be written is an error in one line."""
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full on this system")
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([*WORDS, *TRACE], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ") and "Traceback" not in done.stderr


def test_any_locale_will_do() -> None:
    """Text is UTF-8 even where the locale knows no arrows."""
    plain = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*WORDS, *TRACE], env=plain, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "→".encode() in done.stdout


def on_a_terminal(columns: int, *words: str) -> tuple[int, str]:
    """Status and output of a command whose standard output is a terminal of so many columns."""
    pty = pytest.importorskip("pty", reason="there are no pseudo-terminals on this system")
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen([*WORDS, *words], env=environment, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        said = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # so Linux says that the other side is closed
                break
            if not piece:
                break
            said += piece
    os.close(ours)
    return process.returncode, said.decode().replace("\r\n", "\n")


@pytest.mark.parametrize("columns", [80, 140])
def test_a_trace_fits_the_terminal(columns: int) -> None:
    """On a terminal steps are as wide as it is and coloured; the words are those of a file."""
    status, said = on_a_terminal(columns, *TRACE)
    assert status == 0
    assert "\x1b[" in said
    plain = "".join(part.partition("m")[2] if at else part for at, part in enumerate(said.split("\x1b[")))
    steps = plain.partition("There\n")[2].partition("CHANCE")[0]
    assert max(map(len, steps.splitlines())) <= columns
    assert "DNAT" in steps and "DELIVER" in steps


def test_a_capture_is_not_written_to_a_terminal() -> None:
    """Binary on a screen is a mistake, and the message says where to send it."""
    status, said = on_a_terminal(80, *TRACE, "-o", "pcap")
    assert status == 2
    assert "tcpdump -nn -r -" in said.replace("\n", "")


def test_help_comes_without_a_command(run: Run) -> None:
    """Without a command there is help, with every command in it and examples."""
    result = run()
    assert result.exit_code == 0
    assert all(f"  {name} " in result.stdout for name in COMMANDS)


COMMANDS = (
    "lab", "doctor", "progress", "trace", "reach", "show", "dns", "cni", "diff", "contract", "allowed", "check",
    "external-dns", "prove",
)  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_examples(run: Run, command: str) -> None:
    """--help of a command says what it does and ends with lines to copy."""
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"Examples:\n    k8snetlab {command}" in result.stdout


def test_examples_in_help_are_real(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The examples of the commands about a cluster work on the bookshop."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app").symlink_to(BOOKSHOP)
    for command in ("trace", "show", "cni", "diff", "contract", "allowed", "check"):
        lines = run(command, "--help").stdout.partition("Examples:\n")[2].splitlines()
        for line in filter(None, map(str.strip, lines)):
            words = line.partition(" |")[0].split()[1:]
            assert run(*words).exit_code in (0, 1), line


def test_version(run: Run) -> None:
    """--version says the version."""
    assert run("--version").stdout == f"k8snetlab {k8s.__version__}\n"


@pytest.mark.parametrize(
    ("line", "offered"),
    [("k8snetlab tr", "trace"), ("k8snetlab show ipt", "iptables"), ("k8snetlab trace --cni fl", "flannel")],
)
def test_the_shell_completes_words(line: str, offered: str) -> None:
    """Commands, what can be shown, and names of CNIs are completed."""
    environment = os.environ | {
        "_K8SNETLAB_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split()) - 1),
    }
    code = "from k8snetlab.cli import app; app(prog_name='k8snetlab')"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [offered]
