"""Runs the notebooks strictly under every other Python that this machine has.

A learner's Python is rarely ours. Each found interpreter gets a folder `.venv-X.Y` with the lab and nbval (made again
when the pinned versions change), and nbval compares every output with the committed one. A Python that is not there
is said.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VERSIONS = ("3.11", "3.12", "3.13", "3.14")
NBVAL = ["--nbval", "--nbval-cell-timeout=60", "-n", "2", "--dist", "loadfile", "-p", "no:cacheprovider"]


def works(python: Path, version: str) -> bool:
    """Whether `python` starts and is of `version`; a version manager's shim may be there and refuse."""
    asked = [str(python), "-c", "import sys, ensurepip, venv; print('%d.%d' % sys.version_info[:2])"]
    try:
        answer = subprocess.run(asked, capture_output=True, text=True, check=False, timeout=60)
    except OSError:
        return False
    return answer.returncode == 0 and answer.stdout.strip() == version


def interpreter(version: str) -> Path | None:
    """An interpreter of `version` from the PATH or from pyenv's folder, if one works."""
    on_path = shutil.which(f"python{version}")
    candidates = [Path(on_path)] if on_path else []
    candidates += sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    return next((python for python in candidates if works(python, version)), None)


def prepared(python: Path, version: str) -> Path:
    """The Python of `.venv-X.Y`, with the lab and nbval installed."""
    folder = ROOT / f".venv-{version}"
    stamp = folder / "digest"
    said = b"".join((ROOT / name).read_bytes() for name in ("pyproject.toml", "constraints.txt"))
    wanted = hashlib.sha256(said).hexdigest()
    own = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    if stamp.exists() and stamp.read_text() == wanted:
        return own
    subprocess.run([str(python), "-m", "venv", "--clear", str(folder)], check=True)
    pip = [str(own), "-m", "pip", "--disable-pip-version-check", "install", "-qq", "--constraint", "constraints.txt"]
    subprocess.run([*pip, "--editable", ".[lab]", "nbval", "pytest-xdist"], check=True, cwd=ROOT)
    stamp.write_text(wanted)
    return own


def main() -> int:
    """Runs nbval under every version found; 1 where one of them fails."""
    notebooks = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "notebooks").glob("**/*.ipynb"))
    failed = 0
    for version in VERSIONS:
        if version == f"{sys.version_info[0]}.{sys.version_info[1]}":
            continue
        python = interpreter(version)
        if python is None:
            print(f"Python {version}: not on this machine", flush=True)
            continue
        print(f"Python {version}: {python}", flush=True)
        own = prepared(python, version)
        command = [str(own), "-m", "pytest", *NBVAL, *notebooks]
        failed += subprocess.run(command, check=False, cwd=ROOT).returncode != 0
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
