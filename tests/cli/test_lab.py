"""`k8snetlab lab`: a learner's copy of the notebooks, and a JupyterLab that starts and ends well."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from k8snetlab.cli import lab

from .conftest import Run


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Notebooks as the package has them."""
    folder = tmp_path / "package"
    for name in ("0_0_walk.ipynb", "solutions/0_0_walk.ipynb", "src/draft.ipynb", ".ipynb_checkpoints/0_0_walk.ipynb"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"first edition of {name}")
    return folder


def test_notebooks_are_copied_once(source: Path, tmp_path: Path) -> None:
    """The learner gets both editions and nothing else; a second call has nothing to do."""
    course = tmp_path / "course"
    assert list(lab.copied(source, course)) == [f"2 notebooks copied to {course}"]
    there = sorted(path.relative_to(course).as_posix() for path in course.rglob("*.ipynb"))
    assert there == ["0_0_walk.ipynb", "solutions/0_0_walk.ipynb"]
    assert list(lab.copied(source, course)) == []


def test_what_the_learner_changed_stays(source: Path, tmp_path: Path) -> None:
    """A newer package refreshes untouched notebooks, and says which it left alone; so does the next one."""
    course = tmp_path / "course"
    list(lab.copied(source, course))
    (course / "0_0_walk.ipynb").write_text("my notes")
    for edition in ("second", "third"):
        for path in source.rglob("*.ipynb"):
            path.write_text(f"{edition} edition of {path.name}")
        copied, left = lab.copied(source, course)
        assert copied == f"1 notebooks copied to {course}" and "0_0_walk.ipynb" in left
        assert (course / "0_0_walk.ipynb").read_text() == "my notes"
        assert (course / "solutions" / "0_0_walk.ipynb").read_text().startswith(edition)


def test_a_deleted_notebook_comes_back(source: Path, tmp_path: Path) -> None:
    """Deleting a notebook is how to get it afresh."""
    course = tmp_path / "course"
    list(lab.copied(source, course))
    (course / "0_0_walk.ipynb").write_text("a mess")
    (course / "0_0_walk.ipynb").unlink()
    list(lab.copied(source, course))
    assert (course / "0_0_walk.ipynb").read_text().startswith("first edition")


def test_files_of_others_are_never_overwritten(source: Path, tmp_path: Path) -> None:
    """A file that was there before the first copy is somebody's work, whatever its name."""
    course = tmp_path / "course"
    course.mkdir()
    (course / "0_0_walk.ipynb").write_text("somebody's")
    list(lab.copied(source, course))
    assert (course / "0_0_walk.ipynb").read_text() == "somebody's"


def test_a_file_is_no_folder(run: Run, tmp_path: Path) -> None:
    """DIR that is a file is wrong input."""
    file = tmp_path / "notes.txt"
    file.write_text("")
    result = run("lab", file)
    assert result.exit_code == 2
    assert result.stderr == f"error: {file}: is there and is no folder\n"


def test_without_jupyterlab_the_way_to_it_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message is the command that installs what is missing."""
    monkeypatch.setitem(sys.modules, "jupyterlab", None)
    result = run("lab")
    assert result.exit_code == 2
    assert "JupyterLab is not installed; this installs it: make lab" in result.stderr


def test_the_learners_settings_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Our settings lie in a folder beside the learner's, and his token is used if he has one."""
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "mine")
    monkeypatch.setenv("JUPYTER_TOKEN", "secret")
    said = lab.environment(tmp_path)
    assert said == {"JUPYTER_CONFIG_PATH": f"{tmp_path}{os.pathsep}mine", "JUPYTER_TOKEN": "secret"}
    config = json.loads((tmp_path / "labconfig" / "page_config.json").read_text())
    assert config == {"disabledExtensions": {lab.NEWS: True}}


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`k8snetlab lab` in a home of its own, started as a user would."""
    words = [sys.executable, "-c", "from k8snetlab.cli import main; main()", "lab", str(tmp_path / "course")]
    home = os.environ | {"HOME": str(tmp_path), "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime")}
    process = subprocess.Popen(
        [*words, "--no-browser"],
        env=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509  # no threads here
    )
    yield process
    process.terminate()  # where the test failed: the server ends with it
    process.communicate(timeout=30)


def test_lab_prints_an_address_that_works_and_ends_with_ctrl_c(opened: subprocess.Popen[str], tmp_path: Path) -> None:
    """Without a browser the address is printed, token included; Ctrl-C ends the server, without a question."""
    assert opened.stdout is not None
    address = next(found[0] for line in opened.stdout if (found := re.search(r"http://\S+token=\w+", line)))
    with urlopen(address, timeout=30) as page:  # noqa: S310  # the address is ours
        assert page.status == 200
    [listening] = (tmp_path / "runtime").glob("jpserver-*.json")
    opened.send_signal(signal.SIGINT)
    _, said = opened.communicate(timeout=30)
    assert opened.returncode == 0, said
    assert "Traceback" not in said
    assert not listening.exists()
