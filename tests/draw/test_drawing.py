from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from k8snetlab import draw
from k8snetlab.draw.marks import Box, Label, sheet
from k8snetlab.draw.png import Packer
from k8snetlab.errors import UnknownName
from k8snetlab.linux.host import Network
from k8snetlab.trace import Trace
from tests.draw import small

SVG = "{http://www.w3.org/2000/svg}"


def pixels(png: bytes) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """What a PNG shows: red, green and blue."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def copy(drawing: draw.Drawing) -> draw.Drawing:
    """The same drawing, with nothing painted yet."""
    return drawing.themed(drawing.theme)


def test_svg_and_png_are_the_same_bytes_each_time(network: Network, across: Trace) -> None:
    """Two drawings of the same things, painted separately, do not differ in a byte."""
    one, other = draw.topology(network, across), draw.topology(small.network(), across)
    assert (one.svg, one.png, one.text) == (other.svg, other.png, other.text)


def test_another_process_paints_the_same_svg() -> None:
    """Nothing of one run (hash seeds, addresses, clocks) is left in the SVG."""
    code = (
        "import hashlib; from k8snetlab import draw; from tests.draw import small; n = small.network();"
        "d = draw.topology(n, small.trace(n, 'shop/web-1', small.SERVICE, target='svc/shop/api:80'));"
        "print(hashlib.sha256(d.svg.encode() + d.png).hexdigest())"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": "."},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1


def test_labels_stay_text_in_svg(network: Network, across: Trace) -> None:
    """Names in the SVG can be selected, searched and read aloud."""
    root = ET.fromstring(draw.topology(network, across).svg)  # noqa: S314 - it is our own
    texts = {element.text for element in root.iter(f"{SVG}text")}
    assert {"node-1", "api-0", "flannel.1", "svc/shop/api:80"} <= texts


def test_svg_carries_its_text_alternative(network: Network, across: Trace) -> None:
    """A screen reader finds a title and the whole description in the SVG."""
    drawing = draw.topology(network, across)
    root = ET.fromstring(drawing.svg)  # noqa: S314 - it is our own
    assert (root.get("role"), root.findtext(f"{SVG}title")) == ("img", drawing.alt[0])
    assert root.findtext(f"{SVG}desc") == drawing.text


def test_a_notebook_gets_text_svg_and_png(network: Network) -> None:
    """A cell's output holds all three kinds, and the PNG is shown at half its pixels."""
    drawing = draw.topology(network)
    data, metadata = drawing._repr_mimebundle_()
    assert data == {"text/plain": drawing.text, "image/svg+xml": drawing.svg, "image/png": drawing.png}
    assert metadata == {"image/png": {"width": drawing.width, "height": drawing.height}}
    assert pixels(drawing.png).shape == (2 * drawing.height, 2 * drawing.width, 3)


def test_paper_is_exactly_the_themes(network: Network) -> None:
    """Packing colours into a palette keeps those of the theme."""
    for theme, paper in (("light", (255, 255, 255)), ("dark", (18, 18, 18))):
        assert tuple(pixels(draw.topology(network, theme=theme).png)[0, 0]) == paper


def test_themed_changes_nothing_but_colours(network: Network, across: Trace) -> None:
    """The dark picture says and shows the same as the light one, in other colours."""
    light = draw.topology(network, across)
    dark = light.themed("dark")
    assert dark == draw.topology(network, across, theme="dark")
    assert (dark.text, dark.ground, dark.over) == (light.text, light.ground, light.over)
    assert dark.svg != light.svg


@pytest.mark.parametrize("suffix", [".svg", ".png", ".txt"])
def test_save_writes_what_the_ending_says(network: Network, tmp_path: Path, suffix: str) -> None:
    """A file holds what the drawing gives for its kind."""
    drawing = draw.topology(network)
    drawing.save(tmp_path / f"picture{suffix}")
    written = (tmp_path / f"picture{suffix}").read_bytes()
    assert written == {".svg": drawing.svg.encode(), ".png": drawing.png, ".txt": f"{drawing.text}\n".encode()}[suffix]


def test_an_unknown_kind_of_picture_is_named(network: Network, tmp_path: Path) -> None:
    """A file name that says no known kind is an error, and nothing is written."""
    with pytest.raises(UnknownName, match=r"kind of picture '\.gif'"):
        draw.topology(network).save(tmp_path / "picture.gif")
    assert not list(tmp_path.iterdir())


def test_painting_in_place_equals_painting_afresh(network: Network, across: Trace) -> None:
    """An easel that painted other things before gives the bytes that a new one gives."""
    back = small.trace(network, "external", "172.18.0.11")
    states = [
        *(draw.topology(network, across, step=step) for step in (1, 9, 20, 12)),
        draw.topology(network, across),
        draw.topology(network, back),
        draw.topology(network, across, theme="dark"),
        draw.headers(across),
        draw.topology(network, across),
    ]
    easel = draw.Easel()
    for state in states:
        assert easel.png(state) == draw.Easel().png(copy(state))


def test_an_easel_shows_what_the_drawing_shows(network: Network, across: Trace) -> None:
    """The quick PNG has the same pixels as the drawing's own, save for colours between those of the theme."""
    drawing = draw.topology(network, across)
    quick, own = pixels(draw.Easel(scale=2.0).png(drawing)), pixels(drawing.png)
    difference = np.abs(quick.astype(int) - own.astype(int)).max(axis=2)
    assert difference.mean() < 1


def test_a_packed_png_holds_the_pixels() -> None:
    """Other programs read what the packer wrote, whether strips were kept or packed again."""
    noise = np.random.default_rng(7).integers(0, 256, (131, 37, 4), dtype=np.uint8)
    packer = Packer()
    for change in range(3):
        noise[change * 40] = change
        read = np.asarray(Image.open(io.BytesIO(packer.pack(noise))).convert("RGBA"))
        assert np.array_equal(read, noise)


def test_a_label_is_never_read_as_mathematics() -> None:
    """Dollar signs in a name are dollar signs."""
    marks = sheet([Box(0, 0, 90, 20), Label(5, 10, "$x^2$ costs $3")])
    drawing = draw.Drawing(100, 30, (marks,), (), ("A label.",))
    assert "$x^2$ costs $3" in drawing.svg
    assert drawing.png


def test_pyplot_is_never_imported() -> None:
    """No drawing touches pyplot's global figures; asking for one would open windows on some machines."""
    code = (
        "import sys; from k8snetlab import draw; from tests.draw import small; n = small.network();"
        "t = small.trace(n, 'shop/web-1', small.SERVICE); d = draw.topology(n, t); d.svg; d.png; draw.Easel().png(d);"
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": "."}, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
