"""What does an explorer consist of?

A *view model* knows no widgets: settings go in, a `View` comes out — a picture, a text that says everything
the picture does, and a title. An `Explorer` is the thin rest: one control for each setting, one image and one
text, and a callback that asks the model and replaces both. Nothing else is drawn or cleared, so nothing
flickers.

Every control is also an attribute: `explorer.cni = "bridge"` turns the knob as a hand would,
`explorer.summary()` is the text. Beside the live view an explorer shows its text and picture as plain output:
that is what stands in a notebook without a kernel, what a screen reader gets, and what tests compare.

Not modelled: animation; several explorers that share their settings.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from html import escape
from typing import Any, Generic, Protocol, TypeVar

import ipywidgets as widgets
import msgspec

from k8snetlab.draw import Drawing, Easel
from k8snetlab.errors import BadOption, UnknownName

__all__ = ["SYSTEM", "Explorer", "Model", "Setting", "View", "dropdown", "slider"]

T = TypeVar("T")
M = TypeVar("M", bound="Model")

SYSTEM = "kube-system"
"""The namespace of what every cluster has: lessons look at other pods."""

TEXT_LINES = 14
"""Lines of text that are seen at once; the rest is reached by scrolling, so that the page never jumps."""


class View(msgspec.Struct, frozen=True):
    """What there is to see for some settings: a picture, and the text that says what the picture shows."""

    text: str
    picture: Drawing


class Model(Protocol):
    """Settings in, a view out; the same for the same settings."""

    @property
    def view(self) -> Callable[..., View]: ...


class Setting(Generic[T]):
    """A control of an explorer as an attribute: reading gives its value, writing turns it."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, explorer: Explorer[Any], owner: type | None = None) -> T:
        value: T = explorer.controls[self._name].value
        return value

    def __set__(self, explorer: Explorer[Any], value: T) -> None:
        explorer.turn(self._name, value)


class Explorer(widgets.VBox, Generic[M]):  # type: ignore[misc]
    """Controls over a picture over its text. Subclasses name their controls and declare a `Setting` for each."""

    def __init__(self, model: M, controls: Mapping[str, Any], *, width: int = 920, height: int = 440) -> None:
        self.model = model
        self._easel = Easel()
        self.controls = dict(controls)
        # No tooltip: the browser's side of `Image` (ipywidgets 8.1) fails on one. The text below says what it shows.
        self.picture = widgets.Image(
            format="png",
            layout=widgets.Layout(
                width=f"{width}px",
                max_width="100%",
                height=f"{height}px",
                object_fit="scale-down",
                object_position="left top",
            ),
        )
        self.text = widgets.HTML(
            layout=widgets.Layout(height=f"{TEXT_LINES * 1.3:.0f}em", overflow="auto", width="100%"),
        )
        row = widgets.Box(
            list(self.controls.values()), layout=widgets.Layout(flex_flow="row wrap", align_items="center")
        )
        super().__init__([row, self.picture, self.text])
        for control in self.controls.values():
            control.observe(self._changed, "value")
        self._changed(None)

    def turn(self, name: str, value: Any) -> None:
        """Set one control. Raises `UnknownName` for a choice that it does not have, `BadOption` beyond its ends."""
        control = self.controls[name]
        if isinstance(control, widgets.Dropdown):
            choices = [option[1] if isinstance(option, tuple) else option for option in control.options]
            if value not in choices:
                raise UnknownName(name, str(value), [str(choice) for choice in choices])
        elif isinstance(control, widgets.IntSlider) and not control.min <= value <= control.max:
            raise BadOption(f"{name} goes from {control.min} to {control.max}, and {value} is not between them")
        control.value = value

    def settings(self) -> dict[str, Any]:
        """All settings as they are now."""
        return {name: control.value for name, control in self.controls.items()}

    def summary(self) -> str:
        """What is to be seen, as text."""
        return self._view.text

    def _changed(self, _: Any) -> None:
        self._view = self.model.view(**self.settings())
        self._png = self._easel.png(self._view.picture)
        self.picture.value = self._png
        self.text.value = preformatted(self._view.text)

    def __repr__(self) -> str:
        return self.summary()

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = dict(super()._repr_mimebundle_())
        picture = base64.b64encode(self._png).decode()
        return {**bundle, "text/plain": self.summary(), "image/png": picture}


def preformatted(text: str) -> str:
    """Text as HTML that keeps its columns and takes the colours of the page."""
    return f'<pre style="margin:0;line-height:1.3;white-space:pre;background:none;color:inherit">{escape(text)}</pre>'


_WIDE = {"description_width": "initial"}
_APART = "2px 20px 2px 2px"


def dropdown(description: str, options: Any, value: Any) -> Any:
    """A list to choose from; `options` are texts or pairs of text and value."""
    return widgets.Dropdown(
        description=description, options=options, value=value, style=_WIDE, layout=widgets.Layout(margin=_APART)
    )


def slider(description: str, least: int, most: int, value: int, step: int = 1) -> Any:
    """A whole number from `least` to `most`. It answers when it is let go."""
    return widgets.IntSlider(
        description=description,
        min=least,
        max=most,
        value=value,
        step=step,
        style=_WIDE,
        continuous_update=False,
        layout=widgets.Layout(width="420px", margin=_APART),
    )
