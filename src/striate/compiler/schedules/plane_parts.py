"""A depthwise convolution over a pointwise product, taken apart: what `planes` computes one by one.

    y[b,p,q,c] = sum[u,v](D[u,v,c] * where(1, relu(sum[i](W[i,c] * x[b,p+u-1,q+v-1,i])),
                                              x[b,p+u-1,q+v-1,0]))
is
    plane[b,h,w,c] = relu(sum[i](W[i,c] * x[b,h,w,i]))
    y[b,p,q,c] = sum[u,v](D[u,v,c] * plane[b,p+u-1,q+v-1,c])
"""

import math
from dataclasses import dataclass

from striate.compiler.layout import NO_HALO, Halo
from striate.compiler.schedules import direct, grouped
from striate.compiler.schedules.base import window_halo
from striate.compiler.schedules.epilogue import outer_reads
from striate.compiler.schedules.staging import statement_of
from striate.compiler.target import Target
from striate.notation.ir import (
    Affine,
    Apply,
    Constant,
    Expression,
    Read,
    Reduce,
    Statement,
    reads,
)
from striate.transforms.rewrite import fresh, outside_reductions, transform

MOST_BANDS = 16


@dataclass(frozen=True, slots=True)
class Parts:
    """`inner` computes the planes that `outer`, a depthwise convolution, reads.

    Output line n needs `reach` rows of a plane, from `step`*n + `first` on.
    """

    inner: Statement
    outer: Statement
    halo: Halo
    step: int
    first: int
    reach: int

    def rows(self, first: int, last: int) -> tuple[int, int]:
        """The rows of a plane from the first to the last (not included) that such lines need."""
        start, end = self.step * first + self.first, self.step * (last - 1) + self.first
        return max(start, 0), min(end + self.reach, self.inner.shape[1])

    def bands(self) -> range:
        """The numbers of bands that lines can be divided into."""
        _, height, width, _ = self.inner.shape
        _, _, left, right = self.halo
        # Rows that lie one after another without a margin are one.
        apart = left + right > 0 and height > 1 and width > 1
        return range(1, min(MOST_BANDS, self.outer.shape[1]) + 1 if apart else 2)

    def nbytes(self, pitch: int, bands: int) -> int:
        """The size of a band of a plane with its margin, `pitch` bytes for each pixel."""
        _, height, *_ = self.inner.shape
        top, bottom, *_ = self.halo
        lines = math.ceil(self.outer.shape[1] / bands)
        rows = height if bands == 1 else min(height, self.step * (lines - 1) + self.reach)
        return (top + rows + bottom) * self.row_bytes(pitch)

    def row_bytes(self, pitch: int) -> int:
        """The bytes of a row of a plane with its margin."""
        _, _, width, _ = self.inner.shape
        _, _, left, right = self.halo
        return (left + width + right) * pitch


def match(statement: Statement, target: Target) -> Parts | None:
    expression = statement.equation.expression
    sums = {node for node in outside_reductions(expression) if isinstance(node, Reduce)}
    match list(sums):
        case [Reduce("sum", _, Apply("multiply", (Read(), Apply() as data)))]:
            pass
        case [Reduce("sum", _, Apply("multiply", (Apply() as data, Read())))]:
            pass
        case _:
            return None
    cut = _cut(statement, data)
    if cut is None:
        return None
    inner, outer, halo = cut
    if direct.seconds(inner, target) is None:
        return None
    if any(margin != NO_HALO for margin in direct.halo(inner).values()):
        return None
    depthwise = grouped.match(outer, target.lanes)
    if depthwise is None or depthwise.feature is not None:
        return None
    beside = outer_reads(outer.equation.expression) or []
    if any(len(read.access) > 1 for read in beside):
        return None
    rows, extents = depthwise.data.access[1], dict(outer.extents)
    line = depthwise.rows[1]
    taps = sum(step * (extents[index] - 1) for index, step in rows.terms if index != line)
    return Parts(inner, outer, halo, rows.coefficient(line), rows.offset, taps + 1)


def _cut(statement: Statement, data: Apply) -> tuple[Statement, Statement, Halo] | None:
    """The inner and the outer statement and the planes' halo, cut at `data`.

    The planes' places are named by indices of their own.
    """
    match data:
        case Apply("where", (Constant(1.0), value, Read())):
            guarded = True
        case _:
            value, guarded = data, False
    output, shapes, extents = (
        statement.equation.output,
        dict(statement.shapes),
        dict(statement.extents),
    )
    places = [affine.index for affine in output.access]
    images = [read for read in reads(value) if len(read.access) == 4]
    images = (
        [read for read in images if read.access[1].coefficient(places[1] or "")]
        if len(places) == 4
        else []
    )
    if None in places or not images or images[0].access[0] != output.access[0]:
        return None
    image = images[0]
    names = fresh(("h", "w"), set(extents))
    rows = tuple(Affine(((names[name], 1),)) for name in ("h", "w"))
    renamed = dict(zip(image.access[1:3], rows, strict=True))
    if len(renamed) < 2:
        return None

    def change(node: Expression) -> Expression | None:
        if isinstance(node, Read):
            return Read(node.tensor, tuple(renamed.get(a, a) for a in node.access))
        return None

    stage = fresh(["plane"], {output.tensor, *shapes})["plane"]
    batch, height, width, _ = shapes[image.tensor]
    size = (batch, height, width, statement.shape[-1])
    plane = Read(stage, (output.access[0], *rows, output.access[-1]))
    sizes = {**extents, names["h"]: height, names["w"]: width}
    inner = statement_of(plane, transform(value, change), sizes, shapes, size)
    window = Read(stage, (output.access[0], *image.access[1:3], output.access[-1]))
    rest = transform(statement.equation.expression, lambda node: window if node == data else None)
    outer = statement_of(output, rest, extents, {**shapes, stage: size}, statement.shape)
    margin = window_halo(outer, window)
    if margin is None or (not guarded and margin != NO_HALO):
        return None
    # The planes may not depend on where they are read from.
    alone = {index for index, _ in inner.extents} & set(places[1:3])
    return None if alone else (inner, outer, margin)
