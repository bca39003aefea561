"""A depthwise convolution over a pointwise product, a few features of a band of lines at a time.

    y[b,p,q,c] = sum[u,v](D[u,v,c] * where(1, relu(sum[i](W[i,c] * x[b,p+u-1,q+v-1,i])),
                                              x[b,p+u-1,q+v-1,0]))

    for each image, for each band of output lines, for each panel of features
      plane[h,w,c] = relu(sum[i](W[i,c] * x[b,h,w,i])), with zeros around            (in scratch)
      y[b,p,q,c] = sum[u,v](D[u,v,c] * plane[p+u-1,q+v-1,c])

Features of a depthwise convolution do not meet: nothing is computed twice but the few rows that two
bands share, and the product, which is several times larger than what goes in and comes out, does
not leave the cache. The read of x outside the inner sum keeps points out of the image out of the
outer one.
"""

import math
from dataclasses import replace

from striate.compiler.builder import Builder, Offset, Value
from striate.compiler.layout import Halo, Layout
from striate.compiler.schedules import direct, grouped, grouped_tile
from striate.compiler.schedules.base import Emission, Task
from striate.compiler.schedules.chunks import share
from striate.compiler.schedules.contraction import match_contraction
from striate.compiler.schedules.direct import Direct, Turn
from striate.compiler.schedules.plane_parts import Parts, match
from striate.compiler.schedules.tiles import Tile
from striate.compiler.schedules.tiling import Axis
from striate.compiler.target import Target
from striate.notation.ir import Read, Statement, reads

name = "planes"

# With fewer panels two kernels were faster, however many bands there are.
FEWEST_PANELS = 5


def seconds(statement: Statement, target: Target) -> float | None:
    parts = match(statement, target)
    if parts is None:
        return None
    product, depthwise = direct.seconds(parts.inner, target), grouped.seconds(parts.outer, target)
    return None if product is None or depthwise is None else product + depthwise


def pays(statement: Statement, target: Target) -> bool:
    """Whether planes are faster than two kernels: where there are many and they stay cached."""
    parts = match(statement, target)
    if parts is None:
        return False
    batch, *_, features = parts.inner.shape
    pitch = 4 * target.lanes
    return batch * math.ceil(features / target.lanes) >= FEWEST_PANELS and any(
        parts.nbytes(pitch, bands) <= target.l2 // 4 for bands in parts.bands()
    )


def halo(statement: Statement) -> dict[str, Halo]:
    return {}


def emit(task: Task) -> Emission:
    parts = match(task.statement, task.target)
    assert parts is not None
    return Planes(task, parts).emission()


