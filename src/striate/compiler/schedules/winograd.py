"""Winograd's convolution: m x m outputs from (m + 2) x (m + 2) products for each channel.

    for each block of tiles, for each part of the features
      V[n, tile, channel] = (B' d B) of every tile's input window                    (in scratch)
      for each panel of output features
        M[n, tile, feature] = sum over channels of V[n, tile, channel] * U[n, channel, feature]
        output tile = epilogue(A' M A)

U = G g G' is made when the weights are packed. F(4x4,3x3) multiplies 36 times where the direct
way does 144. It adds in another order: results differ from the direct way's by rounding, a few
1e-6 of the largest; they do not depend on tiles, blocks or threads.
Source: Lavin and Gray, "Fast algorithms for convolutional neural networks" (2015).
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from striate.compiler.builder import Builder, Offset, Value
from striate.compiler.layout import Halo
from striate.compiler.schedules.base import Emission, Task, window_halo
from striate.compiler.schedules.chunks import share
from striate.compiler.schedules.contraction import Contraction, fits_layout, match_contraction
from striate.compiler.schedules.epilogue import emit_epilogue, fits_epilogue, outer_reads
from striate.compiler.target import Target
from striate.compiler.toom_cook import Algorithm, algorithm, emit_transform
from striate.notation.ir import Affine, Equation, Read, Statement

name = "winograd"

UNROLL = 4
FEWEST_CHUNKS = 6
# Tiles in a block: enough to use each weight often, few enough that V stays near.
FEWEST_TILES, MOST_TILES = 28, 56
CACHED_WEIGHTS = 16e6
# Vector instructions that one window and one output tile cost to transform, by m (counted).
_TRANSFORM = {2: 80, 4: 230}


@dataclass(frozen=True, slots=True)
class Window:
    """A 3x3 convolution of stride 1 as Winograd sees it: tiles of m x m outputs."""

    contraction: Contraction
    outer: tuple[str, ...]
    rows: str
    columns: str
    taps: tuple[str, str]
    m: int
    grid: tuple[int, int]


def seconds(statement: Statement, target: Target) -> float | None:
    found = _match(statement, 2)
    if found is None or _channels(found, dict(statement.extents)) < target.lanes:
        return None
    return min(_seconds(statement, target, m) for m in (2, 4))


def _seconds(statement: Statement, target: Target, m: int) -> float:
    """The time of the products, the transforms and the reading of weights, for tiles of m x m."""
    window = _match(statement, m)
    assert window is not None
    extents = dict(statement.extents)
    channels, features = _channels(window, extents), _features(window, extents)
    tiles = math.prod(window.grid) * math.prod(extents[i] for i in window.outer)
    lanes, n = target.lanes, (m + 2) ** 2
    padded = math.ceil(features / lanes) * lanes
    products = 2.0 * n * tiles * channels * padded / target.flops_per_second
    cycle = 2.0 * lanes / target.flops_per_second
    moves = _TRANSFORM[m] * tiles * (math.ceil(channels / lanes) + padded / lanes) * cycle
    weights = 4.0 * n * channels * padded
    # Up to this size a part of them is still cached from the last run (layers of 7 pixels).
    share_read = 1 / 3 if weights <= CACHED_WEIGHTS else 1.0
    return 1.08 * products + moves + share_read * weights / target.bytes_per_second


def halo(statement: Statement) -> dict[str, Halo]:
    window = _match(statement, _best_m(statement))
    assert window is not None
    margin = window_halo(statement, window.contraction.data)
    assert margin is not None
    extents = dict(statement.extents)
    below = window.grid[0] * window.m - extents[window.rows]
    right = window.grid[1] * window.m - extents[window.columns]
    halo = (margin[0], margin[1] + below, margin[2], margin[3] + right)
    return {window.contraction.data.tensor: halo}


def _best_m(statement: Statement) -> int:
    """The tile size with the smaller estimate; the same on every target."""
    target = Target.named("avx512")
    return min((4, 2), key=lambda m: _seconds(statement, target, m))


def _match(statement: Statement, m: int) -> Window | None:
    contraction = match_contraction(statement)
    if contraction is None or contraction.group or not contraction.feature:
        return None
    data = contraction.data
    if contraction.channel is None or len(data.access) != 4 or len(contraction.taps) != 2:
        return None
    *_, rows, columns, _ = data.access
    extents = dict(statement.extents)
    found = [_window_axis(affine, contraction) for affine in (rows, columns)]
    if found[0] is None or found[1] is None:
        return None
    (p, u), (q, v) = found[0], found[1]
    if (u, v) != contraction.taps or extents[u] != 3 or extents[v] != 3:
        return None
    if contraction.rows[-2:] != (p, q) or contraction.weight.access[:2] != (
        Affine(((u, 1),)),
        Affine(((v, 1),)),
    ):
        return None
    if contraction.weight_axis != len(contraction.weight.access) - 1:
        return None
    if not fits_epilogue(statement) or not fits_layout(statement, contraction):
        return None
    grid = (math.ceil(extents[p] / m), math.ceil(extents[q] / m))
    return Window(contraction, contraction.rows[:-2], p, q, (u, v), m, grid)


def _window_axis(affine: Affine, contraction: Contraction) -> tuple[str, str] | None:
    """(output index, tap) of an access `p + u + constant`."""
    if len(affine.terms) != 2 or any(step != 1 for _, step in affine.terms):
        return None
    names = [index for index, _ in affine.terms]
    taps = [i for i in names if i in contraction.taps]
    rows = [i for i in names if i in contraction.rows]
    return (rows[0], taps[0]) if len(taps) == len(rows) == 1 else None


def _channels(window: Window, extents: dict[str, int]) -> int:
    return extents[window.contraction.channel or ""]


def _features(window: Window, extents: dict[str, int]) -> int:
    return extents[window.contraction.feature or ""]


def emit(task: Task) -> Emission:
    window = _match(task.statement, _best_m(task.statement))
    assert window is not None
    return _Winograd(task, window).emission()


class _Winograd:
    """One emission; the fields are the decisions."""

    def __init__(self, task: Task, window: Window) -> None:
        self.task, self.window, self.target = task, window, task.target
        self.extents = dict(task.statement.extents)
        self.contraction = window.contraction
        self.algorithm: Algorithm = algorithm(window.m, 3)
        self.side = window.m + 2
        self.products = self.side**2
        self.channels = _channels(window, self.extents)
        self.features = _features(window, self.extents)
        self.tiles = math.prod(window.grid) * math.prod(self.extents[i] for i in window.outer)
        self.blocks, self.block, self.rows, self.vectors = self._choose()
        lanes = self.target.lanes
        self.width = self.vectors * lanes
        self.panels = math.ceil(self.features / self.width)
        self.parts = min(self.panels, math.ceil(FEWEST_CHUNKS / self.blocks))
        # One vector more than the channels need keeps tiles from falling on the same cache sets.
        self.pitch = 4 * (math.ceil(self.channels / lanes) + 1) * lanes
        self.builder = Builder(task.target)
        self.pointers: dict[str, Value] = {}

    def _choose(self) -> tuple[int, int, int, int]:
        """(blocks, tiles a block, register tile: tiles x vectors) with the least waste."""
        near = self.target.l2 // 2 // (4 * self.products * self.channels)
        wanted = max(FEWEST_TILES, min(MOST_TILES, near))
        vectors = math.ceil(self.features / self.target.lanes)
        fewest = max(1, math.ceil(self.tiles / (wanted * 1.4)))
        best, least = (1, self.tiles, 1, 1), math.inf
        for blocks in range(fewest, math.ceil(self.tiles / wanted * 1.4) + 2):
            block = math.ceil(self.tiles / blocks)
            for v in range(1, min(vectors, 4) + 1):
                for rows in range(1, min(block, (self.target.registers - 1 - v) // v) + 1):
                    panels = math.ceil(vectors / v)
                    waste = blocks * math.ceil(block / rows) * rows / self.tiles
                    waste *= panels * v / vectors
                    waste *= self._idle(blocks * min(panels, math.ceil(FEWEST_CHUNKS / blocks)))
                    loads = (1.25 * rows + 1.5 * v) / (rows * v)
                    cost = waste * (max(1.0, loads, 10 / (rows * v)) + 0.05 * loads)
                    if cost < least - 1e-9:
                        best, least = (blocks, block, rows, v), cost
        return best

    def _idle(self, chunks: int) -> float:
        """How much longer all cores take for so many chunks than if they ended together."""
        cores = self.target.cores
        return math.ceil(chunks / cores) * cores / chunks

    def emission(self) -> Emission:
        plan = (
            f"{name}: F({self.window.m}x{self.window.m},3x3), {self.tiles} tiles in {self.blocks} "
            f"blocks of {self.block}; register tile of {self.rows} by {self.vectors} vectors of "
            f"{self.target.lanes}; {self.blocks * self.parts} chunks"
        )
        scratch = self._transformed_bytes() + 4 * self.products * self.block * self.width
        weight = self.contraction.weight.tensor
        packed, transforms = {weight: self._packing()}, {weight: self.algorithm.weights}
        chunks = self.blocks * self.parts
        return Emission(self._write, chunks, plan, packed, scratch, transforms)

    def _transformed_bytes(self) -> int:
        return self.products * self.block * self.pitch

    def _write(self) -> Builder:
        b = self.builder = Builder(self.target)
        for position, (tensor, _) in enumerate(self.task.layouts):
            self.pointers[tensor] = b.argument(position)
        block, part = b.divide("%chunk", self.parts), b.remainder("%chunk", self.parts)
        first_tile = b.multiply(block, self.block)
        with b.loop(0, self.block) as tile:
            self._window(tile.index, self._place(b.add(first_tile, tile.index)))
        sums = b.at("%scratch", self._transformed_bytes())
        first, last = share(b, part, self.parts, self.panels)
        with b.loop(first, last) as panel:
            with b.loop(0, self.products) as product:
                self._multiply(panel.index, product.index, sums)
            with b.loop(0, self.block) as tile:
                place = self._place(b.add(first_tile, tile.index))
                self._finish(panel.index, tile.index, place, sums)
        return b

    def _place(self, tile: Offset) -> dict[str, Offset]:
        """Where a tile lies: the outer indices, and its row and column in the grid of tiles.

        Past the last tile the last one is done again: the block's remainder.
        """
        b = self.builder
        rest = b.minimum(tile, self.tiles - 1)
        place: dict[str, Offset] = {}
        sizes = [(i, self.extents[i]) for i in self.window.outer]
        sizes += [
            (self.window.rows, self.window.grid[0]),
            (self.window.columns, self.window.grid[1]),
        ]
        for index, size in reversed(sizes):
            place[index] = b.remainder(rest, size)
            rest = b.divide(rest, size)
        return place

    def _position(self, read: Read, place: dict[str, Offset]) -> Offset:
        """The byte offset of `read` at the tile's first output."""
        b = self.builder
        offset: Offset = self.task.base(read)
        for index, at in place.items():
            scale = self.window.m if index in (self.window.rows, self.window.columns) else 1
            offset = b.add(offset, b.multiply(at, scale * self.task.step(read, index)))
        return offset

    # V: the windows, transformed

    def _window(self, tile: Value, place: dict[str, Offset]) -> None:
        b, lanes = self.builder, self.target.lanes
        data = self.contraction.data
        pixels = b.at(self.pointers[data.tensor], self._position(data, place))
        target = b.at("%scratch", b.multiply(tile, self.pitch))
        whole, rest = divmod(self.channels, lanes)
        if whole:
            with b.loop(0, whole) as vector:
                offset = b.multiply(vector.index, 4 * lanes)
                self._window_vector(b.at(pixels, offset), b.at(target, offset), None)
        if rest:
            offset = 4 * lanes * whole
            self._window_vector(b.at(pixels, offset), b.at(target, offset), rest)

    def _window_vector(self, pixels: Value, target: Value, lanes: int | None) -> None:
        """One vector of channels of one window: B' d B."""
        b, data, side = self.builder, self.contraction.data, range(self.side)
        down, right = (self.task.step(data, i) for i in (self.window.rows, self.window.columns))
        columns = []
        for c in side:
            column = [b.load(b.at(pixels, r * down + c * right), lanes) for r in side]
            columns.append(emit_transform(b, self.algorithm.data, column))
        for r in side:
            line = emit_transform(b, self.algorithm.data, [columns[c][r] for c in side])
            for c in side:
                b.store(line[c], b.at(target, (r * self.side + c) * self.block * self.pitch))

    # M: the products

    def _multiply(self, panel: Value, product: Value, sums: Value) -> None:
        """All tiles of the block times one panel of weights, for one of the products."""
        b = self.builder
        data = b.at("%scratch", b.multiply(product, self.block * self.pitch))
        number = b.add(b.multiply(panel, self.products), product)
        weights = self.pointers[self.contraction.weight.tensor]
        weights = b.at(weights, b.multiply(number, 4 * self.channels * self.width))
        target = b.at(sums, b.multiply(product, 4 * self.block * self.width))
        with b.loop(0, math.ceil(self.block / self.rows)) as step:
            row = b.minimum(b.multiply(step.index, self.rows), self.block - self.rows)
            totals = self._products(b.at(data, b.multiply(row, self.pitch)), weights)
            place = b.at(target, b.multiply(row, 4 * self.width))
            for k, total in enumerate(totals):
                b.store(total, b.at(place, 4 * k * self.target.lanes))

    def _products(self, data: Value, weights: Value) -> list[Value]:
        """The register tile: `rows` tiles by `vectors` vectors of features, over all channels."""
        b = self.builder
        zeros = [b.zero()] * (self.rows * self.vectors)
        carried = [("ptr", data), ("ptr", weights), *[(b.vector, zero) for zero in zeros]]
        if self.channels < UNROLL:
            return self._channel_run(data, weights, zeros, self.channels)
        with b.loop(0, self.channels // UNROLL, 1, carried) as loop:
            at, panel, *old = loop.values
            new = self._channel_run(at, panel, old, UNROLL)
            following = (b.at(at, 4 * UNROLL), b.at(panel, 4 * UNROLL * self.width))
            loop.following = [*following, *new]
        at, panel, *totals = loop.values
        return self._channel_run(at, panel, totals, self.channels % UNROLL)

    def _channel_run(
        self, data: Value, weights: Value, sums: list[Value], count: int
    ) -> list[Value]:
        b, lanes = self.builder, self.target.lanes
        for k in range(count):
            vectors = [
                b.load(b.at(weights, 4 * (k * self.width + v * lanes))) for v in range(self.vectors)
            ]
            result: list[Value] = []
            for row in range(self.rows):
                value = b.broadcast(b.load_scalar(b.at(data, row * self.pitch + 4 * k)))
                old = sums[len(result) : len(result) + self.vectors]
                result += [b.fma(value, w, s) for w, s in zip(vectors, old, strict=True)]
            sums = result
        return sums

    # The outputs

    def _finish(self, panel: Value, tile: Value, place: dict[str, Offset], sums: Value) -> None:
        """Transform one tile's sums and store its outputs; the last panel may be partial."""
        b = self.builder
        source = b.at(sums, b.multiply(tile, 4 * self.width))
        lanes = self.target.lanes
        feature = b.multiply(panel, 4 * self.width)
        left = b.add(self.features // lanes, b.multiply(panel, -self.vectors))
        whole = b.minimum(left, self.vectors)
        with b.loop(0, whole, maybe_empty=True) as vector:
            offset = b.multiply(vector.index, 4 * lanes)
            self._output_vector(b.at(source, offset), b.add(feature, offset), place, None)
        rest = self.features % lanes
        if rest:
            with b.when(b.emit(f"icmp eq i64 {panel}, {self.panels - 1}")):
                offset = 4 * lanes * (self.features // lanes - (self.panels - 1) * self.vectors)
                self._output_vector(b.at(source, offset), b.add(feature, offset), place, rest)

    def _output_vector(
        self, source: Value, feature: Offset, place: dict[str, Offset], lanes: int | None
    ) -> None:
        """One vector of features of one tile: A' M A, then the epilogue of each output."""
        b, side, m = self.builder, range(self.side), self.window.m
        step = 4 * self.block * self.width
        columns = []
        for c in side:
            column = [b.load(b.at(source, (r * self.side + c) * step)) for r in side]
            columns.append(emit_transform(b, self.algorithm.output, column))
        lines = [
            emit_transform(b, self.algorithm.output, [columns[c][r] for c in side])
            for r in range(m)
        ]
        origin: dict[Read, Offset] = {}
        for read in self._epilogue_reads():
            offset = self._position(read, place)
            along = read.access[-1] == self.task.output.access[-1]
            origin[read] = b.add(offset, feature) if along else offset
        for r in range(m):
            for c in range(m):
                with self._inside(r, c, place):
                    self._store(lines[r][c], r, c, origin, lanes)

    def _epilogue_reads(self) -> list[Read]:
        found = outer_reads(self.task.statement.equation.expression) or []
        return [*dict.fromkeys([*(read for read in found if read.access), self.task.output])]

    @contextmanager
    def _inside(self, row: int, column: int, place: dict[str, Offset]) -> Iterator[None]:
        """Run the block unless the output lies past the image: only the last tiles reach there."""
        b, window = self.builder, self.window
        conditions = []
        for index, at, count in (
            (window.rows, row, window.grid[0]),
            (window.columns, column, window.grid[1]),
        ):
            inside = self.extents[index] % window.m or window.m
            if at >= inside:
                conditions.append(b.emit(f"icmp slt i64 {place[index]}, {count - 1}"))
        with ExitStack() as stack:
            for condition in conditions:
                stack.enter_context(b.when(condition))
            yield

    def _store(
        self, total: Value, row: int, column: int, origin: dict[Read, Offset], lanes: int | None
    ) -> None:
        b, task, window = self.builder, self.task, self.window

        def address(read: Read) -> tuple[Value, Offset]:
            pointer = self.pointers[read.tensor]
            if not read.access:
                return pointer, task.base(read)
            offset = row * task.step(read, window.rows) + column * task.step(read, window.columns)
            return pointer, b.add(origin[read], offset)

        result = emit_epilogue(b, task, {self.contraction.reduction: total}, address, lanes)
        pointer, offset = address(task.output)
        b.store(result, b.at(pointer, offset), lanes)

    def _packing(self) -> Statement:
        """`packed[panel, u, v, channel, lane] = G g G'`, where u and v count products."""
        contraction, (u, v) = self.contraction, self.window.taps
        weight, feature, channel = contraction.weight, contraction.feature, contraction.channel
        assert feature is not None and channel is not None
        split = Affine((("panel", self.width), ("lane", 1)))
        sizes = {"panel": self.panels, u: self.side, v: self.side, channel: self.channels}
        extents = (*sizes.items(), ("lane", self.width))
        output = Read("packed", tuple(Affine(((index, 1),)) for index, _ in extents))
        source = Read(weight.tensor, (*weight.access[:-1], split))
        shape = dict(self.task.statement.shapes)[weight.tensor]
        return Statement(
            Equation(output, source, extents),
            ((weight.tensor, (self.side, self.side, *shape[2:])),),
            extents,
            tuple(size for _, size in extents),
        )
