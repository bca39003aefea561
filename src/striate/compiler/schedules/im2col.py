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

from striate.compiler.builder import Offset, Value
from striate.compiler.layout import Halo
from striate.compiler.schedules.addressing import Context
from striate.compiler.schedules.base import Emission, Task, window_halo
from striate.compiler.schedules.contraction import Contraction, match_contraction
from striate.compiler.schedules.direct import product_seconds
from striate.compiler.schedules.epilogue import fits_epilogue
from striate.compiler.schedules.evaluation import Evaluator
from striate.compiler.schedules.staging import Staging, cut
from striate.compiler.schedules.tiling import Axis
from striate.compiler.target import Target
from striate.notation.ir import Statement

name = "im2col"

# The time to copy one vector of a window, guards included, in vector products.
_COPY = 8.0


def seconds(statement: Statement, target: Target) -> float | None:
    contraction = _match(statement)
    if contraction is None:
        return None
    extents = dict(statement.extents)
    assert contraction.feature is not None
    inner = extents[contraction.order[-1]]
    windows = math.prod(extents.values()) / extents[contraction.feature]
    vectors = windows / inner * math.ceil(inner / target.lanes)
    copies = 2.0 * _COPY * target.lanes * vectors / target.flops_per_second
    return 1.1 * product_seconds(statement, contraction, target) + copies


def halo(statement: Statement) -> dict[str, Halo]:
    return {}


def emit(task: Task) -> Emission:
    contraction = _match(task.statement)
    assert contraction is not None
    group = [contraction.group] if contraction.group else []
    indices = (*contraction.rows, *group, *contraction.order)
    return _Im2col(task, *cut(task.statement, contraction.data, indices)).emission()


def _match(statement: Statement) -> Contraction | None:
    contraction = match_contraction(statement)
    if contraction is None or contraction.feature is None or not contraction.rows:
        return None
    if not fits_epilogue(statement):
        return None
    inside = window_halo(statement, contraction.weight) == (0, 0, 0, 0)
    return contraction if inside else None


class _Im2col(Staging):
    """One emission: the stage holds columns, the windows of all pixels side by side."""

    name = name

    def _fill(self, start: dict[Axis, Offset], group: Offset, slot: Value) -> None:
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
            self._window(self.order, Context(places), window)

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
        evaluator = Evaluator(b, self.stage, self.pointers)
        here = replace(context.at(index, place), lane=index, active=active)
        (value,) = evaluator.values(self.stage.statement.equation.expression, here)
        b.store(value, b.at(target, b.multiply(place, 4)), active)
