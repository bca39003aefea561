"""Memory for kernels: arrays on cache lines, code that may run, and where functions lie."""

import ctypes
import math
import mmap
import os
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64

_byte_of: Callable[[Any], ctypes.c_char] = ctypes.c_char.from_buffer
_FLOAT32 = np.dtype(np.float32)


def address(array: NDArray[np.generic]) -> int:
    """Where the first element of `array` lies."""
    try:
        # A third of the time of `array.ctypes.data`, which asks for less.
        return ctypes.addressof(_byte_of(array))
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


def executable_memory(content: bytes | bytearray) -> mmap.mmap:
    """Memory of its own, from a page's start, that holds `content` and may be executed.

    It is never writable and executable at once. Raises OSError where the system forbids it.
    """
    memory = mmap.mmap(-1, max(len(content), 1))
    memory[: len(content)] = bytes(content)
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    start = ctypes.addressof(_byte_of(memory))
    if protect(start, len(memory), mmap.PROT_READ | mmap.PROT_EXEC):
        number = ctypes.get_errno()
        raise OSError(number, f"memory cannot be made executable: {os.strerror(number)}")
    return memory


def symbol(name: str) -> int:
    """The address of `name` in the C library that Python itself uses, or 0."""
    try:
        return ctypes.cast(getattr(ctypes.CDLL(None), name), ctypes.c_void_p).value or 0
    except (AttributeError, OSError, TypeError):
        return 0
