"""Explicit im2col: the windows of a block of pixels side by side in scratch memory, then a product.

    for each block of tiles of output pixels, for each group
      for each pixel of the block, for each tap and channel
        columns[pixel, tap, channel] = data at the tap, 0 outside its box        (in scratch)
      for each panel of features, for each tile: accumulate over columns as `direct` does over data

It takes contractions whose reads leave the data where no halo of zeros can lie (one and three
dimensions, windows over features) or that divide (transposed convolutions). The order of each sum
is that of `direct`: bits don't depend on blocks or threads.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from striate.compiler.builder import Builder, Offset, Value
from striate.compiler.layout import Halo, Layout
from striate.compiler.schedules.addressing import Context
from striate.compiler.schedules.base import Emission, Task, window_halo
from striate.compiler.schedules.chunks import share
from striate.compiler.schedules.contraction import Contraction, match_contraction
from striate.compiler.schedules.direct import Axis, Direct, product_seconds
from striate.compiler.schedules.epilogue import fits_epilogue
from striate.compiler.schedules.evaluation import Evaluator
from striate.compiler.schedules.tiles import CACHE_LINE
from striate.compiler.target import Target
from striate.notation.ir import Affine, Equation, Read, Statement
from striate.transforms.rewrite import fresh

name = "im2col"

# The time to copy one vector of a window, guards included, in vector products.
_COPY = 8.0


def seconds(statement: Statement, target: Target) -> float | None:
    contraction = _match(statement)
    if contraction is None:
        return None
    extents = dict(statement.extents)
    assert contraction.feature is not None
    inner = extents[_order(contraction)[-1]]
    windows = math.prod(extents.values()) / extents[contraction.feature]
    vectors = windows / inner * math.ceil(inner / target.lanes)
    copies = 2.0 * _COPY * target.lanes * vectors / target.flops_per_second
    return 1.1 * product_seconds(statement, contraction, target) + copies


def halo(statement: Statement) -> dict[str, Halo]:
    return {}


def emit(task: Task) -> Emission:
    contraction = _match(task.statement)
    assert contraction is not None
    return _Im2col(task, contraction).emission()


def _match(statement: Statement) -> Contraction | None:
    contraction = match_contraction(statement)
    if contraction is None or contraction.feature is None or not contraction.rows:
        return None
    if not fits_epilogue(statement):
        return None
    inside = window_halo(statement, contraction.weight) == (0, 0, 0, 0)
    return contraction if inside else None


def _order(contraction: Contraction) -> tuple[str, ...]:
    """The reduction's indices as the columns hold them."""
    return (*contraction.taps, *([contraction.channel] if contraction.channel else []))


