"""Nested equations: a pointwise product whose data are a layer of their own, kept in the cache.

    y[b,p,q,j] = sum[c](W[c,j] * relu(sum[u,v](D[u,v,c] * x[b,p+u,q+v,c]) + B[c]))
    y[b,p,q,j] = sum[c](W[c,j] * relu(x[b,p,q,c] * s[c] + t[c]))

    for each block of tiles of output pixels
      for each tile of the block: stage[pixel, c] = the inner layer           (in scratch)
      for each panel of features, for each tile: accumulate over the stage as `direct` does

The inner layer is a depthwise convolution, computed with the code of `grouped`, or element-wise. It
is computed once unless there are fewer tiles than it takes to keep all cores at work.
"""

import math
from dataclasses import dataclass
from itertools import product

from striate.compiler.builder import Offset, Value
from striate.compiler.layout import Halo
from striate.compiler.schedules import grouped, grouped_tile
from striate.compiler.schedules.base import Emission, Task
from striate.compiler.schedules.chunks import estimated_seconds
from striate.compiler.schedules.contraction import (
    Contraction,
    fits_layout,
    match_contraction,
)
from striate.compiler.schedules.direct import product_seconds
from striate.compiler.schedules.epilogue import (
    emit_epilogue,
    fits_epilogue,
    outer_reads,
)
from striate.compiler.schedules.staging import Staging, cut
from striate.compiler.schedules.tiling import FEWEST_CHUNKS, Axis
from striate.compiler.target import Target
from striate.notation.ir import Apply, Read, Reduce, Statement, reads
from striate.transforms.rewrite import has_reduction, outside_reductions

name = "staged"

# Vectors of element-wise work written out together.
VECTORS = 4
FEWEST_PIXELS = 512


@dataclass(frozen=True, slots=True)
class Nest:
    """A nested statement taken apart: `inner` computes the data of the contraction in `outer`."""

    inner: Statement
    outer: Statement


def seconds(statement: Statement, target: Target) -> float | None:
    nest = match(statement, target)
    if nest is None:
        return None
    contraction = match_contraction(nest.outer)
    assert contraction is not None
    return product_seconds(nest.outer, contraction, target) + inner_seconds(nest.inner, target)


def pays(statement: Statement, target: Target) -> bool:
    """Whether a nested statement is faster than the two kernels that it is made of.

    Few pixels make few chunks, each of which reads all weights, and their stage would have stayed
    in the cache anyway.
    """
    if math.prod(statement.shape[:-1]) < FEWEST_PIXELS:
        return False
    return match(statement, target) is not None


def inner_seconds(inner: Statement, target: Target) -> float:
    depthwise = grouped.seconds(inner, target)
    if depthwise is not None:
        return depthwise
    return estimated_seconds(inner, math.prod(inner.shape) / target.lanes * 3)


def halo(statement: Statement) -> dict[str, Halo]:
    inner, _ = divided(statement) or (statement, statement)
    return grouped.halo(inner) if has_reduction(inner.equation.expression) else {}


def emit(task: Task) -> Emission:
    nest = match(task.statement, task.target)
    assert nest is not None
    depthwise = has_reduction(nest.inner.equation.expression)
    kind = Depthwise if depthwise else ElementWise
    return kind(task, nest).emission()


def divided(statement: Statement) -> tuple[Statement, Statement] | None:
    """`statement` cut at the data of its one outer sum of products, if these are an expression."""
    expression = statement.equation.expression
    sums = {node for node in outside_reductions(expression) if isinstance(node, Reduce)}
    if len(sums) != 1:
        return None
    (total,) = sums
    match total:
        case Reduce("sum", _, Apply("multiply", (Read(), Apply() | Reduce() as data))):
            pass
        case Reduce("sum", _, Apply("multiply", (Apply() | Reduce() as data, Read()))):
            pass
        case _:
            return None
    *outer, _ = [affine.index for affine in statement.equation.output.access] or [None]
    rows = [index for index in outer if index is not None]
    if len(rows) < len(outer) or not rows:
        return None
    return cut(statement, data, (*rows, *total.indices))


def match(statement: Statement, target: Target) -> Nest | None:
    """The parts, if the outer one is a pointwise product and the inner one can be staged."""
    parts = divided(statement)
    if parts is None:
        return None
    inner, outer = parts
    contraction = match_contraction(outer)
    if contraction is None or contraction.feature is None or contraction.group is not None:
        return None
    if not fits_epilogue(outer) or not fits_layout(outer, contraction):
        return None
    if _repeats(inner, contraction):
        return None
    if has_reduction(inner.equation.expression):
        fits = grouped.match(inner, target.lanes) is not None
    else:
        fits = fits_epilogue(inner)
    return Nest(inner, outer) if fits else None


def _repeats(inner: Statement, contraction: Contraction) -> bool:
    """Whether windows of the product meet: the inner layer would be computed for each of them."""
    rows, summed = set(contraction.rows), set(contraction.reduction.indices)
    accesses = [a for read in reads(inner.equation.expression) for a in read.access]
    found = [{index for index, _ in affine.terms} for affine in accesses]
    return any(indices & rows and indices & summed for indices in found)


