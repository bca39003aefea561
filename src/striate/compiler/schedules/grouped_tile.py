"""The code of one tile of a grouped convolution: pixels of a line by one vector of features.

    accumulators = 0
    for each tap but the last, for each step c, for each input column that the tile needs
      data = the column, its lanes shuffled within each half group: all hold channel c of the half
      for each last tap: accumulators[pixel it meets] += data * weight[tap, c]
    store epilogue(accumulators)

With N features a group the lower half of a group's lanes takes in the lower N/2 channels, the upper
half the upper ones, into two accumulators a pixel: one for the lower features, one for the upper.
In the end the halves of each are added. So all lanes do useful work, and a shuffle, which stays
within 4 lanes for N up to 8, serves two products for every tap that meets its column.
"""

import math
from collections.abc import Mapping, Sequence

from striate.compiler.builder import Builder, Offset, Value
from striate.compiler.schedules.base import Task
from striate.compiler.schedules.contraction import Contraction, packing
from striate.compiler.schedules.epilogue import emit_epilogue, once
from striate.notation.ir import Affine, Read, Statement
from striate.transforms.rewrite import fresh, substitute

# Reductions of up to this many products of vectors are written out without a loop.
STRAIGHT = 400


def width(contraction: Contraction, extents: Mapping[str, int]) -> int:
    """N, the features of a group."""
    return extents[contraction.feature] if contraction.feature else 1


class Tile:
    """The code of one tile: `columns` pixels of a line of `size` along the row index `column`.

    The weights are packed by `packings` for the builder's vectors.
    """

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
        self.lanes = builder.target.lanes
        self.width = width(contraction, self.extents)
        self.halves = min(self.width, 2)
        self.half = self.width // self.halves
        self.taps = self._last_taps()
        self.columns = self._choose_columns()

    @property
    def count(self) -> int:
        """Tiles of a line."""
        return math.ceil(self.size / self.columns)

    @property
    def weights_per_feature(self) -> int:
        """How many packed weights there are for each feature."""
        return self.width * math.prod(self.extents[tap] for tap in self.contraction.taps)

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
        self,
        number: Offset,
        start: Mapping[str, Offset],
        feature: Offset,
        lanes: int | None,
        output: Value,
    ) -> None:
        """Compute tile `number` of a line, which begins at `start`; its vectors go to `output`."""
        b, data = self.builder, self.contraction.data
        rows = self.contraction.taps[:-1]
        panels = b.multiply(feature, self.weights_per_feature)
        weights = b.at(self.pointers[self.contraction.weight.tensor], panels)
        pixels = b.at(self.pointers[data.tensor], self.position(data, start, feature))
        zeros = [b.zero()] * (self.columns * self.halves)
        sums = self._reduce(rows, pixels, weights, zeros, lanes)
        for column in range(self.columns):

            def address(read: Read, c: int = column) -> tuple[Value, Offset]:
                offset = self.position(read, start, feature)
                step = self.task.step(read, self.column)
                return self.pointers[read.tensor], b.add(offset, c * step)

            total = self._total(sums[column * self.halves : (column + 1) * self.halves])
            values = {self.contraction.reduction: total}
            step = self.task.step(self.task.output, self.column)
            with once(b, column, -self.size % self.columns, number, self.count - 1):
                result = emit_epilogue(b, self.task, values, address, lanes)
                b.store(result, b.at(output, column * step), lanes)

    def _last_taps(self) -> list[int]:
        """The byte offset of each of the last taps in the data."""
        if not self.contraction.taps:
            return [0]
        last = self.contraction.taps[-1]
        step = self.task.step(self.contraction.data, last)
        return [k * step for k in range(self.extents[last])]

    def _choose_columns(self) -> int:
        """Pixels a tile: what fits the registers, with the least overlap at the border."""
        size, registers, taps = self.size, self.builder.target.registers, len(self.taps)
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

    def _row_bytes(self) -> int:
        """The packed weights of a vector of features for one row of taps."""
        return 4 * self.width * len(self.taps) * self.lanes

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
        if count * panel // (4 * self.lanes) * self.columns <= STRAIGHT:
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
        size = 4 * self.lanes
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
            order = [lane // half * half + channel for lane in range(self.lanes)]
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

    def _total(self, sums: list[Value]) -> Value:
        """The features of a pixel: sum k holds those of half k, from each half of the channels."""
        if len(sums) == 1:
            return sums[0]
        b, half, lanes = self.builder, self.half, self.lanes
        halves = [lane // half % 2 for lane in range(lanes)]
        lower = [lane - h * half + h * lanes for lane, h in enumerate(halves)]
        upper = [lane + half for lane in lower]
        parts = [b.shuffle(sums[0], order, sums[1]) for order in (lower, upper)]
        return b.emit(f"fadd {b.vector} {parts[0]}, {parts[1]}")


def packings(statement: Statement, contraction: Contraction, lanes: int) -> dict[str, Statement]:
    """`packed[block, taps..., channel, last tap, k, group, half, lane]`, as tiles read it.

    A block is a vector of `lanes`. Half `half` of a group's lanes takes in that half of the
    channels, sum k adds up half k of the features.
    """
    extents, taps, weight = dict(statement.extents), contraction.taps, contraction.weight
    n = width(contraction, extents)
    halves, blocks = min(n, 2), math.ceil(statement.shape[-1] / lanes)
    half = n // halves
    names = fresh(("block", "part", "inside", "upper", "lane", "step"), set(extents))
    block, k, group = names["block"], names["part"], names["inside"]
    upper, lane, channel = names["upper"], names["lane"], names["step"]
    sizes = {
        **extents,
        **{block: blocks, channel: half, k: halves},
        **{group: lanes // n, upper: halves, lane: half},
    }
    inputs = {contraction.channel or "": Affine(((upper, half), (channel, 1)))}
    access = [substitute(affine, inputs) for affine in weight.access]
    access[contraction.weight_axis] = Affine(((block, lanes), (group, n), (k, half), (lane, 1)))
    order = (block, *taps[:-1], channel, *taps[-1:], k, group, upper, lane)
    ordered = {index: sizes[index] for index in order}
    read = Read(weight.tensor, tuple(access))
    return {weight.tensor: packing(statement, weight, read, ordered)}
