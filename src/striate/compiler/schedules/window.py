"""Pooling: one reduction over a window that slides along the columns, features along the lanes.

    for each row of output pixels
      the window's ranges in the box (all but along the columns)
      for each pixel whose window leaves the box sideways, for each block of feature vectors
        store epilogue(reduction over the clamped window)
      for each tile of the other columns, for each block of feature vectors
        take in the window's rows one by one; store epilogue(...) for each pixel of the tile

A sum keeps the order of the equation. A maximum does not depend on order, so the columns of a tile
are first reduced downwards, each once, and then across.
"""

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace

from striate.compiler.builder import Builder, Offset, Value
from striate.compiler.expression import COMBINE
from striate.compiler.layout import Halo
from striate.compiler.schedules.addressing import Context
from striate.compiler.schedules.base import Emission, Task
from striate.compiler.schedules.chunks import estimated_seconds, share, wanted_chunks
from striate.compiler.schedules.epilogue import once
from striate.compiler.schedules.evaluation import Evaluator
from striate.compiler.schedules.guards import Guard, guards
from striate.compiler.target import Target
from striate.notation.ir import IDENTITIES, Read, Reduce, Statement, walk

name = "window"

_KINDS = ("max", "min", "sum", "mean")
# Windows up to this wide are written out along the columns.
WIDEST = 16
# Without a tile of columns this many feature vectors hide the latency of the additions.
ALONE = 8


@dataclass(frozen=True, slots=True)
class Window:
    """The roles in a pooling: output indices `rows`, then `column` (if the window slides along it).

    `across` is the reduction index along the columns, `down` are the others; `axis` is the axis of
    the read that both `column` and `across` run along.
    """

    reduction: Reduce
    read: Read
    rows: tuple[str, ...]
    column: str | None
    feature: str
    down: tuple[str, ...]
    across: str | None
    axis: int | None


@dataclass(frozen=True, slots=True)
class Tile:
    """Output pixels and feature vectors held in registers."""

    columns: int
    vectors: int


def seconds(statement: Statement, target: Target) -> float | None:
    if _match(statement) is None:
        return None
    return estimated_seconds(statement, _cycles(statement, target))


def halo(statement: Statement) -> dict[str, Halo]:
    return {}


def emit(task: Task) -> Emission:
    window = _match(task.statement)
    assert window is not None
    return _Pooling(task, window).emission()


def _cycles(statement: Statement, target: Target) -> float:
    """A load and a combination for every tap of every vector of features."""
    extents = dict(statement.extents)
    features = statement.shape[-1]
    pixels = math.prod(extents.values()) / features
    return 2.0 * pixels * math.ceil(features / target.lanes)


def _match(statement: Statement) -> Window | None:
    """The statement's roles as a pooling, or None if it isn't one."""
    reductions = [n for n in walk(statement.equation.expression) if isinstance(n, Reduce)]
    output = [affine.index for affine in statement.equation.output.access]
    if len(reductions) != 1 or not output or None in output:
        return None
    reduction = reductions[0]
    read = reduction.body
    if not isinstance(read, Read) or reduction.kind not in _KINDS or not read.access:
        return None
    *rows, feature = [index for index in output if index is not None]
    if read.access[-1].index != feature or any(affine.divisor > 1 for affine in read.access):
        return None
    if any(affine.coefficient(feature) for affine in read.access[:-1]):
        return None
    reduced = set(reduction.indices)
    if reduced & set(output) or len(reduced) < len(reduction.indices):
        return None
    if any(len(guard.indices & reduced) != 1 for guard in guards(statement, read)):
        return None
    across = reduction.indices[-1]
    axis = _shared_axis(statement, read, rows[-1], across) if rows else None
    if axis is None:
        return Window(reduction, read, tuple(rows), None, feature, reduction.indices, None, None)
    down = reduction.indices[:-1]
    return Window(reduction, read, tuple(rows[:-1]), rows[-1], feature, down, across, axis)


def _shared_axis(statement: Statement, read: Read, column: str, across: str) -> int | None:
    """The one axis along which both indices run forwards, alone."""
    used = [k for k, a in enumerate(read.access) if a.coefficient(column) or a.coefficient(across)]
    if len(used) != 1 or dict(statement.extents)[across] > WIDEST:
        return None
    terms = read.access[used[0]].terms
    if {index for index, _ in terms} != {column, across} or min(c for _, c in terms) < 1:
        return None
    return used[0]


