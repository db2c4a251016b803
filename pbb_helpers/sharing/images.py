"""Images of a page: as few bytes as show the same, and thumbnails."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping

FORMS = ("image/png", "image/jpeg", "image/svg+xml")
DIFFERENCE = 0.5  # of 255, mean over the image: a figure of lines and text stays far below, a photograph does not


class BrokenImage(ValueError):
    """What is said to be an image can't be drawn."""


def smallest(forms: Mapping[str, str]) -> tuple[str, str]:
    """Returns (kind, base64) of the image that takes the fewest bytes, of the forms in which a notebook holds it.

    A PNG of few colours is written with a palette: a third of the bytes, and hardly a pixel differs.

    Args:
        forms: MIME type → what a notebook holds: base64, or the text of an SVG.

    Raises:
        BrokenImage: None of them can be drawn.
    """
    found, broken = [], BrokenImage("no image")
    for kind in (kind for kind in FORMS if kind in forms):
        try:
            found.append((kind, _encoded(kind, forms[kind])))
        except BrokenImage as error:
            broken = error
    if not found:
        raise broken
    return min(found, key=lambda form: len(form[1]))


def thumbnail(forms: Mapping[str, str], width: int = 320) -> str:
    """Returns a PNG or JPEG as a PNG of at most `width` × `width` pixels, base64; "" for one that can't be drawn."""
    from PIL import Image

    image = next((image for kind in FORMS[:2] if kind in forms and (image := _opened(forms[kind]))), None)
    if image is None:
        return ""
    image.thumbnail((width, width))
    # Median cut spends its colours on the many greys around black text; lines keep theirs by coverage.
    return base64.b64encode(_png(image.quantize(64, Image.Quantize.MAXCOVERAGE))).decode()


def size_of(forms: Mapping[str, str]) -> int:
    """Returns the pixels of a PNG from its header; 0 where there is none."""
    try:
        head = base64.b64decode(forms.get("image/png", "")[:32])[16:24]
    except ValueError:
        return 0
    return int.from_bytes(head[:4], "big") * int.from_bytes(head[4:], "big")


def _encoded(kind: str, data: str) -> str:
    if kind == "image/svg+xml":
        if "<svg" not in data:
            raise BrokenImage("an SVG without <svg>")
        return base64.b64encode(data.encode()).decode()
    image = _opened(data)
    if image is None:
        raise BrokenImage(f"{kind} that cannot be decoded")
    data = "".join(data.split())
    if kind == "image/jpeg":
        return data
    small = base64.b64encode(_png(_with_palette(image))).decode()
    return min(small, data, key=len)


def _opened(data: str):
    """Returns the image on white, as a page would show it on paper, or None."""
    from PIL import Image

    try:
        image = Image.open(io.BytesIO(base64.b64decode(data)))
        image = image.convert("RGBA")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _with_palette(image):
    from PIL import Image, ImageChops, ImageStat

    few = image.quantize(256, dither=Image.Dither.NONE)
    difference = ImageStat.Stat(ImageChops.difference(image, few.convert("RGB"))).mean
    return few if max(difference) <= DIFFERENCE else image


def _png(image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
