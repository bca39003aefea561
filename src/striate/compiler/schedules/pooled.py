"""A layer whose outputs are pooled by windows that do not meet, taken apart.

    y[b,p,q,j] = max[u,v](relu(sum[r,s,i](W[r,s,i,j] * x[b, 2*p+u+r-1, 2*q+v+s-1, i]) + B[j]))

is the layer `relu(sum[r,s,i](W[r,s,i,j] * x[b, p+r-1, q+s-1, i]) + B[j])` on twice as many rows and
columns, and of each window of 2 x 2 of its outputs the greatest. A schedule whose tiles hold whole
windows takes them together in registers, and writes a quarter.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial, reduce
from itertools import product

from striate.compiler.builder import Builder, Offset, Value
from striate.compiler.expression import COMBINE
from striate.compiler.layout import Layout
from striate.compiler.schedules.base import Task
from striate.compiler.schedules.epilogue import emit_epilogue, fits_epilogue, outer_reads
from striate.notation.ir import Affine, Expression, Position, Read, Reduce, Statement, reads, walk
from striate.transforms.rewrite import has_reduction, outside_reductions, transform

# Sizes of windows: strides (bytes) are multiples of them.
SIZES = (1, 2, 4)
KINDS = ("max", "min", "sum")


@dataclass(frozen=True, slots=True)
class Pooled:
    """`given` is a pooling of the outputs of `layer`.

    `windows` holds their size along each index of the layer's output that has any. Without a
    `reduction` nothing is pooled: `given` is the layer.
    """

    given: Statement
    layer: Statement
    reduction: Reduce | None = None
    windows: tuple[tuple[str, int], ...] = ()

    def window(self, indices: Sequence[str]) -> tuple[int, ...]:
        """The windows' size along each of the indices."""
        sizes = dict(self.windows)
        return tuple(sizes.get(index, 1) for index in indices)

    def outer_reads(self) -> list[Read]:
        """The reads outside reductions, of the layer or of what was given."""
        statements = dict.fromkeys((self.layer, self.given))
        return [r for one in statements for r in outer_reads(one.equation.expression) or []]

    def layer_task(self, task: Task) -> Task:
        """The layer's task: all outputs of a window lie in the place of one.

        That is where the first of them is if each is a part of the step from window to window.
        """
        if self.reduction is None:
            return task
        *operands, (name, layout) = task.layouts
        access = self.layer.equation.output.access
        sizes = self.window([affine.index or "" for affine in access])
        strides = tuple(s // n for s, n in zip(layout.strides, sizes, strict=True))
        top, bottom, left, right = layout.halo
        halo = layout.halo
        if any(halo):
            _, down, across, _ = sizes
            halo = (top * down, bottom * down, left * across, right * across)
        layouts = (*operands, (name, Layout(self.layer.shape, strides, halo)))
        return replace(task, statement=self.layer, layouts=layouts)

    def store(
        self,
        builder: Builder,
        task: Task,
        sums: Mapping[tuple[int, int], dict[Reduce, Value]],
        address: Callable[[tuple[int, int], Read], tuple[Value, Offset]],
        lanes: int | None,
    ) -> None:
        """Store what is pooled from the outputs of one window; `task` is the layer's.

        `sums` holds the layer's reduced values by their places, at which `address` finds what is
        read and written; without a pooling there is one.
        """
        outputs = [
            emit_epilogue(builder, task, reduced, partial(address, at), lanes)
            for at, reduced in sums.items()
        ]
        first = partial(address, min(sums))
        value = self._pooled(builder, task, outputs, first, lanes)
        pointer, offset = first(task.output)
        builder.store(value, builder.at(pointer, offset), lanes)

    def _pooled(
        self,
        builder: Builder,
        task: Task,
        outputs: Sequence[Value],
        address: Callable[[Read], tuple[Value, Offset]],
        lanes: int | None,
    ) -> Value:
        if self.reduction is None:
            (output,) = outputs
            return output
        combine = COMBINE[self.reduction.kind]
        value = reduce(lambda old, new: combine(builder, old, new), outputs)
        given = replace(task, statement=self.given)
        return emit_epilogue(builder, given, {self.reduction: value}, address, lanes)


@lru_cache(maxsize=4096)
def take_apart(statement: Statement) -> Pooled:
    """The layer in `statement`, and the windows of its outputs that are pooled, if any are."""
    return _pooling(statement) or Pooled(statement, statement)


def _pooling(statement: Statement) -> Pooled | None:
    equation, extents = statement.equation, dict(statement.extents)
    found = {n for n in outside_reductions(equation.expression) if isinstance(n, Reduce)}
    if len(found) != 1:
        return None
    (reduction,) = found
    body, outputs = reduction.body, [affine.index for affine in equation.output.access]
    parts = list(walk(body))
    if reduction.kind not in KINDS or not has_reduction(body) or not reduction.indices:
        return None
    if any(isinstance(part, Position) for part in parts) or not fits_epilogue(statement):
        return None
    windows: dict[str, int] = {}
    for inside in reduction.indices:
        row = _row(body, inside, extents[inside], outputs)
        if row is None or row in windows or extents[inside] not in SIZES:
            return None
        windows[row] = extents[inside]
        body = _without(body, inside, row, extents[inside])
    outside = outer_reads(equation.expression) or []
    if any(
        affine.coefficient(row) for read in outside for affine in read.access for row in windows
    ):
        return None
    sizes = tuple((i, n * windows.get(i, 1)) for i, n in statement.extents)
    sizes = tuple((index, size) for index, size in sizes if index not in reduction.indices)
    grown = [windows.get(index or "", 1) for index in outputs]
    shape = tuple(math.prod(pair) for pair in zip(statement.shape, grown, strict=True))
    layer = Statement(
        replace(equation, expression=body, sizes=sizes), statement.shapes, sizes, shape
    )
    return Pooled(statement, layer, reduction, tuple(windows.items()))


def block_of(first: tuple[int, int], size: tuple[int, int]) -> list[tuple[int, int]]:
    """The places of a block of a grid, row after row."""
    rows, columns = (range(at, at + n) for at, n in zip(first, size, strict=True))
    return list(product(rows, columns))


def _row(body: Expression, inside: str, size: int, outputs: Sequence[str | None]) -> str | None:
    """The output index whose windows `inside` runs through: each read has `size*row + inside`."""
    accesses = [affine for read in reads(body) for affine in read.access]
    found = {
        index
        for affine in accesses
        for index, step in affine.terms
        if index in outputs and affine.coefficient(inside) * size == step
    }
    if len(found) != 1:
        return None
    (row,) = found
    steps = [(a.coefficient(row), a.coefficient(inside) * size, a.divisor) for a in accesses]
    fits = all(step == other and (not step or divisor == 1) for step, other, divisor in steps)
    return row if fits else None


def _without(body: Expression, inside: str, row: str, size: int) -> Expression:
    """`body` with `row` in the place of `size*row + inside`."""

    def along(affine: Affine) -> Affine:
        terms = [(i, step // size if i == row else step) for i, step in affine.terms if i != inside]
        return replace(affine, terms=tuple(terms))

    def change(part: Expression) -> Expression | None:
        match part:
            case Read(tensor, access):
                return Read(tensor, tuple(along(affine) for affine in access))
            case _:
                return None

    return transform(body, change)