class _Pooling:
    """One emission; the fields are the decisions."""

    def __init__(self, task: Task, window: Window) -> None:
        self.task, self.window = task, window
        self.extents = dict(task.statement.extents)
        self.features = self.extents[window.feature]
        lanes = min(task.target.lanes, 1 << (self.features - 1).bit_length())
        self.lanes = lanes
        self.kind = window.reduction.kind
        self.shared = self.kind in ("max", "min")
        self.interior = self._interior()
        self.tile = self._choose_tile()
        self.builder = Builder(replace(task.target, lanes=lanes))
        addresses = [self.builder.argument(k) for k in range(len(task.layouts))]
        names = [tensor for tensor, _ in task.layouts[:-1]]
        self.result = addresses[-1]
        self.pointers = dict(zip(names, addresses[:-1], strict=True))
        self.evaluator = Evaluator(self.builder, task, self.pointers)
        found = guards(task.statement, window.read)
        self.clamps = [guard for guard in found if window.across not in guard.indices]
        self.expression = task.statement.equation.expression

    # Decisions

    @property
    def columns(self) -> int:
        return self.extents[self.window.column] if self.window.column else 1

    def _interior(self) -> tuple[int, int]:
        """The columns whose windows stay within the box sideways."""
        window = self.window
        if window.column is None or window.across is None or window.axis is None:
            return 0, 1
        affine = window.read.access[window.axis]
        size = dict(self.task.statement.shapes)[window.read.tensor][window.axis]
        step, reach = affine.coefficient(window.column), affine.coefficient(window.across)
        farthest = affine.offset + reach * (self.extents[window.across] - 1)
        first = max(0, -(affine.offset // step))
        stop = min(self.columns, (size - 1 - farthest) // step + 1)
        return (first, stop) if stop > first else (self.columns, self.columns)

    def _taps(self, columns: int) -> list[list[int]]:
        """For each pixel of a tile the columns of its window, counted from the tile's first."""
        window = self.window
        if window.column is None or window.across is None or window.axis is None:
            return [[0]]
        affine = window.read.access[window.axis]
        step, reach = affine.coefficient(window.column), affine.coefficient(window.across)
        taps = range(self.extents[window.across])
        return [[step * pixel + reach * tap for tap in taps] for pixel in range(columns)]

    def _choose_tile(self) -> Tile:
        """The tile that loads least for each output and fits the registers."""
        vectors = max(1, self.features // self.lanes)
        first, stop = self.interior
        if self.window.column is None or stop - first < 1:
            return Tile(1, min(ALONE, vectors))
        # Half of the registers: a maximum needs as many again to see a NaN.
        budget = self.task.target.registers // 2 - 2
        best, best_cost = Tile(1, 1), math.inf
        for columns in range(1, min(8, stop - first) + 1):
            taps = self._taps(columns)
            width = len({place for places in taps for place in places})
            for count in range(1, min(4, vectors) + 1):
                if (width if self.shared else columns) * count > budget:
                    continue
                waste = math.ceil((stop - first) / columns) * columns / (stop - first)
                waste *= math.ceil(vectors / count) * count / vectors
                cost = waste * (width / columns + 4 / (columns * count))
                if cost < best_cost - 1e-9:
                    best, best_cost = Tile(columns, count), cost
        return best

    # Loops

    def emission(self) -> Emission:
        statement = self.task.statement
        cycles = _cycles(statement, self.task.target)
        wanted = wanted_chunks(estimated_seconds(statement, cycles))
        total = math.prod(self.extents[index] for index in self.window.rows)
        groups = self.features // (self.lanes * self.tile.vectors)
        row_chunks = min(wanted, total)
        feature_chunks = max(1, min(wanted // row_chunks, groups))
        chunks = row_chunks * feature_chunks
        plan = (
            f"{name}: tile of {self.tile.columns} pixels by {self.tile.vectors} vectors of "
            f"{self.lanes}; {total} rows in {chunks} chunks"
        )

        def write() -> Builder:
            anew = _Pooling(self.task, self.window)
            return anew.write(total, row_chunks, feature_chunks)

        return Emission(write, chunks, plan)

    def write(self, total: int, row_chunks: int, feature_chunks: int) -> Builder:
        b = self.builder
        row_chunk = b.remainder("%chunk", row_chunks) if feature_chunks > 1 else "%chunk"
        feature_chunk = b.divide("%chunk", row_chunks) if feature_chunks > 1 else 0
        first, last = share(b, row_chunk, row_chunks, total)
        with b.loop(first, last) as loop:
            context = self._open_row(loop.index)
            self._row(context, feature_chunk, feature_chunks)
        return b

    def _open_row(self, number: Offset) -> Context:
        b = self.builder
        places: dict[str, Offset] = {}
        rest = number
        for index in reversed(self.window.rows[1:]):
            places[index] = b.remainder(rest, self.extents[index])
            rest = b.divide(rest, self.extents[index])
        if self.window.rows:
            places[self.window.rows[0]] = rest
        return Context(places)

    def _row(self, context: Context, chunk: Offset, chunks: int) -> None:
        """All pixels of one row, for the chunk's features."""
        b, column = self.builder, self.window.column
        if column is None:
            self._features(context, None, chunk, chunks)
            return
        first, stop = self.interior
        border = self.columns - (stop - first)
        if border:
            with b.loop(0, border) as loop:
                place: Offset = loop.index
                if first < border:
                    behind = b.add(place, stop - first)
                    left = b.emit(f"icmp slt i64 {place}, {first}")
                    place = b.emit(f"select i1 {left}, i64 {place}, i64 {behind}")
                self._features(context.at(column, place), None, chunk, chunks)
        if stop > first:
            tiles = math.ceil((stop - first) / self.tile.columns)
            with b.loop(0, tiles) as loop:
                place = b.add(b.multiply(loop.index, self.tile.columns), first)
                # The last tile is moved back to end where the interior ends.
                place = b.minimum(place, stop - self.tile.columns)
                self._features(context.at(column, place), self.tile.columns, chunk, chunks)

    def _features(self, context: Context, columns: int | None, chunk: Offset, chunks: int) -> None:
        """One tile (or, for None, one clamped pixel) for all of the chunk's features."""
        b, width = self.builder, self.tile.vectors
        vectors, tail = divmod(self.features, self.lanes)
        groups, rest = divmod(vectors, width)
        counts = self._ranges(context) if columns or self.window.column is None else {}
        pixels = columns or (1 if self.window.column is None else None)

        def block(start: Offset, count: int, active: int | None = None) -> None:
            inner = context.at(self.window.feature, b.multiply(start, self.lanes))
            inner = replace(inner, lane=self.window.feature, vectors=count, active=active)
            if pixels is None:
                self._store(inner, self.evaluator.values(self.expression, inner))
            else:
                self._tile(inner, pixels, counts)

        if groups == 1:
            block(0, width)
        elif groups:
            first, last = share(b, chunk, chunks, groups)
            with b.loop(first, last) as loop:
                block(b.multiply(loop.index, width), width)
        if not rest and not tail:
            return
        is_last = None if chunks == 1 else b.emit(f"icmp eq i64 {chunk}, {chunks - 1}")
        with b.when(is_last) if is_last else nullcontext():
            if rest:
                block(groups * width, rest)
            if tail:
                block(vectors, 1, tail)

    # The code of one tile

    def _ranges(self, context: Context) -> dict[str, tuple[Offset, Offset]]:
        """Where the window lies within the box, along each of its indices but `across`."""
        return {
            index: self.evaluator.range_within(index, self._clamps_of(index), context)
            for index in self.window.down
        }

    def _clamps_of(self, index: str) -> list[Guard]:
        return [guard for guard in self.clamps if index in guard.indices]

    def _tile(
        self, context: Context, pixels: int, ranges: dict[str, tuple[Offset, Offset]]
    ) -> None:
        """`pixels` neighbours from the context's column on; none leaves the box sideways."""
        b, taps, count = self.builder, self._taps(pixels), context.vectors
        width = len(_places(taps)) if self.shared else pixels
        state = [b.splat(IDENTITIES[self.kind])] * (width * count)
        state = self._down(list(self.window.down), ranges, context, taps, state)
        divisor = self._count(ranges) if self.kind == "mean" else None
        order = {place: k for k, place in enumerate(_places(taps))}
        for pixel, places in enumerate(taps):
            values = []
            for vector in range(count):
                if self.shared:
                    parts = [state[order[place] * count + vector] for place in places]
                    value = parts[0]
                    for part in parts[1:]:
                        value = COMBINE[self.kind](b, value, part)
                else:
                    value = state[pixel * count + vector]
                if divisor is not None:
                    value = b.emit(f"fdiv {b.vector} {value}, {divisor}")
                values.append(value)
            self._finish(context, pixel, values)

    def _down(
        self,
        indices: list[str],
        ranges: dict[str, tuple[Offset, Offset]],
        context: Context,
        taps: list[list[int]],
        state: list[Value],
    ) -> list[Value]:
        """Take in the window's rows: the loops over `indices`."""
        b = self.builder
        if not indices:
            return self._take(context, taps, state)
        index, *rest = indices
        start, stop = ranges[index]
        if (start, stop) == (0, 1):
            return self._down(rest, ranges, context.at(index, 0), taps, state)
        carried = [(b.vector, value) for value in state]
        maybe_empty = bool(self._clamps_of(index))
        with b.loop(start, stop, 1, carried, maybe_empty=maybe_empty) as loop:
            inner = context.at(index, loop.index)
            loop.following = self._down(rest, ranges, inner, taps, list(loop.values))
        return loop.values

    def _take(self, context: Context, taps: list[list[int]], state: list[Value]) -> list[Value]:
        """One row of the window: all columns that the tile's pixels need."""
        b, read, count = self.builder, self.window.read, context.vectors
        layout = self.task.layout(read.tensor)
        if self.window.across:
            context = context.at(self.window.across, 0)
        offset = self.evaluator.offset(layout, read.access, context)
        row = b.at(self.pointers[read.tensor], offset)
        stride = layout.strides[self.window.axis] if self.window.axis is not None else 0
        combine, size = COMBINE[self.kind], 4 * self.lanes
        loaded = {
            (place, vector): b.load(b.at(row, place * stride + vector * size), context.active)
            for place in _places(taps)
            for vector in range(count)
        }
        if self.shared:
            values = loaded.values()
            return [combine(b, old, value) for old, value in zip(state, values, strict=True)]
        result = []
        for pixel, places in enumerate(taps):
            for vector in range(count):
                total = state[pixel * count + vector]
                for place in places:
                    total = combine(b, total, loaded[place, vector])
                result.append(total)
        return result

    def _count(self, ranges: dict[str, tuple[Offset, Offset]]) -> Value:
        """How many points of the window are in the box, in every lane; 1 for none."""
        b = self.builder
        fixed = self.extents[self.window.across] if self.window.across else 1
        count: Value | None = None
        for start, stop in ranges.values():
            if isinstance(start, int) and isinstance(stop, int):
                fixed *= stop - start
                continue
            size = str(b.maximum(b.add(stop, b.multiply(start, -1)), 0))
            count = size if count is None else b.emit(f"mul nsw i64 {count}, {size}")
        if count is None:
            return b.splat(float(max(fixed, 1)))
        total = b.maximum(b.multiply(count, fixed), 1)
        return b.broadcast(b.emit(f"sitofp i64 {total} to float"))

    def _finish(self, context: Context, pixel: int, values: list[Value]) -> None:
        """The epilogue and the stores of one pixel of a tile."""
        b, column, (first, stop) = self.builder, self.window.column, self.interior
        context = replace(context, known={self.window.reduction: values})
        if column is None:
            self._store(context, self.evaluator.values(self.expression, context))
            return
        start, columns = context.places[column], self.tile.columns
        context = context.at(column, b.add(start, pixel))
        with once(b, pixel, (first - stop) % columns, start, stop - columns):
            self._store(context, self.evaluator.values(self.expression, context))

    def _store(self, context: Context, values: list[Value]) -> None:
        b = self.builder
        layout = self.task.layouts[-1][1]
        offset = self.evaluator.offset(layout, self.task.output.access, context)
        address = b.at(self.result, offset)
        for vector in range(context.vectors):
            place = b.at(address, 4 * self.lanes * vector)
            b.store(values[vector % len(values)], place, context.active)


def _places(taps: list[list[int]]) -> list[int]:
    """All columns that some pixel needs, from left to right."""
    return sorted({place for places in taps for place in places})
