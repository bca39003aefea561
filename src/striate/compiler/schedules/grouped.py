"""Grouped convolution with few features a group (depthwise: one), the groups along the lanes.

    for each row of output pixels, for each tile of columns, for each vector of features
      accumulators = 0
      for each tap, for each input column the tile needs: load it once,
        accumulators[pixel, r] += data * weight[tap, r] for every pixel that meets it and rotation r
      output[pixel] = sum over r of accumulators[pixel, r], its lanes rotated by r within each group

With N features a group, lane i holds input i of its group. In rotation r it is multiplied by the
weight from input i to output (i + r) % N; so all lanes do useful work and nothing is moved between
lanes until the end. The order of summation is fixed: bits don't depend on tiles or threads.
"""

import math
from collections.abc import Mapping
from dataclasses import replace

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
from striate.notation.ir import (
    Affine,
    Apply,
    Constant,
    Expression,
    Position,
    Read,
    Statement,
)
from striate.transforms.rewrite import fresh

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
    contraction = match(task.statement, task.target.lanes)
    assert contraction is not None
    return _Grouped(task, contraction).emission()


class Tile:
    """The code of one tile: `columns` pixels of a line of `size` along the row index `column`."""

    def __init__(
        self,
        builder: Builder,
        task: Task,
        contraction: Contraction,
        pointers: Mapping[str, Value],
        column: str,
        size: int,
    ) -> None:
        self.builder, self.task, self.contraction = builder, task, contraction
        self.pointers, self.column, self.size = pointers, column, size
        self.extents = dict(task.statement.extents)
        self.width = _width(contraction, self.extents)
        self.features = task.statement.shape[-1]
        self.columns = self._choose_columns()

    def _choose_columns(self) -> int:
        """As many pixels as registers allow, with the least overlap at the border."""
        registers, size = self.task.target.registers, self.size
        most = max(1, min(size, registers * 3 // 4 // self.width, 8 if registers >= 32 else 5))
        return min(range(1, most + 1), key=lambda c: (-(-size // c) * (c + 1.5) / size, -c))

    @property
    def count(self) -> int:
        """Tiles of a line."""
        return -(-self.size // self.columns)

    def left(self, number: Offset) -> Offset:
        """The first column of a tile; the last one ends at the border."""
        b = self.builder
        return b.minimum(b.multiply(number, self.columns), self.size - self.columns)

    def position(self, read: Read, start: Mapping[str, Offset], feature: Offset) -> Offset:
        """The byte offset of `read` at a pixel; `feature` is that of the first feature."""
        b = self.builder
        offset: Offset = self.task.base(read)
        for index, place in start.items():
            offset = b.add(offset, b.multiply(place, self.task.step(read, index)))
        along = read == self.contraction.data or (
            read.access and read.access[-1] == self.task.output.access[-1]
        )
        return b.add(offset, feature) if along else offset

    def write(
        self, start: Mapping[str, Offset], feature: Offset, lanes: int | None, output: Value
    ) -> None:
        """Compute the tile that begins at the pixel `start`; its vectors go to `output`."""
        b, task, contraction = self.builder, self.task, self.contraction
        data = contraction.data
        pixels = b.at(self.pointers[data.tensor], self.position(data, start, feature))
        weights = b.at(self.pointers[contraction.weight.tensor], feature)
        columns, rotations = range(self.columns), range(self.width)
        sums = {(column, r): b.zero() for column in columns for r in rotations}
        loaded: dict[int, Value] = {}
        for number, tap in enumerate(self._taps()):
            panels = [
                b.load(b.at(weights, (number * self.width + r) * self.features * 4), lanes)
                for r in rotations
            ]
            for column in columns:
                at = tap + column * task.step(data, self.column)
                if at not in loaded:
                    loaded[at] = b.load(b.at(pixels, at), lanes)
                for r in rotations:
                    sums[column, r] = b.fma(loaded[at], panels[r], sums[column, r])
        for column in columns:

            def address(read: Read, c: int = column) -> tuple[Value, Offset]:
                offset = self.position(read, start, feature)
                return self.pointers[read.tensor], b.add(offset, c * task.step(read, self.column))

            total = self._rotate([sums[column, r] for r in rotations])
            result = emit_epilogue(b, task, {contraction.reduction: total}, address, lanes)
            b.store(result, b.at(output, column * task.step(task.output, self.column)), lanes)

    def _rotate(self, sums: list[Value]) -> Value:
        """The sum of the rotations, each turned back so that lane j holds output j of its group."""
        b, n = self.builder, self.width
        total = sums[0]
        for r in range(1, n):
            order = [lane // n * n + (lane - r) % n for lane in range(b.target.lanes)]
            total = b.emit(f"fadd {b.vector} {total}, {b.shuffle(sums[r], order)}")
        return total

    def _taps(self) -> list[int]:
        """The byte offset of every tap in the data, in the equation's order."""
        offsets = [0]
        for tap in self.contraction.taps:
            step = self.task.step(self.contraction.data, tap)
            offsets = [o + k * step for o in offsets for k in range(self.extents[tap])]
        return offsets


class _Grouped:
    """One emission."""

    def __init__(self, task: Task, contraction: Contraction) -> None:
        self.task, self.contraction, self.target = task, contraction, task.target
        self.extents = dict(task.statement.extents)
        *self.outer, self.column = contraction.rows
        self.lines = math.prod(self.extents[index] for index in self.outer)
        self.chunks = min(CHUNKS, self.lines)

    def _tile(self, builder: Builder) -> Tile:
        """The tile's code; a fresh builder knows no pointers yet."""
        layouts = enumerate(self.task.layouts)
        pointers = {tensor: builder.argument(position) for position, (tensor, _) in layouts}
        size = self.extents[self.column]
        return Tile(builder, self.task, self.contraction, pointers, self.column, size)

    def emission(self) -> Emission:
        lanes, columns = self.target.lanes, self._tile(Builder(self.target)).columns
        plan = f"{name}: tile of {columns} pixels by 1 vector of {lanes}; {self.chunks} chunks"
        packed = packings(self.task.statement, self.contraction)
        return Emission(self._write, self.chunks, plan, packed)

    def _write(self) -> Builder:
        b = Builder(self.target)
        tile = self._tile(b)
        first, last = share(b, "%chunk", self.chunks, self.lines)
        lanes = self.target.lanes
        whole, rest = divmod(tile.features, lanes)
        output = self.task.output

        def vector(start: dict[str, Offset], feature: Offset, bound: int | None) -> None:
            place = tile.position(output, start, feature)
            tile.write(start, feature, bound, b.at(tile.pointers[output.tensor], place))

        with b.loop(first, last) as line:
            start = self._decode(b, line.index)
            with b.loop(0, tile.count) as number:
                start[self.column] = tile.left(number.index)
                if whole:
                    with b.loop(0, whole) as block:
                        vector(start, b.multiply(block.index, lanes * 4), None)
                if rest:
                    vector(start, whole * lanes * 4, rest)
        return b

    def _decode(self, builder: Builder, line: Value) -> dict[str, Offset]:
        """The outer row indices of a line."""
        start: dict[str, Offset] = {}
        rest: Offset = line
        for index in reversed(self.outer):
            size = self.extents[index]
            start[index] = builder.remainder(rest, size)
            rest = builder.divide(rest, size)
        return start


def packings(statement: Statement, contraction: Contraction) -> dict[str, Statement]:
    """`packed[taps..., r, group, i]`: from input i of a group to its output (i + r) % N."""
    extents = dict(statement.extents)
    weight, group, n = contraction.weight, contraction.group, _width(contraction, extents)
    assert group is not None
    names = fresh(("lane", "rotation"), set(extents))
    lane, rotation = names["lane"], names["rotation"]
    turned = Affine(((group, n), (lane, 1), (rotation, 1)))
    inputs = {contraction.channel: lane}

    def read(last: Affine) -> Read:
        access = [
            replace(a, terms=tuple((inputs.get(i, i), c) for i, c in a.terms))
            for a in weight.access
        ]
        access[contraction.weight_axis] = last
        return Read(weight.tensor, tuple(access))

    source: Expression = read(turned)
    if n > 1:
        total = Apply("add", (Position(lane), Position(rotation)))
        below = Apply("less", (total, Constant(n)))
        source = Apply("where", (below, source, read(replace(turned, offset=-n))))
    sizes = {**extents, rotation: n, lane: n}
    ordered = {index: sizes[index] for index in (*contraction.taps, rotation, group, lane)}
    return {weight.tensor: packing(statement, weight, source, ordered)}
