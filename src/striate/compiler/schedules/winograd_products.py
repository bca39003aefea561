"""The products of Winograd's convolution: M[tile, n, feature], the sums over depth of V times U.

They are made one multiply-add after the other, or by pairs of channels (`pairs`), for which V is
balanced: each window's channels, for every product, by a scale of their own.

What comes from memory is fetched while products are made, lest the rest wait for it: the weights of
the next product; where images outgrow the cache, the windows of the next block and the lines that
outputs go to: pixel n of each with product n.
"""

import math
from itertools import product

from striate.compiler.balance import Balance
from striate.compiler.builder import Offset, Value
from striate.compiler.prefetch import room
from striate.compiler.program import Room
from striate.compiler.schedules.base import Task
from striate.compiler.schedules.pairs import (
    Rows,
    emit_balanced,
    emit_kept,
    emit_pairs,
    emit_uncorrected,
    emit_unscaled,
)
from striate.compiler.schedules.tiles import CACHE_LINE
from striate.compiler.schedules.winograd_blocking import (
    Blocking,
    Window,
    fetches_outputs,
    fetches_windows,
)
from striate.compiler.schedules.winograd_windows import Windows

UNROLL = 4


class Products(Windows):
    """V as its base writes it, and the code that writes M; the fields are steps (bytes)."""

    def __init__(self, task: Task, window: Window, blocking: Blocking) -> None:
        super().__init__(task, window, blocking)
        self.width = blocking.vectors * self.line
        self.u_phase = window.channels * self.width
        self.u_step = self.phases * self.u_phase
        # Bytes of the next product's weights to fetch with each vector of channels.
        lines = self.u_phase / CACHE_LINE / (self.groups * self.channel_vectors)
        self.fetch = math.ceil(lines) * CACHE_LINE
        panels = blocking.panels * window.products
        self.balance = Balance(panels, 1, window.channels, self.width // 4)
        self.m_step = window.products * self.width
        self.m_offset = window.products * self.v_step
        # The correction and the inverse scale of every window and product, after V and M.
        self.kept_offset = self.m_offset + self.groups * blocking.rows * self.m_step
        self.kept_step = 8 * self.groups * blocking.rows
        kept = window.products * self.kept_step if blocking.paired else 0
        self.scratch_bytes = self.kept_offset + kept
        self.room = self._room()
        self.fetches_windows = fetches_windows(window, task.target, blocking)
        self.fetches_outputs = fetches_outputs(window, task.target)

    def _room(self) -> Room:
        """What a chunk can fetch for later steps: its part with every vector of channels."""
        window, blocking = self.window, self.blocking
        spans = math.ceil(window.tiles / blocking.span)
        panels = blocking.panels // blocking.parts
        tiles = max(1, window.tiles // (spans * blocking.rows))
        rounds = window.terms // window.channels * (window.channels // self.lanes)
        return room(panels * tiles * rounds, panels * window.products * self.u_step)

    def _balance(self, count: Offset) -> None:
        """Scale the channels of `count` windows for every product; keep what undoes it."""
        b, rows = self.builder, self.blocking.rows
        with b.loop(0, self.window.products) as n, b.loop(0, count) as tile:
            group = b.multiply(b.divide(tile.index, rows), self.group_bytes)
            row = b.multiply(b.remainder(tile.index, rows), self.line)
            place = b.at("%scratch", b.add(b.multiply(n.index, self.v_step), b.add(group, row)))
            made = emit_balanced(b, [place], place, self.window.channels, rows * self.line)
            for k, value in enumerate(made):
                b.store_scalar(value, b.at(self._kept(n.index, tile.index), 4 * k))

    def _kept(self, n: Value, tile: Offset) -> Value:
        """Where the correction of a tile of the block lies, and after it the inverse scale."""
        b = self.builder
        offset = b.add(b.multiply(n, self.kept_step), b.multiply(tile, 8))
        return b.at("%scratch", b.add(self.kept_offset, offset))

    def _sums(self, panel: Value, first: Value, count: Offset) -> None:
        """M of `count` tiles and of a panel."""
        b, window, rows = self.builder, self.window, self.blocking.rows
        weights = self.pointers[self.contraction.weight.tensor]
        weights = b.at(weights, b.multiply(panel, window.products * self.u_step))
        with b.loop(0, window.products) as n:
            u = b.at(weights, b.multiply(n.index, self.u_step))
            v = b.at("%scratch", b.multiply(n.index, self.v_step))
            m = b.at("%scratch", b.add(self.m_offset, b.multiply(n.index, self.width)))
            phases = self._phases_at(n.index)
            with b.loop(0, b.divide(b.add(count, rows - 1), rows)) as group:
                tile = b.add(first, b.multiply(group.index, rows))
                self._fetch_outputs(n.index, panel, tile)
                windows = self._following_windows(n.index, panel, tile)
                data = b.at(v, b.multiply(group.index, self.group_bytes))
                ahead = b.multiply(group.index, self.channel_vectors * self.fetch)
                if self.blocking.paired:
                    kept = self._kept(n.index, b.multiply(group.index, rows))
                    number = b.add(b.multiply(panel, window.products), n.index)
                    sums = self._paired(number, kept, data, u, ahead, windows)
                else:
                    sums = self._product(phases, data, u, ahead, windows)
                to = b.at(m, b.multiply(group.index, rows * self.m_step))
                places = product(range(rows), range(self.blocking.vectors))
                for total, (row, k) in zip(sums, places, strict=True):
                    b.store(total, b.at(to, row * self.m_step + k * self.line))

    def _following_windows(self, n: Value, panel: Value, tile: Offset) -> list[Value]:
        """Pixel n of some windows of the next block; the panels share those of a register tile."""
        b, blocking, data = self.builder, self.blocking, self.contraction.data
        if not self.fetches_windows:
            return []
        panels = blocking.panels // blocking.parts
        count = math.ceil(blocking.rows / panels)
        first = b.add(tile, b.multiply(b.remainder(panel, panels), count))
        breadth = self.window.sides[1]
        pixel = self._pixel(data, b.divide(n, breadth), b.remainder(n, breadth))
        pixel = b.at(self.pointers[data.tensor], pixel)
        places = [self._place(b.add(first, blocking.block + k)) for k in range(count)]
        return [b.at(pixel, self._position(data, place)) for place in places]

    def _fetch_outputs(self, n: Value, panel: Value, tile: Offset) -> None:
        """Ask for output n of the tiles of a register tile, if they have as many."""
        b, output, window = self.builder, self.task.output, self.window
        if not self.fetches_outputs:
            return
        down, right = window.pool
        rows, columns = (m // w for m, w in zip(window.tile, window.pool, strict=True))
        with b.when(b.emit(f"icmp slt i64 {n}, {rows * columns}")):
            row, column = b.divide(n, columns), b.remainder(n, columns)
            pixel = self._pixel(output, b.multiply(row, down), b.multiply(column, right))
            pixel = b.at(self.pointers[output.tensor], b.add(pixel, b.multiply(panel, self.width)))
            for row in range(self.blocking.rows):
                place = b.at(pixel, self._position(output, self._place(b.add(tile, row))))
                for offset in range(0, self.width, CACHE_LINE):
                    b.prefetch(b.at(place, offset), level=2)

    def _phases_at(self, n: Value) -> tuple[Offset, Offset]:
        """The phases of rows and columns to sum over: those of fewer taps are 0 at infinity."""
        b, window, found = self.builder, self.window, list[Offset]()
        point = b.divide(n, window.sides[1]), b.remainder(n, window.sides[1])
        sizes = zip(point, window.sides, window.phases, window.far_phases, strict=True)
        for place, side, every, far in sizes:
            if far == every:
                found.append(every)
                continue
            infinite = b.emit(f"icmp eq i64 {place}, {side - 1}")
            found.append(b.emit(f"select i1 {infinite}, i64 {far}, i64 {every}"))
        return found[0], found[1]

    def _product(
        self,
        phases: tuple[Offset, Offset],
        data: Value,
        weights: Value,
        ahead: Offset,
        windows: list[Value],
    ) -> list[Value]:
        """The register tile of tiles by vectors of features, over the channels of all phases."""
        b = self.builder
        zeros = [(b.vector, b.zero())] * (self.blocking.rows * self.blocking.vectors)
        with b.loop(0, phases[0], 1, zeros) as row:
            carried = [(b.vector, one) for one in row.values]
            with b.loop(0, phases[1], 1, carried) as column:
                phase = b.add(b.multiply(row.index, self.window.phases[1]), column.index)
                u = b.at(weights, b.multiply(phase, self.u_phase))
                fetched = b.at(u, b.add(self.u_step, ahead))
                following = [b.at(window, self._phase(phase)) for window in windows]
                place = b.at(data, self._depth(phase))
                column.following = self._products(place, u, fetched, following, column.values)
            row.following = column.values
        return row.values

    def _paired(
        self,
        number: Offset,
        kept: Value,
        data: Value,
        weights: Value,
        ahead: Offset,
        windows: list[Value],
    ) -> list[Value]:
        """The register tile by pairs of channels; `number` is that of its panel and product."""
        b, rows = self.builder, self.blocking.rows
        following = b.at(weights, b.add(self.u_step, ahead))
        packed = self.pointers[self.contraction.weight.tensor]
        corrections = emit_kept(b, packed, self.balance, number, 0)
        places = [b.at(kept, 8 * row) for row in range(rows)]
        sums = emit_uncorrected(b, corrections, places)
        sums = self._products(data, weights, following, windows, sums)
        scales = emit_kept(b, packed, self.balance, number, 1)
        return emit_unscaled(b, scales, [b.at(place, 4) for place in places], sums)

    def _products(
        self, data: Value, weights: Value, ahead: Value, windows: list[Value], sums: list[Value]
    ) -> list[Value]:
        """The register tile over the channels of one phase."""
        b = self.builder
        whole, rest = divmod(self.window.channels, self.lanes)
        if whole:
            carried = [("ptr", data), ("ptr", ahead), ("ptr", weights)]
            carried += [(b.vector, one) for one in sums]
            with b.loop(0, whole, 1, carried) as loop:
                place, lines, *values = loop.values
                for offset in range(0, self.fetch, CACHE_LINE):
                    b.prefetch(b.at(lines, offset), level=2)
                channel = b.multiply(loop.index, self.line)
                for window in windows:
                    b.prefetch(b.at(window, channel), level=2)
                b.prefetch_later(self.room.lines)
                if self.blocking.paired:
                    weights, *old = values
                    new = self._pairs(place, weights, old, self.lanes)
                    new.insert(0, b.at(weights, self.lanes * self.width))
                else:
                    new = self._vector_run(place, values)
                following = b.at(place, self.blocking.rows * self.line)
                loop.following = [following, b.at(lines, self.fetch), *new]
            data, _, weights, *sums = loop.values
        run = self._pairs if self.blocking.paired else self._channel_run
        return run(data, weights, sums, rest)

    def _pairs(self, data: Value, weights: Value, sums: list[Value], count: int) -> list[Value]:
        offsets = tuple(row * self.line for row in range(self.blocking.rows))
        return emit_pairs(self.builder, Rows(data, offsets, weights, self.width), count, sums)

    def _vector_run(self, data: Value, values: list[Value]) -> list[Value]:
        """One vector of channels; a loop, lest LLVM load broadcasts sooner than registers allow."""
        b, lanes = self.builder, self.lanes
        types = ["ptr", *[b.vector] * (len(values) - 1)]
        with b.loop(0, 4 * lanes, 4 * UNROLL, list(zip(types, values, strict=True))) as loop:
            weights, *sums = loop.values
            new = self._channel_run(b.at(data, loop.index), weights, sums, UNROLL)
            loop.following = [b.at(weights, UNROLL * self.width), *new]
        return loop.values

    def _channel_run(
        self, data: Value, weights: Value, sums: list[Value], count: int
    ) -> list[Value]:
        b, blocking = self.builder, self.blocking
        for k in range(count):
            vectors = [
                b.load(b.at(weights, k * self.width + v * self.line))
                for v in range(blocking.vectors)
            ]
            result: list[Value] = []
            for row in range(blocking.rows):
                value = b.broadcast(b.load_scalar(b.at(data, row * self.line + 4 * k)))
                old = sums[len(result) : len(result) + blocking.vectors]
                result += [b.fma(value, w, s) for w, s in zip(vectors, old, strict=True)]
            sums = result
        return sums
