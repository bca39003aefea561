"""How a contraction is cut: axes, register tiles, panels of features, chunks, packed weights."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from striate.compiler.schedules.base import Task
from striate.compiler.schedules.contraction import Contraction, packing
from striate.compiler.schedules.pooled import take_apart
from striate.compiler.schedules.tiles import Product, Tile, choose_tile
from striate.compiler.target import Target
from striate.notation.ir import Affine, Read, Statement
from striate.transforms.rewrite import fresh

# Work is cut into about this many chunks: enough that two to eight cores end together.
CHUNKS = 24
# A chunk re-reads all its weights; below this many pixels that would cost more than it balances.
PIXELS_PER_CHUNK = 64
FEWEST_CHUNKS = 8


@dataclass(frozen=True, slots=True)
class Axis:
    """An output row index, or several that lie evenly in every tensor and act as one."""

    indices: tuple[str, ...]
    size: int


class Tiling:
    """The decisions for a task whose statement is a contraction.

    `even` are reads beyond the contraction's along which the pixels of a tile must lie evenly.
    """

    def __init__(self, task: Task, contraction: Contraction, even: Sequence[Read] = ()) -> None:
        self.pooled = take_apart(task.statement)
        self.task = task = self.pooled.layer_task(task)
        self.contraction = contraction
        self.extents = dict(task.statement.extents)
        assert contraction.feature is not None
        self.features = self.extents[contraction.feature]
        self.groups = self.extents[contraction.group] if contraction.group else 1
        outside = [read for read in self.pooled.outer_reads() if read.access]
        self.tensors = [contraction.data, task.output, *outside]
        self.axes = self._merge(list(contraction.rows), [*self.tensors, *even])
        *_, down, right = self.pooled.window(["", *[axis.indices[-1] for axis in self.axes]])
        self.window = down, right
        self.tile, self.target = choose_tile(self._shape(), task.target, self._surplus)
        self.width = self.tile.vectors * self.target.lanes
        self.blocks = math.ceil(self.features / self.width)
        self.panels = self.groups * self.blocks
        self.total = math.prod(count for _, _, count in self._outer_tiles())
        row_chunks = min(CHUNKS, self.total * self.tile.pixels // PIXELS_PER_CHUNK)
        row_chunks = max(row_chunks, math.ceil(FEWEST_CHUNKS / self.panels))
        self.row_chunks = min(self.total, row_chunks)
        self.panel_chunks = min(self.panels, math.ceil(CHUNKS / self.row_chunks))

    def _merge(self, indices: list[str], reads: list[Read]) -> list[Axis]:
        """Join neighbouring indices that step evenly in every read; drop those of size 1.

        Windows that are pooled end where their index does.
        """
        axes: list[Axis] = []
        for index in [i for i in indices if self.extents[i] > 1] or indices[-1:]:
            size = self.extents[index]
            if (
                axes
                and self.pooled.window(axes[-1].indices[-1:]) == (1,)
                and all(
                    self.task.step(read, axes[-1].indices[-1]) == self.task.step(read, index) * size
                    for read in reads
                )
            ):
                axes[-1] = Axis((*axes[-1].indices, index), axes[-1].size * size)
            else:
                axes.append(Axis((index,), size))
        return axes

    def _step(self, read: Read, axis: Axis) -> int:
        return self.task.step(read, axis.indices[-1])

    def _shape(self) -> Product:
        rows = self.axes[-2].size if len(self.axes) > 1 else 1
        pitch = self._step(self.contraction.data, self.axes[-1])
        return Product(rows, self.axes[-1].size, self.features, self._terms(), pitch, self.window)

    def _surplus(self, tile: Tile, target: Target) -> float:
        """How much longer the work takes for other reasons than the tile's size."""
        return 1.0

    def _terms(self) -> int:
        """The length of one output's sum."""
        return math.prod(self.extents[index] for index in self.contraction.reduction.indices)

    def _outer_tiles(self) -> list[tuple[Axis, int, int]]:
        """(axis, tile size, number of tiles) of every row axis, outermost first."""
        sizes = [1] * len(self.axes)
        sizes[-1] = self.tile.columns
        if len(self.axes) > 1:
            sizes[-2] = self.tile.rows
        return [(a, s, math.ceil(a.size / s)) for a, s in zip(self.axes, sizes, strict=True)]

    def _packing(self) -> Statement:
        """`packed[group, block, taps..., channel, lane] = weight`, as the tiles read it."""
        contraction = self.contraction
        weight, feature = contraction.weight, contraction.feature
        assert feature is not None
        order = contraction.order
        outer = [contraction.group] if contraction.group else []
        names = fresh(("block", "lane"), set(self.extents))
        block, lane = names["block"], names["lane"]
        inside = ((block, self.width), (lane, 1))
        split = Affine(
            (*[t for t in self.task.output.access[-1].terms if t[0] != feature], *inside)
        )
        sizes = {**self.extents, block: self.blocks, lane: self.width}
        source = contraction.weight_at(split)
        ordered = {index: sizes[index] for index in (*outer, block, *order, lane)}
        return packing(self.task.statement, weight, source, ordered)
