"""The code of Winograd's convolution: the equation is in `winograd`, the sizes in its blocking.

    for each block of tiles
      V[n, group, depth, row] = (B' d B)[n] of every phase of every tile's input window
      for each panel of output features
        M[tile, n, feature] = sum over depth of V[n, tile, depth] * U[n, depth, feature]
        output tile = epilogue(A' M A)

U = G g G' is made when the weights are packed; V and M are scratch memory of the thread.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from striate.compiler.builder import Builder, Offset, Value
from striate.compiler.schedules.chunks import share
from striate.compiler.schedules.pooled import block_of
from striate.compiler.schedules.winograd_products import Products
from striate.compiler.toom_cook import emit_transform
from striate.notation.ir import Read


class Kernel(Products):
    """One emission: V and M as its bases write them, and the outputs."""

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
            if blocking.paired:
                self._balance(count)
            with b.loop(*panels) as panel:
                self._sums(panel.index, block.index, count)
                self._outputs(panel.index, block.index, count)
        return b

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
