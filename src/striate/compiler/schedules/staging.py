"""A product whose data are computed first: block by block, into scratch memory that stays cached.

    for each block of tiles of output pixels, for each group
      for each tile of the block: stage[pixel, tap, channel] = data            (in scratch)
      for each panel of features, for each tile: accumulate over the stage as `direct` does

The order of each sum is that of `direct`: bits don't depend on blocks or threads.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence

from striate.compiler.builder import Builder, Offset, Value
from striate.compiler.layout import Layout
from striate.compiler.schedules.base import Emission, Task
from striate.compiler.schedules.chunks import share
from striate.compiler.schedules.contraction import match_contraction
from striate.compiler.schedules.direct import Direct, Turn
from striate.compiler.schedules.tiles import CACHE_LINE
from striate.compiler.schedules.tiling import Axis
from striate.notation.ir import Affine, Equation, Expression, Read, Reduce, Statement, reads, walk
from striate.transforms.rewrite import fresh, transform


def cut(
    statement: Statement, data: Expression, indices: Sequence[str]
) -> tuple[Statement, Statement]:
    """`stage[indices...] = data`, and `statement` with that read in the place of `data`."""
    equation, shapes = statement.equation, dict(statement.shapes)
    taken = {equation.output.tensor, *shapes}
    access = tuple(Affine(((index, 1),)) for index in indices)
    stage = Read(fresh(["stage"], taken)["stage"], access)
    extents = dict(statement.extents)
    shape = tuple(extents[index] for index in indices)
    rest = transform(equation.expression, lambda node: stage if node == data else None)
    inner = statement_of(stage, data, extents, shapes, shape)
    outer = statement_of(
        equation.output, rest, extents, {**shapes, stage.tensor: shape}, statement.shape
    )
    return inner, outer


def statement_of(
    output: Read,
    expression: Expression,
    extents: Mapping[str, int],
    shapes: Mapping[str, tuple[int, ...]],
    shape: tuple[int, ...],
) -> Statement:
    """The statement `output = expression`, with the sizes that it needs."""
    found = reads(expression)
    used = {
        index for read in (output, *found) for affine in read.access for index, _ in affine.terms
    }
    used |= {i for node in walk(expression) if isinstance(node, Reduce) for i in node.indices}
    sizes = tuple((index, size) for index, size in extents.items() if index in used)
    order = dict.fromkeys(read.tensor for read in found)
    needed = tuple((name, shapes[name]) for name in order)
    return Statement(Equation(output, expression, sizes), needed, sizes, shape)


def stage_layout(
    stage: Read,
    rows: Sequence[str],
    order: Sequence[str],
    extents: Mapping[str, int],
    kept: int = 0,
) -> Layout:
    """Terms of all pixels one after another, an odd number of cache lines apart.

    After the terms of each pixel there is room for numbers that are `kept`. Groups use the same
    memory in turn.
    """
    lines = math.ceil(4 * (math.prod(extents[index] for index in order) + kept) / CACHE_LINE)
    step = CACHE_LINE * (lines + (lines % 2 == 0))
    strides: dict[str, int] = {}
    for index in reversed(rows):
        strides[index] = step
        step *= extents[index]
    inside = Layout.dense(tuple(extents[index] for index in order)).strides
    strides |= dict(zip(order, inside, strict=True))
    names = [affine.index or "" for affine in stage.access]
    shape = tuple(extents[name] for name in names)
    return Layout(shape, tuple(strides.get(name, 0) for name in names))


class Staging(Direct):
    """One emission: a direct contraction `outer` whose data are the stage that `inner` computes.

    `even` are reads by the stage along which the pixels of a tile must lie evenly.
    """

    name: str
    # Numbers that are kept after the terms of a pixel.
    kept = 0

    def __init__(
        self, task: Task, inner: Statement, outer: Statement, even: Sequence[Read] = ()
    ) -> None:
        contraction = match_contraction(outer)
        assert contraction is not None
        self.given = task
        extents = dict(task.statement.extents)
        self.order = contraction.order
        self.terms = math.prod(extents[index] for index in self.order)
        stage = inner.equation.output
        layout = stage_layout(stage, contraction.rows, self.order, extents, self.kept)
        layouts = (*task.layouts, (stage.tensor, layout))
        places = dict(layouts)
        own = tuple((name, places[name]) for name, _ in inner.shapes)
        self.stage = Task(inner, (*own, layouts[-1]), task.target)
        super().__init__(Task(outer, layouts, task.target), contraction, even)
        self._share()
        # The stage stays in half of the second-level cache while every panel passes over it.
        room = max(1, self.target.l2 // 2 // self._tile_bytes())
        self.block = min(room, math.ceil(self.total / self.row_chunks))

    def _share(self) -> None:
        """Decide the chunks, where not as `direct` does."""

    def _pixel_bytes(self) -> int:
        return self.task.step(self.contraction.data, self.contraction.rows[-1])

    def _tile_bytes(self) -> int:
        return self.tile.pixels * self._pixel_bytes()

    @abstractmethod
    def _fill(self, start: dict[Axis, Offset], group: Offset, slot: Value) -> None:
        """Write the stage of the tile that starts at `start`, pixel after pixel."""

    def emission(self) -> Emission:
        chunks = self.row_chunks * self.panel_chunks
        plan = (
            f"{self.name}: {self.block} tiles of {self.tile.rows} x {self.tile.columns} "
            f"pixels by {self.terms} staged; {self.tile.vectors} vectors of {self.target.lanes}; "
            f"{self.panels} panels x {self.total} tiles in {chunks} chunks"
        )
        scratch = self.block * self._tile_bytes()
        return Emission(self._write, chunks, plan, self._packings(), scratch, room=self._room())

    def _packings(self) -> dict[str, Statement]:
        return {self.contraction.weight.tensor: self._packing()}

    def _write(self) -> Builder:
        b = self.builder = Builder(self.target)
        for position, (tensor, _) in enumerate(self.given.layouts):
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
        """Fill the stage of tiles `first` to `last` (not included), then run `panels` on them."""
        b, stage = self.builder, self.contraction.data.tensor
        tiles = self._outer_tiles()

        def number(tile: Value) -> Offset:
            return b.add(tile, b.emit(f"sub i64 0, {first}"))

        def slot(tile: Value) -> Value:
            return b.at("%scratch", b.multiply(number(tile), self._tile_bytes()))

        with b.loop(first, last) as tile:
            self._fill(self._decode(tile.index, tiles), group, slot(tile.index))
        with b.loop(*panels) as panel:
            following = self._following(panel.index, panels[1])
            with b.loop(first, last) as tile:
                self.pointers[stage] = slot(tile.index)
                turn = Turn(number(tile.index), following)
                self._tile(panel.index, self._decode(tile.index, tiles), turn)

    def _position(self, read: Read, start: dict[Axis, Offset]) -> Offset:
        # A tile's stage begins where its slot does.
        return 0 if read is self.contraction.data else super()._position(read, start)
