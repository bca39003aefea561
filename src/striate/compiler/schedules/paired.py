"""A register tile whose products are made by pairs of terms, and the image of balanced pixels.

The tile reads data that are balanced already: the terms of a pixel, scaled, then its correction and
the inverse of its scale. They are made tile by tile where features share them (`inner_product`), or
for the whole image by a kernel of its own before, where many kernels' chunks need all of it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

from striate.compiler.balance import Balance
from striate.compiler.builder import Builder, Offset, Value
from striate.compiler.schedules.base import Ahead, Emission, Task
from striate.compiler.schedules.chunks import share
from striate.compiler.schedules.contraction import Contraction
from striate.compiler.schedules.direct import Direct
from striate.compiler.schedules.pairs import (
    PIXEL,
    SUM,
    TERM,
    VECTOR,
    Rows,
    emit_balanced,
    emit_kept,
    emit_pairs,
    emit_uncorrected,
    emit_unscaled,
)
from striate.compiler.schedules.tiles import Product
from striate.compiler.schedules.tiling import Axis
from striate.compiler.target import Target
from striate.notation.ir import Read, Statement

# The correction and the inverse scale.
KEPT = 2
# An image is balanced in chunks of about this many pixels.
_PIXELS_PER_CHUNK = 16


def paired_seconds(statement: Statement, contraction: Contraction, target: Target) -> float:
    """The time that balancing and the products take (s), or the weights to arrive."""
    extents = dict(statement.extents)
    assert contraction.feature is not None and contraction.channel is not None
    features = extents[contraction.feature]
    channels = extents[contraction.channel]
    terms = math.prod(extents[index] for index in contraction.order)
    pixels = math.prod(extents[index] for index in contraction.rows)
    vectors = math.ceil(features / target.lanes)
    balance = VECTOR * terms / channels * math.ceil(channels / target.lanes) + PIXEL
    cycles = pixels * (vectors * (TERM * terms + SUM) + balance)
    weights = 4.0 * terms * features / target.bytes_per_second
    return max(2.0 * target.lanes * cycles / target.flops_per_second, weights)


class Paired(Direct):
    """A tiling whose data are balanced."""

    def _shape(self) -> Product:
        return replace(super()._shape(), paired=True)

    def _runs(self) -> tuple[int, int]:
        """The runs of terms that a pixel has, and the terms of one."""
        assert self.contraction.channel is not None
        terms = self.extents[self.contraction.channel]
        return self._terms() // terms, terms

    def _fetches(self) -> int:
        number, terms = self._runs()
        return number * (terms // self.target.lanes)

    def _panels(self) -> Balance:
        """How the weights are balanced."""
        return Balance(self.panels, *self._runs(), self.width)

    def _with_balance(self, emission: Emission) -> Emission:
        return replace(emission, balances={self.contraction.weight.tensor: self._panels()})

    def _balance(self, sources: Sequence[Value], target: Value) -> None:
        """A balanced pixel at `target`, of the runs of terms at `sources`."""
        emit_pixel(self.builder, sources, target, self._runs()[1])

    def _sums(
        self,
        runs: list[Axis],
        pixels: Value,
        panel: Value,
        weights: Value,
        fetch: Callable[[Offset, int], None],
    ) -> list[Value]:
        b, lanes, width = self.builder, self.target.lanes, 4 * self.width
        number, terms = self._runs()
        packed = self.pointers[self.contraction.weight.tensor]
        balance = self._panels()
        corrections, scales = (emit_kept(b, packed, balance, panel, row) for row in (0, 1))
        offsets = tuple(self._offsets())
        places = [b.at(pixels, offset + 4 * number * terms) for offset in offsets]
        rows, sums = Rows(pixels, offsets, weights, width), emit_uncorrected(b, corrections, places)
        whole, rest = divmod(terms, lanes)
        with b.loop(0, number, 1, _carried(b, rows, sums)) as run:
            rows, sums = _rows(rows, run.values)
            if whole:
                with b.loop(0, whole, 1, _carried(b, rows, sums)) as loop:
                    fetch(b.add(b.multiply(run.index, whole), loop.index), number * whole)
                    rows, sums = _rows(rows, loop.values)
                    new = emit_pairs(b, rows, lanes, sums)
                    loop.following = [v for _, v in _carried(b, rows.moved(b, lanes), new)]
                rows, sums = _rows(rows, loop.values)
            new = emit_pairs(b, rows, rest, sums)
            run.following = [v for _, v in _carried(b, rows.moved(b, rest), new)]
        _, sums = _rows(rows, run.values)
        return emit_unscaled(b, scales, [b.at(place, 4) for place in places], sums)

    def _offsets(self) -> list[int]:
        """The offsets of the tile's pixels (bytes)."""
        places = product(range(self.tile.rows), range(self.tile.columns))
        return [self._pixel(self.contraction.data, row, column) for row, column in places]


def _carried(b: Builder, rows: Rows, sums: Sequence[Value]) -> list[tuple[str, Value]]:
    """What a loop over terms carries."""
    return [("ptr", rows.pixels), ("ptr", rows.weights), *[(b.vector, one) for one in sums]]


def _rows(rows: Rows, carried: Sequence[Value]) -> tuple[Rows, list[Value]]:
    """The rows and the sums that a loop carried."""
    pixels, weights, *sums = carried
    return replace(rows, pixels=pixels, weights=weights), sums


def emit_pixel(b: Builder, sources: Sequence[Value], target: Value, terms: int) -> None:
    """A balanced pixel at `target`, of `terms` terms at each of `sources`."""
    for k, value in enumerate(emit_balanced(b, sources, target, terms)):
        b.store_scalar(value, b.at(target, 4 * (terms * len(sources) + k)))


def run_offsets(task: Task, read: Read, taps: Sequence[str]) -> list[int]:
    """The byte offsets of the runs of terms that `read` has for all taps."""
    extents, offsets = dict(task.statement.extents), [0]
    for tap in taps:
        step = task.step(read, tap)
        offsets = [offset + step * n for offset in offsets for n in range(extents[tap])]
    return offsets


def balanced_image(task: Task, contraction: Contraction) -> Ahead:
    """The kernel that makes the balanced image, the output of `task`, of a contraction's data."""
    extents, rows = dict(task.statement.extents), contraction.rows
    pixels = math.prod(extents[row] for row in rows)
    chunks = max(1, pixels // _PIXELS_PER_CHUNK)

    def write() -> Builder:
        b = Builder(task.target)
        read = task.statement.equation.expression
        assert isinstance(read, Read)
        source, target = b.argument(0), b.argument(1)
        first, last = share(b, "%chunk", chunks, pixels)
        terms = task.statement.shape[-1]
        with b.loop(first, last) as pixel:
            rest: Offset = pixel.index
            moved: list[Offset] = [task.base(read), task.base(task.output)]
            for row in reversed(rows):
                number = b.remainder(rest, extents[row]) if row != rows[0] else rest
                rest = b.divide(rest, extents[row])
                for k, tensor in enumerate((read, task.output)):
                    moved[k] = b.add(moved[k], b.multiply(number, task.step(tensor, row)))
            start = b.at(source, moved[0])
            sources = [b.at(start, offset) for offset in run_offsets(task, read, contraction.taps)]
            emit_pixel(b, sources, b.at(target, moved[1]), terms)
        return b

    plan = f"balance: {pixels} pixels in {chunks} chunks"
    return Ahead(task, Emission(write, chunks, plan), pixels * task.step(task.output, rows[-1]))
