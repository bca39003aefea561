"""Packing of known weights: the copies that schedules ask for, done by NumPy before the run."""

import math

import numpy as np
from numpy.lib.stride_tricks import as_strided

from striate.compiler.toom_cook import Matrix
from striate.network.graph import Array
from striate.notation import interpret
from striate.notation.ir import Read, Statement


def pack(statement: Statement, array: Array, matrix: Matrix | None = None) -> Array:
    """The output of the copy `packed[...] = array[affine, ...]`; reads past the end are 0.

    One strided view and one copy, whatever the statement permutes, splits or pads. A statement that
    is more than a copy is interpreted. With a `matrix` M the array's first two axes become
    `M array M'` before.
    """
    if matrix is not None:
        array = _transformed(np.array(matrix, np.float32), array)
    source = statement.equation.expression
    if not isinstance(source, Read):
        ((name, _),) = statement.shapes
        packed = aligned(math.prod(statement.shape)).reshape(statement.shape)
        packed[...] = interpret(statement, {name: array})
        return packed
    extents = dict(statement.extents)
    reach = [
        sum(c * (extents[i] - 1) for i, c in affine.terms) + affine.offset + 1
        for affine in source.access
    ]
    beyond = [max(n - size, 0) for n, size in zip(reach, array.shape, strict=True)]
    if any(beyond):
        array = np.pad(array, [(0, n) for n in beyond])
    order = [affine.index for affine in statement.equation.output.access]
    assert None not in order and all(a.offset == 0 for a in source.access)
    strides = [
        sum(s * a.coefficient(i or "") for s, a in zip(array.strides, source.access, strict=True))
        for i in order
    ]
    view = as_strided(array, statement.shape, strides, writeable=False)
    packed = aligned(math.prod(statement.shape)).reshape(statement.shape)
    np.copyto(packed, view)
    return packed


def _transformed(matrix: Array, array: Array) -> Array:
    """`M array M'` over the first two axes: one product with the Kronecker square of M."""
    rows, columns, *rest = array.shape
    square: Array = np.kron(matrix, matrix).astype(np.float32)
    flat = np.ascontiguousarray(array).reshape(rows * columns, -1)
    # Not `matmul(..., dtype=)`: that goes past BLAS, twenty times slower.
    product: Array = square @ flat
    return product.reshape(len(matrix), len(matrix), *rest)


def aligned(count: int) -> Array:
    """`count` float32 that begin on a cache line."""
    memory = np.empty(count * 4 + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + count * 4].view(np.float32)