class _Im2col(Direct):
    """One emission: a direct contraction whose data are the columns."""

    def __init__(self, task: Task, contraction: Contraction) -> None:
        extents = dict(task.statement.extents)
        order = _order(contraction)
        self.terms = math.prod(extents[index] for index in order)
        taken = {tensor for tensor, _ in task.layouts}
        columns = Read(
            fresh(["columns"], taken)["columns"],
            tuple(Affine(((index, 1),)) for index in (*contraction.rows, *order)),
        )
        layout = self._layout(extents, contraction.rows, order)
        self.original = task
        self.copy = _copy_task(task, contraction, columns, layout)
        super().__init__(
            replace(task, layouts=(*task.layouts, (columns.tensor, layout))),
            replace(contraction, data=columns),
        )
        # Columns stay in half of the second-level cache while every panel passes over them.
        room = max(1, self.target.l2 // 2 // self._tile_bytes())
        self.block = min(room, math.ceil(self.total / self.row_chunks))

    def _layout(self, extents: dict[str, int], rows: Sequence[str], order: Sequence[str]) -> Layout:
        """Columns of all pixels one after another, an odd number of cache lines apart."""
        lines = math.ceil(4 * self.terms / CACHE_LINE)
        step = CACHE_LINE * (lines + (lines % 2 == 0))
        strides: list[int] = []
        for index in reversed(rows):
            strides.insert(0, step)
            step *= extents[index]
        dense = Layout.dense(tuple(extents[index] for index in order))
        shape = tuple(extents[index] for index in (*rows, *order))
        return Layout(shape, (*strides, *dense.strides))

    def _pixel_bytes(self) -> int:
        return self.task.step(self.contraction.data, self.contraction.rows[-1])

    def _tile_bytes(self) -> int:
        return self.tile.pixels * self._pixel_bytes()

    def emission(self) -> Emission:
        chunks = self.row_chunks * self.panel_chunks
        plan = (
            f"{name}: columns of {self.block} tiles of {self.tile.rows} x {self.tile.columns} "
            f"pixels by {self.terms}; {self.tile.vectors} vectors of {self.target.lanes}; "
            f"{self.panels} panels x {self.total} tiles in {chunks} chunks"
        )
        packed = {self.contraction.weight.tensor: self._packing()}
        scratch = self.block * self._tile_bytes()
        return Emission(self._write, chunks, plan, packed, scratch)

    def _write(self) -> Builder:
        b = self.builder = Builder(self.target)
        for position, (tensor, _) in enumerate(self.original.layouts):
            self.pointers[tensor] = b.argument(position)
        row_chunk = b.remainder("%chunk", self.row_chunks)
        panel_chunk = b.divide("%chunk", self.row_chunks)
        first, last = share(b, row_chunk, self.row_chunks, self.total)
        panels = share(b, panel_chunk, self.panel_chunks, self.panels)
        with b.loop(first, last, self.block) as loop:
            end = b.minimum(b.add(loop.index, self.block), last)
            first_group = b.divide(panels[0], self.blocks)
            last_group = b.divide(b.add(panels[1], self.blocks - 1), self.blocks)
            with b.loop(first_group, last_group) as group:
                begin = b.multiply(group.index, self.blocks)
                inside = (
                    b.maximum(panels[0], begin),
                    b.minimum(panels[1], b.add(begin, self.blocks)),
                )
                self._product(loop.index, end, group.index, inside)
        return b

    def _product(
        self, first: Offset, last: Offset, group: Offset, panels: tuple[Offset, Offset]
    ) -> None:
        """Copy the windows of tiles `first` to `last` (not included), then run `panels` on them."""
        b, columns = self.builder, self.contraction.data.tensor
        tiles = self._outer_tiles()

        def slot(tile: Value) -> Value:
            number = b.add(tile, b.emit(f"sub i64 0, {first}"))
            return b.at("%scratch", b.multiply(number, self._tile_bytes()))

        with b.loop(first, last) as tile:
            self._copy(self._decode(tile.index, tiles), group, slot(tile.index))
        with b.loop(*panels) as panel, b.loop(first, last) as tile:
            self.pointers[columns] = slot(tile.index)
            self._tile(panel.index, self._decode(tile.index, tiles))

    def _position(self, read: Read, start: dict[Axis, Offset]) -> Offset:
        # A tile's columns begin where its slot does.
        return 0 if read is self.contraction.data else super()._position(read, start)

    # The copy

    def _copy(self, start: dict[Axis, Offset], group: Offset, slot: Value) -> None:
        """Write the windows of one tile, pixel after pixel."""
        b, tile = self.builder, self.tile
        with b.loop(0, tile.pixels) as pixel:
            inside = {self.axes[-1]: b.remainder(pixel.index, tile.columns)}
            if tile.rows > 1:
                inside[self.axes[-2]] = b.divide(pixel.index, tile.columns)
            places: dict[str, Offset] = dict.fromkeys(self.contraction.rows, 0)
            for axis, place in start.items():
                places |= self._places(axis, b.add(place, inside.get(axis, 0)))
            if self.contraction.group:
                places[self.contraction.group] = group
            window = b.at(slot, b.multiply(pixel.index, self._pixel_bytes()))
            self._window(_order(self.contraction), Context(places), window)

    def _places(self, axis: Axis, place: Offset) -> dict[str, Offset]:
        """The place of each index that `axis` joins."""
        b, found = self.builder, {}
        for index in reversed(axis.indices[1:]):
            found[index] = b.remainder(place, self.extents[index])
            place = b.divide(place, self.extents[index])
        return {**found, axis.indices[0]: place}

    def _window(self, order: Sequence[str], context: Context, target: Value) -> None:
        """Write all terms of one pixel's sums from `target` on, vectors along the last index."""
        b, (index, *inner) = self.builder, order
        step = self.task.step(self.contraction.data, index)
        if inner:
            with b.loop(0, self.extents[index]) as loop:
                place = b.at(target, b.multiply(loop.index, step))
                self._window(inner, context.at(index, loop.index), place)
            return
        lanes = self.target.lanes
        whole, rest = divmod(self.extents[index], lanes)
        if whole:
            with b.loop(0, whole) as loop:
                self._vector(index, b.multiply(loop.index, lanes), context, target, None)
        if rest:
            self._vector(index, whole * lanes, context, target, rest)

    def _vector(
        self, index: str, place: Offset, context: Context, target: Value, active: int | None
    ) -> None:
        b = self.builder
        evaluator = Evaluator(b, self.copy, self.pointers)
        here = replace(context.at(index, place), lane=index, active=active)
        (value,) = evaluator.values(self.copy.statement.equation.expression, here)
        b.store(value, b.at(target, b.multiply(place, 4)), active)


def _copy_task(task: Task, contraction: Contraction, columns: Read, layout: Layout) -> Task:
    """`columns[rows..., terms...] = data[...]`, zeros where the data end."""
    tensor = contraction.data.tensor
    extents = task.statement.extents
    equation = Equation(columns, contraction.data, extents)
    shapes = ((tensor, dict(task.statement.shapes)[tensor]),)
    layouts = ((tensor, task.layout(tensor)), (columns.tensor, layout))
    return Task(Statement(equation, shapes, extents, layout.shape), layouts, task.target)
