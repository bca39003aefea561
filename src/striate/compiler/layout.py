"""Where the elements of a tensor lie in memory."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from striate.notation.ir import Shape

# Margin of zeros around the rows and columns of an image: (top, bottom, left, right) in pixels.
Halo = tuple[int, int, int, int]
NO_HALO: Halo = (0, 0, 0, 0)
CACHE_LINE = 64
# Pixels this many bytes apart share two sets of a 32 KiB cache.
CONFLICT = 2048


@dataclass(frozen=True, slots=True)
class Layout:
    """`strides` in bytes, one for each axis; `halo` pixels of zeros around axes 1 and 2."""

    shape: Shape
    strides: tuple[int, ...]
    halo: Halo = NO_HALO

    @staticmethod
    def dense(shape: Shape) -> "Layout":
        """Row-major, nothing between the elements."""
        return Layout(shape, _row_major(shape))

    @staticmethod
    def padded(shape: Shape, halo: Halo) -> "Layout":
        """Row-major with `halo` around every image of `[b, x, y, i]`.

        Pixels that lie a large power of two apart would fall on the same few sets of the caches:
        they are moved apart by a cache line.
        """
        if len(shape) != 4:
            return Layout.dense(shape)
        batch, rows, columns, features = shape
        top, bottom, left, right = halo
        pitch = features if 4 * features % CONFLICT else features + CACHE_LINE // 4
        outer = (batch, rows + top + bottom, columns + left + right, pitch)
        return Layout(shape, _row_major(outer), halo)

    @property
    def origin(self) -> int:
        """Bytes from the start of the memory to element [0, ..., 0]."""
        top, _, left, _ = self.halo
        return top * self.strides[1] + left * self.strides[2] if any(self.halo) else 0

    @property
    def nbytes(self) -> int:
        """Bytes from the start of the memory to its end."""
        if self.halo == NO_HALO:
            last = sum((n - 1) * stride for n, stride in zip(self.shape, self.strides, strict=True))
            return last + 4
        return self.shape[0] * self.strides[0]


def _row_major(shape: Shape) -> tuple[int, ...]:
    return strides_in(tuple(range(len(shape))), shape)


def memory_order(array: NDArray[np.float32]) -> tuple[int, ...]:
    """The axes of `array` in which it is C-contiguous, or as they are if there are none such.

    Weights from files are permutations of contiguous arrays, which need no copy.
    """
    order = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])
    flags = array.transpose(order).flags
    return tuple(order if flags.c_contiguous and flags.aligned else range(array.ndim))


def strides_in(order: tuple[int, ...], shape: Shape) -> tuple[int, ...]:
    """The strides (bytes) of an array of `shape` that is contiguous in the `order` of its axes."""
    strides = [0] * len(shape)
    step = 4
    for axis in reversed(order):
        strides[axis] = step
        step *= shape[axis]
    return tuple(strides)
