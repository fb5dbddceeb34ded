"""The course as a learner meets it: notebooks in JupyterLab, in a browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import ConsoleMessage, Error, Page

from tests.browser.lab import cells, explorers, open_notebook, run_all, turn_until_it_shows, use_theme

NOTEBOOKS = Path(__file__).resolve().parent.parent.parent / "notebooks"
THEMES = ("JupyterLab Light", "JupyterLab Dark")


def complaints(page: Page) -> list[str]:
    """A list that grows with every error on the page's console."""
    found: list[str] = []

    def on_console(message: ConsoleMessage) -> None:
        if message.type == "error":
            found.append(f"{message.text} {message.location}")

    def on_error(error: Error) -> None:
        found.append(str(error))

    page.on("console", on_console)
    page.on("pageerror", on_error)
    return found


@pytest.mark.browser
@pytest.mark.parametrize("name", [path.name for path in sorted(NOTEBOOKS.glob("*.ipynb"))])
def test_notebook_runs_and_its_explorers_answer(page: Page, jupyterlab: str, artefacts: Path, name: str) -> None:
    """Run all, turn a control of each explorer: picture and words change, and the console stays silent."""
    errors = complaints(page)

    open_notebook(page, jupyterlab, name)
    run_all(page, name)
    outputs = [output for cell in cells(page) for output in cell.get("outputs", [])]
    assert [output for output in outputs if output["output_type"] == "error"] == []

    found = 0
    for found, explorer in enumerate(explorers(page), 1):
        before, after = turn_until_it_shows(page, explorer)
        for theme in THEMES:
            use_theme(page, theme)
            explorer.evaluate("explorer => explorer.scrollIntoView({block: 'start'})")
            page.screenshot(path=artefacts / f"{Path(name).stem}-explorer-{found}-{theme.split()[-1].lower()}.png")
        assert after.picture != before.picture
        assert after.text != before.text

    assert found, "no explorer"
    assert errors == []
