"""What the project says about itself in several places is said alike, and the text of every file is clean."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

import k8snetlab

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT: dict[str, Any] = PYPROJECT["project"]
PINNED = re.compile(r"^([a-z0-9][a-z0-9-]*)==([0-9][0-9a-z.+]*)( ; .+)?$")

# Recorded from real programs, or written by them: kept as they came.
RECORDED = ("tests/golden/", "LICENSE")
BINARY = {".png", ".pcap", ".gz", ".ico"}


@pytest.fixture(scope="module")
def texts(program: Callable[[str, str], str]) -> dict[str, str]:
    """Every text file that is in git or could be added to it, by path."""
    listed = [program("git", "git"), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    done = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True)
    names = sorted({name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()})
    return {name: (ROOT / name).read_bytes().decode() for name in names if Path(name).suffix not in BINARY}


def canonical(requirement: str) -> tuple[str, str]:
    """`PyYAML>=6.0` → ("pyyaml", ">=6.0")."""
    found = re.fullmatch(r"([A-Za-z0-9._-]+)(.*)", requirement)
    assert found, requirement
    return re.sub(r"[-_.]+", "-", found[1]).lower(), found[2]


def constraints() -> list[str]:
    """The lines of constraints.txt without its comments."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("# ")]


def pinned() -> list[tuple[str, str]]:
    """What constraints.txt pins: names and versions."""
    return [(match[1], match[2]) for line in constraints() if (match := PINNED.match(line))]


def release(version: str) -> tuple[int, ...]:
    """`3.10.1` → (3, 10, 1)."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def offending(texts: dict[str, str], pattern: re.Pattern[str], but: Iterable[str] = ()) -> list[str]:
    """The places where `pattern` is found, as `file:line: text`."""
    exempt = (*RECORDED, *but)
    return [
        f"{name}:{number}: {line.strip()[:120]}"
        for name, text in texts.items()
        if not name.startswith(exempt)
        for number, line in enumerate(text.split("\n"), 1)
        if pattern.search(line)
    ]


def test_constraints_pin_versions_and_nothing_else() -> None:
    """constraints.txt names no index, no address and no file: it works on every machine."""
    assert [line for line in constraints() if not PINNED.match(line)] == []


def test_constraints_pin_each_package_once() -> None:
    """One version of a package serves every Python and every platform."""
    names = [name for name, _ in pinned()]
    assert names == sorted(set(names))


def test_constraints_cover_pyproject() -> None:
    """Every requirement of pyproject.toml is pinned, to a version that it allows."""
    versions = dict(pinned())
    extras = PROJECT["optional-dependencies"].values()
    for requirement in [*PROJECT["dependencies"], *(said for extra in extras for said in extra)]:
        name, bound = canonical(requirement)
        assert name in versions, f"{name} is not pinned: run `make constraints`"
        if bound:
            assert bound.startswith(">="), f"{requirement}: a lower bound is enough"
            assert release(versions[name]) >= release(bound), f"{requirement} is pinned to {versions[name]}"


def test_environment_says_what_pyproject_says() -> None:
    """environment.yml (conda, Binder) lists the dependencies and the extra `lab`, with the same bounds."""
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    said = [canonical(entry) for entry in environment["dependencies"] if isinstance(entry, str)]
    lab = [canonical(entry) for entry in [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["lab"]]]
    assert sorted(said) == sorted([*lab, ("pip", ""), ("python", PROJECT["requires-python"])])
    assert environment["channels"] == ["conda-forge", "nodefaults"]


def test_version_is_said_alike() -> None:
    """The package has the version of pyproject.toml, and the changelog has a section for it or for what is to come."""
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert k8snetlab.__version__ == PROJECT["version"]
    assert f"## [{PROJECT['version']}]" in text or "## [Unreleased]" in text


def test_files_are_clean_text(texts: dict[str, str]) -> None:
    """Text files are UTF-8 with plain line ends, and end in one newline."""
    unclean = [
        name
        for name, text in texts.items()
        if text and not name.startswith(RECORDED) and ("\r" in text or "\ufeff" in text or not text.endswith("\n"))
    ]
    assert unclean == []


def test_lines_end_where_their_words_do(texts: dict[str, str]) -> None:
    """No line ends in spaces; what programs print into notebooks and drawings may."""
    written = {name: text for name, text in texts.items() if not name.endswith((".ipynb", ".svg"))}
    assert offending(written, re.compile(r"[ \t]+$")) == []


def test_nothing_is_left_for_later(texts: dict[str, str]) -> None:
    """No marks of unfinished work: what is missing is said where a reader looks for it."""
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|X" + r"XX|NotImplemented" + r"Error)\b|NBVAL" + r"_(SKIP|IGNORE)")
    assert offending(texts, marks) == []


def test_no_path_of_one_machine(texts: dict[str, str]) -> None:
    """No absolute path of somebody's machine stands in a file."""
    paths = re.compile(r"(?<![\w.])/(home/\w+|Users/\w+|ro" + r"ot/|wo" + r"rk/)")
    assert offending(texts, paths) == []


def test_no_file_is_too_large_to_review(texts: dict[str, str]) -> None:
    """No file exceeds a megabyte: clones stay quick, and outputs of notebooks small."""
    assert [name for name in texts if (ROOT / name).stat().st_size > 1_000_000] == []


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this clone."""
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=ROOT, check=True)
    [built] = folder.glob("*.whl")
    return built


def test_wheel_carries_what_the_package_reads(wheel: Path, texts: dict[str, str]) -> None:
    """Modules, schemas, manifests and notebooks are all in the wheel, and tests are not."""
    inside = set(zipfile.ZipFile(wheel).namelist())
    wanted = {name for name in texts if name.startswith("k8snetlab/")}
    wanted |= {f"k8snetlab/_{name}" for name in texts if name.startswith(("data/", "notebooks/"))}
    wanted -= {name for name in wanted if name.startswith("k8snetlab/_notebooks/src/")}
    assert sorted(wanted - inside) == []
    assert [name for name in inside if name.startswith("tests/") or "checkpoint" in name] == []


def test_wheel_works_without_the_clone(wheel: Path, tmp_path: Path) -> None:
    """Installed from the wheel, the example loads and a packet arrives, whatever the working folder."""
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = """
import k8snetlab as k8s
assert "site" in k8s.__file__, k8s.__file__
shop = k8s.example("bookshop")
print(len(list(shop.get("pods", "shop"))) > 0)
"""
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "True\n", done.stderr
