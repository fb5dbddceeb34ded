"""A learner's hands and eyes in JupyterLab: open, run all, change a control, look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
from playwright.sync_api import ElementHandle, Page

OPEN_MS = 60_000
RUN_MS = 120_000
CHANGE_MS = 10_000

READY = """name => {
    const panel = window.jupyterapp?.shell.currentWidget;
    const session = panel?.sessionContext;
    const idle = session?.isReady && session.session?.kernel?.status === "idle";
    return Boolean(idle && panel.context?.path === name && panel.context.isReady);
}"""

# Started without waiting for its end: a call that outlives its own time-out would hang the page.
RUN_ALL = """() => {
    window.ranAll = "running";
    window.jupyterapp.commands.execute("notebook:run-all-cells").then(() => { window.ranAll = "done"; });
}"""

# JupyterLab draws only the cells in view: each is brought there before it is asked for a control.
SHOW_CELL = """async index => {
    const notebook = window.jupyterapp.shell.currentWidget.content;
    notebook.activeCellIndex = index;
    await notebook.scrollToItem(index, "start");
}"""

# What a hand may turn, in the order of the page: lists, buttons that are not pressed, sliders.
CONTROLS = "select, .widget-toggle-button:not(.mod-active), .noUi-handle"

CELLS = "() => window.jupyterapp.shell.currentWidget.content.model.toJSON().cells"
WIDGET = "application/vnd.jupyter.widget-view+json"
PICTURE = "image/png"

LOOK = """async explorer => {
    const bytes = async address => Array.from(new Uint8Array(await (await fetch(address)).arrayBuffer())).join();
    const images = await Promise.all([...explorer.querySelectorAll("img")].map(image => bytes(image.src)));
    const drawings = [...explorer.querySelectorAll("svg")].map(drawing => drawing.outerHTML);
    const words = explorer.cloneNode(true);
    const controls = ".widget-inline-hbox:not(.widget-html), .widget-toggle-buttons, svg";
    words.querySelectorAll(controls).forEach(part => part.remove());
    return {picture: [...images, ...drawings].join("\\n"), text: words.textContent};
}"""


class Look(msgspec.Struct, frozen=True):
    """What an explorer shows: its pictures, byte by byte, and its words without those of its controls."""

    picture: str
    text: str


def open_notebook(page: Page, address: str, name: str) -> None:
    """Opens a notebook, alone on its page, and waits for its kernel."""
    # A workspace of its own: the default one would bring back what an earlier page had open.
    page.goto(f"{address}/lab/workspaces/{name.removesuffix('.ipynb')}/tree/{name}", timeout=OPEN_MS)
    page.wait_for_function(READY, arg=name, timeout=OPEN_MS)


def run_all(page: Page, name: str) -> None:
    """Runs every cell of the open notebook and waits for the last."""
    page.evaluate(RUN_ALL)
    page.wait_for_function("() => window.ranAll === 'done'", timeout=RUN_MS)
    page.wait_for_function(READY, arg=name, timeout=RUN_MS)


def cells(page: Page) -> list[dict[str, Any]]:
    """The cells as the page holds them, outputs included."""
    found: list[dict[str, Any]] = page.evaluate(CELLS)
    return found


def explorers(page: Page) -> Iterator[ElementHandle]:
    """The widgets of the notebook that say they have a picture, each brought into view and drawn."""
    for index, cell in enumerate(cells(page)):
        if not any({WIDGET, PICTURE} <= output.get("data", {}).keys() for output in cell.get("outputs", [])):
            continue
        page.evaluate(SHOW_CELL, index)
        widget = page.locator(f".jp-Notebook-cell[data-windowed-list-index='{index}'] .jp-OutputArea-output.lm-Panel")
        widget.locator(CONTROLS).first.wait_for(timeout=CHANGE_MS)
        widget.locator("img, svg").first.wait_for(timeout=CHANGE_MS)
        yield widget.first.element_handle(timeout=CHANGE_MS)


def look(page: Page, explorer: ElementHandle) -> Look:
    """What the explorer shows now."""
    return msgspec.convert(page.evaluate(LOOK, explorer), Look)


def turn(control: ElementHandle) -> None:
    """Turns a control to something else, as a learner does."""
    if control.evaluate("control => control.tagName") == "SELECT":
        last = control.evaluate("choice => choice.options.length - 1")
        control.select_option(index=0 if control.evaluate("choice => choice.selectedIndex") == last else last)
    elif control.get_attribute("role") == "slider":
        full = control.get_attribute("aria-valuenow") == control.get_attribute("aria-valuemax")
        control.press("ArrowLeft" if full else "ArrowRight")
    else:
        control.click()


def turn_until_it_shows(page: Page, explorer: ElementHandle) -> tuple[Look, Look]:
    """Turns one control after the other until picture and words are others; what was to be seen before and is after."""
    before = after = look(page, explorer)
    for control in explorer.query_selector_all(CONTROLS):
        turn(control)
        for _ in range(CHANGE_MS // 100):
            page.wait_for_timeout(100)
            after = look(page, explorer)
            if after.picture != before.picture and after.text != before.text:
                return before, after
    return before, after


def use_theme(page: Page, theme: str) -> None:
    """Switches JupyterLab to `theme` and waits until the page wears it."""
    page.evaluate("theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})", theme)
    page.wait_for_function("theme => document.body.dataset.jpThemeName === theme", arg=theme, timeout=CHANGE_MS)
    page.locator("#jupyterlab-splash").wait_for(state="detached", timeout=CHANGE_MS)
