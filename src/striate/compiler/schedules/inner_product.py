"""Contractions by Winograd's inner product: two of three terms in the time of one.

    y[b,p,q,j] = sum[c](W[c,j] * x[b,p,q,c])
    y[b,p,q,j] = sum[c](W[c,j] * relu(sum[u,v](D[u,v,c] * x[b,p+u,q+v,c]) + B[c]))
    y[b,p,q,c] = sum[u,v](D[u,v,c] * where(1, relu(sum[i](W[i,c] * x[b,p+u-1,q+v-1,i])), x[...]))

    for each block of tiles of output pixels
      for each pixel: stage[pixel, c] = data * the pixel's power of two           (in scratch)
      for each panel of features, for each tile: accumulate pairs over the stage, rescale

The data are read in place or, in a nested equation, computed as `staged` does. Where the product
lies within a depthwise convolution its chunks are as in `planes`, and the whole image
is balanced before. See `pairs` for the algorithm and its error. Only a vector of features fits
beside a pair's sums: the broadcasts of pixels are operands of the additions, and cost but loads.
"""

import math
from dataclasses import replace
from itertools import product

from striate.compiler.builder import Offset, Value
from striate.compiler.layout import Halo
from striate.compiler.schedules import direct, grouped, plane_parts, planes, staged
from striate.compiler.schedules.base import Emission, Task
from striate.compiler.schedules.contraction import Contraction, fits_layout, match_contraction
from striate.compiler.schedules.epilogue import fits_epilogue
from striate.compiler.schedules.paired import (
    KEPT,
    Paired,
    balanced_image,
    paired_seconds,
    run_offsets,
)
from striate.compiler.schedules.pairs import PIXEL, SUM, TERM, VECTOR
from striate.compiler.schedules.staged import Nest
from striate.compiler.schedules.staging import Staging, cut, stage_layout
from striate.compiler.schedules.tiling import CHUNKS, Axis
from striate.compiler.target import Target
from striate.notation.ir import Read, Statement
from striate.transforms.rewrite import has_reduction

name = "inner_product"

# Few pixels wait for the weights to arrive, not for their products.
FEWEST_PIXELS = 32
# The code that balances a pixel has a part for each tap.
MOST_TAPS = 9
# The share of a chunk that the last one keeps the other cores waiting, and the bytes of weights
# beyond the second-level cache, which each chunk of pixels reads again, that come in the time of a
# multiply-add of vectors.
_LAST, _WEIGHTS = 0.15, 80.0


def seconds(statement: Statement, target: Target) -> float | None:
    if not _fits(statement, target):
        return None
    parts = plane_parts.match(statement, target)
    if parts is not None:
        depthwise = grouped.seconds(parts.outer, target)
        contraction = _contraction(parts.inner)
        if contraction is None or depthwise is None:
            return None
        return depthwise + paired_seconds(parts.inner, contraction, target)
    nest = _nest(statement, target)
    if nest is None:
        return None
    contraction = match_contraction(nest.outer)
    assert contraction is not None
    copied = isinstance(nest.inner.equation.expression, Read)
    inside = 0.0 if copied else staged.inner_seconds(nest.inner, target)
    return inside + paired_seconds(nest.outer, contraction, target)


def halo(statement: Statement) -> dict[str, Halo]:
    if match_contraction(statement) is not None:
        return direct.halo(statement)
    parts = staged.divided(statement)
    return grouped.halo(parts[0]) if parts and match_contraction(parts[0]) else {}


def transformed(statement: Statement, target: Target) -> str:
    """The weights."""
    parts, nest = plane_parts.match(statement, target), _nest(statement, target)
    product = parts.inner if parts else nest.outer if nest else statement
    contraction = match_contraction(product)
    assert contraction is not None
    return contraction.weight.tensor


def emit(task: Task) -> Emission:
    parts = plane_parts.match(task.statement, task.target)
    if parts is not None:
        return _Planes(task, parts).emission()
    nest = _nest(task.statement, task.target)
    assert nest is not None
    if isinstance(nest.inner.equation.expression, Read):
        return _Copied(task, nest).emission()
    depthwise = has_reduction(nest.inner.equation.expression)
    return (_Depthwise if depthwise else _ElementWise)(task, nest).emission()


def _fits(statement: Statement, target: Target) -> bool:
    return target.adders and math.prod(statement.shape[:-1]) >= FEWEST_PIXELS


