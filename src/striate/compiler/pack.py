"""Packing of known weights: the copies that schedules ask for, done by NumPy before the run."""

import math
from functools import reduce

import numpy as np
from numpy.lib.stride_tricks import as_strided

from striate.compiler.toom_cook import Matrix
from striate.network.graph import Array
from striate.notation import interpret
from striate.notation.ir import Read, Statement

# Weights (a tap each) transformed at once.
PIECE = 1 << 14


def pack(statement: Statement, array: Array, matrix: Matrix | None = None) -> Array:
    """The output of the copy `packed[...] = array[affine, ...]`; reads past the end are 0.

    One strided view and one copy, whatever the statement permutes, splits or pads. A statement that
    is more than a copy is interpreted. With a `matrix` M the array's first two axes become
    `M array M'` before.
    """
    if matrix is not None:
        array = _transformed(matrix, array)
    source = statement.equation.expression
    if not isinstance(source, Read):
        ((name, _),) = statement.shapes
        packed = aligned(math.prod(statement.shape)).reshape(statement.shape)
        packed[...] = interpret(statement, {name: array})
        return packed
    extents = dict(statement.extents)
    reach = [
        sum(max(c, 0) * (extents[i] - 1) for i, c in affine.terms) + affine.offset + 1
        for affine in source.access
    ]
    beyond = [max(n - size, 0) for n, size in zip(reach, array.shape, strict=True)]
    if any(beyond):
        array = np.pad(array, [(0, n) for n in beyond])
    array = array[tuple(slice(affine.offset, None) for affine in source.access)]
    order = [affine.index for affine in statement.equation.output.access]
    assert None not in order
    strides = [
        sum(s * a.coefficient(i or "") for s, a in zip(array.strides, source.access, strict=True))
        for i in order
    ]
    view = as_strided(array, statement.shape, strides, writeable=False)
    packed = aligned(math.prod(statement.shape)).reshape(statement.shape)
    np.copyto(packed, view)
    return packed


def _transformed(matrix: Matrix, array: Array) -> Array:
    """`M array M'` over the first two axes, in pieces that stay in a cache.

    Not through BLAS: its threads take longer to wake than these thin products to be made.
    """
    side, taps = len(matrix), array.shape[0]
    flat = np.ascontiguousarray(array).reshape(taps, taps, -1)
    result = np.empty((side, side, flat.shape[2]), np.float32)
    for start in range(0, flat.shape[2], PIECE):
        piece = slice(start, start + PIECE)
        for i, row in enumerate(_combined(matrix, list(flat[:, :, piece]))):
            for j, value in enumerate(_combined(matrix, list(row))):
                result[i, j, piece] = value
    return result.reshape(side, side, *array.shape[2:])


def _combined(matrix: Matrix, parts: list[Array]) -> list[Array]:
    """The sums of coefficient * part, one for each row of `matrix`."""
    return [
        reduce(np.add, [np.float32(c) * part for c, part in zip(row, parts, strict=True) if c])
        for row in matrix
    ]


def aligned(count: int) -> Array:
    """`count` float32 that begin on a cache line."""
    memory = np.empty(count * 4 + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + count * 4].view(np.float32)
