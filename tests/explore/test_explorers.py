"""The explorers: controls that a browser, a keyboard and a notebook cell can turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from k8snetlab import explore
from k8snetlab.cluster import example, recipes
from k8snetlab.errors import BadOption, UnknownName
from k8snetlab.explore.explorer import Explorer

MAKERS: dict[str, Callable[[], Explorer[Any]]] = {
    "walk": lambda: explore.PacketWalk(example("one-web-one-client")),
    "contract": lambda: explore.RuleBreaker(example("pods-on-two-nodes")),
    "plan": explore.AddressPlanner,
    "pod_to_pod": lambda: explore.PodToPod(example("same-node-other-node")),
    "service": lambda: explore.WhoAnswers(example("service-three-backends")),
    "dns": lambda: explore.WhichName(example("names-of-every-shape")),
    "cni": lambda: explore.SamePacket(example("one-flow-many-networks")),
    "policies": lambda: explore.WhoMayTalk(recipes.stage()),
    "slices": lambda: explore.PodChurn(example("service-many-pods")),
    "external": lambda: explore.ZonePlanner(example("names-for-the-world", load_balancer="metallb-bgp")),
    "families": lambda: explore.WhichFamily(example("service-both-families")),
}
CHANGES: dict[str, tuple[str, Any]] = {
    "walk": ("step", 7),
    "contract": ("broken", "same-address"),
    "plan": ("pod_cidr", "10.96.0.0/16"),
    "pod_to_pod": ("network", "flannel host-gw"),
    "service": ("ready", 1),
    "dns": ("name", "www.example.com"),
    "cni": ("network", "calico bgp"),
    "policies": ("policies", "three-tiers"),
    "slices": ("most", 10),
    "external": ("happens", "it leads to a CDN"),
    "families": ("families", "IPv6"),
}


@pytest.fixture(params=MAKERS)
def named(request: pytest.FixtureRequest) -> tuple[str, Explorer[Any]]:
    """Each explorer with its name."""
    return request.param, MAKERS[request.param]()


def test_a_control_changes_text_and_picture(named: tuple[str, Explorer[Any]]) -> None:
    """Turned from code, an explorer shows something else in both."""
    name, explorer = named
    before = explorer.summary(), explorer.picture.value, explorer.text.value
    setattr(explorer, *CHANGES[name])
    after = explorer.summary(), explorer.picture.value, explorer.text.value
    assert all(old != new for old, new in zip(before, after, strict=True))


def test_the_browser_changes_it_too(named: tuple[str, Explorer[Any]]) -> None:
    """A control's new state from the browser has the same effect as the attribute."""
    name, explorer = named
    setting, value = CHANGES[name]
    other = MAKERS[name]()
    setattr(other, setting, value)
    control = explorer.controls[setting]
    state = {"index": control._options_values.index(value)} if hasattr(control, "index") else {"value": value}
    control.set_state(state)
    assert explorer.summary() == other.summary()


def test_turning_back_shows_the_same_again(named: tuple[str, Explorer[Any]]) -> None:
    """What is shown depends on the settings and on nothing that happened before."""
    name, explorer = named
    setting, value = CHANGES[name]
    before, was = explorer._repr_mimebundle_(), getattr(explorer, setting)
    setattr(explorer, setting, value)
    setattr(explorer, setting, was)
    after = explorer._repr_mimebundle_()
    assert (before["text/plain"], before["image/png"]) == (after["text/plain"], after["image/png"])


def test_it_shows_text_picture_and_widget(named: tuple[str, Explorer[Any]]) -> None:
    """A notebook without a kernel, a screen reader and a browser each find what they need."""
    _, explorer = named
    bundle = explorer._repr_mimebundle_()
    assert set(bundle) >= {"text/plain", "image/png", "application/vnd.jupyter.widget-view+json"}
    assert bundle["text/plain"] == explorer.summary()
    assert "0x" not in bundle["text/plain"].replace("0x4000", "")


def test_every_control_has_a_name_and_the_page_never_jumps(named: tuple[str, Explorer[Any]]) -> None:
    """Controls are described, picture and text have fixed heights, and the words stand right under the picture."""
    _, explorer = named
    assert all(control.description for control in explorer.controls.values())
    assert explorer.picture.layout.height
    assert explorer.text.layout.height
    assert explorer.children[1:] == (explorer.picture, explorer.text)


def test_a_choice_that_does_not_exist_names_those_that_do() -> None:
    """A typing mistake in a cell is answered with the choices."""
    breaker = explore.RuleBreaker(example("pods-on-two-nodes"))
    with pytest.raises(UnknownName, match="same-address"):
        breaker.broken = "same-adress"


def test_a_number_beyond_the_slider_is_an_error() -> None:
    """A value that the control cannot show is not silently cut."""
    walk = explore.PacketWalk(example("one-web-one-client"))
    with pytest.raises(BadOption, match="from 1 to"):
        walk.step = 10_000


def test_the_slider_of_a_walk_ends_with_the_walk() -> None:
    """Another target has another number of stops, and the current stop stays among them."""
    walk = explore.PacketWalk(example("one-web-one-client"))
    walk.detail = "every rule"
    walk.step = len(walk.actions)
    walk.detail = "what matters"
    assert walk.step == walk.controls["step"].max == len(walk.actions)
