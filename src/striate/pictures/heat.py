"""Heat maps over a photo: where a network sees a class, or what its answer rests on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from striate.pictures.figures import WIDTH, axes, canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Floats = NDArray[np.floating]
Image = NDArray[np.uint8]

# Pixels: the picture's title, a panel's, what is between panels, a bar, and that with its numbers.
_HEAD, _TITLE, _GAP, _BAR, _SCALE = 30, 18, 12, 10, 58
_COLUMNS, _MOST_HIGH = 2, 420
# The photo shows through where it is hottest, and is as it was where nothing is seen.
_OPAQUE = 0.8
_COLOURS = "inferno"


def on_pixels(cells: Floats, rows: Floats, columns: Floats, size: tuple[int, int]) -> Floats:
    """Maps `[...,p,q]` whose cells have their middles at `rows` and `columns`, for `size` pixels.

    Bilinear between the middles; beyond the outermost ones their value goes on. Pixel n runs from
    n to n + 1.
    """
    down = _weights(np.arange(size[0]) + 0.5, rows)
    across = _weights(np.arange(size[1]) + 0.5, columns)
    result: Floats = down @ cells @ across.T
    return result


def _weights(places: Floats, middles: Floats) -> Floats:
    """The matrix `[place, middle]` that interpolates linearly between `middles`, which rise."""
    between = np.interp(places, middles, np.arange(len(middles), dtype=np.float64))
    first = np.minimum(between.astype(np.int64), max(0, len(middles) - 2))
    weights = np.zeros((len(places), len(middles)))
    numbers = np.arange(len(places))
    weights[numbers, first] = 1 - (between - first)
    if len(middles) > 1:
        weights[numbers, first + 1] = between - first
    return weights


@dataclass(frozen=True, slots=True)
class Heat:
    """A `photo` `[x,y,3]`, then the same in grey under each of `maps` `[x,y]` with its title.

    More is warmer; nothing below 0 is shown. `scale` says what is mapped; `shares` that it is to be
    written in per cent.
    """

    title: str
    photo: Image
    maps: Sequence[tuple[str, Floats]]
    scale: str
    shares: bool = False

    @property
    def _size(self) -> tuple[float, float]:
        """Width and height of each photo."""
        high, wide, _ = self.photo.shape
        room = (WIDTH - _GAP) / _COLUMNS - _GAP - _SCALE
        factor = min(room / wide, _MOST_HIGH / high)
        return wide * factor, high * factor

    @property
    def height(self) -> float:
        """Pixels."""
        rows = -(-(1 + len(self.maps)) // _COLUMNS)
        return _HEAD + rows * (_TITLE + self._size[1] + _GAP)

    def draw(self, figure: "Figure", top: float, height: float) -> None:
        """Draw it with its upper edge `top` pixels under that of a figure of so many pixels."""
        pad = canvas(figure, top, height, self.height)
        pad.text(WIDTH / 2, 16, self.title, ha="center", va="center", fontsize=9.5)
        wide, high = self._size
        step = wide + _GAP + _SCALE
        edge = (WIDTH - _COLUMNS * step) / 2
        red, green, blue = np.moveaxis(self.photo.astype(np.float32), -1, 0)
        grey = 0.299 * red + 0.587 * green + 0.114 * blue
        for number, (title, values) in enumerate([("", None), *self.maps]):
            row, column = divmod(number, _COLUMNS)
            left = edge + column * step
            upper = _HEAD + row * (_TITLE + high + _GAP) + _TITLE
            panel = axes(figure, top, height, (left, upper, wide, high))
            panel.set_title(title, loc="left", fontsize=8, pad=4)
            panel.set_axis_off()
            if values is None:
                panel.imshow(self.photo)
                continue
            panel.imshow(grey, cmap="gray", vmin=0, vmax=255)
            side = axes(figure, top, height, (left + wide + 6, upper, _BAR, high))
            self._lay(values, panel, side)

    def _lay(self, values: Floats, panel: "Axes", side: "Axes") -> None:
        """The map over its photo, and its bar."""
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import Normalize
        from matplotlib.ticker import PercentFormatter

        # A map of nothing but zeros has a bar, too.
        most = max(float(values.max()), 1e-3)
        shades = Normalize(0, most)
        strength = _OPAQUE * np.sqrt(np.clip(values / most, 0, 1))
        panel.imshow(values, cmap=_COLOURS, norm=shades, alpha=strength)
        panel.figure.colorbar(ScalarMappable(shades, _COLOURS), cax=side)
        side.set_ylabel(self.scale, fontsize=7)
        side.tick_params(labelsize=6.5, width=0.5, length=2)
        if self.shares:
            digits = 0 if most > 0.05 else 1 if most > 0.005 else 2
            side.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=digits))
