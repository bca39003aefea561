"""The code of Winograd's convolution: the equation is in `winograd`, the sizes in its blocking.

    for each block of tiles
      V[n, group, depth, row] = (B' d B)[n] of every phase of every tile's input window
      for each panel of output features
        M[tile, n, feature] = sum over depth of V[n, tile, depth] * U[n, depth, feature]
        output tile = epilogue(A' M A)

U = G g G' is made when the weights are packed; V and M are scratch memory of the thread.

What comes from memory is fetched while products are made, lest the rest wait for it: the weights of
the next product; where images outgrow the cache, the windows of the next block and the lines that
outputs go to: pixel n of each with product n.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import product

from striate.compiler.builder import Builder, Offset, Value
from striate.compiler.schedules.base import Task
from striate.compiler.schedules.chunks import share
from striate.compiler.schedules.pooled import block_of
from striate.compiler.schedules.tiles import CACHE_LINE
from striate.compiler.schedules.winograd_blocking import (
    Blocking,
    Window,
    fetches_outputs,
    fetches_windows,
)
from striate.compiler.schedules.winograd_windows import Windows
from striate.compiler.toom_cook import emit_transform
from striate.notation.ir import Read

UNROLL = 4


class Kernel(Windows):
    """One emission: V as its base writes it, M and the outputs; the fields are steps (bytes)."""

    def __init__(self, task: Task, window: Window, blocking: Blocking) -> None:
        super().__init__(task, window, blocking)
        self.width = blocking.vectors * self.line
        self.u_phase = window.channels * self.width
        self.u_step = self.phases * self.u_phase
        # Bytes of the next product's weights to fetch with each vector of channels.
        lines = self.u_phase / CACHE_LINE / (self.groups * self.channel_vectors)
        self.fetch = math.ceil(lines) * CACHE_LINE
        self.m_step = window.products * self.width
        self.m_offset = window.products * self.v_step
        self.scratch_bytes = self.m_offset + self.groups * blocking.rows * self.m_step
        self.fetches_windows = fetches_windows(window, task.target, blocking)
        self.fetches_outputs = fetches_outputs(window, task.target)

    def write(self) -> Builder:
        b, blocking = Builder(self.task.target), self.blocking
        self.builder = b
        for position, (tensor, _) in enumerate(self.task.layouts):
            self.pointers[tensor] = b.argument(position)
        # Chunks that run side by side share their weights: neighbours differ in tiles.
        spans = math.ceil(self.window.tiles / blocking.span)
        span = b.multiply(b.remainder("%chunk", spans), blocking.span)
        end = b.minimum(b.add(span, blocking.span), self.window.tiles)
        panels = share(b, b.divide("%chunk", spans), blocking.parts, blocking.panels)
        with b.loop(span, end, blocking.block) as block:
            count = b.minimum(b.emit(f"sub i64 {end}, {block.index}"), blocking.block)
            self._windows(block.index, count)
            with b.loop(*panels) as panel:
                self._sums(panel.index, block.index, count)
                self._outputs(panel.index, block.index, count)
        return b

    # M: the products

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
                new = self._vector_run(place, values)
                following = b.at(place, self.blocking.rows * self.line)
                loop.following = [following, b.at(lines, self.fetch), *new]
            data, _, weights, *sums = loop.values
        return self._channel_run(data, weights, sums, rest)

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

    # The outputs

    def _outputs(self, panel: Value, first: Value, count: Offset) -> None:
        """The outputs of `count` tiles and of a panel; the last panel may be partial."""
        b, vectors = self.builder, self.blocking.vectors
        feature = b.multiply(panel, self.width)
        whole, rest = divmod(self.window.features, self.lanes)
        last = self.blocking.panels - 1
        with b.loop(0, count) as tile:
            source = b.at("%scratch", b.add(self.m_offset, b.multiply(tile.index, self.m_step)))
            place = self._place(b.add(first, tile.index))
            left = b.minimum(b.add(whole, b.multiply(panel, -vectors)), vectors)
            with b.loop(0, left, maybe_empty=True) as vector:
                offset = b.multiply(vector.index, self.line)
                self._output_vector(b.at(source, offset), b.add(feature, offset), place, None)
            if rest:
                with b.when(b.emit(f"icmp eq i64 {panel}, {last}")):
                    offset = self.line * (whole - last * vectors)
                    at = b.add(feature, offset)
                    self._output_vector(b.at(source, offset), at, place, rest)

    def _output_vector(
        self, source: Value, feature: Offset, place: dict[str, Offset], lanes: int | None
    ) -> None:
        """One vector of features of one tile: A' M A, then the epilogue of each output.

        Windows of them are pooled before they are stored.
        """
        b, (height, breadth) = self.builder, self.window.sides
        loaded = (
            [b.load(b.at(source, (r * breadth + c) * self.width)) for r in range(height)]
            for c in range(breadth)
        )
        rows, columns = self.window.algorithms
        lines = emit_transform(b, (rows.output, columns.output), loaded)
        origin: dict[Read, Offset] = {}
        for read in self._epilogue_reads():
            offset = self._position(read, place)
            along = read.access[-1] == self.task.output.access[-1]
            origin[read] = b.add(offset, feature) if along else offset
        down, right = self.window.pool
        for number, band in enumerate(zip(*[lines] * down, strict=True)):
            r = number * down
            for c in range(0, len(band[0]), right):
                outputs = {at: band[at[0] - r][at[1]] for at in block_of((r, c), (down, right))}
                with self._inside((r, c), place):
                    self._store(outputs, origin, lanes)

    def _epilogue_reads(self) -> list[Read]:
        found = self.window.pooled.outer_reads()
        return [*dict.fromkeys([*(read for read in found if read.access), self.task.output])]

    @contextmanager
    def _inside(self, at: tuple[int, int], place: dict[str, Offset]) -> Iterator[None]:
        """Run the block unless the output lies past the image: only the last tiles reach there."""
        b, window = self.builder, self.window
        sizes = zip(window.pixels, at, window.size, window.tile, window.grid, strict=True)
        conditions = [
            b.emit(f"icmp slt i64 {place[index]}, {count - 1}")
            for index, offset, size, m, count in sizes
            if offset >= (size % m or m)
        ]
        with ExitStack() as stack:
            for condition in conditions:
                stack.enter_context(b.when(condition))
            yield

    def _store(
        self,
        outputs: dict[tuple[int, int], Value],
        origin: dict[Read, Offset],
        lanes: int | None,
    ) -> None:
        """Store the outputs of one window, by their places in the tile."""
        b, task = self.builder, self.task

        def address(at: tuple[int, int], read: Read) -> tuple[Value, Offset]:
            pointer = self.pointers[read.tensor]
            if not read.access:
                return pointer, task.base(read)
            return pointer, b.add(origin[read], self._pixel(read, *at))

        sums = {at: {self.contraction.reduction: total} for at, total in outputs.items()}
        self.window.pooled.store(b, task, sums, address, lanes)