def _contraction(statement: Statement) -> Contraction | None:
    """The statement as a product of runs of channels that lie side by side."""
    contraction = match_contraction(statement)
    if contraction is None or contraction.feature is None or contraction.channel is None:
        return None
    extents = dict(statement.extents)
    taps = math.prod(extents[tap] for tap in contraction.taps)
    if contraction.group or not contraction.rows or taps > MOST_TAPS:
        return None
    fits = fits_epilogue(statement) and fits_layout(statement, contraction)
    return contraction if fits else None


def _nest(statement: Statement, target: Target) -> Nest | None:
    """The product over its data; those that are read in place are a layer that copies."""
    nested = staged.match(statement, target)
    if nested is not None:
        return nested
    contraction = _contraction(statement)
    if contraction is None:
        return None
    indices = (*contraction.rows, *contraction.order)
    return Nest(*cut(statement, contraction.data, indices))


class _Staged(Paired, Staging):
    """One emission; chunks are of pixels, and of features where those are few."""

    name = name
    kept = KEPT

    def emission(self) -> Emission:
        return self._with_balance(super().emission())

    def _share(self) -> None:
        rows, panels = range(1, min(CHUNKS, self.total) + 1), range(1, min(CHUNKS, self.panels) + 1)
        found = [(r, p) for r, p in product(rows, panels) if r * p <= CHUNKS]
        self.row_chunks, self.panel_chunks = min(found, key=lambda one: self._cycles(*one))

    def _cycles(self, row_chunks: int, panel_chunks: int) -> float:
        """The time with so many chunks of pixels and of features, in multiply-adds of vectors.

        Each chunk of features balances its pixels anew.
        """
        balance = VECTOR * self.terms / self.target.lanes + PIXEL
        panels = math.ceil(self.panels / panel_chunks)
        tile = self.tile.pixels * (balance + panels * (TERM * self.terms + SUM))
        mean, most = (tile * n for n in (self.total / row_chunks, -(-self.total // row_chunks)))
        rounds = math.ceil(row_chunks * panel_chunks / self.target.cores)
        weights = 4 * self.terms * self.panels * self.width
        again = row_chunks * weights / _WEIGHTS if weights > self.target.l2 // 2 else 0.0
        return rounds * mean + most - mean + _LAST * most + again


class _Copied(_Staged, staged.ElementWise):
    """The data are read in place."""

    def _pixel_terms(self, places: dict[Read, Offset], target: Value) -> None:
        ((read, place),) = places.items()
        first = self.builder.at(self.pointers[read.tensor], place)
        offsets = run_offsets(self.stage, read, self.contraction.taps)
        self._balance([self.builder.at(first, offset) for offset in offsets], target)


class _ElementWise(_Staged, staged.ElementWise):
    """The data are an element-wise layer."""

    def _pixel_terms(self, places: dict[Read, Offset], target: Value) -> None:
        super()._pixel_terms(places, target)
        self._balance([target], target)


class _Depthwise(_Staged, staged.Depthwise):
    """The data are a depthwise layer."""

    def _fill(self, start: dict[Axis, Offset], group: Offset, slot: Value) -> None:
        super()._fill(start, group, slot)
        b = self.builder
        with b.loop(0, self.tile.pixels) as pixel:
            place = b.at(slot, b.multiply(pixel.index, self._pixel_bytes()))
            self._balance([place], place)


class _Planes(Paired, planes.Planes):
    """The product lies within a depthwise convolution; its data are a balanced image."""

    def __init__(self, task: Task, parts: plane_parts.Parts) -> None:
        contraction = match_contraction(parts.inner)
        assert contraction is not None
        data, indices = contraction.data, (*contraction.rows, *contraction.order)
        copy, outer = cut(parts.inner, data, indices)
        image = copy.equation.output
        layout = stage_layout(
            image, contraction.rows, contraction.order, dict(parts.inner.extents), KEPT
        )
        places = ((data.tensor, task.layout(data.tensor)), (image.tensor, layout))
        self.image = balanced_image(Task(copy, places, task.target), contraction)
        self.source = data.tensor
        named = [(image.tensor, layout) if n == data.tensor else (n, at) for n, at in task.layouts]
        super().__init__(replace(task, layouts=tuple(named)), replace(parts, inner=outer))

    def _target(self, target: Target, parts: plane_parts.Parts) -> Target:
        # A vector that is read as an operand takes its load however many lanes it has.
        return target

    def emission(self) -> Emission:
        emission = self._with_balance(super().emission())
        return replace(emission, ahead={self.source: self.image})
