"""What was found in a photo, laid over it: an object cut out, regions in colours."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFilter

from striate.pictures.figures import AMBER, BLUE, GREEN, INK, ORANGE, PINK, SKY, YELLOW

Pixels = NDArray[np.int64]

_PALETTE = (BLUE, ORANGE, GREEN, PINK, YELLOW, SKY, AMBER, INK)
_EDGE = (255, 255, 255)
# The share of what is not the object that stays of its grey, and of a region's colour in it.
_DIMMED, _COLOURED = 0.45, 0.55


def cut_out(
    image: Image.Image,
    mask: NDArray[np.bool_],
    inside: Pixels | None = None,
    outside: Pixels | None = None,
) -> Image.Image:
    """The photo (RGB) with all but bool`mask[x,y]` dimmed to grey, and a line around the object.

    Pixels `[n, 2]` (row, column) are marked: those inside green, those outside pink.
    """
    grey = np.asarray(image.convert("L"), np.float32)[..., np.newaxis] * _DIMMED
    shown = np.where(mask[..., np.newaxis], np.asarray(image, np.float32), grey)
    return _marked(shown, _edges(mask, image), ((inside, GREEN), (outside, PINK)))


def coloured(image: Image.Image, numbers: NDArray[np.int64]) -> Image.Image:
    """The photo (RGB) with each region of `numbers[x,y]` in a colour, and lines between them."""
    colours = np.array(palette(int(numbers.max()) + 1), np.float32)[numbers]
    grey = np.asarray(image.convert("L"), np.float32)[..., np.newaxis]
    shown = _COLOURED * colours + (1 - _COLOURED) * grey
    return _marked(shown, _edges(numbers, image), ())


def palette(count: int) -> list[tuple[int, int, int]]:
    """`count` colours; after the first eight they come back lighter."""
    colours = []
    for number in range(count):
        again, place = divmod(number, len(_PALETTE))
        light = 1 - 0.65**again
        red, green, blue = (
            round(c + (255 - c) * light) for c in ImageColor.getrgb(_PALETTE[place])[:3]
        )
        colours.append((red, green, blue))
    return colours


def _edges(numbers: NDArray[np.generic], image: Image.Image) -> NDArray[np.bool_]:
    """Where two kinds of pixels meet, as a line that is seen at the image's size."""
    meet = np.zeros(numbers.shape, bool)
    meet[1:] |= numbers[1:] != numbers[:-1]
    meet[:, 1:] |= numbers[:, 1:] != numbers[:, :-1]
    width = 2 * (max(image.size) // 800) + 1
    line = Image.fromarray(meet).convert("L").filter(ImageFilter.MaxFilter(width))
    return np.asarray(line) > 0


def _marked(
    shown: NDArray[np.float32],
    edges: NDArray[np.bool_],
    marks: tuple[tuple[Pixels | None, str], ...],
) -> Image.Image:
    values = np.rint(shown).astype(np.uint8)
    values[edges] = _EDGE
    picture = Image.fromarray(values)
    draw = ImageDraw.Draw(picture)
    radius = max(4, max(picture.size) // 120)
    for pixels, colour in marks:
        for row, column in () if pixels is None else pixels.tolist():
            box = (column - radius, row - radius, column + radius, row + radius)
            draw.ellipse(box, fill=colour, outline=_EDGE, width=max(1, radius // 3))
    return picture
