"""Grouped convolution with few features a group (depthwise: one), the groups along the lanes.

    for each vector of features, for each tile of columns, for each line of output pixels
      accumulators = 0
      for each tap but the last, for each step c, for each input column that the tile needs
        data = the column, its lanes shuffled within each half group: all hold channel c of the half
        for each last tap: accumulators[pixel it meets] += data * weight[tap, c]
      store epilogue(accumulators)

With N features a group the lower half of a group's lanes takes in the lower N/2 channels, the upper
half the upper ones, into two accumulators a pixel: one for the lower features, one for the upper.
In the end the halves of each are added. So all lanes do useful work, and a shuffle, which stays
within 4 lanes for N up to 8, serves two products for every tap that meets its column. The order of
summation is fixed: bits don't depend on tiles or threads.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from striate.compiler.builder import Builder, Offset, Value
from striate.compiler.layout import Halo
from striate.compiler.schedules.base import Emission, Task, window_halo
from striate.compiler.schedules.chunks import share
from striate.compiler.schedules.contraction import (
    Contraction,
    fits_layout,
    match_contraction,
    packing,
)
from striate.compiler.schedules.epilogue import emit_epilogue, fits_epilogue
from striate.compiler.target import Target
from striate.notation.ir import Affine, Read, Statement
from striate.transforms.rewrite import fresh, substitute

name = "grouped"

CHUNKS = 24
# More taps than this would be too much straight code.
MOST_TAPS = 49
# Reductions of up to this many products of vectors are written out without a loop.
STRAIGHT = 400


def seconds(statement: Statement, target: Target) -> float | None:
    if _match(statement, target.lanes) is None:
        return None
    work = 2.0 * math.prod(dict(statement.extents).values())
    moved = 4.0 * sum(math.prod(shape) for _, shape in statement.shapes)
    return max(work / target.flops_per_second, moved / target.bytes_per_second)


def halo(statement: Statement) -> dict[str, Halo]:
    contraction = match_contraction(statement)
    assert contraction is not None
    margin = window_halo(statement, contraction.data)
    return {contraction.data.tensor: margin} if margin else {}


def _match(statement: Statement, lanes: int) -> Contraction | None:
    """A contraction whose groups read and write N features each, N a divisor of the lanes."""
    contraction = match_contraction(statement)
    if contraction is None or contraction.group is None or len(contraction.rows) < 2:
        return None
    extents = dict(statement.extents)
    width = _width(contraction, extents)
    inputs = extents[contraction.channel] if contraction.channel else 1
    last = contraction.data.access[-1]
    step = last.coefficient(contraction.group)
    if inputs != width or step != width or width >= lanes or lanes % width or last.offset:
        return None
    if any(affine.coefficient(contraction.group) for affine in contraction.data.access[:-1]):
        return None
    if math.prod(extents[tap] for tap in contraction.taps) > MOST_TAPS:
        return None
    if not fits_epilogue(statement) or not fits_layout(statement, contraction):
        return None
    return contraction


def _width(contraction: Contraction, extents: Mapping[str, int]) -> int:
    """N, the features of a group."""
    return extents[contraction.feature] if contraction.feature else 1


def emit(task: Task) -> Emission:
    contraction = _match(task.statement, task.target.lanes)
    assert contraction is not None
    return _Grouped(task, contraction).emission()


class _Grouped:
    """One emission; the fields are the decisions."""

    def __init__(self, task: Task, contraction: Contraction) -> None:
        self.task, self.contraction, self.target = task, contraction, task.target
        self.extents = dict(task.statement.extents)
        self.builder = Builder(task.target)
        *self.outer, self.column = contraction.rows
        assert contraction.group is not None
        self.width = _width(contraction, self.extents)
        self.halves = min(self.width, 2)
        self.half = self.width // self.halves
        self.features = self.extents[contraction.group] * self.width
        self.taps = self._last_taps()
        self.columns = self._choose_columns()
        self.blocks = math.ceil(self.features / self.target.lanes)
        self.lines = math.prod(self.extents[index] for index in self.outer)
        # Many blocks share no weights, many lines share no data.
        chunks = [self.blocks, self.lines] if self.width > 1 else [self.lines, self.blocks]
        first = min(CHUNKS, chunks[0])
        chunks = [first, min(chunks[1], math.ceil(CHUNKS / first))]
        self.block_chunks, self.line_chunks = chunks if self.width > 1 else chunks[::-1]
        self.pointers: dict[str, Value] = {}

    def _last_taps(self) -> list[int]:
        """The byte offset of each of the last taps in the data."""
        if not self.contraction.taps:
            return [0]
        last = self.contraction.taps[-1]
        step = self.task.step(self.contraction.data, last)
        return [k * step for k in range(self.extents[last])]

    def _choose_columns(self) -> int:
        """Pixels a tile: what fits the registers, with the least overlap at the border."""
        size, registers, taps = self.extents[self.column], self.target.registers, len(self.taps)
        room = (registers - 2) // self.halves - min(taps, 3)
        if self.width == 1:
            room = 8 if registers >= 32 else 5

        def cost(columns: int) -> float:
            loads = len(self._places(columns)) + taps * self.halves
            return math.ceil(size / columns) * (columns * taps * self.halves + loads)

        return min(range(1, max(1, min(size, room)) + 1), key=lambda c: (cost(c), -c))

    def _places(self, columns: int) -> set[int]:
        """The byte offsets of the input columns that a tile needs, from its first."""
        step = self.task.step(self.contraction.data, self.column)
        return {tap + column * step for tap in self.taps for column in range(columns)}

    def emission(self) -> Emission:
        chunks = self.line_chunks * self.block_chunks
        plan = (
            f"{name}: tile of {self.columns} pixels by 1 vector of {self.target.lanes}, "
            f"{self.width} a group; {self.blocks} vectors x {self.lines} lines in {chunks} chunks"
        )
        packed = {self.contraction.weight.tensor: self._packing()}
        return Emission(self._write, chunks, plan, packed)

    # Loops

    def _write(self) -> Builder:
        b = self.builder = Builder(self.target)
        for position, (tensor, _) in enumerate(self.task.layouts):
            self.pointers[tensor] = b.argument(position)
        line_chunk = b.remainder("%chunk", self.line_chunks)
        block_chunk = b.divide("%chunk", self.line_chunks)
        lines = share(b, line_chunk, self.line_chunks, self.lines)
        blocks = share(b, block_chunk, self.block_chunks, self.blocks)
        tiles = 0, math.ceil(self.extents[self.column] / self.columns)

        if self.width == 1:
            # There is little to do for each load: the features of a pixel come one after another.
            with b.loop(*lines) as line, b.loop(*tiles) as tile:
                start = self._start(line.index, tile.index)
                self._each_block(blocks, lambda block, lanes: self._tile(start, block, lanes))
            return b

        def all_pixels(block: Offset, lanes: int | None) -> None:
            # The weights stay in the first-level cache, and so do the lines that windows share.
            with b.loop(*tiles) as tile, b.loop(*lines) as line:
                self._tile(self._start(line.index, tile.index), block, lanes)

        self._each_block(blocks, all_pixels)
        return b

    def _each_block(
        self, blocks: tuple[Offset, Offset], body: Callable[[Offset, int | None], None]
    ) -> None:
        """`body(block, lanes)` for each of `blocks`; the last of all may have fewer lanes."""
        b, rest = self.builder, self.features % self.target.lanes
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

    def _start(self, line: Value, tile: Value) -> dict[str, Offset]:
        """The row indices of a tile's first pixel; the last tile of a line ends at its border."""
        b, size = self.builder, self.extents[self.column]
        left = b.minimum(b.multiply(tile, self.columns), size - self.columns)
        start: dict[str, Offset] = {self.column: left}
        rest: Offset = line
        for index in reversed(self.outer):
            start[index] = b.remainder(rest, self.extents[index])
            rest = b.divide(rest, self.extents[index])
        return start

    def _position(self, read: Read, start: dict[str, Offset], block: Offset) -> Offset:
        """The byte offset of `read` at a tile's first pixel and feature."""
        b = self.builder
        offset: Offset = self.task.base(read)
        for index, place in start.items():
            offset = b.add(offset, b.multiply(place, self.task.step(read, index)))
        along = read == self.contraction.data or (
            read.access and read.access[-1] == self.task.output.access[-1]
        )
        return b.add(offset, b.multiply(block, self.target.lanes * 4)) if along else offset

    # The code of one tile

    def _tile(self, start: dict[str, Offset], block: Offset, lanes: int | None) -> None:
        b, data = self.builder, self.contraction.data
        rows = self.contraction.taps[:-1]
        panel = self._row_bytes() * math.prod(self.extents[tap] for tap in rows)
        weights = b.at(self.pointers[self.contraction.weight.tensor], b.multiply(block, panel))
        pixels = b.at(self.pointers[data.tensor], self._position(data, start, block))
        zeros = [b.zero()] * (self.columns * self.halves)
        sums = self._reduce(rows, pixels, weights, zeros, lanes)
        self._store(start, block, sums, lanes)

    def _row_bytes(self) -> int:
        """The packed weights of a vector of features for one row of taps."""
        return 4 * self.width * len(self.taps) * self.target.lanes

    def _reduce(
        self,
        rows: Sequence[str],
        pixels: Value,
        weights: Value,
        sums: list[Value],
        lanes: int | None,
    ) -> list[Value]:
        """Nest the loops over all taps but the last."""
        b = self.builder
        if not rows:
            return self._row_of_taps(pixels, weights, sums, lanes)
        tap, *inner = rows
        count, step = self.extents[tap], self.task.step(self.contraction.data, tap)
        panel = self._row_bytes() * math.prod(self.extents[tap] for tap in inner)
        if count * panel // (4 * self.target.lanes) * self.columns <= STRAIGHT:
            for k in range(count):
                at = b.at(pixels, k * step), b.at(weights, k * panel)
                sums = self._reduce(inner, *at, sums, lanes)
            return sums
        carried = [("ptr", pixels), ("ptr", weights), *[(b.vector, value) for value in sums]]
        with b.loop(0, count, 1, carried) as loop:
            pixels, weights, *old = loop.values
            new = self._reduce(inner, pixels, weights, old, lanes)
            loop.following = [b.at(pixels, step), b.at(weights, panel), *new]
        return loop.values[2:]

    def _row_of_taps(
        self, pixels: Value, weights: Value, sums: list[Value], lanes: int | None
    ) -> list[Value]:
        """Every channel of the last taps: each column is shuffled once for all taps it meets."""
        b, sums, half = self.builder, list(sums), self.half
        step = self.task.step(self.contraction.data, self.column)
        size = 4 * self.target.lanes
        meetings = [
            (column * step + offset, tap, column)
            for tap, offset in enumerate(self.taps)
            for column in range(self.columns)
        ]
        if self.halves > 1:
            # Column by column few registers are taken. With one product a meeting, though, sums
            # would wait for themselves.
            meetings.sort()
        for channel in range(half):
            order = [lane // half * half + channel for lane in range(self.target.lanes)]
            values: dict[int, Value] = {}
            panels: dict[int, list[Value]] = {}
            for place, tap, column in meetings:
                if place not in values:
                    value = b.load(b.at(pixels, place), lanes)
                    values[place] = b.shuffle(value, order) if half > 1 else value
                if tap not in panels:
                    first = (channel * len(self.taps) + tap) * self.halves
                    panels[tap] = [
                        b.load(b.at(weights, (first + k) * size)) for k in range(self.halves)
                    ]
                for k, weight in enumerate(panels[tap]):
                    at = column * self.halves + k
                    sums[at] = b.fma(values[place], weight, sums[at])
        return sums

    def _store(
        self, start: dict[str, Offset], block: Offset, sums: list[Value], lanes: int | None
    ) -> None:
        """Apply the epilogue to every pixel of the tile."""
        b, task = self.builder, self.task
        for column in range(self.columns):

            def address(read: Read, c: int = column) -> tuple[Value, Offset]:
                offset = self._position(read, start, block)
                return self.pointers[read.tensor], b.add(offset, c * task.step(read, self.column))

            total = self._total(sums[column * self.halves : (column + 1) * self.halves])
            result = emit_epilogue(b, task, {self.contraction.reduction: total}, address, lanes)
            pointer, offset = address(task.output)
            b.store(result, b.at(pointer, offset), lanes)

    def _total(self, sums: list[Value]) -> Value:
        """The features of a pixel: sum k holds those of half k, from each half of the channels."""
        if len(sums) == 1:
            return sums[0]
        b, half, lanes = self.builder, self.half, self.target.lanes
        halves = [lane // half % 2 for lane in range(lanes)]
        lower = [lane - h * half + h * lanes for lane, h in enumerate(halves)]
        upper = [lane + half for lane in lower]
        parts = [b.shuffle(sums[0], order, sums[1]) for order in (lower, upper)]
        return b.emit(f"fadd {b.vector} {parts[0]}, {parts[1]}")

    def _packing(self) -> Statement:
        """`packed[block, taps..., channel, last tap, k, group, half, lane]`, as tiles read it.

        Half `half` of a group's lanes takes in that half of the channels, sum k adds up half k of
        the features.
        """
        contraction, taps, n = self.contraction, self.contraction.taps, self.width
        weight, lanes, half = contraction.weight, self.target.lanes, self.half
        names = fresh(("block", "part", "inside", "upper", "lane", "step"), set(self.extents))
        block, k, group = names["block"], names["part"], names["inside"]
        upper, lane, channel = names["upper"], names["lane"], names["step"]
        sizes = {
            **self.extents,
            **{block: self.blocks, channel: half, k: self.halves},
            **{group: lanes // n, upper: self.halves, lane: half},
        }
        inputs = {contraction.channel or "": Affine(((upper, half), (channel, 1)))}
        access = [substitute(affine, inputs) for affine in weight.access]
        access[contraction.weight_axis] = Affine(((block, lanes), (group, n), (k, half), (lane, 1)))
        order = (block, *taps[:-1], channel, *taps[-1:], k, group, upper, lane)
        ordered = {index: sizes[index] for index in order}
        return packing(self.task.statement, weight, Read(weight.tensor, tuple(access)), ordered)
