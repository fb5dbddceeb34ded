"""The course as a learner meets it: the first notebook in JupyterLab, in a browser."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import ConsoleMessage, Error, Page

from tests.browser.lab import cells, choose_another, explorers, open_notebook, run_all, use_theme

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
def test_first_notebook_runs_and_its_explorer_answers(page: Page, jupyterlab: str, artefacts: Path) -> None:
    """Run all, choose something else in the first explorer: picture and text change, and the console stays silent."""
    [notebook] = NOTEBOOKS.glob("0_0*.ipynb")
    errors = complaints(page)

    open_notebook(page, jupyterlab, notebook.name)
    run_all(page)
    outputs = [output for cell in cells(page) for output in cell.get("outputs", [])]
    assert [output for output in outputs if output["output_type"] == "error"] == []

    explorer = next(explorers(page))
    before, after = choose_another(page, explorer)
    for theme in THEMES:
        use_theme(page, theme)
        explorer.scroll_into_view_if_needed()
        page.screenshot(path=artefacts / f"{notebook.stem}-{theme.split()[-1].lower()}.png")

    assert after.picture != before.picture
    assert after.text != before.text
    assert errors == []
