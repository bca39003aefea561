"""Direct convolution and matrix multiplication: a register tile of pixels by feature vectors.

    for each block of `features` vectors of output features (and each group)
      for each tile of rows x columns output pixels
        accumulators = 0
        for each tap, for each channel: accumulators[pixel, vector] += data[pixel] * weight[vector]
        store epilogue(accumulators)

Every output is one chain of fused multiply-adds in the order of the equation's reduction, whatever
the tile: its bits depend neither on the tile nor on threads. The last tile of a row is moved back
to end at the border, so that there is one kernel and no remainder loop; it stores what is new.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import product

from striate.compiler.builder import Builder, Offset, Value
from striate.compiler.layout import Halo
from striate.compiler.prefetch import room
from striate.compiler.program import Room
from striate.compiler.schedules.base import Emission, Task, window_halo
from striate.compiler.schedules.chunks import share
from striate.compiler.schedules.contraction import Contraction, fits_layout, match_contraction
from striate.compiler.schedules.epilogue import fits_epilogue, once
from striate.compiler.schedules.pooled import block_of, take_apart
from striate.compiler.schedules.tiles import CACHE_LINE, padded
from striate.compiler.schedules.tiling import Axis, Tiling
from striate.compiler.target import Target
from striate.notation.ir import Read, Statement

name = "direct"

UNROLL = 4
# How much longer products take, as measured, that have a broadcast of their own each: those of a
# single vector of features.
ONE_VECTOR = 1.4
# Pieces of a reduction up to this length are written out without a loop.
STRAIGHT = 8


def seconds(statement: Statement, target: Target) -> float | None:
    contraction = _match(statement)
    if contraction is None:
        return None
    return product_seconds(take_apart(statement).layer, contraction, target)


def product_seconds(statement: Statement, contraction: Contraction, target: Target) -> float:
    """The time that the products take (s), or their weights to arrive."""
    extents = dict(statement.extents)
    features = extents[contraction.feature] if contraction.feature else 1
    work = 2.0 * math.prod(extents.values()) / features * padded(features, target)
    if features <= target.lanes:
        work *= ONE_VECTOR
    weights = 4.0 * math.prod(dict(statement.shapes)[contraction.weight.tensor])
    return max(work / target.flops_per_second, weights / target.bytes_per_second)


def halo(statement: Statement) -> dict[str, Halo]:
    contraction = _match(statement)
    assert contraction is not None
    margin = window_halo(take_apart(statement).layer, contraction.data)
    return {contraction.data.tensor: margin} if margin else {}


def _match(statement: Statement) -> Contraction | None:
    pooled = take_apart(statement)
    contraction = match_contraction(pooled.layer)
    if contraction is None or contraction.feature is None or not contraction.rows:
        return None
    if not fits_epilogue(pooled.layer) or not fits_layout(pooled.layer, contraction):
        return None
    # Tiles hold whole windows along the last two axes.
    return contraction if dict(pooled.windows).keys() <= {*contraction.rows[-2:]} else None


def emit(task: Task) -> Emission:
    contraction = _match(task.statement)
    assert contraction is not None
    return Direct(task, contraction).emission()


@dataclass(frozen=True, slots=True)
class Turn:
    """The `number` of a tile among those of its panel, and the panel `following` that one."""

    number: Offset
    following: Offset


class Direct(Tiling):
    """One emission: the code of a tiling."""

    def __init__(self, task: Task, contraction: Contraction, even: Sequence[Read] = ()) -> None:
        super().__init__(task, contraction, even)
        self.builder = Builder(self.target)
        self.pointers: dict[str, Value] = {}

    def emission(self) -> Emission:
        plan = (
            f"{name}: tile of {self.tile.rows} x {self.tile.columns} pixels by {self.tile.vectors} "
            f"vectors of {self.target.lanes}; {self.panels} panels x {self.total} tiles in "
            f"{self.row_chunks * self.panel_chunks} chunks"
        )
        packed = {self.contraction.weight.tensor: self._packing()}
        chunks = self.row_chunks * self.panel_chunks
        return Emission(self._write, chunks, plan, packed, room=self._room())

    def _room(self) -> Room:
        """What a chunk can fetch for later steps: its part with every `fetch` of a tile."""
        chunks = self.row_chunks * self.panel_chunks
        rounds = self.panels * self._panel_tiles() * self._fetches() // chunks
        panels = self.panels // self.panel_chunks
        return room(rounds, 4 * panels * self.width * self._terms())

    def _panel_tiles(self) -> int:
        """The tiles of a panel that are computed."""
        return self.total

    def _fetches(self) -> int:
        """How often a tile calls `fetch`."""
        *outer, inner = self._loops()
        if inner.size <= STRAIGHT:
            return 0
        return math.prod(run.size for run in outer) * (inner.size // UNROLL)

    def _loops(self) -> list[Axis]:
        """The loops of a reduction."""
        return self._merge(list(self.contraction.order), [self.contraction.data])

    def _weights_stay(self) -> bool:
        """Whether all weights fit in the first-level cache beside a tile.

        Then the tiles are the outer loop, and a pixel's features are written together.
        """
        return 4 * self._terms() * self.width * self.blocks * self.groups <= self.target.l1 // 2

    def _write(self) -> Builder:
        b = self.builder = Builder(self.target)
        tiles, row_chunks, panel_chunks = self._outer_tiles(), self.row_chunks, self.panel_chunks
        for position, (tensor, _) in enumerate(self.task.layouts):
            self.pointers[tensor] = b.argument(position)
        row_chunk, panel_chunk = b.remainder("%chunk", row_chunks), b.divide("%chunk", row_chunks)
        first, last = share(b, row_chunk, row_chunks, self.total)
        first_panel, last_panel = share(b, panel_chunk, panel_chunks, self.panels)
        if self._weights_stay():
            with b.loop(first, last) as tile:
                start = self._decode(tile.index, tiles)
                with b.loop(first_panel, last_panel) as panel:
                    self._tile(panel.index, start)
        else:
            with b.loop(first_panel, last_panel) as panel:
                following = self._following(panel.index, last_panel)
                with b.loop(first, last) as tile:
                    turn = Turn(b.add(tile.index, b.multiply(first, -1)), following)
                    self._tile(panel.index, self._decode(tile.index, tiles), turn)
        return b

    def _following(self, panel: Value, last: Offset) -> Offset:
        """The panel after `panel`; where `last` ends the chunk, the first of the next one."""
        b = self.builder
        inner, chunk = b.add(panel, 1), b.divide("%next", self.row_chunks)
        beyond, _ = share(b, chunk, self.panel_chunks, self.panels)
        more = b.emit(f"icmp slt i64 {inner}, {last}")
        return b.emit(f"select i1 {more}, i64 {inner}, i64 {beyond}")

    def _decode(self, tile: Value, tiles: list[tuple[Axis, int, int]]) -> dict[Axis, Offset]:
        """The first pixel of a tile on every axis; the last tile of an axis ends at its border."""
        b = self.builder
        start: dict[Axis, Offset] = {}
        rest: Offset = tile
        for axis, size, count in reversed(tiles):
            place = b.remainder(rest, count) if axis is not tiles[0][0] else rest
            rest = b.divide(rest, count)
            start[axis] = b.minimum(b.multiply(place, size), axis.size - size)
        return start

    def _position(self, read: Read, start: dict[Axis, Offset]) -> Offset:
        """The byte offset of `read` at the tile's first pixel."""
        offset: Offset = self.task.base(read)
        for axis, place in start.items():
            offset = self.builder.add(offset, self.builder.multiply(place, self._step(read, axis)))
        return offset

    def _pixel(self, read: Read, row: int, column: int) -> int:
        """The byte offset of a pixel of the tile from its first."""
        offset = column * self._step(read, self.axes[-1])
        return offset + (row * self._step(read, self.axes[-2]) if row else 0)

    # The code of one tile

    def _tile(self, panel: Value, start: dict[Axis, Offset], turn: Turn | None = None) -> None:
        """The tile that begins at `start`, by a panel of features."""
        b, data = self.builder, self.contraction.data
        group, block = b.divide(panel, self.blocks), b.remainder(panel, self.blocks)
        runs, lines = self._loops(), self._room().lines
        panel_bytes = self._terms() * self.width * 4
        packed = self.pointers[self.contraction.weight.tensor]
        weights = b.at(packed, b.multiply(panel, panel_bytes))
        offset = self._position(data, start)
        if self.contraction.group:
            offset = b.add(offset, b.multiply(group, self.task.step(data, self.contraction.group)))
        pixels = b.at(self.pointers[data.tensor], offset)
        origins = {read: self._origin(read, group, block, start) for read in self.tensors[1:]}

        def fetch(part: Offset, parts: int) -> None:
            self._prefetch(origins, part, parts)
            b.prefetch_later(lines)
            if turn is not None and len(runs) == 1:
                following = b.at(packed, b.multiply(turn.following, panel_bytes))
                self._prefetch_panel(following, panel_bytes, turn.number, part, parts)

        if runs[-1].size <= STRAIGHT:
            self._prefetch(origins, 0, 1)
        sums = self._sums(runs, pixels, panel, weights, fetch)
        self._finish(sums, block, start, origins)

    def _sums(
        self,
        runs: list[Axis],
        pixels: Value,
        panel: Value,
        weights: Value,
        fetch: Callable[[Offset, int], None],
    ) -> list[Value]:
        """The reductions of a tile; `weights` is where the panel's lie."""
        zeros = [self.builder.zero()] * (self.tile.pixels * self.tile.vectors)
        return self._reduce(runs, pixels, weights, zeros, fetch)[1]

    def _origin(
        self, read: Read, group: Offset, block: Offset, start: dict[Axis, Offset]
    ) -> Offset:
        """The byte offset of `read` at the tile's first pixel and feature."""
        b, offset = self.builder, self._position(read, start)
        if read.access[-1] != self.task.output.access[-1]:
            return offset
        offset = b.add(offset, b.multiply(block, self.width * 4))
        return b.add(offset, b.multiply(group, self.features * 4))

    def _prefetch(self, origins: dict[Read, Offset], part: Offset, parts: int) -> None:
        """Ask for a part of what the epilogue will read and write, which no hardware foresees.

        The tile's pixels lie apart, and the products between one epilogue and the next take longer
        than the processor looks ahead. Asked for at once, so many lines would keep the products'
        own waiting.
        """
        b, (down, right) = self.builder, self.window
        rows, columns = self.tile.rows // down, self.tile.columns // right
        lines = math.ceil(self.width * 4 / CACHE_LINE)
        count = rows * columns * lines
        each = math.ceil(count / parts)
        for k in range(each):
            number = b.minimum(b.add(b.multiply(part, each), k), count - 1)
            pixel, line = b.divide(number, lines), b.remainder(number, lines)
            column = b.remainder(pixel, columns) if rows > 1 else pixel
            place = [(self.axes[-1], b.multiply(column, right))]
            if rows > 1:
                place.append((self.axes[-2], b.multiply(b.divide(pixel, columns), down)))
            for read, origin in origins.items():
                if not self._step(read, self.axes[-1]):
                    continue
                offset = b.add(origin, b.multiply(line, CACHE_LINE))
                for axis, steps in place:
                    offset = b.add(offset, b.multiply(steps, self._step(read, axis)))
                b.prefetch(b.at(self.pointers[read.tensor], offset))

    def _prefetch_panel(
        self, panel: Value, nbytes: int, number: Offset, part: Offset, parts: int
    ) -> None:
        """Ask for a part of the panel to come, where weights come from memory for a few tiles.

        The first tile would wait for them: it needs them faster than the memory gives. What is a
        small part of the second-level cache may have stayed there.
        """
        b, lines, room = self.builder, nbytes // CACHE_LINE, self.target.l2
        rounds = math.ceil(self.total / self.row_chunks) * parts
        if nbytes * self.panels <= room // 4 or nbytes > room // 2 or 2 * lines < rounds:
            return
        each = math.ceil(lines / rounds)
        first = b.multiply(b.add(b.multiply(number, parts), part), each)
        for k in range(each):
            line = b.minimum(b.add(first, k), lines - 1)
            b.prefetch(b.at(panel, b.multiply(line, CACHE_LINE)))

    def _reduce(
        self,
        runs: list[Axis],
        pixels: Value,
        weights: Value,
        sums: list[Value],
        fetch: Callable[[Offset, int], None],
    ) -> tuple[Value, list[Value]]:
        """Nest the reduction loops; gives the weights' place after them, and the sums.

        Every round of the innermost loop does its part of `fetch`.
        """
        b, (run, *inner) = self.builder, runs
        step = self._step(self.contraction.data, run)

        def body(
            place: Value, panel: Value, old: list[Value], count: int
        ) -> tuple[Value, list[Value]]:
            for k in range(count):
                at = b.at(place, k * step)
                if inner:
                    panel, old = self._reduce(inner, at, panel, old, fetch)
                else:
                    old = self._products(at, b.at(panel, k * self.width * 4), old)
            return (panel if inner else b.at(panel, count * self.width * 4)), old

        if run.size == 1 or (not inner and run.size <= STRAIGHT):
            return body(pixels, weights, sums, run.size)
        unroll = 1 if inner else UNROLL
        carried = [("ptr", pixels), ("ptr", weights), *[(b.vector, value) for value in sums]]
        rounds = run.size // unroll
        with b.loop(0, rounds, 1, carried) as loop:
            place, panel, *old = loop.values
            if not inner:
                fetch(loop.index, rounds)
            panel, new = body(place, panel, old, unroll)
            loop.following = [b.at(place, unroll * step), panel, *new]
        place, panel, *sums = loop.values
        return body(place, panel, sums, run.size % unroll)

    def _products(self, pixels: Value, weights: Value, sums: list[Value]) -> list[Value]:
        """One channel of one tap: an outer product of the tile's pixels and the weight vectors."""
        b, tile = self.builder, self.tile
        size = self.target.lanes * 4
        vectors = [b.load(b.at(weights, v * size)) for v in range(tile.vectors)]
        result: list[Value] = []
        for row in range(tile.rows):
            for column in range(tile.columns):
                place = b.at(pixels, self._pixel(self.contraction.data, row, column))
                value = b.broadcast(b.load_scalar(place))
                old = sums[len(result) : len(result) + tile.vectors]
                result += [b.fma(value, w, s) for w, s in zip(vectors, old, strict=True)]
        return result

    def _finish(
        self,
        sums: list[Value],
        block: Offset,
        start: dict[Axis, Offset],
        origins: dict[Read, Offset],
    ) -> None:
        """Apply the epilogue and store; the last block of features may be partial."""
        b = self.builder
        partial = self.features % self.width
        if not partial:
            self._store(sums, start, origins, self.width)
        elif self.blocks == 1:
            self._store(sums, start, origins, partial)
        else:
            is_last = b.emit(f"icmp eq i64 {block}, {self.blocks - 1}")
            inverse = b.emit(f"xor i1 {is_last}, true")
            with b.when(inverse):
                self._store(sums, start, origins, self.width)
            with b.when(is_last):
                self._store(sums, start, origins, partial)

    def _store(
        self,
        sums: list[Value],
        start: dict[Axis, Offset],
        origins: dict[Read, Offset],
        features: int,
    ) -> None:
        b, tile, axes = self.builder, self.tile, self._outer_tiles()[-2:]
        places = product(range(tile.rows), range(tile.columns))
        totals = {at: sums[n * tile.vectors :][: tile.vectors] for n, at in enumerate(places)}
        down, right = self.window
        for place in product(range(0, tile.rows, down), range(0, tile.columns, right)):
            with ExitStack() as stack:
                for at, (axis, size, _) in zip(place[-len(axes) :], axes, strict=True):
                    overlap, last = -axis.size % size, axis.size - size
                    stack.enter_context(once(b, at, overlap, start[axis], last))
                window = {at: totals[at] for at in block_of(place, self.window)}
                self._store_window(window, origins, features)

    def _store_window(
        self,
        sums: dict[tuple[int, int], list[Value]],
        origins: dict[Read, Offset],
        features: int,
    ) -> None:
        """Store what is pooled from the vectors of some pixels, by their places in the tile."""
        b, task, lanes = self.builder, self.task, self.target.lanes

        def address(vector: int, at: tuple[int, int], read: Read) -> tuple[Value, Offset]:
            pointer = self.pointers[read.tensor]
            if not read.access:
                return pointer, task.base(read)
            along = lanes * 4 if read.access[-1] == task.output.access[-1] else 0
            return pointer, b.add(origins[read], self._pixel(read, *at) + vector * along)

        for vector in range(self.tile.vectors):
            rest = features - vector * lanes
            if rest <= 0:
                continue
            reduced = {at: {self.contraction.reduction: one[vector]} for at, one in sums.items()}
            here = partial(address, vector)
            self.pooled.store(b, task, reduced, here, rest if rest < lanes else None)
