"""What is drawn on a photo: the pixels that cells of a network depend on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from striate.pictures.figures import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    SKY,
    WIDTH,
    YELLOW,
    axes,
    canvas,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Image = NDArray[np.uint8]

_TITLE, _EDGE = 34, 34
_PHOTO = 420
_COLOURS = (YELLOW, ORANGE, SKY, PINK, GREEN, BLUE)


@dataclass(frozen=True, slots=True)
class Mark:
    """A rectangle of pixels, and what is said of it."""

    name: str
    words: Sequence[str]
    rows: range
    columns: range


@dataclass(frozen=True, slots=True)
class Fields:
    """Receptive fields on a `photo` `[x, y, 3]`; around a single one the photo is pale."""

    title: str
    photo: Image
    marks: Sequence[Mark]

    @property
    def _high(self) -> float:
        return _fitted(self.photo)[1]

    @property
    def height(self) -> float:
        """Pixels."""
        return _TITLE + max(self._high, 60 * len(self.marks)) + _EDGE

    def draw(self, figure: "Figure", top: float, height: float) -> None:
        """Draw it with its upper edge `top` pixels under that of a figure of so many pixels."""
        from matplotlib.patches import Rectangle

        pad = canvas(figure, top, height, self.height)
        pad.text(WIDTH / 2, 16, self.title, ha="center", va="center", fontsize=9.5)
        wide, _ = _fitted(self.photo)
        drawing = axes(figure, top, height, (_EDGE, _TITLE, wide, self._high))
        shown = _around(self.photo, self.marks[0]) if len(self.marks) == 1 else self.photo
        _photo(drawing, shown)
        left = _EDGE + wide + 24
        for number, mark in enumerate(self.marks):
            colour = _COLOURS[number % len(_COLOURS)]
            place = (mark.columns.start - 0.5, mark.rows.start - 0.5)
            for thickness, line in ((3.2, "black"), (1.8, colour)):
                frame = Rectangle(
                    place,
                    len(mark.columns),
                    len(mark.rows),
                    fill=False,
                    edgecolor=line,
                    linewidth=thickness,
                )
                drawing.add_patch(frame)
            y = _TITLE + 8 + 60 * number
            pad.add_patch(
                Rectangle((left, y - 6), 14, 12, facecolor=colour, edgecolor="black", linewidth=0.6)
            )
            pad.text(left + 22, y, mark.name, fontsize=8, fontweight="bold", va="center")
            for line_number, words in enumerate(mark.words, 1):
                pad.text(left + 22, y + 13 * line_number, words, fontsize=7, va="center")


def _fitted(photo: Image) -> tuple[float, float]:
    """Width and height of the photo in the picture."""
    rows, columns, _ = photo.shape
    scale = _PHOTO / max(rows, columns)
    return columns * scale, rows * scale


def _photo(drawing: "Axes", photo: Image) -> None:
    """The photo with its pixels counted on both sides."""
    drawing.imshow(photo)
    drawing.tick_params(labelsize=6.5, width=0.5, length=2, colors=GREY)


def _around(photo: Image, mark: Mark) -> Image:
    """The photo, pale where it is not marked."""
    pale = (255 - (255 - photo.astype(np.float32)) * 0.35).astype(np.uint8)
    inside = np.ix_(mark.rows, mark.columns)
    pale[inside] = photo[inside]
    return pale
