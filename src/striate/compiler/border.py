"""Write the zeros around an image that stand for reads outside it."""

from striate.compiler.builder import Builder, Offset, Value
from striate.compiler.layout import Layout
from striate.compiler.schedules.base import Emission
from striate.compiler.target import Target


def emit_border(layout: Layout, target: Target) -> Emission:
    """A kernel that zeroes the halo of `[b, x, y, i]`; its one pointer is the memory's start."""
    plan = f"zeros around {layout.shape}: {layout.halo}"
    return Emission(lambda: _write(layout, target), 1, plan)


def _write(layout: Layout, target: Target) -> Builder:
    b = Builder(target)
    memory = b.argument(0)
    batch, rows, columns, _ = layout.shape
    top, bottom, left, right = layout.halo
    image, row, pixel = layout.strides[:3]
    with b.loop(0, batch) as one:
        start = b.at(memory, b.multiply(one.index, image))
        # The right margin of a row and the left one of the next are one piece.
        _zero(b, start, 0, top * row + left * pixel)
        if rows > 1 and left + right:
            between = b.at(start, top * row + (left + columns) * pixel)
            with b.loop(0, rows - 1) as line:
                _zero(b, between, b.multiply(line.index, row), (left + right) * pixel)
        last = (top + rows - 1) * row + (left + columns) * pixel
        _zero(b, start, last, bottom * row + right * pixel)
    return b


def _zero(b: Builder, memory: Value, offset: Offset, nbytes: int) -> None:
    """Zero `nbytes` bytes (a multiple of 4)."""
    if not nbytes:
        return
    floats = nbytes // 4
    lanes = b.target.lanes
    place = b.at(memory, offset)
    whole = floats // lanes
    if whole:
        with b.loop(0, whole) as loop:
            b.store(b.zero(), b.at(place, b.multiply(loop.index, lanes * 4)))
    rest = floats % lanes
    if rest:
        b.store(b.zero(), b.at(place, whole * lanes * 4), rest)
