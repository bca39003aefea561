"""The input windows of Winograd's convolution, transformed: V[n, group, depth, row] = (B' d B)[n].

The depth is the phases of rows and columns and their channels. A group is the tiles of one register
tile: its channels lie together, a vector for each tile, so that V is read in order, as the weights
are. Phases of few channels share a vector.
"""

import math
from collections.abc import Sequence

from striate.compiler.builder import Builder, Offset, Value
from striate.compiler.schedules.base import Task
from striate.compiler.schedules.tiles import CACHE_LINE
from striate.compiler.schedules.winograd_blocking import Blocking, Window
from striate.compiler.toom_cook import emit_transform
from striate.notation.ir import Read

# Lanes of a vector: the first, the byte offset of what lies in it, and how many.
Piece = tuple[int, int, int]


class Windows:
    """The places of tiles, and the code that writes V; the fields are steps in memory (bytes)."""

    def __init__(self, task: Task, window: Window, blocking: Blocking) -> None:
        self.task, self.window, self.blocking = task, window, blocking
        self.contraction = window.contraction
        self.lanes = task.target.lanes
        self.line = 4 * self.lanes
        self.groups = math.ceil(blocking.block / blocking.rows)
        self.phases = math.prod(window.phases)
        self.channel_vectors = math.ceil(window.channels / self.lanes)
        self.together = window.together(task.target)
        self.group_bytes = window.vectors(task.target) * blocking.rows * self.line
        self.v_step = _odd(self.groups * self.group_bytes)
        self.builder = Builder(task.target)
        self.pointers: dict[str, Value] = {}

    def _place(self, tile: Offset) -> dict[str, Offset]:
        """Where a tile lies: the outer indices, and its row and column in the grid of tiles."""
        b, window = self.builder, self.window
        place: dict[str, Offset] = {}
        for index, size in reversed([*window.outer, *zip(window.pixels, window.grid, strict=True)]):
            place[index] = b.remainder(tile, size)
            tile = b.divide(tile, size)
        return place

    def _position(self, read: Read, place: dict[str, Offset]) -> Offset:
        """The byte offset of `read` at the tile's first output."""
        b = self.builder
        scales = dict(zip(self.window.pixels, self.window.tile, strict=True))
        offset: Offset = self.task.base(read)
        for index, at in place.items():
            step = scales.get(index, 1) * self.task.step(read, index)
            offset = b.add(offset, b.multiply(at, step))
        return offset

    def _pixel(self, read: Read, row: Offset, column: Offset) -> Offset:
        """The byte offset of a pixel of a window or tile from its first."""
        b = self.builder
        down, right = (self.task.step(read, index) for index in self.window.pixels)
        return b.add(b.multiply(row, down), b.multiply(column, right))

    def _windows(self, first: Value, count: Offset) -> None:
        """V of `count` tiles."""
        b, line, data, rows = self.builder, self.line, self.contraction.data, self.blocking.rows
        with b.loop(0, count) as tile:
            place = self._place(b.add(first, tile.index))
            pixels = b.at(self.pointers[data.tensor], self._position(data, place))
            group = b.multiply(b.divide(tile.index, rows), self.group_bytes)
            row = b.multiply(b.remainder(tile.index, rows), line)
            target = b.at("%scratch", b.add(group, row))
            if self.together > 1:
                for phase in range(0, self.phases, self.together):
                    to = b.at(target, self._depth(phase))
                    self._window_vector(pixels, to, self._pieces(phase))
            else:
                with b.loop(0, self.phases) as loop:
                    pixel = b.at(pixels, self._phase(loop.index))
                    self._window_phase(pixel, b.at(target, self._depth(loop.index)))

    def _window_phase(self, pixels: Value, target: Value) -> None:
        """The channels of one phase of a window."""
        b, vector_bytes = self.builder, self.blocking.rows * self.line
        whole, rest = divmod(self.window.channels, self.lanes)
        if whole:
            with b.loop(0, whole) as vector:
                source = b.at(pixels, b.multiply(vector.index, self.line))
                to = b.at(target, b.multiply(vector.index, vector_bytes))
                self._window_vector(source, to, [(0, 0, self.lanes)])
        if rest:
            to = b.at(target, whole * vector_bytes)
            self._window_vector(b.at(pixels, whole * self.line), to, [(0, 0, rest)])

    def _phase(self, phase: Offset) -> Offset:
        """The byte offset of a phase's pixels from those of the first."""
        b, (_, breadth) = self.builder, self.window.phases
        down, right = (self.task.step(self.contraction.data, tap) for tap in self.contraction.taps)
        row, column = b.divide(phase, breadth), b.remainder(phase, breadth)
        return b.add(b.multiply(row, down), b.multiply(column, right))

    def _depth(self, phase: Offset) -> Offset:
        """The byte offset of a phase's channels in V from those of the first."""
        b, vector = self.builder, self.blocking.rows * self.line
        if self.together == 1:
            return b.multiply(phase, self.channel_vectors * vector)
        lane = b.multiply(b.remainder(phase, self.together), 4 * self.window.channels)
        return b.add(b.multiply(b.divide(phase, self.together), vector), lane)

    def _pieces(self, first: int) -> list[Piece]:
        """The pieces of the vector that begins with phase `first`."""
        size, pieces = self.window.channels, list[Piece]()
        for number, phase in enumerate(range(first, self.phases)[: self.together]):
            lane, offset = number * size, self._phase(phase)
            assert isinstance(offset, int), "the offset of a known phase"
            if pieces and offset - pieces[-1][1] == 4 * (lane - pieces[-1][0]):
                lane, offset, _ = pieces.pop()
            pieces.append((lane, offset, (number + 1) * size - lane))
        return pieces

    def _window_vector(self, pixels: Value, target: Value, pieces: Sequence[Piece]) -> None:
        """One vector of channels of one window: B' d B."""
        b, data, window = self.builder, self.contraction.data, self.window
        down, right = (self.task.step(data, i) for i in window.pixels)
        height, breadth = window.sides
        loaded = (
            [self._joined(b.at(pixels, r * down + c * right), pieces) for r in range(height)]
            for c in range(breadth)
        )
        rows, columns = window.algorithms
        made = emit_transform(b, (rows.data, columns.data), loaded)
        for n, value in enumerate(value for row in made for value in row):
            b.store(value, b.at(target, n * self.v_step))

    def _joined(self, pixel: Value, pieces: Sequence[Piece]) -> Value:
        """A vector of pieces of memory."""
        b, lanes = self.builder, self.lanes
        lane, offset, count = pieces[0]
        value = b.load(b.at(pixel, offset), count)
        for lane, offset, count in pieces[1:]:
            mask = ", ".join(f"i1 {int(lane <= k < lane + count)}" for k in range(lanes))
            value = b.call(
                b.vector,
                f"llvm.masked.load.v{lanes}f32.p0",
                f"ptr {b.at(pixel, offset - 4 * lane)}",
                "i32 4",
                f"<{lanes} x i1> <{mask}>",
                f"{b.vector} {value}",
            )
        return value


def _odd(size: int) -> int:
    """`size` bytes or a cache line more: an odd number of lines, so that steps use all sets."""
    lines = math.ceil(size / CACHE_LINE)
    return (lines | 1) * CACHE_LINE
