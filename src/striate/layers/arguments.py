"""What layers are given: operands, numbers and pairs, each checked with a clear error."""

import operator
from collections.abc import Mapping, Sequence
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from striate.network.graph import Computed, Concatenated, Input, Node, Parameter
from striate.notation.ir import Shape

Array = NDArray[np.float32]
AnyArray = NDArray[np.generic]
Operand = Array | Node
T = TypeVar("T", Array, Node)
Pair = int | Sequence[int]
Layout = Literal["NHWC", "NCHW"]

# Where the axes of `[b, x, y, i]` and `W[u, v, i, j]` go in the other layout.
PERMUTATIONS: Mapping[str, Mapping[str, tuple[int, ...]]] = {
    "NHWC": {},
    "NCHW": {"x": (0, 3, 1, 2), "y": (0, 3, 1, 2), "W": (3, 2, 0, 1)},
}


def is_node(value: object) -> bool:
    """Whether `value` is symbolic."""
    return isinstance(value, Input | Parameter | Computed | Concatenated)


def as_float32(value: object, name: str) -> Array:
    """`value` as float32, without a copy where it is float32 already; raises TypeError."""
    if not isinstance(value, np.ndarray):
        if not isinstance(value, int | float | list | tuple):
            raise TypeError(
                f"{name} is {type(value).__name__}; expected a NumPy array or a symbolic node"
            )
        value = np.asarray(value)
    if value.dtype == np.float32:
        return value if type(value) is np.ndarray else value.view(np.ndarray)
    if value.dtype.kind not in "biuf":
        raise TypeError(
            f"{name} has dtype {value.dtype}; expected float32, or real numbers to convert to it"
        )
    return value.astype(np.float32)


def shape_text(shape: Shape) -> str:
    """`[1, 224, 224, 3]`: a shape as messages show it."""
    return f"[{', '.join(map(str, shape))}]"


def check_rank(name: str, shape: Shape, rank: int, axes: str) -> None:
    """Raise ValueError unless `shape` has `rank` axes, which are called `axes`."""
    if len(shape) != rank:
        raise ValueError(
            f"{name} has {len(shape)} axes, {shape_text(shape)}; expected {rank}: {axes}"
        )


def check_layout(layout: str) -> None:
    """Raise ValueError unless `layout` is known."""
    if layout not in PERMUTATIONS:
        raise ValueError(f"layout is {layout!r}; expected 'NHWC' ([b,x,y,i]) or 'NCHW' ([b,i,x,y])")


def image_shape(name: str, shape: Shape, layout: str) -> tuple[int, int, int, int]:
    """The sizes (b, x, y, i) of an image tensor in `layout`; raises ValueError."""
    check_layout(layout)
    check_rank(name, shape, 4, "[b,x,y,i]" if layout == "NHWC" else "[b,i,x,y]")
    if layout == "NCHW":
        return shape[0], shape[2], shape[3], shape[1]
    return shape[0], shape[1], shape[2], shape[3]


def integer(value: object, name: str, least: int) -> int:
    """`value` as an integer of at least `least`; raises TypeError or ValueError."""
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} is {value!r}; expected an integer") from None
    if number < least:
        raise ValueError(f"{name} is {number}; expected at least {least}")
    return number


def pair(value: Pair, name: str, least: int = 1) -> tuple[int, int]:
    """One number for both rows and columns, or a pair; raises TypeError or ValueError."""
    if isinstance(value, tuple | list | np.ndarray):
        if len(value) != 2:
            raise ValueError(f"{name} is {value!r}; expected one integer or a pair (rows, columns)")
        return integer(value[0], name, least), integer(value[1], name, least)
    number = integer(value, name, least)
    return number, number
