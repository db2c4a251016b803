from __future__ import annotations

import base64
import io
from pathlib import Path

import pytest
from PIL import Image, ImageChops, ImageStat

from pbb_helpers.sharing import images

FIGURES = sorted((Path(__file__).parent.parent / "figures").glob("*/*.png"))


def encoded(image: Image.Image, kind: str = "PNG") -> str:
    """Returns the image as a notebook holds it."""
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return base64.b64encode(buffer.getvalue()).decode()


def decoded(data: str) -> Image.Image:
    """Returns the image that a page would show."""
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB")


def mean_difference(one: Image.Image, other: Image.Image) -> float:
    """Returns how far two images are apart, of 255."""
    return max(ImageStat.Stat(ImageChops.difference(one, other)).mean)


@pytest.mark.parametrize("path", FIGURES[:3], ids=lambda p: f"{p.parent.name}-{p.stem}")
def test_a_recorded_figure_takes_half_the_bytes_and_looks_the_same(path: Path):
    data = base64.b64encode(path.read_bytes()).decode()
    kind, small = images.smallest({"image/png": data})
    assert kind == "image/png" and len(small) < len(data) / 2
    assert decoded(small).size == decoded(data).size and mean_difference(decoded(small), decoded(data)) < 0.2


def test_an_image_of_many_colours_keeps_them():
    image = Image.merge("RGB", [Image.linear_gradient("L"), Image.linear_gradient("L").rotate(90), Image.radial_gradient("L")])
    assert mean_difference(decoded(images.smallest({"image/png": encoded(image)})[1]), image) == 0


def test_what_is_transparent_is_shown_on_white():
    clear = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    clear.paste((200, 0, 0, 255), (0, 0, 8, 8))
    assert decoded(images.thumbnail({"image/png": encoded(clear)})).getpixel((40, 40)) == (255, 255, 255)


def test_the_smaller_form_is_taken():
    noise = encoded(Image.effect_noise((200, 200), 100).convert("RGB"))
    svg = '<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>'
    assert images.smallest({"image/png": noise, "image/svg+xml": svg}) == ("image/svg+xml", base64.b64encode(svg.encode()).decode())
    assert images.smallest({"image/png": encoded(Image.new("RGB", (4, 4))), "image/svg+xml": svg + " " * 9000})[0] == "image/png"


@pytest.mark.parametrize("data", ["", "AAAA", "not base64!", base64.b64encode(b"\x89PNG\r\n\x1a\n" + b"0" * 40).decode()])
def test_what_cannot_be_drawn_is_told(data: str):
    with pytest.raises(images.BrokenImage):
        images.smallest({"image/png": data})
    assert images.thumbnail({"image/png": data}) == ""


def test_half_an_image_is_broken():
    whole = encoded(Image.effect_noise((50, 50), 100))
    with pytest.raises(images.BrokenImage):
        images.smallest({"image/png": whole[: len(whole) // 8 * 4]})


def test_the_pixels_of_a_png_are_read_from_its_head():
    assert images.size_of({"image/png": encoded(Image.new("RGB", (30, 7)))}) == 210
    assert images.size_of({"image/svg+xml": "<svg/>"}) == 0
