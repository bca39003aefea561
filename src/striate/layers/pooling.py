"""Pooling: the largest or the mean value of windows."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from striate.layers.apply import apply
from striate.layers.arguments import (
    Array,
    Layout,
    Operand,
    Pair,
    T,
    image_shape,
    integer,
    pair,
)
from striate.notation import parse, resolve

MAX_POOL = "y[b,p,q,i] = max[u,v](x[b, s*p+d*u-a, t*q+e*v-c, i])"
SUM_POOL = "y[b,p,q,i] = sum[u,v](x[b, s*p+d*u-a, t*q+e*v-c, i])"
AVERAGE_POOL = SUM_POOL + " / n"
MEAN_POOL = SUM_POOL.replace("sum", "mean")
PAD = "y[b,p,q,i] = x[b, p-a, q-c, i]"
GLOBAL_AVERAGE = "y[b,i] = sum[u,v](x[b,u,v,i]) / n"
AVERAGE_ROWS = "y[b,p,q,i] = sum[u](R[p,u] * x[b,u,q,i])"
AVERAGE_COLUMNS = "y[b,p,q,i] = sum[v](C[q,v] * x[b,p,v,i])"


def max_pool2d(
    input: T,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    *,
    layout: Layout = "NHWC",
) -> T:
    """The largest value in every window; the padding never wins.

    `input[b,x,y,i]` to `[b,p,q,i]`; sizes in pixels, one number or (rows, columns); the stride is
    the window's size if not given. With `ceil_mode` a last window may reach over the edge, unless
    it would start in the padding. Raises ValueError, TypeError.
    """
    sizes, steps = _window("max_pool2d", kernel_size, stride, padding, dilation)
    image_shape("max_pool2d: input", tuple(input.shape), layout)
    return apply(
        MAX_POOL,
        {"x": input},
        input,
        sizes=sizes,
        ceil_mode=ceil_mode,
        layout=layout,
        label="max_pool2d",
        constants=steps,
    )


def avg_pool2d(
    input: T,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    dilation: Pair = 1,
    layout: Layout = "NHWC",
) -> T:
    """The mean of every window: `input[b,x,y,i]` to `[b,p,q,i]`.

    The divisor counts the window's places within the image and, with `count_include_pad`, its
    padding, but nothing beyond the padding (where ceil mode may reach); `divisor_override`
    replaces it. Sizes as in `max_pool2d`. Raises ValueError, TypeError.
    """
    sizes, steps = _window("avg_pool2d", kernel_size, stride, padding, dilation)
    _, h, w, features = image_shape("avg_pool2d: input", tuple(input.shape), layout)
    statement = resolve(
        parse(SUM_POOL, sizes=sizes, **steps), {"x": (1, h, w, features)}, ceil_mode=ceil_mode
    )
    _, rows, columns, _ = statement.shape
    text = AVERAGE_POOL
    if divisor_override is not None:
        steps |= {"n": integer(divisor_override, "avg_pool2d: divisor_override", 1)}
    else:
        include = count_include_pad
        taps = _counts(rows, h, sizes["u"], steps["s"], steps["d"], steps["a"], include)
        across = _counts(columns, w, sizes["v"], steps["t"], steps["e"], steps["c"], include)
        if np.ptp(taps) == 0 and np.ptp(across) == 0:
            steps |= {"n": int(taps[0] * across[0])}
        else:
            text = MEAN_POOL
            if include:
                # A mean leaves out what lies beyond its tensor: the padding has to be within.
                input, steps = _padded(input, steps, layout), steps | {"a": 0, "c": 0}
    return apply(
        text,
        {"x": input},
        input,
        sizes=sizes | {"p": rows, "q": columns},
        layout=layout,
        label="avg_pool2d",
        constants=steps,
    )


def adaptive_avg_pool2d(
    input: T, output_size: int | tuple[int | None, int | None], *, layout: Layout = "NHWC"
) -> T:
    """The means of `output_size` (rows, columns) windows that cover the image; None keeps a size.

    Window k of n over H places runs from floor(k*H/n) to ceil((k+1)*H/n); windows overlap where n
    does not divide H. `input[b,x,y,i]` to `[b,p,q,i]`. Raises ValueError, TypeError.
    """
    _, h, w, _ = image_shape("adaptive_avg_pool2d: input", tuple(input.shape), layout)
    wanted = output_size if isinstance(output_size, tuple | list) else (output_size, output_size)
    rows, columns = pair(
        [size if n is None else n for n, size in zip(wanted, (h, w), strict=True)],
        "adaptive_avg_pool2d: output_size",
    )
    if h % rows == 0 and w % columns == 0:
        window = (h // rows, w // columns)
        return input if window == (1, 1) else avg_pool2d(input, window, layout=layout)
    result = input
    label = "adaptive_avg_pool2d"
    if rows != h:
        operands: dict[str, Operand | None] = {"x": result, "R": averaging(h, rows)}
        result = apply(AVERAGE_ROWS, operands, result, layout=layout, label=label)
    if columns != w:
        operands = {"x": result, "C": averaging(w, columns)}
        result = apply(AVERAGE_COLUMNS, operands, result, layout=layout, label=label)
    return result


def global_avg_pool2d(input: T, *, layout: Layout = "NHWC") -> T:
    """The mean over all pixels: `input[b,x,y,i]` to `[b,i]`."""
    _, h, w, _ = image_shape("global_avg_pool2d: input", tuple(input.shape), layout)
    return apply(
        GLOBAL_AVERAGE,
        {"x": input},
        input,
        layout=layout,
        label="global_avg_pool2d",
        constants={"n": h * w},
    )


def averaging(places: int, windows: int) -> Array:
    """The matrix `[windows, places]` whose row k takes the mean over adaptive window k."""
    matrix = np.zeros((windows, places), np.float32)
    for k in range(windows):
        first, last = k * places // windows, -(-(k + 1) * places // windows)
        matrix[k, first:last] = 1.0 / (last - first)
    return matrix


def _window(
    name: str, kernel_size: Pair, stride: Pair | None, padding: Pair, dilation: Pair
) -> tuple[dict[str, int], dict[str, int]]:
    """Sizes of the window's indices, and the constants of its equation."""
    u, v = pair(kernel_size, f"{name}: kernel_size")
    s, t = (u, v) if stride is None else pair(stride, f"{name}: stride")
    d, e = pair(dilation, f"{name}: dilation")
    a, c = pair(padding, f"{name}: padding", 0)
    if 2 * a > d * (u - 1) + 1 or 2 * c > e * (v - 1) + 1:
        raise ValueError(
            f"{name}: padding {(a, c)} is more than half of the window, "
            f"{(d * (u - 1) + 1, e * (v - 1) + 1)} pixels; a window would hold nothing but padding"
        )
    return {"u": u, "v": v}, {"s": s, "t": t, "d": d, "e": e, "a": a, "c": c}


def _counts(
    windows: int, places: int, size: int, stride: int, dilation: int, padding: int, include: bool
) -> NDArray[np.int64]:
    """How many places each window along one axis is divided by."""
    start = np.arange(windows)[:, None] * stride - padding
    read = start + dilation * np.arange(size)
    inside = read < places + padding if include else (read >= 0) & (read < places)
    counts: NDArray[np.int64] = inside.sum(axis=1, dtype=np.int64)
    return counts


def _padded(input: T, steps: Mapping[str, int], layout: Layout) -> T:
    """`input` with a border of zeros as wide as the window's padding."""
    _, h, w, _ = image_shape("avg_pool2d: input", tuple(input.shape), layout)
    a, c = steps["a"], steps["c"]
    sizes = {"p": h + 2 * a, "q": w + 2 * c}
    constants = {"a": a, "c": c}
    return apply(
        PAD, {"x": input}, input, sizes=sizes, layout=layout, label="pad", constants=constants
    )
