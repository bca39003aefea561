"""Grouped convolution with few features a group (depthwise: one), the groups along the lanes.

    for each vector of features, for each tile of columns, for each line of output pixels
      the tile (`grouped_tile`)

The order of summation is fixed: bits don't depend on tiles or threads.
"""

import math
from collections.abc import Callable

from striate.compiler.builder import Builder, Offset, Value
from striate.compiler.layout import Halo
from striate.compiler.schedules.base import Emission, Task, window_halo
from striate.compiler.schedules.chunks import share
from striate.compiler.schedules.contraction import Contraction, fits_layout, match_contraction
from striate.compiler.schedules.epilogue import fits_epilogue
from striate.compiler.schedules.grouped_tile import Tile, packings, width
from striate.compiler.target import Target
from striate.notation.ir import Statement

name = "grouped"

CHUNKS = 24
# More taps than this would be too much straight code.
MOST_TAPS = 49


def seconds(statement: Statement, target: Target) -> float | None:
    if match(statement, target.lanes) is None:
        return None
    work = 2.0 * math.prod(dict(statement.extents).values())
    moved = 4.0 * sum(math.prod(shape) for _, shape in statement.shapes)
    return max(work / target.flops_per_second, moved / target.bytes_per_second)


def halo(statement: Statement) -> dict[str, Halo]:
    contraction = match_contraction(statement)
    assert contraction is not None
    margin = window_halo(statement, contraction.data)
    return {contraction.data.tensor: margin} if margin else {}


def match(statement: Statement, lanes: int) -> Contraction | None:
    """A contraction whose groups read and write N features each, N a divisor of the lanes."""
    contraction = match_contraction(statement)
    if contraction is None or contraction.group is None or len(contraction.rows) < 2:
        return None
    extents = dict(statement.extents)
    n = width(contraction, extents)
    inputs = extents[contraction.channel] if contraction.channel else 1
    last = contraction.data.access[-1]
    step = last.coefficient(contraction.group)
    if inputs != n or step != n or n >= lanes or lanes % n or last.offset:
        return None
    if any(affine.coefficient(contraction.group) for affine in contraction.data.access[:-1]):
        return None
    if math.prod(extents[tap] for tap in contraction.taps) > MOST_TAPS:
        return None
    if not fits_epilogue(statement) or not fits_layout(statement, contraction):
        return None
    return contraction


def emit(task: Task) -> Emission:
    contraction = match(task.statement, task.target.lanes)
    assert contraction is not None
    return _Grouped(task, contraction).emission()


class _Grouped:
    """One emission; the fields are the decisions."""

    def __init__(self, task: Task, contraction: Contraction) -> None:
        self.task, self.contraction, self.target = task, contraction, task.target
        self.extents = dict(task.statement.extents)
        *self.outer, self.column = contraction.rows
        self.features = task.statement.shape[-1]
        self.alone = width(contraction, self.extents) == 1
        self.blocks = math.ceil(self.features / self.target.lanes)
        self.lines = math.prod(self.extents[index] for index in self.outer)
        # Many blocks share no weights, many lines share no data.
        most, fewest = (self.lines, self.blocks) if self.alone else (self.blocks, self.lines)
        first = min(CHUNKS, most)
        chunks = first, min(fewest, math.ceil(CHUNKS / first))
        self.line_chunks, self.block_chunks = chunks if self.alone else chunks[::-1]

    def _tile(self, builder: Builder) -> Tile:
        """The tile's code; a fresh builder knows no pointers yet."""
        layouts = enumerate(self.task.layouts)
        pointers = {tensor: builder.argument(position) for position, (tensor, _) in layouts}
        size = self.extents[self.column]
        return Tile(builder, self.task, self.contraction, pointers, self.column, size)

    def emission(self) -> Emission:
        tile = self._tile(Builder(self.target))
        chunks = self.line_chunks * self.block_chunks
        plan = (
            f"{name}: tile of {tile.columns} pixels by 1 vector of {self.target.lanes}, "
            f"{tile.width} a group; {self.blocks} vectors x {self.lines} lines in {chunks} chunks"
        )
        packed = packings(self.task.statement, self.contraction, self.target.lanes)
        return Emission(self._write, chunks, plan, packed)

    def _write(self) -> Builder:
        b = Builder(self.target)
        tile = self._tile(b)
        line_chunk = b.remainder("%chunk", self.line_chunks)
        block_chunk = b.divide("%chunk", self.line_chunks)
        lines = share(b, line_chunk, self.line_chunks, self.lines)
        blocks = share(b, block_chunk, self.block_chunks, self.blocks)

        def vector(line: Value, number: Value, block: Offset, lanes: int | None) -> None:
            start = {self.column: tile.left(number), **self._decode(b, line)}
            feature = b.multiply(block, 4 * self.target.lanes)
            place = tile.position(self.task.output, start, feature)
            tile.write(
                number, start, feature, lanes, b.at(tile.pointers[self.task.output.tensor], place)
            )

        if self.alone:
            # There is little to do for each load: the features of a pixel come one after another.
            with b.loop(*lines) as line, b.loop(0, tile.count) as number:
                place = (line.index, number.index)
                self._each_block(b, blocks, lambda block, lanes: vector(*place, block, lanes))
            return b

        def all_pixels(block: Offset, lanes: int | None) -> None:
            # The weights stay in the first-level cache, and so do the lines that windows share.
            with b.loop(0, tile.count) as number, b.loop(*lines) as line:
                vector(line.index, number.index, block, lanes)

        self._each_block(b, blocks, all_pixels)
        return b

    def _each_block(
        self,
        b: Builder,
        blocks: tuple[Offset, Offset],
        body: Callable[[Offset, int | None], None],
    ) -> None:
        """`body(block, lanes)` for each of `blocks`; the last of all may have fewer lanes."""
        rest = self.features % self.target.lanes
        with b.loop(*blocks) as loop:
            if not rest:
                body(loop.index, None)
            elif self.blocks == 1:
                body(0, rest)
            else:
                is_last = b.emit(f"icmp eq i64 {loop.index}, {self.blocks - 1}")
                inverse = b.emit(f"xor i1 {is_last}, true")
                with b.when(inverse):
                    body(loop.index, None)
                with b.when(is_last):
                    body(loop.index, rest)

    def _decode(self, builder: Builder, line: Value) -> dict[str, Offset]:
        """The outer row indices of a line."""
        start: dict[str, Offset] = {}
        rest: Offset = line
        for index in reversed(self.outer):
            size = self.extents[index]
            start[index] = builder.remainder(rest, size)
            rest = builder.divide(rest, size)
        return start
