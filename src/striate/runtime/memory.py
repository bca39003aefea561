"""Arrays whose first element lies on a cache line, as the kernels' vector loads want it."""

import ctypes
import math

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64

_Byte = ctypes.c_char
_FLOAT32 = np.dtype(np.float32)


def address(array: NDArray[np.generic]) -> int:
    """Where the first element of `array` lies."""
    try:
        # A quarter of the time of `array.ctypes.data`, which asks for less.
        return ctypes.addressof(_Byte.from_buffer(array.data))
    except (TypeError, ValueError):
        # A buffer that can't be written, isn't contiguous or is empty.
        return int(array.ctypes.data)


def aligned_bytes(size: int, alignment: int = ALIGNMENT) -> NDArray[np.uint8]:
    """`size` bytes of zeros; memory that isn't touched isn't taken."""
    block = np.zeros(size + alignment, np.uint8)
    skip = -address(block) % alignment
    return block[skip : skip + size]


def aligned_empty(shape: tuple[int, ...]) -> NDArray[np.float32]:
    """An uninitialised float32 array of `shape`."""
    block = np.empty(4 * math.prod(shape) + ALIGNMENT, np.uint8)
    return np.ndarray(shape, _FLOAT32, block.data, -address(block) % ALIGNMENT)


def aligned_copy(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """`array` itself if it is C-contiguous and aligned, else an equal one that is."""
    if array.flags.c_contiguous and address(array) % ALIGNMENT == 0:
        return array
    copy = aligned_empty(array.shape)
    copy[...] = array
    return copy
