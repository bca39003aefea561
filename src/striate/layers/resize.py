"""Resizing of images: which pixels an output lies between is a division in the equation's index."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from striate.layers.apply import apply
from striate.layers.arguments import Array, Layout, Operand, Pair, T, image_shape, pair

Scale = float | Sequence[float]

NEAREST = "y[b,p,q,i] = x[b, (n*p+o)//m, (k*q+r)//l, i]"
BILINEAR = "y[b,p,q,i] = sum[u,v](R[p,u] * C[q,v] * x[b, (n*p+m*u+o)//m, (k*q+l*v+r)//l, i])"
MODES = ("nearest", "bilinear")
# A scale factor is taken for the fraction next to it, so that pixels are found in integers.
LARGEST_DENOMINATOR = 4096


@dataclass(frozen=True, slots=True)
class Grid:
    """Where `outputs` lie among `places` along one axis: output p at (step * p + offset) / over."""

    places: int
    outputs: int
    step: int
    offset: int
    over: int


def interpolate(
    input: T,
    size: Pair | None = None,
    scale_factor: Scale | None = None,
    mode: str = "nearest",
    align_corners: bool = False,
    *,
    layout: Layout = "NHWC",
) -> T:
    """The images at another `size` (rows, columns), or `scale_factor` times as large, rounded down.

    Mode "nearest" takes pixel floor(p * H / P); "bilinear" weighs the four pixels around
    (p + 1/2) * H / P - 1/2, pixels beyond the edge being the edge's (no smoothing when it
    shrinks), or with `align_corners` those around p * (H - 1) / (P - 1). A scale factor stands for
    P / H as it is, also where P was rounded. `input[b,x,y,i]` to `[b,p,q,i]`. Raises ValueError,
    TypeError.
    """
    _, h, w, _ = image_shape("interpolate: input", tuple(input.shape), layout)
    if mode not in MODES:
        raise ValueError(f"interpolate: mode is {mode!r}; expected 'nearest' or 'bilinear'")
    if align_corners and mode == "nearest":
        raise ValueError("interpolate: align_corners is for mode 'bilinear'; mode is 'nearest'")
    (rows, down), (columns, across) = _sizes((h, w), size, scale_factor)
    grids = [
        _grid(places, outputs, ratio, mode, align_corners)
        for places, outputs, ratio in ((h, rows, down), (w, columns, across))
    ]
    operands: dict[str, Operand | None] = {"x": input}
    sizes = {"p": rows, "q": columns}
    if mode == "bilinear":
        operands |= {"R": taps(grids[0]), "C": taps(grids[1])}
        sizes |= {"u": 2, "v": 2}
    constants = {
        name: value
        for names, grid in zip(("nom", "krl"), grids, strict=True)
        for name, value in zip(names, (grid.step, grid.offset, grid.over), strict=True)
    }
    text = BILINEAR if mode == "bilinear" else NEAREST
    return apply(
        text, operands, input, sizes=sizes, layout=layout, label="interpolate", constants=constants
    )


def taps(grid: Grid) -> Array:
    """Weights `[outputs, 2]` of the two pixels that each output lies between, along one axis."""
    # In integers, as in the equation: a rounded floor would take another pair of pixels.
    first, rest = np.divmod(grid.step * np.arange(grid.outputs) + grid.offset, grid.over)
    upper = rest / grid.over
    upper = np.where(first < 0, 1.0, np.where(first >= grid.places - 1, 0.0, upper))
    return np.stack([1.0 - upper, upper], 1).astype(np.float32)


def _sizes(
    image: tuple[int, int], size: Pair | None, scale_factor: Scale | None
) -> list[tuple[int, Fraction]]:
    """Rows and columns of the output, each with the pixels of the input to one of the output."""
    if (size is None) == (scale_factor is None):
        raise ValueError("interpolate: expected either size or scale_factor")
    if size is not None:
        wanted = pair(size, "interpolate: size")
        return [(n, Fraction(places, n)) for places, n in zip(image, wanted, strict=True)]
    return [
        _scaled(places, factor)
        for places, factor in zip(image, _factors(scale_factor), strict=True)
    ]


def _factors(scale_factor: object) -> tuple[float, float]:
    """One factor for rows and columns, or a pair; raises TypeError or ValueError."""
    if isinstance(scale_factor, tuple | list | np.ndarray):
        if len(scale_factor) != 2:
            raise ValueError(
                f"interpolate: scale_factor is {scale_factor!r}; expected a number or a pair "
                "(rows, columns)"
            )
        return _factor(scale_factor[0]), _factor(scale_factor[1])
    return _factor(scale_factor), _factor(scale_factor)


def _factor(value: object) -> float:
    if not isinstance(value, int | float | np.integer | np.floating) or isinstance(value, bool):
        raise TypeError(f"interpolate: scale_factor is {value!r}; expected a number")
    number = float(value)
    if not 0 < number < math.inf:
        raise ValueError(f"interpolate: scale_factor is {value}; expected a number above 0")
    return number


def _scaled(places: int, factor: float) -> tuple[int, Fraction]:
    outputs = math.floor(places * factor)
    if outputs < 1:
        raise ValueError(
            f"interpolate: scale_factor {factor} leaves nothing of {places} pixels; "
            f"expected at least {1 / places:.4g}"
        )
    near = Fraction(factor).limit_denominator(LARGEST_DENOMINATOR)
    # A fraction too small would read past the last pixel.
    ratio = 1 / near if near else Fraction(0)
    fits = near > 0 and (outputs - 1) * ratio < places
    return outputs, ratio if fits else Fraction(places, outputs)


def _grid(places: int, outputs: int, ratio: Fraction, mode: str, align_corners: bool) -> Grid:
    n, m = ratio.numerator, ratio.denominator
    if mode == "nearest":
        return Grid(places, outputs, n, 0, m)
    if align_corners:
        return Grid(places, outputs, places - 1 if outputs > 1 else 0, 0, max(outputs - 1, 1))
    # (p + 1/2) * n / m - 1/2
    return Grid(places, outputs, 2 * n, n - m, 2 * m)
