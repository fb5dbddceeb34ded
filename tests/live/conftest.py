from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from k8snetlab import live

ROOT = Path(__file__).resolve().parents[2]
NOBODY = 65534


@pytest.fixture(scope="session")
def kernel() -> None:
    """A machine that can hold a lab; the test skips, saying what is missing, where it cannot."""
    why = live.missing()
    if why:
        pytest.skip(why)


@pytest.fixture(scope="session")
def for_everybody() -> Iterator[Path]:
    """A copy of the package, and of what it needs, that every user may read."""
    site = Path(sysconfig.get_paths()["platlib"])
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        copy.chmod(0o755)
        shutil.copytree(ROOT / "k8snetlab", copy / "k8snetlab")
        for name in ("msgspec", "yaml", "dns"):
            shutil.copytree(site / name, copy / name)
        yield copy


@pytest.fixture(scope="session")
def python_for_everybody() -> str:
    """A Python of this version that every user may run."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (Path(sys.base_exec_prefix) / "bin" / name, Path("/usr/bin") / name):
        with contextlib.suppress(OSError):
            subprocess.run([path, "-c", ""], user=NOBODY, extra_groups=[], check=True)
            return str(path)
    pytest.skip(f"there is no {name} that an ordinary user may run")


class Ordinary(Protocol):
    """Runs a program of Python as a user without any privilege, and gives what it wrote and what it complained of."""

    def __call__(self, code: str, *words: str) -> tuple[str, str]: ...


@pytest.fixture
def ordinary(for_everybody: Path, python_for_everybody: str) -> Ordinary:
    """Another user than root, in a user namespace."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user; the other tests run as this one")

    def run(code: str, *words: str) -> tuple[str, str]:
        ran = subprocess.run(
            [python_for_everybody, "-c", code, *words],
            user=NOBODY,
            group=NOBODY,
            extra_groups=[],
            cwd="/",
            env={"PYTHONPATH": str(for_everybody), "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
            check=False,
        )
        return ran.stdout, ran.stderr

    return run