class _Staged(Staging):
    """One emission; chunks are of pixels, so that nothing is staged twice."""

    name = name

    def _share(self) -> None:
        self.panel_chunks = 1
        self.row_chunks = min(self.total, max(FEWEST_CHUNKS, self.row_chunks))


class ElementWise(_Staged):
    """The stage is a function of single elements: vector after vector of each pixel's terms."""

    def __init__(self, task: Task, nest: Nest) -> None:
        found = outer_reads(nest.inner.equation.expression) or []
        self.leaves = [read for read in found if read.access]
        super().__init__(task, nest.inner, nest.outer, self.leaves)

    def _fill(self, start: dict[Axis, Offset], group: Offset, slot: Value) -> None:
        b, tile = self.builder, self.tile
        origins = {read: self._position(read, start) for read in self.leaves}
        with b.loop(0, tile.pixels) as pixel:
            row, column = (
                b.divide(pixel.index, tile.columns),
                b.remainder(pixel.index, tile.columns),
            )
            places = {}
            for read, origin in origins.items():
                place = b.add(origin, b.multiply(column, self._step(read, self.axes[-1])))
                if tile.rows > 1:
                    place = b.add(place, b.multiply(row, self._step(read, self.axes[-2])))
                places[read] = place
            self._pixel_terms(places, b.at(slot, b.multiply(pixel.index, self._pixel_bytes())))

    def _pixel_terms(self, places: dict[Read, Offset], target: Value) -> None:
        """All terms of one pixel; `places` are the leaves' at its first."""
        b, lanes = self.builder, self.target.lanes
        whole, rest = divmod(self.terms, lanes)
        looped = whole // VECTORS * VECTORS
        if looped:
            with b.loop(0, looped, VECTORS) as loop:
                first = b.multiply(loop.index, 4 * lanes)
                for vector in range(VECTORS):
                    self._vector(places, first, vector, target, None)
        for vector in range(looped, whole):
            self._vector(places, 0, vector, target, None)
        if rest:
            self._vector(places, 0, whole, target, rest)

    def _vector(
        self,
        places: dict[Read, Offset],
        first: Offset,
        vector: int,
        target: Value,
        bound: int | None,
    ) -> None:
        """The terms of vector number `vector` from byte `first` on."""
        b, size = self.builder, 4 * self.target.lanes

        def address(read: Read) -> tuple[Value, Offset]:
            pointer = self.pointers[read.tensor]
            if not read.access:
                return pointer, self.task.base(read)
            if read.access[-1] != self.stage.output.access[-1]:
                return pointer, places[read]
            return b.at(pointer, b.add(places[read], first)), vector * size

        value = emit_epilogue(b, self.stage, {}, address, bound)
        b.store(value, b.at(b.at(target, first), vector * size), bound)


class Depthwise(_Staged):
    """The stage is a depthwise convolution: the tiles of `grouped` within a tile of pixels."""

    def __init__(self, task: Task, nest: Nest) -> None:
        contraction = grouped.match(nest.inner, task.target.lanes)
        assert contraction is not None
        self.depthwise = contraction
        super().__init__(task, nest.inner, nest.outer, [contraction.data])

    def _packings(self) -> dict[str, Statement]:
        inner = grouped_tile.packings(self.stage.statement, self.depthwise, self.target.lanes)
        return {**super()._packings(), **inner}

    def _fill(self, start: dict[Axis, Offset], group: Offset, slot: Value) -> None:
        b, tile, lanes = self.builder, self.tile, self.target.lanes
        column = self.axes[-1].indices[-1]
        inner = grouped_tile.Tile(
            b, self.stage, self.depthwise, self.pointers, column, tile.columns
        )
        whole, rest = divmod(self.terms, lanes)

        def vector(feature: Offset, bound: int | None) -> None:
            for row, number in product(range(tile.rows), range(inner.count)):
                left = inner.left(number)
                assert isinstance(left, int)
                pixel = (row * tile.columns + left) * self._pixel_bytes()
                target = b.at(slot, b.add(feature, pixel))
                inner.write(number, self._places(start, row, left), feature, bound, target)

        if whole:
            with b.loop(0, whole) as loop:
                vector(b.multiply(loop.index, 4 * lanes), None)
        if rest:
            vector(whole * 4 * lanes, rest)

    def _places(self, start: dict[Axis, Offset], row: int, column: int) -> dict[str, Offset]:
        """The places of the row indices at a pixel of the tile; axes step evenly."""
        places: dict[str, Offset] = dict.fromkeys(self.contraction.rows, 0)
        inside = {self.axes[-1]: column} | ({self.axes[-2]: row} if row else {})
        for axis, place in start.items():
            places[axis.indices[-1]] = self.builder.add(place, inside.get(axis, 0))
        return places
