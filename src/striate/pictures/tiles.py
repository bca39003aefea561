"""Many small images side by side: filters, and the feature maps of an image."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from striate.pictures.figures import GREY, WIDTH, axes

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Array = NDArray[np.floating]

_TITLE, _GAP, _LABEL, _EDGE = 34, 4, 11, 12


@dataclass(frozen=True, slots=True)
class Tiles:
    """Images `[n, x, y]` from 0 to 1, or `[n, x, y, 3]` in colour, each with a label below it."""

    title: str
    images: Array
    labels: tuple[str, ...] = ()
    columns: int = 8

    @property
    def _size(self) -> tuple[float, float]:
        """Width and height of a tile (pixels)."""
        columns = min(self.columns, len(self.images))
        width = (WIDTH - 2 * _EDGE - (self.columns - 1) * _GAP) / max(self.columns, columns)
        return width, width * self.images.shape[1] / self.images.shape[2]

    @property
    def _step(self) -> float:
        """From the top of one row of tiles to that of the next."""
        return self._size[1] + _GAP + (_LABEL if self.labels else 0)

    @property
    def height(self) -> float:
        """Pixels."""
        return _TITLE + math.ceil(len(self.images) / self.columns) * self._step + _EDGE

    def draw(self, figure: "Figure", top: float, height: float) -> None:
        """Draw it with its upper edge `top` pixels under that of a figure of so many pixels."""
        y = 1 - (top + 16) / height
        figure.text(0.5, y, self.title, ha="center", va="center", fontsize=9.5)
        width, high = self._size
        for number, image in enumerate(self.images):
            row, column = divmod(number, self.columns)
            place = (_EDGE + column * (width + _GAP), _TITLE + row * self._step, width, high)
            tile = axes(figure, top, height, place)
            tile.imshow(image, cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
            tile.set_axis_off()
            if self.labels:
                below = -4 / high
                tile.text(
                    0.5,
                    below,
                    self.labels[number],
                    fontsize=5.8,
                    color=GREY,
                    ha="center",
                    va="top",
                    transform=tile.transAxes,
                )


def filters(weights: Array) -> Array:
    """Filters `[u, v, 3, j]` as images in colour `[j, u, v, 3]`: grey is 0, all on one scale.

    Of one feature, `[u, v, 1, j]`, they are in greys.
    """
    largest = float(np.abs(weights).max()) or 1.0
    images = np.moveaxis(0.5 + 0.5 * weights / largest, -1, 0)
    return np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images


def stretched(maps: Array) -> Array:
    """Each image `[n, x, y]` from 0, its least value, to 1, its largest."""
    low = maps.min(axis=(1, 2), keepdims=True)
    high = maps.max(axis=(1, 2), keepdims=True)
    return np.asarray((maps - low) / np.where(high > low, high - low, 1))