class Planes(Direct):
    """One emission: the tiles of a direct contraction that writes into the plane."""

    def __init__(self, task: Task, parts: Parts) -> None:
        self.given, self.parts = task, parts
        target = replace(self._target(task.target, parts), halved=False)
        contraction = match_contraction(parts.inner)
        depthwise = grouped.match(parts.outer, target.lanes)
        assert contraction is not None and depthwise is not None
        self.depthwise = depthwise
        batch, *rows = contraction.rows
        self.batch = Axis((batch,), parts.outer.shape[0])
        # A chunk is of one image.
        contraction = replace(contraction, rows=tuple(rows))
        super().__init__(self._with_plane(target, 4 * target.lanes), contraction)
        self.task = self._with_plane(target, 4 * self.width)
        _, self.bands = self._cut(target, parts, self.tile.vectors)
        # A chunk has all tiles of its panel and its band.
        self.row_chunks, self.panel_chunks = self.bands, self.panels

    def _target(self, target: Target, parts: Parts) -> Target:
        """The target, with half vectors if they cut the features into chunks more evenly."""
        half = replace(target, lanes=target.lanes // 2)
        costs = [
            min(self._cut(candidate, parts, v) for v in range(1, 5))[0]
            for candidate in (target, half)
        ]
        return half if target.halved and 1.05 * costs[1] < costs[0] else target

    def _cut(self, target: Target, parts: Parts, vectors: int) -> tuple[float, int]:
        """How much longer it takes than if all cores ended together; with how many bands."""
        width, (images, height, _, features) = vectors * target.lanes, parts.inner.shape
        panels, found = math.ceil(features / width), []
        for bands in parts.bands():
            chunks = images * panels * bands
            # A little more for few chunks: cores may be of unequal speed.
            rounds = math.ceil(chunks / target.cores) + 0.25
            twice = (bands - 1) * max(0, parts.reach - parts.step) / height
            if parts.nbytes(4 * width, bands) <= target.l2 // 4 or (vectors, bands) == (1, 1):
                found.append((rounds * target.cores / chunks * (1.0 + twice), bands))
        return min(found, default=(math.inf, 1))

    def _surplus(self, tile: Tile, target: Target) -> float:
        return self._cut(target, self.parts, tile.vectors)[0]

    def _with_plane(self, target: Target, pitch: int) -> Task:
        """The inner statement's task, with the plane's layout for so many bytes a pixel."""
        strides = (0, self.parts.row_bytes(pitch), pitch, 4)
        layout = Layout(self.parts.inner.shape, strides, self.parts.halo)
        stage = self.parts.inner.equation.output.tensor
        return Task(self.parts.inner, (*self.given.layouts, (stage, layout)), target)

    def emission(self) -> Emission:
        chunks = self.batch.size * self.bands * self.panels
        plan = (
            f"{name}: {self.panels} panels of {self.tile.vectors} vectors of {self.target.lanes} "
            f"by {self.bands} bands, tile of {self.tile.rows} x {self.tile.columns} pixels; "
            f"{chunks} chunks"
        )
        packed = {self.contraction.weight.tensor: self._packing()}
        packed |= grouped_tile.packings(self.parts.outer, self.depthwise, self.target.lanes)
        top, bottom, _, _ = self.parts.halo
        scratch = (top + self._band_rows() + bottom) * self._row_bytes()
        return Emission(self._write, chunks, plan, packed, scratch, room=self._room())

    def _row_bytes(self) -> int:
        return self.parts.row_bytes(4 * self.width)

    def _band_tiles(self) -> list[range]:
        """The rows of tiles of each band."""
        (_, size, _), _ = self._outer_tiles()
        lines, found = self.parts.outer.shape[1], []
        for band in range(self.bands):
            cuts = (n * lines // self.bands for n in (band, band + 1))
            first, last = self.parts.rows(*cuts)
            found.append(range(first // size, math.ceil(last / size)))
        return found

    def _band_rows(self) -> int:
        """The most rows of a plane that the tiles of a band write."""
        _, height, *_ = self.parts.inner.shape
        if self.bands == 1:
            return height
        (_, size, _), _ = self._outer_tiles()
        return max(
            min(tiles.stop * size, height) - min(tiles.start * size, height - size)
            for tiles in self._band_tiles()
        )

    def _panel_tiles(self) -> int:
        if len(self.axes) < 2:
            return self.total
        _, (_, _, columns) = self._outer_tiles()
        return sum(len(tiles) for tiles in self._band_tiles()) * columns

    def _write(self) -> Builder:
        b = self.builder = Builder(self.target)
        for position, (tensor, _) in enumerate(self.given.layouts):
            self.pointers[tensor] = b.argument(position)
        rest, panel = b.divide("%chunk", self.panels), b.remainder("%chunk", self.panels)
        image, band = b.divide(rest, self.bands), b.remainder(rest, self.bands)
        following = b.remainder("%next", self.panels)
        first, last = share(b, band, self.bands, self.parts.outer.shape[1])
        begin, row = self._first_tile(first)
        # The plane lies where its row of that number is the first of the scratch memory.
        plane = b.emit(f"getelementptr i8, ptr %scratch, i64 {b.multiply(row, -self._row_bytes())}")
        self.pointers[self.task.output.tensor] = plane
        self._zero_margin(plane, first, last)
        with b.loop(first, last, 1, [("i64", str(begin))]) as line:
            ready = str(self._tiles_before(line.index))
            with b.loop(line.values[0], ready, maybe_empty=True) as tile:
                start = {self.batch: image, **self._decode(tile.index, self._outer_tiles())}
                number = b.add(tile.index, b.multiply(begin, -1))
                self._tile(str(panel), start, Turn(number, following))
            line.following = [ready]
            self._convolve(image, panel, line.index)
        return b

    def _first_tile(self, line: Offset) -> tuple[Offset, Offset]:
        """The first tile of the plane that an output line needs, and its first row."""
        b, parts = self.builder, self.parts
        if self.bands == 1:
            return 0, 0
        (axis, size, _), (_, _, columns) = self._outer_tiles()
        row = b.maximum(b.add(b.multiply(line, parts.step), parts.first), 0)
        number = b.divide(row, size)
        return b.multiply(number, columns), b.minimum(b.multiply(number, size), axis.size - size)

    def _tiles_before(self, line: Value) -> Offset:
        """How many tiles of the plane an output line and those before it need."""
        b, parts = self.builder, self.parts
        if len(self.axes) < 2:
            return self.total
        (_, size, count), (_, _, columns) = self._outer_tiles()
        needed = b.add(b.multiply(line, parts.step), parts.first + parts.reach)
        whole = b.divide(b.add(b.maximum(needed, 0), size - 1), size)
        return b.multiply(b.minimum(whole, count), columns)

    def _zero_margin(self, plane: Value, first: Offset, last: Offset) -> None:
        """Zeros around the rows of the plane that these output lines need."""
        b, parts, row = self.builder, self.parts, self._row_bytes()
        _, height, width, _ = parts.inner.shape
        top, bottom, left, right = parts.halo
        pitch = 4 * self.width
        begin = b.add(b.multiply(first, parts.step), parts.first)
        end = b.add(b.multiply(last, parts.step), parts.first + parts.reach - parts.step)
        above, below = (
            (0, top, f"slt i64 {begin}, 0"),
            (top + height, bottom, f"sgt i64 {end}, {height}"),
        )
        for start, rows, needed in (above, below):
            with b.when(b.emit(f"icmp {needed}")):
                self._zero(plane, start * row, rows * row)
        begin = b.maximum(begin, 0)
        with b.loop(begin, b.minimum(end, height), maybe_empty=True) as loop:
            place = b.at(plane, b.multiply(b.add(loop.index, top), row))
            self._zero(place, 0, left * pitch)
            self._zero(place, (left + width) * pitch, right * pitch)

    def _zero(self, place: Value, start: int, size: int) -> None:
        """Whole vectors of zeros."""
        b, step = self.builder, 4 * self.target.lanes
        if size:
            with b.loop(start, start + size, step) as loop:
                b.store("zeroinitializer", b.at(place, loop.index))

    def _origin(
        self, read: Read, group: Offset, block: Offset, start: dict[Axis, Offset]
    ) -> Offset:
        # Every panel is written to the same memory.
        return super()._origin(read, group, 0 if read == self.task.output else block, start)

    def _prefetch(self, origins: dict[Read, Offset], part: Offset, parts: int) -> None:
        pass

    def _convolve(self, image: Offset, panel: Offset, line: Value) -> None:
        """One line of the depthwise convolution, for the panel's features."""
        b = self.builder
        partial = self.features % self.width
        if not partial or self.panels == 1:
            self._features(image, panel, line, partial or self.width)
            return
        is_last = b.emit(f"icmp eq i64 {panel}, {self.panels - 1}")
        with b.when(b.emit(f"xor i1 {is_last}, true")):
            self._features(image, panel, line, self.width)
        with b.when(is_last):
            self._features(image, panel, line, partial)

    def _features(self, image: Offset, panel: Offset, line: Value, count: int) -> None:
        b, outer, lanes = self.builder, self.parts.outer, self.target.lanes
        output = outer.equation.output
        first = b.multiply(panel, 4 * self.width)
        along = {
            r.tensor
            for r in reads(outer.equation.expression)
            if r.access[-1:] == output.access[-1:]
        }
        weight = self.depthwise.weight.tensor
        along = (along | {output.tensor}) - {self.task.output.tensor, weight}
        pointers = {t: b.at(p, first) if t in along else p for t, p in self.pointers.items()}
        task = Task(outer, self.task.layouts, self.target)
        batch, row, column = (affine.index or "" for affine in output.access[:3])
        columns = outer.shape[2]
        tile = grouped_tile.Tile(b, task, self.depthwise, pointers, column, columns)
        pointers[weight] = b.at(pointers[weight], b.multiply(first, tile.weights_per_feature))
        whole, rest = divmod(count, lanes)
        with b.loop(0, tile.count) as number:
            start = {batch: image, row: line, column: tile.left(number.index)}
            for vector in range(whole + (rest > 0)):
                feature = 4 * lanes * vector
                place = b.at(pointers[output.tensor], tile.position(output, start, feature))
                lanes_used = rest if vector == whole else None
                tile.write(number.index, start, feature, lanes_used, place)
