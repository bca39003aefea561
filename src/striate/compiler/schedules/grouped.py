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
    """One emission."""

    def __init__(self, task: Task, contraction: Contraction) -> None:
        self.task, self.contraction, self.target = task, contraction, task.target
        self.extents = dict(task.statement.extents)
        self.builder = Builder(task.target)
        *self.outer, self.column = contraction.rows
        assert contraction.group is not None
        self.width = _width(contraction, self.extents)
        self.features = self.extents[contraction.group] * self.width
        self.columns = self._choose_columns()
        self.lines = math.prod(self.extents[index] for index in self.outer)
        self.chunks = min(CHUNKS, self.lines)
        self.pointers: dict[str, Value] = {}

    def _choose_columns(self) -> int:
        """Pixels a tile: as many as registers allow, with the least overlap at the border."""
        size = self.extents[self.column]
        room = (self.target.registers * 3 // 4) // self.width
        most = max(1, min(size, room, 8 if self.target.registers >= 32 else 5))
        return min(range(1, most + 1), key=lambda c: (-(-size // c) * (c + 1.5) / size, -c))

    def emission(self) -> Emission:
        lanes = self.target.lanes
        plan = f"{name}: tile of {self.columns} pixels by 1 vector of {lanes}; {self.chunks} chunks"
        packed = {self.contraction.weight.tensor: self._packing()}
        return Emission(self._write, self.chunks, plan, packed)

    def _write(self) -> Builder:
        b = self.builder = Builder(self.target)
        for position, (tensor, _) in enumerate(self.task.layouts):
            self.pointers[tensor] = b.argument(position)
        size = self.extents[self.column]
        tiles = -(-size // self.columns)
        first, last = share(b, "%chunk", self.chunks, self.lines)
        lanes = self.target.lanes
        whole, rest = divmod(self.features, lanes)
        with b.loop(first, last) as line:
            start = self._decode(line.index)
            with b.loop(0, tiles) as tile:
                left = b.minimum(b.multiply(tile.index, self.columns), size - self.columns)
                start[self.column] = left
                if whole:
                    with b.loop(0, whole) as block:
                        self._tile(start, b.multiply(block.index, lanes * 4), None)
                if rest:
                    self._tile(start, whole * lanes * 4, rest)
        return b

    def _decode(self, line: Value) -> dict[str, Offset]:
        """The outer row indices of a line."""
        start: dict[str, Offset] = {}
        rest: Offset = line
        for index in reversed(self.outer):
            size = self.extents[index]
            start[index] = self.builder.remainder(rest, size)
            rest = self.builder.divide(rest, size)
        return start

    def _position(self, read: Read, start: dict[str, Offset], feature: Offset) -> Offset:
        b = self.builder
        offset: Offset = self.task.base(read)
        for index, place in start.items():
            offset = b.add(offset, b.multiply(place, self.task.step(read, index)))
        along = read == self.contraction.data or (
            read.access and read.access[-1] == self.task.output.access[-1]
        )
        return b.add(offset, feature) if along else offset

    def _tile(self, start: dict[str, Offset], feature: Offset, lanes: int | None) -> None:
        b, task, contraction = self.builder, self.task, self.contraction
        data = contraction.data
        pixels = b.at(self.pointers[data.tensor], self._position(data, start, feature))
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
                offset = self._position(read, start, feature)
                return self.pointers[read.tensor], b.add(offset, c * task.step(read, self.column))

            total = self._rotate([sums[column, r] for r in rotations])
            result = emit_epilogue(b, task, {contraction.reduction: total}, address, lanes)
            pointer, offset = address(task.output)
            b.store(result, b.at(pointer, offset), lanes)

    def _rotate(self, sums: list[Value]) -> Value:
        """The sum of the rotations, each turned back so that lane j holds output j of its group."""
        b, n = self.builder, self.width
        total = sums[0]
        for r in range(1, n):
            order = [lane // n * n + (lane - r) % n for lane in range(self.target.lanes)]
            total = b.emit(f"fadd {b.vector} {total}, {b.shuffle(sums[r], order)}")
        return total

    def _taps(self) -> list[int]:
        """The byte offset of every tap in the data, in the equation's order."""
        offsets = [0]
        for tap in self.contraction.taps:
            step = self.task.step(self.contraction.data, tap)
            offsets = [o + k * step for o in offsets for k in range(self.extents[tap])]
        return offsets

    def _packing(self) -> Statement:
        """`packed[taps..., r, group, i]`: from input i of a group to its output (i + r) % N."""
        contraction, n = self.contraction, self.width
        weight, group = contraction.weight, contraction.group
        assert group is not None
        names = fresh(("lane", "rotation"), set(self.extents))
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
        sizes = {**self.extents, rotation: n, lane: n}
        ordered = {index: sizes[index] for index in (*contraction.taps, rotation, group, lane)}
        return packing(self.task.statement, weight, source, ordered)
