"""Heat maps over a photo: where a dense network sees each of some classes."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from striate.pictures.figures import look

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image

Floats = NDArray[np.floating]

# The longer side of a panel's photo, and what is around it (inches).
_LONGEST = 4.0
_TITLE, _BAR, _GAP = 0.2, 0.85, 0.15
_MOST_COLUMNS = 3
# The photo shows through where it is hottest, and is as it was where nothing is seen.
_OPAQUE = 0.8
_COLOURS = "inferno"


def on_pixels(cells: Floats, rows: Floats, columns: Floats, size: tuple[int, int]) -> Floats:
    """A map `[p,q]` whose cells have their middles at `rows` and `columns`, for `size` pixels.

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


def heat_maps(photo: "Image", maps: Sequence[Floats], titles: Sequence[str]) -> "Figure":
    """A panel for each class: the photo in grey, its map `[x,y]` of probabilities, a colour bar."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    width, height = (side * _LONGEST / max(photo.size) for side in photo.size)
    columns = min(len(maps), _MOST_COLUMNS)
    rows = -(-len(maps) // columns)
    wide, high = width + _GAP + _BAR, height + _TITLE + _GAP
    total = (columns * wide + _GAP, rows * high + _GAP)
    grey = np.asarray(photo.convert("L"))
    with look():
        figure = Figure(figsize=total)
        for number, (values, title) in enumerate(zip(maps, titles, strict=True)):
            left = _GAP + number % columns * wide
            bottom = total[1] - (number // columns + 1) * high
            box = (left / total[0], bottom / total[1], width / total[0], height / total[1])
            panel = figure.add_axes(box)
            panel.imshow(grey, cmap="gray", vmin=0, vmax=255, interpolation="antialiased")
            # An image of nothing but zeros has a bar, too.
            most = max(float(values.max()), 1e-3)
            alpha = _OPAQUE * np.sqrt(np.clip(values / most, 0, 1))
            heat = panel.imshow(values, cmap=_COLOURS, vmin=0, vmax=most, alpha=alpha)
            panel.set_title(title, loc="left", fontsize=9)
            panel.set_axis_off()
            side = ((left + width + 0.07) / total[0], box[1], 0.1 / total[0], box[3])
            bar = figure.colorbar(heat, cax=figure.add_axes(side))
            # Without the map's own transparency.
            if bar.solids is not None:
                bar.solids.set(alpha=1)
            bar.set_label("probability")
            digits = 0 if most > 0.05 else 1 if most > 0.005 else 2
            bar.ax.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=digits))
            bar.outline.set_visible(False)
    return figure
