"""What every test may ask for, and the rule that CI skips nothing.

A test that needs a program of the machine asks for it with `program`; one that needs material kept beside the clone
asks with `shared`. Both skip with a reason that says what to install. In CI a skip is a failure, unless its reason is
in SKIPS_IN_CI: a test that silently stopped running is worse than one that fails.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"
SHARED = ROOT.parent / "shared"

NOT_SHARED = "../shared is not beside this clone"
SKIPS_IN_CI = (r"\.\./shared is (absent|not beside this clone)",)


def fails_in_ci(reason: str) -> bool:
    """Whether a test that was skipped for `reason` fails where CI=true."""
    return os.environ.get("CI") == "true" and not any(re.search(allowed, reason) for allowed in SKIPS_IN_CI)


def skip_is_failure(report: Report) -> Report:
    """The report itself, failed where it is a skip that CI does not allow; xfail reports count as skipped and stay."""
    if not report.skipped or hasattr(report, "wasxfail"):
        return report
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if fails_in_ci(reason):
        report.outcome = "failed"
        report.longrepr = f"CI skips nothing. {reason}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A skipped test fails in CI."""
    return skip_is_failure((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A skipped module fails in CI too."""
    return skip_is_failure((yield))


FIGURES = "figures"
"""The property under which a test records what a person should read in the log."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests found out in figures, also when they pass."""
    reports = (each for held in terminalreporter.stats.values() for each in held if isinstance(each, pytest.TestReport))
    for report in sorted(reports, key=lambda report: report.nodeid):
        for text in (str(value) for name, value in report.user_properties if name == FIGURES and report.when == "call"):
            title, _, lines = text.partition("\n")
            terminalreporter.section(title)
            terminalreporter.write_line(lines)


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests solve is not the learner's progress."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("K8SNETLAB_HOME", str(tmp_path_factory.mktemp("k8snetlab")))
        yield


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder with the objects and the dumps of a real cluster."""
    return GOLDEN


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder beside the clone with material that is not ours to publish."""
    if not SHARED.is_dir():
        pytest.skip(NOT_SHARED)
    return SHARED


@pytest.fixture(scope="session")
def program() -> Callable[[str, str], str]:
    """Finds a program: `program("tcpdump", "tcpdump")` gives its path or skips, naming the Debian package."""

    def find(name: str, package: str) -> str:
        path = shutil.which(name)
        if path is None:
            pytest.skip(f"{name} is not on this machine: Debian's package {package} brings it")
        return path

    return find
